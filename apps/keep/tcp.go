package keep

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Some apps can only listen on a TCP port. Every account of the node can reach
// and take loopback ports, so keep stands between: it believes a listener only
// when the kernel says that it is its own user's and that one of its own
// descendants holds it, before and after each connection.

// freePort asks the kernel for a port that nobody uses now.
func freePort() (int, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

func withPort(words []string, port int) []string {
	out := make([]string, len(words))
	for i, w := range words {
		out[i] = strings.ReplaceAll(w, "%(port)s", strconv.Itoa(port))
	}
	return out
}

// A listener is one row of the kernel's socket table.
type listener struct {
	addr  netip.AddrPort
	uid   int
	inode string
}

// listeners reads who listens on the port.
func listeners(port int) ([]listener, error) {
	var list []listener
	for _, name := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		f, err := os.Open(name)
		if errors.Is(err, os.ErrNotExist) {
			continue // no IPv6 on this node
		}
		if err != nil {
			return nil, err
		}
		s := bufio.NewScanner(f)
		for s.Scan() {
			if l, ok := parseRow(s.Text()); ok && int(l.addr.Port()) == port {
				list = append(list, l)
			}
		}
		f.Close()
		if err := s.Err(); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// parseRow reads a row in state LISTEN.
func parseRow(row string) (listener, bool) {
	const listening = "0A"
	f := strings.Fields(row)
	if len(f) < 10 || f[3] != listening {
		return listener{}, false
	}
	host, port, ok := strings.Cut(f[1], ":")
	raw, err := hex.DecodeString(host)
	n, err2 := strconv.ParseUint(port, 16, 16)
	uid, err3 := strconv.Atoi(f[7])
	if !ok || errors.Join(err, err2, err3) != nil {
		return listener{}, false
	}
	// The kernel prints each 32-bit word in the machine's order.
	for i := 0; i+4 <= len(raw); i += 4 {
		slices.Reverse(raw[i : i+4])
	}
	a, ok := netip.AddrFromSlice(raw)
	return listener{netip.AddrPortFrom(a.Unmap(), uint16(n)), uid, f[9]}, ok
}

var errStranger = errors.New("somebody else listens on the app's port")

// own returns the app's listener, none yet, or errStranger.
func (k *keeper) own() (listener, error) {
	list, err := listeners(k.port)
	if err != nil {
		return listener{}, err
	}
	var mine listener
	for _, l := range list {
		if l.uid != os.Getuid() || !k.holds(l.inode) {
			return listener{}, errStranger
		}
		if mine.inode == "" || !mine.addr.Addr().Is4() {
			mine = l
		}
	}
	return mine, nil
}

// holds reports whether a process below us has the socket open.
func (k *keeper) holds(inode string) bool {
	want := "socket:[" + inode + "]"
	queue := children(os.Getpid())
	for len(queue) > 0 {
		dir := fmt.Sprintf("/proc/%d/fd", queue[0])
		queue = append(queue[1:], children(queue[0])...)
		fds, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, fd := range fds {
			if to, err := os.Readlink(filepath.Join(dir, fd.Name())); err == nil && to == want {
				return true
			}
		}
	}
	return false
}

// awaitPort looks until the app listens; the kernel has no event for it.
func (k *keeper) awaitPort() bool {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	told := false
	for {
		select {
		case <-tick.C:
		case <-k.done:
			return false
		}
		l, err := k.own()
		if errors.Is(err, errStranger) && !told {
			told = true
			k.log.note(fmt.Sprintf("Port %d was taken by somebody else before the app had it.", k.port))
		}
		if err != nil || l.inode == "" {
			continue
		}
		if !l.addr.Addr().IsLoopback() {
			k.log.note("The app listens on all addresses of the node. It should listen on 127.0.0.1 only.")
		}
		return true
	}
}

// bridge serves app.sock in the app's place.
func (k *keeper) bridge() bool {
	path := filepath.Join(k.dir, "app.sock")
	l, err := net.Listen("unix", path)
	if err == nil {
		err = os.Chmod(path, 0o660)
	}
	if err != nil {
		k.log.note("The app's socket could not be made: " + err.Error())
		return false
	}
	go func() {
		<-k.done
		l.Close()
	}()
	go func() {
		for {
			c, err := l.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				continue
			}
			go k.carry(c.(*net.UnixConn))
		}
	}()
	return true
}

func (k *keeper) carry(in *net.UnixConn) {
	defer in.Close()
	out, err := k.dial()
	if err != nil {
		k.log.note("A connection was refused: " + err.Error())
		return
	}
	defer out.Close()
	var both sync.WaitGroup
	both.Go(func() {
		_, _ = io.Copy(out, in)
		_ = out.CloseWrite()
	})
	both.Go(func() {
		_, _ = io.Copy(in, out)
		_ = in.CloseWrite()
	})
	both.Wait()
}

// dial connects to the app and to nobody else: the listener is checked before
// and must be the same socket after.
func (k *keeper) dial() (*net.TCPConn, error) {
	before, err := k.own()
	if err != nil {
		return nil, err
	}
	if before.inode == "" {
		return nil, errors.New("the app does not listen any more")
	}
	to := before.addr
	if to.Addr().IsUnspecified() {
		to = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), to.Port())
	}
	c, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(to))
	if err != nil {
		return nil, err
	}
	after, err := k.own()
	if err != nil || after.inode != before.inode {
		c.Close()
		return nil, errStranger
	}
	return c, nil
}
