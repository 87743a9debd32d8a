package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// moveOrder are all tables, those that others refer to first.
var moveOrder = []string{
	"users", "logins", "setup_links", "data_centers", "nodes", "projects", "members", "stars", "labels", "sessions", "works",
	"revocations", "events", "settings", "accounts", "lowered", "moved", "peers", "join_tokens", "away", "leftovers",
}

// numbered are the tables whose rows get their number from the database.
var numbered = []string{"revocations", "events"}

// A table is its name and its columns, sorted.
type table struct {
	Name    string
	Columns []string
}

// tables lists what a database holds of ours.
func (s *Store) tables(ctx context.Context, db interface {
	QueryContext(context.Context, string, ...any) (*sql.Rows, error)
}) (all []table, err error) {
	query := map[string]string{
		"sqlite": `SELECT m.name, c.name FROM sqlite_master m JOIN pragma_table_info(m.name) c WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite_%' AND m.name <> 'writer' ORDER BY m.name, c.name`,
		"postgres": `SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = current_schema() AND table_name <> 'writer'
			ORDER BY table_name COLLATE "C", column_name COLLATE "C"`,
	}[s.name()]
	rows, err := db.QueryContext(ctx, query)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var name, column string
		if err := rows.Scan(&name, &column); err != nil {
			return nil, err
		}
		if strings.HasPrefix(name, "goose_") {
			continue
		}
		if len(all) == 0 || all[len(all)-1].Name != name {
			all = append(all, table{Name: name})
		}
		all[len(all)-1].Columns = append(all[len(all)-1].Columns, column)
	}
	return all, rows.Err()
}

// A Moved is one table of a move.
type Moved struct {
	Table string
	Rows  int64
}

// Move copies everything from one database into another one, which must be
// empty, in one transaction, and compares what arrived with what was sent, row by
// row. Nothing else may write to the first one meanwhile. A move that was
// interrupted has left nothing behind and is begun again.
func Move(ctx context.Context, from, to string) (moved []Moved, err error) {
	src, err := Open(ctx, from)
	if err != nil {
		return nil, err
	}
	defer src.Close()
	dst, err := Open(ctx, to)
	if err != nil {
		return nil, err
	}
	defer dst.Close()
	snap, err := src.read.BeginTx(ctx, src.snapshot())
	if err != nil {
		return nil, err
	}
	defer snap.Rollback()
	tx, err := dst.write.BeginTx(ctx, nil)
	if err != nil {
		return nil, err
	}
	defer tx.Rollback()
	// Whoever else would write into it waits, and is told that it is busy.
	if _, err := dst.begin(ctx, tx); err != nil {
		return nil, dst.kind(err)
	}
	for at, s := range map[*sql.Tx]*Store{snap: src, tx: dst} {
		if s.name() == "postgres" { // a large table takes longer than a click
			if _, err := at.ExecContext(ctx, "SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0"); err != nil {
				return nil, err
			}
		}
	}
	list, err := src.tables(ctx, snap)
	if err != nil {
		return nil, err
	}
	for _, name := range moveOrder {
		i := slices.IndexFunc(list, func(t table) bool { return t.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("there is no table %s", name)
		}
		n, err := dst.take(ctx, snap, tx, list[i])
		if err != nil {
			return nil, fmt.Errorf("table %s: %w", name, err)
		}
		moved = append(moved, Moved{name, n})
	}
	// Gateways know the count of commits as the age of what they were told.
	var n int64
	if err := snap.QueryRowContext(ctx, "SELECT n FROM writer").Scan(&n); err != nil {
		return nil, err
	}
	if _, err := tx.ExecContext(ctx, "UPDATE writer SET n = $1 WHERE n < $1", n+1); err != nil {
		return nil, err
	}
	if dst.name() == "postgres" {
		for _, name := range numbered {
			if _, err := tx.ExecContext(ctx, fmt.Sprintf(`SELECT setval(pg_get_serial_sequence('%s', 'seq'), (SELECT COALESCE(MAX(seq), 0) + 1 FROM %s), FALSE)`, name, name)); err != nil {
				return nil, err
			}
		}
	}
	return moved, tx.Commit()
}

var errNotEmpty = errors.New("there is something in it already: a move needs an empty database")

// take copies one table and checks it.
func (s *Store) take(ctx context.Context, from, to *sql.Tx, t table) (int64, error) {
	columns := strings.Join(t.Columns, ", ")
	var have int64
	if err := to.QueryRowContext(ctx, "SELECT COUNT(*) FROM "+t.Name).Scan(&have); err != nil {
		return 0, err
	}
	if have > 0 {
		return 0, errNotEmpty
	}
	places := make([]string, len(t.Columns))
	for i := range places {
		places[i] = fmt.Sprintf("$%d", i+1)
	}
	insert, err := to.PrepareContext(ctx, "INSERT INTO "+t.Name+" ("+columns+") VALUES ("+strings.Join(places, ", ")+")")
	if err != nil {
		return 0, err
	}
	defer insert.Close()
	truth, err := booleans(ctx, to, t)
	if err != nil {
		return 0, err
	}
	sent, n, err := each(ctx, from, t, truth, s.text, func(row []any) error { _, err := insert.ExecContext(ctx, row...); return err })
	if err != nil {
		return 0, err
	}
	arrived, m, err := each(ctx, to, t, truth, s.text, nil)
	if err == nil && (m != n || arrived != sent) {
		err = fmt.Errorf("%d rows were sent and %d arrived, or not as they were", n, m)
	}
	return n, err
}

// booleans finds the columns that hold truth: SQLite has numbers in them.
func booleans(ctx context.Context, tx *sql.Tx, t table) (map[int]bool, error) {
	rows, err := tx.QueryContext(ctx, "SELECT "+strings.Join(t.Columns, ", ")+" FROM "+t.Name+" WHERE FALSE")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	types, err := rows.ColumnTypes()
	if err != nil {
		return nil, err
	}
	truth := map[int]bool{}
	for i, c := range types {
		truth[i] = strings.HasPrefix(c.DatabaseTypeName(), "BOOL")
	}
	return truth, rows.Err()
}

// each calls f for every row, with texts as the other side can hold them, and
// returns a sum over all rows that does not depend on their order.
func each(ctx context.Context, tx *sql.Tx, t table, truth map[int]bool, clean func(string) string, f func([]any) error) (sum [4]uint64, n int64, err error) {
	rows, err := tx.QueryContext(ctx, "SELECT "+strings.Join(t.Columns, ", ")+" FROM "+t.Name)
	if err != nil {
		return sum, 0, err
	}
	defer rows.Close()
	row, into := make([]any, len(t.Columns)), make([]any, len(t.Columns))
	for i := range row {
		into[i] = &row[i]
	}
	var all [][]any
	for ; rows.Next(); n++ {
		if err := rows.Scan(into...); err != nil {
			return sum, n, err
		}
		text := ""
		for i, v := range row {
			switch x := v.(type) {
			case []byte:
				row[i] = clean(string(x))
			case string:
				row[i] = clean(x)
			case int64:
				if truth[i] {
					row[i] = x != 0
				}
			}
			text += fmt.Sprintf("%d:%T:%v\x00", len(fmt.Sprint(row[i])), row[i], row[i])
		}
		h := sha256.Sum256([]byte(text))
		for i := range sum {
			sum[i] += binary.LittleEndian.Uint64(h[8*i:])
		}
		if f != nil {
			all = append(all, slices.Clone(row))
		}
	}
	if err := rows.Err(); err != nil {
		return sum, n, err
	}
	for _, r := range all {
		if err := f(r); err != nil {
			return sum, n, err
		}
	}
	return sum, n, nil
}
