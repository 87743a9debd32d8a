package test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Site is a running installation: `quire up` with everything real.
type Site struct {
	Binary string
	Portal string
	Setup  string // the set-up address it printed, "" if nobody is needed

	// As, if set, is who starts it: an account without rights of its own.
	As *syscall.Credential
	// Env is added to the environment.
	Env []string
	// Transport, if set, is how its browsers reach it.
	Transport http.RoundTripper

	t    testing.TB
	cmd  *exec.Cmd
	done chan struct{}
	mu   sync.Mutex
	out  strings.Builder
}

// binary is built by make before the tests run.
func binary(t testing.TB) string {
	t.Helper()
	b, err := filepath.Abs("../bin/quire")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(b); err != nil {
		t.Fatalf("%v: run go run ./build first", err)
	}
	return b
}

// needNamespace ends a test that would change the machine it runs on.
func needNamespace(t testing.TB) {
	t.Helper()
	if os.Getenv("QUIRE_NAMESPACE") != "" {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatal("this test runs as root in scripts/in-namespace, and CI leaves nothing out")
	}
	t.Skip("needs root: go test -exec scripts/in-namespace ./test")
}

var openLine = regexp.MustCompile(`(?m)^\s*Open (https?://\S+)`)

// Up starts the installation and waits for the address it prints.
func Up(t testing.TB, args ...string) *Site {
	t.Helper()
	s := New(t)
	s.Start(args...)
	return s
}

// New is Up before it starts, for tests that prepare something.
func New(t testing.TB) *Site {
	t.Helper()
	needNamespace(t)
	s := &Site{Binary: binary(t), t: t}
	fresh(t)
	t.Cleanup(func() {
		if s.cmd != nil {
			s.Run("", "stop", "--sessions")
		}
		s.End()
		if t.Failed() {
			s.Logs()
		}
	})
	return s
}

// fresh ends what people still run and empties the places of an installation:
// processes and places are the namespace's own.
func fresh(t testing.TB) {
	t.Helper()
	procs, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range procs {
		pid, err := strconv.Atoi(p.Name())
		if info, e := p.Info(); err == nil && e == nil && info.Sys().(*syscall.Stat_t).Uid >= 1000 {
			syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	// A session whose clearing up was cut short leaves its directory mounted.
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 1 && strings.HasPrefix(f[1], "/run/quire/") {
			syscall.Unmount(f[1], syscall.MNT_DETACH)
		}
	}
	for _, place := range []string{"/var/lib/quire", "/var/log/quire", "/etc/quire", "/projects", "/run/quire"} {
		inside, err := filepath.Glob(place + "/*")
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range inside {
			// What was killed a moment ago may still be writing.
			Eventually(t, 10*time.Second, "an empty "+place, func() error { return os.RemoveAll(path) })
		}
	}
	passwd, err := os.ReadFile("/etc/passwd")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(passwd)) {
		f := strings.Split(line, ":")
		if uid, err := strconv.Atoi(f[2]); err == nil && uid >= 20000 && uid < 60000 {
			// -f: a process that has just been killed may still be listed.
			if out, err := exec.Command("/usr/sbin/userdel", "-rf", "--", f[0]).CombinedOutput(); err != nil && !strings.Contains(string(out), "mail spool") {
				t.Fatalf("userdel %s: %s", f[0], out)
			}
		}
	}
}

// Start runs `quire up` again, after End.
func (s *Site) Start(args ...string) {
	s.t.Helper()
	s.cmd = exec.Command(s.Binary, append([]string{"up"}, args...)...)
	pipe, err := s.cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	s.cmd.Stderr = os.Stderr
	s.prepare(s.cmd)
	s.done = make(chan struct{})
	s.out.Reset()
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	address := make(chan string, 1)
	go func() {
		defer close(s.done)
		sc := bufio.NewScanner(pipe)
		for sc.Scan() {
			s.mu.Lock()
			s.out.WriteString(sc.Text() + "\n")
			s.mu.Unlock()
			if m := openLine.FindStringSubmatch(sc.Text()); m != nil {
				select {
				case address <- m[1]:
				default:
				}
			}
		}
		io.Copy(io.Discard, pipe)
		s.cmd.Wait()
	}()
	select {
	case a := <-address:
		u, err := url.Parse(a)
		if err != nil {
			s.t.Fatal(err)
		}
		s.Portal, s.Setup = u.Scheme+"://"+u.Host, ""
		if u.Path != "" && u.Path != "/" {
			s.Setup = a
		}
	case <-s.done:
		s.t.Fatalf("quire up ended: %s", s.Output())
	case <-time.After(40 * time.Second):
		s.Logs()
		s.t.Fatalf("quire up printed no address: %s", s.Output())
	}
}

// Output is what `quire up` printed so far.
func (s *Site) Output() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.out.String()
}

// Says waits until `quire up` has printed the words.
func (s *Site) Says(words string) {
	s.t.Helper()
	Eventually(s.t, 5*time.Second, "it says "+words, func() error {
		if out := s.Output(); !strings.Contains(out, words) {
			return errors.New(out)
		}
		return nil
	})
}

// End interrupts `quire up` and waits for it. Sessions go on.
func (s *Site) End() {
	if s.cmd == nil || s.cmd.Process == nil {
		return
	}
	s.cmd.Process.Signal(syscall.SIGINT)
	select {
	case <-s.done:
	case <-time.After(20 * time.Second):
		s.t.Errorf("quire up did not end")
		s.cmd.Process.Kill()
		<-s.done
	}
	s.cmd = nil
}

// Run runs a quire command and returns what it printed.
func (s *Site) Run(stdin string, args ...string) (string, error) {
	cmd := exec.Command(s.Binary, args...)
	cmd.Stdin = strings.NewReader(stdin)
	s.prepare(cmd)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (s *Site) prepare(cmd *exec.Cmd) {
	cmd.Env = append(os.Environ(), s.Env...)
	if s.As != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.As}
	}
}

// Logs shows the roles' logs, after a failure.
func (s *Site) Logs() {
	files, _ := filepath.Glob("/var/log/quire/*.log")
	own, _ := filepath.Glob("/home/*/.local/share/quire/logs/*.log")
	files = append(files, own...)
	for _, f := range files {
		b, _ := os.ReadFile(f)
		if len(b) > 6000 {
			b = b[len(b)-6000:]
		}
		s.t.Logf("%s:\n%s", f, b)
	}
}

// Role finds the process of a role.
func (s *Site) Role(name string) (pid int) {
	s.t.Helper()
	procs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, p := range procs {
		b, _ := os.ReadFile(p)
		argv := strings.Split(string(b), "\x00")
		if len(argv) > 3 && filepath.Base(argv[0]) == "quire" && argv[1] == name && argv[2] == "-c" {
			n, _ := strconv.Atoi(strings.Split(p, "/")[2])
			return n
		}
	}
	return 0
}

// Kill ends a role as a crash does and waits until another one runs.
func (s *Site) Kill(name string) {
	s.t.Helper()
	old := s.Role(name)
	if old == 0 {
		s.t.Fatalf("no %s runs", name)
	}
	syscall.Kill(old, syscall.SIGKILL)
	Eventually(s.t, 10*time.Second, "another "+name, func() error {
		if pid := s.Role(name); pid == 0 || pid == old {
			return fmt.Errorf("pid %d", pid)
		}
		return nil
	})
}

// Admin uses the set-up link: the browser is signed in as the administrator.
func (s *Site) Admin(ctx context.Context, name, password string) *Browser {
	s.t.Helper()
	b := s.browser(password)
	u, err := url.Parse(s.Setup)
	if err != nil || s.Setup == "" {
		s.t.Fatalf("no set-up link: %v\n%s", err, s.Output())
	}
	b.remember(u.Query().Get("key"))
	page, err := b.Submit(ctx, s.Portal+"/setup", url.Values{"key": {u.Query().Get("key")}, "name": {name}, "password": {password}, "again": {password}})
	if err != nil || page.Status != 200 {
		s.t.Fatalf("set-up: %v %+v", err, page)
	}
	return b
}

// Person makes an account and signs a browser in.
func (s *Site) Person(ctx context.Context, admin *Browser, name, password string) *Browser {
	s.t.Helper()
	if err := admin.API(ctx, "POST", "/users", map[string]any{"name": name, "password": password}, nil); err != nil {
		s.t.Fatal(err)
	}
	return s.SignIn(ctx, name, password)
}

// SignIn signs a fresh browser in.
func (s *Site) SignIn(ctx context.Context, name, password string) *Browser {
	s.t.Helper()
	b := s.browser(password)
	page, err := b.Submit(ctx, s.Portal+"/login", url.Values{"name": {name}, "password": {password}})
	if err != nil || page.Status != 200 || b.API(ctx, "GET", "/me", nil, nil) != nil {
		s.t.Fatalf("sign in %s: %v %+v", name, err, page)
	}
	return b
}

// browser is one whose secrets stand in no log when the story is over (S-37).
func (s *Site) browser(password string) *Browser {
	b := NewBrowser(s.Portal)
	if s.Transport != nil {
		b.http.Transport = s.Transport
	}
	b.remember(password)
	s.t.Cleanup(func() {
		b.Close()
		logs := 0
		for _, place := range []string{"/var/log/quire/*", "/run/quire/s/*/*", "/home/*/.local/share/quire/logs/*"} {
			files, _ := filepath.Glob(place)
			for _, f := range files {
				if !strings.HasSuffix(f, "log") {
					continue
				}
				text, err := os.ReadFile(f)
				if err != nil {
					s.t.Errorf("a log cannot be read: %v", err)
				}
				logs++
				for _, secret := range b.Secrets() {
					if strings.Contains(string(text), secret) {
						s.t.Errorf("%s has a secret that somebody was given: %.6s…", f, secret)
					}
				}
			}
		}
		if logs < 3 || len(b.Secrets()) < 3 {
			s.t.Errorf("%d secrets were looked for in %d logs", len(b.Secrets()), logs)
		}
	})
	return b
}

// Eventually waits for a condition, looking again and again; it is for what
// other processes do, whose clocks a test cannot hold.
func Eventually(t testing.TB, limit time.Duration, what string, f func() error) {
	t.Helper()
	deadline := time.Now().Add(limit)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v: %v", what, limit, err)
		}
		<-tick.C
	}
}
