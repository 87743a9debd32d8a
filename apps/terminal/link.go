package terminal

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"time"
	"unicode/utf8"

	"github.com/coder/websocket"

	"quire"
	"quire/apps"
)

const (
	maxMessage   = 64 << 10 // bytes; a page sends pastes in pieces of 16 KiB
	writeTimeout = 30 * time.Second
	pingEvery    = 30 * time.Second
	pongWithin   = 30 * time.Second
	beatEvery    = 15 * time.Second
)

// A socket is one WebSocket to a page: a link (the list of shells and what may
// be done with it) or a visitor (one shell).
type socket struct {
	conn *websocket.Conn
	news chan struct{} // something may have to be sent
}

func newSocket(conn *websocket.Conn) socket {
	conn.SetReadLimit(maxMessage)
	return socket{conn: conn, news: make(chan struct{}, 1)}
}

func (s *socket) nudge() {
	select {
	case s.news <- struct{}{}:
	default:
	}
}

func (s *socket) send(ctx context.Context, kind websocket.MessageType, p []byte) error {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	return s.conn.Write(ctx, kind, p)
}

func (s *socket) tell(ctx context.Context, v any) error {
	p, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return s.send(ctx, websocket.MessageText, p)
}

// listen hands each message to take until the socket ends. A page that breaks
// the rules is hung up on with the reason. It ends ctx when it returns.
func (s *socket) listen(ctx context.Context, end context.CancelFunc, take func(kind websocket.MessageType, p []byte) error) {
	defer end()
	for {
		kind, p, err := s.conn.Read(ctx)
		if err != nil {
			return
		}
		if kind == websocket.MessageText && !utf8.Valid(p) {
			s.conn.Close(websocket.StatusInvalidFramePayloadData, "text that is not UTF-8")
			return
		}
		if err := take(kind, p); err != nil {
			s.conn.Close(websocket.StatusPolicyViolation, apps.Plain(err.Error(), 100))
			return
		}
	}
}

// ping ends ctx when the page has been silent for too long.
func (s *socket) ping(ctx context.Context, end context.CancelFunc) {
	tick := time.NewTicker(pingEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		pinged, cancel := context.WithTimeout(ctx, pongWithin)
		err := s.conn.Ping(pinged)
		cancel()
		if err != nil {
			end()
			return
		}
	}
}

// A link is one open page. It is told the whole list each time it changes.
type link struct {
	socket
	desk    *desk
	answers chan answer
}

// A command is what a page asks of the desk.
type command struct {
	Do    string `json:"do"` // "open", "close", "rename", "restart"
	Tag   int    `json:"tag"`
	Shell string `json:"shell,omitempty"`
	Name  string `json:"name,omitempty"`
	Sure  bool   `json:"sure,omitempty"`
}

// An answer goes to the page that sent the command with the same tag.
type answer struct {
	Tag   int          `json:"tag"`
	Shell string       `json:"shell,omitempty"` // the new one
	Busy  string       `json:"busy,omitempty"`  // the program that a close would end
	Error *quire.Error `json:"error,omitempty"`
}

func (d *desk) serveLink(w http.ResponseWriter, r *http.Request) error {
	d.mu.Lock()
	full := len(d.links) >= maxLinks
	d.mu.Unlock()
	if full {
		return &quire.Error{Kind: quire.KindTooMany, Message: "This terminal is open in too many pages. Close one first."}
	}
	conn, err := accept(w, r)
	if err != nil {
		return nil // answered
	}
	defer conn.CloseNow()
	l := &link{socket: newSocket(conn), desk: d, answers: make(chan answer, 16)}
	// A page for one shell opens its own.
	if !r.URL.Query().Has("one") {
		if err := d.first(); err != nil {
			l.answers <- answer{Error: shown(d.log, err)}
		}
	}
	d.mu.Lock()
	d.links[l] = true
	d.mu.Unlock()
	defer func() {
		d.mu.Lock()
		delete(d.links, l)
		d.mu.Unlock()
	}()
	ctx, end := context.WithCancel(r.Context())
	defer end()
	go l.listen(ctx, end, l.take)
	go l.ping(ctx, end)
	l.run(ctx)
	return nil
}

// run sends the list, answers, and a beat by which the page notices a link that
// has died without a word.
func (l *link) run(ctx context.Context) {
	beat := time.NewTicker(beatEvery)
	defer beat.Stop()
	var sent []byte
	for {
		list, err := json.Marshal(map[string]any{"boot": l.desk.boot, "shells": l.desk.tabs()})
		if err != nil {
			return
		}
		if !bytes.Equal(list, sent) {
			if l.send(ctx, websocket.MessageText, list) != nil {
				return
			}
			sent = list
		}
		select {
		case <-ctx.Done():
			return
		case <-l.news:
			continue
		case a := <-l.answers:
			err = l.tell(ctx, a)
		case <-beat.C:
			err = l.tell(ctx, struct{}{})
		}
		if err != nil {
			return
		}
	}
}

func (l *link) take(kind websocket.MessageType, p []byte) error {
	var c command
	if kind != websocket.MessageText || decode(p, &c) != nil {
		return errors.New("not a command")
	}
	a := answer{Tag: c.Tag}
	var err error
	switch c.Do {
	case "open":
		var s *shell
		if s, err = l.desk.open(); err == nil {
			a.Shell = s.id
		}
	case "close":
		a.Busy, err = l.desk.close(c.Shell, c.Sure)
	case "rename":
		err = l.desk.rename(c.Shell, c.Name)
	case "restart":
		err = l.desk.restart(c.Shell)
	default:
		return errors.New("not a command")
	}
	if err != nil {
		a.Error = shown(l.desk.log, err)
	}
	select {
	case l.answers <- a:
		return nil
	default:
		return errors.New("too many commands at once")
	}
}

// shown is the part of an error a person sees; the rest goes to the log.
func shown(log *slog.Logger, err error) *quire.Error {
	e := quire.AsError(err)
	if e.Err != nil {
		log.Warn("terminal", "err", e.Err)
	}
	return e
}

func decode(p []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(p))
	d.DisallowUnknownFields()
	return d.Decode(v)
}
