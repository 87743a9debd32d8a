package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// A screen is one page that looks at a terminal.
type screen struct {
	t    *testing.T
	conn *websocket.Conn
	text string
	over bool
}

func (c *client) screen(name string) *screen {
	c.t.Helper()
	conn, _, err := websocket.Dial(c.t.Context(), "ws://app.test/p/lab/terminals/websocket/"+name, &websocket.DialOptions{HTTPClient: c.http, HTTPHeader: http.Header{"Origin": {"http://app.test"}}})
	if err != nil {
		c.t.Fatal(err)
	}
	conn.SetReadLimit(2 << 20)
	c.t.Cleanup(func() { conn.CloseNow() })
	s := &screen{t: c.t, conn: conn}
	if words := s.next(); words[0] != "setup" {
		c.t.Fatalf("%v", words)
	}
	return s
}

func (s *screen) next() []any {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	_, b, err := s.conn.Read(ctx)
	if err != nil {
		s.t.Fatalf("%v after %q", err, s.text)
	}
	var words []any
	if err := json.Unmarshal(b, &words); err != nil {
		s.t.Fatal(err)
	}
	switch words[0] {
	case "stdout":
		s.text += words[1].(string)
	case "disconnect":
		s.over = true
	}
	return words
}

func (s *screen) send(words ...any) {
	s.t.Helper()
	if err := tell(s.t.Context(), s.conn, words...); err != nil {
		s.t.Fatal(err)
	}
}

func (s *screen) until(text string) {
	s.t.Helper()
	for !strings.Contains(s.text, text) {
		s.next()
	}
}

// plainShell is bash in a home that is empty: whoever runs the tests may have a
// profile that does a lot, and the tests kill shells in the middle of it.
func plainShell(t *testing.T) {
	t.Setenv("SHELL", "/bin/bash")
	t.Setenv("HOME", t.TempDir())
	t.Setenv("HISTFILE", "")
}

func TestTerminals(t *testing.T) {
	plainShell(t)
	c := newClient(t)
	os.Mkdir(c.project+"/sub", 0o755)
	c.ask(404, "GET", "api/terminals/1", nil)
	if m := c.ask(200, "POST", "api/terminals", object{"cwd": "sub"}); m["name"] != "1" || m["last_activity"] == nil {
		t.Errorf("%v", m)
	}
	one := c.screen("1")
	one.send("set_size", 40, 100, 400, 1000)
	one.send("stdin", "stty size; pwd; echo ü$((6*7))\r")
	one.until("40 100")
	one.until(c.project + "/sub")
	one.until("ü42")
	// Another page sees what was there; the smaller one gives the size.
	two := c.screen("1")
	two.until("ü42")
	two.send("set_size", 20, 120, 0, 0)
	two.send("stdin", "stty size; printf '\\377\\n'; echo en''d\r")
	one.until("20 100")
	one.until("\uFFFD")
	two.until("end")
	two.send("stdin", "exit\r")
	for !one.over {
		one.next()
	}
	if _, _, err := one.conn.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusNormalClosure {
		t.Errorf("the socket of a shell that ended: %v", err)
	}
	// One that hears nothing is ended all the same, with what it started.
	c.ask(200, "POST", "api/terminals", object{"name": "stubborn"})
	three := c.screen("stubborn")
	three.send("stdin", "trap '' HUP TERM; sleep 1000 & echo pid=$! rea''dy\r")
	three.until("ready")
	c.ask(204, "DELETE", "api/terminals/stubborn", nil)
	c.ask(404, "DELETE", "api/terminals/stubborn", nil)
	for _, bad := range []object{{"name": "../x"}, {"name": strings.Repeat("a", 100)}, {"cwd": "../.."}} {
		if answer, b := c.do("POST", "api/terminals", bad); answer.StatusCode != 400 {
			t.Errorf("%v: %d %s", bad, answer.StatusCode, b)
		}
	}
	answer, _ := c.do("GET", "terminals/websocket/none", nil, "Upgrade", "websocket", "Connection", "Upgrade")
	if answer.StatusCode != 404 {
		t.Error(answer.StatusCode)
	}
}

// A page that reads nothing holds nobody up, and one that talks nonsense is hung
// up on.
func TestTerminalsBearPages(t *testing.T) {
	plainShell(t)
	c := newClient(t)
	c.ask(200, "POST", "api/terminals", object{})
	idle := c.screen("1")
	busy := c.screen("1")
	busy.send("stdin", "yes 0123456789abcdef | head -c 20000000; echo do''ne\r")
	busy.until("done")
	idle.until("done") // by now most of it is left out
	if len(idle.text) > 15<<20 && !strings.Contains(idle.text, "left out") {
		t.Errorf("%d bytes were kept for a page that read nothing", len(idle.text))
	}
	for _, nonsense := range []string{"{", "[]", `"stdin"`} {
		s := c.screen("1")
		if err := s.conn.Write(t.Context(), websocket.MessageText, []byte(nonsense)); err != nil {
			t.Fatal(err)
		}
		for {
			if _, _, err := s.conn.Read(t.Context()); err != nil {
				if websocket.CloseStatus(err) != websocket.StatusPolicyViolation {
					t.Errorf("%s: %v", nonsense, err)
				}
				break
			}
		}
	}
	busy.send("stdin", 7)
	busy.send("set_size", "a", nil)
	busy.send("set_size", -5, 1e300)
	busy.send("stdin", "echo al''ive\r")
	busy.until("alive")
	for i := range maxTerminals + 5 {
		answer, b := c.do("POST", "api/terminals", object{"name": fmt.Sprint("t", i)})
		if want := map[bool]int{true: 200, false: 429}[i < maxTerminals-1]; answer.StatusCode != want {
			t.Fatalf("terminal %d: %d %s", i, answer.StatusCode, b)
		}
	}
}
