package control

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"strings"
	"time"

	"quire"
	"quire/store"
	"quire/ticket"
)

// Sessions are running apps.
type Sessions struct{ c *core }

// AppState is one app of a project as the asker may use it.
type AppState struct {
	App     quire.App       `json:"app"`
	Allowed bool            `json:"allowed"`
	Session *quire.Session  `json:"session,omitempty"` // the asker's newest
	Others  []quire.Session `json:"others,omitempty"`  // live ones of others
}

// Address is where the asker's app is.
type Address struct {
	URL     string         `json:"url"` // on the asker's own app origin
	Live    bool           `json:"live"`
	Session *quire.Session `json:"session,omitempty"`
}

// Apps lists the apps that the project's node offers.
func (s *Sessions) Apps(ctx context.Context, by quire.Actor, id quire.ProjectID) (list []AppState, err error) {
	err = s.c.read(ctx, func(tx *store.Tx) error {
		p, err := s.c.project(tx, by, id, quire.See)
		if err != nil {
			return err
		}
		live, err := tx.SessionsOf(id, 0)
		if err != nil {
			return err
		}
		live = shown(live, by, insider(by, p))
		for _, app := range s.c.loop.apps(p.Node, p.ID) {
			if app.Public() {
				continue // it has an address of its own
			}
			st := AppState{App: app, Allowed: mayOpen(by, p, app)}
			if st.Session, err = tx.LatestSession(by.User, id, app.Name); err != nil {
				return err
			}
			for _, o := range live {
				if o.App == app.Name && o.User != by.User {
					st.Others = append(st.Others, o)
				}
			}
			list = append(list, st)
		}
		return nil
	})
	return list, err
}

func mayOpen(by quire.Actor, p quire.Project, app quire.App) bool {
	verb := quire.Operate
	if app.MinRole() == quire.RoleViewer {
		verb = quire.ReadApp
	}
	return by.User != "" && quire.Can(by, verb, p.Role, p.Public)
}

func (s *Sessions) app(p quire.Project, name string) (quire.App, error) {
	for _, app := range s.c.loop.apps(p.Node, p.ID) {
		if app.Name == name && !app.Public() {
			return app, nil
		}
	}
	if !s.c.loop.nodeUp(p.Node) {
		return quire.App{}, quire.Unavailable("The compute node of this project is away. Its sessions go on; try again in a moment.", nil)
	}
	return quire.App{}, quire.NotFound("app")
}

func (s *Sessions) openable(tx *store.Tx, by quire.Actor, id quire.ProjectID, name string) (quire.Project, quire.App, error) {
	p, err := s.c.project(tx, by, id, quire.See)
	if err != nil {
		return p, quire.App{}, err
	}
	if err := needPerson(by); err != nil {
		return p, quire.App{}, err
	}
	app, err := s.app(p, name)
	if err == nil && !mayOpen(by, p, app) {
		err = quire.Forbidden(app.Title + " can change files, so it needs the role editor. The owner of the project can give it to you.")
	}
	return p, app, err
}

// Open makes sure that the asker's session of the app runs or starts, and the
// project with it.
func (s *Sessions) Open(ctx context.Context, by quire.Actor, id quire.ProjectID, name string) (a Address, err error) {
	err = s.c.write(ctx, by, func(tx *txn) error {
		p, app, err := s.openable(tx.Tx, by, id, name)
		if err != nil {
			return err
		}
		if err := s.c.ensureRunning(tx, by, p); err != nil {
			return err
		}
		label, err := tx.Label(by.User, id)
		if err != nil {
			return err
		}
		origins, err := s.c.originsAt(tx.Tx, p.DataCenter)
		if err != nil {
			return err
		}
		a.URL = origins.App(label, app.Name, "/")
		a.Session, err = tx.LatestSession(by.User, id, app.Name)
		if err != nil {
			return err
		}
		if a.Session != nil && a.Session.State == quire.SessionStopping {
			return quire.Conflict("", app.Title+" is being stopped. Open it again in a moment.")
		}
		if a.Live = a.Session != nil && a.Session.State.Live(); a.Live {
			return nil
		}
		if err := s.c.openNode(tx, p.Node); err != nil { // the project runs, but no more is to start there
			return err
		}
		fresh := quire.Session{
			ID: quire.NewSessionID(), User: by.User, UserName: by.Name, Project: id, App: app.Name, Node: p.Node, State: quire.SessionStarting, Permit: app.Permit, Content: app.Content, Created: tx.Now,
		}
		if err := tx.AddSession(fresh); err != nil {
			return err
		}
		a.Session, a.Live = &fresh, true
		tx.touch(id)
		tx.wake(wakeRoute, string(fresh.ID)) // before the browser gets there
		tx.wake(wakeSession, string(fresh.ID))
		return tx.event("session.start", id, app.Name)
	})
	return a, err
}

// Find says where the asker's session of the app is, starting nothing. path
// begins with a slash or is empty.
func (s *Sessions) Find(ctx context.Context, by quire.Actor, id quire.ProjectID, name, path string) (a Address, err error) {
	err = s.c.read(ctx, func(tx *store.Tx) error {
		p, app, err := s.openable(tx, by, id, name)
		if err != nil {
			return err
		}
		if a.Session, err = tx.LatestSession(by.User, id, app.Name); err != nil {
			return err
		}
		label, err := tx.LabelOf(by.User, id)
		if quire.KindOf(err) == quire.KindNotFound {
			return nil // never opened anything here
		}
		if path == "" {
			path = "/"
		}
		origins, err := s.c.originsAt(tx, p.DataCenter)
		if err != nil {
			return err
		}
		a.URL = origins.App(label, app.Name, path)
		a.Live = a.Session != nil && a.Session.State.Live() && a.Session.State != quire.SessionStopping
		return err
	})
	return a, err
}

// Ask is what a gateway's redirect asks for a browser that it does not know.
type Ask struct {
	Label quire.Label
	Nonce string // hex of the SHA-256 of the browser's nonce cookie
	Path  string // on the app origin, below the label's prefix
}

// HandOff is a form for the browser to post: Ticket and Path to Action.
type HandOff struct{ Action, Ticket, Path string }

var errLabel = quire.NotFound("address")

// HandOff lets the actor's browser into his own origin of a project. Unknown
// labels and those of others are one answer.
func (s *Sessions) HandOff(ctx context.Context, by quire.Actor, ask Ask) (h HandOff, err error) {
	if err := needPerson(by); err != nil {
		return h, err
	}
	sum, err := hex.DecodeString(ask.Nonce)
	if err != nil || len(sum) != 32 || !ask.Label.Valid() {
		return h, quire.Invalid("nonce", "This address was cut or changed. Go back to the project and open the app again.")
	}
	if !strings.HasPrefix(ask.Path, "/") || strings.HasPrefix(ask.Path, "//") || strings.ContainsAny(ask.Path, "\\\r\n\x00") || len(ask.Path) > 8000 {
		ask.Path = "/"
	}
	err = s.c.read(ctx, func(tx *store.Tx) error {
		// The grant will know of every revocation up to now, so the login must live
		// in the same snapshot: one that ended meanwhile would never be revoked.
		login, err := tx.Login(by.Login)
		if err != nil || login.User != by.User || !alive(login, s.c.Now()) {
			return quire.Unauthenticated()
		}
		user, id, err := tx.LabelOwner(ask.Label)
		if err != nil || user != by.User {
			return errLabel
		}
		p, err := s.c.project(tx, by, id, quire.ReadApp)
		if err != nil {
			return errLabel
		}
		grant, gateway, err := s.c.grant(tx, login, p, user, ask.Label)
		if err != nil {
			return err
		}
		origins, err := s.c.originsAt(tx, p.DataCenter)
		if err != nil {
			return err
		}
		now := s.c.Now() // once: a millisecond more than its life and a ticket is refused
		t := ticket.Ticket{ID: quire.NewOrderID(), Gateway: gateway, Label: ask.Label, Grant: s.c.Signer.Grant(grant), Issued: now, Expires: now.Add(ticket.TicketLife)}
		copy(t.Nonce[:], sum)
		h = HandOff{
			Action: origins.Origin(ask.Label) + origins.Prefix(ask.Label) + "/_quire/enter",
			Ticket: base64.RawURLEncoding.EncodeToString(s.c.Signer.Ticket(t)),
			Path:   ask.Path,
		}
		return nil
	})
	return h, err
}

// grant is what lets a person's login into his origin of a project now.
func (c *core) grant(tx *store.Tx, l quire.Login, p quire.Project, user quire.UserID, label quire.Label) (g ticket.Grant, gateway quire.NodeID, err error) {
	dcs, err := tx.DataCenters()
	if err != nil {
		return g, "", err
	}
	for _, dc := range dcs {
		if dc.ID == p.DataCenter {
			gateway = dc.Gateway
		}
	}
	seq, err := tx.FeedSeq()
	if err != nil {
		return g, "", err
	}
	role := p.Role
	if role == quire.RoleNone {
		role = quire.RoleViewer // a public project's reader
	}
	// Nothing outlives the login, whatever is open.
	now, end := c.Now(), l.Created.Add(quire.LoginLife)
	until := func(d time.Duration) time.Time {
		if t := now.Add(d); t.Before(end) {
			return t
		}
		return end
	}
	return ticket.Grant{
		Gateway: gateway, Node: p.Node, User: user, Project: p.ID, Login: l.ID, Label: label, Role: role, Feed: seq,
		Issued: now, Expires: until(ticket.GrantLife), Grace: until(max(c.Grace, ticket.GrantLife)),
	}, gateway, nil
}

// renew answers a gateway's wish for a newer grant: nil if login or right is
// gone.
func (c *core) renew(ctx context.Context, gateway quire.NodeID, old []byte) []byte {
	g, err := c.verify.Grant(old)
	if err != nil || g.Gateway != gateway {
		return nil
	}
	var fresh []byte
	var seen bool
	err = c.read(ctx, func(tx *store.Tx) error {
		if visit, err := tx.IsVisitor(g.User); err != nil {
			return err
		} else if visit {
			next, at, err := c.renewVisit(tx, g)
			if err != nil || at != gateway {
				return errNothingPublic
			}
			fresh = c.Signer.Grant(next)
			return nil
		}
		l, err := tx.Login(g.Login)
		if err != nil || l.User != g.User || !alive(l, c.Now()) {
			return quire.Unauthenticated()
		}
		user, err := tx.User(g.User)
		if err != nil || user.Disabled {
			return quire.Unauthenticated()
		}
		p, err := c.project(tx, quire.Actor{User: user.ID}, g.Project, quire.ReadApp)
		if err != nil {
			return err
		}
		next, at, err := c.grant(tx, l, p, g.User, g.Label)
		if err != nil || at != gateway {
			return quire.NotFound("address")
		}
		seen = c.Now().Sub(l.LastSeen) > seenEvery
		fresh = c.Signer.Grant(next)
		return nil
	})
	if err != nil {
		return nil
	}
	if seen { // work in an app keeps the login alive as work in the portal does
		if err := c.write(ctx, quireItself, func(tx *txn) error { return tx.SeeLogin(g.Login) }); err != nil {
			c.Log.Warn("login not noted as seen", "err", err)
		}
	}
	return fresh
}

// List lists a project's live sessions and its last ended ones.
func (s *Sessions) List(ctx context.Context, by quire.Actor, id quire.ProjectID) (ss []quire.Session, err error) {
	var team bool
	err = s.c.read(ctx, func(tx *store.Tx) error {
		p, err := s.c.project(tx, by, id, quire.See)
		if err != nil {
			return err
		}
		team = insider(by, p)
		ss, err = tx.SessionsOf(id, 20)
		return err
	})
	return shown(ss, by, team), err
}

// insider reports whether the actor may know who runs what in the project.
func insider(by quire.Actor, p quire.Project) bool {
	return p.Role.AtLeast(quire.RoleViewer) || by.Admin || by.System
}

// shown leaves out what is not the asker's to see: what another person's program
// printed or said at its end, and, to those outside the team, that others run
// anything at all.
func shown(ss []quire.Session, by quire.Actor, team bool) []quire.Session {
	kept := ss[:0]
	for _, s := range ss {
		if s.User != by.User {
			if !team {
				continue
			}
			s.Log, s.Reason, s.Exit = "", "", nil
		}
		kept = append(kept, s)
	}
	return kept
}

// mine loads a session that the actor may stop: his own, or any if he may stop
// the project.
func (s *Sessions) mine(tx *store.Tx, by quire.Actor, id quire.SessionID, verb quire.Verb) (quire.Session, error) {
	one, err := tx.Session(id)
	if err != nil {
		return one, err
	}
	p, err := s.c.project(tx, by, one.Project, quire.See)
	if err != nil {
		return one, quire.NotFound("session")
	}
	if one.User != by.User {
		return one, allow(by, verb, p)
	}
	return one, nil
}

// Stop ends a session.
func (s *Sessions) Stop(ctx context.Context, by quire.Actor, id quire.SessionID) error {
	return s.c.write(ctx, by, func(tx *txn) error {
		one, err := s.mine(tx.Tx, by, id, quire.Stop)
		if err != nil {
			return err
		}
		ok, err := tx.WantStop(id, by.Name)
		if err != nil || !ok {
			return err
		}
		tx.touch(one.Project)
		tx.wake(wakeSession, string(id))
		return tx.event("session.stop", one.Project, one.App)
	})
}

// stopSessionsOf asks for the end of a person's sessions in a project ("": all).
func (c *core) stopSessionsOf(tx *txn, user quire.UserID, project quire.ProjectID, by string) error {
	ss, err := tx.LiveSessionsOfUser(user, project)
	if err != nil {
		return err
	}
	return c.stopSessions(tx, ss, by)
}

func (c *core) stopSessions(tx *txn, ss []quire.Session, by string) error {
	for _, s := range ss {
		if _, err := tx.WantStop(s.ID, by); err != nil {
			return err
		}
		tx.touch(s.Project)
		tx.wake(wakeSession, string(s.ID))
	}
	return nil
}

// Log returns the last lines the session printed, to its own person.
func (s *Sessions) Log(ctx context.Context, by quire.Actor, id quire.SessionID) (string, error) {
	var one quire.Session
	err := s.c.read(ctx, func(tx *store.Tx) (err error) {
		one, err = tx.Session(id)
		return err
	})
	if err != nil {
		return "", err
	}
	if one.User != by.User || by.User == "" {
		return "", quire.NotFound("session")
	}
	if !one.State.Live() {
		return one.Log, nil
	}
	m, err := s.c.loop.machine(one.Node)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return m.Log(ctx, id, 64<<10)
}

// Timeline is the project's newest work, nil if it never had one.
func (s *Sessions) Timeline(ctx context.Context, by quire.Actor, id quire.ProjectID) (w *quire.Work, err error) {
	err = s.c.read(ctx, func(tx *store.Tx) error {
		p, err := s.c.project(tx, by, id, quire.See)
		if err != nil {
			return err
		}
		if w, err = tx.LatestWork(id); w != nil && !insider(by, p) {
			w.Log = ""
		}
		if w != nil && w.Move != nil { // whose files there are is for those who may ask
			w.Move.Survey, w.Move.People, w.Move.Named = nil, nil, nil
		}
		return err
	})
	return w, err
}

// Live lists all live sessions of the installation, for administrators.
func (s *Sessions) Live(ctx context.Context, by quire.Actor) (ss []quire.Session, err error) {
	if err := needAdmin(by); err != nil {
		return nil, err
	}
	err = s.c.read(ctx, func(tx *store.Tx) error {
		ss, err = tx.LiveSessions("")
		return err
	})
	return ss, err
}

// StopAll ends every session of the installation and waits until they are gone.
func (s *Sessions) StopAll(ctx context.Context, by quire.Actor) (n int, err error) {
	live, err := s.Live(ctx, by)
	if err != nil {
		return 0, err
	}
	w := s.c.hub.watch("")
	defer s.c.hub.leave(w)
	if err := s.c.write(ctx, by, func(tx *txn) error { return s.c.stopSessions(tx, live, by.Name) }); err != nil {
		return 0, err
	}
	for n = len(live); len(live) > 0; {
		select {
		case <-ctx.Done():
			return n - len(live), quire.Unavailable("Some sessions have not ended yet.", ctx.Err())
		case <-w.ch:
		}
		if live, err = s.Live(ctx, by); err != nil {
			return n, err
		}
	}
	return n, nil
}
