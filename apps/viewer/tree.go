package viewer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"quire"
)

// Limits of listings and of finding.
const (
	maxNames  = 50_000 // looked at in one directory
	maxListed = 10_000 // of them shown

	findHits    = 100
	findEntries = 50_000
	findDepth   = 32
	findTime    = 5 * time.Second
	maxPattern  = 256 // bytes
)

// tree is the project's directory. Every name is opened beneath it: the kernel
// resolves the path and refuses whatever leaves it, links and somebody renaming
// directories at the same time included. The directory itself is only held, not
// read: strangers may pass through a project whose public files they may read.
type tree struct {
	dir     string
	account string
}

// open opens a directory or a regular file. Devices, pipes and sockets are not
// opened at all: opening alone can change them.
func (t tree) open(names []string) (*os.File, fs.FileInfo, error) {
	root, err := unix.Open(t.dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, t.explain(err, nil)
	}
	defer unix.Close(root)
	name := "."
	if len(names) > 0 {
		name = strings.Join(names, "/")
	}
	held, err := beneath(root, name)
	if err != nil {
		return nil, nil, t.explain(err, names)
	}
	defer unix.Close(held)
	var st unix.Stat_t
	if err := unix.Fstat(held, &st); err != nil {
		return nil, nil, t.explain(err, names)
	}
	if kind := st.Mode & unix.S_IFMT; kind != unix.S_IFREG && kind != unix.S_IFDIR {
		what := map[uint32]string{unix.S_IFIFO: "pipe", unix.S_IFSOCK: "socket", unix.S_IFCHR: "device", unix.S_IFBLK: "device"}[kind]
		return nil, nil, quire.Invalid("", "This is neither a file nor a directory, but a "+what+". The Viewer does not open it.")
	}
	// What is held is what is opened, whatever has its name by now.
	fd, err := unix.Open("/proc/self/fd/"+strconv.Itoa(held), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, t.explain(err, names)
	}
	f := os.NewFile(uintptr(fd), "file")
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, nil, t.explain(err, names)
	}
	return f, info, nil
}

// beneath holds what a path below root names without opening it.
func beneath(root int, name string) (fd int, err error) {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS}
	for range 16 {
		// EAGAIN: something was renamed on the way, and the kernel is not sure.
		if fd, err = unix.Openat2(root, name, &how); err != unix.EAGAIN && err != unix.EINTR {
			break
		}
	}
	return fd, err
}

// explain says to a person what can be done.
func (t tree) explain(err error, names []string) error {
	name := "The project"
	if len(names) > 0 {
		name = "“" + shown(names[len(names)-1]) + "”"
	}
	switch {
	case errors.Is(err, fs.ErrPermission):
		return &quire.Error{Kind: quire.KindForbidden, Err: err, Message: fmt.Sprintf(
			"%s cannot be read by the account %s. Its owner can allow it: setfacl -m u:%s:rX with the file's path, and the same for the directories it is in.", name, t.account, t.account)}
	case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE), errors.Is(err, unix.ENOMEM):
		return &quire.Error{Kind: quire.KindUnavailable, Err: err, Message: "The machine has too many files open. Try again in a moment."}
	case errors.Is(err, unix.EIO), errors.Is(err, unix.ESTALE), errors.Is(err, unix.ENOTCONN):
		return &quire.Error{Kind: quire.KindUnavailable, Err: err, Message: "The storage does not answer. Try again in a moment."}
	}
	// Also what a link outside would show: the answer does not tell whether it exists.
	return &quire.Error{Kind: quire.KindNotFound, Message: name + " is not here: there is no such file in the project.", Err: err}
}

// An entry is one row of a listing.
type entry struct {
	Name    string // as shown
	Address string // "" if it cannot be opened
	Kind    string // "directory", "file", "notebook", "image", "link", "special"
	Size    string
	Exact   string // bytes
	Time    time.Time
	Remark  string
	raw     string
	bytes   int64
}

type listing struct {
	Entries []entry
	Hidden  int  // not shown because their names begin with a dot
	Cut     bool // there are more than are shown
}

// list reads a directory that is open.
func list(d *os.File, prefix string, names []string, all bool) (listing, error) {
	var l listing
	var found []string
	for {
		more, err := d.Readdirnames(1024)
		found = append(found, more...)
		if len(found) > maxNames {
			found, l.Cut = found[:maxNames], true
		}
		if errors.Is(err, io.EOF) || l.Cut {
			break
		}
		if err != nil {
			return listing{}, err
		}
	}
	for _, n := range found {
		if strings.HasPrefix(n, ".") && !all {
			l.Hidden++
			continue
		}
		if e, ok := look(d, n); ok {
			if e.Kind != "special" && isName(n) {
				e.Address = address(prefix, append(names[:len(names):len(names)], n)...)
			}
			l.Entries = append(l.Entries, e)
		}
	}
	slices.SortFunc(l.Entries, func(a, b entry) int {
		return cmp.Or(
			-compareBool(a.Kind == "directory", b.Kind == "directory"),
			cmp.Compare(strings.ToLower(a.raw), strings.ToLower(b.raw)),
			cmp.Compare(a.raw, b.raw))
	})
	if len(l.Entries) > maxListed {
		l.Entries, l.Cut = l.Entries[:maxListed], true
	}
	return l, nil
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// look describes one name of an open directory, itself and not what it leads to.
func look(d *os.File, name string) (entry, bool) {
	var st unix.Stat_t
	if err := unix.Fstatat(int(d.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return entry{}, false
	}
	e := entry{Name: shown(name), raw: name, Time: time.Unix(st.Mtim.Unix()), Kind: "special"}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		e.Kind = "directory"
	case unix.S_IFREG:
		e.Kind = fileKind(name)
		e.bytes, e.Size, e.Exact = st.Size, size(st.Size), fmt.Sprintf("%d bytes", st.Size)
	case unix.S_IFLNK:
		e.Kind = "link"
		to := make([]byte, 256)
		if n, err := unix.Readlinkat(int(d.Fd()), name, to); err == nil {
			e.Remark = "→ " + shown(cut(string(to[:n]), 120))
		}
	case unix.S_IFIFO:
		e.Remark = "pipe"
	case unix.S_IFSOCK:
		e.Remark = "socket"
	default:
		e.Remark = "device"
	}
	return e, true
}

func fileKind(name string) string {
	switch ext := strings.ToLower(path.Ext(name)); {
	case ext == ".ipynb":
		return "notebook"
	case imageType(name) != "":
		return "image"
	case ext == ".csv" || ext == ".tsv":
		return "table"
	case languageOf(name) != nil || ext == ".md" || ext == ".markdown" || ext == ".txt" || ext == ".rst":
		return "text"
	}
	return "file"
}

// finding is what a search found, and why it ended early if it did.
type finding struct {
	Hits    []entry
	Looked  int
	Stopped string
	Unread  int // directories that this account may not read
}

// find looks for names that match a pattern below an open directory, never
// through links, never in hidden directories. A pattern without * ? [ matches
// within names; one with a slash is compared with the path.
func find(ctx context.Context, top *os.File, prefix string, names []string, pattern string) (finding, error) {
	pattern = strings.ToLower(strings.TrimSpace(pattern))
	if !strings.ContainsAny(pattern, `*?[\`) {
		pattern = "*" + pattern + "*"
	}
	if _, err := path.Match(pattern, "x"); err != nil || len(pattern) > maxPattern {
		return finding{}, quire.Invalid("find", "That is no pattern of names. Use * for any characters, ? for one, [a-z] for one of several.")
	}
	ctx, cancel := context.WithTimeout(ctx, findTime)
	defer cancel()
	s := search{ctx: ctx, pattern: pattern, whole: strings.Contains(pattern, "/"), prefix: prefix, names: names}
	// A descriptor of its own: reading moves the directory's position.
	fd, err := unix.Openat(int(top.Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return finding{}, err
	}
	s.in(os.NewFile(uintptr(fd), "."), nil)
	slices.SortFunc(s.found.Hits, func(a, b entry) int { return cmp.Compare(a.raw, b.raw) })
	return s.found, nil
}

type search struct {
	ctx     context.Context
	pattern string
	whole   bool
	prefix  string
	names   []string
	found   finding
}

// in looks in d, which it closes, and below; at is its path below the start.
func (s *search) in(d *os.File, at []string) {
	defer d.Close()
	var below []string
	for s.found.Stopped == "" {
		batch, err := d.Readdirnames(256)
		for _, n := range batch {
			switch s.found.Looked++; {
			case s.found.Looked > findEntries:
				s.found.Stopped = fmt.Sprintf("Stopped after %d entries. Begin in a directory further down.", findEntries)
			case s.ctx.Err() != nil:
				s.found.Stopped = fmt.Sprintf("Stopped after %d seconds. Begin in a directory further down.", int(findTime.Seconds()))
			case len(s.found.Hits) == findHits:
				s.found.Stopped = fmt.Sprintf("Only the first %d are shown.", findHits)
			}
			if s.found.Stopped != "" {
				return
			}
			if strings.HasPrefix(n, ".") || !isName(n) {
				continue
			}
			s.match(d, at, n)
			below = append(below, n)
		}
		if err != nil {
			break
		}
	}
	if len(at) == findDepth {
		return
	}
	slices.Sort(below)
	for _, n := range below {
		if s.found.Stopped != "" {
			return
		}
		fd, err := unix.Openat(int(d.Fd()), n, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			if errors.Is(err, syscall.EACCES) {
				s.found.Unread++
			}
			continue // no directory, mostly
		}
		s.in(os.NewFile(uintptr(fd), n), append(at[:len(at):len(at)], n))
	}
}

func (s *search) match(d *os.File, at []string, n string) {
	below := append(at[:len(at):len(at)], n)
	compared := n
	if s.whole {
		compared = strings.Join(below, "/")
	}
	if ok, _ := path.Match(s.pattern, strings.ToLower(compared)); !ok {
		return
	}
	e, ok := look(d, n)
	if !ok {
		return
	}
	e.raw = strings.Join(below, "/")
	e.Name = shown(e.raw)
	if e.Kind != "special" {
		e.Address = address(s.prefix, append(s.names[:len(s.names):len(s.names)], below...)...)
	}
	s.found.Hits = append(s.found.Hits, e)
}
