package lab

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

func TestNothingOutsideIsReached(t *testing.T) {
	c := newClient(t)
	outside := filepath.Dir(c.project) + "/outside"
	if err := os.WriteFile(outside, []byte("secret"), 0o644); err != nil {
		t.Fatal(err)
	}
	os.Symlink(outside, c.project+"/link")
	os.Symlink("..", c.project+"/up")
	os.Symlink("loop", c.project+"/loop")
	os.Mkdir(c.project+"/dir", 0o755)
	os.Symlink("dir", c.project+"/inside")
	c.write("dir/file.txt", "in")
	for _, p := range []string{"link", "up/outside", "loop", "..%2foutside", "%2e%2e/outside", "dir/%2e%2e/%2e%2e/outside", "%2fetc%2fpasswd", "inside/%2e%2e/%2e%2e/outside"} {
		for _, at := range []string{"api/contents/" + p, "files/" + p} {
			answer, b := c.do("GET", at, nil)
			if answer.StatusCode < 300 || bytes.Contains(b, []byte("secret")) {
				t.Errorf("GET %s: %d %s", at, answer.StatusCode, b)
			}
		}
		for _, method := range []string{"PUT", "PATCH", "DELETE", "POST"} {
			in := object{"type": "file", "format": "text", "content": "changed", "path": p}
			if method == "DELETE" && !strings.Contains(p, "/") && !strings.Contains(p, "%2f") {
				continue // the link itself may be deleted
			}
			if answer, b := c.do(method, "api/contents/"+p, in); answer.StatusCode < 300 {
				t.Errorf("%s %s: %d %s", method, p, answer.StatusCode, b)
			}
		}
		if answer, b := c.do("POST", "lab/api/merge/"+p, object{"mine": book()}); answer.StatusCode < 300 || bytes.Contains(b, []byte("secret")) {
			t.Errorf("merge %s: %s", p, b)
		}
	}
	if b, err := os.ReadFile(outside); string(b) != "secret" {
		t.Errorf("%s %v", b, err)
	}
	c.ask(400, "POST", "api/contents", object{"copy_from": "../outside"})
	c.ask(403, "POST", "api/contents", object{"copy_from": "link"})
	c.ask(400, "PATCH", "api/contents/dir/file.txt", object{"path": "../stolen"})
	// A link that stays inside is what it leads to, to read and to write.
	c.ask(200, "PUT", "api/contents/inside/file.txt", object{"type": "file", "format": "text", "content": "new"})
	if c.read("dir/file.txt") != "new" {
		t.Error("not written through the link")
	}
	os.Symlink("dir/file.txt", c.project+"/alias.txt")
	c.ask(200, "PUT", "api/contents/alias.txt", object{"type": "file", "format": "text", "content": "newer"})
	if info, err := os.Lstat(c.project + "/alias.txt"); c.read("dir/file.txt") != "newer" || err != nil || info.Mode().Type() != os.ModeSymlink {
		t.Error("the link became a file")
	}
}

func TestHiddenFilesAreLeftOut(t *testing.T) {
	c := newClient(t)
	os.Mkdir(c.project+"/.git", 0o755)
	c.write(".git/config", "x")
	c.write(".secret", "x")
	c.write("a.pyc", "x")
	c.write("b~", "x")
	c.write("seen.txt", "x")
	var names []string
	for _, e := range c.ask(200, "GET", "api/contents", nil)["content"].([]any) {
		names = append(names, e.(object)["name"].(string))
	}
	if fmt.Sprint(names) != "[seen.txt]" {
		t.Error(names)
	}
	for _, p := range []string{".secret", ".git", ".git/config", "%2esecret"} {
		c.ask(404, "GET", "api/contents/"+p, nil)
		c.ask(404, "GET", "files/"+p, nil)
		c.ask(400, "PUT", "api/contents/"+p, object{"type": "file", "format": "text", "content": "y"})
		c.ask(400, "DELETE", "api/contents/"+p, nil)
		c.ask(400, "PATCH", "api/contents/"+p, object{"path": "out"})
		c.ask(400, "PATCH", "api/contents/seen.txt", object{"path": ".x/y"})
		c.ask(400, "POST", "api/contents", object{"copy_from": strings.ReplaceAll(p, "%2e", ".")})
	}
}

func TestNamesThatAreNotText(t *testing.T) {
	c := newClient(t)
	for _, name := range []string{"a b?#%.txt", "%2e%2e", "-rf", "日本 ü.txt", `"<img src=x>'`, "a\nb", "checkpoints", "trust"} {
		at := "api/contents/" + strings.ReplaceAll((&pathURL{name}).String(), "+", "%20")
		c.ask(201, "PUT", at, object{"type": "file", "format": "text", "content": "x"})
		if m := c.ask(200, "GET", at, nil); m["name"] != name || m["content"] != "x" {
			t.Errorf("%q: %v", name, m)
		}
		if _, b := c.do("GET", "files/"+(&pathURL{name}).String(), nil); string(b) != "x" {
			t.Errorf("%q: %s", name, b)
		}
		c.ask(204, "DELETE", at, nil)
	}
	if out := c.ask(404, "GET", "api/nonsense", nil); out["message"] == nil {
		t.Errorf("%v", out)
	}
	c.write("bad\xff.txt", "x")
	m := c.ask(200, "GET", "api/contents", nil)["content"].([]any)[0].(object)
	if m["name"] != "bad\uFFFD.txt" || m["writable"] != false {
		t.Errorf("%v", m)
	}
	for _, p := range []string{"bad%ff.txt", "bad%EF%BF%BD.txt"} {
		if out := c.ask(400, "GET", "api/contents/"+p, nil); !strings.Contains(out["message"].(string), "not UTF-8") {
			t.Errorf("%v", out)
		}
	}
	c.ask(400, "PUT", "api/contents/"+strings.Repeat("a", 300), object{"type": "file", "format": "text", "content": "x"})
	c.ask(400, "PUT", "api/contents/a%00b", object{"type": "file", "format": "text", "content": "x"})
}

type pathURL struct{ name string }

func (p *pathURL) String() string {
	var b strings.Builder
	for _, c := range []byte(p.name) {
		fmt.Fprintf(&b, "%%%02X", c)
	}
	return b.String()
}

func TestOtherOriginsAreRefused(t *testing.T) {
	c := newClient(t)
	c.write("a.txt", "x")
	body := object{"type": "file", "format": "text", "content": "changed"}
	for _, header := range [][]string{{"Origin", "http://elsewhere.test"}, {"Origin", "null"}, {"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"}} {
		for _, method := range []string{"PUT", "POST", "PATCH", "DELETE"} {
			c.ask(403, method, "api/contents/a.txt", body, header...)
		}
		c.ask(403, "POST", "lab/api/merge/a.ipynb", body, header...)
		c.ask(403, "PUT", "lab/api/workspaces/default", body, header...)
	}
	for _, at := range []string{"api/contents/a.txt", "lab/api/workspaces", "files/a.txt"} {
		c.ask(403, "GET", at, nil, "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "no-cors")
	}
	c.ask(403, "GET", "api/contents/a.txt", nil, "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate")
	if c.read("a.txt") != "x" {
		t.Error("changed")
	}
}

func TestFilesAreServedSoThatNothingRuns(t *testing.T) {
	c := newClient(t)
	for name, want := range map[string][2]string{
		"a.html": {"application/octet-stream", "attachment"}, "a.svg": {"image/svg+xml", "attachment"}, "a.js": {"application/octet-stream", "attachment"},
		"a.ipynb": {"application/octet-stream", "attachment"}, "a.png": {"image/png", "inline"}, "a.pdf": {"application/pdf", "inline"},
	} {
		c.write(name, "0123456789")
		answer, b := c.do("GET", "files/"+name, nil, "Range", "bytes=2-4")
		h := answer.Header
		if answer.StatusCode != 206 || string(b) != "234" || h.Get("Content-Type") != want[0] || !strings.HasPrefix(h.Get("Content-Disposition"), want[1]) || h.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %d %s %v", name, answer.StatusCode, b, h)
		}
		if p := h.Get("Content-Security-Policy"); !strings.Contains(p, "sandbox") && !strings.Contains(p, "script-src 'none'") {
			t.Errorf("%s: %s", name, p)
		}
	}
}

// Malformed and oversized notebooks are refused in words, cheaply, and stay as
// they are.
func TestHostileNotebooks(t *testing.T) {
	c := newClient(t)
	for name, text := range map[string]string{
		"empty": "", "half": `{"cells": [`, "list": `[]`, "null": `null`, "no cells": `{"nbformat": 4}`, "cells of numbers": `{"nbformat": 4, "cells": [1]}`,
		"cells no list": `{"nbformat": 4, "cells": {}}`, "format 5": `{"nbformat": 5, "cells": []}`, "format text": `{"nbformat": "4", "cells": []}`,
		"two":             `{"nbformat": 4, "cells": []} {}`,
		"deep":            `{"nbformat": 4, "cells": [], "metadata": {"a": ` + strings.Repeat("[", 100000) + strings.Repeat("]", 100000) + "}}",
		"many":            `{"nbformat": 4, "cells": [], "metadata": {"a": [` + strings.Repeat("0,", maxValues) + "0]}}",
		"not UTF-8 alone": "\xff\xfe",
	} {
		c.write("n.ipynb", text)
		if out := c.ask(400, "GET", "api/contents/n.ipynb", nil); len(out["message"].(string)) < 20 || out["reason"] != nil {
			t.Errorf("%s: %v", name, out)
		}
		if json.Valid([]byte(text)) {
			c.ask(400, "PUT", "api/contents/n.ipynb", `{"type": "notebook", "content": `+text+`}`)
		}
		if c.read("n.ipynb") != text {
			t.Errorf("%s was changed", name)
		}
		if err := c.server.rewriteNotebook("n.ipynb", func(*notebook) bool { return true }); err == nil {
			t.Errorf("%s: rewritten", name)
		}
		// The editor can still open it.
		if text != "" && len(text) < 1000 {
			c.ask(200, "GET", "api/contents/n.ipynb?type=file", nil)
		}
	}
	// What is wrong in small things is opened and said.
	for _, cell := range []string{`{}`, `{"cell_type": "code"}`, `{"cell_type": 1, "metadata": 1, "source": 1}`, `{"cell_type": "code", "metadata": [], "outputs": 1, "source": [1]}`,
		`{"cell_type": "code", "metadata": {}, "outputs": [1, {}, {"output_type": "display_data", "data": 1}, {"output_type": "stream", "text": [1]}], "source": "", "attachments": [], "execution_count": "x"}`} {
		c.write("n.ipynb", `{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [`+cell+`]}`)
		m := c.ask(200, "GET", "api/contents/n.ipynb", nil)
		if !strings.HasPrefix(m["message"].(string), "Notebook validation failed: cell 1: ") {
			t.Errorf("%s: %v", cell, m["message"])
		}
		c.ask(200, "PUT", "api/contents/n.ipynb", save(m["content"].(object)))
		c.ask(200, "POST", "lab/api/merge/n.ipynb", object{"mine": m["content"]})
		c.ask(201, "POST", "api/contents/n.ipynb/trust", nil)
	}
	// A gigabyte, of which nothing is read.
	if err := os.Truncate(c.project+"/n.ipynb", 1<<30); err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for _, at := range []string{"", "?type=file", "?type=file&format=base64"} {
		if out := c.ask(400, "GET", "api/contents/n.ipynb"+at, nil); !strings.Contains(out["message"].(string), "Download it instead") {
			t.Errorf("%v", out)
		}
	}
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 50<<20 {
		t.Errorf("%d bytes for what is refused", grown)
	}
	c.ask(200, "GET", "api/contents/n.ipynb?content=0", nil)
	// A body that never ends.
	answer, b := c.do("PUT", "api/contents/m.ipynb", &endless{left: maxBody + 10})
	if answer.StatusCode != 400 || !bytes.Contains(b, []byte("too much to be saved at once")) {
		t.Errorf("%d %.200s", answer.StatusCode, b)
	}
}

type endless struct{ left int }

func (e *endless) Read(b []byte) (int, error) {
	if e.left <= 0 {
		return 0, io.EOF
	}
	n := min(len(b), e.left)
	for i := range b[:n] {
		b[i] = ' '
	}
	e.left -= n
	return n, nil
}

func TestChunks(t *testing.T) {
	c := newClient(t)
	c.write("big.bin", "what was there")
	chunk := func(n int, text string) object {
		return object{"type": "file", "format": "base64", "chunk": n, "content": base64.StdEncoding.EncodeToString([]byte(text))}
	}
	c.ask(409, "PUT", "api/contents/big.bin", chunk(2, "x"))
	c.ask(200, "PUT", "api/contents/big.bin", chunk(1, "lost"))
	c.ask(200, "PUT", "api/contents/big.bin", chunk(1, "one "))
	if c.read("big.bin") != "what was there" {
		t.Error("half a file is seen")
	}
	c.ask(409, "PUT", "api/contents/big.bin", chunk(3, "too soon"))
	c.ask(200, "PUT", "api/contents/big.bin", chunk(2, "two "))
	if m := c.ask(200, "PUT", "api/contents/big.bin", chunk(-1, "three")); m["size"] != 13.0 {
		t.Errorf("%v", m)
	}
	if got := c.read("big.bin"); got != "one two three" {
		t.Error(got)
	}
	// What it replaced is kept.
	if list := c.server.snapshots.list("big.bin"); len(list) != 1 {
		t.Errorf("%v", list)
	}
	for _, bad := range []object{chunk(0, ""), {"type": "notebook", "chunk": 1, "content": object{}}, {"type": "file", "chunk": 1}, {"type": "file", "format": "base64", "chunk": 1, "content": "!"}} {
		c.ask(400, "PUT", "api/contents/big.bin", bad)
	}
	if left, _ := filepath.Glob(c.project + "/.quire-part-*"); len(left) > 0 {
		t.Errorf("%v", left)
	}
}

// 2 GB go up in pieces and down again, and the server never holds more than a few.
func TestALargeFileUpAndDown(t *testing.T) {
	c := newClient(t)
	const piece = 4 << 20
	pieces := 16 // 64 MB, or 2 GB in a soak
	if os.Getenv("QUIRE_SOAK") != "" {
		pieces = 512
	}
	content := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte("0123456789abcdef"), piece/16))
	body := func(n int) string {
		return fmt.Sprintf(`{"type":"file","format":"base64","chunk":%d,"content":"%s"}`, n, content)
	}
	runtime.GC() // what earlier tests left does not count
	most := uint64(0)
	for i := 1; i <= pieces; i++ {
		n := i
		if i == pieces {
			n = -1
		}
		c.ask(201, "PUT", "api/contents/big.bin", body(n))
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		most = max(most, m.HeapInuse)
	}
	if most > 250<<20 {
		t.Errorf("%d MB of memory for pieces of %d", most>>20, piece>>20)
	}
	info, err := os.Stat(c.project + "/big.bin")
	if err != nil || info.Size() != int64(piece*pieces) {
		t.Fatal(info, err)
	}
	r, err := http.NewRequest("GET", "http://app.test/p/lab/files/big.bin", nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := c.http.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if n, err := bytesOf(answer); err != nil || n != int64(piece*pieces) {
		t.Error(n, err)
	}
}

func bytesOf(answer *http.Response) (n int64, err error) {
	b := make([]byte, 1<<20)
	for {
		m, err := answer.Body.Read(b)
		n += int64(m)
		for i := range b[:m] {
			if b[i] != "0123456789abcdef"[(n-int64(m)+int64(i))%16] {
				return n, fmt.Errorf("byte %d is another", n-int64(m)+int64(i))
			}
		}
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}
