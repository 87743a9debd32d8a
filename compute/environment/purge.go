package environment

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"

	"quire"
)

// purge deletes everything in the directory, and nothing outside it: links are
// removed, not followed.
func purge(ctx context.Context, o options) (Result, error) {
	n, err := emptyDir(o.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return Result{Already: true, Note: "already gone"}, nil
	}
	if err != nil {
		return Result{}, quire.Failed("Not everything could be deleted: "+words(err)+". Files of other people are theirs to delete, or an administrator's.", err)
	}
	return Result{Note: fmt.Sprintf("deleted %d entries", n)}, ctx.Err()
}

// empty is purge for several directories, none of which need exist.
func empty(dirs []string) (Result, error) {
	var all error
	for _, d := range dirs {
		if _, err := emptyDir(d); err != nil && !errors.Is(err, fs.ErrNotExist) {
			all = errors.Join(all, err)
		}
	}
	if all != nil {
		return Result{}, quire.Failed("A directory could not be emptied: "+words(all)+".", all)
	}
	return Result{}, nil
}

func emptyDir(dir string) (int, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return 0, err
	}
	defer root.Close()
	f, err := root.Open(".")
	if err != nil {
		return 0, err
	}
	names, err := f.Readdirnames(-1)
	f.Close()
	if err != nil {
		return 0, err
	}
	for _, name := range names {
		if err := root.RemoveAll(name); err == nil {
			continue
		}
		unlock(root, name)
		if err := root.RemoveAll(name); err != nil {
			return 0, err
		}
	}
	return len(names), nil
}

// unlock makes directories writable again that their owner had closed.
func unlock(root *os.Root, name string) {
	info, err := root.Lstat(name)
	if err != nil || !info.IsDir() {
		return
	}
	_ = root.Chmod(name, 0o700)
	f, err := root.Open(name)
	if err != nil {
		return
	}
	names, _ := f.Readdirnames(-1)
	f.Close()
	for _, n := range names {
		unlock(root, path.Join(name, n))
	}
}
