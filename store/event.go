package store

import (
	"strings"
	"time"

	"quire"
)

// AddEvent writes what happened, in the transaction in which it happens. User
// strings are cut to 256 bytes.
func (t *Tx) AddEvent(e quire.Event) error {
	_, err := t.exec(`INSERT INTO events (at, actor, name, address, verb, project, detail) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
		millis(t.Now), e.Actor, cut(e.Name), cut(e.Address), e.Verb, e.Project, cut(e.Detail))
	return err
}

func cut(s string) string {
	if len(s) > 256 {
		return strings.ToValidUTF8(s[:256], "")
	}
	return s
}

func (t *Tx) events(where string, args ...any) (es []quire.Event, err error) {
	err = t.query(func(scan func(...any) error) error {
		var e quire.Event
		var at int64
		if err := scan(&e.Seq, &at, &e.Actor, &e.Name, &e.Address, &e.Verb, &e.Project, &e.Detail); err != nil {
			return err
		}
		e.Time = moment(at)
		es = append(es, e)
		return nil
	}, `SELECT seq, at, actor, name, address, verb, project, detail FROM events `+where, args...)
	return es, err
}

// EventsOf lists up to n events of a project before a number, newest first.
func (t *Tx) EventsOf(project quire.ProjectID, before int64, n int) ([]quire.Event, error) {
	return t.events(`WHERE project = $1 AND seq < $2 ORDER BY seq DESC LIMIT $3`, project, before, n)
}

// EventsBy lists up to n events of a person before a number, newest first.
func (t *Tx) EventsBy(actor quire.UserID, before int64, n int) ([]quire.Event, error) {
	return t.events(`WHERE actor = $1 AND seq < $2 ORDER BY seq DESC LIMIT $3`, actor, before, n)
}

// Revoke writes a revocation: in the transaction that lowers the right.
func (t *Tx) Revoke(user quire.UserID, project quire.ProjectID, login quire.LoginID) error {
	_, err := t.exec(`INSERT INTO revocations (user_id, project, login, at) VALUES ($1, $2, $3, $4)`, user, project, login, millis(t.Now))
	return err
}

// Revocations lists those after a number and not older than max.
func (t *Tx) Revocations(after int64, max time.Duration) (rs []quire.Revocation, err error) {
	err = t.query(func(scan func(...any) error) error {
		var r quire.Revocation
		var at int64
		if err := scan(&r.Seq, &r.User, &r.Project, &r.Login, &at); err != nil {
			return err
		}
		r.At = moment(at)
		rs = append(rs, r)
		return nil
	}, `SELECT seq, user_id, project, login, at FROM revocations WHERE seq > $1 AND at > $2 ORDER BY seq`, after, millis(t.Now.Add(-max)))
	return rs, err
}

// FeedSeq is the number of the newest revocation, 0 before the first.
func (t *Tx) FeedSeq() (seq int64, err error) {
	err = t.one("feed", `SELECT COALESCE(MAX(seq), 0) FROM revocations`, nil, &seq)
	return seq, err
}
