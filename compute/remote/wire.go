package remote

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"quire"
)

// Limits of everything read from the other side.
const (
	maxBody   = 1 << 20  // bytes of a call's body, either way
	maxHeader = 32 << 10 // bytes of a head
	shortCall = 10 * time.Second
	dialTime  = 5 * time.Second
)

// Server is an http.Server for the listener of a node or a gateway's control
// side: run it with ServeTLS(l, "", ""). Only peers of the given roles get past
// the handshake.
func Server(id *Identity, h http.Handler, log *slog.Logger, roles ...string) *http.Server {
	p := new(http.Protocols)
	p.SetHTTP1(true)
	return &http.Server{
		Handler:           id.speaking(h),
		TLSConfig:         id.Listen(roles...),
		Protocols:         p,
		ReadHeaderTimeout: dialTime,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          QuietLog(log),
		ConnState:         NewNewcomers(quire.Proxies{}, log).State,
	}
}

// dialTLS opens a connection to one node in one role over conn and closes conn
// when the other side is not it.
func dialTLS(ctx context.Context, conn net.Conn, conf *tls.Config) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	c := tls.Client(conn, conf)
	if err := c.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	return c, nil
}

// dialTCP finds a vanished peer within about half a minute, also on an idle
// connection.
func dialTCP(ctx context.Context, addr string) (net.Conn, error) {
	d := net.Dialer{Timeout: dialTime, KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 4}}
	return d.DialContext(ctx, "tcp", addr)
}

// upgrade asks for protocol on a fresh connection and returns it with a reader
// that holds what came behind the answer. Any other answer becomes its error
// and closes the connection.
func upgrade(ctx context.Context, id *Identity, role string, conn net.Conn, path, protocol string, header http.Header) (*bufio.Reader, error) {
	ctx, cancel := context.WithTimeout(ctx, shortCall)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	br, err := upgraded(id, role, conn, path, protocol, header)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return br, nil
}

func upgraded(id *Identity, role string, conn net.Conn, path, protocol string, header http.Header) (*bufio.Reader, error) {
	req, err := http.NewRequest(http.MethodPost, "http://"+Domain+path, nil)
	if err != nil {
		return nil, err
	}
	for k, v := range header {
		req.Header[k] = v
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", protocol)
	id.Speaks.say(req.Header)
	if err := req.Write(conn); err != nil {
		return nil, err
	}
	limited := &io.LimitedReader{R: conn, N: maxHeader + maxBody}
	br := bufio.NewReaderSize(limited, 4<<10)
	resp, err := http.ReadResponse(br, req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		return nil, decode(resp)
	}
	if resp.Header.Get("Upgrade") != protocol {
		return nil, fmt.Errorf("asked for %s, got %q", protocol, resp.Header.Get("Upgrade"))
	}
	if err := id.understand(role, resp.Header); err != nil {
		return nil, err
	}
	limited.N = 1<<63 - 1
	return br, nil
}

// decode turns an answer that is not what was asked for into its error.
// Redirects are such answers: nobody here follows one.
func decode(resp *http.Response) error {
	body, err := readAll(resp.Body)
	if err != nil {
		return err
	}
	return quire.DecodeError(resp.StatusCode, body)
}

// readAll reads at most maxBody bytes; more is an error, not a cut.
func readAll(r io.Reader) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxBody+1))
	if err == nil && len(b) > maxBody {
		err = errors.New("the other side sent more than a call may")
	}
	return b, err
}

// fail answers with err, and logs one that is not only the caller's.
func fail(w http.ResponseWriter, log *slog.Logger, r *http.Request, err error) {
	e := quire.AsError(err)
	if e.Kind == quire.KindInternal || e.Err != nil {
		log.Warn("call failed", "path", r.URL.Path, "kind", e.Kind, "error", e)
	}
	refuse(w, e)
}

// refuse writes err as the JSON that quire.DecodeError reads.
func refuse(w http.ResponseWriter, err error) {
	e := quire.AsError(err)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(e.Status())
	json.NewEncoder(w).Encode(struct {
		Error *quire.Error `json:"error"`
	}{e})
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v)
}

// hijack takes the connection of a request that asked for protocol and answers
// 101. What the peer sent behind its request is in the reader.
func hijack(w http.ResponseWriter, r *http.Request, protocol string) (net.Conn, *bufio.Reader, error) {
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, nil, fmt.Errorf("hijack: %w", err)
	}
	conn.SetDeadline(time.Now().Add(dialTime))
	_, err = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+protocol+"\r\n"+spoken(w)+"\r\n")
	if err != nil {
		conn.Close()
		return nil, nil, err
	}
	conn.SetDeadline(time.Time{})
	return conn, rw.Reader, nil
}

// spoken are the lines of a head that say what we speak.
func spoken(w http.ResponseWriter) string {
	return fmt.Sprintf("%s: %s\r\n%s: %s\r\n", headerProtocol, w.Header().Get(headerProtocol), headerVersion, w.Header().Get(headerVersion))
}

// joined is a connection whose first bytes were already read into a buffer.
type joined struct {
	net.Conn
	first *bufio.Reader // nil once it is empty
}

// join returns conn itself when nothing is left in the buffer.
func join(conn net.Conn, br *bufio.Reader) net.Conn {
	if br.Buffered() == 0 {
		return conn
	}
	return &joined{Conn: conn, first: br}
}

func (j *joined) Read(p []byte) (int, error) {
	if j.first != nil {
		if n := j.first.Buffered(); n > 0 {
			return j.first.Read(p[:min(n, len(p))])
		}
		j.first = nil
	}
	return j.Conn.Read(p)
}

func (j *joined) CloseWrite() error { return CloseWrite(j.Conn) }

// NetConn is the connection without TLS, as of a tls.Conn.
func (j *joined) NetConn() net.Conn {
	if t, ok := j.Conn.(interface{ NetConn() net.Conn }); ok {
		return t.NetConn()
	}
	return j.Conn
}

// pipe carries bytes both ways until both are done. When one direction has
// ended, the other has linger to end too.
func pipe(a, b net.Conn, buffers *Buffers) {
	const linger = 10 * time.Second
	done := make(chan struct{})
	half := func(dst, src net.Conn) {
		carry(dst, buffers.Source(src))
		CloseWrite(dst)
		dst.SetReadDeadline(time.Now().Add(linger))
	}
	go func() {
		half(a, b)
		close(done)
	}()
	half(b, a)
	<-done
	a.Close()
	b.Close()
}

func carry(dst io.Writer, src *Source) {
	defer src.Drop()
	for {
		piece, err := src.Next()
		if len(piece) > 0 {
			if _, err := dst.Write(piece); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
