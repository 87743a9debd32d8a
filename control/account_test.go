package control

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"quire"
	"quire/store"
)

func (s *site) assign(a Accounts, u quire.User) (got Account, err error) {
	err = s.core.write(bg(), quireItself, func(tx *txn) error { got, err = a.of(tx, u); return err })
	return got, err
}

// Numbers come from the range, one after the other, and a person keeps hers.
func TestMadeAccounts(t *testing.T) {
	s := newSite(t)
	a := MadeAccounts(20000, 20003)
	user := func(name string) quire.User {
		u := quire.User{ID: quire.NewUserID(), Name: name, Created: s.clock.now()}
		must(t, s.store.Write(bg(), func(tx *store.Tx) error { return tx.AddUser(u, "phc") }))
		return u
	}
	alice, digits := user("Alice.B-c"), user("1234")
	for range 2 {
		if got, err := s.assign(a, alice); err != nil || got != (Account{Name: "Alice.B-c", UID: 20000}) {
			t.Errorf("%+v %v", got, err)
		}
	}
	if got, err := s.assign(a, digits); err != nil || got != (Account{Name: "u1234", UID: 20001}) {
		t.Errorf("%+v %v", got, err)
	}
	// Whose name is taken by somebody's account gets another.
	if got, err := s.assign(a, user("u1234")); err != nil || got != (Account{Name: "u1234-2", UID: 20002}) {
		t.Errorf("%+v %v", got, err)
	}
	// The person is gone, a new one has her name: nothing of hers is his.
	ghost := quire.User{ID: quire.NewUserID(), Name: "Alice.B-c"}
	if got, err := s.assign(a, ghost); err != nil || got != (Account{Name: "Alice.B-c-2", UID: 20003}) {
		t.Errorf("%+v %v", got, err)
	}
	if _, err := s.assign(a, user("late")); err == nil || !strings.Contains(quire.AsError(err).Message, "uid_range") {
		t.Errorf("beyond the range: %v", err)
	}
	long := strings.Repeat("9", 32)
	if got, err := s.assign(MadeAccounts(30000, 40000), user(long)); err != nil || len(got.Name) > 32 || got.Name[0] != 'u' {
		t.Errorf("%+v %v", got, err)
	}
}

// F-10: the last person that an access list has room for is in, the next one is
// told what to do instead.
func TestTeamIsFull(t *testing.T) {
	s := newSite(t)
	owner, last, next := s.person("owner"), s.person("last"), s.person("next")
	p := s.project(owner, "data")
	must(t, s.store.Write(bg(), func(tx *store.Tx) error {
		for i := range quire.MaxTeam - 2 {
			u := quire.User{ID: quire.NewUserID(), Name: fmt.Sprintf("m%d", i), Created: s.clock.now()}
			if err := errors.Join(tx.AddUser(u, "phc"), tx.SetMember(p.ID, u.ID, quire.RoleViewer)); err != nil {
				return err
			}
		}
		return nil
	}))
	must(t, s.Team.Set(bg(), owner, p.ID, last.Name, quire.RoleEditor))
	err := s.Team.Set(bg(), owner, p.ID, next.Name, quire.RoleEditor)
	if quire.KindOf(err) != quire.KindInvalid || !strings.Contains(quire.AsError(err).Message, "setfacl -m g:GROUP") {
		t.Errorf("%v", err)
	}
	must(t, s.Team.Set(bg(), owner, p.ID, last.Name, quire.RoleViewer)) // a role can be changed all the same
}

// Who is disabled is lowered in all projects that he is in, also in one that is
// put aside, and not where he was removed; enabled, he has back what he had.
func TestDisabledEverywhere(t *testing.T) {
	s := newSite(t)
	owner, bob, chief := s.person("owner"), s.person("bob"), s.person("chief", true)
	var in []quire.ProjectID
	for i, role := range []quire.Role{quire.RoleEditor, quire.RoleViewer, quire.RoleNone, quire.RoleEditor} {
		p := s.project(owner, fmt.Sprint("p", i))
		must(t, s.Team.Set(bg(), owner, p.ID, bob.Name, quire.RoleEditor))
		switch role {
		case quire.RoleNone:
			must(t, s.Team.Remove(bg(), owner, p.ID, bob.Name))
		case quire.RoleViewer:
			must(t, s.Team.Set(bg(), owner, p.ID, bob.Name, role))
		}
		in = append(in, p.ID)
	}
	must(t, s.store.Write(bg(), func(tx *store.Tx) error { return tx.MarkDeleted(in[3], true) }))
	own := s.project(bob, "own")
	lowered := func() (is string) {
		for _, id := range append(in, own.ID) {
			must(t, s.store.Read(bg(), func(tx *store.Tx) error {
				ls, err := tx.Lowered(id)
				for _, l := range ls {
					is += l.Name
					if l.Disabled {
						is += "!"
					}
				}
				is += "/"
				return err
			}))
		}
		return is
	}
	_, err := s.Users.Update(bg(), chief, bob.User, UserChange{Disabled: ptr(true)})
	must(t, err)
	if is := lowered(); is != "bob!/bob!/bob!/bob!/bob!/" {
		t.Errorf("disabled: %s", is)
	}
	_, err = s.Users.Update(bg(), chief, bob.User, UserChange{Disabled: ptr(false)})
	must(t, err)
	if is := lowered(); is != "/bob/bob///" { // a viewer until no file lets him write
		t.Errorf("enabled: %s", is)
	}
}

// The site's accounts are asked for by name; their number is pinned once.
func TestFoundAccounts(t *testing.T) {
	s := newSite(t)
	a := FoundAccounts()
	alice, bob := s.person("alice"), s.person("bob")
	if got, err := s.assign(a, quire.User{ID: alice.User, Name: "alice"}); err != nil || got != (Account{Name: "alice"}) {
		t.Errorf("%+v %v", got, err)
	}
	must(t, s.loop.pin(bg(), alice.User, Account{Name: "alice", UID: 1001}))
	must(t, s.loop.pin(bg(), alice.User, Account{Name: "alice", UID: 1001}))
	for user, b := range map[quire.UserID]Account{alice.User: {Name: "alice", UID: 1002}, bob.User: {Name: "bob", UID: 1001}} {
		if err := s.loop.pin(bg(), user, b); quire.KindOf(err) != quire.KindConflict {
			t.Errorf("%+v: %v", b, err)
		}
	}
	if err := s.loop.pin(bg(), bob.User, Account{Name: "bob"}); err == nil {
		t.Error("a node that says no number is believed")
	}
}

// However members come and go at once, the disk ends up as the database.
func TestTeamOnDiskAfterARace(t *testing.T) {
	s := newSite(t)
	alice := s.person("alice")
	p := s.started(alice, "data")
	var all sync.WaitGroup
	for i := range 4 {
		who := s.person(fmt.Sprintf("m%d", i)).Name
		for range 2 {
			all.Go(func() {
				for n := range 12 {
					if n%2 == 0 {
						_ = s.Team.Set(bg(), alice, p.ID, who, quire.RoleEditor)
					} else {
						_ = s.Team.Remove(bg(), alice, p.ID, who)
					}
				}
				_ = s.Team.Set(bg(), alice, p.ID, who, quire.RoleViewer)
			})
		}
	}
	all.Wait()
	s.eventually("the disk follows", func() bool {
		d, err := s.Team.Disk(bg(), alice, p.ID)
		return err == nil && d.UpToDate && d.Shared
	})
	d, err := s.Team.Disk(bg(), alice, p.ID)
	must(t, err)
	for _, r := range d.Revoked {
		if r.Done != r.Nodes || !strings.HasPrefix(r.Sentence(), "revoked on 1 of 1 nodes in ") {
			t.Errorf("%+v: %s", r, r.Sentence())
		}
	}
}
