package control

import (
	"context"
	"slices"
	"time"

	"quire"
	"quire/store"
)

// What a move leaves on a node, and what is done about it.
const (
	leftStage  = "stage"  // an unfinished copy: it is removed
	leftPlaced = "placed" // perhaps a finished one that was given up: put away, and removed
	leftAside  = "aside"  // the original of what lives elsewhere: into the trash
	leftBoth   = "both"   // the same, with an older one in the trash, which goes
	leftTrash  = "trash"  // in the trash: when it is due, it is removed
)

// settleLeftover does what is due about a project's leftover on a node, step by
// step: each is stored once it is done.
func (r *reconciler) settleLeftover(ctx context.Context, project quire.ProjectID, node quire.NodeID) error {
	for {
		var left *store.Leftover
		if err := r.c.read(ctx, func(tx *store.Tx) error {
			ls, err := tx.Leftovers(project, tx.Now)
			for _, l := range ls {
				if l.Node == node && !l.Due.After(r.c.Now()) {
					left = &l
				}
			}
			return err
		}); err != nil || left == nil {
			return err
		}
		if err := r.leftover(ctx, *left); err != nil {
			return err
		}
	}
}

func (r *reconciler) leftover(ctx context.Context, l store.Leftover) error {
	known, lives := false, false
	if err := r.c.read(ctx, func(tx *store.Tx) error {
		nodes, err := tx.Nodes()
		if err != nil {
			return err
		}
		known = slices.ContainsFunc(nodes, func(n quire.Node) bool { return n.ID == l.Node })
		p, err := tx.Project("", l.Project)
		lives = err == nil && p.Node == l.Node
		if quire.KindOf(err) == quire.KindNotFound {
			err = nil
		}
		return err
	}); err != nil {
		return err
	}
	p := quire.Project{ID: l.Project, Owner: l.Owner, Node: l.Node, Dir: l.Dir}
	do := func(t quire.OrderType, args any) error {
		m, err := r.machine(l.Node)
		if err == nil {
			_, err = m.Do(ctx, r.c.orderAs(t, p, l.Owner, l.Account, nil, args))
		}
		if quire.KindOf(err) == quire.KindNotFound {
			return nil // it is not there
		}
		return err
	}
	away := quire.MoveArgs{Aside: true}
	next := ""
	var due time.Time
	var err error
	if known { // else the node was removed, and what is on it with it
		switch l.What {
		case leftStage:
			err = do(quire.OrderUnstage, nil)
			next, due = leftTrash, r.c.Now().Add(r.c.KeepDeleted) // of an earlier move
		case leftPlaced:
			if err = do(quire.OrderUnstage, nil); err == nil && !lives {
				err = do(quire.OrderAside, quire.MoveArgs{})
			}
			next, due = leftBoth, r.c.Now()
		case leftBoth:
			err = do(quire.OrderPurge, away)
			next, due = leftAside, r.c.Now()
		case leftAside:
			err = do(quire.OrderTrash, away)
			next, due = leftTrash, r.c.Now().Add(r.c.KeepDeleted)
		default:
			err = do(quire.OrderPurge, away)
		}
	}
	if err != nil {
		return err
	}
	return r.c.write(ctx, quireItself, func(tx *txn) error {
		if next == "" {
			return tx.DropLeftover(l.Project, l.Node)
		}
		l.What, l.Due = next, due
		return tx.SetLeftover(l)
	})
}

// clearLeftover makes sure that nothing of an earlier move is in the way.
func (j *job) clearLeftover(ctx context.Context, node quire.NodeID) error {
	return j.r.settleLeftover(ctx, j.p.ID, node)
}

// leftovers does what is due, of every project.
func (r *reconciler) leftovers(ctx context.Context) {
	var due []store.Leftover
	if err := r.c.read(ctx, func(tx *store.Tx) (err error) { due, err = tx.Leftovers("", r.c.Now()); return err }); err != nil {
		if ctx.Err() == nil {
			r.c.Log.Error("cannot read what moves left", "err", err)
		}
		return
	}
	for _, l := range due {
		r.project(l.Project)
	}
}

// clearUp does what is due about a project's leftovers, unless something else is
// being done with it. What cannot be done now is tried again when a node comes.
func (r *reconciler) clearUp(ctx context.Context, id quire.ProjectID) {
	var left []store.Leftover
	var open *quire.Work
	err := r.c.read(ctx, func(tx *store.Tx) (err error) {
		if left, err = tx.Leftovers(id, tx.Now); err != nil || len(left) == 0 {
			return err
		}
		open, err = tx.OpenWork(id)
		return err
	})
	if err != nil || open != nil {
		return
	}
	for _, l := range left {
		if err := r.settleLeftover(ctx, id, l.Node); err != nil && ctx.Err() == nil {
			r.c.Log.Warn("what a move left stays for now", "project", id, "node", l.Node, "err", err)
		}
	}
}
