package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"quire"
	"quire/compute"
	"quire/compute/remote"
	"quire/control"
	"quire/gateway"
	"quire/server"
	"quire/spawner"
	"quire/spawner/launch"
	"quire/store"
	"quire/ticket"
)

// roleCmd runs one role. The supervisor hands over its listeners: fd 3 is a
// pipe that closes when the supervisor is gone, fd 4 and on are the role's own.
type roleCmd struct {
	Config string `short:"c" required:"" placeholder:"FILE" help:"The file the supervisor wrote."`
}

const (
	lifeLine = 3
	firstFD  = 4
)

// Run finds out which role it is from the command that was typed.
func (r roleCmd) Run(ctx context.Context) error {
	c, err := loadRole(r.Config, os.Args[1], os.Geteuid() == 0)
	if err != nil {
		return err
	}
	if c.Local == nil {
		return errors.New(`roles are started by "quire up"`)
	}
	name := os.Args[1]
	log := slog.New(slog.NewJSONHandler(os.Stderr, nil)).With("role", name)
	slog.SetDefault(log)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		io.Copy(io.Discard, os.NewFile(lifeLine, "life")) // ends with the supervisor
		stop()
	}()
	origins, err := quire.NewOrigins(quire.OriginConfig{Portal: c.Portal, Apps: c.Apps, Aliases: c.Hosts})
	if err != nil {
		return err
	}
	log.Info("starting", "version", version, "pid", os.Getpid(), "uid", os.Getuid())
	dir := filepath.Join(c.Dirs.Data, name)
	run := map[string]func(context.Context, Config, string, quire.Origins, *slog.Logger) error{
		"server": runServer, "worker": runWorker, "gateway": runGateway, "compute": runCompute, "spawner": runSpawner,
	}[name]
	err = run(ctx, c, dir, origins, log)
	if ctx.Err() != nil || err == nil {
		return nil
	}
	log.Error("ended", "err", err)
	return err
}

func inherited(fd uintptr) (net.Listener, error) {
	f := os.NewFile(fd, "listener")
	defer f.Close()
	return net.FileListener(f)
}

// fleet finds nodes across the network: through their gateway, which only
// carries.
type fleet struct{ id *remote.Identity }

func (f fleet) Gateway(dc quire.DataCenter) quire.Gateway {
	return remote.NewGateway(f.id, dc.Gateway, dc.Address)
}

func (f fleet) Machine(dc quire.DataCenter, n quire.Node) quire.Machine {
	door := remote.NewGateway(f.id, dc.Gateway, dc.Address)
	return remote.NewMachine(f.id, n.ID, func(ctx context.Context) (net.Conn, error) { return door.DialNode(ctx, n.ID) })
}

// An office is what a server and a worker have alike: the keys, the database, and
// control over both.
type office struct {
	*control.Control
	store *store.Store
}

func (c Config) office(ctx context.Context, origins quire.Origins, worker bool, log *slog.Logger) (o office, err error) {
	dir := filepath.Join(c.Dirs.Data, "server")
	id, err := remote.LoadIdentity(dir)
	if err != nil {
		return o, err
	}
	authority, err := remote.LoadAuthority(dir)
	if err != nil {
		return o, err
	}
	signer, err := ticket.LoadSigner(filepath.Join(dir, "order.key"))
	if err != nil {
		return o, err
	}
	address, err := c.database()
	if err != nil {
		return o, err
	}
	if o.store, err = store.Open(ctx, address); err != nil {
		return o, err
	}
	o.Control, err = control.New(control.Config{
		Store: o.store, Signer: signer, Origins: origins, Fleet: fleet{id}, Log: log,
		Authority: authority, AppsDefault: c.Apps, Worker: worker,
		Accounts: c.accounts(), ProjectRoot: c.Dirs.Projects,
		Grace: time.Duration(c.GraceMinutes) * time.Minute, KeepDeleted: time.Duration(c.KeepDeletedDays) * 24 * time.Hour, DigitNames: c.DigitNames,
		Anonymous: c.Anonymous == "read-public", VisitorName: c.AnonymousAccount,
	})
	if err != nil {
		o.store.Close()
		return o, err
	}
	id.Check = o.CheckPeer
	go renewOwn(ctx, authority, id, log)
	return o, nil
}

// runWorker does the works and serves nobody.
func runWorker(ctx context.Context, c Config, _ string, origins quire.Origins, log *slog.Logger) error {
	ctl, err := c.office(ctx, origins, true, log)
	if err != nil {
		return err
	}
	defer ctl.store.Close()
	return ctl.Run(ctx)
}

func runServer(ctx context.Context, c Config, dir string, origins quire.Origins, log *slog.Logger) error {
	o, err := c.office(ctx, origins, false, log)
	if err != nil {
		return err
	}
	defer o.store.Close()
	ctl, l := o.Control, c.Local
	if l.DataCenter != "" {
		if err := ctl.Site.Join(ctx, quire.Actor{System: true}, quire.DataCenter{
			ID: l.DataCenter, Name: "local", Gateway: l.Gateway, Address: l.GatewayAddr, Summary: "This machine",
		}, quire.Node{ID: l.Node, DataCenter: l.DataCenter, Name: "local", Address: l.NodeAddr}); err != nil {
			return err
		}
	}
	portal, err := server.New(server.Config{Control: ctl, Origins: origins, Log: log, Version: version, Host: l.Host, Elsewhere: !c.has("gateway"), Proxies: c.proxies()})
	if err != nil {
		return err
	}
	secure, redirect, err := c.portalTLS(dir, origins, log)
	if err != nil {
		return err
	}
	fronts := []front{{h: portal, secure: secure}, {h: adminHandler(ctl, origins.Portal())}}
	if c.Listen.Redirect != "" {
		fronts = append(fronts, front{h: redirect})
	}
	for i := range fronts {
		if fronts[i].l, err = inherited(firstFD + uintptr(i)); err != nil {
			return err
		}
	}
	ended := make(chan error, 1+len(fronts))
	go func() { ended <- ctl.Run(ctx) }()
	for _, f := range fronts {
		go func() { ended <- f.serve(ctx, log) }()
	}
	if c.TLS.ACME != nil {
		go obtain(secure, hostOf(origins.Portal()))
	}
	err = <-ended
	if ctx.Err() != nil {
		for range fronts {
			<-ended
		}
	}
	return err
}

// renewOwn keeps the server's own certificate good. Those of gateways and nodes
// are renewed through their links.
func renewOwn(ctx context.Context, a *remote.Authority, id *remote.Identity, log *slog.Logger) {
	t := time.NewTicker(6 * time.Hour)
	defer t.Stop()
	for {
		if is := id.Is(); time.Until(is.Expires) < 10*24*time.Hour {
			cert, err := a.Certify(id.Role, id.Node, is.Generation+1, is.Public)
			if err == nil {
				err = id.Renew(cert)
			}
			if err != nil {
				log.Error("the server's own certificate was not renewed", "err", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// A front is a listener and who answers on it.
type front struct {
	l      net.Listener
	h      http.Handler
	secure *tls.Config // nil: plain
}

// serve answers until ctx ends, then lets what is under way finish for a moment.
func (f front) serve(ctx context.Context, log *slog.Logger) error {
	said := slog.NewLogLogger(log.Handler(), slog.LevelWarn)
	if f.secure != nil {
		said = remote.QuietLog(log) // a stranger can fail a handshake as often as he likes
	}
	s := &http.Server{
		Handler: f.h, TLSConfig: f.secure, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 32 << 10,
		ErrorLog: said, BaseContext: func(net.Listener) context.Context { return ctx },
	}
	go func() {
		<-ctx.Done()
		end, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()
		if s.Shutdown(end) != nil {
			s.Close()
		}
	}()
	if f.secure != nil {
		return s.ServeTLS(f.l, "", "")
	}
	return s.Serve(f.l)
}

// accounts chooses, once, as whom people's processes run.
func (c Config) accounts() control.Accounts {
	switch {
	case !c.Local.Separate:
		return control.OneAccount(c.Local.Account, c.Local.UID)
	case c.ManageAccounts:
		return control.MadeAccounts(c.UIDRange[0], c.UIDRange[1])
	}
	return control.FoundAccounts()
}

func runGateway(ctx context.Context, c Config, dir string, origins quire.Origins, log *slog.Logger) error {
	l, err := inherited(firstFD)
	if err != nil {
		return err
	}
	id, err := remote.LoadIdentity(dir)
	if errors.Is(err, fs.ErrNotExist) && !c.has("server") {
		log.Warn("not joined yet: quire gateway join --server URL --token TOKEN")
		return front{l: l, h: http.HandlerFunc(notJoined)}.serve(ctx, log)
	}
	if err != nil {
		return err
	}
	moved := func(quire.GatewaySite) {}
	if !c.has("server") {
		site, err := remote.LoadSite(dir)
		if err != nil {
			return err
		}
		if origins, err = quire.NewOrigins(quire.OriginConfig{Portal: site.Portal, Apps: site.Apps}); err != nil {
			return err
		}
		var stop context.CancelFunc
		ctx, stop = context.WithCancel(ctx)
		defer stop()
		moved = func(now quire.GatewaySite) {
			if now.Portal == site.Portal && now.Apps == site.Apps {
				return
			}
			log.Info("the addresses have changed; starting again with them", "portal", now.Portal, "apps", now.Apps)
			site.Portal, site.Apps = now.Portal, now.Apps
			if err := remote.SaveSite(dir, site); err != nil {
				log.Error("cannot keep the new addresses", "err", err)
				return
			}
			stop()
		}
	}
	verifier, err := ticket.LoadVerifier(filepath.Join(dir, "order.pub"))
	if err != nil {
		return err
	}
	key, err := os.ReadFile(filepath.Join(dir, "cookie.key"))
	if err != nil {
		return err
	}
	conf := gateway.Config{Node: id.Node, Origins: origins, Verifier: verifier, Identity: id, CookieKey: key, Version: version, Moved: moved, Proxies: c.proxies(), Log: log}
	if c.TLS.Gateway != nil {
		cert, err := newCertificate(c.TLS.Gateway, hostOf(origins.Origin(quire.NewLabel())), log)
		if err != nil {
			return err
		}
		conf.TLS = cert.config()
	}
	g, err := gateway.New(conf)
	if err != nil {
		return err
	}
	id.Check = g.CheckPeer
	if _, unix := socketPath(c.Listen.Gateway); unix {
		control, err := inherited(firstFD + 1)
		if err != nil {
			return err
		}
		go g.ServeControl(control)
	}
	context.AfterFunc(ctx, func() { g.Close() })
	if err := g.Serve(l); ctx.Err() == nil {
		return err
	}
	return nil // to start again with other addresses
}

// notJoined is what a gateway says that is nobody's yet.
func notJoined(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusServiceUnavailable)
	io.WriteString(w, "This gateway is not registered with a server yet. On its machine: quire gateway join --server URL --token TOKEN\n")
}

func runCompute(ctx context.Context, c Config, dir string, _ quire.Origins, log *slog.Logger) error {
	l, err := inherited(firstFD)
	if err != nil {
		return err
	}
	id, err := remote.LoadIdentity(dir)
	if errors.Is(err, fs.ErrNotExist) && !c.has("server") {
		log.Warn("not joined yet: quire compute join --gateway URL --token TOKEN")
		l.Close() // nobody is answered
		<-ctx.Done()
		return nil
	}
	if err != nil {
		return err
	}
	door := c.Local.Gateway
	if !c.has("server") {
		site, err := remote.LoadSite(dir)
		if err != nil {
			return err
		}
		door = site.Gateway
	}
	id.Check = func(role string, node quire.NodeID, _ string) error {
		if role == remote.RoleGateway && node != door {
			return errors.New("it is not the gateway of this node")
		}
		return nil
	}
	verifier, err := ticket.LoadVerifier(filepath.Join(dir, "order.pub"))
	if err != nil {
		return err
	}
	node, err := compute.New(compute.Config{
		Node: id.Node, Verifier: verifier, RunDir: c.Dirs.Run, StateDir: dir,
		Spawner: filepath.Join(c.Dirs.Run, "spawner.sock"), Version: version, Log: log, Identity: id.Is, Renew: id.Renew,
	})
	if err != nil {
		return err
	}
	defer node.Close()
	s := remote.Server(id, remote.NodeHandler(node, node, log), log, remote.RoleServer, remote.RoleGateway)
	context.AfterFunc(ctx, func() { s.Close() })
	return s.ServeTLS(l, "", "")
}

func runSpawner(ctx context.Context, c Config, dir string, _ quire.Origins, log *slog.Logger) error {
	if c.Local.Separate && !c.AllowSetuid { // what sudo gives, its parents must have kept
		if err := launch.Confine(); err != nil {
			return err
		}
	}
	verifier, err := ticket.LoadVerifier(filepath.Join(dir, "order.pub"))
	if errors.Is(err, fs.ErrNotExist) && !c.has("server") {
		log.Warn("not joined yet")
		<-ctx.Done()
		return nil
	}
	if err != nil {
		return err
	}
	node := c.Local.Node
	if b, err := os.ReadFile(filepath.Join(dir, "node")); err == nil { // since it joined
		node = quire.NodeID(strings.TrimSpace(string(b)))
	}
	cfg := spawner.Config{
		Node: node, Verifier: verifier, RunDir: c.Dirs.Run, StateDir: dir, ProjectRoot: c.Dirs.Projects, Self: c.Local.Self,
		AppsDir: filepath.Join(c.Dirs.Site, "apps"), SkeletonDir: filepath.Join(c.Dirs.Site, "skeleton"), RootEnv: c.RootEnvironment, Python: c.Python,
		Peer: c.Local.ComputeUID, Group: c.Local.ComputeGID, Log: log,
		Default: spawner.Want{Memory: c.Session.MemoryMB << 20, CPUs: c.Session.CPUs, Processes: c.Session.Processes},
	}
	if err := c.sessions(&cfg); err != nil {
		return err
	}
	sp, err := spawner.New(cfg)
	if err != nil {
		return err
	}
	l, err := inherited(firstFD)
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { l.Close() })
	return sp.Serve(l)
}

// sessions chooses, once, how sessions are kept apart: each its own account, in
// a group of its own with limits, in the host's network (ours is empty); or, in
// single-account mode, not at all.
func (c Config) sessions(cfg *spawner.Config) (err error) {
	if c.Local.Separate {
		refuse := append([]string{c.serviceAccount("server"), c.serviceAccount("gateway"), c.serviceAccount("compute")}, c.UntouchedOwners...)
		cfg.Accounts = spawner.Separate(spawner.Policy{MinUID: c.MinUID, Refuse: refuse})
		cfg.Setuid, cfg.HostTmp = c.AllowSetuid, !c.PrivateTmp
		cfg.Network = os.NewFile(firstFD+1, "network")
		if !c.Session.Limits {
			cfg.Limits = spawner.NoLimits("switched off in the configuration")
			return nil
		}
		if cfg.Limits, err = spawner.FindLimits("quire"); err != nil {
			err = fmt.Errorf("%w; \"session\": {\"limits\": false} in the configuration runs sessions without limits", err)
		}
		return err
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return err
	}
	cfg.Limits = spawner.NoLimits("sessions run without limits in single-account mode")
	cfg.Accounts, err = spawner.Single(home, "/bin/bash")
	return err
}
