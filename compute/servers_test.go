package compute

import (
	"context"
	"testing"
	"time"

	"quire"
	"quire/ticket"
)

// A server is one process that watches the node.
type server struct {
	t    *testing.T
	down chan quire.Feed
	up   chan quire.NodeReport
	left chan error
	stop context.CancelFunc
}

func watched(t *testing.T, c *Compute) *server {
	ctx, cancel := context.WithCancel(t.Context())
	s := &server{t: t, down: make(chan quire.Feed), up: make(chan quire.NodeReport, 10_000), left: make(chan error, 1), stop: cancel}
	go func() { s.left <- c.Watch(ctx, s.down, func(r quire.NodeReport) { s.up <- r }) }()
	if first := s.next(); !first.Full {
		t.Errorf("the first report: %+v", first)
	}
	return s
}

func (s *server) next() quire.NodeReport {
	s.t.Helper()
	select {
	case r := <-s.up:
		return r
	case <-time.After(20 * time.Second):
		s.t.Fatal("no report")
	}
	return quire.NodeReport{}
}

// says returns when the node has heard it.
func (s *server) says(f quire.Feed) {
	s.t.Helper()
	for range 2 { // with the second it has done with the first
		select {
		case s.down <- f:
		case <-time.After(20 * time.Second):
			s.t.Fatal("the node does not listen")
		}
	}
}

func (s *server) reported(seq int64) {
	s.t.Helper()
	for s.next().Seq != seq {
	}
}

func alone(t *testing.T) *Compute {
	t.Helper()
	v, err := ticket.NewVerifier(ticket.NewSigner().Public())
	if err != nil {
		t.Fatal(err)
	}
	c, err := New(Config{Node: "n", Verifier: v, RunDir: "/tmp/q" + string(quire.NewOrderID())[:8], StateDir: t.TempDir(), Spawner: "/nowhere.sock"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// Several servers watch a node. What one has revoked, an older number of another
// does not give back, and both hear that it is done.
func TestServersWithOlderNumbers(t *testing.T) {
	c := alone(t)
	a, b := watched(t, c), watched(t, c)
	gone := quire.Revocation{Seq: 5, User: "u_1", Project: "p_1", At: time.Now()}
	a.says(quire.Feed{Full: true, Seq: 5, Revocations: []quire.Revocation{gone}})
	a.reported(5)
	b.reported(5)
	b.says(quire.Feed{Full: true, Seq: 3, Revocations: []quire.Revocation{{Seq: 3, User: "u_2", At: time.Now()}}})
	b.says(quire.Feed{Seq: 5, Revocations: []quire.Revocation{gone}}) // told twice
	c.mu.Lock()
	seen, done, known := c.feed.seen, c.feed.done, len(c.feed.revocations)
	c.mu.Unlock()
	if seen != 5 || done != 5 || known != 2 {
		t.Errorf("seen %d, done %d, %d revocations", seen, done, known)
	}

	// One that speaks is enough to have heard the server.
	a.stop()
	<-a.left
	c.mu.Lock()
	c.feed.heard = time.Time{}
	c.mu.Unlock()
	b.says(quire.Feed{Seq: 5})
	c.mu.Lock()
	heard := c.feed.heard
	c.mu.Unlock()
	if heard.IsZero() {
		t.Error("the second server is not heard")
	}
}

// There are as many watches as there can be servers; the most silent makes room.
func TestTooManyServersWatch(t *testing.T) {
	c := alone(t)
	quiet := watched(t, c)
	var others []*server
	for range quire.MaxServers - 1 {
		s := watched(t, c)
		s.says(quire.Feed{})
		others = append(others, s)
	}
	last := watched(t, c)
	if err := <-quiet.left; quire.KindOf(err) != quire.KindUnavailable {
		t.Errorf("the quiet one ended with %v", err)
	}
	for i, s := range append(others, last) {
		select {
		case err := <-s.left:
			t.Errorf("%d ended: %v", i, err)
		default:
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.watchers) != quire.MaxServers {
		t.Errorf("%d watch", len(c.watchers))
	}
}
