package gateway

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"quire"
	"quire/compute/remote"
	"quire/ticket"
)

// A site is an installation with certificates on disk: a server, this gateway
// and one node.
type installation struct {
	t  *testing.T
	ca *remote.Authority
}

func newInstallation(t *testing.T) *installation {
	ca, err := remote.NewAuthority("test")
	if err != nil {
		t.Fatal(err)
	}
	return &installation{t, ca}
}

func (i *installation) identity(role string, node quire.NodeID) *remote.Identity {
	i.t.Helper()
	dir := i.t.TempDir()
	if err := remote.NewIdentity(i.ca, role, node, dir); err != nil {
		i.t.Fatal(err)
	}
	id, err := remote.LoadIdentity(dir)
	if err != nil {
		i.t.Fatal(err)
	}
	return id
}

// A node is the far end of the real way: remote.NodeHandler over TLS, with a
// verifier of its own and the app behind it.
type node struct {
	t        *testing.T
	verifier *ticket.Verifier
	app      *testApp
	renewed  chan []byte
}

func (n *node) Do(context.Context, []byte) (quire.Receipt, error) {
	return quire.Receipt{Note: "ordered"}, nil
}
func (n *node) Watch(ctx context.Context, _ <-chan quire.Feed, _ func(quire.NodeReport)) error {
	<-ctx.Done()
	return nil
}
func (n *node) Health(context.Context) (quire.NodeHealth, error) { return quire.NodeHealth{}, nil }
func (n *node) Send(context.Context, []byte, io.Writer) (quire.Receipt, error) {
	return quire.Receipt{}, quire.NotFound("project directory")
}
func (n *node) Receive(context.Context, []byte, io.Reader) (quire.Receipt, error) {
	return quire.Receipt{}, quire.NotFound("project directory")
}
func (n *node) Log(context.Context, quire.SessionID, int) (string, error) {
	return "", nil
}
func (n *node) Open(ctx context.Context, gw quire.NodeID, _ quire.SessionID, grant []byte) (net.Conn, error) {
	g, err := n.verifier.Grant(grant)
	if err != nil || g.Gateway != gw || g.Node != computeNode {
		return nil, quire.Forbidden("The grant is not for this way.")
	}
	n.app.dials.Add(1)
	var d net.Dialer
	return d.DialContext(ctx, "unix", n.app.socket)
}
func (n *node) Renew(_ context.Context, _ quire.NodeID, grant []byte) error {
	n.renewed <- grant
	return nil
}

// TestRealWay is everything at once over real TLS: the server attaches through
// the port that browsers use too, orders the node through CONNECT, a person
// signs in, and HTTP and a WebSocket reach the app as raw streams.
func TestRealWay(t *testing.T) {
	in := newInstallation(t)
	verifierOf := func(s *ticket.Signer) *ticket.Verifier {
		v, err := ticket.NewVerifier(s.Public())
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	w := newWorld(t)
	w.g.Close() // only its app and its keys are used
	n := &node{t: t, verifier: verifierOf(w.signer), app: w.app, renewed: make(chan []byte, 10)}
	nl, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	srv := remote.Server(in.identity(remote.RoleCompute, computeNode), remote.NodeHandler(n, n, log), log, remote.RoleServer, remote.RoleGateway)
	go srv.ServeTLS(nl, "", "")
	t.Cleanup(func() { srv.Close() })

	g, err := New(Config{Node: gatewayNode, Origins: w.origins, Verifier: n.verifier, Identity: in.identity(remote.RoleGateway, gatewayNode), CookieKey: w.key, Now: w.now, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	gl, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go g.Serve(gl)
	t.Cleanup(func() { g.Close() })
	w.g, w.addr = g, gl.Addr().String()

	server := in.identity(remote.RoleServer, "n_server")
	far := remote.NewGateway(server, gatewayNode, w.addr)
	w.down, w.left = make(chan quire.GatewayFeed, 1000), make(chan struct{})
	w.send(quire.GatewayFeed{Feed: quire.Feed{Full: true}, Nodes: map[quire.NodeID]string{computeNode: nl.Addr().String()}})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- far.Attach(ctx, w.down, w.report) }()
	w.until("attached over the network", func() bool { return g.full.Load() })

	machine := remote.NewMachine(server, computeNode, func(ctx context.Context) (net.Conn, error) { return far.DialNode(ctx, computeNode) })
	if r, err := machine.Do(t.Context(), []byte("order")); err != nil || r.Note != "ordered" {
		t.Fatalf("an order through the gateway: %v", err)
	}
	if _, err := far.DialNode(t.Context(), "n_unknown"); quire.KindOf(err) != quire.KindForbidden {
		t.Errorf("a node it does not know: %v", err)
	}
	for role, id := range map[string]*remote.Identity{"a node": in.identity(remote.RoleCompute, computeNode), "a gateway": in.identity(remote.RoleGateway, gatewayNode), "another authority": newInstallation(t).identity(remote.RoleServer, "n_server")} {
		if err := remote.NewGateway(id, gatewayNode, w.addr).Attach(t.Context(), nil, nil); err == nil {
			t.Errorf("%s attached", role)
		}
		if _, err := remote.NewGateway(id, gatewayNode, w.addr).DialNode(t.Context(), computeNode); err == nil {
			t.Errorf("%s went through to the node", role)
		}
	}

	p := w.person().enter()
	for i := range 3 {
		if got := body(p.get(fmt.Sprintf("/notebook/%d", i))); got != fmt.Sprintf("app /notebook/%d", i) {
			t.Fatalf("%q", got)
		}
	}
	if w.app.dials.Load() > 3 {
		t.Errorf("%d streams", w.app.dials.Load())
	}
	w.app.set(echo)
	c := p.dial("/notebook/ws")
	for _, size := range []int{1, 1 << 10, 1 << 20} {
		if err := ping(t.Context(), c, strings.Repeat("m", size)); err != nil {
			t.Fatalf("%d: %v", size, err)
		}
	}
	w.shift.Add(int64(3*time.Minute + 10*time.Second))
	w.send(quire.GatewayFeed{})
	select {
	case grant := <-n.renewed:
		if got, err := n.verifier.Grant(grant); err != nil || got.Subject().Login != p.login {
			t.Errorf("lease renewed with %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("the lease was not renewed")
	}
	w.revoke(quire.Revocation{User: p.user})
	if _, _, err := c.Read(t.Context()); err == nil || !strings.Contains(err.Error(), "4401") {
		t.Errorf("the socket ended with %v", err)
	}
	w.until("the app's side is closed", func() bool { return w.app.active.Load() == 0 })
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("attach ended with %v", err)
	}
}

// browserTLS is a certificate for every label, from an authority of the test's.
func browserTLS(t *testing.T, names ...string) (server *tls.Config, roots *x509.CertPool) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), DNSNames: names, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots = x509.NewCertPool()
	roots.AddCert(cert)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, roots
}

// TestTLS: with a certificate for browsers the same port speaks HTTP/2 and
// HTTP/1.1 to them and the control side to the server, told apart by the name
// asked for (G-04, G-27).
// Whatever address or name an administrator types, a gateway dials no address at
// which there can only be something else (N-20, N-21).
func TestNodesOnly(t *testing.T) {
	w := newWorld(t)
	for i, addr := range []string{"169.254.169.254:80", "[fe80::1]:80", "[::ffff:169.254.169.254]:80", "0.0.0.0:27017", "[::]:27017", "224.0.0.1:5002", "255.255.255.255:5002", "0.1.2.3:1"} {
		w.send(quire.GatewayFeed{Nodes: map[quire.NodeID]string{"n_bad": addr}})
		w.until("it is told", func() bool { return w.g.nodes.addr("n_bad") == addr })
		_, err := w.g.dialNode(t.Context(), "n_bad")
		if err == nil || !strings.Contains(fmt.Sprint(errors.Unwrap(err)), "no node can be") {
			t.Errorf("%d: %s: %v", i, addr, err)
		}
	}
	if nodesOnly("tcp", "127.0.0.1:5002", nil) != nil || nodesOnly("tcp", "10.1.2.3:5002", nil) != nil || nodesOnly("tcp", "[2001:db8::1]:5002", nil) != nil {
		t.Error("a node is refused")
	}
}

// A gateway that was removed lets everybody go, and a node that was removed is
// not spoken to (N-15).
//
//fault:keys a gateway or node is removed and goes on
//fault:seen everybody is let go of, and nobody speaks to it
//fault:lost nothing
//fault:also TestDataCenters
func TestRemoved(t *testing.T) {
	w := newWorld(t)
	p := w.person().enter()
	w.app.set(echo)
	c := p.dial("/notebook/ws")
	if err := ping(t.Context(), c, "here"); err != nil {
		t.Fatal(err)
	}
	w.send(quire.GatewayFeed{Feed: quire.Feed{Removed: true}})
	if _, _, err := c.Read(t.Context()); err == nil {
		t.Error("a socket stays open")
	}
	if res := p.get("/notebook/"); res.StatusCode == 200 {
		t.Errorf("people are still served: %d", res.StatusCode)
	}
	if w.g.nodes.addr(computeNode) != "" || w.g.CheckPeer(remote.RoleCompute, computeNode, "") == nil {
		t.Error("its nodes are still known")
	}
}

func TestTLS(t *testing.T) {
	conf, roots := browserTLS(t, "*.apps.test")
	in := newInstallation(t)
	w := newWorld(t, func(c *Config, o *quire.OriginConfig) {
		o.Portal, o.Apps = "https://quire.test", "https://*.apps.test"
		c.TLS, c.Identity = conf, in.identity(remote.RoleGateway, gatewayNode)
	})
	p, q := w.person(), w.person()
	dial := func(ctx context.Context, name string, protos ...string) (*tls.Conn, error) {
		d := tls.Dialer{Config: &tls.Config{RootCAs: roots, ServerName: name, NextProtos: protos}}
		c, err := d.DialContext(ctx, "tcp", w.addr)
		if err != nil {
			return nil, err
		}
		return c.(*tls.Conn), nil
	}
	h2 := &http.Transport{ForceAttemptHTTP2: true, DialTLSContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
		return dial(ctx, hostname(addr), "h2")
	}}
	defer h2.CloseIdleConnections()
	do := func(req *http.Request) *http.Response {
		t.Helper()
		req.URL.Scheme = "https"
		req.URL.Host = p.host()
		resp, err := h2.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { resp.Body.Close() })
		return resp
	}
	resp := do(p.form(p.ticket(), "/notebook/x"))
	if resp.StatusCode != 303 || resp.ProtoMajor != 2 {
		t.Fatalf("enter: %d %s %s", resp.StatusCode, resp.Proto, body(resp))
	}
	for _, c := range resp.Cookies() {
		if !c.Secure || !strings.HasPrefix(c.Name, "__Host-") {
			t.Errorf("cookie %+v", c)
		}
		p.cookie = c.Name + "=" + c.Value
	}
	req := p.request("GET", "/notebook/x", nil)
	req.Header["Cookie"] = []string{"_xsrf=1", p.cookie, "b=2"} // HTTP/2 splits cookies
	if resp := do(req); resp.StatusCode != 200 || resp.ProtoMajor != 2 || body(resp) != "app /notebook/x" {
		t.Errorf("HTTP/2: %d", resp.StatusCode)
	}
	if h := w.app.request().Header; h.Get("Cookie") != "_xsrf=1; b=2" || h.Get("X-Forwarded-Proto") != "https" {
		t.Errorf("the app got %v", h)
	}
	big := p.request("POST", "/notebook/x", io.LimitReader(zeros{}, 3<<20))
	w.app.set(func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, n, err)
	})
	if got := body(do(big)); got != "3145728 <nil>" {
		t.Errorf("a body over HTTP/2: %q", got)
	}

	// One connection, another label's Host: misdirected.
	w.app.set(echo)
	c, err := dial(t.Context(), p.host())
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(c, "GET /notebook/x HTTP/1.1\r\nHost: %s\r\nCookie: %s\r\n\r\n", q.host(), p.cookie)
	if resp, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || resp.StatusCode != 421 {
		t.Errorf("SNI of one, Host of another: %v %v", resp, err)
	}
	c.Close()
	// A WebSocket over TLS, closed with its frame on revocation.
	c, err = dial(t.Context(), p.host(), "http/1.1")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprintf(c, "GET /notebook/ws HTTP/1.1\r\nHost: %s\r\nCookie: %s\r\nOrigin: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n\x81\x82\x00\x00\x00\x00hi", p.host(), p.cookie, p.site().origin)
	br := bufio.NewReader(c)
	if resp, err := http.ReadResponse(br, nil); err != nil || resp.StatusCode != 101 {
		t.Fatalf("%v %v", resp, err)
	}
	b := make([]byte, 4)
	if _, err := io.ReadFull(br, b); err != nil || string(b) != "\x81\x02hi" {
		t.Errorf("%q %v", b, err)
	}
	w.revoke(quire.Revocation{Login: p.login})
	if rest, _ := io.ReadAll(br); string(rest) != string(closeFrame(closeRevoked)) {
		t.Errorf("the end: %q", rest)
	}
	// Plain HTTP, old TLS, no name, the control side by a browser.
	if got := w.raw("GET / HTTP/1.1\r\nHost: " + p.host() + "\r\n\r\n"); got != "" {
		t.Errorf("plain HTTP: %q", got)
	}
	for name, conf := range map[string]*tls.Config{
		"TLS 1.1":                     {RootCAs: roots, ServerName: p.host(), MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11},
		"control without certificate": {RootCAs: roots, ServerName: string(gatewayNode) + ".gateway." + remote.Domain},
	} {
		c, err := tls.Dial("tcp", w.addr, conf)
		if err == nil {
			_, err = c.Read(make([]byte, 1))
			c.Close()
		}
		if err == nil {
			t.Errorf("%s was spoken", name)
		}
	}
	// The server reaches the control side of the same port.
	far := remote.NewGateway(in.identity(remote.RoleServer, "n_server"), gatewayNode, w.addr)
	if _, err := far.DialNode(t.Context(), "n_unknown"); quire.KindOf(err) != quire.KindForbidden {
		t.Errorf("control over the shared port: %v", err)
	}
}

// A gateway without what it needs does not start.
func TestConfig(t *testing.T) {
	w := newWorld(t)
	good := w.g.cfg
	for name, change := range map[string]func(*Config){
		"no node":     func(c *Config) { c.Node = "" },
		"no origins":  func(c *Config) { c.Origins = nil },
		"no verifier": func(c *Config) { c.Verifier = nil },
		"no key":      func(c *Config) { c.CookieKey = nil },
		"short key":   func(c *Config) { c.CookieKey = c.CookieKey[:16] },
		"no identity": func(c *Config) { c.Dial = nil },
	} {
		c := good
		change(&c)
		if g, err := New(c); err == nil {
			g.Close()
			t.Errorf("%s: started", name)
		}
	}
}

// Close ends everything, and Serve says so.
func TestClose(t *testing.T) {
	w := newWorld(t)
	w.app.set(echo)
	p := w.person().enter()
	c := p.dial("/notebook/ws")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- w.g.Serve(l) }()
	idle := w.conn()
	defer idle.Close()
	if err := w.g.Close(); err != nil {
		t.Error(err)
	}
	if err := <-served; err != http.ErrServerClosed {
		t.Errorf("Serve: %v", err)
	}
	if _, _, err := c.Read(t.Context()); err == nil {
		t.Error("the socket is open")
	}
	idle.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := idle.Read(make([]byte, 1)); err == nil || isTimeout(err) {
		t.Errorf("a silent connection: %v", err)
	}
}

func isTimeout(err error) bool {
	t, ok := err.(net.Error)
	return ok && t.Timeout()
}

// TestPanics is S-51 (and with TestEveryRouteAsks G-18): when what decides breaks, nobody gets in, the
// connection ends, and the gateway lives.
//
//fault:gateway a request makes the gateway or the server panic
//fault:seen that request fails, nothing else
//fault:lost the request
//fault:repair asking again
//fault:also TestPanic
func TestPanics(t *testing.T) {
	w := newWorld(t, sharedOrigin)
	p := w.person().enter()
	broken := &brokenOrigins{Origins: w.g.cfg.Origins}
	verifier, err := ticket.NewVerifier(w.signer.Public())
	if err != nil {
		t.Fatal(err)
	}
	w.detach()
	w.g.Close()
	c := w.g.cfg
	c.Origins, c.Verifier = broken, verifier
	if w.g, err = New(c); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.addr = l.Addr().String()
	go w.g.Serve(l)
	t.Cleanup(func() { w.g.Close() })
	w.attach()
	w.routes(p.route("notebook", "write"))
	for _, way := range []string{"X-Way", "Te"} {
		broken.now.Store(true)
		req := p.request("GET", "/notebook/x", nil)
		req.Header.Set(way, "1")
		if resp, err := w.transport().RoundTrip(req); err == nil && resp.StatusCode < 500 {
			t.Errorf("%s: %d", way, resp.StatusCode)
		}
		broken.now.Store(false)
		if n := w.app.hits.Swap(0); n != 0 {
			t.Errorf("%s: the app was asked %d times", way, n)
		}
		if got := p.get("/notebook/x", way, "1").StatusCode; got != 200 {
			t.Errorf("%s: afterwards %d", way, got)
		}
		w.app.hits.Store(0)
	}
}

// brokenOrigins break when told to, in the middle of a decision.
type brokenOrigins struct {
	quire.Origins
	now atomic.Bool
}

func (b *brokenOrigins) Label(host, path string) (quire.Label, bool) {
	if b.now.Load() {
		panic("canary")
	}
	return b.Origins.Label(host, path)
}

// TestVanished is W-08: what the kernel is told finds a browser that has gone
// without a word within 90 s, whether or not bytes are on their way to it.
//
//fault:gateway a browser vanishes without a word
//fault:seen nothing
//fault:lost nothing
//fault:repair its connection is found within 90 seconds and closed
func TestVanished(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go net.Dial("tcp", l.Addr().String())
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	tune(c)
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		get := func(level, name int) int {
			v, err := unix.GetsockoptInt(int(fd), level, name)
			if err != nil {
				t.Error(err)
			}
			return v
		}
		idle, every, count := get(unix.IPPROTO_TCP, unix.TCP_KEEPIDLE), get(unix.IPPROTO_TCP, unix.TCP_KEEPINTVL), get(unix.IPPROTO_TCP, unix.TCP_KEEPCNT)
		if get(unix.SOL_SOCKET, unix.SO_KEEPALIVE) == 0 || idle+every*count > 90 || idle > 30 || get(unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT) != 90_000 {
			t.Errorf("keep-alive %d s + %d x %d s", idle, count, every)
		}
	})
}
