package control

import "quire"

// place chooses where a new project lives: the node that was named, or the one
// with the most room of a data center or of all. What is scarcest on a node
// counts: memory, processors or disk.
func (c *core) place(tx *txn, id quire.NodeID, dc quire.DataCenterID) (*quire.Node, error) {
	nodes, err := tx.Nodes()
	if err != nil {
		return nil, err
	}
	var best *quire.Node
	most := -1.0
	for i, n := range nodes {
		if id != "" && n.ID != id || dc != "" && n.DataCenter != dc {
			continue
		}
		if id != "" {
			if n.Drained {
				return nil, quire.Invalid("node", closedSentence(n))
			}
			return &nodes[i], nil
		}
		if n.Drained || n.Peer.Cloned {
			continue
		}
		up, _, health := c.loop.nodeState(n.ID)
		if r := room(up, health); r > most {
			best, most = &nodes[i], r
		}
	}
	switch {
	case best != nil:
		return best, nil
	case id != "":
		return nil, quire.Invalid("node", "There is no such compute node.")
	case len(nodes) == 0:
		return nil, quire.Unavailable("There is no compute node yet. An administrator must add one first.", nil)
	case dc != "":
		return nil, quire.Invalid("node", "This data center has no compute node that takes new projects now.")
	}
	return nil, quire.Unavailable("No compute node takes new projects now. Try again later, or ask an administrator.", nil)
}

// room is between 0 (nothing left) and 1 (nothing used). A node that is away
// counts as almost full: it is better than none.
func room(up bool, h quire.NodeHealth) float64 {
	if !up {
		return 0
	}
	share := func(free, total int64) float64 {
		if total <= 0 {
			return 1
		}
		return float64(free) / float64(total)
	}
	cpu := 1.0
	if h.CPUs > 0 {
		cpu = max(0, 1-h.Load/float64(h.CPUs))
	}
	return 0.01 + 0.99*min(share(h.MemoryFree, h.MemoryTotal), share(h.DiskFree, h.DiskTotal), 0.05+cpu)
}

func closedSentence(n quire.Node) string {
	s := "The compute node " + n.Name + " takes no new work now."
	if n.Note != "" {
		s += " " + n.Note
	}
	return s
}

// openNode refuses what would start something on a node that is drained.
func (c *core) openNode(tx *txn, id quire.NodeID) error {
	nodes, err := tx.Nodes()
	if err != nil {
		return err
	}
	for _, n := range nodes {
		if n.ID == id && n.Drained {
			return quire.Unavailable(closedSentence(n), nil)
		}
	}
	return nil
}
