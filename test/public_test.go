package test

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"
)

// read follows the address as a program without cookies or script does.
func read(t *testing.T, ctx context.Context, address string) (status int, text string, at *url.URL) {
	t.Helper()
	b := NewBrowser("")
	defer b.Close()
	for range 5 {
		req, err := http.NewRequestWithContext(ctx, "GET", address, nil)
		if err != nil {
			t.Fatal(err)
		}
		p, err := b.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		to, err := p.URL.Parse(p.Header.Get("Location"))
		if p.Header.Get("Location") == "" || err != nil {
			return p.Status, p.Body, p.URL
		}
		address = to.String()
	}
	t.Fatalf("%s leads from one place to the next", address)
	return 0, "", nil
}

// The public folder of a project, a private one too, is read at an address that
// stays, by whom the site lets, as an account that owns nothing. Nothing else
// of the project is (F-13, V-08).
func TestPublicFolder(t *testing.T) {
	s := Up(t)
	ctx := within(t, 3*time.Minute)
	ada := s.Admin(ctx, "ada", password)
	ben := s.Person(ctx, ada, "ben", password)
	running(t, ctx, ada, "/ada/Welcome")
	onDisk(t, ctx, ada, "/ada/Welcome")
	const dir = "/projects/ada/Welcome"
	must(t, "ada", `cd `+dir+` && echo 'the secret' > secret.txt && cd public && echo 'for all' > open.txt && ln -s ../secret.txt out && ln -s /etc/passwd passwd && mkfifo pipe &&
		ln ../secret.txt hard && echo 'closed' > closed.txt && chmod 600 closed.txt && truncate -s 1T huge.bin && mkdir -p sub && echo '<script>1</script>' > sub/x.html && echo 'name' > $'new\nline <b>.txt'`)
	folder := s.Portal + "/ada/Welcome/public"

	// Signed in, and in no team.
	p, err := ben.Open(ctx, folder+"/open.txt?raw=1")
	if err != nil || p.Status != 200 || strings.TrimSpace(p.Body) != "for all" {
		t.Fatalf("%d %s %v", p.Status, p.Body, err)
	}
	if ben.Cookies(p.URL.Host) != "" || p.URL.Host == strings.TrimPrefix(s.Portal, "http://") {
		t.Errorf("%s has cookies %q", p.URL, ben.Cookies(p.URL.Host))
	}
	for _, line := range processesOf("quire-visitor") {
		if !strings.Contains(line, "viewer") && !strings.Contains(line, "keep") {
			t.Errorf("a visitor runs %s", line)
		}
	}
	base := p.URL.Scheme + "://" + p.URL.Host + strings.TrimSuffix(p.URL.Path, "/open.txt")
	for name, want := range map[string]struct {
		status int
		word   string
	}{
		"/":                         {200, "open.txt"},
		"/out":                      {404, ""},
		"/passwd":                   {404, ""},
		"/hard?raw=1":               {403, ""},
		"/closed.txt?raw=1":         {403, ""},
		"/pipe":                     {400, ""},
		"/../secret.txt":            {404, ""},
		"/%2e%2e/secret.txt":        {404, ""},
		"/..%2fsecret.txt":          {404, ""},
		"/sub/../../secret.txt":     {404, ""},
		"/sub/x.html?raw=1":         {200, ""},
		"/huge.bin":                 {200, ""},
		"/new%0Aline%20%3Cb%3E.txt": {200, "name"},
	} {
		status, text, _ := read(t, ctx, base+name)
		if status != want.status || !strings.Contains(text, want.word) || strings.Contains(text, "the secret") || strings.Contains(text, "root:") {
			t.Errorf("%s: %d %.200s", name, status, text)
		}
	}
	// Private it stays: neither its page nor its Viewer is there for him.
	for _, path := range []string{"/ada/Welcome", "/ada/Welcome/viewer/", "/ada/Welcome/visitor/"} {
		if p, err := ben.Open(ctx, s.Portal+path); err != nil || p.Status != 404 {
			t.Errorf("%s: %d %v", path, p.Status, err)
		}
	}
	// What is not there, and what never was: one answer.
	if p, err := ben.Open(ctx, s.Portal+"/ada/nothing/public/"); err != nil || p.Status != 404 {
		t.Errorf("%d %v", p.Status, err)
	}
	// Nobody signed in, and the site lets nobody.
	if status, text, at := read(t, ctx, folder+"/open.txt?raw=1"); status != 401 || strings.Contains(text, "for all") {
		t.Errorf("%d %s", status, at)
	}
	// An address that was passed on reads for as long as its giver is signed in.
	if status, _, _ := read(t, ctx, base+"/open.txt?raw=1"); status != 200 {
		t.Errorf("a passed-on address: %d", status)
	}
	if err := ben.API(ctx, "POST", "/logout", map[string]any{}, nil); err != nil {
		t.Fatal(err)
	}
	Eventually(t, 5*time.Second, "the address ends with the login", func() error {
		if status, _, _ := read(t, ctx, base+"/open.txt?raw=1"); status != 401 {
			return fmt.Errorf("%d", status)
		}
		return nil
	})

	// A stopped project is read as well, and by everybody once the site says so.
	if err := ada.API(ctx, "POST", "/projects/ada/Welcome/stop", map[string]any{}, nil); err != nil {
		t.Fatal(err)
	}
	s.End()
	if err := os.WriteFile("/etc/quire/quire.conf", []byte(`{"anonymous": "read-public"}`), 0o644); err != nil {
		t.Fatal(err)
	}
	s.Start()
	Eventually(t, 20*time.Second, "everybody reads", func() error {
		if status, text, _ := read(t, ctx, folder+"/open.txt?raw=1"); status != 200 || strings.TrimSpace(text) != "for all" {
			return fmt.Errorf("%d %s", status, text)
		}
		return nil
	})
	if status, text, _ := read(t, ctx, s.Portal+"/ada/Welcome"); status != 401 {
		t.Errorf("the project's page: %d %.100s", status, text)
	}
	// A public project is read as a whole, by each as his own account, and by
	// nobody outside the team once it is private again.
	if err := ada.API(ctx, "PATCH", "/projects/ada/Welcome", map[string]any{"public": true}, nil); err != nil {
		t.Fatal(err)
	}
	onDisk(t, ctx, ada, "/ada/Welcome")
	wants(t, "a public project", dir, "other::r-x", "default:other::r-x")
	wants(t, "its files", dir+"/Welcome.ipynb", "other::r--")
	ben = s.SignIn(ctx, "ben", password)
	viewer, err := ben.OpenApp(ctx, "/ada/Welcome", "viewer")
	if err != nil {
		t.Fatal(err)
	}
	Eventually(t, 30*time.Second, "a stranger's Viewer shows it", func() error {
		p, err := ben.Open(ctx, viewer.JoinPath("Welcome.ipynb").String()+"?raw=1")
		if err != nil || p.Status != 200 || !strings.Contains(p.Body, "nbformat") {
			return fmt.Errorf("%d %w", p.Status, err)
		}
		return nil
	})
	must(t, "ben", "cat "+dir+"/Welcome.ipynb")
	if out, err := as("ben", "echo x >> "+dir+"/Welcome.ipynb || touch "+dir+"/his"); err == nil {
		t.Errorf("a stranger writes: %s", out)
	}
	if err := ada.API(ctx, "PATCH", "/projects/ada/Welcome", map[string]any{"public": false}, nil); err != nil {
		t.Fatal(err)
	}
	onDisk(t, ctx, ada, "/ada/Welcome")
	wants(t, "a private project", dir, "other::--x", "default:other::---")
	if out, err := as("ben", "cat "+dir+"/Welcome.ipynb || ls "+dir); err == nil {
		t.Errorf("a stranger reads: %s", out)
	}
	if p, err := ben.Open(ctx, viewer.String()); err != nil || p.Status == 200 {
		t.Errorf("his Viewer is still open: %v", err)
	}
	var people []struct{ Name string }
	if err := ada.API(ctx, "GET", "/users", nil, &people); err != nil || len(people) != 2 {
		t.Errorf("the visitor counts as a person: %v %v", people, err)
	}
}
