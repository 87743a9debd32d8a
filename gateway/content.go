package gateway

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"net/http"
	"strings"
	"time"

	"quire"
)

// What people put into files must not run where a person's cookies are. An app
// that shows files (its descriptor says "content") is therefore seen on an
// origin of its own, under a label of its own, which never has a cookie: there
// the right is a pass in the path, /~PASS/APP/…, which the person's own app
// origin gives out. A pass is a grant, sealed by this gateway for this label;
// whoever gets hold of an address reads what the person could, for passLife at
// most, and nothing when the right has ended. Answers come in a sandbox, so
// that not even two pages of this origin are one to a browser.

const (
	passLife  = 5 * time.Minute
	passFresh = time.Minute // links get a new pass when theirs is older
	passMark  = "/~"
)

// contentLabel is the label that the content of a label's site is shown under:
// as random as the label itself to whoever has not this gateway's key.
func contentLabel(key []byte, label quire.Label) quire.Label {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(label))
	return quire.Label("a" + strings.ToLower(base32.StdEncoding.EncodeToString(mac.Sum(nil)))[:19])
}

func contentKey(cookieKey []byte) ([]byte, error) {
	return hkdf.Key(sha256.New, cookieKey, nil, "quire content labels", 32)
}

// contentOf makes the place that shows the content of a site. Visitors' sites are
// such places as a whole. Where all labels share one origin the content does
// too; there the sandbox alone keeps it apart, and cookies stay with their path.
func (s *sites) contentOf(of *site, open bool) *site {
	label := of.label
	if of.prefix == "" && !open {
		label = contentLabel(s.contentKey, of.label)
	}
	c := s.make(label)
	c.of, c.open = of, open
	return c
}

// cutPass takes the pass off a path.
func cutPass(path string) (pass, rest string) {
	value, ok := strings.CutPrefix(path, passMark)
	value, _, more := strings.Cut(value, "/")
	if !ok || !more || value == "" {
		return "", path
	}
	pass = passMark + value
	return pass, path[len(pass):]
}

// pass is what lets a browser see content, for a while.
func (g *Gateway) pass(grant *signed, content *site, now time.Time) string {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, 8+len(grant.raw)), uint64(now.UnixMilli()))
	return passMark + g.passes.close(append(b, grant.raw...), content.label)
}

// show finds who comes with a pass. Visitors come from the portal with a grant as
// it is: whom it belongs to is nobody, and what it lets them see is public.
func (g *Gateway) show(value string, content *site) (*seen, time.Time, error) {
	var made time.Time
	raw, err := g.passes.open(value, content.label)
	switch {
	case err == nil && len(raw) >= 8:
		made = time.UnixMilli(int64(binary.BigEndian.Uint64(raw)))
		raw = raw[8:]
	case content.open && len(value) <= 4096:
		if raw, err = cookieEncoding.DecodeString(value); err != nil {
			return nil, made, errNoGrant
		}
	default:
		return nil, made, errNoGrant
	}
	grant, err := g.cfg.Verifier.Grant(raw)
	if made.IsZero() {
		made = grant.Issued
	}
	if err != nil || grant.Gateway != g.cfg.Node || grant.Label != content.of.label {
		return nil, made, errNoGrant
	}
	h, err := g.grants.take(signed{grant, raw})
	if err != nil {
		return nil, made, err
	}
	return &seen{holder: h, site: content.of, issued: grant.Issued}, made, nil
}

// judgeContent decides on a request to an origin without cookies.
func (v *visit) judgeContent(content *site, path string) (a *app, answer func()) {
	v.content, v.site = content, content.of
	v.r.Header.Del("Cookie") // a page of a sibling label can set one for all
	if v.site.prefix == "" && strings.HasPrefix(path, "/"+ours+"/") {
		v.path, v.name = path, ours
		if answer := v.public(); answer != nil && path != "/"+ours+"/enter" {
			return nil, answer
		}
	}
	pass, rest := cutPass(path)
	rest, ok := strings.CutPrefix(rest, v.site.prefix+"/")
	if pass == "" || !ok {
		return nil, v.says(http.StatusNotFound, "There is nothing at this address.")
	}
	v.pass, v.path = pass, "/"+rest
	if v.name, _, _ = strings.Cut(v.path[1:], "/"); v.name == ours {
		return nil, v.says(http.StatusNotFound, "There is nothing at this address.")
	}
	if v.r.Method != http.MethodGet && v.r.Method != http.MethodHead {
		return nil, v.says(http.StatusMethodNotAllowed, "This can only be read.")
	}
	if yes, bad := websocketUpgrade(v.r); yes || bad {
		return nil, v.says(http.StatusBadRequest, "There is no WebSocket here.")
	}
	if !v.g.full.Load() {
		return nil, v.notReady
	}
	now := v.g.now()
	c, made, err := v.g.show(strings.TrimPrefix(pass, passMark), content)
	if err == nil {
		v.grant, err = v.g.good(v.r.Context(), c.holder, now, v.line == nil)
	}
	switch {
	case errors.Is(err, errAway), errors.Is(err, errClock):
		return nil, func() { v.refused(err) }
	case err != nil:
		v.grant = nil
		return nil, v.stale
	}
	v.seen = c
	switch age := now.Sub(made); {
	case age > passLife || age < -passLife:
		return nil, v.stale
	case age > passFresh:
		v.fresh = v.g.pass(v.grant, content, now)
	default:
		v.fresh = v.pass
	}
	if a, answer = v.route(); a != nil && !a.Content {
		return nil, v.refusal(http.StatusNotFound, quire.KindNotFound, "There is nothing at this address.")
	}
	return a, answer
}

// toContent sends a browser from the app's own origin to where content is seen.
func (v *visit) toContent() {
	if v.r.Method != http.MethodGet && v.r.Method != http.MethodHead {
		v.g.plain(v.w, http.StatusMethodNotAllowed, "This can only be read.")
		return
	}
	h := v.w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Location", v.site.content.origin+v.g.pass(v.grant, v.site.content, v.g.now())+v.r.RequestURI)
	v.w.WriteHeader(http.StatusSeeOther)
}

// stale is for a pass that is not good, mostly that of a page that was left open
// for long. Below the bar the bar gets a new one; elsewhere the portal leads
// there again.
func (v *visit) stale() {
	m := message{Kind: "stale", Title: "This page has been open for a while", Text: "Open it again to go on reading."}
	v.links(&m, v.mine())
	if m.Manage != "" {
		m.Again = m.Manage + v.path
		if v.content.open {
			m.Again = m.Manage + "/public" + strings.TrimPrefix(v.path, "/"+v.name)
		}
		if v.r.URL.RawQuery != "" {
			m.Again += "?" + v.r.URL.RawQuery
		}
	}
	if m.Again != "" && navigation(v.r.Header) {
		h := v.w.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("Location", m.Again)
		v.w.WriteHeader(http.StatusSeeOther)
		return
	}
	v.answer(http.StatusUnauthorized, quire.KindUnknown, m)
}

// contentPolicy lets an answer's own page work, without an origin, inside the
// bar of its person's app origin and nowhere else.
const contentPolicy = "sandbox allow-scripts allow-forms allow-popups allow-popups-to-escape-sandbox allow-downloads allow-top-navigation-by-user-activation; frame-ancestors "

// contentHeader adds to an answer's header what holds on an origin without
// cookies. A page in a sandbox has no origin, so that what it loads from here
// counts as another's: reading must be allowed, and is, to whoever has a pass.
func (s *site) contentHeader(out http.Header) {
	delete(out, "Set-Cookie")
	delete(out, "Service-Worker-Allowed")
	delete(out, "Access-Control-Allow-Credentials")
	policies := out["Content-Security-Policy"]
	out["Content-Security-Policy"] = append(policies[:len(policies)-1:len(policies)-1], contentPolicy+s.of.origin)
	out["Access-Control-Allow-Origin"] = []string{"*"}
	out["Cross-Origin-Resource-Policy"] = []string{"cross-origin"}
	delete(out, "Cross-Origin-Opener-Policy")
	out["Referrer-Policy"] = []string{"no-referrer"}
	out["X-Content-Type-Options"] = []string{"nosniff"}
}
