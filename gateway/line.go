package gateway

import (
	"context"
	"net"
	"net/http"
	"net/url"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"quire/compute/remote"
)

// A line is a browser's connection that we read ourselves, as long as what
// comes on it is plain (parse.go) and ends at an app. With the first request
// that is anything else, the connection goes to net/http for good, with what
// was read and not answered. So the bulk of an app's requests is spared the
// price of net/http's generality, and nothing is decided here that is not
// decided by judge.
type line struct {
	g      *Gateway
	conn   net.Conn
	raw    syscall.RawConn
	src    *remote.Source
	req    *http.Request
	ctx    context.Context
	cancel context.CancelFunc

	in    bool         // a whole request has come
	busy  atomic.Int64 // since when a request is under way, by the gateway's uptime; 0: waiting
	last  atomic.Int64 // when the last one ended
	asked atomic.Bool  // at least one was answered

	settled func() // is called then

	mu      sync.Mutex
	backend *backend // that works for us now
}

// work is what a line needs during a request, and not while it waits.
type work struct {
	in    head
	url   url.URL
	visit visit
	out   writer
}

// lines are all lines, for the watch each second.
type lines struct {
	mu  sync.Mutex
	all map[*line]struct{}
	// ended refuses new lines.
	ended bool
	works sync.Pool
}

func (l *lines) init() {
	l.all = map[*line]struct{}{}
	l.works.New = func() any { return &work{} }
}

// newLine takes a connection, or returns nil when it is not a plain socket.
func (g *Gateway) newLine(conn net.Conn) *line {
	s, ok := conn.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return nil
	}
	l := &line{g: g, conn: conn, raw: raw, src: g.stock.Source(conn)}
	l.ctx, l.cancel = context.WithCancel(g.ctx)
	l.req = (&http.Request{Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Body: http.NoBody, RemoteAddr: conn.RemoteAddr().String()}).WithContext(l.ctx)
	l.last.Store(g.uptime.Load())
	g.lines.mu.Lock()
	defer g.lines.mu.Unlock()
	if g.lines.ended {
		return nil
	}
	g.lines.all[l] = struct{}{}
	return l
}

// forget takes the line out of the watch.
func (l *line) forget() {
	l.g.lines.mu.Lock()
	delete(l.g.lines.all, l)
	l.g.lines.mu.Unlock()
	l.cancel()
}

// serve answers until the connection ends, or returns what net/http has to
// deal with.
func (l *line) serve() (rest []byte, over bool) {
	defer l.forget()
	for {
		piece, err := l.src.Next()
		if err != nil {
			l.src.Drop()
			return nil, true
		}
		s := string(piece)
		l.src.Drop() // an idle line, and one whose app thinks, holds no buffer
		done, again := l.answer(s)
		if !done {
			return []byte(s), false
		}
		if !again {
			return nil, true
		}
	}
}

// answer deals with one request if it is plain and leads to an app. A panic
// ends the connection and nothing else.
func (l *line) answer(s string) (done, again bool) {
	g := l.g
	w := g.lines.works.Get().(*work)
	defer func() {
		switch p := recover(); p {
		case nil:
			g.lines.works.Put(w)
			return
		case http.ErrAbortHandler:
		default:
			g.log.Error("panic", "value", p, "stack", string(debug.Stack()))
		}
		done, again = true, false
	}()
	if !w.in.parseRequest(s, l.req) {
		return false, false
	}
	if !l.in {
		l.in = true
		g.fresh.Leave(l.conn)
	}
	w.url = url.URL{Path: l.req.RequestURI}
	w.url.Path, w.url.RawQuery, _ = strings.Cut(w.url.Path, "?")
	l.req.URL = &w.url
	l.busy.Store(g.uptime.Load())
	w.out.begin(l)
	w.visit = visit{g: g, w: &w.out, r: l.req, line: l}
	a, other := w.visit.judge()
	if other != nil || w.visit.upgrade {
		return false, false
	}
	w.visit.hop(a)
	again = l.ctx.Err() == nil && w.out.finish()
	l.last.Store(g.uptime.Load())
	if !l.asked.Swap(true) {
		l.settled()
	}
	l.busy.Store(0)
	return true, again
}

// works notes the connection that works for the line, so that it ends when the
// browser has gone.
func (l *line) works(b *backend) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.backend = b
	if b != nil && l.ctx.Err() != nil {
		b.abort()
	}
}

// unwatch is false when the browser has gone meanwhile.
func (l *line) unwatch() bool {
	l.works(nil)
	return l.ctx.Err() == nil
}

func (l *line) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cancel()
	if l.backend != nil {
		l.backend.abort()
	}
}

// gone reports whether the browser has closed the connection.
func (l *line) gone() bool {
	gone := false
	err := l.raw.Control(func(fd uintptr) {
		var one [1]byte
		n, _, err := syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		gone = err == nil && n == 0 || err != nil && err != syscall.EAGAIN && err != syscall.EINTR
	})
	return gone || err != nil
}

// watch is called each second: it ends lines that have been idle for too long
// and requests whose browser has gone.
func (l *lines) watch(now int64) {
	l.mu.Lock()
	var look []*line
	for c := range l.all {
		if since := c.busy.Load(); since != 0 && now-since >= 1000 || since == 0 && now-c.last.Load() > idleClient.Milliseconds() {
			look = append(look, c)
		}
	}
	l.mu.Unlock()
	for _, c := range look {
		switch {
		case c.busy.Load() == 0:
			c.conn.Close()
		case c.gone():
			c.leave()
		}
	}
}

func (l *lines) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	for c := range l.all {
		c.conn.Close()
	}
}

// A writer is the http.ResponseWriter of a line.
type writer struct {
	l       *line
	fields  http.Header
	b       []byte // not yet sent
	left    int64  // bytes of the body still to come, if its length is known
	begun   bool
	known   bool // the length
	chunked bool
	close   bool
	err     error
}

const writeAt = 16 << 10

func (w *writer) begin(l *line) {
	if w.fields == nil {
		w.fields = make(http.Header, 16)
	}
	clear(w.fields)
	*w = writer{l: l, fields: w.fields, b: w.b[:0]}
}

func (w *writer) Header() http.Header { return w.fields }

func (w *writer) WriteHeader(status int) {
	if w.begun || status < 200 {
		return
	}
	w.begun = true
	w.close = w.close || w.l.g.handing.over()
	b := append(w.b, "HTTP/1.1 "...)
	b = strconv.AppendInt(b, int64(status), 10)
	b = append(b, ' ')
	b = append(b, http.StatusText(status)...)
	b = append(b, "\r\n"...)
	body := status != http.StatusNoContent && status != http.StatusNotModified && w.l.req.Method != http.MethodHead
	for k, lines := range w.fields {
		switch k {
		case "Connection":
			w.close = w.close || named(lines, "close")
			continue
		case "Transfer-Encoding":
			continue
		case "Content-Length":
			n, ok := int64(0), len(lines) == 1
			if ok {
				n, ok = decimal(lines[0])
			}
			if !ok || status == http.StatusNoContent {
				continue
			}
			w.known, w.left = body, n
		}
		for _, v := range lines {
			b = append(b, k...)
			b = append(b, ": "...)
			b = appendValue(b, v)
			b = append(b, "\r\n"...)
		}
	}
	if _, dated := w.fields["Date"]; !dated {
		b = append(b, "Date: "...)
		b = time.Now().UTC().AppendFormat(b, http.TimeFormat)
		b = append(b, "\r\n"...)
	}
	switch {
	case !body:
		w.known, w.left = true, 0
	case !w.known:
		w.chunked = true
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
	}
	if w.close {
		b = append(b, "Connection: close\r\n"...)
	}
	w.b = append(b, "\r\n"...)
}

// appendValue keeps a value on its line.
func appendValue(b []byte, v string) []byte {
	if strings.IndexByte(v, '\n') < 0 && strings.IndexByte(v, '\r') < 0 {
		return append(b, v...)
	}
	return append(b, strings.NewReplacer("\r", " ", "\n", " ").Replace(v)...)
}

func (w *writer) Write(p []byte) (int, error) {
	if !w.begun {
		w.WriteHeader(http.StatusOK)
	}
	if w.err != nil {
		return 0, w.err
	}
	n := len(p)
	if w.known {
		if int64(n) > w.left {
			if w.left == 0 && (w.l.req.Method == http.MethodHead) {
				return n, nil
			}
			return 0, http.ErrContentLength
		}
		w.left -= int64(n)
	}
	if n == 0 {
		return 0, nil
	}
	if w.chunked {
		w.b = strconv.AppendInt(w.b, int64(n), 16)
		w.b = append(w.b, "\r\n"...)
	}
	if len(w.b)+n <= writeAt {
		w.b = append(w.b, p...)
	} else {
		w.send()
		if w.err == nil {
			_, w.err = w.l.conn.Write(p)
		}
	}
	if w.chunked {
		w.b = append(w.b, "\r\n"...)
	}
	return n, w.err
}

func (w *writer) send() {
	if w.err == nil && len(w.b) > 0 {
		_, w.err = w.l.conn.Write(w.b)
	}
	w.b = w.b[:0]
}

// Flush implements http.Flusher.
func (w *writer) Flush() {
	if !w.begun {
		w.WriteHeader(http.StatusOK)
	}
	w.send()
}

// finish ends the answer. It is false when the connection cannot be used again.
func (w *writer) finish() bool {
	if !w.begun {
		w.fields["Content-Length"] = []string{"0"}
		w.WriteHeader(http.StatusOK)
	}
	if w.chunked {
		w.b = append(w.b, "0\r\n\r\n"...)
	}
	w.send()
	return w.err == nil && !w.close && (!w.known || w.left == 0)
}
