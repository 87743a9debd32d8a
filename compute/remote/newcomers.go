package remote

import (
	"container/list"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"quire"
)

// Bounds of Newcomers: each costs a descriptor, a goroutine and some kilobytes.
const (
	MaxNewcomers = 2048             // of a listener; fewer where few descriptors are allowed
	MaxFrom      = MaxNewcomers / 2 // from one address, or one network of IPv6
)

// Newcomers bounds the connections of a listener whose peers have not yet shown
// what they want: those in a handshake, and those whose first request has not
// come as a whole. Anybody can begin thousands of these and leave them hanging.
// When there are too many the oldest has to go: who means it is through within
// moments and so is never the oldest for long, however many others hang.
type Newcomers struct {
	proxies quire.Proxies
	log     *slog.Logger
	max     int
	each    int // from one address

	mu    sync.Mutex
	all   *list.List // of *newcomer, the oldest first
	in    map[net.Conn]*newcomer
	from  map[netip.Prefix]*list.List
	ended bool
	shed  int // since it was last said
	said  time.Time
}

type newcomer struct {
	conn       net.Conn
	from       netip.Prefix // invalid: not counted by address
	every, own *list.Element
}

// NewNewcomers believes proxies to come for many people: their addresses are
// not bounded by themselves.
func NewNewcomers(proxies quire.Proxies, log *slog.Logger) *Newcomers {
	n := &Newcomers{proxies: proxies, log: log, max: MaxNewcomers, each: MaxFrom, all: list.New(), in: map[net.Conn]*newcomer{}, from: map[netip.Prefix]*list.List{}}
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) == nil && limit.Cur < 4*MaxNewcomers {
		n.max = max(int(limit.Cur/4), 16)
		n.each = n.max / 2
	}
	return n
}

// under is the connection as it was accepted.
func under(conn net.Conn) net.Conn {
	for {
		c, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			return conn
		}
		conn = c.NetConn()
	}
}

// Enter takes in a connection that was just accepted, perhaps for that of
// another. It is false after Close.
func (n *Newcomers) Enter(conn net.Conn) bool {
	conn = under(conn)
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ended {
		return false
	}
	if n.in[conn] != nil {
		return true
	}
	c := &newcomer{conn: conn, from: n.origin(conn)}
	// Of the same address first: who comes in numbers makes room for himself.
	if own := n.from[c.from]; own != nil && own.Len() >= n.each {
		n.close(own.Front().Value.(*newcomer))
	}
	if n.all.Len() >= n.max {
		n.close(n.all.Front().Value.(*newcomer))
	}
	if c.from.IsValid() {
		if n.from[c.from] == nil {
			n.from[c.from] = list.New()
		}
		c.own = n.from[c.from].PushBack(c)
	}
	c.every = n.all.PushBack(c)
	n.in[conn] = c
	return true
}

// origin is what counts as one address: of IPv6 everybody has a whole network.
func (n *Newcomers) origin(conn net.Conn) netip.Prefix {
	peer := conn.RemoteAddr().String()
	addr, err := netip.ParseAddrPort(peer)
	if err != nil || n.proxies.Believes(peer) {
		return netip.Prefix{}
	}
	ip, bits := addr.Addr().Unmap().WithZone(""), 32
	if ip.Is6() {
		bits = 64
	}
	return netip.PrefixFrom(ip, bits).Masked()
}

// Leave is called for a connection that has shown itself or has ended.
func (n *Newcomers) Leave(conn net.Conn) {
	conn = under(conn)
	n.mu.Lock()
	defer n.mu.Unlock()
	if c := n.in[conn]; c != nil {
		n.drop(c)
	}
}

func (n *Newcomers) drop(c *newcomer) {
	delete(n.in, c.conn)
	n.all.Remove(c.every)
	if c.own != nil {
		own := n.from[c.from]
		own.Remove(c.own)
		if own.Len() == 0 {
			delete(n.from, c.from)
		}
	}
}

// close ends a connection; whoever waits for its bytes hears that. It is done
// below TLS, which would send a last word and could have to wait for that.
func (n *Newcomers) close(c *newcomer) {
	n.drop(c)
	c.conn.Close()
	n.shed++
	if now := time.Now(); now.Sub(n.said) > 10*time.Second {
		n.log.Warn("closed connections that have not said what they want, to make room", "count", n.shed)
		n.said, n.shed = now, 0
	}
}

// Len is how many there are.
func (n *Newcomers) Len() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.all.Len()
}

// Close ends all, and lets nobody in any more.
func (n *Newcomers) Close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ended = true
	for c := range n.in {
		c.Close()
	}
}

// State is an http.Server's ConnState: active is a connection whose first
// request has come, after the handshake.
func (n *Newcomers) State(conn net.Conn, s http.ConnState) {
	if s != http.StateNew {
		n.Leave(conn)
	} else if !n.Enter(conn) {
		under(conn).Close()
	}
}
