package store

import (
	"context"
	"database/sql"
	"errors"
	"net/url"
	"path/filepath"
	"runtime"

	"github.com/pressly/goose/v3"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"quire"
)

// sqliteEngine is a file of this process alone. Its one writer is the one
// connection that may write.
//
// synchronous=FULL: what was acknowledged survives a power cut. NORMAL loses
// acknowledged commits, which was measured (decisions/ has the figures).
type sqliteEngine struct{}

func connectSQLite(file string) (*Store, error) {
	abs, err := filepath.Abs(file)
	if err != nil {
		return nil, err
	}
	dsn := func(mode, queryOnly string) string {
		q := url.Values{"_pragma": {"busy_timeout(5000)", "journal_mode(WAL)", "synchronous(FULL)", "foreign_keys(ON)", "temp_store(MEMORY)", "query_only(" + queryOnly + ")"}}
		q.Set("_txlock", mode)
		return (&url.URL{Scheme: "file", Path: abs, RawQuery: q.Encode()}).String()
	}
	write, err := sql.Open("sqlite", dsn("immediate", "OFF"))
	if err != nil {
		return nil, err
	}
	write.SetMaxOpenConns(1)
	read, err := sql.Open("sqlite", dsn("deferred", "ON"))
	if err != nil {
		write.Close()
		return nil, err
	}
	read.SetMaxOpenConns(max(4, 2*runtime.NumCPU()))
	return &Store{engine: sqliteEngine{}, read: read, write: write}, nil
}

func (sqliteEngine) name() string { return "sqlite" }
func (sqliteEngine) goose() (goose.Dialect, []goose.ProviderOption, error) {
	return goose.DialectSQLite3, nil, nil
}
func (sqliteEngine) committed(turn)                                               {}
func (sqliteEngine) say(context.Context, *sql.Tx, []string) error                 { return nil }
func (sqliteEngine) statement(_ context.Context, _ *sql.Tx, f func() error) error { return f() }
func (sqliteEngine) snapshot() *sql.TxOptions                                     { return nil }
func (sqliteEngine) change() *sql.TxOptions                                       { return nil }
func (sqliteEngine) text(s string) string                                         { return s }
func (sqliteEngine) broken(error) bool                                            { return false }

func (sqliteEngine) begin(ctx context.Context, tx *sql.Tx) (t turn, err error) {
	err = tx.QueryRowContext(ctx, "UPDATE writer SET n = n + 1 RETURNING n").Scan(&t.n)
	return t, err
}

// listen: there is no other process, so this one leads and misses nothing.
func (sqliteEngine) listen(ctx context.Context, _ *Store, l Listener) error {
	l.Missed()
	l.Lead(ctx)
	return nil
}

func (sqliteEngine) failed(err error) error {
	var se *sqlite.Error
	if !errors.As(err, &se) {
		return nil
	}
	switch se.Code() {
	case sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY:
		return exists(err)
	case sqlite3.SQLITE_FULL:
		return quire.Unavailable("The disk of the server is full. Nothing was changed. Tell an administrator.", err)
	case sqlite3.SQLITE_BUSY:
		return quire.Unavailable("The database is busy. Try again in a moment.", err)
	}
	return nil
}
