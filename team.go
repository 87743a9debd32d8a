package quire

// Role of a person in one project.
type Role string

const (
	RoleNone   Role = ""
	RoleViewer Role = "viewer"
	RoleEditor Role = "editor"
	RoleOwner  Role = "owner"
)

var rank = map[Role]int{RoleNone: 0, RoleViewer: 1, RoleEditor: 2, RoleOwner: 3}

// AtLeast reports whether r carries the rights of min.
func (r Role) AtLeast(min Role) bool { return rank[r] >= rank[min] }

// Valid reports whether r is a role a member can be given.
func (r Role) Valid() bool { return r == RoleViewer || r == RoleEditor || r == RoleOwner }

// A Member is one person of a project's team.
type Member struct {
	User     UserID `json:"user"`
	Name     string `json:"name"`
	FullName string `json:"full_name,omitempty"`
	Role     Role   `json:"role"`
}
