package compute_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"quire"
	"quire/compute/remote"
)

// as runs a program as an account and returns what it printed.
func as(t *testing.T, uid int, name string, args ...string) string {
	t.Helper()
	c := exec.Command(name, args...)
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	c.Dir = "/"
	out, err := c.CombinedOutput()
	if err != nil && len(out) == 0 {
		out = []byte(err.Error())
	}
	return string(out)
}

type ids struct {
	Res            []int
	Groups         []int
	SID, PGID, PID int
	PPID           int
	CWD            string
	FDs            map[string]string
	Tmp            []string
	TTY            string
	Limits         string
}

// running starts the Python app of testdata and waits until it is ready.
func (w *world) running(p project, mode ...string) quire.SessionID {
	w.t.Helper()
	if len(mode) == 0 {
		mode = []string{"unix", "%(socket)s"}
	}
	w.script("probe", mode...)
	id := w.start(p, "probe")
	if r := w.await(id, quire.SessionRunning, quire.SessionFailed, quire.SessionEnded); r.State != quire.SessionRunning {
		w.t.Fatalf("%+v", r)
	}
	return id
}

func (w *world) ids(p project, id quire.SessionID) ids {
	w.t.Helper()
	_, body := w.get(p, id, "/ids")
	var v ids
	if err := json.Unmarshal([]byte(body), &v); err != nil {
		w.t.Fatal(err, body)
	}
	return v
}

// C-08, C-09, C-11, C-13, C-14, P-06, P-15: what a session's process is made of.
func TestProcessOfASession(t *testing.T) {
	w := separate(t)
	p := w.ready(w.alice(), "alice", "p")
	id := w.running(p)
	v := w.ids(p, id)
	for i, n := range v.Res {
		if n != aliceUID {
			t.Errorf("id %d of %v is not alice's", i, v.Res)
		}
	}
	if fmt.Sprint(v.Groups) != "[2001 3000]" && fmt.Sprint(v.Groups) != "[3000 2001]" {
		t.Errorf("groups %v", v.Groups)
	}
	for fd, to := range v.FDs {
		// The listening socket, the accepted connection and the listing itself are its own.
		if n, _ := strconv.Atoi(fd); n > 2 && !strings.HasPrefix(to, "socket:") && !strings.HasSuffix(to, "/fd") && to != "" && !strings.HasPrefix(to, "anon_inode") {
			t.Errorf("descriptor %s is open on %s", fd, to)
		}
	}
	if v.FDs["0"] != "/dev/null" || !strings.HasPrefix(v.FDs["1"], "pipe:") {
		t.Errorf("standard descriptors %v", v.FDs)
	}
	if v.PGID != v.PID || v.SID == 1 || v.TTY != "none" || v.CWD != p.dir {
		t.Errorf("%+v", v)
	}
	if len(v.Tmp) != 0 {
		t.Errorf("/tmp shows %v", v.Tmp)
	}
	if !regexp.MustCompile(`Max core file size +0 +0`).MatchString(v.Limits) {
		t.Errorf("core dumps: %s", v.Limits)
	}
	_, status := w.get(p, id, "/status")
	for _, want := range []string{"CapInh:\t0000000000000000", "CapPrm:\t0000000000000000", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "CapAmb:\t0000000000000000", "NoNewPrivs:\t1", "Umask:\t0007"} {
		if !strings.Contains(status, want) {
			t.Errorf("%q is missing in %s", want, status)
		}
	}
	_, root := w.get(p, id, "/become-root")
	if strings.Contains(root, "done") || strings.Contains(root, `"0\n"`) {
		t.Errorf("became root: %s", root)
	}
	_, text := w.get(p, id, "/environment")
	var env map[string]string
	w.check(json.Unmarshal([]byte(text), &env))
	for name, want := range map[string]string{
		"HOME": "/home/alice", "USER": "alice", "LOGNAME": "alice", "SHELL": "/bin/bash", "PROJECT_HOME": p.dir, "PROJECT_NAME": "p",
		"LANG": "C.UTF-8", "PATH": p.dir + "/envs/default/bin:/usr/local/bin:/usr/bin:/bin", "QUIRE_SESSION": string(id), "LC_CTYPE": "C.UTF-8",
		"PIP_CACHE_DIR": p.dir + "/envs/.cache/pip", "UV_CACHE_DIR": p.dir + "/envs/.cache/uv", "UV_LINK_MODE": "copy",
		"CONDA_PKGS_DIRS": p.dir + "/envs/.cache/conda", "CONDA_ALWAYS_COPY": "true",
	} {
		if env[name] != want && name != "LC_CTYPE" {
			t.Errorf("%s is %q, not %q", name, env[name], want)
		}
		delete(env, name)
	}
	if len(env) != 0 {
		t.Errorf("more in the environment: %v", env)
	}
	w.get(p, id, "/touch")
	for _, name := range []string{"/tmp/mine", "/dev/shm/mine"} {
		if _, err := os.Lstat(name); err == nil {
			t.Errorf("%s is seen outside", name)
		}
	}
	// The host's network is there, and the spawner has none.
	_, port, _ := net.SplitHostPort(w.control.Addr().String())
	if _, got := w.get(p, id, "/connect?127.0.0.1:"+port); got != "connected" {
		t.Errorf("network of the session: %s", got)
	}
	if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/dev", w.spawner.Process.Pid)); err != nil || strings.Count(string(b), ":") > 1 {
		t.Errorf("the spawner has a network: %s %v", b, err)
	}
}

// C-07: an account whose home is missing and that may not log in. The home is
// not made; the order to stop works when the account is gone too.
func TestAccountWithoutHome(t *testing.T) {
	w := separate(t)
	p := w.ready(w.person("carol", 2003), "carol", "p")
	id := w.running(p)
	_, text := w.get(p, id, "/environment")
	var env map[string]string
	w.check(json.Unmarshal([]byte(text), &env))
	if !strings.HasPrefix(env["HOME"], "/tmp/home-") || env["SHELL"] != "/bin/bash" {
		t.Errorf("%v", env)
	}
	if _, err := os.Lstat("/home/nohome"); err == nil {
		t.Error("the home was made")
	}
	w.kill(w.spawner) // and with it what it remembers of accounts
	w.startSpawner()
	gone := p
	gone.account = "carol-is-gone"
	eventually(t, "the spawner", func() bool {
		_, err := w.try(w.order(quire.OrderStop, gone.in, func(o *quire.Order) { o.Session, o.Args = id, []byte(`{"by":"root"}`) }))
		return err == nil
	})
	w.await(id, quire.SessionEnded)
}

// P-01, P-03, P-10, P-11: what one person can do to another's session.
func TestNeighbors(t *testing.T) {
	w := separate(t)
	a, b := w.ready(w.alice(), "alice", "p"), w.ready(w.bob(), "bob", "p")
	mine, theirs := w.running(a), w.running(b)
	victim := w.ids(a, mine)
	dir := filepath.Join(w.run, "s", string(mine))
	for path, want := range map[string]string{
		"/connect?" + dir + "/app.sock":                                   "refused",
		"/read?" + dir + "/log":                                           "refused",
		"/read?" + dir + "/state.json":                                    "refused",
		"/kill?" + strconv.Itoa(victim.PID):                               "refused",
		"/kill?" + strconv.Itoa(victim.PPID):                              "refused",
		"/read?" + w.identities + "/compute/node.key":                     "refused",
		"/read?" + w.base + "/compute/sessions/" + string(mine) + ".json": "refused",
		"/read?" + w.base + "/spawner/sessions/" + string(mine) + ".json": "refused",
		"/connect?" + w.socket:                                            "connected", // and then closed: C-05
	} {
		if _, got := w.get(b, theirs, path); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %s", path, got)
		}
	}
	for _, name := range []string{"environ", "mem", "maps", "fd", "cwd", "root"} {
		path := fmt.Sprintf("/proc/%d/%s", victim.PID, name)
		if _, got := w.get(b, theirs, "/read?"+path); !strings.HasPrefix(got, "refused") {
			t.Errorf("%s: %s", path, got)
		}
	}
	// P-04: other people's processes are not even listed.
	if _, got := w.get(b, theirs, "/read?/proc/"+strconv.Itoa(victim.PID)+"/cmdline"); got != "refused: No such file or directory" {
		t.Errorf("command line: %s", got)
	}
	// The directory of sessions cannot be listed.
	if out := as(t, bobUID, "/bin/ls", filepath.Join(w.run, "s")); !strings.Contains(out, "Permission denied") {
		t.Errorf("sessions listed: %s", out)
	}
	// The project is closed to strangers.
	if out := as(t, bobUID, "/bin/ls", a.dir); !strings.Contains(out, "Permission denied") {
		t.Errorf("project listed: %s", out)
	}
	// C-16: bob's order cannot stop alice's session.
	_, err := w.try(w.order(quire.OrderStop, b.in, func(o *quire.Order) { o.Session, o.Args = mine, []byte(`{}`) }))
	if quire.KindOf(err) != quire.KindNotFound {
		t.Errorf("stopping a foreign session: %v", err)
	}
	// And his grant does not open it.
	if _, err := w.dial(mine, w.grant(b)); quire.KindOf(err) != quire.KindNotFound {
		t.Errorf("opening a foreign session: %v", err)
	}
	if w.await(mine, quire.SessionRunning).State != quire.SessionRunning {
		t.Error("alice's session is gone")
	}
}

// C-05: only compute may ask the spawner, whatever a process calls itself.
func TestSpawnerKnowsItsPeer(t *testing.T) {
	w := separate(t)
	const script = `
import socket, struct, sys
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])
q = b'{"op":"hello"}'
try:
    s.sendall(struct.pack('>I', len(q)) + q); print(len(s.recv(1000)))
except OSError: print(0)
`
	hello := []string{"-c", script, w.socket}
	for _, uid := range []int{bobUID, 0} {
		if out := strings.TrimSpace(as(t, uid, "/usr/bin/python3", hello...)); out != "0" {
			t.Errorf("uid %d was answered: %s", uid, out)
		}
	}
	// Root of a user namespace is still bob; so is who maps himself to compute's uid.
	for _, ns := range [][]string{{"-Ur"}, {"-U", "--map-user=900"}} {
		args := append(append(ns, "/usr/bin/python3"), hello...)
		if out := strings.TrimSpace(as(t, bobUID, "/usr/bin/unshare", args...)); out != "0" && !strings.Contains(out, "not permitted") {
			t.Errorf("%v was answered: %s", ns, out)
		}
	}
	if out := strings.TrimSpace(as(t, computeUID, "/usr/bin/python3", hello...)); out == "0" {
		t.Error("compute was not answered")
	}
}

// C-19: whatever the user puts in the socket's place, nobody else is reached.
func TestSocketReplaced(t *testing.T) {
	w := separate(t)
	a, b := w.ready(w.alice(), "alice", "p"), w.ready(w.bob(), "bob", "p")
	mine, theirs := w.running(a), w.running(b)
	sock := filepath.Join(w.run, "s", string(mine), "app.sock")
	other := filepath.Join(w.run, "s", string(theirs), "app.sock")
	for name, do := range map[string]func() error{
		"symlink to another's": func() error { return os.Symlink(other, sock) },
		"another's hard link": func() error { // not even possible: each session's directory is a file system of its own
			if err := os.Link(other, sock); !errors.Is(err, syscall.EXDEV) {
				return fmt.Errorf("a hard link from one session to another: %w", err)
			}
			return nil
		},
		"pipe":    func() error { return syscall.Mkfifo(sock, 0o666) },
		"file":    func() error { return os.WriteFile(sock, nil, 0o666) },
		"nothing": func() error { return nil },
	} {
		_ = os.Remove(sock)
		w.check(do())
		if c, err := w.dial(mine, w.grant(a)); quire.KindOf(err) != quire.KindUnavailable {
			t.Errorf("%s: %v %v", name, c, err)
		}
	}
	// The whole directory exchanged for a link to bob's.
	dir := filepath.Dir(sock)
	if err := os.Rename(dir, dir+"-aside"); !errors.Is(err, syscall.EBUSY) {
		t.Errorf("a session's file system was renamed: %v", err)
	}
	move := func(from, to string) {
		w.check(os.Mkdir(to, 0o755))
		w.check(syscall.Mount(from, to, "", syscall.MS_MOVE, ""))
		w.check(os.Remove(from))
	}
	move(dir, dir+"-aside")
	w.check(os.Symlink(filepath.Dir(other), dir))
	if _, err := w.dial(mine, w.grant(a)); quire.KindOf(err) != quire.KindUnavailable {
		t.Errorf("exchanged directory: %v", err)
	}
	w.check(os.Remove(dir))
	move(dir+"-aside", dir)
}

// C-02: accounts that no session runs as.
func TestAccountsRefused(t *testing.T) {
	w := separate(t)
	w.ready(w.alice(), "alice", "p")
	for _, a := range []person{
		{"", "root", 0}, {"", "toor", 0}, {"", "root", aliceUID}, {"", "nobody", 65534}, {"", "sysacct", 500}, {"", "daemon", 1},
		{"", "quire-compute", computeUID}, {"", "quire-compute", 5000}, {"", "alice", bobUID}, {"", "bob", aliceUID}, {"", "nobodyhere", 3999},
		{"", "alice:x", aliceUID}, {"", "alice\nroot", aliceUID}, {"", "-alice", aliceUID}, {"", "--help", aliceUID}, {"", "", aliceUID},
		{"", strings.Repeat("a", 300), aliceUID}, {"", "alice", 1<<32 - 1}, {"", "2001", aliceUID}, {"", "wakari", 2005},
	} {
		a.user = quire.NewUserID()
		p := w.newProject(a, "alice", "x")
		_, err := w.try(w.order(quire.OrderDirectory, p.in))
		if k := quire.KindOf(err); k != quire.KindForbidden && k != quire.KindFailed {
			t.Errorf("account %q %d: %v", a.account, a.uid, err)
		}
		if _, err := os.Lstat(p.dir); err == nil {
			t.Fatalf("account %q %d: a directory was made", a.account, a.uid)
		}
	}
}

// C-06: no word of a person reaches a shell or a path.
func TestNamesThatAreNoNames(t *testing.T) {
	w := separate(t)
	p := w.ready(w.alice(), "alice", "p")
	for _, dir := range []string{
		"/alice/a;id", "/alice/$(id)", "/alice/`id`", "/alice/a\nb", "/alice/--config=x", "/alice/-", "/alice/..", "/alice/../bob/p", "/alice/a/b",
		"/alice/.trash-" + string(p.id), "/alice/a\x00b", "/../etc/p", "/alice/", "//alice/p", "/alice", "/-alice/p", "/.alice/p",
	} {
		o := p
		o.dir = w.projects + dir
		if _, err := w.try(w.order(quire.OrderDirectory, o.in)); quire.KindOf(err) != quire.KindInvalid {
			t.Errorf("%q: %v", dir, err)
		}
	}
	for _, dir := range []string{"/etc", "/alice/p", "relative", "", w.projects} {
		o := p
		o.dir = dir
		if _, err := w.try(w.order(quire.OrderDirectory, o.in)); quire.KindOf(err) != quire.KindInvalid {
			t.Errorf("%q: %v", dir, err)
		}
	}
	w.script("probe", "unix", "%(socket)s")
	_, err := w.try(w.order(quire.OrderStart, p.in, session(quire.NewSessionID(), "probe"), func(o *quire.Order) {
		o.Args = []byte(`{"project_name":"a\u0000LD_PRELOAD=/x"}`)
	}))
	if quire.KindOf(err) != quire.KindInvalid {
		t.Errorf("zero byte: %v", err)
	}
	for _, url := range []string{
		"file:///etc", "ext::id", "/etc", "--upload-pack=id", "ssh://-oProxyCommand=id/x", "https://", "git@host:x", "HTTP\n://x", "ssh://-l@host/x", "",
	} {
		b, _ := json.Marshal(quire.CloneArgs{URL: url})
		if _, err := w.try(w.order(quire.OrderClone, p.in, func(o *quire.Order) { o.Args = b })); quire.KindOf(err) != quire.KindInvalid {
			t.Errorf("%q: %v", url, err)
		}
	}
}

// F-04, F-05: links and foreign directories where ours should be.
func TestPlantedDirectories(t *testing.T) {
	w := separate(t)
	w.ready(w.alice(), "alice", "first")
	w.check(os.Symlink("/etc", w.projects+"/bob"))
	p := w.newProject(w.bob(), "bob", "p")
	if _, err := w.try(w.order(quire.OrderDirectory, p.in)); quire.KindOf(err) != quire.KindFailed {
		t.Errorf("a link as owner's directory: %v", err)
	}
	w.check(os.Remove(w.projects + "/bob"))
	w.check(os.Mkdir(w.projects+"/bob", 0o755))
	w.check(os.Chown(w.projects+"/bob", bobUID, bobUID))
	if _, err := w.try(w.order(quire.OrderDirectory, p.in)); quire.KindOf(err) != quire.KindFailed {
		t.Errorf("a person's own directory as parent: %v", err)
	}
	w.check(os.Chown(w.projects+"/bob", 0, 0))
	w.check(os.Chmod(w.projects+"/bob", 0o777))
	if _, err := w.try(w.order(quire.OrderDirectory, p.in)); quire.KindOf(err) != quire.KindFailed {
		t.Errorf("a parent that others write to: %v", err)
	}
	w.check(os.Chmod(w.projects+"/bob", 0o711))
	w.check(os.Symlink("/home/alice", w.projects+"/bob/p"))
	if _, err := w.try(w.order(quire.OrderDirectory, p.in)); quire.KindOf(err) != quire.KindFailed {
		t.Errorf("a link as project: %v", err)
	}
	w.check(os.Remove(w.projects + "/bob/p"))
	w.check(os.Mkdir(w.projects+"/bob/p", 0o700)) // root's
	if _, err := w.try(w.order(quire.OrderDirectory, p.in)); quire.KindOf(err) != quire.KindConflict {
		t.Errorf("root's directory as project: %v", err)
	}

	a := w.ready(w.alice(), "alice", "second")
	w.check(os.Symlink("/home/alice/planted", a.dir+"/Welcome.ipynb"))
	w.check(os.Symlink("/home/alice/planted", a.dir+"/.quire"))
	r, err := w.try(w.order(quire.OrderSkeleton, a.in))
	if err == nil {
		t.Errorf("a link as our directory: %+v", r)
	}
	if _, err := os.Lstat("/home/alice/planted"); err == nil {
		t.Error("a link was followed")
	}
}

// The rights that root's process holds are those its documentation lists.
func TestRightsOfTheSpawner(t *testing.T) {
	w := separate(t)
	w.ready(w.alice(), "alice", "p")
	text, err := os.ReadFile("../docs/admin/root.md")
	w.check(err)
	number := map[string]uint{
		"CHOWN": unix.CAP_CHOWN, "DAC_OVERRIDE": unix.CAP_DAC_OVERRIDE, "DAC_READ_SEARCH": unix.CAP_DAC_READ_SEARCH, "FOWNER": unix.CAP_FOWNER,
		"FSETID": unix.CAP_FSETID, "KILL": unix.CAP_KILL, "SETGID": unix.CAP_SETGID, "SETUID": unix.CAP_SETUID, "SETPCAP": unix.CAP_SETPCAP,
		"SYS_ADMIN": unix.CAP_SYS_ADMIN, "SYS_PTRACE": unix.CAP_SYS_PTRACE, "AUDIT_WRITE": unix.CAP_AUDIT_WRITE,
	}
	var listed uint64
	for _, m := range regexp.MustCompile("`CAP_([A-Z_]+)`").FindAllStringSubmatch(string(text), -1) {
		n, known := number[m[1]]
		if !known {
			t.Errorf("CAP_%s: no such right", m[1])
		}
		listed |= 1 << n
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.spawner.Process.Pid))
	w.check(err)
	for _, set := range []string{"CapEff", "CapPrm", "CapBnd"} {
		if want := fmt.Sprintf("%s:\t%016x\n", set, listed); !strings.Contains(string(b), want) {
			t.Errorf("%q is missing in %s", want, b)
		}
	}
}

// inside runs a Python program in a session and returns what it printed, which
// is JSON of name to outcome.
func (w *world) inside(p project, id quire.SessionID, program string) map[string]string {
	w.t.Helper()
	const prelude = `
import ctypes, errno, glob, json, os, resource, signal, socket, subprocess, sys, time
said = {}
def attempt(name, f):
    try: said[name] = "done: %s" % (f(),)
    except OSError as e: said[name] = errno.errorcode.get(e.errno, str(e))
    except ValueError as e: said[name] = "EPERM"
`
	_, body := w.request(p, id, "POST", "/", prelude+program+"\nprint(json.dumps(said))\n")
	said := map[string]string{}
	if err := json.Unmarshal([]byte(body), &said); err != nil {
		w.t.Fatalf("%v: %s", err, body)
	}
	return said
}

// C-01, P-05, P-06, P-08, P-09, P-12, P-13, P-14, P-16, P-17, P-18, P-20: bob
// does from inside his session what a hostile person would.
func TestHostileSession(t *testing.T) {
	w := separate(t)
	a, b := w.ready(w.alice(), "alice", "p"), w.ready(w.bob(), "bob", "p")
	mine, theirs := w.running(a), w.running(b)
	_, control, _ := net.SplitHostPort(w.control.Addr().String())
	says := func(what, got string, want ...string) {
		t.Helper()
		for _, x := range want {
			if got == x {
				return
			}
		}
		t.Errorf("%s: %q, not %q", what, got, want)
	}

	// P-20: every TCP port of loopback, and every unix socket of the node: compute
	// answers nobody without a certificate, the spawner nobody but compute.
	sweep := w.inside(b, theirs, `
def tcp(family, host):
    found = []
    for port in range(1, 65536):
        s = socket.socket(family)
        if s.connect_ex((host, port)) == 0 and s.getsockname()[1] != port: found.append(port)
        s.close()
    return found
attempt("tcp4", lambda: tcp(socket.AF_INET, "127.0.0.1"))
attempt("tcp6", lambda: tcp(socket.AF_INET6, "::1"))
def ask(path):
    s = socket.socket(socket.AF_UNIX); s.settimeout(10)
    s.connect("\0" + path[1:] if path[0] == "@" else path)
    s.sendall(b"GET / HTTP/1.0\r\n\r\n")
    try: return s.recv(1000)
    except ConnectionResetError: return b""
own = "/s/%s/" % os.environ["QUIRE_SESSION"]
names = {l.split(None, 7)[7].strip() for l in open("/proc/net/unix") if len(l.split(None, 7)) > 7}
for path in names:
    if own not in path: attempt(path, lambda: ask(path))
`)
	if got := sweep["tcp4"]; got != "done: ["+control+"]" {
		t.Errorf("open ports: %s, not only %s", got, control)
	}
	says("ports of ::1", sweep["tcp6"], "done: []", "EADDRNOTAVAIL", "EAFNOSUPPORT")
	for path, got := range sweep {
		if strings.HasPrefix(path, "tcp") {
			continue
		}
		if path == w.socket {
			says(path, got, "done: b''", "EPIPE")
		} else {
			says(path, got, "EACCES", "ECONNREFUSED", "ENOENT")
		}
	}
	if _, ok := sweep[w.socket]; !ok {
		t.Errorf("the sweep missed the spawner: %v", sweep)
	}
	// C-01: what lets somebody speak to compute is a certificate of this site's, of
	// the right role.
	foreign := w.base + "/foreign"
	w.check(os.MkdirAll(foreign, 0o700))
	ca, err := remote.NewAuthority("test")
	w.check(err)
	w.check(remote.NewIdentity(ca, remote.RoleServer, quire.NewNodeID(), foreign))
	for name, dir := range map[string]string{"another site's": foreign, "the node's own": w.identities + "/compute"} {
		id, err := remote.LoadIdentity(dir)
		w.check(err)
		m := remote.NewMachine(id, w.id, func(ctx context.Context) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", w.control.Addr().String())
		})
		if _, err := m.Do(t.Context(), w.order(quire.OrderDirectory, b.in)); err == nil {
			t.Errorf("%s certificate was let in", name)
		}
	}
	plain := w.inside(b, theirs, `
import ssl
def talk(wrap, first):
    s = socket.create_connection(("127.0.0.1", `+control+`), 10)
    if wrap:
        c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT); c.check_hostname = False; c.verify_mode = ssl.CERT_NONE
        s = c.wrap_socket(s)
    s.sendall(first)
    try: return s.recv(100)
    except ssl.SSLError: return b"refused"
attempt("plain", lambda: talk(False, b"POST /do HTTP/1.1\r\nHost: x\r\n\r\n").split(b"\r\n")[0])
attempt("tls", lambda: talk(True, b"POST /do HTTP/1.1\r\nHost: x\r\n\r\n"))
`)
	says("plain HTTP to compute", plain["plain"], "done: b'HTTP/1.0 400 Bad Request'", "ECONNRESET")
	says("TLS without a certificate", plain["tls"], "done: b'refused'", "done: b''", "ECONNRESET", "EPIPE")

	got := w.inside(b, theirs, `
attempt("raw socket", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))
attempt("packet socket", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
for port in (80, 443): attempt("bind %d" % port, lambda: socket.socket().bind(("", port)))
def share():
    s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1); s.bind(("127.0.0.1", `+control+`))
attempt("share compute's port", share)
attempt("more files", lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (1 << 19, 1 << 19)))
attempt("core dumps", lambda: resource.setrlimit(resource.RLIMIT_CORE, (1, 1)))
attempt("files", lambda: resource.getrlimit(resource.RLIMIT_NOFILE)[1] <= 65536)
attempt("nobler than others", lambda: os.write(os.open("/proc/self/oom_score_adj", os.O_WRONLY), b"-900"))
def groups():
    for base in glob.glob("/sys/fs/cgroup/*") + ["/sys/fs/cgroup"]:
        for line in open("/proc/self/cgroup"):
            where = base + line.strip().split(":", 2)[2]
            for name in ("cgroup.procs", "tasks", "pids.max", "memory.max", "memory.limit_in_bytes", "cpu.cfs_quota_us", "cpu.max", "cgroup.kill", "cgroup.freeze"):
                for at in (where, os.path.dirname(where)):
                    if os.path.exists(at + "/" + name): yield at + "/" + name
files = sorted(set(groups()))
attempt("found control groups", lambda: len(files) > 3)
for f in files: attempt("write " + f, lambda: open(f, "w"))
for d in ("/usr/lib/python3/dist-packages", "/usr/bin", "/etc", os.path.dirname(sys.argv[0] or "/usr/bin/x")):
    attempt("write in " + d, lambda: os.open(d + "/planted", os.O_CREAT | os.O_WRONLY))
attempt("link to a program", lambda: os.link("/usr/bin/python3", "/tmp/linked"))
shm = os.statvfs("/dev/shm"); attempt("shm", lambda: shm.f_blocks * shm.f_frsize <= 256 << 20)
attempt("shared names", lambda: sorted(os.listdir("/tmp") + os.listdir("/dev/shm")))
libc = ctypes.CDLL(None, use_errno=True)
def watch(path):
    if libc.inotify_add_watch(libc.inotify_init(), path.encode(), 0xfff) < 0: raise OSError(ctypes.get_errno(), "")
attempt("watch alice's project", lambda: watch("`+a.dir+`"))
attempt("watch alice's session", lambda: watch("`+filepath.Join(w.run, "s", string(mine))+`"))
attempt("watch the sessions", lambda: watch("`+filepath.Join(w.run, "s")+`"))
attempt("ioctl TIOCSTI", lambda: __import__("fcntl").ioctl(0, 0x5412, b"x"))
`)
	want := map[string][]string{
		"raw socket": {"EPERM"}, "packet socket": {"EPERM"}, "bind 80": {"EACCES"}, "bind 443": {"EACCES"}, "share compute's port": {"EADDRINUSE"},
		"more files": {"EPERM"}, "core dumps": {"EPERM"}, "files": {"done: True"}, "nobler than others": {"EACCES", "EPERM"}, "found control groups": {"done: True"},
		"link to a program": {"EXDEV", "EPERM"}, "shm": {"done: True"}, "shared names": {"done: []"}, "ioctl TIOCSTI": {"ENOTTY"},
		"watch alice's project": {"EACCES"}, "watch alice's session": {"EACCES"}, "watch the sessions": {"EACCES"},
	}
	for what, outcome := range got {
		if strings.HasPrefix(what, "write ") {
			says(what, outcome, "EACCES", "EROFS", "EPERM")
		} else {
			says(what, outcome, want[what]...)
		}
		delete(want, what)
	}
	if len(want) != 0 {
		t.Errorf("not tried: %v", want)
	}

	// P-13: in namespaces of his own he lays a directory over his project and over
	// the sessions; what the node does there then happens in the real ones.
	over := w.inside(b, theirs, `
p = subprocess.Popen(["/usr/bin/unshare", "-Urm", "/bin/sh", "-c", "mount -t tmpfs x '`+b.dir+`' && mount -t tmpfs x '`+w.run+`' && echo over; exec sleep 1000"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
attempt("over", lambda: p.stdout.readline().strip())
`)
	says("namespaces", over["over"], "done: over", "done: ") // where the kernel lets nobody make any, there is nothing to mislead
	w.do(w.order(quire.OrderSkeleton, b.in))
	if _, err := os.Lstat(b.dir + "/.quire/skeleton"); err != nil {
		t.Errorf("the node acted in somebody's namespace: %v", err)
	}
	second := w.running(b)

	// P-14: a stopped app holds up nobody, and ends when it must.
	v := w.ids(b, theirs)
	w.check(syscall.Kill(v.PID, syscall.SIGSTOP))
	c, err := w.dial(theirs, w.grant(b))
	w.check(err)
	fmt.Fprintf(c, "GET / HTTP/1.0\r\n\r\n")
	if _, body := w.get(b, second, "/"); !strings.HasPrefix(body, "hello") {
		t.Errorf("beside a stopped app: %s", body)
	}
	if _, body := w.get(a, mine, "/"); !strings.HasPrefix(body, "hello") {
		t.Errorf("beside a stopped app: %s", body)
	}
	w.down <- quire.Feed{Full: true, Time: time.Now(), Seq: 1, Revocations: []quire.Revocation{{Seq: 1, User: b.user, Project: b.id, At: time.Now()}}}
	w.await(theirs, quire.SessionEnded)
	w.await(second, quire.SessionEnded)
	c.Close()
	if out := as(t, bobUID, "/usr/bin/pgrep", "-u", strconv.Itoa(bobUID), "-a", "sleep"); strings.Contains(out, "1000") {
		t.Errorf("bob outlives his session: %s", out)
	}
	// A machine that does not let root ask for this leaves it as it was.
	const own = "/proc/self/oom_score_adj"
	score, err := os.ReadFile(own)
	w.check(err)
	wanted := strings.TrimSpace(string(score))
	if os.WriteFile(own, []byte("-1000"), 0) == nil {
		w.check(os.WriteFile(own, score, 0))
		wanted = "-900"
	}
	if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", w.spawner.Process.Pid)); err != nil || strings.TrimSpace(string(b)) != wanted {
		t.Errorf("the spawner is killed with the others: %s %v, not %s", b, err, wanted)
	}
}
