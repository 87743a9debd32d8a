package control

import (
	"context"
	"fmt"
	"time"

	"quire"
	"quire/store"
)

// Team is the people of a project.
type Team struct{ c *core }

// List lists the team, the owner first.
func (t *Team) List(ctx context.Context, by quire.Actor, id quire.ProjectID) (ms []quire.Member, err error) {
	err = t.c.read(ctx, func(tx *store.Tx) error {
		if _, err := t.c.project(tx, by, id, quire.See); err != nil {
			return err
		}
		ms, err = tx.Members(id)
		return err
	})
	return ms, err
}

// Set adds a person or changes his role. There is exactly one owner, so that
// role cannot be given here.
func (t *Team) Set(ctx context.Context, by quire.Actor, id quire.ProjectID, name string, role quire.Role) error {
	if role != quire.RoleEditor && role != quire.RoleViewer {
		return quire.Invalid("role", "A member is an editor or a viewer.")
	}
	return t.c.change(ctx, by, id, quire.Manage, func(tx *txn, p quire.Project) error {
		user, err := tx.UserByName(name)
		if quire.KindOf(err) == quire.KindNotFound || err == nil && user.Disabled {
			return quire.Invalid("name", "Nobody here is called "+name+". Names can be completed while you type.")
		}
		if err != nil {
			return err
		}
		if user.ID == p.Owner {
			return quire.Invalid("name", "The owner is in the team already.")
		}
		had, err := tx.Role(id, user.ID)
		if err != nil {
			return err
		}
		if had == quire.RoleNone {
			if ms, err := tx.Members(id); err != nil {
				return err
			} else if len(ms) >= quire.MaxTeam {
				return quire.Invalid("name", fmt.Sprintf("A team has at most %d people, because an access list has no room for more. For more, give a group of the system rights: setfacl -m g:GROUP:rwx,d:g:GROUP:rwx on the project's directory.", quire.MaxTeam))
			}
		}
		if err := tx.SetMember(id, user.ID, role); err != nil {
			return err
		}
		if had.AtLeast(quire.RoleEditor) && !role.AtLeast(quire.RoleEditor) {
			if err := t.c.lower(tx, user.ID, id, by); err != nil {
				return err
			}
		} else if role == quire.RoleEditor || had == quire.RoleNone && role == quire.RoleViewer {
			if err := t.restored(tx, user.ID, id, role); err != nil {
				return err
			}
		}
		if had == role {
			return nil
		}
		if err := t.c.teamChanged(tx, id); err != nil {
			return err
		}
		return tx.event("team.set", id, user.Name+" is "+string(role))
	})
}

// Remove takes a person off the team. Members may take themselves off.
func (t *Team) Remove(ctx context.Context, by quire.Actor, id quire.ProjectID, name string) error {
	return t.c.change(ctx, by, id, quire.See, func(tx *txn, p quire.Project) error {
		user, err := tx.UserByName(name)
		if err != nil {
			return err
		}
		if user.ID != by.User {
			if err := allow(by, quire.Manage, p); err != nil {
				return err
			}
		}
		if user.ID == p.Owner {
			return quire.Invalid("name", "The owner cannot leave the team.")
		}
		had, err := tx.RemoveMember(id, user.ID)
		if err != nil {
			return err
		}
		if !had {
			return quire.NotFound("member")
		}
		if err := t.c.lower(tx, user.ID, id, by); err != nil {
			return err
		}
		if err := t.c.teamChanged(tx, id); err != nil {
			return err
		}
		return tx.event("team.remove", id, user.Name)
	})
}

// HandOver makes a member the owner; the owner before stays as an editor. The
// project's directory goes to the new owner's account; files keep their authors.
func (t *Team) HandOver(ctx context.Context, by quire.Actor, id quire.ProjectID, name string) error {
	return t.c.change(ctx, by, id, quire.Manage, func(tx *txn, p quire.Project) error {
		user, err := tx.UserByName(name)
		if quire.KindOf(err) == quire.KindNotFound || err == nil && user.Disabled {
			return quire.Invalid("name", "Nobody here is called "+name+". Names can be completed while you type.")
		}
		if err != nil {
			return err
		}
		if user.ID == p.Owner {
			return nil
		}
		// Only somebody who is in: nobody is made responsible without knowing.
		if role, err := tx.Role(id, user.ID); err != nil {
			return err
		} else if !role.AtLeast(quire.RoleViewer) {
			return quire.Invalid("name", name+" is not in the team. Add "+name+" first.")
		}
		if _, err := tx.ProjectByName("", user.Name, p.Name); quire.KindOf(err) != quire.KindNotFound {
			if err != nil {
				return err
			}
			return quire.Conflict("name", user.Name+" has a project named "+p.Name+" already.")
		}
		if w, err := tx.OpenWork(id); err != nil {
			return err
		} else if w != nil {
			return quire.Conflict("", "Something else is being done with this project at the moment. Try again when it is over.")
		}
		if err := tx.SetOwner(id, p.Owner, user.ID); err != nil {
			return err
		}
		if err := tx.DropLowered(id, user.ID); err != nil {
			return err
		}
		// What the gateway knows of running apps holds the owner's name.
		live, err := tx.SessionsOf(id, 0)
		if err != nil {
			return err
		}
		for _, s := range live {
			tx.wake(wakeRoute, string(s.ID))
		}
		tx.touch("")
		if err := t.c.wantRepair(tx, id); err != nil {
			return err
		}
		if err := t.c.teamChanged(tx, id); err != nil {
			return err
		}
		return tx.event("team.owner", id, user.Name)
	})
}

// restored gives somebody back what was taken. A viewer waits until no file
// lets him write any more.
func (t *Team) restored(tx *txn, user quire.UserID, id quire.ProjectID, role quire.Role) error {
	ls, err := tx.Lowered(id)
	if err != nil {
		return err
	}
	for _, l := range ls {
		if l.User == user && (role == quire.RoleEditor || l.Swept && len(l.Report) == 0) {
			return tx.DropLowered(id, user)
		}
	}
	return nil
}

// lower ends what a person had open in the project under the rights he lost, and
// shuts him out on disk until nothing there names him with more.
func (c *core) lower(tx *txn, user quire.UserID, id quire.ProjectID, by quire.Actor) error {
	if err := c.revoke(tx, user, id, ""); err != nil {
		return err
	}
	if err := tx.SetLowered(id, user); err != nil {
		return err
	}
	return c.stopSessionsOf(tx, user, id, by.Name+", who changed the team")
}

// Disk is how far a project's node is with its team.
type Disk struct {
	Shared   bool       `json:"shared"`             // one account runs everything: the disk protects nobody
	UpToDate bool       `json:"up_to_date"`         // the directory says what the team is
	Repairs  bool       `json:"repairs"`            // files that are there already are being set right
	Note     string     `json:"note,omitempty"`     // who has no account there, a group with other members
	Repair   string     `json:"repair,omitempty"`   // what the last repair of permissions said
	Repaired *time.Time `json:"repaired,omitempty"` // when that was
	Revoked  []Revoked  `json:"revoked,omitempty"`  // the last ones first
}

// Revoked says how far taking somebody's rights is.
type Revoked struct {
	Name    string     `json:"name"`
	Role    quire.Role `json:"role,omitempty"` // what he has left
	At      time.Time  `json:"at"`
	Nodes   int        `json:"nodes"`             // that hold the project
	Done    int        `json:"done"`              // of them, where he is cut off
	Seconds float64    `json:"seconds,omitempty"` // until the last of them was done
	Swept   bool       `json:"swept"`             // the files have been gone through
	Left    int        `json:"left,omitempty"`    // of them, what could not be set right
	Held    bool       `json:"held,omitempty"`    // a viewer who stays out, because files still let him write

	Disabled bool            `json:"disabled,omitempty"` // may sign in nowhere
	Report   []quire.Finding `json:"report,omitempty"`   // what is left, and what to look at
}

// Sentence is "revoked on 1 of 1 nodes in 0.4 s, swept except 2".
func (r Revoked) Sentence() string {
	s := fmt.Sprintf("revoked on %d of %d nodes", r.Done, r.Nodes)
	if r.Done == r.Nodes {
		s += fmt.Sprintf(" in %.1f s", r.Seconds)
	}
	switch {
	case r.Swept && r.Left > 0:
		s += fmt.Sprintf(", swept except %d", r.Left)
	case r.Swept:
		s += ", swept"
	}
	return s
}

// about is what of a sweep's findings concerns a person whose rights were taken.
func about(found []quire.Finding, uid uint32) (of []quire.Finding) {
	for _, f := range found {
		switch f.Kind {
		case quire.FoundClosed, quire.FoundLinked, quire.FoundSetID:
			of = append(of, f)
		case quire.FoundLeftOver: // his own files are counted below
			if f.UID != uid || uid == 0 {
				of = append(of, f)
			}
		case quire.FoundForeign:
			if f.UID == uid && uid != 0 {
				of = append(of, f)
			}
		}
	}
	return of
}

// left counts what a sweep could not set right about a person, and what of it
// could let him in where he should not be. What he owns he can always change.
func left(report []quire.Finding, uid uint32) (n struct{ all, holds int }) {
	for _, f := range report {
		his := f.UID == uid && uid != 0
		switch {
		case f.Kind == quire.FoundLeftOver && !his, f.Kind == quire.FoundClosed && !his:
			n.all += f.N
			n.holds += f.N
		case f.Kind == quire.FoundForeign && his:
			n.all += f.N
		}
	}
	return n
}

// Disk tells how far the disk is with the team, to its members.
func (t *Team) Disk(ctx context.Context, by quire.Actor, id quire.ProjectID) (d Disk, err error) {
	err = t.c.read(ctx, func(tx *store.Tx) error {
		p, err := t.c.project(tx, by, id, quire.See)
		if err != nil {
			return err
		}
		d.Shared = t.c.Accounts.Shared()
		if !p.Role.AtLeast(quire.RoleViewer) && !by.Admin && !by.System {
			return nil // how a team looks inside is the team's
		}
		on, err := tx.TeamOnDisk(id)
		if err != nil {
			return err
		}
		d.Repairs = on.Repairing
		d.UpToDate, d.Note, d.Repair = on.Done >= on.Wanted, on.Note, on.RepairNote
		if on.Repaired > 0 {
			at := time.UnixMilli(on.Repaired).UTC()
			d.Repaired = &at
		}
		ls, err := tx.Lowered(id)
		for _, l := range ls {
			r := Revoked{Name: l.Name, Role: l.Role, At: l.Rev.At, Nodes: 1, Seconds: l.Took, Swept: l.Swept, Disabled: l.Disabled, Report: l.Report}
			a, err := tx.Account(l.User)
			if err != nil && quire.KindOf(err) != quire.KindNotFound {
				return err
			}
			n := left(l.Report, a.UID)
			r.Left, r.Held = n.all, l.Swept && l.Role == quire.RoleViewer && n.holds > 0
			if l.Cut {
				r.Done = 1
			}
			d.Revoked = append(d.Revoked, r)
		}
		return err
	})
	return d, err
}

// Check has the node look at the permissions below a project and say what is
// not as it should be. Nothing is changed. For members and administrators.
func (t *Team) Check(ctx context.Context, by quire.Actor, id quire.ProjectID) (string, error) {
	err := t.c.read(ctx, func(tx *store.Tx) error {
		p, err := t.c.project(tx, by, id, quire.See)
		if err == nil && !by.System && !by.Admin {
			err = allow(by, quire.Operate, p)
		}
		return err
	})
	if err != nil {
		return "", err
	}
	if t.c.Accounts.Shared() {
		return "", quire.Conflict("", "Everything runs as one account here: there are no people for permissions to tell apart.")
	}
	on, err := t.c.loop.people(ctx, id)
	if err != nil {
		return "", err
	}
	rec, err := t.c.loop.orderRepair(ctx, on, true)
	return rec.Log, err
}
