package spawner

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The three layouts, on directories that stand for what a kernel mounts.
func TestLayouts(t *testing.T) {
	dir := t.TempDir()
	mount := func(kind, name, options string) string {
		at := filepath.Join(dir, name)
		if err := os.MkdirAll(at, 0o755); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("30 25 0:26 / %s rw,relatime shared:9 - %s %s rw,%s\n", at, kind, kind, options)
	}
	file := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	one := mount("cgroup", "memory", "memory") + mount("cgroup", "cpu", "cpu,cpuacct") + mount("cgroup", "pids", "pids")
	two := mount("cgroup2", "unified", "")
	file("unified/cgroup.controllers", "cpuset cpu io memory pids\n")
	bare := mount("cgroup2", "bare", "")
	file("bare/cgroup.controllers", "hugetlb\n")
	read := func(name string) string {
		b, _ := os.ReadFile(filepath.Join(dir, name))
		return string(b)
	}
	for _, c := range []struct {
		mounts, says string
		files        map[string]string
	}{
		{one, "version 1", map[string]string{
			"memory/q/x/memory.limit_in_bytes": "1000", "cpu/q/x/cpu.cfs_quota_us": "200000", "pids/q/x/pids.max": "30",
		}},
		{two, "version 2", map[string]string{
			"unified/q/x/memory.max": "1000", "unified/q/x/cpu.max": "200000 100000", "unified/q/x/pids.max": "30", "unified/q/cgroup.subtree_control": "+pids",
		}},
		{one + bare, "versions 1 and 2", map[string]string{"memory/q/x/memory.limit_in_bytes": "1000"}},
	} {
		l, err := findTree(c.mounts, "0::/\n", "q")
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(l.String(), c.says) {
			t.Errorf("%s, not %s", l, c.says)
		}
		if _, err := l.Make("x", Want{1000, 2, 30}); err != nil {
			t.Fatal(err)
		}
		for name, want := range c.files {
			if got := read(name); got != want {
				t.Errorf("%s: %s is %q, not %q", c.says, name, got, want)
			}
		}
		if events := l.Find("x").Events(); len(events) != 1 {
			t.Errorf("%v", events)
		}
		for _, d := range []string{"memory", "cpu", "pids", "unified", "bare"} {
			os.RemoveAll(filepath.Join(dir, d, "q"))
		}
	}
	if _, err := findTree(bare, "0::/\n", "q"); err == nil || !strings.Contains(err.Error(), "memory") {
		t.Errorf("nothing offered: %v", err)
	}
	if _, err := findTree("", "", "q"); err == nil {
		t.Error("nothing mounted is no layout")
	}
	g := NoLimits("x").Find("s")
	if born, tasks, err := g.Enter(); born != nil || tasks != nil || err != nil {
		t.Error("without groups there is nothing to enter")
	}
}
