package lint

import (
	"flag"
	"fmt"
	"go/ast"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write docs/admin/faults.md from what the tests say")

// A test that makes something fail says in its comment what that is for people:
//
//	//fault:PART what fails
//	//fault:seen what people see
//	//fault:lost what is lost
//	//fault:repair what repairs it
//	//fault:also TestOther TestAnother
//
// Each //fault:PART begins another row of the report, in the section of its part.
var parts = []struct{ name, title string }{
	{"server", "The server"}, {"database", "PostgreSQL"}, {"gateway", "The gateway, and browsers"}, {"node", "A node"}, {"session", "What people run"},
	{"disk", "Disks"}, {"network", "Network and clocks"}, {"keys", "Keys, membership and addresses"},
}

type fault struct {
	part, what, seen, lost, repair string
	tests                          []string
}

var directive = regexp.MustCompile(`^//fault:([a-z]+) (\S.*)$`)

func faults(t *testing.T) (all []fault) {
	tests := map[string]bool{}
	for _, s := range repository(t).code {
		for _, d := range s.file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || !strings.HasPrefix(f.Name.Name, "Test") || !s.test {
				continue
			}
			tests[f.Name.Name] = true
			if f.Doc == nil {
				continue
			}
			var now *fault
			for _, c := range f.Doc.List {
				if !strings.HasPrefix(c.Text, "//fault:") {
					continue
				}
				m := directive.FindStringSubmatch(c.Text)
				if m == nil || now == nil && !slices.ContainsFunc(parts, func(p struct{ name, title string }) bool { return p.name == m[1] }) {
					t.Errorf("%s: %s says %q, which is no part and no property of a fault", s.name, f.Name.Name, c.Text)
					continue
				}
				switch m[1] {
				case "seen":
					now.seen = m[2]
				case "lost":
					now.lost = m[2]
				case "repair":
					now.repair = m[2]
				case "also":
					now.tests = append(now.tests, strings.Fields(m[2])...)
				default:
					all = append(all, fault{part: m[1], what: m[2], tests: []string{f.Name.Name}})
					now = &all[len(all)-1]
				}
			}
		}
	}
	for _, f := range all {
		if f.seen == "" || f.lost == "" {
			t.Errorf("%q does not say what people see and what is lost", f.what)
		}
		if strings.Contains(f.what+f.seen+f.lost+f.repair, "|") {
			t.Errorf("%q would break the table", f.what)
		}
		for _, name := range f.tests {
			if !tests[name] {
				t.Errorf("%q names %s, which does not exist", f.what, name)
			}
		}
	}
	return all
}

const faultsHead = `# What happens when something fails

Written by the tests: each row stands in the comment of a test that makes it happen, with real processes, networks and disks.
After a change there, ` + "`go test ./test/lint -run TestFaultsReport -update`" + ` writes this page again.
`

const faultsTail = `
Not tried: a real power cut of a machine, and a machine's clock that jumps while Quire runs there: the tests' machines share one clock, which nobody can set for one of them alone. Clocks that stand apart are tried by
giving roles a clock of their own in the same process.
`

// docs/admin/faults.md is what the tests say.
func TestFaultsReport(t *testing.T) {
	all := faults(t)
	var b strings.Builder
	b.WriteString(faultsHead)
	for _, p := range parts {
		fmt.Fprintf(&b, "\n## %s\n\n| what fails | what people see | what is lost | what repairs it | test |\n|---|---|---|---|---|\n", p.title)
		rows := 0
		for _, f := range all {
			if f.part != p.name {
				continue
			}
			rows++
			if f.repair == "" {
				f.repair = "nothing is broken"
			}
			fmt.Fprintf(&b, "| %s | %s | %s | %s | `%s` |\n", f.what, f.seen, f.lost, f.repair, strings.Join(f.tests, "`, `"))
		}
		if rows == 0 {
			t.Errorf("nothing is said of %s", p.title)
		}
	}
	b.WriteString(faultsTail)
	if len(all) < 53 {
		t.Errorf("%d faults are told", len(all))
	}
	file := filepath.Join(root, "docs/admin/faults.md")
	if *update {
		if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if string(read(t, "docs/admin/faults.md")) != b.String() {
		t.Error("docs/admin/faults.md is not what the tests say: go test ./test/lint -run TestFaultsReport -update")
	}
}
