package web

import (
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

// Where a "next" of each kind leads. What a browser could read as another host
// leads home.
func TestSafePath(t *testing.T) {
	for next, want := range map[string]string{
		// Pages of ours.
		"/":                              "/",
		"/alice/data":                    "/alice/data",
		"/alice/data?tab=team":           "/alice/data?tab=team",
		"/alice/data#team":               "/alice/data",
		"/alice/data/":                   "/alice/data/",
		"/alice/p/notebook/My%20Book.x":  "/alice/p/notebook/My%20Book.x",
		"/alice/p/notebook/%C3%A9.ipynb": "/alice/p/notebook/%C3%A9.ipynb",
		"/_x/p":                          "/_x/p",
		"/authorize?label=a&path=%2Fx":   "/authorize?label=a&path=%2Fx",
		"/a;b/c":                         "/a;b/c",
		// Another scheme or host.
		"https://evil": "/", "http:evil": "/", "https:evil.com": "/", "javascript:alert(1)": "/", "JAVASCRIPT:alert(1)": "/", "data:text/html,x": "/", "vbscript:x": "/",
		"//evil": "/", "///evil": "/", "////evil": "/", "//evil/..": "/", "http://portal@evil/": "/", "//user:pw@evil": "/",
		"/\\evil": "/", "\\evil": "/", "\\\\evil": "/", "/\\/evil": "/", "\\/\\/evil": "/", "/a\\..\\..\\evil": "/",
		// What a browser skips or decodes before it looks.
		"/\t/evil": "/", "/\n/evil": "/", "/\r/evil": "/", "\t//evil": "/", " //evil": "/", "/ /evil": "/", "/\x00/evil": "/", "/\u00a0x": "/\u00a0x", "\ufeff//evil": "/",
		"%2f%2fevil": "/", "/%2f%2fevil": "/", "/%2Fevil": "/", "/%5cevil": "/", "/%09/evil": "/", "/%0d%0aSet-Cookie:x": "/", "/a%00b": "/",
		// Dots and double slashes.
		"/.//evil": "/", "/..//evil": "/", "/a/..//evil": "/", "/a/../b": "/", "/./a": "/", "/a/.": "/", "/a//b": "/", "/a/%2e%2e/b": "/", "/%2e%2e": "/",
		"/public/x/..%2f..%2fapi/v1/me": "/",
		// Not pages.
		"/api/v1/me": "/", "/API/v1/me": "/", "": "/", "alice/data": "/", "?x=1": "/", "#x": "/", ".": "/", "/-x": "/", "/.well-known/x": "/", "/@evil": "/", "/%61pi/v1/me": "/",
		// Queries that end an attribute or a header.
		"/a?x=\"><script>": "/", "/a?x='": "/", "/a?\r\nX: y": "/", "/a?x=<": "/",
		// Size and encoding.
		"/" + strings.Repeat("a", 100<<10): "/", "/\xff\xfe": "/",
	} {
		got := SafePath(next)
		if want == "/\u00a0x" { // a space that is none: whatever it becomes stays here
			if !strings.HasPrefix(got, "/") || strings.HasPrefix(got, "//") {
				t.Errorf("%q: %q", next, got)
			}
			continue
		}
		if got != want {
			t.Errorf("%.60q: %q, want %q", next, got, want)
		}
	}
}

func TestNext(t *testing.T) {
	for query, want := range map[string]string{"?next=/a/b": "/a/b", "?next=/a&next=/b": "/", "": "/", "?next=": "/", "?next=%2Fa%2Fb": "/a/b", "?next=%2F%2Fevil": "/"} {
		if got := Next(httptest.NewRequest("GET", "/login"+query, nil)); got != want {
			t.Errorf("%s: %q, want %q", query, got, want)
		}
	}
}

// Whatever comes in, what comes out is a path of this host for every reading of
// it, and stays as it is when read again.
func FuzzSafePath(f *testing.F) {
	for _, s := range []string{"/a", "//evil", "/\\evil", "/a/..//evil", "/%2f", "/a?b=c#d", "javascript:x", "/a\tb", "/é", "https:evil", "/a;//b", "/_%5F"} {
		f.Add(s)
	}
	base, err := url.Parse("http://portal.example/login")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, next string) {
		got := SafePath(next)
		if !strings.HasPrefix(got, "/") || strings.HasPrefix(got, "//") || strings.ContainsAny(got, "\\\r\n\t \x00") {
			t.Fatalf("%q became %q", next, got)
		}
		u, err := base.Parse(got)
		if err != nil || u.Host != "portal.example" || u.Scheme != "http" || u.User != nil {
			t.Fatalf("%q became %q, which leads to %v", next, got, u)
		}
		for part := range strings.SplitSeq(u.Path, "/") {
			if part == ".." || part == "." {
				t.Fatalf("%q became %q, which climbs", next, got)
			}
		}
		if again := SafePath(got); again != got {
			t.Fatalf("%q became %q, then %q", next, got, again)
		}
	})
}
