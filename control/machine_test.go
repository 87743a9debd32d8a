package control

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"quire"
)

// machine is a scripted quire.Machine: it checks orders as a node does, keeps
// books instead of files and processes, and can be told to fail, to hang, to be
// away or to lie. The real one is compute.Compute, tested there.
type machine struct {
	s  *site
	id quire.NodeID

	mu       sync.Mutex
	away     bool
	outs     map[chan quire.NodeReport]chan struct{} // of each server that watches; the latter is closed to break the link
	links    int
	feeds    []quire.Feed
	orders   []quire.Order
	acts     map[string]int // what was really done, not already so
	dirs     map[quire.ProjectID]string
	made     map[string]bool
	sessions map[quire.SessionID]*quire.SessionReport
	storage  quire.Storage
	stranger bool // a file of the project belongs to somebody unknown
	lies     bool // its copy is another
	silent   bool // sessions start, but never say that they are ready
	before   func(context.Context, quire.Order) error
	after    func(context.Context, quire.Order) error
}

func newMachine(s *site) *machine {
	return &machine{s: s, id: s.record.ID, outs: map[chan quire.NodeReport]chan struct{}{}, acts: map[string]int{}, dirs: map[quire.ProjectID]string{}, made: map[string]bool{}, sessions: map[quire.SessionID]*quire.SessionReport{}}
}

func (m *machine) apps() []quire.App {
	cmd := []string{"/bin/app", "%(socket)s"}
	return []quire.App{
		{Name: "notebook", Title: "Notebook", Enabled: true, Permit: "write", Command: cmd},
		{Name: "terminal", Title: "Terminal", Enabled: true, Permit: "write", Command: cmd},
		{Name: "viewer", Title: "Viewer", Enabled: true, Permit: "read", Command: cmd},
		{Name: "visitor", Title: "Public folder", Enabled: true, Permit: "public", Content: true, Command: cmd},
	}
}

// others are for projects whose own environment has what they need.
func (m *machine) others() []quire.App {
	return []quire.App{{Name: "lab", Title: "JupyterLab", Enabled: true, Permit: "write", Order: -1, Command: []string{"/bin/app", "%(socket)s"}}}
}

func errAway() error { return quire.Unavailable("The node did not answer.", nil) }

func (m *machine) Health(context.Context) (quire.NodeHealth, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.away {
		return quire.NodeHealth{}, errAway()
	}
	return quire.NodeHealth{Apps: m.apps(), Others: m.others(), Storage: m.storage, Messages: []string{"a secret of the house"}}, nil
}

func (m *machine) Log(_ context.Context, id quire.SessionID, n int) (string, error) {
	return fmt.Sprintf("log of %s", id), nil
}

func (m *machine) Do(ctx context.Context, order []byte) (quire.Receipt, error) {
	o, err := m.s.verify.Order(order, m.id, m.s.clock.now())
	if err != nil {
		return quire.Receipt{}, quire.Forbidden(err.Error())
	}
	m.mu.Lock()
	if m.away {
		m.mu.Unlock()
		return quire.Receipt{}, errAway()
	}
	m.orders = append(m.orders, o)
	before, after := m.before, m.after
	m.mu.Unlock()
	if before != nil {
		if err := before(ctx, o); err != nil {
			return quire.Receipt{Log: "what the step printed"}, err
		}
	}
	rec, err := m.act(o)
	if after != nil && err == nil {
		err = after(ctx, o)
	}
	return rec, err
}

// act does what an order says, once.
func (m *machine) act(o quire.Order) (quire.Receipt, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	did := func(now bool) (quire.Receipt, error) {
		if now {
			m.acts[o.Type.String()]++
			return quire.Receipt{Note: "done"}, nil
		}
		return quire.Receipt{Already: true, Note: "already there"}, nil
	}
	move := func(from, to string) (quire.Receipt, error) {
		switch m.dirs[o.Project] {
		case to:
			return did(false)
		case from:
			m.dirs[o.Project] = to
			return did(true)
		}
		return quire.Receipt{}, quire.Failed(fmt.Sprintf("The directory is %q.", m.dirs[o.Project]), nil)
	}
	switch o.Type {
	case quire.OrderDirectory:
		return move("", "there")
	case quire.OrderAside:
		if m.dirs[o.Project] == "" {
			return quire.Receipt{}, quire.NotFound("project directory")
		}
		return move("there", "out")
	case quire.OrderBack:
		if m.dirs[o.Project] != "out" {
			return did(false)
		}
		return move("out", "there")
	case quire.OrderPlace:
		return move("in", "there")
	case quire.OrderUnstage:
		if m.dirs[o.Project] == "in" {
			m.dirs[o.Project] = ""
		}
		return did(true)
	case quire.OrderTrash:
		var args quire.MoveArgs
		if json.Unmarshal(o.Args, &args) == nil && args.Aside {
			return move("out", "aside")
		}
		if m.dirs[o.Project] == "" { // never started
			return did(false)
		}
		return move("there", "aside")
	case quire.OrderRestore:
		if m.dirs[o.Project] == "" {
			return did(false)
		}
		return move("aside", "there")
	case quire.OrderPurge:
		var args quire.MoveArgs
		if json.Unmarshal(o.Args, &args) == nil && args.Aside && m.dirs[o.Project] != "aside" {
			return did(false)
		}
		_, had := m.dirs[o.Project]
		delete(m.dirs, o.Project)
		return did(had)
	case quire.OrderSkeleton, quire.OrderClone, quire.OrderEnvironment:
		if m.dirs[o.Project] != "there" {
			return quire.Receipt{}, quire.Failed("There is no directory.", nil)
		}
		key := o.Type.String() + string(o.Project)
		was := m.made[key]
		m.made[key] = true
		return did(!was)
	case quire.OrderPermissions:
		return did(true)
	case quire.OrderStart:
		if m.sessions[o.Session] != nil {
			return did(false)
		}
		sr := &quire.SessionReport{ID: o.Session, User: o.User, Project: o.Project, App: o.App, State: quire.SessionStarting}
		m.sessions[o.Session] = sr
		if !m.silent {
			now := m.s.clock.now()
			sr.State, sr.Ready = quire.SessionRunning, &now
		}
		m.tell(quire.NodeReport{Sessions: []quire.SessionReport{*sr}})
		return did(true)
	case quire.OrderStop:
		sr := m.sessions[o.Session]
		if sr == nil || !sr.State.Live() {
			return did(false)
		}
		var args quire.StopArgs
		if err := json.Unmarshal(o.Args, &args); err != nil {
			return quire.Receipt{}, err
		}
		sr.State, sr.Exit = quire.SessionEnded, &quire.Exit{Signal: "terminated", By: args.By, At: m.s.clock.now()}
		m.tell(quire.NodeReport{Sessions: []quire.SessionReport{*sr}})
		return did(true)
	}
	return quire.Receipt{}, quire.Invalid("type", "unknown order")
}

// tell sends a report to every server that has a link; what is lost comes with
// the next full one. m.mu is held.
func (m *machine) tell(rep quire.NodeReport) {
	for out := range m.outs {
		out <- rep
	}
}

// report sends a report as the node's own word.
func (m *machine) report(rep quire.NodeReport) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tell(rep)
}

func (m *machine) Watch(ctx context.Context, down <-chan quire.Feed, up func(quire.NodeReport)) error {
	m.mu.Lock()
	if m.away {
		m.mu.Unlock()
		return errAway()
	}
	out, cut := make(chan quire.NodeReport, 10_000), make(chan struct{})
	m.outs[out] = cut
	m.links++
	full := quire.NodeReport{Full: true, Health: &quire.NodeHealth{Apps: m.apps(), Others: m.others(), Storage: m.storage, Messages: []string{"a secret of the house"}}}
	for _, sr := range m.sessions {
		if sr.State.Live() {
			full.Sessions = append(full.Sessions, *sr)
		}
	}
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.outs, out)
	}()
	up(full)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-cut:
			return errAway()
		case f, ok := <-down:
			if !ok {
				return nil
			}
			m.mu.Lock()
			m.feeds = append(m.feeds, f)
			m.mu.Unlock()
			up(quire.NodeReport{Seq: f.Seq})
		case rep := <-out:
			up(rep)
		}
	}
}

// leave breaks the link and answers nobody until back.
func (m *machine) leave() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.away = true
	for _, cut := range m.outs {
		close(cut)
	}
	clear(m.outs)
}

func (m *machine) back() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.away = false
}

// ordered counts orders of a type that were received.
func (m *machine) ordered(t quire.OrderType) (n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, o := range m.orders {
		if o.Type == t {
			n++
		}
	}
	return n
}

func (m *machine) acted(what quire.OrderType) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.acts[what.String()]
}

// received lists the types of orders, in their order.
func (m *machine) received() (types []quire.OrderType) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, o := range m.orders {
		types = append(types, o.Type)
	}
	return types
}

func (m *machine) last(t quire.OrderType) (o quire.Order) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, x := range m.orders {
		if x.Type == t {
			o = x
		}
	}
	return o
}

func (m *machine) state(id quire.SessionID) quire.SessionState {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.sessions[id] == nil {
		return ""
	}
	return m.sessions[id].State
}

func (m *machine) dir(id quire.ProjectID) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.dirs[id]
}

// script sets what happens before and after each order; nil for nothing.
func (m *machine) script(before, after func(context.Context, quire.Order) error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.before, m.after = before, after
}

// hang is a script that stops at orders of a type until the caller is gone, or
// release is closed.
type hang struct{ reached, release chan struct{} }

func newHang() *hang { return &hang{make(chan struct{}, 100), make(chan struct{})} }

func (h *hang) at(types ...quire.OrderType) func(context.Context, quire.Order) error {
	return func(ctx context.Context, o quire.Order) error {
		if !slices.Contains(types, o.Type) {
			return nil
		}
		h.reached <- struct{}{}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-h.release:
			return nil
		}
	}
}

func (h *hang) wait(t *testing.T) {
	t.Helper()
	select {
	case <-h.reached:
	case <-time.After(30 * time.Second):
		t.Fatal("the order never came")
	}
}

// door is a scripted quire.Gateway: it writes down what it is told. The real one
// is gateway.Gateway, tested there.
type door struct {
	s *site

	mu       sync.Mutex
	away     bool
	cut      chan struct{}
	out      chan quire.GatewayReport
	links    int
	asked    int64
	feeds    []quire.GatewayFeed
	heard    []time.Time
	routes   map[string]quire.Route // label/app
	nodes    map[quire.NodeID]string
	revoked  []quire.Revocation
	renewed  map[int64]quire.Renewed
	disorder string
}

func newDoor(s *site) *door {
	return &door{s: s, routes: map[string]quire.Route{}, renewed: map[int64]quire.Renewed{}}
}

func (d *door) Attach(ctx context.Context, down <-chan quire.GatewayFeed, up func(quire.GatewayReport)) error {
	d.mu.Lock()
	if d.away {
		d.mu.Unlock()
		return errAway()
	}
	out, cut := make(chan quire.GatewayReport, 100), make(chan struct{})
	d.out, d.cut = out, cut
	d.links++
	d.mu.Unlock()
	last := int64(-1)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-cut:
			return errAway()
		case f, ok := <-down:
			if !ok {
				return nil
			}
			d.mu.Lock()
			if f.Full != (last == -1) || f.Seq < last {
				d.disorder = fmt.Sprintf("full %v, number %d after %d", f.Full, f.Seq, last)
			}
			last = f.Seq
			d.take(f)
			d.mu.Unlock()
			up(quire.GatewayReport{Seq: f.Seq})
		case rep := <-out:
			up(rep)
		}
	}
}

func (d *door) take(f quire.GatewayFeed) {
	d.feeds = append(d.feeds, f)
	d.heard = append(d.heard, time.Now())
	if f.Full {
		d.routes, d.revoked = map[string]quire.Route{}, nil
	}
	for _, r := range f.Routes {
		d.routes[string(r.Label)+"/"+r.App] = r
	}
	if f.Nodes != nil {
		d.nodes = f.Nodes
	}
	d.revoked = append(d.revoked, f.Revocations...)
	for _, r := range f.Renewed {
		d.renewed[r.N] = r
	}
}

func (d *door) leave() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.away = true
	if d.cut != nil {
		close(d.cut)
		d.cut = nil
	}
}

func (d *door) back() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.away = false
}

func (d *door) route(l quire.Label, app string) quire.Route {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.routes[string(l)+"/"+app]
}

// covers reports whether the gateway was told a revocation that ends the grant.
func (d *door) covers(grant []byte) bool {
	g, err := d.s.verify.Grant(grant)
	must(d.s.t, err)
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.ContainsFunc(d.revoked, g.Revoked)
}

// renew asks for a newer grant, as a gateway does while the old one is in use.
func (d *door) renew(grant []byte) []byte {
	d.s.t.Helper()
	d.mu.Lock()
	d.asked++
	n := d.asked
	d.out <- quire.GatewayReport{Renew: []quire.RenewAsk{{N: n, Grant: grant}}}
	d.mu.Unlock()
	var answer quire.Renewed
	d.s.eventually("the grant is renewed or refused", func() (ok bool) {
		d.mu.Lock()
		defer d.mu.Unlock()
		answer, ok = d.renewed[n]
		return ok
	})
	return answer.Grant
}
