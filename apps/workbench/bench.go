package workbench

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"quire"
	"quire/apps/files"
)

// A bench is what one Workbench process has: the trees that are shown, uploads,
// and the names of people.
type bench struct {
	project string
	state   string // directory for notes of ours in the person's home
	uploads *files.Uploads
	people  *files.People
	log     *slog.Logger

	mu       sync.Mutex
	roots    []*root
	archives map[string]archive // prepared, by their one-time names
}

// A root is a tree that the page shows at its top.
type root struct {
	ID    string
	Title string
	Fixed bool // the project and the home, which cannot be hidden
	tree  *files.Tree
}

const (
	maxRoots    = 50
	maxArchives = 100
	archiveLife = 2 * time.Minute
)

// An archive that a page has asked for and not yet fetched: a selection does not
// fit into an address.
type archive struct {
	root, dir string
	names     []string
	tar       bool
	until     time.Time
}

func newBench(project, home string, log *slog.Logger) (*bench, error) {
	b := &bench{project: project, people: files.NewPeople(), log: log, archives: map[string]archive{}}
	tree, err := files.Open(project)
	if err != nil {
		return nil, err
	}
	b.roots = []*root{{ID: "project", Title: "Project", Fixed: true, tree: tree}}
	if home != "" && home != "/" && filepath.Clean(home) != tree.Path {
		if t, err := files.Open(home); err == nil {
			b.roots = append(b.roots, &root{ID: "home", Title: "Home", Fixed: true, tree: t})
		} else {
			log.Warn("no home directory", "err", err)
		}
	}
	if home == "" {
		home = os.TempDir()
	}
	sum := sha256.Sum256([]byte(tree.Path))
	base := filepath.Join(home, ".local/state/quire/workbench")
	b.state = filepath.Join(base, hex.EncodeToString(sum[:8]))
	b.uploads = files.NewUploads(filepath.Join(base, "uploads"), log)
	b.restore()
	return b, nil
}

func (b *bench) close() {
	for _, r := range b.roots {
		r.tree.Close()
	}
}

func (b *bench) shown() []*root {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.roots)
}

func (b *bench) root(id string) (*files.Tree, error) {
	for _, r := range b.shown() {
		if r.ID == id {
			return r.tree, nil
		}
	}
	return nil, quire.NotFound("directory")
}

func rootID(path string) string {
	sum := sha256.Sum256([]byte(path))
	return "d-" + hex.EncodeToString(sum[:8])
}

// show adds a directory, or one file, to those that the page shows.
func (b *bench) show(path string) (*root, error) {
	path = strings.TrimSpace(path)
	if path == "~" || strings.HasPrefix(path, "~/") {
		path = os.Getenv("HOME") + path[1:]
	}
	t, err := files.Open(path)
	if err != nil {
		return nil, err
	}
	if _, _, err := t.List("", "", 1); err != nil {
		t.Close()
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, r := range b.roots {
		if r.tree.Path == t.Path {
			t.Close()
			return r, nil
		}
	}
	if len(b.roots) >= maxRoots {
		t.Close()
		return nil, &quire.Error{Kind: quire.KindTooMany, Message: "That is enough directories. Hide one first."}
	}
	r := &root{ID: rootID(t.Path), Title: t.Path, tree: t}
	b.roots = append(b.roots, r)
	return r, b.save()
}

// hide takes a directory away again. Requests that use its tree still end well:
// the descriptor goes when nobody needs it.
func (b *bench) hide(id string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, r := range b.roots {
		if r.ID != id {
			continue
		}
		if r.Fixed {
			return quire.Invalid("id", "The project and your home are always shown.")
		}
		b.roots = slices.Delete(b.roots, i, i+1)
		return b.save()
	}
	return quire.NotFound("directory")
}

// save notes the shown directories; the caller holds the lock.
func (b *bench) save() error {
	var paths [][]byte
	for _, r := range b.roots {
		if !r.Fixed {
			paths = append(paths, []byte(r.tree.Path))
		}
	}
	data, err := json.Marshal(paths)
	if err == nil {
		err = os.MkdirAll(b.state, 0o700)
	}
	if err == nil {
		temp := filepath.Join(b.state, ".roots.new")
		if err = os.WriteFile(temp, data, 0o600); err == nil {
			err = os.Rename(temp, filepath.Join(b.state, "roots.json"))
		}
	}
	if err != nil {
		return quire.Failed("The list of directories could not be kept in your home directory. Is it full?", err)
	}
	return nil
}

func (b *bench) restore() {
	data, err := os.ReadFile(filepath.Join(b.state, "roots.json"))
	var paths [][]byte
	if err != nil || json.Unmarshal(data, &paths) != nil {
		return
	}
	for _, p := range paths[:min(len(paths), maxRoots)] {
		if t, err := files.Open(string(p)); err == nil {
			b.roots = append(b.roots, &root{ID: rootID(t.Path), Title: t.Path, tree: t})
		}
	}
}

// prepare keeps what an archive shall have and gives it a name to be fetched by.
func (b *bench) prepare(a archive) (string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	for id, old := range b.archives {
		if now.After(old.until) {
			delete(b.archives, id)
		}
	}
	if len(b.archives) >= maxArchives {
		return "", &quire.Error{Kind: quire.KindTooMany, Message: "Too many downloads were prepared and not fetched. Try again in two minutes."}
	}
	raw := make([]byte, 16)
	rand.Read(raw)
	id := hex.EncodeToString(raw)
	a.until = now.Add(archiveLife)
	b.archives[id] = a
	return id, nil
}

func (b *bench) prepared(id string) (archive, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	a, ok := b.archives[id]
	if !ok || time.Now().After(a.until) {
		return a, &quire.Error{Kind: quire.KindNotFound, Message: "That download was prepared too long ago. Start it again from Workbench."}
	}
	return a, nil
}
