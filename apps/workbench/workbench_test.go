package workbench

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"quire/apps"
)

// A world is the app as it runs: on its own socket, over a project and a home.
type world struct {
	t                     *testing.T
	project, home, socket string
	client                *http.Client
}

func newWorld(t *testing.T) *world {
	t.Helper()
	dir, err := os.MkdirTemp("", "quire-wb") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	w := &world{t: t, project: dir + "/project", home: dir + "/home", socket: dir + "/app.sock"}
	for _, d := range []string{w.project, w.home} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	b, err := newBench(w.project, w.home, log)
	if err != nil {
		t.Fatal(err)
	}
	l, err := apps.Listen(w.socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- serveOn(ctx, l, "/p/workbench", b, "engine", log) }()
	w.client = &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", w.socket)
	}}}
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		b.close()
	})
	return w
}

func (w *world) do(method, at string, body io.Reader, header ...string) (*http.Response, []byte) {
	w.t.Helper()
	r, err := http.NewRequest(method, "http://app.test/p/workbench/"+at, body)
	if err != nil {
		w.t.Fatal(err)
	}
	r.Header.Set("Accept", "application/json")
	r.Header.Set("Origin", "http://app.test")
	for i := 0; i+1 < len(header); i += 2 {
		if header[i+1] == "" {
			r.Header.Del(header[i])
		} else {
			r.Header.Set(header[i], header[i+1])
		}
	}
	answer, err := w.client.Do(r)
	if err != nil {
		w.t.Fatal(err)
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return answer, b
}

// ok is do for what must succeed; out may be nil.
func (w *world) ok(method, at string, in, out any) {
	w.t.Helper()
	var body io.Reader
	switch in := in.(type) {
	case nil:
	case string:
		body = strings.NewReader(in)
	default:
		b, err := json.Marshal(in)
		if err != nil {
			w.t.Fatal(err)
		}
		body = bytes.NewReader(b)
	}
	answer, b := w.do(method, at, body)
	if answer.StatusCode != http.StatusOK {
		w.t.Fatalf("%s %s: %d %s", method, at, answer.StatusCode, b)
	}
	if out != nil {
		if err := json.Unmarshal(b, out); err != nil {
			w.t.Fatalf("%s: %v", b, err)
		}
	}
}

func at(api, path string, more ...string) string {
	q := url.Values{"root": {"project"}, "path": {wirePath(path)}}
	for i := 0; i+1 < len(more); i += 2 {
		q.Set(more[i], more[i+1])
	}
	return "api/" + api + "?" + q.Encode()
}

type object = map[string]any

func TestNamesCrossTheWire(t *testing.T) {
	w := newWorld(t)
	for _, name := range []string{"plain", "\xff\xfe", "a\nb", `"<img src=x>'`, "50%", "%2e%2e", "..a", "a?b#c&d=e+f", "-rf", "日本"} {
		var saved struct{ Version string }
		w.ok("PUT", at("file", name, "version", ""), "text", &saved)
		var list struct {
			Entries []struct{ N, R string }
		}
		w.ok("GET", at("list", ""), nil, &list)
		if len(list.Entries) != 1 {
			t.Fatalf("%q: %v", name, list)
		}
		key := list.Entries[0].R
		if key == "" {
			key = url.PathEscape(list.Entries[0].N)
		}
		q := "api/file?root=project&path=" + url.QueryEscape(key)
		var file struct{ Text, Version string }
		w.ok("GET", q, nil, &file)
		if file.Text != "text" || file.Version != saved.Version {
			t.Errorf("%q: %+v, saved %v", name, file, saved)
		}
		answer, b := w.do("GET", at("raw", name), nil)
		if string(b) != "text" || !strings.HasPrefix(answer.Header.Get("Content-Disposition"), "attachment; filename*=UTF-8''") {
			t.Errorf("%q: %s %v", name, b, answer.Header)
		}
		w.ok("POST", at("rename", name, "to", wirePath("x"+name)), nil, nil)
		w.ok("POST", "api/delete", object{"Root": "project", "Paths": []string{wirePath("x" + name)}}, nil)
		if left, _ := os.ReadDir(w.project); len(left) != 0 {
			t.Fatalf("%q: %v", name, left)
		}
	}
	for _, bad := range []string{"..", "%2e%2e", "a/../b", "a%2fb", "a%00", "%zz", "a//b"} {
		for _, api := range []string{"file", "raw", "stat", "list", "permissions"} {
			if answer, b := w.do("GET", "api/"+api+"?root=project&path="+url.QueryEscape(bad), nil); answer.StatusCode != 400 {
				t.Errorf("%s of %s: %d %s", api, bad, answer.StatusCode, b)
			}
		}
	}
	if answer, _ := w.do("GET", "api/list?root=other&path=", nil); answer.StatusCode != 404 {
		t.Errorf("an unknown root: %d", answer.StatusCode)
	}
}

func TestOtherSitesGetNothing(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		method, at string
		header     []string
		want       int
	}{
		{"POST", at("folder", "a"), nil, 200},
		{"POST", at("folder", "b"), []string{"Origin", ""}, 403},
		{"POST", at("folder", "b"), []string{"Origin", "null"}, 403},
		{"POST", at("folder", "b"), []string{"Origin", "http://evil.test"}, 403},
		{"POST", at("folder", "b"), []string{"Origin", "http://app.test.evil.test"}, 403},
		{"POST", at("folder", "b"), []string{"Sec-Fetch-Site", "same-site"}, 403},
		{"PUT", at("file", "b"), []string{"Origin", "http://evil.test"}, 403},
		{"GET", at("list", ""), []string{"Sec-Fetch-Site", "same-site"}, 403},
		{"GET", at("raw", "a"), []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate"}, 403},
		{"GET", "", []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate"}, 200},
		{"GET", "", []string{"Sec-Fetch-Site", "same-site", "Sec-Fetch-Mode", "no-cors"}, 403},
		{"GET", at("list", ""), []string{"Sec-Fetch-Site", "same-origin"}, 200},
	} {
		if answer, b := w.do(c.method, c.at, nil, c.header...); answer.StatusCode != c.want {
			t.Errorf("%s %s %v: %d, not %d: %.100s", c.method, c.at, c.header, answer.StatusCode, c.want, b)
		}
	}
	if left, _ := os.ReadDir(w.project); len(left) != 1 {
		t.Errorf("%v", left)
	}
}

func TestWhatIsSentRawIsHarmless(t *testing.T) {
	w := newWorld(t)
	for name, want := range map[string]struct{ kind, how string }{
		"a.html": {"application/octet-stream", "attachment"}, "a.svg": {"image/svg+xml", "attachment"}, "a.js": {"application/octet-stream", "attachment"},
		"a.xhtml": {"application/octet-stream", "attachment"}, "a.png": {"image/png", "inline"}, "a.pdf": {"application/pdf", "inline"}, "a.PNG": {"image/png", "inline"},
		"x\u202Egnp.exe": {"application/octet-stream", "attachment"},
	} {
		if err := os.WriteFile(filepath.Join(w.project, name), []byte("<script>alert(1)</script>"), 0o644); err != nil {
			t.Fatal(err)
		}
		answer, _ := w.do("GET", at("raw", name), nil)
		h := answer.Header
		how, file, _ := strings.Cut(h.Get("Content-Disposition"), ";")
		if h.Get("Content-Type") != want.kind || how != want.how || h.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %v", name, h)
		}
		if csp := h.Get("Content-Security-Policy"); want.kind != "application/pdf" && !strings.HasPrefix(csp, "sandbox; default-src 'none'") || !strings.Contains(csp, "default-src 'none'") {
			t.Errorf("%s: %s", name, csp)
		}
		if strings.Contains(file, "%E2%80%AE") {
			t.Errorf("%s is offered as %s", name, file)
		}
	}
	answer, b := w.do("GET", at("raw", "a.png"), nil, "Range", "bytes=1-6")
	if answer.StatusCode != 206 || string(b) != "script" {
		t.Errorf("a part: %d %q", answer.StatusCode, b)
	}
}

func TestSaveTellsWhoChangedTheFile(t *testing.T) {
	w := newWorld(t)
	var first struct{ Version string }
	w.ok("PUT", at("file", "f", "version", ""), "one", &first)
	w.ok("PUT", at("file", "f", "version", first.Version), "two", nil)
	answer, b := w.do("PUT", at("file", "f", "version", first.Version), strings.NewReader("mine"))
	var said struct{ Changed changedJSON }
	if json.Unmarshal(b, &said) != nil || answer.StatusCode != 412 || !said.Changed.Me || said.Changed.By == "" || time.Since(time.UnixMilli(said.Changed.At)) > time.Minute {
		t.Errorf("%d %s", answer.StatusCode, b)
	}
	w.ok("PUT", at("file", "f", "version", "*"), "mine", nil)
	if answer, _ := w.do("PUT", at("file", "f", "version", ""), strings.NewReader("x")); answer.StatusCode != 409 {
		t.Errorf("a second file of one name: %d", answer.StatusCode)
	}
	os.WriteFile(w.project+"/binary", []byte("\x7fELF\x00"), 0o644)
	if answer, b := w.do("GET", at("file", "binary"), nil); answer.StatusCode != 422 {
		t.Errorf("binary: %d %s", answer.StatusCode, b)
	}
	if answer, _ := w.do("PUT", at("file", "huge", "version", ""), io.LimitReader(zeros{}, maxText+1)); answer.StatusCode != 413 {
		t.Errorf("huge: %d", answer.StatusCode)
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

func TestUploadAndArchive(t *testing.T) {
	w := newWorld(t)
	w.ok("POST", at("folder", "deep/er", "parents", "1"), nil, nil)
	content := strings.Repeat("quire ", 100000)
	var u struct {
		ID     string
		Offset int64
		Done   bool
	}
	w.ok("POST", "api/uploads", object{"Root": "project", "Path": "deep/er/file", "Size": len(content)}, &u)
	for !u.Done {
		end := min(int(u.Offset)+250000, len(content))
		w.ok("PATCH", fmt.Sprintf("api/uploads/%s?offset=%d", u.ID, u.Offset), content[u.Offset:end], &u)
	}
	var a struct{ ID string }
	w.ok("POST", "api/archives", object{"Root": "project", "Names": []string{"deep"}, "Format": "zip"}, &a)
	answer, b := w.do("GET", "api/archives/"+a.ID, nil)
	z, err := zip.NewReader(bytes.NewReader(b), int64(len(b)))
	if err != nil || answer.Header.Get("Content-Disposition") != "attachment; filename*=UTF-8''deep.zip" {
		t.Fatal(err, answer.Header)
	}
	f, err := z.Open("deep/er/file")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(f); err != nil || string(got) != content {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if answer, _ := w.do("GET", "api/archives/"+strings.Repeat("0", 32), nil); answer.StatusCode != 404 {
		t.Errorf("an archive that nobody prepared: %d", answer.StatusCode)
	}
	// Copy and move, in lines.
	var p progressJSON
	w.ok("POST", "api/copy", object{"From": object{"Root": "project", "Paths": []string{"deep"}}, "To": object{"Root": "home", "Path": ""}, "Move": true}, &p)
	if got, err := os.ReadFile(w.home + "/deep/er/file"); err != nil || string(got) != content || !p.Done || p.Error != "" {
		t.Errorf("%+v %v", p, err)
	}
}

func TestShownDirectoriesStay(t *testing.T) {
	w := newWorld(t)
	other := t.TempDir()
	var r rootJSON
	w.ok("POST", "api/roots", object{"Path": other + "/"}, &r)
	if r.Path != other {
		t.Errorf("%+v", r)
	}
	again, err := newBench(w.project, w.home, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if len(again.shown()) != 3 {
		t.Errorf("%d roots after a restart", len(again.shown()))
	}
	again.close()
	w.ok("DELETE", "api/roots/"+r.ID, nil, nil)
	for _, id := range []string{"project", "home"} {
		if answer, _ := w.do("DELETE", "api/roots/"+id, nil); answer.StatusCode != 400 {
			t.Errorf("%s was hidden", id)
		}
	}
	for _, path := range []string{"", "etc", "/nowhere", "/dev/null"} {
		if answer, b := w.do("POST", "api/roots", strings.NewReader(`{"Path":"`+path+`"}`)); answer.StatusCode/100 != 4 {
			t.Errorf("%q: %d %s", path, answer.StatusCode, b)
		}
	}
	if answer, _ := w.do("POST", "api/share", strings.NewReader(`{"Root":"home","Path":"x","Name":"root"}`)); answer.StatusCode != 400 {
		t.Errorf("shared from home: %d", answer.StatusCode)
	}
}

func TestListTenThousand(t *testing.T) {
	w := newWorld(t)
	for i := range 10000 {
		if err := os.WriteFile(fmt.Sprintf("%s/file-%05d.csv", w.project, i), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	answer, b := w.do("GET", at("list", ""), nil)
	if n := strings.Count(string(b), ".csv\""); answer.StatusCode != 200 || n < 10000 {
		t.Errorf("%d with %d files", answer.StatusCode, n)
	}
}
