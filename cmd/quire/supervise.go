package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// supervisor runs the roles as processes of their own, each under its account,
// and starts again what dies. It holds the listeners, so nothing is refused
// while a role is restarted.
type supervisor struct {
	c       Config
	ports   ports
	runFile string
	roles   []*role
	sockets map[string]*os.File // of our own, that roles listen on
	admin   *adminClient
	quit    context.CancelFunc
	reload  func() error // the configuration, for roles that start
	control net.Listener
	wg      sync.WaitGroup
	began   time.Time
	self    atomic.Pointer[string] // the binary that roles are started from

	launching sync.RWMutex // to read: of who starts a process
	over      bool         // none is started any more
	mu        sync.Mutex
	running   map[*process]bool // what has not ended, also what finishes

	become chan successor
	all    upgrade
}

// A role is one child process.
type role struct {
	name  string
	as    account
	files []*os.File // fd 4, 5, … of the child; fd 3 is the line to us
	attr  syscall.SysProcAttr

	asked chan ask

	mu       sync.Mutex
	now      *process  // nil while it does not run
	since    time.Time // it does not
	restarts int
	last     string // why it ended last
	stopped  bool   // it is not to run
}

// An ask is what somebody wants of a role.
type ask struct {
	ctx  context.Context
	do   string // "start", "stop" or "restart"
	done chan error
}

// newSupervisor takes over what the one before has left; h is nil if there was none.
func newSupervisor(c Config, who people, p ports, runFile string, h *heritage) (*supervisor, error) {
	s := &supervisor{
		began: time.Now(), c: c, ports: p, runFile: runFile, admin: &adminClient{socket: filepath.Join(c.Dirs.Run, "admin.sock")},
		running: map[*process]bool{}, sockets: map[string]*os.File{}, become: make(chan successor, 1),
	}
	s.self.Store(&c.Local.Self)
	var failed error
	socket := func(name string, mode fs.FileMode, group *account) *os.File {
		f, err := h.file(name, func() (*os.File, error) { return unixListener(filepath.Join(c.Dirs.Run, name), mode, group) })
		s.sockets[name], failed = f, errors.Join(failed, err)
		return f
	}
	add := func(name string, as account, errs error, files ...*os.File) *role {
		r := &role{name: name, as: as, files: files, asked: make(chan ask)}
		s.roles = append(s.roles, r)
		if who.separate && name != "spawner" {
			r.attr.Credential = &syscall.Credential{Uid: as.UID, Gid: as.GID}
		}
		failed = errors.Join(failed, errs)
		return r
	}
	if c.has("compute") {
		network, err := os.Open("/proc/self/ns/net")
		spawner := add("spawner", account{UID: uint32(os.Getuid()), GID: uint32(os.Getgid())}, err, socket("spawner.sock", 0o660, &who.compute), network)
		if who.separate {
			// Root code gets a network of its own with nothing in it.
			spawner.attr.Cloneflags = syscall.CLONE_NEWNET
		}
		node, err := handOver(p.compute)
		add("compute", who.compute, err, node)
	}
	if c.has("gateway") {
		l, err := handOver(p.gateway)
		more, err2 := handOverMore(p.control)
		add("gateway", who.gateway, errors.Join(err, err2), append([]*os.File{l}, more...)...)
	}
	if c.has("worker") {
		add("worker", who.server, nil)
	}
	if c.has("server") {
		portal, err := handOver(p.portal)
		more, err2 := handOverMore(p.redirect)
		add("server", who.server, errors.Join(err, err2), append([]*os.File{portal, socket("admin.sock", 0o600, nil)}, more...)...)
	}
	if failed != nil {
		return nil, failed
	}
	control, err := h.file("up.sock", func() (*os.File, error) { return unixListener(filepath.Join(c.Dirs.Run, "up.sock"), 0o600, nil) })
	if err != nil {
		return nil, err
	}
	defer control.Close()
	if s.control, err = net.FileListener(control); err != nil {
		return nil, err
	}
	return s, nil
}

// listenUnix binds a socket, with the mode and group it is to have before
// anybody can connect.
func listenUnix(path string, mode fs.FileMode, group *account) (*net.UnixListener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	old := syscall.Umask(0o177)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	syscall.Umask(old)
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	if group != nil && int(group.GID) != os.Getgid() {
		if err := os.Lchown(path, -1, int(group.GID)); err != nil {
			return nil, err
		}
	}
	return l, os.Chmod(path, mode)
}

func unixListener(path string, mode fs.FileMode, group *account) (*os.File, error) {
	l, err := listenUnix(path, mode, group)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	return l.File()
}

// start runs every role until ctx ends, and the socket that "quire stop" uses.
func (s *supervisor) start(ctx context.Context) {
	for _, r := range s.roles {
		s.wg.Go(func() { s.keep(ctx, r) })
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /stop", func(w http.ResponseWriter, r *http.Request) { s.quit() })
	mux.HandleFunc("GET /roles", s.report)
	mux.HandleFunc("POST /roles/{role}/{do}", s.command)
	mux.HandleFunc("POST /upgrade", s.upgrade)
	mux.HandleFunc("GET /upgrade", s.upgraded)
	go (&http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}).Serve(s.control)
}

const (
	restartFirst = 100 * time.Millisecond
	restartMost  = 5 * time.Second
)

// keep runs one role until ctx ends; one that keeps dying is started ever more
// slowly.
func (s *supervisor) keep(ctx context.Context, r *role) {
	wait := restartFirst
	var due <-chan time.Time // when it is started again
	start := func() {
		due = nil
		p, err := s.launch(r)
		if err != nil {
			if ctx.Err() == nil {
				due = s.ended(r, err, &wait, 0)
			}
			return
		}
		p.say(sayBegin)
		r.is(p)
	}
	if r.process() == nil {
		start()
	}
	for {
		p := r.process()
		var ended chan struct{}
		if p != nil {
			ended = p.ended
		}
		select {
		case <-ctx.Done():
			return
		case <-ended:
			r.is(nil)
			if ctx.Err() == nil {
				due = s.ended(r, p.err, &wait, time.Since(p.since))
			}
		case <-due:
			start()
		case a := <-r.asked:
			var err error
			wait = restartFirst
			switch {
			case a.do == "stop":
				due = nil
				r.stop(p)
			case p == nil:
				start()
			case a.do == "restart":
				var next *process
				if next, err = s.replace(a.ctx, r, p); err == nil {
					r.is(next)
					r.count("")
				}
			}
			a.done <- err
		}
	}
}

// ended notes that a role has ended and says when it is started again.
func (s *supervisor) ended(r *role, err error, wait *time.Duration, ran time.Duration) <-chan time.Time {
	why := ""
	if err != nil {
		why = err.Error()
	}
	r.count(why)
	if ran > 10*time.Second {
		*wait = restartFirst
	}
	fmt.Fprintf(os.Stderr, "quire: the %s ended (%v); it is started again. Its log: %s\n", r.name, err, s.logFile(r))
	after := time.After(*wait)
	*wait = min(2**wait, restartMost)
	return after
}

func (r *role) process() *process {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.now
}

// is notes the process that runs the role now, nil for none.
func (r *role) is(p *process) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now, r.since = p, time.Now()
	if p != nil {
		r.stopped = false
	}
}

// count notes an end and why it was.
func (r *role) count(why string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.restarts, r.last = r.restarts+1, why
}

func (r *role) stop(p *process) {
	r.mu.Lock()
	r.stopped = true
	r.mu.Unlock()
	if p == nil {
		return
	}
	p.end(stopTime)
	r.is(nil)
	r.count("")
}

func (s *supervisor) logFile(r *role) string { return filepath.Join(s.c.Dirs.Logs, r.name+".log") }

const maxLog = 16 << 20

// stop ends the roles, the server first; sessions are not touched.
func (s *supervisor) stop() {
	s.launching.Lock()
	s.over = true
	s.launching.Unlock()
	for i := len(s.roles) - 1; i >= 0; i-- {
		if p := s.roles[i].process(); p != nil {
			p.Signal(syscall.SIGTERM)
		}
	}
	s.mu.Lock()
	all := slices.Collect(maps.Keys(s.running))
	s.mu.Unlock()
	for _, p := range all { // those that were finishing too
		s.wg.Go(func() { p.end(stopTime) })
	}
	s.wg.Wait()
	s.control.Close()
}

// sessions asks the server how many sessions run.
func (s *supervisor) sessions() int {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	var n struct{ Sessions int }
	if err := s.admin.call(ctx, "GET", "/sessions", nil, &n); err != nil {
		return 0
	}
	return n.Sessions
}
