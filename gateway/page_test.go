package gateway

import (
	"bufio"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"quire"
)

// TestFourAnswers: without a grant a page leads to the portal, a program gets
// JSON, a socket an end, an asset a line.
func TestFourAnswers(t *testing.T) {
	modes(t, func(t *testing.T, w *world) {
		p := w.person()
		for name, c := range map[string]struct {
			method string
			header []string
			status int
			kind   string
			has    string
		}{
			"page":          {"GET", []string{"Accept", "text/html,*/*", "Sec-Fetch-Dest", "document", "Sec-Fetch-Mode", "navigate"}, 303, "", ""},
			"old browser":   {"GET", []string{"Accept", "text/html,*/*"}, 303, "", ""},
			"in the frame":  {"GET", []string{"Accept", "text/html", "Sec-Fetch-Dest", "iframe", "Sec-Fetch-Mode", "navigate"}, 401, "text/html; charset=utf-8", `target="_top"`},
			"a form":        {"POST", []string{"Accept", "text/html", "Sec-Fetch-Dest", "document", "Sec-Fetch-Mode", "navigate"}, 401, "text/html; charset=utf-8", "signed out"},
			"fetch":         {"GET", []string{"Sec-Fetch-Dest", "empty"}, 401, "application/json", `"unknown_user"`},
			"curl":          {"GET", []string{"Accept", "*/*"}, 401, "application/json", `"unknown_user"`},
			"API post":      {"POST", []string{"Content-Type", "application/json"}, 401, "application/json", `"unknown_user"`},
			"script":        {"GET", []string{"Sec-Fetch-Dest", "script"}, 401, "text/plain; charset=utf-8", "Sign in"},
			"image":         {"GET", []string{"Accept", "image/avif,image/webp"}, 401, "text/plain; charset=utf-8", "Sign in"},
			"a wrong token": {"GET", []string{"Authorization", "token " + p.nonce}, 401, "application/json", ""},
		} {
			req := p.request(c.method, "/notebook/x?token=1&access_token=2&jwt=3", nil)
			for i := 0; i+1 < len(c.header); i += 2 {
				req.Header.Set(c.header[i], c.header[i+1])
			}
			resp := w.do(req)
			text := body(resp)
			if resp.StatusCode != c.status || c.kind != "" && resp.Header.Get("Content-Type") != c.kind || !strings.Contains(text, c.has) || resp.Header.Get("Cache-Control") != "no-store" {
				t.Errorf("%s: %d %s %s", name, resp.StatusCode, resp.Header.Get("Content-Type"), text)
			}
			if strings.Contains(text, "alice") || strings.Contains(text, "demo") {
				t.Errorf("%s: a stranger learns the project's name", name)
			}
		}
		_, _, resp := p.open("/notebook/ws", "Cookie", "")
		if resp.StatusCode != 401 || !resp.Close {
			t.Errorf("socket: %d %v", resp.StatusCode, resp.Header)
		}
		if n := w.app.dials.Load(); n != 0 {
			t.Errorf("the node was dialed %d times", n)
		}
	})
}

// TestStates: each state has its page, with what can be done next, and its
// answer for programs.
func TestStates(t *testing.T) {
	w := newWorld(t)
	p := w.person().enter()
	for name, c := range map[string]struct {
		change func(*quire.Route)
		status int
		has    []string
	}{
		"starting": {func(r *quire.Route) { r.State, r.Reason = quire.SessionStarting, "Making the environment" }, 503, []string{"Notebook is starting", "Making the environment", `data-events="/_quire/events?app=notebook"`, `<noscript><meta http-equiv="refresh" content="2">`}},
		"failed": {func(r *quire.Route) {
			r.State, r.Reason, r.Log = quire.SessionFailed, "It exited with code 3.", "Traceback <b>\nlast line"
		}, 502, []string{"did not work", "It exited with code 3.", "Traceback &lt;b&gt;\nlast line", `href="http://quire.localhost:8080/alice/demo/notebook/tree"`}},
		"stopped":  {func(r *quire.Route) { r.State, r.Reason = quire.SessionEnded, "Stopped by bob." }, 503, []string{"was stopped", "Stopped by bob.", `href="http://quire.localhost:8080/alice/demo/notebook/tree"`}},
		"stopping": {func(r *quire.Route) { r.State = quire.SessionStopping }, 503, []string{"being stopped"}},
		"a nasty reason": {func(r *quire.Route) {
			r.State, r.Reason, r.AppTitle = quire.SessionFailed, "<script>alert(1)</script>", `"><img src=x>`
		}, 502, []string{"&lt;script&gt;alert(1)", "&lt;img"}},
	} {
		r := p.route("notebook", "write")
		c.change(&r)
		w.routes(r)
		resp := p.page("/notebook/tree")
		text := body(resp)
		if resp.StatusCode != c.status {
			t.Errorf("%s: %d", name, resp.StatusCode)
		}
		for _, has := range c.has {
			if !strings.Contains(text, has) {
				t.Errorf("%s: no %q in\n%s", name, has, text)
			}
		}
		if strings.Contains(text, "<script>") || strings.Contains(text, "style=") || strings.Contains(text, "onclick") {
			t.Errorf("%s: inline script or style", name)
		}
		csp := resp.Header.Get("Content-Security-Policy")
		if !strings.Contains(csp, "default-src 'none'") || !strings.Contains(csp, "script-src 'self'") || strings.Contains(csp, "unsafe") {
			t.Errorf("%s: policy %q", name, csp)
		}
		api := p.get("/notebook/api")
		var e struct{ Error *quire.Error }
		if err := json.NewDecoder(api.Body).Decode(&e); err != nil || e.Error == nil || e.Error.Message == "" || api.StatusCode != c.status {
			t.Errorf("%s: a program got %d %v", name, api.StatusCode, err)
		}
		if _, _, resp := p.open("/notebook/ws"); resp.StatusCode != c.status {
			t.Errorf("%s: a socket got %d", name, resp.StatusCode)
		}
	}
	if n := w.app.dials.Load(); n != 0 {
		t.Errorf("the node was dialed %d times", n)
	}
	text := body(p.page("/terminal/x?y=1"))
	if !strings.Contains(text, "not running") || !strings.Contains(text, `href="http://quire.localhost:8080/alice/demo/terminal/x"`) {
		t.Errorf("an app without a session: %s", text)
	}
}

// TestEvents: the page hears each change at once, and becomes the app.
func TestEvents(t *testing.T) {
	modes(t, func(t *testing.T, w *world) {
		p := w.person().enter()
		resp := p.get("/_quire/events?app=notebook", "Sec-Fetch-Site", "same-origin")
		if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "text/event-stream" {
			t.Fatalf("%d %v", resp.StatusCode, resp.Header)
		}
		br := bufio.NewReader(resp.Body)
		next := func() (n news) {
			t.Helper()
			for {
				line, err := br.ReadString('\n')
				if err != nil {
					t.Fatal(err)
				}
				if data, ok := strings.CutPrefix(line, "data: "); ok {
					if err := json.Unmarshal([]byte(data), &n); err != nil {
						t.Fatal(err)
					}
					return n
				}
			}
		}
		if n := next(); n.State != quire.SessionRunning {
			t.Errorf("first %+v", n)
		}
		for _, state := range []quire.SessionState{quire.SessionStopping, quire.SessionEnded, quire.SessionStarting, quire.SessionRunning} {
			r := p.route("notebook", "write")
			r.State, r.Reason = state, "because of "+string(state)
			began := time.Now()
			w.routes(r)
			if n := next(); n.State != state || n.Reason != r.Reason {
				t.Errorf("%s: %+v", state, n)
			}
			if d := time.Since(began); d > 500*time.Millisecond {
				t.Errorf("%s came after %v", state, d)
			}
		}
		gone := p.route("notebook", "write")
		gone.Gone = true
		w.routes(gone)
		if n := next(); n.State != "" || n.Word != "not running" {
			t.Errorf("gone: %+v", n)
		}
		if resp := w.do(func() *http.Request {
			r := p.request("GET", "/_quire/events?app=notebook", nil)
			r.Header.Del("Cookie")
			return r
		}()); resp.StatusCode != 401 {
			t.Errorf("a stranger: %d", resp.StatusCode)
		}
		// A silent server: the page can count down to the end of the grace.
		w.detach()
		w.shift.Add(int64(4 * time.Second))
		if n, end := next(), w.holder(p).newest.Load().Grace.UnixMilli(); n.Until != end {
			t.Errorf("silent: until %d, the grace ends %d", n.Until, end)
		}
		w.attach()
		if n := next(); n.Until != 0 {
			t.Errorf("heard again: %+v", n)
		}
	})
}

// TestFrame: the bar names the project and leads to the portal; it shows this
// site's apps and nothing else.
func TestFrame(t *testing.T) {
	modes(t, func(t *testing.T, w *world) {
		p := w.person().enter()
		portal := w.origins.Portal()
		resp := p.page("/_quire/frame?path=" + url.QueryEscape("/notebook/notebooks/Welcome.ipynb?factory=x"))
		text := body(resp)
		for _, has := range []string{
			`href="` + portal + `/alice/demo"`, `href="` + portal + `/alice/demo/notebook/notebooks/Welcome.ipynb?factory=x"`, `href="` + portal + `/alice/demo/settings"`, `href="` + portal + `/alice/demo/sessions"`,
			`src="` + p.prefix() + `/notebook/notebooks/Welcome.ipynb?factory=x"`, "running", "Notebook", "<title>Notebook · demo</title>",
		} {
			if !strings.Contains(text, has) {
				t.Errorf("no %s in\n%s", has, text)
			}
		}
		if csp := resp.Header.Get("Content-Security-Policy"); !strings.Contains(csp, "frame-src 'self'") || !strings.Contains(csp, "frame-ancestors 'self'") {
			t.Errorf("policy %q", csp)
		}
		for _, path := range []string{"", "https://evil.test/", "//evil.test/", "javascript:alert(1)", "/_quire/frame", "/notebook/../../x", `/\evil.test`, "/notebook//evil", "/viewer2x\x00"} {
			resp := p.page("/_quire/frame?path=" + url.QueryEscape(path))
			if text := body(resp); resp.StatusCode != 404 || strings.Contains(text, "<iframe") {
				t.Errorf("%q: %d", path, resp.StatusCode)
			}
		}
		if resp := p.page("/_quire/frame?path=/terminal/"); resp.StatusCode != 404 || !strings.Contains(body(resp), "not running") {
			t.Errorf("an app without a session: %d", resp.StatusCode)
		}
		q := *p
		q.cookie = ""
		if resp := q.page("/_quire/frame?path=/notebook/a"); resp.StatusCode != 303 || !strings.Contains(resp.Header.Get("Location"), "path=%2Fnotebook%2Fa") {
			t.Errorf("signed out: %d %s", resp.StatusCode, resp.Header.Get("Location"))
		}
		// The app's own pages may be framed by their own origin and by nobody else.
		if got := p.page("/notebook/x").Header.Get("Content-Security-Policy"); got != "frame-ancestors 'self'" {
			t.Errorf("the app's policy: %q", got)
		}
		if resp := p.get("/_quire/assets/gateway.css"); resp.StatusCode != 200 && resp.StatusCode != 404 {
			t.Errorf("assets: %d", resp.StatusCode)
		}
		if resp := p.get("/_quire/assets/..%2f..%2fetc/passwd"); resp.StatusCode != 404 {
			t.Errorf("an asset that is none: %d", resp.StatusCode)
		}
	})
}
