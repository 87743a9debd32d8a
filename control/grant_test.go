package control

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"quire"
	"quire/store"
	"quire/ticket"
)

// HandOff is for one's own label; what is unknown and what is somebody else's
// are one answer.
func TestHandOff(t *testing.T) {
	s := newSite(t)
	alice, bob, chief := s.person("alice"), s.person("bob"), s.person("chief", true)
	p := s.project(alice, "data")
	must(t, s.Team.Set(bg(), alice, p.ID, "bob", quire.RoleViewer))
	label, bobs, chiefs := s.label(alice, p.ID), s.label(bob, p.ID), s.label(chief, p.ID)

	g, err := s.verify.Grant(s.grant(alice, label))
	must(t, err)
	if g.User != alice.User || g.Project != p.ID || g.Login != alice.Login || g.Label != label || g.Gateway != s.dc.Gateway || g.Node != s.record.ID || g.Role != quire.RoleOwner {
		t.Errorf("%+v", g)
	}
	now := s.clock.now()
	if d := g.Expires.Sub(now); d > ticket.GrantLife || d < ticket.GrantLife-time.Minute {
		t.Errorf("good for %v", d)
	}
	if d := g.Grace.Sub(now); d > s.grace || d < s.grace-time.Minute {
		t.Errorf("grace of %v", d)
	}
	if g, err = s.verify.Grant(s.grant(bob, bobs)); err != nil || g.Role != quire.RoleViewer {
		t.Errorf("%+v, %v", g, err)
	}

	messages := map[string]bool{}
	for name, c := range map[string]struct {
		by    quire.Actor
		label quire.Label
	}{
		"another member's":                           {alice, bobs},
		"the owner's":                                {bob, label},
		"one that was never made":                    {alice, quire.NewLabel()},
		"an administrator's own, without membership": {chief, chiefs},
		"anybody's, for an administrator":            {chief, label},
	} {
		_, err := s.handOff(c.by, c.label)
		want(t, name, quire.KindNotFound, err)
		messages[quire.AsError(err).Message] = true
	}
	if len(messages) != 1 {
		t.Errorf("the answers differ: %v", messages)
	}
	must(t, s.Projects.Delete(bg(), alice, p.ID, "data"))
	s.settled(p.ID, quire.ProjectDeleted)
	_, err = s.handOff(alice, label)
	want(t, "a deleted project's", quire.KindNotFound, err)

	_, err = s.handOff(quire.Nobody, label)
	want(t, "nobody", quire.KindUnknown, err)
	for _, ask := range []Ask{
		{Label: label, Nonce: "", Path: "/"}, {Label: label, Nonce: "zz", Path: "/"}, {Label: label, Nonce: nonceHash()[:62], Path: "/"}, {Label: label, Nonce: nonceHash() + "00", Path: "/"},
		{Label: "", Nonce: nonceHash(), Path: "/"}, {Label: label + "x", Nonce: nonceHash(), Path: "/"}, {Label: "../../etc", Nonce: nonceHash(), Path: "/"},
		{Label: quire.Label(strings.ToUpper(string(label))), Nonce: nonceHash(), Path: "/"},
	} {
		_, err := s.Sessions.HandOff(bg(), alice, ask)
		want(t, "malformed", quire.KindInvalid, err)
	}
}

// The path that a browser is sent to stays on the app's origin.
func TestHandOffPaths(t *testing.T) {
	s := newSite(t)
	alice := s.person("alice")
	label := s.label(alice, s.project(alice, "data").ID)
	for path, want := range map[string]string{
		"/notebook/tree?x=1": "/notebook/tree?x=1", "/": "/",
		"": "/", "notebook": "/", "//evil.org": "/", "/\\evil.org": "/", "https://evil.org": "/", "/x\r\nSet-Cookie: a": "/", "/x\x00": "/", "javascript:alert(1)": "/",
		"/" + strings.Repeat("x", 9000): "/",
	} {
		h, err := s.Sessions.HandOff(bg(), alice, Ask{Label: label, Nonce: nonceHash(), Path: path})
		if err != nil || h.Path != want {
			t.Errorf("%.40q became %.40q, %v", path, h.Path, err)
		}
	}
}

// A grant is renewed as long as login and right are there, and refused at the
// first time after either is gone.
func TestRenewal(t *testing.T) {
	s := newSite(t)
	alice, chief := s.person("alice"), s.person("chief", true)
	p := s.project(alice, "data")
	other := s.project(alice, "other")
	member := func(name string) (quire.Actor, []byte) {
		by := s.person(name)
		must(t, s.Team.Set(bg(), alice, p.ID, name, quire.RoleEditor))
		return by, s.grant(by, s.label(by, p.ID))
	}
	for i, c := range []struct {
		name    string
		loses   func(by quire.Actor)
		refused bool
	}{
		{"nothing happens", func(quire.Actor) {}, false},
		{"the grant is long over", func(quire.Actor) { s.clock.add(ticket.GrantLife + time.Minute) }, false},
		{"made a viewer", func(by quire.Actor) { must(t, s.Team.Set(bg(), alice, p.ID, by.Name, quire.RoleViewer)) }, false},
		{"another project changes", func(by quire.Actor) {
			must(t, s.Team.Set(bg(), alice, other.ID, by.Name, quire.RoleEditor))
			must(t, s.Team.Remove(bg(), alice, other.ID, by.Name))
		}, false},
		{"signed out", func(by quire.Actor) { must(t, s.Logins.Leave(bg(), by)) }, true},
		{"signed out everywhere", func(by quire.Actor) { must(t, s.Logins.LeaveAll(bg(), by)) }, true},
		{"ended from another browser", func(by quire.Actor) {
			there, _ := s.enter(by.Name)
			must(t, s.Logins.End(bg(), there, by.Login))
		}, true},
		{"taken off the team", func(by quire.Actor) { must(t, s.Team.Remove(bg(), alice, p.ID, by.Name)) }, true},
		{"left the team", func(by quire.Actor) { must(t, s.Team.Remove(bg(), by, p.ID, by.Name)) }, true},
		{"disabled", func(by quire.Actor) {
			_, err := s.Users.Update(bg(), chief, by.User, UserChange{Disabled: ptr(true)})
			must(t, err)
		}, true},
		{"changed his password", func(by quire.Actor) {
			_, err := s.Users.SetPassword(bg(), by, password, "another good password", From{})
			must(t, err)
		}, true},
		{"idle for too long", func(quire.Actor) { s.clock.add(quire.LoginIdle) }, true},
	} {
		by, grant := member("member" + string(rune('a'+i)))
		c.loses(by)
		fresh := s.gate.renew(grant)
		if (fresh == nil) != c.refused {
			t.Errorf("%s: refused %v", c.name, fresh == nil)
		}
		if fresh == nil {
			continue
		}
		old, err := s.verify.Grant(grant)
		must(t, err)
		now, err := s.verify.Grant(fresh)
		must(t, err)
		if now.Subject() != old.Subject() || now.Gateway != old.Gateway || now.Node != old.Node || now.Issued.Before(old.Issued) || now.Good(s.clock.now(), s.clock.now()) != nil {
			t.Errorf("%s: %+v after %+v", c.name, now, old)
		}
		if c.name == "made a viewer" && now.Role != quire.RoleViewer {
			t.Errorf("%+v", now)
		}
		alice, _ = s.enter("alice") // the clock may have ended it
		chief, _ = s.enter("chief")
	}

	for name, bad := range map[string][]byte{
		"nothing": nil, "garbage": []byte("garbage"),
		"forged": ticket.NewSigner().Grant(ticket.Grant{Gateway: s.dc.Gateway, User: alice.User, Project: p.ID, Login: alice.Login}),
		"another gateway's": s.signer.Grant(ticket.Grant{Gateway: quire.NewNodeID(), Node: s.record.ID, User: alice.User, Project: p.ID, Login: alice.Login,
			Label: s.label(alice, p.ID)}),
		"with somebody else's login": s.signer.Grant(ticket.Grant{Gateway: s.dc.Gateway, Node: s.record.ID, User: alice.User, Project: p.ID, Login: chief.Login,
			Label: s.label(alice, p.ID)}),
	} {
		if s.gate.renew(bad) != nil {
			t.Errorf("%s was renewed", name)
		}
	}
	must(t, s.Projects.Delete(bg(), alice, p.ID, "data"))
	s.settled(p.ID, quire.ProjectDeleted)
	if s.gate.renew(s.signer.Grant(ticket.Grant{Gateway: s.dc.Gateway, Node: s.record.ID, User: alice.User, Project: p.ID, Login: alice.Login, Label: s.label(alice, p.ID)})) != nil {
		t.Error("a deleted project's grant was renewed")
	}
}

// Work in an app keeps a login from becoming idle, but not beyond its life; nor
// does any grant, whatever its grace.
func TestGrantsEndWithTheLogin(t *testing.T) {
	s := newSite(t)
	alice := s.person("alice")
	p := s.project(alice, "data")
	grant := s.grant(alice, s.label(alice, p.ID))
	var l quire.Login
	must(t, s.store.Read(bg(), func(tx *store.Tx) (err error) { l, err = tx.Login(alice.Login); return err }))
	end := l.Created.Add(quire.LoginLife)
	for s.clock.now().Before(end.Add(-30 * time.Minute)) {
		// The store has the real clock, so what it noted is moved along.
		seen := s.clock.now().Add(-7 * time.Hour)
		s.tx(func(tx *store.Tx) error { tx.Now = seen; return tx.SeeLogin(alice.Login) })
		if grant = s.gate.renew(grant); grant == nil {
			t.Fatalf("refused %v before the end", end.Sub(s.clock.now()))
		}
		s.clock.add(6 * time.Hour)
		if left := end.Add(-2 * time.Minute).Sub(s.clock.now()); left < 0 {
			s.clock.add(left)
		}
	}
	s.tx(func(tx *store.Tx) error { tx.Now = s.clock.now(); return tx.SeeLogin(alice.Login) })
	g, err := s.verify.Grant(s.gate.renew(grant))
	must(t, err)
	if g.Expires.After(end) || g.Grace.After(end) {
		t.Errorf("the login ends %v, the grant %v, its grace %v", end, g.Expires, g.Grace)
	}
	s.clock.add(2 * time.Minute)
	s.tx(func(tx *store.Tx) error { tx.Now = s.clock.now(); return tx.SeeLogin(alice.Login) })
	if s.gate.renew(grant) != nil {
		t.Error("renewed after the end of the login")
	}
}

// A grant that is made while its login ends is either refused or revoked: none
// escapes both.
func TestLogoutAgainstHandOff(t *testing.T) {
	s := newSite(t)
	s.person("alice")
	first, _ := s.enter("alice")
	label := s.label(first, s.project(first, "data").ID)
	for range 40 {
		by, _ := s.enter("alice")
		var wg sync.WaitGroup
		var grants [4][]byte
		start := make(chan struct{})
		for i := range grants {
			wg.Go(func() {
				<-start
				g, err := s.handOff(by, label)
				if err != nil && quire.KindOf(err) != quire.KindUnknown {
					t.Error(err)
				}
				grants[i] = g
			})
		}
		wg.Go(func() {
			<-start
			if err := s.Logins.Leave(bg(), by); err != nil {
				t.Error(err)
			}
		})
		close(start)
		wg.Wait()
		s.eventually("every grant that was made is revoked", func() bool {
			for _, g := range grants {
				if g != nil && !s.gate.covers(g) {
					return false
				}
			}
			return true
		})
		_, err := s.handOff(by, label)
		want(t, "after the logout", quire.KindUnknown, err)
	}
}

// From the answer to whoever lowered a right until gateway and node have heard
// of it: less than a second, and not by waiting for the heartbeat.
func TestRevocationsArePushed(t *testing.T) {
	s := newSite(t)
	alice, bob, chief := s.person("alice"), s.person("bob"), s.person("chief", true)
	p := s.project(alice, "data", true)
	for i, lower := range []func() error{
		func() error { return s.Team.Set(bg(), alice, p.ID, "bob", quire.RoleViewer) },
		func() error { return s.Team.Remove(bg(), alice, p.ID, "bob") },
		func() error {
			_, err := s.Projects.Update(bg(), alice, p.ID, ProjectChange{Public: ptr(false)})
			return err
		},
		func() error { return s.Logins.Leave(bg(), bob) },
		func() error { return s.Logins.LeaveAll(bg(), bob) },
		func() error { return s.Logins.End(bg(), bob, bob.Login) },
		func() error {
			_, err := s.Users.Update(bg(), chief, bob.User, UserChange{Disabled: ptr(true)})
			return err
		},
		func() error { return s.Projects.Delete(bg(), alice, p.ID, "data") },
	} {
		s.tx(func(tx *store.Tx) error {
			u, err := tx.User(bob.User)
			u.Disabled = false
			if err != nil {
				return err
			}
			return tx.SaveUser(u)
		})
		must(t, s.Team.Set(bg(), alice, p.ID, "bob", quire.RoleEditor))
		bob, _ = s.enter("bob")
		grant := s.grant(bob, s.label(bob, p.ID))
		if s.gate.covers(grant) {
			t.Fatalf("change %d: a fresh grant is revoked already", i)
		}
		must(t, lower())
		done := time.Now()
		s.eventually("gateway and node have heard", func() bool {
			s.node.mu.Lock()
			defer s.node.mu.Unlock()
			g, err := s.verify.Grant(grant)
			must(t, err)
			for _, f := range s.node.feeds {
				for _, r := range f.Revocations {
					if g.Revoked(r) {
						return s.gate.covers(grant)
					}
				}
			}
			return false
		})
		if d := time.Since(done); d > time.Second {
			t.Errorf("change %d: heard after %v", i, d)
		}
	}
	// Numbers never go back, and nothing is left out.
	s.gate.mu.Lock()
	defer s.gate.mu.Unlock()
	if s.gate.disorder != "" {
		t.Error(s.gate.disorder)
	}
	for i, r := range s.gate.revoked {
		if r.Seq != int64(i)+1 {
			t.Errorf("revocation %d has the number %d", i+1, r.Seq)
		}
	}
}

// Many revocations at once, from many sides: each is told exactly once, in
// order, to a link that stands.
func TestRevocationsInParallel(t *testing.T) {
	s := newSite(t)
	s.person("alice")
	var wg sync.WaitGroup
	const n = 40
	for range n {
		by, _ := s.enter("alice")
		wg.Go(func() {
			if err := s.Logins.Leave(bg(), by); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	s.eventually("all are told", func() bool {
		s.gate.mu.Lock()
		defer s.gate.mu.Unlock()
		return len(s.gate.revoked) >= n
	})
	s.gate.mu.Lock()
	defer s.gate.mu.Unlock()
	if s.gate.disorder != "" {
		t.Error(s.gate.disorder)
	}
	for i, r := range s.gate.revoked {
		if r.Seq != int64(i)+1 {
			t.Fatalf("place %d has the number %d of %d", i+1, r.Seq, len(s.gate.revoked))
		}
	}
}

// A project that is made private loses its visitors: their grants, and what
// they have running.
func TestMadePrivate(t *testing.T) {
	s := newSite(t)
	alice, bob, eve := s.person("alice"), s.person("bob"), s.person("eve")
	p := s.started(alice, "data", true)
	must(t, s.Team.Set(bg(), alice, p.ID, "bob", quire.RoleViewer))
	visitor, member := s.open(eve, p, "viewer"), s.open(bob, p, "viewer")
	grant, members := s.grant(eve, s.label(eve, p.ID)), s.grant(bob, s.label(bob, p.ID))
	if g, err := s.verify.Grant(grant); err != nil || g.Role != quire.RoleViewer {
		t.Errorf("%+v, %v", g, err)
	}
	_, err := s.Projects.Update(bg(), alice, p.ID, ProjectChange{Public: ptr(false)})
	must(t, err)
	s.session(visitor.ID, quire.SessionEnded)
	if got := s.row(visitor.ID).Reason; got != "Stopped by alice, who made the project private." {
		t.Errorf("%s", got)
	}
	s.eventually("the visitor's grant is revoked", func() bool { return s.gate.covers(grant) })
	if s.gate.renew(grant) != nil {
		t.Error("the visitor's grant is renewed")
	}
	if s.gate.renew(members) == nil {
		t.Error("a member's grant is not renewed")
	}
	if st := s.row(member.ID).State; st != quire.SessionRunning {
		t.Errorf("the member's session is %s", st)
	}
	_, err = s.Projects.ByName(bg(), eve, "alice", "data")
	want(t, "the visitor looks again", quire.KindNotFound, err)
}

// Two flushes at once may know different numbers. Whoever comes last, a link
// never hears a lower number than before, nor a revocation twice.
func TestFeedsNeverGoBack(t *testing.T) {
	l := &gatewayLink{down: make(chan quire.GatewayFeed, 9)}
	recent := []quire.Revocation{{Seq: 1}, {Seq: 2}, {Seq: 3}}
	for _, knows := range []int{1, 3, 2, 3} {
		l.flush(int64(knows), recent[:knows], time.Now())
	}
	close(l.down)
	var told []int64
	last := int64(0)
	for f := range l.down {
		if f.Seq < last {
			t.Errorf("%d after %d", f.Seq, last)
		}
		last = f.Seq
		for _, r := range f.Revocations {
			told = append(told, r.Seq)
		}
	}
	if !slices.Equal(told, []int64{1, 2, 3}) {
		t.Errorf("told: %v", told)
	}
}
