// Package files is what Quire's own apps do with a person's files: list, read,
// write, move, pack and share them. It knows nothing of HTTP.
//
// It runs as that person, so the kernel decides what is allowed. What it adds is
// that nothing leaves a tree: every path is resolved by the kernel beneath the
// tree's directory (openat2), never by joining strings, and what writes does not
// follow a link in the last place. Names are bytes; any that the file system
// can hold work.
package files

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"quire"
)

const (
	maxParts = 256  // of a path
	maxPath  = 4095 // bytes of one, as the kernel has it
	maxDepth = 400  // of what is copied or deleted: every level holds a descriptor
)

// A Tree is a directory with everything beneath it.
type Tree struct {
	Path string // where it is on the disk, for people and for scripts
	only string // if set, the one name of the directory that is shown
	dir  *os.File
}

// Open opens the tree at an absolute path. If the path is a file, the tree is
// that file alone in its directory.
func Open(path string) (*Tree, error) {
	if !strings.HasPrefix(path, "/") || strings.ContainsRune(path, 0) || len(path) > maxPath {
		return nil, quire.Invalid("path", "Give the full path of a directory, beginning with a slash.")
	}
	path = "/" + strings.Trim(path, "/")
	fd, err := retry(func() (int, error) { return unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0) })
	if err != nil {
		return nil, explain(err, path)
	}
	f := os.NewFile(uintptr(fd), path)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		f.Close()
		return nil, explain(err, path)
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return &Tree{Path: path, dir: f}, nil
	case unix.S_IFREG:
		f.Close()
		at := strings.LastIndexByte(path, '/')
		t, err := Open(path[:at+1])
		if err != nil {
			return nil, err
		}
		t.only, t.Path = path[at+1:], path
		return t, nil
	}
	f.Close()
	return nil, quire.Invalid("path", "That is neither a directory nor a file.")
}

// Close lets the directory go.
func (t *Tree) Close() error { return t.dir.Close() }

// Only is the name of the one file that the tree is about, or "".
func (t *Tree) Only() string { return t.only }

// Clean checks a path in a tree: names separated by slashes, none of them empty,
// "." or "..". The tree itself is "".
func Clean(path string) (string, error) {
	path = strings.Trim(path, "/")
	if path == "" {
		return "", nil
	}
	if len(path) > maxPath {
		return "", quire.Invalid("path", "That path is too long.")
	}
	parts := strings.Split(path, "/")
	if len(parts) > maxParts {
		return "", quire.Invalid("path", "That path has too many parts.")
	}
	for _, p := range parts {
		if err := CheckName(p); err != nil {
			return "", err
		}
	}
	return path, nil
}

// CheckName refuses what cannot be the name of a file.
func CheckName(name string) error {
	switch {
	case name == "" || name == "." || name == "..":
		return quire.Invalid("name", "A name is needed, other than . and ..")
	case strings.ContainsAny(name, "/\x00"):
		return quire.Invalid("name", "A name cannot have a slash or a zero byte.")
	case len(name) > 255:
		return quire.Invalid("name", "That name is too long: 255 bytes is the most.")
	}
	return nil
}

// clean is Clean for this tree.
func (t *Tree) clean(path string) (string, error) {
	path, err := Clean(path)
	if err == nil && t.only != "" && path != "" && path != t.only {
		return "", quire.NotFound("file")
	}
	return path, err
}

// split divides a path into its directory and its last name.
func split(path string) (dir, name string) {
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		return path[:i], path[i+1:]
	}
	return "", path
}

func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

// at opens a clean path beneath the tree. Links are followed as long as they
// stay beneath, except in the last place with O_NOFOLLOW.
func (t *Tree) at(path string, flags int) (*os.File, error) {
	f, err := beneath(int(t.dir.Fd()), path, flags, 0)
	runtime.KeepAlive(t) // a tree that is hidden meanwhile is closed when it is not needed
	return f, err
}

func beneath(dir int, path string, flags int, mode uint32) (*os.File, error) {
	if path == "" {
		path = "."
	}
	how := &unix.OpenHow{
		Flags:   uint64(flags | unix.O_CLOEXEC),
		Mode:    uint64(mode),
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS,
	}
	// The kernel says EAGAIN when something was renamed on the way.
	var fd int
	var err error
	for range 64 {
		fd, err = unix.Openat2(dir, path, how)
		if err != unix.EAGAIN && err != unix.EINTR {
			break
		}
	}
	if err != nil {
		return nil, explain(err, path)
	}
	return os.NewFile(uintptr(fd), path), nil
}

func retry(open func() (int, error)) (int, error) {
	for {
		fd, err := open()
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// parent opens the directory that a clean path is in, to write there.
func (t *Tree) parent(path string) (*os.File, string, error) {
	dir, name := split(path)
	if name == "" {
		return nil, "", quire.Invalid("path", "That is the top directory: it cannot be changed from here.")
	}
	if t.only != "" {
		return t.openOnly(name)
	}
	f, err := t.at(dir, unix.O_RDONLY|unix.O_DIRECTORY)
	if quire.KindOf(err) == quire.KindForbidden {
		// To go through a directory is enough to name something in it.
		f, err = t.at(dir, unix.O_PATH|unix.O_DIRECTORY)
	}
	return f, name, err
}

func (t *Tree) openOnly(name string) (*os.File, string, error) {
	f, err := t.at("", unix.O_PATH|unix.O_DIRECTORY)
	return f, name, err
}

// regular opens a file for reading: never a device, a pipe or a socket, whose
// opening alone can have effects or wait for ever.
func regular(dir int, path string, flags int) (*os.File, error) {
	look, err := beneath(dir, path, unix.O_PATH|flags&unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	defer look.Close()
	var before unix.Stat_t
	if err := unix.Fstat(int(look.Fd()), &before); err != nil {
		return nil, explain(err, path)
	}
	if err := onlyRegular(before.Mode); err != nil {
		return nil, err
	}
	// The same file, by its descriptor: nobody can put another in its place.
	fd, err := retry(func() (int, error) {
		return unix.Open(procPath(look), flags&^unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	})
	if err != nil {
		return nil, explain(err, path)
	}
	return os.NewFile(uintptr(fd), path), nil
}

func onlyRegular(mode uint32) error {
	switch mode & unix.S_IFMT {
	case unix.S_IFREG:
		return nil
	case unix.S_IFDIR:
		return quire.Invalid("path", "That is a directory.")
	case unix.S_IFLNK:
		return quire.Invalid("path", "That is a link. Open what it points to.")
	}
	return quire.Invalid("path", "That is a device, a pipe or a socket: only files can be opened.")
}

// procPath names an open descriptor for calls that take no O_PATH descriptor.
func procPath(f *os.File) string { return "/proc/self/fd/" + strconv.Itoa(int(f.Fd())) }

// explain turns what the kernel says into a sentence. path is for the log only.
func explain(err error, path string) error {
	if err == nil {
		return nil
	}
	var ours *quire.Error
	if errors.As(err, &ours) {
		return err
	}
	inner := fmt.Errorf("%q: %w", path, err)
	e := func(kind quire.Kind, message string) error {
		return &quire.Error{Kind: kind, Message: message, Err: inner}
	}
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTDIR):
		return e(quire.KindNotFound, "There is no such file or directory any more.")
	case errors.Is(err, unix.EPERM):
		return e(quire.KindForbidden, "Only the owner can do that, or the file is protected.")
	case errors.Is(err, fs.ErrPermission), errors.Is(err, unix.EROFS):
		return e(quire.KindForbidden, "You do not have the right to do that there.")
	case errors.Is(err, unix.EXDEV):
		return e(quire.KindForbidden, "A link on the way leads out of this directory. Use Show directories to open the place it leads to.")
	case errors.Is(err, unix.ELOOP):
		return e(quire.KindInvalid, "That is a link. Open what it points to.")
	case errors.Is(err, fs.ErrExist), errors.Is(err, unix.ENOTEMPTY):
		return e(quire.KindConflict, "Something of that name is there already.")
	case errors.Is(err, unix.ENOSPC):
		return e(quire.KindFailed, "The disk is full. Nothing was changed.")
	case errors.Is(err, unix.EDQUOT):
		return e(quire.KindFailed, "Your quota on this disk is used up. Nothing was changed.")
	case errors.Is(err, unix.ENAMETOOLONG):
		return e(quire.KindInvalid, "That name is too long.")
	case errors.Is(err, unix.EINVAL):
		return e(quire.KindInvalid, "The file system does not take that name or operation.")
	case errors.Is(err, unix.EISDIR):
		return e(quire.KindInvalid, "That is a directory.")
	case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE):
		return e(quire.KindUnavailable, "Too many files are open. Try again in a moment.")
	case errors.Is(err, unix.ETXTBSY), errors.Is(err, unix.EBUSY):
		return e(quire.KindConflict, "That is in use. End the program that uses it first.")
	}
	return inner
}
