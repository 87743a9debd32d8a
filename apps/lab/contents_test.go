package lab

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
)

// book is a notebook of code cells, each with an ID, a text and perhaps outputs.
func book(cells ...object) object {
	list := make([]any, len(cells))
	for i, c := range cells {
		list[i] = c
	}
	return object{"cells": list, "metadata": object{}, "nbformat": 4, "nbformat_minor": 5}
}

func code(id, source string, outputs ...any) object {
	if outputs == nil {
		outputs = []any{}
	}
	return object{"cell_type": "code", "id": id, "metadata": object{}, "source": source, "outputs": outputs, "execution_count": nil}
}

func save(content object, more ...any) object {
	m := object{"type": "notebook", "format": "json", "content": content}
	for i := 0; i+1 < len(more); i += 2 {
		m[more[i].(string)] = more[i+1]
	}
	return m
}

func version(m object) string { return m["quire"].(object)["version"].(string) }

func TestANotebookIsSavedAsPythonWouldAndReadBack(t *testing.T) {
	c := newClient(t)
	nb := book(code("a", "x = 1\nx", object{"output_type": "stream", "name": "stdout", "text": "1\n2"}))
	nb["metadata"].(object)["later"] = object{"z": 1.5, "a": "ü\u2028<&>"}
	c.ask(201, "PUT", "api/contents/a%20b.ipynb", save(nb))
	want := "{\n \"cells\": [\n  {\n   \"cell_type\": \"code\",\n   \"execution_count\": null,\n   \"id\": \"a\",\n   \"metadata\": {},\n" +
		"   \"outputs\": [\n    {\n     \"name\": \"stdout\",\n     \"output_type\": \"stream\",\n     \"text\": [\n      \"1\\n\",\n      \"2\"\n     ]\n    }\n   ],\n" +
		"   \"source\": [\n    \"x = 1\\n\",\n    \"x\"\n   ]\n  }\n ],\n \"metadata\": {\n  \"later\": {\n   \"a\": \"ü\u2028<&>\",\n   \"z\": 1.5\n  }\n },\n" +
		" \"nbformat\": 4,\n \"nbformat_minor\": 5\n}\n"
	if got := c.read("a b.ipynb"); got != want {
		t.Errorf("on disk:\n%s\nwant:\n%s", got, want)
	}
	m := c.ask(200, "GET", "api/contents/a%20b.ipynb?hash=1", nil)
	cell := m["content"].(object)["cells"].([]any)[0].(object)
	if cell["source"] != "x = 1\nx" || m["format"] != "json" || m["mimetype"] != nil || len(m["hash"].(string)) != 64 {
		t.Errorf("%v", m)
	}
	if cell["metadata"].(object)["trusted"] != true {
		t.Error("a notebook without rich outputs that was saved here is not trusted")
	}
}

func TestNothingIsOverwrittenUnseen(t *testing.T) {
	c := newClient(t)
	first := c.ask(201, "PUT", "api/contents/n.ipynb", save(book(code("a", "1"))))
	theirs := c.ask(200, "PUT", "api/contents/n.ipynb", save(book(code("a", "2")), "quire", first["quire"]))
	for name, claim := range map[string]object{
		"version":       {"quire": first["quire"]},
		"hash":          {"hash": strings.Repeat("0", 64)},
		"last_modified": {"last_modified": "2020-01-01T00:00:00.000000Z"},
	} {
		m := save(book(code("a", "3")))
		for k, v := range claim {
			m[k] = v
		}
		out := c.ask(409, "PUT", "api/contents/n.ipynb", m)
		about := out["quire"].(object)
		if !strings.HasPrefix(out["message"].(string), "You changed this notebook at ") || about["me"] != true || about["version"] != version(theirs) {
			t.Errorf("%s: %v", name, out)
		}
	}
	if !strings.Contains(c.read("n.ipynb"), `"2"`) {
		t.Error("overwritten")
	}
	// By hash and by time, as a client that read what is there has them.
	now := c.ask(200, "GET", "api/contents/n.ipynb?hash=1", nil)
	c.ask(200, "PUT", "api/contents/n.ipynb", save(book(code("a", "4")), "hash", now["hash"]))
	now = c.ask(200, "GET", "api/contents/n.ipynb?content=0", nil)
	c.ask(200, "PUT", "api/contents/n.ipynb", save(book(code("a", "5")), "last_modified", now["last_modified"]))

	// A client that knows nothing of versions overwrites; what was there is kept.
	c.write("n.ipynb", string((&notebook{book(code("a", "of another program"))}).bytes()))
	c.ask(200, "PUT", "api/contents/n.ipynb", save(book(code("a", "6"))))
	_, b := c.do("GET", "api/contents/n.ipynb/checkpoints", nil)
	var list []object
	if err := json.Unmarshal(b, &list); err != nil {
		t.Fatalf("%s: %v", b, err)
	}
	found := ""
	for _, sn := range list {
		m := c.ask(200, "GET", "api/contents/n.ipynb/checkpoints/"+sn["id"].(string), nil)
		if cell := m["content"].(object)["cells"].([]any)[0].(object); cell["source"] == "of another program" {
			found = sn["id"].(string)
		}
	}
	if found == "" {
		t.Fatalf("what another program wrote is lost: %d snapshots", len(list))
	}
	c.ask(204, "POST", "api/contents/n.ipynb/checkpoints/"+found, nil)
	if !strings.Contains(c.read("n.ipynb"), "of another program") {
		t.Error("not restored")
	}
	c.ask(204, "DELETE", "api/contents/n.ipynb/checkpoints/"+found, nil)
	c.ask(404, "POST", "api/contents/n.ipynb/checkpoints/"+found, nil)
	if err := os.Remove(c.project + "/n.ipynb"); err != nil {
		t.Fatal(err)
	}
	out := c.ask(409, "PUT", "api/contents/n.ipynb", save(book(code("a", "7")), "quire", first["quire"]))
	if out["quire"].(object)["gone"] != true {
		t.Errorf("%v", out)
	}
}

func TestTheServerWritesOutputsByCell(t *testing.T) {
	c := newClient(t)
	m := c.ask(201, "PUT", "api/contents/n.ipynb", save(book(code("a", "1"), code("b", "2"))))
	rounds := 0
	err := c.server.rewriteNotebook("n.ipynb", func(nb *notebook) bool {
		rounds++
		if rounds == 1 { // somebody saves in between
			c.ask(200, "PUT", "api/contents/n.ipynb", save(book(code("a", "changed"), code("b", "2")), "quire", m["quire"]))
		}
		cell := nb.cell("b")
		cell["outputs"] = []any{object{"output_type": "stream", "name": "stdout", "text": "two\n"}}
		cell["execution_count"] = 7
		return true
	})
	if err != nil || rounds != 2 {
		t.Fatal(rounds, err)
	}
	if got := c.read("n.ipynb"); !strings.Contains(got, "changed") || !strings.Contains(got, `"two\n"`) || !strings.Contains(got, `"execution_count": 7`) {
		t.Error(got)
	}
	before := c.read("n.ipynb")
	if err := c.server.rewriteNotebook("n.ipynb", func(nb *notebook) bool { return nb.cell("gone") != nil }); err != nil || c.read("n.ipynb") != before {
		t.Error(err)
	}
}

// A run of many cells without a page leaves what people saved among the snapshots.
func TestManyCellsDoNotPushOutWhatWasSaved(t *testing.T) {
	c := newClient(t)
	c.ask(201, "PUT", "api/contents/n.ipynb", save(book(code("a", "mine"))))
	for i := range 3 * shelfNewest {
		if err := c.server.rewriteNotebook("n.ipynb", func(nb *notebook) bool {
			nb.cell("a")["execution_count"] = i
			return true
		}); err != nil {
			t.Fatal(err)
		}
	}
	if list := c.snapshots("n.ipynb"); len(list) != 1 {
		t.Errorf("%d snapshots of what nobody has seen", len(list))
	}
	// Somebody opens it: from here on that is what they work on.
	m := c.ask(200, "GET", "api/contents/n.ipynb", nil)
	if err := c.server.rewriteNotebook("n.ipynb", func(nb *notebook) bool { nb.cell("a")["execution_count"] = 99; return true }); err != nil {
		t.Fatal(err)
	}
	merged := c.ask(200, "POST", "lab/api/merge/n.ipynb", object{"base": version(m), "mine": m["content"]})
	if merged["base"] != true || len(merged["conflicts"].([]any)) != 0 {
		t.Errorf("%v", merged)
	}
}
