package lint

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/ast"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func read(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(name)))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

var row = regexp.MustCompile("(?m)^\\| `([^`]+)` \\|")

// The table under "## Packages" names every package there is and no other.
func TestTheMapIsTheTerritory(t *testing.T) {
	_, rest, ok := strings.Cut(string(read(t, "ARCHITECTURE.md")), "\n## Packages\n")
	if !ok {
		t.Fatal(`ARCHITECTURE.md has no section "## Packages"`)
	}
	section, _, _ := strings.Cut(rest, "\n## ")
	listed := map[string]bool{}
	for _, m := range row.FindAllStringSubmatch(section, -1) {
		listed[m[1]] = true
	}
	for dir := range repository(t).packages() {
		if !listed[dir] {
			t.Errorf("ARCHITECTURE.md has no row for package %s", dir)
		}
		delete(listed, dir)
	}
	for dir := range listed {
		t.Errorf("ARCHITECTURE.md describes package %s, which does not exist", dir)
	}
}

var link = regexp.MustCompile(`\]\(<?([^)\s>]+)>?(?:\s+"[^"]*")?\)`)
var heading = regexp.MustCompile(`(?m)^#{1,6} +(.+?) *$`)
var fence = regexp.MustCompile("(?ms)^(```|~~~).*?^(```|~~~) *$")

func TestLinksLeadSomewhere(t *testing.T) {
	for _, name := range repository(t).files {
		if path.Ext(name) != ".md" {
			continue
		}
		text := fence.ReplaceAll(read(t, name), nil)
		for _, m := range link.FindAllSubmatch(text, -1) {
			target := string(m[1])
			if strings.Contains(target, ":") {
				continue // another site's
			}
			file, anchor, _ := strings.Cut(target, "#")
			at := name
			if file != "" {
				at = path.Join(path.Dir(name), file)
			}
			info, err := os.Stat(filepath.Join(root, filepath.FromSlash(at)))
			if err != nil {
				t.Errorf("%s: the link %s leads nowhere", name, target)
				continue
			}
			if anchor != "" && !info.IsDir() && !anchors(read(t, at))[anchor] {
				t.Errorf("%s: the link %s names a heading that %s does not have", name, target, at)
			}
		}
	}
}

var mention = regexp.MustCompile(`\b(docs|decisions)/[a-z0-9/-]+\.md`)

// Comments and messages send people to pages that are there.
func TestSourceNamesPagesThatExist(t *testing.T) {
	tree := repository(t)
	have := map[string]bool{}
	for _, name := range tree.files {
		have[name] = true
	}
	for _, name := range tree.files {
		switch path.Ext(name) {
		case ".go", ".ts", ".html", ".css", ".mjs", ".sql", "":
		default:
			continue
		}
		for _, m := range mention.FindAll(read(t, name), -1) {
			if !have[string(m)] {
				t.Errorf("%s names %s, which does not exist", name, m)
			}
		}
	}
}

// anchors are the headings of a page, spelled as links name them.
func anchors(text []byte) map[string]bool {
	out := map[string]bool{}
	for _, m := range heading.FindAllSubmatch(fence.ReplaceAll(text, nil), -1) {
		s := strings.Map(func(r rune) rune {
			switch {
			case unicode.IsLetter(r), unicode.IsDigit(r), r == '-', r == '_':
				return unicode.ToLower(r)
			case r == ' ':
				return '-'
			}
			return -1
		}, string(m[1]))
		out[s] = true
	}
	return out
}

var record = regexp.MustCompile(`^decisions/(\d{4})-[a-z0-9-]+\.md$`)

func TestDecisionsAreNumbered(t *testing.T) {
	index := string(read(t, "decisions/README.md"))
	next := 1
	for _, name := range repository(t).files {
		if path.Dir(name) != "decisions" || path.Base(name) == "README.md" {
			continue
		}
		m := record.FindStringSubmatch(name)
		if m == nil {
			t.Errorf("%s: a decision is called NNNN-what-it-is-about.md", name)
			continue
		}
		if want := fmt.Sprintf("%04d", next); m[1] != want {
			t.Errorf("%s: the next number is %s", name, want)
		}
		next++
		text := string(read(t, name))
		if !strings.HasPrefix(text, "# "+m[1]+". ") {
			t.Errorf("%s starts with %q and its title", name, "# "+m[1]+". ")
		}
		for _, part := range []string{"## Context", "## Choice", "## Why not otherwise"} {
			if !strings.Contains(text, "\n"+part+"\n") {
				t.Errorf("%s has no section %q", name, part)
			}
		}
		if !strings.Contains(index, "("+path.Base(name)+")") {
			t.Errorf("decisions/README.md does not list %s", name)
		}
	}
}

// Every module and every browser library that we chose has its record.
func TestEveryDependencyIsADecision(t *testing.T) {
	tree := repository(t)
	var all strings.Builder
	for _, name := range tree.files {
		if path.Dir(name) == "decisions" {
			all.Write(read(t, name))
		}
	}
	used := map[string]bool{}
	for _, s := range tree.code {
		for _, p := range s.imports() {
			for m := p; m != "."; m = path.Dir(m) {
				if doors[m] != nil {
					used[m] = true
				}
			}
		}
	}
	var libraries struct {
		Dependencies, DevDependencies map[string]string
	}
	if err := json.Unmarshal(read(t, "package.json"), &libraries); err != nil {
		t.Fatal(err)
	}
	for _, list := range []map[string]string{libraries.Dependencies, libraries.DevDependencies} {
		for name, version := range list {
			used[name] = true
			if strings.Trim(version, "0123456789.") != "" {
				t.Errorf("package.json: %s is %q; name the exact version", name, version)
			}
		}
	}
	names := make([]string, 0, len(used))
	for name := range used {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		if !strings.Contains(all.String(), "`"+name+"`") {
			t.Errorf("no record in decisions/ says why we use %s", name)
		}
	}
}

// The README promises two commands. A third one in a code block breaks it.
func TestTheReadmeHasTwoCommands(t *testing.T) {
	var commands []string
	for _, block := range regexp.MustCompile("(?ms)^```sh\n(.*?)^```").FindAllSubmatch(read(t, "README.md"), -1) {
		for _, line := range strings.Split(string(block[1]), "\n") {
			line, _, _ = strings.Cut(line, "#")
			if line = strings.TrimSpace(line); line != "" {
				commands = append(commands, line)
			}
		}
	}
	if want := "make run, make test"; strings.Join(commands, ", ") != want {
		t.Errorf("the commands in README.md are %q; it promises %q", strings.Join(commands, ", "), want)
	}
}

// hosts are places that packages come from. Whoever builds chooses them; the
// repository names none. They are spelled in two halves to keep this file clean.
var hosts = []string{
	"registry." + "npmjs", "registry." + "yarnpkg", "proxy." + "golang", "sum." + "golang", "deb." + "debian", "security." + "debian",
	"files." + "pythonhosted", "pypi." + "org", "repo." + "anaconda", "conda." + "anaconda", "ghcr." + "io", "docker." + "io",
}

// unfinished are notes that belong into an issue.
var unfinished = regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|XX` + `X)\b`)

func TestTextIsClean(t *testing.T) {
	var here []string
	if dir, err := filepath.Abs(root); err == nil && strings.Count(dir, "/") > 1 {
		here = append(here, dir+"/")
	}
	if home, err := os.UserHomeDir(); err == nil && home != "/" && home != "/root" {
		here = append(here, home+"/")
	}
	for _, name := range repository(t).files {
		info, err := os.Stat(filepath.Join(root, filepath.FromSlash(name)))
		if err != nil {
			t.Fatal(err)
		}
		if info.Size() > 1<<20 {
			t.Errorf("%s has %d KiB: files of more than 1 MiB do not belong into a source tree", name, info.Size()>>10)
			continue
		}
		text := read(t, name)
		if !utf8.Valid(text) || bytes.IndexByte(text, 0) >= 0 {
			continue // a picture
		}
		for i, line := range strings.Split(string(text), "\n") {
			at := fmt.Sprintf("%s:%d", name, i+1)
			for _, h := range hosts {
				if strings.Contains(line, h) {
					t.Errorf("%s names the package host %s: whoever builds chooses where packages come from", at, h)
				}
			}
			for _, p := range here {
				if strings.Contains(line, p) {
					t.Errorf("%s has a path of this machine, %s", at, p)
				}
			}
			if unfinished.MatchString(line) {
				t.Errorf("%s: open work belongs into an issue, not into the text", at)
			}
		}
		if path.Base(name) == "package-lock.json" && bytes.Contains(text, []byte(`"resolved"`)) {
			t.Errorf(`%s has "resolved" addresses: make it with npm install --omit-lockfile-registry-resolved`, name)
		}
	}
}

// The administrators' table has every key of the configuration file and no
// other. Keys that the supervisor sets for its children are not for people.
func TestEveryKeyIsDocumented(t *testing.T) {
	keys := map[string]bool{}
	for _, s := range repository(t).code {
		if s.dir != "cmd/quire" || s.test {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			if ts, ok := n.(*ast.TypeSpec); ok && ts.Name.Name == "Config" {
				tags(ts.Type, "", keys)
				return false
			}
			return true
		})
	}
	delete(keys, "local")
	listed := map[string]bool{}
	for _, m := range row.FindAllSubmatch(read(t, "docs/admin/configuration.md"), -1) {
		listed[string(m[1])] = true
	}
	for key := range keys {
		if !listed[key] {
			t.Errorf("docs/admin/configuration.md does not explain the key %s", key)
		}
	}
	for key := range listed {
		if !keys[key] {
			t.Errorf("docs/admin/configuration.md explains the key %s, which does not exist", key)
		}
	}
}

// tags collects the JSON keys of a struct, nested ones with dots.
func tags(e ast.Expr, prefix string, keys map[string]bool) {
	st, ok := e.(*ast.StructType)
	if !ok {
		return
	}
	for _, f := range st.Fields.List {
		if f.Tag == nil {
			continue
		}
		tag, _ := strconv.Unquote(f.Tag.Value)
		key, _, _ := strings.Cut(reflect.StructTag(tag).Get("json"), ",")
		if _, nested := f.Type.(*ast.StructType); nested {
			tags(f.Type, prefix+key+".", keys)
		} else if key != "" && key != "-" {
			keys[prefix+key] = true
		}
	}
}
