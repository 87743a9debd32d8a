package web

import (
	"bytes"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"path"
	"strconv"
	"strings"
)

// Pages are the templates of one role, parsed once. In the file system,
// layout.html is around every page, files that begin with an underscore are
// parts for all pages, every other *.html is a page of that name. Layout and
// pages see each other's {{define}}s; two pages never do.
type Pages struct {
	pages map[string]*template.Template
}

// NewPages parses all templates of fsys. funcs are added to the ones every
// page has: asset.
func NewPages(fsys fs.FS, funcs template.FuncMap) (*Pages, error) {
	files, err := fs.Glob(fsys, "*.html")
	if err != nil {
		return nil, err
	}
	base := template.New("").Option("missingkey=error").Funcs(template.FuncMap{"asset": Asset}).Funcs(funcs)
	var pages []string
	for _, f := range files {
		if f != "layout.html" && !strings.HasPrefix(f, "_") {
			pages = append(pages, f)
			continue
		}
		if err := parse(base, fsys, f); err != nil {
			return nil, err
		}
	}
	p := &Pages{pages: map[string]*template.Template{}}
	for _, f := range pages {
		t, err := base.Clone()
		if err != nil {
			return nil, err
		}
		if err := parse(t, fsys, f); err != nil {
			return nil, err
		}
		p.pages[strings.TrimSuffix(f, ".html")] = t
	}
	return p, nil
}

func parse(t *template.Template, fsys fs.FS, file string) error {
	raw, err := fs.ReadFile(fsys, file)
	if err != nil {
		return err
	}
	if _, err := t.New(strings.TrimSuffix(path.Base(file), ".html")).Parse(string(raw)); err != nil {
		return fmt.Errorf("page %s: %w", file, err)
	}
	return nil
}

// Render writes a page: its own "layout" if there is one, else the page by
// itself. Nothing is written before the whole page is made, so that an error
// can still become an error page.
func (p *Pages) Render(w http.ResponseWriter, status int, name string, data any) error {
	t := p.pages[name]
	if t == nil {
		return fmt.Errorf("no page %q", name)
	}
	outer := "layout"
	if t.Lookup(outer) == nil {
		outer = name
	}
	var b bytes.Buffer
	if err := t.ExecuteTemplate(&b, outer, data); err != nil {
		return fmt.Errorf("page %s: %w", name, err)
	}
	h := w.Header()
	if h.Get("Content-Type") == "" {
		h.Set("Content-Type", "text/html; charset=utf-8")
	}
	h.Set("Content-Length", strconv.Itoa(b.Len()))
	w.WriteHeader(status)
	_, err := w.Write(b.Bytes())
	return err
}

// Fragment makes one {{define}}d part of a page, for pushing it to a page that
// is already open.
func (p *Pages) Fragment(page, part string, data any) (string, error) {
	t := p.pages[page]
	if t == nil {
		return "", fmt.Errorf("no page %q", page)
	}
	var b bytes.Buffer
	if err := t.ExecuteTemplate(&b, part, data); err != nil {
		return "", fmt.Errorf("page %s, part %s: %w", page, part, err)
	}
	return b.String(), nil
}
