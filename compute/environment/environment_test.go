package environment

import (
	"context"
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"quire"
)

func run(t *testing.T, args ...string) (Result, error) {
	t.Helper()
	return Run(context.Background(), args)
}

func TestSkeletonOnce(t *testing.T) {
	dir, site := t.TempDir(), t.TempDir()
	for name, text := range map[string]string{"a.txt": "site", "sub/run.sh": "x", "public/b": "y"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(site, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(site, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/etc/passwd", site+"/link"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/a.txt", []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := run(t, "skeleton", "--dir", dir, "--skeleton", site)
	if err != nil || r.Already || r.Note != "2 files, 2 left as they were" {
		t.Errorf("%+v %v", r, err)
	}
	if b, _ := os.ReadFile(dir + "/a.txt"); string(b) != "mine" {
		t.Error("a file was replaced")
	}
	if _, err := os.Lstat(dir + "/link"); err == nil {
		t.Error("a link was copied")
	}
	if info, err := os.Stat(dir + "/sub/run.sh"); err != nil || info.Mode()&0o100 == 0 {
		t.Errorf("%v %v", info, err)
	}
	if r, err := run(t, "skeleton", "--dir", dir, "--skeleton", site); err != nil || !r.Already {
		t.Errorf("%+v %v", r, err)
	}
}

// What is planted in the project is never written through.
func TestSkeletonPlanted(t *testing.T) {
	for _, name := range []string{"Welcome.ipynb", "public", ".quire", "public/README.txt"} {
		dir, target := t.TempDir(), t.TempDir()
		if filepath.Dir(name) != "." {
			if err := os.Mkdir(filepath.Join(dir, filepath.Dir(name)), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Symlink(target+"/made", filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		_, _ = run(t, "skeleton", "--dir", dir)
		if list, err := os.ReadDir(target); err != nil || len(list) != 0 {
			t.Errorf("%s: a link was followed: %v %v", name, list, err)
		}
	}
}

// The notebook that everybody sees first is one, and holds no output.
func TestWelcome(t *testing.T) {
	b, err := fs.ReadFile(shipped, "skeleton/Welcome.ipynb")
	if err != nil {
		t.Fatal(err)
	}
	var nb struct {
		Cells []struct {
			Type    string `json:"cell_type"`
			Source  []string
			Outputs []any
		}
		Metadata struct {
			Kernelspec struct {
				Name    string
				Display string `json:"display_name"`
			}
		}
		Format int `json:"nbformat"`
	}
	if err := json.Unmarshal(b, &nb); err != nil {
		t.Fatal(err)
	}
	if nb.Format != 4 || nb.Metadata.Kernelspec.Name != "python3" || nb.Metadata.Kernelspec.Display != "Python [default]" || len(nb.Cells) < 10 {
		t.Errorf("%+v", nb.Metadata)
	}
	var code strings.Builder
	for _, c := range nb.Cells {
		if len(c.Outputs) != 0 {
			t.Error("it has output")
		}
		if c.Type == "code" {
			code.WriteString(strings.ReplaceAll(strings.Join(c.Source, ""), "%pip", "#") + "\n")
		}
	}
	// And every cell runs.
	dir := t.TempDir()
	c := exec.Command("/usr/bin/python3", "-I", "-c", "import matplotlib; matplotlib.use('agg')\n"+code.String())
	c.Dir, c.Env = dir, []string{"PROJECT_NAME=p", "MPLCONFIGDIR=" + dir}
	if out, err := c.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

func TestDefaultEnvironment(t *testing.T) {
	dir := t.TempDir()
	begin := time.Now()
	r, err := run(t, "environment", "--dir", dir)
	if err != nil || r.Already {
		t.Fatalf("%+v %v", r, err)
	}
	t.Logf("made in %v", time.Since(begin))
	if r, err := run(t, "environment", "--dir", dir); err != nil || !r.Already {
		t.Errorf("%+v %v", r, err)
	}
	var spec struct {
		Argv []string
		Name string `json:"display_name"`
	}
	b, err := os.ReadFile(dir + "/" + kernelSpec)
	if err == nil {
		err = json.Unmarshal(b, &spec)
	}
	if err != nil || spec.Name != "Python [default]" || spec.Argv[0] != dir+"/envs/default/bin/python" {
		t.Errorf("%+v %v", spec, err)
	}
	out, err := exec.Command(dir+"/envs/default/bin/pip", "list", "--format=freeze").Output()
	if err != nil || !strings.Contains(string(out), "ipykernel==") {
		t.Errorf("pip: %v %s", err, out)
	}
	// Cut off before the end, it is finished the next time.
	if err := os.Remove(dir + "/" + kernelSpec); err != nil {
		t.Fatal(err)
	}
	if r, err := run(t, "environment", "--dir", dir); err != nil || r.Already {
		t.Errorf("%+v %v", r, err)
	}
	if _, err := run(t, "environment", "--dir", t.TempDir(), "--python", "/no/such"); quire.KindOf(err) != quire.KindFailed {
		t.Errorf("%v", err)
	}
}

func TestCloneAddresses(t *testing.T) {
	for _, good := range []string{"https://example.org/a/b.git", "http://h/x", "ssh://git@h:22/x", "git://h/x"} {
		if err := CheckURL(good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, bad := range []string{"", "/etc", "file:///etc", "ext::sh -c id", "git@h:x", "https://", "ssh://-oProxyCommand=x/y", "ssh://-l@h/y", "https://h/ x", "https://h/\n", "HTTPS//h"} {
		if err := CheckURL(bad); quire.KindOf(err) != quire.KindInvalid {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestPurgeStaysInside(t *testing.T) {
	outside, dir := t.TempDir(), t.TempDir()
	if err := os.WriteFile(outside+"/keep", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, dir+"/link"); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir+"/a/b", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/a/b/c", nil, 0o400); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir+"/a/b", 0); err != nil {
		t.Fatal(err)
	}
	if r, err := run(t, "purge", "--dir", dir); err != nil || r.Note != "deleted 2 entries" {
		t.Errorf("%+v %v", r, err)
	}
	if list, _ := os.ReadDir(dir); len(list) != 0 {
		t.Errorf("left: %v", list)
	}
	if _, err := os.Stat(outside + "/keep"); err != nil {
		t.Error(err)
	}
	if r, err := run(t, "purge", "--dir", dir+"/gone"); err != nil || !r.Already {
		t.Errorf("%+v %v", r, err)
	}
	if _, err := run(t, "empty", dir, dir+"/gone"); err != nil {
		t.Error(err)
	}
}

func TestWrongCalls(t *testing.T) {
	for _, args := range [][]string{nil, {"x"}, {"skeleton"}, {"skeleton", "--dir", "relative"}, {"clone", "--dir", "/x", "more"}, {"purge", "--nonsense"}} {
		if _, err := run(t, args...); quire.KindOf(err) != quire.KindInvalid {
			t.Errorf("%v: %v", args, err)
		}
	}
	if _, err := run(t, "skeleton", "--dir", "/no/such"); quire.KindOf(err) != quire.KindFailed {
		t.Errorf("%v", err)
	}
}
