package control

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"quire"
	"quire/store"
)

// A nodeLink is the stream to one node; a gatewayLink the one to one gateway.
// Both are opened by us, hear a feed at least each second, and tell us what
// happens at the other end.

type nodeLink struct {
	node    quire.Node
	machine quire.Machine
	stop    context.CancelFunc
	again   again

	mu     sync.Mutex
	up     bool
	reason string
	health quire.NodeHealth
	down   chan quire.Feed
	sent   int64 // the newest revocation it was told
	done   int64 // the newest revocation it has carried out
	own    map[quire.ProjectID][]string
	cert   []byte // to be told
	trust  []byte // to be told: the authorities
	gone   bool   // it was told that it is no part of the installation any more
}

type gatewayLink struct {
	dc    quire.DataCenter
	stop  context.CancelFunc
	again again

	mu      sync.Mutex
	up      bool
	reason  string
	down    chan quire.GatewayFeed
	sent    int64
	done    int64
	routes  []quire.Route // to be told
	renewed []quire.Renewed
	nodes   map[quire.NodeID]string // to be told, nil when it knows
	age     int64                   // of nodes, as GatewayFeed.Version
	known   map[quire.NodeID]string // what it was told when the link began, or since
	keys    map[quire.NodeID]string // fingerprints of nodes' keys, with known
	joined  []quire.Joined          // to be told
	cert    []byte                  // to be told
	trust   []byte                  // to be told: the authorities
	gone    bool
	version string
}

// again is what it takes to open a link anew. The reconciler's lock guards it.
type again struct {
	end    context.CancelFunc // of the stream that is open now; nil: none is
	works  context.Context    // as they were when it was opened
	missed bool               // it has told what only the works take in, and we do not do them
}

const (
	linkQueue = 64
	maxJoins  = 32 // that a gateway may pass on in one report
)

// refresh opens a link for every record that has none. One at a time: what was read
// before must not undo what was read later.
func (r *reconciler) refresh() {
	r.refreshing.Lock()
	defer r.refreshing.Unlock()
	var dcs []quire.DataCenter
	var nodes []quire.Node
	var age int64
	r.mu.Lock()
	ctx := r.ctx
	r.mu.Unlock()
	if ctx == nil {
		return
	}
	err := r.c.read(ctx, func(tx *store.Tx) (err error) {
		if dcs, err = tx.DataCenters(); err != nil {
			return err
		}
		if nodes, err = tx.Nodes(); err != nil {
			return err
		}
		age, err = tx.Count()
		return err
	})
	if err != nil {
		r.c.Log.Error("cannot read the nodes", "err", err)
		return
	}
	r.know(dcs, nodes)
	byID := map[quire.DataCenterID]quire.DataCenter{}
	for _, dc := range dcs {
		byID[dc.ID] = dc
		if dc.Peer.Cloned {
			continue
		}
		r.linkGateway(dc)
		r.tellNodes(dc.ID, addresses(nodes, dc.ID), keysOf(nodes, dc.ID), age)
	}
	for _, n := range nodes {
		if !n.Peer.Cloned {
			r.linkNode(byID[n.DataCenter], n)
		}
	}
}

func addresses(nodes []quire.Node, dc quire.DataCenterID) map[quire.NodeID]string {
	m := map[quire.NodeID]string{}
	for _, n := range nodes {
		if n.DataCenter == dc && !n.Peer.Cloned {
			m[n.ID] = n.Address
		}
	}
	return m
}

// tellNodes tells a gateway whose link is up where its nodes are now.
func (r *reconciler) tellNodes(dc quire.DataCenterID, nodes, keys map[quire.NodeID]string, age int64) {
	r.mu.Lock()
	l := r.gateways[dc]
	r.mu.Unlock()
	l.mu.Lock()
	changed := l.known != nil && age >= l.age && !(maps.Equal(l.known, nodes) && maps.Equal(l.keys, keys))
	if changed {
		l.nodes, l.known, l.keys, l.age = nodes, nodes, keys, age
	}
	l.mu.Unlock()
	if changed {
		r.flushGateway(l)
	}
}

func (r *reconciler) linkGateway(dc quire.DataCenter) {
	r.mu.Lock()
	old := r.gateways[dc.ID]
	if old != nil && old.dc.Gateway == dc.Gateway && old.dc.Address == dc.Address && old.dc.Apps == dc.Apps {
		r.mu.Unlock()
		return
	}
	l := &gatewayLink{dc: dc, reason: "not reached yet"}
	var ctx context.Context
	ctx, l.stop = context.WithCancel(r.ctx)
	r.gateways[dc.ID] = l
	r.mu.Unlock()
	if old != nil {
		old.stop()
	}
	g := r.c.Fleet.Gateway(dc)
	r.start(func(context.Context) {
		r.keepLink(ctx, func(ctx context.Context) error {
			down := make(chan quire.GatewayFeed, linkQueue)
			first, err := r.gatewayFeed(ctx, l, true)
			if err != nil {
				return err
			}
			down <- first
			l.mu.Lock()
			l.down, l.sent = down, first.Seq
			l.mu.Unlock()
			defer l.ended()
			return g.Attach(ctx, down, func(rep quire.GatewayReport) { r.gatewayReport(ctx, l, rep) })
		}, func(up bool, reason string) {
			l.mu.Lock()
			l.up, l.reason = up, reason
			l.mu.Unlock()
		}, &l.again, "gateway "+dc.Name)
	})
}

func (r *reconciler) linkNode(dc quire.DataCenter, n quire.Node) {
	r.mu.Lock()
	old := r.nodes[n.ID]
	if old != nil && old.node.Address == n.Address && old.node.DataCenter == n.DataCenter {
		r.mu.Unlock()
		return
	}
	l := &nodeLink{node: n, machine: r.c.Fleet.Machine(dc, n), reason: "not reached yet"}
	var ctx context.Context
	ctx, l.stop = context.WithCancel(r.ctx)
	r.nodes[n.ID] = l
	r.mu.Unlock()
	if old != nil {
		old.stop()
	}
	r.start(func(context.Context) {
		r.keepLink(ctx, func(ctx context.Context) error {
			r.gatewayFirst(ctx, n.DataCenter)
			r.forgetAccounts(n.ID) // it may be another machine by now
			// What it offers must be known before it counts as up.
			asked, cancel := context.WithTimeout(ctx, 10*time.Second)
			health, err := l.machine.Health(asked)
			cancel()
			if err != nil {
				return err
			}
			l.mu.Lock()
			l.health = health
			l.mu.Unlock()
			down := make(chan quire.Feed, linkQueue)
			trusted := r.c.trusted(ctx)
			r.mu.Lock()
			first := quire.Feed{Full: true, Seq: r.feed.seq, Time: r.c.Now(), Revocations: append([]quire.Revocation(nil), r.feed.recent...), Authorities: trusted}
			r.mu.Unlock()
			down <- first
			l.mu.Lock()
			l.down, l.sent = down, first.Seq
			l.mu.Unlock()
			defer l.ended()
			return l.machine.Watch(ctx, down, func(rep quire.NodeReport) {
				l.mu.Lock()
				came := !l.up
				fresh := came || l.done != rep.Seq
				l.done = rep.Seq
				l.up, l.reason = true, ""
				if rep.Health != nil {
					fresh = fresh || len(l.health.Apps) != len(rep.Health.Apps) || len(l.health.Others) != len(rep.Health.Others)
					l.health = *rep.Health
				}
				changed := l.learn(rep)
				l.mu.Unlock()
				if fresh {
					r.c.hub.changed("")
				}
				if came {
					r.start(r.leftovers)
				}
				for _, p := range changed {
					r.c.hub.changed(p)
				}
				if rep.Identity == nil && len(rep.Sessions) == 0 && !rep.Full {
					return
				}
				works := r.takes(&l.again)
				if works == nil {
					return
				}
				if rep.Identity != nil {
					if cert := r.peer(works, quire.JoinCompute, n.ID, *rep.Identity); cert != nil {
						l.mu.Lock()
						l.cert = cert
						l.mu.Unlock()
					}
				}
				if r.nodeReport(works, n.ID, rep) != nil {
					r.mu.Lock()
					l.again.missed = true
					r.mu.Unlock()
				}
			})
		}, func(up bool, reason string) {
			l.mu.Lock()
			l.up, l.reason = up, reason
			l.mu.Unlock()
		}, &l.again, "node "+n.Name)
	})
}

// gatewayFirst waits until the data center's gateway is linked: it carries us to
// the node, and knows its nodes from us.
func (r *reconciler) gatewayFirst(ctx context.Context, dc quire.DataCenterID) {
	w := r.c.hub.watch("")
	defer r.c.hub.leave(w)
	for ctx.Err() == nil {
		if up, _ := r.gatewayState(dc); up {
			return
		}
		select {
		case <-ctx.Done():
		case <-w.ch:
		}
	}
}

// takes is the context in which what a link tells is taken in, nil where another
// process does the works. Whoever does them later has it told again: a stream that
// was opened before may still bring what is older than that other one has heard.
func (r *reconciler) takes(a *again) context.Context {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.works == nil:
		a.missed = true
	case a.works != r.works:
		if a.end != nil {
			a.end()
		}
	default:
		return r.works
	}
	return nil
}

// relearn has everything told again that was told while another process did the
// works: links are opened anew, and begin with all there is.
func (r *reconciler) relearn() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.nodes {
		l.again.open()
	}
	for _, l := range r.gateways {
		l.again.open()
	}
}

func (a *again) open() {
	if a.missed && a.end != nil {
		a.end()
	}
	a.missed = false
}

// retell tells all gateways everything again.
func (r *reconciler) retell() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.gateways {
		if l.again.end != nil {
			l.again.end()
		}
	}
}

// keepLink runs a link again and again until ctx ends. state(true) is left to
// the first report. A link that is opened anew on purpose stays up meanwhile.
func (r *reconciler) keepLink(ctx context.Context, link func(context.Context) error, state func(bool, string), a *again, name string) {
	wait := retryFirst
	for ctx.Err() == nil {
		began := time.Now()
		one, end := context.WithCancel(ctx)
		r.mu.Lock()
		a.end, a.works = end, r.works
		r.mu.Unlock()
		err := link(one)
		r.mu.Lock()
		a.end = nil
		r.mu.Unlock()
		anew := one.Err() != nil
		end()
		switch {
		case ctx.Err() != nil:
			return
		case anew:
			continue
		}
		reason := "the link ended"
		if err != nil {
			reason = quire.AsError(err).Message
		}
		state(false, reason)
		r.c.hub.changed("")
		r.c.Log.Warn("link lost", "to", name, "err", err)
		if time.Since(began) > 10*time.Second {
			wait = retryFirst
		}
		pause(ctx, wait)
		wait = min(2*wait, retryMost)
	}
}

// loadFeed reads new revocations.
func (r *reconciler) loadFeed() error {
	r.mu.Lock()
	seq, ctx := r.feed.seq, r.ctx
	r.mu.Unlock()
	if ctx == nil {
		return nil
	}
	var fresh []quire.Revocation
	err := r.c.read(ctx, func(tx *store.Tx) (err error) {
		fresh, err = tx.Revocations(seq, MaxGrace)
		if newest, e := tx.FeedSeq(); err == nil {
			err, seq = e, newest
		}
		return err
	})
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	old := r.c.Now().Add(-MaxGrace)
	kept := r.feed.recent[:0:0]
	for _, x := range append(r.feed.recent, fresh...) {
		if x.At.After(old) && (len(kept) == 0 || kept[len(kept)-1].Seq < x.Seq) {
			kept = append(kept, x)
		}
	}
	r.feed.recent, r.feed.seq = kept, max(seq, r.feed.seq)
	return nil
}

// feedNow tells all links what is new; it is also their heartbeat.
func (r *reconciler) feedNow() {
	r.carryAuthority()
	if err := r.loadFeed(); err != nil {
		r.c.Log.Error("cannot read the revocations; links will notice our silence", "err", err)
		return
	}
	r.mu.Lock()
	seq, recent := r.feed.seq, r.feed.recent
	nodes := make([]*nodeLink, 0, len(r.nodes))
	for _, l := range r.nodes {
		nodes = append(nodes, l)
	}
	gateways := make([]*gatewayLink, 0, len(r.gateways))
	for _, l := range r.gateways {
		gateways = append(gateways, l)
	}
	r.mu.Unlock()
	for _, l := range nodes {
		l.mu.Lock()
		now := max(seq, l.sent) // another round may have known more
		select {
		case l.down <- quire.Feed{Seq: now, Time: r.c.Now(), Revocations: after(recent, l.sent), Certificate: l.cert, Authorities: l.trust}:
			l.sent, l.cert, l.trust = now, nil, nil
		default: // no link, or one that does not take: it breaks by itself
		}
		l.mu.Unlock()
	}
	for _, l := range gateways {
		l.flush(seq, recent, r.c.Now())
	}
}

func after(rs []quire.Revocation, seq int64) []quire.Revocation {
	for i, x := range rs {
		if x.Seq > seq {
			return rs[i:]
		}
	}
	return nil
}

// flush sends a gateway what it has not been told.
func (l *gatewayLink) flush(seq int64, recent []quire.Revocation, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	seq = max(seq, l.sent) // another flush may have known more
	f := quire.GatewayFeed{Feed: quire.Feed{Seq: seq, Time: now, Revocations: after(recent, l.sent), Certificate: l.cert, Authorities: l.trust}, Routes: l.routes, Renewed: l.renewed, Joined: l.joined, Nodes: l.nodes}
	if f.Nodes != nil {
		f.Keys, f.Version = l.keys, l.age
	}
	select {
	case l.down <- f:
		l.sent, l.routes, l.renewed, l.nodes, l.joined, l.cert, l.trust = seq, nil, nil, nil, nil, nil, nil
	default:
	}
}

func (r *reconciler) flushGateway(l *gatewayLink) {
	r.mu.Lock()
	seq, recent := r.feed.seq, r.feed.recent
	r.mu.Unlock()
	l.flush(seq, recent, r.c.Now())
}

// gatewayFeed is the first thing a gateway hears: everything.
func (r *reconciler) gatewayFeed(ctx context.Context, l *gatewayLink, full bool) (f quire.GatewayFeed, err error) {
	r.routing.Lock()
	defer r.routing.Unlock()
	l.mu.Lock()
	l.routes, l.renewed = nil, nil // what follows holds all of it
	l.mu.Unlock()
	var nodes []quire.Node
	var others bool
	err = r.c.read(ctx, func(tx *store.Tx) (err error) {
		if nodes, err = tx.Nodes(); err != nil {
			return err
		}
		if others, err = r.c.otherAddresses(tx); err != nil {
			return err
		}
		if f.Version, err = tx.Count(); err != nil {
			return err
		}
		routes, err := r.routes(tx, "")
		f.Routes = routes[l.dc.ID]
		return err
	})
	if err != nil {
		return f, err
	}
	f.Nodes, f.Keys = addresses(nodes, l.dc.ID), keysOf(nodes, l.dc.ID)
	if others {
		r.c.Log.Error("another server of this installation was started later with another portal or apps: gateways go by that one. Give all of them the same, and restart this one")
	} else {
		f.Site = &quire.GatewaySite{Portal: r.c.Origins.Portal(), Apps: cmp.Or(l.dc.Apps, r.c.AppsDefault)}
	}
	l.mu.Lock()
	l.nodes, l.known, l.keys, l.age = nil, f.Nodes, f.Keys, f.Version
	l.mu.Unlock()
	trusted := r.c.trusted(ctx)
	r.mu.Lock()
	f.Feed = quire.Feed{Full: full, Seq: r.feed.seq, Time: r.c.Now(), Revocations: append([]quire.Revocation(nil), r.feed.recent...), Authorities: trusted}
	r.mu.Unlock()
	return f, nil
}

func (r *reconciler) gatewayReport(ctx context.Context, l *gatewayLink, rep quire.GatewayReport) {
	l.mu.Lock()
	fresh := !l.up
	l.up, l.reason, l.done, l.version = true, "", rep.Seq, rep.Version
	l.mu.Unlock()
	if rep.Identity != nil {
		if works := r.takes(&l.again); works != nil {
			if cert := r.peer(works, quire.JoinGateway, l.dc.Gateway, *rep.Identity); cert != nil {
				l.mu.Lock()
				l.cert = cert
				l.mu.Unlock()
			}
		}
	}
	// Each costs a look into the database, and a gateway may lie about how many ask.
	for _, ask := range rep.Joins[:min(len(rep.Joins), maxJoins)] {
		r.start(func(context.Context) {
			answer := quire.Joined{N: ask.N}
			var err error
			if answer.Answer, err = (&Site{r.c}).Accept(ctx, ask.Request, "through "+l.dc.Name); err != nil {
				answer.Error = quire.AsError(err)
			}
			l.mu.Lock()
			l.joined = append(l.joined, answer)
			l.mu.Unlock()
			r.flushGateway(l)
		})
	}
	if fresh {
		r.c.hub.changed("")
	}
	for _, ask := range rep.Renew {
		r.start(func(context.Context) {
			answer := quire.Renewed{N: ask.N, Grant: r.c.renew(ctx, l.dc.Gateway, ask.Grant)}
			l.mu.Lock()
			l.renewed = append(l.renewed, answer)
			l.mu.Unlock()
			r.flushGateway(l)
		})
	}
}

// machine returns a node's live side, KindUnavailable while it is away.
func (r *reconciler) machine(id quire.NodeID) (quire.Machine, error) {
	r.mu.Lock()
	l := r.nodes[id]
	r.mu.Unlock()
	if l == nil {
		return nil, quire.Unavailable("The compute node of this project is not part of the installation any more.", nil)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.up {
		return nil, quire.Unavailable("The compute node "+l.node.Name+" is away.", nil)
	}
	return l.machine, nil
}

func (r *reconciler) nodeState(id quire.NodeID) (up bool, reason string, h quire.NodeHealth) {
	r.mu.Lock()
	l := r.nodes[id]
	r.mu.Unlock()
	if l == nil {
		return false, "not reached yet", h
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.up, l.reason, l.health
}

func (r *reconciler) nodeUp(id quire.NodeID) bool {
	up, _, _ := r.nodeState(id)
	return up
}

// apps are what the node reported last for a project, also while it is away:
// the apps that run for everybody there and those that the project's own
// environment has.
func (r *reconciler) apps(id quire.NodeID, project quire.ProjectID) []quire.App {
	r.mu.Lock()
	l := r.nodes[id]
	r.mu.Unlock()
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	list := slices.Clone(l.health.Apps)
	for _, a := range l.health.Others {
		if slices.Contains(l.own[project], a.Name) {
			list = append(list, a)
		}
	}
	slices.SortStableFunc(list, func(a, b quire.App) int { return a.Order - b.Order })
	return list
}

// learn takes what a node says of projects' own environments and returns the
// projects for which it is new. l.mu is held.
func (l *nodeLink) learn(rep quire.NodeReport) (changed []quire.ProjectID) {
	if rep.Full {
		for p := range l.own {
			if _, ok := rep.Own[p]; !ok {
				changed = append(changed, p)
			}
		}
	}
	for p, names := range rep.Own {
		if !slices.Equal(l.own[p], names) {
			changed = append(changed, p)
		}
	}
	for _, p := range changed {
		if l.own == nil {
			l.own = map[quire.ProjectID][]string{}
		}
		if names := rep.Own[p]; len(names) > 0 {
			l.own[p] = names
		} else {
			delete(l.own, p)
		}
	}
	return changed
}

func (r *reconciler) gatewayVersion(id quire.DataCenterID) string {
	r.mu.Lock()
	l := r.gateways[id]
	r.mu.Unlock()
	if l == nil {
		return ""
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.version
}

func (r *reconciler) gatewayState(id quire.DataCenterID) (up bool, reason string) {
	r.mu.Lock()
	l := r.gateways[id]
	r.mu.Unlock()
	if l == nil {
		return false, "not reached yet"
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.up, l.reason
}
