package server

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"quire"
	"quire/login"
)

// S-30, S-31, S-32, S-33: sign-in leads only to pages of ours.
func TestNext(t *testing.T) {
	t.Parallel()
	s := newCast(t)
	for next, want := range map[string]string{
		"/owner/data": "/owner/data", "/owner/data/notebook/a%20b.ipynb?x=1": "/owner/data/notebook/a%20b.ipynb?x=1", "/authorize?label=x&nonce=y&path=%2Fnotebook%2F": "/authorize?label=x&nonce=y&path=%2Fnotebook%2F",
		"https://evil": "/", "//evil": "/", "/\\evil": "/", "///evil": "/", "/.//evil": "/", "/a/..//evil": "/", "/%09/evil": "/", "javascript:alert(1)": "/",
		"/public/x/..%2f..%2fapi/v1/me": "/", "/api/v1/me": "/", "/logout": "/", "/events": "/", "/owner/data/events": "/", "/assets/portal.js": "/",
		"/owner\r\nSet-Cookie: a=b": "/", "/" + strings.Repeat("a", 50<<10): "/",
		"/a/../..//evil": "/", "/.//%2fevil": "/", "/..//evil": "/", "/_/..//evil": "/", "////evil": "/", "/%2e%2f/evil": "/", "/owner/data/..%5c..%5cevil": "/", "/owner\\..\\..\\evil": "/",
		"/owner/../api/v1/me": "/", "/API/v1/me": "/", "/%61pi/v1/me": "/", "/admin/no/such/page": "/", "/healthz/x": "/", "https:evil": "/", "\\\\evil": "/", "%2f%2fevil": "/", "data:text/html,x": "/",
	} {
		res := s.people["nobody"].do("POST", "/login", url.Values{"name": {"owner"}, "password": {testPassword}, "next": {next}})
		if got := res.Header.Get("Location"); res.StatusCode != 303 || got != want {
			t.Errorf("next %q: %d to %q, want %q", next, res.StatusCode, got, want)
		}
		for name := range res.Header {
			if name == "A" {
				t.Error("a header was injected")
			}
		}
	}
	if page := s.people["nobody"].get("/login?next=/owner/data&next=//evil"); !strings.Contains(page, `name="next" value="/"`) {
		t.Error("two next parameters were not ignored")
	}
}

// S-34: labels that are not the asker's, or none, are one answer.
func TestHandOffLabels(t *testing.T) {
	t.Parallel()
	s := newCast(t)
	st := s.newStage("hand").withSession()
	owner := s.people["owner"]
	good := st.path(matrix["GET /authorize"], owner)
	page := owner.get(good)
	u, err := url.Parse(good)
	must(t, err)
	label := u.Query().Get("label")
	if !strings.Contains(page, `action="http://`+label+`.apps.localhost:8089/_quire/enter"`) || !strings.Contains(page, "Continue") {
		t.Error("the form does not lead to the app's own origin")
	}
	if strings.Contains(good, "ticket") {
		t.Error("the ticket is in an address")
	}
	for _, bad := range []string{label + "a", label[:19], strings.ToUpper(label), label + ".evil.example", "x", "", string(quire.NewLabel()), "../" + label} {
		q := u.Query()
		q.Set("label", bad)
		if res := owner.ask("GET", "/authorize?"+q.Encode(), nil); res.StatusCode != 404 && res.StatusCode != 400 {
			t.Errorf("label %q: %d", bad, res.StatusCode)
		}
	}
	unknown := text(s.people["editor"].ask("GET", strings.Replace(good, label, string(quire.NewLabel()), 1), nil))
	foreign := text(s.people["editor"].ask("GET", good, nil))
	if message(unknown) != message(foreign) {
		t.Errorf("unknown: %q, foreign: %q", message(unknown), message(foreign))
	}
}

// message is the sentence of an error page.
func message(page string) string {
	_, rest, _ := strings.Cut(page, `<p class="lead">`)
	m, _, _ := strings.Cut(rest, "</p>")
	return m
}

// S-40, S-43: a login that ended opens nothing.
func TestEndedLogins(t *testing.T) {
	t.Parallel()
	s := newCast(t)
	a, b := s.enter("editor"), s.enter("editor")
	if res := a.do("POST", "/logout", url.Values{}); res.StatusCode != 303 || !strings.Contains(res.Header.Get("Clear-Site-Data"), "storage") {
		t.Errorf("log out: %d", res.StatusCode)
	}
	if res := a.do("GET", "/api/v1/me", nil); res.StatusCode != 401 {
		t.Errorf("after logout: %d", res.StatusCode)
	}
	if res := b.do("GET", "/api/v1/me", nil); res.StatusCode != 200 {
		t.Errorf("the other browser: %d", res.StatusCode)
	}
	token := b.read + "." + b.write
	if res := b.do("POST", "/logout", url.Values{"everywhere": {"1"}}); res.StatusCode != 303 {
		t.Errorf("log out everywhere: %d", res.StatusCode)
	}
	if res := s.people["editor"].do("GET", "/api/v1/me", nil); res.StatusCode != 401 {
		t.Errorf("after logout everywhere: %d", res.StatusCode)
	}
	if res := s.people["nobody"].do("GET", "/api/v1/me", nil, header("Authorization", "Bearer "+token)); res.StatusCode != 401 {
		t.Errorf("bearer after logout: %d", res.StatusCode)
	}
	// A changed password ends all others and gives this browser a new login.
	a, b = s.enter("viewer"), s.enter("viewer")
	res := a.do("POST", "/account/password", url.Values{"old": {testPassword}, "new": {"a wholly different phrase"}, "again": {"a wholly different phrase"}})
	if res.StatusCode != 303 || len(res.Cookies()) != 2 {
		t.Fatalf("password: %d %s", res.StatusCode, text(res))
	}
	for _, c := range []*client{a, b, s.people["viewer"]} {
		if res := c.do("GET", "/api/v1/me", nil); res.StatusCode != 401 {
			t.Errorf("an old login lives: %d", res.StatusCode)
		}
	}
	// A disabled person is nobody at once.
	if code := s.people["admin"].api("PATCH", "/users/stranger", map[string]bool{"disabled": true}, nil); code != 200 {
		t.Fatal(code)
	}
	if res := s.people["stranger"].do("GET", "/api/v1/me", nil); res.StatusCode != 401 {
		t.Errorf("a disabled person: %d", res.StatusCode)
	}
}

// S-46: no request that begins after the answer to logout succeeds.
func TestLogoutRace(t *testing.T) {
	t.Parallel()
	s := newCast(t)
	for range 20 {
		c := s.enter("editor")
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() { c.do("GET", "/api/v1/me", nil) })
		}
		if res := c.do("POST", "/logout", url.Values{}); res.StatusCode != 303 {
			t.Errorf("logout: %d", res.StatusCode)
		}
		if res := c.do("GET", "/api/v1/me", nil); res.StatusCode != 401 {
			t.Errorf("after logout: %d", res.StatusCode)
		}
		wg.Wait()
	}
}

// S-50: what was sent appears in no log, page or answer of an error.
func TestCanaries(t *testing.T) {
	t.Parallel()
	s := newCast(t)
	must(t, s.server.mount(append(table(), raw("POST /help/fails", Nobody, "", func(c *call) error {
		if err := c.r.ParseForm(); err != nil {
			return err
		}
		return quire.Failed("It did not work.", nil)
	}))))
	const canary = "CANARY7x"
	edits := []func(*http.Request){header("X-Secret", canary), header("Authorization", "Basic "+canary), header("User-Agent", canary), header("Referer", testPortal+"/"+canary),
		func(r *http.Request) { r.AddCookie(&http.Cookie{Name: "c", Value: canary}) }}
	for _, try := range []struct {
		method, path string
		body         any
	}{
		{"GET", "/owner/" + canary, nil}, {"GET", "/" + canary + "/x/y/z?q=" + canary, nil}, {"GET", "/setup?key=" + canary, nil}, {"GET", "/api/v1/projects?list=" + canary, nil},
		{"POST", "/login", url.Values{"name": {"owner"}, "password": {canary}}}, {"POST", "/api/v1/logins", `{"name":"owner","password":"` + canary + `"}`},
		{"POST", "/api/v1/logins", `{"name":{"` + canary + `":1}}`}, {"PATCH", "/api/v1/me", `{"full_name":` + canary + `}`}, {"POST", "/help/fails", url.Values{"x": {canary}}},
		{"POST", "/login", url.Values{"x": {strings.Repeat(canary, 20000)}}}, {"GET", "/account/logins/" + canary, nil}, {"DELETE", "/api/v1/logins/" + canary, nil},
	} {
		for _, who := range []string{"nobody", "owner"} {
			res := s.people[who].ask(try.method, try.path, try.body, edits...)
			if body := text(res); res.StatusCode >= 400 && strings.Contains(body, canary) {
				i := strings.Index(body, canary)
				t.Errorf("%s %s shows it: …%s…", try.method, try.path, body[max(0, i-100):min(len(body), i+100)])
			}
		}
	}
	if strings.Contains(s.log.String(), canary) {
		for line := range strings.SplitSeq(s.log.String(), "\n") {
			if strings.Contains(line, canary) {
				t.Errorf("log: %s", line)
			}
		}
	}
}

// S-51.
func TestPanic(t *testing.T) {
	t.Parallel()
	s := newCast(t)
	must(t, s.server.mount(append(table(), raw("GET /help/panics", Nobody, "", func(*call) error { panic("CANARY9y in the reason") }))))
	base := s.listen()
	req, err := http.NewRequest("GET", base+"/help/panics", nil)
	must(t, err)
	req.Host = "quire.localhost:8080"
	req.Header.Set("Accept", "text/html")
	res, err := new(http.Client).Do(req)
	must(t, err)
	body := text(res)
	id := res.Header.Get("Quire-Request")
	if res.StatusCode != 500 || strings.Contains(body, "CANARY9y") || id == "" || !strings.Contains(body, id) || !res.Close {
		t.Errorf("%d close=%v %s", res.StatusCode, res.Close, body)
	}
	if !strings.Contains(s.log.String(), "id="+id) {
		t.Error("the log does not know the request")
	}
	if res := s.people["nobody"].do("GET", "/healthz", nil); res.StatusCode != 200 {
		t.Error("the process does not go on")
	}
}

// identities of one project are nothing below another.
func TestMixedIdentities(t *testing.T) {
	t.Parallel()
	s := newCast(t)
	one := s.newStage("one").withSession()
	two := s.newStage("two").withSession()
	owner, editor := s.people["owner"], s.people["editor"]
	for _, path := range []string{"/owner/two/sessions/" + string(one.session.ID) + "/log"} {
		if res := owner.ask("GET", path, nil); res.StatusCode != 404 {
			t.Errorf("%s: %d", path, res.StatusCode)
		}
	}
	if res := owner.ask("POST", "/owner/two/sessions/"+string(one.session.ID)+"/stop", url.Values{}); res.StatusCode != 404 {
		t.Errorf("stop: %d", res.StatusCode)
	}
	if res := owner.ask("DELETE", "/api/v1/projects/owner/two/sessions/"+string(one.session.ID), nil); res.StatusCode != 404 {
		t.Errorf("API stop: %d", res.StatusCode)
	}
	foreign := string(owner.actor().Login)
	if res := editor.ask("POST", "/account/logins/"+foreign+"/end", url.Values{}); res.StatusCode != 404 {
		t.Errorf("somebody else's login: %d", res.StatusCode)
	}
	if res := s.people["stranger"].ask("POST", "/projects/"+string(two.project.ID)+"/restore", url.Values{}); res.StatusCode != 404 {
		t.Errorf("restore: %d", res.StatusCode)
	}
	for _, id := range []string{"..", "%2e%2e", "s_aaaaaaaaaaaaaaaa", "x", strings.Repeat("a", 500)} {
		if res := owner.ask("GET", "/owner/one/sessions/"+id+"/log", nil); res.StatusCode == 200 {
			t.Errorf("session %q: %d", id, res.StatusCode)
		}
	}
}

// other spellings of an administrator's address decide the same or are
// nothing.
func TestAdminSpellings(t *testing.T) {
	t.Parallel()
	s := newCast(t)
	for _, path := range []string{"/admin/../admin", "/ADMIN", "/admin%2f", "/admin/", "/admin.", "/admin;x", "/%61dmin", "/api/v1/users;x", "/api/v1/users/", "/API/v1/users", "/admin//users", "/admin/users/", "/admin/config/00", "/help/../admin/users", "/admin%2fusers", "/x/../admin"} {
		for _, edit := range [][]func(*http.Request){nil, {header("X-HTTP-Method-Override", "POST")}, {header("X-Original-URL", "/admin/users")}, {header("X-Rewrite-URL", "/admin/users")}} {
			res := s.people["owner"].ask("GET", path, nil, edit...)
			body := text(res)
			if res.StatusCode < 300 || strings.Contains(body, "New user") {
				t.Errorf("%s: %d", path, res.StatusCode)
			}
			if to := res.Header.Get("Location"); res.StatusCode < 400 && !strings.HasPrefix(to, "/") {
				t.Errorf("%s leads to %q", path, to)
			}
		}
	}
}

// names in addresses are names or nothing.
func TestStrangeNames(t *testing.T) {
	t.Parallel()
	s := newCast(t)
	for _, path := range []string{"/owner/..", "/owner/%2e%2e", "/owner/-rf", "/owner/" + strings.Repeat("a", 70), "/owner/da%2fta", "/owner/d%C3%A4ta", "/own%00er/data", "/owner/data%00", "/owner/%F0%9F%98%80", "/OWNER2/data", "/owner%2fdata", "/%ff/data"} {
		if res := s.people["owner"].ask("GET", path, nil); res.StatusCode == 200 || res.StatusCode >= 500 {
			t.Errorf("%s: %d", path, res.StatusCode)
		}
	}
	for _, name := range []string{"a/b", "..", "-rf", "settings", "events", "a b", "é", strings.Repeat("a", 65), "", "<script>"} {
		res := s.people["owner"].ask("POST", "/new", url.Values{"name": {name}})
		if res.StatusCode != 400 {
			t.Errorf("project %q: %d", name, res.StatusCode)
		}
		if strings.Contains(text(res), "<script>alert") {
			t.Error("a name became a script")
		}
	}
}

// A token of one's own works without any browser, and only for its login.
func TestBearer(t *testing.T) {
	t.Parallel()
	s := newCast(t)
	rec := httptest.NewRecorder()
	r := httptest.NewRequest("POST", "/api/v1/logins", strings.NewReader(`{"name":"owner","password":"`+testPassword+`"}`))
	r.Host, r.RemoteAddr = "quire.localhost:8080", "192.0.2.7:1"
	r.Header.Set("Content-Type", "application/json")
	s.server.ServeHTTP(rec, r)
	var in tokenOut
	must(t, json.Unmarshal(rec.Body.Bytes(), &in))
	if rec.Code != 200 || in.Token == "" || len(rec.Result().Cookies()) != 0 {
		t.Fatalf("%d %s", rec.Code, rec.Body)
	}
	plain := func(method, path, token string, body string) int {
		r := httptest.NewRequest(method, path, strings.NewReader(body))
		r.Host, r.RemoteAddr = "quire.localhost:8080", "192.0.2.7:1"
		r.Header.Set("Authorization", "Bearer "+token)
		if body != "" {
			r.Header.Set("Content-Type", "application/json")
		}
		rec := httptest.NewRecorder()
		s.server.ServeHTTP(rec, r)
		return rec.Code
	}
	read, _, _ := strings.Cut(in.Token, ".")
	for _, try := range []struct {
		method, path, token, body string
		want                      int
	}{
		{"GET", "/api/v1/me", in.Token, "", 200}, {"GET", "/api/v1/me", read, "", 200}, {"PATCH", "/api/v1/me", in.Token, `{"email":"o@example.org"}`, 200},
		{"PATCH", "/api/v1/me", read, `{"email":"x"}`, 403}, {"PATCH", "/api/v1/me", read + "." + s.people["editor"].write, `{"email":"x"}`, 403},
		{"GET", "/api/v1/me", "x", "", 401}, {"GET", "/api/v1/users", in.Token, "", 403},
	} {
		if got := plain(try.method, try.path, try.token, try.body); got != try.want {
			t.Errorf("%s %s: %d, want %d", try.method, try.path, got, try.want)
		}
	}
}

// The first page of all: the set-up link works once.
func TestSetup(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.people["nobody"] = &client{site: s}
	nobody := s.people["nobody"]
	if page := nobody.get("/"); !strings.Contains(page, "set-up link") {
		t.Error("a site without people does not say how to begin")
	}
	secret, err := s.control.Users.NewSetupLink(context.Background(), quire.Actor{System: true})
	must(t, err)
	res := nobody.do("GET", "/setup?key="+secret, nil)
	page := text(res)
	csp := res.Header.Get("Content-Security-Policy")
	if res.StatusCode != 200 || !strings.Contains(page, "/_quire/probe.gif") || !strings.Contains(page, "ssh -L 8080:localhost:8080 -L 8089:localhost:8089") {
		t.Errorf("set-up page: %d %s", res.StatusCode, page)
	}
	if !strings.Contains(csp, "img-src 'self' data: http://*.apps.localhost:8089;") {
		t.Errorf("CSP: %s", csp)
	}
	form := url.Values{"key": {secret}, "name": {"ada"}, "password": {testPassword}, "again": {"other"}}
	if res := nobody.do("POST", "/setup", form); res.StatusCode != 400 {
		t.Errorf("two passwords: %d", res.StatusCode)
	}
	form.Set("again", testPassword)
	form.Set("name", "admin")
	if res := nobody.do("POST", "/setup", form); res.StatusCode != 400 || !strings.Contains(text(res), `id="name-bad"`) {
		t.Errorf("a page's name: %d", res.StatusCode)
	}
	form.Set("name", "ada")
	res = nobody.do("POST", "/setup", form)
	if res.StatusCode != 303 || res.Header.Get("Location") != "/ada/Welcome" || len(res.Cookies()) != 2 {
		t.Fatalf("set-up: %d %s %s", res.StatusCode, res.Header.Get("Location"), text(res))
	}
	if res := nobody.do("POST", "/setup", form); res.StatusCode != 404 {
		t.Errorf("the link works twice: %d", res.StatusCode)
	}
	if strings.Contains(s.log.String(), secret) {
		t.Error("the secret is in the log")
	}
}

// S-07: whoever cannot sign in is told the same, whatever the reason. (That the
// same hashes are computed for each is in control: TestEnterTellsNothing.)
func TestRefusedSignInsAreAlike(t *testing.T) {
	t.Parallel()
	s := newCast(t)
	if code := s.people["admin"].api("PATCH", "/users/stranger", map[string]bool{"disabled": true}, nil); code != 200 {
		t.Fatal(code)
	}
	first := map[string]string{}
	for why, c := range map[string][2]string{"wrong": {"editor", "not the password"}, "unknown": {"edidor", testPassword}, "disabled": {"stranger", testPassword}, "disabled and wrong": {"stranger", "not the password"}, "look-alike": {"\u0435ditor", testPassword}} {
		for way, res := range map[string]*http.Response{
			"form": s.people["nobody"].do("POST", "/login", url.Values{"name": {c[0]}, "password": {c[1]}}),
			"API":  s.people["nobody"].do("POST", "/api/v1/logins", map[string]string{"name": c[0], "password": c[1]}),
		} {
			page := strings.NewReplacer(c[0], "NAME", res.Header.Get("Quire-Request"), "REQUEST").Replace(text(res))
			res.Header.Del("Quire-Request")
			res.Header.Del("Content-Length") // the name's, and the page is compared
			said, err := json.Marshal([]any{res.StatusCode, res.Header, page})
			must(t, err)
			if first[way] == "" {
				first[way] = string(said)
			}
			if string(said) != first[way] || res.StatusCode < 400 || len(res.Cookies()) != 0 {
				t.Errorf("%s, %s:\n%s\nand before:\n%s", way, why, said, first[way])
			}
		}
	}
}

// S-04: what a client says of its own address is not believed, neither for the
// limit nor in the log.
func TestClaimedAddresses(t *testing.T) {
	t.Parallel()
	s := newCast(t)
	for i := range login.Free + 1 {
		claimed := "203.0.113." + itoa(i)
		res := s.people["nobody"].do("POST", "/login", url.Values{"name": {"editor"}, "password": {"wrong"}},
			header("X-Forwarded-For", claimed), header("X-Real-Ip", claimed), header("Forwarded", "for="+claimed), header("True-Client-Ip", claimed), header("Cf-Connecting-Ip", claimed))
		want := http.StatusUnauthorized
		if i == login.Free {
			want = http.StatusTooManyRequests
		}
		if res.StatusCode != want || (res.Header.Get("Retry-After") != "") != (i == login.Free) {
			t.Errorf("guess %d: %d, want %d", i+1, res.StatusCode, want)
		}
	}
	var events []quire.Event
	if code := s.people["editor"].api("GET", "/me/events?n=200", nil, &events); code != 200 {
		t.Fatal(code)
	}
	failed := 0
	for _, e := range events {
		if e.Verb == "login.failed" {
			failed++
			if e.Address != "192.0.2.1" {
				t.Errorf("the log has the address %q", e.Address)
			}
		}
	}
	if failed != login.Free {
		t.Errorf("%d failures in the log", failed)
	}
}

// S-04: a proxy that is believed says who guesses, and only the last hop of what
// it says counts; a neighbour of it is a client like any other. What it says of
// the scheme leads to https and does nothing else.
func TestBelievedProxies(t *testing.T) {
	t.Parallel()
	s := newCastAt(t, "https://quire.example.org", "https://*.apps.example.net")
	var err error
	s.server.proxies, err = quire.NewProxies([]string{"10.0.0.0/8", "unix"})
	must(t, err)
	through := func(peer, claimed, proto string) []func(*http.Request) {
		return []func(*http.Request){func(r *http.Request) { r.RemoteAddr = peer }, header("X-Forwarded-For", claimed), header("X-Forwarded-Proto", proto), header("X-Forwarded-Host", "evil.example")}
	}
	for i, c := range []struct{ peer, claimed, want string }{
		{"10.0.0.1:1", "203.0.113.9", "203.0.113.9"},
		{"10.0.0.1:1", "198.51.100.7, 203.0.113.10", "203.0.113.10"},
		{"@", "10.9.9.9, 203.0.113.11, 10.0.0.2", "203.0.113.11"},
		{"192.0.2.77:1", "203.0.113.12", "192.0.2.77"},
	} {
		if res := s.people["nobody"].do("POST", "/login", url.Values{"name": {"editor"}, "password": {"wrong"}}, through(c.peer, c.claimed, "https")...); res.StatusCode != 401 {
			t.Errorf("guess %d: %d", i, res.StatusCode)
		}
		var events []quire.Event
		if code := s.people["editor"].api("GET", "/me/events?n=1", nil, &events); code != 200 || len(events) != 1 || events[0].Verb != "login.failed" || events[0].Address != c.want {
			t.Errorf("%s for %q: %d %+v, want %s", c.peer, c.claimed, code, events, c.want)
		}
	}
	owner := s.people["owner"]
	for _, c := range []struct {
		method, peer, proto string
		status              int
	}{
		{"GET", "10.0.0.1:1", "https", 200}, {"GET", "10.0.0.1:1", "http", 303}, {"GET", "@", "https, http", 303},
		{"GET", "192.0.2.77:1", "http", 200}, {"POST", "10.0.0.1:1", "http", 403}, {"POST", "192.0.2.77:1", "http", 303},
	} {
		path, form := "/", any(nil)
		if c.method == "POST" {
			path, form = "/owner/data/star", url.Values{"on": {"1"}}
		}
		res := owner.do(c.method, path, form, through(c.peer, "203.0.113.9", c.proto)...)
		if res.StatusCode != c.status || c.method == "GET" && c.status == 303 && res.Header.Get("Location") != "https://quire.example.org/" {
			t.Errorf("%s from %s by %s: %d %s", c.method, c.peer, c.proto, res.StatusCode, res.Header.Get("Location"))
		}
	}
	if res := owner.do("GET", "/healthz", nil, through("10.0.0.1:1", "203.0.113.9", "http")...); res.StatusCode != 200 {
		t.Errorf("a health check by http: %d", res.StatusCode)
	}
}

// S-08: nobody gets a name that reads like another's.
func TestLookAlikes(t *testing.T) {
	t.Parallel()
	s := newCast(t)
	for _, name := range []string{"Editor", "EDITOR", "editor ", " editor", "\uff45\uff44\uff49\uff54\uff4f\uff52", "editor\u200b", "edit\u043er", "edi\u0301tor", "editor\u202e", "editor.", "-editor", "editor\x00", "root ", "\u2000editor", "editor"} {
		body, err := json.Marshal(map[string]string{"name": name, "password": testPassword})
		must(t, err)
		if res := s.people["admin"].do("POST", "/api/v1/users", string(body)); res.StatusCode != 400 && res.StatusCode != 409 {
			t.Errorf("account %q: %d %s", name, res.StatusCode, text(res))
		}
		if res := s.people["admin"].do("POST", "/admin/users", url.Values{"name": {name}, "password": {testPassword}, "again": {testPassword}}); res.StatusCode != 400 && res.StatusCode != 409 {
			t.Errorf("account %q by the form: %d", name, res.StatusCode)
		}
		// Upper case and spaces around are a hurried person's, and lead to the one account.
		one := strings.EqualFold(strings.TrimSpace(name), "editor")
		res := s.people["nobody"].do("POST", "/api/v1/logins", map[string]string{"name": name, "password": testPassword})
		if (res.StatusCode == 200) != one {
			t.Errorf("sign in as %q: %d", name, res.StatusCode)
		}
	}
}

// G-14's part here: no route takes a token from an address.
func TestNoTokenInAddresses(t *testing.T) {
	t.Parallel()
	s := newCast(t)
	st := s.newStage("query").withSession()
	owner := s.people["owner"]
	token := owner.read + "." + owner.write
	for _, r := range s.server.routes {
		for _, name := range []string{"token", "access_token", "jwt", "JWT", "%74oken"} {
			path := st.path(matrix[r.Pattern], owner)
			sign := "?"
			if strings.Contains(path, "?") {
				sign = "&"
			}
			if res := s.people["nobody"].ask(r.Method(), path+sign+name+"="+token, st.body(matrix[r.Pattern])); res.StatusCode != 400 {
				t.Errorf("%s with ?%s=: %d", r.Pattern, name, res.StatusCode)
			}
		}
	}
	if res := s.people["nobody"].do("GET", "/api/v1/me?auth="+token+"&login="+token, nil); res.StatusCode != 401 {
		t.Errorf("other words: %d", res.StatusCode)
	}
	if strings.Contains(s.log.String(), owner.read) {
		t.Error("the log has the token")
	}
}
