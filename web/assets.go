package web

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"mime"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"quire"
)

// The bundler fills dist before the binary is built; a checkout holds only the
// placeholder, which is enough to compile and to run tests.
//
//go:embed all:dist
var dist embed.FS

// bundle is the content of web/dist: manifest.json names each bundle's hashed
// file. It is read once and never changes.
type bundle struct {
	files fs.FS
	names map[string]string // "portal.js" -> "portal-8C1F….js"

	mu     sync.Mutex
	served map[string]*asset
}

type asset struct {
	body, zipped []byte
	etag, kind   string
}

var bundles = sync.OnceValue(func() *bundle {
	sub, err := fs.Sub(dist, "dist")
	if err != nil {
		panic(err) // dist is compiled in
	}
	return newBundle(sub)
})

func newBundle(files fs.FS) *bundle {
	b := &bundle{files: files, names: map[string]string{}, served: map[string]*asset{}}
	if raw, err := fs.ReadFile(files, "manifest.json"); err == nil {
		// An unreadable manifest shows as 404 on every asset, which the browser
		// tests see at once.
		_ = json.Unmarshal(raw, &b.names)
	}
	return b
}

// Asset returns the address of a bundle ("portal.js", "portal.css",
// "terminal.js", "gateway.js" …) below /assets/. "app.css" is the portal's
// stylesheet. An unknown name keeps its plain address, which answers 404.
func Asset(name string) string { return "/assets/" + bundles().file(name) }

func (b *bundle) file(name string) string {
	if f, ok := b.names[name]; ok {
		return f
	}
	if name == "app.css" {
		if f, ok := b.names["portal.css"]; ok {
			return f
		}
	}
	return name
}

// Assets serves the bundles below /assets/. Files whose name carries a hash may
// be kept by browsers for a year; others are checked each time.
func Assets() http.Handler {
	return Adapt(nil, func(w http.ResponseWriter, r *http.Request) error { return bundles().serve(w, r) })
}

// WriteAssets puts the bundles into a directory, each with its compressed twin,
// for a proxy that serves them itself. What is there is replaced as a whole, file
// by file, and what is of other versions stays.
func WriteAssets(dir string) (n int, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return 0, err
	}
	files, err := fs.ReadDir(bundles().files, ".")
	if err != nil {
		return 0, err
	}
	for _, f := range files {
		if !published(strings.TrimSuffix(f.Name(), ".gz")) {
			continue
		}
		body, err := fs.ReadFile(bundles().files, f.Name())
		if err != nil {
			return n, err
		}
		place := filepath.Join(dir, f.Name())
		if err := errors.Join(os.WriteFile(place+".new", body, 0o644), os.Chmod(place+".new", 0o644)); err != nil {
			return n, err
		}
		if err := os.Rename(place+".new", place); err != nil {
			return n, err
		}
		n++
	}
	if n == 0 {
		return 0, errors.New("this binary was built without bundles")
	}
	return n, nil
}

// published reports whether a file of that name is for browsers.
func published(name string) bool {
	return assetName.MatchString(name) && name != "manifest.json" && name != "placeholder.txt"
}

// assetName is the only form of a name that reaches the file system.
var assetName = regexp.MustCompile(`^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)+$`)

// hashed is the form of a name that changes whenever its content does.
var hashed = regexp.MustCompile(`[-.][A-Za-z0-9]{8,}\.[a-z0-9]+$`)

func (b *bundle) serve(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		return &StatusError{Status: http.StatusMethodNotAllowed, Message: "Assets can only be read."}
	}
	name, ok := strings.CutPrefix(r.URL.Path, "/assets/")
	if !ok || !published(name) || path.Ext(name) == ".gz" {
		return quire.NotFound("file")
	}
	a, err := b.load(name)
	if err != nil {
		return quire.NotFound("file")
	}
	h := w.Header()
	h.Set("Content-Type", a.kind)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Vary", "Accept-Encoding")
	if hashed.MatchString(name) {
		h.Set("Cache-Control", "public, max-age=31536000, immutable")
	} else {
		h.Set("Cache-Control", "no-cache")
	}
	body, etag := a.body, `"`+a.etag+`"`
	if a.zipped != nil && acceptsGzip(r) {
		body, etag = a.zipped, `"`+a.etag+`-gz"`
		h.Set("Content-Encoding", "gzip")
	}
	h.Set("Etag", etag)
	if matches(r.Header.Get("If-None-Match"), etag) {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodGet {
		w.Write(body)
	}
	return nil
}

// load reads a file, and its compressed twin if the bundler made one, once.
func (b *bundle) load(name string) (*asset, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if a := b.served[name]; a != nil {
		return a, nil
	}
	body, err := fs.ReadFile(b.files, name)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(body)
	a := &asset{body: body, etag: hex.EncodeToString(sum[:12]), kind: kindOf(name)}
	if zipped, err := fs.ReadFile(b.files, name+".gz"); err == nil {
		a.zipped = zipped // made by the bundler
	}
	b.served[name] = a
	return a, nil
}

// kindOf is the media type by the name's ending, independent of the machine's
// own tables for the types we ship.
func kindOf(name string) string {
	switch ext := path.Ext(name); ext {
	case ".js", ".mjs":
		return "text/javascript; charset=utf-8"
	case ".css":
		return "text/css; charset=utf-8"
	case ".svg":
		return "image/svg+xml"
	case ".woff2":
		return "font/woff2"
	case ".png":
		return "image/png"
	case ".gif":
		return "image/gif"
	case ".wasm":
		return "application/wasm"
	case ".json", ".map":
		return "application/json"
	default:
		if t := mime.TypeByExtension(ext); t != "" {
			return t
		}
		return "application/octet-stream"
	}
}

func acceptsGzip(r *http.Request) bool {
	for part := range strings.SplitSeq(r.Header.Get("Accept-Encoding"), ",") {
		coding, q, _ := strings.Cut(strings.TrimSpace(part), ";")
		if strings.TrimSpace(coding) == "gzip" {
			q = strings.ReplaceAll(q, " ", "")
			return q != "q=0" && q != "q=0.0" && q != "q=0.00" && q != "q=0.000"
		}
	}
	return false
}

// matches reports whether an If-None-Match header names the tag.
func matches(header, etag string) bool {
	for part := range strings.SplitSeq(header, ",") {
		part = strings.TrimPrefix(strings.TrimSpace(part), "W/")
		if part == "*" && header == "*" || part == etag {
			return true
		}
	}
	return false
}
