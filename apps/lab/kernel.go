package lab

import (
	"context"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"

	"quire"
	"quire/apps/kernel"
)

// kernels are those of this session. They belong to another process; here is what
// was heard of them, for as long as somebody may still have to hear it.
type kernels struct {
	s   *server
	dir string

	reaching sync.Mutex // one start of the other process at a time

	mu     sync.Mutex
	holder *kernel.Holder
	list   map[string]*running
	closed bool
	works  sync.WaitGroup
	change chan struct{} // closed and made anew when a state changes
}

const (
	// ringBytes is what is kept here for clients of one kernel that are slow or away.
	ringBytes = 64 << 20
	// awayMost is how long a client that went is expected back.
	awayMost = 30 * time.Minute
	// closedMost is the same for one that closed its connection.
	closedMost = 2 * time.Minute
	tellTime   = 2 * time.Second
	maxClients = 64      // of one kernel
	maxAsked   = 1 << 13 // requests of one kernel whose askers are remembered
)

// running is one kernel.
type running struct {
	ks *kernels
	id string

	mu      sync.Mutex
	state   kernel.State
	session string // of the kernel's own messages
	seq     int64
	ring    []kernel.Entry
	bytes   int
	clients map[string]*listener // by their session's ID
	asked   askers
	cells   cells
	told    int64 // what the other process was told to forget
}

func newKernels(s *server) *kernels {
	return &kernels{s: s, dir: s.state, list: map[string]*running{}, change: make(chan struct{})}
}

// adopt takes up the kernels that an earlier process of this app had, if there are
// any. It starts nothing.
func (ks *kernels) adopt(ctx context.Context) error {
	if !kernel.There(ks.dir) {
		return nil
	}
	_, err := ks.reach(ctx)
	return err
}

// reach gives the connection to the process that has the kernels, which is started
// by the first kernel.
func (ks *kernels) reach(ctx context.Context) (*kernel.Holder, error) {
	ks.reaching.Lock()
	defer ks.reaching.Unlock()
	ks.mu.Lock()
	h, closed := ks.holder, ks.closed
	ks.mu.Unlock()
	if h != nil {
		return h, nil
	}
	if closed {
		return nil, quire.Unavailable("JupyterLab is ending.", nil)
	}
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(ks.dir, 0o700); err != nil {
		return nil, err
	}
	// Nothing is heard before what is known has its place.
	known := make(chan struct{})
	h, there, err := kernel.Reach(ctx, ks.dir, exe, func(id string, e kernel.Entry) {
		<-known
		ks.hear(id, e)
	}, func(err error) {
		<-known
		ks.lost(err)
	})
	defer close(known)
	if err != nil {
		return nil, quire.Failed("No kernel can be started: "+err.Error()+".", err)
	}
	ks.mu.Lock()
	ks.holder = h
	ks.mu.Unlock()
	now := time.Now()
	for _, k := range there {
		r := ks.running(k.State.ID)
		r.mu.Lock()
		r.state = k.State
		for name, seq := range k.Marks {
			r.clients[name] = &listener{name: name, heard: seq, sent: seq, left: now}
		}
		r.mu.Unlock()
	}
	return h, nil
}

func (ks *kernels) running(id string) *running {
	ks.mu.Lock()
	defer ks.mu.Unlock()
	r := ks.list[id]
	if r == nil {
		r = &running{ks: ks, id: id, clients: map[string]*listener{}, asked: askers{who: map[string]string{}}}
		r.state.ID, r.state.State = id, kernel.Starting
		ks.list[id] = r
	}
	return r
}

// lost is called when the process that has the kernels is gone, and they with it.
func (ks *kernels) lost(err error) {
	ks.mu.Lock()
	if ks.closed {
		ks.mu.Unlock()
		return
	}
	ks.holder = nil
	var all []*running
	for _, r := range ks.list {
		all = append(all, r)
	}
	ks.mu.Unlock()
	for _, r := range all {
		ks.s.log.Warn("a kernel is lost with its process", "kernel", r.id, "err", err)
		r.mu.Lock()
		state, seq := r.state, r.seq
		r.mu.Unlock()
		state.State, state.Reason = kernel.Dead, "the process that had the kernels has ended"
		r.hear(kernel.Entry{Seq: seq + 1, State: &state})
		// Pages are told, and then find that there is no such kernel any more.
		time.AfterFunc(tellTime, func() { ks.drop(r.id) })
	}
}

// close leaves the kernels to whoever comes next.
func (ks *kernels) close() {
	ks.mu.Lock()
	ks.closed = true
	h := ks.holder
	ks.mu.Unlock()
	if h != nil {
		h.Close()
	}
	ks.works.Wait()
}

// work does something beside, which close waits for; nothing begins after it.
func (ks *kernels) work(f func()) bool {
	ks.mu.Lock()
	defer ks.mu.Unlock()
	if !ks.closed {
		ks.works.Go(f)
	}
	return !ks.closed
}

func (ks *kernels) hear(id string, e kernel.Entry) { ks.running(id).hear(e) }

// changed wakes who waits for a kernel's state.
func (ks *kernels) changed() {
	ks.mu.Lock()
	defer ks.mu.Unlock()
	close(ks.change)
	ks.change = make(chan struct{})
}

func (r *running) now() kernel.State {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state
}

// awake waits until a kernel that is being started can be asked something.
func (r *running) awake(ctx context.Context) bool {
	for {
		r.ks.mu.Lock()
		change := r.ks.change
		there := r.ks.list[r.id] == r
		r.ks.mu.Unlock()
		switch state := r.now().State; {
		case !there || state == kernel.Dead:
			return false
		case state == kernel.Idle || state == kernel.Busy:
			return true
		}
		select {
		case <-change:
		case <-ctx.Done():
			return false
		}
	}
}

// hear takes what happened to the kernel.
func (r *running) hear(e kernel.Entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seq = e.Seq
	switch {
	case e.State != nil:
		changed := r.state.State != e.State.State
		r.state = *e.State
		r.died(r.state, e.Seq)
		if changed {
			defer r.ks.changed()
		}
	case e.Asked != nil:
		r.asks(e.Seq, *e.Asked)
	case e.Message != nil:
		e.Message.Head() // read once, before others look
		e.Message.Cause()
		r.session = e.Message.Head().Session
		r.state.Active = time.Now().UTC()
		if state := statusOf(e.Message); state != "" && r.state.State != state {
			r.state.State = state
			defer r.ks.changed()
		}
		r.output(e.Seq, e.Message)
	}
	if e.Asked == nil { // nobody hears the questions of others
		r.keep(e)
	}
	for _, c := range r.clients {
		c.poke()
	}
	r.settle()
}

// keep remembers an entry. r.mu is held.
func (r *running) keep(e kernel.Entry) {
	r.ring = append(r.ring, e)
	r.bytes += sizeOf(e)
	for n := 0; r.bytes > ringBytes && n < len(r.ring); n++ {
		if m := r.ring[n].Message; m != nil && m.Channel == kernel.IOPub {
			r.bytes -= sizeOf(r.ring[n])
			r.ring[n] = kernel.Entry{Seq: r.ring[n].Seq, Lost: true}
		}
	}
}

func sizeOf(e kernel.Entry) int {
	if e.Message == nil {
		return 0
	}
	return len(e.Message.Frame())
}

// settle drops what everybody has heard and tells the other process as much. What
// a client that is away must still hear is kept for awayMost. r.mu is held.
func (r *running) settle() {
	all := r.seq
	now := time.Now()
	for name, c := range r.clients {
		if !c.open && now.Sub(c.left) > awayMost {
			delete(r.clients, name)
			r.mark(name, 0)
			continue
		}
		all = min(all, c.heard)
	}
	n := 0
	for n < len(r.ring) && r.ring[n].Seq <= all {
		r.bytes -= sizeOf(r.ring[n])
		n++
	}
	if n > 0 {
		r.ring = slices.Delete(r.ring, 0, n)
		if len(r.ring) == 0 {
			r.ring = nil // with the room that a burst took
		}
	}
	if safe := min(all, r.cells.safe(r.seq)); safe > r.told {
		r.told = safe
		if h := r.ks.current(); h != nil {
			_ = h.Forget(r.id, safe)
		}
	}
}

func (r *running) mark(client string, seq int64) {
	if h := r.ks.current(); h != nil {
		_ = h.Mark(r.id, client, seq)
	}
}

func (ks *kernels) current() *kernel.Holder {
	ks.mu.Lock()
	defer ks.mu.Unlock()
	return ks.holder
}

// asks notes who asked, so that he alone gets the answer. r.mu is held.
func (r *running) asks(seq int64, m kernel.Message) {
	h := m.Head()
	r.asked.add(h.ID, h.Session)
	r.begin(seq, &m, r.asked.who[h.ID])
}

// start starts a kernel and returns when it can be asked something.
func (ks *kernels) start(ctx context.Context, spec kernel.Spec) (*running, error) {
	h, err := ks.reach(ctx)
	if err != nil {
		return nil, err
	}
	r := ks.running(spec.ID)
	r.mu.Lock()
	r.state.Spec = spec
	r.mu.Unlock()
	if err := h.Start(ctx, spec); err != nil {
		ks.drop(spec.ID)
		return nil, err
	}
	return r, nil
}

func (ks *kernels) drop(id string) {
	ks.mu.Lock()
	r := ks.list[id]
	delete(ks.list, id)
	ks.mu.Unlock()
	if r == nil {
		return
	}
	r.mu.Lock()
	for _, c := range r.clients {
		c.end()
	}
	r.mu.Unlock()
	ks.changed()
}

func (ks *kernels) end(ctx context.Context, id string) error {
	h := ks.current()
	if h != nil {
		if err := h.End(ctx, id); err != nil && h == ks.current() {
			return err
		}
	}
	ks.drop(id)
	return nil
}

func (ks *kernels) find(id string) (*running, error) {
	ks.mu.Lock()
	defer ks.mu.Unlock()
	if r := ks.list[id]; r != nil {
		return r, nil
	}
	return nil, &quire.Error{Kind: quire.KindNotFound, Message: "Kernel does not exist: " + id}
}

// all are the kernels that have been started for somebody, the oldest first.
func (ks *kernels) all() []*running {
	ks.mu.Lock()
	defer ks.mu.Unlock()
	out := []*running{}
	for _, r := range ks.list {
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b *running) int {
		if a.id < b.id {
			return -1
		}
		return 1
	})
	return out
}

// count counts the kernels and the connections to them.
func (ks *kernels) count() (n, open int) {
	for _, r := range ks.all() {
		n++
		r.mu.Lock()
		for _, c := range r.clients {
			if c.open {
				open++
			}
		}
		r.mu.Unlock()
	}
	return n, open
}

// model is a kernel as Jupyter's clients know it.
func (r *running) model() object {
	r.mu.Lock()
	defer r.mu.Unlock()
	open := 0
	for _, c := range r.clients {
		if c.open {
			open++
		}
	}
	m := object{
		"id": r.id, "name": r.state.Name, "last_activity": r.state.Active.UTC().Format(stamp), "execution_state": r.state.State, "connections": open,
	}
	if r.state.Reason != "" {
		m["reason"] = r.state.Reason
	}
	return m
}

func (s *server) kernelRoutes(r routes) {
	r.on("GET /api/kernels", func(w http.ResponseWriter, _ *http.Request) error {
		out := []object{}
		for _, k := range s.kernels.all() {
			if !s.warm.has(k.id) {
				out = append(out, k.model())
			}
		}
		answer(w, http.StatusOK, out)
		return nil
	})
	r.on("POST /api/kernels", func(w http.ResponseWriter, req *http.Request) error {
		var in struct {
			Name string `json:"name"`
			Path string `json:"path"`
		}
		if err := ask(w, req, 64<<10, &in); err != nil {
			return err
		}
		k, err := s.startKernel(req.Context(), in.Name, in.Path)
		if err != nil {
			return err
		}
		w.Header().Set("Location", s.base+"/api/kernels/"+k.id)
		answer(w, http.StatusCreated, k.model())
		return nil
	})
	on := func(pattern string, do func(http.ResponseWriter, *http.Request, *running) error) {
		r.on(pattern, func(w http.ResponseWriter, req *http.Request) error {
			k, err := s.kernels.find(req.PathValue("id"))
			if err != nil {
				return err
			}
			return do(w, req, k)
		})
	}
	on("GET /api/kernels/{id}", func(w http.ResponseWriter, _ *http.Request, k *running) error {
		answer(w, http.StatusOK, k.model())
		return nil
	})
	on("DELETE /api/kernels/{id}", func(w http.ResponseWriter, req *http.Request, k *running) error {
		if err := s.kernels.end(req.Context(), k.id); err != nil {
			return err
		}
		s.sessions.forget(k.id)
		w.WriteHeader(http.StatusNoContent)
		return nil
	})
	on("POST /api/kernels/{id}/interrupt", func(w http.ResponseWriter, req *http.Request, k *running) error {
		h, err := s.kernels.reach(req.Context())
		if err == nil {
			err = h.Interrupt(req.Context(), k.id)
		}
		if err != nil {
			return err
		}
		w.WriteHeader(http.StatusNoContent)
		return nil
	})
	on("POST /api/kernels/{id}/restart", func(w http.ResponseWriter, req *http.Request, k *running) error {
		h, err := s.kernels.reach(req.Context())
		if err == nil {
			err = h.Restart(req.Context(), k.id)
		}
		if err != nil {
			return err
		}
		answer(w, http.StatusOK, k.model())
		return nil
	})
	on("GET /api/kernels/{id}/channels", s.serveChannels)
}
