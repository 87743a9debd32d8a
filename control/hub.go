package control

import (
	"sync"

	"quire"
)

// hub tells those who look that something changed. It carries no data: whoever
// is told reads again what he may see.
type hub struct {
	mu   sync.Mutex
	subs map[*watcher]struct{}
}

type watcher struct {
	project quire.ProjectID // "": anything
	ch      chan struct{}
}

func newHub() *hub { return &hub{subs: map[*watcher]struct{}{}} }

func (h *hub) watch(p quire.ProjectID) *watcher {
	w := &watcher{project: p, ch: make(chan struct{}, 1)}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.subs[w] = struct{}{}
	return w
}

func (h *hub) leave(w *watcher) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.subs, w)
}

// changed wakes the watchers of a project; "" wakes everybody.
func (h *hub) changed(p quire.ProjectID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for w := range h.subs {
		if p == "" || w.project == "" || w.project == p {
			select {
			case w.ch <- struct{}{}:
			default: // one is waiting already
			}
		}
	}
}
