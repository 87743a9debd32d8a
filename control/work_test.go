package control

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"quire"
	"quire/store"
)

func types(list ...quire.OrderType) []quire.OrderType { return list }

// A first start goes through its steps, in order, each once; the timeline says
// how long each took.
func TestStartTimeline(t *testing.T) {
	s := newSite(t)
	alice := s.person("alice")
	p := s.project(alice, "data")
	if w, err := s.Sessions.Timeline(bg(), alice, p.ID); w != nil || err != nil {
		t.Errorf("a project that was never started has %+v, %v", w, err)
	}
	must(t, s.Projects.Start(bg(), alice, p.ID))
	must(t, s.Projects.Start(bg(), alice, p.ID)) // a second click
	s.settled(p.ID, quire.ProjectRunning)
	if got := s.node.received(); !slices.Equal(got, types(quire.OrderDirectory, quire.OrderPermissions, quire.OrderSkeleton, quire.OrderEnvironment)) {
		t.Errorf("ordered: %v", got)
	}
	w, err := s.Sessions.Timeline(bg(), alice, p.ID)
	must(t, err)
	if w.Kind != "start" || w.By != "alice" || w.State != quire.WorkDone || w.Error != "" {
		t.Errorf("%+v", w)
	}
	var names []string
	for i, step := range w.Steps {
		names = append(names, step.Name)
		if step.State != quire.WorkDone || step.Started == nil || step.Ended == nil || step.Ended.Before(*step.Started) || step.Seconds(time.Now()) > 60 {
			t.Errorf("step %+v", step)
		}
		if i > 0 && step.Started.Before(*w.Steps[i-1].Started) {
			t.Errorf("%s began before %s", step.Name, w.Steps[i-1].Name)
		}
	}
	if got := strings.Join(names, " "); got != "account directory permissions skeleton environment app" {
		t.Errorf("steps: %s", got)
	}
	o := s.node.last(quire.OrderDirectory)
	if o.Node != s.record.ID || o.User != alice.User || o.Project != p.ID || o.Dir != "/projects/alice/data" || o.Account != "quire-user" || o.UID != 999 {
		t.Errorf("%+v", o)
	}
	if got := s.events(p.ID); got != "project.create project.start" {
		t.Errorf("events: %s", got)
	}

	// The next start copies nothing and makes no environment.
	must(t, s.Projects.Stop(bg(), alice, p.ID))
	s.settled(p.ID, quire.ProjectStopped)
	must(t, s.Projects.Start(bg(), alice, p.ID))
	s.settled(p.ID, quire.ProjectRunning)
	if n, m := s.node.ordered(quire.OrderSkeleton), s.node.ordered(quire.OrderEnvironment); n != 1 || m != 1 {
		t.Errorf("skeleton ordered %d times, environment %d times", n, m)
	}
	if n := s.node.ordered(quire.OrderPermissions); n != 2 {
		t.Errorf("permissions ordered %d times", n)
	}
}

func TestStartFromGit(t *testing.T) {
	s := newSite(t)
	alice := s.person("alice")
	p, err := s.Projects.Create(bg(), alice, NewProject{Name: "cloned", Source: " https://git.example.org/x.git "})
	must(t, err)
	must(t, s.Projects.Start(bg(), alice, p.ID))
	s.settled(p.ID, quire.ProjectRunning)
	var args quire.CloneArgs
	must(t, json.Unmarshal(s.node.last(quire.OrderClone).Args, &args))
	if args.URL != "https://git.example.org/x.git" || s.node.ordered(quire.OrderSkeleton) != 0 || s.node.ordered(quire.OrderClone) != 1 {
		t.Errorf("%+v, %v", args, s.node.received())
	}
}

// A step that fails says why, to everybody who waits; Reset makes it all be
// looked at again.
func TestStartFails(t *testing.T) {
	s := newSite(t)
	alice := s.person("alice")
	p := s.project(alice, "data")
	h := newHang()
	s.node.script(func(ctx context.Context, o quire.Order) error {
		if err := h.at(quire.OrderDirectory)(ctx, o); err != nil {
			return err
		}
		if o.Type == quire.OrderEnvironment {
			return quire.Failed("There is no room on the disk.", nil)
		}
		return nil
	}, nil)
	a, err := s.Sessions.Open(bg(), alice, p.ID, "notebook")
	must(t, err)
	h.wait(t)
	if st := s.row(a.Session.ID).State; st != quire.SessionStarting {
		t.Errorf("while the project starts, its session is %s", st)
	}
	s.eventually("the gateway knows what is going on", func() bool {
		r := s.gate.route(s.label(alice, p.ID), "notebook")
		return r.State == quire.SessionStarting && r.Reason == "Making the directory" && r.AppTitle == "Notebook" && r.Permit == "write"
	})
	close(h.release)
	s.settled(p.ID, quire.ProjectFailed)
	got := s.see(p.ID)
	w := s.work(p.ID)
	if got.Reason != "There is no room on the disk." || w.State != quire.WorkFailed || w.Error != got.Reason || w.Log != "what the step printed" {
		t.Errorf("%+v\n%+v", got, w)
	}
	if w.Steps[4].State != quire.WorkFailed || w.Steps[5].State != quire.WorkWaiting || s.node.ordered(quire.OrderStart) != 0 {
		t.Errorf("%+v", w.Steps)
	}
	if one := s.row(a.Session.ID); one.State != quire.SessionFailed || !strings.Contains(one.Reason, "no room on the disk") || one.Ended == nil {
		t.Errorf("%+v", one)
	}
	s.eventually("the gateway's page says so", func() bool {
		r := s.gate.route(s.label(alice, p.ID), "notebook")
		return r.State == quire.SessionFailed && strings.Contains(r.Reason, "no room on the disk")
	})
	want(t, "start of a failed project", quire.KindConflict, s.Projects.Start(bg(), alice, p.ID))
	_, err = s.Sessions.Open(bg(), alice, p.ID, "notebook")
	want(t, "app of a failed project", quire.KindConflict, err)
	if !strings.Contains(quire.AsError(err).Message, "no room on the disk") {
		t.Errorf("%v", err)
	}

	s.node.script(nil, nil)
	must(t, s.Projects.Reset(bg(), alice, p.ID))
	must(t, s.Projects.Reset(bg(), alice, p.ID)) // twice is once
	if got := s.see(p.ID); got.State != quire.ProjectStopped || got.Reason != "" {
		t.Errorf("%+v", got)
	}
	must(t, s.Projects.Start(bg(), alice, p.ID))
	s.settled(p.ID, quire.ProjectRunning)
	if s.node.ordered(quire.OrderSkeleton) != 2 || s.node.acted(quire.OrderSkeleton) != 1 {
		t.Error("after a reset everything is looked at again, and nothing is done twice")
	}
	if got := s.events(p.ID); got != "project.create project.start session.start project.start.failed session.failed project.reset project.start" {
		t.Errorf("events: %s", got)
	}
}

// Failures of our own are not shown.
func TestInnerFailuresStayInside(t *testing.T) {
	s := newSite(t)
	alice := s.person("alice")
	p := s.project(alice, "data")
	s.node.script(func(_ context.Context, o quire.Order) error { return json.Unmarshal([]byte("hunter2"), &o) }, nil)
	must(t, s.Projects.Start(bg(), alice, p.ID))
	s.settled(p.ID, quire.ProjectFailed)
	if got := s.see(p.ID).Reason + s.work(p.ID).Error; strings.Contains(got, "invalid character") || got == "" {
		t.Errorf("shown: %s", got)
	}
}

// While a node is away a step waits, says so, and goes on when it is back.
func TestNodeAwayDuringAStep(t *testing.T) {
	s := newSite(t)
	alice := s.person("alice")
	p := s.project(alice, "data")
	h := newHang()
	s.node.script(h.at(quire.OrderSkeleton), nil)
	must(t, s.Projects.Start(bg(), alice, p.ID))
	h.wait(t)
	s.node.leave()
	s.node.script(func(context.Context, quire.Order) error { return errAway() }, nil)
	close(h.release)
	// The order that was under way is answered; the next step finds nobody.
	s.eventually("the timeline says that it waits", func() bool {
		for _, step := range s.work(p.ID).Steps {
			if step.State == quire.WorkRunning && strings.HasPrefix(step.Note, "waiting: ") {
				return true
			}
		}
		return false
	})
	if st := s.see(p.ID).State; st != quire.ProjectStarting {
		t.Errorf("it is %s", st)
	}
	s.node.script(nil, nil)
	s.node.back()
	s.settled(p.ID, quire.ProjectRunning)
	for _, step := range s.work(p.ID).Steps {
		if strings.HasPrefix(step.Note, "waiting") {
			t.Errorf("%+v", step)
		}
	}
	if s.node.acted(quire.OrderEnvironment) != 1 {
		t.Error("the environment was made twice")
	}
}

// After two minutes of that the step fails in words.
func TestNodeAwayForLong(t *testing.T) {
	s := newSite(t)
	alice := s.person("alice")
	p := s.project(alice, "data")
	s.node.leave()
	s.eventually("the node is seen to be away", func() bool { return !s.loop.nodeUp(s.record.ID) })
	must(t, s.Projects.Start(bg(), alice, p.ID))
	s.eventually("the start waits", func() bool { return strings.HasPrefix(s.work(p.ID).Steps[1].Note, "waiting: ") })
	s.clock.add(nodeAwayFor + time.Second)
	s.settled(p.ID, quire.ProjectFailed)
	if got := s.see(p.ID).Reason; !strings.Contains(got, "away") {
		t.Errorf("reason: %s", got)
	}
	ns, err := s.Site.Nodes(bg(), alice)
	must(t, err)
	if ns[0].Up || ns[0].Reason == "" {
		t.Errorf("%+v", ns[0])
	}
	s.node.back()
	s.up()
	must(t, s.Projects.Reset(bg(), alice, p.ID))
	must(t, s.Projects.Start(bg(), alice, p.ID))
	s.settled(p.ID, quire.ProjectRunning)
}

// F-16: however often and from wherever a project's start is asked for, it is
// one start: one row, one worker, each order once. Nobody else can add a second
// row while it runs.
func TestStartsAtOnce(t *testing.T) {
	s := newSite(t)
	alice := s.person("alice")
	p := s.project(alice, "data")
	h := newHang()
	s.node.script(h.at(quire.OrderDirectory), nil)
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if err := s.Projects.Start(bg(), alice, p.ID); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	h.wait(t)
	w := s.work(p.ID)
	for range 20 {
		s.core.loop.project(p.ID) // every worker that hears of it
	}
	another := quire.Work{ID: quire.NewWorkID(), Kind: "start", Project: p.ID, By: "another server", State: quire.WorkRunning, Created: s.clock.now()}
	err := s.core.write(bg(), quireItself, func(tx *txn) error { return tx.AddWork(another, alice.User) })
	want(t, "a second row", quire.KindConflict, err)
	close(h.release)
	s.settled(p.ID, quire.ProjectRunning)
	if again := s.work(p.ID); again.ID != w.ID || s.node.ordered(quire.OrderDirectory) != 1 || s.node.ordered(quire.OrderSkeleton) != 1 || strings.Count(s.events(p.ID), "project.start") != 1 {
		t.Errorf("%+v; %v; %s", again, s.node.received(), s.events(p.ID))
	}
}

// One work of a project at a time, and each refusal says what to do.
func TestOneWorkAtATime(t *testing.T) {
	s := newSite(t)
	alice := s.person("alice")
	p := s.project(alice, "data")
	h := newHang()
	s.node.script(h.at(quire.OrderDirectory), nil)
	must(t, s.Projects.Start(bg(), alice, p.ID))
	h.wait(t)
	want(t, "stop while it starts", quire.KindConflict, s.Projects.Stop(bg(), alice, p.ID))
	want(t, "delete while it starts", quire.KindConflict, s.Projects.Delete(bg(), alice, p.ID, "data"))
	close(h.release)
	s.settled(p.ID, quire.ProjectRunning)

	one := s.open(alice, p, "notebook")
	h = newHang()
	s.node.script(h.at(quire.OrderStop), nil)
	must(t, s.Projects.Stop(bg(), alice, p.ID))
	must(t, s.Projects.Stop(bg(), alice, p.ID)) // a second click
	h.wait(t)
	want(t, "start while it stops", quire.KindConflict, s.Projects.Start(bg(), alice, p.ID))
	_, err := s.Sessions.Open(bg(), alice, p.ID, "terminal")
	want(t, "open while it stops", quire.KindConflict, err)
	close(h.release)
	s.settled(p.ID, quire.ProjectStopped)
	if got := s.row(one.ID); got.State != quire.SessionEnded || got.Exit == nil || got.Reason != "Stopped by alice, who stopped the project." {
		t.Errorf("%+v", got)
	}
	must(t, s.Projects.Stop(bg(), alice, p.ID)) // stopped already
}

// Opening while the project is being stopped in parallel never leaves a session
// that nobody ends, nor one that ends without its reason.
func TestOpenAgainstStop(t *testing.T) {
	s := newSite(t)
	alice := s.person("alice")
	for range 8 {
		p := s.started(alice, "p"+string(quire.NewProjectID())[2:])
		opened := make(chan quire.SessionID, 1)
		go func() {
			a, err := s.Sessions.Open(bg(), alice, p.ID, "notebook")
			if err != nil {
				opened <- ""
				return
			}
			opened <- a.Session.ID
		}()
		stopped := s.Projects.Stop(bg(), alice, p.ID)
		id := <-opened
		must(t, stopped)
		s.eventually("nothing is under way", func() bool { return s.work(p.ID).Ended != nil })
		if id == "" {
			continue
		}
		// Either the stop came first and the open started it again, or it ended the session.
		if st := s.see(p.ID).State; st == quire.ProjectStopped {
			if got := s.row(id); got.State != quire.SessionEnded || !strings.Contains(got.Reason, "alice, who stopped") {
				t.Errorf("%+v", got)
			}
		}
	}
}

func TestSourceAddresses(t *testing.T) {
	for source, ok := range map[string]bool{
		"https://git.example.org/a/b.git": true, "http://host/x": true, "ssh://git@host:2222/x.git": true, "git://host/x": true, "https://user@host/x": true, "https://[::1]:8443/x.git": true,
		"": false, "host:path": false, "git@host:path": false, "/etc": false, "../x": false, "file:///etc": false, "ext::sh -c id": false, "fd::17/x": false,
		"--upload-pack=id": false, "-x": false, "ssh://-oProxyCommand=id/x": false, "ssh://-oProxyCommand=id@host/x": false, "ssh://host/-x": false, "https://": false, "https://:443/x": false,
		"https://user:secret@host/x": false, "https://host/a b": false, "https://host/a\nb": false, "https://host/\x00": false, "https://host/\t": false,
		"HTTPS://host/x": true, "ftp://host/x": false, "gopher://host/x": false, "https://host/" + strings.Repeat("x", 2000): false, "transport::https://host/x": false,
	} {
		if err := CheckSource(source); (err == nil) != ok {
			t.Errorf("%q: %v", source, err)
		}
	}
}

// A session that was about to start when the project's stop began is left to the
// stop, which knows who wanted it.
func TestASessionWaitsForTheStop(t *testing.T) {
	s := newSite(t)
	alice := s.person("alice")
	p := s.started(alice, "data")
	s.label(alice, p.ID)
	one := quire.Session{ID: quire.NewSessionID(), User: alice.User, Project: p.ID, App: "notebook", Node: s.record.ID, State: quire.SessionStarting, Created: time.Now()}
	s.tx(func(tx *store.Tx) error {
		if err := tx.SetProjectState(p.ID, quire.ProjectStopping, ""); err != nil {
			return err
		}
		return tx.AddSession(one)
	})
	if s.loop.settleSession(bg(), one.ID) {
		t.Error("it is looked at again although nothing is to be done")
	}
	if got := s.row(one.ID); got.State != quire.SessionStarting {
		t.Errorf("%+v", got)
	}
}
