package store

import (
	"time"

	"quire"
)

const loginColumns = "l.id, l.user_id, l.created, l.last_seen, l.address, l.agent"

// AddLogin stores a signed-in browser; the cookies only as hashes.
func (t *Tx) AddLogin(l quire.Login, readHash, writeHash string) error {
	_, err := t.exec(`INSERT INTO logins (id, user_id, read_hash, write_hash, created, last_seen, address, agent)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`,
		l.ID, l.User, readHash, writeHash, millis(l.Created), millis(l.LastSeen), l.Address, l.Agent)
	return err
}

// LoginByHash finds a login and its person by the hash of the reading cookie.
// Logins of disabled people are not found.
func (t *Tx) LoginByHash(readHash string) (l quire.Login, u quire.User, writeHash string, err error) {
	var created, seen, joined int64
	err = t.one("login", `SELECT `+loginColumns+`, l.write_hash, u.id, u.name, u.full_name, u.email, u.admin, u.disabled, u.created
		FROM logins l JOIN users u ON u.id = l.user_id WHERE l.read_hash = $1 AND u.disabled = FALSE`, []any{readHash},
		append([]any{&l.ID, &l.User, &created, &seen, &l.Address, &l.Agent, &writeHash}, userInto(&u, &joined)...)...)
	l.Created, l.LastSeen, u.Created = moment(created), moment(seen), moment(joined)
	return l, u, writeHash, err
}

// Login finds a login by ID.
func (t *Tx) Login(id quire.LoginID) (l quire.Login, err error) {
	var created, seen int64
	err = t.one("login", `SELECT `+loginColumns+` FROM logins l WHERE l.id = $1`, []any{id}, &l.ID, &l.User, &created, &seen, &l.Address, &l.Agent)
	l.Created, l.LastSeen = moment(created), moment(seen)
	return l, err
}

// Logins lists a person's logins, the last used first.
func (t *Tx) Logins(user quire.UserID) (ls []quire.Login, err error) {
	err = t.query(func(scan func(...any) error) error {
		var l quire.Login
		var created, seen int64
		if err := scan(&l.ID, &l.User, &created, &seen, &l.Address, &l.Agent); err != nil {
			return err
		}
		l.Created, l.LastSeen = moment(created), moment(seen)
		ls = append(ls, l)
		return nil
	}, `SELECT `+loginColumns+` FROM logins l WHERE l.user_id = $1 ORDER BY l.last_seen DESC`, user)
	return ls, err
}

// SeeLogin notes that a login was used.
func (t *Tx) SeeLogin(id quire.LoginID) error {
	_, err := t.exec(`UPDATE logins SET last_seen = $2 WHERE id = $1`, id, millis(t.Now))
	return err
}

// EndLogin forgets a login and reports whether there was one.
func (t *Tx) EndLogin(id quire.LoginID) (bool, error) {
	return t.exec(`DELETE FROM logins WHERE id = $1`, id)
}

// EndLogins forgets all logins of a person.
func (t *Tx) EndLogins(user quire.UserID) error {
	_, err := t.exec(`DELETE FROM logins WHERE user_id = $1`, user)
	return err
}

// EndOldLogins forgets logins that were idle or alive too long.
func (t *Tx) EndOldLogins(idle, life time.Duration) error {
	_, err := t.exec(`DELETE FROM logins WHERE last_seen < $1 OR created < $2`, millis(t.Now.Add(-idle)), millis(t.Now.Add(-life)))
	return err
}
