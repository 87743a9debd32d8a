package spawner

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"

	"quire"
)

func TestReplace(t *testing.T) {
	words := map[string]string{"a": "1", "b": "%(a)s"}
	for in, want := range map[string]string{"": "", "x": "x", "%(a)s": "1", "-%(a)s-%(b)s%%": "-1-%(a)s%", "100%%": "100%"} {
		if got, err := replace(in, words); got != want || err != nil {
			t.Errorf("%q: %q %v", in, got, err)
		}
	}
	for _, bad := range []string{"%", "%s", "%(a)", "%(c)s", "%(as", "5%x"} {
		if got, err := replace(bad, words); err == nil {
			t.Errorf("%q: %q", bad, got)
		}
	}
}

func TestDescriptors(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"terminal.json": `{"name":"terminal","enabled":false,"permission":"write","command_list":["/x","%(socket)s"]}`,
		"notes.json":    "// with a comment\n{\"name\":\"notes\",\"title\":\"Notes\",\"enabled\":true,\"permission\":\"read\",\"command_list\":[\"/bin/notes\",\"%(port)s\",],}",
		"broken.json":   `{"name":`,
		"shell.json":    `{"name":"shell","enabled":true,"permission":"write","command_list":["sh","-c","x %(socket)s"]}`,
		"word.json":     `{"name":"word","enabled":true,"permission":"write","command_list":["/x","%(socket)s","%(secret)s"]}`,
		"other.txt":     `x`,
	} {
		if err := os.WriteFile(dir+"/"+name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	l := newLab(t)
	l.c.AppsDir = dir
	l.again()
	c := l.s
	list, messages := c.apps()
	var names []string
	for _, a := range list {
		names = append(names, a.Name)
		if err := a.Check(); err != nil {
			t.Errorf("%s: %v", a.Name, err)
		}
	}
	got := " " + strings.Join(names, " ") + " "
	for name, want := range map[string]bool{"notes": true, "notebook": true, "lab": true, "jupyterlab": true, "terminal": false, "broken": false, "shell": false, "word": false} {
		if strings.Contains(got, " "+name+" ") != want {
			t.Errorf("apps:%s; %s should be offered: %v", got, name, want)
		}
	}
	if len(messages) != 3 {
		t.Errorf("messages: %q", messages)
	}
	for _, m := range messages {
		if !strings.HasSuffix(m, ".") || !strings.Contains(m, dir) {
			t.Errorf("message %q", m)
		}
	}
	if a, err := c.app("notes"); err != nil || !a.TCP() || a.MinRole() != quire.RoleViewer {
		t.Errorf("%+v %v", a, err)
	}
	if _, err := c.app("terminal"); quire.KindOf(err) != quire.KindNotFound {
		t.Errorf("%v", err)
	}
	// JupyterLab is offered where it is installed.
	root := t.TempDir()
	has := func() bool {
		list, _, _ := c.offered()
		for _, a := range list {
			if a.Name == "jupyterlab" {
				return true
			}
		}
		return false
	}
	c.c.RootEnv = root
	if has() {
		t.Error("lab is offered without being there")
	}
	if err := os.MkdirAll(root+"/bin", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(root+"/bin/jupyter-lab", nil, 0o755); err != nil {
		t.Fatal(err)
	}
	if !has() {
		t.Error("lab is not offered")
	}
	// An environment of a prefix's own, as conda makes them, is a prefix like others.
	c.c.RootEnv = root + "/envs/default"
	if _, others, _ := c.offered(); has() || len(others) != 1 || others[0].Name != "jupyterlab" {
		t.Errorf("others: %+v", others)
	}
	if err := os.MkdirAll(root+"/envs/default", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(root+"/bin", root+"/envs/default/bin"); err != nil {
		t.Fatal(err)
	}
	if !has() {
		t.Error("lab of an environment below the prefix is not offered")
	}
}

// C-04: a compute that was taken over cannot choose what runs: it has no word
// beside the order, and the descriptors are read only where nobody but root
// could have changed them.
func TestWhoNamesThePrograms(t *testing.T) {
	l := newLab(t)
	l.must(l.order(quire.OrderDirectory))
	var a answer
	question, err := json.Marshal(map[string]any{
		"op": "order", "order": l.signer.Order(l.order(quire.OrderSkeleton)), "args": []string{"--skeleton", "/etc"}, "env": []string{"LD_PRELOAD=/x"},
		"Args": []string{"--skeleton", "/etc"}, "Env": []string{"LD_PRELOAD=/x"},
	})
	l.check(err)
	var q ask
	l.check(json.Unmarshal(question, &q))
	if q.Env != nil {
		t.Errorf("compute handed over an environment: %v", q.Env)
	}
	a, err = l.s.answer(context.Background(), q, nil)
	if err != nil || a.Note == "" {
		t.Fatalf("%+v %v", a, err)
	}
	if _, err := os.Lstat(l.c.ProjectRoot + "/alice/p/passwd"); err == nil {
		t.Error("compute named the skeleton")
	}
	id := quire.NewSessionID()
	if _, err := l.ask(l.order(quire.OrderStart, session(id), func(o *quire.Order) { o.App = "nothing" })); quire.KindOf(err) != quire.KindNotFound {
		t.Errorf("an app that is not there: %v", err)
	}
	if os.Geteuid() != 0 {
		return // of one account there is nobody to guard from
	}
	file, aside := l.c.AppsDir+"/app.json", l.base+"/aside"
	for what, change := range map[string]struct{ do, undo func() error }{
		"a file that is somebody's":       {func() error { return chown(file, l.uid) }, func() error { return chown(file, 0) }},
		"a file others may write":         {func() error { return os.Chmod(file, 0o646) }, func() error { return os.Chmod(file, 0o644) }},
		"a directory that is somebody's":  {func() error { return chown(l.c.AppsDir, l.uid) }, func() error { return chown(l.c.AppsDir, 0) }},
		"a directory a group may write":   {func() error { return os.Chmod(l.c.AppsDir, 0o1775) }, func() error { return os.Chmod(l.c.AppsDir, 0o755) }},
		"a directory above for everybody": {func() error { return os.Chmod(l.base, 0o777) }, func() error { return os.Chmod(l.base, 0o755) }},
		"a link to what is somebody's": {
			func() error {
				return errors.Join(os.Rename(file, aside), chown(aside, l.uid), os.Symlink(aside, file))
			},
			func() error { return errors.Join(os.Remove(file), chown(aside, 0), os.Rename(aside, file)) }},
	} {
		l.check(change.do())
		_, err := l.ask(l.order(quire.OrderStart, session(id)))
		if quire.KindOf(err) != quire.KindNotFound {
			t.Errorf("%s: %v", what, err)
		}
		if _, messages := l.s.apps(); len(messages) != 1 || !strings.Contains(messages[0], "others than root can change") {
			t.Errorf("%s: %q", what, messages)
		}
		l.c.SkeletonDir = l.c.AppsDir
		l.again()
		_, err = l.ask(l.order(quire.OrderSkeleton))
		if strings.Contains(what, "directory") != (quire.KindOf(err) == quire.KindFailed) {
			t.Errorf("%s: the skeleton: %v", what, err)
		}
		l.check(change.undo())
	}
	if a := l.must(l.order(quire.OrderStart, session(id))); a.PID == 0 || a.Note != "process App" || a.MinRole != quire.RoleEditor {
		t.Errorf("%+v", a)
	}
	l.check(l.s.end(context.Background(), id, 0))
	l.check(l.s.release(context.Background(), id))
}

func chown(name string, uid uint32) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Chown(int(uid), int(uid))
}
