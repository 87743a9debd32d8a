package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"sort"
	"strings"

	"github.com/evanw/esbuild/pkg/api"
)

// A labBuild makes the files of one bundle from a directory with node_modules and
// a copy of apps/lab/ui.
type labBuild struct {
	work  string
	core  labCore
	files map[string][]byte // by their name below apps/lab/dist
	used  map[string]bool   // directories of the packages that are in them
}

// labCore is what JupyterLab says of itself: its extensions, and the packages that
// prebuilt extensions expect to find instead of bringing them along.
type labCore struct {
	Resolutions map[string]string
	JupyterLab  struct {
		Version                    string
		Extensions, MimeExtensions map[string]string // package, module in it
	}
}

// labLeftOut are JupyterLab's own extensions that are not in the bundle, with why.
var labLeftOut = map[string]string{
	"@jupyterlab/debugger-extension":         "160 KB before the page starts, with the packages only it needs",
	"@jupyterlab/extensionmanager-extension": "installs from the Python package index, by a Python server",
	"@jupyterlab/hub-extension":              "JupyterHub's",
	"@jupyterlab/lsp-extension":              "needs a Python server's language servers",
	"@jupyterlab/mermaid-extension":          "part of it is under the EPL",
	"@jupyterlab/pluginmanager-extension":    "writes a Python server's settings",
}

// labAbsent are packages that a part which is left out would load later.
var labAbsent = regexp.MustCompile(`^(mermaid|@mermaid-js/.*)$`)

// labLicenses are those that let us pass a package on inside of a binary under the
// Apache License, with its notice. A package under any other stops the build.
var labLicenses = map[string]bool{
	"MIT": true, "ISC": true, "0BSD": true, "BSD-2-Clause": true, "BSD-3-Clause": true, "Apache-2.0": true, "Unlicense": true, "CC0-1.0": true,
	"CC-BY-4.0": true, "OFL-1.1": true, // Font Awesome's pictures and fonts
}

// licensed reads an expression like (MPL-2.0 OR Apache-2.0).
func licensed(expression string) bool {
	for choice := range strings.SplitSeq(strings.Trim(expression, "()"), " OR ") {
		all := true
		for part := range strings.SplitSeq(choice, " AND ") {
			all = all && labLicenses[part]
		}
		if all {
			return true
		}
	}
	return false
}

func (l *labBuild) make() (*labManifest, error) {
	raw, err := os.ReadFile(l.module("@jupyterlab/core-meta/core.package.json"))
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(raw, &l.core); err != nil {
		return nil, fmt.Errorf("@jupyterlab/core-meta: %w", err)
	}
	m := &labManifest{Version: l.core.JupyterLab.Version, Shared: map[string]string{}, Files: map[string]labAsset{}}
	for _, do := range []func(*labManifest) error{l.app, l.themes, l.schemas, l.notices} {
		if err := do(m); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (l *labBuild) module(name string) string {
	return filepath.Join(l.work, "node_modules", filepath.FromSlash(name))
}

// names are those of a set of extensions that are in the bundle.
func (l *labBuild) names(set map[string]string) []string {
	var names []string
	for name := range set {
		if labLeftOut[name] == "" {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	return names
}

type labPackage struct {
	Version     string
	StyleModule string
	JupyterLab  struct{ SchemaDir, ThemePath string }
}

func (l *labBuild) about(name string) (p labPackage, err error) {
	raw, err := os.ReadFile(l.module(name + "/package.json"))
	if err != nil {
		return p, err
	}
	if err := json.Unmarshal(raw, &p); err != nil {
		return p, fmt.Errorf("%s/package.json: %w", name, err)
	}
	return p, nil
}

// lists writes two modules: quire:packages has every extension, quire:shared what
// prebuilt extensions share with the app. The second is one module, loaded when
// there are such extensions: one for each package would cut the app itself into
// a hundred pieces.
func (l *labBuild) lists(m *labManifest) (map[string]string, error) {
	var imports, extensions, mime, packages, shared strings.Builder
	n := 0
	add := func(set map[string]string, to *strings.Builder) error {
		for _, name := range l.names(set) {
			p, err := l.about(name)
			if err != nil {
				return err
			}
			n++
			fmt.Fprintf(&imports, "import * as x%d from %q;\n", n, path.Join(name, set[name]))
			if p.StyleModule != "" {
				fmt.Fprintf(&imports, "import %q;\n", path.Join(name, p.StyleModule))
			}
			fmt.Fprintf(to, "[%q, x%d],\n", name, n)
		}
		return nil
	}
	if err := errors.Join(add(l.core.JupyterLab.Extensions, &extensions), add(l.core.JupyterLab.MimeExtensions, &mime)); err != nil {
		return nil, err
	}
	names := make([]string, 0, len(l.core.Resolutions))
	for name := range l.core.Resolutions {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		p, err := l.about(name)
		if errors.Is(err, os.ErrNotExist) {
			continue // of an extension that is left out
		}
		if err != nil {
			return nil, err
		}
		if strings.HasSuffix(name, "/core-meta") || strings.HasSuffix(name, "/metapackage") || strings.HasSuffix(name, "/nbconvert-css") {
			continue // no code
		}
		m.Shared[name] = p.Version
		n++
		fmt.Fprintf(&packages, "import * as x%d from %q;\n", n, name)
		fmt.Fprintf(&shared, "%q: [%q, x%d],\n", name, p.Version, n)
	}
	return map[string]string{
		"quire:packages": imports.String() + "export const extensions = [\n" + extensions.String() + "];\nexport const mime = [\n" + mime.String() + "];\n",
		"quire:shared":   packages.String() + "export const shared = {\n" + shared.String() + "};\n",
	}, nil
}

func (l *labBuild) options(plugins ...api.Plugin) api.BuildOptions {
	loader := map[string]api.Loader{".svg": api.LoaderDataURL}
	for _, ext := range []string{".woff2", ".woff", ".ttf", ".png", ".gif", ".jpg"} {
		loader[ext] = api.LoaderFile
	}
	return api.BuildOptions{
		AbsWorkingDir: l.work, Outdir: "out", Write: false, Bundle: true, Platform: api.PlatformBrowser, Target: api.ES2022,
		MinifyWhitespace: true, MinifySyntax: true, MinifyIdentifiers: true, LegalComments: api.LegalCommentsNone,
		Loader: loader, Metafile: true, LogLevel: api.LogLevelSilent, Plugins: append(plugins, l.addresses()),
	}
}

func build(o api.BuildOptions) (api.BuildResult, labReport, error) {
	result := api.Build(o)
	var report labReport
	if len(result.Errors) > 0 {
		lines := api.FormatMessages(result.Errors, api.FormatMessagesOptions{Kind: api.ErrorMessage})
		return result, report, errors.New("\n" + strings.TrimSpace(strings.Join(lines, "")))
	}
	if err := json.Unmarshal([]byte(result.Metafile), &report); err != nil {
		return result, report, fmt.Errorf("read the bundler's report: %w", err)
	}
	return result, report, nil
}

type labReport struct {
	Outputs map[string]struct {
		EntryPoint, CSSBundle string
		Imports               []struct{ Path, Kind string }
		Inputs                map[string]struct{ BytesInOutput int }
	}
}

// app bundles everything that the page loads, now or later.
func (l *labBuild) app(m *labManifest) error {
	lists, err := l.lists(m)
	if err != nil {
		return err
	}
	patched := map[string]bool{}
	o := l.options(l.virtual(lists), l.patches(patched))
	o.EntryPointsAdvanced = []api.EntryPoint{{InputPath: "./ui/index.ts", OutputPath: "lab"}}
	o.Splitting, o.Format = true, api.FormatESModule
	o.EntryNames, o.ChunkNames, o.AssetNames = "[name]-[hash]", "chunk-[hash]", "[name]-[hash]"
	o.Define = map[string]string{"process.env.NODE_ENV": `"production"`, "process.env": "{}", "global": "globalThis", "__dirname": `"/"`}
	result, report, err := build(o)
	if err != nil {
		return err
	}
	for _, p := range labPatches {
		if !patched[p.file] {
			return fmt.Errorf("%s is not part of the bundle any more; the patch in build/labpatch.go has to be looked at again", p.file)
		}
	}
	for _, f := range result.OutputFiles {
		l.publish(m, "static/"+filepath.Base(f.Path), f.Contents)
	}
	l.note(report)
	return m.start(report)
}

// start fills in what the page has to name: the entry, its style sheet, and every
// module that the entry needs before it runs.
func (m *labManifest) start(report labReport) error {
	var eager []string
	for at, o := range report.Outputs {
		if o.EntryPoint == "ui/index.ts" {
			m.Entry = path.Base(at)
			m.Styles = []string{path.Base(o.CSSBundle)}
			eager = append(eager, at)
		}
	}
	if len(eager) != 1 || m.Styles[0] == "." {
		return errors.New("the bundler's report has no entry with a style sheet")
	}
	seen := map[string]bool{eager[0]: true}
	for len(eager) > 0 {
		at := eager[0]
		eager = eager[1:]
		for _, i := range report.Outputs[at].Imports {
			if i.Kind == "import-statement" && !seen[i.Path] {
				seen[i.Path] = true
				eager = append(eager, i.Path)
				m.Preload = append(m.Preload, path.Base(i.Path))
			}
		}
	}
	sort.Strings(m.Preload)
	return nil
}

// note remembers the packages whose code is in what was made.
func (l *labBuild) note(report labReport) {
	for _, o := range report.Outputs {
		for input, i := range o.Inputs {
			if dir := packageDir(input); dir != "" && i.BytesInOutput > 0 {
				l.used[dir] = true
			}
		}
	}
}

// themes bundles the style sheet of each theme; JupyterLab loads the one it needs.
func (l *labBuild) themes(m *labManifest) error {
	for _, name := range l.names(l.core.JupyterLab.Extensions) {
		p, err := l.about(name)
		if err != nil {
			return err
		}
		if p.JupyterLab.ThemePath == "" {
			continue
		}
		o := l.options()
		o.Loader[".png"], o.Loader[".gif"] = api.LoaderDataURL, api.LoaderDataURL // a theme is one file
		o.EntryPoints = []string{"./node_modules/" + path.Join(name, p.JupyterLab.ThemePath)}
		result, report, err := build(o)
		if err != nil {
			return fmt.Errorf("theme %s: %w", name, err)
		}
		if len(result.OutputFiles) != 1 {
			return fmt.Errorf("theme %s became %d files", name, len(result.OutputFiles))
		}
		m.Themes = append(m.Themes, name)
		l.publish(m, "themes/"+name+"/index.css", result.OutputFiles[0].Contents)
		l.note(report)
	}
	return nil
}

// schemas collects what the settings of each plugin may be.
func (l *labBuild) schemas(m *labManifest) error {
	type schema struct {
		ID      string          `json:"id"`
		Version string          `json:"version"`
		Schema  json.RawMessage `json:"schema"`
	}
	var all []schema
	for _, name := range l.names(l.core.JupyterLab.Extensions) {
		p, err := l.about(name)
		if err != nil {
			return err
		}
		if p.JupyterLab.SchemaDir == "" {
			continue
		}
		found, err := filepath.Glob(l.module(path.Join(name, p.JupyterLab.SchemaDir, "*.json")))
		if err != nil {
			return err
		}
		for _, file := range found {
			plugin := strings.TrimSuffix(filepath.Base(file), ".json")
			if plugin == "package.json.orig" {
				continue
			}
			raw, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			id := name + ":" + plugin
			if raw, err = labDefaults(id, raw); err != nil {
				return err
			}
			all = append(all, schema{ID: id, Version: p.Version, Schema: raw})
		}
	}
	sort.Slice(all, func(i, j int) bool { return all[i].ID < all[j].ID })
	raw, err := json.Marshal(all)
	if err != nil {
		return err
	}
	l.files["schemas.json"] = raw
	return nil
}

// notices writes down what everything in the bundle is under, in the form that
// JupyterLab's page of licenses reads and as text.
func (l *labBuild) notices(m *labManifest) error {
	type entry struct {
		Name      string `json:"name"`
		Version   string `json:"versionInfo"`
		License   string `json:"licenseId"`
		Extracted string `json:"extractedText"`
	}
	dirs := make([]string, 0, len(l.used))
	for dir := range l.used {
		dirs = append(dirs, dir)
	}
	sort.Strings(dirs)
	var list []entry
	var text strings.Builder
	text.WriteString("JupyterLab in Quire contains code of these packages.\n")
	for _, dir := range dirs {
		about, err := readLicense(filepath.Join(l.work, filepath.FromSlash(dir)))
		if err != nil {
			return err
		}
		if !licensed(about.License) {
			return fmt.Errorf("%s %s is under %q, which is not among the licenses that build/labbundle.go lets into the binary", about.Name, about.Version, about.License)
		}
		list = append(list, entry{about.Name, about.Version, about.License, about.Text})
		text.WriteString("\n" + strings.Repeat("-", 78) + "\n" + about.notice())
	}
	var raw bytes.Buffer
	e := json.NewEncoder(&raw)
	e.SetEscapeHTML(false)
	if err := e.Encode(map[string]any{"bundles": map[string]any{"JupyterLab": map[string]any{"packages": list}}}); err != nil {
		return err
	}
	l.publish(m, "licenses.json", raw.Bytes())
	l.publish(m, "NOTICES.txt", []byte(text.String()))
	return nil
}
