package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"sort"
	"strings"

	"github.com/evanw/esbuild/pkg/api"
)

// kept is the file of web/dist that is in the repository, so that go:embed has
// something to find before the first build.
const kept = "placeholder.txt"

func (b *builder) bundles() (string, error) {
	inputs := []string{"web/ui", "package-lock.json", "node_modules/.quire-lock", "build", "tsconfig.json"}
	sum, err := b.fingerprint(nil, inputs)
	if err != nil {
		return "", err
	}
	if b.stamped("bundles", sum) && b.complete() {
		return "unchanged", nil
	}
	files, err := b.bundle()
	if err != nil {
		return "", err
	}
	if err := b.publish(files); err != nil {
		return "", err
	}
	if err := b.stamp("bundles", sum); err != nil {
		return "", err
	}
	var size, packed int
	for name, content := range files {
		if strings.HasSuffix(name, ".gz") {
			packed += len(content)
		} else if len(files[name+".gz"]) > 0 {
			size += len(content)
		}
	}
	return fmt.Sprintf("%d files, %d KB (%d KB compressed)", len(files), size/1000, packed/1000), nil
}

// complete reports whether every file of the manifest is still there.
func (b *builder) complete() bool {
	raw, err := os.ReadFile(b.path("web/dist/manifest.json"))
	if err != nil {
		return false
	}
	var manifest map[string]string
	if json.Unmarshal(raw, &manifest) != nil {
		return false
	}
	for _, name := range manifest {
		if _, err := os.Stat(b.path("web/dist", name)); err != nil {
			return false
		}
	}
	return true
}

// bundle returns the whole content of web/dist by file name.
func (b *builder) bundle() (map[string][]byte, error) {
	entries, err := b.entries()
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	manifest := map[string]string{}
	notices := "No third-party code is bundled.\n"
	if len(entries) > 0 {
		result := api.Build(b.options(entries))
		if len(result.Errors) > 0 {
			lines := api.FormatMessages(result.Errors, api.FormatMessagesOptions{Kind: api.ErrorMessage})
			return nil, errors.New("\n" + strings.TrimSpace(strings.Join(lines, "")))
		}
		for _, f := range result.OutputFiles {
			files[filepath.Base(f.Path)] = f.Contents
		}
		var meta metafile
		if err := json.Unmarshal([]byte(result.Metafile), &meta); err != nil {
			return nil, fmt.Errorf("read the bundler's report: %w", err)
		}
		if err := meta.fill(manifest, entries); err != nil {
			return nil, err
		}
		if notices, err = b.notices(meta); err != nil {
			return nil, err
		}
	}
	if err := b.static(files, manifest); err != nil {
		return nil, err
	}
	files["NOTICES.txt"] = []byte(notices)
	if files["manifest.json"], err = json.MarshalIndent(manifest, "", "  "); err != nil {
		return nil, err
	}
	return files, compress(files)
}

// entries finds the bundles: web/ui/NAME/index.ts and web/ui/NAME/index.css.
func (b *builder) entries() ([]api.EntryPoint, error) {
	dirs, err := os.ReadDir(b.path("web/ui"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var entries []api.EntryPoint
	for _, d := range dirs {
		for _, index := range []string{"index.ts", "index.css"} {
			from := filepath.Join("web/ui", d.Name(), index)
			if _, err := os.Stat(b.path(from)); err == nil {
				entries = append(entries, api.EntryPoint{InputPath: "./" + from, OutputPath: d.Name()})
			}
		}
	}
	return entries, nil
}

func (b *builder) options(entries []api.EntryPoint) api.BuildOptions {
	loader := map[string]api.Loader{}
	for _, ext := range []string{".woff2", ".woff", ".ttf", ".png", ".jpg", ".webp", ".svg"} {
		loader[ext] = api.LoaderFile
	}
	return api.BuildOptions{
		AbsWorkingDir: b.root, EntryPointsAdvanced: entries, Outdir: "web/dist", Write: false,
		Bundle: true, Splitting: true, Format: api.FormatESModule, Platform: api.PlatformBrowser, Target: api.ES2022,
		MinifyWhitespace: true, MinifySyntax: true, MinifyIdentifiers: true, LegalComments: api.LegalCommentsNone,
		EntryNames: "[name]-[hash]", ChunkNames: "chunk-[hash]", AssetNames: "[name]-[hash]",
		Loader: loader, Metafile: true, LogLevel: api.LogLevelSilent,
		Plugins: []api.Plugin{{Name: "icons", Setup: b.icons}},
	}
}

// icons decides by the importer how an icon is put into the bundle.
func (b *builder) icons(build api.PluginBuild) {
	build.OnResolve(api.OnResolveOptions{Filter: `^lucide-static/icons/[a-z0-9-]+\.svg$`}, func(a api.OnResolveArgs) (api.OnResolveResult, error) {
		as := "icon-text"
		if a.Kind == api.ResolveCSSURLToken {
			as = "icon-url"
		}
		return api.OnResolveResult{Path: "node_modules/" + a.Path, Namespace: as}, nil
	})
	for as, loader := range map[string]api.Loader{"icon-text": api.LoaderText, "icon-url": api.LoaderDataURL} {
		build.OnLoad(api.OnLoadOptions{Filter: `.*`, Namespace: as}, func(a api.OnLoadArgs) (api.OnLoadResult, error) {
			raw, err := os.ReadFile(b.path(a.Path))
			if err != nil {
				return api.OnLoadResult{}, fmt.Errorf("there is no such icon: %w", err)
			}
			svg := squeeze(string(raw))
			return api.OnLoadResult{Contents: &svg, Loader: loader}, nil
		})
	}
}

// squeeze drops the comment and the line breaks of an icon's file.
func squeeze(svg string) string {
	if _, after, ok := strings.Cut(svg, "-->"); ok {
		svg = after
	}
	svg = strings.Join(strings.Fields(svg), " ")
	svg = strings.ReplaceAll(svg, " >", ">")
	svg = strings.ReplaceAll(svg, "> <", "><")
	return strings.ReplaceAll(svg, " />", "/>")
}

// static publishes web/ui/static under hashed names.
func (b *builder) static(files map[string][]byte, manifest map[string]string) error {
	found, err := os.ReadDir(b.path("web/ui/static"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, d := range found {
		if d.IsDir() || strings.HasPrefix(d.Name(), ".") {
			continue
		}
		content, err := os.ReadFile(b.path("web/ui/static", d.Name()))
		if err != nil {
			return err
		}
		ext := path.Ext(d.Name())
		hashed := strings.TrimSuffix(d.Name(), ext) + "-" + digest(content) + ext
		files[hashed] = content
		manifest[d.Name()] = hashed
	}
	return nil
}

// compress adds NAME.gz beside each file that gets smaller by it. The header
// carries no time, so equal content gives equal bytes.
func compress(files map[string][]byte) error {
	names := make([]string, 0, len(files))
	for name := range files {
		names = append(names, name)
	}
	for _, name := range names {
		switch path.Ext(name) {
		case ".js", ".css", ".svg", ".txt", ".ttf":
		default:
			continue
		}
		var packed bytes.Buffer
		w, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
		if err != nil {
			return err
		}
		if _, err := w.Write(files[name]); err != nil {
			return err
		}
		if err := w.Close(); err != nil {
			return err
		}
		if packed.Len() < len(files[name]) {
			files[name+".gz"] = packed.Bytes()
		}
	}
	return nil
}

// publish makes web/dist hold exactly the files. What is unchanged is not
// touched, so the compiler's cache stays good; the manifest comes last.
func (b *builder) publish(files map[string][]byte) error {
	dist := b.path("web/dist")
	if err := os.MkdirAll(dist, 0o755); err != nil {
		return err
	}
	names := make([]string, 0, len(files))
	for name := range files {
		names = append(names, name)
	}
	sort.Slice(names, func(i, j int) bool {
		if a, b := names[i] == "manifest.json", names[j] == "manifest.json"; a != b {
			return b
		}
		return names[i] < names[j]
	})
	for _, name := range names {
		at := filepath.Join(dist, name)
		if old, err := os.ReadFile(at); err == nil && bytes.Equal(old, files[name]) {
			continue
		}
		if err := writeFile(at, files[name]); err != nil {
			return err
		}
	}
	present, err := os.ReadDir(dist)
	if err != nil {
		return err
	}
	for _, d := range present {
		if _, ok := files[d.Name()]; ok || d.Name() == kept {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dist, d.Name())); err != nil {
			return err
		}
	}
	return nil
}
