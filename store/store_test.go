package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"quire"
)

func open(t *testing.T, file string) *Store {
	t.Helper()
	s, err := Open(context.Background(), file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func fresh(t *testing.T) *Store { return open(t, address(t)) }

func write(t *testing.T, s *Store, f func(*Tx) error) {
	t.Helper()
	if err := s.Write(context.Background(), f); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, s *Store, f func(*Tx) error) {
	t.Helper()
	if err := s.Read(context.Background(), f); err != nil {
		t.Fatal(err)
	}
}

// site is a store with a data center, a node, two people and a project of the
// first.
type site struct {
	*Store
	dc         quire.DataCenter
	node       quire.Node
	alice, bob quire.User
	project    quire.Project
}

func person(name string) quire.User {
	return quire.User{ID: quire.NewUserID(), Name: name, Created: time.Now().UTC().Truncate(time.Millisecond)}
}

func (w *site) newProject(name string) quire.Project {
	now := time.Now().UTC().Truncate(time.Millisecond)
	return quire.Project{
		ID: quire.NewProjectID(), Owner: w.alice.ID, OwnerName: w.alice.Name, Name: name, DataCenter: w.dc.ID, Node: w.node.ID,
		Dir: "/projects/Alice/" + name, State: quire.ProjectStopped, Created: now, Changed: now,
	}
}

func newSite(t *testing.T) *site {
	w := &site{Store: fresh(t), alice: person("Alice"), bob: person("bob")}
	w.dc = quire.DataCenter{ID: quire.NewDataCenterID(), Name: "local", Gateway: quire.NewNodeID(), Address: "127.0.0.1:8089"}
	w.node = quire.Node{ID: quire.NewNodeID(), DataCenter: w.dc.ID, Name: "local", Address: "127.0.0.1:5002"}
	w.project = w.newProject("first")
	write(t, w.Store, func(tx *Tx) error {
		return errors.Join(tx.SaveDataCenter(w.dc), tx.SaveNode(w.node), tx.AddUser(w.alice, "phc"), tx.AddUser(w.bob, "phc"), tx.AddProject(w.project))
	})
	return w
}

func TestOpenTwice(t *testing.T) {
	if runsOnPostgres() {
		return // it is about SQLite's file, or was run already
	}
	file := filepath.Join(t.TempDir(), "sub dir?#%", "quire.db")
	if err := os.Mkdir(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	s := open(t, file)
	u := person("alice")
	write(t, s, func(tx *Tx) error { return tx.AddUser(u, "phc") })
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, file)
	read(t, s, func(tx *Tx) error {
		got, err := tx.User(u.ID)
		if err == nil && got != u {
			t.Errorf("%+v", got)
		}
		return err
	})
	if _, err := os.Stat(file); err != nil {
		t.Errorf("the database is somewhere else: %v", err)
	}
}

// A server that is being replaced and its successor may overlap.
func TestTwoProcessesAtOnce(t *testing.T) {
	if runsOnPostgres() {
		return // it is about SQLite's file, or was run already
	}
	file := filepath.Join(t.TempDir(), "quire.db")
	open(t, file)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			s, err := Open(context.Background(), file)
			if err != nil {
				t.Error(err)
				return
			}
			defer s.Close()
			if err := s.Write(context.Background(), func(tx *Tx) error { return tx.AddUser(person(string(quire.NewUserID())), "x") }); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	s := open(t, file)
	read(t, s, func(tx *Tx) error {
		all, _, err := tx.CountUsers()
		if all != 4 {
			t.Errorf("%d people", all)
		}
		return err
	})
}

func TestNewerSchemaIsRefused(t *testing.T) {
	if runsOnPostgres() {
		return // it is about SQLite's file, or was run already
	}
	file := filepath.Join(t.TempDir(), "quire.db")
	s := open(t, file)
	if _, err := s.write.Exec(`INSERT INTO goose_db_version (version_id, is_applied) VALUES (99999, 1)`); err != nil {
		t.Fatal(err)
	}
	s.Close()
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := Check(context.Background(), file); err == nil || !strings.Contains(err.Error(), "newer") {
		t.Errorf("a newer schema passes the check: %v", err)
	}
	if _, err = Open(context.Background(), file); err == nil || !strings.Contains(err.Error(), "newer") || !strings.Contains(err.Error(), "99999") {
		t.Fatalf("%v", err)
	}
	after, err := os.ReadFile(file)
	if err != nil || string(before) != string(after) {
		t.Error("it was changed all the same")
	}
}

func TestNotADatabase(t *testing.T) {
	if runsOnPostgres() {
		return // it is about SQLite's file, or was run already
	}
	file := filepath.Join(t.TempDir(), "quire.db")
	if err := os.WriteFile(file, []byte(strings.Repeat("this is a letter to my aunt\n", 300)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(context.Background(), file); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("%v", err)
	}
	if _, err := Open(context.Background(), filepath.Join(file, "x", "quire.db")); err == nil {
		t.Error("a directory that cannot be")
	}
}

// Every connection of both pools, not just the first, has what the design
// needs.
func TestPragmasOnEveryConnection(t *testing.T) {
	if runsOnPostgres() {
		return // it is about SQLite's file, or was run already
	}
	s := fresh(t)
	ctx := context.Background()
	for name, pool := range map[string]struct {
		db       *sql.DB
		n        int
		readOnly string
	}{"read": {s.read, 4, "1"}, "write": {s.write, 1, "0"}} {
		for i := range pool.n {
			c, err := pool.db.Conn(ctx) // held, so the next one is another
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			for pragma, want := range map[string]string{"foreign_keys": "1", "journal_mode": "wal", "synchronous": "2", "busy_timeout": "5000", "query_only": pool.readOnly} {
				var got string
				if err := c.QueryRowContext(ctx, "PRAGMA "+pragma).Scan(&got); err != nil || got != want {
					t.Errorf("%s connection %d: %s = %s, %v", name, i, pragma, got, err)
				}
			}
		}
	}
	if n := s.write.Stats().MaxOpenConnections; n != 1 {
		t.Errorf("%d writers", n)
	}
}

func TestForeignKeysHold(t *testing.T) {
	w := newSite(t)
	for name, f := range map[string]func(*Tx) error{
		"login of nobody":      func(tx *Tx) error { return tx.AddLogin(quire.Login{ID: "l_x", User: "u_x"}, "a", "b") },
		"node of nowhere":      func(tx *Tx) error { return tx.SaveNode(quire.Node{ID: "n_x", DataCenter: "d_x", Name: "x"}) },
		"project of nobody":    func(tx *Tx) error { p := w.newProject("x"); p.Owner = "u_x"; return tx.AddProject(p) },
		"project on no node":   func(tx *Tx) error { p := w.newProject("x"); p.Node = "n_x"; return tx.AddProject(p) },
		"member who is nobody": func(tx *Tx) error { return tx.SetMember(w.project.ID, "u_x", quire.RoleViewer) },
		"star on nothing":      func(tx *Tx) error { return tx.Star("p_x", w.bob.ID, true) },
		"label of nobody":      func(tx *Tx) error { _, err := tx.Label("u_x", w.project.ID); return err },
		"session of nothing": func(tx *Tx) error {
			return tx.AddSession(quire.Session{ID: "s_x", User: w.bob.ID, Project: "p_x", Node: w.node.ID})
		},
		"work of nothing": func(tx *Tx) error { return tx.AddWork(quire.Work{ID: "w_x", Project: "p_x"}, w.bob.ID) },
	} {
		if err := w.Write(context.Background(), f); err == nil {
			t.Errorf("%s was stored", name)
		}
	}
}

// A write that slipped into a reading transaction must not look as if it had
// worked.
func TestAReadCannotWrite(t *testing.T) {
	w := newSite(t)
	err := w.Read(context.Background(), func(tx *Tx) error { _, err := tx.Label(w.bob.ID, w.project.ID); return err })
	if err == nil {
		t.Error("a label was made in a reading transaction and forgotten")
	}
}

// 64 writers want one name: one has it, the others are told so, and nothing of
// theirs is left.
func TestOneNameOneWinner(t *testing.T) {
	w := newSite(t)
	spellings := []string{"carol", "Carol", "CAROL", "cArOl"}
	for round := range 5 {
		name := fmt.Sprint(round)
		results := make(chan error, 64)
		start := make(chan struct{})
		for i := range 64 {
			go func() {
				<-start
				results <- w.Write(context.Background(), func(tx *Tx) error {
					if err := tx.AddEvent(quire.Event{Verb: "try" + name}); err != nil {
						return err
					}
					return tx.AddUser(person(spellings[i%4]+name), "phc")
				})
			}()
		}
		close(start)
		won := 0
		for range 64 {
			switch err := <-results; quire.KindOf(err) {
			case "":
				won++
			case quire.KindConflict:
			default:
				t.Errorf("%v", err)
			}
		}
		if won != 1 {
			t.Errorf("%d have the name", won)
		}
		read(t, w.Store, func(tx *Tx) error {
			if _, err := tx.UserByName("caRol" + name); err != nil {
				return err
			}
			es, err := tx.events(`WHERE verb = $1`, "try"+name)
			if len(es) != 1 {
				t.Errorf("%d traces of %d tries that failed", len(es)-1, 63)
			}
			return err
		})
	}
}

// A reader sees one moment, whatever is written meanwhile, and does not hinder
// the writer.
func TestReadersSeeASnapshot(t *testing.T) {
	w := newSite(t)
	read(t, w.Store, func(tx *Tx) error {
		before, _, err := tx.CountUsers()
		if err != nil {
			return err
		}
		write(t, w.Store, func(tx *Tx) error { return tx.AddUser(person("late"), "phc") })
		after, _, err := tx.CountUsers()
		if before != after {
			t.Errorf("%d people, then %d", before, after)
		}
		if _, err := tx.UserByName("late"); quire.KindOf(err) != quire.KindNotFound {
			t.Errorf("%v", err)
		}
		return err
	})
	read(t, w.Store, func(tx *Tx) error { _, err := tx.UserByName("late"); return err })
}

// Two sums that are always changed together are never seen apart.
func TestReadersNeverSeeHalfAWrite(t *testing.T) {
	w := newSite(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 100 {
			write(t, w.Store, func(tx *Tx) error {
				return errors.Join(tx.SetSetting("a", fmt.Sprint(i)), tx.SetSetting("b", fmt.Sprint(i)))
			})
		}
	}()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				read(t, w.Store, func(tx *Tx) error {
					a, err1 := tx.Setting("a")
					b, err2 := tx.Setting("b")
					if a != b {
						t.Errorf("a is %s, b is %s", a, b)
					}
					return errors.Join(err1, err2)
				})
			}
		})
	}
	wg.Wait()
}

func TestAFailedWriteLeavesNothing(t *testing.T) {
	w := newSite(t)
	broken := errors.New("broken")
	err := w.Write(context.Background(), func(tx *Tx) error {
		if err := tx.AddUser(person("ghost"), "phc"); err != nil {
			return err
		}
		return broken
	})
	if err != broken {
		t.Errorf("%v", err)
	}
	func() {
		defer func() { recover() }()
		w.Write(context.Background(), func(tx *Tx) error {
			if err := tx.AddUser(person("ghost"), "phc"); err != nil {
				t.Error(err)
			}
			panic("in the middle")
		})
	}()
	ctx, cancel := context.WithCancel(context.Background())
	err = w.Write(ctx, func(tx *Tx) error {
		err := tx.AddUser(person("ghost"), "phc")
		cancel()
		return err
	})
	if err == nil {
		t.Error("a write whose caller was gone before the commit says that it is on disk")
	}
	read(t, w.Store, func(tx *Tx) error {
		if _, err := tx.UserByName("ghost"); quire.KindOf(err) != quire.KindNotFound {
			t.Errorf("%v", err)
		}
		return nil
	})
	write(t, w.Store, func(tx *Tx) error { return tx.AddUser(person("next"), "phc") }) // the writer is free
}

// Times come back to the millisecond, in UTC, also around the ends of calendars.
func TestTimes(t *testing.T) {
	w := newSite(t)
	for i, at := range []time.Time{
		time.Unix(0, 0).UTC(), time.Date(1969, 12, 31, 23, 59, 59, 999e6, time.UTC), time.Date(2038, 1, 19, 3, 14, 8, 1e6, time.UTC), time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC),
		time.Date(2026, 3, 29, 2, 30, 0, 123456789, time.FixedZone("x", 7200)),
	} {
		u := person(fmt.Sprint("t", i))
		u.Created = at
		write(t, w.Store, func(tx *Tx) error { return tx.AddUser(u, "phc") })
		read(t, w.Store, func(tx *Tx) error {
			got, err := tx.User(u.ID)
			if !got.Created.Equal(at.Truncate(time.Millisecond)) || got.Created.Location() != time.UTC {
				t.Errorf("%v became %v", at, got.Created)
			}
			return err
		})
	}
	write(t, w.Store, func(tx *Tx) error {
		if tx.Now.Location() != time.UTC || tx.Now.Nanosecond()%1e6 != 0 {
			t.Errorf("now is %v", tx.Now)
		}
		return nil
	})
}

func TestKindsOfDatabaseErrors(t *testing.T) {
	if runsOnPostgres() {
		return // it is about SQLite's file, or was run already
	}
	w := newSite(t)
	write(t, w.Store, func(tx *Tx) error {
		if err := tx.AddUser(w.alice, "phc"); quire.KindOf(err) != quire.KindConflict { // the same ID
			t.Errorf("%v", err)
		}
		if err := tx.AddProject(w.newProject("FIRST")); quire.KindOf(err) != quire.KindConflict {
			t.Errorf("%v", err)
		}
		return nil
	})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := w.Read(ctx, func(*Tx) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if err := w.Write(ctx, func(*Tx) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	// A full disk is said in words, and reading goes on.
	write(t, w.Store, func(tx *Tx) error {
		var pages int
		if err := tx.one("pages", `PRAGMA page_count`, nil, &pages); err != nil {
			return err
		}
		_, err := tx.tx.Exec(fmt.Sprintf(`PRAGMA max_page_count = %d`, pages))
		return err
	})
	err := w.Write(context.Background(), func(tx *Tx) error {
		for range 1000 {
			if err := tx.AddEvent(quire.Event{Verb: "x", Detail: strings.Repeat("x", 250)}); err != nil {
				return err
			}
		}
		return nil
	})
	if quire.KindOf(err) != quire.KindUnavailable || !strings.Contains(quire.AsError(err).Message, "disk") {
		t.Errorf("%v", err)
	}
	read(t, w.Store, func(tx *Tx) error { _, err := tx.User(w.alice.ID); return err })
}
