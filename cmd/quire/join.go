package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"quire"
	"quire/compute/remote"
	"quire/control"
	"quire/ticket"
)

type gatewayCmd struct {
	Run  roleCmd        `cmd:"" default:"withargs" hidden:"" help:"Run the gateway role (started by 'quire up')."`
	Join gatewayJoinCmd `cmd:"" help:"Make this machine the gateway of a new data center."`
}

type computeCmd struct {
	Run  roleCmd        `cmd:"" default:"withargs" hidden:"" help:"Run the compute role (started by 'quire up')."`
	Join computeJoinCmd `cmd:"" help:"Make this machine a compute node of a data center."`
}

// joining is what both have.
type joining struct {
	Config    string `short:"c" placeholder:"FILE" help:"Configuration file."`
	Token     string `placeholder:"TOKEN" help:"The token an administrator made. It shows in the list of processes while this runs; see --token-file."`
	TokenFile string `placeholder:"FILE" help:"Read the token from a file, or with - from standard input."`
	Name      string `help:"What people call it; the machine's name unless the token says otherwise."`
	Address   string `placeholder:"HOST:PORT" help:"Where it is reached; the address from which it asks, and the port of its role, unless the token says otherwise."`
	Summary   string `help:"One line about it."`
}

type gatewayJoinCmd struct {
	joining
	Server string `required:"" placeholder:"URL" help:"The portal's address."`
	Apps   string `placeholder:"URL" help:"Where browsers find its apps, as in https://*.apps.example.org. Without it, one origin for all apps: http://HOST:PORT of its address, for trusted users only."`
}

type computeJoinCmd struct {
	joining
	Gateway string `required:"" placeholder:"URL" help:"The address of its gateway."`
}

func (g gatewayJoinCmd) Run(ctx context.Context) error {
	return g.join(ctx, quire.JoinGateway, g.Server, "/api/v1/join", "8089", func(r *quire.JoinRequest) {
		if r.Apps = g.Apps; r.Apps == "" {
			r.Apps = "http://" + r.Address
		}
	})
}

func (c computeJoinCmd) Run(ctx context.Context) error {
	return c.join(ctx, quire.JoinCompute, c.Gateway, "/_quire/join", "5002", func(*quire.JoinRequest) {})
}

func (j joining) token() (t ticket.Token, err error) {
	text := j.Token
	switch {
	case text != "" && j.TokenFile != "":
		return t, errors.New("give --token or --token-file, not both")
	case j.TokenFile == "-":
		b, err := io.ReadAll(io.LimitReader(os.Stdin, 4096))
		if err != nil {
			return t, err
		}
		text = string(b)
	case j.TokenFile != "":
		b, err := os.ReadFile(j.TokenFile)
		if err != nil {
			return t, err
		}
		text = string(b)
	case text == "":
		text = os.Getenv("QUIRE_JOIN_TOKEN")
	}
	if text == "" {
		return t, errors.New("give the token with --token-file (or - for standard input), --token, or in QUIRE_JOIN_TOKEN")
	}
	return ticket.ParseToken(text)
}

// join asks at base+path. The role's identity is made beside its directory and
// moved in when everything is right.
func (j joining) join(ctx context.Context, role, base, path, port string, more func(*quire.JoinRequest)) error {
	c, err := loadConfig(j.Config, os.Geteuid() == 0)
	if err != nil {
		return err
	}
	switch {
	case !c.has(role):
		return fmt.Errorf(`this machine is no %s: its configuration (%s) says "roles": ["%s"]`, role, configFile(c), strings.Join(c.Roles, `", "`))
	case c.has("server"):
		return fmt.Errorf("the %s of the server's own machine belongs to it already", role)
	}
	token, err := j.token()
	if err != nil {
		return err
	}
	who, err := findPeople(c, os.Geteuid() == 0)
	if err != nil {
		return err
	}
	if _, err := provision(c, who); err != nil {
		return err
	}
	u, err := url.Parse(base)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return fmt.Errorf("%q is not an address like http://HOST:PORT", base)
	}
	as := who.compute
	if role == quire.JoinGateway {
		as = who.gateway
	}
	dir, stage := filepath.Join(c.Dirs.Data, role), filepath.Join(c.Dirs.Data, role+".joining")
	if err := os.Mkdir(stage, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := keepKey(dir, stage); err != nil {
		return err
	}
	ask, err := remote.Join(token, role, stage)
	if err != nil {
		return err
	}
	me, err := addressTowards(ctx, u)
	if err != nil {
		return fmt.Errorf("%s does not answer: %w", base, err)
	}
	name, err := os.Hostname()
	if err != nil {
		name = role
	}
	short, _, _ := strings.Cut(name, ".")
	r := quire.JoinRequest{Name: firstOf(j.Name, short), Summary: j.Summary, Address: firstOf(j.Address, net.JoinHostPort(me, port))}
	more(&r)
	body, err := ask.Request(r)
	if err != nil {
		return err
	}
	answer, err := postJoin(ctx, strings.TrimSuffix(base, "/")+path, body)
	if err != nil {
		return err
	}
	a, err := ask.Finish(answer)
	if err != nil {
		return err
	}
	if role == quire.JoinCompute { // root's process checks orders too
		spawner := filepath.Join(c.Dirs.Data, "spawner")
		err := writeFile(filepath.Join(spawner, "order.pub"), a.OrderKey, 0o644)
		if err := errors.Join(err, writeFile(filepath.Join(spawner, "node"), []byte(a.Node+"\n"), 0o644)); err != nil {
			return err
		}
	}
	if err := moveIn(stage, dir, as); err != nil {
		return err
	}
	fmt.Printf("Joined %s as the %s %q.\n", a.Portal, map[string]string{quire.JoinGateway: "gateway", quire.JoinCompute: "compute node"}[role], a.Name)
	up := &adminClient{socket: filepath.Join(c.Dirs.Run, "up.sock")}
	if up.call(ctx, "POST", "/roles/"+role+"/restart", nil, nil) != nil {
		fmt.Println("Start it: quire up")
	} else {
		if role == quire.JoinCompute {
			if err := up.call(ctx, "POST", "/roles/spawner/restart", nil, nil); err != nil {
				return err
			}
		}
		fmt.Println("It runs.")
	}
	fmt.Printf("Its key, to compare with the page under Administration:\n%s\n", ask.Fingerprint())
	return nil
}

// keepKey lets a machine that joins again show the key it has. The directory is
// the role's, so a link in it is not followed.
func keepKey(dir, stage string) error {
	f, err := os.OpenFile(filepath.Join(dir, "node.key"), os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 64<<10))
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(stage, "node.key"), b, 0o600)
}

// moveIn gives the files to the role and renames them into its directory.
func moveIn(stage, dir string, as account) error {
	names, err := os.ReadDir(stage)
	if err != nil {
		return err
	}
	for _, n := range names {
		file := filepath.Join(stage, n.Name())
		f, err := os.OpenFile(file, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
		if err != nil {
			return err
		}
		if int(as.UID) != os.Getuid() {
			err = f.Chown(int(as.UID), int(as.GID))
		}
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
		if err := os.Rename(file, filepath.Join(dir, n.Name())); err != nil {
			return err
		}
	}
	return os.Remove(stage)
}

// addressTowards is the address of this machine from which it reaches u.
func addressTowards(ctx context.Context, u *url.URL) (string, error) {
	port := firstOf(u.Port(), map[string]string{"http": "80", "https": "443"}[u.Scheme])
	d := net.Dialer{Timeout: 10 * time.Second}
	conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort(u.Hostname(), port))
	if err != nil {
		return "", err
	}
	defer conn.Close()
	host, _, err := net.SplitHostPort(conn.LocalAddr().String())
	return host, err
}

// postJoin sends the request. Redirects are not followed: whoever leads us
// elsewhere is not who was named.
func postJoin(ctx context.Context, address string, body []byte) ([]byte, error) {
	client := &http.Client{Timeout: 30 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	if err != nil {
		return nil, err
	}
	switch {
	case res.StatusCode >= 300 && res.StatusCode < 400:
		return nil, fmt.Errorf("%s leads to %q; give that address", address, res.Header.Get("Location"))
	case res.StatusCode == http.StatusMisdirectedRequest:
		return nil, fmt.Errorf("%s: %s", address, strings.TrimSpace(string(b)))
	case res.StatusCode != http.StatusOK:
		return nil, quire.DecodeError(res.StatusCode, b)
	}
	return b, nil
}

type joinTokenCmd struct {
	Config string `short:"c" placeholder:"FILE" help:"Configuration file."`
	joinTokenIn
}

type joinTokenIn struct {
	Role       string        `required:"" enum:"gateway,compute" help:"gateway or compute."`
	DataCenter string        `placeholder:"NAME" help:"Of a compute node: its data center; not needed while there is one."`
	Name       string        `help:"What the machine will be called."`
	Address    string        `placeholder:"HOST:PORT" help:"Where it is reached."`
	Summary    string        `help:"One line about it."`
	Uses       int           `default:"1" help:"How many machines may join by it."`
	TTL        time.Duration `default:"15m" help:"How long it is good for, at most 168h."`
}

func (t joinTokenCmd) Run(ctx context.Context) error {
	_, admin, err := adminOf(t.Config)
	if err != nil {
		return err
	}
	var out struct{ Token string }
	if err := admin.call(ctx, "POST", "/join-token", t.joinTokenIn, &out); err != nil {
		return err
	}
	fmt.Println(out.Token)
	return nil
}

// newJoinToken is the server's side.
func newJoinToken(ctx context.Context, ctl *control.Control, by quire.Actor, in joinTokenIn) (any, error) {
	gateway := ""
	k := quire.JoinToken{Role: in.Role, Name: in.Name, Address: in.Address, Summary: in.Summary, Uses: in.Uses}
	if in.Role == quire.JoinCompute {
		dcs, err := ctl.Site.DataCenters(ctx, by)
		if err != nil {
			return nil, err
		}
		var names []string
		for _, dc := range dcs {
			names = append(names, dc.Name)
			if strings.EqualFold(dc.Name, in.DataCenter) || string(dc.ID) == in.DataCenter || string(dc.Gateway) == in.DataCenter || in.DataCenter == "" && len(dcs) == 1 {
				k.DataCenter, gateway = dc.ID, dc.Address
			}
		}
		if k.DataCenter == "" {
			return nil, quire.Invalid("data_center", "Say which data center: "+firstOf(strings.Join(names, ", "), "there is none yet")+".")
		}
	}
	token, _, err := ctl.Site.NewToken(ctx, by, k, in.TTL)
	return map[string]string{"Token": token, "Gateway": gateway}, err
}
