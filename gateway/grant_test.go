package gateway

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"quire"
	"quire/ticket"
)

// TestRevocation is S-40 and S-43's part here: every way a right ends, and what
// it leaves alone.
func TestRevocation(t *testing.T) {
	for name, of := range map[string]func(p *person) quire.Revocation{
		"the login":               func(p *person) quire.Revocation { return quire.Revocation{Login: p.login} },
		"the user":                func(p *person) quire.Revocation { return quire.Revocation{User: p.user} },
		"the project":             func(p *person) quire.Revocation { return quire.Revocation{Project: p.projct} },
		"the user in the project": func(p *person) quire.Revocation { return quire.Revocation{User: p.user, Project: p.projct} },
		"everybody":               func(p *person) quire.Revocation { return quire.Revocation{} },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			p, q := w.person().enter(), w.person().enter()
			again := *p
			again.login = quire.NewLoginID()
			again.enter()
			for _, x := range []*person{p, q, &again} {
				if got := x.get("/notebook/x").StatusCode; got != 200 {
					t.Fatal(got)
				}
			}
			w.revoke(of(p))
			if got := p.get("/notebook/x").StatusCode; got != 401 {
				t.Errorf("revoked: %d", got)
			}
			if got, want := again.get("/notebook/x").StatusCode, map[bool]int{true: 200, false: 401}[name == "the login"]; got != want {
				t.Errorf("another login of the same person: %d", got)
			}
			if got, want := q.get("/notebook/x").StatusCode, map[bool]int{true: 401, false: 200}[name == "everybody"]; got != want {
				t.Errorf("somebody else: %d", got)
			}
			old := p.cookie
			if got := p.enter().get("/notebook/x").StatusCode; got != 200 {
				t.Errorf("after a new hand-off: %d", got)
			}
			p.cookie = old
			if got := p.get("/notebook/x").StatusCode; got != 401 {
				t.Errorf("the old cookie beside the new right: %d", got)
			}
		})
	}
}

// A ticket made before a revocation gives nothing after it.
func TestRevokedTicket(t *testing.T) {
	w := newWorld(t)
	p := w.person()
	text := p.ticket()
	w.revoke(quire.Revocation{User: p.user})
	if got := p.post(text, "/notebook/").StatusCode; got != 403 {
		t.Errorf("status %d", got)
	}
}

// TestRevokeRace is S-46: a request that begins after the revocation was
// reported never gets in, however many are under way.
func TestRevokeRace(t *testing.T) {
	w := newWorld(t)
	rounds := 60
	if testing.Short() {
		rounds = 10
	}
	for range rounds {
		p := w.person().enter()
		var over atomic.Bool
		var wrong atomic.Int64
		stop := make(chan struct{})
		var wg sync.WaitGroup
		for range 4 {
			wg.Add(1)
			go func() {
				defer wg.Done()
				tr := w.transport()
				defer tr.CloseIdleConnections()
				for {
					select {
					case <-stop:
						return
					default:
					}
					after := over.Load()
					resp, err := tr.RoundTrip(p.request("GET", "/notebook/x", nil))
					if err != nil {
						continue // cut in the middle, which is right
					}
					resp.Body.Close()
					if after && resp.StatusCode == 200 {
						wrong.Add(1)
					}
				}
			}()
		}
		w.revoke(quire.Revocation{Login: p.login})
		over.Store(true)
		for range 5 {
			if got := p.get("/notebook/x").StatusCode; got != 401 {
				t.Errorf("status %d after the report", got)
			}
		}
		close(stop)
		wg.Wait()
		if wrong.Load() > 0 {
			t.Fatalf("%d requests began after the report and got in", wrong.Load())
		}
	}
}

// An answer that is on its way when the right ends is cut.
func TestRevokeCutsStreams(t *testing.T) {
	w := newWorld(t)
	p := w.person().enter()
	w.app.set(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "first")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	for _, way := range []string{"X-Way", "Te"} {
		resp := p.enter().get("/notebook/x", way, "1")
		events := p.get("/_quire/events?app=notebook")
		w.revoke(quire.Revocation{Login: p.login})
		if got := body(resp); !strings.HasPrefix(got, "read: ") {
			t.Errorf("%s: the answer ended well: %q", way, got)
		}
		if got := body(events); strings.HasPrefix(got, "read: ") {
			t.Errorf("%s: our own stream was cut: %q", way, got)
		}
		w.shift.Add(int64(time.Millisecond))
		p.login = quire.NewLoginID()
	}
}

// TestRenewal: a grant in use is renewed before it ends, without anybody
// waiting; one that has ended is renewed while the request waits, once for all;
// and the cookie follows.
func TestRenewal(t *testing.T) {
	w := newWorld(t)
	p := w.person().enter()
	first := p.cookie
	p.get("/notebook/x")
	w.shift.Add(int64(3*time.Minute + 10*time.Second))
	w.until("it is renewed while in use", func() bool { w.mu.Lock(); defer w.mu.Unlock(); return w.renewals == 1 })
	w.until("it is taken", func() bool { return w.holder(p).newest.Load().Expires.Sub(w.now()) > 4*time.Minute })
	resp := p.get("/notebook/x")
	if c := resp.Cookies(); len(c) != 1 || c[0].Name != p.site().app.name || c[0].SameSite != http.SameSiteLaxMode || !c[0].HttpOnly {
		t.Fatalf("the cookie was not refreshed: %v", c)
	}
	p.cookie = resp.Cookies()[0].Name + "=" + resp.Cookies()[0].Value
	if resp := p.get("/notebook/x"); resp.StatusCode != 200 || len(resp.Cookies()) != 0 {
		t.Errorf("the new cookie: %d %v", resp.StatusCode, resp.Cookies())
	}
	w.shift.Add(int64(time.Hour))
	w.until("the clock is heard", func() bool { return !w.g.silent(w.now()) })
	w.mu.Lock()
	before := w.renewals
	w.mu.Unlock()
	var wg sync.WaitGroup
	for _, cookie := range []string{first, p.cookie} {
		for range 20 {
			wg.Add(1)
			go func() {
				defer wg.Done()
				q := *p
				q.cookie = cookie
				resp, err := w.transport().RoundTrip(q.request("GET", "/notebook/x", nil))
				if err != nil || resp.StatusCode != 200 {
					t.Errorf("after its end: %v %v", resp, err)
					return
				}
				resp.Body.Close()
			}()
		}
	}
	wg.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := w.renewals - before; n != 1 {
		t.Errorf("%d renewals were asked for", n)
	}
}

// A grant the server does not renew is over, for its sockets too (W-07, S-41).
func TestRenewalRefused(t *testing.T) {
	w := newWorld(t)
	w.app.set(echo)
	p := w.person().enter()
	c := p.dial("/notebook/ws")
	w.mu.Lock()
	w.refuse[p.login] = true
	w.mu.Unlock()
	w.shift.Add(int64(3*time.Minute + 10*time.Second))
	if _, _, err := c.Read(t.Context()); !strings.Contains(err.Error(), "4401") {
		t.Errorf("the socket ended with %v", err)
	}
	if got := p.get("/notebook/x").StatusCode; got != 401 {
		t.Errorf("status %d", got)
	}
	w.mu.Lock()
	w.refuse[p.login] = false
	w.mu.Unlock()
	if got := p.get("/notebook/x").StatusCode; got != 401 {
		t.Errorf("the same cookie opens again: %d", got)
	}
	if got := p.enter().get("/viewer/x").StatusCode; got != 426 && got != 200 {
		t.Errorf("a new hand-off: %d", got)
	}
}

// An open socket keeps its right alive, and its lease on the node, for as long
// as the server says yes (W-07).
func TestSocketRenews(t *testing.T) {
	t.Parallel()
	var leases atomic.Int64
	w := newWorld(t, func(c *Config, _ *quire.OriginConfig) {
		c.Renew = func(_ context.Context, addr string, node quire.NodeID, grant []byte) error {
			if addr == "compute:5002" && node == computeNode && len(grant) > 0 {
				leases.Add(1)
			}
			return nil
		}
	})
	w.app.set(echo)
	p := w.person().enter()
	c := p.dial("/notebook/ws")
	for i := range 5 {
		w.shift.Add(int64(4 * time.Minute))
		w.until("the lease is renewed", func() bool { return leases.Load() == int64(i+1) })
	}
	if err := ping(t.Context(), c, "after 20 minutes"); err != nil {
		t.Error(err)
	}
}

// TestServerAway: while the server is silent a grant is good until its grace
// ends, and nobody new gets in; then everything closes. When the server is back
// it decides.
func TestServerAway(t *testing.T) {
	w := newWorld(t)
	w.app.set(echo)
	p := w.person().enter()
	idle := w.person().enter()
	c := p.dial("/notebook/ws")
	w.detach()
	w.shift.Add(int64(10 * time.Minute)) // past the end, within the grace
	w.until("it is silent", func() bool { return w.g.silent(w.now()) })
	if err := ping(t.Context(), c, "within the grace"); err != nil {
		t.Errorf("the socket: %v", err)
	}
	if got := p.get("/notebook/x").StatusCode; got != 426 {
		t.Errorf("within the grace: %d", got)
	}
	if got := idle.get("/notebook/x").StatusCode; got != 426 {
		t.Errorf("within the grace, after a pause: %d", got)
	}
	w.shift.Add(int64(51 * time.Minute)) // past the grace
	if _, _, err := c.Read(t.Context()); !strings.Contains(err.Error(), "4401") {
		t.Errorf("past the grace the socket ended with %v", err)
	}
	resp := p.page("/notebook/x")
	if text := body(resp); resp.StatusCode != 503 || !strings.Contains(text, "portal does not answer") {
		t.Errorf("past the grace: %d %s", resp.StatusCode, text)
	}
	if resp := p.get("/notebook/x"); resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" {
		t.Errorf("past the grace, a program: %d", resp.StatusCode)
	}
	w.mu.Lock()
	w.refuse[idle.login] = true
	w.mu.Unlock()
	w.attach()
	w.routes(p.route("notebook", "write"), idle.route("notebook", "write"))
	if got := p.get("/notebook/x").StatusCode; got != 426 {
		t.Errorf("the server is back and says yes: %d", got)
	}
	if got := idle.get("/notebook/x").StatusCode; got != 401 {
		t.Errorf("the server is back and says no: %d", got)
	}
}

// While the server is heard, an end is an end: grace is no longer life.
func TestNoGraceWhileHeard(t *testing.T) {
	w := newWorld(t)
	p := w.person().enter()
	w.mu.Lock()
	w.muted = true // it is alive and does not answer renewals
	w.mu.Unlock()
	w.shift.Add(int64(6 * time.Minute))
	w.until("the clock is heard", func() bool { return !w.g.silent(w.now()) })
	began := time.Now()
	if got := p.get("/notebook/x").StatusCode; got != 503 {
		t.Errorf("status %d", got)
	}
	if d := time.Since(began); d < renewWait-100*time.Millisecond || d > renewWait+2*time.Second {
		t.Errorf("it waited %v", d)
	}
}

// TestRestart: a gateway started again with the same key knows nobody, and the
// cookies bring everybody back once the server has renewed them; with another
// key nobody comes back.
func TestRestart(t *testing.T) {
	w := newWorld(t)
	w.app.set(func(http.ResponseWriter, *http.Request) {})
	p, gone := w.person().enter(), w.person().enter()
	w.revoke(quire.Revocation{Login: gone.login})
	revoked := quire.Revocation{Seq: w.seq, Login: gone.login, At: w.now()}
	w.detach()
	w.g.Close()
	w.shift.Add(int64(20 * time.Minute))
	w.start()
	w.send(quire.GatewayFeed{Feed: quire.Feed{Revocations: []quire.Revocation{revoked}}})
	w.routes(p.route("notebook", "write"), gone.route("notebook", "write"))
	if got := p.get("/notebook/x").StatusCode; got != 200 {
		t.Errorf("status %d", got)
	}
	if got := gone.get("/notebook/x").StatusCode; got != 401 {
		t.Errorf("the one who was revoked: %d", got)
	}
	w.mu.Lock()
	if w.renewals != 1 {
		t.Errorf("%d renewals", w.renewals)
	}
	w.mu.Unlock()
	w.g.Close()
	w.key = bytes.Repeat([]byte{8}, 32)
	w.start()
	w.routes(p.route("notebook", "write"))
	if got := p.get("/notebook/x").StatusCode; got != 401 {
		t.Errorf("another key: %d", got)
	}
}

// Before the first word of the server nothing is decided.
func TestBeforeTheServer(t *testing.T) {
	w := newWorld(t)
	p := w.person().enter()
	w.detach()
	w.g.Close()
	verifier, _ := ticket.NewVerifier(w.signer.Public())
	g, err := New(Config{Node: gatewayNode, Origins: w.origins, Verifier: verifier, CookieKey: w.key, Dial: w.g.cfg.Dial, Renew: w.g.cfg.Renew})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	req := p.request("GET", "/notebook/x", nil)
	req.RequestURI = req.URL.RequestURI()
	rec := newRecorder()
	g.ServeHTTP(rec, req)
	if rec.status != 503 {
		t.Errorf("status %d", rec.status)
	}
}

type recorder struct {
	status int
	header http.Header
	bytes.Buffer
}

func newRecorder() *recorder            { return &recorder{header: http.Header{}} }
func (r *recorder) Header() http.Header { return r.header }
func (r *recorder) WriteHeader(s int)   { r.status = s }
func (r *recorder) Flush()              {}

// A feed with a gap is not believed.
func TestGapInTheFeed(t *testing.T) {
	w := newWorld(t)
	down := make(chan quire.GatewayFeed, 1)
	down <- quire.GatewayFeed{Feed: quire.Feed{Seq: 40}}
	if err := w.g.Attach(t.Context(), down, func(quire.GatewayReport) {}); quire.KindOf(err) != quire.KindConflict {
		t.Errorf("a gap: %v", err)
	}
}

// A full feed replaces everything that was known of routes.
func TestFullFeed(t *testing.T) {
	w := newWorld(t)
	p, q := w.person().enter(), w.person().enter()
	w.attach()
	if got := p.get("/notebook/x").StatusCode; got != 404 {
		t.Errorf("a route of before: %d", got)
	}
	w.routes(q.route("notebook", "write"))
	if got := q.get("/notebook/x").StatusCode; got != 200 {
		t.Errorf("a new route: %d", got)
	}
	gone := q.route("notebook", "write")
	gone.Gone = true
	w.routes(gone)
	if got := q.get("/notebook/x").StatusCode; got != 404 {
		t.Errorf("gone: %d", got)
	}
}

// A route that names another person or project than the grant is none.
func TestRouteOfAnother(t *testing.T) {
	w := newWorld(t)
	p := w.person().enter()
	for _, change := range []func(*quire.Route){func(r *quire.Route) { r.User = "u_other" }, func(r *quire.Route) { r.Project = "p_other" }} {
		r, other := p.route("notebook", "write"), p.route("viewer", "read")
		change(&r)
		change(&other)
		w.routes(r, other)
		resp := p.page("/notebook/x")
		if text := body(resp); resp.StatusCode != 404 || strings.Contains(text, "alice/demo") {
			t.Errorf("%d %s", resp.StatusCode, text)
		}
	}
	if n := w.app.hits.Load(); n != 0 {
		t.Errorf("the app was asked %d times", n)
	}
}

// A project that moved to another node needs a grant for that node.
func TestMovedNode(t *testing.T) {
	w := newWorld(t)
	p := w.person().enter()
	r := p.route("notebook", "write")
	r.Node = "n_elsewhere"
	w.routes(r)
	if got := p.get("/notebook/x").StatusCode; got != 503 {
		t.Errorf("status %d", got)
	}
	w.until("a new grant is asked for", func() bool { w.mu.Lock(); defer w.mu.Unlock(); return w.renewals > 0 })
}

// TestClock is G-26: a gateway whose clock is wrong says so.
func TestClock(t *testing.T) {
	w := newWorld(t)
	p := w.person().enter()
	w.shift.Add(-int64(10 * time.Minute))
	resp := p.page("/notebook/x")
	if text := body(resp); resp.StatusCode != 503 || !strings.Contains(text, "clock") {
		t.Errorf("%d %s", resp.StatusCode, text)
	}
	w.shift.Add(int64(10*time.Minute - 30*time.Second))
	if got := p.get("/notebook/x").StatusCode; got != 200 {
		t.Errorf("half a minute off: %d", got)
	}
}

// What the gateway says of itself: projects in use, its version.
func TestReports(t *testing.T) {
	w := newWorld(t)
	p, q := w.person().enter(), w.person().enter()
	p.get("/notebook/x")
	w.until("the project is active", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		r := w.reports[len(w.reports)-1]
		return slices.Contains(r.Active, p.projct) && !slices.Contains(r.Active, q.projct) && r.Version == "test"
	})
}

// Route changes take effect in under 5 ms with 10,000 sessions known; they are
// lookups in memory and nothing else.
func TestRouteChange(t *testing.T) {
	w := newWorld(t)
	p := w.person().enter()
	var all []quire.Route
	for range 10_000 {
		l := quire.NewLabel()
		all = append(all, quire.Route{Label: l, User: quire.NewUserID(), Project: p.projct, App: "notebook", Session: quire.NewSessionID(), Node: computeNode, State: quire.SessionRunning})
	}
	w.send(quire.GatewayFeed{Routes: all})
	w.until("10,000 routes are known", func() bool { _, ok := w.g.routes.byLabel.Load(all[len(all)-1].Label); return ok })
	var took []time.Duration
	for i := range 200 {
		r := p.route("notebook", "write")
		r.Session = quire.SessionID(fmt.Sprint("s_", i))
		began := time.Now()
		w.g.routes.update([]quire.Route{r}, false, 0, false)
		if got := (*w.siteOf(p).apps.Load())["notebook"]; got.Session != r.Session {
			t.Fatal("not changed")
		}
		took = append(took, time.Since(began))
	}
	// The middle one: on a machine with other work some changes wait for it.
	slices.Sort(took)
	if usual := took[len(took)/2]; usual > 5*time.Millisecond {
		t.Errorf("a change takes %v", usual)
	}
	t.Logf("the slowest of 200 changes: %v", took[len(took)-1])
}

func (w *world) siteOf(p *person) *site {
	v, ok := w.g.routes.byLabel.Load(p.label)
	if !ok {
		w.t.Fatal("no site")
	}
	return v.(*site)
}
