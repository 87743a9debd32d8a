package gateway

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"quire"
)

const (
	maxCookies = 100
	nonceLife  = 600 // seconds
)

// A cookie of ours on one site.
type cookie struct {
	name, path string
	secure     bool
}

func (c cookie) set(value string, maxAge int, sameSite string) string {
	b := c.name + "=" + value + "; Path=" + c.path + "; HttpOnly; SameSite=" + sameSite
	if c.secure {
		b += "; Secure"
	}
	if maxAge != 0 {
		b += "; Max-Age=" + strconv.Itoa(maxAge)
	}
	return b
}

func (c cookie) clear() string { return c.set("", -1, "Lax") }

// nonceSite is the nonce's SameSite: the ticket arrives by a POST from the
// portal's site, on which only None is sent; without Secure there is no None.
func (c cookie) nonceSite() string {
	if c.secure {
		return "None"
	}
	return "Lax"
}

// reserved reports whether a cookie's name is one of the platform's. Apps
// neither see nor set those. The comparison ignores case, because somebody's
// parser might.
func reserved(name string) bool {
	for _, p := range [...]string{"__host-", "__secure-"} {
		if len(name) >= len(p) && strings.EqualFold(name[:len(p)], p) {
			name = name[len(p):]
		}
	}
	const ours = "quire_"
	return len(name) >= len(ours) && strings.EqualFold(name[:len(ours)], ours)
}

// own is what a request's cookies say to us.
type own struct {
	app, nonce   string
	apps, nonces int  // how often the name came
	any          bool // some cookie of the platform was there
	total        int
}

// eachCookie calls f with every pair of the request's Cookie lines. The name
// has no white space around it; a pair without a name has name "".
func eachCookie(lines []string, f func(name, pair string)) {
	for _, line := range lines {
		for line != "" {
			var pair string
			pair, line, _ = strings.Cut(line, ";")
			pair = strings.Trim(pair, " \t")
			if pair == "" {
				continue
			}
			name, _, _ := strings.Cut(pair, "=")
			f(strings.Trim(name, " \t"), pair)
		}
	}
}

func (s *site) own(lines []string) (o own) {
	for _, line := range lines {
		for line != "" {
			var pair string
			pair, line, _ = strings.Cut(line, ";")
			pair = strings.Trim(pair, " \t")
			if pair == "" {
				continue
			}
			o.total++
			name, value, _ := strings.Cut(pair, "=")
			name = strings.Trim(name, " \t")
			switch name {
			case s.app.name:
				o.app, o.any = strings.Trim(value, " \t"), true
				o.apps++
			case s.nonce.name:
				o.nonce, o.any = strings.Trim(value, " \t"), true
				o.nonces++
			default:
				o.any = o.any || reserved(name)
			}
		}
	}
	return o
}

// appendAppCookies appends the Cookie header line that the app gets: everything
// but the platform's cookies and pairs without a name.
func appendAppCookies(b []byte, lines []string) []byte {
	start := len(b)
	eachCookie(lines, func(name, pair string) {
		if name == "" || reserved(name) {
			return
		}
		if len(b) == start {
			b = append(b, "Cookie: "...)
		} else {
			b = append(b, "; "...)
		}
		b = append(b, pair...)
	})
	if len(b) > start {
		b = append(b, "\r\n"...)
	}
	return b
}

// appSetCookie is what becomes of a Set-Cookie of an app, or "" when nothing:
// reserved names are dropped, Domain is removed so that it stays on its origin,
// and on an origin with several labels the path stays below the app's own.
func appSetCookie(line, prefix string) string {
	pair, attrs, _ := strings.Cut(line, ";")
	name, _, ok := strings.Cut(pair, "=")
	name = strings.Trim(name, " \t")
	if !ok || name == "" || reserved(name) || strings.ContainsAny(line, "\r\n\x00") {
		return ""
	}
	var b strings.Builder
	b.WriteString(strings.Trim(pair, " \t"))
	path := ""
	for attr := range strings.SplitSeq(attrs, ";") {
		attr = strings.Trim(attr, " \t")
		key, value, _ := strings.Cut(attr, "=")
		key, value = strings.Trim(key, " \t"), strings.Trim(value, " \t")
		switch {
		case attr == "", strings.EqualFold(key, "Domain"):
		case strings.EqualFold(key, "Path") && prefix != "":
			path = value
		default:
			b.WriteString("; ")
			b.WriteString(attr)
		}
	}
	if prefix != "" {
		if path != prefix && !strings.HasPrefix(path, prefix+"/") {
			path = prefix + "/"
		}
		b.WriteString("; Path=" + path)
	}
	return b.String()
}

// A sealer makes what only this gateway can open, for one purpose.
type sealer struct {
	aead    cipher.AEAD
	node    quire.NodeID
	purpose string
}

func newSealer(key []byte, node quire.NodeID, purpose string) (*sealer, error) {
	if len(key) != 32 {
		return nil, errors.New("gateway: CookieKey must have 32 bytes")
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(block)
	return &sealer{aead: aead, node: node, purpose: purpose}, err
}

var cookieEncoding = base64.RawURLEncoding.Strict()

func (s *sealer) binding(label quire.Label) []byte {
	return []byte(s.purpose + " " + string(s.node) + " " + string(label))
}

// close seals a grant for one label.
func (s *sealer) close(grant []byte, label quire.Label) string {
	b := make([]byte, s.aead.NonceSize(), s.aead.NonceSize()+len(grant)+s.aead.Overhead())
	rand.Read(b)
	return cookieEncoding.EncodeToString(s.aead.Seal(b, b, grant, s.binding(label)))
}

var errCookie = errors.New("not a cookie of ours")

// open returns the grant that close sealed for the same label.
func (s *sealer) open(value string, label quire.Label) ([]byte, error) {
	if len(value) > 4096 {
		return nil, errCookie
	}
	b, err := cookieEncoding.DecodeString(value)
	if err != nil || len(b) < s.aead.NonceSize() {
		return nil, errCookie
	}
	n := s.aead.NonceSize()
	grant, err := s.aead.Open(nil, b[:n], b[n:], s.binding(label))
	if err != nil {
		return nil, errCookie
	}
	return grant, nil
}

func addCookie(w http.ResponseWriter, line string) { w.Header().Add("Set-Cookie", line) }
