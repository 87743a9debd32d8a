package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// real starts the Jupyter server of the machine's Python on a socket, over a
// directory and a home of its own, below the same address as ours.
func real(t *testing.T) *client {
	t.Helper()
	dir, err := os.MkdirTemp("", "quire-jup")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	c := &client{t: t, project: dir + "/project", home: dir + "/home", socket: dir + "/app.sock"}
	for _, d := range []string{c.project, c.home} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("/usr/bin/python3", "-m", "notebook", "--no-browser", "--allow-root", "--sock="+c.socket, "--notebook-dir="+c.project,
		"--NotebookApp.base_url=/p/lab/", "--NotebookApp.token=", "--NotebookApp.password=", "--NotebookApp.disable_check_xsrf=True",
		"--NotebookApp.allow_remote_access=True", "--FileContentsManager.delete_to_trash=False")
	cmd.Env = []string{"HOME=" + c.home, "PATH=/usr/bin:/bin", "LANG=C.UTF-8"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatalf("Jupyter does not start; scripts/setup test installs it: %v", err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	t.Cleanup(func() {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-done
		if t.Failed() {
			t.Logf("Jupyter said:\n%s", log.String())
		}
	})
	c.http = &http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", c.socket)
	}}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	end := time.After(2 * time.Minute)
	for {
		if answer, err := c.http.Get("http://app.test/p/lab/api"); err == nil {
			answer.Body.Close()
			return c
		}
		select {
		case <-tick.C:
		case err := <-done:
			done <- err
			t.Fatalf("Jupyter ended, %v; scripts/setup test installs it:\n%s", err, log.String())
		case <-end:
			t.Fatalf("Jupyter does not answer:\n%s", log.String())
		}
	}
}

// lay puts the same tree into both.
func (c *client) tree() {
	for _, d := range []string{"dir/deep", "empty", ".hidden", "__pycache__"} {
		if err := os.MkdirAll(c.project+"/"+d, 0o755); err != nil {
			c.t.Fatal(err)
		}
	}
	for name, text := range map[string]string{
		"text.txt": "one\ntwo\n", "data.csv": "a,b\n", "code.py": "x = 1\n", "page.html": "<b>", "note.md": "# T", "raw.bin": "\x00\xff\x01", "none": "x",
		"dir/ü b.json": "{}", "x.tar.gz": "\x1f\x8b", "p.png": "\x89PNG\xff", ".hidden/x": "x", ".dot": "x", "a~": "x", "m.pyc": "x", "bad.ipynb": "{", "wrong.ipynb": `{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [{"cell_type": "code"}]}`,
		"n.ipynb": `{"cells": [{"cell_type": "code", "execution_count": 3, "id": "a1", "metadata": {"tags": ["x"]}, "outputs": [{"name": "stdout", "output_type": "stream", "text": ["a\n", "b"]}, {"data": {"text/html": ["<b>", "x"], "application/json": ["kept", "apart"]}, "execution_count": 3, "metadata": {}, "output_type": "execute_result"}], "source": ["1\n", "2"]},` +
			`{"cell_type": "markdown", "id": "b2", "attachments": {"i.png": {"image/png": "aGk="}}, "metadata": {}, "source": "# é"}], "metadata": {"kernelspec": {"name": "python3", "display_name": "P"}, "x": 1.50, "y": 1e3}, "nbformat": 4, "nbformat_minor": 5}`,
		"old.ipynb": `{"metadata": {"name": "old", "signature": "sha256:1"}, "nbformat": 3, "nbformat_minor": 0, "worksheets": [{"cells": [{"cell_type": "heading", "level": 2, "metadata": {}, "source": ["Title"]},` +
			`{"cell_type": "code", "collapsed": false, "input": ["print(1)\n", "2"], "language": "python", "metadata": {}, "outputs": [{"output_type": "stream", "stream": "stdout", "text": ["1\n"]}, {"metadata": {}, "output_type": "pyout", "prompt_number": 4, "text": ["2"], "png": "aGk="}, {"ename": "E", "evalue": "v", "output_type": "pyerr", "traceback": ["t"]}], "prompt_number": 4},` +
			`{"cell_type": "markdown", "metadata": {}, "source": ["text"]}, {"cell_type": "raw", "metadata": {}, "source": ["r"]}], "metadata": {}}]}`,
	} {
		if err := os.WriteFile(c.project+"/"+name, []byte(text), 0o644); err != nil {
			c.t.Fatal(err)
		}
	}
	os.Symlink("text.txt", c.project+"/alias.txt")
	os.Symlink("dir", c.project+"/dirlink")
}

// known are the fields that differ, and why.
var known = map[string]string{
	"hash":           "Jupyter Server 2 has digests; the one in Debian does not",
	"hash_algorithm": "as hash",
	"quire":          "ours",
	"created":        "the moment of each server's own call",
	"last_modified":  "as created",
}

// differences compares two answers field by field.
func differences(at string, ours, theirs any) []string {
	switch theirs := theirs.(type) {
	case object:
		o, ok := ours.(object)
		if !ok {
			return []string{fmt.Sprintf("%s: %v, Jupyter has %v", at, ours, theirs)}
		}
		var out []string
		for _, k := range keys(o, theirs) {
			if _, ok := known[k]; ok {
				continue
			}
			a, inOurs := o[k]
			b, inTheirs := theirs[k]
			if inOurs != inTheirs {
				out = append(out, fmt.Sprintf("%s.%s: there here %v, in Jupyter %v (%v, %v)", at, k, inOurs, inTheirs, a, b))
				continue
			}
			if k == "content" && o["format"] == "base64" { // in lines there
				b = strings.ReplaceAll(b.(string), "\n", "")
			}
			if k == "size" && theirs["name"] == "alias.txt" || theirs["name"] == "odd.ipynb" && k == "size" {
				continue // of the link itself there; Debian's nbformat adds an ID to the cell that has none
			}
			if k == "message" || k == "reason" { // sentences of our own
				continue
			}
			out = append(out, differences(at+"."+k, a, b)...)
		}
		return out
	case []any:
		o, ok := ours.([]any)
		if !ok || len(o) != len(theirs) {
			return []string{fmt.Sprintf("%s: %v, Jupyter has %v", at, ours, theirs)}
		}
		var out []string
		for i := range theirs {
			out = append(out, differences(fmt.Sprintf("%s[%d]", at, i), o[i], theirs[i])...)
		}
		return out
	}
	if ours != theirs {
		return []string{fmt.Sprintf("%s: %#v, Jupyter has %#v", at, ours, theirs)}
	}
	return nil
}

// sorted puts the entries of a directory in an order; Jupyter has none.
func sorted(v any) any {
	o, ok := v.(object)
	if !ok || o["type"] != "directory" {
		return v
	}
	if list, ok := o["content"].([]any); ok {
		slices.SortFunc(list, func(a, b any) int {
			return strings.Compare(a.(object)["name"].(string), b.(object)["name"].(string))
		})
	}
	return o
}

// The same calls over the same tree, to the Jupyter server that Debian has and to
// ours: status, headers that clients read, every field, and at last the files.
func TestAnswersAreThoseOfJupyter(t *testing.T) {
	ours, theirs := newClient(t), real(t)
	ours.tree()
	theirs.tree()
	text := func(s string) object { return object{"type": "file", "format": "text", "content": s} }
	steps := []struct {
		method, at string
		in         any
		why        string // the status differs, and that is meant
	}{
		{"GET", "api/contents", nil, ""},
		{"GET", "api/contents/", nil, ""},
		{"GET", "api/contents?content=0", nil, ""},
		{"GET", "api/contents/dir", nil, ""},
		{"GET", "api/contents/dir/", nil, "the answer itself, and not a redirection to it"},
		{"GET", "api/contents/empty?type=directory", nil, ""},
		{"GET", "api/contents/dirlink", nil, ""},
		{"GET", "api/contents/alias.txt", nil, ""},
		{"GET", "api/contents/text.txt", nil, ""},
		{"GET", "api/contents/text.txt?content=0", nil, ""},
		{"GET", "api/contents/text.txt?format=text", nil, ""},
		{"GET", "api/contents/text.txt?format=base64", nil, ""},
		{"GET", "api/contents/text.txt?type=directory", nil, ""},
		{"GET", "api/contents/text.txt?type=notebook", nil, ""},
		{"GET", "api/contents/text.txt?type=nonsense", nil, ""},
		{"GET", "api/contents/text.txt?format=nonsense", nil, ""},
		{"GET", "api/contents/text.txt?content=2", nil, ""},
		{"GET", "api/contents/code.py", nil, ""},
		{"GET", "api/contents/page.html", nil, ""},
		{"GET", "api/contents/none", nil, ""},
		{"GET", "api/contents/raw.bin", nil, ""},
		{"GET", "api/contents/raw.bin?format=text", nil, ""},
		{"GET", "api/contents/p.png", nil, ""},
		{"GET", "api/contents/data.csv", nil, ""},
		{"GET", "api/contents/dir/%C3%BC%20b.json", nil, ""},
		{"GET", "api/contents/dir?type=file", nil, ""},
		{"GET", "api/contents/dir?type=notebook", nil, ""},
		{"GET", "api/contents/gone", nil, ""},
		{"GET", "api/contents/.dot", nil, ""},
		{"GET", "api/contents/.hidden/x", nil, ""},
		{"GET", "api/contents/n.ipynb", nil, ""},
		{"GET", "api/contents/n.ipynb?content=0", nil, ""},
		{"GET", "api/contents/n.ipynb?type=file", nil, ""},
		{"GET", "api/contents/n.ipynb?type=file&format=text", nil, ""},
		{"GET", "api/contents/bad.ipynb", nil, ""},
		{"GET", "api/contents/old.ipynb", nil, ""},
		{"PUT", "api/contents/new.txt", text("hello"), ""},
		{"PUT", "api/contents/new.txt", text("hello again"), ""},
		{"PUT", "api/contents/new.txt", object{"type": "file", "format": "base64", "content": "aGk="}, ""},
		{"PUT", "api/contents/new.txt", object{"format": "text", "content": "x"}, ""},
		{"PUT", "api/contents/new.txt", object{"type": "file", "content": "x"}, ""},
		{"PUT", "api/contents/new.txt", object{"type": "file", "format": "text"}, ""},
		{"PUT", "api/contents/new.txt", object{"type": "what", "content": "x"}, ""},
		{"PUT", "api/contents/new.txt", object{"copy_from": "text.txt"}, ""},
		{"PUT", "api/contents/new.txt", "{", ""},
		{"PUT", "api/contents/blank.txt", object{"type": "file"}, ""},
		{"PUT", "api/contents/blank.ipynb", object{"type": "notebook"}, ""},
		{"PUT", "api/contents/made", object{"type": "directory"}, ""},
		{"PUT", "api/contents/made", object{"type": "directory"}, ""},
		{"PUT", "api/contents/text.txt", object{"type": "directory"}, ""},
		{"PUT", "api/contents/.dotted", text("x"), ""},
		{"PUT", "api/contents/gone/x.txt", text("x"), "404 that says so, and not 500"},
		{"PUT", "api/contents/dirlink/through.txt", text("x"), ""},
		{"PUT", "api/contents/alias.txt", text("through"), ""},
		{"PUT", "api/contents/saved.ipynb", save(book(code("q", "1\n2", object{"output_type": "stream", "name": "stdout", "text": "x\u2028y\x0bz"}))), ""},
		{"GET", "api/contents/saved.ipynb", nil, ""},
		{"PUT", "api/contents/odd.ipynb", save(object{"cells": []any{object{"cell_type": "code", "metadata": object{}, "source": 1, "outputs": []any{}}}, "metadata": object{}, "nbformat": 4, "nbformat_minor": 5}), ""},
		{"DELETE", "api/contents/odd.ipynb", nil, ""},
		{"PUT", "api/contents/n.ipynb", save(book(code("q", "trusted", object{"output_type": "display_data", "metadata": object{}, "data": object{"text/html": "<b>"}}))), ""},
		{"GET", "api/contents/n.ipynb", nil, ""},
		{"POST", "api/contents/n.ipynb/trust", nil, ""},
		{"GET", "api/contents/n.ipynb", nil, ""},
		{"POST", "api/contents", object{"type": "notebook"}, ""},
		{"POST", "api/contents", object{"type": "notebook"}, ""},
		{"POST", "api/contents", object{"ext": ".ipynb"}, ""},
		{"POST", "api/contents", object{"type": "file", "ext": ".py"}, ""},
		{"POST", "api/contents", object{"type": "file", "ext": ".tar.gz"}, ""},
		{"POST", "api/contents", object{"type": "file", "ext": ".tar.gz"}, ""},
		{"POST", "api/contents", object{"type": "directory"}, ""},
		{"POST", "api/contents/dir", object{"type": "directory"}, ""},
		{"POST", "api/contents/dir", object{"type": "directory"}, ""},
		{"POST", "api/contents", object{}, ""},
		{"POST", "api/contents", object{"type": "what"}, ""},
		{"POST", "api/contents", object{"copy_from": "text.txt"}, ""},
		{"POST", "api/contents", object{"copy_from": "text.txt"}, ""},
		{"POST", "api/contents", object{"copy_from": "text-Copy1.txt"}, ""},
		{"POST", "api/contents/dir", object{"copy_from": "x.tar.gz"}, ""},
		{"POST", "api/contents", object{"copy_from": "x.tar.gz"}, ""},
		{"POST", "api/contents", object{"copy_from": "n.ipynb"}, ""},
		{"POST", "api/contents", object{"copy_from": "dir"}, ""},
		{"POST", "api/contents", object{"copy_from": "gone"}, ""},
		{"POST", "api/contents/gone", object{"type": "file"}, ""},
		{"POST", "api/contents/text.txt", object{"type": "file"}, ""},
		{"PATCH", "api/contents/new.txt", object{"path": "dir/renamed.txt"}, ""},
		{"PATCH", "api/contents/new.txt", object{"path": "x"}, "404 that says so, and not 500"},
		{"PATCH", "api/contents/text.txt", object{"path": "code.py"}, ""},
		{"PATCH", "api/contents/text.txt", object{"path": "text.txt"}, ""},
		{"PATCH", "api/contents/made", object{"path": "remade"}, ""},
		{"DELETE", "api/contents/dir/renamed.txt", nil, ""},
		{"DELETE", "api/contents/remade", nil, ""},
		{"DELETE", "api/contents/gone", nil, ""},
		{"DELETE", "api/contents/.dot", nil, ""},
		{"DELETE", "api/contents/", nil, ""},
		{"GET", "api/contents/none/checkpoints", nil, ""},
		{"POST", "api/contents/code.py/checkpoints", nil, ""},
		{"GET", "api/contents/code.py/checkpoints", nil, ""},
		{"POST", "api/contents/code.py/checkpoints/none", nil, "404 that says so, and not 500"},
		{"DELETE", "api/contents/code.py/checkpoints/none", nil, ""},
		{"GET", "api/config/notebook", nil, ""},
		{"PUT", "api/config/notebook", object{"a": object{"b": 1, "c": 2}, "d": object{}}, ""},
		{"PATCH", "api/config/notebook", object{"a": object{"b": nil}, "e": []any{1}}, ""},
		{"GET", "api/config/notebook", nil, ""},
		{"GET", "api/contents/dir", nil, ""},
		{"GET", "api/contents", nil, ""},
	}
	for i, s := range steps {
		a, aBody := ours.do(s.method, s.at, s.in)
		b, bBody := theirs.do(s.method, s.at, s.in)
		name := fmt.Sprintf("%d %s %s", i, s.method, s.at)
		if a.StatusCode != b.StatusCode != (s.why != "") {
			t.Errorf("%s: %d, Jupyter %d\n%.300s\n%.300s", name, a.StatusCode, b.StatusCode, aBody, bBody)
			continue
		}
		if a.StatusCode >= 400 {
			var e object
			if json.Unmarshal(aBody, &e) != nil || e["message"] == "" || len(e) != 2 {
				t.Errorf("%s: %s", name, aBody)
			}
			continue
		}
		if s.why != "" {
			continue
		}
		for _, h := range []string{"Location", "Content-Type"} {
			av, _, _ := strings.Cut(a.Header.Get(h), ";")
			bv, _, _ := strings.Cut(b.Header.Get(h), ";")
			if h == "Location" && strings.Contains(s.at, "checkpoints") {
				continue // the ID is each server's own
			}
			if av != bv && len(bBody) > 0 {
				t.Errorf("%s: %s is %q, Jupyter has %q", name, h, av, bv)
			}
		}
		if len(aBody) == 0 && len(bBody) == 0 {
			continue
		}
		var x, y any
		if err := json.Unmarshal(aBody, &x); err != nil {
			t.Errorf("%s: %s", name, aBody)
		}
		if err := json.Unmarshal(bBody, &y); err != nil {
			t.Errorf("%s: Jupyter: %s", name, bBody)
		}
		if strings.Contains(s.at, "checkpoints") || strings.Contains(s.at, "old.ipynb") {
			blank(x)
			blank(y)
		}
		for _, d := range differences("", sorted(x), sorted(y)) {
			t.Errorf("%s%s", name, d)
		}
	}
	for _, name := range []string{"saved.ipynb", "n.ipynb", "blank.ipynb", "dir/through.txt", "text.txt"} {
		if a, b := ours.read(name), theirs.read(name); a != b {
			t.Errorf("%s on disk:\n%s\nJupyter has\n%s", name, a, b)
		}
	}
	if left, _ := filepath.Glob(ours.project + "/.quire-part-*"); len(left) > 0 {
		t.Errorf("%v", left)
	}
	for _, at := range []string{"files/text.txt", "files/dir/%C3%BC%20b.json"} {
		_, a := ours.do("GET", at, nil)
		_, b := theirs.do("GET", at, nil)
		if !bytes.Equal(a, b) {
			t.Errorf("%s: %s, Jupyter has %s", at, a, b)
		}
	}
}

// blank takes out IDs: of checkpoints, which are each server's own, and of the
// cells of a notebook of format 3. There Python's are other ones at each reading,
// so that nothing in it could be trusted; ours comes as 4.4, which has none.
func blank(v any) {
	switch v := v.(type) {
	case object:
		delete(v, "id")
		delete(v, "nbformat_minor")
		for _, e := range v {
			blank(e)
		}
	case []any:
		for _, e := range v {
			blank(e)
		}
	}
}
