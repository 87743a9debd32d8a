package viewer

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// snapshot is everything in a directory that a write would change.
func snapshot(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	var in func(string)
	in = func(d string) {
		found, err := os.ReadDir(d)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range found {
			info, err := e.Info()
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintln(&b, filepath.Join(d, e.Name()), info.Mode(), info.Size(), info.ModTime().UnixNano())
			if e.IsDir() {
				in(filepath.Join(d, e.Name()))
			}
		}
	}
	in(dir)
	return b.String()
}

// Row V-06: nothing is kept, beside the file or elsewhere, so nothing can be
// planted and nothing is old.
func TestNothingIsWrittenOrRemembered(t *testing.T) {
	w := newWorld(t)
	cells := func(s string) string { return `{"cells":[{"cell_type":"markdown","source":"` + s + `"}],"nbformat":4}` }
	w.put("x.ipynb", cells("first"))
	w.put(".x.ipynb.html", "<p>planted</p>")
	w.put("data.md", "# one")
	before := snapshot(t, w.dir)
	for _, at := range []string{"/", "/?all=1", "/?find=*", "/x.ipynb", "/data.md", "/x.ipynb?source=1", "/x.ipynb?raw=1"} {
		if a := w.get(at); a.status != 200 || strings.Contains(said(t, a.body), "planted") {
			t.Errorf("%s: %d %s", at, a.status, a.body)
		}
	}
	if after := snapshot(t, w.dir); after != before {
		t.Errorf("the project was\n%s\nand is\n%s", before, after)
	}
	// The same name, size and time, another content.
	info, err := os.Stat(filepath.Join(w.dir, "x.ipynb"))
	if err != nil {
		t.Fatal(err)
	}
	w.put("x.ipynb", cells("other"))
	if err := os.Chtimes(filepath.Join(w.dir, "x.ipynb"), info.ModTime(), info.ModTime()); err != nil {
		t.Fatal(err)
	}
	if page := w.page("/x.ipynb"); !strings.Contains(page, "other") || strings.Contains(page, "first") {
		t.Errorf("the page is old: %s", page)
	}
	for _, method := range []string{"POST", "PUT", "DELETE", "PATCH", "MKCOL", "OPTIONS"} {
		if a := w.ask(method, "/p/viewer/x.ipynb"); a.status != http.StatusMethodNotAllowed {
			t.Errorf("%s answers %d", method, a.status)
		}
	}
	if a := w.ask("HEAD", "/p/viewer/x.ipynb"); a.status != 200 || a.body != "" {
		t.Errorf("HEAD answers %d with %d bytes", a.status, len(a.body))
	}
}

// Rows V-08 and V-09: no address leads out.
func TestNothingOutsideIsSeen(t *testing.T) {
	w := newWorld(t)
	top := filepath.Dir(w.dir)
	for name, content := range map[string]string{"secret": "sesame", "project-sibling/secret": "sesame"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(top, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(top, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	w.put("sub/file.txt", "inside")
	for name, to := range map[string]string{
		"up": "../secret", "abs": filepath.Join(top, "secret"), "dir": "..", "passwd": "/etc/passwd", "slash": "/", "proc": "/proc/self/root",
		"sub/two": "../../secret", "chain": "up", "loop": "loop", "self": "/proc/self/environ",
	} {
		if err := os.Symlink(to, filepath.Join(w.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	for name, to := range map[string]string{"in": "sub", "in.txt": "sub/file.txt", "sub/back": "../sub/file.txt"} {
		if err := os.Symlink(to, filepath.Join(w.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, at := range []string{
		"/up", "/abs", "/dir", "/dir/secret", "/passwd", "/slash", "/slash/etc/passwd", "/proc/etc/passwd", "/sub/two", "/chain", "/loop", "/self",
		"/../secret", "/..%2fsecret", "/%2e%2e/secret", "/%2e%2e%2fsecret", "/sub/../../secret", "/sub/%2e%2e/%2e%2e/secret", "/..%5csecret", "/.%2e/secret",
		"/sub%2f..%2f..%2fsecret", "/sub%2ffile.txt", "//etc/passwd", "/%2fetc/passwd", "/%00", "/sub/file.txt%00.png", "/../project-sibling/secret", "/-sibling/secret",
		"/%252e%252e/secret", "/%c0%ae%c0%ae/secret", "/sub//file.txt", "/./sub", "/sub/.", "/sub/..", "/" + strings.Repeat("a/", 400), "/" + strings.Repeat("a", 300),
		"/_viewer/assets/../../secret", "/_viewer/assets/%2e%2e/%2e%2e/secret", "/_viewer/assets/..%2f..%2fsecret", "/_viewer/assets/placeholder.txt", "/_viewer/assets/manifest.json",
		"/_viewer/assets/", "/_viewer/assets//etc/passwd", "/_viewer/assets/NOTICES.txt%00",
	} {
		for _, query := range []string{"", "?raw=1", "?source=1", "?find=*"} {
			a := w.get(at + query)
			if a.status != http.StatusNotFound && a.status != http.StatusBadRequest || strings.Contains(a.body, "sesame") || strings.Contains(a.body, "root:") {
				t.Errorf("%s%s answers %d: %s", at, query, a.status, cut(a.body, 200))
			}
		}
	}
	for _, at := range []string{"/sub/file.txt?raw=1", "/in/file.txt?raw=1", "/in.txt?raw=1", "/sub/back?raw=1"} {
		if a := w.get(at); a.status != 200 || a.body != "inside" {
			t.Errorf("%s answers %d: %s", at, a.status, cut(a.body, 200))
		}
	}
	if page := said(t, w.page("/?find=secret")); strings.Contains(page, "secret ") || !strings.Contains(page, "No file has such a name") {
		t.Errorf("finding left the project: %s", page)
	}
	for _, at := range []string{"", "x"} {
		if a := w.ask("GET", "/p/viewe"+at); a.status != http.StatusNotFound {
			t.Errorf("another prefix answers %d", a.status)
		}
	}
}

// A directory that is exchanged for a link while it is read leads nowhere else.
func TestRenamingDoesNotLeadOut(t *testing.T) {
	w := newWorld(t)
	top := filepath.Dir(w.dir)
	if err := os.Mkdir(filepath.Join(top, "other"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(top, "other/f"), []byte("sesame"), 0o644); err != nil {
		t.Fatal(err)
	}
	w.put("d/f", "inside")
	if err := os.Symlink("../other", filepath.Join(w.dir, "l")); err != nil {
		t.Fatal(err)
	}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		d, l, x := filepath.Join(w.dir, "d"), filepath.Join(w.dir, "l"), filepath.Join(w.dir, "x")
		for {
			select {
			case <-stop:
				return
			default:
			}
			os.Rename(d, x)
			os.Rename(l, d)
			os.Rename(d, l)
			os.Rename(x, d)
		}
	}()
	tr := tree{dir: w.dir, account: "ada"}
	seen := 0
	for range 5000 {
		f, _, err := tr.open([]string{"d", "f"})
		if err != nil {
			continue
		}
		buf := make([]byte, 16)
		n, _ := f.Read(buf)
		f.Close()
		if string(buf[:n]) != "inside" {
			t.Fatalf("read %q", buf[:n])
		}
		seen++
	}
	close(stop)
	<-done
	if seen == 0 {
		t.Error("the file was never there: nothing is shown by this")
	}
}

func TestDevicesAreNotOpened(t *testing.T) {
	w := newWorld(t)
	if err := syscall.Mkfifo(filepath.Join(w.dir, "pipe"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(w.dir, "pipe.ipynb"), 0o644); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for _, at := range []string{"/pipe", "/pipe?raw=1", "/pipe?download=1", "/pipe.ipynb"} {
		if a := w.get(at); a.status != http.StatusBadRequest || !strings.Contains(a.body, "pipe") {
			t.Errorf("%s answers %d", at, a.status)
		}
	}
	if page := w.page("/"); strings.Contains(page, `href="/p/viewer/pipe"`) {
		t.Error("a pipe is a link")
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
}

// What an account may not read is said with the way to allow it.
func TestUnreadable(t *testing.T) {
	w := newWorld(t)
	if os.Getuid() == 0 {
		// Root reads everything; the sentence is the same.
		e := tree{account: "ada"}.explain(os.ErrPermission, []string{"x"})
		if !strings.Contains(e.Error(), "account ada") {
			t.Error(e)
		}
		return
	}
	w.put("x", "secret")
	if err := os.Chmod(filepath.Join(w.dir, "x"), 0); err != nil {
		t.Fatal(err)
	}
	if a := w.get("/x"); a.status != http.StatusForbidden || !strings.Contains(a.body, "setfacl -m u:ada:rX") {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// Row V-07: what is too large says so, soon, and the app goes on.
func TestTooLarge(t *testing.T) {
	w := newWorldWith(t, 2*time.Second, binary(t), "viewer", "--render")
	big := func(name string, size int64, begin string) {
		w.put(name, begin)
		if err := os.Truncate(filepath.Join(w.dir, name), size); err != nil {
			t.Fatal(err)
		}
	}
	big("huge.ipynb", 500<<20, `{"cells":[`)
	big("huge.md", 3<<20, "# x")
	w.put("huge.py", strings.Repeat("x = 1\n", 400_000))
	w.put("cells.ipynb", `{"cells":[`+strings.TrimSuffix(strings.Repeat(`{"cell_type":"raw"},`, 1_000_000), ",")+`]}`)
	w.put("nested.ipynb", strings.Repeat(`{"cells":[`, 100_000))
	w.put("source.ipynb", `{"cells":[{"cell_type":"code","source":`+strings.Repeat("[", 9000)+strings.Repeat("]", 9000)+`}]}`)
	w.put("lists.md", lists(1400))
	w.put("quotes.md", strings.Repeat("> ", 100_000)+"x")
	w.put("nested.md", strings.Repeat("<div>", 100_000)+"x")
	w.put("bomb1.md", strings.Repeat("[", 200_000))
	w.put("bomb2.md", strings.Repeat("*a **b _c ", 100_000))
	w.put("bomb3.md", strings.Repeat("`a``b```c", 100_000))
	w.put("bomb4.md", strings.Repeat("<!--", 200_000)+strings.Repeat("<a ", 100_000))
	w.put("bomb5.md", strings.Repeat("$a", 500_000))
	w.put("bomb6.md", strings.Repeat("[a](", 200_000))
	w.put("bomb7.md", strings.Repeat("| a ", 50_000)+"\n"+strings.Repeat("|---", 50_000)+"\n"+strings.Repeat("|x\n", 2000))
	w.put("bomb8.md", strings.Repeat("[x]: y\n", 100_000)+strings.Repeat("[x]", 100_000))
	w.put("bomb.py", strings.Repeat(`"""`, 300_000)+strings.Repeat("/*", 100_000))
	w.put("bomb.csv", strings.Repeat(`"a,`, 500_000))
	w.put("wide.csv", strings.Repeat("a,", 900_000)+"\n")
	w.put("image.ipynb", `{"cells":[{"cell_type":"code","outputs":[{"output_type":"display_data","data":{"image/png":"`+strings.Repeat("iVBORw0K", 2<<20)+`"}}]}]}`)
	w.put("ansi.ipynb", `{"cells":[{"cell_type":"code","outputs":[{"output_type":"stream","text":"`+strings.Repeat(`\u001b[31mx\u001b[0m\r`, 500_000)+`"}]}]}`)
	w.put("html.ipynb", `{"cells":[{"cell_type":"code","outputs":[{"output_type":"display_data","data":{"text/html":"`+strings.Repeat("<table><tr><td>", 200_000)+`"}}]}]}`)
	w.put("many.ipynb", `{"cells":[{"cell_type":"code","outputs":[`+strings.TrimSuffix(strings.Repeat(`{"output_type":"stream","text":"x"},`, 300_000), ",")+`]}]}`)
	for name, want := range map[string]string{
		"huge.ipynb": "too large to render", "huge.md": "too large to render", "huge.py": "too large to render", "cells.ipynb": "",
		"nested.ipynb": "not a notebook", "source.ipynb": "", "lists.md": "", "quotes.md": "", "nested.md": "", "bomb1.md": "", "bomb2.md": "", "bomb3.md": "", "bomb4.md": "",
		"bomb5.md": "", "bomb6.md": "", "bomb7.md": "", "bomb8.md": "", "bomb.py": "", "bomb.csv": "", "wide.csv": "Only the first", "image.ipynb": "", "ansi.ipynb": "more of this output",
		"html.ipynb": "", "many.ipynb": "more outputs of this cell",
	} {
		began := time.Now()
		a := w.get("/" + name)
		took := time.Since(began)
		if a.status != 200 || !strings.Contains(a.body, want) || took > 15*time.Second {
			t.Errorf("%s answers %d after %v: %s", name, a.status, took, cut(a.body, 300))
		}
		if took > 3*time.Second || strings.Contains(a.body, "too large to render: it") {
			t.Logf("%s took %v, %d bytes", name, took, len(a.body))
		}
	}
	w.page("/")
}

func lists(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(strings.Repeat(" ", i) + "- x\n")
	}
	return b.String()
}

func TestFindHasLimits(t *testing.T) {
	w := newWorld(t)
	for i := range 150 {
		w.put(fmt.Sprintf("a/n%03d.ipynb", i), "")
	}
	w.put(".hidden/n.ipynb", "")
	w.put("deep/"+strings.Repeat("d/", 40)+"deep.ipynb", "")
	w.put("b/Report.IPYNB", "")
	if err := os.Symlink("../a", filepath.Join(w.dir, "b/link")); err != nil {
		t.Fatal(err)
	}
	page := w.page("/?find=*.ipynb")
	if n := strings.Count(page, "<tr>") - 1; n != findHits || !strings.Contains(page, "Only the first 100") {
		t.Errorf("%d hits", n)
	}
	if page := w.page("/b?find=report"); !strings.Contains(page, `href="/p/viewer/b/Report.IPYNB"`) || !strings.Contains(page, "1 match ") {
		t.Errorf("finding by a part of the name: %s", page)
	}
	if page := w.page("/b?find=*.ipynb"); !strings.Contains(page, "1 match ") {
		t.Errorf("finding went through a link: %s", page)
	}
	if page := w.page("/?find=a/n00*.ipynb"); !strings.Contains(page, "10 matches") {
		t.Errorf("finding by path: %s", page)
	}
	if page := w.page("/deep?find=deep.ipynb"); !strings.Contains(page, "0 matches") {
		t.Errorf("finding has no depth: %s", page)
	}
	if page := w.page("/?find=[a"); !strings.Contains(page, "That is no pattern") {
		t.Errorf("a bad pattern: %s", page)
	}
	if page := w.page("/?find=" + strings.Repeat("*a", 200)); !strings.Contains(page, "That is no pattern") {
		t.Errorf("a long pattern: %s", page)
	}
}
