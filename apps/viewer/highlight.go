package viewer

import (
	"html"
	"path"
	"strings"
)

// language is what the highlighter knows of one: enough to tell comments,
// strings, numbers and words of the language apart in one pass. A grammar of
// regular expressions would know more, and could be made to run for hours.
type language struct {
	line    []string // begin a comment that ends with the line
	block   [2]string
	quotes  string // characters that begin a string ending with the same one
	triple  bool   // three of them make a string of many lines
	many    string // quotes whose strings may have many lines
	words   map[string]bool
	values  map[string]bool
	fold    bool // words are the same in capitals
	markup  bool // <tag attribute="…">
	at      bool // @name is a decorator
	dash    bool // words may have dashes in them
	headers bool // lines in brackets are headings
}

func set(words string) map[string]bool {
	m := map[string]bool{}
	for w := range strings.FieldsSeq(words) {
		m[w] = true
	}
	return m
}

// languageOf finds the language by a file's name, or nil.
func languageOf(file string) *language {
	base := strings.ToLower(path.Base(file))
	switch base {
	case "makefile", "gnumakefile":
		return languageNamed("make")
	case "dockerfile", "containerfile":
		return languageNamed("dockerfile")
	case "environment.yml", ".condarc":
		return languageNamed("yaml")
	case ".bashrc", ".profile", ".bash_profile":
		return languageNamed("sh")
	}
	return languageNamed(strings.TrimPrefix(path.Ext(base), "."))
}

// languageNamed knows file endings and the names people write above code.
func languageNamed(name string) *language {
	name, _, _ = strings.Cut(strings.ToLower(strings.TrimSpace(name)), " ")
	hash, slashes := []string{"#"}, []string{"//"}
	c := [2]string{"/*", "*/"}
	const cWords = "auto break case const continue default do else enum extern for goto if inline register restrict return sizeof static struct switch typedef union volatile while "
	switch name {
	case "py", "pyw", "pyx", "pyi", "python", "python3", "ipython", "ipython3", "sage", "cython":
		return &language{line: hash, quotes: `"'`, triple: true, at: true, values: set("True False None self cls"),
			words: set("and as assert async await break case class continue def del elif else except finally for from global if import in is lambda match nonlocal not or pass raise return try while with yield")}
	case "r", "rprofile", "ir":
		return &language{line: hash, quotes: "\"'`", many: `"'`, values: set("TRUE FALSE NULL NA NaN Inf NA_integer_ NA_character_"),
			words: set("if else repeat while function for in next break library require source return")}
	case "jl", "julia":
		return &language{line: hash, block: [2]string{"#=", "=#"}, quotes: `"`, triple: true, at: true, values: set("true false nothing missing Inf NaN"),
			words: set("abstract baremodule begin break catch const continue do else elseif end export finally for function global if import in let local macro module mutable primitive quote return struct try type using where while")}
	case "sh", "bash", "zsh", "ksh", "shell", "console", "shell-session":
		return &language{line: hash, quotes: `"'`, many: `"'`, dash: true,
			words: set("if then else elif fi for while until do done case esac in function return exit export local readonly set unset shift trap source eval exec cd echo")}
	case "make", "mk":
		return &language{line: hash, words: set("ifeq ifneq ifdef ifndef else endif include define endef export override")}
	case "dockerfile":
		return &language{line: hash, quotes: `"'`, fold: true, words: set("from run cmd label expose env add copy entrypoint volume user workdir arg onbuild stopsignal healthcheck shell as")}
	case "js", "mjs", "cjs", "jsx", "javascript", "ts", "tsx", "mts", "typescript":
		return &language{line: slashes, block: c, quotes: "\"'`", many: "`", at: true, values: set("true false null undefined NaN Infinity this super"),
			words: set("abstract any as async await boolean break case catch class const continue debugger declare default delete do else enum export extends finally for from function get if implements import in instanceof interface keyof let namespace new number of private protected public readonly return set static string switch throw try type typeof var void while with yield")}
	case "json", "jsonl", "ndjson", "jsonc", "geojson", "ipynb":
		return &language{line: slashes, quotes: `"`, values: set("true false null")}
	case "yml", "yaml":
		return &language{line: hash, quotes: `"'`, dash: true, values: set("true false null yes no on off")}
	case "toml", "ini", "cfg", "conf", "properties", "desktop", "service":
		return &language{line: []string{"#", ";"}, quotes: `"'`, dash: true, headers: true, values: set("true false")}
	case "sql", "psql", "sqlite", "ddl":
		return &language{line: []string{"--"}, block: c, quotes: `'"`, many: "'", fold: true, values: set("null true false"),
			words: set("add all alter and any as asc begin between by case cast check column commit constraint create cross current database default delete desc distinct drop else end except exists explain false fetch foreign from full function grant group having if ilike in index inner insert intersect into is join key lateral left like limit materialized natural not null offset on or order outer over partition primary references returning revoke right rollback row select set table then to transaction trigger truncate union unique update using values view when where window with")}
	case "c", "h":
		return &language{line: slashes, block: c, quotes: `"'`, values: set("NULL true false"), words: set(cWords + "void int char short long float double signed unsigned bool size_t include define ifdef ifndef endif")}
	case "cc", "cpp", "cxx", "hpp", "hh", "hxx", "cu", "cuh", "c++", "ino":
		return &language{line: slashes, block: c, quotes: `"'`, values: set("nullptr NULL true false this"),
			words: set(cWords + "void int char short long float double signed unsigned bool size_t include define ifdef ifndef endif alignas class concept consteval constexpr constinit co_await co_return co_yield decltype delete explicit export final friend mutable namespace new noexcept operator override private protected public requires static_assert template throw try catch typeid typename using virtual")}
	case "java", "kt", "kts", "kotlin", "scala", "groovy", "cs", "csharp", "swift", "dart":
		return &language{line: slashes, block: c, quotes: `"'`, triple: true, at: true, values: set("true false null nil this super self"),
			words: set(cWords + "abstract actor as async await base boolean byte case catch class char companion data def delegate double explicit extends extension final finally float fun func guard implements implicit import in init int interface internal is lateinit lazy let match namespace native new object open operator out override package private protected public sealed short string super synchronized throw throws trait transient try type using val var virtual void when where with yield")}
	case "go", "golang":
		return &language{line: slashes, block: c, quotes: "\"'`", many: "`", values: set("true false nil iota"),
			words: set("break case chan const continue default defer else fallthrough for func go goto if import interface map package range return select struct switch type var string int int64 byte rune error bool any float64")}
	case "rs", "rust":
		return &language{line: slashes, block: c, quotes: `"`, many: `"`, values: set("true false None Some Ok Err self Self"),
			words: set("as async await break const continue crate dyn else enum extern fn for if impl in let loop match mod move mut pub ref return static struct super trait type unsafe use where while")}
	case "f", "f90", "f95", "f03", "for", "fortran":
		return &language{line: []string{"!"}, quotes: `"'`, fold: true, words: set("program end subroutine function module use implicit none integer real double precision complex character logical parameter dimension allocatable do while if then else elseif call return contains type intent in out inout write read print stop allocate deallocate select case")}
	case "m", "matlab", "octave":
		return &language{line: []string{"%", "#"}, quotes: `"'`, words: set("break case catch classdef continue else elseif end for function global if methods otherwise parfor persistent properties return spmd switch try while")}
	case "pl", "pm", "perl", "rb", "ruby", "rake":
		return &language{line: hash, quotes: `"'`, many: `"'`, at: true, values: set("true false nil self undef"),
			words: set("alias and begin break case class def do else elsif end ensure for foreach if in last local module my next not or our package redo require rescue retry return sub super then undef unless until use when while yield")}
	case "lua":
		return &language{line: []string{"--"}, block: [2]string{"--[[", "]]"}, quotes: `"'`, values: set("true false nil"), words: set("and break do else elseif end for function goto if in local not or repeat return then until while")}
	case "php":
		return &language{line: []string{"//", "#"}, block: c, quotes: `"'`, many: `"'`, values: set("true false null"), words: set("abstract and array as break case catch class const continue declare default do echo else elseif extends final finally fn for foreach function global if implements include interface match namespace new or print private protected public require return static switch throw trait try use var while yield")}
	case "css", "scss", "less":
		return &language{line: slashes, block: c, quotes: `"'`, dash: true, at: true}
	case "html", "htm", "xhtml", "xml", "svg", "vue", "rss", "xsl", "xsd", "kml", "html+jinja":
		return &language{block: [2]string{"<!--", "-->"}, quotes: `"'`, markup: true, dash: true}
	case "tex", "latex", "sty", "bib", "bibtex":
		return &language{line: []string{"%"}, words: set("begin end documentclass usepackage section subsection textbf emph cite ref label item newcommand")}
	case "proto", "graphql", "tf", "hcl", "nix":
		return &language{line: []string{"#", "//"}, block: c, quotes: `"`, dash: true, values: set("true false null"), words: set("syntax package import message service rpc returns repeated optional enum oneof map option type query mutation input interface union resource variable output module provider data locals let in with rec inherit")}
	}
	return nil
}

// highlight escapes code and marks its parts: t-c comments, t-s strings, t-n
// numbers, t-k words of the language, t-v its values, t-d decorators, t-f names
// being defined, t-t tags. No mark spans two lines, so that lines can be taken
// apart. Time is linear in the code.
func highlight(code string, l *language) string {
	code = strings.ToValidUTF8(code, "\uFFFD")
	if l == nil {
		return html.EscapeString(code)
	}
	h := highlighter{code: code, l: l}
	h.out.Grow(len(code) * 2)
	for h.at < len(code) {
		h.step()
	}
	h.plain(len(code))
	return h.out.String()
}

type highlighter struct {
	code   string
	l      *language
	out    strings.Builder
	at     int
	done   int  // written up to here
	defing bool // the next name is being defined
	tag    bool // inside <…>
}

func (h *highlighter) step() {
	rest, l := h.code[h.at:], h.l
	c := rest[0]
	if l.block[0] != "" && strings.HasPrefix(rest, l.block[0]) {
		end := strings.Index(rest[len(l.block[0]):], l.block[1])
		if end < 0 {
			h.mark("t-c", len(rest))
		} else {
			h.mark("t-c", len(l.block[0])+end+len(l.block[1]))
		}
		return
	}
	for _, mark := range l.line {
		// In shells and the like # begins a comment only where a word could begin.
		if strings.HasPrefix(rest, mark) && (mark != "#" || h.at == 0 || strings.IndexByte(" \t\n;()[]{},", h.code[h.at-1]) >= 0 || !l.dash) {
			h.mark("t-c", lineEnd(rest))
			return
		}
	}
	if l.headers && c == '[' && (h.at == 0 || h.code[h.at-1] == '\n') {
		h.mark("t-k", lineEnd(rest))
		return
	}
	if l.markup {
		switch {
		case c == '<' && len(rest) > 1 && (isWord(rest[1]) || rest[1] == '/' || rest[1] == '!' || rest[1] == '?'):
			n := 2
			for n < len(rest) && (isWord(rest[n]) || rest[n] == '-' || rest[n] == ':') {
				n++
			}
			h.tag = true
			h.mark("t-t", n)
			return
		case c == '>' && h.tag:
			h.tag = false
			h.mark("t-t", 1)
			return
		case !h.tag:
			h.at++
			return
		}
	}
	if strings.IndexByte(l.quotes, c) >= 0 {
		h.mark("t-s", h.stringEnd(rest, c))
		return
	}
	if l.at && c == '@' && len(rest) > 1 && isWord(rest[1]) {
		h.mark("t-d", wordEnd(rest, 1, true, false))
		return
	}
	if c >= '0' && c <= '9' {
		n := 1
		for n < len(rest) && (isWord(rest[n]) || rest[n] == '.' && n+1 < len(rest) && rest[n+1] >= '0' && rest[n+1] <= '9') {
			n++
		}
		h.mark("t-n", n)
		return
	}
	if isWord(c) {
		n := wordEnd(rest, 0, false, l.dash)
		word := rest[:n]
		if l.fold {
			word = strings.ToLower(word)
		}
		switch {
		case l.words[word]:
			h.mark("t-k", n)
			h.defing = word == "def" || word == "class" || word == "func" || word == "fn" || word == "function" || word == "struct" || word == "fun"
			return
		case l.values[word]:
			h.mark("t-v", n)
		case h.defing:
			h.mark("t-f", n)
		default:
			h.at += n
		}
		h.defing = false
		return
	}
	if c != ' ' {
		h.defing = false
	}
	h.at++
}

func (h *highlighter) stringEnd(rest string, quote byte) int {
	three := strings.Repeat(string(quote), 3)
	if h.l.triple && strings.HasPrefix(rest, three) {
		for i := 3; i < len(rest); i++ {
			if rest[i] == '\\' {
				i++
			} else if strings.HasPrefix(rest[i:], three) {
				return i + 3
			}
		}
		return len(rest)
	}
	many := strings.IndexByte(h.l.many, quote) >= 0
	for i := 1; i < len(rest); i++ {
		switch {
		case rest[i] == '\\' && i+1 < len(rest) && rest[i+1] != '\n':
			i++
		case rest[i] == quote:
			return i + 1
		case rest[i] == '\n' && !many:
			return i
		}
	}
	return len(rest)
}

// mark writes the next n bytes as a part, line by line.
func (h *highlighter) mark(class string, n int) {
	h.plain(h.at)
	for line := range strings.SplitAfterSeq(h.code[h.at:h.at+n], "\n") {
		text, end := strings.CutSuffix(line, "\n")
		if text != "" {
			h.out.WriteString(`<span class="` + class + `">` + html.EscapeString(text) + "</span>")
		}
		if end {
			h.out.WriteByte('\n')
		}
	}
	h.at += n
	h.done = h.at
}

func (h *highlighter) plain(to int) {
	if h.done < to {
		h.out.WriteString(html.EscapeString(h.code[h.done:to]))
		h.done = to
	}
	h.at = max(h.at, to)
}

func lineEnd(s string) int {
	if i := strings.IndexByte(s, '\n'); i >= 0 {
		return i
	}
	return len(s)
}

func isWord(c byte) bool {
	return c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c >= 0x80
}

func wordEnd(s string, from int, dots, dashes bool) int {
	for from < len(s) && (isWord(s[from]) || dots && s[from] == '.' || dashes && s[from] == '-') {
		from++
	}
	return from
}
