package control

import (
	"slices"
	"strings"
	"testing"
	"time"

	"quire"
)

// A machine that stays away, and one that is back, is an event: one each, however
// often the server starts meanwhile. A blink is none.
//
//fault:network a gateway or node does not answer for long
//fault:seen the administrators' page says since when
//fault:lost nothing
//fault:repair its coming back, which is an event too
func TestMachinesThatDoNotAnswer(t *testing.T) {
	s := newSite(t)
	said := func() (verbs []string, details string) {
		es, err := s.Events.OfMachines(bg(), quireItself, 0, 100)
		must(t, err)
		slices.Reverse(es)
		for _, e := range es {
			verbs, details = append(verbs, e.Verb), details+e.Detail+"\n"
			if e.Name != "Quire" {
				t.Errorf("it is %q who says %s", e.Name, e.Verb)
			}
		}
		return verbs, details
	}
	node := func(up bool) {
		t.Helper()
		s.eventually("the node's link changes", func() bool { is, _, _ := s.loop.nodeState(s.record.ID); return is == up })
	}
	gate := func(up bool) {
		t.Helper()
		s.eventually("the gateway's link changes", func() bool { is, _ := s.loop.gatewayState(s.dc.ID); return is == up })
	}
	never := func(want ...string) {
		t.Helper()
		if got, details := said(); !slices.Equal(got, want) {
			t.Fatalf("it is %v, not %v\n%s", got, want, details)
		}
	}
	told := func(want ...string) {
		t.Helper()
		s.clock.add(noticeAfter / 2) // the loop has seen it, or will; then it has lasted
		s.eventually(strings.Join(want, ", "), func() bool {
			s.clock.add(time.Second)
			got, _ := said()
			return slices.Equal(got, want)
		})
	}

	s.node.leave()
	node(false)
	s.node.back()
	node(true)
	s.clock.add(noticeAfter)
	never()

	s.node.leave()
	node(false)
	told("node.away")
	if _, details := said(); !strings.Contains(details, s.record.Name+" in "+s.dc.Name) || !strings.Contains(details, "did not answer") {
		t.Errorf("which and why: %q", details)
	}
	s.crash()
	s.boot()
	gate(true)
	s.clock.add(2 * noticeAfter)
	s.node.back()
	node(true)
	told("node.away", "node.back")

	// Behind a gateway that is away nobody knows how the nodes are.
	s.gate.leave()
	s.node.leave()
	gate(false)
	node(false)
	told("node.away", "node.back", "gateway.away")
	s.clock.add(2 * noticeAfter)
	s.gate.back()
	s.node.back()
	gate(true)
	node(true)
	told("node.away", "node.back", "gateway.away", "gateway.back")

	if _, err := s.Events.OfMachines(bg(), s.person("eve"), 0, 10); quire.KindOf(err) != quire.KindForbidden {
		t.Errorf("a person who is no administrator: %v", err)
	}
}
