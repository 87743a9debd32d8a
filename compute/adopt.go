package compute

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"quire"
)

// adopt reads the sessions an earlier compute left and goes on watching those
// that run. It never takes a number for a process: boot and start time must be
// the same too.
func (c *Compute) adopt() error {
	where := filepath.Join(c.c.StateDir, "sessions")
	list, err := os.ReadDir(where)
	if err != nil {
		return err
	}
	var running, ended []*session
	for _, e := range list {
		id, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok || !quire.ValidID('s', id) {
			continue
		}
		b, err := os.ReadFile(filepath.Join(where, e.Name()))
		s := &session{ended: make(chan struct{})}
		if err == nil {
			err = json.Unmarshal(b, &s.record)
		}
		if err != nil || string(s.ID) != id {
			// If it lives, the spawner's census brings it back.
			c.c.Log.Error("a session's state cannot be read and is set aside", "session", id, "err", err)
			_ = os.Rename(filepath.Join(where, e.Name()), filepath.Join(where, e.Name()+".unreadable"))
			continue
		}
		c.sessions[s.ID] = s
		if s.Ended != nil {
			close(s.ended)
			ended = append(ended, s)
			continue
		}
		s.unheard = s.Keep.PID == 0
		running = append(running, s)
	}
	// From here on others look at the sessions too.
	for _, s := range running {
		c.takeOver(s)
	}
	c.dropOld()
	for _, s := range ended {
		if !c.is(s).Freed {
			c.background(func() { c.free(s) })
		}
	}
	c.background(c.census)
	return nil
}

func (c *Compute) takeOver(s *session) {
	switch {
	case s.Keep.PID == 0:
		return // killed between asking and hearing: the census tells
	case s.Keep.Boot != c.boot:
		c.rebooted(s)
		return
	}
	c.c.Log.Info("session taken over", "session", s.ID, "app", s.App, "state", s.State)
	c.follow(s, nil)
}

// census asks the spawner what lives, once, and takes over what we lost sight
// of: a start whose answer never came, a state file that cannot be read.
func (c *Compute) census() {
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
		a, err := c.spawner.ask(c.ctx, ask{Op: "census"}, nil)
		if err == nil {
			c.compare(a.Sessions)
			return
		}
		select {
		case <-time.After(pause):
		case <-c.ctx.Done():
			return
		}
	}
}

func (c *Compute) compare(list []counted) {
	lives := map[quire.SessionID]counted{}
	for _, l := range list {
		lives[l.Session] = l
		unlock, err := c.keys.lock(c.ctx, string(l.Session))
		if err != nil {
			return
		}
		c.rediscover(l)
		unlock()
	}
	c.mu.Lock()
	var gone []*session
	for _, s := range c.sessions {
		if _, ok := lives[s.ID]; !ok && s.State.Live() && s.unheard {
			gone = append(gone, s)
		}
	}
	c.mu.Unlock()
	for _, s := range gone {
		c.end(s)
	}
}

// rediscover goes on with a session that lives and that we do not watch.
func (c *Compute) rediscover(l counted) {
	c.mu.Lock()
	s := c.sessions[l.Session]
	if s != nil && !s.unheard {
		c.mu.Unlock()
		return
	}
	if s == nil {
		s = &session{ended: make(chan struct{}), record: record{
			ID: l.Session, User: l.User, Project: l.Project, App: l.App, MinRole: orEditor(l.MinRole), UID: l.UID, Ordered: l.Ordered,
			State: quire.SessionStarting,
		}}
		c.sessions[s.ID] = s
	}
	s.unheard = false
	c.mu.Unlock()
	_ = c.change(s, func() { s.Keep, s.Events = process{c.boot, l.PID, l.Start}, l.Events })
	c.c.Log.Info("session found again", "session", s.ID, "app", s.App)
	c.follow(s, nil)
}

// rebooted ends a session of an earlier boot.
func (c *Compute) rebooted(s *session) {
	now := c.c.Now().UTC()
	_ = c.change(s, func() {
		s.State, s.Reason, s.Ended = quire.SessionEnded, "The node was restarted.", &now
		s.Exit = &quire.Exit{By: "a restart of the node", At: now}
		close(s.ended)
	})
}

// seeReady learns a taken-over session's readiness from the file keep writes:
// the pipe it was given died with the compute that held it.
func (c *Compute) seeReady(s *session) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		c.c.Log.Error("readiness cannot be watched", "session", s.ID, "err", err)
		return
	}
	f := os.NewFile(uintptr(fd), "inotify")
	defer f.Close()
	stop := context.AfterFunc(c.ctx, func() { f.Close() })
	defer stop()
	r, err := f.SyscallConn()
	if err != nil {
		return
	}
	b := make([]byte, 4096)
	for {
		// The file is replaced, not written to: its old self tells so by its link
		// count. Watch first, then look, so that no change falls between.
		name := filepath.Join(c.sessionDir(s.ID), "state.json")
		var err error
		if r.Control(func(fd uintptr) {
			_, err = unix.InotifyAddWatch(int(fd), name, unix.IN_ATTRIB|unix.IN_DELETE_SELF|unix.IN_DONT_FOLLOW)
		}) != nil {
			return // closed
		}
		if at, ok := c.readyFile(s); ok {
			c.ready(s, at)
			return
		}
		wait := time.Second
		if err == nil {
			wait = time.Minute
		}
		f.SetReadDeadline(time.Now().Add(wait))
		if _, err := f.Read(b); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
		if c.is(s).State != quire.SessionStarting || c.ctx.Err() != nil {
			return
		}
	}
}

func (c *Compute) readyFile(s *session) (time.Time, bool) {
	d, err := openDir(filepath.Join(c.c.RunDir, "s"), string(s.ID), s.UID)
	if err != nil {
		return time.Time{}, false
	}
	defer d.Close()
	var state struct{ Ready *time.Time }
	if d.readJSON("state.json", &state) != nil || state.Ready == nil {
		return time.Time{}, false
	}
	// The file is the user's: only that it speaks of readiness is believed. A
	// time of his could even be one that JSON cannot carry.
	return c.c.Now().UTC(), true
}

// dropOld forgets sessions that ended long ago.
func (c *Compute) dropOld() {
	c.mu.Lock()
	defer c.mu.Unlock()
	var ended []*session
	for _, s := range c.sessions {
		if s.Ended != nil && s.Freed {
			ended = append(ended, s)
		}
	}
	sort.Slice(ended, func(i, j int) bool { return ended[i].Ended.After(*ended[j].Ended) })
	for i, s := range ended {
		if i >= maxEnded || c.c.Now().Sub(*s.Ended) > keepEnded {
			delete(c.sessions, s.ID)
			_ = os.Remove(c.stateFile(s.ID))
		}
	}
}
