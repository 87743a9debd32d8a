package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/coder/websocket"
	"golang.org/x/sys/unix"

	"quire"
	"quire/apps"
	"quire/apps/files"
)

const (
	maxTerminals = 50
	maxScreen    = 256 << 10 // bytes of output of one terminal that are kept
	maxTyped     = 1 << 20   // bytes of one message of a page
	typeWithin   = 10 * time.Second
	hangUpWithin = 2 * time.Second
)

// terminals are the shells of JupyterLab's terminal tabs. They end with the app,
// as Jupyter's do; the Terminal app has shells that last.
type terminals struct {
	mu     sync.Mutex
	list   map[string]*terminal
	closed bool
}

type terminal struct {
	name           string
	cmd            *exec.Cmd
	pty            *os.File
	drained, ended chan struct{}

	mu     sync.Mutex
	out    []byte        // the end of what was said
	start  int64         // where out begins in all of it
	news   chan struct{} // closed when there is more, and replaced
	over   bool
	reaped bool
	active time.Time
	sizes  map[*websocket.Conn][2]int // columns and rows of each page
}

var terminalForm = regexp.MustCompile(`^\w{1,64}$`)

func (s *server) terminalRoutes(r routes) {
	r.on("GET /api/terminals", s.serveTerminals)
	r.on("POST /api/terminals", s.openTerminal)
	r.on("GET /api/terminals/{name}", s.serveTerminal)
	r.on("DELETE /api/terminals/{name}", s.closeTerminal)
	r.on("GET /terminals/websocket/{name}", s.serveScreen)
}

func (t *terminal) model() object {
	t.mu.Lock()
	defer t.mu.Unlock()
	return object{"name": t.name, "last_activity": t.active.UTC().Format(stamp)}
}

func (s *server) serveTerminals(w http.ResponseWriter, _ *http.Request) error {
	s.terminals.mu.Lock()
	defer s.terminals.mu.Unlock()
	out := []object{}
	for _, name := range keys(s.terminals.list) {
		out = append(out, s.terminals.list[name].model())
	}
	answer(w, http.StatusOK, out)
	return nil
}

func (s *server) openTerminal(w http.ResponseWriter, r *http.Request) error {
	var in struct{ Name, Cwd string }
	if err := ask(w, r, 1<<16, &in); err != nil {
		return err
	}
	if in.Name != "" && !terminalForm.MatchString(in.Name) {
		return quire.Invalid("name", "A terminal's name has letters, digits and _ only.")
	}
	dir := s.project
	if in.Cwd != "" {
		// JupyterLab sends where its file browser is, in the project or in full.
		p, err := apiPath(strings.TrimPrefix(in.Cwd, s.project))
		if err != nil {
			return err
		}
		if real, info, err := s.look(p); err == nil && info.Kind == files.Directory {
			dir = filepath.Join(s.project, real)
		}
	}
	t, err := s.terminals.open(r.Context(), in.Name, dir)
	if err != nil {
		return err
	}
	answer(w, http.StatusOK, t.model())
	return nil
}

func (ts *terminals) open(ctx context.Context, name, dir string) (*terminal, error) {
	shell := apps.LoginShell(ctx) // the directory of accounts may be slow
	ts.mu.Lock()
	defer ts.mu.Unlock()
	switch {
	case ts.closed:
		return nil, quire.Unavailable("JupyterLab is ending. Try again in a moment.", nil)
	case ts.list[name] != nil:
		return ts.list[name], nil
	case len(ts.list) >= maxTerminals:
		return nil, &quire.Error{Kind: quire.KindTooMany, Message: fmt.Sprintf("There are %d terminals already. Close some first.", maxTerminals)}
	}
	for i := 1; name == ""; i++ {
		if n := strconv.Itoa(i); ts.list[n] == nil {
			name = n
		}
	}
	cmd := &exec.Cmd{Path: shell, Args: []string{filepath.Base(shell)}, Dir: dir, Env: apps.TerminalEnvironment(os.Environ())}
	pty, err := apps.StartOnPty(cmd, 80, 24)
	if err != nil {
		return nil, err
	}
	t := &terminal{name: name, cmd: cmd, pty: pty, drained: make(chan struct{}), ended: make(chan struct{}), news: make(chan struct{}), active: time.Now(), sizes: map[*websocket.Conn][2]int{}}
	ts.list[name] = t
	go t.drain()
	go func() {
		t.wait()
		ts.mu.Lock()
		delete(ts.list, t.name)
		ts.mu.Unlock()
		close(t.ended)
	}()
	return t, nil
}

func (ts *terminals) find(name string) (*terminal, error) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if t := ts.list[name]; t != nil {
		return t, nil
	}
	return nil, &quire.Error{Kind: quire.KindNotFound, Message: "Terminal not found: " + strings.ToValidUTF8(name, "\uFFFD")}
}

// close ends every shell.
func (ts *terminals) close() {
	ts.mu.Lock()
	ts.closed = true
	var all []*terminal
	for _, t := range ts.list {
		all = append(all, t)
	}
	ts.mu.Unlock()
	var wait sync.WaitGroup
	for _, t := range all {
		wait.Go(t.end)
	}
	wait.Wait()
}

// drain keeps what the programs say. It never waits for a page: one that is too
// slow finds a part left out.
func (t *terminal) drain() {
	defer close(t.drained)
	b := make([]byte, 32<<10)
	for {
		n, err := t.pty.Read(b)
		t.mu.Lock()
		t.out = append(t.out, b[:n]...)
		if more := len(t.out) - maxScreen; more > 0 {
			t.out = slices.Delete(t.out, 0, more)
			t.start += int64(more)
		}
		t.active = time.Now()
		t.over = t.over || err != nil
		close(t.news)
		t.news = make(chan struct{})
		t.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// wait reaps the shell, after its last output: something else may still hold its
// pty, which gets a moment.
func (t *terminal) wait() {
	// Until it is reaped, its number is its own and may be signaled.
	for errors.Is(unix.Waitid(unix.P_PID, t.cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil), unix.EINTR) {
	}
	t.mu.Lock()
	t.reaped = true
	t.cmd.Wait()
	t.mu.Unlock()
	select {
	case <-t.drained:
	case <-time.After(time.Second):
	}
	t.pty.Close()
	<-t.drained
}

// end hangs up, and kills what stays.
func (t *terminal) end() {
	signal := func(send func(pid int)) {
		t.mu.Lock()
		defer t.mu.Unlock()
		if !t.reaped {
			send(t.cmd.Process.Pid)
		}
	}
	signal(apps.HangUp)
	select {
	case <-t.ended:
		return
	case <-time.After(hangUpWithin):
	}
	signal(func(int) { t.cmd.Process.Kill() })
	<-t.ended
}

func (s *server) serveTerminal(w http.ResponseWriter, r *http.Request) error {
	t, err := s.terminals.find(r.PathValue("name"))
	if err != nil {
		return err
	}
	answer(w, http.StatusOK, t.model())
	return nil
}

func (s *server) closeTerminal(w http.ResponseWriter, r *http.Request) error {
	t, err := s.terminals.find(r.PathValue("name"))
	if err != nil {
		return err
	}
	t.end()
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// serveScreen speaks with one page as terminado does: lists in JSON, whose first
// word says what they are.
func (s *server) serveScreen(w http.ResponseWriter, r *http.Request) error {
	t, err := s.terminals.find(r.PathValue("name"))
	if err != nil {
		return err
	}
	c, err := websocket.Accept(w, r, nil)
	if err != nil {
		return nil // it has answered
	}
	defer c.CloseNow()
	c.SetReadLimit(maxTyped)
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	go func() {
		defer cancel()
		t.listen(ctx, c)
	}()
	t.show(ctx, c)
	t.resize(c, [2]int{})
	return nil
}

func tell(ctx context.Context, c *websocket.Conn, words ...any) error {
	b, err := json.Marshal(words)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	return c.Write(ctx, websocket.MessageText, b)
}

// show sends what is said from the beginning of what is kept, in whole characters.
func (t *terminal) show(ctx context.Context, c *websocket.Conn) {
	if tell(ctx, c, "setup", object{}) != nil {
		return
	}
	t.mu.Lock()
	at := t.start
	t.mu.Unlock()
	ping := time.NewTicker(30 * time.Second)
	defer ping.Stop()
	for {
		t.mu.Lock()
		news, over, left := t.news, t.over, at < t.start
		if left {
			at = t.start
		}
		b := slices.Clone(t.out[at-t.start:])
		t.mu.Unlock()
		if !over {
			b = b[:whole(b)]
		}
		at += int64(len(b))
		text := strings.ToValidUTF8(string(b), "\uFFFD")
		if left {
			text = "\r\n\x1b[0m── output left out: this page is too slow for it ──\r\n" + text
		}
		switch {
		case text != "":
			if tell(ctx, c, "stdout", text) != nil {
				return
			}
			continue
		case over:
			if tell(ctx, c, "disconnect", 1) == nil {
				c.Close(websocket.StatusNormalClosure, "")
			}
			return
		}
		select {
		case <-news:
		case <-ping.C:
			if c.Ping(ctx) != nil {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// whole is how many bytes are whole characters: the last one may still arrive.
func whole(b []byte) int {
	for i := 1; i < utf8.UTFMax && i <= len(b); i++ {
		if c := b[len(b)-i]; utf8.RuneStart(c) {
			if !utf8.FullRune(b[len(b)-i:]) {
				return len(b) - i
			}
			break
		}
	}
	return len(b)
}

// listen carries what is typed to the programs until the page goes away or says
// what makes no sense.
func (t *terminal) listen(ctx context.Context, c *websocket.Conn) {
	for {
		_, b, err := c.Read(ctx)
		if err != nil {
			return
		}
		var words []any
		if json.Unmarshal(b, &words) != nil || len(words) < 2 {
			c.Close(websocket.StatusPolicyViolation, "not the terminal's protocol")
			return
		}
		switch words[0] {
		case "stdin":
			text, _ := words[1].(string)
			// A program that reads nothing does not hold the page up for ever.
			t.pty.SetWriteDeadline(time.Now().Add(typeWithin))
			t.pty.WriteString(text)
		case "set_size":
			if len(words) < 3 {
				continue
			}
			rows, _ := words[1].(float64)
			cols, _ := words[2].(float64)
			t.resize(c, [2]int{min(max(int(cols), 2), 1000), min(max(int(rows), 1), 500)})
		}
	}
}

// resize notes the window of a page; none is of a page that went. The terminal is
// as large as the smallest.
func (t *terminal) resize(c *websocket.Conn, size [2]int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if size[0] == 0 {
		delete(t.sizes, c)
	} else {
		t.sizes[c] = size
	}
	var least [2]int
	for _, s := range t.sizes {
		for i := range least {
			if least[i] == 0 || s[i] < least[i] {
				least[i] = s[i]
			}
		}
	}
	if least[0] > 0 {
		apps.ResizePty(t.pty, least[0], least[1]) // of one that ended it is nothing
	}
}
