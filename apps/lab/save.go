package lab

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"quire"
	"quire/apps/files"
)

// maxBody is what one request to save may have: a notebook, or a file in base64.
const maxBody = maxParsed*4/3 + 1<<20

// saveRequest is a model as clients send it.
type saveRequest struct {
	Type     string          `json:"type"`
	Format   string          `json:"format"`
	Path     string          `json:"path"`
	Ext      string          `json:"ext"`
	CopyFrom string          `json:"copy_from"`
	Content  json.RawMessage `json:"content"`
	Chunk    *int            `json:"chunk"`

	// What the client loaded or saved last. Any of them makes the save fail if the
	// file is another one by now; without them the save goes through, and what it
	// overwrites is kept.
	Quire        struct{ Version string } `json:"quire"`
	Hash         string                   `json:"hash"`
	LastModified string                   `json:"last_modified"`
}

func readModel(w http.ResponseWriter, r *http.Request) (*saveRequest, error) {
	var body bytes.Buffer
	body.Grow(int(min(max(r.ContentLength, 0), maxBody)) + bytes.MinRead)
	_, err := body.ReadFrom(http.MaxBytesReader(w, r.Body, maxBody))
	b := body.Bytes()
	var long *http.MaxBytesError
	if errors.As(err, &long) {
		return nil, quire.Invalid("content", fmt.Sprintf("This has more than %d MB, too much to be saved at once. Clear large outputs, or upload it as a file.", maxBody>>20))
	}
	if err != nil {
		return nil, err
	}
	if len(bytes.TrimSpace(b)) == 0 {
		return nil, nil
	}
	var in *saveRequest
	if err := json.Unmarshal(b, &in); err != nil {
		return nil, &quire.Error{Kind: quire.KindInvalid, Message: "Invalid JSON in body of request.", Err: err}
	}
	if string(in.content()) == "null" {
		in.Content = nil
	}
	return in, nil
}

func (in *saveRequest) content() []byte {
	if in == nil {
		return nil
	}
	return in.Content
}

// saved answers with the model of what is there now.
func (s *server) saved(w http.ResponseWriter, status int, p, message string, c files.Content) error {
	_, info, err := s.look(p)
	if err != nil {
		return err
	}
	m := model(p, info)
	if c.Version != "" {
		m["quire"] = object{"version": c.Version}
	}
	if message != "" {
		m["message"] = message
	}
	modelHeaders(w, m)
	w.Header().Set("Location", s.base+"/api/contents/"+(&url.URL{Path: p}).EscapedPath())
	answer(w, status, m)
	return nil
}

func (s *server) servePut(w http.ResponseWriter, r *http.Request, p string) error {
	in, err := readModel(w, r)
	if err != nil {
		return err
	}
	if in == nil {
		return s.untitled(w, p, &saveRequest{})
	}
	if in.CopyFrom != "" {
		return quire.Invalid("copy_from", "Cannot copy with PUT, only POST")
	}
	if err := visible(p); err != nil {
		return err
	}
	status := http.StatusCreated
	if s.isFile(p) {
		status = http.StatusOK
	} else {
		in.fill(p)
	}
	if in.Chunk != nil {
		return s.serveChunk(w, status, p, in)
	}
	c, message, err := s.save(p, in)
	var changed *files.ErrChanged
	if errors.As(err, &changed) {
		s.failChanged(w, r, p, changed)
		return nil
	}
	if err != nil {
		return err
	}
	return s.saved(w, status, p, message, c)
}

// fill makes an empty file or notebook of a model that says too little.
func (in *saveRequest) fill(p string) {
	if in.Type == "" {
		in.Type = "file"
		if path.Ext(p) == ".ipynb" {
			in.Type = "notebook"
		}
	}
	if in.Content == nil && in.Type == "notebook" {
		in.Content = newNotebook().bytes()
	}
	if in.Content == nil && in.Type == "file" {
		in.Content, in.Format = []byte(`""`), "text"
	}
}

// save writes what a model has and returns what is there then.
func (s *server) save(p string, in *saveRequest) (files.Content, string, error) {
	none := files.Content{}
	if in.Type == "" {
		return none, "", quire.Invalid("type", "No file type provided")
	}
	if in.Content == nil && in.Type != "directory" {
		return none, "", quire.Invalid("content", "No file content provided")
	}
	switch in.Type {
	case "directory":
		real, info, err := s.look(p)
		switch {
		case err == nil && info.Kind != files.Directory:
			return none, "", quire.Invalid("path", "Not a directory: "+p)
		case quire.KindOf(err) == quire.KindNotFound:
			err = s.tree.Mkdir(real, false)
		}
		return none, "", err
	case "notebook":
		v, err := decode(in.Content)
		if err != nil {
			return none, "", err
		}
		nb, err := notebookOf(v)
		if err != nil {
			return none, "", err
		}
		trusted := nb.trusted()
		c, err := s.store(p, nb.bytes(), in)
		if err == nil && trusted {
			if err := s.trust.sign(nb); err != nil {
				s.log.Warn("a notebook could not be signed", "err", err)
			}
		}
		return c, nb.invalid(), err
	case "file":
		b, err := in.file()
		if err != nil {
			return none, "", err
		}
		c, err := s.store(p, b, in)
		return c, "", err
	}
	return none, "", quire.Invalid("type", "Unhandled contents type: "+in.Type)
}

// file is the content of a file in a model.
func (in *saveRequest) file() ([]byte, error) {
	if in.Format != "text" && in.Format != "base64" {
		return nil, quire.Invalid("format", "Must specify format of file contents as 'text' or 'base64'")
	}
	b := bytes.Trim(in.Content, `"`)
	if len(b) != len(in.Content)-2 || bytes.IndexByte(b, '\\') >= 0 {
		var text string
		if err := json.Unmarshal(in.Content, &text); err != nil {
			return nil, quire.Invalid("content", "The content of a file is a text, in itself or in base64.")
		}
		b = []byte(text)
	}
	if in.Format == "text" {
		return b, nil
	}
	// In the place of the text: a piece of an upload is large. Breaks of lines in
	// it are left out.
	n, err := base64.StdEncoding.Decode(b, b)
	if err != nil {
		return nil, quire.Invalid("content", "The content of this file is not base64. Try to upload it again.")
	}
	return b[:n], nil
}

// store writes a file's content. A client that said what it had seen gets
// *files.ErrChanged if something else is there; otherwise what is overwritten is
// kept before, whoever wrote it.
func (s *server) store(p string, content []byte, in *saveRequest) (files.Content, error) {
	real, err := s.target(p)
	if err != nil {
		return files.Content{}, err
	}
	for range 20 {
		old, err := s.tree.Read(real, maxSnapshot)
		large := quire.KindOf(err) == quire.KindInvalid && s.isFile(p)
		if large {
			// Too large to keep, which is no reason to keep the person from replacing it.
			old.Info, err = s.tree.Stat(real)
			old.Version = old.Info.Version
		}
		want := old.Version
		switch {
		case quire.KindOf(err) == quire.KindNotFound:
			if want = files.Absent; !in.blind() {
				want = elsewhere
			}
		case err != nil:
			return files.Content{}, err
		default:
			seen := in.seen(old)
			if seen != "" {
				want = seen
			}
			if !large && !bytes.Equal(old.Bytes, content) {
				if err := s.snapshots.keep(real, old.Bytes); err != nil && seen == "" {
					return files.Content{}, quire.Failed("What is there now could not be kept, so nothing was overwritten: "+quire.AsError(err).Message, err)
				}
			}
		}
		c, err := s.tree.Write(real, content, want)
		var changed *files.ErrChanged
		switch {
		case (errors.As(err, &changed) || quire.KindOf(err) == quire.KindConflict && want == files.Absent) && in.blind():
			continue // it changed after we looked: keep that as well
		case err != nil:
			return files.Content{}, err
		}
		if err := s.snapshots.keep(real, content); err != nil {
			s.log.Info("no snapshot of what was saved", "err", err)
		}
		return c, nil
	}
	return files.Content{}, quire.Unavailable("Others keep saving this file. Try again in a moment.", nil)
}

// blind reports whether the client said nothing of what it had seen.
func (in *saveRequest) blind() bool {
	return in.Quire.Version == "" && in.Hash == "" && in.LastModified == ""
}

// elsewhere is a version that no file has.
const elsewhere = "other-"

// seen is the version that the client has seen, in the terms of files.Write, or
// "" if it did not say.
func (in *saveRequest) seen(now files.Content) string {
	switch {
	case in.Quire.Version != "":
		return in.Quire.Version
	case in.Hash != "":
		return elsewhere + in.Hash[:min(len(in.Hash), 32)]
	case in.LastModified != "":
		at, err := time.Parse(time.RFC3339Nano, in.LastModified)
		if err == nil && at.Equal(now.Modified.Truncate(time.Microsecond)) {
			return now.Version
		}
		return elsewhere
	}
	return ""
}

// failChanged says that a save would have lost somebody's work, and whose.
func (s *server) failChanged(w http.ResponseWriter, r *http.Request, p string, e *files.ErrChanged) {
	what := "file"
	if path.Ext(p) == ".ipynb" {
		what = "notebook"
	}
	about := object{"at": e.At.UTC().Format(stamp), "gone": e.Gone, "by": nil, "me": false}
	who := "Somebody"
	if e.Known {
		who = s.people.Names(r.Context(), []uint32{e.UID})[e.UID]
		about["by"] = who
		if e.UID == uint32(os.Geteuid()) {
			who, about["me"] = "You", true
		}
	}
	message := fmt.Sprintf("%s changed this %s at %s.", who, what, e.At.Format("15:04"))
	if e.Gone {
		message = "This " + what + " was deleted or renamed meanwhile."
	} else if real, err := s.target(p); err == nil {
		if c, err := s.tree.Read(real, maxParsed); err == nil {
			about["version"] = c.Version
		}
	}
	answer(w, http.StatusConflict, object{"message": message, "reason": nil, "quire": about})
}

func (s *server) servePost(w http.ResponseWriter, r *http.Request, p string) error {
	in, err := readModel(w, r)
	if err != nil {
		return err
	}
	if s.isFile(p) {
		return quire.Invalid("path", "Cannot POST to files, use PUT instead.")
	}
	_, info, err := s.look(p)
	if err != nil {
		return err
	}
	if info.Kind != files.Directory {
		return quire.Invalid("path", "No such directory: "+p)
	}
	if in == nil {
		in = &saveRequest{}
	}
	if in.CopyFrom != "" {
		return s.copy(w, r, p, in.CopyFrom)
	}
	return s.untitled(w, p, in)
}

// untitled makes a new file, notebook or directory with a name nobody has.
func (s *server) untitled(w http.ResponseWriter, dir string, in *saveRequest) error {
	if err := visible(dir); err != nil {
		return err
	}
	kind := in.Type
	if kind == "" {
		kind = "file"
		if in.Ext == ".ipynb" {
			kind = "notebook"
		}
	}
	stem, insert, ext := "untitled", "", in.Ext
	switch kind {
	case "directory":
		stem, insert = "Untitled Folder", " "
	case "notebook":
		stem, ext = "Untitled", ".ipynb"
	case "file":
	default:
		return quire.Invalid("type", "Unexpected model type: "+kind)
	}
	if ext != "" && (files.CheckName("x"+ext) != nil || !utf8.ValidString(ext)) {
		return quire.Invalid("ext", "The ending of a name has no slash: give one like .txt")
	}
	fresh := &saveRequest{Type: kind}
	fresh.fill("")
	var content []byte
	if kind == "notebook" {
		content = fresh.Content
	}
	p, err := s.free(dir, stem+ext, insert, func(p string) error {
		if kind == "directory" {
			return s.tree.Mkdir(p, false)
		}
		_, err := s.tree.Write(p, content, files.Absent)
		return err
	})
	if err != nil {
		return err
	}
	return s.saved(w, http.StatusCreated, p, "", files.Content{})
}

// free calls create with one name after the other until there is nothing of it:
// NAME, NAME1, NAME2 …, with what insert is before the number.
func (s *server) free(dir, name, insert string, create func(p string) error) (string, error) {
	stem, ext := name, ""
	if path.Ext(name) == ".ipynb" {
		stem, ext = strings.TrimSuffix(name, ".ipynb"), ".ipynb"
	} else if i := strings.IndexByte(name, '.'); i >= 0 {
		stem, ext = name[:i], name[i:]
	}
	for i := range 10000 {
		n := name
		if i > 0 {
			n = fmt.Sprintf("%s%s%d%s", stem, insert, i, ext)
		}
		p := path.Join(dir, n)
		if _, err := s.tree.Stat(p); err == nil {
			continue
		}
		err := create(p)
		if quire.KindOf(err) == quire.KindConflict {
			continue
		}
		return p, err
	}
	return "", quire.Conflict("name", "There are thousands of that name already. Choose another one.")
}

// copy copies a file into a directory, or to a path where nothing is.
func (s *server) copy(w http.ResponseWriter, r *http.Request, dir, from string) error {
	from, err := apiPath(from)
	if err != nil {
		return err
	}
	for _, at := range []string{from, dir} {
		if err := visible(at); err != nil {
			return err
		}
	}
	real, info, err := s.look(from)
	if err != nil {
		return err
	}
	if info.Kind == files.Directory {
		return quire.Invalid("copy_from", "Can't copy directories")
	}
	p, err := s.free(dir, copyName(path.Base(from)), "-Copy", func(p string) error {
		_, err := s.tree.Copy(r.Context(), real, s.tree, p, func(files.Progress) {})
		return err
	})
	if err != nil {
		return err
	}
	return s.saved(w, http.StatusCreated, p, "", files.Content{})
}

var copied = regexp.MustCompile(`-Copy\d*\.`)

// copyName is the name that copies of a file are counted from.
func copyName(name string) string { return copied.ReplaceAllString(name, ".") }

func (s *server) servePatch(w http.ResponseWriter, r *http.Request, p string) error {
	in, err := readModel(w, r)
	if err != nil {
		return err
	}
	if in == nil {
		return quire.Invalid("path", "JSON body missing")
	}
	to := p
	if in.Path != "" {
		if to, err = apiPath(in.Path); err != nil {
			return err
		}
	}
	for _, at := range []string{p, to} {
		if err := visible(at); err != nil {
			return err
		}
	}
	if to != p {
		if err := s.tree.Rename(p, s.tree, to); err != nil {
			if quire.KindOf(err) == quire.KindConflict {
				err = &quire.Error{Kind: quire.KindConflict, Message: "File already exists: " + to, Err: err}
			}
			return err
		}
		if err := s.snapshots.rename(p, to); err != nil {
			s.log.Warn("snapshots stay under the old name", "err", err)
		}
	}
	return s.saved(w, http.StatusOK, to, "", files.Content{})
}

// serveDelete deletes for good, as the Workbench does: the page asks before.
func (s *server) serveDelete(w http.ResponseWriter, r *http.Request, p string) error {
	if err := visible(p); err != nil {
		return err
	}
	if p == "" {
		return quire.Invalid("path", "Can't delete root")
	}
	done, err := s.tree.Delete(r.Context(), p, func(files.Progress) {})
	if err != nil {
		return err
	}
	if done.Failed > 0 {
		return quire.Forbidden(fmt.Sprintf("%d entries could not be deleted. The first: %s", done.Failed, strings.ToValidUTF8(done.Errors[0], "\uFFFD")))
	}
	s.snapshots.removeAll(p)
	w.WriteHeader(http.StatusNoContent)
	return nil
}
