package viewer

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
)

// A notebook as people have it: every kind of cell and output.
func TestNotebook(t *testing.T) {
	w := newWorld(t)
	png := base64.StdEncoding.EncodeToString([]byte("\x89PNG\r\n\x1a\n"))
	nb := map[string]any{"nbformat": 4, "metadata": map[string]any{"kernelspec": map[string]any{"display_name": "Python 3", "language": "python"}}, "cells": []any{
		map[string]any{"cell_type": "markdown", "source": []string{"# Head line\n", "with $a_1 + b_1$ and `code`\n\n![p](attachment:p.png)\n\n[to](#Head-line) [up](../top.md) [out](../../../etc/passwd)\n"},
			"attachments": map[string]any{"p.png": map[string]any{"image/png": png}}},
		map[string]any{"cell_type": "code", "execution_count": 7, "source": "def f(x):\n    return x  # note\n", "outputs": []any{
			map[string]any{"output_type": "stream", "name": "stdout", "text": "10%\r100%\nnext\n"},
			map[string]any{"output_type": "stream", "name": "stderr", "text": "warned"},
			map[string]any{"output_type": "error", "ename": "E", "evalue": "v", "traceback": []string{"\x1b[0;31mValueError\x1b[0m: v", "\x1b[38;5;28;01mplain\x1b[0m"}},
			map[string]any{"output_type": "display_data", "data": map[string]any{"image/png": png, "text/plain": "<Figure>"}},
			map[string]any{"output_type": "display_data", "data": map[string]any{"image/svg+xml": "<svg xmlns='http://www.w3.org/2000/svg'/>"}},
			map[string]any{"output_type": "execute_result", "data": map[string]any{"text/html": "<style>x</style><table><tr><th>city</th></tr><tr><td>Oslo</td></tr></table>", "text/plain": "city Oslo"}},
			map[string]any{"output_type": "display_data", "data": map[string]any{"text/latex": "$\\frac{1}{2}$"}},
			map[string]any{"output_type": "display_data", "data": map[string]any{"text/markdown": "**strong words**"}},
			map[string]any{"output_type": "display_data", "data": map[string]any{"application/json": map[string]any{"k": []int{1}}}},
			map[string]any{"output_type": "display_data", "data": map[string]any{"application/vnd.jupyter.widget-view+json": map[string]any{"model_id": "x"}, "text/plain": "IntSlider(value=3)"}},
			map[string]any{"output_type": "display_data", "data": map[string]any{"text/html": "<div id=plot></div><script>draw()</script>", "text/plain": "Figure({})"}},
			map[string]any{"output_type": "display_data", "data": map[string]any{"application/javascript": "draw()"}},
		}},
		map[string]any{"cell_type": "raw", "source": "as <it> is"},
	}}
	raw, err := json.Marshal(nb)
	if err != nil {
		t.Fatal(err)
	}
	w.put("d/e/n.ipynb", string(raw))
	page := w.page("/d/e/n.ipynb")
	for _, want := range []string{
		`id="s-head-line"`, `<span class="math">a_1 + b_1</span>`, `src="data:image/png;base64,` + png, `href="#s-head-line"`, `href="/p/viewer/d/top.md"`,
		`[7]`, `<span class="t-k">def</span>`, `<span class="t-c"># note</span>`, "100%\nnext", `class="text stderr"`, `<span class="fg2">ValueError</span>`, `alt="&lt;Figure&gt;"`,
		`src="data:image/svg+xml;base64,`, `<td>Oslo</td>`, `<div class="math display">\frac{1}{2}</div>`, `<strong>strong words</strong>`, `&#34;k&#34;`,
		"IntSlider(value=3)", "A widget lives in a running notebook only", "An interactive output needs its own scripts", "Figure({})", "This output needs scripts", "as &lt;it&gt; is", "Kernel Python 3",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page has no %s", want)
		}
	}
	for _, wrong := range []string{"10%\r", "city Oslo", "etc/passwd", "draw()", "<style"} {
		if strings.Contains(page, wrong) {
			t.Errorf("the page has %s", wrong)
		}
	}
	w.put("three.ipynb", `{"nbformat":3,"worksheets":[{"cells":[{"cell_type":"heading","level":2,"source":["Old"]},{"cell_type":"code","input":["1+1"],"prompt_number":4,"outputs":[{"output_type":"pyout","text":["2"],"html":["<b>two</b>"]},{"output_type":"stream","stream":"stderr","text":"w"}]}]}]}`)
	if page := w.page("/three.ipynb"); !strings.Contains(page, `<h2 id="s-old">Old</h2>`) || !strings.Contains(page, "<b>two</b>") || !strings.Contains(page, "[4]") {
		t.Errorf("a notebook of format 3: %s", page)
	}
	w.put("not.ipynb", "no notebook")
	if page := w.page("/not.ipynb"); !strings.Contains(page, "This is not a notebook") || !strings.Contains(page, "?download=1") {
		t.Errorf("what is no notebook: %s", page)
	}
	if page := w.page("/not.ipynb?source=1"); !strings.Contains(page, "no notebook</span>") && !strings.Contains(said(t, page), "no notebook") {
		t.Errorf("its source: %s", page)
	}
}

func TestMarkdown(t *testing.T) {
	w := newWorld(t)
	w.put("a b/x.md", "Set\n===\n\n$$\nx\n+ y\n$$\n\n\\begin{align}\na &= b\n\\end{align}\n\nIt costs $5 and $6.\n\n| l | r |\n|:--|--:|\n| 1 | 2 |\n\n~~old~~ https://example.org\n\n"+
		"![there](http://example.org/i.png) ![here](<p q.png>) <kbd>Ctrl</kbd> [n](n.ipynb#Part-2)\n\n```sql\nselect 1 -- one\n```\n\nDone $$z$$ inline.\n")
	page := w.page("/a%20b/x.md")
	for _, want := range []string{
		`<h1 id="s-set">Set</h1>`, "<div class=\"math display\">x\n+ y</div>", "a &amp;= b\n\\end{align}</div>", "It costs $5 and $6.", `<td align="right">2</td>`, "<del>old</del>",
		`<a href="https://example.org" rel="nofollow noreferrer noopener" target="_blank">`, "Image “there” on example.org", `src="/p/viewer/a%20b/p%20q.png?raw=1"`, "<kbd>Ctrl</kbd>",
		`href="/p/viewer/a%20b/n.ipynb#s-part-2"`, `<span class="t-k">select</span>`, `<span class="t-c">-- one</span>`, `<span class="math display">z</span>`,
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page has no %s", want)
		}
	}
	if t.Failed() {
		t.Log(page)
	}
}

func TestSourceAndTables(t *testing.T) {
	w := newWorld(t)
	w.put("a.py", "\"\"\"One\ntwo\"\"\"\r\nx = 1_0 if True else 'a\\'b'  # c\n@dec\nclass A: pass")
	page := w.page("/a.py")
	for _, want := range []string{
		`<span class="line" id="L1">`, `href="#L2"`, `<span class="t-s">two&#34;&#34;&#34;</span>`, `<span class="t-n">1_0</span>`, `<span class="t-v">True</span>`,
		`<span class="t-s">&#39;a\&#39;b&#39;</span>`, `<span class="t-d">@dec</span>`, `<span class="t-f">A</span>`, `id="L5"`,
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page has no %s", want)
		}
	}
	if strings.Contains(page, `id="L6"`) {
		t.Error("there is a sixth line")
	}
	w.put("t.csv", "\uFEFFname;n\n\"a;\n<b>\";1,5\nx;2\n")
	page = w.page("/t.csv")
	for _, want := range []string{`<th scope="col">name</th>`, "<td>a;\n&lt;b&gt;</td>", `<td class="num">2</td>`} {
		if !strings.Contains(page, want) {
			t.Errorf("the table has no %s:\n%s", want, page)
		}
	}
	w.put("long.csv", "n\n"+strings.Repeat("1\n", 5000))
	if page := w.page("/long.csv"); !strings.Contains(page, "Only the first 1000 rows") || strings.Count(page, "<tr>") != 1000 {
		t.Errorf("a long table has %d rows", strings.Count(page, "<tr>"))
	}
	w.put("latin1.txt", "caf\xe9\n")
	if page := w.page("/latin1.txt"); !strings.Contains(page, "caf\uFFFD") {
		t.Errorf("text that is not UTF-8: %s", page)
	}
	w.put("b.dat", "\x00\x01")
	if page := w.page("/b.dat"); !strings.Contains(page, "This file is not text") {
		t.Errorf("what is no text: %s", page)
	}
	w.put("d.pdf", "%PDF-1.4")
	if page := w.page("/d.pdf"); !strings.Contains(page, "PDF documents are not opened") || strings.Contains(page, "?raw=1") {
		t.Errorf("a PDF: %s", page)
	}
}

func TestListing(t *testing.T) {
	w := newWorld(t)
	if page := w.page("/"); !strings.Contains(page, "No files yet") {
		t.Error("an empty project says nothing")
	}
	w.put("b.txt", "x")
	w.put("A.ipynb", strings.Repeat("x", 1500))
	w.put("z/inner", "")
	w.put(".hidden", "")
	w.put("bad\xffname\nline", "odd")
	w.put("100% #1?.md", "# fine")
	page := w.page("/")
	order := []string{">z</a>", ">100% #1?.md</a>", ">A.ipynb</a>", ">b.txt</a>", `>bad\xffname\nline</a>`}
	at := -1
	for _, name := range order {
		i := strings.Index(page, name)
		if i <= at {
			t.Errorf("%s is not where it belongs", name)
		}
		at = i
	}
	if strings.Contains(page, ">.hidden<") || !strings.Contains(page, "1 hidden file.") || !strings.Contains(w.page("/?all=1"), ">.hidden<") {
		t.Error("hidden files")
	}
	if !strings.Contains(page, `href="/p/viewer/bad%FFname%0Aline"`) || !strings.Contains(page, "1.5 kB") {
		t.Error(page)
	}
	if a := w.get("/bad%FFname%0Aline?raw=1"); a.body != "odd" {
		t.Errorf("any bytes: %d %q", a.status, a.body)
	}
	if page := w.page("/100%25%20%231%3F.md"); !strings.Contains(page, ">fine</h1>") {
		t.Error(page)
	}
	if a := w.ask("GET", "/p/viewer"); a.status != http.StatusTemporaryRedirect || a.header.Get("Location") != "viewer/" {
		t.Errorf("without a slash: %d %q", a.status, a.header.Get("Location"))
	}
	if a := w.get("/nothing"); a.status != http.StatusNotFound || !strings.Contains(a.body, "is not here") || !strings.Contains(a.body, "account ada") {
		t.Errorf("a missing file: %d %s", a.status, a.body)
	}
}

func FuzzClean(f *testing.F) {
	for _, v := range vectors {
		f.Add(v)
	}
	l := links{prefix: "/p/viewer", dir: []string{"d"}}
	f.Fuzz(func(t *testing.T, s string) {
		w := &world{t: t}
		h := http.Header{"Content-Security-Policy": {pagePolicy}, "X-Content-Type-Options": {"nosniff"}}
		for what, page := range map[string]string{"HTML": string(clean(s, l)), "Markdown": string(markdown(s, l)), "a terminal": "<pre>" + ansi(s) + "</pre>", "code": "<pre>" + highlight(s, languageNamed("py")) + "</pre>", "markup": "<pre>" + highlight(s, languageNamed("html")) + "</pre>"} {
			w.harmless(what, answer{200, h, page})
		}
	})
}

func FuzzNotebook(f *testing.F) {
	f.Add([]byte(`{"cells":[{"cell_type":"code","source":["a"],"outputs":[{"output_type":"stream","text":"x"}]}]}`))
	f.Add([]byte(`{"worksheets":[{"cells":[{"cell_type":"heading","level":1}]}],"metadata":[]}`))
	l := links{prefix: "/p/viewer"}
	f.Fuzz(func(t *testing.T, raw []byte) {
		page, err := renderNotebook(raw, l)
		if err != nil {
			return
		}
		w := &world{t: t}
		w.harmless("notebook", answer{200, http.Header{"Content-Security-Policy": {pagePolicy}, "X-Content-Type-Options": {"nosniff"}}, string(page)})
	})
}
