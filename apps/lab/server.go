package lab

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"quire"
	"quire/apps"
	"quire/apps/files"
	"quire/web"
)

// config is what one JupyterLab is told at its start.
type config struct {
	project string // directory
	title   string // the project's name, for people
	home    string // the person's home directory
	state   string // directory of the session, for kernels
	base    string // URL prefix, without a slash at its end
	prefix  string // the active environment, "" if there is none
	python  string // runs kernels where the environment has no Python
	log     *slog.Logger
}

// A server is what one process of the app has.
type server struct {
	config
	tree       *files.Tree
	people     *files.People
	snapshots  *snapshots
	trust      *trust
	uploads    *uploads
	terminals  *terminals
	converters *converters

	kernels   *kernels
	sessions  *sessions
	warm      *warm
	rewritten rewrites

	// The front end, if the binary has one.
	front    *FrontEnd
	builtIn  func() ([]plugin, error)
	themes   http.Handler
	licenses http.Handler

	started time.Time
	active  atomic.Int64 // when something was last asked for, in nanoseconds

	closers []func()
}

func newServer(c config) (*server, error) {
	tree, err := files.Open(c.project)
	if err != nil {
		return nil, err
	}
	notes := personal(c.home)
	s := &server{
		config: c, tree: tree, people: files.NewPeople(),
		snapshots: &snapshots{tree: tree}, trust: &trust{file: filepath.Join(notes, "trusted")},
		uploads: newUploads(filepath.Join(notes, "uploads"), c.log), closers: []func(){func() { tree.Close() }},
		terminals: &terminals{list: map[string]*terminal{}}, converters: newConverters(c), started: time.Now(),
	}
	s.closers = append(s.closers, s.terminals.close)
	s.active.Store(s.started.UnixNano())
	s.useFrontEnd(BuiltIn())
	s.kernels, s.sessions, s.warm = newKernels(s), newSessions(s), &warm{s: s}
	if err := os.MkdirAll(notes, 0o700); err != nil {
		c.log.Warn("no notes in the home directory", "err", err)
	} else if home, err := files.Open(notes); err == nil {
		s.snapshots.home = home
		s.closers = append(s.closers, func() { home.Close() })
	}
	return s, nil
}

// personal is the directory for notes of ours in the person's home.
func personal(home string) string {
	if home == "" {
		home = os.TempDir()
	}
	return filepath.Join(home, ".local/state/quire/lab")
}

func (s *server) close() {
	s.kernels.close()
	for _, end := range s.closers {
		end()
	}
}

// handler serves the page and Jupyter's API below the prefix. Jupyter's own token
// against other origins is not needed: apps.OwnPage lets nobody else ask.
func (s *server) handler() http.Handler {
	mux := http.NewServeMux()
	r := routes{mux, s}
	if s.base != "" {
		r.on("GET ", func(w http.ResponseWriter, _ *http.Request) error {
			// Relative, so that it stays on whatever name the browser used.
			w.Header().Set("Location", path.Base(s.base)+"/")
			w.WriteHeader(http.StatusTemporaryRedirect)
			return nil
		})
	}
	s.contentsRoutes(r)
	s.settingsRoutes(r)
	s.workspaceRoutes(r)
	s.extensionRoutes(r)
	s.configRoutes(r)
	s.statusRoutes(r)
	s.specRoutes(r)
	s.kernelRoutes(r)
	s.sessionRoutes(r)
	s.cellRoutes(r)
	s.pageRoutes(r)
	s.terminalRoutes(r)
	s.convertRoutes(r)
	// What Jupyter has and we do not is told in its shape as well.
	mux.HandleFunc(s.base+"/", func(w http.ResponseWriter, req *http.Request) {
		s.fail(w, req, &quire.Error{Kind: quire.KindNotFound, Message: "JupyterLab's server has nothing at this address."})
	})
	return headers(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if err := apps.OwnPage(req, "JupyterLab"); err != nil {
			s.fail(w, req, err)
			return
		}
		mux.ServeHTTP(w, req)
	}))
}

type routes struct {
	mux *http.ServeMux
	s   *server
}

// on adds a route: METHOD and a path below the prefix.
func (r routes) on(pattern string, h web.Handler) {
	i := bytes.IndexByte([]byte(pattern), ' ')
	r.mux.HandleFunc(pattern[:i+1]+r.s.base+pattern[i+1:], func(w http.ResponseWriter, req *http.Request) {
		if req.Method != http.MethodGet {
			r.s.active.Store(time.Now().UnixNano())
		}
		if err := h(w, req); err != nil {
			r.s.fail(w, req, err)
		}
	})
}

// fail answers an error the way Jupyter Server does, which its clients show.
func (s *server) fail(w http.ResponseWriter, r *http.Request, err error) {
	e := quire.AsError(err)
	if e.Kind == quire.KindInternal {
		s.log.Error("request failed", "method", r.Method, "route", r.Pattern, "err", err)
	}
	// A few errors have a second, short text, which clients compare.
	var reason any
	if strings.HasPrefix(e.Field, "bad ") {
		reason = e.Field
	}
	answer(w, e.Status(), map[string]any{"message": e.Message, "reason": reason})
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

// answerLong is answer for what is worth packing.
func answerLong(w http.ResponseWriter, r *http.Request, v any) {
	w.Header().Set("Vary", "Accept-Encoding")
	if !strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		answer(w, http.StatusOK, v)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Encoding", "gzip")
	w.WriteHeader(http.StatusOK)
	z, err := gzip.NewWriterLevel(w, gzip.BestSpeed)
	if err != nil {
		panic(err) // the level is a constant
	}
	_ = json.NewEncoder(z).Encode(v)
	_ = z.Close()
}

// ask reads a JSON body of at most limit bytes. An empty one is {}.
func ask(w http.ResponseWriter, r *http.Request, limit int64, v any) error {
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, limit)).Decode(v)
	if err == io.EOF {
		return nil
	}
	if err != nil {
		return &quire.Error{Kind: quire.KindInvalid, Message: "The request could not be read: it is not the JSON that was expected, or too long.", Err: err}
	}
	return nil
}

// policy lets the page run our scripts only. JupyterLab sets styles from script,
// which counts as inline, and shows pictures from notebooks.
const policy = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; " +
	"media-src 'self' data: blob:; connect-src 'self'; worker-src 'self' blob:; frame-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"

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

// me is the account, as Jupyter's identity.
func me() string { return os.Getenv("LOGNAME") }
