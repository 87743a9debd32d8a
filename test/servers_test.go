package test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// Two servers on one PostgreSQL are one installation, behind a proxy or an address
// that leads to either. One of them dies in the middle of a start; nobody notices.
func TestTwoServers(t *testing.T) {
	s := New(t)
	ctx := within(t, 4*time.Minute)
	pg, err := NewPostgres()
	if err != nil {
		t.Fatal(err)
	}
	const second = "/etc/quire2/second.conf"
	other := &Site{Binary: s.Binary, t: t}
	t.Cleanup(func() {
		if other.cmd != nil {
			other.End()
		}
		s.End()
		if err := pg.Remove(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			logs, _ := exec.Command("sh", "-c", "tail -n 40 /var/log/quire2/*.log").CombinedOutput()
			t.Logf("the second server: %s", logs)
		}
	})
	write := func(file, text string, mode os.FileMode) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{"/etc/quire2", "/var/lib/quire2", "/var/log/quire2", "/run/quire2"} {
		if err := errors.Join(os.RemoveAll(dir), os.MkdirAll("/etc/quire2", 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	const secret = "/etc/quire/database.password"
	write(secret, pg.Password+"\n", 0o400)
	database := fmt.Sprintf(`"database": %q, "database_password_file": %q, "portal": "http://quire.localhost:8080", "apps": "http://*.apps.localhost:8089"`, pg.URL("quire", false), secret)
	write("/etc/quire/quire.conf", `{`+database+`, "proxies": ["127.0.0.1"], "listen": {"portal": "127.0.0.1:8080", "gateway": "127.0.0.1:8089"}}`, 0o644)
	// The account is made by the first start, which needs the file to be its own.
	exec.Command("useradd", "-r", "-M", "-s", "/usr/sbin/nologin", "quire-server").Run()
	if out, err := exec.Command("chown", "quire-server", secret).CombinedOutput(); err != nil {
		t.Fatal(string(out))
	}
	s.Start()

	// The second server's machine: its configuration, and the keys.
	write(second, `{"roles": ["server", "worker"], `+database+`, "proxies": ["127.0.0.1"], "listen": {"portal": "127.0.0.1:8090"},
		"dirs": {"data": "/var/lib/quire2", "run": "/run/quire2", "logs": "/var/log/quire2", "site": "/etc/quire2", "projects": "/projects"}}`, 0o644)
	if out, err := s.Run("", "config", "check", second); err != nil {
		t.Fatal(out)
	}
	os.Remove("/root/quire-keys.tar")
	if out, err := s.Run("", "server", "keys", "save", "/root/quire-keys.tar"); err != nil {
		t.Fatal(out)
	}
	if info, err := os.Stat("/root/quire-keys.tar"); err != nil || info.Mode() != 0o600 {
		t.Errorf("the keys: %v %v", info.Mode(), err)
	}
	if out, err := s.Run("", "server", "keys", "load", "/root/quire-keys.tar"); err == nil || !strings.Contains(out, "there already") {
		t.Errorf("keys over keys: %v %s", err, out)
	}
	if out, err := s.Run("", "server", "keys", "load", "-c", second, "/root/quire-keys.tar"); err != nil {
		t.Fatal(out)
	}
	other.Start("-c", second)
	status := func(config string) (list []roleState) {
		t.Helper()
		out, err := s.Run("", "status", "--json", "-c", config)
		if err := errors.Join(err, json.Unmarshal([]byte(out), &list)); err != nil {
			t.Fatalf("%v %s", err, out)
		}
		return list
	}
	var roles []string
	for _, r := range status(second) {
		roles = append(roles, r.Name+" "+r.State)
	}
	if got := strings.Join(roles, ", "); got != "up running, worker running, server running" {
		t.Errorf("status of the second: %s", got)
	}
	Eventually(t, 20*time.Second, "the worker does the works", func() error {
		b, err := os.ReadFile("/var/log/quire2/worker.log")
		if err == nil && !strings.Contains(string(b), "does the works now") {
			err = errors.New(string(b))
		}
		return err
	})

	nginxBefore(t, "8070", "127.0.0.1:8080", "127.0.0.1:8090")
	var only atomic.Int64 // a port, for what is asked of one server; 0: NGINX chooses
	balanced := func(b *Browser) *Browser {
		b.dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			if strings.HasSuffix(addr, ":8080") {
				port := only.Load()
				if port == 0 {
					port = 8070
				}
				addr = fmt.Sprint("quire.localhost:", port)
			}
			return loopback(ctx, network, addr)
		}
		b.http.Transport.(*http.Transport).DisableKeepAlives = true
		return b
	}
	ada := balanced(s.Admin(ctx, "ada", password)) // signed in by the first
	only.Store(8090)
	running(t, ctx, ada, "/ada/Welcome") // seen by the second
	only.Store(0)
	n, err := ada.OpenNotebook(ctx, "/ada/Welcome")
	if err != nil {
		t.Fatal(err)
	}
	kernel, _ := cell(ctx, t, n, "treasure = 'gold'")

	// A page of the second hears at once what is done through the first.
	only.Store(8090)
	waits, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	news, err := ada.listen(waits, "/events")
	if err != nil {
		t.Fatal(err)
	}
	only.Store(8080)
	if err := ada.API(ctx, "POST", "/projects", map[string]any{"name": "Fresh"}, nil); err != nil {
		t.Fatal(err)
	}
	heard := false
	for line := range news {
		if heard = strings.Contains(line, "/ada/Fresh"); heard {
			break
		}
	}
	cancel()
	if !heard {
		t.Error("the page of the second server heard nothing")
	}
	only.Store(0)

	// The worker is stopped for good, the servers stand in. The one that does is
	// killed in the middle of a start.
	if out, err := s.Run("", "stop", "-c", second, "worker"); err != nil {
		t.Fatal(out)
	}
	if err := ada.API(ctx, "POST", "/projects", map[string]any{"name": "Second"}, nil); err != nil {
		t.Fatal(err)
	}
	leads := func() (config string, pid int) {
		for config, dir := range map[string]string{"/etc/quire/quire.conf": "/var/log/quire", second: "/var/log/quire2"} {
			b, _ := os.ReadFile(dir + "/server.log")
			if strings.LastIndex(string(b), "does the works now") <= strings.LastIndex(string(b), "does no works any more") {
				continue
			}
			for _, r := range status(config) {
				if r.Name == "server" {
					return config, r.PID
				}
			}
		}
		return "", 0
	}
	var config string
	var pid int
	Eventually(t, 20*time.Second, "a server stands in", func() error {
		if config, pid = leads(); pid == 0 {
			return errors.New("none does")
		}
		return nil
	})
	survivor := int64(8090)
	if config == second {
		survivor = 8080
	}
	only.Store(survivor)
	if err := ada.API(ctx, "POST", "/projects/ada/Second/start", nil, nil); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	running(t, ctx, ada, "/ada/Second")
	still(ctx, t, n, kernel, "treasure", "'gold'")
	if _, err := ada.OpenNotebook(ctx, "/ada/Second"); err != nil {
		t.Error(err)
	}

	// The first is back by itself, beside the other.
	only.Store(8080 + 8090 - survivor)
	Eventually(t, 20*time.Second, "the one that died answers", func() error { return sessionIs(ctx, ada, "/ada/Second", "notebook", "running") })
	only.Store(0)
	for range 8 {
		if err := ada.API(ctx, "GET", "/me", nil, nil); err != nil {
			t.Error(err)
		}
	}
	// What is refused, and why.
	write("/etc/quire2/wrong.conf", `{"roles": ["server", "worker"]}`, 0o644)
	if out, err := s.Run("", "config", "check", "/etc/quire2/wrong.conf"); err == nil || !strings.Contains(out, "needs PostgreSQL") {
		t.Errorf("a worker on SQLite: %v %s", err, out)
	}
}

// nginxBefore runs an NGINX with the upstream that docs/admin/front.md gives for
// two servers, at their addresses here.
func nginxBefore(t *testing.T, port, first, second string) {
	t.Helper()
	doc, err := os.ReadFile("../docs/admin/front.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(doc), "upstream quire_portal {")
	block, _, ok := strings.Cut(rest, "```")
	if !ok || !strings.Contains(block, "192.0.2.11:8080") || !strings.Contains(block, "192.0.2.12:8080") {
		t.Fatalf("the example of two servers: %q", block)
	}
	upstream := "upstream quire_portal {" + strings.NewReplacer("192.0.2.11:8080", first, "192.0.2.12:8080", second).Replace(block)
	dir := t.TempDir()
	conf := `user www-data; pid nginx.pid; error_log stderr; worker_processes 1;
events {}
http {
  access_log off;
  ` + upstream + `
  server {
    listen 127.0.0.1:` + port + `;
    location / {
      proxy_pass http://quire_portal;
      proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
    }
  }
}
`
	if err := os.WriteFile(dir+"/nginx.conf", []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("nginx", "-p", dir, "-c", dir+"/nginx.conf", "-g", "daemon off;")
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
	})
	Eventually(t, 10*time.Second, "nginx listens", func() error {
		c, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err == nil {
			c.Close()
		}
		return err
	})
}

type roleState struct {
	Name  string `json:"name"`
	State string `json:"state"`
	PID   int    `json:"pid"`
}

// listen opens a page's stream and hands on its lines.
func (b *Browser) listen(ctx context.Context, path string) (<-chan string, error) {
	u, err := url.Parse(b.Portal + path)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, "GET", u.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Cookie", b.Cookies(u.Host))
	req.Header.Set("Sec-Fetch-Site", "same-origin")
	res, err := b.http.Transport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if res.StatusCode != 200 {
		res.Body.Close()
		return nil, errors.New(res.Status)
	}
	lines := make(chan string)
	go func() {
		defer close(lines)
		defer res.Body.Close()
		for sc := bufio.NewScanner(res.Body); sc.Scan(); {
			select {
			case lines <- sc.Text():
			case <-ctx.Done():
				return
			}
		}
	}()
	return lines, nil
}
