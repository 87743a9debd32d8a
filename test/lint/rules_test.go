package lint

import (
	"go/ast"
	"go/token"
	"strconv"
	"strings"
	"testing"
)

// A ban is a name of another package that our source does not use. Files where
// it is the right thing are named, each with the reason.
type ban struct {
	names   []string // "import/path.Name"
	reason  string
	calls   bool // naming it as a type is fine, converting to it is not
	tests   bool // holds in tests and developers' programs too
	allowed map[string]string
}

var bans = []ban{
	{names: []string{"html/template.HTML", "html/template.JS", "html/template.CSS", "html/template.URL", "html/template.HTMLAttr", "html/template.JSStr", "html/template.Srcset"},
		reason: "it switches escaping off",
		calls:  true,
		allowed: map[string]string{
			"web/markdown.go":         "what the sanitizer returned",
			"apps/viewer/sanitize.go": "what the sanitizer returned"}},
	{names: []string{"os.Chown", "os.Lchown", "syscall.Chown", "syscall.Lchown", "golang.org/x/sys/unix.Chown", "golang.org/x/sys/unix.Lchown", "golang.org/x/sys/unix.Fchownat"},
		reason: "it follows a name that its owner can exchange; open the thing first and use its descriptor",
		allowed: map[string]string{
			"cmd/quire/supervise.go": "the group of a socket it has just made, in a directory of root's",
			"spawner/unpack.go":      "a link that it has just made and holds, where only root gets"}},
	{names: []string{"path/filepath.Walk", "path/filepath.WalkDir"},
		reason: "a walker is beaten by whoever renames directories under it; work on descriptors, as the owner"},
	{names: []string{"os.Exit", "syscall.Exit", "log.Fatal", "log.Fatalf", "log.Fatalln", "log.Panic", "log.Panicf", "runtime.Goexit"},
		reason: "only main ends a process; return an error or an exit code",
		allowed: map[string]string{
			"cmd/quire/main.go": "main",
			"build/main.go":     "main",
			"bench/main.go":     "main"},
		tests: true},
	{names: []string{"net/http.Get", "net/http.Post", "net/http.Head", "net/http.PostForm", "net/http.DefaultClient", "net/http.DefaultTransport", "net/http.DefaultServeMux", "net/http.HandleFunc", "net/http.Handle", "net/http.ListenAndServe", "net/http.Serve"},
		reason: "it is shared by the whole process and has no deadline; make a client, transport or server of your own"},
	{names: []string{"fmt.Print", "fmt.Println", "fmt.Printf", "log.Print", "log.Println", "log.Printf", "log/slog.Default", "log/slog.Info", "log/slog.Warn", "log/slog.Error", "log/slog.Debug", "log/slog.SetDefault"},
		reason:  "a package writes to the logger or writer that it was given",
		allowed: map[string]string{"cmd/quire": "what a command answers"}},
	{names: []string{"os.Geteuid", "os.Getuid", "syscall.Geteuid", "syscall.Getuid"},
		reason: "whether there is root is found out once, in cmd/quire, and handed down as a value",
		allowed: map[string]string{
			"spawner/launch":      "it must see that the rights are really gone",
			"spawner/account.go":  "the mode without root refuses to be chosen by root",
			"apps":                "a program compares other processes with itself",
			"compute/environment": "a program of its own, which compares owners of files with itself",
			"cmd/quire":           "where it is found out"}},
	{names: []string{"os.Getenv", "os.LookupEnv", "os.Environ", "os.Setenv"},
		reason: "settings come from the configuration; the environment is somebody else's",
		allowed: map[string]string{
			"cmd/quire":           "where settings are read",
			"apps":                "a program of its own, started with the user's environment",
			"compute/environment": "a program of its own, as the user",
			"spawner/launch":      "hands the environment on"}},
	{names: []string{"crypto/tls.VersionTLS12", "crypto/tls.VersionTLS11", "crypto/tls.VersionTLS10"},
		reason:  "links between roles are TLS 1.3",
		allowed: map[string]string{"gateway/serve.go": "what a browser may speak"}},
	{names: []string{"time.Sleep"},
		reason: "wait for what you wait for: a condition with a deadline, a channel, a timer in a select", tests: true,
		allowed: map[string]string{
			"bench":             "load in time",
			"spawner/cgroup.go": "the kernel does not say when an emptied group can be removed"}},
	{names: []string{"crypto/md5.New", "crypto/md5.Sum", "crypto/sha1.New", "crypto/sha1.Sum"},
		reason:  "broken",
		allowed: map[string]string{"gateway/socket.go": "the WebSocket handshake is made of it"}},
}

// bannedImports are packages as a whole.
var bannedImports = []struct {
	path, reason string
	allowed      []string // directories; all others are banned
}{
	{"math/rand", "predictable; crypto/rand, or math/rand/v2 for jitter", nil},
	{"io/ioutil", "gone since Go 1.16", nil},
	{"net/http/pprof", "it registers itself on the shared mux", nil},
	{"expvar", "it registers itself on the shared mux", nil},
	{"plugin", "one binary", nil},
	{"unsafe", "only where the kernel's interface has no other way", []string{"spawner", "spawner/launch", "apps/terminal", "compute"}},
	{"os/exec", "roles that speak to browsers start no programs", []string{"cmd/quire", "compute", "spawner", "apps", "build", "bench", "test"}},
	{"database/sql", "only the store has queries", []string{"store", "search"}},
	{"html/template", "pages are rendered where browsers are spoken to", []string{"web", "server", "gateway", "apps"}},
	{"text/template", "pages are html/template's", []string{"cmd/quire", "bench", "build", "test"}},
}

func TestBannedNames(t *testing.T) {
	tree := repository(t)
	for _, s := range tree.code {
		names := s.names()
		called := map[ast.Expr]bool{}
		ast.Inspect(s.file, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok {
				called[call.Fun] = true
			}
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			x, ok := sel.X.(*ast.Ident)
			if !ok || names[x.Name] == "" || x.Obj != nil {
				return true
			}
			full := names[x.Name] + "." + sel.Sel.Name
			for _, b := range bans {
				if contains(b.names, full) && (!b.calls || called[sel]) && (b.tests || !s.test && !tool(s.dir)) && !b.allows(s) {
					t.Errorf("%s uses %s: %s", tree.at(sel.Pos()), full, b.reason)
				}
			}
			return true
		})
	}
}

func (b ban) allows(s *source) bool {
	for where := range b.allowed {
		if s.name == where || under(s.dir, where) {
			return true
		}
	}
	// TestMain must end the process itself.
	return s.test && contains(b.names, "os.Exit")
}

func TestBannedImports(t *testing.T) {
	for _, s := range repository(t).code {
		for _, p := range s.imports() {
			for _, b := range bannedImports {
				if p == b.path && !s.test && !under(s.dir, b.allowed...) {
					t.Errorf("%s imports %s: %s", s.name, p, b.reason)
				}
			}
		}
	}
}

func TestNoUncheckedCertificates(t *testing.T) {
	tree := repository(t)
	for _, s := range tree.code {
		ast.Inspect(s.file, func(n ast.Node) bool {
			if id, ok := n.(*ast.Ident); ok && id.Name == "InsecureSkip"+"Verify" {
				t.Errorf("%s: a peer whose certificate is not checked is anybody; give the pool and the name", tree.at(id.Pos()))
			}
			return true
		})
	}
}

func TestNoShell(t *testing.T) {
	tree := repository(t)
	for _, s := range tree.code {
		if s.test || tool(s.dir) {
			continue // they start shells to attack and to measure
		}
		names := s.names()
		ast.Inspect(s.file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			sel, ok := call.Fun.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			x, ok := sel.X.(*ast.Ident)
			if !ok || names[x.Name] != "os/exec" {
				return true
			}
			program := 0 // after the context, where there is one
			if sel.Sel.Name == "CommandContext" {
				program = 1
			}
			if len(call.Args) > program {
				lit, ok := call.Args[program].(*ast.BasicLit)
				if !ok || lit.Kind != token.STRING {
					return true
				}
				word, _ := strconv.Unquote(lit.Value)
				switch word[strings.LastIndex(word, "/")+1:] {
				case "sh", "bash", "dash", "env", "sudo", "su":
					t.Errorf("%s starts %s: words become commands there; start the program itself with an argument list", tree.at(lit.Pos()), word)
				}
			}
			return true
		})
	}
}

func TestNoInit(t *testing.T) {
	tree := repository(t)
	for _, s := range tree.code {
		for _, d := range s.file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
				t.Errorf("%s: nothing runs before main; make it a function and call it", tree.at(f.Pos()))
			}
		}
	}
}

// A mode is a value chosen once in cmd/quire behind a type. An if on a mode
// anywhere else means that the type is missing.
func TestNoModes(t *testing.T) {
	tree := repository(t)
	for _, s := range tree.code {
		if s.test || tool(s.dir) || s.dir == "cmd/quire" {
			continue
		}
		check := func(e ast.Expr) {
			if name, pos := modeIn(e); name != "" {
				t.Errorf("%s decides by %s: choose a value once in cmd/quire and hand it down behind a type", tree.at(pos), name)
			}
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.IfStmt:
				check(n.Cond)
			case *ast.SwitchStmt:
				if n.Tag != nil {
					check(n.Tag)
				}
			}
			return true
		})
	}
}

// modeIn finds a mode in a condition. File modes are compared with numbers,
// masked, or come from a call, and are not meant.
func modeIn(e ast.Expr) (string, token.Pos) {
	switch e := e.(type) {
	case *ast.Ident:
		if modeName(e.Name) {
			return e.Name, e.Pos()
		}
	case *ast.SelectorExpr:
		if modeName(e.Sel.Name) {
			return e.Sel.Name, e.Pos()
		}
	case *ast.ParenExpr:
		return modeIn(e.X)
	case *ast.UnaryExpr:
		return modeIn(e.X)
	case *ast.BinaryExpr:
		if e.Op == token.AND || number(e.X) || number(e.Y) {
			return "", 0
		}
		if name, pos := modeIn(e.X); name != "" {
			return name, pos
		}
		return modeIn(e.Y)
	}
	return "", 0
}

func modeName(s string) bool {
	switch s {
	case "singleAccount", "SingleAccount", "isRoot", "asRoot", "AsRoot", "IsRoot", "testing", "Testing", "isTest":
		return true
	}
	return s == "mode" || strings.HasSuffix(s, "Mode")
}

func number(e ast.Expr) bool {
	lit, ok := e.(*ast.BasicLit)
	return ok && lit.Kind == token.INT
}

// Whether apps share one origin is known to Origins; only pages that tell
// people so may ask.
func TestOnlyPagesAskWhetherTheOriginIsShared(t *testing.T) {
	tree := repository(t)
	for _, s := range tree.code {
		if s.test || s.dir == "." || under(s.dir, "server", "cmd/quire", "test") {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok && len(call.Args) == 0 {
				if sel, ok := call.Fun.(*ast.SelectorExpr); ok && sel.Sel.Name == "Shared" && strings.HasSuffix(strings.ToLower(spell(sel.X)), "origins") {
					t.Errorf("%s asks Shared(): let Origins answer the question behind it", tree.at(sel.Pos()))
				}
			}
			return true
		})
	}
}

// A skipped test proves nothing. Without root some cannot run; then CI must fail.
func TestSkipsAreOnlyForMissingRoot(t *testing.T) {
	tree := repository(t)
	for _, s := range tree.code {
		if !s.test && !tool(s.dir) {
			continue
		}
		for _, d := range s.file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || f.Body == nil {
				continue
			}
			var skips []token.Pos
			ci := false
			ast.Inspect(f.Body, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.SelectorExpr:
					if n.Sel.Name == "Skip" || n.Sel.Name == "Skipf" || n.Sel.Name == "SkipNow" {
						skips = append(skips, n.Pos())
					}
				case *ast.BasicLit:
					ci = ci || n.Value == `"CI"`
				}
				return true
			})
			for _, pos := range skips {
				if !ci {
					t.Errorf(`%s skips: only for missing root, and never when the variable "CI" is set`, tree.at(pos))
				}
			}
		}
	}
}
