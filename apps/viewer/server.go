package viewer

import (
	"bytes"
	_ "embed"
	"errors"
	"html/template"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path"
	"regexp"
	"strconv"
	"strings"
	"time"

	"quire"
	"quire/web"
)

//go:embed page.html
var pageText string

// policy of pages: our own script and styles only; pictures may be in the page
// itself, as notebooks have them. No file's form can be sent, since no form of
// a file is left.
const pagePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; media-src 'self'; font-src 'self'; " +
	"base-uri 'none'; form-action 'self'" // who may frame it the gateway says

// ours is the one name at the top of a project that the app keeps for itself.
const ours = "/_viewer"

type config struct {
	Prefix  string // URL prefix, without a slash at the end
	Dir     string // the project's directory
	Project string // its name, for titles
	Account string // who reads
	Render  []string
	Log     *slog.Logger
	Time    time.Duration // for rendering one file; 0 is the default
}

type site struct {
	config
	tree   tree
	render *renderers
	page   *template.Template
	assets http.Handler
	adapt  web.Adapter
}

func newSite(c config) (http.Handler, error) {
	page, err := template.New("page").Funcs(template.FuncMap{
		"ago": ago, "exact": func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") },
		"iso": func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
	}).Parse(pageText)
	if err != nil {
		return nil, err
	}
	s := &site{config: c, tree: tree{dir: c.Dir, account: c.Account}, render: newRenderers(c.Render), page: page}
	if c.Time > 0 {
		s.render.time = c.Time
	}
	s.assets = http.StripPrefix(c.Prefix+ours, web.Assets())
	s.adapt = web.Adapter{Log: c.Log, Page: s.problem}
	return s.headers(s.adapt.Adapt(s.serve)), nil
}

// passForm is what a gateway puts before the address of content that it shows on
// an origin without cookies.
var passForm = regexp.MustCompile(`^/~[A-Za-z0-9_-]+$`)

// prefix is what links begin with.
func (s *site) prefix(r *http.Request) string {
	if before := r.Header.Get("X-Forwarded-Prefix"); passForm.MatchString(before) {
		return before + s.Prefix
	}
	return s.Prefix
}

func (s *site) headers(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", pagePolicy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

// serve finds what an address is for. It takes the escaped path apart itself: a
// router would clean it first, and names may hold any bytes.
func (s *site) serve(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		return &web.StatusError{Status: http.StatusMethodNotAllowed, Message: "The Viewer only reads. Files are changed in Workbench, Notebook or Terminal."}
	}
	rest, ok := strings.CutPrefix(r.URL.EscapedPath(), s.Prefix)
	switch {
	case ok && rest == "":
		// Relative, so that it stays on whatever name the browser used.
		w.Header().Set("Location", path.Base(s.Prefix)+"/")
		w.WriteHeader(http.StatusTemporaryRedirect)
		return nil
	case !ok || rest[0] != '/':
		return quire.NotFound("page")
	case strings.HasPrefix(rest, ours+"/assets/"):
		s.assets.ServeHTTP(w, r)
		return nil
	}
	names, ok := split(rest)
	if !ok {
		return quire.NotFound("file")
	}
	f, info, err := s.tree.open(names)
	if err != nil {
		return err
	}
	defer f.Close()
	q := r.URL.Query()
	if info.IsDir() {
		return s.directory(w, r, f, names, q)
	}
	if q.Has("raw") || q.Has("download") {
		return serveRaw(w, r, f, names[len(names)-1], q.Has("download"))
	}
	return s.file(w, r, f, info, names, q)
}

// A page is what the template shows.
type page struct {
	Script, Style, Icon string
	Notices             string
	Prefix, Project     string
	Title               string
	Crumbs              []crumb
	Here                string // the address without a query
	Up                  string

	Directory *listing
	All       bool
	Pattern   string
	Found     *finding
	FindError string

	File *file

	Problem *web.Problem
	Account string
}

type crumb struct{ Name, Address string }

type file struct {
	Name, Size, Exact string
	Time              time.Time
	Kind              string // "html", "image", "sound", "video", "other"
	Body              template.HTML
	Trouble           string
	View              view
	Other             string // the name of the other view, "" if there is one only
	Prose             bool
	PDF               bool
	Active            bool
}

func (s *site) newPage(r *http.Request, names []string) page {
	prefix := s.prefix(r)
	p := page{
		Prefix: prefix, Project: s.Project, Account: s.Account, Here: address(prefix, names...),
		Script: prefix + ours + web.Asset("viewer.js"), Style: prefix + ours + web.Asset("viewer.css"),
		Icon: prefix + ours + web.Asset("favicon.svg"), Notices: prefix + ours + "/assets/NOTICES.txt",
	}
	top := s.Project
	if top == "" {
		top = "Files"
	}
	p.Crumbs = []crumb{{top, address(prefix)}}
	p.Title = top
	for i, n := range names {
		p.Crumbs = append(p.Crumbs, crumb{shown(n), address(prefix, names[:i+1]...)})
		p.Title = shown(n) + " – " + top
	}
	if len(names) > 0 {
		p.Up = address(prefix, names[:len(names)-1]...)
	}
	return p
}

func (s *site) write(w http.ResponseWriter, status int, p page) error {
	var b bytes.Buffer
	if err := s.page.Execute(&b, p); err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(b.Len()))
	w.WriteHeader(status)
	_, err := w.Write(b.Bytes())
	return err
}

// problem is the page of an error.
func (s *site) problem(w http.ResponseWriter, r *http.Request, e web.Problem) {
	p := s.newPage(r, nil)
	p.Title, p.Problem = e.Title, &e
	if err := s.write(w, e.Status, p); err != nil && s.Log != nil {
		s.Log.Warn("write the error page", "err", err)
	}
}

func (s *site) directory(w http.ResponseWriter, r *http.Request, d *os.File, names []string, q url.Values) error {
	p := s.newPage(r, names)
	p.All = q.Has("all")
	if p.Pattern = q.Get("find"); strings.TrimSpace(p.Pattern) != "" {
		found, err := find(r.Context(), d, p.Prefix, names, p.Pattern)
		var e *quire.Error
		switch {
		case errors.As(err, &e):
			p.FindError = e.Message
		case err != nil:
			return s.tree.explain(err, names)
		default:
			p.Found = &found
			return s.write(w, http.StatusOK, p)
		}
	}
	l, err := list(d, p.Prefix, names, p.All)
	if err != nil {
		return s.tree.explain(err, names)
	}
	p.Directory = &l
	return s.write(w, http.StatusOK, p)
}

func (s *site) file(w http.ResponseWriter, r *http.Request, f *os.File, info fs.FileInfo, names []string, q url.Values) error {
	name := names[len(names)-1]
	p := s.newPage(r, names)
	p.File = &file{Name: shown(name), Size: size(info.Size()), Exact: strconv.FormatInt(info.Size(), 10) + " bytes", Time: info.ModTime(), Kind: "other"}
	head := make([]byte, 8192)
	n, _ := f.ReadAt(head, 0)
	head = head[:n]
	p.File.Active = active(name, head)
	switch ext := strings.ToLower(path.Ext(name)); {
	case ext == ".ipynb":
		p.File.View, p.File.Other = viewNotebook, "Source"
	case ext == ".md" || ext == ".markdown":
		p.File.View, p.File.Other = viewMarkdown, "Source"
	case ext == ".csv" || ext == ".tsv":
		p.File.View, p.File.Other = viewTable, "Source"
	case ext == ".svg" && !q.Has("source"):
		p.File.Kind, p.File.Other = "image", "Source"
	case imageType(name) != "" && ext != ".svg":
		p.File.Kind = "image"
	case strings.HasPrefix(soundType(name), "audio/"):
		p.File.Kind = "sound"
	case strings.HasPrefix(soundType(name), "video/"):
		p.File.Kind = "video"
	case ext == ".pdf":
		p.File.PDF = true
	case isText(head):
		p.File.View = viewSource
		if ext == ".svg" {
			p.File.Other = "Picture"
		}
	}
	if p.File.View != "" && p.File.View != viewSource && q.Has("source") {
		p.File.Other = map[view]string{viewNotebook: "Notebook", viewMarkdown: "Text", viewTable: "Table"}[p.File.View]
		p.File.View = viewSource
	}
	if p.File.View == "" {
		return s.write(w, http.StatusOK, p)
	}
	p.File.Kind = "html"
	body, err := s.rendered(r, p.File.View, f, info, names)
	var e *quire.Error
	switch {
	case errors.As(err, &e) && e.Kind == quire.KindInvalid:
		s.Log.Info("not rendered", "view", p.File.View, "bytes", info.Size(), "err", err)
		p.File.Kind, p.File.Trouble = "other", e.Message
	case err != nil:
		return err
	default:
		p.File.Body = body
	}
	p.File.Prose = p.File.View == viewMarkdown || p.File.View == viewNotebook
	return s.write(w, http.StatusOK, p)
}

func (s *site) rendered(r *http.Request, v view, f *os.File, info fs.FileInfo, names []string) (template.HTML, error) {
	if info.Size() > v.limit() && v != viewTable {
		return "", errTooLarge("it has " + size(info.Size()) + ", the limit is " + size(v.limit()))
	}
	return s.render.render(r.Context(), v, f, s.prefix(r), names)
}

// ago is a time as people say it.
func ago(t time.Time) string {
	d := time.Since(t)
	n, unit := 0, ""
	switch {
	case d < time.Minute:
		return "just now"
	case d < time.Hour:
		n, unit = int(d.Minutes()), "minute"
	case d < 48*time.Hour:
		n, unit = int(d.Hours()), "hour"
	case d < 60*24*time.Hour:
		n, unit = int(d.Hours()/24), "day"
	default:
		return t.UTC().Format("2 Jan 2006")
	}
	if n != 1 {
		unit += "s"
	}
	return strconv.Itoa(n) + " " + unit + " ago"
}
