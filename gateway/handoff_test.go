package gateway

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"quire"
	"quire/ticket"
)

func modes(t *testing.T, f func(*testing.T, *world), more ...option) {
	for name, o := range map[string]option{"own origins": func(*Config, *quire.OriginConfig) {}, "plain http": plainHTTP, "shared origin": sharedOrigin} {
		t.Run(name, func(t *testing.T) { f(t, newWorld(t, append(more, o)...)) })
	}
}

// TestHandOff is the whole way of a browser without a cookie: to the portal and
// back, to the bar, to the app.
func TestHandOff(t *testing.T) {
	modes(t, func(t *testing.T, w *world) {
		p := w.person()
		resp := p.page("/notebook/tree?a=1;b=2")
		if resp.StatusCode != http.StatusSeeOther {
			t.Fatalf("status %d %s", resp.StatusCode, body(resp))
		}
		to, err := url.Parse(resp.Header.Get("Location"))
		if err != nil || !strings.HasPrefix(to.String(), w.origins.Portal()+"/authorize?") {
			t.Fatalf("sent to %s", to)
		}
		nonce := resp.Cookies()[0]
		q := to.Query()
		sum := sha256.Sum256([]byte(nonce.Value))
		if q.Get("label") != string(p.label) || q.Get("nonce") != hex.EncodeToString(sum[:]) || q.Get("path") != "/notebook/tree?a=1;b=2" {
			t.Errorf("asked %v", q)
		}
		if strings.Contains(to.String(), nonce.Value) {
			t.Error("the nonce itself is in an address")
		}
		want := http.SameSiteLaxMode
		if p.site().nonce.secure {
			want = http.SameSiteNoneMode
		}
		if nonce.Name != p.site().nonce.name || !nonce.HttpOnly || nonce.Secure != p.site().nonce.secure || nonce.SameSite != want || nonce.MaxAge != 600 {
			t.Errorf("nonce cookie %+v", nonce)
		}
		for k, want := range map[string]string{"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"} {
			if got := resp.Header.Get(k); got != want {
				t.Errorf("%s: %q", k, got)
			}
		}

		p.nonce = nonce.Value
		resp = p.post(p.ticket(), q.Get("path"))
		if want := p.prefix() + "/_quire/frame?path=" + url.QueryEscape("/notebook/tree?a=1;b=2"); resp.StatusCode != http.StatusSeeOther || resp.Header.Get("Location") != want {
			t.Fatalf("%d %s", resp.StatusCode, resp.Header.Get("Location"))
		}
		c := resp.Cookies()[0]
		if c.Name != p.site().app.name || !c.HttpOnly || c.SameSite != http.SameSiteLaxMode || c.Secure != p.site().app.secure || c.Path != p.site().app.path || c.Domain != "" {
			t.Errorf("app cookie %+v", c)
		}
		p.cookie = c.Name + "=" + c.Value
		if resp := p.page("/_quire/frame?path=" + url.QueryEscape("/notebook/tree?a=1")); resp.StatusCode != 200 || !strings.Contains(body(resp), `src="`+p.prefix()+`/notebook/tree?a=1"`) {
			t.Errorf("the bar: %d", resp.StatusCode)
		}
		if got := body(p.page("/notebook/tree")); got != "app "+p.prefix()+"/notebook/tree" {
			t.Errorf("the app: %q", got)
		}
		// A second tab on its way keeps the first one's nonce.
		req := p.request("GET", "/notebook/", nil)
		req.Header = http.Header{"Accept": {"text/html"}, "Cookie": {p.site().nonce.name + "=" + p.nonce}}
		if c := w.do(req).Cookies()[0]; c.Value != p.nonce {
			t.Error("the nonce changed under a hand-off that is under way")
		}
	})
}

// TestTicketAttacks is S-34, S-35 and S-36: every ticket that is not exactly
// right gives nothing, and nothing reaches the app.
func TestTicketAttacks(t *testing.T) {
	t.Parallel()
	modes(t, func(t *testing.T, w *world) {
		p, other := w.person(), w.person()
		stranger := ticket.NewSigner()
		cases := map[string]func() *http.Request{
			"no ticket":         func() *http.Request { return p.form("", "/notebook/") },
			"not base64":        func() *http.Request { return p.form("!!!", "/notebook/") },
			"cut":               func() *http.Request { return p.form(p.ticket()[:100], "/notebook/") },
			"padded":            func() *http.Request { return p.form(p.ticket()+"=", "/notebook/") },
			"a grant as ticket": func() *http.Request { return p.form(cookieEncoding.EncodeToString(p.grant()), "/notebook/") },
			"too old": func() *http.Request {
				return p.form(p.ticket(func(t *ticket.Ticket) {
					t.Issued = t.Issued.Add(-61 * time.Second)
					t.Expires = t.Expires.Add(-61 * time.Second)
				}), "/")
			},
			"too long a life": func() *http.Request {
				return p.form(p.ticket(func(t *ticket.Ticket) { t.Expires = t.Expires.Add(time.Hour) }), "/")
			},
			"from the future": func() *http.Request {
				return p.form(p.ticket(func(t *ticket.Ticket) {
					t.Issued = t.Issued.Add(2 * time.Minute)
					t.Expires = t.Expires.Add(2 * time.Minute)
				}), "/")
			},
			"another gateway": func() *http.Request {
				return p.form(p.ticket(func(t *ticket.Ticket) { t.Gateway = "n_gateway2" }), "/")
			},
			"another label": func() *http.Request { return p.form(p.ticket(func(t *ticket.Ticket) { t.Label = other.label }), "/") },
			"grant of another label": func() *http.Request {
				return p.form(p.ticket(func(t *ticket.Ticket) { t.Grant = other.grant() }), "/")
			},
			"no nonce cookie": func() *http.Request { r := p.form(p.ticket(), "/"); r.Header.Del("Cookie"); return r },
			"another browser's nonce": func() *http.Request {
				r := p.form(p.ticket(), "/")
				r.Header.Set("Cookie", p.site().nonce.name+"="+quire.NewSecret())
				return r
			},
			"an empty nonce": func() *http.Request {
				r := p.form(p.ticket(func(t *ticket.Ticket) { t.Nonce = sha256.Sum256(nil) }), "/")
				r.Header.Set("Cookie", p.site().nonce.name+"=")
				return r
			},
			"another server's key": func() *http.Request {
				now := w.now()
				return p.form(cookieEncoding.EncodeToString(stranger.Ticket(ticket.Ticket{ID: "o_x", Nonce: sha256.Sum256([]byte(p.nonce)), Gateway: gatewayNode, Label: p.label, Grant: p.grant(), Issued: now, Expires: now.Add(time.Minute)})), "/")
			},
			"a grant with another server's key": func() *http.Request {
				return p.form(p.ticket(func(t *ticket.Ticket) {
					t.Grant = stranger.Grant(ticket.Grant{Gateway: gatewayNode, Label: p.label, Issued: w.now(), Expires: w.now().Add(time.Minute)})
				}), "/")
			},
			"twice in the form": func() *http.Request {
				r := p.form(p.ticket(), "/")
				r.Body = http.NoBody
				r.ContentLength = 0
				return r
			},
			"by GET": func() *http.Request {
				r := p.request("GET", "/_quire/enter?ticket="+p.ticket(), nil)
				r.Header.Set("Cookie", p.site().nonce.name+"="+p.nonce)
				return r
			},
			"in the address of a POST": func() *http.Request {
				r := p.form("", "/")
				r.URL.RawQuery = "ticket=" + p.ticket()
				return r
			},
			"as JSON": func() *http.Request {
				r := p.form(p.ticket(), "/")
				r.Header.Set("Content-Type", "application/json")
				return r
			},
			"as text": func() *http.Request {
				r := p.form(p.ticket(), "/")
				r.Header.Set("Content-Type", "text/plain")
				return r
			},
			"a megabyte": func() *http.Request { return p.form(p.ticket()+strings.Repeat("A", 1<<20), "/") },
		}
		for name, make := range cases {
			resp := w.do(make())
			if resp.StatusCode < 400 || resp.StatusCode >= 500 {
				t.Errorf("%s: %d", name, resp.StatusCode)
			}
			for _, c := range resp.Cookies() {
				if c.Name == p.site().app.name && c.Value != "" {
					t.Errorf("%s: got a cookie", name)
				}
			}
		}
		if n := w.app.hits.Load(); n != 0 {
			t.Errorf("the app was asked %d times", n)
		}
	})
}

// The second use of a ticket is refused and ends what the first one gave, the
// sockets included; a new hand-off works.
func TestTicketTwice(t *testing.T) {
	w := newWorld(t)
	p := w.person()
	text := p.ticket()
	first := p.post(text, "/notebook/")
	p.cookie, _, _ = strings.Cut(first.Header.Get("Set-Cookie"), ";")
	if got := p.get("/notebook/x").StatusCode; got != 200 {
		t.Fatalf("first use: %d", got)
	}
	if got := p.post(text, "/notebook/").StatusCode; got != http.StatusForbidden {
		t.Errorf("second use: %d", got)
	}
	if got := p.get("/notebook/x").StatusCode; got != http.StatusUnauthorized {
		t.Errorf("the first cookie still opens: %d", got)
	}
	w.shift.Add(int64(time.Second))
	if got := p.enter().get("/notebook/x").StatusCode; got != 200 {
		t.Errorf("a new hand-off: %d", got)
	}
}

// Where a person lands after the hand-off is always inside the site.
func TestHandOffPath(t *testing.T) {
	w := newWorld(t)
	p := w.person()
	for _, path := range []string{
		"https://evil.test/", "//evil.test", `/\evil.test`, `\\evil.test`, "/notebook\\..\\x", "javascript:alert(1)", "/_quire/enter", "/../x", "/notebook/../../x",
		"/notebook//evil", "/notebook/%2e%2e/x", "/notebook\r\nX: y", "/notebook/\x00", "", "notebook", "/NOTEBOOK/", "/notebook#x", "/" + strings.Repeat("a", 5000), "/notebook/%zz",
	} {
		resp := p.post(p.ticket(), path)
		if got := resp.Header.Get("Location"); resp.StatusCode != http.StatusSeeOther || got != "/" {
			t.Errorf("%q: %d %q", path, resp.StatusCode, got)
		}
	}
	for path, want := range map[string]string{"/notebook": "/notebook", "/notebook?x": "/notebook?x", "/notebook/a%2Fb?c=;": "/notebook/a%2Fb?c=;", "/notebook/ü": "/notebook/%C3%BC"} {
		resp := p.post(p.ticket(), path)
		if got := resp.Header.Get("Location"); got != "/_quire/frame?path="+url.QueryEscape(want) {
			t.Errorf("%q: %q", path, got)
		}
	}
}

// TestLabels is G-17, S-34 and S-26: a host is a label exactly, or nothing.
func TestLabels(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.person().enter()
	label := string(p.label)
	unknown := string(quire.NewLabel())
	for host, want := range map[string]int{
		p.host():                         200,
		unknown + ".apps.localhost:8089": 404,
		strings.ToUpper(label) + ".apps.localhost:8089":  404,
		label + ".apps.localhost.:8089":                  421,
		label + "." + label + ".apps.localhost:8089":     404,
		label + "x.apps.localhost:8089":                  404,
		label[1:] + ".apps.localhost:8089":               404,
		"xn--" + label + ".apps.localhost:8089":          404,
		strings.Repeat("a", 70) + ".apps.localhost:8089": 404,
		".apps.localhost:8089":                           404,
		"apps.localhost:8089":                            421,
		label + ".apps.localhost":                        421,
		label + ".apps.localhost:80":                     421,
		label + ".apps.localhost:8089.evil.test":         421,
		label + ".evil.test:8089":                        421,
		"evil.test":                                      421,
		"127.0.0.1:8089":                                 421,
		"quire.localhost:8080":                           421,
	} {
		req := p.request("GET", "/notebook/x", nil)
		req.Host = host
		resp := w.do(req)
		text := body(resp)
		if resp.StatusCode != want {
			t.Errorf("%s: %d, want %d", host, resp.StatusCode, want)
		}
		if want != 200 && (strings.Contains(text, "alice") || strings.Contains(text, "demo")) {
			t.Errorf("%s: the answer names the project", host)
		}
	}
}

// The hand-off leaves no secret in the log (S-37).
func TestNoSecretInLog(t *testing.T) {
	w := newWorld(t)
	p := w.person()
	text := p.ticket()
	p.post(text[:len(text)-4]+"AAAA", "/notebook/")
	p.enter()
	p.get("/notebook/x?token=canary1")
	w.app.set(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	p.get("/notebook/x?token=canary1", "X-Secret", "canary2")
	log := w.log.String()
	for _, secret := range []string{text, p.nonce, strings.TrimPrefix(p.cookie, p.site().app.name+"="), "canary1", "canary2"} {
		if strings.Contains(log, secret) {
			t.Errorf("the log has a secret:\n%s", log)
		}
	}
}
