package lab

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"

	"quire"
)

// maxMerged is how many cells a notebook may have to be merged.
const maxMerged = 10000

// A conflict is where two people changed the same thing in different ways. The
// merged notebook has mine there; nothing of theirs is lost, for it is here.
type conflict struct {
	Cell   string   `json:"cell"`  // its ID; "" for the notebook
	Field  string   `json:"field"` // source, outputs, metadata.KEY …; "cell" if one deleted what the other changed
	Path   []string `json:"path"`  // the same by its keys
	Base   any      `json:"base"`
	Mine   any      `json:"mine"`
	Theirs any      `json:"theirs"`
}

// merge brings together what became of one notebook in two hands. It goes by the
// IDs of cells: what only one changed, added, moved or deleted is taken over.
// Without a base both count as additions, so cells differ or do not.
func merge(base, mine, theirs *notebook) (*notebook, []conflict) {
	if base == nil {
		base = &notebook{object{"cells": []any{}}}
	}
	b, m, t := byID(base), byID(mine), byID(theirs)
	conflicts := []conflict{}
	doc := mergeObject("", nil, without(base.doc, "cells"), without(mine.doc, "cells"), without(theirs.doc, "cells"), &conflicts)
	if number(doc["nbformat_minor"]) < number(theirs.doc["nbformat_minor"]) {
		doc["nbformat_minor"] = theirs.doc["nbformat_minor"]
	}
	kept := map[string]object{}
	for _, id := range keys(m.cell, t.cell) {
		was, my, their := b.cell[id], m.cell[id], t.cell[id]
		switch {
		case my != nil && their != nil:
			kept[id] = mergeCell(id, was, my, their, &conflicts)
		case was == nil: // one of us added it
			kept[id] = either(my, their)
		case my == nil && same(was, their), their == nil && same(was, my):
			// Deleted by one, left alone by the other.
		default:
			kept[id] = either(my, their)
			conflicts = append(conflicts, conflict{Cell: id, Field: "cell", Base: was, Mine: orNull(my), Theirs: orNull(their)})
		}
	}
	out := &notebook{doc}
	cells := []object{}
	for _, id := range order(b.ids, m.ids, t.ids, kept) {
		cells = append(cells, kept[id])
	}
	out.setCells(cells)
	return out, conflicts
}

func orNull(o object) any {
	if o == nil {
		return nil
	}
	return o
}

func either(a, b object) object {
	if a != nil {
		return clone(a)
	}
	return clone(b)
}

func without(o object, names ...string) object {
	out := maps.Clone(o)
	for _, k := range names {
		delete(out, k)
	}
	return out
}

// keys are those of maps together, in order.
func keys[V any](all ...map[string]V) []string {
	in := map[string]bool{}
	for _, m := range all {
		for k := range m {
			in[k] = true
		}
	}
	return slices.Sorted(maps.Keys(in))
}

// identified are the cells of a notebook by what they are known by.
type identified struct {
	ids  []string
	cell map[string]object
}

func (i identified) has(id string) bool { return i.cell[id] != nil }

// byID names cells that have no ID, or one that an earlier cell has, by their
// type and text: the same text is the same cell.
func byID(nb *notebook) identified {
	out := identified{cell: map[string]object{}}
	same := map[string]int{}
	for _, c := range nb.cells() {
		id, _ := c["id"].(string)
		if id == "" || out.has(id) {
			text, _ := c["source"].(string)
			id = fmt.Sprintf("~%v:%s", c["cell_type"], digestBytes([]byte(text)))
			same[id]++
			for id = fmt.Sprintf("%s:%d", id, same[id]); out.has(id); {
				id += "'"
			}
		}
		out.ids = append(out.ids, id)
		out.cell[id] = c
	}
	return out
}

// same compares JSON. Whether the page trusts a cell is not of the cell.
func same(a, b any) bool { return reflect.DeepEqual(plain(a), plain(b)) }

func plain(v any) any {
	switch v := v.(type) {
	case object:
		out := make(object, len(v))
		for k, e := range v {
			if k == "metadata" {
				if m, ok := e.(object); ok {
					e = without(m, "trusted")
				}
			}
			out[k] = plain(e)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = plain(e)
		}
		return out
	case int:
		return json.Number(fmt.Sprint(v))
	}
	return v
}

// mergeCell merges what both have. A run is taken as a whole: its outputs, and
// the number that it had.
func mergeCell(id string, base, mine, theirs object, conflicts *[]conflict) object {
	if base == nil {
		base = object{}
	}
	out := mergeObject(id, nil, without(base, "outputs", "execution_count"), without(mine, "outputs", "execution_count"), without(theirs, "outputs", "execution_count"), conflicts)
	if !isCode(out) {
		return out
	}
	run := func(c object) any { return c["outputs"] }
	from := mine
	switch {
	case same(run(mine), run(theirs)):
		if same(base["execution_count"], mine["execution_count"]) {
			from = theirs
		}
	case same(run(mine), run(base)):
		from = theirs
	case !same(run(theirs), run(base)):
		*conflicts = append(*conflicts, conflict{id, "outputs", []string{"outputs"}, run(base), run(mine), run(theirs)})
	}
	out["outputs"], out["execution_count"] = clone(from["outputs"]), from["execution_count"]
	// Who trusts their own outputs does not trust those that came in.
	if to, ok := out["metadata"].(object); ok {
		m, _ := from["metadata"].(object)
		to["trusted"] = m["trusted"] == true
	}
	return out
}

// mergeObject takes of every key what one side changed; where both did, it goes
// into objects, and else keeps mine and notes the conflict.
func mergeObject(cell string, at []string, base, mine, theirs object, conflicts *[]conflict) object {
	out := object{}
	for _, k := range keys(base, mine, theirs) {
		b, inBase := base[k]
		m, inMine := mine[k]
		t, inTheirs := theirs[k]
		take := func(v any, there bool) {
			if there {
				out[k] = clone(v)
			}
		}
		path := append(slices.Clone(at), k)
		_, mineIs := m.(object)
		_, theirsIs := t.(object)
		switch {
		case inMine == inTheirs && same(m, t), inBase == inTheirs && same(b, t):
			take(m, inMine)
		case inBase == inMine && same(b, m):
			take(t, inTheirs)
		case k == "trusted":
			take(m, inMine)
		case mineIs && theirsIs && len(path) < 5:
			was, _ := b.(object)
			out[k] = mergeObject(cell, path, was, m.(object), t.(object), conflicts)
		default:
			take(m, inMine)
			*conflicts = append(*conflicts, conflict{cell, strings.Join(path, "."), path, b, m, t})
		}
	}
	return out
}

// order puts the kept cells in an order. Whoever moved cells has their order; if
// both did, it is mine. The cells that the other added come after the one they
// stood behind.
func order(base, mine, theirs []string, kept map[string]object) []string {
	first, second := mine, theirs
	if slices.Equal(common(mine, base, theirs), common(base, mine, theirs)) {
		first, second = theirs, mine
	}
	out := []string{}
	place := map[string]bool{}
	for _, id := range first {
		if kept[id] != nil && !place[id] {
			out, place[id] = append(out, id), true
		}
	}
	before := ""
	for _, id := range second {
		if kept[id] == nil {
			continue
		}
		if !place[id] {
			at := slices.Index(out, before) + 1 // 0 for the first
			out, place[id] = slices.Insert(out, at, id), true
		}
		before = id
	}
	return out
}

// common is a list without what is missing in one of the others.
func common(list, a, b []string) []string {
	in := map[string]int{}
	for _, id := range a {
		in[id] |= 1
	}
	for _, id := range b {
		in[id] |= 2
	}
	out := []string{}
	for _, id := range list {
		if in[id] == 3 {
			out = append(out, id)
		}
	}
	return out
}

// serveMerge merges what a page has with what is on disk. It writes nothing: the
// page shows the result, and saves it with the version in the answer.
func (s *server) serveMerge(w http.ResponseWriter, r *http.Request) error {
	p, err := apiPath(r.PathValue("path"))
	if err != nil {
		return err
	}
	if hidden(p) {
		return quire.NotFound("file")
	}
	var in struct {
		Base string // what mine began from: its version, or the hash of the file
		Mine json.RawMessage
	}
	if err := ask(w, r, maxBody, &in); err != nil {
		return err
	}
	v, err := decode(in.Mine)
	if err != nil {
		return quire.Invalid("mine", "Give the notebook as it is in the page in mine.")
	}
	mine, err := notebookOf(v)
	if err != nil {
		return err
	}
	real, info, err := s.look(p)
	if err != nil {
		return err
	}
	c, err := s.tree.Read(real, maxParsed)
	if err != nil {
		return err
	}
	theirs, err := readNotebook(c.Bytes)
	if err != nil {
		return err
	}
	var base *notebook
	digest := in.Base[:min(len(in.Base), 32)] // ours is the beginning of the hash
	if _, d, ok := strings.Cut(in.Base, "-"); ok {
		digest = d
	}
	if digest != "" {
		if b, err := s.snapshots.find(real, digest); err == nil {
			base, _ = readNotebook(b)
		}
	}
	if max(len(mine.cells()), len(theirs.cells())) > maxMerged {
		return quire.Failed(fmt.Sprintf("A notebook of more than %d cells cannot be merged. Save yours under another name.", maxMerged), nil)
	}
	theirs.mark(s.trust.knows(theirs))
	merged, conflicts := merge(base, mine, theirs)
	answer(w, http.StatusOK, object{
		"content": merged.doc, "conflicts": conflicts, "base": base != nil,
		"quire": s.about(r.Context(), real, c.Version, info),
	})
	return nil
}
