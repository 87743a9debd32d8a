package main

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"sort"
	"strings"
	"syscall"
)

// JupyterLab's part in the browser is half a gigabyte of packages that become
// some ten megabytes. Both are kept in the user's cache directory, by a hash of
// what they are made from, so that other clones, builds and tests find them there.
//
//	packages-HASH   node_modules of a lock file
//	bundle-HASH     the content of apps/lab/dist
//	extension-HASH  a prebuilt extension for the tests
const (
	labUI   = "apps/lab/ui"
	labDist = "apps/lab/dist"
)

func (b *builder) lab() (string, error) {
	key, err := b.labKey()
	if err != nil {
		return "", err
	}
	if b.labHas(b.path(labDist), key) {
		return "unchanged", nil
	}
	cache, err := b.labCache()
	if err != nil {
		return "", err
	}
	unlock, err := lock(cache)
	if err != nil {
		return "", err
	}
	defer unlock()

	did := "from the cache"
	bundle := filepath.Join(cache, "bundle-"+key)
	if !b.labHas(bundle, key) {
		work, err := b.labPackages(cache, "--omit=dev")
		if err != nil {
			return "", err
		}
		b.say("bundling JupyterLab (half a minute, once for each change of its lock file, of " + labUI + " or of the build)")
		if did, err = b.labMake(work, bundle, key); err != nil {
			return "", err
		}
		prune(cache, bundle, work)
	}
	return did, mirror(bundle, b.path(labDist))
}

// labKey is a hash of everything that the bundle depends on. The packages are
// what their lock file says.
func (b *builder) labKey() (string, error) {
	h := sha256.New()
	files, err := filepath.Glob(b.path("build", "*.go"))
	if err != nil {
		return "", err
	}
	files = append(files, b.path("go.sum"), b.path("package-lock.json")) // the bundler, the type checker
	err = filepath.WalkDir(b.path(labUI), func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			files = append(files, p)
		}
		return err
	})
	if err != nil {
		return "", err
	}
	for _, p := range files {
		if strings.HasSuffix(p, "_test.go") {
			continue
		}
		content, err := os.ReadFile(p)
		if err != nil {
			return "", err
		}
		rel, _ := filepath.Rel(b.root, p)
		fmt.Fprintf(h, "%q %x\n", filepath.ToSlash(rel), sha256.Sum256(content))
	}
	return hex.EncodeToString(h.Sum(nil))[:32], nil
}

// labHas reports whether a directory holds the whole bundle of a key. The
// manifest, which names it, is written last.
func (b *builder) labHas(dir, key string) bool {
	raw, err := os.ReadFile(filepath.Join(dir, "manifest.json"))
	if err != nil {
		return false
	}
	var m labManifest
	if json.Unmarshal(raw, &m) != nil || m.Key != key {
		return false
	}
	for name, f := range m.Files {
		if f.Packed {
			name += ".br"
		}
		if _, err := os.Stat(filepath.Join(dir, filepath.FromSlash(name))); err != nil {
			return false
		}
	}
	return true
}

func (b *builder) labCache() (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil { // an account without a home
		dir = b.path("bin")
	}
	dir = filepath.Join(dir, "quire-build", "lab")
	return dir, os.MkdirAll(dir, 0o755)
}

// prune removes what other lock files and sources left in the cache, but for one
// of each: two branches that take turns should not fetch everything each time.
func prune(cache string, keep ...string) {
	for _, form := range []string{"packages-*", "bundle-*", "extension-*"} {
		found, _ := filepath.Glob(filepath.Join(cache, form))
		sort.Slice(found, func(i, j int) bool { return changed(found[i]) > changed(found[j]) })
		spare := 1
		for _, dir := range found {
			switch {
			case contains(keep, dir):
			case spare > 0:
				spare--
			default:
				os.RemoveAll(dir)
			}
		}
	}
}

func exists(p string) bool {
	_, err := os.Stat(p)
	return err == nil
}

func changed(p string) int64 {
	info, err := os.Stat(p)
	if err != nil {
		return 0
	}
	return info.ModTime().UnixNano()
}

func contains(list []string, s string) bool {
	for _, have := range list {
		if have == s {
			return true
		}
	}
	return false
}

// labPackages installs the packages of the lock file, unless the cache has them,
// and returns the directory with node_modules and a fresh copy of our sources. which
// are words for npm: those that are only for building extensions can be left out.
func (b *builder) labPackages(cache string, which ...string) (string, error) {
	lockFile, err := os.ReadFile(b.path(labUI, "package-lock.json"))
	if err != nil {
		return "", err
	}
	work := filepath.Join(cache, "packages-"+digest(lockFile))
	all := filepath.Join(work, ".installed")
	done := all + strings.Join(which, "")
	if !exists(done) && !exists(all) {
		if err := os.RemoveAll(work); err != nil {
			return "", err
		}
		if err := os.MkdirAll(work, 0o755); err != nil {
			return "", err
		}
		for from, to := range map[string]string{labUI + "/package.json": "package.json", labUI + "/package-lock.json": "package-lock.json", ".npmrc": ".npmrc"} {
			content, err := os.ReadFile(b.path(from))
			if err != nil {
				return "", err
			}
			if err := writeFile(filepath.Join(work, to), content); err != nil {
				return "", err
			}
		}
		b.say("installing JupyterLab's packages (a minute and half a gigabyte in " + work + ", once for each lock file)")
		if err := npmInstall(work, which...); err != nil {
			return "", fmt.Errorf("%w\n(go run ./build -without-lab leaves JupyterLab out)", err)
		}
		if err := writeFile(done, nil); err != nil {
			return "", err
		}
	}
	if err := mirror(b.path(labUI), filepath.Join(work, "ui")); err != nil {
		return "", err
	}
	return work, nil
}

// labMake bundles, checks, packs and describes everything and puts it at dir whole.
func (b *builder) labMake(work, dir, key string) (string, error) {
	// The bundler's tree is large and short-lived: collecting earlier costs a
	// second and saves a few hundred megabytes.
	defer debug.SetGCPercent(debug.SetGCPercent(30))
	if err := b.labTypes(work); err != nil {
		return "", err
	}
	l := &labBuild{work: work, files: map[string][]byte{}, used: map[string]bool{}}
	m, err := l.make()
	if err != nil {
		return "", err
	}
	m.Key = key
	tmp := dir + ".new"
	if err := os.RemoveAll(tmp); err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	for name, content := range l.files {
		at := filepath.Join(tmp, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			return "", err
		}
		if err := os.WriteFile(at, content, 0o644); err != nil {
			return "", err
		}
	}
	l.files = nil
	debug.FreeOSMemory()
	if err := labPack(work, tmp, m); err != nil {
		return "", err
	}
	raw, err := json.MarshalIndent(m, "", " ")
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(tmp, "manifest.json"), raw, 0o644); err != nil {
		return "", err
	}
	if err := os.RemoveAll(dir); err != nil {
		return "", err
	}
	if err := os.Rename(tmp, dir); err != nil {
		return "", err
	}
	var size int64
	for _, name := range append(append([]string{m.Entry}, m.Preload...), m.Styles...) {
		if info, err := os.Stat(filepath.Join(dir, "static", name+".br")); err == nil {
			size += info.Size()
		}
	}
	return fmt.Sprintf("version %s, %d files, %d KB compressed before it starts", m.Version, len(m.Files), size/1000), nil
}

// labTypes checks the types of our own sources against the packages.
func (b *builder) labTypes(work string) error {
	raw, err := os.ReadFile(b.path("tsconfig.json"))
	if err != nil {
		return err
	}
	var c map[string]any
	if err := json.Unmarshal(raw, &c); err != nil {
		return fmt.Errorf("tsconfig.json: %w", err)
	}
	c["include"] = []string{"ui"}
	if raw, err = json.Marshal(c); err != nil {
		return err
	}
	if err := writeFile(filepath.Join(work, "tsconfig.json"), raw); err != nil {
		return err
	}
	return tell(exec.Command(b.path("node_modules", ".bin", "tsc"), "-p", work), "the type check of "+labUI)
}

// packed are the kinds of files that get smaller by being compressed.
var packed = regexp.MustCompile(`\.(js|css|svg|json|txt)$`)

// labPack writes NAME.br and NAME.gz in place of each file that browsers may have
// and that gets smaller, and lists them all. Node has Brotli, and is there.
func labPack(work, dir string, m *labManifest) error {
	for name, f := range m.Files {
		if !f.Packed {
			continue
		}
		at := filepath.Join(dir, filepath.FromSlash(name))
		content, err := os.ReadFile(at)
		if err != nil {
			return err
		}
		var zipped bytes.Buffer
		w, err := gzip.NewWriterLevel(&zipped, gzip.BestCompression)
		if err != nil {
			return err
		}
		if _, err := w.Write(content); err != nil {
			return err
		}
		if err := w.Close(); err != nil {
			return err
		}
		if err := os.WriteFile(at+".gz", zipped.Bytes(), 0o644); err != nil {
			return err
		}
	}
	names := make([]string, 0, len(m.Files))
	for name, f := range m.Files {
		if f.Packed {
			names = append(names, filepath.Join(dir, filepath.FromSlash(name)))
		}
	}
	sort.Strings(names)
	list, err := json.Marshal(names)
	if err != nil {
		return err
	}
	cmd := exec.Command("node", filepath.Join(work, "ui", "brotli.mjs"))
	cmd.Stdin = bytes.NewReader(list)
	return tell(cmd, "the compression")
}

// tell runs a command and, when it fails, passes on what it said.
func tell(cmd *exec.Cmd, what string) error {
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s failed (%w); it said:\n%s", what, err, strings.TrimSpace(said.String()))
	}
	return nil
}

// mirror makes a directory hold exactly the files of another, with its
// placeholder left alone. What is equal is not touched, so that the compiler's
// cache stays good, and the manifest comes last.
func mirror(from, to string) error {
	want := map[string]bool{}
	last := ""
	err := filepath.WalkDir(from, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		rel, err := filepath.Rel(from, p)
		if err != nil {
			return err
		}
		want[rel] = true
		if rel == "manifest.json" {
			last = rel
			return nil
		}
		return copyFile(p, filepath.Join(to, rel))
	})
	if err != nil {
		return err
	}
	err = filepath.WalkDir(to, func(p string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || d.IsDir() {
			return err
		}
		if rel, err := filepath.Rel(to, p); err != nil || want[rel] || rel == kept {
			return err
		}
		return os.Remove(p)
	})
	if err != nil || last == "" {
		return err
	}
	return copyFile(filepath.Join(from, last), filepath.Join(to, last))
}

func copyFile(from, to string) error {
	content, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if old, err := os.ReadFile(to); err == nil && bytes.Equal(old, content) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return writeFile(to, content)
}

// labExtension makes a prebuilt extension as others make theirs: Jupyter's builder
// turns ipywidgets' package into what a wheel would put into an environment. The
// tests load it; no binary holds it.
func (b *builder) labExtension() (string, error) {
	const name = "@jupyter-widgets/jupyterlab-manager"
	lockFile, err := os.ReadFile(b.path(labUI, "package-lock.json"))
	if err != nil {
		return "", err
	}
	place := b.path("bin", "labextensions", name)
	key := digest(lockFile)
	if b.stamped("extension", key) && exists(place) {
		return "unchanged", nil
	}
	cache, err := b.labCache()
	if err != nil {
		return "", err
	}
	unlock, err := lock(cache)
	if err != nil {
		return "", err
	}
	defer unlock()
	made := filepath.Join(cache, "extension-"+key)
	did := "from the cache"
	if !exists(made) {
		work, err := b.labPackages(cache)
		if err != nil {
			return "", err
		}
		modules := filepath.Join(work, "node_modules")
		source := filepath.Join(work, "extension")
		if err := mirror(filepath.Join(modules, name), source); err != nil {
			return "", err
		}
		cmd := exec.Command("node", filepath.Join(modules, "@jupyter/builder/lib/build-labextension.js"),
			"--core-package-file", filepath.Join(modules, "@jupyterlab/core-meta/core.package.json"), source)
		cmd.Dir = source
		if err := tell(cmd, "Jupyter's builder"); err != nil {
			return "", err
		}
		if err := os.Rename(filepath.Join(source, "labextension"), made); err != nil {
			return "", err
		}
		did = name
	}
	if err := mirror(made, place); err != nil {
		return "", err
	}
	return did, b.stamp("extension", key)
}

// labManifest is apps/lab.FrontEnd with the key of what it was made from.
type labManifest struct {
	Key     string              `json:"key"`
	Version string              `json:"version"`
	Entry   string              `json:"entry"`
	Styles  []string            `json:"styles"`
	Preload []string            `json:"preload"`
	Shared  map[string]string   `json:"shared"`
	Themes  []string            `json:"themes"`
	Files   map[string]labAsset `json:"files"`
}

type labAsset struct {
	Digest string `json:"digest"`
	Size   int    `json:"size"`
	Packed bool   `json:"packed,omitempty"`
}

// publish adds a file that browsers may have.
func (l *labBuild) publish(m *labManifest, name string, content []byte) {
	l.files[name] = content
	m.Files[name] = labAsset{Digest: digest(content), Size: len(content), Packed: packed.MatchString(path.Base(name))}
}
