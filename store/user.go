package store

import (
	"strings"

	"quire"
)

const userColumns = "id, name, full_name, email, admin, disabled, created"

func userInto(u *quire.User, created *int64) []any {
	return []any{&u.ID, &u.Name, &u.FullName, &u.Email, &u.Admin, &u.Disabled, created}
}

// AddUser stores a new account. KindConflict if the name is taken, in any case
// of letters.
func (t *Tx) AddUser(u quire.User, password string) error {
	_, err := t.exec(`INSERT INTO users (id, name, name_key, full_name, email, admin, disabled, password, created)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
		u.ID, u.Name, strings.ToLower(u.Name), u.FullName, u.Email, u.Admin, u.Disabled, password, millis(u.Created))
	return err
}

// SaveUser stores everything of u but name and password.
func (t *Tx) SaveUser(u quire.User) error {
	_, err := t.exec(`UPDATE users SET full_name = $2, email = $3, admin = $4, disabled = $5 WHERE id = $1`,
		u.ID, u.FullName, u.Email, u.Admin, u.Disabled)
	return err
}

// AddVisitor stores an account that is no person's: nobody signs in to it, and
// lists of people leave it out.
func (t *Tx) AddVisitor(u quire.User) error {
	_, err := t.exec(`INSERT INTO users (id, name, name_key, full_name, email, admin, disabled, password, created, visitor)
		VALUES ($1, $2, $3, '', '', FALSE, TRUE, '', $4, TRUE)`, u.ID, u.Name, strings.ToLower(u.Name), millis(u.Created))
	return err
}

// Visitor finds such an account by its name.
func (t *Tx) Visitor(name string) (u quire.User, err error) {
	var created int64
	err = t.one("visitor", `SELECT `+userColumns+` FROM users WHERE name_key = $1 AND visitor`, []any{strings.ToLower(name)}, userInto(&u, &created)...)
	u.Created = moment(created)
	return u, err
}

// IsVisitor reports whether the account is no person's.
func (t *Tx) IsVisitor(id quire.UserID) (is bool, err error) {
	err = t.one("person", `SELECT visitor FROM users WHERE id = $1`, []any{id}, &is)
	return is, err
}

// User finds an account by its ID.
func (t *Tx) User(id quire.UserID) (u quire.User, err error) {
	var created int64
	err = t.one("person", `SELECT `+userColumns+` FROM users WHERE id = $1`, []any{id}, userInto(&u, &created)...)
	u.Created = moment(created)
	return u, err
}

// UserByName finds an account by its name in any case of letters.
func (t *Tx) UserByName(name string) (u quire.User, err error) {
	var created int64
	err = t.one("person", `SELECT `+userColumns+` FROM users WHERE name_key = $1 AND NOT visitor`, []any{strings.ToLower(name)}, userInto(&u, &created)...)
	u.Created = moment(created)
	return u, err
}

// Users lists all accounts by name.
func (t *Tx) Users() (us []quire.User, err error) {
	err = t.query(func(scan func(...any) error) error {
		var u quire.User
		var created int64
		if err := scan(userInto(&u, &created)...); err != nil {
			return err
		}
		u.Created = moment(created)
		us = append(us, u)
		return nil
	}, `SELECT `+userColumns+` FROM users WHERE NOT visitor ORDER BY name_key`)
	return us, err
}

// UserNames lists up to n names of enabled accounts that start with prefix.
func (t *Tx) UserNames(prefix string, n int) (names []string, err error) {
	low := strings.ToLower(prefix)
	err = t.query(func(scan func(...any) error) error {
		var s string
		if err := scan(&s); err != nil {
			return err
		}
		names = append(names, s)
		return nil
	}, `SELECT name FROM users WHERE disabled = FALSE AND name_key >= $1 AND name_key < $2 ORDER BY name_key LIMIT $3`, low, low+"\U0010FFFF", n)
	return names, err
}

// CountUsers says how many accounts there are, and how many enabled admins.
func (t *Tx) CountUsers() (all, admins int, err error) {
	err = t.one("count", `SELECT COUNT(*), COALESCE(SUM(CASE WHEN admin AND NOT disabled THEN 1 ELSE 0 END), 0) FROM users WHERE NOT visitor`, nil, &all, &admins)
	return all, admins, err
}

// Password returns the stored hash.
func (t *Tx) Password(id quire.UserID) (hash string, err error) {
	err = t.one("person", `SELECT password FROM users WHERE id = $1`, []any{id}, &hash)
	return hash, err
}

// SetPassword stores a hash.
func (t *Tx) SetPassword(id quire.UserID, hash string) error {
	_, err := t.exec(`UPDATE users SET password = $2 WHERE id = $1`, id, hash)
	return err
}

// AddSetupLink stores the hash of a one-time link.
func (t *Tx) AddSetupLink(hash string, expires int64) error {
	_, err := t.exec(`INSERT INTO setup_links (hash, expires) VALUES ($1, $2)`, hash, expires)
	return err
}

// HasSetupLink reports whether the link is still good.
func (t *Tx) HasSetupLink(hash string) (bool, error) {
	var n int
	err := t.one("link", `SELECT COUNT(*) FROM setup_links WHERE hash = $1 AND expires > $2`, []any{hash, millis(t.Now)}, &n)
	return n == 1, err
}

// UseSetupLink takes the link away and reports whether it was good.
func (t *Tx) UseSetupLink(hash string) (bool, error) {
	return t.exec(`DELETE FROM setup_links WHERE hash = $1 AND expires > $2`, hash, millis(t.Now))
}
