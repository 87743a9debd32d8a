package control

import (
	"strings"
	"sync"

	"quire"
)

// A wake names something that is to be looked at again: its kind and perhaps an
// ID. It says nothing of how things are; whoever hears it reads. What a change
// wakes is woken in this process after the commit and in every other process of
// the installation when the database has told it, in both cases exactly if the
// change was made.
type wake struct{ kind, id string }

const (
	wakePages   = "pages"   // who looks at a project, or ("") at anything
	wakeRoute   = "route"   // gateways, about a session
	wakeFeed    = "feed"    // gateways and nodes, about revocations
	wakeRefresh = "refresh" // links: data centers or nodes have changed
	wakeAll     = "all"     // everything: it may have changed unheard
	wakeProject = "project" // the works: a project's open work
	wakeSession = "session" // the works: a session that is to start or to stop
	wakeStray   = "stray"   // the works: one that should not run
	wakeTeam    = "team"    // the works: a project's directory
	wakeRepair  = "repair"  // the works: the files in it
)

func (w wake) String() string { return w.kind + " " + w.id }

func parseWake(word string) wake {
	kind, id, _ := strings.Cut(word, " ")
	return wake{kind, id}
}

// woken looks again at what a wake names. Nothing here waits for a node. A kind
// that is not known is a newer program's.
func (r *reconciler) woken(w wake) {
	switch w.kind {
	case wakePages:
		r.c.hub.changed(quire.ProjectID(w.id))
	case wakeRoute:
		r.route(quire.SessionID(w.id))
	case wakeFeed:
		r.feedNow()
	case wakeRefresh:
		r.refresh()
	case wakeAll:
		r.retell()
		r.refresh()
		r.feedNow()
		r.c.hub.changed("")
	case wakeProject:
		r.project(quire.ProjectID(w.id))
	case wakeSession:
		r.session(quire.SessionID(w.id))
	case wakeStray:
		r.stopStray(quire.SessionID(w.id))
	case wakeTeam:
		r.team(quire.ProjectID(w.id))
	case wakeRepair:
		r.repair(quire.ProjectID(w.id))
	case wakeTries:
		r.c.triesOf(w.id)
	}
}

// inbox is what other processes have said and nobody has looked at yet. The same
// word twice is one.
type inbox struct {
	mu    sync.Mutex
	words []string
	have  map[string]bool
	news  chan struct{}
}

func newInbox() *inbox { return &inbox{have: map[string]bool{}, news: make(chan struct{}, 1)} }

func (b *inbox) put(words []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, w := range words {
		if !b.have[w] {
			b.have[w] = true
			b.words = append(b.words, w)
		}
	}
	select {
	case b.news <- struct{}{}:
	default:
	}
}

func (b *inbox) take() (words []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	words, b.words = b.words, nil
	clear(b.have)
	return words
}
