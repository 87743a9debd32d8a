package gateway

import (
	"net/http"
	"strings"
	"testing"
)

// TestOwnPage is the rule about where a request with our cookie may come from,
// in every combination (S-20, S-21, W-02, W-03, W-04, W-05).
func TestOwnPage(t *testing.T) {
	w := newWorld(t)
	p := w.person().enter()
	own := p.site().origin
	sibling := w.person().site().origin
	origins := map[string][]string{
		"none": nil, "own": {own}, "null": {"null"}, "sibling": {sibling}, "portal": {w.origins.Portal()}, "https": {"https" + own[4:]},
		"port": {own[:len(own)-1] + "0"}, "no port": {own[:len(own)-5]}, "suffix": {own + ".evil.test"}, "prefix": {"http://evil" + own[7:]}, "upper": {"HTTP" + own[4:]},
		"dot": {own[:len(own)-5] + ".:8089"}, "slash": {own + "/"}, "two": {own, own}, "list": {own + ", " + own}, "empty": {""},
		"any for a dot": {strings.Replace(own, ".", "x", 1)}, "star": {"http://*.apps.localhost:8089"}, "path": {own + "/x"}, "user": {"http://evil.test@" + own[7:]},
	}
	for _, method := range []string{"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"} {
		for _, site := range []string{"", "same-origin", "none", "same-site", "cross-site", "Same-Origin", "same-origin, same-origin"} {
			for _, mode := range []string{"", "document", "iframe", "empty", "nocors"} {
				for name, origin := range origins {
					for _, upgrade := range []bool{false, true} {
						if upgrade && method != "GET" {
							continue
						}
						h := http.Header{}
						if origin != nil {
							h["Origin"] = origin
						}
						if site != "" {
							h.Set("Sec-Fetch-Site", site)
						}
						switch mode {
						case "document", "iframe":
							h.Set("Sec-Fetch-Mode", "navigate")
							h.Set("Sec-Fetch-Dest", mode)
						case "empty":
							h.Set("Sec-Fetch-Mode", "cors")
							h.Set("Sec-Fetch-Dest", "empty")
						case "nocors":
							h.Set("Sec-Fetch-Mode", "no-cors")
							h.Set("Sec-Fetch-Dest", "image")
						}
						got := p.site().ownPage(&http.Request{Method: method, Header: h}, upgrade)
						if want := ownPageAsWritten(method, site, mode, name, upgrade); got != want {
							t.Errorf("%s Sec-Fetch-Site=%q %s Origin=%s upgrade=%v: %v", method, site, mode, name, upgrade, got)
						}
					}
				}
			}
		}
	}
}

// ownPageAsWritten says the rule a second time, in the words it was given in.
func ownPageAsWritten(method, site, mode, origin string, upgrade bool) bool {
	if upgrade && origin != "own" {
		return false // Origin is checked on every upgrade
	}
	if site == "" {
		if method != "GET" || upgrade {
			return origin == "own" // Origin must equal ours on every non-GET and upgrade
		}
		return origin == "own" || origin == "none" // a GET with a foreign Origin is a foreign script's
	}
	if site == "same-origin" || site == "none" {
		return origin == "own" || origin == "none" // the two headers must not contradict
	}
	return method == "GET" && mode == "document" && !upgrade && origin != "two" // a top-level GET document navigation
}

// TestCrossLabel sends the same through the gateway: what is refused never
// reaches the app, and an odd header does not help.
func TestCrossLabel(t *testing.T) {
	modes(t, func(t *testing.T, w *world) {
		p, q := w.person().enter(), w.person().enter()
		from := p.site().origin
		if p.prefix() != "" {
			from = "http://evil.test" // on a shared origin the labels are one origin, which is what its label says
		}
		for name, h := range map[string][]string{
			"a form of a sibling":    {"POST", "Origin", from, "Sec-Fetch-Site", "same-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document"},
			"a script of a sibling":  {"POST", "Origin", from, "Sec-Fetch-Site", "same-site", "Sec-Fetch-Mode", "no-cors", "Sec-Fetch-Dest", "empty"},
			"an image of a sibling":  {"GET", "Sec-Fetch-Site", "same-site", "Sec-Fetch-Mode", "no-cors", "Sec-Fetch-Dest", "image"},
			"a frame of a sibling":   {"GET", "Sec-Fetch-Site", "same-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "iframe"},
			"a fetch of a sibling":   {"GET", "Origin", from, "Sec-Fetch-Site", "same-site", "Sec-Fetch-Mode", "cors", "Sec-Fetch-Dest", "empty"},
			"another site":           {"GET", "Origin", "https://evil.test", "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "cors", "Sec-Fetch-Dest", "empty"},
			"forged, foreign Origin": {"POST", "Origin", "https://evil.test", "Sec-Fetch-Site", "same-origin"},
			"old browser, form":      {"POST", "Origin", "null"},
			"old browser, no Origin": {"POST"},
			"two Sec-Fetch-Site":     {"GET", "Sec-Fetch-Site", "same-origin", "Sec-Fetch-Site", "cross-site"},
			"delete":                 {"DELETE", "Origin", from, "Sec-Fetch-Site", "same-site"},
		} {
			before := w.app.hits.Load()
			req := q.request(h[0], "/notebook/api", nil)
			req.Header.Del("Origin")
			for i := 1; i+1 < len(h); i += 2 {
				req.Header[h[i]] = append(req.Header[h[i]], h[i+1])
			}
			if resp := w.do(req); resp.StatusCode != http.StatusForbidden || w.app.hits.Load() != before {
				t.Errorf("%s: %d, the app was asked %d times", name, resp.StatusCode, w.app.hits.Load()-before)
			}
		}
		// A person following a link gets the bar, a person's own pages the app.
		resp := q.get("/notebook/tree?x=1", "Sec-Fetch-Site", "same-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document")
		if want := q.prefix() + "/_quire/frame?path=%2Fnotebook%2Ftree%3Fx%3D1"; resp.Header.Get("Location") != want {
			t.Errorf("a link from elsewhere: %d %s", resp.StatusCode, resp.Header.Get("Location"))
		}
		for _, site := range []string{"same-origin", "none"} {
			if resp := q.get("/notebook/", "Sec-Fetch-Site", site, "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document"); resp.StatusCode != 200 {
				t.Errorf("%s: %d", site, resp.StatusCode)
			}
		}
		if resp := q.get("/notebook/", "Sec-Fetch-Site", "same-origin", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "iframe"); resp.StatusCode != 200 {
			t.Errorf("in our own frame: %d", resp.StatusCode)
		}
		if resp := w.do(q.request("POST", "/notebook/api", nil)); resp.StatusCode != 200 {
			t.Errorf("our own page's POST: %d", resp.StatusCode)
		}
		// Another person's cookie is no key to this label, whatever it is called.
		req := q.request("GET", "/notebook/", nil)
		req.Header.Set("Cookie", q.site().app.name+"="+p.cookie[len(p.site().app.name)+1:])
		if resp := w.do(req); resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("a cookie of another label: %d", resp.StatusCode)
		}
	})
}
