package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"quire"
	"quire/store"
)

// Moves takes projects to other nodes.
type Moves struct{ c *core }

// Target is a node that a project could move to.
type Target struct {
	Node       quire.NodeID       `json:"node"`
	Name       string             `json:"name"`
	DataCenter quire.DataCenterID `json:"data_center"`
	Center     string             `json:"data_center_name"`
	Free       int64              `json:"free"`   // bytes on its projects' disk
	Shared     bool               `json:"shared"` // it has the same storage: nothing is copied
}

// Targets lists the nodes that take the project now, for those who may move it.
func (m *Moves) Targets(ctx context.Context, by quire.Actor, id quire.ProjectID) (list []Target, err error) {
	list = []Target{}
	err = m.c.read(ctx, func(tx *store.Tx) error {
		p, err := m.c.project(tx, by, id, quire.Relocate)
		if err != nil {
			return err
		}
		dcs, err := tx.DataCenters()
		if err != nil {
			return err
		}
		nodes, err := tx.Nodes()
		_, _, here := m.c.loop.nodeState(p.Node)
		for _, n := range nodes {
			up, _, h := m.c.loop.nodeState(n.ID)
			if n.ID == p.Node || n.Drained || n.Peer.Cloned || !up {
				continue
			}
			t := Target{Node: n.ID, Name: n.Name, DataCenter: n.DataCenter, Free: h.Storage.Free, Shared: sameStorage(here, h)}
			for _, dc := range dcs {
				if dc.ID == n.DataCenter {
					t.Center = dc.Name
				}
			}
			list = append(list, t)
		}
		return err
	})
	return list, err
}

func sameStorage(a, b quire.NodeHealth) bool {
	return a.Storage.ID != "" && a.Storage.ID == b.Storage.ID
}

// Begin moves a project to the node, or (node "") to where there is room, in the
// data center or (dc "") in any. It is stopped first and, if it ran, started
// again afterwards. Until it is switched over, nothing that fails changes it.
func (m *Moves) Begin(ctx context.Context, by quire.Actor, id quire.ProjectID, node quire.NodeID, dc quire.DataCenterID) error {
	return m.c.change(ctx, by, id, quire.Relocate, func(tx *txn, p quire.Project) error {
		switch p.State {
		case quire.ProjectStopped, quire.ProjectRunning, quire.ProjectFailed:
		default:
			return quire.Conflict("", "Something else is being done with this project at the moment. Try again when it is over.")
		}
		to, err := m.c.elsewhere(tx, p, node, dc)
		if err != nil {
			return err
		}
		up, _, here := m.c.loop.nodeState(p.Node)
		if !up {
			return quire.Unavailable("The node that the project is on does not answer. A project moves when both nodes do.", nil)
		}
		_, _, there := m.c.loop.nodeState(to.ID)
		made, err := tx.Prepared(id)
		if err != nil {
			return err
		}
		if err := m.c.revoke(tx, "", id, ""); err != nil { // what is open ends
			return err
		}
		return m.c.beginWork(tx, by, p, quire.Work{Kind: "move", Move: &quire.Move{
			From: p.Node, To: to.ID, DataCenter: to.DataCenter, ToName: to.Name, Start: p.State == quire.ProjectRunning,
			Shared: sameStorage(here, there), Empty: len(made) == 0 && p.State == quire.ProjectStopped,
		}})
	})
}

// elsewhere chooses a node that is not the project's.
func (c *core) elsewhere(tx *txn, p quire.Project, id quire.NodeID, dc quire.DataCenterID) (*quire.Node, error) {
	nodes, err := tx.Nodes()
	if err != nil {
		return nil, err
	}
	var best *quire.Node
	most := 0.0
	for i, n := range nodes {
		up, _, health := c.loop.nodeState(n.ID)
		if id != "" && n.ID == id {
			switch {
			case id == p.Node:
				return nil, quire.Invalid("node", "The project is on "+n.Name+" already.")
			case n.Drained:
				return nil, quire.Invalid("node", closedSentence(n))
			case !up || n.Peer.Cloned:
				return nil, quire.Unavailable("The compute node "+n.Name+" does not answer.", nil)
			}
			return &nodes[i], nil
		}
		if id != "" || n.ID == p.Node || dc != "" && n.DataCenter != dc || n.Drained || n.Peer.Cloned || !up {
			continue
		}
		if r := room(up, health); r > most {
			best, most = &nodes[i], r
		}
	}
	switch {
	case best != nil:
		return best, nil
	case id != "":
		return nil, quire.Invalid("node", "There is no such compute node.")
	}
	return nil, quire.Invalid("node", "There is no other compute node that takes the project now.")
}

// Cancel ends a move, unless it is switched over; then everything is as before.
func (m *Moves) Cancel(ctx context.Context, by quire.Actor, id quire.ProjectID) error {
	return m.c.change(ctx, by, id, quire.Relocate, func(tx *txn, p quire.Project) error {
		w, err := tx.OpenWork(id)
		if err != nil {
			return err
		}
		if w == nil || w.Move == nil {
			return quire.Conflict("", "The project is not being moved.")
		}
		if w.Move.Switched {
			return quire.Conflict("", "It is too late to cancel: the project is on the other node already.")
		}
		if _, err := tx.CancelWork(w.ID, by.Name); err != nil {
			return err
		}
		return tx.event("project.move.cancel", id, "")
	})
}

// cancelPoll is how often a move looks whether somebody wants it to end.
const cancelPoll = 500 * time.Millisecond

// cancellable is a step that ends when somebody cancels the work.
func cancellable(do func(context.Context, *job) (quire.Receipt, error)) func(context.Context, *job) (quire.Receipt, error) {
	return func(ctx context.Context, j *job) (quire.Receipt, error) {
		wanted := func() (by string) {
			err := j.r.c.read(ctx, func(tx *store.Tx) (err error) { by, err = tx.WorkCancel(j.work.ID); return err })
			if err != nil && ctx.Err() == nil {
				j.r.c.Log.Warn("cannot read whether a move is to end", "work", j.work.ID, "err", err)
			}
			return by
		}
		cancelled := func(by string) error { return quire.Failed(by+" cancelled the move.", nil) }
		if by := wanted(); by != "" {
			return quire.Receipt{}, cancelled(by)
		}
		inner, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		done := make(chan struct{})
		defer func() { <-done }()
		defer cancel(nil)
		go func() {
			defer close(done)
			tick := time.NewTicker(cancelPoll)
			defer tick.Stop()
			for {
				select {
				case <-inner.Done():
					return
				case <-tick.C:
					if by := wanted(); by != "" {
						cancel(cancelled(by))
						return
					}
				}
			}
		}()
		rec, err := do(inner, j)
		var why *quire.Error
		if err != nil && errors.As(context.Cause(inner), &why) {
			return rec, why
		}
		return rec, err
	}
}

// whole leaves a step out where nothing is copied.
func whole(do func(context.Context, *job) (quire.Receipt, error)) func(context.Context, *job) (quire.Receipt, error) {
	return func(ctx context.Context, j *job) (quire.Receipt, error) {
		switch {
		case j.work.Move.Shared:
			return quire.Receipt{Already: true, Note: "both nodes have the same storage"}, nil
		case j.work.Move.Empty:
			return quire.Receipt{Already: true, Note: "it was never started"}, nil
		}
		return do(ctx, j)
	}
}

func movePlan() []step {
	return []step{
		{"sessions", "Stopping the sessions", quiet},
		{"aside", "Closing the directory", cancellable(whole(moveAside))},
		{"look", "Counting the files", cancellable(whole(moveLook))},
		{"accounts", "Looking for the accounts on the other node", cancellable(moveAccounts)},
		{"copy", "Copying the files", cancellable(whole(moveCopy))},
		{"verify", "Comparing the copy with the original", cancellable(whole(moveVerify))},
		{"place", "Putting the copy in place", whole(movePlace)},
		{"switch", "Switching over", moveSwitch},
		{"permissions", "Setting the permissions", movePermissions},
		{"old", "Putting the old directory aside", whole(moveOld)},
	}
}

// on signs an order for one of the two nodes.
func (j *job) on(ctx context.Context, node quire.NodeID, t quire.OrderType, args any) (quire.Machine, []byte, error) {
	p := j.p
	p.Node = node
	as, _, err := j.r.account(ctx, p, p.Owner)
	if err != nil {
		return nil, nil, err
	}
	m, err := j.r.machine(node)
	if err != nil {
		return nil, nil, err
	}
	return m, j.r.c.orderAs(t, p, p.Owner, as, nil, args), nil
}

func (j *job) do(ctx context.Context, node quire.NodeID, t quire.OrderType, args any) (quire.Receipt, error) {
	m, order, err := j.on(ctx, node, t, args)
	if err != nil {
		return quire.Receipt{}, err
	}
	return m.Do(ctx, order)
}

// moveAside closes the directory: from here on nobody changes it.
func moveAside(ctx context.Context, j *job) (quire.Receipt, error) {
	t, err := j.r.people(ctx, j.p.ID)
	if err != nil {
		return quire.Receipt{}, err
	}
	var args quire.MoveArgs
	for _, a := range t.as {
		args.Expel = append(args.Expel, a.UID)
	}
	args.Expel = append(args.Expel, t.team.Denied...)
	rec, err := j.do(ctx, j.work.Move.From, quire.OrderAside, args)
	if quire.KindOf(err) == quire.KindNotFound {
		j.work.Move.Empty = true
		j.save(ctx)
		return quire.Receipt{Already: true, Note: "there is no directory yet"}, nil
	}
	return rec, err
}

// moveLook finds out whose there is what, and whether it fits.
func moveLook(ctx context.Context, j *job) (quire.Receipt, error) {
	m, order, err := j.on(ctx, j.work.Move.From, quire.OrderSurvey, quire.MoveArgs{})
	if err != nil {
		return quire.Receipt{}, err
	}
	rec, err := m.Send(ctx, order, io.Discard)
	if err != nil || rec.Survey == nil {
		return rec, err
	}
	s := *rec.Survey
	move := j.work.Move
	move.People, move.Named = nil, nil
	if err := j.r.c.read(ctx, func(tx *store.Tx) error {
		for uid, example := range s.Owners {
			a, err := j.r.c.personOf(tx, uid)
			if quire.KindOf(err) == quire.KindNotFound {
				return quire.Failed(fmt.Sprintf("Files of the project belong to uid %d, which is nobody's account here, such as %q. Give them to somebody or take them out of the project, then move it again.", uid, example), nil)
			}
			if err != nil {
				return err
			}
			move.People = append(move.People, a)
		}
		for _, uid := range s.Named {
			if _, owns := s.Owners[uid]; owns {
				continue
			}
			a, err := j.r.c.personOf(tx, uid)
			if err == nil {
				move.Named = append(move.Named, a)
			} else if quire.KindOf(err) != quire.KindNotFound {
				return err
			}
		}
		return nil
	}); err != nil {
		return quire.Receipt{}, err
	}
	byUID := func(a, b quire.Person) int { return int(int64(a.UID) - int64(b.UID)) }
	slices.SortFunc(move.People, byUID)
	slices.SortFunc(move.Named, byUID)
	s.Owners, s.Named = nil, nil
	move.Survey = &s
	if err := j.fits(ctx, s); err != nil {
		return quire.Receipt{}, err
	}
	note := fmt.Sprintf("%d files, %s", s.Files, size(s.Bytes))
	for _, f := range s.Left {
		note += fmt.Sprintf("; %d %s: %s", f.N, f.Kind, strings.Join(f.Examples, ", "))
	}
	return quire.Receipt{Note: note}, nil
}

// personOf is whose account has the number.
func (c *core) personOf(tx *store.Tx, uid uint32) (quire.Person, error) {
	if c.Accounts.Shared() {
		a, err := c.Accounts.of(nil, quire.User{})
		if err == nil && a.UID != uid {
			err = quire.NotFound("account")
		}
		return a, err
	}
	u, err := tx.AccountOf(uid)
	if err != nil {
		return quire.Person{}, err
	}
	return tx.Account(u.ID)
}

const spare = 64 << 20 // bytes that stay free

// fits refuses what the other node's disk has no room for.
func (j *job) fits(ctx context.Context, s quire.Survey) error {
	m, err := j.r.machine(j.work.Move.To)
	if err != nil {
		return err
	}
	h, err := m.Health(ctx)
	if err != nil {
		return err
	}
	switch st := h.Storage; {
	case st.Problem != "":
		return quire.Failed("No project can move to "+j.work.Move.ToName+": "+st.Problem, nil)
	case st.Total > 0 && st.Free < s.Room+spare:
		return quire.Failed(fmt.Sprintf("The project takes %s, and %s has %s left for projects. Make room there, or choose another node.", size(s.Room), j.work.Move.ToName, size(st.Free)), nil)
	case st.Files > 0 && st.FilesFree < s.Files+s.Dirs+100:
		return quire.Failed(fmt.Sprintf("The project has %d files, and %s has room for %d more. Make room there, or choose another node.", s.Files+s.Dirs, j.work.Move.ToName, st.FilesFree), nil)
	}
	return nil
}

func size(n int64) string {
	const units = "kMGTPE"
	if n < 1000 {
		return fmt.Sprintf("%d bytes", n)
	}
	f, i := float64(n)/1000, 0
	for f >= 1000 && i < len(units)-1 {
		f, i = f/1000, i+1
	}
	return fmt.Sprintf("%.1f %cB", f, units[i])
}

// moveAccounts has everybody's account, with its number, on the other node.
func moveAccounts(ctx context.Context, j *job) (quire.Receipt, error) {
	p := j.p
	p.Node = j.work.Move.To
	users := []quire.UserID{p.Owner}
	if !j.r.c.Accounts.Shared() {
		if err := j.r.c.read(ctx, func(tx *store.Tx) error {
			for _, a := range j.work.Move.People {
				u, err := tx.AccountOf(a.UID)
				if err != nil {
					return err
				}
				if !slices.Contains(users, u.ID) {
					users = append(users, u.ID)
				}
			}
			return nil
		}); err != nil {
			return quire.Receipt{}, err
		}
	}
	var names []string
	for _, id := range users {
		a, rec, err := j.r.account(ctx, p, id)
		if err != nil {
			return rec, err
		}
		names = append(names, a.Name)
	}
	return quire.Receipt{Note: strings.Join(names, ", ")}, nil
}

func (j *job) moveArgs() quire.MoveArgs {
	move := j.work.Move
	a := quire.MoveArgs{People: move.People, Named: move.Named, Sum: true}
	if s := move.Survey; s != nil {
		a.Groups, a.Files, a.Bytes = s.Groups, s.Files+s.Dirs, s.Bytes
	}
	return a
}

// counter counts what goes through, and by that how far the copy is.
type counter struct {
	io.Writer
	n atomic.Int64
}

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.Writer.Write(b)
	c.n.Add(int64(n))
	return n, err
}

// moveCopy sends from the one to the other. What an earlier try has left there
// is removed first, by the node.
func moveCopy(ctx context.Context, j *job) (quire.Receipt, error) {
	if err := j.clearLeftover(ctx, j.work.Move.To); err != nil {
		return quire.Receipt{}, err
	}
	args := j.moveArgs()
	from, send, err := j.on(ctx, j.work.Move.From, quire.OrderSend, args)
	if err != nil {
		return quire.Receipt{}, err
	}
	to, take, err := j.on(ctx, j.work.Move.To, quire.OrderReceive, args)
	if err != nil {
		return quire.Receipt{}, err
	}
	r, w := io.Pipe()
	through := &counter{Writer: w}
	taken := make(chan error, 1)
	let := errors.New("the other node lets go")
	go func() {
		_, err := to.Receive(ctx, take, r)
		r.CloseWithError(let)
		taken <- err
	}()
	sent := make(chan error, 1)
	go func() {
		_, err := from.Send(ctx, send, through)
		w.CloseWithError(err)
		sent <- err
	}()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	step := &j.work.Steps[slices.IndexFunc(j.work.Steps, func(s quire.Step) bool { return s.Name == "copy" })]
	for {
		select {
		case serr := <-sent:
			terr := <-taken
			switch {
			case serr != nil && !errors.Is(serr, let):
				return quire.Receipt{}, serr
			case terr != nil:
				return quire.Receipt{}, terr
			case serr != nil:
				return quire.Receipt{}, quire.Unavailable("The other node let go of the files before all had come.", serr)
			}
			j.work.Move.Done = through.n.Load()
			return quire.Receipt{Note: fmt.Sprintf("%d files, %s", args.Files, size(through.n.Load()))}, nil
		case <-tick.C:
			if n := through.n.Load(); n != j.work.Move.Done {
				j.work.Move.Done = n
				step.Note = fmt.Sprintf("%s of at most %s, of %d files", size(n), size(args.Bytes), args.Files)
				j.save(ctx)
			}
		}
	}
}

// moveVerify has both nodes read all of it again and compares: names, owners,
// modes, lists, times, and a sum of each file.
func moveVerify(ctx context.Context, j *job) (quire.Receipt, error) {
	look := func(ctx context.Context, node quire.NodeID, staged bool) (quire.Survey, error) {
		args := j.moveArgs()
		args.Staged = staged
		m, order, err := j.on(ctx, node, quire.OrderSurvey, args)
		if err != nil {
			return quire.Survey{}, err
		}
		rec, err := m.Send(ctx, order, io.Discard)
		if err != nil || rec.Survey == nil {
			return quire.Survey{}, err
		}
		return *rec.Survey, nil
	}
	type seen struct {
		s   quire.Survey
		err error
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	other := make(chan seen, 1)
	go func() {
		s, err := look(ctx, j.work.Move.To, true)
		if err != nil {
			cancel(err) // the first to fail says why
		}
		other <- seen{s, err}
	}()
	here, err := look(ctx, j.work.Move.From, false)
	if err != nil {
		cancel(err)
	}
	there := <-other
	if err != nil || there.err != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return quire.Receipt{}, err
	}
	if len(here.Digest) == 0 || string(here.Digest) != string(there.s.Digest) || here.Files != there.s.Files || here.Dirs != there.s.Dirs || here.Bytes != there.s.Bytes {
		return quire.Receipt{}, quire.Failed(fmt.Sprintf("The copy is not the same as the original: %d files in %d directories with %d bytes there, %d in %d with %d here. Something still changes them, or a disk reports what it should not. Move the project again.",
			there.s.Files, there.s.Dirs, there.s.Bytes, here.Files, here.Dirs, here.Bytes), nil)
	}
	return quire.Receipt{Note: fmt.Sprintf("the same: %d files, %x…", here.Files, here.Digest[:4])}, nil
}

// movePlace makes a project of the copy, with the team of now.
func movePlace(ctx context.Context, j *job) (quire.Receipt, error) {
	t, err := j.r.people(ctx, j.p.ID)
	if err != nil {
		return quire.Receipt{}, err
	}
	args := quire.MoveArgs{TeamArgs: t.team}
	args.Expel = nil
	return j.do(ctx, j.work.Move.To, quire.OrderPlace, args)
}

// moveSwitch is where the project is on the other node.
func moveSwitch(ctx context.Context, j *job) (quire.Receipt, error) {
	move := *j.work.Move
	move.Switched, move.Survey, move.People, move.Named = true, nil, nil, nil
	p := j.p
	p.Node = move.From
	as, err := j.r.known(ctx, p.Owner)
	if err != nil {
		return quire.Receipt{}, err
	}
	work := j.work
	work.Move = &move
	err = j.r.c.write(ctx, quireItself, func(tx *txn) error {
		if err := tx.SetProjectNode(p.ID, move.DataCenter, move.To); err != nil {
			return err
		}
		if !move.Shared && !move.Empty {
			// An older one that was put away there goes first: there is room for one.
			old, err := tx.Leftovers(p.ID, tx.Now)
			if err != nil {
				return err
			}
			what := leftAside
			if slices.ContainsFunc(old, func(l store.Leftover) bool { return l.Node == move.From && l.What == leftTrash }) {
				what = leftBoth
			}
			if err := tx.SetLeftover(store.Leftover{Project: p.ID, Node: move.From, What: what, Due: tx.Now, Owner: p.Owner, Account: as, Dir: p.Dir}); err != nil {
				return err
			}
		}
		if err := tx.SaveWork(work); err != nil {
			return err
		}
		tx.touch("")
		if err := tx.event("project.moved", p.ID, "to "+move.ToName+", for "+j.work.By); err != nil {
			return err
		}
		return j.r.c.teamChanged(tx, p.ID)
	})
	if err != nil {
		return quire.Receipt{}, quire.Unavailable("The database does not take it.", err)
	}
	j.work, j.p.Node, j.p.DataCenter = work, move.To, move.DataCenter
	return quire.Receipt{Note: "it is on " + move.ToName}, nil
}

func movePermissions(ctx context.Context, j *job) (quire.Receipt, error) {
	if j.work.Move.Empty {
		return quire.Receipt{Already: true, Note: "it was never started"}, nil
	}
	return permit(ctx, j)
}

// moveOld puts the original into the trash, or leaves it to be put there later:
// the project does not wait for it.
func moveOld(ctx context.Context, j *job) (quire.Receipt, error) {
	err := j.r.settleLeftover(ctx, j.p.ID, j.work.Move.From)
	if ctx.Err() != nil {
		return quire.Receipt{}, ctx.Err()
	}
	if err != nil {
		j.r.c.Log.Warn("the old directory is not in the trash yet", "project", j.p.ID, "err", err)
		return quire.Receipt{Note: "later: " + quire.AsError(err).Message}, nil
	}
	return quire.Receipt{Note: "it can be found there for " + days(j.r.c.KeepDeleted)}, nil
}

func days(d time.Duration) string {
	if n := int(d / (24 * time.Hour)); n != 1 {
		return fmt.Sprintf("%d days", n)
	}
	return "one day"
}

// unmove undoes a move that failed before it was switched over, and says again
// why it did. It goes on until the project is back: until then nobody can use it.
func (j *job) unmove(ctx context.Context, failure error) error {
	// A database that broke off may have done what it did not answer.
	for wait := retryFirst; ctx.Err() == nil; wait = min(2*wait, retryMost) {
		var p quire.Project
		err := j.r.c.read(ctx, func(tx *store.Tx) (err error) { p, err = tx.Project("", j.p.ID); return err })
		if err == nil && p.Node == j.work.Move.To {
			j.p, j.work.Move.Switched = p, true
			return nil
		}
		if err == nil {
			break
		}
		pause(ctx, wait)
	}
	if e := quire.AsError(failure); j.work.Error == "" {
		j.r.c.Log.Error("a move failed; it is undone", "project", j.p.ID, "err", failure)
		j.work.Error = e.Message
		j.save(ctx) // a server that starts meanwhile goes on here
	}
	begun := func(name string) bool {
		return slices.ContainsFunc(j.work.Steps, func(s quire.Step) bool { return s.Name == name && s.State != quire.WorkWaiting })
	}
	move := j.work.Move
	if move.Shared || move.Empty || !begun("aside") {
		return failure
	}
	for wait := retryFirst; ctx.Err() == nil; wait = min(2*wait, retryMost) {
		_, err := j.do(ctx, move.From, quire.OrderBack, nil)
		if err == nil {
			break
		}
		j.r.c.Log.Warn("a project is not put back yet", "project", j.p.ID, "err", err)
		if k := quire.KindOf(err); k != quire.KindUnavailable && k != quire.KindInternal {
			failure = quire.Failed(quire.AsError(failure).Message+" And its directory was not put back: "+quire.AsError(err).Message, err)
			break
		}
		pause(ctx, wait)
	}
	if ctx.Err() != nil || !begun("copy") {
		return failure
	}
	what := leftStage
	if begun("place") {
		what = leftPlaced
	}
	p := j.p
	as, err := j.r.known(ctx, p.Owner)
	if err == nil {
		err = j.r.c.write(ctx, quireItself, func(tx *txn) error {
			return tx.SetLeftover(store.Leftover{Project: p.ID, Node: move.To, What: what, Due: tx.Now, Owner: p.Owner, Account: as, Dir: p.Dir})
		})
	}
	if err == nil {
		err = j.r.settleLeftover(ctx, p.ID, move.To)
	}
	if err != nil && ctx.Err() == nil {
		j.r.c.Log.Warn("the unfinished copy is not removed yet", "project", p.ID, "err", err)
	}
	return failure
}
