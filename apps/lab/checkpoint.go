package lab

import (
	"errors"
	"net/http"
	"net/url"

	"quire"
	"quire/apps/files"
)

// Jupyter's checkpoints are our snapshots: there may be many of a file, the
// oldest first.

func (s *server) checkpoint(r *http.Request, sn snapshot) object {
	return object{
		"id": sn.ID, "last_modified": sn.At.UTC().Format(stamp),
		"quire": object{"by": s.people.Names(r.Context(), []uint32{sn.UID})[sn.UID]},
	}
}

func (s *server) serveCheckpoints(w http.ResponseWriter, r *http.Request, p string) error {
	if hidden(p) {
		return quire.NotFound("file")
	}
	real, err := s.target(p)
	if err != nil {
		return err
	}
	switch r.Method {
	case http.MethodGet:
		list := []object{}
		for _, sn := range s.snapshots.list(real) {
			list = append(list, s.checkpoint(r, sn))
		}
		answer(w, http.StatusOK, list)
		return nil
	case http.MethodPost:
		c, err := s.tree.Read(real, maxSnapshot)
		if err != nil {
			return err
		}
		if err := s.snapshots.keep(real, c.Bytes); err != nil {
			return err
		}
		for _, sn := range s.snapshots.list(real) {
			if sn.digest == digestBytes(c.Bytes) {
				w.Header().Set("Location", s.base+"/api/contents/"+(&url.URL{Path: p}).EscapedPath()+"/checkpoints/"+sn.ID)
				answer(w, http.StatusCreated, s.checkpoint(r, sn))
				return nil
			}
		}
		return quire.NotFound("snapshot")
	}
	return methodNotAllowed(w)
}

func methodNotAllowed(w http.ResponseWriter) error {
	answer(w, http.StatusMethodNotAllowed, object{"message": "Method Not Allowed", "reason": nil})
	return nil
}

// serveCheckpoint restores a file from a snapshot, deletes a snapshot, or shows
// what is in one, for which Jupyter has no call. What a restore replaces is kept.
func (s *server) serveCheckpoint(w http.ResponseWriter, r *http.Request, p, id string) error {
	if hidden(p) {
		return quire.NotFound("file")
	}
	real, err := s.target(p)
	if err != nil {
		return err
	}
	switch r.Method {
	case http.MethodDelete:
		err = s.snapshots.remove(real, id)
	case http.MethodPost, http.MethodGet:
		var content []byte
		if content, err = s.snapshots.find(real, id); err != nil {
			return err
		}
		if r.Method == http.MethodGet {
			return s.showSnapshot(w, p, content)
		}
		err = s.restore(p, content)
	default:
		return methodNotAllowed(w)
	}
	if err == nil {
		w.WriteHeader(http.StatusNoContent)
	}
	return err
}

func (s *server) restore(p string, content []byte) error {
	_, err := s.store(p, content, &saveRequest{})
	var changed *files.ErrChanged
	if errors.As(err, &changed) {
		return quire.Conflict("path", "Somebody saved this file at the same moment. Look at it and restore again.")
	}
	return err
}

// showSnapshot answers with a model of what a snapshot has, to compare with or to
// take cells from.
func (s *server) showSnapshot(w http.ResponseWriter, p string, content []byte) error {
	_, info, err := s.look(p)
	if err != nil {
		return err
	}
	m := model(p, info)
	m["writable"] = false
	if m["type"] != "notebook" {
		if err := getText(content, "", m); err != nil {
			return err
		}
		answer(w, http.StatusOK, m)
		return nil
	}
	nb, err := readNotebook(content)
	if err != nil {
		return err
	}
	nb.mark(s.trust.knows(nb))
	m["content"], m["format"] = nb.doc, "json"
	answer(w, http.StatusOK, m)
	return nil
}
