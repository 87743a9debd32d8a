package remote

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"quire"
)

func TestWatch(t *testing.T) {
	t.Parallel()
	s := newSite(t, "site")
	server, node := s.identity(RoleServer, "n_server"), s.identity(RoleCompute, "n_one")
	f := &fakeNode{speak: make(chan quire.NodeReport)}
	addr := serveTLS(t, node, NodeHandler(f, f, quietTest()), RoleServer)
	m := NewMachine(server, "n_one", dialer(addr))
	ctx, cancel := context.WithCancel(t.Context())
	down, heard, ended := make(chan quire.Feed), make(chan quire.NodeReport, 10), make(chan error, 1)
	go func() { ended <- m.Watch(ctx, down, func(r quire.NodeReport) { heard <- r }) }()
	if r := <-heard; !r.Full {
		t.Fatalf("first report %+v", r)
	}
	down <- quire.Feed{Full: true, Seq: 7, Revocations: []quire.Revocation{{Seq: 7, User: "u_1"}}}
	eventually(t, "the feed arrives", func() bool { f.mu.Lock(); defer f.mu.Unlock(); return len(f.feeds) == 1 })
	if got := f.feeds[0]; got.Seq != 7 || got.Revocations[0].User != "u_1" {
		t.Errorf("feed %+v", got)
	}
	f.speak <- quire.NodeReport{Seq: 7, Sessions: []quire.SessionReport{{ID: "s_1", State: quire.SessionRunning}}}
	if r := <-heard; r.Seq != 7 || r.Sessions[0].ID != "s_1" {
		t.Errorf("report %+v", r)
	}
	// Nobody says anything for longer than a silence: the beats keep it up.
	select {
	case err := <-ended:
		t.Fatalf("an idle link ended: %v", err)
	case <-time.After(silence + beat/2):
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("ended with %v", err)
	}
	eventually(t, "the node's side ends", func() bool { f.mu.Lock(); defer f.mu.Unlock(); return f.watching == 0 })
}

func TestWatchTellsWhyItEnded(t *testing.T) {
	s := newSite(t, "site")
	server, node := s.identity(RoleServer, "n_server"), s.identity(RoleCompute, "n_one")
	f := &fakeNode{}
	addr := serveTLS(t, node, NodeHandler(f, f, quietTest()), RoleServer)
	down := make(chan quire.Feed, 1)
	down <- quire.Feed{Seq: 666}
	err := NewMachine(server, "n_one", dialer(addr)).Watch(t.Context(), down, func(quire.NodeReport) {})
	if e := quire.AsError(err); e.Kind != quire.KindConflict || e.Message != "Another server watches this node." {
		t.Errorf("ended with %v", err)
	}
}

// A peer that stops without closing (stopped process, cut cable) is noticed by
// both sides within the silence.
//
//fault:server the server falls silent without ending
//fault:seen gateways and nodes count it as away after three seconds; apps stay reachable within the grace, and the bar above each counts down
//fault:lost nothing
//fault:repair its links, when it speaks again
//fault:also TestEvents
func TestSilence(t *testing.T) {
	t.Parallel()
	s := newSite(t, "site")
	server, node := s.identity(RoleServer, "n_server"), s.identity(RoleCompute, "n_one")
	f := &fakeNode{}
	addr := serveTLS(t, node, NodeHandler(f, f, quietTest()), RoleServer)
	wire := newFreezer(t, addr)
	ended := make(chan error, 1)
	reported := make(chan struct{}, 10)
	go func() {
		ended <- NewMachine(server, "n_one", dialer(wire.addr)).Watch(t.Context(), make(chan quire.Feed), func(quire.NodeReport) { reported <- struct{}{} })
	}()
	<-reported
	wire.freeze()
	start := time.Now()
	if err := <-ended; quire.KindOf(err) != quire.KindUnavailable {
		t.Errorf("ended with %v", err)
	}
	eventually(t, "the node notices too", func() bool { f.mu.Lock(); defer f.mu.Unlock(); return f.watching == 0 })
	if d := time.Since(start); d > silence+time.Second {
		t.Errorf("it took %v", d)
	}
}

// A freezer is a TCP relay that can stop carrying without closing anything. It
// keeps what it has carried.
type freezer struct {
	addr string
	mu   sync.Mutex
	cold chan struct{}
	seen bytes.Buffer
}

func newFreezer(t *testing.T, to string) *freezer {
	l := listen(t)
	f := &freezer{addr: l.Addr().String(), cold: make(chan struct{})}
	done := t.Context().Done()
	carry := func(dst, src net.Conn) {
		buf := make([]byte, 4096)
		for {
			n, err := src.Read(buf)
			select {
			case <-f.cold:
				<-done
				return
			default:
			}
			f.mu.Lock()
			f.seen.Write(buf[:n])
			f.mu.Unlock()
			if _, werr := dst.Write(buf[:n]); err != nil || werr != nil {
				dst.Close()
				return
			}
		}
	}
	go func() {
		for {
			a, err := l.Accept()
			if err != nil {
				return
			}
			b, err := net.Dial("tcp", to)
			if err != nil {
				a.Close()
				continue
			}
			go carry(a, b)
			go carry(b, a)
		}
	}()
	return f
}

func (f *freezer) freeze() { close(f.cold) }

type fakeGateway struct {
	mu    sync.Mutex
	feeds []quire.GatewayFeed
}

func (g *fakeGateway) Attach(ctx context.Context, down <-chan quire.GatewayFeed, up func(quire.GatewayReport)) error {
	up(quire.GatewayReport{Version: "test"})
	for {
		select {
		case <-ctx.Done():
			return nil
		case feed := <-down:
			g.mu.Lock()
			g.feeds = append(g.feeds, feed)
			g.mu.Unlock()
			up(quire.GatewayReport{Seq: feed.Seq})
		}
	}
}

func TestAttach(t *testing.T) {
	t.Parallel()
	s := newSite(t, "site")
	server, gw := s.identity(RoleServer, "n_server"), s.identity(RoleGateway, "n_gw")
	g := &fakeGateway{}
	addr := serveTLS(t, gw, GatewayHandler(g, nil, quietTest()), RoleServer)
	down, up, ended := make(chan quire.GatewayFeed), make(chan quire.GatewayReport, 10), make(chan error, 1)
	go func() {
		ended <- NewGateway(server, "n_gw", addr).Attach(t.Context(), down, func(r quire.GatewayReport) { up <- r })
	}()
	if r := <-up; r.Version != "test" {
		t.Errorf("%+v", r)
	}
	// Ten thousand routes are several megabytes in one line.
	var routes []quire.Route
	for i := range 10_000 {
		routes = append(routes, quire.Route{Label: quire.NewLabel(), Session: quire.NewSessionID(), App: "notebook", Log: string(make([]byte, i%200))})
	}
	down <- quire.GatewayFeed{Feed: quire.Feed{Full: true, Seq: 3}, Routes: routes, Nodes: map[quire.NodeID]string{"n_1": "h:1"}}
	if r := <-up; r.Seq != 3 || !slices.Equal(g.feeds[0].Routes, routes) {
		t.Errorf("%d routes arrived", len(g.feeds[0].Routes))
	}
	close(down)
	if err := <-ended; err != nil {
		t.Errorf("a closed feed ended with %v", err)
	}
	for name, id := range map[string]*Identity{"a node": s.identity(RoleCompute, "n_1"), "a gateway": s.identity(RoleGateway, "n_2")} {
		if err := NewGateway(id, "n_gw", addr).Attach(t.Context(), nil, nil); err == nil {
			t.Errorf("%s attached", name)
		}
	}
	if err := NewGateway(server, "n_other", addr).Attach(t.Context(), nil, nil); err == nil {
		t.Error("attached to a gateway of another name")
	}
}

// TestThroughTheGateway: an order reaches the node through CONNECT, a node off
// the list is 403, and of the order nothing can be read on the way.
func TestThroughTheGateway(t *testing.T) {
	s := newSite(t, "site")
	server, gw, node := s.identity(RoleServer, "n_server"), s.identity(RoleGateway, "n_gw"), s.identity(RoleCompute, "n_one")
	f := &fakeNode{}
	wire := newFreezer(t, serveTLS(t, node, NodeHandler(f, f, quietTest()), RoleServer, RoleGateway))
	dial := func(ctx context.Context, n quire.NodeID) (net.Conn, error) {
		if n != "n_one" {
			return nil, quire.Forbidden("Not one of ours.")
		}
		return dialer(wire.addr)(ctx)
	}
	g := NewGateway(server, "n_gw", serveTLS(t, gw, GatewayHandler(&fakeGateway{}, dial, quietTest()), RoleServer))
	m := NewMachine(server, "n_one", func(ctx context.Context) (net.Conn, error) { return g.DialNode(ctx, "n_one") })
	canary := []byte("the order nobody on the way may read")
	if r, err := m.Do(t.Context(), canary); err != nil || r.Note != "done" {
		t.Fatalf("Do: %v", err)
	}
	if !bytes.Equal(f.orders[0], canary) {
		t.Errorf("arrived: %q", f.orders[0])
	}
	wire.mu.Lock()
	if seen := wire.seen.Bytes(); len(seen) < 500 || bytes.Contains(seen, canary) || bytes.Contains(seen, []byte("/order")) || bytes.Contains(seen, []byte("done")) {
		t.Errorf("the gateway could read the call among %d bytes", len(seen))
	}
	wire.mu.Unlock()
	// The gateway's own key does not do for the inner connection.
	if _, err := NewMachine(gw, "n_one", dialer(wire.addr)).Do(t.Context(), canary); quire.KindOf(err) != quire.KindForbidden {
		t.Errorf("the gateway ordered: %v", err)
	}
	for _, n := range []quire.NodeID{"n_two", "n_gw", "127.0.0.1", "n_one.evil"} {
		if c, err := g.DialNode(t.Context(), n); quire.KindOf(err) != quire.KindForbidden {
			t.Errorf("%s: %v %v", n, c, err)
		}
	}
	// A gateway that gives another node is found out before the order is sent.
	other := &fakeNode{}
	wrong := serveTLS(t, s.identity(RoleCompute, "n_two"), NodeHandler(other, other, quietTest()), RoleServer)
	if _, err := NewMachine(server, "n_one", dialer(wrong)).Do(t.Context(), canary); err == nil || len(other.orders) != 0 {
		t.Errorf("the order went to another node: %v", err)
	}
}

func TestLinkLimits(t *testing.T) {
	s := newSite(t, "site")
	server, node := s.identity(RoleServer, "n_server"), s.identity(RoleCompute, "n_one")
	for name, say := range map[string]func(io.Writer){
		"an endless line": func(w io.Writer) {
			piece := bytes.Repeat([]byte("x"), 1<<16)
			for range 1 << 12 {
				if _, err := w.Write(piece); err != nil {
					return
				}
			}
		},
		"not JSON":        func(w io.Writer) { io.WriteString(w, "hello\n") },
		"an odd error":    func(w io.Writer) { io.WriteString(w, "!{}\n") },
		"the wrong types": func(w io.Writer) { io.WriteString(w, `{"seq":"one"}`+"\n") },
		"end of file":     func(w io.Writer) {},
	} {
		addr := serveTLS(t, node, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			conn, _, err := hijack(w, r, linkProtocol)
			if err == nil {
				say(conn)
				conn.Close()
			}
		}), RoleServer)
		err := NewMachine(server, "n_one", dialer(addr)).Watch(t.Context(), make(chan quire.Feed), func(quire.NodeReport) { t.Error("a report came up") })
		if quire.KindOf(err) != quire.KindUnavailable {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzLink(f *testing.F) {
	f.Add([]byte("{}\n\n{\"seq\":1}\n"))
	f.Add([]byte("!{\"kind\":\"conflict\"}\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, c := net.Pipe()
		go func() { c.Write(b); c.Close() }()
		l := newLink[quire.Feed, quire.NodeReport](a, bufio.NewReader(a), 1<<16)
		if err := l.receive(func(quire.Feed) {}); err == nil {
			t.Error("a link ends with a reason")
		}
	})
}
