package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"quire/compute/remote"
)

const (
	maxHead    = 32 << 10
	headTime   = 5 * time.Second
	idleClient = 2 * time.Minute
	reserveFDs = 2000 // for nodes, the control side and what the runtime needs
)

// keepAlive finds a peer that vanished without a word within 90 s.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 30 * time.Second, Interval: 15 * time.Second, Count: 4}

const userTimeout = 90 * time.Second // the same for one that owes us an acknowledgment

// connections counts who is in.
type connections struct {
	mu         sync.Mutex
	listeners  map[net.Listener]struct{}
	ended      bool
	accepting  sync.WaitGroup // on listeners
	unanswered atomic.Int64   // accepted, and nothing was answered on them yet

	browsers atomic.Int64
	max      int64 // browsers
}

func (c *connections) init(max int) {
	c.listeners = map[net.Listener]struct{}{}
	var limit syscall.Rlimit
	files := int64(1024)
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) == nil {
		files = int64(min(limit.Cur, 1<<20))
	}
	// Each browser connection may need a second descriptor, towards a node.
	c.max = (files - reserveFDs) / 2
	if files < 2*reserveFDs {
		c.max = files / 4
	}
	if max > 0 {
		c.max = int64(max)
	}
}

func (c *connections) hijacked(n int64) { c.browsers.Add(n) }

func (c *connections) listen(l net.Listener) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return false
	}
	c.listeners[l] = struct{}{}
	c.accepting.Add(1)
	return true
}

func (c *connections) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	for l := range c.listeners {
		l.Close()
	}
}

// state is the browser server's ConnState. A hijacked connection counts again
// as a socket.
func (g *Gateway) state(conn net.Conn, s http.ConnState) {
	g.fresh.State(conn, s)
	if s == http.StateClosed || s == http.StateHijacked {
		g.conns.browsers.Add(-1)
	}
}

func (g *Gateway) browserServer() *http.Server {
	p := new(http.Protocols)
	p.SetHTTP1(true)
	p.SetHTTP2(g.cfg.TLS != nil)
	s := &http.Server{
		Handler:           g,
		Protocols:         p,
		ReadHeaderTimeout: headTime,
		IdleTimeout:       idleClient,
		MaxHeaderBytes:    maxHead,
		ErrorLog:          remote.QuietLog(g.log),
		ConnState:         g.state,
		BaseContext:       func(net.Listener) context.Context { return g.ctx },
	}
	if g.cfg.TLS != nil {
		s.TLSConfig = g.bothSides()
		s.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if g.control != nil && r.TLS != nil && internalName(r.TLS.ServerName) {
				g.control.Handler.ServeHTTP(w, r)
				return
			}
			g.ServeHTTP(w, r)
		})
	}
	return s
}

// bothSides is the TLS of a port that browsers and the server share: the name
// asked for tells them apart, and each gets its own rules.
func (g *Gateway) bothSides() *tls.Config {
	conf := g.cfg.TLS.Clone()
	conf.MinVersion = max(conf.MinVersion, tls.VersionTLS12)
	if g.cfg.Identity == nil {
		return conf
	}
	conf.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if internalName(hello.ServerName) {
			return g.cfg.Identity.ListenNow(remote.RoleServer), nil
		}
		return nil, nil
	}
	return conf
}

func internalName(name string) bool { return strings.HasSuffix(name, "."+remote.Domain) }

// Serve answers on l until Close, also when Drain has closed l before, and returns
// http.ErrServerClosed then.
// Connections that begin with TLS are the control side's; on a gateway that
// speaks TLS to browsers too, the server name decides.
func (g *Gateway) Serve(l net.Listener) error {
	var stop context.CancelFunc
	g.handing.patience, stop = context.WithTimeout(g.ctx, firstWordTime)
	defer stop()
	if !g.conns.listen(l) {
		return http.ErrServerClosed
	}
	browsers, control := newQueue(l.Addr()), newQueue(l.Addr())
	defer browsers.Close()
	defer control.Close()
	if g.cfg.TLS != nil {
		go g.browser.ServeTLS(browsers, "", "")
	} else {
		go g.browser.Serve(browsers)
	}
	if g.control != nil {
		go g.control.ServeTLS(control, "", "")
	}
	g.accept(l, browsers, control)
	g.conns.accepting.Done()
	if g.handing.over() {
		<-g.ctx.Done() // what we have taken is still being sorted
	}
	return http.ErrServerClosed
}

// accept takes connections until l is closed.
func (g *Gateway) accept(l net.Listener, browsers, control *queue) {
	var pause time.Duration
	for {
		conn, err := l.Accept()
		if err != nil {
			if g.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			// Out of descriptors or the like: connections that end give room.
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			g.log.Warn("accept", "error", err, "again_in", pause)
			select {
			case <-g.ctx.Done():
			case <-time.After(pause):
			}
			continue
		}
		pause = 0
		if !g.fresh.Enter(conn) {
			conn.Close()
			continue
		}
		g.conns.unanswered.Add(1)
		go g.sort(conn, browsers, control)
	}
}

// ServeControl answers the server alone on l until Close, where browsers come
// by a listener that the server cannot reach.
func (g *Gateway) ServeControl(l net.Listener) error {
	if g.control == nil || !g.conns.listen(l) {
		return http.ErrServerClosed
	}
	defer g.conns.accepting.Done()
	return g.control.ServeTLS(l, "", "")
}

// sort looks at the first byte without taking it, and gives the connection to
// who answers it.
func (g *Gateway) sort(accepted net.Conn, browsers, control *queue) {
	served := false // by net/http, which tells when it has ended
	defer func() {
		if !served {
			g.fresh.Leave(accepted)
			accepted.Close()
		}
	}()
	settled := sync.OnceFunc(func() { g.conns.unanswered.Add(-1) })
	defer settled()
	tune(accepted)
	accepted.SetReadDeadline(time.Now().Add(headTime))
	first, conn, err := peek(accepted)
	if err != nil {
		return
	}
	conn.SetReadDeadline(time.Time{})
	isTLS := first == 0x16
	switch {
	case isTLS && g.cfg.TLS == nil:
		served = g.control != nil && control.push(conn)
		return
	case !isTLS && g.cfg.TLS != nil:
		return
	}
	if g.conns.browsers.Add(1) > g.conns.max {
		g.conns.browsers.Add(-1)
		conn.SetDeadline(time.Now().Add(time.Second))
		if !isTLS {
			io.WriteString(conn, "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 5\r\nContent-Length: 0\r\n\r\n")
		}
		return
	}
	if !isTLS {
		if l := g.newLine(conn); l != nil {
			l.settled = settled
			rest, over := l.serve()
			if over {
				g.conns.browsers.Add(-1)
				return
			}
			conn = &prefixed{Conn: conn, first: rest}
		}
	}
	if served = browsers.push(conn); !served {
		g.conns.browsers.Add(-1)
	}
}

func tune(conn net.Conn) {
	t, ok := conn.(*net.TCPConn)
	if !ok {
		return
	}
	t.SetKeepAliveConfig(keepAlive)
	if raw, err := t.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) {
			unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(userTimeout.Milliseconds()))
		})
	}
}

// peek returns the first byte of a connection that still has it.
func peek(conn net.Conn) (byte, net.Conn, error) {
	s, ok := conn.(syscall.Conn)
	if !ok {
		return peekRead(conn)
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return peekRead(conn)
	}
	var b [1]byte
	var n int
	var perr error
	err = raw.Read(func(fd uintptr) bool {
		n, _, perr = syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK)
		return perr != syscall.EAGAIN && perr != syscall.EINTR
	})
	switch {
	case err != nil:
		return 0, conn, err
	case perr != nil:
		return 0, conn, perr
	case n == 0:
		return 0, conn, io.EOF
	}
	return b[0], conn, nil
}

// peekRead is for connections that are not sockets.
func peekRead(conn net.Conn) (byte, net.Conn, error) {
	var b [1]byte
	if _, err := io.ReadFull(conn, b[:]); err != nil {
		return 0, conn, err
	}
	return b[0], &prefixed{Conn: conn, first: b[:]}, nil
}

// A prefixed connection still has bytes that were read from it.
type prefixed struct {
	net.Conn
	first []byte
}

func (p *prefixed) Read(b []byte) (int, error) {
	if len(p.first) > 0 {
		n := copy(b, p.first)
		p.first = p.first[n:]
		return n, nil
	}
	return p.Conn.Read(b)
}

// NetConn is the connection below.
func (p *prefixed) NetConn() net.Conn { return p.Conn }

// bare is the connection itself once nothing is left in front of it.
func bare(c net.Conn) net.Conn {
	if p, ok := c.(*prefixed); ok && len(p.first) == 0 {
		return p.Conn
	}
	return c
}

// A queue is a listener that is fed.
type queue struct {
	addr  net.Addr
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newQueue(addr net.Addr) *queue {
	return &queue{addr: addr, conns: make(chan net.Conn), done: make(chan struct{})}
}

func (q *queue) push(c net.Conn) bool {
	select {
	case q.conns <- c:
		return true
	case <-q.done:
		return false
	}
}

func (q *queue) Accept() (net.Conn, error) {
	select {
	case c := <-q.conns:
		return c, nil
	case <-q.done:
		return nil, net.ErrClosed
	}
}

func (q *queue) Close() error {
	q.once.Do(func() { close(q.done) })
	return nil
}

func (q *queue) Addr() net.Addr { return q.addr }
