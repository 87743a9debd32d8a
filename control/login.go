package control

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"strings"
	"time"

	"quire"
	"quire/store"
)

// Logins are signed-in browsers.
type Logins struct{ c *core }

// From says where a login comes from.
type From struct{ Address, Agent string }

// Entered is a fresh login with its two cookie values: Read is the Lax cookie
// that opens pages, Write the Strict cookie that every change needs besides.
type Entered struct {
	Read, Write string
	User        quire.User
	Login       quire.Login
	Expires     time.Time
}

var errWrong = &quire.Error{Kind: quire.KindUnknown, Message: "The name or the password is wrong.", Field: "password"}

// Enter checks name and password. Unknown names, wrong passwords and disabled
// accounts get one answer in one time.
func (l *Logins) Enter(ctx context.Context, name, password string, from From) (Entered, error) {
	name = strings.TrimSpace(name)
	if len(name) > 64 || len(password) > 1024 {
		return Entered{}, errWrong
	}
	var user quire.User
	var phc string
	account := tried(name)
	err := l.c.read(ctx, func(tx *store.Tx) (err error) {
		if user, err = tx.UserByName(name); err != nil {
			return err
		}
		account = string(user.ID)
		phc, err = tx.Password(user.ID)
		return err
	})
	if err != nil && quire.KindOf(err) != quire.KindNotFound {
		return Entered{}, err
	}
	if err := l.c.throttle.Begin(account, from.Address); err != nil {
		return Entered{}, err
	}
	ok, err := l.c.hasher.Check(ctx, password, phc)
	if err != nil {
		l.c.throttle.Dropped(account, from.Address)
		return Entered{}, err
	}
	by := quire.Actor{User: user.ID, Name: name, Address: from.Address}
	if !ok || user.Disabled {
		spray := l.c.throttle.Failed(account, from.Address)
		return Entered{}, l.c.failedLogin(ctx, by, account, spray)
	}
	l.c.throttle.Passed(account, from.Address)
	var in Entered
	err = l.c.write(ctx, by, func(tx *txn) error {
		// While we hashed, the account may have been disabled or its password changed.
		fresh, err := tx.User(user.ID)
		if err != nil || fresh.Disabled {
			return errWrong
		}
		if now, err := tx.Password(user.ID); err != nil || now != phc {
			return errWrong
		}
		if in, err = enter(tx, fresh, from); err != nil {
			return err
		}
		tx.tellTry(account, from.Address, true)
		return tx.event("login", "", from.Agent)
	})
	return in, err
}

func (c *core) failedLogin(ctx context.Context, by quire.Actor, account string, spray bool) error {
	err := c.write(ctx, by, func(tx *txn) error {
		tx.tellTry(account, by.Address, false)
		if spray {
			if err := tx.event("login.spray", "", "many accounts tried from one address"); err != nil {
				return err
			}
		}
		return tx.event("login.failed", "", "")
	})
	if err != nil {
		return err
	}
	return errWrong
}

func enter(tx *txn, user quire.User, from From) (Entered, error) {
	in := Entered{
		Read: quire.NewSecret(), Write: quire.NewSecret(), User: user, Expires: tx.Now.Add(quire.LoginLife),
		Login: quire.Login{ID: quire.NewLoginID(), User: user.ID, Created: tx.Now, LastSeen: tx.Now, Address: cutTo(from.Address, 64), Agent: cutTo(from.Agent, 200)},
	}
	return in, tx.AddLogin(in.Login, hash(in.Read), hash(in.Write))
}

func cutTo(s string, n int) string {
	if len(s) > n {
		return strings.ToValidUTF8(s[:n], "")
	}
	return s
}

// alive reports whether a login is within its limits.
func alive(l quire.Login, now time.Time) bool {
	return now.Sub(l.LastSeen) < quire.LoginIdle && now.Sub(l.Created) < quire.LoginLife
}

// seenEvery is how exactly LastSeen is kept: one write a minute, not one a page.
const seenEvery = time.Minute

// Resolve says who comes with a reading cookie.
func (l *Logins) Resolve(ctx context.Context, read string) (quire.Actor, error) {
	var login quire.Login
	var user quire.User
	err := l.c.read(ctx, func(tx *store.Tx) (err error) {
		login, user, _, err = tx.LoginByHash(hash(read))
		return err
	})
	if quire.KindOf(err) == quire.KindNotFound || err == nil && !alive(login, l.c.Now()) {
		return quire.Nobody, quire.Unauthenticated()
	}
	if err != nil {
		return quire.Nobody, err
	}
	by := quire.Actor{User: user.ID, Name: user.Name, Login: login.ID, Admin: user.Admin, Address: login.Address}
	if l.c.Now().Sub(login.LastSeen) > seenEvery {
		err = l.c.write(ctx, by, func(tx *txn) error { return tx.SeeLogin(login.ID) })
		if quire.KindOf(err) == quire.KindUnknown {
			return quire.Nobody, err
		}
		if err != nil { // a full disk must not make pages unreadable
			l.c.Log.Warn("login not noted as seen", "err", err)
		}
	}
	return by, nil
}

// MayWrite reports whether the writing cookie belongs to the reading one.
func (l *Logins) MayWrite(ctx context.Context, read, write string) (ok bool) {
	err := l.c.read(ctx, func(tx *store.Tx) error {
		_, _, want, err := tx.LoginByHash(hash(read))
		ok = subtle.ConstantTimeCompare([]byte(want), []byte(hash(write))) == 1
		return err
	})
	return err == nil && ok
}

// FormToken is a word bound to the login, for forms on sites whose browsers send
// neither Sec-Fetch-Site nor Origin.
func (l *Logins) FormToken(by quire.Actor) string {
	mac := hmac.New(sha256.New, l.c.formKey)
	mac.Write([]byte(by.Login))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// CheckFormToken reports whether the word is the login's.
func (l *Logins) CheckFormToken(by quire.Actor, token string) bool {
	return by.Login != "" && hmac.Equal([]byte(token), []byte(l.FormToken(by)))
}

// Leave ends the actor's login: its pages, its app cookies, its sockets. Kernels
// and shells go on.
func (l *Logins) Leave(ctx context.Context, by quire.Actor) error {
	if by.Login == "" {
		return nil
	}
	return l.end(ctx, by, by.Login, "logout")
}

// LeaveAll ends all logins of the actor.
func (l *Logins) LeaveAll(ctx context.Context, by quire.Actor) error {
	if err := needPerson(by); err != nil {
		return err
	}
	return l.c.write(ctx, by, func(tx *txn) error {
		if err := l.c.endAll(tx, quire.User{ID: by.User}, "", false); err != nil {
			return err
		}
		return tx.event("logout.all", "", "")
	})
}

// List lists the actor's logins.
func (l *Logins) List(ctx context.Context, by quire.Actor) (ls []quire.Login, err error) {
	if err := needPerson(by); err != nil {
		return nil, err
	}
	err = l.c.read(ctx, func(tx *store.Tx) error {
		ls, err = tx.Logins(by.User)
		return err
	})
	return ls, err
}

// End ends one of the actor's logins.
func (l *Logins) End(ctx context.Context, by quire.Actor, id quire.LoginID) error {
	if err := needPerson(by); err != nil {
		return err
	}
	return l.end(ctx, by, id, "login.end")
}

func (l *Logins) end(ctx context.Context, by quire.Actor, id quire.LoginID, verb string) error {
	return l.c.write(ctx, by, func(tx *txn) error {
		login, err := tx.Login(id)
		if err != nil {
			return err
		}
		if login.User != by.User {
			return quire.NotFound("login")
		}
		if _, err := tx.EndLogin(id); err != nil {
			return err
		}
		if err := l.c.revoke(tx, login.User, "", id); err != nil {
			return err
		}
		tx.touch("") // open event streams look again whether their login lives
		return tx.event(verb, "", login.Agent)
	})
}
