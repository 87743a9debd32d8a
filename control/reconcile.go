package control

import (
	"context"
	"sync"
	"time"

	"quire"
	"quire/store"
)

// reconciler makes nodes and gateways agree with the database. Everything that
// is to be done is a row; the reconciler looks at the row and does what is
// missing, so a crash anywhere is repaired by the code that does normal work.
//
// Every process of the installation has one, with links of its own to all nodes
// and gateways. One of them at a time does the works: what is ordered, and what
// the nodes' reports change in the database. In it, one goroutine at a time works
// on a key (a project, a session); being told again meanwhile makes it look once
// more.
type reconciler struct {
	c     *core
	inbox *inbox

	mu         sync.Mutex
	ctx        context.Context // nil until run
	wg         sync.WaitGroup
	works      context.Context // of the works; nil while another process does them
	working    sync.WaitGroup
	busy       map[string]bool // key → look again
	nodes      map[quire.NodeID]*nodeLink
	gateways   map[quire.DataCenterID]*gatewayLink
	peers      map[quire.NodeID]quire.Peer // of all gateways and nodes there are
	renewed    map[quire.NodeID]time.Time  // when they were sent a certificate
	shown      map[quire.NodeID]shownKey   // what gateways and nodes have said of their keys
	taking     string                      // fingerprint of the authority that takes over, as feedNow saw it
	targets    []string                    // where browsers may be sent
	accounts   map[accountKey]bool         // that a node has said to have
	repairs    chan struct{}               // a place for each repair that may run
	seen       map[quire.NodeID]seen       // notice.go; of whoever does the works
	refreshing sync.Mutex
	routing    sync.Mutex // from reading a route to queueing it, so that the newest is the last
	feed       struct {
		seq    int64
		recent []quire.Revocation
	}
}

func newReconciler(c *core) *reconciler {
	return &reconciler{
		c: c, inbox: newInbox(), busy: map[string]bool{}, nodes: map[quire.NodeID]*nodeLink{}, gateways: map[quire.DataCenterID]*gatewayLink{},
		peers: map[quire.NodeID]quire.Peer{}, renewed: map[quire.NodeID]time.Time{}, shown: map[quire.NodeID]shownKey{}, targets: []string{c.Origins.FormTargets()},
		accounts: map[accountKey]bool{}, seen: map[quire.NodeID]seen{}, repairs: make(chan struct{}, repairsAtOnce),
	}
}

const (
	beat       = time.Second // how often links hear from us
	retryFirst = 200 * time.Millisecond
	retryMost  = 3 * time.Second

	repairsAtOnce = 8
	// nodeAwayFor is how long a step waits for a node that is away before it
	// fails and says so.
	nodeAwayFor = 2 * time.Minute
)

func (r *reconciler) run(ctx context.Context) error {
	r.mu.Lock()
	r.ctx = ctx
	r.mu.Unlock()
	err := r.loadFeed()
	if err == nil {
		err = r.c.introduce(ctx)
	}
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	r.start(func(ctx context.Context) {
		r.c.Store.Listen(ctx, store.Listener{
			StandIn: !r.c.Worker,
			Heard:   r.inbox.put,
			Missed:  func() { r.inbox.put([]string{wake{wakeAll, ""}.String()}) },
			Lost:    func(err error) { r.c.Log.Warn("the database's news are not heard for a while", "err", err) },
			Lead:    r.lead,
		})
	})
	tick := time.NewTicker(beat)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			r.mu.Lock() // whoever starts something after this sees that ctx has ended
			r.mu.Unlock()
			r.wg.Wait()
			return nil
		case <-tick.C:
			r.feedNow()
		case <-r.inbox.news:
			for _, word := range r.inbox.take() {
				r.woken(parseWake(word))
			}
		}
	}
}

// lead does the works until ctx ends. What is written with ctx is refused by the
// database once another process does them.
func (r *reconciler) lead(ctx context.Context) {
	r.mu.Lock()
	r.works = ctx
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		r.works = nil
		r.mu.Unlock()
		r.working.Wait()
	}()
	r.c.Log.Info("this process does the works now")
	r.relearn()
	for ctx.Err() == nil && !r.resume(ctx) {
		pause(ctx, retryFirst)
	}
	r.tidy()
	hourly := time.NewTicker(time.Hour)
	defer hourly.Stop()
	look := time.NewTicker(beat)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			r.c.Log.Info("this process does no works any more")
			return
		case <-look.C:
			r.notice(ctx)
		case <-hourly.C:
			r.tidy()
		}
	}
}

// leading is the context of the works, nil while another process does them.
func (r *reconciler) leading() context.Context {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.works
}

// start runs f in a goroutine that run waits for; nothing before run.
func (r *reconciler) start(f func(context.Context)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ctx == nil || r.ctx.Err() != nil {
		return
	}
	ctx := r.ctx
	r.wg.Go(func() { f(ctx) })
}

// once works on the key, one at a time; nothing where another process does the
// works.
func (r *reconciler) once(key string, f func(context.Context)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	ctx := r.works
	if ctx == nil || ctx.Err() != nil {
		return
	}
	if _, running := r.busy[key]; running {
		r.busy[key] = true
		return
	}
	r.busy[key] = false
	r.working.Go(func() {
		for {
			f(ctx)
			r.mu.Lock()
			again := r.busy[key] && ctx.Err() == nil
			if !again {
				delete(r.busy, key)
				r.mu.Unlock()
				return
			}
			r.busy[key] = false
			r.mu.Unlock()
		}
	})
}

// resume takes up what another process left, and reports whether it could.
func (r *reconciler) resume(ctx context.Context) bool {
	var works []quire.Work
	var teams, repairs []quire.ProjectID
	var live []quire.Session
	err := r.c.read(ctx, func(tx *store.Tx) (err error) {
		if works, err = tx.OpenWorks(); err != nil {
			return err
		}
		if teams, err = tx.TeamsBehind(); err != nil {
			return err
		}
		if repairs, err = tx.RepairsOpen(); err != nil {
			return err
		}
		live, err = tx.LiveSessions("")
		return err
	})
	if err != nil {
		r.c.Log.Error("cannot read what was left to do", "err", err)
		return false
	}
	for _, id := range teams {
		r.team(id)
	}
	for _, id := range repairs {
		r.repair(id)
	}
	for _, w := range works {
		r.project(w.Project)
	}
	for _, s := range live {
		r.session(s.ID)
	}
	return true
}

// tidy forgets old logins and purges projects whose time to be restored is over.
func (r *reconciler) tidy() {
	ctx := r.leading()
	if ctx == nil {
		return
	}
	var old []quire.Project
	err := r.c.write(ctx, quireItself, func(tx *txn) error {
		if err := tx.EndOldLogins(quire.LoginIdle, quire.LoginLife); err != nil {
			return err
		}
		all, err := tx.DeletedProjects("")
		for _, p := range all {
			if r.c.Now().Sub(*p.Deleted) > r.c.KeepDeleted && p.State == quire.ProjectDeleted {
				old = append(old, p)
			}
		}
		return err
	})
	for _, p := range old {
		err = r.c.write(ctx, quireItself, func(tx *txn) error { return r.c.begin(tx, quireItself, p, "purge") })
		if err != nil {
			r.c.Log.Error("cannot purge", "project", p.ID, "err", err)
		}
	}
	if err != nil {
		r.c.Log.Error("cannot tidy", "err", err)
	}
	r.leftovers(ctx)
}

// session looks at a session's row and orders what is missing.
func (r *reconciler) session(id quire.SessionID) {
	r.once("session "+string(id), func(ctx context.Context) {
		wait := retryFirst
		for ctx.Err() == nil && r.settleSession(ctx, id) {
			pause(ctx, wait)
			wait = min(2*wait, retryMost)
		}
	})
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// settleSession reports whether it must be tried again.
func (r *reconciler) settleSession(ctx context.Context, id quire.SessionID) (again bool) {
	var s quire.Session
	var p quire.Project
	var label quire.Label
	var by string
	var visit bool
	err := r.c.read(ctx, func(tx *store.Tx) (err error) {
		if s, err = tx.Session(id); err != nil {
			return err
		}
		if p, err = tx.Project("", s.Project); err != nil {
			return err
		}
		if by, err = tx.StopBy(id); err != nil {
			return err
		}
		if visit, err = tx.IsVisitor(s.User); err != nil {
			return err
		}
		label, err = tx.LabelOf(s.User, s.Project)
		return err
	})
	if err != nil {
		return quire.KindOf(err) != quire.KindNotFound
	}
	r.route(id)
	switch s.State {
	case quire.SessionStarting:
		switch {
		case p.State == quire.ProjectStarting, p.State == quire.ProjectStopping, p.State == quire.ProjectMoving:
			return false // the start looks again, the stop ends it
		case p.State == quire.ProjectRunning, visit && p.Deleted == nil: // reading needs no running project
			err = r.orderStart(ctx, p, s, label)
		default:
			err = quire.Failed("The project is not running.", nil)
		}
		if quire.KindOf(err) == quire.KindUnavailable {
			return true
		}
		if err != nil && ctx.Err() == nil {
			r.endSession(ctx, s, quire.SessionFailed, quire.AsError(err).Message, nil)
		}
	case quire.SessionStopping:
		m, err := r.machine(s.Node)
		if err == nil {
			err = r.orderStop(ctx, m, p, s, by)
		}
		if err != nil {
			r.c.Log.Warn("session not stopped yet", "session", id, "err", err)
			return true
		}
		r.endSession(ctx, s, quire.SessionEnded, "", &quire.Exit{By: by, At: r.c.Now().UTC()})
	}
	return false
}

func (r *reconciler) orderStart(ctx context.Context, p quire.Project, s quire.Session, label quire.Label) error {
	as, _, err := r.account(ctx, p, s.User)
	if err != nil {
		return err
	}
	var d store.TeamOnDisk
	var at quire.Origins
	if err := r.c.read(ctx, func(tx *store.Tx) error {
		if d, err = tx.TeamOnDisk(p.ID); err == nil {
			at, err = r.c.originsAt(tx, p.DataCenter)
		}
		return err
	}); err != nil {
		return err
	}
	if d.Done < d.Wanted { // the directory must let him in first
		r.team(p.ID)
		return quire.Unavailable("The project's directory is being told who is in the team.", nil)
	}
	m, err := r.machine(s.Node)
	if err != nil {
		return err
	}
	_, err = m.Do(ctx, r.c.orderAs(quire.OrderStart, p, s.User, as, &s, quire.StartArgs{
		Label: label, URLPrefix: at.Prefix(label) + "/" + s.App, ProjectName: p.Name, OwnerName: p.OwnerName, UserName: s.UserName,
	}))
	return err
}

// orderStop ends a session. It needs no account: that may be gone.
func (r *reconciler) orderStop(ctx context.Context, m quire.Machine, p quire.Project, s quire.Session, by string) error {
	as, err := r.known(ctx, s.User)
	if err == nil {
		_, err = m.Do(ctx, r.c.orderAs(quire.OrderStop, p, s.User, as, &s, quire.StopArgs{By: by}))
	}
	return err
}

// endSession writes an end, unless a report of the node wrote one first.
func (r *reconciler) endSession(ctx context.Context, s quire.Session, state quire.SessionState, reason string, exit *quire.Exit) {
	err := r.c.write(ctx, quireItself, func(tx *txn) error {
		now, err := tx.Session(s.ID)
		if err != nil || !now.State.Live() {
			return err
		}
		now.State, now.Reason, now.Exit, now.Ended = state, reason, exit, &tx.Now
		return r.saveSession(tx, now)
	})
	if err != nil {
		r.c.Log.Error("end of a session not stored", "session", s.ID, "err", err)
	}
}

// saveSession stores how a session stands and tells everybody concerned.
func (r *reconciler) saveSession(tx *txn, s quire.Session) error {
	if s.Reason == "" && s.Exit != nil {
		s.Reason = s.Exit.Sentence()
	}
	tx.touch(s.Project)
	tx.wake(wakeRoute, string(s.ID))
	if s.State == quire.SessionEnded || s.State == quire.SessionFailed {
		if err := tx.event("session."+string(s.State), s.Project, s.App+" of "+s.UserName+": "+s.Reason); err != nil {
			return err
		}
	}
	return tx.SaveSession(s)
}

// nodeReport makes the rows agree with what a node says.
func (r *reconciler) nodeReport(ctx context.Context, node quire.NodeID, rep quire.NodeReport) error {
	if len(rep.Sessions) == 0 && !rep.Full {
		return nil
	}
	err := r.c.write(ctx, quireItself, func(tx *txn) error {
		told := map[quire.SessionID]bool{}
		for _, sr := range rep.Sessions {
			told[sr.ID] = true
			if err := r.believe(tx, node, sr); err != nil {
				return err
			}
		}
		if !rep.Full {
			return nil
		}
		live, err := tx.LiveSessions(node)
		for _, s := range live {
			switch {
			case told[s.ID]:
			case s.State == quire.SessionRunning:
				s.State, s.Reason, s.Ended = quire.SessionFailed, "The compute node does not know this session any more.", &tx.Now
				if err := r.saveSession(tx, s); err != nil {
					return err
				}
			default: // starting or stopping: ordered again
				tx.wake(wakeSession, string(s.ID))
			}
		}
		return err
	})
	if err != nil && ctx.Err() == nil {
		r.c.Log.Error("a node's report was not stored", "node", node, "err", err)
	}
	return err
}

// believe takes a node's word about a session that is really its own.
func (r *reconciler) believe(tx *txn, node quire.NodeID, sr quire.SessionReport) error {
	s, err := tx.Session(sr.ID)
	if quire.KindOf(err) == quire.KindNotFound {
		r.c.Log.Warn("a node holds a session that the database does not know; it is left alone", "node", node, "session", sr.ID)
		return nil
	}
	if err != nil {
		return err
	}
	if s.Node != node || s.User != sr.User || s.Project != sr.Project || s.App != sr.App {
		r.c.Log.Error("a node claims a session that is not its own", "node", node, "session", sr.ID)
		return nil
	}
	switch {
	case sr.State.Live() && !s.State.Live():
		tx.wake(wakeStray, string(s.ID)) // somebody ended it while the node was away
		return nil
	case sr.State.Live():
		if sr.State != quire.SessionRunning || s.State != quire.SessionStarting {
			return nil
		}
		s.State, s.Ready = quire.SessionRunning, &tx.Now
		return r.saveSession(tx, s)
	case !s.State.Live():
		return nil // we know
	}
	by, err := tx.StopBy(s.ID)
	if err != nil {
		return err
	}
	s.State, s.Reason, s.Log, s.Exit, s.Ended = quire.SessionFailed, cutTo(sr.Reason, 500), cutTo(sr.Log, 8<<10), sr.Exit, &tx.Now
	if sr.State == quire.SessionEnded {
		s.State = quire.SessionEnded
	}
	if s.Exit != nil {
		s.Exit.Signal, s.Exit.By = cutTo(s.Exit.Signal, 100), cutTo(s.Exit.By, 200)
	}
	if by != "" {
		s.State, s.Reason = quire.SessionEnded, ""
		if s.Exit == nil {
			s.Exit = &quire.Exit{At: tx.Now}
		}
		s.Exit.By = by
	}
	return r.saveSession(tx, s)
}

// stopStray ends on its node what the database says has ended.
func (r *reconciler) stopStray(id quire.SessionID) {
	r.once("stray "+string(id), func(ctx context.Context) {
		var s quire.Session
		var p quire.Project
		err := r.c.read(ctx, func(tx *store.Tx) (err error) {
			if s, err = tx.Session(id); err == nil {
				p, err = tx.Project("", s.Project)
			}
			return err
		})
		if err == nil && s.State.Live() {
			return
		}
		by := "Quire, because it had ended"
		if s.Exit != nil && s.Exit.By != "" {
			by = s.Exit.By
		}
		if err == nil {
			var m quire.Machine
			if m, err = r.machine(s.Node); err == nil {
				err = r.orderStop(ctx, m, p, s, by)
			}
		}
		if err != nil {
			r.c.Log.Warn("a session that should not run was not stopped; the next full report tries again", "session", id, "err", err)
		}
	})
}
