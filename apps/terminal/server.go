package terminal

import (
	_ "embed"
	"encoding/json"
	"html/template"
	"log/slog"
	"net/http"
	"os"
	"path"
	"strings"

	"github.com/coder/websocket"

	"quire/apps"
	"quire/web"
)

//go:embed page.html
var pageText string

// policy lets the page run our scripts only. The terminal library sets styles
// from script, which counts as inline.
const policy = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self'; " +
	"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"

// page is what the template shows.
type page struct {
	Prefix    string
	Script    string
	Style     string
	Icon      string
	Project   string
	Shell     string // "bash"
	NoNewRoot bool   // sudo cannot work here
}

// handler serves the page, its assets and its sockets below prefix.
func handler(d *desk, prefix string, p page, log *slog.Logger) (http.Handler, error) {
	tmpl, err := template.New("page").Parse(pageText)
	if err != nil {
		return nil, err
	}
	p.Prefix = prefix
	p.Script = prefix + web.Asset("terminal.js")
	p.Icon = prefix + web.Asset("terminal-icon.svg")
	p.Style = prefix + web.Asset("terminal.css")
	var html strings.Builder
	if err := tmpl.Execute(&html, p); err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	on := func(pattern string, h web.Handler) { mux.Handle(pattern, web.Adapt(log, h)) }
	on("GET "+prefix+"/{$}", func(w http.ResponseWriter, r *http.Request) error {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, err := w.Write([]byte(html.String()))
		return err
	})
	if prefix != "" {
		on("GET "+prefix, func(w http.ResponseWriter, r *http.Request) error {
			// Relative, so that it stays on whatever name the browser used.
			w.Header().Set("Location", path.Base(prefix)+"/")
			w.WriteHeader(http.StatusTemporaryRedirect)
			return nil
		})
	}
	mux.Handle(prefix+"/assets/", http.StripPrefix(prefix, web.Assets()))
	// A page whose sockets fail asks here whether it may still be here at all.
	on("GET "+prefix+"/alive", func(w http.ResponseWriter, r *http.Request) error {
		w.WriteHeader(http.StatusNoContent)
		return nil
	})
	// Workbench offers the shells that it shows in no tab.
	on("GET "+prefix+"/shells", func(w http.ResponseWriter, r *http.Request) error {
		w.Header().Set("Content-Type", "application/json")
		return json.NewEncoder(w).Encode(d.tabs())
	})
	on("GET "+prefix+"/socket", func(w http.ResponseWriter, r *http.Request) error {
		if err := apps.OwnPage(r, "A terminal"); err != nil {
			return err
		}
		if r.URL.Query().Has("shell") {
			return d.serveVisitor(w, r)
		}
		return d.serveLink(w, r)
	})
	return headers(mux), nil
}

func headers(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

func accept(w http.ResponseWriter, r *http.Request) (*websocket.Conn, error) {
	return websocket.Accept(w, r, &websocket.AcceptOptions{CompressionMode: websocket.CompressionDisabled})
}

// noNewRoot reports whether the kernel keeps this process and its children from
// gaining rights, which is why sudo fails in the shells.
func noNewRoot() bool {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(status)) {
		if v, ok := strings.CutPrefix(line, "NoNewPrivs:"); ok {
			return strings.TrimSpace(v) == "1"
		}
	}
	return false
}
