package spawner

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"quire"
	"quire/acl"
)

// mount is a line of /proc/self/mountinfo: what a descriptor is on.
func mountOf(fd int) (kind string, options []string) {
	info, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", fd))
	if err != nil {
		return "", nil
	}
	for line := range strings.Lines(string(info)) {
		if id, ok := strings.CutPrefix(line, "mnt_id:"); ok {
			f, err := os.Open("/proc/self/mountinfo")
			if err != nil {
				return "", nil
			}
			defer f.Close()
			for s := bufio.NewScanner(f); s.Scan(); {
				if have, _, _ := strings.Cut(s.Text(), " "); have == strings.TrimSpace(id) {
					return mountLine(s.Text())
				}
			}
		}
	}
	return "", nil
}

// mountAt is the same for a directory that cannot be opened, only reached.
func mountAt(path string) (kind string, options []string) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", nil
	}
	defer unix.Close(fd)
	return mountOf(fd)
}

// mountLine takes out of a line the file system's type and the options, the
// mount's and the file system's, that matter to us.
func mountLine(line string) (kind string, options []string) {
	left, right, ok := strings.Cut(line, " - ")
	l, r := strings.Fields(left), strings.Fields(right)
	if !ok || len(l) < 6 || len(r) < 3 {
		return "", nil
	}
	for _, o := range strings.Split(l[5]+","+r[2], ",") {
		name, _, _ := strings.Cut(o, "=")
		switch name {
		case "ro", "acl", "noacl", "posixacl", "noexec", "nosuid", "vers", "casefold", "default_permissions":
			if !slices.Contains(options, o) {
				options = append(options, o)
			}
		}
	}
	slices.Sort(options)
	return r[0], options
}

// The sentences about what is wrong say what to mount how.

func squashed(s quire.Storage) error {
	if strings.HasPrefix(s.Type, "nfs") {
		return quire.Failed("On "+s.Root+" root has no rights: the file server takes them away (root_squash); export it to this node with no_root_squash.", nil)
	}
	return quire.Failed("On "+s.Root+" (file system "+s.Type+") root cannot give files to people; mount a file system there that keeps owners.", nil)
}

func listless(s quire.Storage) error {
	switch {
	case slices.Contains(s.Options, "noacl"):
		return quire.Failed(s.Root+" is mounted with noacl; mount it with acl.", nil)
	case s.Type == "nfs4":
		return quire.Failed(s.Root+" is mounted by NFS version 4, which has no POSIX access lists; mount it with vers=3,acl.", nil)
	}
	return quire.Failed(s.Root+" (file system "+s.Type+") has no POSIX access lists; mount one there that has them: ext4, XFS, Btrfs, or NFS with vers=3,acl.", nil)
}

func disobedient(s quire.Storage) error {
	if strings.HasPrefix(s.Type, "fuse") {
		return quire.Failed(s.Root+" (file system "+s.Type+") does not obey modes and access lists; mount it with default_permissions, or another file system.", nil)
	}
	return quire.Failed(s.Root+" (file system "+s.Type+") takes modes and access lists and does not obey them; mount another file system there.", nil)
}

func folding(s quire.Storage) error {
	return quire.Failed(s.Root+" takes capital and small letters in names for the same, so two projects could be one; mount it without that (no casefold) or another file system.", nil)
}

// Who plays the people in the probe: accounts that every system has and that no
// session ever is. Nobody but root gets to the directory otherwise.
const probeOwner, probeMember, probeStranger = 1, 2, 3

// try does in small what projects need: a directory that is given to somebody,
// with lists that what is made in it takes over, and that the kernel obeys.
func (d *storage) try(root *os.File, s quire.Storage) (err error) {
	at := int(root.Fd())
	if err := clearProbe(at, d.probe); err != nil { // a crash may have left it
		return refusal(err, s)
	}
	if err := unix.Mkdirat(at, d.probe, 0o700); err != nil {
		return refusal(err, s)
	}
	defer func() {
		if e := clearProbe(at, d.probe); e != nil && err == nil {
			err = e
		}
	}()
	fd, err := openBeneath(at, d.probe)
	if err != nil {
		return refusal(err, s)
	}
	dir := os.NewFile(uintptr(fd), d.probe)
	defer dir.Close()
	owner := d.keeper
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Uid != d.keeper {
		return squashed(s)
	}
	if d.keeper == 0 { // only root can give
		owner = probeOwner
		if err := unix.Fchown(fd, probeOwner, probeOwner); err != nil {
			return refusal(err, s)
		}
		if err := unix.Fstat(fd, &st); err != nil || st.Uid != probeOwner || st.Gid != probeOwner {
			return errors.Join(err, squashed(s))
		}
	}
	team := quire.TeamArgs{Viewers: []uint32{probeMember}}
	access, children := lists(Account{UID: owner}, team)
	access[len(access)-1].Perm = 0 // unlike a project: others do not pass through
	if err := setLists(fd, access, children); err != nil {
		return refusal(err, s)
	}
	if !same(dir, acl.Access, access) || !same(dir, acl.Default, children) {
		return listless(s)
	}
	file, err := unix.Openat(fd, "name", unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o660)
	if err != nil {
		return refusal(err, s)
	}
	defer unix.Close(file)
	if have, err := acl.Get(file, acl.Access); err != nil || !slices.Contains(have, acl.Entry{Tag: acl.User, ID: probeMember, Perm: acl.Read | acl.Execute}) {
		return listless(s)
	}
	if err := unix.Fstatat(fd, "NAME", &st, unix.AT_SYMLINK_NOFOLLOW); err == nil {
		return folding(s)
	}
	if d.keeper != 0 {
		return nil
	}
	member, stranger := reads(fd, probeMember), reads(fd, probeStranger)
	if member != nil || !errors.Is(stranger, unix.EACCES) {
		d.log.Warn("access lists are not obeyed", "root", d.root, "member", member, "stranger", stranger)
		return disobedient(s)
	}
	return nil
}

// refusal is what an error of the kernel means on a project root.
func refusal(err error, s quire.Storage) error {
	switch {
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS):
		return listless(s)
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM), errors.Is(err, unix.EINVAL), errors.Is(err, unix.EOVERFLOW):
		return errors.Join(squashed(s), err)
	case errors.Is(err, unix.EROFS):
		return quire.Failed(s.Root+" is mounted read-only (ro); mount it with rw.", err)
	}
	return err
}

func clearProbe(at int, name string) error {
	fd, err := openBeneath(at, name)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err == nil {
		err = unix.Unlinkat(fd, "name", 0)
		unix.Close(fd)
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	return unix.Unlinkat(at, name, unix.AT_REMOVEDIR)
}

// reads opens the probe's file as a person would: the file system's idea of who
// this thread is changes, and with it root's rights over files go and come back.
func reads(dir int, uid int) error {
	runtime.LockOSThread() // and the thread ends with us if it cannot be root again
	if bits, err := unix.PrctlRetInt(unix.PR_GET_SECUREBITS, 0, 0, 0, 0); err != nil || bits&(1<<2) != 0 {
		runtime.UnlockOSThread()
		return errors.New("this container keeps rights when the account changes (no-setuid-fixup)")
	}
	gid, _ := unix.SetfsgidRetGid(uid)
	_, _ = unix.SetfsuidRetUid(uid)
	fd, err := unix.Openat(dir, "name", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	_, _ = unix.SetfsuidRetUid(0)
	_, _ = unix.SetfsgidRetGid(gid)
	if now, _ := unix.SetfsuidRetUid(-1); now == 0 {
		runtime.UnlockOSThread()
	}
	if err != nil {
		return err
	}
	return unix.Close(fd)
}
