package control

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"quire"
	"quire/login"
	"quire/store"
)

func from(address string) From { return From{Address: address, Agent: "test"} }

// S-07: unknown names, wrong passwords and disabled accounts: one answer, one
// cost, which is counted in hashes.
func TestEnterTellsNothing(t *testing.T) {
	s := newSite(t)
	s.person("alice")
	gone := s.person("gone")
	s.tx(func(tx *store.Tx) error {
		u, err := tx.User(gone.User)
		u.Disabled = true
		if err != nil {
			return err
		}
		return tx.SaveUser(u)
	})
	answers := map[string]bool{}
	for name, c := range map[string][2]string{
		"wrong password": {"alice", "wrong password"}, "unknown name": {"mallory", password}, "disabled": {"gone", password}, "disabled and wrong": {"gone", "wrong password"},
		"no password": {"alice", ""}, "no name": {"", password}, "odd name": {"alice\n\x1b[2J", password}, "another alphabet": {"alic\u0435", password},
	} {
		before := s.core.hasher.Made()
		in, err := s.Logins.Enter(bg(), c[0], c[1], from(home))
		want(t, name, quire.KindUnknown, err)
		if n := s.core.hasher.Made() - before; n != 1 {
			t.Errorf("%s: %d hashes", name, n)
		}
		if in != (Entered{}) {
			t.Errorf("%s: %+v", name, in)
		}
		answers[fmt.Sprint(err)] = true
	}
	if len(answers) != 1 {
		t.Errorf("the answers differ: %v", answers)
	}
	for name, c := range map[string][2]string{"a long name": {strings.Repeat("a", 10<<20), password}, "a long password": {"alice", strings.Repeat("a", 2000)}} {
		before := s.core.hasher.Made()
		_, err := s.Logins.Enter(bg(), c[0], c[1], from(home))
		want(t, name, quire.KindUnknown, err)
		if s.core.hasher.Made() != before {
			t.Errorf("%s was hashed", name)
		}
	}
	for _, name := range []string{"alice", "ALICE", " alice "} {
		in, err := s.Logins.Enter(bg(), name, password, From{Address: home, Agent: strings.Repeat("ä", 500)})
		must(t, err)
		if in.User.Name != "alice" || len(in.Login.Agent) > 200 || in.Read == in.Write || len(in.Read) < 50 {
			t.Errorf("%+v", in)
		}
	}
}

// S-01, S-02, S-03, S-05 in words: guesses at one account slow down, whichever
// way its name is written; a spray trips the source; nobody else is slowed.
func TestGuessingIsSlowed(t *testing.T) {
	s := newSite(t)
	alice := s.person("alice")
	s.person("bob")
	spellings := []string{"alice", "ALICE", " alice", "Alice "}
	try := func(name, pw, address string) error {
		_, err := s.Logins.Enter(bg(), name, pw, from(address))
		return err
	}
	for i := range login.Free {
		want(t, "a free guess", quire.KindUnknown, try(spellings[i%4], "wrong password", home))
	}
	for _, name := range spellings {
		err := try(name, password, home)
		want(t, "the 11th, although right", quire.KindTooMany, err)
		if quire.AsError(err).RetryAfter < 1 {
			t.Errorf("%+v", err)
		}
	}
	_, err := s.Users.SetPassword(bg(), alice, "wrong password", "another good password", from(home))
	want(t, "guesses by way of the password change", quire.KindTooMany, err)
	want(t, "the victim elsewhere", "", try("alice", password, "192.0.2.77"))
	want(t, "somebody else from there", "", try("bob", password, home))
	s.clock.add(2 * time.Second)
	want(t, "after the wait", quire.KindUnknown, try("alice", "wrong password", home))
	err = try("alice", password, home)
	want(t, "then it is longer", quire.KindTooMany, err)
	if n := quire.AsError(err).RetryAfter; n < 3 || n > 4 {
		t.Errorf("%d s", n)
	}
	s.clock.add(4 * time.Second)
	want(t, "a right one at last", "", try("alice", password, home))
	want(t, "starts anew", quire.KindUnknown, try("alice", "wrong password", home))

	// Hanging up counts for nothing, neither for nor against.
	gone, cancel := context.WithCancel(bg())
	cancel()
	for range 3 * login.Free {
		if _, err := s.Logins.Enter(gone, "bob", password, from("192.0.2.78")); err == nil {
			t.Error("a caller who is gone was let in")
		}
	}
	want(t, "after many who hung up", "", try("bob", password, "192.0.2.78"))
}

func TestSprayIsNoted(t *testing.T) {
	s := newSite(t)
	s.person("alice")
	for i := range login.SourceFree {
		s.core.throttle.Begin(fmt.Sprint("x", i), home)
		if i < login.SourceFree-1 {
			s.core.throttle.Failed(fmt.Sprint("x", i), home)
		}
	}
	_, err := s.Logins.Enter(bg(), "nobody99", "wrong password", from(home))
	want(t, "the last of a spray", quire.KindUnknown, err)
	_, err = s.Logins.Enter(bg(), "alice", password, from(home))
	want(t, "the source", quire.KindTooMany, err)
	var verbs []string
	must(t, s.store.Read(bg(), func(tx *store.Tx) error {
		es, err := tx.EventsBy("", 1<<40, 10)
		for _, e := range es {
			verbs = append(verbs, e.Verb)
			if e.Address != home && strings.HasPrefix(e.Verb, "login") {
				t.Errorf("%+v", e)
			}
		}
		return err
	}))
	if got := strings.Join(verbs, " "); !strings.Contains(got, "login.failed login.spray") {
		t.Errorf("events: %s", got)
	}
}

// Cookies: the reading one says who, the writing one belongs to it, and both die
// with the login.
func TestResolve(t *testing.T) {
	s := newSite(t)
	s.person("alice")
	by, one := s.enter("alice")
	other, two := s.enter("alice")
	if by.Login == other.Login || by.User != other.User || by.Name != "alice" || by.Admin || by.System || by.Address != home {
		t.Errorf("%+v, %+v", by, other)
	}
	for _, bad := range []string{"", "x", one.Write, strings.ToUpper(one.Read), one.Read[:51], one.Read + "a", hash(one.Read)} {
		by, err := s.Logins.Resolve(bg(), bad)
		want(t, "a cookie that is none", quire.KindUnknown, err)
		if by != quire.Nobody {
			t.Errorf("%+v", by)
		}
		if s.Logins.MayWrite(bg(), bad, one.Write) {
			t.Errorf("%.10q writes", bad)
		}
	}
	for name, c := range map[string]struct {
		read, write string
		want        bool
	}{
		"the pair": {one.Read, one.Write, true}, "another login's": {one.Read, two.Write, false}, "the reading one twice": {one.Read, one.Read, false},
		"none": {one.Read, "", false}, "the hash": {one.Read, hash(one.Write), false},
	} {
		if got := s.Logins.MayWrite(bg(), c.read, c.write); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	if token := s.Logins.FormToken(by); !s.Logins.CheckFormToken(by, token) || s.Logins.CheckFormToken(other, token) || s.Logins.CheckFormToken(by, "") ||
		s.Logins.CheckFormToken(quire.Nobody, s.Logins.FormToken(quire.Nobody)) {
		t.Error("form tokens are not bound to the login")
	}
	must(t, s.Logins.Leave(bg(), by))
	_, err := s.Logins.Resolve(bg(), one.Read)
	want(t, "after the logout", quire.KindUnknown, err)
	if s.Logins.MayWrite(bg(), one.Read, one.Write) {
		t.Error("it writes after the logout")
	}
	if _, err := s.Logins.Resolve(bg(), two.Read); err != nil {
		t.Errorf("the other browser: %v", err)
	}
	must(t, s.Logins.Leave(bg(), quire.Nobody))
}

// S-42 in words: a login ends when it is idle for 8 hours, and after 7 days
// whatever happens.
func TestLoginsEnd(t *testing.T) {
	s := newSite(t)
	s.person("alice")
	_, idle := s.enter("alice")
	s.clock.add(quire.LoginIdle - time.Minute)
	if _, err := s.Logins.Resolve(bg(), idle.Read); err != nil {
		t.Errorf("a minute before: %v", err)
	}
	s.clock.add(2 * time.Minute) // the store noted the last use by the real clock, so this is idle for 8 h
	_, err := s.Logins.Resolve(bg(), idle.Read)
	want(t, "idle", quire.KindUnknown, err)

	s.clock.reset()
	by, busy := s.enter("alice")
	for range 6 * 4 {
		s.clock.add(7 * time.Hour)
		now := s.clock.now()
		if now.Sub(busy.Login.Created) > quire.LoginLife-time.Hour {
			break
		}
		s.tx(func(tx *store.Tx) error { tx.Now = now; return tx.SeeLogin(by.Login) })
		if _, err := s.Logins.Resolve(bg(), busy.Read); err != nil {
			t.Fatalf("in use, after %v: %v", now.Sub(busy.Login.Created), err)
		}
	}
	s.clock.add(7 * time.Hour)
	s.tx(func(tx *store.Tx) error { tx.Now = s.clock.now(); return tx.SeeLogin(by.Login) })
	_, err = s.Logins.Resolve(bg(), busy.Read)
	want(t, "in use, after seven days", quire.KindUnknown, err)
}

func TestOwnLoginsOnly(t *testing.T) {
	s := newSite(t)
	alice, bob := s.person("alice"), s.person("bob")
	here, _ := s.enter("alice")
	ls, err := s.Logins.List(bg(), alice)
	must(t, err)
	if len(ls) != 2 {
		t.Errorf("%+v", ls)
	}
	want(t, "end somebody else's", quire.KindNotFound, s.Logins.End(bg(), bob, alice.Login))
	want(t, "end what is none", quire.KindNotFound, s.Logins.End(bg(), bob, "l_aaaaaaaaaaaaaaaa"))
	must(t, s.Logins.End(bg(), here, alice.Login))
	want(t, "twice", quire.KindNotFound, s.Logins.End(bg(), here, alice.Login))
	must(t, s.Logins.LeaveAll(bg(), here))
	if ls, err = s.Logins.List(bg(), bob); len(ls) != 1 || err != nil {
		t.Errorf("bob's: %+v, %v", ls, err)
	}
}

// A request that began before its login ended changes nothing afterwards.
func TestNothingIsChangedAfterTheLogout(t *testing.T) {
	s := newSite(t)
	alice := s.person("alice")
	p := s.project(alice, "data")
	must(t, s.Logins.Leave(bg(), alice))
	_, err := s.Projects.Create(bg(), alice, NewProject{Name: "late"})
	want(t, "create", quire.KindUnknown, err)
	want(t, "start", quire.KindUnknown, s.Projects.Start(bg(), alice, p.ID))
	_, err = s.Sessions.Open(bg(), alice, p.ID, "notebook")
	want(t, "open", quire.KindUnknown, err)
	want(t, "delete", quire.KindUnknown, s.Projects.Delete(bg(), alice, p.ID, "data"))
}

// SetPassword ends every login but the one it makes, and is not a way around
// the old password.
func TestSetPassword(t *testing.T) {
	s := newSite(t)
	alice := s.person("alice")
	_, there := s.enter("alice")
	const next = "another good password"
	_, err := s.Users.SetPassword(bg(), alice, "wrong password", next, from(home))
	want(t, "without the old one", quire.KindInvalid, err)
	_, err = s.Users.SetPassword(bg(), alice, password, "short", from(home))
	want(t, "a weak one", quire.KindInvalid, err)
	_, err = s.Users.SetPassword(bg(), quire.Nobody, password, next, from(home))
	want(t, "nobody's", quire.KindUnknown, err)
	if _, err := s.Logins.Resolve(bg(), there.Read); err != nil {
		t.Errorf("refused changes ended a login: %v", err)
	}
	in, err := s.Users.SetPassword(bg(), alice, password, next, from(home))
	must(t, err)
	_, err = s.Logins.Resolve(bg(), there.Read)
	want(t, "the other browser", quire.KindUnknown, err)
	want(t, "the login that changed it", quire.KindUnknown, s.Projects.Star(bg(), alice, "p_x", true))
	by, err := s.Logins.Resolve(bg(), in.Read)
	if err != nil || by.User != alice.User || by.Login == alice.Login {
		t.Errorf("%+v, %v", by, err)
	}
	if !s.Logins.MayWrite(bg(), in.Read, in.Write) {
		t.Error("the new login cannot write")
	}
	_, err = s.Logins.Enter(bg(), "alice", password, from(home))
	want(t, "the old password", quire.KindUnknown, err)
	_, err = s.Logins.Enter(bg(), "alice", next, from(home))
	must(t, err)
}

// Whoever knows the old password and knocks while it is changed does not get in.
// The writer is held, so that the check is over and the login not yet stored
// when the password changes.
func TestEnterAgainstSetPassword(t *testing.T) {
	s := newSite(t)
	alice := s.person("alice")
	entered := make(chan error, 1)
	hash, err := s.core.hasher.Hash(bg(), "another good password")
	must(t, err)
	s.tx(func(tx *store.Tx) error {
		go func() {
			_, err := s.Logins.Enter(bg(), "alice", password, from("192.0.2.66"))
			entered <- err
		}()
		s.eventually("the old password has been checked", func() bool { return waitsIn("(*Logins).Enter", "(*Store).Write") })
		if err := tx.SetPassword(alice.User, hash); err != nil {
			return err
		}
		return tx.EndLogins(alice.User)
	})
	want(t, "the old password", quire.KindUnknown, <-entered)

	// The same for two changes at once: the second must know the first's.
	alice, _ = s.enter("alice")
	third, err := s.core.hasher.Hash(bg(), "a third good password")
	must(t, err)
	s.tx(func(tx *store.Tx) error {
		go func() {
			_, err := s.Users.SetPassword(bg(), alice, "another good password", "the thief's password", from("192.0.2.66"))
			entered <- err
		}()
		s.eventually("the old password has been checked", func() bool { return waitsIn("(*Users).SetPassword", "(*Store).Write") })
		return tx.SetPassword(alice.User, third)
	})
	want(t, "a change from under a change", quire.KindConflict, <-entered)
}

// waitsIn reports whether a goroutine is in all of the functions.
func waitsIn(functions ...string) bool {
	buf := make([]byte, 4<<20)
	for _, stack := range strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		all := true
		for _, f := range functions {
			all = all && strings.Contains(stack, f)
		}
		if all {
			return true
		}
	}
	return false
}

// A disk that is full does not make pages unreadable.
//
//fault:server nothing can be written on the server
//fault:seen changes are refused with a sentence; reading and sign-ins that stand go on
//fault:lost nothing
//fault:repair room on its disk
func TestReadingGoesOnWhenNothingCanBeWritten(t *testing.T) {
	s := newSite(t)
	s.person("alice")
	_, in := s.enter("alice")
	s.clock.add(time.Hour) // so that it would be noted
	held, release := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { s.tx(func(*store.Tx) error { close(held); <-release; return nil }) })
	<-held
	ctx, cancel := context.WithTimeout(bg(), 100*time.Millisecond)
	defer cancel()
	by, err := s.Logins.Resolve(ctx, in.Read)
	close(release)
	wg.Wait()
	if err != nil || by.Name != "alice" {
		t.Errorf("%+v, %v", by, err)
	}
}
