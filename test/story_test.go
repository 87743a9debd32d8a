package test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

const password = "correct horse battery"

type project struct {
	State  string
	Reason string
}

// running waits until a project is open.
func running(t *testing.T, ctx context.Context, b *Browser, path string) {
	t.Helper()
	Eventually(t, 30*time.Second, path+" runs", func() error {
		var p project
		if err := b.API(ctx, "GET", "/projects"+path, nil, &p); err != nil {
			return err
		}
		if p.State != "running" {
			return fmt.Errorf("%s %s", p.State, p.Reason)
		}
		return nil
	})
}

// A stranger starts Quire, chooses a name, opens the notebook and runs a cell;
// then every role dies in turn, as in a crash, and nothing he had is lost.
func TestFirstCellAndEveryRoleDies(t *testing.T) {
	s := Up(t)
	ctx := within(t, 4*time.Minute)
	if strings.Contains(s.Output(), "Single-account") {
		t.Fatal("as root, roles must have accounts of their own")
	}
	ada := s.Admin(ctx, "ada", password)
	running(t, ctx, ada, "/ada/Welcome")

	n, err := ada.OpenNotebook(ctx, "/ada/Welcome")
	if err != nil {
		t.Fatal(err)
	}
	var files struct{ Content []struct{ Name string } }
	if err := n.Call(ctx, "GET", "api/contents/", nil, &files); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(fmt.Sprint(files), "Welcome.ipynb") {
		t.Errorf("no Welcome.ipynb in %v", files)
	}
	kernel, err := n.NewKernel(ctx)
	if err != nil {
		t.Fatal(err)
	}
	k, err := n.Connect(ctx, kernel)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := k.Run(ctx, "6*7"); err != nil || out != "42" {
		t.Fatalf("6*7 = %q, %v", out, err)
	}
	out, err := k.Run(ctx, "import os, pwd; treasure = 'gold'; pwd.getpwuid(os.getuid()).pw_name, os.getcwd()")
	if err != nil || !strings.Contains(out, "'ada'") || !strings.Contains(out, "/projects/ada/Welcome") {
		t.Fatalf("the kernel is %q, %v", out, err)
	}
	k.Close()

	for _, role := range []string{"server", "gateway", "compute", "spawner"} {
		t.Run("kill "+role, func(t *testing.T) {
			s.Kill(role)
			var k *Kernel
			Eventually(t, 15*time.Second, "the kernel answers again", func() error {
				ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
				defer cancel()
				var err error
				if k, err = n.Connect(ctx, kernel); err != nil {
					return err
				}
				out, err := k.Run(ctx, "treasure")
				if err == nil && out != "'gold'" {
					err = fmt.Errorf("the variable is %q", out)
				}
				if err != nil {
					k.Close()
				}
				return err
			})
			k.Close()
			Eventually(t, 5*time.Second, "the portal shows the truth", func() error {
				return sessionIs(ctx, ada, "/ada/Welcome", "notebook", "running")
			})
		})
	}

	t.Run("JupyterLab of the project's own environment is offered and opens", func(t *testing.T) {
		k, err := n.Connect(ctx, kernel)
		if err != nil {
			t.Fatal(err)
		}
		defer k.Close()
		offered := func() error {
			var list []struct{ App struct{ Name string } }
			if err := ada.API(ctx, "GET", "/projects/ada/Welcome/apps", nil, &list); err != nil {
				return err
			}
			if !strings.Contains(fmt.Sprint(list), "{jupyterlab}") {
				return fmt.Errorf("offered: %v", list)
			}
			return nil
		}
		if offered() == nil {
			t.Log("this machine has a JupyterLab of its own, so it was offered before")
		}
		if out, err := k.Run(ctx, installStandIn); err != nil || out != "'installed'" {
			t.Fatalf("%q, %v", out, err)
		}
		// The next app that anybody opens there sees it.
		if _, err := ada.OpenApp(ctx, "/ada/Welcome", "terminal"); err != nil {
			t.Fatal(err)
		}
		Eventually(t, 15*time.Second, "the row has it", offered)
		page, err := ada.Open(ctx, s.Portal+"/ada/Welcome")
		if err != nil || !strings.Contains(page.Body, "JupyterLab (Python)") {
			t.Errorf("the project's page does not show it: %v", err)
		}
		base, err := ada.OpenApp(ctx, "/ada/Welcome", "jupyterlab")
		if err != nil {
			t.Fatal(err)
		}
		Eventually(t, 15*time.Second, "it answers", func() error {
			page, err := ada.Open(ctx, base.String())
			if err == nil && page.Body != "stand-in for JupyterLab" {
				err = fmt.Errorf("%d %.200s", page.Status, page.Body)
			}
			return err
		})
	})

	t.Run("everything is stopped and started", func(t *testing.T) {
		s.End()
		s.Says("3 sessions still run")
		s.Start()
		if s.Setup != "" {
			t.Errorf("a set-up link although there is an administrator: %s", s.Setup)
		}
		Eventually(t, 15*time.Second, "the variable is there", func() error {
			ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
			defer cancel()
			k, err := n.Connect(ctx, kernel)
			if err != nil {
				return err
			}
			defer k.Close()
			out, err := k.Run(ctx, "treasure")
			if err == nil && out != "'gold'" {
				err = fmt.Errorf("the variable is %q", out)
			}
			return err
		})
	})

	t.Run("stop says by whom and ends the kernel", func(t *testing.T) {
		page, err := ada.Submit(ctx, ada.Portal+"/ada/Welcome/stop", url.Values{})
		if err != nil || page.Status != 200 {
			t.Fatal(err, page)
		}
		Eventually(t, 20*time.Second, "the session ended", func() error {
			return sessionIs(ctx, ada, "/ada/Welcome", "notebook", "ended")
		})
		var list []struct{ Reason string }
		if err := ada.API(ctx, "GET", "/projects/ada/Welcome/sessions", nil, &list); err != nil {
			t.Fatal(err)
		}
		if len(list) == 0 || !strings.Contains(list[0].Reason, "ada") {
			t.Errorf("the reason does not name who stopped it: %+v", list)
		}
		nothingRuns(t)
	})
}

// installStandIn puts a stand-in for JupyterLab into the kernel's environment: the
// program that is looked for, and the module that is run.
const installStandIn = `import os, sys, sysconfig
with open(sys.prefix + '/bin/jupyter-lab', 'w') as f:
    f.write('#!/bin/sh\\necho stand-in for JupyterLab\\n')
os.chmod(sys.prefix + '/bin/jupyter-lab', 0o755)
with open(sysconfig.get_paths()['purelib'] + '/jupyterlab.py', 'w') as f:
    f.write("""
import http.server, socketserver, sys
class StandIn(http.server.BaseHTTPRequestHandler):
    def address_string(self):
        return 'a unix socket'
    def do_GET(self):
        text = b'stand-in for JupyterLab'
        self.send_response(200)
        self.send_header('Content-Length', str(len(text)))
        self.end_headers()
        self.wfile.write(text)
sock = [a.partition('=')[2] for a in sys.argv if a.startswith('--ServerApp.sock=')][0]
socketserver.ThreadingUnixStreamServer(sock, StandIn).serve_forever()
""")
'installed'`

func sessionIs(ctx context.Context, b *Browser, path, app, state string) error {
	var list []struct{ App, State, Reason, Log string }
	if err := b.API(ctx, "GET", "/projects"+path+"/sessions", nil, &list); err != nil {
		return err
	}
	for _, s := range list {
		if s.App == app {
			if s.State == state {
				return nil
			}
			return fmt.Errorf("it is %s: %s\n%s", s.State, s.Reason, s.Log)
		}
	}
	return errors.New("there is no such session")
}

// nothingRuns waits until the account of sessions has no process: what clears up
// behind a session runs as its account too.
func nothingRuns(t *testing.T) {
	t.Helper()
	Eventually(t, 10*time.Second, "nothing is left running", func() error {
		passwd, err := os.ReadFile("/etc/passwd")
		for line := range strings.Lines(string(passwd)) {
			if f := strings.Split(line, ":"); strings.Contains(line, ":Quire:") {
				if left := processesOf(f[0]); len(left) > 0 {
					return fmt.Errorf("%s: %v", f[0], left)
				}
			}
		}
		return err
	})
}

// processesOf lists the command lines of an account's processes.
func processesOf(name string) (list []string) {
	uid := uint32(0)
	passwd, _ := os.ReadFile("/etc/passwd")
	for line := range strings.Lines(string(passwd)) {
		if f := strings.Split(line, ":"); f[0] == name {
			fmt.Sscan(f[2], &uid)
		}
	}
	procs, _ := os.ReadDir("/proc")
	for _, p := range procs {
		info, err := p.Info()
		if err != nil || uid == 0 || info.Sys().(*syscall.Stat_t).Uid != uid {
			continue
		}
		if b, _ := os.ReadFile("/proc/" + p.Name() + "/cmdline"); len(b) > 0 {
			list = append(list, strings.ReplaceAll(string(b), "\x00", " "))
		}
	}
	return list
}

// Members share an address; each lands in his own origin. Strangers get the one
// answer for what is not there and what is not theirs; viewers cannot write.
func TestTeam(t *testing.T) {
	s := Up(t)
	ctx := within(t, 3*time.Minute)
	ada := s.Admin(ctx, "ada", password)
	ben := s.Person(ctx, ada, "ben", password)
	vic := s.Person(ctx, ada, "vic", password)
	eve := s.Person(ctx, ada, "eve", password)
	for name, role := range map[string]string{"ben": "editor", "vic": "viewer"} {
		if err := ada.API(ctx, "PUT", "/projects/ada/Welcome/team/"+name, map[string]string{"role": role}, nil); err != nil {
			t.Fatal(err)
		}
	}
	running(t, ctx, ada, "/ada/Welcome")
	an, err := ada.OpenNotebook(ctx, "/ada/Welcome")
	if err != nil {
		t.Fatal(err)
	}
	bn, err := ben.OpenNotebook(ctx, "/ada/Welcome")
	if err != nil {
		t.Fatal(err)
	}
	if an.Base.Host == bn.Base.Host {
		t.Error("two people share a browser origin")
	}
	shared := s.Portal + "/ada/Welcome/notebook/tree"
	for who, b := range map[string]*Browser{"ada": ada, "ben": ben} {
		if page, err := b.Open(ctx, shared); err != nil || page.Status != 200 || !strings.Contains(page.URL.Host, ".apps.localhost") {
			t.Errorf("%s at the shared address: %v %v", who, err, page)
		}
	}
	if page, err := vic.Open(ctx, shared); err != nil || page.Status != 403 {
		t.Errorf("a viewer at the notebook: %v %+v", err, page)
	}
	if page, err := eve.Open(ctx, shared); err != nil || page.Status != 404 {
		t.Errorf("a stranger at the notebook: %v %+v", err, page)
	}
	nothing, err := eve.Open(ctx, s.Portal+"/ada/Nothing/notebook/tree")
	if err != nil || nothing.Status != 404 {
		t.Errorf("a stranger at nothing: %v %+v", err, nothing)
	}
	// Somebody else's origin, with one's own login.
	if page, err := eve.Open(ctx, an.Base.String()); err != nil || page.Status == 200 {
		t.Errorf("eve in ada's origin: %v %+v", err, page)
	}

	t.Run("removal ends what he has open", func(t *testing.T) {
		kernel, err := bn.NewKernel(ctx)
		if err != nil {
			t.Fatal(err)
		}
		k, err := bn.Connect(ctx, kernel)
		if err != nil {
			t.Fatal(err)
		}
		defer k.Close()
		if _, err := k.Run(ctx, "1"); err != nil {
			t.Fatal(err)
		}
		if err := ada.API(ctx, "DELETE", "/projects/ada/Welcome/team/ben", nil, nil); err != nil {
			t.Fatal(err)
		}
		closed := within(t, 5*time.Second)
		for {
			if _, _, err := k.conn.Read(closed); err != nil {
				if closed.Err() != nil {
					t.Error("his WebSocket is open 5 s after he was removed")
				}
				break
			}
		}
		if err := bn.Call(ctx, "GET", "api/status", nil, nil); err == nil {
			t.Error("his app answers after he was removed")
		}
		if page, err := ben.Open(ctx, shared); err != nil || page.Status != 404 {
			t.Errorf("the shared address after he was removed: %v %+v", err, page)
		}
		if err := an.Call(ctx, "GET", "api/status", nil, nil); err != nil {
			t.Errorf("the owner is disturbed: %v", err)
		}
	})

	t.Run("log-out ends that login's app, the kernel goes on", func(t *testing.T) {
		kernel, err := an.NewKernel(ctx)
		if err != nil {
			t.Fatal(err)
		}
		k, err := an.Connect(ctx, kernel)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := k.Run(ctx, "kept = 'yes'"); err != nil {
			t.Fatal(err)
		}
		if page, err := ada.Submit(ctx, s.Portal+"/logout", url.Values{}); err != nil || page.Status != 200 {
			t.Fatal(err, page)
		}
		Eventually(t, 5*time.Second, "the app origin is closed to the old cookie", func() error {
			if an.Call(ctx, "GET", "api/status", nil, nil) == nil {
				return errors.New("it still answers")
			}
			return nil
		})
		again := s.SignIn(ctx, "ada", password)
		n, err := again.OpenNotebook(ctx, "/ada/Welcome")
		if err != nil {
			t.Fatal(err)
		}
		k, err = n.Connect(ctx, kernel)
		if err != nil {
			t.Fatal(err)
		}
		defer k.Close()
		if out, err := k.Run(ctx, "kept"); err != nil || out != "'yes'" {
			t.Errorf("the kernel says %q, %v", out, err)
		}
	})
}

// The commands of a machine without a browser.
func TestCommands(t *testing.T) {
	s := Up(t)
	ctx := within(t, 2*time.Minute)
	if out, err := s.Run("", "up"); err != nil || !strings.Contains(out, "already running at "+s.Portal) {
		t.Errorf("a second quire up: %v %s", err, out)
	}
	if out, err := s.Run("short\n", "admin", "create", "root2", "--password-stdin"); err == nil || !strings.Contains(out, "at least 10 characters") {
		t.Errorf("a short password: %v %s", err, out)
	}
	if out, err := s.Run(password+"\n", "admin", "create", "grace", "--password-stdin"); err != nil {
		t.Fatalf("admin create: %v %s", err, out)
	}
	grace := s.SignIn(ctx, "grace", password)
	link, err := s.Run("", "admin", "setup-link")
	if err != nil || !strings.HasPrefix(link, s.Portal+"/setup?key=") {
		t.Errorf("setup-link: %v %s", err, link)
	}
	if err := grace.API(ctx, "POST", "/projects", map[string]any{"name": "Night"}, nil); err != nil {
		t.Fatal(err)
	}
	out, err := s.Run("", "start-project", "grace/Night")
	if err != nil || !strings.Contains(out, "environment") {
		t.Errorf("start-project: %v %s", err, out)
	}
	running(t, ctx, grace, "/grace/Night")
	if out, err := s.Run("", "start-project", "grace/Nothing"); err == nil {
		t.Errorf("start-project of nothing: %s", out)
	}
	if _, err := grace.OpenNotebook(ctx, "/grace/Night"); err != nil {
		t.Fatal(err)
	}
	if out, err := s.Run("", "stop", "--sessions"); err != nil || !strings.Contains(out, "Sessions ended: 1.") {
		t.Errorf("stop --sessions: %v %s", err, out)
	}
	<-s.done
	s.cmd = nil
	nothingRuns(t)
	for _, f := range []string{"server", "gateway", "compute", "spawner"} {
		b, err := os.ReadFile("/var/log/quire/" + f + ".log")
		if err != nil {
			t.Error(err)
		}
		if strings.Contains(string(b), password) || strings.Contains(string(b), strings.TrimSpace(link)) {
			t.Errorf("a secret is in %s.log", f)
		}
	}
}
