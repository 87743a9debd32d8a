package files

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"quire"
)

// Content is a file read wholly, with what Write needs to notice that somebody
// else changed it in between.
type Content struct {
	Info
	Bytes   []byte
	Version string // of time and place, and of the bytes
}

// Read reads a file of at most limit bytes.
func (t *Tree) Read(path string, limit int64) (Content, error) {
	path, err := t.clean(path)
	if err != nil {
		return Content{}, err
	}
	info, err := t.Stat(path)
	if err != nil {
		return Content{}, err
	}
	f, err := regular(int(t.dir.Fd()), path, unix.O_RDONLY)
	if err != nil {
		return Content{}, err
	}
	defer f.Close()
	// A writer in between shows in the version: then once more.
	for range 5 {
		var before, after unix.Stat_t
		if err := unix.Fstat(int(f.Fd()), &before); err != nil {
			return Content{}, explain(err, path)
		}
		if before.Size > limit {
			return Content{}, quire.Invalid("path", fmt.Sprintf("The file has %d bytes; %d is the most that can be opened here. Download it instead.", before.Size, limit))
		}
		b, err := io.ReadAll(io.NewSectionReader(f, 0, limit+1))
		if err != nil {
			return Content{}, explain(err, path)
		}
		if err := unix.Fstat(int(f.Fd()), &after); err != nil {
			return Content{}, explain(err, path)
		}
		if version(&before) == version(&after) && int64(len(b)) == after.Size {
			_, name := split(path)
			info.Entry = entryOf(name, &after)
			return Content{Info: info, Bytes: b, Version: version(&after) + "-" + digest(b)}, nil
		}
	}
	return Content{}, quire.Unavailable("The file is being written right now. Try again in a moment.", nil)
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:16])
}

// Open opens a file to be sent. The caller closes it.
func (t *Tree) Open(path string) (*os.File, Entry, error) {
	path, err := t.clean(path)
	if err != nil {
		return nil, Entry{}, err
	}
	f, err := regular(int(t.dir.Fd()), path, unix.O_RDONLY)
	if err != nil {
		return nil, Entry{}, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		f.Close()
		return nil, Entry{}, explain(err, path)
	}
	_, name := split(path)
	return f, entryOf(name, &st), nil
}

// same reports whether an open file still is what a version names: not touched,
// or touched with the same bytes in it.
func same(f *os.File, st *unix.Stat_t, want string) bool {
	place, content, _ := strings.Cut(want, "-")
	if version(st) == place {
		return true
	}
	if content == "" || f == nil {
		return false
	}
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(f, 0, st.Size+1)); err != nil {
		return false
	}
	return hex.EncodeToString(h.Sum(nil)[:16]) == content
}
