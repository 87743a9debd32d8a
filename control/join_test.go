package control

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"quire"
	"quire/compute/remote"
	"quire/store"
	"quire/ticket"
)

// token makes one and reads it back, as a person would.
func (s *site) token(k quire.JoinToken, life time.Duration) ticket.Token {
	s.t.Helper()
	text, _, err := s.Site.NewToken(bg(), quireItself, k, life)
	must(s.t, err)
	t, err := ticket.ParseToken(text)
	must(s.t, err)
	return t
}

// join joins from a directory and says how it went.
func (s *site) join(t ticket.Token, role, dir string, r quire.JoinRequest) (quire.JoinAnswer, error) {
	s.t.Helper()
	j, err := remote.Join(t, role, dir)
	must(s.t, err)
	ask, err := j.Request(r)
	must(s.t, err)
	b, err := s.Site.Accept(bg(), ask, "192.0.2.7")
	if err != nil {
		return quire.JoinAnswer{}, err
	}
	return j.Finish(b)
}

func asNode(name string) quire.JoinRequest {
	return quire.JoinRequest{Name: name, Address: "192.0.2.7:5002"}
}

func TestJoin(t *testing.T) {
	s := newSite(t)
	// A data center, then a node in it.
	gate := t.TempDir()
	a, err := s.join(s.token(quire.JoinToken{Role: quire.JoinGateway}, 0), quire.JoinGateway, gate,
		quire.JoinRequest{Name: "north", Address: "http://192.0.2.8:8089", Apps: "http://*.north.localhost:8089"})
	must(t, err)
	id, err := remote.LoadIdentity(gate)
	must(t, err)
	if id.Node != a.Node || id.Role != remote.RoleGateway || a.Gateway != a.Node || a.Portal != "http://quire.localhost:8080" || string(a.OrderKey) != string(s.signer.Public()) {
		t.Errorf("the gateway joined as %+v", a)
	}
	one := s.token(quire.JoinToken{Role: quire.JoinCompute, DataCenter: a.DataCenter, Name: "big", Address: "http://localhost:5002"}, 0)
	dir := t.TempDir()
	n, err := s.join(one, quire.JoinCompute, dir, asNode("my own name"))
	must(t, err)
	if n.Name != "big" || n.Gateway != a.Node || n.Apps != "http://*.north.localhost:8089" {
		t.Errorf("the node joined as %+v", n)
	}
	site, err := remote.LoadSite(dir)
	if must(t, err); site.Gateway != a.Node || site.DataCenter != a.DataCenter {
		t.Errorf("the node knows %+v", site)
	}
	nodes, err := s.Site.Nodes(bg(), quireItself)
	must(t, err)
	var rec quire.Node
	for _, x := range nodes {
		if x.ID == n.Node {
			rec = x
		}
	}
	if rec.Address != "127.0.0.1:5002" || rec.Peer.Fingerprint == "" || rec.Peer.Cloned {
		t.Errorf("recorded %+v", rec)
	}
	if err := s.CheckPeer(remote.RoleCompute, n.Node, rec.Peer.Fingerprint); err != nil {
		t.Errorf("its key: %v", err)
	}
	if s.CheckPeer(remote.RoleCompute, n.Node, "another") == nil || s.CheckPeer(remote.RoleCompute, quire.NewNodeID(), rec.Peer.Fingerprint) == nil {
		t.Error("another key or an unknown node is let in")
	}

	// The answer was lost: asking again gives the same place.
	again, err := s.join(one, quire.JoinCompute, dir, asNode("x"))
	if err != nil || again.Node != n.Node {
		t.Errorf("again: %v, %s instead of %s", err, again.Node, n.Node)
	}

	denied := func(what string, err error, kind quire.Kind) {
		t.Helper()
		if quire.KindOf(err) != kind {
			t.Errorf("%s: %v, want %s", what, err, kind)
		}
	}
	_, err = s.join(one, quire.JoinCompute, t.TempDir(), asNode("thief"))
	denied("a used token", err, quire.KindForbidden)
	_, err = s.join(s.token(quire.JoinToken{Role: quire.JoinCompute, DataCenter: a.DataCenter}, 0), quire.JoinGateway, t.TempDir(), quire.JoinRequest{Name: "g", Address: "h:1", Apps: "http://h.localhost:1"})
	denied("a compute token for a gateway", err, quire.KindForbidden)
	_, err = s.join(s.token(quire.JoinToken{Role: quire.JoinCompute, DataCenter: s.dc.ID}, 0), quire.JoinCompute, dir, asNode("x"))
	denied("a second gateway", err, quire.KindConflict)
	_, err = s.join(ticket.NewToken(s.authority.DER()), quire.JoinCompute, t.TempDir(), asNode("x"))
	denied("a token nobody made", err, quire.KindForbidden)
	late := s.token(quire.JoinToken{Role: quire.JoinCompute, DataCenter: a.DataCenter}, time.Minute)
	gone, rec2, err := s.Site.NewToken(bg(), quireItself, quire.JoinToken{Role: quire.JoinCompute, DataCenter: a.DataCenter}, 0)
	must(t, err)
	must(t, s.Site.RevokeToken(bg(), quireItself, rec2.ID))
	revoked, err := ticket.ParseToken(gone)
	must(t, err)
	_, err = s.join(revoked, quire.JoinCompute, t.TempDir(), asNode("x"))
	denied("a revoked token", err, quire.KindForbidden)
	_, err = s.join(s.token(quire.JoinToken{Role: quire.JoinCompute, DataCenter: a.DataCenter}, 0), quire.JoinCompute, t.TempDir(), asNode("BIG"))
	denied("a name that is taken", err, quire.KindConflict)
	for _, bad := range []string{"", "http://169.254.169.254", "file:///etc", "h:1/x", "a@b:1", "h:", "h:99999999", "h:65536", "h:0", "[::1", "h:1 h:2", "gopher://h:1"} {
		_, err = s.join(s.token(quire.JoinToken{Role: quire.JoinCompute, DataCenter: a.DataCenter}, 0), quire.JoinCompute, t.TempDir(), quire.JoinRequest{Name: "x", Address: bad})
		denied("the address "+bad, err, quire.KindInvalid)
	}
	_, err = s.join(s.token(quire.JoinToken{Role: quire.JoinGateway}, 0), quire.JoinGateway, t.TempDir(), quire.JoinRequest{Name: "south", Address: "h:1", Apps: "http://*.apps.localhost:8089"})
	denied("the apps' address of another data center", err, quire.KindConflict)

	// Many machines by one token, no more than it is good for.
	fleet := s.token(quire.JoinToken{Role: quire.JoinCompute, DataCenter: a.DataCenter, Uses: 2}, 24*time.Hour)
	for _, name := range []string{"f1", "f2"} {
		_, err := s.join(fleet, quire.JoinCompute, t.TempDir(), asNode(name))
		must(t, err)
	}
	_, err = s.join(fleet, quire.JoinCompute, t.TempDir(), asNode("f3"))
	denied("a third of two", err, quire.KindForbidden)

	// Time passes: the row is what counts.
	must(t, s.store.Write(bg(), func(tx *store.Tx) error {
		tx.Now = tx.Now.Add(2 * time.Minute)
		_, err := tx.DropJoinTokens("")
		return err
	}))
	_, err = s.join(late, quire.JoinCompute, t.TempDir(), asNode("x"))
	denied("a token whose time is over", err, quire.KindForbidden)

	// Out again: the node first, then its data center.
	denied("a data center with nodes", s.Site.Remove(bg(), quireItself, a.Node), quire.KindConflict)
	nodes, err = s.Site.Nodes(bg(), quireItself)
	must(t, err)
	for _, x := range nodes {
		if x.DataCenter == a.DataCenter {
			must(t, s.Site.Remove(bg(), quireItself, x.ID))
		}
	}
	must(t, s.Site.Remove(bg(), quireItself, a.Node))
	if s.CheckPeer(remote.RoleCompute, n.Node, rec.Peer.Fingerprint) == nil {
		t.Error("a removed node is let in")
	}
}

// A request and its answer are for each other, whoever carries them.
func TestJoinOnTheWay(t *testing.T) {
	s := newSite(t)
	token := s.token(quire.JoinToken{Role: quire.JoinCompute, DataCenter: s.dc.ID, Uses: 50}, 0)
	dir := t.TempDir()
	j, err := remote.Join(token, quire.JoinCompute, dir)
	must(t, err)
	ask, err := j.Request(asNode("n"))
	must(t, err)
	for i := range ask {
		bent := append([]byte(nil), ask...)
		bent[i] ^= 1
		if _, _, err := ticket.Asked(bent); err == nil && !json.Valid(bent) {
			t.Fatalf("byte %d can be changed", i)
		} else if err == nil {
			r, id, _ := ticket.Asked(bent)
			r0, id0, _ := ticket.Asked(ask)
			if id != id0 || r.Name != r0.Name || r.Address != r0.Address || string(r.Public) != string(r0.Public) {
				t.Fatalf("byte %d changes what is asked", i)
			}
		}
	}
	b, err := s.Site.Accept(bg(), ask, "")
	must(t, err)
	other := newSite(t)
	otherToken := other.token(quire.JoinToken{Role: quire.JoinCompute, DataCenter: other.dc.ID}, 0)
	oj, err := remote.Join(otherToken, quire.JoinCompute, t.TempDir())
	must(t, err)
	oask, err := oj.Request(asNode("n"))
	must(t, err)
	foreign, err := other.Site.Accept(bg(), oask, "")
	must(t, err)
	second, err := remote.Join(token, quire.JoinCompute, t.TempDir())
	must(t, err)
	for what, answer := range map[string][]byte{
		"another server's":                 foreign,
		"nothing":                          nil,
		"a page":                           []byte("<html>"),
		"one with another order key":       []byte(strings.Replace(string(b), `"signature":"`, `"signature":"A`, 1)),
		"one that is signed for no answer": []byte(`{"answer":"e30=","signature":""}`),
	} {
		if _, err := j.Finish(answer); err == nil {
			t.Errorf("%s is believed", what)
		}
	}
	if _, err := second.Finish(b); err == nil {
		t.Error("an answer to somebody else is believed")
	}
	if _, err := os.Stat(filepath.Join(dir, "node.crt")); err == nil {
		t.Error("something was written although nothing was believed")
	}
	_, err = j.Finish(b)
	must(t, err)
	for _, text := range []string{"", "quire-join-", "quire-join-AAAA", token.String() + "x", strings.ToUpper(token.String()), "../../etc/passwd"} {
		if _, err := ticket.ParseToken(text); err == nil {
			t.Errorf("%q counts as a token", text)
		}
	}
}

// A certificate is renewed in time, and who goes on with an older one than was
// shown already is a second machine with the same key.
//
//fault:keys a node's certificate comes to its end
//fault:seen nothing
//fault:lost nothing
//fault:repair it was renewed ten days before
//fault:keys a node's key is on a second machine
//fault:seen both are cut off, and there is an event
//fault:lost nothing
//fault:repair an administrator, who lets one of them join again
func TestRenewalAndClones(t *testing.T) {
	s := newSite(t)
	dir := t.TempDir()
	a, err := s.join(s.token(quire.JoinToken{Role: quire.JoinCompute, DataCenter: s.dc.ID}, 0), quire.JoinCompute, dir, asNode("n"))
	must(t, err)
	id, err := remote.LoadIdentity(dir)
	must(t, err)
	peer := func() quire.Peer {
		var p quire.Peer
		must(t, s.store.Read(bg(), func(tx *store.Tx) (err error) { p, _, err = tx.Peer(a.Node); return err }))
		return p
	}
	first := id.Is()
	if cert := s.loop.peer(bg(), quire.JoinCompute, a.Node, first); cert != nil || peer().Generation != 1 {
		t.Errorf("a fresh certificate was renewed: %v", peer())
	}
	due := first
	due.Expires = s.clock.now().Add(renewPeer - time.Hour)
	cert := s.loop.peer(bg(), quire.JoinCompute, a.Node, due)
	if cert == nil {
		t.Fatal("nothing new when it was due")
	}
	if again := s.loop.peer(bg(), quire.JoinCompute, a.Node, due); again != nil {
		t.Error("one was not given time to use the new one")
	}
	must(t, id.Renew(cert))
	if id.Renew(cert) == nil {
		t.Error("the same certificate counts as a later one")
	}
	id, err = remote.LoadIdentity(dir)
	if must(t, err); id.Is().Generation != 2 {
		t.Errorf("on disk is generation %d", id.Is().Generation)
	}
	s.loop.peer(bg(), quire.JoinCompute, a.Node, id.Is())
	if p := peer(); p.Generation != 2 || p.Cloned {
		t.Errorf("known is %+v", p)
	}
	s.loop.peer(bg(), quire.JoinCompute, a.Node, first)
	if !peer().Cloned || s.CheckPeer(remote.RoleCompute, a.Node, peer().Fingerprint) == nil {
		t.Error("a copy of the key is let in")
	}
	if _, err := s.join(s.token(quire.JoinToken{Role: quire.JoinCompute, DataCenter: s.dc.ID}, 0), quire.JoinCompute, dir, asNode("n")); quire.KindOf(err) != quire.KindConflict {
		t.Errorf("a copied key joins again: %v", err)
	}
}
