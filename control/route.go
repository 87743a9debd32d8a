package control

import (
	"time"

	"quire"
	"quire/store"
)

// routes are those of all sessions or of one, by data center, with their age.
func (r *reconciler) routes(tx *store.Tx, id quire.SessionID) (map[quire.DataCenterID][]quire.Route, error) {
	rows, err := tx.Routes(r.c.Now().Add(-24*time.Hour).UnixMilli(), id)
	if err != nil {
		return nil, err
	}
	age, err := tx.Count()
	if err != nil {
		return nil, err
	}
	at := map[quire.ProjectID]string{}
	all := map[quire.DataCenterID][]quire.Route{}
	for _, row := range rows {
		if _, known := at[row.Project]; !known && row.State == quire.SessionStarting {
			if at[row.Project], err = r.doing(tx, row.Project); err != nil {
				return nil, err
			}
		}
		route := r.dress(row, at[row.Project])
		route.Version = age
		all[row.DataCenter] = append(all[row.DataCenter], route)
	}
	return all, nil
}

// dress adds to a stored route what only the node's descriptors and the running
// start know.
func (r *reconciler) dress(row store.RouteRow, doing string) quire.Route {
	route := row.Route
	route.AppTitle = row.App
	for _, app := range r.apps(row.Node, row.Project) {
		if app.Name == row.App {
			route.AppTitle = app.Title
		}
	}
	if row.State == quire.SessionStarting {
		route.Reason = doing
	}
	return route
}

// route tells the gateway how a session stands now.
func (r *reconciler) route(id quire.SessionID) {
	r.mu.Lock()
	ctx := r.ctx
	r.mu.Unlock()
	if ctx == nil {
		return
	}
	r.routing.Lock()
	defer r.routing.Unlock()
	var routes map[quire.DataCenterID][]quire.Route
	err := r.c.read(ctx, func(tx *store.Tx) (err error) { routes, err = r.routes(tx, id); return err })
	if err != nil {
		r.c.Log.Error("cannot read a route", "session", id, "err", err)
		return
	}
	for dc, list := range routes {
		r.mu.Lock()
		l := r.gateways[dc]
		r.mu.Unlock()
		if l == nil {
			continue
		}
		l.mu.Lock()
		l.routes = append(l.routes, list...)
		l.mu.Unlock()
		r.flushGateway(l)
	}
}
