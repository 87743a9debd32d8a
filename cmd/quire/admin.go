package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"quire"
	"quire/control"
)

type adminCmd struct {
	Superuser superuserCmd `cmd:"" help:"Give or take an administrator's rights."`
	JoinToken joinTokenCmd `cmd:"" help:"Print a token by which a gateway or a compute node joins."`
	SetupLink setupLinkCmd `cmd:"" help:"Print a one-time link that lets its bearer become an administrator."`
	Create    createCmd    `cmd:"" help:"Make an administrator's account without a browser."`
}

type setupLinkCmd struct {
	Config string `short:"c" placeholder:"FILE" help:"Configuration file."`
}

func (s setupLinkCmd) Run(ctx context.Context) error {
	c, admin, err := adminOf(s.Config)
	if err != nil {
		return err
	}
	var out struct{ Secret, Portal string }
	if err := admin.call(ctx, "POST", "/setup-link", nil, &out); err != nil {
		return err
	}
	_ = c
	fmt.Printf("%s/setup?key=%s\n", out.Portal, out.Secret)
	return nil
}

type createCmd struct {
	Config        string `short:"c" placeholder:"FILE" help:"Configuration file."`
	Name          string `arg:"" help:"The account's name."`
	PasswordStdin bool   `required:"" help:"Read the password from standard input, so that no list of processes shows it."`
	Member        bool   `help:"Make an ordinary account, not an administrator."`
}

func (a createCmd) Run(ctx context.Context) error {
	_, admin, err := adminOf(a.Config)
	if err != nil {
		return err
	}
	password, err := bufio.NewReader(io.LimitReader(os.Stdin, 4096)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	in := control.NewUser{Name: a.Name, Password: strings.TrimRight(password, "\r\n"), Admin: !a.Member}
	var user quire.User
	if err := admin.call(ctx, "POST", "/users", in, &user); err != nil {
		return err
	}
	fmt.Printf("%s can sign in now.\n", user.Name)
	return nil
}

type startProjectCmd struct {
	Config  string `short:"c" placeholder:"FILE" help:"Configuration file."`
	Project string `arg:"" placeholder:"OWNER/PROJECT" help:"The project to prepare and open."`
}

func (s startProjectCmd) Run(ctx context.Context) error {
	owner, name, ok := strings.Cut(s.Project, "/")
	if !ok || name == "" || strings.Contains(name, "/") {
		return errors.New("give the project as OWNER/PROJECT")
	}
	_, admin, err := adminOf(s.Config)
	if err != nil {
		return err
	}
	var work quire.Work
	if err := admin.call(ctx, "POST", "/start-project", map[string]string{"owner": owner, "name": name}, &work); err != nil {
		return err
	}
	for _, step := range work.Steps {
		fmt.Printf("%-12s %-8s %6.2f s  %s\n", step.Name, step.State, step.Seconds(time.Now()), step.Note)
	}
	if work.Error != "" {
		fmt.Fprint(os.Stderr, work.Log)
		return errors.New(work.Error)
	}
	return nil
}

type doctorCmd struct {
	Names   doctorNamesCmd   `cmd:"" help:"Print the DNS records and certificate names to ask for."`
	Reach   doctorReachCmd   `cmd:"" help:"Try whether a server or a gateway answers from here."`
	ACL     doctorACLCmd     `cmd:"" name:"acl" help:"Report permissions in a project that are not as the team is."`
	Storage doctorStorageCmd `cmd:"" help:"Try out whether projects can lie where they do: owners, modes, access lists."`
}

type doctorACLCmd struct {
	Config  string `short:"c" placeholder:"FILE" help:"Configuration file."`
	Project string `arg:"" placeholder:"OWNER/PROJECT" help:"The project to look at."`
	Why     string `placeholder:"NAME" help:"Say why this person cannot edit a file."`
	Path    string `arg:"" optional:"" help:"The file, with --why."`
}

func (d doctorACLCmd) Run(ctx context.Context) error {
	owner, name, ok := strings.Cut(d.Project, "/")
	if !ok || name == "" || strings.Contains(name, "/") {
		return errors.New("give the project as OWNER/PROJECT")
	}
	_, admin, err := adminOf(d.Config)
	if err != nil {
		return err
	}
	if d.Why == "" && d.Path != "" {
		return errors.New("say with --why who is meant")
	}
	var out struct{ Report string }
	if err := admin.call(ctx, "POST", "/doctor-acl", map[string]string{"owner": owner, "name": name, "why": d.Why, "path": d.Path}, &out); err != nil {
		return err
	}
	fmt.Print(out.Report)
	return nil
}

type stopCmd struct {
	Config   string `short:"c" placeholder:"FILE" help:"Configuration file."`
	Role     string `arg:"" optional:"" help:"Stop this role alone: server, worker, gateway, compute or spawner."`
	Sessions bool   `help:"End all running notebooks, terminals and other apps first."`
}

func (s stopCmd) Run(ctx context.Context) error {
	if s.Role != "" {
		return oneRole{s.Config, s.Role}.tell(ctx, "stop", "was stopped")
	}
	c, admin, err := adminOf(s.Config)
	if err != nil {
		return err
	}
	up := &adminClient{socket: filepath.Join(c.Dirs.Run, "up.sock")}
	if s.Sessions {
		var out struct{ Stopped int }
		if err := admin.call(ctx, "POST", "/stop-sessions", nil, &out); err != nil {
			return err
		}
		fmt.Printf("Sessions ended: %d.\n", out.Stopped)
	}
	if err := up.call(ctx, "POST", "/stop", nil, nil); err != nil {
		return err
	}
	fmt.Println("Quire stops.")
	return nil
}

// adminClient speaks to a socket that only root, or the account that started
// Quire, can open.
type adminClient struct{ socket string }

func adminOf(file string) (Config, *adminClient, error) {
	c, err := loadConfig(file, os.Geteuid() == 0)
	if err == nil && c.has("worker") && !c.has("server") {
		err = errors.New("this machine has no server: use the command on one that has")
	}
	if err == nil && c.roleIs("server") == "stopped" {
		err = errors.New(`the server is stopped; "quire start server" starts it`)
	}
	return c, &adminClient{socket: filepath.Join(c.Dirs.Run, "admin.sock")}, err
}

// roleIs is the state of a role's process, "" if none of it runs here. The
// supervisor holds the server's socket: without this, one would wait on it for
// ever.
func (c Config) roleIs(role string) string {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	var list []roleState
	up := &adminClient{socket: filepath.Join(c.Dirs.Run, "up.sock")}
	if up.call(ctx, "GET", "/roles", nil, &list) != nil {
		return ""
	}
	for _, r := range list {
		if r.Name == role {
			return r.State
		}
	}
	return ""
}

func (a *adminClient) call(ctx context.Context, method, path string, in, out any) error {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", a.socket)
	}}}
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://quire"+path, body)
	if err != nil {
		return err
	}
	res, err := client.Do(req)
	switch {
	case errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED):
		return errors.New(`nothing of Quire runs here; "quire up" starts it`)
	case errors.Is(err, fs.ErrPermission):
		return errors.New("only root, or the account that started Quire, may do this")
	case err != nil:
		return err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return err
	}
	if res.StatusCode >= 300 {
		if strings.HasPrefix(res.Header.Get("Content-Type"), "text/plain") {
			return errors.New(strings.TrimSpace(string(b)))
		}
		return quire.DecodeError(res.StatusCode, b)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(b, out)
}

// adminHandler is the other end, in the server.
func adminHandler(ctl *control.Control, portal string) http.Handler {
	root := quire.Actor{System: true, Name: "the administrator of the machine"}
	mux := http.NewServeMux()
	handle := func(pattern string, f func(ctx context.Context, body []byte) (any, error)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
			var out any
			if err == nil {
				out, err = f(r.Context(), body)
			}
			w.Header().Set("Content-Type", "application/json")
			if err != nil {
				e := quire.AsError(err)
				w.WriteHeader(e.Status())
				out = map[string]any{"error": e}
			}
			json.NewEncoder(w).Encode(out)
		})
	}
	handle("POST /ready", func(ctx context.Context, _ []byte) (any, error) { return ready(ctx, ctl, root) })
	handle("POST /setup-link", func(ctx context.Context, _ []byte) (any, error) {
		secret, err := ctl.Users.NewSetupLink(ctx, root)
		return map[string]string{"Secret": secret, "Portal": portal}, err
	})
	handle("POST /join-token", func(ctx context.Context, body []byte) (any, error) {
		var in joinTokenIn
		if err := json.Unmarshal(body, &in); err != nil {
			return nil, err
		}
		return newJoinToken(ctx, ctl, root, in)
	})
	handle("POST /superuser", func(ctx context.Context, body []byte) (any, error) {
		var in superuserIn
		if err := json.Unmarshal(body, &in); err != nil {
			return nil, err
		}
		return setSuperuser(ctx, ctl, root, in)
	})
	handle("POST /users", func(ctx context.Context, body []byte) (any, error) {
		var in control.NewUser
		if err := json.Unmarshal(body, &in); err != nil {
			return nil, err
		}
		return ctl.Users.Create(ctx, root, in)
	})
	handle("GET /sessions", func(ctx context.Context, _ []byte) (any, error) {
		live, err := ctl.Sessions.Live(ctx, root)
		return map[string]int{"Sessions": len(live)}, err
	})
	handle("POST /stop-sessions", func(ctx context.Context, _ []byte) (any, error) {
		n, err := ctl.Sessions.StopAll(ctx, root)
		return map[string]int{"Stopped": n}, err
	})
	handle("GET /data-centers", func(ctx context.Context, _ []byte) (any, error) { return ctl.Site.DataCenters(ctx, root) })
	handle("POST /doctor-acl", func(ctx context.Context, body []byte) (any, error) {
		var in struct{ Owner, Name, Why, Path string }
		if err := json.Unmarshal(body, &in); err != nil {
			return nil, err
		}
		p, err := ctl.Projects.ByName(ctx, root, in.Owner, in.Name)
		if err != nil {
			return nil, err
		}
		if in.Why != "" {
			w, err := ctl.Team.Why(ctx, root, p.ID, in.Why, in.Path)
			return map[string]string{"Report": strings.Join(append([]string{w.Sentence}, w.Reasons...), "\n") + "\n"}, err
		}
		report, err := ctl.Team.Check(ctx, root, p.ID)
		return map[string]string{"Report": report}, err
	})
	handle("POST /start-project", func(ctx context.Context, body []byte) (any, error) {
		var in struct{ Owner, Name string }
		if err := json.Unmarshal(body, &in); err != nil {
			return nil, err
		}
		return startProject(ctx, ctl, root, in.Owner, in.Name)
	})
	return mux
}

// ready waits until the local node is up, and gives a set-up link if nobody has
// an account yet.
func ready(ctx context.Context, ctl *control.Control, by quire.Actor) (any, error) {
	out := map[string]string{}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	changes, err := ctl.Site.Watch(ctx, by, "")
	if err != nil {
		return nil, err
	}
	for {
		waiting, err := ctl.Site.Waiting(ctx, by)
		if err != nil {
			return nil, err
		}
		out["waiting"] = waiting
		if waiting == "" {
			break
		}
		if _, more := <-changes; !more {
			break
		}
	}
	ctx = context.WithoutCancel(ctx)
	if needed, err := ctl.Users.SetupNeeded(ctx); err != nil || !needed {
		return out, err
	}
	secret, err := ctl.Users.NewSetupLink(ctx, by)
	out["setup"] = secret
	return out, err
}

func startProject(ctx context.Context, ctl *control.Control, by quire.Actor, owner, name string) (*quire.Work, error) {
	p, err := ctl.Projects.ByName(ctx, by, owner, name)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	changes, err := ctl.Site.Watch(ctx, by, p.ID)
	if err != nil {
		return nil, err
	}
	if err := ctl.Projects.Start(ctx, by, p.ID); err != nil {
		return nil, err
	}
	for {
		w, err := ctl.Sessions.Timeline(ctx, by, p.ID)
		if err != nil || w == nil || w.Ended != nil {
			return w, err
		}
		if _, more := <-changes; !more {
			return w, quire.Unavailable("It takes long; the project's page shows how it goes on.", ctx.Err())
		}
	}
}
