package terminal

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"quire/apps"

	"github.com/coder/websocket"
)

const patience = 20 * time.Second

// A world is the app as it runs: its own socket, real shells.
type world struct {
	t      *testing.T
	desk   *desk
	socket string
	dir    string
	stop   func() error // ends the app and waits
}

func newWorld(t *testing.T) *world {
	t.Helper()
	// A test run under nohup would hand its deafness to hang-ups on to every shell.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)
	dir, err := os.MkdirTemp("", "quire-term") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.WriteFile(filepath.Join(dir, ".bashrc"), []byte("PS1='$ '; bind 'set enable-bracketed-paste off'\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, socket: filepath.Join(dir, "app.sock"), dir: dir}
	l, err := apps.Listen(w.socket)
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	env := append(apps.TerminalEnvironment(os.Environ()), "HOME="+dir, "HISTFILE=")
	w.desk = newDesk(Command{Path: "/bin/bash", Dir: dir, Env: env}, log)
	w.desk.grace = 300 * time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- serveOn(ctx, l, "/p/terminal", w.desk, log) }()
	w.stop = sync.OnceValue(func() error {
		cancel()
		select {
		case err := <-done:
			return err
		case <-time.After(patience):
			return errors.New("the app does not end")
		}
	})
	t.Cleanup(func() {
		if err := w.stop(); err != nil {
			t.Error(err)
		}
	})
	return w
}

func (w *world) client() *http.Client {
	return &http.Client{
		Timeout:       patience,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", w.socket)
		}},
	}
}

func (w *world) get(path string) *http.Response {
	w.t.Helper()
	res, err := w.client().Get("http://apps.test" + path)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { res.Body.Close() })
	return res
}

func (w *world) dial(query string, origins ...string) (*websocket.Conn, *http.Response, error) {
	client := w.client()
	client.Timeout = 0
	return websocket.Dial(w.t.Context(), "ws://apps.test/p/terminal/socket"+query, &websocket.DialOptions{HTTPClient: client, HTTPHeader: http.Header{"Origin": origins}})
}

func (w *world) mustDial(query string) *websocket.Conn {
	w.t.Helper()
	conn, _, err := w.dial(query, "http://apps.test")
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { conn.CloseNow() })
	conn.SetReadLimit(1 << 20)
	return conn
}

// A pageLink is the test's side of a link.
type pageLink struct {
	t    *testing.T
	conn *websocket.Conn
	tag  int
	tabs []tab
	boot string
	seen []answer
}

func (w *world) link() *pageLink {
	l := &pageLink{t: w.t, conn: w.mustDial("")}
	l.until("the first list", func() bool { return l.boot != "" })
	return l
}

func (l *pageLink) until(what string, ok func() bool) {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), patience)
	defer cancel()
	for !ok() {
		_, p, err := l.conn.Read(ctx)
		if err != nil {
			l.t.Fatalf("waiting for %s: %v", what, err)
		}
		var m struct {
			Boot   string
			Shells []tab
			answer
		}
		if err := json.Unmarshal(p, &m); err != nil {
			l.t.Fatal(err)
		}
		if m.Boot != "" {
			l.boot, l.tabs = m.Boot, m.Shells
		}
		if m.Tag != 0 {
			l.seen = append(l.seen, m.answer)
		}
	}
}

func (l *pageLink) ask(c command) (a answer) {
	l.t.Helper()
	l.tag++
	c.Tag = l.tag
	p, err := json.Marshal(c)
	if err != nil {
		l.t.Fatal(err)
	}
	if err := l.conn.Write(l.t.Context(), websocket.MessageText, p); err != nil {
		l.t.Fatal(err)
	}
	l.until("an answer", func() bool {
		for _, s := range l.seen {
			if s.Tag == c.Tag {
				a = s
				return true
			}
		}
		return false
	})
	return a
}

// A pageShell is the test's side of a visitor. It reads on its own unless it
// was made to be slow.
type pageShell struct {
	t    *testing.T
	conn *websocket.Conn

	mu      sync.Mutex
	changed chan struct{} // closed and replaced at each change
	from    int64         // offset of got[0]
	got     []byte
	begins  []begin
	state   condition
	notices []string
	err     error
}

func (w *world) visit(id string, at int64) *pageShell {
	w.t.Helper()
	p := w.lazyVisit(id, at)
	go p.read()
	p.await("the state", func() bool { return p.state.Cols > 0 })
	return p
}

// lazyVisit joins and reads nothing until read is called.
func (w *world) lazyVisit(id string, at int64) *pageShell {
	w.t.Helper()
	conn := w.mustDial("?" + url.Values{"shell": {id}, "at": {strconv.FormatInt(at, 10)}}.Encode())
	return &pageShell{t: w.t, conn: conn, changed: make(chan struct{})}
}

func (p *pageShell) read() {
	for {
		kind, b, err := p.conn.Read(context.Background())
		p.mu.Lock()
		if err != nil {
			p.err = err
			p.change()
			p.mu.Unlock()
			return
		}
		shown := int64(-1)
		if kind == websocket.MessageBinary {
			p.got = append(p.got, b...)
			shown = p.from + int64(len(p.got))
		} else {
			var m message
			if err := json.Unmarshal(b, &m); err != nil {
				p.err = err
			}
			if m.Begin != nil {
				p.begins = append(p.begins, *m.Begin)
				p.from, p.got = m.Begin.At, nil
			}
			if m.State != nil {
				p.state = *m.State
			}
			if m.Notice != "" {
				p.notices = append(p.notices, m.Notice)
			}
		}
		p.change()
		p.mu.Unlock()
		if shown >= 0 {
			p.report(report{Shown: &shown})
		}
	}
}

func (p *pageShell) change() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// await waits until ok, called with the lock held, is true.
func (p *pageShell) await(what string, ok func() bool) {
	p.t.Helper()
	deadline := time.After(patience)
	for {
		p.mu.Lock()
		if ok() {
			p.mu.Unlock()
			return
		}
		changed, err, tail := p.changed, p.err, string(p.got[max(0, len(p.got)-300):])
		p.mu.Unlock()
		if err != nil {
			p.t.Fatalf("waiting for %s: %v; last output %q", what, err, tail)
		}
		select {
		case <-changed:
		case <-deadline:
			p.t.Fatalf("%s did not come; last output %q", what, tail)
		}
	}
}

func (p *pageShell) awaitText(text string) {
	p.t.Helper()
	p.await(strconv.Quote(text), func() bool { return bytes.Contains(p.got, []byte(text)) })
}

// ends waits for the socket's end and returns its status.
func (p *pageShell) ends() websocket.StatusCode {
	p.t.Helper()
	var status websocket.StatusCode
	deadline := time.After(patience)
	for {
		p.mu.Lock()
		changed, err := p.changed, p.err
		p.mu.Unlock()
		if err != nil {
			status = websocket.CloseStatus(err)
			return status
		}
		select {
		case <-changed:
		case <-deadline:
			p.t.Fatal("the socket stays open")
		}
	}
}

func (p *pageShell) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return string(p.got)
}

func (p *pageShell) end() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.from + int64(len(p.got))
}

func (p *pageShell) enter(text string) {
	if err := p.conn.Write(context.Background(), websocket.MessageBinary, []byte(text)); err != nil {
		p.t.Error(err)
	}
}

// report may fail: the socket may have ended meanwhile.
func (p *pageShell) report(r report) {
	b, err := json.Marshal(r)
	if err != nil {
		p.t.Error(err)
	}
	_ = p.conn.Write(context.Background(), websocket.MessageText, b)
}

func (p *pageShell) resize(cols, rows int, claim bool) {
	p.report(report{Resize: &[2]int{cols, rows}, Claim: claim})
}

func (p *pageShell) leave() { p.conn.Close(websocket.StatusNormalClosure, "") }

// number runs a command that prints WORD=number and returns the number.
func (p *pageShell) number(word, command string) int {
	p.t.Helper()
	p.enter(command + "\n")
	n := 0
	p.await(word, func() bool {
		_, after, ok := strings.Cut(string(p.got), "\n"+word+"=")
		digits, _, whole := strings.Cut(after, "\r")
		if ok && whole {
			n, _ = strconv.Atoi(digits)
		}
		return n > 0
	})
	return n
}
