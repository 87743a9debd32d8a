package compute

import (
	"context"

	"quire"
	"quire/ticket"
)

// Do carries out a signed order. The same order sent twice is carried out once
// and answered twice; two orders for the same thing follow each other, and the
// second finds it done.
func (c *Compute) Do(ctx context.Context, order []byte) (quire.Receipt, error) {
	o, err := c.c.Verifier.Order(order, c.c.Node, c.c.Now())
	if err != nil {
		return quire.Receipt{}, quire.Forbidden("The node refused the order: " + err.Error() + ".")
	}
	if !quire.ValidID('o', string(o.ID)) || !quire.ValidID('p', string(o.Project)) || !quire.ValidID('u', string(o.User)) {
		return quire.Receipt{}, quire.Invalid("id", "The order has no proper identity.")
	}
	k, mine := c.calls.begin(o.ID, o.Expires.Add(ticket.Skew), c.c.Now())
	if mine {
		// The work goes on when the asker goes away: the next asker finds it done.
		c.background(func() {
			k.receipt, k.err = c.carryOut(context.WithoutCancel(ctx), o, order)
			close(k.done)
		})
	}
	select {
	case <-k.done:
		return k.receipt, k.err
	case <-ctx.Done():
		return quire.Receipt{}, ctx.Err()
	}
}

func (c *Compute) carryOut(ctx context.Context, o quire.Order, signed []byte) (quire.Receipt, error) {
	c.c.Log.Info("order", "type", o.Type.String(), "order", o.ID, "user", o.User, "project", o.Project, "session", o.Session, "app", o.App)
	switch o.Type {
	case quire.OrderStart:
		return c.start(ctx, o, signed)
	case quire.OrderStop:
		return c.stop(ctx, o, signed)
	}
	// A long clone must not keep anybody from being shut out.
	key := o.Dir
	switch o.Type {
	case quire.OrderAccount, quire.OrderPermissions, quire.OrderRepair, quire.OrderTakeOver, quire.OrderWhy:
		key = o.Type.String() + " " + o.Account + " " + o.Dir
	}
	unlock, err := c.keys.lock(ctx, key)
	if err != nil {
		return quire.Receipt{}, err
	}
	defer unlock()
	a, err := c.spawner.ask(ctx, ask{Op: "order", Order: signed}, nil)
	if err == nil && o.Type == quire.OrderPurge && len(o.Args) == 0 { // not only what it left when it moved
		c.learn(o.Project, []string{})
	}
	return quire.Receipt{Already: a.Already, Note: a.Note, Log: a.Log, UID: a.UID, Findings: a.Findings, More: a.More}, err
}
