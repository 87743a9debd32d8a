// Package keep is the parent of a session's app. It runs as the user, in the
// session's control group, and holds what would otherwise die with a restart of
// Quire: the app's output pipe, its exit status, its readiness. Nothing it does
// needs any other process of Quire to be alive.
//
// In the session's directory it writes
//
//	state.json  which process it is, since when the app is ready, what the environment has
//	log, log.1  the app's output, at most two times LogSize
//	exit.json   how the app ended
//	app.sock    for apps that listen on a TCP port: the bridge to it
package keep

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// LogSize is how much of the output one of the two log files holds, in bytes.
const LogSize = 1 << 20

const (
	stopGrace  = 10 * time.Second // between asking an app to end and killing it
	leftGrace  = 2 * time.Second  // the same for what an ended app left behind
	oomScore   = 500              // the app is ended for memory before its keep
	notStarted = 127              // exit code of an app that could not be started
)

// State is state.json.
type State struct {
	Boot  string     `json:"boot"`
	PID   int        `json:"pid"`
	Start uint64     `json:"start"` // clock ticks after boot
	Ready *time.Time `json:"ready,omitempty"`
	Has   []string   `json:"has"` // names of --look that are there
}

// Exit is exit.json.
type Exit struct {
	Code   int       `json:"code"`
	Signal string    `json:"signal,omitempty"`
	Reason string    `json:"reason,omitempty"` // a sentence, when it could not be started
	At     time.Time `json:"at"`
}

type options struct {
	dir    string
	cwd    string
	needs  []string
	look   [][2]string // name and path
	prefix string
	ready  int
	tcp    bool
	again  bool
	argv   []string
}

// Main runs "quire keep" and returns its exit code. It ends when the app and
// everything the app left behind has ended.
func Main(args []string) int {
	// The keep of a session waits nearly all the time: one thread for Go is enough.
	runtime.GOMAXPROCS(1)
	o, err := parse(args)
	if err != nil {
		fmt.Fprintln(os.Stderr, "quire keep:", err)
		return 2
	}
	if o.ready > 0 {
		unix.CloseOnExec(o.ready) // the app must not hold, or say, our word
	}
	k := &keeper{options: o}
	if err := k.prepare(); err != nil {
		fmt.Fprintln(os.Stderr, "quire keep:", err)
		return 1
	}
	return k.run()
}

func parse(args []string) (options, error) {
	var o options
	f := flag.NewFlagSet("keep", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.StringVar(&o.dir, "dir", "", "session directory")
	f.StringVar(&o.cwd, "cwd", "/", "the app's working directory")
	f.Func("needs", "a file the app cannot do without; of several, one is enough", func(path string) error {
		o.needs = append(o.needs, path)
		return nil
	})
	f.Func("look", "NAME=PATH: say whether the file is there", func(word string) error {
		name, path, _ := strings.Cut(word, "=")
		o.look = append(o.look, [2]string{name, path})
		return nil
	})
	f.StringVar(&o.prefix, "env", "", "the project's active environment")
	f.IntVar(&o.ready, "ready", 0, "descriptor to say ready on")
	f.BoolVar(&o.tcp, "tcp", false, "the app listens on %(port)s")
	f.BoolVar(&o.again, "again", false, "start the app again when it fails; what it started goes on")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	o.argv = f.Args()
	if !filepath.IsAbs(o.dir) || len(o.argv) == 0 {
		return o, errors.New("it needs --dir and a command")
	}
	return o, nil
}

type keeper struct {
	options
	log   *logFile
	env   []string
	port  int
	watch *watcher
	done  chan struct{} // the app has ended

	mu       sync.Mutex
	state    State
	app      int        // its process, and the group that it leads
	outputs  []*os.File // of it, and of those before it
	pumps    sync.WaitGroup
	starts   []time.Time
	stopping bool
}

func (k *keeper) prepare() error {
	// What the app's children leave behind becomes ours, not init's, however
	// they detached: so it can be found and ended.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Join(k.dir, "k"), 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return err
	}
	start, err := startTime(os.Getpid())
	if err != nil {
		return err
	}
	k.state = State{Boot: strings.TrimSpace(string(boot)), PID: os.Getpid(), Start: start, Has: k.has()}
	if err := k.writeState(); err != nil {
		return err
	}
	if k.log, err = openLog(filepath.Join(k.dir, "log"), LogSize); err != nil {
		return err
	}
	if k.watch, err = watchDir(k.dir); err != nil {
		return err
	}
	k.done = make(chan struct{})
	k.env = os.Environ()
	k.activate()
	return k.home()
}

// activate puts the project's environment first for whatever the app runs. The
// node cannot see into the project, so what kind it is is found here.
func (k *keeper) activate() {
	if k.prefix == "" {
		return
	}
	k.set("PATH", filepath.Join(k.prefix, "bin")+":"+os.Getenv("PATH"))
	for mark, name := range map[string]string{"conda-meta": "CONDA_PREFIX", "pyvenv.cfg": "VIRTUAL_ENV"} {
		if _, err := os.Stat(filepath.Join(k.prefix, mark)); err == nil {
			k.set(name, k.prefix)
		}
	}
}

// has looks for what other apps need. Only here, as the user, can it be seen.
func (k *keeper) has() []string {
	names := []string{}
	for _, l := range k.look {
		if there(l[1]) {
			names = append(names, l[0])
		}
	}
	return names
}

func there(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func (k *keeper) set(name, value string) {
	for i, kv := range k.env {
		if strings.HasPrefix(kv, name+"=") {
			k.env[i] = name + "=" + value
			return
		}
	}
	k.env = append(k.env, name+"="+value)
}

// home gives the app a directory to be at home in when the account's own is
// missing. It is never made where the account's should be.
func (k *keeper) home() error {
	home := os.Getenv("HOME")
	if info, err := os.Stat(home); err == nil && info.IsDir() {
		return nil
	}
	private := filepath.Join(os.TempDir(), "home-"+filepath.Base(k.dir))
	if err := os.Mkdir(private, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	k.log.note("The home directory " + home + " does not exist; " + private + " is used and forgotten with the session.")
	k.set("HOME", private)
	return nil
}

func startTime(pid int) (uint64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	text := string(b)
	f := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(f) < 20 {
		return 0, errors.New("the process table cannot be read")
	}
	return strconv.ParseUint(f[19], 10, 64)
}

func (k *keeper) run() int {
	// Before anything can be sent to us.
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM)
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT, syscall.SIGPIPE)

	if err := k.startApp(); err != nil {
		why := sentence(err)
		k.log.note(why)
		return k.leave(Exit{Code: notStarted, Reason: why})
	}
	go k.becomeReady()

	ended, exits := make(chan struct{}), make(chan syscall.WaitStatus, 1)
	go k.reap(exits, ended)
	var kill <-chan time.Time
	for {
		select {
		case <-signals:
			k.mu.Lock()
			k.stopping = true
			_ = unix.Kill(-k.app, unix.SIGTERM)
			k.mu.Unlock()
			if kill == nil {
				kill = time.After(stopGrace)
			}
		case <-kill:
			k.mu.Lock()
			_ = unix.Kill(-k.app, unix.SIGKILL)
			k.mu.Unlock()
			killAll(unix.SIGKILL)
		case status := <-exits:
			close(k.done)
			code := k.leave(exitOf(status))
			sweep(ended)
			for _, o := range k.outputs { // nobody adds to them any more
				_ = o.SetReadDeadline(time.Now().Add(time.Second))
			}
			k.pumps.Wait()
			k.log.Close()
			return code
		}
	}
}

const (
	againMost   = 10 // starts within againWithin; an app that fails more often has failed
	againWithin = time.Minute
)

// onceMore starts the app again after it failed, unless it was asked to end or
// fails all the time. Nothing that it started is ended for it.
func (k *keeper) onceMore(status syscall.WaitStatus) bool {
	k.mu.Lock()
	now := time.Now()
	k.starts = append(slices.DeleteFunc(k.starts, func(t time.Time) bool { return now.Sub(t) > againWithin }), now)
	no := !k.again || k.stopping || len(k.starts) > againMost || status.ExitStatus() == 0
	k.mu.Unlock()
	if no {
		return false
	}
	e := exitOf(status)
	k.log.note(fmt.Sprintf("The app ended by itself (code %d %s) and is started again.", e.Code, e.Signal))
	if err := k.startApp(); err != nil {
		k.log.note(sentence(err))
		return false
	}
	return true
}

// startApp starts the app in a process group of its own, with nothing but its
// output pipe.
func (k *keeper) startApp() error {
	argv := k.argv
	if k.tcp {
		port, err := freePort()
		if err != nil {
			return fmt.Errorf("there is no free port on this node: %w", err)
		}
		k.port = port
		argv, k.env = withPort(argv, port), withPort(k.env, port)
	}
	if len(k.needs) > 0 && !slices.ContainsFunc(k.needs, there) {
		return fmt.Errorf("%s is missing, and the app needs it: install it in the project's environment", k.needs[0])
	}
	if err := unix.Access(k.cwd, unix.X_OK); err != nil {
		return fmt.Errorf("the directory %s cannot be entered: %w", k.cwd, err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer w.Close()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr = k.env, k.cwd, w, w
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// Children inherit the score: raised around the start only, since we should
	// be the last to go.
	before, _ := os.ReadFile(oomFile)
	_ = os.WriteFile(oomFile, []byte(strconv.Itoa(oomScore)), 0)
	err = cmd.Start()
	_ = os.WriteFile(oomFile, before, 0)
	if err != nil {
		r.Close()
		return fmt.Errorf("the program could not be started: %w", err)
	}
	// Waiting is ours (reap), for this child and for adopted ones alike.
	k.mu.Lock()
	defer k.mu.Unlock()
	k.app = cmd.Process.Pid
	_ = cmd.Process.Release()
	k.outputs = append(k.outputs, r)
	k.pumps.Go(func() {
		defer r.Close()
		_, _ = io.Copy(k.log, r) // ends with the last writer
	})
	if k.stopping { // asked to end while it was started again
		_ = unix.Kill(-k.app, unix.SIGTERM)
	}
	return nil
}

// sentence makes an error one that a page can show.
func sentence(err error) string {
	text := err.Error()
	return strings.ToUpper(text[:1]) + text[1:] + "."
}

const oomFile = "/proc/self/oom_score_adj"

// reap waits for every child until none is left.
func (k *keeper) reap(exits chan<- syscall.WaitStatus, ended chan<- struct{}) {
	defer close(ended)
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			return // no child is left
		}
		k.mu.Lock()
		app := k.app
		k.mu.Unlock()
		if pid == app && !k.onceMore(status) {
			exits <- status
		}
	}
}

// sweep ends what the app left behind: asks first, then kills.
func sweep(ended <-chan struct{}) {
	killAll(unix.SIGTERM)
	late := time.After(leftGrace)
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	hard := false
	for {
		select {
		case <-ended:
			return
		case <-late:
			hard = true
		case <-again.C:
			if hard {
				killAll(unix.SIGKILL)
			}
		}
	}
}

// killAll signals every process below us.
func killAll(s unix.Signal) {
	queue := children(os.Getpid())
	for len(queue) > 0 {
		pid := queue[0]
		queue = append(queue[1:], children(pid)...)
		_ = unix.Kill(pid, s)
	}
}

// children lists the direct children of a process.
func children(pid int) []int {
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return nil
	}
	var list []int
	for _, t := range tasks {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", pid, t.Name()))
		if err != nil {
			continue
		}
		for _, word := range strings.Fields(string(b)) {
			if n, err := strconv.Atoi(word); err == nil {
				list = append(list, n)
			}
		}
	}
	return list
}

func exitOf(status syscall.WaitStatus) Exit {
	if status.Signaled() {
		return Exit{Code: 128 + int(status.Signal()), Signal: status.Signal().String()}
	}
	return Exit{Code: status.ExitStatus()}
}

// leave writes exit.json and returns the code to exit with.
func (k *keeper) leave(e Exit) int {
	// A program may have been installed meanwhile.
	k.mu.Lock()
	k.state.Has = k.has()
	k.mu.Unlock()
	if err := k.writeState(); err != nil {
		k.log.note("What the environment has could not be written down: " + err.Error())
	}
	e.At = time.Now().UTC()
	if err := writeJSON(filepath.Join(k.dir, "exit.json"), e); err != nil {
		k.log.note("How the app ended could not be written down: " + err.Error())
	}
	return min(e.Code, 125)
}

func (k *keeper) writeState() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return writeJSON(filepath.Join(k.dir, "state.json"), k.state)
}

// writeJSON replaces a file as a whole: a reader sees the old or the new one.
func writeJSON(file string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if err := os.WriteFile(file+".new", b, 0o640); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}
