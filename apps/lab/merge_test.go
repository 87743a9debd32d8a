package lab

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// nbText makes a notebook of "id=source" words.
func nbText(words string) *notebook {
	nb := newNotebook()
	var cells []object
	for _, w := range strings.Fields(words) {
		id, source, _ := strings.Cut(w, "=")
		cells = append(cells, code(id, source))
	}
	nb.setCells(cells)
	return nb
}

func textOf(nb *notebook) string {
	var words []string
	for _, c := range nb.cells() {
		words = append(words, fmt.Sprintf("%v=%v", c["id"], c["source"]))
	}
	return strings.Join(words, " ")
}

func TestMergeByCell(t *testing.T) {
	for name, c := range map[string]struct {
		base, mine, theirs, want string
		conflicts                []string
	}{
		"nothing":                        {"a=1 b=2", "a=1 b=2", "a=1 b=2", "a=1 b=2", nil},
		"mine alone":                     {"a=1 b=2", "a=9 b=2", "a=1 b=2", "a=9 b=2", nil},
		"theirs alone":                   {"a=1 b=2", "a=1 b=2", "a=1 b=9", "a=1 b=9", nil},
		"different cells":                {"a=1 b=2", "a=9 b=2", "a=1 b=8", "a=9 b=8", nil},
		"the same change":                {"a=1", "a=9", "a=9", "a=9", nil},
		"the same cell":                  {"a=1 b=2", "a=8 b=2", "a=9 b=2", "a=8 b=2", []string{"a source"}},
		"both add":                       {"a=1", "a=1 m=1", "t=1 a=1", "t=1 a=1 m=1", nil},
		"both add at one place":          {"a=1 b=1", "a=1 m=1 b=1", "a=1 t=1 b=1", "a=1 m=1 t=1 b=1", nil},
		"add at the beginning":           {"a=1", "m=1 n=1 a=1", "a=1", "m=1 n=1 a=1", nil},
		"mine deletes":                   {"a=1 b=2 c=3", "a=1 c=3", "a=1 b=2 c=9", "a=1 c=9", nil},
		"theirs delete":                  {"a=1 b=2 c=3", "a=9 b=2 c=3", "a=1 c=3", "a=9 c=3", nil},
		"both delete":                    {"a=1 b=2", "a=1", "a=1", "a=1", nil},
		"mine deletes what they changed": {"a=1 b=2", "a=1", "a=1 b=9", "a=1 b=9", []string{"b cell"}},
		"they delete what I changed":     {"a=1 b=2", "a=1 b=9", "a=1", "a=1 b=9", []string{"b cell"}},
		"mine moves":                     {"a=1 b=2 c=3", "c=3 a=1 b=2", "a=1 b=9 c=3 d=4", "c=3 d=4 a=1 b=9", nil},
		"they move":                      {"a=1 b=2 c=3", "a=9 b=2 c=3", "c=3 b=2 a=1", "c=3 b=2 a=9", nil},
		"everything deleted":             {"a=1 b=2", "", "a=1 b=2", "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			base, mine, theirs := nbText(c.base), nbText(c.mine), nbText(c.theirs)
			got, conflicts := merge(base, mine, theirs)
			var found []string
			for _, x := range conflicts {
				found = append(found, x.Cell+" "+x.Field)
			}
			if textOf(got) != c.want || !slices.Equal(found, c.conflicts) {
				t.Errorf("%s %v, want %s %v", textOf(got), found, c.want, c.conflicts)
			}
			if textOf(base) != c.base || textOf(mine) != c.mine || textOf(theirs) != c.theirs {
				t.Error("a notebook that went in was changed")
			}
		})
	}
}

func TestMergeTakesARunAsAWhole(t *testing.T) {
	run := func(n int, text string) object {
		c := code("a", "x", object{"output_type": "stream", "name": "stdout", "text": text})
		c["execution_count"] = n
		return c
	}
	nb := func(c object) *notebook { return &notebook{book(c)} }
	// They ran it again; I changed the text.
	mine := run(1, "one")
	mine["source"] = "y"
	got, conflicts := merge(nb(run(1, "one")), nb(mine), nb(run(5, "five")))
	cell := got.cell("a")
	if cell["source"] != "y" || cell["execution_count"] != 5 || outputs(cell)[0]["text"] != "five" || len(conflicts) > 0 {
		t.Errorf("%v %v", cell, conflicts)
	}
	// Both ran it.
	got, conflicts = merge(nb(run(1, "one")), nb(run(2, "two")), nb(run(3, "three")))
	if cell = got.cell("a"); outputs(cell)[0]["text"] != "two" || cell["execution_count"] != 2 || len(conflicts) != 1 || conflicts[0].Field != "outputs" {
		t.Errorf("%v %v", cell, conflicts)
	}
}

func TestMergeGoesIntoMetadata(t *testing.T) {
	with := func(meta string) *notebook {
		nb := nbText("a=1")
		var m object
		if err := json.Unmarshal([]byte(meta), &m); err != nil {
			t.Fatal(err)
		}
		nb.doc["metadata"] = m
		return nb
	}
	got, conflicts := merge(with(`{"k": {"n": 1}, "gone": 1}`), with(`{"k": {"n": 1, "m": 2}, "gone": 1}`), with(`{"k": {"n": 3}, "new": 1}`))
	want := object{"k": object{"n": 3.0, "m": 2.0}, "new": 1.0}
	if !reflect.DeepEqual(got.metadata(), want) || len(conflicts) > 0 {
		t.Errorf("%v %v", got.metadata(), conflicts)
	}
	_, conflicts = merge(with(`{"k": {"n": 1}}`), with(`{"k": {"n": 2}}`), with(`{"k": {"n": 3}}`))
	if len(conflicts) != 1 || conflicts[0].Field != "metadata.k.n" || conflicts[0].Theirs != 3.0 {
		t.Errorf("%v", conflicts)
	}
}

// What comes in from another person is not trusted because my cell was.
func TestMergeTrustsNoOutputsOfOthers(t *testing.T) {
	html := func(text string, trusted bool) *notebook {
		c := code("a", "x", object{"output_type": "display_data", "metadata": object{}, "data": object{"text/html": text}})
		c["metadata"] = object{"trusted": trusted}
		return &notebook{book(c)}
	}
	got, _ := merge(html("mine", true), html("mine", true), html("<script>theirs", false))
	cell := got.cell("a")
	if m := cell["metadata"].(object); m["trusted"] != false || got.trusted() {
		t.Errorf("%v", cell)
	}
	got, _ = merge(html("mine", true), html("new", true), html("mine", false))
	if cell := got.cell("a"); cell["metadata"].(object)["trusted"] != true {
		t.Errorf("%v", cell)
	}
}

func TestMergeOverTheWire(t *testing.T) {
	c := newClient(t)
	first := c.ask(201, "PUT", "api/contents/n.ipynb", save(book(code("a", "1"), code("b", "2"))))
	c.ask(200, "PUT", "api/contents/n.ipynb", save(book(code("a", "1"), code("b", "theirs")), "quire", first["quire"]))
	mine := book(code("a", "mine"), code("b", "2"))
	if out := c.ask(409, "PUT", "api/contents/n.ipynb", save(mine, "quire", first["quire"])); out["quire"] == nil {
		t.Fatalf("%v", out)
	}
	m := c.ask(200, "POST", "lab/api/merge/n.ipynb", object{"base": version(first), "mine": mine})
	if m["base"] != true || len(m["conflicts"].([]any)) != 0 {
		t.Fatalf("%v", m)
	}
	c.ask(200, "PUT", "api/contents/n.ipynb", save(m["content"].(object), "quire", m["quire"]))
	if got := c.read("n.ipynb"); !strings.Contains(got, `"mine"`) || !strings.Contains(got, `"theirs"`) {
		t.Error(got)
	}
	// Without the base nothing is lost either: both differ, so it is a conflict.
	m = c.ask(200, "POST", "lab/api/merge/n.ipynb", object{"base": "unknown", "mine": book(code("a", "third"), code("new", "x"))})
	if list := m["conflicts"].([]any); m["base"] != false || len(list) != 1 || list[0].(object)["theirs"] != "mine" {
		t.Errorf("%v", m)
	}
	c.ask(400, "POST", "lab/api/merge/n.ipynb", object{"mine": 1})
	c.ask(404, "POST", "lab/api/merge/none.ipynb", object{"mine": mine})
	c.ask(404, "POST", "lab/api/merge/.hidden.ipynb", object{"mine": mine})
}

// Whatever the three notebooks are: every cell that somebody has and nobody
// deleted is in the result or in a conflict, and nothing is there twice.
func FuzzMerge(f *testing.F) {
	f.Add([]byte("abc"), []byte("acb"), []byte("abd"))
	f.Add([]byte("aab1"), []byte(""), []byte("1aA"))
	f.Fuzz(func(t *testing.T, b, m, th []byte) {
		make := func(text []byte) *notebook {
			nb := newNotebook()
			var cells []object
			for i, c := range text[:min(len(text), 40)] {
				cell := code(string(rune('a'+c%16)), fmt.Sprint(c/16%4))
				if c&128 != 0 {
					delete(cell, "id")
				}
				if c%7 == 0 {
					cell["metadata"] = object{"k": i}
				}
				cells = append(cells, cell)
			}
			nb.setCells(cells)
			return nb
		}
		base, mine, theirs := make(b), make(m), make(th)
		before := bytes.Join([][]byte{base.bytes(), mine.bytes(), theirs.bytes()}, nil)
		got, conflicts := merge(base, mine, theirs)
		if !bytes.Equal(before, bytes.Join([][]byte{base.bytes(), mine.bytes(), theirs.bytes()}, nil)) {
			t.Fatal("a notebook that went in was changed")
		}
		ids, bs, ms, ts := byID(got), byID(base), byID(mine), byID(theirs)
		if len(ids.ids) != len(ids.cell) {
			t.Fatal("a cell is there twice")
		}
		known := map[string]bool{}
		for _, c := range conflicts {
			known[c.Cell] = true
		}
		count := 0
		for _, id := range keys(ms.cell, ts.cell) {
			deleted := bs.has(id) && (!ms.has(id) && same(bs.cell[id], ts.cell[id]) || !ts.has(id) && same(bs.cell[id], ms.cell[id]))
			if !deleted {
				count++
			}
			mine, theirs := ms.cell[id], ts.cell[id]
			if mine != nil && theirs != nil && !same(mine["source"], theirs["source"]) && !same(bs.cell[id]["source"], mine["source"]) && !same(bs.cell[id]["source"], theirs["source"]) && !known[id] {
				t.Fatalf("%s: a conflict that nobody hears of", id)
			}
		}
		if count != len(got.cells()) {
			t.Fatalf("%d cells, want %d", len(got.cells()), count)
		}
		if again, more := merge(base, mine, base); !same(textOf(again), textOf(mine)) || len(more) > 0 {
			t.Fatalf("merged with no change: %s, want %s", textOf(again), textOf(mine))
		}
	})
}
