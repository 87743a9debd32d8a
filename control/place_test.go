package control

import (
	"strings"
	"testing"

	"quire"
)

// What is scarcest on a node counts, and a node that is away is a last resort.
func TestRoom(t *testing.T) {
	full := quire.NodeHealth{MemoryFree: 50, MemoryTotal: 100, DiskFree: 80, DiskTotal: 100, CPUs: 4, Load: 1}
	if room(false, full) >= room(true, quire.NodeHealth{MemoryFree: 0, MemoryTotal: 100, CPUs: 1, Load: 9}) {
		t.Error("a node that is away has more room than one that is full")
	}
	for what, less := range map[string]func(*quire.NodeHealth){
		"memory": func(h *quire.NodeHealth) { h.MemoryFree = 1 }, "disk": func(h *quire.NodeHealth) { h.DiskFree = 1 }, "processors": func(h *quire.NodeHealth) { h.Load = 40 },
	} {
		h := full
		if less(&h); room(true, h) >= room(true, full) {
			t.Errorf("less %s leaves as much room", what)
		}
	}
}

// On a drained node nothing starts: no new project, no project that is stopped, no
// app of one that runs. What runs goes on, and people read why.
func TestDrained(t *testing.T) {
	s := newSite(t)
	alice := s.person("alice")
	p := s.started(alice, "data")
	stopped, err := s.Projects.Create(bg(), alice, NewProject{Name: "other"})
	must(t, err)
	a := s.open(alice, p, "notebook")
	must(t, s.Site.ChangeNode(bg(), quireItself, s.record.ID, NodeChange{Drained: ptr(true), Note: ptr("Back on Monday.")}))
	_, made := s.Projects.Create(bg(), alice, NewProject{Name: "third"})
	_, named := s.Projects.Create(bg(), alice, NewProject{Name: "third", Node: s.record.ID})
	_, opened := s.Sessions.Open(bg(), alice, p.ID, "terminal")
	for what, err := range map[string]error{"a project somewhere": made, "a project there": named, "a start": s.Projects.Start(bg(), alice, stopped.ID), "an app": opened} {
		if err == nil || what != "a project somewhere" && !strings.Contains(err.Error(), "Back on Monday.") {
			t.Errorf("%s on a drained node: %v", what, err)
		}
	}
	again, err := s.Sessions.Open(bg(), alice, p.ID, "notebook")
	if must(t, err); again.Session.ID != a.ID {
		t.Errorf("what ran is another session now: %+v", again.Session)
	}
	must(t, s.Site.ChangeNode(bg(), quireItself, s.record.ID, NodeChange{Drained: ptr(false), Note: ptr("")}))
	must(t, s.Projects.Start(bg(), alice, stopped.ID))
}
