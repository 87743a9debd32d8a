package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"syscall"
	"time"
)

const (
	readyTime   = 2 * time.Minute  // for a new process to say that it could begin
	releaseTime = 20 * time.Second // for the old one to let go
	drainTime   = 30 * time.Second // for what is under way in the old one
	stopTime    = 10 * time.Second // for one that is stopped
)

// A process is one that runs a role, or did.
type process struct {
	*os.Process
	line            *net.UnixConn
	since           time.Time
	ready, released chan struct{} // closed when it has said so
	ended           chan struct{} // closed when it has, because of err
	err             error
}

func newProcess(p *os.Process, line *net.UnixConn, since time.Time) *process {
	return &process{Process: p, line: line, since: since, ready: make(chan struct{}), released: make(chan struct{}), ended: make(chan struct{})}
}

// watch follows a process until it has ended. What it says is believed as far as
// it goes: it can only let itself be replaced.
func (p *process) watch() {
	go func() {
		words := bufio.NewScanner(p.line)
		words.Buffer(nil, 64)
		for words.Scan() {
			switch words.Text() {
			case sayReady:
				once(p.ready)
			case sayReleased:
				once(p.released)
			}
		}
	}()
	go func() {
		state, err := p.Wait()
		if err == nil && !state.Success() {
			err = &exec.ExitError{ProcessState: state}
		}
		p.err = err
		p.line.Close()
		close(p.ended)
	}()
}

func (p *process) say(word string) { io.WriteString(p.line, word+"\n") }

// gone reports whether it has ended.
func (p *process) gone() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// end asks the process to end, and ends it for good after a while.
func (p *process) end(limit time.Duration) {
	p.Signal(syscall.SIGTERM)
	p.within(limit)
}

// within waits for the process to end, and kills it when it takes too long.
func (p *process) within(limit time.Duration) {
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-p.ended:
		return
	case <-t.C:
	}
	p.Kill()
	<-p.ended
}

// launch starts a process for the role. It takes nothing up before it is told.
func (s *supervisor) launch(r *role) (*process, error) {
	s.launching.RLock()
	defer s.launching.RUnlock()
	if s.over {
		return nil, errStopping
	}
	file := s.logFile(r)
	if info, err := os.Stat(file); err == nil && info.Size() > maxLog {
		if err := os.Rename(file, file+".1"); err != nil {
			return nil, err
		}
	}
	log, err := os.OpenFile(file, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o640)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	ours, theirs, err := newLine()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	cmd := exec.Command(*s.self.Load(), r.name, "-c", s.runFile)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"}
	if home, err := os.UserHomeDir(); err == nil && !s.c.Local.Separate {
		cmd.Env = append(cmd.Env, "HOME="+home)
	}
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = append([]*os.File{theirs}, r.files...)
	attr := r.attr
	attr.Setpgid = true // Ctrl-C is for us; we stop the roles in order
	cmd.SysProcAttr = &attr
	if err := cmd.Start(); err != nil {
		ours.Close()
		return nil, err
	}
	p := newProcess(cmd.Process, ours, time.Now())
	s.follow(p)
	return p, nil
}

// follow watches a process, and knows of it until it has ended.
func (s *supervisor) follow(p *process) {
	s.mu.Lock()
	s.running[p] = true
	s.mu.Unlock()
	p.watch()
	s.wg.Go(func() {
		<-p.ended
		s.mu.Lock()
		delete(s.running, p)
		s.mu.Unlock()
	})
}

// newLine is a pair of connected sockets: ours, and what a process is started with.
func newLine() (*net.UnixConn, *os.File, error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "line"), os.NewFile(uintptr(fds[1]), "line")
	defer ours.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return conn.(*net.UnixConn), theirs, nil
}

// replace puts a new process in the place of a running one. Until the new one
// has said that it could begin, the old one works as before; if that never
// comes, it goes on.
func (s *supervisor) replace(ctx context.Context, r *role, old *process) (*process, error) {
	goesOn := func(why any) error {
		return fmt.Errorf("the new process %v; the old one goes on. Its log: %s", why, s.logFile(r))
	}
	next, err := s.launch(r)
	if err != nil {
		return nil, goesOn(fmt.Sprintf("did not start (%v)", err))
	}
	late := time.NewTimer(readyTime)
	defer late.Stop()
	select {
	case <-next.ready:
	case <-old.ended: // nothing to wait for
	case <-next.ended:
		return nil, goesOn(fmt.Sprintf("ended before it was ready (%v)", next.err))
	case <-late.C:
		err = goesOn("was not ready in time")
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		next.Kill()
		return nil, err
	}
	old.say(sayDrain)
	late.Reset(releaseTime)
	select {
	case <-old.released:
	case <-old.ended:
	case <-late.C:
		old.Kill()
		<-old.ended
	}
	next.say(sayBegin)
	s.wg.Go(func() { old.within(drainTime) })
	return next, nil
}

var errStopping = errors.New("the supervisor is stopping")
