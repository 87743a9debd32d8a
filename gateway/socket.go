package gateway

import (
	"bufio"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"quire"
	"quire/compute/remote"
)

// A closeCode is the status of a WebSocket's close frame.
type closeCode uint16

const (
	closeGoingAway closeCode = 1001 // we are being stopped
	closeRestart   closeCode = 1012 // another gateway takes our place: come back at once
	closeRevoked   closeCode = 4401 // the right has ended; sign in to get a new one
)

const (
	finishFrame = 250 * time.Millisecond // for the rest of a frame that is under way when the right ends
	sayClose    = time.Second            // for the close frame and its answer
	shakeTime   = 2 * time.Minute        // for an app's handshake; Jupyter answers when the kernel does
	linger      = 10 * time.Second       // for the second direction after the first has ended
)

// A socket is one WebSocket between a browser and an app. Bytes are passed as
// they are; only the frames towards the browser are counted, so that a close
// frame can be put between two of them.
type socket struct {
	g       *Gateway
	holder  *holder
	session quire.SessionID
	closed  chan struct{} // when both connections are
	counted bool          // among the browsers' connections

	mu       sync.Mutex
	client   net.Conn
	app      net.Conn
	why      atomic.Uint32 // a closeCode once the socket is to end
	finished bool
}

func validKey(lines []string) bool {
	if len(lines) != 1 {
		return false
	}
	b, err := base64.StdEncoding.DecodeString(lines[0])
	return err == nil && len(b) == 16
}

// accept is what a WebSocket server answers to a key (RFC 6455, 4.2.2).
func accept(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// socket opens a WebSocket to the app and leaves it to two goroutines, so that
// net/http's state of the connection can go.
func (v *visit) socket(a *app) {
	g := v.g
	s := &socket{g: g, holder: v.seen.holder, session: a.Session, closed: make(chan struct{})}
	switch err := s.holder.reserve(s, g.sockets); {
	case errors.Is(err, errLimit):
		v.refuse(http.StatusTooManyRequests, quire.KindTooMany, "This session has as many open connections as one session may have. Close some tabs.")
		return
	case err != nil:
		v.refused(err)
		return
	}
	started := false
	defer func() {
		if !started {
			s.end()
		}
	}()
	conn, err := g.dial(v.r.Context(), a, v.grant)
	g.nodes.reached(a.Node, nodeError(err))
	if err != nil {
		v.appFailed(a, err)
		return
	}
	if !s.begin(nil, conn) {
		v.refused(errRevoked)
		return
	}
	b := newBackend(conn)
	stop := context.AfterFunc(v.r.Context(), b.abort)
	resp, err := v.handshake(b, a)
	if !stop() {
		panic(http.ErrAbortHandler) // the browser has gone
	}
	if err != nil {
		if s.why.Load() != 0 {
			v.refused(errRevoked)
			return
		}
		v.appFailed(a, err)
		return
	}
	if resp.status != http.StatusSwitchingProtocols {
		// The app said no. Its answer is passed on, and neither connection is
		// used for anything after it.
		v.w.Header().Set("Connection", "close")
		if err := v.respond(a, b, resp); errors.Is(err, errCut) {
			panic(http.ErrAbortHandler)
		} else if err != nil && !errors.Is(err, errAnswered) {
			v.appFailed(a, err)
		}
		return
	}
	out := http.Header{}
	if err := v.site.answerHeader(out, resp.header, a.App); err != nil {
		v.appFailed(a, err)
		return
	}
	out.Set("Connection", "Upgrade")
	out.Set("Upgrade", "websocket")
	for _, k := range []string{"Content-Length", "Content-Security-Policy", "Cache-Control"} {
		out.Del(k)
	}
	taken, rw, err := http.NewResponseController(v.w).Hijack()
	if err != nil {
		g.log.Error("hijack", "error", err)
		return
	}
	client := bare(taken)
	s.counted = true
	g.conns.hijacked(1)
	if !s.begin(client, conn) {
		return
	}
	client.SetDeadline(time.Now().Add(sayClose))
	if err := writeSwitch(client, out); err != nil {
		return
	}
	client.SetDeadline(time.Time{})
	// What the browser and the app sent right behind their handshakes.
	early, late := buffered(rw.Reader), buffered(b.br)
	started = true
	s.run(early, late)
}

func (v *visit) handshake(b *backend, a *app) (*reply, error) {
	b.SetDeadline(time.Now().Add(shakeTime))
	if _, err := b.Conn.Write(v.requestHead(nil, a, false, 0)); err != nil {
		return nil, err
	}
	resp, err := v.readHead(b)
	if err != nil {
		return nil, err
	}
	b.SetDeadline(time.Time{})
	if resp.status == http.StatusSwitchingProtocols {
		h := resp.header
		if !strings.EqualFold(one(h, "Upgrade"), "websocket") || !hasToken(h["Connection"], "upgrade") || one(h, "Sec-Websocket-Accept") != accept(one(v.r.Header, "Sec-Websocket-Key")) {
			return nil, errors.New("the app's answer to the handshake is not one of WebSocket")
		}
	}
	return resp, nil
}

func writeSwitch(w io.Writer, h http.Header) error {
	bw := bufio.NewWriterSize(w, 1<<10)
	io.WriteString(bw, "HTTP/1.1 101 Switching Protocols\r\n")
	h.Write(bw)
	io.WriteString(bw, "\r\n")
	return bw.Flush()
}

func buffered(br *bufio.Reader) []byte {
	b, _ := br.Peek(br.Buffered())
	return append([]byte(nil), b...)
}

// begin notes the connections, so that shut reaches them. It is false when the
// socket was shut meanwhile.
func (s *socket) begin(client, app net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.client, s.app = client, app
	if s.why.Load() != 0 {
		abort(app)
		return false
	}
	return true
}

// shut ends the socket. Nothing more of the browser reaches the app, nothing
// new of the app the browser, which is told why.
func (s *socket) shut(why closeCode) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.finished || !s.why.CompareAndSwap(0, uint32(why)) {
		return
	}
	now := time.Now()
	switch {
	case s.app == nil: // still being dialed; begin will see it
	case s.client == nil:
		abort(s.app)
	default:
		s.client.SetReadDeadline(now)
		s.client.SetWriteDeadline(now.Add(sayClose))
		s.app.SetDeadline(now)
	}
}

// end forgets the socket.
func (s *socket) end() {
	s.mu.Lock()
	s.finished = true
	client, app := s.client, s.app
	s.mu.Unlock()
	if client != nil {
		abort(client)
	}
	if app != nil {
		abort(app)
	}
	if s.counted {
		s.g.conns.hijacked(-1)
	}
	s.holder.release(s)
	close(s.closed)
}

// run copies until both directions have ended.
func (s *socket) run(early, late []byte) {
	up := make(chan struct{})
	go func() {
		defer close(up)
		s.toApp(early)
	}()
	go func() {
		s.toBrowser(late)
		<-up
		s.end()
	}()
}

// toApp copies what the browser sends.
func (s *socket) toApp(early []byte) {
	src := s.g.stock.Source(s.client)
	defer src.Drop()
	piece, err := early, error(nil)
	for {
		if len(piece) > 0 {
			if s.why.Load() != 0 {
				return
			}
			s.touch()
			if _, err := s.app.Write(piece); err != nil {
				break
			}
		}
		if err != nil {
			break
		}
		piece, err = src.Next()
	}
	if s.why.Load() == 0 {
		remote.CloseWrite(s.app)
		s.app.SetReadDeadline(time.Now().Add(linger))
		s.again()
	}
}

// again sets the deadlines of a socket that was shut while others were set.
func (s *socket) again() {
	if s.why.Load() != 0 {
		s.client.SetReadDeadline(time.Now())
		s.app.SetDeadline(time.Now())
	}
}

// toBrowser copies what the app sends, and says good-bye.
func (s *socket) toBrowser(late []byte) {
	src := s.g.stock.Source(s.app)
	defer src.Drop()
	var f frames
	piece, err := late, error(nil)
	for {
		if s.why.Load() != 0 {
			s.goodBye(&f, src, piece)
			return
		}
		if len(piece) > 0 {
			f.pass(piece)
			s.touch()
			if _, err := s.client.Write(piece); err != nil {
				abort(s.app)
				s.client.SetReadDeadline(time.Now())
				return
			}
		}
		if err != nil {
			break
		}
		piece, err = src.Next()
	}
	remote.CloseWrite(s.client)
	s.client.SetReadDeadline(time.Now().Add(linger))
	s.again()
}

// goodBye finishes the frame that is under way, writes the close frame and
// waits a little for the browser's answer: a connection closed with unread
// bytes is reset, and a reset overtakes what was written.
func (s *socket) goodBye(f *frames, src *remote.Source, piece []byte) {
	defer abort(s.client)
	abortApp := time.Now().Add(finishFrame)
	for {
		rest := f.rest(piece)
		if len(rest) > 0 {
			f.pass(rest)
			if _, err := s.client.Write(rest); err != nil {
				return
			}
		}
		if f.between() {
			break
		}
		s.app.SetReadDeadline(abortApp)
		var err error
		if piece, err = src.Next(); err != nil && len(piece) == 0 {
			return // the frame never ended; there is no place for another
		}
	}
	abort(s.app)
	why := closeCode(s.why.Load())
	if _, err := s.client.Write(closeFrame(why)); err != nil {
		return
	}
	remote.CloseWrite(s.client)
	s.client.SetReadDeadline(time.Now().Add(sayClose))
	io.Copy(io.Discard, io.LimitReader(s.client, 1<<20))
}

func closeFrame(code closeCode) []byte {
	return binary.BigEndian.AppendUint16([]byte{0x88, 2}, uint16(code))
}

// touch marks traffic.
func (s *socket) touch() {
	if now := s.g.clock.Load(); s.holder.used.Load() < now {
		s.holder.used.Store(now)
	}
}

// frames follows the frames of one direction of a WebSocket (RFC 6455, 5.2)
// without looking at what is in them.
type frames struct {
	head [14]byte
	have int    // bytes of the head so far
	left uint64 // bytes of the payload still to come
}

// between reports whether one frame has ended and the next has not begun.
func (f *frames) between() bool { return f.have == 0 && f.left == 0 }

// headSize is how long the head is, as far as that can be said from n bytes.
func headSize(b []byte) int {
	if len(b) < 2 {
		return 2
	}
	n := 2
	switch b[1] & 0x7f {
	case 126:
		n += 2
	case 127:
		n += 8
	}
	if b[1]&0x80 != 0 {
		n += 4
	}
	return n
}

// step takes bytes up to the end of the frame at most and says how many.
func (f *frames) step(p []byte) int {
	used := 0
	for f.left == 0 && used < len(p) {
		f.head[f.have] = p[used]
		f.have++
		used++
		if f.have < 2 || f.have < headSize(f.head[:f.have]) {
			continue
		}
		switch n := f.head[1] & 0x7f; n {
		case 126:
			f.left = uint64(binary.BigEndian.Uint16(f.head[2:]))
		case 127:
			f.left = binary.BigEndian.Uint64(f.head[2:])
		default:
			f.left = uint64(n)
		}
		f.have = 0
		if f.left == 0 {
			return used // a frame without payload
		}
		break
	}
	if n := uint64(len(p) - used); f.left > 0 {
		n = min(n, f.left)
		f.left -= n
		used += int(n)
	}
	return used
}

// pass takes bytes that are passed on.
func (f *frames) pass(p []byte) {
	for len(p) > 0 {
		p = p[f.step(p):]
	}
}

// rest is the part of p that still belongs to the frame under way.
func (f *frames) rest(p []byte) []byte {
	if f.between() {
		return nil
	}
	probe := *f
	return p[:probe.step(p)]
}
