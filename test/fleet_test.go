package test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"quire"
	"quire/compute/remote"
)

// found is a data center or node as the API lists it.
type found struct {
	ID, Name, Gateway, Reason string
	DataCenter                string `json:"data_center"`
	Up, Drained               bool
	Peer                      struct{ Fingerprint string }
}

func (f *Fleet) list(ctx context.Context, b *Browser, what string) map[string]found {
	f.t.Helper()
	var all []found
	if err := b.API(ctx, "GET", "/"+what, nil, &all); err != nil {
		f.t.Fatal(err)
	}
	m := map[string]found{}
	for _, x := range all {
		m[x.Name] = x
	}
	return m
}

// up waits until a data center or node is seen to be up, or away.
func (f *Fleet) up(ctx context.Context, b *Browser, what, name string, want bool) {
	f.t.Helper()
	Eventually(f.t, 20*time.Second, fmt.Sprintf("%s is up: %v", name, want), func() error {
		if x, ok := f.list(ctx, b, what)[name]; !ok || x.Up != want {
			return fmt.Errorf("%+v", x)
		}
		return nil
	})
}

// token makes a join token by the API.
func (f *Fleet) token(ctx context.Context, b *Browser, in map[string]any) string {
	f.t.Helper()
	var out struct{ Token string }
	if err := b.API(ctx, "POST", "/join-tokens", in, &out); err != nil {
		f.t.Fatal(err)
	}
	b.remember(out.Token)
	return out.Token
}

// joins joins a machine and returns the fingerprint it printed last.
func (h *Host) joins(token string, args ...string) string {
	h.f.t.Helper()
	out, err := h.Quire(token, append(args, "--token-file", "-")...)
	if err != nil {
		h.f.t.Fatalf("%s: %v\n%s", h.Name, err, out)
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	return lines[len(lines)-1]
}

// stolen is the identity of a role there, as a thief has it.
func (h *Host) stolen(t *testing.T, role string) *remote.Identity {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"node.key", "node.crt", "ca.crt"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(h.must("cat", "/var/lib/quire/"+role+"/"+name)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	id, err := remote.LoadIdentity(dir)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// cell runs code in a fresh kernel and leaves the kernel running.
func cell(ctx context.Context, t *testing.T, n *Notebook, code string) (kernel, out string) {
	t.Helper()
	kernel, err := n.NewKernel(ctx)
	if err != nil {
		t.Fatal(err)
	}
	k, err := n.Connect(ctx, kernel)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	if out, err = k.Run(ctx, code); err != nil {
		t.Fatal(err)
	}
	return kernel, out
}

// still runs code in a kernel that runs, trying again until it is reached.
func still(ctx context.Context, t *testing.T, n *Notebook, kernel, code, want string) {
	t.Helper()
	Eventually(t, 20*time.Second, "the kernel answers "+want, func() error {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		k, err := n.Connect(ctx, kernel)
		if err != nil {
			return err
		}
		defer k.Close()
		out, err := k.Run(ctx, code)
		if err == nil && out != want {
			err = errors.New(out)
		}
		return err
	})
}

// sweep tries every TCP port of the places that a notebook might look at.
const sweep = `
import errno, socket
def _sweep(host):
    found = []
    for port in range(1, 65536):
        with socket.socket() as s:
            s.settimeout(5)
            code = s.connect_ex((host, port))
            if code in (errno.ENETUNREACH, errno.EHOSTUNREACH):
                return 'no way there'
            if code == 0 and s.getsockname()[1] != port: # or it has met itself
                found.append(port)
            elif code not in (0, errno.ECONNREFUSED):
                found.append(-code)
    return found
{h: _sweep(h) for h in ('127.0.0.1', '10.77.1.11', '10.77.1.1', '10.77.0.1', '169.254.169.254')}`

// One server, two data centers, three nodes, on wires of their own: a node is on
// none with the server. They are set up as docs/admin/machines.md says, used, cut,
// killed, and taken apart.
//
//fault:gateway one of two gateways is down
//fault:seen people of its data center wait; those of the other one see nothing of it
//fault:lost nothing: kernels go on
//fault:repair it comes back
//fault:network server and gateway are cut off from each other
//fault:seen apps go on within the grace
//fault:lost nothing
//fault:repair all agrees again within seconds of healing
//fault:network gateway and node are cut off from each other
//fault:seen the node is seen as away; its kernels are there again afterwards
//fault:lost nothing
//fault:repair healing
//fault:keys a gateway's or node's key is stolen
//fault:seen nothing: it orders nothing, and opens nothing of another data center
//fault:lost nothing
//fault:repair removing it, and joining again
//fault:also TestStrangers
//fault:keys the address of the portal changes
//fault:seen people sign in again at the new one
//fault:lost nothing: running work goes on
//fault:repair gateways follow by themselves
func TestDataCenters(t *testing.T) {
	f := NewFleet(t, "front", "north", "south")
	ctx := within(t, 5*time.Minute)
	server := f.Host("server", map[string]string{"front": "10.77.0.1"})
	north := f.Host("north", map[string]string{"front": "10.77.0.2", "north": "10.77.1.1"})
	south := f.Host("south", map[string]string{"front": "10.77.0.3", "south": "10.77.2.1"})
	n1 := f.Host("n1", map[string]string{"north": "10.77.1.11"})
	n2 := f.Host("n2", map[string]string{"north": "10.77.1.12"})
	s1 := f.Host("s1", map[string]string{"south": "10.77.2.11"})
	f.Names = map[string]string{"quire.site.test": "10.77.0.1", ".north.site.test": "10.77.0.2", ".south.site.test": "10.77.0.3"}

	server.Write("/etc/quire/quire.conf", `{"roles": ["server"], "portal": "http://quire.site.test", "listen": {"portal": ":80"}}`)
	north.Write("/etc/quire/quire.conf", `{"roles": ["gateway"]}`)
	for _, h := range []*Host{n1, n2, s1} {
		h.Write("/etc/quire/quire.conf", `{"roles": ["compute"], "session": {"limits": false}}`)
	}
	server.Up("is up after")
	ada := f.Admin(ctx, server, "ada", password)
	if dcs := f.list(ctx, ada, "data-centers"); len(dcs) != 0 {
		t.Errorf("a server alone has data centers: %v", dcs)
	}

	t.Run("a gateway that has not joined says so and joins while it runs", func(t *testing.T) {
		north.Up("has not joined")
		out := north.must(binary(t), "status")
		if !strings.Contains(out, "gateway") || !strings.Contains(out, "running") {
			t.Errorf("status: %s", out)
		}
		page, err := f.Browser("http://x.north.site.test:8089").Open(ctx, "http://x.north.site.test:8089/")
		if err != nil || page.Status != 503 || !strings.Contains(page.Body, "not registered") {
			t.Errorf("%v %+v", err, page)
		}
		token := f.token(ctx, ada, map[string]any{"role": "gateway", "name": "north"})
		if out, err := north.Quire("quire-join-nonsense", "gateway", "join", "--server", "http://10.77.0.1", "--token-file", "-"); err == nil {
			t.Errorf("nonsense joins: %s", out)
		}
		if out, err := north.Quire(token, "compute", "join", "--gateway", "http://10.77.0.1", "--token-file", "-"); err == nil {
			t.Errorf("a gateway becomes a node: %s", out)
		}
		north.Write("/etc/hosts", "127.0.0.1 localhost\n10.77.0.1 quire.site.test\n")
		key := north.joins(token, "gateway", "join", "--server", "http://quire.site.test", "--apps", "http://*.north.site.test:8089")
		f.up(ctx, ada, "data-centers", "north", true)
		if dc := f.list(ctx, ada, "data-centers")["north"]; dc.Peer.Fingerprint != key {
			t.Errorf("the page shows %q, the gateway %q", dc.Peer.Fingerprint, key)
		}
	})
	t.Run("another joins before it starts, by AEN's command, with nothing configured", func(t *testing.T) {
		south.Write("/etc/hosts", "127.0.0.1 localhost\n10.77.0.1 quire.site.test\n")
		configure := []string{"wk-gateway-configure", "--server", "http://quire.site.test", "--host", "10.77.0.3", "--port", "8089", "--name", "south",
			"--protocol", "http", "--summary", "The other one", "--username", "ada", "--apps", "http://*.south.site.test:8089"}
		if out, err := south.Quire("wrong horse\n", configure...); err == nil {
			t.Errorf("a wrong password: %s", out)
		}
		if out, err := south.Quire(password+"\n", configure...); err != nil {
			t.Fatalf("%v %s", err, out)
		}
		south.Up(`The gateway "south" runs`)
		f.up(ctx, ada, "data-centers", "south", true)
	})
	dcs := f.list(ctx, ada, "data-centers")
	t.Run("nodes join through their gateway", func(t *testing.T) {
		for _, x := range []struct {
			h      *Host
			dc, gw string
		}{{n1, "north", "10.77.1.1"}, {n2, "north", "10.77.1.1"}, {s1, "south", "10.77.2.1"}} {
			x.h.Up("has not joined")
			if x.dc == "south" {
				continue // below
			}
			token := f.token(ctx, ada, map[string]any{"role": "compute", "data_center": dcs[x.dc].ID, "name": x.h.Name})
			key := x.h.joins(token, "compute", "join", "--gateway", "http://"+x.gw+":8089")
			f.up(ctx, ada, "nodes", x.h.Name, true)
			if n := f.list(ctx, ada, "nodes")[x.h.Name]; n.Peer.Fingerprint != key || n.DataCenter != dcs[x.dc].ID {
				t.Errorf("%s is %+v and has %q", x.h.Name, n, key)
			}
			if out, err := x.h.Quire(token, "compute", "join", "--gateway", "http://"+x.gw+":8089", "--token-file", "-"); err != nil {
				t.Errorf("the same machine asks again: %s", out)
			}
		}
		// AEN's command on the server prints what to type on the node.
		out, err := server.Quire("", "wk-server-admin", "add-enterprise-resource", "-i", "south", "-u", "http://10.77.2.11:5002", "-n", "s1")
		_, command, ok := strings.Cut(out, "quire compute join ")
		if err != nil || !ok || strings.Contains(out, "10.77.2.1:8089") {
			t.Fatalf("%v %s", err, out)
		}
		token := strings.Fields(command)[3]
		ada.remember(token)
		s1.joins(token, "compute", "join", "--gateway", "http://10.77.2.1:8089") // as it is called on this wire
		f.up(ctx, ada, "nodes", "s1", true)
		other := f.token(ctx, ada, map[string]any{"role": "compute", "data_center": dcs["south"].ID})
		if out, err := n1.Quire(other, "compute", "join", "--gateway", "http://10.77.1.1:8089", "--token-file", "-"); err == nil || !strings.Contains(out, "another data center") {
			t.Errorf("a second gateway: %v %s", err, out)
		}
	})
	t.Run("only the documented ports are open", func(t *testing.T) {
		for h, want := range map[*Host]string{server: ":80", north: ":8089", south: ":8089", n1: ":5002", s1: ":5002"} {
			if open := h.Listening(); len(open) != 1 || !strings.HasSuffix(open[0], want) {
				t.Errorf("%s listens on %v, want %s", h.Name, open, want)
			}
		}
		// And a node's port answers nobody without a certificate of its installation.
		out, _ := n1.Run("", "sh", "-c", `printf 'GET /health HTTP/1.1\r\nHost: x\r\n\r\n' | timeout 5 bash -c 'exec 3<>/dev/tcp/10.77.1.11/5002; cat >&3; cat <&3'`)
		if strings.Contains(out, "200") || strings.Contains(out, "version") {
			t.Errorf("a program on the node gets %q", out)
		}
	})

	nodes := f.list(ctx, ada, "nodes")
	books := map[string]*Notebook{}
	kernels := map[string]string{}
	t.Run("one person works in both", func(t *testing.T) {
		for name, node := range map[string]string{"North": "n1", "South": "s1"} {
			if err := ada.API(ctx, "POST", "/projects", map[string]any{"name": name, "node": nodes[node].ID}, nil); err != nil {
				t.Fatal(err)
			}
			if err := ada.API(ctx, "POST", "/projects/ada/"+name+"/start", nil, nil); err != nil {
				t.Fatal(err)
			}
			running(t, ctx, ada, "/ada/"+name)
			if _, err := ada.Open(ctx, ada.Portal+"/ada/"+name); err != nil {
				t.Fatal(err)
			}
			n, err := ada.OpenNotebook(ctx, "/ada/"+name)
			if err != nil {
				t.Fatal(err)
			}
			if want := "." + strings.ToLower(name) + ".site.test:8089"; !strings.HasSuffix(n.Base.Host, want) {
				t.Errorf("%s opens at %s", name, n.Base)
			}
			kernel, out := cell(ctx, t, n, "import os, socket; treasure = 'gold'; 6*7, socket.gethostname(), os.getcwd()")
			if out != fmt.Sprintf("(42, '%s', '/projects/ada/%s')", node, name) {
				t.Errorf("%s: %s", name, out)
			}
			books[name], kernels[name] = n, kernel
		}
	})
	if t.Failed() {
		return
	}

	t.Run("stolen keys open nothing else (N-06, N-11)", func(t *testing.T) {
		f.ip("addr", "add", "10.77.1.254/24", "dev", "north")
		at := func(id *remote.Identity) *remote.Machine {
			return remote.NewMachine(id, quire.NodeID(nodes["n1"].ID), func(ctx context.Context) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "tcp", "10.77.1.11:5002")
			})
		}
		own, other, node := north.stolen(t, "gateway"), south.stolen(t, "gateway"), n2.stolen(t, "compute")
		for name, id := range map[string]*remote.Identity{"its own gateway's": own, "another data center's gateway's": other, "another node's": node} {
			if _, err := at(id).Do(ctx, []byte("order")); err == nil || quire.KindOf(err) == quire.KindInvalid {
				t.Errorf("with %s key an order is looked at: %v", name, err)
			}
			if _, err := at(id).Health(ctx); err == nil {
				t.Errorf("with %s key the node says how it is", name)
			}
		}
		for name, id := range map[string]*remote.Identity{"another data center's gateway's": other, "another node's": node} {
			_, err := remote.DialStream(ctx, id, "10.77.1.11:5002", quire.NodeID(nodes["n1"].ID), "s_aaaaaaaaaaaaaaaa", nil)
			if err == nil || quire.KindOf(err) != quire.KindUnavailable {
				t.Errorf("with %s key one gets as far as the grant: %v", name, err)
			}
		}
	})

	t.Run("from a notebook only the documented ports answer (P-20)", func(t *testing.T) {
		k, err := books["North"].Connect(ctx, kernels["North"])
		if err != nil {
			t.Fatal(err)
		}
		defer k.Close()
		out, err := k.Run(ctx, sweep)
		out = strings.Join(strings.Fields(out), " ")
		want := "{'127.0.0.1': [5002], '10.77.1.11': [5002], '10.77.1.1': [8089], '10.77.0.1': 'no way there', '169.254.169.254': 'no way there'}"
		if err != nil || out != want {
			t.Errorf("it finds %s, want %s: %v", out, want, err)
		}
		// Nothing listens for datagrams, there or on the gateway.
		for _, h := range []*Host{n1, north} {
			if out := h.must("ss", "-Hlun"); strings.TrimSpace(out) != "" {
				t.Errorf("%s: %s", h.Name, out)
			}
		}
		// And what answers gives nothing without being let in.
		out, err = k.Run(ctx, `import http.client; c = http.client.HTTPConnection("10.77.1.1", 8089); c.request("GET", "/"); c.getresponse().status`)
		if err != nil || out != "421" {
			t.Errorf("the gateway answers %s: %v", out, err)
		}
	})
	t.Run("cut off from the server, a data center goes on and comes back", func(t *testing.T) {
		losses := func() string {
			return north.must("sh", "-c", "grep -c 'attach ended' /var/log/quire/gateway.log || true")
		}
		before := losses()
		server.Wire("front", false)
		Eventually(t, 20*time.Second, "the gateway notices", func() error {
			if losses() == before {
				return errors.New("it has its link")
			}
			return nil
		})
		still(ctx, t, books["North"], kernels["North"], "treasure", "'gold'")
		server.Wire("front", true)
		f.up(ctx, ada, "data-centers", "north", true)
		f.up(ctx, ada, "nodes", "n1", true)
		if err := sessionIs(ctx, ada, "/ada/North", "notebook", "running"); err != nil {
			t.Error(err)
		}
	})
	t.Run("one gateway dies; the other data center sees nothing, and it comes back", func(t *testing.T) {
		north.Down()
		f.up(ctx, ada, "data-centers", "north", false)
		still(ctx, t, books["South"], kernels["South"], "treasure", "'gold'")
		north.Up(`The gateway "north" runs`)
		f.up(ctx, ada, "nodes", "n1", true)
		still(ctx, t, books["North"], kernels["North"], "treasure", "'gold'")
	})
	t.Run("a node is cut off from its gateway and comes back", func(t *testing.T) {
		s1.Wire("south", false)
		f.up(ctx, ada, "nodes", "s1", false)
		f.up(ctx, ada, "nodes", "n1", true)
		s1.Wire("south", true)
		f.up(ctx, ada, "nodes", "s1", true)
		still(ctx, t, books["South"], kernels["South"], "treasure", "'gold'")
	})
	t.Run("every role dies", func(t *testing.T) {
		server.Kill("server")
		north.Kill("gateway")
		n1.Kill("compute")
		n1.Kill("spawner")
		still(ctx, t, books["North"], kernels["North"], "treasure", "'gold'")
		out, err := n1.Quire("", "status")
		if err != nil || strings.Count(out, "running") != 3 || !strings.Contains(out, "signal: killed") {
			t.Errorf("status: %v\n%s", err, out)
		}
	})
	t.Run("a role is stopped, started and restarted", func(t *testing.T) {
		if out, err := n2.Quire("", "stop", "compute"); err != nil {
			t.Error(out)
		}
		f.up(ctx, ada, "nodes", "n2", false)
		if out, err := n2.Quire("", "status"); err == nil || !strings.Contains(out, "stopped") {
			t.Errorf("status: %v\n%s", err, out)
		}
		if out, err := n2.Quire("", "start", "compute"); err != nil {
			t.Error(out)
		}
		f.up(ctx, ada, "nodes", "n2", true)
		if out, err := n1.Quire("", "restart", "compute"); err != nil {
			t.Error(out)
		}
		still(ctx, t, books["North"], kernels["North"], "treasure", "'gold'")
		if out, err := n1.Quire("", "restart", "nonsense"); err == nil || !strings.Contains(out, "no such role") {
			t.Errorf("%v %s", err, out)
		}
	})
	t.Run("the portal gets another name, and gateways follow", func(t *testing.T) {
		f.Names["portal.site.test"] = "10.77.0.1"
		if out, err := server.Quire("", "server", "rename-host", "http://portal.site.test"); err != nil {
			t.Fatalf("%v %s", err, out)
		}
		page, err := f.Browser("x").Open(ctx, "http://quire.site.test/help")
		if err != nil || page.Status != 200 || page.URL.Host != "portal.site.test" {
			t.Errorf("the old name leads to %v %+v", err, page)
		}
		ada = f.Browser("http://portal.site.test")
		if _, err := ada.Open(ctx, "http://portal.site.test/login"); err != nil {
			t.Fatal(err)
		}
		if page, err := ada.Submit(ctx, "http://portal.site.test/login", map[string][]string{"name": {"ada"}, "password": {password}}); err != nil || page.Status != 200 {
			t.Fatalf("%v %+v", err, page)
		}
		f.up(ctx, ada, "nodes", "n1", true)
		Eventually(t, 20*time.Second, "the gateway sends people to the new name", func() error {
			page, err := f.Browser("x").Open(ctx, books["North"].Base.String())
			if err == nil && page.URL.Host != "portal.site.test" {
				err = errors.New(page.URL.String())
			}
			return err
		})
		if _, err := ada.Open(ctx, ada.Portal+"/ada/North"); err != nil {
			t.Fatal(err)
		}
		n, err := ada.OpenNotebook(ctx, "/ada/North")
		if err != nil {
			t.Fatal(err)
		}
		still(ctx, t, n, kernels["North"], "treasure", "'gold'")
		if text := server.must("cat", "/etc/quire/quire.conf"); !strings.Contains(text, `"portal": "http://portal.site.test"`) || !strings.Contains(text, "quire.site.test") || !strings.Contains(text, ":80") {
			t.Errorf("the configuration is %s", text)
		}
	})
	t.Run("a person in a browser", func(t *testing.T) {
		var rules []string
		for name, ip := range f.Names {
			if strings.HasPrefix(name, ".") {
				name = "*" + name
			}
			rules = append(rules, "MAP "+name+" "+ip)
		}
		cmd := exec.CommandContext(ctx, "node", "--test", "--test-reporter=spec", "test/browser/fleet.story.mjs")
		cmd.Dir = ".."
		cmd.Env = append(os.Environ(), "FLEET_PORTAL="+ada.Portal, "FLEET_NAMES="+strings.Join(rules, ","), "FLEET_PASSWORD="+password)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	})
	t.Run("a removed member is cut off in both", func(t *testing.T) {
		if err := ada.API(ctx, "POST", "/users", map[string]any{"name": "ben", "password": password}, nil); err != nil {
			t.Fatal(err)
		}
		ben := f.Browser(ada.Portal)
		if _, err := ben.Open(ctx, ada.Portal+"/login"); err != nil {
			t.Fatal(err)
		}
		if page, err := ben.Submit(ctx, ada.Portal+"/login", map[string][]string{"name": {"ben"}, "password": {password}}); err != nil || page.Status != 200 {
			t.Fatalf("%v %+v", err, page)
		}
		if err := ada.API(ctx, "PUT", "/projects/ada/South/team/ben", map[string]any{"role": "editor"}, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := ben.Open(ctx, ada.Portal+"/ada/South"); err != nil {
			t.Fatal(err)
		}
		n, err := ben.OpenNotebook(ctx, "/ada/South")
		if err != nil {
			t.Fatal(err)
		}
		cell(ctx, t, n, "1")
		if err := ada.API(ctx, "DELETE", "/projects/ada/South/team/ben", nil, nil); err != nil {
			t.Fatal(err)
		}
		Eventually(t, 10*time.Second, "ben is out", func() error {
			if n.Call(ctx, "GET", "api/status", nil, nil) == nil {
				return errors.New("he still gets an answer")
			}
			if out, err := s1.Run("", "pgrep", "-u", "ben"); err == nil {
				return errors.New("he still runs " + out)
			}
			return nil
		})
	})
	t.Run("drained, a node starts nothing; removed, it is out for good", func(t *testing.T) {
		if err := ada.API(ctx, "PATCH", "/nodes/"+nodes["n2"].ID, map[string]any{"drained": true, "note": "New disks until Monday."}, nil); err != nil {
			t.Fatal(err)
		}
		err := ada.API(ctx, "POST", "/projects", map[string]any{"name": "Third", "node": nodes["n2"].ID}, nil)
		if err == nil || !strings.Contains(err.Error(), "New disks until Monday.") {
			t.Errorf("a project on a drained node: %v", err)
		}
		if err := ada.API(ctx, "DELETE", "/nodes/"+nodes["n1"].ID, nil, nil); err == nil {
			t.Error("a node with projects is removed")
		}
		if err := ada.API(ctx, "DELETE", "/nodes/"+nodes["n2"].ID, nil, nil); err != nil {
			t.Fatal(err)
		}
		if out, err := n2.Quire("", "restart", "compute"); err != nil {
			t.Error(out)
		}
		if _, listed := f.list(ctx, ada, "nodes")["n2"]; listed {
			t.Error("a removed node is listed")
		}
		var places []string
		for _, h := range []*Host{n1, s1} {
			places = append(places, nodes[h.Name].ID)
		}
		for i := range 3 {
			var p struct{ Node string }
			if err := ada.API(ctx, "POST", "/projects", map[string]any{"name": fmt.Sprintf("Anywhere%d", i)}, &p); err != nil || !slices.Contains(places, p.Node) {
				t.Errorf("placed on %q: %v", p.Node, err)
			}
		}
	})
}
