package lab

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/coder/websocket"

	"quire"
	"quire/apps/kernel"
)

// A listener is one connection of a page to a kernel, by the name that it keeps when
// it connects again. The fields are guarded by the kernel's mutex.
type listener struct {
	name  string
	conn  *websocket.Conn
	open  bool // it is connected, or about to be
	quit  context.CancelFunc
	wake  chan struct{}
	sent  int64     // the newest entry that was written to conn
	heard int64     // the newest that has arrived for certain
	left  time.Time // since when it is away
}

func (c *listener) poke() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *listener) end() {
	if c.quit != nil {
		c.quit()
	}
}

const (
	protocolV1 = "v1.kernel.websocket.jupyter.org"
	readMost   = 256 << 20 // bytes of one message of a page
	pongLimit  = 30 * time.Second
)

// serveChannels connects a page with a kernel. A page that was here before, by its
// session_id, gets what it has not heard; another gets what is said from now on.
func (s *server) serveChannels(w http.ResponseWriter, r *http.Request, k *running) error {
	name := r.URL.Query().Get("session_id")
	if name == "" {
		name = kernel.NewID()
	}
	if len(name) > 128 {
		return quire.Invalid("session_id", "The session's name is too long.")
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	c, err := k.enter(name, cancel)
	if err != nil {
		return err
	}
	// OwnPage has checked the origin.
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{protocolV1}, CompressionMode: websocket.CompressionDisabled})
	if err != nil {
		k.leave(c, false)
		return nil // it has answered
	}
	defer conn.CloseNow()
	conn.SetReadLimit(readMost)
	k.mu.Lock()
	c.conn = conn
	k.mu.Unlock()
	closed := false
	defer func() { k.leave(c, closed) }()
	s.active.Store(time.Now().UnixNano())

	v1 := conn.Subprotocol() == protocolV1
	pings := make(chan struct{}, 1)
	go func() {
		defer cancel()
		k.speak(ctx, c, v1, pings)
	}()
	go func() {
		defer cancel()
		k.confirm(ctx, c, pings)
	}()
	for {
		kind, b, err := conn.Read(ctx)
		if err != nil {
			code := websocket.CloseStatus(err)
			closed = code == websocket.StatusNormalClosure || code == websocket.StatusGoingAway
			return nil
		}
		m, err := readMessage(kind, b, v1)
		if err == nil {
			err = k.say(ctx, c, m)
		}
		if err != nil {
			s.log.Warn("a page's message was not passed on", "kernel", k.id, "err", err)
			if quire.KindOf(err) == quire.KindUnavailable {
				conn.Close(websocket.StatusTryAgainLater, "The kernel is away.")
				return nil
			}
		}
	}
}

// enter makes a client the one of its name. A connection of that name that is open
// yet ends: a page that connects again has lost it.
func (r *running) enter(name string, quit context.CancelFunc) (*listener, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	before := r.clients[name]
	if before == nil && len(r.clients) >= maxClients {
		return nil, &quire.Error{Kind: quire.KindTooMany, Message: "Too many pages are connected to this kernel. Close some."}
	}
	c := &listener{name: name, quit: quit, wake: make(chan struct{}, 1), sent: r.seq, heard: r.seq, left: time.Now(), open: true}
	if before != nil {
		before.end()
		c.sent, c.heard = before.heard, before.heard
	}
	r.clients[name] = c
	r.mark(name, c.heard) // known also to who takes over from this process
	r.cells.back(name)
	c.poke()
	return c, nil
}

// leave notes that a client is away, unless it is here again already. One that
// closed its connection, as a page does when it is left, is not expected long.
func (r *running) leave(c *listener, closed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c.open = false
	c.left = time.Now()
	if r.clients[c.name] != c {
		return
	}
	if closed {
		c.left = c.left.Add(closedMost - awayMost)
		r.absent(c.name)
	} else {
		r.expect(c.name)
	}
	r.settle()
}

// here reports whether a client is connected. r.mu is held.
func (r *running) here(name string) bool {
	c := r.clients[name]
	return c != nil && c.open
}

// speak writes to a client what it must hear.
func (r *running) speak(ctx context.Context, c *listener, v1 bool, pings chan<- struct{}) {
	// A page learns what the kernel does from its messages, and a busy one may say
	// nothing for long.
	r.mu.Lock()
	state, session := r.state.State, r.session
	r.mu.Unlock()
	if session != "" && (state == kernel.Idle || state == kernel.Busy) {
		m := kernel.NewMessage(kernel.IOPub, "status", session, kernel.Header{}, object{"execution_state": state})
		if c.write(ctx, &m, v1) != nil {
			return
		}
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.wake:
		}
		for {
			r.mu.Lock()
			i, _ := slices.BinarySearchFunc(r.ring, c.sent+1, func(e kernel.Entry, at int64) int { return int(min(max(e.Seq-at, -1), 1)) })
			next := slices.Clone(r.ring[i:min(len(r.ring), i+64)])
			r.mu.Unlock()
			if len(next) == 0 {
				break
			}
			for _, e := range next {
				if m := r.heardBy(c, e); m != nil && c.write(ctx, m, v1) != nil {
					return
				}
				r.mu.Lock()
				c.sent = e.Seq
				r.mu.Unlock()
			}
		}
		select {
		case pings <- struct{}{}:
		default:
		}
	}
}

func (c *listener) write(ctx context.Context, m *kernel.Message, v1 bool) error {
	kind, b := websocket.MessageBinary, m.Frame()
	if !v1 {
		kind, b = writeMessage(m)
	}
	return c.conn.Write(ctx, kind, b)
}

// confirm learns how much has arrived: a pong answers a ping only after everything
// that was sent before it (RFC 6455, 5.5.3, and messages keep their order).
func (r *running) confirm(ctx context.Context, c *listener, pings <-chan struct{}) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-pings:
		}
		r.mu.Lock()
		sent := c.sent
		news := sent > c.heard
		r.mu.Unlock()
		if !news {
			continue
		}
		wait, cancel := context.WithTimeout(ctx, pongLimit)
		err := c.conn.Ping(wait)
		cancel()
		if err != nil {
			return
		}
		r.mu.Lock()
		if r.clients[c.name] == c {
			c.heard = sent
			r.cells.arrived(c.name, sent)
			r.mark(c.name, sent)
			r.settle()
		}
		r.mu.Unlock()
	}
}

// heardBy is the message that an entry is for a client, nil if it is not for him.
// What we say for the kernel bears the session of its own messages: pages drop what
// is left to handle of another one.
func (r *running) heardBy(c *listener, e kernel.Entry) *kernel.Message {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case e.Message != nil && e.Message.Channel == kernel.IOPub:
		return e.Message
	case e.Message != nil:
		cause := e.Message.Cause()
		who := r.asked.who[cause.ID]
		if who == "" {
			who = cause.Session
		}
		if who == c.name {
			return e.Message
		}
	case e.State != nil:
		state := e.State.State
		switch state {
		case kernel.AutoRestarting:
			// The word that Jupyter Server has for it.
			state = kernel.Restarting
		case kernel.Dead:
		default:
			return nil // the kernel says so itself, or whoever asked for it knows
		}
		m := kernel.NewMessage(kernel.IOPub, "status", r.session, kernel.Header{}, object{"execution_state": state, "reason": e.State.Reason})
		return &m
	case e.Lost:
		m := kernel.NewMessage(kernel.IOPub, "stream", r.session, kernel.Header{}, object{"name": "stderr", "text": "[Quire: some output came faster than this page could take it, and is left out here.]\n"})
		return &m
	}
	return nil
}

// say passes a client's message on.
func (r *running) say(ctx context.Context, c *listener, m kernel.Message) error {
	if m.Channel == kernel.IOPub {
		return errors.New("nobody but the kernel publishes")
	}
	h, err := r.ks.reach(ctx)
	if err != nil {
		return err
	}
	r.mu.Lock()
	r.asked.add(m.Head().ID, c.name)
	r.mu.Unlock()
	return h.Send(r.id, m)
}

func statusOf(m *kernel.Message) string {
	if m.Channel != kernel.IOPub || m.Head().Type != "status" {
		return ""
	}
	var c struct {
		State string `json:"execution_state"`
	}
	if json.Unmarshal(m.Content, &c) != nil || c.State != kernel.Idle && c.State != kernel.Busy {
		return ""
	}
	return c.State
}

// The older protocol of the WebSocket: a message is JSON, or, if it has buffers,
// a count, offsets of 32 bits (big-endian), the JSON and the buffers.
type oldMessage struct {
	Header   json.RawMessage `json:"header"`
	ID       string          `json:"msg_id,omitempty"`
	Type     string          `json:"msg_type,omitempty"`
	Parent   json.RawMessage `json:"parent_header"`
	Metadata json.RawMessage `json:"metadata"`
	Content  json.RawMessage `json:"content"`
	Buffers  []any           `json:"buffers"`
	Channel  kernel.Channel  `json:"channel"`
}

var errNoMessage = errors.New("this is no message for a kernel")

func readMessage(kind websocket.MessageType, b []byte, v1 bool) (kernel.Message, error) {
	if v1 && kind == websocket.MessageBinary {
		m, err := kernel.ParseMessage(b)
		if err != nil {
			return m, err
		}
		return m, sound(m)
	}
	var m kernel.Message
	if kind == websocket.MessageBinary {
		if len(b) < 8 {
			return m, errNoMessage
		}
		n := binary.BigEndian.Uint32(b)
		if n == 0 || n > 4096 || uint64(len(b)) < 4*(uint64(n)+1) {
			return m, errNoMessage
		}
		at := func(i uint32) uint32 {
			if i == n {
				return uint32(len(b))
			}
			return binary.BigEndian.Uint32(b[4*(i+1):])
		}
		for i := range n {
			if at(i) > at(i+1) || at(i+1) > uint32(len(b)) || at(0) < 4*(n+1) {
				return m, errNoMessage
			}
			if i > 0 {
				m.Buffers = append(m.Buffers, b[at(i):at(i+1)])
			}
		}
		b = b[at(0):at(1)]
	}
	var old oldMessage
	if err := json.Unmarshal(b, &old); err != nil {
		return m, errNoMessage
	}
	m.Channel, m.Header, m.Parent, m.Metadata, m.Content = old.Channel, old.Header, old.Parent, old.Metadata, old.Content
	for _, part := range []*[]byte{&m.Parent, &m.Metadata, &m.Content} {
		if len(*part) == 0 || string(*part) == "null" {
			*part = []byte("{}")
		}
	}
	return m, sound(m)
}

// sound refuses what a kernel would choke on.
func sound(m kernel.Message) error {
	switch m.Channel {
	case kernel.Shell, kernel.Control, kernel.Stdin:
	default:
		return errNoMessage
	}
	for _, part := range [][]byte{m.Header, m.Parent, m.Metadata, m.Content} {
		if !json.Valid(part) {
			return errNoMessage
		}
	}
	if h := m.Head(); h.ID == "" || h.Type == "" {
		return errNoMessage
	}
	return nil
}

func writeMessage(m *kernel.Message) (websocket.MessageType, []byte) {
	h := m.Head()
	b, err := json.Marshal(oldMessage{Header: m.Header, ID: h.ID, Type: h.Type, Parent: m.Parent, Metadata: m.Metadata, Content: m.Content, Buffers: []any{}, Channel: m.Channel})
	if err != nil {
		panic(err) // its parts are valid
	}
	if len(m.Buffers) == 0 {
		return websocket.MessageText, b
	}
	parts := append([][]byte{b}, m.Buffers...)
	at := 4 * (len(parts) + 1)
	out := binary.BigEndian.AppendUint32(nil, uint32(len(parts)))
	for _, p := range parts {
		out = binary.BigEndian.AppendUint32(out, uint32(at))
		at += len(p)
	}
	for _, p := range parts {
		out = append(out, p...)
	}
	return websocket.MessageBinary, out
}

// askers remembers who asked what, the newest maxAsked of them.
type askers struct {
	who   map[string]string
	order []string
}

func (a *askers) add(request, client string) {
	if a.who[request] != "" {
		return
	}
	a.who[request] = client
	if a.order = append(a.order, request); len(a.order) > maxAsked {
		delete(a.who, a.order[0])
		a.order = a.order[1:]
	}
}
