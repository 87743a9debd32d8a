package apps

import (
	"net/http"
	"net/url"
	"strings"

	"quire"
)

// OwnPage refuses every request that a page of another origin makes. The gateway
// checks the same; a person's files and kernels are worth two locks. Links to an
// app's pages may be followed from anywhere, to what is below api/ never.
func OwnPage(r *http.Request, app string) error {
	refused := quire.Forbidden(app + " can be used from its own page only.")
	switch r.Header.Get("Sec-Fetch-Site") {
	case "cross-site", "same-site":
		if r.Method != http.MethodGet || r.Header.Get("Sec-Fetch-Mode") != "navigate" || strings.Contains(r.URL.Path, "/api/") {
			return refused
		}
	}
	if (r.Method == http.MethodGet || r.Method == http.MethodHead) && r.Header.Get("Upgrade") == "" {
		return nil
	}
	// RFC 6454: the origin of what asks, which scripts cannot set.
	origins := r.Header.Values("Origin")
	if len(origins) == 1 {
		u, err := url.Parse(origins[0])
		if err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host == r.Host && origins[0] == u.Scheme+"://"+u.Host {
			return nil
		}
	}
	return refused
}
