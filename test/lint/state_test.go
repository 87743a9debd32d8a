package lint

import (
	"go/ast"
	"go/token"
	"strings"
	"testing"
)

// Package-level variables are tables: written once by the compiler, read by
// everybody. What a process remembers belongs to a value that main made.

// makers are the calls whose result never changes.
var makers = map[string]bool{
	"errors.New": true, "fmt.Errorf": true, "regexp.MustCompile": true, "strings.NewReplacer": true,
	"netip.MustParsePrefix": true, "netip.MustParseAddr": true, "template.Must": true, "fs.Sub": true,
	"base32.NewEncoding": true, "base32.StdEncoding.WithPadding": true, "base64.RawURLEncoding.Strict": true, "big.NewInt": true, "time.Date": true,
	"sync.OnceValue": true, "sync.OnceValues": true, // a table that is made when it is first asked for
	"quire.NotFound": true, "quire.Invalid": true, "quire.Forbidden": true, "quire.Conflict": true, "quire.Unauthenticated": true,
}

func TestNoPackageState(t *testing.T) {
	tree := repository(t)
	for dir, sources := range tree.packages() {
		if under(dir, "test") {
			continue
		}
		vars := map[string]token.Pos{}
		for _, s := range sources {
			if s.test {
				continue
			}
			for _, d := range s.file.Decls {
				g, ok := d.(*ast.GenDecl)
				if !ok || g.Tok != token.VAR {
					continue
				}
				for _, spec := range g.Specs {
					v := spec.(*ast.ValueSpec)
					embedded := embeds(g.Doc) || embeds(v.Doc)
					for i, name := range v.Names {
						if name.Name == "_" || embedded {
							continue
						}
						vars[name.Name] = name.Pos()
						if len(v.Values) <= i {
							t.Errorf("%s: var %s has no value, so something sets it later: state belongs to a value that main makes", tree.at(name.Pos()), name.Name)
						} else if !constant(v.Values[i]) {
							t.Errorf("%s: var %s is not a table, an error or a pattern: state belongs to a value that main makes", tree.at(name.Pos()), name.Name)
						}
					}
				}
			}
		}
		for _, s := range sources {
			if !s.test {
				written(s, vars, func(name string, pos token.Pos) {
					t.Errorf("%s changes the package's variable %s: state belongs to a value that main makes", tree.at(pos), name)
				})
			}
		}
	}
}

func embeds(doc *ast.CommentGroup) bool {
	if doc == nil {
		return false
	}
	for _, c := range doc.List {
		if strings.HasPrefix(c.Text, "//go:embed ") {
			return true
		}
	}
	return false
}

// constant reports whether an expression is data that nothing can change
// behind our back.
func constant(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.BasicLit, *ast.Ident, *ast.FuncLit:
		return true
	case *ast.CompositeLit:
		return !strings.HasPrefix(spell(e.Type), "sync.") && !strings.HasPrefix(spell(e.Type), "atomic.")
	case *ast.ParenExpr:
		return constant(e.X)
	case *ast.BinaryExpr:
		return constant(e.X) && constant(e.Y)
	case *ast.UnaryExpr:
		if lit, ok := e.X.(*ast.CompositeLit); ok {
			return strings.HasSuffix(spell(lit.Type), "Error") // a sentinel
		}
		return e.Op != token.AND && constant(e.X)
	case *ast.CallExpr:
		switch f := e.Fun.(type) {
		case *ast.ArrayType:
			return true // []byte("…")
		case *ast.CallExpr:
			return constant(f)
		case *ast.SelectorExpr:
			if inner, ok := f.X.(*ast.CallExpr); ok {
				return constant(inner) // base32.NewEncoding(…).WithPadding(…)
			}
		}
		return makers[spell(e.Fun)]
	}
	return false
}

// spell writes a name with dots as it stands in the source.
func spell(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return spell(e.X) + "." + e.Sel.Name
	case *ast.IndexExpr:
		return spell(e.X)
	}
	return ""
}

// written reports each place of a file that assigns to one of the variables,
// to a part of one, or takes its address.
func written(s *source, vars map[string]token.Pos, report func(string, token.Pos)) {
	check := func(e ast.Expr) {
		for {
			switch x := e.(type) {
			case *ast.IndexExpr:
				e = x.X
				continue
			case *ast.SelectorExpr:
				e = x.X
				continue
			case *ast.StarExpr:
				e = x.X
				continue
			case *ast.Ident:
				// Resolved in this file and not to the variable: a local of that name.
				if pos, ok := vars[x.Name]; ok && (x.Obj == nil || x.Obj.Pos() == pos) {
					report(x.Name, x.Pos())
				}
			}
			return
		}
	}
	for _, d := range s.file.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok || f.Body == nil {
			continue
		}
		ast.Inspect(f.Body, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.AssignStmt:
				if n.Tok != token.DEFINE {
					for _, e := range n.Lhs {
						check(e)
					}
				}
			case *ast.IncDecStmt:
				check(n.X)
			case *ast.UnaryExpr:
				if n.Op == token.AND {
					check(n.X)
				}
			case *ast.CallExpr:
				if id, ok := n.Fun.(*ast.Ident); ok && (id.Name == "delete" || id.Name == "clear") && len(n.Args) > 0 {
					check(n.Args[0])
				}
			}
			return true
		})
	}
}
