package store

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
)

// A Listener is what a process on the database hears of the others, and does
// while it leads. One process at a time leads; which one, the database decides.
type Listener struct {
	// Heard is called with what a transaction of another process said, after its
	// commit. It must not block.
	Heard func(words []string)
	// Missed is called when Heard begins to be called, at first and after each
	// break: anything may have changed before.
	Missed func()
	// Lost is told when Heard is not called any more for a while, and why.
	Lost func(error)
	// Lead runs while this process leads. When that is over ctx ends, and Lead
	// returns soon. What it writes goes with ctx: see Write.
	Lead func(ctx context.Context)
	// StandIn leads only while no process is there that would not stand in.
	StandIn bool
}

// Listen hears and perhaps leads until ctx ends. A database that does not answer
// is asked again and again.
func (s *Store) Listen(ctx context.Context, l Listener) error { return s.listen(ctx, s, l) }

// Say hands words to the other processes on the database: with the commit, or
// not at all. Together they have some thousands of bytes at most.
func (t *Tx) Say(words ...string) { t.words = append(t.words, words...) }

// Count is the number of commits that the transaction sees.
func (t *Tx) Count() (n int64, err error) {
	err = t.one("count", `SELECT n FROM writer`, nil, &n)
	return n, err
}

// termKey is in the context of who leads: the term, as the row of writer says it.
type termKey struct{}

var errFenced = errors.New("another process leads")

const (
	earBeat  = time.Second     // how often a connection is tried, and the lead
	earLimit = 3 * time.Second // for an answer on it
	// earIdle is when PostgreSQL itself gives a connection up whose process was
	// stopped or cut off, and with it its lead.
	earIdle = 10 * time.Second
	maxSaid = 7000 // bytes of a notification; PostgreSQL takes 8000
)

// say splits words among as few notifications as hold them.
func (e *postgresEngine) say(ctx context.Context, tx *sql.Tx, words []string) error {
	send := func(some []string) error {
		b, err := json.Marshal(append([]string{e.self}, some...))
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, "SELECT pg_notify('quire ' || md5(current_schema()), $1)", string(b))
		return err
	}
	size, from := 0, 0
	for i, w := range words {
		b, err := json.Marshal(w)
		if err != nil {
			return err
		}
		if len(b) > maxSaid {
			return fmt.Errorf("%d bytes are too long a word", len(b))
		}
		if size += len(b) + 1; size > maxSaid {
			if err := send(words[from:i]); err != nil {
				return err
			}
			size, from = len(b)+1, i
		}
	}
	return send(words[from:])
}

// An ear is the one connection on which a process hears of the others. The lock
// that makes it lead is the connection's too, so that it cannot outlive it.
type ear struct {
	e    *postgresEngine
	s    *Store
	l    Listener
	conn *pgx.Conn
	open bool          // Missed was called
	lead int64         // the lock of who leads
	here int64         // a lock that everybody holds who does not stand in
	term int64         // of this process's lead
	stop func()        // ends Lead; nil while this process does not lead
	over chan struct{} // closed when Lead has returned
}

func (e *postgresEngine) listen(ctx context.Context, s *Store, l Listener) error {
	for wait := earBeat / 4; ctx.Err() == nil; {
		ear := &ear{e: e, s: s, l: l}
		began := time.Now()
		err := ear.hear(ctx)
		ear.leave()
		if ear.open && ctx.Err() == nil {
			l.Lost(s.kind(err))
		}
		if ear.conn != nil {
			end, cancel := context.WithTimeout(context.Background(), earLimit)
			ear.conn.Close(end)
			cancel()
		}
		if wait = min(2*wait, 4*earBeat); time.Since(began) > earIdle {
			wait = earBeat / 4
		}
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-t.C:
		}
		t.Stop()
	}
	return nil
}

// hear runs until the connection breaks.
func (a *ear) hear(ctx context.Context) error {
	if err := a.connect(ctx); err != nil {
		return err
	}
	a.open = true
	a.l.Missed()
	for last := (time.Time{}); ; {
		if time.Since(last) >= earBeat {
			if err := a.beat(ctx); err != nil {
				return err
			}
			last = time.Now()
		}
		wait, cancel := context.WithDeadline(ctx, last.Add(earBeat))
		n, err := a.conn.WaitForNotification(wait)
		over := wait.Err() != nil
		cancel()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && over && !a.conn.IsClosed():
			continue
		case err != nil:
			return err
		}
		var words []string
		if json.Unmarshal([]byte(n.Payload), &words) == nil && len(words) > 1 && words[0] != a.e.self {
			a.l.Heard(words[1:])
		}
	}
}

func (a *ear) connect(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*earLimit)
	defer cancel()
	if a.conn, err = pgx.ConnectConfig(ctx, a.e.conf); err != nil {
		return err
	}
	var schema, channel string
	if err := a.conn.QueryRow(ctx, "SELECT current_schema(), 'quire ' || md5(current_schema())").Scan(&schema, &channel); err != nil {
		return err
	}
	a.lead, a.here = lockOf(schema, "lead"), lockOf(schema, "here")
	// The time is not known to releases before 14; there the keepalives must do.
	_, err = a.conn.Exec(ctx, `SELECT set_config(name, CASE name WHEN 'idle_session_timeout' THEN $1 WHEN 'tcp_keepalives_count' THEN '2' ELSE '3' END, FALSE)
		FROM pg_settings WHERE name IN ('idle_session_timeout', 'tcp_keepalives_idle', 'tcp_keepalives_interval', 'tcp_keepalives_count')`, strconv.Itoa(int(earIdle.Milliseconds())))
	if err == nil {
		_, err = a.conn.Exec(ctx, "LISTEN "+pgx.Identifier{channel}.Sanitize())
	}
	if err == nil && !a.l.StandIn {
		_, err = a.conn.Exec(ctx, "SELECT pg_advisory_lock_shared($1)", a.here) // nobody takes it alone
	}
	return err
}

// lockOf is the number of an advisory lock. Installations may share a database.
func lockOf(schema, name string) int64 {
	sum := sha256.Sum256([]byte("quire\x00" + schema + "\x00" + name))
	return int64(binary.BigEndian.Uint64(sum[:]))
}

// beat shows that the connection lives, and takes or leaves the lead.
func (a *ear) beat(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, earLimit)
	defer cancel()
	if a.stop != nil {
		select {
		case <-a.over: // it has made room, and now it shows
			a.leave()
			_, err := a.conn.Exec(ctx, "SELECT pg_advisory_unlock($1)", a.lead)
			return err
		default:
		}
	}
	others := false
	err := a.conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1
		AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
		AND classid = $1::bigint::oid AND objid = $2::bigint::oid)`, int64(uint64(a.here)>>32), int64(uint64(a.here)&(1<<32-1))).Scan(&others)
	if err != nil {
		return err
	}
	aside := a.l.StandIn && others
	switch {
	case a.stop != nil && aside:
		a.stop()
	case a.stop == nil && !aside:
		var mine bool
		if err := a.conn.QueryRow(ctx, "SELECT pg_try_advisory_lock($1)", a.lead).Scan(&mine); err != nil || !mine {
			return err
		}
		return a.begin(ctx)
	}
	return nil
}

// begin leads. From the moment the term is another one, whoever led before can
// write nothing more, even if nobody could tell him. If he did not say that he
// had ended, he has a moment to notice.
func (a *ear) begin(ctx context.Context) error {
	b := make([]byte, 8)
	rand.Read(b)
	a.term = int64(binary.BigEndian.Uint64(b)) | 1 // a count could be given twice when a standby takes over
	var former int64
	if err := a.s.Write(ctx, func(tx *Tx) error {
		former = tx.turn.term
		_, err := tx.exec("UPDATE writer SET term = $1", a.term)
		return err
	}); err != nil { // then nobody can do anything now
		_, err := a.conn.Exec(ctx, "SELECT pg_advisory_unlock($1)", a.lead)
		return err
	}
	lead, stop := context.WithCancel(context.WithValue(context.Background(), termKey{}, a.term))
	a.stop, a.over = stop, make(chan struct{})
	go func() {
		defer close(a.over)
		if former != 0 {
			t := time.NewTimer(earBeat)
			defer t.Stop()
			select {
			case <-lead.Done():
				return
			case <-t.C:
			}
		}
		a.l.Lead(lead)
	}()
	return nil
}

// leave ends the lead, and says so to whoever leads next.
func (a *ear) leave() {
	if a.stop == nil {
		return
	}
	a.stop()
	<-a.over
	a.stop = nil
	ctx, cancel := context.WithTimeout(context.Background(), earLimit)
	defer cancel()
	// Where it fails, the next one waits a moment.
	a.s.Write(ctx, func(tx *Tx) error {
		_, err := tx.exec("UPDATE writer SET term = 0 WHERE term = $1", a.term)
		return err
	})
}
