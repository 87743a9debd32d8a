package files

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A Kind of directory entry.
type Kind string

const (
	File      Kind = "file"
	Directory Kind = "dir"
	Link      Kind = "link"
	Special   Kind = "special" // device, pipe or socket: shown, never opened
)

// An Entry is one name in a directory.
type Entry struct {
	Name     string
	Kind     Kind
	Size     int64
	Modified time.Time
	Changed  time.Time // in any way: of the inode
	Mode     uint32    // permission bits with setuid, setgid and sticky
	UID, GID uint32
	Links    uint64 // hard links
}

func entryOf(name string, st *unix.Stat_t) Entry {
	e := Entry{Name: name, Size: st.Size, Modified: time.Unix(st.Mtim.Unix()), Changed: time.Unix(st.Ctim.Unix()), Mode: st.Mode & 0o7777, UID: st.Uid, GID: st.Gid, Links: uint64(st.Nlink)}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		e.Kind = File
	case unix.S_IFDIR:
		e.Kind, e.Size = Directory, 0
	case unix.S_IFLNK:
		e.Kind = Link
	default:
		e.Kind = Special
	}
	return e
}

// tempPrefix begins the names of files we are still writing. They are not shown.
const tempPrefix = ".quire-part-"

// List returns at most limit entries of a directory in the order of their bytes,
// beginning after a name ("" is the beginning), and whether there are more.
func (t *Tree) List(path, after string, limit int) (list []Entry, more bool, err error) {
	if path, err = t.clean(path); err != nil {
		return nil, false, err
	}
	if t.only != "" {
		return t.listOnly()
	}
	d, err := t.at(path, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, false, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, false, explain(err, path)
	}
	slices.Sort(names)
	if after != "" {
		i, found := slices.BinarySearch(names, after)
		if found {
			i++
		}
		names = names[i:]
	}
	list = make([]Entry, 0, min(len(names), limit))
	for i, name := range names {
		if strings.HasPrefix(name, tempPrefix) {
			continue
		}
		if len(list) == limit {
			return list, i < len(names), nil
		}
		var st unix.Stat_t
		if err := unix.Fstatat(int(d.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			continue // it went meanwhile
		}
		list = append(list, entryOf(name, &st))
	}
	return list, false, nil
}

func (t *Tree) listOnly() ([]Entry, bool, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(int(t.dir.Fd()), t.only, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return nil, false, explain(err, t.only)
	}
	return []Entry{entryOf(t.only, &st)}, false, nil
}

// Info is an Entry with what costs more to find out.
type Info struct {
	Entry
	Version  string
	Writable bool   // by this account
	Readable bool   // by this account
	Target   string // of a link, as it is written
	Leads    string // of a link: the path in the tree that it leads to
	LeadsOut bool   // of a link: to somewhere else, or to nothing
	To       Kind   // of a link: what it leads to
}

// Stat describes one entry; a link itself, not what it leads to.
func (t *Tree) Stat(path string) (Info, error) {
	path, err := t.clean(path)
	if err != nil {
		return Info{}, err
	}
	f, err := t.at(path, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return Info{}, err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return Info{}, explain(err, path)
	}
	_, name := split(path)
	info := Info{Entry: entryOf(name, &st), Version: version(&st)}
	if info.Kind == Link {
		t.follow(f, path, &info)
		return info, nil
	}
	info.Readable = unix.Faccessat(unix.AT_FDCWD, procPath(f), unix.R_OK, unix.AT_EACCESS) == nil
	info.Writable = unix.Faccessat(unix.AT_FDCWD, procPath(f), unix.W_OK, unix.AT_EACCESS) == nil
	return info, nil
}

// follow finds where a link leads, if it stays in the tree.
func (t *Tree) follow(link *os.File, path string, info *Info) {
	b := make([]byte, maxPath)
	if n, err := unix.Readlinkat(int(link.Fd()), "", b); err == nil {
		info.Target = string(b[:n])
	}
	info.LeadsOut = true
	f, err := t.at(path, unix.O_PATH)
	if err != nil {
		return
	}
	defer f.Close()
	var st unix.Stat_t
	if unix.Fstat(int(f.Fd()), &st) != nil {
		return
	}
	root, err1 := os.Readlink(procPath(t.dir))
	place, err2 := os.Readlink(procPath(f))
	if err1 != nil || err2 != nil {
		return
	}
	if rest, ok := strings.CutPrefix(place, strings.TrimRight(root, "/")+"/"); ok && !strings.HasSuffix(rest, " (deleted)") {
		info.Leads, info.LeadsOut, info.To = rest, false, entryOf("", &st).Kind
	}
}

// version names the content a file had: time, size and identity of the inode,
// and the time of its last change of any kind, which programs cannot set.
func version(st *unix.Stat_t) string {
	var b []byte
	for _, v := range []int64{st.Mtim.Nano(), st.Size, int64(st.Ino), int64(st.Dev), st.Ctim.Nano()} {
		b = binary.LittleEndian.AppendUint64(b, uint64(v))
	}
	sum := sha256.Sum256(b)
	return strconv.FormatUint(st.Ino, 16) + "." + hex.EncodeToString(sum[:16])
}
