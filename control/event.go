package control

import (
	"context"
	"math"

	"quire"
	"quire/store"
)

// Events are what happened.
type Events struct{ c *core }

const maxEvents = 200

func page(before int64, n int) (int64, int) {
	if before <= 0 {
		before = math.MaxInt64
	}
	return before, min(max(n, 1), maxEvents)
}

// OfProject lists a project's events before a number (0: the newest), for its
// team. Addresses are left out.
func (e *Events) OfProject(ctx context.Context, by quire.Actor, id quire.ProjectID, before int64, n int) (es []quire.Event, err error) {
	before, n = page(before, n)
	err = e.c.read(ctx, func(tx *store.Tx) error {
		p, err := e.c.project(tx, by, id, quire.See)
		if err != nil {
			return err
		}
		if !p.Role.AtLeast(quire.RoleViewer) && !by.Admin {
			return quire.Forbidden("Only the team sees what happened in a project.")
		}
		es, err = tx.EventsOf(id, before, n)
		return err
	})
	for i := range es {
		es[i].Address = ""
	}
	return es, err
}

// Mine lists the actor's own events, addresses included: his security log.
func (e *Events) Mine(ctx context.Context, by quire.Actor, before int64, n int) (es []quire.Event, err error) {
	if err := needPerson(by); err != nil {
		return nil, err
	}
	before, n = page(before, n)
	err = e.c.read(ctx, func(tx *store.Tx) error {
		es, err = tx.EventsBy(by.User, before, n)
		return err
	})
	return es, err
}

// OfMachines lists what happened to gateways and nodes, for administrators.
func (e *Events) OfMachines(ctx context.Context, by quire.Actor, before int64, n int) (es []quire.Event, err error) {
	if err := needAdmin(by); err != nil {
		return nil, err
	}
	before, n = page(before, n)
	err = e.c.read(ctx, func(tx *store.Tx) error {
		es, err = tx.MachineEvents(before, n)
		return err
	})
	return es, err
}
