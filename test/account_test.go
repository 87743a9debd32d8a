package test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// as runs a shell command as a Linux account, as somebody at another terminal of
// the node does: no session of ours.
func as(name, script string) (string, error) {
	out, err := exec.Command("/usr/sbin/runuser", "-u", name, "--", "/bin/bash", "-c", script).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

func must(t *testing.T, name, script string) string {
	t.Helper()
	out, err := as(name, script)
	if err != nil {
		t.Fatalf("%s: %s: %v: %s", name, script, err, out)
	}
	return out
}

// lists is what getfacl says, without comments.
func lists(t *testing.T, path string) string {
	t.Helper()
	out, err := exec.Command("getfacl", "-cpE", path).CombinedOutput()
	if err != nil {
		t.Fatalf("%s", out)
	}
	return string(out)
}

func wants(t *testing.T, what, path string, lines ...string) {
	t.Helper()
	have := lists(t, path)
	for _, l := range lines {
		no := strings.HasPrefix(l, "!")
		if strings.Contains("\n"+have, "\n"+strings.TrimPrefix(l, "!")) == no {
			t.Errorf("%s: %s: %q\n%s", what, path, l, have)
		}
	}
}

// kernelOf opens a person's notebook and a kernel in it.
func kernelOf(t *testing.T, ctx context.Context, b *Browser, path string) *Kernel {
	t.Helper()
	n, err := b.OpenNotebook(ctx, path)
	if err != nil {
		t.Fatal(err)
	}
	id, err := n.NewKernel(ctx)
	if err != nil {
		t.Fatal(err)
	}
	k, err := n.Connect(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.Close() })
	return k
}

type disk struct {
	Shared   bool
	Repairs  bool
	UpToDate bool   `json:"up_to_date"`
	Repair   string `json:"repair"`
	Repaired string `json:"repaired"`
	Revoked  []struct {
		Name        string
		Nodes, Done int
		Seconds     float64
		Swept, Held bool
		Left        int
		Report      []struct {
			Kind     string
			N        int
			Examples []string
		}
	}
}

// onDisk waits until the project's directory says what the team is.
func onDisk(t *testing.T, ctx context.Context, b *Browser, path string) (d disk) {
	t.Helper()
	Eventually(t, 10*time.Second, "the disk follows the team", func() error {
		if err := b.API(ctx, "GET", "/projects"+path+"/permissions", nil, &d); err != nil {
			return err
		}
		if !d.UpToDate || d.Repairs {
			return fmt.Errorf("%+v", d)
		}
		for _, r := range d.Revoked {
			if !r.Swept || r.Done != r.Nodes {
				return fmt.Errorf("%+v", d)
			}
		}
		return nil
	})
	return d
}

// Owner, editor, viewer and a stranger, each with an account of his own: the
// permissions of what is made, moved in, closed, linked, cloned, installed,
// unpacked and saved; and of all that once more after a repair (F-11, F-12).
func TestPeopleOnDisk(t *testing.T) {
	s := Up(t)
	ctx := within(t, 4*time.Minute)
	ada := s.Admin(ctx, "ada", password)
	ben := s.Person(ctx, ada, "ben", password)
	s.Person(ctx, ada, "vic", password)
	s.Person(ctx, ada, "eve", password)
	running(t, ctx, ada, "/ada/Welcome")
	for name, role := range map[string]string{"ben": "editor", "vic": "viewer"} {
		if err := ada.API(ctx, "PUT", "/projects/ada/Welcome/team/"+name, map[string]any{"role": role}, nil); err != nil {
			t.Fatal(err)
		}
	}
	onDisk(t, ctx, ada, "/ada/Welcome")
	// Strangers with an account: one who owns a project gets one at its start.
	eve := s.SignIn(ctx, "eve", password)
	if err := eve.API(ctx, "POST", "/projects", map[string]any{"name": "Own"}, nil); err != nil {
		t.Fatal(err)
	}
	if out, err := s.Run("", "start-project", "eve/Own"); err != nil {
		t.Fatalf("%s %v", out, err)
	}
	const dir = "/projects/ada/Welcome"
	wants(t, "the project", dir, "user::rwx", "user:ben:rwx", "user:vic:r-x", "group::rwx", "mask::rwx", "other::--x", "default:user:ada:rwx", "default:user:ben:rwx", "default:user:vic:r-x", "default:other::---", "!user:eve")
	k := kernelOf(t, ctx, ben, "/ada/Welcome")
	if out, err := k.Run(ctx, "import os, pwd; pwd.getpwuid(os.getuid()).pw_name, os.path.expanduser('~'), oct(os.umask(0o7))"); err != nil || out != "('ben', '/home/ben', '0o7')" {
		t.Fatalf("%s %v", out, err)
	}
	if info, err := os.Stat("/home/ben"); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("home: %v %v", info, err)
	}

	const out = "/projects/outside" // on the same disk, so that mv and ln are what they are
	if err := errors.Join(os.Mkdir(out, 0o700), os.Lchown(out, ownerUID(t, "ben"), -1)); err != nil {
		t.Fatal(err)
	}
	zip := "python3 -c 'import zipfile; z = zipfile.ZipFile(\"/tmp/z.zip\", \"w\"); z.writestr(\"zipped/z.txt\", \"z\"); z.close()'"
	steps := []string{
		"mkdir made && echo 1 > made/new.txt && echo 1 > made/shared.txt",
		"mkdir -p " + out + "/old/deep && echo 2 > " + out + "/old/deep/moved.txt && chmod -R go-rwx " + out + "/old && mv " + out + "/old moved",
		"echo 3 > closed.txt && chmod 600 closed.txt && echo 3 > run.sh && chmod 700 run.sh && mkdir shut && echo 3 > shut/in.txt && chmod 700 shut",
		"git init -q ~/repo && cd ~/repo && git config user.email b@x && git config user.name b && echo 4 > g.txt && git add . && git commit -qm x && git clone -q ~/repo " + dir + "/cloned",
		zip + " && python3 -m zipfile -e /tmp/z.zip . && rm /tmp/z.zip",
		"mkdir -p public && echo 6 > public/page.html && chmod 600 public/page.html",
		"echo 7 > " + out + "/two && ln " + out + "/two linked.txt",
		"printf 'n' > $'new\\nline.txt' && printf 'x' > $'\\xff<b>.txt' && chmod 600 $'new\\nline.txt' $'\\xff<b>.txt'",
	}
	for _, step := range steps {
		must(t, "ben", "umask 0007; cd "+dir+" && "+step)
	}
	must(t, "ben", "umask 022; echo o > "+out+"/open.txt && mv "+out+"/open.txt "+dir)
	wheel(t, dir)
	must(t, "ben", "setfacl -m u:eve:r-- "+dir+"/made/shared.txt")
	if out, err := k.Run(ctx, "import nbformat; nbformat.write(nbformat.v4.new_notebook(), 'saved.ipynb')"); err != nil || out != "" {
		t.Logf("saving: %s %v", out, err)
	}
	team := []string{"user::rw-", "user:ada:rw-", "user:vic:r--", "other::---"}
	inherited := []string{"user::rw-", "user:ada:rwx", "mask::rw-", "other::---"} // rwx as the mask lets it: rw
	wants(t, "made", dir+"/made/new.txt", inherited...)
	wants(t, "cloned", dir+"/cloned/g.txt", inherited...)
	wants(t, "unzipped", dir+"/zipped/z.txt", inherited...)
	if out, err := as("ada", "cat "+dir+"/made/new.txt && echo more >> "+dir+"/made/new.txt"); err != nil {
		t.Errorf("the owner cannot edit what a member made: %s", out)
	}
	if out, err := as("vic", "cat "+dir+"/made/new.txt"); err != nil {
		t.Errorf("a viewer cannot read: %s", out)
	}
	if out, err := as("vic", "echo x >> "+dir+"/made/new.txt; echo x > "+dir+"/v.txt"); err == nil {
		t.Errorf("a viewer can write: %s", out)
	}
	if out, err := as("eve", "cat "+dir+"/cloned/g.txt || ls "+dir); err == nil {
		t.Errorf("a stranger can read: %s", out)
	}
	if out, err := as("ada", "cat "+dir+"/closed.txt"); err == nil {
		t.Errorf("chmod 600 is undone before a repair: %s", out)
	}

	said, err := s.Run("", "doctor", "acl", "ada/Welcome")
	if err != nil || !strings.Contains(said, "open to everybody outside public: \"open.txt\"") || !strings.Contains(said, "closed.txt") || !strings.Contains(said, "hard link") || !strings.Contains(said, "mask") {
		t.Errorf("doctor: %v\n%s", err, said)
	}
	if out, err := s.Run("", "doctor", "storage"); err != nil || !strings.HasPrefix(out, "/projects: ") || !strings.Contains(out, "Owners and access lists work.") || !strings.Contains(out, "Its identity is v_") {
		t.Errorf("doctor of the storage: %v\n%s", err, out)
	}
	// The next start repairs, beside the apps.
	if _, err := ada.Submit(ctx, ada.Portal+"/ada/Welcome/stop", url.Values{}); err != nil {
		t.Fatal(err)
	}
	Eventually(t, 20*time.Second, "it stopped", func() error {
		var p project
		if err := ada.API(ctx, "GET", "/projects/ada/Welcome", nil, &p); err != nil || p.State != "stopped" {
			return fmt.Errorf("%+v %v", p, err)
		}
		return nil
	})
	before := onDisk(t, ctx, ada, "/ada/Welcome").Repaired
	if out, err := s.Run("", "start-project", "ada/Welcome"); err != nil {
		t.Fatalf("%s %v", out, err)
	}
	Eventually(t, 20*time.Second, "the repair is over", func() error {
		if d := onDisk(t, ctx, ada, "/ada/Welcome"); d.Repaired == before {
			return fmt.Errorf("%+v", d)
		}
		return nil
	})
	for _, f := range []string{"closed.txt", "moved/deep/moved.txt", "new\nline.txt", "\xff<b>.txt"} {
		wants(t, "after the repair", dir+"/"+f, team...)
	}
	for _, d := range []string{"moved", "moved/deep", "shut"} {
		wants(t, "after the repair", dir+"/"+d, "user::rwx", "user:ada:rwx", "user:vic:r-x", "mask::rwx", "other::---", "default:user:ben:rwx", "default:user:vic:r-x", "default:other::---")
	}
	wants(t, "a program stays one", dir+"/run.sh", "user::rwx", "user:ada:rwx", "user:vic:r-x")
	wants(t, "public", dir+"/public/page.html", "user::rw-", "other::r--")
	wants(t, "an outsider's entry is kept", dir+"/made/shared.txt", "user:eve:r--")
	wants(t, "a hard link is left alone", dir+"/linked.txt", "!user:ada", "!mask")
	wants(t, "the other name, too", out+"/two", "!user:ada")
	if out, err := as("eve", "cat "+dir+"/public/page.html"); err != nil || out != "6" {
		t.Errorf("a stranger cannot read what is public: %s", out)
	}
	if out, err := as("eve", "cat "+dir+"/open.txt"); err == nil {
		t.Errorf("a stranger reads what was moved in with mode 644, by its name: %s", out)
	}
	if out, err := as("ada", "cat "+dir+"/moved/deep/moved.txt "+dir+"/shut/in.txt && echo y > "+dir+"/moved/deep/ada.txt"); err != nil {
		t.Errorf("the owner: %s", out)
	}
	if out, err := s.Run("", "doctor", "acl", "ada/Welcome"); err != nil || strings.Contains(out, "closed.txt") || strings.Contains(out, "public") {
		t.Errorf("doctor after the repair: %v\n%s", err, out)
	}
	// Public, a stranger sees the page; private again, the address that he kept is
	// dead.
	for _, public := range []bool{true, false} {
		if err := ada.API(ctx, "PATCH", "/projects/ada/Welcome", map[string]any{"public": public}, nil); err != nil {
			t.Fatal(err)
		}
		if p, err := eve.Open(ctx, eve.Portal+"/ada/Welcome"); err != nil || p.Status != map[bool]int{true: 200, false: 404}[public] {
			t.Errorf("public %v: %+v %v", public, p, err)
		}
	}
}

// wheel installs a package as ben and imports it as the owner.
func wheel(t *testing.T, dir string) {
	t.Helper()
	must(t, "ben", `mkdir -p ~/w && cd ~/w && python3 - <<'P'
import zipfile
z = zipfile.ZipFile("friendly-1.0-py3-none-any.whl", "w")
z.writestr("friendly.py", "word = 'hello'\n")
z.writestr("friendly-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: friendly\nVersion: 1.0\n")
z.writestr("friendly-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
z.writestr("friendly-1.0.dist-info/RECORD", "")
z.close()
P
umask 0077; PIP_CACHE_DIR=`+dir+`/envs/.cache/pip `+dir+`/envs/default/bin/pip install --no-index --no-deps ~/w/friendly-1.0-py3-none-any.whl`)
	if out, err := as("ada", dir+"/envs/default/bin/python -c 'import friendly; print(friendly.word)'"); err != nil || out != "hello" {
		t.Errorf("the owner cannot import what a member installed: %s", out)
	}
	if out, err := as("vic", dir+"/envs/default/bin/python -c 'import friendly; print(friendly.word)'"); err != nil || out != "hello" {
		t.Errorf("a viewer cannot import what a member installed: %s", out)
	}
}

// Taking somebody off the team shuts him out everywhere at once: his terminal,
// and whatever else of his has to do with the project.
func TestRemovalOnDisk(t *testing.T) {
	s := Up(t)
	ctx := within(t, 3*time.Minute)
	ada := s.Admin(ctx, "ada", password)
	ben := s.Person(ctx, ada, "ben", password)
	running(t, ctx, ada, "/ada/Welcome")
	if err := ada.API(ctx, "PUT", "/projects/ada/Welcome/team/ben", map[string]any{"role": "editor"}, nil); err != nil {
		t.Fatal(err)
	}
	onDisk(t, ctx, ada, "/ada/Welcome")
	const dir = "/projects/ada/Welcome"
	k := kernelOf(t, ctx, ben, "/ada/Welcome")
	if out, err := k.Run(ctx, "1+1"); err != nil || out != "2" {
		t.Fatal(out, err)
	}
	must(t, "ben", "echo his > "+dir+"/ben.txt")
	leavesBehind(t, dir)
	seen, err := ben.Open(ctx, ben.Portal+"/ada/Welcome")
	if err != nil || seen.Status != 200 || seen.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("a private page may be kept: %+v %v", seen, err)
	}
	// Elsewhere on the node: a working directory, an open file, a map, a mount of
	// his own; and one with nothing of the project, which stays.
	start := func(script string) *exec.Cmd {
		c := exec.Command("/usr/sbin/runuser", "-u", "ben", "--", "/bin/bash", "-c", script+"; echo ready; sleep 1000 & wait")
		c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // all of it ends with the test
		out, err := c.StdoutPipe()
		if err == nil {
			err = c.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		line := make([]byte, 5)
		if _, err := out.Read(line); err != nil || string(line) != "ready" {
			t.Fatalf("%s: %s %v", script, line, err)
		}
		t.Cleanup(func() { syscall.Kill(-c.Process.Pid, syscall.SIGKILL) })
		return c
	}
	inside := map[string]*exec.Cmd{
		"directory": start("cd " + dir + "/public"),
		"file":      start("exec 7<>" + dir + "/ben.txt"),
	}
	other := start("cd ~")
	theirs := exec.Command("/usr/sbin/runuser", "-u", "ada", "--", "sleep", "1000")
	theirs.Dir = dir
	theirs.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := theirs.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Kill(-theirs.Process.Pid, syscall.SIGKILL) })
	t.Cleanup(func() { theirs.Process.Kill(); theirs.Wait() })
	began := time.Now()
	if err := ada.API(ctx, "DELETE", "/projects/ada/Welcome/team/ben", nil, nil); err != nil {
		t.Fatal(err)
	}
	gone := make(chan error, 1)
	go func() { _, err := k.Run(ctx, "1+1"); gone <- err }()
	select {
	case err := <-gone:
		if err == nil {
			t.Log("a last answer was still under way")
		}
	case <-time.After(5 * time.Second):
		t.Error("his kernel's socket is open after 5 s")
	}
	for what, c := range inside {
		dead := make(chan struct{})
		go func() { c.Wait(); close(dead) }()
		select {
		case <-dead:
		case <-time.After(5*time.Second - min(time.Since(began), 4*time.Second)):
			t.Errorf("his process with a %s in the project lives", what)
		}
	}
	t.Logf("all ended after %v", time.Since(began).Round(time.Millisecond))
	d := onDisk(t, ctx, ada, "/ada/Welcome")
	if len(d.Revoked) != 1 || d.Revoked[0].Name != "ben" || d.Revoked[0].Seconds > 5 || d.Revoked[0].Nodes != 1 {
		t.Errorf("%+v", d)
	}
	t.Logf("revoked on %d of %d nodes in %.2f s", d.Revoked[0].Done, d.Revoked[0].Nodes, d.Revoked[0].Seconds)
	if syscall.Kill(other.Process.Pid, 0) != nil || syscall.Kill(theirs.Process.Pid, 0) != nil {
		t.Error("a process that has nothing to do with it, or another person's, was ended")
	}
	for _, line := range processesOf("ben") {
		if strings.Contains(line, "jupyter") || strings.Contains(line, "ipykernel") {
			t.Errorf("still running: %s", line)
		}
	}
	wants(t, "the project", dir, "user:ben:---", "!default:user:ben")
	if out, err := as("ben", "cat "+dir+"/ben.txt || cat "+dir+"/public/README.txt || ls "+dir); err == nil {
		t.Errorf("he still reads: %s", out)
	}
	filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err == nil && path != dir && e.Type()&os.ModeSymlink == 0 && strings.Contains(lists(t, path), "user:ben:") {
			info, err := e.Info()
			if err == nil && info.Sys().(*syscall.Stat_t).Uid != uint32(ownerUID(t, "ben")) {
				t.Errorf("%s still names him\n%s", path, lists(t, path))
				return filepath.SkipAll
			}
		}
		return nil
	})
	knowsNothing(t, ctx, ben)
	isTold(t, ctx, ada, d, dir)
	// Back again, he is in at once.
	if err := ada.API(ctx, "PUT", "/projects/ada/Welcome/team/ben", map[string]any{"role": "editor"}, nil); err != nil {
		t.Fatal(err)
	}
	onDisk(t, ctx, ada, "/ada/Welcome")
	must(t, "ben", "cat "+dir+"/ben.txt")
	// Lowered to a viewer: what he holds open to write ends, and he reads on.
	writes := start("exec 7>>" + dir + "/public/README.txt")
	if err := ada.API(ctx, "PUT", "/projects/ada/Welcome/team/ben", map[string]any{"role": "viewer"}, nil); err != nil {
		t.Fatal(err)
	}
	dead := make(chan struct{})
	go func() { writes.Wait(); close(dead) }()
	select {
	case <-dead:
	case <-time.After(5 * time.Second):
		t.Error("he still holds a file to write")
	}
	onDisk(t, ctx, ada, "/ada/Welcome")
	must(t, "ben", "cat "+dir+"/Welcome.ipynb")
	if out, err := as("ben", "cd "+dir+" && (echo x > new || echo x >> Welcome.ipynb || mv Welcome.ipynb y || ln Welcome.ipynb z)"); err == nil {
		t.Errorf("a viewer writes: %s", out)
	}
	if err := ben.API(ctx, "POST", "/projects/ada/Welcome/apps/terminal", nil, nil); err == nil || !strings.Contains(err.Error(), "403") {
		t.Errorf("a viewer opens what writes: %v", err)
	}
	wants(t, "a viewer", dir, "user:ben:r-x", "default:user:ben:r-x")

	// Disabled, he is out everywhere, also of what is his own; enabled, in again.
	ben = s.SignIn(ctx, "ben", password)
	if out, err := newProject(t, ctx, s, ben, "ben", "Own"); err != nil {
		t.Fatalf("%s %v", out, err)
	}
	here, own := start("cd "+dir), start("cd /projects/ben/Own")
	if err := ada.API(ctx, "PATCH", "/users/ben", map[string]any{"disabled": true}, nil); err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]*exec.Cmd{"another's": here, "his own": own} {
		dead := make(chan struct{})
		go func() { c.Wait(); close(dead) }()
		select {
		case <-dead:
		case <-time.After(20 * time.Second):
			t.Errorf("his process in %s project lives", what)
		}
	}
	onDisk(t, ctx, ada, "/ada/Welcome")
	wants(t, "who is disabled", dir, "user:ben:---", "!default:user:ben")
	if out, err := as("ben", "cat "+dir+"/Welcome.ipynb"); err == nil {
		t.Errorf("he still reads: %s", out)
	}
	Eventually(t, 10*time.Second, "it is said whose directory it is", func() error {
		p, err := ada.Open(ctx, ada.Portal+"/ben/Own/settings/permissions")
		if err != nil || !strings.Contains(p.Body, "Hand the project over.") {
			return fmt.Errorf("%+v %v", p, err)
		}
		return nil
	})
	if err := ada.API(ctx, "PATCH", "/users/ben", map[string]any{"disabled": false}, nil); err != nil {
		t.Fatal(err)
	}
	onDisk(t, ctx, ada, "/ada/Welcome")
	wants(t, "who is enabled again", dir, "user:ben:r-x", "default:user:ben:r-x")
	must(t, "ben", "cat "+dir+"/Welcome.ipynb")
	manyHands(t, ctx, ada, dir)
}

// leavesBehind is what a member does who knows that he will be removed.
func leavesBehind(t *testing.T, dir string) {
	const out = "/projects/outside"
	if err := errors.Join(os.Mkdir(out, 0o700), os.Lchown(out, ownerUID(t, "ben"), -1)); err != nil {
		t.Fatal(err)
	}
	must(t, "ada", "umask 7; cd "+dir+" && echo hers > hers.txt && echo p > pair1 && ln pair1 pair2 && setfacl -m g:users:r-x,d:g:users:r-x . && setfacl -m u:ben:rwx pair1")
	must(t, "ben", "cd "+dir+" && ln hers.txt "+out+"/hers && mkdir shut && echo > shut/x && chmod 700 shut && cp /bin/true suid && chmod u+s suid && echo x >> hers.txt")
}

// isTold: what a sweep could not do about him, and that what he linked is no
// longer the project's.
func isTold(t *testing.T, ctx context.Context, ada *Browser, d disk, dir string) {
	t.Helper()
	r := d.Revoked[0]
	kinds := map[string]string{}
	for _, f := range r.Report {
		kinds[f.Kind] = strings.Join(f.Examples, " ")
	}
	for kind, name := range map[string]string{"belong to people outside the team": "ben.txt", "directories cannot be entered": "shut", "run with the rights of their owner or group (setuid, setgid)": "suid", "have a second name (hard link) and are left alone": "pair"} {
		if !strings.Contains(kinds[kind], name) {
			t.Errorf("the report does not name %s: %+v", name, r.Report)
		}
	}
	if r.Left < 3 {
		t.Errorf("left %d: %+v", r.Left, r.Report)
	}
	p, err := ada.Open(ctx, ada.Portal+"/ada/Welcome/settings/permissions")
	if err != nil || !strings.Contains(p.Body, fmt.Sprintf("swept except %d", r.Left)) || !strings.Contains(p.Body, "suid") {
		t.Errorf("the page: %+v %v", p, err)
	}
	must(t, "ben", "echo evil > /projects/outside/hers")
	if b, err := os.ReadFile(dir + "/hers.txt"); err != nil || string(b) != "hers\nx\n" {
		t.Errorf("what he linked is the project's still: %q %v", b, err)
	}
	wants(t, "linked", dir+"/hers.txt", "user::rw-", "!user:ben")
	wants(t, "the directory keeps its groups", dir, "group:users:r-x", "default:group:users:r-x", "user:ben:---")
	one, err1 := os.Stat(dir + "/pair1")
	two, err2 := os.Stat(dir + "/pair2")
	if err1 != nil || err2 != nil || !os.SameFile(one, two) || statUID(one) != ownerUID(t, "ada") {
		t.Errorf("two names in the project are two files now: %v %v", err1, err2)
	}
	wants(t, "two names", dir+"/pair1", "!user:ben")
	// Denied stays denied, whatever is done besides: a repair, another look.
	if err := ada.API(ctx, "POST", "/projects/ada/Welcome/permissions/repair", nil, nil); err != nil {
		t.Fatal(err)
	}
	if again := onDisk(t, ctx, ada, "/ada/Welcome").Revoked[0]; again.Left != r.Left {
		t.Errorf("looked at again: %+v", again)
	}
	wants(t, "after another look", dir, "user:ben:---")
}

// knowsNothing: a private project is not there for who was removed, by any
// address, also for a page that he has already.
func knowsNothing(t *testing.T, ctx context.Context, ben *Browser) {
	t.Helper()
	for _, path := range []string{"", "/timeline", "/events", "/team", "/permissions", "/permissions/why?name=ada&path=x", "/permissions/authors", "/apps", "/sessions"} {
		if err := ben.API(ctx, "GET", "/projects/ada/Welcome"+path, nil, nil); err == nil || !strings.Contains(err.Error(), "404") {
			t.Errorf("%s: %v", path, err)
		}
	}
	for _, path := range []string{"/ada/Welcome", "/ada/Welcome/activity", "/ada/Welcome/sessions", "/ada/Welcome/settings/permissions", "/ada/Welcome/notebook", "/ada/Welcome/viewer/x"} {
		if p, err := ben.Open(ctx, ben.Portal+path); err != nil || p.Status != 404 || p.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %+v %v", path, p, err)
		}
	}
	for _, path := range []string{"/", "/ada", "/search?q=welcome", "/account/log"} {
		if p, err := ben.Open(ctx, ben.Portal+path); err != nil || p.Status != 200 || strings.Contains(p.Body, "/ada/Welcome") {
			t.Errorf("%s tells of it: %v", path, err)
		}
	}
	var hits struct{ Projects []any }
	if err := ben.API(ctx, "GET", "/search?q=Welcome", nil, &hits); err != nil || len(hits.Projects) != 0 {
		t.Errorf("%+v %v", hits, err)
	}
}

// manyHands: a member is added, lowered and removed from many places at once. At
// the end the disk says what the team is.
func manyHands(t *testing.T, ctx context.Context, ada *Browser, dir string) {
	t.Helper()
	turns := 3
	if rounds() > 1000 {
		turns = 125
	}
	var all sync.WaitGroup
	for hand := range 8 {
		all.Go(func() {
			for turn := range turns {
				var err error
				switch (hand + turn) % 3 {
				case 0:
					err = ada.API(ctx, "DELETE", "/projects/ada/Welcome/team/ben", nil, nil)
				case 1:
					err = ada.API(ctx, "PUT", "/projects/ada/Welcome/team/ben", map[string]any{"role": "viewer"}, nil)
				default:
					err = ada.API(ctx, "PUT", "/projects/ada/Welcome/team/ben", map[string]any{"role": "editor"}, nil)
				}
				if err != nil && !strings.Contains(err.Error(), "404") {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	onDisk(t, ctx, ada, "/ada/Welcome")
	var team []struct{ Name, Role string }
	if err := ada.API(ctx, "GET", "/projects/ada/Welcome/team", nil, &team); err != nil {
		t.Fatal(err)
	}
	want := []string{"user:ben:---", "!default:user:ben"}
	for _, m := range team {
		switch {
		case m.Name == "ben" && m.Role == "editor":
			want = []string{"user:ben:rwx", "default:user:ben:rwx"}
		case m.Name == "ben":
			want = []string{"user:ben:r-x", "default:user:ben:r-x"}
		}
	}
	wants(t, fmt.Sprintf("after all that, with %+v", team), dir, want...)
}

func ownerUID(t *testing.T, name string) int {
	t.Helper()
	out, err := exec.Command("id", "-u", name).Output()
	if err != nil {
		t.Fatal(err)
	}
	var uid int
	fmt.Sscan(string(out), &uid)
	return uid
}
