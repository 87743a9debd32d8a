package viewer

import (
	"bytes"
	"encoding/json"
	"fmt"
	"html/template"
	"strconv"
	"strings"

	"quire"
)

// Limits of a notebook's page. What is beyond is named, not shown.
const (
	maxCells   = 5_000
	maxOutputs = 200       // of one cell
	maxText    = 512 << 10 // bytes of one text output
	maxMarkup  = 4 << 20   // bytes of one HTML or Markdown output, one cell's source
	maxPage    = 48 << 20  // bytes of HTML in all
)

// notebook is what the page uses of a notebook's file, formats 3 and 4.
type notebook struct {
	Cells      json.RawMessage `json:"cells"`
	Worksheets []struct {
		Cells json.RawMessage `json:"cells"`
	} `json:"worksheets"`
	Metadata struct {
		Kernel struct {
			Title    words `json:"display_name"`
			Language words `json:"language"`
		} `json:"kernelspec"`
		Language struct {
			Name    words `json:"name"`
			Version words `json:"version"`
		} `json:"language_info"`
	} `json:"metadata"`
}

type cell struct {
	Kind        words             `json:"cell_type"`
	Source      words             `json:"source"`
	Input       words             `json:"input"` // format 3
	Level       json.Number       `json:"level"` // format 3, headings
	Count       any               `json:"execution_count"`
	Prompt      any               `json:"prompt_number"` // format 3
	Outputs     []json.RawMessage `json:"outputs"`
	Attachments map[string]bundle `json:"attachments"`
}

type output struct {
	Kind      words   `json:"output_type"`
	Name      words   `json:"name"`
	Stream    words   `json:"stream"` // format 3
	Text      words   `json:"text"`
	Data      bundle  `json:"data"`
	Error     words   `json:"ename"`
	Value     words   `json:"evalue"`
	Traceback []words `json:"traceback"`
	Count     any     `json:"execution_count"`
}

// bundle is one thing in several formats, by media type.
type bundle map[string]words

// words is text that a notebook has as one string or as a list of lines.
// Anything else is kept as its JSON, so that no file is refused for it.
type words string

func (w *words) UnmarshalJSON(raw []byte) error {
	raw = bytes.TrimSpace(raw)
	var one string
	var lines []string
	switch {
	case len(raw) > 0 && raw[0] == '"' && json.Unmarshal(raw, &one) == nil:
		*w = words(one)
	case len(raw) > 0 && raw[0] == '[' && json.Unmarshal(raw, &lines) == nil:
		*w = words(strings.Join(lines, ""))
	case string(raw) != "null":
		*w = words(raw)
	}
	return nil
}

// writer collects a page and stops when it is too large.
type writer struct {
	b    strings.Builder
	full bool
}

func (w *writer) put(parts ...template.HTML) {
	for _, p := range parts {
		if w.full = w.full || w.b.Len()+len(p) > maxPage; w.full {
			return
		}
		w.b.WriteString(string(p))
	}
}

func note(format string, args ...any) template.HTML {
	return `<p class="note">` + escaped(fmt.Sprintf(format, args...)) + `</p>`
}

func renderNotebook(raw []byte, l links) (template.HTML, error) {
	var n notebook
	if err := json.Unmarshal(raw, &n); err != nil {
		return "", &quire.Error{Kind: quire.KindInvalid, Message: "This is not a notebook: " + jsonTrouble(err) + ".", Err: err}
	}
	if n.Cells == nil && len(n.Worksheets) > 0 {
		n.Cells = n.Worksheets[0].Cells
	}
	if n.Cells == nil {
		return "", quire.Invalid("", "This is not a notebook: it has no cells.")
	}
	lang := languageNamed(string(n.Metadata.Language.Name))
	if lang == nil {
		lang = languageNamed(string(n.Metadata.Kernel.Language))
	}
	if lang == nil {
		lang = languageNamed("python")
	}
	var w writer
	if title := strings.TrimSpace(string(n.Metadata.Kernel.Title)); title != "" {
		w.put(`<p class="facts">Kernel `, escaped(shown(cut(title, 100))), `</p>`)
	}
	w.put(`<div class="cells">`)
	d := json.NewDecoder(bytes.NewReader(n.Cells))
	if t, err := d.Token(); err != nil || t != json.Delim('[') {
		return "", quire.Invalid("", "This is not a notebook: its cells are no list.")
	}
	shownCells := 0
	for ; d.More() && shownCells < maxCells && !w.full; shownCells++ {
		var c cell
		if err := d.Decode(&c); err != nil {
			w.put(note("Cell %d cannot be read.", shownCells+1))
			if _, isType := err.(*json.UnmarshalTypeError); !isType {
				break
			}
			continue
		}
		w.cell(c, lang, l)
	}
	more := d.More()
	full := w.full
	w.full = false
	if full || more {
		w.b.WriteString(string(note("Too large to render: only the first %d cells are shown.", shownCells)))
	} else if shownCells == 0 {
		w.put(note("This notebook has no cells yet."))
	}
	w.b.WriteString("</div>")
	return built(w.b.String()), nil
}

func jsonTrouble(err error) string {
	if e, ok := err.(*json.SyntaxError); ok {
		return fmt.Sprintf("it is not JSON from byte %d on", e.Offset)
	}
	return "its parts are not where they belong"
}

func (w *writer) cell(c cell, lang *language, l links) {
	l.attached = func(name string) string {
		for kind, data := range c.Attachments[name] {
			if kind == "image/svg+xml" {
				continue // attachments are base64, this one would be a document
			}
			if src := picture(kind, string(data)); src != "" {
				return src
			}
		}
		return ""
	}
	source := string(c.Source)
	if source == "" {
		source = string(c.Input)
	}
	if len(source) > maxMarkup {
		w.put(note("A cell of %s is too large to show.", size(int64(len(source)))))
		return
	}
	switch c.Kind {
	case "markdown":
		w.put(`<section class="cell text prose">`, markdown(source, l), `</section>`)
	case "heading":
		level, err := strconv.Atoi(string(c.Level))
		if err != nil || level < 1 || level > 6 {
			level = 1
		}
		w.put(`<section class="cell text prose">`, markdown(strings.Repeat("#", level)+" "+strings.ReplaceAll(source, "\n", " "), l), `</section>`)
	case "code":
		count := c.Count
		if count == nil {
			count = c.Prompt
		}
		w.put(`<section class="cell code"><div class="prompt">`, prompt(count), `</div><div class="body"><pre class="source" tabindex="0"><code>`,
			built(highlight(source, lang)), `</code></pre>`)
		if len(c.Outputs) > 0 {
			w.put(`<div class="outputs">`)
			for i, raw := range c.Outputs {
				if i == maxOutputs {
					w.put(note("%d more outputs of this cell are not shown.", len(c.Outputs)-i))
					break
				}
				w.output(raw, l)
			}
			w.put(`</div>`)
		}
		w.put(`</div></section>`)
	default:
		w.put(`<section class="cell raw"><pre tabindex="0">`, escaped(source), `</pre></section>`)
	}
}

func prompt(count any) template.HTML {
	if n, ok := count.(float64); ok && n >= 0 && n < 1e9 {
		return built("[" + strconv.Itoa(int(n)) + "]")
	}
	return "[ ]"
}

func (w *writer) output(raw json.RawMessage, l links) {
	var o output
	if err := json.Unmarshal(raw, &o); err != nil {
		w.put(note("An output cannot be read."))
		return
	}
	switch o.Kind {
	case "stream":
		class := "text"
		if o.Name == "stderr" || o.Stream == "stderr" {
			class = "text stderr"
		}
		w.text(class, string(o.Text))
	case "error", "pyerr":
		lines := make([]string, len(o.Traceback))
		for i, t := range o.Traceback {
			lines[i] = string(t)
		}
		if len(lines) == 0 {
			lines = []string{string(o.Error) + ": " + string(o.Value)}
		}
		w.text("text error", strings.Join(lines, "\n"))
	case "display_data", "execute_result", "update_display_data", "pyout":
		if o.Data == nil {
			o.Data = dataOfThree(raw)
		}
		w.data(o.Data, l)
	default:
		w.put(note("An output of a kind that is not known here."))
	}
}

// dataOfThree reads an output of format 3, whose formats are keys of its own.
func dataOfThree(raw json.RawMessage) bundle {
	var all map[string]words
	if json.Unmarshal(raw, &all) != nil {
		return nil
	}
	b := bundle{}
	for key, kind := range map[string]string{"html": "text/html", "svg": "image/svg+xml", "png": "image/png", "jpeg": "image/jpeg", "latex": "text/latex", "text": "text/plain"} {
		if all[key] != "" {
			b[kind] = all[key]
		}
	}
	return b
}

func (w *writer) text(class, text string) {
	over := len(text) - maxText
	text = cut(text, maxText)
	w.put(`<pre class="`, escaped(class), `" tabindex="0">`, built(ansi(text)), `</pre>`)
	if over > 0 {
		w.put(note("%s more of this output are not shown.", size(int64(over))))
	}
}

// data shows the richest format that can be shown without running anything.
func (w *writer) data(b bundle, l links) {
	l.attached = nil
	_, widget := b["application/vnd.jupyter.widget-view+json"]
	if widget {
		w.put(note("A widget lives in a running notebook only; this is what it left behind."))
	}
	tooLarge := false
	for _, kind := range []string{"text/html", "image/svg+xml", "image/png", "image/jpeg", "image/gif", "image/webp", "text/latex", "text/markdown"} {
		s := string(b[kind])
		if strings.TrimSpace(s) == "" {
			continue
		}
		if !strings.HasPrefix(kind, "image/") && len(s) > maxMarkup {
			tooLarge = true
			continue
		}
		switch kind {
		case "text/html":
			if widget && b["text/plain"] != "" {
				continue
			}
			if h := clean(s, l); says(h) {
				w.put(`<div class="rich prose" tabindex="0">`, h, `</div>`)
				return
			}
		case "text/markdown":
			w.put(`<div class="rich prose" tabindex="0">`, markdown(s, l), `</div>`)
			return
		case "text/latex":
			tex, display := strings.TrimSpace(s), true
			for _, fence := range []string{"$$", "$"} {
				if len(tex) >= 2*len(fence) && strings.HasPrefix(tex, fence) && strings.HasSuffix(tex, fence) {
					tex = tex[len(fence) : len(tex)-len(fence)]
					break
				}
			}
			if len(tex) > maxTeX {
				tooLarge = true
				continue
			}
			w.put(`<div class="rich" tabindex="0">`, built(formula("div", tex, display)), `</div>`)
			return
		default:
			if src := picture(kind, s); src != "" {
				alt := "Output image"
				if plain := strings.TrimSpace(string(b["text/plain"])); plain != "" && len(plain) < 200 {
					alt = shown(plain)
				}
				w.put(`<p class="picture"><img alt="`, escaped(alt), `" src="`, escaped(src), `"></p>`)
				return
			}
		}
	}
	if plain := string(b["text/plain"]); plain != "" {
		if _, interactive := b["text/html"]; interactive && !widget && !tooLarge {
			w.put(note("An interactive output needs its own scripts, which do not run here. Open the notebook in Notebook to see it."))
		}
		w.text("text", plain)
		return
	}
	if s := string(b["application/json"]); s != "" {
		var pretty bytes.Buffer
		if len(s) <= maxText && json.Indent(&pretty, []byte(s), "", "  ") == nil {
			s = pretty.String()
		}
		w.put(`<pre class="text" tabindex="0">`, built(highlight(cut(s, maxText), languageNamed("json"))), `</pre>`)
		return
	}
	switch {
	case tooLarge:
		w.put(note("This output is too large to show."))
	case len(b) > 0 && !widget:
		w.put(note("This output needs scripts or a program of its own, which do not run here. Open the notebook in Notebook to see it."))
	}
}

// cut shortens text to at most n bytes without cutting a character.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "")
}
