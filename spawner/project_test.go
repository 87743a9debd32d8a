package spawner

import (
	"fmt"
	"os"
	"reflect"
	"slices"
	"testing"

	"quire"
	"quire/acl"
)

// F-10: a list has room for so many; who is shut out is in it before groups are,
// and one that is too long changes nothing.
func TestListsHaveRoom(t *testing.T) {
	dir, err := os.MkdirTemp("/var/tmp", "lists") // on a disk, where there is less room than in memory
	if err != nil {
		t.Fatal(err)
	}
	defer os.Remove(dir)
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	fd := int(d.Fd())
	many := func(from, n int) (uids []uint32) {
		for i := range n {
			uids = append(uids, uint32(from+i))
		}
		return uids
	}
	a := Account{Name: "a", UID: 20000, GID: 20000, Private: true}
	holds := func(kind acl.Kind, e acl.Entry) bool {
		have, err := acl.Get(fd, kind)
		if err != nil {
			t.Fatal(err)
		}
		return slices.Contains(have, e)
	}
	group := acl.Entry{Tag: acl.Named, ID: 777, Perm: acl.Read | acl.Execute}
	access, children := lists(a, quire.TeamArgs{Editors: many(20001, 2)})
	if err := setLists(fd, append(access, group), append(children, group)); err != nil {
		t.Fatal(err)
	}
	read := func() (both [2][]acl.Entry) {
		for i, kind := range []acl.Kind{acl.Access, acl.Default} {
			if both[i], err = acl.Get(fd, kind); err != nil {
				t.Fatal(err)
			}
		}
		return both
	}
	for _, team := range []quire.TeamArgs{
		{Editors: many(20001, 10)},
		{Editors: many(20001, 100), Viewers: many(21001, 40), Denied: many(22001, 40), Expel: many(22001, 3)},
		{Editors: many(20001, 300), Viewers: many(21001, 60), Denied: many(22001, 60), Expel: many(22001, 3)},
		{Editors: many(20001, 300), Viewers: many(21001, 89), Denied: many(22001, 11)},
		{Editors: many(20001, 300), Viewers: many(21001, 100)}, // and the owner, for what is made: too many anywhere
		{Editors: many(20001, 30), Denied: many(22001, 370), Expel: many(22001, 1)},
	} {
		before := read()
		set, err := setTeam(fd, a, team)
		what := fmt.Sprintf("%d editors, %d viewers, %d denied, of whom %d fit: %v", len(team.Editors), len(team.Viewers), len(team.Denied), len(set.Denied), err)
		t.Log(what)
		if err != nil {
			if !full(fd, err) || len(team.Editors) < 300 || !reflect.DeepEqual(read(), before) {
				t.Errorf("%s, or half a list", what)
			}
			continue
		}
		if len(team.Viewers) == 100 {
			t.Error(what)
		}
		for i, uid := range slices.Concat(set.Denied, team.Expel, team.Editors) {
			perm := uint16(0)
			if i >= len(set.Denied)+len(team.Expel) {
				perm = 7
			}
			if !holds(acl.Access, acl.Entry{Tag: acl.User, ID: uid, Perm: perm}) {
				t.Fatalf("%s: %d is not as it should be", what, uid)
			}
		}
		if len(team.Editors) < 300 && len(set.Denied) == len(team.Denied) && !holds(acl.Default, group) {
			t.Errorf("%s: the group is gone", what)
		}
	}
}
