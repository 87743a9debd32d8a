package server

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"quire"
	"quire/compute/remote"
	"quire/control"
	"quire/store"
	"quire/ticket"
)

// testSite is a portal over a real database and control. Only the far ends, the
// node and the gateway, are stand-ins that do what they are told at once.
type testSite struct {
	t       testing.TB
	server  *Server
	control *control.Control
	log     *lockedBuffer
	node    *fakeNode
	web     *httptest.Server // nil until listen

	project quire.Project // /owner/data, private, with an editor and a viewer
	public  quire.Project // /owner/open
	people  map[string]*client
}

const (
	testPortal = "http://quire.localhost:8080"
	testApps   = "http://*.apps.localhost:8089"
)

// newSite is a portal where nobody has an account.
func newSite(t testing.TB) *testSite {
	return newSiteAt(t, testPortal, testApps, ticket.NewSigner(), nil)
}

// newCast is a portal with people and two projects. They are made once and
// copied, because passwords are slow on purpose.
func newCast(t testing.TB) *testSite { return newCastAt(t, testPortal, testApps) }

func newCastAt(t testing.TB, portal, apps string) *testSite {
	t.Helper()
	c := theCast()
	must(t, c.err)
	s := newSiteAt(t, portal, apps, c.signer, c.database)
	for name, secrets := range c.secrets {
		s.people[name] = &client{site: s, read: secrets[0], write: secrets[1]}
	}
	s.people["nobody"] = &client{site: s}
	s.project, s.public = c.project, c.public
	s.eventually("the node is up", func() bool {
		apps, err := s.control.Sessions.Apps(context.Background(), s.people["owner"].actor(), s.project.ID)
		return err == nil && len(apps) > 0
	})
	return s
}

// newSiteAt starts a portal over a copy of a database; nil is an empty one.
func newSiteAt(t testing.TB, portal, apps string, signer *ticket.Signer, database []byte) *testSite {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	file := filepath.Join(t.TempDir(), "quire.db")
	if database != nil {
		must(t, os.WriteFile(file, database, 0o600))
	}
	st, err := store.Open(ctx, file)
	must(t, err)
	origins, err := quire.NewOrigins(quire.OriginConfig{Portal: portal, Apps: apps})
	must(t, err)
	s := &testSite{t: t, log: &lockedBuffer{}, people: map[string]*client{}}
	log := slog.New(slog.NewTextHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	verify, err := ticket.NewVerifier(signer.Public())
	must(t, err)
	s.node = &fakeNode{id: testNode.ID, verify: verify, sessions: map[quire.SessionID]quire.SessionReport{}, wake: make(chan struct{}, 1)}
	s.control, err = control.New(testControl(st, signer, origins, fakeFleet{s.node}, log))
	must(t, err)
	must(t, s.control.Site.Join(ctx, quire.Actor{System: true}, testCenter, testNode))
	ran := make(chan error, 1)
	go func() { ran <- s.control.Run(ctx) }()
	s.server, err = New(Config{Control: s.control, Origins: origins, Log: log, Version: "test"})
	must(t, err)
	t.Cleanup(func() {
		if s.web != nil {
			s.server.Shutdown(context.Background())
			s.web.Close()
		}
		cancel()
		<-ran
		st.Close()
	})
	return s
}

func testControl(st *store.Store, signer *ticket.Signer, origins quire.Origins, fleet control.Fleet, log *slog.Logger) control.Config {
	authority, err := remote.NewAuthority("test")
	if err != nil {
		panic(err)
	}
	return control.Config{Authority: authority, VisitorName: "quire-visitor", Store: st, Signer: signer, Origins: origins, Fleet: fleet, Log: log,
		Accounts: control.OneAccount("quire-user", 999), ProjectRoot: "/projects", Grace: time.Hour, KeepDeleted: 7 * 24 * time.Hour}
}

var (
	testCenter = quire.DataCenter{ID: "d_aaaaaaaaaaaaaaaa", Name: "local", Gateway: "n_aaaaaaaaaaaaaaab", Address: "127.0.0.1:8089"}
	testNode   = quire.Node{ID: "n_aaaaaaaaaaaaaaaa", DataCenter: testCenter.ID, Name: "here", Address: "127.0.0.1:5002"}
)

const testPassword = "correct horse battery staple"

// cast is an administrator, an owner with a private and a public project, an
// editor and a viewer of the private one, and a stranger.
type cast struct {
	database        []byte
	signer          *ticket.Signer
	secrets         map[string][2]string
	project, public quire.Project
	err             error
}

var theCast = sync.OnceValue(func() (c cast) {
	c.err = c.make()
	return c
})

func (c *cast) make() error {
	ctx, system := context.Background(), quire.Actor{System: true}
	dir, err := os.MkdirTemp("", "cast")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	st, err := store.Open(ctx, filepath.Join(dir, "quire.db"))
	if err != nil {
		return err
	}
	defer st.Close()
	origins, err := quire.NewOrigins(quire.OriginConfig{Portal: testPortal, Apps: testApps})
	if err != nil {
		return err
	}
	c.signer, c.secrets = ticket.NewSigner(), map[string][2]string{}
	ctl, err := control.New(testControl(st, c.signer, origins, fakeFleet{}, slog.New(slog.DiscardHandler)))
	if err != nil {
		return err
	}
	if err := ctl.Site.Join(ctx, system, testCenter, testNode); err != nil {
		return err
	}
	by := map[string]quire.Actor{}
	for role, name := range map[string]string{"admin": "chief", "owner": "owner", "editor": "editor", "viewer": "viewer", "stranger": "stranger"} {
		full := strings.ToUpper(name[:1]) + name[1:]
		if _, err := ctl.Users.Create(ctx, system, control.NewUser{Name: name, FullName: full, Password: testPassword, Admin: role == "admin"}); err != nil {
			return err
		}
		e, err := ctl.Logins.Enter(ctx, name, testPassword, control.From{Address: "192.0.2.1", Agent: "test"})
		if err != nil {
			return err
		}
		c.secrets[role] = [2]string{e.Read, e.Write}
		if by[role], err = ctl.Logins.Resolve(ctx, e.Read); err != nil {
			return err
		}
	}
	if c.project, err = ctl.Projects.Create(ctx, by["owner"], control.NewProject{Name: "data", Summary: "Numbers", Description: "# Data\n\nSome *numbers*."}); err != nil {
		return err
	}
	if c.public, err = ctl.Projects.Create(ctx, by["owner"], control.NewProject{Name: "open", Public: true}); err != nil {
		return err
	}
	for name, role := range map[string]quire.Role{"editor": quire.RoleEditor, "viewer": quire.RoleViewer} {
		if err := ctl.Team.Set(ctx, by["owner"], c.project.ID, name, role); err != nil {
			return err
		}
	}
	if err := st.Close(); err != nil {
		return err
	}
	c.database, err = os.ReadFile(filepath.Join(dir, "quire.db"))
	return err
}

// enter signs somebody in without the form.
func (s *testSite) enter(name string) *client {
	s.t.Helper()
	e, err := s.control.Logins.Enter(context.Background(), name, testPassword, control.From{Address: "192.0.2.1", Agent: "test"})
	must(s.t, err)
	return &client{site: s, read: e.Read, write: e.Write}
}

func (s *testSite) eventually(what string, is func() bool) {
	s.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		if time.Now().After(deadline) {
			s.t.Fatalf("never: %s", what)
		}
		<-tick.C
	}
}

// listen puts the portal on a real socket, for streams.
func (s *testSite) listen() string {
	if s.web == nil {
		s.web = httptest.NewServer(s.server)
	}
	return s.web.URL
}

// client is one person's browser as far as the portal sees it.
type client struct {
	site        *testSite
	read, write string
}

func (c *client) actor() quire.Actor {
	if c.read == "" {
		return quire.Nobody
	}
	by, err := c.site.control.Logins.Resolve(context.Background(), c.read)
	must(c.site.t, err)
	return by
}

func (c *client) token() string { return c.site.control.Logins.FormToken(c.actor()) }

// request makes what a browser would send from a page of the portal. edit may
// turn it into what an attacker would.
func (c *client) request(method, path string, body any, edit ...func(*http.Request)) *http.Request {
	var r io.Reader = http.NoBody
	kind := ""
	switch b := body.(type) {
	case nil:
	case url.Values:
		r, kind = strings.NewReader(b.Encode()), "application/x-www-form-urlencoded"
	case string:
		r, kind = strings.NewReader(b), "application/json"
	default:
		raw, err := json.Marshal(b)
		must(c.site.t, err)
		r, kind = bytes.NewReader(raw), "application/json"
	}
	portal, err := url.Parse(c.site.server.origins.Portal())
	must(c.site.t, err)
	req := httptest.NewRequest(method, path, r)
	req.Host = portal.Host
	req.RemoteAddr = "192.0.2.1:40000"
	if kind != "" {
		req.Header.Set("Content-Type", kind)
	} else if method == "POST" && !strings.HasPrefix(path, "/api/") {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	req.Header.Set("Sec-Fetch-Site", "same-origin")
	if strings.HasPrefix(path, "/api/") {
		req.Header.Set("Sec-Fetch-Dest", "empty")
	} else {
		req.Header.Set("Sec-Fetch-Dest", "document")
	}
	if method != "GET" && method != "HEAD" {
		req.Header.Set("Origin", portal.String())
	}
	for purpose, v := range map[string]string{"login": c.read, "write": c.write} {
		if v != "" {
			name, _, _ := c.site.server.origins.Cookie(purpose, "")
			req.AddCookie(&http.Cookie{Name: name, Value: v})
		}
	}
	for _, e := range edit {
		e(req)
	}
	return req
}

func (c *client) do(method, path string, body any, edit ...func(*http.Request)) *http.Response {
	rec := httptest.NewRecorder()
	c.site.server.ServeHTTP(rec, c.request(method, path, body, edit...))
	return rec.Result()
}

// get reads a page that must be there.
func (c *client) get(path string) string {
	c.site.t.Helper()
	res := c.do("GET", path, nil)
	if res.StatusCode != 200 {
		c.site.t.Fatalf("GET %s: %d %s", path, res.StatusCode, text(res))
	}
	return text(res)
}

func (c *client) api(method, path string, in, out any) int {
	c.site.t.Helper()
	res := c.do(method, "/api/v1"+path, in)
	body := text(res)
	if out != nil && res.StatusCode == 200 {
		must(c.site.t, json.Unmarshal([]byte(body), out))
	}
	return res.StatusCode
}

func text(res *http.Response) string {
	b, _ := io.ReadAll(res.Body)
	return string(b)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// lockedBuffer is a log that many goroutines write.
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

// fakeFleet and fakeNode stand in for the far ends: control's own tests and the
// stories use the real ones.
type fakeFleet struct{ node *fakeNode }

func (f fakeFleet) Machine(quire.DataCenter, quire.Node) quire.Machine { return f.node }
func (f fakeFleet) Gateway(quire.DataCenter) quire.Gateway             { return fakeGateway{} }

type fakeGateway struct{}

func (fakeGateway) Attach(ctx context.Context, down <-chan quire.GatewayFeed, up func(quire.GatewayReport)) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case f := <-down:
			up(quire.GatewayReport{Seq: f.Seq})
		}
	}
}

type fakeNode struct {
	id     quire.NodeID
	verify *ticket.Verifier
	wake   chan struct{}

	mu       sync.Mutex
	sessions map[quire.SessionID]quire.SessionReport
	changed  []quire.SessionReport
	fail     quire.OrderType // this order fails
}

func (n *fakeNode) Do(_ context.Context, b []byte) (quire.Receipt, error) {
	o, err := n.verify.Order(b, n.id, time.Now())
	if err != nil {
		return quire.Receipt{}, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if o.Type == n.fail {
		return quire.Receipt{Log: "disk full\n<script>alert(1)</script>"}, quire.Failed("There is no space left on the node.", nil)
	}
	switch o.Type {
	case quire.OrderStart:
		now := time.Now()
		n.tell(quire.SessionReport{ID: o.Session, User: o.User, Project: o.Project, App: o.App, State: quire.SessionRunning, Ready: &now})
	case quire.OrderStop:
		rep := n.sessions[o.Session]
		rep.ID, rep.User, rep.Project, rep.App = o.Session, o.User, o.Project, o.App
		rep.State, rep.Exit = quire.SessionEnded, &quire.Exit{By: "test", At: time.Now()}
		n.tell(rep)
	}
	return quire.Receipt{Note: "done by the test"}, nil
}

func (n *fakeNode) Send(context.Context, []byte, io.Writer) (quire.Receipt, error) {
	return quire.Receipt{}, quire.NotFound("project directory")
}

func (n *fakeNode) Receive(context.Context, []byte, io.Reader) (quire.Receipt, error) {
	return quire.Receipt{}, quire.NotFound("project directory")
}

func (n *fakeNode) tell(r quire.SessionReport) {
	n.sessions[r.ID] = r
	n.changed = append(n.changed, r)
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

func (n *fakeNode) Watch(ctx context.Context, down <-chan quire.Feed, up func(quire.NodeReport)) error {
	var seq int64
	h, _ := n.Health(ctx)
	n.mu.Lock()
	first := quire.NodeReport{Full: true, Health: &h}
	for _, s := range n.sessions {
		first.Sessions = append(first.Sessions, s)
	}
	n.changed = nil
	n.mu.Unlock()
	up(first)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case f := <-down:
			seq = f.Seq
		case <-n.wake:
		}
		n.mu.Lock()
		rep := quire.NodeReport{Seq: seq, Sessions: n.changed}
		n.changed = nil
		n.mu.Unlock()
		up(rep)
	}
}

func (n *fakeNode) Health(context.Context) (quire.NodeHealth, error) {
	return quire.NodeHealth{Version: "test", Time: time.Now(), MemoryFree: 3 << 30, MemoryTotal: 8 << 30, DiskFree: 40 << 30, DiskTotal: 100 << 30, Load: 0.42, CPUs: 2,
		Storage:  quire.Storage{ID: "v_aaaaaaaaaaaaaaaa", Root: "/projects", Type: "nfs", Options: []string{"noacl", "vers=3"}, Files: 100, FilesFree: 7, Problem: "/projects is mounted with noacl; mount it with acl."},
		Accounts: "single", Limits: "cgroup v2", Sessions: 1, Messages: []string{"fs.protected_symlinks is 0."}, Apps: []quire.App{
			{Name: "notebook", Title: "Notebook", Permit: "write", Summary: "Cells, text and plots"},
			{Name: "lab", Title: "JupyterLab", Permit: "write", Summary: "Notebooks, files and shells side by side"},
			{Name: "terminal", Title: "Terminal", Permit: "write", Summary: "A shell in the project"},
			{Name: "reader", Title: "Reader", Permit: "read", Summary: "Looks and does not touch"},
		}}, nil
}

func (n *fakeNode) Log(context.Context, quire.SessionID, int) (string, error) {
	return "first line\n<b>second</b>\n", nil
}

// The smallest reading of HTML that the assertions need.

var tagPattern = regexp.MustCompile(`(?s)<(/?)([a-zA-Z][a-zA-Z0-9-]*)((?:\s+[^\s=>]+(?:="[^"]*")?)*)\s*/?>`)
var attrPattern = regexp.MustCompile(`([^\s=]+)(?:="([^"]*)")?`)

type tag struct {
	name  string
	attrs map[string]string
	end   bool
}

func tags(page string) (out []tag) {
	for _, m := range tagPattern.FindAllStringSubmatch(page, -1) {
		t := tag{name: strings.ToLower(m[2]), end: m[1] == "/", attrs: map[string]string{}}
		for _, a := range attrPattern.FindAllStringSubmatch(m[3], -1) {
			t.attrs[a[1]] = a[2]
		}
		out = append(out, t)
	}
	return out
}

func links(page string) (out []string) {
	for _, t := range tags(page) {
		if t.name == "a" && t.attrs["href"] != "" {
			out = append(out, t.attrs["href"])
		}
	}
	return out
}

// TestPreview keeps a portal open to look at with a browser, when
// PREVIEW_ADDRESS says where: it is how the pages were made.
func TestPreview(t *testing.T) {
	address := os.Getenv("PREVIEW_ADDRESS")
	if address == "" {
		return
	}
	s := newCastAt(t, "http://"+address, testApps)
	l, err := net.Listen("tcp", "127.0.0.1:"+address[strings.LastIndex(address, ":")+1:])
	must(t, err)
	fmt.Println("sign in as owner with:", testPassword)
	must(t, s.server.Serve(l))
}
