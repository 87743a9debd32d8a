package gateway

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"quire"
	"quire/ticket"
)

const (
	renewBefore  = 2 * time.Minute // of the end of a grant that is in use
	renewWait    = 2 * time.Second // how long a request waits for a renewal
	renewAnswer  = 10 * time.Second
	keepRevoked  = 24 * time.Hour // as long as any grace
	inUse        = ticket.GrantLife
	forgetAfter  = 30 * time.Minute // an unused holder or cookie; the cookie itself brings it back
	maxRemember  = 50_000           // cookies
	refreshAfter = time.Minute      // a cookie whose grant is older than the newest by this is renewed too
)

// Why a request has no grant.
var (
	errNoGrant = errors.New("no grant")                       // sign in
	errAway    = errors.New("the server is away")             // wait
	errClock   = errors.New("the clocks are too far apart")   // tell an administrator
	errRevoked = errors.New("the right has just been taken")  // never a way in
	errLimit   = errors.New("the session has enough sockets") // 429
)

// signed is a grant with its bytes.
type signed struct {
	ticket.Grant
	raw []byte
}

// A holder is one login of one person in one project: the newest grant and all
// that is open under it. It lives until its right ends; then it is dead for
// good, and a later right makes a new one.
type holder struct {
	subject ticket.Subject
	feed    int64 // of the grant it began with: a later revocation ends it
	newest  atomic.Pointer[signed]
	dead    atomic.Bool
	gone    chan struct{} // closed when it is dead
	used    atomic.Int64  // Unix ms of the last traffic
	streams atomic.Int32  // of our own events

	mu       sync.Mutex
	pools    map[quire.SessionID]*pool
	sockets  map[*socket]struct{}
	renewing chan struct{} // closed with the answer; nil when nothing is asked
	asked    time.Time
}

// seen is a cookie value that was opened before.
type seen struct {
	holder  *holder
	site    *site
	issued  time.Time // of the grant inside
	renewed atomic.Bool
}

type usedTicket struct {
	subject ticket.Subject
	issued  time.Time
	until   time.Time
}

type grants struct {
	byCookie sync.Map // string -> *seen
	cookies  atomic.Int64

	mu          sync.Mutex
	holders     map[ticket.Subject]*holder
	revocations []quire.Revocation
	seq         int64                        // the newest revocation we know
	ended       map[ticket.Subject]time.Time // grants issued up to then are over
	tickets     map[quire.OrderID]usedTicket
}

func (s *grants) init() {
	s.holders = map[ticket.Subject]*holder{}
	s.ended = map[ticket.Subject]time.Time{}
	s.tickets = map[quire.OrderID]usedTicket{}
}

func (s *grants) each(f func(*holder)) {
	s.mu.Lock()
	all := make([]*holder, 0, len(s.holders))
	for _, h := range s.holders {
		all = append(all, h)
	}
	s.mu.Unlock()
	for _, h := range all {
		f(h)
	}
}

// take makes the holder of a verified grant, or gives its holder the newer
// grant. A revocation or an end that covers the grant wins; both are decided
// under one lock with their arrival, so none slips between.
func (s *grants) take(g signed) (*holder, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.revocations {
		if g.Revoked(r) {
			return nil, errRevoked
		}
	}
	subject := g.Subject()
	if end, ok := s.ended[subject]; ok && !g.Issued.After(end) {
		return nil, errRevoked
	}
	h := s.holders[subject]
	if h == nil || h.dead.Load() {
		h = &holder{subject: subject, feed: g.Feed, gone: make(chan struct{}), pools: map[quire.SessionID]*pool{}, sockets: map[*socket]struct{}{}}
		s.holders[subject] = h
	}
	if old := h.newest.Load(); old == nil || old.Issued.Before(g.Issued) {
		h.newest.Store(&g)
	}
	return h, nil
}

// open finds the holder of a cookie's value.
func (g *Gateway) open(value string, s *site) (*seen, error) {
	if v, ok := g.grants.byCookie.Load(value); ok {
		c := v.(*seen)
		if !c.holder.dead.Load() && c.site.label == s.label {
			return c, nil
		}
		if g.grants.byCookie.CompareAndDelete(value, v) {
			g.grants.cookies.Add(-1)
		}
	}
	raw, err := g.seal.open(value, s.label)
	if err != nil {
		return nil, errNoGrant
	}
	grant, err := g.cfg.Verifier.Grant(raw)
	if err != nil || grant.Gateway != g.cfg.Node || grant.Label != s.label {
		return nil, errNoGrant
	}
	h, err := g.grants.take(signed{grant, raw})
	if err != nil {
		return nil, err
	}
	c := &seen{holder: h, site: s, issued: grant.Issued}
	if g.grants.cookies.Load() < maxRemember {
		if _, loaded := g.grants.byCookie.LoadOrStore(value, c); !loaded {
			g.grants.cookies.Add(1)
		}
	}
	return c, nil
}

// good returns the grant under which a request may go on. When the newest has
// expired it asks the server for a new one and, if told to, waits for it.
func (g *Gateway) good(ctx context.Context, h *holder, now time.Time, wait bool) (*signed, error) {
	if h.dead.Load() {
		return nil, errRevoked
	}
	if ms := now.UnixMilli(); ms-h.used.Load() > 1000 {
		h.used.Store(ms)
	}
	grant := h.newest.Load()
	err := grant.Good(now, g.lastHeard())
	if err == nil {
		return grant, nil
	}
	if errors.Is(err, ticket.ErrFuture) {
		return nil, errClock
	}
	if g.silent(now) {
		return nil, errAway
	}
	if !wait {
		g.ask(h)
		return nil, errAway
	}
	return g.renewNow(ctx, h)
}

// renewNow asks once for all requests that wait.
func (g *Gateway) renewNow(ctx context.Context, h *holder) (*signed, error) {
	answered := g.ask(h)
	t := time.NewTimer(renewWait)
	defer t.Stop()
	select {
	case <-answered:
	case <-t.C:
		return nil, errAway
	case <-ctx.Done():
		return nil, errAway
	}
	if h.dead.Load() {
		return nil, errRevoked
	}
	if grant := h.newest.Load(); grant.Good(g.now(), g.lastHeard()) == nil {
		return grant, nil
	}
	return nil, errAway
}

// ask sends the grant to be renewed, unless that is already under way.
func (g *Gateway) ask(h *holder) <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.renewing == nil {
		h.renewing = make(chan struct{})
		h.asked = time.Now()
		g.attach.ask(h)
	}
	return h.renewing
}

// answered ends the wait for a renewal.
func (h *holder) answered() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.renewing != nil {
		close(h.renewing)
		h.renewing = nil
	}
}

// renewed takes the server's answer: a newer grant, or none when the right is
// gone.
func (g *Gateway) renewed(h *holder, raw []byte) {
	defer h.answered()
	if len(raw) == 0 {
		g.end(h)
		return
	}
	grant, err := g.cfg.Verifier.Grant(raw)
	if err != nil || grant.Gateway != g.cfg.Node || grant.Subject() != h.subject {
		g.log.Error("the server renewed a grant with one that is not its successor", "error", err)
		return
	}
	if _, err := g.grants.take(signed{grant, raw}); err != nil {
		return // revoked meanwhile; the revocation has ended the holder
	}
	g.renewLeases(h, &signed{grant, raw})
}

// renewLeases tells the nodes where the holder has streams.
func (g *Gateway) renewLeases(h *holder, grant *signed) {
	if !h.hasStreams() {
		return
	}
	addr := g.nodes.addr(grant.Node)
	go func() {
		ctx, cancel := context.WithTimeout(g.ctx, renewAnswer)
		defer cancel()
		if err := g.cfg.Renew(ctx, addr, grant.Node, grant.raw); err != nil {
			g.log.Warn("lease not renewed", "node", grant.Node, "error", err)
		}
	}()
}

// end is for a right the server no longer confirms.
func (g *Gateway) end(h *holder) {
	g.grants.mu.Lock()
	g.grants.ended[h.subject] = h.newest.Load().Issued
	g.grants.mu.Unlock()
	h.kill(closeRevoked)
}

// kill ends a holder: nothing new, connections to the app closed, sockets told
// why. The returned function waits until all is closed.
func (h *holder) kill(why closeCode) (wait func()) {
	h.mu.Lock()
	if h.dead.CompareAndSwap(false, true) {
		close(h.gone)
	}
	pools, sockets := h.pools, make([]*socket, 0, len(h.sockets))
	h.pools = map[quire.SessionID]*pool{}
	for s := range h.sockets {
		sockets = append(sockets, s)
	}
	h.mu.Unlock()
	for _, p := range pools {
		p.close()
	}
	for _, s := range sockets {
		s.shut(why)
	}
	return func() {
		for _, s := range sockets {
			<-s.closed
		}
	}
}

func (h *holder) hasStreams() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range h.pools {
		if p.open() > 0 {
			return true
		}
	}
	return len(h.sockets) > 0
}

// pool returns the holder's connections to one session.
func (h *holder) pool(id quire.SessionID) (*pool, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.dead.Load() {
		return nil, errRevoked
	}
	p := h.pools[id]
	if p == nil {
		p = &pool{}
		h.pools[id] = p
	}
	return p, nil
}

// reserve counts a socket of a session before it is opened; release gives the
// place back.
func (h *holder) reserve(s *socket, limit int) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.dead.Load() {
		return errRevoked
	}
	n := 0
	for o := range h.sockets {
		if o.session == s.session {
			n++
		}
	}
	if n >= limit {
		return errLimit
	}
	h.sockets[s] = struct{}{}
	return nil
}

func (h *holder) release(s *socket) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.sockets, s)
}

// revoke takes revocations and ends the holders they cover. wait returns when
// everything of theirs is closed.
func (g *Gateway) revoke(list []quire.Revocation, seq int64, full bool) (wait func(), err error) {
	s := &g.grants
	s.mu.Lock()
	top := s.seq
	for _, r := range list {
		if r.Seq > top {
			top = r.Seq
		}
	}
	if !full && s.seq < seq && top < seq {
		s.mu.Unlock()
		return nil, errors.New("revocations are missing in the feed")
	}
	now := g.now()
	kept := s.revocations[:0]
	known := map[int64]bool{}
	for _, r := range s.revocations {
		if now.Sub(r.At) < keepRevoked {
			kept = append(kept, r)
			known[r.Seq] = true
		}
	}
	s.revocations = kept
	var over []*holder
	for _, r := range list {
		if known[r.Seq] {
			continue
		}
		s.revocations = append(s.revocations, r)
		for subject, h := range s.holders {
			if r.Covers(subject.User, subject.Project, subject.Login, h.feed) {
				over = append(over, h)
				delete(s.holders, subject)
			}
		}
	}
	s.seq = max(top, seq)
	s.mu.Unlock()
	waits := make([]func(), 0, len(over))
	for _, h := range over {
		waits = append(waits, h.kill(closeRevoked))
	}
	return func() {
		for _, w := range waits {
			w()
		}
	}, nil
}

// use remembers a ticket. Its second use ends what the first one gave.
func (g *Gateway) use(t ticket.Ticket, subject ticket.Subject, issued time.Time) error {
	s := &g.grants
	s.mu.Lock()
	old, again := s.tickets[t.ID]
	if !again {
		s.tickets[t.ID] = usedTicket{subject, issued, t.Expires.Add(ticket.Skew)}
		s.mu.Unlock()
		return nil
	}
	if s.ended[old.subject].Before(old.issued) {
		s.ended[old.subject] = old.issued
	}
	h := s.holders[old.subject]
	delete(s.holders, old.subject)
	s.mu.Unlock()
	if h != nil {
		h.kill(closeRevoked)
	}
	return errors.New("the ticket was used before")
}

// tendGrants renews what is in use and ends what has run out.
func (g *Gateway) tendGrants() {
	now, heard, wall := g.now(), g.lastHeard(), time.Now()
	silent := g.silent(now)
	g.grants.each(func(h *holder) {
		if h.dead.Load() {
			return
		}
		grant := h.newest.Load()
		h.mu.Lock()
		if h.renewing != nil && wall.Sub(h.asked) > renewAnswer { // lost; ask again
			close(h.renewing)
			h.renewing = nil
		}
		busy := len(h.sockets)
		for _, p := range h.pools {
			busy += p.busy() // an app's answer may go on for hours
		}
		h.mu.Unlock()
		used := busy > 0 || h.streams.Load() > 0 || now.Sub(time.UnixMilli(h.used.Load())) < inUse
		if used && !silent && now.Add(renewBefore).After(grant.Expires) {
			g.ask(h)
		}
		// Past its end and its grace: while the server is there it has been asked
		// and will answer; the little time that takes is Silence.
		if errors.Is(grant.Good(now, heard), ticket.ErrExpired) && (silent || now.Sub(grant.Expires) > ticket.Silence) {
			h.closeStreams()
		}
	})
}

// closeStreams closes what is open without ending the holder: a new request
// may bring a new grant.
func (h *holder) closeStreams() {
	h.mu.Lock()
	pools := h.pools
	h.pools = map[quire.SessionID]*pool{}
	sockets := make([]*socket, 0, len(h.sockets))
	for s := range h.sockets {
		sockets = append(sockets, s)
	}
	h.mu.Unlock()
	for _, p := range pools {
		p.close()
	}
	for _, s := range sockets {
		s.shut(closeRevoked)
	}
}

// sweep forgets what nobody has used for long.
func (g *Gateway) sweep() {
	now := g.now()
	old := func(h *holder) bool { return now.Sub(time.UnixMilli(h.used.Load())) > forgetAfter }
	g.grants.byCookie.Range(func(k, v any) bool {
		if c := v.(*seen); c.holder.dead.Load() || old(c.holder) {
			if g.grants.byCookie.CompareAndDelete(k, v) {
				g.grants.cookies.Add(-1)
			}
		}
		return true
	})
	s := &g.grants
	s.mu.Lock()
	var idle []*holder
	for subject, h := range s.holders {
		if h.dead.Load() || old(h) && !h.hasStreams() {
			delete(s.holders, subject)
			idle = append(idle, h)
		}
	}
	for id, t := range s.tickets {
		if now.After(t.until) {
			delete(s.tickets, id)
		}
	}
	for subject, at := range s.ended {
		if now.Sub(at) > keepRevoked {
			delete(s.ended, subject)
		}
	}
	s.mu.Unlock()
	for _, h := range idle {
		h.kill(closeRevoked) // a request that just got hold of it comes again
	}
	g.grants.each(func(h *holder) { h.idle(now) })
}

// idle closes connections to apps that nothing has used for a while.
func (h *holder) idle(now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for id, p := range h.pools {
		if p.reap(now) == 0 {
			delete(h.pools, id)
		}
	}
}
