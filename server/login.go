package server

import (
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode"

	"quire"
	"quire/web"
)

type loginView struct {
	Name, Next string
	Setup      bool // nobody has an account yet
	Bad        *quire.Error
}

func (c *call) loginPage(v loginView) answer {
	a := show("login", "Sign in", v)
	a.bare = true
	return a.again(v.Bad)
}

func loginGet(c *call, _ none) (answer, error) {
	next := web.Next(c.r)
	if c.by.Known() {
		return goTo(c.s.pageOnly(next)), nil
	}
	needed, err := c.s.control.Users.SetupNeeded(c.ctx())
	if err != nil {
		return answer{}, err
	}
	return c.loginPage(loginView{Next: next, Setup: needed}), nil
}

type loginIn struct {
	Name     string `form:"name"`
	Password string `form:"password"`
	Next     string `form:"next"`
}

func loginPost(c *call, in loginIn) (answer, error) {
	v := loginView{Name: in.Name, Next: web.SafePath(in.Next)}
	if err := plainName(in.Name); err != nil {
		v.Name, v.Bad = "", err
		return c.loginPage(v), nil
	}
	entered, err := c.s.control.Logins.Enter(c.ctx(), in.Name, in.Password, c.from())
	if err != nil {
		if bad := formProblem(err); bad != nil {
			v.Bad = bad
		} else if quire.KindOf(err) == quire.KindUnknown {
			v.Bad = quire.AsError(err)
		} else {
			return answer{}, err
		}
		if v.Bad.RetryAfter > 0 {
			c.retryAfter(v.Bad)
		}
		return c.loginPage(v), nil
	}
	// Whoever was signed in here before is not any more: one browser, one login.
	if c.by.Known() && !c.bearer {
		if err := c.s.control.Logins.Leave(c.ctx(), c.by); err != nil {
			return answer{}, err
		}
	}
	c.s.setLogin(c.w, entered)
	return goTo(c.s.pageOnly(v.Next)), nil
}

// plainName refuses what cannot be a name before anything looks it up or logs it.
func plainName(name string) *quire.Error {
	for _, r := range name {
		if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == unicode.ReplacementChar {
			return quire.Invalid("name", "The name has characters that no name has.")
		}
	}
	if len(name) > 256 {
		return quire.Invalid("name", "The name is too long.")
	}
	return nil
}

func (c *call) retryAfter(e *quire.Error) {
	c.w.Header().Set("Retry-After", itoa(e.RetryAfter))
}

// pageOnly returns next if a GET row for a page answers it, else "/".
func (s *Server) pageOnly(next string) string {
	u, err := url.Parse(next)
	if err != nil {
		return "/"
	}
	mux := s.project
	if s.words[firstWord(u.Path)] {
		mux = s.site
	}
	_, pattern := mux.Handler(&http.Request{Method: http.MethodGet, URL: u, Host: "portal"})
	path := strings.TrimPrefix(pattern, "GET ")
	if pattern == "" || strings.HasPrefix(path, "/api/") || strings.HasPrefix(path, "/assets/") || path == "/logout" || strings.HasSuffix(path, "/events") {
		return "/"
	}
	return next
}

// logoutGet only asks: following a link changes nothing.
func logoutGet(c *call, _ none) (answer, error) {
	if !c.by.Known() {
		return goTo("/login"), nil
	}
	return show("logout", "Sign out", c.token), nil
}

type logoutIn struct {
	Everywhere bool `form:"everywhere"`
}

func logoutPost(c *call, in logoutIn) (answer, error) {
	done := "left"
	var err error
	if in.Everywhere {
		done = "leftall"
		err = c.s.control.Logins.LeaveAll(c.ctx(), c.by)
	} else if c.by.Known() {
		err = c.s.control.Logins.Leave(c.ctx(), c.by)
	}
	if err != nil {
		return answer{}, err
	}
	c.s.clearLogin(c.w)
	// The cookies above are exact; this also empties caches and storage.
	c.w.Header().Set("Clear-Site-Data", `"storage"`)
	return goTo("/login?done=" + done), nil
}

// Setup: the first page anybody sees.

type setupView struct {
	Key, Name string
	Probe     probe
	Bad       *quire.Error
}

// probe is how a page finds out whether this browser can reach app origins.
type probe struct {
	URL     string // an image on a random label
	Apps    string // what must resolve, in words
	Portal  string
	Forward string // the ssh line for a portal on localhost names, or ""
	Shared  bool
}

func (s *Server) probe() probe {
	if !s.probes {
		return probe{}
	}
	label := quire.NewLabel()
	p := probe{URL: s.origins.Origin(label) + s.origins.Prefix(label) + "/_quire/probe.gif", Apps: s.origins.FormTargets(), Portal: s.origins.Portal(), Shared: s.origins.Shared()}
	portal, errP := url.Parse(s.origins.Portal())
	apps, errA := url.Parse(s.origins.Origin(label))
	if errP == nil && errA == nil && (strings.HasSuffix(apps.Hostname(), ".localhost") || apps.Hostname() == "localhost") {
		a, b := port(portal), port(apps)
		p.Forward = "ssh -L " + a + ":localhost:" + a + " -L " + b + ":localhost:" + b + " " + s.host
	}
	return p
}

func port(u *url.URL) string {
	if p := u.Port(); p != "" {
		return p
	}
	if u.Scheme == "https" {
		return "443"
	}
	return "80"
}

type setupIn struct {
	Key string `query:"key"`
}

func (c *call) setupPage(v setupView) answer {
	v.Probe = c.s.probe()
	a := show("setup", "Set up Quire", v)
	a.bare, a.images = true, true
	return a.again(v.Bad)
}

func setupGet(c *call, in setupIn) (answer, error) {
	if err := c.s.control.Users.CheckSetup(c.ctx(), in.Key); err != nil {
		return answer{}, err
	}
	return c.setupPage(setupView{Key: in.Key}), nil
}

type setupForm struct {
	Key      string `form:"key"`
	Name     string `form:"name"`
	Password string `form:"password"`
	Again    string `form:"again"`
}

func setupPost(c *call, in setupForm) (answer, error) {
	v := setupView{Key: in.Key, Name: in.Name}
	if in.Password != in.Again {
		v.Bad = quire.Invalid("again", "The two passwords differ. Type the same one twice.")
		return c.setupPage(v), nil
	}
	entered, project, err := c.s.control.Users.Setup(c.ctx(), in.Key, in.Name, in.Password, c.from())
	if err != nil {
		if v.Bad = formProblem(err); v.Bad != nil {
			return c.setupPage(v), nil
		}
		return answer{}, err
	}
	if c.by.Known() && !c.bearer {
		if err := c.s.control.Logins.Leave(c.ctx(), c.by); err != nil {
			return answer{}, err
		}
	}
	c.s.setLogin(c.w, entered)
	if project.ID == "" {
		if nodes, err := c.s.control.Site.Nodes(c.ctx(), quire.Actor{System: true}); err == nil && len(nodes) == 0 {
			return goTo("/admin/data-centers"), nil
		}
		return goTo("/"), nil
	}
	return goTo(project.Path()), nil
}

// Theme: a choice of this browser, kept in a cookie so that the first byte of
// the next page is already right.

const themeCookie = "quire_theme"

type themeIn struct {
	Theme string `form:"theme"`
	Next  string `form:"next"`
}

func themePost(c *call, in themeIn) (answer, error) {
	ck := &http.Cookie{Name: themeCookie, Value: in.Theme, Path: "/", SameSite: http.SameSiteLaxMode, HttpOnly: true, MaxAge: int((365 * 24 * time.Hour).Seconds())}
	if in.Theme != "light" && in.Theme != "dark" {
		ck.Value, ck.MaxAge = "", -1
	}
	http.SetCookie(c.w, ck)
	return goTo(c.s.pageOnly(web.SafePath(in.Next))), nil
}

// The API's way in.

type tokenIn struct {
	Name     string `json:"name"`
	Password string `json:"password"`
}

type tokenOut struct {
	Token   string     `json:"token"` // for Authorization: Bearer
	User    quire.User `json:"user"`
	Expires time.Time  `json:"expires"`
}

func apiEnter(c *call, in tokenIn) (tokenOut, error) {
	if err := plainName(in.Name); err != nil {
		return tokenOut{}, err
	}
	e, err := c.s.control.Logins.Enter(c.ctx(), in.Name, in.Password, c.from())
	if err != nil {
		return tokenOut{}, err
	}
	return tokenOut{Token: e.Read + "." + e.Write, User: e.User, Expires: e.Expires}, nil
}

type done struct {
	Done bool `json:"done"`
}

func apiLeave(c *call, _ none) (done, error) {
	return done{true}, c.s.control.Logins.Leave(c.ctx(), c.by)
}

func apiLogins(c *call, _ none) ([]quire.Login, error) {
	return c.s.control.Logins.List(c.ctx(), c.by)
}

type loginRef struct {
	ID string `path:"id" json:"-"`
}

func apiEndLogin(c *call, in loginRef) (done, error) {
	return done{true}, c.s.control.Logins.End(c.ctx(), c.by, quire.LoginID(in.ID))
}

type passwordIn struct {
	Old string `json:"old"`
	New string `json:"new"`
}

func apiPassword(c *call, in passwordIn) (tokenOut, error) {
	e, err := c.s.control.Users.SetPassword(c.ctx(), c.by, in.Old, in.New, c.from())
	if err != nil {
		return tokenOut{}, err
	}
	if !c.bearer {
		c.s.setLogin(c.w, e)
		return tokenOut{User: e.User, Expires: e.Expires}, nil
	}
	return tokenOut{Token: e.Read + "." + e.Write, User: e.User, Expires: e.Expires}, nil
}
