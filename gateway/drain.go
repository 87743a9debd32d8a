package gateway

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"
)

// A gateway that is replaced hands over in this order. It stops taking
// connections, and the next one takes them from the same listeners; it lets go of
// the server's stream, which attaches to the next one; it tells WebSockets and
// streams of events to come back. What is under way it finishes.

const (
	// firstWordTime is how long requests wait for the server's first word after we
	// began: it attaches again within a fraction of a second when we take
	// another's place.
	firstWordTime = 5 * time.Second
	drainEvery    = 20 * time.Millisecond
)

var errDraining = errors.New("the gateway is being replaced")

// A handing is what is known of our beginning and end.
type handing struct {
	first    chan struct{} // closed when a full feed has been heard
	heard    sync.Once
	patience context.Context // of requests with the first word; nil: they do not wait
	draining chan struct{}   // closed when another one takes our place
	once     sync.Once
}

func (h *handing) init() {
	h.first, h.draining = make(chan struct{}), make(chan struct{})
}

func (h *handing) over() bool {
	select {
	case <-h.draining:
		return true
	default:
		return false
	}
}

// firstWord waits, for a moment after our beginning, until the server has said
// what there is.
func (g *Gateway) firstWord(ctx context.Context) {
	if g.full.Load() || g.handing.patience == nil {
		return
	}
	select {
	case <-g.handing.first:
	case <-g.handing.patience.Done():
	case <-ctx.Done():
	}
}

// retry is how long a browser is asked to wait before it opens a stream of events
// again: not all of them at the same moment.
func retry() int { return 300 + rand.IntN(900) } // ms

// Drain lets another gateway take our place: released is called when it may
// begin. Drain returns when everything under way is finished or ctx has ended;
// Close is left to the caller.
func (g *Gateway) Drain(ctx context.Context, released func()) {
	g.handing.once.Do(func() { close(g.handing.draining) })
	g.conns.deaf()
	released()
	g.conns.accepting.Wait()
	g.attach.leave(errDraining)
	// Whoever was let in is answered, also when the first request is still to come:
	// the connection is nobody else's.
	g.until(ctx, func() bool {
		g.browser.SetKeepAlivesEnabled(false) // ends those that are idle
		return g.lines.drain() == 0 && g.conns.unanswered.Load() == 0 && g.conns.browsers.Load() == 0
	})
}

// until waits for a condition or the end of ctx, and tells the sockets that there
// are, or that are opened meanwhile, to come back.
func (g *Gateway) until(ctx context.Context, so func() bool) {
	t := time.NewTicker(drainEvery)
	defer t.Stop()
	for {
		g.grants.each(func(h *holder) { h.shut(closeRestart) })
		if so() {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// shut ends the sockets of a holder, whose right goes on.
func (h *holder) shut(why closeCode) {
	h.mu.Lock()
	sockets := make([]*socket, 0, len(h.sockets))
	for s := range h.sockets {
		sockets = append(sockets, s)
	}
	h.mu.Unlock()
	for _, s := range sockets {
		s.shut(why)
	}
}

// deaf takes no connection any more.
func (c *connections) deaf() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for l := range c.listeners {
		l.Close()
	}
}

// drain ends the lines on which nothing is asked, and says how many are left. The
// others end with their answers.
func (l *lines) drain() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.all {
		if c.asked.Load() && c.busy.Load() == 0 {
			c.conn.Close()
		}
	}
	return len(l.all)
}

// leave ends the servers' streams.
func (a *attachments) leave(why error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, s := range a.streams {
		s.cancel(why)
	}
}
