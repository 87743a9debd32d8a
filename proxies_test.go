package quire

import (
	"strings"
	"testing"
)

func proxies(t *testing.T, list ...string) Proxies {
	t.Helper()
	p, err := NewProxies(list)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// S-04, G-03: for whom a request comes is what believed proxies say, the
// right-most that is not one of theirs, and what anybody else says is nothing.
func TestClientBehindProxies(t *testing.T) {
	for _, c := range []struct {
		what, believed, peer, forwarded, want string
	}{
		{"nobody believed", "", "192.0.2.1:4000", "203.0.113.9", "192.0.2.1"},
		{"nobody believed, six", "", "[2001:dba::9]:4000", "203.0.113.9", "2001:dba::9"},
		{"nobody believed, unix", "", "@", "203.0.113.9", Unknown},
		{"a stranger claims", "10.0.0.0/8", "192.0.2.1:4000", "203.0.113.9", "192.0.2.1"},
		{"a stranger claims to be a proxy", "10.0.0.0/8", "192.0.2.1:4000", "203.0.113.9, 10.0.0.1", "192.0.2.1"},
		{"one proxy", "10.0.0.1", "10.0.0.1:4000", "203.0.113.9", "203.0.113.9"},
		{"its neighbour", "10.0.0.1", "10.0.0.2:4000", "203.0.113.9", "10.0.0.2"},
		{"the client put one before", "10.0.0.1", "10.0.0.1:4000", "127.0.0.1, 203.0.113.9", "203.0.113.9"},
		{"the client put a proxy before", "10.0.0.0/8", "10.0.0.1:4000", "198.51.100.1, 10.0.0.7,203.0.113.9", "203.0.113.9"},
		{"two proxies", "10.0.0.0/8", "10.0.0.1:4000", "6.6.6.6, 203.0.113.9, 10.0.0.2", "203.0.113.9"},
		{"two lines are one list", "10.0.0.0/8", "10.0.0.1:4000", "6.6.6.6|203.0.113.9|10.0.0.2", "203.0.113.9"},
		{"only proxies", "10.0.0.0/8", "10.0.0.1:4000", "10.0.0.3, 10.0.0.2", "10.0.0.3"},
		{"it says nothing", "10.0.0.0/8", "10.0.0.1:4000", "", "10.0.0.1"},
		{"it says nonsense", "10.0.0.0/8", "10.0.0.1:4000", "203.0.113.9, localhost", "10.0.0.1"},
		{"nonsense behind a proxy", "10.0.0.0/8", "10.0.0.1:4000", "203.0.113.9, unix:, 10.0.0.2", "10.0.0.2"},
		{"an empty last one", "10.0.0.1", "10.0.0.1:4000", "203.0.113.9, ", "10.0.0.1"},
		{"a name after an address", "10.0.0.1", "10.0.0.1:4000", "203.0.113.9 evil", "10.0.0.1"},
		{"with a port", "10.0.0.1", "10.0.0.1:4000", "203.0.113.9:5555", "203.0.113.9"},
		{"six", "2001:db8::/32", "[2001:db8::1]:4000", "[2001:dba::9]:80", "2001:dba::9"},
		{"six in brackets", "2001:db8::/32", "[2001:db8::1]:4000", "[2001:dba::9]", "2001:dba::9"},
		{"six, a stranger", "2001:db8::/32", "[2001:dba::9]:4000", "203.0.113.9", "2001:dba::9"},
		{"four in six is four", "10.0.0.1", "[::ffff:10.0.0.1]:4000", "::ffff:203.0.113.9", "203.0.113.9"},
		{"four in six, configured", "::ffff:10.0.0.1", "10.0.0.1:4000", "203.0.113.9", "203.0.113.9"},
		{"a zone is the host's own affair", "fe80::/10", "[fe80::1%eth0]:4000", "203.0.113.9", "203.0.113.9"},
		{"unix", "unix", "@", "203.0.113.9", "203.0.113.9"},
		{"unix, no name at all", "unix", "", "203.0.113.9", "203.0.113.9"},
		{"unix, silent", "unix", "@", "", Unknown},
		{"unix, not believed", "10.0.0.0/8", "@", "203.0.113.9", Unknown},
		{"unix claims in the list", "unix", "10.0.0.1:4000", "203.0.113.9", "10.0.0.1"},
		{"unix, then another", "unix 10.0.0.0/8", "@", "6.6.6.6, 203.0.113.9, 10.0.0.2", "203.0.113.9"},
		{"no address and no socket", "unix", "pipe", "203.0.113.9", Unknown},
	} {
		var lines []string
		if c.forwarded != "" {
			lines = strings.Split(c.forwarded, "|")
		}
		if got := proxies(t, strings.Fields(c.believed)...).Client(c.peer, lines); got != c.want {
			t.Errorf("%s: %q, want %q", c.what, got, c.want)
		}
	}
}

// What is left of the address that a believed proxy wrote changes nothing.
func FuzzClient(f *testing.F) {
	for _, s := range []string{"", "6.6.6.6", "10.0.0.1", ",", "unix:", "[", "]:80", "\x00", "10.0.0.1,10.0.0.2", strings.Repeat("1.1.1.1,", 2000)} {
		f.Add(s)
	}
	p, err := NewProxies([]string{"10.0.0.0/8", "unix"})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, left string) {
		for _, peer := range []string{"10.0.0.1:1", "@"} {
			for _, lines := range [][]string{{left, "203.0.113.9"}, {left + ",203.0.113.9, 10.0.0.2"}} {
				if got := p.Client(peer, lines); got != "203.0.113.9" {
					t.Errorf("%s, %q: %q", peer, lines, got)
				}
			}
		}
		if got := p.Client("192.0.2.1:1", []string{left}); got != "192.0.2.1" {
			t.Errorf("a stranger's %q: %q", left, got)
		}
	})
}

func TestPlainBehindProxies(t *testing.T) {
	p := proxies(t, "10.0.0.1", "unix")
	for _, c := range []struct {
		peer, proto string
		want        bool
	}{
		{"10.0.0.1:1", "http", true}, {"@", "HTTP", true}, {"10.0.0.1:1", "https", false}, {"10.0.0.1:1", "", false},
		{"10.0.0.1:1", "https, http", true}, {"10.0.0.1:1", "http,https", false}, {"10.0.0.1:1", "https|http", true},
		{"10.0.0.2:1", "http", false}, {"pipe", "http", false},
	} {
		var lines []string
		if c.proto != "" {
			lines = strings.Split(c.proto, "|")
		}
		if got := p.Plain(c.peer, lines); got != c.want {
			t.Errorf("%s says %q: %v", c.peer, c.proto, got)
		}
	}
	if (Proxies{}).Plain("10.0.0.1:1", []string{"http"}) {
		t.Error("nobody is believed, and yet")
	}
}

func TestBadProxies(t *testing.T) {
	for _, bad := range []string{"", "proxy.example.org", "10.0.0.0/33", "0.0.0.0/0", "::/0", "::ffff:10.0.0.0/104", "*", "10.0.0.1-10.0.0.9", "UNIX", "unix:/run/x", "fe80::1%eth0", "10.0.0.1:80"} {
		if p, err := NewProxies([]string{"10.0.0.1", bad}); err == nil || p.Any() {
			t.Errorf("%q: %v %v", bad, p, err)
		}
	}
}
