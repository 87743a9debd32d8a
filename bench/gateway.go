package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"quire"
	"quire/gateway"
	"quire/ticket"
)

// gatewayOrigin is how the gateway under test is addressed: one label.
const appsOrigin = "http://*.apps.localhost:"

// serveGateway is the gateway alone, in front of the plain TCP backend that the
// peers get too. It prints its address, the Host to send and its cookie.
func serveGateway(ctx context.Context, args []string) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	port := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
	origins, err := quire.NewOrigins(quire.OriginConfig{Portal: "http://quire.localhost:1", Apps: appsOrigin + port})
	if err != nil {
		return err
	}
	signer := ticket.NewSigner()
	verify, err := ticket.NewVerifier(signer.Public())
	if err != nil {
		return err
	}
	key := make([]byte, 32)
	rand.Read(key)
	node, here := quire.NewNodeID(), quire.NewNodeID()
	g, err := gateway.New(gateway.Config{
		Node: here, Origins: origins, Verifier: verify, CookieKey: key, Log: slog.New(slog.DiscardHandler), Sockets: 20000,
		Dial: func(ctx context.Context, addr string, r quire.Route, grant []byte) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", args[0])
		},
		Renew: func(context.Context, string, quire.NodeID, []byte) error { return nil },
	})
	if err != nil {
		return err
	}
	route := quire.Route{
		Label: quire.NewLabel(), User: quire.NewUserID(), Project: quire.NewProjectID(), OwnerName: "ada", ProjectName: "p", UserName: "ada",
		App: "notebook", AppTitle: "Notebook", Permit: "write", Session: quire.NewSessionID(), Node: node, State: quire.SessionRunning,
	}
	down := make(chan quire.GatewayFeed, 1)
	down <- quire.GatewayFeed{Feed: quire.Feed{Full: true, Time: time.Now()}, Routes: []quire.Route{route}, Nodes: map[quire.NodeID]string{node: args[0]}}
	grant := ticket.Grant{
		Gateway: here, Node: node, User: route.User, Project: route.Project, Login: quire.NewLoginID(), Label: route.Label, Role: quire.RoleOwner,
	}
	sign := func() []byte {
		now := time.Now()
		grant.Issued, grant.Expires, grant.Grace = now, now.Add(ticket.GrantLife), now.Add(time.Hour)
		return signer.Grant(grant)
	}
	go func() {
		beat := time.NewTicker(time.Second)
		defer beat.Stop()
		for range beat.C {
			down <- quire.GatewayFeed{Feed: quire.Feed{Time: time.Now()}}
		}
	}()
	go g.Attach(ctx, down, func(rep quire.GatewayReport) {
		for _, ask := range rep.Renew {
			go func() { down <- quire.GatewayFeed{Renewed: []quire.Renewed{{N: ask.N, Grant: sign()}}} }()
		}
	})
	go g.Serve(l)
	cookie, host, err := enter(ctx, l.Addr().String(), origins, route.Label, here, signer, sign())
	if err != nil {
		return err
	}
	fmt.Printf("%s\n%s\n%s\n", l.Addr(), host, cookie)
	<-ctx.Done()
	return g.Close()
}

// enter does the hand-off as a browser does and returns the app's cookie.
func enter(ctx context.Context, addr string, origins quire.Origins, label quire.Label, gw quire.NodeID, signer *ticket.Signer, grant []byte) (cookie, host string, err error) {
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	u, err := url.Parse(origins.Origin(label))
	if err != nil {
		return "", "", err
	}
	ask := func(method, path, body string, cookies []*http.Cookie) (*http.Response, error) {
		req, err := http.NewRequestWithContext(ctx, method, "http://"+addr+path, strings.NewReader(body))
		if err != nil {
			return nil, err
		}
		req.Host = u.Host
		req.Header.Set("Accept", "text/html")
		req.Header.Set("Sec-Fetch-Site", "none")
		req.Header.Set("Sec-Fetch-Mode", "navigate")
		req.Header.Set("Sec-Fetch-Dest", "document")
		if body != "" {
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			req.Header.Set("Origin", origins.Portal())
			req.Header.Set("Sec-Fetch-Site", "cross-site")
		}
		for _, c := range cookies {
			req.AddCookie(c)
		}
		res, err := client.Do(req)
		if err == nil {
			io.Copy(io.Discard, res.Body)
			res.Body.Close()
		}
		return res, err
	}
	var nonce *http.Cookie
	for range 100 { // until the first feed has been heard
		res, err := ask("GET", "/notebook/", "", nil)
		if err != nil {
			return "", "", err
		}
		name, _, _ := origins.Cookie("nonce", label)
		for _, c := range res.Cookies() {
			if c.Name == name {
				nonce = c
			}
		}
		if nonce != nil {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if nonce == nil {
		return "", "", errors.New("the gateway gave no nonce")
	}
	now := time.Now()
	t := signer.Ticket(ticket.Ticket{ID: quire.NewOrderID(), Nonce: sha256.Sum256([]byte(nonce.Value)), Gateway: gw, Label: label, Grant: grant, Issued: now, Expires: now.Add(ticket.TicketLife)})
	form := url.Values{"ticket": {base64.RawURLEncoding.EncodeToString(t)}, "path": {"/notebook/"}}
	res, err := ask("POST", "/_quire/enter", form.Encode(), []*http.Cookie{nonce})
	if err != nil {
		return "", "", err
	}
	name, _, _ := origins.Cookie("app", label)
	for _, c := range res.Cookies() {
		if c.Name == name && c.Value != "" {
			return c.Name + "=" + c.Value, u.Host, nil
		}
	}
	return "", "", fmt.Errorf("the hand-off was answered with %s", res.Status)
}

const nginxConf = `worker_processes auto; worker_rlimit_nofile 65536; pid %[1]s/nginx.pid; error_log %[1]s/error.log; daemon off;
events { worker_connections 30000; }
http {
  access_log off; client_body_temp_path %[1]s; proxy_temp_path %[1]s; fastcgi_temp_path %[1]s; uwsgi_temp_path %[1]s; scgi_temp_path %[1]s;
  upstream backend { server %[2]s; keepalive 256; }
  map $http_upgrade $connection_upgrade { default upgrade; '' ''; }
  server {
    listen %[3]s;
    location / {
      proxy_pass http://backend; proxy_http_version 1.1; proxy_set_header Host $host;
      proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade;
      proxy_set_header X-Forwarded-For $remote_addr;
    }
  }
}
`

// A target is one proxy to be loaded.
type target struct {
	name, addr string
	headers    []string
	path, ws   string
	pid        int
	http, msgs []float64
}

// A field is the backend and all that is put in front of it.
type field struct {
	targets  []*target
	host     string // to be sent to the gateway
	children []*child
	dir      string
}

func (f *field) end() {
	for _, c := range f.children {
		c.end()
	}
	os.RemoveAll(f.dir)
}

// newField starts the gateway, NGINX and configurable-http-proxy in front of one
// backend.
func newField(ctx context.Context) (f *field, err error) {
	f = &field{}
	defer func() {
		if err != nil {
			f.end()
		}
	}()
	self, err := os.Executable()
	if err != nil {
		return f, err
	}
	if f.dir, err = os.MkdirTemp("", "quire-bench"); err != nil {
		return f, err
	}
	start := func(n int, name string, args ...string) (*child, error) {
		c, err := begin(n, name, args...)
		if err == nil {
			f.children = append(f.children, c)
		}
		return c, err
	}
	backend, err := start(1, self, "serve-backend")
	if err != nil {
		return f, err
	}
	gw, err := start(3, self, "serve-gateway", backend.lines[0])
	if err != nil {
		return f, err
	}
	nginx, err := freePort()
	if err != nil {
		return f, err
	}
	conf := filepath.Join(f.dir, "nginx.conf")
	if err := os.WriteFile(conf, []byte(fmt.Sprintf(nginxConf, f.dir, backend.lines[0], nginx)), 0o644); err != nil {
		return f, err
	}
	if err := os.Chmod(f.dir, 0o777); err != nil { // nginx's workers are another account
		return f, err
	}
	front, err := start(0, "nginx", "-p", f.dir, "-c", conf)
	if err != nil {
		return f, err
	}
	chp, err := startCHP(start, backend.lines[0])
	if err != nil {
		return f, err
	}
	node := f.children[len(f.children)-1]
	host, cookie := gw.lines[1], gw.lines[2]
	f.host = host
	f.targets = []*target{
		{name: "quire", addr: gw.lines[0], headers: []string{"Host: " + host, "Cookie: " + cookie, "Sec-Fetch-Site: same-origin"}, path: "/notebook/x", ws: "/notebook/ws", pid: gw.cmd.Process.Pid},
		{name: "nginx", addr: nginx, path: "/x", ws: "/ws", pid: front.cmd.Process.Pid},
		{name: "chp", addr: chp, path: "/x", ws: "/ws", pid: node.cmd.Process.Pid},
		{name: "direct", addr: backend.lines[0], path: "/x", ws: "/ws", pid: backend.cmd.Process.Pid},
	}
	for _, t := range f.targets {
		if err := answering(ctx, t.addr); err != nil {
			return f, fmt.Errorf("%s: %w", t.name, err)
		}
	}
	return f, nil
}

func benchGateway(ctx context.Context) error {
	f, err := newField(ctx)
	if err != nil {
		return err
	}
	defer f.end()
	targets, host := f.targets, f.host
	const rounds = 5
	for r := range rounds {
		for _, t := range targets {
			rps, err := wrk(ctx, t)
			if err != nil {
				return err
			}
			t.http = append(t.http, rps)
			if t.name == "chp" {
				continue // its WebSockets are no bound of ours
			}
			mps, err := echo(ctx, t, host)
			if err != nil {
				return fmt.Errorf("%s: %w", t.name, err)
			}
			t.msgs = append(t.msgs, mps)
		}
		note("round %d of %d: quire %.0f, nginx %.0f, configurable-http-proxy %.0f requests/s; quire %.0f, nginx %.0f messages/s",
			r+1, rounds, targets[0].http[r], targets[1].http[r], targets[2].http[r], targets[0].msgs[r], targets[1].msgs[r])
	}
	q, n, c, d := targets[0], targets[1], targets[2], targets[3]
	report("http_rps_vs_chp", median(q.http), "requests/s", median(c.http))
	report("http_rps_vs_nginx", median(q.http), "requests/s", median(n.http))
	report("ws_msgs_vs_nginx", median(q.msgs), "messages/s", median(n.msgs))
	report("http_rps_of_direct", median(q.http), "requests/s", median(d.http))
	return nil
}

func startCHP(start func(int, string, ...string) (*child, error), backend string) (string, error) {
	peers, err := filepath.Abs("bench/peers")
	if err != nil {
		return "", err
	}
	bin := filepath.Join(peers, "node_modules/.bin/configurable-http-proxy")
	if _, err := os.Stat(bin); err != nil {
		npm := exec.Command("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
		npm.Dir, npm.Stderr = peers, os.Stderr
		if err := npm.Run(); err != nil {
			return "", fmt.Errorf("installing configurable-http-proxy: %w", err)
		}
	}
	addr, err := freePort()
	if err != nil {
		return "", err
	}
	api, err := freePort()
	if err != nil {
		return "", err
	}
	_, port, _ := net.SplitHostPort(addr)
	_, apiPort, _ := net.SplitHostPort(api)
	_, err = start(0, bin, "--ip", "127.0.0.1", "--port", port, "--api-ip", "127.0.0.1", "--api-port", apiPort, "--default-target", "http://"+backend, "--log-level", "error")
	return addr, err
}

var perSecond = regexp.MustCompile(`Requests/sec:\s+([0-9.]+)`)
var notOK = regexp.MustCompile(`Non-2xx or 3xx responses: (\d+)`)

// wrk loads a target with 64 connections for three seconds.
func wrk(ctx context.Context, t *target) (float64, error) {
	args := []string{"-t1", "-c64", "-d3s"}
	for _, h := range t.headers {
		args = append(args, "-H", h)
	}
	out, err := exec.CommandContext(ctx, "wrk", append(args, "http://"+t.addr+t.path)...).CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("wrk: %s: %w", out, err)
	}
	if m := notOK.FindSubmatch(out); m != nil {
		return 0, fmt.Errorf("%s: %s answers were errors", t.name, m[1])
	}
	m := perSecond.FindSubmatch(out)
	if m == nil {
		return 0, fmt.Errorf("wrk: %s", out)
	}
	return strconv.ParseFloat(string(m[1]), 64)
}
