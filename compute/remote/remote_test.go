package remote

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"quire"
)

// A site is an authority and identities made by it, on disk as in life.
type site struct {
	t    *testing.T
	ca   *Authority
	dirs map[string]string
}

func newSite(t *testing.T, installation string) *site {
	ca, err := NewAuthority(installation)
	if err != nil {
		t.Fatal(err)
	}
	return &site{t: t, ca: ca, dirs: map[string]string{}}
}

func (s *site) identity(role string, node quire.NodeID) *Identity {
	s.t.Helper()
	dir := s.t.TempDir()
	if err := NewIdentity(s.ca, role, node, dir); err != nil {
		s.t.Fatal(err)
	}
	id, err := LoadIdentity(dir)
	if err != nil {
		s.t.Fatal(err)
	}
	s.dirs[role] = dir
	return id
}

func quietTest() *slog.Logger { return slog.New(slog.DiscardHandler) }

func listen(t *testing.T) net.Listener {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func serveTLS(t *testing.T, id *Identity, h http.Handler, roles ...string) string {
	l := listen(t)
	srv := Server(id, h, quietTest(), roles...)
	go srv.ServeTLS(l, "", "")
	t.Cleanup(func() { srv.Close() })
	return l.Addr().String()
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
		<-tick.C
	}
}

// fakeNode is a Machine and Streams that remembers what it was asked.
type fakeNode struct {
	mu          sync.Mutex
	orders      [][]byte
	feeds       []quire.Feed
	grants      [][]byte
	watching    int
	err         error
	open        func() (net.Conn, error)
	speak       chan quire.NodeReport
	send        []byte
	got         []byte
	asked, gone chan struct{}
}

func (f *fakeNode) Do(_ context.Context, order []byte) (quire.Receipt, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.orders = append(f.orders, order)
	return quire.Receipt{Note: "done"}, f.err
}

func (f *fakeNode) Watch(ctx context.Context, down <-chan quire.Feed, up func(quire.NodeReport)) error {
	f.mu.Lock()
	f.watching++
	f.mu.Unlock()
	defer func() { f.mu.Lock(); f.watching--; f.mu.Unlock() }()
	up(quire.NodeReport{Full: true})
	for {
		select {
		case <-ctx.Done():
			return nil
		case feed := <-down:
			f.mu.Lock()
			f.feeds = append(f.feeds, feed)
			f.mu.Unlock()
			if feed.Seq == 666 {
				return quire.Conflict("", "Another server watches this node.")
			}
		case r := <-f.speak:
			up(r)
		}
	}
}

func (f *fakeNode) Health(context.Context) (quire.NodeHealth, error) {
	return quire.NodeHealth{Version: "test", CPUs: 2}, f.err
}

func (f *fakeNode) Log(_ context.Context, id quire.SessionID, n int) (string, error) {
	return fmt.Sprintf("%s %d", id, n), f.err
}

func (f *fakeNode) Open(_ context.Context, gw quire.NodeID, s quire.SessionID, grant []byte) (net.Conn, error) {
	f.mu.Lock()
	f.grants = append(f.grants, grant)
	f.mu.Unlock()
	if f.err != nil {
		return nil, f.err
	}
	return f.open()
}

func (f *fakeNode) Renew(_ context.Context, gw quire.NodeID, grant []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.grants = append(f.grants, append([]byte(gw+" "), grant...))
	return f.err
}

func dialer(addr string) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", addr)
	}
}

func TestCallsKeepAnswersAndErrors(t *testing.T) {
	s := newSite(t, "site")
	server, node := s.identity(RoleServer, "n_server"), s.identity(RoleCompute, "n_one")
	f := &fakeNode{}
	addr := serveTLS(t, node, NodeHandler(f, f, quietTest()), RoleServer, RoleGateway)
	m := NewMachine(server, "n_one", dialer(addr))
	defer m.Close()
	ctx := t.Context()

	r, err := m.Do(ctx, []byte("order"))
	if err != nil || r.Note != "done" || string(f.orders[0]) != "order" {
		t.Fatalf("Do: %v %v", r, err)
	}
	if h, err := m.Health(ctx); err != nil || h.CPUs != 2 {
		t.Fatalf("Health: %v %v", h, err)
	}
	if text, err := m.Log(ctx, "s_1", 99); err != nil || text != "s_1 99" {
		t.Fatalf("Log: %q %v", text, err)
	}
	for _, want := range []*quire.Error{
		quire.Invalid("dir", "No."), quire.NotFound("session"), quire.Unavailable("Later.", nil), quire.Failed("It broke.", nil),
		{Kind: quire.KindTooMany, Message: "Slowly.", RetryAfter: 7}, quire.Forbidden("Not you."), quire.Conflict("", "Twice."),
	} {
		f.err = want
		if _, err := m.Do(ctx, nil); *quire.AsError(err) != *want {
			t.Errorf("sent %v, got %v", want, err)
		}
	}
	f.err = errors.New("the secret inner text")
	if _, err := m.Health(ctx); quire.KindOf(err) != quire.KindInternal || strings.Contains(err.Error(), "secret") {
		t.Errorf("an inner error came out as %v", err)
	}
}

func TestOrderSurvivesTheCallersDeath(t *testing.T) {
	s := newSite(t, "site")
	server, node := s.identity(RoleServer, "n_server"), s.identity(RoleCompute, "n_one")
	started, finish, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	slow := &slowNode{fakeNode: &fakeNode{}, do: func(ctx context.Context) {
		close(started)
		<-finish
		ended <- ctx.Err()
	}}
	addr := serveTLS(t, node, NodeHandler(slow, slow, quietTest()), RoleServer)
	ctx, cancel := context.WithCancel(t.Context())
	m := NewMachine(server, "n_one", dialer(addr))
	go func() { <-started; cancel() }()
	if _, err := m.Do(ctx, []byte("x")); quire.KindOf(err) != quire.KindUnavailable {
		t.Errorf("got %v", err)
	}
	close(finish)
	if err := <-ended; err != nil {
		t.Errorf("the order was cancelled with its caller: %v", err)
	}
}

type slowNode struct {
	*fakeNode
	do func(context.Context)
}

func (s *slowNode) Do(ctx context.Context, _ []byte) (quire.Receipt, error) {
	s.do(ctx)
	return quire.Receipt{}, nil
}

// TestStrangers: every wrong peer is refused in both directions, and the node's
// code is never reached.
func TestStrangers(t *testing.T) {
	s, other := newSite(t, "site"), newSite(t, "site")
	elsewhere := newSite(t, "elsewhere")
	node := s.identity(RoleCompute, "n_one")
	f := &fakeNode{}
	addr := serveTLS(t, node, NodeHandler(f, f, quietTest()), RoleServer, RoleGateway)

	bare := &Identity{Role: RoleServer, Node: "n_server", Installation: "site"}
	bare.trusted.Store(node.trusted.Load())
	callers := []struct {
		name string
		id   *Identity
	}{
		{"a gateway orders", s.identity(RoleGateway, "n_gw")},
		{"a node orders", s.identity(RoleCompute, "n_two")},
		{"the node itself orders", node},
		{"another authority of the same name", other.identity(RoleServer, "n_server")},
		{"another installation", elsewhere.identity(RoleServer, "n_server")},
		{"no certificate", bare},
	}
	bare.cert.Store(&tls.Certificate{})
	for _, c := range callers {
		m := NewMachine(c.id, "n_one", dialer(addr))
		if _, err := m.Do(t.Context(), []byte("order")); err == nil {
			t.Errorf("%s: let in", c.name)
		}
		if err := m.Watch(t.Context(), nil, nil); err == nil {
			t.Errorf("%s: may watch", c.name)
		}
		m.Close()
	}
	if len(f.orders)+f.watching != 0 {
		t.Errorf("the node carried out %d orders of strangers", len(f.orders))
	}

	server := s.identity(RoleServer, "n_server")
	if _, err := DialStream(t.Context(), server, addr, "n_one", "s_1", nil); quire.KindOf(err) != quire.KindForbidden {
		t.Errorf("the server opened a stream: %v", err)
	}
	if err := RenewLease(t.Context(), server, addr, "n_one", nil); quire.KindOf(err) != quire.KindForbidden {
		t.Errorf("the server renewed a lease: %v", err)
	}

	// The other way round: the one that answers is not the one asked for.
	for name, answering := range map[string]*Identity{
		"another node":         s.identity(RoleCompute, "n_two"),
		"a gateway as node":    s.identity(RoleGateway, "n_one"),
		"another authority":    other.identity(RoleCompute, "n_one"),
		"another installation": elsewhere.identity(RoleCompute, "n_one"),
	} {
		g := &fakeNode{}
		addr := serveTLS(t, answering, NodeHandler(g, g, quietTest()), RoleServer)
		if _, err := NewMachine(server, "n_one", dialer(addr)).Do(t.Context(), []byte("order")); err == nil || len(g.orders) != 0 {
			t.Errorf("%s: answered as n_one: %v", name, err)
		}
	}
}

// An authority's key could be used to make odd certificates; we still refuse
// them.
func TestOneNameOnly(t *testing.T) {
	s := newSite(t, "site")
	for _, bad := range []struct {
		role string
		node quire.NodeID
	}{{"", "n_1"}, {"server", ""}, {"Server", "n_1"}, {"server", "n/1"}, {"server", "n.1"}, {"ser/ver", "n1"}, {"server", "n_1\x00"}, {"server", "*"}} {
		if _, err := s.ca.Issue(bad.role, bad.node, 1, s.ca.key.Public()); err == nil {
			t.Errorf("issued %q %q", bad.role, bad.node)
		}
	}
	for _, name := range []string{"", "Site", "a b", "a/b", "-x", strings.Repeat("a", 64)} {
		if _, err := NewAuthority(name); err == nil {
			t.Errorf("authority %q", name)
		}
	}
}

// Of a request for a certificate only the key is taken, and only one of our kind
// (N-03). The name, the role and what it may do are the authority's.
func TestCertify(t *testing.T) {
	s := newSite(t, "site")
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	check(t, err)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	check(t, err)
	edKey, _, err := ed25519.GenerateKey(rand.Reader)
	check(t, err)
	for name, key := range map[string]any{"P-384": p384.Public(), "RSA": rsaKey.Public(), "Ed25519": edKey} {
		der, err := x509.MarshalPKIXPublicKey(key)
		check(t, err)
		if _, err := s.ca.Certify(RoleCompute, "n_one", 1, der); err == nil {
			t.Errorf("a key of the kind %s was certified", name)
		}
	}
	for _, der := range [][]byte{nil, []byte("key"), s.ca.DER()} {
		if _, err := s.ca.Certify(RoleCompute, "n_one", 1, der); err == nil {
			t.Errorf("%d bytes that are no key were certified", len(der))
		}
	}
	good, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	der, err := x509.MarshalPKIXPublicKey(good.Public())
	check(t, err)
	text, err := s.ca.Certify(RoleCompute, "n_one", 3, der)
	check(t, err)
	cert, err := parseCert("x", text)
	check(t, err)
	if cert.IsCA || len(cert.URIs) != 1 || len(cert.IPAddresses) != 0 || cert.NotAfter.Sub(cert.NotBefore) > identityLife+2*clockSlack || generationOf(cert) != 3 {
		t.Errorf("certified was %+v", cert)
	}
}

// Check has the last word on both sides, with the key that was shown (N-06).
func TestCheckPeer(t *testing.T) {
	s := newSite(t, "site")
	node, server, door := s.identity(RoleCompute, "n_one"), s.identity(RoleServer, "n_server"), s.identity(RoleGateway, "n_gw")
	seen := make(chan string, 10)
	node.Check = func(role string, id quire.NodeID, fingerprint string) error {
		seen <- string(id) + " " + fingerprint
		if role == RoleGateway {
			return errors.New("not of this data center")
		}
		return nil
	}
	f := &fakeNode{}
	addr := serveTLS(t, node, NodeHandler(f, f, quietTest()), RoleServer, RoleGateway)
	if _, err := NewMachine(server, "n_one", dialer(addr)).Health(t.Context()); err != nil {
		t.Errorf("the server: %v", err)
	}
	if got := <-seen; got != "n_server "+Fingerprint(server.Is().Public) {
		t.Errorf("checked was %q", got)
	}
	if _, err := DialStream(t.Context(), door, addr, "n_one", "s_1", nil); err == nil || len(f.grants) != 0 {
		t.Errorf("a gateway of another data center: %v", err)
	}
	server.Check = func(_ string, _ quire.NodeID, fingerprint string) error {
		if fingerprint != Fingerprint(node.Is().Public) {
			t.Errorf("the node showed %s", fingerprint)
		}
		return errors.New("it was removed")
	}
	if _, err := NewMachine(server, "n_one", dialer(addr)).Health(t.Context()); err == nil {
		t.Error("a removed node is spoken to")
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestTLSVersion(t *testing.T) {
	s := newSite(t, "site")
	node := s.identity(RoleCompute, "n_one")
	f := &fakeNode{}
	addr := serveTLS(t, node, NodeHandler(f, f, quietTest()), RoleServer)
	conf := s.identity(RoleServer, "n_server").Dial(RoleCompute, "n_one")
	conf.MinVersion, conf.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	if c, err := tls.Dial("tcp", addr, conf); err == nil {
		c.Close()
		t.Error("TLS 1.2 was spoken")
	}
}

func TestNobodyWithoutRoles(t *testing.T) {
	s := newSite(t, "site")
	node := s.identity(RoleCompute, "n_one")
	f := &fakeNode{}
	addr := serveTLS(t, node, NodeHandler(f, f, quietTest()))
	if _, err := NewMachine(s.identity(RoleServer, "n_server"), "n_one", dialer(addr)).Health(t.Context()); err == nil {
		t.Error("an empty list of roles let somebody in")
	}
	// Served without certificates at all, the handler still refuses.
	w := newRecorder()
	req, _ := http.NewRequest("POST", "/order", strings.NewReader("x"))
	NodeHandler(f, f, quietTest()).ServeHTTP(w, req)
	if w.status != http.StatusForbidden || len(f.orders) != 0 {
		t.Errorf("status %d", w.status)
	}
}

type recorder struct {
	status int
	header http.Header
	body   bytes.Buffer
}

func newRecorder() *recorder                        { return &recorder{header: http.Header{}} }
func (r *recorder) Header() http.Header             { return r.header }
func (r *recorder) WriteHeader(s int)               { r.status = s }
func (r *recorder) Write(b []byte) (n int, e error) { return r.body.Write(b) }

func TestLoadRefuses(t *testing.T) {
	s := newSite(t, "site")
	fresh := func() string { s.identity(RoleCompute, "n_one"); return s.dirs[RoleCompute] }
	spoil := map[string]func(dir string) error{
		"no key":              func(d string) error { return os.Remove(filepath.Join(d, "node.key")) },
		"no authority":        func(d string) error { return os.Remove(filepath.Join(d, "ca.crt")) },
		"empty authority":     func(d string) error { return os.WriteFile(filepath.Join(d, "ca.crt"), nil, 0o644) },
		"a key others read":   func(d string) error { return os.Chmod(filepath.Join(d, "node.key"), 0o644) },
		"torn certificate":    func(d string) error { return os.Truncate(filepath.Join(d, "node.crt"), 100) },
		"another authority":   func(d string) error { return newSite(t, "site").ca.Save(d) },
		"a node as authority": func(d string) error { return copyFile(d, "node.crt", "ca.crt") },
		"another's certificate": func(d string) error {
			s.identity(RoleCompute, "n_two")
			b, err := os.ReadFile(filepath.Join(s.dirs[RoleCompute], "node.crt"))
			return errors.Join(err, os.WriteFile(filepath.Join(d, "node.crt"), b, 0o644))
		},
	}
	for name, f := range spoil {
		dir := fresh()
		if err := f(dir); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadIdentity(dir); err == nil {
			t.Errorf("%s: loaded", name)
		}
	}
	dir := t.TempDir()
	if err := s.ca.Save(dir); err != nil {
		t.Fatal(err)
	}
	again, err := LoadAuthority(dir)
	if err != nil || again.Installation != "site" {
		t.Fatalf("authority: %v", err)
	}
	if err := os.Chmod(filepath.Join(dir, "ca.key"), 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadAuthority(dir); err == nil {
		t.Error("an authority's key that others can read was loaded")
	}
}

func copyFile(dir, from, to string) error {
	b, err := os.ReadFile(filepath.Join(dir, from))
	return errors.Join(err, os.WriteFile(filepath.Join(dir, to), b, 0o644))
}

func TestStream(t *testing.T) {
	s := newSite(t, "site")
	node, gw := s.identity(RoleCompute, "n_one"), s.identity(RoleGateway, "n_gw")
	socket := filepath.Join(t.TempDir(), "app.sock")
	app, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer app.Close()
	go func() {
		for {
			c, err := app.Accept()
			if err != nil {
				return
			}
			go func() { io.Copy(c, c); c.Close() }()
		}
	}()
	f := &fakeNode{open: func() (net.Conn, error) { return net.Dial("unix", socket) }}
	addr := serveTLS(t, node, NodeHandler(f, f, quietTest()), RoleServer, RoleGateway)

	c, err := DialStream(t.Context(), gw, addr, "n_one", "s_1", []byte{0, 1, 2, 255})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(f.grants[0], []byte{0, 1, 2, 255}) {
		t.Errorf("grant arrived as %x", f.grants[0])
	}
	want := bytes.Repeat([]byte("quire"), 1<<18)
	go func() { c.Write(want); CloseWrite(c) }()
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes came back of %d: %v", len(got), len(want), err)
	}
	c.Close()

	if err := RenewLease(t.Context(), gw, addr, "n_one", []byte("newer")); err != nil || string(f.grants[1]) != "n_gw newer" {
		t.Errorf("renew: %v %q", err, f.grants)
	}
	f.err = quire.Forbidden("The grant is over.")
	if _, err := DialStream(t.Context(), gw, addr, "n_one", "s_1", nil); quire.KindOf(err) != quire.KindForbidden {
		t.Errorf("refusal came out as %v", err)
	}
	if _, err := DialStream(t.Context(), gw, "127.0.0.1:1", "n_one", "s_1", nil); quire.KindOf(err) != quire.KindUnavailable {
		t.Errorf("nobody there came out as %v", err)
	}
}

// TestHostileAnswers: a node with a right certificate answers as it likes.
func TestHostileAnswers(t *testing.T) {
	s := newSite(t, "site")
	server, node := s.identity(RoleServer, "n_server"), s.identity(RoleCompute, "n_one")
	var elsewhere counter
	trap := serveTLS(t, node, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { elsewhere.add(1) }), RoleServer)
	endless := func(w http.ResponseWriter, piece string, n int) {
		for range n {
			if _, err := io.WriteString(w, piece); err != nil {
				return
			}
		}
	}
	var sent counter
	cases := map[string]http.HandlerFunc{
		"10 GB body": func(w http.ResponseWriter, r *http.Request) {
			piece := strings.Repeat("x", 1<<20)
			for range 10 << 10 {
				if _, err := io.WriteString(w, piece); err != nil {
					return
				}
				sent.add(1)
			}
		},
		"10 GB error body": func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(500)
			endless(w, strings.Repeat("x", 1<<20), 10<<10)
		},
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://"+trap+"/order", http.StatusTemporaryRedirect)
		},
		"bad JSON":       func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, `{"note": 5`) },
		"wrong types":    func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, `{"note": 5}`) },
		"empty":          func(w http.ResponseWriter, r *http.Request) {},
		"huge header":    func(w http.ResponseWriter, r *http.Request) { w.Header().Set("X", strings.Repeat("x", 1<<20)) },
		"HTML":           func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(502); io.WriteString(w, "<h1>\x1b[31m") },
		"101 unasked":    func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(200); io.WriteString(w, "x") },
		"closes at once": func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) },
	}
	for name, h := range cases {
		addr := serveTLS(t, node, h, RoleServer)
		m := NewMachine(server, "n_one", dialer(addr))
		if _, err := m.Do(t.Context(), nil); quire.KindOf(err) != quire.KindUnavailable {
			t.Errorf("%s: %v", name, err)
		}
		m.Close()
	}
	if elsewhere.get() != 0 {
		t.Error("a redirect was followed")
	}
	if sent.get() > 64 {
		t.Errorf("%d MB were swallowed", sent.get())
	}

	addr := serveTLS(t, node, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			io.WriteString(w, " ")
			w.(http.Flusher).Flush()
			select {
			case <-r.Context().Done():
			case <-time.After(20 * time.Millisecond):
			}
		}
	}), RoleServer)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	start := time.Now()
	if _, err := NewMachine(server, "n_one", dialer(addr)).Health(ctx); err == nil || time.Since(start) > 5*time.Second {
		t.Errorf("a drip held the caller for %v: %v", time.Since(start), err)
	}
}

type counter struct {
	mu sync.Mutex
	n  int
}

func (c *counter) add(n int) { c.mu.Lock(); c.n += n; c.mu.Unlock() }
func (c *counter) get() int  { c.mu.Lock(); defer c.mu.Unlock(); return c.n }
