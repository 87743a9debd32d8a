package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/evanw/esbuild/pkg/api"
)

// A labPatch changes one place of one file of a package. A package whose file no
// longer has that place stops the build.
type labPatch struct{ file, old, new string }

var labPatches = []labPatch{
	// Scripts in an output run when JupyterLab trusts it, and no others may. The
	// page's policy lets scripts run that carry its nonce; this is the one place
	// where an output's scripts get it, so that one that slipped past the sanitizer
	// stays text.
	{"@jupyterlab/rendermime/lib/renderers.js", "clone.textContent = script.textContent;",
		"clone.nonce = document.querySelector('script[nonce]')?.nonce ?? ''; clone.textContent = script.textContent;"},
}

// labDefaults changes the defaults of settings that Quire wants otherwise. A person
// can set them as everywhere.
func labDefaults(id string, schema []byte) ([]byte, error) {
	if id != "@jupyterlab/apputils-extension:themes" {
		return schema, nil
	}
	// Light or dark is the browser's choice, as in the portal.
	const was = `"adaptive-theme": {`
	var s struct {
		Properties map[string]map[string]any
	}
	if err := json.Unmarshal(schema, &s); err != nil {
		return nil, fmt.Errorf("schema of %s: %w", id, err)
	}
	if on, ok := s.Properties["adaptive-theme"]["default"].(bool); !ok || on || bytes.Count(schema, []byte(was)) != 1 {
		return nil, fmt.Errorf("schema of %s: adaptive-theme is not what it was; look at build/labpatch.go again", id)
	}
	at := bytes.Index(schema, []byte(was))
	end := at + bytes.IndexByte(schema[at:], '}')
	changed := bytes.Replace(schema[at:end], []byte(`"default": false`), []byte(`"default": true`), 1)
	return append(append(append([]byte{}, schema[:at]...), changed...), schema[end:]...), nil
}

// virtual gives the modules that are lists their text and what is left out none.
func (l *labBuild) virtual(lists map[string]string) api.Plugin {
	absent := `throw new Error("This part of JupyterLab is not in Quire.")`
	return api.Plugin{Name: "virtual", Setup: func(b api.PluginBuild) {
		b.OnResolve(api.OnResolveOptions{Filter: `^quire:`}, func(a api.OnResolveArgs) (api.OnResolveResult, error) {
			return api.OnResolveResult{Path: a.Path, Namespace: "virtual"}, nil
		})
		b.OnLoad(api.OnLoadOptions{Filter: `.*`, Namespace: "virtual"}, func(a api.OnLoadArgs) (api.OnLoadResult, error) {
			text, ok := lists[a.Path]
			if !ok {
				return api.OnLoadResult{}, fmt.Errorf("there is no %s", a.Path)
			}
			return api.OnLoadResult{Contents: &text, Loader: api.LoaderJS, ResolveDir: l.work}, nil
		})
		b.OnResolve(api.OnResolveOptions{Filter: labAbsent.String()}, func(a api.OnResolveArgs) (api.OnResolveResult, error) {
			return api.OnResolveResult{Path: a.Path, Namespace: "absent"}, nil
		})
		b.OnLoad(api.OnLoadOptions{Filter: `.*`, Namespace: "absent"}, func(a api.OnLoadArgs) (api.OnLoadResult, error) {
			return api.OnLoadResult{Contents: &absent, Loader: api.LoaderJS}, nil
		})
	}}
}

// addresses reads what JupyterLab's packages write for webpack: an SVG imported by
// a script is its text, and so is a style sheet called .raw.css; a tilde stands
// for node_modules.
func (l *labBuild) addresses() api.Plugin {
	resolve := func(b api.PluginBuild, a api.OnResolveArgs, name string) (string, error) {
		r := b.Resolve(name, api.ResolveOptions{ResolveDir: a.ResolveDir, Kind: a.Kind, Importer: a.Importer, PluginData: "resolved"})
		if len(r.Errors) > 0 {
			return "", fmt.Errorf("%s: %s", name, r.Errors[0].Text)
		}
		return r.Path, nil
	}
	return api.Plugin{Name: "addresses", Setup: func(b api.PluginBuild) {
		b.OnResolve(api.OnResolveOptions{Filter: `(\.svg|\.raw\.css)$`}, func(a api.OnResolveArgs) (r api.OnResolveResult, err error) {
			if a.PluginData != nil || a.Kind != api.ResolveJSImportStatement && a.Kind != api.ResolveJSRequireCall && a.Kind != api.ResolveJSDynamicImport {
				return r, nil
			}
			p, err := resolve(b, a, a.Path)
			if err != nil {
				return r, err
			}
			// Relative, so that equal packages give equal files wherever they lie.
			rel, err := filepath.Rel(l.work, p)
			return api.OnResolveResult{Path: filepath.ToSlash(rel), Namespace: "text"}, err
		})
		b.OnLoad(api.OnLoadOptions{Filter: `.*`, Namespace: "text"}, func(a api.OnLoadArgs) (r api.OnLoadResult, err error) {
			raw, err := os.ReadFile(filepath.Join(l.work, filepath.FromSlash(a.Path)))
			text := string(raw)
			return api.OnLoadResult{Contents: &text, Loader: api.LoaderText}, err
		})
		b.OnResolve(api.OnResolveOptions{Filter: `^~|[?#]`}, func(a api.OnResolveArgs) (r api.OnResolveResult, err error) {
			if a.PluginData != nil || a.Kind != api.ResolveCSSURLToken && a.Kind != api.ResolveCSSImportRule || strings.HasPrefix(a.Path, "#") || strings.Contains(a.Path, ":") {
				return r, nil
			}
			name, _, _ := strings.Cut(strings.TrimPrefix(a.Path, "~"), "?")
			name, _, _ = strings.Cut(name, "#")
			r.Path, err = resolve(b, a, name)
			return r, err
		})
	}}
}

var (
	dynamic = regexp.MustCompile(`\bimport\(\s*(/\*[^*]*\*/\s*)?('[^']+'|"[^"]+")\s*\)`)
	// Every browser that runs JupyterLab reads woff2.
	oldFonts  = regexp.MustCompile(`src:url\([^)]*\.eot\);|,?url\([^)]*\.(eot|woff|ttf|svg)(\?#iefix|#[a-z]+)?\) ?format\("(embedded-opentype|woff|truetype|svg)"\)`)
	firstFont = regexp.MustCompile(`src:,`)
)

// patches changes the text of packages before it is bundled.
func (l *labBuild) patches(done map[string]bool) api.Plugin {
	return api.Plugin{Name: "patches", Setup: func(b api.PluginBuild) {
		b.OnLoad(api.OnLoadOptions{Filter: `/node_modules/@fortawesome/.*\.css$`}, func(a api.OnLoadArgs) (api.OnLoadResult, error) {
			raw, err := os.ReadFile(a.Path)
			text := firstFont.ReplaceAllString(oldFonts.ReplaceAllString(string(raw), ""), "src:")
			return api.OnLoadResult{Contents: &text, Loader: api.LoaderCSS}, err
		})
		b.OnLoad(api.OnLoadOptions{Filter: `/node_modules/.*\.m?js$`}, func(a api.OnLoadArgs) (r api.OnLoadResult, err error) {
			raw, err := os.ReadFile(a.Path)
			if err != nil {
				return r, err
			}
			text, changed := string(raw), false
			for _, p := range labPatches {
				if !strings.HasSuffix(a.Path, "/node_modules/"+p.file) {
					continue
				}
				if strings.Count(text, p.old) != 1 {
					return r, fmt.Errorf("%s has not the one place that build/labpatch.go changes", p.file)
				}
				text, changed, done[p.file] = strings.Replace(text, p.old, p.new, 1), true, true
			}
			// A module of CommonJS that is imported later comes as its default only,
			// and JupyterLab's packages read names from it.
			if dynamic.MatchString(text) {
				text, changed = dynamic.ReplaceAllString(text, "import($2).then(m => { const d = m.default, k = Object.keys(m); return k.length === 1 && k[0] === 'default' && d && d.__esModule ? d : m; })"), true
			}
			if !changed {
				return r, nil
			}
			return api.OnLoadResult{Contents: &text, Loader: api.LoaderJS}, nil
		})
	}}
}
