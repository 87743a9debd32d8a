package server

import (
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"quire"
	"quire/control"
	"quire/web"
)

// Limits of a request. Headers and cookies are counted, because a page on a
// sibling name can fill the jar until nothing else fits.
const (
	maxHeader  = 32 << 10 // bytes of all header lines
	maxCookies = 100
	maxBody    = 1 << 20  // bytes of JSON
	maxForm    = 64 << 10 // bytes of a form
	readTime   = 30 * time.Second
)

// formHeader carries the form token of a script's request.
const formHeader = "Quire-Form"

// A guard looks at a request before the table does. It answers, refuses, or
// lets it pass to next.
type guard func(next web.Handler) web.Handler

// guards is the one ordered list. Order matters: headers are on every answer,
// also on refusals; what proxies say is taken or dropped before anybody could
// read it; nothing of the person is looked at before the host is ours
// and the request has a sane size; the login is known before a write is judged.
func (s *Server) guards() []guard {
	return []guard{s.headers, s.front, s.hosts, s.limits, s.cookiesOnce, s.resolve, s.writes}
}

func chain(guards []guard, last web.Handler) web.Handler {
	for i := len(guards) - 1; i >= 0; i-- {
		last = guards[i](last)
	}
	return last
}

// headers puts the security headers on every answer.
//
// Referrer-Policy is same-origin and not no-referrer: with no-referrer browsers
// send "Origin: null" with the portal's own forms, and the check in writes
// would have nothing to compare. Towards other sites both send nothing.
func (s *Server) headers(next web.Handler) web.Handler {
	_, _, trusted := s.origins.Cookie("login", "")
	hsts := strings.HasPrefix(s.origins.Portal(), "https://")
	return func(w http.ResponseWriter, r *http.Request) error {
		h := w.Header()
		h.Set("Content-Security-Policy", s.contentPolicy(""))
		if trusted { // elsewhere browsers ignore it and complain
			h.Set("Cross-Origin-Opener-Policy", "same-origin")
		}
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "same-origin")
		h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=()")
		h.Set("Cache-Control", "no-store")
		h.Set("Vary", "Origin, Cookie")
		if hsts {
			h.Set("Strict-Transport-Security", "max-age=31536000")
		}
		return next(w, r)
	}
}

// contentPolicy is the portal's CSP. images is an extra source for the pages
// that probe whether app origins resolve.
func (s *Server) contentPolicy(images string) string {
	img := "img-src 'self' data:"
	if images != "" {
		img += " " + images
	}
	return strings.Join([]string{"default-src 'none'", "script-src 'self'", "style-src 'self'", img, "connect-src 'self'", "font-src 'self'",
		"form-action 'self' " + strings.Join(s.control.FormTargets(), " "), "frame-ancestors 'none'", "base-uri 'none'"}, "; ")
}

// front finds out for whom the request came, from proxies that are believed.
// Nobody behind it sees what they or others say of that.
func (s *Server) front(next web.Handler) web.Handler {
	portal := s.origins.Portal()
	https := strings.HasPrefix(portal, "https://")
	return func(w http.ResponseWriter, r *http.Request) error {
		callOf(r).address = s.proxies.Client(r.RemoteAddr, r.Header["X-Forwarded-For"])
		plain := https && s.proxies.Plain(r.RemoteAddr, r.Header["X-Forwarded-Proto"])
		for _, name := range [...]string{"X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "Forwarded", "X-Real-Ip"} {
			delete(r.Header, name)
		}
		if !plain || r.URL.Path == "/healthz" {
			return next(w, r)
		}
		if r.Method == http.MethodGet || r.Method == http.MethodHead {
			http.Redirect(w, r, portal+canonical(r.URL), http.StatusSeeOther)
			return nil
		}
		return quire.Forbidden("This site is reached by https only. Use " + portal + ".")
	}
}

// wellFormed is a name or address with at most a port after it. Splitting at
// the last colon would also accept "ours:80.evil.example".
var wellFormed = regexp.MustCompile(`^([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?$`)

// hosts serves the site's own name, leads its aliases there, and refuses
// everything else: a foreign name that resolves to us is DNS rebinding.
func (s *Server) hosts(next web.Handler) web.Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		answer := quire.HostRefuse
		if wellFormed.MatchString(r.Host) {
			answer = s.origins.PortalHost(r.Host)
		}
		switch answer {
		case quire.HostServe:
			return next(w, r)
		case quire.HostRedirect:
			if r.URL.Path == "/healthz" {
				return next(w, r)
			}
			if r.Method == http.MethodGet || r.Method == http.MethodHead {
				http.Redirect(w, r, s.origins.Portal()+canonical(r.URL), http.StatusSeeOther)
				return nil
			}
		}
		return &web.StatusError{Status: http.StatusMisdirectedRequest, Message: "This server does not answer to that name. Use " + s.origins.Portal() + "."}
	}
}

// canonical is a request's path and query, re-serialised, for the same place on
// the site's own name.
func canonical(u *url.URL) string {
	if u.Path == "" || u.Path == "/" && u.RawQuery == "" {
		return "/"
	}
	return (&url.URL{Path: "/" + strings.TrimLeft(u.Path, "/"), RawPath: "", RawQuery: u.RawQuery}).RequestURI()
}

// limits refuses what is too large before it is read.
func (s *Server) limits(next web.Handler) web.Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		size := len(r.Host) + len(r.RequestURI)
		cookies := 0
		for name, lines := range r.Header {
			for _, line := range lines {
				size += len(name) + len(line) + 4
				if name == "Cookie" {
					cookies += strings.Count(line, ";") + 1
				}
			}
		}
		if cookies > maxCookies {
			s.clearCookies(w)
			return &web.StatusError{Status: http.StatusBadRequest, Message: "Your browser sent too many cookies. They have been cleared; sign in again."}
		}
		if size > maxHeader {
			s.clearCookies(w)
			return &web.StatusError{Status: http.StatusRequestHeaderFieldsTooLarge, Message: "The request's headers are too large."}
		}
		if web.TokenInAddress(r.URL.RawQuery) {
			return quire.Invalid("", "Secrets do not belong into addresses, where histories and logs keep them. Send a token as the field \"Authorization: Bearer\".")
		}
		// The body must come in reasonable time. Streams lift this themselves.
		http.NewResponseController(w).SetReadDeadline(time.Now().Add(readTime))
		if r.Body != nil {
			r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		}
		return next(w, r)
	}
}

// cookiesOnce refuses a request that carries one of our cookies twice. Which of
// the two a server would read is up to whoever planted the other one.
func (s *Server) cookiesOnce(next web.Handler) web.Handler {
	login, _, _ := s.origins.Cookie("login", "")
	write, _, _ := s.origins.Cookie("write", "")
	return func(w http.ResponseWriter, r *http.Request) error {
		if len(r.CookiesNamed(login)) > 1 || len(r.CookiesNamed(write)) > 1 {
			s.clearCookies(w)
			return &web.StatusError{Status: http.StatusBadRequest, Message: "Your browser sent two sign-in cookies, so neither can be trusted. Both have been cleared; sign in again."}
		}
		return next(w, r)
	}
}

// resolve finds out who is asking: a bearer token first, else the cookies.
func (s *Server) resolve(next web.Handler) web.Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		c := callOf(r)
		c.w, c.r = w, r
		if strings.HasPrefix(r.URL.Path, "/assets/") || r.URL.Path == "/healthz" {
			return next(w, r)
		}
		if scheme, token, ok := strings.Cut(r.Header.Get("Authorization"), " "); ok && strings.EqualFold(scheme, "Bearer") {
			c.read, c.write, _ = strings.Cut(strings.TrimSpace(token), ".")
			c.bearer = true
		} else {
			c.read, c.write = s.cookie(r, "login"), s.cookie(r, "write")
		}
		if c.read == "" {
			return next(w, r)
		}
		by, err := s.control.Logins.Resolve(r.Context(), c.read)
		switch quire.KindOf(err) {
		case "":
			by.Address = c.address
			c.by = by
			c.token = s.control.Logins.FormToken(by)
		case quire.KindUnknown:
			if c.bearer {
				return err
			}
			s.clearLogin(w)
		default:
			return err
		}
		return next(w, r)
	}
}

// writes lets a request that may change something pass only if it comes from
// the portal itself: Origin and Sec-Fetch-Site must agree, the Strict cookie
// must belong to the login, and where the browser says nothing the form token
// takes their place. A bearer token is never sent by a browser on its own, so
// it needs none of this.
func (s *Server) writes(next web.Handler) web.Handler {
	portal := s.origins.Portal()
	_, _, secure := s.origins.Cookie("login", "")
	return func(w http.ResponseWriter, r *http.Request) error {
		switch r.Method {
		case http.MethodGet, http.MethodHead:
			return next(w, r)
		case http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete:
		default:
			w.Header().Set("Allow", "GET, HEAD, POST, PUT, PATCH, DELETE")
			return &web.StatusError{Status: http.StatusMethodNotAllowed, Message: "This method is not used here."}
		}
		c := callOf(r)
		isAPI := strings.HasPrefix(r.URL.Path, "/api/")
		origin, site := r.Header.Values("Origin"), r.Header.Values("Sec-Fetch-Site")
		if len(origin) > 1 || len(site) > 1 {
			return crossSite()
		}
		if len(origin) == 1 && origin[0] != portal || len(site) == 1 && site[0] != "same-origin" {
			return crossSite()
		}
		if err := s.cross.Check(r); err != nil {
			return crossSite()
		}
		said := len(origin) == 1
		if c.bearer {
			if c.by.Known() && !s.control.Logins.MayWrite(r.Context(), c.read, c.write) {
				return quire.Forbidden("This token may only read.")
			}
			return next(w, r)
		}
		if !c.by.Known() {
			// Nothing to ride on: a program that signs in sends no cookie of ours.
			if said || isAPI && s.cookie(r, "login") == "" && s.cookie(r, "write") == "" {
				return next(w, r)
			}
			return crossSite()
		}
		// A browser that says nothing, and a site whose cookies cannot be bound
		// to its host name, both need the token that only our pages hold.
		if !said || !secure {
			token := r.Header.Get(formHeader)
			if token == "" && !isAPI {
				if err := wantForm(r); err != nil {
					return err
				}
				r.Body = http.MaxBytesReader(w, r.Body, maxForm)
				if err := r.ParseForm(); err != nil {
					return err
				}
				token = r.PostForm.Get("token")
			}
			if !s.control.Logins.CheckFormToken(c.by, token) {
				return crossSite()
			}
		}
		if !s.control.Logins.MayWrite(r.Context(), c.read, c.write) {
			return quire.Forbidden("Your browser did not send the cookie that is needed for changes. Sign out and in again.")
		}
		return next(w, r)
	}
}

func crossSite() error {
	return quire.Forbidden("This request did not come from a page of this site, so nothing was changed. Go back, reload the page and try again.")
}

// cookie reads one of our cookies.
func (s *Server) cookie(r *http.Request, purpose string) string {
	name, _, _ := s.origins.Cookie(purpose, "")
	if c, err := r.Cookie(name); err == nil {
		return c.Value
	}
	return ""
}

// setLogin gives a browser its pair of cookies: Lax for reading and following
// links, Strict for changes.
func (s *Server) setLogin(w http.ResponseWriter, e control.Entered) {
	for purpose, value := range map[string]string{"login": e.Read, "write": e.Write} {
		name, path, secure := s.origins.Cookie(purpose, "")
		http.SetCookie(w, &http.Cookie{Name: name, Value: value, Path: path, Secure: secure, HttpOnly: true,
			SameSite: sameSite(purpose), Expires: e.Expires})
	}
}

func sameSite(purpose string) http.SameSite {
	if purpose == "write" {
		return http.SameSiteStrictMode
	}
	return http.SameSiteLaxMode
}

// clearLogin takes the pair back.
func (s *Server) clearLogin(w http.ResponseWriter) {
	for _, purpose := range []string{"login", "write"} {
		name, path, secure := s.origins.Cookie(purpose, "")
		http.SetCookie(w, &http.Cookie{Name: name, Path: path, Secure: secure, HttpOnly: true, SameSite: sameSite(purpose), MaxAge: -1})
	}
}

// clearCookies takes back everything the browser holds for this site, also
// what somebody else planted.
func (s *Server) clearCookies(w http.ResponseWriter) {
	s.clearLogin(w)
	w.Header().Set("Clear-Site-Data", `"cookies"`)
}

// from says where a login comes from.
func (c *call) from() control.From {
	agent := strings.ToValidUTF8(c.r.UserAgent(), "")
	if len(agent) > 256 {
		agent = agent[:256]
	}
	return control.From{Address: c.address, Agent: agent}
}
