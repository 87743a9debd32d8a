package control

import (
	"strings"
	"sync"
	"testing"
	"time"

	"quire"
	"quire/store"
)

// A node's word about its own sessions becomes the row.
func TestReports(t *testing.T) {
	s := newSite(t)
	alice := s.person("alice")
	p := s.started(alice, "data")
	s.node.mu.Lock()
	s.node.silent = true
	s.node.mu.Unlock()
	label := s.label(alice, p.ID)
	say := func(a Address, change func(*quire.SessionReport)) {
		sr := quire.SessionReport{ID: a.Session.ID, User: alice.User, Project: p.ID, App: a.Session.App, State: quire.SessionRunning}
		if change != nil {
			change(&sr)
		}
		s.node.report(quire.NodeReport{Sessions: []quire.SessionReport{sr}})
	}
	for _, c := range []struct {
		name   string
		change func(*quire.SessionReport)
		state  quire.SessionState
		reason string
	}{
		{"ended by itself", func(r *quire.SessionReport) { r.State, r.Exit = quire.SessionEnded, &quire.Exit{} }, quire.SessionEnded, "It ended by itself."},
		{"exit code", func(r *quire.SessionReport) { r.State, r.Exit = quire.SessionFailed, &quire.Exit{Code: 3} }, quire.SessionFailed, "It exited with code 3."},
		{"out of memory", func(r *quire.SessionReport) {
			r.State, r.Exit = quire.SessionFailed, &quire.Exit{OutOfMemory: true, Signal: "killed"}
		}, quire.SessionFailed, "It ran out of memory and was ended by the kernel."},
		{"never ready", func(r *quire.SessionReport) { r.State, r.Reason = quire.SessionFailed, "It did not listen." }, quire.SessionFailed, "It did not listen."},
		{"a state that does not exist", func(r *quire.SessionReport) { r.State = "zombie" }, quire.SessionFailed, ""},
		{"far too many words", func(r *quire.SessionReport) {
			r.State, r.Reason, r.Log = quire.SessionFailed, strings.Repeat("ü", 9000), strings.Repeat("l", 1<<20)
			r.Exit = &quire.Exit{Signal: strings.Repeat("s", 1<<20), By: strings.Repeat("b", 1<<20)}
		}, quire.SessionFailed, strings.Repeat("ü", 250)},
	} {
		a, err := s.Sessions.Open(bg(), alice, p.ID, "notebook")
		must(t, err)
		s.eventually("it was started", func() bool { return s.node.state(a.Session.ID) == quire.SessionStarting })
		say(a, nil)
		s.session(a.Session.ID, quire.SessionRunning)
		if s.row(a.Session.ID).Ready == nil {
			t.Errorf("%s: running since never", c.name)
		}
		s.eventually("the gateway knows", func() bool { return s.gate.route(label, "notebook").State == quire.SessionRunning })
		say(a, c.change)
		s.session(a.Session.ID, c.state)
		got := s.row(a.Session.ID)
		if got.Reason != c.reason || got.Ended == nil || len(got.Log) > 8<<10 || got.Exit != nil && len(got.Exit.Signal)+len(got.Exit.By) > 300 {
			t.Errorf("%s: %+v", c.name, got)
		}
		s.eventually("the gateway knows the end", func() bool {
			r := s.gate.route(label, "notebook")
			return r.State == c.state && r.Reason == c.reason && r.Session == a.Session.ID
		})
		say(a, nil) // a late word does not bring it back; the node is told to stop it
		s.node.mu.Lock()
		delete(s.node.sessions, a.Session.ID)
		s.node.mu.Unlock()
	}
	s.eventually("it was told to stop what lives on", func() bool { return s.node.ordered(quire.OrderStop) >= 1 })
}

// A node may speak only of sessions that the server gave to it (N-14 in words:
// what belongs to another node, person or project is refused).
func TestReportsOfOthersSessions(t *testing.T) {
	s := newSite(t)
	alice, bob := s.person("alice"), s.person("bob")
	p := s.started(alice, "data")
	one := s.open(alice, p, "notebook")
	elsewhere := quire.Node{ID: quire.NewNodeID(), DataCenter: s.dc.ID, Name: "elsewhere", Address: "127.0.0.1:5003"}
	foreign := quire.Session{ID: quire.NewSessionID(), User: alice.User, Project: p.ID, App: "terminal", Node: elsewhere.ID, State: quire.SessionRunning, Created: time.Now()}
	s.tx(func(tx *store.Tx) error {
		if err := tx.SaveNode(elsewhere); err != nil { // known to the database; nobody links it in this test
			return err
		}
		return tx.AddSession(foreign)
	})
	dead := func(id quire.SessionID, user quire.UserID, project quire.ProjectID, app string) quire.SessionReport {
		return quire.SessionReport{ID: id, User: user, Project: project, App: app, State: quire.SessionFailed, Reason: "lies"}
	}
	stops := s.node.ordered(quire.OrderStop)
	s.node.report(quire.NodeReport{Sessions: []quire.SessionReport{
		dead(foreign.ID, alice.User, p.ID, "terminal"), // another node's
		dead(one.ID, bob.User, p.ID, "notebook"),
		dead(one.ID, alice.User, "p_other", "notebook"),
		dead(one.ID, alice.User, p.ID, "terminal"),
		dead("s_unknownunknown22", alice.User, p.ID, "notebook"),
		{ID: "s_unknownunknown33", User: alice.User, Project: p.ID, App: "notebook", State: quire.SessionRunning},
		{ID: "", State: quire.SessionRunning},
		{ID: "' OR 1=1 --", State: quire.SessionFailed},
	}})
	s.open(alice, p, "viewer") // its report comes after the lies, so those have been read
	for _, id := range []quire.SessionID{one.ID, foreign.ID} {
		if got := s.row(id); got.State != quire.SessionRunning || got.Reason != "" {
			t.Errorf("%+v", got)
		}
	}
	if n := s.node.ordered(quire.OrderStop); n != stops {
		t.Errorf("%d sessions were stopped on the word of a liar", n-stops)
	}
}

// A session that was ended while its node was away is stopped when it is back.
func TestStrays(t *testing.T) {
	s := newSite(t)
	alice := s.person("alice")
	p := s.started(alice, "data")
	one := s.open(alice, p, "notebook")
	s.node.leave()
	s.tx(func(tx *store.Tx) error {
		row, err := tx.Session(one.ID)
		row.State, row.Ended, row.Exit = quire.SessionEnded, &tx.Now, &quire.Exit{By: "a rule"}
		if err != nil {
			return err
		}
		return tx.SaveSession(row)
	})
	s.node.back()
	s.eventually("it is stopped", func() bool { return s.node.state(one.ID) == quire.SessionEnded })
	s.node.mu.Lock()
	exit := s.node.sessions[one.ID].Exit
	s.node.mu.Unlock()
	if exit.By != "a rule" {
		t.Errorf("%+v", exit)
	}
}

// A session that its node does not know any more has failed; one that was to
// start or stop is ordered again.
func TestFullReports(t *testing.T) {
	s := newSite(t)
	alice := s.person("alice")
	p := s.started(alice, "data")
	lost, kept := s.open(alice, p, "notebook"), s.open(alice, p, "terminal")
	s.node.mu.Lock()
	s.node.silent = true
	s.node.mu.Unlock()
	a, err := s.Sessions.Open(bg(), alice, p.ID, "viewer")
	must(t, err)
	s.eventually("the third starts", func() bool { return s.node.state(a.Session.ID) == quire.SessionStarting })
	s.node.leave()
	s.node.mu.Lock()
	delete(s.node.sessions, lost.ID)
	delete(s.node.sessions, a.Session.ID)
	s.node.silent = false
	s.node.mu.Unlock()
	s.eventually("it is seen to be away", func() bool { return !s.loop.nodeUp(s.record.ID) })
	if st := s.row(lost.ID).State; st != quire.SessionRunning {
		t.Errorf("while the node is away it is %s", st)
	}
	s.node.back()
	s.session(lost.ID, quire.SessionFailed)
	if got := s.row(lost.ID); got.Reason != "The compute node does not know this session any more." || got.Ended == nil {
		t.Errorf("%+v", got)
	}
	s.session(a.Session.ID, quire.SessionRunning)
	if st := s.row(kept.ID).State; st != quire.SessionRunning {
		t.Errorf("the one that lives on is %s", st)
	}
	if n := s.node.ordered(quire.OrderStop); n != 0 {
		t.Errorf("%d were stopped", n)
	}
	// Lost, so it can be opened anew.
	if again := s.open(alice, p, "notebook"); again.ID == lost.ID {
		t.Error("a session that is gone was handed out")
	}
}

// Whoever ends a session is named, whichever word comes first: the answer to the
// order or the node's report.
func TestStopReasons(t *testing.T) {
	s := newSite(t)
	alice, bob, chief := s.person("alice"), s.person("bob"), s.person("chief", true)
	p := s.started(alice, "data")
	must(t, s.Team.Set(bg(), alice, p.ID, "bob", quire.RoleEditor))
	for _, c := range []struct {
		name string
		stop func(one quire.Session)
		want string
	}{
		{"himself", func(one quire.Session) { must(t, s.Sessions.Stop(bg(), bob, one.ID)) }, "Stopped by bob."},
		{"the owner", func(one quire.Session) { must(t, s.Sessions.Stop(bg(), alice, one.ID)) }, "Stopped by alice."},
		{"an administrator", func(one quire.Session) { must(t, s.Sessions.Stop(bg(), chief, one.ID)) }, "Stopped by chief."},
		{"twice", func(one quire.Session) {
			must(t, s.Sessions.Stop(bg(), alice, one.ID))
			must(t, s.Sessions.Stop(bg(), bob, one.ID))
		}, "Stopped by alice."},
		{"the team", func(quire.Session) { must(t, s.Team.Set(bg(), alice, p.ID, "bob", quire.RoleViewer)) }, "Stopped by alice, who changed the team."},
		{"the project", func(quire.Session) { must(t, s.Projects.Stop(bg(), alice, p.ID)) }, "Stopped by alice, who stopped the project."},
		{"the account", func(quire.Session) {
			_, err := s.Users.Update(bg(), chief, bob.User, UserChange{Disabled: ptr(true)})
			must(t, err)
		}, "Stopped by an administrator."},
	} {
		if st := s.see(p.ID).State; st == quire.ProjectStopped {
			must(t, s.Projects.Start(bg(), alice, p.ID))
		}
		s.settled(p.ID, quire.ProjectRunning)
		must(t, s.Team.Set(bg(), alice, p.ID, "bob", quire.RoleEditor))
		bob, _ = s.enter("bob")
		one := s.open(bob, p, "notebook")
		c.stop(one)
		s.session(one.ID, quire.SessionEnded)
		if got := s.row(one.ID); got.Reason != c.want || got.Exit == nil || got.Exit.By == "" {
			t.Errorf("%s: %+v, %+v", c.name, got, got.Exit)
		}
		if st := s.node.state(one.ID); st != quire.SessionEnded {
			t.Errorf("%s: on the node it is %q", c.name, st)
		}
		s.eventually("nothing is under way", func() bool { return s.work(p.ID).Ended != nil })
	}
}

// A stop that reaches a node that is away is carried out when it is back.
//
//fault:network a stop is asked for while the node is away
//fault:seen the project shows that it is stopping
//fault:lost nothing
//fault:repair it is carried out when the node is back
func TestStopWhileTheNodeIsAway(t *testing.T) {
	s := newSite(t)
	alice := s.person("alice")
	p := s.started(alice, "data")
	one := s.open(alice, p, "notebook")
	s.node.leave()
	s.eventually("the node is away", func() bool { return !s.loop.nodeUp(s.record.ID) })
	must(t, s.Sessions.Stop(bg(), alice, one.ID))
	_, err := s.Sessions.Open(bg(), alice, p.ID, "notebook")
	want(t, "open what is being stopped", quire.KindConflict, err)
	if st := s.row(one.ID).State; st != quire.SessionStopping {
		t.Errorf("it is %s", st)
	}
	_, err = s.Sessions.Log(bg(), alice, one.ID)
	want(t, "log of a node that is away", quire.KindUnavailable, err)
	s.node.back()
	s.session(one.ID, quire.SessionEnded)
	if st := s.node.state(one.ID); st != quire.SessionEnded {
		t.Errorf("on the node it is %q", st)
	}
	if got := s.row(one.ID).Reason; got != "Stopped by alice." {
		t.Errorf("%s", got)
	}
}

// An app can be opened while the node is away: it starts when it is back.
func TestStartWhileTheNodeIsAway(t *testing.T) {
	s := newSite(t)
	alice := s.person("alice")
	p := s.started(alice, "data")
	s.node.leave()
	s.eventually("the node is away", func() bool { return !s.loop.nodeUp(s.record.ID) })
	a, err := s.Sessions.Open(bg(), alice, p.ID, "notebook")
	must(t, err)
	s.node.back()
	s.session(a.Session.ID, quire.SessionRunning)
	if n := s.node.acted(quire.OrderStart); n != 1 {
		t.Errorf("started %d times", n)
	}
}

// What the gateway was told last is how things are, after any number of
// changes and of broken links.
func TestTheGatewaysLastWord(t *testing.T) {
	s := newSite(t)
	alice := s.person("alice")
	p := s.started(alice, "data")
	label := s.label(alice, p.ID)
	for i := range 12 {
		apps := []string{"notebook", "terminal", "viewer"}
		var asked sync.WaitGroup
		for _, app := range apps {
			asked.Go(func() {
				a, err := s.Sessions.Open(bg(), alice, p.ID, app)
				if err == nil && i%2 == 0 {
					s.Sessions.Stop(bg(), alice, a.Session.ID)
				}
			})
		}
		if i%4 == 3 {
			s.gate.leave()
			s.eventually("the gateway is away", func() bool { up, _ := s.loop.gatewayState(s.record.DataCenter); return !up })
			s.gate.back()
			s.eventually("it is back", func() bool { up, _ := s.loop.gatewayState(s.record.DataCenter); return up })
		}
		asked.Wait()
		s.eventually("rows and routes agree", func() bool {
			for _, app := range apps {
				var row *quire.Session
				must(t, s.store.Read(bg(), func(tx *store.Tx) (err error) { row, err = tx.LatestSession(alice.User, p.ID, app); return err }))
				if row == nil || row.State == quire.SessionStarting || row.State == quire.SessionStopping {
					return false
				}
				if r := s.gate.route(label, app); r.Session != row.ID || r.State != row.State || r.Reason != row.Reason {
					return false
				}
			}
			return true
		})
	}
	s.gate.mu.Lock()
	defer s.gate.mu.Unlock()
	if s.gate.disorder != "" {
		t.Error(s.gate.disorder)
	}
	if s.gate.links < 2 {
		t.Error("the link was never broken")
	}
}

// A gateway that comes back hears everything at once: routes, revocations and
// the addresses of its nodes; and a node that is added later.
func TestAGatewayHearsEverything(t *testing.T) {
	s := newSite(t)
	alice := s.person("alice")
	p := s.started(alice, "data")
	s.open(alice, p, "notebook")
	must(t, s.Team.Set(bg(), alice, p.ID, s.person("bob").Name, quire.RoleViewer))
	must(t, s.Team.Remove(bg(), alice, p.ID, "bob"))
	s.gate.leave()
	s.eventually("it is seen to be away", func() bool { up, _ := s.loop.gatewayState(s.dc.ID); return !up })
	ds, err := s.Site.DataCenters(bg(), alice)
	must(t, err)
	if ds[0].Up || ds[0].Reason == "" || ds[0].Address != "" {
		t.Errorf("%+v", ds[0])
	}
	s.gate.mu.Lock()
	s.gate.feeds = nil
	s.gate.mu.Unlock()
	s.gate.back()
	s.up()
	s.gate.mu.Lock()
	first := s.gate.feeds[0]
	s.gate.mu.Unlock()
	if !first.Full || len(first.Routes) != 1 || first.Routes[0].State != quire.SessionRunning || len(first.Revocations) != 1 || first.Seq != 1 || first.Nodes[s.record.ID] != s.record.Address {
		t.Errorf("%+v", first)
	}
	moved := s.record
	moved.Address = "127.0.0.1:6000"
	must(t, s.Site.Join(bg(), quireItself, s.dc, moved))
	s.eventually("it knows the new address", func() bool {
		s.gate.mu.Lock()
		defer s.gate.mu.Unlock()
		return s.gate.nodes[s.record.ID] == moved.Address
	})
	s.up()
}
