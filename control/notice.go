package control

import (
	"context"
	"fmt"
	"time"

	"quire"
)

// noticeAfter is how long a machine must be away, or back, before it is written
// down: what is shorter is a blink, or a server that starts.
const noticeAfter = 10 * time.Second

// seen is how a machine looked when it was looked at last.
type seen struct {
	up    bool
	since time.Time
	told  bool // it is written down
}

// sight is a machine as its link shows it now.
type sight struct {
	id         quire.NodeID
	kind, name string
	up         bool
	hidden     bool // its gateway is away, so nothing is known of it
	reason     string
}

func (r *reconciler) sights() (all []sight) {
	r.mu.Lock()
	defer r.mu.Unlock()
	reached := map[quire.DataCenterID]string{}
	for id, l := range r.gateways {
		l.mu.Lock()
		all = append(all, sight{id: l.dc.Gateway, kind: "gateway", name: l.dc.Name, up: l.up, reason: l.reason})
		if l.up {
			reached[id] = l.dc.Name
		}
		l.mu.Unlock()
	}
	for _, l := range r.nodes {
		l.mu.Lock()
		in, ok := reached[l.node.DataCenter]
		all = append(all, sight{id: l.node.ID, kind: "node", name: l.node.Name + " in " + in, up: l.up, hidden: !ok, reason: l.reason})
		l.mu.Unlock()
	}
	return all
}

// notice writes down which machines do not answer, and which do again. What is
// written stands in the database and is compared there: neither a server that
// starts nor a second one writes it again.
func (r *reconciler) notice(ctx context.Context) {
	now := r.c.Now()
	var due []sight
	all := r.sights()
	for _, m := range all {
		s, known := r.seen[m.id]
		if !known || s.up != m.up || m.hidden {
			s = seen{up: m.up, since: now}
		}
		if !s.told && !m.hidden && now.Sub(s.since) >= noticeAfter {
			due = append(due, m)
		}
		r.seen[m.id] = s
	}
	if len(due) == 0 {
		return
	}
	err := r.c.write(ctx, quireItself, func(tx *txn) error {
		away, err := tx.Away()
		if err != nil {
			return err
		}
		for _, m := range due {
			since := r.seen[m.id].since
			if !m.up {
				fresh, err := tx.SetAway(m.id, since)
				if err == nil && fresh {
					tx.touch("")
					err = tx.event(m.kind+".away", "", m.name+", since "+since.UTC().Format("15:04:05")+" UTC: "+m.reason)
				}
				if err != nil {
					return err
				}
				continue
			}
			fresh, err := tx.SetBack(m.id)
			if err == nil && fresh {
				tx.touch("")
				err = tx.event(m.kind+".back", "", fmt.Sprintf("%s, after %s", m.name, since.Sub(away[m.id]).Round(time.Second)))
			}
			if err != nil {
				return err
			}
			delete(away, m.id)
		}
		for _, m := range all {
			delete(away, m.id)
		}
		for id := range away { // it was removed meanwhile
			if _, err := tx.SetBack(id); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		if ctx.Err() == nil {
			r.c.Log.Error("it was not written down which machines answer; it will be tried again", "err", err)
		}
		return
	}
	for _, m := range due {
		s := r.seen[m.id]
		s.told = true
		r.seen[m.id] = s
	}
}
