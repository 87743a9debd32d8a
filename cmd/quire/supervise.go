package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
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
	admin   *adminClient
	quit    context.CancelFunc
	reload  func() error // the configuration, for roles that start
	control net.Listener
	wg      sync.WaitGroup
	began   time.Time
	life    *os.File // its closing tells the roles that we are gone
}

// A role is one child process.
type role struct {
	name  string
	as    account
	files []*os.File // fd 4, 5, … of the child; fd 3 is the life line
	attr  syscall.SysProcAttr

	wake chan struct{} // something has been asked of it

	mu       sync.Mutex
	cmd      *exec.Cmd // nil while it does not run
	since    time.Time
	restarts int
	last     string // why it ended last
	stopped  bool   // it is not to run
}

func newSupervisor(c Config, who people, p ports, runFile string) (*supervisor, error) {
	s := &supervisor{began: time.Now(), c: c, ports: p, runFile: runFile, admin: &adminClient{socket: filepath.Join(c.Dirs.Run, "admin.sock")}}
	var failed error
	add := func(name string, as account, errs error, files ...*os.File) *role {
		r := &role{name: name, as: as, files: files, wake: make(chan struct{}, 1)}
		s.roles = append(s.roles, r)
		if who.separate && name != "spawner" {
			r.attr.Credential = &syscall.Credential{Uid: as.UID, Gid: as.GID}
		}
		failed = errors.Join(failed, errs)
		return r
	}
	if c.has("compute") {
		spawn, err1 := unixListener(filepath.Join(c.Dirs.Run, "spawner.sock"), 0o660, &who.compute)
		network, err2 := os.Open("/proc/self/ns/net")
		spawner := add("spawner", account{UID: uint32(os.Getuid()), GID: uint32(os.Getgid())}, errors.Join(err1, err2), spawn, network)
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
		portal, err1 := handOver(p.portal)
		admin, err2 := unixListener(s.admin.socket, 0o600, nil)
		more, err3 := handOverMore(p.redirect)
		add("server", who.server, errors.Join(err1, err2, err3), append([]*os.File{portal, admin}, more...)...)
	}
	if failed != nil {
		return nil, failed
	}
	var err error
	if s.control, err = listenUnix(filepath.Join(c.Dirs.Run, "up.sock"), 0o600, nil); err != nil {
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
	read, write, err := os.Pipe()
	if err != nil {
		fmt.Fprintln(os.Stderr, "quire:", err)
		s.quit()
		return
	}
	s.life = write
	for _, r := range s.roles {
		s.wg.Go(func() { s.keep(ctx, r, read) })
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /stop", func(w http.ResponseWriter, r *http.Request) { s.quit() })
	mux.HandleFunc("GET /roles", s.report)
	mux.HandleFunc("POST /roles/{role}/{do}", s.command)
	go (&http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}).Serve(s.control)
}

const (
	restartFirst = 100 * time.Millisecond
	restartMost  = 5 * time.Second
)

// keep runs one role again and again; a role that keeps dying is started ever
// more slowly.
func (s *supervisor) keep(ctx context.Context, r *role, life *os.File) {
	wait := restartFirst
	for ctx.Err() == nil {
		r.mu.Lock()
		stopped := r.stopped
		r.mu.Unlock()
		if stopped {
			select {
			case <-ctx.Done():
			case <-r.wake:
			}
			continue
		}
		began := time.Now()
		err := s.once(r, life)
		if ctx.Err() != nil {
			return
		}
		r.mu.Lock()
		r.cmd, r.since, r.last = nil, time.Now(), fmt.Sprint(err)
		if err == nil {
			r.last = "" // as it was asked to
		}
		r.restarts++
		r.mu.Unlock()
		if err == nil {
			select {
			case <-r.wake: // and by whom it was asked
				wait = restartFirst
				continue
			default:
			}
		}
		if time.Since(began) > 10*time.Second {
			wait = restartFirst
		}
		fmt.Fprintf(os.Stderr, "quire: the %s ended (%v); it is started again. Its log: %s\n", r.name, err, s.logFile(r))
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-r.wake:
		case <-t.C:
		}
		t.Stop()
		wait = min(2*wait, restartMost)
	}
}

func (s *supervisor) logFile(r *role) string { return filepath.Join(s.c.Dirs.Logs, r.name+".log") }

const maxLog = 16 << 20

func (s *supervisor) once(r *role, life *os.File) error {
	file := s.logFile(r)
	if info, err := os.Stat(file); err == nil && info.Size() > maxLog {
		if err := os.Rename(file, file+".1"); err != nil {
			return err
		}
	}
	log, err := os.OpenFile(file, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o640)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(s.c.Local.Self, r.name, "-c", s.runFile)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"}
	if home, err := os.UserHomeDir(); err == nil && !s.c.Local.Separate {
		cmd.Env = append(cmd.Env, "HOME="+home)
	}
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = append([]*os.File{life}, r.files...)
	attr := r.attr
	attr.Setpgid = true // Ctrl-C is for us; we stop the roles in order
	cmd.SysProcAttr = &attr
	if err := cmd.Start(); err != nil {
		return err
	}
	r.mu.Lock()
	r.cmd, r.since = cmd, time.Now()
	r.mu.Unlock()
	return cmd.Wait()
}

// stop ends the roles, the server first; sessions are not touched.
func (s *supervisor) stop() {
	for i := len(s.roles) - 1; i >= 0; i-- {
		r := s.roles[i]
		r.mu.Lock()
		if r.cmd != nil && r.cmd.Process != nil {
			r.cmd.Process.Signal(syscall.SIGTERM)
		}
		r.mu.Unlock()
	}
	done := make(chan struct{})
	go func() { s.wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		for _, r := range s.roles {
			r.mu.Lock()
			if r.cmd != nil && r.cmd.Process != nil {
				r.cmd.Process.Kill()
			}
			r.mu.Unlock()
		}
		<-done
	}
	s.life.Close()
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
