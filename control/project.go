package control

import (
	"context"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"

	"quire"
	"quire/store"
)

// Projects are directories with a team and an environment.
type Projects struct{ c *core }

// NewProject is what it takes to make one.
type NewProject struct {
	Name, Summary, Description string
	Public                     bool
	Node                       quire.NodeID       // "": wherever there is room
	DataCenter                 quire.DataCenterID // "": any, or that of Node
	Source                     string             // git URL, or ""
}

// ProjectChange holds what to change; nil fields stay.
type ProjectChange struct {
	Summary, Description *string
	Public               *bool
}

// Limits of a project's words, in bytes.
const (
	maxSummary     = 300
	maxDescription = 64 << 10
)

// Create makes a stopped project that the actor owns.
func (ps *Projects) Create(ctx context.Context, by quire.Actor, n NewProject) (p quire.Project, err error) {
	if err := needPerson(by); err != nil {
		return p, err
	}
	err = ps.c.write(ctx, by, func(tx *txn) error {
		p, err = ps.c.newProject(tx, by, n)
		return err
	})
	return p, err
}

func (c *core) newProject(tx *txn, by quire.Actor, n NewProject) (p quire.Project, err error) {
	if err := quire.CheckProjectName(n.Name); err != nil {
		return p, err
	}
	if err := checkWords(n.Summary, n.Description); err != nil {
		return p, err
	}
	if n.Source = strings.TrimSpace(n.Source); n.Source != "" {
		if err := CheckSource(n.Source); err != nil {
			return p, err
		}
	}
	node, err := c.place(tx, n.Node, n.DataCenter)
	if err != nil {
		return p, err
	}
	p = quire.Project{
		ID: quire.NewProjectID(), Owner: by.User, OwnerName: by.Name, Name: n.Name, Summary: strings.TrimSpace(n.Summary), Description: n.Description,
		Public: n.Public, DataCenter: node.DataCenter, Node: node.ID, Source: n.Source,
		State: quire.ProjectStopped, Role: quire.RoleOwner, Created: tx.Now, Changed: tx.Now,
	}
	if p.Dir, err = freeDir(tx, filepath.Join(c.ProjectRoot, by.Name, n.Name)); err != nil {
		return p, err
	}
	if err := tx.AddProject(p); quire.KindOf(err) == quire.KindConflict {
		return p, quire.Conflict("name", "You have a project of this name already.")
	} else if err != nil {
		return p, err
	}
	tx.touch("")
	return p, tx.event("project.create", p.ID, p.Name)
}

// freeDir is the directory or, where a project that was handed over keeps it,
// the next one that is free.
func freeDir(tx *txn, want string) (string, error) {
	for dir, n := want, 2; ; n++ {
		taken, err := tx.DirTaken(dir)
		if err != nil || !taken {
			return dir, err
		}
		dir = want + "-" + strconv.Itoa(n)
	}
}

func checkWords(summary, description string) error {
	switch {
	case len(summary) > maxSummary || strings.ContainsAny(summary, "\n\r\x00"):
		return quire.Invalid("summary", "The summary is one line of at most 300 characters.")
	case len(description) > maxDescription || strings.Contains(description, "\x00"):
		return quire.Invalid("description", "The description has at most 64 KB of text.")
	}
	return nil
}

// CheckSource says what is wrong with a git URL, or nil. The clone runs as the
// user with the user's rights, so any host is his to name; what is refused are
// forms that make git run or read something on the node.
func CheckSource(source string) error {
	bad := quire.Invalid("source", "A git address is like https://host/path.git, ssh://git@host/path.git or git://host/path.git.")
	u, err := url.Parse(source)
	if err != nil || len(source) > 2000 || u.Host == "" || strings.HasPrefix(u.Host, "-") || strings.ContainsAny(source, "\x00\r\n\t ") || u.Hostname() == "" {
		return bad
	}
	switch u.Scheme {
	case "https", "http", "ssh", "git":
	default:
		return bad
	}
	if strings.HasPrefix(u.User.Username(), "-") || strings.HasPrefix(u.Path, "/-") {
		return bad
	}
	if _, has := u.User.Password(); has {
		return quire.Invalid("source", "Do not put a password into the address: everybody in the project could read it.")
	}
	return nil
}

// ByName finds a project by its address.
func (ps *Projects) ByName(ctx context.Context, by quire.Actor, owner, name string) (p quire.Project, err error) {
	err = ps.c.read(ctx, func(tx *store.Tx) error {
		if p, err = tx.ProjectByName(by.User, owner, name); err == nil {
			err = allow(by, quire.See, p)
		}
		return err
	})
	if !by.Known() && err != nil {
		err = quire.Unauthenticated()
	}
	return p, err
}

// Moved finds a project by an address that it had before it was handed over, for
// those who may see where it is now.
func (ps *Projects) Moved(ctx context.Context, by quire.Actor, owner, name string) (p quire.Project, err error) {
	if err := needKnown(by); err != nil {
		return p, err
	}
	err = ps.c.read(ctx, func(tx *store.Tx) error {
		if p, err = tx.MovedProject(by.User, owner, name); err == nil {
			err = allow(by, quire.See, p)
		}
		return err
	})
	return p, err
}

// A Listing is a choice of projects.
type Listing string

const (
	Mine         Listing = "mine"         // owned, the last changed first
	Contributing Listing = "contributing" // of others, with the asker in the team
	Public       Listing = "public"       // up to 100 public ones of others
	Deleted      Listing = "deleted"      // owned, can still be restored
)

// List lists projects as the actor sees them.
func (ps *Projects) List(ctx context.Context, by quire.Actor, which Listing) (list []quire.Project, err error) {
	if err := needPerson(by); err != nil {
		return nil, err
	}
	err = ps.c.read(ctx, func(tx *store.Tx) error {
		switch which {
		case Mine, Contributing:
			list, err = tx.ProjectsOf(by.User, which == Mine)
		case Public:
			list, err = tx.PublicProjects(by.User, 100)
		case Deleted:
			list, err = tx.DeletedProjects(by.User)
		default:
			return quire.Invalid("list", `"list" is mine, contributing, public or deleted.`)
		}
		return err
	})
	return list, err
}

// change runs f on a project the actor may do verb to.
func (c *core) change(ctx context.Context, by quire.Actor, id quire.ProjectID, verb quire.Verb, f func(*txn, quire.Project) error) error {
	return c.write(ctx, by, func(tx *txn) error {
		p, err := c.project(tx.Tx, by, id, verb)
		if err != nil {
			return err
		}
		tx.touch(id)
		return f(tx, p)
	})
}

// Update changes words (editors) or the public switch (the owner). Making a
// project private ends what strangers have open.
func (ps *Projects) Update(ctx context.Context, by quire.Actor, id quire.ProjectID, ch ProjectChange) (out quire.Project, err error) {
	verb := quire.Edit
	if ch.Public != nil {
		verb = quire.Manage
	}
	err = ps.c.change(ctx, by, id, verb, func(tx *txn, p quire.Project) error {
		if ch.Summary != nil || ch.Description != nil {
			if err := allow(by, quire.Edit, p); err != nil {
				return err
			}
		}
		switched := ch.Public != nil && *ch.Public != p.Public
		private := ch.Public != nil && !*ch.Public && p.Public
		if ch.Summary != nil {
			p.Summary = strings.TrimSpace(*ch.Summary)
		}
		if ch.Description != nil {
			p.Description = *ch.Description
		}
		if ch.Public != nil {
			p.Public = *ch.Public
		}
		if err := checkWords(p.Summary, p.Description); err != nil {
			return err
		}
		out = p
		if err := tx.SaveProject(p); err != nil {
			return err
		}
		if private {
			if err := ps.c.expelStrangers(tx, id, by.Name+", who made the project private"); err != nil {
				return err
			}
		}
		if switched { // the disk follows
			if err := ps.c.teamChanged(tx, id); err != nil {
				return err
			}
		}
		return tx.event("project.update", id, "")
	})
	return out, err
}

// expelStrangers ends what people who are not of the team have open.
func (c *core) expelStrangers(tx *txn, id quire.ProjectID, by string) error {
	if err := c.revoke(tx, "", id, ""); err != nil { // members' grants are renewed
		return err
	}
	live, err := tx.SessionsOf(id, 0)
	if err != nil {
		return err
	}
	var theirs []quire.Session
	for _, s := range live {
		role, err := tx.Role(id, s.User)
		if err != nil {
			return err
		}
		if role == quire.RoleNone {
			theirs = append(theirs, s)
		}
	}
	return c.stopSessions(tx, theirs, by)
}

// Star sets or takes the actor's star.
func (ps *Projects) Star(ctx context.Context, by quire.Actor, id quire.ProjectID, on bool) error {
	if err := needPerson(by); err != nil {
		return err
	}
	return ps.c.change(ctx, by, id, quire.See, func(tx *txn, p quire.Project) error { return tx.Star(id, by.User, on) })
}

// Start prepares a stopped project; a project that runs or starts stays so.
func (ps *Projects) Start(ctx context.Context, by quire.Actor, id quire.ProjectID) error {
	return ps.c.change(ctx, by, id, quire.Operate, func(tx *txn, p quire.Project) error {
		return ps.c.ensureRunning(tx, by, p)
	})
}

// ensureRunning begins a start where one is needed.
func (c *core) ensureRunning(tx *txn, by quire.Actor, p quire.Project) error {
	switch p.State {
	case quire.ProjectRunning, quire.ProjectStarting:
		return nil
	case quire.ProjectStopping:
		return quire.Conflict("", "The project is being stopped. Start it again in a moment.")
	case quire.ProjectMoving:
		return quire.Conflict("", "The project is being moved to another node. Start it when it is there.")
	case quire.ProjectFailed:
		return quire.Conflict("", "The project could not start: "+p.Reason+" Reset it first.")
	}
	if err := c.openNode(tx, p.Node); err != nil {
		return err
	}
	return c.begin(tx, by, p, "start")
}

// Stop ends everybody's sessions and closes the project.
func (ps *Projects) Stop(ctx context.Context, by quire.Actor, id quire.ProjectID) error {
	return ps.c.change(ctx, by, id, quire.Stop, func(tx *txn, p quire.Project) error {
		switch p.State {
		case quire.ProjectStopped, quire.ProjectStopping:
			return nil
		case quire.ProjectStarting:
			return quire.Conflict("", "The project is still starting. Stop it when it is up.")
		}
		return ps.c.begin(tx, by, p, "stop")
	})
}

// Reset clears a failure, so that everything is prepared and checked again.
func (ps *Projects) Reset(ctx context.Context, by quire.Actor, id quire.ProjectID) error {
	return ps.c.change(ctx, by, id, quire.Operate, func(tx *txn, p quire.Project) error {
		if p.State != quire.ProjectFailed {
			return nil
		}
		if err := tx.SetPrepared(id, ""); err != nil {
			return err
		}
		if err := tx.SetProjectState(id, quire.ProjectStopped, ""); err != nil {
			return err
		}
		return tx.event("project.reset", id, "")
	})
}

// Delete ends everything in the project and puts it aside. confirm is its name,
// typed by the person.
func (ps *Projects) Delete(ctx context.Context, by quire.Actor, id quire.ProjectID, confirm string) error {
	return ps.c.change(ctx, by, id, quire.Manage, func(tx *txn, p quire.Project) error {
		if confirm != p.Name {
			return quire.Invalid("confirm", "Type the project's name, "+p.Name+", to delete it.")
		}
		if err := ps.c.revoke(tx, "", id, ""); err != nil {
			return err
		}
		return ps.c.begin(tx, by, p, "delete")
	})
}

// Restore brings a deleted project back, stopped.
func (ps *Projects) Restore(ctx context.Context, by quire.Actor, id quire.ProjectID) error {
	if err := needPerson(by); err != nil {
		return err
	}
	return ps.c.write(ctx, by, func(tx *txn) error {
		p, err := tx.Project(by.User, id)
		if err != nil {
			return err
		}
		if p.Deleted == nil || !quire.Can(by, quire.Manage, p.Role, false) {
			return quire.NotFound("project")
		}
		if err := ps.c.begin(tx, by, p, "restore"); err != nil {
			return err
		}
		// From now on name and directory are its own again, so that nobody takes
		// them while the files come back.
		err = tx.MarkDeleted(id, false)
		if quire.KindOf(err) == quire.KindConflict {
			return quire.Conflict("name", "You have another project named "+p.Name+" now. Delete that one first.")
		}
		return err
	})
}
