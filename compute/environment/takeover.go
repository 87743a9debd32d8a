package environment

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"quire"
	"quire/acl"
)

// findings are what a walk saw, by kind and by whose files they are.
type findings map[findKey]*quire.Finding

type findKey struct {
	kind string
	uid  uint32
}

const (
	maxExamples = 5
	maxExample  = 200      // bytes of a name
	maxFindings = 300      // kinds times people
	maxTold     = 40 << 10 // bytes; the spawner reads a little more
)

func (fs findings) add(kind string, uid uint32, bytes int64, path string) {
	f := fs[findKey{kind, uid}]
	if f == nil {
		f = &quire.Finding{Kind: kind, UID: uid}
		fs[findKey{kind, uid}] = f
	}
	f.N++
	f.Bytes += bytes
	if len(f.Examples) < maxExamples && path != "" {
		if len(path) > maxExample {
			path = "…" + path[len(path)-maxExample:]
		}
		f.Examples = append(f.Examples, strconv.Quote(path))
	}
}

// list is what is told: whoever names files chooses how long it is, so examples
// go before numbers do.
func (fs findings) list() []quire.Finding {
	var all []quire.Finding
	for _, f := range fs {
		all = append(all, *f)
	}
	slices.SortFunc(all, func(a, b quire.Finding) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(b.N, a.N), cmp.Compare(a.UID, b.UID))
	})
	all = all[:min(len(all), maxFindings)]
	for keep := 1; keep >= 0; keep-- {
		if b, err := json.Marshal(all); err != nil || len(b) <= maxTold {
			break
		}
		for i := range all {
			all[i].Examples = all[i].Examples[:min(len(all[i].Examples), keep)]
		}
	}
	return all
}

// aside begins the name beside a file under which its copy is made.
const aside = ".quire-take-over."

var (
	errLong    = errors.New(quire.FoundLong)
	errChanged = errors.New(quire.FoundBusy)
)

// exchange puts a file that was made beside the name in its place, and takes the
// old one away if it is still what was looked at. Nothing is lost: another file
// that came in its place meanwhile goes back.
func exchange(dir int, tmp, name string, was *unix.Stat_t) error {
	err := unix.Renameat2(dir, tmp, dir, name, unix.RENAME_EXCHANGE)
	if errors.Is(err, unix.EINVAL) { // a network share that cannot: the next best thing
		var now unix.Stat_t
		if err := unix.Fstatat(dir, name, &now, unix.AT_SYMLINK_NOFOLLOW); err != nil || !unchanged(&now, was) {
			return errChanged
		}
		return unix.Renameat(dir, tmp, dir, name)
	}
	if err != nil {
		return err
	}
	var now unix.Stat_t
	if err := unix.Fstatat(dir, tmp, &now, unix.AT_SYMLINK_NOFOLLOW); err != nil || !unchanged(&now, was) {
		return errors.Join(errChanged, unix.Renameat2(dir, tmp, dir, name, unix.RENAME_EXCHANGE))
	}
	return unix.Unlinkat(dir, tmp, 0)
}

func unchanged(now, was *unix.Stat_t) bool {
	return now.Ino == was.Ino && now.Dev == was.Dev && now.Size == was.Size && now.Mtim == was.Mtim && now.Uid == was.Uid
}

// beside makes an empty file of ours beside the name.
func beside(dir int, name string) (tmp string, f *os.File, err error) {
	if tmp = aside + name; len(tmp) > 255 {
		return "", nil, errLong
	}
	fd, err := unix.Openat(dir, tmp, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return "", nil, err
	}
	return tmp, os.NewFile(uintptr(fd), tmp), nil
}

// replace puts a copy of ours, with that list, in the place of a held file.
// Bits that give the rights of the file's owner or group stay behind.
func replace(ctx context.Context, dir int, name string, src int, was *unix.Stat_t, list []acl.Entry) (ino uint64, err error) {
	tmp, f, err := beside(dir, name)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	defer func() {
		if err != nil {
			err = errors.Join(err, drop(dir, tmp, f))
		}
	}()
	if err := fill(ctx, f, src, was.Size); err != nil {
		return 0, err
	}
	if err := acl.Set(int(f.Fd()), acl.Access, list); err != nil {
		return 0, err
	}
	times := []unix.Timespec{was.Atim, was.Mtim}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(int(f.Fd())), times, 0); err != nil {
		return 0, err
	}
	if err := f.Sync(); err != nil {
		return 0, err
	}
	var now, mine unix.Stat_t
	if err := errors.Join(unix.Fstat(src, &now), unix.Fstat(int(f.Fd()), &mine)); err != nil {
		return 0, err
	}
	if !unchanged(&now, was) {
		return 0, errChanged
	}
	return mine.Ino, exchange(dir, tmp, name, was)
}

// drop takes away what was made beside a name, and nothing else.
func drop(dir int, tmp string, f *os.File) error {
	var there, made unix.Stat_t
	if unix.Fstatat(dir, tmp, &there, unix.AT_SYMLINK_NOFOLLOW) != nil || unix.Fstat(int(f.Fd()), &made) != nil || there.Ino != made.Ino {
		return nil
	}
	return unix.Unlinkat(dir, tmp, 0)
}

// fill copies: on file systems that can, without taking more room.
func fill(ctx context.Context, to *os.File, src int, size int64) error {
	if unix.IoctlFileClone(int(to.Fd()), src) == nil {
		return nil
	}
	fd, err := unix.FcntlInt(uintptr(src), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return err
	}
	from := os.NewFile(uintptr(fd), "source")
	defer from.Close()
	const part = 64 << 20 // how much may be copied before a look at the clock
	for done := int64(0); ; done += part {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := io.Copy(to, io.LimitReader(from, part))
		if err != nil || n < part || done > 2*size {
			return err
		}
	}
}

// copied is where the copy of a file with several names is.
type copied struct {
	path string
	ino  uint64
	size int64
	mtim unix.Timespec
}

// part gives a file of ours that still names somebody who has lost rights, and
// that has other names, a copy in its place: what he linked elsewhere stays what
// it was, and is the project's no more. Names inside the project share the copy.
func (w *walk) part(o *outcome, dir int, name string, fd int, st *unix.Stat_t, path string, public bool) {
	have, err := acl.Get(fd, acl.Access)
	if err != nil {
		o.fail(err)
		return
	}
	if have == nil {
		have = acl.FromMode(st.Mode)
	}
	want, v := w.rights.access(st, have, public)
	if !v.named {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock() // one at a time: the second name waits for the first one's copy
	ino, err := replace(w.ctx, dir, name, fd, st, want)
	if err != nil {
		o.fail(err)
		return
	}
	w.parted[identity(fd, st)] = copied{path, ino, st.Size, st.Mtim}
	o.repaired++
}

// again gives a further name of a file the copy that another name got, if it is
// one, and reports whether it did. The last name looks like any file's.
func (w *walk) again(dir int, name string, fd int, st *unix.Stat_t) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.parted) == 0 {
		return false
	}
	c, is := w.parted[identity(fd, st)]
	return is && c.size == st.Size && c.mtim == st.Mtim && w.share(dir, name, c, st) == nil
}

func (w *walk) share(dir int, name string, c copied, st *unix.Stat_t) error {
	held, err := unix.Openat2(int(w.top.Fd()), c.path, &unix.OpenHow{Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: stay})
	if err != nil {
		return err
	}
	defer unix.Close(held)
	var now unix.Stat_t
	if err := unix.Fstat(held, &now); err != nil || now.Ino != c.ino || now.Uid != w.me {
		return errChanged
	}
	tmp := aside + name
	if len(tmp) > 255 {
		return errLong
	}
	if err := unix.Linkat(unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(held), dir, tmp, unix.AT_SYMLINK_FOLLOW); err != nil {
		return err
	}
	if err := exchange(dir, tmp, name, st); err != nil {
		if unix.Fstatat(dir, tmp, &now, unix.AT_SYMLINK_NOFOLLOW) == nil && now.Ino == c.ino {
			_ = unix.Unlinkat(dir, tmp, 0)
		}
		return err
	}
	return nil
}

// taking makes an author's files ours: each is copied and the copy put in its
// place. What is done already is not his any more, so it can be begun again at
// any point.
type taking struct {
	*walk
	from  uint32 // whose; 0: everybody's, to look
	until time.Time
	did   int
	more  bool
	dirs  []place  // his, in the order they were seen: those inside come after
	lost  []string // ours, from a try that was ended; what they were made for may have moved away
	taken findings
}

type place struct {
	path   string
	public bool
}

func takeOver(ctx context.Context, o options) (Result, error) {
	w, err := newWalk(ctx, o)
	if err != nil {
		return Result{}, err
	}
	defer w.close()
	if uint32(o.from) == w.me || o.from == 0 && !o.look {
		return Result{}, quire.Invalid("from", "It is not said whose files are taken over.")
	}
	t := &taking{walk: w, from: uint32(o.from), taken: findings{}}
	t.check = o.look
	t.until = time.Now().Add(o.limit)
	queue := []place{{path: "."}}
	for len(queue) > 0 && !t.more {
		if err := ctx.Err(); err != nil {
			return Result{}, err
		}
		p := queue[len(queue)-1]
		queue = queue[:len(queue)-1]
		below, err := t.in(p)
		if err != nil {
			return Result{}, err
		}
		queue = append(queue, below...)
	}
	for _, p := range slices.Backward(t.dirs) {
		if t.late() {
			break
		}
		if err := t.directory(p); err != nil && !errors.Is(err, unix.EACCES) { // those are told already
			t.leave(err, p.path)
		}
	}
	for _, path := range slices.Backward(t.lost) {
		if t.late() {
			break
		}
		if err := t.settle(path); err != nil {
			t.leave(err, path)
		}
	}
	return Result{Note: "taken over", Findings: t.taken.list(), More: t.more}, nil
}

// late reports that this part is over: in time, but not before something was
// done in it, as the next one begins from the start.
func (t *taking) late() bool {
	t.more = t.more || t.did > 0 && time.Now().After(t.until)
	return t.more
}

func (t *taking) wanted(uid uint32) bool { return uid == t.from || t.from == 0 && uid != t.me }

func (t *taking) open(path string) (int, error) {
	return unix.Openat2(int(t.top.Fd()), path, &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: stay})
}

// in does the files of a directory and lists the directories in it.
func (t *taking) in(p place) (below []place, err error) {
	dir, err := t.open(p.path)
	if err != nil {
		var st unix.Stat_t
		if errors.Is(err, unix.EACCES) && unix.Fstatat(int(t.top.Fd()), p.path, &st, unix.AT_SYMLINK_NOFOLLOW) == nil {
			t.taken.add(quire.FoundClosed, st.Uid, 0, p.path)
		}
		return nil, nil
	}
	f := os.NewFile(uintptr(dir), p.path)
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return nil, nil
	}
	fixed := unix.Faccessat(dir, ".", unix.W_OK, unix.AT_EACCESS) != nil
	for _, name := range names {
		var st unix.Stat_t
		if unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil || st.Dev != t.dev {
			continue
		}
		path := filepath.Join(p.path, name)
		kind := st.Mode & unix.S_IFMT
		if strings.HasPrefix(name, aside) && !t.check && kind == unix.S_IFREG {
			if t.tidy(dir, name, &st) {
				continue
			}
		}
		if strings.HasPrefix(name, aside) && !t.check && kind == unix.S_IFLNK {
			// Somebody put a link where a directory was, just as that changed places.
			_ = put(dir, name, dir, strings.TrimPrefix(name, aside))
			continue
		}
		switch kind {
		case unix.S_IFDIR:
			public := p.public || p.path == "." && name == "public"
			below = append(below, place{path, public})
			switch {
			case strings.HasPrefix(name, aside) && st.Uid == t.me && !t.check:
				t.lost = append(t.lost, path)
			case !t.wanted(st.Uid):
			case fixed:
				t.taken.add(quire.FoundFixed, st.Uid, 0, path)
			case t.check:
				t.taken.add(quire.FoundDirs, st.Uid, 0, path)
			default:
				t.dirs = append(t.dirs, place{path, public})
			}
		case unix.S_IFREG:
			if !t.wanted(st.Uid) {
				continue
			}
			if t.late() {
				return nil, nil
			}
			if err := t.file(dir, name, &st, fixed, path, p.public); err != nil {
				if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
					return nil, quire.Failed("The node's disk is full: what is taken over is copied and needs room. What was done stays; make room and take over again.", err)
				}
				t.leave(err, path)
			}
		} // links have no rights of their own
	}
	return below, nil
}

// leave notes why something stays its author's.
func (t *taking) leave(err error, path string) {
	kind := quire.FoundFixed
	switch {
	case errors.Is(err, errChanged):
		kind = quire.FoundBusy
	case errors.Is(err, errLong), errors.Is(err, unix.ENAMETOOLONG):
		kind = quire.FoundLong
	case errors.Is(err, errHolding):
		kind = quire.FoundHolding
	}
	t.taken.add(kind, t.from, 0, path)
}

// file takes over one file, or counts it.
func (t *taking) file(dir int, name string, st *unix.Stat_t, fixed bool, path string, public bool) error {
	switch {
	case st.Nlink > 1:
		t.taken.add(quire.FoundLinked, st.Uid, 0, path)
		return nil
	case fixed:
		t.taken.add(quire.FoundFixed, st.Uid, 0, path)
		return nil
	case len(aside+name) > 255:
		return errLong
	}
	fd, err := unix.Openat2(dir, name, &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_NONBLOCK | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: stay})
	if err != nil {
		t.taken.add(quire.FoundUnreadable, st.Uid, 0, path)
		return nil
	}
	defer unix.Close(fd)
	var now unix.Stat_t
	if err := unix.Fstat(fd, &now); err != nil || now.Ino != st.Ino || now.Mode&unix.S_IFMT != unix.S_IFREG || !t.wanted(now.Uid) || now.Nlink > 1 {
		return errChanged
	}
	if t.check {
		t.taken.add(quire.FoundFiles, st.Uid, st.Size, path)
		return nil
	}
	have, err := acl.Get(fd, acl.Access)
	if err != nil {
		return err
	}
	if have == nil {
		have = acl.FromMode(now.Mode)
	}
	ours := now
	ours.Uid, ours.Gid = t.me, t.rights.gid // as the copy will be
	want, _ := t.rights.access(&ours, have, public)
	if _, err := replace(t.ctx, dir, name, fd, &now, want); err != nil {
		return err
	}
	t.did++
	t.taken.add(quire.FoundFiles, st.Uid, st.Size, "")
	return nil
}

// tidy looks after what an earlier try left beside a name when it was ended, and
// reports whether that was it.
func (t *taking) tidy(dir int, tmp string, st *unix.Stat_t) bool {
	var there unix.Stat_t
	err := unix.Fstatat(dir, strings.TrimPrefix(tmp, aside), &there, unix.AT_SYMLINK_NOFOLLOW)
	switch {
	case st.Uid == t.me && err == nil: // a copy that did not get to its place
	case st.Uid == t.from && err == nil && there.Uid == t.me && there.Size == st.Size && there.Mtim == st.Mtim: // the old one, after its copy did
	default:
		return false
	}
	return unix.Unlinkat(dir, tmp, 0) == nil
}

var errHolding = errors.New(quire.FoundHolding)

// directory makes one of ours beside his, moves all that is in it over and puts
// it in its place. Ended in between, the next try moves the rest.
func (t *taking) directory(p place) error {
	parent, err := t.open(filepath.Dir(p.path))
	if err != nil {
		return err
	}
	defer unix.Close(parent)
	name := filepath.Base(p.path)
	old, err := unix.Openat2(parent, name, &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: stay})
	if err != nil {
		return err
	}
	defer unix.Close(old)
	var st unix.Stat_t
	if err := unix.Fstat(old, &st); err != nil {
		return err
	}
	if st.Uid != t.from {
		return errChanged
	}
	if whole, ok := strings.CutPrefix(name, aside); ok {
		if there, err := unix.Openat2(parent, whole, &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: stay}); err == nil {
			defer unix.Close(there)
			return errors.Join(move(old, there), unix.Unlinkat(parent, name, unix.AT_REMOVEDIR)) // an exchange that was not tidied up
		}
	}
	tmp := aside + name
	if len(tmp) > 255 {
		return errLong
	}
	if err := unix.Mkdirat(parent, tmp, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	made, err := unix.Openat2(parent, tmp, &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: stay})
	if err != nil {
		return err
	}
	defer unix.Close(made)
	var mine unix.Stat_t
	if err := unix.Fstat(made, &mine); err != nil || mine.Uid != t.me {
		return errChanged
	}
	have, err := acl.Get(old, acl.Access)
	if err != nil {
		return err
	}
	if have == nil {
		have = acl.FromMode(st.Mode)
	}
	children, err := acl.Get(old, acl.Default)
	if err != nil {
		return err
	}
	access, _ := t.rights.access(&mine, have, p.public)
	later, _ := t.rights.children(&mine, children, p.public)
	if err := errors.Join(acl.Set(made, acl.Default, later), acl.Set(made, acl.Access, access)); err != nil {
		return err
	}
	if err := move(old, made); err != nil { // not ours to write, or one in it is not
		// Back where it was, so that nothing lies under a strange name.
		return errors.Join(errHolding, move(made, old), unix.Unlinkat(parent, tmp, unix.AT_REMOVEDIR))
	}
	if err := unix.Renameat2(parent, tmp, parent, name, unix.RENAME_EXCHANGE); err != nil {
		return errors.Join(err, move(made, old), unix.Unlinkat(parent, tmp, unix.AT_REMOVEDIR))
	}
	// What was made in it meanwhile comes along.
	if err := errors.Join(move(old, made), unix.Unlinkat(parent, tmp, unix.AT_REMOVEDIR)); err != nil {
		return errChanged
	}
	t.did++
	t.taken.add(quire.FoundDirs, t.from, 0, "")
	return nil
}

// settle puts a directory of ours that an earlier try left beside a name where
// that name is now, or in its place if it is gone.
func (t *taking) settle(path string) error {
	parent, err := t.open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer unix.Close(parent)
	tmp := filepath.Base(path)
	name := strings.TrimPrefix(tmp, aside)
	made, err := unix.Openat2(parent, tmp, &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: stay})
	if errors.Is(err, unix.ENOENT) {
		return nil // it has found its place
	}
	if err != nil {
		return err
	}
	defer unix.Close(made)
	if there, err := unix.Openat2(parent, name, &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: stay}); err == nil {
		defer unix.Close(there)
		return errors.Join(move(made, there), unix.Unlinkat(parent, tmp, unix.AT_REMOVEDIR))
	}
	return put(parent, tmp, parent, name)
}

// put renames without replacing anything: a name that is taken gets a number.
func put(from int, name string, to int, wanted string) error {
	err := renameNew(from, name, to, wanted)
	for n := 1; errors.Is(err, unix.EEXIST) && n < 1000; n++ {
		err = renameNew(from, name, to, wanted+"."+strconv.Itoa(n))
	}
	return err
}

// renameNew moves a name where nothing may be yet. On a file server that cannot do
// that in one step a file gets its new name as a second one first, which fails if
// the name is taken. A directory has one name only: there somebody who makes an
// empty directory of the same name between our look and the move loses it.
func renameNew(from int, name string, to int, wanted string) error {
	err := unix.Renameat2(from, name, to, wanted, unix.RENAME_NOREPLACE)
	if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS) {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstatat(from, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		err := unix.Linkat(from, name, to, wanted, 0)
		if err == nil {
			return unix.Unlinkat(from, name, 0)
		}
		if !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.ENOTSUP) && !errors.Is(err, unix.ENOSYS) {
			return err
		}
		// Another's file, or no second names there: as with a directory.
	}
	if err := unix.Fstatat(to, wanted, &st, unix.AT_SYMLINK_NOFOLLOW); !errors.Is(err, unix.ENOENT) {
		return cmp.Or(err, error(unix.EEXIST))
	}
	return unix.Renameat(from, name, to, wanted)
}

// move moves all that is in a directory to another one. What was made meanwhile
// under a name that is there already is kept beside it.
func move(from, to int) error {
	fd, err := unix.Openat(from, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), ".")
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := put(from, name, to, name); err != nil {
			return err
		}
	}
	return nil
}
