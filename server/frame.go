package server

import (
	"fmt"
	"html/template"
	"io/fs"
	"math"
	"net/http"
	"net/url"
	"strings"
	"time"

	"quire"
	"quire/web"
)

// frame is what the layout around every page needs.
type frame struct {
	Title   string
	Name    string // of the signed-in person, "" without a login
	Admin   bool
	Token   string // form token
	Theme   string // "light", "dark" or "" for the system's
	Path    string // of this page, to come back to
	Live    string // address of the page's stream
	Notice  string
	Version string
	Bare    bool
	Page    any
}

// notices are the sentences that a redirect may ask the next page to show.
// The address carries only the word, so nobody can put text on our pages.
var notices = map[string]string{
	"saved":       "Saved.",
	"created":     "The account is made. Give the person the password on another way than by e-mail.",
	"password":    "Your password is changed. All your other sign-ins have ended.",
	"ended":       "That sign-in has ended.",
	"left":        "You are signed out.",
	"leftall":     "You are signed out everywhere. Kernels and shells go on.",
	"added":       "Added to the team.",
	"repairs":     "The permissions of all files are being looked at and set right.",
	"takes-over":  "The files are being copied. You can leave this page; it goes on without you.",
	"handed-over": "The project has a new owner. Its old address leads here.",
	"removed":     "Removed from the team. Open windows of that person in this project are closed.",
	"role":        "The role is changed.",
	"deleted":     "The project is deleted. You can restore it from here.",
	"restored":    "The project is restored.",
	"moves":       "The project is being moved. This page shows how far it is.",
	"stopping":    "The session is being stopped.",
	"published":   "Everybody on this site can see the project now.",
	"private":     "Only the team can see the project now.",
}

// answer shows a page handler's answer.
func (c *call) answer(a answer) error {
	if a.to != "" {
		http.Redirect(c.w, c.r, a.to, http.StatusSeeOther)
		return nil
	}
	if a.images {
		c.w.Header().Set("Content-Security-Policy", c.s.contentPolicy(c.s.origins.FormTargets()))
	}
	f := c.s.frame(c, a.title)
	f.Live, f.Page, f.Bare = a.live, a.data, a.bare
	return c.s.pages.Render(c.w, a.status, a.page, f)
}

func (s *Server) frame(c *call, title string) frame {
	f := frame{Title: title, Version: s.version, Path: "/"}
	if c == nil || c.r == nil {
		return f
	}
	if ck, err := c.r.Cookie(themeCookie); err == nil && (ck.Value == "light" || ck.Value == "dark") {
		f.Theme = ck.Value
	}
	f.Notice = notices[c.r.URL.Query().Get("done")]
	f.Name, f.Admin, f.Token = c.by.Name, c.by.Admin, c.token
	if c.r.Method == http.MethodGet {
		f.Path = web.SafePath(c.r.URL.EscapedPath())
	}
	return f
}

// problemView is an error as a page.
type problemView struct {
	web.Problem
	SignIn string // where to sign in, if that helps
}

// errorPage is the portal's page for an error. If even that cannot be made,
// one line of text is.
func (s *Server) errorPage(w http.ResponseWriter, r *http.Request, p web.Problem) {
	c := callOf(r)
	f := s.frame(c, p.Title)
	v := problemView{Problem: p}
	if p.Status == http.StatusUnauthorized {
		v.SignIn = "/login"
	}
	// Nothing of the request is on the page: whoever sends one may not write here.
	f.Page, f.Notice, f.Path = v, "", "/"
	if err := s.pages.Render(w, p.Status, "error", f); err != nil {
		s.log.Error("error page", "err", err)
		http.Error(w, p.Message+"\nRequest "+p.RequestID, p.Status)
	}
}

// signInPath is the sign-in page that leads to next afterwards.
func signInPath(next string) string {
	if next = web.SafePath(next); next == "/" {
		return "/login"
	}
	return "/login?next=" + url.QueryEscape(next)
}

// parsePages parses the templates with the words all of them use.
func parsePages(now func() time.Time) (*web.Pages, error) {
	files, err := fs.Sub(pageFiles, "pages")
	if err != nil {
		return nil, err
	}
	return web.NewPages(files, template.FuncMap{
		"ago":      func(t time.Time) string { return ago(t, now()) },
		"exact":    exact,
		"iso":      func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
		"bytes":    bytesText,
		"count":    count,
		"at":       problemAt,
		"markdown": web.Markdown,
		"stateof":  stateOf,
		"with2":    func(a, b any) pair { return pair{a, b} },
		"initial":  initial,
	})
}

// pair hands two things to a part of a page.
type pair struct{ A, B any }

// problemAt is the sentence for a form's field, "" if nothing is wrong there.
func problemAt(e *quire.Error, field string) string {
	if e == nil || e.Field != field {
		return ""
	}
	return e.Message
}

// formProblem returns the error if it belongs on the form it came from: the
// person can do something about it there.
func formProblem(err error) *quire.Error {
	switch quire.KindOf(err) {
	case quire.KindInvalid, quire.KindConflict, quire.KindTooMany, quire.KindUnavailable, quire.KindFailed:
		return quire.AsError(err)
	}
	return nil
}

func initial(name string) string {
	for _, r := range name {
		return strings.ToUpper(string(r))
	}
	return "?"
}

// state is how a state is shown: shape, word and colour together.
type state struct {
	Mark, Word, Tone string // Tone names the colour in the stylesheet
}

// stateOf shows the state of a project, session, work or step, or whether
// something is up.
func stateOf(v any) state {
	switch fmt.Sprint(v) {
	case "running":
		return state{"●", "running", "good"}
	case "done":
		return state{"✓", "done", "good"}
	case "true":
		return state{"●", "up", "good"}
	case "starting":
		return state{"◐", "starting", "busy"}
	case "moving":
		return state{"◐", "moving", "busy"}
	case "stopping":
		return state{"◐", "stopping", "busy"}
	case "working":
		return state{"◐", "working", "busy"}
	case "waiting":
		return state{"○", "waiting", "rest"}
	case "failed":
		return state{"▲", "failed", "bad"}
	case "false":
		return state{"▲", "away", "bad"}
	case "ended":
		return state{"■", "ended", "rest"}
	case "deleted":
		return state{"■", "deleted", "rest"}
	}
	return state{"■", "stopped", "rest"}
}

// ago says a time the way one says it: "just now", "5 min ago", "3 March".
func ago(t, now time.Time) string {
	if t.IsZero() {
		return "never"
	}
	d := now.Sub(t)
	switch {
	case d < -time.Minute:
		return "in " + span(-d)
	case d < 45*time.Second:
		return "just now"
	case d < 14*24*time.Hour:
		return span(d) + " ago"
	case t.Year() == now.Year():
		return t.Format("2 January")
	}
	return t.Format("2 January 2006")
}

// span says how long something lasts, in the largest unit that fits.
func span(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(math.Round(d.Seconds())))
	case d < time.Hour:
		return fmt.Sprintf("%d min", int(math.Round(d.Minutes())))
	case d < 36*time.Hour:
		return fmt.Sprintf("%d h", int(math.Round(d.Hours())))
	}
	return count(int(math.Round(d.Hours()/24)), "day")
}

// seconds says a short time exactly enough for a timeline.
func seconds(s float64) string {
	switch {
	case s < 0.05:
		return "0 s"
	case s < 10:
		return fmt.Sprintf("%.1f s", s)
	case s < 100:
		return fmt.Sprintf("%.0f s", s)
	}
	return fmt.Sprintf("%d min %02d s", int(s)/60, int(s)%60)
}

func exact(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return t.UTC().Format("Monday, 2 January 2006, 15:04:05 UTC")
}

// count says a number of things in plain English.
func count(n int, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %ss", n, one)
}

// bytesText says a size in binary units.
func bytesText(n int64) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	v := float64(n)
	for _, unit := range []string{"KiB", "MiB", "GiB", "TiB"} {
		v /= 1024
		if v < 1000 || unit == "TiB" {
			if v < 10 {
				return fmt.Sprintf("%.1f %s", v, unit)
			}
			return fmt.Sprintf("%.0f %s", v, unit)
		}
	}
	return ""
}
