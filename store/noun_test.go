package store

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"quire"
)

func TestUsers(t *testing.T) {
	w := newSite(t)
	write(t, w.Store, func(tx *Tx) error {
		for _, name := range []string{"ALICE", "alice", "aLiCe"} {
			if u, err := tx.UserByName(name); err != nil || u != w.alice {
				t.Errorf("%s: %+v, %v", name, u, err)
			}
		}
		for _, name := range []string{"", "alice ", "alic", "alice%", "a_ice", "' OR 1=1 --"} {
			if _, err := tx.UserByName(name); quire.KindOf(err) != quire.KindNotFound {
				t.Errorf("%q: %v", name, err)
			}
		}
		u := w.bob
		u.FullName, u.Email, u.Admin, u.Name = "Bob", "b@x", true, "not changed here"
		if err := tx.SaveUser(u); err != nil {
			return err
		}
		u.Name = "bob"
		if got, err := tx.User(u.ID); err != nil || got != u {
			t.Errorf("%+v, %v", got, err)
		}
		if all, admins, err := tx.CountUsers(); all != 2 || admins != 1 || err != nil {
			t.Errorf("%d, %d, %v", all, admins, err)
		}
		u.Disabled = true
		if err := tx.SaveUser(u); err != nil {
			return err
		}
		if all, admins, err := tx.CountUsers(); all != 2 || admins != 0 || err != nil {
			t.Errorf("a disabled administrator counts: %d, %d, %v", all, admins, err)
		}
		return nil
	})
	write(t, w.Store, func(tx *Tx) error {
		for _, name := range []string{"Ann", "annA", "anne", "an%", "an_", "b"} {
			if err := tx.AddUser(person(name), "phc"); err != nil {
				return err
			}
		}
		for prefix, want := range map[string]string{"an": "an%,an_,Ann,annA,anne", "ANN": "Ann,annA,anne", "an_": "an_", "%": "", "": "Alice,an%,an_", "bob": ""} {
			n := 5
			if prefix == "" {
				n = 3
			}
			names, err := tx.UserNames(prefix, n)
			if got := strings.Join(names, ","); got != want || err != nil {
				t.Errorf("%q: %s, %v", prefix, got, err)
			}
		}
		return nil
	})
}

func TestSetupLinks(t *testing.T) {
	w := newSite(t)
	write(t, w.Store, func(tx *Tx) error {
		if err := tx.AddSetupLink("good", tx.Now.Add(time.Hour).UnixMilli()); err != nil {
			return err
		}
		if err := tx.AddSetupLink("over", tx.Now.UnixMilli()); err != nil {
			return err
		}
		for hash, want := range map[string]bool{"good": true, "over": false, "": false, "other": false} {
			if ok, err := tx.HasSetupLink(hash); ok != want || err != nil {
				t.Errorf("%q: %v, %v", hash, ok, err)
			}
			if hash != "good" {
				if ok, err := tx.UseSetupLink(hash); ok || err != nil {
					t.Errorf("%q was used: %v", hash, err)
				}
			}
		}
		for i, want := range []bool{true, false} {
			if ok, err := tx.UseSetupLink("good"); ok != want || err != nil {
				t.Errorf("use %d: %v, %v", i+1, ok, err)
			}
		}
		return nil
	})
}

func TestLogins(t *testing.T) {
	w := newSite(t)
	now := time.Now().UTC().Truncate(time.Millisecond)
	add := func(tx *Tx, u quire.User, hash string, created, seen time.Time) quire.Login {
		l := quire.Login{ID: quire.NewLoginID(), User: u.ID, Created: created, LastSeen: seen, Address: "192.0.2.1", Agent: "a browser"}
		if err := tx.AddLogin(l, hash, "w"+hash); err != nil {
			t.Error(err)
		}
		return l
	}
	write(t, w.Store, func(tx *Tx) error {
		a := add(tx, w.alice, "a", now, now)
		idle := add(tx, w.alice, "idle", now.Add(-9*time.Hour), now.Add(-9*time.Hour))
		old := add(tx, w.alice, "old", now.Add(-8*24*time.Hour), now)
		b := add(tx, w.bob, "b", now, now)
		if err := tx.AddLogin(quire.Login{ID: quire.NewLoginID(), User: w.bob.ID}, "a", "x"); quire.KindOf(err) != quire.KindConflict {
			t.Errorf("two logins with one cookie: %v", err)
		}
		if l, u, wh, err := tx.LoginByHash("a"); err != nil || l != a || u != w.alice || wh != "wa" {
			t.Errorf("%+v, %+v, %s, %v", l, u, wh, err)
		}
		if _, _, _, err := tx.LoginByHash(""); quire.KindOf(err) != quire.KindNotFound {
			t.Errorf("%v", err)
		}
		if err := tx.SeeLogin(idle.ID); err != nil {
			return err
		}
		if l, err := tx.Login(idle.ID); err != nil || !l.LastSeen.Equal(tx.Now) {
			t.Errorf("%+v, %v", l, err)
		}
		if err := tx.EndOldLogins(8*time.Hour, 7*24*time.Hour); err != nil {
			return err
		}
		if _, err := tx.Login(old.ID); quire.KindOf(err) != quire.KindNotFound {
			t.Errorf("a login of eight days: %v", err)
		}
		if ls, err := tx.Logins(w.alice.ID); len(ls) != 2 || err != nil || ls[0].LastSeen.Before(ls[1].LastSeen) {
			t.Errorf("%+v, %v", ls, err)
		}
		for _, want := range []bool{true, false} {
			if ok, err := tx.EndLogin(a.ID); ok != want || err != nil {
				t.Errorf("%v, %v", ok, err)
			}
		}
		u := w.bob
		u.Disabled = true
		if err := tx.SaveUser(u); err != nil {
			return err
		}
		if _, _, _, err := tx.LoginByHash("b"); quire.KindOf(err) != quire.KindNotFound {
			t.Errorf("a disabled person's login: %v", err)
		}
		if err := tx.EndLogins(w.alice.ID); err != nil {
			return err
		}
		if _, err := tx.Login(b.ID); err != nil {
			t.Errorf("somebody else's login ended too: %v", err)
		}
		ls, err := tx.Logins(w.alice.ID)
		if len(ls) != 0 {
			t.Errorf("%+v", ls)
		}
		return err
	})
}

func TestProjects(t *testing.T) {
	w := newSite(t)
	write(t, w.Store, func(tx *Tx) error {
		p := w.newProject("Second")
		p.Summary, p.Description, p.Public, p.Source = "s", "d\nd", true, "https://x/y.git"
		if err := tx.AddProject(p); err != nil {
			return err
		}
		want := p
		want.Role = quire.RoleOwner
		if got, err := tx.ProjectByName(w.alice.ID, "aLICE", "SECOND"); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%+v, %v", got, err)
		}
		if err := tx.Star(p.ID, w.bob.ID, true); err != nil {
			return err
		}
		if err := tx.Star(p.ID, w.bob.ID, true); err != nil { // twice is once
			return err
		}
		if err := tx.SetMember(p.ID, w.bob.ID, quire.RoleViewer); err != nil {
			return err
		}
		if got, err := tx.Project(w.bob.ID, p.ID); err != nil || got.Role != quire.RoleViewer || got.Stars != 1 || !got.Starred {
			t.Errorf("%+v, %v", got, err)
		}
		if got, err := tx.Project(w.alice.ID, p.ID); err != nil || got.Role != quire.RoleOwner || got.Stars != 1 || got.Starred {
			t.Errorf("%+v, %v", got, err)
		}
		if got, err := tx.Project("", p.ID); err != nil || got.Role != "" || got.Starred {
			t.Errorf("%+v, %v", got, err)
		}
		list := func(ps []quire.Project, err error) string {
			if err != nil {
				t.Error(err)
			}
			var names []string
			for _, p := range ps {
				names = append(names, p.Name)
			}
			return strings.Join(names, ",")
		}
		for what, c := range map[string][2]string{
			"alice's":     {list(tx.ProjectsOf(w.alice.ID, true)), "Second,first"},
			"bob's":       {list(tx.ProjectsOf(w.bob.ID, true)), ""},
			"bob helps":   {list(tx.ProjectsOf(w.bob.ID, false)), "Second"},
			"alice helps": {list(tx.ProjectsOf(w.alice.ID, false)), ""},
			"public":      {list(tx.PublicProjects("u_x", 9)), "Second"},
			"bob's own":   {list(tx.PublicProjects(w.bob.ID, 9)), ""},
			"none":        {list(tx.PublicProjects("u_x", 0)), ""},
			"stopped":     {list(tx.ProjectsIn(quire.ProjectStopped)), "first,Second"},
		} {
			if c[0] != c[1] && !(what == "stopped" && c[0] == "Second,first") && !(what == "alice's" && c[0] == "first,Second") {
				t.Errorf("%s: %s", what, c[0])
			}
		}
		return nil
	})
}

// A deleted project gives its name and directory free, and cannot come back
// while another has them.
func TestDeletedNames(t *testing.T) {
	w := newSite(t)
	again := w.newProject("first")
	write(t, w.Store, func(tx *Tx) error {
		if err := tx.MarkDeleted(w.project.ID, true); err != nil {
			return err
		}
		if _, err := tx.ProjectByName(w.alice.ID, "alice", "first"); quire.KindOf(err) != quire.KindNotFound {
			t.Errorf("%v", err)
		}
		if p, err := tx.Project(w.alice.ID, w.project.ID); err != nil || p.Deleted == nil || !p.Deleted.Equal(tx.Now) {
			t.Errorf("%+v, %v", p, err)
		}
		for asker, want := range map[quire.UserID]int{w.alice.ID: 1, w.bob.ID: 0, "": 1} {
			if ps, err := tx.DeletedProjects(asker); len(ps) != want || err != nil {
				t.Errorf("%q: %d, %v", asker, len(ps), err)
			}
		}
		return tx.AddProject(again)
	})
	if err := w.Write(context.Background(), func(tx *Tx) error { return tx.MarkDeleted(w.project.ID, false) }); quire.KindOf(err) != quire.KindConflict {
		t.Errorf("two living projects of one name: %v", err)
	}
	write(t, w.Store, func(tx *Tx) error {
		if err := tx.MarkDeleted(again.ID, true); err != nil {
			return err
		}
		return tx.MarkDeleted(w.project.ID, false)
	})
}

func TestDropProject(t *testing.T) {
	w := newSite(t)
	id := w.project.ID
	write(t, w.Store, func(tx *Tx) error {
		other := w.newProject("other")
		if err := tx.AddProject(other); err != nil {
			return err
		}
		for _, p := range []quire.ProjectID{id, other.ID} {
			if _, err := tx.Label(w.bob.ID, p); err != nil {
				return err
			}
			if err := tx.Star(p, w.bob.ID, true); err != nil {
				return err
			}
			if err := tx.AddSession(quire.Session{ID: quire.NewSessionID(), User: w.bob.ID, Project: p, App: "x", Node: w.node.ID, State: quire.SessionEnded}); err != nil {
				return err
			}
			if err := tx.AddWork(quire.Work{ID: quire.NewWorkID(), Project: p, Kind: "purge"}, w.alice.ID); err != nil {
				return err
			}
			if err := tx.AddEvent(quire.Event{Verb: "x", Project: p}); err != nil {
				return err
			}
		}
		if err := tx.DropProject(id); err != nil {
			return err
		}
		if _, err := tx.Project("", id); quire.KindOf(err) != quire.KindNotFound {
			t.Errorf("%v", err)
		}
		if es, err := tx.EventsOf(id, 1<<40, 9); len(es) != 1 || err != nil {
			t.Errorf("what happened is forgotten: %d, %v", len(es), err)
		}
		if ss, err := tx.SessionsOf(other.ID, 9); len(ss) != 1 || err != nil {
			t.Errorf("another project's sessions are gone: %v", err)
		}
		_, err := tx.LabelOf(w.bob.ID, other.ID)
		return err
	})
}

// The label is made once and stays, whoever asks at once.
func TestLabels(t *testing.T) {
	w := newSite(t)
	labels := make(chan quire.Label, 32)
	for range 32 {
		go func() {
			var l quire.Label
			if err := w.Write(context.Background(), func(tx *Tx) (err error) { l, err = tx.Label(w.bob.ID, w.project.ID); return err }); err != nil {
				t.Error(err)
			}
			labels <- l
		}()
	}
	first := <-labels
	if !first.Valid() {
		t.Errorf("%q", first)
	}
	for range 31 {
		if l := <-labels; l != first {
			t.Errorf("%s and %s", first, l)
		}
	}
	write(t, w.Store, func(tx *Tx) error {
		if u, p, err := tx.LabelOwner(first); u != w.bob.ID || p != w.project.ID || err != nil {
			t.Errorf("%s, %s, %v", u, p, err)
		}
		if l, err := tx.Label(w.alice.ID, w.project.ID); l == first || err != nil {
			t.Errorf("two people share %s: %v", l, err)
		}
		if _, _, err := tx.LabelOwner(quire.NewLabel()); quire.KindOf(err) != quire.KindNotFound {
			t.Errorf("%v", err)
		}
		return nil
	})
}

func TestPrepared(t *testing.T) {
	w := newSite(t)
	write(t, w.Store, func(tx *Tx) error {
		for _, step := range []string{"skeleton", "environment", "skeleton"} {
			if err := tx.SetPrepared(w.project.ID, step); err != nil {
				return err
			}
		}
		if done, err := tx.Prepared(w.project.ID); err != nil || !reflect.DeepEqual(done, map[string]bool{"skeleton": true, "environment": true}) {
			t.Errorf("%v, %v", done, err)
		}
		if err := tx.SetPrepared(w.project.ID, ""); err != nil {
			return err
		}
		done, err := tx.Prepared(w.project.ID)
		if len(done) != 0 {
			t.Errorf("%v", done)
		}
		return err
	})
}

func TestTeam(t *testing.T) {
	w := newSite(t)
	write(t, w.Store, func(tx *Tx) error {
		zed, ann := person("zed"), person("Ann")
		for u, role := range map[*quire.User]quire.Role{&zed: quire.RoleEditor, &ann: quire.RoleViewer} {
			if err := tx.AddUser(*u, "phc"); err != nil {
				return err
			}
			if err := tx.SetMember(w.project.ID, u.ID, role); err != nil {
				return err
			}
		}
		ms, err := tx.Members(w.project.ID)
		if err != nil || len(ms) != 3 || ms[0].Role != quire.RoleOwner || ms[1].Name != "Ann" || ms[2].Name != "zed" {
			t.Errorf("%+v, %v", ms, err)
		}
		for who, want := range map[quire.UserID]quire.Role{w.alice.ID: quire.RoleOwner, zed.ID: quire.RoleEditor, w.bob.ID: quire.RoleNone, "": quire.RoleNone} {
			if role, err := tx.Role(w.project.ID, who); role != want || err != nil {
				t.Errorf("%s: %q, %v", who, role, err)
			}
		}
		for _, want := range []bool{true, false} {
			if had, err := tx.RemoveMember(w.project.ID, zed.ID); had != want || err != nil {
				t.Errorf("%v, %v", had, err)
			}
		}
		return nil
	})
}

func TestEventsAndRevocations(t *testing.T) {
	w := newSite(t)
	write(t, w.Store, func(tx *Tx) error {
		if seq, err := tx.FeedSeq(); seq != 0 || err != nil {
			t.Errorf("%d, %v", seq, err)
		}
		for i := range 5 {
			e := quire.Event{Actor: w.alice.ID, Verb: fmt.Sprint("v", i), Project: w.project.ID, Name: strings.Repeat("ü", 200), Detail: strings.Repeat("x", 1000)}
			if i%2 == 1 {
				e.Actor, e.Project = w.bob.ID, ""
			}
			if err := tx.AddEvent(e); err != nil {
				return err
			}
		}
		es, err := tx.EventsOf(w.project.ID, 1<<40, 2)
		if err != nil || len(es) != 2 || es[0].Verb != "v4" || es[1].Verb != "v2" || len(es[0].Detail) != 256 || es[0].Name != strings.Repeat("ü", 128) || !es[0].Time.Equal(tx.Now) {
			t.Errorf("%+v, %v", es, err)
		}
		if es, err = tx.EventsOf(w.project.ID, es[1].Seq, 9); len(es) != 1 || es[0].Verb != "v0" || err != nil {
			t.Errorf("%+v, %v", es, err)
		}
		if es, err = tx.EventsBy(w.bob.ID, 1<<40, 9); len(es) != 2 || es[0].Verb != "v3" || err != nil {
			t.Errorf("%+v, %v", es, err)
		}
		for i := range 3 {
			if err := tx.Revoke(w.bob.ID, w.project.ID, quire.LoginID(fmt.Sprint("l", i))); err != nil {
				return err
			}
		}
		seq, err := tx.FeedSeq()
		if seq != 3 || err != nil {
			t.Errorf("%d, %v", seq, err)
		}
		rs, err := tx.Revocations(1, time.Hour)
		want := quire.Revocation{Seq: 2, User: w.bob.ID, Project: w.project.ID, Login: "l1", At: tx.Now}
		if err != nil || len(rs) != 2 || rs[0] != want || rs[1].Seq != 3 {
			t.Errorf("%+v, %v", rs, err)
		}
		// What no grant can outlive is not told, but its number still counts, even
		// when the row is gone.
		if _, err := tx.exec(`UPDATE revocations SET at = $1 WHERE seq < 3`, millis(tx.Now.Add(-time.Hour))); err != nil {
			return err
		}
		if rs, err = tx.Revocations(0, time.Hour); len(rs) != 1 || err != nil {
			t.Errorf("%+v, %v", rs, err)
		}
		if _, err := tx.exec(`DELETE FROM revocations`); err != nil {
			return err
		}
		if err := tx.Revoke(w.bob.ID, "", ""); err != nil {
			return err
		}
		seq, err = tx.FeedSeq()
		if seq != 4 {
			t.Errorf("number %d was given out twice", seq)
		}
		return err
	})
}

func TestWorks(t *testing.T) {
	w := newSite(t)
	work := func(kind string) quire.Work {
		return quire.Work{ID: quire.NewWorkID(), Kind: kind, Project: w.project.ID, By: "alice", State: quire.WorkRunning,
			Steps: []quire.Step{{Name: "a", State: quire.WorkDone, Note: "n"}, {Name: "b", State: quire.WorkWaiting}}, Created: time.Now().UTC().Truncate(time.Millisecond)}
	}
	one := work("start")
	write(t, w.Store, func(tx *Tx) error {
		if latest, err := tx.LatestWork(w.project.ID); latest != nil || err != nil {
			t.Errorf("%+v, %v", latest, err)
		}
		if err := tx.AddWork(one, w.alice.ID); err != nil {
			return err
		}
		if err := tx.AddWork(work("stop"), w.alice.ID); quire.KindOf(err) != quire.KindConflict {
			t.Errorf("two works at once: %v", err)
		}
		if got, err := tx.OpenWork(w.project.ID); err != nil || !reflect.DeepEqual(*got, one) {
			t.Errorf("%+v, %v", got, err)
		}
		if by, err := tx.WorkActor(one.ID); by != w.alice.ID || err != nil {
			t.Errorf("%s, %v", by, err)
		}
		one.State, one.Error, one.Log, one.Ended, one.Steps[1].State = quire.WorkFailed, "e", "l", &tx.Now, quire.WorkFailed
		if err := tx.SaveWork(one); err != nil {
			return err
		}
		if got, err := tx.OpenWork(w.project.ID); got != nil || err != nil {
			t.Errorf("%+v, %v", got, err)
		}
		if got, err := tx.LatestWork(w.project.ID); err != nil || !reflect.DeepEqual(*got, one) {
			t.Errorf("%+v, %v", got, err)
		}
		two := work("start")
		two.Created = one.Created.Add(time.Second)
		if err := tx.AddWork(two, w.bob.ID); err != nil {
			return err
		}
		if ws, err := tx.OpenWorks(); len(ws) != 1 || ws[0].ID != two.ID || err != nil {
			t.Errorf("%+v, %v", ws, err)
		}
		got, err := tx.LatestWork(w.project.ID)
		if got.ID != two.ID {
			t.Errorf("the latest is %+v", got)
		}
		return err
	})
}

func TestSites(t *testing.T) {
	w := newSite(t)
	write(t, w.Store, func(tx *Tx) error {
		dc, node := w.dc, w.node
		dc.Summary, node.Address = "new words", "127.0.0.1:6000"
		if err := tx.SaveDataCenter(dc); err != nil {
			return err
		}
		if err := tx.SaveNode(node); err != nil {
			return err
		}
		if err := tx.SaveNode(quire.Node{ID: quire.NewNodeID(), DataCenter: dc.ID, Name: node.Name}); quire.KindOf(err) != quire.KindConflict {
			t.Errorf("two nodes of one name: %v", err)
		}
		if ds, err := tx.DataCenters(); err != nil || len(ds) != 1 || ds[0] != dc {
			t.Errorf("%+v, %v", ds, err)
		}
		if ns, err := tx.Nodes(); err != nil || len(ns) != 1 || !reflect.DeepEqual(ns[0], node) {
			t.Errorf("%+v, %v", ns, err)
		}
		for _, value := range []string{"", "a", "b"} {
			if value != "" {
				if err := tx.SetSetting("x", value); err != nil {
					return err
				}
			}
			if got, err := tx.Setting("x"); got != value || err != nil {
				t.Errorf("%q, %v", got, err)
			}
		}
		return nil
	})
}

// Numbers and names of accounts are unique and outlive everything; what was
// taken from somebody is open until it is cut and swept.
func TestAccountsAndLowered(t *testing.T) {
	w := newSite(t)
	write(t, w.Store, func(tx *Tx) error {
		if _, err := tx.Account(w.alice.ID); quire.KindOf(err) != quire.KindNotFound {
			t.Errorf("%v", err)
		}
		if err := tx.AddAccount(w.alice.ID, quire.Person{Name: "Alice", UID: 20000}); err != nil {
			return err
		}
		return nil
	})
	for _, p := range []quire.Person{{Name: "Alice", UID: 20001}, {Name: "bob", UID: 20000}} {
		if err := w.Store.Write(t.Context(), func(tx *Tx) error { return tx.AddAccount(w.bob.ID, p) }); quire.KindOf(err) != quire.KindConflict {
			t.Errorf("%+v: %v", p, err)
		}
	}
	write(t, w.Store, func(tx *Tx) error {
		if last, err := tx.LastUID(20000, 30000); last != 20000 || err != nil {
			t.Errorf("%d %v", last, err)
		}
		if last, err := tx.LastUID(30000, 40000); last != 0 || err != nil {
			t.Errorf("%d %v", last, err)
		}
		if err := tx.Revoke(w.bob.ID, w.project.ID, ""); err != nil {
			return err
		}
		return tx.SetLowered(w.project.ID, w.bob.ID)
	})
	behind := func(want int) {
		t.Helper()
		read(t, w.Store, func(tx *Tx) error {
			ids, err := tx.TeamsBehind()
			if len(ids) != want {
				t.Errorf("behind: %v", ids)
			}
			return err
		})
	}
	behind(1)
	write(t, w.Store, func(tx *Tx) error {
		ls, err := tx.Lowered(w.project.ID)
		if err != nil || len(ls) != 1 || ls[0].Cut || ls[0].Swept || ls[0].Role != quire.RoleNone || ls[0].Name != "bob" {
			t.Errorf("%+v %v", ls, err)
		}
		return errors.Join(tx.SetCut(w.project.ID, ls[0].Rev.Seq-1), tx.SetSwept(w.project.ID, ls[0].Rev.Seq))
	})
	behind(1) // a later revocation than what was carried out
	write(t, w.Store, func(tx *Tx) error { return tx.SetCut(w.project.ID, 1<<40) })
	behind(0)
	write(t, w.Store, func(tx *Tx) error {
		if err := errors.Join(tx.SetPrepared(w.project.ID, "skeleton"), tx.TeamChanged(w.project.ID), tx.SetTeamOnDisk(w.project.ID, 1, "x")); err != nil {
			return err
		}
		d, err := tx.TeamOnDisk(w.project.ID)
		if d.Wanted != 2 || d.Done != 1 || d.Note != "x" {
			t.Errorf("%+v", d)
		}
		return err
	})
	behind(1)
	write(t, w.Store, func(tx *Tx) error {
		return errors.Join(tx.SetTeamOnDisk(w.project.ID, 2, ""), tx.SetTeamOnDisk(w.project.ID, 1, ""), tx.DropLowered(w.project.ID, w.bob.ID))
	})
	behind(0)
	write(t, w.Store, func(tx *Tx) error { return tx.SetOwner(w.project.ID, w.alice.ID, w.bob.ID) })
	read(t, w.Store, func(tx *Tx) error {
		p, err := tx.Project(w.alice.ID, w.project.ID)
		if p.Owner != w.bob.ID || p.Role != quire.RoleEditor {
			t.Errorf("%+v", p)
		}
		return err
	})
}
