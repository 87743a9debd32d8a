package spawner

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"quire"
	"quire/apps/keep"
	"quire/compute/environment"
	"quire/spawner/launch"
	"quire/ticket"
)

// The test binary is the quire binary of its spawner.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "shim":
			os.Exit(launch.Shim())
		case "keep":
			os.Exit(keep.Main(os.Args[2:]))
		case "pack":
			os.Exit(PackMain(os.Args[2:]))
		case "helper":
			os.Exit(environment.Main(os.Args[2:]))
		}
	}
	if os.Geteuid() == 0 && os.Getenv("QUIRE_NAMESPACE") == "" {
		script, err := filepath.Abs("../scripts/in-namespace")
		if err == nil {
			err = syscall.Exec(script, append([]string{script}, os.Args...), os.Environ())
		}
		fmt.Fprintln(os.Stderr, "tests as root need scripts/in-namespace:", err)
		os.Exit(1)
	}
	if os.Geteuid() == 0 {
		if out, err := exec.Command("useradd", "-u", "2001", "-U", "-m", "alice").CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "useradd: %s\n", out)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

type lab struct {
	t      *testing.T
	s      *Spawner
	c      Config
	signer *ticket.Signer
	base   string
	uid    uint32
	name   string
}

// newLab is a spawner in this process: with accounts as root, else without.
func newLab(t *testing.T) *lab {
	t.Helper()
	base := t.TempDir()
	root := os.Geteuid() == 0
	if root {
		var err error
		if base, err = os.MkdirTemp("/run", "spawner"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(base) })
	}
	l := &lab{t: t, base: base, signer: ticket.NewSigner(), uid: uint32(os.Geteuid())}
	b, err := os.ReadFile(os.Args[0])
	l.check(err)
	l.check(os.WriteFile(base+"/quire", b, 0o755))
	l.check(os.Chmod(base, 0o755))
	for _, d := range []string{"run", "state", "projects", "apps"} {
		l.check(os.Mkdir(base+"/"+d, 0o755))
	}
	v, err := ticket.NewVerifier(l.signer.Public())
	l.check(err)
	l.c = Config{
		Node: quire.NewNodeID(), Verifier: v, RunDir: base + "/run", StateDir: base + "/state", ProjectRoot: base + "/projects",
		Self: base + "/quire", AppsDir: base + "/apps", Peer: uint32(os.Geteuid()), Group: uint32(os.Getegid()),
	}
	if root {
		l.uid, l.name = 2001, "alice"
		l.c.Accounts = Separate(Policy{})
		name := "quire-spawner-test-" + string(quire.NewWorkID()) // control groups are the host's
		l.c.Limits, err = FindLimits(name)
		l.check(err)
		t.Cleanup(func() {
			dirs, _ := filepath.Glob("/sys/fs/cgroup/*/" + name)
			for _, d := range dirs {
				_ = syscall.Rmdir(d)
			}
		})
	} else {
		l.c.Accounts, err = Single(base, "/bin/bash")
		l.check(err)
		l.c.Limits = NoLimits("a test without root")
	}
	l.app("exec sleep 1000")
	l.again()
	return l
}

func (l *lab) check(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

// again is a spawner that starts over what an earlier one left.
func (l *lab) again() {
	l.t.Helper()
	s, err := New(l.c)
	l.check(err)
	l.s = s
}

func (l *lab) order(kind quire.OrderType, with ...func(*quire.Order)) quire.Order {
	now := time.Now()
	o := quire.Order{
		Type: kind, ID: quire.NewOrderID(), Node: l.c.Node, User: "u_aaaaaaaaaaaaaaaa", Account: l.name, UID: l.uid,
		Project: "p_aaaaaaaaaaaaaaaa", Dir: l.c.ProjectRoot + "/alice/p", Issued: now, Expires: now.Add(quire.OrderLife),
	}
	for _, f := range with {
		f(&o)
	}
	return o
}

func (l *lab) ask(o quire.Order) (answer, error) {
	return l.s.answer(context.Background(), ask{Op: "order", Order: l.signer.Order(o)}, nil)
}

// app is what sessions of the lab run: a script for bash.
func (l *lab) app(script string) {
	l.t.Helper()
	b, err := json.Marshal(quire.App{Name: "app", Title: "App", Enabled: true, Permit: "write", Command: []string{"/bin/bash", "-c", script, "%(socket)s"}})
	l.check(err)
	l.check(os.WriteFile(l.c.AppsDir+"/app.json", b, 0o644))
}

func (l *lab) must(o quire.Order) answer {
	l.t.Helper()
	a, err := l.ask(o)
	l.check(err)
	return a
}

func session(id quire.SessionID) func(*quire.Order) {
	return func(o *quire.Order) { o.Session, o.App, o.Args = id, "app", []byte(`{}`) }
}

// C-03, C-04: the spawner believes nobody but the server, and each word once.
func TestOnlySignedOrders(t *testing.T) {
	l := newLab(t)
	o := l.order(quire.OrderDirectory)
	signed := l.signer.Order(o)
	other := ticket.NewSigner()
	ctx := context.Background()
	late := o
	late.Issued, late.Expires = o.Issued.Add(-time.Hour), o.Expires.Add(-time.Hour)
	early := o
	early.Issued, early.Expires = o.Issued.Add(time.Hour), o.Expires.Add(time.Hour)
	foreign := o
	foreign.Node = quire.NewNodeID()
	for name, b := range map[string][]byte{
		"none": nil, "another key": other.Order(o), "truncated": signed[:len(signed)-2], "longer": append(append([]byte{}, signed...), 1),
		"late": l.signer.Order(late), "early": l.signer.Order(early), "another node": l.signer.Order(foreign),
		"a grant": l.signer.Grant(ticket.Grant{Node: l.c.Node, Issued: time.Now(), Expires: time.Now().Add(time.Minute)}),
	} {
		if _, err := l.s.answer(ctx, ask{Op: "order", Order: b}, nil); quire.KindOf(err) != quire.KindForbidden {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := l.s.answer(ctx, ask{Op: "order", Order: signed}, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := l.s.answer(ctx, ask{Op: "order", Order: signed}, nil); quire.KindOf(err) != quire.KindConflict {
		t.Errorf("used twice: %v", err)
	}
	for _, op := range []string{"", "start", "shell", "Order"} {
		if _, err := l.s.answer(ctx, ask{Op: op, Order: signed}, nil); quire.KindOf(err) != quire.KindInvalid {
			t.Errorf("%q: %v", op, err)
		}
	}
	unknown := l.order(99)
	if _, err := l.ask(unknown); quire.KindOf(err) != quire.KindInvalid {
		t.Errorf("type 99: %v", err)
	}
}

// A session over the wire, its directories, and the spawner's memory of it.
func TestSessionLife(t *testing.T) {
	l := newLab(t)
	l.must(l.order(quire.OrderDirectory))
	id := quire.NewSessionID()
	start := func() answer {
		return l.must(l.order(quire.OrderStart, session(id)))
	}
	first := start()
	if first.Already || first.PID == 0 {
		t.Fatalf("%+v", first)
	}
	if again := start(); !again.Already || again.PID != first.PID {
		t.Errorf("%+v", again)
	}
	dir := filepath.Join(l.c.RunDir, "s", string(id))
	info, err := os.Stat(dir)
	l.check(err)
	if info.Mode().Perm() != 0o710 || info.Mode()&os.ModeSetgid == 0 || info.Sys().(*syscall.Stat_t).Uid != l.uid {
		t.Errorf("%v %v", info.Mode(), info.Sys())
	}
	parent, err := os.Stat(filepath.Dir(dir))
	l.check(err)
	if parent.Mode().Perm() != 0o711 {
		t.Errorf("the sessions' directory can be listed: %v", parent.Mode())
	}
	// Somebody else's order does not get it.
	_, err = l.ask(l.order(quire.OrderStart, session(id), func(o *quire.Order) { o.User = "u_bbbbbbbbbbbbbbbb" }))
	if quire.KindOf(err) != quire.KindConflict {
		t.Errorf("foreign start: %v", err)
	}
	_, err = l.ask(l.order(quire.OrderStop, session(id), func(o *quire.Order) { o.Project = "p_bbbbbbbbbbbbbbbb" }))
	if quire.KindOf(err) != quire.KindForbidden {
		t.Errorf("foreign stop: %v", err)
	}
	// A living session is not released, by name or by accident.
	if err := l.s.release(context.Background(), id); quire.KindOf(err) != quire.KindConflict {
		t.Errorf("released alive: %v", err)
	}
	for _, bad := range []quire.SessionID{"", "..", "s_../../../../etc", "1", quire.SessionID(strconv.Itoa(first.PID))} {
		if err := l.s.release(context.Background(), bad); quire.KindOf(err) != quire.KindInvalid {
			t.Errorf("%q: %v", bad, err)
		}
	}
	l.again()
	if again := start(); !again.Already || again.PID != first.PID {
		t.Errorf("after a restart: %+v", again)
	}
	l.must(l.order(quire.OrderStop, session(id)))
	if h := l.s.find(id); h.Keep.alive(l.s.boot) {
		t.Error("it still runs")
	}
	l.check(l.s.release(context.Background(), id))
	for _, d := range []string{dir, l.s.tmpDir(string(id)), l.s.stateFile(id)} {
		if _, err := os.Lstat(d); err == nil {
			t.Errorf("%s is left", d)
		}
	}
	if _, err := os.Stat("/sys/fs/cgroup/pids/" + l.c.Limits.String() + "/" + string(id)); err == nil {
		t.Error("the control group is left")
	}
}

// C-10, C-17: a start that fails leaves nothing, and the next one works.
func TestStartThatFails(t *testing.T) {
	l := newLab(t)
	l.must(l.order(quire.OrderDirectory))
	id := quire.NewSessionID()
	good := l.c.Self
	nothing := func(what string) {
		t.Helper()
		for _, d := range []string{filepath.Join(l.c.RunDir, "s", string(id)), l.s.tmpDir(string(id)), l.s.stateFile(id)} {
			if _, err := os.Lstat(d); err == nil {
				t.Errorf("%s: %s is left", what, d)
			}
		}
	}
	l.c.Self = l.base + "/missing"
	l.again()
	if _, err := l.ask(l.order(quire.OrderStart, session(id))); quire.KindOf(err) != quire.KindFailed || !strings.Contains(err.Error(), `step "start"`) {
		t.Errorf("%v", err)
	}
	nothing("no shim")
	l.c.Self = good
	real := l.c.Limits
	l.c.Limits = broken{real}
	l.again()
	if _, err := l.ask(l.order(quire.OrderStart, session(id))); quire.KindOf(err) != quire.KindFailed || !strings.Contains(err.Error(), `"control groups"`) {
		t.Errorf("%v", err)
	}
	nothing("no control group")
	l.c.Limits = real
	l.again()
	if _, err := l.ask(l.order(quire.OrderStart, session(id), func(o *quire.Order) { o.Args = []byte("{") })); quire.KindOf(err) != quire.KindInvalid {
		t.Errorf("%v", err)
	}
	if _, err := l.ask(l.order(quire.OrderStart, session("s_1"))); quire.KindOf(err) != quire.KindInvalid {
		t.Errorf("%v", err)
	}
	// The spawner was killed after it had written the session down.
	l.check(l.s.remember(hold(held{Session: id, User: "u_aaaaaaaaaaaaaaaa", Project: "p_aaaaaaaaaaaaaaaa", Account: Account{UID: l.uid, GID: l.uid, Name: l.name}})))
	l.check(os.Mkdir(filepath.Join(l.c.RunDir, "s", string(id)), 0o700))
	l.again()
	if a := l.must(l.order(quire.OrderStart, session(id))); a.Already || a.PID == 0 {
		t.Errorf("%+v", a)
	}
	l.must(l.order(quire.OrderStop, session(id)))
	l.check(l.s.release(context.Background(), id))
	// A group that nobody wants any more is swept away; one in use stays.
	_, err := l.c.Limits.Make("left-over", Want{})
	l.check(err)
	l.again()
	for _, file := range l.c.Limits.Find("left-over").Events() {
		if _, err := os.Stat(file); err == nil {
			t.Errorf("%s is left", file)
		}
	}
	// Its state was torn.
	l.check(os.WriteFile(l.s.stateFile(id), []byte("{"), 0o600))
	l.again()
	l.must(l.order(quire.OrderStart, session(id)))
	l.check(l.s.end(context.Background(), id, 0))
	l.check(l.s.release(context.Background(), id))
}

// broken refuses to make a group, as a full or read-only hierarchy does.
type broken struct{ Limits }

func (broken) Make(string, Want) (Group, error) { return nil, syscall.ENOSPC }

// C-17, P-09: on a full disk nothing half-made is left, what runs can be ended,
// and the node has a reserve to give up; a session can fill its own directory
// and no more than that.
//
//fault:disk the node's disk is full
//fault:seen a start fails with a sentence; what runs can be ended
//fault:lost nothing half-made is left
//fault:repair room
func TestFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("this test needs root, and CI may leave nothing out")
		}
		t.Skip("this test needs root")
	}
	l := newLab(t)
	l.check(syscall.Mount("state", l.c.StateDir, "tmpfs", 0, "size=32m"))
	t.Cleanup(func() { _ = syscall.Unmount(l.c.StateDir, syscall.MNT_DETACH) })
	l.again()
	l.must(l.order(quire.OrderDirectory))
	size := func() int64 {
		info, err := os.Stat(l.s.reserve())
		l.check(err)
		return info.Size()
	}
	if _, message := l.s.room(); size() != 1<<20 || message != "" {
		t.Errorf("reserve %d, %q", size(), message)
	}
	id, late := quire.NewSessionID(), quire.NewSessionID()
	l.app(`head -c 200M /dev/zero > "${0%%/*}/fill" 2> "${0%%/*}/said"; n=0; while : > "${0%%/*}/f$n"; do n=$((n+1)); done 2>/dev/null; exec sleep 1000`)
	l.must(l.order(quire.OrderStart, session(id)))
	var here, above syscall.Statfs_t
	l.check(syscall.Statfs(l.c.RunDir, &above))
	deadline := time.Now().Add(20 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for here.Ffree != 0 || here.Files == 0 {
		l.check(syscall.Statfs(l.c.RunDir+"/s/"+string(id), &here))
		if <-tick.C; time.Now().After(deadline) {
			t.Fatalf("it could not fill its directory: %+v", here)
		}
	}
	if here.Files > 5000 || here.Blocks*uint64(here.Bsize) > 40<<20 || here.Fsid == above.Fsid {
		t.Errorf("a session's directory: %+v", here)
	}
	filler := l.c.StateDir + "/tmp/filler"
	f, err := os.Create(filler)
	l.check(err)
	for b := make([]byte, 4096); err == nil; {
		_, err = f.Write(b)
	}
	f.Close()
	for range 2 { // and not only as long as the reserve lasts
		if _, err := l.ask(l.order(quire.OrderStart, session(late))); quire.KindOf(err) != quire.KindFailed || !strings.Contains(err.Error(), "is full") {
			t.Errorf("a start on a full disk: %v", err)
		}
		for _, d := range []string{l.s.sessionDir(late), l.s.tmpDir(string(late)), l.s.stateFile(late)} {
			if _, err := os.Lstat(d); err == nil {
				t.Errorf("%s is left", d)
			}
		}
		if size() != 0 {
			t.Error("the reserve is kept")
		}
		f, err = os.OpenFile(filler, os.O_WRONLY|os.O_APPEND, 0)
		l.check(err)
		for b := make([]byte, 4096); err == nil; {
			_, err = f.Write(b)
		}
		f.Close()
	}
	if list := l.s.warnings(); !strings.Contains(strings.Join(list, " "), "is full") {
		t.Errorf("warnings %q", list)
	}
	l.again() // a spawner that starts on a full disk
	l.must(l.order(quire.OrderStop, session(id)))
	l.check(l.s.release(context.Background(), id))
	for _, d := range []string{l.s.sessionDir(id), l.s.tmpDir(string(id)), l.s.stateFile(id)} {
		if _, err := os.Lstat(d); err == nil {
			t.Errorf("%s is left", d)
		}
	}
	if b, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(b), string(id)) {
		t.Errorf("a mount is left: %v", err)
	}
	l.check(os.Remove(filler))
	if _, message := l.s.room(); message != "" || size() != 1<<20 {
		t.Errorf("%q, reserve %d", message, size())
	}
	l.app("exec sleep 1000")
	l.must(l.order(quire.OrderStart, session(late)))
	l.check(l.s.end(context.Background(), late, 0))
	l.check(l.s.release(context.Background(), late))
}

// The site's switches: private_tmp off shows the host's /tmp and says what that
// costs, allow_setuid lets programs give rights.
func TestSwitches(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("this test needs root, and CI may leave nothing out")
		}
		t.Skip("this test needs root")
	}
	l := newLab(t)
	l.must(l.order(quire.OrderDirectory))
	l.app(`cat /proc/$$/status > "/tmp/said-by-$QUIRE_SESSION.new"; mv "/tmp/said-by-$QUIRE_SESSION.new" "/tmp/said-by-$QUIRE_SESSION"; exec sleep 1000`)
	for _, off := range []bool{false, true} {
		l.c.HostTmp, l.c.Setuid = off, off
		l.again()
		id := quire.NewSessionID()
		l.must(l.order(quire.OrderStart, session(id)))
		said := filepath.Join(l.s.tmpDir(string(id)), "said-by-"+string(id))
		if off {
			said = "/tmp/said-by-" + string(id)
		}
		var status []byte
		deadline := time.Now().Add(20 * time.Second)
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			b, err := os.ReadFile(said)
			if err == nil {
				status = b
				break
			}
			if <-tick.C; time.Now().After(deadline) {
				t.Fatalf("private_tmp off %v: %v", off, err)
			}
		}
		if set := strings.Contains(string(status), "NoNewPrivs:\t1"); set == off {
			t.Errorf("allow_setuid %v, and no_new_privs %v", off, set)
		}
		var here, above syscall.Statfs_t
		l.check(syscall.Statfs(l.c.RunDir, &above))
		l.check(syscall.Statfs(l.s.sessionDir(id), &here))
		if (here.Fsid == above.Fsid) != off {
			t.Errorf("private_tmp off %v: the session's directory is on %v, /run on %v", off, here.Fsid, above.Fsid)
		}
		if warned := strings.Contains(strings.Join(l.s.warnings(), " "), "private_tmp is off"); warned != off {
			t.Errorf("private_tmp off %v: warned %v", off, warned)
		}
		l.check(l.s.end(context.Background(), id, 0))
		l.check(l.s.release(context.Background(), id))
	}
}

// P-07: a fork bomb stays inside its session and can be ended.
//
//fault:session an app makes processes without end
//fault:seen nobody else sees anything: others start and stop as before
//fault:lost nothing
//fault:repair the limit holds it, stopping it ends all
func TestForkBomb(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("this test needs root, and CI may leave nothing out")
		}
		t.Skip("this test needs root")
	}
	l := newLab(t)
	l.must(l.order(quire.OrderDirectory))
	id := quire.NewSessionID()
	l.app("trap '' TERM; bomb() { bomb | bomb & }; bomb; while :; do bomb; done")
	l.must(l.order(quire.OrderStart, session(id), func(o *quire.Order) { o.Args = []byte(`{"processes":64}`) }))
	g := l.s.c.Limits.Find(string(id))
	deadline := time.Now().Add(20 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		pids, err := g.Processes(process{})
		l.check(err)
		if len(pids) > 40 || time.Now().After(deadline) {
			if len(pids) > 64 || len(pids) <= 40 {
				t.Errorf("%d processes", len(pids))
			}
			break
		}
		<-tick.C
	}
	begin := time.Now()
	l.check(l.s.end(context.Background(), id, 0))
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("it took %v to end", took)
	}
	l.check(l.s.release(context.Background(), id))
}

// The wire: a question by a socket, a descriptor with it, and what is no question.
func TestWire(t *testing.T) {
	l := newLab(t)
	path := l.base + "/sock"
	listener, err := net.Listen("unix", path)
	l.check(err)
	var done sync.WaitGroup
	done.Go(func() {
		if err := l.s.Serve(listener); err != nil {
			t.Error(err)
		}
	})
	talk := func(b []byte) string {
		c, err := net.Dial("unix", path)
		l.check(err)
		defer c.Close()
		_, _ = c.Write(b)
		_ = c.(*net.UnixConn).CloseWrite()
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		out := make([]byte, 1000)
		n, _ := c.Read(out)
		return string(out[:n])
	}
	frame := func(s string) []byte { return append([]byte{0, 0, byte(len(s) >> 8), byte(len(s))}, s...) }
	for _, bad := range [][]byte{{}, {1}, {0xff, 0xff, 0xff, 0xff}, frame("{"), frame(`{"op":5}`), {0, 0, 0, 9, '{'}} {
		if got := talk(bad); got != "" {
			t.Errorf("%q was answered: %q", bad, got)
		}
	}
	if got := talk(frame(`{"op":"hello"}`)); !strings.Contains(got, `"accounts"`) {
		t.Errorf("hello: %q", got)
	}
	var a answer
	if got := talk(frame(`{"op":"order","order":"AAAA"}`)); json.Unmarshal([]byte(got[4:]), &a) != nil || a.Error == nil || a.Error.Kind != quire.KindForbidden {
		t.Errorf("%q", got)
	}
	listener.Close()
	done.Wait()
	// A stranger gets nothing at all.
	l.c.Peer++
	l.again()
	listener, err = net.Listen("unix", path)
	l.check(err)
	done.Go(func() { _ = l.s.Serve(listener) })
	if got := talk(frame(`{"op":"hello"}`)); got != "" {
		t.Errorf("a stranger was answered: %q", got)
	}
	listener.Close()
	done.Wait()
}
