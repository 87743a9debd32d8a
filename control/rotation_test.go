package control

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"quire"
	"quire/compute/remote"
	"quire/store"
)

// A change of the authority carries over who trusts the new one, waits for who
// does not, names who would be left behind, and writes each step down (N-17).
func TestRotation(t *testing.T) {
	s := newSite(t)
	_, before := s.authority.Trusted()
	dir := t.TempDir()
	a, err := s.join(s.token(quire.JoinToken{Role: quire.JoinCompute, DataCenter: s.dc.ID}, 0), quire.JoinCompute, dir, asNode("far"))
	must(t, err)
	id, err := remote.LoadIdentity(dir)
	must(t, err)
	state := func() RotationState {
		t.Helper()
		st, err := s.Rotation.State(bg(), quireItself)
		must(t, err)
		return st
	}
	if _, err := s.Rotation.Finish(bg(), quireItself, true); quire.KindOf(err) != quire.KindConflict || state().Running {
		t.Errorf("nothing is under way: %v", err)
	}
	for _, by := range []quire.Actor{{}, {User: "u_x", Login: "l_x"}} {
		if s.Rotation.Begin(bg(), by) == nil {
			t.Error("begun by somebody")
		}
		if _, err := s.Rotation.State(bg(), by); err == nil {
			t.Error("shown to somebody")
		}
		if _, err := s.Rotation.Finish(bg(), by, true); err == nil {
			t.Error("ended by somebody")
		}
	}
	must(t, s.Rotation.Begin(bg(), quireItself))
	must(t, s.Rotation.Begin(bg(), quireItself)) // again is the same as once
	both, now := s.authority.Trusted()
	if len(now) != 2 || now[0] != before[0] {
		t.Fatalf("trusted are %v, before %v", now, before)
	}
	if st := state(); !st.Running || !slices.Contains(st.Left, "far") {
		t.Errorf("state %+v", st)
	}
	// It does not trust the new one yet, so it gets nothing of it.
	if cert := s.loop.peer(bg(), quire.JoinCompute, a.Node, id.Is()); cert != nil {
		t.Error("a certificate of an authority that it does not know")
	}
	must(t, id.Trust(both))
	// Nor while others whose links are up do not.
	s.up()
	if cert := s.loop.peer(bg(), quire.JoinCompute, a.Node, id.Is()); cert != nil {
		t.Error("a certificate that its gateway would refuse")
	}
	for other := range s.loop.upNow() {
		s.loop.turning(other, quire.JoinCompute, quire.PeerIdentity{Trusts: now, Issuer: now[0]})
	}
	cert := s.loop.peer(bg(), quire.JoinCompute, a.Node, id.Is())
	must(t, id.Renew(cert))
	if id.Is().Issuer != now[1] {
		t.Error("the certificate is not of the new authority")
	}
	s.loop.peer(bg(), quire.JoinCompute, a.Node, id.Is())
	s.eventually("it counts as done", func() bool { return slices.Contains(state().Done, "far") })

	// The server starts again in the middle.
	s.crash()
	s.boot()
	s.up()
	if st := state(); !st.Running || !slices.Contains(st.Done, "far") || slices.Contains(st.Left, "far") {
		t.Errorf("after a start: %+v", st)
	}
	// The others of this site have no token: they are this machine's own.
	if _, err := s.Rotation.Finish(bg(), quireItself, true); quire.KindOf(err) != quire.KindConflict || !strings.Contains(err.Error(), "cannot join again") {
		t.Errorf("the machine's own were left behind: %v", err)
	}
	must(t, s.store.Write(bg(), func(tx *store.Tx) error {
		for id := range s.loop.everybody() {
			if id != a.Node {
				if err := tx.SavePeer(id, quire.Peer{Fingerprint: string(id)}, "a token"); err != nil {
					return err
				}
			}
		}
		return nil
	}))
	if _, err := s.Rotation.Finish(bg(), quireItself, false); quire.KindOf(err) != quire.KindConflict || !strings.Contains(err.Error(), "would have to join again: ") {
		t.Errorf("without force: %v", err)
	}
	st, err := s.Rotation.Finish(bg(), quireItself, true)
	if must(t, err); len(st.Left) == 0 || state().Running {
		t.Errorf("ended with %+v", st)
	}
	if text, ids := s.authority.Trusted(); len(ids) != 1 || ids[0] != now[1] {
		t.Errorf("trusted are %v", ids)
	} else if err := id.Trust(text); err != nil {
		t.Errorf("the machine drops the old one: %v", err)
	}
	verbs := map[string]int{}
	must(t, s.store.Read(bg(), func(tx *store.Tx) error {
		es, err := tx.EventsOf("", 1<<62, 1000)
		for _, e := range es {
			if verbs[e.Verb]++; e.Verb == "authority.finish" && !strings.Contains(e.Detail, "must join again: ") {
				t.Errorf("the event says %q", e.Detail)
			}
		}
		return err
	}))
	if verbs["authority.rotate"] != 1 || verbs["authority.renewed"] != 1 || verbs["authority.finish"] != 1 {
		t.Errorf("events %v", verbs)
	}
	if _, err := remote.LoadIdentity(filepath.Clean(dir)); err != nil {
		t.Errorf("from its files: %v", err)
	}
}
