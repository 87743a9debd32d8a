package control

import (
	"strings"
	"sync"
	"testing"
	"time"

	"quire"
	"quire/store"
)

// The first start: a link, used once, gives an administrator who is signed in
// and a project that starts by itself.
func TestSetup(t *testing.T) {
	s := newSite(t)
	if needed, err := s.Users.SetupNeeded(bg()); !needed || err != nil {
		t.Errorf("%v, %v", needed, err)
	}
	link, err := s.Users.NewSetupLink(bg(), quireItself)
	must(t, err)
	if len(link) < 50 {
		t.Errorf("a secret of %d characters", len(link))
	}
	for _, bad := range []string{"", "x", link + "a", link[:51], strings.ToUpper(link)} {
		want(t, "another secret", quire.KindNotFound, s.Users.CheckSetup(bg(), bad))
		_, _, err := s.Users.Setup(bg(), bad, "chief", password, from(home))
		want(t, "set-up with another secret", quire.KindNotFound, err)
	}
	if n := s.core.hasher.Made(); n != 0 {
		t.Errorf("strangers made us hash %d passwords", n)
	}
	must(t, s.Users.CheckSetup(bg(), link))
	for name, c := range map[string][2]string{"a page's name": {"admin", password}, "a weak password": {"chief", "short"}} {
		_, _, err := s.Users.Setup(bg(), link, c[0], c[1], from(home))
		want(t, name, quire.KindInvalid, err)
	}
	must(t, s.Users.CheckSetup(bg(), link)) // a mistake does not cost the link

	in, p, err := s.Users.Setup(bg(), link, "Chief", password, from(home))
	must(t, err)
	by, err := s.Logins.Resolve(bg(), in.Read)
	if err != nil || !by.Admin || by.Name != "Chief" || !s.Logins.MayWrite(bg(), in.Read, in.Write) {
		t.Errorf("%+v, %v", by, err)
	}
	if p.Name != "Welcome" || p.Role != quire.RoleOwner || p.Public {
		t.Errorf("%+v", p)
	}
	s.settled(p.ID, quire.ProjectRunning)
	if s.node.acted(quire.OrderSkeleton) != 1 {
		t.Error("it has no files")
	}
	if needed, err := s.Users.SetupNeeded(bg()); needed || err != nil {
		t.Errorf("%v, %v", needed, err)
	}
	want(t, "the link again", quire.KindNotFound, s.Users.CheckSetup(bg(), link))
	_, _, err = s.Users.Setup(bg(), link, "second", password, from(home))
	want(t, "set-up again", quire.KindNotFound, err)

	// A further administrator has no project given, and cannot take a name.
	link, err = s.Users.NewSetupLink(bg(), by)
	must(t, err)
	_, _, err = s.Users.Setup(bg(), link, "cHIEF", password, from(home))
	want(t, "a name that is taken", quire.KindConflict, err)
	in, p, err = s.Users.Setup(bg(), link, "second", password, from(home))
	if err != nil || p.ID != "" || !in.User.Admin {
		t.Errorf("%+v, %+v, %v", in, p, err)
	}
	// A link that is over.
	s.tx(func(tx *store.Tx) error { return tx.AddSetupLink(hash("old"), tx.Now.Add(-time.Second).UnixMilli()) })
	want(t, "a link that is over", quire.KindNotFound, s.Users.CheckSetup(bg(), "old"))
}

func TestSetupOnceInParallel(t *testing.T) {
	s := newSite(t)
	link, err := s.Users.NewSetupLink(bg(), quireItself)
	must(t, err)
	results := make(chan error, 8)
	for i := range 8 {
		go func() {
			_, _, err := s.Users.Setup(bg(), link, "chief"+string(rune('a'+i)), password, from(home))
			results <- err
		}()
	}
	won := 0
	for range 8 {
		switch err := <-results; quire.KindOf(err) {
		case "":
			won++
		case quire.KindNotFound:
		default:
			t.Error(err)
		}
	}
	if won != 1 {
		t.Errorf("%d administrators from one link", won)
	}
}

// A server that stands alone gets its administrator first and its nodes from him;
// there is nowhere for the first project.
func TestSetupBeforeThereIsANode(t *testing.T) {
	s := newSite(t)
	other := &site{t: t, file: t.TempDir() + "/quire.db", clock: &clock{}, signer: s.signer, verify: s.verify, origins: s.origins, authority: s.authority}
	other.node, other.gate = newMachine(other), newDoor(other)
	other.boot()
	defer other.crash()
	link, err := other.Users.NewSetupLink(bg(), quireItself)
	must(t, err)
	in, p, err := other.Users.Setup(bg(), link, "chief", password, from(home))
	if must(t, err); p.ID != "" {
		t.Errorf("a project on no node: %+v", p)
	}
	by, err := other.Logins.Resolve(bg(), in.Read)
	if must(t, err); !by.Admin {
		t.Errorf("he is %+v", by)
	}
	_, err = other.Projects.Create(bg(), by, NewProject{Name: "P"})
	want(t, "a project on no node", quire.KindUnavailable, err)
}

func TestCreateUsers(t *testing.T) {
	s := newSite(t)
	chief := s.person("chief", true)
	u, err := s.Users.Create(bg(), chief, NewUser{Name: "Alice", FullName: " Alice A. ", Email: " a@x ", Password: password})
	must(t, err)
	if u.Name != "Alice" || u.FullName != "Alice A." || u.Email != "a@x" || u.Admin || !quire.ValidID('u', string(u.ID)) {
		t.Errorf("%+v", u)
	}
	for name, n := range map[string]NewUser{
		"other capitals": {Name: "aLICE", Password: password}, "the same": {Name: "Alice", Password: password},
	} {
		_, err := s.Users.Create(bg(), chief, n)
		want(t, name, quire.KindConflict, err)
	}
	for name, n := range map[string]NewUser{
		"reserved": {Name: "login", Password: password}, "digits": {Name: "1234", Password: password}, "look-alike": {Name: "alic\u0435", Password: password},
		"space": {Name: "alice ", Password: password}, "password": {Name: "bob", Password: "bob"}, "path": {Name: "..", Password: password},
	} {
		_, err := s.Users.Create(bg(), chief, n)
		want(t, name, quire.KindInvalid, err)
	}
	in, err := s.Logins.Enter(bg(), "alice", password, from(home))
	must(t, err)
	alice, err := s.Logins.Resolve(bg(), in.Read)
	must(t, err)

	// Everybody finds everybody; the address is for the person and administrators.
	bob := s.person("bob")
	for _, c := range []struct {
		by   quire.Actor
		name string
		mail string
	}{{alice, "alice", "a@x"}, {bob, "ALICE", ""}, {chief, "alice", "a@x"}, {alice, "bob", ""}} {
		got, err := s.Users.ByName(bg(), c.by, c.name)
		if err != nil || got.Email != c.mail {
			t.Errorf("%s looks at %s: %+v, %v", c.by.Name, c.name, got, err)
		}
	}
	_, err = s.Users.ByName(bg(), alice, "mallory")
	want(t, "nobody of that name", quire.KindNotFound, err)
	names, err := s.Users.Complete(bg(), alice, "A")
	if err != nil || len(names) != 1 || names[0] != "Alice" {
		t.Errorf("%v, %v", names, err)
	}
	all, err := s.Users.List(bg(), chief)
	if err != nil || len(all) != 3 {
		t.Errorf("%v, %v", all, err)
	}
}

func TestUpdateUsers(t *testing.T) {
	s := newSite(t)
	alice, bob, chief := s.person("alice"), s.person("bob"), s.person("chief", true)
	u, err := s.Users.Update(bg(), alice, alice.User, UserChange{FullName: ptr(" Alice "), Email: ptr("a@x")})
	if err != nil || u.FullName != "Alice" || u.Email != "a@x" {
		t.Errorf("%+v, %v", u, err)
	}
	for name, c := range map[string]struct {
		by quire.Actor
		id quire.UserID
		ch UserChange
	}{
		"somebody else's words":   {alice, bob.User, UserChange{FullName: ptr("x")}},
		"made an administrator":   {alice, alice.User, UserChange{Admin: ptr(true)}},
		"kept no administrator":   {alice, alice.User, UserChange{Admin: ptr(false)}},
		"disabled himself":        {alice, alice.User, UserChange{Disabled: ptr(true)}},
		"enabled himself":         {alice, alice.User, UserChange{Disabled: ptr(false)}},
		"disabled somebody":       {alice, bob.User, UserChange{Disabled: ptr(true)}},
		"somebody who is nobody":  {alice, "u_x", UserChange{}},
		"all of it in one change": {alice, alice.User, UserChange{FullName: ptr("x"), Admin: ptr(true)}},
	} {
		_, err := s.Users.Update(bg(), c.by, c.id, c.ch)
		want(t, name, quire.KindForbidden, err)
	}
	_, err = s.Users.Update(bg(), quire.Nobody, "", UserChange{FullName: ptr("x")})
	want(t, "nobody", quire.KindUnknown, err)
	_, err = s.Users.Update(bg(), alice, alice.User, UserChange{FullName: ptr(strings.Repeat("x", 201))})
	want(t, "too long", quire.KindInvalid, err)
	_, err = s.Users.Update(bg(), chief, "u_x", UserChange{})
	want(t, "somebody who is nobody", quire.KindNotFound, err)

	// Raising ends nothing; lowering ends every login.
	_, err = s.Users.Update(bg(), chief, bob.User, UserChange{Admin: ptr(true)})
	must(t, err)
	bob, in := s.enter("bob")
	if !bob.Admin {
		t.Errorf("%+v", bob)
	}
	_, err = s.Users.Update(bg(), chief, bob.User, UserChange{Admin: ptr(false)})
	must(t, err)
	_, err = s.Logins.Resolve(bg(), in.Read)
	want(t, "a login from before", quire.KindUnknown, err)
	_, err = s.Users.Update(bg(), bob, bob.User, UserChange{Admin: ptr(true)}) // with the rights of before
	want(t, "a request from before", quire.KindUnknown, err)
	if u, err := s.Users.ByName(bg(), chief, "bob"); err != nil || u.Admin {
		t.Errorf("%+v, %v", u, err)
	}
}

// A disabled person is out, everywhere and at once, and can come back.
func TestDisable(t *testing.T) {
	s := newSite(t)
	alice, chief := s.person("alice"), s.person("chief", true)
	p := s.started(alice, "data")
	one := s.open(alice, p, "notebook")
	_, in := s.enter("alice")
	_, err := s.Users.Update(bg(), chief, alice.User, UserChange{Disabled: ptr(true)})
	must(t, err)
	_, err = s.Logins.Resolve(bg(), in.Read)
	want(t, "his cookie", quire.KindUnknown, err)
	_, err = s.Logins.Enter(bg(), "alice", password, from(home))
	want(t, "his password", quire.KindUnknown, err)
	s.session(one.ID, quire.SessionEnded)
	if st := s.node.state(one.ID); st != quire.SessionEnded {
		t.Errorf("on the node it is %q", st)
	}
	want(t, "added to a team", quire.KindInvalid, s.Team.Set(bg(), chief, p.ID, "alice", quire.RoleEditor))
	if names, err := s.Users.Complete(bg(), chief, "al"); err != nil || len(names) != 0 {
		t.Errorf("offered: %v, %v", names, err)
	}
	_, err = s.Users.Update(bg(), chief, alice.User, UserChange{Disabled: ptr(false)})
	must(t, err)
	_, err = s.Logins.Enter(bg(), "alice", password, from(home))
	must(t, err)
	_, err = s.Logins.Resolve(bg(), in.Read)
	want(t, "his old cookie", quire.KindUnknown, err)
}

// The last administrator stays one, whatever he or others try at once.
func TestLastAdministrator(t *testing.T) {
	s := newSite(t)
	a := s.person("a", true)
	for name, ch := range map[string]UserChange{"removed": {Admin: ptr(false)}, "disabled": {Disabled: ptr(true)}, "both": {Admin: ptr(false), Disabled: ptr(true)}} {
		_, err := s.Users.Update(bg(), a, a.User, ch)
		want(t, name, quire.KindConflict, err)
	}
	for range 10 {
		b := s.person("b"+string(quire.NewUserID())[2:10], true)
		a, _ = s.enter("a")
		var wg sync.WaitGroup
		for _, c := range [][2]quire.Actor{{a, b}, {b, a}, {a, a}, {b, b}} {
			wg.Go(func() { s.Users.Update(bg(), c[0], c[1].User, UserChange{Admin: ptr(false)}) })
		}
		wg.Wait()
		var left []quire.User
		must(t, s.store.Read(bg(), func(tx *store.Tx) (err error) { left, err = tx.Users(); return err }))
		admins := 0
		for _, u := range left {
			if u.Admin && !u.Disabled {
				admins++
			}
		}
		if admins < 1 {
			t.Fatal("nobody is an administrator")
		}
		s.tx(func(tx *store.Tx) error { // for the next round
			for _, u := range left {
				u.Admin = u.ID == a.User
				if err := tx.SaveUser(u); err != nil {
					return err
				}
			}
			return nil
		})
	}
}
