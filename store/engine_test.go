package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"quire"
	"quire/test"
)

// onPostgres names, for a process of this test binary, the directory of the
// PostgreSQL on which all tests run once more, each in a place of its own.
const onPostgres = "QUIRE_TEST_POSTGRES"

// runsOnPostgres is true in that process.
func runsOnPostgres() bool { return os.Getenv(onPostgres) != "" }

// address is that of an empty database of the engine under test.
func address(t *testing.T) string {
	t.Helper()
	if !runsOnPostgres() {
		return filepath.Join(t.TempDir(), "quire.db")
	}
	p, err := test.RunningPostgres(os.Getenv(onPostgres))
	if err != nil {
		t.Fatal(err)
	}
	return emptyIn(t, p)
}

func emptyIn(t *testing.T, p *test.Postgres) string {
	t.Helper()
	a, err := p.Address()
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// shared is one server for all tests that do not kill it; TestMain ends it.
var shared struct {
	sync.Mutex
	*test.Postgres
}

// postgres is an empty database of the shared server.
func postgres(t *testing.T) string {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if shared.Postgres == nil {
		var err error
		if shared.Postgres, err = test.NewPostgres(); err != nil {
			t.Fatal(err)
		}
	}
	return emptyIn(t, shared.Postgres)
}

// ownPostgres is a server that the test may do anything to.
func ownPostgres(t *testing.T) *test.Postgres {
	t.Helper()
	p, err := test.NewPostgres()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Remove(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// Every test of this package once more, on PostgreSQL.
func TestOnPostgres(t *testing.T) {
	if runsOnPostgres() {
		return // this is it
	}
	postgres(t)
	cmd := exec.Command(os.Args[0], "-test.run=.", "-test.parallel=4")
	cmd.Env = append(os.Environ(), onPostgres+"="+shared.Dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// Both schemas have the same tables with the same columns.
func TestSchemasAgree(t *testing.T) {
	if runsOnPostgres() {
		return // it is about SQLite's file, or was run already
	}
	ctx := context.Background()
	lite := fresh(t)
	pg, err := Open(ctx, postgres(t))
	if err != nil {
		t.Fatal(err)
	}
	defer pg.Close()
	a, err := lite.tables(ctx, lite.read)
	if err != nil {
		t.Fatal(err)
	}
	b, err := pg.tables(ctx, pg.read)
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(a) != fmt.Sprint(b) {
		t.Errorf("SQLite has\n%v\nPostgreSQL\n%v", a, b)
	}
	if len(a) != len(moveOrder) {
		t.Errorf("%d tables, %d are moved", len(a), len(moveOrder))
	}
}

// The database dies and comes back: what was acknowledged is there, who writes
// meanwhile is told in time, and no restart of ours is needed.
//
//fault:database PostgreSQL is killed
//fault:seen changes are refused at once with a sentence
//fault:lost nothing that was confirmed
//fault:repair connections are made anew when it is back; nothing of Quire needs a restart
//fault:also TestDatabaseMoves
func TestPostgresDies(t *testing.T) {
	if runsOnPostgres() {
		return // it is about SQLite's file, or was run already
	}
	p := ownPostgres(t)
	ctx := context.Background()
	s, err := Open(ctx, emptyIn(t, p))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	set := func(v string) error {
		return s.Write(ctx, func(tx *Tx) error { return tx.SetSetting("k", v) })
	}
	for i := range 20 {
		if err := set(strconv.Itoa(i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		began := time.Now()
		if err := set("lost"); quire.KindOf(err) != quire.KindUnavailable {
			t.Errorf("a write while it is away: %v", err)
		}
		if d := time.Since(began); d > 10*time.Second {
			t.Errorf("one waits %v to hear that it is away", d)
		}
		if err := s.Read(ctx, func(tx *Tx) error { _, err := tx.Setting("k"); return err }); quire.KindOf(err) != quire.KindUnavailable {
			t.Errorf("a read while it is away: %v", err)
		}
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	var v string
	if err := s.Read(ctx, func(tx *Tx) (err error) { v, err = tx.Setting("k"); return err }); err != nil || v != "19" {
		t.Errorf("afterwards: %q, %v", v, err)
	}
	if err := set("20"); err != nil {
		t.Errorf("a write afterwards: %v", err)
	}
}

// A database that has fewer commits than were seen is not written to: a standby
// was promoted that had not heard of them all.
//
//fault:database a standby is promoted that lacks changes
//fault:seen every change is refused
//fault:lost what the standby lacks
//fault:repair an administrator, who looks and restarts the server
func TestLostCommitsAreNoticed(t *testing.T) {
	if runsOnPostgres() {
		return // it is about SQLite's file, or was run already
	}
	addr := postgres(t)
	ctx := context.Background()
	s, err := Open(ctx, addr)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	set := func(v string) error {
		return s.Write(ctx, func(tx *Tx) error { return tx.SetSetting("k", v) })
	}
	for _, v := range []string{"1", "2", "3"} {
		if err := set(v); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.write.Exec("UPDATE writer SET n = n - 2; UPDATE settings SET value = '1' WHERE name = 'k'"); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := set("4"); quire.KindOf(err) != quire.KindUnavailable || !strings.Contains(err.Error(), "lost changes") {
			t.Errorf("a write onto lost commits: %v", err)
		}
	}
	again, err := Open(ctx, addr) // an administrator has looked
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if err := again.Write(ctx, func(tx *Tx) error { return tx.SetSetting("k", "5") }); err != nil {
		t.Errorf("after a restart: %v", err)
	}
}

// Two processes on one database write one after the other.
func TestTwoProcessesWrite(t *testing.T) {
	if runsOnPostgres() {
		return // it is about SQLite's file, or was run already
	}
	addr := postgres(t)
	ctx := context.Background()
	const writers, each = 4, 25
	var stores []*Store
	for range writers {
		s, err := Open(ctx, addr)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		stores = append(stores, s)
	}
	var wg sync.WaitGroup
	for _, s := range stores {
		wg.Go(func() {
			for range each {
				err := s.Write(ctx, func(tx *Tx) error {
					v, err := tx.Setting("sum")
					if err != nil {
						return err
					}
					n, _ := strconv.Atoi(v)
					return tx.SetSetting("sum", strconv.Itoa(n+1))
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	read(t, stores[0], func(tx *Tx) error {
		if v, err := tx.Setting("sum"); err != nil || v != strconv.Itoa(writers*each) {
			t.Errorf("%s of %d additions: %v", v, writers*each, err)
		}
		return nil
	})
}

// A move carries everything, is checked row by row, and takes no database that
// has something in it.
func TestMove(t *testing.T) {
	if runsOnPostgres() {
		return // it is about SQLite's file, or was run already
	}
	ctx := context.Background()
	file := filepath.Join(t.TempDir(), "quire.db")
	s := open(t, file)
	u := person("Ada")
	write(t, s, func(tx *Tx) error {
		for i := range 300 {
			if err := tx.AddEvent(quire.Event{Actor: u.ID, Verb: "n", Detail: strconv.Itoa(i) + " ü \x01 'quoted'"}); err != nil {
				return err
			}
		}
		err := tx.Revoke(u.ID, "", "")
		k := quire.JoinToken{ID: "k", Role: "gateway", Uses: 1, Created: tx.Now, Expires: tx.Now.Add(time.Hour)}
		return errors.Join(err, tx.AddUser(u, "phc"), tx.SetSetting("k", "v"), tx.AddJoinToken(k),
			tx.SaveDataCenter(quire.DataCenter{ID: "d_1", Name: "d", Gateway: "n_g"}), tx.SaveNode(quire.Node{ID: "n_1", DataCenter: "d_1", Name: "n", Drained: true}))
	})
	for _, to := range []string{postgres(t), filepath.Join(t.TempDir(), "other.db")} {
		moved, err := Move(ctx, file, to)
		if err != nil {
			t.Fatal(err)
		}
		n := map[string]int64{}
		for _, m := range moved {
			n[m.Table] = m.Rows
		}
		if n["events"] != 300 || n["users"] != 1 || n["revocations"] != 1 || len(moved) != len(moveOrder) {
			t.Errorf("moved %v", moved)
		}
		d := open(t, to)
		read(t, d, func(tx *Tx) error {
			got, err := tx.User(u.ID)
			nodes, err2 := tx.Nodes()
			if got != u || len(nodes) != 1 || !nodes[0].Drained {
				t.Errorf("there are %+v and %+v", got, nodes)
			}
			return errors.Join(err, err2)
		})
		// Numbers go on where they were.
		write(t, d, func(tx *Tx) error {
			before, err := tx.FeedSeq()
			if err != nil {
				return err
			}
			if err := tx.Revoke(u.ID, "", ""); err != nil {
				return err
			}
			after, err := tx.FeedSeq()
			if after != before+1 {
				t.Errorf("the next revocation is %d after %d", after, before)
			}
			return errors.Join(err, tx.AddEvent(quire.Event{Verb: "more"}))
		})
		if _, err := Move(ctx, file, to); !errors.Is(err, errNotEmpty) {
			t.Errorf("a move onto something: %v", err)
		}
	}
}
