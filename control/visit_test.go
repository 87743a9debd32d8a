package control

import (
	"context"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"quire"
	"quire/ticket"
)

// pass is the grant in an address that Visit gave.
func (s *site) pass(address string) ticket.Grant {
	s.t.Helper()
	_, rest, _ := strings.Cut(address, "/~")
	text, _, _ := strings.Cut(rest, "/")
	raw, err := base64.RawURLEncoding.DecodeString(text)
	must(s.t, err)
	g, err := s.verify.Grant(raw)
	must(s.t, err)
	return g
}

// Whoever the site lets reads a public folder, of a private project too, by one
// session that is nobody's.
func TestVisit(t *testing.T) {
	s := newSite(t)
	alice, eve := s.person("alice"), s.person("eve")
	p := s.started(alice, "data")
	at, err := s.Sessions.Visit(bg(), eve, "Alice", "DATA", "/a.md?raw=1")
	must(t, err)
	if !strings.HasSuffix(at, "/visitor/a.md?raw=1") {
		t.Errorf("%s", at)
	}
	g := s.pass(at)
	if g.User == eve.User || g.Login != eve.Login || g.Role != quire.RoleViewer || g.Project != p.ID || !g.Grace.Equal(g.Expires) {
		t.Errorf("%+v", g)
	}
	if !strings.Contains(at, "//"+string(g.Label)+".") {
		t.Errorf("%s has another label than %s", at, g.Label)
	}
	again, err := s.Sessions.Visit(bg(), alice, "alice", "data", "/")
	must(t, err)
	if h := s.pass(again); h.User != g.User || h.Label != g.Label || h.Login != alice.Login {
		t.Errorf("another session: %+v", h)
	}
	// It gives nothing else, and nobody can act as the visitor.
	if _, err := s.Projects.ByName(bg(), eve, "alice", "data"); quire.KindOf(err) != quire.KindNotFound {
		t.Errorf("the project: %v", err)
	}
	if _, err := s.Sessions.Open(bg(), alice, p.ID, "visitor"); quire.KindOf(err) != quire.KindNotFound {
		t.Errorf("opened like another app: %v", err)
	}
	want(t, "into a team", quire.KindInvalid, s.Team.Set(bg(), alice, p.ID, "quire-visitor", quire.RoleEditor))
	_, err = s.Users.Create(bg(), s.person("root1", true), NewUser{Name: "Quire-Visitor", Password: password})
	want(t, "a person of that name", quire.KindInvalid, err)
	if names, err := s.Users.Complete(bg(), alice, "quire"); err != nil || len(names) != 0 {
		t.Errorf("completed: %v %v", names, err)
	}
	want(t, "nobody", quire.KindUnknown, visitError(s, quire.Nobody, "data"))
	want(t, "no such project", quire.KindNotFound, visitError(s, eve, "nothing"))
	// The grant is renewed for as long as the login lives.
	raw := s.signer.Grant(g)
	if s.gate.renew(raw) == nil {
		t.Error("not renewed")
	}
	must(t, s.Logins.Leave(bg(), eve))
	s.eventually("the grant ends with the login", func() bool { return s.gate.covers(raw) && s.gate.renew(raw) == nil })
	// A stopped project is read as well; a deleted one is not.
	must(t, s.Projects.Stop(bg(), alice, p.ID))
	s.settled(p.ID, quire.ProjectStopped)
	_, err = s.Sessions.Visit(bg(), alice, "alice", "data", "/")
	must(t, err)
	must(t, s.Projects.Delete(bg(), alice, p.ID, "data"))
	s.settled(p.ID, quire.ProjectDeleted)
	want(t, "a deleted project", quire.KindNotFound, visitError(s, alice, "data"))
}

func visitError(s *site, by quire.Actor, project string) error {
	_, err := s.Sessions.Visit(bg(), by, "alice", project, "/")
	return err
}

// Visitors keep only so many sessions, whatever they ask for.
func TestVisitorsAreBounded(t *testing.T) {
	s := newSite(t)
	s.crash()
	s.anonymous = true
	s.boot()
	s.up()
	alice := s.person("alice")
	for i := range maxVisiting + 3 {
		s.started(alice, fmt.Sprintf("data%d", i))
		must(t, visitError(s, quire.Nobody, fmt.Sprintf("data%d", i)))
	}
	s.eventually("the oldest are gone", func() bool {
		live, err := s.Sessions.Live(bg(), quireItself)
		return err == nil && len(live) == maxVisiting
	})
	must(t, visitError(s, quire.Nobody, "data0"))
	// What the node cannot start is said once, not tried by every visitor.
	s.node.mu.Lock()
	s.node.before = func(_ context.Context, o quire.Order) error {
		if o.Type == quire.OrderStart {
			return quire.Failed("There is no account.", nil)
		}
		return nil
	}
	s.node.mu.Unlock()
	for range 5 {
		want(t, "a visit", quire.KindUnavailable, visitError(s, quire.Nobody, "data1"))
	}
	s.node.mu.Lock()
	defer s.node.mu.Unlock()
	starts := 0
	for _, o := range s.node.orders {
		if o.Type == quire.OrderStart && o.App == "visitor" {
			starts++
		}
	}
	if starts > maxVisiting+3+1+1 {
		t.Errorf("%d starts", starts)
	}
}
