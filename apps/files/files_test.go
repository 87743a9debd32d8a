package files

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"quire"
	"quire/acl"
)

// hostile are names that break what joins strings, builds pages or runs shells.
var hostile = []string{
	"plain.txt", "-rf", " leading and trailing ", "new\nline", "quote\"'`", "<img src=x onerror=alert(1)>", "=cmd()", "%2e%2e", "back\\slash",
	"\xff\xfe not utf-8", "…", "\u202Egnp.exe", "a?b#c&d", "~", "$HOME", strings.Repeat("x", 255), "CON", ".dot", "日本語", "..a", "a..", "*",
}

func nothing(Progress) {}

func newTree(t *testing.T) (*Tree, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "project")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	tree, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tree.Close() })
	return tree, dir
}

func put(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func get(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func wantKind(t *testing.T, what string, err error, kind quire.Kind) {
	t.Helper()
	if quire.KindOf(err) != kind {
		t.Errorf("%s: %v, not an error of kind %q", what, err, kind)
	}
}

// noRest fails if a hidden file of ours was left behind.
func noRest(t *testing.T, dir string) {
	t.Helper()
	filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && strings.HasPrefix(d.Name(), tempPrefix) {
			t.Errorf("%s was left behind", path)
		}
		return nil
	})
}

// F-21: a name is literal, whatever it looks like.
func TestHostileNamesWorkEverywhere(t *testing.T) {
	tree, dir := newTree(t)
	ctx := t.Context()
	for _, name := range hostile {
		if _, err := tree.Write(name, []byte("in "+name), Absent); err != nil {
			t.Errorf("create %q: %v", name, err)
			continue
		}
		c, err := tree.Read(name, 1<<20)
		if err != nil || string(c.Bytes) != "in "+name {
			t.Errorf("read %q: %q %v", name, c.Bytes, err)
		}
		if _, err := tree.Write(name, []byte("again"), c.Version); err != nil {
			t.Errorf("save %q: %v", name, err)
		}
		if get(t, filepath.Join(dir, name)) != "again" {
			t.Errorf("%q is not what was saved", name)
		}
	}
	list, more, err := tree.List("", "", 1000)
	if err != nil || more || len(list) != len(hostile) {
		t.Fatalf("%d entries, %v %v", len(list), more, err)
	}
	if err := tree.Mkdir("into", false); err != nil {
		t.Fatal(err)
	}
	for _, name := range hostile {
		if _, err := tree.Copy(ctx, name, tree, "into/"+name, nothing); err != nil {
			t.Errorf("copy %q: %v", name, err)
		}
		if err := tree.Rename(name, tree, "into/moved"); err != nil {
			t.Errorf("move %q: %v", name, err)
		}
		if _, err := tree.Delete(ctx, "into/moved", nothing); err != nil {
			t.Errorf("delete %q: %v", name, err)
		}
	}
	noRest(t, dir)
}

// F-01: what is no path below a directory is refused.
func TestPathsThatAreNone(t *testing.T) {
	tree, _ := newTree(t)
	deep := strings.Repeat("a/", 5000) + "b"
	for _, path := range []string{"..", "../x", "a/../../x", "./x", "a//b", "a\x00b", deep, strings.Repeat("n", 256), "a/.", "x/.."} {
		if _, err := tree.Stat(path); quire.KindOf(err) != quire.KindInvalid {
			t.Errorf("%.40q: %v", path, err)
		}
		if _, err := tree.Write(path, nil, Absent); quire.KindOf(err) != quire.KindInvalid {
			t.Errorf("write %.40q: %v", path, err)
		}
	}
	// An absolute path is one in the tree.
	_, err := tree.Stat("/etc/passwd")
	wantKind(t, "/etc/passwd", err, quire.KindNotFound)
	for _, path := range []string{"", "relative", "/a\x00b"} {
		if _, err := Open(path); err == nil {
			t.Errorf("%q was opened", path)
		}
	}
}

// F-02 and F-06: links and names that lead out of the directory lead nowhere.
func TestNothingLeavesTheTree(t *testing.T) {
	tree, dir := newTree(t)
	outside := filepath.Join(filepath.Dir(dir), "project-private") // a sibling with the same beginning
	put(t, filepath.Join(outside, "secret"), "secret")
	put(t, filepath.Join(dir, "inside", "file"), "mine")
	for link, target := range map[string]string{
		"abs": outside, "rel": "../project-private", "file": outside + "/secret", "proc": "/proc/self/" + "root/etc", "dangling": outside + "/new", "loop": "loop", "up": "inside/../../project-private",
	} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	ctx := t.Context()
	for _, path := range []string{"abs/secret", "rel/secret", "file", "proc/passwd", "dangling", "loop", "up/secret"} {
		if c, err := tree.Read(path, 1<<20); err == nil {
			t.Errorf("read %s: %q", path, c.Bytes)
		}
		if f, _, err := tree.Open(path); err == nil {
			f.Close()
			t.Errorf("opened %s", path)
		}
		for _, v := range []string{Absent, Overwrite} {
			if _, err := tree.Write(path, []byte("lost"), v); err == nil {
				t.Errorf("wrote %s", path)
			}
		}
	}
	for _, path := range []string{"abs", "rel", "up", "proc"} {
		if _, _, err := tree.List(path, "", 10); err == nil {
			t.Errorf("listed %s", path)
		}
		if err := tree.Mkdir(path+"/made", true); err == nil {
			t.Errorf("made a directory in %s", path)
		}
		if err := tree.Rename("inside/file", tree, path+"/file"); err == nil {
			t.Errorf("moved into %s", path)
		}
		if _, err := tree.Copy(ctx, "inside/file", tree, path+"/file", nothing); err == nil {
			t.Errorf("copied into %s", path)
		}
		if _, err := tree.SetPermissions(ctx, path, Change{Access: []acl.Entry{{Tag: acl.Owner, Perm: 7}, {Tag: acl.Group}, {Tag: acl.Other}}, Group: -1, Recursive: true}, nothing); err == nil {
			t.Errorf("changed the permissions of %s", path)
		}
		info, err := tree.Stat(path)
		if err != nil || info.Kind != Link || !info.LeadsOut {
			t.Errorf("%s: %+v %v", path, info, err)
		}
	}
	// Deleting a link deletes the link, with and without what is around it.
	if _, err := tree.Delete(ctx, "abs", nothing); err != nil {
		t.Error(err)
	}
	if err := os.Symlink(outside, filepath.Join(dir, "inside/out")); err != nil {
		t.Fatal(err)
	}
	if p, err := tree.Delete(ctx, "inside", nothing); err != nil || p.Failed > 0 || p.Items != 3 {
		t.Errorf("%+v %v", p, err)
	}
	if get(t, outside+"/secret") != "secret" {
		t.Error("the secret changed")
	}
	if list, _ := os.ReadDir(outside); len(list) != 1 {
		t.Errorf("outside has %v", list)
	}
}

func TestLinksInsideAreFollowedToRead(t *testing.T) {
	tree, dir := newTree(t)
	put(t, dir+"/data/file", "content")
	os.Symlink("data/file", dir+"/link")
	os.Symlink("data", dir+"/linked")
	if c, err := tree.Read("linked/file", 100); err != nil || string(c.Bytes) != "content" {
		t.Errorf("%q %v", c.Bytes, err)
	}
	info, err := tree.Stat("link")
	if err != nil || info.Leads != "data/file" || info.To != File || info.LeadsOut {
		t.Errorf("%+v %v", info, err)
	}
	_, err = tree.Write("link", []byte("x"), Overwrite)
	wantKind(t, "write through a link", err, quire.KindInvalid)
}

// F-01: devices, pipes and sockets are not opened.
func TestWhatIsNoFileIsNotOpened(t *testing.T) {
	tree, dir := newTree(t)
	if err := unix.Mkfifo(dir+"/pipe", 0o666); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	t.Chdir(dir)
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: "socket"}); err != nil {
		t.Fatal(err)
	}
	names := []string{"pipe", "socket"}
	if unix.Mknod(dir+"/device", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))) == nil {
		names = append(names, "device")
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for _, name := range names {
			_, err := tree.Read(name, 100)
			wantKind(t, "read "+name, err, quire.KindInvalid)
			_, _, err = tree.Open(name)
			wantKind(t, "open "+name, err, quire.KindInvalid)
			_, err = tree.Write(name, []byte("x"), Overwrite)
			wantKind(t, "write "+name, err, quire.KindInvalid)
			p, err := tree.Copy(context.Background(), name, tree, name+"2", nothing)
			if err == nil || p.Failed != 1 {
				t.Errorf("copy %s: %+v %v", name, p, err)
			}
		}
	}()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("it waits for a pipe")
	}
}

func TestSaveKeepsWhatTheFileWas(t *testing.T) {
	tree, dir := newTree(t)
	put(t, dir+"/script", "old")
	path := dir + "/script"
	if err := os.Chmod(path, 0o750); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	list := []acl.Entry{{Tag: acl.Owner, Perm: 7}, {Tag: acl.User, ID: 12345, Perm: 6}, {Tag: acl.Group, Perm: 5}, {Tag: acl.Mask, Perm: 7}, {Tag: acl.Other}}
	if err := acl.Set(int(f.Fd()), acl.Access, list); err != nil {
		t.Fatal(err)
	}
	f.Close()
	unix.Setxattr(path, "user.note", []byte("kept"), 0)
	c, err := tree.Read("script", 100)
	if err != nil {
		t.Fatal(err)
	}
	was := inodeOf(t, path)
	if c, err = tree.Write("script", []byte("new"), c.Version); err != nil {
		t.Fatal(err)
	}
	if inodeOf(t, path) == was {
		t.Error("the file was written over in place")
	}
	p, err := tree.Permissions("script")
	if err != nil || len(p.Access) != 5 || p.Mode != 0o770 {
		t.Errorf("%+v %v", p, err)
	}
	b := make([]byte, 10)
	if n, err := unix.Getxattr(path, "user.note", b); err != nil || string(b[:n]) != "kept" {
		t.Errorf("the attribute: %q %v", b[:max(n, 0)], err)
	}
	// A second name keeps the inode.
	if err := os.Link(path, dir+"/other"); err != nil {
		t.Fatal(err)
	}
	if _, err = tree.Write("script", []byte("shared"), c.Version); err != nil {
		t.Fatal(err)
	}
	if get(t, dir+"/other") != "shared" {
		t.Error("the other name has the old content")
	}
	// Shorter than before, and never setuid.
	if err := os.Chmod(path, 0o4755); err != nil {
		t.Fatal(err)
	}
	if _, err := tree.Write("script", []byte("s"), Overwrite); err != nil || get(t, path) != "s" {
		t.Errorf("%q %v", get(t, path), err)
	}
	noRest(t, dir)
}

func inodeOf(t *testing.T, path string) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

// F-19: what somebody else changed meanwhile is not written over.
func TestConflicts(t *testing.T) {
	tree, dir := newTree(t)
	path := dir + "/file"
	changes := map[string]func(){
		"written over": func() { put(t, path, "theirs") },
		"renamed over": func() { put(t, path+".new", "theirs"); os.Rename(path+".new", path) },
		"same length":  func() { put(t, path, "OTHER") },
		"time set back": func() {
			put(t, path, "other")
			old := time.Now().Add(-time.Hour)
			os.Chtimes(path, old, old)
		},
		"deleted": func() { os.Remove(path) },
	}
	for name, change := range changes {
		os.Remove(path)
		put(t, path, "first")
		c, err := tree.Read("file", 100)
		if err != nil {
			t.Fatal(err)
		}
		change()
		before, _ := os.ReadFile(path)
		_, err = tree.Write("file", []byte("mine"), c.Version)
		var e *ErrChanged
		if !errors.As(err, &e) || e.Gone != (name == "deleted") {
			t.Errorf("%s: %v", name, err)
		}
		if after, _ := os.ReadFile(path); !bytes.Equal(before, after) {
			t.Errorf("%s: the content was lost", name)
		}
		if name == "renamed over" && (!e.Known || e.UID != uint32(os.Geteuid())) {
			t.Errorf("%s: by %v", name, e)
		}
	}
	// Touched, or given other rights: still what was read.
	put(t, path, "first")
	c, err := tree.Read("file", 100)
	if err != nil {
		t.Fatal(err)
	}
	os.Chmod(path, 0o600)
	os.Chtimes(path, time.Now(), time.Now().Add(time.Hour))
	if c, err = tree.Write("file", []byte("second"), c.Version); err != nil {
		t.Error(err)
	}
	// Our own save leaves a note of who it was.
	if _, err := tree.Write("file", []byte("third"), c.Version); err != nil {
		t.Error(err)
	}
	_, err = tree.Write("file", []byte("fourth"), c.Version)
	var e *ErrChanged
	if !errors.As(err, &e) || !e.Known || time.Since(e.At) > time.Minute {
		t.Errorf("%v %+v", err, e)
	}
	_, err = tree.Write("file", nil, Absent)
	wantKind(t, "create what exists", err, quire.KindConflict)
	noRest(t, dir)
}

// Many save at once: each save either is the last of a line of versions or is
// told that it is not; none disappears without a word.
func TestSavesAtOnceLoseNothing(t *testing.T) {
	tree, dir := newTree(t)
	put(t, dir+"/file", "")
	const people, times = 8, 30
	var saved [people]int
	var all sync.WaitGroup
	for p := range people {
		all.Go(func() {
			for saved[p] < times {
				c, err := tree.Read("file", 1<<20)
				if err != nil {
					continue // being written
				}
				_, err = tree.Write("file", fmt.Appendf(c.Bytes, "%d\n", p), c.Version)
				var e *ErrChanged
				switch {
				case err == nil:
					saved[p]++
				case errors.As(err, &e), quire.KindOf(err) == quire.KindConflict, quire.KindOf(err) == quire.KindNotFound:
				default:
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	if n := strings.Count(get(t, dir+"/file"), "\n"); n != people*times {
		t.Errorf("%d lines of %d saves", n, people*times)
	}
	noRest(t, dir)
}

// A directory that is exchanged for a link out of the tree all the time gives
// nobody a way out (F-03; many more rounds in a soak).
func TestRenameRaceDoesNotEscape(t *testing.T) {
	tree, dir := newTree(t)
	outside := filepath.Join(filepath.Dir(dir), "outside")
	put(t, outside+"/file", "secret")
	put(t, dir+"/d/file", "mine")
	if err := os.Symlink(outside, dir+"/link"); err != nil {
		t.Fatal(err)
	}
	rounds := 2000
	if os.Getenv("QUIRE_SOAK") != "" {
		rounds = 100000
	}
	stop := make(chan struct{})
	var swapping sync.WaitGroup
	swapping.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				unix.Renameat2(unix.AT_FDCWD, dir+"/d", unix.AT_FDCWD, dir+"/link", unix.RENAME_EXCHANGE)
			}
		}
	})
	for i := range rounds {
		if c, err := tree.Read("d/file", 100); err == nil && string(c.Bytes) == "secret" {
			t.Fatal("the secret was read")
		}
		tree.Write("d/file", []byte("mine"), Overwrite)
		tree.Write(fmt.Sprintf("d/new%d", i), []byte("x"), Absent)
		tree.Mkdir("d/sub", true)
		tree.Copy(t.Context(), "d/file", tree, fmt.Sprintf("d/copy%d", i), nothing)
		tree.SetPermissions(t.Context(), "d", Change{Access: []acl.Entry{{Tag: acl.Owner, Perm: 7}, {Tag: acl.Group, Perm: 7}, {Tag: acl.Other, Perm: 7}}, Group: -1}, nothing)
		tree.Delete(t.Context(), "d/sub", nothing)
	}
	close(stop)
	swapping.Wait()
	list, err := os.ReadDir(outside)
	if err != nil || len(list) != 1 || get(t, outside+"/file") != "secret" {
		t.Errorf("outside has %v, %v", list, err)
	}
	if info, _ := os.Stat(outside); info.Mode().Perm() != 0o755 {
		t.Errorf("outside has mode %v", info.Mode())
	}
}

// F-22: bits that give rights are not copied.
func TestCopyLeavesRightsBehind(t *testing.T) {
	tree, dir := newTree(t)
	put(t, dir+"/a/tool", "x")
	os.Chmod(dir+"/a/tool", 0o6755)
	put(t, dir+"/a/b/c", "deep")
	os.Symlink("b/c", dir+"/a/link")
	unix.Mkfifo(dir+"/a/pipe", 0o666)
	p, err := tree.Copy(t.Context(), "a", tree, "a2", nothing)
	if err != nil || p.Failed != 1 || p.Items != 5 {
		t.Errorf("%+v %v", p, err)
	}
	info, err := os.Stat(dir + "/a2/tool")
	if err != nil || info.Mode() != 0o755 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	if target, err := os.Readlink(dir + "/a2/link"); err != nil || target != "b/c" || get(t, dir+"/a2/b/c") != "deep" {
		t.Errorf("%q %v", target, err)
	}
	// Into itself ends, too.
	if _, err := tree.Copy(t.Context(), "a", tree, "a/b/inside", nothing); err != nil {
		t.Error(err)
	}
	for i, want := range []string{"new.txt", "new copy.txt", "new copy 2.txt"} {
		got, err := tree.Free("", "new.txt")
		if err != nil || got != want {
			t.Errorf("%d: %q %v", i, got, err)
		}
		put(t, dir+"/"+got, "")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := tree.Copy(ctx, "a", tree, "a3", nothing); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
	wantKind(t, "a directory into itself", tree.Rename("a", tree, "a/x"), quire.KindInvalid)
	wantKind(t, "over another", tree.Rename("a", tree, "a2"), quire.KindConflict)
}

func TestArchives(t *testing.T) {
	tree, dir := newTree(t)
	for _, name := range hostile {
		put(t, filepath.Join(dir, "d", name), "in "+name)
	}
	os.Symlink("plain.txt", dir+"/d/link")
	unix.Mkfifo(dir+"/d/pipe", 0o666)
	put(t, dir+"/single", "one")

	var b bytes.Buffer
	if err := tree.Tar(t.Context(), &b, "", []string{"d", "single"}); err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for r := tar.NewReader(&b); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		content, _ := io.ReadAll(r)
		found[h.Name] = string(content)
	}
	for _, name := range hostile {
		if found["d/"+name] != "in "+name {
			t.Errorf("tar: %q has %q", name, found["d/"+name])
		}
	}
	if !strings.Contains(found[leftOut], "pipe") || found["single"] != "one" {
		t.Errorf("%q", found[leftOut])
	}

	b.Reset()
	if err := tree.Zip(t.Context(), &b, "", []string{"d"}); err != nil {
		t.Fatal(err)
	}
	r, err := zip.NewReader(bytes.NewReader(b.Bytes()), int64(b.Len()))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, f := range r.File {
		in, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(in)
		if err != nil {
			t.Error(err)
		}
		if name, ok := strings.CutPrefix(f.Name, "d/"); ok && string(content) == "in "+name {
			n++
		}
	}
	if n != len(hostile) {
		t.Errorf("zip: %d files of %d", n, len(hostile))
	}
	if err := tree.Zip(t.Context(), io.Discard, "", []string{"../x"}); err == nil {
		t.Error("a name with a slash was packed")
	}
	// What people have opens it.
	if unzip, err := exec.LookPath("unzip"); err == nil {
		file := filepath.Join(t.TempDir(), "a.zip")
		os.WriteFile(file, b.Bytes(), 0o600)
		if out, err := exec.Command(unzip, "-tqq", file).CombinedOutput(); err != nil {
			t.Errorf("unzip: %v %s", err, out)
		}
	}
}

func TestListInPages(t *testing.T) {
	tree, dir := newTree(t)
	for i := range 250 {
		put(t, fmt.Sprintf("%s/f%03d", dir, i), "")
	}
	put(t, dir+"/"+tempPrefix+"x", "")
	var all []string
	for after, more := "", true; more; {
		list, m, err := tree.List("", after, 100)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			all = append(all, e.Name)
		}
		more, after = m, all[len(all)-1]
	}
	if len(all) != 250 || all[249] != "f249" {
		t.Errorf("%d names", len(all))
	}
}

func TestListTenThousand(t *testing.T) {
	tree, dir := newTree(t)
	for i := range 10000 {
		f, err := os.Create(fmt.Sprintf("%s/file-%05d.csv", dir, i))
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	if list, _, err := tree.List("", "", 20000); err != nil || len(list) != 10000 {
		t.Error(len(list), err)
	}
}

func TestOneFileShown(t *testing.T) {
	tree, dir := newTree(t)
	put(t, dir+"/given", "shared")
	put(t, dir+"/hidden", "secret")
	_ = tree
	one, err := Open(dir + "/given")
	if err != nil {
		t.Fatal(err)
	}
	defer one.Close()
	list, _, err := one.List("", "", 10)
	if err != nil || len(list) != 1 || list[0].Name != "given" {
		t.Errorf("%v %v", list, err)
	}
	c, err := one.Read("given", 100)
	if err != nil || string(c.Bytes) != "shared" {
		t.Errorf("%q %v", c.Bytes, err)
	}
	if _, err := one.Write("given", []byte("changed"), c.Version); err != nil {
		t.Error(err)
	}
	_, err = one.Read("hidden", 100)
	wantKind(t, "the other file", err, quire.KindNotFound)
	wantKind(t, "a directory beside it", one.Mkdir("x", false), quire.KindNotFound)
}
