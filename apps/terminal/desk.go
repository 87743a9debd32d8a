package terminal

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"quire"
	"quire/apps"
)

const (
	maxShells   = 32
	maxVisitors = 64 // sockets looking at one shell
	maxLinks    = 64 // pages open at once
	closeGrace  = 3 * time.Second
)

// A desk holds the shells of one session, in the order of their tabs.
type desk struct {
	boot  string // tells a page that it talks to another process than before
	how   Command
	log   *slog.Logger
	grace time.Duration // between asking a shell to end and ending it

	mu     sync.Mutex
	shells []*shell
	made   int // shells ever made; gives the names
	links  map[*link]bool
	ending bool
	busy   sync.WaitGroup // shells that are being closed
}

func newDesk(how Command, log *slog.Logger) *desk {
	return &desk{boot: newID(), how: how, log: log, grace: closeGrace, links: map[*link]bool{}}
}

func newID() string {
	var b [8]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// A tab is what the list says about a shell.
type tab struct {
	ID    string `json:"id"`
	Name  string `json:"name"`
	Ended *ended `json:"ended,omitempty"`
}

func (d *desk) tabs() []tab {
	d.mu.Lock()
	defer d.mu.Unlock()
	tabs := make([]tab, 0, len(d.shells))
	for _, s := range d.shells {
		s.mu.Lock()
		tabs = append(tabs, tab{ID: s.id, Name: s.name, Ended: s.ended})
		s.mu.Unlock()
	}
	return tabs
}

// changed tells every page that the list is a new one.
func (d *desk) changed() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for l := range d.links {
		l.nudge()
	}
}

// first makes the first shell of a session, so that a new page is not empty.
// A desk whose shells were all closed stays empty.
func (d *desk) first() error {
	d.mu.Lock()
	fresh := d.made == 0
	d.mu.Unlock()
	if !fresh {
		return nil
	}
	_, err := d.add(true)
	return err
}

// open makes a further shell. The errors of the desk are for people.
func (d *desk) open() (*shell, error) { return d.add(false) }

func (d *desk) add(onlyFirst bool) (*shell, error) {
	d.mu.Lock()
	switch {
	case onlyFirst && d.made > 0:
		d.mu.Unlock()
		return nil, nil
	case d.ending:
		d.mu.Unlock()
		return nil, quire.Unavailable("The terminal is being stopped.", nil)
	case len(d.shells) >= maxShells:
		d.mu.Unlock()
		return nil, &quire.Error{Kind: quire.KindTooMany, Message: fmt.Sprintf("There are %d shells open, which is the most. Close one first.", maxShells)}
	}
	d.made++
	s := &shell{
		id: newID(), name: fmt.Sprintf("Shell %d", d.made), how: d.how, log: d.log, tell: d.changed,
		out: scrollback{max: keptOutput}, size: size{cols: 80, rows: 24}, visitors: map[*visitor]bool{},
	}
	d.shells = append(d.shells, s)
	d.mu.Unlock()
	if err := s.start(); err != nil {
		if d.remove(s) {
			s.close(0)
			d.busy.Done()
		}
		return nil, err
	}
	d.changed()
	return s, nil
}

func (d *desk) find(id string) (*shell, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, s := range d.shells {
		if s.id == id {
			return s, nil
		}
	}
	return nil, quire.NotFound("shell")
}

// remove takes a shell off the desk. Whoever is told true ends the shell and
// then calls busy.Done.
func (d *desk) remove(s *shell) (removed bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	before := len(d.shells)
	d.shells = slices.DeleteFunc(d.shells, func(x *shell) bool { return x == s })
	if len(d.shells) == before {
		return false
	}
	d.busy.Add(1) // end waits for it too
	return true
}

// close takes a shell off the desk and ends it. Unless sure, a shell with a
// program in the foreground is kept and the program is named.
func (d *desk) close(id string, sure bool) (busy string, err error) {
	s, err := d.find(id)
	if err != nil {
		return "", err
	}
	if busy := s.busy(); busy != "" && !sure {
		return busy, nil
	}
	if !d.remove(s) {
		return "", nil // somebody else was quicker
	}
	d.changed()
	go func() {
		defer d.busy.Done()
		s.close(d.grace)
	}()
	return "", nil
}

func (d *desk) restart(id string) error {
	s, err := d.find(id)
	if err != nil {
		return err
	}
	if err := s.start(); err != nil {
		return err
	}
	d.changed()
	return nil
}

func (d *desk) rename(id, name string) error {
	s, err := d.find(id)
	if err != nil {
		return err
	}
	if name = apps.Plain(name, 40); name == "" {
		return quire.Invalid("name", "A shell needs a name of at least one visible character.")
	}
	s.rename(name)
	d.changed()
	return nil
}

// end closes every shell and waits until their processes are gone.
func (d *desk) end() {
	d.mu.Lock()
	d.ending = true
	left := d.shells
	d.shells = nil
	d.busy.Add(len(left))
	d.mu.Unlock()
	for _, s := range left {
		go func() {
			defer d.busy.Done()
			s.close(d.grace)
		}()
	}
	d.busy.Wait()
}
