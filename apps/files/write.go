package files

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"quire"
)

// changedBy is the attribute in which we note who saved a file, for the person
// who finds it changed. It counts only as long as the time in it is the file's.
const changedBy = "user.quire.changed_by"

// ErrChanged is what Write returns when the file is not the one that was read.
type ErrChanged struct {
	UID     uint32    // who changed it, if Known
	Known   bool      //
	At      time.Time // when
	Gone    bool      // it was deleted or renamed
	Version string    // of what is there now
}

func (e *ErrChanged) Error() string { return "the file was changed meanwhile" }

// Overwrite as the version of Write replaces whatever is there, Absent demands
// that nothing is.
const (
	Overwrite = "*"
	Absent    = ""
)

// Write replaces the content of a file, if it still has the version, and returns
// the new one. On any error the file has the content it had.
//
// The person's own file is replaced by a new one in one step. A file of somebody
// else, or one with several names, keeps its inode, so that its author and its
// other names stay what they are: the new content is first written beside it,
// room is reserved, and then it is copied over.
func (t *Tree) Write(path string, content []byte, want string) (Content, error) {
	path, err := t.clean(path)
	if err != nil {
		return Content{}, err
	}
	dir, name, err := t.parent(path)
	if err != nil {
		return Content{}, err
	}
	defer dir.Close()
	// Those who save with us wait for each other; closing ends the lock. Others
	// are noticed when the files are exchanged.
	if err := lock(dir); err != nil {
		return Content{}, err
	}
	old, err := beneath(int(dir.Fd()), name, unix.O_PATH|unix.O_NOFOLLOW, 0)
	switch {
	case quire.KindOf(err) == quire.KindNotFound:
		if want != Absent && want != Overwrite {
			return Content{}, &ErrChanged{Gone: true, At: time.Now()}
		}
		return t.writeNew(dir, path, name, content)
	case err != nil:
		return Content{}, err
	}
	defer old.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(old.Fd()), &st); err != nil {
		return Content{}, explain(err, path)
	}
	if err := onlyRegular(st.Mode); err != nil {
		return Content{}, err
	}
	if want == Absent {
		return Content{}, explain(unix.EEXIST, path)
	}
	if err := unix.Faccessat(unix.AT_FDCWD, procPath(old), unix.W_OK, unix.AT_EACCESS); err != nil {
		return Content{}, &quire.Error{Kind: quire.KindForbidden, Message: "You may read this file but not change it. Save it under another name.", Err: err}
	}
	if want != Overwrite {
		r, _ := regular(int(dir.Fd()), name, unix.O_RDONLY|unix.O_NOFOLLOW)
		ok := same(r, &st, want)
		if r != nil {
			r.Close()
		}
		if !ok {
			return Content{}, changed(old, &st, want)
		}
	}
	if st.Uid == uint32(os.Geteuid()) && st.Nlink == 1 {
		done, err := t.replace(dir, name, old, &st, content)
		if done || err != nil {
			return t.written(path, content, err)
		}
	}
	return t.written(path, content, overwrite(dir, name, old, &st, content))
}

func (t *Tree) writeNew(dir *os.File, path, name string, content []byte) (Content, error) {
	temp, tempName, err := newTemp(dir, content)
	if err != nil {
		return Content{}, explain(err, path)
	}
	defer temp.Close()
	if err := renameNew(dir, tempName, dir, name); err != nil {
		unix.Unlinkat(int(dir.Fd()), tempName, 0)
		return Content{}, explain(err, path)
	}
	settle(dir)
	return t.written(path, content, nil)
}

// WriteLike writes a new file with the rights that another has: who may not read
// that one may not read this one. Where they cannot be had, it is this account's
// alone.
func (t *Tree) WriteLike(path string, content []byte, like string) error {
	path, err := t.clean(path)
	if err != nil {
		return err
	}
	if like, err = t.clean(like); err != nil {
		return err
	}
	dir, name, err := t.parent(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	old, err := t.at(like, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return err
	}
	defer old.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(old.Fd()), &st); err != nil {
		return explain(err, like)
	}
	temp, tempName, err := newTemp(dir, nil)
	if err != nil {
		return explain(err, path)
	}
	defer temp.Close()
	// The rights come before the content.
	if !likeness(temp, old, &st) {
		unix.Fremovexattr(int(temp.Fd()), "system.posix_acl_access")
		err = temp.Chmod(0o600)
	}
	if err == nil {
		_, err = temp.Write(content)
	}
	if err == nil {
		err = temp.Sync()
	}
	if err == nil {
		err = renameNew(dir, tempName, dir, name)
	}
	if err != nil {
		unix.Unlinkat(int(dir.Fd()), tempName, 0)
		return explain(err, path)
	}
	settle(dir)
	return nil
}

// written describes what Write left behind.
func (t *Tree) written(path string, content []byte, err error) (Content, error) {
	if err != nil {
		return Content{}, err
	}
	info, err := t.Stat(path)
	if err != nil {
		return Content{}, err
	}
	return Content{Info: info, Version: info.Version + "-" + digest(content)}, nil
}

// newTemp writes a new file beside the one that is meant, on the disk for good.
func newTemp(dir *os.File, content []byte) (*os.File, string, error) {
	name := tempPrefix + token()
	f, err := beneath(int(dir.Fd()), name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW, 0o666)
	if err != nil {
		return nil, "", err
	}
	_, err = io.Copy(f, bytes.NewReader(content))
	if err == nil {
		note(f)
		err = f.Sync()
	}
	if err != nil {
		f.Close()
		unix.Unlinkat(int(dir.Fd()), name, 0)
		return nil, "", err
	}
	return f, name, nil
}

func token() string {
	b := make([]byte, 12)
	rand.Read(b)
	return hex.EncodeToString(b)
}

// replace puts a new file in the old one's place. done is false when that would
// lose something the old one has; then nothing has happened.
func (t *Tree) replace(dir *os.File, name string, old *os.File, st *unix.Stat_t, content []byte) (done bool, err error) {
	temp, tempName, err := newTemp(dir, content)
	if quire.KindOf(err) == quire.KindForbidden {
		return false, nil // a file may be writable in a directory that is not
	}
	if err != nil {
		return false, explain(err, name)
	}
	defer temp.Close()
	drop := func() { unix.Unlinkat(int(dir.Fd()), tempName, 0) }
	if !likeness(temp, old, st) {
		drop()
		return false, nil
	}
	err = unix.Renameat2(int(dir.Fd()), tempName, int(dir.Fd()), name, unix.RENAME_EXCHANGE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		// Not every network file system can exchange.
		if err := unix.Renameat(int(dir.Fd()), tempName, int(dir.Fd()), name); err != nil {
			drop()
			return false, explain(err, name)
		}
		settle(dir)
		return true, nil
	}
	if err != nil {
		drop()
		if errors.Is(err, unix.ENOENT) {
			return false, &ErrChanged{Gone: true, At: time.Now()}
		}
		return false, explain(err, name)
	}
	// What was there at the moment of the exchange decides, not what was there
	// when we looked: if it is another file, it goes back.
	var was unix.Stat_t
	if err := unix.Fstatat(int(dir.Fd()), tempName, &was, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return false, explain(err, name)
	}
	if was.Ino != st.Ino || was.Dev != st.Dev || was.Mtim != st.Mtim || was.Size != st.Size {
		if err := unix.Renameat2(int(dir.Fd()), tempName, int(dir.Fd()), name, unix.RENAME_EXCHANGE); err != nil {
			return false, explain(err, name)
		}
		var back unix.Stat_t
		var ours unix.Stat_t
		if unix.Fstat(int(temp.Fd()), &ours) == nil && unix.Fstatat(int(dir.Fd()), tempName, &back, unix.AT_SYMLINK_NOFOLLOW) == nil && (ours.Ino != back.Ino || ours.Dev != back.Dev) {
			// A third one came in between: theirs is kept under another name.
			renameNew(dir, tempName, dir, "unsaved-"+strings.TrimPrefix(tempName, tempPrefix))
		} else {
			drop()
		}
		return false, &ErrChanged{UID: was.Uid, Known: was.Ino != st.Ino, At: time.Unix(was.Mtim.Unix()), Version: version(&was)}
	}
	drop()
	settle(dir)
	return true, nil
}

// overwrite writes into the file that is there.
func overwrite(dir *os.File, name string, old *os.File, st *unix.Stat_t, content []byte) error {
	f, err := regular(int(dir.Fd()), name, unix.O_RDWR|unix.O_NOFOLLOW)
	if quire.KindOf(err) == quire.KindForbidden {
		f, err = regular(int(dir.Fd()), name, unix.O_WRONLY|unix.O_NOFOLLOW)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	// It may have names in other directories, so it has a lock of its own.
	if err := lock(f); err != nil {
		return err
	}
	var now unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &now); err != nil {
		return explain(err, name)
	}
	if version(&now) != version(st) {
		return changed(old, &now, version(st))
	}
	saved := ""
	if temp, tempName, err := newTemp(dir, content); err == nil {
		saved = tempName
		temp.Close()
		defer unix.Unlinkat(int(dir.Fd()), tempName, 0)
	} else if quire.KindOf(err) != quire.KindForbidden {
		return explain(err, name)
	}
	if len(content) > 0 {
		err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, int64(len(content)))
		if err != nil && !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.ENOSYS) {
			return explain(err, name)
		}
	}
	if _, err = f.WriteAt(content, 0); err == nil {
		err = f.Truncate(int64(len(content)))
	}
	note(f)
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		return nil
	}
	if saved == "" {
		return quire.Failed("Writing failed half-way. Keep this page open and save under another name.", err)
	}
	keep := "unsaved-" + strings.TrimPrefix(saved, tempPrefix) + "-" + name
	if len(keep) > 255 {
		keep = keep[:255]
	}
	if renameNew(dir, saved, dir, keep) != nil {
		keep = saved
	}
	return quire.Failed("Writing failed half-way. What you saved is whole in the new file "+strconv.QuoteToGraphic(keep)+" beside it.", err)
}

func lock(f *os.File) error {
	end := time.Now().Add(5 * time.Second)
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR):
			return nil // locked, or there are no locks here
		case time.Now().After(end):
			return quire.Conflict("path", "Somebody else is saving this file right now. Try again in a moment.")
		}
		<-time.After(10 * time.Millisecond)
	}
}

// note leaves a note of who wrote a file. Where there are no attributes, the
// next person hears when, and not by whom.
func note(f *os.File) {
	var st unix.Stat_t
	if unix.Fstat(int(f.Fd()), &st) == nil {
		unix.Fsetxattr(int(f.Fd()), changedBy, fmt.Appendf(nil, "%d %d", os.Geteuid(), st.Mtim.Nano()), 0)
	}
}

// changed says who changed a file as far as one can know: a note of ours that is
// of the same time as the content, or that the file itself is another one.
func changed(f *os.File, st *unix.Stat_t, want string) error {
	e := &ErrChanged{At: time.Unix(st.Mtim.Unix()), Version: version(st)}
	e.UID, e.Known = noted(f, st)
	// Another inode of the name was made by its owner.
	if !e.Known && !strings.HasPrefix(want, strconv.FormatUint(st.Ino, 16)+".") {
		e.UID, e.Known = st.Uid, true
	}
	return e
}

// noted is who left a note of the time that the content has.
func noted(f *os.File, st *unix.Stat_t) (uid uint32, ok bool) {
	b := make([]byte, 64)
	n, err := unix.Getxattr(procPath(f), changedBy, b)
	if err != nil {
		return 0, false
	}
	var at int64
	if _, err := fmt.Sscanf(string(b[:n]), "%d %d", &uid, &at); err != nil || at != st.Mtim.Nano() {
		return 0, false
	}
	return uid, true
}

// ChangedBy says who wrote the content that a file has, if that is known: whoever
// saved it with us, or its owner, where that is somebody else than this account.
func (t *Tree) ChangedBy(path string) (uid uint32, ok bool) {
	path, err := t.clean(path)
	if err != nil {
		return 0, false
	}
	f, err := t.at(path, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return 0, false
	}
	defer f.Close()
	var st unix.Stat_t
	if unix.Fstat(int(f.Fd()), &st) != nil {
		return 0, false
	}
	if uid, ok = noted(f, &st); ok {
		return uid, true
	}
	return st.Uid, st.Uid != uint32(os.Geteuid())
}

// likeness gives a new file the mode, group, access list and attributes of the
// old one, and says whether it has them all.
func likeness(f, old *os.File, st *unix.Stat_t) bool {
	var now unix.Stat_t
	if unix.Fstat(int(f.Fd()), &now) != nil {
		return false
	}
	if now.Gid != st.Gid && f.Chown(-1, int(st.Gid)) != nil {
		return false
	}
	names := make([]byte, 64<<10)
	n, err := unix.Listxattr(procPath(old), names)
	if err != nil && !errors.Is(err, unix.ENOTSUP) {
		return false
	}
	list := false
	for _, name := range strings.Split(strings.TrimRight(string(names[:max(n, 0)]), "\x00"), "\x00") {
		switch {
		case name == "" || name == changedBy || strings.HasPrefix(name, "trusted.") || name == "security.selinux":
			continue
		case name == "system.posix_acl_access":
			list = true
		}
		value := make([]byte, 64<<10)
		m, err := unix.Getxattr(procPath(old), name, value)
		if err != nil || unix.Fsetxattr(int(f.Fd()), name, value[:m], 0) != nil {
			return false
		}
	}
	if !list {
		if err := unix.Fremovexattr(int(f.Fd()), "system.posix_acl_access"); err != nil && !errors.Is(err, unix.ENODATA) && !errors.Is(err, unix.ENOTSUP) {
			return false
		}
	}
	// Saving a file never makes a setuid program.
	return f.Chmod(os.FileMode(st.Mode&0o777)) == nil
}

// renameNew moves a name where nothing may be yet.
func renameNew(from *os.File, name string, to *os.File, newName string) error {
	err := unix.Renameat2(int(from.Fd()), name, int(to.Fd()), newName, unix.RENAME_NOREPLACE)
	if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS) {
		return err
	}
	// Without that call, the existence is looked at first, which is not atomic.
	var st unix.Stat_t
	if unix.Fstatat(int(to.Fd()), newName, &st, unix.AT_SYMLINK_NOFOLLOW) == nil {
		return unix.EEXIST
	}
	return unix.Renameat(int(from.Fd()), name, int(to.Fd()), newName)
}

// settle makes a rename last through a power cut. An O_PATH descriptor cannot.
func settle(dir *os.File) { unix.Fsync(int(dir.Fd())) }
