// Package compute is a node: it carries out signed orders, holds the sessions
// that run here, tells the server how they are, and lets a gateway's streams
// through to them. It has no root rights; what needs them is the spawner's, who
// verifies each order again.
//
// Compute can be killed at any moment. Sessions do not notice, and the next
// compute takes them over from what is on disk: for each session (boot, process,
// start time), which together are never used twice.
package compute

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"quire"
	"quire/ticket"
)

// Config is what a node needs from outside. Paths are absolute.
type Config struct {
	Node     quire.NodeID
	Verifier *ticket.Verifier

	RunDir   string // sessions live in RunDir/s
	StateDir string // ours alone
	Spawner  string // the spawner's socket

	// Identity says what we tell the server of our key, and Renew takes a newer
	// certificate (PEM) into use, Trust other authorities; nil: nothing is told.
	Identity func() quire.PeerIdentity
	Renew    func(certificate []byte) error
	Trust    func(authorities []byte) error

	Version string
	Log     *slog.Logger
	Now     func() time.Time // nil = time.Now
}

// Compute is a node. It implements quire.Machine and remote.Streams.
type Compute struct {
	c       Config
	boot    string
	spawner spawner
	ctx     context.Context // ends with Close
	close   context.CancelFunc
	work    sync.WaitGroup

	keys  keys  // one piece of work at a time per thing
	calls calls // answers to orders, for when one arrives twice

	mu       sync.Mutex
	sessions map[quire.SessionID]*session
	watchers map[*watcher]bool
	own      map[quire.ProjectID][]string // own.go
	feed     feedState
	leases   map[leaseKey]*lease
}

const (
	maxSocketPath = 107
	keepEnded     = 24 * time.Hour // how long an ended session is remembered
	maxEnded      = 500
)

// New starts a node and takes over the sessions that run already.
func New(c Config) (*Compute, error) {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	for name, path := range map[string]string{"run": c.RunDir, "state": c.StateDir, "spawner": c.Spawner} {
		if !filepath.IsAbs(path) {
			return nil, fmt.Errorf("compute: the %s path %q is not absolute", name, path)
		}
	}
	if c.Verifier == nil || c.Node == "" {
		return nil, errors.New("compute: the configuration is not complete")
	}
	// Every session's path has the same length; the kernel's limit is checked once.
	if n := len(filepath.Join(c.RunDir, "s", string(quire.NewSessionID()), "app.sock")); n > maxSocketPath {
		return nil, fmt.Errorf("compute: the run directory %s is too long for a socket's path by %d bytes", c.RunDir, n-maxSocketPath)
	}
	boot, err := bootID()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(c.StateDir, "sessions"), 0o700); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	n := &Compute{
		c: c, boot: boot, spawner: spawner{c.Spawner}, ctx: ctx, close: cancel,
		sessions: map[quire.SessionID]*session{}, watchers: map[*watcher]bool{}, leases: map[leaseKey]*lease{},
	}
	n.keys.locks = map[string]*keyLock{}
	n.feed.pending = map[int64]int{}
	n.calls.byID = map[quire.OrderID]*call{}
	if err := n.loadFeed(); err != nil {
		cancel()
		return nil, err
	}
	if err := n.loadOwn(); err != nil {
		cancel()
		return nil, err
	}
	if err := n.adopt(); err != nil {
		cancel()
		return nil, err
	}
	n.resumeRevocations()
	return n, nil
}

// Close lets go of everything and ends nothing: sessions run on.
func (c *Compute) Close() {
	c.mu.Lock()
	for _, l := range c.leases {
		l.end()
	}
	c.mu.Unlock()
	c.letGo()
	c.work.Wait()
}

// Release lets go of the sessions and of what is written down about them, so that
// another compute can take them over. The streams that are open go on. It is false
// when something is still being done after limit: then this process has to end
// before another one begins.
func (c *Compute) Release(limit time.Duration) bool {
	c.letGo()
	done := make(chan struct{})
	go func() { c.work.Wait(); close(done) }()
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-done:
		return true
	case <-t.C:
		return false
	}
}

func (c *Compute) letGo() {
	c.close()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.sessions {
		s.forget()
	}
}

// background runs something that Close waits for.
func (c *Compute) background(f func()) { c.work.Go(f) }

func (c *Compute) sessionDir(id quire.SessionID) string {
	return filepath.Join(c.c.RunDir, "s", string(id))
}

func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b)), err
}

// keys gives each thing (a session, a project's directory) one worker at a time.
type keys struct {
	mu    sync.Mutex
	locks map[string]*keyLock
}

type keyLock struct {
	turn chan struct{}
	n    int
}

// lock waits for the turn at name; it gives up with ctx.
func (k *keys) lock(ctx context.Context, name string) (unlock func(), err error) {
	k.mu.Lock()
	l := k.locks[name]
	if l == nil {
		l = &keyLock{turn: make(chan struct{}, 1)}
		k.locks[name] = l
	}
	l.n++
	k.mu.Unlock()
	leave := func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		if l.n--; l.n == 0 {
			delete(k.locks, name)
		}
	}
	select {
	case l.turn <- struct{}{}:
		return func() { <-l.turn; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
}

// calls remembers the answers to orders until the orders expire.
type calls struct {
	mu   sync.Mutex
	byID map[quire.OrderID]*call
}

type call struct {
	done    chan struct{}
	until   time.Time
	receipt quire.Receipt
	err     error
}

// begin returns the call of an order, and whether it is new and the caller's to
// carry out.
func (k *calls) begin(id quire.OrderID, until, now time.Time) (*call, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for old, c := range k.byID {
		if now.After(c.until) {
			delete(k.byID, old)
		}
	}
	if c, ok := k.byID[id]; ok {
		return c, false
	}
	c := &call{done: make(chan struct{}), until: until}
	k.byID[id] = c
	return c, true
}
