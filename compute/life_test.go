package compute_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"quire"
	"quire/ticket"
)

func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	state := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))[0]
	return state != "Z" && state != "X"
}

// both runs a test on a node with accounts and on one without.
func both(t *testing.T, f func(t *testing.T, w *world)) {
	t.Run("separate", func(t *testing.T) { f(t, separate(t)) })
	t.Run("single", func(t *testing.T) { f(t, single(t)) })
}

// Adoption: compute and spawner are killed and a session does not notice; the
// next ones know it, let streams through and can end it.
//
//fault:node compute is killed
//fault:seen sockets of apps open again
//fault:lost nothing: sessions are found again by boot, process and start time
//fault:repair the supervisor starts it again
//fault:also TestDataCenters
func TestRolesKilled(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		p := w.ready(w.alice(), "alice", "p")
		id := w.running(p)
		before := w.ids(p, id)
		w.kill(w.compute)
		w.kill(w.spawner)
		if !alive(before.PID) || !alive(before.PPID) {
			t.Fatal("the session died with the roles")
		}
		w.startSpawner()
		w.startCompute()
		eventually(t, "the same process answers", func() bool {
			c, err := w.dial(id, w.grant(p))
			if err != nil {
				return false
			}
			c.Close()
			return true
		})
		if after := w.ids(p, id); after.PID != before.PID {
			t.Fatalf("process %d became %d", before.PID, after.PID)
		}
		// The order for it finds it running.
		if r := w.do(w.order(quire.OrderStart, p.in, session(id, "probe"))); !r.Already {
			t.Errorf("%+v", r)
		}
		w.stop(p, id, "alice")
		if r := w.await(id, quire.SessionEnded); r.Reason != "Stopped by alice." {
			t.Errorf("%+v", r)
		}
		if alive(before.PID) || alive(before.PPID) {
			t.Error("the session still runs")
		}
		eventually(t, "the session's directory is gone", func() bool {
			_, err := os.Lstat(filepath.Join(w.run, "s", string(id)))
			return errors.Is(err, os.ErrNotExist)
		})
	})
}

// A session that becomes ready, ends or is of an earlier boot while compute is away.
//
//fault:node a session ends, or becomes ready, while compute is away
//fault:seen its state, with the reason, a moment later
//fault:lost nothing
//fault:repair the next compute reads what its parent wrote down
//fault:node the node was restarted
//fault:seen "The node was restarted"; projects start again
//fault:lost what was in memory only
//fault:repair starting the project
//fault:node a process number was used again meanwhile
//fault:seen nothing
//fault:lost nothing: the stranger is not taken for the session
func TestWhileComputeWasAway(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		p := w.ready(w.alice(), "alice", "p")
		w.script("late", "late", "%(socket)s", "%(projectHome)s/go")
		w.script("probe", "unix", "%(socket)s")
		late, ends, boots, reused, unheard, never := w.start(p, "late"), w.start(p, "probe"), w.start(p, "probe"), w.start(p, "probe"), w.start(p, "probe"), w.start(p, "probe")
		for _, id := range []quire.SessionID{ends, boots, reused, unheard, never} {
			w.await(id, quire.SessionRunning)
		}
		old := w.ids(p, reused)
		w.kill(w.compute)
		c, err := net.Dial("unix", filepath.Join(w.run, "s", string(ends), "app.sock"))
		w.check(err)
		fmt.Fprintf(c, "GET /exit HTTP/1.0\r\n\r\n")
		_, _ = io.ReadAll(c)
		c.Close()
		eventually(t, "the app has ended", func() bool {
			_, err := os.Stat(filepath.Join(w.run, "s", string(ends), "exit.json"))
			return err == nil
		})
		w.edit(boots, func(m map[string]any) { m["boot"] = "another" })
		w.edit(reused, func(m map[string]any) { m["start"] = 12345 }) // the number belongs to somebody else now
		for _, id := range []quire.SessionID{unheard, never} {
			w.edit(id, func(m map[string]any) { m["pid"], m["boot"], m["start"] = 0, "", 0 }) // it had not heard the answer
		}
		pid, err := exec.Command("/usr/bin/pgrep", "-f", "keep --dir "+filepath.Join(w.run, "s", string(never))).Output()
		w.check(err)
		w.check(exec.Command("/bin/kill", "-9", strings.TrimSpace(string(pid))).Run())
		w.startCompute()
		w.await(never, quire.SessionFailed)
		w.get(p, unheard, "/")
		if r := w.await(ends, quire.SessionFailed); r.Exit == nil || r.Exit.Code != 3 {
			t.Errorf("%+v %+v", r, r.Exit)
		}
		if r := w.await(boots, quire.SessionEnded); r.Reason != "The node was restarted." {
			t.Errorf("%+v", r)
		}
		// What has only the number is not it; the real one, nobody's any more, ends.
		w.await(reused, quire.SessionFailed)
		eventually(t, "the lost session's end", func() bool { return !alive(old.PID) })
		w.await(late, quire.SessionStarting)
		w.check(os.WriteFile(p.dir+"/go", nil, 0o666))
		w.await(late, quire.SessionRunning)
	})
}

// edit changes the process in a session's state file.
func (w *world) edit(id quire.SessionID, f func(map[string]any)) {
	w.t.Helper()
	name := w.base + "/compute/sessions/" + string(id) + ".json"
	b, err := os.ReadFile(name)
	w.check(err)
	var m map[string]any
	d := json.NewDecoder(strings.NewReader(string(b)))
	d.UseNumber()
	w.check(d.Decode(&m))
	f(m["keep"].(map[string]any))
	b, err = json.Marshal(m)
	w.check(err)
	w.check(os.WriteFile(name, b, 0o600))
}

// A state file torn by a full disk is set aside; the node starts.
//
//fault:node a session's state file is torn
//fault:seen nothing
//fault:lost the file, which is set aside
//fault:repair the spawner's census brings back what lives
func TestTornState(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		p := w.ready(w.alice(), "alice", "p")
		id := w.running(p)
		w.kill(w.compute)
		w.check(os.Truncate(w.base+"/compute/sessions/"+string(id)+".json", 10))
		w.mu.Lock()
		clear(w.reports)
		w.mu.Unlock()
		w.startCompute()
		w.until("a full report", func() bool { return w.last.Health != nil || w.health.BootID != "" })
		w.await(id, quire.SessionRunning) // the spawner has it still
		if r := w.do(w.order(quire.OrderStart, p.in, session(id, "probe"))); !r.Already {
			t.Errorf("%+v", r)
		}
		w.get(p, id, "/")
	})
}

// P-12. Stop: what the app left behind, however it detached, ends too.
func TestStopEndsEverything(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		p := w.ready(w.alice(), "alice", "p")
		id := w.running(p)
		v := w.ids(p, id)
		_, pid := w.get(p, id, "/detach")
		runaway, err := strconv.Atoi(pid)
		w.check(err)
		if !alive(runaway) {
			t.Fatal("the test's own child died")
		}
		begin := time.Now()
		w.stop(p, id, "bob")
		took := time.Since(begin)
		if alive(runaway) || alive(v.PID) || alive(v.PPID) {
			t.Error("processes are left")
		}
		if took > 8*time.Second {
			t.Errorf("it took %v", took)
		}
		if r := w.do(w.order(quire.OrderStop, p.in, func(o *quire.Order) { o.Session, o.Args = id, []byte(`{"by":"x"}`) })); !r.Already {
			t.Errorf("%+v", r)
		}
	})
}

// An app that does not listen to SIGTERM is killed after its time.
//
//fault:session an app does not listen to its end
//fault:seen a moment more
//fault:lost what it had not saved
//fault:repair it is killed, with all that it left behind
//fault:also TestStopEndsEverything
func TestStubbornApp(t *testing.T) {
	w := single(t)
	p := w.ready(w.alice(), "alice", "p")
	id := w.running(p, "stubborn", "%(socket)s")
	v := w.ids(p, id)
	begin := time.Now()
	w.stop(p, id, "bob")
	if took := time.Since(begin); took < 9*time.Second || took > 14*time.Second {
		t.Errorf("it took %v", took)
	}
	if alive(v.PID) {
		t.Error("it still runs")
	}
	if r := w.await(id, quire.SessionEnded); r.Exit.Signal != "killed" || r.Reason != "Stopped by bob." {
		t.Errorf("%+v %+v", r, r.Exit)
	}
}

// Whose rights are taken gets no grace, also when a stop with one is under way.
func TestRevocationEndsTheGrace(t *testing.T) {
	w := single(t)
	p := w.ready(w.alice(), "alice", "p")
	id := w.running(p, "stubborn", "%(socket)s")
	v := w.ids(p, id)
	begin := time.Now()
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		_, _ = w.try(w.order(quire.OrderStop, p.in, func(o *quire.Order) { o.Session, o.Args = id, []byte(`{"by":"bob"}`) }))
	}()
	w.await(id, quire.SessionStopping)
	w.down <- quire.Feed{Full: true, Time: time.Now(), Seq: 1, Revocations: []quire.Revocation{{Seq: 1, User: p.user, Project: p.id, At: time.Now()}}}
	w.until("done up to 1", func() bool { return w.last.Seq == 1 })
	if alive(v.PID) {
		t.Error("done, and yet it runs")
	}
	<-stopped
	if took := time.Since(begin); took > 9*time.Second { // the stubborn app's whole grace
		t.Errorf("it was waited for: %v", took)
	}
}

// The spawner dies while it starts a session: whatever came of it is gone when
// the next one is there, and the session can be started.
//
//fault:node the spawner is killed in the middle of a start
//fault:seen the start fails with a sentence
//fault:lost nothing half-made is left
//fault:repair pressing start again
func TestSpawnerDiesInAStart(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		p := w.ready(w.alice(), "alice", "p")
		w.script("probe", "unix", "%(socket)s")
		for range 3 {
			id := quire.NewSessionID()
			done := make(chan error, 1)
			go func() {
				_, err := w.try(w.order(quire.OrderStart, p.in, session(id, "probe")))
				done <- err
			}()
			eventually(t, "the start has begun", func() bool {
				_, err := os.Stat(w.base + "/spawner/sessions/" + string(id) + ".json")
				return err == nil
			})
			w.kill(w.spawner)
			err := <-done
			w.startSpawner()
			if err != nil {
				eventually(t, "nothing is left", func() bool {
					_, err := os.Lstat(filepath.Join(w.run, "s", string(id)))
					out, _ := exec.Command("/usr/bin/pgrep", "-f", string(id)).Output()
					return errors.Is(err, os.ErrNotExist) && len(out) == 0
				})
				w.do(w.order(quire.OrderStart, p.in, session(id, "probe")))
			}
			w.await(id, quire.SessionRunning)
			w.stop(p, id, "alice")
		}
	})
}

// An app that a project's own environment has is told with the project, when a
// session there begins or ends, and still after the node was killed.
func TestOwnEnvironments(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		p, q := w.ready(w.alice(), "alice", "p"), w.ready(w.bob(), "bob", "q")
		w.script("probe", "unix", "%(socket)s")
		w.app(quire.App{Name: "lab", Command: []string{"/usr/bin/python3", "-I", w.apps + "/app.py", "unix", "%(socket)s"}, Needs: "%(env)s/bin/jupyter-lab-stand-in"})
		tells := func(of project, want string) {
			t.Helper()
			w.until(want+" in "+of.dir, func() bool { return strings.Join(w.has[of.id], " ") == want })
		}
		session := func(of project, meanwhile func()) {
			id := w.start(of, "probe")
			w.await(id, quire.SessionRunning)
			meanwhile()
			w.stop(of, id, "alice")
			w.await(id, quire.SessionEnded)
		}
		session(q, func() {})
		file := p.dir + "/envs/default/bin/jupyter-lab-stand-in"
		session(p, func() {
			tells(p, "")
			w.check(os.MkdirAll(filepath.Dir(file), 0o755))
			w.check(os.WriteFile(file, []byte("#!/bin/sh\necho This is a stand-in for JupyterLab.\n"), 0o755))
		})
		tells(p, "lab")
		w.kill(w.compute)
		w.until("the report is forgotten", func() bool { w.has = nil; return true })
		w.startCompute()
		tells(p, "lab")
		w.await(w.start(p, "lab"), quire.SessionRunning)
		tells(q, "")
		w.check(os.Remove(file))
		session(p, func() { tells(p, "") })
	})
}

// How sessions end is told in words, with the last lines.
func TestExitReasons(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		p := w.ready(w.alice(), "alice", "p")
		w.script("exits", "exit", "%(socket)s", "3")
		w.script("leaves", "exit", "%(socket)s", "0")
		w.script("probe", "unix", "%(socket)s")
		w.app(quire.App{Name: "missing", Command: []string{"/no/such/program", "%(socket)s"}})
		w.app(quire.App{Name: "needs", Command: []string{"/bin/true", "%(socket)s"}, Needs: "%(env)s/bin/no-such-program"})
		exits, leaves, missing, needs := w.start(p, "exits"), w.start(p, "leaves"), w.start(p, "missing"), w.start(p, "needs")
		if r := w.await(exits, quire.SessionFailed); r.Exit.Code != 3 || r.Reason != "It exited with code 3." || !strings.Contains(r.Log, "last words") {
			t.Errorf("%+v %+v", r, r.Exit)
		}
		if r := w.await(leaves, quire.SessionEnded); r.Reason != "It ended by itself." {
			t.Errorf("%+v", r)
		}
		if r := w.await(missing, quire.SessionFailed); !strings.Contains(r.Reason, "/no/such/program") {
			t.Errorf("%+v", r)
		}
		if r := w.await(needs, quire.SessionFailed); !strings.Contains(r.Reason, "envs/default/bin/no-such-program is missing") {
			t.Errorf("%+v", r)
		}
		crash := w.start(p, "probe")
		w.await(crash, quire.SessionRunning)
		c, err := w.dial(crash, w.grant(p))
		w.check(err)
		fmt.Fprintf(c, "GET /segv HTTP/1.0\r\n\r\n")
		_, _ = io.ReadAll(c)
		c.Close()
		if r := w.await(crash, quire.SessionFailed); r.Exit.Signal != "segmentation fault" {
			t.Errorf("%+v %+v", r, r.Exit)
		}
		// What watches it killed with it: the rest is cleared away.
		gone := w.running(p)
		v := w.ids(p, gone)
		kill := exec.Command("/bin/kill", "-9", strconv.Itoa(v.PPID))
		w.check(kill.Run())
		w.await(gone, quire.SessionFailed)
		eventually(t, "the app ends with its parent", func() bool { return !alive(v.PID) })
	})
}

// P-08: a session that takes too much memory ends, and says so.
//
//fault:session an app takes too much memory
//fault:seen it alone ends, and says so
//fault:lost what was in its memory
//fault:repair starting it again
func TestOutOfMemory(t *testing.T) {
	w := separate(t, memory(96<<20))
	p := w.ready(w.alice(), "alice", "p")
	id := w.running(p)
	c, err := w.dial(id, w.grant(p))
	w.check(err)
	fmt.Fprintf(c, "GET /eat HTTP/1.0\r\n\r\n")
	_, _ = io.ReadAll(c)
	c.Close()
	r := w.await(id, quire.SessionFailed)
	if r.Exit == nil || !r.Exit.OutOfMemory || !strings.Contains(r.Reason, "memory") {
		t.Errorf("%+v %+v", r, r.Exit)
	}
}

// C-15: a hundred orders for one session make one process.
//
//fault:session the same order arrives a hundred times
//fault:seen one process
//fault:lost nothing
func TestStartedOnce(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		p := w.ready(w.alice(), "alice", "p")
		w.script("probe", "unix", "%(socket)s")
		id := quire.NewSessionID()
		var all sync.WaitGroup
		var mu sync.Mutex
		fresh := 0
		for range 100 {
			all.Go(func() {
				r, err := w.try(w.order(quire.OrderStart, p.in, session(id, "probe")))
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					t.Error(err)
				}
				if !r.Already {
					fresh++
				}
			})
		}
		all.Wait()
		if fresh != 1 {
			t.Errorf("%d starts", fresh)
		}
		w.await(id, quire.SessionRunning)
		out, err := exec.Command("/usr/bin/pgrep", "-f", "keep --dir "+filepath.Join(w.run, "s", string(id))).Output()
		if n := len(strings.Fields(string(out))); n != 1 {
			t.Errorf("%d processes: %s %v", n, out, err)
		}
	})
}

// C-03: an order counts once, for its node, in its time.
func TestOrdersRefused(t *testing.T) {
	w := single(t)
	p := w.ready(w.alice(), "alice", "p")
	good := w.order(quire.OrderDirectory, p.in)
	stranger := &world{signer: ticket.NewSigner(), id: w.id}
	for name, b := range map[string][]byte{
		"another node": w.order(quire.OrderDirectory, p.in, func(o *quire.Order) { o.Node = quire.NewNodeID() }),
		"expired": w.order(quire.OrderDirectory, p.in, func(o *quire.Order) {
			o.Issued = o.Issued.Add(-2 * time.Minute)
			o.Expires = o.Expires.Add(-2 * time.Minute)
		}),
		"in the future": w.order(quire.OrderDirectory, p.in, func(o *quire.Order) { o.Issued = o.Issued.Add(time.Hour); o.Expires = o.Expires.Add(time.Hour) }),
		"too long":      w.order(quire.OrderDirectory, p.in, func(o *quire.Order) { o.Expires = o.Expires.Add(time.Hour) }),
		"another key":   stranger.order(quire.OrderDirectory, p.in),
		"truncated":     good[:len(good)-1],
		"longer":        append(append([]byte{}, good...), 0),
		"empty":         nil,
		"a grant":       w.grant(p),
	} {
		if _, err := w.try(b); quire.KindOf(err) != quire.KindForbidden {
			t.Errorf("%s: %v", name, err)
		}
	}
	for i := range good {
		b := append([]byte{}, good...)
		b[i] ^= 1
		if i%7 == 0 { // every place is signed; a sample keeps it short
			if _, err := w.try(b); quire.KindOf(err) != quire.KindForbidden {
				t.Fatalf("byte %d: %v", i, err)
			}
		}
	}
	first, second := w.do(good), w.do(good)
	if !reflect.DeepEqual(first, second) {
		t.Errorf("the same order gave %+v and %+v", first, second)
	}
}

// C-18: an app that prints without end is not blocked, and its log is small.
//
//fault:session an app prints without end
//fault:seen nothing
//fault:lost the older part of its log
func TestLoudApp(t *testing.T) {
	w := single(t)
	p := w.ready(w.alice(), "alice", "p")
	w.script("loud", "loud", "%(socket)s", "2000") // 131 MB
	id := w.start(p, "loud")
	w.await(id, quire.SessionRunning)
	eventually(t, "the last line", func() bool {
		s, err := w.machine.Log(context.Background(), id, 100)
		return err == nil && strings.HasSuffix(s, "the end\n")
	})
	var size int64
	for _, name := range []string{"log", "log.1"} {
		info, err := os.Stat(filepath.Join(w.run, "s", string(id), name))
		w.check(err)
		size += info.Size()
	}
	if size > 2<<20+1<<17 {
		t.Errorf("the log has %d bytes", size)
	}
}
