package lab

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"io"
	"mime"
	"net/http"
	"net/url"
	"os"
	"path"
	"strings"
	"time"
	"unicode/utf8"

	"quire"
	"quire/apps"
	"quire/apps/files"
)

// maxListed is how many entries of a directory are told.
const maxListed = 50000

func (s *server) contentsRoutes(r routes) {
	for _, method := range []string{"GET", "PUT", "POST", "PATCH", "DELETE"} {
		r.on(method+" /api/contents", s.serveContents)
		r.on(method+" /api/contents/{path...}", s.serveContents)
	}
	r.on("GET /files/{path...}", s.serveFile)
	r.on("POST /lab/api/merge/{path...}", s.serveMerge)
}

// serveContents divides what is below a path: Jupyter has a file's checkpoints
// and trust behind the file's own path. A directory of such a name is reached as
// long as what it is in is no file.
func (s *server) serveContents(w http.ResponseWriter, r *http.Request) error {
	p, err := apiPath(r.PathValue("path"))
	if err != nil {
		return err
	}
	dir, last := path.Split(p)
	switch dir = strings.TrimSuffix(dir, "/"); {
	case last == "checkpoints" && s.isFile(dir):
		return s.serveCheckpoints(w, r, dir)
	case path.Base(dir) == "checkpoints" && s.isFile(parent(dir)):
		return s.serveCheckpoint(w, r, parent(dir), last)
	case last == "trust" && r.Method == http.MethodPost && s.isFile(dir):
		return s.serveTrust(w, dir)
	}
	switch r.Method {
	case http.MethodPut:
		return s.servePut(w, r, p)
	case http.MethodPost:
		return s.servePost(w, r, p)
	case http.MethodPatch:
		return s.servePatch(w, r, p)
	case http.MethodDelete:
		return s.serveDelete(w, r, p)
	}
	return s.serveGet(w, r, p)
}

// apiPath checks a path of Jupyter's API, which is text.
func apiPath(p string) (string, error) {
	if !utf8.ValidString(p) {
		return "", quire.Invalid("path", "This name is not UTF-8, which JupyterLab cannot open. Rename it in the Workbench first.")
	}
	return files.Clean(p)
}

func parent(p string) string {
	dir, _ := path.Split(p)
	return strings.TrimSuffix(dir, "/")
}

// hidden reports whether Jupyter leaves a path out.
func hidden(p string) bool { return strings.HasPrefix(p, ".") || strings.Contains(p, "/.") }

func visible(p string) error {
	if hidden(p) {
		return quire.Invalid("path", "Names that begin with a dot are hidden from JupyterLab. Use the Workbench or a terminal for them.")
	}
	return nil
}

// look finds what a path leads to, through a link in the last place too.
func (s *server) look(p string) (string, files.Info, error) {
	info, err := s.tree.Stat(p)
	if err != nil {
		if quire.KindOf(err) == quire.KindNotFound && strings.ContainsRune(p, utf8.RuneError) {
			err = quire.Invalid("path", "This name is not UTF-8, which JupyterLab cannot open. Rename it in the Workbench first.")
		}
		return p, info, err
	}
	if info.Kind == files.Link {
		if info.LeadsOut {
			return p, info, quire.Forbidden("This link leads out of the project, or nowhere. Open the place it leads to in the Workbench.")
		}
		p = info.Leads
		info, err = s.tree.Stat(p)
	}
	return p, info, err
}

// target is the path to write to: what a link leads to, or the path itself where
// nothing is yet.
func (s *server) target(p string) (string, error) {
	real, _, err := s.look(p)
	if quire.KindOf(err) == quire.KindNotFound {
		return p, nil
	}
	return real, err
}

func (s *server) isFile(p string) bool {
	_, info, err := s.look(p)
	return err == nil && info.Kind == files.File
}

const stamp = "2006-01-02T15:04:05.000000Z"

// model describes an entry the way Jupyter does, without its content.
func model(p string, info files.Info) object {
	kind, size, mimetype := "file", any(info.Size), any(nil)
	switch {
	case info.Kind == files.Directory:
		kind, size = "directory", nil
	case path.Ext(p) == ".ipynb":
		kind = "notebook"
	default:
		if m := mimeOf(p); m != "" {
			mimetype = m
		}
	}
	name := path.Base(p)
	if p == "" {
		name = ""
	}
	return object{
		"name": strings.ToValidUTF8(name, "\uFFFD"), "path": strings.ToValidUTF8(p, "\uFFFD"), "type": kind, "size": size, "mimetype": mimetype,
		"writable": info.Writable && utf8.ValidString(p), "last_modified": info.Modified.UTC().Format(stamp), "created": info.Changed.UTC().Format(stamp),
		"content": nil, "format": nil, "hash": nil, "hash_algorithm": nil,
	}
}

// mimeOf guesses a type by the name. What notebooks are written in is known
// whatever the machine's tables say.
func mimeOf(p string) string {
	for _, packed := range []string{".gz", ".bz2", ".xz"} { // of what is in it
		p = strings.TrimSuffix(p, packed)
	}
	switch ext := strings.ToLower(path.Ext(p)); ext {
	case ".ipynb":
		return ""
	case ".tar", ".tgz":
		return "application/x-tar"
	case ".py":
		return "text/x-python"
	case ".md":
		return "text/markdown"
	case ".txt", ".log":
		return "text/plain"
	case ".csv":
		return "text/csv"
	case ".json":
		return "application/json"
	case ".js", ".mjs":
		return "text/javascript"
	default:
		m, _, _ := strings.Cut(mime.TypeByExtension(ext), ";")
		return m
	}
}

func oneOf(q url.Values, key, normal string, allowed ...string) (string, error) {
	v := q.Get(key)
	if !q.Has(key) {
		v = normal
	}
	for _, a := range allowed {
		if v == a {
			return v, nil
		}
	}
	return "", quire.Invalid(key, "The "+key+" is one of "+strings.Join(allowed, ", ")+".")
}

func (s *server) serveGet(w http.ResponseWriter, r *http.Request, p string) error {
	q := r.URL.Query()
	kind, err := oneOf(q, "type", "", "", "file", "directory", "notebook")
	if err != nil {
		return err
	}
	format, err := oneOf(q, "format", "", "", "text", "base64", "json")
	if err != nil {
		return err
	}
	content, err := oneOf(q, "content", "1", "0", "1")
	if err != nil {
		return err
	}
	hash, err := oneOf(q, "hash", "0", "0", "1")
	if err != nil {
		return err
	}
	if hidden(p) {
		return quire.NotFound("file or directory")
	}
	m, err := s.get(p, kind, format, content == "1", hash == "1")
	if err != nil {
		return err
	}
	if about, ok := m["quire"].(object); ok && content == "0" {
		if real, info, err := s.look(p); err == nil {
			m["quire"] = s.about(r.Context(), real, about["version"].(string), info)
		}
	}
	modelHeaders(w, m)
	if content == "1" {
		answerLong(w, r, m)
	} else {
		answer(w, http.StatusOK, m)
	}
	return nil
}

// about says which version a file has, and who made it, as far as that is known.
func (s *server) about(ctx context.Context, real, version string, info files.Info) object {
	out := object{"version": version, "at": info.Modified.UTC().Format(stamp), "by": nil, "me": false}
	if uid, ok := s.tree.ChangedBy(real); ok {
		out["by"], out["me"] = s.people.Names(ctx, []uint32{uid})[uid], uid == uint32(os.Geteuid())
	}
	return out
}

func modelHeaders(w http.ResponseWriter, m object) {
	if at, err := time.Parse(stamp, m["last_modified"].(string)); err == nil {
		w.Header().Set("Last-Modified", at.Format(http.TimeFormat))
	}
}

// badType is what Jupyter answers when something is of another type than asked.
func badType(what string) error {
	return &quire.Error{Kind: quire.KindInvalid, Field: "bad type", Message: what}
}

// get is the model of a path, with its content if that is wanted.
func (s *server) get(p, kind, format string, content, hash bool) (object, error) {
	real, info, err := s.look(p)
	if err != nil {
		return nil, err
	}
	m := model(p, info)
	if kind == "" {
		kind = m["type"].(string)
	}
	switch {
	case info.Kind == files.Special:
		return nil, quire.Invalid("path", "That is a device, a pipe or a socket: only files can be opened.")
	case info.Kind == files.Directory && kind != "directory":
		return nil, badType("This is a directory, not a " + kind + ".")
	case info.Kind == files.Directory:
		if content {
			err = s.list(p, real, m)
		}
		return m, err
	case kind == "directory":
		return nil, badType("This is not a directory.")
	}
	m["type"] = kind
	m["quire"] = object{"version": info.Version}
	if kind == "notebook" {
		m["mimetype"] = nil
	} else if m["mimetype"] == nil {
		if t := mimeOf(p); t != "" {
			m["mimetype"] = t
		}
	}
	if !content {
		if hash {
			err = s.hash(real, m)
		}
		if w, ok := s.rewritten.known(real, info); ok {
			m["last_modified"] = w.modified
			if hash {
				m["hash"] = w.hash
			}
		}
		return m, err
	}
	if kind == "notebook" {
		s.settleCells(p)
	}
	c, err := s.tree.Read(real, maxParsed)
	if err != nil {
		return nil, err
	}
	s.rewritten.read(real)
	m["size"], m["last_modified"], m["created"] = c.Size, c.Modified.UTC().Format(stamp), c.Changed.UTC().Format(stamp)
	m["quire"] = object{"version": c.Version}
	if hash {
		sum := sha256.Sum256(c.Bytes)
		m["hash"], m["hash_algorithm"] = hex.EncodeToString(sum[:]), "sha256"
	}
	if kind == "notebook" {
		return m, s.getNotebook(real, c, m)
	}
	return m, getText(c.Bytes, format, m)
}

func (s *server) getNotebook(real string, c files.Content, m object) error {
	nb, err := readNotebook(c.Bytes)
	if err != nil {
		return err
	}
	if len(s.snapshots.list(real)) > 0 {
		// Somebody saves this notebook with us, so a program that changed it
		// meanwhile may be what the next save is merged with.
		if err := s.snapshots.keep(real, c.Bytes); err != nil {
			s.log.Info("no snapshot of what was opened", "err", err)
		}
	}
	if message := nb.invalid(); message != "" {
		m["message"] = message
	}
	nb.mark(s.trust.knows(nb))
	m["content"], m["format"] = nb.doc, "json"
	return nil
}

func getText(b []byte, format string, m object) error {
	text := utf8.Valid(b)
	switch {
	case format == "text" && !text:
		return &quire.Error{Kind: quire.KindInvalid, Field: "bad format", Message: m["path"].(string) + " is not UTF-8 encoded. Download it, or open it with a program for its format."}
	case format != "base64" && text:
		m["content"], m["format"] = string(b), "text"
		if m["mimetype"] == nil {
			m["mimetype"] = "text/plain"
		}
	default:
		m["content"], m["format"] = base64.StdEncoding.EncodeToString(b), "base64"
		if m["mimetype"] == nil {
			m["mimetype"] = "application/octet-stream"
		}
	}
	return nil
}

// hash reads a file of any size for its digest alone.
func (s *server) hash(real string, m object) error {
	f, _, err := s.tree.Open(real)
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return err
	}
	m["hash"], m["hash_algorithm"] = hex.EncodeToString(h.Sum(nil)), "sha256"
	return nil
}

// unlisted are the names that Jupyter leaves out of directories.
func unlisted(name string) bool {
	switch {
	case strings.HasPrefix(name, "."), name == "__pycache__", strings.HasSuffix(name, "~"):
		return true
	}
	return strings.HasSuffix(name, ".pyc") || strings.HasSuffix(name, ".pyo")
}

func (s *server) list(p, real string, m object) error {
	entries, more, err := s.tree.List(real, "", maxListed)
	if err != nil {
		return err
	}
	list := []object{}
	for _, e := range entries {
		if unlisted(e.Name) || e.Kind == files.Special {
			continue
		}
		at := path.Join(real, e.Name)
		info, err := s.tree.Stat(at)
		if err != nil {
			continue // it went meanwhile
		}
		if info.Kind == files.Link && !info.LeadsOut {
			if to, err := s.tree.Stat(info.Leads); err == nil {
				info = to
			}
		}
		list = append(list, model(path.Join(p, e.Name), info))
	}
	m["content"], m["format"] = list, "json"
	if more {
		m["message"] = "This directory has more entries than are shown. Use a terminal to see them all."
	}
	return nil
}

// serveFile sends a file as it is, also in parts.
func (s *server) serveFile(w http.ResponseWriter, r *http.Request) error {
	p, err := apiPath(r.PathValue("path"))
	if err != nil {
		return err
	}
	if hidden(p) {
		return quire.NotFound("file")
	}
	real, _, err := s.look(p)
	if err != nil {
		return err
	}
	f, e, err := s.tree.Open(real)
	if err != nil {
		return err
	}
	defer f.Close()
	apps.ServeFile(w, r, path.Base(p), e.Modified, f, r.URL.Query().Has("download"))
	return nil
}

func (s *server) serveTrust(w http.ResponseWriter, p string) error {
	real, _, err := s.look(p)
	if err != nil {
		return err
	}
	c, err := s.tree.Read(real, maxParsed)
	if err != nil {
		return err
	}
	nb, err := readNotebook(c.Bytes)
	if err != nil {
		return err
	}
	if err := s.trust.sign(nb); err != nil {
		return quire.Failed("Your list of trusted notebooks could not be written. Is your home directory full?", err)
	}
	w.WriteHeader(http.StatusCreated)
	return nil
}
