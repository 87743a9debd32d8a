package lab

import (
	"bytes"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"quire"
	"quire/apps/files"
)

// uploads are files that arrive in Jupyter's chunks: 1, 2, 3 … and at last -1,
// whose number together is not known before. What has arrived is hidden beside
// its place until the last one, so nobody opens half a file.
type uploads struct {
	*files.Uploads
	mu   sync.Mutex
	open map[string]*arriving // by path
}

type arriving struct {
	id     string
	chunk  int // the last one that is here
	offset int64
}

func newUploads(dir string, log *slog.Logger) *uploads {
	return &uploads{Uploads: files.NewUploads(dir, log), open: map[string]*arriving{}}
}

// add takes a chunk and says how many bytes there are, and whether it was the last.
func (u *uploads) add(t *files.Tree, p string, chunk int, b []byte) (int64, bool, error) {
	u.mu.Lock()
	a := u.open[p]
	if chunk == 1 {
		if a != nil { // begun anew
			if err := u.Cancel(a.id); err != nil && quire.KindOf(err) != quire.KindNotFound {
				u.mu.Unlock()
				return 0, false, err
			}
		}
		up, err := u.Begin(t, files.Plan{Path: p, Unsized: true, Replace: true})
		if err != nil {
			u.mu.Unlock()
			return 0, false, err
		}
		a = &arriving{id: up.ID}
		u.open[p] = a
	}
	u.mu.Unlock()
	switch {
	case a == nil:
		return 0, false, quire.Conflict("chunk", "This upload was interrupted. Begin it again.")
	case chunk > 0 && chunk != a.chunk+1, chunk < -1:
		return 0, false, quire.Conflict("chunk", "A piece of this upload is missing. Begin it again.")
	}
	up, err := u.Append(a.id, a.offset, bytes.NewReader(b))
	if err != nil {
		return 0, false, err
	}
	u.mu.Lock()
	a.offset = up.Offset
	if chunk > 0 {
		a.chunk = chunk
	}
	u.mu.Unlock()
	if chunk != -1 {
		return up.Offset, false, nil
	}
	up, err = u.Finish(a.id)
	if err == nil {
		u.mu.Lock()
		delete(u.open, p)
		u.mu.Unlock()
	}
	return up.Offset, err == nil, err
}

func (s *server) serveChunk(w http.ResponseWriter, status int, p string, in *saveRequest) error {
	switch {
	case in.Type == "":
		return quire.Invalid("type", "No file type provided")
	case in.Type != "file":
		return quire.Invalid("type", "File type \""+in.Type+"\" is not supported for large file transfer")
	case in.Content == nil:
		return quire.Invalid("content", "No file content provided")
	case *in.Chunk == 0:
		return quire.Invalid("chunk", "Pieces are numbered from 1; the last one is -1.")
	}
	b, err := in.file()
	if err != nil {
		return err
	}
	real, err := s.target(p)
	if err != nil {
		return err
	}
	if *in.Chunk == -1 {
		if old, err := s.tree.Read(real, maxSnapshot); err == nil {
			if err := s.snapshots.keep(real, old.Bytes); err != nil {
				s.log.Info("no snapshot of what an upload replaces", "err", err)
			}
		}
	}
	size, done, err := s.uploads.add(s.tree, real, *in.Chunk, b)
	if err != nil {
		return err
	}
	if done {
		return s.saved(w, status, p, "", files.Content{})
	}
	now := time.Now()
	m := model(p, files.Info{Entry: files.Entry{Kind: files.File, Size: size, Modified: now, Changed: now}, Writable: true})
	m["type"] = "file"
	modelHeaders(w, m)
	answer(w, status, m)
	return nil
}
