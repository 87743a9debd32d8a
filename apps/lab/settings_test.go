package lab

import (
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"github.com/coder/websocket"
)

func TestJSON5(t *testing.T) {
	for text, want := range map[string]string{
		`{}`: `{}`,
		"// first\n{a: 1, 'b': \"x\", /* and */ \"c\": [1, 2,],}": `{"a":1,"b":"x","c":[1,2]}`,
		`{$x_1: +1, y: .5, z: 5., h: 0xFF, n: -0x10, e: 1e3}`:     `{"$x_1":1,"e":1e3,"h":255,"n":-16,"y":0.5,"z":5.0}`,
		`{"s": 'it\'s \x41\u00e9\ud83d\ude00\` + "\n" + `!'}`:     `{"s":"it's Aé😀!"}`,
		`[true, false, null]`: `[true,false,null]`,
		"\ufeff 7 ":           `7`,
	} {
		v, err := parse5(text)
		got, _ := json.Marshal(v)
		if err != nil || string(got) != want {
			t.Errorf("%s: %s %v, want %s", text, got, err, want)
		}
	}
	for text, where := range map[string]string{
		"{a: 1":                            "Line 1, column 6",
		"{\n  a: Infinity}":                "Line 2, column 6",
		"{a: NaN}":                         "column 5",
		"{a: 01}":                          "column 5",
		"{a b}":                            "column 4",
		"{'a\nb': 1}":                      "does not end",
		"{a: 1} x":                         "column 8",
		"/* {":                             "does not end",
		"{a: truely}":                      "no value",
		"{,}":                              "name is missing",
		"[1 2]":                            "comma or ]",
		`{a: '\u12'}`:                      "number of a character",
		"":                                 "missing here",
		strings.Repeat("[", maxDepth+2):    "too deeply",
		`{"` + strings.Repeat("a", 100000): "does not end",
	} {
		if v, err := parse5(text); err == nil || !strings.Contains(err.Error(), where) {
			t.Errorf("%.40s: %v %v, want %s", text, v, err, where)
		}
	}
}

func FuzzJSON5(f *testing.F) {
	f.Add(`{a: [1, 'x', /* c */ {"b": .5e3,},], /**/}`)
	f.Add(`"\ud83d\x4"`)
	f.Fuzz(func(t *testing.T, text string) {
		v, err := parse5(text)
		if err != nil {
			return
		}
		if b, err := json.Marshal(v); err != nil || !json.Valid(b) {
			t.Errorf("%q: %s %v", text, b, err)
		}
		// What JSON reads, JSON5 reads alike.
		if want, err := decode([]byte(text)); err == nil && !reflect.DeepEqual(v, want) {
			t.Errorf("%q: %v, JSON has %v", text, v, want)
		}
	})
}

// withSettings is a client of a front end with one plugin.
func withSettings(t *testing.T) *client {
	prefix := t.TempDir()
	c := newClient(t, func(conf *config) { conf.prefix = prefix })
	c.server.builtIn = func() ([]plugin, error) {
		return []plugin{{ID: "@jupyterlab/apputils-extension:themes", Version: "4.6.4", Schema: json.RawMessage(`{"properties":{"theme":{"default":"JupyterLab Light"},"overrides":{"default":{"a":1}}}}`)}}, nil
	}
	return c
}

func lay(t *testing.T, file, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

const themes = "lab/api/settings/@jupyterlab/apputils-extension:themes"

func TestSettingsAreKeptAsTheyWereWritten(t *testing.T) {
	c := withSettings(t)
	raw := "{\n  // mine\n  theme: 'JupyterLab Dark',\n}"
	c.ask(204, "PUT", themes, object{"raw": raw})
	m := c.ask(200, "GET", themes, nil)
	if m["raw"] != raw || m["settings"].(object)["theme"] != "JupyterLab Dark" || m["version"] != "4.6.4" || m["last_modified"] == nil {
		t.Errorf("%v", m)
	}
	// Where JupyterLab in Python has it.
	file := c.home + "/.jupyter/lab/user-settings/@jupyterlab/apputils-extension/themes.jupyterlab-settings"
	if b, err := os.ReadFile(file); string(b) != raw {
		t.Errorf("%s %v", b, err)
	}
	out := c.ask(400, "PUT", themes, object{"raw": "{theme: }"})
	if !strings.Contains(out["message"].(string), "Line 1, column 9") {
		t.Errorf("%v", out)
	}
	for _, bad := range []any{object{}, object{"raw": "[]"}, object{"raw": 1}, "{", object{"raw": strings.Repeat("[", 100000)}} {
		c.ask(400, "PUT", themes, bad)
	}
	if b, _ := os.ReadFile(file); string(b) != raw {
		t.Error("a refused text was written")
	}
	// A file that somebody broke is shown and does not keep the page from starting.
	lay(t, file, "{theme")
	m = c.ask(200, "GET", "lab/api/settings", nil)["settings"].([]any)[0].(object)
	if m["raw"] != "{theme" || len(m["settings"].(object)) != 0 || !strings.Contains(m["warning"].(string), "could not be read") {
		t.Errorf("%v", m)
	}
	for _, id := range []string{"nothing:here", "@jupyterlab/apputils-extension", "..%2F..%2Fx:y", "a:..%2f..%2fb", "x%00:y"} {
		c.ask(404, "GET", "lab/api/settings/"+id, nil)
		c.ask(404, "PUT", "lab/api/settings/"+id, object{"raw": "{}"})
	}
}

func TestTheSiteAndTheEnvironmentHaveOtherDefaults(t *testing.T) {
	c := withSettings(t)
	share := c.server.prefix + "/share/jupyter"
	lay(t, share+"/lab/settings/overrides.json", `{"@jupyterlab/apputils-extension:themes": {"theme": "JupyterLab Dark", "overrides": {"b": 2}, "fresh": [1]}}`)
	lay(t, share+"/lab/settings/page_config.json", `{"disabledExtensions": {"one": true, "two": false}, "baseUrl": "//elsewhere", "token": "x"}`)
	properties := c.ask(200, "GET", themes, nil)["schema"].(object)["properties"].(object)
	want := object{"theme": object{"default": "JupyterLab Dark"}, "overrides": object{"default": object{"a": 1.0, "b": 2.0}}, "fresh": object{"default": []any{1.0}}}
	if !reflect.DeepEqual(properties, want) {
		t.Errorf("%v", properties)
	}
	if page := c.server.pageConfig(); !reflect.DeepEqual(page, map[string]any{"disabledExtensions": []string{"one"}}) {
		t.Errorf("%v", page)
	}
}

func TestPrebuiltExtensionsBringSettingsThemesAndFiles(t *testing.T) {
	c := withSettings(t)
	base := c.server.prefix + "/share/jupyter/labextensions"
	lay(t, base+"/@me/nice/package.json", `{"name": "@me/nice", "version": "1.2.3", "jupyterlab": {"_build": {"load": "static/remoteEntry.1.js", "extension": "./extension"}}}`)
	lay(t, base+"/@me/nice/static/remoteEntry.1.js", "var x;")
	lay(t, base+"/@me/nice/schemas/@me/nice/plugin.json", `{"title": "Nice"}`)
	lay(t, base+"/@me/nice/schemas/@me/nice/package.json.orig", `{}`)
	lay(t, base+"/@me/nice/themes/@me/nice/index.css", "a{}")
	lay(t, base+"/@me/nice/secret", "no")
	lay(t, base+"/source-only/package.json", `{"version": "1"}`)
	lay(t, c.server.prefix+"/outside.js", "no")
	os.Symlink(c.server.prefix+"/outside.js", base+"/@me/nice/static/out.js")
	// Whoever reads a pipe waits for ever.
	os.Mkdir(base+"/pipe", 0o755)
	if err := syscall.Mkfifo(base+"/pipe/package.json", 0o644); err != nil {
		t.Fatal(err)
	}
	want := []object{{"name": "@me/nice", "load": "static/remoteEntry.1.js", "extension": "./extension"}}
	if got := c.server.federated(); !reflect.DeepEqual(got, want) {
		t.Errorf("%v", got)
	}
	if m := c.ask(200, "GET", "lab/api/settings/@me/nice:plugin", nil); m["version"] != "1.2.3" || m["schema"].(object)["title"] != "Nice" {
		t.Errorf("%v", m)
	}
	if ids := c.ask(200, "GET", "lab/api/settings?ids_only=true", nil)["settings"].([]any); len(ids) != 2 {
		t.Errorf("%v", ids)
	}
	answer, b := c.do("GET", "lab/extensions/@me/nice/static/remoteEntry.1.js", nil)
	if answer.StatusCode != 200 || string(b) != "var x;" || answer.Header.Get("Content-Type") != "text/javascript; charset=utf-8" {
		t.Errorf("%v %s", answer, b)
	}
	answer, b = c.do("GET", "lab/api/themes/@me/nice/index.css", nil)
	if answer.StatusCode != 200 || string(b) != "a{}" {
		t.Errorf("%v %s", answer, b)
	}
	for _, at := range []string{"@me/nice/secret", "@me/nice/static/out.js", "@me/nice/static/%2e%2e/secret", "@me/other/static/x.js", "source-only/package.json", "@me/nice/static/"} {
		if answer, _ := c.do("GET", "lab/extensions/"+at, nil); answer.StatusCode != 404 {
			t.Errorf("%s: %d", at, answer.StatusCode)
		}
	}
}

func TestWorkspaces(t *testing.T) {
	c := newClient(t)
	m := c.ask(200, "GET", "lab/api/workspaces/default", nil)
	if len(m["data"].(object)) != 0 || m["metadata"].(object)["id"] != "default" {
		t.Errorf("%v", m)
	}
	for _, id := range []string{"default", "auto-x", "Süd & West", "a/b"} {
		c.ask(204, "PUT", "lab/api/workspaces/"+strings.ReplaceAll(id, " ", "%20"), object{"data": object{"layout": id}, "metadata": object{"id": id}})
		if m := c.ask(200, "GET", "lab/api/workspaces/"+strings.ReplaceAll(id, " ", "%20"), nil); m["data"].(object)["layout"] != id {
			t.Errorf("%v", m)
		}
	}
	list := c.ask(200, "GET", "lab/api/workspaces", nil)["workspaces"].(object)
	if len(list["ids"].([]any)) != 4 || len(list["values"].([]any)) != 4 {
		t.Errorf("%v", list)
	}
	c.ask(400, "PUT", "lab/api/workspaces/default", object{"data": object{}, "metadata": object{"id": "other"}})
	c.ask(400, "PUT", "lab/api/workspaces/default", "{")
	c.ask(400, "PUT", "lab/api/workspaces/default", strings.Repeat("[", 1000))
	c.ask(204, "DELETE", "lab/api/workspaces/default", nil)
	c.ask(404, "DELETE", "lab/api/workspaces/default", nil)
	if got := slug("/Lab/Tree Of_Life!"); got != "labtree-of_life-"+got[len(got)-4:] {
		t.Error(got)
	}
	// Two projects of one person do not share what is open.
	other := &server{config: c.server.config}
	other.project += "-2"
	if other.workspaceFile("default") == c.server.workspaceFile("default") {
		t.Error("one workspace for two projects")
	}
}

func TestSmallCalls(t *testing.T) {
	t.Setenv("LOGNAME", "ann")
	c := newClient(t)
	who := c.ask(200, "GET", `api/me?permissions={"contents":["read"]}`, nil)
	if who["identity"].(object)["username"] != "ann" || len(who["permissions"].(object)) != 1 {
		t.Errorf("%v", who)
	}
	c.ask(400, "GET", "api/me?permissions=[", nil)
	c.ask(200, "GET", "api", nil)
	if m := c.ask(200, "GET", "api/status", nil); m["kernels"] != 0.0 || m["started"] == nil {
		t.Errorf("%v", m)
	}
	c.ask(200, "GET", "lab/api/translations", nil)
	c.ask(200, "GET", "lab/api/translations/default", nil)
	if m := c.ask(200, "GET", "lab/api/translations/..%2f..", nil); !strings.Contains(m["message"].(string), "not valid") {
		t.Errorf("%v", m)
	}
	c.ask(200, "GET", "lab/api/licenses", nil)
	c.ask(200, "GET", "lab/api/listings/@jupyterlab/extensionmanager-extension/listings.json", nil)
	c.ask(204, "PUT", "api/config/notebook", object{"a": object{"b": 1, "c": 2}})
	if m := c.ask(200, "PATCH", "api/config/notebook", object{"a": object{"b": nil}, "d": object{"e": nil}}); !reflect.DeepEqual(m, object{"a": object{"c": 2.0}}) {
		t.Errorf("%v", m)
	}
	if m := c.ask(200, "GET", "api/config/notebook", nil); !reflect.DeepEqual(m, object{"a": object{"c": 2.0}}) {
		t.Errorf("%v", m)
	}
	c.ask(404, "GET", "api/config/a..b", nil)
}

func TestEventsAreSilentAndForThePageOnly(t *testing.T) {
	c := newClient(t)
	at := "ws://app.test/p/lab/api/events/subscribe"
	ws, _, err := websocket.Dial(t.Context(), at, &websocket.DialOptions{HTTPClient: c.http, HTTPHeader: http.Header{"Origin": {"http://app.test"}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := ws.Close(websocket.StatusNormalClosure, ""); err != nil {
		t.Error(err)
	}
	for _, origin := range []string{"", "http://elsewhere.test", "null"} {
		h := http.Header{}
		if origin != "" {
			h.Set("Origin", origin)
		}
		_, answer, err := websocket.Dial(t.Context(), at, &websocket.DialOptions{HTTPClient: c.http, HTTPHeader: h})
		if err == nil || answer == nil || answer.StatusCode != 403 {
			t.Errorf("%q: %v %v", origin, answer, errors.Unwrap(err))
		}
	}
}
