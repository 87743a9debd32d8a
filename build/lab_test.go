package main

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// labSite is a made-up JupyterLab: one extension with settings, one theme and what
// the build has to know of the packages.
func labSite(t *testing.T) *labBuild {
	t.Helper()
	work := t.TempDir()
	for name, content := range map[string]string{
		"ui/index.ts": "import { extensions, mime } from 'quire:packages'; import './own.css'; document.title = String(extensions.length + mime.length); void import('quire:shared');",
		"ui/own.css":  ".own { color: red }",
		"node_modules/@jupyterlab/core-meta/package.json": `{"name":"@jupyterlab/core-meta","version":"9.8.7","license":"BSD-3-Clause"}`,
		"node_modules/@jupyterlab/core-meta/core.package.json": `{"resolutions":{"@jupyterlab/core-meta":"1","@jupyterlab/one-extension":"1","plain":"1","@jupyterlab/debugger":"1"},
			"jupyterlab":{"version":"9.8.7","extensions":{"@jupyterlab/one-extension":"","@jupyterlab/dark-extension":"","@jupyterlab/hub-extension":""},"mimeExtensions":{"@jupyterlab/mime-extension":"lib/mime.js"}}}`,
		"node_modules/@jupyterlab/one-extension/package.json":     `{"name":"@jupyterlab/one-extension","version":"1.0.1","license":"BSD-3-Clause","main":"lib/index.js","styleModule":"style/index.js","jupyterlab":{"extension":true,"schemaDir":"schema"}}`,
		"node_modules/@jupyterlab/one-extension/lib/index.js":     "import '@jupyterlab/rendermime/lib/renderers.js'; import icon from '../style/icon.svg'; import 'mermaid'; export default { id: icon, later: () => import('plain') };",
		"node_modules/@jupyterlab/one-extension/style/index.js":   "import './base.css';",
		"node_modules/@jupyterlab/one-extension/style/base.css":   "@import url('~plain/plain.css'); .one { background: url('./icon.svg') }",
		"node_modules/@jupyterlab/one-extension/style/icon.svg":   "<svg>the icon</svg>",
		"node_modules/@jupyterlab/one-extension/schema/some.json": `{"title":"Some"}`,
		"node_modules/@jupyterlab/one-extension/LICENSE":          "Keep this notice.",
		"node_modules/@jupyterlab/dark-extension/package.json":    `{"name":"@jupyterlab/dark-extension","version":"1.0.2","license":"BSD-3-Clause","main":"index.js","jupyterlab":{"extension":true,"themePath":"theme.css"}}`,
		"node_modules/@jupyterlab/dark-extension/index.js":        "export default { id: 'dark' };",
		"node_modules/@jupyterlab/dark-extension/theme.css":       ":root { --dark: 1 }",
		"node_modules/@jupyterlab/mime-extension/package.json":    `{"name":"@jupyterlab/mime-extension","version":"1.0.3","license":"BSD-3-Clause"}`,
		"node_modules/@jupyterlab/mime-extension/lib/mime.js":     "export default { id: 'mime' };",
		"node_modules/@jupyterlab/rendermime/package.json":        `{"name":"@jupyterlab/rendermime","version":"1.0.4","license":"BSD-3-Clause"}`,
		"node_modules/@jupyterlab/rendermime/lib/renderers.js":    "export const f = (clone, script) => { clone.textContent = script.textContent; }; globalThis.f = f;",
		"node_modules/plain/package.json":                         `{"name":"plain","version":"2.0.0","license":"MIT","main":"index.js"}`,
		"node_modules/plain/index.js":                             "exports.__esModule = true; exports.named = 'of CommonJS';",
		"node_modules/plain/plain.css":                            ".plain { color: blue }",
	} {
		write(t, filepath.Join(work, name), content)
	}
	return &labBuild{work: work, files: map[string][]byte{}, used: map[string]bool{}}
}

func TestLabBundle(t *testing.T) {
	l := labSite(t)
	m, err := l.make()
	if err != nil {
		t.Fatal(err)
	}
	entry, css := string(l.files["static/"+m.Entry]), ""
	if len(m.Styles) == 1 {
		css = string(l.files["static/"+m.Styles[0]])
	}
	var all strings.Builder
	for name, content := range l.files {
		if strings.HasPrefix(name, "static/") {
			all.Write(content)
		}
	}
	if !regexp.MustCompile(`^lab-[A-Z0-9]{8}\.js$`).MatchString(m.Entry) || m.Version != "9.8.7" || entry == "" {
		t.Errorf("%+v", m)
	}
	for what, has := range map[string]bool{
		"an icon as text":                      strings.Contains(all.String(), "<svg>the icon</svg>"),
		"the style of an extension":            strings.Contains(css, ".one{"),
		"a style sheet by a tilde":             strings.Contains(css, ".plain{"),
		"our own style":                        strings.Contains(css, ".own{"),
		"the nonce of trusted scripts":         strings.Contains(all.String(), "script[nonce]"),
		"a sentence for what is left out":      strings.Contains(all.String(), "is not in Quire"),
		"the theme":                            strings.Contains(string(l.files["themes/@jupyterlab/dark-extension/index.css"]), "--dark: 1") && len(m.Themes) == 1,
		"the schema":                           string(l.files["schemas.json"]) == `[{"id":"@jupyterlab/one-extension:some","version":"1.0.1","schema":{"title":"Some"}}]`,
		"the notice":                           strings.Contains(string(l.files["licenses.json"]), "Keep this notice.") && strings.Contains(string(l.files["NOTICES.txt"]), "plain 2.0.0 (MIT"),
		"the share scope":                      len(m.Shared) == 2 && m.Shared["plain"] == "2.0.0" && m.Shared["@jupyterlab/one-extension"] == "1.0.1",
		"the share scope apart from the start": !strings.Contains(entry, `"2.0.0"`) && strings.Contains(all.String(), `"2.0.0"`),
	} {
		if !has {
			t.Errorf("the bundle lacks %s", what)
		}
	}
	again := labSite(t) // at another place on the disk
	n, err := again.make()
	if err != nil {
		t.Fatal(err)
	}
	if n.Entry != m.Entry || n.Styles[0] != m.Styles[0] {
		t.Errorf("equal sources became %s and %s", m.Entry, n.Entry)
	}
}

func TestLabBundleRefuses(t *testing.T) {
	for name, c := range map[string]struct{ file, content, says string }{
		"a license that is not ours to pass on": {"node_modules/plain/package.json", `{"name":"plain","version":"2.0.0","license":"EPL-2.0","main":"index.js"}`, "EPL-2.0"},
		"no license at all":                     {"node_modules/plain/package.json", `{"name":"plain","version":"2.0.0","main":"index.js"}`, "names no license"},
		"another renderer than we know":         {"node_modules/@jupyterlab/rendermime/lib/renderers.js", "export const f = 1; globalThis.f = f;", "build/labpatch.go"},
		"a renderer that nobody uses":           {"node_modules/@jupyterlab/one-extension/lib/index.js", "export default { id: 'x', later: () => import('plain') };", "build/labpatch.go"},
		"what does not parse":                   {"ui/index.ts", "const = 1", "index.ts"},
	} {
		t.Run(name, func(t *testing.T) {
			l := labSite(t)
			write(t, filepath.Join(l.work, c.file), c.content)
			if _, err := l.make(); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestLabLicenses(t *testing.T) {
	for name, ok := range map[string]bool{
		"MIT": true, "BSD-3-Clause": true, "(CC-BY-4.0 AND OFL-1.1 AND MIT)": true, "(MPL-2.0 OR Apache-2.0)": true, "0BSD": true,
		"EPL-2.0": false, "GPL-3.0": false, "MPL-2.0": false, "AGPL-3.0-only": false, "MIT AND GPL-3.0": false, "SEE LICENSE IN x": false, "UNLICENSED": false,
	} {
		if licensed(name) != ok {
			t.Errorf("%s: let in is %v", name, !ok)
		}
	}
}

func TestLabDefaults(t *testing.T) {
	const id = "@jupyterlab/apputils-extension:themes"
	const schema = `{"properties": {"adaptive-theme": {"title": "A", "default": false}, "other": {"default": false}}}`
	got, err := labDefaults(id, []byte(schema))
	if err != nil || string(got) != strings.Replace(schema, "false", "true", 1) {
		t.Errorf("%s, %v", got, err)
	}
	if _, err := labDefaults(id, []byte(`{"properties": {}}`)); err == nil {
		t.Error("a schema that has lost what we change was taken")
	}
	if got, err := labDefaults("@a/b:c", []byte(schema)); err != nil || string(got) != schema {
		t.Errorf("%s, %v", got, err)
	}
}

// The cache is shared by clones, so what it goes by is what files hold.
func TestLabKey(t *testing.T) {
	clone := func() *builder {
		root := t.TempDir()
		for name, content := range map[string]string{"build/a.go": "a", "build/a_test.go": "t", "go.sum": "s", "package-lock.json": "l", labUI + "/index.ts": "i", labUI + "/package-lock.json": "p"} {
			write(t, filepath.Join(root, name), content)
		}
		return &builder{root: root, out: io.Discard}
	}
	key := func(b *builder) string {
		k, err := b.labKey()
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	a, b := clone(), clone()
	if key(a) != key(b) {
		t.Error("equal clones have different keys")
	}
	write(t, b.path("build/a_test.go"), "other")
	if key(a) != key(b) {
		t.Error("a test is no part of the bundle")
	}
	for _, name := range []string{"build/a.go", "go.sum", labUI + "/index.ts", labUI + "/new.ts", labUI + "/package-lock.json"} {
		before := key(b)
		write(t, b.path(name), "changed")
		if key(b) == before {
			t.Errorf("a change of %s was not noticed", name)
		}
	}
}

func TestMirror(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	for name, content := range map[string]string{"manifest.json": `{"key":"K","files":{"static/a.js":{"packed":true},"b.woff2":{}}}`, "static/a.js.br": "A", "b.woff2": "B", "same": "S"} {
		write(t, filepath.Join(from, name), content)
	}
	for name, content := range map[string]string{kept: "kept", "old/x.js": "X", "same": "S", "b.woff2": "older"} {
		write(t, filepath.Join(to, name), content)
	}
	before := changed(filepath.Join(to, "same"))
	if err := mirror(from, to); err != nil {
		t.Fatal(err)
	}
	b := &builder{}
	if !b.labHas(to, "K") || b.labHas(to, "L") {
		t.Error("the bundle is not there")
	}
	for name, want := range map[string]string{kept: "kept", "b.woff2": "B", "same": "S"} {
		if got, err := os.ReadFile(filepath.Join(to, name)); err != nil || string(got) != want {
			t.Errorf("%s is %q, %v", name, got, err)
		}
	}
	if changed(filepath.Join(to, "same")) != before {
		t.Error("an equal file was written again")
	}
	if _, err := os.Stat(filepath.Join(to, "old/x.js")); err == nil {
		t.Error("what an earlier bundle had is still there")
	}
	if err := os.Remove(filepath.Join(to, "static/a.js.br")); err != nil {
		t.Fatal(err)
	}
	if b.labHas(to, "K") {
		t.Error("half of a bundle counts as one")
	}
}

func TestPrune(t *testing.T) {
	cache := t.TempDir()
	at := func(name string) string { return filepath.Join(cache, name) }
	for _, name := range []string{"bundle-1", "bundle-2", "bundle-3", "packages-1", "other"} {
		write(t, at(name+"/f"), name)
	}
	prune(cache, at("bundle-1"), at("packages-1"))
	found, err := filepath.Glob(at("bundle-*"))
	if err != nil {
		t.Fatal(err)
	}
	if len(found) != 2 || found[0] != at("bundle-1") {
		t.Errorf("%v", found)
	}
	for _, name := range []string{"packages-1/f", "other/f"} {
		if _, err := os.Stat(at(name)); err != nil {
			t.Error(err)
		}
	}
}

// One set of packages: a second copy of one of these is a second world, whose
// plugins the first does not know.
func TestLabLockFile(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join("..", labUI, "package-lock.json"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(raw), `"resolved"`) {
		t.Error("the lock file names a registry")
	}
	var lockFile struct {
		Packages map[string]struct{ Version, Integrity string }
	}
	if err := json.Unmarshal(raw, &lockFile); err != nil {
		t.Fatal(err)
	}
	single := regexp.MustCompile(`node_modules/(@jupyterlab/[^/]+|@lumino/[^/]+|@jupyter/ydoc|react|react-dom|yjs|@microsoft/fast-foundation|@codemirror/(state|view|language))$`)
	count := map[string]int{}
	for name, p := range lockFile.Packages {
		if name != "" && p.Integrity == "" {
			t.Errorf("%s has no digest", name)
		}
		if m := single.FindStringSubmatch(name); m != nil {
			count[m[1]]++
		}
	}
	for name, n := range count {
		if n > 1 {
			t.Errorf("%s is there %d times", name, n)
		}
	}
	if len(count) < 80 || lockFile.Packages["node_modules/@microsoft/fast-foundation"].Version != "2.49.4" || lockFile.Packages["node_modules/react"].Version != "18.3.1" {
		t.Errorf("%d packages; fast-foundation is %s, react %s", len(count), lockFile.Packages["node_modules/@microsoft/fast-foundation"].Version, lockFile.Packages["node_modules/react"].Version)
	}
	raw, err = os.ReadFile(filepath.Join("..", labUI, "package.json"))
	if err != nil {
		t.Fatal(err)
	}
	var p struct{ Dependencies, DevDependencies map[string]string }
	if err := json.Unmarshal(raw, &p); err != nil {
		t.Fatal(err)
	}
	for _, list := range []map[string]string{p.Dependencies, p.DevDependencies} {
		for name, version := range list {
			if strings.Trim(version, "0123456789.") != "" {
				t.Errorf("%s is pinned to %q, want one exact version", name, version)
			}
		}
	}
}
