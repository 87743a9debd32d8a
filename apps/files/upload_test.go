package files

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"quire"
	"quire/acl"
)

// U-01 and U-05: names, sizes that lie, pieces twice, too many bytes, a process
// that starts anew, and what is left over after a day.
func TestUploads(t *testing.T) {
	tree, dir := newTree(t)
	state := t.TempDir()
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	u := NewUploads(state, log)
	name := "up\xffload"
	plan := Plan{Path: name, Size: 10, Modified: 7}
	a, err := u.Begin(tree, plan)
	if err != nil {
		t.Fatal(err)
	}
	if a, err = u.Append(a.ID, 0, strings.NewReader("01234")); err != nil || a.Offset != 5 || a.Done {
		t.Fatalf("%+v %v", a, err)
	}
	_, err = u.Append(a.ID, 3, strings.NewReader("34567"))
	wantKind(t, "a piece twice", err, quire.KindConflict)
	_, err = u.Append(a.ID, 9, strings.NewReader("9"))
	wantKind(t, "a piece left out", err, quire.KindConflict)
	// The process starts anew; the same file goes on where it was.
	u = NewUploads(state, log)
	b, err := u.Begin(tree, plan)
	if err != nil || b.ID != a.ID || b.Offset != 5 {
		t.Fatalf("%+v %v", b, err)
	}
	_, err = u.Append(a.ID, 5, strings.NewReader("56789extra"))
	wantKind(t, "too many bytes", err, quire.KindInvalid)
	if c, err := u.Append(a.ID, 10, strings.NewReader("")); err != nil || !c.Done {
		t.Fatalf("%+v %v", c, err)
	}
	if get(t, dir+"/"+name) != "0123456789" {
		t.Errorf("%q", get(t, dir+"/"+name))
	}
	// Now it is there: replaced only if that is wanted.
	_, err = u.Begin(tree, plan)
	wantKind(t, "an existing name", err, quire.KindConflict)
	plan.Replace, plan.Size = true, 3
	if a, err = u.Begin(tree, plan); err != nil {
		t.Fatal(err)
	}
	if a, err = u.Append(a.ID, 0, strings.NewReader("new")); err != nil || !a.Done || get(t, dir+"/"+name) != "new" {
		t.Errorf("%+v %v", a, err)
	}
	// Somebody makes the file while ours arrives: theirs stays.
	if a, err = u.Begin(tree, Plan{Path: "race", Size: 1}); err != nil {
		t.Fatal(err)
	}
	put(t, dir+"/race", "theirs")
	_, err = u.Append(a.ID, 0, strings.NewReader("x"))
	wantKind(t, "a name that was taken", err, quire.KindConflict)
	if err := u.Cancel(a.ID); err != nil || get(t, dir+"/race") != "theirs" {
		t.Error(err)
	}
	for what, p := range map[string]Plan{"negative": {Path: "n", Size: -1}, "outside": {Path: "../n", Size: 1}, "top": {Path: "", Size: 1}, "far too large": {Path: "n", Size: 1 << 60}} {
		if _, err := u.Begin(tree, p); err == nil {
			t.Errorf("%s began", what)
		}
	}
	os.Symlink("/etc", dir+"/etc")
	if _, err := u.Begin(tree, Plan{Path: "etc/x", Size: 1}); err == nil {
		t.Error("began outside")
	}
	for _, id := range []string{"", "../../x", strings.Repeat("a", 24)} {
		_, err := u.Status(id)
		wantKind(t, "status of "+id, err, quire.KindNotFound)
	}
	// A rest is removed after a day.
	if a, err = u.Begin(tree, Plan{Path: "old", Size: 5}); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-25 * time.Hour)
	os.Chtimes(filepath.Join(state, a.ID), old, old)
	if _, err := u.Begin(tree, Plan{Path: "newer", Size: 0}); err != nil {
		t.Fatal(err)
	}
	_, err = u.Status(a.ID)
	wantKind(t, "a rest", err, quire.KindNotFound)
	if list, _ := filepath.Glob(dir + "/" + tempPrefix + "*"); len(list) != 1 {
		t.Errorf("%v", list)
	}
}

// U-06 and U-07: one person has so many uploads at a time and no more; ending one
// removes what was begun and nothing that was put in its place.
func TestUploadsAreBounded(t *testing.T) {
	tree, dir := newTree(t)
	u := NewUploads(t.TempDir(), slog.New(slog.DiscardHandler))
	var last Upload
	for i := range maxUploads {
		var err error
		if last, err = u.Begin(tree, Plan{Path: fmt.Sprint("f", i), Size: 5}); err != nil {
			t.Fatal(i, err)
		}
	}
	_, err := u.Begin(tree, Plan{Path: "one more", Size: 5})
	wantKind(t, "one too many", err, quire.KindTooMany)
	put(t, dir+"/precious", "stays")
	begun, err := filepath.Glob(dir + "/" + tempPrefix + "*")
	if err != nil || len(begun) != maxUploads {
		t.Fatalf("%d %v", len(begun), err)
	}
	for _, name := range begun { // whichever is the last one's
		if err := errors.Join(os.Remove(name), os.Symlink(dir+"/precious", name)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := u.Append(last.ID, 0, strings.NewReader("01234")); err == nil {
		t.Error("it was written where the link leads")
	}
	_ = u.Cancel(last.ID)
	if get(t, dir+"/precious") != "stays" {
		t.Error("ending an upload touched what a link led to")
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// A large file passes without growing this process: 64 MB, or 10 GB in a soak (U-05).
func TestLargeFilesPassThrough(t *testing.T) {
	tree, dir := newTree(t)
	size := int64(64 << 20)
	if os.Getenv("QUIRE_SOAK") != "" {
		size = 10 << 30
	}
	u := NewUploads(t.TempDir(), slog.New(slog.DiscardHandler))
	a, err := u.Begin(tree, Plan{Path: "large", Size: size})
	if err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	began := time.Now()
	for !a.Done {
		if a, err = u.Append(a.ID, a.Offset, io.LimitReader(zeros{}, 8<<20)); err != nil {
			t.Fatal(err)
		}
	}
	up := time.Since(began)
	// Down from a file of holes, which costs no disk.
	if err := os.Truncate(dir+"/large", 0); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(dir+"/large", size); err != nil {
		t.Fatal(err)
	}
	began = time.Now()
	if err := tree.Tar(t.Context(), io.Discard, "", []string{"large"}); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	t.Logf("%d MB: up %.0f MB/s, down as tar %.0f MB/s", size>>20, float64(size)/1e6/up.Seconds(), float64(size)/1e6/time.Since(began).Seconds())
	if grown := int64(after.Sys) - int64(before.Sys); grown > 32<<20 {
		t.Errorf("memory grew by %d MB", grown>>20)
	}
}

func TestPermissions(t *testing.T) {
	tree, dir := newTree(t)
	put(t, dir+"/d/plain", "")
	put(t, dir+"/d/tool", "")
	os.Chmod(dir+"/d/tool", 0o700)
	os.Symlink("/etc/passwd", dir+"/d/link")
	c := Change{
		Access: []acl.Entry{{Tag: acl.Owner, Perm: 7}, {Tag: acl.User, ID: 4242, Perm: 7}, {Tag: acl.Group, Perm: 5}, {Tag: acl.Mask, Perm: 7}, {Tag: acl.Other}},
		Group:  -1, Inherit: true, Recursive: true, Preview: true,
	}
	p, err := tree.SetPermissions(t.Context(), "d", c, nothing)
	if err != nil || p.Items != 3 || p.Failed != 0 {
		t.Fatalf("%+v %v", p, err)
	}
	if q, _ := tree.Permissions("d"); len(q.Access) != 3 {
		t.Error("a preview changed something")
	}
	c.Preview = false
	if p, err = tree.SetPermissions(t.Context(), "d", c, nothing); err != nil || p.Items != 3 {
		t.Fatalf("%+v %v", p, err)
	}
	for name, want := range map[string]uint16{"d": 7, "d/tool": 7, "d/plain": 6} {
		q, err := tree.Permissions(name)
		if err != nil || len(q.Access) != 5 || q.Access[1] != (acl.Entry{Tag: acl.User, ID: 4242, Perm: want}) {
			t.Errorf("%s: %+v %v", name, q.Access, err)
		}
	}
	put(t, dir+"/d/later", "")
	if q, _ := tree.Permissions("d/later"); len(q.Access) != 5 {
		t.Errorf("made later: %+v", q.Access)
	}
	// Bad lists.
	base := []acl.Entry{{Tag: acl.Owner}, {Tag: acl.Group}, {Tag: acl.Other}}
	for what, list := range map[string][]acl.Entry{
		"none": nil, "no other": base[:2], "twice": append(base[:3:3], acl.Entry{Tag: acl.User, ID: 1}, acl.Entry{Tag: acl.User, ID: 1, Perm: 4}), "bits": {{Tag: acl.Owner, Perm: 8}, base[1], base[2]},
	} {
		_, err := tree.SetPermissions(t.Context(), "d", Change{Access: list, Group: -1}, nothing)
		wantKind(t, what, err, quire.KindInvalid)
	}
	_, err = tree.Permissions("d/link")
	wantKind(t, "a link", err, quire.KindInvalid)
	// What cannot be read can still be changed by its owner.
	os.Chmod(dir+"/d/plain", 0)
	if _, err := tree.SetPermissions(t.Context(), "d/plain", Change{Access: []acl.Entry{{Tag: acl.Owner, Perm: 6}, {Tag: acl.Group}, {Tag: acl.Other}}, Group: -1}, nothing); err != nil {
		t.Error(err)
	}
}

func TestShareOpensTheWayAndNothingElse(t *testing.T) {
	tree, dir := newTree(t)
	put(t, dir+"/a/b/given", "x")
	put(t, dir+"/a/b/private", "x")
	for _, d := range []string{"/a", "/a/b"} {
		os.Chmod(dir+d, 0o700)
	}
	os.Chmod(dir+"/a/b/given", 0o600)
	if _, err := tree.Share(t.Context(), "a/b/given", Grant{UID: 4242}, nothing); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]uint16{"a": acl.Execute, "a/b": acl.Execute, "a/b/given": acl.Read} {
		q, err := tree.Permissions(name)
		if err != nil || !has(q.Access, 4242, want) || has(q.Access, 4242, want|acl.Write) {
			t.Errorf("%s: %+v %v", name, q.Access, err)
		}
		if len(q.Default) != 0 {
			t.Errorf("%s passes it on: %+v", name, q.Default)
		}
	}
	if q, _ := tree.Permissions("a/b/private"); len(q.Access) != 3 {
		t.Errorf("private: %+v", q.Access)
	}
	// A mask that narrowed somebody goes on doing so.
	list := []acl.Entry{{Tag: acl.Owner, Perm: 6}, {Tag: acl.User, ID: 7, Perm: 6}, {Tag: acl.Group, Perm: 6}, {Tag: acl.Mask}, {Tag: acl.Other}}
	got := with(list, 9, acl.Read)
	for _, e := range got {
		if (e.ID == 7 || e.Tag == acl.Group) && e.Perm != 0 {
			t.Errorf("somebody gained by it: %+v", got)
		}
	}
	if !has(got, 9, acl.Read) {
		t.Errorf("%+v", got)
	}
	if p, err := tree.Share(t.Context(), "a/b", Grant{UID: 4243, Write: true}, nothing); err != nil || p.Items != 3 {
		t.Errorf("%+v %v", p, err)
	}
	if _, err := tree.Write("a/b/later", nil, Absent); err != nil {
		t.Error(err)
	}
	if q, _ := tree.Permissions("a/b/later"); !has(q.Access, 4243, acl.Read|acl.Write) {
		t.Errorf("made later: %+v", q.Access)
	}
}

func TestPeople(t *testing.T) {
	p := NewPeople()
	if n := p.Names(t.Context(), []uint32{0, 0, 3999999999}); n[0] != "root" || n[3999999999] != "3999999999" {
		t.Errorf("%v", n)
	}
	if id, err := p.User(t.Context(), "root"); err != nil || id != 0 {
		t.Errorf("%d %v", id, err)
	}
	for _, name := range []string{"", "nobody-of-that-name", "-s", "a:b", "root\n"} {
		if id, err := p.User(t.Context(), name); err == nil && name != "root\n" {
			t.Errorf("%q is %d", name, id)
		}
	}
	calls := 0
	real := p.lookup
	p.lookup = func(ctx context.Context, database string, keys []string) ([]byte, error) {
		calls++
		return real(ctx, database, keys)
	}
	p.Groups(t.Context(), []uint32{0})
	if p.Groups(t.Context(), []uint32{0})[0] != "root" || calls != 1 {
		t.Errorf("asked %d times", calls)
	}
}

// An upload whose size nobody knows takes its place when it is said to be whole,
// and is not mixed with another one of the same name.
func TestUploadsOfUnknownSize(t *testing.T) {
	tree, dir := newTree(t)
	u := NewUploads(t.TempDir(), slog.New(slog.DiscardHandler))
	var ids []string
	for range 2 {
		a, err := u.Begin(tree, Plan{Path: "big", Unsized: true, Replace: true})
		if err != nil {
			t.Fatal(err)
		}
		if a, err = u.Append(a.ID, 0, strings.NewReader("one ")); err != nil || a.Done || a.Offset != 4 {
			t.Fatal(a, err)
		}
		ids = append(ids, a.ID)
	}
	if ids[0] == ids[1] {
		t.Fatal("one upload for two")
	}
	if _, err := u.Append(ids[1], 2, strings.NewReader("x")); quire.KindOf(err) != quire.KindConflict {
		t.Error(err)
	}
	if _, err := u.Append(ids[1], 4, strings.NewReader("two")); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir + "/big"); err == nil {
		t.Error("half a file can be seen")
	}
	if a, err := u.Finish(ids[1]); err != nil || !a.Done {
		t.Fatal(a, err)
	}
	if b, err := os.ReadFile(dir + "/big"); string(b) != "one two" {
		t.Errorf("%q %v", b, err)
	}
	sized, err := u.Begin(tree, Plan{Path: "sized", Size: 3})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := u.Finish(sized.ID); quire.KindOf(err) != quire.KindInvalid {
		t.Error("half of a file whose size is known took its place:", err)
	}
	if err := u.Cancel(ids[0]); err != nil {
		t.Error(err)
	}
}
