package terminal

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"quire"
	"quire/apps"
)

const (
	keptOutput = 1 << 20  // bytes of scrollback of one shell
	maxInput   = 16 << 20 // bytes of input a program has not read yet
	maxPiece   = 16 << 10 // bytes written to the pty at once
)

// A size is a terminal's, in characters.
type size struct{ cols, rows int }

// clamp keeps a size within what programs can bear.
func (s size) clamp() size {
	return size{cols: min(max(s.cols, 2), 1000), rows: min(max(s.rows, 1), 500)}
}

// ended says how a shell's process ended.
type ended struct {
	Code   int       `json:"code"`
	Signal string    `json:"signal,omitempty"`
	At     time.Time `json:"at"`
}

// A shell is one tab: a scrollback, the visitors who look at it, and the
// process that runs in it now or ran last. It lives until it is closed; its
// visitors come and go.
type shell struct {
	id   string
	how  Command
	log  *slog.Logger
	tell func() // the list of shells has something new

	mu       sync.Mutex
	name     string
	out      scrollback
	size     size
	visitors map[*visitor]bool
	driver   *visitor // whose window gives the size
	arrivals int
	run      *run
	ended    *ended // nil while the process lives
	closed   bool
}

// Command is how a shell's process is started.
type Command struct {
	Path string   // the shell
	Dir  string   // where it begins
	Env  []string // its whole environment
}

// A run is one process with its pty.
type run struct {
	process *os.Process
	pty     *os.File
	drained chan struct{} // the pty has no more output
	over    chan struct{} // the process has ended and its status is known

	input      *sync.Cond // on the shell's mu
	pending    [][]byte
	waiting    int       // bytes of pending, and of the piece being written
	moved      time.Time // when input last moved on
	generation int       // goes up when pending input is thrown away
	reaped     bool
	finished   bool
}

// start runs the shell's process. Errors are for people.
func (s *shell) start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return quire.NotFound("shell")
	}
	if s.run != nil && s.ended == nil {
		return quire.Conflict("", "This shell is running.")
	}
	cmd := &exec.Cmd{Path: s.how.Path, Args: []string{filepath.Base(s.how.Path)}, Dir: s.how.Dir, Env: s.how.Env}
	file, err := apps.StartOnPty(cmd, s.size.cols, s.size.rows)
	if err != nil {
		return err
	}
	if s.ended != nil {
		s.out.write([]byte((&scanner{}).restore() + "\r\n\x1b[2m── started again ──\x1b[0m\r\n"))
	}
	r := &run{process: cmd.Process, pty: file, drained: make(chan struct{}), over: make(chan struct{}), input: sync.NewCond(&s.mu)}
	s.run, s.ended = r, nil
	go s.drain(r)
	go s.feed(r)
	go s.wait(r, cmd)
	s.wake()
	return nil
}

// control runs an ioctl on the pty.
func (r *run) control(do func(fd int) error) error {
	raw, err := r.pty.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if err := raw.Control(func(fd uintptr) { inner = do(int(fd)) }); err != nil {
		return err
	}
	return inner
}

// drain carries the pty's output into the scrollback. It never waits for a
// visitor: whoever is too slow finds that part gone and is told so.
func (s *shell) drain(r *run) {
	defer close(r.drained)
	buf := make([]byte, 32<<10)
	for {
		n, err := r.pty.Read(buf)
		if n > 0 {
			s.mu.Lock()
			s.out.write(buf[:n])
			s.wake()
			s.mu.Unlock()
		}
		if err != nil {
			return
		}
	}
}

// wait records how the process ended, after its last output.
func (s *shell) wait(r *run, cmd *exec.Cmd) {
	// Until it is reaped, its number is its own and may be signaled.
	for {
		err := unix.Waitid(unix.P_PID, r.process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	s.mu.Lock()
	r.reaped = true
	cmd.Wait() // the state says how it went
	s.mu.Unlock()
	select {
	case <-r.drained:
	case <-time.After(time.Second): // something else still holds the terminal
	}
	r.pty.Close()
	<-r.drained
	e := &ended{Code: cmd.ProcessState.ExitCode(), At: time.Now().UTC()}
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		e.Code, e.Signal = 128+int(status.Signal()), status.Signal().String()
	}
	s.mu.Lock()
	s.ended = e
	r.finished, r.pending, r.waiting = true, nil, 0
	r.input.Broadcast()
	s.wake()
	s.mu.Unlock()
	close(r.over)
	s.tell()
}

// feed carries queued input to the pty, for as long as the program takes it.
func (s *shell) feed(r *run) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		for len(r.pending) == 0 && !r.finished {
			r.input.Wait()
		}
		if r.finished {
			return
		}
		piece, generation := r.pending[0], r.generation
		r.pending = r.pending[1:]
		for len(piece) > 0 && r.generation == generation && !r.finished {
			r.moved = time.Now()
			s.mu.Unlock()
			n, err := r.pty.Write(piece[:min(len(piece), maxPiece)])
			s.mu.Lock()
			piece = piece[n:]
			if r.generation == generation {
				r.waiting -= n
			}
			if errors.Is(err, os.ErrDeadlineExceeded) {
				r.pty.SetWriteDeadline(time.Time{})
			} else if err != nil {
				return // the terminal is gone; wait says the rest
			}
		}
	}
}

// enter queues what a visitor typed and makes him the one whose window counts.
func (s *shell) enter(v *visitor, p []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.run
	if r == nil || s.ended != nil || len(p) == 0 {
		return nil
	}
	s.drive(v)
	if len(p) == 1 && r.stuck() && r.interrupted(p[0]) {
		return nil
	}
	if r.waiting+len(p) > maxInput {
		return quire.Invalid("", fmt.Sprintf("The program has %d MB of input waiting and reads none of it, so the rest was thrown away.", maxInput>>20))
	}
	r.pending = append(r.pending, p)
	r.waiting += len(p)
	r.input.Signal()
	return nil
}

// stuck reports whether the program has left input lying about for so long that
// a key typed now would wait too.
func (r *run) stuck() bool {
	return r.waiting > maxPiece || r.waiting > 0 && time.Since(r.moved) > 100*time.Millisecond
}

// interrupted handles a key that sends a signal while older input still waits:
// the key must not stand in line behind the paste it is meant to end. It
// reports false when the terminal takes the key as an ordinary one.
func (r *run) interrupted(key byte) bool {
	var signal syscall.Signal
	err := r.control(func(fd int) error {
		t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
		if err != nil || t.Lflag&unix.ISIG == 0 {
			return err
		}
		switch key {
		case t.Cc[unix.VINTR]:
			signal = unix.SIGINT
		case t.Cc[unix.VQUIT]:
			signal = unix.SIGQUIT
		}
		return nil
	})
	if err != nil || signal == 0 {
		return false
	}
	r.pending, r.waiting = nil, 0
	r.generation++
	r.pty.SetWriteDeadline(time.Unix(1, 0)) // feed puts it back
	err = r.control(func(fd int) error {
		// What the kernel holds for the program goes too, or the next program
		// would take it for commands: first what is on its way, then what has
		// arrived. The latter can be asked of the other end only.
		if err := unix.IoctlSetInt(fd, unix.TCFLSH, unix.TCOFLUSH); err != nil {
			return err
		}
		other, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
		if errno == 0 {
			err := unix.IoctlSetInt(int(other), unix.TCFLSH, unix.TCIFLUSH)
			unix.Close(int(other))
			if err != nil {
				return err
			}
		}
		return unix.IoctlSetInt(fd, unix.TIOCSIG, int(signal))
	})
	return err == nil
}

// resize notes a visitor's window. It becomes the terminal's size if the
// visitor drives or claims to; otherwise he sees the driver's.
func (s *shell) resize(v *visitor, want size, claim bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v.size = want.clamp()
	if claim || s.driver == nil || s.driver == v {
		s.drive(v)
	}
}

func (s *shell) drive(v *visitor) {
	changed := s.driver != v
	s.driver = v
	if v.size != (size{}) && v.size != s.size {
		s.size = v.size
		changed = true
		if s.run != nil && s.ended == nil {
			err := apps.ResizePty(s.run.pty, v.size.cols, v.size.rows)
			if err != nil && !errors.Is(err, os.ErrClosed) {
				s.log.Warn("resize", "shell", s.id, "err", err)
			}
		}
	}
	if changed {
		s.wake()
	}
}

// busy is the name of the program in the foreground, "" when it is the shell.
func (s *shell) busy() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.run == nil || s.ended != nil {
		return ""
	}
	group := 0
	err := s.run.control(func(fd int) (err error) {
		group, err = unix.IoctlGetInt(fd, unix.TIOCGPGRP)
		return err
	})
	if err != nil || group <= 0 || group == s.run.process.Pid {
		return ""
	}
	name, err := os.ReadFile("/proc/" + strconv.Itoa(group) + "/comm")
	if err != nil {
		return "a program"
	}
	return apps.Plain(string(name), 40)
}

// close ends the shell: every process group of its session is hung up, the way
// a closed terminal window does it, and what was started with nohup goes on.
// A shell that stays is killed with its group after grace.
func (s *shell) close(grace time.Duration) {
	s.mu.Lock()
	s.closed = true
	r, alive := s.run, s.ended == nil
	s.wake()
	s.mu.Unlock()
	if r == nil || !alive {
		return
	}
	s.signal(r, apps.HangUp)
	select {
	case <-r.over:
		return
	case <-time.After(grace):
	}
	s.signal(r, func(pid int) { syscall.Kill(-pid, syscall.SIGKILL) })
	<-r.over
}

// signal calls send with the number of the process as long as it is its own.
func (s *shell) signal(r *run, send func(pid int)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !r.reaped {
		send(r.process.Pid)
	}
}

func (s *shell) rename(name string) {
	s.mu.Lock()
	s.name = name
	s.mu.Unlock()
}

// wake tells every visitor to look again. The caller holds mu.
func (s *shell) wake() {
	for v := range s.visitors {
		v.nudge()
	}
}
