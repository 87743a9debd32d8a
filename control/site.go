package control

import (
	"context"

	"quire"
	"quire/store"
)

// Site is the installation: data centers and nodes.
type Site struct{ c *core }

// Join records a data center with its gateway and, unless it has no ID, a node
// in it, new or known. What an administrator has written about them stays.
// `quire up` does this for the one machine it runs on.
func (s *Site) Join(ctx context.Context, by quire.Actor, dc quire.DataCenter, node quire.Node) error {
	if err := needAdmin(by); err != nil {
		return err
	}
	return s.c.write(ctx, by, func(tx *txn) error {
		if err := keepWords(tx, &dc, &node); err != nil {
			return err
		}
		if err := tx.SaveDataCenter(dc); err != nil {
			return err
		}
		tx.touch("")
		tx.wake(wakeRefresh, "")
		if node.ID == "" {
			return nil
		}
		return tx.SaveNode(node)
	})
}

const cloned = "its key is on a second machine, so it was cut off. Remove it, delete its key on both, and let one join again"

func keepWords(tx *txn, dc *quire.DataCenter, node *quire.Node) error {
	dcs, err := tx.DataCenters()
	if err != nil {
		return err
	}
	for _, have := range dcs {
		if have.ID == dc.ID {
			dc.Name, dc.Summary, dc.Apps = have.Name, have.Summary, have.Apps
		}
	}
	nodes, err := tx.Nodes()
	for _, have := range nodes {
		if have.ID == node.ID {
			node.Name, node.Summary, node.Note, node.Drained = have.Name, have.Summary, have.Note, have.Drained
		}
	}
	return err
}

// DataCenters lists all, with their state as seen now.
func (s *Site) DataCenters(ctx context.Context, by quire.Actor) (ds []quire.DataCenter, err error) {
	if err := needKnown(by); err != nil {
		return nil, err
	}
	err = s.c.read(ctx, func(tx *store.Tx) error {
		ds, err = tx.DataCenters()
		return err
	})
	for i := range ds {
		ds[i].Up, ds[i].Reason = s.c.loop.gatewayState(ds[i].ID)
		ds[i].Version = s.c.loop.gatewayVersion(ds[i].ID)
		if ds[i].Peer.Cloned {
			ds[i].Reason = cloned
		}
		if !by.Admin && !by.System {
			ds[i].Address, ds[i].Version, ds[i].Peer = "", "", quire.Peer{}
		}
	}
	return ds, err
}

// Nodes lists all, with their state as seen now.
func (s *Site) Nodes(ctx context.Context, by quire.Actor) (ns []quire.Node, err error) {
	if err := needKnown(by); err != nil {
		return nil, err
	}
	err = s.c.read(ctx, func(tx *store.Tx) error {
		ns, err = tx.Nodes()
		return err
	})
	for i := range ns {
		ns[i].Up, ns[i].Reason, ns[i].Health = s.c.loop.nodeState(ns[i].ID)
		if ns[i].Peer.Cloned {
			ns[i].Reason = cloned
		}
		if !by.Admin && !by.System {
			ns[i].Address, ns[i].Health, ns[i].Peer = "", quire.NodeHealth{}, quire.Peer{}
		}
	}
	return ns, err
}

// Watch gives a value after each change of the project, or (project "") of
// anything. The channel is closed when ctx ends, the login ends, or the right
// to see the project is gone.
func (s *Site) Watch(ctx context.Context, by quire.Actor, id quire.ProjectID) (<-chan struct{}, error) {
	may := func() error {
		return s.c.read(ctx, func(tx *store.Tx) error {
			if by.Login != "" {
				if l, err := tx.Login(by.Login); err != nil || !alive(l, s.c.Now()) {
					return quire.Unauthenticated()
				}
			}
			if id == "" {
				return needKnown(by)
			}
			_, err := s.c.project(tx, by, id, quire.See)
			return err
		})
	}
	if err := may(); err != nil {
		return nil, err
	}
	w := s.c.hub.watch(id)
	out := make(chan struct{}, 1)
	go func() {
		defer close(out)
		defer s.c.hub.leave(w)
		for {
			select {
			case <-ctx.Done():
				return
			case <-w.ch:
			}
			if may() != nil {
				return
			}
			select {
			case out <- struct{}{}:
			default:
			}
		}
	}()
	return out, nil
}

// Waiting says in words what is not up yet: "" when every gateway and node is.
func (s *Site) Waiting(ctx context.Context, by quire.Actor) (string, error) {
	if err := needAdmin(by); err != nil {
		return "", err
	}
	dcs, err := s.DataCenters(ctx, by)
	if err != nil {
		return "", err
	}
	for _, dc := range dcs {
		if !dc.Up {
			return "the gateway of " + dc.Name + ": " + dc.Reason, nil
		}
	}
	nodes, err := s.Nodes(ctx, by)
	if err != nil {
		return "", err
	}
	for _, n := range nodes {
		if !n.Up {
			return "the node " + n.Name + ": " + n.Reason, nil
		}
	}
	return "", nil
}
