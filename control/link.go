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

	mu     sync.Mutex
	up     bool
	reason string
	health quire.NodeHealth
	down   chan quire.Feed
	sent   int64 // the newest revocation it was told
	done   int64 // the newest revocation it has carried out
	own    map[quire.ProjectID][]string
	cert   []byte // to be told
	gone   bool   // it was told that it is no part of the installation any more
}

type gatewayLink struct {
	dc   quire.DataCenter
	stop context.CancelFunc

	mu      sync.Mutex
	up      bool
	reason  string
	down    chan quire.GatewayFeed
	sent    int64
	done    int64
	routes  []quire.Route // to be told
	renewed []quire.Renewed
	nodes   map[quire.NodeID]string // to be told, nil when it knows
	known   map[quire.NodeID]string // what it was told when the link began, or since
	keys    map[quire.NodeID]string // fingerprints of nodes' keys, with known
	joined  []quire.Joined          // to be told
	cert    []byte                  // to be told
	gone    bool
	version string
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
		nodes, err = tx.Nodes()
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
		r.tellNodes(dc.ID, addresses(nodes, dc.ID), keysOf(nodes, dc.ID))
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
func (r *reconciler) tellNodes(dc quire.DataCenterID, nodes, keys map[quire.NodeID]string) {
	r.mu.Lock()
	l := r.gateways[dc]
	r.mu.Unlock()
	l.mu.Lock()
	changed := l.known != nil && !(maps.Equal(l.known, nodes) && maps.Equal(l.keys, keys))
	if changed {
		l.nodes, l.known, l.keys = nodes, nodes, keys
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
		}, "gateway "+dc.Name)
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
			r.mu.Lock()
			first := quire.Feed{Full: true, Seq: r.feed.seq, Time: r.c.Now(), Revocations: append([]quire.Revocation(nil), r.feed.recent...)}
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
				if rep.Identity != nil {
					if cert := r.peer(ctx, quire.JoinCompute, n.ID, *rep.Identity); cert != nil {
						l.mu.Lock()
						l.cert = cert
						l.mu.Unlock()
					}
				}
				r.nodeReport(ctx, n.ID, rep)
			})
		}, func(up bool, reason string) {
			l.mu.Lock()
			l.up, l.reason = up, reason
			l.mu.Unlock()
		}, "node "+n.Name)
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

// keepLink runs a link again and again until ctx ends. state(true) is left to
// the first report.
func (r *reconciler) keepLink(ctx context.Context, link func(context.Context) error, state func(bool, string), name string) {
	wait := retryFirst
	for ctx.Err() == nil {
		began := time.Now()
		err := link(ctx)
		if ctx.Err() != nil {
			return
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
		case l.down <- quire.Feed{Seq: now, Time: r.c.Now(), Revocations: after(recent, l.sent), Certificate: l.cert}:
			l.sent, l.cert = now, nil
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
	f := quire.GatewayFeed{Feed: quire.Feed{Seq: seq, Time: now, Revocations: after(recent, l.sent), Certificate: l.cert}, Routes: l.routes, Renewed: l.renewed, Joined: l.joined, Nodes: l.nodes}
	if f.Nodes != nil {
		f.Keys = l.keys
	}
	select {
	case l.down <- f:
		l.sent, l.routes, l.renewed, l.nodes, l.joined, l.cert = seq, nil, nil, nil, nil, nil
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
	var rows []store.RouteRow
	var nodes []quire.Node
	err = r.c.read(ctx, func(tx *store.Tx) (err error) {
		if nodes, err = tx.Nodes(); err != nil {
			return err
		}
		rows, err = tx.Routes(r.c.Now().Add(-24*time.Hour).UnixMilli(), "")
		return err
	})
	if err != nil {
		return f, err
	}
	f.Nodes, f.Keys = addresses(nodes, l.dc.ID), keysOf(nodes, l.dc.ID)
	f.Site = &quire.GatewaySite{Portal: r.c.Origins.Portal(), Apps: cmp.Or(l.dc.Apps, r.c.AppsDefault)}
	l.mu.Lock()
	l.nodes, l.known, l.keys = nil, f.Nodes, f.Keys
	l.mu.Unlock()
	for _, row := range rows {
		if row.DataCenter == l.dc.ID {
			f.Routes = append(f.Routes, r.dress(row))
		}
	}
	r.mu.Lock()
	f.Feed = quire.Feed{Full: full, Seq: r.feed.seq, Time: r.c.Now(), Revocations: append([]quire.Revocation(nil), r.feed.recent...)}
	r.mu.Unlock()
	return f, nil
}

// dress adds to a stored route what only the node's descriptors and the running
// start know.
func (r *reconciler) dress(row store.RouteRow) quire.Route {
	route := row.Route
	route.AppTitle = row.App
	for _, app := range r.apps(row.Node, row.Project) {
		if app.Name == row.App {
			route.AppTitle = app.Title
		}
	}
	if row.State == quire.SessionStarting {
		r.mu.Lock()
		route.Reason = r.doing[row.Project]
		r.mu.Unlock()
	}
	return route
}

// route tells the gateway how a session stands now.
func (r *reconciler) route(id quire.SessionID) {
	r.mu.Lock()
	ctx := r.ctx
	r.mu.Unlock()
	if ctx == nil {
		return
	}
	r.routing.Lock()
	defer r.routing.Unlock()
	var rows []store.RouteRow
	err := r.c.read(ctx, func(tx *store.Tx) (err error) {
		rows, err = tx.Routes(r.c.Now().Add(-24*time.Hour).UnixMilli(), id)
		return err
	})
	if err != nil {
		r.c.Log.Error("cannot read a route", "session", id, "err", err)
		return
	}
	for _, row := range rows {
		r.mu.Lock()
		l := r.gateways[row.DataCenter]
		r.mu.Unlock()
		if l == nil {
			continue
		}
		route := r.dress(row)
		l.mu.Lock()
		l.routes = append(l.routes, route)
		l.mu.Unlock()
		r.flushGateway(l)
	}
}

func (r *reconciler) gatewayReport(ctx context.Context, l *gatewayLink, rep quire.GatewayReport) {
	l.mu.Lock()
	fresh := !l.up
	l.up, l.reason, l.done, l.version = true, "", rep.Seq, rep.Version
	l.mu.Unlock()
	if rep.Identity != nil {
		if cert := r.peer(ctx, quire.JoinGateway, l.dc.Gateway, *rep.Identity); cert != nil {
			l.mu.Lock()
			l.cert = cert
			l.mu.Unlock()
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
