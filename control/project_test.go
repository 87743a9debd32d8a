package control

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"quire"
	"quire/store"
)

func TestCreateProjects(t *testing.T) {
	s := newSite(t)
	alice, bob := s.person("Alice"), s.person("bob")
	p, err := s.Projects.Create(bg(), alice, NewProject{Name: "Data", Summary: " numbers ", Description: "# D", Node: s.record.ID})
	must(t, err)
	if p.State != quire.ProjectStopped || p.Dir != "/projects/Alice/Data" || p.Summary != "numbers" || p.Node != s.record.ID || p.DataCenter != s.dc.ID || p.Role != quire.RoleOwner || p.Public {
		t.Errorf("%+v", p)
	}
	if n := len(s.node.received()); n != 0 {
		t.Errorf("%d orders before anybody started it", n)
	}
	for name, c := range map[string]struct {
		n    NewProject
		kind quire.Kind
	}{
		"twice":            {NewProject{Name: "Data"}, quire.KindConflict},
		"other capitals":   {NewProject{Name: "dATA"}, quire.KindConflict},
		"a page":           {NewProject{Name: "settings"}, quire.KindInvalid},
		"a path":           {NewProject{Name: "../etc"}, quire.KindInvalid},
		"an unknown node":  {NewProject{Name: "x", Node: "n_x"}, quire.KindInvalid},
		"a long summary":   {NewProject{Name: "x", Summary: strings.Repeat("x", 301)}, quire.KindInvalid},
		"two lines":        {NewProject{Name: "x", Summary: "a\nb"}, quire.KindInvalid},
		"a book":           {NewProject{Name: "x", Description: strings.Repeat("x", 64<<10+1)}, quire.KindInvalid},
		"a NUL":            {NewProject{Name: "x", Description: "\x00"}, quire.KindInvalid},
		"a program as git": {NewProject{Name: "x", Source: "ext::sh"}, quire.KindInvalid},
	} {
		_, err := s.Projects.Create(bg(), alice, c.n)
		want(t, name, c.kind, err)
	}
	if other := s.project(bob, "Data"); other.Dir == p.Dir {
		t.Error("two people's projects share a directory")
	}
	for _, c := range []struct {
		by          quire.Actor
		owner, name string
		kind        quire.Kind
	}{
		{alice, "aLICE", "DATA", ""}, {alice, "bob", "data", quire.KindNotFound}, {alice, "alice", "none", quire.KindNotFound}, {alice, "none", "data", quire.KindNotFound},
		{quire.Nobody, "alice", "data", quire.KindUnknown}, {quire.Nobody, "none", "none", quire.KindUnknown},
	} {
		_, err := s.Projects.ByName(bg(), c.by, c.owner, c.name)
		want(t, c.by.Name+" looks for "+c.owner+"/"+c.name, c.kind, err)
	}
}

func TestUpdateProjects(t *testing.T) {
	s := newSite(t)
	alice, bob, vic, chief := s.person("alice"), s.person("bob"), s.person("vic"), s.person("chief", true)
	p := s.project(alice, "data")
	must(t, s.Team.Set(bg(), alice, p.ID, "bob", quire.RoleEditor))
	must(t, s.Team.Set(bg(), alice, p.ID, "vic", quire.RoleViewer))
	words, open := ProjectChange{Summary: ptr("s"), Description: ptr("d")}, ProjectChange{Public: ptr(true)}
	both := ProjectChange{Summary: ptr("s"), Public: ptr(true)}
	for _, c := range []struct {
		by   quire.Actor
		ch   ProjectChange
		kind quire.Kind
	}{
		{alice, words, ""}, {alice, open, ""}, {alice, both, ""},
		{bob, words, ""}, {bob, open, quire.KindForbidden}, {bob, both, quire.KindForbidden},
		{vic, words, quire.KindForbidden}, {vic, open, quire.KindForbidden},
		// Administrators manage; what a project says is its team's.
		{chief, open, ""}, {chief, words, quire.KindForbidden}, {chief, both, quire.KindForbidden},
		{alice, ProjectChange{Summary: ptr("a\nb")}, quire.KindInvalid},
	} {
		_, err := s.Projects.Update(bg(), c.by, p.ID, c.ch)
		want(t, c.by.Name, c.kind, err)
	}
	must(t, s.Projects.Star(bg(), vic, p.ID, true))
	must(t, s.Projects.Star(bg(), vic, p.ID, true))
	got, err := s.Projects.ByName(bg(), vic, "alice", "data")
	if err != nil || got.Summary != "s" || got.Description != "d" || !got.Public || got.Stars != 1 || !got.Starred || got.Role != quire.RoleViewer {
		t.Errorf("%+v, %v", got, err)
	}
}

// A team has one owner; everybody else comes and goes.
func TestTeams(t *testing.T) {
	s := newSite(t)
	alice, bob, eve := s.person("alice"), s.person("bob"), s.person("eve")
	p := s.project(alice, "data")
	for name, c := range map[string]struct {
		who  string
		role quire.Role
	}{
		"a second owner": {"bob", quire.RoleOwner}, "no role": {"bob", quire.RoleNone}, "an odd role": {"bob", "admin"}, "nobody": {"mallory", quire.RoleEditor}, "the owner": {"ALICE", quire.RoleViewer},
	} {
		want(t, name, quire.KindInvalid, s.Team.Set(bg(), alice, p.ID, c.who, c.role))
	}
	must(t, s.Team.Set(bg(), alice, p.ID, "BOB", quire.RoleViewer))
	must(t, s.Team.Set(bg(), alice, p.ID, "bob", quire.RoleEditor))
	want(t, "an editor adds", quire.KindForbidden, s.Team.Set(bg(), bob, p.ID, "eve", quire.RoleViewer))
	want(t, "an editor raises himself", quire.KindForbidden, s.Team.Set(bg(), bob, p.ID, "bob", quire.RoleViewer))
	want(t, "an editor removes the owner", quire.KindForbidden, s.Team.Remove(bg(), bob, p.ID, "alice"))
	want(t, "a stranger removes", quire.KindNotFound, s.Team.Remove(bg(), eve, p.ID, "bob"))
	want(t, "the owner leaves", quire.KindInvalid, s.Team.Remove(bg(), alice, p.ID, "alice"))
	want(t, "removed who is not there", quire.KindNotFound, s.Team.Remove(bg(), alice, p.ID, "eve"))
	ms, err := s.Team.List(bg(), bob, p.ID)
	if err != nil || len(ms) != 2 || ms[0].Name != "alice" || ms[1].Name != "bob" || ms[1].Role != quire.RoleEditor {
		t.Errorf("%+v, %v", ms, err)
	}
	// Only what lowers a right is a revocation.
	seq := func() (n int64) {
		must(t, s.store.Read(bg(), func(tx *store.Tx) (err error) { n, err = tx.FeedSeq(); return err }))
		return n
	}
	if n := seq(); n != 0 {
		t.Errorf("%d revocations and nobody lost anything", n)
	}
	must(t, s.Team.Set(bg(), alice, p.ID, "bob", quire.RoleViewer))
	must(t, s.Team.Remove(bg(), bob, p.ID, "bob"))
	if n := seq(); n != 2 {
		t.Errorf("%d revocations for two losses", n)
	}
	_, err = s.Team.List(bg(), bob, p.ID)
	want(t, "he looks again", quire.KindNotFound, err)
}

// Lowering somebody ends his sessions in that project, nobody else's and
// nowhere else.
func TestTeamChangesEndSessions(t *testing.T) {
	s := newSite(t)
	alice, bob := s.person("alice"), s.person("bob")
	p, q := s.started(alice, "p"), s.started(alice, "q")
	for _, x := range []quire.Project{p, q} {
		must(t, s.Team.Set(bg(), alice, x.ID, "bob", quire.RoleEditor))
	}
	mine, his, elsewhere := s.open(alice, p, "notebook"), s.open(bob, p, "notebook"), s.open(bob, q, "notebook")
	must(t, s.Team.Remove(bg(), alice, p.ID, "bob"))
	s.session(his.ID, quire.SessionEnded)
	for _, one := range []quire.Session{mine, elsewhere} {
		if st := s.row(one.ID).State; st != quire.SessionRunning {
			t.Errorf("%s of %s is %s", one.App, one.UserName, st)
		}
	}
	want(t, "he stops what he had", quire.KindNotFound, s.Sessions.Stop(bg(), bob, his.ID))
	if n := s.node.acted(quire.OrderStop); n != 1 {
		t.Errorf("%d sessions were stopped", n)
	}
}

// Deleted is aside: nobody sees it, its name is free, and it can come back
// unless another has taken the name.
func TestDeleteAndRestore(t *testing.T) {
	s := newSite(t)
	alice, bob, chief := s.person("alice"), s.person("bob"), s.person("chief", true)
	p := s.started(alice, "data")
	must(t, s.Team.Set(bg(), alice, p.ID, "bob", quire.RoleEditor))
	one := s.open(bob, p, "notebook")
	for _, confirm := range []string{"", "DATA", "data ", "other"} {
		want(t, "without its name", quire.KindInvalid, s.Projects.Delete(bg(), alice, p.ID, confirm))
	}
	want(t, "by an editor", quire.KindForbidden, s.Projects.Delete(bg(), bob, p.ID, "data"))
	must(t, s.Projects.Delete(bg(), alice, p.ID, "data"))
	s.settled(p.ID, quire.ProjectDeleted)
	if got := s.row(one.ID); got.State != quire.SessionEnded || s.node.dir(p.ID) != "aside" {
		t.Errorf("%+v, %q", got, s.node.dir(p.ID))
	}
	for _, by := range []quire.Actor{alice, bob, chief} {
		_, err := s.Projects.ByName(bg(), by, "alice", "data")
		want(t, by.Name+" looks at it", quire.KindNotFound, err)
		want(t, by.Name+" starts it", quire.KindNotFound, s.Projects.Start(bg(), by, p.ID))
		want(t, by.Name+" deletes it again", quire.KindNotFound, s.Projects.Delete(bg(), by, p.ID, "data"))
		_, err = s.Sessions.Open(bg(), by, p.ID, "notebook")
		want(t, by.Name+" opens it", quire.KindNotFound, err)
	}
	if list, err := s.Projects.List(bg(), alice, Deleted); err != nil || len(list) != 1 || list[0].ID != p.ID {
		t.Errorf("%+v, %v", list, err)
	}
	if list, err := s.Projects.List(bg(), bob, Deleted); err != nil || len(list) != 0 {
		t.Errorf("%+v, %v", list, err)
	}
	want(t, "restored by an editor", quire.KindNotFound, s.Projects.Restore(bg(), bob, p.ID))
	want(t, "restored what is none", quire.KindNotFound, s.Projects.Restore(bg(), alice, "p_x"))

	again := s.project(alice, "Data")
	want(t, "restored onto another", quire.KindConflict, s.Projects.Restore(bg(), alice, p.ID))
	if got := s.see(p.ID); got.Deleted == nil || s.node.ordered(quire.OrderRestore) != 0 {
		t.Errorf("%+v", got)
	}
	must(t, s.Projects.Delete(bg(), alice, again.ID, "Data"))
	s.settled(again.ID, quire.ProjectDeleted)
	must(t, s.Projects.Restore(bg(), alice, p.ID))
	s.settled(p.ID, quire.ProjectStopped)
	want(t, "restored twice", quire.KindNotFound, s.Projects.Restore(bg(), alice, p.ID))
	if got, err := s.Projects.ByName(bg(), bob, "alice", "data"); err != nil || got.ID != p.ID || got.Role != quire.RoleEditor {
		t.Errorf("%+v, %v", got, err)
	}
	must(t, s.Projects.Start(bg(), alice, p.ID))
	s.settled(p.ID, quire.ProjectRunning)
	if s.node.acted(quire.OrderSkeleton) != 1 {
		t.Error("its files were made a second time")
	}
}

// While the files come back, nobody takes the name.
func TestRestoreReservesTheName(t *testing.T) {
	s := newSite(t)
	alice := s.person("alice")
	p := s.started(alice, "data")
	must(t, s.Projects.Delete(bg(), alice, p.ID, "data"))
	s.settled(p.ID, quire.ProjectDeleted)
	h := newHang()
	s.node.script(h.at(quire.OrderRestore), nil)
	must(t, s.Projects.Restore(bg(), alice, p.ID))
	h.wait(t)
	_, err := s.Projects.Create(bg(), alice, NewProject{Name: "data"})
	want(t, "a new one of the name", quire.KindConflict, err)
	want(t, "started meanwhile", quire.KindConflict, s.Projects.Start(bg(), alice, p.ID))
	want(t, "deleted meanwhile", quire.KindConflict, s.Projects.Delete(bg(), alice, p.ID, "data"))
	close(h.release)
	s.settled(p.ID, quire.ProjectStopped)

	// One that fails is as deleted as before, and the name is free.
	must(t, s.Projects.Delete(bg(), alice, p.ID, "data"))
	s.settled(p.ID, quire.ProjectDeleted)
	s.node.script(func(context.Context, quire.Order) error { return quire.Failed("The disk is broken.", nil) }, nil)
	must(t, s.Projects.Restore(bg(), alice, p.ID))
	s.settled(p.ID, quire.ProjectDeleted)
	s.node.script(nil, nil)
	if got := s.see(p.ID); got.Deleted == nil || got.Reason != "The disk is broken." {
		t.Errorf("%+v", got)
	}
	must(t, s.Projects.Restore(bg(), alice, p.ID))
	s.settled(p.ID, quire.ProjectStopped)
}

// After its time a deleted project is gone for good, and what is not, stays.
func TestPurge(t *testing.T) {
	s := newSite(t)
	alice := s.person("alice")
	p, q := s.started(alice, "p"), s.started(alice, "q")
	label := s.label(alice, p.ID)
	must(t, s.Projects.Delete(bg(), alice, p.ID, "p"))
	s.settled(p.ID, quire.ProjectDeleted)
	s.clock.add(s.keep - time.Hour)
	s.loop.tidy()
	if w := s.work(p.ID); w.Kind != "delete" {
		t.Errorf("too early: %+v", w)
	}
	s.clock.add(2 * time.Hour)
	s.node.script(func(context.Context, quire.Order) error { return quire.Failed("The disk is broken.", nil) }, nil)
	s.loop.tidy()
	s.eventually("it is tried", func() bool { w := s.work(p.ID); return w.Kind == "purge" && w.State == quire.WorkFailed })
	s.node.script(nil, nil)
	if st := s.see(p.ID).State; st != quire.ProjectDeleted {
		t.Errorf("after a purge that failed it is %s", st)
	}
	s.loop.tidy() // an hour later
	s.eventually("it is gone", func() bool {
		err := s.store.Read(bg(), func(tx *store.Tx) error { _, err := tx.Project("", p.ID); return err })
		return quire.KindOf(err) == quire.KindNotFound
	})
	if s.node.dir(p.ID) != "" || s.node.dir(q.ID) != "there" {
		t.Errorf("directories: %q, %q", s.node.dir(p.ID), s.node.dir(q.ID))
	}
	s.clock.reset()
	alice, _ = s.enter("alice")
	want(t, "restore", quire.KindNotFound, s.Projects.Restore(bg(), alice, p.ID))
	_, err := s.handOff(alice, label)
	want(t, "its label", quire.KindNotFound, err)
	if st := s.see(q.ID).State; st != quire.ProjectRunning {
		t.Errorf("the other project is %s", st)
	}
	s.project(alice, "p")
}

// Deleting and restoring from many sides at once ends in one of the two, with
// the directory where the row says it is.
func TestDeleteAgainstRestore(t *testing.T) {
	s := newSite(t)
	alice := s.person("alice")
	p := s.started(alice, "data")
	for range 6 {
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() { s.Projects.Delete(bg(), alice, p.ID, "data") })
			wg.Go(func() { s.Projects.Restore(bg(), alice, p.ID) })
			wg.Go(func() { s.Projects.Start(bg(), alice, p.ID) })
		}
		wg.Wait()
		s.eventually("nothing is under way", func() bool { return s.work(p.ID).Ended != nil })
		got, dir := s.see(p.ID), s.node.dir(p.ID)
		if (got.State == quire.ProjectDeleted) != (got.Deleted != nil) || (got.Deleted != nil) != (dir == "aside") || got.State == quire.ProjectFailed {
			t.Fatalf("%+v, %q", got, dir)
		}
	}
}

// A project that was handed over keeps its directory; the next one of its name
// gets another, and neither takes the other's when it comes back.
func TestNamesAfterHandingOver(t *testing.T) {
	s := newSite(t)
	alice := s.person("alice")
	s.person("bob")
	bob, _ := s.enter("bob")
	p := s.started(alice, "data")
	must(t, s.Team.Set(bg(), alice, p.ID, "bob", quire.RoleEditor))
	must(t, s.Team.HandOver(bg(), alice, p.ID, "bob"))
	q := s.project(alice, "data")
	if q.Dir == p.Dir || s.see(p.ID).Dir != p.Dir {
		t.Errorf("%s and %s", p.Dir, q.Dir)
	}
	if other := s.project(alice, "data-2"); other.Dir == q.Dir {
		t.Errorf("two projects in %s", q.Dir)
	}
	_, err := s.Projects.Create(bg(), alice, NewProject{Name: "data"})
	want(t, "her own twice", quire.KindConflict, err)
	must(t, s.Projects.Delete(bg(), bob, p.ID, "data"))
	s.settled(p.ID, quire.ProjectDeleted)
	r := s.project(bob, "data")
	want(t, "back onto his new one", quire.KindConflict, s.Projects.Restore(bg(), bob, p.ID))
	must(t, s.Projects.Delete(bg(), bob, r.ID, "data"))
	s.settled(r.ID, quire.ProjectDeleted)
	must(t, s.Projects.Restore(bg(), bob, p.ID))
	s.settled(p.ID, quire.ProjectStopped)
}
