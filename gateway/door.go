package gateway

import (
	"errors"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"quire"
)

// ours is the first path segment of the gateway's own addresses on a site.
const ours = "_quire"

var errTarget = errors.New("the request's target cannot be read in one way only")

// target returns the raw path of a request. It is parsed once: everything is
// decided on these bytes, and these bytes are what the app gets.
func target(r *http.Request) (string, error) {
	uri := r.RequestURI
	if uri == "" || uri[0] != '/' {
		return "", errTarget // absolute form, *, authority
	}
	encoded, path := false, uri
	for i := 0; i < len(uri); i++ {
		switch c := uri[i]; {
		case c <= ' ' || c == 0x7f || c == '#' || c == '\\':
			return "", errTarget
		case c >= 0x80:
			if !utf8.ValidString(uri) {
				return "", errTarget
			}
			encoded = true
		case c == '?' && len(path) == len(uri):
			path = uri[:i]
		case c == '%' && len(path) == len(uri):
			encoded = true
		}
	}
	if encoded && (!utf8.ValidString(r.URL.Path) || strings.IndexByte(r.URL.Path, 0) >= 0) {
		return "", errTarget
	}
	return path, nil
}

func knownMethod(m string) bool {
	switch m {
	case "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS",
		"PROPFIND", "PROPPATCH", "MKCOL", "COPY", "MOVE", "LOCK", "UNLOCK", "REPORT", "SEARCH": // WebDAV, which some apps speak
		return true
	}
	return false
}

// ServeHTTP is the way of every request of a browser that net/http has read.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	v := &visit{g: g, w: w, r: r}
	a, answer := v.judge()
	switch {
	case answer != nil:
		if r.ContentLength != 0 {
			// Whoever has no right here does not hold a connection by a body that
			// never comes. The error means that nothing is left to read.
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTime))
		}
		answer()
	case v.upgrade:
		v.socket(a)
	default:
		v.hop(a)
	}
}

// bodyTime is how long the body of a request that goes no further may take.
const bodyTime = 10 * time.Second

// A visit is one request on one site.
type visit struct {
	g            *Gateway
	w            http.ResponseWriter
	r            *http.Request
	line         *line // the connection it came on, if we read that ourselves
	site         *site
	known        bool
	own          own
	path         string // raw, without the site's prefix
	name         string // its first segment
	upgrade, bad bool

	seen  *seen
	grant *signed

	content     *site  // the origin without cookies on which the site is visited
	pass, fresh string // the pass in the path, and the one for the answer's links
}

// origin is what the browser sees: the site's, or that of its content.
func (v *visit) origin() *site {
	if v.content != nil {
		return v.content
	}
	return v.site
}

// here is the path of the request as the browser has it.
func (v *visit) here() string { return v.pass + v.site.prefix + v.path }

// judge decides on a request: it may go on to the app, or gets the answer. Up
// to here nothing has been written and nothing has been done that could not be
// done again.
func (v *visit) judge() (a *app, answer func()) {
	g, r := v.g, v.r
	g.firstWord(r.Context())
	path, err := target(r)
	if err != nil {
		return nil, v.says(http.StatusBadRequest, "The address of this request cannot be used.")
	}
	if !knownMethod(r.Method) {
		return nil, v.says(http.StatusMethodNotAllowed, "This method is not used here.")
	}
	s, known, ok := g.routes.site(r.Host, path)
	if ok && !known && g.full.Load() && r.Method == http.MethodGet && navigation(r.Header) {
		s, known, ok = g.routes.soon(r.Host, path)
	}
	if !ok {
		return nil, v.strange
	}
	if r.TLS != nil && !strings.EqualFold(r.TLS.ServerName, hostname(r.Host)) {
		return nil, v.says(http.StatusMisdirectedRequest, "This connection was made for another host.")
	}
	v.site, v.known = s, known
	if g.tls && g.cfg.Proxies.Plain(r.RemoteAddr, r.Header["X-Forwarded-Proto"]) {
		return nil, v.toTLS
	}
	if s.of != nil {
		return v.judgeContent(s, path)
	}
	v.own = s.own(r.Header["Cookie"])
	switch {
	case v.own.total > maxCookies:
		return nil, v.says(http.StatusRequestHeaderFieldsTooLarge, "Too many cookies. Clear the cookies of this site.")
	case v.own.apps > 1 || v.own.nonces > 1:
		return nil, v.twice
	}
	v.path = path[len(s.prefix):]
	v.name, _, _ = strings.Cut(strings.TrimPrefix(v.path, "/"), "/")
	if v.name == ours {
		if answer := v.public(); answer != nil {
			return nil, answer
		}
	}
	v.upgrade, v.bad = websocketUpgrade(r)
	switch {
	case v.own.apps > 0 && !s.ownPage(r, v.upgrade):
		return nil, v.refusal(http.StatusForbidden, quire.KindForbidden, "This request comes from another site. Open the app from its own page.")
	case v.bad:
		return nil, v.says(http.StatusBadRequest, "This is not a WebSocket handshake.")
	case v.upgrade && one(r.Header, "Origin") != s.origin:
		return nil, v.refusal(http.StatusForbidden, quire.KindForbidden, "A WebSocket can only be opened by the app's own page.")
	case !known && !g.full.Load():
		return nil, v.notReady
	}
	if err := v.authorize(); err != nil {
		if !known {
			return nil, v.unknownSite
		}
		return nil, func() { v.refused(err) }
	}
	return v.route()
}

// route finds what a grant leads to.
func (v *visit) route() (a *app, answer func()) {
	if v.name == ours {
		return nil, v.private
	}
	a = (*v.site.apps.Load())[v.name]
	switch {
	case a == nil:
		return nil, v.noApp
	case a.User != v.grant.User || a.Project != v.grant.Project:
		return nil, v.refusal(http.StatusNotFound, quire.KindNotFound, "There is nothing at this address.")
	case !v.grant.Role.AtLeast(a.minRole()):
		return nil, v.refusal(http.StatusForbidden, quire.KindForbidden, "Your role in this project does not open this app. Ask the owner for the editor role.")
	case v.content == nil && v.fromOutside():
		return nil, v.toFrame
	case a.public() != (v.content != nil && v.content.open):
		return nil, v.refusal(http.StatusNotFound, quire.KindNotFound, "There is nothing at this address.")
	case a.Content && v.content == nil:
		return nil, v.toContent
	case a.State != quire.SessionRunning:
		return nil, v.about(a, v.notRunning)
	case a.Node != v.grant.Node:
		v.g.ask(v.seen.holder) // the project has moved; the next grant names its new node
		return nil, v.about(a, v.moved)
	}
	return a, nil
}

// authorize is the one way to a grant.
func (v *visit) authorize() error {
	if v.own.apps == 0 {
		return errNoGrant
	}
	c, err := v.g.open(v.own.app, v.site)
	if err != nil {
		return err
	}
	// On a line the answer to an error is not given but the request handed on,
	// and whoever takes it comes here again and waits.
	grant, err := v.g.good(v.r.Context(), c.holder, v.g.now(), v.line == nil)
	if err != nil {
		return err
	}
	v.seen, v.grant = c, grant
	return nil
}

// strange answers a host that is not a label's.
func (v *visit) strange() {
	if v.r.Method == http.MethodPost && v.r.URL.Path == joinPath {
		v.g.join(v.w, v.r)
		return
	}
	if strings.HasSuffix(strings.ToLower(v.r.Host), v.g.suffix) {
		v.g.plain(v.w, http.StatusNotFound, "There is nothing at this address.")
		return
	}
	v.g.plain(v.w, http.StatusMisdirectedRequest, "This host is not served here.")
}

// toTLS leads a page that was asked for by plain http to where it is.
func (v *visit) toTLS() {
	if v.r.Method != http.MethodGet && v.r.Method != http.MethodHead {
		v.g.plain(v.w, http.StatusForbidden, "This site is reached by https only.")
		return
	}
	v.w.Header().Set("Cache-Control", "no-store")
	http.Redirect(v.w, v.r, v.site.origin+v.r.RequestURI, http.StatusSeeOther)
}

// twice answers two cookies of one name: somebody has put one beside ours, and
// which is which cannot be told.
func (v *visit) twice() {
	addCookie(v.w, v.site.app.clear())
	addCookie(v.w, v.site.nonce.clear())
	v.g.plain(v.w, http.StatusBadRequest, "Two cookies of the same name came with this request. They have been cleared; open the page again.")
}

func (v *visit) says(status int, text string) func() {
	return func() { v.g.plain(v.w, status, text) }
}

func (v *visit) about(a *app, say func(*app)) func() { return func() { say(a) } }

func (v *visit) refusal(status int, kind quire.Kind, text string) func() {
	return func() { v.refuse(status, kind, text) }
}

// plain answers in one line, before anything is known of who asks.
func (g *Gateway) plain(w http.ResponseWriter, status int, text string) {
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	if status == http.StatusBadRequest || status == http.StatusMisdirectedRequest {
		h.Set("Connection", "close")
	}
	w.WriteHeader(status)
	w.Write([]byte(text + "\n"))
}

func hostname(hostport string) string {
	if i := strings.LastIndexByte(hostport, ':'); i >= 0 && strings.IndexByte(hostport[i:], ']') < 0 {
		return hostport[:i]
	}
	return hostport
}
