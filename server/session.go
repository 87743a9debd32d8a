package server

import (
	"net/http"
	"strings"

	"quire"
	"quire/control"
)

// appRef is an app in an address. The rest of the path belongs to the app.
type appRef struct {
	projectRef
	App string `path:"app" json:"-"`
}

type appPageView struct {
	projectHead
	App    appView
	Action string // where the Start button posts
}

// appPath is what follows /OWNER/PROJECT/APP in the address, as it was sent:
// the app's own path and query.
func appPath(r *http.Request) string {
	parts := strings.SplitN(r.URL.EscapedPath(), "/", 5)
	path := "/"
	if len(parts) == 5 {
		path += parts[4]
	}
	if r.URL.RawQuery != "" {
		path += "?" + r.URL.RawQuery
	}
	return path
}

// appGet leads to the asker's own running app. It starts nothing: a link in a
// mail must not make work.
func appGet(c *call, in appRef) (answer, error) {
	p, err := c.project(in.projectRef)
	if err != nil {
		return answer{}, err
	}
	at, err := c.s.control.Sessions.Find(c.ctx(), c.by, p.ID, in.App, appPath(c.r))
	if err != nil {
		return answer{}, err
	}
	if at.Live {
		return goTo(at.URL), nil
	}
	apps, err := c.s.control.Sessions.Apps(c.ctx(), c.by, p.ID)
	if err != nil {
		return answer{}, err
	}
	for _, a := range apps {
		if a.App.Name == in.App {
			v := appPageView{projectHead: head(c.by, p, c.token, "overview"), Action: c.r.URL.RequestURI()}
			v.App = newAppView(c.by, a, p, map[string]string{a.App.Name: a.App.Title}, v.CanStop)
			return show("app", a.App.Title+" in "+p.Name, v), nil
		}
	}
	return answer{}, quire.NotFound("app")
}

// appPost starts what is needed and leads there.
func appPost(c *call, in appRef) (answer, error) {
	p, err := c.project(in.projectRef)
	if err != nil {
		return answer{}, err
	}
	at, err := c.s.control.Sessions.Open(c.ctx(), c.by, p.ID, in.App)
	if err != nil {
		return answer{}, err
	}
	if deep := appPath(c.r); deep != "/" {
		if found, err := c.s.control.Sessions.Find(c.ctx(), c.by, p.ID, in.App, deep); err == nil && found.Live {
			at = found
		}
	}
	return goTo(at.URL), nil
}

// publicGet leads to what a project lets everybody read. The address is the
// portal's and stays; where it leads is good for some minutes.
func publicGet(c *call, in projectRef) (answer, error) {
	to, err := c.s.control.Sessions.Visit(c.ctx(), c.by, in.Owner, in.Project, appPath(c.r))
	return goTo(to), err
}

type handOffIn struct {
	Label string `query:"label"`
	Nonce string `query:"nonce"`
	Path  string `query:"path"`
}

// authorizeGet hands a browser over to one of the person's own app origins. The
// ticket travels in a form's body, never in an address.
func authorizeGet(c *call, in handOffIn) (answer, error) {
	h, err := c.s.control.Sessions.HandOff(c.ctx(), c.by, control.Ask{Label: quire.Label(in.Label), Nonce: in.Nonce, Path: in.Path})
	if err != nil {
		return answer{}, err
	}
	a := show("authorize", "Opening the app", h)
	a.bare = true
	return a, nil
}

type sessionRef struct {
	projectRef
	ID string `path:"id" json:"-"`
}

// session finds a session by its identity, but only below its own project: an
// address that mixes two projects names nothing.
func (c *call) session(in sessionRef) (quire.Project, quire.Session, error) {
	p, err := c.project(in.projectRef)
	if err != nil {
		return p, quire.Session{}, err
	}
	all, err := c.s.control.Sessions.List(c.ctx(), c.by, p.ID)
	if err != nil {
		return p, quire.Session{}, err
	}
	for _, s := range all {
		if string(s.ID) == in.ID {
			return p, s, nil
		}
	}
	return p, quire.Session{}, quire.NotFound("session")
}

type sessionsView struct {
	projectHead
	Live, Ended []sessionView
}

func newSessionsView(by quire.Actor, p quire.Project, token string, all []quire.Session, apps []control.AppState) sessionsView {
	v := sessionsView{projectHead: head(by, p, token, "sessions")}
	titles := map[string]string{}
	for _, a := range apps {
		titles[a.App.Name] = a.App.Title
	}
	for _, s := range all {
		one := newSessionView(by, s, titles, v.CanStop)
		if s.State.Live() {
			v.Live = append(v.Live, one)
		} else {
			v.Ended = append(v.Ended, one)
		}
	}
	return v
}

func (c *call) sessionsView(p quire.Project) (sessionsView, error) {
	all, err := c.s.control.Sessions.List(c.ctx(), c.by, p.ID)
	if err != nil {
		return sessionsView{}, err
	}
	apps, err := c.s.control.Sessions.Apps(c.ctx(), c.by, p.ID)
	return newSessionsView(c.by, p, c.token, all, apps), err
}

func sessionsGet(c *call, in projectRef) (answer, error) {
	p, err := c.project(in)
	if err != nil {
		return answer{}, err
	}
	v, err := c.sessionsView(p)
	if err != nil {
		return answer{}, err
	}
	a := show("sessions", p.Name+" sessions", v)
	a.live = p.Path() + "/sessions/events"
	return a, nil
}

func sessionStop(c *call, in sessionRef) (answer, error) {
	p, s, err := c.session(in)
	if err != nil {
		return answer{}, err
	}
	return goTo(p.Path() + "/sessions?done=stopping"), c.s.control.Sessions.Stop(c.ctx(), c.by, s.ID)
}

type logView struct {
	projectHead
	Session sessionView
	Log     string
}

func sessionLog(c *call, in sessionRef) (answer, error) {
	p, s, err := c.session(in)
	if err != nil {
		return answer{}, err
	}
	text, err := c.s.control.Sessions.Log(c.ctx(), c.by, s.ID)
	if err != nil {
		return answer{}, err
	}
	h := head(c.by, p, c.token, "sessions")
	return show("log", "Log of "+s.App, logView{h, newSessionView(c.by, s, nil, h.CanStop), text}), nil
}

func apiApps(c *call, in projectRef) ([]control.AppState, error) {
	p, err := c.project(in)
	if err != nil {
		return nil, err
	}
	return c.s.control.Sessions.Apps(c.ctx(), c.by, p.ID)
}

func apiOpen(c *call, in appRef) (control.Address, error) {
	p, err := c.project(in.projectRef)
	if err != nil {
		return control.Address{}, err
	}
	return c.s.control.Sessions.Open(c.ctx(), c.by, p.ID, in.App)
}

func apiSessions(c *call, in projectRef) ([]quire.Session, error) {
	p, err := c.project(in)
	if err != nil {
		return nil, err
	}
	return c.s.control.Sessions.List(c.ctx(), c.by, p.ID)
}

func apiStopSession(c *call, in sessionRef) (done, error) {
	_, s, err := c.session(in)
	if err != nil {
		return done{}, err
	}
	return done{true}, c.s.control.Sessions.Stop(c.ctx(), c.by, s.ID)
}

type logOut struct {
	Log string `json:"log"`
}

func apiSessionLog(c *call, in sessionRef) (logOut, error) {
	_, s, err := c.session(in)
	if err != nil {
		return logOut{}, err
	}
	text, err := c.s.control.Sessions.Log(c.ctx(), c.by, s.ID)
	return logOut{text}, err
}
