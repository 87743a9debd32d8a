package web

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/fstest"
)

func testBundle() *bundle {
	return newBundle(fstest.MapFS{
		"manifest.json":           {Data: []byte(`{"portal.css":"portal-ABCDEFGH.css","portal.js":"portal-12345678.js"}`)},
		"portal-ABCDEFGH.css":     {Data: []byte("body{}")},
		"portal-ABCDEFGH.css.gz":  {Data: []byte("zipped")},
		"portal-12345678.js":      {Data: []byte("let x")},
		"NOTICES.txt":             {Data: []byte("notices")},
		"placeholder.txt":         {Data: []byte("x")},
		"sub/secret-12345678.txt": {Data: []byte("x")},
		".hidden":                 {Data: []byte("x")},
	})
}

func fetch(b *bundle, path string, headers ...string) *httptest.ResponseRecorder {
	h := Adapt(nil, func(w http.ResponseWriter, r *http.Request) error { return b.serve(w, r) })
	r := httptest.NewRequest("GET", "/assets/x", nil)
	r.URL.Path = path
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestAssets(t *testing.T) {
	b := testBundle()
	if b.file("app.css") != "portal-ABCDEFGH.css" || b.file("portal.js") != "portal-12345678.js" || b.file("nothing.js") != "nothing.js" {
		t.Error("names")
	}
	w := fetch(b, "/assets/portal-ABCDEFGH.css", "Accept-Encoding", "br, gzip;q=0.8")
	etag := w.Header().Get("Etag")
	if w.Code != 200 || w.Body.String() != "zipped" || w.Header().Get("Content-Encoding") != "gzip" || !strings.Contains(w.Header().Get("Cache-Control"), "immutable") ||
		!strings.HasPrefix(w.Header().Get("Content-Type"), "text/css") || etag == "" || w.Header().Get("Vary") != "Accept-Encoding" {
		t.Errorf("%d %q %v", w.Code, w.Body, w.Header())
	}
	if w := fetch(b, "/assets/portal-ABCDEFGH.css", "Accept-Encoding", "gzip", "If-None-Match", `"x", W/`+etag); w.Code != 304 || w.Body.Len() != 0 {
		t.Errorf("again: %d", w.Code)
	}
	for _, no := range []string{"", "br", "gzip;q=0", "xgzip"} {
		if w := fetch(b, "/assets/portal-ABCDEFGH.css", "Accept-Encoding", no, "If-None-Match", etag); w.Code != 200 || w.Body.String() != "body{}" {
			t.Errorf("%q: %d %q", no, w.Code, w.Body)
		}
	}
	if w := fetch(b, "/assets/NOTICES.txt"); w.Code != 200 || w.Header().Get("Cache-Control") != "no-cache" {
		t.Errorf("without a hash: %d %v", w.Code, w.Header())
	}
}

func TestAssetsOnly(t *testing.T) {
	b := testBundle()
	for _, path := range []string{"/assets/", "/assets/manifest.json", "/assets/placeholder.txt", "/assets/portal-ABCDEFGH.css.gz", "/assets/../adapt.go", "/assets/..%2fadapt.go", "/assets/sub/secret-12345678.txt",
		"/assets//portal-ABCDEFGH.css", "/assets/.hidden", "/assets/..", "/assets/portal-ABCDEFGH.css/", "/assets/nothing.js", "/assets/a\x00.js", "/other/portal-ABCDEFGH.css", "/assets/\\..\\adapt.go"} {
		if w := fetch(b, path); w.Code != 404 {
			t.Errorf("%q: %d", path, w.Code)
		}
	}
	r := httptest.NewRequest("POST", "/assets/portal-ABCDEFGH.css", nil)
	w := httptest.NewRecorder()
	Assets().ServeHTTP(w, r)
	if w.Code != 405 || w.Header().Get("Allow") == "" {
		t.Errorf("POST: %d", w.Code)
	}
}

func TestMarkdown(t *testing.T) {
	for text, want := range map[string]string{
		"# Hi *there*":                     "<h1>Hi <em>there</em></h1>",
		"[a](https://example.org)":         `href="https://example.org"`,
		"[a](/owner/p)":                    `<a href="/owner/p" rel="nofollow">a</a>`,
		"| a |\n|---|\n| b |":              "<td>b</td>",
		"```python\nprint(1)\n```":         "<pre><code>print(1)",
		"<script>alert(1)</script>":        "",
		"<b onclick=x>b</b>":               "b",
		"[x](javascript:alert(1))":         "x",
		"[x](JaVaScRiPt:alert(1))":         "x",
		"[x](data:text/html,<script>)":     "x",
		"![x](https://evil/x.gif)":         "",
		"<https://example.org/?a=b&c=\">":  "",
		"<img src=x onerror=alert(1)>":     "",
		"<svg/onload=alert(1)>":            "",
		"[x](https://e \"onmouseover=a\")": "x",
	} {
		got := string(Markdown(text))
		if !strings.Contains(got, want) {
			t.Errorf("%q: %q lacks %q", text, got, want)
		}
		for _, bad := range []string{"<script", "onclick=", "onerror=", "javascript:", "JaVaScRiPt:", "data:text", "<img", "<svg"} {
			if strings.Contains(got, bad) {
				t.Errorf("%q: %q contains %q", text, got, bad)
			}
		}
	}
}

func FuzzMarkdown(f *testing.F) {
	for _, s := range []string{"# a", "<script>x</script>", "[a](javascript:b)", "<a href='javascript:x'>", "`<b>`", "![](x)", "&lt;script&gt;", "[a]: javascript:x\n[a]", "<IMG SRC=x>"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got := strings.ToLower(string(Markdown(text)))
		for _, bad := range []string{"<script", "<img", "<iframe", "<svg", "<style", "<form", "<object", `href="javascript:`, `href="data:`} {
			if strings.Contains(got, bad) {
				t.Fatalf("%q became %q", text, got)
			}
		}
	})
}

func TestPages(t *testing.T) {
	files := fstest.MapFS{
		"layout.html": {Data: []byte(`<title>{{.Title}}</title>{{template "main" .}}`)},
		"_part.html":  {Data: []byte(`{{define "part"}}[{{.}}]{{end}}`)},
		"one.html":    {Data: []byte(`{{define "main"}}one {{template "part" .Title}}{{end}}`)},
		"two.html":    {Data: []byte(`{{define "main"}}two {{shout .Title}} {{.Missing}}{{end}}`)},
	}
	p, err := NewPages(files, map[string]any{"shout": strings.ToUpper})
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	if err := p.Render(w, 418, "one", map[string]string{"Title": "<x>"}); err != nil || w.Code != 418 || w.Body.String() != "<title>&lt;x&gt;</title>one [&lt;x&gt;]" {
		t.Errorf("%v %d %s", err, w.Code, w.Body)
	}
	w = httptest.NewRecorder()
	if err := p.Render(w, 200, "two", map[string]string{"Title": "x"}); err == nil || w.Body.Len() != 0 {
		t.Errorf("a page that cannot be made was begun: %v %s", err, w.Body)
	}
	if err := p.Render(w, 200, "three", nil); err == nil {
		t.Error("there is no page three")
	}
	if s, err := p.Fragment("one", "part", "&"); err != nil || s != "[&amp;]" {
		t.Errorf("%q %v", s, err)
	}
	if _, err := p.Fragment("one", "nothing", nil); err == nil {
		t.Error("there is no such part")
	}
	if _, err := NewPages(fstest.MapFS{"bad.html": {Data: []byte("{{")}}, nil); err == nil {
		t.Error("a page that does not parse")
	}
}
