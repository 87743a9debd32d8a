package server

import (
	"context"
	"net/http"
	"net/url"
	"reflect"
	"strings"

	"quire"
	"quire/web"
)

// Who may ask for a route at all. What a person may do to a project is
// control's decision, not the table's.
type Who string

const (
	Nobody Who = "nobody" // also without a login
	Person Who = "person" // with a login
	Admin  Who = "admin"  // with an administrator's login
)

// Route is one row of the table. Pages and API are rows alike; tests, the
// OpenAPI document and the help page are made from it.
type Route struct {
	Pattern string // of http.ServeMux, with the method
	Who     Who
	Summary string       // one line, for the API's documentation
	In      reflect.Type // nil if it reads nothing
	Out     reflect.Type // nil for pages and streams
	run     func(c *call) error
}

func (r Route) Method() string { m, _, _ := strings.Cut(r.Pattern, " "); return m }
func (r Route) Path() string   { _, p, _ := strings.Cut(r.Pattern, " "); return p }

// API reports whether the route speaks JSON.
func (r Route) API() bool { return strings.HasPrefix(r.Path(), "/api/") }

// call is one request on its way: what the guards found out, and the answer's
// writer.
type call struct {
	s       *Server
	w       http.ResponseWriter
	r       *http.Request
	by      quire.Actor
	address string // for whom the request came
	read    string // the login's secrets, as sent
	write   string
	bearer  bool // sent as a bearer token, not as cookies
	token   string
	route   *Route
	err     error
}

type callKey struct{}

func callOf(r *http.Request) *call {
	c, _ := r.Context().Value(callKey{}).(*call)
	return c
}

func (c *call) ctx() context.Context { return c.r.Context() }

// answer is what a page handler returns: a page to show or a place to go.
type answer struct {
	to     string // redirect with 303 when not empty
	status int
	page   string
	title  string
	live   string // address of the page's live stream
	data   any
	images bool // the page may load images from app origins (the probe)
	bare   bool // no navigation around it
}

func show(page, title string, data any) answer {
	return answer{status: http.StatusOK, page: page, title: title, data: data}
}

func goTo(path string) answer { return answer{to: path} }

// again is the same page with what was wrong, at the error's status.
func (a answer) again(e *quire.Error) answer {
	if e != nil {
		a.status = e.Status()
	}
	return a
}

// none is the In of a route that reads nothing.
type none struct{}

// page makes a row whose answer is HTML. For GET it reads path and query, for
// POST also a form.
func page[I any](pattern string, who Who, summary string, f func(c *call, in I) (answer, error)) Route {
	return Route{Pattern: pattern, Who: who, Summary: summary, In: typeOf[I](), run: func(c *call) error {
		var in I
		if err := decodeForm(c.r, &in); err != nil {
			return err
		}
		a, err := f(c, in)
		if err != nil {
			return err
		}
		return c.answer(a)
	}}
}

// api makes a row that speaks JSON both ways.
func api[I, O any](pattern string, who Who, summary string, f func(c *call, in I) (O, error)) Route {
	return Route{Pattern: pattern, Who: who, Summary: summary, In: typeOf[I](), Out: typeOf[O](), run: func(c *call) error {
		var in I
		if err := decodeJSON(c.r, &in); err != nil {
			return err
		}
		out, err := f(c, in)
		if err != nil {
			return err
		}
		return writeJSON(c.w, out)
	}}
}

// raw makes a row that writes its answer itself: streams, assets, documents.
func raw(pattern string, who Who, summary string, f func(c *call) error) Route {
	return Route{Pattern: pattern, Who: who, Summary: summary, run: f}
}

func typeOf[T any]() reflect.Type {
	t := reflect.TypeFor[T]()
	if t == reflect.TypeFor[none]() {
		return nil
	}
	return t
}

// routed is a row in a mux. The error travels in the call, because a mux's
// handlers return nothing.
type routed struct {
	s     *Server
	route Route
}

func (h routed) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := callOf(r)
	c.w, c.r, c.route = w, r, &h.route
	c.err = h.s.admit(c)
	if c.err == nil {
		c.err = h.route.run(c)
	}
}

// admit is the table's own check, before a handler reads anything.
func (s *Server) admit(c *call) error {
	switch {
	case c.route.Who == Nobody:
		return nil
	case !c.by.Known():
		return quire.Unauthenticated()
	case c.route.Who == Admin && !c.by.Admin:
		return quire.Forbidden("This page is for administrators.")
	}
	return nil
}

// dispatch finds the row and runs it. What a mux would answer by itself
// (unknown address, other method) becomes an error like all others.
func (s *Server) dispatch(w http.ResponseWriter, r *http.Request) error {
	mux := s.project
	if s.words[firstWord(r.URL.Path)] {
		mux = s.site
	}
	h, pattern := mux.Handler(r)
	if pattern == "" {
		probe := &unmatched{header: http.Header{}}
		h.ServeHTTP(probe, r)
		switch {
		case probe.status == http.StatusMethodNotAllowed:
			w.Header().Set("Allow", probe.header.Get("Allow"))
			return &web.StatusError{Status: probe.status, Message: "This address cannot be used that way."}
		case probe.status >= 300 && probe.status < 400 && (r.Method == http.MethodGet || r.Method == http.MethodHead):
			http.Redirect(w, r, probe.header.Get("Location"), http.StatusSeeOther)
			return nil
		}
		return s.unknown(r)
	}
	mux.ServeHTTP(w, r)
	c := callOf(r)
	if to := s.moved(c); to != "" {
		http.Redirect(w, r, to, http.StatusSeeOther)
		return nil
	}
	return s.signInFirst(c)
}

// moved is where a place of a project is that was handed over since somebody
// kept its address.
func (s *Server) moved(c *call) string {
	if c.r.Method != http.MethodGet || quire.KindOf(c.err) != quire.KindNotFound || c.r.PathValue("project") == "" {
		return ""
	}
	was := "/" + c.r.PathValue("owner") + "/" + c.r.PathValue("project")
	before, rest, ok := strings.Cut(c.r.URL.Path, was)
	if !ok || before != "" && before != "/api/v1/projects" {
		return ""
	}
	p, err := s.control.Projects.Moved(c.ctx(), c.by, c.r.PathValue("owner"), c.r.PathValue("project"))
	if err != nil || p.Path() == was {
		return ""
	}
	to := url.URL{Path: before + p.Path() + rest, RawQuery: c.r.URL.RawQuery}
	return to.String()
}

// unknown is the answer for an address without a row. A stranger learns no
// more from it than from an address that exists.
func (s *Server) unknown(r *http.Request) error {
	c := callOf(r)
	c.r = r
	if !c.by.Known() && !s.words[firstWord(r.URL.Path)] {
		return quire.Unauthenticated()
	}
	return quire.NotFound("page")
}

// signInFirst turns "sign in first" on a page that one may look at into the
// sign-in page, which leads back.
func (s *Server) signInFirst(c *call) error {
	if c.err == nil || c.by.Known() || quire.KindOf(c.err) != quire.KindUnknown {
		return c.err
	}
	if c.r.Method != http.MethodGet || web.Wants(c.r) != "page" {
		return c.err
	}
	http.Redirect(c.w, c.r, signInPath(c.r.URL.RequestURI()), http.StatusSeeOther)
	return nil
}

// unmatched takes what a mux says about an address it does not know.
type unmatched struct {
	header http.Header
	status int
}

func (u *unmatched) Header() http.Header         { return u.header }
func (u *unmatched) WriteHeader(status int)      { u.status = status }
func (u *unmatched) Write(b []byte) (int, error) { return len(b), nil }
