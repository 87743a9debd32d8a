package control

import (
	"context"
	"strings"
	"testing"
	"time"

	"quire"
)

// A hundred clicks at once, on a stopped project: it starts once, with one
// session.
func TestOpenInParallel(t *testing.T) {
	s := newSite(t)
	alice, bob := s.person("alice"), s.person("bob")
	p := s.project(alice, "data")
	must(t, s.Team.Set(bg(), alice, p.ID, "bob", quire.RoleEditor))
	type answer struct {
		by quire.Actor
		a  Address
	}
	answers := make(chan answer, 100)
	start := make(chan struct{})
	for i := range 100 {
		by := []quire.Actor{alice, bob}[i%2]
		go func() {
			<-start
			a, err := s.Sessions.Open(bg(), by, p.ID, "notebook")
			if err != nil {
				t.Error(err)
				a.Session = &quire.Session{}
			}
			answers <- answer{by, a}
		}()
	}
	close(start)
	ids, urls := map[quire.SessionID]quire.UserID{}, map[string]quire.UserID{}
	for range 100 {
		x := <-answers
		if !x.a.Live || x.a.Session.User != x.by.User {
			t.Errorf("%+v", x.a)
		}
		ids[x.a.Session.ID], urls[x.a.URL] = x.by.User, x.by.User
	}
	if len(ids) != 2 || len(urls) != 2 {
		t.Errorf("two people have %d sessions at %d addresses", len(ids), len(urls))
	}
	s.settled(p.ID, quire.ProjectRunning)
	for id := range ids {
		s.session(id, quire.SessionRunning)
	}
	if s.node.acted(quire.OrderStart) != 2 || s.node.ordered(quire.OrderSkeleton) != 1 || strings.Count(s.events(p.ID), "session.start") != 2 {
		t.Errorf("%v; %s", s.node.received(), s.events(p.ID))
	}
}

func TestApps(t *testing.T) {
	s := newSite(t)
	alice, bob, eve, chief := s.person("alice"), s.person("bob"), s.person("eve"), s.person("chief", true)
	p := s.started(alice, "data")
	must(t, s.Team.Set(bg(), alice, p.ID, "bob", quire.RoleViewer))
	one := s.open(alice, p, "notebook")
	for _, c := range []struct {
		by      quire.Actor
		allowed string
		kind    quire.Kind
	}{
		{alice, "notebook terminal viewer", ""}, {bob, "viewer", ""}, {chief, "", ""}, {eve, "", quire.KindNotFound}, {quire.Nobody, "", quire.KindUnknown},
	} {
		list, err := s.Sessions.Apps(bg(), c.by, p.ID)
		want(t, c.by.Name, c.kind, err)
		var allowed []string
		for _, a := range list {
			if a.Allowed {
				allowed = append(allowed, a.App.Name)
			}
			if a.App.Name == "notebook" && c.by != alice && (a.Session != nil || len(a.Others) != 1 || a.Others[0].ID != one.ID) {
				t.Errorf("%s: %+v", c.by.Name, a)
			}
			if a.App.Name == "notebook" && c.by == alice && (a.Session == nil || a.Session.ID != one.ID || len(a.Others) != 0) {
				t.Errorf("%+v", a)
			}
		}
		if got := strings.Join(allowed, " "); got != c.allowed {
			t.Errorf("%s may open %q", c.by.Name, got)
		}
		for _, app := range []string{"notebook", "viewer"} {
			kind := c.kind
			if kind == "" && !strings.Contains(c.allowed, app) {
				kind = quire.KindForbidden
			}
			_, err := s.Sessions.Open(bg(), c.by, p.ID, app)
			want(t, c.by.Name+" opens "+app, kind, err)
			_, err = s.Sessions.Find(bg(), c.by, p.ID, app, "")
			want(t, c.by.Name+" looks for "+app, kind, err)
		}
	}
	_, err := s.Sessions.Open(bg(), alice, p.ID, "none")
	want(t, "an app that is none", quire.KindNotFound, err)
}

// A project whose own environment has an app offers it, and no other does.
func TestOwnApps(t *testing.T) {
	s := newSite(t)
	alice := s.person("alice")
	p, q := s.started(alice, "data"), s.started(alice, "other")
	first := func(of quire.Project) string {
		list, err := s.Sessions.Apps(bg(), alice, of.ID)
		must(t, err)
		return list[0].App.Name
	}
	_, err := s.Sessions.Open(bg(), alice, p.ID, "lab")
	want(t, "before the environment has it", quire.KindNotFound, err)
	changes, err := s.Site.Watch(t.Context(), alice, p.ID)
	must(t, err)
	s.node.report(quire.NodeReport{Own: map[quire.ProjectID][]string{p.ID: {"lab", "none"}}})
	<-changes
	s.eventually("it is in the row, in its place", func() bool { return first(p) == "lab" })
	if got := first(q); got != "notebook" {
		t.Errorf("the other project offers %s", got)
	}
	_, err = s.Sessions.Open(bg(), alice, p.ID, "lab")
	want(t, "now it opens", "", err)
	_, err = s.Sessions.Open(bg(), alice, q.ID, "lab")
	want(t, "in the other project", quire.KindNotFound, err)
	s.node.report(quire.NodeReport{Own: map[quire.ProjectID][]string{p.ID: nil}})
	s.eventually("it is gone", func() bool { return first(p) == "notebook" })
	s.node.report(quire.NodeReport{Own: map[quire.ProjectID][]string{p.ID: {"lab"}}})
	s.eventually("it is back", func() bool { return first(p) == "lab" })
	s.node.leave()
	s.node.back() // its full report has none
	s.eventually("a full report is the whole truth", func() bool { return first(p) == "notebook" })
}

// Finding starts nothing.
func TestFind(t *testing.T) {
	s := newSite(t)
	alice := s.person("alice")
	p := s.started(alice, "data")
	a, err := s.Sessions.Find(bg(), alice, p.ID, "notebook", "/x")
	if err != nil || a.Live || a.URL != "" || a.Session != nil {
		t.Errorf("%+v, %v", a, err)
	}
	one := s.open(alice, p, "notebook")
	if a, err = s.Sessions.Find(bg(), alice, p.ID, "notebook", "/tree/a?b"); err != nil || !a.Live || a.URL != s.origins.App(s.label(alice, p.ID), "notebook", "/tree/a?b") {
		t.Errorf("%+v, %v", a, err)
	}
	must(t, s.Sessions.Stop(bg(), alice, one.ID))
	s.session(one.ID, quire.SessionEnded)
	if a, err = s.Sessions.Find(bg(), alice, p.ID, "notebook", ""); err != nil || a.Live || a.Session == nil || !strings.HasSuffix(a.URL, "/notebook/") {
		t.Errorf("%+v, %v", a, err)
	}
	if n := s.node.acted(quire.OrderStart); n != 1 {
		t.Errorf("%d were started", n)
	}
}

// What a program prints is its person's.
func TestLogsArePrivate(t *testing.T) {
	s := newSite(t)
	alice, bob, chief := s.person("alice"), s.person("bob"), s.person("chief", true)
	p := s.started(alice, "data")
	must(t, s.Team.Set(bg(), alice, p.ID, "bob", quire.RoleEditor))
	one := s.open(bob, p, "notebook")
	if log, err := s.Sessions.Log(bg(), bob, one.ID); err != nil || log != "log of "+string(one.ID) {
		t.Errorf("%q, %v", log, err)
	}
	s.node.report(quire.NodeReport{Sessions: []quire.SessionReport{{ID: one.ID, User: bob.User, Project: p.ID, App: "notebook", State: quire.SessionFailed, Log: "a secret"}}})
	s.session(one.ID, quire.SessionFailed)
	if log, err := s.Sessions.Log(bg(), bob, one.ID); err != nil || log != "a secret" {
		t.Errorf("%q, %v", log, err)
	}
	for _, by := range []quire.Actor{alice, chief, quire.Nobody, quireItself} {
		_, err := s.Sessions.Log(bg(), by, one.ID)
		want(t, by.Name+" reads the log", quire.KindNotFound, err)
		if ss, err := s.Sessions.List(bg(), by, p.ID); err == nil && ss[0].Log != "" {
			t.Errorf("%s sees %q in the list", by.Name, ss[0].Log)
		}
	}
	if ss, err := s.Sessions.List(bg(), bob, p.ID); err != nil || len(ss) != 1 || ss[0].Log != "a secret" {
		t.Errorf("%+v, %v", ss, err)
	}
	_, err := s.Sessions.Log(bg(), bob, "s_x")
	want(t, "of a session that is none", quire.KindNotFound, err)
}

// The end of everything: all sessions, waited for.
func TestStopAll(t *testing.T) {
	s := newSite(t)
	alice, bob, chief := s.person("alice"), s.person("bob"), s.person("chief", true)
	p, q := s.started(alice, "p"), s.started(bob, "q")
	var ids []quire.SessionID
	for _, app := range []string{"notebook", "terminal"} {
		ids = append(ids, s.open(alice, p, app).ID, s.open(bob, q, app).ID)
	}
	for _, by := range []quire.Actor{alice, quire.Nobody} {
		if _, err := s.Sessions.StopAll(bg(), by); err == nil {
			t.Errorf("%s may", by.Name)
		}
	}
	n, err := s.Sessions.StopAll(bg(), chief)
	if n != 4 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	for _, id := range ids {
		if st, got := s.node.state(id), s.row(id); st != quire.SessionEnded || got.State != quire.SessionEnded || got.Reason != "Stopped by chief." {
			t.Errorf("%s, %+v", st, got)
		}
	}
	if n, err := s.Sessions.StopAll(bg(), chief); n != 0 || err != nil {
		t.Errorf("again: %d, %v", n, err)
	}
	// A node that is away is not waited for beyond the caller's patience.
	one := s.open(alice, p, "notebook")
	s.node.leave()
	ctx, cancel := context.WithTimeout(bg(), 50*time.Millisecond)
	defer cancel()
	n, err = s.Sessions.StopAll(ctx, chief)
	if n != 0 || quire.KindOf(err) == "" {
		t.Errorf("%d, %v", n, err)
	}
	s.node.back()
	s.session(one.ID, quire.SessionEnded)
}

// Watch gives a value after changes of what is watched, and is closed when login
// or right is gone.
func TestWatch(t *testing.T) {
	s := newSite(t)
	alice, chief := s.person("alice"), s.person("chief", true)
	p := s.project(alice, "data")
	watch := func(by quire.Actor, id quire.ProjectID) (<-chan struct{}, context.CancelFunc) {
		ctx, cancel := context.WithCancel(bg())
		ch, err := s.Site.Watch(ctx, by, id)
		must(t, err)
		return ch, cancel
	}
	told := func(ch <-chan struct{}) (open bool) {
		t.Helper()
		select {
		case _, open = <-ch:
		case <-time.After(30 * time.Second):
			t.Fatal("nothing was told")
		}
		return open
	}
	closed := func(what string, ch <-chan struct{}) {
		t.Helper()
		for told(ch) {
		}
	}
	ch, cancel := watch(alice, p.ID)
	_, err := s.Projects.Update(bg(), alice, p.ID, ProjectChange{Summary: ptr("new")})
	must(t, err)
	if !told(ch) {
		t.Error("closed at a change")
	}
	cancel()
	closed("by the caller", ch)

	i := 0
	for name, end := range map[string]func(by quire.Actor){
		"logout":     func(by quire.Actor) { must(t, s.Logins.Leave(bg(), by)) },
		"everywhere": func(by quire.Actor) { must(t, s.Logins.LeaveAll(bg(), by)) },
		"removal":    func(by quire.Actor) { must(t, s.Team.Remove(bg(), alice, p.ID, by.Name)) },
		"left":       func(by quire.Actor) { must(t, s.Team.Remove(bg(), by, p.ID, by.Name)) },
		"disabled":   func(by quire.Actor) { s.update(chief, by, UserChange{Disabled: ptr(true)}) },
		"password":   func(by quire.Actor) { s.change(by) },
	} {
		i++
		by := s.person("w" + string(rune('a'+i)))
		must(t, s.Team.Set(bg(), alice, p.ID, by.Name, quire.RoleViewer))
		ch, cancel := watch(by, p.ID)
		end(by)
		closed(name, ch)
		cancel()
	}
	vic := s.person("vic")
	must(t, s.Team.Set(bg(), alice, p.ID, "vic", quire.RoleViewer))
	ch, cancel = watch(vic, p.ID)
	defer cancel()
	must(t, s.Projects.Delete(bg(), alice, p.ID, "data"))
	closed("the project is deleted", ch)

	all, cancel := watch(vic, "")
	defer cancel()
	s.project(alice, "another")
	if !told(all) {
		t.Error("closed at somebody else's change")
	}
	s.clock.add(quire.LoginIdle)
	s.core.hub.changed("")
	closed("the login is idle", all)
	for what, c := range map[string]struct {
		by quire.Actor
		id quire.ProjectID
	}{"nobody": {quire.Nobody, ""}, "nobody, a project": {quire.Nobody, p.ID}, "a login that is over": {vic, ""}} {
		_, err := s.Site.Watch(bg(), c.by, c.id)
		want(t, what, quire.KindUnknown, err)
	}
	s.clock.reset()
	_, err = s.Site.Watch(bg(), s.person("eve"), s.project(alice, "private").ID)
	want(t, "a stranger", quire.KindNotFound, err)
}

func (s *site) update(by, whom quire.Actor, ch UserChange) {
	s.t.Helper()
	_, err := s.Users.Update(bg(), by, whom.User, ch)
	must(s.t, err)
}

func (s *site) change(by quire.Actor) {
	s.t.Helper()
	_, err := s.Users.SetPassword(bg(), by, password, "another good password", from(home))
	must(s.t, err)
}
