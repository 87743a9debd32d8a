package compute

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"time"

	"quire"
)

// record is a session on disk, in StateDir/sessions. It is written before
// anything runs.
type record struct {
	ID      quire.SessionID `json:"id"`
	User    quire.UserID    `json:"user"`
	Project quire.ProjectID `json:"project"`
	App     string          `json:"app"`
	MinRole quire.Role      `json:"min_role"`
	UID     uint32          `json:"uid"`
	Ordered time.Time       `json:"ordered"` // by the server's clock

	Keep   process            `json:"keep"`
	Events []string           `json:"events,omitempty"` // files that count kills by the memory limit
	State  quire.SessionState `json:"state"`
	By     string             `json:"by,omitempty"` // who is stopping it
	Reason string             `json:"reason,omitempty"`
	Log    string             `json:"log,omitempty"` // last output, once ended
	Exit   *quire.Exit        `json:"exit,omitempty"`
	Ready  *time.Time         `json:"ready,omitempty"`
	Ended  *time.Time         `json:"ended,omitempty"`
	Freed  bool               `json:"freed,omitempty"` // the spawner has cleared up
}

// session is a record and what this process holds of it. Compute.mu guards it.
type session struct {
	record
	process  *os.File      // descriptor of keep
	expelled bool          // the person may not run it any more
	unheard  bool          // ordered by an earlier compute, which did not hear the answer
	ended    chan struct{} // closed when the end is written down
}

const (
	logKept     = 16 << 10 // of an ended session
	logReported = 4 << 10
)

func (s *session) forget() {
	if s.process != nil {
		s.process.Close()
	}
}

func (s *session) report() quire.SessionReport {
	r := quire.SessionReport{
		ID: s.ID, User: s.User, Project: s.Project, App: s.App, State: s.State,
		Reason: s.Reason, Exit: s.Exit, Ready: s.Ready,
	}
	if s.State == quire.SessionFailed {
		r.Log = s.Log[max(0, len(s.Log)-logReported):]
	}
	return r
}

func (c *Compute) stateFile(id quire.SessionID) string {
	return filepath.Join(c.c.StateDir, "sessions", string(id)+".json")
}

// writeFile replaces a file as a whole. It is not synced: after a power cut no
// session is left to be remembered.
func writeFile(name string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if err := os.WriteFile(name+".new", b, 0o600); err != nil {
		return err
	}
	return os.Rename(name+".new", name)
}

// change alters a session under the lock, writes it down and tells the watchers.
func (c *Compute) change(s *session, f func()) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
	err := writeFile(c.stateFile(s.ID), s.record)
	if err != nil {
		c.c.Log.Error("a session could not be written down", "session", s.ID, "err", err)
	}
	c.tell(s.ID)
	return err
}

func (c *Compute) find(id quire.SessionID) *session {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sessions[id]
}

// is returns a copy of the session's record.
func (c *Compute) is(s *session) record {
	c.mu.Lock()
	defer c.mu.Unlock()
	return s.record
}

// start runs a session's app. It returns when the process runs; readiness is
// told through Watch.
func (c *Compute) start(ctx context.Context, o quire.Order, signed []byte) (quire.Receipt, error) {
	if !quire.ValidID('s', string(o.Session)) {
		return quire.Receipt{}, quire.Invalid("session", "The order names no proper session.")
	}
	unlock, err := c.keys.lock(ctx, string(o.Session))
	if err != nil {
		return quire.Receipt{}, err
	}
	defer unlock()
	if s := c.find(o.Session); s != nil {
		r := c.is(s)
		if r.User != o.User || r.Project != o.Project {
			return quire.Receipt{}, quire.Conflict("session", "The session is somebody else's.")
		}
		if r.State.Live() {
			return quire.Receipt{Already: true, Note: "it runs already"}, nil
		}
	}
	s := &session{ended: make(chan struct{}), record: record{
		ID: o.Session, User: o.User, Project: o.Project, App: o.App, MinRole: quire.RoleEditor, UID: o.UID, Ordered: o.Issued,
		State: quire.SessionStarting,
	}}
	c.mu.Lock()
	c.sessions[s.ID] = s
	c.mu.Unlock()
	if err := c.change(s, func() {}); err != nil {
		c.mu.Lock()
		delete(c.sessions, s.ID)
		c.mu.Unlock()
		return quire.Receipt{}, quire.Failed("The node's disk takes no session's state. It may be full.", err)
	}
	note, err := c.launch(ctx, s, signed)
	if err != nil {
		now := c.c.Now().UTC()
		away := quire.KindOf(err) == quire.KindUnavailable
		_ = c.change(s, func() {
			s.State, s.Reason, s.Ended, s.Freed = quire.SessionFailed, quire.AsError(err).Message, &now, !away
			close(s.ended)
		})
		if away {
			// The spawner may have died after it had started the session.
			c.background(func() { c.free(s) })
		}
		return quire.Receipt{}, err
	}
	return quire.Receipt{Note: note}, nil
}

func (c *Compute) launch(ctx context.Context, s *session, signed []byte) (note string, err error) {
	r, w, err := os.Pipe()
	if err != nil {
		return "", err
	}
	a, err := c.spawner.ask(ctx, ask{Op: "order", Order: signed}, w)
	w.Close()
	if err != nil {
		r.Close()
		return "", err
	}
	_ = c.change(s, func() {
		s.Keep = process{c.boot, a.PID, a.Start}
		s.Events, s.MinRole = a.Events, orEditor(a.MinRole)
	})
	if a.Already { // started by a compute that was killed before it wrote that down
		r.Close()
		c.follow(s, nil)
		return a.Note, nil
	}
	c.follow(s, r)
	return a.Note, nil
}

// orEditor is for what the spawner started before it said who may open it.
func orEditor(r quire.Role) quire.Role {
	if r == "" {
		return quire.RoleEditor
	}
	return r
}

// follow waits for a session's readiness and its end.
func (c *Compute) follow(s *session, ready *os.File) {
	rec := c.is(s)
	f, err := rec.Keep.open(c.boot)
	if err != nil {
		if ready != nil {
			ready.Close()
		}
		if !errors.Is(err, errGone) {
			c.c.Log.Error("a session cannot be watched", "session", s.ID, "err", err)
		}
		c.end(s)
		return
	}
	c.mu.Lock()
	s.process = f
	c.mu.Unlock()
	if rec.State == quire.SessionStarting {
		if ready != nil {
			c.background(func() { c.hearReady(s, ready) })
		} else {
			c.background(func() { c.seeReady(s) })
		}
	}
	c.background(func() {
		if await(f) == nil {
			c.end(s)
		}
	})
}

// hearReady waits for keep's word on the pipe it was given.
func (c *Compute) hearReady(s *session, pipe *os.File) {
	defer pipe.Close()
	stop := context.AfterFunc(c.ctx, func() { pipe.Close() })
	defer stop()
	var b [16]byte
	if n, _ := pipe.Read(b[:]); n > 0 {
		c.ready(s, c.c.Now())
	}
}

func (c *Compute) ready(s *session, at time.Time) {
	c.look(c.is(s))
	at = at.UTC()
	_ = c.change(s, func() {
		if s.State == quire.SessionStarting {
			s.State, s.Ready = quire.SessionRunning, &at
		}
	})
}

// stop ends a session and returns when it has ended.
func (c *Compute) stop(ctx context.Context, o quire.Order, signed []byte) (quire.Receipt, error) {
	var args quire.StopArgs
	if err := json.Unmarshal(o.Args, &args); err != nil { // to end something, a word that is not known does not matter
		return quire.Receipt{}, quire.Invalid("args", "The order's arguments cannot be read.")
	}
	unlock, err := c.keys.lock(ctx, string(o.Session))
	if err != nil {
		return quire.Receipt{}, err
	}
	defer unlock()
	s := c.find(o.Session)
	if s == nil {
		return quire.Receipt{Already: true, Note: "it does not run"}, nil
	}
	rec := c.is(s)
	if rec.User != o.User || rec.Project != o.Project {
		return quire.Receipt{}, quire.NotFound("session")
	}
	if !rec.State.Live() {
		return quire.Receipt{Already: true, Note: "it has ended"}, nil
	}
	end := ask{Op: "order", Order: signed}
	_ = c.change(s, func() {
		s.State, s.By = quire.SessionStopping, args.By
		if s.expelled { // no grace, and nobody but us has told the spawner yet
			end = ask{Op: "end", Session: s.ID}
		}
	})
	c.closeStreams(s.ID)
	begin := c.c.Now()
	if _, err := c.spawner.ask(ctx, end, nil); err != nil {
		return quire.Receipt{}, err
	}
	select {
	case <-s.ended:
	case <-time.After(5 * time.Second):
		// The spawner says it is dead; our descriptor has not said so.
		c.end(s)
	case <-ctx.Done():
		return quire.Receipt{}, ctx.Err()
	case <-c.ctx.Done():
		return quire.Receipt{}, quire.Unavailable("The node is shutting down.", nil)
	}
	return quire.Receipt{Note: "ended after " + c.c.Now().Sub(begin).Round(100*time.Millisecond).String()}, nil
}

// expel ends a session at once because its person's rights are gone. The
// spawner needs no order for this: it only ever takes away.
func (c *Compute) expel(s *session) {
	if !c.is(s).State.Live() {
		return
	}
	_ = c.change(s, func() {
		if s.Ended == nil {
			s.State, s.By = quire.SessionStopping, "Quire, because access was taken away"
		}
	})
	// A stop with its grace may be under way and hold the lock: this ends it.
	var stopping bool
	_ = c.change(s, func() { s.expelled, stopping = true, s.State == quire.SessionStopping })
	if stopping {
		if _, err := c.spawner.ask(c.ctx, ask{Op: "end", Session: s.ID}, nil); err != nil {
			c.c.Log.Warn("a session could not be ended", "session", s.ID, "err", err)
		}
	}
	unlock, err := c.keys.lock(c.ctx, string(s.ID)) // a start in progress comes to its end first
	if err != nil {
		return
	}
	defer unlock()
	if !c.is(s).State.Live() {
		return
	}
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
		_, err := c.spawner.ask(c.ctx, ask{Op: "end", Session: s.ID}, nil)
		if err == nil {
			break
		}
		c.c.Log.Error("a session could not be ended", "session", s.ID, "err", err)
		select {
		case <-time.After(pause):
		case <-c.ctx.Done():
			return
		}
	}
	select {
	case <-s.ended:
	case <-c.ctx.Done():
	case <-time.After(5 * time.Second):
		c.end(s)
	}
}

// end writes down how a session ended and has the spawner clear up.
func (c *Compute) end(s *session) {
	c.mu.Lock()
	if s.Ended != nil {
		c.mu.Unlock()
		return
	}
	now := c.c.Now().UTC()
	s.Ended = &now
	rec := s.record
	s.forget()
	c.mu.Unlock()

	said, log := c.lastWords(rec)
	c.look(rec)
	exit := quire.Exit{Code: said.Code, Signal: said.Signal, By: rec.By, At: now}
	if said.missing {
		exit.Signal = "killed"
	}
	exit.OutOfMemory = rec.By == "" && exit.Signal == "killed" && oomKills(rec.Events) > 0
	state, reason := quire.SessionFailed, exit.Sentence()
	switch {
	case rec.By != "" || exit == (quire.Exit{At: now}):
		state = quire.SessionEnded
	case said.Reason != "":
		reason = said.Reason
	case said.missing && !exit.OutOfMemory:
		reason = "It was killed together with what watches it."
	}
	_ = c.change(s, func() {
		s.State, s.Reason, s.Exit, s.Log = state, reason, &exit, log
		close(s.ended)
	})
	c.closeStreams(s.ID)
	c.c.Log.Info("session ended", "session", s.ID, "app", s.App, "reason", reason)
	c.background(func() { c.free(s) })
}

// exitFile is exit.json as keep writes it: the user's word.
type exitFile struct {
	Code    int    `json:"code"`
	Signal  string `json:"signal"`
	Reason  string `json:"reason"`
	missing bool
}

func (c *Compute) lastWords(r record) (exitFile, string) {
	d, err := openDir(filepath.Join(c.c.RunDir, "s"), string(r.ID), r.UID)
	if err != nil {
		return exitFile{missing: true}, ""
	}
	defer d.Close()
	var e exitFile
	if d.readJSON("exit.json", &e) != nil {
		e = exitFile{missing: true}
	}
	e.Signal, e.Reason = e.Signal[:min(len(e.Signal), 64)], e.Reason[:min(len(e.Reason), 500)]
	return e, d.log(logKept)
}

// free has the spawner remove what is left of an ended session.
func (c *Compute) free(s *session) {
	for pause := 200 * time.Millisecond; ; pause = min(2*pause, time.Minute) {
		unlock, err := c.keys.lock(c.ctx, string(s.ID))
		if err != nil {
			return
		}
		if c.find(s.ID) != s { // started anew meanwhile: that start cleared up
			unlock()
			return
		}
		_, err = c.spawner.ask(c.ctx, ask{Op: "end", Session: s.ID}, nil)
		if err == nil {
			_, err = c.spawner.ask(c.ctx, ask{Op: "release", Session: s.ID}, nil)
		}
		if err == nil {
			_ = c.change(s, func() { s.Freed = true })
			unlock()
			c.dropOld()
			return
		}
		unlock()
		c.c.Log.Warn("an ended session could not be cleared up", "session", s.ID, "err", err)
		select {
		case <-time.After(pause):
		case <-c.ctx.Done():
			return
		}
	}
}

// Log returns the last n bytes a session printed.
func (c *Compute) Log(_ context.Context, id quire.SessionID, n int) (string, error) {
	s := c.find(id)
	if s == nil {
		return "", quire.NotFound("session")
	}
	r := c.is(s)
	if r.Ended != nil {
		return r.Log[max(0, len(r.Log)-n):], nil
	}
	d, err := openDir(filepath.Join(c.c.RunDir, "s"), string(id), r.UID)
	if err != nil {
		return "", nil // nothing was printed yet
	}
	defer d.Close()
	return d.log(min(n, 2<<20)), nil
}
