package test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// Without root everything runs as the one who starts it, and says so.
func TestSingleAccount(t *testing.T) {
	s := New(t)
	run(t, "useradd", "--create-home", "--uid", "5001", "laptop")
	copyFile(t, s.Binary, "/tmp/quire-for-laptop")
	s.Binary, s.As = "/tmp/quire-for-laptop", &syscall.Credential{Uid: 5001, Gid: 5001}
	s.Env = []string{"HOME=/home/laptop", "USER=laptop", "XDG_RUNTIME_DIR="}
	s.Start()
	s.Says("Single-account mode")
	s.Says("any notebook can read everything")
	ctx := within(t, 2*time.Minute)
	ada := s.Admin(ctx, "ada", password)
	running(t, ctx, ada, "/ada/Welcome")
	n, err := ada.OpenNotebook(ctx, "/ada/Welcome")
	if err != nil {
		t.Fatal(err)
	}
	kernel, err := n.NewKernel(ctx)
	if err != nil {
		t.Fatal(err)
	}
	k, err := n.Connect(ctx, kernel)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	if out, err := k.Run(ctx, "import os; os.getuid()"); err != nil || out != "5001" {
		t.Errorf("the kernel's uid: %q %v", out, err)
	}
	for _, dir := range []string{"/home/laptop/.local/share/quire/server", "/tmp/quire-5001"} {
		info, err := os.Stat(dir)
		if err != nil || info.Mode().Perm()&0o077 != 0 && strings.Contains(dir, "server") {
			t.Errorf("%s: %v %v", dir, info, err)
		}
	}
	if out, err := s.Run("", "stop", "--sessions"); err != nil {
		t.Errorf("stop --sessions: %v %s", err, out)
	}
	<-s.done
	s.cmd = nil
}

// Reached by one name without wildcards: one origin for all apps, still one
// cookie and one path for each label, and labelled.
func TestSharedOrigin(t *testing.T) {
	s := Up(t, "--host", "127.0.0.1")
	s.Says("For trusted users only")
	if !strings.HasPrefix(s.Portal, "http://127.0.0.1:") {
		t.Errorf("the address is %s", s.Portal)
	}
	ctx := within(t, 2*time.Minute)
	ada := s.Admin(ctx, "ada", password)
	running(t, ctx, ada, "/ada/Welcome")
	page, err := ada.Submit(ctx, s.Portal+"/ada/Welcome/notebook", url.Values{})
	if err != nil || page.Status >= 400 {
		t.Fatalf("open: %v %+v", err, page)
	}
	label, _, _ := strings.Cut(strings.TrimPrefix(page.URL.Path, "/"), "/")
	if len(label) != 20 {
		t.Fatalf("no label in %s", page.URL)
	}
	base, _ := page.URL.Parse("/" + label + "/notebook/")
	n := &Notebook{b: ada, Base: base}
	Eventually(t, 20*time.Second, "Jupyter answers", func() error { return n.Call(ctx, "GET", "api/status", nil, nil) })
	kernel, err := n.NewKernel(ctx)
	if err != nil {
		t.Fatal(err)
	}
	k, err := n.Connect(ctx, kernel)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	if out, err := k.Run(ctx, "6*7"); err != nil || out != "42" {
		t.Errorf("6*7 = %q, %v", out, err)
	}
	admin, err := ada.Open(ctx, s.Portal+"/admin")
	if err != nil || !strings.Contains(strings.ToLower(admin.Body), "trusted users only") {
		t.Errorf("the admin page does not say what a shared origin means: %v", err)
	}
}

// Ports that others have are named and the next pair is taken; a configured
// address is never exchanged.
func TestPortsTaken(t *testing.T) {
	s := New(t)
	l, err := net.Listen("tcp", "127.0.0.1:8080")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s.Start()
	if !strings.HasSuffix(s.Portal, ":8081") {
		t.Errorf("the portal is at %s", s.Portal)
	}
	if !strings.Contains(s.Output(), "127.0.0.1:8080 is in use by") || !strings.Contains(s.Output(), fmt.Sprint(os.Getpid())) {
		t.Errorf("the holder is not named: %s", s.Output())
	}
	s.End()
	const fixed = "{\n  // fixed\n  \"listen\": {\"portal\": \"127.0.0.1:8080\"},\n}\n"
	const just = "wants just this address"
	for _, c := range []struct {
		what, file, text string
		env, args        []string
		words            string
	}{
		{what: "a configured port that is taken", file: "quire.conf", text: fixed, words: just},
		{what: "a role's file", file: "server.conf", text: fixed, words: just},
		{what: "AEN's file", file: "wk-gateway-config.json", text: `{"port": 8080}`, words: just},
		{what: "the file of -c", file: "other.conf", text: fixed, args: []string{"-c", "/etc/quire/other.conf"}, words: just},
		{what: "a variable", env: []string{"QUIRE_LISTEN_PORTAL=127.0.0.1:8080"}, words: just},
		{what: "a flag", args: []string{"--set", "listen.portal=127.0.0.1:8080"}, words: just},
		{what: "an unknown key", file: "quire.conf", text: `{"lisen": {}}`, words: `/etc/quire/quire.conf:1: "lisen" is not a setting; the nearest is`},
	} {
		file := filepath.Join("/etc/quire", c.file)
		if c.file != "" {
			if err := os.WriteFile(file, []byte(c.text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		s.Env = c.env
		if out, err := s.Run("", append([]string{"up"}, c.args...)...); err == nil || !strings.Contains(out, c.words) {
			t.Errorf("%s: %v %s", c.what, err, out)
		}
		if c.file != "" {
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
		}
	}
	s.Env = nil
	if err := os.WriteFile("/etc/quire/wk-gateway-config.json", []byte(`{"port": 8099, "client_secret": "of old"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := s.Run("", "config"); err != nil || !strings.Contains(out, `"127.0.0.1:8099"`) || !strings.Contains(out, "/etc/quire/wk-gateway-config.json:1") || strings.Contains(out, "of old") {
		t.Errorf("what is in force: %v %s", err, out)
	}
	if out, err := s.Run("", "config", "check", "/etc/quire/wk-gateway-config.json"); err != nil || !strings.Contains(out, "is right") || strings.Contains(out, "of old") {
		t.Errorf("checking a file: %v %s", err, out)
	}
	if err := os.Chmod("/etc/quire/wk-gateway-config.json", 0o606); err != nil {
		t.Fatal(err)
	}
	if out, err := s.Run("", "up"); err == nil || !strings.Contains(out, "others can write") {
		t.Errorf("a file that others can write: %v %s", err, out)
	}
}

// The shipped example, a plain web app on a TCP port with WebSockets.
func TestExampleApp(t *testing.T) {
	s := New(t)
	if err := os.MkdirAll("/etc/quire/apps", 0o755); err != nil {
		t.Fatal(err)
	}
	descriptor, err := os.ReadFile("../examples/counter/counter.json")
	if err != nil {
		t.Fatal(err)
	}
	// In the namespace's own tree, so that nothing is left on the machine.
	const program = "/etc/quire/counter.py"
	at := bytes.ReplaceAll(descriptor, []byte("/opt/quire/apps/counter.py"), []byte(program))
	copyFile(t, "../examples/counter/counter.py", program)
	if err := os.WriteFile("/etc/quire/apps/counter.json", at, 0o644); err != nil {
		t.Fatal(err)
	}
	s.Start()
	ctx := within(t, 2*time.Minute)
	ada := s.Admin(ctx, "ada", password)
	running(t, ctx, ada, "/ada/Welcome")
	base, err := ada.OpenApp(ctx, "/ada/Welcome", "counter")
	if err != nil {
		t.Fatal(err)
	}
	Eventually(t, 20*time.Second, "the app answers", func() error {
		req, err := http.NewRequestWithContext(ctx, "GET", base.String(), nil)
		if err != nil {
			return err
		}
		req.Header.Set("Sec-Fetch-Site", "same-origin")
		req.Header.Set("Accept", "text/html")
		page, err := ada.Do(req)
		if err == nil && (page.Status != 200 || !strings.Contains(page.Body, "ounter")) {
			err = fmt.Errorf("%d %s", page.Status, firstLine(page.Body))
		}
		return err
	})
	ws := *base
	ws.Scheme = "ws"
	ws.Path += "socket"
	conn, _, err := websocket.Dial(ctx, ws.String(), &websocket.DialOptions{
		HTTPHeader: http.Header{"Origin": {base.Scheme + "://" + base.Host}, "Cookie": {ada.Cookies(base.Host)}},
		HTTPClient: &http.Client{Transport: &http.Transport{DialContext: loopback}},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseNow()
	if _, msg, err := conn.Read(ctx); err != nil || len(msg) == 0 {
		t.Errorf("the first push: %q %v", msg, err)
	}
}

// A project from a git address is cloned as the user; a deleted project is away
// and can be brought back with everything in it.
func TestCloneDeleteRestore(t *testing.T) {
	s := Up(t)
	ctx := within(t, 3*time.Minute)
	repo := t.TempDir()
	git := func(args ...string) {
		t.Helper()
		run(t, "git", append([]string{"-C", repo, "-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "safe.directory=*"}, args...)...)
	}
	git("init", "-q", "-b", "main")
	if err := os.WriteFile(filepath.Join(repo, "from-git.txt"), []byte("hello\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	git("add", ".")
	git("commit", "-q", "-m", "one")
	git("update-server-info")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	web := &http.Server{Handler: http.FileServer(http.Dir(filepath.Join(repo, ".git")))}
	go web.Serve(l)
	defer web.Close()

	ada := s.Admin(ctx, "ada", password)
	for _, bad := range []string{"file:///etc", "ext::sh -c id", "/etc", "-oProxyCommand=id", "ssh://-oProxyCommand=id/x"} {
		if err := ada.API(ctx, "POST", "/projects", map[string]any{"name": "Bad", "source": bad}, nil); err == nil {
			t.Errorf("the source %q was taken", bad)
		}
	}
	if err := ada.API(ctx, "POST", "/projects", map[string]any{"name": "Cloned", "source": "http://" + l.Addr().String() + "/"}, nil); err != nil {
		t.Fatal(err)
	}
	if err := ada.API(ctx, "POST", "/projects/ada/Cloned/start", nil, nil); err != nil {
		t.Fatal(err)
	}
	running(t, ctx, ada, "/ada/Cloned")
	file := "/projects/ada/Cloned/from-git.txt"
	if b, err := os.ReadFile(file); err != nil || string(b) != "hello\n" {
		t.Fatalf("the clone: %q %v", b, err)
	}
	n, err := ada.OpenNotebook(ctx, "/ada/Cloned")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.NewKernel(ctx); err != nil {
		t.Fatal(err)
	}
	if err := ada.API(ctx, "DELETE", "/projects/ada/Cloned?confirm=wrong", nil, nil); err == nil {
		t.Error("deleted without its name")
	}
	if err := ada.API(ctx, "DELETE", "/projects/ada/Cloned?confirm=Cloned", nil, nil); err != nil {
		t.Fatal(err)
	}
	type listed struct{ ID, Name string }
	var deleted []listed
	Eventually(t, 30*time.Second, "it is among the deleted", func() error {
		if err := ada.API(ctx, "GET", "/projects?list=deleted", nil, &deleted); err != nil {
			return err
		}
		if len(deleted) != 1 {
			return fmt.Errorf("%v", deleted)
		}
		return nil
	})
	if _, err := os.Stat(file); err == nil {
		t.Error("the files are still at their place")
	}
	nothingRuns(t)
	if err := ada.API(ctx, "POST", "/projects/"+deleted[0].ID+"/restore", nil, nil); err != nil {
		t.Fatal(err)
	}
	Eventually(t, 20*time.Second, "it is back", func() error {
		if err := ada.API(ctx, "GET", "/projects/ada/Cloned", nil, nil); err != nil {
			return err
		}
		_, err := os.Stat(file)
		return err
	})
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if out, err := exec.CommandContext(ctx, name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
}
