package terminal

import (
	"bytes"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"unicode/utf8"
)

type recorder struct {
	*httptest.ResponseRecorder
	body *bytes.Buffer
}

func newRecorder() recorder {
	r := httptest.NewRecorder()
	return recorder{r, r.Body}
}

func mustRequest(t *testing.T, url string) *http.Request {
	t.Helper()
	return httptest.NewRequest(http.MethodGet, url, nil)
}

// What is left after any number of drops begins between two sequences and
// between two characters, and what is dropped and kept is what was written.
func TestScrollbackCutsBetweenSequences(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	parts := []string{
		"plain words\r\n", "ünïcödé 日本語 🙂\n", "\x1b[31;1mred\x1b[0m", "\x1b]0;a title\nwith a line\a", "\x1b]8;;https://example.org\x1b\\link\x1b]8;;\x1b\\",
		"\x1bP$q\"p\x1b\\", "\x1b[?1049h", "\x1b[?1049l", "\x1b(B", "\x1b7", "\x1b[38;2;1;2;3m", strings.Repeat("long ", 400), "\x1b[?25l\x1b[?25h",
	}
	s := scrollback{max: 64 << 10}
	var all []byte
	for range 20_000 {
		p := []byte(parts[random.IntN(len(parts))])
		all = append(all, p...)
		for len(p) > 0 { // as a pty delivers it: cut anywhere
			n := 1 + random.IntN(len(p))
			s.write(p[:n])
			p = p[n:]
		}
		if len(s.buf) > s.max+s.max/4 {
			t.Fatalf("%d bytes held, the bound is %d", len(s.buf), s.max+s.max/4)
		}
	}
	if s.end() != int64(len(all)) || !bytes.Equal(s.buf, all[s.start:]) {
		t.Fatal("what is held is not the end of what was written")
	}
	if s.start == 0 || !s.screen.between() || !utf8.RuneStart(s.buf[0]) || all[s.start-1] != '\n' {
		t.Errorf("the cut at %d is after %q", s.start, all[s.start-20:s.start])
	}
	if got := s.read(s.start+3, 5); !bytes.Equal(got, all[s.start+3:s.start+8]) {
		t.Errorf("read gives %q", got)
	}
}

func TestScrollbackWithoutLinesOrEnd(t *testing.T) {
	for name, text := range map[string]string{
		"one line":               strings.Repeat("x", 4<<20),
		"a title without an end": "\x1b]0;" + strings.Repeat("x", 4<<20),
		"only escapes":           strings.Repeat("\x1b", 4<<20),
		"continuation bytes":     strings.Repeat("\xbf", 4<<20),
		"parameters":             "\x1b[?" + strings.Repeat("1;", 2<<20),
	} {
		s := scrollback{max: 1 << 20}
		for b := []byte(text); len(b) > 0; b = b[min(len(b), 32<<10):] {
			s.write(b[:min(len(b), 32<<10)])
		}
		if len(s.buf) > s.max*5/4 || len(s.buf) < s.max/2 || cap(s.screen.args) > 1024 {
			t.Errorf("%s: %d bytes held", name, len(s.buf))
		}
	}
}

func TestRestoreBringsBackTheModes(t *testing.T) {
	var s scanner
	for _, c := range []byte("\x1b[?1049h\x1b[?25l\x1b[?1002;1006h\x1b[?2004h\x1b=\x1b[?2004l\x1b[4h\x1b[?99999999999999999999h\x1b[?h") {
		s.step(c)
	}
	got := s.restore()
	for _, on := range []string{"\x1b[?47h", "\x1b[?1002h", "\x1b[?1006h", "\x1b[?7h", "\x1b="} {
		if !strings.Contains(got, on) {
			t.Errorf("%q lacks %q", got, on)
		}
	}
	for _, off := range []string{"\x1b[?25l", "\x1b[?2004l", "\x1b[?1000l"} {
		if !strings.Contains(got, off) {
			t.Errorf("%q lacks %q", got, off)
		}
	}
	if strings.LastIndex(got, "l") > strings.Index(got, "h") {
		t.Errorf("%q switches something off after something on", got)
	}
	for _, c := range []byte("\x1bc") {
		s.step(c)
	}
	if s.restore() != (&scanner{}).restore() {
		t.Error("a reset leaves modes behind")
	}
}

func FuzzScanner(f *testing.F) {
	f.Add([]byte("\x1b[?1049h plain \x1b]0;t\x07\x1bP1$r\x1b\\"))
	f.Fuzz(func(t *testing.T, p []byte) {
		var s scanner
		for _, c := range p {
			s.step(c)
		}
		if len(s.args) > 128 || len(s.modes) > len(tracked()) {
			t.Fatal("the scanner grows")
		}
		// Whatever came, cancel and a newline are a place to cut.
		s.step(0x18)
		s.step('\n')
		if !s.between() {
			t.Fatal("no way back")
		}
	})
}
