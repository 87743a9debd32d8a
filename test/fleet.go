package test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// A Fleet is an installation on several machines. Each is a set of namespaces of
// its own (scripts/in-namespace): files, accounts, processes, network. They are
// joined by bridges without a router, so that a machine reaches what is on a
// wire with it and nothing else. Control groups are the host's.
type Fleet struct {
	t     testing.TB
	wires int
	Names map[string]string // what a browser finds behind a name or, with a dot before it, behind all names below
	hosts []*Host
}

// A Host is one machine of a fleet.
type Host struct {
	Name string
	f    *Fleet
	cmd  *exec.Cmd
	stop io.WriteCloser
	pid  int               // its first process
	ends map[string]string // of its wires, here

	mu  sync.Mutex
	up  *exec.Cmd
	out bytes.Buffer
}

// NewFleet makes the wires. The test itself is on the wire "front", as 10.77.0.254.
func NewFleet(t testing.TB, wires ...string) *Fleet {
	t.Helper()
	needNamespace(t)
	f := &Fleet{t: t, Names: map[string]string{}}
	for _, w := range wires {
		f.ip("link", "add", w, "type", "bridge")
		f.ip("link", "set", w, "up")
		t.Cleanup(func() { exec.Command("ip", "link", "del", w).Run() })
	}
	f.ip("addr", "add", "10.77.0.254/24", "dev", wires[0])
	t.Cleanup(func() {
		for _, h := range f.hosts {
			if t.Failed() {
				h.Logs()
			}
			h.Off()
		}
	})
	return f
}

func (f *Fleet) ip(args ...string) {
	f.t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		f.t.Fatalf("ip %s: %s", strings.Join(args, " "), out)
	}
}

// Host switches a machine on. at says on which wires it is, and how it is called
// there.
func (f *Fleet) Host(name string, at map[string]string) *Host {
	f.t.Helper()
	script, err := filepath.Abs("../scripts/in-namespace")
	if err != nil {
		f.t.Fatal(err)
	}
	h := &Host{Name: name, f: f, ends: map[string]string{}, cmd: exec.Command(script, "sh", "-c", "hostname "+name+"; echo ready; exec cat >/dev/null")}
	h.stop, err = h.cmd.StdinPipe()
	if err != nil {
		f.t.Fatal(err)
	}
	out, err := h.cmd.StdoutPipe()
	if err != nil {
		f.t.Fatal(err)
	}
	h.cmd.Stderr = os.Stderr
	if err := h.cmd.Start(); err != nil {
		f.t.Fatal(err)
	}
	f.hosts = append(f.hosts, h)
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ready\n" {
		f.t.Fatalf("%s does not come up: %q %v", name, line, err)
	}
	// The script has become unshare, whose one child is the machine's first process.
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", h.cmd.Process.Pid, h.cmd.Process.Pid))
	if err == nil {
		h.pid, err = strconv.Atoi(strings.TrimSpace(string(children)))
	}
	if err != nil {
		f.t.Fatal(err)
	}
	for wire, address := range at {
		f.wires++
		// A fleet before us in the same namespace may still be on its way out.
		here, there := fmt.Sprintf("%s%d%.5s", wire[:1], f.wires, strings.ToLower(rand.Text())), "eth-"+wire
		f.ip("link", "add", here, "type", "veth", "peer", "name", "p"+here)
		f.ip("link", "set", "p"+here, "netns", strconv.Itoa(h.pid), "name", there)
		f.ip("link", "set", here, "master", wire, "up")
		h.ends[wire] = here
		h.must("ip", "addr", "add", address+"/24", "dev", there)
		h.must("ip", "link", "set", there, "up")
	}
	return h
}

// Installable gives the machine a system of its own to install into: what is
// written to these places is seen by nobody else.
func (h *Host) Installable() {
	h.f.t.Helper()
	h.must("sh", "-c", `set -e
mkdir -p /mnt/layers
mount -t tmpfs tmpfs /mnt/layers
mkdir -p /opt
for place in /usr /opt /var/lib/dpkg; do
  layer=/mnt/layers$place
  mkdir -p $layer/upper $layer/work
  mount -t overlay -o lowerdir=$place,upperdir=$layer/upper,workdir=$layer/work overlay $place
done
mount -t tmpfs -o mode=0700 tmpfs /root`)
}

// Command is one to be run on the machine.
func (h *Host) Command(ctx context.Context, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "nsenter", append([]string{"-t", strconv.Itoa(h.pid), "-m", "-n", "-p", "-i", "-u", "--"}, args...)...)
}

// Run runs a command there and returns what it printed.
func (h *Host) Run(stdin string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := h.Command(ctx, args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (h *Host) must(args ...string) string {
	h.f.t.Helper()
	out, err := h.Run("", args...)
	if err != nil {
		h.f.t.Fatalf("%s: %s: %v\n%s", h.Name, strings.Join(args, " "), err, out)
	}
	return out
}

// Quire runs a quire command there.
func (h *Host) Quire(stdin string, args ...string) (string, error) {
	return h.Run(stdin, append([]string{binary(h.f.t)}, args...)...)
}

// Write writes a file there.
func (h *Host) Write(file, text string) {
	h.f.t.Helper()
	if out, err := h.Run(text, "sh", "-c", `mkdir -p "$(dirname "$0")" && cat >"$0"`, file); err != nil {
		h.f.t.Fatalf("%s: %s: %s", h.Name, file, out)
	}
}

// Up starts `quire up` there and waits until it has printed the words.
func (h *Host) Up(words string) {
	h.f.t.Helper()
	cmd := h.Command(context.Background(), binary(h.f.t), "up")
	h.mu.Lock()
	h.out.Reset()
	h.mu.Unlock()
	w := &locked{mu: &h.mu, b: &h.out}
	cmd.Stdout, cmd.Stderr = w, w
	if err := cmd.Start(); err != nil {
		h.f.t.Fatal(err)
	}
	h.up = cmd
	Eventually(h.f.t, 40*time.Second, h.Name+" says "+words, func() error {
		if out := h.Output(); !strings.Contains(out, words) {
			return errors.New(out)
		}
		return nil
	})
}

// Output is what `quire up` has printed.
func (h *Host) Output() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.out.String()
}

type locked struct {
	mu *sync.Mutex
	b  *bytes.Buffer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// Down ends `quire up` there as Ctrl-C does; sessions go on.
func (h *Host) Down() {
	if h.up == nil {
		return
	}
	// nsenter does not hand signals on to what it has started in there.
	h.Quire("", "stop")
	h.up.Wait()
	h.up = nil
}

// Off switches the machine off.
func (h *Host) Off() {
	if h.cmd.ProcessState != nil {
		return
	}
	h.stop.Close()
	h.cmd.Process.Kill() // and with it, by --kill-child, everything there
	h.cmd.Wait()
	if h.up != nil {
		h.up.Wait()
	}
}

// Wire joins or cuts the machine's connection to a wire.
func (h *Host) Wire(wire string, on bool) {
	h.f.t.Helper()
	state := "down"
	if on {
		state = "up"
	}
	h.must("ip", "link", "set", "eth-"+wire, state)
}

// Kill ends a role there as a crash does.
func (h *Host) Kill(role string) {
	h.f.t.Helper()
	h.must("sh", "-c", `for p in /proc/[0-9]*; do if tr '\0' ' ' <$p/cmdline | grep -q "quire $0 -c"; then kill -9 ${p#/proc/}; fi; done`, role)
}

// Logs shows the machine's logs.
func (h *Host) Logs() {
	out, _ := h.Run("", "sh", "-c", "for f in /var/log/quire/*.log; do echo == $f; tail -c 3000 $f; done")
	h.f.t.Logf("%s:\n%s\n%s", h.Name, h.Output(), out)
}

// Listening are the addresses on which the machine can be reached from outside.
func (h *Host) Listening() []string {
	h.f.t.Helper()
	var all []string
	for line := range strings.Lines(h.must("ss", "-Hltun")) {
		if f := strings.Fields(line); len(f) > 4 && !strings.HasPrefix(f[4], "127.") && !strings.HasPrefix(f[4], "[::1]") {
			all = append(all, f[4])
		}
	}
	return all
}

// Browser is one that finds the fleet's names.
func (f *Fleet) Browser(portal string) *Browser {
	b := NewBrowser(portal)
	b.dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		host, port, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, err
		}
		to := f.Names[host]
		for name, ip := range f.Names {
			if strings.HasPrefix(name, ".") && strings.HasSuffix(host, name) {
				to = ip
			}
		}
		if to == "" {
			return nil, fmt.Errorf("no such host: %s", host)
		}
		return new(net.Dialer).DialContext(ctx, network, net.JoinHostPort(to, port))
	}
	f.t.Cleanup(b.Close)
	return b
}

var setupLine = regexp.MustCompile(`(http://\S+)/setup\?key=(\S+)`)

// Admin uses the set-up link that `quire up` printed on the server.
func (f *Fleet) Admin(ctx context.Context, server *Host, name, password string) *Browser {
	f.t.Helper()
	m := setupLine.FindStringSubmatch(server.Output())
	if m == nil {
		f.t.Fatalf("no set-up link: %s", server.Output())
	}
	b := f.Browser(m[1])
	if _, err := b.Open(ctx, m[0]); err != nil {
		f.t.Fatal(err)
	}
	page, err := b.Submit(ctx, m[1]+"/setup", url.Values{"key": {m[2]}, "name": {name}, "password": {password}, "again": {password}})
	if err != nil || page.Status != 200 {
		f.t.Fatalf("set-up: %v %+v", err, page)
	}
	return b
}
