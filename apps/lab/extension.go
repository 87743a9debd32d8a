package lab

import (
	"encoding/json"
	"io"
	"io/fs"
	"mime"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"quire"
)

func (s *server) extensionRoutes(r routes) {
	r.on("GET /lab/extensions/{path...}", s.serveExtension)
	r.on("GET /lab/api/themes/{path...}", s.serveTheme)
	r.on("GET /lab/api/translations", s.serveLanguages)
	r.on("GET /lab/api/translations/{$}", s.serveLanguages)
	r.on("GET /lab/api/translations/{locale}", s.serveTranslation)
	r.on("GET /lab/api/licenses", s.serveLicenses)
	r.on("GET /lab/api/licenses/", s.serveLicenses)
	r.on("GET /lab/api/listings/{name...}", func(w http.ResponseWriter, r *http.Request) error {
		// No list allows or blocks extensions here; the page asks for a script.
		w.Header().Set("Content-Type", "application/json")
		_, err := io.WriteString(w, `{"blocked_extensions_uris":[],"allowed_extensions_uris":[],"blocked_extensions":[],"allowed_extensions":[]}`)
		return err
	})
	r.on("GET /lab/api/extensions", func(w http.ResponseWriter, r *http.Request) error {
		out := []object{}
		for _, e := range s.extensions() {
			out = append(out, object{
				"name": e.Name, "description": "", "homepage_url": "", "pkg_type": "prebuilt", "allowed": true, "approved": false, "companion": nil, "core": false,
				"enabled": true, "install": nil, "installed": true, "installed_version": e.Version, "latest_version": e.Version, "status": "ok",
			})
		}
		answer(w, http.StatusOK, out)
		return nil
	})
	r.on("POST /lab/api/extensions", func(http.ResponseWriter, *http.Request) error {
		return quire.Forbidden("Extensions are installed into the project's environment, with the other packages, and found from there.")
	})
	r.on("GET /lab/api/plugins", func(w http.ResponseWriter, _ *http.Request) error {
		answer(w, http.StatusOK, object{"configLevel": "user", "allLocked": false, "lockRules": []any{}})
		return nil
	})
}

// inExtension divides a path below lab/extensions into the extension and the rest.
func (s *server) inExtension(p string) (extension, string, error) {
	if !fs.ValidPath(p) { // no .. in it, whichever way it was written
		return extension{}, "", quire.NotFound("file")
	}
	name, rest, _ := strings.Cut(p, "/")
	if strings.HasPrefix(name, "@") {
		second, more, _ := strings.Cut(rest, "/")
		name, rest = name+"/"+second, more
	}
	if e, ok := s.extension(name); ok && rest != "" {
		return e, rest, nil
	}
	return extension{}, "", quire.NotFound("extension")
}

// serveExtension sends what the page loads of a prebuilt extension: what its
// build made, below static, and nothing else that lies there.
func (s *server) serveExtension(w http.ResponseWriter, r *http.Request) error {
	e, rest, err := s.inExtension(r.PathValue("path"))
	if err != nil {
		return err
	}
	if !strings.HasPrefix(rest, "static/") {
		return quire.NotFound("file")
	}
	return serveBelow(w, r, e.dir, rest)
}

func (s *server) serveTheme(w http.ResponseWriter, r *http.Request) error {
	p := r.PathValue("path")
	if e, rest, err := s.inExtension(p); err == nil {
		return serveBelow(w, r, e.dir, path.Join("themes", e.Name, rest))
	}
	if s.themes == nil {
		return quire.NotFound("theme")
	}
	http.StripPrefix(s.base+"/lab/api/themes", s.themes).ServeHTTP(w, r)
	return nil
}

// serveBelow sends a file of a directory that others may write: links do not lead
// out of it, and devices and pipes are not opened.
func serveBelow(w http.ResponseWriter, r *http.Request, dir, name string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return quire.NotFound("file")
	}
	defer root.Close()
	info, err := root.Stat(filepath.FromSlash(name))
	if err != nil || !info.Mode().IsRegular() {
		return quire.NotFound("file")
	}
	f, err := root.Open(filepath.FromSlash(name))
	if err != nil {
		return quire.NotFound("file")
	}
	defer f.Close()
	kind := "application/octet-stream"
	switch ext := path.Ext(name); ext {
	case ".js", ".mjs":
		kind = "text/javascript; charset=utf-8"
	case ".css":
		kind = "text/css; charset=utf-8"
	case ".json", ".map":
		kind = "application/json"
	case ".wasm":
		kind = "application/wasm"
	case ".svg", ".png", ".gif", ".jpg", ".jpeg", ".webp", ".woff", ".woff2", ".ttf", ".otf", ".eot", ".txt":
		kind = mime.TypeByExtension(ext)
	}
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Cache-Control", "no-cache")
	http.ServeContent(w, r, "", info.ModTime(), f)
	return nil
}

func (s *server) serveLicenses(w http.ResponseWriter, r *http.Request) error {
	if s.licenses == nil {
		answer(w, http.StatusOK, object{"bundles": object{}})
		return nil
	}
	s.licenses.ServeHTTP(w, r)
	return nil
}

var localeForm = regexp.MustCompile(`^[a-z]{2,3}(_[A-Z][a-z]{3})?(_[A-Z]{2})?$`)

// languages are the names of the language packs that people know them by; others
// are shown by their codes.
var languages = map[string][2]string{
	"cs_CZ": {"Czech", "čeština"}, "da_DK": {"Danish", "dansk"}, "de_DE": {"German", "Deutsch"}, "es_ES": {"Spanish", "español"},
	"fr_FR": {"French", "français"}, "it_IT": {"Italian", "italiano"}, "ja_JP": {"Japanese", "日本語"}, "ko_KR": {"Korean", "한국어"},
	"nl_NL": {"Dutch", "Nederlands"}, "pl_PL": {"Polish", "polski"}, "pt_BR": {"Portuguese (Brazil)", "português (Brasil)"},
	"ru_RU": {"Russian", "русский"}, "tr_TR": {"Turkish", "Türkçe"}, "uk_UA": {"Ukrainian", "українська"}, "zh_CN": {"Chinese (Simplified)", "简体中文"},
	"zh_TW": {"Chinese (Traditional)", "繁體中文"},
}

// translations are the catalogues of a locale, or of all: files that language packs
// of the environment or of the system have.
func (s *server) translations(locale string) []string {
	var out []string
	bases := []string{"/usr/lib/python3*/dist-packages", "/usr/local/lib/python3*/dist-packages"}
	if s.prefix != "" {
		bases = append(bases, filepath.Join(globbed(s.prefix), "lib/python3*/site-packages"))
	}
	for _, base := range bases {
		files, _ := filepath.Glob(filepath.Join(base, "jupyterlab_language_pack_*/locale", locale, "LC_MESSAGES/*.json"))
		out = append(out, files...)
	}
	return out
}

func (s *server) serveLanguages(w http.ResponseWriter, r *http.Request) error {
	data := object{"en": object{"displayName": "English", "nativeName": "English"}}
	for _, file := range s.translations("*") {
		locale := filepath.Base(filepath.Dir(filepath.Dir(file)))
		if !localeForm.MatchString(locale) {
			continue
		}
		names, ok := languages[locale]
		if !ok {
			names = [2]string{locale, locale}
		}
		data[locale] = object{"displayName": names[0], "nativeName": names[1]}
	}
	answer(w, http.StatusOK, object{"data": data, "message": ""})
	return nil
}

func (s *server) serveTranslation(w http.ResponseWriter, r *http.Request) error {
	locale := r.PathValue("locale")
	data, message := object{}, ""
	switch {
	case locale == "default" || locale == "en":
	case !localeForm.MatchString(locale):
		message = "Language pack '" + strings.ToValidUTF8(locale, "\uFFFD") + "' is not valid!"
	default:
		files := s.translations(locale)
		slices.Sort(files)
		for _, file := range files {
			b, err := readSmall(file)
			if err == nil && json.Valid(b) {
				data[strings.TrimSuffix(filepath.Base(file), ".json")] = json.RawMessage(b)
			}
		}
		if len(data) == 0 {
			message = "Language pack '" + locale + "' not installed!"
		}
	}
	answerLong(w, r, object{"data": data, "message": message})
	return nil
}
