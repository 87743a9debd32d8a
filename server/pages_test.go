package server

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"quire"
	"quire/control"
	"quire/web"
)

// everyPage opens each page of the table as somebody who may see it.
func everyPage(t *testing.T, see func(pattern, body string)) {
	s := newCast(t)
	st := s.newStage("pages").withSession()
	for _, r := range s.server.routes {
		c := matrix[r.Pattern]
		if r.Method() != "GET" || r.API() || strings.HasSuffix(r.Path(), "events") {
			continue
		}
		for i := len(roles) - 1; i >= 0; i-- {
			if c.want[i] == 200 {
				asker := s.people[roles[i]]
				res := asker.ask("GET", st.path(c, asker), nil)
				if body := text(res); res.StatusCode == 200 && strings.HasPrefix(res.Header.Get("Content-Type"), "text/html") {
					see(r.Pattern, body)
				}
				break
			}
		}
	}
	see("error", text(s.people["owner"].do("GET", "/no/such/page", nil)))
	see("sign-in failed", text(s.people["nobody"].do("POST", "/login", url.Values{"name": {"owner"}, "password": {"wrong"}})))
	see("form failed", text(s.people["owner"].do("POST", "/new", url.Values{"name": {"1"}, "source": {"file:///etc"}})))
}

// What the content policy refuses must not be there at all, and what people
// without eyes or mice need must be.
func TestEveryPageIsWellMade(t *testing.T) {
	t.Parallel()
	seen := 0
	everyPage(t, func(pattern, body string) {
		seen++
		ids, labels := map[string]bool{}, map[string]bool{}
		var wantIDs []string
		h1, level, inForm, token := 0, 0, "", false
		for _, tag := range tags(body) {
			for name, v := range tag.attrs {
				if strings.HasPrefix(name, "on") || name == "style" {
					t.Errorf("%s: %s has the attribute %s", pattern, tag.name, name)
				}
				if (name == "src" || name == "href" || name == "action") && strings.Contains(v, "://") && !strings.Contains(v, ".apps.localhost:8089/_quire/") {
					t.Errorf("%s: %s leads to %s", pattern, tag.name, v)
				}
			}
			if id := tag.attrs["id"]; id != "" && !tag.end {
				if ids[id] {
					t.Errorf("%s: two elements are called %s", pattern, id)
				}
				ids[id] = true
			}
			for _, a := range []string{"aria-describedby", "aria-labelledby", "aria-controls"} {
				wantIDs = append(wantIDs, strings.Fields(tag.attrs[a])...)
			}
			switch tag.name {
			case "style":
				t.Errorf("%s: inline style", pattern)
			case "script":
				if !tag.end && tag.attrs["src"] == "" {
					t.Errorf("%s: inline script", pattern)
				}
			case "label":
				labels[tag.attrs["for"]] = true
			case "h1", "h2", "h3", "h4":
				if tag.end {
					continue
				}
				n := int(tag.name[1] - '0')
				if n == 1 {
					h1++
				}
				if n > level+1 {
					t.Errorf("%s: a %s follows a heading of level %d", pattern, tag.name, level)
				}
				level = n
			case "form":
				if tag.end && inForm == "post" && !token {
					t.Errorf("%s: a form without token", pattern)
				}
				inForm, token = tag.attrs["method"], strings.HasSuffix(tag.attrs["action"], "/_quire/enter") || !strings.Contains(body, `<meta name="quire-form"`)
			case "input":
				token = token || tag.attrs["name"] == "token" && tag.attrs["value"] != ""
			}
		}
		for _, tag := range tags(body) {
			switch kind := tag.attrs["type"]; {
			case tag.name != "input" && tag.name != "textarea" && tag.name != "select", tag.end, kind == "hidden", kind == "radio", kind == "checkbox":
			case !labels[tag.attrs["id"]]:
				t.Errorf("%s: %s %s has no label", pattern, tag.name, tag.attrs["id"])
			}
		}
		for _, id := range wantIDs {
			if !ids[id] {
				t.Errorf("%s: nothing is called %s", pattern, id)
			}
		}
		if h1 != 1 {
			t.Errorf("%s: %d first headings", pattern, h1)
		}
		for _, want := range []string{`lang="en"`, `<main id="main"`, `name="viewport"`, " · Quire</title>", `href="#main"`} {
			if !strings.Contains(body, want) {
				t.Errorf("%s: no %s", pattern, want)
			}
		}
	})
	if seen < 20 {
		t.Errorf("only %d pages were seen", seen)
	}
}

// Every link of every page leads to a row of the table.
func TestLinksLeadSomewhere(t *testing.T) {
	t.Parallel()
	s := newCast(t)
	asked := map[string]bool{}
	for _, start := range []string{"/", "/owner/data", "/owner/data/settings", "/account", "/admin", "/admin/users", "/help", "/people", "/new", "/owner/data/sessions", "/no/such"} {
		who := "owner"
		if strings.HasPrefix(start, "/admin") {
			who = "admin"
		}
		for _, to := range links(text(s.people[who].do("GET", start, nil))) {
			if strings.HasPrefix(to, "#") || strings.HasPrefix(to, "?") || asked[to] || strings.HasPrefix(to, "/assets/") {
				continue
			}
			asked[to] = true
			if res := s.people[who].do("GET", to, nil); res.StatusCode != 200 {
				t.Errorf("%s links to %s: %d", start, to, res.StatusCode)
			}
		}
	}
}

// F-17: an administrator reads what each node's projects lie on, and which nodes
// share it.
func TestNodesSayTheirStorage(t *testing.T) {
	t.Parallel()
	s := newCast(t)
	page := s.people["admin"].get("/admin")
	for _, want := range []string{"/projects: nfs (noacl, vers=3), room for 7 more files. No project can start on it.", "<code>v_aaaaaaaaaaaaaaaa</code>"} {
		if !strings.Contains(page, want) {
			t.Errorf("the overview does not say %q", want)
		}
	}
	if strings.Contains(page, "Shared with") {
		t.Error("one node shares its storage with nobody")
	}
	node := func(id, name, storage string) quire.Node {
		return quire.Node{ID: quire.NodeID(id), DataCenter: "d", Name: name, Health: quire.NodeHealth{Storage: quire.Storage{ID: quire.StorageID(storage), Root: "/projects", Fit: true}}}
	}
	srv := &Server{now: time.Now, version: "2"}
	center := srv.newCenters([]quire.DataCenter{{ID: "d"}}, []quire.Node{node("1", "one", "x"), node("2", "two", "x"), node("3", "three", "y"), node("4", "four", ""), node("5", "five", "")})[0]
	for i, want := range []string{"two", "one", "", "", ""} {
		if got := center.Nodes[i].Shares; got != want {
			t.Errorf("%s shares with %q, not %q", center.Nodes[i].Name, got, want)
		}
	}
	// What is wrong with a data center is said in words, and as AEN said it.
	dc := quire.DataCenter{ID: "d", Name: "north", Up: true, Version: "2"}
	good := quire.Node{ID: "1", DataCenter: "d", Name: "one", Up: true, Health: quire.NodeHealth{Version: "2", Time: time.Now()}, Peer: quire.Peer{Expires: time.Now().Add(20 * 24 * time.Hour)}}
	if got := srv.newCenters([]quire.DataCenter{dc}, []quire.Node{good})[0].Status.JSON(); got != `{"status":"ok","messages":[]}` {
		t.Errorf("all is well: %s", got)
	}
	dc.Up, dc.Reason, dc.Version = false, "the gateway does not answer", "1"
	bad := good
	bad.Health.Time, bad.Health.Version, bad.Peer.Expires = time.Now().Add(-time.Hour), "1", time.Now().Add(time.Hour)
	bad.Health.Storage.Problem = "It is mounted read-only."
	away := quire.Node{ID: "2", DataCenter: "d", Name: "two", Reason: "the node does not answer"}
	got := srv.newCenters([]quire.DataCenter{dc}, []quire.Node{bad, away})[0].Status
	text := strings.Join(got.Messages, "\n")
	for _, want := range []string{"does not answer", "version 1, the server 2", "Its clock differs", "certificate ends in", "mounted read-only", "Resource two: the node does not answer."} {
		if got.Status != "error" || !strings.Contains(text, want) {
			t.Errorf("%s does not say %q: %s", got.Status, want, text)
		}
	}
}

// The headers of every answer, also of refusals.
func TestHeaders(t *testing.T) {
	t.Parallel()
	s := newCast(t)
	want := map[string]string{
		"Content-Security-Policy":      "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; font-src 'self'; form-action 'self' http://*.apps.localhost:8089; frame-ancestors 'none'; base-uri 'none'",
		"Cross-Origin-Opener-Policy":   "same-origin",
		"Cross-Origin-Resource-Policy": "same-origin",
		"X-Content-Type-Options":       "nosniff",
		"X-Frame-Options":              "DENY",
		"Referrer-Policy":              "same-origin",
		"Cache-Control":                "no-store",
	}
	// S-18: no row of the table can be shown in a frame, whatever else it says.
	st := s.newStage("framed").withSession()
	for _, r := range s.server.routes {
		c := matrix[r.Pattern]
		for _, who := range []string{"nobody", "owner"} {
			res := s.people[who].ask(r.Method(), st.path(c, s.people["owner"]), nil, without("Origin")) // a POST is refused, in the same frame
			if p := res.Header.Get("Content-Security-Policy"); res.Header.Get("X-Frame-Options") != "DENY" || !strings.Contains(p, "frame-ancestors 'none'") {
				t.Errorf("%s as %s: %q, %q", r.Pattern, who, res.Header.Get("X-Frame-Options"), p)
			}
		}
	}
	for _, path := range []string{"/", "/owner/data", "/no/such", "/api/v1/me", "/api/v1/nothing", "/healthz", "/owner/data/settings"} {
		for _, who := range []string{"nobody", "owner"} {
			res := s.people[who].do("GET", path, nil)
			for k, v := range want {
				if res.Header.Get(k) != v {
					t.Errorf("%s as %s: %s is %q", path, who, k, res.Header.Get(k))
				}
			}
			if res.Header.Get("Quire-Request") == "" {
				t.Errorf("%s: no request ID", path)
			}
		}
	}
	if res := s.people["owner"].do("GET", "/", nil, host("evil.example")); res.Header.Get("Content-Security-Policy") == "" {
		t.Error("a refusal has no content policy")
	}
	tls := newCastAt(t, "https://quire.example.org", "https://*.apps.example.net")
	res := (&client{site: tls}).do("GET", "/login", nil)
	if res.Header.Get("Strict-Transport-Security") == "" || !strings.Contains(res.Header.Get("Content-Security-Policy"), "form-action 'self' https://*.apps.example.net;") {
		t.Errorf("TLS: %v", res.Header)
	}
}

// The first page after the sign-in is small, assets included.
func TestFirstPageIsSmall(t *testing.T) {
	t.Parallel()
	s := newCast(t)
	page := s.people["owner"].get("/")
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	z.Write([]byte(page))
	z.Close()
	total := b.Len()
	for _, name := range []string{"portal.css", "portal.js", "favicon.svg"} {
		res := s.people["owner"].do("GET", web.Asset(name), nil, header("Accept-Encoding", "gzip"))
		if res.StatusCode == 404 {
			t.Logf("%s is not built", name)
			continue
		}
		total += len(text(res))
	}
	if total > 100<<10 {
		t.Errorf("%d KB", total>>10)
	}
	t.Logf("%d bytes compressed", total)
}

// V-10 and V-11: a name, a summary, a log or a description never becomes markup.
func TestTextStaysText(t *testing.T) {
	t.Parallel()
	s := newCast(t)
	const evil = `<script>alert(1)</script><img src=x onerror=alert(1)>"'`
	if code := s.people["owner"].api("PATCH", "/projects/owner/data", map[string]string{"summary": evil, "description": evil + "\n\n[x](javascript:alert(1)) ![y](https://evil.example/t.gif)\n\n<b onclick=x>b</b>"}, nil); code != 200 {
		t.Fatal(code)
	}
	if code := s.people["owner"].api("PATCH", "/me", map[string]string{"full_name": evil}, nil); code != 200 {
		t.Fatal(code)
	}
	s.node.mu.Lock()
	s.node.fail = quire.OrderDirectory
	s.node.mu.Unlock()
	s.people["owner"].do("POST", "/owner/data/start", url.Values{})
	s.eventually("the start fails", func() bool { return strings.Contains(s.people["owner"].get("/owner/data"), "Reset") })
	for _, path := range []string{"/owner/data", "/", "/owner", "/owner/data/settings", "/search?q=" + url.QueryEscape(evil), "/people?q=" + url.QueryEscape(evil), "/account", "/owner/data/activity"} {
		body := s.people["owner"].get(path)
		for _, bad := range []string{"<script>", "<img", "onerror=alert(1)>", "javascript:", "evil.example/t.gif", "<b onclick"} {
			if strings.Contains(body, bad) && (path != "/owner/data/settings" || bad[0] == '<') { // there it is text to be edited
				t.Errorf("%s contains %s", path, bad)
			}
		}
	}
	page := s.people["owner"].get("/owner/data")
	for _, want := range []string{"There was an error starting this project", "There is no space left on the node.", "disk full", "&lt;script&gt;alert(1)"} {
		if !strings.Contains(page, want) {
			t.Errorf("the failed start does not show %q", want)
		}
	}
	s.node.mu.Lock()
	s.node.fail = 0
	s.node.mu.Unlock()
	if res := s.people["owner"].do("POST", "/owner/data/reset", url.Values{}); res.StatusCode != 303 {
		t.Errorf("reset: %d", res.StatusCode)
	}
}

// The whole way of a project through its pages.
func TestProjectLife(t *testing.T) {
	t.Parallel()
	s := newCast(t)
	owner := s.people["owner"]
	res := owner.do("POST", "/new", url.Values{"name": {"life"}, "summary": {"A short one"}, "visibility": {"private"}})
	if res.StatusCode != 303 || res.Header.Get("Location") != "/owner/life" {
		t.Fatalf("new: %d %s", res.StatusCode, text(res))
	}
	page := owner.get("/owner/life")
	for _, want := range []string{"A short one", "This project is stopped.", "Nothing is in the public folder yet.", "Write a description", "(owner)", "Nobody runs anything right now."} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if page := owner.get("/owner/life/notebook"); !strings.Contains(page, "Start Notebook") {
		t.Error("the app's address does not offer to start it")
	}
	res = owner.do("POST", "/owner/life/notebook/notebooks/a%20b.ipynb", url.Values{})
	to := res.Header.Get("Location")
	if res.StatusCode != 303 || !strings.Contains(to, ".apps.localhost:8089/notebook/notebooks/a%20b.ipynb") {
		t.Fatalf("open: %d to %s", res.StatusCode, to)
	}
	s.eventually("the notebook runs", func() bool {
		page := owner.get("/owner/life")
		return strings.Contains(page, "Stop…") && strings.Contains(page, "done in")
	})
	if page := owner.get("/owner/life"); !strings.Contains(page, "Project directory") || !strings.Contains(page, "Environment “default”") {
		t.Error("the timeline does not name its steps")
	}
	if res := owner.do("GET", "/owner/life/notebook/tree?x=1", nil); res.StatusCode != 303 || !strings.HasSuffix(res.Header.Get("Location"), "/notebook/tree?x=1") {
		t.Errorf("shared address: %d to %s", res.StatusCode, res.Header.Get("Location"))
	}
	if res := owner.do("POST", "/owner/life/team", url.Values{"name": {"nosuch"}}); res.StatusCode != 400 || !strings.Contains(text(res), "Nobody here is called nosuch") {
		t.Errorf("unknown member: %d", res.StatusCode)
	}
	if res := owner.do("POST", "/owner/life/team", url.Values{"name": {"editor"}}); res.StatusCode != 303 {
		t.Errorf("add: %d", res.StatusCode)
	}
	if page := s.people["editor"].get("/"); !strings.Contains(page, "/owner/life") {
		t.Error("the project is not under Contributing")
	}
	if res := owner.do("POST", "/owner/life/delete", url.Values{"confirm": {"wrong"}}); res.StatusCode != 400 || !strings.Contains(text(res), "confirm-bad") {
		t.Errorf("wrong name: %d", res.StatusCode)
	}
	if res := owner.do("POST", "/owner/life/delete", url.Values{"confirm": {"life"}}); res.StatusCode != 303 {
		t.Errorf("delete: %d", res.StatusCode)
	}
	var gone []quire.Project
	s.eventually("it is deleted", func() bool {
		owner.api("GET", "/projects?list=deleted", nil, &gone)
		return len(gone) == 1 && gone[0].State == quire.ProjectDeleted
	})
	if page := owner.get("/"); !strings.Contains(page, "/projects/"+string(gone[0].ID)+"/restore") {
		t.Error("the dashboard does not offer to restore it")
	}
	s.eventually("it can be restored", func() bool {
		return owner.do("POST", "/projects/"+string(gone[0].ID)+"/restore", url.Values{}).StatusCode == 303
	})
	s.eventually("it is back", func() bool { return owner.do("GET", "/owner/life", nil).StatusCode == 200 })
}

// The OpenAPI document knows every row and points nowhere into the void.
func TestOpenAPI(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	var doc struct {
		OpenAPI    string
		Paths      map[string]map[string]any
		Components struct{ Schemas map[string]any }
	}
	raw := text((&client{site: s}).do("GET", "/api/v1/openapi.json", nil))
	must(t, json.Unmarshal([]byte(raw), &doc))
	ids := map[string]bool{}
	for _, r := range s.server.routes {
		if !r.API() || r.Out == nil {
			continue
		}
		op, ok := doc.Paths[r.Path()][strings.ToLower(r.Method())].(map[string]any)
		if !ok {
			t.Errorf("%s is not described", r.Pattern)
			continue
		}
		id, _ := op["operationId"].(string)
		if ids[id] || r.Summary == "" {
			t.Errorf("%s: id %q, summary %q", r.Pattern, id, r.Summary)
		}
		ids[id] = true
		for _, name := range regexp.MustCompile(`\{(\w+)\}`).FindAllStringSubmatch(r.Path(), -1) {
			if !strings.Contains(mustJSON(t, op["parameters"]), `"name":"`+name[1]+`"`) {
				t.Errorf("%s: {%s} is not described", r.Pattern, name[1])
			}
		}
	}
	for _, m := range regexp.MustCompile(`#/components/schemas/(\w+)`).FindAllStringSubmatch(raw, -1) {
		if doc.Components.Schemas[m[1]] == nil {
			t.Errorf("no schema %s", m[1])
		}
	}
	if !strings.Contains(raw, `"OwnerName"`) && !strings.Contains(raw, `"owner_name"`) {
		t.Error("a project has no owner_name")
	}
}

func mustJSON(t testing.TB, v any) string {
	b, err := json.Marshal(v)
	must(t, err)
	return string(b)
}

// Views are pure functions: what the page says in each state.
func TestStateSentences(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		p       quire.Project
		running int
		work    bool
		want    string
	}{
		{quire.Project{State: quire.ProjectStopped}, 0, true, "This project is stopped. Start it, or open an app: that starts it too."},
		{quire.Project{State: quire.ProjectStopped}, 0, false, "This project is stopped."},
		{quire.Project{State: quire.ProjectStopped, Reason: "Stopped by the idle rule at 14:02"}, 0, false, "Stopped by the idle rule at 14:02. This project is stopped."},
		{quire.Project{State: quire.ProjectRunning}, 2, true, "Prepared and open, with 2 sessions."},
		{quire.Project{State: quire.ProjectFailed, Reason: "No space"}, 0, true, "There was an error starting this project. No space."},
		{quire.Project{State: quire.ProjectStopping}, 1, true, "Everybody's sessions are being ended."},
	} {
		if got := stateSentence(c.p, c.running, c.work); got != c.want {
			t.Errorf("%s: %q", c.p.State, got)
		}
	}
}

func TestTimelineView(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	at := func(s float64) *time.Time { x := now.Add(time.Duration(s * float64(time.Second))); return &x }
	v := newTimeline(&quire.Work{Kind: "start", State: quire.WorkRunning, Created: *at(-5), Steps: []quire.Step{
		{Name: "directory", State: quire.WorkDone, Started: at(-5), Ended: at(-4.8)}, {Name: "environment", State: quire.WorkRunning, Started: at(-4.8), Note: "cloning"}, {Name: "app", State: quire.WorkWaiting},
	}}, now)
	if v.Title != "Start" || !v.Open || v.Steps[0].Time != "0.2 s" || v.Steps[1].Elapsed != 4800 || !v.Steps[1].Runs || v.Steps[1].Show.Word != "working" || v.Steps[2].Time != "" {
		t.Errorf("%+v", v)
	}
	if newTimeline(nil, now) != nil {
		t.Error("no work has a timeline")
	}
	for s, want := range map[float64]string{0: "0 s", 3.14159: "3.1 s", 42.4: "42 s", 134: "2 min 14 s"} {
		if got := seconds(s); got != want {
			t.Errorf("%v: %s", s, got)
		}
	}
	for d, want := range map[time.Duration]string{10 * time.Second: "just now", 5 * time.Minute: "5 min ago", 3 * time.Hour: "3 h ago", 72 * time.Hour: "3 days ago", 40 * 24 * time.Hour: "20 January", 400 * 24 * time.Hour: "25 January 2025", -2 * time.Hour: "in 2 h"} {
		if got := ago(now.Add(-d), now); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
}

func TestAppsOfAViewer(t *testing.T) {
	t.Parallel()
	l := loaded{project: quire.Project{State: quire.ProjectRunning, Role: quire.RoleViewer, OwnerName: "o", Name: "p"}, apps: []control.AppState{
		{App: quire.App{Name: "notebook", Title: "Notebook", Permit: "write"}}, {App: quire.App{Name: "viewer", Title: "Viewer", Permit: "read"}, Allowed: true},
	}, sessions: []quire.Session{{User: "u_b", UserName: "bob", App: "notebook", State: quire.SessionRunning}}}
	v := newProjectPageView(quire.Actor{User: "u_a", Name: "ann"}, l, "", time.Now())
	if v.Apps[0].Allowed || v.Apps[0].Why != "Needs the role editor." || !v.Apps[1].Allowed || v.CanStop || v.CanManage || len(v.Others) != 1 || v.Others[0] != "bob (Notebook)" || v.Running[0].CanStop {
		t.Errorf("%+v", v)
	}
}

func TestAdvice(t *testing.T) {
	t.Parallel()
	up, away := quire.DataCenter{Name: "a", Up: true}, quire.DataCenter{Name: "b"}
	for want, got := range map[string]string{
		"":                       advice([]quire.DataCenter{up}, []quire.Node{{Up: true}}),
		"Data center b is away.": advice([]quire.DataCenter{up, away}, []quire.Node{{Up: true}}),
		"No compute node has joined yet, so no project can start.": advice([]quire.DataCenter{up}, nil),
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// The live stream says what changed, as the parts of the page.
func TestLive(t *testing.T) {
	t.Parallel()
	s := newCast(t)
	st := s.newStage("alive")
	s.listen()
	events := s.stream("owner", "/owner/alive/events")
	first := <-events
	if first.event != "part" || first.part.Name != "statepart" || !strings.Contains(first.part.HTML, "stopped") {
		t.Fatalf("%+v", first)
	}
	if res := s.people["owner"].do("POST", "/owner/alive/notebook", url.Values{}); res.StatusCode != 303 {
		t.Fatal(res.StatusCode)
	}
	names := map[string]bool{}
	said := ""
	deadline := time.After(20 * time.Second)
	for !names["timeline"] || !names["apps"] || !names["running"] || !strings.Contains(said, "is running") {
		select {
		case e, ok := <-events:
			if !ok {
				t.Fatal("the stream ended")
			}
			names[e.part.Name] = names[e.part.Name] || e.event == "part" && strings.Contains(e.part.HTML, "running")
			if e.part.Name == "timeline" && strings.Contains(e.part.HTML, "Permissions of the team") {
				names["timeline"] = true
			}
			if e.part.Say != "" {
				said = e.part.Say
			}
		case <-deadline:
			t.Fatalf("seen %v, said %q", names, said)
		}
	}
	// Who loses the right, or the login, loses the stream.
	viewer := s.stream("viewer", "/owner/alive/events")
	<-viewer
	must(t, s.control.Team.Remove(context.Background(), s.people["owner"].actor(), st.project.ID, "viewer"))
	s.overs(viewer, "the removed viewer's stream ends")
	board := s.stream("editor", "/events")
	<-board
	must(t, s.control.Logins.LeaveAll(context.Background(), s.people["editor"].actor()))
	must(t, s.control.Projects.Star(context.Background(), s.people["owner"].actor(), st.project.ID, true))
	s.overs(board, "the stream of an ended login ends")
}
