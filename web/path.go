package web

import (
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"unicode/utf8"
)

// onlyOurs is the form of a path we redirect to: one slash, then a character
// that no browser reads as the start of a host name.
var onlyOurs = regexp.MustCompile(`^/[A-Za-z0-9_]`)

const maxNext = 2048 // bytes

// SafePath returns next as path and query of a page of this site, re-serialised
// from its parsed form, or "/" for anything that a browser could read as another
// place. Go and browsers disagree about URLs (browsers take a back-slash for a
// slash, skip tabs and line ends, and forgive missing slashes), so whatever is
// not plainly a path is refused rather than repaired.
func SafePath(next string) string {
	if len(next) > maxNext || !utf8.ValidString(next) {
		return "/"
	}
	for _, c := range next {
		// Control characters and spaces are dropped by browsers, sometimes after
		// we looked; a back-slash is a slash to them.
		if c <= ' ' || c == 0x7f || c == '\\' || (c >= 0x80 && c < 0xa0) || c == 0xfeff {
			return "/"
		}
	}
	u, err := url.Parse(next)
	if err != nil || u.Scheme != "" || u.Host != "" || u.User != nil || u.Opaque != "" {
		return "/"
	}
	escaped := u.EscapedPath()
	if !onlyOurs.MatchString(escaped) {
		return "/"
	}
	lower := strings.ToLower(escaped)
	for _, bad := range []string{"%2f", "%5c", "%00", "%0a", "%0d", "%09"} {
		if strings.Contains(lower, bad) {
			return "/"
		}
	}
	parts := strings.Split(u.Path, "/")[1:]
	for i, p := range parts {
		if p == "." || p == ".." || p == "" && i != len(parts)-1 {
			return "/"
		}
	}
	if len(parts) > 0 && strings.EqualFold(parts[0], "api") {
		return "/" // never a page
	}
	for i := range len(u.RawQuery) {
		if c := u.RawQuery[i]; c <= ' ' || c >= 0x7f || strings.IndexByte("\"'<>`", c) >= 0 {
			return "/"
		}
	}
	out := url.URL{Path: u.Path, RawPath: u.RawPath, RawQuery: u.RawQuery}
	s := out.String()
	if !onlyOurs.MatchString(s) {
		return "/"
	}
	return s
}

// Next reads the one "next" parameter of a request's query. None, or more than
// one, is "/".
func Next(r *http.Request) string {
	v := r.URL.Query()["next"]
	if len(v) != 1 {
		return "/"
	}
	return SafePath(v[0])
}

// TokenInAddress reports whether a query names a token. Nothing of ours takes
// one there: addresses stay in histories, logs and what people copy.
func TokenInAddress(query string) bool {
	for pair := range strings.FieldsFuncSeq(query, func(r rune) bool { return r == '&' || r == ';' }) {
		name, _, _ := strings.Cut(pair, "=")
		if plain, err := url.QueryUnescape(name); err == nil {
			name = plain
		}
		switch strings.ToLower(name) {
		case "token", "access_token", "jwt":
			return true
		}
	}
	return false
}
