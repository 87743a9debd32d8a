package store

import (
	"time"

	"quire"
)

// Away lists the machines that are written down as not answering, and since when.
func (t *Tx) Away() (map[quire.NodeID]time.Time, error) {
	away := map[quire.NodeID]time.Time{}
	err := t.query(func(scan func(...any) error) error {
		var id quire.NodeID
		var since int64
		if err := scan(&id, &since); err != nil {
			return err
		}
		away[id] = moment(since)
		return nil
	}, `SELECT node, since FROM away`)
	return away, err
}

// SetAway writes down that a machine does not answer. It reports false if that
// was known.
func (t *Tx) SetAway(id quire.NodeID, since time.Time) (bool, error) {
	return t.exec(`INSERT INTO away (node, since) VALUES ($1, $2) ON CONFLICT (node) DO NOTHING`, id, millis(since))
}

// SetBack forgets it. It reports false if there was nothing to forget.
func (t *Tx) SetBack(id quire.NodeID) (bool, error) {
	return t.exec(`DELETE FROM away WHERE node = $1`, id)
}

// MachineEvents lists up to n events about gateways and nodes before a number,
// newest first.
func (t *Tx) MachineEvents(before int64, n int) ([]quire.Event, error) {
	return t.events(`WHERE seq < $1 AND verb IN ('node.away', 'node.back', 'gateway.away', 'gateway.back', 'node.change', 'data-center.change',
		'join.token', 'join.revoke', 'join.gateway', 'join.compute', 'site.remove', 'peer.cloned') ORDER BY seq DESC LIMIT $2`, before, n)
}
