package files

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"quire"
)

// Progress is how far a long piece of work is.
type Progress struct {
	Items  int64    // done
	Bytes  int64    // done
	Failed int64    // items that could not be done
	Errors []string // of the first of them, each with its name
	Name   string   // the last name that was made, for copies
}

// A Report is called as work goes on, from the goroutine that does it.
type Report func(Progress)

const maxErrors = 100

func (p *Progress) fail(path string, err error) {
	p.Failed++
	if len(p.Errors) < maxErrors {
		p.Errors = append(p.Errors, fmt.Sprintf("%q: %s", path, quire.AsError(err).Message))
	}
}

// Mkdir makes a directory; with parents, also those on the way, and then it is no
// error that it exists.
func (t *Tree) Mkdir(path string, parents bool) error {
	path, err := t.clean(path)
	if err != nil {
		return err
	}
	if t.only != "" {
		return quire.Forbidden("Here is one file only: nothing can be made beside it.")
	}
	if parents {
		if dir, _ := split(path); dir != "" {
			if f, err := t.at(path, unix.O_PATH|unix.O_DIRECTORY); err == nil {
				return f.Close()
			}
			if err := t.Mkdir(dir, true); err != nil {
				return err
			}
		}
	}
	d, name, err := t.parent(path)
	if err != nil {
		return err
	}
	defer d.Close()
	err = unix.Mkdirat(int(d.Fd()), name, 0o777)
	if parents && errors.Is(err, unix.EEXIST) {
		f, err := beneath(int(d.Fd()), name, unix.O_PATH|unix.O_DIRECTORY, 0)
		if err != nil {
			return explain(unix.EEXIST, path)
		}
		return f.Close()
	}
	return explain(err, path)
}

// Rename moves an entry to a path of another or the same tree where nothing is
// yet. unix.EXDEV inside the error means that it is another file system.
func (t *Tree) Rename(from string, to *Tree, newPath string) error {
	from, err := t.clean(from)
	if err != nil {
		return err
	}
	newPath, err = to.clean(newPath)
	if err != nil {
		return err
	}
	if t.only != "" || to.only != "" {
		return quire.Forbidden("Here is one file only: it keeps its name and place.")
	}
	d, name, err := t.parent(from)
	if err != nil {
		return err
	}
	defer d.Close()
	e, newName, err := to.parent(newPath)
	if err != nil {
		return err
	}
	defer e.Close()
	err = renameNew(d, name, e, newName)
	switch {
	case errors.Is(err, unix.EXDEV):
		return &quire.Error{Kind: quire.KindFailed, Message: "That is on another disk: it has to be copied.", Err: err}
	case errors.Is(err, unix.EINVAL):
		return quire.Invalid("path", "A directory cannot be moved into itself.")
	}
	return explain(err, from)
}

// Delete removes an entry and all beneath it, for good. What cannot be removed
// stays, with the directories it is in, and is counted.
func (t *Tree) Delete(ctx context.Context, path string, report Report) (Progress, error) {
	var p Progress
	path, err := t.clean(path)
	if err != nil {
		return p, err
	}
	d, name, err := t.parent(path)
	if err != nil {
		return p, err
	}
	defer d.Close()
	var st unix.Stat_t
	if err := unix.Fstatat(int(d.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return p, explain(err, path)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		if err := unix.Unlinkat(int(d.Fd()), name, 0); err != nil {
			return p, explain(err, path)
		}
		p.Items++
		return p, nil
	}
	err = remove(ctx, d, name, path, &p, report, 0)
	return p, err
}

func remove(ctx context.Context, d *os.File, name, path string, p *Progress, report Report, depth int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if depth > maxDepth {
		p.fail(path, quire.Invalid("path", "Nested too deeply; use a terminal."))
		return nil
	}
	sub, err := beneath(int(d.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err == nil {
		names, err := sub.Readdirnames(-1)
		if err != nil {
			p.fail(path, explain(err, path))
		}
		for _, n := range names {
			err := unix.Unlinkat(int(sub.Fd()), n, 0)
			switch {
			case errors.Is(err, unix.EISDIR):
				if err := remove(ctx, sub, n, join(path, n), p, report, depth+1); err != nil {
					sub.Close()
					return err
				}
				continue
			case errors.Is(err, unix.ENOENT):
				continue
			case err != nil:
				p.fail(join(path, n), explain(err, n))
				continue
			}
			p.Items++
			if p.Items%256 == 0 {
				report(*p)
				if err := ctx.Err(); err != nil {
					sub.Close()
					return err
				}
			}
		}
		sub.Close()
	}
	switch err := unix.Unlinkat(int(d.Fd()), name, unix.AT_REMOVEDIR); {
	case err == nil:
		p.Items++
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTEMPTY) && p.Failed > 0:
	default:
		p.fail(path, explain(err, path))
	}
	return nil
}

// Free gives the first of NAME, NAME copy, NAME copy 2 … that a directory does
// not have.
func (t *Tree) Free(dir, name string) (string, error) {
	d, err := t.at(dir, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return "", err
	}
	defer d.Close()
	ext := path.Ext(name)
	if ext == name {
		ext = ""
	}
	stem := strings.TrimSuffix(name, ext)
	for i := range 1000 {
		n := name
		switch {
		case i == 1:
			n = stem + " copy" + ext
		case i > 1:
			n = fmt.Sprintf("%s copy %d%s", stem, i, ext)
		}
		var st unix.Stat_t
		err := unix.Fstatat(int(d.Fd()), n, &st, unix.AT_SYMLINK_NOFOLLOW)
		if errors.Is(err, unix.ENOENT) {
			return n, nil
		}
		if err != nil {
			return "", explain(err, n)
		}
	}
	return "", quire.Conflict("name", "There are a thousand copies already. Choose another name.")
}

// Copy copies an entry with all beneath it to a path where nothing is yet. Links
// are copied as links; devices, pipes and sockets are left out and counted. The
// copies belong to this account, have the rights that new files get there, and
// are executable where the originals are. A canceled copy leaves what it made.
func (t *Tree) Copy(ctx context.Context, from string, to *Tree, newPath string, report Report) (Progress, error) {
	var p Progress
	from, err := t.clean(from)
	if err != nil {
		return p, err
	}
	newPath, err = to.clean(newPath)
	if err != nil {
		return p, err
	}
	if to.only != "" {
		return p, quire.Forbidden("Here is one file only: nothing can be put beside it.")
	}
	d, name, err := t.parent(from)
	if err != nil {
		return p, err
	}
	defer d.Close()
	e, newName, err := to.parent(newPath)
	if err != nil {
		return p, err
	}
	defer e.Close()
	c := copier{ctx: ctx, p: &p, report: report, made: map[inode]bool{}}
	err = c.entry(d, name, e, newName, from, 0)
	p.Name = newName
	if err == nil && p.Items == 0 && p.Failed > 0 {
		err = quire.Failed(p.Errors[0], nil)
	}
	return p, err
}

type inode struct{ dev, ino uint64 }

type copier struct {
	ctx    context.Context
	p      *Progress
	report Report
	made   map[inode]bool // directories that this copy made: not to be copied again
}

// entry returns an error only when the whole copy must end.
func (c *copier) entry(d *os.File, name string, e *os.File, newName, at string, depth int) error {
	if err := c.ctx.Err(); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstatat(int(d.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		c.p.fail(at, explain(err, at))
		return nil
	}
	var err error
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		if c.made[inode{uint64(st.Dev), st.Ino}] {
			return nil
		}
		return c.directory(d, name, e, newName, at, depth)
	case unix.S_IFLNK:
		b := make([]byte, maxPath)
		var n int
		if n, err = unix.Readlinkat(int(d.Fd()), name, b); err == nil {
			err = unix.Symlinkat(string(b[:n]), int(e.Fd()), newName)
		}
	case unix.S_IFREG:
		err = c.file(d, name, e, newName)
	default:
		err = onlyRegular(st.Mode)
	}
	if full(err) || c.ctx.Err() != nil {
		return explain(err, at)
	}
	if err != nil {
		c.p.fail(at, explain(err, at))
		return nil
	}
	c.p.Items++
	if c.p.Items%64 == 0 {
		c.report(*c.p)
	}
	return nil
}

func full(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

func (c *copier) directory(d *os.File, name string, e *os.File, newName, at string, depth int) error {
	if depth > maxDepth {
		c.p.fail(at, quire.Invalid("path", "Nested too deeply; use a terminal."))
		return nil
	}
	sub, err := beneath(int(d.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		c.p.fail(at, err)
		return nil
	}
	defer sub.Close()
	if err := unix.Mkdirat(int(e.Fd()), newName, 0o777); err != nil {
		c.p.fail(at, explain(err, at))
		return nil
	}
	out, err := beneath(int(e.Fd()), newName, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		c.p.fail(at, err)
		return nil
	}
	defer out.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(out.Fd()), &st); err != nil {
		return explain(err, at)
	}
	c.made[inode{uint64(st.Dev), st.Ino}] = true
	c.p.Items++
	names, err := sub.Readdirnames(-1)
	if err != nil {
		c.p.fail(at, explain(err, at))
	}
	for _, n := range names {
		if strings.HasPrefix(n, tempPrefix) {
			continue
		}
		if err := c.entry(sub, n, out, n, join(at, n), depth+1); err != nil {
			return err
		}
	}
	return nil
}

func (c *copier) file(d *os.File, name string, e *os.File, newName string) error {
	in, err := regular(int(d.Fd()), name, unix.O_RDONLY|unix.O_NOFOLLOW)
	if err != nil {
		return err
	}
	defer in.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(in.Fd()), &st); err != nil {
		return err
	}
	// Never setuid, setgid or sticky: the copy is somebody else's.
	out, err := beneath(int(e.Fd()), newName, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW, 0o666|st.Mode&0o111)
	if err != nil {
		return err
	}
	defer out.Close()
	for {
		if err = c.ctx.Err(); err != nil {
			break
		}
		// A piece at a time, so that the kernel copies and we can be canceled.
		var n int64
		n, err = io.Copy(out, io.LimitReader(in, 8<<20))
		c.p.Bytes += n
		if err != nil || n == 0 {
			break
		}
		if n >= 8<<20 {
			c.report(*c.p)
		}
	}
	if err != nil {
		unix.Unlinkat(int(e.Fd()), newName, 0)
	}
	return err
}
