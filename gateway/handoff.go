package gateway

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"quire"
)

const maxForm = 16 << 10

var nonceForm = regexp.MustCompile(`^[a-z2-7]{52}$`)

// toPortal sends a person to the portal, which knows who they are, to come back
// with a ticket. The nonce ties the ticket to this browser; one that is already
// there is kept, so that several tabs can be on their way at once.
func (v *visit) toPortal() {
	s := v.site
	nonce := v.own.nonce
	if !nonceForm.MatchString(nonce) {
		nonce = quire.NewSecret()
	}
	sum := sha256.Sum256([]byte(nonce))
	q := url.Values{"label": {string(s.label)}, "nonce": {hex.EncodeToString(sum[:])}, "path": {v.wanted()}}
	h := v.w.Header()
	addCookie(v.w, s.nonce.set(nonce, nonceLife, s.nonce.nonceSite()))
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Location", v.g.portal+"/authorize?"+q.Encode())
	v.w.WriteHeader(http.StatusSeeOther)
}

// wanted is the app's address a person is on their way to: the one in the
// frame, if they asked for the frame.
func (v *visit) wanted() string {
	p := v.r.RequestURI[len(v.site.prefix):]
	if strings.HasPrefix(p, "/"+ours+"/") {
		p = v.r.URL.Query().Get("path")
	}
	if clean, ok := appPath(p); ok {
		return clean
	}
	return "/"
}

var appPathForm = regexp.MustCompile(`^/[a-z][a-z0-9-]{0,31}(/|\?|$)`)

// appPath accepts the address of a page inside an app, /APP/…, without the
// site's prefix, and writes it anew so that it means one thing only.
func appPath(p string) (string, bool) {
	if len(p) > 4096 || !appPathForm.MatchString(p) || strings.ContainsFunc(p, func(r rune) bool { return r <= ' ' || r == '\\' || r == 0x7f || r == '#' }) {
		return "", false
	}
	u, err := url.ParseRequestURI(p)
	if err != nil || u.Host != "" || u.Scheme != "" || u.User != nil || strings.Contains(u.EscapedPath(), "//") {
		return "", false
	}
	for seg := range strings.SplitSeq(u.Path, "/") {
		if seg == ".." || seg == "." {
			return "", false
		}
	}
	clean := u.EscapedPath()
	if u.RawQuery != "" {
		clean += "?" + u.RawQuery
	}
	return clean, true
}

// frameAddress is where a person lands: the app with the bar above it.
func (s *site) frameAddress(path string) string {
	return s.prefix + "/" + ours + "/frame?path=" + url.QueryEscape(path)
}

// receive takes the ticket that the portal's form posts. It is a request from
// another site by design; what protects it is the nonce inside the ticket,
// which only the browser that asked for it has.
func (v *visit) receive() {
	g, s, r := v.g, v.site, v.r
	if r.Method != http.MethodPost {
		v.w.Header().Set("Allow", "POST")
		g.plain(v.w, http.StatusMethodNotAllowed, "Sign-in arrives here by a form.")
		return
	}
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/x-www-form-urlencoded" {
		g.plain(v.w, http.StatusUnsupportedMediaType, "Sign-in arrives here by a form.")
		return
	}
	r.Body = http.MaxBytesReader(v.w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil || len(r.PostForm["ticket"]) != 1 || len(r.PostForm["path"]) > 1 {
		g.plain(v.w, http.StatusBadRequest, "This form cannot be read.")
		return
	}
	path, ok := appPath(r.PostForm.Get("path"))
	if !ok {
		path = "/"
	}
	cookie, err := v.redeem(r.PostForm.Get("ticket"))
	if err != nil {
		g.log.Info("hand-off refused", "label", s.label, "error", err)
		v.page(http.StatusForbidden, message{
			Kind: "signin", Title: "Sign-in did not arrive", Text: "The sign-in for this app was too old, was used before, or belongs to another browser.",
			Again: s.prefix + path,
		})
		return
	}
	h := v.w.Header()
	addCookie(v.w, cookie)
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer")
	to := s.prefix + path
	if path != "/" {
		to = s.frameAddress(path)
	}
	h.Set("Location", to)
	v.w.WriteHeader(http.StatusSeeOther)
}

// redeem verifies a ticket and returns the cookie that it gives.
func (v *visit) redeem(text string) (string, error) {
	g, s := v.g, v.site
	raw, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil {
		return "", err
	}
	nonce := v.own.nonce
	if !nonceForm.MatchString(nonce) {
		return "", errNoGrant
	}
	t, err := g.cfg.Verifier.Ticket(raw, g.cfg.Node, s.label, nonce, g.now())
	if err != nil {
		return "", err
	}
	grant, err := g.cfg.Verifier.Grant(t.Grant)
	if err != nil {
		return "", err
	}
	if grant.Gateway != g.cfg.Node || grant.Label != s.label {
		return "", errNoGrant
	}
	if err := g.use(t, grant.Subject(), grant.Issued); err != nil {
		return "", err
	}
	if err := grant.Good(g.now(), g.now()); err != nil {
		return "", err
	}
	if _, err := g.grants.take(signed{grant, t.Grant}); err != nil {
		return "", err
	}
	return s.app.set(g.seal.close(t.Grant, s.label), 0, "Lax"), nil
}
