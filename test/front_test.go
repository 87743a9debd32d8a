package test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// echoApp tells what it was told, counts what it gets, and answers in two halves.
const echoApp = `
import argparse, asyncio, json, tornado.web, tornado.websocket
p = argparse.ArgumentParser()
p.add_argument("--port", type=int)
p.add_argument("--prefix")
a = p.parse_args()
go = asyncio.Event()
def told(request):
    return json.dumps({k: request.headers.get_list("X-Forwarded-" + k) for k in ("For", "Proto", "Host")})
class Who(tornado.web.RequestHandler):
    def get(self): self.write(told(self.request))
    def post(self): self.write(str(len(self.request.body)))
class Slow(tornado.web.RequestHandler):
    async def get(self):
        self.write("one\n"); await self.flush()
        await go.wait()
        self.write("two\n")
class Go(tornado.web.RequestHandler):
    def get(self): go.set()
class Socket(tornado.websocket.WebSocketHandler):
    def check_origin(self, origin): return True
    def open(self): self.write_message(told(self.request))
    def on_message(self, m): self.write_message(m)
async def main():
    app = tornado.web.Application([(a.prefix + "/", Who), (a.prefix + "/slow", Slow), (a.prefix + "/go", Go), (a.prefix + "/socket", Socket)])
    app.listen(a.port, "127.0.0.1")
    await asyncio.Event().wait()
asyncio.run(main())
`

// told is what the app says it was told of a request.
type told struct{ For, Proto, Host []string }

// certify writes a certificate and its key, and returns who trusts it.
func certify(t *testing.T, file, key string, mode fs.FileMode, names ...string) *x509.CertPool {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	c := &x509.Certificate{SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: names[0]}, DNSNames: names, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, c, c, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	chain := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	for name, b := range map[string][]byte{file: chain, key: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, b, mode), os.Chmod(name, mode)); err != nil {
			t.Fatal(err)
		}
	}
	trust := x509.NewCertPool()
	trust.AppendCertsFromPEM(chain)
	return trust
}

// outside is the way of a browser elsewhere: from another address, by TLS, and
// lying about itself.
type outside struct{ http.Transport }

const elsewhere = "127.0.0.9"

func newOutside(trust *x509.CertPool) *outside {
	o := &outside{}
	o.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		_, port, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, err
		}
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(elsewhere)}}
		return d.DialContext(ctx, network, "127.0.0.1:"+port)
	}
	o.TLSClientConfig = &tls.Config{RootCAs: trust}
	o.ForceAttemptHTTP2 = true
	return o
}

var lies = map[string]string{"X-Forwarded-For": "6.6.6.6", "X-Real-Ip": "6.6.6.6", "Forwarded": "for=6.6.6.6", "X-Forwarded-Proto": "http", "X-Forwarded-Host": "evil.example"}

func (o *outside) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	for k, v := range lies {
		r.Header.Set(k, v)
	}
	return o.Transport.RoundTrip(r)
}

// write puts a file where it is looked for.
func write(t *testing.T, name, text string, mode fs.FileMode) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(text), mode)); err != nil {
		t.Fatal(err)
	}
}

// installEcho makes the echoing app one of the site's.
func installEcho(t *testing.T) {
	write(t, "/etc/quire/echo.py", echoApp, 0o644)
	write(t, "/etc/quire/apps/echo.json", `{"name": "echo", "title": "Echo", "icon": "gauge", "summary": "Says what it hears.", "enabled": true, "permission": "write", "order": 90,
		"needs": "/etc/quire/echo.py", "command_list": ["/usr/bin/python3", "-I", "/etc/quire/echo.py", "--port", "%(port)s", "--prefix", "%(urlPrefix)s"]}`, 0o644)
}

// openEcho opens the app and returns where it is and how to ask it.
func openEcho(t *testing.T, ctx context.Context, b *Browser) (base *url.URL, ask func(method, path string, body io.Reader, out any) error) {
	t.Helper()
	running(t, ctx, b, "/ada/Welcome")
	base, err := b.OpenApp(ctx, "/ada/Welcome", "echo")
	if err != nil {
		t.Fatal(err)
	}
	ask = func(method, path string, body io.Reader, out any) error {
		u, err := base.Parse(path)
		if err != nil {
			return err
		}
		req, err := http.NewRequestWithContext(ctx, method, u.String(), body)
		if err != nil {
			return err
		}
		return b.JSON(req, out)
	}
	Eventually(t, 20*time.Second, "the app answers", func() error {
		var who told
		return ask("GET", "", nil, &who)
	})
	return base, ask
}

// heard checks that the app was told the truth.
func heard(t *testing.T, base *url.URL, who told) {
	t.Helper()
	if fmt.Sprint(who) != fmt.Sprint(told{[]string{elsewhere}, []string{"https"}, []string{base.Host}}) {
		t.Errorf("the app was told %+v", who)
	}
}

// socket opens the app's WebSocket, hears what it was told and gets an echo.
func socket(t *testing.T, ctx context.Context, b *Browser, o *outside, base *url.URL) {
	t.Helper()
	u := *base
	u.Scheme, u.Path = "wss", base.Path+"socket"
	plain := &http.Transport{DialContext: o.DialContext, TLSClientConfig: o.TLSClientConfig.Clone()}
	defer plain.CloseIdleConnections()
	h := http.Header{"Origin": {"https://" + base.Host}, "Cookie": {b.Cookies(base.Host)}}
	for k, v := range lies {
		h.Set(k, v)
	}
	conn, _, err := websocket.Dial(ctx, u.String(), &websocket.DialOptions{HTTPHeader: h, HTTPClient: &http.Client{Transport: plain}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseNow()
	var who told
	_, msg, err := conn.Read(ctx)
	if err := errors.Join(err, json.Unmarshal(msg, &who)); err != nil {
		t.Fatal(err)
	}
	heard(t, base, who)
	if err := conn.Write(ctx, websocket.MessageText, []byte("and back")); err != nil {
		t.Fatal(err)
	}
	if _, msg, err = conn.Read(ctx); err != nil || string(msg) != "and back" {
		t.Errorf("the echo: %q %v", msg, err)
	}
}

// startNginx runs an NGINX of ours with the shipped configuration.
func startNginx(t *testing.T, www string) {
	t.Helper()
	shipped, err := os.ReadFile("../packaging/nginx/quire.conf")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write(t, dir+"/quire.conf", strings.ReplaceAll(string(shipped), "/usr/share/quire/www", www), 0o644)
	write(t, dir+"/nginx.conf", `user www-data; pid nginx.pid; error_log stderr; worker_processes 1;
events { worker_connections 256; }
http {
  include /etc/nginx/mime.types; default_type application/octet-stream; sendfile on; gzip on; access_log off;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  include quire.conf;
}`, 0o644)
	if err := os.MkdirAll("/var/log/nginx", 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("nginx", "-p", dir, "-c", dir+"/nginx.conf", "-g", "daemon off;")
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		if err := <-ended; err != nil {
			t.Errorf("nginx: %v", err)
		}
	})
	Eventually(t, 10*time.Second, "nginx listens", func() error {
		c, err := net.Dial("tcp", "127.0.0.1:443")
		if err == nil {
			c.Close()
		}
		return err
	})
}

// The shipped NGINX configuration, with a real NGINX before portal and gateway:
// people sign in, apps and their WebSockets work, everybody is known by the right
// address whatever he says of himself, and NGINX has the static files itself.
func TestBehindNginx(t *testing.T) {
	s := New(t)
	trust := certify(t, "/etc/ssl/quire/portal.pem", "/etc/ssl/quire/portal.key", 0o600, "quire.example.org", "*.apps.example.net")
	for _, end := range []string{"pem", "key"} {
		run(t, "cp", "/etc/ssl/quire/portal."+end, "/etc/ssl/quire/apps."+end)
	}
	installEcho(t)
	write(t, "/etc/quire/quire.conf", `{
  "portal": "https://quire.example.org",
  "apps": "https://*.apps.example.net",
  "listen": { "portal": "unix:/run/quire/portal.sock", "gateway": "unix:/run/quire/gateway.sock", "group": "www-data" },
  "proxies": ["unix"],
}`, 0o644)
	www := "/run/quire-www"
	if out, err := s.Run("", "assets", www); err != nil {
		t.Fatal(err, out)
	}
	out := newOutside(trust)
	s.Transport = out
	s.Start()
	group, err := user.LookupGroup("www-data")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"portal", "gateway"} {
		info, err := os.Stat("/run/quire/" + name + ".sock")
		if err != nil || info.Mode() != fs.ModeSocket|0o660 || strconv.Itoa(int(info.Sys().(*syscall.Stat_t).Gid)) != group.Gid {
			t.Errorf("the socket of the %s: %v %v", name, info, err)
		}
	}
	startNginx(t, www)
	ctx := within(t, 2*time.Minute)
	ada := s.Admin(ctx, "ada", password)
	if _, err := ada.Open(ctx, s.Setup); err != nil { // with the key in the address, for the logs
		t.Error(err)
	}

	t.Run("everybody has the right address", func(t *testing.T) {
		guess := NewBrowser(s.Portal)
		guess.http.Transport = out
		if page, err := guess.Submit(ctx, s.Portal+"/login", url.Values{"name": {"ada"}, "password": {"wrong"}}); err != nil || page.Status != 401 {
			t.Errorf("a wrong password: %+v %v", page, err)
		}
		var events []struct{ Verb, Address string }
		if err := ada.API(ctx, "GET", "/me/events", nil, &events); err != nil || len(events) < 2 {
			t.Fatal(events, err)
		}
		failed := false
		for _, e := range events {
			failed = failed || e.Verb == "login.failed"
			if e.Address != elsewhere {
				t.Errorf("%s came from %q", e.Verb, e.Address)
			}
		}
		if !failed {
			t.Errorf("no wrong password in %v", events)
		}
	})

	t.Run("apps work, and are told who asks", func(t *testing.T) {
		base, ask := openEcho(t, ctx, ada)
		var who told
		if err := ask("GET", "", nil, &who); err != nil {
			t.Fatal(err)
		}
		heard(t, base, who)
		socket(t, ctx, ada, out, base)
		var n int
		if err := ask("POST", "", io.LimitReader(zeros{}, 3<<20), &n); err != nil || n != 3<<20 {
			t.Errorf("an upload: %d arrived, %v", n, err)
		}
		req, err := http.NewRequestWithContext(ctx, "GET", base.String()+"slow", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Cookie", ada.Cookies(base.Host))
		req.Header.Set("Sec-Fetch-Site", "same-origin")
		res, err := out.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		r := bufio.NewReader(res.Body)
		if line, err := r.ReadString('\n'); err != nil || line != "one\n" {
			t.Fatalf("the first half: %q %v", line, err)
		}
		if err := ask("GET", "go", nil, nil); err != nil {
			t.Fatal(err)
		}
		if rest, err := io.ReadAll(r); err != nil || string(rest) != "two\n" {
			t.Errorf("the second half: %q %v", rest, err)
		}
	})

	get := func(address string, edit ...string) *http.Response {
		t.Helper()
		req, err := http.NewRequestWithContext(ctx, "GET", address, nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i+1 < len(edit); i += 2 {
			req.Header.Set(edit[i], edit[i+1])
		}
		res, err := out.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { res.Body.Close() })
		return res
	}
	for address, want := range map[string]string{
		"http://quire.example.org/people?q=a":                         "307 https://quire.example.org/people?q=a",
		"https://quire.example.org/healthz":                           "200 ",
		"https://quire.example.org/assets/NOTICES.txt":                "200 ", // not of NGINX
		"https://quire.example.org/assets/portal-AAAAAAAA.js":         "404 ",
		"https://aaaaaaaaaaaaaaaaaaaa.apps.example.net/_quire/health": "404 ",
	} {
		if res := get(address); fmt.Sprint(res.StatusCode, " ", res.Header.Get("Location")) != want {
			t.Errorf("%s: %d %s, want %s", address, res.StatusCode, res.Header.Get("Location"), want)
		}
	}
	if c, err := net.Dial("tcp", "127.0.0.1:8089"); err != nil {
		t.Error(err)
	} else {
		fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: aaaaaaaaaaaaaaaaaaaa.apps.example.net\r\n\r\n")
		if b, _ := io.ReadAll(c); !strings.HasPrefix(string(b), "HTTP/1.0 400") {
			t.Errorf("the server's way to the gateway answers browsers: %q", b)
		}
		c.Close()
	}

	t.Run("nginx has the static files itself", func(t *testing.T) {
		if out, err := s.Run("", "stop", "--sessions"); err != nil {
			t.Fatalf("stop --sessions: %v %s", err, out)
		}
		<-s.done
		s.cmd = nil
		if res := get("https://quire.example.org/"); res.StatusCode != 502 {
			t.Errorf("the portal is stopped and answers %d", res.StatusCode)
		}
		files, err := filepath.Glob(www + "/assets/portal-*.js")
		if err != nil || len(files) != 1 {
			t.Fatal(files, err)
		}
		plain, err := os.ReadFile(files[0])
		if err != nil {
			t.Fatal(err)
		}
		zipped, err := os.ReadFile(files[0] + ".gz")
		if err != nil {
			t.Fatal(err)
		}
		address := "https://quire.example.org/assets/" + filepath.Base(files[0])
		for coding, want := range map[string][]byte{"identity": plain, "gzip": zipped} {
			res := get(address, "Accept-Encoding", coding)
			b, err := io.ReadAll(res.Body)
			if err != nil || res.StatusCode != 200 || string(b) != string(want) || (res.Header.Get("Content-Encoding") == "gzip") != (coding == "gzip") {
				t.Errorf("%s: %d, %d bytes, %v", coding, res.StatusCode, len(b), err)
			}
			if h := res.Header; !strings.Contains(h.Get("Cache-Control"), "immutable") || h.Get("X-Content-Type-Options") != "nosniff" || !strings.Contains(h.Get("Content-Type"), "javascript") {
				t.Errorf("%s: %v", coding, h)
			}
		}
	})

	log, err := os.ReadFile("/var/log/nginx/quire.log")
	if err != nil || !strings.Contains(string(log), elsewhere+" ") || !strings.Contains(string(log), "/setup\" ") {
		t.Errorf("nginx's log: %v\n%s", err, log)
	}
	for _, secret := range ada.Secrets() {
		if strings.Contains(string(log), secret) {
			t.Errorf("nginx's log has a secret: %.6s…", secret)
		}
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

// Without a proxy: Quire has the certificates itself, on both public listeners.
// The server's own way to the gateway goes on beside them on the same port, http
// leads to https, and a renewal is seen by the next connection.
func TestOwnCertificates(t *testing.T) {
	s := New(t)
	const dir = "/etc/quire/tls/"
	trust := certify(t, dir+"portal.pem", dir+"portal.key", 0o600, "quire.example.org")
	apps := func() {
		t.Helper()
		more := certify(t, dir+"new.pem", dir+"new.key", 0o600, "*.apps.example.net")
		trust = more
		for _, end := range []string{"pem", "key"} {
			run(t, "setfacl", "-m", "u:quire-gateway:r", dir+"new."+end)
			run(t, "mv", dir+"new."+end, dir+"apps."+end)
		}
	}
	installEcho(t)
	write(t, "/etc/quire/quire.conf", `{
  "portal": "https://quire.example.org",
  "apps": "https://*.apps.example.net:8443",
  "listen": { "portal": "127.0.0.1:443", "gateway": "127.0.0.1:8443", "redirect": "127.0.0.1:80" },
  "tls": {
    "portal": { "certificate": "`+dir+`portal.pem", "key": "`+dir+`portal.key" },
    "gateway": { "certificate": "`+dir+`apps.pem", "key": "`+dir+`apps.key" },
  },
}`, 0o644)
	if out, err := s.Run("", "up"); err == nil || !strings.Contains(out, "tls.portal: the account quire-server cannot read "+dir+"portal.pem") {
		t.Fatalf("a certificate that the server cannot read: %v %s", err, out)
	}
	for _, end := range []string{"pem", "key"} {
		run(t, "setfacl", "-m", "u:quire-server:r", dir+"portal."+end)
	}
	if out, err := s.Run("", "up"); err == nil || !strings.Contains(out, "tls.gateway: open "+dir+"apps.pem: no such file") {
		t.Fatalf("no certificate for the gateway: %v %s", err, out)
	}
	portal := newOutside(trust)
	apps()
	s.Transport = bySuffix{"quire.example.org": portal, "apps.example.net": newOutside(trust)}
	s.Start()
	if strings.Contains(s.Output(), "Warning") {
		t.Errorf("it warns: %s", s.Output())
	}
	ctx := within(t, 2*time.Minute)
	ada := s.Admin(ctx, "ada", password)
	var events []struct{ Verb, Address string }
	if err := ada.API(ctx, "GET", "/me/events", nil, &events); err != nil || len(events) == 0 || events[0].Address != elsewhere {
		t.Errorf("the log: %v %v", events, err)
	}
	base, ask := openEcho(t, ctx, ada)
	var who told
	if err := ask("GET", "", nil, &who); err != nil {
		t.Fatal(err)
	}
	heard(t, base, who)
	socket(t, ctx, ada, newOutside(trust), base)

	before := trust
	apps()
	for _, c := range []struct {
		what  string
		trust *x509.CertPool
		want  bool
	}{{"the new one", trust, true}, {"the old one", before, false}} {
		conn, err := tls.Dial("tcp", "127.0.0.1:8443", &tls.Config{RootCAs: c.trust, ServerName: base.Hostname()})
		if err == nil {
			conn.Close()
		}
		if (err == nil) != c.want {
			t.Errorf("%s after a renewal: %v", c.what, err)
		}
	}

	for address, want := range map[string]string{
		"http://quire.example.org/people":         "https://quire.example.org/people",
		"http://" + base.Hostname() + base.Path:   base.String(),
		"http://quire.example.org:80/login?x=1&y": "https://quire.example.org/login?x=1&y",
	} {
		req, err := http.NewRequestWithContext(ctx, "GET", address, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := portal.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != 307 || res.Header.Get("Location") != want {
			t.Errorf("%s: %d %s", address, res.StatusCode, res.Header.Get("Location"))
		}
	}
	s.Kill("server") // the listeners are the supervisor's
	Eventually(t, 10*time.Second, "the portal answers again", func() error { return ada.API(ctx, "GET", "/me", nil, nil) })
	page, err := ada.Open(ctx, s.Portal+"/admin")
	if err != nil || strings.Contains(page.Body, "plain http") || page.Header.Get("Strict-Transport-Security") == "" {
		t.Errorf("the admin page: %v", err)
	}
}

// bySuffix chooses the way by the end of the host's name.
type bySuffix map[string]http.RoundTripper

func (b bySuffix) RoundTrip(r *http.Request) (*http.Response, error) {
	for end, way := range b {
		if strings.HasSuffix(r.URL.Hostname(), end) {
			return way.RoundTrip(r)
		}
	}
	return nil, errors.New("no way to " + r.URL.Host)
}
