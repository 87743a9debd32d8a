package spawner

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"quire"
	"quire/acl"
)

// unpacker makes files of frames, below a directory that only we get to. It
// believes nothing of what it reads: names are single names, owners and groups
// those of the order, and there is not more than the order says.
type unpacker struct {
	in     *bufio.Reader
	stage  int // the directory in which the tree is made
	top    string
	keeper uint32
	owners map[uint32]bool
	named  map[uint32]bool
	groups map[string]uint32
	files  int64 // names that may still come
	bytes  int64 // of content that may still come

	stack []level
	sum   hash.Hash
	got   quire.Survey
	buf   []byte
}

// level is a directory that is being filled.
type level struct {
	f    *os.File
	name string
	e    entry
}

var errHostile = errors.New("hostile")

// bad refuses what no honest node sends.
func bad(format string, args ...any) error {
	return quire.Failed("What the other node sent of the project cannot be taken in.", fmt.Errorf("%w: %s", errHostile, fmt.Sprintf(format, args...)))
}

// run reads frames to the end. What was made stays, also after an error.
func (u *unpacker) run() (quire.Survey, error) {
	u.sum, u.buf = sha256.New(), make([]byte, 0, block)
	defer func() {
		for _, l := range u.stack {
			l.f.Close()
		}
	}()
	for {
		kind, b, err := u.frame()
		if err != nil {
			return u.got, err
		}
		if len(u.stack) == 0 && (kind != frameDir || u.got.Dirs > 0) && kind != frameEnd {
			return u.got, bad("a frame %q outside of the tree", kind)
		}
		switch kind {
		case frameEnd:
			if len(u.stack) > 0 || u.got.Dirs == 0 {
				return u.got, bad("it ended too soon")
			}
			u.got.Digest = u.sum.Sum(nil)
			return u.got, nil
		case frameUp:
			err = u.up()
		case frameDir, frameFile, frameLink, frameAlso:
			err = u.entry(kind, b)
		default:
			err = bad("a frame %q", kind)
		}
		if err != nil {
			return u.got, err
		}
	}
}

// frame reads one; what it returns is good until the next.
func (u *unpacker) frame() (byte, []byte, error) {
	var head [5]byte
	if _, err := io.ReadFull(u.in, head[:]); err != nil {
		return 0, nil, cut(err)
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n > max(block, maxEntry) {
		return 0, nil, bad("a frame of %d bytes", n)
	}
	u.buf = u.buf[:n]
	if _, err := io.ReadFull(u.in, u.buf); err != nil {
		return 0, nil, cut(err)
	}
	u.sum.Write(head[:])
	u.sum.Write(u.buf)
	return head[0], u.buf, nil
}

func cut(err error) error {
	return quire.Unavailable("The files did not arrive to the end.", err)
}

func (u *unpacker) entry(kind byte, b []byte) error {
	var e entry
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&e); err != nil {
		return bad("an entry: %v", err)
	}
	name := string(e.Name)
	top := len(u.stack) == 0
	if top != (name == "") || name == "." || name == ".." || len(name) > 255 || strings.ContainsAny(name, "/\x00") {
		return bad("the name %q", name)
	}
	if top {
		name = u.top
	}
	if u.files--; u.files < 0 {
		return bad("more names than were counted")
	}
	if kind == frameAlso {
		u.got.Files++
		return u.also(name, e)
	}
	_, known := u.groups[e.Group]
	if !u.owners[e.UID] || !known || e.Mode&^0o3777 != 0 || e.Nsec < 0 || e.Nsec > 999_999_999 {
		return bad("%q belongs to %d and %q, mode %o", name, e.UID, e.Group, e.Mode)
	}
	switch kind {
	case frameDir:
		u.got.Dirs++
		return u.dir(name, e)
	case frameLink:
		u.got.Files++
		return u.link(name, e)
	}
	u.got.Files++
	return u.file(name, e)
}

// here is the directory that is being filled.
func (u *unpacker) here() int {
	if len(u.stack) == 0 {
		return u.stage
	}
	return int(u.stack[len(u.stack)-1].f.Fd())
}

func (u *unpacker) dir(name string, e entry) error {
	if len(u.stack) > maxDepth+1 {
		return bad("too many directories within each other")
	}
	if err := unix.Mkdirat(u.here(), name, 0o700); err != nil {
		return made(name, err)
	}
	fd, err := openBeneath(u.here(), name)
	if err != nil {
		return made(name, err)
	}
	u.stack = append(u.stack, level{os.NewFile(uintptr(fd), "staged"), name, e})
	return nil
}

func made(name string, err error) error {
	if errors.Is(err, unix.EEXIST) {
		return bad("%q comes twice", name)
	}
	return noRoom("A file of the project could not be made on the other node", err)
}

// up is the end of a directory: now that nothing is made in it any more, it gets
// its owner, lists and time.
func (u *unpacker) up() error {
	l := u.stack[len(u.stack)-1]
	u.stack = u.stack[:len(u.stack)-1]
	defer l.f.Close()
	if err := u.dress(int(l.f.Fd()), l.e, true); err != nil {
		return err
	}
	return u.stamp(l.name, l.e)
}

// dress gives a file or directory that we made its owner, mode and lists.
func (u *unpacker) dress(fd int, e entry, dir bool) error {
	if err := u.give(fd, e); err != nil {
		return noRoom("A file could not be given to its owner", err)
	}
	mode := e.Mode
	if !dir {
		mode &= 0o777
	}
	if err := unix.Fchmod(fd, mode); err != nil {
		return noRoom("A file's mode could not be set", err)
	}
	for kind, list := range map[acl.Kind][]grant{acl.Access: e.Access, acl.Default: e.Default} {
		if len(list) == 0 {
			continue
		}
		if !dir && kind == acl.Default {
			return bad("a file with a directory's list")
		}
		entries, err := u.list(list)
		if err != nil {
			return err
		}
		if err := acl.Set(fd, kind, entries); err != nil {
			return noRoom("A file's access list could not be set", err)
		}
	}
	return nil
}

func (u *unpacker) give(fd int, e entry) error {
	if u.keeper != 0 {
		return nil
	}
	return unix.Fchown(fd, int(e.UID), int(u.groups[e.Group]))
}

func (u *unpacker) list(list []grant) (out []acl.Entry, err error) {
	for _, g := range list {
		a := acl.Entry{Tag: g.Tag, Perm: g.Perm}
		switch g.Tag {
		case acl.User:
			if !u.owners[g.UID] && !u.named[g.UID] {
				return nil, bad("a list names account %d", g.UID)
			}
			a.ID = g.UID
		case acl.Named:
			gid, ok := u.groups[g.Group]
			if !ok {
				return nil, bad("a list names the group %q", g.Group)
			}
			a.ID = gid
		}
		out = append(out, a)
	}
	slices.SortFunc(out, func(a, b acl.Entry) int { return cmp.Or(cmp.Compare(a.Tag, b.Tag), cmp.Compare(a.ID, b.ID)) })
	if err := acl.Valid(out); err != nil {
		return nil, bad("%v", err)
	}
	return out, nil
}

// stamp sets when a name was changed last.
func (u *unpacker) stamp(name string, e entry) error {
	t := []unix.Timespec{{Sec: e.Sec, Nsec: e.Nsec}, {Sec: e.Sec, Nsec: e.Nsec}}
	if err := unix.UtimesNanoAt(u.here(), name, t, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return noRoom("A file's time could not be set", err)
	}
	return nil
}

func (u *unpacker) link(name string, e entry) error {
	if len(e.To) == 0 || len(e.To) >= unix.PathMax || bytes.IndexByte(e.To, 0) >= 0 {
		return bad("a link to %q", e.To)
	}
	if err := unix.Symlinkat(string(e.To), u.here(), name); err != nil {
		return made(name, err)
	}
	held, err := at(u.here(), name)
	if err != nil {
		return made(name, err)
	}
	defer unix.Close(held)
	if u.keeper == 0 {
		if err := unix.Fchownat(held, "", int(e.UID), int(u.groups[e.Group]), unix.AT_EMPTY_PATH); err != nil {
			return noRoom("A link could not be given to its owner", err)
		}
	}
	return u.stamp(name, e)
}

// also gives a file another name. The first one is looked for in the tree that
// was made so far, without following a link.
func (u *unpacker) also(name string, e entry) error {
	if len(u.stack) == 0 || len(e.To) == 0 || e.To[0] == '/' || bytes.IndexByte(e.To, 0) >= 0 {
		return bad("another name of %q", e.To)
	}
	dir, base := "", string(e.To)
	if i := strings.LastIndexByte(base, '/'); i >= 0 {
		dir, base = base[:i], base[i+1:]
	}
	if base == "" || base == "." || base == ".." {
		return bad("another name of %q", e.To)
	}
	parent, err := u.descend(dir)
	if err != nil {
		return bad("another name of %q: %v", e.To, err)
	}
	defer unix.Close(parent)
	var st unix.Stat_t
	if err := unix.Fstatat(parent, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil || st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return bad("another name of %q, which is no file", e.To)
	}
	if err := unix.Linkat(parent, base, u.here(), name, 0); err != nil {
		return made(name, err)
	}
	return nil
}

// descend opens a directory of the tree, name by name: a path may be longer than
// the kernel takes at once.
func (u *unpacker) descend(path string) (int, error) {
	fd, err := openBeneath(int(u.stack[0].f.Fd()), ".")
	for path != "" && err == nil {
		name, rest, _ := strings.Cut(path, "/")
		if name == "" || name == "." || name == ".." {
			unix.Close(fd)
			return -1, errors.New("not a name")
		}
		var next int
		next, err = openBeneath(fd, name)
		unix.Close(fd)
		fd, path = next, rest
	}
	return fd, err
}

func (u *unpacker) file(name string, e entry) error {
	if e.Size < 0 || e.Size > u.bytes {
		return bad("%q has %d bytes, more than were counted", name, e.Size)
	}
	u.bytes -= e.Size
	u.got.Bytes += e.Size
	fd, err := unix.Openat(u.here(), name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return made(name, err)
	}
	f := os.NewFile(uintptr(fd), "staged")
	defer f.Close()
	if err := u.fill(f, name, e.Size); err != nil {
		return err
	}
	if err := u.dress(fd, e, false); err != nil {
		return err
	}
	return u.stamp(name, e)
}

// fill writes a file's blocks. Zeros are left out: the file is as long all the
// same.
func (u *unpacker) fill(f *os.File, name string, size int64) error {
	sum, off := sha256.New(), int64(0)
	if err := f.Truncate(size); err != nil {
		return noRoom("A file of the project could not be written on the other node", err)
	}
	for {
		kind, b, err := u.frame()
		if err != nil {
			return err
		}
		left := (size - off + block - 1) / block
		switch kind {
		case frameBytes:
			if left == 0 || int64(len(b)) != min(block, size-off) {
				return bad("%q: %d bytes at %d of %d", name, len(b), off, size)
			}
			if _, err := f.WriteAt(b, off); err != nil {
				return noRoom("A file of the project could not be written on the other node", err)
			}
			off += int64(len(b))
		case frameZeros:
			if len(b) != 8 {
				return bad("%q: zeros without a number", name)
			}
			n := binary.BigEndian.Uint64(b)
			if n == 0 || n > uint64(left) {
				return bad("%q: %d blocks of zeros at %d of %d", name, n, off, size)
			}
			off = min(size, off+int64(n)*block)
		case frameSum:
			if off != size {
				return bad("%q: %d of %d bytes", name, off, size)
			}
			if !bytes.Equal(b, sum.Sum(nil)) {
				return bad("%q has another sum", name)
			}
			return nil
		default:
			return bad("a frame %q within a file", kind)
		}
		sum.Write(b)
	}
}

// remove takes away a tree that only we get to, down from a directory that is
// held. Links in it are names like others.
func remove(parent int, name string) error {
	err := unix.Unlinkat(parent, name, 0)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	if !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EPERM) {
		return err
	}
	fd, err := openBeneath(parent, name)
	if errors.Is(err, unix.EACCES) { // without root: a directory that its owner closed
		if err = unix.Fchmodat(parent, name, 0o700, 0); err == nil {
			fd, err = openBeneath(parent, name)
		}
	}
	if err != nil {
		return err
	}
	d := os.NewFile(uintptr(fd), "staged")
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return err
	}
	if len(names) > 0 {
		_ = unix.Fchmod(fd, 0o700)
	}
	for _, n := range names {
		if err := remove(fd, n); err != nil {
			return err
		}
	}
	return unix.Unlinkat(parent, name, unix.AT_REMOVEDIR)
}
