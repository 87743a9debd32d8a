package kernel

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// States of a kernel, with the words that Jupyter's clients know.
const (
	Starting       = "starting"
	Idle           = "idle"
	Busy           = "busy"
	Restarting     = "restarting"     // because somebody asked for it
	AutoRestarting = "autorestarting" // because it died
	Dead           = "dead"
)

// State is what there is to know of a kernel.
type State struct {
	Spec
	State  string    `json:"state"`
	Reason string    `json:"reason,omitempty"` // why it died last, a clause
	PID    int       `json:"pid"`              // of the program, also its process group
	Active time.Time `json:"active"`           // when it last said something
	Lives  int       `json:"lives"`            // how often it was started
	// Silent: its heartbeat does not answer.
	Silent bool `json:"silent,omitempty"`
}

// An Entry is one thing that happened to a kernel, in the order in which they
// happened: exactly one of the fields is set.
type Entry struct {
	Seq     int64
	Message *Message // that the kernel said
	Asked   *Message // a request that it was given
	State   *State   // that it is in now
	Lost    bool     // output is missing here, because nobody took it in time
}

// Bounds of what is kept of one kernel for a server that is away or slow.
const (
	keptBytes   = 64 << 20
	waitingMost = 4096 // requests for a kernel that has not started yet
)

const (
	restartsMost   = 5 // within restartsWithin; a kernel that dies more often stays dead
	restartsWithin = time.Minute
	beatEvery      = 10 * time.Second
	beatsMissed    = 3
)

// kept is an entry in the form in which it is sent.
type kept struct {
	seq  int64
	kind byte
	drop bool // output: the first to go when there is too much
	data []byte
}

const (
	kindMessage byte = 'm'
	kindAsked   byte = 'q'
	kindState   byte = 's'
	kindLost    byte = 'l'
)

// A held kernel is one that this process has started.
type held struct {
	h       *holder
	session string // of our own requests to it
	key     []byte

	work sync.Mutex // one start, restart or end at a time

	mu      sync.Mutex
	state   State
	p       *process
	ready   bool
	gone    bool      // it was asked to end
	waiting []Message // until it is ready
	deaths  []time.Time
	seq     int64
	kept    []kept
	bytes   int
	marks   map[string]int64 // how far clients have heard, by their names
	info    chan struct{}    // its answer to our own question
	spoke   chan struct{}    // its iopub channel reaches us
}

func newHeld(h *holder, spec Spec) *held {
	return &held{h: h, session: newID(), key: newKey(), marks: map[string]int64{}, state: State{Spec: spec, State: Starting, Active: time.Now().UTC()}}
}

// add keeps an entry and has it sent. k.mu is held.
func (k *held) add(kind byte, data []byte, drop bool) {
	k.seq++
	k.kept = append(k.kept, kept{k.seq, kind, drop, data})
	k.bytes += len(data)
	for k.bytes > keptBytes {
		i := slices.IndexFunc(k.kept, func(e kept) bool { return e.drop })
		if i < 0 {
			break
		}
		k.bytes -= len(k.kept[i].data)
		k.kept[i].kind, k.kept[i].data, k.kept[i].drop = kindLost, nil, false
		// Neighbours that are lost become one.
		for i+1 < len(k.kept) && k.kept[i+1].kind == kindLost {
			k.kept = slices.Delete(k.kept, i, i+1)
		}
	}
	k.h.changed(k)
}

func (k *held) changed(change func(*State)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	change(&k.state)
	b, _ := json.Marshal(k.state)
	k.add(kindState, b, false)
}

// run starts a life of the kernel and returns when it has said its first word.
// k.work is held.
func (k *held) run(ctx context.Context) error {
	k.mu.Lock()
	spec := k.state.Spec
	k.ready, k.info, k.spoke = false, make(chan struct{}, 1), make(chan struct{}, 1)
	k.mu.Unlock()
	p, err := start(spec, k.h.dir, k.key)
	if err != nil {
		k.changed(func(s *State) { s.State, s.Reason = Dead, "it could not be started: "+err.Error() })
		return err
	}
	gone := false
	k.changed(func(s *State) {
		k.p, gone = p, k.gone
		s.PID, s.Lives, s.Silent = p.cmd.Process.Pid, s.Lives+1, false
	})
	go k.mourn(p)
	if gone {
		p.end(nil)
		return errors.New("it was asked to end")
	}
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	if err := p.connect(ctx, k.session, func(m Message) { k.hear(p, m) }, k.odd); err != nil {
		p.end(nil)
		return err
	}
	if err := k.greet(ctx, p); err != nil {
		p.end(nil)
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.state.State != Busy {
		k.state.State = Idle
	}
	b, _ := json.Marshal(k.state)
	k.add(kindState, b, false)
	k.ready = true
	for _, m := range k.waiting {
		_ = p.send(m)
	}
	k.waiting = nil
	go k.beat(p)
	return nil
}

// greet asks until both the answer and what is published about it reach us: a
// subscription takes effect some time after it was made, and what was published
// before is gone.
func (k *held) greet(ctx context.Context, p *process) error {
	answered, spoke := false, false
	for !answered || !spoke {
		if err := p.send(NewMessage(Shell, "kernel_info_request", k.session, Header{}, struct{}{})); err != nil {
			return err
		}
		wait := (<-chan time.Time)(nil)
		for !answered || !spoke {
			select {
			case <-k.info:
				answered = true
				wait = time.After(nudge / 10)
				continue
			case <-k.spoke:
				spoke = true
				continue
			case <-wait:
			case <-p.ended:
				return p.sentence()
			case <-ctx.Done():
				return fmt.Errorf("it did not answer within %s", startLimit)
			}
			break
		}
	}
	return nil
}

// hear takes what the kernel says.
func (k *held) hear(p *process, m Message) {
	cause := m.Cause()
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.p != p { // a life that is over
		return
	}
	if cause.Session == k.session && cause.ID != "" {
		sig := k.info
		if m.Channel == IOPub {
			sig = k.spoke
		}
		select {
		case sig <- struct{}{}:
		default:
		}
		return
	}
	k.state.Active = time.Now().UTC()
	if m.Channel == IOPub && m.Head().Type == "status" {
		var c struct {
			State string `json:"execution_state"`
		}
		if json.Unmarshal(m.Content, &c) == nil && (c.State == Idle || c.State == Busy) {
			k.state.State = c.State
		}
	}
	k.add(kindMessage, m.Frame(), m.Channel == IOPub && m.Head().Type != "status")
}

func (k *held) odd(err error) {
	k.h.log.Warn("a kernel said what cannot be used", "kernel", k.state.ID, "err", err)
}

// ask gives the kernel a request, now or when it is ready.
func (k *held) ask(m Message) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if m.Channel == Shell {
		k.add(kindAsked, m.Frame(), false)
	}
	switch {
	case k.state.State == Dead:
		return errors.New("the kernel is dead")
	case k.ready:
		p := k.p
		k.mu.Unlock()
		defer k.mu.Lock()
		return p.send(m)
	case len(k.waiting) >= waitingMost:
		return errors.New("too many requests wait for the kernel to start")
	}
	k.waiting = append(k.waiting, m)
	return nil
}

// mourn waits for the end of a life. One that nobody asked for is followed by
// another, if they do not come too fast.
func (k *held) mourn(p *process) {
	<-p.ended
	k.work.Lock() // whoever starts or ends the kernel says himself how that went
	defer k.work.Unlock()
	k.mu.Lock()
	mine := k.p == p && k.ready && !k.gone
	now := time.Now()
	if mine {
		k.ready = false
		k.deaths = append(slices.DeleteFunc(k.deaths, func(t time.Time) bool { return now.Sub(t) > restartsWithin }), now)
	}
	deaths := len(k.deaths)
	k.mu.Unlock()
	if !mine || k.h.ctx.Err() != nil {
		return
	}
	why := p.sentence().Error()
	p.end(nil)
	if deaths > restartsMost {
		k.changed(func(s *State) {
			s.State, s.Reason = Dead, fmt.Sprintf("it died %d times within a minute, the last time because %s", deaths, why)
		})
		return
	}
	k.changed(func(s *State) { s.State, s.Reason = AutoRestarting, why })
	if err := k.run(k.h.ctx); err != nil {
		k.changed(func(s *State) { s.State, s.Reason = Dead, err.Error() })
	}
}

// restart ends the kernel's life and begins another.
func (k *held) restart(ctx context.Context) error {
	k.work.Lock()
	defer k.work.Unlock()
	k.mu.Lock()
	p := k.p
	k.deaths, k.ready = nil, false
	k.mu.Unlock()
	k.changed(func(s *State) { s.State, s.Reason = Restarting, "" })
	if p != nil {
		p.end(k.farewell(p, true))
	}
	if err := k.run(ctx); err != nil {
		k.changed(func(s *State) { s.State, s.Reason = Dead, err.Error() })
		return err
	}
	return nil
}

// farewell asks the kernel to end, so that it can put things in order.
func (k *held) farewell(p *process, again bool) func() {
	return func() {
		_ = p.send(NewMessage(Control, "shutdown_request", k.session, Header{}, map[string]bool{"restart": again}))
	}
}

// end ends the kernel for good, also in the middle of a start.
func (k *held) end() {
	k.mu.Lock()
	k.gone = true
	p, ready := k.p, k.ready
	k.mu.Unlock()
	switch {
	case p == nil:
	case ready:
		p.end(k.farewell(p, false))
	default: // it would not hear us
		p.end(nil)
	}
	k.changed(func(s *State) { s.State, s.Reason = Dead, "" })
}

// interrupt reaches also a kernel that is still at its start, where there is
// nobody to hear a message.
func (k *held) interrupt() error {
	k.mu.Lock()
	p, how, ready := k.p, k.state.Interrupt, k.ready
	k.mu.Unlock()
	if p == nil {
		return errors.New("the kernel does not run")
	}
	if how == "message" && ready {
		return p.send(NewMessage(Control, "interrupt_request", k.session, Header{}, struct{}{}))
	}
	p.signal(unix.SIGINT)
	return nil
}

// beat watches whether the kernel still answers at all. It is only told, never
// ended for it: a computation may hold everything for minutes.
func (k *held) beat(p *process) {
	w, err := dial(p.socket(heartbeatPort), "REQ", "")
	if err != nil {
		return
	}
	defer w.close()
	answers := make(chan struct{}, 1)
	go func() {
		for {
			if _, err := w.receive(); err != nil {
				return
			}
			select {
			case answers <- struct{}{}:
			default:
			}
		}
	}()
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	for missed, silent := 0, false; ; {
		if missed == 0 {
			if err := w.send(nil, []byte("quire")); err != nil {
				return
			}
		}
		missed++
		select {
		case <-p.ended:
			return
		case <-tick.C:
		}
		select {
		case <-answers:
			missed = 0
		default:
		}
		if now := missed >= beatsMissed; now != silent {
			silent = now
			k.changed(func(s *State) { s.Silent = now })
		}
	}
}

// forget drops what everybody has heard, up to a number.
func (k *held) forget(seq int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	n := 0
	for n < len(k.kept) && k.kept[n].seq <= seq {
		k.bytes -= len(k.kept[n].data)
		n++
	}
	if n == len(k.kept) {
		k.kept = nil
		return
	}
	clear(k.kept[:n])
	k.kept = k.kept[n:]
}
