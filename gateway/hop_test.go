package gateway

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"quire"
)

// TestTargets is G-06, G-08, G-09 and G-10: the address is decided on once and
// passed on as it came.
func TestTargets(t *testing.T) {
	t.Parallel()
	modes(t, func(t *testing.T, w *world) {
		p := w.person().enter()
		var mu sync.Mutex
		var got []string
		w.app.set(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			defer mu.Unlock()
			got = append(got, r.RequestURI)
		})
		send := func(target string) string {
			c := w.conn()
			defer c.Close()
			fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s\r\nCookie: %s\r\nConnection: close\r\n\r\n", target, p.host(), p.cookie)
			c.SetReadDeadline(time.Now().Add(5 * time.Second))
			b, _ := io.ReadAll(c)
			status, _, _ := strings.Cut(strings.TrimPrefix(string(b), "HTTP/1.1 "), " ")
			return status
		}
		pre := p.prefix()
		for _, same := range []string{
			"/notebook/a%2Fb%2f", "/notebook/%2e%2e/x", "/notebook/../viewer/x", "/notebook/./x", "/notebook//x", "/notebook;a=b", "/notebook/x;a", "/notebook/%5c", "/notebook/x?a=1;b=2&a=3&c=%zz",
			"/notebook/?" + strings.Repeat("p=1&", 6000), "/notebook/" + strings.Repeat("a", 8<<10), "/notebook/%C3%BC", "/notebook/\xc3\xbc", "/notebook/x?q=%00", "/notebook?x=/public#"[:19], "/notebook/x?y=/_quire/enter",
		} {
			got = nil
			status := send(pre + same)
			if strings.HasPrefix(same, "/notebook;") {
				if status != "404" || len(got) != 0 { // not the app's name
					t.Errorf("%.40s: %s", same, status)
				}
				continue
			}
			if status != "200" || len(got) != 1 || got[0] != pre+same {
				t.Errorf("%.40s: %s, the app got %.60q", same, status, got)
			}
		}
		for target, want := range map[string]string{
			pre + "/notebook/%00": "400", pre + "/notebook/\x01": "400", pre + "/notebook/%ff%fe": "400", pre + "/notebook/%c0%af": "400", pre + "/notebook/\xff": "400", pre + "/notebook/x#y": "400", pre + `/notebook\x`: "400",
			"http://" + p.host() + pre + "/notebook/x": "400", "http://evil.test/notebook/x": "400", "*": "400", "notebook/x": "400", pre + "/notebook/%zz": "400",
			pre + "/": "404", pre + "//notebook/x": "404", pre + "/./notebook/x": "404", pre + "/../notebook/x": "404", pre + "/%6eotebook/x": "404", pre + "/NOTEBOOK/x": "404", pre + "/notebook%2fx": "404",
			pre + "/proxy/9999": "404", pre + "/proxy/evil.com:80/": "404", pre + "/lsp/x": "404", pre + "/_quire/": "404", pre + "/_quire/../notebook/": "404", pre + "/_quire%2fframe": "404", pre + "/_QUIRE/frame": "404",
			pre + "/healthz": "404", pre + "/favicon.ico": "404",
		} {
			got = nil
			if status := send(target); status != want || len(got) != 0 {
				t.Errorf("%.60q: %s, want %s; the app got %q", target, status, want, got)
			}
		}
		// G-07: no user agent and no address opens anything.
		req := p.request("GET", "/healthz", nil)
		req.Header = http.Header{"User-Agent": {"kube-probe/1.30"}}
		if resp := w.do(req); resp.StatusCode != 401 && resp.StatusCode != 404 {
			t.Errorf("kube-probe: %d", resp.StatusCode)
		}
	})
}

// TestMethods is G-22.
func TestMethods(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.person().enter()
	for method, want := range map[string]string{
		"TRACE": "405", "CONNECT": "405", "TRACK": "405", "get": "405", "Get": "405", "PRI": "", "BREW": "405", "G(T": "400", strings.Repeat("A", 4000): "405",
	} {
		before := w.app.hits.Load()
		got := w.raw(fmt.Sprintf("%s /notebook/x HTTP/1.1\r\nHost: %s\r\nCookie: %s\r\nOrigin: %s\r\n\r\n", method, p.host(), p.cookie, p.site().origin))
		if !strings.HasPrefix(got, "HTTP/1.1 4") || want != "" && !strings.HasPrefix(got, "HTTP/1.1 "+want) || w.app.hits.Load() != before {
			t.Errorf("%.20s: %.60q", method, got)
		}
	}
	for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"} {
		resp := w.do(func() *http.Request {
			r := p.request(method, "/notebook/x", nil)
			r.Header.Set("Origin", p.site().origin)
			return r
		}())
		if resp.StatusCode != 200 || w.app.request().Method != method {
			t.Errorf("%s: %d", method, resp.StatusCode)
		}
	}
}

// TestHosts is G-04: the Host field alone routes, and there is exactly one.
func TestHosts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p, q := w.person().enter(), w.person().enter()
	for name, head := range map[string]string{
		"two hosts":        "GET /notebook/x HTTP/1.1\r\nHost: " + p.host() + "\r\nHost: " + q.host() + "\r\nCookie: " + p.cookie + "\r\n\r\n",
		"two equal hosts":  "GET /notebook/x HTTP/1.1\r\nHost: " + p.host() + "\r\nHost: " + p.host() + "\r\nCookie: " + p.cookie + "\r\n\r\n",
		"no host":          "GET /notebook/x HTTP/1.1\r\nCookie: " + p.cookie + "\r\n\r\n",
		"a bad host":       "GET /notebook/x HTTP/1.1\r\nHost: a b\r\nCookie: " + p.cookie + "\r\n\r\n",
		"a host with user": "GET /notebook/x HTTP/1.1\r\nHost: x@" + p.host() + "\r\nCookie: " + p.cookie + "\r\n\r\n",
		"a folded host":    "GET /notebook/x HTTP/1.1\r\nHost: " + p.host() + "\r\n " + q.host() + "\r\nCookie: " + p.cookie + "\r\n\r\n",
	} {
		if got := w.raw(head); !strings.HasPrefix(got, "HTTP/1.1 4") {
			t.Errorf("%s: %.60q", name, got)
		}
	}
	if n := w.app.hits.Load(); n != 0 {
		t.Errorf("the app was asked %d times", n)
	}
	resp := p.get("/notebook/x", "X-Forwarded-Host", q.host(), "Forwarded", "host="+q.host(), "X-Original-Host", q.host())
	if resp.StatusCode != 200 || w.app.request().Host != p.host() {
		t.Errorf("%d, the app was told it is %s", resp.StatusCode, w.app.request().Host)
	}
}

// TestSmuggling is G-11 and W-12's cousin: from odd framing comes one request
// or none, never two.
func TestSmuggling(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.person().enter()
	var mu sync.Mutex
	var got []string
	w.app.set(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		got = append(got, r.Method+" "+r.URL.Path+" "+string(b))
	})
	inner := "GET /notebook/smuggled HTTP/1.1\r\nHost: " + p.host() + "\r\nX: "
	start := "POST /notebook/outer HTTP/1.1\r\nHost: " + p.host() + "\r\nCookie: " + p.cookie + "\r\nOrigin: " + p.site().origin + "\r\n"
	cases := map[string]string{
		"CL.TE":               start + fmt.Sprintf("Content-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n%s", len(inner)+5, inner),
		"TE.CL":               start + "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n" + fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(inner), inner),
		"TE.TE":               start + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\nContent-Length: 4\r\n\r\n0\r\n\r\n" + inner,
		"TE xchunked":         start + "Transfer-Encoding: xchunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + inner,
		"TE space":            start + "Transfer-Encoding : chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + inner,
		"TE tab":              start + "Transfer-Encoding:\tchunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + inner,
		"TE vertical tab":     start + "Transfer-Encoding: \vchunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + inner,
		"TE folded":           start + "Transfer-Encoding:\r\n chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + inner,
		"TE upper":            start + "TRANSFER-ENCODING: ChUnKeD\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + inner,
		"two lengths":         start + "Content-Length: 0\r\nContent-Length: " + fmt.Sprint(len(inner)) + "\r\n\r\n" + inner,
		"list of lengths":     start + "Content-Length: 0, " + fmt.Sprint(len(inner)) + "\r\n\r\n" + inner,
		"plus length":         start + "Content-Length: +0\r\n\r\n" + inner,
		"hex length":          start + "Content-Length: 0x0\r\n\r\n" + inner,
		"negative length":     start + "Content-Length: -1\r\n\r\n" + inner,
		"huge length":         start + "Content-Length: 99999999999999999999\r\n\r\n" + inner,
		"bare LF":             strings.ReplaceAll(start, "\r\n", "\n") + "Content-Length: 0\n\n" + inner,
		"bare CR":             start + "X: a\rContent-Length: 0\r\n\r\n" + inner,
		"obs-fold":            start + "X: a\r\n Content-Length: 3\r\nContent-Length: 0\r\n\r\n" + inner,
		"NUL":                 start + "X: a\x00b\r\nContent-Length: 0\r\n\r\n" + inner,
		"space before colon":  start + "Content-Length : 0\r\n\r\n" + inner,
		"no colon":            start + "Content-Length\r\n\r\n" + inner,
		"chunk extension":     start + "Transfer-Encoding: chunked\r\n\r\n0;a=\"\n\r\n\r\n" + inner,
		"chunk size overflow": start + "Transfer-Encoding: chunked\r\n\r\nffffffffffffffff1\r\nx\r\n0\r\n\r\n" + inner,
		"chunk bare LF":       start + "Transfer-Encoding: chunked\r\n\r\n1\nx\n0\n\n" + inner,
		"HTTP/1.0 TE":         strings.Replace(start, "HTTP/1.1", "HTTP/1.0", 1) + "Transfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n0\r\n\r\n" + inner,
		"GET with body":       strings.Replace(start, "POST", "GET", 1) + "Content-Length: " + fmt.Sprint(len(inner)) + "\r\n\r\n" + inner,
		"GET with chunks":     strings.Replace(start, "POST", "GET", 1) + "Transfer-Encoding: chunked\r\n\r\n" + fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(inner), inner),
		"HTTP/1.2":            strings.Replace(start, "HTTP/1.1", "HTTP/1.2", 1) + "Content-Length: 0\r\n\r\n" + inner,
		"HTTP/2.0":            strings.Replace(start, "HTTP/1.1", "HTTP/2.0", 1) + "\r\n" + inner,
		"space in the line":   strings.Replace(start, " HTTP/1.1", " HTTP/1.1 x", 1) + "\r\n" + inner,
		"h2 preface":          "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + inner,
		"expect":              start + "Expect: 100-continue\r\nContent-Length: 0\r\n\r\n" + inner,
	}
	for name, b := range cases {
		mu.Lock()
		got = nil
		mu.Unlock()
		w.raw(b) // the inner one is never complete: it must not have been started either
		mu.Lock()
		outer := 0
		for _, g := range got {
			if strings.Contains(g, " /notebook/outer ") {
				outer++
			} else {
				t.Errorf("%s: the app got %q", name, got)
			}
		}
		if outer > 1 {
			t.Errorf("%s: the app got %q", name, got)
		}
		mu.Unlock()
	}
	// Pipelined requests are two requests, each with its own decision.
	mu.Lock()
	got = nil
	mu.Unlock()
	one := "GET /notebook/1 HTTP/1.1\r\nHost: " + p.host() + "\r\nCookie: " + p.cookie + "\r\n\r\n"
	two := "GET /notebook/2 HTTP/1.1\r\nHost: " + p.host() + "\r\n\r\n"
	three := "GET /notebook/3 HTTP/1.1\r\nHost: " + p.host() + "\r\nCookie: " + p.cookie + "\r\n\r\n"
	answers := w.raw(one + two + three)
	mu.Lock()
	defer mu.Unlock()
	if strings.Count(answers, "HTTP/1.1 200") != 2 || strings.Count(answers, "HTTP/1.1 401") != 1 || len(got) != 2 {
		t.Errorf("pipeline: %q, the app got %q", answers, got)
	}
}

// TestUpgrades is G-23: only a WebSocket is a WebSocket.
func TestUpgrades(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.person().enter()
	base := "GET /notebook/x HTTP/1.1\r\nHost: " + p.host() + "\r\nCookie: " + p.cookie + "\r\nOrigin: " + p.site().origin + "\r\n"
	ws := "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
	for name, head := range map[string]string{
		"h2c":     "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n",
		"foo":     "Upgrade: foo\r\nConnection: Upgrade\r\n",
		"tls":     "Upgrade: TLS/1.0\r\nConnection: Upgrade\r\n",
		"websock": "Upgrade: websock\r\nConnection: upgrade\r\n",
	} {
		got := w.raw(base + head + "\r\n")
		if !strings.HasPrefix(got, "HTTP/1.1 200") {
			t.Errorf("%s: %.80q", name, got)
		}
		if h := w.app.request().Header; h.Get("Upgrade") != "" || h.Get("Connection") != "" || h.Get("Http2-Settings") != "" && name == "h2c" {
			t.Errorf("%s: the app got %v", name, h)
		}
	}
	before := w.app.hits.Load()
	for name, head := range map[string]string{
		"two":              "Upgrade: websocket\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n" + ws,
		"twice":            "Upgrade: websocket\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" + ws,
		"a list":           "Upgrade: websocket, h2c\r\nConnection: Upgrade\r\n" + ws,
		"a body":           "Upgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: 4\r\n" + ws,
		"chunks":           "Upgrade: websocket\r\nConnection: Upgrade\r\nTransfer-Encoding: chunked\r\n" + ws,
		"no Connection":    "Upgrade: websocket\r\n" + ws,
		"other Connection": "Upgrade: websocket\r\nConnection: keep-alive\r\n" + ws,
		"no key":           "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n",
		"short key":        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: aGVsbG8=\r\n",
		"two keys":         "Upgrade: websocket\r\nConnection: Upgrade\r\n" + ws + ws,
	} {
		if got := w.raw(base + head + "\r\nabcd"); !strings.HasPrefix(got, "HTTP/1.1 400") {
			t.Errorf("%s: %.80q", name, got)
		}
	}
	for name, start := range map[string]string{"POST": strings.Replace(base, "GET", "POST", 1), "HTTP/1.0": strings.Replace(base, "HTTP/1.1", "HTTP/1.0", 1)} {
		if got := w.raw(start + "Upgrade: websocket\r\nConnection: Upgrade\r\n" + ws + "\r\n"); !strings.Contains(got, " 400 ") {
			t.Errorf("%s: %.80q", name, got)
		}
	}
	if n := w.app.hits.Load() - before; n != 0 {
		t.Errorf("the app was asked %d times", n)
	}
}

// TestBodies carries bodies of every kind both ways, unchanged.
func TestBodies(t *testing.T) {
	w := newWorld(t)
	p := w.person().enter()
	w.app.set(func(w http.ResponseWriter, r *http.Request) {
		sum := sha256.New()
		n, err := io.Copy(sum, r.Body)
		fmt.Fprintf(w, "%d %x %v %d %v", n, sum.Sum(nil), err, r.ContentLength, r.TransferEncoding)
	})
	for _, size := range []int{0, 1, 100, inlineBody, inlineBody + 1, 1 << 20, 20 << 20} {
		data := bytes.Repeat([]byte("q"), size)
		for _, chunked := range []bool{false, true} {
			var r io.Reader = bytes.NewReader(data)
			want := fmt.Sprintf("%d %x <nil> %d []", size, sha256.Sum256(data), size)
			if chunked {
				r = struct{ io.Reader }{r}
				want = fmt.Sprintf("%d %x <nil> -1 [chunked]", size, sha256.Sum256(data))
			}
			req := p.request("POST", "/notebook/x", r)
			resp := w.do(req)
			if got := body(resp); got != want && !(chunked && size == 0) {
				t.Errorf("%d bytes, chunked %v: %.100s", size, chunked, got)
			}
		}
	}
	for _, size := range []int{0, 1, 3000, 4096, 8 << 10, 1 << 20, 20 << 20} {
		data := bytes.Repeat([]byte("z"), size)
		for _, known := range []bool{false, true} {
			w.app.set(func(w http.ResponseWriter, r *http.Request) {
				if known {
					w.Header().Set("Content-Length", fmt.Sprint(size))
				} else {
					w.(http.Flusher).Flush()
				}
				w.Write(data)
			})
			for _, way := range []string{"X-Way", "Te"} {
				resp := p.get("/notebook/x", way, "1")
				b, err := io.ReadAll(resp.Body)
				if err != nil || !bytes.Equal(b, data) {
					t.Errorf("%d bytes, known %v: %d came, %v", size, known, len(b), err)
				}
			}
		}
	}
	for _, status := range []int{204, 304} {
		w.app.set(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(status) })
		if resp := p.get("/notebook/x"); resp.StatusCode != status || body(resp) != "" {
			t.Errorf("%d: %d", status, resp.StatusCode)
		}
	}
	w.app.set(func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Content-Length", "1234") })
	if resp := w.do(p.request("HEAD", "/viewer/x", nil)); resp.StatusCode != 403 { // no Origin, no Sec-Fetch-Site
		t.Errorf("HEAD: %d", resp.StatusCode)
	}
	req := p.request("HEAD", "/notebook/x", nil)
	req.Header.Set("Sec-Fetch-Site", "same-origin")
	if resp := w.do(req); resp.StatusCode != 200 || resp.ContentLength != 1234 {
		t.Errorf("HEAD: %d %d", resp.StatusCode, resp.ContentLength)
	}
}

// An app that answers and closes before it has read the body is heard, and the
// next request is not affected.
func TestEarlyAnswer(t *testing.T) {
	w := newWorld(t)
	p := w.person().enter()
	w.app.set(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close")
		http.Error(w, "too large", http.StatusRequestEntityTooLarge)
	})
	tr := w.transport()
	tr.DisableKeepAlives = false
	for range 20 {
		req := p.request("POST", "/notebook/x", struct{ io.Reader }{io.LimitReader(zeros{}, 50<<20)})
		resp, err := tr.RoundTrip(req)
		if err != nil {
			continue // the connection may be cut while the body is being sent
		}
		if resp.StatusCode != http.StatusRequestEntityTooLarge {
			t.Errorf("status %d", resp.StatusCode)
		}
		resp.Body.Close()
	}
	w.app.set(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "fine") })
	for range 20 {
		if got := body(p.get("/notebook/x")); got != "fine" {
			t.Errorf("%q", got)
		}
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// What an app writes arrives when it is written: events and slow output do not
// wait for a buffer to fill.
func TestStreaming(t *testing.T) {
	w := newWorld(t)
	p := w.person().enter()
	for _, way := range []string{"X-Way", "Te"} {
		next := make(chan string)
		w.app.set(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			for {
				select {
				case s := <-next:
					io.WriteString(w, s)
					w.(http.Flusher).Flush()
				case <-r.Context().Done():
					return
				}
			}
		})
		got := make(chan *http.Response)
		go func() { got <- p.get("/notebook/x", way, "1") }()
		next <- "data: 0\n\n"
		resp := <-got
		br := bufio.NewReader(resp.Body)
		for i := range 5 {
			want := fmt.Sprintf("data: %d\n", i)
			if line, err := br.ReadString('\n'); err != nil || line != want {
				t.Fatalf("%s: %q %v", way, line, err)
			}
			br.ReadString('\n')
			next <- fmt.Sprintf("data: %d\n\n", i+1)
		}
		resp.Body.Close()
	}
}

// TestStrangersBytes is G-12 (and with TestSameQuestion G-13): what one person's app leaves on a
// connection reaches nobody else, and answers are never shared.
func TestStrangersBytes(t *testing.T) {
	w := newWorld(t)
	w.app.set(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Host) })
	var people []*person
	for range 5 {
		people = append(people, w.person().enter())
	}
	var wg sync.WaitGroup
	for i := range 100 {
		for _, p := range people {
			wg.Add(1)
			go func() {
				defer wg.Done()
				tr := w.transport()
				tr.DisableKeepAlives = false
				defer tr.CloseIdleConnections()
				for range 5 {
					resp, err := tr.RoundTrip(p.request("GET", fmt.Sprintf("/notebook/%d", i%3), nil))
					if err != nil {
						t.Error(err)
						return
					}
					if got := body(resp); got != p.host() {
						t.Errorf("%s got the answer of %s", p.host(), got)
					}
					resp.Body.Close()
				}
			}()
		}
	}
	wg.Wait()
	// Two logins of one person do not share connections either.
	p := people[0]
	first := w.app.dials.Load()
	p.get("/notebook/x")
	again := w.app.dials.Load()
	second := *p
	second.login = quire.NewLoginID()
	second.enter().get("/notebook/x")
	if w.app.dials.Load() != again+1 || again != first {
		t.Errorf("dials: %d, %d, %d", first, again, w.app.dials.Load())
	}
}

// When the browser goes, the app's request ends too.
func TestBrowserLeaves(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.person().enter()
	started, ended := make(chan struct{}, 2), make(chan struct{}, 2)
	w.app.set(func(w http.ResponseWriter, r *http.Request) {
		started <- struct{}{}
		<-r.Context().Done()
		ended <- struct{}{}
	})
	for _, way := range []string{"X-Way: 1", "Te: trailers"} {
		c := w.conn()
		fmt.Fprintf(c, "GET /notebook/x HTTP/1.1\r\nHost: %s\r\nCookie: %s\r\n%s\r\n\r\n", p.host(), p.cookie, way)
		<-started
		c.Close()
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			t.Errorf("%s: the app still works for nobody", way)
		}
	}
}

// An app restarted behind its socket: idle connections are dead, and nobody
// notices.
func TestAppRestarts(t *testing.T) {
	w := newWorld(t)
	p := w.person().enter()
	for range 5 {
		w.app.mu.Lock()
		for c := range w.app.conns {
			c.Close()
		}
		w.app.mu.Unlock()
		for _, method := range []string{"GET", "POST"} {
			if resp := w.do(p.request(method, "/notebook/x", nil)); resp.StatusCode != 200 {
				t.Errorf("%s: %d %s", method, resp.StatusCode, body(resp))
			}
			w.app.mu.Lock()
			for c := range w.app.conns {
				c.Close()
			}
			w.app.mu.Unlock()
		}
	}
}

// Errors of the way to the app are told in the right words.
func TestAppAway(t *testing.T) {
	w := newWorld(t)
	p := w.person().enter()
	for _, c := range []struct {
		err    error
		status int
		says   string
	}{
		{quire.Unavailable("The node does not answer.", errors.New("canary")), 503, "node"},
		{quire.Forbidden("canary"), 403, "grant"},
		{quire.NotFound("session"), 502, "session"},
		{errors.New("canary"), 502, "could not be used"},
		{context.DeadlineExceeded, 502, "could not be used"},
	} {
		w.app.refuse.Store(&c.err)
		resp := p.page("/notebook/x")
		text := body(resp)
		if resp.StatusCode != c.status || !strings.Contains(text, c.says) || strings.Contains(text, "canary") || !strings.Contains(text, "alice/demo") {
			t.Errorf("%v: %d %s", c.err, resp.StatusCode, text)
		}
		if resp := p.get("/notebook/x"); resp.StatusCode != c.status || !strings.Contains(body(resp), `"error"`) {
			t.Errorf("%v: a program got %d", c.err, resp.StatusCode)
		}
	}
	away := quire.Unavailable("The node does not answer.", nil)
	var err error = away
	w.app.refuse.Store(&err)
	p.get("/notebook/x")
	w.until("the node's absence is reported", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return len(w.reports) > 0 && w.reports[len(w.reports)-1].NodeAway[computeNode] != ""
	})
	w.app.refuse.Store(nil)
	if resp := p.get("/notebook/x"); resp.StatusCode != 200 {
		t.Errorf("after it came back: %d", resp.StatusCode)
	}
}

// A line that is silent, slow or too long is not kept.
func TestHeadLimits(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.person().enter()
	start := "GET /notebook/x HTTP/1.1\r\nHost: " + p.host() + "\r\nCookie: " + p.cookie
	if got := w.raw(start + "\r\nX: " + strings.Repeat("x", 64<<10) + "\r\n\r\n"); !strings.Contains(got, " 431 ") {
		t.Errorf("64 KB of head: %.60q", got)
	}
	if got := w.raw(start + strings.Repeat("; c=1", 101) + "\r\n\r\n"); !strings.Contains(got, " 431 ") {
		t.Errorf("100 cookies: %.60q", got)
	}
	if got := w.raw(start + "\r\n" + strings.Repeat("X: y\r\n", 50_000) + "\r\n"); !strings.Contains(got, " 431 ") {
		t.Errorf("50,000 fields: %.60q", got)
	}
	slow := []net.Conn{w.conn(), w.conn(), w.conn()}
	io.WriteString(slow[1], "G")
	io.WriteString(slow[2], start)
	began := time.Now()
	for i, c := range slow {
		c.SetReadDeadline(began.Add(15 * time.Second))
		io.ReadAll(c)
		if d := time.Since(began); d > headTime+2*time.Second {
			t.Errorf("%d was kept for %v", i, d)
		}
		c.Close()
	}
}

// More browsers than there is room for get 503 at once, and the control side
// still answers.
func TestAdmission(t *testing.T) {
	w := newWorld(t, func(c *Config, _ *quire.OriginConfig) { c.Connections = 5 })
	p := w.person().enter()
	w.until("the room is free", func() bool { return w.g.conns.browsers.Load() == 0 })
	var in []net.Conn
	for range 5 {
		c := w.conn()
		defer c.Close()
		fmt.Fprintf(c, "GET /notebook/x HTTP/1.1\r\nHost: %s\r\nCookie: %s\r\n\r\n", p.host(), p.cookie)
		if resp, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || resp.StatusCode != 200 {
			t.Fatalf("%v", err)
		}
		in = append(in, c)
	}
	if got := w.raw("GET / HTTP/1.1\r\nHost: x\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 503") {
		t.Errorf("the sixth got %q", got)
	}
	in[0].Close()
	w.until("there is room again", func() bool { return w.g.conns.browsers.Load() == 4 })
	if resp := p.get("/notebook/x"); resp.StatusCode != 200 {
		t.Errorf("after one left: %d", resp.StatusCode)
	}
}
