package gateway

import (
	"net/http"
	"net/textproto"
	"strings"
)

// This file reads the plainest heads of HTTP/1.1 itself: those that every
// parser reads alike. Whatever is unusual in any way is not refused here but
// left to net/http, so there is one judge of odd input and two ways for the
// rest. A fuzz test holds the two against each other.

const maxFields = 64

// A head is reused from message to message; the strings in it are parts of one
// string per message.
type head struct {
	fields http.Header
	values [maxFields]string
}

func (h *head) reset() {
	if h.fields == nil {
		h.fields = make(http.Header, 16)
	}
	clear(h.fields)
	clear(h.values[:])
}

// isToken are the bytes of a field's name that we take ourselves: no
// underscore, dot or the like.
func isToken(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-'
}

// parse reads "Name: value CRLF" lines up to the end of s.
func (h *head) parse(s string) bool {
	h.reset()
	for n := 0; s != ""; n++ {
		if n == maxFields {
			return false
		}
		i := 0
		for i < len(s) && isToken(s[i]) {
			i++
		}
		if i == 0 || i == len(s) || s[i] != ':' {
			return false
		}
		name := s[:i]
		s = s[i+1:]
		end := strings.IndexByte(s, '\r')
		if end < 0 || end+1 >= len(s) || s[end+1] != '\n' {
			return false
		}
		value := s[:end]
		s = s[end+2:]
		for i := 0; i < len(value); i++ {
			if c := value[i]; c < ' ' || c >= 0x7f {
				return false
			}
		}
		for value != "" && value[0] == ' ' {
			value = value[1:]
		}
		for value != "" && value[len(value)-1] == ' ' {
			value = value[:len(value)-1]
		}
		name = textproto.CanonicalMIMEHeaderKey(name)
		h.values[n] = value
		if old := h.fields[name]; old != nil {
			h.fields[name] = append(old, value)
		} else {
			h.fields[name] = h.values[n : n+1 : n+1]
		}
	}
	return true
}

// parseRequest reads a GET or HEAD without a body that is complete in s and
// has nothing behind it.
func (h *head) parseRequest(s string, r *http.Request) bool {
	rest, ok := strings.CutPrefix(s, "GET ")
	method := http.MethodGet
	if !ok {
		if rest, ok = strings.CutPrefix(s, "HEAD "); !ok {
			return false
		}
		method = http.MethodHead
	}
	if !strings.HasSuffix(rest, "\r\n\r\n") {
		return false
	}
	uri, rest, ok := strings.Cut(rest, " ")
	if !ok || uri == "" || uri[0] != '/' {
		return false
	}
	for i := 0; i < len(uri); i++ {
		switch c := uri[i]; {
		case c <= ' ', c >= 0x7f, c == '%', c == '#', c == '\\', c == '"', c == '<', c == '>':
			return false // '%' would need decoding
		}
	}
	rest, ok = strings.CutPrefix(rest, "HTTP/1.1\r\n")
	if !ok || !h.parse(rest[:len(rest)-2]) {
		return false
	}
	f := h.fields
	host := f["Host"]
	if len(host) != 1 || !plainHost(host[0]) {
		return false
	}
	if c := f["Connection"]; len(c) > 1 || len(c) == 1 && !strings.EqualFold(c[0], "keep-alive") {
		return false
	}
	for _, k := range [...]string{"Content-Length", "Transfer-Encoding", "Upgrade", "Expect", "Te", "Trailer", "Http2-Settings"} {
		if _, there := f[k]; there {
			return false
		}
	}
	r.Method, r.RequestURI, r.Host, r.Header = method, uri, host[0], f
	delete(f, "Host")
	return true
}

func plainHost(h string) bool {
	for i := 0; i < len(h); i++ {
		if c := h[i]; !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '.' || c == ':') {
			return false
		}
	}
	return h != ""
}

// parseReply reads a final answer whose body has a stated length.
func (h *head) parseReply(s string, r *reply) bool {
	rest, ok := strings.CutPrefix(s, "HTTP/1.1 ")
	if !ok || len(rest) < 4 || rest[3] != ' ' {
		return false
	}
	status := 0
	for _, c := range []byte(rest[:3]) {
		if c < '0' || c > '9' {
			return false
		}
		status = status*10 + int(c-'0')
	}
	reason, fields, ok := strings.Cut(rest[4:], "\r\n")
	if !ok || status < 200 || strings.ContainsAny(reason, "\r\n\x00") || !h.parse(fields) {
		return false
	}
	f := h.fields
	if _, there := f["Transfer-Encoding"]; there {
		return false
	}
	r.close = false
	if c := f["Connection"]; len(c) > 1 {
		return false
	} else if len(c) == 1 {
		switch {
		case strings.EqualFold(c[0], "close"):
			r.close = true
		case !strings.EqualFold(c[0], "keep-alive"):
			return false
		}
	}
	r.status, r.header, r.body = status, f, nil
	length := f["Content-Length"]
	bodiless := status == http.StatusNoContent || status == http.StatusNotModified
	if len(length) == 0 && bodiless {
		r.length = 0
		return true
	}
	if len(length) != 1 {
		return false
	}
	if r.length, ok = decimal(length[0]); bodiless {
		r.length = 0
	}
	return ok
}

// decimal reads a length as RFC 9110 writes it, digits alone.
func decimal(s string) (int64, bool) {
	if s == "" || len(s) > 15 {
		return 0, false
	}
	var n int64
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		n = n*10 + int64(s[i]-'0')
	}
	return n, true
}
