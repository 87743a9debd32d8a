package control

import (
	"context"
	"strings"
	"time"

	"quire"
	"quire/login"
	"quire/store"
)

// Users are the accounts of the installation.
type Users struct{ c *core }

// NewUser is what it takes to make an account.
type NewUser struct {
	Name, FullName, Email, Password string
	Admin                           bool
}

// UserChange holds what to change; nil fields stay.
type UserChange struct {
	FullName, Email *string
	Admin, Disabled *bool
}

const setupLinkLife = 24 * time.Hour

// SetupNeeded reports whether nobody has an account yet.
func (u *Users) SetupNeeded(ctx context.Context) (needed bool, err error) {
	err = u.c.read(ctx, func(tx *store.Tx) error {
		all, _, err := tx.CountUsers()
		needed = all == 0
		return err
	})
	return needed, err
}

// NewSetupLink makes a secret that lets its bearer make one administrator.
func (u *Users) NewSetupLink(ctx context.Context, by quire.Actor) (string, error) {
	if err := needAdmin(by); err != nil {
		return "", err
	}
	secret := quire.NewSecret()
	return secret, u.c.write(ctx, by, func(tx *txn) error {
		if err := tx.AddSetupLink(hash(secret), tx.Now.Add(setupLinkLife).UnixMilli()); err != nil {
			return err
		}
		return tx.event("setup.link", "", "")
	})
}

var errSetupLink = &quire.Error{Kind: quire.KindNotFound, Message: `This set-up link was used already or is over. "quire admin setup-link" on the server makes another one.`}

// CheckSetup reports, as an error, that a set-up link is no good.
func (u *Users) CheckSetup(ctx context.Context, secret string) error {
	return u.c.read(ctx, func(tx *store.Tx) error {
		ok, err := tx.HasSetupLink(hash(secret))
		if err == nil && !ok {
			err = errSetupLink
		}
		return err
	})
}

// Setup turns a set-up link into an administrator who is signed in. The first
// one also gets the Welcome project, already starting.
func (u *Users) Setup(ctx context.Context, secret, name, password string, from From) (Entered, quire.Project, error) {
	var in Entered
	var p quire.Project
	if err := u.CheckSetup(ctx, secret); err != nil {
		return in, p, err
	}
	user, phc, err := u.prepare(ctx, NewUser{Name: name, Password: password, Admin: true})
	if err != nil {
		return in, p, err
	}
	by := quire.Actor{User: user.ID, Name: user.Name, Admin: true, Address: from.Address}
	err = u.c.write(ctx, by, func(tx *txn) error {
		ok, err := tx.UseSetupLink(hash(secret))
		if err != nil {
			return err
		}
		if !ok {
			return errSetupLink
		}
		all, _, err := tx.CountUsers()
		if err != nil {
			return err
		}
		if err := addUser(tx, user, phc); err != nil {
			return err
		}
		if in, err = enter(tx, user, from); err != nil {
			return err
		}
		if err := tx.event("setup", "", user.Name); err != nil {
			return err
		}
		if all > 0 {
			return nil
		}
		// On a server that stands alone there is nowhere to put a project yet.
		if nodes, err := tx.Nodes(); err != nil || len(nodes) == 0 {
			return err
		}
		p, err = u.c.newProject(tx, by, NewProject{
			Name: "Welcome", Summary: "A first look at Quire: open the notebook and run it.", Description: welcomeText,
		})
		if err != nil {
			return err
		}
		return u.c.begin(tx, by, p, "start")
	})
	return in, p, err
}

const welcomeText = `This project shows what Quire does.

- Open **JupyterLab** and run *Welcome.ipynb* cell by cell.
- Open **Terminal**: it is a real shell in the project's directory.
- Files in ` + "`public/`" + ` are meant for everybody; the rest belongs to the team.

Change this text under *Settings*, or delete the project when you have seen enough.`

// Create makes an account; only administrators do.
func (u *Users) Create(ctx context.Context, by quire.Actor, n NewUser) (quire.User, error) {
	if err := needAdmin(by); err != nil {
		return quire.User{}, err
	}
	user, phc, err := u.prepare(ctx, n)
	if err != nil {
		return quire.User{}, err
	}
	return user, u.c.write(ctx, by, func(tx *txn) error {
		if err := addUser(tx, user, phc); err != nil {
			return err
		}
		return tx.event("user.create", "", user.Name)
	})
}

func (u *Users) prepare(ctx context.Context, n NewUser) (quire.User, string, error) {
	if err := quire.CheckUserName(n.Name, u.c.DigitNames); err != nil {
		return quire.User{}, "", err
	}
	if strings.EqualFold(n.Name, u.c.VisitorName) {
		return quire.User{}, "", quire.Invalid("name", "This is the name of the account that reads public folders. Choose another one.")
	}
	if err := login.CheckNew(n.Name, n.Password); err != nil {
		return quire.User{}, "", err
	}
	phc, err := u.c.hasher.Hash(ctx, n.Password)
	return quire.User{
		ID: quire.NewUserID(), Name: n.Name, FullName: strings.TrimSpace(n.FullName), Email: strings.TrimSpace(n.Email), Admin: n.Admin, Created: u.c.Now(),
	}, phc, err
}

func addUser(tx *txn, user quire.User, phc string) error {
	err := tx.AddUser(user, phc)
	if quire.KindOf(err) == quire.KindConflict {
		return quire.Conflict("name", "Somebody has this name already, perhaps in other capitals.")
	}
	return err
}

// List lists all accounts, for administrators.
func (u *Users) List(ctx context.Context, by quire.Actor) (us []quire.User, err error) {
	if err := needAdmin(by); err != nil {
		return nil, err
	}
	err = u.c.read(ctx, func(tx *store.Tx) error {
		us, err = tx.Users()
		return err
	})
	return us, err
}

// ByName finds a person. Only administrators and the person see the e-mail.
func (u *Users) ByName(ctx context.Context, by quire.Actor, name string) (user quire.User, err error) {
	if err := needKnown(by); err != nil {
		return user, err
	}
	err = u.c.read(ctx, func(tx *store.Tx) error {
		user, err = tx.UserByName(name)
		return err
	})
	if !by.Admin && !by.System && user.ID != by.User {
		user.Email = ""
	}
	return user, err
}

// Complete lists up to ten names that start with prefix.
func (u *Users) Complete(ctx context.Context, by quire.Actor, prefix string) (names []string, err error) {
	if err := needPerson(by); err != nil {
		return nil, err
	}
	err = u.c.read(ctx, func(tx *store.Tx) error {
		names, err = tx.UserNames(prefix, 10)
		return err
	})
	return names, err
}

// Update changes an account: everybody the words of his own, administrators
// all of everybody's. The last administrator stays one.
func (u *Users) Update(ctx context.Context, by quire.Actor, id quire.UserID, ch UserChange) (user quire.User, err error) {
	if err := needKnown(by); err != nil {
		return user, err
	}
	if id != by.User || ch.Admin != nil || ch.Disabled != nil {
		if err := needAdmin(by); err != nil {
			return user, err
		}
	}
	err = u.c.write(ctx, by, func(tx *txn) error {
		if user, err = tx.User(id); err != nil {
			return err
		}
		before := user
		if ch.FullName != nil {
			user.FullName = strings.TrimSpace(*ch.FullName)
		}
		if ch.Email != nil {
			user.Email = strings.TrimSpace(*ch.Email)
		}
		if ch.Admin != nil {
			user.Admin = *ch.Admin
		}
		if ch.Disabled != nil {
			user.Disabled = *ch.Disabled
		}
		if len(user.FullName) > 200 || len(user.Email) > 200 {
			return quire.Invalid("full_name", "Names and addresses have at most 200 characters.")
		}
		if err := tx.SaveUser(user); err != nil {
			return err
		}
		lowered := before.Admin && !user.Admin || !before.Disabled && user.Disabled
		if _, admins, err := tx.CountUsers(); err != nil {
			return err
		} else if lowered && admins == 0 {
			return quire.Conflict("admin", "This is the last administrator. Make somebody else one first.")
		}
		if lowered {
			if err := u.c.endAll(tx, user, "an administrator", user.Disabled); err != nil {
				return err
			}
		}
		if before.Disabled != user.Disabled {
			if err := u.c.enabledOnDisk(tx, user); err != nil {
				return err
			}
		}
		return tx.event("user.update", "", user.Name)
	})
	return user, err
}

// enabledOnDisk has the directories of all a person's projects shut him out, and
// what he runs there end, or let him in again.
func (c *core) enabledOnDisk(tx *txn, user quire.User) error {
	in, err := tx.Memberships(user.ID)
	if err != nil {
		return err
	}
	for id, role := range in {
		switch {
		case user.Disabled: // the revocation of all he has was written just now
			err = tx.SetLowered(id, user.ID)
		case role.AtLeast(quire.RoleEditor):
			err = tx.DropLowered(id, user.ID)
		} // a viewer is in as soon as no file lets him write
		if err != nil {
			return err
		}
		if err := c.teamChanged(tx, id); err != nil {
			return err
		}
	}
	return nil
}

// endAll ends a person's logins everywhere and, if sessions, his sessions.
//
// What only ends logins is revoked login by login: a node takes a revocation of
// the person himself to mean that he may run nothing any more.
func (c *core) endAll(tx *txn, user quire.User, by string, sessions bool) error {
	logins, err := tx.Logins(user.ID)
	if err != nil {
		return err
	}
	if err := tx.EndLogins(user.ID); err != nil {
		return err
	}
	tx.touch("") // open event streams look again whether their login lives
	for _, l := range logins {
		if err := c.revoke(tx, user.ID, "", l.ID); err != nil {
			return err
		}
	}
	if !sessions {
		return nil
	}
	if err := c.revoke(tx, user.ID, "", ""); err != nil {
		return err
	}
	return c.stopSessionsOf(tx, user.ID, "", by)
}

// revoke writes a revocation and sends it on its way once it is on disk.
func (c *core) revoke(tx *txn, user quire.UserID, project quire.ProjectID, l quire.LoginID) error {
	tx.wake(wakeFeed, "")
	return tx.Revoke(user, project, l)
}

// SetPassword changes the actor's own password. All his logins end; the answer
// is a new one for this browser.
func (u *Users) SetPassword(ctx context.Context, by quire.Actor, old, new string, from From) (in Entered, err error) {
	if err := needPerson(by); err != nil {
		return in, err
	}
	if err := login.CheckNew(by.Name, new); err != nil {
		return in, err
	}
	var phc string
	if err := u.c.read(ctx, func(tx *store.Tx) error { phc, err = tx.Password(by.User); return err }); err != nil {
		return in, err
	}
	if err := u.c.throttle.Begin(string(by.User), from.Address); err != nil {
		return in, err
	}
	ok, err := u.c.hasher.Check(ctx, old, phc)
	if err != nil {
		u.c.throttle.Dropped(string(by.User), from.Address)
		return in, err
	}
	if !ok {
		u.c.throttle.Failed(string(by.User), from.Address)
		if err := u.c.write(ctx, by, func(tx *txn) error { tx.tellTry(string(by.User), from.Address, false); return nil }); err != nil {
			return in, err
		}
		return in, quire.Invalid("old", "This is not your present password.")
	}
	u.c.throttle.Passed(string(by.User), from.Address)
	before := phc
	if phc, err = u.c.hasher.Hash(ctx, new); err != nil {
		return in, err
	}
	err = u.c.write(ctx, by, func(tx *txn) error {
		user, err := tx.User(by.User)
		if err != nil {
			return err
		}
		if now, err := tx.Password(by.User); err != nil || now != before {
			return quire.Conflict("old", "The password was changed a moment ago, somewhere else.")
		}
		if err := tx.SetPassword(by.User, phc); err != nil {
			return err
		}
		if err := u.c.endAll(tx, user, "", false); err != nil {
			return err
		}
		if in, err = enter(tx, user, from); err != nil {
			return err
		}
		return tx.event("password.change", "", "")
	})
	return in, err
}
