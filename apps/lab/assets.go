package lab

import (
	"bytes"
	"compress/gzip"
	"embed"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strconv"
	"strings"
	"sync"

	"quire"
	"quire/web"
)

// The build fills dist (build/lab.go); a checkout holds only the placeholder,
// which is enough to compile and to run tests.
//
//go:embed all:dist
var dist embed.FS

//go:embed index.html
var indexText string

// A FrontEnd is JupyterLab's part in the browser as the build made it: scripts,
// styles, schemas, themes and the notices of everything in them. Nothing of it
// changes while the program runs, and no file is copied to be served: the bytes
// are those of the binary.
type FrontEnd struct {
	Version string            `json:"version"` // of JupyterLab
	Entry   string            `json:"entry"`   // the module that starts everything, a name below the static address
	Styles  []string          `json:"styles"`  // style sheets of the page, in order
	Preload []string          `json:"preload"` // modules that Entry always needs
	Shared  map[string]string `json:"shared"`  // what prebuilt extensions find in the share scope: package, version
	Themes  []string          `json:"themes"`  // packages whose style sheet Theme serves
	Files   map[string]Asset  `json:"files"`

	files fs.FS
	err   error
}

// An Asset is one file that browsers may have. A packed one is stored as NAME.br
// and NAME.gz only, since there is no browser that reads neither.
type Asset struct {
	Digest string `json:"digest"`
	Size   int    `json:"size"` // bytes, unpacked
	Packed bool   `json:"packed,omitempty"`
}

// A Schema describes the settings of one plugin, as JupyterLab's packages have it.
type Schema struct {
	ID      string          `json:"id"`      // PACKAGE:PLUGIN
	Version string          `json:"version"` // of the package
	Schema  json.RawMessage `json:"schema"`
}

var builtIn = sync.OnceValue(func() *FrontEnd {
	files, err := fs.Sub(dist, "dist")
	if err != nil {
		panic(err) // dist is compiled in
	}
	return readFrontEnd(files)
})

// BuiltIn returns the front end that this binary holds. Of a binary that was
// compiled without it every handler answers with a sentence, which Missing returns.
func BuiltIn() *FrontEnd { return builtIn() }

func readFrontEnd(files fs.FS) *FrontEnd {
	f := &FrontEnd{files: files}
	raw, err := fs.ReadFile(files, "manifest.json")
	if err == nil {
		err = json.Unmarshal(raw, f)
	}
	if err != nil {
		f.err = quire.Unavailable("This Quire was compiled without JupyterLab. Build it with go run ./build.", err)
	}
	return f
}

// Missing is nil, or says that the binary has no front end and what to do.
func (f *FrontEnd) Missing() error { return f.err }

// Schemas returns the settings schemas of all built-in plugins, sorted by ID.
func (f *FrontEnd) Schemas() ([]Schema, error) {
	if f.err != nil {
		return nil, f.err
	}
	raw, err := fs.ReadFile(f.files, "schemas.json")
	if err != nil {
		return nil, fmt.Errorf("read the schemas: %w", err)
	}
	var all []Schema
	if err := json.Unmarshal(raw, &all); err != nil {
		return nil, fmt.Errorf("read the schemas: %w", err)
	}
	return all, nil
}

// Static serves scripts, styles and fonts. Strip what is before "/NAME": the
// address that Index was told. Names carry a hash, so browsers keep them.
func (f *FrontEnd) Static() http.Handler {
	return f.handler(func(r *http.Request) (string, string) {
		name := strings.TrimPrefix(r.URL.Path, "/")
		if strings.Contains(name, "/") {
			return "", ""
		}
		return "static/" + name, "public, max-age=31536000, immutable"
	})
}

// Theme serves the style sheets of the built-in themes. Strip what is before
// "/PACKAGE/index.css": the address that the page's themesUrl names. They have
// no hash in their names, so browsers ask each time whether they are the same.
func (f *FrontEnd) Theme() http.Handler {
	return f.handler(func(r *http.Request) (string, string) {
		return "themes" + r.URL.Path, "no-cache"
	})
}

// Licenses answers what JupyterLab's page of licenses asks for: the notices of
// everything that is bundled, as JSON, or as text when it wants to save them.
func (f *FrontEnd) Licenses() http.Handler {
	return f.handler(func(r *http.Request) (string, string) {
		if format := r.URL.Query().Get("format"); format != "" && format != "json" {
			return "NOTICES.txt", "no-cache"
		}
		return "licenses.json", "no-cache"
	})
}

func (f *FrontEnd) handler(where func(*http.Request) (name, keep string)) http.Handler {
	return web.Adapt(nil, func(w http.ResponseWriter, r *http.Request) error {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			return &web.StatusError{Status: http.StatusMethodNotAllowed, Message: "Assets can only be read."}
		}
		if f.err != nil {
			return f.err
		}
		name, keep := where(r)
		a, ok := f.Files[name] // what is not in the manifest is not for browsers
		if !ok {
			return quire.NotFound("file")
		}
		w.Header().Set("Cache-Control", keep)
		return f.serve(w, r, name, a)
	})
}

func (f *FrontEnd) serve(w http.ResponseWriter, r *http.Request, name string, a Asset) error {
	h := w.Header()
	h.Set("Content-Type", assetKind(name))
	h.Set("X-Content-Type-Options", "nosniff")
	stored, coding := name, ""
	if a.Packed {
		h.Set("Vary", "Accept-Encoding")
		switch accepted := r.Header.Get("Accept-Encoding"); {
		case acceptsCoding(accepted, "br"):
			stored, coding = name+".br", "br"
		case acceptsCoding(accepted, "gzip"):
			stored, coding = name+".gz", "gzip"
		default:
			stored = name + ".gz"
		}
	}
	etag := `"` + a.Digest + coding + `"`
	h.Set("Etag", etag)
	if r.Header.Get("If-None-Match") == etag {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	file, err := f.files.Open(stored)
	if err != nil {
		return fmt.Errorf("open a file of the front end: %w", err)
	}
	defer file.Close()
	var body io.Reader = file
	size := int64(a.Size)
	if coding != "" {
		h.Set("Content-Encoding", coding)
		info, err := file.Stat()
		if err != nil {
			return err
		}
		size = info.Size()
	} else if a.Packed { // a program without a coding; browsers have one
		if body, err = gzip.NewReader(file); err != nil {
			return fmt.Errorf("unpack a file of the front end: %w", err)
		}
	}
	h.Set("Content-Length", strconv.FormatInt(size, 10))
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodGet {
		io.Copy(w, body)
	}
	return nil
}

// acceptsCoding reports whether an Accept-Encoding header has a coding and does not
// refuse it.
func acceptsCoding(header, coding string) bool {
	for part := range strings.SplitSeq(header, ",") {
		name, q, _ := strings.Cut(strings.TrimSpace(part), ";")
		if strings.TrimSpace(name) != coding {
			continue
		}
		weight, err := strconv.ParseFloat(strings.TrimPrefix(strings.ReplaceAll(q, " ", ""), "q="), 64)
		return err != nil || weight > 0
	}
	return false
}

// assetKind is the media type by the name's ending, whatever the machine's own
// tables say of the types we ship.
func assetKind(name string) string {
	switch ext := path.Ext(name); ext {
	case ".js":
		return "text/javascript; charset=utf-8"
	case ".css":
		return "text/css; charset=utf-8"
	case ".json":
		return "application/json"
	case ".woff2":
		return "font/woff2"
	case ".svg":
		return "image/svg+xml"
	case ".txt":
		return "text/plain; charset=utf-8"
	default:
		if t := mime.TypeByExtension(ext); t != "" {
			return t
		}
		return "application/octet-stream"
	}
}

// Config is the part of the page config that is the same for every page below
// base, a path without a slash at its end. The caller adds treePath (decoded),
// workspace, federated_extensions, disabledExtensions and what else it knows.
//
// Addresses are Jupyter's own, so base "/lab" has its settings at
// /lab/lab/api/settings. Only what people see is shorter: where base ends in
// "/lab" the page shows itself as /lab/tree/PATH. The server answers Index at
// base+"/", and below it at lab, doc, tree/PATH, workspaces/NAME and
// workspaces/NAME/tree/PATH, the last four also after "lab/" and "doc/".
func (f *FrontEnd) Config(base string) map[string]any {
	c := map[string]any{
		"appName": "JupyterLab", "appNamespace": "lab", "appVersion": f.Version, "devMode": false, "cacheFiles": true,
		"baseUrl": base + "/", "token": "", "mode": "multiple-document", "workspace": "default", "treePath": "",
		"terminalsAvailable": true, "notebookVersion": "[7, 6, 0]", "exposeAppInBrowser": false,
		"federated_extensions": []any{}, "disabledExtensions": []string{}, "deferredExtensions": []string{},
	}
	for key, at := range map[string]string{
		"appUrl": "/lab", "treeUrl": "/lab/tree", "staticUrl": "/static/lab", "settingsUrl": "/lab/api/settings", "themesUrl": "/lab/api/themes",
		"translationsApiUrl": "/lab/api/translations", "workspacesApiUrl": "/lab/api/workspaces", "listingsUrl": "/lab/api/listings",
		"licensesUrl": "/lab/api/licenses", "labextensionsUrl": "/lab/extensions",
	} {
		c[key] = at
		c["full"+strings.ToUpper(key[:1])+key[1:]] = base + at
	}
	return c
}

// Status is what our own part of the front end shows: the answer of GET
// base+"/api/quire". A field that is empty is not shown. Every address is opened
// by the person's own click; the app's origin itself may do nothing there.
type Status struct {
	Project     Place          `json:"project"`     // OWNER/PROJECT and its page
	Environment Place          `json:"environment"` // the active one and its page
	Stop        string         `json:"stop"`        // the portal's page where the app can be stopped
	People      []string       `json:"people"`      // who else has the project open, by the names that people see
	RunsOn      bool           `json:"runs_on"`     // kernels go on, and their output is kept, when nobody looks
	Notices     []Announcement `json:"notices"`
	Workbench   string         `json:"workbench"` // address of the Workbench on this origin, ending in a slash
}

// A Place is a name and where it leads.
type Place struct {
	Name string `json:"name"`
	URL  string `json:"url,omitempty"`
}

// An Announcement is one line of the administrators'.
type Announcement struct {
	ID   string `json:"id"` // who has closed it does not see the same ID again
	Text string `json:"text"`
	URL  string `json:"url,omitempty"`
}

// An Index is what the page that starts JupyterLab is made of.
type Index struct {
	Title  string
	Static string         // address below which Static is served, without a slash at the end
	Icon   string         // address of the picture in the browser's tab
	Nonce  string         // of this answer, the one given to Policy
	Config map[string]any // see FrontEnd.Config
}

// Policy is the Content-Security-Policy of the page with a nonce of its own, 16
// random bytes or more. What it lets through, with why:
//
//   - script-src 'unsafe-eval': JupyterLab checks settings with functions that ajv
//     makes of the schemas, Vega makes functions of its expressions, and an output
//     of the type JavaScript is evaluated.
//   - the nonce: scripts in outputs that JupyterLab trusts, which our build of it
//     marks (build/labpatch.go). Others, also those that a sanitizer would miss, and
//     handlers within elements do not run.
//   - style-src 'unsafe-inline': Lumino and CodeMirror place things by styles.
//   - data: and blob: are what outputs have in themselves.
func (f *FrontEnd) Policy(nonce string) string {
	return "default-src 'none'; script-src 'self' 'unsafe-eval' 'nonce-" + nonce + "'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; " +
		"font-src 'self' data:; media-src 'self' data: blob:; connect-src 'self'; worker-src 'self' blob:; frame-src 'self' data: blob:; " +
		"object-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
}

// Index writes the page that starts JupyterLab.
func (f *FrontEnd) Index(w io.Writer, p Index) error {
	if f.err != nil {
		return f.err
	}
	page, err := template.New("index").Parse(indexText)
	if err != nil {
		return err
	}
	var text bytes.Buffer
	if err := page.Execute(&text, struct {
		Index
		Entry           string
		Styles, Preload []string
	}{p, f.Entry, f.Styles, f.Preload}); err != nil {
		return fmt.Errorf("write JupyterLab's page: %w", err)
	}
	_, err = w.Write(text.Bytes())
	return err
}
