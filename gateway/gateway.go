// Package gateway is the door of a data center: it lets browsers to their
// sessions on the nodes behind it and nobody anywhere else.
//
// It decides alone, from signed grants and what the server tells it on the
// streams that its processes open down (attach.go); it has no database, no
// signing key and no way to give an order. A request's way is door.go: which
// label (the browser origin of one person in one project), which cookie, from
// which page (origin.go), which grant (grant.go), which route (route.go); then a page of
// ours (page.go), one hop to the app (hop.go) or a socket (socket.go). What may
// pass in headers is decided in header.go and cookie.go, for both directions.
package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"quire"
	"quire/compute/remote"
	"quire/ticket"
)

// Config is what a gateway is made of.
type Config struct {
	Node      quire.NodeID // our own
	Origins   quire.Origins
	Verifier  *ticket.Verifier
	Identity  *remote.Identity // nil: no control side (tests and benchmarks attach in the process)
	CookieKey []byte           // 32 bytes, ours alone; a restart with the same key keeps people signed in
	Version   string
	Log       *slog.Logger
	Now       func() time.Time // nil: time.Now

	// Proxies are believed about whom they ask for and by which scheme.
	Proxies quire.Proxies
	// TLS, if set, is spoken to browsers; HTTP/2 comes with it. nil: plain HTTP,
	// as behind a proxy that speaks TLS or on a laptop.
	TLS *tls.Config
	// Sockets is how many WebSockets one session may have; 0: 200.
	Sockets int
	// Connections is how many browser connections are admitted; 0: half of what
	// the process's descriptor limit leaves after a reserve of 2000.
	Connections int

	// Moved, if set, hears where browsers find the portal and our apps, each time
	// the server attaches.
	Moved func(quire.GatewaySite)
	// Dial opens a raw stream to a session; nil: remote.DialStream.
	Dial func(ctx context.Context, addr string, r quire.Route, grant []byte) (net.Conn, error)
	// Renew gives a node a newer grant for the streams that are open; nil:
	// remote.RenewLease.
	Renew func(ctx context.Context, addr string, node quire.NodeID, grant []byte) error
}

// Gateway is the live door.
type Gateway struct {
	cfg     Config
	log     *slog.Logger
	now     func() time.Time
	portal  string
	suffix  string // what the host of every label ends with
	tls     bool   // browsers reach us by https
	sockets int

	routes  routes
	grants  grants
	seal    *sealer // of cookies
	passes  *sealer // of passes to content
	pages   *pages
	buffers buffers
	stock   *remote.Buffers // of sockets and lines
	sites   sites
	nodes   nodes

	control *http.Server
	browser *http.Server
	conns   connections
	lines   lines
	replies sync.Pool // *reply
	attach  attachments

	clock  atomic.Int64 // Unix ms, about a second coarse
	uptime atomic.Int64 // ms, as coarse, never 0 and never going back
	heard  atomic.Int64 // Unix ms of the last word of the server; 0: never
	full   atomic.Bool  // a full feed has been heard since we started
	ctx    context.Context
	cancel context.CancelFunc
	done   sync.WaitGroup
}

var _ quire.Gateway = (*Gateway)(nil)

// New makes a gateway. It serves nobody until Serve, and answers "not ready"
// until a server has attached.
func New(cfg Config) (*Gateway, error) {
	if cfg.Node == "" || cfg.Origins == nil || cfg.Verifier == nil {
		return nil, errors.New("gateway: Node, Origins and Verifier are needed")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Sockets == 0 {
		cfg.Sockets = 200
	}
	if cfg.Dial == nil || cfg.Renew == nil {
		if err := overNetwork(&cfg); err != nil {
			return nil, err
		}
	}
	seal, err := newSealer(cfg.CookieKey, cfg.Node, "app")
	if err != nil {
		return nil, err
	}
	passes, err := newSealer(cfg.CookieKey, cfg.Node, "pass")
	if err != nil {
		return nil, err
	}
	content, err := contentKey(cfg.CookieKey)
	if err != nil {
		return nil, err
	}
	pages, err := newPages(cfg.Origins.Portal())
	if err != nil {
		return nil, err
	}
	probe := quire.NewLabel()
	origin, err := url.Parse(cfg.Origins.Origin(probe))
	if err != nil {
		return nil, fmt.Errorf("gateway: the apps' origin: %w", err)
	}
	g := &Gateway{
		cfg: cfg, log: cfg.Log, now: cfg.Now, portal: cfg.Origins.Portal(), sockets: cfg.Sockets,
		suffix: strings.TrimPrefix(origin.Host, string(probe)), tls: origin.Scheme == "https",
		seal: seal, passes: passes, pages: pages, buffers: newBuffers(), stock: remote.NewBuffers(),
	}
	g.ctx, g.cancel = context.WithCancel(context.Background())
	g.grants.init()
	g.routes.init(g)
	g.sites.init(cfg.Origins, content)
	g.nodes.init()
	g.attach.init()
	g.conns.init(cfg.Connections)
	g.lines.init()
	g.replies.New = func() any { return &reply{} }
	g.browser = g.browserServer()
	if cfg.Identity != nil {
		g.control = remote.Server(cfg.Identity, remote.GatewayHandler(g, g.dialNode, g.log), g.log, remote.RoleServer)
	}
	g.clock.Store(g.now().UnixMilli())
	g.uptime.Store(1)
	g.done.Add(1)
	go g.tend()
	return g, nil
}

func overNetwork(cfg *Config) error {
	if cfg.Identity == nil {
		return errors.New("gateway: without an Identity, Dial and Renew must be given")
	}
	id := cfg.Identity
	if cfg.Dial == nil {
		cfg.Dial = func(ctx context.Context, addr string, r quire.Route, grant []byte) (net.Conn, error) {
			return remote.DialStream(ctx, id, addr, r.Node, r.Session, grant)
		}
	}
	if cfg.Renew == nil {
		cfg.Renew = func(ctx context.Context, addr string, node quire.NodeID, grant []byte) error {
			return remote.RenewLease(ctx, id, addr, node, grant)
		}
	}
	return nil
}

// Close ends everything at once: listeners, sockets, links.
func (g *Gateway) Close() error {
	g.cancel()
	err := g.browser.Close()
	if g.control != nil {
		err = errors.Join(err, g.control.Close())
	}
	g.conns.close()
	g.lines.close()
	g.grants.each(func(h *holder) { h.kill(closeGoingAway) })
	g.done.Wait()
	return err
}

// tend does what is due each second: renewals, ends of grace, old entries.
func (g *Gateway) tend() {
	defer g.done.Done()
	t := time.NewTicker(tendEvery)
	defer t.Stop()
	began := time.Now()
	for n := 0; ; n++ {
		select {
		case <-g.ctx.Done():
			return
		case <-t.C:
			g.clock.Store(g.now().UnixMilli())
			g.uptime.Store(1 + time.Since(began).Milliseconds())
			g.lines.watch(g.uptime.Load())
			g.tendGrants()
			if n%probeEvery == 0 {
				g.probe()
			}
			if n%60 == 59 {
				g.sweep()
			}
		}
	}
}

const (
	tendEvery  = time.Second
	probeEvery = 5 // seconds, for nodes that do not answer
)

// lastHeard is when the server last said anything; the zero time if never.
func (g *Gateway) lastHeard() time.Time {
	if ms := g.heard.Load(); ms != 0 {
		return time.UnixMilli(ms)
	}
	return time.Time{}
}

// silent reports whether the server has been silent for so long that the
// grants' grace counts.
func (g *Gateway) silent(now time.Time) bool { return now.Sub(g.lastHeard()) > ticket.Silence }
