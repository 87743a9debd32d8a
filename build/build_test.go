package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// site is a small repository with a made-up package, so that the tests need
// neither the network nor what the pages happen to look like today.
func site(t *testing.T) *builder {
	t.Helper()
	root := t.TempDir()
	for name, content := range map[string]string{
		"go.mod":                                    "module site\n",
		"package-lock.json":                         "{}",
		"web/dist/" + kept:                          "kept",
		"web/dist/old-AAAAAAAA.js":                  "left by an earlier build",
		"web/ui/one/index.ts":                       "import {shout} from \"@made/up\"; import icon from \"lucide-static/icons/dot.svg\"; const big: string = shout(icon); document.title = big; export const later = () => import(\"../shared/later\");",
		"web/ui/one/index.css":                      "@import \"../shared/base.css\"; .a { mask: url(\"lucide-static/icons/dot.svg\"); background: url(./face.png) }",
		"web/ui/one/face.png":                       "not really a picture",
		"web/ui/two/index.ts":                       "import \"./two.css\"; export const two = 2; void import(\"../shared/later\");",
		"web/ui/two/two.css":                        "b { color: red }",
		"web/ui/shared/base.css":                    "a { color: #ff0000 }",
		"web/ui/shared/later.ts":                    "import \"unused\"; document.body.append(\"later\");",
		"web/ui/static/logo.svg":                    "<svg xmlns=\"http://www.w3.org/2000/svg\">" + strings.Repeat("<g></g>", 99) + "</svg>",
		"node_modules/@made/up/index.js":            "export function shout(s) { return s.toUpperCase() + \"!\" } export function unused() { return \"never bundled\" }",
		"node_modules/@made/up/LICENSE":             "Permission is granted to shout.",
		"node_modules/unused/index.js":              "",
		"node_modules/unused/package.json":          `{"name":"unused","version":"9.9.9","license":"MIT","main":"index.js","sideEffects":false}`,
		"node_modules/@made/up/package.json":        `{"name":"@made/up","version":"1.2.3","license":"MIT","main":"index.js"}`,
		"node_modules/lucide-static/package.json":   `{"name":"lucide-static","version":"0.1.0","license":"ISC"}`,
		"node_modules/lucide-static/icons/dot.svg":  "<!-- @license -->\n<svg\n  class=\"dot\"\n>\n  <path d=\"M1 1\" />\n</svg>\n",
		"node_modules/lucide-static/icons/none.txt": "",
	} {
		write(t, filepath.Join(root, name), content)
	}
	return &builder{root: root, state: filepath.Join(root, "bin/.built"), output: "bin/quire"}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func dist(t *testing.T, b *builder) map[string]string {
	t.Helper()
	files := map[string]string{}
	found, err := os.ReadDir(b.path("web/dist"))
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range found {
		raw, err := os.ReadFile(b.path("web/dist", d.Name()))
		if err != nil {
			t.Fatal(err)
		}
		files[d.Name()] = string(raw)
	}
	return files
}

func manifest(t *testing.T, files map[string]string) map[string]string {
	t.Helper()
	var m map[string]string
	if err := json.Unmarshal([]byte(files["manifest.json"]), &m); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestBundles(t *testing.T) {
	b := site(t)
	if _, err := b.bundles(); err != nil {
		t.Fatal(err)
	}
	files := dist(t, b)
	m := manifest(t, files)
	for name, form := range map[string]string{
		"one.js": `^one-[A-Z2-7]{8}\.js$`, "one.css": `^one-[A-Z2-7]{8}\.css$`, "two.js": `^two-[A-Z2-7]{8}\.js$`, "two.css": `^two-[A-Z2-7]{8}\.css$`, "logo.svg": `^logo-[A-Z2-7]{8}\.svg$`,
	} {
		if !regexp.MustCompile(form).MatchString(m[name]) || files[m[name]] == "" {
			t.Errorf("the manifest has %q for %s; want a file like %s", m[name], name, form)
		}
	}
	if len(m) != 5 {
		t.Errorf("the manifest is %v", m)
	}
	js, css := files[m["one.js"]], files[m["one.css"]]
	if !strings.Contains(js, `<svg class="dot"><path d="M1 1"/></svg>`) || strings.Contains(js, "never bundled") || strings.Contains(js, "sourceMappingURL") {
		t.Errorf("one.js is %s", js)
	}
	if !strings.Contains(css, "data:image/svg+xml,") || !strings.Contains(css, "a{color:red}") || !regexp.MustCompile(`url\(["']?\./face-[A-Z2-7]{8}\.png`).MatchString(css) {
		t.Errorf("one.css is %s", css)
	}
	chunks := 0
	for name, content := range files {
		if strings.HasPrefix(name, "chunk-") || strings.HasPrefix(name, "later-") {
			chunks++
		}
		packed, ok := strings.CutSuffix(name, ".gz")
		if !ok {
			continue
		}
		r, err := gzip.NewReader(strings.NewReader(content))
		if err != nil {
			t.Fatal(err)
		}
		if whole, err := io.ReadAll(r); err != nil || string(whole) != files[packed] {
			t.Errorf("%s is not %s (%v)", name, packed, err)
		}
	}
	if chunks == 0 {
		t.Errorf("code both pages load later is not a file of its own: %v", m)
	}
	if files[m["logo.svg"]+".gz"] == "" {
		t.Error("the logo is not compressed")
	}
	if _, ok := files["old-AAAAAAAA.js"]; ok || files[kept] != "kept" {
		t.Error("web/dist keeps old bundles or lost its placeholder")
	}
}

func TestNoticesNameWhatIsBundled(t *testing.T) {
	b := site(t)
	if _, err := b.bundles(); err != nil {
		t.Fatal(err)
	}
	notices := dist(t, b)["NOTICES.txt"]
	for _, want := range []string{"@made/up 1.2.3 (MIT)\n\nPermission is granted to shout.", "lucide-static 0.1.0 (ISC"} {
		if !strings.Contains(notices, want) {
			t.Errorf("the notices lack %q:\n%s", want, notices)
		}
	}
	if strings.Contains(notices, "unused") {
		t.Errorf("the notices name a package that is in no bundle:\n%s", notices)
	}
	write(t, b.path("node_modules/@made/up/package.json"), `{"name":"@made/up","version":"1.2.3","main":"index.js"}`)
	if err := os.Remove(b.path("node_modules/@made/up/LICENSE")); err != nil {
		t.Fatal(err)
	}
	if _, err := b.bundle(); err == nil || !strings.Contains(err.Error(), "@made/up") {
		t.Errorf("a package without any license was bundled: %v", err)
	}
}

func TestEqualInputGivesEqualFiles(t *testing.T) {
	a, b := site(t), site(t) // two places on the disk
	for _, x := range []*builder{a, b} {
		if _, err := x.bundles(); err != nil {
			t.Fatal(err)
		}
	}
	one, two := dist(t, a), dist(t, b)
	for name, content := range one {
		if two[name] != content {
			t.Errorf("%s differs between two clones", name)
		}
	}
	write(t, b.path("web/ui/shared/base.css"), "a { color: blue }")
	if _, err := b.bundles(); err != nil {
		t.Fatal(err)
	}
	before, after := manifest(t, one), manifest(t, dist(t, b))
	if before["one.css"] == after["one.css"] {
		t.Error("a changed style sheet kept its name")
	}
	if before["two.js"] != after["two.js"] || before["logo.svg"] != after["logo.svg"] {
		t.Error("an unchanged bundle got another name")
	}
}

func TestUnchangedInputIsNotBundledAgain(t *testing.T) {
	b := site(t)
	did := func() string {
		t.Helper()
		s, err := b.bundles()
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	if first, second := did(), did(); first == "unchanged" || second != "unchanged" {
		t.Errorf("did %q, then %q", first, second)
	}
	gone := filepath.Join(b.root, "web/dist", manifest(t, dist(t, b))["one.js"])
	if err := os.Remove(gone); err != nil {
		t.Fatal(err)
	}
	if again := did(); again == "unchanged" {
		t.Error("a missing bundle was not made again")
	}
	if _, err := os.Stat(gone); err != nil {
		t.Error(err)
	}
	write(t, b.path("web/ui/three/index.css"), "i { color: red }")
	if again := did(); again == "unchanged" {
		t.Error("a new bundle was not noticed")
	}
}

func TestErrorsOfTheBundlerAreShown(t *testing.T) {
	b := site(t)
	write(t, b.path("web/ui/one/index.ts"), "import \"./missing\"; const = 3")
	if _, err := b.bundles(); err == nil || !strings.Contains(err.Error(), "index.ts") {
		t.Errorf("the error is %v", err)
	}
	write(t, b.path("web/ui/one/index.ts"), "import \"../two/two.css\"")
	if _, err := b.bundles(); err == nil || !strings.Contains(err.Error(), "not both") {
		t.Errorf("two style sheets of one name: %v", err)
	}
}

func TestPackagesAreLeftAloneWhenTheyMatch(t *testing.T) {
	b := site(t)
	t.Setenv("PATH", "") // npm must not be needed
	if _, err := b.packages(); err == nil || !strings.Contains(err.Error(), "npm is missing") {
		t.Errorf("without npm: %v", err)
	}
	write(t, b.path("node_modules/.quire-lock"), digest([]byte("{}")))
	if did, err := b.packages(); err != nil || did != "unchanged" {
		t.Errorf("%q, %v", did, err)
	}
	write(t, b.path("package-lock.json"), `{"other":1}`)
	if _, err := b.packages(); err == nil {
		t.Error("a changed lock file was not noticed")
	}
}

// What is committed must install without naming any host.
func TestLockFileNamesNoHost(t *testing.T) {
	for _, name := range []string{"package-lock.json", ".npmrc"} {
		raw, err := os.ReadFile(filepath.Join("..", name))
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(raw, []byte(`"resolved"`)) || bytes.Contains(raw, []byte("registry=")) {
			t.Errorf("%s names a registry", name)
		}
	}
	raw, err := os.ReadFile("../package.json")
	if err != nil {
		t.Fatal(err)
	}
	var p struct{ Dependencies, DevDependencies map[string]string }
	if err := json.Unmarshal(raw, &p); err != nil {
		t.Fatal(err)
	}
	for _, set := range []map[string]string{p.Dependencies, p.DevDependencies} {
		for name, version := range set {
			if !regexp.MustCompile(`^\d+\.\d+\.\d+$`).MatchString(version) {
				t.Errorf("%s is pinned to %q, want one exact version", name, version)
			}
		}
	}
}

func TestStepsAreNamedAndTimed(t *testing.T) {
	var out strings.Builder
	err := perform([]step{
		{"first", func() (string, error) { return "did this", nil }},
		{"second", func() (string, error) { return "", os.ErrPermission }},
	}, &out)
	if err == nil || !strings.HasPrefix(err.Error(), "second: ") || !regexp.MustCompile(`(?m)^first +\d+\.\d\d s  did this$`).MatchString(out.String()) {
		t.Errorf("%v\n%s", err, out.String())
	}
}
