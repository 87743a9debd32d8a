// Package server is the portal: pages and the JSON API over one route table.
// It decides nothing itself: every handler asks control as the signed-in
// person and shows what comes back.
package server

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"quire"
	"quire/control"
	"quire/web"
)

//go:embed pages/*.html
var pageFiles embed.FS

// Config is what the portal needs from outside.
type Config struct {
	Control *control.Control
	Origins quire.Origins
	Log     *slog.Logger
	Version string
	Now     func() time.Time // nil = time.Now
	// Host is the machine's name as somebody would write it after ssh, for the
	// line that forwards the ports. Empty: "HOST".
	Host string
	// Elsewhere: no gateway is on this machine, so no page can try its apps.
	Elsewhere bool
	// Proxies are believed about whom they ask for.
	Proxies quire.Proxies
}

// Server is the portal's http.Handler.
type Server struct {
	control *control.Control
	origins quire.Origins
	log     *slog.Logger
	version string
	now     func() time.Time
	host    string
	probes  bool // pages try whether the browser reaches apps
	proxies quire.Proxies

	routes  []Route
	site    *http.ServeMux  // addresses whose first word is a page
	project *http.ServeMux  // /OWNER/PROJECT/…
	words   map[string]bool // first words of site
	pages   *web.Pages
	handler http.Handler
	openapi []byte
	cross   *http.CrossOriginProtection

	http    *http.Server
	quit    chan struct{} // closed by Shutdown: streams end
	quitOne sync.Once
	streams streamCount
}

// New builds the portal. It fails on a template or route that does not fit.
func New(c Config) (*Server, error) {
	if c.Control == nil || c.Origins == nil {
		return nil, errors.New("server: Control and Origins are required")
	}
	s := &Server{control: c.Control, origins: c.Origins, log: c.Log, version: c.Version, now: c.Now, host: c.Host, probes: !c.Elsewhere, proxies: c.Proxies,
		quit: make(chan struct{}), cross: http.NewCrossOriginProtection()}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.now == nil {
		s.now = time.Now
	}
	if s.host == "" {
		s.host = "HOST"
	}
	var err error
	if s.pages, err = parsePages(s.now); err != nil {
		return nil, err
	}
	if err := s.mount(table()); err != nil {
		return nil, err
	}
	if s.openapi, err = openAPI(s.routes, s.version); err != nil {
		return nil, err
	}
	adapter := web.Adapter{Log: s.log, Page: s.errorPage}
	inner := adapter.Adapt(chain(s.guards(), s.dispatch))
	s.handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := &call{s: s}
		inner.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callKey{}, c)))
	})
	s.http = &http.Server{
		Handler:           s,
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       120 * time.Second,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	return s, nil
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.handler.ServeHTTP(w, r) }

// Serve answers on l with the portal's time limits until Shutdown. It returns
// nil after Shutdown.
func (s *Server) Serve(l net.Listener) error {
	if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("portal: %w", err)
	}
	return nil
}

// Shutdown ends the live streams at once and lets the other requests finish
// until ctx ends.
func (s *Server) Shutdown(ctx context.Context) error {
	s.quitOne.Do(func() { close(s.quit) })
	return s.http.Shutdown(ctx)
}

// mount registers the table. Addresses that begin with a page's word and those
// that begin with a person's name live in two muxes: one mux cannot hold
// /admin/{x}/y beside /{owner}/{project}/y.
func (s *Server) mount(routes []Route) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("route table: %v", v)
		}
	}()
	s.routes, s.site, s.project, s.words = routes, http.NewServeMux(), http.NewServeMux(), map[string]bool{}
	for _, rt := range routes {
		first := firstWord(rt.Path())
		mux := s.site
		if strings.HasPrefix(first, "{") && first != "{$}" {
			mux = s.project
		} else {
			s.words[first] = true
		}
		mux.Handle(rt.Pattern, routed{s, rt})
	}
	s.words[""], s.words["{$}"] = true, true
	return nil
}

func firstWord(path string) string {
	first, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	return first
}
