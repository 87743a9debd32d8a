package gateway

import (
	"net/http"
	"strings"
)

// ownPage decides whether a request that carries our cookie may be answered,
// by where the browser says it comes from. Labels under one domain are one
// "site" to a browser, so a Lax cookie comes along when a page of one label
// calls another; only the origin tells them apart:
//
//   - Sec-Fetch-Site same-origin or none passes; anything else only as a
//     top-level GET navigation, which is a person following a link;
//   - without that header, Origin must be ours on everything but GET, and on
//     every upgrade;
//   - an Origin that is there and is not ours contradicts same-origin.
func (s *site) ownPage(r *http.Request, upgrade bool) bool {
	h := r.Header
	origin, from := h["Origin"], h["Sec-Fetch-Site"]
	if len(origin) > 1 || len(from) > 1 {
		return false
	}
	same := len(origin) == 1 && origin[0] == s.origin
	if upgrade && !same {
		return false
	}
	if len(from) == 0 {
		return same || r.Method == http.MethodGet && len(origin) == 0
	}
	switch from[0] {
	case "same-origin", "none":
		return same || len(origin) == 0
	}
	return !upgrade && r.Method == http.MethodGet && navigation(h)
}

// navigation reports whether the request fetches a document for a tab of its
// own. An iframe is not one.
func navigation(h http.Header) bool {
	return one(h, "Sec-Fetch-Mode") == "navigate" && one(h, "Sec-Fetch-Dest") == "document"
}

// one is the value of a field that came exactly once.
func one(h http.Header, k string) string {
	if v := h[k]; len(v) == 1 {
		return v[0]
	}
	return ""
}

// websocketUpgrade says whether the request asks for an upgrade we know: yes,
// no, or in a way that is refused.
func websocketUpgrade(r *http.Request) (yes, bad bool) {
	up := r.Header["Upgrade"]
	if len(up) == 0 {
		return false, false
	}
	var ours bool
	for _, v := range up {
		ours = ours || hasToken([]string{v}, "websocket")
	}
	if !ours {
		return false, false // dropped with the other hop-by-hop fields: an ordinary request
	}
	ok := len(up) == 1 && strings.EqualFold(up[0], "websocket") && hasToken(r.Header["Connection"], "upgrade") &&
		r.Method == http.MethodGet && r.ProtoMajor == 1 && r.ProtoMinor == 1 && r.ContentLength == 0 && len(r.TransferEncoding) == 0 &&
		validKey(r.Header["Sec-Websocket-Key"])
	return ok, !ok
}
