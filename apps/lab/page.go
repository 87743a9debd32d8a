package lab

import (
	"crypto/rand"
	"net/http"
	"path"
	"path/filepath"
	"strings"

	"quire"
	"quire/apps/files"
	"quire/web"
)

// useFrontEnd gives the API what the bundle has of settings, themes and notices.
func (s *server) useFrontEnd(f *FrontEnd) {
	s.front, s.themes, s.licenses = f, f.Theme(), f.Licenses()
	s.builtIn = func() ([]plugin, error) {
		list, err := f.Schemas()
		if err != nil {
			return nil, err
		}
		out := make([]plugin, len(list))
		for i, p := range list {
			out[i] = plugin(p)
		}
		return out, nil
	}
}

func (s *server) pageRoutes(r routes) {
	for _, below := range []string{"", "/lab", "/doc"} {
		r.on("GET "+below+"/{$}", s.servePage)
		if below != "" {
			r.on("GET "+below, s.servePage)
		}
		for _, at := range []string{"/tree", "/tree/{path...}", "/workspaces/{workspace}", "/workspaces/{workspace}/tree/{path...}"} {
			r.on("GET "+below+at, s.servePage)
		}
	}
	r.mux.Handle("GET "+s.base+"/static/lab/", http.StripPrefix(s.base+"/static/lab", s.front.Static()))
	r.mux.Handle("GET "+s.base+"/assets/", http.StripPrefix(s.base, web.Assets()))
	r.on("GET /api/quire", func(w http.ResponseWriter, _ *http.Request) error {
		siblings := path.Dir(s.base)
		if siblings == "." {
			siblings = "/"
		}
		answer(w, http.StatusOK, Status{
			Project: Place{Name: s.title}, Environment: Place{Name: s.environment()}, RunsOn: true, Workbench: path.Join(siblings, "workbench") + "/",
		})
		return nil
	})
}

func (s *server) environment() string {
	if s.prefix == "" {
		return ""
	}
	return filepath.Base(s.prefix)
}

// servePage is JupyterLab itself, at whatever place in it the address names.
func (s *server) servePage(w http.ResponseWriter, r *http.Request) error {
	if err := s.front.Missing(); err != nil {
		return err
	}
	c := s.front.Config(s.base)
	for key, value := range s.pageConfig() {
		c[key] = value
	}
	p := r.PathValue("path")
	if p != "" {
		clean, err := files.Clean(strings.Trim(p, "/"))
		if err != nil {
			return quire.NotFound("file")
		}
		p = clean
	}
	c["treePath"] = p
	c["delete_to_trash"] = "false" // so the page says that deleting is for good
	if name := r.PathValue("workspace"); name != "" {
		c["workspace"] = name
	}
	c["federated_extensions"] = s.federated()
	c["quireTitle"] = s.title
	nonce := rand.Text()
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", s.front.Policy(nonce))
	s.warm.greet()
	return s.front.Index(w, Index{Title: s.title + " – JupyterLab", Static: s.base + "/static/lab", Icon: s.base + web.Asset("favicon.svg"), Nonce: nonce, Config: c})
}
