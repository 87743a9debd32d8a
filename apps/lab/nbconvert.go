package lab

import (
	"archive/zip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"

	"quire"
	"quire/apps"
)

const (
	convertWithin = 2 * time.Minute
	maxConverted  = 200 << 20 // bytes of a result
	maxSaid       = 64 << 10  // bytes of what the program says
)

// converters are the formats that the environment's nbconvert knows, or the
// system's. Asking takes Python most of a second, so what it says is kept.
type converters struct {
	pythons []string // where nbconvert may be, the environment's first

	mu     sync.Mutex
	known  map[string]converter
	python string // that has them
	until  time.Time
	busy   chan struct{} // one at a time: each may need gigabytes
}

func newConverters(c config) *converters {
	out := &converters{busy: make(chan struct{}, 1)}
	if c.prefix != "" {
		out.pythons = []string{filepath.Join(c.prefix, "bin/python3")}
	}
	out.pythons = append(out.pythons, c.python, "/usr/bin/python3")
	return out
}

type converter struct {
	Mimetype string `json:"output_mimetype"`
}

// ask prints every exporter that can be made, with its type.
const askExporters = `import json
from nbconvert.exporters import base
r = {}
for n in base.get_export_names():
    try:
        r[n] = {"output_mimetype": base.get_exporter(n).output_mimetype}
    except Exception:
        pass
print(json.dumps(r))`

func (s *server) convertRoutes(r routes) {
	r.on("GET /api/nbconvert", s.serveConverters)
	r.on("GET /nbconvert/{format}/{path...}", s.serveConverted)
}

// runPython runs a Python with bounds on its time and memory, in a directory of its own,
// and returns what it said.
func runPython(ctx context.Context, python, dir string, within time.Duration, args ...string) (out, said string, err error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	// The limits are the kernel's: of memory, of time on a processor, of a file.
	args = append([]string{"--data=4294967296", "--cpu=300", fmt.Sprintf("--fsize=%d", maxConverted), "--core=0", "--", python}, args...)
	cmd := exec.CommandContext(ctx, "/usr/bin/prlimit", args...)
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	var stdout, stderr limited
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err = cmd.Run()
	if ctx.Err() != nil && err != nil {
		err = ctx.Err()
	}
	return stdout.String(), stderr.String(), err
}

// limited keeps the beginning of what is written to it.
type limited struct{ strings.Builder }

func (l *limited) Write(b []byte) (int, error) {
	l.Builder.Write(b[:min(len(b), maxSaid-min(l.Len(), maxSaid))])
	return len(b), nil
}

// exporters asks the first Python that has nbconvert; without one the list is
// empty and the page has no menu for it.
func (s *server) exporters(ctx context.Context) (known map[string]converter, python string) {
	c := s.converters
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Now().Before(c.until) {
		return c.known, c.python
	}
	c.known = map[string]converter{}
	// Python looks for modules where it begins, so that is nobody else's place.
	dir, err := os.MkdirTemp("", "quire-export-")
	if err != nil {
		s.log.Warn("no directory for nbconvert", "err", err)
		return c.known, ""
	}
	defer os.RemoveAll(dir)
	for _, python := range s.converters.pythons {
		if _, err := os.Stat(python); err != nil {
			continue
		}
		out, said, err := runPython(ctx, python, dir, 30*time.Second, "-c", askExporters)
		if err == nil {
			err = json.Unmarshal([]byte(out), &c.known)
		}
		if err == nil {
			c.python = python
			break
		}
		s.log.Debug("no nbconvert", "python", python, "err", err, "said", said)
	}
	c.until = time.Now().Add(5 * time.Minute)
	if ctx.Err() != nil {
		c.until = time.Time{}
	}
	return c.known, c.python
}

func (s *server) serveConverters(w http.ResponseWriter, r *http.Request) error {
	known, _ := s.exporters(r.Context())
	answer(w, http.StatusOK, known)
	return nil
}

var formatForm = regexp.MustCompile(`^[a-z0-9_]{1,32}$`)

// serveConverted converts a notebook and has the browser save the result: it may
// be a page with scripts of anybody's.
func (s *server) serveConverted(w http.ResponseWriter, r *http.Request) error {
	// Links from elsewhere do not make work here.
	if site := r.Header.Get("Sec-Fetch-Site"); site == "cross-site" || site == "same-site" {
		return quire.Forbidden("Notebooks can be exported from JupyterLab's own page only.")
	}
	p, err := apiPath(r.PathValue("path"))
	if err != nil {
		return err
	}
	format := r.PathValue("format")
	if hidden(p) {
		return quire.NotFound("file")
	}
	real, _, err := s.look(p)
	if err != nil {
		return err
	}
	c, err := s.tree.Read(real, maxParsed)
	if err != nil {
		return err
	}
	if _, err := readNotebook(c.Bytes); err != nil {
		return err
	}
	known, python := s.exporters(r.Context())
	if len(known) == 0 {
		return quire.Failed("Nothing here exports notebooks: nbconvert is missing. Install it into the project's environment, then try again.", nil)
	}
	if _, ok := known[format]; !ok || !formatForm.MatchString(format) {
		return &quire.Error{Kind: quire.KindNotFound, Message: "There is no export to " + strings.ToValidUTF8(format, "\uFFFD") + " here."}
	}
	select {
	case s.converters.busy <- struct{}{}:
		defer func() { <-s.converters.busy }()
	case <-r.Context().Done():
		return quire.Unavailable("The export was given up.", r.Context().Err())
	}
	dir, err := os.MkdirTemp("", "quire-export-")
	if err != nil {
		return quire.Failed("There is no room for the export in the directory for temporary files.", err)
	}
	defer os.RemoveAll(dir)
	return s.convert(w, r, python, dir, format, path.Base(p), c.Bytes)
}

// pattern are the characters of names that nbconvert would take for a pattern.
var pattern = regexp.MustCompile(`[][*?]`)

// convert runs nbconvert over a copy, which has the notebook's name: it is the
// title of the result.
func (s *server) convert(w http.ResponseWriter, r *http.Request, python, dir, format, name string, notebook []byte) error {
	title := strings.TrimSuffix(name, ".ipynb")
	in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	for _, d := range []string{in, out} {
		if err := os.Mkdir(d, 0o700); err != nil {
			return err
		}
	}
	file := filepath.Join(in, pattern.ReplaceAllString(title, "_")+".ipynb")
	if err := os.WriteFile(file, notebook, 0o600); err != nil {
		return quire.Failed("There is no room for the export in the directory for temporary files.", err)
	}
	_, said, err := runPython(r.Context(), python, in, convertWithin, "-m", "nbconvert", "--to", format, "--log-level=ERROR", "--output-dir", out, file)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return quire.Failed(fmt.Sprintf("The export took longer than %d minutes and was stopped.", int(convertWithin.Minutes())), nil)
	case err != nil:
		lines := strings.Split(strings.TrimSpace(said), "\n")
		return quire.Failed("The export failed: "+apps.Plain(lines[len(lines)-1], 300), err)
	}
	made, err := os.ReadDir(out)
	if err != nil || len(made) == 0 {
		return quire.Failed("The export made nothing. Try another format.", err)
	}
	h := w.Header()
	h.Set("Content-Security-Policy", "sandbox; default-src 'none'")
	if len(made) == 1 && made[0].Type().IsRegular() {
		kind := mime.TypeByExtension(filepath.Ext(made[0].Name()))
		if kind == "" {
			kind = "application/octet-stream"
		}
		f, err := os.Open(filepath.Join(out, made[0].Name()))
		if err != nil {
			return err
		}
		defer f.Close()
		h.Set("Content-Type", kind)
		h.Set("Content-Disposition", apps.Disposition("attachment", title+filepath.Ext(made[0].Name())))
		io.Copy(w, f) // an error is of a page that went away
		return nil
	}
	// Pictures beside the text: all of it in one file.
	h.Set("Content-Type", "application/zip")
	h.Set("Content-Disposition", apps.Disposition("attachment", title+".zip"))
	z := zip.NewWriter(w)
	if err := z.AddFS(os.DirFS(out)); err != nil {
		s.log.Info("an export was cut off", "err", err)
		panic(http.ErrAbortHandler) // so that nobody takes half of it for the whole
	}
	z.Close()
	return nil
}
