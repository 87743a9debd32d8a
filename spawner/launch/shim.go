// Package launch starts one process as one user. It has two halves that meet in
// a Spec: Start, in root's process, and Shim, the first thing that runs in the
// new one. Shim gives up every right in a fixed row of named steps, checks that
// they are gone, and becomes the program. A step that fails ends it: nothing
// runs half-dropped, and the starter hears the step's name.
//
// Everything below happens on one locked thread with plain system calls.
// execve ends all other threads of the process, so what this thread is at that
// moment (user, namespaces, control group) is what the program is.
package launch

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Mode says which steps a node can take.
type Mode string

const (
	Separate Mode = "separate" // as root: become another user
	Single   Mode = "single"   // without root: everybody is the account we run as
)

// A Spec is everything Shim needs to know. It comes as JSON on descriptor 3.
type Spec struct {
	Mode   Mode     `json:"mode"`
	UID    uint32   `json:"uid"`
	GID    uint32   `json:"gid"`
	Groups []uint32 `json:"groups"` // supplementary, exactly these

	Search bool   `json:"search"` // it may read and search everything, whatever modes say; nothing else of root's
	Setuid bool   `json:"setuid"` // programs like sudo may give it rights
	Umask  int    `json:"umask"`  // 0: 0007
	Files  uint64 `json:"files"`  // open files, lowered to the hard limit
	Tmp    string `json:"tmp"`    // directory shown as /tmp; "" keeps the host's
	Shm    int64  `json:"shm"`    // bytes of a private /dev/shm

	Argv []string `json:"argv"` // argv[0] is an absolute path
	Env  []string `json:"env"`  // the whole environment
	Dir  string   `json:"dir"`  // working directory, entered as the user

	// Descriptors of the shim, filled in by Start. 0 means none.
	Network int   `json:"network"` // the host's network namespace
	Ready   int   `json:"ready"`   // becomes descriptor 3 of the program
	Tasks   []int `json:"tasks"`   // control group files to write "0" to
}

const (
	specFD   = 3
	statusFD = 4
	maxSpec  = 1 << 20
	passed   = '+' // written when only execve is left
)

// A StepError names the step that failed.
type StepError struct {
	Step   string `json:"step"`
	Reason string `json:"reason"`
}

func (e *StepError) Error() string { return e.Step + ": " + e.Reason }

type step struct {
	name string
	do   func(*Spec) error
}

// steps is the row for each mode. What a node without root cannot do is left
// out; the rest, and the order, is the same.
func (m Mode) steps() []step {
	switch m {
	case Separate:
		return []step{
			{"control groups", joinGroups},
			{"network", enterNetwork},
			{"mounts", privateMounts},
			{"processes", ownProcesses},
			{"limits", setLimits},
			{"memory", beKillable},
			{"bounding set", dropBounding},
			{"groups", setGroups},
			{"gid", setGID},
			{"uid", setUID},
			{"capabilities", clearCapabilities},
			{"verify groups", verifyGroups},
			{"verify", verify},
			{"no new privileges", noNewPrivileges},
			{"environment", checkEnvironment},
			{"directory", enterDirectory},
			{"program", become},
		}
	case Single:
		return []step{
			{"limits", setLimits},
			{"verify", verify},
			{"no new privileges", noNewPrivileges},
			{"environment", checkEnvironment},
			{"directory", enterDirectory},
			{"program", become},
		}
	}
	return nil
}

// Shim becomes the program of the Spec on descriptor 3. It returns only when a
// step failed, with the exit code for main.
func Shim() int {
	runtime.LockOSThread()
	err := shim()
	// A failed write has no other place to go: the starter then sees us exit.
	_ = json.NewEncoder(os.NewFile(statusFD, "status")).Encode(err)
	return 1
}

func shim() *StepError {
	// First of all: Go marks only its own descriptors close-on-exec. One that was
	// inherited from whoever started the node would be open in the program.
	if err := unix.CloseRange(specFD, ^uint(0), unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return &StepError{"descriptors", err.Error()}
	}
	spec, err := readSpec()
	if err != nil {
		return &StepError{"spec", err.Error()}
	}
	for _, s := range spec.Mode.steps() {
		if err := s.do(spec); err != nil {
			return &StepError{s.name, err.Error()}
		}
	}
	return &StepError{"program", "it did not start"}
}

func readSpec() (*Spec, error) {
	f := os.NewFile(specFD, "spec")
	b, err := io.ReadAll(io.LimitReader(f, maxSpec))
	if err != nil {
		return nil, err
	}
	if err := f.Close(); err != nil { // 3 is free for Ready
		return nil, err
	}
	var s Spec
	if err := json.Unmarshal(b, &s); err != nil {
		return nil, err
	}
	if s.Mode.steps() == nil || len(s.Argv) == 0 || !filepath.IsAbs(s.Argv[0]) || !filepath.IsAbs(s.Dir) {
		return nil, errors.New("it does not say what to run, where or how")
	}
	return &s, nil
}

// joinGroups moves this thread. Writing "0" to a version 1 "tasks" file spares
// the grace period (10 to 20 ms each) that moving a whole process waits for.
func joinGroups(s *Spec) error {
	for _, fd := range s.Tasks {
		if _, err := unix.Write(fd, []byte("0")); err != nil {
			return err
		}
	}
	return nil
}

// enterNetwork leaves the spawner's empty namespace for the host's.
func enterNetwork(s *Spec) error {
	if s.Network == 0 {
		return nil
	}
	return unix.Setns(s.Network, unix.CLONE_NEWNET)
}

// privateMounts gives the program a /tmp and /dev/shm that nobody else sees.
// Mounts of the host still arrive (slave), so late homes are found.
func privateMounts(s *Spec) error {
	if s.Tmp == "" {
		return nil
	}
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("a namespace of its own: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("keeping mounts inside: %w", err)
	}
	if err := unix.Mount(s.Tmp, "/tmp", "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("/tmp: %w", err)
	}
	if err := unix.Mount("", "/tmp", "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_NOSUID|unix.MS_NODEV, ""); err != nil {
		return fmt.Errorf("/tmp without setuid: %w", err)
	}
	if s.Shm > 0 {
		if err := unix.Mount("shm", "/dev/shm", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, fmt.Sprintf("mode=1777,size=%d", s.Shm)); err != nil {
			return fmt.Errorf("/dev/shm: %w", err)
		}
	}
	return privateTerminals()
}

// maxTerminals is how many pseudo-terminals one session may have.
const maxTerminals = 256

// privateTerminals gives the program terminals of its own. The machine has only
// so many: without this, one session could take those of all others, and of
// whoever wants to sign in and end it. Proved by TestFloods.
func privateTerminals() error {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(mounts)) {
		f := strings.Fields(line)
		if len(f) < 4 || f[1] != "/dev/pts" || f[2] != "devpts" {
			continue
		}
		options := fmt.Sprintf("newinstance,ptmxmode=0666,mode=0620,max=%d", maxTerminals)
		for o := range strings.SplitSeq(f[3], ",") {
			if strings.HasPrefix(o, "gid=") { // tty's, which old C libraries insist on
				options += "," + o
			}
		}
		if err := unix.Mount("devpts", "/dev/pts", "devpts", unix.MS_NOSUID|unix.MS_NOEXEC, options); err != nil {
			return fmt.Errorf("/dev/pts: %w", err)
		}
		return nil
	}
	return nil // a machine without any
}

// ownProcesses shows the program its own account's processes only: other
// people's command lines are theirs.
func ownProcesses(s *Spec) error {
	if s.Tmp == "" {
		return nil // no mounts of its own
	}
	return unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "hidepid=2")
}

func setLimits(s *Spec) error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("core: %w", err)
	}
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		return fmt.Errorf("open files: %w", err)
	}
	files.Max = min(s.Files, files.Max)
	// Many programs close every possible descriptor at start: a soft limit of
	// 1024 keeps that quick, and they may raise it themselves.
	files.Cur = min(1024, files.Max)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		return fmt.Errorf("open files: %w", err)
	}
	if s.Umask == 0 {
		s.Umask = 0o007
	}
	unix.Umask(s.Umask)
	return nil
}

// beKillable takes back what keeps the spawner alive when memory runs out: the
// kernel looks for somebody to kill among people's processes, not among ours.
func beKillable(*Spec) error {
	b, err := os.ReadFile(oomFile)
	if err != nil || len(b) == 0 || b[0] != '-' {
		return err
	}
	return os.WriteFile(oomFile, []byte("0"), 0)
}

// dropBounding makes it impossible to gain a capability by running a file.
func dropBounding(s *Spec) error {
	for c := 0; !s.Setuid; c++ {
		has, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(c), 0, 0, 0)
		if errors.Is(err, unix.EINVAL) {
			break // beyond the kernel's last capability
		}
		if err != nil {
			return err
		}
		if has == 0 || s.Search && c == unix.CAP_DAC_READ_SEARCH {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0); err != nil {
			return fmt.Errorf("capability %d: %w", c, err)
		}
	}
	return unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
}

func setGroups(s *Spec) error { return rawSetgroups(s.Groups) }

func setGID(s *Spec) error {
	return raw(unix.SYS_SETRESGID, uintptr(s.GID), uintptr(s.GID), uintptr(s.GID))
}

func setUID(s *Spec) error {
	if s.Search { // a change of user takes all there is, unless it is told not to
		if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0); err != nil {
			return err
		}
	}
	return raw(unix.SYS_SETRESUID, uintptr(s.UID), uintptr(s.UID), uintptr(s.UID))
}

// capabilities are what the program has: none, or the one to read.
func capabilities(s *Spec) (caps [2]unix.CapUserData) {
	if s.Search {
		const search = 1 << unix.CAP_DAC_READ_SEARCH
		caps[0] = unix.CapUserData{Effective: search, Permitted: search, Inheritable: search}
	}
	return caps
}

// clearCapabilities also empties the inheritable set, which a change of user
// leaves alone. What is left stays left when the program is executed.
func clearCapabilities(s *Spec) error {
	caps := capabilities(s)
	if err := unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &caps[0]); err != nil || !s.Search {
		return err
	}
	return unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, unix.CAP_DAC_READ_SEARCH, 0, 0)
}

func verifyGroups(s *Spec) error {
	have, err := unix.Getgroups()
	if err != nil {
		return err
	}
	want := make([]int, len(s.Groups))
	for i, g := range s.Groups {
		want[i] = int(g)
	}
	slices.Sort(have)
	slices.Sort(want)
	if !slices.Equal(have, want) {
		return fmt.Errorf("groups are %v, not %v", have, want)
	}
	return nil
}

// verify believes the kernel, not the return values above.
func verify(s *Spec) error {
	if s.UID == 0 || s.GID == 0 {
		return errors.New("root is nobody's account")
	}
	r, e, v := unix.Getresuid()
	if want := int(s.UID); r != want || e != want || v != want {
		return fmt.Errorf("uids are %d %d %d, not %d", r, e, v, want)
	}
	r, e, v = unix.Getresgid()
	if want := int(s.GID); r != want || e != want || v != want {
		return fmt.Errorf("gids are %d %d %d, not %d", r, e, v, want)
	}
	if raw(unix.SYS_SETRESUID, 0, 0, 0) == nil {
		return errors.New("it could become root again")
	}
	var caps [2]unix.CapUserData
	if err := unix.Capget(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &caps[0]); err != nil {
		return err
	}
	if caps != capabilities(s) {
		return errors.New("the capabilities are others")
	}
	return nil
}

func noNewPrivileges(s *Spec) error {
	if s.Setuid {
		return nil
	}
	return unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
}

// checkEnvironment: nothing is inherited, so only the form can be wrong.
func checkEnvironment(s *Spec) error {
	for _, kv := range s.Env {
		name, _, ok := strings.Cut(kv, "=")
		if !ok || name == "" || strings.ContainsRune(kv, 0) {
			return errors.New("an entry is not NAME=value")
		}
	}
	for _, a := range s.Argv {
		if strings.ContainsRune(a, 0) {
			return errors.New("an argument has a zero byte")
		}
	}
	return nil
}

func enterDirectory(s *Spec) error { return unix.Chdir(s.Dir) }

func become(s *Spec) error {
	if s.Ready != 0 {
		if err := unix.Dup3(s.Ready, specFD, 0); err != nil {
			return err
		}
	}
	// Who started Quire under nohup has SIGHUP ignored for all that comes after:
	// shells could not end their programs. What is caught at execve is back at its
	// default behind it (execve(2)).
	signal.Notify(make(chan os.Signal, 1))
	// An empty pipe would look the same whether execve closed it or we died.
	if _, err := unix.Write(statusFD, []byte{passed}); err != nil {
		return err
	}
	return unix.Exec(s.Argv[0], s.Argv, s.Env)
}
