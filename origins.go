package quire

import (
	"net"
	"net/url"
	"strconv"
	"strings"
)

// Origins is how a site addresses its portal and its apps. It is chosen once,
// from the configuration, and hides which way was chosen:
//
//   - wildcard: every (user, project) has a browser origin of its own,
//     http://LABEL.apps.localhost:8089 or https://LABEL.apps.example.org;
//   - shared: one origin for all apps, http://host:8089/LABEL/…, for sites
//     without wildcard names; for trusted users only.
type Origins interface {
	// Portal is the portal's canonical origin, without a trailing slash.
	Portal() string
	// App is the URL of a path (starting with "/") below an app's prefix.
	App(label Label, app, path string) string
	// Origin is the browser origin that serves the label.
	Origin(label Label) string
	// Prefix is the path below which the label lives: "" or "/LABEL".
	Prefix(label Label) string
	// Label reads the label off a request's host and path.
	Label(host, path string) (Label, bool)
	// Cookie is the name and path of the cookie of a purpose ("app", "nonce",
	// "login", "write") and whether it may be Secure. The label is empty for the
	// portal's own cookies.
	Cookie(purpose string, label Label) (name, path string, secure bool)
	// Frames is the CSP source that matches every app origin.
	FormTargets() string
	// PortalHost decides what to do with a request's Host on the portal: serve
	// it, send a GET to the canonical origin, or refuse it.
	PortalHost(host string) HostAnswer
	// Shared reports whether apps share one origin. Only pages that must tell
	// people so may ask.
	Shared() bool
}

type HostAnswer int

const (
	HostRefuse HostAnswer = iota // 421
	HostServe
	HostRedirect
)

// OriginConfig is what a site sets.
type OriginConfig struct {
	Portal  string   // "http://quire.localhost:8080"
	Apps    string   // "http://*.apps.localhost:8089" or, shared, "http://host:8089"
	Aliases []string // other host names of the portal, without port
}

// NewOrigins reads the mode off the apps address: a star is a wildcard.
func NewOrigins(c OriginConfig) (Origins, error) {
	portal, err := parseOrigin(c.Portal)
	if err != nil {
		return nil, Invalid("portal", "The portal's address must be like https://quire.example.org: "+err.Error())
	}
	apps, err := parseOrigin(strings.Replace(c.Apps, "//*.", "//star.", 1))
	if err != nil {
		return nil, Invalid("apps", "The apps' address must be like https://*.apps.example.org: "+err.Error())
	}
	site := site{portal: portal, apps: apps, aliases: map[string]bool{portal.Hostname(): true}}
	for _, a := range append(c.Aliases, "quire.localhost", "localhost", "127.0.0.1", "::1") {
		site.aliases[strings.ToLower(a)] = true
	}
	if !strings.Contains(c.Apps, "//*.") {
		return shared{site}, nil
	}
	site.suffix = strings.TrimPrefix(apps.Host, "star")
	return wildcard{site}, nil
}

func parseOrigin(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil {
		return nil, err
	}
	if (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "" || (u.Path != "" && u.Path != "/") || strings.ContainsAny(s, "?#*") || u.User != nil {
		return nil, Invalid("", "it needs a scheme and a host and nothing else")
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return nil, Invalid("", "its port is not a number from 1 to 65535")
		}
	}
	// Browsers leave the default port out of Host and Origin; so do we.
	u.Host = strings.ToLower(strings.TrimSuffix(u.Host, map[string]string{"http": ":80", "https": ":443"}[u.Scheme]))
	u.Path = ""
	return u, nil
}

// SameSiteOrTLS reports whether a browser can be handed over from the portal to
// apps (a FormTargets). The cookie that binds the hand-over to the browser is
// Secure and SameSite=None on https and localhost names; elsewhere it is Lax, and
// then both must be one site: the same host, or names with the same last two
// labels. A real list of registries would be stricter for a few countries.
func SameSiteOrTLS(portal, apps string) bool {
	p, err1 := parseOrigin(portal)
	a, err2 := parseOrigin(strings.Replace(apps, "//*.", "//star.", 1))
	if err1 != nil || err2 != nil {
		return false
	}
	if trustworthy(a) {
		return true
	}
	end := func(u *url.URL) string {
		labels := strings.Split(u.Hostname(), ".")
		if net.ParseIP(u.Hostname()) != nil || len(labels) < 2 {
			return u.Hostname()
		}
		return strings.Join(labels[len(labels)-2:], ".")
	}
	return end(p) == end(a) && p.Scheme == a.Scheme
}

type site struct {
	portal, apps *url.URL
	suffix       string // ".apps.localhost:8089"
	aliases      map[string]bool
}

func (s site) Portal() string { return s.portal.String() }

// trustworthy reports whether browsers accept Secure and __Host- cookies from
// the origin: TLS, or a name under localhost.
func trustworthy(u *url.URL) bool {
	h := u.Hostname()
	return u.Scheme == "https" || h == "localhost" || strings.HasSuffix(h, ".localhost")
}

// Exposed reports whether what people send to an origin, passwords among it, can
// be read on its way.
func Exposed(origin string) bool {
	u, err := url.Parse(origin)
	if err != nil || u.Scheme != "http" {
		return false
	}
	return !trustworthy(u) && !net.ParseIP(u.Hostname()).IsLoopback()
}

func (s site) portalCookie(purpose string) (string, string, bool) {
	if trustworthy(s.portal) {
		return "__Host-quire_" + purpose, "/", true
	}
	return "quire_" + purpose, "/", false
}

func (s site) PortalHost(host string) HostAnswer {
	host = strings.ToLower(host)
	if host == s.portal.Host {
		return HostServe
	}
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	if s.aliases[strings.Trim(name, "[]")] {
		return HostRedirect
	}
	return HostRefuse
}

type wildcard struct{ site }

func (w wildcard) Shared() bool              { return false }
func (w wildcard) Prefix(Label) string       { return "" }
func (w wildcard) Origin(label Label) string { return w.apps.Scheme + "://" + string(label) + w.suffix }
func (w wildcard) App(label Label, app, path string) string {
	return w.Origin(label) + "/" + app + path
}
func (w wildcard) Label(host, path string) (Label, bool) {
	name, ok := strings.CutSuffix(host, w.suffix)
	return Label(name), ok && Label(name).Valid()
}
func (w wildcard) Cookie(purpose string, label Label) (string, string, bool) {
	if label == "" {
		return w.portalCookie(purpose)
	}
	if trustworthy(w.apps) {
		return "__Host-quire_" + purpose, "/", true
	}
	return "quire_" + purpose, "/", false
}
func (w wildcard) FormTargets() string { return w.apps.Scheme + "://*" + w.suffix }

type shared struct{ site }

func (s shared) Shared() bool              { return true }
func (s shared) Prefix(label Label) string { return "/" + string(label) }
func (s shared) Origin(Label) string       { return s.apps.String() }
func (s shared) App(label Label, app, path string) string {
	return s.apps.String() + "/" + string(label) + "/" + app + path
}
func (s shared) Label(host, path string) (Label, bool) {
	if strings.ToLower(host) != s.apps.Host {
		return "", false
	}
	first, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	return Label(first), Label(first).Valid()
}
func (s shared) Cookie(purpose string, label Label) (string, string, bool) {
	if label == "" {
		return s.portalCookie(purpose)
	}
	// A path keeps one label's cookie from the others' requests; it is no
	// protection against script on the same origin, which is what the label
	// "trusted users only" says.
	return "quire_" + purpose + "_" + string(label), "/" + string(label) + "/", trustworthy(s.apps)
}
func (s shared) FormTargets() string { return s.apps.String() }
