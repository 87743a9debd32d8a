package lab

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"quire"
	"quire/apps/kernel"
)

// sessions say which document has which kernel. They are kept in a file beside the
// kernels, so that who takes over knows them too.
type sessions struct {
	s    *server
	file string

	mu   sync.Mutex
	list []*session
	busy map[string]chan struct{} // documents whose session is being made
}

type session struct {
	ID     string `json:"id"`
	Path   string `json:"path"`
	Name   string `json:"name"`
	Type   string `json:"type"`
	Kernel string `json:"kernel"`
}

func newSessions(s *server) *sessions {
	ss := &sessions{s: s, file: filepath.Join(s.state, "sessions.json"), busy: map[string]chan struct{}{}}
	b, err := os.ReadFile(ss.file)
	if err == nil {
		err = json.Unmarshal(b, &ss.list)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.log.Warn("what is known of sessions could not be read", "err", err)
	}
	return ss
}

// save writes the list; mu is held.
func (ss *sessions) save() {
	b, err := json.Marshal(ss.list)
	if err == nil {
		if err = os.WriteFile(ss.file+".new", b, 0o600); err == nil {
			err = os.Rename(ss.file+".new", ss.file)
		}
	}
	if err != nil {
		ss.s.log.Error("what is known of sessions could not be kept", "err", err)
	}
}

// living drops sessions whose kernel is gone.
func (ss *sessions) living() []session {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	n := len(ss.list)
	ss.list = slices.DeleteFunc(ss.list, func(x *session) bool { _, err := ss.s.kernels.find(x.Kernel); return err != nil })
	if len(ss.list) != n {
		ss.save()
	}
	out := make([]session, len(ss.list))
	for i, x := range ss.list {
		out[i] = *x
	}
	return out
}

func (ss *sessions) find(id string) (session, error) {
	for _, x := range ss.living() {
		if x.ID == id {
			return x, nil
		}
	}
	return session{}, &quire.Error{Kind: quire.KindNotFound, Message: "Session not found: session_id=" + id}
}

// notebook is the notebook that a kernel runs, "" if there is none.
func (ss *sessions) notebook(kernel string) string {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	for _, x := range ss.list {
		if x.Kernel == kernel && x.Type == "notebook" {
			return x.Path
		}
	}
	return ""
}

// kernel is the one that runs a notebook, "" if there is none.
func (ss *sessions) kernel(path string) string {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	for _, x := range ss.list {
		if x.Path == path && x.Type == "notebook" {
			return x.Kernel
		}
	}
	return ""
}

func (ss *sessions) has(kernel string) bool {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	return slices.ContainsFunc(ss.list, func(x *session) bool { return x.Kernel == kernel })
}

// forget drops the sessions of a kernel that was ended.
func (ss *sessions) forget(kernel string) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	ss.list = slices.DeleteFunc(ss.list, func(x *session) bool { return x.Kernel == kernel })
	ss.save()
}

// of is the session of a document. It is made by start if there is none; a second
// page that asks meanwhile gets the same.
func (ss *sessions) of(ctx context.Context, want session, start func() (string, error)) (session, error) {
	for {
		for _, x := range ss.living() {
			if x.Path == want.Path && x.Type == want.Type {
				return x, nil
			}
		}
		ss.mu.Lock()
		wait := ss.busy[want.Path]
		if wait == nil {
			wait = make(chan struct{})
			ss.busy[want.Path] = wait
			ss.mu.Unlock()
			defer func() {
				ss.mu.Lock()
				delete(ss.busy, want.Path)
				ss.mu.Unlock()
				close(wait)
			}()
			break
		}
		ss.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return session{}, ctx.Err()
		}
	}
	k, err := start()
	if err != nil {
		return session{}, err
	}
	want.ID, want.Kernel = kernel.NewID(), k
	ss.mu.Lock()
	defer ss.mu.Unlock()
	ss.list = append(ss.list, &want)
	ss.save()
	return want, nil
}

func (s *server) sessionModel(x session) object {
	m := object{"id": x.ID, "path": x.Path, "name": x.Name, "type": x.Type, "kernel": nil}
	if k, err := s.kernels.find(x.Kernel); err == nil {
		m["kernel"] = k.model()
	}
	if x.Type == "notebook" {
		m["notebook"] = object{"path": x.Path, "name": x.Name}
	}
	return m
}

// sessionRequest is what a page sends; a field that is missing changes nothing.
type sessionRequest struct {
	Path     *string `json:"path"`
	Name     *string `json:"name"`
	Type     *string `json:"type"`
	Notebook *struct {
		Path string `json:"path"`
		Name string `json:"name"`
	} `json:"notebook"`
	Kernel *struct {
		ID   string `json:"id"`
		Name string `json:"name"`
	} `json:"kernel"`
}

func (in sessionRequest) apply(x *session) {
	if in.Notebook != nil {
		x.Path, x.Name, x.Type = in.Notebook.Path, in.Notebook.Name, "notebook"
	}
	for to, from := range map[*string]*string{&x.Path: in.Path, &x.Name: in.Name, &x.Type: in.Type} {
		if from != nil {
			*to = *from
		}
	}
}

func (s *server) sessionRoutes(r routes) {
	r.on("GET /api/sessions", func(w http.ResponseWriter, _ *http.Request) error {
		out := []object{}
		for _, x := range s.sessions.living() {
			out = append(out, s.sessionModel(x))
		}
		answer(w, http.StatusOK, out)
		return nil
	})
	r.on("POST /api/sessions", func(w http.ResponseWriter, req *http.Request) error {
		var in sessionRequest
		if err := ask(w, req, 64<<10, &in); err != nil {
			return err
		}
		var want session
		in.apply(&want)
		if want.Path == "" {
			return quire.Invalid("path", "Missing field in JSON data: path")
		}
		want.Type = cmp.Or(want.Type, "notebook")
		x, err := s.sessions.of(req.Context(), want, func() (string, error) { return s.kernelFor(req.Context(), in, want.Path) })
		if err != nil {
			return err
		}
		w.Header().Set("Location", s.base+"/api/sessions/"+x.ID)
		answer(w, http.StatusCreated, s.sessionModel(x))
		return nil
	})
	r.on("GET /api/sessions/{id}", func(w http.ResponseWriter, req *http.Request) error {
		x, err := s.sessions.find(req.PathValue("id"))
		if err == nil {
			answer(w, http.StatusOK, s.sessionModel(x))
		}
		return err
	})
	r.on("PATCH /api/sessions/{id}", s.changeSession)
	r.on("DELETE /api/sessions/{id}", func(w http.ResponseWriter, req *http.Request) error {
		x, err := s.sessions.find(req.PathValue("id"))
		if err != nil {
			return err
		}
		if err := s.kernels.end(req.Context(), x.Kernel); err != nil {
			return err
		}
		s.sessions.forget(x.Kernel)
		w.WriteHeader(http.StatusNoContent)
		return nil
	})
}

// kernelFor is the kernel that a page asks for: one that runs, or a new one.
func (s *server) kernelFor(ctx context.Context, in sessionRequest, at string) (string, error) {
	name := ""
	if in.Kernel != nil {
		if in.Kernel.ID != "" {
			k, err := s.kernels.find(in.Kernel.ID)
			if err != nil {
				return "", err
			}
			return k.id, nil
		}
		name = in.Kernel.Name
	}
	k, err := s.startKernel(ctx, name, at)
	if err != nil {
		return "", err
	}
	return k.id, nil
}

// changeSession renames a session with its document, or gives it another kernel;
// the one it had is ended then.
func (s *server) changeSession(w http.ResponseWriter, req *http.Request) error {
	var in sessionRequest
	if err := ask(w, req, 64<<10, &in); err != nil {
		return err
	}
	x, err := s.sessions.find(req.PathValue("id"))
	if err != nil {
		return err
	}
	before := x.Kernel
	in.apply(&x)
	if in.Kernel != nil && in.Kernel.ID != before {
		if x.Kernel, err = s.kernelFor(req.Context(), in, x.Path); err != nil {
			return err
		}
	}
	s.sessions.mu.Lock()
	shared := false
	for _, other := range s.sessions.list {
		if other.ID == x.ID {
			*other = x
		} else {
			shared = shared || other.Kernel == before
		}
	}
	s.sessions.save()
	s.sessions.mu.Unlock()
	if x.Kernel != before && !shared {
		if err := s.kernels.end(req.Context(), before); err != nil {
			s.log.Warn("the kernel that a document had was not ended", "kernel", before, "err", err)
		}
	}
	answer(w, http.StatusOK, s.sessionModel(x))
	return nil
}
