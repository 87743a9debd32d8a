package main

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// ports are the listeners of the roles; the supervisor binds them and hands
// them over, so roles need no right to bind and none is lost in a restart.
type ports struct {
	portal, gateway, compute net.Listener
	control                  net.Listener // the gateway's for the server, where browsers come by a unix socket
	redirect                 net.Listener // plain http that leads to https
}

func (p ports) close() {
	for _, l := range []net.Listener{p.portal, p.gateway, p.compute, p.control, p.redirect} {
		if l != nil {
			l.Close()
		}
	}
}

// portOf is 0 for a unix socket, and for a role that is elsewhere.
func portOf(l net.Listener) int {
	if l == nil {
		return 0
	}
	if t, ok := l.Addr().(*net.TCPAddr); ok {
		return t.Port
	}
	return 0
}

// reach is the address at which this machine reaches one of its listeners.
func reach(l net.Listener) string {
	if l == nil {
		return ""
	}
	host, port, err := net.SplitHostPort(l.Addr().String())
	if ip := net.ParseIP(host); err != nil || ip == nil || ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}

// handOver is a listener as a child gets it.
func handOver(l net.Listener) (*os.File, error) {
	f, ok := l.(interface{ File() (*os.File, error) })
	if !ok {
		return nil, fmt.Errorf("%s cannot be handed over", l.Addr())
	}
	return f.File()
}

// handOverMore is handOver of a listener that only some installations have.
func handOverMore(l net.Listener) ([]*os.File, error) {
	if l == nil {
		return nil, nil
	}
	f, err := handOver(l)
	return []*os.File{f}, err
}

// socketPath is the path of an address like "unix:/run/quire/portal.sock".
func socketPath(addr string) (path string, ok bool) { return strings.CutPrefix(addr, "unix:") }

// listen binds an address. A unix socket is for whoever is in the group.
func (c Config) listen(addr string) (net.Listener, error) {
	path, ok := socketPath(addr)
	if !ok {
		return net.Listen("tcp", addr)
	}
	group, err := lookUpGroup(c.Listen.Group)
	if err != nil {
		return nil, err
	}
	if err := ours(filepath.Dir(path)); err != nil {
		return nil, err
	}
	switch info, err := os.Lstat(path); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	case info.Mode().Type() != fs.ModeSocket:
		return nil, fmt.Errorf("there is something at %s that is not a socket", path)
	default: // left behind, unless somebody answers
		if conn, err := net.Dial("unix", path); err == nil {
			conn.Close()
			return nil, syscall.EADDRINUSE
		}
	}
	l, err := listenUnix(path, 0o660, &account{GID: group})
	if err != nil {
		return nil, err // not a nil pointer in an interface
	}
	return l, nil
}

// ours is a directory in which nobody but us and root can exchange a name.
func ours(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if s, ok := info.Sys().(*syscall.Stat_t); !ok || s.Uid != 0 && int(s.Uid) != os.Getuid() || s.Mode&0o022 != 0 {
		return fmt.Errorf("the directory %s can be written by others, who could put a socket of their own there", dir)
	}
	return nil
}

// bind takes the configured addresses, or the first free pair from 8080 and 8089.
// say hears in words what was taken.
func bind(c Config, host string, say func(string)) (p ports, err error) {
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	outside := "" // where another machine must reach us
	if c.has("server") {
		outside = host
	}
	const tries = 50
	for i := range tries {
		portal, gateway := c.Listen.Portal, c.Listen.Gateway
		if portal == "" {
			portal = net.JoinHostPort(host, strconv.Itoa(8080+i))
		}
		if gateway == "" {
			gateway = net.JoinHostPort(outside, strconv.Itoa(8089+i))
		}
		for _, want := range []struct {
			role, addr, key string
			into            *net.Listener
		}{{"server", portal, c.Listen.Portal, &p.portal}, {"gateway", gateway, c.Listen.Gateway, &p.gateway}} {
			if !c.has(want.role) {
				continue
			}
			if *want.into, err = c.listen(want.addr); err == nil {
				continue
			}
			*want.into = nil
			if !errors.Is(err, syscall.EADDRINUSE) {
				return p, fmt.Errorf("cannot listen on %s: %w", want.addr, err)
			}
			who := fmt.Sprintf("%s is in use by %s", want.addr, holder(want.addr))
			if want.key != "" {
				return p, fmt.Errorf("%s, and the configuration wants just this address", who)
			}
			say(who + "; trying the next pair of ports.")
		}
		if (p.portal != nil || !c.has("server")) && (p.gateway != nil || !c.has("gateway")) {
			break
		}
		p.close()
		p = ports{}
	}
	if p.portal == nil && c.has("server") || p.gateway == nil && c.has("gateway") {
		return p, fmt.Errorf("no free pair of ports from 8080 and 8089 in %d tries", tries)
	}
	if c.has("compute") {
		addr := c.Listen.Compute
		switch {
		case addr == "" && c.has("gateway"):
			addr = "127.0.0.1:5002"
		case addr == "":
			addr = ":5002"
		}
		p.compute, err = net.Listen("tcp", addr)
		if errors.Is(err, syscall.EADDRINUSE) && c.Listen.Compute == "" && c.has("gateway") {
			p.compute, err = net.Listen("tcp", "127.0.0.1:0") // only our own gateway dials it
		}
		if err != nil {
			return p, fmt.Errorf("cannot listen on %s: %w (in use by %s)", addr, err, holder(addr))
		}
	}
	if _, unix := socketPath(c.Listen.Gateway); unix && c.has("gateway") {
		addr := ":8089" // for a server elsewhere
		if c.has("server") {
			addr = "127.0.0.1:8089"
		}
		if p.control, err = net.Listen("tcp", addr); errors.Is(err, syscall.EADDRINUSE) && c.has("server") {
			p.control, err = net.Listen("tcp", "127.0.0.1:0") // only our own server dials it
		}
		if err != nil {
			return p, err
		}
	}
	if addr := c.Listen.Redirect; addr != "" && c.has("server") {
		if p.redirect, err = net.Listen("tcp", addr); err != nil {
			return p, fmt.Errorf("cannot listen on %s: %w (in use by %s)", addr, err, holder(addr))
		}
	}
	return p, nil
}

// holder names the process that listens on a port, as far as we may see.
func holder(addr string) string {
	_, portText, err := net.SplitHostPort(addr)
	if err != nil {
		return "another program"
	}
	port, _ := strconv.Atoi(portText)
	inodes := map[string]bool{}
	for _, file := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		f, err := os.Open(file)
		if err != nil {
			continue
		}
		for sc := bufio.NewScanner(f); sc.Scan(); {
			w := strings.Fields(sc.Text())
			// local address:port in hex, state 0A = listening, inode in the tenth column (proc(5))
			if len(w) > 9 && w[3] == "0A" && strings.HasSuffix(w[1], fmt.Sprintf(":%04X", port)) {
				inodes["socket:["+w[9]+"]"] = true
			}
		}
		f.Close()
	}
	fds, _ := filepath.Glob("/proc/[0-9]*/fd/[0-9]*")
	for _, fd := range fds {
		if link, err := os.Readlink(fd); err == nil && inodes[link] {
			pid := strings.Split(fd, "/")[2]
			comm, _ := os.ReadFile("/proc/" + pid + "/comm")
			return fmt.Sprintf("%s (process %s)", strings.TrimSpace(string(comm)), pid)
		}
	}
	return "another program"
}
