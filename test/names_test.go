package test

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

// account is an account as the node's directory shows it.
func account(name string) (uid int, home string) {
	out, err := exec.Command("getent", "passwd", "--", name).Output()
	if f := strings.Split(strings.TrimSpace(string(out)), ":"); err == nil && len(f) == 7 && f[0] == name {
		uid, _ = strconv.Atoi(f[2])
		home = f[5]
	}
	return uid, home
}

func configure(t *testing.T, text string) {
	t.Helper()
	if err := os.MkdirAll("/etc/quire", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("/etc/quire/quire.conf", []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// newProject makes a project of a person's and prepares it; out is what the
// preparation said.
func newProject(t *testing.T, ctx context.Context, s *Site, b *Browser, owner, name string) (out string, err error) {
	t.Helper()
	if err := b.API(ctx, "POST", "/projects", map[string]any{"name": name}, nil); err != nil {
		t.Fatal(err)
	}
	return s.Run("", "start-project", owner+"/"+name)
}

// Names as people have them become accounts; numbers are given once.
func TestNamesBecomeAccounts(t *testing.T) {
	s := New(t)
	configure(t, `{"digit_names": true}`)
	s.Start()
	ctx := within(t, 4*time.Minute)
	ada := s.Admin(ctx, "ada", password)
	seen, people := map[int]string{}, map[string]*Browser{}
	for name, want := range map[string]string{
		"1234":                             "u1234",
		"Grace.Hopper-2":                   "Grace.Hopper-2",
		"a23456789012345678901234567890z":  "a23456789012345678901234567890z",
		"a234567890123456789012345678901z": "a234567890123456789012345678901z",
		"9lives":                           "9lives",
		"_x":                               "_x",
	} {
		b := s.Person(ctx, ada, name, password)
		out, err := newProject(t, ctx, s, b, name, "Own")
		uid, home := account(want)
		if err != nil || uid < 20000 || uid > 59999 || seen[uid] != "" {
			t.Errorf("%s: %v: uid %d (%s)\n%s", name, err, uid, seen[uid], out)
			continue
		}
		seen[uid], people[name] = name, b
		if info, err := os.Stat(home); err != nil || info.Mode().Perm() != 0o700 || home != "/home/"+want {
			t.Errorf("%s: home %s %v %v", name, home, info, err)
		}
		if !strings.Contains(out, "made "+want) {
			t.Errorf("the timeline does not say so:\n%s", out)
		}
		k := kernelOf(t, ctx, b, "/"+name+"/Own")
		if out, err := k.Run(ctx, "import os, pwd; open('f', 'w').close(); pwd.getpwuid(os.stat('f').st_uid).pw_name"); err != nil || out != "'"+want+"'" {
			t.Errorf("%s: %s %v", name, out, err)
		}
		if _, err := b.Submit(ctx, b.Portal+"/"+name+"/Own/stop", url.Values{}); err != nil {
			t.Error(err)
		}
	}
	// An app takes its time to end, up to its grace, and the account is in use
	// until it has.
	Eventually(t, 30*time.Second, "every project has stopped", func() error {
		for name, b := range people {
			var p project
			if err := b.API(ctx, "GET", "/projects/"+name+"/Own", nil, &p); err != nil || p.State != "stopped" {
				return fmt.Errorf("%s: %v %s", name, err, p.State)
			}
		}
		return nil
	})
	// Somebody of that name is there already; a service; a home that is taken.
	if out, err := exec.Command("useradd", "-u", "5000", "-m", "local").CombinedOutput(); err != nil {
		t.Fatalf("%s", out)
	}
	t.Cleanup(func() { exec.Command("userdel", "-rf", "local").Run() })
	if err := os.Mkdir("/home/squat", 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll("/home/squat") })
	for name, why := range map[string]string{"local": "uid 5000", "daemon": "there is an account daemon", "wakari": "shared by all projects", "squat": "home"} {
		b := s.Person(ctx, ada, name, password)
		out, err := newProject(t, ctx, s, b, name, "Own")
		if err == nil || !strings.Contains(strings.ToLower(out), why) {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
	// An account that changes its number is not the same one any more.
	uid, _ := account("Grace.Hopper-2")
	if out, err := exec.Command("usermod", "-u", "31111", "Grace.Hopper-2").CombinedOutput(); err != nil {
		t.Fatalf("%s", out)
	}
	grace := s.SignIn(ctx, "Grace.Hopper-2", password)
	out, err := newProject(t, ctx, s, grace, "Grace.Hopper-2", "Two")
	if err == nil || !strings.Contains(out, "31111") || !strings.Contains(out, fmt.Sprint(uid)) {
		t.Errorf("an account changed its number: %v\n%s", err, out)
	}
}

// Where the site provides accounts, one that is missing is a sentence, and a
// number is fixed at first use.
func TestSiteProvidesAccounts(t *testing.T) {
	s := New(t)
	configure(t, `{"manage_accounts": false}`)
	s.Start()
	ctx := within(t, 3*time.Minute)
	ada := s.Admin(ctx, "ada", password)
	Eventually(t, 20*time.Second, "Welcome cannot start", func() error {
		var p project
		err := ada.API(ctx, "GET", "/projects/ada/Welcome", nil, &p)
		if err == nil && (p.State != "failed" || !strings.Contains(p.Reason, "getent passwd ada")) {
			err = fmt.Errorf("%+v", p)
		}
		return err
	})
	if out, err := exec.Command("useradd", "-u", "21000", "-m", "-N", "-g", "users", "ada").CombinedOutput(); err != nil {
		t.Fatalf("%s", out)
	}
	if _, err := ada.Submit(ctx, ada.Portal+"/ada/Welcome/reset", url.Values{}); err != nil {
		t.Fatal(err)
	}
	out, err := s.Run("", "start-project", "ada/Welcome")
	if err != nil || !strings.Contains(out, "other members") {
		t.Errorf("%v\n%s", err, out)
	}
	// The owner's group has others in it: it gets nothing.
	wants(t, "a shared group", "/projects/ada/Welcome", "user::rwx", "group::---", "other::--x", "default:group::---", "default:user:ada:rwx")
	k := kernelOf(t, ctx, ada, "/ada/Welcome")
	if out, err := k.Run(ctx, "import os; os.getuid(), oct(os.umask(0o7))"); err != nil || out != "(21000, '0o77')" {
		t.Errorf("%s %v", out, err)
	}
	if out, err := exec.Command("usermod", "-o", "-u", "21001", "ada").CombinedOutput(); err != nil && !strings.Contains(string(out), "currently used") {
		t.Fatalf("%s", out)
	} else if err == nil {
		if out, err := newProject(t, ctx, s, ada, "ada", "Two"); err == nil || !strings.Contains(out, "21001") {
			t.Errorf("a number changed: %v\n%s", err, out)
		}
	}
}

// A project that is handed over belongs to its new owner at once, on the page
// and on the disk; files keep their authors.
func TestHandOver(t *testing.T) {
	s := Up(t)
	ctx := within(t, 2*time.Minute)
	ada := s.Admin(ctx, "ada", password)
	ben := s.Person(ctx, ada, "ben", password)
	running(t, ctx, ada, "/ada/Welcome")
	if err := ada.API(ctx, "PUT", "/projects/ada/Welcome/owner", map[string]any{"name": "ben"}, nil); err == nil {
		t.Error("a stranger became the owner")
	}
	if err := ada.API(ctx, "PUT", "/projects/ada/Welcome/team/ben", map[string]any{"role": "viewer"}, nil); err != nil {
		t.Fatal(err)
	}
	onDisk(t, ctx, ada, "/ada/Welcome")
	if err := ada.API(ctx, "PUT", "/projects/ada/Welcome/owner", map[string]any{"name": "ben"}, nil); err != nil {
		t.Fatal(err)
	}
	onDisk(t, ctx, ben, "/ben/Welcome")
	const dir = "/projects/ada/Welcome"
	if info, err := os.Stat(dir); err != nil || statUID(info) != ownerUID(t, "ben") {
		t.Errorf("the directory is uid %d's: %v", statUID(info), err)
	}
	wants(t, "handed over", dir, "user:ada:rwx", "default:user:ben:rwx", "group::rwx")
	if info, err := os.Stat(dir + "/Welcome.ipynb"); err != nil || statUID(info) != ownerUID(t, "ada") {
		t.Errorf("a file lost its author: %v", err)
	}
	must(t, "ben", "cd "+dir+" && echo >> Welcome.ipynb && mkdir mine")
	must(t, "ada", "cd "+dir+" && echo > mine/x")
	k := kernelOf(t, ctx, ben, "/ben/Welcome")
	if out, err := k.Run(ctx, "1+1"); err != nil || out != "2" {
		t.Errorf("%s %v", out, err)
	}
	if err := ada.API(ctx, "PUT", "/projects/ben/Welcome/team/ben", map[string]any{"role": "viewer"}, nil); err == nil {
		t.Error("she who gave it away takes it back")
	}
	// Where it was leads members to where it is, and nobody else.
	for b, want := range map[*Browser]string{ada: "/ben/Welcome/settings/info", s.Person(ctx, ada, "eve", password): ""} {
		p, err := b.Open(ctx, b.Portal+"/ada/Welcome/settings/info?x=1")
		if err != nil || want == "" && p.Status != 404 || want != "" && (p.Status != 200 || p.URL.Path != want || p.URL.RawQuery != "x=1") {
			t.Errorf("the old address: %+v %v", p, err)
		}
	}
	takesOver(t, ctx, s, ada, ben, dir)
}

// takesOver is the owner becoming the author: of what a member made, and of what
// an account made that is gone.
func takesOver(t *testing.T, ctx context.Context, s *Site, ada, ben *Browser, dir string) {
	must(t, "ada", "cd "+dir+" && mkdir -p d/e && echo 1 > d/e/f && echo 22 > 'a\nb' && chmod 4755 'a\nb' && touch -d 2020-01-01 d/e/f && echo x > two && ln two twin && echo x > own && chmod 600 own && mkdir -p hold/shut shut && chmod 700 hold/shut shut")
	if out, err := exec.Command("bash", "-c", "cd "+dir+" && mkdir -p d/gone && echo g > d/gone/g && chown -R 45678:45678 d/gone && chmod -R 777 d/gone && echo r > root && chmod 644 root").CombinedOutput(); err != nil {
		t.Fatalf("%s", out)
	}
	ada1 := fmt.Sprint(ownerUID(t, "ada"))
	find := func(uid string) string {
		out, err := exec.Command("find", dir, "-uid", uid, "!", "-type", "l", "-printf", "%P\\0").Output()
		if err != nil {
			t.Fatal(err)
		}
		return strings.ReplaceAll(string(out), "\x00", "|")
	}
	type author struct {
		UID    uint32
		Name   string
		Role   string
		Files  int
		Dirs   int `json:"directories"`
		Bytes  int64
		Cannot []struct {
			Kind string
			N    int
		}
	}
	look := func() map[string]author {
		t.Helper()
		var list []author
		if err := ben.API(ctx, "GET", "/projects/ben/Welcome/permissions/authors", nil, &list); err != nil {
			t.Fatal(err)
		}
		by := map[string]author{}
		for _, a := range list {
			by[fmt.Sprint(a.UID)] = a
		}
		return by
	}
	before := find(ada1)
	seen := look()
	if a := seen[ada1]; a.Name != "ada" || a.Role != "editor" || a.Files < 5 || a.Dirs < 5 || a.Bytes < 100 || len(a.Cannot) < 2 {
		t.Errorf("the preview: %+v", a)
	}
	if a := seen["45678"]; a.Name != "" || a.Files != 1 || a.Dirs != 1 || a.Bytes != 2 {
		t.Errorf("the preview of an account that is gone: %+v", a)
	}
	if after := find(ada1); after != before {
		t.Errorf("a preview changed something: %s", after)
	}
	take := func(uid string) error {
		var n int
		fmt.Sscan(uid, &n)
		return ben.API(ctx, "POST", "/projects/ben/Welcome/permissions/take-over", map[string]any{"uid": n}, nil)
	}
	if err := take(ada1); err == nil || !strings.Contains(err.Error(), "Stop the project first") {
		t.Errorf("while it runs: %v", err)
	}
	if _, err := ben.Submit(ctx, ben.Portal+"/ben/Welcome/stop", url.Values{}); err != nil {
		t.Fatal(err)
	}
	over := func(want string) (note string) {
		t.Helper()
		Eventually(t, 30*time.Second, "the take-over is over", func() error {
			var w struct {
				Kind, State, Error string
				Steps              []struct{ Note string }
			}
			var p project
			if err := ben.API(ctx, "GET", "/projects/ben/Welcome/timeline", nil, &w); err != nil {
				return err
			}
			if err := ben.API(ctx, "GET", "/projects/ben/Welcome", nil, &p); err != nil || p.State != "stopped" || w.State != want || want == "done" && w.Kind != "take-over" && w.Kind != "stop" {
				return fmt.Errorf("%+v %+v %v", w, p, err)
			}
			note = w.Error
			if len(w.Steps) > 1 {
				note += w.Steps[1].Note
			}
			return nil
		})
		return note
	}
	over("done") // the stop
	if err := take("0"); err == nil {
		t.Error("root's files")
	}
	if err := take("2"); err != nil { // the node knows who is a service
		t.Error(err)
	}
	if note := over("failed"); !strings.Contains(note, "stay as they are") {
		t.Errorf("a service's files: %s", note)
	}
	for _, uid := range []string{ada1, "45678"} {
		if err := take(uid); err != nil {
			t.Fatal(err)
		}
		note := over("done")
		if !strings.Contains(note, "taken over") || uid == ada1 && (!strings.Contains(note, "hard link") || !strings.Contains(note, "cannot be read")) {
			t.Errorf("%s: %q", uid, note)
		}
	}
	left := find(ada1)
	for _, name := range strings.Split(strings.TrimSuffix(left, "|"), "|") {
		if name != "two" && name != "twin" && name != "own" && name != "shut" && name != "hold" && name != "hold/shut" {
			t.Errorf("%q is hers still", name)
		}
	}
	if left := find("45678"); left != "" {
		t.Errorf("of who is gone: %s", left)
	}
	if out, err := exec.Command("find", dir, "-name", ".quire-take-over*").Output(); err != nil || len(out) > 0 {
		t.Errorf("left behind: %s %v", out, err)
	}
	if out := must(t, "ben", "cd "+dir+" && cat d/e/f && date -r d/e/f +%F && cat 'a\nb' && stat -c %a 'a\nb'"); out != "1\n2020-01-01\n22\n770" {
		t.Errorf("what was copied: %q", out)
	}
	wants(t, "taken over", dir+"/d/e/f", "user::rw-", "user:ada:rw-", "other::---")
	wants(t, "taken over", dir+"/d/gone", "user::rwx", "user:ada:rwx", "default:user:ada:rwx", "default:other::---", "other::---")
	must(t, "ada", "cd "+dir+" && echo more >> d/e/f && echo > d/gone/new")
	if info, err := os.Stat(dir + "/root"); err != nil || statUID(info) != 0 {
		t.Errorf("root's file: %v %v", info, err)
	}
	whyNot(t, ctx, s, ben, dir)
}

// whyNot asks why somebody cannot edit: the kernel answers, the lists say why.
func whyNot(t *testing.T, ctx context.Context, s *Site, ben *Browser, dir string) {
	onDisk(t, ctx, ben, "/ben/Welcome") // a repair would take the reasons away
	must(t, "ben", "cd "+dir+" && echo x > plain && echo x > mask && chmod 600 mask && mkdir in && echo x > in/f && setfacl -x u:ada in && echo x > entry && setfacl -m u:ada:r-- entry && ln -s /etc/passwd sl")
	for path, want := range map[string]struct {
		read, write bool
		because     string
	}{
		"plain": {true, true, ""}, dir + "/plain": {true, true, ""}, "": {true, true, ""},
		"mask": {false, false, "mask of"}, "in/f": {false, false, `others may not enter`}, "entry": {true, false, "does not give the right to change"},
		"sl": {false, false, "is a link"},
	} {
		var w struct {
			Read, Write bool
			Sentence    string
			Reasons     []string
		}
		err := ben.API(ctx, "GET", "/projects/ben/Welcome/permissions/why?name=ada&path="+url.QueryEscape(path), nil, &w)
		if err != nil || w.Write != want.write || w.Read != want.read || !strings.Contains(strings.Join(w.Reasons, " "), want.because) || (want.because == "") != (len(w.Reasons) == 0) {
			t.Errorf("%q: %+v %v", path, w, err)
		}
		// What the kernel really does is the same.
		if _, err := as("ada", "cd "+dir+" && test -r '"+path+"' -a -w '"+path+"'"); path != "" && (err == nil) != want.write {
			t.Errorf("%q: the kernel says otherwise: %v", path, err)
		}
	}
	if out, err := s.Run("", "doctor", "acl", "ben/Welcome", "--why", "eve", "plain"); err != nil || !strings.Contains(out, "eve is not in the team") {
		t.Errorf("%v %s", err, out)
	}
	if err := ben.API(ctx, "GET", "/projects/ben/Welcome/permissions/why?name=ada&path=../../../etc/passwd", nil, nil); err == nil || !strings.Contains(err.Error(), "There is no") {
		t.Errorf("beyond the project: %v", err)
	}
	p, err := ben.Open(ctx, ben.Portal+"/ben/Welcome/settings/permissions?name=ada&path=entry&authors=1")
	if err != nil || p.Status != 200 || !strings.Contains(p.Body, "ada may read entry, but not change it.") {
		t.Errorf("the page: %+v %v", p, err)
	}
}
