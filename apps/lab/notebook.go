package lab

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"unicode/utf8"

	"quire"
	"quire/apps/files"
)

// A notebook as its readers see it: texts are whole, not lists of lines. All of
// its JSON is kept, so what we do not know survives.
type notebook struct{ doc object }

// readNotebook reads a notebook of format 4, or of format 3, which it brings up
// to 4 as nbformat does.
func readNotebook(b []byte) (*notebook, error) {
	v, err := decode(b)
	var ours *quire.Error
	if errors.As(err, &ours) {
		return nil, err
	}
	if err != nil {
		return nil, &quire.Error{Kind: quire.KindInvalid, Message: "Unreadable notebook: it is not whole JSON (" + jsonTrouble(err) + "). Open it with the editor to repair it, or restore a snapshot.", Err: err}
	}
	return notebookOf(v)
}

func jsonTrouble(err error) string {
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		return fmt.Sprintf("%v at byte %d", err, syntax.Offset)
	}
	return err.Error()
}

// notebookOf makes a notebook of parsed JSON, which it takes over.
func notebookOf(v any) (*notebook, error) {
	doc, ok := v.(object)
	if !ok {
		return nil, quire.Invalid("content", "Unreadable notebook: it is no JSON object. Open it with the editor to see what it is.")
	}
	strip(doc)
	if major := number(doc["nbformat"]); major == 3 {
		upgrade3(doc)
	} else if major != 4 {
		return nil, quire.Invalid("content", fmt.Sprintf("Unreadable notebook: its format is %v, and only 3 and 4 are known here. Convert it with the program that made it.", doc["nbformat"]))
	}
	cells, ok := doc["cells"].([]any)
	if !ok {
		return nil, quire.Invalid("content", "Unreadable notebook: it has no list of cells. Open it with the editor to repair it.")
	}
	for i, c := range cells {
		if _, ok := c.(object); !ok {
			return nil, quire.Invalid("content", fmt.Sprintf("Unreadable notebook: cell %d is no object. Open it with the editor to repair it.", i+1))
		}
	}
	nb := &notebook{doc}
	nb.join()
	return nb, nil
}

// strip takes out of metadata what is never kept.
func strip(doc object) {
	if metadata, ok := doc["metadata"].(object); ok {
		delete(metadata, "orig_nbformat")
		delete(metadata, "orig_nbformat_minor")
		delete(metadata, "signature")
	}
}

// newNotebook is an empty one.
func newNotebook() *notebook {
	return &notebook{object{"cells": []any{}, "metadata": object{}, "nbformat": 4, "nbformat_minor": 5}}
}

func number(v any) int64 {
	switch v := v.(type) {
	case json.Number:
		n, err := v.Int64()
		if err == nil {
			return n
		}
	case int:
		return int64(v)
	}
	return -1
}

// cells are the cells in their order. Changing one changes the notebook.
func (nb *notebook) cells() []object {
	list, _ := nb.doc["cells"].([]any)
	out := make([]object, len(list))
	for i, c := range list {
		out[i], _ = c.(object)
	}
	return out
}

func (nb *notebook) setCells(cells []object) {
	list := make([]any, len(cells))
	for i, c := range cells {
		list[i] = c
	}
	nb.doc["cells"] = list
}

// cell is the cell of an ID, nil if there is none.
func (nb *notebook) cell(id string) object {
	for _, c := range nb.cells() {
		if c["id"] == id && id != "" {
			return c
		}
	}
	return nil
}

func (nb *notebook) metadata() object {
	m, _ := nb.doc["metadata"].(object)
	return m
}

func isCode(cell object) bool { return cell["cell_type"] == "code" }

// outputs are the outputs of a cell that are objects, which all should be.
func outputs(cell object) []object {
	list, _ := cell["outputs"].([]any)
	out := make([]object, 0, len(list))
	for _, o := range list {
		if o, ok := o.(object); ok {
			out = append(out, o)
		}
	}
	return out
}

// join makes texts whole that files keep as lists of lines.
func (nb *notebook) join() {
	for _, c := range nb.cells() {
		joinAt(c, "source")
		attachments, _ := c["attachments"].(object)
		for _, a := range attachments {
			joinBundle(a)
		}
		if !isCode(c) {
			continue
		}
		for _, o := range outputs(c) {
			switch o["output_type"] {
			case "execute_result", "display_data":
				joinBundle(o["data"])
			default:
				joinAt(o, "text")
			}
		}
	}
}

func joinAt(o object, key string) {
	list, ok := o[key].([]any)
	if !ok {
		return
	}
	var b strings.Builder
	for _, line := range list {
		s, ok := line.(string)
		if !ok {
			return
		}
		b.WriteString(s)
	}
	o[key] = b.String()
}

func joinBundle(v any) {
	bundle, _ := v.(object)
	for mime := range bundle {
		if mime != "application/json" && (!strings.HasPrefix(mime, "application/") || !strings.HasSuffix(mime, "+json")) {
			joinAt(bundle, mime)
		}
	}
}

// bytes is the notebook as a file has it: texts in lines, and nothing in it that
// is only between server and page.
func (nb *notebook) bytes() []byte {
	doc := clone(nb.doc)
	strip(doc)
	out := &notebook{doc}
	for _, c := range out.cells() {
		if m, ok := c["metadata"].(object); ok {
			delete(m, "trusted")
		}
		splitAt(c, "source")
		attachments, _ := c["attachments"].(object)
		for _, a := range attachments {
			splitBundle(a)
		}
		if !isCode(c) {
			continue
		}
		for _, o := range outputs(c) {
			switch o["output_type"] {
			case "execute_result", "display_data":
				splitBundle(o["data"])
			case "stream":
				splitAt(o, "text")
			}
		}
	}
	return encode(doc)
}

// clone copies objects and lists; texts and numbers do not change.
func clone[T any](v T) T {
	switch v := any(v).(type) {
	case object:
		out := make(object, len(v))
		for k, e := range v {
			out[k] = clone(e)
		}
		return any(out).(T)
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = clone(e)
		}
		return any(out).(T)
	}
	return v
}

func splitAt(o object, key string) {
	if s, ok := o[key].(string); ok {
		o[key] = splitLines(s)
	}
}

func splitBundle(v any) {
	bundle, _ := v.(object)
	for mime := range bundle {
		if strings.HasPrefix(mime, "text/") || mime == "application/javascript" || mime == "image/svg+xml" {
			splitAt(bundle, mime)
		}
	}
}

// splitLines ends lines where Python does, which is not at \n alone.
func splitLines(s string) []any {
	out := []any{}
	from := 0
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		i += n
		switch r {
		case '\r':
			if i < len(s) && s[i] == '\n' {
				i++
			}
		case '\n', '\v', '\f', 0x1c, 0x1d, 0x1e, 0x85, 0x2028, 0x2029:
		default:
			continue
		}
		out = append(out, s[from:i])
		from = i
	}
	if from < len(s) {
		out = append(out, s[from:])
	}
	return out
}

// rewriteNotebook changes a notebook on disk for the server itself, which has
// outputs for it and no browser to save them. change is called with what is
// there and says whether it changed it; if somebody else saves meanwhile, it is
// called again with that. What was there stays as a snapshot, and a notebook that
// this person trusted stays trusted.
func (s *server) rewriteNotebook(path string, change func(nb *notebook) (changed bool)) error {
	path, err := s.target(path)
	if err != nil {
		return err
	}
	for range 20 {
		c, err := s.tree.Read(path, maxParsed)
		if err != nil {
			return err
		}
		nb, err := readNotebook(c.Bytes)
		if err != nil {
			return err
		}
		trusted := s.trust.knows(nb)
		if !change(nb) {
			return nil
		}
		if _, ours := s.rewritten.known(path, c.Info); ours {
			// Nobody has seen it: a run of many cells would push out what people saved.
		} else if err := s.snapshots.keep(path, c.Bytes); err != nil {
			s.log.Warn("no snapshot", "path", path, "err", err)
		}
		now, err := s.tree.Write(path, nb.bytes(), c.Version)
		var changed *files.ErrChanged
		if errors.As(err, &changed) {
			continue
		}
		if err == nil {
			s.rewritten.note(path, c, now)
		}
		if err == nil && trusted {
			s.trust.sign(nb)
		}
		return err
	}
	return quire.Unavailable("Others keep saving this notebook. Try again in a moment.", nil)
}

// rewrites are the notebooks that the server itself has written since anybody
// read them. A page that comes back has the outputs too, from the kernel, so what
// is asked about such a file before a save is answered as for the file that pages
// know: nobody else has changed it.
type rewrites struct {
	mu   sync.Mutex
	last map[string]rewrite
}

type rewrite struct {
	version        string // that we wrote
	hash, modified string // of what was there before
}

const maxRewrites = 1000

func (r *rewrites) note(path string, before, now files.Content) {
	sum := sha256.Sum256(before.Bytes)
	w := rewrite{version: now.Version, hash: hex.EncodeToString(sum[:]), modified: before.Modified.UTC().Format(stamp)}
	r.mu.Lock()
	defer r.mu.Unlock()
	if old, ok := r.last[path]; ok && old.version == before.Version {
		w.hash, w.modified = old.hash, old.modified
	}
	if r.last == nil || len(r.last) > maxRewrites {
		r.last = map[string]rewrite{}
	}
	r.last[path] = w
}

// known is the rewrite of a file that is still as we wrote it.
func (r *rewrites) known(path string, now files.Info) (rewrite, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	w, ok := r.last[path]
	return w, ok && strings.HasPrefix(w.version, now.Version+"-")
}

// read forgets a rewrite: somebody has the file as it is.
func (r *rewrites) read(path string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.last, path)
}
