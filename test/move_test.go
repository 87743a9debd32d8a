package test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"quire"
)

// contents is a line for each name below a directory of the project: kind, mode,
// owner, group, size, time, number of names, where a link leads; then lists and sums.
const contents = `cd /projects/ada/Work/kept && find . -printf '%p %y %m %u %g %s %T@ %n %l\n' | sort && find . ! -type l -print0 | sort -z | xargs -0 getfacl -p -- && find . -type f -print0 | sort -z | xargs -0 sha256sum`

// A project with several authors goes to a node in another data center and back,
// while a member tries to change it and while each role dies.
//
//fault:node compute or the spawner of either node is killed while a project moves
//fault:seen the move takes longer
//fault:lost nothing
//fault:repair the copy is begun again, and compared
//fault:node a member goes on writing while a project moves
//fault:seen the project is closed to everybody; who has a file open is ended
//fault:lost nothing that was there when the project was closed
//fault:repair nothing is broken
//fault:also TestMove
func TestProjectMoves(t *testing.T) {
	f := NewFleet(t, "front", "north", "south")
	ctx := within(t, 8*time.Minute)
	server := f.Host("server", map[string]string{"front": "10.77.0.1"})
	north := f.Host("north", map[string]string{"front": "10.77.0.2", "north": "10.77.1.1"})
	south := f.Host("south", map[string]string{"front": "10.77.0.3", "south": "10.77.2.1"})
	n1 := f.Host("n1", map[string]string{"north": "10.77.1.11"})
	n2 := f.Host("n2", map[string]string{"north": "10.77.1.12"})
	s1 := f.Host("s1", map[string]string{"south": "10.77.2.11"})
	f.Names = map[string]string{"quire.site.test": "10.77.0.1", ".north.site.test": "10.77.0.2", ".south.site.test": "10.77.0.3"}
	n2.must("sh", "-c", "mkdir -p /projects && mount -t tmpfs -o mode=0711,size=80m tmpfs /projects")
	server.Write("/etc/quire/quire.conf", `{"roles": ["server"], "portal": "http://quire.site.test", "listen": {"portal": ":80"}}`)
	server.Up("is up after")
	ada := f.Admin(ctx, server, "ada", password)
	for name, h := range map[string]*Host{"north": north, "south": south} {
		h.Write("/etc/quire/quire.conf", `{"roles": ["gateway"]}`)
		h.Write("/etc/hosts", "127.0.0.1 localhost\n10.77.0.1 quire.site.test\n")
		h.joins(f.token(ctx, ada, map[string]any{"role": "gateway", "name": name}), "gateway", "join", "--server", "http://quire.site.test", "--apps", "http://*."+name+".site.test:8089")
		h.Up("runs")
		f.up(ctx, ada, "data-centers", name, true)
	}
	dcs := f.list(ctx, ada, "data-centers")
	for _, x := range []struct {
		h      *Host
		dc, gw string
	}{{n1, "north", "10.77.1.1"}, {n2, "north", "10.77.1.1"}, {s1, "south", "10.77.2.1"}} {
		x.h.Write("/etc/quire/quire.conf", `{"roles": ["compute"], "session": {"limits": false}}`)
		x.h.joins(f.token(ctx, ada, map[string]any{"role": "compute", "data_center": dcs[x.dc].ID, "name": x.h.Name}), "compute", "join", "--gateway", "http://"+x.gw+":8089")
		x.h.Up("runs")
		f.up(ctx, ada, "nodes", x.h.Name, true)
	}
	nodes := f.list(ctx, ada, "nodes")
	api := func(method, path string, in, out any) {
		t.Helper()
		if err := ada.API(ctx, method, path, in, out); err != nil {
			t.Fatalf("%s %s: %v", method, path, err)
		}
	}
	api("POST", "/users", map[string]any{"name": "bob", "password": password}, nil)
	api("POST", "/projects", map[string]any{"name": "Work", "node": nodes["n1"].ID}, nil)
	api("PUT", "/projects/ada/Work/team/bob", map[string]any{"role": "editor"}, nil)
	api("POST", "/projects/ada/Work/start", nil, nil)
	running(t, ctx, ada, "/ada/Work")
	as := func(h *Host, who, script string) (string, error) {
		return h.Run(script, "runuser", "-u", who, "--", "bash", "-e")
	}
	Eventually(t, 20*time.Second, "bob gets in", func() error {
		out, err := as(n1, "bob", "cd /projects/ada/Work; test -w .")
		if err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
		return err
	})
	for _, x := range [][2]string{
		{"ada", `mkdir -p kept/deep/er; printf one > kept/one; ln kept/one kept/deep/again; ln -s /etc/passwd kept/out; mkfifo pipe
printf odd > $'kept/ -odd\n\xff'; truncate -s 1G kept/hole; printf end >> kept/hole; touch -d 2001-02-03 kept/deep; head -c 200000000 /dev/urandom > kept/big; setfacl -m u:bob:r-- kept/one`},
		{"bob", `printf his > kept/deep/his; printf 'his own' > kept/secret; chmod 600 kept/secret`},
	} {
		if out, err := as(n1, x[0], "cd /projects/ada/Work\n"+x[1]); err != nil {
			t.Fatalf("%v %s", err, out)
		}
	}
	// Every start sets right what a chmod has closed; so that it changes nothing later, now.
	api("POST", "/projects/ada/Work/permissions/repair", nil, nil)
	Eventually(t, 20*time.Second, "the permissions are set right", func() error {
		var disk struct{ Repairs bool }
		api("GET", "/projects/ada/Work/permissions", nil, &disk)
		if out := n1.must("stat", "-c", "%a", "/projects/ada/Work/kept/secret"); disk.Repairs || out == "600\n" {
			return fmt.Errorf("%+v %s", disk, out)
		}
		return nil
	})
	before := n1.must("bash", "-c", contents)
	if !strings.Contains(before, "deep/his f 660 bob ada") {
		t.Fatalf("the files are not as people have them:\n%s", before)
	}

	where := func() (p quire.Project) {
		api("GET", "/projects/ada/Work", nil, &p)
		return p
	}
	timeline := func() (w quire.Work) {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		_ = ada.API(ctx, "GET", "/projects/ada/Work/timeline", nil, &w)
		return w
	}
	move := func(to *Host) {
		t.Helper()
		api("POST", "/projects/ada/Work/move", map[string]any{"node": nodes[to.Name].ID}, nil)
	}
	arrives := func(to *Host) {
		t.Helper()
		Eventually(t, 150*time.Second, "the project is on "+to.Name+" and runs", func() error {
			var p quire.Project
			if err := ada.API(ctx, "GET", "/projects/ada/Work", nil, &p); err != nil {
				return err
			}
			if string(p.Node) != nodes[to.Name].ID || p.State != quire.ProjectRunning {
				return fmt.Errorf("it is %s on %s: %s %+v", p.State, p.Node, p.Reason, timeline())
			}
			return nil
		})
		if after := to.must("bash", "-c", contents); after != before {
			t.Errorf("on %s:\n%s\nbefore:\n%s", to.Name, after, before)
		}
		for _, h := range []*Host{n1, s1} {
			if out := h.must("sh", "-c", "ls -A /projects/.stage 2>/dev/null || true"); strings.TrimSpace(out) != "" {
				t.Errorf("left in staging on %s: %s", h.Name, out)
			}
		}
	}

	t.Run("while a member changes what he can", func(t *testing.T) {
		// One by name, from outside of the project, one with a file held open.
		for _, script := range []string{
			`exec -a by-name bash -c 'while :; do echo x >>/projects/ada/Work/log; mv -T /projects/ada/Work/kept/deep /tmp/x; ln -sfn /etc /projects/ada/Work/kept/er; mkdir -p /projects/ada/Work; done' >/dev/null 2>&1 &`,
			`exec -a holds-open bash -c 'exec 3>>/projects/ada/Work/held; while :; do echo x >&3; done' >/dev/null 2>&1 &`,
		} {
			if out, err := as(n1, "bob", strings.ReplaceAll(script, "kept/", "other/")); err != nil {
				t.Fatalf("%v %s", err, out)
			}
		}
		Eventually(t, 10*time.Second, "they write", func() error {
			_, err := n1.Run("", "sh", "-c", "test -s /projects/ada/Work/log && test -s /projects/ada/Work/held")
			return err
		})
		move(s1)
		arrives(s1)
		if out, err := n1.Run("", "pgrep", "-f", "^holds-open"); err == nil {
			t.Errorf("who held a file open still runs: %s", out)
		}
		if _, err := n1.Run("", "test", "-e", "/projects/ada/Work"); err == nil {
			t.Error("a member made the old directory anew")
		}
		n1.Run("", "pkill", "-9", "-f", "^by-name")
		if _, err := s1.Run("", "sh", "-c", "test -s /projects/ada/Work/log && test -s /projects/ada/Work/held"); err != nil {
			t.Error("what was written before is missing")
		}
		if w := timeline(); w.Kind != "start" {
			t.Errorf("it was not started again: %+v", w)
		}
		n, err := ada.OpenNotebook(ctx, "/ada/Work")
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(n.Base.Host, ".south.site.test:8089") {
			t.Errorf("it opens at %s", n.Base)
		}
		if _, out := cell(ctx, t, n, "import socket; socket.gethostname(), open('kept/one').read()"); out != "('s1', 'one')" {
			t.Errorf("in the notebook: %s", out)
		}
		if out, err := as(s1, "bob", "cat /projects/ada/Work/kept/secret"); err != nil || !strings.Contains(out, "his own") {
			t.Errorf("bob's own file: %v %s", err, out)
		}
	})
	if t.Failed() {
		return
	}
	for i, x := range []struct {
		role string
		at   *Host
		step string
	}{{"server", server, "copy"}, {"compute", s1, "copy"}, {"spawner", n1, "copy"}, {"compute", n1, "verify"}} {
		to := []*Host{n1, s1}[i%2]
		t.Run(fmt.Sprintf("while the %s of %s dies", x.role, x.at.Name), func(t *testing.T) {
			move(to)
			Eventually(t, 60*time.Second, "it has begun to "+x.step, func() error {
				for _, s := range timeline().Steps {
					if s.Name == x.step && s.State != quire.WorkWaiting {
						return nil
					}
				}
				return fmt.Errorf("%+v", timeline())
			})
			x.at.Kill(x.role)
			arrives(to)
		})
		if t.Failed() {
			return
		}
	}

	t.Run("not to where it has no room", func(t *testing.T) {
		here := where()
		move(n2)
		Eventually(t, 60*time.Second, "it runs again where it was", func() error {
			p := where()
			if p.State != quire.ProjectRunning || timeline().Kind != "start" {
				return fmt.Errorf("%s: %s", p.State, p.Reason)
			}
			return nil
		})
		if now := where(); now.Node != here.Node {
			t.Errorf("it is on %s", now.Node)
		}
		var events []quire.Event
		api("GET", "/projects/ada/Work/events", nil, &events)
		said := ""
		for _, e := range events {
			if e.Verb == "project.move.failed" {
				said = e.Detail
				break
			}
		}
		if !strings.Contains(said, "n2 has") || !strings.Contains(said, "Make room there") {
			t.Errorf("it says %q", said)
		}
		if out := n2.must("sh", "-c", "ls -A /projects /projects/.stage 2>/dev/null | grep -v quire || true"); strings.Contains(out, "p_") || strings.Contains(out, "ada") {
			t.Errorf("left there: %s", out)
		}
	})
}
