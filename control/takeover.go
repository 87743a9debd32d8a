package control

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"quire"
	"quire/store"
)

// Author is somebody but the owner whose files lie in a project.
type Author struct {
	UID    uint32          `json:"uid"`
	Name   string          `json:"name,omitempty"` // "" if nobody here has the account
	Role   quire.Role      `json:"role,omitempty"` // in the team now
	Files  int             `json:"files"`          // that can be taken over
	Dirs   int             `json:"directories"`
	Bytes  int64           `json:"bytes"`            // that are copied
	Cannot []quire.Finding `json:"cannot,omitempty"` // what stays his, and why
}

// Authors looks whose files lie in the project and what taking them over would
// copy. Nothing is changed. For the owner and administrators.
func (t *Team) Authors(ctx context.Context, by quire.Actor, id quire.ProjectID) ([]Author, error) {
	on, err := t.look(ctx, by, id, quire.Manage)
	if err != nil {
		return nil, err
	}
	rec, err := t.c.loop.orderTakeOver(ctx, on, quire.TakeOverArgs{Look: true})
	if err != nil {
		return nil, err
	}
	found := map[uint32]*Author{}
	for _, f := range rec.Findings {
		if f.UID == on.owner.UID || f.UID == 0 {
			continue
		}
		a := found[f.UID]
		if a == nil {
			a = &Author{UID: f.UID}
			found[f.UID] = a
		}
		switch f.Kind {
		case quire.FoundFiles:
			a.Files, a.Bytes = f.N, f.Bytes
		case quire.FoundDirs:
			a.Dirs = f.N
		default:
			a.Cannot = append(a.Cannot, f)
		}
	}
	list := []Author{}
	err = t.c.read(ctx, func(tx *store.Tx) error {
		for _, a := range found {
			u, err := tx.AccountOf(a.UID)
			if err == nil {
				a.Name = u.Name
				a.Role, err = tx.Role(id, u.ID)
			}
			if err != nil && quire.KindOf(err) != quire.KindNotFound {
				return err
			}
			list = append(list, *a)
		}
		return nil
	})
	slices.SortFunc(list, func(a, b Author) int { return int(int64(a.UID) - int64(b.UID)) })
	return list, err
}

// look is a team on disk, for somebody who may do verb or is an administrator.
func (t *Team) look(ctx context.Context, by quire.Actor, id quire.ProjectID, verb quire.Verb) (people, error) {
	err := t.c.read(ctx, func(tx *store.Tx) error {
		p, err := t.c.project(tx, by, id, quire.See)
		if err == nil && !by.System && !by.Admin {
			err = allow(by, verb, p)
		}
		return err
	})
	if err != nil {
		return people{}, err
	}
	if t.c.Accounts.Shared() {
		return people{}, quire.Conflict("", "Everything runs as one account here: there are no people for permissions to tell apart.")
	}
	return t.c.loop.people(ctx, id)
}

// TakeOver makes an author's files the owner's: each is copied, and the copy put
// in its place. It goes on by itself and can be ended and taken up at any point.
func (t *Team) TakeOver(ctx context.Context, by quire.Actor, id quire.ProjectID, uid uint32) error {
	return t.c.change(ctx, by, id, quire.Manage, func(tx *txn, p quire.Project) error {
		if t.c.Accounts.Shared() {
			return quire.Conflict("", "Everything runs as one account here: all files are its own.")
		}
		if uid == 0 {
			return quire.Invalid("uid", "It is not said whose files are taken over.")
		}
		if a, err := tx.Account(p.Owner); err == nil && a.UID == uid {
			return quire.Invalid("uid", "These files are the owner's already.")
		}
		if p.State != quire.ProjectStopped {
			return quire.Conflict("", "Stop the project first: what a program holds open while its file is copied would be lost.")
		}
		return t.c.beginFor(tx, by, p, "take-over", uid)
	})
}

// Repair has the files of a project set right now, and looks again at what a
// sweep had to leave.
func (t *Team) Repair(ctx context.Context, by quire.Actor, id quire.ProjectID) error {
	return t.c.change(ctx, by, id, quire.Operate, func(tx *txn, p quire.Project) error { return t.c.sweepAgain(tx, id) })
}

func (c *core) sweepAgain(tx *txn, id quire.ProjectID) error {
	ls, err := tx.Lowered(id)
	if err != nil {
		return err
	}
	for _, l := range ls {
		if len(l.Report) > 0 {
			if err := tx.Unsweep(id, l.User); err != nil {
				return err
			}
		}
	}
	return c.wantRepair(tx, id)
}

func (r *reconciler) orderTakeOver(ctx context.Context, t people, args quire.TakeOverArgs) (quire.Receipt, error) {
	m, err := r.machine(t.project.Node)
	if err != nil {
		return quire.Receipt{}, err
	}
	args.TeamArgs = t.team
	args.Expel = nil
	return m.Do(ctx, r.c.orderAs(quire.OrderTakeOver, t.project, t.project.Owner, t.owner, nil, args))
}

// takeFiles takes over part after part and says how far it is.
func takeFiles(ctx context.Context, j *job) (quire.Receipt, error) {
	t, err := j.r.people(ctx, j.p.ID)
	if err != nil {
		return quire.Receipt{}, err
	}
	of, err := j.r.orderTakeOver(ctx, t, quire.TakeOverArgs{From: j.work.Author, Look: true})
	if err != nil {
		return of, err
	}
	all, files, dirs := of.Found(quire.FoundFiles, 0), 0, 0
	step := &j.work.Steps[len(j.work.Steps)-1]
	for {
		rec, err := j.r.orderTakeOver(ctx, t, quire.TakeOverArgs{From: j.work.Author})
		if err != nil {
			return rec, err
		}
		now := rec.Found(quire.FoundFiles, 0)
		moved := rec.Found(quire.FoundDirs, 0)
		files, dirs = files+now, dirs+moved
		if !rec.More || now+moved == 0 {
			note := fmt.Sprintf("%d files and %d directories taken over", files, dirs)
			for _, f := range rec.Findings {
				if f.Kind != quire.FoundFiles && f.Kind != quire.FoundDirs {
					note += fmt.Sprintf("; %d %s", f.N, f.Kind)
				}
			}
			return quire.Receipt{Note: note}, nil
		}
		step.Note = fmt.Sprintf("%d of %d files", files, max(all, files))
		j.save(ctx)
	}
}

// Why is what somebody may do with a file of a project, and why not more.
type Why struct {
	Name     string   `json:"name"`
	Path     string   `json:"path"`
	Read     bool     `json:"read"`
	Write    bool     `json:"write"`
	Sentence string   `json:"sentence"`
	Reasons  []string `json:"reasons"` // and what to do
}

// Why asks the node what a person may do with a place of the project: the kernel
// gives the answer, the team and the access lists on the way the reasons. For
// editors and administrators.
func (t *Team) Why(ctx context.Context, by quire.Actor, id quire.ProjectID, name, path string) (w Why, err error) {
	on, err := t.look(ctx, by, id, quire.Operate)
	if err != nil {
		return w, err
	}
	if len(path) > 4000 || strings.Contains(path, "\x00") {
		return w, quire.Invalid("path", "A path has at most 4,000 characters.")
	}
	// Somebody who copies a path from a terminal gives all of it.
	if rest, ok := strings.CutPrefix(path, on.project.Dir); ok && (rest == "" || rest[0] == '/') {
		path = strings.TrimPrefix(rest, "/")
	}
	w.Path = path
	var user quire.User
	var role quire.Role
	var behind store.TeamOnDisk
	err = t.c.read(ctx, func(tx *store.Tx) error {
		if user, err = tx.UserByName(name); quire.KindOf(err) == quire.KindNotFound {
			return quire.Invalid("name", "Nobody here is called "+name+". Names can be completed while you type.")
		} else if err != nil {
			return err
		}
		if behind, err = tx.TeamOnDisk(id); err != nil {
			return err
		}
		role, err = tx.Role(id, user.ID)
		return err
	})
	if err != nil {
		return w, err
	}
	w.Name = user.Name
	because := func(format string, args ...any) { w.Reasons = append(w.Reasons, fmt.Sprintf(format, args...)) }
	switch {
	case user.Disabled:
		because("%s is disabled, so every project shuts that account out. An administrator can enable it.", w.Name)
	case role == quire.RoleNone:
		because("%s is not in the team. Add %s under Team.", w.Name, w.Name)
	case role == quire.RoleViewer:
		because("%s is a viewer: viewers read and do not write. Make %s an editor under Team.", w.Name, w.Name)
	}
	for _, l := range on.lowered {
		if l.User == user.ID && role == quire.RoleViewer && !l.Swept {
			because("%s was an editor. The directory is shut until all files have been gone through.", w.Name)
		} else if a, err := t.c.loop.known(ctx, l.User); l.User == user.ID && role == quire.RoleViewer && err == nil && left(l.Report, a.UID).holds > 0 {
			because("%s was an editor, and some files could not be set right, so the directory stays shut. See what is left under Permissions.", w.Name)
		}
	}
	if behind.Done < behind.Wanted {
		because("The node has not carried out the last change of the team yet. Try again in a moment.")
	}
	a, err := t.c.loop.known(ctx, user.ID)
	if err != nil {
		return w, err
	}
	if a.UID == 0 {
		because("%s has no account on the node yet. It is there once %s has opened an app or been added to a team.", w.Name, w.Name)
		w.Sentence = w.Name + " has no account on the node."
		return w, nil
	}
	m, err := t.c.loop.machine(on.project.Node)
	if err != nil {
		return w, err
	}
	args := quire.WhyArgs{TeamArgs: on.team, Who: a, Path: path}
	args.Expel = nil
	rec, err := m.Do(ctx, t.c.orderAs(quire.OrderWhy, on.project, on.project.Owner, on.owner, nil, args))
	if err != nil {
		return w, err
	}
	can := strings.Fields(rec.Note)
	w.Read, w.Write = slices.Contains(can, "read"), slices.Contains(can, "write")
	what := path
	if what == "" || what == "." {
		what = "the project's directory"
	}
	switch {
	case w.Read && w.Write:
		w.Sentence, w.Reasons = w.Name+" may read and change "+what+".", nil
		return w, nil
	case w.Read:
		w.Sentence = w.Name + " may read " + what + ", but not change it."
	case w.Write:
		w.Sentence = w.Name + " may change " + what + ", but not read it."
	default:
		w.Sentence = w.Name + " may neither read nor change " + what + "."
	}
	if slices.Contains(can, "readonly") {
		because("The disk is mounted read-only on the node. An administrator must look at it.")
	}
	for line := range strings.Lines(rec.Log) {
		because("%s", strings.TrimSpace(line))
	}
	if len(w.Reasons) == 0 {
		because("Neither the team nor the access lists forbid it, but the kernel does: the file may be marked immutable (lsattr shows it).")
	}
	return w, nil
}
