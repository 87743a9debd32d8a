package lab

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// siteDir has what administrators set for everybody's JupyterLab:
// overrides.json and page_config.json.
const siteDir = "/etc/quire/jupyter"

// maxConfig is what is read of a file of configuration, bytes.
const maxConfig = 8 << 20

// dataDirs are where Jupyter's tools install things, the last one winning.
func (s *server) dataDirs() []string {
	dirs := []string{"/usr/share/jupyter", "/usr/local/share/jupyter"}
	if s.prefix != "" {
		dirs = append(dirs, filepath.Join(s.prefix, "share/jupyter"))
	}
	if s.home != "" {
		dirs = append(dirs, filepath.Join(s.home, ".local/share/jupyter"))
	}
	return dirs
}

// configDirs are where Jupyter's tools look for configuration, the last one
// winning.
func (s *server) configDirs() []string {
	dirs := []string{"/usr/local/etc/jupyter", "/etc/jupyter"}
	if s.prefix != "" {
		dirs = append(dirs, filepath.Join(s.prefix, "etc/jupyter"))
	}
	return append(dirs, s.configDir())
}

// configDir is the person's own configuration, which Jupyter's programs in Python
// read and write as well.
func (s *server) configDir() string {
	if dir := os.Getenv("JUPYTER_CONFIG_DIR"); filepath.IsAbs(dir) {
		return dir
	}
	home := s.home
	if home == "" {
		home = os.TempDir()
	}
	return filepath.Join(home, ".jupyter")
}

// readSmall reads a file of configuration. Others may write where it lies, so what
// is no file, like a pipe that nobody writes to, is refused.
func readSmall(file string) ([]byte, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxConfig {
		return nil, fmt.Errorf("%s is no file, or too long", file)
	}
	return os.ReadFile(file)
}

// readConfig reads an object from a file, in JSON5 where the name says so. What is
// not there is nothing; what cannot be read is logged and nothing.
func (s *server) readConfig(file string) object {
	b, err := readSmall(file)
	if err != nil {
		return nil
	}
	var o object
	if filepath.Ext(file) == ".json5" {
		o, err = object5(string(b))
	} else {
		var v any
		if v, err = decode(b); err == nil {
			o, _ = v.(object)
		}
	}
	if err != nil {
		s.log.Warn("configuration cannot be read", "file", file, "err", err)
	}
	return o
}

// update puts what is in from over what is in to, object by object. null takes a
// key away, and so does an object with nothing in it.
func update(to, from object) {
	for k, v := range from {
		fresh, isFresh := v.(object)
		if !isFresh {
			if to[k] = clone(v); v == nil {
				delete(to, k)
			}
			continue
		}
		old, isOld := to[k].(object)
		if !isOld {
			old = object{}
		}
		if update(old, fresh); len(old) == 0 {
			delete(to, k)
		} else {
			to[k] = old
		}
	}
}

// settled reads a configuration from everywhere it may be: name.json in the
// directories of applications and in labconfig of those of configuration, and in
// the site's.
func (s *server) settled(name, labconfig string) object {
	out := object{}
	var places []string
	for _, d := range s.dataDirs() {
		dir := filepath.Join(d, "lab/settings")
		more, _ := filepath.Glob(filepath.Join(globbed(dir), name+".d", "*.json*"))
		places = append(append(places, more...), filepath.Join(dir, name+".json"), filepath.Join(dir, name+".json5"))
		if d == "/usr/local/share/jupyter" {
			places = append(places, filepath.Join(siteDir, name+".json"), filepath.Join(siteDir, name+".json5"))
		}
	}
	for _, d := range s.configDirs() {
		more, _ := filepath.Glob(filepath.Join(globbed(d), "labconfig", labconfig+".d", "*.json"))
		places = append(append(places, more...), filepath.Join(d, "labconfig", labconfig+".json"))
	}
	for _, p := range places {
		update(out, s.readConfig(p))
	}
	return out
}

// pageConfig is what administrators and extensions set of the page's
// configuration. The names of disabled extensions are a list there, whether they
// were written as one or as an object.
func (s *server) pageConfig() map[string]any {
	out := s.settled("page_config", "page_config")
	for _, key := range []string{"disabledExtensions", "deferredExtensions"} {
		if o, ok := out[key].(object); ok {
			list := []string{}
			for _, name := range slices.Sorted(maps.Keys(o)) {
				if o[name] == true {
					list = append(list, name)
				}
			}
			out[key] = list
		}
	}
	// The address of our own server is not theirs to set.
	for k := range out {
		if strings.HasSuffix(strings.ToLower(k), "url") || k == "token" {
			delete(out, k)
		}
	}
	return out
}

// writeConfig replaces a file of the person's in one step.
func writeConfig(file string, b []byte) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(file), ".quire-*")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Chmod(f.Name(), 0o644)
	}
	if err == nil {
		err = os.Rename(f.Name(), file)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

// An extension is one that was built before, by webpack, and lies in a directory
// of an environment or of the system.
type extension struct {
	Name  string
	dir   string
	Build struct {
		Load          string `json:"load"`
		Extension     string `json:"extension,omitempty"`
		MimeExtension string `json:"mimeExtension,omitempty"`
		Style         string `json:"style,omitempty"`
	}
	Version string
}

// extension finds one by its name. Of one that is there twice, the person's or the
// environment's counts.
func (s *server) extension(name string) (extension, bool) {
	if !packageForm.MatchString(name) {
		return extension{}, false
	}
	for _, d := range slices.Backward(s.dataDirs()) {
		e := extension{Name: name, dir: filepath.Join(d, "labextensions", filepath.FromSlash(name))}
		b, err := readSmall(filepath.Join(e.dir, "package.json"))
		if err != nil {
			continue
		}
		var about struct {
			Version    string
			JupyterLab struct {
				Build json.RawMessage `json:"_build"`
			}
		}
		if json.Unmarshal(b, &about) != nil || json.Unmarshal(about.JupyterLab.Build, &e.Build) != nil || e.Build.Load == "" {
			s.log.Debug("an extension is no prebuilt one", "dir", e.dir)
			continue
		}
		e.Version = about.Version
		return e, true
	}
	return extension{}, false
}

// extensions are those that are installed, sorted by name.
func (s *server) extensions() []extension {
	names := map[string]bool{}
	for _, d := range s.dataDirs() {
		base := filepath.Join(d, "labextensions")
		for _, form := range []string{"*", "@*/*"} {
			found, _ := filepath.Glob(filepath.Join(globbed(base), form, "package.json"))
			for _, file := range found {
				if name, err := filepath.Rel(base, filepath.Dir(file)); err == nil {
					names[name] = true
				}
			}
		}
	}
	out := []extension{}
	for _, name := range keys(names) {
		if e, ok := s.extension(name); ok {
			out = append(out, e)
		}
	}
	return out
}

// federated is what the page's configuration says of the extensions.
func (s *server) federated() []object {
	out := []object{}
	for _, e := range s.extensions() {
		o := object{"name": e.Name, "load": e.Build.Load}
		for k, v := range map[string]string{"extension": e.Build.Extension, "mimeExtension": e.Build.MimeExtension, "style": e.Build.Style} {
			if v != "" {
				o[k] = v
			}
		}
		out = append(out, o)
	}
	return out
}
