package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"strconv"
	"strings"
	"time"

	"quire"
)

const (
	inlineBody = 16 << 10 // a request body up to this is read before it is sent on
	maxInfos   = 5        // 1xx answers
)

var (
	errCut      = errors.New("the answer was cut off") // by either side, after its head was passed on
	errAnswered = errors.New("answered by a page of ours")
)

// hop carries one request to the app and its answer back. net/http's transport
// would hand each of them through two more goroutines; on this path, where
// every keystroke in a notebook goes, that costs more than all of our checks.
func (v *visit) hop(a *app) {
	body := v.r.Body
	length := v.r.ContentLength
	var inline []byte
	if length > 0 && length <= inlineBody {
		inline = make([]byte, length)
		if _, err := io.ReadFull(body, inline); err != nil {
			v.g.plain(v.w, http.StatusBadRequest, "The request was cut off.")
			return
		}
		length = 0
	}
	for try := 0; ; try++ {
		again, err := v.exchange(a, inline, length != 0, try == 0)
		switch {
		case err == nil || errors.Is(err, errAnswered):
			return
		case errors.Is(err, errCut) || v.r.Context().Err() != nil:
			panic(http.ErrAbortHandler)
		case again && try < 2:
			continue
		case v.seen.holder.dead.Load():
			v.refused(errRevoked)
			return
		}
		v.appFailed(a, err)
		return
	}
}

// A reply is the head of an app's answer, and where its body is.
type reply struct {
	status int
	header http.Header
	length int64     // of the body; -1: until its end
	close  bool      // the connection ends with it
	body   io.Reader // nil: length bytes, right from the connection
	head   head
}

// exchange sends the request over one connection. again says that nothing was
// lost and another connection may be tried.
func (v *visit) exchange(a *app, inline []byte, stream, mayReuse bool) (again bool, err error) {
	g, h := v.g, v.seen.holder
	p, err := h.pool(a.Session)
	if err != nil {
		return false, err
	}
	m := v.r.Method
	repeatable := (m == http.MethodGet || m == http.MethodHead || m == http.MethodOptions) && !stream
	var b *backend
	if mayReuse {
		if b, err = p.get(g.now(), repeatable); err != nil {
			return true, err
		}
	}
	reused := b != nil
	if b == nil {
		conn, err := g.dial(v.r.Context(), a, v.grant)
		g.nodes.reached(a.Node, nodeError(err))
		if err != nil {
			return false, err
		}
		b = newBackend(conn)
		if err := p.add(b); err != nil {
			return true, err
		}
	}
	stop := v.watch(b)
	defer stop()

	buf := g.buffers.small.Get().(*[]byte)
	defer g.buffers.small.Put(buf)
	head := v.requestHead((*buf)[:0], a, stream, len(inline))
	head = append(head, inline...)
	var sent chan error
	if !stream {
		err = b.send(head)
	} else if _, err = b.Conn.Write(head); err == nil {
		http.NewResponseController(v.w).EnableFullDuplex() // an app may answer before it has read everything
		sent = make(chan error, 1)
		go func() { sent <- v.sendBody(b) }()
	}
	if err != nil {
		p.drop(b)
		return reused && !stream, err
	}
	r, err := v.readHead(b)
	if err != nil {
		p.drop(b)
		v.stopBody(sent)
		return reused && repeatable && b.silent(), err
	}
	err = v.respond(a, b, r)
	usable := err == nil && !r.close
	v.replies(r)
	if sent != nil {
		select {
		case sendErr := <-sent:
			usable = usable && sendErr == nil
		default: // answered before it had read everything
			p.drop(b)
			v.stopBody(sent)
			return false, err
		}
	}
	if stop() && usable {
		p.put(b, g.now())
	} else {
		p.drop(b)
	}
	return false, err
}

// watch ends the app's connection when the browser leaves. The returned
// function ends the watch, and is false if it has come to that.
func (v *visit) watch(b *backend) func() bool {
	if v.line == nil {
		return context.AfterFunc(v.r.Context(), b.abort)
	}
	v.line.works(b)
	return v.line.unwatch
}

// requestHead is the request as the app gets it.
func (v *visit) requestHead(b []byte, a *app, stream bool, length int) []byte {
	r := v.r
	b = append(b, r.Method...)
	b = append(b, ' ')
	b = append(b, r.RequestURI[len(v.pass):]...)
	b = append(b, " HTTP/1.1\r\nHost: "...)
	b = append(b, r.Host...)
	b = append(b, "\r\n"...)
	b = appendFields(b, r.Header)
	b = append(b, a.head...)
	if v.pass != "" {
		b = append(b, "X-Forwarded-Prefix: "...)
		b = append(b, v.fresh...)
		b = append(b, "\r\n"...)
	}
	b = append(b, "X-Forwarded-For: "...)
	b = append(b, v.g.cfg.Proxies.Client(r.RemoteAddr, r.Header["X-Forwarded-For"])...)
	b = append(b, "\r\n"...)
	switch {
	case v.upgrade:
		b = append(b, "Connection: Upgrade\r\nUpgrade: websocket\r\n"...)
	case stream && r.ContentLength < 0:
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
	case stream:
		b = append(b, "Content-Length: "...)
		b = strconv.AppendInt(b, r.ContentLength, 10)
		b = append(b, "\r\n"...)
	case length > 0 || r.Method == http.MethodPost || r.Method == http.MethodPut || r.Method == http.MethodPatch:
		b = append(b, "Content-Length: "...)
		b = strconv.AppendInt(b, int64(length), 10)
		b = append(b, "\r\n"...)
	}
	return append(b, "\r\n"...)
}

// sendBody copies a body of unknown or large size.
func (v *visit) sendBody(b *backend) error {
	buf := v.g.buffers.large.Get().(*[]byte)
	defer v.g.buffers.large.Put(buf)
	if v.r.ContentLength < 0 {
		w := httputil.NewChunkedWriter(b.Conn)
		if _, err := io.CopyBuffer(onlyWriter{w}, v.r.Body, *buf); err != nil {
			return err
		}
		if err := w.Close(); err != nil {
			return err
		}
		_, err := io.WriteString(b.Conn, "\r\n")
		return err
	}
	n, err := io.CopyBuffer(onlyWriter{b.Conn}, v.r.Body, *buf)
	if err == nil && n != v.r.ContentLength {
		err = io.ErrUnexpectedEOF
	}
	return err
}

type onlyWriter struct{ io.Writer }

// stopBody ends a copy of the body that is still going on. The browser's
// connection cannot be used again, since the rest of the body is on it.
func (v *visit) stopBody(sent chan error) {
	if sent == nil {
		return
	}
	http.NewResponseController(v.w).SetReadDeadline(time.Unix(1, 0))
	<-sent
}

// readHead reads the head of the final answer.
func (v *visit) readHead(b *backend) (*reply, error) {
	r := v.g.replies.Get().(*reply)
	b.left, b.began = maxRespHead, false
	if _, err := b.br.Peek(1); err != nil {
		return nil, err
	}
	if first, _ := b.br.Peek(b.br.Buffered()); v.plainReply(b, r, first) {
		b.left = noLimit
		return r, nil
	}
	for range maxInfos {
		b.left = maxRespHead
		resp, err := http.ReadResponse(b.br, v.r)
		if err != nil {
			return nil, err
		}
		b.left = noLimit
		switch {
		case resp.StatusCode == http.StatusSwitchingProtocols && !v.upgrade:
			return nil, errors.New("the app switched protocols unasked")
		case resp.StatusCode >= 200 || resp.StatusCode == http.StatusSwitchingProtocols:
			r.status, r.header, r.length, r.close, r.body = resp.StatusCode, resp.Header, resp.ContentLength, resp.Close, resp.Body
			if resp.Body == http.NoBody {
				r.length = 0
			}
			return r, nil
		}
	}
	return nil, errors.New("the app sends one interim answer after the other")
}

// plainReply takes the head if it is there as a whole and a usual one.
func (v *visit) plainReply(b *backend, r *reply, first []byte) bool {
	end := bytes.Index(first, []byte("\r\n\r\n"))
	if end < 0 || !r.head.parseReply(string(first[:end+2]), r) {
		return false
	}
	b.br.Discard(end + 4)
	return true
}

// replies takes a reply back for the next request.
func (v *visit) replies(r *reply) {
	r.header, r.body = nil, nil
	v.g.replies.Put(r)
}

// respond passes the answer on. After its head is written an error can only cut
// the connection.
func (v *visit) respond(a *app, b *backend, r *reply) error {
	out := v.w.Header()
	switch err := v.origin().answerHeader(out, r.header, a.App); {
	case errors.Is(err, errElsewhere):
		to := out["Location"][0]
		clear(out)
		v.elsewhere(a, to)
		return errAnswered
	case err != nil:
		clear(out)
		return err
	}
	if v.content != nil {
		v.content.contentHeader(out)
	}
	if _, typed := out["Content-Type"]; !typed {
		out["Content-Type"] = nil // net/http would guess one
	}
	v.refreshCookie(out)
	v.w.WriteHeader(r.status)
	if r.length == 0 || v.r.Method == http.MethodHead {
		return nil
	}
	if r.body == nil {
		// What is here already needs no copy.
		n := int(min(r.length, int64(b.br.Buffered())))
		piece, _ := b.br.Peek(n)
		if _, err := v.w.Write(piece); err != nil {
			return errCut
		}
		b.br.Discard(n)
		if r.length -= int64(n); r.length == 0 {
			return nil
		}
		r.body = io.LimitReader(b.br, r.length)
	}
	return v.copyBody(b, r)
}

func (v *visit) copyBody(b *backend, r *reply) error {
	pool := v.g.buffers.small
	if r.length < 0 || r.length > 8<<10 {
		pool = v.g.buffers.large
	}
	buf := pool.Get().(*[]byte)
	defer pool.Put(buf)
	flush := http.NewResponseController(v.w)
	left := r.length
	for {
		n, err := r.body.Read(*buf)
		if n > 0 {
			left -= int64(n)
			if _, werr := v.w.Write((*buf)[:n]); werr != nil {
				return errCut
			}
			// What has come so far goes out at once unless more is already here.
			if left != 0 && err == nil && b.br.Buffered() == 0 {
				flush.Flush()
			}
		}
		switch {
		case left == 0, r.length < 0 && errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
			return nil
		case err != nil:
			return fmt.Errorf("%w: %w", errCut, err)
		}
	}
}

// nodeError is err when it says that the node itself was not reached.
func nodeError(err error) error {
	if quire.KindOf(err) == quire.KindUnavailable {
		return err
	}
	return nil
}

// refreshCookie puts the newest grant into the browser's cookie, so that a
// gateway that restarts while the server is away still knows it.
func (v *visit) refreshCookie(out http.Header) {
	c := v.seen
	if v.content != nil || v.grant.Issued.Sub(c.issued) < refreshAfter || c.renewed.Load() || strings.Contains(out.Get("Cache-Control"), "public") {
		return
	}
	if c.renewed.CompareAndSwap(false, true) {
		out.Add("Set-Cookie", v.site.app.set(v.g.seal.close(v.grant.raw, v.site.label), 0, "Lax"))
	}
}
