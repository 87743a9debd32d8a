package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"time"
)

// What the supervisor and a role say to each other, one word a line. A role that
// takes another's place begins when that one has let go of what only one may
// hold; the listeners, which both have, queue whoever comes in between.
const (
	sayReady    = "ready"    // the role: nothing is missing, I can begin
	sayBegin    = "begin"    // the supervisor: it is yours
	sayDrain    = "drain"    // the supervisor: another one is ready; take nothing new
	sayReleased = "released" // the role: it is not mine any more; I finish what is under way
)

// A turn is a role's end of the line to the supervisor.
type turn struct {
	conn    io.ReadWriteCloser
	begun   chan struct{}
	drain   chan struct{} // closed when another one takes our place
	let     sync.Once
	running context.Context
}

// takeTurn is for a role that has just started. gone is called when the
// supervisor has ended, however that came about.
func takeTurn(ctx context.Context, conn io.ReadWriteCloser, gone func()) *turn {
	t := &turn{conn: conn, begun: make(chan struct{}), drain: make(chan struct{}), running: ctx}
	go func() {
		defer gone()
		for words := bufio.NewScanner(conn); words.Scan(); {
			switch words.Text() {
			case sayBegin:
				once(t.begun)
			case sayDrain:
				once(t.drain)
			}
		}
	}()
	return t
}

// once closes a channel that only the caller closes.
func once(c chan struct{}) {
	select {
	case <-c:
	default:
		close(c)
	}
}

// begin says that nothing is missing any more, and waits for the turn.
func (t *turn) begin() error {
	if _, err := io.WriteString(t.conn, sayReady+"\n"); err != nil {
		return err
	}
	select {
	case <-t.begun:
		return nil
	case <-t.running.Done():
		return t.running.Err()
	}
}

// serving ends when the role is to take nothing new: another one takes its
// place, or it is stopped.
func (t *turn) serving() context.Context {
	ctx, cancel := context.WithCancel(t.running)
	go func() {
		defer cancel()
		select {
		case <-t.drain:
		case <-ctx.Done():
		}
	}()
	return ctx
}

// drained reports whether another one takes our place.
func (t *turn) drained() bool {
	select {
	case <-t.drain:
		return true
	default:
		return false
	}
}

// released says that the next one may begin. A role that ends has said it too.
func (t *turn) released() {
	t.let.Do(func() { io.WriteString(t.conn, sayReleased+"\n") })
}

// inheritedLine is the line on a descriptor that we were started with.
func inheritedLine(fd uintptr) (net.Conn, error) {
	f := os.NewFile(fd, "line")
	if f == nil {
		return nil, errors.New("there is no line to the supervisor")
	}
	defer f.Close()
	return net.FileConn(f)
}

// answering are the connections of a server on which something is asked, or about
// to be. net/http's Shutdown drops a request that it has not read yet, so what
// has been let in is answered first.
type answering struct {
	mu    sync.Mutex
	conns map[net.Conn]time.Time // until when it may ask; zero: it has asked
}

const (
	finishTime = 3 * time.Second        // for requests that are under way when a role ends
	askTime    = 500 * time.Millisecond // for the first request on a connection; browsers also open some for later
)

func (a *answering) state(c net.Conn, s http.ConnState) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch s {
	case http.StateNew:
		a.conns[c] = time.Now().Add(askTime)
	case http.StateActive:
		a.conns[c] = time.Time{}
	default:
		delete(a.conns, c)
	}
}

func (a *answering) waits() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, until := range a.conns {
		if until.IsZero() || time.Now().Before(until) {
			return true
		}
	}
	return false
}

// serve has s take what comes until ctx ends, and answer what came. It returns
// when nothing is answered any more.
func serve(ctx context.Context, s *http.Server, l net.Listener) error {
	a := answering{conns: map[net.Conn]time.Time{}}
	before := s.ConnState
	s.ConnState = func(c net.Conn, now http.ConnState) {
		a.state(c, now)
		if before != nil {
			before(c, now)
		}
	}
	// When Serve has returned, a knows of every connection that was taken.
	defer context.AfterFunc(ctx, func() { l.Close() })()
	var err error
	if s.TLSConfig != nil {
		err = s.ServeTLS(l, "", "")
	} else {
		err = s.Serve(l)
	}
	end, stop := context.WithTimeout(context.WithoutCancel(ctx), finishTime)
	defer stop()
	t := time.NewTicker(5 * time.Millisecond)
	defer t.Stop()
	for a.waits() && end.Err() == nil {
		s.SetKeepAlivesEnabled(false) // ends those that are idle
		<-t.C
	}
	if s.Shutdown(end) != nil {
		s.Close()
	}
	return err
}
