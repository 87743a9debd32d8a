// Package kernel is the process that the kernels of one session belong to. It
// starts them, speaks ZeroMQ with them and keeps what they say in order, until a
// server (package lab) has heard it. The server may end and come back, the kernels
// and what they said meanwhile are still here.
//
// Between the two is a unix socket that only the account reaches. A server is
// told what there is when it connects, then everything that happens.
package kernel

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"quire/apps"
)

// maxKernels of one session; more is a mistake.
const maxKernels = 200

// idleLife is how long the process stays without kernels and without a server.
const idleLife = 30 * time.Second

// Main runs "quire kernels" and returns its exit code.
func Main(args []string) int {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	flags := flag.NewFlagSet("quire kernels", flag.ContinueOnError)
	dir := flags.String("dir", "", "directory of sockets")
	if err := flags.Parse(args); err != nil || *dir == "" || flags.NArg() > 0 {
		fmt.Fprintln(os.Stderr, "quire kernels needs --dir DIRECTORY and takes no other words")
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	signal.Ignore(syscall.SIGHUP, syscall.SIGPIPE)
	l, err := apps.Listen(filepath.Join(*dir, socketName))
	if err != nil {
		log.Error("kernels", "err", err)
		return 1
	}
	if err := (&holder{dir: *dir, log: log}).serve(ctx, l); err != nil {
		log.Error("kernels", "err", err)
		return 1
	}
	return 0
}

const socketName = "kernels.sock"

// A holder has the kernels.
type holder struct {
	dir string
	log *slog.Logger
	ctx context.Context

	mu      sync.Mutex
	kernels map[string]*held
	links   map[*link]bool
	quiet   *time.Timer // to the end, when there is nothing to do
}

func (h *holder) serve(ctx context.Context, l net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	h.ctx, h.kernels, h.links = ctx, map[string]*held{}, map[*link]bool{}
	h.quiet = time.AfterFunc(idleLife, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if len(h.kernels)+len(h.links) == 0 {
			cancel()
		}
	})
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	var err error
	for {
		var conn net.Conn
		if conn, err = l.Accept(); err != nil {
			break
		}
		go h.link(conn)
	}
	h.mu.Lock()
	var wg sync.WaitGroup
	for _, k := range h.kernels {
		wg.Go(k.end)
	}
	h.mu.Unlock()
	wg.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// A link is the connection to one server.
type link struct {
	conn net.Conn
	wake chan struct{}

	mu      sync.Mutex
	sent    map[string]int64 // of each kernel, what was sent
	dirty   map[string]*held
	answers [][]byte
}

func (l *link) poke() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// changed has every server told. k.mu is held, h.mu and l.mu are not.
func (h *holder) changed(k *held) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for l := range h.links {
		l.mu.Lock()
		l.dirty[k.state.ID] = k
		l.mu.Unlock()
		l.poke()
	}
}

// link speaks with one server until it goes.
func (h *holder) link(conn net.Conn) {
	defer conn.Close()
	l := &link{conn: conn, wake: make(chan struct{}, 1), sent: map[string]int64{}, dirty: map[string]*held{}}
	h.mu.Lock()
	h.links[l] = true
	var all []*held
	for _, k := range h.kernels {
		all = append(all, k)
	}
	h.mu.Unlock()
	hello := Hello{PID: os.Getpid()}
	for _, k := range all {
		hello.Kernels = append(hello.Kernels, k.known())
	}
	b, _ := json.Marshal(hello)
	l.answer(packet{op: opHello, data: b})
	l.mu.Lock()
	for _, k := range all {
		l.dirty[k.state.ID] = k
	}
	l.mu.Unlock()
	l.poke()
	done := make(chan struct{})
	go func() {
		defer close(done)
		h.listen(l)
		conn.Close()
	}()
	l.speak(done)
	<-done
	h.mu.Lock()
	delete(h.links, l)
	h.mu.Unlock()
	h.quiet.Reset(idleLife)
}

func (l *link) answer(p packet) {
	l.mu.Lock()
	l.answers = append(l.answers, p.encode())
	l.mu.Unlock()
	l.poke()
}

// speak sends answers and what happens to kernels. A server that is slow slows
// nobody: what it has not been sent is in the kernels' own lists.
func (l *link) speak(done <-chan struct{}) {
	for {
		select {
		case <-done:
			return
		case <-l.wake:
		}
		for {
			l.mu.Lock()
			answers := l.answers
			l.answers = nil
			var k *held
			for id, x := range l.dirty {
				k = x
				delete(l.dirty, id)
				break
			}
			l.mu.Unlock()
			if len(answers) == 0 && k == nil {
				break
			}
			bufs := net.Buffers(answers)
			if k != nil {
				bufs = append(bufs, k.news(l)...)
			}
			if _, err := bufs.WriteTo(l.conn); err != nil {
				l.conn.Close() // which ends listen
				return
			}
		}
	}
}

// batch is how many bytes are sent of one kernel before another has its turn.
const batch = 1 << 20

// news are the next entries that a link has not been sent.
func (k *held) news(l *link) [][]byte {
	k.mu.Lock()
	defer k.mu.Unlock()
	from, n := l.sent[k.state.ID], 0
	var out [][]byte
	for _, e := range k.after(from) {
		if n > batch {
			l.mu.Lock()
			l.dirty[k.state.ID] = k
			l.mu.Unlock()
			break
		}
		out = append(out, packet{op: opEntry, id: k.state.ID, n: e.seq, data: e.data, kind: e.kind}.head(), e.data)
		n += len(e.data)
		from = e.seq
	}
	l.sent[k.state.ID] = from
	return out
}

// after are the kept entries after a number. k.mu is held.
func (k *held) after(seq int64) []kept {
	i, _ := slices.BinarySearchFunc(k.kept, seq+1, func(e kept, at int64) int { return cmp.Compare(e.seq, at) })
	return k.kept[i:]
}

func (k *held) known() Known {
	k.mu.Lock()
	defer k.mu.Unlock()
	return Known{State: k.state, Seq: k.seq, Marks: maps.Clone(k.marks)}
}

// listen does what a server asks.
func (h *holder) listen(l *link) {
	in := bufio.NewReaderSize(l.conn, 64<<10)
	for {
		p, err := readPacket(in)
		if err != nil {
			return
		}
		switch p.op {
		case opStart:
			go h.reply(l, p, h.start(p.data))
		case opEnd:
			go h.reply(l, p, h.end(p.id))
		default:
			k := h.find(p.id)
			if k == nil {
				if p.op == opRestart || p.op == opInterrupt {
					h.reply(l, p, errNone)
				}
				continue
			}
			switch p.op {
			case opRestart:
				go h.reply(l, p, k.restart(h.ctx))
			case opInterrupt:
				h.reply(l, p, k.interrupt())
			case opForget:
				k.forget(p.n)
			case opMark:
				k.mark(string(p.data), p.n)
			case opMessage:
				m, err := ParseMessage(p.data)
				if err == nil {
					err = k.ask(m)
				}
				if err != nil {
					h.log.Warn("a request was not given to the kernel", "kernel", p.id, "err", err)
				}
			}
		}
	}
}

var errNone = errors.New("there is no such kernel")

func (h *holder) reply(l *link, p packet, err error) {
	var a struct{ Error string }
	if err != nil {
		a.Error = err.Error()
	}
	b, _ := json.Marshal(a)
	l.answer(packet{op: opAnswer, id: p.id, n: p.n, data: b})
}

func (h *holder) find(id string) *held {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.kernels[id]
}

func (h *holder) start(data []byte) error {
	var spec Spec
	if err := json.Unmarshal(data, &spec); err != nil {
		return err
	}
	if len(spec.ID) < 32 || len(spec.Argv) == 0 || filepath.Base(spec.ID) != spec.ID {
		return errors.New("the kernel's description is not complete")
	}
	h.mu.Lock()
	if h.kernels[spec.ID] != nil {
		h.mu.Unlock()
		return nil // asked twice
	}
	if len(h.kernels) >= maxKernels {
		h.mu.Unlock()
		return fmt.Errorf("%d kernels run already: shut some down first", maxKernels)
	}
	k := newHeld(h, spec)
	k.work.Lock()
	defer k.work.Unlock()
	h.kernels[spec.ID] = k
	h.mu.Unlock()
	k.changed(func(*State) {})
	if err := k.run(h.ctx); err != nil {
		k.changed(func(s *State) { s.State, s.Reason = Dead, err.Error() })
		h.drop(spec.ID)
		return err
	}
	return nil
}

func (h *holder) end(id string) error {
	k := h.find(id)
	if k == nil {
		return errNone
	}
	k.end()
	h.drop(id)
	return nil
}

func (h *holder) drop(id string) {
	h.mu.Lock()
	delete(h.kernels, id)
	h.mu.Unlock()
	_ = os.Remove(filepath.Join(h.dir, "kernel-"+id+".json"))
	h.quiet.Reset(idleLife)
}

const maxMarks = 64 // clients of one kernel whose place is remembered

// mark remembers how far a client has heard; 0 forgets the client.
func (k *held) mark(client string, seq int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if seq == 0 {
		delete(k.marks, client)
	} else if _, known := k.marks[client]; known || len(k.marks) < maxMarks {
		k.marks[client] = seq
	}
}
