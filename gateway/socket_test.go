package gateway

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"quire"
)

// echo is an app with a real WebSocket server.
func echo(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{OriginPatterns: []string{"*"}, Subprotocols: []string{"v1.kernel.websocket.jupyter.org"}, CompressionMode: websocket.CompressionContextTakeover})
	if err != nil {
		return
	}
	defer c.CloseNow()
	c.SetReadLimit(-1)
	for {
		kind, b, err := c.Read(r.Context())
		if err != nil {
			return
		}
		if c.Write(r.Context(), kind, b) != nil {
			return
		}
	}
}

// dial opens a WebSocket as a browser's page would.
func (p *person) dial(path string) *websocket.Conn {
	p.w.t.Helper()
	c, resp, err := websocket.Dial(p.w.t.Context(), "ws://"+p.host()+p.prefix()+path, &websocket.DialOptions{
		HTTPClient: &http.Client{Transport: p.w.transport()}, HTTPHeader: http.Header{"Cookie": {p.cookie}, "Origin": {p.site().origin}},
		Subprotocols: []string{"v1.kernel.websocket.jupyter.org"}, CompressionMode: websocket.CompressionContextTakeover,
	})
	if err != nil {
		status := 0
		if resp != nil {
			status = resp.StatusCode
		}
		p.w.t.Fatalf("dial: %v %d", err, status)
	}
	c.SetReadLimit(-1)
	p.w.t.Cleanup(func() { c.CloseNow() })
	return c
}

func ping(ctx context.Context, c *websocket.Conn, text string) error {
	if err := c.Write(ctx, websocket.MessageText, []byte(text)); err != nil {
		return err
	}
	_, b, err := c.Read(ctx)
	if err == nil && string(b) != text {
		err = fmt.Errorf("sent %.20q, got %.20q", text, b)
	}
	return err
}

func TestWebSocket(t *testing.T) {
	modes(t, func(t *testing.T, w *world) {
		w.app.set(echo)
		p := w.person().enter()
		c := p.dial("/notebook/api/kernels/x/channels?session_id=1")
		if c.Subprotocol() != "v1.kernel.websocket.jupyter.org" {
			t.Errorf("subprotocol %q", c.Subprotocol())
		}
		for _, size := range []int{0, 1, 125, 126, 1 << 10, 65535, 65536, 8 << 20} {
			if err := ping(t.Context(), c, strings.Repeat("m", size)); err != nil {
				t.Fatalf("%d bytes: %v", size, err)
			}
		}
		if h := w.app.request().Header; h.Get("Cookie") != "" || h.Get("X-Quire-User") != "alice" || h.Get("Origin") != p.site().origin {
			t.Errorf("the app got %v", h)
		}
		if err := c.Close(4000, "bye"); err != nil {
			t.Errorf("close: %v", err)
		}
		w.until("both sides are closed", func() bool { return w.g.conns.browsers.Load() == 0 && w.app.active.Load() == 0 })
	})
}

// TestSocketRefusals is W-01, W-02, W-03, W-04 and W-05: the app is not contacted before the
// handshake is found good.
func TestSocketRefusals(t *testing.T) {
	modes(t, func(t *testing.T, w *world) {
		w.app.set(echo)
		p, q := w.person().enter(), w.person().enter()
		own, cookie := p.site().origin, p.site().app.name+"="
		expired := *p
		dials := w.app.dials.Load()
		cases := map[string]struct {
			header []string
			status int
		}{
			"no cookie":               {[]string{"Cookie", ""}, 401},
			"nonsense":                {[]string{"Cookie", cookie + "nonsense"}, 401},
			"a plain grant":           {[]string{"Cookie", cookie + cookieEncoding.EncodeToString(p.grant())}, 401},
			"another label's cookie":  {[]string{"Cookie", cookie + strings.SplitN(q.cookie, "=", 2)[1]}, 401},
			"another gateway's":       {[]string{"Cookie", cookie + otherSealer(t).close(p.grant(), p.label)}, 401},
			"two cookies":             {[]string{"Cookie", p.cookie + "; " + p.cookie}, 400},
			"no Origin":               {[]string{"Origin", ""}, 403},
			"null":                    {[]string{"Origin", "null"}, 403},
			"https":                   {[]string{"Origin", "https" + own[4:]}, 403},
			"another port":            {[]string{"Origin", own + "0"}, 403},
			"upper case":              {[]string{"Origin", strings.ToUpper(own)}, 403},
			"trailing dot":            {[]string{"Origin", strings.Replace(own, ":8089", ".:8089", 1)}, 403},
			"suffix":                  {[]string{"Origin", own + ".evil.test"}, 403},
			"prefix":                  {[]string{"Origin", "http://evil" + own[7:]}, 403},
			"sub of ours":             {[]string{"Origin", "http://x." + own[7:]}, 403},
			"any for a dot":           {[]string{"Origin", strings.Replace(own, ".", "x", 1)}, 403},
			"the portal":              {[]string{"Origin", w.origins.Portal()}, 403},
			"evil":                    {[]string{"Origin", "https://evil.test"}, 403},
			"forged Sec-Fetch-Site":   {[]string{"Origin", "https://evil.test", "Sec-Fetch-Site", "same-origin"}, 403},
			"Sec-Fetch-Site is right": {[]string{"Sec-Fetch-Site", "cross-site"}, 403},
			"no cookie, evil":         {[]string{"Cookie", "", "Origin", "https://evil.test"}, 403},
		}
		if p.prefix() == "" {
			cases["a sibling label"] = struct {
				header []string
				status int
			}{[]string{"Origin", q.site().origin}, 403}
		}
		for name, c := range cases {
			for _, path := range []string{"/notebook/api/kernels/x/channels", "/viewer/lsp/ws", "/notebook/terminals/websocket/1", "/nothere/ws"} {
				_, _, resp := p.open(path, c.header...)
				if resp.StatusCode != c.status {
					t.Errorf("%s on %s: %d", name, path, resp.StatusCode)
				}
			}
		}
		if n := w.app.dials.Load() - dials; n != 0 {
			t.Errorf("the node was dialed %d times", n)
		}
		w.mu.Lock()
		w.refuse[p.login] = true
		w.mu.Unlock()
		w.shift.Add(int64(6 * time.Minute))
		w.until("the clock is heard", func() bool { return !w.g.silent(w.now()) })
		if _, _, resp := expired.open("/notebook/ws"); resp.StatusCode != 401 {
			t.Errorf("an expired grant that is not renewed: %d", resp.StatusCode)
		}
		if n := w.app.dials.Load() - dials; n != 0 {
			t.Errorf("the node was dialed %d times", n)
		}
	})
}

func otherSealer(t *testing.T) *sealer {
	s, err := newSealer(bytes.Repeat([]byte{9}, 32), gatewayNode, "app")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// A viewer reaches the apps for reading and no other, on every way.
func TestViewer(t *testing.T) {
	w := newWorld(t)
	w.app.set(echo)
	p := w.person()
	p.role = quire.RoleViewer
	p.enter()
	for app, want := range map[string]int{"notebook": 403, "viewer": 101} {
		if _, _, resp := p.open("/" + app + "/ws"); resp.StatusCode != want {
			t.Errorf("%s: %d", app, resp.StatusCode)
		}
	}
	if resp := p.page("/notebook/"); resp.StatusCode != 403 || !strings.Contains(body(resp), "editor role") {
		t.Errorf("page: %d", resp.StatusCode)
	}
	w.app.set(func(http.ResponseWriter, *http.Request) {})
	if resp := p.get("/viewer/x"); resp.StatusCode != 200 {
		t.Errorf("viewer: %d", resp.StatusCode)
	}
}

// Bytes sent right behind the handshake, by either side, are not lost.
func TestEarlyBytes(t *testing.T) {
	frame := "\x81\x05HELLO"
	accepted := "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
	got := make(chan string, 1)
	addr := handshaker(t, func(c net.Conn, br *bufio.Reader) {
		io.WriteString(c, accepted+frame)
		b := make([]byte, 5)
		io.ReadFull(br, b)
		got <- string(b)
	})
	w := newWorld(t, toAddr(addr))
	p := w.person().enter()
	c := w.conn()
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprintf(c, "GET /notebook/ws HTTP/1.1\r\nHost: %s\r\nCookie: %s\r\nOrigin: %s\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\nEARLY", p.host(), p.cookie, p.site().origin)
	br := bufio.NewReader(c)
	resp, err := http.ReadResponse(br, nil)
	if err != nil || resp.StatusCode != 101 {
		t.Fatalf("%v %v", err, resp)
	}
	b := make([]byte, len(frame))
	if _, err := io.ReadFull(br, b); err != nil || string(b) != frame {
		t.Errorf("the browser got %q, %v", b, err)
	}
	if s := <-got; s != "EARLY" {
		t.Errorf("the app got %q", s)
	}
}

// handshaker is an app that reads a handshake and then does as it likes.
func handshaker(t *testing.T, f func(net.Conn, *bufio.Reader)) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				c.SetDeadline(time.Now().Add(20 * time.Second))
				br := bufio.NewReader(c)
				if _, err := http.ReadRequest(br); err == nil {
					f(c, br)
				}
			}()
		}
	}()
	return l.Addr().String()
}

// TestBadHandshakes is W-11 and W-12: an answer that is not exactly a WebSocket
// handshake is a 502, a refusal is passed on, and the connection to the app is
// not used for anything else.
func TestBadHandshakes(t *testing.T) {
	ok := "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
	for name, c := range map[string]struct {
		says   string
		status int
	}{
		"wrong accept":      {"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n", 502},
		"no accept":         {"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", 502},
		"two accepts":       {"HTTP/1.1 101 Switching Protocols\r\n" + ok + "Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n", 502},
		"other protocol":    {"HTTP/1.1 101 Switching Protocols\r\n" + strings.Replace(ok, "websocket", "other", 1) + "\r\n", 502},
		"no Connection":     {"HTTP/1.1 101 Switching Protocols\r\n" + strings.Replace(ok, "Connection", "X", 1) + "\r\n", 502},
		"bytes before 101":  {"hello\r\nHTTP/1.1 101 Switching Protocols\r\n" + ok + "\r\n", 502},
		"nothing":           {"", 502},
		"400 and keeps":     {"HTTP/1.1 400 Bad Request\r\nContent-Length: 3\r\n\r\nbad", 400},
		"200 instead":       {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 200},
		"403 without end":   {"HTTP/1.1 403 Forbidden\r\n\r\nno", 403},
		"redirect outside":  {"HTTP/1.1 302 Found\r\nLocation: https://evil.test/\r\nContent-Length: 0\r\n\r\n", 502},
		"100 then 101":      {"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 101 Switching Protocols\r\n" + ok + "\r\n", 101},
		"101 with a cookie": {"HTTP/1.1 101 Switching Protocols\r\n" + ok + "Set-Cookie: __Host-quire_app=evil\r\n\r\n", 101},
	} {
		t.Run(name, func(t *testing.T) {
			var mu sync.Mutex
			smuggled := ""
			addr := handshaker(t, func(conn net.Conn, br *bufio.Reader) {
				io.WriteString(conn, c.says)
				if strings.HasPrefix(c.says, "HTTP/1.1 403") || c.says == "" {
					return
				}
				rest, _ := io.ReadAll(br)
				mu.Lock()
				defer mu.Unlock()
				smuggled += string(rest)
			})
			w := newWorld(t, toAddr(addr))
			p := w.person().enter()
			conn, br, resp := p.open("/notebook/ws")
			if resp.StatusCode != c.status || resp.Header.Get("Set-Cookie") != "" {
				t.Fatalf("status %d, %v", resp.StatusCode, resp.Header)
			}
			if c.status == 101 {
				return
			}
			// The browser's next request on the same connection goes nowhere.
			fmt.Fprintf(conn, "GET /notebook/smuggled HTTP/1.1\r\nHost: %s\r\n\r\n", p.host())
			b, _ := io.ReadAll(br)
			if strings.Count(string(b), "HTTP/1.1") != 0 {
				t.Errorf("the connection answered again: %q", b)
			}
			mu.Lock()
			defer mu.Unlock()
			if strings.Contains(smuggled, "smuggled") {
				t.Errorf("the app got %q", smuggled)
			}
		})
	}
}

// TestRevokeSockets is W-06: on a revocation idle and busy sockets alike are
// closed with 4401, on both sides, within two seconds, and nothing is delivered
// after.
func TestRevokeSockets(t *testing.T) {
	w := newWorld(t)
	w.app.set(echo)
	p, other := w.person().enter(), w.person().enter()
	const each = 30
	var conns []*websocket.Conn
	for range 2 * each {
		c := p.dial("/notebook/ws")
		if err := ping(t.Context(), c, "up"); err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	bystander := other.dial("/notebook/ws")
	var busy sync.WaitGroup
	codes := make(chan error, 2*each)
	for i, c := range conns {
		busy.Add(1)
		go func() {
			defer busy.Done()
			if i%2 == 0 { // idle: only listens
				_, _, err := c.Read(context.Background())
				codes <- err
				return
			}
			text := strings.Repeat("b", 100+i*100)
			for {
				if err := ping(context.Background(), c, text); err != nil {
					_, _, rerr := c.Read(context.Background())
					var ce websocket.CloseError
					if !errors.As(err, &ce) && rerr != nil {
						err = rerr
					}
					codes <- err
					return
				}
			}
		}()
	}
	began := time.Now()
	w.revoke(quire.Revocation{User: p.user})
	if d := time.Since(began); d > 2*time.Second {
		t.Errorf("reported after %v", d)
	}
	busy.Wait()
	if d := time.Since(began); d > 2*time.Second {
		t.Errorf("closed after %v", d)
	}
	close(codes)
	good := 0
	for err := range codes {
		if websocket.CloseStatus(err) == 4401 {
			good++
		}
	}
	// A writer that is in the middle of a message may see the broken connection
	// before the close frame; an idle one always sees the frame.
	if good < each {
		t.Errorf("%d of %d saw 4401", good, 2*each)
	}
	t.Logf("%d of %d saw 4401", good, 2*each)
	w.until("the app's side is closed too", func() bool { return w.app.active.Load() == 1 })
	if err := ping(t.Context(), bystander, "still here"); err != nil {
		t.Errorf("a bystander: %v", err)
	}
	if _, _, resp := p.open("/notebook/ws"); resp.StatusCode != 401 {
		t.Errorf("afterwards: %d", resp.StatusCode)
	}
}

// A close frame never lands inside another frame: the one under way is finished
// first, what came behind it is not delivered; if it does not end, there is no
// close frame at all.
func TestCloseBetweenFrames(t *testing.T) {
	accepted := "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
	for name, c := range map[string]struct{ first, then, want string }{
		"between":         {"\x81\x02hi", "", "\x81\x02hi" + string(closeFrame(closeRevoked))},
		"nothing yet":     {"", "", string(closeFrame(closeRevoked))},
		"inside payload":  {"\x81\x06abc", "def\x81\x04evil", "\x81\x06abcdef" + string(closeFrame(closeRevoked))},
		"inside the head": {"\x81\x7e\x00", "\x04abcd\x81\x04evil", "\x81\x7e\x00\x04abcd" + string(closeFrame(closeRevoked))},
		"never ends":      {"\x81\x06abc", "", "\x81\x06abc"},
	} {
		t.Run(name, func(t *testing.T) {
			revoked := make(chan struct{})
			addr := handshaker(t, func(conn net.Conn, br *bufio.Reader) {
				io.WriteString(conn, accepted+c.first)
				<-revoked
				io.WriteString(conn, c.then)
				io.Copy(io.Discard, br)
			})
			w := newWorld(t, toAddr(addr))
			p := w.person().enter()
			conn, br, resp := p.open("/notebook/ws")
			if resp.StatusCode != 101 {
				t.Fatal(resp.StatusCode)
			}
			first := make([]byte, len(c.first))
			io.ReadFull(br, first)
			h := w.holder(p)
			w.revokeAsync(quire.Revocation{Login: p.login})
			w.until("the socket is told", func() bool {
				h.mu.Lock()
				defer h.mu.Unlock()
				for s := range h.sockets {
					if s.why.Load() == 0 {
						return false
					}
				}
				return true
			})
			close(revoked)
			rest, err := io.ReadAll(br)
			if got := string(first) + string(rest); got != c.want {
				t.Errorf("the browser got %q (%v)", got, err)
			}
			conn.Close()
		})
	}
}

// TestSocketLimit is W-14.
func TestSocketLimit(t *testing.T) {
	w := newWorld(t, sockets(20))
	w.app.set(echo)
	p, q := w.person().enter(), w.person().enter()
	for range 20 {
		if _, _, resp := p.open("/notebook/ws"); resp.StatusCode != 101 {
			t.Fatal(resp.StatusCode)
		}
	}
	dials := w.app.dials.Load()
	conn, _, resp := p.open("/notebook/ws")
	if resp.StatusCode != http.StatusTooManyRequests || w.app.dials.Load() != dials {
		t.Errorf("the 21st: %d", resp.StatusCode)
	}
	conn.Close()
	for _, o := range []struct {
		p    *person
		path string
	}{{p, "/viewer/ws"}, {q, "/notebook/ws"}} {
		if _, _, resp := o.p.open(o.path); resp.StatusCode != 101 {
			t.Errorf("%s: %d", o.path, resp.StatusCode)
		}
	}
}

// TestPassesBytes is W-09: the gateway does not judge frames.
func TestPassesBytes(t *testing.T) {
	accepted := "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
	addr := handshaker(t, func(conn net.Conn, br *bufio.Reader) {
		io.WriteString(conn, accepted)
		io.Copy(conn, br)
	})
	w := newWorld(t, toAddr(addr))
	p := w.person().enter()
	for name, b := range map[string][]byte{
		"unmasked":         []byte("\x81\x02hi"),
		"reserved opcode":  []byte("\x83\x02hi\xf1\x00"),
		"bad UTF-8":        []byte("\x81\x02\xff\xfe"),
		"64 MB":            append([]byte{0x82, 127, 0, 0, 0, 0, 4, 0, 0, 0}, make([]byte, 64<<20)...),
		"one-byte pieces":  bytes.Repeat([]byte{0, 1, 'x'}, 100_000),
		"impossible":       []byte("\x81\xff\xff\xff\xff\xff\xff\xff\xff\xffhello"),
		"control oversize": append([]byte{0x89, 126, 1, 0}, make([]byte, 256)...),
	} {
		conn, br, resp := p.open("/notebook/ws")
		if resp.StatusCode != 101 {
			t.Fatal(resp.StatusCode)
		}
		go func() { conn.Write(b); conn.(*net.TCPConn).CloseWrite() }()
		got, err := io.ReadAll(br)
		if err != nil || !bytes.Equal(got, b) {
			t.Errorf("%s: %d bytes of %d came back, %v", name, len(got), len(b), err)
		}
		conn.Close()
	}
}

// TestSlowReader is W-10: who does not read is not read for.
//
//fault:gateway somebody reads slowly, or not at all
//fault:seen he alone waits
//fault:lost nothing
//fault:repair his reading on
//fault:also TestSlowPageDelaysNobody
func TestSlowReader(t *testing.T) {
	accepted := "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
	hold := make(chan struct{})
	addr := handshaker(t, func(conn net.Conn, _ *bufio.Reader) {
		io.WriteString(conn, accepted)
		<-hold
	})
	w := newWorld(t, toAddr(addr))
	p := w.person().enter()
	conn, _, resp := p.open("/notebook/ws")
	if resp.StatusCode != 101 {
		t.Fatal(resp.StatusCode)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	conn.SetWriteDeadline(time.Now().Add(time.Second))
	n, err := io.Copy(conn, io.LimitReader(zeros{}, 1<<30))
	runtime.ReadMemStats(&after)
	if err == nil || n > 100<<20 {
		t.Errorf("%d MB were taken for an app that reads nothing", n>>20)
	}
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 16<<20 {
		t.Errorf("%d MB were kept", grown>>20)
	}
	close(hold)
}

// An idle socket costs little, and what it cost is given back (W-08's base
// line).
func TestIdleSockets(t *testing.T) {
	w := newWorld(t, sockets(5000))
	w.app.set(echo)
	p := w.person().enter()
	p.dial("/notebook/ws").CloseNow()
	w.until("quiet", func() bool { return w.g.conns.browsers.Load() == 0 })
	base := runtime.NumGoroutine()
	h := w.holder(p)
	var conns []net.Conn
	for range 200 {
		c, _, resp := p.open("/notebook/ws")
		if resp.StatusCode != 101 {
			t.Fatal(resp.StatusCode)
		}
		conns = append(conns, c)
	}
	h.mu.Lock()
	open := len(h.sockets)
	h.mu.Unlock()
	if open != 200 || w.g.conns.browsers.Load() != 200 {
		t.Errorf("%d open, %d counted", open, w.g.conns.browsers.Load())
	}
	for _, c := range conns {
		c.Close()
	}
	w.until("all are forgotten", func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		return len(h.sockets) == 0 && w.g.conns.browsers.Load() == 0 && runtime.NumGoroutine() < base+50
	})
}

func (w *world) holder(p *person) *holder {
	w.t.Helper()
	w.g.grants.mu.Lock()
	defer w.g.grants.mu.Unlock()
	for s, h := range w.g.grants.holders {
		if s.Login == p.login {
			return h
		}
	}
	w.t.Fatal("no holder")
	return nil
}

// The frame counter agrees with frames built by hand, cut at every place.
func TestFrames(t *testing.T) {
	var stream []byte
	ends := map[int]bool{0: true}
	for _, n := range []int{0, 1, 125, 126, 300, 65535, 65536, 70000} {
		for _, masked := range []byte{0, 0x80} {
			stream = append(stream, 0x81)
			switch {
			case n < 126:
				stream = append(stream, masked|byte(n))
			case n < 1<<16:
				stream = binary.BigEndian.AppendUint16(append(stream, masked|126), uint16(n))
			default:
				stream = binary.BigEndian.AppendUint64(append(stream, masked|127), uint64(n))
			}
			if masked != 0 {
				stream = append(stream, 1, 2, 3, 4)
			}
			stream = append(stream, make([]byte, n)...)
			ends[len(stream)] = true
		}
	}
	for _, step := range []int{1, 2, 3, 7, 1000, 4096, 1 << 20} {
		var f frames
		for at := 0; at < len(stream); {
			n := min(step, len(stream)-at)
			if rest := f.rest(stream[at : at+n]); !f.between() {
				g := f
				g.pass(rest)
				if len(rest) < n && !g.between() {
					t.Fatalf("rest at %d leaves the frame open", at)
				}
			} else if len(rest) != 0 {
				t.Fatalf("rest between frames at %d", at)
			}
			f.pass(stream[at : at+n])
			at += n
			if f.between() != ends[at] {
				t.Fatalf("step %d: at %d between is %v", step, at, f.between())
			}
		}
	}
}
