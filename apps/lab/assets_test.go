package lab

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/fstest"

	"quire"
)

func packed(t *testing.T, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// made is a front end of a few bytes, so that these tests need no build.
func made(t *testing.T) *FrontEnd {
	t.Helper()
	file := func(b []byte) *fstest.MapFile { return &fstest.MapFile{Data: b} }
	return readFrontEnd(fstest.MapFS{
		"manifest.json": file([]byte(`{"version":"4.6.4","entry":"lab-AAAAAAAA.js","styles":["lab-BBBBBBBB.css"],"preload":["chunk-CCCCCCCC.js"],
			"files":{"static/lab-AAAAAAAA.js":{"digest":"D","size":6,"packed":true},"static/f-DDDDDDDD.woff2":{"digest":"F","size":4},
			"themes/@a/b/index.css":{"digest":"T","size":1},"licenses.json":{"digest":"L","size":2},"NOTICES.txt":{"digest":"N","size":3}}}`)),
		"schemas.json":               file([]byte(`[{"id":"@a/b:c","version":"1","schema":{"title":"C"}}]`)),
		"static/lab-AAAAAAAA.js.gz":  file(packed(t, "script")),
		"static/lab-AAAAAAAA.js.br":  file([]byte("brotli")),
		"static/f-DDDDDDDD.woff2":    file([]byte("font")),
		"static/secret-EEEEEEEE.txt": file([]byte("not in the manifest")),
		"themes/@a/b/index.css":      file([]byte("a")),
		"licenses.json":              file([]byte("{}")),
		"NOTICES.txt":                file([]byte("MIT")),
	})
}

func TestAssets(t *testing.T) {
	f := made(t)
	const forever, asked = "public, max-age=31536000, immutable", "no-cache"
	for _, c := range []struct {
		name           string
		h              http.Handler
		method, path   string
		accept, has    string
		status         int
		body, encoding string
		kind, keep     string
	}{
		{name: "brotli", h: f.Static(), path: "/lab-AAAAAAAA.js", accept: "gzip, deflate, br", status: 200, body: "brotli", encoding: "br", kind: "text/javascript; charset=utf-8", keep: forever},
		{name: "gzip", h: f.Static(), path: "/lab-AAAAAAAA.js", accept: "gzip, br;q=0", status: 200, body: string(packed(t, "script")), encoding: "gzip", kind: "text/javascript; charset=utf-8", keep: forever},
		{name: "neither", h: f.Static(), path: "/lab-AAAAAAAA.js", status: 200, body: "script", kind: "text/javascript; charset=utf-8", keep: forever},
		{name: "head", h: f.Static(), method: "HEAD", path: "/lab-AAAAAAAA.js", status: 200, kind: "text/javascript; charset=utf-8", keep: forever},
		{name: "known", h: f.Static(), path: "/lab-AAAAAAAA.js", accept: "br", has: `"Dbr"`, status: 304, keep: forever, kind: "text/javascript; charset=utf-8"},
		{name: "known otherwise", h: f.Static(), path: "/lab-AAAAAAAA.js", accept: "gzip", has: `"Dbr"`, status: 200, body: string(packed(t, "script")), encoding: "gzip", keep: forever, kind: "text/javascript; charset=utf-8"},
		{name: "font", h: f.Static(), path: "/f-DDDDDDDD.woff2", accept: "br", status: 200, body: "font", kind: "font/woff2", keep: forever},
		{name: "the packed name", h: f.Static(), path: "/lab-AAAAAAAA.js.gz", status: 404},
		{name: "not in the manifest", h: f.Static(), path: "/secret-EEEEEEEE.txt", status: 404},
		{name: "another directory", h: f.Static(), path: "/../manifest.json", status: 404},
		{name: "a directory", h: f.Static(), path: "/", status: 404},
		{name: "written to", h: f.Static(), method: "POST", path: "/lab-AAAAAAAA.js", status: 405},
		{name: "theme", h: f.Theme(), path: "/@a/b/index.css", status: 200, body: "a", kind: "text/css; charset=utf-8", keep: asked},
		{name: "no theme", h: f.Theme(), path: "/@a/c/index.css", status: 404},
		{name: "licenses", h: f.Licenses(), path: "/", status: 200, body: "{}", kind: "application/json", keep: asked},
		{name: "licenses as text", h: f.Licenses(), path: "/?format=markdown&download=1", status: 200, body: "MIT", kind: "text/plain; charset=utf-8", keep: asked},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.method == "" {
				c.method = "GET"
			}
			r := httptest.NewRequest(c.method, "http://x"+c.path, nil)
			r.Header.Set("Accept-Encoding", c.accept)
			if c.has != "" {
				r.Header.Set("If-None-Match", c.has)
			}
			w := httptest.NewRecorder()
			c.h.ServeHTTP(w, r)
			h := w.Header()
			if w.Code != c.status {
				t.Fatalf("status %d: %s", w.Code, w.Body)
			}
			if w.Code >= 400 {
				return
			}
			if w.Body.String() != c.body || h.Get("Content-Encoding") != c.encoding || h.Get("Content-Type") != c.kind || h.Get("Cache-Control") != c.keep || h.Get("Etag") == "" {
				t.Errorf("%q, %v", w.Body, h)
			}
			if h.Get("X-Content-Type-Options") != "nosniff" {
				t.Error("a browser may guess the type")
			}
		})
	}
	if schemas, err := f.Schemas(); err != nil || len(schemas) != 1 || schemas[0].ID != "@a/b:c" || string(schemas[0].Schema) != `{"title":"C"}` {
		t.Errorf("%v, %v", schemas, err)
	}
}

func TestIndexHoldsWhatItIsGiven(t *testing.T) {
	f := made(t)
	c := f.Config("/lab")
	c["treePath"] = `</script><script>alert(1)</script>`
	var page strings.Builder
	if err := f.Index(&page, Index{Title: "A <b>", Static: "/lab/static/lab", Icon: "/lab/i.svg", Nonce: `n"><x`, Config: c}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`<script type="module" nonce="n&#34;&gt;&lt;x" src="/lab/static/lab/lab-AAAAAAAA.js"></script>`, `href="/lab/static/lab/lab-BBBBBBBB.css"`,
		`href="/lab/static/lab/chunk-CCCCCCCC.js"`, `<title>A &lt;b&gt;</title>`, `"fullSettingsUrl":"/lab/lab/api/settings"`,
	} {
		if !strings.Contains(page.String(), want) {
			t.Errorf("the page lacks %s:\n%s", want, page.String())
		}
	}
	if strings.Contains(page.String(), "<script>alert") {
		t.Errorf("a path became markup:\n%s", page.String())
	}
}

// A binary without the front end says so, and in the checkout nothing else breaks.
func TestWithoutTheFrontEnd(t *testing.T) {
	f := readFrontEnd(fstest.MapFS{"placeholder.txt": &fstest.MapFile{}})
	for _, h := range []http.Handler{f.Static(), f.Theme(), f.Licenses()} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", "http://x/lab-AAAAAAAA.js", nil))
		if w.Code != http.StatusServiceUnavailable {
			t.Errorf("status %d: %s", w.Code, w.Body)
		}
	}
	_, err := f.Schemas()
	for _, err := range []error{err, f.Missing(), f.Index(io.Discard, Index{})} {
		if quire.KindOf(err) != quire.KindUnavailable || !strings.Contains(quire.AsError(err).Message, "go run ./build") {
			t.Errorf("%v", err)
		}
	}
}
