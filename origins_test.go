package quire

import (
	"net/url"
	"strings"
	"testing"
)

func origins(t *testing.T, portal, apps string, aliases ...string) Origins {
	t.Helper()
	o, err := NewOrigins(OriginConfig{Portal: portal, Apps: apps, Aliases: aliases})
	if err != nil {
		t.Fatal(err)
	}
	return o
}

const aLabel = Label("abcdefghijklmnopqr23")

func TestWildcardOrigins(t *testing.T) {
	o := origins(t, "http://quire.localhost:8080", "http://*.apps.localhost:8089")
	if o.Shared() {
		t.Error("a wildcard is shared")
	}
	for got, want := range map[string]string{
		o.Portal():                         "http://quire.localhost:8080",
		o.Origin(aLabel):                   "http://abcdefghijklmnopqr23.apps.localhost:8089",
		o.Prefix(aLabel):                   "",
		o.App(aLabel, "notebook", "/tree"): "http://abcdefghijklmnopqr23.apps.localhost:8089/notebook/tree",
		o.FormTargets():                    "http://*.apps.localhost:8089",
		origins(t, "https://q.org/", "https://*.Apps.Q.net").Origin(aLabel): "https://abcdefghijklmnopqr23.apps.q.net",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	host := string(aLabel) + ".apps.localhost:8089"
	if l, ok := o.Label(host, "/anything"); !ok || l != aLabel {
		t.Errorf("%q, %v", l, ok)
	}
	for _, bad := range []string{
		"", "apps.localhost:8089", ".apps.localhost:8089", "quire.localhost:8080", "localhost:8089",
		strings.ToUpper(string(aLabel)) + ".apps.localhost:8089", // upper case
		string(aLabel) + ".APPS.localhost:8089",
		string(aLabel) + ".apps.localhost:8089.", // trailing dot
		string(aLabel) + ".apps.localhost.:8089",
		string(aLabel) + ".apps.localhost",      // another port
		string(aLabel) + ".apps.localhost:8090", // another gateway
		string(aLabel) + ".apps.evil.org:8089",
		string(aLabel) + "." + string(aLabel) + ".apps.localhost:8089", // label.label2
		"x." + string(aLabel) + ".apps.localhost:8089",
		"xn--" + string(aLabel)[4:] + ".apps.localhost:8089", // punycode
		"6ba7b810-9dad-11d1-80b4-00c04fd430c8.apps.localhost:8089",
		strings.Repeat("a", 64) + ".apps.localhost:8089",
		string(aLabel)[:19] + ".apps.localhost:8089",
		string(aLabel) + "a.apps.localhost:8089",
		" " + host, host + " ", host + "\n", "user@" + host,
	} {
		if l, ok := o.Label(bad, "/"+string(aLabel)+"/"); ok {
			t.Errorf("%q has the label %q", bad, l)
		}
	}
}

func TestSharedOrigins(t *testing.T) {
	o := origins(t, "http://box:8080", "http://box:8089")
	if !o.Shared() {
		t.Error("one host is not shared")
	}
	for got, want := range map[string]string{
		o.Origin(aLabel):                "http://box:8089",
		o.Prefix(aLabel):                "/abcdefghijklmnopqr23",
		o.App(aLabel, "lab", "/tree/a"): "http://box:8089/abcdefghijklmnopqr23/lab/tree/a",
		o.FormTargets():                 "http://box:8089",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	for _, c := range []struct {
		host, path string
		ok         bool
	}{
		{"box:8089", "/abcdefghijklmnopqr23/lab/", true},
		{"BOX:8089", "/abcdefghijklmnopqr23", true},
		{"box:8089", "/", false},
		{"box:8089", "", false},
		{"box:8089", "//abcdefghijklmnopqr23/lab", false},
		{"box:8089", "/ABCDEFGHIJKLMNOPQR23/lab", false},
		{"box:8089", "/x/abcdefghijklmnopqr23/lab", false},
		{"box:8089", "/abcdefghijklmnopqr23%2flab", false},
		{"box:8089", "/../abcdefghijklmnopqr23/", false},
		{"box:8080", "/abcdefghijklmnopqr23/lab", false},
		{"evil:8089", "/abcdefghijklmnopqr23/lab", false},
		{"abcdefghijklmnopqr23.box:8089", "/abcdefghijklmnopqr23/lab", false},
	} {
		if l, ok := o.Label(c.host, c.path); ok != c.ok || ok && l != aLabel {
			t.Errorf("%s %s: %q, %v", c.host, c.path, l, ok)
		}
	}
}

func TestCookies(t *testing.T) {
	local := origins(t, "http://quire.localhost:8080", "http://*.apps.localhost:8089")
	tls := origins(t, "https://quire.example.org", "https://*.apps.example.net")
	plain := origins(t, "http://box:8080", "http://*.apps.box.lan:8089")
	shared := origins(t, "http://box:8080", "http://box:8089")
	sharedTLS := origins(t, "https://box", "https://box:8089")
	for _, c := range []struct {
		what       string
		o          Origins
		purpose    string
		label      Label
		name, path string
		secure     bool
	}{
		{"localhost portal", local, "login", "", "__Host-quire_login", "/", true},
		{"localhost app", local, "app", aLabel, "__Host-quire_app", "/", true},
		{"localhost nonce", local, "nonce", aLabel, "__Host-quire_nonce", "/", true},
		{"TLS portal", tls, "write", "", "__Host-quire_write", "/", true},
		{"TLS app", tls, "app", aLabel, "__Host-quire_app", "/", true},
		{"plain portal", plain, "login", "", "quire_login", "/", false},
		{"plain app", plain, "app", aLabel, "quire_app", "/", false},
		{"shared portal", shared, "login", "", "quire_login", "/", false},
		{"shared app", shared, "app", aLabel, "quire_app_" + string(aLabel), "/" + string(aLabel) + "/", false},
		{"shared app over TLS", sharedTLS, "app", aLabel, "quire_app_" + string(aLabel), "/" + string(aLabel) + "/", true},
	} {
		name, path, secure := c.o.Cookie(c.purpose, c.label)
		if name != c.name || path != c.path || secure != c.secure {
			t.Errorf("%s: %s; Path=%s; Secure=%v", c.what, name, path, secure)
		}
		// The prefix is a promise that browsers check.
		if strings.HasPrefix(name, "__Host-") && (path != "/" || !secure) {
			t.Errorf("%s: a browser refuses %s with path %s, secure %v", c.what, name, path, secure)
		}
	}
}

func TestPortalHost(t *testing.T) {
	o := origins(t, "http://quire.localhost:8080", "http://*.apps.localhost:8089", "Box.LAN", "10.0.0.7")
	for host, want := range map[string]HostAnswer{
		"quire.localhost:8080": HostServe,
		"QUIRE.localhost:8080": HostServe,

		"quire.localhost":      HostRedirect,
		"quire.localhost:9999": HostRedirect,
		"localhost:8080":       HostRedirect,
		"127.0.0.1:8080":       HostRedirect,
		"[::1]:8080":           HostRedirect,
		"[::1]":                HostRedirect,
		"box.lan:8080":         HostRedirect,
		"10.0.0.7":             HostRedirect,

		"":                                      HostRefuse,
		"evil.example":                          HostRefuse,
		"evil.example:8080":                     HostRefuse,
		"quire.localhost.evil.org":              HostRefuse,
		"evil.quire.localhost:8080":             HostRefuse,
		"xquire.localhost:8080":                 HostRefuse,
		"quire.localhost.:8080":                 HostRefuse,
		"127.0.0.2:8080":                        HostRefuse,
		"0.0.0.0:8080":                          HostRefuse,
		"[::]:8080":                             HostRefuse,
		"2130706433":                            HostRefuse,
		"user@quire.localhost:8080":             HostRefuse,
		string(aLabel) + ".apps.localhost:8089": HostRefuse,
	} {
		if got := o.PortalHost(host); got != want {
			t.Errorf("%q: %v, want %v", host, got, want)
		}
	}
}

// Browsers leave a default port out of Host, so an address with one must mean
// the same as the address without it.
func TestDefaultPorts(t *testing.T) {
	o := origins(t, "https://q.example.org:443", "https://*.apps.example.org:443")
	if got := o.Portal(); got != "https://q.example.org" {
		t.Errorf("portal %q", got)
	}
	if o.PortalHost("q.example.org") != HostServe {
		t.Error("the canonical address would be redirected to itself for ever")
	}
	if _, ok := o.Label(string(aLabel)+".apps.example.org", "/"); !ok {
		t.Error("no app origin would ever be found")
	}
	if got := origins(t, "http://q:80", "http://q:8089").Portal(); got != "http://q" {
		t.Errorf("portal %q", got)
	}
	if got := origins(t, "http://q:443", "http://q:8089").Portal(); got != "http://q:443" {
		t.Errorf("portal %q", got)
	}
	if got := origins(t, "http://[::1]:80", "http://q:8089").Portal(); got != "http://[::1]" {
		t.Errorf("portal %q", got)
	}
}

func TestBadOrigins(t *testing.T) {
	const good = "http://quire.localhost:8080"
	for _, bad := range []string{
		"", "quire.localhost", "quire.localhost:8080", "//quire.localhost", "ftp://q", "javascript:alert(1)", "http://", "http://:8080",
		"http://q/path", "http://q?x=1", "http://q?", "http://q#x", "http://user@q", "http://user:pw@q", "http://q\n", "http://q q", "http://*.q/x", "http://a.*.q", "http://q*",
		"http://%zz", "http://q:99999999",
	} {
		if o, err := NewOrigins(OriginConfig{Portal: bad, Apps: "http://*.apps.localhost:8089"}); err == nil {
			t.Errorf("portal %q became %q", bad, o.Portal())
		}
		if o, err := NewOrigins(OriginConfig{Portal: good, Apps: bad}); err == nil {
			t.Errorf("apps %q became %q", bad, o.Origin(aLabel))
		}
	}
	if o, err := NewOrigins(OriginConfig{Portal: "http://*.q", Apps: "http://q:8089"}); err == nil {
		t.Errorf("a portal with a star became %q", o.Portal())
	}
}

// Every address that we make leads back to its label, and is an address.
func FuzzOriginsLabel(f *testing.F) {
	f.Add("abcdefghijklmnopqr23.apps.localhost:8089", "/notebook/")
	f.Add("box:8089", "/abcdefghijklmnopqr23/lab")
	w, err := NewOrigins(OriginConfig{Portal: "http://quire.localhost:8080", Apps: "http://*.apps.localhost:8089"})
	if err != nil {
		f.Fatal(err)
	}
	s, err := NewOrigins(OriginConfig{Portal: "http://box:8080", Apps: "http://box:8089"})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, host, path string) {
		for _, o := range []Origins{w, s} {
			l, ok := o.Label(host, path)
			if !ok {
				continue
			}
			if !l.Valid() {
				t.Fatalf("%q %q gave %q", host, path, l)
			}
			u, err := url.Parse(o.App(l, "x", "/"))
			if err != nil {
				t.Fatal(err)
			}
			if again, ok := o.Label(u.Host, u.Path); !ok || again != l {
				t.Fatalf("%q leads to %q", u, again)
			}
		}
	})
}

func TestSameSiteOrTLS(t *testing.T) {
	for _, c := range []struct {
		portal, apps string
		want         bool
	}{
		{"http://quire.localhost:8080", "http://*.apps.localhost:8089", true},
		{"http://quire.example.org", "http://*.apps.example.org:8089", true},
		{"http://quire.example.org", "https://*.apps.example.net", true},
		{"https://quire.example.org", "https://*.apps.example.net", true},
		{"http://10.0.0.1", "http://10.0.0.1:8089", true},
		{"http://quire", "http://quire:8089", true},
		{"http://quire.example.org", "http://*.apps.example.net:8089", false},
		{"http://quire.example.org", "http://10.0.0.1:8089", false},
		{"http://10.0.0.1", "http://10.0.0.2:8089", false},
		{"https://quire.example.org", "http://*.apps.example.org", false},
		{"http://quire", "http://gateway:8089", false},
	} {
		if got := SameSiteOrTLS(c.portal, c.apps); got != c.want {
			t.Errorf("%s to %s: %v", c.portal, c.apps, got)
		}
	}
}

func TestExposed(t *testing.T) {
	for origin, want := range map[string]bool{
		"http://quire.example.org": true, "http://*.apps.example.net": true, "http://10.0.0.1:8080": true, "http://[2001:db8::1]": true, "http://localhost.example.org": true,
		"https://quire.example.org": false, "http://quire.localhost:8080": false, "http://*.apps.localhost:8089": false, "http://localhost": false, "http://127.0.0.1:8080": false, "http://[::1]:8080": false,
	} {
		if got := Exposed(origin); got != want {
			t.Errorf("%s: %v", origin, got)
		}
	}
}
