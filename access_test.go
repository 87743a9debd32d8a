package quire

import (
	"testing"
	"time"
)

// The whole table of rights: every role, verb, switch of the project and kind of
// actor. A new verb without a row fails.
func TestCan(t *testing.T) {
	verbs := []Verb{See, ReadApp, Operate, Edit, Manage, Stop, Relocate}
	roles := []Role{RoleNone, RoleViewer, RoleEditor, RoleOwner}
	// Letters are the verbs that are allowed, in the order above.
	const s, r, w, e, m, x, o = 's', 'r', 'w', 'e', 'm', 'x', 'o'
	letter := map[Verb]rune{See: s, ReadApp: r, Operate: w, Edit: e, Manage: m, Stop: x, Relocate: o}
	type row struct {
		public, admin bool
		may           map[Role]string
	}
	person := []row{
		{false, false, map[Role]string{RoleNone: "", RoleViewer: "sr", RoleEditor: "srwex", RoleOwner: "srwemxo"}},
		{true, false, map[Role]string{RoleNone: "sr", RoleViewer: "sr", RoleEditor: "srwex", RoleOwner: "srwemxo"}},
		{false, true, map[Role]string{RoleNone: "smxo", RoleViewer: "srmxo", RoleEditor: "srwemxo", RoleOwner: "srwemxo"}},
		{true, true, map[Role]string{RoleNone: "srmxo", RoleViewer: "srmxo", RoleEditor: "srwemxo", RoleOwner: "srwemxo"}},
	}
	has := func(may string, v Verb) bool {
		for _, c := range may {
			if c == letter[v] {
				return true
			}
		}
		return false
	}
	for _, row := range person {
		for _, role := range roles {
			for _, verb := range verbs {
				who := Actor{User: "u_x", Admin: row.admin}
				if got, want := Can(who, verb, role, row.public), has(row.may[role], verb); got != want {
					t.Errorf("admin %v, role %q, public %v: Can(%s) = %v", row.admin, role, row.public, verb, got)
				}
				// Without a person nothing is allowed, whatever else is claimed.
				for _, nobody := range []Actor{Nobody, {Admin: true}, {Login: "l_x"}, {Name: "root"}} {
					if Can(nobody, verb, role, row.public) {
						t.Errorf("%+v with role %q, public %v may %s", nobody, role, row.public, verb)
					}
				}
				if !Can(Actor{System: true}, verb, role, row.public) {
					t.Errorf("Quire itself may not %s", verb)
				}
			}
		}
	}
	for _, verb := range []Verb{"", "SEE", "delete", "everything"} {
		if Can(Actor{User: "u_x", Admin: true}, verb, RoleOwner, true) {
			t.Errorf("a verb that does not exist (%q) is allowed", verb)
		}
	}
}

func TestRoles(t *testing.T) {
	order := []Role{RoleNone, RoleViewer, RoleEditor, RoleOwner}
	for i, a := range order {
		for j, b := range order {
			if a.AtLeast(b) != (i >= j) {
				t.Errorf("%q at least %q = %v", a, b, a.AtLeast(b))
			}
		}
		if a.Valid() != (i > 0) {
			t.Errorf("%q valid = %v", a, a.Valid())
		}
	}
	for _, odd := range []Role{"Owner", "admin", "editor ", "root"} {
		if odd.Valid() || odd.AtLeast(RoleViewer) {
			t.Errorf("%q counts as a role", odd)
		}
	}
}

func TestRevocationCovers(t *testing.T) {
	const u, p, l = UserID("u_a"), ProjectID("p_a"), LoginID("l_a")
	for _, c := range []struct {
		name string
		r    Revocation
		feed int64
		want bool
	}{
		{"everything", Revocation{Seq: 5}, 4, true},
		{"the person", Revocation{Seq: 5, User: u}, 4, true},
		{"the project", Revocation{Seq: 5, Project: p}, 4, true},
		{"the login", Revocation{Seq: 5, Login: l}, 4, true},
		{"person in project", Revocation{Seq: 5, User: u, Project: p}, 4, true},
		{"all three", Revocation{Seq: 5, User: u, Project: p, Login: l}, 0, true},
		{"granted at that number", Revocation{Seq: 5, User: u}, 5, false},
		{"granted later", Revocation{Seq: 5, User: u}, 6, false},
		{"another person", Revocation{Seq: 5, User: "u_b"}, 4, false},
		{"another project", Revocation{Seq: 5, User: u, Project: "p_b"}, 4, false},
		{"another login", Revocation{Seq: 5, User: u, Login: "l_b"}, 4, false},
		{"another person in the project", Revocation{Seq: 5, User: "u_b", Project: p}, 4, false},
	} {
		if got := c.r.Covers(u, p, l, c.feed); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

func TestSentences(t *testing.T) {
	for want, e := range map[string]Exit{
		"Stopped by alice.": {By: "alice", Signal: "terminated"},
		"It ran out of memory and was ended by the kernel.": {OutOfMemory: true, Signal: "killed"},
		"It was ended by a signal (killed).":                {Signal: "killed"},
		"It ended by itself.":                               {},
		"It exited with code 3.":                            {Code: 3},
	} {
		if got := e.Sentence(); got != want {
			t.Errorf("%+v: %q", e, got)
		}
	}
	for s, live := range map[SessionState]bool{
		SessionStarting: true, SessionRunning: true, SessionStopping: true, SessionEnded: false, SessionFailed: false, "": false, "zombie": false,
	} {
		if s.Live() != live {
			t.Errorf("%q live = %v", s, s.Live())
		}
	}
	begin := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	end := begin.Add(1500 * time.Millisecond)
	for want, s := range map[float64]Step{0: {}, 4: {Started: &begin}, 1.5: {Started: &begin, Ended: &end}} {
		if got := s.Seconds(begin.Add(4 * time.Second)); got != want {
			t.Errorf("%+v: %v seconds", s, got)
		}
	}
	for o, want := range map[OrderType]string{OrderDirectory: "directory", OrderPurge: "purge", OrderAccount: "account", OrderRepair: "repair", OrderTakeOver: "take over", OrderWhy: "why", OrderAside: "aside", OrderUnstage: "unstage", 0: "unknown", 22: "unknown", 255: "unknown"} {
		if o.String() != want {
			t.Errorf("order %d is %q", o, o)
		}
	}
}
