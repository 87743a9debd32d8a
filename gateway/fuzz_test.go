package gateway

import (
	"bufio"
	"bytes"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"testing"

	"quire"
)

// FuzzRequest: what the plain parser takes, net/http takes too, and reads the
// same in it.
func FuzzRequest(f *testing.F) {
	f.Add([]byte("GET /notebook/x?a=b;c HTTP/1.1\r\nHost: a.test:1\r\nCookie: a=b; c=d\r\nX-A: \r\nx-a: 2\r\n\r\n"))
	f.Add([]byte("HEAD / HTTP/1.1\r\nHost: a\r\nConnection: Keep-Alive\r\n\r\n"))
	f.Add([]byte("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"))
	f.Add([]byte("GET / HTTP/1.1\r\nHost: a\r\n X: y\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		sameRequest(t, b)
	})
}

// sameRequest reports whether the plain parser took the request.
func sameRequest(t *testing.T, b []byte) bool {
	var h head
	ours := &http.Request{}
	if !h.parseRequest(string(b), ours) {
		return false
	}
	br := bufio.NewReader(bytes.NewReader(b))
	theirs, err := http.ReadRequest(br)
	if err != nil {
		t.Fatalf("net/http refuses %q: %v", b, err)
	}
	if br.Buffered() != 0 || theirs.ContentLength != 0 || len(theirs.TransferEncoding) != 0 || theirs.Close || theirs.Proto != "HTTP/1.1" {
		t.Fatalf("net/http sees more in %q", b)
	}
	if ours.Method != theirs.Method || ours.RequestURI != theirs.RequestURI || ours.Host != theirs.Host || !maps.EqualFunc(ours.Header, theirs.Header, slices.Equal[[]string]) {
		t.Fatalf("%q: %v %v", b, ours, theirs)
	}
	return true
}

// TestPlainHeads puts heads together from usual and odd pieces: a hundred
// thousand of them are read by both parsers.
func TestPlainHeads(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	one := func(usual string, odd ...string) string {
		if r.IntN(4) > 0 {
			return usual
		}
		return odd[r.IntN(len(odd))]
	}
	names := []string{"Accept", "accept", "X-A", "x-a", "COOKIE", "Content-Type", "Connection", "Content-Length", "Transfer-Encoding", "Upgrade", "Expect", "Trailer", "Te", "Host", "X_A", "X.A", "X A", " X", "", "Sec-Fetch-Site", "Etag", "Set-Cookie"}
	values := []string{"a", "", "a b", " a ", "\ta", "a\t", "keep-alive", "close", "Keep-Alive", "0", "5", "+5", "0x5", "5, 5", "chunked", "identity", "websocket", "100-continue", "\x00", "\x7f", "\xff", "ü", "a\rb", "a\nb", "a: b", "\r\n b"}
	field := func() string {
		return names[r.IntN(len(names))] + one(": ", ":", " : ", ":\t", "", "::") + values[r.IntN(len(values))] + one("\r\n", "\n", "\r", "\r\r\n", "")
	}
	requests, replies := 0, 0
	for range 100_000 {
		b := one("GET", "HEAD", "POST", "get", "GET ", "") + one(" ", "  ", "\t") + one("/notebook/x?a=;b", "/", "//x", "/%2f", "/\xff", "/a b", "*", "http://h/", "/#", "/\\", "/\"", "x") + one(" ", "  ") +
			one("HTTP/1.1", "HTTP/1.0", "HTTP/2.0", "http/1.1", "HTTP/1.1 ") + one("\r\n", "\n") + one("Host: a.test:80\r\n", "host: a\r\n", "Host: A\r\n", "Host: a b\r\n", "Host: x@a\r\n", "Host:\r\n", "")
		s := one("HTTP/1.1", "HTTP/1.0", "http/1.1", "HTTP/2") + one(" ", "  ") + one("200", "404", "304", "204", "101", "100", "099", "2000", "20", "+20", "-20") + one(" OK", "", " ", " a\rb", " \xff") + one("\r\n", "\n") + one("Content-Length: 5\r\n", "", "content-length: 5\r\n")
		for range r.IntN(3) {
			f := field()
			b, s = b+f, s+f
		}
		if sameRequest(t, []byte(b+one("\r\n", "\n", "\r\n\r\n", "\r\nx"))) {
			requests++
		}
		if sameReply(t, []byte(s+"\r\n")) {
			replies++
		}
	}
	if requests < 1000 || replies < 1000 {
		t.Errorf("only %d requests and %d answers were plain", requests, replies)
	}
	t.Logf("%d requests and %d answers were plain", requests, replies)
}

// FuzzReply is the same for answers.
func FuzzReply(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nSet-Cookie: a=b\r\nSet-Cookie: c=d\r\n\r\n"))
	f.Add([]byte("HTTP/1.1 304 Not Modified\r\nConnection: close\r\nEtag: \"x\"\r\n\r\n"))
	f.Add([]byte("HTTP/1.1 204 \r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		sameReply(t, b)
	})
}

func sameReply(t *testing.T, b []byte) bool {
	end := bytes.Index(b, []byte("\r\n\r\n"))
	if end < 0 {
		return false
	}
	var h head
	var ours reply
	if !h.parseReply(string(b[:end+2]), &ours) {
		return false
	}
	theirs, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(b)), &http.Request{Method: "GET"})
	if err != nil {
		t.Fatalf("net/http refuses %q: %v", b, err)
	}
	length := theirs.ContentLength
	if theirs.Body == http.NoBody {
		length = 0
	}
	delete(ours.header, "Connection") // net/http takes it out when it says close
	delete(theirs.Header, "Connection")
	if ours.status != theirs.StatusCode || ours.length != length || ours.close != theirs.Close || !maps.EqualFunc(ours.header, theirs.Header, slices.Equal[[]string]) {
		t.Fatalf("%q: %+v %+v", b, ours, theirs)
	}
	return true
}

// FuzzCookieOpen: nothing but what was sealed for a label opens for it.
func FuzzCookieOpen(f *testing.F) {
	s, err := newSealer(make([]byte, 32), gatewayNode, "app")
	if err != nil {
		f.Fatal(err)
	}
	label := quire.Label("aaaaaaaaaaaaaaaaaaaa")
	// Sealed with a fixed nonce: every process of a fuzz run must have the same.
	nonce := make([]byte, s.aead.NonceSize())
	good := cookieEncoding.EncodeToString(s.aead.Seal(nonce, nonce, []byte("grant"), s.binding(label)))
	f.Add(good, string(label))
	f.Add(good[:len(good)-1], string(label))
	f.Add(good, "aaaaaaaaaaaaaaaaaaab")
	f.Add(strings.ToUpper(good), string(label))
	f.Fuzz(func(t *testing.T, value, of string) {
		b, err := s.open(value, quire.Label(of))
		if err == nil && (string(b) != "grant" || value != good || of != string(label)) {
			t.Fatalf("%q opened for %q", value, of)
		}
	})
}

// FuzzSite: a host and path lead to a label exactly or to none, and a target is
// read in one way.
func FuzzSite(f *testing.F) {
	f.Add("aaaaaaaaaaaaaaaaaaaa.apps.localhost:8089", "/notebook/x")
	f.Add("HOST:8089", "/aaaaaaaaaaaaaaaaaaaa/notebook/%2e%2e/")
	f.Add("host:8089", "//x")
	var all []quire.Origins
	for _, apps := range []string{"http://*.apps.localhost:8089", "http://host:8089"} {
		o, err := quire.NewOrigins(quire.OriginConfig{Portal: "http://quire.localhost:8080", Apps: apps})
		if err != nil {
			f.Fatal(err)
		}
		all = append(all, o)
	}
	f.Fuzz(func(t *testing.T, host, uri string) {
		u, err := url.ParseRequestURI(uri)
		if err != nil {
			return
		}
		path, err := target(&http.Request{RequestURI: uri, URL: u})
		if err != nil {
			return
		}
		if !strings.HasPrefix(uri, path) || strings.ContainsAny(path, "?# \r\n\x00\\") {
			t.Fatalf("%q was read as %q", uri, path)
		}
		for _, o := range all {
			label, ok := o.Label(host, path)
			if !ok {
				continue
			}
			if !label.Valid() || !strings.HasPrefix(path, o.Prefix(label)) || !strings.EqualFold("http://"+host, o.Origin(label)) {
				t.Fatalf("%q %q is label %q", host, path, label)
			}
		}
		if clean, ok := appPath(uri); ok {
			again, ok := appPath(clean)
			if !ok || again != clean || strings.HasPrefix(clean, "//") || strings.Contains(clean, "\\") {
				t.Fatalf("%q became %q, then %q", uri, clean, again)
			}
		}
	})
}

// FuzzFields: nothing of the platform's passes the filter, in either direction,
// and what passes is one head.
func FuzzFields(f *testing.F) {
	f.Add("Cookie: a=b; __Host-quire_app=x\r\nX-Quire-User: m\r\nConnection: X-A\r\nX-A: 1\r\n", "Set-Cookie: __host-quire_x=1\r\nAlt-Svc: evil\r\n")
	f.Add("Cookie: =quire_app=x;quire_login = y\r\nX_Forwarded-For: 1\r\n", "Set-Cookie:  QUIRE_a=b; Domain=x\r\nLocation: //x\r\n")
	f.Fuzz(func(t *testing.T, request, answer string) {
		req, err := http.ReadRequest(bufio.NewReader(strings.NewReader("GET / HTTP/1.1\r\nHost: a\r\n" + request + "\r\n")))
		if err == nil {
			b := appendFields(nil, req.Header)
			h := b
			out, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(append([]byte("GET / HTTP/1.1\r\nHost: a\r\n"), append(h, "\r\n"...)...))))
			if err != nil {
				t.Fatalf("%q became %q: %v", request, b, err)
			}
			for k, lines := range out.Header {
				if k != "Cookie" && (!toApp(k) || len(lines) > len(req.Header[k])) {
					t.Fatalf("%q passed in %q", k, b)
				}
			}
			eachCookie(out.Header["Cookie"], func(name, _ string) {
				if name == "" || reserved(name) {
					t.Fatalf("cookie %q passed", name)
				}
			})
			for _, c := range out.Cookies() {
				if reserved(c.Name) {
					t.Fatalf("cookie %q passed", c.Name)
				}
			}
		}
		resp, err := http.ReadResponse(bufio.NewReader(strings.NewReader("HTTP/1.1 200 OK\r\n"+answer+"\r\n")), nil)
		if err != nil {
			return
		}
		s := &site{origin: "http://a.test", prefix: ""}
		out := http.Header{}
		if err := s.answerHeader(out, resp.Header, "notebook"); err != nil {
			return
		}
		if to := out.Get("Location"); to != "" {
			base, _ := url.Parse("http://a.test/notebook/")
			if u, err := base.Parse(to); err != nil || u.Host != "a.test" || u.Scheme != "http" {
				t.Fatalf("Location %q passed", to)
			}
		}
		for _, c := range (&http.Response{Header: out}).Cookies() {
			if reserved(c.Name) || c.Domain != "" {
				t.Fatalf("Set-Cookie %q passed", c)
			}
		}
		dump, err := httputil.DumpResponse(&http.Response{StatusCode: 200, ProtoMajor: 1, ProtoMinor: 1, Header: out, Body: http.NoBody}, false)
		if err != nil || strings.Count(string(dump), "\r\n\r\n") != 1 {
			t.Fatalf("%q became %q", answer, dump)
		}
	})
}

func FuzzFrames(f *testing.F) {
	f.Add([]byte("\x81\x02hi\x88\x02\x03\xe8"), 3)
	f.Fuzz(func(t *testing.T, b []byte, cut int) {
		if cut < 0 || cut > len(b) {
			return
		}
		var whole, parts frames
		whole.pass(b)
		parts.pass(b[:cut])
		parts.pass(b[cut:])
		if whole.have != parts.have || whole.left != parts.left {
			t.Fatalf("%q cut at %d: %+v %+v", b, cut, whole, parts)
		}
	})
}
