package control

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"quire"
	"quire/store"
)

// A process of ours that ends at any moment leaves rows; the next one on the
// same database goes on where it was. These tests end it at each order of each
// kind of work, before the node did it and after it did but could not say so.

// crashPoint is one order at which the process ends.
type crashPoint struct {
	kind  string
	order quire.OrderType
	late  bool // the node has done it already
}

func (c crashPoint) String() string {
	when := "before"
	if c.late {
		when = "after"
	}
	return fmt.Sprintf("%s, %s %s", c.kind, when, c.order)
}

func crashPoints() (all []crashPoint) {
	for _, w := range []struct {
		kind   string
		orders []quire.OrderType
	}{
		{"start", types(quire.OrderDirectory, quire.OrderSkeleton, quire.OrderEnvironment, quire.OrderPermissions, quire.OrderStart)},
		{"stop", types(quire.OrderStop)},
		{"delete", types(quire.OrderStop, quire.OrderTrash)},
		{"restore", types(quire.OrderRestore)},
		{"purge", types(quire.OrderPurge)},
	} {
		for _, o := range w.orders {
			all = append(all, crashPoint{w.kind, o, false}, crashPoint{w.kind, o, true})
		}
	}
	return all
}

//fault:server the server is killed at any step of a start, stop, delete or restore
//fault:seen the step takes longer
//fault:lost nothing: each step is done once or not at all
//fault:repair the next server takes the work up where it was
//fault:also TestCrashesAnywhere
func TestCrashAtEveryStep(t *testing.T) {
	for _, c := range crashPoints() {
		t.Run(c.String(), func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			alice := s.person("alice")
			p, one := s.arrange(alice, c.kind)
			before := len(s.node.received())
			h := newHang()
			if c.late {
				s.node.script(nil, h.at(c.order))
			} else {
				s.node.script(h.at(c.order), nil)
			}
			one = s.begin(alice, p, c.kind, one)
			h.wait(t)
			s.crash()
			s.node.script(nil, nil)
			open := s.interrupted(p)
			s.boot()
			s.up()
			s.outcome(p, c.kind, one)

			// Steps before the one that was cut are not ordered again; that one is,
			// and is done once.
			since := s.node.received()[before:]
			for _, o := range since {
				want := 1
				if o == c.order {
					want = 2
				}
				// A session is ordered as often as somebody looks at it before the node's
				// report is there.
				if n := count(since, o); n != want && o != quire.OrderStart && o != quire.OrderStop {
					t.Errorf("%s was ordered %d times: %v", o, n, since)
				}
			}
			for _, o := range types(quire.OrderSkeleton, quire.OrderEnvironment, quire.OrderDirectory, quire.OrderTrash, quire.OrderRestore, quire.OrderPurge, quire.OrderStart, quire.OrderStop) {
				if n := s.node.acted(o); n > 1 {
					t.Errorf("%s was done %d times", o, n)
				}
			}
			if open {
				for _, step := range s.work(p.ID).Steps {
					if step.State != quire.WorkDone || step.Ended == nil {
						t.Errorf("step %+v", step)
					}
				}
			}
		})
	}
}

func count(list []quire.OrderType, o quire.OrderType) (n int) {
	for _, x := range list {
		if x == o {
			n++
		}
	}
	return n
}

// arrange brings a project to where a kind of work can begin.
func (s *site) arrange(by quire.Actor, kind string) (quire.Project, quire.SessionID) {
	s.t.Helper()
	switch kind {
	case "start":
		return s.project(by, "data"), ""
	case "stop", "delete":
		p := s.started(by, "data")
		return p, s.open(by, p, "notebook").ID
	}
	p := s.started(by, "data")
	must(s.t, s.Projects.Delete(bg(), by, p.ID, "data"))
	s.settled(p.ID, quire.ProjectDeleted)
	return p, ""
}

// begin begins the work, as a person or Quire itself does.
func (s *site) begin(by quire.Actor, p quire.Project, kind string, one quire.SessionID) quire.SessionID {
	s.t.Helper()
	switch kind {
	case "start":
		a, err := s.Sessions.Open(bg(), by, p.ID, "notebook")
		must(s.t, err)
		return a.Session.ID
	case "stop":
		must(s.t, s.Projects.Stop(bg(), by, p.ID))
	case "delete":
		must(s.t, s.Projects.Delete(bg(), by, p.ID, "data"))
	case "restore":
		must(s.t, s.Projects.Restore(bg(), by, p.ID))
	case "purge":
		s.clock.add(s.keep + time.Hour)
		s.loop.tidy()
	}
	return one
}

// interrupted checks, on the closed database, that the work is still open.
func (s *site) interrupted(p quire.Project) (open bool) {
	s.t.Helper()
	st, err := store.Open(bg(), s.file)
	must(s.t, err)
	defer st.Close()
	must(s.t, st.Read(bg(), func(tx *store.Tx) error {
		w, err := tx.OpenWork(p.ID)
		if w == nil {
			s.t.Error("nothing is left to be taken up")
		} else {
			open = w.Kind != "purge"
		}
		return err
	}))
	return open
}

func (s *site) outcome(p quire.Project, kind string, one quire.SessionID) {
	s.t.Helper()
	switch kind {
	case "start":
		s.settled(p.ID, quire.ProjectRunning)
		s.session(one, quire.SessionRunning)
		if st := s.node.state(one); st != quire.SessionRunning {
			s.t.Errorf("on the node it is %q", st)
		}
	case "stop", "delete":
		state, dir, reason := quire.ProjectStopped, "there", "Stopped by alice, who stopped the project."
		if kind == "delete" {
			state, dir, reason = quire.ProjectDeleted, "aside", "Stopped by alice, who deleted the project."
		}
		s.settled(p.ID, state)
		if got := s.row(one); got.State != quire.SessionEnded || got.Reason != reason {
			s.t.Errorf("%+v", got)
		}
		if st := s.node.state(one); st != quire.SessionEnded {
			s.t.Errorf("on the node it is %q", st)
		}
		if got := s.node.dir(p.ID); got != dir {
			s.t.Errorf("the directory is %q", got)
		}
		if (s.see(p.ID).Deleted != nil) != (kind == "delete") {
			s.t.Errorf("%+v", s.see(p.ID))
		}
	case "restore":
		s.settled(p.ID, quire.ProjectStopped)
		if got := s.see(p.ID); got.Deleted != nil || s.node.dir(p.ID) != "there" {
			s.t.Errorf("%+v, %q", got, s.node.dir(p.ID))
		}
	case "purge":
		s.eventually("it is gone", func() bool {
			err := s.store.Read(bg(), func(tx *store.Tx) error { _, err := tx.Project("", p.ID); return err })
			return quire.KindOf(err) == quire.KindNotFound
		})
		if got := s.node.dir(p.ID); got != "" {
			s.t.Errorf("the directory is %q", got)
		}
	}
}

// The process ends while a person's session is being started or stopped, the
// project itself running undisturbed.
func TestCrashAroundSessions(t *testing.T) {
	for _, o := range types(quire.OrderStart, quire.OrderStop) {
		for _, late := range []bool{false, true} {
			t.Run(crashPoint{"session", o, late}.String(), func(t *testing.T) {
				t.Parallel()
				s := newSite(t)
				alice := s.person("alice")
				p := s.started(alice, "data")
				var id quire.SessionID
				if o == quire.OrderStop {
					id = s.open(alice, p, "notebook").ID
				}
				h := newHang()
				if late {
					s.node.script(nil, h.at(o))
				} else {
					s.node.script(h.at(o), nil)
				}
				end := quire.SessionRunning
				if o == quire.OrderStart {
					a, err := s.Sessions.Open(bg(), alice, p.ID, "notebook")
					must(t, err)
					id = a.Session.ID
				} else {
					must(t, s.Sessions.Stop(bg(), alice, id))
					end = quire.SessionEnded
				}
				h.wait(t)
				s.crash()
				s.node.script(nil, nil)
				s.boot()
				s.session(id, end)
				if st := s.node.state(id); st != end {
					t.Errorf("on the node it is %q", st)
				}
				if end == quire.SessionEnded {
					if got := s.row(id); got.Reason != "Stopped by alice." {
						t.Errorf("%+v", got)
					}
				}
				if n := s.node.acted(o); n != 1 {
					t.Errorf("done %d times", n)
				}
			})
		}
	}
}

// The process ends while the first app of a project becomes ready: the next one
// waits for it and does not start another.
//
//fault:server the server is killed while an app becomes ready
//fault:seen the app opens a moment later
//fault:lost nothing; it is not started twice
//fault:repair the node says what runs
//fault:also TestCrashAroundSessions
func TestCrashWhileAnAppBecomesReady(t *testing.T) {
	s := newSite(t)
	alice := s.person("alice")
	p := s.project(alice, "data")
	s.node.mu.Lock()
	s.node.silent = true
	s.node.mu.Unlock()
	a, err := s.Sessions.Open(bg(), alice, p.ID, "notebook")
	must(t, err)
	s.eventually("it was started", func() bool { return s.node.state(a.Session.ID) == quire.SessionStarting })
	s.reboot()
	s.up()
	if w := s.work(p.ID); w.Ended != nil {
		t.Errorf("%+v", w)
	}
	s.node.report(quire.NodeReport{Sessions: []quire.SessionReport{{ID: a.Session.ID, User: alice.User, Project: p.ID, App: "notebook", State: quire.SessionRunning}}})
	s.session(a.Session.ID, quire.SessionRunning)
	s.settled(p.ID, quire.ProjectRunning)
	if n := s.node.acted(quire.OrderStart); n != 1 {
		t.Errorf("started %d times", n)
	}
}

// Many ends at moments that nobody chose. Whatever happens, in the end node and
// database agree, nothing was prepared twice and nobody is served twice.
func TestCrashesAnywhere(t *testing.T) {
	s := newSite(t)
	alice, bob := s.person("alice"), s.person("bob")
	p := s.project(alice, "data")
	must(t, s.Team.Set(bg(), alice, p.ID, "bob", quire.RoleEditor))
	r := rand.New(rand.NewPCG(7, uint64(time.Now().UnixNano())))
	rounds := 12
	if testing.Short() {
		rounds = 6
	}
	apps := []string{"notebook", "terminal", "viewer"}
	var asked []quire.SessionID
	for range rounds {
		// The process ends in the middle of the nth order from now, or soon.
		var orders atomic.Int64
		orders.Store(1 + r.Int64N(4))
		dead := make(chan struct{})
		stop := s.stop
		s.node.script(func(ctx context.Context, _ quire.Order) error {
			if orders.Add(-1) == 0 {
				close(dead)
				stop()
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		}, nil)
		for range 6 {
			by := []quire.Actor{alice, bob}[r.IntN(2)]
			switch r.IntN(5) {
			case 0:
				s.Projects.Stop(bg(), by, p.ID)
			case 1:
				if len(asked) > 0 {
					s.Sessions.Stop(bg(), by, asked[len(asked)-1])
				}
			default:
				if a, err := s.Sessions.Open(bg(), by, p.ID, apps[r.IntN(3)]); err == nil && !slices.Contains(asked, a.Session.ID) {
					asked = append(asked, a.Session.ID)
				}
			}
		}
		select {
		case <-dead:
		case <-time.After(time.Duration(r.IntN(30)) * time.Millisecond):
		}
		s.crash()
		s.node.script(nil, nil)
		s.boot()
	}
	s.up()
	s.eventually("everything has come to rest", func() bool {
		for _, id := range asked {
			if st := s.row(id).State; st == quire.SessionStarting || st == quire.SessionStopping {
				return false
			}
		}
		w := s.work(p.ID)
		return w.ID == "" || w.Ended != nil
	})
	if st := s.see(p.ID).State; st != quire.ProjectRunning && st != quire.ProjectStopped {
		t.Errorf("the project is %s: %s", st, s.see(p.ID).Reason)
	}
	for _, o := range types(quire.OrderDirectory, quire.OrderSkeleton, quire.OrderEnvironment) {
		if n := s.node.acted(o); n > 1 {
			t.Errorf("%s was done %d times", o, n)
		}
	}
	live := map[string]int{}
	for _, id := range asked {
		row, node := s.row(id), s.node.state(id)
		if row.State.Live() != node.Live() {
			t.Errorf("%s is %s, on the node %q", id, row.State, node)
		}
		if row.State.Live() {
			live[string(row.User)+row.App]++
		}
	}
	for who, n := range live {
		if n > 1 {
			t.Errorf("%s has %d live sessions", who, n)
		}
	}
	t.Logf("%d sessions, %d orders", len(asked), len(s.node.received()))
}
