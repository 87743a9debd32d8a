package control

import (
	"context"
	"reflect"
	"strings"
	"testing"
	"time"

	"quire"
	"quire/store"
)

// cell is what a row of the matrix acts on. It is made anew after each change, so
// that no answer depends on what somebody else was allowed before.
type cell struct {
	*site
	by      quire.Actor
	project quire.Project // of "owner", running
	deleted quire.Project // of "owner", aside
	session quire.Session // of "owner", running
	victim  quire.Actor   // a viewer of the project
}

var letters = map[quire.Kind]rune{
	"": '.', quire.KindUnknown: 'u', quire.KindNotFound: 'n', quire.KindForbidden: 'f', quire.KindInvalid: 'i', quire.KindConflict: 'c',
}

// row is one thing to ask of control. The answers are in the order of columns:
// "." is yes, "u" sign in first, "n" no such thing, "f" not with your role.
type row struct {
	name            string // Noun.Method, then what
	ask             func(c *cell) error
	private, public string // public "": the same, as the project does not matter
}

var columns = []string{"nobody", "stranger", "viewer", "editor", "owner", "admin"}

func rows() []row {
	own := func(c *cell) quire.Label { return c.label(quire.Actor{User: c.someone()}, c.project.ID) }
	ask := func(l quire.Label) Ask { return Ask{Label: l, Nonce: nonceHash(), Path: "/"} }
	return []row{
		{"Users.NewSetupLink", func(c *cell) error { _, err := c.Users.NewSetupLink(bg(), c.by); return err }, "uffff.", ""},
		{"Users.Create", func(c *cell) error {
			_, err := c.Users.Create(bg(), c.by, NewUser{Name: "n" + string(quire.NewUserID())[2:], Password: password})
			return err
		}, "uffff.", ""},
		{"Users.List", func(c *cell) error { _, err := c.Users.List(bg(), c.by); return err }, "uffff.", ""},
		{"Users.ByName", func(c *cell) error { _, err := c.Users.ByName(bg(), c.by, "owner"); return err }, "u.....", ""},
		{"Users.Complete", func(c *cell) error { _, err := c.Users.Complete(bg(), c.by, "o"); return err }, "u.....", ""},
		{"Users.Update his words", func(c *cell) error {
			_, err := c.Users.Update(bg(), c.by, c.by.User, UserChange{FullName: ptr("x")})
			return err
		}, "u.....", ""},
		{"Users.Update somebody's words", func(c *cell) error {
			_, err := c.Users.Update(bg(), c.by, c.victim.User, UserChange{FullName: ptr("x")})
			return err
		}, "uffff.", ""},
		{"Users.Update his own rights", func(c *cell) error {
			_, err := c.Users.Update(bg(), c.by, c.by.User, UserChange{Admin: ptr(true)})
			return err
		}, "uffff.", ""},
		{"Users.SetPassword without the old one", func(c *cell) error {
			_, err := c.Users.SetPassword(bg(), c.by, "wrong", password, from("x"+string(quire.NewUserID())))
			return err
		}, "uiiiii", ""},
		{"Logins.Leave", func(c *cell) error { return c.Logins.Leave(bg(), c.by) }, "......", ""},
		{"Logins.LeaveAll", func(c *cell) error { return c.Logins.LeaveAll(bg(), c.by) }, "u.....", ""},
		{"Logins.List", func(c *cell) error { _, err := c.Logins.List(bg(), c.by); return err }, "u.....", ""},
		{"Logins.End his own", func(c *cell) error { return c.Logins.End(bg(), c.by, c.by.Login) }, "u.....", ""},
		{"Logins.End somebody's", func(c *cell) error { return c.Logins.End(bg(), c.by, c.victim.Login) }, "unnnnn", ""},

		{"Projects.Create", func(c *cell) error {
			_, err := c.Projects.Create(bg(), c.by, NewProject{Name: "n" + string(quire.NewUserID())[2:]})
			return err
		}, "u.....", ""},
		{"Projects.ByName", func(c *cell) error { _, err := c.Projects.ByName(bg(), c.by, "owner", c.project.Name); return err }, "un....", "u....."},
		{"Projects.List mine", func(c *cell) error { _, err := c.Projects.List(bg(), c.by, Mine); return err }, "u.....", ""},
		{"Projects.List contributing", func(c *cell) error { _, err := c.Projects.List(bg(), c.by, Contributing); return err }, "u.....", ""},
		{"Projects.List public", func(c *cell) error { _, err := c.Projects.List(bg(), c.by, Public); return err }, "u.....", ""},
		{"Projects.List deleted", func(c *cell) error { _, err := c.Projects.List(bg(), c.by, Deleted); return err }, "u.....", ""},
		{"Projects.Update its words", func(c *cell) error {
			_, err := c.Projects.Update(bg(), c.by, c.project.ID, ProjectChange{Summary: ptr("x")})
			return err
		}, "unf..f", "uff..f"},
		{"Projects.Update its switch", func(c *cell) error {
			_, err := c.Projects.Update(bg(), c.by, c.project.ID, ProjectChange{Public: ptr(!c.project.Public)})
			return err
		}, "unff..", "ufff.."},
		{"Projects.Star", func(c *cell) error { return c.Projects.Star(bg(), c.by, c.project.ID, true) }, "un....", "u....."},
		{"Projects.Start", func(c *cell) error { return c.Projects.Start(bg(), c.by, c.project.ID) }, "unf..f", "uff..f"},
		{"Projects.Stop", func(c *cell) error { return c.Projects.Stop(bg(), c.by, c.project.ID) }, "unf...", "uff..."},
		{"Projects.Reset", func(c *cell) error { return c.Projects.Reset(bg(), c.by, c.project.ID) }, "unf..f", "uff..f"},
		{"Projects.Delete", func(c *cell) error { return c.Projects.Delete(bg(), c.by, c.project.ID, c.project.Name) }, "unff..", "ufff.."},
		{"Projects.Restore", func(c *cell) error { return c.Projects.Restore(bg(), c.by, c.deleted.ID) }, "unnn..", "unnn.."},

		{"Moves.Targets", func(c *cell) error { _, err := c.Moves.Targets(bg(), c.by, c.project.ID); return err }, "unff..", "ufff.."},
		{"Moves.Begin", func(c *cell) error { return c.Moves.Begin(bg(), c.by, c.project.ID, "", "") }, "unffii", "ufffii"}, // there is no other node
		{"Moves.Cancel", func(c *cell) error { return c.Moves.Cancel(bg(), c.by, c.project.ID) }, "unffcc", "ufffcc"},

		{"Team.List", func(c *cell) error { _, err := c.Team.List(bg(), c.by, c.project.ID); return err }, "un....", "u....."},
		{"Team.Disk", func(c *cell) error { _, err := c.Team.Disk(bg(), c.by, c.project.ID); return err }, "un....", "u....."},
		{"Team.Check", func(c *cell) error { _, err := c.Team.Check(bg(), c.by, c.project.ID); return err }, "unfccc", "uffccc"},
		{"Team.Authors", func(c *cell) error { _, err := c.Team.Authors(bg(), c.by, c.project.ID); return err }, "unffcc", "ufffcc"},
		{"Team.TakeOver", func(c *cell) error { return c.Team.TakeOver(bg(), c.by, c.project.ID, 20007) }, "unffcc", "ufffcc"},
		{"Team.Repair", func(c *cell) error { return c.Team.Repair(bg(), c.by, c.project.ID) }, "unf..f", "uff..f"},
		{"Team.Why", func(c *cell) error { _, err := c.Team.Why(bg(), c.by, c.project.ID, c.victim.Name, "f"); return err }, "unfccc", "uffccc"},
		{"Projects.Moved", func(c *cell) error { _, err := c.Projects.Moved(bg(), c.by, "owner", "nothing"); return err }, "unnnnn", ""},
		{"Team.Set", func(c *cell) error { return c.Team.Set(bg(), c.by, c.project.ID, c.victim.Name, quire.RoleEditor) }, "unff..", "ufff.."},
		{"Team.Remove", func(c *cell) error { return c.Team.Remove(bg(), c.by, c.project.ID, c.victim.Name) }, "unff..", "ufff.."},
		{"Team.Remove himself", func(c *cell) error { return c.Team.Remove(bg(), c.by, c.project.ID, c.by.Name) }, "un..in", "un..in"},

		{"Team.HandOver", func(c *cell) error { return c.Team.HandOver(bg(), c.by, c.project.ID, c.victim.Name) }, "unff..", "ufff.."},
		{"Team.Disk", func(c *cell) error { _, err := c.Team.Disk(bg(), c.by, c.project.ID); return err }, "un....", "u....."},
		{"Team.Check", func(c *cell) error { _, err := c.Team.Check(bg(), c.by, c.project.ID); return err }, "unfccc", "uffccc"}, // one account: nothing to check

		{"Sessions.Apps", func(c *cell) error { _, err := c.Sessions.Apps(bg(), c.by, c.project.ID); return err }, "un....", "u....."},
		{"Sessions.Open what writes", func(c *cell) error { _, err := c.Sessions.Open(bg(), c.by, c.project.ID, "terminal"); return err }, "unf..f", "uff..f"},
		{"Sessions.Open what reads", func(c *cell) error { _, err := c.Sessions.Open(bg(), c.by, c.project.ID, "viewer"); return err }, "un...f", "u....."},
		{"Sessions.Find what writes", func(c *cell) error {
			_, err := c.Sessions.Find(bg(), c.by, c.project.ID, "terminal", "/")
			return err
		}, "unf..f", "uff..f"},
		{"Sessions.Find what reads", func(c *cell) error { _, err := c.Sessions.Find(bg(), c.by, c.project.ID, "viewer", "/"); return err }, "un...f", "u....."},
		{"Sessions.HandOff his own label", func(c *cell) error { _, err := c.Sessions.HandOff(bg(), c.by, ask(own(c))); return err }, "un...n", "u....."},
		{"Sessions.HandOff the owner's label", func(c *cell) error {
			_, err := c.Sessions.HandOff(bg(), c.by, ask(c.label(quire.Actor{User: c.session.User}, c.project.ID)))
			return err
		}, "unnn.n", "unnn.n"},
		{"Sessions.Visit", func(c *cell) error {
			_, err := c.Sessions.Visit(bg(), c.by, "owner", c.project.Name, "/")
			return err
		}, "unnnnn", "unnnnn"}, // nothing is on disk yet
		{"Sessions.List", func(c *cell) error { _, err := c.Sessions.List(bg(), c.by, c.project.ID); return err }, "un....", "u....."},
		{"Sessions.Stop the owner's", func(c *cell) error { return c.Sessions.Stop(bg(), c.by, c.session.ID) }, "nnf...", "nff..."},
		{"Sessions.Log the owner's", func(c *cell) error { _, err := c.Sessions.Log(bg(), c.by, c.session.ID); return err }, "nnnn.n", "nnnn.n"},
		{"Sessions.Timeline", func(c *cell) error { _, err := c.Sessions.Timeline(bg(), c.by, c.project.ID); return err }, "un....", "u....."},
		{"Sessions.Live", func(c *cell) error { _, err := c.Sessions.Live(bg(), c.by); return err }, "uffff.", ""},
		{"Sessions.StopAll", func(c *cell) error {
			ctx, cancel := context.WithTimeout(bg(), 30*time.Second)
			defer cancel()
			_, err := c.Sessions.StopAll(ctx, c.by)
			return err
		}, "uffff.", ""},

		{"Site.Join", func(c *cell) error { return c.Site.Join(bg(), c.by, c.dc, c.record) }, "uffff.", ""},
		{"Site.NewToken", func(c *cell) error {
			_, _, err := c.Site.NewToken(bg(), c.by, quire.JoinToken{Role: quire.JoinCompute, DataCenter: c.dc.ID}, 0)
			return err
		}, "uffff.", ""},
		{"Site.Tokens", func(c *cell) error { _, err := c.Site.Tokens(bg(), c.by); return err }, "uffff.", ""},
		{"Site.RevokeToken", func(c *cell) error { return c.Site.RevokeToken(bg(), c.by, "none") }, "uffffn", ""},
		{"Site.ChangeNode", func(c *cell) error { return c.Site.ChangeNode(bg(), c.by, c.record.ID, NodeChange{Note: ptr("x")}) }, "uffff.", ""},
		{"Site.ChangeCenter", func(c *cell) error {
			return c.Site.ChangeCenter(bg(), c.by, c.dc.ID, CenterChange{Summary: ptr("x")})
		}, "uffff.", ""},
		{"Site.Remove", func(c *cell) error { return c.Site.Remove(bg(), c.by, c.dc.Gateway) }, "uffffc", ""},
		{"Rotation.Begin", func(c *cell) error { return c.Rotation.Begin(bg(), c.by) }, "uffff.", ""},
		{"Rotation.State", func(c *cell) error { _, err := c.Rotation.State(bg(), c.by); return err }, "uffff.", ""},
		{"Rotation.Finish", func(c *cell) error { _, err := c.Rotation.Finish(bg(), c.by, false); return err }, "uffffc", ""},
		{"Site.DataCenters", func(c *cell) error { _, err := c.Site.DataCenters(bg(), c.by); return err }, "u.....", ""},
		{"Site.Nodes", func(c *cell) error { _, err := c.Site.Nodes(bg(), c.by); return err }, "u.....", ""},
		{"Site.Waiting", func(c *cell) error { _, err := c.Site.Waiting(bg(), c.by); return err }, "uffff.", ""},
		{"Site.Watch everything", func(c *cell) error { _, err := c.Site.Watch(c.t.Context(), c.by, ""); return err }, "u.....", ""},
		{"Site.Watch the project", func(c *cell) error { _, err := c.Site.Watch(c.t.Context(), c.by, c.project.ID); return err }, "un....", "u....."},

		{"Events.OfProject", func(c *cell) error { _, err := c.Events.OfProject(bg(), c.by, c.project.ID, 0, 9); return err }, "un....", "uf...."},
		{"Events.OfMachines", func(c *cell) error { _, err := c.Events.OfMachines(bg(), c.by, 0, 10); return err }, "uffff.", ""},
		{"Events.Mine", func(c *cell) error { _, err := c.Events.Mine(bg(), c.by, 0, 9); return err }, "u.....", ""},
	}
}

// actorless are methods that are asked before it is known who asks.
var actorless = map[string]bool{
	"Users.SetupNeeded": true, "Users.CheckSetup": true, "Users.Setup": true,
	"Site.Accept": true, "Logins.Enter": true, "Logins.Resolve": true, "Logins.MayWrite": true, "Logins.FormToken": true, "Logins.CheckFormToken": true,
}

// Every exported method has a row, and takes who asks right after the context.
func TestEveryMethodIsInTheMatrix(t *testing.T) {
	have := map[string]bool{}
	for _, r := range rows() {
		name, _, _ := strings.Cut(r.name, " ")
		have[name] = true
	}
	control := reflect.TypeFor[Control]()
	actor := reflect.TypeFor[quire.Actor]()
	for i := range control.NumField() {
		noun := control.Field(i)
		if !noun.IsExported() {
			continue
		}
		for j := range noun.Type.NumMethod() {
			m := noun.Type.Method(j)
			name := noun.Name + "." + m.Name
			if actorless[name] {
				continue
			}
			if !have[name] {
				t.Errorf("%s has no row in the matrix: say who may", name)
			}
			if m.Type.NumIn() < 3 || m.Type.In(2) != actor {
				t.Errorf("%s does not take who asks after the context", name)
			}
			delete(have, name)
		}
	}
	for name := range have {
		t.Errorf("the matrix asks %s, which does not exist", name)
	}
}

// reading reports whether a method leaves the cell as it was, also when it is
// allowed. What is not known here is taken to change it.
func reading(name string) bool {
	for _, m := range []string{
		"Users.", "Logins.List", "Projects.Create", "Projects.ByName", "Projects.List", "Projects.Star", "Team.List", "Team.Disk", "Team.Check",
		"Sessions.Apps", "Sessions.Find", "Sessions.HandOff", "Sessions.List", "Sessions.Log", "Sessions.Timeline", "Sessions.Live", "Site.", "Events.",
	} {
		if strings.HasPrefix(name, m) {
			return true
		}
	}
	return false
}

// Role by method: every cell, on a private and on a public project.
func TestMatrix(t *testing.T) {
	s := newSite(t)
	for _, name := range columns[1:] {
		if name == "admin" { // a page's word cannot be a name
			s.person("chief", true)
		} else {
			s.person(name)
		}
	}
	m := &cell{site: s, victim: s.person("victim")}
	actors := map[string]quire.Actor{"nobody": quire.Nobody}
	n := 0
	for _, public := range []bool{false, true} {
		m.renew(public)
		for _, r := range rows() {
			expected := r.private
			if public {
				expected = r.public
			}
			if expected == "" {
				continue
			}
			if len(expected) != len(columns) {
				t.Fatalf("%s: %q", r.name, expected)
			}
			got := ""
			for _, role := range columns {
				by, known := actors[role]
				if !known {
					by, _ = s.enter(strings.Replace(role, "admin", "chief", 1))
					actors[role] = by
				}
				m.by = by
				err := r.ask(m)
				n++
				letter, ok := letters[quire.KindOf(err)]
				if !ok {
					t.Errorf("%s asks %s: %v", role, r.name, err)
					letter = '!'
				}
				got += string(letter)
				switch {
				case err != nil || reading(r.name):
				case strings.HasPrefix(r.name, "Logins.") && by.User != "":
					delete(actors, role)
				default:
					m.renew(public)
				}
			}
			if got != expected {
				t.Errorf("%s, public %v: %s, want %s (%s)", r.name, public, got, expected, strings.Join(columns, ", "))
			}
		}
	}
	t.Logf("%d cells", n)
}

// someone is the account behind a column; nobody borrows the stranger's.
func (c *cell) someone() quire.UserID {
	if c.by.User != "" {
		return c.by.User
	}
	var u quire.User
	c.tx(func(tx *store.Tx) (err error) { u, err = tx.UserByName("stranger"); return err })
	return u.ID
}

// renew makes the projects and the session of a cell anew.
func (c *cell) renew(public bool) {
	c.t.Helper()
	c.tx(func(tx *store.Tx) error {
		owner, err := tx.UserByName("owner")
		if err != nil {
			return err
		}
		project := func(state quire.ProjectState) quire.Project {
			id := quire.NewProjectID()
			return quire.Project{
				ID: id, Owner: owner.ID, OwnerName: "owner", Name: "p" + string(id)[2:], Public: public, DataCenter: c.dc.ID, Node: c.record.ID,
				Dir: "/projects/owner/" + string(id), State: state, Created: tx.Now, Changed: tx.Now,
			}
		}
		c.project, c.deleted = project(quire.ProjectRunning), project(quire.ProjectDeleted)
		for _, p := range []quire.Project{c.project, c.deleted} {
			if err := tx.AddProject(p); err != nil {
				return err
			}
			for name, role := range map[string]quire.Role{"viewer": quire.RoleViewer, "editor": quire.RoleEditor, "victim": quire.RoleViewer} {
				u, err := tx.UserByName(name)
				if err != nil {
					return err
				}
				if err := tx.SetMember(p.ID, u.ID, role); err != nil {
					return err
				}
			}
		}
		if err := tx.MarkDeleted(c.deleted.ID, true); err != nil {
			return err
		}
		if _, err := tx.Label(owner.ID, c.project.ID); err != nil {
			return err
		}
		c.session = quire.Session{ID: quire.NewSessionID(), User: owner.ID, Project: c.project.ID, App: "notebook", Node: c.record.ID, State: quire.SessionRunning, Created: tx.Now}
		return tx.AddSession(c.session)
	})
}

// Things of one project cannot be reached by way of another, nor by words that
// are no identities (A-07 in words).
func TestOtherPeoplesIdentities(t *testing.T) {
	s := newSite(t)
	alice, eve := s.person("alice"), s.person("eve")
	p, theirs := s.started(alice, "data"), s.project(eve, "hers")
	one := s.open(alice, p, "notebook")
	for _, id := range []quire.ProjectID{p.ID, "", "p_x", quire.ProjectID(one.ID), "' OR 1=1 --", "%", quire.ProjectID(strings.ToUpper(string(theirs.ID)))} {
		for name, err := range map[string]error{
			"start":  s.Projects.Start(bg(), eve, id),
			"stop":   s.Projects.Stop(bg(), eve, id),
			"delete": s.Projects.Delete(bg(), eve, id, "data"),
			"team":   s.Team.Set(bg(), eve, id, "eve", quire.RoleEditor),
			"star":   s.Projects.Star(bg(), eve, id, true),
		} {
			want(t, name+" "+string(id), quire.KindNotFound, err)
		}
		_, err := s.Sessions.List(bg(), eve, id)
		want(t, "sessions of "+string(id), quire.KindNotFound, err)
	}
	for _, id := range []quire.SessionID{one.ID, "", "s_x", quire.SessionID(p.ID), "' OR 1=1 --"} {
		want(t, "stop "+string(id), quire.KindNotFound, s.Sessions.Stop(bg(), eve, id))
		_, err := s.Sessions.Log(bg(), eve, id)
		want(t, "log of "+string(id), quire.KindNotFound, err)
	}
	if got := s.row(one.ID); got.State != quire.SessionRunning {
		t.Errorf("%+v", got)
	}
	es, err := s.Events.Mine(bg(), eve, 0, 1000)
	must(t, err)
	for _, e := range es {
		if e.Actor != eve.User {
			t.Errorf("%+v", e)
		}
	}
	es, err = s.Events.OfProject(bg(), alice, p.ID, 0, -5)
	if err != nil || len(es) != 1 || es[0].Address != "" {
		t.Errorf("%+v, %v", es, err)
	}
	// What a node says of itself is for administrators.
	for by, secret := range map[quire.Actor]bool{alice: false, s.person("chief", true): true} {
		ns, err := s.Site.Nodes(bg(), by)
		if err != nil || !ns[0].Up || (len(ns[0].Health.Messages) > 0) != secret || (ns[0].Address != "") != secret {
			t.Errorf("%s: %+v, %v", by.Name, ns, err)
		}
	}
}

// A second Control cannot be made with a grace beyond what revocations are kept
// for.
func TestGraceIsBounded(t *testing.T) {
	s := newSite(t)
	for grace, ok := range map[time.Duration]bool{0: true, MaxGrace: true, -1: false, MaxGrace + 1: false} {
		_, err := New(Config{Store: s.store, Signer: s.signer, Origins: s.origins, Fleet: fleet{s}, Accounts: OneAccount("quire", 999), Grace: grace})
		if (err == nil) != ok {
			t.Errorf("%v: %v", grace, err)
		}
	}
}
