package control

import (
	"cmp"
	"context"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"quire"
	"quire/store"
	"quire/ticket"
)

// Authority certifies the keys of gateways and nodes. It is compute/remote's;
// where there is none, nothing can join.
type Authority interface {
	// Certify makes a certificate (PEM) for a public key (PKIX).
	Certify(role string, node quire.NodeID, generation int64, public []byte) ([]byte, error)
	// Recertify is Certify by the newest authority.
	Recertify(role string, node quire.NodeID, generation int64, public []byte) ([]byte, error)
	// Trusted are the authorities that count now, in PEM and by the fingerprints of
	// their keys: two during a change, the newer one last.
	Trusted() (text []byte, ids []string)
	// Rotate begins a change to a new authority, Finish drops the old one.
	Rotate() error
	Finish() error
	// Answer completes, signs and encodes the answer to a request to join.
	Answer(quire.JoinAnswer) ([]byte, error)
	// DER is the authority's own certificate, which tokens are made for.
	DER() []byte
	// Fingerprint of a public key, as people compare it.
	Fingerprint(public []byte) string
}

// NewToken makes a token for gateways or nodes to join by. Life 0 is 15 minutes,
// Uses 0 is one. The token is returned once and stored nowhere.
func (s *Site) NewToken(ctx context.Context, by quire.Actor, k quire.JoinToken, life time.Duration) (token string, rec quire.JoinToken, err error) {
	if err := needAdmin(by); err != nil {
		return "", rec, err
	}
	if s.c.Authority == nil {
		return "", rec, quire.Unavailable("This server has no certificate authority.", nil)
	}
	if life == 0 {
		life = quire.JoinTokenLife
	}
	if k.Uses == 0 {
		k.Uses = 1
	}
	switch {
	case k.Role != quire.JoinGateway && k.Role != quire.JoinCompute:
		return "", rec, quire.Invalid("role", "The role is gateway or compute.")
	case k.Uses < 1 || k.Uses > quire.MaxJoinTokenUses:
		return "", rec, quire.Invalid("uses", "A token can be used 1 to 1000 times.")
	case life < time.Second || life > quire.MaxJoinTokenLife:
		return "", rec, quire.Invalid("ttl", "A token lives a second to seven days.")
	case k.Uses > 1 && (k.Name != "" || k.Address != ""):
		return "", rec, quire.Invalid("uses", "A token with a name or an address is for one machine.")
	case checkLine(k.Summary) != nil:
		return "", rec, checkLine(k.Summary)
	}
	if k.Name = strings.TrimSpace(k.Name); k.Name != "" {
		if err := quire.CheckPeerName(k.Name); err != nil {
			return "", rec, err
		}
	}
	if k.Address != "" {
		if k.Address, err = quire.CheckPeerAddress(k.Address); err != nil {
			return "", rec, err
		}
	}
	t := ticket.NewToken(s.c.Authority.DER())
	k.ID, k.By = t.ID(), by.Name
	err = s.c.write(ctx, by, func(tx *txn) error {
		if _, err := tx.DropJoinTokens(""); err != nil {
			return err
		}
		dcs, err := tx.DataCenters()
		if err != nil {
			return err
		}
		nodes, err := tx.Nodes()
		if err != nil {
			return err
		}
		known := false
		for _, dc := range dcs {
			known = known || dc.ID == k.DataCenter
			if k.Role == quire.JoinGateway && strings.EqualFold(dc.Name, k.Name) {
				return quire.Conflict("name", "There is a data center of this name already.")
			}
		}
		for _, n := range nodes {
			if k.Role == quire.JoinCompute && strings.EqualFold(n.Name, k.Name) {
				return quire.Conflict("name", "There is a resource of this name already.")
			}
		}
		if k.Role == quire.JoinGateway {
			k.DataCenter = ""
		} else if !known {
			return quire.Invalid("data_center", "Say which data center the resource belongs to.")
		}
		k.Created, k.Expires = tx.Now, tx.Now.Add(life)
		if err := tx.AddJoinToken(k); err != nil {
			return err
		}
		tx.touch("")
		return tx.event("join.token", "", k.Role+" "+k.Name)
	})
	return t.String(), k, err
}

// Tokens lists the join tokens that still count.
func (s *Site) Tokens(ctx context.Context, by quire.Actor) (ks []quire.JoinToken, err error) {
	if err := needAdmin(by); err != nil {
		return nil, err
	}
	err = s.c.read(ctx, func(tx *store.Tx) error { ks, err = tx.JoinTokens(); return err })
	return ks, err
}

// RevokeToken ends a token. What joined by it stays.
func (s *Site) RevokeToken(ctx context.Context, by quire.Actor, id string) error {
	if err := needAdmin(by); err != nil {
		return err
	}
	return s.c.write(ctx, by, func(tx *txn) error {
		found, err := tx.DropJoinTokens(id)
		if err == nil && !found {
			err = quire.NotFound("token")
		}
		if err != nil {
			return err
		}
		tx.touch("")
		return tx.event("join.revoke", "", id)
	})
}

var errToken = quire.Forbidden("This token is not known, used up, or its time is over. An administrator can make a new one under Administration.")

// Accept lets a machine in that signed its request with a token's key, and
// answers with all it needs. The same machine asking again gets the same place:
// an answer that was lost on the way costs nothing.
func (s *Site) Accept(ctx context.Context, request []byte, address string) (answer []byte, err error) {
	r, id, err := ticket.Asked(request)
	if err != nil {
		return nil, err
	}
	a := s.c.Authority
	if a == nil {
		return nil, quire.Unavailable("This server has no certificate authority.", nil)
	}
	// Anybody can sign a request with a key of his own. Only with one that is known
	// does he get as far as the one writer.
	err = s.c.read(ctx, func(tx *store.Tx) error { _, err := joinToken(tx, id, r.Role); return err })
	if err != nil {
		return nil, err
	}
	by := quire.Actor{System: true, Name: "a new " + r.Role, Address: address}
	var out quire.JoinAnswer
	err = s.c.write(ctx, by, func(tx *txn) error {
		k, err := joinToken(tx.Tx, id, r.Role)
		if err != nil {
			return err
		}
		fingerprint := a.Fingerprint(r.Public)
		node, peer, before, err := tx.PeerByKey(fingerprint)
		known := err == nil
		if err != nil && quire.KindOf(err) != quire.KindNotFound {
			return err
		}
		if !known || before != id {
			if used, err := tx.UseJoinToken(id); err != nil {
				return err
			} else if !used {
				return errToken
			}
		}
		if !known {
			node, peer = quire.NewNodeID(), quire.Peer{Fingerprint: fingerprint}
		}
		if peer.Cloned {
			return quire.Conflict("", "The key of this machine is on a second one. Remove it under Administration, delete its key here and join again.")
		}
		peer.Issued++
		if out.Certificate, err = a.Certify(r.Role, node, peer.Issued, r.Public); err != nil {
			return err
		}
		name, summary := cmp.Or(k.Name, r.Name), cmp.Or(k.Summary, r.Summary)
		addr, err := quire.CheckPeerAddress(cmp.Or(k.Address, r.Address))
		if err != nil {
			return err
		}
		if err := checkLine(summary); err != nil {
			return err
		}
		out.Node, out.Nonce = node, r.Nonce
		if r.Role == quire.JoinGateway {
			err = s.acceptGateway(tx, r, node, name, summary, addr, &out)
		} else {
			err = s.acceptNode(tx, k, node, name, summary, addr, &out)
		}
		if err != nil {
			return err
		}
		peer.Expires = peerExpires(tx.Now)
		if err := tx.SavePeer(node, peer, id); err != nil {
			return err
		}
		tx.touch("")
		tx.wake(wakeRefresh, "")
		return tx.event("join."+r.Role, "", out.Name+" "+addr+" "+fingerprint)
	})
	if err != nil {
		return nil, err
	}
	out.OrderKey, out.Portal = s.c.Signer.Public(), s.c.Origins.Portal()
	if out.Apps == "" {
		out.Apps = s.c.AppsDefault
	}
	return a.Answer(out)
}

// joinToken finds a token that counts.
func joinToken(tx *store.Tx, id, role string) (*quire.JoinToken, error) {
	tokens, err := tx.JoinTokens()
	if err != nil {
		return nil, err
	}
	for i := range tokens {
		if tokens[i].ID == id && tokens[i].Role == role {
			return &tokens[i], nil
		}
	}
	return nil, errToken
}

// peerExpires is shown until the peer itself says when its certificate ends.
func peerExpires(now time.Time) time.Time { return now.Add(30 * 24 * time.Hour) }

func (s *Site) acceptGateway(tx *txn, r quire.JoinRequest, node quire.NodeID, name, summary, addr string, out *quire.JoinAnswer) error {
	dcs, err := tx.DataCenters()
	if err != nil {
		return err
	}
	dc := quire.DataCenter{ID: quire.NewDataCenterID(), Name: name, Gateway: node, Address: addr, Summary: summary, Apps: r.Apps}
	for _, have := range dcs {
		if have.Gateway == node {
			dc.ID = have.ID
			dc.Name = cmp.Or(name, have.Name)
		}
	}
	if err := s.c.checkCenter(dcs, dc); err != nil {
		return err
	}
	out.DataCenter, out.Name, out.Gateway, out.Apps = dc.ID, dc.Name, node, dc.Apps
	return tx.SaveDataCenter(dc)
}

// checkCenter says what is wrong with a data center's record.
func (c *core) checkCenter(dcs []quire.DataCenter, dc quire.DataCenter) error {
	if err := quire.CheckPeerName(dc.Name); err != nil {
		return err
	}
	if dc.Apps == "" {
		return quire.Invalid("apps", "Say where browsers find the apps of this data center, as in https://*.apps.example.org or http://HOST:8089.")
	}
	mine, err := quire.NewOrigins(quire.OriginConfig{Portal: c.Origins.Portal(), Apps: dc.Apps})
	if err != nil {
		return err
	}
	if !quire.SameSiteOrTLS(c.Origins.Portal(), mine.FormTargets()) {
		return quire.Invalid("apps", "Without TLS, browsers hand a person over only within one site: the apps must be at a name that ends like the portal's ("+c.Origins.Portal()+"), not at "+dc.Apps+". With https for the apps any name will do.")
	}
	for _, have := range dcs {
		if have.ID == dc.ID {
			continue
		}
		if strings.EqualFold(have.Name, dc.Name) {
			return quire.Conflict("name", "There is a data center of this name already. Choose another, or remove that one first.")
		}
		if theirs, err := c.originsOf(have.Apps); err == nil && theirs.FormTargets() == mine.FormTargets() {
			return quire.Conflict("apps", "The data center "+have.Name+" has its apps at this address already. Each needs an address of its own.")
		}
	}
	return nil
}

func (s *Site) acceptNode(tx *txn, k *quire.JoinToken, node quire.NodeID, name, summary, addr string, out *quire.JoinAnswer) error {
	nodes, err := tx.Nodes()
	if err != nil {
		return err
	}
	dcs, err := tx.DataCenters()
	if err != nil {
		return err
	}
	n := quire.Node{ID: node, DataCenter: k.DataCenter, Name: name, Address: addr, Summary: summary}
	for _, have := range nodes {
		if have.ID == node {
			if have.DataCenter != k.DataCenter {
				return quire.Conflict("", "This machine is the resource "+have.Name+" of another data center. Remove it there first.")
			}
			n.Name, n.Note, n.Drained = cmp.Or(name, have.Name), have.Note, have.Drained
		}
	}
	if err := checkNode(nodes, n); err != nil {
		return err
	}
	for _, dc := range dcs {
		if dc.ID == n.DataCenter {
			out.DataCenter, out.Name, out.Gateway, out.Apps = dc.ID, n.Name, dc.Gateway, dc.Apps
			// "localhost" is the gateway's own host.
			if host, port, err := net.SplitHostPort(n.Address); err == nil && host == "localhost" {
				n.Address = net.JoinHostPort("127.0.0.1", port)
			}
			return tx.SaveNode(n)
		}
	}
	return quire.Conflict("", "The data center that this token was made for has been removed.")
}

// checkNode says what is wrong with a node's record.
func checkNode(nodes []quire.Node, n quire.Node) error {
	if err := quire.CheckPeerName(n.Name); err != nil {
		return err
	}
	for _, have := range nodes {
		if have.ID != n.ID && strings.EqualFold(have.Name, n.Name) {
			return quire.Conflict("name", "There is a resource of this name already. Choose another, or remove that one first.")
		}
	}
	return nil
}

// A NodeChange holds what to change; nil fields stay.
type NodeChange struct {
	Name, Summary, Address, Note *string
	Drained                      *bool
}

// change is a change of the installation by an administrator: links and pages
// follow it, and it is written down. f says what was changed.
func (s *Site) change(ctx context.Context, by quire.Actor, verb string, f func(*txn) (name string, err error)) error {
	if err := needAdmin(by); err != nil {
		return err
	}
	return s.c.write(ctx, by, func(tx *txn) error {
		name, err := f(tx)
		if err != nil {
			return err
		}
		tx.touch("")
		tx.wake(wakeRefresh, "")
		return tx.event(verb, "", name)
	})
}

// ChangeNode changes the record of a node.
func (s *Site) ChangeNode(ctx context.Context, by quire.Actor, id quire.NodeID, ch NodeChange) error {
	return s.change(ctx, by, "node.change", func(tx *txn) (string, error) {
		nodes, err := tx.Nodes()
		i := slices.IndexFunc(nodes, func(n quire.Node) bool { return n.ID == id })
		if err != nil {
			return "", err
		}
		if i < 0 {
			return "", quire.NotFound("resource")
		}
		n := nodes[i]
		set(&n.Name, ch.Name)
		set(&n.Summary, ch.Summary)
		set(&n.Note, ch.Note)
		if ch.Drained != nil {
			n.Drained = *ch.Drained
		}
		if err := setAddress(&n.Address, ch.Address); err != nil {
			return "", err
		}
		for _, line := range []string{n.Summary, n.Note} {
			if err := checkLine(line); err != nil {
				return "", err
			}
		}
		if err := checkNode(nodes, n); err != nil {
			return "", err
		}
		return n.Name, tx.SaveNode(n)
	})
}

// checkLine says what is wrong with a description or a note.
func checkLine(s string) error {
	if len(s) > maxSummary || strings.ContainsAny(s, "\n\r\x00") {
		return quire.Invalid("summary", "Descriptions and notes are lines of at most 300 characters.")
	}
	return nil
}

// setAddress takes an address as it was typed.
func setAddress(into, typed *string) (err error) {
	if typed != nil {
		*into, err = quire.CheckPeerAddress(*typed)
	}
	return err
}

func set(into *string, v *string) {
	if v != nil {
		*into = strings.TrimSpace(*v)
	}
}

// A CenterChange holds what to change; nil fields stay.
type CenterChange struct{ Name, Summary, Address, Apps *string }

// ChangeCenter changes the record of a data center. Its gateway follows a change
// of the apps' address by itself.
func (s *Site) ChangeCenter(ctx context.Context, by quire.Actor, id quire.DataCenterID, ch CenterChange) error {
	return s.change(ctx, by, "data-center.change", func(tx *txn) (string, error) {
		dcs, err := tx.DataCenters()
		i := slices.IndexFunc(dcs, func(dc quire.DataCenter) bool { return dc.ID == id })
		if err != nil {
			return "", err
		}
		if i < 0 {
			return "", quire.NotFound("data center")
		}
		dc := dcs[i]
		set(&dc.Name, ch.Name)
		set(&dc.Summary, ch.Summary)
		set(&dc.Apps, ch.Apps)
		if err := setAddress(&dc.Address, ch.Address); err != nil {
			return "", err
		}
		if err := checkLine(dc.Summary); err != nil {
			return "", err
		}
		if dc.Apps != "" || ch.Apps != nil {
			err = s.c.checkCenter(dcs, dc)
		} else {
			err = quire.CheckPeerName(dc.Name) // this machine's: its apps are where the configuration says
		}
		if err != nil {
			return "", err
		}
		return dc.Name, tx.SaveDataCenter(dc)
	})
}

// Remove takes a node, or a gateway and with it its data center, out of the
// installation: its link ends, its key counts no more. What still has something
// on it is not removed.
func (s *Site) Remove(ctx context.Context, by quire.Actor, id quire.NodeID) error {
	return s.change(ctx, by, "site.remove", func(tx *txn) (name string, err error) {
		dcs, err := tx.DataCenters()
		if err != nil {
			return "", err
		}
		nodes, err := tx.Nodes()
		if err != nil {
			return "", err
		}
		for _, dc := range dcs {
			if dc.Gateway != id {
				continue
			}
			name = dc.Name
			for _, n := range nodes {
				if n.DataCenter == dc.ID {
					return "", quire.Conflict("", "The data center "+dc.Name+" still has the resource "+n.Name+". Remove its resources first.")
				}
			}
		}
		for _, n := range nodes {
			if n.ID != id {
				continue
			}
			name = n.Name
			on, err := tx.ProjectsOn(id)
			if err != nil {
				return "", err
			}
			if on > 0 {
				return "", quire.Conflict("", "The resource "+n.Name+" still holds projects ("+strconv.Itoa(on)+", with deleted ones that can be restored). Move or delete them first.")
			}
		}
		if name == "" {
			return "", quire.NotFound("resource")
		}
		return name, tx.RemoveNode(id)
	})
}

// CheckPeer is the server's last word about a peer whose certificate is good: it
// must show the key that joined, and must not have been removed.
func (c *Control) CheckPeer(_ string, node quire.NodeID, fingerprint string) error {
	c.loop.mu.Lock()
	peer, known := c.loop.peers[node]
	c.loop.mu.Unlock()
	switch {
	case !known:
		return quire.Forbidden("It is not part of the installation.")
	case peer.Cloned:
		return quire.Forbidden("Its key is on a second machine.")
	case peer.Fingerprint != "" && peer.Fingerprint != fingerprint:
		return quire.Forbidden("It does not show the key that joined.")
	}
	return nil
}
