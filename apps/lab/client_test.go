package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"quire/apps"
)

// A client asks the app as it runs, on its own socket, over a project and a home.
type client struct {
	t                     *testing.T
	project, home, socket string
	http                  *http.Client
	server                *server
}

func newClient(t *testing.T, change ...func(*config)) *client {
	t.Helper()
	dir, err := os.MkdirTemp("", "quire-lab") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	c := &client{t: t, project: dir + "/project", home: dir + "/home", socket: dir + "/app.sock"}
	for _, d := range []string{c.project, c.home, dir + "/state"} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	conf := config{
		project: c.project, title: "engine", home: c.home, state: dir + "/state", base: "/p/lab",
		python: "/usr/bin/python3", log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	for _, f := range change {
		f(&conf)
	}
	s, err := newServer(conf)
	if err != nil {
		t.Fatal(err)
	}
	l, err := apps.Listen(c.socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- serveOn(ctx, l, s) }()
	c.server = s
	c.http = &http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", c.socket)
	}}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		s.close()
	})
	return c
}

func (c *client) do(method, at string, in any, header ...string) (*http.Response, []byte) {
	c.t.Helper()
	var body io.Reader
	switch in := in.(type) {
	case nil:
	case string:
		body = strings.NewReader(in)
	case io.Reader:
		body = in
	default:
		b, err := json.Marshal(in)
		if err != nil {
			c.t.Fatal(err)
		}
		body = bytes.NewReader(b)
	}
	r, err := http.NewRequest(method, "http://app.test/p/lab/"+at, body)
	if err != nil {
		c.t.Fatal(err)
	}
	r.Header.Set("Origin", "http://app.test")
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	answer, err := c.http.Do(r)
	if err != nil {
		c.t.Fatal(err)
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return answer, b
}

// ask expects a status and returns the object in the answer.
func (c *client) ask(status int, method, at string, in any, header ...string) object {
	c.t.Helper()
	answer, b := c.do(method, at, in, header...)
	if answer.StatusCode != status {
		c.t.Fatalf("%s %s: %d %.500s, want %d", method, at, answer.StatusCode, b, status)
	}
	var out object
	if len(b) > 0 {
		var v any
		if err := json.Unmarshal(b, &v); err != nil {
			c.t.Fatalf("%s %s: %s: %v", method, at, b, err)
		}
		out, _ = v.(object)
	}
	return out
}

func (c *client) write(name, content string) {
	c.t.Helper()
	if err := os.WriteFile(c.project+"/"+name, []byte(content), 0o644); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) read(name string) string {
	c.t.Helper()
	b, err := os.ReadFile(c.project + "/" + name)
	if err != nil {
		c.t.Fatal(err)
	}
	return string(b)
}
