package files

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"quire/test"
)

// On a file server as NFS is, which cannot rename "unless it exists", nothing is
// replaced either.
func TestNothingIsReplacedOnAFileServer(t *testing.T) {
	if os.Getenv("QUIRE_NAMESPACE") == "" && os.Getenv("CI") == "" {
		t.Skip("needs root: go test -exec scripts/in-namespace")
	}
	root := t.TempDir()
	(&test.FileServer{Lists: true, Pass: true, Obey: true}).Mount(t, root)
	make := func(name string) {
		t.Helper()
		fd, err := unix.Open(filepath.Join(root, name), unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(fd)
	}
	ino := func(name string) uint64 {
		var st unix.Stat_t
		if unix.Lstat(filepath.Join(root, name), &st) != nil {
			return 0
		}
		return st.Ino
	}
	dir, err := os.OpenFile(root, unix.O_PATH, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	make("new")
	if err := unix.Renameat2(int(dir.Fd()), "new", int(dir.Fd()), "y", unix.RENAME_NOREPLACE); !errors.Is(err, unix.EINVAL) {
		t.Fatalf("this file server can: %v", err)
	}
	make("theirs")
	for _, name := range []string{"directory", "full"} {
		if err := unix.Mkdir(filepath.Join(root, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	make("full/inside")
	for _, c := range []struct {
		from, to string
		want     error
	}{
		{"new", "theirs", unix.EEXIST}, {"new", "directory", unix.EEXIST}, {"directory", "theirs", unix.EEXIST}, {"directory", "full", unix.EEXIST},
		{"missing", "other", unix.ENOENT}, {"new", "other", nil}, {"full", "moved", nil},
	} {
		was, there := ino(c.from), ino(c.to)
		if err := renameNew(dir, c.from, dir, c.to); !errors.Is(err, c.want) {
			t.Errorf("%s to %s: %v, want %v", c.from, c.to, err, c.want)
		}
		if c.want != nil && (ino(c.from) != was || ino(c.to) != there) || c.want == nil && (ino(c.from) != 0 || ino(c.to) != was) {
			t.Errorf("%s to %s: it is %d and %d now", c.from, c.to, ino(c.from), ino(c.to))
		}
	}
}
