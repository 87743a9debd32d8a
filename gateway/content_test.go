package gateway

import (
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"quire"
)

// shows is the person's viewer as an app whose content has an origin of its own.
func (p *person) shows() *person {
	p.w.t.Helper()
	r := p.route("viewer", "read")
	r.Content = true
	p.w.routes(r)
	return p
}

// content follows the app's address to where its content is seen.
func (p *person) content(path string) *url.URL {
	p.w.t.Helper()
	resp := p.get(path, "Sec-Fetch-Dest", "iframe", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Site", "same-origin")
	to, err := url.Parse(resp.Header.Get("Location"))
	if resp.StatusCode != http.StatusSeeOther || err != nil || to.Host == p.host() {
		p.w.t.Fatalf("%s: %d to %s", path, resp.StatusCode, to)
	}
	return to
}

func (p *person) fetch(u *url.URL, change ...func(*http.Request)) *http.Response {
	p.w.t.Helper()
	req, err := http.NewRequest("GET", u.String(), nil)
	if err != nil {
		p.w.t.Fatal(err)
	}
	for _, c := range change {
		c(req)
	}
	return p.w.do(req)
}

func TestContentHasAnOriginWithoutCookies(t *testing.T) {
	w := newWorld(t)
	p := w.person().shows().enter()
	w.app.set(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", "default-src 'none'")
		w.Header().Set("Cross-Origin-Opener-Policy", "same-origin")
		w.Header().Add("Set-Cookie", "a=1")
		w.Header().Set("Service-Worker-Allowed", "/viewer/")
		io.WriteString(w, "file "+r.URL.RequestURI())
	})
	to := p.content("/viewer/a%20b.md?raw=1")
	resp := p.fetch(to, func(r *http.Request) { r.Header.Set("Cookie", p.cookie+"; tossed=1") })
	if got := body(resp); got != "file /viewer/a%20b.md?raw=1" {
		t.Fatalf("%d %s", resp.StatusCode, got)
	}
	seen := w.app.request()
	pass, _, _ := strings.Cut(to.Path[1:], "/")
	if seen.Header.Get("X-Forwarded-Prefix") != "/"+pass || seen.Header.Get("Cookie") != "" || seen.Header.Get("X-Quire-User") != "alice" {
		t.Errorf("the app got %v", seen.Header)
	}
	h := resp.Header
	csp := strings.Join(h["Content-Security-Policy"], ", ")
	for _, want := range []string{"default-src 'none'", "sandbox allow-scripts", "frame-ancestors " + p.site().origin} {
		if !strings.Contains(csp, want) {
			t.Errorf("policy %q lacks %q", csp, want)
		}
	}
	if strings.Contains(csp, "allow-same-origin") || strings.Contains(csp, "'self'") || h["Set-Cookie"] != nil || h["Service-Worker-Allowed"] != nil || h.Get("Referrer-Policy") != "no-referrer" {
		t.Errorf("%v", h)
	}
	// The app origin shows none of it, whatever is asked of it there.
	for _, path := range []string{"/viewer/", "/viewer/x?raw=1", "/viewer/_viewer/assets/viewer.js"} {
		p.content(path)
	}
	if resp := w.do(p.request("POST", "/viewer/x", strings.NewReader("x"))); resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("a POST: %d", resp.StatusCode)
	}
	// Another app is not seen there, nor is the app with a way to write.
	for _, c := range []struct {
		what   string
		path   string
		change func(*http.Request)
		status int
	}{
		{"an app with cookies", strings.Replace(to.Path, "/viewer/", "/notebook/", 1), nil, 404},
		{"our own addresses", strings.Replace(to.Path, "/viewer/", "/_quire/frame/", 1), nil, 404},
		{"the hand-off", "/_quire/enter", func(r *http.Request) { r.Method = "POST" }, 404},
		{"a POST", to.Path, func(r *http.Request) { r.Method = "POST" }, 405},
		{"a WebSocket", to.Path, func(r *http.Request) {
			r.Header = http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="}, "Origin": {"http://" + to.Host}}
		}, 400},
		{"no pass", "/viewer/x", nil, 404},
		{"an empty pass", "/~/viewer/x", nil, 404},
		{"a pass and nothing", "/" + pass, nil, 404},
		{"the cookie as a pass", "/~" + strings.SplitN(p.cookie, "=", 2)[1] + "/viewer/x", nil, 401},
		{"a changed pass", "/" + pass[:len(pass)-2] + "AA/viewer/x", nil, 401},
		{"a grant as a pass", "/~" + cookieEncoding.EncodeToString(p.grant()) + "/viewer/x", nil, 401},
		{"the person's cookie and no pass", "/viewer/x", func(r *http.Request) { r.Header.Set("Cookie", p.cookie) }, 404},
	} {
		hits := w.app.hits.Load()
		u := *to
		u.Path, u.RawPath, u.RawQuery = c.path, "", ""
		change := c.change
		if change == nil {
			change = func(*http.Request) {}
		}
		if resp := p.fetch(&u, change); resp.StatusCode != c.status || w.app.hits.Load() != hits || resp.Header["Set-Cookie"] != nil {
			t.Errorf("%s: %d, %d hits, %v", c.what, resp.StatusCode, w.app.hits.Load()-hits, resp.Header["Set-Cookie"])
		}
	}
	// A pass is good for its own label only, and never as a cookie.
	q := w.person().shows().enter()
	other := *to
	other.Host = q.content("/viewer/").Host
	if resp := p.fetch(&other); resp.StatusCode != 401 {
		t.Errorf("another label: %d", resp.StatusCode)
	}
	p.cookie = p.site().app.name + "=" + strings.TrimPrefix(pass, "~")
	if resp := p.get("/notebook/x", "Accept", "application/json"); resp.StatusCode != 401 {
		t.Errorf("a pass as a cookie: %d", resp.StatusCode)
	}
}

func TestPassesEndAndAreRenewed(t *testing.T) {
	w := newWorld(t)
	p := w.person().shows().enter()
	to := p.content("/viewer/x?y=1")
	prefix := func() string { return w.app.request().Header.Get("X-Forwarded-Prefix") }
	pass, _, _ := strings.Cut(to.Path[1:], "/")
	w.shift.Store(int64(2 * time.Minute))
	if resp := p.fetch(to); resp.StatusCode != 200 || prefix() == "/"+pass || !strings.HasPrefix(prefix(), "/~") {
		t.Fatalf("%d; the links' pass is %s", resp.StatusCode, prefix())
	}
	next := *to
	next.Path = prefix() + "/viewer/x"
	w.shift.Store(int64(6 * time.Minute))
	if resp := p.fetch(&next); resp.StatusCode != 200 {
		t.Errorf("the newer pass: %d", resp.StatusCode)
	}
	hits := w.app.hits.Load()
	resp := p.fetch(to, func(r *http.Request) {
		r.Header = http.Header{"Accept": {"text/html"}, "Sec-Fetch-Mode": {"navigate"}, "Sec-Fetch-Dest": {"iframe"}, "Sec-Fetch-Site": {"same-origin"}}
	})
	text := body(resp)
	if resp.StatusCode != 401 || !strings.Contains(text, `data-kind="stale"`) || w.app.hits.Load() != hits {
		t.Errorf("the old pass in a frame: %d %s", resp.StatusCode, text)
	}
	if csp := resp.Header.Get("Content-Security-Policy"); !strings.Contains(csp, "frame-ancestors "+p.site().origin) {
		t.Errorf("policy %s", csp)
	}
	resp = p.fetch(to, func(r *http.Request) {
		r.Header = http.Header{"Accept": {"text/html"}, "Sec-Fetch-Mode": {"navigate"}, "Sec-Fetch-Dest": {"document"}, "Sec-Fetch-Site": {"none"}}
	})
	if got := resp.Header.Get("Location"); got != "http://quire.localhost:8080/alice/demo/viewer/x?y=1" {
		t.Errorf("the old pass in a tab: %d %s", resp.StatusCode, got)
	}
	// Nothing outlives the right.
	fresh := p.content("/viewer/x")
	w.revoke(quire.Revocation{User: p.user, Project: p.projct})
	if resp := p.fetch(fresh); resp.StatusCode != 401 || w.app.hits.Load() != hits {
		t.Errorf("after the revocation: %d", resp.StatusCode)
	}
}

func TestContentOnASharedOrigin(t *testing.T) {
	w := newWorld(t, sharedOrigin)
	p := w.person().shows().enter()
	resp := p.get("/viewer/x")
	to := resp.Header.Get("Location")
	if resp.StatusCode != 303 || !strings.HasPrefix(to, "http://quire.test:8089/~") || !strings.HasSuffix(to, p.prefix()+"/viewer/x") {
		t.Fatalf("%d %s", resp.StatusCode, to)
	}
	u, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	resp = p.fetch(u)
	if got := body(resp); resp.StatusCode != 200 || got != "app "+p.prefix()+"/viewer/x" || !strings.Contains(strings.Join(resp.Header["Content-Security-Policy"], ","), "sandbox allow-scripts allow-forms") {
		t.Errorf("%d %s %v", resp.StatusCode, got, resp.Header)
	}
	u.Path = strings.Replace(u.Path, "/viewer/", "/notebook/", 1)
	if resp := p.fetch(u); resp.StatusCode != 404 {
		t.Errorf("another app with a pass: %d", resp.StatusCode)
	}
	u.Path = strings.Replace(u.Path, string(p.label), string(quire.NewLabel()), 1)
	if resp := p.fetch(u); resp.StatusCode/100 != 4 {
		t.Errorf("another label with a pass: %d", resp.StatusCode)
	}
}

// Visitors bring the grant itself, for a site that is nothing else.
func TestVisitors(t *testing.T) {
	for _, o := range []option{plainHTTP, sharedOrigin} {
		w := newWorld(t, o)
		p := w.person()
		p.label, p.login, p.role = quire.NewLabel(), "", quire.RoleViewer
		r := p.route("visitor", "public")
		r.Content = true
		w.routes(r)
		at := func(pass, app string) *url.URL {
			u, err := url.Parse(p.site().origin + "/~" + pass + p.prefix() + "/" + app + "/x")
			if err != nil {
				t.Fatal(err)
			}
			return u
		}
		grant := cookieEncoding.EncodeToString(p.grant())
		if resp := p.fetch(at(grant, "visitor")); resp.StatusCode != 200 || body(resp) != "app "+p.prefix()+"/visitor/x" {
			t.Fatalf("%d", resp.StatusCode)
		}
		if sealed := w.app.request().Header.Get("X-Forwarded-Prefix"); sealed != "/~"+grant {
			t.Errorf("the links' pass is %s", sealed)
		}
		other := w.person()
		for what, pass := range map[string]string{"another's grant": cookieEncoding.EncodeToString(other.grant()), "a cut grant": grant[:len(grant)-4], "nothing": "x"} {
			if resp := p.fetch(at(pass, "visitor")); resp.StatusCode != 401 {
				t.Errorf("%s: %d", what, resp.StatusCode)
			}
		}
		// No cookie is ever given out there, and none is taken.
		resp := p.page("/visitor/x")
		if resp.StatusCode == 200 || resp.Header["Set-Cookie"] != nil && p.prefix() == "" {
			t.Errorf("without a pass: %d %v", resp.StatusCode, resp.Header)
		}
		// Five minutes later the portal leads there again.
		w.shift.Store(int64(6 * time.Minute))
		resp = p.fetch(at(grant, "visitor"), func(r *http.Request) {
			r.Header = http.Header{"Accept": {"text/html"}, "Sec-Fetch-Mode": {"navigate"}, "Sec-Fetch-Dest": {"document"}, "Sec-Fetch-Site": {"none"}}
		})
		if got := resp.Header.Get("Location"); resp.StatusCode != 303 || !strings.HasSuffix(got, ":8080/alice/demo/public/x") {
			t.Errorf("later: %d %s", resp.StatusCode, got)
		}
		w.shift.Store(0)
		w.revoke(quire.Revocation{Project: p.projct})
		if resp := p.fetch(at(grant, "visitor")); resp.StatusCode != 401 {
			t.Errorf("after the end of the project: %d", resp.StatusCode)
		}
	}
}
