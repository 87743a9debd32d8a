package viewer

import (
	"html"
	"strconv"
	"strings"
)

// style is how a terminal's text looks: colors are 1 to 16, 0 is none.
type style struct {
	fg, bg                         uint8
	bold, dim, italic, under, swap bool
}

type glyph struct {
	r rune
	s style
}

// ansi turns a terminal's output into HTML: colors and weight become classes of
// a fixed set, carriage returns and backspaces do what they do, every other
// control sequence is dropped. Time and memory are linear in the text.
func ansi(text string) string {
	var out strings.Builder
	out.Grow(len(text) + len(text)/8)
	var line []glyph
	var now, last style
	col, open := 0, false
	flush := func() {
		for _, g := range line {
			if g.s != last {
				if open {
					out.WriteString("</span>")
				}
				if open = g.s != (style{}); open {
					out.WriteString(`<span class="` + g.s.class() + `">`)
				}
				last = g.s
			}
			switch g.r {
			case '&', '<', '>', '"', '\'':
				out.WriteString(html.EscapeString(string(g.r)))
			default:
				out.WriteRune(g.r)
			}
		}
		line, col = line[:0], 0
	}
	text = strings.ToValidUTF8(text, "\uFFFD")
	for i, skip := 0, 0; i < len(text); i += skip {
		r, size := decode(text[i:])
		skip = size
		switch {
		case r == 0x1b:
			var params string
			var final byte
			params, final, skip = escape(text[i:])
			if final == 'm' {
				now = now.with(params)
			} else if final == 'K' && col < len(line) {
				line = line[:col]
			}
		case r == '\n':
			flush()
			out.WriteByte('\n')
		case r == '\r':
			col = 0
		case r == '\b':
			col = max(0, col-1)
		case r < 0x20 && r != '\t', r == 0x7f, r >= 0x80 && r < 0xa0:
		case col < len(line):
			line[col] = glyph{r, now}
			col++
		default:
			line = append(line, glyph{r, now})
			col++
		}
	}
	flush()
	if open {
		out.WriteString("</span>")
	}
	return out.String()
}

func decode(s string) (rune, int) {
	for i, r := range s {
		if i > 0 {
			return first(s), i
		}
		_ = r
	}
	return first(s), len(s)
}

func first(s string) rune {
	for _, r := range s {
		return r
	}
	return 0
}

// escape measures the control sequence at the beginning of s. Only those that
// begin with ESC [ have parameters for us.
func escape(s string) (params string, final byte, size int) {
	if len(s) < 2 {
		return "", 0, len(s)
	}
	switch s[1] {
	case '[':
		for i := 2; i < len(s) && i < 256; i++ {
			if s[i] >= 0x40 && s[i] <= 0x7e {
				return s[2:i], s[i], i + 1
			}
			if s[i] < 0x20 {
				return "", 0, i
			}
		}
		return "", 0, min(len(s), 2)
	case ']', 'P', 'X', '^', '_': // a string, until BEL or ESC \
		for i := 2; i < len(s) && i < 4096; i++ {
			if s[i] == 0x07 {
				return "", 0, i + 1
			}
			if s[i] == 0x1b && i+1 < len(s) && s[i+1] == '\\' {
				return "", 0, i + 2
			}
		}
		return "", 0, 2
	case '(', ')', '*', '+', '#', '%':
		return "", 0, min(3, len(s))
	}
	if s[1] >= 0x80 {
		return "", 0, 1
	}
	return "", 0, 2
}

func (s style) with(params string) style {
	codes := strings.FieldsFunc(params, func(r rune) bool { return r == ';' || r == ':' })
	if len(codes) == 0 {
		return style{}
	}
	for i := 0; i < len(codes); i++ {
		n, err := strconv.Atoi(codes[i])
		if err != nil {
			continue
		}
		switch {
		case n == 0:
			s = style{}
		case n == 1:
			s.bold = true
		case n == 2:
			s.dim = true
		case n == 3:
			s.italic = true
		case n == 4:
			s.under = true
		case n == 7:
			s.swap = true
		case n == 22:
			s.bold, s.dim = false, false
		case n == 23:
			s.italic = false
		case n == 24:
			s.under = false
		case n == 27:
			s.swap = false
		case n >= 30 && n <= 37:
			s.fg = uint8(n - 29)
		case n == 39:
			s.fg = 0
		case n >= 40 && n <= 47:
			s.bg = uint8(n - 39)
		case n == 49:
			s.bg = 0
		case n >= 90 && n <= 97:
			s.fg = uint8(n - 81)
		case n >= 100 && n <= 107:
			s.bg = uint8(n - 91)
		case n == 38 || n == 48:
			c, used := extended(codes[i+1:])
			i += used
			if n == 38 {
				s.fg = c
			} else {
				s.bg = c
			}
		}
	}
	return s
}

// extended reads "5;N" or "2;R;G;B" and gives the nearest of the sixteen, which
// are readable in both themes; exact colors would not be.
func extended(codes []string) (color uint8, used int) {
	num := func(i int) int {
		if i >= len(codes) {
			return 0
		}
		n, _ := strconv.Atoi(codes[i])
		return min(max(n, 0), 255)
	}
	switch num(0) {
	case 5:
		n := num(1)
		switch {
		case n < 16:
			return uint8(n + 1), 2
		case n < 232:
			n -= 16
			return nearest(n/36*51, n/6%6*51, n%6*51), 2
		default:
			g := 8 + (n-232)*10
			return nearest(g, g, g), 2
		}
	case 2:
		return nearest(num(1), num(2), num(3)), 4
	}
	return 0, 1
}

func nearest(r, g, b int) uint8 {
	top := max(r, g, b)
	if top-min(r, g, b) < 40 { // gray
		switch {
		case top < 64:
			return 1
		case top < 150:
			return 9
		case top < 220:
			return 8
		}
		return 16
	}
	bit := func(v, weight int) int {
		if v*2 > top {
			return weight
		}
		return 0
	}
	c := 1 + bit(r, 1) + bit(g, 2) + bit(b, 4)
	if top > 200 {
		c += 8
	}
	return uint8(c)
}

func (s style) class() string {
	var c []string
	if s.fg > 0 {
		c = append(c, "fg"+strconv.Itoa(int(s.fg)))
	}
	if s.bg > 0 {
		c = append(c, "bg"+strconv.Itoa(int(s.bg)))
	}
	for word, on := range map[string]bool{"bold": s.bold, "dim": s.dim, "italic": s.italic, "under": s.under, "swap": s.swap} {
		if on {
			c = append(c, word)
		}
	}
	return strings.Join(c, " ")
}
