package viewer

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"quire/apps"

	"golang.org/x/net/html"
)

const patience = 30 * time.Second

// TestMain lets the test's binary be the process that renders.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "viewer" {
		os.Exit(Main(os.Args[2:]))
	}
	os.Exit(m.Run())
}

// A world is the app as it runs: its own socket, real processes that render.
type world struct {
	t      *testing.T
	socket string
	dir    string // the project
}

func newWorld(t *testing.T) *world {
	// The program that make has built renders many times faster than this one,
	// which the race detector slows down; it also needs more memory than a
	// renderer may have.
	program := os.Args[0]
	if built, err := filepath.Abs("../../bin/quire"); err == nil {
		if _, err := os.Stat(built); err == nil {
			program = built
		}
	}
	return newWorldWith(t, 0, program, "viewer", "--render", "--memory", "0")
}

func newWorldWith(t *testing.T, limit time.Duration, render ...string) *world {
	t.Helper()
	top, err := os.MkdirTemp("", "quire-view") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(top) })
	w := &world{t: t, socket: filepath.Join(top, "app.sock"), dir: filepath.Join(top, "project")}
	if err := os.Mkdir(w.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	h, err := newSite(config{Prefix: "/p/viewer", Dir: w.dir, Project: "Ada’s <b>work</b>", Account: "ada", Render: render, Log: log, Time: limit})
	if err != nil {
		t.Fatal(err)
	}
	l, err := apps.Listen(w.socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- serveOn(ctx, l, h, log) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(patience):
			t.Error("the app does not end")
		}
	})
	return w
}

// put writes a file of the project, with the directories it is in.
func (w *world) put(name, content string) {
	w.t.Helper()
	to := filepath.Join(w.dir, name)
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(to, []byte(content), 0o644); err != nil {
		w.t.Fatal(err)
	}
}

type answer struct {
	status int
	header http.Header
	body   string
}

// ask sends a path as it is, without any client's cleaning.
func (w *world) ask(method, path string, headers ...string) answer {
	w.t.Helper()
	var d net.Dialer
	c, err := d.DialContext(w.t.Context(), "unix", w.socket)
	if err != nil {
		w.t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	var b bytes.Buffer
	b.WriteString(method + " " + path + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAccept: text/html\r\nSec-Fetch-Dest: document\r\n")
	for _, h := range headers {
		b.WriteString(h + "\r\n")
	}
	b.WriteString("\r\n")
	if _, err := c.Write(b.Bytes()); err != nil {
		w.t.Fatal(err)
	}
	r, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: method})
	if err != nil {
		w.t.Fatalf("%s %q: %v", method, path, err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		w.t.Fatalf("%s %q: %v", method, path, err)
	}
	return answer{r.StatusCode, r.Header, string(body)}
}

func (w *world) get(path string) answer {
	w.t.Helper()
	return w.ask("GET", "/p/viewer"+path)
}

// page gets a page that must be there and must be harmless.
func (w *world) page(path string) string {
	w.t.Helper()
	a := w.get(path)
	if a.status != 200 {
		w.t.Fatalf("%s answers %d:\n%s", path, a.status, a.body)
	}
	w.harmless(path, a)
	return a.body
}

// harmless parses a page and fails for everything in it that could do, load or
// pretend something, and for every identity that is not ours.
func (w *world) harmless(what string, a answer) {
	w.t.Helper()
	if csp := a.header.Get("Content-Security-Policy"); csp != pagePolicy {
		w.t.Errorf("%s has the policy %q", what, csp)
	}
	if a.header.Get("X-Content-Type-Options") != "nosniff" || a.header.Get("Set-Cookie") != "" {
		w.t.Errorf("%s has the headers %v", what, a.header)
	}
	doc, err := html.Parse(strings.NewReader(a.body))
	if err != nil {
		w.t.Fatal(err)
	}
	for n := range doc.Descendants() {
		if n.Type == html.CommentNode {
			w.t.Errorf("%s has a comment: %q", what, n.Data)
		}
		if n.Type == html.ElementNode {
			for _, wrong := range trouble(n) {
				var b strings.Builder
				n.FirstChild = nil
				html.Render(&b, n)
				w.t.Errorf("%s: %s in %s", what, wrong, cut(b.String(), 300))
			}
		}
	}
}

func trouble(n *html.Node) (wrong []string) {
	say := func(s string) { wrong = append(wrong, s) }
	if n.Namespace != "" {
		say("foreign markup")
	}
	at := map[string]string{}
	for _, a := range n.Attr {
		at[a.Key] = a.Val
		switch {
		case strings.HasPrefix(a.Key, "on"), a.Key == "style", a.Key == "srcdoc", a.Key == "formaction", a.Key == "srcset", a.Key == "background",
			a.Key == "ping", a.Key == "poster", a.Key == "is", a.Key == "slot", a.Key == "nonce", a.Key == "contenteditable", a.Key == "autofocus", a.Key == "accesskey", a.Namespace != "":
			say("attribute " + a.Key)
		case strings.HasPrefix(a.Key, "data-") && a.Key != "data-line":
			say("attribute " + a.Key)
		case a.Key == "id" && a.Val != "content" && a.Val != "find" && a.Val != "find-error" && !lineAnchor(a.Val) && !strings.HasPrefix(a.Val, "s-"):
			say("identity " + a.Val)
		case a.Key == "name" && n.Data != "meta" && !(n.Data == "input" && a.Val == "find"):
			say("name " + a.Val)
		case a.Key == "target" && (a.Val != "_blank" || !strings.Contains(valueOf(n, "rel"), "noopener")):
			say("target " + a.Val)
		case a.Key == "href" && n.Data == "link":
			if !strings.HasPrefix(a.Val, "/p/viewer/_viewer/assets/") {
				say("loads " + a.Val)
			}
		case a.Key == "href" && n.Data == "a":
			low := strings.ToLower(a.Val)
			if !strings.HasPrefix(low, "/p/viewer") && !strings.HasPrefix(low, "#") && !strings.HasPrefix(low, "http://") && !strings.HasPrefix(low, "https://") && !strings.HasPrefix(low, "mailto:") || strings.HasPrefix(low, "//") {
				say("link to " + a.Val)
			}
		case a.Key == "href":
			say("attribute href")
		case a.Key == "src" && (n.Data == "img" || n.Data == "audio" || n.Data == "video"):
			if !strings.HasPrefix(a.Val, "/p/viewer/") && !strings.HasPrefix(a.Val, "data:image/") {
				say("loads " + a.Val)
			}
		case a.Key == "src" && n.Data == "script":
			if !strings.HasPrefix(a.Val, "/p/viewer/_viewer/assets/") || n.FirstChild != nil {
				say("script " + a.Val)
			}
		case a.Key == "src":
			say("attribute src")
		case a.Key == "action" && !strings.HasPrefix(a.Val, "/p/viewer"):
			say("sends to " + a.Val)
		}
	}
	switch n.Data {
	case "iframe", "frame", "object", "embed", "applet", "base", "style", "svg", "math", "template", "noscript", "select", "textarea", "dialog", "portal", "marquee", "bgsound", "animate", "set", "foreignobject", "slot":
		say("element " + n.Data)
	case "script":
		if at["src"] == "" {
			say("inline script")
		}
	case "meta":
		if at["http-equiv"] != "" {
			say("http-equiv")
		}
	case "form":
		if at["class"] != "find" {
			say("a form")
		}
	case "button", "input":
		if n.Parent == nil || n.Parent.Data != "form" || valueOf(n.Parent, "class") != "find" {
			say("a control")
		}
	}
	return wrong
}

func valueOf(n *html.Node, key string) string { return value(n.Attr, key) }

// said is what a page says.
func said(t *testing.T, page string) string {
	doc, err := html.Parse(strings.NewReader(page))
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for n := range doc.Descendants() {
		if n.Type == html.TextNode {
			b.WriteString(n.Data)
		}
	}
	return b.String()
}

// binary builds the product without the race detector, whose memory no limit
// could hold.
func binary(t *testing.T) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "quire")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", out, "quire/cmd/quire")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return out
}
