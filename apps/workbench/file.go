package workbench

import (
	"cmp"
	"context"
	"errors"
	"io"
	"mime"
	"net/http"
	"os"
	"path"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"quire"
	"quire/apps"
	"quire/apps/files"
)

const (
	maxText = 8 << 20 // bytes of a file that the editor opens
	pageLen = 10000   // entries of a directory sent at once
)

type rootJSON struct {
	ID    string `json:"id"`
	Title string `json:"title"`
	Path  string `json:"path"`
	Fixed bool   `json:"fixed"`
	Only  bool   `json:"only,omitempty"`
}

func rootOut(r *root) rootJSON {
	path, _ := wireName(r.tree.Path)
	title, _ := wireName(r.Title)
	return rootJSON{ID: r.ID, Title: title, Path: path, Fixed: r.Fixed, Only: r.tree.Only() != ""}
}

func (b *bench) serveRoots(w http.ResponseWriter, r *http.Request) error {
	out := []rootJSON{}
	for _, r := range b.shown() {
		out = append(out, rootOut(r))
	}
	uid := uint32(os.Geteuid())
	return answer(w, map[string]any{"roots": out, "me": uid, "name": b.people.Names(r.Context(), []uint32{uid})[uid]})
}

func (b *bench) serveShow(w http.ResponseWriter, r *http.Request) error {
	var in struct{ Path string }
	if err := ask(w, r, &in); err != nil {
		return err
	}
	shown, err := b.show(in.Path)
	if err != nil {
		return err
	}
	return answer(w, rootOut(shown))
}

func (b *bench) serveHide(w http.ResponseWriter, r *http.Request) error {
	if err := b.hide(r.PathValue("id")); err != nil {
		return err
	}
	return answer(w, struct{}{})
}

// entryJSON has short names: there may be ten thousand of them.
type entryJSON struct {
	Name string     `json:"n"`
	Raw  string     `json:"r,omitempty"`
	Kind files.Kind `json:"k"`
	Size int64      `json:"s,omitempty"`
	Time int64      `json:"t"` // milliseconds
	Mode uint32     `json:"m"`
	UID  uint32     `json:"u"`
	GID  uint32     `json:"g"`
	Link uint64     `json:"l,omitempty"` // hard links, if more than one
}

func entryOut(e files.Entry) entryJSON {
	out := entryJSON{Kind: e.Kind, Size: e.Size, Time: e.Modified.UnixMilli(), Mode: e.Mode, UID: e.UID, GID: e.GID}
	out.Name, out.Raw = wireName(e.Name)
	if e.Kind == files.File && e.Links > 1 {
		out.Link = e.Links
	}
	return out
}

func (b *bench) serveList(w http.ResponseWriter, r *http.Request) error {
	t, p, err := b.asked(r)
	if err != nil {
		return err
	}
	after, err := unwire(r.URL.Query().Get("after"))
	if err != nil {
		return err
	}
	list, more, err := t.List(p, after, pageLen)
	if err != nil {
		return err
	}
	out := make([]entryJSON, len(list))
	var uids []uint32
	for i, e := range list {
		out[i] = entryOut(e)
		if i == 0 || e.UID != list[i-1].UID {
			uids = append(uids, e.UID)
		}
	}
	next := ""
	if more {
		next = wirePath(list[len(list)-1].Name)
	}
	return answer(w, map[string]any{"entries": out, "next": next, "people": b.people.Names(r.Context(), uids)})
}

func (b *bench) serveStat(w http.ResponseWriter, r *http.Request) error {
	t, p, err := b.asked(r)
	if err != nil {
		return err
	}
	info, err := t.Stat(p)
	if err != nil {
		return err
	}
	target, _ := wireName(info.Target)
	full, _ := wireName(path.Join(t.Path, p))
	if t.Only() != "" {
		full, _ = wireName(t.Path)
	}
	return answer(w, map[string]any{
		"entry": entryOut(info.Entry), "version": info.Version, "writable": info.Writable, "readable": info.Readable,
		"target": target, "leads": wirePath(info.Leads), "out": info.LeadsOut, "to": info.To, "full": full,
		"owner": b.people.Names(r.Context(), []uint32{info.UID})[info.UID], "group": b.people.Groups(r.Context(), []uint32{info.GID})[info.GID],
	})
}

func (b *bench) serveRead(w http.ResponseWriter, r *http.Request) error {
	t, p, err := b.asked(r)
	if err != nil {
		return err
	}
	c, err := t.Read(p, maxText)
	if err != nil {
		return err
	}
	if !utf8.Valid(c.Bytes) || slices.Contains(c.Bytes[:min(len(c.Bytes), 8000)], 0) {
		return quire.Failed("This is not a text file in UTF-8, so it cannot be edited here. Download it instead.", nil)
	}
	return answer(w, map[string]any{"text": string(c.Bytes), "version": c.Version, "writable": c.Writable, "entry": entryOut(c.Entry)})
}

// changedJSON is the answer to a save that would have lost somebody's work.
type changedJSON struct {
	By   string `json:"by,omitempty"`
	Me   bool   `json:"me,omitempty"`
	At   int64  `json:"at"` // milliseconds
	Gone bool   `json:"gone,omitempty"`
}

func (b *bench) serveWrite(w http.ResponseWriter, r *http.Request) error {
	t, p, err := b.asked(r)
	if err != nil {
		return err
	}
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxText))
	if err != nil {
		return err
	}
	c, err := t.Write(p, text, r.URL.Query().Get("version"))
	var other *files.ErrChanged
	if errors.As(err, &other) {
		out := changedJSON{At: other.At.UnixMilli(), Gone: other.Gone}
		if other.Known {
			out.By, out.Me = b.people.Names(r.Context(), []uint32{other.UID})[other.UID], other.UID == uint32(os.Geteuid())
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusPreconditionFailed)
		return answer(w, map[string]any{"changed": out})
	}
	if err != nil {
		return err
	}
	return answer(w, map[string]any{"version": c.Version, "entry": entryOut(c.Entry)})
}

func (b *bench) serveMkdir(w http.ResponseWriter, r *http.Request) error {
	t, p, err := b.asked(r)
	if err != nil {
		return err
	}
	if err := t.Mkdir(p, r.URL.Query().Has("parents")); err != nil {
		return err
	}
	return answer(w, struct{}{})
}

func (b *bench) serveRename(w http.ResponseWriter, r *http.Request) error {
	t, p, err := b.asked(r)
	if err != nil {
		return err
	}
	to, err := unwire(r.URL.Query().Get("to"))
	if err != nil {
		return err
	}
	if err := t.Rename(p, t, to); err != nil {
		return err
	}
	return answer(w, struct{}{})
}

// A stream is an answer in lines: how far the work is, and at last its end. The
// work ends when the page goes away or cancels the request.
type stream struct {
	w    http.ResponseWriter
	last time.Time
}

func (s *stream) begin() {
	s.w.Header().Set("Content-Type", "application/x-ndjson")
	s.w.WriteHeader(http.StatusOK)
	s.last = time.Now()
	http.NewResponseController(s.w).Flush()
}

type progressJSON struct {
	Items  int64    `json:"items"`
	Bytes  int64    `json:"bytes"`
	Failed int64    `json:"failed"`
	Errors []string `json:"errors,omitempty"`
	Done   bool     `json:"done,omitempty"`
	Error  string   `json:"error,omitempty"`
}

func (s *stream) report(p files.Progress) {
	if time.Since(s.last) > 200*time.Millisecond {
		s.last = time.Now()
		answer(s.w, progressJSON{Items: p.Items, Bytes: p.Bytes, Failed: p.Failed})
		http.NewResponseController(s.w).Flush()
	}
}

func (s *stream) end(p files.Progress, err error) error {
	out := progressJSON{Items: p.Items, Bytes: p.Bytes, Failed: p.Failed, Errors: p.Errors, Done: true}
	for i := range out.Errors {
		out.Errors[i] = strings.ToValidUTF8(out.Errors[i], "\uFFFD")
	}
	if err != nil {
		out.Error = quire.AsError(err).Message
		if errors.Is(err, context.Canceled) {
			return err
		}
	}
	answer(s.w, out)
	if quire.KindOf(err) == quire.KindInternal {
		return err // for the log
	}
	return nil
}

func sum(all *files.Progress, p files.Progress) {
	all.Items += p.Items
	all.Bytes += p.Bytes
	all.Failed += p.Failed
	all.Errors = append(all.Errors, p.Errors...)
}

// serveCopy copies or moves entries into a directory. A copy beside the original
// gets a name of its own; anything else never replaces what is there.
func (b *bench) serveCopy(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		From struct {
			Root  string
			Paths []string
		}
		To struct{ Root, Path string }
		// Move deletes what was copied, or renames if that is possible.
		Move bool
	}
	if err := ask(w, r, &in); err != nil {
		return err
	}
	to, dir, err := b.place(in.To.Root, in.To.Path)
	if err != nil {
		return err
	}
	from, err := b.root(in.From.Root)
	if err != nil {
		return err
	}
	s := &stream{w: w}
	s.begin()
	var all files.Progress
	for _, wire := range in.From.Paths {
		p, err := unwire(wire)
		if err == nil {
			err = b.carry(r.Context(), from, p, to, dir, in.Move, &all, s)
		}
		if err != nil {
			return s.end(all, err)
		}
	}
	return s.end(all, nil)
}

func (b *bench) carry(ctx context.Context, from *files.Tree, p string, to *files.Tree, dir string, move bool, all *files.Progress, s *stream) error {
	name := path.Base(p)
	target := name
	if dir != "" {
		target = dir + "/" + name
	}
	if move {
		err := from.Rename(p, to, target)
		if err == nil {
			all.Items++
			return nil
		}
		if quire.KindOf(err) != quire.KindFailed {
			return err
		}
	} else if free, err := to.Free(dir, name); err != nil {
		return err
	} else {
		target = path.Join(dir, free)
	}
	base := *all
	report := func(now files.Progress) {
		sumed := base
		sum(&sumed, now)
		s.report(sumed)
	}
	done, err := from.Copy(ctx, p, to, target, report)
	sum(all, done)
	if err != nil || !move {
		return err
	}
	if done.Failed > 0 {
		return quire.Failed("Not everything could be copied to the other disk, so nothing was deleted here.", nil)
	}
	_, err = from.Delete(ctx, p, func(files.Progress) {})
	return err
}

func (b *bench) serveDelete(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		Root  string
		Paths []string
	}
	if err := ask(w, r, &in); err != nil {
		return err
	}
	t, err := b.root(in.Root)
	if err != nil {
		return err
	}
	s := &stream{w: w}
	s.begin()
	var all files.Progress
	for _, wire := range in.Paths {
		p, err := unwire(wire)
		if err != nil {
			return s.end(all, err)
		}
		base := all
		done, err := t.Delete(r.Context(), p, func(now files.Progress) {
			sumed := base
			sum(&sumed, now)
			s.report(sumed)
		})
		sum(&all, done)
		if err != nil {
			return s.end(all, err)
		}
	}
	return s.end(all, nil)
}

// serveRaw sends a file as it is, also in parts.
func (b *bench) serveRaw(w http.ResponseWriter, r *http.Request) error {
	t, p, err := b.asked(r)
	if err != nil {
		return err
	}
	f, e, err := t.Open(p)
	if err != nil {
		return err
	}
	defer f.Close()
	apps.ServeFile(w, r, e.Name, e.Modified, f, r.URL.Query().Has("download"))
	return nil
}

func (b *bench) servePrepare(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		Root, Path string
		Names      []string
		Format     string
	}
	if err := ask(w, r, &in); err != nil {
		return err
	}
	t, dir, err := b.place(in.Root, in.Path)
	if err != nil {
		return err
	}
	if in.Format != "zip" && in.Format != "tar" {
		return quire.Invalid("format", "An archive is a zip or a tar.")
	}
	a := archive{root: in.Root, dir: dir, tar: in.Format == "tar"}
	for _, n := range in.Names {
		name, err := unwire(n)
		if err == nil {
			err = files.CheckName(name)
		}
		if err == nil {
			_, err = t.Stat(path.Join(dir, name))
		}
		if err != nil {
			return err
		}
		a.names = append(a.names, name)
	}
	if len(a.names) == 0 {
		return quire.Invalid("names", "Choose something to download first.")
	}
	id, err := b.prepare(a)
	if err != nil {
		return err
	}
	return answer(w, map[string]string{"id": id})
}

func (b *bench) serveArchive(w http.ResponseWriter, r *http.Request) error {
	a, err := b.prepared(r.PathValue("id"))
	if err != nil {
		return err
	}
	t, err := b.root(a.root)
	if err != nil {
		return err
	}
	name := cmp.Or(path.Base(a.dir), "files")
	if a.dir == "" {
		name = path.Base(t.Path)
	}
	if len(a.names) == 1 {
		name = a.names[0]
	}
	kind, ext, pack := "application/zip", ".zip", t.Zip
	if a.tar {
		kind, ext, pack = "application/x-tar", ".tar", t.Tar
	}
	h := w.Header()
	h.Set("Content-Security-Policy", "sandbox; default-src 'none'")
	h.Set("Content-Type", mime.FormatMediaType(kind, nil))
	h.Set("Content-Disposition", apps.Disposition("attachment", name+ext))
	if err := pack(r.Context(), w, a.dir, a.names); err != nil {
		// The connection is cut, so that nobody takes half of it for the whole.
		b.log.Info("an archive was cut off", "err", err)
		panic(http.ErrAbortHandler)
	}
	return nil
}
