package environment

import (
	"encoding/json"

	"golang.org/x/sys/unix"

	"quire"
	"quire/acl"
)

const all = acl.Read | acl.Write | acl.Execute

// rights are what a project's files should say.
type rights struct {
	owner uint32            // the project's
	gid   uint32            // of its top directory
	group uint16            // what that group may do: nothing where it has other members
	team  map[uint32]uint16 // the owner too
	gone  map[uint32]bool
	open  bool // the whole project may be read by everybody
}

func newRights(o options) (rights, error) {
	var t quire.TeamArgs
	if err := json.Unmarshal([]byte(o.team), &t); err != nil {
		return rights{}, quire.Invalid("helper", "The team cannot be read.")
	}
	r := rights{owner: uint32(o.owner), group: uint16(o.group) & all, team: map[uint32]uint16{uint32(o.owner): all}, gone: map[uint32]bool{}}
	r.open = t.Public
	for _, uid := range t.Viewers {
		r.team[uid] = acl.Read | acl.Execute
	}
	for _, uid := range t.Editors {
		r.team[uid] = all
	}
	for _, uid := range t.Denied {
		delete(r.team, uid)
		r.gone[uid] = true
	}
	return r, nil
}

// A verdict says what is wrong with one entry of the tree.
type verdict struct {
	masked, missing, named, open bool
	named2                       bool // the list for children
}

func (v verdict) right() bool { return v == verdict{} }

// access compares an access list with what it should be.
func (r rights) access(st *unix.Stat_t, have []acl.Entry, public bool) ([]acl.Entry, verdict) {
	dir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	full := uint16(acl.Read | acl.Write)
	if dir || st.Mode&0o100 != 0 {
		full = all
	}
	other := uint16(0)
	if public || r.open {
		other = (acl.Read | acl.Execute) & full
	}
	group := uint16(0)
	if st.Gid == r.gid {
		group = r.group & full
	}
	return r.compare(have, st.Uid, full, group, other)
}

// children compares a directory's default list.
func (r rights) children(st *unix.Stat_t, have []acl.Entry, public bool) ([]acl.Entry, verdict) {
	other := uint16(0)
	if public || r.open {
		other = acl.Read | acl.Execute
	}
	// Without the bit, what is made here gets the group of whoever makes it, and
	// that may have others in it.
	group := uint16(0)
	if st.Gid == r.gid && st.Mode&unix.S_ISGID != 0 {
		group = r.group
	}
	want, v := r.compare(have, 1<<32-1, all, group, other)
	return want, verdict{named2: !v.right()}
}

// compare judges by what counts: entries as the mask lets them through. self
// needs no entry of his own.
func (r rights) compare(have []acl.Entry, self uint32, full, group, other uint16) (want []acl.Entry, v verdict) {
	mask := acl.Limit(have)
	want = make([]acl.Entry, 0, len(r.team)+4)
	want = append(want, acl.Entry{Tag: acl.Owner, Perm: full}, acl.Entry{Tag: acl.Group, Perm: group}, acl.Entry{Tag: acl.Other, Perm: other})
	if have == nil {
		v.missing = true
	}
	seen := 0
	for _, e := range have {
		switch e.Tag {
		case acl.Owner:
			v.masked = v.masked || e.Perm != full
		case acl.Group:
			v.masked = v.masked || e.Perm&mask != group
		case acl.Other:
			v.open = v.open || e.Perm&^other != 0
			v.masked = v.masked || other&^e.Perm != 0
		case acl.User:
			perm, ours := r.team[e.ID]
			switch {
			case e.ID == self && ours:
			case ours:
				seen++
				v.missing = v.missing || e.Perm&full&perm != perm&full
				v.masked = v.masked || e.Perm&perm&full&mask != perm&full
				v.named = v.named || e.Perm&mask&^perm != 0
			case r.gone[e.ID]:
				v.named = true
			default:
				want = append(want, acl.Entry{Tag: acl.User, ID: e.ID, Perm: e.Perm & full})
			}
		case acl.Named:
			want = append(want, acl.Entry{Tag: acl.Named, ID: e.ID, Perm: e.Perm & full})
		}
	}
	for uid, perm := range r.team {
		if uid != self {
			want = append(want, acl.Entry{Tag: acl.User, ID: uid, Perm: perm & full})
			seen--
		}
	}
	v.missing = v.missing || seen != 0
	return want, v
}
