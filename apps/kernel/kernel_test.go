package kernel

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// The test program is also the program that holds kernels.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "kernels" {
		os.Exit(Main(os.Args[2:]))
	}
	os.Exit(m.Run())
}

func python(t *testing.T) Spec {
	return Spec{ID: newID(), Name: "python3", Argv: []string{"/usr/bin/python3", "-m", "ipykernel_launcher", "-f", "{connection_file}"}, Dir: t.TempDir()}
}

// world is a server of one holder.
type world struct {
	t   *testing.T
	ctx context.Context
	dir string
	h   *Holder

	mu     sync.Mutex
	heard  map[string][]Entry
	known  []Known
	change chan struct{}
	lost   bool
}

func newWorld(t *testing.T) *world {
	dir, err := os.MkdirTemp("", "k") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	w := &world{t: t, ctx: ctx, dir: dir, heard: map[string][]Entry{}, change: make(chan struct{}, 1)}
	w.reach()
	t.Cleanup(func() {
		_ = syscall.Kill(w.h.pid, syscall.SIGTERM)
		w.until("the holder ends", func() bool { return w.lost })
		cancel()
		os.RemoveAll(dir)
	})
	return w
}

func (w *world) reach() {
	w.t.Helper()
	exe, err := os.Executable()
	if err != nil {
		w.t.Fatal(err)
	}
	w.h, w.known, err = Reach(w.ctx, w.dir, exe, func(id string, e Entry) {
		w.mu.Lock()
		w.heard[id] = append(w.heard[id], e)
		w.mu.Unlock()
		w.poke()
	}, func(error) {
		w.mu.Lock()
		w.lost = true
		w.mu.Unlock()
		w.poke()
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) poke() {
	select {
	case w.change <- struct{}{}:
	default:
	}
}

// until waits until what was heard is as said.
func (w *world) until(what string, ok func() bool) {
	w.t.Helper()
	late := time.After(time.Minute)
	for {
		w.mu.Lock()
		done := ok()
		w.mu.Unlock()
		if done {
			return
		}
		select {
		case <-w.change:
		case <-late:
			w.t.Fatalf("not within a minute: %s", what)
		}
	}
}

func (w *world) start(s Spec) string {
	w.t.Helper()
	if err := w.h.Start(w.ctx, s); err != nil {
		w.t.Fatal(err)
	}
	return s.ID
}

// run executes code and returns what it printed and its result.
func (w *world) run(id, code string) string {
	w.t.Helper()
	m := NewMessage(Shell, "execute_request", "test", Header{}, map[string]any{"code": code, "silent": false, "store_history": true, "allow_stdin": true, "stop_on_error": true})
	if err := w.h.Send(id, m); err != nil {
		w.t.Fatal(err)
	}
	return w.result(id, m.Head().ID)
}

func (w *world) result(id, request string) string {
	w.t.Helper()
	var out string
	w.until("an answer to "+request, func() bool {
		out = ""
		idle, replied := false, false
		for _, e := range w.heard[id] {
			if e.Message == nil || e.Message.Cause().ID != request {
				continue
			}
			var c struct {
				Text  string `json:"text"`
				State string `json:"execution_state"`
				Name  string `json:"ename"`
				Data  struct {
					Text string `json:"text/plain"`
				} `json:"data"`
			}
			if err := json.Unmarshal(e.Message.Content, &c); err != nil {
				w.t.Error(err)
			}
			switch e.Message.Head().Type {
			case "stream":
				out += c.Text
			case "execute_result":
				out += c.Data.Text
			case "error":
				out += c.Name
			case "status":
				idle = idle || c.State == "idle"
			case "execute_reply":
				replied = true
			}
		}
		return idle && replied
	})
	return out
}

func (w *world) state(id string) (s State) {
	for _, e := range w.heard[id] {
		if e.State != nil {
			s = *e.State
		}
	}
	return s
}

// running reports whether a process runs; the dead that wait for their parent do
// not.
func running(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(b), ") Z ")
}

// A kernel answers, is interrupted, restarted, asks for input, dies and is started
// again, and at last is ended with what it started.
//
//fault:session a kernel dies
//fault:seen its page says why; it is started again
//fault:lost its variables
//fault:repair running the cells again
//fault:also TestKernelsThatDoNotLive
func TestKernelLives(t *testing.T) {
	w := newWorld(t)
	id := w.start(python(t))
	if got := w.run(id, "kept = 6*7; kept"); got != "42" {
		t.Errorf("6*7 is %q", got)
	}

	// Not to stop on its error: a kernel answers what it is asked in the moment after
	// one with "aborted".
	sleep := NewMessage(Shell, "execute_request", "test", Header{}, map[string]any{"code": "import time\nprint('on', flush=True)\ntime.sleep(600)", "silent": false, "stop_on_error": false})
	if err := w.h.Send(id, sleep); err != nil {
		t.Fatal(err)
	}
	w.until("it sleeps", func() bool {
		for _, e := range w.heard[id] {
			if e.Message != nil && e.Message.Cause().ID == sleep.Head().ID && e.Message.Head().Type == "stream" {
				return true
			}
		}
		return false
	})
	// Python may lose one signal, in the middle of its own machinery: as a person
	// would, one presses again.
	ended := make(chan struct{})
	pressed := make(chan struct{})
	go func() {
		defer close(pressed)
		again := time.NewTicker(2 * time.Second)
		defer again.Stop()
		for {
			if err := w.h.Interrupt(w.ctx, id); err != nil {
				t.Error(err)
				return
			}
			select {
			case <-again.C:
			case <-ended:
				return
			}
		}
	}()
	got := w.result(id, sleep.Head().ID)
	close(ended)
	<-pressed
	if !strings.Contains(got, "KeyboardInterrupt") {
		t.Errorf("interrupted: %q", got)
	}

	ask := NewMessage(Shell, "execute_request", "test", Header{}, map[string]any{"code": "input('name? ')", "silent": false, "allow_stdin": true})
	if err := w.h.Send(id, ask); err != nil {
		t.Fatal(err)
	}
	w.until("it asks", func() bool {
		for _, e := range w.heard[id] {
			if e.Message != nil && e.Message.Channel == Stdin && e.Message.Cause().ID == ask.Head().ID {
				return true
			}
		}
		return false
	})
	if err := w.h.Send(id, NewMessage(Stdin, "input_reply", "test", Header{}, map[string]string{"value": "grace", "status": "ok"})); err != nil {
		t.Fatal(err)
	}
	if got := w.result(id, ask.Head().ID); got != "'grace'" {
		t.Errorf("input: %q", got)
	}

	if err := w.h.Restart(w.ctx, id); err != nil {
		t.Fatal(err)
	}
	if got := w.run(id, "'kept' in globals()"); got != "False" {
		t.Errorf("a new life knows the old one: %q", got)
	}

	w.mu.Lock()
	pid := w.state(id).PID
	w.mu.Unlock()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	w.until("it lives again", func() bool { s := w.state(id); return s.Lives == 3 && s.State == Idle })
	if s := w.state(id); !strings.Contains(s.Reason, "signal") {
		t.Errorf("why it died: %+v", s)
	}
	child, err := strconv.Atoi(w.run(id, "import subprocess; child = subprocess.Popen(['sleep', '600']); child.pid"))
	if err != nil {
		t.Fatal(err)
	}
	if err := w.h.End(w.ctx, id); err != nil {
		t.Fatal(err)
	}
	for running(child) { // it was killed, which takes the system a moment
		if w.ctx.Err() != nil {
			t.Fatal("something of the kernel is left")
		}
		runtime.Gosched()
	}
	if left, _ := filepath.Glob(filepath.Join(w.dir, "*"+short(id)+"*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// Whoever takes over from a server that ended hears everything that nobody said
// he had heard, in order, and once.
func TestNothingIsLostBetweenServers(t *testing.T) {
	w := newWorld(t)
	id := w.start(python(t))
	first := w.run(id, "'first'")
	w.mu.Lock()
	heard := w.heard[id][len(w.heard[id])-1].Seq
	w.mu.Unlock()
	if err := w.h.Forget(id, heard); err != nil {
		t.Fatal(err)
	}
	if err := w.h.Mark(id, "page", heard); err != nil {
		t.Fatal(err)
	}
	gate := filepath.Join(t.TempDir(), "gate")
	if err := syscall.Mkfifo(gate, 0o600); err != nil {
		t.Fatal(err)
	}
	long := NewMessage(Shell, "execute_request", "test", Header{}, map[string]any{"code": fmt.Sprintf("open(%q).read()\nfor i in range(1000): print(i)\n'second'", gate), "silent": false})
	if err := w.h.Send(id, long); err != nil {
		t.Fatal(err)
	}
	w.until("it is asked", func() bool {
		e := w.heard[id]
		return e[len(e)-1].Message != nil && e[len(e)-1].Message.Head().Type == "execute_input"
	})
	w.h.Close()
	w.until("the connection ends", func() bool { return w.lost })
	w.lost, w.heard = false, map[string][]Entry{}
	f, err := os.OpenFile(gate, os.O_WRONLY, 0) // now it goes on, and nobody listens
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	w.reach()
	if len(w.known) != 1 || w.known[0].State.ID != id || w.known[0].Marks["page"] != heard {
		t.Errorf("known: %+v", w.known)
	}
	got := w.result(id, long.Head().ID)
	want := ""
	for i := range 1000 {
		want += fmt.Sprintln(i)
	}
	if got != want+"'second'" || first != "'first'" {
		t.Errorf("%d bytes of %d", len(got), len(want))
	}
	w.mu.Lock()
	for i, e := range w.heard[id] {
		if e.Seq != heard+1+int64(i) {
			t.Errorf("entry %d has number %d", i, e.Seq)
			break
		}
	}
	w.mu.Unlock()
	if err := w.h.End(w.ctx, id); err != nil {
		t.Fatal(err)
	}
}

// What cannot be started says why, and a kernel that dies again and again stays
// dead.
func TestKernelsThatDoNotLive(t *testing.T) {
	w := newWorld(t)
	s := python(t)
	s.Argv = []string{"/nonexistent/python"}
	if err := w.h.Start(w.ctx, s); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("a missing program: %v", err)
	}
	s.ID, s.Argv = newID(), []string{"/bin/sh", "-c", "exit 3"}
	if err := w.h.Start(w.ctx, s); err == nil || !strings.Contains(err.Error(), "code 3") {
		t.Errorf("a program that is no kernel: %v", err)
	}
	id := w.start(python(t))
	for life := 1; life <= restartsMost+1; life++ {
		w.until("it lives", func() bool { s := w.state(id); return s.Lives == life && s.State == Idle })
		w.mu.Lock()
		pid := w.state(id).PID
		w.mu.Unlock()
		if err := syscall.Kill(pid, syscall.SIGSEGV); err != nil {
			t.Fatal(err)
		}
	}
	w.until("it stays dead", func() bool { s := w.state(id); return s.State == Dead && strings.Contains(s.Reason, "6 times") })
	if err := w.h.Restart(w.ctx, id); err != nil {
		t.Errorf("a dead kernel is not revived: %v", err)
	}
	if got := w.run(id, "1+1"); got != "2" {
		t.Error(got)
	}
	if err := w.h.End(w.ctx, id); err != nil {
		t.Error(err)
	}
}
