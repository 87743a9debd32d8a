package server

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sort"
	"strings"
	"testing"

	"quire"
	"quire/control"
)

// roles is the order of the columns below.
var roles = [6]string{"nobody", "stranger", "viewer", "editor", "owner", "admin"}

// cell is what one row of the route table is asked with, and what each role
// gets. In path and body, P is the project's address, PID its identity, SID a
// session of the owner, LID the asker's own login.
type cell struct {
	path  string
	body  any
	want  [6]int
	fresh string // "project", "login": something of its own for each try
}

var (
	anyone   = [6]int{200, 200, 200, 200, 200, 200}
	people   = [6]int{303, 200, 200, 200, 200, 200} // a page: nobody is led to the sign-in
	acting   = [6]int{401, 303, 303, 303, 303, 303} // a form that leads on
	asking   = [6]int{401, 200, 200, 200, 200, 200} // the API
	seeing   = [6]int{303, 404, 200, 200, 200, 200} // a page of a private project
	reading  = [6]int{401, 404, 200, 200, 200, 200} // the same in the API
	admins   = [6]int{303, 403, 403, 403, 403, 200}
	form     = url.Values{}
	noBody   = any(nil)
	goodForm = func(kv ...string) url.Values {
		v := url.Values{}
		for i := 0; i < len(kv); i += 2 {
			v.Set(kv[i], kv[i+1])
		}
		return v
	}
)

// matrix is who may do what, for every row of the table. A row without an entry
// here fails the test, and so does an entry without a row.
var matrix = map[string]cell{
	"GET /healthz":       {"/healthz", noBody, anyone, ""},
	"GET /robots.txt":    {"/robots.txt", noBody, anyone, ""},
	"GET /favicon.ico":   {"/favicon.ico", noBody, [6]int{303, 303, 303, 303, 303, 303}, ""},
	"GET /assets/{name}": {"/assets/no-such-file.js", noBody, [6]int{404, 404, 404, 404, 404, 404}, ""},
	"GET /setup":         {"/setup?key=wrong", noBody, [6]int{404, 404, 404, 404, 404, 404}, ""},
	"POST /setup":        {"/setup", goodForm("key", "wrong", "name", "x", "password", testPassword, "again", testPassword), [6]int{404, 404, 404, 404, 404, 404}, ""},
	"GET /login":         {"/login", noBody, [6]int{200, 303, 303, 303, 303, 303}, ""},
	"POST /login":        {"/login", goodForm("name", "stranger", "password", testPassword), [6]int{303, 303, 303, 303, 303, 303}, "login"},
	"GET /logout":        {"/logout", noBody, people, ""},
	"POST /logout":       {"/logout", form, [6]int{303, 303, 303, 303, 303, 303}, "login"},
	"POST /theme":        {"/theme", goodForm("theme", "dark", "next", "/"), [6]int{303, 303, 303, 303, 303, 303}, ""},
	"GET /help":          {"/help", noBody, anyone, ""},
	"GET /help/api":      {"/help/api", noBody, anyone, ""},

	"GET /{$}":                             {"/", noBody, people, ""},
	"GET /events":                          {"/events", noBody, people, ""},
	"GET /new":                             {"/new", noBody, people, ""},
	"POST /new":                            {"/new", goodForm("name", "fresh"), acting, ""},
	"POST /projects/{id}/restore":          {"/projects/PID/restore", form, [6]int{401, 404, 404, 404, 303, 303}, "deleted"},
	"GET /search":                          {"/search?q=data", noBody, people, ""},
	"GET /people":                          {"/people", noBody, people, ""},
	"GET /people/{name}":                   {"/people/owner", noBody, [6]int{303, 303, 303, 303, 303, 303}, ""},
	"GET /authorize":                       {"/authorize?label=LABEL&path=/notebook/&nonce=" + strings.Repeat("ab", 32), noBody, [6]int{303, 404, 404, 404, 200, 404}, ""},
	"GET /account":                         {"/account", noBody, people, ""},
	"POST /account":                        {"/account", goodForm("full_name", "Somebody"), acting, ""},
	"GET /account/password":                {"/account/password", noBody, people, ""},
	"POST /account/password":               {"/account/password", goodForm("old", testPassword, "new", "another fine long one", "again", "yet another"), [6]int{401, 400, 400, 400, 400, 400}, ""},
	"GET /account/logins":                  {"/account/logins", noBody, people, ""},
	"POST /account/logins/{id}/end":        {"/account/logins/LID/end", form, acting, "login"},
	"GET /account/log":                     {"/account/log", noBody, people, ""},
	"GET /admin":                           {"/admin", noBody, admins, ""},
	"GET /admin/events":                    {"/admin/events", noBody, admins, ""},
	"GET /admin/log":                       {"/admin/log", noBody, admins, ""},
	"GET /admin/users":                     {"/admin/users", noBody, admins, ""},
	"POST /admin/users":                    {"/admin/users", goodForm("name", "!"), [6]int{401, 403, 403, 403, 403, 400}, ""},
	"POST /admin/users/{name}":             {"/admin/users/stranger", goodForm("do", "enable"), [6]int{401, 403, 403, 403, 403, 303}, ""},
	"GET /admin/data-centers":              {"/admin/data-centers", noBody, admins, ""},
	"GET /admin/data-centers/events":       {"/admin/data-centers/events", noBody, [6]int{303, 403, 403, 403, 403, 200}, ""},
	"POST /admin/data-centers":             {"/admin/data-centers", goodForm("name", "!"), [6]int{401, 403, 403, 403, 403, 400}, ""},
	"POST /admin/authority":                {"/admin/authority", goodForm("do", "?"), [6]int{401, 403, 403, 403, 403, 400}, ""},
	"GET /admin/data-centers/{id}":         {"/admin/data-centers/d_none", noBody, [6]int{303, 403, 403, 403, 403, 404}, ""},
	"POST /admin/data-centers/{id}":        {"/admin/data-centers/d_none", goodForm("do", "remove"), [6]int{401, 403, 403, 403, 403, 404}, ""},
	"GET /admin/resources":                 {"/admin/resources", noBody, admins, ""},
	"GET /admin/resources/events":          {"/admin/resources/events", noBody, [6]int{303, 403, 403, 403, 403, 200}, ""},
	"POST /admin/resources":                {"/admin/resources", goodForm("name", "n", "address", "file:///etc"), [6]int{401, 403, 403, 403, 403, 400}, ""},
	"GET /admin/resources/{id}":            {"/admin/resources/n_none", noBody, [6]int{303, 403, 403, 403, 403, 404}, ""},
	"POST /admin/resources/{id}":           {"/admin/resources/n_none", goodForm("do", "remove"), [6]int{401, 403, 403, 403, 403, 404}, ""},
	"POST /admin/join-tokens/{id}/end":     {"/admin/join-tokens/none/end", form, [6]int{401, 403, 403, 403, 403, 303}, ""},
	"POST /api/v1/join":                    {"/api/v1/join", `{}`, [6]int{400, 400, 400, 400, 400, 400}, ""},
	"GET /api/v1/data-centers/{id}/status": {"/api/v1/data-centers/d_aaaaaaaaaaaaaaaa/status", noBody, [6]int{401, 403, 403, 403, 403, 200}, ""},
	"PATCH /api/v1/data-centers/{id}":      {"/api/v1/data-centers/d_none", `{}`, [6]int{401, 403, 403, 403, 403, 404}, ""},
	"PATCH /api/v1/nodes/{id}":             {"/api/v1/nodes/n_none", `{}`, [6]int{401, 403, 403, 403, 403, 404}, ""},
	"DELETE /api/v1/nodes/{id}":            {"/api/v1/nodes/n_none", noBody, [6]int{401, 403, 403, 403, 403, 404}, ""},
	"GET /api/v1/machine-events":           {"/api/v1/machine-events", noBody, [6]int{401, 403, 403, 403, 403, 200}, ""},
	"GET /api/v1/join-tokens":              {"/api/v1/join-tokens", noBody, [6]int{401, 403, 403, 403, 403, 200}, ""},
	"POST /api/v1/join-tokens":             {"/api/v1/join-tokens", `{"role":"x"}`, [6]int{401, 403, 403, 403, 403, 400}, ""},
	"DELETE /api/v1/join-tokens/{id}":      {"/api/v1/join-tokens/none", noBody, [6]int{401, 403, 403, 403, 403, 404}, ""},
	"POST /admin/setup-links":              {"/admin/setup-links", form, [6]int{401, 403, 403, 403, 403, 200}, ""},
	"GET /{owner}":                         {"/owner", noBody, people, ""},
	"GET /{owner}/{project}":               {"P", noBody, seeing, ""},
	"GET /{owner}/{project}/{$}":           {"P/", noBody, [6]int{303, 404, 303, 303, 303, 303}, ""},
	"GET /{owner}/{project}/events":        {"P/events", noBody, seeing, ""},
	"POST /{owner}/{project}/start":        {"P/start", form, [6]int{401, 404, 403, 303, 303, 403}, "project"},
	"POST /{owner}/{project}/stop":         {"P/stop", form, [6]int{401, 404, 403, 303, 303, 303}, "project"},
	"POST /{owner}/{project}/reset":        {"P/reset", form, [6]int{401, 404, 403, 303, 303, 403}, "project"},
	"POST /{owner}/{project}/star":         {"P/star", goodForm("on", "1"), [6]int{401, 404, 303, 303, 303, 303}, ""},
	"POST /{owner}/{project}/team":         {"P/team", goodForm("name", "chief", "role", "viewer"), [6]int{401, 404, 403, 403, 303, 303}, "project"},
	"GET /{owner}/{project}/{app}":         {"P/notebook", noBody, [6]int{303, 404, 403, 200, 200, 403}, "project"},
	"POST /{owner}/{project}/{app}":        {"P/notebook", form, [6]int{401, 404, 403, 303, 303, 403}, "project"},
	"POST /{owner}/{project}/delete":       {"P/delete", goodForm("confirm", "NAME"), [6]int{401, 404, 403, 403, 303, 303}, "project"},

	"POST /{owner}/{project}/team/remove":          {"P/team/remove", goodForm("name", "viewer"), [6]int{401, 404, 303, 403, 303, 303}, "project"}, // a viewer may leave
	"GET /{owner}/{project}/activity":              {"P/activity", noBody, seeing, ""},
	"GET /{owner}/{project}/sessions":              {"P/sessions", noBody, seeing, ""},
	"GET /{owner}/{project}/sessions/events":       {"P/sessions/events", noBody, seeing, ""},
	"GET /{owner}/{project}/sessions/{id}/log":     {"P/sessions/SID/log", noBody, [6]int{303, 404, 404, 404, 200, 404}, ""},
	"POST /{owner}/{project}/sessions/{id}/stop":   {"P/sessions/SID/stop", form, [6]int{401, 404, 403, 303, 303, 303}, "session"},
	"GET /{owner}/{project}/settings":              {"P/settings", noBody, [6]int{303, 404, 403, 200, 200, 200}, ""},
	"POST /{owner}/{project}/settings":             {"P/settings", goodForm("summary", "New"), [6]int{401, 404, 403, 303, 303, 403}, "project"},
	"GET /{owner}/{project}/settings/team":         {"P/settings/team", noBody, [6]int{303, 404, 403, 200, 200, 200}, ""},
	"GET /{owner}/{project}/settings/permissions":  {"P/settings/permissions", noBody, [6]int{303, 404, 403, 200, 200, 200}, ""},
	"POST /{owner}/{project}/settings/owner":       {"P/settings/owner", goodForm("name", "viewer"), [6]int{401, 404, 403, 403, 303, 303}, "project"},
	"POST /{owner}/{project}/settings/repair":      {"P/settings/repair", form, [6]int{401, 404, 403, 303, 303, 403}, "project"},
	"POST /{owner}/{project}/settings/move":        {"P/settings/move", goodForm("node", ""), [6]int{401, 404, 403, 403, 400, 400}, "project"}, // there is no other node
	"POST /{owner}/{project}/settings/move/cancel": {"P/settings/move/cancel", form, [6]int{401, 404, 403, 403, 409, 409}, "project"},
	"POST /{owner}/{project}/settings/take-over":   {"P/settings/take-over", goodForm("uid", "20007"), [6]int{401, 404, 403, 403, 409, 409}, "project"}, // one account: all files are its own
	"GET /{owner}/{project}/settings/admin":        {"P/settings/admin", noBody, [6]int{303, 404, 403, 200, 200, 200}, ""},
	"GET /{owner}/{project}/settings/info":         {"P/settings/info", noBody, [6]int{303, 404, 403, 200, 200, 200}, ""},
	"POST /{owner}/{project}/settings/visibility":  {"P/settings/visibility", goodForm("public", "1"), [6]int{401, 404, 403, 403, 303, 303}, "project"},
	// Nothing is on disk yet: one answer with what never was. A started project is in control's test.
	"GET /{owner}/{project}/public":           {"P/public", noBody, [6]int{303, 404, 404, 404, 404, 404}, ""},
	"GET /{owner}/{project}/public/{path...}": {"P/public/a/b.md?raw=1", noBody, [6]int{303, 404, 404, 404, 404, 404}, ""},
	"GET /{owner}/{project}/{app}/{path...}":  {"P/notebook/notebooks/a.ipynb?x=1", noBody, [6]int{303, 404, 403, 200, 200, 403}, "project"},
	"POST /{owner}/{project}/{app}/{path...}": {"P/notebook/notebooks/a.ipynb", form, [6]int{401, 404, 403, 303, 303, 403}, "project"},

	"GET /api/v1/openapi.json":           {"/api/v1/openapi.json", noBody, anyone, ""},
	"POST /api/v1/logins":                {"/api/v1/logins", `{"name":"stranger","password":"` + testPassword + `"}`, anyone, ""},
	"GET /api/v1/logins":                 {"/api/v1/logins", noBody, asking, ""},
	"DELETE /api/v1/logins/{id}":         {"/api/v1/logins/LID", noBody, asking, "login"},
	"POST /api/v1/logout":                {"/api/v1/logout", noBody, asking, "login"},
	"GET /api/v1/me":                     {"/api/v1/me", noBody, asking, ""},
	"PATCH /api/v1/me":                   {"/api/v1/me", `{"full_name":"X"}`, asking, ""},
	"PUT /api/v1/me/password":            {"/api/v1/me/password", `{"old":"` + testPassword + `","new":"x"}`, [6]int{401, 400, 400, 400, 400, 400}, ""},
	"GET /api/v1/me/events":              {"/api/v1/me/events", noBody, asking, ""},
	"GET /api/v1/people":                 {"/api/v1/people?prefix=o", noBody, asking, ""},
	"GET /api/v1/people/{name}":          {"/api/v1/people/owner", noBody, asking, ""},
	"GET /api/v1/search":                 {"/api/v1/search?q=d", noBody, asking, ""},
	"POST /api/v1/markdown":              {"/api/v1/markdown", `{"text":"*hi*"}`, asking, ""},
	"GET /api/v1/projects":               {"/api/v1/projects", noBody, asking, ""},
	"POST /api/v1/projects":              {"/api/v1/projects", `{"name":"apimade"}`, asking, ""},
	"POST /api/v1/projects/{id}/restore": {"/api/v1/projects/PID/restore", noBody, [6]int{401, 404, 404, 404, 200, 200}, "deleted"},
	"GET /api/v1/data-centers":           {"/api/v1/data-centers", noBody, asking, ""},
	"GET /api/v1/nodes":                  {"/api/v1/nodes", noBody, asking, ""},
	"GET /api/v1/users":                  {"/api/v1/users", noBody, [6]int{401, 403, 403, 403, 403, 200}, ""},
	"POST /api/v1/users":                 {"/api/v1/users", `{"name":"!"}`, [6]int{401, 403, 403, 403, 403, 400}, ""},
	"PATCH /api/v1/users/{name}":         {"/api/v1/users/stranger", `{"email":"s@example.org"}`, [6]int{401, 403, 403, 403, 403, 200}, ""},
	"POST /api/v1/setup-links":           {"/api/v1/setup-links", noBody, [6]int{401, 403, 403, 403, 403, 200}, ""},

	"GET /api/v1/projects/{owner}/{project}":                        {"/api/v1/projectsP", noBody, reading, ""},
	"PATCH /api/v1/projects/{owner}/{project}":                      {"/api/v1/projectsP", `{"summary":"S"}`, [6]int{401, 404, 403, 200, 200, 403}, "project"},
	"DELETE /api/v1/projects/{owner}/{project}":                     {"/api/v1/projectsP?confirm=NAME", noBody, [6]int{401, 404, 403, 403, 200, 200}, "project"},
	"POST /api/v1/projects/{owner}/{project}/start":                 {"/api/v1/projectsP/start", noBody, [6]int{401, 404, 403, 200, 200, 403}, "project"},
	"POST /api/v1/projects/{owner}/{project}/stop":                  {"/api/v1/projectsP/stop", noBody, [6]int{401, 404, 403, 200, 200, 200}, "project"},
	"POST /api/v1/projects/{owner}/{project}/reset":                 {"/api/v1/projectsP/reset", noBody, [6]int{401, 404, 403, 200, 200, 403}, "project"},
	"PUT /api/v1/projects/{owner}/{project}/star":                   {"/api/v1/projectsP/star", noBody, reading, ""},
	"DELETE /api/v1/projects/{owner}/{project}/star":                {"/api/v1/projectsP/star", noBody, reading, ""},
	"GET /api/v1/projects/{owner}/{project}/timeline":               {"/api/v1/projectsP/timeline", noBody, reading, ""},
	"GET /api/v1/projects/{owner}/{project}/events":                 {"/api/v1/projectsP/events", noBody, reading, ""},
	"GET /api/v1/projects/{owner}/{project}/team":                   {"/api/v1/projectsP/team", noBody, reading, ""},
	"GET /api/v1/projects/{owner}/{project}/permissions":            {"/api/v1/projectsP/permissions", noBody, reading, ""},
	"POST /api/v1/projects/{owner}/{project}/permissions/repair":    {"/api/v1/projectsP/permissions/repair", noBody, [6]int{401, 404, 403, 200, 200, 403}, "project"},
	"GET /api/v1/projects/{owner}/{project}/permissions/why":        {"/api/v1/projectsP/permissions/why?name=viewer&path=a", noBody, [6]int{401, 404, 403, 409, 409, 409}, ""},
	"GET /api/v1/projects/{owner}/{project}/permissions/authors":    {"/api/v1/projectsP/permissions/authors", noBody, [6]int{401, 404, 403, 403, 409, 409}, ""},
	"GET /api/v1/projects/{owner}/{project}/move":                   {"/api/v1/projectsP/move", noBody, [6]int{401, 404, 403, 403, 200, 200}, ""},
	"POST /api/v1/projects/{owner}/{project}/move":                  {"/api/v1/projectsP/move", `{"node":""}`, [6]int{401, 404, 403, 403, 400, 400}, "project"},
	"DELETE /api/v1/projects/{owner}/{project}/move":                {"/api/v1/projectsP/move", noBody, [6]int{401, 404, 403, 403, 409, 409}, "project"},
	"POST /api/v1/projects/{owner}/{project}/permissions/take-over": {"/api/v1/projectsP/permissions/take-over", `{"uid":20007}`, [6]int{401, 404, 403, 403, 409, 409}, "project"},
	"PUT /api/v1/projects/{owner}/{project}/owner":                  {"/api/v1/projectsP/owner", `{"name":"viewer"}`, [6]int{401, 404, 403, 403, 200, 200}, "project"},
	"PUT /api/v1/projects/{owner}/{project}/team/{name}":            {"/api/v1/projectsP/team/chief", `{"role":"viewer"}`, [6]int{401, 404, 403, 403, 200, 200}, "project"},
	"DELETE /api/v1/projects/{owner}/{project}/team/{name}":         {"/api/v1/projectsP/team/editor", noBody, [6]int{401, 404, 403, 200, 200, 200}, "project"},
	"GET /api/v1/projects/{owner}/{project}/apps":                   {"/api/v1/projectsP/apps", noBody, reading, ""},
	"POST /api/v1/projects/{owner}/{project}/apps/{app}":            {"/api/v1/projectsP/apps/terminal", noBody, [6]int{401, 404, 403, 200, 200, 403}, "project"},
	"GET /api/v1/projects/{owner}/{project}/sessions":               {"/api/v1/projectsP/sessions", noBody, reading, ""},
	"DELETE /api/v1/projects/{owner}/{project}/sessions/{id}":       {"/api/v1/projectsP/sessions/SID", noBody, [6]int{401, 404, 403, 200, 200, 200}, "session"},
	"GET /api/v1/projects/{owner}/{project}/sessions/{id}/log":      {"/api/v1/projectsP/sessions/SID/log", noBody, [6]int{401, 404, 404, 404, 200, 404}, ""},
}

// stage is a cell's things for one try.
type stage struct {
	s       *testSite
	project quire.Project
	session quire.Session
}

func (st stage) fill(text string, asker *client) string {
	label := ""
	if strings.Contains(text, "LABEL") {
		at, err := st.s.control.Sessions.Find(context.Background(), st.s.people["owner"].actor(), st.project.ID, "notebook", "/")
		must(st.s.t, err)
		u, err := url.Parse(at.URL)
		must(st.s.t, err)
		label, _, _ = strings.Cut(u.Host, ".")
	}
	login := "l_aaaaaaaaaaaaaaaa"
	if asker != nil && strings.Contains(text, "LID") && asker.read != "" {
		login = string(asker.actor().Login)
	}
	return strings.NewReplacer("SID", string(st.session.ID), "PID", string(st.project.ID), "LID", login, "LABEL", label, "NAME", st.project.Name, "P/", st.project.Path()+"/",
		"projectsP", "projects"+st.project.Path()).Replace(text)
}

func (st stage) path(c cell, asker *client) string {
	if c.path == "P" {
		return st.project.Path()
	}
	return st.fill(c.path, asker)
}

func (st stage) body(c cell) any {
	f, ok := c.body.(url.Values)
	if !ok {
		return c.body
	}
	out := url.Values{}
	for k := range f {
		out.Set(k, st.fill(f.Get(k), nil))
	}
	return out
}

// newStage makes a project with the same team as the first one.
func (s *testSite) newStage(name string) stage {
	s.t.Helper()
	ctx, by := context.Background(), s.people["owner"].actor()
	p, err := s.control.Projects.Create(ctx, by, control.NewProject{Name: name})
	must(s.t, err)
	must(s.t, s.control.Team.Set(ctx, by, p.ID, "editor", quire.RoleEditor))
	must(s.t, s.control.Team.Set(ctx, by, p.ID, "viewer", quire.RoleViewer))
	return stage{s: s, project: p}
}

// withSession opens an app as the owner and waits until it runs.
func (st stage) withSession() stage {
	st.s.t.Helper()
	ctx, by := context.Background(), st.s.people["owner"].actor()
	at, err := st.s.control.Sessions.Open(ctx, by, st.project.ID, "notebook")
	must(st.s.t, err)
	st.session = *at.Session
	st.s.eventually("the session runs", func() bool {
		at, err := st.s.control.Sessions.Find(ctx, by, st.project.ID, "notebook", "/")
		return err == nil && at.Session != nil && at.Session.State == quire.SessionRunning
	})
	return st
}

// deleted deletes the project as its owner and waits until it is put aside.
func (st stage) deleted() stage {
	st.s.t.Helper()
	ctx, by := context.Background(), st.s.people["owner"].actor()
	must(st.s.t, st.s.control.Projects.Delete(ctx, by, st.project.ID, st.project.Name))
	st.s.eventually("the project is put aside", func() bool {
		all, err := st.s.control.Projects.List(ctx, by, control.Deleted)
		for _, p := range all {
			if p.ID == st.project.ID && p.State == quire.ProjectDeleted {
				w, _ := st.s.control.Sessions.Timeline(ctx, quire.Actor{System: true}, p.ID)
				return err == nil && w != nil && w.State == quire.WorkDone
			}
		}
		return false
	})
	return st
}

// untilFlushed lets a stream end as soon as it has begun.
type untilFlushed struct {
	*httptest.ResponseRecorder
	end context.CancelFunc
}

func (u untilFlushed) Flush() { u.ResponseRecorder.Flush(); u.end() }

// ask sends a request and reads the status, also of a stream.
func (c *client) ask(method, path string, body any, edit ...func(*http.Request)) *http.Response {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	w := untilFlushed{httptest.NewRecorder(), cancel}
	c.site.server.ServeHTTP(w, c.request(method, path, body, edit...).WithContext(ctx))
	return w.Result()
}

// every row of the table, asked by every role.
func TestRolesAndRoutes(t *testing.T) {
	t.Parallel()
	s := newCast(t)
	shared := s.newStage("shared").withSession()
	var patterns []string
	known := map[string]bool{}
	for _, r := range s.server.routes {
		known[r.Pattern] = true
		patterns = append(patterns, r.Pattern)
		if _, ok := matrix[r.Pattern]; !ok {
			t.Errorf("%s has no row in the matrix: say there what each role gets", r.Pattern)
		}
	}
	for p := range matrix {
		if !known[p] {
			t.Errorf("the matrix has a row for %s, which is no route", p)
		}
	}
	sort.Strings(patterns)
	n := 0
	for _, pattern := range patterns {
		c := matrix[pattern]
		method, _, _ := strings.Cut(pattern, " ")
		for i, role := range roles {
			st, asker := shared, s.people[role]
			switch n++; c.fresh {
			case "project":
				st = s.newStage("m" + itoa(n))
			case "deleted":
				st = s.newStage("m" + itoa(n)).deleted()
			case "session":
				st = s.newStage("m" + itoa(n)).withSession()
			case "login":
				if role != "nobody" {
					asker = s.enter(map[string]string{"admin": "chief"}[role] + strings.TrimPrefix(role, "admin"))
				}
			}
			res := asker.ask(method, st.path(c, asker), st.body(c))
			if want := c.want[i]; res.StatusCode != want {
				if pattern == "POST /new" || pattern == "POST /api/v1/projects" {
					t.Log(text(res))
				}
				t.Errorf("%s as %s (%s): %d, want %d", pattern, role, st.path(c, asker), res.StatusCode, want)
			}
		}
	}
}

// A-12 and the two muxes: no person can be called what a page is called.
func TestFirstWordsAreReserved(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for word := range s.server.words {
		if word == "" || word == "{$}" {
			continue
		}
		if quire.CheckUserName(word, true) == nil {
			t.Errorf("a person may be called %q, which is a page", word)
		}
	}
	for _, r := range s.server.routes {
		rest, ok := strings.CutPrefix(r.Path(), "/{owner}/{project}/")
		if word := firstWord("/" + rest); ok && word != "{$}" && !strings.HasPrefix(word, "{") && quire.CheckAppName(word) == nil {
			t.Errorf("an app may be called %q, which is a page of the project", word)
		}
	}
}
