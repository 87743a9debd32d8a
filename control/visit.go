package control

import (
	"context"
	"encoding/base64"
	"slices"
	"time"

	"quire"
	"quire/store"
	"quire/ticket"
)

// What lies in a project's public folder may be read by anybody the site lets,
// also of private projects. It is shown by a session that is nobody's: its
// account owns nothing and is in no team, so the kernel says what is public.

const (
	visitLimit  = 30 * time.Second // how long a visit waits for that session
	visitAgain  = 10 * time.Second // how long a failure is the answer to all
	maxVisiting = 24               // such sessions at a time; the oldest gives way
)

var errNothingPublic = quire.NotFound("address")

// Visit leads to a file of a project's public folder: path begins with a slash.
// The address it gives is good for some minutes and for whoever has it.
func (s *Sessions) Visit(ctx context.Context, by quire.Actor, owner, project, path string) (string, error) {
	if !by.Known() && !s.c.Anonymous {
		return "", quire.Unauthenticated()
	}
	ctx, cancel := context.WithTimeout(ctx, visitLimit)
	defer cancel()
	w := s.c.hub.watch("")
	defer s.c.hub.leave(w)
	for started := false; ; {
		at, live, err := s.visited(ctx, by, owner, project, path)
		if err != nil || at != "" {
			return at, err
		}
		if !live {
			if started {
				return "", quire.Unavailable("The public folder cannot be shown at the moment. Try again in a minute; the project's owner finds the reason among its sessions.", nil)
			}
			started = true
			if err := s.receive(ctx, by, owner, project); err != nil {
				return "", err
			}
			continue
		}
		select {
		case <-w.ch:
		case <-ctx.Done():
			return "", quire.Unavailable("The public folder takes long to open. Try again in a moment.", ctx.Err())
		}
	}
}

// visited is the address, if the session is there, or whether it is to come.
func (s *Sessions) visited(ctx context.Context, by quire.Actor, owner, project, path string) (at string, live bool, err error) {
	err = s.c.read(ctx, func(tx *store.Tx) error {
		p, app, err := s.public(tx, owner, project)
		if err != nil {
			return err
		}
		visitor, err := tx.Visitor(s.c.VisitorName)
		if quire.KindOf(err) == quire.KindNotFound {
			return nil // the very first visit
		}
		if err != nil {
			return err
		}
		last, err := tx.LatestSession(visitor.ID, p.ID, app.Name)
		if err != nil || last == nil {
			return err
		}
		if last.State == quire.SessionFailed && last.Ended != nil && s.c.Now().Sub(*last.Ended) < visitAgain {
			return quire.Unavailable("The public folder cannot be shown at the moment. Try again in a minute; the project's owner finds the reason among its sessions.", nil)
		}
		if live = last.State.Live(); last.State != quire.SessionRunning {
			return nil
		}
		label, err := tx.LabelOf(visitor.ID, p.ID)
		if err != nil {
			return err
		}
		l := quire.Login{Created: s.c.Now()}
		if !s.c.Anonymous { // then the right ends with the login that had it
			if l, err = tx.Login(by.Login); err != nil {
				return quire.Unauthenticated()
			}
		}
		g, _, err := s.c.grant(tx, l, p, visitor.ID, label)
		if err != nil {
			return err
		}
		g.Role, g.Grace = quire.RoleViewer, g.Expires
		pass := base64.RawURLEncoding.EncodeToString(s.c.Signer.Grant(g))
		origins, err := s.c.originsAt(tx, p.DataCenter)
		if err != nil {
			return err
		}
		at = origins.Origin(label) + "/~" + pass + origins.Prefix(label) + "/" + app.Name + path
		return nil
	})
	return at, live, err
}

// public finds a project whose folder can be shown, and the app that shows it.
func (s *Sessions) public(tx *store.Tx, owner, project string) (p quire.Project, app quire.App, err error) {
	if p, err = tx.ProjectByName("", owner, project); err != nil {
		return p, app, errNothingPublic
	}
	if done, err := tx.Prepared(p.ID); err != nil || !done["skeleton"] {
		return p, app, errNothingPublic // nothing is on disk yet
	}
	apps := s.c.loop.apps(p.Node, p.ID)
	i := slices.IndexFunc(apps, func(a quire.App) bool { return a.Public() })
	switch {
	case !s.c.loop.nodeUp(p.Node):
		return p, app, quire.Unavailable("The compute node of this project is away. Try again in a moment.", nil)
	case i < 0:
		return p, app, errNothingPublic
	}
	return p, apps[i], nil
}

// receive starts the session that shows a project's public folder.
func (s *Sessions) receive(ctx context.Context, by quire.Actor, owner, project string) error {
	return s.c.write(ctx, by, func(tx *txn) error {
		p, app, err := s.public(tx.Tx, owner, project)
		if err != nil {
			return err
		}
		visitor, err := tx.Visitor(s.c.VisitorName)
		if quire.KindOf(err) == quire.KindNotFound {
			visitor = quire.User{ID: quire.NewUserID(), Name: s.c.VisitorName, Created: tx.Now}
			err = tx.AddVisitor(visitor)
		}
		if err != nil {
			return err
		}
		last, err := tx.LatestSession(visitor.ID, p.ID, app.Name)
		if err != nil || last != nil && last.State.Live() {
			return err
		}
		all, err := tx.LiveSessionsOfUser(visitor.ID, "")
		if err != nil {
			return err
		}
		slices.SortFunc(all, func(a, b quire.Session) int { return a.Created.Compare(b.Created) })
		if more := len(all) + 1 - maxVisiting; more > 0 {
			if err := s.c.stopSessions(tx, all[:more], "Quire, because other public folders were asked for"); err != nil {
				return err
			}
		}
		if _, err := tx.Label(visitor.ID, p.ID); err != nil {
			return err
		}
		fresh := quire.Session{
			ID: quire.NewSessionID(), User: visitor.ID, UserName: visitor.Name, Project: p.ID, App: app.Name, Node: p.Node, State: quire.SessionStarting, Permit: app.Permit, Content: app.Content, Created: tx.Now,
		}
		if err := tx.AddSession(fresh); err != nil {
			return err
		}
		tx.touch(p.ID)
		tx.wake(wakeRoute, string(fresh.ID))
		tx.wake(wakeSession, string(fresh.ID))
		return nil
	})
}

// renewVisit is the newer grant of somebody who reads a public folder.
func (c *core) renewVisit(tx *store.Tx, old ticket.Grant) (g ticket.Grant, gateway quire.NodeID, err error) {
	l := quire.Login{Created: c.Now()}
	if old.Login != "" {
		if l, err = tx.Login(old.Login); err != nil || !alive(l, c.Now()) {
			return g, "", quire.Unauthenticated()
		}
	} else if !c.Anonymous {
		return g, "", quire.Unauthenticated()
	}
	p, err := tx.Project("", old.Project)
	if err != nil || p.Deleted != nil {
		return g, "", errNothingPublic
	}
	g, gateway, err = c.grant(tx, l, p, old.User, old.Label)
	g.Role, g.Grace = quire.RoleViewer, g.Expires
	return g, gateway, err
}
