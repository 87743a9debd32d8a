package terminal

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"sync/atomic"

	"github.com/coder/websocket"

	"quire"
)

const (
	maxChunk = 32 << 10  // bytes of output in one message
	window   = 128 << 10 // bytes sent that the page has not shown yet
	caughtUp = 128 << 10 // bytes left to a page that was too slow
)

// A visitor is one page looking at one shell. Several may look at the same;
// the one who typed last drives: his window is the terminal's size, and his
// page answers when a program asks the terminal something.
type visitor struct {
	socket
	shell *shell
	size  size // guarded by shell.mu
	since int  // guarded by shell.mu

	shown   atomic.Int64 // offset up to which the page has shown the output
	notices chan string
}

// A begin precedes output that does not follow on what was sent before: the
// first, or after a part that the visitor was too slow for.
type begin struct {
	At      int64  `json:"at"`                // offset of the next byte
	Live    int64  `json:"live"`              // output before it is old: questions in it were answered long ago
	Lost    int64  `json:"lost,omitempty"`    // bytes left out
	Fresh   bool   `json:"fresh,omitempty"`   // forget everything shown so far
	Restore string `json:"restore,omitempty"` // modes of the terminal at this place
}

// A condition is the shell as this visitor sees it.
type condition struct {
	Cols   int    `json:"cols"`
	Rows   int    `json:"rows"`
	Drives bool   `json:"drives"`
	Ended  *ended `json:"ended,omitempty"`
}

type message struct {
	Begin  *begin     `json:"begin,omitempty"`
	State  *condition `json:"state,omitempty"`
	Notice string     `json:"notice,omitempty"`
}

// A report is what the page tells beside what is typed.
type report struct {
	Resize *[2]int `json:"resize,omitempty"` // columns, rows
	Claim  bool    `json:"claim,omitempty"`  // with Resize: this is where the person is now
	Shown  *int64  `json:"shown,omitempty"`
}

// serveVisitor answers a page's request to look at a shell. The query says
// which, and the offset up to which the page has its output.
func (d *desk) serveVisitor(w http.ResponseWriter, r *http.Request) error {
	s, err := d.find(r.URL.Query().Get("shell"))
	if err != nil {
		return err
	}
	has, err := strconv.ParseInt(r.URL.Query().Get("at"), 10, 64)
	if err != nil {
		has = -1
	}
	s.mu.Lock()
	full := len(s.visitors) >= maxVisitors
	s.mu.Unlock()
	if full {
		return &quire.Error{Kind: quire.KindTooMany, Message: "This shell is open in too many pages. Close one first."}
	}
	conn, err := accept(w, r)
	if err != nil {
		return nil // answered
	}
	defer conn.CloseNow()
	v := &visitor{socket: newSocket(conn), shell: s, notices: make(chan string, 4)}
	s.mu.Lock()
	s.arrivals++
	v.since = s.arrivals
	s.visitors[v] = true
	s.mu.Unlock()
	defer s.leave(v)
	ctx, end := context.WithCancel(r.Context())
	defer end()
	go v.listen(ctx, end, v.take)
	go v.ping(ctx, end)
	v.run(ctx, has)
	return nil
}

// leave forgets a visitor; if he drove, the one who came last takes over.
func (s *shell) leave(v *visitor) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.visitors, v)
	if s.driver != v {
		return
	}
	s.driver = nil
	var next *visitor
	for o := range s.visitors {
		if o.size != (size{}) && (next == nil || o.since > next.since) {
			next = o
		}
	}
	if next != nil {
		s.drive(next)
	}
}

func (v *visitor) take(kind websocket.MessageType, p []byte) error {
	if kind == websocket.MessageBinary {
		if err := v.shell.enter(v, p); err != nil {
			select {
			case v.notices <- shown(v.shell.log, err).Message:
			default: // he has been told
			}
		}
		return nil
	}
	var m report
	if decode(p, &m) != nil {
		return errors.New("not a report")
	}
	if m.Resize != nil {
		v.shell.resize(v, size{cols: m.Resize[0], rows: m.Resize[1]}, m.Claim)
	}
	if m.Shown != nil {
		v.shown.Store(*m.Shown)
		v.nudge()
	}
	return nil
}

// run sends what there is, in order, and never more than window ahead of what
// the page has shown.
func (v *visitor) run(ctx context.Context, has int64) {
	at, first := has, true
	var told condition
	for {
		out := v.look(&at, &first, told)
		if out.begin != nil {
			v.shown.Store(at)
			if v.tell(ctx, message{Begin: out.begin}) != nil {
				return
			}
		}
		if out.state != nil {
			if v.tell(ctx, message{State: out.state}) != nil {
				return
			}
			told = *out.state
		}
		if len(out.chunk) > 0 {
			if v.send(ctx, websocket.MessageBinary, out.chunk) != nil {
				return
			}
			at += int64(len(out.chunk))
		}
		if out.closed {
			v.conn.Close(websocket.StatusNormalClosure, "closed")
			return
		}
		if out.begin != nil || len(out.chunk) > 0 || out.state != nil {
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-v.news:
		case n := <-v.notices:
			if v.tell(ctx, message{Notice: n}) != nil {
				return
			}
		}
	}
}

// output is the next to be sent to a visitor.
type output struct {
	begin  *begin
	chunk  []byte
	state  *condition
	closed bool
}

// look takes the next piece of output after at. It moves at when there is a gap.
func (v *visitor) look(at *int64, first *bool, told condition) (out output) {
	s := v.shell
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return output{closed: true}
	}
	end := s.out.end()
	if *first || *at < s.out.start {
		b := &begin{At: *at, Live: end}
		switch {
		case *at < 0 || *at > end:
			b.Fresh, b.At = true, s.out.start
			if b.At > 0 {
				b.Restore = s.out.screen.restore()
			}
		case *at < s.out.start:
			// Whoever just returns is sent all there is. Whoever cannot follow is
			// taken to the newest, so that he sees what his keys do.
			keep := s.out.max * 2
			if !*first {
				keep = caughtUp
			}
			place, modes := s.out.last(keep)
			b.At, b.Lost, b.Restore = place, place-*at, modes.restore()
		}
		*at, *first = b.At, false
		v.shown.Store(b.At)
		out.begin = b
	}
	room := *at - v.shown.Load()
	if room = window - max(room, 0); room > 0 {
		out.chunk = s.out.read(*at, min(maxChunk, int(room)))
	}
	c := condition{Cols: s.size.cols, Rows: s.size.rows, Drives: s.driver == v}
	if *at == end {
		c.Ended = s.ended // after its last words
	} else {
		c.Ended = told.Ended
	}
	if c != told {
		out.state = &c
	}
	return out
}
