package viewer

import (
	"fmt"
	"net/url"
	"path"
	"strings"
	"unicode"
	"unicode/utf8"
)

// shown is a name as people read it. A name is any bytes without slash and NUL:
// what is no text, moves the cursor or turns the writing direction is spelled
// out, so that two names never look the same.
func shown(name string) string {
	var b strings.Builder
	for i := 0; i < len(name); {
		r, size := utf8.DecodeRuneInString(name[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, name[i])
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case r < 0x80 && unicode.IsControl(r):
			fmt.Fprintf(&b, `\x%02x`, r)
		case unicode.IsControl(r), unicode.Is(unicode.Cf, r) && r != 0x200d, r == 0x2028, r == 0x2029:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
		i += size
	}
	return b.String()
}

// address is the URL path of a file, names being its path below the project.
func address(prefix string, names ...string) string {
	var b strings.Builder
	b.WriteString(prefix)
	for _, n := range names {
		b.WriteByte('/')
		b.WriteString(url.PathEscape(n))
	}
	if len(names) == 0 {
		b.WriteByte('/')
	}
	return b.String()
}

// split reads the names off an escaped URL path. Each name is decoded by
// itself: an encoded slash, a dot or nothing between slashes is no name.
func split(escaped string) ([]string, bool) {
	escaped = strings.TrimSuffix(strings.TrimPrefix(escaped, "/"), "/")
	if escaped == "" {
		return nil, true
	}
	parts := strings.Split(escaped, "/")
	if len(parts) > maxDepth || len(escaped) > 3*4096 {
		return nil, false
	}
	for i, p := range parts {
		name, err := url.PathUnescape(p)
		if err != nil || !isName(name) {
			return nil, false
		}
		parts[i] = name
	}
	return parts, true
}

func isName(n string) bool {
	return n != "" && n != "." && n != ".." && len(n) <= 255 && !strings.ContainsAny(n, "/\x00")
}

// links turns the addresses in a file's text into ours.
type links struct {
	prefix string   // of the app
	dir    []string // where the file is
	// attached gives a notebook's attachment as a data URL, or "".
	attached func(name string) string
}

const maxDepth = 128 // names in a path

// href is where a link of the text leads, or "" for nowhere.
func (l links) href(raw string) string {
	raw = strings.TrimSpace(raw)
	if rest, ok := strings.CutPrefix(raw, "#"); ok {
		return "#" + anchor(rest)
	}
	u, err := url.Parse(raw)
	if err != nil || raw == "" {
		return ""
	}
	switch strings.ToLower(u.Scheme) {
	case "http", "https":
		if u.Host == "" {
			return ""
		}
		u.User = nil
		return u.String()
	case "mailto":
		return u.String()
	case "":
		return l.local(u)
	}
	return ""
}

// local resolves a path against the file's directory, or the project if it is
// absolute, and never leaves the project.
func (l links) local(u *url.URL) string {
	if u.Host != "" || u.Opaque != "" || u.Path == "" {
		return ""
	}
	whole := u.Path
	if !strings.HasPrefix(whole, "/") {
		whole = strings.Join(l.dir, "/") + "/" + whole
	}
	whole = path.Clean("x/" + whole)
	if whole != "x" && !strings.HasPrefix(whole, "x/") {
		return ""
	}
	var names []string
	for _, n := range strings.Split(whole, "/")[1:] {
		if !isName(n) {
			return ""
		}
		names = append(names, n)
	}
	to := address(l.prefix, names...)
	if u.Fragment != "" {
		to += "#" + anchor(u.Fragment)
	}
	return to
}

// src is what an image of the text may load: a file of the project, or a
// picture that is in the text itself. Other hosts would learn who reads.
func (l links) src(raw string) string {
	raw = strings.TrimSpace(raw)
	if name, ok := strings.CutPrefix(raw, "attachment:"); ok {
		if l.attached == nil {
			return ""
		}
		if plain, err := url.PathUnescape(name); err == nil {
			name = plain
		}
		return l.attached(name)
	}
	if rest, ok := strings.CutPrefix(raw, "data:image/"); ok {
		kind, data, _ := strings.Cut(rest, ";base64,")
		return picture("image/"+kind, data)
	}
	u, err := url.Parse(raw)
	if err != nil || u.Scheme != "" {
		return ""
	}
	u.Fragment, u.RawQuery = "", ""
	if to := l.local(u); to != "" {
		return to + "?raw=1"
	}
	return ""
}

// lineAnchor is the form of the line numbers' addresses, which are ours.
func lineAnchor(s string) bool {
	rest, ok := strings.CutPrefix(s, "L")
	return ok && rest != "" && strings.Trim(rest, "0123456789-L") == ""
}

// anchor is the identity of a place in a page. The text's own get a prefix, so
// that no name in a file can be the name of something of ours.
func anchor(name string) string {
	if lineAnchor(name) {
		return name
	}
	var b strings.Builder
	b.WriteString("s-")
	for _, r := range strings.ToLower(name) {
		switch {
		case r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '_' || r > 0x7f && unicode.IsLetter(r):
			b.WriteRune(r)
		case r == ' ' || r == '-':
			b.WriteByte('-')
		}
		if b.Len() > 120 {
			break
		}
	}
	return b.String()
}
