package store

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"quire"
)

// writerFile tells a process of this test binary that it is to write into a
// database until it is killed.
const writerFile = "QUIRE_TEST_WRITER"

func TestMain(m *testing.M) {
	if file := os.Getenv(writerFile); file != "" {
		if err := writeForEver(file); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	if address := os.Getenv(leaderOf); address != "" {
		if err := leadForEver(address); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	code := m.Run()
	if shared.Postgres != nil {
		if err := shared.Remove(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// writeForEver stores one number after the other, each in three tables, and
// says it aloud once the store has acknowledged it.
func writeForEver(file string) error {
	ctx := context.Background()
	s, err := Open(ctx, file)
	if err != nil {
		return err
	}
	var n int
	if err := s.Read(ctx, func(tx *Tx) error { n, _, err = tx.CountUsers(); return err }); err != nil {
		return err
	}
	for ; ; n++ {
		word := strconv.Itoa(n)
		u := quire.User{ID: quire.UserID("u_" + word), Name: "n" + word, Created: time.Now()}
		if err := s.Write(ctx, func(tx *Tx) error {
			return errors.Join(tx.AddUser(u, "phc"), tx.Revoke(u.ID, "", ""), tx.AddEvent(quire.Event{Actor: u.ID, Verb: "n", Detail: strings.Repeat(word+" ", 40)}))
		}); err != nil {
			return err
		}
		if _, err := os.Stdout.WriteString(word + "\n"); err != nil {
			return err
		}
	}
}

// Killing the writer at any moment loses nothing that was acknowledged, leaves
// nothing half done, and the next process goes on from there.
func TestKillingTheWriterLosesNothing(t *testing.T) {
	if runsOnPostgres() {
		return // it is about SQLite's file, or was run already
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "quire.db")
	r := rand.New(rand.NewPCG(1, uint64(time.Now().UnixNano())))
	rounds := 6
	if testing.Short() {
		rounds = 3
	}
	told := -1
	for range rounds {
		cmd := exec.Command(self)
		cmd.Env = append(os.Environ(), writerFile+"="+file)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewReader(out)
		killAt := told + 1 + r.IntN(25)
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				if err != io.EOF {
					t.Fatal(err)
				}
				break // whatever it said before it died counts
			}
			n, err := strconv.Atoi(strings.TrimSpace(line))
			if err != nil || n != told+1 && n != told+2 { // one more may have been stored than was said
				t.Fatalf("after %d it says %q", told, line)
			}
			told = n
			if n == killAt {
				// Not at the end of a write but in the middle of the next one.
				timer := time.NewTimer(time.Duration(r.IntN(3000)) * time.Microsecond)
				<-timer.C
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
			t.Fatalf("the writer ended by itself: %v", err)
		}

		s, err := Open(context.Background(), file)
		if err != nil {
			t.Fatal(err)
		}
		read(t, s, func(tx *Tx) error {
			var verdict string
			if err := tx.one("verdict", `PRAGMA integrity_check`, nil, &verdict); err != nil || verdict != "ok" {
				t.Errorf("%s, %v", verdict, err)
			}
			users, _, err := tx.CountUsers()
			if err != nil {
				return err
			}
			if users != told+1 && users != told+2 {
				t.Errorf("%d were acknowledged, %d are there", told+1, users)
			}
			for n := range told + 1 {
				if _, err := tx.User(quire.UserID(fmt.Sprint("u_", n))); err != nil {
					t.Errorf("%d is lost: %v", n, err)
				}
			}
			rs, err := tx.Revocations(0, time.Hour)
			if err != nil {
				return err
			}
			es, err := tx.events(`WHERE verb = 'n'`)
			if len(rs) != users || len(es) != users {
				t.Errorf("a write was stored in part: %d people, %d revocations, %d events", users, len(rs), len(es))
			}
			told = users - 1
			return err
		})
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d writes, %d kills", told+1, rounds)
}
