package lab

import (
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"quire"
)

// A plugin of JupyterLab that has settings, with the schema of them.
type plugin struct {
	ID      string // PACKAGE:NAME
	Version string // of the package
	Schema  json.RawMessage
}

var (
	packageForm = regexp.MustCompile(`^(@[A-Za-z0-9][A-Za-z0-9._-]*/)?[A-Za-z0-9][A-Za-z0-9._-]*$`)
	pluginForm  = regexp.MustCompile(`^(@[A-Za-z0-9][A-Za-z0-9._-]*/)?[A-Za-z0-9][A-Za-z0-9._-]*:[A-Za-z0-9][A-Za-z0-9._-]*$`)
)

// maxSettings is what one person's settings of one plugin may have, bytes.
const maxSettings = 4 << 20

func (s *server) settingsRoutes(r routes) {
	r.on("GET /lab/api/settings", s.serveSettings)
	r.on("GET /lab/api/settings/{id...}", s.serveSetting)
	r.on("PUT /lab/api/settings/{id...}", s.saveSetting)
}

// plugins are those of the front end and of the extensions, sorted by ID. Where
// both have one, the extension's counts: it was put there on purpose.
func (s *server) plugins() ([]plugin, error) {
	found := map[string]plugin{}
	if s.builtIn != nil {
		list, err := s.builtIn()
		if err != nil {
			return nil, err
		}
		for _, p := range list {
			found[p.ID] = p
		}
	}
	for _, e := range s.extensions() {
		dir := filepath.Join(e.dir, "schemas")
		for _, form := range []string{"*/*.json", "@*/*/*.json"} {
			files, _ := filepath.Glob(filepath.Join(globbed(dir), form))
			for _, file := range files {
				rel, err := filepath.Rel(dir, file)
				if err != nil || filepath.Base(file) == "package.json" {
					continue
				}
				id := filepath.Dir(rel) + ":" + strings.TrimSuffix(filepath.Base(rel), ".json")
				b, err := readSmall(file)
				if err != nil || !pluginForm.MatchString(id) || bounded(b) != nil || !json.Valid(b) {
					s.log.Warn("a schema of settings is left out", "file", file)
					continue
				}
				found[id] = plugin{ID: id, Version: e.Version, Schema: b}
			}
		}
	}
	out := make([]plugin, 0, len(found))
	for _, p := range found {
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b plugin) int { return strings.Compare(a.ID, b.ID) })
	return out, nil
}

func (s *server) serveSettings(w http.ResponseWriter, r *http.Request) error {
	list, err := s.plugins()
	if err != nil {
		return err
	}
	overrides := s.overrides()
	out := make([]object, 0, len(list))
	for _, p := range list {
		if r.URL.Query().Get("ids_only") == "true" {
			out = append(out, object{"id": p.ID})
			continue
		}
		out = append(out, s.setting(p, overrides))
	}
	answerLong(w, r, object{"settings": out})
	return nil
}

// overrides are other defaults than the schemas', by plugin.
func (s *server) overrides() object { return s.settled("overrides", "default_setting_overrides") }

func (s *server) serveSetting(w http.ResponseWriter, r *http.Request) error {
	p, err := s.plugin(r.PathValue("id"))
	if err != nil {
		return err
	}
	answerLong(w, r, s.setting(p, s.overrides()))
	return nil
}

func (s *server) plugin(id string) (plugin, error) {
	none := &quire.Error{Kind: quire.KindNotFound, Message: "Schema not found: " + strings.ToValidUTF8(id, "\uFFFD")}
	if !pluginForm.MatchString(id) {
		return plugin{}, none
	}
	list, err := s.plugins()
	if err != nil {
		return plugin{}, err
	}
	i, ok := slices.BinarySearchFunc(list, id, func(p plugin, id string) int { return strings.Compare(p.ID, id) })
	if !ok {
		return plugin{}, none
	}
	return list[i], nil
}

// settingFile is where a person's settings of a plugin are, as upstream has it.
func (s *server) settingFile(id string) string {
	pkg, name, _ := strings.Cut(id, ":")
	return filepath.Join(s.configDir(), "lab/user-settings", filepath.FromSlash(pkg), name+".jupyterlab-settings")
}

// setting describes a plugin's settings. A file that cannot be read does not keep
// JupyterLab from starting: it says so in warning.
func (s *server) setting(p plugin, overrides object) object {
	out := object{"id": p.ID, "schema": s.schema(p, overrides), "version": p.Version, "raw": "{}", "settings": object{}, "last_modified": nil, "created": nil}
	file := s.settingFile(p.ID)
	info, err := os.Stat(file)
	if errors.Is(err, fs.ErrNotExist) {
		return out
	}
	var b []byte
	if err == nil && info.Size() > maxSettings {
		err = quire.Invalid("raw", "The file is too long.")
	}
	if err == nil {
		b, err = os.ReadFile(file)
	}
	if err != nil {
		out["warning"] = "Your settings in " + file + " could not be read: " + quire.AsError(err).Message
		return out
	}
	out["last_modified"], out["created"] = info.ModTime().UTC().Format(stamp), info.ModTime().UTC().Format(stamp)
	if raw := strings.ToValidUTF8(string(b), "\uFFFD"); strings.TrimSpace(raw) != "" {
		out["raw"] = raw
	}
	settings, err := object5(out["raw"].(string))
	if err != nil {
		out["warning"] = "Your settings in " + file + " could not be read: " + quire.AsError(err).Message
		return out
	}
	out["settings"] = settings
	return out
}

// schema is a plugin's, with other defaults where the site or the environment has
// them.
func (s *server) schema(p plugin, overrides object) any {
	defaults, ok := overrides[p.ID].(object)
	if !ok {
		return p.Schema
	}
	v, err := decode(p.Schema)
	schema, isObject := v.(object)
	if err != nil || !isObject {
		return p.Schema
	}
	properties, ok := schema["properties"].(object)
	if !ok {
		properties = object{}
		schema["properties"] = properties
	}
	for k, v := range defaults {
		property, ok := properties[k].(object)
		if !ok {
			properties[k] = object{"default": v}
			continue
		}
		old, isOld := property["default"].(object)
		fresh, isFresh := v.(object)
		if isOld && isFresh {
			update(old, fresh)
		} else {
			property["default"] = clone(v)
		}
	}
	return schema
}

func (s *server) saveSetting(w http.ResponseWriter, r *http.Request) error {
	p, err := s.plugin(r.PathValue("id"))
	if err != nil {
		return err
	}
	var in struct{ Raw *string }
	if err := ask(w, r, maxSettings, &in); err != nil {
		return err
	}
	if in.Raw == nil || !utf8.ValidString(*in.Raw) {
		return quire.Invalid("raw", "Send the text of the settings as raw.")
	}
	if err := bounded([]byte(*in.Raw)); err != nil {
		return err
	}
	if _, err := object5(*in.Raw); err != nil {
		return err
	}
	if err := writeConfig(s.settingFile(p.ID), []byte(*in.Raw)); err != nil {
		return quire.Failed("The settings could not be written in your home directory. Is it full?", err)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
