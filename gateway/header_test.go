package gateway

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"quire"
)

// ways are the two ways a plain request can go, and the ways that always go
// through net/http; the rules are the same on each.
var ways = map[string]func(*http.Request){
	"plain GET": func(r *http.Request) {},
	"odd GET":   func(r *http.Request) { r.Header.Set("Te", "trailers") },
	"POST":      func(r *http.Request) { r.Method = "POST"; r.Header.Set("Origin", "http://"+r.Host) },
	"POST, body": func(r *http.Request) {
		r.Method = "POST"
		r.Header.Set("Origin", "http://"+r.Host)
		r.Body = io.NopCloser(strings.NewReader("x"))
		r.ContentLength = 1
	},
}

// TestNothingOfOursReachesTheApp is G-01, G-02, G-03 and G-05: what the app is sent.
func TestNothingOfOursReachesTheApp(t *testing.T) {
	modes(t, func(t *testing.T, w *world) {
		p := w.person().enter()
		for way, change := range ways {
			req := p.request("GET", "/notebook/x", nil)
			req.Host = p.host()
			change(req)
			own := p.cookie + "; " + p.site().nonce.name + "=" + p.nonce
			req.Header["Cookie"] = []string{own + `; _xsrf=2|abc; username-quire-localhost="2|1:0|10"; __Host-quire_login=secret1; quire_write=secret2; __Secure-quire_x=s3; QUIRE_app=s4; __HOST-Quire_App=s5; quire_app_zz=s6; =quire_app=s7; keep=1`}
			for k, v := range map[string]string{
				"Authorization": "Bearer secret8", "Proxy-Authorization": "secret9", "Proxy": "evil", "Forwarded": "for=evil", "X-Forwarded-For": "6.6.6.6", "X-Forwarded-Host": "evil.test",
				"X-Forwarded-Proto": "evil", "X-Forwarded-Prefix": "/evil", "X-Forwarded-Port": "666", "X-Forwarded-Uri": "/evil", "X-Real-Ip": "6.6.6.6", "X-Original-Url": "/evil", "X-Rewrite-Url": "/evil",
				"X-Http-Method-Override": "DELETE", "X-Quire-User": "mallory", "x_quire_user": "mallory", "X_Forwarded_For": "6.6.6.6", "Remote-User": "mallory", "REMOTE_USER": "mallory", "X-Remote-User": "mallory",
				"X-Client-Cert": "evil", "Ssl-Client-Verify": "SUCCESS", "X-Ssl-Client-Cert": "evil", "Client-Cert": "evil", "Quire-Grant": "evil", "Quire-Session": "evil", "Keep-Alive": "666",
			} {
				req.Header[k] = []string{v}
			}
			req.Header.Set("X-Xsrftoken", "2|abc")
			req.Header.Set("X-Requested-With", "XMLHttpRequest")
			if resp := w.do(req); resp.StatusCode != 200 {
				t.Fatalf("%s: %d %s", way, resp.StatusCode, body(resp))
			}
			got := w.app.request()
			if c := got.Header["Cookie"]; len(c) != 1 || c[0] != `_xsrf=2|abc; username-quire-localhost="2|1:0|10"; keep=1` {
				t.Errorf("%s: cookies %q", way, c)
			}
			scheme, host, _ := strings.Cut(p.site().origin, "://")
			for k, want := range map[string]string{"X-Quire-User": "alice", "X-Forwarded-For": "127.0.0.1", "X-Forwarded-Host": host, "X-Forwarded-Proto": scheme, "X-Xsrftoken": "2|abc", "X-Requested-With": "XMLHttpRequest"} {
				if v := got.Header[k]; !slices.Equal(v, []string{want}) {
					t.Errorf("%s: %s is %q", way, k, v)
				}
			}
			if got.Host != p.host() {
				t.Errorf("%s: Host %q", way, got.Host)
			}
			for k, v := range got.Header {
				text := k + ": " + strings.Join(v, ",")
				if strings.Contains(text, "secret") || strings.Contains(text, "evil") || strings.Contains(text, "mallory") || strings.Contains(text, "6.6.6.6") || strings.Contains(text, "_quire") || strings.Contains(text, p.cookie) ||
					strings.HasPrefix(k, "Quire") || strings.Contains(k, "_") || strings.Contains(text, "666") {
					t.Errorf("%s: the app got %q", way, text)
				}
			}
		}
	})
}

// S-04, G-03: only a believed proxy says for whom it asks, on every way a
// request can go, and the last hop of what it says counts. It may say that it
// was asked by http, which leads to https; the host it says is nobody's.
func TestBelievedProxies(t *testing.T) {
	believed := func(list ...string) option {
		return func(c *Config, o *quire.OriginConfig) {
			var err error
			if c.Proxies, err = quire.NewProxies(list); err != nil {
				t.Fatal(err)
			}
			o.Portal, o.Apps = "https://quire.test", "https://*.apps.test"
		}
	}
	for list, want := range map[string]string{"127.0.0.0/8": "203.0.113.9", "192.0.2.0/24": "127.0.0.1"} {
		w := newWorld(t, believed(list))
		p := w.person().enter()
		for way, change := range ways {
			for _, proto := range []string{"", "https", "http"} {
				req := p.request("GET", "/notebook/x?q=1", nil)
				change(req)
				if req.Method == "POST" {
					req.Header.Set("Origin", p.site().origin)
				}
				req.Header.Set("X-Forwarded-For", "6.6.6.6, 127.0.0.3, 203.0.113.9, 127.0.0.2")
				req.Header.Set("X-Forwarded-Host", "evil.test")
				if proto != "" {
					req.Header.Set("X-Forwarded-Proto", proto)
				}
				before := w.app.hits.Load()
				resp := w.do(req)
				body(resp)
				if proto == "http" && list == "127.0.0.0/8" {
					if sends := resp.StatusCode == 303 && resp.Header.Get("Location") == p.site().origin+"/notebook/x?q=1"; sends != (req.Method == "GET") || !sends && resp.StatusCode != 403 || w.app.hits.Load() != before {
						t.Errorf("%s by http: %d %s", way, resp.StatusCode, resp.Header.Get("Location"))
					}
					continue
				}
				if h := w.app.request().Header; resp.StatusCode != 200 || !slices.Equal(h["X-Forwarded-For"], []string{want}) || h.Get("X-Forwarded-Proto") != "https" || h.Get("X-Forwarded-Host") != p.host() {
					t.Errorf("%s, %q, from %s: %d, the app got %v", way, proto, list, resp.StatusCode, h)
				}
			}
		}
	}
}

// A field the Connection line names is dropped, except what we say ourselves
// (G-05), and a client's trailers never arrive.
func TestConnectionNames(t *testing.T) {
	w := newWorld(t)
	p := w.person().enter()
	for _, line := range []string{"close, X-Quire-User, X-Secret, Cookie", "close, x-quire-user, X-SECRET,Host", "close,\tX-Forwarded-For , x-secret"} {
		c := w.conn()
		fmt.Fprintf(c, "GET /notebook/x HTTP/1.1\r\nHost: %s\r\nCookie: %s\r\nConnection: %s\r\nX-Secret: 1\r\n\r\n", p.host(), p.cookie, line)
		if _, err := io.ReadAll(c); err != nil {
			t.Error(err)
		}
		c.Close()
		h := w.app.request().Header
		if h.Get("X-Quire-User") != "alice" || h.Get("X-Forwarded-For") != "127.0.0.1" || h.Get("X-Secret") != "" || w.app.request().Host != p.host() {
			t.Errorf("%q: the app got %v", line, h)
		}
	}
	// G-02, G-03: a name is ours in every spelling, however often it comes; what is
	// no field at all goes no further.
	for field, status := range map[string]string{
		"X-Quire-User: mallory\r\nx-quire-user: eve": "200", "X-QUIRE-USER:\tmallory": "200", "X_Quire_User: mallory": "200", "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 7.7.7.7": "200",
		"X-Quire-User : mallory": "400", "X-Quire-User\t: mallory": "400", " X-Quire-User: mallory": "200", "X-Quire-User: a\r\n mallory": "200", // lines that go on the one before
	} {
		for _, way := range []string{"", "Te: trailers\r\n"} {
			before := w.app.hits.Load()
			c := w.conn()
			fmt.Fprintf(c, "GET /notebook/x HTTP/1.1\r\nHost: %s\r\nCookie: %s\r\nConnection: close\r\n%s%s\r\n\r\n", p.host(), p.cookie, way, field)
			c.SetReadDeadline(time.Now().Add(10 * time.Second))
			got, _ := io.ReadAll(c) // a reset after the answer is no matter
			c.Close()
			asked := w.app.hits.Load() - before
			if !strings.HasPrefix(string(got), "HTTP/1.1 "+status) || (asked == 1) != (status == "200") {
				t.Errorf("%q%s: %.60q, the app was asked %d times", field, way, got, asked)
			} else if h := w.app.request().Header; status == "200" && (!slices.Equal(h["X-Quire-User"], []string{"alice"}) || !slices.Equal(h["X-Forwarded-For"], []string{"127.0.0.1"}) || strings.Contains(fmt.Sprint(h), "_")) {
				t.Errorf("%q%s: the app got %v", field, way, h)
			}
		}
	}
	w.app.set(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, len(r.Trailer), r.Header.Get("Trailer"), r.Header.Get("X-Quire-User"))
	})
	got := w.raw("POST /notebook/x HTTP/1.1\r\nHost: " + p.host() + "\r\nCookie: " + p.cookie + "\r\nOrigin: " + p.site().origin +
		"\r\nTrailer: X-Quire-User\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX-Quire-User: mallory\r\n\r\n")
	if !strings.Contains(got, "\r\n\r\n") || !strings.Contains(got, "0alice") && !strings.Contains(got, "0 alice") {
		t.Errorf("trailers: %q", got)
	}
}

// TestAnswerHeaders is G-16 and G-19: what of the app's head reaches a browser,
// also behind 101 and on both ways of reading a head.
func TestAnswerHeaders(t *testing.T) {
	modes(t, func(t *testing.T, w *world) {
		p := w.person().enter()
		pre := p.prefix()
		w.app.set(func(w http.ResponseWriter, r *http.Request) {
			h := w.Header()
			for _, k := range []string{"X-Accel-Redirect", "X-Accel-Buffering", "X-Sendfile", "Alt-Svc", "NEL", "Report-To", "Reporting-Endpoints", "Clear-Site-Data", "Strict-Transport-Security",
				"X-Quire-User", "Quire-Request", "Proxy-Authenticate", "Www-Authenticate", "Keep-Alive", "Public-Key-Pins", "Upgrade"} {
				h[http.CanonicalHeaderKey(k)] = []string{"evil"}
			}
			h.Set("Service-Worker-Allowed", r.URL.Query().Get("sw"))
			h.Set("Access-Control-Allow-Origin", r.URL.Query().Get("cors"))
			h.Set("Access-Control-Allow-Credentials", "true")
			h.Set("Content-Security-Policy", "frame-ancestors *; report-uri /x")
			h["Set-Cookie"] = []string{"__Host-quire_app=evil; Path=/; Secure", "quire_app=evil", p.site().app.name + "=evil; Path=" + p.site().app.path, "QUIRE_NONCE=evil", "__secure-quire_login=evil", " quire_write =evil", "=quire_app=evil", "noname",
				"_xsrf=1; Domain=localhost; Path=/; HttpOnly", "b=2; domain=.apps.localhost; SameSite=Lax", "c=3; DOMAIN = x; path=" + pre + "/notebook/"}
			if r.URL.Query().Get("stream") != "" {
				w.(http.Flusher).Flush()
			}
			io.WriteString(w, "ok")
		})
		for _, stream := range []string{"", "&stream=1"} {
			resp := p.get("/notebook/x?sw=" + pre + "/notebook/&cors=" + p.site().origin + stream)
			if got := body(resp); got != "ok" {
				t.Fatalf("%q", got)
			}
			for k, v := range resp.Header {
				if strings.Contains(strings.Join(v, " "), "evil") {
					t.Errorf("%s: %q", k, v)
				}
			}
			want := []string{"_xsrf=1; Path=/; HttpOnly", "b=2; SameSite=Lax", "c=3; path=/notebook/"}
			if pre != "" {
				want = []string{"_xsrf=1; HttpOnly; Path=" + pre + "/", "b=2; SameSite=Lax; Path=" + pre + "/", "c=3; Path=" + pre + "/notebook/"}
			}
			if got := resp.Header["Set-Cookie"]; !slices.Equal(got, want) {
				t.Errorf("cookies %q", got)
			}
			if got := resp.Header["Content-Security-Policy"]; !slices.Equal(got, []string{"frame-ancestors *; report-uri /x", "frame-ancestors 'self'"}) {
				t.Errorf("policy %q", got)
			}
			if resp.Header.Get("Service-Worker-Allowed") != pre+"/notebook/" || resp.Header.Get("Access-Control-Allow-Origin") != p.site().origin {
				t.Errorf("own scope and origin were dropped: %v", resp.Header)
			}
			if got := resp.Header.Get("Cache-Control"); got != "no-store" {
				t.Errorf("Cache-Control %q", got)
			}
			if _, there := resp.Header["Content-Type"]; there && stream == "" && resp.Header.Get("Content-Type") == "" {
				t.Error("an empty Content-Type")
			}
		}
		for _, sw := range []string{"/", pre + "/", pre + "/notebook", pre + "/notebook/../", pre + "/viewer/", "//x"} {
			if got := p.get("/notebook/x?sw=" + sw).Header.Get("Service-Worker-Allowed"); got != "" {
				t.Errorf("scope %q passed", got)
			}
		}
		for _, cors := range []string{"*", "null", "https://evil.test", p.site().origin + ".evil.test"} {
			resp := p.get("/notebook/x?cors=" + cors)
			if resp.Header.Get("Access-Control-Allow-Origin") != "" || resp.Header.Get("Access-Control-Allow-Credentials") != "" {
				t.Errorf("%q: %v", cors, resp.Header)
			}
		}
	})
}

// A private answer says how it may be kept, and an app's own word counts.
func TestCaching(t *testing.T) {
	w := newWorld(t)
	p := w.person().enter()
	for _, c := range []struct{ set, value, want string }{
		{"X-None", "1", "no-store"}, {"Etag", `"1"`, "private, no-cache"}, {"Last-Modified", "Mon, 02 Jan 2006 15:04:05 GMT", "private, no-cache"},
		{"Cache-Control", "max-age=60", "max-age=60"}, {"Expires", "0", ""},
	} {
		w.app.set(func(w http.ResponseWriter, r *http.Request) { w.Header().Set(c.set, c.value) })
		if got := p.get("/notebook/x").Header.Get("Cache-Control"); got != c.want {
			t.Errorf("%s: %q", c.set, got)
		}
	}
}

// TestRedirects is G-15: an app's redirect passes inside its origin; out of it
// the person is asked.
func TestRedirects(t *testing.T) {
	w := newWorld(t)
	p := w.person().enter()
	location := ""
	w.app.set(func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Location", location); w.WriteHeader(302) })
	own := p.site().origin
	for _, inside := range []string{"/notebook/tree", "tree", "../x", "?a=b", "/notebook/tree?next=https://evil.test", own + "/notebook/", own, strings.Replace(own, "http:", "", 1) + "/notebook/", "/a:b"} {
		location = inside
		if resp := p.get("/notebook/"); resp.StatusCode != 302 || resp.Header.Get("Location") != inside {
			t.Errorf("%q: %d %q", inside, resp.StatusCode, resp.Header.Get("Location"))
		}
	}
	for _, outside := range []string{"https://evil.test/", "//evil.test/", `/\evil.test/`, `\\evil.test`, "/\t/evil.test", "https:evil.test", "https:/evil.test", "javascript:alert(1)", "data:text/html,x", own + ".evil.test/", own + "@evil.test/", "http://u@" + own[7:], "HTTPS://EVIL.test", "https" + own[4:], " //evil.test"} {
		location = outside
		resp := p.page("/notebook/")
		text := body(resp)
		if resp.StatusCode != http.StatusBadGateway || resp.Header.Get("Location") != "" || strings.Contains(text, "javascript:") {
			t.Errorf("%q: %d %q", outside, resp.StatusCode, resp.Header.Get("Location"))
		}
		if strings.HasPrefix(outside, "https://evil.test") && !strings.Contains(text, `href="https://evil.test/"`) {
			t.Errorf("%q: no link to go on: %s", outside, text)
		}
		if api := p.get("/notebook/"); api.StatusCode != http.StatusBadGateway || api.Header.Get("Location") != "" {
			t.Errorf("%q: a program got %d", outside, api.StatusCode)
		}
	}
}

// An app that talks nonsense below HTTP gets a 502 with one connection, which
// is not used again (G-12, G-16).
func TestBrokenApps(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		says   string
		status int
	}{
		"not HTTP":                 {"SSH-2.0-OpenSSH\r\n", 502},
		"closes at once":           {"", 502},
		"megabyte of head":         {"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 1<<20) + "\r\n\r\n", 502},
		"many fields":              {"HTTP/1.1 200 OK\r\n" + strings.Repeat("X: y\r\n", 20000) + "\r\n", 502},
		"500 cookies":              {"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n" + strings.Repeat("Set-Cookie: a=b\r\n", 500) + "\r\n", 502},
		"interim answers for ever": {strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", 1000), 502},
		"101 unasked":              {"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", 502},
		"two lengths":              {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 5\r\n\r\nhello", 502},
		"bad length":               {"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nhello", 502},
		"two Locations":            {"HTTP/1.1 302 Found\r\nLocation: /a\r\nLocation: //evil.test\r\nContent-Length: 0\r\n\r\n", 502},
		"status 99":                {"HTTP/1.1 99 Odd\r\nContent-Length: 0\r\n\r\n", 502},
		"one interim answer":       {"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 200},
		"until the end":            {"HTTP/1.1 200 OK\r\n\r\nok", 200},
		"HTTP/1.0":                 {"HTTP/1.0 200 OK\r\n\r\nok", 200},
		"chunked":                  {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Quire-User: evil\r\n\r\n", 200},
		"two answers":              {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", 200},
		"longer than stated":       {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokmore", 200},
	} {
		t.Run(name, func(t *testing.T) {
			app := rawApp(t, c.says)
			w := newWorld(t, app.instead)
			p := w.person().enter()
			for range 3 { // the second request must not get the first one's leftovers
				for _, accept := range []string{"X-Way", "Te"} {
					resp := p.get("/notebook/x", "Accept", "*/*", accept, "trailers")
					if resp.StatusCode != c.status {
						t.Fatalf("status %d", resp.StatusCode)
					}
					if got := body(resp); c.status == 200 && got != "ok" || strings.Contains(got, "evil") {
						t.Fatalf("body %q", got)
					}
				}
			}
		})
	}
}

// Cut answers are cut for the browser too: half of something must not look like
// the whole.
func TestCutAnswers(t *testing.T) {
	for name, says := range map[string]string{
		"shorter than stated": "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
		"no last chunk":       "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
		"a broken chunk":      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nzz\r\n",
	} {
		app := rawApp(t, says)
		w := newWorld(t, app.instead)
		p := w.person().enter()
		for _, accept := range []string{"Accept", "Te"} {
			req := p.request("GET", "/notebook/x", nil)
			req.Header.Set(accept, "trailers")
			resp, err := w.transport().RoundTrip(req)
			if err != nil {
				continue // cut before anything of it was sent
			}
			if b, err := io.ReadAll(resp.Body); err == nil {
				t.Errorf("%s: took %q for the whole", name, b)
			}
			resp.Body.Close()
		}
	}
}

// A scripted app answers each connection's first request with fixed bytes.
type scriptedApp struct {
	addr    string
	instead option
}

func rawApp(t *testing.T, says string) *scriptedApp {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				c.SetDeadline(time.Now().Add(10 * time.Second))
				if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
					io.WriteString(c, says)
					if strings.Contains(says, "\r\n\r\nok") && strings.Contains(says, "Length") {
						c.Read(make([]byte, 1)) // stay until it is used again, and answer nothing then
					}
				}
			}()
		}
	}()
	return &scriptedApp{addr: l.Addr().String(), instead: toAddr(l.Addr().String())}
}

// toAddr lets the gateway reach another app than the world's.
func toAddr(addr string) option {
	return func(c *Config, _ *quire.OriginConfig) {
		c.Dial = func(ctx context.Context, _ string, _ quire.Route, _ []byte) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", addr)
		}
	}
}
