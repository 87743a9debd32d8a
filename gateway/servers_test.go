package gateway

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"quire"
)

// An other is one more server process that attaches beside the world's own.
type other struct {
	w     *world
	down  chan quire.GatewayFeed
	leave context.CancelFunc
	left  chan error

	mu    sync.Mutex
	renew []quire.RenewAsk
	joins []quire.JoinAsk
	done  int64
}

func (w *world) other() *other {
	ctx, cancel := context.WithCancel(context.Background())
	o := &other{w: w, down: make(chan quire.GatewayFeed), leave: cancel, left: make(chan error, 1)}
	g := w.g
	go func() {
		o.left <- g.Attach(ctx, o.down, func(r quire.GatewayReport) {
			o.mu.Lock()
			defer o.mu.Unlock()
			o.renew = append(o.renew, r.Renew...)
			o.joins = append(o.joins, r.Joins...)
			o.done = r.Seq
		})
	}()
	w.t.Cleanup(cancel)
	return o
}

// say returns when the gateway has begun to hear the word, and, with the one
// after it, when it has heard it.
func (o *other) say(f quire.GatewayFeed) {
	o.w.t.Helper()
	select {
	case o.down <- f:
	case <-time.After(20 * time.Second):
		o.w.t.Fatal("the gateway does not listen")
	}
}

// tell is say of what has been heard when it returns.
func (o *other) tell(f quire.GatewayFeed) {
	o.w.t.Helper()
	o.say(f)
	o.say(quire.GatewayFeed{Feed: quire.Feed{Seq: f.Seq}})
}

func (o *other) asked() (renew, joins int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.renew), len(o.joins)
}

func full(seq, version int64, routes ...quire.Route) quire.GatewayFeed {
	return quire.GatewayFeed{Feed: quire.Feed{Full: true, Seq: seq}, Nodes: map[quire.NodeID]string{computeNode: "compute:5002"}, Routes: routes, Version: version}
}

func changed(seq, version int64, r quire.Route) quire.GatewayFeed {
	r.Version = version
	return quire.GatewayFeed{Feed: quire.Feed{Seq: seq}, Routes: []quire.Route{r}}
}

// A second server does not take the first one's place: either one's words count,
// and either can go.
func TestTwoServers(t *testing.T) {
	w := newWorld(t)
	p := w.person().enter()
	b := w.other()
	b.tell(full(0, 1, p.route("notebook", "write")))
	select {
	case <-w.left:
		t.Fatal("the first stream has ended")
	default:
	}
	w.routes(func() quire.Route { r := p.route("viewer", "read"); r.Version = 2; return r }()) // by the first
	for _, path := range []string{"/notebook/x", "/viewer/x"} {
		if got := p.get(path).StatusCode; got != 200 {
			t.Errorf("%s: %d", path, got)
		}
	}
	w.detach()
	r := p.route("notebook", "write")
	r.State = quire.SessionEnded
	b.tell(changed(0, 3, r))
	if got := p.page("/notebook/x").StatusCode; got == 200 {
		t.Errorf("what the second one says after the first has gone is not heard: %d", got)
	}
	// Heard from one is heard: grants that need no grace go on.
	if w.g.silent(w.now()) {
		t.Error("it counts as silent while a server speaks")
	}
}

// The number of a revocation only grows: a slower server's older one undoes
// nothing, and its own full list does not either.
func TestOlderNumbersUndoNothing(t *testing.T) {
	w := newWorld(t)
	p := w.person().enter()
	b := w.other()
	b.tell(full(0, 0, p.route("notebook", "write")))
	seq := w.revokeAsync(quire.Revocation{User: p.user, Project: p.projct})
	w.until("the cookie counts no more", func() bool { return p.get("/notebook/x").StatusCode == 401 })
	b.tell(quire.GatewayFeed{Feed: quire.Feed{Seq: 0}})
	b.leave()
	<-b.left
	c := w.other() // read before the revocation
	c.tell(full(0, 0, p.route("notebook", "write")))
	if got := p.get("/notebook/x").StatusCode; got != 401 {
		t.Errorf("after an older full list: %d", got)
	}
	// The same revocation by the slower server ends nobody twice, and needs no gap.
	c.tell(quire.GatewayFeed{Feed: quire.Feed{Seq: seq, Revocations: []quire.Revocation{{Seq: seq, User: p.user, Project: p.projct, At: w.now()}}}})
	w.until("it is reported as done to both", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		w.mu.Lock()
		defer w.mu.Unlock()
		return c.done == seq && w.seen == seq
	})
	if s := w.g.grants.seq; s != seq {
		t.Errorf("the newest number is %d", s)
	}
}

// A word on an app that is older than what is known changes nothing, however it
// comes: as a change, or in a list with or without the app.
func TestOlderRoutesAreRefused(t *testing.T) {
	w := newWorld(t)
	p := w.person().enter()
	b := w.other()
	b.tell(full(0, 10, p.route("notebook", "write"), p.route("viewer", "read")))
	state := func(app string) quire.SessionState {
		a := (*w.siteOf(p).apps.Load())[app]
		if a == nil {
			return ""
		}
		return a.State
	}
	ended := p.route("notebook", "write")
	ended.State = quire.SessionEnded
	b.tell(changed(0, 12, ended))
	c := w.other()
	c.tell(full(0, 11, p.route("notebook", "write"))) // read between the two, delivered after both
	if got := state("notebook"); got != quire.SessionEnded {
		t.Errorf("an older list has brought back %q", got)
	}
	if got := state("viewer"); got != "" {
		t.Errorf("a newer list does not have it, and it is %q", got)
	}
	c.tell(changed(0, 9, p.route("viewer", "read")))
	if got := state("viewer"); got != "" {
		t.Errorf("an older change has brought back %q", got)
	}
	c.tell(changed(0, 11, p.route("notebook", "write")))
	if got := state("notebook"); got != quire.SessionEnded {
		t.Errorf("an older change has brought back %q", got)
	}
	c.tell(full(0, 11))
	if got := state("notebook"); got != quire.SessionEnded {
		t.Errorf("an older list without it has taken it away: %q", got)
	}
	c.tell(changed(0, 13, p.route("notebook", "write")))
	if got := state("notebook"); got != quire.SessionRunning {
		t.Errorf("a newer change is not taken: %q", got)
	}
	older := full(0, 4)
	older.Nodes = map[quire.NodeID]string{computeNode: "elsewhere:5002"}
	c.tell(older)
	if got := w.g.nodes.addr(computeNode); got != "compute:5002" {
		t.Errorf("an older list has moved the node to %s", got)
	}

	// The database was brought back from a copy, so all servers were stopped: the
	// first one that comes back is believed whatever it says.
	for _, o := range []*other{b, c} {
		o.leave()
		<-o.left
	}
	w.detach()
	d := w.other()
	d.tell(full(0, 3, p.route("viewer", "read")))
	if a, b := state("notebook"), state("viewer"); a != "" || b != quire.SessionRunning {
		t.Errorf("after all servers were away: %q, %q", a, b)
	}
}

// What one server was asked and did not answer before it went, another is asked.
func TestAskedElsewhere(t *testing.T) {
	w := newWorld(t)
	w.muted = true
	p := w.person().enter()
	b := w.other()
	b.tell(full(0, 0, p.route("notebook", "write"), p.route("viewer", "read")))
	silent := w.other() // it is attached and says nothing, as a process that was stopped

	h := w.holder(p)
	w.g.ask(h)
	joined := make(chan *httptest.ResponseRecorder, 1)
	go func() {
		rec := httptest.NewRecorder()
		w.g.join(rec, httptest.NewRequestWithContext(t.Context(), "POST", joinPath, bytes.NewReader([]byte("let me in"))))
		joined <- rec
	}()
	asked := func() (renewals, joins int) {
		renewals, joins = b.asked()
		w.mu.Lock()
		defer w.mu.Unlock()
		renewals += w.renewals
		for _, r := range w.reports {
			joins += len(r.Joins)
		}
		return renewals, joins
	}
	w.until("one of those who speak is asked, once", func() bool { r, j := asked(); return r == 1 && j == 1 })
	if r, j := silent.asked(); r+j != 0 {
		t.Errorf("who says nothing was asked %d and %d times", r, j)
	}
	w.detach()
	w.until("what the first one did not answer is asked of the second", func() bool { r, j := b.asked(); return r == 1 && j == 1 })
	b.mu.Lock()
	ask, join := b.renew[0], b.joins[0]
	b.mu.Unlock()
	if string(join.Request) != "let me in" {
		t.Errorf("%q", join.Request)
	}
	before := h.newest.Load().Issued
	w.shift.Add(int64(time.Second))
	b.tell(quire.GatewayFeed{Renewed: []quire.Renewed{{N: ask.N, Grant: p.grant()}}, Joined: []quire.Joined{{N: join.N, Answer: []byte("come in")}}})
	if got := h.newest.Load().Issued; !got.After(before) {
		t.Error("the grant is not renewed")
	}
	if rec := <-joined; rec.Code != http.StatusOK || !strings.Contains(rec.Body.String(), "come in") {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}
	if got := p.get("/notebook/x").StatusCode; got != 200 {
		t.Errorf("status %d", got)
	}
}

// There are as many streams as there can be servers; the one that says least
// makes room.
func TestTooManyServers(t *testing.T) {
	w := newWorld(t)
	quiet := w.other()
	w.until("it is there", func() bool { w.g.attach.mu.Lock(); defer w.g.attach.mu.Unlock(); return len(w.g.attach.streams) == 2 })
	var others []*other
	for range quire.MaxServers - 2 {
		o := w.other()
		o.tell(full(0, 0))
		others = append(others, o)
	}
	// The world's own speaks every half second: it must be newer than the quiet one.
	w.send(quire.GatewayFeed{})
	w.until("the world's own was heard", func() bool {
		w.g.attach.mu.Lock()
		defer w.g.attach.mu.Unlock()
		return w.g.attach.best() == w.g.attach.streams[0]
	})
	last := w.other()
	last.tell(full(0, 0))
	if err := <-quiet.left; quire.KindOf(err) != quire.KindUnavailable {
		t.Errorf("the quiet one ended with %v", err)
	}
	for i, o := range append(others, last) {
		select {
		case err := <-o.left:
			t.Errorf("%d ended: %v", i, err)
		default:
		}
	}
}
