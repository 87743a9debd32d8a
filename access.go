package quire

// An Actor is who asks. Control's methods take one; nothing hides in a context.
type Actor struct {
	User    UserID
	Name    string
	Login   LoginID
	Admin   bool
	Address string // for the events
	System  bool   // Quire itself: reconcile, purge. Never made from a request.
}

// Nobody is the actor of a request without a login.
var Nobody = Actor{}

// Known reports whether a person (or Quire itself) is acting.
func (a Actor) Known() bool { return a.User != "" || a.System }

// A Verb is something one may do to a project.
type Verb string

const (
	See      Verb = "see"     // the page, its team, its state
	ReadApp  Verb = "readapp" // open an app whose permission is "read"
	Operate  Verb = "work"    // open an app whose permission is "write"; start and stop
	Edit     Verb = "edit"    // summary, description, tags
	Manage   Verb = "manage"  // team, public switch, delete, restore
	Stop     Verb = "stop"    // end everybody's sessions
	Relocate Verb = "move"    // to another node
)

// Can is the only place where rights are decided. role is the actor's role in
// the project and public the project's switch. Admins manage the site; they do
// not thereby read people's files: an admin may see, stop, move and delete.
func Can(a Actor, verb Verb, role Role, public bool) bool {
	if a.System {
		return true
	}
	if a.User == "" {
		return false
	}
	switch verb {
	case See:
		return role.AtLeast(RoleViewer) || public || a.Admin
	case ReadApp:
		return role.AtLeast(RoleViewer) || public
	case Operate, Edit:
		return role.AtLeast(RoleEditor)
	case Stop:
		return role.AtLeast(RoleEditor) || a.Admin
	case Manage, Relocate:
		return role.AtLeast(RoleOwner) || a.Admin
	}
	return false
}
