package compute

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"quire"
	"quire/ticket"
)

// A lease holds the streams of one person's login in one project through one
// gateway. It lives as long as its newest grant is good.
type lease struct {
	key     leaseKey
	grant   ticket.Grant
	streams map[*stream]bool
	timer   *time.Timer
}

type leaseKey struct {
	gateway quire.NodeID
	subject ticket.Subject
}

// end closes all streams. Compute.mu is held.
func (l *lease) end() {
	if l.timer != nil {
		l.timer.Stop()
	}
	for s := range l.streams {
		s.UnixConn.Close()
	}
	clear(l.streams)
}

// stream is a connection to a session's socket that its lease can close.
type stream struct {
	*net.UnixConn
	session quire.SessionID
	done    func()
	once    sync.Once
}

func (s *stream) Close() error {
	s.once.Do(s.done)
	return s.UnixConn.Close()
}

// verify checks everything about a grant that does not depend on a session.
func (c *Compute) verify(gateway quire.NodeID, b []byte) (ticket.Grant, error) {
	refused := func(err error) error {
		return &quire.Error{Kind: quire.KindForbidden, Message: "The node refused the grant.", Err: err}
	}
	g, err := c.c.Verifier.Grant(b)
	if err != nil {
		return g, refused(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case g.Gateway != gateway:
		return g, refused(errors.New("it was given to another gateway"))
	case g.Node != c.c.Node:
		return g, refused(errors.New("it is for another node"))
	case slices.ContainsFunc(c.feed.revocations, g.Revoked):
		return g, refused(errors.New("it was revoked"))
	}
	if err := g.Good(c.c.Now(), c.feed.heard); err != nil {
		return g, refused(err)
	}
	return g, nil
}

// Open connects to a session for the bearer of a grant that came through
// gateway. The connection closes by itself when the grant's lease ends.
func (c *Compute) Open(ctx context.Context, gateway quire.NodeID, id quire.SessionID, grant []byte) (net.Conn, error) {
	g, err := c.verify(gateway, grant)
	if err != nil {
		return nil, err
	}
	s := c.find(id)
	if s == nil {
		return nil, quire.NotFound("session")
	}
	r := c.is(s)
	switch {
	case r.User != g.User || r.Project != g.Project:
		return nil, quire.NotFound("session")
	case !g.Role.AtLeast(r.MinRole):
		return nil, quire.Forbidden("Your role in the project does not allow this app.")
	case !r.State.Live():
		return nil, quire.Unavailable("The session has ended.", nil)
	}
	conn, err := dialSession(ctx, filepath.Join(c.c.RunDir, "s"), string(id), r.UID)
	if err != nil {
		return nil, quire.Unavailable("The app does not answer.", err)
	}
	return c.enlist(gateway, g, &stream{UnixConn: conn, session: id})
}

// enlist puts a stream under its lease, unless the right was lost meanwhile.
func (c *Compute) enlist(gateway quire.NodeID, g ticket.Grant, s *stream) (net.Conn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ctx.Err() != nil || c.feed.removed || slices.ContainsFunc(c.feed.revocations, g.Revoked) {
		s.UnixConn.Close()
		return nil, quire.Forbidden("The node refused the grant.")
	}
	l := c.renew(gateway, g)
	l.streams[s] = true
	s.done = func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(l.streams, s)
	}
	return s, nil
}

// Renew extends the lease of a grant's subject.
func (c *Compute) Renew(_ context.Context, gateway quire.NodeID, grant []byte) error {
	g, err := c.verify(gateway, grant)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.leases[leaseKey{gateway, g.Subject()}] != nil {
		c.renew(gateway, g)
	}
	return nil
}

// renew finds or makes the lease and keeps the newer grant. c.mu is held.
func (c *Compute) renew(gateway quire.NodeID, g ticket.Grant) *lease {
	key := leaseKey{gateway, g.Subject()}
	l := c.leases[key]
	if l == nil {
		l = &lease{key: key, grant: g, streams: map[*stream]bool{}}
		c.leases[key] = l
	}
	if l.timer == nil || g.Expires.After(l.grant.Expires) {
		l.grant = g
		c.setTimer(l, g.Expires)
	}
	return l
}

func (c *Compute) setTimer(l *lease, at time.Time) {
	if l.timer != nil {
		l.timer.Stop()
	}
	l.timer = time.AfterFunc(at.Sub(c.c.Now())+time.Millisecond, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.check(l)
	})
}

// check ends a lease whose grant is no longer good. c.mu is held.
func (c *Compute) check(l *lease) {
	if c.leases[l.key] != l {
		return
	}
	now := c.c.Now()
	switch err := l.grant.Good(now, c.feed.heard); {
	case err == nil && now.Before(l.grant.Expires):
		c.setTimer(l, l.grant.Expires)
	case err == nil: // in its grace: the server is silent
		c.setTimer(l, l.grant.Grace)
	case now.Before(c.feed.settling) && now.Before(l.grant.Grace):
		c.setTimer(l, c.feed.settling)
	default:
		l.end()
		delete(c.leases, l.key)
	}
}

// checkLeases looks at all of them, some time after a silence has ended.
func (c *Compute) checkLeases() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range c.leases {
		c.check(l)
	}
}

// closeStreams closes the streams of a session that has ended.
func (c *Compute) closeStreams(id quire.SessionID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range c.leases {
		for s := range l.streams {
			if s.session == id {
				s.UnixConn.Close()
				delete(l.streams, s)
			}
		}
	}
}

// dialSession connects to a session's socket and to nothing else that its user
// might have put in its place: the directory and the socket are opened without
// following links, and the kernel names the account that listens.
func dialSession(ctx context.Context, parent, name string, uid uint32) (*net.UnixConn, error) {
	d, err := openDir(parent, name, uid)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	fd, err := unix.Openat(int(d.f.Fd()), "app.sock", unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return nil, errors.New("app.sock is not a socket")
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", "/proc/self/fd/"+strconv.Itoa(fd))
	if err != nil {
		return nil, err
	}
	c := conn.(*net.UnixConn)
	peer, err := peerUID(c)
	if err == nil && peer != uid {
		err = errStranger
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func peerUID(c *net.UnixConn) (uint32, error) {
	r, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var inner error
	err = r.Control(func(fd uintptr) {
		cred, inner = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err := errors.Join(err, inner); err != nil {
		return 0, err
	}
	return cred.Uid, nil
}
