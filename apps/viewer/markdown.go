package viewer

import (
	"bytes"
	"html"
	"html/template"
	"strings"
	"sync"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	"github.com/yuin/goldmark/parser"
	"github.com/yuin/goldmark/renderer"
	unsafehtml "github.com/yuin/goldmark/renderer/html"
	"github.com/yuin/goldmark/text"
	"github.com/yuin/goldmark/util"
)

// markdown turns Markdown into HTML: tables, strike-through, task lists, math,
// highlighted code. HTML inside of it passes and is then cleaned like any.
func markdown(source string, l links) template.HTML {
	var b bytes.Buffer
	if err := converter().Convert([]byte(strings.ToValidUTF8(source, "\uFFFD")), &b); err != nil {
		return asText(source)
	}
	return clean(b.String(), l)
}

var converter = sync.OnceValue(func() goldmark.Markdown {
	return goldmark.New(
		goldmark.WithExtensions(extension.NewTable(extension.WithTableCellAlignMethod(extension.TableCellAlignAttribute)), extension.Strikethrough, extension.Linkify),
		goldmark.WithParserOptions(parser.WithAutoHeadingID(),
			parser.WithBlockParsers(util.Prioritized(mathBlocks{}, 650)),
			parser.WithInlineParsers(util.Prioritized(mathSpans{}, 90))),
		goldmark.WithRendererOptions(unsafehtml.WithUnsafe(),
			renderer.WithNodeRenderers(util.Prioritized(nodes{}, 10))),
	)
})

// math is TeX in the text. The page's script sets it; without the script its
// source is readable.
type math struct {
	ast.BaseInline
	tex     string
	display bool
}

type mathBlock struct {
	ast.BaseBlock
	tex bytes.Buffer
	end string
}

func kindMath() ast.NodeKind { return mathKinds()[0] }

// mathKinds are made once, when the first text is read: goldmark numbers them.
var mathKinds = sync.OnceValue(func() [2]ast.NodeKind {
	return [2]ast.NodeKind{ast.NewNodeKind("Math"), ast.NewNodeKind("MathBlock")}
})

func (*math) Kind() ast.NodeKind              { return kindMath() }
func (m *math) Dump(s []byte, level int)      { ast.DumpHelper(m, s, level, nil, nil) }
func (*mathBlock) Kind() ast.NodeKind         { return mathKinds()[1] }
func (m *mathBlock) Dump(s []byte, level int) { ast.DumpHelper(m, s, level, nil, nil) }
func (m *mathBlock) IsRaw() bool              { return true }

// mathSpans finds $…$, $$…$$ and \begin{…}…\end{…} within a paragraph.
type mathSpans struct{}

func (mathSpans) Trigger() []byte { return []byte{'$', '\\'} }

const maxTeX = 10_000 // bytes of one formula; also bounds the search for its end

func (mathSpans) Parse(_ ast.Node, block text.Reader, _ parser.Context) ast.Node {
	line, _ := block.PeekLine()
	open, end := "", ""
	switch {
	case bytes.HasPrefix(line, []byte("$$")):
		open, end = "$$", "$$"
	case line[0] == '$' && len(line) > 2 && line[1] != ' ' && line[1] != '\n' && line[1] != '\t':
		open, end = "$", "$"
	case bytes.HasPrefix(line, []byte(`\begin{`)):
		if end = environment(line); end == "" {
			return nil
		}
	default:
		return nil
	}
	at, where := block.Position()
	block.Advance(len(open))
	var tex strings.Builder
	for tex.Len() < maxTeX {
		line, _ := block.PeekLine()
		if line == nil {
			break
		}
		i := ends(line, end)
		if i >= 0 && end == "$" && (i == 0 && tex.Len() == 0 || i > 0 && (line[i-1] == ' ' || line[i-1] == '\t') || i+1 < len(line) && line[i+1] >= '0' && line[i+1] <= '9') {
			break // a price, not a formula
		}
		if i >= 0 {
			tex.Write(line[:i])
			if open == "" {
				tex.WriteString(end)
			}
			block.Advance(i + len(end))
			return &math{tex: tex.String(), display: end != "$"}
		}
		tex.Write(line)
		block.AdvanceLine()
	}
	block.SetPosition(at, where)
	return nil
}

// ends is the first place of end that no back-slash takes away.
func ends(line []byte, end string) int {
	for from := 0; ; {
		i := bytes.Index(line[from:], []byte(end))
		if i < 0 {
			return -1
		}
		i += from
		if i > 0 && line[i-1] == '\\' && end[0] == '$' {
			from = i + 1
			continue
		}
		return i
	}
}

// environment is what ends a line's \begin{NAME}.
func environment(line []byte) string {
	rest := line[len(`\begin{`):]
	i := bytes.IndexByte(rest, '}')
	if i < 1 || i > 20 {
		return ""
	}
	for _, c := range rest[:i] {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '*') {
			return ""
		}
	}
	return `\end{` + string(rest[:i]) + "}"
}

// mathBlocks finds formulas that begin a line, so that a line in them that
// begins with + or = is no list and no heading.
type mathBlocks struct{}

func (mathBlocks) Trigger() []byte { return []byte{'$', '\\'} }

func (mathBlocks) Open(_ ast.Node, reader text.Reader, _ parser.Context) (ast.Node, parser.State) {
	line, segment := reader.PeekLine()
	line = bytes.TrimLeft(line, " ")
	m := &mathBlock{end: "$$"}
	switch {
	case bytes.HasPrefix(line, []byte("$$")):
		line = line[2:]
	case bytes.HasPrefix(line, []byte(`\begin{`)):
		if m.end = environment(line); m.end == "" {
			return nil, parser.NoChildren
		}
	default:
		return nil, parser.NoChildren
	}
	if i := ends(line, m.end); i >= 0 {
		if len(bytes.TrimSpace(line[i+len(m.end):])) > 0 {
			return nil, parser.NoChildren // goes on after the formula: a paragraph
		}
		m.take(line[:i], true)
	} else {
		m.take(line, false)
	}
	reader.Advance(segment.Len() - 1)
	return m, parser.NoChildren
}

func (m *mathBlock) take(line []byte, last bool) {
	if m.tex.Len() < maxTeX {
		m.tex.Write(line)
	}
	if last {
		if m.end != "$$" {
			m.tex.WriteString(m.end)
		}
		m.end = ""
	}
}

func (mathBlocks) Continue(node ast.Node, reader text.Reader, _ parser.Context) parser.State {
	m := node.(*mathBlock)
	if m.end == "" {
		return parser.Close
	}
	line, segment := reader.PeekLine()
	if i := ends(line, m.end); i >= 0 {
		m.take(line[:i], true)
	} else {
		m.take(line, false)
	}
	reader.Advance(max(segment.Len()-1, 0))
	return parser.Continue | parser.NoChildren
}

func (mathBlocks) Close(ast.Node, text.Reader, parser.Context) {}
func (mathBlocks) CanInterruptParagraph() bool                 { return true }
func (mathBlocks) CanAcceptIndentedLine() bool                 { return false }

// nodes renders what is ours.
type nodes struct{}

func (nodes) RegisterFuncs(r renderer.NodeRendererFuncRegisterer) {
	r.Register(kindMath(), func(w util.BufWriter, _ []byte, n ast.Node, entering bool) (ast.WalkStatus, error) {
		if entering {
			m := n.(*math)
			w.WriteString(formula("span", m.tex, m.display))
		}
		return ast.WalkSkipChildren, nil
	})
	r.Register(mathKinds()[1], func(w util.BufWriter, _ []byte, n ast.Node, entering bool) (ast.WalkStatus, error) {
		if entering {
			w.WriteString(formula("div", n.(*mathBlock).tex.String(), true))
		}
		return ast.WalkSkipChildren, nil
	})
	r.Register(ast.KindFencedCodeBlock, func(w util.BufWriter, source []byte, n ast.Node, entering bool) (ast.WalkStatus, error) {
		if entering {
			block := n.(*ast.FencedCodeBlock)
			var code strings.Builder
			for i := range block.Lines().Len() {
				line := block.Lines().At(i)
				code.Write(line.Value(source))
			}
			w.WriteString("<pre><code>" + highlight(code.String(), languageNamed(string(block.Language(source)))) + "</code></pre>\n")
		}
		return ast.WalkSkipChildren, nil
	})
}

func formula(element, tex string, display bool) string {
	class := "math"
	if display {
		class = "math display"
	}
	return "<" + element + ` class="` + class + `">` + html.EscapeString(strings.TrimSpace(tex)) + "</" + element + ">"
}
