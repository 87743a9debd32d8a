package compute_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"quire"
)

// The life of a project's directory. F-17: the node says what it lies on.
func TestProjectDirectory(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		h, err := w.machine.Health(t.Context())
		w.check(err)
		if s := h.Storage; !s.Fit || s.Root != w.projects || s.Type == "" || !quire.ValidID('v', string(s.ID)) || h.DiskTotal == 0 || h.DiskTotal != s.Total || h.DiskFree != s.Free {
			t.Errorf("%+v", h)
		}
		p := w.ready(w.alice(), "alice", "p")
		w.do(w.order(quire.OrderSkeleton, p.in))
		w.do(w.order(quire.OrderEnvironment, p.in))
		info, err := os.Stat(p.dir)
		w.check(err)
		if info.Mode().Perm() != 0o771 || info.Mode()&os.ModeSetgid == 0 {
			t.Errorf("mode %v", info.Mode())
		}
		info, err = os.Stat(p.dir + "/Welcome.ipynb")
		w.check(err)
		if info.Mode().Perm() != 0o660 {
			t.Errorf("mode of a file %v", info.Mode())
		}
		info, err = os.Stat(p.dir + "/public/README.txt")
		w.check(err)
		if info.Mode().Perm()&0o004 == 0 {
			t.Errorf("mode of a public file %v", info.Mode())
		}
		pip := exec.Command(p.dir+"/envs/default/bin/pip", "--version")
		if out, err := pip.CombinedOutput(); err != nil || !strings.Contains(string(out), "pip ") {
			t.Errorf("pip: %s %v", out, err)
		}
		py := exec.Command(p.dir+"/envs/default/bin/python", "-c", "import numpy, pandas, matplotlib, ipykernel, sys; print(sys.prefix)")
		if out, err := py.CombinedOutput(); err != nil || strings.TrimSpace(string(out)) != p.dir+"/envs/default" {
			t.Errorf("python: %s %v", out, err)
		}
		// What people delete does not come back.
		w.check(os.Remove(p.dir + "/Welcome.ipynb"))
		if r := w.do(w.order(quire.OrderSkeleton, p.in)); !r.Already {
			t.Errorf("%+v", r)
		}
		// The team gets its entries; twice is once.
		team := func(o *quire.Order) { o.Args = []byte(`{"editors":[2002],"viewers":[2003]}`) }
		if r := w.do(w.order(quire.OrderPermissions, p.in, team)); r.Already {
			t.Errorf("%+v", r)
		}
		if r := w.do(w.order(quire.OrderPermissions, p.in, team)); !r.Already {
			t.Errorf("%+v", r)
		}
		out, err := exec.Command("getfacl", "-pc", p.dir).Output()
		for _, want := range []string{"user:bob:rwx", "user:carol:r-x", "other::--x", "default:user:bob:rwx", "default:other::---"} {
			want = map[bool]string{true: strings.NewReplacer("bob", "2002", "carol", "2003").Replace(want), false: want}[os.Geteuid() != 0]
			if err == nil && !strings.Contains(string(out), want) {
				t.Errorf("%s is missing in\n%s", want, out)
			}
		}
		many := quire.TeamArgs{}
		for i := range uint32(401) {
			many.Editors = append(many.Editors, 10000+i)
		}
		b, _ := json.Marshal(many)
		if _, err := w.try(w.order(quire.OrderPermissions, p.in, func(o *quire.Order) { o.Args = b })); quire.KindOf(err) != quire.KindInvalid {
			t.Errorf("401 people: %v", err)
		}
		w.do(w.order(quire.OrderTrash, p.in))
		if r := w.do(w.order(quire.OrderTrash, p.in)); !r.Already {
			t.Errorf("%+v", r)
		}
		if _, err := os.Stat(p.dir); err == nil {
			t.Error("it is still there")
		}
		w.do(w.order(quire.OrderRestore, p.in))
		if _, err := os.Stat(p.dir + "/public/README.txt"); err != nil {
			t.Error(err)
		}
		w.do(w.order(quire.OrderTrash, p.in))
		// Its name was taken meanwhile.
		again := w.newProject(p.person, "alice", "p")
		w.do(w.order(quire.OrderDirectory, again.in))
		if _, err := w.try(w.order(quire.OrderRestore, p.in)); quire.KindOf(err) != quire.KindConflict {
			t.Errorf("restore over another: %v", err)
		}
		w.check(os.Mkdir(w.projects+"/alice/.trash-"+string(p.id)+"/closed", 0o500))
		if os.Geteuid() == 0 {
			w.check(exec.Command("chown", strconv.Itoa(int(p.uid)), w.projects+"/alice/.trash-"+string(p.id)+"/closed").Run())
		}
		w.do(w.order(quire.OrderPurge, p.in))
		if r := w.do(w.order(quire.OrderPurge, p.in)); !r.Already {
			t.Errorf("%+v", r)
		}
		if _, err := os.Stat(w.projects + "/alice/.trash-" + string(p.id)); err == nil {
			t.Error("it is still there")
		}
	})
}

// A project from a repository: as the user, over http, resumable.
func TestClone(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		repo := w.base + "/repo.git"
		for _, args := range [][]string{
			{"init", "-q", "-b", "main", w.base + "/work"}, {"-C", w.base + "/work", "config", "user.email", "a@b.c"}, {"-C", w.base + "/work", "config", "user.name", "A"},
			{"-C", w.base + "/work", "commit", "-q", "--allow-empty", "-m", "first"}, {"clone", "-q", "--bare", w.base + "/work", repo},
		} {
			w.check(os.WriteFile(w.base+"/analysis.py", []byte("print(1)\n"), 0o644))
			if out, err := exec.Command("git", args...).CombinedOutput(); err != nil {
				t.Fatalf("git %v: %s", args, out)
			}
		}
		git := &cgi.Handler{Stderr: io.Discard, Path: "/usr/lib/git-core/git-http-backend", Env: []string{"GIT_PROJECT_ROOT=" + w.base, "GIT_HTTP_EXPORT_ALL=1", "HOME=/nonexistent", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"}}
		server := httptest.NewServer(http.HandlerFunc(git.ServeHTTP))
		defer server.Close()
		p := w.ready(w.alice(), "alice", "p")
		args := func(o *quire.Order) { o.Args, _ = json.Marshal(quire.CloneArgs{URL: server.URL + "/repo.git"}) }
		w.check(os.Mkdir(p.dir+"/.quire-clone", 0o777)) // a clone that was cut off
		if os.Geteuid() == 0 {
			w.check(exec.Command("chown", strconv.Itoa(int(p.uid)), p.dir+"/.quire-clone").Run())
		}
		if r := w.do(w.order(quire.OrderClone, p.in, args)); r.Already {
			t.Errorf("%+v", r)
		}
		if r := w.do(w.order(quire.OrderClone, p.in, args)); !r.Already {
			t.Errorf("%+v", r)
		}
		if _, err := os.Stat(p.dir + "/.git/HEAD"); err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(p.dir + "/.quire-clone"); err == nil {
			t.Error("the staging directory is left")
		}
		q := w.ready(w.alice(), "alice", "q")
		_, err := w.try(w.order(quire.OrderClone, q.in, func(o *quire.Order) {
			o.Args, _ = json.Marshal(quire.CloneArgs{URL: server.URL + "/nothing.git"})
		}))
		if quire.KindOf(err) != quire.KindFailed || !strings.Contains(err.Error(), "not found") {
			t.Errorf("%v", err)
		}
	})
}
