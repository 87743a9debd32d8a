package web

import (
	"net/http"
	"strings"
)

// Wants says what kind of answer a request can use:
//
//	"socket"  a WebSocket or other upgrade
//	"page"    a document a person looks at
//	"asset"   a script, style, image or font of a page
//	"api"     everything else: fetch, XMLHttpRequest, curl
//
// The browser's own word (Sec-Fetch-Dest) comes first, because it cannot be
// set by script; Accept is the fallback where that header is absent.
func Wants(r *http.Request) string {
	if r.Header.Get("Upgrade") != "" {
		return "socket"
	}
	switch r.Header.Get("Sec-Fetch-Dest") {
	case "document", "iframe", "frame", "embed", "object", "fencedframe":
		return "page"
	case "websocket":
		return "socket"
	case "empty", "report", "json", "webidentity":
		return "api"
	case "":
	default:
		return "asset"
	}
	accept := r.Header.Get("Accept")
	switch {
	case strings.Contains(accept, "text/html"):
		return "page"
	case strings.HasPrefix(accept, "image/"), strings.HasPrefix(accept, "text/css"), strings.HasPrefix(accept, "font/"):
		return "asset"
	}
	return "api"
}
