package lint

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"sync"
	"testing"
)

const root = "../.."

// module is the prefix of our own import paths.
const module = "quire"

// A source is one Go file.
type source struct {
	name string // from the root of the repository, with slashes
	dir  string // "." for the root
	test bool
	text []byte
	file *ast.File
}

// A tree is the repository as the rules see it.
type tree struct {
	fset  *token.FileSet
	files []string // every file of the repository, sorted
	code  []*source
}

// built and fetched things are no source.
func skipped(dir string) bool {
	switch path.Base(dir) {
	case ".git", "node_modules", "test-results", "testdata":
		return true
	}
	if strings.HasPrefix(path.Base(dir), "_") {
		return true // somebody's experiment; Go does not see it either
	}
	return dir == "bin" || dir == "dist" || dir == "web/dist" || dir == "apps/lab/dist"
}

var load = sync.OnceValues(func() (*tree, error) {
	t := &tree{fset: token.NewFileSet()}
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		if d.IsDir() {
			if rel != "." && skipped(rel) {
				return fs.SkipDir
			}
			return nil
		}
		if !d.Type().IsRegular() {
			return nil
		}
		t.files = append(t.files, rel)
		if !strings.HasSuffix(rel, ".go") {
			return nil
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		file, err := parser.ParseFile(t.fset, rel, text, parser.ParseComments)
		if err != nil {
			return err
		}
		t.code = append(t.code, &source{
			name: rel, dir: path.Dir(rel), text: text, file: file,
			test: strings.HasSuffix(rel, "_test.go"),
		})
		return nil
	})
	sort.Strings(t.files)
	return t, err
})

func repository(t *testing.T) *tree {
	t.Helper()
	tree, err := load()
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// at is FILE:LINE of a place, for messages an editor can jump to.
func (t *tree) at(pos token.Pos) string {
	p := t.fset.Position(pos)
	return p.Filename + ":" + strconv.Itoa(p.Line)
}

// packages maps every directory that has Go files to them, tests included.
func (t *tree) packages() map[string][]*source {
	out := map[string][]*source{}
	for _, s := range t.code {
		out[s.dir] = append(out[s.dir], s)
	}
	return out
}

// lines counts the lines of a text as an editor does.
func lines(text []byte) int { return bytes.Count(text, []byte("\n")) }

// imports lists the paths a file imports.
func (s *source) imports() []string {
	var out []string
	for _, i := range s.file.Imports {
		p, _ := strconv.Unquote(i.Path.Value)
		out = append(out, p)
	}
	return out
}

// names maps the name by which a file calls each import to its path.
func (s *source) names() map[string]string {
	out := map[string]string{}
	for _, i := range s.file.Imports {
		p, _ := strconv.Unquote(i.Path.Value)
		name := path.Base(p)
		if v := strings.TrimPrefix(name, "v"); v != name && strings.Trim(v, "0123456789") == "" {
			name = path.Base(path.Dir(p)) // "math/rand/v2" is rand
		}
		if i.Name != nil {
			name = i.Name.Name
		}
		out[name] = p
	}
	return out
}

// under reports whether dir is one of the directories or below one.
func under(dir string, tops ...string) bool {
	for _, top := range tops {
		if dir == top || strings.HasPrefix(dir, top+"/") {
			return true
		}
	}
	return false
}

// tool reports whether a directory holds a program or a test for developers,
// which no site runs.
func tool(dir string) bool { return under(dir, "build", "bench", "test", "examples") }
