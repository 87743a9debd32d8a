package files

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"quire"
)

const (
	maxUploads = 200            // begun and not ended, of one person
	uploadLife = 24 * time.Hour // after which a rest is removed
)

// Uploads are files that arrive in pieces. What has arrived is in a hidden file
// beside the place it is meant for, so the end of it is a rename; what is known
// of it is in a directory of the person's, so it can go on after a restart.
type Uploads struct {
	dir  string
	log  *slog.Logger
	mu   sync.Mutex
	busy map[string]bool
}

// An Upload that has begun.
type Upload struct {
	ID     string `json:"id"`
	Offset int64  `json:"offset"` // bytes that are here
	Size   int64  `json:"size"`
	Done   bool   `json:"done"`
}

// unknown is the size of an upload that Finish ends.
const unknown = -1

// A Plan is what is known of a file before it arrives.
type Plan struct {
	Path     string
	Size     int64
	Modified int64 // of the file at home; with the size it tells whether it is the same one
	Replace  bool  // what is there
	Unsized  bool  // the size is not known: Finish says that all has arrived
}

type uploadState struct {
	Tree     string
	Path     []byte
	Temp     string
	Size     int64
	Modified int64
	Replace  bool
}

// NewUploads keeps its notes in dir, which is made when it is needed.
func NewUploads(dir string, log *slog.Logger) *Uploads {
	return &Uploads{dir: dir, log: log, busy: map[string]bool{}}
}

// Begin begins an upload, or finds one of the same file that was interrupted.
func (u *Uploads) Begin(t *Tree, plan Plan) (Upload, error) {
	path, err := t.clean(plan.Path)
	if err != nil {
		return Upload{}, err
	}
	if plan.Size < 0 {
		return Upload{}, quire.Invalid("size", "A size below zero is not possible.")
	}
	if t.only != "" && path != t.only {
		return Upload{}, quire.Forbidden("Here is one file only: nothing can be put beside it.")
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.sweep()
	if plan.Unsized {
		// Nothing tells whether an interrupted one is of the same file.
		plan.Size = unknown
	} else if found, ok := u.find(t, path, plan); ok {
		return found, nil
	}
	if pending, _ := os.ReadDir(u.dir); len(pending) >= maxUploads {
		return Upload{}, &quire.Error{Kind: quire.KindTooMany, Message: "Too many uploads are waiting. Let some end, or cancel them."}
	}
	d, name, err := t.parent(path)
	if err != nil {
		return Upload{}, err
	}
	defer d.Close()
	var st unix.Stat_t
	switch err := unix.Fstatat(int(d.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); {
	case err == nil && !plan.Replace:
		return Upload{}, explain(unix.EEXIST, path)
	case err == nil:
		if err := onlyRegular(st.Mode); err != nil {
			return Upload{}, err
		}
	}
	var disk unix.Statfs_t
	if unix.Fstatfs(int(d.Fd()), &disk) == nil && uint64(max(plan.Size, 0)) > disk.Bavail*uint64(disk.Bsize) {
		return Upload{}, quire.Failed("There is not enough room on the disk for this file.", nil)
	}
	id := token()
	temp := tempPrefix + id
	f, err := beneath(int(d.Fd()), temp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW, 0o666)
	if err != nil {
		return Upload{}, err
	}
	f.Close()
	s := uploadState{Tree: t.place(), Path: []byte(path), Temp: temp, Size: plan.Size, Modified: plan.Modified, Replace: plan.Replace}
	if err := u.save(id, s); err != nil {
		unix.Unlinkat(int(d.Fd()), temp, 0)
		return Upload{}, quire.Failed("The upload cannot be noted in your home directory. Is it full or read-only?", err)
	}
	return Upload{ID: id, Size: plan.Size}, nil
}

// place is what Open takes to find this tree's directory again.
func (t *Tree) place() string {
	if t.only != "" {
		return filepath.Dir(t.Path)
	}
	return t.Path
}

func (u *Uploads) find(t *Tree, path string, plan Plan) (Upload, bool) {
	list, _ := os.ReadDir(u.dir)
	for _, e := range list {
		s, err := u.load(e.Name())
		if err != nil || s.Tree != t.place() || string(s.Path) != path || s.Size != plan.Size || s.Modified != plan.Modified || s.Replace != plan.Replace || u.busy[e.Name()] {
			continue
		}
		w, err := s.open()
		if err != nil {
			continue
		}
		defer w.close()
		return Upload{ID: e.Name(), Offset: w.offset, Size: s.Size}, true
	}
	return Upload{}, false
}

func (u *Uploads) save(id string, s uploadState) error {
	if err := os.MkdirAll(u.dir, 0o700); err != nil {
		return err
	}
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(u.dir, id), b, 0o600)
}

func (u *Uploads) load(id string) (uploadState, error) {
	var s uploadState
	if len(id) != 24 || CheckName(id) != nil {
		return s, quire.NotFound("upload")
	}
	b, err := os.ReadFile(filepath.Join(u.dir, id))
	if errors.Is(err, os.ErrNotExist) {
		return s, quire.NotFound("upload")
	}
	if err != nil {
		return s, err
	}
	return s, json.Unmarshal(b, &s)
}

// sweep removes the rests of uploads that nobody went on with.
func (u *Uploads) sweep() {
	list, _ := os.ReadDir(u.dir)
	for _, e := range list {
		info, err := e.Info()
		if err != nil || time.Since(info.ModTime()) < uploadLife || u.busy[e.Name()] {
			continue
		}
		if s, err := u.load(e.Name()); err == nil {
			if w, err := s.open(); err == nil {
				w.drop()
				w.close()
			}
		}
		if err := os.Remove(filepath.Join(u.dir, e.Name())); err != nil {
			u.log.Warn("an old upload's note stays", "err", err)
		}
	}
}

// writing is the open hidden file of an upload.
type writing struct {
	tree   *Tree
	dir    *os.File
	file   *os.File
	name   string
	temp   string
	offset int64
}

func (s uploadState) open() (*writing, error) {
	t, err := Open(s.Tree)
	if err != nil {
		return nil, err
	}
	w := &writing{tree: t, temp: s.Temp}
	if w.dir, w.name, err = t.parent(string(s.Path)); err != nil {
		w.close()
		return nil, err
	}
	if w.file, err = regular(int(w.dir.Fd()), s.Temp, unix.O_RDWR|unix.O_NOFOLLOW); err != nil {
		w.close()
		return nil, err
	}
	info, err := w.file.Stat()
	if err != nil {
		w.close()
		return nil, err
	}
	w.offset = info.Size()
	return w, nil
}

func (w *writing) close() {
	for _, f := range []*os.File{w.file, w.dir} {
		if f != nil {
			f.Close()
		}
	}
	w.tree.Close()
}

func (w *writing) drop() { unix.Unlinkat(int(w.dir.Fd()), w.temp, 0) }

func (u *Uploads) take(id string) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.busy[id] {
		return quire.Conflict("upload", "A piece of this upload is arriving already.")
	}
	u.busy[id] = true
	return nil
}

func (u *Uploads) give(id string) {
	u.mu.Lock()
	delete(u.busy, id)
	u.mu.Unlock()
}

// Append adds what r gives at an offset, which must be where the upload stands:
// nothing is written twice or left out. What arrives before an error counts.
// With the last byte the file takes its place.
func (u *Uploads) Append(id string, offset int64, r io.Reader) (Upload, error) {
	if err := u.take(id); err != nil {
		return Upload{}, err
	}
	defer u.give(id)
	s, err := u.load(id)
	if err != nil {
		return Upload{}, err
	}
	w, err := s.open()
	if err != nil {
		return Upload{}, err
	}
	defer w.close()
	at := Upload{ID: id, Offset: w.offset, Size: s.Size}
	if offset != w.offset {
		return at, quire.Conflict("offset", fmt.Sprintf("The upload stands at byte %d.", w.offset))
	}
	if _, err := w.file.Seek(offset, io.SeekStart); err != nil {
		return at, explain(err, w.temp)
	}
	limited := r
	if s.Size != unknown {
		limited = io.LimitReader(r, s.Size-offset)
	}
	n, err := io.Copy(w.file, limited)
	at.Offset += n
	if err != nil {
		return at, explain(err, w.temp)
	}
	if extra, _ := io.CopyN(io.Discard, r, 1); extra > 0 {
		return at, quire.Invalid("size", "More bytes arrived than the file was said to have.")
	}
	// The note's time says that somebody goes on.
	now := time.Now()
	os.Chtimes(filepath.Join(u.dir, id), now, now)
	if s.Size == unknown || at.Offset < s.Size {
		return at, nil
	}
	return u.finish(id, w, s, at)
}

// Finish puts a file of unknown size in its place: all of it has arrived.
func (u *Uploads) Finish(id string) (Upload, error) {
	if err := u.take(id); err != nil {
		return Upload{}, err
	}
	defer u.give(id)
	s, err := u.load(id)
	if err != nil {
		return Upload{}, err
	}
	w, err := s.open()
	if err != nil {
		return Upload{}, err
	}
	defer w.close()
	at := Upload{ID: id, Offset: w.offset, Size: s.Size}
	if s.Size != unknown {
		return at, quire.Invalid("size", "This upload ends with its last byte.")
	}
	return u.finish(id, w, s, at)
}

func (u *Uploads) finish(id string, w *writing, s uploadState, at Upload) (Upload, error) {
	if err := w.finish(s.Replace); err != nil {
		return at, err
	}
	if err := os.Remove(filepath.Join(u.dir, id)); err != nil {
		u.log.Warn("a finished upload's note stays", "err", err)
	}
	at.Done = true
	return at, nil
}

func (w *writing) finish(replace bool) error {
	note(w.file)
	if err := w.file.Sync(); err != nil {
		return explain(err, w.name)
	}
	err := renameNew(w.dir, w.temp, w.dir, w.name)
	if errors.Is(err, unix.EEXIST) && replace {
		err = w.over()
	}
	if err != nil {
		return explain(err, w.name)
	}
	settle(w.dir)
	return nil
}

// over takes the place of a file, by the rules of Write.
func (w *writing) over() error {
	old, err := beneath(int(w.dir.Fd()), w.name, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer old.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(old.Fd()), &st); err != nil {
		return err
	}
	if err := onlyRegular(st.Mode); err != nil {
		return err
	}
	if st.Uid == uint32(os.Geteuid()) && st.Nlink == 1 && likeness(w.file, old, &st) {
		return unix.Renameat(int(w.dir.Fd()), w.temp, int(w.dir.Fd()), w.name)
	}
	f, err := regular(int(w.dir.Fd()), w.name, unix.O_WRONLY|unix.O_NOFOLLOW)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := lock(f); err != nil {
		return err
	}
	info, err := w.file.Stat()
	if err != nil {
		return err
	}
	if info.Size() > 0 {
		if err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, info.Size()); full(err) {
			return err
		}
	}
	if _, err := w.file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if _, err := io.Copy(f, w.file); err != nil {
		return err
	}
	if err := f.Truncate(info.Size()); err != nil {
		return err
	}
	note(f)
	if err := f.Sync(); err != nil {
		return err
	}
	w.drop()
	return nil
}

// Status says how far an upload is.
func (u *Uploads) Status(id string) (Upload, error) {
	s, err := u.load(id)
	if err != nil {
		return Upload{}, err
	}
	w, err := s.open()
	if err != nil {
		return Upload{}, err
	}
	defer w.close()
	return Upload{ID: id, Offset: w.offset, Size: s.Size}, nil
}

// Cancel ends an upload and removes what has arrived.
func (u *Uploads) Cancel(id string) error {
	if err := u.take(id); err != nil {
		return err
	}
	defer u.give(id)
	s, err := u.load(id)
	if err != nil {
		return err
	}
	if w, err := s.open(); err == nil {
		w.drop()
		w.close()
	}
	return os.Remove(filepath.Join(u.dir, id))
}
