package lab

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"quire"
)

const (
	workspaceExt  = ".jupyterlab-workspace"
	maxWorkspace  = 4 << 20 // bytes of one
	maxWorkspaces = 500     // of one project
)

// Which documents are open is of a project, so each has workspaces of its own in
// the person's directory for them, named as Jupyter names them.

func (s *server) workspaceRoutes(r routes) {
	r.on("GET /lab/api/workspaces", s.serveWorkspaces)
	r.on("GET /lab/api/workspaces/{$}", s.serveWorkspaces)
	r.on("GET /lab/api/workspaces/{id...}", s.serveWorkspace)
	r.on("PUT /lab/api/workspaces/{id...}", s.saveWorkspace)
	r.on("DELETE /lab/api/workspaces/{id...}", s.deleteWorkspace)
}

func (s *server) workspaceDir() string {
	return filepath.Join(s.configDir(), "lab/workspaces", slug(s.project))
}

var (
	notInSlug = regexp.MustCompile(`[^a-z0-9_\s-]`)
	toHyphen  = regexp.MustCompile(`[-\s]+`)
)

// slug is the name of a workspace's file: what letters and digits it has, and the
// beginning of a digest that keeps apart what they do not.
func slug(id string) string {
	id = strings.TrimPrefix(id, "/")
	sum := sha256.Sum256([]byte(id))
	sign := "-" + hex.EncodeToString(sum[:])[:4]
	plain := strings.ToLower(id)
	if u, err := url.PathUnescape(plain); err == nil {
		plain = u
	}
	plain = strings.TrimSpace(notInSlug.ReplaceAllString(plain, ""))
	plain = toHyphen.ReplaceAllString(plain, "-")
	return plain[:min(len(plain), 128-len(workspaceExt)-len(sign))] + sign
}

func (s *server) workspaceFile(id string) string {
	return filepath.Join(s.workspaceDir(), slug(id)+workspaceExt)
}

// readWorkspace is nil where there is none that can be read.
func readWorkspace(file string) (object, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxWorkspace {
		return nil, errors.New("too long")
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	v, err := decode(b)
	if err != nil {
		return nil, err
	}
	out, _ := v.(object)
	metadata, ok := out["metadata"].(object)
	if !ok {
		return nil, errors.New("no metadata")
	}
	at := info.ModTime().UTC().Format(stamp)
	metadata["last_modified"], metadata["created"] = at, at
	return out, nil
}

func (s *server) serveWorkspaces(w http.ResponseWriter, r *http.Request) error {
	files, _ := filepath.Glob(filepath.Join(globbed(s.workspaceDir()), "*"+workspaceExt))
	slices.Sort(files)
	ids, values := []any{}, []object{}
	for _, file := range files {
		if ws, err := readWorkspace(file); err == nil {
			ids, values = append(ids, ws["metadata"].(object)["id"]), append(values, ws)
		}
	}
	answerLong(w, r, object{"workspaces": object{"ids": ids, "values": values}})
	return nil
}

// globbed is a path that filepath.Glob takes as it is.
func globbed(p string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(p)
}

func workspaceID(r *http.Request) (string, error) {
	id := strings.TrimPrefix(r.PathValue("id"), "/")
	if id == "" || len(id) > 1000 || !utf8.ValidString(id) {
		return "", quire.Invalid("id", "Workspace name is required, in at most 1000 bytes of UTF-8.")
	}
	return id, nil
}

func (s *server) serveWorkspace(w http.ResponseWriter, r *http.Request) error {
	id, err := workspaceID(r)
	if err != nil {
		return err
	}
	ws, err := readWorkspace(s.workspaceFile(id))
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			s.log.Warn("a workspace cannot be read and begins anew", "id", id, "err", err)
		}
		ws = object{"data": object{}, "metadata": object{"id": id}}
	}
	answerLong(w, r, ws)
	return nil
}

func (s *server) saveWorkspace(w http.ResponseWriter, r *http.Request) error {
	id, err := workspaceID(r)
	if err != nil {
		return err
	}
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxWorkspace))
	if err != nil {
		return quire.Invalid("data", "This workspace is too large to be kept.")
	}
	if err := bounded(b); err != nil {
		return err
	}
	var in struct {
		Data     json.RawMessage
		Metadata struct{ ID string }
	}
	if err := json.Unmarshal(b, &in); err != nil {
		return &quire.Error{Kind: quire.KindInvalid, Message: "The workspace is not the JSON that was expected.", Err: err}
	}
	has := strings.TrimPrefix(in.Metadata.ID, "/")
	if plain, err := url.PathUnescape(has); has != id && (err != nil || plain != id) {
		return quire.Invalid("id", "Workspace metadata ID mismatch: expected '"+id+"' got '"+has+"'")
	}
	file := s.workspaceFile(id)
	if _, err := os.Stat(file); err != nil {
		if have, _ := os.ReadDir(s.workspaceDir()); len(have) >= maxWorkspaces {
			return &quire.Error{Kind: quire.KindTooMany, Message: "This project has 500 workspaces. Delete some first."}
		}
	}
	if err := writeConfig(file, b); err != nil {
		return quire.Failed("The workspace could not be kept in your home directory. Is it full?", err)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *server) deleteWorkspace(w http.ResponseWriter, r *http.Request) error {
	id, err := workspaceID(r)
	if err != nil {
		return err
	}
	err = os.Remove(s.workspaceFile(id))
	if errors.Is(err, fs.ErrNotExist) {
		return &quire.Error{Kind: quire.KindNotFound, Message: "Workspace '" + id + "' not found"}
	}
	if err != nil {
		return quire.Failed("The workspace could not be deleted from your home directory.", err)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
