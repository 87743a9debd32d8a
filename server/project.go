package server

import (
	"context"
	"strings"
	"time"

	"quire"
	"quire/control"
)

// projectRef is a project in an address.
type projectRef struct {
	Owner   string `path:"owner" json:"-"`
	Project string `path:"project" json:"-"`
}

// project finds the project of an address as the asker may see it.
func (c *call) project(ref projectRef) (quire.Project, error) {
	return c.s.control.Projects.ByName(c.ctx(), c.by, ref.Owner, ref.Project)
}

// projectHead is what every page of a project begins with.
type projectHead struct {
	quire.Project
	Path      string
	Token     string
	Tab       string // "overview", "sessions", "activity", "settings"
	CanEdit   bool
	CanManage bool
	CanWork   bool
	CanStop   bool
	CanMove   bool
	Member    bool
}

func head(by quire.Actor, p quire.Project, token, tab string) projectHead {
	can := func(v quire.Verb) bool { return quire.Can(by, v, p.Role, p.Public) }
	return projectHead{Project: p, Path: p.Path(), Token: token, Tab: tab,
		CanEdit: can(quire.Edit), CanManage: can(quire.Manage), CanWork: can(quire.Operate), CanStop: can(quire.Stop), CanMove: can(quire.Relocate),
		Member: p.Role.AtLeast(quire.RoleViewer)}
}

// projectView is the project page. Its parts are pushed again when they change,
// so each part needs no more than this.
type projectView struct {
	projectHead
	Me       string
	Sentence string // what the state means, and what to do
	Timeline *timelineView
	Apps     []appView
	Running  []sessionView // live sessions
	Others   []string      // "bob (Notebook)": whose work a stop ends
	Team     []memberView
	Shared   bool     // one account runs everything
	Disk     []string // what is not yet as the team is, and what was revoked
}

type timelineView struct {
	Title string
	State quire.WorkState
	Steps []stepView
	Error string
	Log   string
	Total string
	Open  bool // show the steps: it runs or failed
	Moves bool // it is a move that can still be cancelled
}

type stepView struct {
	Name, Note string
	Show       state
	Time       string
	Runs       bool
	Elapsed    int64 // milliseconds, for the counter of a running step
}

type appView struct {
	Name, Title, Summary, Icon string
	Allowed                    bool
	Why                        string // why it cannot be opened
	Session                    *sessionView
	Others                     []string
}

type sessionView struct {
	ID, App, Title, User string
	State                quire.SessionState
	Reason, Log          string
	Created              time.Time
	Ended                *time.Time
	Mine, CanStop        bool
}

type memberView struct {
	quire.Member
	Owner, Me bool
}

// loaded is everything the project page is made of.
type loaded struct {
	project  quire.Project
	apps     []control.AppState
	sessions []quire.Session
	team     []quire.Member
	work     *quire.Work
	disk     control.Disk
}

func (c *call) load(ctx context.Context, p quire.Project) (l loaded, err error) {
	l.project = p
	if l.apps, err = c.s.control.Sessions.Apps(ctx, c.by, p.ID); err != nil {
		return l, err
	}
	if l.sessions, err = c.s.control.Sessions.List(ctx, c.by, p.ID); err != nil {
		return l, err
	}
	if l.team, err = c.s.control.Team.List(ctx, c.by, p.ID); err != nil {
		return l, err
	}
	if l.disk, err = c.s.control.Team.Disk(ctx, c.by, p.ID); err != nil {
		return l, err
	}
	l.work, err = c.s.control.Sessions.Timeline(ctx, c.by, p.ID)
	return l, err
}

// newProjectPageView builds the page from what was loaded.
func newProjectPageView(by quire.Actor, l loaded, token string, now time.Time) projectView {
	v := projectView{projectHead: head(by, l.project, token, "overview"), Me: by.Name}
	titles := map[string]string{}
	for _, a := range l.apps {
		titles[a.App.Name] = a.App.Title
	}
	for _, s := range l.sessions {
		if !s.State.Live() {
			continue
		}
		v.Running = append(v.Running, newSessionView(by, s, titles, v.CanStop))
		if s.User != by.User {
			v.Others = append(v.Others, s.UserName+" ("+titleOr(titles, s.App)+")")
		}
	}
	for _, a := range l.apps {
		v.Apps = append(v.Apps, newAppView(by, a, l.project, titles, v.CanStop))
	}
	v.Timeline = newTimeline(l.work, now)
	v.Team = members(by, l.team)
	v.Shared = l.disk.Shared
	for i, r := range l.disk.Revoked {
		if i < 3 {
			v.Disk = append(v.Disk, revokedLine(r))
		}
	}
	if l.disk.Note != "" {
		v.Disk = append(v.Disk, l.disk.Note)
	}
	v.Sentence = stateSentence(l.project, len(v.Running), v.CanWork)
	return v
}

func titleOr(titles map[string]string, app string) string {
	if t := titles[app]; t != "" {
		return t
	}
	return app
}

func newSessionView(by quire.Actor, s quire.Session, titles map[string]string, canStop bool) sessionView {
	v := sessionView{ID: string(s.ID), App: s.App, Title: titleOr(titles, s.App), User: s.UserName, State: s.State, Reason: s.Reason, Log: s.Log,
		Created: s.Created, Ended: s.Ended, Mine: s.User == by.User}
	v.CanStop = s.State.Live() && s.State != quire.SessionStopping && (v.Mine || canStop)
	if v.Reason == "" && s.Exit != nil {
		v.Reason = s.Exit.Sentence()
	}
	return v
}

func newAppView(by quire.Actor, a control.AppState, p quire.Project, titles map[string]string, canStop bool) appView {
	v := appView{Name: a.App.Name, Title: a.App.Title, Summary: a.App.Summary, Icon: iconOf(a.App), Allowed: a.Allowed}
	if v.Title == "" {
		v.Title = a.App.Name
	}
	switch {
	case !a.Allowed:
		v.Why = "Needs the role " + string(a.App.MinRole()) + "."
	case p.State == quire.ProjectFailed:
		v.Allowed, v.Why = false, "Reset the project first."
	case p.State == quire.ProjectMoving:
		v.Allowed, v.Why = false, "The project is being moved."
	case p.State == quire.ProjectStopping:
		v.Allowed, v.Why = false, "The project is being stopped."
	}
	if a.Session != nil {
		s := newSessionView(by, *a.Session, titles, canStop)
		v.Session = &s
	}
	for _, o := range a.Others {
		v.Others = append(v.Others, o.UserName)
	}
	return v
}

// iconOf chooses one of the stylesheet's icons. A descriptor may name one; what
// it names otherwise is not put on the page.
func iconOf(a quire.App) string {
	switch a.Name {
	case "notebook", "lab", "terminal", "workbench", "viewer":
		return a.Name
	case "jupyterlab":
		return "lab"
	}
	return "app"
}

func members(by quire.Actor, team []quire.Member) []memberView {
	out := make([]memberView, len(team))
	for i, m := range team {
		out[i] = memberView{m, m.Role == quire.RoleOwner, m.User == by.User}
	}
	return out
}

// stateSentence says a project's state and the next step in plain words.
func stateSentence(p quire.Project, running int, canWork bool) string {
	switch p.State {
	case quire.ProjectStarting:
		return "Starting up. You can leave this page; it goes on without you."
	case quire.ProjectRunning:
		if running == 0 {
			return "Prepared and open. Nobody runs anything in it."
		}
		return "Prepared and open, with " + count(running, "session") + "."
	case quire.ProjectStopping:
		return "Everybody's sessions are being ended."
	case quire.ProjectMoving:
		return "It is being moved to another node. You can leave this page; it goes on without you."
	case quire.ProjectFailed:
		return "There was an error starting this project. " + sentence(p.Reason)
	case quire.ProjectDeleted:
		return "This project is deleted. Its owner can restore it."
	}
	reason := sentence(p.Reason)
	if reason != "" {
		reason += " "
	}
	if !canWork {
		return reason + "This project is stopped."
	}
	return reason + "This project is stopped. Start it, or open an app: that starts it too."
}

// sentence makes sure that a reason ends like a sentence.
func sentence(s string) string {
	s = strings.TrimSpace(s)
	if s == "" || strings.HasSuffix(s, ".") || strings.HasSuffix(s, "!") || strings.HasSuffix(s, "?") {
		return s
	}
	return s + "."
}

// stepNames are the steps of each kind of work in the words of people.
var stepNames = map[string]string{
	"start/directory": "Project directory", "start/skeleton": "Files to begin with", "start/clone": "Copy from git", "start/environment": "Environment “default”",
	"start/permissions": "Permissions of the team", "start/app": "App", "stop/sessions": "End everybody’s sessions", "delete/sessions": "End everybody’s sessions",
	"delete/directory": "Put the directory aside", "restore/directory": "Bring the directory back", "purge/directory": "Delete the files",
	"move/sessions": "End everybody’s sessions", "move/aside": "Close the directory", "move/look": "Count the files", "move/accounts": "Accounts on the other node", "move/copy": "Copy the files",
	"move/verify": "Compare the copy with the original", "move/place": "Put the copy in place", "move/switch": "Switch over", "move/permissions": "Permissions of the team", "move/old": "Put the old directory away",
	"take-over/account": "The owner’s account", "take-over/files": "Copy the files and put the copies in place",
}

var workTitles = map[string]string{"start": "Start", "stop": "Stop", "delete": "Delete", "restore": "Restore", "purge": "Remove", "take-over": "Take over", "move": "Move"}

// newTimeline shows a work, nil for none.
func newTimeline(w *quire.Work, now time.Time) *timelineView {
	if w == nil || len(w.Steps) == 0 {
		return nil
	}
	t := &timelineView{Title: w.Kind, State: w.State, Error: sentence(w.Error), Log: w.Log, Open: w.State != quire.WorkDone}
	t.Moves = w.Move != nil && !w.Move.Switched && w.Ended == nil && w.Error == ""
	if w.Move != nil && w.Error == "" {
		t.Title = "Move to " + w.Move.ToName
	} else if name := workTitles[w.Kind]; name != "" {
		t.Title = name
	}
	end := now
	if w.Ended != nil {
		end = *w.Ended
	}
	t.Total = seconds(end.Sub(w.Created).Seconds())
	for _, st := range w.Steps {
		s := stepView{Name: st.Name, Note: st.Note, Show: stateOf(st.State)}
		if name := stepNames[w.Kind+"/"+st.Name]; name != "" {
			s.Name = name
		}
		switch st.State {
		case quire.WorkRunning:
			s.Show, s.Runs, s.Elapsed = stateOf("working"), true, int64(st.Seconds(now)*1000)
			s.Time = seconds(st.Seconds(now))
		case quire.WorkDone, quire.WorkFailed:
			s.Time = seconds(st.Seconds(now))
		}
		t.Steps = append(t.Steps, s)
	}
	return t
}

func projectGet(c *call, in projectRef) (answer, error) {
	p, err := c.project(in)
	if err != nil {
		return answer{}, err
	}
	l, err := c.load(c.ctx(), p)
	if err != nil {
		return answer{}, err
	}
	a := show("project", p.OwnerName+" / "+p.Name, newProjectPageView(c.by, l, c.token, c.s.now()))
	a.live = p.Path() + "/events"
	return a, nil
}

// act is a POST that does one thing to a project and goes back to its page.
func act(do func(c *call, p quire.Project) error, to func(p quire.Project) string) func(*call, projectRef) (answer, error) {
	return func(c *call, in projectRef) (answer, error) {
		p, err := c.project(in)
		if err != nil {
			return answer{}, err
		}
		if err := do(c, p); err != nil {
			return answer{}, err
		}
		return goTo(to(p)), nil
	}
}

// pathOf is the project's page, or one below it.
func pathOf(below string) func(quire.Project) string {
	return func(p quire.Project) string { return p.Path() + below }
}

func nothing(*call, quire.Project) error { return nil }

func startProject(c *call, p quire.Project) error {
	return c.s.control.Projects.Start(c.ctx(), c.by, p.ID)
}

func stopProject(c *call, p quire.Project) error {
	return c.s.control.Projects.Stop(c.ctx(), c.by, p.ID)
}

func resetProject(c *call, p quire.Project) error {
	return c.s.control.Projects.Reset(c.ctx(), c.by, p.ID)
}

type starIn struct {
	projectRef
	On bool `form:"on"`
}

func starPost(c *call, in starIn) (answer, error) {
	p, err := c.project(in.projectRef)
	if err != nil {
		return answer{}, err
	}
	return goTo(p.Path()), c.s.control.Projects.Star(c.ctx(), c.by, p.ID, in.On)
}

type restoreIn struct {
	ID string `path:"id" json:"-"`
}

// restorePost works by identity: a new project may have taken the old name.
func restorePost(c *call, in restoreIn) (answer, error) {
	if !quire.ValidID('p', in.ID) {
		return answer{}, quire.NotFound("project")
	}
	return goTo("/?done=restored"), c.s.control.Projects.Restore(c.ctx(), c.by, quire.ProjectID(in.ID))
}

// The same nouns as JSON.

type projectsIn struct {
	List string `query:"list"` // mine (default), contributing, public, deleted
}

func apiProjects(c *call, in projectsIn) ([]quire.Project, error) {
	which := control.Listing(in.List)
	if which == "" {
		which = control.Mine
	}
	return c.s.control.Projects.List(c.ctx(), c.by, which)
}

type apiNewProject struct {
	Name        string `json:"name"`
	Summary     string `json:"summary"`
	Description string `json:"description"`
	Public      bool   `json:"public"`
	Node        string `json:"node"`
	Source      string `json:"source"`
}

func apiCreateProject(c *call, in apiNewProject) (quire.Project, error) {
	return c.s.control.Projects.Create(c.ctx(), c.by, control.NewProject{Name: in.Name, Summary: in.Summary, Description: in.Description,
		Public: in.Public, Node: quire.NodeID(in.Node), Source: in.Source})
}

func apiProject(c *call, in projectRef) (quire.Project, error) { return c.project(in) }

type apiProjectChange struct {
	projectRef
	Summary     *string `json:"summary"`
	Description *string `json:"description"`
	Public      *bool   `json:"public"`
}

func apiUpdateProject(c *call, in apiProjectChange) (quire.Project, error) {
	p, err := c.project(in.projectRef)
	if err != nil {
		return p, err
	}
	return c.s.control.Projects.Update(c.ctx(), c.by, p.ID, control.ProjectChange{Summary: in.Summary, Description: in.Description, Public: in.Public})
}

type apiDelete struct {
	projectRef
	Confirm string `query:"confirm" json:"-"` // the project's name
}

func apiDeleteProject(c *call, in apiDelete) (done, error) {
	p, err := c.project(in.projectRef)
	if err != nil {
		return done{}, err
	}
	return done{true}, c.s.control.Projects.Delete(c.ctx(), c.by, p.ID, in.Confirm)
}

func apiRestore(c *call, in restoreIn) (done, error) {
	_, err := restorePost(c, in)
	return done{err == nil}, err
}

// apiAct is act for the API: it answers with the project as it is afterwards.
func apiAct(do func(c *call, p quire.Project) error) func(*call, projectRef) (quire.Project, error) {
	return func(c *call, in projectRef) (quire.Project, error) {
		p, err := c.project(in)
		if err != nil {
			return p, err
		}
		if err := do(c, p); err != nil {
			return p, err
		}
		return c.project(in)
	}
}

func star(on bool) func(c *call, p quire.Project) error {
	return func(c *call, p quire.Project) error { return c.s.control.Projects.Star(c.ctx(), c.by, p.ID, on) }
}

func apiTimeline(c *call, in projectRef) (*quire.Work, error) {
	p, err := c.project(in)
	if err != nil {
		return nil, err
	}
	return c.s.control.Sessions.Timeline(c.ctx(), c.by, p.ID)
}
