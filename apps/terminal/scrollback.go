package terminal

import (
	"bytes"
	"maps"
	"strconv"
	"strings"
)

// scrollback keeps the last bytes a shell wrote. Offsets count from the shell's
// first byte, so a page that comes back says how much it has and gets the rest.
//
// Old bytes go in larger pieces, and only up to a place where no character and
// no control sequence is cut in two; screen remembers the modes that the
// dropped part had switched.
type scrollback struct {
	max    int // bytes kept; a quarter more is held before anything is dropped
	buf    []byte
	start  int64 // offset of buf[0]
	screen scanner
}

// reach is how far a trim looks for the end of a line, and then of a sequence.
const reach = 64 << 10

func (s *scrollback) end() int64 { return s.start + int64(len(s.buf)) }

func (s *scrollback) write(p []byte) {
	s.buf = append(s.buf, p...)
	if len(s.buf) > s.max+s.max/4 {
		s.drop(len(s.buf) - s.max)
	}
}

// drop forgets at least least bytes.
func (s *scrollback) drop(least int) {
	cut := s.screen.cut(s.buf, least)
	s.start += int64(cut)
	s.buf = append(s.buf[:0], s.buf[cut:]...)
}

// last finds a place to cut with about n bytes after it. It returns the offset
// and the modes there.
func (s *scrollback) last(n int) (at int64, modes scanner) {
	modes = s.screen
	modes.args, modes.modes = bytes.Clone(modes.args), maps.Clone(modes.modes)
	if n >= len(s.buf) {
		return s.start, modes
	}
	return s.start + int64(modes.cut(s.buf, len(s.buf)-n)), modes
}

// read returns a copy of up to n bytes from an offset that is still held.
func (s *scrollback) read(at int64, n int) []byte {
	i := int(at - s.start)
	return bytes.Clone(s.buf[i:min(i+n, len(s.buf))])
}

// scanner follows a terminal's output just far enough to know where it may be
// cut and which modes are on.
type scanner struct {
	state  scanState
	args   []byte
	rest   int // continuation bytes the current character still needs
	modes  map[int]bool
	keypad bool
}

type scanState byte

const (
	plain    scanState = iota
	escape             // after ESC
	control            // ESC [ …
	text               // ESC ] …, ESC P …, ESC X …, ESC ^ …, ESC _ …
	textEnds           // ESC inside text
	charset            // ESC and an intermediate byte
)

// cut follows p until a place at or after least where it may be cut, and
// returns that place: best after a line, else after a character or sequence.
func (s *scanner) cut(p []byte, least int) int {
	for i, c := range p {
		s.step(c)
		switch n := i + 1; {
		case n < least:
		case s.between() && (c == '\n' || n >= least+reach):
			return n
		case n >= least+2*reach:
			s.state = plain // a sequence without an end is cut as it is
			return n
		}
	}
	return len(p)
}

// tracked are the private modes a page must know about: cursor keys, wrapping,
// cursor, mouse reports, focus reports, bracketed paste and, as 47, the second
// screen in its three spellings.
func tracked() []int {
	return []int{47, 1, 7, 9, 25, 1000, 1002, 1003, 1004, 1006, 1015, 1016, 2004}
}

// between reports whether the last byte ended a character or a sequence.
func (s *scanner) between() bool { return s.state == plain && s.rest == 0 }

func (s *scanner) step(c byte) {
	if c == 0x18 || c == 0x1a { // cancel
		s.state = plain
		return
	}
	switch s.state {
	case plain:
		s.character(c)
	case escape:
		s.escaped(c)
	case charset:
		if c >= 0x30 {
			s.state = plain
		}
	case control:
		switch {
		case c == 0x1b:
			s.state = escape
		case c >= 0x40 && c <= 0x7e:
			s.state = plain
			s.finish(c)
		case c >= 0x20 && len(s.args) < 128:
			s.args = append(s.args, c)
		}
	case text:
		switch c {
		case 0x07:
			s.state = plain
		case 0x1b:
			s.state = textEnds
		}
	case textEnds:
		if c == '\\' {
			s.state = plain
			return
		}
		s.escaped(c)
	}
}

func (s *scanner) character(c byte) {
	switch {
	case c == 0x1b:
		s.state, s.rest = escape, 0
	case c < 0x80:
		s.rest = 0
	case c < 0xc0:
		s.rest = max(0, s.rest-1)
	case c < 0xe0:
		s.rest = 1
	case c < 0xf0:
		s.rest = 2
	default:
		s.rest = 3
	}
}

func (s *scanner) escaped(c byte) {
	s.state = plain
	switch {
	case c == '[':
		s.state, s.args = control, s.args[:0]
	case c == ']' || c == 'P' || c == 'X' || c == '^' || c == '_':
		s.state = text
	case c == 0x1b:
		s.state = escape
	case c >= 0x20 && c < 0x30:
		s.state = charset
	case c == '=' || c == '>':
		s.keypad = c == '='
	case c == 'c': // reset
		s.modes, s.keypad = nil, false
	}
}

func (s *scanner) finish(final byte) {
	args, private := strings.CutPrefix(string(s.args), "?")
	if !private || final != 'h' && final != 'l' {
		return
	}
	for arg := range strings.SplitSeq(args, ";") {
		n, err := strconv.Atoi(arg)
		if err != nil {
			continue
		}
		if n == 1047 || n == 1049 {
			n = 47
		}
		for _, t := range tracked() {
			if t == n {
				if s.modes == nil {
					s.modes = map[int]bool{}
				}
				s.modes[n] = final == 'h'
			}
		}
	}
}

// restore is what brings a page's terminal, whatever it showed before, into the
// state the scanner is in: end any sequence, soft reset, then each mode.
func (s *scanner) restore() string {
	var b strings.Builder
	b.WriteString("\x18\x1b[!p\x1b[0m")
	// All that is off comes first: switching one mouse mode off ends the others.
	for _, turn := range []bool{false, true} {
		for _, n := range tracked() {
			on, known := s.modes[n]
			if !known {
				on = n == 7 || n == 25 // a terminal begins with these on
			}
			if on != turn {
				continue
			}
			b.WriteString("\x1b[?" + strconv.Itoa(n))
			if on {
				b.WriteByte('h')
			} else {
				b.WriteByte('l')
			}
		}
	}
	if s.keypad {
		b.WriteString("\x1b=")
	}
	return b.String()
}
