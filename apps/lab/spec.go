package lab

import (
	"cmp"
	"context"
	"encoding/json"
	"io"
	"io/fs"
	"mime"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"quire"
	"quire/apps/files"
	"quire/apps/kernel"
)

// A kernelspec is a directory kernels/NAME with a file kernel.json that says how a
// kernel is started (Jupyter's documentation, "Making kernels").
type kernelspec struct {
	name string
	dir  string
	raw  object // all of kernel.json, for clients
	data specFile
}

type specFile struct {
	Argv        []string          `json:"argv"`
	DisplayName string            `json:"display_name"`
	Language    string            `json:"language"`
	Interrupt   string            `json:"interrupt_mode"`
	Env         map[string]string `json:"env"`
}

var specName = regexp.MustCompile(`^[a-zA-Z0-9._-]{1,128}$`)

const specBytes = 1 << 20

// shareDirs are where kernels are described, the first wins: first where the
// session's environment says, which is how an app's description can add some.
func (s *server) shareDirs() []string {
	var dirs []string
	for dir := range strings.SplitSeq(os.Getenv("JUPYTER_PATH"), ":") {
		if filepath.IsAbs(dir) {
			dirs = append(dirs, dir)
		}
	}
	for _, dir := range slices.Backward(s.dataDirs()) {
		dirs = append(dirs, dir)
	}
	return dirs
}

// specs are the kernels that can be started, by their names.
func (s *server) specs() []kernelspec {
	var out []kernelspec
	seen := map[string]bool{}
	for _, dir := range s.shareDirs() {
		entries, err := os.ReadDir(filepath.Join(dir, "kernels"))
		if err != nil {
			continue
		}
		for _, e := range entries {
			name := strings.ToLower(e.Name())
			if seen[name] || !specName.MatchString(name) {
				continue
			}
			if k, err := readSpec(filepath.Join(dir, "kernels", e.Name()), name); err == nil {
				seen[name] = true
				out = append(out, k)
			} else if !os.IsNotExist(err) {
				s.log.Warn("a kernel's description cannot be used", "dir", dir, "name", name, "err", err)
			}
		}
	}
	slices.SortFunc(out, func(a, b kernelspec) int { return cmp.Compare(a.name, b.name) })
	return out
}

func readSpec(dir, name string) (kernelspec, error) {
	k := kernelspec{name: name, dir: dir}
	f, err := os.Open(filepath.Join(dir, "kernel.json"))
	if err != nil {
		return k, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, specBytes))
	if err != nil {
		return k, err
	}
	if err := json.Unmarshal(b, &k.data); err != nil {
		return k, err
	}
	if err := json.Unmarshal(b, &k.raw); err != nil {
		return k, err
	}
	if len(k.data.Argv) == 0 {
		return k, quire.Invalid("argv", "It does not say what to start.")
	}
	for key, normal := range map[string]any{"env": object{}, "interrupt_mode": "signal", "metadata": object{}} {
		if k.raw[key] == nil {
			k.raw[key] = normal
		}
	}
	return k, nil
}

// fallback is the name of the kernel for those who name none.
func fallback(specs []kernelspec) string {
	best := ""
	for _, k := range specs {
		if k.name == "python3" {
			return k.name
		}
		if best == "" || k.data.Language == "python" {
			best = k.name
		}
	}
	return cmp.Or(best, "python3")
}

// startKernel starts a kernel by its name for a document, in the document's
// directory. A warm one is taken if it is of that kind.
func (s *server) startKernel(ctx context.Context, name, at string) (*running, error) {
	spec, err := s.spec(name, at)
	if err != nil {
		return nil, err
	}
	if k := s.warm.take(ctx, spec); k != nil {
		return k, nil
	}
	return s.kernels.start(ctx, spec)
}

func (s *server) spec(name, at string) (kernel.Spec, error) {
	none := kernel.Spec{}
	specs := s.specs()
	if name == "" {
		name = fallback(specs)
	}
	i := slices.IndexFunc(specs, func(k kernelspec) bool { return k.name == strings.ToLower(name) })
	if i < 0 {
		return none, &quire.Error{Kind: quire.KindInvalid, Message: "There is no kernel named " + name + " here. Choose another, or install it into the project's environment."}
	}
	k := specs[i]
	dir, err := s.kernelDir(at)
	if err != nil {
		return none, err
	}
	out := kernel.Spec{ID: kernel.NewID(), Name: k.name, Dir: dir, Path: filepath.Join(s.tree.Path, filepath.FromSlash(at)), Interrupt: k.data.Interrupt, Env: map[string]string{}}
	for _, a := range k.data.Argv {
		out.Argv = append(out.Argv, strings.NewReplacer("{resource_dir}", k.dir, "{prefix}", s.prefix).Replace(a))
	}
	for name, value := range k.data.Env {
		out.Env[name] = os.Expand(value, os.Getenv)
	}
	// "python" is the environment's, as it is for whoever installed the kernel.
	if arg := out.Argv[0]; arg == "python" || strings.HasPrefix(arg, "python3") || strings.HasPrefix(arg, "python2") {
		out.Argv[0] = s.interpreter()
	}
	return out, nil
}

func (s *server) interpreter() string {
	own := filepath.Join(s.prefix, "bin/python")
	if _, err := os.Stat(own); s.prefix != "" && err == nil {
		return own
	}
	return cmp.Or(s.python, "/usr/bin/python3")
}

// kernelDir is the directory of a document, which is where its kernel begins.
func (s *server) kernelDir(at string) (string, error) {
	at = strings.Trim(at, "/")
	if info, err := s.tree.Stat(at); at == "" || err == nil && info.Kind == files.Directory {
		return filepath.Join(s.tree.Path, filepath.FromSlash(at)), nil
	}
	dir := path.Dir(at)
	if dir == "." {
		return s.tree.Path, nil
	}
	info, err := s.tree.Stat(dir)
	if err != nil || info.Kind != files.Directory {
		return s.tree.Path, nil // of a console, whose path is no file's
	}
	return filepath.Join(s.tree.Path, filepath.FromSlash(dir)), nil
}

func (s *server) specRoutes(r routes) {
	r.on("GET /api/kernelspecs", func(w http.ResponseWriter, _ *http.Request) error {
		specs := s.specs()
		all := object{}
		for _, k := range specs {
			all[k.name] = s.specModel(k)
		}
		answer(w, http.StatusOK, object{"default": fallback(specs), "kernelspecs": all})
		return nil
	})
	r.on("GET /api/kernelspecs/{name}", func(w http.ResponseWriter, req *http.Request) error {
		for _, k := range s.specs() {
			if k.name == req.PathValue("name") {
				answer(w, http.StatusOK, s.specModel(k))
				return nil
			}
		}
		return quire.NotFound("kernel")
	})
	r.on("GET /kernelspecs/{name}/{file...}", func(w http.ResponseWriter, req *http.Request) error {
		name := req.PathValue("file")
		for _, k := range s.specs() {
			if k.name != req.PathValue("name") || !fs.ValidPath(name) || !resource(name) {
				continue
			}
			f, err := os.Open(filepath.Join(k.dir, filepath.FromSlash(name)))
			if err != nil {
				break
			}
			defer f.Close()
			info, err := f.Stat()
			if err != nil || !info.Mode().IsRegular() {
				break
			}
			w.Header().Set("Content-Type", cmp.Or(mime.TypeByExtension(path.Ext(name)), "application/octet-stream"))
			// A picture that is a page of its own runs nothing.
			w.Header().Set("Content-Security-Policy", "sandbox; default-src 'none'; style-src 'unsafe-inline'")
			http.ServeContent(w, req, "", info.ModTime(), f)
			return nil
		}
		return quire.NotFound("file")
	})
}

func resource(name string) bool {
	return strings.HasPrefix(name, "logo-") || name == "kernel.js" || name == "kernel.css"
}

func (s *server) specModel(k kernelspec) object {
	files := object{}
	entries, _ := os.ReadDir(k.dir)
	for _, e := range entries {
		if !resource(e.Name()) {
			continue
		}
		key := e.Name()
		if strings.HasPrefix(key, "logo-") {
			key = strings.TrimSuffix(key, path.Ext(key))
		}
		files[key] = s.base + "/kernelspecs/" + url.PathEscape(k.name) + "/" + url.PathEscape(e.Name())
	}
	return object{"name": k.name, "spec": k.raw, "resources": files}
}

// warm keeps one kernel ready of the kind that was used last, so that the next
// notebook need not wait for it.
type warm struct {
	s *server

	mu sync.Mutex
	id string
}

func (p *warm) has(id string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.id == id
}

// take is a warm kernel that is what was asked for, brought to its place; nil if
// there is none. Another one takes its place in any case.
func (p *warm) take(ctx context.Context, want kernel.Spec) *running {
	p.mu.Lock()
	id := p.id
	p.id = ""
	p.mu.Unlock()
	// The person's first cell comes first.
	defer time.AfterFunc(refill, func() { p.fill(want) })
	if id == "" {
		return nil
	}
	k, err := p.s.kernels.find(id)
	if err != nil {
		return nil
	}
	s := k.now()
	if s.Name == want.Name && slices.Equal(s.Argv, want.Argv) && s.Dir == want.Dir && k.awake(ctx) {
		return k
	}
	go func() { _ = p.s.kernels.end(context.WithoutCancel(ctx), id) }()
	return nil
}

// greet starts one for who has just come.
func (p *warm) greet() {
	if spec, err := p.s.spec("", ""); err == nil {
		p.fill(spec)
	}
}

// adopt takes up one that an earlier process of this app kept ready: it was
// started for no document, and nobody has used it.
func (p *warm) adopt() {
	for _, k := range p.s.kernels.all() {
		k.mu.Lock()
		unused := k.state.Path == "" && len(k.clients) == 0
		k.mu.Unlock()
		if unused && !p.s.sessions.has(k.id) {
			p.mu.Lock()
			p.id = k.id
			p.mu.Unlock()
		}
	}
}

// refill is how long a kernel that was taken is alone before the next one starts.
const refill = 3 * time.Second

// exercise has a kernel of Python do nothing once: what it loads for its first cell
// it has loaded then.
func (r *running) exercise() {
	if h := r.ks.current(); h != nil && strings.HasPrefix(r.now().Name, "python") {
		_ = h.Send(r.id, kernel.NewMessage(kernel.Shell, "execute_request", "quire", kernel.Header{}, object{"code": "pass", "silent": true, "store_history": false, "allow_stdin": false}))
	}
}

// fill starts a kernel for whoever comes next.
func (p *warm) fill(want kernel.Spec) {
	want.ID, want.Path = kernel.NewID(), ""
	go func() {
		p.mu.Lock()
		if p.id != "" {
			p.mu.Unlock()
			return
		}
		p.id = want.ID
		p.mu.Unlock()
		k, err := p.s.kernels.start(context.Background(), want)
		if err == nil {
			k.exercise()
			return
		}
		p.s.log.Info("no warm kernel", "err", err)
		p.mu.Lock()
		if p.id == want.ID {
			p.id = ""
		}
		p.mu.Unlock()
	}()
}
