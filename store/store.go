// Package store remembers. Only a Tx has queries, so every read and write is in
// a transaction, and SQL is found in one file per noun. The SQL is the same on
// every engine: database/sql with $n parameters.
package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"reflect"
	"time"

	"github.com/pressly/goose/v3"

	"quire"
)

//go:embed sqlite/*.sql postgres/*.sql
var migrations embed.FS

// Store is an open database: many readers, one writer.
type Store struct {
	engine
	read, write *sql.DB
	limit       time.Duration // within which the engine answers, whatever is asked; 0: it is in this process
}

// An engine is what differs between databases. It is chosen once, by the address.
type engine interface {
	name() string // of the directory with its schema
	goose() (goose.Dialect, []goose.ProviderOption, error)
	// begin makes a fresh transaction one that may write, alone among all
	// processes.
	begin(ctx context.Context, tx *sql.Tx) (turn, error)
	committed(turn)
	// say hands words to the other processes, with the commit. listen hears them.
	say(ctx context.Context, tx *sql.Tx, words []string) error
	listen(ctx context.Context, s *Store, l Listener) error
	// statement runs one that may fail, so that the transaction can go on after it.
	statement(ctx context.Context, tx *sql.Tx, f func() error) error
	// snapshot and change are the options of a transaction that reads or writes.
	snapshot() *sql.TxOptions
	change() *sql.TxOptions
	// text is a text as the engine can hold it.
	text(string) string
	// broken says that a connection ended, and what was begun on it with it.
	broken(error) bool
	// failed gives an error of the driver its kind, nil if it is not one.
	failed(error) error
}

// A turn is a transaction's as the one writer.
type turn struct {
	n    int64 // its number: it counts up with every commit
	term int64 // of who does the works
}

// Open opens (or makes) the database at an address and brings its schema up to
// date. An address is the path of a SQLite file, or a postgres:// URL.
func Open(ctx context.Context, address string) (*Store, error) {
	s, err := connect(ctx, address)
	if err != nil {
		return nil, err
	}
	if err := s.migrate(ctx); err != nil {
		s.Close()
		return nil, fmt.Errorf("database %s: %w", shown(address), err)
	}
	return s, nil
}

func connect(ctx context.Context, address string) (*Store, error) {
	if IsPostgres(address) {
		return connectPostgres(ctx, address)
	}
	return connectSQLite(address)
}

func (s *Store) migrate(ctx context.Context) error {
	dir, err := fs.Sub(migrations, s.name())
	if err != nil {
		return err
	}
	dialect, options, err := s.goose()
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(dialect, s.write, dir, options...)
	if err != nil {
		return err
	}
	have, err := p.GetDBVersion(ctx)
	if err != nil {
		return err
	}
	sources := p.ListSources()
	if newest := sources[len(sources)-1].Version; have > newest {
		return fmt.Errorf("its schema (%d) is newer than this program knows (%d): install the newer quire", have, newest)
	}
	_, err = p.Up(ctx)
	return err
}

// Close closes the database.
func (s *Store) Close() error { return errors.Join(s.read.Close(), s.write.Close()) }

// Read runs f in a read-only snapshot.
func (s *Store) Read(ctx context.Context, f func(*Tx) error) error {
	tx, err := s.start(ctx, s.read, s.snapshot(), nil)
	if err != nil {
		return err
	}
	defer tx.end()
	return f(tx)
}

// Write runs f as the only writer. When it returns nil, what f did is on disk.
// With a context that Listener.Lead was given it fails once another process leads.
func (s *Store) Write(ctx context.Context, f func(*Tx) error) error {
	tx, err := s.start(ctx, s.write, s.change(), s.begin)
	if err != nil {
		return err
	}
	defer tx.end()
	if term, leads := ctx.Value(termKey{}).(int64); leads && term != tx.turn.term {
		return quire.Unavailable("Another server process does this now.", errFenced)
	}
	if err := f(tx); err != nil {
		return err
	}
	if len(tx.words) > 0 {
		if err := tx.within(func() error { return s.say(tx.ctx, tx.tx, tx.words) }); err != nil {
			return tx.kind(err)
		}
	}
	if err := tx.within(tx.tx.Commit); err != nil {
		return tx.kind(err)
	}
	s.committed(tx.turn)
	return nil
}

// start begins a transaction. Connections that wait for their turn may have
// ended meanwhile; nothing was done on them yet, so the next one is taken until
// one is new.
func (s *Store) start(ctx context.Context, db *sql.DB, o *sql.TxOptions, begin func(context.Context, *sql.Tx) (turn, error)) (*Tx, error) {
	for tries := db.Stats().MaxOpenConnections; ; tries-- {
		t := &Tx{store: s, Now: time.Now().UTC().Truncate(time.Millisecond)}
		t.ctx, t.cancel = context.WithCancelCause(ctx)
		err := t.within(func() (err error) {
			if t.tx, err = db.BeginTx(t.ctx, o); err == nil && begin != nil {
				t.turn, err = begin(t.ctx, t.tx)
			}
			return err
		})
		if err == nil {
			return t, nil
		}
		again := tries > 0 && t.ctx.Err() == nil && s.broken(err)
		err = t.kind(err)
		t.end()
		if !again {
			return nil, err
		}
	}
}

// end undoes what was not committed.
func (t *Tx) end() {
	if t.tx != nil {
		t.within(t.tx.Rollback)
	}
	t.cancel(nil)
}

var errHung = errors.New("the database does not go on")

// within gives the transaction up when f, which asks the engine, takes too long:
// a machine may hang without breaking the connection.
func (t *Tx) within(f func() error) error {
	if t.store.limit > 0 {
		defer time.AfterFunc(t.store.limit, func() { t.cancel(errHung) }).Stop()
	}
	return f()
}

// kind is Store.kind, and knows what became of this transaction.
func (t *Tx) kind(err error) error {
	if err != nil && errors.Is(context.Cause(t.ctx), errHung) {
		return away(errors.Join(errHung, err))
	}
	return t.store.kind(err)
}

// kind gives database errors their kind. A unique violation is a conflict; the
// caller, who knows the field, writes the sentence.
func (s *Store) kind(err error) error {
	if err == nil {
		return nil
	}
	if k := s.failed(err); k != nil {
		return k
	}
	return err
}

func exists(err error) error {
	return &quire.Error{Kind: quire.KindConflict, Message: "It exists already.", Err: err}
}

// Tx is a transaction. Its methods are the only queries there are.
type Tx struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	tx     *sql.Tx
	store  *Store
	turn   turn      // of one that writes
	words  []string  // to be said
	Now    time.Time // the transaction's one notion of now, whole milliseconds
}

// exec runs a statement and reports whether it changed a row.
func (t *Tx) exec(query string, args ...any) (bool, error) {
	var r sql.Result
	err := t.within(func() error {
		return t.store.statement(t.ctx, t.tx, func() (err error) { r, err = t.tx.ExecContext(t.ctx, query, t.args(args)...); return err })
	})
	if err != nil {
		return false, t.kind(err)
	}
	n, err := r.RowsAffected()
	return n > 0, t.kind(err)
}

// args are the arguments with texts as the engine can hold them.
func (t *Tx) args(args []any) []any {
	out := make([]any, len(args))
	for i, a := range args {
		out[i] = a
		if v := reflect.ValueOf(a); v.Kind() == reflect.String {
			out[i] = t.store.text(v.String())
		}
	}
	return out
}

// query calls scan for every row.
func (t *Tx) query(scan func(func(...any) error) error, query string, args ...any) error {
	return t.kind(t.within(func() error {
		rows, err := t.tx.QueryContext(t.ctx, query, t.args(args)...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			if err := scan(rows.Scan); err != nil {
				return err
			}
		}
		return rows.Err()
	}))
}

// one scans exactly one row, or answers quire.NotFound(what).
func (t *Tx) one(what, query string, args []any, into ...any) error {
	err := t.within(func() error { return t.tx.QueryRowContext(t.ctx, query, t.args(args)...).Scan(into...) })
	if errors.Is(err, sql.ErrNoRows) {
		return quire.NotFound(what)
	}
	return t.kind(err)
}

// Times are Unix milliseconds, UTC.

func millis(t time.Time) int64 { return t.UnixMilli() }

func moment(ms int64) time.Time { return time.UnixMilli(ms).UTC() }

func momentOrNil(ms sql.NullInt64) *time.Time {
	if !ms.Valid {
		return nil
	}
	t := moment(ms.Int64)
	return &t
}

func millisOrNull(t *time.Time) sql.NullInt64 {
	if t == nil {
		return sql.NullInt64{}
	}
	return sql.NullInt64{Int64: millis(*t), Valid: true}
}
