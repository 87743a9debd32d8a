package workbench

import (
	_ "embed"
	"encoding/json"
	"html/template"
	"log/slog"
	"net/http"
	"net/url"
	"path"
	"strings"
	"unicode/utf8"

	"quire"
	"quire/apps"
	"quire/apps/files"
	"quire/web"
)

//go:embed page.html
var pageText string

// policy lets the page run our scripts only. The editor sets styles from script,
// which counts as inline.
const policy = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self'; " +
	"media-src 'self'; connect-src 'self'; frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"

type page struct {
	Prefix, Script, Style, Icon string
	Project                     string
	Siblings                    string // prefix of the other apps of the project
}

func handler(b *bench, prefix, project string, log *slog.Logger) (http.Handler, error) {
	tmpl, err := template.New("page").Parse(pageText)
	if err != nil {
		return nil, err
	}
	siblings := path.Dir(prefix)
	if siblings == "." || siblings == "/" {
		siblings = ""
	}
	p := page{
		Prefix: prefix, Script: prefix + web.Asset("workbench.js"), Style: prefix + web.Asset("workbench.css"),
		Icon: prefix + web.Asset("favicon.svg"), Project: project, Siblings: siblings,
	}
	var html strings.Builder
	if err := tmpl.Execute(&html, p); err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	on := func(pattern string, h web.Handler) {
		method, at, _ := strings.Cut(pattern, " ")
		mux.Handle(method+" "+prefix+at, web.Adapt(log, h))
	}
	on("GET /{$}", func(w http.ResponseWriter, r *http.Request) error {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, err := w.Write([]byte(html.String()))
		return err
	})
	if prefix != "" {
		on("GET ", func(w http.ResponseWriter, r *http.Request) error {
			// Relative, so that it stays on whatever name the browser used.
			w.Header().Set("Location", path.Base(prefix)+"/")
			w.WriteHeader(http.StatusTemporaryRedirect)
			return nil
		})
	}
	mux.Handle(prefix+"/assets/", http.StripPrefix(prefix, web.Assets()))

	on("GET /api/roots", b.serveRoots)
	on("POST /api/roots", b.serveShow)
	on("DELETE /api/roots/{id}", b.serveHide)
	on("GET /api/list", b.serveList)
	on("GET /api/stat", b.serveStat)
	on("GET /api/file", b.serveRead)
	on("PUT /api/file", b.serveWrite)
	on("POST /api/folder", b.serveMkdir)
	on("POST /api/rename", b.serveRename)
	on("POST /api/copy", b.serveCopy)
	on("POST /api/delete", b.serveDelete)
	on("GET /api/raw", b.serveRaw)
	on("POST /api/archives", b.servePrepare)
	on("GET /api/archives/{id}", b.serveArchive)
	on("POST /api/uploads", b.serveBegin)
	on("GET /api/uploads/{id}", b.serveProgress)
	on("PATCH /api/uploads/{id}", b.servePiece)
	on("DELETE /api/uploads/{id}", b.serveCancel)
	on("GET /api/permissions", b.servePermissions)
	on("POST /api/permissions", b.serveSetPermissions)
	on("POST /api/share", b.serveShare)
	return headers(web.Adapt(log, func(w http.ResponseWriter, r *http.Request) error {
		if err := apps.OwnPage(r, "Workbench"); err != nil {
			return err
		}
		mux.ServeHTTP(w, r)
		return nil
	})), nil
}

func headers(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

func answer(w http.ResponseWriter, v any) error {
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(v)
}

// ask reads a JSON body.
func ask(w http.ResponseWriter, r *http.Request, v any) error {
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, 4<<20))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return &quire.Error{Kind: quire.KindInvalid, Message: "The request could not be read.", Err: err}
	}
	return nil
}

// Names are bytes. In JSON a name is what can be shown of it; where that is not
// all of it, raw has the bytes, percent-encoded. Every path that a page sends
// has its names percent-encoded and slashes between them.
func wireName(name string) (shown, raw string) {
	if utf8.ValidString(name) {
		return name, ""
	}
	return strings.ToValidUTF8(name, "\uFFFD"), url.PathEscape(name)
}

// wirePath is a path as a page may send it back.
func wirePath(p string) string {
	if p == "" {
		return ""
	}
	parts := strings.Split(p, "/")
	for i := range parts {
		parts[i] = url.PathEscape(parts[i])
	}
	return strings.Join(parts, "/")
}

func unwire(p string) (string, error) {
	if p == "" {
		return "", nil
	}
	parts := strings.Split(p, "/")
	for i, part := range parts {
		name, err := url.PathUnescape(part)
		if err != nil {
			return "", quire.Invalid("path", "That path cannot be read.")
		}
		if err := files.CheckName(name); err != nil {
			return "", err
		}
		parts[i] = name
	}
	return strings.Join(parts, "/"), nil
}

// place reads which root and path a request is about.
func (b *bench) place(root, wire string) (*files.Tree, string, error) {
	t, err := b.root(root)
	if err != nil {
		return nil, "", err
	}
	p, err := unwire(wire)
	return t, p, err
}

func (b *bench) asked(r *http.Request) (*files.Tree, string, error) {
	q := r.URL.Query()
	return b.place(q.Get("root"), q.Get("path"))
}
