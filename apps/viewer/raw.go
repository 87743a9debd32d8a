package viewer

import (
	"bytes"
	"io"
	"mime"
	"net/http"
	"net/url"
	"os"
	"path"
	"strings"
)

// rawPolicy goes with every raw file: no origin, no script, nothing loaded.
const rawPolicy = "sandbox; default-src 'none'"

func imageType(name string) string {
	switch strings.ToLower(path.Ext(name)) {
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
	case ".svg":
		return "image/svg+xml"
	}
	return ""
}

func soundType(name string) string {
	switch strings.ToLower(path.Ext(name)) {
	case ".mp3":
		return "audio/mpeg"
	case ".ogg", ".oga":
		return "audio/ogg"
	case ".wav":
		return "audio/wav"
	case ".flac":
		return "audio/flac"
	case ".mp4", ".m4v":
		return "video/mp4"
	case ".webm":
		return "video/webm"
	}
	return ""
}

// active reports whether a browser would do something with such a file beyond
// showing it, by its name or by its beginning.
func active(name string, head []byte) bool {
	switch strings.ToLower(path.Ext(name)) {
	case ".html", ".htm", ".xhtml", ".xht", ".shtml", ".mhtml", ".mht", ".hta", ".svg", ".svgz", ".xml", ".xsl", ".xslt", ".rdf", ".rss", ".atom", ".mathml",
		".js", ".mjs", ".cjs", ".wasm", ".swf", ".pdf", ".css", ".webmanifest", ".manifest", ".appcache", ".jar", ".htc", ".eml", ".url", ".desktop":
		return true
	}
	kind, _, _ := strings.Cut(http.DetectContentType(head), ";")
	if kind == "text/html" || kind == "text/xml" || kind == "application/pdf" || kind == "application/wasm" || bytes.HasPrefix(head, []byte("\x00asm")) {
		return true
	}
	// Browsers find markup further down than the standard's table of beginnings.
	low := bytes.ToLower(head)
	for _, mark := range []string{"<html", "<script", "<svg", "<!doctype", "<?xml", "<iframe", "<body", "<math", "<object", "<embed"} {
		if bytes.Contains(low, []byte(mark)) && path.Ext(name) == "" {
			return true
		}
	}
	return false
}

// serveRaw sends a file as it is. Only pictures, sound and plain text are for
// showing; whatever could be active is to be saved, and never sent as HTML.
func serveRaw(w http.ResponseWriter, r *http.Request, f *os.File, name string, save bool) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	head := make([]byte, 8192)
	n, err := f.ReadAt(head, 0)
	if err != nil && err != io.EOF {
		return err
	}
	head = head[:n]
	kind := "application/octet-stream"
	switch {
	case imageType(name) != "":
		kind = imageType(name)
	case soundType(name) != "":
		kind = soundType(name)
	case isText(head):
		kind = "text/plain; charset=utf-8"
	default:
		save = true
	}
	if active(name, head) {
		save = true
	}
	h := w.Header()
	h.Set("Content-Type", kind)
	h.Set("Content-Security-Policy", rawPolicy)
	h.Set("Content-Disposition", disposition(save, name))
	h.Set("Cache-Control", "private, no-cache")
	http.ServeContent(w, r, "", info.ModTime(), f)
	return nil
}

// disposition names the file for saving, in a form that no byte of a name can
// leave.
func disposition(save bool, name string) string {
	how := "inline"
	if save {
		how = "attachment"
	}
	plain := strings.Map(func(c rune) rune {
		if c < 0x20 || c > 0x7e || strings.ContainsRune(`"\%;/`, c) {
			return '_'
		}
		return c
	}, name)
	value := mime.FormatMediaType(how, map[string]string{"filename": plain})
	if value == "" {
		return how
	}
	if plain != name {
		value += "; filename*=UTF-8''" + strings.ReplaceAll(url.QueryEscape(strings.ToValidUTF8(name, "_")), "+", "%20")
	}
	return value
}
