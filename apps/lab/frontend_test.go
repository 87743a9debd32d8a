package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// The front end is used in a real browser, on the server as it runs: launcher,
// notebook, trust, settings, terminal, licenses, prebuilt extensions. What is
// looked for stands in testdata/tour.mjs.
func TestFrontEndInABrowser(t *testing.T) {
	if _, err := os.ReadFile("testdata/tour.mjs"); err != nil { // so that a kept result is not older than it
		t.Fatal(err)
	}
	// make test builds both; who runs this alone in a fresh clone is told.
	built, widgets := "", "../../bin/labextensions"
	if err := BuiltIn().Missing(); err != nil {
		built = "the front end: go run ./build"
	} else if _, err := os.Stat(widgets); err != nil {
		built = "the extension: go run ./build -extension"
	}
	if built != "" {
		if os.Getenv("CI") != "" {
			t.Fatal("Build " + built)
		}
		t.Log("Nothing is tested. Build " + built)
		return
	}
	var env string
	c := newClient(t, func(c *config) {
		env = filepath.Join(filepath.Dir(c.project), "env")
		c.prefix = env
	})
	withKernels(t, c)
	config := filepath.Join(env, "etc/jupyter/labconfig")
	if err := os.MkdirAll(config, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(config, "page_config.json"), []byte(`{"exposeAppInBrowser": true, "disabledExtensions": {"hello:off": true}}`), 0o644); err != nil {
		t.Fatal(err)
	}

	// A browser knows no unix sockets. What the server cannot know of the portal is
	// answered here.
	to, err := url.Parse("http://app")
	if err != nil {
		t.Fatal(err)
	}
	way := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", c.socket)
	}}
	defer way.CloseIdleConnections()
	proxy := &httputil.ReverseProxy{Transport: way, Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to); r.Out.Host = r.In.Host }}
	mux := http.NewServeMux()
	mux.Handle("/", proxy)
	mux.HandleFunc("GET /p/lab/api/quire", func(w http.ResponseWriter, r *http.Request) {
		portal := "http://" + r.Host + "/portal/ada/welcome"
		w.Header().Set("Content-Type", "application/json")
		err := json.NewEncoder(w).Encode(Status{
			Project: Place{"ada/welcome", portal}, Environment: Place{"base", portal + "/environments"}, Stop: portal + "/sessions", People: []string{"Grace"}, RunsOn: true,
			Notices: []Announcement{{ID: "1", Text: "The machines are restarted on Sunday."}, {ID: "2", Text: "Not a link", URL: "javascript:alert(1)"}}, Workbench: "/p/workbench/",
		})
		if err != nil {
			t.Error(err)
		}
	})
	mux.HandleFunc("GET /frame", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprintf(w, `<body data-manage="http://%s/portal/ada/engine"><iframe src="/p/lab/workspaces/framed" width="1400" height="800"></iframe>`, r.Host)
	})
	site := httptest.NewServer(mux)
	defer site.Close()

	tour := exec.Command("node", "testdata/tour.mjs", site.URL, c.project, env, widgets)
	tour.Stdout, tour.Stderr = os.Stderr, os.Stderr
	if err := tour.Run(); err != nil {
		t.Fatalf("the tour ended with %v", err)
	}
}
