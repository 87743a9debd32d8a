package store

import (
	"time"

	"quire"
)

// A Leftover is what a move left on a node. Its next step is due at a time; the
// project may be gone by then, so all that the orders need is here.
type Leftover struct {
	Project quire.ProjectID
	Node    quire.NodeID
	What    string // control knows which there are
	Due     time.Time
	Owner   quire.UserID
	Account quire.Person
	Dir     string
}

// Leftovers lists those of a project, or ("") of all that are due at a moment.
func (t *Tx) Leftovers(project quire.ProjectID, due time.Time) (ls []Leftover, err error) {
	err = t.query(func(scan func(...any) error) error {
		var l Leftover
		var due int64
		if err := scan(&l.Project, &l.Node, &l.What, &due, &l.Owner, &l.Account.Name, &l.Account.UID, &l.Dir); err != nil {
			return err
		}
		l.Due = moment(due)
		ls = append(ls, l)
		return nil
	}, `SELECT project, node, what, due, owner, account, uid, dir FROM leftovers WHERE project = $1 OR $1 = '' AND due <= $2 ORDER BY due`, project, millis(due))
	return ls, err
}

// SetLeftover stores one, in place of what was left there before.
func (t *Tx) SetLeftover(l Leftover) error {
	_, err := t.exec(`INSERT INTO leftovers (project, node, what, due, owner, account, uid, dir) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
		ON CONFLICT (project, node) DO UPDATE SET what = $3, due = $4, owner = $5, account = $6, uid = $7, dir = $8`,
		l.Project, l.Node, l.What, millis(l.Due), l.Owner, l.Account.Name, l.Account.UID, l.Dir)
	return err
}

// DropLeftover forgets it: it is removed.
func (t *Tx) DropLeftover(project quire.ProjectID, node quire.NodeID) error {
	_, err := t.exec(`DELETE FROM leftovers WHERE project = $1 AND node = $2`, project, node)
	return err
}
