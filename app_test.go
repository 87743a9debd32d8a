package quire

import (
	"encoding/json"
	"testing"
)

func TestAppCheck(t *testing.T) {
	good := App{Name: "notebook", Title: "Notebook", Permit: "write", Command: []string{"%(env)s/bin/jupyter", "--sock=%(socket)s"}}
	for _, c := range []struct {
		name   string
		change func(*App)
		field  string // "" = fine
	}{
		{"as it is", func(*App) {}, ""},
		{"absolute path", func(a *App) { a.Command[0] = "/usr/bin/python3" }, ""},
		{"a port instead", func(a *App) { a.Command[1] = "--port=%(port)s" }, ""},
		{"only in the environment", func(a *App) { a.Command = a.Command[:1]; a.Env = map[string]string{"SOCK": "%(socket)s"} }, ""},
		{"reader", func(a *App) { a.Permit = "read" }, ""},
		{"no name", func(a *App) { a.Name = "" }, "name"},
		{"path as name", func(a *App) { a.Name = "../x" }, "name"},
		{"page as name", func(a *App) { a.Name = "settings" }, "name"},
		{"no command", func(a *App) { a.Command = nil }, "command_list"},
		{"relative command", func(a *App) { a.Command[0] = "jupyter" }, "command_list"},
		{"relative path", func(a *App) { a.Command[0] = "./jupyter" }, "command_list"},
		{"nowhere to listen", func(a *App) { a.Command = a.Command[:1] }, "command_list"},
		{"no permission", func(a *App) { a.Permit = "" }, "permission"},
		{"unknown permission", func(a *App) { a.Permit = "admin" }, "permission"},
	} {
		a := good
		a.Command = append([]string(nil), good.Command...)
		c.change(&a)
		err := a.Check()
		if (err == nil) != (c.field == "") || err != nil && AsError(err).Field != c.field {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestAppRights(t *testing.T) {
	// Whatever is not plainly "read" needs an editor.
	for permit, want := range map[string]Role{"read": RoleViewer, "write": RoleEditor, "": RoleEditor, "Read": RoleEditor, "x": RoleEditor} {
		if got := (App{Permit: permit}).MinRole(); got != want {
			t.Errorf("%q needs %s", permit, got)
		}
	}
	if (App{Command: []string{"/x", "%(socket)s"}}).TCP() || !(App{Command: []string{"/x", "-p", "%(port)s"}}).TCP() || !(App{Env: map[string]string{"PORT": "%(port)s"}}).TCP() {
		t.Error("TCP does not follow the port placeholder")
	}
}

// The keys of a descriptor are a contract with descriptors that exist.
func TestAppDescriptor(t *testing.T) {
	var a App
	err := json.Unmarshal([]byte(`{"name":"viewer","title":"Viewer","full_name":"Notebook viewer","icon":"eye","enabled":true,"permission":"read",
		"scopes":["project"],"command_list":["/opt/viewer","--port","%(port)s"]}`), &a)
	if err != nil || a.Check() != nil || !a.Enabled || a.FullName != "Notebook viewer" || a.MinRole() != RoleViewer || len(a.Scopes) != 1 {
		t.Errorf("%+v, %v", a, err)
	}
}
