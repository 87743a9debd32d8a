package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The supervisor is replaced by itself: it becomes the program that is on disk
// now, in the same process, with its listeners and its children. Then each role is
// replaced in turn. Nothing that comes in is refused meanwhile, and for systemd
// nothing has happened.

// inheritVar names the descriptor in which the supervisor that we were has
// written down what it leaves us.
const inheritVar = "QUIRE_INHERIT"

// A heritage is what one supervisor leaves the next: descriptors by name, and the
// processes.
type heritage struct {
	Files   map[string]int `json:"files"`
	Began   time.Time      `json:"began"`
	Roles   []leftRole     `json:"roles"`
	Leaving []leftProcess  `json:"leaving"` // that finish what is under way
	opened  map[string]*os.File
}

type leftProcess struct {
	PID   int       `json:"pid"`
	Line  int       `json:"line"`
	Since time.Time `json:"since"`
}

type leftRole struct {
	Name     string       `json:"name"`
	Process  *leftProcess `json:"process,omitempty"`
	Restarts int          `json:"restarts"`
	Last     string       `json:"last,omitempty"`
	Stopped  bool         `json:"stopped,omitempty"`
}

// inherit reads what a supervisor before us has left, nil if there was none.
func inherit() (*heritage, error) {
	text := os.Getenv(inheritVar)
	if text == "" {
		return nil, nil
	}
	os.Unsetenv(inheritVar)
	fd, err := strconv.Atoi(text)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "heritage")
	defer f.Close()
	h := &heritage{opened: map[string]*os.File{}}
	if err := json.NewDecoder(f).Decode(h); err != nil {
		return nil, fmt.Errorf("what the supervisor before has left cannot be read: %w", err)
	}
	for name, fd := range h.Files {
		syscall.CloseOnExec(fd)
		h.opened[name] = os.NewFile(uintptr(fd), name)
	}
	return h, nil
}

// file is one that was left to us under this name, otherwise a new one.
func (h *heritage) file(name string, make func() (*os.File, error)) (*os.File, error) {
	if h != nil && h.opened[name] != nil {
		return h.opened[name], nil
	}
	return make()
}

// ports are the listeners that were left to us.
func (h *heritage) ports() (p ports, err error) {
	for name, into := range p.named() {
		f := h.opened[name]
		if f == nil {
			continue
		}
		l, e := net.FileListener(f)
		f.Close()
		if e != nil {
			return p, e
		}
		*into = l
	}
	return p, nil
}

// named are the listeners by the names under which they are left.
func (p *ports) named() map[string]*net.Listener {
	return map[string]*net.Listener{"portal": &p.portal, "gateway": &p.gateway, "compute": &p.compute, "control": &p.control, "redirect": &p.redirect}
}

// adopt takes over the processes of the supervisor that we were.
func (s *supervisor) adopt(h *heritage) error {
	take := func(l leftProcess) (*process, error) {
		syscall.CloseOnExec(l.Line)
		f := os.NewFile(uintptr(l.Line), "line")
		defer f.Close()
		conn, err := net.FileConn(f)
		if err != nil {
			return nil, err
		}
		line, ok := conn.(*net.UnixConn)
		if !ok {
			return nil, errors.New("the line to a role is none")
		}
		p, err := os.FindProcess(l.PID)
		if err != nil {
			return nil, err
		}
		mine := newProcess(p, line, l.Since)
		s.follow(mine)
		return mine, nil
	}
	s.began = h.Began
	for _, l := range h.Leaving {
		p, err := take(l)
		if err != nil {
			return err
		}
		s.wg.Go(func() { p.within(drainTime) })
	}
	for _, l := range h.Roles {
		var p *process
		if l.Process != nil {
			var err error
			if p, err = take(*l.Process); err != nil {
				return err
			}
		}
		known := false
		for _, r := range s.roles {
			if r.name == l.Name {
				known = true
				r.now, r.restarts, r.last, r.stopped = p, l.Restarts, l.Last, l.Stopped
			}
		}
		if !known && p != nil { // a role that there is no more
			s.wg.Go(func() { p.end(stopTime) })
		}
	}
	return nil
}

// An upgrade is all roles being replaced, one after the other.
type upgrade struct {
	mu   sync.Mutex
	done chan struct{} // closed when all are; nil before the first
	err  error
}

func (u *upgrade) begin() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.done = make(chan struct{})
}

func (u *upgrade) end(err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.err = err
	close(u.done)
}

// replaceAll replaces every role that runs: those first that the others ask.
func (s *supervisor) replaceAll(ctx context.Context) {
	var failed []error
	for _, r := range s.roles {
		if r.process() == nil {
			continue // stopped, or about to be started anyway
		}
		if err := r.do(ctx, "restart"); err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", r.name, err))
		}
	}
	s.all.end(errors.Join(failed...))
}

// upgraded answers when the supervisor has become another and all roles are
// replaced.
func (s *supervisor) upgraded(w http.ResponseWriter, r *http.Request) {
	s.all.mu.Lock()
	done := s.all.done
	s.all.mu.Unlock()
	if done == nil {
		http.Error(w, "nothing is being replaced", http.StatusNotFound)
		return
	}
	select {
	case <-done:
	case <-r.Context().Done():
		return
	}
	s.all.mu.Lock()
	defer s.all.mu.Unlock()
	if s.all.err != nil {
		http.Error(w, s.all.err.Error(), http.StatusConflict)
	}
}

// A successor is the program that is to take the supervisor's place.
type successor struct {
	self string
	told chan struct{} // closed when whoever asked for it knows
}

// upgrade tries out the program on disk and becomes it.
func (s *supervisor) upgrade(w http.ResponseWriter, r *http.Request) {
	if err := s.reload(); err != nil {
		http.Error(w, "nothing was done, because of the configuration: "+err.Error(), http.StatusConflict)
		return
	}
	self, err := os.Executable()
	if err == nil {
		err = tryOut(r.Context(), self)
	}
	if err != nil {
		http.Error(w, "nothing was done: "+err.Error(), http.StatusConflict)
		return
	}
	next := successor{self: self, told: make(chan struct{})}
	defer close(next.told)
	select {
	case s.become <- next:
		s.all.begin()
	default:
		http.Error(w, "it is being replaced already", http.StatusConflict)
		return
	}
	w.Header().Set("Content-Length", "0") // so that the answer is whole before we are gone
	w.WriteHeader(http.StatusOK)
	http.NewResponseController(w).Flush()
}

// tryOut has a program read what it will have to read as our successor. There is
// no way back from a successor that does not start.
func tryOut(ctx context.Context, self string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, self, append([]string{"up", "--try"}, os.Args[2:]...)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("the program on disk does not start: %w: %s", err, strings.TrimSpace(string(out[:min(len(out), 2000)])))
	}
	return nil
}

// succeed becomes the program. It returns only when that fails, and everything is
// as it was.
func (s *supervisor) succeed(self string, lock *os.File) error {
	s.launching.Lock() // no process is started that nobody would know of
	defer s.launching.Unlock()
	h := heritage{Files: map[string]int{}, Began: s.began}
	var kept []int
	keep := func(c interface {
		SyscallConn() (syscall.RawConn, error)
	}) (fd int, err error) {
		raw, err := c.SyscallConn()
		if err != nil {
			return 0, err
		}
		var dupErr error
		if err := raw.Control(func(old uintptr) { fd, dupErr = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 3) }); err != nil || dupErr != nil {
			return 0, errors.Join(err, dupErr)
		}
		kept = append(kept, fd)
		return fd, nil
	}
	defer func() {
		for _, fd := range kept {
			unix.Close(fd)
		}
	}()
	var failed error
	leave := func(name string, c any) {
		sc, ok := c.(interface {
			SyscallConn() (syscall.RawConn, error)
		})
		if !ok {
			failed = errors.Join(failed, fmt.Errorf("%s cannot be handed on", name))
			return
		}
		fd, err := keep(sc)
		h.Files[name], failed = fd, errors.Join(failed, err)
	}
	for name, l := range s.ports.named() {
		if *l != nil {
			leave(name, *l)
		}
	}
	for name, f := range s.sockets {
		leave(name, f)
	}
	leave("lock", lock)
	leave("up.sock", s.control)
	left := func(p *process) leftProcess {
		fd, err := keep(p.line)
		failed = errors.Join(failed, err)
		return leftProcess{PID: p.Pid, Line: fd, Since: p.since}
	}
	s.mu.Lock()
	finishing := map[*process]bool{}
	for p := range s.running {
		finishing[p] = true
	}
	s.mu.Unlock()
	for _, r := range s.roles {
		r.mu.Lock()
		l := leftRole{Name: r.name, Restarts: r.restarts, Last: r.last, Stopped: r.stopped}
		if r.now != nil && !r.now.gone() {
			p := left(r.now)
			l.Process = &p
			delete(finishing, r.now)
		}
		r.mu.Unlock()
		h.Roles = append(h.Roles, l)
	}
	for p := range finishing {
		h.Leaving = append(h.Leaving, left(p))
	}
	if failed != nil {
		return failed
	}
	will, err := unix.MemfdCreate("quire-heritage", unix.MFD_CLOEXEC)
	if err != nil {
		return err
	}
	kept = append(kept, will)
	b, err := json.Marshal(h)
	if err != nil {
		return err
	}
	if _, err := unix.Pwrite(will, b, 0); err != nil {
		return err
	}
	for _, fd := range kept {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); err != nil {
			return err
		}
	}
	return syscall.Exec(self, append([]string{os.Args[0]}, os.Args[1:]...), append(os.Environ(), fmt.Sprintf("%s=%d", inheritVar, will)))
}

// upgradeAll is what "quire restart all" does: it waits until the supervisor is
// another and every role has been replaced.
func upgradeAll(ctx context.Context, up *adminClient) error {
	if err := up.call(ctx, "POST", "/upgrade", nil, nil); err != nil {
		return err
	}
	for {
		err := up.call(ctx, "GET", "/upgrade", nil, nil)
		if !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}
