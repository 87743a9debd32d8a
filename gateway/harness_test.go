package gateway

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"quire"
	"quire/ticket"
)

const (
	gatewayNode quire.NodeID = "n_gateway"
	computeNode quire.NodeID = "n_compute"
)

// A world is a gateway with a fake server above it (which holds a real key) and
// a real app below it, on a real socket.
type world struct {
	t       *testing.T
	g       *Gateway
	addr    string
	origins quire.Origins
	signer  *ticket.Signer
	key     []byte
	log     *lockedBuffer
	app     *testApp
	shift   atomic.Int64 // of the clock, ns

	mu       sync.Mutex
	seq      int64
	refuse   map[quire.LoginID]bool // no renewal for these
	muted    bool                   // the server hears renewals and does not answer
	renewals int
	seen     int64 // revocations reported as done
	reports  []quire.GatewayReport
	down     chan quire.GatewayFeed
	leave    context.CancelFunc
	left     chan struct{}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// A testApp is what a session would be: an HTTP server on a unix socket.
type testApp struct {
	socket  string
	dials   atomic.Int64
	hits    atomic.Int64
	active  atomic.Int64 // handlers, sockets among them
	refuse  atomic.Pointer[error]
	mu      sync.Mutex
	handler http.Handler
	last    *http.Request
	conns   map[net.Conn]bool
}

func (a *testApp) set(h http.HandlerFunc) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.handler = h
}

func (a *testApp) request() *http.Request {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.last
}

func (a *testApp) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.hits.Add(1)
	a.active.Add(1)
	defer a.active.Add(-1)
	a.mu.Lock()
	a.last = r
	h := a.handler
	a.mu.Unlock()
	h.ServeHTTP(w, r)
}

type option func(*Config, *quire.OriginConfig)

func sharedOrigin(_ *Config, o *quire.OriginConfig) {
	o.Portal, o.Apps = "http://quire.test:8080", "http://quire.test:8089"
}

func plainHTTP(_ *Config, o *quire.OriginConfig) {
	o.Portal, o.Apps = "http://quire.test:8080", "http://*.apps.test:8089"
}

func sockets(n int) option { return func(c *Config, _ *quire.OriginConfig) { c.Sockets = n } }

func newWorld(t *testing.T, options ...option) *world {
	t.Helper()
	w := &world{t: t, signer: ticket.NewSigner(), key: bytes.Repeat([]byte{7}, 32), refuse: map[quire.LoginID]bool{}, log: &lockedBuffer{}}
	w.app = &testApp{socket: filepath.Join(t.TempDir(), "app.sock"), conns: map[net.Conn]bool{}}
	w.app.set(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "app "+r.URL.Path) })
	l, err := net.Listen("unix", w.app.socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: w.app, ConnState: func(c net.Conn, s http.ConnState) {
		w.app.mu.Lock()
		defer w.app.mu.Unlock()
		if s == http.StateClosed || s == http.StateHijacked {
			delete(w.app.conns, c)
		} else {
			w.app.conns[c] = true
		}
	}}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
	w.start(options...)
	return w
}

// start makes a gateway with the world's key, and attaches.
func (w *world) start(options ...option) {
	w.t.Helper()
	conf := quire.OriginConfig{Portal: "http://quire.localhost:8080", Apps: "http://*.apps.localhost:8089"}
	verifier, err := ticket.NewVerifier(w.signer.Public())
	if err != nil {
		w.t.Fatal(err)
	}
	c := Config{
		Node: gatewayNode, Verifier: verifier, CookieKey: w.key, Version: "test", Now: w.now,
		Log: slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Dial: func(ctx context.Context, addr string, r quire.Route, grant []byte) (net.Conn, error) {
			w.app.dials.Add(1)
			if err := w.app.refuse.Load(); err != nil {
				return nil, *err
			}
			if addr != "compute:5002" || len(grant) == 0 {
				return nil, quire.Failed("dialed "+addr, nil)
			}
			var d net.Dialer
			return d.DialContext(ctx, "unix", w.app.socket)
		},
		Renew: func(_ context.Context, _ string, _ quire.NodeID, _ []byte) error { return nil },
	}
	for _, o := range options {
		o(&c, &conf)
	}
	if c.Origins, err = quire.NewOrigins(conf); err != nil {
		w.t.Fatal(err)
	}
	w.origins = c.Origins
	if w.g, err = New(c); err != nil {
		w.t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	w.addr = l.Addr().String()
	g := w.g
	go g.Serve(l)
	w.t.Cleanup(func() { g.Close() })
	w.attach()
}

func (w *world) now() time.Time { return time.Now().Add(time.Duration(w.shift.Load())) }

// attach begins a stream from the fake server, with everything it knows.
func (w *world) attach() {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	w.down, w.leave, w.left = make(chan quire.GatewayFeed, 1000), cancel, make(chan struct{})
	w.send(quire.GatewayFeed{Feed: quire.Feed{Full: true}, Nodes: map[quire.NodeID]string{computeNode: "compute:5002"}})
	down, left, g := w.down, w.left, w.g
	go func() {
		defer close(left)
		g.Attach(ctx, down, w.report)
	}()
	go func() { // the heartbeat
		t := time.NewTicker(500 * time.Millisecond)
		defer t.Stop()
		for {
			select {
			case <-left:
				return
			case <-t.C:
				w.mu.Lock()
				seq := w.seq
				w.mu.Unlock()
				select {
				case down <- quire.GatewayFeed{Feed: quire.Feed{Seq: seq, Time: w.now()}}:
				case <-left:
					return
				}
			}
		}
	}()
	w.t.Cleanup(cancel)
	again := w.g.full.Load()
	w.until("the gateway has heard the server", func() bool { return w.g.full.Load() })
	if again {
		w.person() // known, and so the feed before it, which takes all routes away, is through
	}
}

// detach cuts the stream, as when the server dies.
func (w *world) detach() {
	w.leave()
	<-w.left
}

func (w *world) send(f quire.GatewayFeed) {
	w.mu.Lock()
	f.Seq = w.seq
	w.mu.Unlock()
	f.Time = w.now()
	w.down <- f
}

func (w *world) report(r quire.GatewayReport) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.reports = append(w.reports, r)
	w.seen = max(w.seen, r.Seq)
	for _, ask := range r.Renew {
		w.renewals++
		if w.muted {
			continue
		}
		v, _ := ticket.NewVerifier(w.signer.Public())
		old, err := v.Grant(ask.Grant)
		if err != nil {
			w.t.Errorf("asked to renew something odd: %v", err)
			continue
		}
		answer := quire.Renewed{N: ask.N}
		if !w.refuse[old.Login] {
			old.Issued, old.Expires, old.Grace, old.Feed = w.now(), w.now().Add(ticket.GrantLife), w.now().Add(time.Hour), w.seq
			answer.Grant = w.signer.Grant(old)
		}
		w.down <- quire.GatewayFeed{Feed: quire.Feed{Seq: w.seq, Time: w.now()}, Renewed: []quire.Renewed{answer}}
	}
}

// revoke lowers rights and returns when the gateway has reported it done.
func (w *world) revoke(r quire.Revocation) {
	w.t.Helper()
	seq := w.revokeAsync(r)
	w.until("the revocation is reported", func() bool { w.mu.Lock(); defer w.mu.Unlock(); return w.seen >= seq })
}

func (w *world) revokeAsync(r quire.Revocation) int64 {
	w.mu.Lock()
	w.seq++
	r.Seq, r.At = w.seq, w.now()
	w.mu.Unlock()
	w.send(quire.GatewayFeed{Feed: quire.Feed{Revocations: []quire.Revocation{r}}})
	return r.Seq
}

func (w *world) until(what string, ok func() bool) {
	w.t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			w.t.Fatalf("never: %s", what)
		}
		<-tick.C
	}
}

// A person is one login of one user in one project, with a browser.
type person struct {
	w      *world
	label  quire.Label
	user   quire.UserID
	login  quire.LoginID
	role   quire.Role
	projct quire.ProjectID
	nonce  string
	cookie string // name=value of the app cookie
}

// person makes a label with a running notebook and a viewer app.
func (w *world) person() *person {
	w.t.Helper()
	p := &person{w: w, label: quire.NewLabel(), user: quire.NewUserID(), login: quire.NewLoginID(), role: quire.RoleEditor, projct: quire.NewProjectID(), nonce: quire.NewSecret()}
	w.routes(p.route("notebook", "write"), p.route("viewer", "read"))
	return p
}

func (p *person) route(app, permit string) quire.Route {
	return quire.Route{
		Label: p.label, User: p.user, UserName: "alice", Project: p.projct, OwnerName: "alice", ProjectName: "demo", App: app, AppTitle: strings.ToUpper(app[:1]) + app[1:],
		Permit: permit, Session: quire.SessionID("s_" + app + string(p.label)), Node: computeNode, State: quire.SessionRunning,
	}
}

func (w *world) routes(rs ...quire.Route) {
	w.t.Helper()
	w.send(quire.GatewayFeed{Routes: rs})
	last := rs[len(rs)-1]
	w.until("the route is known", func() bool {
		v, ok := w.g.routes.byLabel.Load(last.Label)
		if !ok {
			return last.Gone
		}
		a := (*v.(*site).apps.Load())[last.App]
		if last.Gone {
			return a == nil
		}
		return a != nil && a.Route == last
	})
}

func (p *person) grant() []byte {
	now := p.w.now()
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	return p.w.signer.Grant(ticket.Grant{
		Gateway: gatewayNode, Node: computeNode, User: p.user, Project: p.projct, Login: p.login, Label: p.label, Role: p.role,
		Feed: p.w.seq, Issued: now, Expires: now.Add(ticket.GrantLife), Grace: now.Add(time.Hour),
	})
}

func (p *person) ticket(change ...func(*ticket.Ticket)) string {
	now := p.w.now()
	t := ticket.Ticket{ID: quire.NewOrderID(), Nonce: sha256.Sum256([]byte(p.nonce)), Gateway: gatewayNode, Label: p.label, Grant: p.grant(), Issued: now, Expires: now.Add(ticket.TicketLife)}
	for _, c := range change {
		c(&t)
	}
	return base64.RawURLEncoding.EncodeToString(p.w.signer.Ticket(t))
}

func (p *person) site() *site {
	return p.w.g.sites.make(p.label)
}

func (p *person) host() string {
	_, host, _ := strings.Cut(p.site().origin, "://")
	return host
}

func (p *person) prefix() string { return p.site().prefix }

// post sends the portal's form.
func (p *person) post(ticket, path string) *http.Response {
	p.w.t.Helper()
	return p.w.do(p.form(ticket, path))
}

func (p *person) form(ticket, path string) *http.Request {
	req := p.request("POST", "/_quire/enter", strings.NewReader(url.Values{"ticket": {ticket}, "path": {path}}.Encode()))
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Cookie", p.site().nonce.name+"="+p.nonce)
	req.Header.Set("Origin", "null")
	req.Header.Set("Sec-Fetch-Site", "cross-site")
	return req
}

// enter signs in.
func (p *person) enter() *person {
	p.w.t.Helper()
	resp := p.post(p.ticket(), "/notebook/")
	if resp.StatusCode != http.StatusSeeOther {
		p.w.t.Fatalf("enter: %d %s", resp.StatusCode, body(resp))
	}
	resp.Body.Close()
	for _, c := range resp.Cookies() {
		if c.Name == p.site().app.name {
			p.cookie = c.Name + "=" + c.Value
		}
	}
	if p.cookie == "" {
		p.w.t.Fatal("no cookie")
	}
	return p
}

// request makes a request to the person's own site with their cookie, as a
// program's fetch from their own page would be.
func (p *person) request(method, path string, body io.Reader) *http.Request {
	req, err := http.NewRequest(method, "http://"+p.host()+p.prefix()+path, body)
	if err != nil {
		p.w.t.Fatal(err)
	}
	if p.cookie != "" {
		req.Header.Set("Cookie", p.cookie)
	}
	if method != "GET" && method != "HEAD" {
		req.Header.Set("Origin", p.site().origin)
	}
	return req
}

func (p *person) get(path string, header ...string) *http.Response {
	p.w.t.Helper()
	req := p.request("GET", path, nil)
	for i := 0; i+1 < len(header); i += 2 {
		req.Header[header[i]] = append(req.Header[header[i]], header[i+1])
	}
	return p.w.do(req)
}

// page is a request for a document in a tab of its own.
func (p *person) page(path string) *http.Response {
	p.w.t.Helper()
	return p.get(path, "Accept", "text/html", "Sec-Fetch-Dest", "document", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Site", "none")
}

func (w *world) transport() *http.Transport {
	return &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", w.addr)
		},
		DisableCompression: true,
	}
}

func (w *world) do(req *http.Request) *http.Response {
	w.t.Helper()
	tr := w.transport()
	resp, err := tr.RoundTrip(req)
	if err != nil {
		w.t.Fatalf("%s %s: %v", req.Method, req.URL, err)
	}
	resp.Body = &lastBody{ReadCloser: resp.Body, tr: tr}
	w.t.Cleanup(func() { resp.Body.Close() })
	return resp
}

// lastBody closes the connection with the answer; asking for that in the
// request would keep it from being a plain one.
type lastBody struct {
	io.ReadCloser
	tr *http.Transport
}

func (b *lastBody) Close() error {
	err := b.ReadCloser.Close()
	b.tr.CloseIdleConnections()
	return err
}

func body(r *http.Response) string {
	b, err := io.ReadAll(r.Body)
	r.Body.Close()
	if err != nil {
		return "read: " + err.Error()
	}
	return string(b)
}

// raw sends bytes as they are and returns everything that comes back until the
// gateway closes or the time is over.
func (w *world) raw(bytes string) string {
	w.t.Helper()
	c := w.conn()
	defer c.Close()
	io.WriteString(c, bytes)
	c.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
	b, _ := io.ReadAll(c)
	return string(b)
}

func (w *world) conn() net.Conn {
	w.t.Helper()
	c, err := net.Dial("tcp", w.addr)
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

// open does a WebSocket handshake and returns the connection and the answer.
func (p *person) open(path string, header ...string) (net.Conn, *bufio.Reader, *http.Response) {
	p.w.t.Helper()
	c := p.w.conn()
	p.w.t.Cleanup(func() { c.Close() })
	h := http.Header{"Origin": {p.site().origin}, "Cookie": {p.cookie}, "Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="}}
	for i := 0; i+1 < len(header); i += 2 {
		if h.Del(header[i]); header[i+1] != "" {
			h.Set(header[i], header[i+1])
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "GET %s%s HTTP/1.1\r\nHost: %s\r\n", p.prefix(), path, p.host())
	h.Write(&b)
	io.WriteString(c, b.String()+"\r\n")
	br := bufio.NewReader(c)
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	resp, err := http.ReadResponse(br, nil)
	if err != nil {
		p.w.t.Fatalf("handshake: %v", err)
	}
	return c, br, resp
}

func noDial(context.Context, string, quire.Route, []byte) (net.Conn, error) {
	return nil, quire.Unavailable("Nothing is dialed here.", nil)
}

func noRenew(context.Context, string, quire.NodeID, []byte) error { return nil }
