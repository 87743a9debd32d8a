package gateway

import (
	"errors"
	"net/http"
	"net/url"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// hopByHop are header fields of one connection, never of a request or answer
// as a whole (RFC 9110, 7.6.1).
func hopByHop(k string) bool {
	switch k {
	case "Connection", "Keep-Alive", "Te", "Trailer", "Transfer-Encoding", "Upgrade":
		return true
	}
	return len(k) >= 5 && k[:5] == "Proxy" // Proxy-Connection, Proxy-Authorization, Proxy …
}

// toApp reports whether a client's header field (in canonical form) reaches an
// app. What names a person, an address or another target is dropped: we make
// our own. So are credentials, and names with an underscore, which many
// programs take for a hyphen.
func toApp(k string) bool {
	switch k {
	case "Accept", "Accept-Encoding", "Accept-Language", "User-Agent", "Content-Type", "Origin", "Referer",
		"Cache-Control", "Pragma", "If-None-Match", "If-Modified-Since", "Range",
		"Sec-Fetch-Site", "Sec-Fetch-Mode", "Sec-Fetch-Dest":
		return true // the usual ones, decided at once
	case "Host", "Cookie", "Content-Length", "Expect": // written by us
		return false
	case "Authorization", "Forwarded", "Client-Cert", "Client-Cert-Chain",
		"X-Real-Ip", "X-Client-Ip", "X-Cluster-Client-Ip", "True-Client-Ip", "Cf-Connecting-Ip", "Via",
		"X-Original-Url", "X-Original-Uri", "X-Original-Host", "X-Rewrite-Url", "X-Host",
		"X-Http-Method-Override", "X-Http-Method", "X-Method-Override", "X-Arr-Clientcert", "X-User", "X-Username":
		return false
	}
	if hopByHop(k) || strings.IndexByte(k, '_') >= 0 {
		return false
	}
	for _, p := range [...]string{"X-Forwarded", "X-Quire", "Quire-", "Remote-", "X-Remote-", "X-Auth-Request-", "X-Client-Cert", "X-Ssl-", "Ssl-", "X-Webauth-"} {
		if strings.HasPrefix(k, p) {
			return false
		}
	}
	return true
}

// named reports whether the Connection field names k, which makes it hop by
// hop too. What we write ourselves is written after this was asked.
func named(connection []string, k string) bool {
	for _, line := range connection {
		for token := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.Trim(token, " \t"), k) {
				return true
			}
		}
	}
	return false
}

// hasToken reports whether one of the lines lists the token.
func hasToken(lines []string, token string) bool { return named(lines, token) }

// onlyKeepAlive is the usual Connection field, which names nothing.
func onlyKeepAlive(connection []string) bool {
	return len(connection) == 0 || len(connection) == 1 && (connection[0] == "keep-alive" || connection[0] == "close" || connection[0] == "Upgrade")
}

// appendFields appends a client's header fields as the app gets them, the
// filtered cookies among them.
func appendFields(b []byte, in http.Header) []byte {
	connection := in["Connection"]
	plain := onlyKeepAlive(connection)
	for k, lines := range in {
		if !toApp(k) || !plain && named(connection, k) {
			continue
		}
		for _, v := range lines {
			b = append(b, k...)
			b = append(b, ": "...)
			b = append(b, v...)
			b = append(b, "\r\n"...)
		}
	}
	return appendAppCookies(b, in["Cookie"])
}

// fromApp reports whether an app's header field (in canonical form) reaches the
// browser. The fields that are dropped speak to proxies, or to the browser
// about more than one answer of this app.
func fromApp(k string) bool {
	switch k {
	case "Content-Type", "Content-Length", "Date", "Etag", "Server", "Cache-Control", "Last-Modified", "Vary", "Content-Encoding":
		return true // the usual ones, decided at once
	case "Set-Cookie", "Location", "Service-Worker-Allowed", "Access-Control-Allow-Origin", "Access-Control-Allow-Credentials": // looked into
		return false
	case "Set-Cookie2", "X-Sendfile", "X-Lighttpd-Send-File", "Alt-Svc", "Nel", "Report-To", "Reporting-Endpoints", "Clear-Site-Data",
		"Strict-Transport-Security", "Public-Key-Pins", "Public-Key-Pins-Report-Only", "Expect-Ct", "Www-Authenticate":
		return false
	}
	if hopByHop(k) {
		return false
	}
	for _, p := range [...]string{"X-Accel-", "X-Quire", "Quire-"} {
		if strings.HasPrefix(k, p) {
			return false
		}
	}
	return true
}

const maxSetCookies = 100

var (
	errHead      = errors.New("the app's answer has a head that cannot be passed on")
	frameSelf    = []string{"frame-ancestors 'self'"}
	noStore      = []string{"no-store"}
	revalidate   = []string{"private, no-cache"}
	errElsewhere = errors.New("the app redirects to another site")
)

// answerHeader copies an app's header fields to the browser's answer.
// errElsewhere means that it is a redirect off the app's own origin, which the
// caller puts before the person.
func (s *site) answerHeader(out, in http.Header, appName string) error {
	if connection := in["Connection"]; onlyKeepAlive(connection) {
		for k, v := range in {
			if fromApp(k) {
				out[k] = v
			}
		}
	} else {
		for k, v := range in {
			if fromApp(k) && !named(connection, k) {
				out[k] = v
			}
		}
	}
	// A second policy can only narrow the app's own.
	if csp := in["Content-Security-Policy"]; len(csp) > 0 {
		out["Content-Security-Policy"] = append(csp[:len(csp):len(csp)], frameSelf...)
	} else {
		out["Content-Security-Policy"] = frameSelf
	}
	if len(in["Cache-Control"]) == 0 && len(in["Expires"]) == 0 {
		// A validator lets the browser keep what it must ask about each time.
		if len(in["Etag"]) > 0 || len(in["Last-Modified"]) > 0 {
			out["Cache-Control"] = revalidate
		} else {
			out["Cache-Control"] = noStore
		}
	}
	if cookies := in["Set-Cookie"]; len(cookies) > 0 {
		if len(cookies) > maxSetCookies {
			return errHead
		}
		for _, line := range cookies {
			if c := appSetCookie(line, s.prefix); c != "" {
				out["Set-Cookie"] = append(out["Set-Cookie"], c)
			}
		}
	}
	if v := in["Service-Worker-Allowed"]; len(v) == 1 && strings.HasPrefix(v[0], s.prefix+"/"+appName+"/") && !strings.Contains(v[0], "..") {
		out["Service-Worker-Allowed"] = v
	}
	if v := in["Access-Control-Allow-Origin"]; len(v) == 1 && v[0] == s.origin {
		out["Access-Control-Allow-Origin"] = v
		if c := in["Access-Control-Allow-Credentials"]; len(c) > 0 {
			out["Access-Control-Allow-Credentials"] = c
		}
	}
	if v := in["Location"]; len(v) > 0 {
		if len(v) > 1 {
			return errHead
		}
		out["Location"] = v
		if !s.within(v[0]) {
			return errElsewhere
		}
	}
	return nil
}

// within reports whether a Location, as browsers read it, stays on the site's
// origin.
func (s *site) within(location string) bool {
	clean := strings.Map(func(r rune) rune {
		switch {
		case r == '\\':
			return '/' // browsers take it for a slash
		case r == '\t' || r == '\n' || r == '\r':
			return -1 // browsers skip them
		}
		return r
	}, strings.TrimLeft(location, " \x00\x1f"))
	if !httpguts.ValidHeaderFieldValue(location) || strings.IndexFunc(clean, func(r rune) bool { return r < ' ' }) >= 0 {
		return false
	}
	u, err := url.Parse(clean)
	if err != nil {
		return false
	}
	if u.Scheme == "" && u.Host == "" {
		return !strings.HasPrefix(clean, "//") && u.Opaque == ""
	}
	if strings.HasPrefix(clean, "//") {
		scheme, _, _ := strings.Cut(s.origin, ":")
		u.Scheme = scheme
	}
	return u.User == nil && u.Opaque == "" && strings.EqualFold(u.Scheme+"://"+u.Host, s.origin)
}
