package server

import (
	"encoding/json"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"quire"
)

func header(k, v string) func(*http.Request) { return func(r *http.Request) { r.Header.Set(k, v) } }
func without(k string) func(*http.Request)   { return func(r *http.Request) { r.Header.Del(k) } }
func host(h string) func(*http.Request)      { return func(r *http.Request) { r.Host = h } }

// changing lists the rows that may change something, with a request for each.
func changing(s *testSite, st stage, ask func(r Route, method, path string, body any)) {
	for _, r := range s.server.routes {
		if r.Method() != "GET" {
			c := matrix[r.Pattern]
			ask(r, r.Method(), st.path(c, s.people["owner"]), st.body(c))
		}
	}
}

// S-17, S-20, S-21, S-23: a write from anywhere but a page of the portal is
// refused on every row, before anything is looked up.
func TestForeignWritesAreRefused(t *testing.T) {
	t.Parallel()
	s := newCast(t)
	st := s.newStage("csrf").withSession()
	attacks := map[string][]func(*http.Request){
		"app origin":                       {header("Origin", "http://abcdefghijklmnopqrst.apps.localhost:8089"), header("Sec-Fetch-Site", "cross-site")},
		"same host, other port":            {header("Origin", "http://quire.localhost:8089"), header("Sec-Fetch-Site", "same-site")},
		"sibling name":                     {header("Origin", "http://evil.quire.localhost:8080"), header("Sec-Fetch-Site", "same-site")},
		"other site":                       {header("Origin", "https://evil.example"), header("Sec-Fetch-Site", "cross-site")},
		"name that begins like ours":       {header("Origin", "http://quire.localhost:8080.evil.example"), without("Sec-Fetch-Site")},
		"other scheme":                     {header("Origin", "https://quire.localhost:8080"), without("Sec-Fetch-Site")},
		"null":                             {header("Origin", "null"), header("Sec-Fetch-Site", "cross-site")},
		"null without fetch headers":       {header("Origin", "null"), without("Sec-Fetch-Site")},
		"forged fetch site, foreign":       {header("Origin", "https://evil.example"), header("Sec-Fetch-Site", "same-origin"), header("Sec-Fetch-Mode", "no-cors")},
		"our origin, foreign fetch site":   {header("Sec-Fetch-Site", "cross-site")},
		"our origin, same-site fetch site": {header("Sec-Fetch-Site", "same-site")},
		"two origins":                      {func(r *http.Request) { r.Header.Add("Origin", "https://evil.example") }},
	}
	for name, edits := range attacks {
		changing(s, st, func(r Route, method, path string, body any) {
			res := s.people["owner"].ask(method, path, body, edits...)
			if res.StatusCode != 403 {
				t.Errorf("%s: %s: %d, want 403", name, r.Pattern, res.StatusCode)
			}
		})
	}
	// Nothing said at all: the form token or a token of one's own must speak.
	silent := []func(*http.Request){without("Origin"), without("Sec-Fetch-Site")}
	changing(s, st, func(r Route, method, path string, body any) {
		if res := s.people["owner"].ask(method, path, body, silent...); res.StatusCode != 403 {
			t.Errorf("silent: %s: %d, want 403", r.Pattern, res.StatusCode)
		}
		wrong := append([]func(*http.Request){header(formHeader, s.people["editor"].token())}, silent...)
		if res := s.people["owner"].ask(method, path, body, wrong...); res.StatusCode != 403 {
			t.Errorf("somebody else's token: %s: %d, want 403", r.Pattern, res.StatusCode)
		}
	})
	// S-16: the token counts only with its own login, and then it is enough.
	owner := s.people["owner"]
	form := url.Values{"on": {"1"}, "token": {owner.token()}}
	if res := owner.ask("POST", st.project.Path()+"/star", form, silent...); res.StatusCode != 303 {
		t.Errorf("own form token: %d %s", res.StatusCode, text(res))
	}
	// Variations of an address are no way around.
	for _, path := range []string{"/login/", "//login", "/Login", "/login;x", "/login%2f", "/./login", "/healthz", "/assets/x.js", "/api/v1/logins/", "/no/such/page"} {
		res := s.people["nobody"].ask("POST", path, url.Values{"name": {"stranger"}, "password": {testPassword}}, attacks["other site"]...)
		if res.StatusCode != 403 {
			t.Errorf("POST %s from another site: %d, want 403", path, res.StatusCode)
		}
	}
}

// The Strict cookie is needed for every change: a request that another site
// caused carries only the Lax one.
func TestWritesNeedTheStrictCookie(t *testing.T) {
	t.Parallel()
	s := newCast(t)
	st := s.newStage("strict").withSession()
	owner := *s.people["owner"]
	for name, write := range map[string]string{"missing": "", "wrong": quire.NewSecret(), "of another login": s.enter("owner").write, "of another person": s.people["editor"].write} {
		asker := owner
		asker.write = write
		changing(s, st, func(r Route, method, path string, body any) {
			if res := asker.ask(method, path, body); res.StatusCode != 403 {
				t.Errorf("%s: %s: %d, want 403", name, r.Pattern, res.StatusCode)
			}
		})
	}
}

// On a plain-http name cookies cannot be bound to the host, so every form needs
// the token as well.
func TestPlainHTTPNeedsTheToken(t *testing.T) {
	t.Parallel()
	s := newCastAt(t, "http://quire.example.org:8080", "http://quire.example.org:8089")
	owner := s.people["owner"]
	if res := owner.ask("POST", "/owner/data/star", url.Values{"on": {"1"}}); res.StatusCode != 403 {
		t.Errorf("without token: %d", res.StatusCode)
	}
	if res := owner.ask("POST", "/owner/data/star", url.Values{"on": {"1"}, "token": {owner.token()}}); res.StatusCode != 303 {
		t.Errorf("with token: %d", res.StatusCode)
	}
	if res := owner.ask("PUT", "/api/v1/projects/owner/data/star", nil, header(formHeader, owner.token())); res.StatusCode != 200 {
		t.Errorf("API with token: %d", res.StatusCode)
	}
	page := s.people["admin"].get("/admin")
	if !strings.Contains(page, "plain http") || !strings.Contains(page, "trusted users only") {
		t.Error("the overview does not say that this site is for trusted users only")
	}
}

// S-19.
func TestLoginCookies(t *testing.T) {
	t.Parallel()
	s := newCast(t)
	res := s.people["nobody"].do("POST", "/login", url.Values{"name": {"owner"}, "password": {testPassword}, "next": {"/owner/data"}})
	if res.StatusCode != 303 || res.Header.Get("Location") != "/owner/data" {
		t.Fatalf("sign in: %d to %s", res.StatusCode, res.Header.Get("Location"))
	}
	want := map[string]http.SameSite{"__Host-quire_login": http.SameSiteLaxMode, "__Host-quire_write": http.SameSiteStrictMode}
	for _, c := range res.Cookies() {
		if same, ok := want[c.Name]; !ok || c.SameSite != same || !c.Secure || !c.HttpOnly || c.Domain != "" || c.Path != "/" || len(c.Value) < 50 {
			t.Errorf("cookie %+v", c)
		}
		delete(want, c.Name)
	}
	if len(want) != 0 {
		t.Errorf("missing: %v", want)
	}
}

// S-13, S-14: a sign-in makes new secrets, ends what this browser had, and
// takes over nothing that was planted.
func TestSignInOverAnotherLogin(t *testing.T) {
	t.Parallel()
	s := newCast(t)
	victim := s.enter("editor")
	res := victim.do("POST", "/login", url.Values{"name": {"owner"}, "password": {testPassword}})
	if res.StatusCode != 303 {
		t.Fatal(res.StatusCode)
	}
	for _, c := range res.Cookies() {
		if c.Value == victim.read || c.Value == victim.write {
			t.Error("an old secret was kept")
		}
	}
	if res := victim.do("GET", "/api/v1/me", nil); res.StatusCode != 401 {
		t.Errorf("the login before lives on: %d", res.StatusCode)
	}
	planted := &client{site: s, read: quire.NewSecret(), write: quire.NewSecret()}
	res = planted.do("POST", "/login", url.Values{"name": {"owner"}, "password": {testPassword}})
	for _, c := range res.Cookies() {
		if c.Value == planted.read || c.Value == planted.write {
			t.Error("a planted secret became a login")
		}
	}
}

// S-15 (the server's part) and the limits.
func TestTooManyCookies(t *testing.T) {
	t.Parallel()
	s := newCast(t)
	for name, edit := range map[string]func(*http.Request){
		"two logins": func(r *http.Request) { r.AddCookie(&http.Cookie{Name: "__Host-quire_login", Value: "planted"}) },
		"two writes": func(r *http.Request) { r.AddCookie(&http.Cookie{Name: "__Host-quire_write", Value: "planted"}) },
		"a full jar": func(r *http.Request) {
			for range 200 {
				r.AddCookie(&http.Cookie{Name: "x", Value: "y"})
			}
		},
	} {
		res := s.people["owner"].do("GET", "/", nil, edit)
		if res.StatusCode != 400 {
			t.Errorf("%s: %d, want 400", name, res.StatusCode)
		}
		cleared := 0
		for _, c := range res.Cookies() {
			if c.MaxAge < 0 {
				cleared++
			}
		}
		if cleared != 2 || !strings.Contains(res.Header.Get("Clear-Site-Data"), "cookies") {
			t.Errorf("%s: cleared %d cookies, %q", name, cleared, res.Header.Get("Clear-Site-Data"))
		}
	}
	if res := s.people["nobody"].do("GET", "/login", nil, header("X-Large", strings.Repeat("x", 40<<10))); res.StatusCode != 431 {
		t.Errorf("large header: %d", res.StatusCode)
	}
	if res := s.people["owner"].do("POST", "/new", url.Values{"name": {strings.Repeat("x", 70<<10)}}); res.StatusCode != 413 {
		t.Errorf("large form: %d", res.StatusCode)
	}
	if res := s.people["owner"].do("POST", "/api/v1/markdown", map[string]string{"text": strings.Repeat("x", 2<<20)}); res.StatusCode != 413 {
		t.Errorf("large JSON: %d", res.StatusCode)
	}
}

// S-06: names that are none never reach a log line or a page.
func TestNamesThatAreNone(t *testing.T) {
	t.Parallel()
	s := newCast(t)
	for _, name := range []string{"a\nb", "a\x1b[31m", "a\x00b", "a\u202eb", "a\xffb", strings.Repeat("n", 300)} {
		res := s.people["nobody"].do("POST", "/login", url.Values{"name": {name}, "password": {"x"}})
		if res.StatusCode != 400 {
			t.Errorf("%q: %d, want 400", name[:min(len(name), 20)], res.StatusCode)
		}
	}
	if res := s.people["nobody"].do("POST", "/login", url.Values{"name": {strings.Repeat("n", 10<<20)}}); res.StatusCode != 413 && res.StatusCode != 400 {
		t.Errorf("10 MB name: %d", res.StatusCode)
	}
	for line := range strings.SplitSeq(s.log.String(), "\n") {
		if len(line) > 2000 || strings.ContainsAny(line, "\x1b\x00") {
			t.Errorf("log line: %.200q", line)
		}
	}
}

var lastSeen = regexp.MustCompile(`\\*"last_seen\\*":\\*"[^"]*"`)

// S-22: reading changes nothing, on any row.
func TestReadingChangesNothing(t *testing.T) {
	t.Parallel()
	s := newCast(t)
	st := s.newStage("read").withSession()
	owner := s.people["owner"]
	snapshot := func() string {
		var all []any
		for _, path := range []string{"/projects", "/projects?list=deleted", "/logins", "/me/events?n=200", "/projects/owner/read/sessions", "/projects/owner/read/team", "/projects/owner/read/timeline", "/projects/owner/read/events?n=200"} {
			res := owner.do("GET", "/api/v1"+path, nil)
			all = append(all, text(res))
		}
		b, err := json.Marshal(all)
		must(t, err)
		return lastSeen.ReplaceAllString(string(b), "") // which each minute changes
	}
	s.eventually("the start is over", func() bool { return strings.Contains(owner.get("/owner/read"), "done in") })
	before := snapshot()
	for _, r := range s.server.routes {
		if r.Method() == "GET" {
			path := st.path(matrix[r.Pattern], owner)
			owner.ask("GET", path, nil)
			owner.ask("HEAD", path, nil)
		}
		if r.Method() == "POST" {
			owner.ask("GET", st.path(matrix[r.Pattern], owner)+"?on=1&name=x&confirm=read&public=1", nil)
			owner.ask("GET", st.path(matrix[r.Pattern], owner), nil, header("X-HTTP-Method-Override", "POST"))
		}
	}
	if after := snapshot(); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

// S-24, A-05.
func TestJSONBodies(t *testing.T) {
	t.Parallel()
	s := newCast(t)
	st := s.newStage("json").withSession()
	owner := s.people["owner"]
	for _, r := range s.server.routes {
		if !r.API() || r.Method() == "GET" || r.In == nil || !hasTag(r.In, "json") {
			continue
		}
		c := matrix[r.Pattern]
		path := st.path(c, owner)
		asker := owner
		if r.Who == Admin {
			asker = s.people["admin"]
		}
		for _, kind := range []string{"text/plain", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded", "", "application/jsonp", "text/json"} {
			if res := asker.ask(r.Method(), path, c.body, header("Content-Type", kind)); res.StatusCode != 415 {
				t.Errorf("%s as %q: %d, want 415", r.Pattern, kind, res.StatusCode)
			}
		}
		for _, more := range []string{`"role":"admin"`, `"owner_id":"x"`, `"uid":0`, `"node_id":"x"`, `"id":"p_aaaaaaaaaaaaaaaa"`, `"owner":"x"`, `"Owner":"x"`, `"project":"x"`, `"state":"running"`, `"created":null`} {
			if key, _, _ := strings.Cut(more, ":"); strings.Contains(c.body.(string), key) {
				continue
			}
			body := strings.TrimSuffix(c.body.(string), "}") + "," + more + "}"
			if res := asker.ask(r.Method(), path, body); res.StatusCode != 400 {
				t.Errorf("%s with %s: %d, want 400", r.Pattern, more, res.StatusCode)
			}
		}
		for _, body := range []string{"", "null x", "[]", "{", `{}{}`, "\xff"} {
			if res := asker.ask(r.Method(), path, body, header("Content-Type", "application/json")); res.StatusCode != 400 {
				t.Errorf("%s with %q: %d, want 400", r.Pattern, body, res.StatusCode)
			}
		}
	}
	// Forms take only forms.
	if res := owner.ask("POST", "/new", `{"name":"x"}`); res.StatusCode != 415 {
		t.Errorf("JSON to a form: %d", res.StatusCode)
	}
}

// S-25: no other origin may read anything.
func TestNoCrossOriginReading(t *testing.T) {
	t.Parallel()
	s := newCast(t)
	for _, origin := range []string{"https://evil.example", "http://quire.localhost:8080.evil.com", "null", "http://abcdefghijklmnopqrst.apps.localhost:8089"} {
		for _, method := range []string{"GET", "OPTIONS"} {
			res := s.people["owner"].do(method, "/api/v1/me", nil, header("Origin", origin), header("Access-Control-Request-Method", "PATCH"), header("Sec-Fetch-Site", "cross-site"))
			for name := range res.Header {
				if strings.HasPrefix(name, "Access-Control-") {
					t.Errorf("%s from %s: %s", method, origin, name)
				}
			}
			if !strings.Contains(res.Header.Get("Vary"), "Origin") {
				t.Errorf("Vary: %q", res.Header.Get("Vary"))
			}
			if res.Header.Get("Cross-Origin-Resource-Policy") != "same-origin" {
				t.Error("no CORP")
			}
			if method == "OPTIONS" && res.StatusCode != 405 {
				t.Errorf("OPTIONS: %d", res.StatusCode)
			}
		}
	}
}

// S-26: only our own names are served.
func TestHosts(t *testing.T) {
	t.Parallel()
	s := newCast(t)
	for _, h := range []string{"attacker.test", "10.0.0.1", "10.0.0.1:8080", "quire.localhost.evil.example:8080", "quire.localhost:8080.evil.example", "", "[::2]:8080", "abcdefghijklmnopqrst.apps.localhost:8089"} {
		for _, r := range s.server.routes {
			if r.Method() != "GET" {
				continue
			}
			if res := s.people["owner"].ask("GET", stage{s: s, project: s.project}.pathIfPlain(r), nil, host(h)); res.StatusCode != 421 {
				t.Errorf("Host %q: %s: %d, want 421", h, r.Pattern, res.StatusCode)
			}
		}
	}
	for _, h := range []string{"localhost:8080", "127.0.0.1:8080", "[::1]:8080", "QUIRE.localhost:9090"} {
		res := s.people["owner"].do("GET", "/owner/data?x=1", nil, host(h))
		if res.StatusCode != 303 || res.Header.Get("Location") != testPortal+"/owner/data?x=1" {
			t.Errorf("alias %s: %d to %q", h, res.StatusCode, res.Header.Get("Location"))
		}
		if res := s.people["owner"].do("POST", "/owner/data/star", url.Values{}, host(h)); res.StatusCode != 421 {
			t.Errorf("POST on alias %s: %d", h, res.StatusCode)
		}
		if res := s.people["nobody"].do("GET", "/healthz", nil, host(h)); res.StatusCode != 200 {
			t.Errorf("healthz on %s: %d", h, res.StatusCode)
		}
		res = s.people["owner"].do("GET", "//evil.example/x", nil, host(h))
		if to := res.Header.Get("Location"); res.StatusCode == 303 && !strings.HasPrefix(to, testPortal+"/") {
			t.Errorf("alias leads to %q", to)
		}
	}
}

func (st stage) pathIfPlain(r Route) string {
	if strings.Contains(matrix[r.Pattern].path, "LABEL") {
		return "/authorize"
	}
	return st.path(matrix[r.Pattern], nil)
}
