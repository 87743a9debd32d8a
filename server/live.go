package server

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"net/http"
	"sync"
	"time"

	"quire"
)

// A live page holds one stream (server-sent events). Control says that
// something changed; the parts of the page are made again and those that differ
// from what this browser has are sent. Nobody polls.

const (
	streamBeat  = 15 * time.Second // a comment, so that both sides notice a dead link
	streamWrite = 10 * time.Second // a browser that takes longer for one event is gone
	maxStreams  = 100              // per person
)

// streamCount bounds the streams of one person.
type streamCount struct {
	mu sync.Mutex
	n  map[quire.UserID]int
}

func (s *streamCount) enter(u quire.UserID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.n == nil {
		s.n = map[quire.UserID]int{}
	}
	if s.n[u] >= maxStreams {
		return false
	}
	s.n[u]++
	return true
}

func (s *streamCount) leave(u quire.UserID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.n[u]--; s.n[u] <= 0 {
		delete(s.n, u)
	}
}

// part is one piece of a page that is sent again when it changes. Say is what
// a screen reader hears then.
type part struct {
	Name string `json:"name"`
	HTML string `json:"html"`
	Say  string `json:"say,omitempty"`
}

// partsOf makes the parts of a page as it is now.
type partsOf func(ctx context.Context, c *call) ([]part, error)

// live makes a stream's handler. watch names the project whose changes wake it
// ("" for everything the person sees).
func live(watch func(c *call) (quire.ProjectID, error), parts partsOf) func(c *call) error {
	return func(c *call) error {
		id, err := watch(c)
		if err != nil {
			return err
		}
		if !c.s.streams.enter(c.by.User) {
			return &quire.Error{Kind: quire.KindTooMany, Message: "You have too many live pages open. Close some.", RetryAfter: 30}
		}
		defer c.s.streams.leave(c.by.User)
		ctx, cancel := context.WithCancel(c.ctx())
		defer cancel()
		changes, err := c.s.control.Site.Watch(ctx, c.by, id)
		if err != nil {
			return err
		}
		return c.stream(ctx, changes, parts)
	}
}

func (c *call) stream(ctx context.Context, changes <-chan struct{}, parts partsOf) error {
	rc := http.NewResponseController(c.w)
	rc.SetReadDeadline(time.Time{}) // there is no body to wait for, and the stream is long
	h := c.w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("X-Accel-Buffering", "no")
	c.w.WriteHeader(http.StatusOK)
	send := func(format string, args ...any) error {
		rc.SetWriteDeadline(time.Now().Add(streamWrite))
		if _, err := fmt.Fprintf(c.w, format, args...); err != nil {
			return err
		}
		return rc.Flush()
	}
	had := map[string]uint64{}
	update := func() error {
		now, err := parts(ctx, c)
		if err != nil {
			return err
		}
		for _, p := range now {
			sum := fingerprint(p.HTML)
			if had[p.Name] == sum {
				continue
			}
			had[p.Name] = sum
			data, err := json.Marshal(p)
			if err != nil {
				return err
			}
			if err := send("event: part\ndata: %s\n\n", data); err != nil {
				return err
			}
		}
		return nil
	}
	// What changed between the page and its stream is caught by sending all
	// parts once; the page leaves alone those that are equal.
	if err := update(); err != nil {
		return nil // the answer has begun; the browser comes back by itself
	}
	beat := time.NewTicker(streamBeat)
	defer beat.Stop()
	for {
		select {
		case <-c.s.quit:
			return nil
		case <-ctx.Done():
			return nil
		case _, ok := <-changes:
			if !ok {
				// The login ended or the project is not visible any more. A reload
				// shows what is true now.
				send("event: over\ndata: {}\n\n")
				return nil
			}
			if err := update(); err != nil {
				return nil
			}
		case <-beat.C:
			if _, err := c.s.control.Logins.Resolve(ctx, c.read); err != nil {
				send("event: over\ndata: {}\n\n")
				return nil
			}
			if err := send(": beat\n\n"); err != nil {
				return nil
			}
		}
	}
}

func fingerprint(s string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(s))
	return h.Sum64()
}

// render makes named parts of a page from one view.
func (c *call) render(page string, view any, names ...string) ([]part, error) {
	out := make([]part, len(names))
	for i, name := range names {
		html, err := c.s.pages.Fragment(page, name, view)
		if err != nil {
			return nil, err
		}
		out[i] = part{Name: name, HTML: html}
	}
	return out, nil
}

func (c *call) ref() projectRef {
	return projectRef{c.r.PathValue("owner"), c.r.PathValue("project")}
}

func watchProject(c *call) (quire.ProjectID, error) {
	p, err := c.project(c.ref())
	return p.ID, err
}

func watchAll(*call) (quire.ProjectID, error) { return "", nil }

func projectParts(ctx context.Context, c *call) ([]part, error) {
	p, err := c.project(c.ref())
	if err != nil {
		return nil, err
	}
	l, err := c.load(ctx, p)
	if err != nil {
		return nil, err
	}
	v := newProjectPageView(c.by, l, c.token, c.s.now())
	parts, err := c.render("project", v, "statepart", "timeline", "apps", "running", "team")
	if err != nil {
		return nil, err
	}
	parts[0].Say = "Project " + p.Name + " is " + string(p.State) + ". " + v.Sentence
	return parts, nil
}

func dashboardParts(ctx context.Context, c *call) ([]part, error) {
	v, err := c.lists(ctx)
	if err != nil {
		return nil, err
	}
	return c.render("dashboard", v, "lists")
}

func sessionsParts(_ context.Context, c *call) ([]part, error) {
	p, err := c.project(c.ref())
	if err != nil {
		return nil, err
	}
	v, err := c.sessionsView(p)
	if err != nil {
		return nil, err
	}
	return c.render("sessions", v, "sessionlists")
}

func adminParts(_ context.Context, c *call) ([]part, error) {
	a, err := c.adminPage("overview", "", adminView{})
	if err != nil {
		return nil, err
	}
	return c.render("admin", a.data, "nodes")
}
