package gateway

import (
	"context"
	"errors"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
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

// attachments are the streams that servers hold open to us, each server one. What
// any of them says counts; what we ask goes to one of them.
type attachments struct {
	mu      sync.Mutex
	streams []*stream
	n       int64
	pending map[int64]*asked // renewals, not answered
	closing map[int64]int    // revocations that are being carried out: the last one of each word
	told    int64            // the newest that was heard of
	done    int64            // those up to here are carried out
	joiners joiners
	feeding sync.Mutex // one word at a time
}

// A stream is one server's.
type stream struct {
	cancel context.CancelCauseFunc
	full   atomic.Bool      // it has told everything
	heard  time.Time        // its last word
	asking []quire.RenewAsk // not yet sent
	joins  []quire.JoinAsk  // not yet sent
	wake   chan struct{}
}

// An asked renewal waits for an answer.
type asked struct {
	holder *holder
	of     *stream // whom it was asked; nil: nobody yet
}

var errReplaced = errors.New("more servers than there can be have attached")

func (a *attachments) init() {
	a.pending, a.closing = map[int64]*asked{}, map[int64]int{}
	a.joiners.waiting = map[int64]*joiner{}
}

func (s *stream) stir() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// best is whom to ask: who spoke last, since a server may be there and not be
// able to answer. nil if nobody is there.
func (a *attachments) best() (best *stream) {
	for _, s := range a.streams {
		if best == nil || s.heard.After(best.heard) {
			best = s
		}
	}
	return best
}

// ask queues a renewal.
func (a *attachments) ask(h *holder) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.n++
	p := &asked{holder: h}
	a.pending[a.n] = p
	a.renewal(a.n, p, a.best())
}

// renewal has a stream ask, if there is one. a.mu is held.
func (a *attachments) renewal(n int64, p *asked, s *stream) {
	if p.of = s; s != nil {
		s.asking = append(s.asking, quire.RenewAsk{N: n, Grant: p.holder.newest.Load().raw})
		s.stir()
	}
}

// askAgain asks what nobody was asked yet, or is any more. a.mu is held.
func (a *attachments) askAgain() {
	s := a.best()
	for n, p := range a.pending {
		switch {
		case p.holder.dead.Load():
			delete(a.pending, n)
		case p.of == nil:
			a.renewal(n, p, s)
		}
	}
	for n, j := range a.joiners.waiting {
		if j.of == nil {
			a.passOn(n, j, s)
		}
	}
}

func (a *attachments) answer(n int64) *holder {
	a.mu.Lock()
	defer a.mu.Unlock()
	p := a.pending[n]
	if p == nil {
		return nil
	}
	delete(a.pending, n)
	return p.holder
}

// begin adds a stream. Where there are as many as there can be, the one that has
// been silent for longest makes room.
func (a *attachments) begin(cancel context.CancelCauseFunc) *stream {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := &stream{cancel: cancel, heard: time.Now(), wake: make(chan struct{}, 1)}
	if len(a.streams) >= quire.MaxServers {
		old := slices.MinFunc(a.streams, func(x, y *stream) int { return x.heard.Compare(y.heard) })
		old.cancel(errReplaced)
		a.drop(old)
	}
	a.streams = append(a.streams, s)
	s.stir() // the server counts us as up once it has heard us
	a.askAgain()
	return s
}

// end takes a stream away. What it was asked and did not answer is asked another.
func (a *attachments) end(s *stream) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.drop(s)
	a.askAgain()
}

func (a *attachments) drop(s *stream) {
	a.streams = slices.DeleteFunc(a.streams, func(x *stream) bool { return x == s })
	for _, p := range a.pending {
		if p.of == s {
			p.of = nil
		}
	}
	for _, j := range a.joiners.waiting {
		if j.of == s {
			j.of = nil
		}
	}
}

// alone reports whether no other stream has told everything: then this one's list
// is all there is, and not a second one to compare with.
func (a *attachments) alone(s *stream) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return !slices.ContainsFunc(a.streams, func(x *stream) bool { return x != s && x.full.Load() })
}

func (a *attachments) take(s *stream) (asks []quire.RenewAsk, joins []quire.JoinAsk, done int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	asks, s.asking = s.asking, nil
	joins, s.joins = s.joins, nil
	return asks, joins, a.done
}

func (a *attachments) begun(seq int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closing[seq]++
	a.told = max(a.told, seq)
}

// finished notes that what a word said is done. Another server may have said the
// same a moment before, and be waiting still.
func (a *attachments) finished(seq int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closing[seq]--; a.closing[seq] == 0 {
		delete(a.closing, seq)
	}
	done := a.told
	for n := range a.closing {
		done = min(done, n-1)
	}
	if done <= a.done {
		return
	}
	a.done = done
	for _, s := range a.streams {
		s.stir()
	}
}

// Attach implements quire.Gateway.
func (g *Gateway) Attach(ctx context.Context, down <-chan quire.GatewayFeed, up func(quire.GatewayReport)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(g.ctx, func() { cancel(errors.New("the gateway is closing")) })
	defer stop()
	s := g.attach.begin(cancel)
	defer g.attach.end(s)
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
			if err := g.feed(s, feed); err != nil {
				return quire.Conflict("", "The feed has a gap: attach again.")
			}
			continue
		case <-s.wake:
		case <-t.C:
		}
		asks, joins, done := g.attach.take(s)
		rep := quire.GatewayReport{Seq: done, Version: g.cfg.Version, Renew: asks, Joins: joins, Active: g.active(), NodeAway: g.nodes.away()}
		if g.cfg.Identity != nil {
			if is := g.cfg.Identity.Is(); is.Generation != told {
				rep.Identity, told = &is, is.Generation
			}
		}
		up(rep)
	}
}

// feed takes one word of a server. Revocations come first: a renewal or a route
// in the same feed is newer than they are.
func (g *Gateway) feed(s *stream, f quire.GatewayFeed) error {
	g.attach.feeding.Lock()
	defer g.attach.feeding.Unlock()
	g.attach.mu.Lock()
	s.heard = time.Now()
	g.attach.mu.Unlock()
	if f.Removed {
		g.removed()
		return nil
	}
	fresh := f.Full && g.attach.alone(s)
	news := true // about the nodes and the addresses
	if f.Full || f.Nodes != nil {
		news = g.nodes.set(f.Nodes, f.Keys, f.Version, fresh)
	}
	if f.Certificate != nil && g.cfg.Identity != nil {
		if err := g.cfg.Identity.Renew(f.Certificate); err != nil {
			g.log.Error("the new certificate was not taken", "error", err)
		}
	}
	if f.Site != nil && news && g.cfg.Moved != nil {
		g.cfg.Moved(*f.Site)
	}
	g.attach.joined(f.Joined)
	wait, err := g.revoke(f.Revocations, f.Seq, f.Full)
	if err != nil {
		return err
	}
	if f.Full || len(f.Routes) > 0 {
		g.routes.update(f.Routes, f.Full, f.Version, fresh)
	}
	g.heard.Store(g.now().UnixMilli())
	if f.Full {
		s.full.Store(true)
		g.full.Store(true)
	}
	for _, r := range f.Renewed {
		if h := g.attach.answer(r.N); h != nil {
			g.renewed(h, r.Grant)
		}
	}
	g.attach.begun(f.Seq)
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
	age   int64                   // Version of the list
	gone  map[quire.NodeID]string // why
}

func (n *nodes) init() {
	n.addrs = map[quire.NodeID]string{}
	n.gone = map[quire.NodeID]string{}
}

// set takes a list unless there is a newer one, or any if it is the only one.
func (n *nodes) set(addrs, keys map[quire.NodeID]string, version int64, fresh bool) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if version < n.age && !fresh {
		return false
	}
	n.addrs, n.keys, n.age = maps.Clone(addrs), maps.Clone(keys), version
	for id := range n.gone {
		if _, ok := addrs[id]; !ok {
			delete(n.gone, id)
		}
	}
	return true
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
	g.nodes.set(nil, nil, 0, true)
	g.routes.update(nil, true, 0, true)
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
