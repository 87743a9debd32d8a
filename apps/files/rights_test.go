package files

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"quire"
)

func TestWriteLikeHasTheRightsOfAnother(t *testing.T) {
	tree, dir := newTree(t)
	for _, mode := range []os.FileMode{0o600, 0o640, 0o755} {
		name := fmt.Sprintf("like-%o", mode)
		if err := os.WriteFile(dir+"/"+name, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir+"/"+name, mode|os.ModeSetuid); err != nil {
			t.Fatal(err)
		}
		if err := tree.WriteLike(name+"-copy", []byte("text"), name); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(dir + "/" + name + "-copy")
		if err != nil || info.Mode() != mode {
			t.Errorf("%v %v, want %v", info.Mode(), err, mode)
		}
		wantKind(t, "a second one", tree.WriteLike(name+"-copy", nil, name), quire.KindConflict)
	}
	wantKind(t, "like nothing", tree.WriteLike("new", nil, "nothing"), quire.KindNotFound)
	if left, _ := filepath.Glob(dir + "/" + tempPrefix + "*"); len(left) > 0 {
		t.Errorf("%v", left)
	}
}

func TestChangedBy(t *testing.T) {
	tree, dir := newTree(t)
	if _, err := tree.Write("a", []byte("x"), Absent); err != nil {
		t.Fatal(err)
	}
	uid, ok := tree.ChangedBy("a")
	var st unix.Stat_t
	if err := unix.Stat(dir+"/a", &st); err != nil {
		t.Fatal(err)
	}
	if !ok || uid != st.Uid {
		t.Error(uid, ok)
	}
	// A program wrote it since: our note is of another time.
	if err := os.WriteFile(dir+"/a", []byte("y"), 0o644); err != nil {
		t.Fatal(err)
	}
	if uid, ok := tree.ChangedBy("a"); ok {
		t.Error("known:", uid)
	}
	if _, ok := tree.ChangedBy("../a"); ok {
		t.Error("outside")
	}
}
