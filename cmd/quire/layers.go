package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"

	"github.com/tailscale/hujson"
)

// layers are the places that settings come from. The weakest is first: the
// defaults, the site's file, the files of the roles, the same two in the working
// directory (only when asked for), the file of -c, the environment, flags.
type layers struct {
	root  bool
	roles []string // whose files are read; "quire up" is all of them
	here  bool     // read the working directory too
	file  string   // of -c
	env   []string
	set   []string // KEY=VALUE, from flags
}

// allRoles have a file of their own. The spawner is part of compute's machine
// and reads compute's; a worker reads the server's.
var allRoles = []string{"server", "gateway", "compute"}

// loadConfig is what is in force on a machine that runs every role.
func loadConfig(file string, root bool) (Config, error) {
	f, err := layers{root: root, roles: allRoles, file: file, env: os.Environ()}.load()
	return f.Config, err
}

// loadRole is loadConfig for one role. What the supervisor wrote for its
// children holds everything, so nothing else is read beside it.
func loadRole(file, role string, root bool) (Config, error) {
	b, err := readTrusted(file, root)
	if err != nil {
		return Config{}, err
	}
	var written struct{ Local *json.RawMessage }
	if json.Unmarshal(b, &written) == nil && written.Local != nil {
		var c Config
		d := json.NewDecoder(bytes.NewReader(b))
		d.DisallowUnknownFields()
		if err := d.Decode(&c); err != nil {
			return c, fmt.Errorf("%s: %w", file, err)
		}
		return c, c.check()
	}
	switch role {
	case "spawner":
		role = "compute"
	case "worker":
		role = "server"
	}
	f, err := layers{root: root, roles: []string{role}, file: file, env: os.Environ()}.load()
	return f.Config, err
}

// inForce is a configuration that knows where it has each value from, and what
// there is to say about settings that mean nothing here.
type inForce struct {
	Config
	from  map[string]string
	notes []string
}

// A layer is what one place says, read but not yet put in force.
type layer struct {
	role     string // whose file it is
	settings []setting
	notes    []string
}

type setting struct {
	key   string
	from  string
	value []byte // JSON
	// over, if set, makes the value from what the layers below say.
	over func(Config) []byte
}

func (l layers) load() (inForce, error) {
	f := inForce{Config: defaults(l.root), from: map[string]string{}}
	var above []layer
	if l.here {
		dir, err := filepath.Abs(".")
		if err != nil {
			return f, err
		}
		got, err := l.directory(dir, false)
		if err != nil {
			return f, err
		}
		above = append(above, got...)
	}
	if l.file != "" {
		got, err := l.read(l.file, "")
		if err != nil {
			return f, err
		}
		above = append(above, got)
	}
	env, err := fromEnvironment(l.env)
	if err != nil {
		return f, err
	}
	set, err := fromFlags(l.set)
	if err != nil {
		return f, err
	}
	above = append(above, env, set)
	// Where the site's files are is not theirs to say.
	for _, one := range above {
		for _, s := range one.settings {
			if s.key == siteKey {
				if err := f.put(s); err != nil {
					return f, err
				}
			}
		}
	}
	site, err := l.directory(f.Dirs.Site, true)
	if err != nil {
		return f, err
	}
	for _, one := range site {
		for _, s := range one.settings {
			if here, _ := json.Marshal(f.Dirs.Site); s.key == siteKey && !bytes.Equal(s.value, here) {
				return f, fmt.Errorf("%s: this file was found in %s and cannot move it; give %s with -c, %s or --set", s.from, f.Dirs.Site, siteKey, envName(siteKey))
			}
		}
	}
	if err := f.apply(append(site, above...)); err != nil {
		return f, err
	}
	return f, f.check()
}

const siteKey = "dirs.site"

// check adds to what is wrong where it came from. The sentence begins with the
// key.
func (f inForce) check() error {
	err := f.Config.check()
	if err == nil {
		return nil
	}
	key, _, _ := strings.Cut(err.Error(), " ")
	if from := f.from[key]; from != "" {
		return fmt.Errorf("%s: %w", from, err)
	}
	return err
}

// directory reads the files that one directory has, those of AEN below ours. A
// file that is not there says nothing.
func (l layers) directory(dir string, aen bool) ([]layer, error) {
	type file struct{ name, role string }
	var files []file
	for _, role := range append([]string{""}, l.roles...) {
		if aen {
			for _, name := range aenFiles(role) {
				files = append(files, file{name, role})
			}
		}
		name := role
		if role == "" {
			name = "quire"
		}
		files = append(files, file{name + ".conf", role})
	}
	var out []layer
	for _, f := range files {
		path := filepath.Join(dir, f.name)
		_, err := os.Lstat(path)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
			continue
		}
		if err == nil && !aen {
			// The working directory was not chosen by name: where somebody else
			// can put a file, none is read.
			err = guard(dir, false)
		}
		if err != nil {
			return nil, err
		}
		got, err := l.read(path, f.role)
		if err != nil {
			return nil, err
		}
		out = append(out, got)
	}
	return out, nil
}

func (l layers) read(path, role string) (layer, error) {
	b, err := readTrusted(path, l.root)
	if err != nil {
		return layer{}, err
	}
	got, err := parseConfig(path, b)
	got.role = role
	return got, err
}

// apply puts layers in force, the last one winning. Two roles on one machine
// share one configuration, so their files may not say different things; which
// one would win is nobody's guess.
func (f *inForce) apply(all []layer) error {
	roles := map[string]string{} // key, and which role's file said it
	for _, one := range all {
		f.notes = append(f.notes, one.notes...)
		for _, s := range one.settings {
			before, was := f.field(s.key).Interface(), f.from[s.key]
			if err := f.put(s); err != nil {
				return err
			}
			if one.role == "" {
				delete(roles, s.key)
				continue
			}
			if other := roles[s.key]; other != "" && other != one.role && !reflect.DeepEqual(before, f.field(s.key).Interface()) {
				return fmt.Errorf("%s: %s is not what %s says, and one machine has one configuration for all its roles", s.from, s.key, was)
			}
			roles[s.key] = one.role
		}
	}
	return nil
}

func (f *inForce) field(key string) reflect.Value {
	k, _ := keyNamed(key)
	return reflect.ValueOf(&f.Config).Elem().FieldByIndex(k.index)
}

// put decodes into a new value, so that a list replaces what was there. No
// error shows the value: it may be a secret.
func (f *inForce) put(s setting) error {
	if s.over != nil {
		s.value = s.over(f.Config)
	}
	field := f.field(s.key)
	into := reflect.New(field.Type())
	d := json.NewDecoder(bytes.NewReader(s.value))
	d.DisallowUnknownFields()
	err := d.Decode(into.Interface())
	if err == nil && string(bytes.TrimSpace(s.value)) == "null" {
		err = errors.New("null is no value; leave the key out")
	}
	if err != nil {
		return fmt.Errorf("%s: %s is %s", s.from, s.key, wants(field.Type(), err))
	}
	field.Set(into.Elem())
	f.from[s.key] = s.from
	return nil
}

// wants says what a key takes.
func wants(t reflect.Type, err error) string {
	switch t.Kind() {
	case reflect.String:
		return "text in quotation marks"
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return "a whole number"
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return "a whole number that is not negative"
	case reflect.Slice:
		if t.Elem().Kind() == reflect.String {
			return "a list of texts"
		}
		if k := t.Elem().Kind(); k >= reflect.Int && k <= reflect.Uint64 {
			return "a list of whole numbers"
		}
	}
	var kind *json.UnmarshalTypeError
	if errors.As(err, &kind) {
		return "of another shape at " + kind.Field
	}
	return "of another shape: " + err.Error()
}

// A key is one setting of Config, found by its JSON name; nested ones have dots.
type key struct {
	name   string
	index  []int
	typ    reflect.Type
	secret bool
}

// allKeys are in the order of Config. What the supervisor works out is not a
// setting.
func allKeys() []key {
	var out []key
	var walk func(t reflect.Type, prefix string, index []int)
	walk = func(t reflect.Type, prefix string, index []int) {
		for i := range t.NumField() {
			f := t.Field(i)
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			at := append(slices.Clone(index), i)
			switch {
			case f.Anonymous && name == "" && f.Type.Kind() == reflect.Struct:
				walk(f.Type, prefix, at)
			case name == "" || name == "-" || prefix+name == "local":
			case f.Type.Kind() == reflect.Struct && !reflect.PointerTo(f.Type).Implements(reflect.TypeFor[json.Unmarshaler]()):
				walk(f.Type, prefix+name+".", at)
			default:
				out = append(out, key{prefix + name, at, f.Type, f.Tag.Get("secret") == "true" || secretName(name)})
			}
		}
	}
	walk(reflect.TypeFor[Config](), "", nil)
	return out
}

func keyNamed(name string) (key, bool) {
	all := allKeys()
	i := slices.IndexFunc(all, func(k key) bool { return k.name == name })
	if i < 0 {
		return key{}, false
	}
	return all[i], true
}

func keyNames() []string {
	var names []string
	for _, k := range allKeys() {
		names = append(names, k.name)
	}
	return names
}

// parseConfig reads one file: ours, or by its name one of AEN's.
func parseConfig(path string, b []byte) (layer, error) {
	root, err := hujson.Parse(b)
	if err != nil {
		return layer{}, fmt.Errorf("%s: %w", path, err)
	}
	at := func(v hujson.Value) string {
		return fmt.Sprintf("%s:%d", path, 1+bytes.Count(b[:v.StartOffset], []byte("\n")))
	}
	top, ok := root.Value.(*hujson.Object)
	if !ok {
		return layer{}, fmt.Errorf("%s: a configuration is an object in braces", at(root))
	}
	root.Standardize() // takes comments out and leaves offsets as they are
	if file, old := aenFile(filepath.Base(path)); old {
		return file.translate(top, at)
	}
	var out layer
	err = members(top, "", at, func(name, from string, v hujson.Value) error {
		_, known := keyNamed(name)
		if !known {
			return unknown(name, from)
		}
		out.settings = append(out.settings, setting{key: name, from: from, value: v.Pack()})
		return nil
	})
	return out, err
}

// members calls each for every setting in an object, and for the settings in
// the sections below it. A key that is given twice is an error.
func members(o *hujson.Object, prefix string, at func(hujson.Value) string, each func(name, from string, v hujson.Value) error) error {
	seen := map[string]bool{}
	for _, m := range o.Members {
		short := m.Name.Value.(hujson.Literal).String()
		name, from := prefix+short, at(m.Name)
		if seen[short] {
			return fmt.Errorf("%s: %q is there twice", from, name)
		}
		seen[short] = true
		section := slices.ContainsFunc(keyNames(), func(k string) bool { return strings.HasPrefix(k, name+".") })
		var err error
		if inner, ok := m.Value.Value.(*hujson.Object); section && ok {
			err = members(inner, name+".", at, each)
		} else if section {
			err = fmt.Errorf("%s: %q is an object in braces", from, name)
		} else {
			err = each(name, from, m.Value)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func unknown(name, from string) error {
	if name == "local" {
		return fmt.Errorf(`%s: "local" is written by the supervisor for its children and cannot be set`, from)
	}
	return fmt.Errorf("%s: %q is not a setting; the nearest is %q (docs/admin/configuration.md lists every key)", from, name, nearest(name, keyNames()))
}

// nearest finds what a misspelt key was meant to be. The last word counts alone
// too, because a section is easily forgotten.
func nearest(name string, known []string) string {
	last := func(s string) string { return s[strings.LastIndex(s, ".")+1:] }
	best, least := "", -1
	for _, k := range known {
		d := min(2*distance(strings.ToLower(name), strings.ToLower(k)), 2*distance(strings.ToLower(last(name)), strings.ToLower(last(k)))+1)
		if least < 0 || d < least {
			best, least = k, d
		}
	}
	return best
}

// distance is how many letters must be put in, taken out or exchanged.
func distance(a, b string) int {
	if len(a) > 100 {
		a = a[:100] // no key is so long, and nobody is to wait for it
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

func envName(key string) string {
	return "QUIRE_" + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
}

// fromEnvironment takes the variables that are named as keys. Others that begin
// so are not ours (a session has one), unless they look like a slip of the pen.
func fromEnvironment(env []string) (layer, error) {
	names := map[string]key{}
	var known []string
	for _, k := range allKeys() {
		names[envName(k.name)] = k
		known = append(known, envName(k.name))
	}
	var out layer
	for _, pair := range env {
		name, text, _ := strings.Cut(pair, "=")
		if !strings.HasPrefix(name, "QUIRE_") {
			continue
		}
		from := "environment variable " + name
		k, ok := names[name]
		if ok {
			out.settings = append(out.settings, setting{key: k.name, from: from, value: k.fromText(text)})
			continue
		}
		near := nearest(name, known)
		letters := min(len(name), len(near)) - len("QUIRE_")
		section := slices.ContainsFunc(keyNames(), func(s string) bool {
			section, _, nested := strings.Cut(s, ".")
			return nested && strings.HasPrefix(name, envName(section)+"_")
		})
		if section || distance(name, near) <= min(2, letters/3) {
			return layer{}, fmt.Errorf("%s is not a setting; the nearest is %s", from, near)
		}
	}
	return out, nil
}

func fromFlags(set []string) (layer, error) {
	var out layer
	for _, pair := range set {
		name, text, ok := strings.Cut(pair, "=")
		from := "--set " + name
		if !ok {
			return layer{}, fmt.Errorf("%s: give it as KEY=VALUE", from)
		}
		k, known := keyNamed(name)
		if !known {
			return layer{}, unknown(name, from)
		}
		out.settings = append(out.settings, setting{key: name, from: from, value: k.fromText(text)})
	}
	return out, nil
}

// fromText makes JSON of what a shell gives: text needs no quotation marks, and
// a list of texts may have commas only.
func (k key) fromText(text string) []byte {
	var value any
	switch {
	case k.typ.Kind() == reflect.String:
		value = text
	case k.typ == reflect.TypeFor[[]string]() && !strings.HasPrefix(strings.TrimSpace(text), "["):
		value = strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' })
	default:
		if plain, err := hujson.Standardize([]byte(text)); err == nil {
			return plain
		}
		return nil // is not JSON, and put says what it should be
	}
	b, err := json.Marshal(value)
	if err != nil {
		return nil
	}
	return b
}

const maxConfig = 1 << 20 // bytes

// readTrusted reads a configuration that nobody but root or the running account
// can have written. Whoever can write it decides whose rights everything runs
// with. TestRefusesWhatOthersCanWrite shows it.
func readTrusted(path string, root bool) ([]byte, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, err
	}
	// A name is as good as the directories it goes through: the one that was
	// given, which may be a link, and what it leads to. Of one account there is
	// nobody to guard from but those who can write the file itself.
	for _, name := range []string{path, real} {
		for at := name; root; at = filepath.Dir(at) {
			if err := guard(at, at != name); err != nil {
				return nil, err
			}
			if at == filepath.Dir(at) {
				break
			}
		}
	}
	// Not blocking: a FIFO would hold us up.
	f, err := os.OpenFile(real, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a plain file", path)
	}
	if err := guarded(path, info, false); err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err == nil && len(b) > maxConfig {
		err = fmt.Errorf("%s is longer than %d bytes", path, maxConfig)
	}
	return b, err
}

func guard(path string, stickyIsFine bool) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	return guarded(path, info, stickyIsFine)
}

func guarded(path string, info fs.FileInfo, stickyIsFine bool) error {
	uid := info.Sys().(*syscall.Stat_t).Uid
	switch {
	case uid != 0 && int(uid) != os.Geteuid():
		return fmt.Errorf("%s belongs to account %d, who could change the configuration: it must be root's or of the account that runs Quire (chown)", path, uid)
	case info.Mode()&fs.ModeSymlink != 0 || info.Mode().Perm()&0o022 == 0:
		return nil // a link has no rights of its own
	case stickyIsFine && info.Mode()&fs.ModeSticky != 0:
		return nil // as in /tmp, what is root's stays in place
	}
	return fmt.Errorf("others can write %s (mode %04o) and so change the configuration: chmod go-w %s", path, info.Mode().Perm(), path)
}
