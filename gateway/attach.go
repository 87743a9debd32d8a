package gateway

import (
	"context"
	"errors"
	"maps"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"quire"
	"quire/compute/remote"
)

const (
	reportEvery = 500 * time.Millisecond
	closeWait   = 2 * time.Second // for sockets to close after a revocation, then it is reported anyway
	active      = time.Minute
)

// An attachment is the one stream the server holds open to us. A newer one
// takes the place of the old one: a restarted server need not wait for the
// silence of its former self.
type attachment struct {
	mu      sync.Mutex
	cancel  context.CancelCauseFunc // of the current stream
	n       int64
	pending map[int64]*holder // asked, not answered
	asking  []quire.RenewAsk  // not yet sent
	done    int64             // revocations up to here are carried out
	joiners joiners
	wake    chan struct{}
}

var errReplaced = errors.New("another server has attached")

func (a *attachment) init() {
	a.pending = map[int64]*holder{}
	a.joiners.waiting = map[int64]chan quire.Joined{}
	a.wake = make(chan struct{}, 1)
}

func (a *attachment) stir() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// ask queues a renewal.
func (a *attachment) ask(h *holder) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.n++
	a.pending[a.n] = h
	a.asking = append(a.asking, quire.RenewAsk{N: a.n, Grant: h.newest.Load().raw})
	a.stir()
}

func (a *attachment) answer(n int64) *holder {
	a.mu.Lock()
	defer a.mu.Unlock()
	h := a.pending[n]
	delete(a.pending, n)
	return h
}

// begin makes the caller the current stream. What the last one asked and did
// not hear is asked again.
func (a *attachment) begin(cancel context.CancelCauseFunc) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.cancel != nil {
		a.cancel(errReplaced)
	}
	a.cancel = cancel
	a.asking = nil
	for n, h := range a.pending {
		if h.dead.Load() {
			delete(a.pending, n)
			continue
		}
		a.asking = append(a.asking, quire.RenewAsk{N: n, Grant: h.newest.Load().raw})
	}
	a.stir()
}

func (a *attachment) take() (asks []quire.RenewAsk, joins []quire.JoinAsk, done int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	asks, a.asking = a.asking, nil
	joins, a.joiners.asking = a.joiners.asking, nil
	return asks, joins, a.done
}

func (a *attachment) finished(seq int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.done = max(a.done, seq)
	a.stir()
}

// Attach implements quire.Gateway.
func (g *Gateway) Attach(ctx context.Context, down <-chan quire.GatewayFeed, up func(quire.GatewayReport)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(g.ctx, func() { cancel(errors.New("the gateway is closing")) })
	defer stop()
	g.attach.begin(cancel)
	t := time.NewTicker(reportEvery)
	defer t.Stop()
	var told int64 = -1 // the generation of our certificate that the server knows
	for {
		select {
		case <-ctx.Done():
			if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
				return quire.Unavailable("The link to the gateway ended.", err)
			}
			return nil
		case feed, ok := <-down:
			if !ok {
				return nil
			}
			if err := g.feed(feed); err != nil {
				return quire.Conflict("", "The feed has a gap: attach again.")
			}
			continue
		case <-g.attach.wake:
		case <-t.C:
		}
		asks, joins, done := g.attach.take()
		rep := quire.GatewayReport{Seq: done, Version: g.cfg.Version, Renew: asks, Joins: joins, Active: g.active(), NodeAway: g.nodes.away()}
		if g.cfg.Identity != nil {
			if is := g.cfg.Identity.Is(); is.Generation != told {
				rep.Identity, told = &is, is.Generation
			}
		}
		up(rep)
	}
}

// feed takes one word of the server. Revocations come first: a renewal or a
// route in the same feed is newer than they are.
func (g *Gateway) feed(f quire.GatewayFeed) error {
	if f.Removed {
		g.removed()
		return nil
	}
	if f.Full || f.Nodes != nil {
		g.nodes.set(f.Nodes, f.Keys)
	}
	if f.Certificate != nil && g.cfg.Identity != nil {
		if err := g.cfg.Identity.Renew(f.Certificate); err != nil {
			g.log.Error("the new certificate was not taken", "error", err)
		}
	}
	if f.Site != nil && g.cfg.Moved != nil {
		g.cfg.Moved(*f.Site)
	}
	g.attach.joined(f.Joined)
	wait, err := g.revoke(f.Revocations, f.Seq, f.Full)
	if err != nil {
		return err
	}
	if f.Full || len(f.Routes) > 0 {
		g.routes.update(f.Routes, f.Full)
	}
	g.heard.Store(g.now().UnixMilli())
	if f.Full {
		g.full.Store(true)
		g.handing.heard.Do(func() { close(g.handing.first) })
	}
	for _, r := range f.Renewed {
		if h := g.attach.answer(r.N); h != nil {
			g.renewed(h, r.Grant)
		}
	}
	go func() {
		closed := make(chan struct{})
		go func() { wait(); close(closed) }()
		select {
		case <-closed:
		case <-time.After(closeWait):
			g.log.Warn("sockets were slow to close", "seq", f.Seq)
		}
		g.attach.finished(f.Seq)
	}()
	return nil
}

// active lists the projects with traffic in the last minute.
func (g *Gateway) active() []quire.ProjectID {
	now := g.now()
	set := map[quire.ProjectID]bool{}
	g.grants.each(func(h *holder) {
		if now.Sub(time.UnixMilli(h.used.Load())) < active {
			set[h.subject.Project] = true
		}
	})
	list := make([]quire.ProjectID, 0, len(set))
	for p := range set {
		list = append(list, p)
	}
	return list
}

// nodes are the addresses the server gave us, and which of them do not answer.
type nodes struct {
	mu    sync.Mutex
	addrs map[quire.NodeID]string
	keys  map[quire.NodeID]string // fingerprints, where known
	gone  map[quire.NodeID]string // why
}

func (n *nodes) init() {
	n.addrs = map[quire.NodeID]string{}
	n.gone = map[quire.NodeID]string{}
}

func (n *nodes) set(addrs, keys map[quire.NodeID]string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.addrs, n.keys = maps.Clone(addrs), maps.Clone(keys)
	for id := range n.gone {
		if _, ok := addrs[id]; !ok {
			delete(n.gone, id)
		}
	}
}

func (n *nodes) addr(id quire.NodeID) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.addrs[id]
}

// check is our last word about a node whose certificate is good.
func (n *nodes) check(id quire.NodeID, fingerprint string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, ok := n.addrs[id]; !ok {
		return errors.New("it is not a node of this data center")
	}
	if key := n.keys[id]; key != "" && key != fingerprint {
		return errors.New("it does not show the key that joined")
	}
	return nil
}

// CheckPeer is for Identity.Check: nodes must be ours and show their key.
func (g *Gateway) CheckPeer(role string, node quire.NodeID, fingerprint string) error {
	if role == remote.RoleCompute {
		return g.nodes.check(node, fingerprint)
	}
	return nil
}

// removed lets go of everybody: the server has said that this gateway is no part
// of the installation any more.
func (g *Gateway) removed() {
	g.log.Warn("the server has removed this gateway")
	g.grants.each(func(h *holder) { h.kill(closeGoingAway) })
	g.nodes.set(nil, nil)
	g.routes.update(nil, true)
	g.full.Store(false)
}

// reached notes whether a node answered.
func (n *nodes) reached(id quire.NodeID, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err == nil {
		delete(n.gone, id)
	} else if _, ok := n.addrs[id]; ok {
		n.gone[id] = quire.AsError(err).Message
	}
}

func (n *nodes) away() map[quire.NodeID]string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.gone) == 0 {
		return nil
	}
	return maps.Clone(n.gone)
}

// probe tries the nodes that did not answer, so that they come back without
// waiting for a person to try.
func (g *Gateway) probe() {
	for id := range g.nodes.away() {
		go func() {
			c, err := g.dialNode(g.ctx, id)
			if err == nil {
				c.Close()
			}
		}()
	}
}

// nodesOnly refuses addresses at which no node can be. It sees the address that
// is dialled, after every look-up: names that answer differently the second time
// gain nothing. Cloud machines have their secrets on link-local addresses.
func nodesOnly(_, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	switch a := ap.Addr().Unmap(); {
	case a.IsUnspecified(), a.IsMulticast(), a.IsLinkLocalUnicast(), a.Is4() && a.As4()[0] == 0, a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return errors.New("no node can be at this address")
	}
	return nil
}

// dialNode connects to a node of ours and to nothing else.
func (g *Gateway) dialNode(ctx context.Context, id quire.NodeID) (net.Conn, error) {
	addr := g.nodes.addr(id)
	if addr == "" {
		return nil, quire.Forbidden("The gateway connects to its nodes only.")
	}
	d := net.Dialer{Timeout: 5 * time.Second, KeepAliveConfig: keepAlive, Control: nodesOnly}
	c, err := d.DialContext(ctx, "tcp", addr)
	g.nodes.reached(id, err)
	if err != nil {
		return nil, quire.Unavailable("The node does not answer.", err)
	}
	return c, nil
}
