package store

import (
	"context"
	"crypto/rand"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"quire"
)

// IsPostgres reports whether an address is one of PostgreSQL.
func IsPostgres(address string) bool {
	return strings.HasPrefix(address, "postgres://") || strings.HasPrefix(address, "postgresql://")
}

// shown is an address as it may stand in a log.
func shown(address string) string {
	if u, err := url.Parse(address); IsPostgres(address) && err == nil {
		return u.Redacted()
	}
	return address
}

// postgresEngine is a database that several processes may share. The one writer
// is whoever holds the one row of the table writer: each writing transaction
// updates it first, so writers follow one another in the order of their commits,
// as with SQLite, and what is read before something is written cannot change
// meanwhile. The row also counts commits. A count that is lower than one that was
// seen means that the database has lost commits that were acknowledged: a standby
// was promoted that had not heard of them. Nothing is written then until an
// administrator has looked and restarted the server.
type postgresEngine struct {
	conf *pgx.ConnConfig // of the connection that listens
	self string          // what this process says begins with it

	mu   sync.Mutex
	seen int64 // the highest count that was committed
	lost bool
}

const (
	dbConnect   = 2 * time.Second
	dbStatement = "5s"            // no click takes longer
	dbAnswer    = 8 * time.Second // by then it has given up itself, unless it hangs
	dbIdle      = "10s"           // whoever is stopped in the middle of a change keeps all others waiting
)

func connectPostgres(ctx context.Context, address string) (*Store, error) {
	conf, err := pgx.ParseConfig(address)
	if err != nil {
		return nil, fmt.Errorf("the database's address %s: %w", shown(address), err)
	}
	conf.ConnectTimeout = dbConnect
	for name, value := range map[string]string{
		"application_name": "quire", "lock_timeout": dbStatement, "idle_in_transaction_session_timeout": dbIdle, "synchronous_commit": "on", "timezone": "UTC",
	} {
		conf.RuntimeParams[name] = value
	}
	// Making the schema may take longer than a statement of a click.
	write := stdlib.OpenDB(*conf)
	quick := conf.Copy()
	quick.RuntimeParams["statement_timeout"] = dbStatement
	quick.RuntimeParams["default_transaction_read_only"] = "on"
	read := stdlib.OpenDB(*quick)
	write.SetMaxOpenConns(4) // they follow one another; the rest waits here and not at the lock
	read.SetMaxOpenConns(max(8, 4*runtime.NumCPU()))
	for _, db := range []*sql.DB{read, write} {
		db.SetConnMaxLifetime(5 * time.Minute) // a name may lead to another machine by then
	}
	ear := conf.Copy()
	ear.RuntimeParams["statement_timeout"] = dbStatement
	ear.RuntimeParams["application_name"] = "quire listening"
	s := &Store{engine: &postgresEngine{conf: ear, self: rand.Text()}, read: read, write: write, limit: dbAnswer}
	if err := fit(ctx, write); err != nil {
		s.Close()
		return nil, fmt.Errorf("database %s: %w", shown(address), err)
	}
	return s, nil
}

// fit refuses a database that does not keep what it was given, or not as it was.
func fit(ctx context.Context, db *sql.DB) error {
	for _, want := range []struct{ name, value, why string }{
		{"server_encoding", "UTF8", "make the database anew with ENCODING 'UTF8' TEMPLATE template0"},
		{"fsync", "on", "a power cut would lose what people were told is saved"},
		{"full_page_writes", "on", "a power cut could break the database"},
	} {
		var have string
		if err := db.QueryRowContext(ctx, `SELECT current_setting($1)`, want.name).Scan(&have); err != nil {
			return err
		}
		if have != want.value {
			return fmt.Errorf("its %s is %s and must be %s: %s", want.name, have, want.value, want.why)
		}
	}
	return nil
}

func (*postgresEngine) name() string { return "postgres" }

// goose makes servers that start at once make the schema one after the other.
func (*postgresEngine) goose() (goose.Dialect, []goose.ProviderOption, error) {
	locker, err := lock.NewPostgresSessionLocker()
	return goose.DialectPostgres, []goose.ProviderOption{goose.WithSessionLocker(locker)}, err
}

func (*postgresEngine) snapshot() *sql.TxOptions {
	return &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true}
}

// change has every statement see what was committed while begin waited, whatever
// isolation the role is given.
func (*postgresEngine) change() *sql.TxOptions {
	return &sql.TxOptions{Isolation: sql.LevelReadCommitted}
}

// text: PostgreSQL holds no zero bytes and nothing that is not UTF-8.
func (*postgresEngine) text(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}

var errLost = errors.New("the database has fewer commits than were acknowledged")

func (e *postgresEngine) begin(ctx context.Context, tx *sql.Tx) (t turn, err error) {
	if _, err := tx.ExecContext(ctx, "SET LOCAL statement_timeout = '"+dbStatement+"'"); err != nil {
		return t, err
	}
	if err := tx.QueryRowContext(ctx, "UPDATE writer SET n = n + 1 RETURNING n, term").Scan(&t.n, &t.term); err != nil {
		return t, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	// Nobody else held the row when n was read, so every commit that was seen has a
	// lower number.
	if e.lost = e.lost || t.n <= e.seen; e.lost {
		return t, errLost
	}
	e.seen = t.n - 1
	return t, nil
}

func (e *postgresEngine) committed(t turn) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.seen = max(e.seen, t.n)
}

// statement puts a savepoint before: after an error PostgreSQL refuses everything
// else in a transaction, where SQLite goes on.
func (*postgresEngine) statement(ctx context.Context, tx *sql.Tx, f func() error) error {
	if _, err := tx.ExecContext(ctx, "SAVEPOINT s"); err != nil {
		return err
	}
	if err := f(); err != nil {
		if _, e := tx.ExecContext(ctx, "ROLLBACK TO SAVEPOINT s"); e != nil {
			return errors.Join(err, e)
		}
		return err
	}
	_, err := tx.ExecContext(ctx, "RELEASE SAVEPOINT s")
	return err
}

func (e *postgresEngine) failed(err error) error {
	if errors.Is(err, errLost) {
		return quire.Unavailable("The database has lost changes that were made before, perhaps because a standby has taken over. Nothing is changed until an administrator has looked at it and restarted the server.", err)
	}
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		switch {
		case pe.Code == "23505": // unique_violation; all codes: PostgreSQL's manual, appendix A
			return exists(err)
		case pe.Code == "53100":
			return quire.Unavailable("The disk of the database is full. Nothing was changed. Tell an administrator.", err)
		case pe.Code == "25006":
			return quire.Unavailable("The database is a standby and takes no changes just now. Try again in a moment.", err)
		case pe.Code == "57014", pe.Code == "55P03", strings.HasPrefix(pe.Code, "40"):
			return quire.Unavailable("The database is busy. Try again in a moment.", err)
		case strings.HasPrefix(pe.Code, "57P"), strings.HasPrefix(pe.Code, "08"), strings.HasPrefix(pe.Code, "53"):
			return away(err)
		}
		return nil
	}
	var ce *pgconn.ConnectError
	var ne net.Error
	if errors.As(err, &ce) || errors.As(err, &ne) || e.broken(err) || pgconn.SafeToRetry(err) {
		return away(err)
	}
	return nil
}

func (*postgresEngine) broken(err error) bool {
	var pe *pgconn.PgError
	if errors.As(err, &pe) { // it was told to end, or its machine broke off
		return pe.Code == "57P01" || pe.Code == "57P02" || pe.Code == "57P05" || pe.Code == "25P03" || strings.HasPrefix(pe.Code, "08")
	}
	var ce *pgconn.ConnectError
	if errors.As(err, &ce) {
		return false // there is none yet
	}
	var oe *net.OpError
	return errors.As(err, &oe) || errors.Is(err, driver.ErrBadConn) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) ||
		strings.Contains(err.Error(), "conn closed")
}

func away(err error) error {
	return quire.Unavailable("The database does not answer. Try again in a moment, and look first whether the change was made.", err)
}
