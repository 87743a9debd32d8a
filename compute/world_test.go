package compute_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"quire"
	"quire/compute/remote"
	"quire/ticket"
)

// The tests of a node run its real processes: the spawner as root (or all of
// it as one account), compute as its own account, over the real network
// protocol. As root they need a machine of their own, see scripts/in-namespace.

// bin is the built test program, and why it could not be built.
type built struct {
	path string
	err  error
}

var node = sync.OnceValue(func() built { // written once, by the first test
	dir, err := os.MkdirTemp(os.TempDir(), "quire-node-")
	if os.Geteuid() == 0 {
		dir = "/run/quire-test"
		err = os.MkdirAll(dir, 0o755)
	}
	if err != nil {
		return built{err: err}
	}
	args := []string{"build", "-o", filepath.Join(dir, "node")}
	if raceDetector {
		args = append(args, "-race")
	}
	out, err := exec.Command("go", append(args, "./testdata/node")...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, out)
	}
	return built{filepath.Join(dir, "node"), err}
})

const (
	computeUID = 900
	aliceUID   = 2001
	bobUID     = 2002
	singleUID  = 4242
)

func TestMain(m *testing.M) {
	root := os.Geteuid() == 0
	if root && os.Getenv("QUIRE_NAMESPACE") == "" {
		// The same binary again, on a machine of its own.
		script, err := filepath.Abs("../scripts/in-namespace")
		if err == nil {
			err = syscall.Exec(script, append([]string{script}, os.Args...), os.Environ())
		}
		fmt.Fprintln(os.Stderr, "tests as root need scripts/in-namespace:", err)
		os.Exit(1)
	}
	if root {
		for _, args := range [][]string{
			{"groupadd", "-g", "900", "quire-compute"},
			{"useradd", "-u", "900", "-g", "900", "-M", "-d", "/nonexistent", "-s", "/usr/sbin/nologin", "quire-compute"},
			{"groupadd", "-g", "3000", "staff2"},
			{"useradd", "-u", "2001", "-U", "-m", "-G", "staff2", "-s", "/bin/bash", "alice"},
			{"useradd", "-u", "2002", "-U", "-m", "-s", "/bin/bash", "bob"},
			{"useradd", "-u", "2003", "-U", "-M", "-d", "/home/nohome", "-s", "/usr/sbin/nologin", "carol"},
			{"useradd", "-o", "-u", "0", "-g", "0", "-M", "toor"},
			{"useradd", "-u", "500", "-U", "-M", "sysacct"},
		} {
			if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
				fmt.Fprintf(os.Stderr, "%v: %v: %s\n", args, err, out)
				os.Exit(1)
			}
		}
	}
	os.Exit(m.Run())
}

// needRoot leaves a test out for a developer without root, never in CI.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatal("this test needs root, and CI may leave nothing out")
	}
	t.Skip("this test needs root")
}

// world is one node, its keys, and a server and gateway that speak to it.
type world struct {
	t       *testing.T
	base    string
	single  bool
	signer  *ticket.Signer
	id      quire.NodeID
	gateway quire.NodeID
	memory  int64
	limits  string

	run, projects, apps, skeleton string
	socket, keys, identities      string
	sockets                       net.Listener
	control                       net.Listener
	spawner, compute              *exec.Cmd
	server, door                  *remote.Identity
	machine                       *remote.Machine

	mu      sync.Mutex
	reports map[quire.SessionID]quire.SessionReport
	last    quire.NodeReport
	health  quire.NodeHealth
	has     map[quire.ProjectID][]string // apps of projects' own environments
	changed chan struct{}
	down    chan quire.Feed
	errors  bytes.Buffer
	log     sync.Mutex
}

type option func(*world)

func limits(w *world)       { w.limits = "quire-test-" + string(quire.NewWorkID()) }
func memory(n int64) option { return func(w *world) { w.memory = n } }

// separate is a node as root: accounts, namespaces, control groups.
func separate(t *testing.T, options ...option) *world {
	needRoot(t)
	return newWorld(t, false, append([]option{limits}, options...))
}

// single is a node of one account without rights.
func single(t *testing.T, options ...option) *world { return newWorld(t, true, options) }

func newWorld(t *testing.T, single bool, options []option) *world {
	t.Helper()
	if b := node(); b.err != nil {
		t.Fatal(b.err)
	}
	w := &world{
		t: t, single: single, signer: ticket.NewSigner(), id: quire.NewNodeID(), gateway: quire.NewNodeID(),
		reports: map[quire.SessionID]quire.SessionReport{}, changed: make(chan struct{}), down: make(chan quire.Feed),
	}
	for _, o := range options {
		o(w)
	}
	dir, err := os.MkdirTemp(w.roof(), "q")
	w.check(err)
	w.base = dir
	t.Cleanup(func() { os.RemoveAll(dir) })
	w.run, w.projects, w.apps = dir+"/run", dir+"/projects", dir+"/apps"
	w.socket, w.keys, w.identities = dir+"/run/spawner.sock", dir+"/keys", dir+"/id"
	for _, d := range []string{w.run, w.projects, w.apps, dir + "/spawner", dir + "/compute", w.identities} {
		w.check(os.Mkdir(d, 0o755))
	}
	w.check(os.Chmod(dir, 0o755))
	w.check(os.WriteFile(w.keys, w.signer.Public(), 0o644))
	w.makeIdentities()
	w.own()
	w.listen()
	w.startSpawner()
	w.startCompute()
	t.Cleanup(w.end)
	go w.watch()
	return w
}

func (w *world) roof() string {
	if os.Geteuid() == 0 {
		return "/run" // root's all the way up, and not below a session's own /tmp
	}
	return os.TempDir()
}

func (w *world) check(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) makeIdentities() {
	ca, err := remote.NewAuthority("test")
	w.check(err)
	for role, id := range map[string]quire.NodeID{"server": quire.NewNodeID(), "gateway": w.gateway, "compute": w.id} {
		w.check(os.Mkdir(w.identities+"/"+role, 0o700))
		w.check(remote.NewIdentity(ca, role, id, w.identities+"/"+role))
	}
	w.server, err = remote.LoadIdentity(w.identities + "/server")
	w.check(err)
	w.door, err = remote.LoadIdentity(w.identities + "/gateway")
	w.check(err)
}

// own gives the directories to whom they belong.
func (w *world) own() {
	if os.Geteuid() != 0 {
		return
	}
	who := func(uid int, paths ...string) {
		for _, p := range paths {
			out, err := exec.Command("chown", "-R", fmt.Sprintf("%d:%d", uid, uid), p).CombinedOutput()
			if err != nil {
				w.t.Fatalf("chown: %s", out)
			}
		}
	}
	if w.single {
		who(singleUID, w.base)
		return
	}
	who(computeUID, w.base+"/compute", w.identities+"/compute")
}

func (w *world) computeUID() uint32 {
	switch {
	case !w.single:
		return computeUID
	case os.Geteuid() == 0:
		return singleUID
	}
	return uint32(os.Geteuid())
}

func (w *world) listen() {
	l, err := net.Listen("unix", w.socket)
	w.check(err)
	w.sockets = l
	w.check(os.Chmod(w.socket, 0o666)) // the peer check is what is tested
	w.control, err = net.Listen("tcp", "127.0.0.1:0")
	w.check(err)
}

type lockedLog struct{ w *world }

func (l lockedLog) Write(b []byte) (int, error) {
	l.w.log.Lock()
	defer l.w.log.Unlock()
	return l.w.errors.Write(b)
}

func (w *world) command(role string, sys *syscall.SysProcAttr, files ...*os.File) *exec.Cmd {
	c := map[string]any{
		"Node": w.id, "Keys": w.keys, "Identity": w.identities + "/compute", "RunDir": w.run, "StateDir": w.base + "/" + role,
		"ProjectRoot": w.projects, "AppsDir": w.apps, "Skeleton": w.skeleton, "Socket": w.socket, "Self": node().path,
		"Single": w.single, "Peer": w.computeUID(), "Group": w.computeUID(), "Limits": w.limits, "Memory": w.memory,
	}
	b, err := json.Marshal(c)
	w.check(err)
	cmd := exec.Command(node().path, role, string(b))
	cmd.ExtraFiles, cmd.SysProcAttr = files, sys
	cmd.Stderr, cmd.Dir = lockedLog{w}, "/"
	cmd.Env = append(os.Environ(), "LD_PRELOAD=", "PYTHONPATH=/nowhere", "QUIRE_DB_PASSWORD=canary-of-the-environment")
	w.check(cmd.Start())
	return cmd
}

func file(w *world, l net.Listener) *os.File {
	var f *os.File
	var err error
	switch l := l.(type) {
	case *net.UnixListener:
		f, err = l.File()
	case *net.TCPListener:
		f, err = l.File()
	}
	w.check(err)
	return f
}

func (w *world) credential() *syscall.Credential {
	if os.Geteuid() != 0 {
		return nil
	}
	return &syscall.Credential{Uid: w.computeUID(), Gid: w.computeUID()}
}

func (w *world) startSpawner() {
	f := file(w, w.sockets)
	defer f.Close()
	if w.single {
		w.spawner = w.command("spawner", &syscall.SysProcAttr{Credential: w.credential()}, f)
		return
	}
	network, err := os.Open("/proc/self/ns/net")
	w.check(err)
	defer network.Close()
	secret, err := os.Open("/etc/shadow") // must not reach a session
	w.check(err)
	defer secret.Close()
	w.spawner = w.command("spawner", &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}, f, network, secret)
}

func (w *world) startCompute() {
	f := file(w, w.control)
	defer f.Close()
	w.compute = w.command("compute", &syscall.SysProcAttr{Credential: w.credential()}, f)
	if w.machine != nil {
		return // it dials anew by itself
	}
	w.machine = remote.NewMachine(w.server, w.id, func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", w.control.Addr().String())
	})
}

// kill ends a role with -9, as a crash would.
func (w *world) kill(c *exec.Cmd) {
	w.check(c.Process.Kill())
	_ = c.Wait()
}

func (w *world) end() {
	for id, r := range w.snapshot() {
		if r.State.Live() {
			_, _ = w.try(w.order(quire.OrderStop, func(o *quire.Order) {
				o.Session, o.User, o.Project = id, r.User, r.Project
				o.Args = []byte(`{"by":"the test"}`)
			}))
		}
	}
	// Let them clear up what ended: control groups outlive the test.
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for range 500 {
		if left, err := filepath.Glob(w.run + "/s/*"); err == nil && len(left) == 0 {
			break
		}
		<-tick.C
	}
	for _, c := range []*exec.Cmd{w.compute, w.spawner} {
		_ = c.Process.Kill()
		_ = c.Wait()
	}
	w.sockets.Close()
	w.control.Close()
	if w.limits != "" {
		dirs, _ := filepath.Glob("/sys/fs/cgroup/*/" + w.limits)
		for _, d := range append(dirs, "/sys/fs/cgroup/"+w.limits) {
			inner, _ := filepath.Glob(d + "/*/")
			for _, i := range inner {
				_ = syscall.Rmdir(strings.TrimSuffix(i, "/"))
			}
			_ = syscall.Rmdir(d)
		}
	}
	w.log.Lock()
	defer w.log.Unlock()
	if strings.Contains(w.errors.String(), "DATA RACE") || strings.Contains(w.errors.String(), "panic:") {
		w.t.Error("a role has a race or a panic")
	}
	if w.t.Failed() {
		w.t.Logf("the node said:\n%s", w.errors.String())
	}
}

// watch keeps the newest report of every session, over restarts of the node.
func (w *world) watch() {
	ctx, cancel := context.WithCancel(context.Background())
	w.t.Cleanup(cancel)
	for ctx.Err() == nil {
		_ = w.machine.Watch(ctx, w.down, func(r quire.NodeReport) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.last = r
			if r.Health != nil {
				w.health = *r.Health
			}
			if r.Full {
				w.has = map[quire.ProjectID][]string{}
			}
			maps.Copy(w.has, r.Own)
			for _, s := range r.Sessions {
				w.reports[s.ID] = s
			}
			close(w.changed)
			w.changed = make(chan struct{})
		})
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

func (w *world) snapshot() map[quire.SessionID]quire.SessionReport {
	w.mu.Lock()
	defer w.mu.Unlock()
	m := map[quire.SessionID]quire.SessionReport{}
	for k, v := range w.reports {
		m[k] = v
	}
	return m
}

// await returns the session's report once it is in one of the states.
func (w *world) await(id quire.SessionID, states ...quire.SessionState) quire.SessionReport {
	w.t.Helper()
	var got quire.SessionReport
	w.until("session "+fmt.Sprint(states), func() bool {
		got = w.reports[id]
		for _, s := range states {
			if got.State == s {
				return true
			}
		}
		return false
	})
	return got
}

// until waits for a condition on the reports; f runs under the lock.
func (w *world) until(what string, f func() bool) {
	w.t.Helper()
	limit := time.After(30 * time.Second)
	for {
		w.mu.Lock()
		ok, changed := f(), w.changed
		w.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-limit:
			w.t.Fatalf("waited in vain for: %s; reports %+v", what, w.snapshot())
		}
	}
}

// eventually waits for a condition that nobody announces.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(15 * time.Second)
	for !f() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("waited in vain for: %s", what)
		}
	}
}

// person is who acts: an account on a separate node, everybody on a single one.
type person struct {
	user    quire.UserID
	account string
	uid     uint32
}

func (w *world) alice() person { return w.person("alice", aliceUID) }
func (w *world) bob() person   { return w.person("bob", bobUID) }

func (w *world) person(name string, uid uint32) person {
	if w.single {
		return person{quire.NewUserID(), "", w.computeUID()}
	}
	return person{quire.NewUserID(), name, uid}
}

// project is a directory and its owner.
type project struct {
	person
	id  quire.ProjectID
	dir string
}

func (w *world) newProject(p person, owner, name string) project {
	return project{p, quire.NewProjectID(), w.projects + "/" + owner + "/" + name}
}

func (p project) in(o *quire.Order) {
	o.User, o.Account, o.UID, o.Project, o.Dir = p.user, p.account, p.uid, p.id, p.dir
}

// order makes and signs an order.
func (w *world) order(kind quire.OrderType, with ...func(*quire.Order)) []byte {
	now := time.Now()
	o := quire.Order{Type: kind, ID: quire.NewOrderID(), Node: w.id, Issued: now, Expires: now.Add(quire.OrderLife)}
	for _, f := range with {
		f(&o)
	}
	return w.signer.Order(o)
}

func (w *world) try(order []byte) (quire.Receipt, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return w.machine.Do(ctx, order)
}

func (w *world) do(order []byte) quire.Receipt {
	w.t.Helper()
	r, err := w.try(order)
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

// ready makes a project with its directory.
func (w *world) ready(p person, owner, name string) project {
	w.t.Helper()
	pr := w.newProject(p, owner, name)
	// Compute may still be starting.
	eventually(w.t, "the node", func() bool {
		_, err := w.try(w.order(quire.OrderDirectory, pr.in))
		if err != nil && quire.KindOf(err) != quire.KindUnavailable {
			w.t.Fatal(err)
		}
		return err == nil
	})
	return pr
}

func session(id quire.SessionID, app string) func(*quire.Order) {
	return func(o *quire.Order) {
		o.Session, o.App = id, app
		o.Args, _ = json.Marshal(quire.StartArgs{
			Label: quire.NewLabel(), URLPrefix: "/" + app, ProjectName: filepath.Base(o.Dir), OwnerName: "alice", UserName: "alice",
		})
	}
}

func (w *world) start(p project, app string) quire.SessionID {
	w.t.Helper()
	id := quire.NewSessionID()
	w.do(w.order(quire.OrderStart, p.in, session(id, app)))
	return id
}

func (w *world) stop(p project, id quire.SessionID, by string) {
	w.t.Helper()
	w.do(w.order(quire.OrderStop, p.in, func(o *quire.Order) {
		o.Session = id
		o.Args, _ = json.Marshal(quire.StopArgs{By: by})
	}))
}

// app puts a descriptor in the site's directory.
func (w *world) app(a quire.App) {
	w.t.Helper()
	if a.Title == "" {
		a.Title = a.Name
	}
	if a.Permit == "" {
		a.Permit = "write"
	}
	a.Enabled = true
	b, err := json.Marshal(a)
	w.check(err)
	w.check(os.WriteFile(w.apps+"/"+a.Name+".json", b, 0o644))
}

// script is an app in Python from testdata.
func (w *world) script(name string, args ...string) {
	w.t.Helper()
	text, err := os.ReadFile("testdata/app.py")
	w.check(err)
	w.check(os.WriteFile(w.apps+"/app.py", text, 0o644))
	w.app(quire.App{Name: name, Command: append([]string{"/usr/bin/python3", "-I", w.apps + "/app.py"}, args...)})
}

func (w *world) grant(p project, with ...func(*ticket.Grant)) []byte {
	now := time.Now()
	g := ticket.Grant{
		Gateway: w.gateway, Node: w.id, User: p.user, Project: p.id, Login: "l_aaaaaaaaaaaaaaaa", Label: "aaaaaaaaaaaaaaaaaaaa",
		Role: quire.RoleEditor, Issued: now, Expires: now.Add(ticket.GrantLife), Grace: now.Add(time.Hour),
	}
	for _, f := range with {
		f(&g)
	}
	return w.signer.Grant(g)
}

func (w *world) dial(id quire.SessionID, grant []byte) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return remote.DialStream(ctx, w.door, w.control.Addr().String(), w.id, id, grant)
}

// get asks a session's app over a stream.
func (w *world) get(p project, id quire.SessionID, path string) (int, string) {
	w.t.Helper()
	return w.request(p, id, http.MethodGet, path, "")
}

func (w *world) request(p project, id quire.SessionID, method, path, body string) (int, string) {
	w.t.Helper()
	c, err := w.dial(id, w.grant(p))
	w.check(err)
	defer c.Close()
	r, err := http.NewRequest(method, "http://app.test"+path, strings.NewReader(body))
	w.check(err)
	r.Header.Set("Connection", "close")
	w.check(r.Write(c))
	res, err := http.ReadResponse(bufio.NewReader(c), r)
	w.check(err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		w.t.Fatal(err)
	}
	return res.StatusCode, string(b)
}
