package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"quire"
	"quire/compute/remote"
)

type upCmd struct {
	layerFlags
	Service bool   `help:"Started as a service: what is printed goes to a log, so no link is."`
	Host    string `placeholder:"NAME" help:"Serve under this name or address, reachable from other machines. Without wildcard names all apps share one origin: for trusted users only."`
}

// Run starts the roles and keeps them running until it is interrupted.
func (u upCmd) Run(ctx context.Context) error {
	began := time.Now()
	root := os.Geteuid() == 0
	inForce, err := u.load(allRoles)
	if err != nil {
		return err
	}
	c := inForce.Config
	if err := makeDir(c.Dirs.Run, 0o755); err != nil {
		return err
	}
	lock, err := os.OpenFile(filepath.Join(c.Dirs.Run, "up.lock"), os.O_CREATE|os.O_RDWR|syscall.O_CLOEXEC, 0o644)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		b := make([]byte, 512)
		n, _ := lock.ReadAt(b, 0)
		fmt.Printf("Quire is already running at %s\n", bytes.TrimSpace(b[:n]))
		return nil
	}
	who, err := findPeople(c, root)
	if err != nil {
		return err
	}
	local, err := provision(c, who)
	if err != nil {
		return err
	}
	bindHost := "127.0.0.1"
	if u.Host != "" {
		bindHost = ""
		if err := c.checkHost(); err != nil {
			return err
		}
	}
	if err := c.checkCertificates(who); err != nil {
		return err
	}
	p, err := bind(c, bindHost, func(s string) { fmt.Println(s) })
	if err != nil {
		return err
	}
	defer p.close()
	local.GatewayAddr, local.NodeAddr = reach(p.gateway), reach(p.compute)
	if p.control != nil {
		local.GatewayAddr = reach(p.control)
	}
	local.Host = sshHost()
	runFile := filepath.Join(c.Dirs.Run, "quire.json")
	if c, err = u.settle(c, local, p, runFile); err != nil {
		return err
	}
	where := c.Portal
	if !c.has("server") {
		where = "this machine, as " + strings.Join(c.Roles, " and ")
	}
	if err := errors.Join(lock.Truncate(0), writeAt(lock, where+"\n")); err != nil {
		return err
	}

	s, err := newSupervisor(c, who, p, runFile)
	if err != nil {
		return err
	}
	s.reload = func() error { return u.reload(c, local, p, runFile) }
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.quit = cancel
	s.start(ctx)
	if c.has("server") {
		u.greet(ctx, c, s, began)
	} else {
		greetPeer(c)
	}
	<-ctx.Done()
	n := s.sessions()
	fmt.Println("\nStopping.")
	s.stop()
	switch n {
	case 0:
	case 1:
		fmt.Println(`1 session still runs; "quire stop --sessions" ends it.`)
	default:
		fmt.Printf("%d sessions still run; \"quire stop --sessions\" ends them.\n", n)
	}
	return nil
}

// settle completes a configuration with what is so on this machine, and writes
// it for the roles.
func (u upCmd) settle(c Config, local *Local, p ports, runFile string) (Config, error) {
	portal, gateway := portOf(p.portal), portOf(p.gateway)
	if !c.has("server") {
		portal = 8080
	}
	if !c.has("gateway") {
		gateway = 8089
	}
	o := c.origins(portal, gateway)
	switch {
	case u.Host == "":
	case !c.has("server"):
		return c, errors.New("--host is for the server's machine; others learn their addresses when they join")
	default:
		o.Portal = "http://" + net.JoinHostPort(u.Host, fmt.Sprint(portOf(p.portal)))
		o.Apps = "http://" + net.JoinHostPort(u.Host, fmt.Sprint(portOf(p.gateway)))
		o.Aliases = append(o.Aliases, u.Host)
	}
	if _, err := quire.NewOrigins(o); err != nil {
		return c, err
	}
	c.Portal, c.Apps, c.Hosts, c.Local = o.Portal, o.Apps, o.Aliases, local
	b, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return c, err
	}
	return c, writeFile(runFile, b, 0o644)
}

// reload reads the configuration anew for roles that are about to start. What
// the supervisor itself stands on needs a start of everything.
func (u upCmd) reload(old Config, local *Local, p ports, runFile string) error {
	f, err := u.load(allRoles)
	if err != nil {
		return err
	}
	c := f.Config
	if fmt.Sprint(c.Roles, c.Listen, c.Dirs, c.ServiceAccounts) != fmt.Sprint(old.Roles, old.Listen, old.Dirs, old.ServiceAccounts) {
		return errors.New("roles, listen, dirs or service_accounts have changed: stop and start Quire as a whole")
	}
	_, err = u.settle(c, local, p, runFile)
	return err
}

func writeAt(f *os.File, s string) error {
	_, err := f.WriteAt([]byte(s), 0)
	return err
}

// greet waits until the node is up and says where to go.
func (u upCmd) greet(ctx context.Context, c Config, s *supervisor, began time.Time) {
	wait, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	var ready struct {
		Waiting string `json:"waiting"`
		Setup   string `json:"setup"`
	}
	err := s.admin.call(wait, "POST", "/ready", nil, &ready)
	if ctx.Err() != nil {
		return
	}
	if err != nil || ready.Waiting != "" {
		fmt.Printf("Not everything is up yet (%s). The logs in %s say why; Quire keeps trying.\n", firstOf(ready.Waiting, fmt.Sprint(err)), c.Dirs.Logs)
	}
	w := bufio.NewWriter(os.Stdout)
	defer w.Flush()
	fmt.Fprintf(w, "Quire %s is up after %.1f s.\n\n", version, time.Since(began).Seconds())
	switch {
	case ready.Setup != "" && u.Service:
		fmt.Fprintf(w, "  Open %s\n\nThere is no administrator yet: \"quire admin setup-link\" prints a link that makes one.\n", c.Portal)
		return
	case u.Service:
		return
	case ready.Setup != "":
		fmt.Fprintf(w, "  Open %s/setup?key=%s\n\nThe link works once and lets you choose the administrator's name and password.\n", c.Portal, ready.Setup)
	default:
		fmt.Fprintf(w, "  Open %s\n", c.Portal)
	}
	if pp, gp := portOf(s.ports.portal), portOf(s.ports.gateway); os.Getenv("SSH_CONNECTION") != "" && u.Host == "" && pp*gp != 0 {
		fmt.Fprintf(w, "\nFrom your own machine, first:  ssh -L %d:127.0.0.1:%d -L %d:127.0.0.1:%d %s\n", pp, pp, gp, gp, c.Local.Host)
	}
	if !c.Local.Separate {
		fmt.Fprintln(w, "\nSingle-account mode: everything runs as you, so any notebook can read everything\nthat you can, Quire's keys included. Start as root to separate people and roles.")
	}
	if u.Host != "" {
		fmt.Fprintln(w, "\nShared-origin mode: all apps share one browser origin. For trusted users only.")
	}
	c.warn(w)
	fmt.Fprintf(w, "\nCtrl-C stops Quire; running notebooks and terminals go on.\n")
}

// greetPeer says what a machine without the server is, or is not yet.
func greetPeer(c Config) {
	for _, role := range c.Roles {
		if role == "worker" {
			fmt.Printf("The worker runs, for %q.\n", c.Portal)
			continue
		}
		if id, err := remote.LoadIdentity(filepath.Join(c.Dirs.Data, role)); err == nil {
			site, _ := remote.LoadSite(filepath.Join(c.Dirs.Data, role))
			// %q: the file is the role's own, and a terminal obeys what is printed.
			fmt.Printf("The %s %q runs, for %q.\nIts key: %s\n", role, site.Name, site.Portal, remote.Fingerprint(id.Is().Public))
			continue
		}
		from := "--server URL"
		if role == "compute" {
			from = "--gateway URL"
		}
		fmt.Printf("The %s has not joined an installation yet: \"quire %s join %s --token TOKEN\" does that.\nAn administrator finds the token under Administration.\n", role, role, from)
	}
	fmt.Println("\nCtrl-C stops Quire; running notebooks and terminals go on.")
}

func firstOf(words ...string) string {
	for _, w := range words {
		if w != "" {
			return w
		}
	}
	return ""
}

// sshHost is how one would write this machine after ssh.
func sshHost() string {
	name, err := os.Hostname()
	if err != nil {
		name = "HOST"
	}
	if f := strings.Fields(os.Getenv("SSH_CONNECTION")); len(f) == 4 {
		name = f[2] // the address the client used
	}
	if me, err := user.Current(); err == nil {
		return me.Username + "@" + name
	}
	return name
}
