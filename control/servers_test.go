package control

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"quire"
	"quire/store"
	"quire/ticket"
)

// Two processes on one PostgreSQL are one installation. The first one of each
// test does the works.

func two(t *testing.T) (a, b *site) {
	t.Helper()
	a = siteOn(t, postgres(t))
	b = a.another(func(b *site) { b.beside = true })
	b.up()
	return a, b
}

// cutEars ends the connections on which the processes hear of each other.
func (s *site) cutEars() {
	s.t.Helper()
	on := cluster
	if on == nil {
		on = shared.Postgres
	}
	_, err := on.SQL("quire", `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'quire listening'`)
	must(s.t, err)
}

// What is done through one is seen by who looks through the other, at once.
func TestNewsOfAnotherProcess(t *testing.T) {
	a, b := two(t)
	alice := a.person("alice")
	p := a.project(alice, "data")
	news, err := b.Site.Watch(t.Context(), alice, p.ID)
	must(t, err)
	heard := func(what string) bool {
		t.Helper()
		select {
		case _, ok := <-news:
			return ok
		case <-time.After(30 * time.Second):
			t.Fatalf("nothing is heard of %s", what)
		}
		return false
	}
	_, err = a.Projects.Update(bg(), alice, p.ID, ProjectChange{Summary: ptr("new words")})
	must(t, err)
	if !heard("a change") {
		t.Fatal("the stream ended")
	}
	if got, err := b.Projects.ByName(bg(), alice, "alice", "data"); err != nil || got.Summary != "new words" {
		t.Errorf("%+v, %v", got, err)
	}
	// An app that is opened through the one that does not do the works.
	one := b.open(alice, p, "notebook")
	label := a.label(alice, p.ID)
	for name, s := range map[string]*site{"a": a, "b": b} {
		s.eventually("the gateway's stream of "+name+" knows the app", func() bool {
			r := s.gate.route(label, "notebook")
			return r.Session == one.ID && r.State == quire.SessionRunning && r.Version > 0
		})
	}
	// A login that ends in one ends in the other.
	must(t, a.Logins.Leave(bg(), alice))
	for heard("a logout") {
	}
	if _, err := b.Projects.Create(bg(), alice, NewProject{Name: "late"}); err == nil {
		t.Errorf("a change after the logout: %v", err)
	}
}

// A revocation written through one reaches gateway and node over the streams of
// both, and a grant is renewed or refused by either.
func TestRevocationByAnotherProcess(t *testing.T) {
	a, b := two(t)
	alice, bob := a.person("alice"), a.person("bob")
	p := a.started(alice, "data")
	must(t, a.Team.Set(bg(), alice, p.ID, "bob", quire.RoleEditor))
	his, hers := a.grant(bob, a.label(bob, p.ID)), b.grant(alice, a.label(alice, p.ID))
	if len(b.gate.renew(his)) == 0 {
		t.Error("not renewed by the other process")
	}
	must(t, a.Team.Remove(bg(), alice, p.ID, "bob"))
	for _, s := range []*site{a, b} {
		s.eventually("the gateway hears it", func() bool { return s.gate.covers(his) })
		if s.gate.covers(hers) {
			t.Error("it covers somebody else")
		}
		if len(s.gate.renew(his)) != 0 || len(s.gate.renew(hers)) == 0 {
			t.Error("renewed, or not, by the wrong rule")
		}
	}
	a.eventually("the node hears it from both", func() bool {
		a.node.mu.Lock()
		defer a.node.mu.Unlock()
		n := 0
		for _, f := range a.node.feeds {
			n += len(f.Revocations)
		}
		return n >= 2
	})
}

// While a project starts in one process, the gateway's page learns from the other
// what it is at; the process dies, and the other one finishes.
func TestAnotherProcessFinishes(t *testing.T) {
	for _, c := range crashPoints() {
		if c.kind != "start" && c.kind != "delete" {
			continue
		}
		t.Run(c.String(), func(t *testing.T) {
			a, b := two(t)
			alice := a.person("alice")
			p, one := a.arrange(alice, c.kind)
			h := newHang()
			if c.late {
				a.node.script(nil, h.at(c.order))
			} else {
				a.node.script(h.at(c.order), nil)
			}
			one = b.begin(alice, p, c.kind, one) // by who does not do the works
			h.wait(t)
			if c.order == quire.OrderDirectory {
				for _, s := range []*site{a, b} {
					s.eventually("its gateway knows what is going on", func() bool {
						return s.gate.route(a.label(alice, p.ID), "notebook").Reason == "Making the directory"
					})
				}
			}
			a.crash()
			a.node.script(nil, nil)
			b.leads()
			b.outcome(p, c.kind, one)
			for _, o := range types(quire.OrderSkeleton, quire.OrderEnvironment, quire.OrderDirectory, quire.OrderTrash, quire.OrderStart, quire.OrderStop) {
				if n := a.node.acted(o); n > 1 {
					t.Errorf("%s was done %d times", o, n)
				}
			}
			// The first one is back, beside the other.
			a.beside = true
			a.boot()
			a.up()
			if a.loop.leading() != nil {
				t.Error("it has taken the works away")
			}
		})
	}
}

// What ends while nobody does the works is known to whoever does them next.
func TestReportsWhileNobodyLeads(t *testing.T) {
	a, b := two(t)
	alice := a.person("alice")
	p := a.started(alice, "data")
	one := a.open(alice, p, "notebook")
	a.crash()
	a.node.mu.Lock()
	delete(a.node.sessions, one.ID) // a node that was restarted
	a.node.mu.Unlock()
	b.session(one.ID, quire.SessionFailed)
}

// A former worker that has not noticed writes nothing.
func TestFormerWorkerIsFenced(t *testing.T) {
	a, b := two(t)
	alice := a.person("alice")
	p := a.project(alice, "data")
	h := newHang()
	a.node.script(h.at(quire.OrderDirectory), nil)
	must(t, a.Projects.Start(bg(), alice, p.ID))
	h.wait(t)
	former := context.WithoutCancel(a.loop.leading())
	w := a.work(p.ID)
	a.crash()
	a.node.script(nil, nil)
	b.leads()
	b.settled(p.ID, quire.ProjectRunning)

	st, err := store.Open(bg(), a.file)
	must(t, err)
	defer st.Close()
	stalled := *a.core
	stalled.Store = st
	r := newReconciler(&stalled)
	stalled.loop = r
	err = stalled.write(former, quireItself, func(tx *txn) error { return tx.SetProjectState(p.ID, quire.ProjectFailed, "late") })
	want(t, "a late write", quire.KindUnavailable, err)
	(&job{r: r, work: w, p: p}).finish(former, 1, quire.Receipt{}, quire.Failed("late", nil))
	r.endSession(former, quire.Session{}, quire.SessionFailed, "late", nil)
	if err := r.nodeReport(former, a.record.ID, quire.NodeReport{Full: true}); err == nil {
		t.Error("a late report is taken")
	}
	if got := b.see(p.ID); got.State != quire.ProjectRunning {
		t.Errorf("%+v", got)
	}
	if got := b.work(p.ID); got.State != quire.WorkDone || got.Error != "" {
		t.Errorf("%+v", got)
	}
}

// Whatever is asked of whom, and however often the lead goes from one to the other:
// two processes never carry out one work at once.
func TestOneWorkAtOnce(t *testing.T) {
	a, b := two(t)
	alice := a.person("alice")
	var mu sync.Mutex
	under := map[quire.ProjectID]int{}
	a.node.script(func(ctx context.Context, o quire.Order) error {
		if o.Session != "" || o.Type == quire.OrderPermissions {
			return nil // kicked by the team and the sessions too
		}
		mu.Lock()
		defer mu.Unlock()
		if under[o.Project]++; under[o.Project] > 1 {
			t.Errorf("%s of %s twice at once", o.Type, o.Project)
		}
		return nil
	}, func(ctx context.Context, o quire.Order) error {
		if o.Session != "" || o.Type == quire.OrderPermissions {
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		under[o.Project]--
		return nil
	})
	var ps []quire.Project
	for i := range 12 {
		ps = append(ps, a.project(alice, fmt.Sprint("p", i)))
	}
	for i, p := range ps {
		must(t, []*site{a, b}[i%2].Projects.Start(bg(), alice, p.ID))
		if i%4 == 3 {
			a.cutEars()
		}
	}
	for _, p := range ps {
		b.settled(p.ID, quire.ProjectRunning)
	}
	if n := a.node.acted(quire.OrderEnvironment); n != len(ps) {
		t.Errorf("%d environments for %d projects", n, len(ps))
	}
}

// Where there is a worker, it does the works, and servers do when it is gone.
func TestWorkerDoesTheWorks(t *testing.T) {
	a := siteOn(t, postgres(t))
	alice := a.person("alice")
	w := a.another(func(w *site) { w.worker = true })
	w.up() // and leads
	if a.loop.leading() != nil {
		t.Error("both do the works")
	}
	p := a.started(alice, "data")
	w.crash()
	a.leads()
	one := a.open(alice, p, "notebook")
	a.beside = true
	w.boot()
	w.up()
	must(t, a.Sessions.Stop(bg(), alice, one.ID))
	a.session(one.ID, quire.SessionEnded)
}

// News that were missed while the database was away are made good by a full look.
func TestMissedNewsAreMadeGood(t *testing.T) {
	a, b := two(t)
	alice := a.person("alice")
	p := a.started(alice, "data")
	links := func() int { b.gate.mu.Lock(); defer b.gate.mu.Unlock(); return b.gate.links }
	before := links()
	news, err := b.Site.Watch(t.Context(), alice, p.ID)
	must(t, err)
	a.cutEars()
	one := a.open(alice, p, "notebook")
	b.eventually("its gateway is told everything again", func() bool {
		return links() > before && b.gate.route(a.label(alice, p.ID), "notebook").Session == one.ID
	})
	select {
	case <-news:
	case <-time.After(30 * time.Second):
		t.Error("who looks was not woken")
	}
}

// A process with other keys is refused, and one with other addresses does not make
// gateways go back and forth.
func TestProcessesOfOneInstallation(t *testing.T) {
	a := siteOn(t, postgres(t))
	foreign := *a
	foreign.signer = ticket.NewSigner()
	foreign.gate = newDoor(&foreign)
	foreign.boot()
	if err := <-foreign.ran; quire.KindOf(err) != quire.KindConflict {
		t.Errorf("with other keys: %v", err)
	}
	foreign.stop()
	must(t, foreign.store.Close())

	last := func(s *site) (site *quire.GatewaySite) {
		s.gate.mu.Lock()
		defer s.gate.mu.Unlock()
		if i := slices.IndexFunc(s.gate.feeds, func(f quire.GatewayFeed) bool { return f.Full }); i < 0 {
			return &quire.GatewaySite{}
		}
		for _, f := range s.gate.feeds {
			if f.Full {
				site = f.Site
			}
		}
		return site
	}
	if got := last(a); got == nil || got.Portal != "http://quire.localhost:8080" {
		t.Errorf("%+v", got)
	}
	moved, err := quire.NewOrigins(quire.OriginConfig{Portal: "http://new.localhost:8080", Apps: "http://*.apps.localhost:8089"})
	must(t, err)
	b := a.another(func(b *site) { b.beside, b.origins = true, moved })
	b.up()
	a.eventually("the first one says no addresses any more", func() bool { return last(a) == nil })
	b.eventually("the second one says them", func() bool { got := last(b); return got != nil && got.Portal == "http://new.localhost:8080" })
}

// Who guesses gets no more tries by going to another process.
func TestGuessesCountInAllProcesses(t *testing.T) {
	a, b := two(t)
	a.person("alice")
	for range 10 {
		if _, err := a.Logins.Enter(bg(), "alice", "wrong", From{Address: home}); !errors.Is(err, errWrong) {
			t.Fatal(err)
		}
	}
	b.eventually("the other process refuses", func() bool {
		_, err := b.Logins.Enter(bg(), "alice", "wrong", From{Address: home})
		return quire.KindOf(err) == quire.KindTooMany
	})
	if _, err := b.Logins.Enter(bg(), "alice", password, From{Address: "192.0.2.77"}); err != nil {
		t.Errorf("from elsewhere: %v", err)
	}
}
