package control

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"quire"
	"quire/store"
)

// A plan is what a kind of work does, step by step. Every step looks whether it
// is so already and acts if not; so a plan can be taken up at any step.
type step struct {
	name  string
	doing string // for the page: what happens now
	do    func(ctx context.Context, j *job) (quire.Receipt, error)
}

// job is one run of a plan.
type job struct {
	r     *reconciler
	work  quire.Work
	p     quire.Project
	actor quire.UserID
}

func (r *reconciler) plan(kind string, p quire.Project) []step {
	switch kind {
	case "start":
		fill := step{"skeleton", "Copying the site's starting files", once("skeleton", order(quire.OrderSkeleton, nil))}
		if p.Source != "" {
			fill = step{"clone", "Cloning " + p.Source, once("clone", order(quire.OrderClone, quire.CloneArgs{URL: p.Source}))}
		}
		return []step{
			{"account", "Looking for the owner's account", account},
			{"directory", "Making the directory", order(quire.OrderDirectory, nil)},
			{"permissions", "Setting the permissions", permit}, // before there are files: they begin with the team's
			fill,
			{"environment", "Making the environment", once("environment", order(quire.OrderEnvironment, nil))},
			{"app", "Starting the app", open},
		}
	case "stop":
		return []step{{"sessions", "Stopping the sessions", quiet}}
	case "delete":
		return []step{
			{"sessions", "Stopping the sessions", quiet},
			{"directory", "Putting the directory aside", order(quire.OrderTrash, nil)},
		}
	case "restore":
		return []step{{"directory", "Bringing the directory back", order(quire.OrderRestore, nil)}}
	case "take-over":
		return []step{
			{"account", "Looking for the owner's account", account},
			{"files", "Copying the author's files", takeFiles},
		}
	case "move":
		return movePlan()
	case "purge":
		return []step{{"directory", "Deleting the files", order(quire.OrderPurge, nil)}}
	}
	return nil
}

// ends says in which state a kind of work begins and how it leaves the project.
func ends(kind string) (during, done, failed quire.ProjectState) {
	switch kind {
	case "start":
		return quire.ProjectStarting, quire.ProjectRunning, quire.ProjectFailed
	case "stop":
		return quire.ProjectStopping, quire.ProjectStopped, quire.ProjectFailed
	case "delete":
		return quire.ProjectStopping, quire.ProjectDeleted, quire.ProjectFailed
	case "restore":
		return quire.ProjectDeleted, quire.ProjectStopped, quire.ProjectDeleted
	case "take-over":
		return quire.ProjectStopped, quire.ProjectStopped, quire.ProjectStopped
	case "move":
		return quire.ProjectMoving, quire.ProjectStopped, quire.ProjectStopped
	}
	return quire.ProjectDeleted, quire.ProjectDeleted, quire.ProjectDeleted
}

// order is a step that is one order to the project's node.
func order(t quire.OrderType, args any) func(context.Context, *job) (quire.Receipt, error) {
	return func(ctx context.Context, j *job) (quire.Receipt, error) {
		// The owner's account, not the asker's: the project is the owner's work.
		as, rec, err := j.r.account(ctx, j.p, j.p.Owner)
		if err != nil {
			return rec, err
		}
		m, err := j.r.machine(j.p.Node)
		if err != nil {
			return quire.Receipt{}, err
		}
		return m.Do(ctx, j.r.c.orderAs(t, j.p, j.p.Owner, as, nil, args))
	}
}

// account makes or finds the owner's account.
func account(ctx context.Context, j *job) (quire.Receipt, error) {
	j.r.mu.Lock()
	delete(j.r.accounts, accountKey{j.p.Node, j.p.Owner}) // looked at anew at every start
	j.r.mu.Unlock()
	_, rec, err := j.r.account(ctx, j.p, j.p.Owner)
	if err != nil {
		return rec, err
	}
	// A project that was handed over has its directory handed over first.
	var d store.TeamOnDisk
	var made map[string]bool
	if err := j.r.c.read(ctx, func(tx *store.Tx) error {
		if made, err = tx.Prepared(j.p.ID); err != nil {
			return err
		}
		d, err = tx.TeamOnDisk(j.p.ID)
		return err
	}); err != nil {
		return rec, err
	}
	if len(made) > 0 && d.Done < d.Wanted && j.r.settleTeam(ctx, j.p.ID) {
		return rec, quire.Unavailable("The node has not carried out the last change of the team yet.", nil)
	}
	return rec, nil
}

// permit puts the team on the project's directory.
func permit(ctx context.Context, j *job) (quire.Receipt, error) {
	t, err := j.r.people(ctx, j.p.ID)
	if err != nil {
		return quire.Receipt{}, err
	}
	rec, err := j.r.permissions(ctx, t)
	if err != nil {
		return rec, err
	}
	rec.Note = strings.TrimSpace(rec.Note + " " + t.note())
	if !t.uncut {
		j.r.teamNote(ctx, j.p.ID, t.behind.Wanted, t.note())
	}
	return rec, nil
}

// once skips a step that a former start has done; Reset makes it run again.
func once(name string, do func(context.Context, *job) (quire.Receipt, error)) func(context.Context, *job) (quire.Receipt, error) {
	return func(ctx context.Context, j *job) (quire.Receipt, error) {
		var done map[string]bool
		err := j.r.c.read(ctx, func(tx *store.Tx) (err error) { done, err = tx.Prepared(j.p.ID); return err })
		if err != nil {
			return quire.Receipt{}, err
		}
		if done[name] {
			return quire.Receipt{Already: true, Note: "done at an earlier start"}, nil
		}
		rec, err := do(ctx, j)
		if err != nil {
			return rec, err
		}
		return rec, j.r.c.write(ctx, quireItself, func(tx *txn) error { return tx.SetPrepared(j.p.ID, name) })
	}
}

// open lets waiting sessions start and waits until they run or have failed. The
// project itself is open by then, whatever becomes of them.
func open(ctx context.Context, j *job) (quire.Receipt, error) {
	if err := j.r.c.write(ctx, quireItself, func(tx *txn) error {
		tx.touch(j.p.ID)
		return tx.SetProjectState(j.p.ID, quire.ProjectRunning, "")
	}); err != nil {
		return quire.Receipt{}, err
	}
	waiting := func(s quire.Session) bool { return s.State == quire.SessionStarting }
	n, err := j.waitSessions(ctx, waiting, func(s quire.Session) { j.r.session(s.ID) })
	if n == 0 {
		return quire.Receipt{Already: true, Note: "no app was asked for"}, err
	}
	return quire.Receipt{}, err
}

// quiet ends everybody's sessions and waits until they are gone.
func quiet(ctx context.Context, j *job) (quire.Receipt, error) {
	if err := j.r.c.write(ctx, quireItself, func(tx *txn) error {
		live, err := tx.SessionsOf(j.p.ID, 0)
		if err != nil {
			return err
		}
		did := "stopped"
		switch j.work.Kind {
		case "delete":
			did = "deleted"
		case "move":
			did = "moved"
		}
		return j.r.c.stopSessions(tx, live, j.work.By+", who "+did+" the project")
	}); err != nil {
		return quire.Receipt{}, err
	}
	_, err := j.waitSessions(ctx, func(s quire.Session) bool { return s.State.Live() }, func(s quire.Session) { j.r.session(s.ID) })
	return quire.Receipt{}, err
}

// waitSessions waits until no session of the project is as said. It begins by
// kicking those that are, and returns how many there were.
func (j *job) waitSessions(ctx context.Context, as func(quire.Session) bool, kick func(quire.Session)) (n int, err error) {
	w := j.r.c.hub.watch(j.p.ID)
	defer j.r.c.hub.leave(w)
	for first := true; ; first = false {
		var live []quire.Session
		if err := j.r.c.read(ctx, func(tx *store.Tx) (err error) { live, err = tx.SessionsOf(j.p.ID, 0); return err }); err != nil {
			return n, err
		}
		left := 0
		for _, s := range live {
			if as(s) {
				left++
				if first {
					kick(s)
				}
			}
		}
		if first {
			n = left
		}
		if left == 0 {
			return n, nil
		}
		select {
		case <-ctx.Done():
			return n, ctx.Err()
		case <-w.ch:
		}
	}
}

// begin writes a work row and sets the project's state; the reconciler takes it
// from there, now or after a crash.
func (c *core) begin(tx *txn, by quire.Actor, p quire.Project, kind string) error {
	return c.beginFor(tx, by, p, kind, 0)
}

// beginFor is begin for a work about an author's files.
func (c *core) beginFor(tx *txn, by quire.Actor, p quire.Project, kind string, author uint32) error {
	return c.beginWork(tx, by, p, quire.Work{Kind: kind, Author: author})
}

func (c *core) beginWork(tx *txn, by quire.Actor, p quire.Project, w quire.Work) error {
	w.ID, w.Project, w.By, w.State, w.Created = quire.NewWorkID(), p.ID, by.Name, quire.WorkRunning, tx.Now
	for _, s := range c.loop.plan(w.Kind, p) {
		w.Steps = append(w.Steps, quire.Step{Name: s.name, State: quire.WorkWaiting})
	}
	err := tx.AddWork(w, by.User)
	if quire.KindOf(err) == quire.KindConflict {
		return quire.Conflict("", "Something else is being done with this project at the moment. Try again when it is over.")
	}
	if err != nil {
		return err
	}
	during, _, _ := ends(w.Kind)
	if err := tx.SetProjectState(p.ID, during, ""); err != nil {
		return err
	}
	tx.touch(p.ID)
	tx.wake(wakeProject, string(p.ID))
	detail := p.Name
	if w.Move != nil {
		detail += " to " + w.Move.ToName
	}
	return tx.event("project."+w.Kind, p.ID, detail)
}

// project takes up the project's open work, if it has one.
func (r *reconciler) project(id quire.ProjectID) {
	r.once("project "+string(id), func(ctx context.Context) {
		r.workOn(ctx, id)
		r.clearUp(ctx, id)
	})
}

func (r *reconciler) workOn(ctx context.Context, id quire.ProjectID) {
	var w *quire.Work
	var p quire.Project
	var actor quire.UserID
	err := r.c.read(ctx, func(tx *store.Tx) (err error) {
		if w, err = tx.OpenWork(id); err != nil || w == nil {
			return err
		}
		if actor, err = tx.WorkActor(w.ID); err != nil {
			return err
		}
		p, err = tx.Project("", id)
		return err
	})
	if err != nil {
		r.c.Log.Error("cannot read a work", "project", id, "err", err)
		return
	}
	if w != nil {
		(&job{r: r, work: *w, p: p, actor: actor}).run(ctx)
	}
}

// run does the steps that are left. When ctx ends it stops without a word: the
// row says where to go on.
func (j *job) run(ctx context.Context) {
	plan := j.r.plan(j.work.Kind, j.p)
	for i, s := range plan {
		if i >= len(j.work.Steps) || j.work.Steps[i].Name != s.name {
			j.finish(ctx, i, quire.Receipt{}, quire.Failed("The program was changed while this was going on. Start again.", nil))
			return
		}
		if j.work.Steps[i].State == quire.WorkDone {
			continue
		}
		if j.work.Error != "" { // it had failed, and was being undone
			j.finish(ctx, i, quire.Receipt{}, quire.Failed(j.work.Error, nil))
			return
		}
		j.begins(ctx, i)
		rec, err := j.patiently(ctx, i, s)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			j.finish(ctx, i, rec, err)
			return
		}
		now := j.r.c.Now().UTC()
		j.work.Steps[i].State, j.work.Steps[i].Note, j.work.Steps[i].Ended = quire.WorkDone, rec.Note, &now
	}
	j.finish(ctx, len(plan), quire.Receipt{}, nil)
}

// begins stores that a step begins (and, in the same write, that the one before
// is done), for the timeline and the gateway's page.
func (j *job) begins(ctx context.Context, i int) {
	now := j.r.c.Now().UTC()
	j.work.Steps[i].State, j.work.Steps[i].Started = quire.WorkRunning, &now
	j.save(ctx)
}

// doing is what a starting project is at, for the gateway's page.
func (r *reconciler) doing(tx *store.Tx, id quire.ProjectID) (string, error) {
	w, err := tx.OpenWork(id)
	if err != nil || w == nil {
		return "", err
	}
	p, err := tx.Project("", id)
	if err != nil {
		return "", err
	}
	for i, s := range r.plan(w.Kind, p) {
		if i < len(w.Steps) && w.Steps[i].State == quire.WorkRunning {
			return s.doing, nil
		}
	}
	return "", nil
}

func (j *job) save(ctx context.Context) {
	err := j.r.c.write(ctx, quireItself, func(tx *txn) error {
		live, err := tx.SessionsOf(j.p.ID, 0)
		if err != nil {
			return err
		}
		for _, s := range live {
			if s.State == quire.SessionStarting {
				tx.wake(wakeRoute, string(s.ID))
			}
		}
		tx.touch(j.p.ID)
		return tx.SaveWork(j.work)
	})
	if err != nil && ctx.Err() == nil {
		j.r.c.Log.Error("a step was not stored", "work", j.work.ID, "err", err)
	}
}

// patiently does a step; while the node is away it waits and says so.
func (j *job) patiently(ctx context.Context, i int, s step) (rec quire.Receipt, err error) {
	wait, until := retryFirst, j.r.c.Now().Add(nodeAwayFor)
	for {
		rec, err = s.do(ctx, j)
		if quire.KindOf(err) != quire.KindUnavailable || ctx.Err() != nil || j.r.c.Now().After(until) {
			return rec, err
		}
		if note := "waiting: " + quire.AsError(err).Message; j.work.Steps[i].Note != note {
			j.work.Steps[i].Note = note
			j.save(ctx)
		}
		pause(ctx, wait)
		wait = min(2*wait, retryMost)
	}
}

// finish stores the end of a work and what it means for the project and for
// sessions that waited for it.
func (j *job) finish(ctx context.Context, i int, rec quire.Receipt, failure error) {
	_, done, failed := ends(j.work.Kind)
	if move := j.work.Move; move != nil && !move.Switched && failure != nil {
		if failure = j.unmove(ctx, failure); ctx.Err() != nil {
			return
		}
	}
	err := j.r.c.write(ctx, quireItself, func(tx *txn) error {
		j.work.State, j.work.Ended = quire.WorkDone, &tx.Now
		state, reason := done, ""
		if failure != nil {
			e := quire.AsError(failure)
			j.r.c.Log.Error("work failed", "kind", j.work.Kind, "project", j.p.ID, "step", i, "err", failure)
			j.work.State, j.work.Error, j.work.Log = quire.WorkFailed, e.Message, cutTo(rec.Log, 8<<10)
			if i < len(j.work.Steps) {
				j.work.Steps[i].State, j.work.Steps[i].Note, j.work.Steps[i].Ended = quire.WorkFailed, e.Message, &tx.Now
			}
			state, reason = failed, e.Message
			if err := tx.event("project."+j.work.Kind+".failed", j.p.ID, e.Message); err != nil {
				return err
			}
			live, err := tx.SessionsOf(j.p.ID, 0)
			if err != nil {
				return err
			}
			for _, s := range live {
				if s.State == quire.SessionStarting {
					s.State, s.Reason, s.Ended = quire.SessionFailed, "The project could not start: "+e.Message, &tx.Now
					if err := j.r.saveSession(tx, s); err != nil {
						return err
					}
				}
			}
		}
		tx.touch("")
		if j.work.Kind == "purge" && failure == nil {
			return tx.DropProject(j.p.ID)
		}
		if err := tx.SaveWork(j.work); err != nil {
			return err
		}
		if state == quire.ProjectDeleted && j.work.Kind != "purge" { // deleted, or a restore that failed
			if err := tx.MarkDeleted(j.p.ID, true); err != nil {
				return err
			}
		}
		if err := tx.SetProjectState(j.p.ID, state, reason); err != nil || j.work.Move == nil || !j.work.Move.Start {
			return err
		}
		p, err := tx.Project("", j.p.ID) // it ran before, so it runs again
		if err != nil {
			return err
		}
		return j.r.c.begin(tx, quire.Actor{User: j.actor, Name: j.work.By}, p, "start")
	})
	if err == nil && failure == nil {
		switch j.work.Kind {
		case "start":
			j.r.team(j.p.ID)
			j.r.repair(j.p.ID) // beside the apps, which do not wait for it
		case "take-over": // what was in the way may be gone
			if err := j.r.c.write(ctx, quireItself, func(tx *txn) error { return j.r.c.sweepAgain(tx, j.p.ID) }); err != nil && ctx.Err() == nil {
				j.r.c.Log.Error("no sweep after a take-over", "project", j.p.ID, "err", err)
			}
		case "restore": // the team may have changed just before it was deleted
			j.r.team(j.p.ID)
		}
	}
	if err != nil && ctx.Err() == nil {
		j.r.c.Log.Error("the end of a work was not stored; it will be done again", "work", j.work.ID, "err", err)
		pause(ctx, time.Second)
		j.r.project(j.p.ID)
	}
}

// orderAs signs an order about a project, to be carried out as the account.
func (c *core) orderAs(t quire.OrderType, p quire.Project, user quire.UserID, as Account, s *quire.Session, args any) []byte {
	var b []byte
	if args != nil {
		var err error
		if b, err = json.Marshal(args); err != nil {
			panic(err) // our own structs
		}
	}
	now := c.Now()
	o := quire.Order{
		Type: t, ID: quire.NewOrderID(), Node: p.Node, User: user, Account: as.Name, UID: as.UID,
		Project: p.ID, Dir: p.Dir, Args: b, Issued: now, Expires: now.Add(quire.OrderLife),
	}
	if s != nil {
		o.Session, o.App = s.ID, s.App
	}
	return c.Signer.Order(o)
}
