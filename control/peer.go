package control

import (
	"context"
	"slices"
	"time"

	"quire"
	"quire/store"
)

const (
	// renewPeer is how long before its end a certificate is renewed: a third of
	// its life, so that a peer may be away for days.
	renewPeer = 10 * 24 * time.Hour
	// renewPause is left to a peer to take a new certificate into use.
	renewPause = time.Minute
)

// peer takes in what a gateway or node says of its own key. It answers with a
// new certificate when that is due, otherwise with nil. Only the process that
// does the works may: what two have heard could be in the wrong order, and a
// number that goes back is a key on two machines.
func (r *reconciler) peer(ctx context.Context, role string, id quire.NodeID, is quire.PeerIdentity) (certificate []byte) {
	a := r.c.Authority
	if a == nil {
		return nil
	}
	r.mu.Lock()
	known, ok := r.peers[id]
	waiting := r.c.Now().Before(r.renewed[id].Add(renewPause))
	r.mu.Unlock()
	due := is.Expires.Sub(r.c.Now()) < renewPeer && !waiting
	if !ok || known.Cloned || known.Generation == is.Generation && known.Expires.Equal(is.Expires.Truncate(time.Millisecond)) && known.Fingerprint != "" && !due {
		return nil
	}
	var fresh quire.Peer
	err := r.c.write(ctx, quireItself, func(tx *txn) error {
		p, token, err := tx.Peer(id)
		switch {
		case quire.KindOf(err) == quire.KindNotFound:
			p = quire.Peer{Fingerprint: a.Fingerprint(is.Public), Issued: is.Generation} // of this machine, not joined by a token
			tx.wake(wakeRefresh, "")
		case err != nil:
			return err
		}
		switch {
		case p.Fingerprint != a.Fingerprint(is.Public):
			return quire.Forbidden("It does not show the key that joined.")
		case is.Generation < p.Generation:
			// Whoever was given the newer certificate has shown it. This is another
			// machine with a copy of the key, and which one is ours cannot be told.
			p.Cloned = true
			tx.touch("")
			tx.wake(wakeRefresh, "")
			if err := tx.event("peer.cloned", "", role+" "+string(id)); err != nil {
				return err
			}
		default:
			p.Generation, p.Expires = is.Generation, is.Expires
			p.Issued = max(p.Issued, is.Generation)
			if due {
				p.Issued++
				if certificate, err = a.Certify(role, id, p.Issued, is.Public); err != nil {
					return err
				}
			}
		}
		fresh = p
		return tx.SavePeer(id, p, token)
	})
	if err != nil {
		r.c.Log.Error("a peer's identity was not taken in", "node", id, "err", err)
		return nil
	}
	r.mu.Lock()
	if _, still := r.peers[id]; still {
		r.peers[id] = fresh
	}
	if certificate != nil {
		r.renewed[id] = r.c.Now()
	}
	r.mu.Unlock()
	if fresh.Cloned {
		r.c.Log.Error("a key is on two machines; both are cut off", "role", role, "node", id)
	}
	return certificate
}

// know keeps what every new connection and page needs, and says farewell to what
// is no part of the installation any more.
func (r *reconciler) know(dcs []quire.DataCenter, nodes []quire.Node) {
	r.mu.Lock()
	defer r.mu.Unlock()
	peers, centers, targets := map[quire.NodeID]quire.Peer{}, map[quire.DataCenterID]bool{}, []string{r.c.Origins.FormTargets()}
	for _, dc := range dcs {
		peers[dc.Gateway] = dc.Peer
		centers[dc.ID] = !dc.Peer.Cloned
		if o, err := r.c.originsOf(dc.Apps); err == nil && !slices.Contains(targets, o.FormTargets()) {
			targets = append(targets, o.FormTargets())
		}
	}
	for _, n := range nodes {
		peers[n.ID] = n.Peer
	}
	r.peers, r.targets = peers, targets
	for id, l := range r.nodes {
		if p, ok := peers[id]; !ok || p.Cloned {
			delete(r.nodes, id)
			l.farewell()
		}
	}
	for id, l := range r.gateways {
		if !centers[id] {
			delete(r.gateways, id)
			l.farewell()
		}
	}
}

// farewell tells a node, as the last word, that it was removed.
func (l *nodeLink) farewell() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gone = true
	if l.down == nil {
		l.stop()
		return
	}
	select {
	case l.down <- quire.Feed{Removed: true, Seq: l.sent}:
	default:
	}
	close(l.down)
	l.down = nil
}

// farewell tells a gateway the same.
func (l *gatewayLink) farewell() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gone = true
	if l.down == nil {
		l.stop()
		return
	}
	select {
	case l.down <- quire.GatewayFeed{Feed: quire.Feed{Removed: true, Seq: l.sent}}:
	default:
	}
	close(l.down)
	l.down = nil
}

func keysOf(nodes []quire.Node, dc quire.DataCenterID) map[quire.NodeID]string {
	m := map[quire.NodeID]string{}
	for _, n := range nodes {
		if n.DataCenter == dc && n.Peer.Fingerprint != "" {
			m[n.ID] = n.Peer.Fingerprint
		}
	}
	return m
}

// ended notes that the link is down, for good if that is what it was told.
func (l *nodeLink) ended() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = nil
	if l.gone {
		l.stop()
	}
}

func (l *gatewayLink) ended() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = nil
	if l.gone {
		l.stop()
	}
}

// originsOf are the addresses of a data center's apps.
func (c *core) originsOf(apps string) (quire.Origins, error) {
	if apps == "" {
		return c.Origins, nil
	}
	return quire.NewOrigins(quire.OriginConfig{Portal: c.Origins.Portal(), Apps: apps})
}

// originsAt are the addresses of the apps in a project's data center.
func (c *core) originsAt(tx *store.Tx, id quire.DataCenterID) (quire.Origins, error) {
	apps, err := tx.AppsOf(id)
	if err != nil {
		return nil, err
	}
	return c.originsOf(apps)
}

// FormTargets are the sources of all data centers' apps, as a content policy
// names them.
func (c *Control) FormTargets() []string {
	c.loop.mu.Lock()
	defer c.loop.mu.Unlock()
	return c.loop.targets
}
