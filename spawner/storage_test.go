package spawner

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"quire"
	"quire/test"
)

// forget is an administrator who says that another storage takes the place.
func (l *lab) forget() {
	l.t.Helper()
	if err := os.Remove(filepath.Join(l.c.StateDir, "storage")); err != nil && !errors.Is(err, os.ErrNotExist) {
		l.t.Fatal(err)
	}
}

func needsRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("this test needs root, and CI may leave nothing out")
		}
		t.Skip("this test needs root")
	}
}

// F-17: what the project root may lie on, by real mounts. What cannot keep
// people apart is found, named with what to mount how, and nothing starts there.
//
//fault:disk the projects' disk has no access lists
//fault:seen no project starts on it, and the page says what to mount how
//fault:lost nothing
//fault:repair mounting it so
func TestStorage(t *testing.T) {
	needsRoot(t)
	l := newLab(t)
	root := l.c.ProjectRoot
	run := func(name string, args ...string) {
		t.Helper()
		if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s %v: %v: %s", name, args, err, out)
		}
	}
	kernel := func(kind, options string, flags uintptr) func(*testing.T) {
		return func(t *testing.T) { l.check(unix.Mount("test", root, kind, flags, options)) }
	}
	loop := func(kind string, options ...string) func(*testing.T) {
		return func(t *testing.T) {
			image := l.base + "/" + kind
			f, err := os.Create(image)
			l.check(err)
			l.check(f.Truncate(320 << 20)) // XFS wants that much, and leaves most of it empty
			l.check(f.Close())
			run("mkfs."+kind, "-q", image)
			run("mount", append([]string{"-o", "loop"}, append(options, image, root)...)...)
			l.check(os.Chmod(root, 0o711))
		}
	}
	serve := func(s *test.FileServer) func(*testing.T) { return func(t *testing.T) { s.Mount(t, root) } }
	for _, c := range []struct {
		name    string
		mount   func(*testing.T)
		problem string // "" = projects start
		warning string
		device  string // what the machine must have
	}{
		{"tmpfs", kernel("tmpfs", "mode=711", 0), "", "", ""},
		{"noexec", kernel("tmpfs", "mode=711", unix.MS_NOEXEC|unix.MS_NOSUID), "", "is mounted with noexec", ""},
		{"no inodes", kernel("tmpfs", "mode=711,nr_inodes=40", 0), "", "inodes are used up", ""},
		{"no access lists", kernel("ramfs", "mode=711", 0), "(file system ramfs) has no POSIX access lists; mount one there that has them: ext4", "", ""},
		{"read-only", kernel("tmpfs", "mode=711,ro", unix.MS_RDONLY), "is mounted read-only (ro); mount it with rw.", "", ""},
		{"somebody's", kernel("tmpfs", "mode=711,uid=2001", 0), "it belongs to uid 2001, not 0", "", ""},
		{"open to all", kernel("tmpfs", "mode=777", 0), "others may write to it (mode 0777)", "", ""},
		{"ext4", loop("ext4"), "", "", "/dev/loop-control"},
		{"xfs", loop("xfs"), "", "", "/dev/loop-control"},
		{"btrfs", loop("btrfs"), "", "", "/dev/loop-control"},
		{"noacl", loop("btrfs", "-o", "noacl"), "is mounted with noacl; mount it with acl.", "", "/dev/loop-control"}, // newer kernels refuse it for ext4 and XFS
		{"a file server", serve(&test.FileServer{Lists: true, Pass: true, Obey: true}), "", "", "/dev/fuse"},
		{"root squashed", serve(&test.FileServer{Squash: true, Lists: true, Pass: true, Obey: true}), "root cannot give files to people", "", "/dev/fuse"},
		{"A is a", serve(&test.FileServer{Fold: true, Lists: true, Pass: true, Obey: true}), "takes capital and small letters in names for the same", "", "/dev/fuse"},
		{"lists that are not passed on", serve(&test.FileServer{Lists: true, Obey: true}), "has no POSIX access lists", "", "/dev/fuse"},
		{"lists for show", serve(&test.FileServer{Lists: true, Pass: true}), "does not obey modes and access lists; mount it with default_permissions", "", "/dev/fuse"},
	} {
		if c.device != "" {
			if _, err := os.Stat(c.device); err != nil {
				t.Logf("%s is left out: %v", c.name, err) // a container without it
				continue
			}
		}
		t.Run(c.name, func(t *testing.T) {
			l.t = t
			c.mount(t)
			t.Cleanup(func() { _ = unix.Unmount(root, unix.MNT_DETACH) })
			l.forget()
			l.again()
			defer func() { l.s.storage.dir.Close() }() // nil where it could not be opened
			hello, err := l.s.answer(context.Background(), ask{Op: "hello"}, nil)
			l.check(err)
			disk := *hello.Storage
			t.Logf("%+v", disk)
			_, err = l.ask(l.order(quire.OrderDirectory))
			if c.problem == "" {
				if err != nil || !disk.Fit || disk.Problem != "" || disk.ID == "" || disk.Type == "" || disk.Total == 0 {
					t.Fatalf("%v", err)
				}
				l.must(l.order(quire.OrderTrash))
				l.must(l.order(quire.OrderRestore))
				l.must(l.order(quire.OrderDirectory, func(o *quire.Order) { o.Project = "p_bbbbbbbbbbbbbbbb"; o.Dir = root + "/alice/q" }))
				if again := CheckStorage(root, 0); again.ID != disk.ID || !again.Fit { // as another node sees it
					t.Errorf("%+v", again)
				}
			} else if quire.KindOf(err) != quire.KindFailed || !strings.Contains(err.Error(), c.problem) || disk.Fit || disk.Problem != quire.AsError(err).Message {
				t.Errorf("refused with %v", err)
			}
			if got := strings.Join(disk.Warnings, " "); !strings.Contains(got, c.warning) {
				t.Errorf("warnings: %s", got)
			}
			names, err := os.ReadDir(root)
			for _, n := range names {
				if n.Name() != storageFile && n.Name() != "lost+found" && n.Name() != "alice" {
					t.Errorf("%s is left", n.Name())
				}
			}
			if err != nil && !strings.HasPrefix(disk.Type, "fuse") {
				t.Error(err)
			}
		})
	}
}

// F-17: what happens to a storage while it is in use: it is mounted otherwise,
// something is mounted over it, its server does not answer.
//
//fault:disk the projects' disk turns read-only, is full, is mounted over, or hangs
//fault:seen nothing starts there, and the pages say why; the node itself goes on
//fault:lost what could not be written
//fault:repair the disk, as it was
func TestStorageChanges(t *testing.T) {
	needsRoot(t)
	l := newLab(t)
	root := l.c.ProjectRoot
	l.check(unix.Mount("test", root, "tmpfs", 0, "mode=711"))
	t.Cleanup(func() {
		for unix.Unmount(root, unix.MNT_DETACH) == nil { // whatever is there
		}
	})
	l.forget()
	l.again()
	l.must(l.order(quire.OrderDirectory))
	start := l.order(quire.OrderStart, session(quire.NewSessionID()))
	l.check(unix.Mount("", root, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""))
	for _, o := range []quire.Order{l.order(quire.OrderDirectory), start} {
		if _, err := l.ask(o); quire.KindOf(err) != quire.KindFailed || !strings.Contains(err.Error(), "is mounted read-only") {
			t.Errorf("%s: %v", o.Type, err)
		}
	}
	l.check(unix.Mount("", root, "", unix.MS_REMOUNT|unix.MS_BIND, ""))
	l.must(l.order(quire.OrderDirectory))

	// On a full disk people get in, to make room.
	l.check(unix.Mount("", root, "", unix.MS_REMOUNT, "mode=711,nr_inodes=20"))
	var err error
	for n := 0; err == nil; n++ {
		err = os.WriteFile(fmt.Sprintf("%s/alice/p/%d", root, n), nil, 0o600)
	}
	l.s.storage.mu.Lock()
	l.s.storage.tried = time.Time{}
	l.s.storage.mu.Unlock()
	l.must(l.order(quire.OrderDirectory))
	if now, _ := l.s.storage.report(time.Minute); !now.Fit || !strings.Contains(strings.Join(now.Warnings, " "), "no room to try") {
		t.Errorf("a full disk: %+v", now)
	}

	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Logf("no file server: %v", err) // a container without it
		return
	}
	server := &test.FileServer{Lists: true, Pass: true, Obey: true}
	server.Mount(t, root)
	if _, err := l.ask(l.order(quire.OrderDirectory)); quire.KindOf(err) != quire.KindFailed || !strings.Contains(err.Error(), "Something else was mounted on") {
		t.Errorf("mounted over: %v", err)
	}

	again := server.Hang()
	defer again()
	d := newStorage(root, 0, "late", "", l.s.c.Log)
	defer func() { d.dir.Close() }()
	if now, answers := d.report(0); answers || now.Fit || !strings.HasSuffix(now.Problem, "does not answer.") {
		t.Errorf("a server that hangs: %+v", now)
	}
	if _, err := d.open(); quire.KindOf(err) != quire.KindUnavailable {
		t.Errorf("a server that hangs: %v", err)
	}
	again()
	if now, answers := d.report(time.Minute); !answers || !now.Fit {
		t.Errorf("a server that is back: %+v", now)
	}
	again = server.Hang()
	defer again()
	if now, answers := d.report(0); !answers || !now.Fit {
		t.Errorf("a server that is slow: %+v", now)
	}
	d.mu.Lock()
	d.since = d.since.Add(-diskHangs)
	d.mu.Unlock()
	if now, answers := d.report(0); answers || now.Fit || !strings.HasSuffix(now.Problem, "does not answer.") {
		t.Errorf("a server that hangs again: %+v", now)
	}
	again()
	if err := d.unfit(); err != nil {
		t.Errorf("a server that is back again: %v", err)
	}
}

// A node starts before its file server is mounted, or without it.
//
//fault:disk the projects' disk or file server is not mounted when a node starts
//fault:seen nothing starts there, and the pages say what to mount; nothing is made beneath its place
//fault:lost nothing
//fault:repair mounting it; nothing needs a restart
func TestStorageIsMissing(t *testing.T) {
	needsRoot(t)
	l := newLab(t)
	place := l.c.ProjectRoot
	mount := func() { l.check(unix.Mount("test", place, "tmpfs", 0, "mode=711")) }
	kept := place + ".disk"
	l.check(os.Mkdir(kept, 0o700))
	l.forget() // what was there before the disk
	mount()
	l.check(unix.Mount(place, kept, "", unix.MS_BIND, "")) // it is away then, not gone
	t.Cleanup(func() {
		for unix.Unmount(place, unix.MNT_DETACH) == nil || unix.Unmount(kept, unix.MNT_DETACH) == nil { // whatever is there
		}
	})
	l.again()
	l.must(l.order(quire.OrderDirectory))
	refused := func(t *testing.T, what string) {
		t.Helper()
		if _, err := l.ask(l.order(quire.OrderDirectory)); quire.KindOf(err) != quire.KindFailed || !strings.Contains(err.Error(), "is not there; mount it.") {
			t.Errorf("%s: %v", what, err)
		}
	}
	l.check(unix.Unmount(place, unix.MNT_DETACH))
	before, err := os.ReadDir(place)
	l.check(err)
	l.again()
	refused(t, "it is not mounted")
	after, err := os.ReadDir(place)
	if err != nil || len(after) != len(before) {
		t.Errorf("beneath its place: %v %v, before %v", after, err, before)
	}
	l.check(os.Rename(place, place+".aside"))
	l.again()
	refused(t, "its place is missing too")
	if _, err := os.Stat(place); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a place was made: %v", err)
	}
	l.check(os.Rename(place+".aside", place))
	mount()
	refused(t, "another one is mounted")
	l.check(unix.Unmount(place, unix.MNT_DETACH))
	l.check(unix.Mount(kept, place, "", unix.MS_BIND, ""))
	l.s.storage.report(time.Minute)
	l.must(l.order(quire.OrderDirectory)) // without a restart
	l.check(unix.Unmount(place, unix.MNT_DETACH))
	l.forget()
	mount()
	l.again()
	l.must(l.order(quire.OrderDirectory))
}

// F-17: the lines of the kernel's list for what no machine of ours can mount.
func TestMountLines(t *testing.T) {
	for line, want := range map[string]string{
		"97 1 0:52 / /projects rw,relatime shared:1 - nfs server:/p rw,vers=3,noacl,hard,addr=10.0.0.1":           "/projects is mounted with noacl; mount it with acl.",
		"98 1 0:53 / /projects rw,relatime master:1 propagate_from:2 - nfs4 server:/p rw,vers=4.2,rsize=1048576,": "/projects is mounted by NFS version 4, which has no POSIX access lists; mount it with vers=3,acl.",
		"99 1 8:1 / /projects rw,noatime - ext4 /dev/sda1 rw,noacl,errors=remount-ro":                             "/projects is mounted with noacl; mount it with acl.",
		"99 1 8:1 / /projects\\040x rw,noatime - vfat /dev/sda1 rw,fmask=0022":                                    "/projects (file system vfat) has no POSIX access lists; mount one there that has them: ext4, XFS, Btrfs, or NFS with vers=3,acl.",
	} {
		s := quire.Storage{Root: "/projects"}
		s.Type, s.Options = mountLine(line)
		if got := refusal(unix.EOPNOTSUPP, s); quire.AsError(got).Message != want {
			t.Errorf("%s\n%v", line, got)
		}
	}
	s := quire.Storage{Root: "/projects"}
	s.Type, s.Options = mountLine("97 1 0:52 / /projects rw - nfs server:/p rw,vers=3,acl")
	if got := sentence("/projects", refusal(unix.EACCES, s)); got != "On /projects root has no rights: the file server takes them away (root_squash); export it to this node with no_root_squash." {
		t.Error(got)
	}
	for _, line := range []string{"", "1 2 3", "1 2 3 4 5 6 - ", " - ext4 x rw"} {
		if kind, options := mountLine(line); kind != "" || options != nil {
			t.Errorf("%q: %s %s", line, kind, options)
		}
	}
}

// F-16: two nodes on one storage show the same identity, although they come at
// the same time, and of two that get the same order at once one does it while
// the other finds it done.
//
//fault:disk two nodes on one storage make one project at once
//fault:seen one waits for the other
//fault:lost nothing
func TestTwoNodesOnOneStorage(t *testing.T) {
	one, two := newLab(t), newLab(t)
	two.c.Verifier, two.signer = one.c.Verifier, one.signer
	both := func(f func(i int, l *lab) error) {
		t.Helper()
		var ready, done sync.WaitGroup
		var failed [2]error
		ready.Add(2)
		for i, l := range []*lab{one, two} {
			done.Go(func() {
				ready.Done()
				ready.Wait()
				failed[i] = f(i, l)
			})
		}
		done.Wait()
		one.check(errors.Join(failed[:]...))
	}
	for round := range 20 {
		root := fmt.Sprintf("%s/projects/%d", one.base, round)
		one.c.ProjectRoot, two.c.ProjectRoot = root, root
		both(func(_ int, l *lab) (err error) { l.s, err = New(l.c); return err })
		a, b := one.s.storage.last.ID, two.s.storage.last.ID
		if a != b || !quire.ValidID('v', string(a)) {
			t.Fatalf("one storage is called %q and %q", a, b)
		}
		for _, kind := range []quire.OrderType{quire.OrderDirectory, quire.OrderTrash, quire.OrderRestore} {
			var did [2]answer
			both(func(i int, l *lab) (err error) { did[i], err = l.ask(l.order(kind)); return err })
			if did[0].Already == did[1].Already {
				t.Fatalf("%s: %+v", kind, did)
			}
		}
		one.s.storage.dir.Close()
		two.s.storage.dir.Close()
	}
}
