package lab

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/coder/websocket"

	"quire"
)

// apiVersion is the Jupyter Server whose API this is.
const apiVersion = "2.17.0"

func (s *server) statusRoutes(r routes) {
	r.on("GET /api", s.serveVersion)
	r.on("GET /api/{$}", s.serveVersion)
	r.on("GET /api/status", s.serveStatus)
	r.on("GET /api/me", s.serveMe)
	r.on("GET /api/events/subscribe", s.serveEvents)
}

func (s *server) serveVersion(w http.ResponseWriter, _ *http.Request) error {
	answer(w, http.StatusOK, object{"version": apiVersion})
	return nil
}

func (s *server) serveStatus(w http.ResponseWriter, _ *http.Request) error {
	kernels, connections := s.kernels.count()
	answer(w, http.StatusOK, object{
		"started": s.started.UTC().Format(stamp), "last_activity": time.Unix(0, s.active.Load()).UTC().Format(stamp),
		"kernels": kernels, "connections": connections,
	})
	return nil
}

// serveMe says who is here. Whoever reaches this server is its account and may do
// everything in it, so a client gets what permissions it asks about.
func (s *server) serveMe(w http.ResponseWriter, r *http.Request) error {
	permissions := map[string][]string{}
	if q := r.URL.Query().Get("permissions"); q != "" && json.Unmarshal([]byte(q), &permissions) != nil {
		return quire.Invalid("permissions", "permissions should be a JSON dict of {\"resource\": [\"action\",]}")
	}
	name := cmp.Or(me(), fmt.Sprint(os.Geteuid()))
	initial, _ := utf8.DecodeRuneInString(name)
	answer(w, http.StatusOK, object{
		"identity":    object{"username": name, "name": name, "display_name": name, "initials": strings.ToUpper(string(initial)), "avatar_url": nil, "color": nil},
		"permissions": permissions,
	})
	return nil
}

// serveEvents holds a socket on which nothing is said: the page listens for events
// of server extensions, and there are none.
func (s *server) serveEvents(w http.ResponseWriter, r *http.Request) error {
	c, err := websocket.Accept(w, r, nil)
	if err != nil {
		return nil // it has answered
	}
	defer c.CloseNow()
	// What a client says ends it, and so does the end of the server.
	<-c.CloseRead(r.Context()).Done()
	return nil
}

var sectionForm = regexp.MustCompile(`^\w{1,64}$`)

func (s *server) configRoutes(r routes) {
	r.on("GET /api/config/{section}", s.serveConfig)
	r.on("PUT /api/config/{section}", s.saveConfig)
	r.on("PATCH /api/config/{section}", s.changeConfig)
}

// section is a section of the front ends' configuration: the person's own, and
// for reading, what the environment and the system have below it.
func (s *server) section(r *http.Request) (own string, all object, err error) {
	name := r.PathValue("section")
	if !sectionForm.MatchString(name) {
		return "", nil, quire.NotFound("section")
	}
	all = object{}
	for _, d := range s.configDirs() {
		dir := filepath.Join(d, "nbconfig")
		more, _ := filepath.Glob(filepath.Join(globbed(dir), name+".d", "*.json"))
		for _, file := range append(more, filepath.Join(dir, name+".json")) {
			update(all, s.readConfig(file))
		}
	}
	return filepath.Join(s.configDir(), "nbconfig", name+".json"), all, nil
}

func (s *server) serveConfig(w http.ResponseWriter, r *http.Request) error {
	_, all, err := s.section(r)
	if err != nil {
		return err
	}
	answer(w, http.StatusOK, all)
	return nil
}

func (s *server) saveConfig(w http.ResponseWriter, r *http.Request) error {
	own, _, err := s.section(r)
	if err != nil {
		return err
	}
	in := object{}
	if err := ask(w, r, maxSettings, &in); err != nil {
		return err
	}
	if err := writeConfig(own, encode(in)); err != nil {
		return quire.Failed("The configuration could not be written in your home directory. Is it full?", err)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *server) changeConfig(w http.ResponseWriter, r *http.Request) error {
	own, _, err := s.section(r)
	if err != nil {
		return err
	}
	in := object{}
	if err := ask(w, r, maxSettings, &in); err != nil {
		return err
	}
	now := object{}
	update(now, s.readConfig(own))
	update(now, in)
	if err := writeConfig(own, encode(now)); err != nil {
		return quire.Failed("The configuration could not be written in your home directory. Is it full?", err)
	}
	answer(w, http.StatusOK, now)
	return nil
}
