package kernel

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"quire"
)

// A Holder is the process that has the kernels, as a server sees it.
type Holder struct {
	conn net.Conn
	pid  int

	mu    sync.Mutex // writing, and what follows
	out   *bufio.Writer
	next  int64
	asked map[int64]chan error
	err   error // set when the connection has ended
}

// Reach connects to the holder of a directory and starts one if there is none.
// hear is called for everything that happens from then on, in its order and from
// one goroutine; first with what was kept of the kernels in known. It must not
// block. When the holder is gone, lost is called.
func Reach(ctx context.Context, dir, program string, hear func(id string, e Entry), lost func(error)) (h *Holder, known []Known, err error) {
	conn, err := reach(ctx, dir, program)
	if err != nil {
		return nil, nil, err
	}
	h = &Holder{conn: conn, out: bufio.NewWriterSize(conn, 64<<10), asked: map[int64]chan error{}}
	in := bufio.NewReaderSize(conn, 256<<10)
	first, err := readPacket(in)
	var hello Hello
	if err == nil && first.op == opHello {
		err = json.Unmarshal(first.data, &hello)
	}
	if err != nil {
		conn.Close()
		return nil, nil, fmt.Errorf("the kernels' process: %w", err)
	}
	h.pid = hello.PID
	go func() {
		err := h.listen(in, hear)
		h.mu.Lock()
		h.err = err
		for n, c := range h.asked {
			c <- gone()
			delete(h.asked, n)
		}
		h.mu.Unlock()
		conn.Close()
		lost(err)
	}()
	return h, hello.Kernels, nil
}

var errGone = errors.New("the process that has the kernels has ended")

func gone() error { return quire.Unavailable("The process that has the kernels has ended.", errGone) }

const reachLimit = 10 * time.Second

func reach(ctx context.Context, dir, program string) (net.Conn, error) {
	socket := filepath.Join(dir, socketName)
	if conn, err := net.Dial("unix", socket); err == nil {
		return conn, nil
	}
	appear, err := watch(dir)
	if err != nil {
		return nil, err
	}
	defer appear.close()
	cmd := exec.Command(program, "kernels", "--dir", dir)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // what ends the server's group does not end it
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	late := time.After(reachLimit)
	for {
		if conn, err := net.Dial("unix", socket); err == nil {
			return conn, nil
		}
		select {
		case <-appear.changed:
		case <-time.After(nudge): // bound, and not listening for a moment
		case <-ended:
			return nil, errors.New("the process for the kernels ended at its start; the app's log says why")
		case <-late:
			return nil, errors.New("the process for the kernels does not listen")
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (h *Holder) listen(in *bufio.Reader, hear func(string, Entry)) error {
	for {
		p, err := readPacket(in)
		if err != nil {
			return err
		}
		switch p.op {
		case opAnswer:
			var a struct{ Error string }
			if err := json.Unmarshal(p.data, &a); err != nil {
				return err
			}
			h.mu.Lock()
			c := h.asked[p.n]
			delete(h.asked, p.n)
			h.mu.Unlock()
			if c == nil {
				continue
			}
			if a.Error != "" {
				c <- quire.Failed("The kernel: "+a.Error+".", nil)
			} else {
				c <- nil
			}
		case opEntry:
			e := Entry{Seq: p.n}
			switch p.kind {
			case kindMessage, kindAsked:
				m, err := ParseMessage(p.data)
				if err != nil {
					return err
				}
				if e.Message = &m; p.kind == kindAsked {
					e.Message, e.Asked = nil, &m
				}
			case kindState:
				e.State = &State{}
				if err := json.Unmarshal(p.data, e.State); err != nil {
					return err
				}
			default:
				e.Lost = true
			}
			hear(p.id, e)
		}
	}
}

func (h *Holder) tell(p packet) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.err != nil {
		return gone()
	}
	if _, err := h.out.Write(p.head()); err != nil {
		return gone()
	}
	if _, err := h.out.Write(p.data); err != nil {
		return gone()
	}
	if h.out.Flush() != nil {
		return gone()
	}
	return nil
}

func (h *Holder) ask(ctx context.Context, p packet) error {
	c := make(chan error, 1)
	h.mu.Lock()
	h.next++
	p.n = h.next
	h.asked[p.n] = c
	h.mu.Unlock()
	if err := h.tell(p); err != nil {
		return err
	}
	select {
	case err := <-c:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Start starts a kernel and returns when it can be asked something. What happens
// meanwhile is heard.
func (h *Holder) Start(ctx context.Context, s Spec) error {
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return h.ask(ctx, packet{op: opStart, id: s.ID, data: b})
}

// End ends a kernel, Restart gives it a new life, Interrupt interrupts what it
// does.
func (h *Holder) End(ctx context.Context, id string) error {
	return h.ask(ctx, packet{op: opEnd, id: id})
}

func (h *Holder) Restart(ctx context.Context, id string) error {
	return h.ask(ctx, packet{op: opRestart, id: id})
}

func (h *Holder) Interrupt(ctx context.Context, id string) error {
	return h.ask(ctx, packet{op: opInterrupt, id: id})
}

// Send gives a kernel a message.
func (h *Holder) Send(id string, m Message) error {
	return h.tell(packet{op: opMessage, id: id, data: m.Frame()})
}

// Forget says that nobody needs the entries up to one any more.
func (h *Holder) Forget(id string, seq int64) error {
	return h.tell(packet{op: opForget, id: id, n: seq})
}

// Mark has it remembered how far a client has heard; 0 forgets the client.
func (h *Holder) Mark(id, client string, seq int64) error {
	return h.tell(packet{op: opMark, id: id, n: seq, data: []byte(client)})
}

// PID is the process; it ends its kernels and itself when it gets SIGTERM.
func (h *Holder) PID() int { return h.pid }

// Close ends the connection, not the kernels.
func (h *Holder) Close() { h.conn.Close() }

// There reports whether a holder serves a directory.
func There(dir string) bool {
	conn, err := net.Dial("unix", filepath.Join(dir, socketName))
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

// NewID makes an identity for a kernel or a session.
func NewID() string { return newID() }
