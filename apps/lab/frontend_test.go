package lab

import (
	"crypto/rand"
	"encoding/json"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// The front end is seen in a real browser with a real Jupyter behind it: Debian's
// own server has the part of the API that front ends of every age use, and the
// few answers that are younger than it are given here.
func TestFrontEndInABrowser(t *testing.T) {
	f := BuiltIn()
	if err := f.Missing(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	jupyter := startJupyter(t, dir)
	mux := http.NewServeMux()
	mux.Handle("/lab/api/", jupyter)
	mux.Handle("/lab/terminals/", jupyter)
	mux.Handle("/lab/kernelspecs/", jupyter)
	mux.Handle("/lab/files/", jupyter)
	mux.Handle("/lab/static/lab/", http.StripPrefix("/lab/static/lab", f.Static()))
	mux.Handle("/lab/lab/api/themes/", http.StripPrefix("/lab/lab/api/themes", f.Theme()))
	mux.Handle("/lab/lab/api/licenses/", f.Licenses())
	mux.Handle("/lab/lab/extensions/", http.StripPrefix("/lab/lab/extensions/", http.FileServer(http.Dir("testdata/labextensions"))))
	saved := map[string]json.RawMessage{}
	say := func(pattern string, answer func(r *http.Request) any) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			if err := json.NewEncoder(w).Encode(answer(r)); err != nil {
				t.Error(err)
			}
		})
	}
	say("GET /lab/api/me", func(*http.Request) any {
		return map[string]any{"identity": map[string]string{"username": "ada", "name": "Ada", "display_name": "Ada", "initials": "A"}, "permissions": map[string]any{}}
	})
	say("GET /lab/api/quire", func(r *http.Request) any {
		portal := "http://" + r.Host + "/portal/ada/welcome"
		return Status{
			Project: Place{"ada/welcome", portal}, Environment: Place{"base", portal + "/environments"}, Stop: portal + "/sessions", People: []string{"Grace"}, RunsOn: true,
			Notices: []Announcement{{ID: "1", Text: "The machines are restarted on Sunday."}, {ID: "2", Text: "Not a link", URL: "javascript:alert(1)"}}, Workbench: "/workbench/",
		}
	})
	schemas, err := f.Schemas()
	if err != nil {
		t.Fatal(err)
	}
	settings := map[string]map[string]any{}
	for _, s := range schemas {
		settings[s.ID] = map[string]any{"id": s.ID, "schema": s.Schema, "version": s.Version, "raw": "{}", "settings": map[string]any{}, "last_modified": nil, "created": nil}
	}
	say("GET /lab/lab/api/settings", func(*http.Request) any { return map[string]any{"settings": slices.Collect(maps.Values(settings))} })
	say("GET /lab/lab/api/settings/{id...}", func(r *http.Request) any { return settings[r.PathValue("id")] })
	mux.HandleFunc("PUT /lab/lab/api/settings/{id...}", func(w http.ResponseWriter, r *http.Request) {
		var v struct{ Raw string }
		if err := json.NewDecoder(r.Body).Decode(&v); err != nil {
			t.Error(err)
		}
		settings[r.PathValue("id")]["raw"] = v.Raw
		w.WriteHeader(http.StatusNoContent)
	})
	say("GET /lab/lab/api/translations/{locale}", func(*http.Request) any { return map[string]any{"data": map[string]any{}, "message": ""} })
	say("GET /lab/lab/api/translations", func(*http.Request) any { return map[string]any{"data": map[string]any{}, "message": ""} })
	say("GET /lab/lab/api/workspaces", func(*http.Request) any {
		return map[string]any{"workspaces": map[string]any{"ids": []string{}, "values": []any{}}}
	})
	say("GET /lab/lab/api/workspaces/{id}", func(r *http.Request) any {
		id := r.PathValue("id")
		if saved[id] == nil {
			return map[string]any{"data": map[string]any{}, "metadata": map[string]string{"id": id}}
		}
		return saved[id]
	})
	mux.HandleFunc("PUT /lab/lab/api/workspaces/{id}", func(w http.ResponseWriter, r *http.Request) {
		var v json.RawMessage
		if err := json.NewDecoder(r.Body).Decode(&v); err != nil {
			t.Error(err)
		}
		saved[r.PathValue("id")] = v
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("GET /lab/api/events/subscribe", func(w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) })
	mux.HandleFunc("GET /favicon.ico", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusNoContent) })
	index := func(w http.ResponseWriter, r *http.Request) {
		c := f.Config("/lab")
		c["treePath"] = r.PathValue("path")
		c["exposeAppInBrowser"] = true
		c["preferredPath"] = "/"
		if name := r.URL.Query().Get("extensions"); name != "" {
			c["workspace"] = name // what other parts of the tour left open is not opened here
			c["federated_extensions"] = []map[string]string{
				{"name": "missing", "load": "static/remoteEntry.js", "extension": "./extension"},
				{"name": "hello", "load": "static/remoteEntry.js", "extension": "./extension", "mimeExtension": "./mime"},
			}
			c["disabledExtensions"] = []string{"hello:off"}
		}
		nonce := rand.Text()
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", f.Policy(nonce))
		if err := f.Index(w, Index{Title: "JupyterLab", Static: "/lab/static/lab", Icon: "/favicon.ico", Nonce: nonce, Config: c}); err != nil {
			t.Error(err)
		}
	}
	mux.HandleFunc("GET /lab/{$}", index)
	mux.HandleFunc("GET /lab/tree/{path...}", index)
	var mu sync.Mutex // of what the handlers above remember
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/lab/lab/") {
			mu.Lock()
			defer mu.Unlock()
		}
		mux.ServeHTTP(w, r)
	}))
	defer site.Close()

	tour := exec.Command("node", "testdata/tour.mjs", site.URL, dir)
	tour.Stdout, tour.Stderr = os.Stderr, os.Stderr
	if err := tour.Run(); err != nil {
		t.Fatalf("the tour ended with %v", err)
	}
}

// startJupyter runs Debian's server below /lab on a socket of its own, with dir as
// its root, and returns the way to it.
func startJupyter(t *testing.T, dir string) http.Handler {
	t.Helper()
	home := t.TempDir()
	socket := filepath.Join(home, "s")
	cmd := exec.Command("/usr/bin/python3", "-m", "notebook", "--no-browser", "--allow-root", "--sock="+socket, "--NotebookApp.base_url=/lab/", "--NotebookApp.token=",
		"--NotebookApp.password=", "--NotebookApp.disable_check_xsrf=True", "--NotebookApp.allow_origin=*", "--notebook-dir="+dir)
	cmd.Env = append(os.Environ(), "HOME="+home, "JUPYTER_RUNTIME_DIR="+filepath.Join(home, "run"), "JUPYTER_CONFIG_DIR="+filepath.Join(home, "config"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		cmd.Wait()
	})
	dial := func() (net.Conn, error) { return net.DialTimeout("unix", socket, time.Second) }
	end := time.Now().Add(time.Minute)
	for {
		c, err := dial()
		if err == nil {
			c.Close()
			break
		}
		if time.Now().After(end) {
			t.Fatalf("Jupyter does not listen: %v\n%s", err, said.String())
		}
		wait, stop := time.NewTimer(20*time.Millisecond), t.Context().Done()
		select {
		case <-wait.C:
		case <-stop:
			t.Fatal("stopped")
		}
	}
	tr := &http.Transport{Dial: func(string, string) (net.Conn, error) { return dial() }}
	t.Cleanup(tr.CloseIdleConnections)
	to, err := url.Parse("http://localhost")
	if err != nil {
		t.Fatal(err)
	}
	return &httputil.ReverseProxy{Transport: tr, Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to); r.Out.Host = r.In.Host }}
}
