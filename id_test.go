package quire

import (
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
)

func TestUserNames(t *testing.T) {
	for _, c := range []struct {
		name   string
		digits bool
		ok     bool
	}{
		{"alice", false, true},
		{"Alice.B-c_d", false, true},
		{"_svc", false, true},
		{"7of9", false, true},
		{"a", false, true},
		{strings.Repeat("a", 32), false, true},
		{"a.b", false, true},
		{"42", true, true},
		{"adminx", false, true},

		{"", false, false},
		{strings.Repeat("a", 33), false, false},
		{"42", false, false},
		{"000", false, false},
		{".alice", false, false},
		{"-rf", false, false},
		{".", false, false},
		{"..", false, false},
		{"a..b", false, false},
		{"a.", false, false},
		{"a/b", false, false},
		{"a%2fb", false, false},
		{"a b", false, false},
		{" alice", false, false},
		{"alice ", false, false},
		{"alice\n", false, false},
		{"alice\x00", false, false},
		{"al\x1b[31mice", false, false},
		{"al\xffice", false, false},
		{"\u202eecila", false, false},
		{"alice\u200b", false, false},
		{"alic\u0435", false, false}, // Cyrillic
		{"ａｌｉｃｅ", false, false},      // full width
		{"zo\u00eb", false, false},
		{"zoe\u0308", false, false}, // the same, decomposed
		{"\U0001F600", false, false},
		{strings.Repeat("a", 10<<20), false, false},
		{"admin", false, false},
		{"Admin", false, false},
		{"API", false, false},
		{"login", false, false},
		{"root", false, false},
		{"favicon.ico", false, false},
	} {
		err := CheckUserName(c.name, c.digits)
		if (err == nil) != c.ok {
			t.Errorf("CheckUserName(%.40q, %v) = %v", c.name, c.digits, err)
		}
		if err != nil && (KindOf(err) != KindInvalid || AsError(err).Field != "name") {
			t.Errorf("CheckUserName(%.40q): %v does not name the field", c.name, err)
		}
	}
}

func TestProjectNames(t *testing.T) {
	for name, ok := range map[string]bool{
		"Welcome": true, "a": true, "a-b_c9": true, strings.Repeat("p", 64): true, "con": true,
		"": false, "9lives": false, "_x": false, "-rf": false, "a.b": false, "..": false, "a/b": false, "a b": false, "a\n": false, "é": false,
		strings.Repeat("p", 65): false, "settings": false, "Settings": false, "TEAM": false, "start": false,
	} {
		if err := CheckProjectName(name); (err == nil) != ok {
			t.Errorf("CheckProjectName(%q) = %v", name, err)
		}
	}
}

func TestAppNames(t *testing.T) {
	for name, ok := range map[string]bool{
		"notebook": true, "lab": true, "my-app2": true, strings.Repeat("a", 32): true,
		"": false, "Notebook": false, "2048": false, "_quire": false, "a_b": false, "a/b": false, "a\n": false, "settings": false, "team": false,
		strings.Repeat("a", 33): false,
	} {
		if err := CheckAppName(name); (err == nil) != ok {
			t.Errorf("CheckAppName(%q) = %v", name, err)
		}
	}
}

func TestIdentities(t *testing.T) {
	for prefix, id := range map[byte]string{
		'u': string(NewUserID()), 'p': string(NewProjectID()), 's': string(NewSessionID()), 'n': string(NewNodeID()),
		'd': string(NewDataCenterID()), 'l': string(NewLoginID()), 'o': string(NewOrderID()), 'w': string(NewWorkID()),
	} {
		if !ValidID(prefix, id) {
			t.Errorf("%q is not valid with prefix %c", id, prefix)
		}
		for _, other := range []byte("upsndlow") {
			if other != prefix && ValidID(other, id) {
				t.Errorf("%q is valid with prefix %c", id, other)
			}
		}
		for _, bad := range []string{"", id[:17], id + "a", strings.ToUpper(id), id + "\n", " " + id, strings.Replace(id, "_", "-", 1), id[:17] + "1", id[:17] + "/"} {
			if ValidID(prefix, bad) {
				t.Errorf("%q is valid", bad)
			}
		}
	}
	seen := map[string]bool{}
	for range 20_000 {
		for _, s := range []string{string(NewSessionID()), string(NewLabel()), NewSecret()} {
			if seen[s] {
				t.Fatalf("%q was made twice", s)
			}
			seen[s] = true
		}
	}
	if s := NewSecret(); len(s) != 52 {
		t.Errorf("a secret has %d characters", len(s))
	}
}

func TestLabelsAreExact(t *testing.T) {
	l := string(NewLabel())
	if !Label(l).Valid() {
		t.Fatalf("%q is not valid", l)
	}
	for _, bad := range []string{"", l[:19], l + "a", strings.ToUpper(l), l + ".", "." + l, l[:10] + "." + l[11:], l[:19] + "1", "2" + l[1:], l + "\n",
		"xn--" + l[4:], "6ba7b810-9dad-11d1-80b4", strings.Repeat("a", 64), l[:19] + "\u0430"} {
		if Label(bad).Valid() {
			t.Errorf("%q is a valid label", bad)
		}
	}
}

// randomName makes a name of characters that could be confused, and now and then
// one that no name has.
func randomName(r *rand.Rand) string {
	const good, bad = "abcA01_-.", "/%: \x00\\"
	b := make([]byte, 1+r.IntN(5))
	for i := range b {
		if r.IntN(40) == 0 {
			b[i] = bad[r.IntN(len(bad))]
		} else {
			b[i] = good[r.IntN(len(good))]
		}
	}
	return string(b)
}

// Two (owner, project) pairs that differ, regardless of case, must never meet in
// a directory or an address. Labels are random, so they cannot meet either.
func TestNamesNeverCollide(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	type pair struct{ user, project string }
	dirs, paths, labels := map[string]pair{}, map[string]pair{}, map[Label]pair{}
	accepted := 0
	for tries := 0; accepted < 100_000; tries++ {
		if tries > 3_000_000 {
			t.Fatalf("only %d pairs were accepted: the test lost its point", accepted)
		}
		p := pair{randomName(r), randomName(r)}
		if CheckUserName(p.user, true) != nil || CheckProjectName(p.project) != nil {
			continue
		}
		accepted++
		folded := pair{strings.ToLower(p.user), strings.ToLower(p.project)}
		dir := filepath.Join("/projects", folded.user, folded.project)
		if was, ok := dirs[dir]; ok && was != folded {
			t.Fatalf("%q and %q have the directory %s", was, folded, dir)
		}
		if filepath.Dir(filepath.Dir(dir)) != "/projects" || filepath.Base(dir) != folded.project {
			t.Fatalf("%q leaves its place: %s", folded, dir)
		}
		path := Project{OwnerName: folded.user, Name: folded.project}.Path()
		if was, ok := paths[path]; ok && was != folded {
			t.Fatalf("%q and %q have the address %s", was, folded, path)
		}
		l := NewLabel()
		if was, ok := labels[l]; ok {
			t.Fatalf("%q and %q have the label %s", was, folded, l)
		}
		dirs[dir], paths[path], labels[l] = folded, folded, folded
	}
}

func FuzzNames(f *testing.F) {
	f.Add("a-b", "c", "a", "b-c")
	f.Add("a.b", "c", "a_b", "c")
	f.Add("..", "x", "a", "..")
	f.Add("A", "x", "a", "X")
	f.Fuzz(func(t *testing.T, u1, p1, u2, p2 string) {
		for _, n := range []string{u1, u2} {
			if CheckUserName(n, true) == nil && (filepath.Base(n) != n || strings.ContainsAny(n, "/\\\x00%: ") || n == "." || n == "..") {
				t.Fatalf("%q is a user name", n)
			}
		}
		for _, n := range []string{p1, p2} {
			if CheckProjectName(n) == nil && (filepath.Base(n) != n || strings.ContainsAny(n, "./\\\x00%: ")) {
				t.Fatalf("%q is a project name", n)
			}
		}
		for _, n := range []string{u1, u2} {
			if CheckUserName(n, true) != nil {
				return
			}
		}
		if CheckProjectName(p1) != nil || CheckProjectName(p2) != nil || u1 == u2 && p1 == p2 {
			return
		}
		if filepath.Join("/projects", u1, p1) == filepath.Join("/projects", u2, p2) {
			t.Fatalf("%q/%q and %q/%q share a directory", u1, p1, u2, p2)
		}
	})
}
