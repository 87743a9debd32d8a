package spawner

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Want is what a session may use. Zero means no limit of that kind.
type Want struct {
	Memory    int64 // bytes
	CPUs      int
	Processes int
}

// or fills what is not set from the node's defaults.
func (w Want) or(d Want) Want {
	if w.Memory == 0 {
		w.Memory = d.Memory
	}
	if w.CPUs == 0 {
		w.CPUs = d.CPUs
	}
	if w.Processes == 0 {
		w.Processes = d.Processes
	}
	return w
}

// Limits is how a node holds a session's processes together. FindLimits chooses
// by what the kernel offers; NoLimits is for nodes without.
type Limits interface {
	// String names the layout for the node's page.
	String() string
	// Make creates the group of a session with its limits.
	Make(id string, w Want) (Group, error)
	// Find returns the group made before, by this process or an earlier one.
	Find(id string) Group
	// Sweep removes empty groups that an earlier process could not remove,
	// except those that are still wanted.
	Sweep(wanted func(id string) bool)
}

// A Group is one session's processes.
type Group interface {
	// Enter opens what a process needs to be born inside: a version 2 directory
	// and version 1 task files. The caller closes them.
	Enter() (born *os.File, tasks []*os.File, err error)
	// Processes lists who is inside now. keep is the session's parent process.
	Processes(keep process) ([]int, error)
	// Kill ends all of them at once.
	Kill(keep process) error
	// Remove forgets an empty group.
	Remove() error
	// Events are the files that count kills by the memory limit.
	Events() []string
}

// tree is the control groups of version 1, 2 or both.
type tree struct {
	one  map[string]string // controller -> directory of ours in its hierarchy
	two  string            // directory of ours in the version 2 hierarchy, or ""
	has2 map[string]bool   // controllers that version 2 has for us
}

var controllers = [...]string{"memory", "cpu", "pids"}

// FindLimits looks at what is mounted and makes the parent directory name in
// each hierarchy that is of use. Without any, the error says what is missing.
func FindLimits(name string) (Limits, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	return findTree(string(mounts), string(own), name)
}

func findTree(mounts, own, name string) (Limits, error) {
	t := &tree{one: map[string]string{}, has2: map[string]bool{}}
	var two string
	for line := range strings.Lines(mounts) {
		f := strings.Fields(line)
		dash := slices.Index(f, "-")
		if dash < 6 || len(f) < dash+4 {
			continue
		}
		switch f[dash+1] {
		case "cgroup":
			for _, option := range strings.Split(f[dash+3], ",") {
				if slices.Contains(controllers[:], option) {
					t.one[option] = filepath.Join(f[4], name)
				}
			}
		case "cgroup2":
			two = f[4]
		}
	}
	if two != "" {
		if err := t.addTwo(two, own, name); err != nil {
			return nil, fmt.Errorf("control groups: %w", err)
		}
	}
	var missing []string
	for _, c := range controllers {
		if dir, ok := t.one[c]; ok && !t.has2[c] {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return nil, fmt.Errorf("control groups: %w", err)
			}
		} else if !t.has2[c] {
			missing = append(missing, c)
		} else {
			delete(t.one, c)
		}
	}
	if len(missing) > 0 {
		return nil, fmt.Errorf("control groups: the kernel offers no %s controller here", strings.Join(missing, ", no "))
	}
	if err := t.weigh(); err != nil {
		return nil, fmt.Errorf("control groups: %w", err)
	}
	return t, nil
}

// weigh gives all sessions together the share of processor time that four busy
// processes for each processor have. Unweighed, the whole group counts as one
// process: beside ten busy programs of the host, ten people who start at once
// waited twice as long as without groups. Our roles, outside, still get theirs.
func (t *tree) weigh() error {
	n := 4 * runtime.NumCPU()
	if dir, ok := t.one["cpu"]; ok {
		return os.WriteFile(filepath.Join(dir, "cpu.shares"), []byte(strconv.Itoa(min(1024*n, 262144))), 0o644)
	}
	return os.WriteFile(filepath.Join(t.two, "cpu.weight"), []byte(strconv.Itoa(min(100*n, 10000))), 0o644)
}

// addTwo finds where in the version 2 hierarchy we may make groups: below our
// own group when it was delegated to us, else at the top.
func (t *tree) addTwo(mount, own, name string) error {
	base := mount
	for line := range strings.Lines(own) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok && path != "/" {
			dir := filepath.Join(mount, path)
			if delegated(dir) {
				base = dir
				if err := moveAside(dir); err != nil {
					return err
				}
			}
		}
	}
	offered, err := os.ReadFile(filepath.Join(base, "cgroup.controllers"))
	if err != nil {
		return err
	}
	ours := filepath.Join(base, name)
	if err := os.MkdirAll(ours, 0o755); err != nil {
		return err
	}
	t.two = ours
	for _, c := range controllers {
		if slices.Contains(strings.Fields(string(offered)), c) {
			for _, dir := range []string{base, ours} {
				if err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+c), 0o644); err != nil {
					return err
				}
			}
			t.has2[c] = true
		}
	}
	return nil
}

func delegated(dir string) bool {
	var b [1]byte
	for _, attribute := range []string{"user.delegate", "trusted.delegate"} {
		if n, err := unix.Getxattr(dir, attribute, b[:]); err == nil && n == 1 && b[0] == '1' {
			return true
		}
	}
	return false
}

// moveAside puts the processes of a delegated group (ours) into a leaf, since a
// group with processes cannot hand controllers to its children.
func moveAside(dir string) error {
	leaf := filepath.Join(dir, "roles")
	if err := os.MkdirAll(leaf, 0o755); err != nil {
		return err
	}
	pids, err := readPIDs(dir)
	if err != nil {
		return err
	}
	for _, p := range pids {
		if err := os.WriteFile(filepath.Join(leaf, "cgroup.procs"), []byte(strconv.Itoa(p)), 0o644); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
	return nil
}

func (t *tree) String() string {
	switch {
	case len(t.one) == 0:
		return "control groups, version 2"
	case t.two == "":
		return "control groups, version 1"
	}
	return "control groups, versions 1 and 2"
}

func (t *tree) Find(id string) Group { return t.group(id) }

func (t *tree) Sweep(wanted func(string) bool) {
	for _, dir := range t.group("").dirs() {
		list, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, e := range list {
			if e.IsDir() && !wanted(e.Name()) {
				_ = unix.Rmdir(filepath.Join(dir, e.Name())) // a busy one stays
			}
		}
	}
}

func (t *tree) group(id string) *branch {
	b := &branch{one: map[string]string{}, has2: t.has2}
	for c, dir := range t.one {
		b.one[c] = filepath.Join(dir, id)
	}
	if t.two != "" {
		b.two = filepath.Join(t.two, id)
	}
	return b
}

func (t *tree) Make(id string, w Want) (Group, error) {
	b := t.group(id)
	if err := b.make(w); err != nil {
		b.Remove()
		return nil, err
	}
	return b, nil
}

type branch struct {
	one  map[string]string
	two  string
	has2 map[string]bool
}

func (b *branch) dirs() []string {
	var list []string
	for _, d := range b.one {
		list = append(list, d)
	}
	if b.two != "" {
		list = append(list, b.two)
	}
	return list
}

func (b *branch) make(w Want) error {
	for _, d := range b.dirs() {
		if err := os.Mkdir(d, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	const period = 100_000 // microseconds, the kernel's default
	type setting struct{ controller, one, two, value, value2 string }
	var list []setting
	if w.Memory > 0 {
		n := strconv.FormatInt(w.Memory, 10)
		list = append(list, setting{"memory", "memory.limit_in_bytes", "memory.max", n, n})
	}
	if w.CPUs > 0 {
		n := strconv.Itoa(w.CPUs * period)
		list = append(list, setting{"cpu", "cpu.cfs_quota_us", "cpu.max", n, n + " " + strconv.Itoa(period)})
	}
	if w.Processes > 0 {
		n := strconv.Itoa(w.Processes)
		list = append(list, setting{"pids", "pids.max", "pids.max", n, n})
	}
	for _, s := range list {
		file, value := filepath.Join(b.two, s.two), s.value2
		if !b.has2[s.controller] {
			file, value = filepath.Join(b.one[s.controller], s.one), s.value
		}
		if err := os.WriteFile(file, []byte(value), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func (b *branch) Enter() (*os.File, []*os.File, error) {
	var born *os.File
	if b.two != "" {
		f, err := os.OpenFile(b.two, unix.O_DIRECTORY|unix.O_PATH, 0)
		if err != nil {
			return nil, nil, err
		}
		born = f
	}
	var tasks []*os.File
	for _, d := range b.one {
		f, err := os.OpenFile(filepath.Join(d, "tasks"), os.O_WRONLY, 0)
		if err != nil {
			closeAll(append(tasks, born))
			return nil, nil, err
		}
		tasks = append(tasks, f)
	}
	return born, tasks, nil
}

func (b *branch) Processes(process) ([]int, error) {
	var all []int
	for _, d := range b.dirs() {
		pids, err := readPIDs(d)
		if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ENODEV) {
			return nil, err
		}
		all = append(all, pids...)
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

// readPIDs reads the processes of a group and of groups made below it.
func readPIDs(dir string) ([]int, error) {
	text, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, word := range bytes.Fields(text) {
		// 0 is a process outside our view of process numbers.
		if n, err := strconv.Atoi(string(word)); err == nil && n > 0 {
			pids = append(pids, n)
		}
	}
	return pids, nil
}

// Kill uses the kernel's own group kill where there is one. Killing by number
// loses against a process that forks faster than we read, so without it the
// group is first forbidden to fork.
func (b *branch) Kill(keep process) error {
	if b.two != "" {
		err := os.WriteFile(filepath.Join(b.two, "cgroup.kill"), []byte("1"), 0o644)
		if errors.Is(err, os.ErrNotExist) {
			if _, gone := os.Stat(b.two); errors.Is(gone, os.ErrNotExist) {
				return nil
			}
		} else if err != nil {
			return err
		}
	}
	if dir := b.one["pids"]; dir != "" {
		_ = os.WriteFile(filepath.Join(dir, "pids.max"), []byte("0"), 0o644) // gone already is fine
	}
	pids, err := b.Processes(keep)
	if err != nil {
		return err
	}
	for _, p := range pids {
		_ = unix.Kill(p, unix.SIGKILL)
	}
	return nil
}

// Remove waits a moment: a group stays busy until its last process is reaped.
func (b *branch) Remove() error {
	var first error
	for _, d := range b.dirs() {
		err := unix.Rmdir(d)
		for i := 0; i < 50 && errors.Is(err, unix.EBUSY); i++ {
			time.Sleep(10 * time.Millisecond)
			err = unix.Rmdir(d)
		}
		if err != nil && !errors.Is(err, unix.ENOENT) && first == nil {
			first = err
		}
	}
	return first
}

func (b *branch) Events() []string {
	if b.has2["memory"] {
		return []string{filepath.Join(b.two, "memory.events")}
	}
	return []string{filepath.Join(b.one["memory"], "memory.oom_control")}
}
