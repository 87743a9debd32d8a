package gateway

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"time"
)

const (
	maxIdle     = 256 // connections of one person to one session
	idleTime    = 90 * time.Second
	trustFor    = time.Second
	maxRespHead = 64 << 10
)

// A pool is the connections of one holder to one session. Nobody else ever
// gets one of them: what an app leaves on a connection can only reach the
// person who opened it.
type pool struct {
	mu     sync.Mutex
	idle   []*backend // newest last
	all    map[*backend]struct{}
	closed bool
}

var errPoolClosed = errors.New("the pool is closed")

// A backend is a connection to an app.
type backend struct {
	net.Conn
	br    *bufio.Reader
	raw   syscall.RawConn // of the socket under it; nil if there is none
	plain bool            // the socket itself, no TLS in between
	left  int64           // bytes the app may still send, while a head is read
	began bool            // something was read since that was set back
	since time.Time       // idle

	// A request that is sent in one system call together with the wait for its
	// answer; see attempt.
	out []byte
	p   []byte
	n   int
	err error
	try func(uintptr) bool
}

var errTooMuch = errors.New("the app's head is too long")

const noLimit = 1<<63 - 1

func newBackend(c net.Conn) *backend {
	b := &backend{Conn: c, left: noLimit}
	b.br = bufio.NewReaderSize(b, 4<<10)
	under := c
	if t, ok := c.(interface{ NetConn() net.Conn }); ok { // TLS
		under = t.NetConn()
	}
	if s, ok := under.(syscall.Conn); ok {
		b.raw, _ = s.SyscallConn()
		b.plain = under == c && b.raw != nil
		b.try = b.attempt
	}
	return b
}

// send writes a request, or leaves it to the first Read.
func (b *backend) send(head []byte) error {
	if b.plain {
		b.out = head
		return nil
	}
	_, err := b.Conn.Write(head)
	return err
}

// attempt writes what is to be sent and reads what is there. Writing happens
// after the runtime has begun to listen for the socket to become readable, so
// the read that would find nothing yet can be left out: the answer to what was
// just written cannot have come before.
func (b *backend) attempt(fd uintptr) bool {
	for {
		switch {
		case b.out != nil:
			n, err := syscall.Write(int(fd), b.out)
			switch {
			case err == syscall.EINTR:
			case err == syscall.EAGAIN:
				return true // the rest is written in the ordinary way
			case err != nil:
				b.err = err
				return true
			case n < len(b.out):
				b.out = b.out[n:]
				return true
			default:
				b.out = nil
				return false
			}
		default:
			b.n, b.err = syscall.Read(int(fd), b.p)
			if b.err != syscall.EINTR {
				return b.err != syscall.EAGAIN
			}
		}
	}
}

func (b *backend) sendAndRead(p []byte) (int, error) {
	b.p, b.n, b.err = p, 0, nil
	defer func() { b.p, b.out = nil, nil }()
	err := b.raw.Read(b.try)
	switch {
	case err != nil:
		return 0, err
	case b.err != nil:
		return 0, b.err
	case b.out != nil:
		if _, err := b.Conn.Write(b.out); err != nil {
			return 0, err
		}
		return b.Conn.Read(p)
	case b.n <= 0:
		return 0, io.EOF
	}
	return b.n, nil
}

// Read limits how much is taken while a head is read.
func (b *backend) Read(p []byte) (n int, err error) {
	if int64(len(p)) > b.left {
		if b.left <= 0 {
			return 0, errTooMuch
		}
		p = p[:b.left]
	}
	if b.out != nil {
		n, err = b.sendAndRead(p)
	} else {
		n, err = b.Conn.Read(p)
	}
	b.left -= int64(n)
	b.began = b.began || n > 0
	return n, err
}

// silent reports whether the app has not said a byte of an answer.
func (b *backend) silent() bool { return !b.began }

// abort closes the connection without a good-bye, which could block.
func (b *backend) abort() { abort(b.Conn) }

func abort(c net.Conn) {
	if t, ok := c.(interface{ NetConn() net.Conn }); ok {
		t.NetConn().Close()
		return
	}
	c.Close()
}

// quiet reports whether an idle connection has nothing to read: neither an end
// nor bytes nobody asked for. Both make it unusable.
func (b *backend) quiet() bool {
	if b.br.Buffered() > 0 {
		return false
	}
	if b.raw == nil {
		return true
	}
	quiet := false
	err := b.raw.Read(func(fd uintptr) bool {
		var one [1]byte
		_, _, err := syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		quiet = err == syscall.EAGAIN
		return true
	})
	return err == nil && quiet
}

// get returns an idle connection, or nil when there is none. With trust, one
// that was used a moment ago is not looked at: the caller can repeat its
// request if the app has just closed it.
func (p *pool) get(now time.Time, trust bool) (*backend, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, errPoolClosed
	}
	for n := len(p.idle); n > 0; n = len(p.idle) {
		b := p.idle[n-1]
		p.idle[n-1] = nil
		p.idle = p.idle[:n-1]
		idle := now.Sub(b.since)
		if trust && idle < trustFor && b.br.Buffered() == 0 || idle < idleTime && b.quiet() {
			return b, nil
		}
		delete(p.all, b)
		b.abort()
	}
	return nil, nil
}

// add registers a new connection, so that the end of the right closes it.
func (p *pool) add(b *backend) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		b.abort()
		return errPoolClosed
	}
	if p.all == nil {
		p.all = map[*backend]struct{}{}
	}
	p.all[b] = struct{}{}
	return nil
}

// put keeps a connection whose answer was read to its end.
func (p *pool) put(b *backend, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || len(p.idle) >= maxIdle || b.br.Buffered() > 0 {
		delete(p.all, b)
		b.abort()
		return
	}
	b.since = now
	p.idle = append(p.idle, b)
}

// drop closes a connection that cannot be used again.
func (p *pool) drop(b *backend) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.all, b)
	b.abort()
}

func (p *pool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for b := range p.all {
		b.abort()
	}
	p.all, p.idle = nil, nil
}

func (p *pool) open() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.all)
}

// busy is how many connections carry a request now.
func (p *pool) busy() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.all) - len(p.idle)
}

// reap closes what has been idle for long and says how many connections are
// left. A pool without any is closed, so that nobody adds to it unseen.
func (p *pool) reap(now time.Time) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	keep := p.idle[:0]
	for _, b := range p.idle {
		if now.Sub(b.since) < idleTime {
			keep = append(keep, b)
			continue
		}
		delete(p.all, b)
		b.abort()
	}
	clear(p.idle[len(keep):])
	p.idle = keep
	if len(p.all) == 0 {
		p.closed = true
	}
	return len(p.all)
}

// dial opens a connection of the pool.
func (g *Gateway) dial(ctx context.Context, a *app, grant *signed) (net.Conn, error) {
	addr := g.nodes.addr(a.Node)
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	return g.cfg.Dial(ctx, addr, a.Route, grant.raw)
}

const dialTime = 10 * time.Second

// buffers are shared by everything that copies; nothing is kept in them.
type buffers struct{ small, large *sync.Pool }

func newBuffers() buffers {
	of := func(n int) *sync.Pool {
		return &sync.Pool{New: func() any { b := make([]byte, n); return &b }}
	}
	return buffers{small: of(8 << 10), large: of(64 << 10)}
}
