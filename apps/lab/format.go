package lab

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
)

var idForm = regexp.MustCompile(`^[a-zA-Z0-9_-]{1,64}$`)

// invalid says what is wrong with a notebook by the schema of format 4, or
// nothing. Such a notebook is opened and saved all the same, as Jupyter does: the
// page shows the sentence.
func (nb *notebook) invalid() string {
	wrong := func(format string, args ...any) string {
		return "Notebook validation failed: " + fmt.Sprintf(format, args...)
	}
	minor := number(nb.doc["nbformat_minor"])
	if minor < 0 {
		return wrong("nbformat_minor is not a number from 0.")
	}
	if nb.metadata() == nil {
		return wrong("the notebook has no metadata.")
	}
	for k := range nb.doc {
		if k != "metadata" && k != "nbformat" && k != "nbformat_minor" && k != "cells" {
			return wrong("%q is unknown at the top.", k)
		}
	}
	seen := map[string]bool{}
	for i, c := range nb.cells() {
		if what := wrongCell(c, minor); what != "" {
			return wrong("cell %d: %s", i+1, what)
		}
		if id, ok := c["id"].(string); ok && minor >= 5 {
			if seen[id] {
				return wrong("cell %d: the ID %q is another cell's too.", i+1, id)
			}
			seen[id] = true
		}
	}
	return ""
}

// cellKeys are the fields that a cell has to have, and those that it may have.
var cellKeys = map[string][2]string{
	"code":     {"cell_type metadata source outputs execution_count", ""},
	"markdown": {"cell_type metadata source", "attachments"},
	"raw":      {"cell_type metadata source", "attachments"},
}

func wrongCell(c object, minor int64) string {
	kind, _ := c["cell_type"].(string)
	keys, ok := cellKeys[kind]
	if !ok {
		return fmt.Sprintf("its type is %q.", kind)
	}
	if minor >= 5 {
		if id, ok := c["id"].(string); !ok || !idForm.MatchString(id) {
			return "its ID is missing, or has more than letters, digits, - and _."
		}
	}
	if what := wrongKeys(c, keys[0], keys[1]+" id"); what != "" {
		return what
	}
	if _, ok := c["metadata"].(object); !ok {
		return "its metadata is no object."
	}
	if !isText(c["source"]) {
		return "its source is no text."
	}
	if kind != "code" {
		return ""
	}
	if !isCount(c["execution_count"]) {
		return "its execution_count is no number from 0."
	}
	list, ok := c["outputs"].([]any)
	if !ok {
		return "its outputs are no list."
	}
	for i, o := range list {
		o, ok := o.(object)
		if !ok {
			return fmt.Sprintf("output %d is no object.", i+1)
		}
		if what := wrongOutput(o); what != "" {
			return fmt.Sprintf("output %d: %s", i+1, what)
		}
	}
	return ""
}

func wrongOutput(o object) string {
	switch o["output_type"] {
	case "execute_result", "display_data":
		need := "output_type data metadata"
		if o["output_type"] == "execute_result" {
			need += " execution_count"
			if _, there := o["execution_count"]; there && !isCount(o["execution_count"]) {
				return "its execution_count is no number from 0."
			}
		}
		if what := wrongKeys(o, need, ""); what != "" {
			return what
		}
		if _, ok := o["metadata"].(object); !ok {
			return "its metadata is no object."
		}
		data, ok := o["data"].(object)
		if !ok {
			return "its data is no object."
		}
		for mime, v := range data {
			if mime != "application/json" && !strings.HasSuffix(mime, "+json") && !isText(v) {
				return fmt.Sprintf("its %s is no text.", mime)
			}
		}
	case "stream":
		if what := wrongKeys(o, "output_type name text", ""); what != "" {
			return what
		}
		if _, ok := o["name"].(string); !ok || !isText(o["text"]) {
			return "its name or text is no text."
		}
	case "error":
		if what := wrongKeys(o, "output_type ename evalue traceback", ""); what != "" {
			return what
		}
		if _, ok := o["traceback"].([]any); !ok {
			return "its traceback is no list."
		}
	default:
		return fmt.Sprintf("its type is %v.", o["output_type"])
	}
	return ""
}

func wrongKeys(o object, need, may string) string {
	known := map[string]bool{}
	for _, k := range strings.Fields(need) {
		if _, ok := o[k]; !ok {
			return fmt.Sprintf("%s is missing.", k)
		}
		known[k] = true
	}
	for _, k := range strings.Fields(may) {
		known[k] = true
	}
	for k := range o {
		if !known[k] {
			return fmt.Sprintf("%q is unknown there.", k)
		}
	}
	return ""
}

func isText(v any) bool {
	if list, ok := v.([]any); ok {
		for _, e := range list {
			if _, ok := e.(string); !ok {
				return false
			}
		}
		return true
	}
	_, ok := v.(string)
	return ok
}

func isCount(v any) bool { return v == nil || number(v) >= 0 }

// upgrade3 brings a notebook of format 3 up to 4, as far as there are cells.
func upgrade3(doc object) {
	cells := []any{}
	sheets, _ := doc["worksheets"].([]any)
	for _, sheet := range sheets {
		sheet, _ := sheet.(object)
		list, _ := sheet["cells"].([]any)
		for _, c := range list {
			if c, ok := c.(object); ok {
				upgradeCell(c)
				cells = append(cells, c)
			}
		}
	}
	delete(doc, "worksheets")
	metadata, ok := doc["metadata"].(object)
	if !ok {
		metadata = object{}
	}
	delete(metadata, "name")
	// The page tells the person that saving will convert it.
	metadata["orig_nbformat"], metadata["orig_nbformat_minor"] = doc["nbformat"], doc["nbformat_minor"]
	doc["metadata"], doc["cells"] = metadata, cells
	doc["nbformat"], doc["nbformat_minor"] = json.Number("4"), json.Number("4")
}

func upgradeCell(c object) {
	metadata, ok := c["metadata"].(object)
	if !ok {
		metadata = object{}
		c["metadata"] = metadata
	}
	switch c["cell_type"] {
	case "code":
		move(c, "input", c, "source")
		move(c, "prompt_number", c, "execution_count")
		if _, ok := c["execution_count"]; !ok {
			c["execution_count"] = nil
		}
		if _, ok := c["collapsed"]; ok {
			move(c, "collapsed", metadata, "collapsed")
		}
		delete(c, "language")
		if _, ok := c["outputs"].([]any); !ok {
			c["outputs"] = []any{}
		}
		for _, o := range outputs(c) {
			upgradeOutput(o)
		}
	case "heading":
		level := number(c["level"])
		if level < 1 || level > 6 {
			level = 1
		}
		joinAt(c, "source")
		text, _ := c["source"].(string)
		c["cell_type"], c["source"] = "markdown", strings.Repeat("#", int(level))+" "+strings.Join(strings.Fields(text), " ")
		delete(c, "level")
	case "html":
		c["cell_type"] = "markdown"
	}
	if _, ok := c["source"]; !ok {
		c["source"] = ""
	}
}

func move(from object, key string, to object, newKey string) {
	if v, ok := from[key]; ok {
		delete(from, key)
		to[newKey] = v
	}
}

// mimeOf3 are the short names that format 3 had.
var mimeOf3 = map[string]string{
	"text": "text/plain", "html": "text/html", "svg": "image/svg+xml", "png": "image/png", "jpeg": "image/jpeg",
	"latex": "text/latex", "json": "application/json", "javascript": "application/javascript",
}

func upgradeOutput(o object) {
	switch o["output_type"] {
	case "pyout", "display_data":
		if o["output_type"] == "pyout" {
			o["output_type"] = "execute_result"
			if move(o, "prompt_number", o, "execution_count"); o["execution_count"] == nil {
				o["execution_count"] = nil
			}
		}
		data := object{}
		for k := range o {
			if k != "output_type" && k != "execution_count" && k != "metadata" {
				mime := mimeOf3[k]
				if mime == "" {
					mime = k
				}
				move(o, k, data, mime)
			}
		}
		o["data"] = data
		if _, ok := o["metadata"].(object); !ok {
			o["metadata"] = object{}
		}
	case "pyerr":
		o["output_type"] = "error"
	case "stream":
		if move(o, "stream", o, "name"); o["name"] == nil {
			o["name"] = "stdout"
		}
		delete(o, "metadata")
	}
}
