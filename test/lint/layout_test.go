package lint

import (
	"go/ast"
	"path"
	"sort"
	"strings"
	"testing"
)

// The numbers. Raising one needs a record in decisions/.
const (
	maxPackages = 24  // of the product; programs for developers are counted apart
	maxTools    = 8   // build, bench, test, examples
	maxLines    = 700 // of one source file
	maxMethods  = 12  // exported, of one type in control and of the Machine interface
)

// may lists what each package of ours may import of ours; "." is the
// vocabulary. A package that is not listed is not part of the design yet.
var may = map[string][]string{
	".":                   {},
	"acl":                 {},
	"spawner/launch":      {},
	"store":               {"."},
	"ticket":              {"."},
	"search":              {"."},
	"login":               {"."},
	"web":                 {"."},
	"control":             {".", "store", "login", "ticket", "search"},
	"server":              {".", "control", "web"},
	"gateway":             {".", "ticket", "web", "compute/remote"},
	"compute":             {".", "ticket", "compute/remote"},
	"compute/environment": {".", "acl"},
	"compute/remote":      {".", "ticket", "web"},
	"spawner":             {".", "ticket", "acl", "spawner/launch"},
	"apps/files":          {".", "acl"},
	"apps":                {"."},
	"apps/terminal":       {".", "web", "apps", "apps/files"},
	"apps/workbench":      {".", "acl", "web", "apps", "apps/files"},
	"apps/viewer":         {".", "web", "apps", "apps/files"},
	"apps/lab":            {".", "web", "apps", "apps/files", "apps/kernel"},
	"apps/kernel":         {".", "apps"},
	"apps/keep":           {"."},
}

// never gives the reason where the absence of an import carries the design.
var never = []struct{ from, to, reason string }{
	{"control", "server", "decisions do not know how they are asked for"},
	{"control", "compute", "control acts through quire.Machine, so that it cannot tell near from far"},
	{"control", "net/http", "decisions are no requests: nothing of HTTP may leak into them"},
	{"server", "store", "every read and write passes control, which asks quire.Can"},
	{"server", "compute", "pages decide nothing and command nothing"},
	{"gateway", "store", "a gateway has no database"},
	{"gateway", "control", "a gateway carries; it cannot decide"},
	{"compute", "spawner", "compute speaks to root's process through its socket only"},
	{"compute", "store", "a node has no database"},
	{"compute", "control", "a node does what it is told"},
	{"compute", "server", "all calls go down"},
	{"apps", "compute", "an app runs as its user and has nothing of the node's"},
	{"spawner", "compute", "root's process is readable in one sitting"},
	{"spawner", "net/http", "root's process has no network and parses no HTTP"},
}

// doors names, for every module from outside, the packages that may import it.
// One door each keeps a module replaceable.
var doors = map[string][]string{
	"github.com/alecthomas/kong":         {"cmd/quire"},
	"github.com/coder/websocket":         {"apps/terminal", "apps/lab", "gateway", "test", "bench"},
	"github.com/creack/pty":              {"apps", "test"},
	"github.com/evanw/esbuild":           {"build"},
	"github.com/jackc/pgx/v5":            {"store"},
	"github.com/klauspost/compress":      {"web", "build"},
	"github.com/microcosm-cc/bluemonday": {"web", "apps/viewer"},
	"github.com/pressly/goose/v3":        {"store"},
	"github.com/tailscale/hujson":        {"cmd/quire", "spawner"},
	"github.com/youmark/pkcs8":           {"cmd/quire"},
	"github.com/yuin/goldmark":           {"web", "apps/viewer"},
	"golang.org/x/crypto":                {"login", "cmd/quire"},
	"golang.org/x/net":                   {"gateway", "test", "bench", "web", "apps/viewer"},
	"golang.org/x/sync":                  {"."},
	"golang.org/x/sys":                   {"."},
	"golang.org/x/time":                  {"."},
	"modernc.org/sqlite":                 {"store", "search"},
}

func TestEveryPackageIsInTheDesign(t *testing.T) {
	product, tools := 0, 0
	for dir := range repository(t).packages() {
		switch {
		case tool(dir):
			tools++
		case dir == "cmd/quire":
			product++
		default:
			product++
			if _, ok := may[dir]; !ok {
				t.Errorf("package %s is not in the table of this test: say there what it may import, and describe it in ARCHITECTURE.md", dir)
			}
		}
	}
	if product > maxPackages {
		t.Errorf("%d packages, at most %d: join two, or record in decisions/ why the number goes up", product, maxPackages)
	}
	if tools > maxTools {
		t.Errorf("%d packages for developers, at most %d", tools, maxTools)
	}
}

func TestImports(t *testing.T) {
	for _, s := range repository(t).code {
		for _, p := range s.imports() {
			ours, isOurs := strings.CutPrefix(p, module+"/")
			if p == module {
				ours, isOurs = ".", true
			}
			for _, n := range never {
				if under(s.dir, n.from) && !s.test && (p == n.to || isOurs && under(ours, n.to)) && !strings.HasPrefix(ours, s.dir+"/") && s.dir != ours {
					t.Errorf("%s imports %s: %s", s.name, p, n.reason)
				}
			}
			switch {
			case isOurs && s.dir == "build":
				t.Errorf("%s imports %s: the bundler must run before anything of ours compiles", s.name, p)
			case isOurs && (s.test || tool(s.dir) || s.dir == "cmd/quire"):
				// Tests and the wiring see everything; the rules above hold for them too where they matter.
			case isOurs && !contains(may[s.dir], ours):
				t.Errorf("%s imports %s: the table of this test allows %s only %s", s.name, p, s.dir, strings.Join(may[s.dir], ", "))
			case !isOurs && strings.Contains(strings.Split(p, "/")[0], "."):
				if s.dir == "." {
					t.Errorf("%s imports %s: the vocabulary imports the standard library only", s.name, p)
				}
				if at, ok := door(p); !ok {
					t.Errorf("%s imports %s: no module comes in without a row in this test and a record in decisions/", s.name, p)
				} else if !under(s.dir, at...) && !contains(at, ".") {
					t.Errorf("%s imports %s: only %s may; use what it offers", s.name, p, strings.Join(at, ", "))
				}
			}
		}
	}
}

// door finds the module of an import path in the table.
func door(p string) ([]string, bool) {
	for m := p; m != "."; m = path.Dir(m) {
		if at, ok := doors[m]; ok {
			return at, true
		}
	}
	return nil, false
}

func contains(list []string, s string) bool {
	for _, have := range list {
		if have == s {
			return true
		}
	}
	return false
}

func TestFilesAreShort(t *testing.T) {
	tree := repository(t)
	for _, s := range tree.code {
		if n := lines(s.text); n > maxLines {
			t.Errorf("%s has %d lines, at most %d: split it by noun or by verb", s.name, n, maxLines)
		}
	}
	for _, name := range tree.files {
		switch path.Ext(name) {
		case ".ts", ".mjs", ".js", ".css", ".html", ".sql":
			if n := lines(read(t, name)); n > maxLines {
				t.Errorf("%s has %d lines, at most %d: split it by noun or by page", name, n, maxLines)
			}
		}
	}
}

func TestTypesAreSmall(t *testing.T) {
	tree := repository(t)
	methods := map[string]int{}
	for _, s := range tree.code {
		if s.test {
			continue
		}
		for _, d := range s.file.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if s.dir == "control" && d.Recv != nil && d.Name.IsExported() {
					methods["control."+receiver(d)]++
				}
			case *ast.GenDecl:
				if s.dir != "." {
					continue
				}
				for _, spec := range d.Specs {
					ts, ok := spec.(*ast.TypeSpec)
					if !ok {
						continue
					}
					if it, ok := ts.Type.(*ast.InterfaceType); ok {
						methods[ts.Name.Name] += it.Methods.NumFields()
					}
				}
			}
		}
	}
	for name, n := range methods {
		if n > maxMethods {
			t.Errorf("%s has %d exported methods, at most %d: another noun is hiding in it", name, n, maxMethods)
		}
	}
}

// receiver is the name of a method's type, without star or type parameters.
func receiver(d *ast.FuncDecl) string {
	e := d.Recv.List[0].Type
	for {
		switch x := e.(type) {
		case *ast.StarExpr:
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		case *ast.Ident:
			return x.Name
		default:
			return ""
		}
	}
}

func TestEveryPackageHasOneComment(t *testing.T) {
	for dir, sources := range repository(t).packages() {
		var at []string
		for _, s := range sources {
			if s.file.Doc != nil && !s.test {
				at = append(at, s.name)
				text := s.file.Doc.Text()
				if want := "Package " + s.file.Name.Name + " "; s.file.Name.Name != "main" && !strings.HasPrefix(text, want) {
					t.Errorf("%s: the package comment starts with %q", s.name, want)
				}
			}
		}
		sort.Strings(at)
		switch {
		case len(at) == 0:
			t.Errorf("package %s has no package comment: say in it what the package is for and what it must not do", dir)
		case len(at) > 1:
			t.Errorf("package %s has %d package comments (%s): one is enough", dir, len(at), strings.Join(at, ", "))
		}
	}
}

func TestPackageNamesSayWhatTheyHold(t *testing.T) {
	for dir := range repository(t).packages() {
		switch path.Base(dir) {
		case "util", "utils", "common", "helper", "helpers", "misc", "base", "core", "lib", "pkg", "internal", "shared", "types", "models":
			t.Errorf("package %s: the name says nothing; name it after the noun it is about", dir)
		}
	}
}
