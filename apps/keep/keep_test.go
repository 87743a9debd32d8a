package keep

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The test binary is keep, and the app below it.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "keep":
			os.Exit(Main(os.Args[2:]))
		case "app":
			os.Exit(app(os.Args[2:]))
		}
	}
	os.Exit(m.Run())
}

// app says where it listens, then does so until it is asked to end.
func app(args []string) int {
	network, address := args[0], args[1]
	l, err := net.Listen(network, address)
	if err != nil {
		fmt.Println(err)
		return 4
	}
	fmt.Println("listening, home", os.Getenv("HOME"))
	for {
		c, err := l.Accept()
		if err != nil {
			return 5
		}
		go func() {
			b, _ := io.ReadAll(c) // until the other side has said all
			_, _ = c.Write(append([]byte("heard "), b...))
			c.Close()
		}()
	}
}

type session struct {
	t   *testing.T
	dir string
	cmd *exec.Cmd
	err bytes.Buffer
	out *os.File // where ready is said
}

func start(t *testing.T, flags []string, argv ...string) *session {
	t.Helper()
	s := &session{t: t, dir: t.TempDir()}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	s.out = r
	for i, a := range argv {
		argv[i] = strings.ReplaceAll(a, "DIR", s.dir)
	}
	args := append([]string{"keep", "--dir", s.dir, "--ready", "3"}, flags...)
	s.cmd = exec.Command(os.Args[0], append(append(args, "--"), argv...)...)
	s.cmd.ExtraFiles = []*os.File{w}
	s.cmd.Stderr = &s.err
	s.cmd.Env = []string{"HOME=/no/such/home", "PATH=/usr/bin:/bin", "TMPDIR=" + t.TempDir()}
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r.Close()
		if s.cmd.ProcessState == nil {
			_ = s.cmd.Process.Signal(syscall.SIGTERM)
			_ = s.cmd.Wait()
		}
		if s.err.Len() > 0 {
			t.Errorf("keep said: %s", s.err.String())
		}
	})
	return s
}

func (s *session) ready() {
	s.t.Helper()
	_ = s.out.SetReadDeadline(time.Now().Add(10 * time.Second))
	b := make([]byte, 100)
	n, err := s.out.Read(b)
	if string(b[:n]) != "ready\n" {
		s.t.Fatalf("%q %v; log: %s", b[:n], err, s.log())
	}
}

func (s *session) log() string {
	b, _ := os.ReadFile(s.dir + "/log")
	return string(b)
}

func (s *session) exit() Exit {
	s.t.Helper()
	_ = s.cmd.Wait()
	var e Exit
	b, err := os.ReadFile(s.dir + "/exit.json")
	if err == nil {
		err = json.Unmarshal(b, &e)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return e
}

func (s *session) talk() string {
	s.t.Helper()
	c, err := net.Dial("unix", s.dir+"/app.sock")
	if err != nil {
		s.t.Fatal(err)
	}
	defer c.Close()
	_, _ = c.Write([]byte("hello"))
	_ = c.(*net.UnixConn).CloseWrite()
	b, _ := io.ReadAll(c)
	return string(b)
}

func TestUnixApp(t *testing.T) {
	s := start(t, nil, os.Args[0], "app", "unix", "DIR/app.sock")
	s.ready()
	if got := s.talk(); got != "heard hello" {
		t.Error(got)
	}
	var state State
	deadline := time.Now().Add(5 * time.Second)
	for state.Ready == nil && time.Now().Before(deadline) {
		b, err := os.ReadFile(s.dir + "/state.json")
		if err != nil || json.Unmarshal(b, &state) != nil {
			t.Fatalf("%s %v", b, err)
		}
	}
	if state.PID != s.cmd.Process.Pid || state.Boot == "" || state.Ready == nil {
		t.Errorf("%+v", state)
	}
	// A home that does not exist is replaced by a private one, and never made.
	if !strings.Contains(s.log(), "/home-") {
		t.Errorf("log: %s", s.log())
	}
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	if e := s.exit(); e.Signal != "terminated" {
		t.Errorf("%+v", e)
	}
}

func TestTCPApp(t *testing.T) {
	s := start(t, []string{"--tcp"}, os.Args[0], "app", "tcp", "127.0.0.1:%(port)s")
	s.ready()
	for range 20 {
		if got := s.talk(); got != "heard hello" {
			t.Fatal(got)
		}
	}
	info, err := os.Stat(s.dir + "/app.sock")
	if err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("%v %v", info.Mode(), err)
	}
}

func TestEnds(t *testing.T) {
	for _, c := range []struct {
		flags []string
		argv  []string
		want  Exit
	}{
		{nil, []string{"/bin/bash", "-c", "exit 7"}, Exit{Code: 7}},
		{nil, []string{"/bin/bash", "-c", "kill -KILL $$"}, Exit{Code: 137, Signal: "killed"}},
		{nil, []string{"/no/such"}, Exit{Code: 127, Reason: "The program could not be started: fork/exec /no/such: no such file or directory."}},
		{[]string{"--needs", "/no/such"}, []string{"/bin/true"}, Exit{Code: 127, Reason: "/no/such is missing, and the app needs it: install it in the project's environment."}},
		{[]string{"--cwd", "/no/such"}, []string{"/bin/true"}, Exit{Code: 127, Reason: "The directory /no/such cannot be entered: no such file or directory."}},
	} {
		s := start(t, c.flags, c.argv...)
		e := s.exit()
		e.At = time.Time{}
		if e != c.want {
			t.Errorf("%v: %+v, not %+v", c.argv, e, c.want)
		}
	}
}

// Detached children end with the app, those that refuse too.
func TestLeftBehind(t *testing.T) {
	s := start(t, nil, "/bin/bash", "-c", "setsid /bin/bash -c 'trap \"\" TERM HUP; echo $$ > DIR/left; while :; do sleep 1; done' >/dev/null 2>&1 & while [ ! -s DIR/left ]; do sleep 0.01; done; exit 0")
	e := s.exit()
	b, err := os.ReadFile(s.dir + "/left")
	if err != nil || e.Code != 0 {
		t.Fatal(err, e)
	}
	if _, err := os.Stat("/proc/" + strings.TrimSpace(string(b))); err == nil {
		t.Error("it still runs")
	}
}

// Nobody listens to keep any more: it does not mind.
func TestAlone(t *testing.T) {
	s := start(t, nil, os.Args[0], "app", "unix", "DIR/app.sock")
	s.out.Close()
	deadline := time.Now().Add(10 * time.Second)
	for {
		b, _ := os.ReadFile(s.dir + "/state.json")
		if strings.Contains(string(b), `"ready"`) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("never ready")
		}
	}
	if got := s.talk(); got != "heard hello" {
		t.Error(got)
	}
}

func TestLogTurns(t *testing.T) {
	name := filepath.Join(t.TempDir(), "log")
	l, err := openLog(name, 100)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for i := range 100 {
		fmt.Fprintf(l, "line %03d\n", i)
	}
	now, _ := os.ReadFile(name)
	before, _ := os.ReadFile(name + ".1")
	if len(now) > 100 || len(before) > 100 || !strings.HasSuffix(string(now), "line 099\n") || !strings.HasSuffix(string(before), "\n") {
		t.Errorf("%q %q", before, now)
	}
	// A disk that takes nothing does not stop the app.
	if err := os.RemoveAll(filepath.Dir(name)); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		if n, err := l.Write([]byte("x1234567890\n")); n != 12 || err != nil {
			t.Fatal(n, err)
		}
	}
}

func TestSocketTable(t *testing.T) {
	const four = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  2001        0 12345 1 0000000000000000 100 0 0 10 0"
	const six = "   0: 00000000000000000000000001000000:1F91 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000  2002        0 777 1 0000000000000000 100 0 0 10 0"
	l, ok := parseRow(four)
	if !ok || l.addr.String() != "127.0.0.1:8080" || l.uid != 2001 || l.inode != "12345" {
		t.Errorf("%+v %v", l, ok)
	}
	l, ok = parseRow(six)
	if !ok || l.addr.String() != "[::1]:8081" || l.uid != 2002 {
		t.Errorf("%+v %v", l, ok)
	}
	for _, bad := range []string{"", "sl local rem st", strings.Replace(four, " 0A ", " 01 ", 1), strings.Replace(four, "0100007F", "zz", 1)} {
		if l, ok := parseRow(bad); ok {
			t.Errorf("%q is %+v", bad, l)
		}
	}
}

// An app that fails is started again, and what it had started goes on; once it is
// asked to end, nothing of either is left.
func TestAppIsStartedAgain(t *testing.T) {
	s := start(t, []string{"--again"}, "/bin/sh", "-c", `[ -e DIR/child ] || { setsid sleep 600 & echo $! > DIR/child; }; echo $$ >> DIR/lives; exec sleep 600`)
	read := func(name string, lines int) []string {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); ; {
			b, _ := os.ReadFile(s.dir + "/" + name)
			if f := strings.Fields(string(b)); len(f) >= lines {
				return f
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: %q; log: %s", name, b, s.log())
			}
		}
	}
	pid := func(text string) (n int) { fmt.Sscan(text, &n); return n }
	for life := 1; life <= 3; life++ {
		if err := syscall.Kill(pid(read("lives", life)[life-1]), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	last := pid(read("lives", 4)[3])
	child := pid(read("child", 1)[0])
	if err := syscall.Kill(child, 0); err != nil {
		t.Errorf("what the app started was ended with it: %v", err)
	}
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	if e := s.exit(); e.Signal != "terminated" {
		t.Errorf("%+v", e)
	}
	for _, p := range []int{last, child} {
		if err := syscall.Kill(p, 0); err != syscall.ESRCH {
			t.Errorf("process %d is left: %v", p, err)
		}
	}
	if n := len(read("lives", 4)); n != 4 {
		t.Errorf("it was started %d times", n)
	}
}
