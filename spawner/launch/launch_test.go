package launch_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"quire/spawner/launch"
)

// The test binary is its own shim: it runs as "BINARY shim", as quire does.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "shim" {
		os.Exit(launch.Shim())
	}
	if os.Geteuid() == 0 && os.Getenv("QUIRE_NAMESPACE") == "" {
		script, err := filepath.Abs("../../scripts/in-namespace")
		if err == nil {
			err = syscall.Exec(script, append([]string{script}, os.Args...), os.Environ())
		}
		fmt.Fprintln(os.Stderr, "tests as root need scripts/in-namespace:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// place is a directory that every account reaches and no session hides.
func place(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		return t.TempDir()
	}
	dir, err := os.MkdirTemp("/run", "launch")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func binary(t *testing.T, dir string) string {
	t.Helper()
	b, err := os.ReadFile(os.Args[0])
	if err == nil {
		err = os.WriteFile(dir+"/shim", b, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir + "/shim"
}

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

// spec runs a program as uid 2001, or as us without root.
func spec(t *testing.T, dir string, argv ...string) launch.Spec {
	t.Helper()
	s := launch.Spec{Mode: launch.Single, UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()), Files: 4096, Argv: argv, Env: []string{"A=b"}, Dir: "/"}
	if os.Geteuid() == 0 {
		tmp := dir + "/tmp"
		if err := os.Mkdir(tmp, 0o777); err != nil && !errors.Is(err, os.ErrExist) {
			t.Fatal(err)
		}
		s.Mode, s.UID, s.GID, s.Groups, s.Tmp, s.Shm = launch.Separate, 2001, 2001, []uint32{2001, 3000}, tmp, 1<<20
	}
	return s
}

// run starts the command and returns what the program printed.
func run(t *testing.T, c launch.Command) (string, error) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	c.Output = w
	p, err := c.Start(context.Background())
	w.Close()
	if err != nil {
		return "", err
	}
	out, _ := io.ReadAll(r)
	if _, err := p.Wait(); err != nil {
		t.Fatal(err)
	}
	return string(out), nil
}

func TestBecomes(t *testing.T) {
	dir := place(t)
	shim := binary(t, dir)
	s := spec(t, dir, "/bin/cat", "/proc/self/status", "/proc/self/limits")
	signal.Ignore(syscall.SIGHUP) // as under nohup
	defer signal.Reset(syscall.SIGHUP)
	out, err := run(t, launch.Command{Shim: shim, Spec: s})
	if err != nil {
		t.Fatal(err)
	}
	uids := fmt.Sprintf("Uid:\t%d\t%[1]d\t%[1]d\t%[1]d", s.UID)
	for _, want := range []string{uids, "NoNewPrivs:\t1", "CapEff:\t0000000000000000", "CapInh:\t0000000000000000", "Umask:\t0007"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in\n%s", want, out)
		}
	}
	_, ignored, _ := strings.Cut(out, "SigIgn:\t")
	ignored, _, _ = strings.Cut(ignored, "\n")
	// From 32 on they are the C library's own.
	if set, err := strconv.ParseUint(ignored, 16, 64); err != nil || set&(1<<31-1) != 0 {
		t.Errorf("signals are ignored: %s %v", ignored, err)
	}
	if s.Mode == launch.Separate && (!strings.Contains(out, "CapBnd:\t0000000000000000") || !strings.Contains(out, "Groups:\t2001 3000")) {
		t.Errorf("rights are left:\n%s", out)
	}
	out, err = run(t, launch.Command{Shim: shim, Spec: spec(t, dir, "/usr/bin/env")})
	if err != nil || out != "A=b\n" {
		t.Errorf("the environment is %q %v", out, err)
	}
}

// Who sends a project's files may read everything, and has nothing else of
// root's: it writes nothing of anybody's, and cannot get more.
func TestSearch(t *testing.T) {
	needRoot(t)
	dir := place(t)
	shim := binary(t, dir)
	if err := os.WriteFile(dir+"/secret", []byte("a secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := spec(t, dir, "/bin/cat", "/proc/self/status", dir+"/secret")
	s.Search, s.Tmp = true, ""
	out, err := run(t, launch.Command{Shim: shim, Spec: s})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"NoNewPrivs:\t1", "CapEff:\t0000000000000004", "CapPrm:\t0000000000000004", "CapBnd:\t0000000000000004", "CapAmb:\t0000000000000004", "Uid:\t2001", "a secret"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in\n%s", want, out)
		}
	}
	s = spec(t, dir, "/bin/sh", "-c", "echo x >"+dir+"/secret; chmod 777 "+dir+"/secret; chown 2001 "+dir+"/secret; rm -f "+dir+"/secret; kill -0 1 && echo killed; true")
	s.Search, s.Tmp = true, ""
	if out, err = run(t, launch.Command{Shim: shim, Spec: s}); err != nil || strings.Contains(out, "killed") {
		t.Fatalf("%q %v", out, err)
	}
	var st syscall.Stat_t
	if b, err := os.ReadFile(dir + "/secret"); err != nil || string(b) != "a secret" || syscall.Stat(dir+"/secret", &st) != nil || st.Uid != 0 || st.Mode&0o777 != 0o600 {
		t.Errorf("it wrote: %q %v %+v", b, err, st)
	}
}

// A site may let sudo work; nothing else is different then.
func TestSetuidSwitch(t *testing.T) {
	needRoot(t)
	dir := place(t)
	s := spec(t, dir, "/bin/cat", "/proc/self/status")
	s.Setuid, s.Umask, s.Tmp = true, 0o077, ""
	out, err := run(t, launch.Command{Shim: binary(t, dir), Spec: s})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"NoNewPrivs:\t0", "CapEff:\t0000000000000000", "CapPrm:\t0000000000000000", "Umask:\t0077", "Uid:\t2001"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in\n%s", want, out)
		}
	}
}

// What the starter inherited from whoever started it is closed.
func TestDescriptors(t *testing.T) {
	dir := place(t)
	shim := binary(t, dir)
	wrapper := dir + "/leaky"
	script := "#!/bin/bash\nexec 9</etc/hostname 10</ 11<>" + dir + "/x\nexec " + shim + " \"$@\"\n"
	if err := os.WriteFile(wrapper, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/x", nil, 0o666); err != nil {
		t.Fatal(err)
	}
	out, err := run(t, launch.Command{Shim: wrapper, Spec: spec(t, dir, "/bin/ls", "/proc/self/fd")})
	if err != nil || strings.Join(strings.Fields(out), " ") != "0 1 2 3" { // 3 is the listing's own
		t.Errorf("open: %q %v", out, err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	out, err = run(t, launch.Command{Shim: wrapper, Ready: w, Spec: spec(t, dir, "/bin/bash", "-c", "echo ready >&3; ls /proc/self/fd")})
	w.Close()
	said, _ := io.ReadAll(r)
	if err != nil || string(said) != "ready\n" || strings.Join(strings.Fields(out), " ") != "0 1 2 3 4" {
		t.Errorf("ready: %q %q %v", said, out, err)
	}
}

func TestPrivateTmp(t *testing.T) {
	needRoot(t)
	dir := place(t)
	if err := os.WriteFile("/tmp/of-the-host", nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir+"/tmp", 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir+"/tmp", 0o777); err != nil {
		t.Fatal(err)
	}
	out, err := run(t, launch.Command{Shim: binary(t, dir), Spec: spec(t, dir, "/bin/bash", "-c", "ls -A /tmp /dev/shm; touch /tmp/mine /dev/shm/mine")})
	if err != nil || strings.Contains(out, "of-the-host") {
		t.Errorf("%q %v", out, err)
	}
	if _, err := os.Lstat(dir + "/tmp/mine"); err != nil {
		t.Error("the session's /tmp is not its directory")
	}
	for _, name := range []string{"/tmp/mine", "/dev/shm/mine"} {
		if _, err := os.Lstat(name); err == nil {
			t.Errorf("%s is seen outside", name)
		}
	}
}

// Every step that cannot be done is named, and nothing runs.
func TestStepsThatFail(t *testing.T) {
	dir := place(t)
	shim := binary(t, dir)
	witness := dir + "/ran"
	root := os.Geteuid() == 0
	for _, c := range []struct {
		step string
		root bool
		set  func(*launch.Spec, *launch.Command)
	}{
		{"spec", false, func(s *launch.Spec, _ *launch.Command) { s.Mode = "other" }},
		{"spec", false, func(s *launch.Spec, _ *launch.Command) { s.Argv = []string{"touch"} }},
		{"spec", false, func(s *launch.Spec, _ *launch.Command) { s.Dir = "relative" }},
		{"verify", false, func(s *launch.Spec, _ *launch.Command) { s.GID = 0 }},
		{"environment", false, func(s *launch.Spec, _ *launch.Command) { s.Env = []string{"A=b\x00c"} }},
		{"environment", false, func(s *launch.Spec, _ *launch.Command) { s.Env = []string{"=x"} }},
		{"environment", false, func(s *launch.Spec, _ *launch.Command) { s.Argv = append(s.Argv, "a\x00b") }},
		{"directory", false, func(s *launch.Spec, _ *launch.Command) { s.Dir = "/no/such/place" }},
		{"program", false, func(s *launch.Spec, _ *launch.Command) { s.Argv = []string{"/no/such/program"} }},
		{"verify", true, func(s *launch.Spec, _ *launch.Command) { s.UID = 0 }},
		{"directory", true, func(s *launch.Spec, _ *launch.Command) { s.Dir = "/root" }},
		{"mounts", true, func(s *launch.Spec, _ *launch.Command) { s.Tmp = "/no/such/place" }},
		{"network", true, func(_ *launch.Spec, c *launch.Command) { c.Network, _ = os.Open("/dev/null") }},
		{"control groups", true, func(_ *launch.Spec, c *launch.Command) {
			f, _ := os.OpenFile("/dev/full", os.O_WRONLY, 0)
			c.Tasks = []*os.File{f}
		}},
	} {
		if c.root && !root {
			continue
		}
		cmd := launch.Command{Shim: shim, Spec: spec(t, dir, "/bin/touch", witness)}
		c.set(&cmd.Spec, &cmd)
		_, err := run(t, cmd)
		var step *launch.StepError
		if !errors.As(err, &step) || step.Step != c.step {
			t.Errorf("%s: %v", c.step, err)
		}
		if _, err := os.Lstat(witness); err == nil {
			t.Fatalf("%s: it ran", c.step)
		}
	}
}

// C-10: the kernel refuses each call in turn.
func TestCallsThatFail(t *testing.T) {
	needRoot(t)
	if _, err := exec.LookPath("strace"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("strace is missing")
		}
		t.Skip("strace is missing")
	}
	dir := place(t)
	shim := binary(t, dir)
	witness := dir + "/ran"
	for _, c := range []struct{ inject, step string }{
		{"close_range:error=EINVAL", "descriptors"},
		{"unshare:error=EPERM", "mounts"},
		{"mount:error=EPERM:when=1", "mounts"},
		{"mount:error=ENOMEM:when=2", "mounts"},
		{"mount:error=EPERM:when=3", "mounts"},
		{"mount:error=ENOSPC:when=4", "mounts"},
		{"mount:error=EPERM:when=5", "mounts"},
		{"mount:error=EPERM:when=6", "processes"},
		{"setgroups:error=EPERM", "groups"},
		{"setresgid:error=EPERM", "gid"},
		{"setresuid:error=EAGAIN", "uid"},
		{"setgroups:retval=0", "verify groups"}, // it says yes and does nothing
		{"setresgid:retval=0", "verify"},
		{"setresuid:retval=0", "verify"},
		{"capset:error=EPERM", "capabilities"},
		{"chdir:error=EACCES", "directory"},
	} {
		wrapper := dir + "/traced"
		script := "#!/bin/sh\nexec strace -f -qq -o /dev/null -e trace=" + strings.SplitN(c.inject, ":", 2)[0] + " -e inject=" + c.inject + " " + shim + " \"$@\"\n"
		if err := os.WriteFile(wrapper, []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
		_, err := run(t, launch.Command{Shim: wrapper, Spec: spec(t, dir, "/bin/touch", witness)})
		var step *launch.StepError
		if !errors.As(err, &step) || step.Step != c.step {
			t.Errorf("%s: %v, not the step %q", c.inject, err, c.step)
		}
		if _, err := os.Lstat(witness); err == nil {
			t.Fatalf("%s: it ran", c.inject)
		}
	}
}

// A shim that dies without a word has not started anything.
//
//fault:node the shim is killed
//fault:seen the start fails
//fault:lost nothing, and nothing runs with root's rights
//fault:repair pressing start again
func TestShimDies(t *testing.T) {
	dir := place(t)
	for _, script := range []string{"#!/bin/sh\nexit 0\n", "#!/bin/sh\nkill -9 $$\n", "#!/bin/sh\necho '{\"step\":\"\"}' >&4\n"} {
		if err := os.WriteFile(dir+"/dead", []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
		if _, err := run(t, launch.Command{Shim: dir + "/dead", Spec: spec(t, dir, "/bin/true")}); err == nil {
			t.Errorf("%q counts as started", script)
		}
	}
	if _, err := run(t, launch.Command{Shim: "/no/such/shim", Spec: spec(t, dir, "/bin/true")}); err == nil {
		t.Error("no shim counts as started")
	}
	big := spec(t, dir, "/bin/true")
	big.Env = []string{"A=" + string(bytes.Repeat([]byte("x"), 1<<20))}
	if _, err := run(t, launch.Command{Shim: binary(t, dir), Spec: big}); err == nil {
		t.Error("a spec without end counts as started")
	}
}
