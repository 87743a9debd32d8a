package remote

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"quire"
)

// hang opens n connections from an address, sends the same on each and leaves
// them there. The number of those that are not closed yet can be asked for.
func hang(t *testing.T, addr, from string, n int, begin func(net.Conn)) func() int64 {
	t.Helper()
	var open atomic.Int64
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	for range n {
		c, err := d.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		begin(c)
		open.Add(1)
		go func() {
			io.Copy(io.Discard, c) // until the other side ends it
			open.Add(-1)
		}()
	}
	return open.Load
}

// Thousands of handshakes that are begun and left hanging cost a node a bounded
// number of connections, and it still answers those it knows; the link that was
// up stays (N-04).
func TestHalfHandshakes(t *testing.T) {
	const most, each = 40, 20
	s := newSite(t, "site")
	server, node := s.identity(RoleServer, "n_server"), s.identity(RoleCompute, "n_one")
	f := &fakeNode{speak: make(chan quire.NodeReport)}
	l := listen(t)
	crowd := NewNewcomers(quire.Proxies{}, quietTest())
	crowd.max, crowd.each = most, each
	srv := Server(node, NodeHandler(f, f, quietTest()), quietTest(), RoleServer)
	srv.ConnState = crowd.State
	go srv.ServeTLS(l, "", "")
	t.Cleanup(func() { srv.Close() })
	addr := l.Addr().String()
	known := NewMachine(server, "n_one", dialer(addr))
	defer known.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	up, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- known.Watch(ctx, make(chan quire.Feed, 1), func(quire.NodeReport) {
			up <- struct{}{}
		})
	}()
	<-up
	base := runtime.NumGoroutine()

	begun := map[string]func(net.Conn){
		"nothing":          func(net.Conn) {},
		"half a handshake": func(c net.Conn) { c.Write([]byte("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")) },
		"no end of a head": func(c net.Conn) {
			tc := tls.Client(c, server.Dial(RoleCompute, "n_one"))
			tc.SetDeadline(time.Now().Add(10 * time.Second))
			io.WriteString(tc, "GET /health HTTP/1.1\r\nHost: x\r\n") // it may be out of the door already
		},
	}
	for name, begin := range begun {
		var open []func() int64
		for _, from := range []string{"127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5"} {
			mine := hang(t, addr, from, 100, begin)
			eventually(t, name+": no more from one address than it may have", func() bool { return mine() <= each })
			open = append(open, mine)
		}
		eventually(t, name+": no more in all", func() bool {
			var n int64
			for _, o := range open {
				n += o()
			}
			return n <= most && crowd.Len() <= most
		})
		if n := runtime.NumGoroutine(); n > base+400+3*most { // 400 are the test's own
			t.Errorf("%s: %d goroutines, %d before", name, n, base)
		}
		for range 3 * most {
			fresh := NewMachine(server, "n_one", dialer(addr))
			if _, err := fresh.Health(t.Context()); err != nil {
				t.Fatalf("%s: the server is not answered: %v", name, err)
			}
			fresh.Close()
		}
		eventually(t, name+": nobody is left", func() bool { return crowd.Len() == 0 })
		select {
		case f.speak <- quire.NodeReport{}:
			<-up
		case err := <-ended:
			t.Fatalf("%s: the link was lost: %v", name, err)
		}
	}
}

// What is known of a connection goes with it, and a proxy's address is no
// person's.
func TestNewcomers(t *testing.T) {
	proxies, err := quire.NewProxies([]string{"127.0.0.9"})
	check(t, err)
	n := NewNewcomers(proxies, quietTest())
	n.max, n.each = 4, 2
	l := listen(t)
	open := func(from string) net.Conn {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
		far, err := d.Dial("tcp", l.Addr().String())
		check(t, err)
		t.Cleanup(func() { far.Close() })
		c, err := l.Accept()
		check(t, err)
		return c
	}
	closed := func(c net.Conn) bool { return c.SetDeadline(time.Time{}) != nil }
	var a []net.Conn
	for i := range 6 {
		c := open("127.0.0.9")
		if !n.Enter(c) || !n.Enter(tls.Server(c, nil)) {
			t.Fatal("nobody is let in")
		}
		a = append(a, c)
		if want := min(i+1, 4); n.Len() != want {
			t.Errorf("after %d there are %d", i+1, n.Len())
		}
	}
	for i, c := range a {
		if closed(c) != (i < 2) {
			t.Errorf("%d: closed is %v", i, closed(c))
		}
	}
	n.State(a[2], http.StateActive)
	n.Leave(tls.Server(a[3], nil))
	b := []net.Conn{open("127.0.0.2"), open("127.0.0.2"), open("127.0.0.2")}
	for _, c := range b {
		n.State(c, http.StateNew)
	}
	if !closed(b[0]) || closed(b[1]) || closed(a[2]) || closed(a[4]) || n.Len() != 4 {
		t.Errorf("the third of one address: %d are in", n.Len())
	}
	n.Close()
	late := open("127.0.0.3")
	if n.State(late, http.StateNew); !closed(late) || !closed(b[2]) || closed(a[2]) || n.Enter(late) {
		t.Error("after the end somebody is still in")
	}
	for _, c := range append(a, b...) {
		n.State(c, http.StateClosed)
	}
	if n.Len() != 0 || len(n.from) != 0 || len(n.in) != 0 {
		t.Errorf("%d are left, of %d addresses", n.Len(), len(n.from))
	}
}
