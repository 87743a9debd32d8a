package lab

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"quire"
)

// parse5 reads JSON5, in which JupyterLab's settings are written: JSON with
// comments, names without quotes, single quotes, commas at the end, and numbers
// like 0x1f, .5 and +1. Infinity and NaN, which JSON has no word for, are refused.
func parse5(text string) (any, error) {
	p := &parser5{text: text}
	v, err := p.value(0)
	if err == nil {
		if err = p.space(); err == nil && p.at < len(text) {
			err = p.wrong("something follows the end")
		}
	}
	if err != nil {
		return nil, err
	}
	return v, nil
}

// object5 is parse5 for what has to be an object; an empty text is an empty one.
func object5(text string) (object, error) {
	if strings.TrimSpace(text) == "" {
		return object{}, nil
	}
	v, err := parse5(text)
	if err != nil {
		return nil, err
	}
	o, ok := v.(object)
	if !ok {
		return nil, quire.Invalid("raw", "Settings are an object: begin with { and end with }.")
	}
	return o, nil
}

type parser5 struct {
	text string
	at   int
}

func (p *parser5) wrong(what string) error {
	before := p.text[:min(p.at, len(p.text))]
	line := strings.Count(before, "\n") + 1
	column := utf8.RuneCountInString(before[strings.LastIndexByte(before, '\n')+1:]) + 1
	return quire.Invalid("raw", fmt.Sprintf("Line %d, column %d: %s.", line, column, what))
}

// space goes over white space and comments.
func (p *parser5) space() error {
	for p.at < len(p.text) {
		rest := p.text[p.at:]
		switch {
		case strings.HasPrefix(rest, "//"):
			end := strings.IndexAny(rest, "\n\r\u2028\u2029")
			if end < 0 {
				end = len(rest)
			}
			p.at += end
		case strings.HasPrefix(rest, "/*"):
			end := strings.Index(rest[2:], "*/")
			if end < 0 {
				return p.wrong("this comment does not end")
			}
			p.at += end + 4
		default:
			r, n := utf8.DecodeRuneInString(rest)
			if !unicode.IsSpace(r) && r != '\ufeff' {
				return nil
			}
			p.at += n
		}
	}
	return nil
}

func (p *parser5) peek() byte {
	if p.at < len(p.text) {
		return p.text[p.at]
	}
	return 0
}

func (p *parser5) value(depth int) (any, error) {
	if depth > maxDepth {
		return nil, p.wrong("this is nested too deeply")
	}
	if err := p.space(); err != nil {
		return nil, err
	}
	switch c := p.peek(); {
	case c == '{':
		return p.object(depth)
	case c == '[':
		return p.list(depth)
	case c == '"' || c == '\'':
		return p.string()
	case c == '+' || c == '-' || c == '.' || c >= '0' && c <= '9':
		return p.number()
	}
	for word, v := range map[string]any{"true": true, "false": false, "null": nil} {
		if strings.HasPrefix(p.text[p.at:], word) && !isNamePart(p.runeAt(p.at+len(word))) {
			p.at += len(word)
			return v, nil
		}
	}
	if p.at == len(p.text) {
		return nil, p.wrong("a value is missing here")
	}
	return nil, p.wrong("this is no value")
}

func (p *parser5) runeAt(i int) rune {
	if i >= len(p.text) {
		return 0
	}
	r, _ := utf8.DecodeRuneInString(p.text[i:])
	return r
}

func isNamePart(r rune) bool {
	return r == '_' || r == '$' || r == '\u200c' || r == '\u200d' || unicode.IsLetter(r) || unicode.IsDigit(r)
}

func (p *parser5) object(depth int) (any, error) {
	out := object{}
	p.at++
	for {
		if err := p.space(); err != nil {
			return nil, err
		}
		if p.peek() == '}' {
			p.at++
			return out, nil
		}
		key, err := p.name()
		if err != nil {
			return nil, err
		}
		if err := p.space(); err != nil {
			return nil, err
		}
		if p.peek() != ':' {
			return nil, p.wrong("a colon is missing here")
		}
		p.at++
		if out[key], err = p.value(depth + 1); err != nil {
			return nil, err
		}
		if end, err := p.next('}'); end || err != nil {
			return out, err
		}
	}
}

func (p *parser5) list(depth int) (any, error) {
	out := []any{}
	p.at++
	for {
		if err := p.space(); err != nil {
			return nil, err
		}
		if p.peek() == ']' {
			p.at++
			return out, nil
		}
		v, err := p.value(depth + 1)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
		if end, err := p.next(']'); end || err != nil {
			return out, err
		}
	}
}

// next goes over a comma, or over what ends the list or object.
func (p *parser5) next(end byte) (bool, error) {
	if err := p.space(); err != nil {
		return false, err
	}
	switch p.peek() {
	case ',':
		p.at++
		return false, nil
	case end:
		p.at++
		return true, nil
	}
	return false, p.wrong("a comma or " + string(rune(end)) + " is missing here")
}

func (p *parser5) name() (string, error) {
	if c := p.peek(); c == '"' || c == '\'' {
		return p.string()
	}
	from := p.at
	for p.at < len(p.text) {
		r, n := utf8.DecodeRuneInString(p.text[p.at:])
		if !isNamePart(r) || p.at == from && unicode.IsDigit(r) {
			break
		}
		p.at += n
	}
	if p.at == from {
		return "", p.wrong("a name is missing here")
	}
	return p.text[from:p.at], nil
}

func (p *parser5) string() (string, error) {
	var b strings.Builder
	quote := p.text[p.at]
	for p.at++; p.at < len(p.text); {
		r, n := utf8.DecodeRuneInString(p.text[p.at:])
		p.at += n
		switch {
		case r == rune(quote):
			return b.String(), nil
		case r == '\n' || r == '\r':
			return "", p.wrong("this text does not end on its line")
		case r != '\\':
			b.WriteRune(r)
			continue
		}
		r, n = utf8.DecodeRuneInString(p.text[p.at:])
		p.at += n
		switch r {
		case 'n':
			b.WriteByte('\n')
		case 't':
			b.WriteByte('\t')
		case 'r':
			b.WriteByte('\r')
		case 'b':
			b.WriteByte('\b')
		case 'f':
			b.WriteByte('\f')
		case 'v':
			b.WriteByte('\v')
		case '0':
			b.WriteByte(0)
		case '\r':
			if p.peek() == '\n' {
				p.at++
			}
		case '\n', '\u2028', '\u2029':
		case 'x', 'u':
			c, err := p.code(map[rune]int{'x': 2, 'u': 4}[r])
			if err != nil {
				return "", err
			}
			if 0xD800 <= c && c < 0xDC00 && strings.HasPrefix(p.text[p.at:], `\u`) {
				p.at += 2
				low, err := p.code(4)
				if err != nil {
					return "", err
				}
				c = (c-0xD800)<<10 + (low - 0xDC00) + 0x10000
			}
			b.WriteRune(c)
		default:
			b.WriteRune(r)
		}
	}
	return "", p.wrong("this text does not end")
}

func (p *parser5) code(digits int) (rune, error) {
	if p.at+digits > len(p.text) {
		return 0, p.wrong("this text does not end")
	}
	c, err := strconv.ParseUint(p.text[p.at:p.at+digits], 16, 32)
	if err != nil {
		return 0, p.wrong("this is no number of a character")
	}
	p.at += digits
	return rune(c), nil
}

func (p *parser5) number() (any, error) {
	from := p.at
	for p.at < len(p.text) && (isNamePart(rune(p.text[p.at])) || strings.IndexByte("+-.", p.text[p.at]) >= 0) {
		p.at++
	}
	word := p.text[from:p.at]
	digits := strings.TrimLeft(word, "+-")
	sign := strings.TrimPrefix(word[:len(word)-len(digits)], "+")
	number := ""
	if hex, ok := strings.CutPrefix(strings.ToLower(digits), "0x"); ok {
		if n, err := strconv.ParseUint(hex, 16, 64); err == nil {
			number = strconv.FormatUint(n, 10)
		}
	} else {
		number = digits
		if strings.HasPrefix(number, ".") {
			number = "0" + number
		}
		mantissa, exponent, _ := strings.Cut(strings.ToLower(number), "e")
		if strings.HasSuffix(mantissa, ".") {
			number = mantissa + "0"
			if exponent != "" {
				number += "e" + exponent
			}
		}
	}
	if number = sign + number; !json.Valid([]byte(number)) {
		p.at = from
		return nil, p.wrong("this is no number that can be stored")
	}
	return json.Number(number), nil
}
