package quire

import (
	"crypto/rand"
	"regexp"
	"strings"
)

// Every identity is a distinct string type, so that the compiler refuses one
// where another belongs. IDs are a printed prefix and 80 random bits in
// lower-case base32; they are never re-used and never made from names.
type (
	UserID       string // u_…
	ProjectID    string // p_…
	SessionID    string // s_…
	NodeID       string // n_…
	DataCenterID string // d_…
	LoginID      string // l_…
	OrderID      string // o_…
	WorkID       string // w_…
	StorageID    string // v_…
)

const base32 = "abcdefghijklmnopqrstuvwxyz234567"

// random returns n characters of lower-case base32, five random bits each.
func random(n int) string {
	b := make([]byte, n)
	rand.Read(b)
	for i := range b {
		b[i] = base32[b[i]&31]
	}
	return string(b)
}

func NewUserID() UserID             { return UserID("u_" + random(16)) }
func NewProjectID() ProjectID       { return ProjectID("p_" + random(16)) }
func NewSessionID() SessionID       { return SessionID("s_" + random(16)) }
func NewNodeID() NodeID             { return NodeID("n_" + random(16)) }
func NewDataCenterID() DataCenterID { return DataCenterID("d_" + random(16)) }
func NewLoginID() LoginID           { return LoginID("l_" + random(16)) }
func NewOrderID() OrderID           { return OrderID("o_" + random(16)) }
func NewWorkID() WorkID             { return WorkID("w_" + random(16)) }
func NewStorageID() StorageID       { return StorageID("v_" + random(16)) }

// A Label is the random first part of an app origin's host name. It stands for
// one (user, project) pair, is never made from names and never re-used:
// browsers keep storage and service workers by origin.
type Label string

// NewLabel returns a label of 100 random bits. It starts with a letter, so it
// is a valid DNS label.
func NewLabel() Label { return Label("a" + random(19)) }

var idPattern = regexp.MustCompile(`^[a-z]_[a-z2-7]{16}$`)
var labelPattern = regexp.MustCompile(`^[a-z][a-z2-7]{19}$`)

// ValidID reports whether s has the form of an identity with the prefix letter.
func ValidID(prefix byte, s string) bool {
	return idPattern.MatchString(s) && s[0] == prefix
}

// Valid reports whether the label has the exact form NewLabel makes.
func (l Label) Valid() bool { return labelPattern.MatchString(string(l)) }

// NewSecret returns 256 random bits in base32 (52 characters), for links,
// cookies and tokens.
func NewSecret() string { return random(52) }

var userName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}$`)
var projectName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_-]{0,63}$`)
var appName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`)

// reserved are first path segments of the portal that are pages. A person or
// project of that name could never be visited.
var reserved = map[string]bool{
	"admin": true, "api": true, "assets": true, "authorize": true, "healthz": true,
	"help": true, "keys": true, "login": true, "logout": true, "new": true, "people": true,
	"search": true, "settings": true, "setup": true, "static": true, "account": true,
	"projects": true, "favicon.ico": true, "robots.txt": true, "events": true, "public": true,
	"root": true, "well-known": true, ".well-known": true, "notifications": true, "theme": true,
}

// projectPages are second path segments that belong to the project page itself,
// so no app may be called so.
var projectPages = map[string]bool{
	"settings": true, "events": true, "star": true, "start": true, "stop": true,
	"reset": true, "delete": true, "restore": true, "team": true, "activity": true,
	"sessions": true, "files": true, "environments": true, "public": true, "timeline": true,
}

// CheckUserName says in a sentence what is wrong with a name, or nil.
// digits allows names made of digits only (a site setting).
func CheckUserName(name string, digits bool) error {
	switch {
	case !userName.MatchString(name):
		return Invalid("name", "A name has 1 to 32 letters, digits, dots, hyphens or underscores and starts with a letter, digit or underscore.")
	case reserved[strings.ToLower(name)]:
		return Invalid("name", "This name is the address of a page. Choose another one.")
	case !digits && strings.Trim(name, "0123456789") == "":
		return Invalid("name", "A name of digits only is not allowed on this site.")
	case strings.HasSuffix(name, ".") || strings.Contains(name, ".."):
		return Invalid("name", "A name cannot end in a dot or have two dots in a row.")
	}
	return nil
}

// CheckProjectName says in a sentence what is wrong with a name, or nil.
func CheckProjectName(name string) error {
	if !projectName.MatchString(name) {
		return Invalid("name", "A project name starts with a letter and has at most 64 letters, digits, underscores or hyphens.")
	}
	if projectPages[strings.ToLower(name)] {
		return Invalid("name", "This name is the address of a page. Choose another one.")
	}
	return nil
}

// CheckAppName says in a sentence what is wrong with an app's name, or nil.
func CheckAppName(name string) error {
	if !appName.MatchString(name) || projectPages[name] {
		return Invalid("name", "An app's name has lower-case letters, digits and hyphens and is not the name of a project page.")
	}
	return nil
}
