package quire

import (
	"strings"
)

// An App is data: a descriptor file on the node says how to start a program
// that serves one web app to one person. The keys of the first block are the
// contract that AEN's apps were written to (docs/admin/apps.md).
type App struct {
	Name     string   `json:"name"`  // path segment, [a-z][a-z0-9-]*
	Title    string   `json:"title"` // on the button
	FullName string   `json:"full_name,omitempty"`
	Icon     string   `json:"icon,omitempty"`
	Enabled  bool     `json:"enabled"`
	Permit   string   `json:"permission"` // "read" for viewers, "write" for editors, "public" for whoever the site lets read public folders
	Scopes   []string `json:"scopes,omitempty"`
	// Command is argv. %(port)s, %(socket)s, %(urlPrefix)s, %(projectHome)s and
	// %(env)s (the active environment's prefix) are replaced; %% is a percent sign.
	Command []string `json:"command_list"`

	Order   int               `json:"order,omitempty"`   // position in the row
	Needs   string            `json:"needs,omitempty"`   // a path below %(env)s or absolute; the app is offered when it exists
	Env     map[string]string `json:"env,omitempty"`     // added to the environment, same replacements
	Dir     string            `json:"dir,omitempty"`     // working directory; default the project
	Summary string            `json:"summary,omitempty"` // one line for the page
	Restart bool              `json:"restart,omitempty"` // when it fails it is started again, and what it started goes on
	Content bool              `json:"content,omitempty"` // it shows what is in files: on an origin without cookies, below X-Forwarded-Prefix
}

// MinRole is the least role that may open the app.
func (a App) MinRole() Role {
	if a.Permit == "read" || a.Public() {
		return RoleViewer
	}
	return RoleEditor
}

// Public reports whether the app is nobody's in particular: it shows what a
// project lets everybody read, as an account that owns nothing.
func (a App) Public() bool { return a.Permit == "public" }

// InEnvironment reports whether what the app needs is part of an environment,
// so that one project may have it and another not.
func (a App) InEnvironment() bool {
	return a.Needs != "" && (strings.HasPrefix(a.Needs, "%(env)s") || a.Needs[0] != '/' && a.Needs[0] != '%')
}

// TCP reports whether the app listens on a loopback port instead of the
// session's unix socket.
func (a App) TCP() bool { return a.mentions("%(port)s") }

func (a App) mentions(word string) bool {
	for _, s := range a.Command {
		if strings.Contains(s, word) {
			return true
		}
	}
	for _, s := range a.Env {
		if strings.Contains(s, word) {
			return true
		}
	}
	return false
}

// Check says what is wrong with a descriptor, or nil.
func (a App) Check() error {
	if err := CheckAppName(a.Name); err != nil {
		return err
	}
	if len(a.Command) == 0 || !strings.HasPrefix(a.Command[0], "/") && !strings.HasPrefix(a.Command[0], "%(") {
		return Invalid("command_list", "The first word of command_list is an absolute path.")
	}
	if a.Permit != "read" && a.Permit != "write" && !a.Public() {
		return Invalid("permission", `"permission" is "read", "write" or "public".`)
	}
	if !a.mentions("%(port)s") && !a.mentions("%(socket)s") {
		return Invalid("command_list", "The command needs %(socket)s (better) or %(port)s to know where to listen.")
	}
	return nil
}
