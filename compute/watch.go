package compute

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"quire"
	"quire/ticket"
)

// feedState is what the node has heard from the server.
type feedState struct {
	heard       time.Time // zero: nothing yet
	seen        int64     // newest revocation heard of
	done        int64     // newest up to which all is closed and dead
	revocations []quire.Revocation
	removed     bool          // from the installation
	pending     map[int64]int // being carried out: the first number of each batch
	settling    time.Time     // after a silence: until when streams may wait for renewal
}

// remembered is the part of it that outlives us: a node that starts while the
// server is away must not let in whom it had been told to shut out.
type remembered struct {
	Seen        int64              `json:"seen"`
	Done        int64              `json:"done"`
	Revocations []quire.Revocation `json:"revocations"`
}

const (
	// revocationLife is longer than any grant can live, its grace included.
	revocationLife = 25 * time.Hour
	// settle is how long streams stay open after the server was away, so that
	// the gateway can renew what ran out meanwhile.
	settle     = 10 * time.Second
	reportBeat = time.Second
	healthBeat = 5 * time.Second
)

func (c *Compute) feedFile() string { return filepath.Join(c.c.StateDir, "revocations.json") }

func (c *Compute) loadFeed() error {
	b, err := os.ReadFile(c.feedFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var r remembered
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	if err != nil {
		return err
	}
	c.feed.seen, c.feed.done, c.feed.revocations = r.Seen, r.Done, r.Revocations
	return nil
}

func (c *Compute) saveFeed() {
	err := writeFile(c.feedFile(), remembered{c.feed.seen, c.feed.done, c.feed.revocations})
	if err != nil {
		c.c.Log.Error("revocations could not be written down", "err", err)
	}
}

// watcher is one Watch in progress. Each process of the server has one.
type watcher struct {
	wake    chan struct{}
	heard   time.Time // its last word
	replace context.CancelCauseFunc
	changed map[quire.SessionID]bool
	own     map[quire.ProjectID]bool
}

// tell marks a session as changed for all watchers. c.mu is held.
func (c *Compute) tell(ids ...quire.SessionID) {
	for w := range c.watchers {
		for _, id := range ids {
			w.changed[id] = true
		}
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
}

// logsInFull is what the logs in a full report may weigh at most, in bytes on
// the wire. The link takes lines of 8 MiB.
const logsInFull = 2 << 20

// Watch tells the server of the sessions here and hears its feed.
func (c *Compute) Watch(ctx context.Context, down <-chan quire.Feed, up func(quire.NodeReport)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	w := &watcher{wake: make(chan struct{}, 1), heard: time.Now(), replace: cancel, changed: map[quire.SessionID]bool{}, own: map[quire.ProjectID]bool{}}
	c.mu.Lock()
	c.makeRoom()
	c.watchers[w] = true
	c.feed.removed = false // it would not speak to us
	full := quire.NodeReport{Full: true, Seq: c.feed.done, Own: c.allOwn()}
	var told int64
	if c.c.Identity != nil {
		is := c.c.Identity()
		full.Identity, told = &is, is.Generation
	}
	room := logsInFull
	for _, s := range c.sessions {
		r := s.report()
		// What programs printed is theirs to choose, and JSON may need six bytes
		// for one of it: it must never make the report too large to be sent.
		if room -= 6 * len(r.Log); room < 0 {
			r.Log = ""
		}
		full.Sessions = append(full.Sessions, r)
	}
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.watchers, w)
		c.mu.Unlock()
	}()
	up(full)
	beat := time.NewTicker(reportBeat)
	defer beat.Stop()
	var health time.Time
	for {
		var r quire.NodeReport
		if now := time.Now(); now.Sub(health) >= healthBeat {
			health = now
			if h, err := c.Health(ctx); err == nil {
				r.Health = &h
				up(c.fill(w, r))
			}
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-c.ctx.Done():
			return quire.Unavailable("The node is shutting down.", nil)
		case f, ok := <-down:
			if !ok {
				return nil
			}
			c.mu.Lock()
			w.heard = time.Now()
			c.mu.Unlock()
			say := c.hear(f)
			var r quire.NodeReport
			if f.Certificate != nil && c.c.Renew != nil {
				if err := c.c.Renew(f.Certificate); err != nil {
					c.c.Log.Error("the new certificate was not taken", "err", err)
				} else if is := c.c.Identity(); is.Generation != told {
					r.Identity, told, say = &is, is.Generation, true
				}
			}
			if say {
				up(c.fill(w, r))
			}
		case <-w.wake:
			up(c.fill(w, quire.NodeReport{}))
		case <-beat.C:
			up(c.fill(w, quire.NodeReport{}))
		}
	}
}

// makeRoom ends the watch that has been silent for longest where there are as
// many as there can be. c.mu is held.
func (c *Compute) makeRoom() {
	if len(c.watchers) < quire.MaxServers {
		return
	}
	old := slices.MinFunc(slices.Collect(maps.Keys(c.watchers)), func(x, y *watcher) int { return x.heard.Compare(y.heard) })
	old.replace(quire.Unavailable("More servers than there can be watch this node.", nil))
	delete(c.watchers, old)
}

// fill adds what changed since the last report.
func (c *Compute) fill(w *watcher, r quire.NodeReport) quire.NodeReport {
	c.mu.Lock()
	defer c.mu.Unlock()
	r.Seq = c.feed.done
	for id := range w.changed {
		if s := c.sessions[id]; s != nil {
			r.Sessions = append(r.Sessions, s.report())
		}
	}
	clear(w.changed)
	r.Own = c.someOwn(w)
	return r
}

// hear takes in a feed: first the streams, then the processes of those whose
// rights are gone. It reports whether there is something to say at once.
func (c *Compute) hear(f quire.Feed) bool {
	now := c.c.Now()
	c.mu.Lock()
	if f.Removed {
		c.c.Log.Warn("the server has removed this node: everybody's streams are closed")
		c.feed.removed = true
		for key, l := range c.leases {
			l.end()
			delete(c.leases, key)
		}
		c.mu.Unlock()
		return false
	}
	if !c.feed.heard.IsZero() && now.Sub(c.feed.heard) > ticket.Silence {
		c.feed.settling = now.Add(settle)
		time.AfterFunc(settle, c.checkLeases)
	}
	c.feed.heard = now
	var fresh []quire.Revocation
	for _, r := range f.Revocations {
		if !slices.ContainsFunc(c.feed.revocations, func(have quire.Revocation) bool { return have.Seq == r.Seq }) {
			fresh = append(fresh, r)
		}
	}
	seq := f.Seq
	for _, r := range fresh {
		seq = max(seq, r.Seq)
	}
	if len(fresh) == 0 && seq <= c.feed.seen {
		c.mu.Unlock()
		return false
	}
	c.feed.revocations = slices.DeleteFunc(append(c.feed.revocations, fresh...), func(r quire.Revocation) bool {
		return now.Sub(r.At) > revocationLife
	})
	c.feed.seen = max(c.feed.seen, seq)
	for key, l := range c.leases {
		if slices.ContainsFunc(fresh, l.grant.Revoked) {
			l.end()
			delete(c.leases, key)
		}
	}
	var out []*session
	for _, s := range c.sessions {
		if s.State.Live() && slices.ContainsFunc(fresh, s.expelledBy) {
			out = append(out, s)
		}
	}
	if len(out) > 0 {
		c.expelAll(seq, out)
	}
	c.feed.advance()
	c.saveFeed()
	c.mu.Unlock()
	return true
}

// advance says how far all is done: up to what was heard, or to before the
// oldest that is still being carried out.
func (f *feedState) advance() {
	done := f.seen
	for seq := range f.pending {
		done = min(done, seq-1)
	}
	f.done = max(f.done, done)
}

// expelAll ends sessions because of revocations from after done up to seq. c.mu
// is held.
func (c *Compute) expelAll(seq int64, out []*session) {
	first := min(c.feed.done+1, seq)
	c.feed.pending[first]++
	c.background(func() {
		var all sync.WaitGroup
		for _, s := range out {
			all.Go(func() { c.expel(s) })
		}
		all.Wait()
		if c.ctx.Err() != nil {
			return // the next compute goes on
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.feed.pending[first]--; c.feed.pending[first] == 0 {
			delete(c.feed.pending, first)
		}
		c.feed.advance()
		c.saveFeed()
		c.tell() // the report's Seq has changed
	})
}

// resumeRevocations carries on what an earlier compute had not finished.
func (c *Compute) resumeRevocations() {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []*session
	for _, s := range c.sessions {
		if s.State.Live() && slices.ContainsFunc(c.feed.revocations, func(r quire.Revocation) bool {
			return r.Seq > c.feed.done && s.expelledBy(r)
		}) {
			out = append(out, s)
		}
	}
	if len(out) > 0 {
		c.expelAll(c.feed.seen, out)
	}
	c.feed.advance()
}

// expelledBy reports whether the revocation ends the session's processes: the
// person has lost the project, or everything. Leaving one login does not.
func (s *session) expelledBy(r quire.Revocation) bool {
	return r.User == s.User && r.Login == "" && (r.Project == "" || r.Project == s.Project) &&
		!r.At.Before(s.Ordered) // rights given back later are not taken by an old word
}
