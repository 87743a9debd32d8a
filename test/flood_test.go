package test

import (
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"quire/compute/remote"
)

// Thousands of connections that say nothing, half a handshake or half a request
// hang on every port at once. Each role holds a bounded number of them and
// answers everybody else; then it closes them by itself (N-04, 5,000 on each
// port in a soak).
//
//fault:network thousands of connections hang half open on every port
//fault:seen nothing
//fault:lost nothing
//fault:repair each role holds a bounded number of them and closes them
//fault:also TestHalfHandshakes
func TestHalfOpenEverywhere(t *testing.T) {
	each, from := 1200, 1
	if os.Getenv("QUIRE_SOAK") != "" {
		each, from = 5000, 5
	}
	s := Up(t)
	ctx := within(t, 5*time.Minute)
	ada := s.Admin(ctx, "ada", password)
	running(t, ctx, ada, "/ada/Welcome")
	n, err := ada.OpenNotebook(ctx, "/ada/Welcome")
	if err != nil {
		t.Fatal(err)
	}
	portal, err := url.Parse(s.Portal)
	if err != nil {
		t.Fatal(err)
	}
	ports := map[string]string{"server": portal.Port(), "gateway": "8089", "compute": "5002"}
	descriptors := func(role string) int {
		all, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.Role(role)))
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	pids, before := map[string]int{}, map[string]int{}
	for role := range ports {
		pids[role], before[role] = s.Role(role), descriptors(role)
	}
	begun := []string{"", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "GET / HTTP/1.1\r\nHost: quire.localhost\r\nX: "}
	var open, worst atomic.Int64
	var all []net.Conn
	t.Cleanup(func() {
		for _, c := range all {
			c.Close()
		}
	})
	for i := range each {
		for role, port := range ports {
			d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(1+i%from))}}
			c, err := d.DialContext(ctx, "tcp", "127.0.0.1:"+port)
			if err != nil {
				t.Fatalf("%s after %d: %v", role, i, err)
			}
			all = append(all, c)
			io.WriteString(c, begun[i%len(begun)])
			open.Add(1)
			go func() {
				io.Copy(io.Discard, c)
				open.Add(-1)
			}()
			if i%100 == 0 {
				worst.Store(max(worst.Load(), int64(descriptors(role)-before[role])))
			}
		}
	}
	for role := range ports {
		worst.Store(max(worst.Load(), int64(descriptors(role)-before[role])))
	}
	most := remote.MaxFrom
	if from > 1 {
		most = remote.MaxNewcomers
	}
	if n := worst.Load(); n < 50 || n > int64(most+100) {
		t.Errorf("a role held %d connections, of at most %d", n, most)
	}
	// New connections, by all three: the portal, and an app through gateway and node.
	if page, err := NewBrowser(s.Portal).Open(ctx, s.Portal+"/login"); err != nil || page.Status != 200 {
		t.Errorf("the portal: %v", err)
	}
	ada.Close()
	if err := n.Call(ctx, "GET", "api/contents/", nil, nil); err != nil {
		t.Errorf("the notebook: %v", err)
	}
	Eventually(t, time.Minute, "all are closed by the roles", func() error {
		if n := open.Load(); n > 0 {
			return fmt.Errorf("%d are open", n)
		}
		return nil
	})
	for role, pid := range pids {
		if s.Role(role) != pid {
			t.Errorf("the %s is another process", role)
		}
	}
	if err := n.Call(ctx, "GET", "api/contents/", nil, nil); err != nil {
		t.Errorf("the notebook afterwards: %v", err)
	}
}
