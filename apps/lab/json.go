package lab

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"unicode/utf8"

	"quire"
)

// What is parsed is bounded before it is: every value costs memory beyond its
// bytes, and every level a frame of a stack, here and in whatever reads the file
// after us.
const (
	maxParsed = 100 << 20 // bytes of a notebook
	maxValues = 4 << 20   // in it
	maxDepth  = 200       // levels
)

// An object is a JSON object with everything in it, known to us or not.
type object = map[string]any

// bounded refuses JSON that would cost too much to parse.
func bounded(b []byte) error {
	depth, values, quoted := 0, 1, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '[' || c == '{':
			if depth++; depth > maxDepth {
				return quire.Invalid("content", fmt.Sprintf("This is nested more than %d levels deep, which no notebook needs.", maxDepth))
			}
			values++
		case c == ']' || c == '}':
			depth--
		case c == ',' || c == ':':
			if values++; values > maxValues {
				return quire.Invalid("content", fmt.Sprintf("This has more than %d values, too many to open here. Clear large outputs with a program first.", maxValues))
			}
		}
	}
	return nil
}

// decode reads one JSON value and nothing after it. Numbers stay as they are
// written.
func decode(b []byte) (any, error) {
	if err := bounded(b); err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	if rest := bytes.TrimSpace(b[d.InputOffset():]); len(rest) > 0 {
		return nil, fmt.Errorf("more follows at byte %d", d.InputOffset())
	}
	return v, nil
}

// encode writes JSON the way nbformat does, so that a notebook saved here and one
// saved by Python differ by what was changed alone: sorted keys, an indent of one
// space, no escapes but those that JSON demands.
func encode(v any) []byte { return append(appendValue(nil, v, 0), '\n') }

func appendValue(b []byte, v any, depth int) []byte {
	switch v := v.(type) {
	case object:
		if len(v) == 0 {
			return append(b, "{}"...)
		}
		b = append(b, '{')
		for i, k := range slices.Sorted(maps.Keys(v)) {
			b = appendBreak(b, i, depth+1)
			b = append(appendString(b, k), ": "...)
			b = appendValue(b, v[k], depth+1)
		}
		return append(appendBreak(b, 0, depth), '}')
	case []any:
		if len(v) == 0 {
			return append(b, "[]"...)
		}
		b = append(b, '[')
		for i, e := range v {
			b = appendValue(appendBreak(b, i, depth+1), e, depth+1)
		}
		return append(appendBreak(b, 0, depth), ']')
	case string:
		return appendString(b, v)
	case json.Number:
		return append(b, v...)
	case nil:
		return append(b, "null"...)
	}
	// Numbers and truth values that our own code put in.
	plain, err := json.Marshal(v)
	if err != nil {
		return append(b, "null"...)
	}
	return append(b, plain...)
}

func appendBreak(b []byte, i, depth int) []byte {
	if i > 0 {
		b = append(b, ',')
	}
	b = append(b, '\n')
	for range depth {
		b = append(b, ' ')
	}
	return b
}

func appendString(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	from := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && n == 1 {
				b = append(append(b, s[from:i]...), "\uFFFD"...)
				from = i + 1
			}
			i += n
			continue
		}
		if c >= ' ' && c != '"' && c != '\\' {
			i++
			continue
		}
		b = append(b, s[from:i]...)
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, `\n`...)
		case '\r':
			b = append(b, `\r`...)
		case '\t':
			b = append(b, `\t`...)
		case '\b':
			b = append(b, `\b`...)
		case '\f':
			b = append(b, `\f`...)
		default:
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
		i++
		from = i
	}
	return append(append(b, s[from:]...), '"')
}
