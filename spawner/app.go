package spawner

import (
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"github.com/tailscale/hujson"
	"golang.org/x/sys/unix"

	"quire"
)

// shipped are the descriptors of the apps that come with Quire.
//
//go:embed apps/*.json
var shipped embed.FS

// apps reads the descriptors: those shipped, overridden by name by files of the
// site. A file that is wrong leaves its app out and is told in words. We read
// them ourselves: whoever names the programs decides what runs as people.
func (s *Spawner) apps() (list []quire.App, messages []string) {
	byName := map[string]quire.App{}
	take := func(where, name string, read func() ([]byte, error)) {
		var a quire.App
		b, err := read()
		if _, told := errors.AsType[*quire.Error](err); err != nil && !told {
			err = quire.Invalid("", "it cannot be read.")
		}
		if err == nil {
			a, err = parseApp(b)
		}
		if err != nil {
			messages = append(messages, fmt.Sprintf("The app descriptor %s is left out: %s", filepath.Join(where, name), quire.AsError(err).Message))
			delete(byName, strings.TrimSuffix(name, ".json"))
			return
		}
		byName[a.Name] = a
	}
	ours, err := shipped.ReadDir("apps")
	if err != nil {
		messages = append(messages, "The app descriptors that come with Quire cannot be read.")
	}
	for _, e := range ours {
		take("", e.Name(), func() ([]byte, error) { return shipped.ReadFile("apps/" + e.Name()) })
	}
	site, err := s.siteApps()
	if err != nil {
		messages = append(messages, fmt.Sprintf("The app descriptors in %s are left out: %s", s.c.AppsDir, quire.AsError(err).Message))
	}
	for _, name := range site {
		take(s.c.AppsDir, name, func() ([]byte, error) {
			file, err := s.guarded(filepath.Join(s.c.AppsDir, name))
			if err != nil {
				return nil, err
			}
			return os.ReadFile(file)
		})
	}
	for _, a := range byName {
		if a.Enabled {
			list = append(list, a)
		}
	}
	sort.Slice(list, func(i, j int) bool {
		if list[i].Order != list[j].Order {
			return list[i].Order < list[j].Order
		}
		return list[i].Name < list[j].Name
	})
	return list, messages
}

// siteApps are the names of the site's descriptors.
func (s *Spawner) siteApps() (names []string, err error) {
	dir, err := s.guarded(s.c.AppsDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	list, err := os.ReadDir(dir)
	if err != nil {
		return nil, quire.Invalid("", fmt.Sprintf("they cannot be listed: %v.", err))
	}
	for _, e := range list {
		if strings.HasSuffix(e.Name(), ".json") {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// guarded follows the links of a path of the site's and refuses it when anybody
// but root could change what is there, by its own mode or by a directory above.
// Of one account there is nobody to guard from.
func (s *Spawner) guarded(path string) (string, error) {
	if path == "" {
		return "", fs.ErrNotExist
	}
	path, err := filepath.EvalSymlinks(path)
	if err != nil || s.c.Accounts.Keeper() != 0 {
		return path, err
	}
	for at := path; ; at = filepath.Dir(at) {
		var st unix.Stat_t
		if err := unix.Lstat(at, &st); err != nil {
			return "", err
		}
		// In a sticky directory above, as /tmp, what is root's stays in place.
		open := st.Mode&0o022 != 0 && (at == path || st.Mode&unix.S_ISVTX == 0)
		if st.Uid != 0 || open {
			return "", quire.Invalid("", fmt.Sprintf("others than root can change %s (uid %d, mode %04o).", at, st.Uid, st.Mode&0o7777))
		}
		if at == filepath.Dir(at) {
			return path, nil
		}
	}
}

func parseApp(b []byte) (quire.App, error) {
	plain, err := hujson.Standardize(b)
	if err != nil {
		return quire.App{}, quire.Invalid("", "it is not JSON: "+err.Error()+".")
	}
	var a quire.App
	if err := json.Unmarshal(plain, &a); err != nil {
		return quire.App{}, quire.Invalid("", "it is not JSON of the right shape: "+err.Error()+".")
	}
	if err := a.Check(); err != nil {
		return quire.App{}, err
	}
	known := map[string]string{"port": "%(port)s"}
	for _, word := range []string{"socket", "urlPrefix", "projectHome", "env", "quire", "python", "sessionDir"} {
		known[word] = ""
	}
	for _, word := range append(append([]string{a.Dir, a.Needs}, a.Command...), values(a.Env)...) {
		if _, err := replace(word, known); err != nil {
			return quire.App{}, err
		}
	}
	return a, nil
}

func values(m map[string]string) []string {
	var list []string
	for _, v := range m {
		list = append(list, v)
	}
	return list
}

// app finds an enabled app by name.
func (s *Spawner) app(name string) (quire.App, error) {
	list, _ := s.apps()
	for _, a := range list {
		if a.Name == name {
			return a, nil
		}
	}
	return quire.App{}, quire.NotFound("app on this node")
}

// offered are the apps that can run here, and the others: those that need
// something which is not where environments are made from. A project's own
// environment may have that: its sessions' parents look (--look).
func (s *Spawner) offered() (have, others []quire.App, messages []string) {
	list, messages := s.apps()
	for _, a := range list {
		need, err := s.need(a, s.base())
		if err == nil && need != "" {
			_, err = os.Stat(need)
		}
		switch {
		case err == nil || errors.Is(err, fs.ErrPermission):
			have = append(have, a)
		case a.InEnvironment():
			others = append(others, a)
		}
	}
	return have, others, messages
}

// base is the prefix that environments are made from.
func (s *Spawner) base() string {
	if s.c.RootEnv != "" {
		return s.c.RootEnv
	}
	return filepath.Dir(filepath.Dir(s.c.Python))
}

// need is the file that an app needs, in the environment with that prefix, or "".
func (s *Spawner) need(a quire.App, prefix string) (string, error) {
	need, err := replace(a.Needs, map[string]string{"env": prefix, "python": s.c.Python, "quire": s.c.Self})
	if err == nil && need != "" && !filepath.IsAbs(need) {
		need = filepath.Join(prefix, need)
	}
	return need, err
}

// replace puts values for %(name)s and a percent sign for %%.
func replace(s string, with map[string]string) (string, error) {
	var out strings.Builder
	for {
		before, rest, found := strings.Cut(s, "%")
		out.WriteString(before)
		if !found {
			return out.String(), nil
		}
		if after, ok := strings.CutPrefix(rest, "%"); ok {
			out.WriteByte('%')
			s = after
			continue
		}
		name, after, ok := strings.Cut(strings.TrimPrefix(rest, "("), ")s")
		value, known := with[name]
		if !strings.HasPrefix(rest, "(") || !ok || !known {
			return "", quire.Invalid("command_list", fmt.Sprintf("%q is not a word that is replaced; write %%%% for a percent sign.", "%"+rest))
		}
		out.WriteString(value)
		s = after
	}
}

const systemPath = "/usr/local/bin:/usr/bin:/bin"

// compose fills a descriptor for one session: the arguments of "quire keep
// --dir DIR" and the environment beyond the account's own words.
func (s *Spawner) compose(a quire.App, o quire.Order, args quire.StartArgs) (keep, env []string, err error) {
	dir := s.sessionDir(o.Session)
	words := map[string]string{
		"socket": filepath.Join(dir, "app.sock"), "sessionDir": dir, "port": "%(port)s", // the port is found by keep
		"urlPrefix": args.URLPrefix, "projectHome": o.Dir, "env": filepath.Join(o.Dir, "envs/default"),
		"quire": s.c.Self, "python": s.c.Python,
	}
	fill := func(text string) string {
		v, e := replace(text, words)
		if e != nil && err == nil {
			err = e
		}
		return v
	}
	cwd := o.Dir
	if a.Dir != "" {
		cwd = fill(a.Dir)
	}
	keep = []string{"--env", words["env"], "--cwd", cwd}
	if a.TCP() {
		keep = append(keep, "--tcp")
	}
	if a.Restart {
		keep = append(keep, "--again")
	}
	// An environment made over the base sees the packages there, not the programs:
	// either place will do.
	for _, prefix := range []string{words["env"], s.base()} {
		need, e := s.need(a, prefix)
		if e != nil && err == nil {
			err = e
		}
		if need != "" {
			keep = append(keep, "--needs", need)
		}
	}
	list, _ := s.apps()
	for _, other := range list {
		if need, err := s.need(other, words["env"]); err == nil && other.InEnvironment() {
			keep = append(keep, "--look", other.Name+"="+need)
		}
	}
	keep = append(keep, "--")
	for _, w := range a.Command {
		keep = append(keep, fill(w))
	}
	env = append(baseEnv(), "PROJECT_HOME="+o.Dir, "PROJECT_NAME="+args.ProjectName)
	env = append(env, caches(o.Dir)...)
	for name, value := range a.Env {
		env = append(env, name+"="+fill(value))
	}
	if err == nil {
		err = clean(keep, env)
	}
	return keep, env, err
}

// clean checks that words for a process have no zero byte, which the kernel
// would take for their end.
func clean(words ...[]string) error {
	for _, list := range words {
		for _, w := range list {
			if strings.ContainsRune(w, 0) {
				return quire.Invalid("args", "A zero byte cannot be handed to a program.")
			}
		}
	}
	return nil
}

// caches lie in the project, where files begin with the team's permissions, and
// are copied from, not linked: what one member installs, all can import. A cache
// in somebody's home would hand on files that only he may read.
func caches(dir string) []string {
	c := filepath.Join(dir, "envs/.cache")
	return []string{
		"PIP_CACHE_DIR=" + c + "/pip", "UV_CACHE_DIR=" + c + "/uv", "UV_LINK_MODE=copy",
		"CONDA_PKGS_DIRS=" + c + "/conda", "CONDA_ALWAYS_COPY=true",
	}
}

// baseEnv is what every process of ours gets beside its account's own words.
func baseEnv() []string {
	return []string{"LANG=C.UTF-8", "PATH=" + systemPath}
}
