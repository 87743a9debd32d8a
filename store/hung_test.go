package store

import (
	"context"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"quire"
)

// What people type is kept by every engine, also what it cannot hold as it is;
// a search for it finds nothing and is no error.
func TestAnyTextCanBeWritten(t *testing.T) {
	w := newSite(t)
	odd := "nul \x00, not UTF-8 \xff\xfe, 𝔘 ü ' \" \\ $1"
	write(t, w.Store, func(tx *Tx) error {
		if err := tx.AddEvent(quire.Event{Verb: "odd", Name: odd}); err != nil {
			return err
		}
		if _, err := tx.UserByName(odd); quire.KindOf(err) != quire.KindNotFound {
			t.Errorf("%v", err)
		}
		es, err := tx.events(`WHERE verb = $1`, "odd")
		if len(es) != 1 || !strings.Contains(es[0].Name, `𝔘 ü ' " \ $1`) {
			t.Errorf("%+v", es)
		}
		return err
	})
}

// ... and moves to an engine that cannot hold it.
func TestAnyTextMoves(t *testing.T) {
	if runsOnPostgres() {
		return // it is about SQLite's file, or was run already
	}
	file := filepath.Join(t.TempDir(), "quire.db")
	s := open(t, file)
	write(t, s, func(tx *Tx) error { return tx.AddEvent(quire.Event{Verb: "odd", Name: "a\x00b\xffc"}) })
	to := postgres(t)
	if _, err := Move(context.Background(), file, to); err != nil {
		t.Fatal(err)
	}
	read(t, open(t, to), func(tx *Tx) error {
		es, err := tx.events(`WHERE verb = $1`, "odd")
		if len(es) != 1 || es[0].Name != "a\uFFFDb\uFFFDc" {
			t.Errorf("%+v", es)
		}
		return err
	})
}

// Connections end behind our back, as in a quick restart or a failover: what
// begins afterwards does not notice.
//
//fault:database PostgreSQL breaks connections off
//fault:seen nothing
//fault:lost nothing, and nothing is done twice
//fault:repair others are taken
func TestBrokenConnectionsAreReplaced(t *testing.T) {
	if runsOnPostgres() {
		return // it is about SQLite's file, or was run already
	}
	addr := postgres(t)
	ctx := context.Background()
	s, other := open(t, addr), open(t, addr)
	var wg sync.WaitGroup
	ready := sync.WaitGroup{}
	ready.Add(4)
	for range 4 { // so that several connections can go bad
		wg.Go(func() {
			read(t, s, func(tx *Tx) error { _, err := tx.FeedSeq(); ready.Done(); ready.Wait(); return err })
		})
	}
	wg.Wait()
	for i := range 3 {
		v := strconv.Itoa(i)
		write(t, s, func(tx *Tx) error { return tx.SetSetting("k", v) })
		if _, err := other.write.Exec(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()`); err != nil {
			t.Fatal(err)
		}
		if err := s.Write(ctx, func(tx *Tx) error { return tx.SetSetting("k", v+"!") }); err != nil {
			t.Errorf("write: %v", err)
		}
		for range 5 {
			if err := s.Read(ctx, func(tx *Tx) error {
				have, err := tx.Setting("k")
				if have != v+"!" {
					t.Errorf("%q", have)
				}
				return err
			}); err != nil {
				t.Errorf("read: %v", err)
			}
		}
	}
}

// Whatever isolation a site gives the role, writers follow one another.
func TestTheRolesIsolationDoesNotMatter(t *testing.T) {
	if runsOnPostgres() {
		return // it is about SQLite's file, or was run already
	}
	addr := postgres(t) + "&default_transaction_isolation=serializable"
	var wg sync.WaitGroup
	for range 2 {
		s := open(t, addr)
		wg.Go(func() {
			for range 20 {
				if err := s.Write(context.Background(), func(tx *Tx) error {
					v, err := tx.Setting("sum")
					if err != nil {
						return err
					}
					n, _ := strconv.Atoi(v)
					return tx.SetSetting("sum", strconv.Itoa(n+1))
				}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	read(t, open(t, addr), func(tx *Tx) error {
		v, err := tx.Setting("sum")
		if v != "40" {
			t.Errorf("%s of 40 additions", v)
		}
		return err
	})
}

// A machine that neither answers nor breaks the connection holds nobody up for
// ever: not in a statement, not at the end of a write or a read, not when
// connecting. When it goes on, so do we.
//
//fault:database PostgreSQL hangs
//fault:seen a sentence after eight seconds at most
//fault:lost nothing
//fault:repair connections are made anew
func TestAHungDatabase(t *testing.T) {
	if runsOnPostgres() {
		return // it is about SQLite's file, or was run already
	}
	p := ownPostgres(t)
	ctx := context.Background()
	addr := emptyIn(t, p)
	s, watch := open(t, addr), open(t, addr)
	set := func(v string, between func()) error {
		return s.Write(ctx, func(tx *Tx) error { defer between(); return tx.SetSetting("k", v) })
	}
	nothing := func() {}
	if err := set("1", nothing); err != nil {
		t.Fatal(err)
	}
	// stop stops every process that serves s, and the one that takes connections.
	var stopped []int
	stop := func() {
		read(t, watch, func(tx *Tx) error {
			return tx.query(func(scan func(...any) error) error {
				var pid int
				err := scan(&pid)
				stopped = append(stopped, pid)
				return err
			}, `SELECT pid FROM pg_stat_activity WHERE application_name = 'quire' AND pid <> pg_backend_pid()`)
		})
		stopped = append(stopped, p.PID())
		for _, pid := range stopped {
			if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
				t.Error(err)
			}
		}
	}
	goOn := func() {
		for _, pid := range stopped {
			syscall.Kill(pid, syscall.SIGCONT)
		}
		stopped = nil
	}
	t.Cleanup(goOn)
	ended := make(chan error, 8)
	hung := func(what string, f func() error) {
		t.Helper()
		go func() { ended <- f() }()
		select {
		case err := <-ended:
			if quire.KindOf(err) != quire.KindUnavailable {
				t.Errorf("%s: %v", what, err)
			}
		case <-time.After(time.Minute):
			t.Fatalf("%s waits for ever", what)
		}
	}
	s.limit = 300 * time.Millisecond // for what can only fail
	hung("a commit", func() error { return set("2", stop) })
	hung("a write", func() error { return set("3", nothing) })
	hung("a read", func() error {
		return s.Read(ctx, func(tx *Tx) error { _, err := tx.Setting("k"); return err })
	})
	goOn()
	s.limit = dbAnswer
	if err := set("4", nothing); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	read(t, s, func(tx *Tx) error {
		v, err := tx.Setting("k")
		if v != "4" {
			t.Errorf("afterwards: %s", v)
		}
		return err
	})
}

// A database that forgets what it was given in a power cut, or does not know
// all letters, is refused.
func TestAnUnfitDatabaseIsRefused(t *testing.T) {
	if runsOnPostgres() {
		return // it is about SQLite's file, or was run already
	}
	p := ownPostgres(t)
	ctx := context.Background()
	addr := emptyIn(t, p)
	s := open(t, addr)
	if _, err := p.SQL("postgres", `CREATE DATABASE old OWNER quire ENCODING 'LATIN1' LOCALE_PROVIDER libc LOCALE 'C' TEMPLATE template0`,
		`ALTER SYSTEM SET full_page_writes = off`, `SELECT pg_reload_conf()`); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(ctx, p.URL("old", true)); err == nil || !strings.Contains(err.Error(), "UTF8") {
		t.Errorf("letters: %v", err)
	}
	for have, deadline := "", time.Now().Add(time.Minute); have != "off"; {
		if err := s.write.QueryRow(`SHOW full_page_writes`).Scan(&have); err != nil || time.Now().After(deadline) {
			t.Fatalf("%s, %v", have, err)
		}
	}
	if _, err := Open(ctx, addr); err == nil || !strings.Contains(err.Error(), "full_page_writes") {
		t.Errorf("power cuts: %v", err)
	}
}
