package environment

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"quire"
)

// shipped is the skeleton of a site that has none of its own.
//
//go:embed all:skeleton
var shipped embed.FS

// done marks a project that has had its skeleton: what its people delete
// afterwards does not come back.
const done = ".quire/skeleton"

// skeleton copies the site's skeleton, or the shipped one, into the project.
// Nothing that exists is replaced and no link is followed: the project may hold
// anything by now.
func skeleton(ctx context.Context, o options) (Result, error) {
	root, err := os.OpenRoot(o.dir)
	if err != nil {
		return Result{}, quire.Failed("The project's directory cannot be opened: "+words(err)+".", err)
	}
	defer root.Close()
	if _, err := root.Lstat(done); err == nil {
		return Result{Already: true, Note: "already there"}, nil
	}
	source, err := siteSkeleton(o.skeleton)
	if err != nil {
		return Result{}, quire.Failed("The site's skeleton cannot be read: "+words(err)+". An administrator must look at it.", err)
	}
	copied, left := 0, 0
	err = fs.WalkDir(source, ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil || name == "." {
			return err
		}
		switch {
		case d.IsDir():
			err = makeDir(root, name)
		case d.Type().IsRegular():
			err = copyFile(root, source, name)
			if err == nil {
				copied++
			}
		default:
			left++ // links and devices have no business in a skeleton
			return nil
		}
		if errors.Is(err, fs.ErrExist) {
			left++
			return nil
		}
		return err
	})
	if err != nil {
		return Result{}, quire.Failed("The skeleton could not be copied: "+words(err)+".", err)
	}
	if err := mark(root); err != nil {
		return Result{}, quire.Failed("The skeleton could not be finished: "+words(err)+".", err)
	}
	note := fmt.Sprintf("%d files", copied)
	if left > 0 {
		note += fmt.Sprintf(", %d left as they were", left)
	}
	return Result{Note: note}, nil
}

func siteSkeleton(dir string) (fs.FS, error) {
	if dir != "" {
		if info, err := os.Stat(dir); err == nil && info.IsDir() {
			return os.DirFS(dir), nil
		} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return fs.Sub(shipped, "skeleton")
}

// public reports whether the name is in the folder that everybody may read.
func public(name string) bool { return name == "public" || strings.HasPrefix(name, "public/") }

func makeDir(root *os.Root, name string) error {
	if err := root.Mkdir(name, 0o770); err != nil {
		if info, e := root.Lstat(name); e == nil && info.IsDir() {
			return nil
		}
		return err
	}
	if public(name) {
		return root.Chmod(name, 0o775|fs.ModeSetgid)
	}
	return nil
}

func copyFile(root *os.Root, source fs.FS, name string) error {
	in, err := source.Open(name)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	mode := fs.FileMode(0o660)
	if info.Mode()&0o100 != 0 {
		mode = 0o770
	}
	if public(name) {
		mode |= 0o004
	}
	out, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if err == nil && public(name) {
		err = out.Chmod(mode) // the access list's default closes new files to others
	}
	if e := out.Close(); err == nil {
		err = e
	}
	if err != nil {
		_ = root.Remove(name) // a half file would look finished the next time
	}
	return err
}

// mark leaves the sign that the skeleton is complete.
func mark(root *os.Root) error {
	if err := makeDir(root, path.Dir(done)); err != nil {
		return err
	}
	f, err := root.OpenFile(done, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o660)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return f.Close()
}
