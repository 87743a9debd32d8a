package main

// The old names: commands that administrators of Anaconda Enterprise Notebooks
// have in their fingers and in their scripts. Each is a symbolic link to quire,
// or its first word.

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"quire"
	"quire/control"
	"quire/ticket"
)

// oldNames are what a link to quire may be called.
var oldNames = [...]string{"wk-gateway-configure", "wk-server-admin"}

type gatewayConfigureCmd struct {
	Config   string `short:"c" placeholder:"FILE" help:"Configuration file."`
	Server   string `required:"" placeholder:"URL" help:"The portal's address."`
	Host     string `required:"" help:"This gateway's name, as browsers and the server find it."`
	Port     int    `default:"8089" help:"Its port."`
	Name     string `required:"" help:"The data center's name."`
	Protocol string `default:"http" enum:"http,https" help:"What browsers speak to it."`
	Apps     string `placeholder:"URL" help:"Where browsers find its apps, as in https://*.apps.example.org. Without it one origin for all apps, for trusted users only."`
	Summary  string `help:"One line about it."`
	Username string `required:"" help:"An administrator of the server."`
	Password string `help:"His password. It shows in the list of processes while this runs; without it you are asked."`
}

// Run makes a token as the administrator and joins by it.
func (g gatewayConfigureCmd) Run(ctx context.Context) error {
	if err := asRole(g.Config, "gateway", fmt.Sprintf(":%d", g.Port)); err != nil {
		return err
	}
	if g.Password == "" {
		var err error
		if g.Password, err = askPassword("Password of " + g.Username + " on " + g.Server + ": "); err != nil {
			return err
		}
	}
	portal := &portalClient{base: strings.TrimSuffix(g.Server, "/") + "/api/v1"}
	var in struct{ Token string }
	if err := portal.call(ctx, "POST", "/logins", map[string]string{"name": g.Username, "password": g.Password}, &in); err != nil {
		return err
	}
	portal.token = in.Token
	defer portal.call(context.WithoutCancel(ctx), "POST", "/logout", nil, nil)
	address := fmt.Sprintf("%s:%d", g.Host, g.Port)
	var made struct{ Token string }
	if err := portal.call(ctx, "POST", "/join-tokens", map[string]any{"role": quire.JoinGateway, "name": g.Name, "address": address, "summary": g.Summary}, &made); err != nil {
		return err
	}
	if _, err := ticket.ParseToken(made.Token); err != nil {
		return errors.New("whoever answered is not a Quire server")
	}
	apps := firstOf(g.Apps, g.Protocol+"://"+address)
	return gatewayJoinCmd{joining: joining{Config: g.Config, Token: made.Token}, Server: g.Server, Apps: apps}.Run(ctx)
}

// asRole writes a configuration for a machine that has none yet: there is
// nothing in it that somebody wrote.
func asRole(config, role, listen string) error {
	c, err := loadConfig(config, os.Geteuid() == 0)
	if err != nil || c.has(role) && !c.has("server") {
		return err
	}
	file := configFile(c)
	b, err := os.ReadFile(file)
	if config != "" || err == nil && string(b) != sampleConfig || err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf(`this machine is not a %s alone: write "roles": ["%s"] into %s`, role, role, firstOf(config, file))
	}
	text := fmt.Sprintf("// This machine's configuration. docs/admin/configuration.md lists every key.\n{\n  \"roles\": [%q],\n  \"listen\": { %q: %q },\n}\n", role, role, listen)
	if err := makeDir(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return writeFile(file, []byte(text), 0o644)
}

// askPassword reads one from the terminal, unseen, or from standard input.
func askPassword(prompt string) (string, error) {
	fd := int(os.Stdin.Fd())
	old, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err == nil {
		fmt.Fprint(os.Stderr, prompt)
		quiet := *old
		quiet.Lflag &^= unix.ECHO
		if err := unix.IoctlSetTermios(fd, unix.TCSETS, &quiet); err != nil {
			return "", err
		}
		defer func() { unix.IoctlSetTermios(fd, unix.TCSETS, old); fmt.Fprintln(os.Stderr) }()
	}
	line, err := bufio.NewReader(io.LimitReader(os.Stdin, 4096)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	return strings.TrimRight(line, "\r\n"), nil
}

// A portalClient speaks to the portal's API as a person.
type portalClient struct{ base, token string }

func (p *portalClient) call(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, p.base+path, body)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	if p.token != "" {
		req.Header.Set("Authorization", "Bearer "+p.token)
	}
	client := &http.Client{Timeout: 30 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return err
	}
	if res.StatusCode >= 300 {
		if to := res.Header.Get("Location"); to != "" {
			return fmt.Errorf("%s leads to %s; give that address", p.base, to)
		}
		return quire.DecodeError(res.StatusCode, b)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(b, out)
}

type serverAdminCmd struct {
	Superuser             superuserCmd   `cmd:"" help:"Give or take an administrator's rights."`
	AddEnterpriseResource addResourceCmd `cmd:"" help:"Make room for a compute resource and print what to type on it."`
}

type superuserCmd struct {
	Config string `short:"c" placeholder:"FILE" help:"Configuration file."`
	Add    string `placeholder:"USER" xor:"who" required:"" help:"Who becomes an administrator."`
	Remove string `placeholder:"USER" xor:"who" required:"" help:"Who is one no longer."`
}

type superuserIn struct {
	Name  string
	Admin bool
}

func (s superuserCmd) Run(ctx context.Context) error {
	_, admin, err := adminOf(s.Config)
	if err != nil {
		return err
	}
	in := superuserIn{firstOf(s.Add, s.Remove), s.Add != ""}
	if err := admin.call(ctx, "POST", "/superuser", in, nil); err != nil {
		return err
	}
	if in.Admin {
		fmt.Printf("%s is an administrator.\n", in.Name)
	} else {
		fmt.Printf("%s is no administrator.\n", in.Name)
	}
	return nil
}

func setSuperuser(ctx context.Context, ctl *control.Control, by quire.Actor, in superuserIn) (any, error) {
	u, err := ctl.Users.ByName(ctx, by, in.Name)
	if err != nil {
		return nil, err
	}
	return ctl.Users.Update(ctx, by, u.ID, control.UserChange{Admin: &in.Admin})
}

type addResourceCmd struct {
	Config  string `short:"c" placeholder:"FILE" help:"Configuration file."`
	ID      string `short:"i" required:"" help:"The data center: its name, its identity or its gateway's."`
	URL     string `short:"u" required:"" help:"Where its gateway reaches it, as in http://HOST:5002; localhost is the gateway's own host."`
	Name    string `short:"n" required:"" help:"What it is called."`
	Summary string `short:"d" help:"One line about it."`
}

func (a addResourceCmd) Run(ctx context.Context) error {
	_, admin, err := adminOf(a.Config)
	if err != nil {
		return err
	}
	in := joinTokenIn{Role: quire.JoinCompute, DataCenter: a.ID, Name: a.Name, Address: a.URL, Summary: a.Summary, Uses: 1, TTL: quire.JoinTokenLife}
	var out struct{ Token, Gateway string }
	if err := admin.call(ctx, "POST", "/join-token", in, &out); err != nil {
		return err
	}
	fmt.Printf("On %s, as root, within %d minutes:\n\n  quire compute join --gateway %s --token %s\n\nThe last line it prints is the fingerprint to compare with the page under Administration.\n",
		a.URL, int(in.TTL.Minutes()), quire.GatewayURL(out.Gateway), out.Token)
	return nil
}
