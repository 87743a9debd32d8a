package kernel

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A Spec says how a kernel is started: what is left of a kernelspec once the one
// who starts it has chosen.
type Spec struct {
	ID        string            `json:"id"`
	Name      string            `json:"name"`
	Argv      []string          `json:"argv"` // {connection_file} stands for the file's path
	Env       map[string]string `json:"env,omitempty"`
	Dir       string            `json:"dir"`                 // where it begins
	Path      string            `json:"path,omitempty"`      // of the notebook, for the kernel to see
	Interrupt string            `json:"interrupt,omitempty"` // "signal" or "message"
}

const (
	startLimit = 60 * time.Second // from its start to its first word
	endGrace   = 5 * time.Second  // between asking a kernel to end and killing it
	nudge      = 200 * time.Millisecond
)

// connectionFile is what Jupyter calls it: where the kernel shall listen, and the
// key of its signatures. Over ipc the place of a socket is IP-PORT.
type connectionFile struct {
	Transport string `json:"transport"`
	IP        string `json:"ip"`
	Shell     int    `json:"shell_port"`
	IOPub     int    `json:"iopub_port"`
	Stdin     int    `json:"stdin_port"`
	Control   int    `json:"control_port"`
	Heartbeat int    `json:"hb_port"`
	Key       string `json:"key"`
	Scheme    string `json:"signature_scheme"`
	Name      string `json:"kernel_name"`
}

var ports = map[Channel]int{Shell: 1, IOPub: 2, Stdin: 3, Control: 4}

const heartbeatPort = 5

// A process is one life of a kernel: its program with the connections to it.
type process struct {
	cmd   *exec.Cmd
	began time.Time
	key   []byte
	base  string // sockets are base-1 … base-5
	wires map[Channel]*wire
	ended chan struct{} // closed when the program has ended and err is set
	err   error
	kills int64 // of the control group for want of memory, when it began

	mu sync.Mutex
}

// start runs the program; connect is next. The key stays the same over restarts,
// as Jupyter's clients expect of the file.
func start(spec Spec, dir string, key []byte) (*process, error) {
	p := &process{key: key, base: filepath.Join(dir, short(spec.ID)), wires: map[Channel]*wire{}, ended: make(chan struct{}), kills: oomKills()}
	p.clear()
	file := filepath.Join(dir, "kernel-"+spec.ID+".json")
	b, err := json.Marshal(connectionFile{
		Transport: "ipc", IP: p.base, Shell: ports[Shell], IOPub: ports[IOPub], Stdin: ports[Stdin], Control: ports[Control], Heartbeat: heartbeatPort,
		Key: string(key), Scheme: "hmac-sha256", Name: spec.Name,
	})
	if err == nil {
		err = os.WriteFile(file, b, 0o600)
	}
	if err != nil {
		return nil, err
	}
	argv := make([]string, len(spec.Argv))
	for i, a := range spec.Argv {
		argv[i] = strings.ReplaceAll(a, "{connection_file}", file)
	}
	p.cmd = exec.Command(argv[0], argv[1:]...)
	p.cmd.Dir = spec.Dir
	p.cmd.Env = os.Environ()
	for name, value := range spec.Env {
		p.cmd.Env = append(p.cmd.Env, name+"="+value)
	}
	p.cmd.Env = append(p.cmd.Env, "JPY_PARENT_PID="+strconv.Itoa(os.Getpid()))
	if spec.Path != "" {
		p.cmd.Env = append(p.cmd.Env, "JPY_SESSION_NAME="+spec.Path)
	}
	p.cmd.Stdout, p.cmd.Stderr = os.Stderr, os.Stderr // the app's log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	p.began = time.Now()
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	return p, nil
}

func short(id string) string { return strings.ReplaceAll(id, "-", "")[:8] }

func newKey() []byte {
	b := make([]byte, 32)
	rand.Read(b)
	return []byte(hex.EncodeToString(b))
}

func (p *process) socket(port int) string { return p.base + "-" + strconv.Itoa(port) }

func (p *process) clear() {
	for port := 1; port <= heartbeatPort; port++ {
		_ = os.Remove(p.socket(port))
	}
}

// connect waits until the kernel's sockets are there and connects to them. What
// it says is given to hear, from one goroutine for each channel, until it ends.
func (p *process) connect(ctx context.Context, identity string, hear func(Message), broken func(error)) error {
	appear, err := watch(filepath.Dir(p.base))
	if err != nil {
		return err
	}
	defer appear.close()
	for _, c := range []Channel{Shell, Control, Stdin, IOPub} {
		kind := "DEALER"
		if c == IOPub {
			kind = "SUB"
		}
		var w *wire
		for w == nil {
			if w, err = dial(p.socket(ports[c]), kind, identity); err == nil {
				break
			}
			// It is not there yet, or bound and not listening for a moment.
			select {
			case <-appear.changed:
			case <-time.After(nudge):
			case <-p.ended:
				return p.sentence()
			case <-ctx.Done():
				return fmt.Errorf("the kernel did not listen within %s", startLimit)
			}
		}
		p.mu.Lock()
		p.wires[c] = w
		p.mu.Unlock()
		go func() {
			defer w.close()
			for {
				frames, err := w.receive()
				if errors.Is(err, errHuge) {
					broken(err)
					continue
				}
				if err != nil {
					return // with its process, which is waited for
				}
				m, err := unseal(c, p.key, frames)
				if err != nil {
					broken(err)
					continue
				}
				hear(m)
			}
		}()
	}
	return nil
}

// send gives the kernel a message.
func (p *process) send(m Message) error {
	p.mu.Lock()
	w := p.wires[m.Channel]
	p.mu.Unlock()
	if w == nil || m.Channel == IOPub {
		return errors.New("the kernel does not listen there")
	}
	return w.send(m.seal(p.key)...)
}

// signal reaches the kernel with all it started in its own group.
func (p *process) signal(s unix.Signal) { _ = unix.Kill(-p.cmd.Process.Pid, s) }

// end asks the program to end, and makes it.
func (p *process) end(ask func()) {
	if ask != nil {
		ask()
		select {
		case <-p.ended:
		case <-time.After(endGrace):
		}
	}
	p.signal(unix.SIGKILL) // also what it left in its group
	<-p.ended
	p.mu.Lock()
	for _, w := range p.wires {
		w.close()
	}
	p.mu.Unlock()
	p.clear()
}

// sentence says how the program ended, as far as a person can be told.
func (p *process) sentence() error {
	var exit *exec.ExitError
	if errors.As(p.err, &exit) {
		if w, ok := exit.Sys().(syscall.WaitStatus); ok && w.Signaled() {
			if w.Signal() == syscall.SIGKILL && oomKills() > p.kills {
				return errors.New("it ran out of memory and was ended by the system: use less, or ask for a higher limit")
			}
			return fmt.Errorf("it was ended by a signal (%s)", w.Signal())
		}
		return fmt.Errorf("it ended by itself with code %d; the app's log says more", exit.ExitCode())
	}
	if p.err != nil {
		return p.err
	}
	return errors.New("it ended by itself")
}

// oomKills is how often the kernel ended a process of our control group because
// memory was used up (cgroup-v2: memory.events).
func oomKills() int64 {
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 {
			continue
		}
		file := filepath.Join("/sys/fs/cgroup", f[2], "memory.events")
		if f[1] == "memory" {
			file = filepath.Join("/sys/fs/cgroup/memory", f[2], "memory.oom_control")
		} else if f[0] != "0" {
			continue
		}
		events, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		for e := range strings.Lines(string(events)) {
			if n, ok := strings.CutPrefix(strings.TrimSpace(e), "oom_kill "); ok {
				count, _ := strconv.ParseInt(n, 10, 64)
				return count
			}
		}
	}
	return 0
}

// watcher tells that something changed in a directory.
type watcher struct {
	file    *os.File
	changed chan struct{}
}

func watch(dir string) (*watcher, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, err
	}
	w := &watcher{file: os.NewFile(uintptr(fd), "inotify"), changed: make(chan struct{}, 1)}
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_CREATE|unix.IN_ATTRIB); err != nil {
		w.file.Close()
		return nil, err
	}
	go func() {
		var b [4096]byte
		for {
			if _, err := w.file.Read(b[:]); err != nil {
				return
			}
			select {
			case w.changed <- struct{}{}:
			default:
			}
		}
	}()
	return w, nil
}

func (w *watcher) close() { w.file.Close() }
