package apps

import (
	"io"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"
)

// ServeFile sends a person's file as it is, also in parts. What is in files is
// other people's: a browser shows from here only what runs nothing, and saves
// the rest. download has it save everything.
func ServeFile(w http.ResponseWriter, r *http.Request, name string, modified time.Time, content io.ReadSeeker, download bool) {
	h := w.Header()
	h.Set("Content-Security-Policy", "sandbox; default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
	kind := passive(path.Ext(name))
	disposition := "inline"
	switch {
	case kind == "application/pdf":
		// The browser's viewer does not start in a sandbox. It runs nothing of the
		// document's in our origin, and nosniff keeps the bytes from being a page.
		h.Set("Content-Security-Policy", "default-src 'none'; script-src 'none'; object-src 'self'; style-src 'unsafe-inline'; frame-ancestors 'self'")
	case strings.EqualFold(path.Ext(name), ".svg"):
		// As a picture in a page it runs nothing; as a page of its own it could.
		kind, disposition = "image/svg+xml", "attachment"
	case kind == "":
		kind, disposition = "application/octet-stream", "attachment"
	}
	if download {
		disposition = "attachment"
	}
	h.Set("Content-Type", kind)
	h.Set("Content-Disposition", Disposition(disposition, name))
	http.ServeContent(w, r, "", modified, content)
}

// passive are the types that a browser may show from an app. Everything else is
// only ever saved to the person's disk.
func passive(ext string) string {
	switch strings.ToLower(ext) {
	case ".png":
		return "image/png"
	case ".jpg", ".jpeg":
		return "image/jpeg"
	case ".gif":
		return "image/gif"
	case ".webp":
		return "image/webp"
	case ".avif":
		return "image/avif"
	case ".bmp":
		return "image/bmp"
	case ".ico":
		return "image/x-icon"
	case ".pdf":
		return "application/pdf"
	}
	return ""
}

// Disposition names a file for the browser to save. RFC 6266 takes UTF-8 only,
// and what turns writing around would show a name as another.
func Disposition(how, name string) string {
	name = strings.Map(func(r rune) rune {
		switch {
		case r < 0x20 || r == 0x7f || r == '/' || r == '\\':
			return '_'
		case r >= 0x202A && r <= 0x202E, r >= 0x2066 && r <= 0x2069, r == 0x200E, r == 0x200F:
			return -1
		}
		return r
	}, strings.ToValidUTF8(name, "_"))
	return how + "; filename*=UTF-8''" + strings.ReplaceAll(url.QueryEscape(name), "+", "%20")
}
