package gateway

import (
	"embed"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"strings"
	"time"

	"quire"
	"quire/web"
)

//go:embed pages/*.html
var pageFiles embed.FS

type pages struct {
	*web.Pages
	portal string
}

func newPages(portal string) (*pages, error) {
	files, err := fs.Sub(pageFiles, "pages")
	if err != nil {
		return nil, err
	}
	p, err := web.NewPages(files, template.FuncMap{})
	if err != nil {
		return nil, fmt.Errorf("gateway pages: %w", err)
	}
	return &pages{Pages: p, portal: portal}, nil
}

// pageCSP lets our pages load our bundles and show the app, and nothing else.
const pageCSP = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; form-action 'none'; base-uri 'none'"

// A message is a page that says one thing and what to do next.
type message struct {
	Base   string // where our own addresses begin
	Portal string
	Kind   string // signin starting failed stopped away missing forbidden leaving stale
	Title  string
	Text   string
	Detail string // last lines the app printed
	Again  string // the address to try again
	Open   string // where the portal can start the app
	Manage string // the project's page in the portal
	Name   string // OWNER/PROJECT
	Leave  string // another site's address, shown before one goes there
	Events string // a stream that says when the page is outdated
	Retry  int    // seconds after which the page loads itself again
}

func (v *visit) page(status int, m message) {
	m.Base, m.Portal = v.site.prefix+"/"+ours, v.g.portal
	v.pageHeader()
	if m.Retry > 0 {
		v.w.Header().Set("Retry-After", fmt.Sprint(m.Retry))
	}
	if err := v.g.pages.Render(v.w, status, "message", m); err != nil {
		v.g.log.Error("page", "error", err)
	}
}

func (v *visit) pageHeader() {
	h := v.w.Header()
	csp := pageCSP + "; frame-src 'self'; frame-ancestors 'self'"
	switch {
	case v.content != nil:
		csp = pageCSP + "; frame-ancestors " + v.site.origin
	case v.site.content != nil && v.site.content.origin != v.site.origin:
		csp = pageCSP + "; frame-src 'self' " + v.site.content.origin + "; frame-ancestors 'self'"
	}
	h.Set("Content-Security-Policy", csp)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Vary", "Cookie, Sec-Fetch-Dest")
}

// answer says the same in the form the asker can use: a page for a person,
// JSON for a program, one line for an asset, an end for a socket.
func (v *visit) answer(status int, kind quire.Kind, m message) {
	wants := web.Wants(v.r)
	if v.upgrade {
		wants = "socket"
	}
	h := v.w.Header()
	h.Set("Cache-Control", "no-store")
	switch wants {
	case "page":
		v.page(status, m)
		return
	case "socket":
		h.Set("Connection", "close")
	case "asset":
		if m.Retry > 0 {
			h.Set("Retry-After", fmt.Sprint(m.Retry))
		}
		v.g.plain(v.w, status, m.Text)
		return
	}
	if m.Retry > 0 {
		h.Set("Retry-After", fmt.Sprint(m.Retry))
	}
	h.Set("Content-Type", "application/json")
	h.Set("X-Content-Type-Options", "nosniff")
	v.w.WriteHeader(status)
	json.NewEncoder(v.w).Encode(map[string]any{"error": &quire.Error{Kind: kind, Message: m.Text, RetryAfter: m.Retry}})
}

// refuse is an answer without a way on.
func (v *visit) refuse(status int, kind quire.Kind, text string) {
	m := message{Kind: "forbidden", Title: "Not allowed", Text: text}
	if status == http.StatusNotFound {
		m.Kind, m.Title = "missing", "Not found"
	}
	if v.grant != nil {
		v.links(&m, v.mine())
	}
	v.answer(status, kind, m)
}

// links fills in where the portal can help. Only somebody with a grant learns
// the project's name.
func (v *visit) links(m *message, a *app) {
	if a == nil || v.grant == nil || a.User != v.grant.User || a.Project != v.grant.Project {
		return
	}
	m.Name = a.OwnerName + "/" + a.ProjectName
	m.Manage = v.g.portal + "/" + url.PathEscape(a.OwnerName) + "/" + url.PathEscape(a.ProjectName)
}

// mine is some app of the person and project of the grant, for their names.
func (v *visit) mine() *app {
	if v.grant == nil {
		return nil
	}
	for _, a := range *v.site.apps.Load() {
		if a.User == v.grant.User && a.Project == v.grant.Project {
			return a
		}
	}
	return nil
}

// refused answers a request without a grant.
func (v *visit) refused(err error) {
	here := v.here()
	switch err {
	case errAway:
		v.answer(http.StatusServiceUnavailable, quire.KindUnavailable, message{
			Kind: "away", Title: "The portal does not answer", Text: "Your sign-in could not be confirmed, because the portal does not answer. Running work goes on.",
			Again: here, Retry: 3,
		})
		return
	case errClock:
		v.answer(http.StatusServiceUnavailable, quire.KindUnavailable, message{
			Kind: "away", Title: "A clock is wrong", Text: "The clocks of this gateway and of the portal are more than a minute apart. An administrator has to set them.", Again: here,
		})
		return
	}
	dest := one(v.r.Header, "Sec-Fetch-Dest")
	top := dest == "document" || dest == ""
	if web.Wants(v.r) == "page" && !v.upgrade && v.r.Method == http.MethodGet && top {
		if !v.g.full.Load() {
			v.notReady()
			return
		}
		v.toPortal()
		return
	}
	v.answer(http.StatusUnauthorized, quire.KindUnknown, message{
		Kind: "signin", Title: "You are signed out here", Text: "Sign in again to go on. What runs in the project goes on running.", Again: here,
	})
}

// unknownSite answers for a label without any app to somebody without a grant
// for it. Nothing is said about whether it ever was one.
func (v *visit) unknownSite() {
	v.answer(http.StatusNotFound, quire.KindNotFound, message{Kind: "missing", Title: "Not found", Text: "There is nothing at this address."})
}

// notReady is for the moment between our start and the server's first word.
func (v *visit) notReady() {
	v.answer(http.StatusServiceUnavailable, quire.KindUnavailable, message{
		Kind: "away", Title: "One moment", Text: "The gateway has just started and waits for the portal.", Again: v.here(), Retry: 2,
	})
}

// appears gives an app that the portal has just started a moment to become
// known: the browser can be faster than the feed.
func (v *visit) appears() bool {
	if v.content != nil || !v.fromOutside() || quire.CheckAppName(v.name) != nil {
		return false
	}
	select {
	case v.g.routes.patient <- struct{}{}:
		defer func() { <-v.g.routes.patient }()
	default:
		return false
	}
	changed, stop := v.site.wait()
	defer stop()
	t := time.NewTimer(patience)
	defer t.Stop()
	for {
		if (*v.site.apps.Load())[v.name] != nil {
			return true
		}
		select {
		case <-changed:
		case <-t.C:
			return false
		case <-v.r.Context().Done():
			return false
		}
	}
}

// noApp is for an app that has no session.
func (v *visit) noApp() {
	if v.appears() {
		v.toFrame()
		return
	}
	m := message{Kind: "missing", Title: "Not found", Text: "There is nothing at this address."}
	a := v.mine()
	v.links(&m, a)
	if quire.CheckAppName(v.name) == nil && a != nil {
		m.Kind, m.Title, m.Text = "stopped", "Not running", "This app is not running."
		m.Open = m.Manage + v.path
		m.Events = v.events(v.name)
	}
	v.answer(http.StatusNotFound, quire.KindNotFound, m)
}

func (v *visit) events(app string) string {
	if v.content != nil {
		return "" // the page loads itself again
	}
	return v.site.prefix + "/" + ours + "/events?app=" + url.QueryEscape(app)
}

// notRunning tells the state of a session that cannot be used now.
func (v *visit) notRunning(a *app) {
	m := message{Events: v.events(a.App), Detail: a.Log, Again: v.here()}
	v.links(&m, a)
	m.Open = m.Manage + v.path
	title := a.AppTitle
	if title == "" {
		title = a.App
	}
	status, kind := http.StatusServiceUnavailable, quire.KindUnavailable
	switch a.State {
	case quire.SessionStarting:
		m.Kind, m.Title, m.Text, m.Retry = "starting", title+" is starting", a.Reason, 2
	case quire.SessionFailed:
		m.Kind, m.Title, m.Text = "failed", title+" did not work", a.Reason
		status, kind = http.StatusBadGateway, quire.KindFailed
	case quire.SessionStopping:
		m.Kind, m.Title, m.Text = "stopped", title+" is being stopped", a.Reason
	default:
		m.Kind, m.Title, m.Text = "stopped", title+" was stopped", a.Reason
	}
	if m.Text == "" {
		m.Text = map[string]string{"starting": "This takes a few seconds.", "failed": "It ended without saying why.", "stopped": "It is not running any more."}[m.Kind]
	}
	v.answer(status, kind, m)
}

func (v *visit) moved(a *app) { v.away(a, "The project has just moved to another node.") }

// away is for a node that does not answer.
func (v *visit) away(a *app, text string) {
	m := message{Kind: "away", Title: "The node is away", Text: text, Again: v.here(), Retry: 3}
	v.links(&m, a)
	v.answer(http.StatusServiceUnavailable, quire.KindUnavailable, m)
}

// appFailed is for an app that could not be reached or did not speak HTTP.
func (v *visit) appFailed(a *app, err error) {
	e := quire.AsError(err)
	v.g.log.Warn("app not reached", "session", a.Session, "node", a.Node, "error", err)
	switch e.Kind {
	case quire.KindUnavailable:
		v.away(a, e.Message+" What runs there goes on and will be reachable again.")
		return
	case quire.KindForbidden, quire.KindUnknown:
		v.refuse(http.StatusForbidden, quire.KindForbidden, "The node did not accept your grant for this app.")
		return
	}
	m := message{Kind: "failed", Title: "The app does not answer", Text: "The app runs, but what it answered could not be used.", Again: v.here(), Retry: 3}
	if e.Kind != quire.KindInternal {
		m.Text = e.Message
	}
	v.links(&m, a)
	v.answer(http.StatusBadGateway, quire.KindUnavailable, m)
}

// elsewhere shows where an app wants to send the person.
func (v *visit) elsewhere(a *app, location string) {
	m := message{Kind: "leaving", Title: "The app sends you to another site", Text: "This address is not one of the app's own:"}
	if u, err := url.Parse(location); err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && u.User == nil {
		m.Leave = u.String()
	} else {
		m.Text = "The address it gave cannot be used."
	}
	v.links(&m, a)
	v.answer(http.StatusBadGateway, quire.KindFailed, m)
}

// public is the answer to what needs no grant, or nil.
func (v *visit) public() func() {
	rest := strings.TrimPrefix(v.path, "/"+ours)
	switch {
	case rest == "/enter":
		return v.receive
	case rest == "/probe.gif":
		return v.probed
	case strings.HasPrefix(rest, "/assets/"):
		return func() { http.StripPrefix(v.site.prefix+"/"+ours, web.Assets()).ServeHTTP(v.w, v.r) }
	}
	return nil
}

// probed lets the portal's set-up page see that names of labels lead here. It is
// the same for every label, known or not.
func (v *visit) probed() {
	h := v.w.Header()
	h.Set("Content-Type", "image/gif")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cross-Origin-Resource-Policy", "cross-origin")
	io.WriteString(v.w, "GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff!\xf9\x04\x01\x00\x00\x00\x00,\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;")
}

// private answers our own addresses to somebody with a grant.
func (v *visit) private() {
	if v.r.Method != http.MethodGet || v.upgrade {
		v.w.Header().Set("Allow", "GET")
		v.g.plain(v.w, http.StatusMethodNotAllowed, "This can only be read.")
		return
	}
	if web.TokenInAddress(v.r.URL.RawQuery) {
		v.g.plain(v.w, http.StatusBadRequest, "Secrets do not belong into addresses, where histories and logs keep them. Nothing here takes one.")
		return
	}
	switch strings.TrimPrefix(v.path, "/"+ours) {
	case "/events":
		v.stream()
	case "/frame":
		v.frame()
	default:
		v.refuse(http.StatusNotFound, quire.KindNotFound, "There is nothing at this address.")
	}
}

// fromOutside reports whether a person comes from another site, as by a link
// in the portal: they get the bar. Inside the app, or when they type the
// address, they get the app itself.
func (v *visit) fromOutside() bool {
	from := one(v.r.Header, "Sec-Fetch-Site")
	return (from == "cross-site" || from == "same-site") && v.r.Method == http.MethodGet && navigation(v.r.Header)
}

func (v *visit) toFrame() {
	path := v.wanted()
	if path == "/" {
		path = "/" + v.name + "/"
	}
	h := v.w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Vary", "Cookie, Sec-Fetch-Site, Sec-Fetch-Dest")
	h.Set("Location", v.site.frameAddress(path))
	v.w.WriteHeader(http.StatusSeeOther)
}

// A frame is the bar with the app under it.
type frame struct {
	Base     string
	Portal   string
	Title    string
	Name     string // OWNER/PROJECT
	App      string
	State    string
	Word     string // the state in a word
	Inner    string // the app's own address
	Share    string // the portal's address of the same
	Root     string // prefix of the app's origin, for the script
	Manage   string
	Sessions string
	Settings string
	Events   string
}

func (v *visit) frame() {
	path, ok := appPath(v.r.URL.Query().Get("path"))
	if !ok {
		v.refuse(http.StatusNotFound, quire.KindNotFound, "There is nothing at this address.")
		return
	}
	v.path = path
	v.name, _, _ = strings.Cut(path[1:], "/")
	v.name, _, _ = strings.Cut(v.name, "?")
	a := (*v.site.apps.Load())[v.name]
	if a == nil || a.User != v.grant.User || a.Project != v.grant.Project {
		v.noApp()
		return
	}
	var m message
	v.links(&m, a)
	title := a.AppTitle
	if title == "" {
		title = a.App
	}
	f := frame{
		Base: v.site.prefix + "/" + ours, Portal: v.g.portal, Title: title + " · " + a.ProjectName, Name: m.Name, App: title,
		State: string(a.State), Word: stateWord(a.State), Inner: v.site.prefix + path, Share: m.Manage + path, Root: v.site.prefix,
		Manage: m.Manage, Sessions: m.Manage + "/sessions", Settings: m.Manage + "/settings", Events: v.events(v.name),
	}
	v.pageHeader()
	if err := v.g.pages.Render(v.w, http.StatusOK, "frame", f); err != nil {
		v.g.log.Error("page", "error", err)
	}
}

func stateWord(s quire.SessionState) string {
	switch s {
	case quire.SessionEnded:
		return "stopped"
	case "":
		return "not running"
	}
	return string(s)
}

// news is what a page needs to know to notice that it is outdated.
type news struct {
	State  quire.SessionState `json:"state"`
	Word   string             `json:"word"`
	Reason string             `json:"reason,omitempty"`
	Away   bool               `json:"away,omitempty"`
	Until  int64              `json:"until,omitempty"` // Unix ms; the server is silent, and the app is reachable until then
}

const (
	lookAgain  = time.Second // for what does not announce itself: nodes, labels that appear
	comment    = 15 * time.Second
	maxStreams = 30 // of one person in one project
)

// stream pushes an app's state for as long as the page is open and the right
// lasts.
func (v *visit) stream() {
	h := v.seen.holder
	defer h.streams.Add(-1)
	if h.streams.Add(1) > maxStreams {
		v.refuse(http.StatusTooManyRequests, quire.KindTooMany, "Too many pages of this project are open. Close some tabs.")
		return
	}
	name := v.r.URL.Query().Get("app")
	changed, stop := v.site.wait()
	defer stop()
	out := v.w.Header()
	out.Set("Content-Type", "text/event-stream")
	out.Set("Cache-Control", "no-store")
	out.Set("X-Accel-Buffering", "no")
	out.Set("X-Content-Type-Options", "nosniff")
	flush := http.NewResponseController(v.w)
	look := time.NewTicker(lookAgain)
	defer look.Stop()
	fmt.Fprintf(v.w, "retry: %d\n", retry())
	var last string
	quiet := time.Now()
	for {
		told := v.newsOf(name)
		if v.g.silent(v.g.now()) {
			told.Until = h.newest.Load().Grace.UnixMilli()
		}
		b, err := json.Marshal(told)
		if err != nil {
			return
		}
		switch {
		case string(b) != last:
			last = string(b)
			_, err = fmt.Fprintf(v.w, "data: %s\n\n", b)
		case time.Since(quiet) > comment:
			_, err = fmt.Fprint(v.w, ": still here\n\n")
		default:
			err = errNothing
		}
		if err == nil {
			quiet = time.Now()
			err = flush.Flush()
		}
		if err != nil && err != errNothing {
			return
		}
		select {
		case <-v.r.Context().Done():
			return
		case <-h.gone:
			return
		case <-v.g.handing.draining:
			return
		case <-changed:
		case <-look.C:
		}
	}
}

var errNothing = fmt.Errorf("nothing new")

func (v *visit) newsOf(name string) news {
	s := v.site
	if now, known, ok := v.g.routes.site(v.r.Host, v.r.URL.Path); ok && known {
		s = now
	}
	a := (*s.apps.Load())[name]
	if a == nil || a.User != v.grant.User {
		return news{Word: stateWord("")}
	}
	_, away := v.g.nodes.away()[a.Node]
	return news{State: a.State, Word: stateWord(a.State), Reason: a.Reason, Away: away}
}
