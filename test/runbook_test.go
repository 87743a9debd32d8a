package test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

var block = regexp.MustCompile("(?ms)^```sh ([a-z0-9 ]+)\n(.*?)^```$")

// The runbook is carried out as it stands: every block of commands, on the
// machines it names, from the package that make package makes.
func TestRunbook(t *testing.T) {
	needNamespace(t)
	text, err := os.ReadFile("../docs/admin/runbook.md")
	if err != nil {
		t.Fatal(err)
	}
	pack := exec.Command("../scripts/package", "tar")
	if out, err := pack.CombinedOutput(); err != nil {
		t.Fatalf("make package: %v\n%s", err, out)
	}
	dist, err := filepath.Abs("../dist")
	if err != nil {
		t.Fatal(err)
	}
	f := NewFleet(t, "front", "north")
	hosts := map[string]*Host{
		"server":   f.Host("server", map[string]string{"front": "10.77.0.1"}),
		"gateway":  f.Host("gateway", map[string]string{"front": "10.77.0.2", "north": "10.77.1.1"}),
		"compute1": f.Host("compute1", map[string]string{"north": "10.77.1.11"}),
	}
	f.Names = map[string]string{"quire.example.org": "10.77.0.1", ".north.example.org": "10.77.0.2"}
	names := map[string]string{
		"server":   "10.77.0.1 quire.example.org\n10.77.0.2 gateway.example.org\n",
		"gateway":  "10.77.0.1 quire.example.org\n10.77.1.11 compute1.example.org\n",
		"compute1": "10.77.1.1 gateway.example.org\n",
	}
	for name, h := range hosts {
		h.Installable()
		h.Write("/etc/hosts", "127.0.0.1 localhost\n"+names[name])
		h.must("sh", "-c", "cp "+dist+"/* /root/")
	}
	said := map[string]string{}
	for _, m := range block.FindAllStringSubmatch(string(text), -1) {
		for _, name := range strings.Fields(m[1]) {
			h := hosts[name]
			if h == nil {
				t.Fatalf("the runbook names the machine %q", name)
			}
			if strings.Contains(m[2], "uninstall.sh") {
				workThroughTheRunbook(t, f, hosts)
			}
			began := time.Now()
			out, err := h.Run("", "bash", "-euo", "pipefail", "-c", m[2])
			t.Logf("%s, %.1f s:\n%s\n%s", name, time.Since(began).Seconds(), m[2], out)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			said[name] += out
			carryTokens(h, hosts)
		}
	}
	for name, want := range map[string]string{
		"server": "The portal and its database answer.", "gateway": "Verified OK", "compute1": "access lists work",
	} {
		if !strings.Contains(said[name], want) {
			t.Errorf("%s never said %q", name, want)
		}
	}
	if out := hosts["compute1"].must("sh", "-c", "ls -d /opt/quire /usr/bin/quire /projects/ada /var/lib/quire/compute 2>/dev/null || true"); strings.TrimSpace(out) != "/projects/ada\n/var/lib/quire/compute" {
		t.Errorf("after it was taken away there are: %s", out)
	}
	// What is printed by a service goes to a log, so no secret is.
	for name, h := range hosts {
		if out, err := h.Run("", "grep", "-rE", "setup\\?key=|quire-join-|correct horse", "/var/log/quire"); err == nil {
			t.Errorf("the logs of %s have a secret: %s", name, out)
		}
	}
}

// carryTokens is the administrator who takes a file to another machine.
func carryTokens(from *Host, hosts map[string]*Host) {
	from.f.t.Helper()
	if from != hosts["server"] {
		return
	}
	for _, to := range []string{"gateway", "compute1"} {
		file := map[string]string{"gateway": "/root/north.token", "compute1": "/root/compute1.token"}[to]
		if text, err := from.Run("", "cat", file); err == nil {
			hosts[to].Write(file, text)
			from.must("rm", file)
		}
	}
}

// workThroughTheRunbook is step 7: a person and a notebook.
func workThroughTheRunbook(t *testing.T, f *Fleet, hosts map[string]*Host) {
	t.Helper()
	ctx := within(t, 2*time.Minute)
	ada := f.Browser("http://quire.example.org")
	if _, err := ada.Open(ctx, ada.Portal+"/login"); err != nil {
		t.Fatal(err)
	}
	if page, err := ada.Submit(ctx, ada.Portal+"/login", map[string][]string{"name": {"ada"}, "password": {"correct horse battery"}}); err != nil || page.Status != 200 {
		t.Fatalf("sign in: %v %+v", err, page)
	}
	f.up(ctx, ada, "nodes", "compute1", true)
	if err := ada.API(ctx, "POST", "/projects", map[string]any{"name": "First"}, nil); err != nil {
		t.Fatal(err)
	}
	if err := ada.API(ctx, "POST", "/projects/ada/First/start", nil, nil); err != nil {
		t.Fatal(err)
	}
	running(t, ctx, ada, "/ada/First")
	if _, err := ada.Open(ctx, ada.Portal+"/ada/First"); err != nil {
		t.Fatal(err)
	}
	n, err := ada.OpenNotebook(ctx, "/ada/First")
	if err != nil {
		t.Fatal(err)
	}
	if _, out := cell(ctx, t, n, "6*7"); out != "42" {
		t.Errorf("6*7 = %s", out)
	}
	for h, want := range map[*Host]string{hosts["server"]: ":80", hosts["gateway"]: ":8089", hosts["compute1"]: ":5002"} {
		if open := h.Listening(); len(open) != 1 || !strings.HasSuffix(open[0], want) {
			t.Errorf("%s listens on %v, want %s", h.Name, open, want)
		}
	}
}
