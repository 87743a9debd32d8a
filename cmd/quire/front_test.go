package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"quire"
)

// pair writes a certificate for a name that is good until the given time, and
// its key; trust believes it from then on.
func pair(t *testing.T, trust *x509.CertPool, f *certificateFiles, name string, until time.Time) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: until}
	der, err := x509.CreateCertificate(rand.Reader, c, c, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	chain := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	trust.AppendCertsFromPEM(chain)
	put(t, f.Certificate, chain)
	put(t, f.Key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}))
}

func put(t *testing.T, name string, b []byte) {
	t.Helper()
	if err := errors.Join(os.WriteFile(name+".new", b, 0o600), os.Rename(name+".new", name)); err != nil {
		t.Fatal(err)
	}
}

func files(t *testing.T) *certificateFiles {
	dir := t.TempDir()
	return &certificateFiles{Certificate: filepath.Join(dir, "c.pem"), Key: filepath.Join(dir, "c.key")}
}

// A certificate is exchanged under a server that runs, by files that fit; files
// that do not leave the old one, and the log says why, once.
func TestCertificateFollowsItsFiles(t *testing.T) {
	f, trust := files(t), x509.NewCertPool()
	day := time.Now().Add(24 * time.Hour)
	pair(t, trust, f, "one.example.org", day)
	var log bytes.Buffer
	c, err := newCertificate(f, "one.example.org", slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Proto) })
	go func() { ended <- front{l: l, h: h, secure: c.config()}.serve(ctx, slog.New(slog.DiscardHandler)) }()
	t.Cleanup(func() { cancel(); <-ended })
	shows := func(name string, version uint16) error {
		conn, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{RootCAs: trust, ServerName: name, MaxVersion: version})
		if err == nil {
			conn.Close()
		}
		return err
	}
	for version, want := range map[uint16]bool{tls.VersionTLS11: false, tls.VersionTLS12: true, tls.VersionTLS13: true} {
		if err := shows("one.example.org", version); (err == nil) != want {
			t.Errorf("%s: %v", tls.VersionName(version), err)
		}
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: trust, ServerName: "one.example.org"}, ForceAttemptHTTP2: true}}
	defer client.CloseIdleConnections()
	res, err := client.Get("https://" + l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.ProtoMajor != 2 {
		t.Errorf("it speaks %s", res.Proto)
	}

	other := files(t)
	pair(t, trust, other, "other.example.org", day)
	key, err := os.ReadFile(other.Key)
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		what, shows, says string
		do                func()
	}{
		{"nothing new", "one.example.org", "", func() {}},
		{"a renewal", "two.example.org", "two.example.org", func() { pair(t, trust, f, "two.example.org", day) }},
		{"another key", "two.example.org", "does not match", func() { put(t, f.Key, key) }},
		{"the certificate to that key", "other.example.org", "other.example.org", func() {
			b, err := os.ReadFile(other.Certificate)
			if err != nil {
				t.Fatal(err)
			}
			put(t, f.Certificate, b)
		}},
		{"half a file", "other.example.org", "certificate", func() { put(t, f.Certificate, []byte("-----BEGIN CERTIFICATE-----\nMIIB")) }},
		{"no file", "other.example.org", "no such file", func() {
			if err := os.Remove(f.Certificate); err != nil {
				t.Fatal(err)
			}
		}},
		{"one that has expired", "other.example.org", "expired", func() { pair(t, trust, f, "old.example.org", time.Now().Add(-time.Hour)) }},
		{"a key for everybody", "other.example.org", "chmod o-r", func() {
			pair(t, trust, f, "three.example.org", day)
			if err := os.Chmod(f.Key, 0o644); err != nil {
				t.Fatal(err)
			}
		}},
		{"closed again", "three.example.org", "three.example.org", func() {
			if err := os.Chmod(f.Key, 0o600); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		log.Reset()
		step.do()
		for range 3 {
			if err := shows(step.shows, 0); err != nil {
				t.Errorf("%s: %v", step.what, err)
			}
		}
		kept := strings.Count(log.String(), "the old one stays")
		if bad := !strings.HasSuffix(step.says, ".example.org") && step.says != ""; !strings.Contains(log.String(), step.says) || bad != (kept == 1) || kept > 1 {
			t.Errorf("%s: the log says %q", step.what, log.String())
		}
	}
}

// Keys as OpenSSL encrypts them are opened by their passphrase and by nothing
// else.
func TestEncryptedKeys(t *testing.T) {
	for _, c := range []struct {
		what string
		args []string
	}{
		{"PKCS#8", []string{"pkcs8", "-topk8", "-v2", "aes-256-cbc", "-passout", "pass:sesame"}},
		{"PKCS#8 by scrypt", []string{"pkcs8", "-topk8", "-scrypt", "-passout", "pass:sesame"}},
		{"PKCS#8 by 3DES", []string{"pkcs8", "-topk8", "-v2", "des3", "-v2prf", "hmacWithSHA1", "-passout", "pass:sesame"}},
		{"the older form", []string{"ec", "-aes256", "-passout", "pass:sesame"}},
	} {
		t.Run(c.what, func(t *testing.T) {
			f, trust := files(t), x509.NewCertPool()
			pair(t, trust, f, "one.example.org", time.Now().Add(time.Hour))
			out, err := exec.Command("openssl", append(c.args, "-in", f.Key, "-out", f.Key+".sealed")...).CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			f.Key += ".sealed"
			if err := os.Chmod(f.Key, 0o600); err != nil {
				t.Fatal(err)
			}
			if b, err := os.ReadFile(f.Key); err != nil || !strings.Contains(string(b), "ENCRYPTED") {
				t.Fatalf("the key is not encrypted: %s %v", b, err)
			}
			if _, err := f.load(time.Now()); err == nil || !strings.Contains(err.Error(), "passphrase_file") {
				t.Errorf("without a passphrase: %v", err)
			}
			f.PassphraseFile = f.Key + ".word"
			for word, want := range map[string]bool{"sesame\n": true, "sesame": true, "simsim\n": false, "": false} {
				put(t, f.PassphraseFile, []byte(word))
				if got, err := f.load(time.Now()); (err == nil) != want || want != (got != nil) || err != nil && !strings.Contains(err.Error(), "passphrase does not open") {
					t.Errorf("%q: %v", word, err)
				}
			}
		})
	}
}

// What leads from http to https leads nowhere else.
func TestToHTTPS(t *testing.T) {
	const label = "abcdefghijklmnopqr23"
	wild := quire.OriginConfig{Portal: "https://quire.example.org", Apps: "https://*.apps.example.net:8443", Aliases: []string{"old.example.org"}}
	shared := quire.OriginConfig{Portal: "https://quire.example.org", Apps: "https://apps.example.org:8443"}
	half := quire.OriginConfig{Portal: "https://quire.example.org", Apps: "http://*.apps.example.net"}
	for _, c := range []struct {
		o                  quire.OriginConfig
		method, host, path string
		status             int
		to                 string
	}{
		{wild, "GET", "quire.example.org", "/a/b?c=d", 307, "https://quire.example.org/a/b?c=d"},
		{wild, "HEAD", "QUIRE.example.org:80", "/", 307, "https://quire.example.org/"},
		{wild, "GET", "old.example.org", "/x", 307, "https://quire.example.org/x"},
		{wild, "GET", label + ".apps.example.net", "/notebook/", 307, "https://" + label + ".apps.example.net:8443/notebook/"},
		{wild, "GET", "quire.example.org", "//evil.example/x", 307, "https://quire.example.org/evil.example/x"},
		{wild, "GET", "quire.example.org", "/%2f%2fevil.example", 307, "https://quire.example.org/evil.example"},
		{wild, "POST", "quire.example.org", "/login", 403, ""},
		{wild, "GET", "evil.example", "/", 421, ""},
		{wild, "GET", "quire.example.org.evil.example", "/", 421, ""},
		{wild, "GET", "short.apps.example.net", "/", 421, ""},
		{wild, "GET", label + ".x.apps.example.net", "/", 421, ""},
		{wild, "GET", "", "/", 421, ""},
		{shared, "GET", "apps.example.org", "/" + label + "/notebook/", 307, "https://apps.example.org:8443/" + label + "/notebook/"},
		{shared, "GET", "apps.example.org", "/", 421, ""},
		{half, "GET", label + ".apps.example.net", "/", 421, ""},
	} {
		o, err := quire.NewOrigins(c.o)
		if err != nil {
			t.Fatal(err)
		}
		r := httptest.NewRequest(c.method, "http://x"+c.path, nil)
		r.Host = c.host
		w := httptest.NewRecorder()
		toHTTPS(o).ServeHTTP(w, r)
		if w.Code != c.status || w.Header().Get("Location") != c.to {
			t.Errorf("%s %s%s: %d %s", c.method, c.host, c.path, w.Code, w.Header().Get("Location"))
		}
	}
}

// What does not fit together in front stops the start with a sentence.
func TestFrontSettings(t *testing.T) {
	const pair = `{"certificate": "/c", "key": "/k"}`
	for text, want := range map[string]string{
		`{}`: "",
		`{"listen": {"portal": "unix:/run/q.sock", "group": "www-data"}, "proxies": ["unix", "10.0.0.0/8"]}`:                                               "",
		`{"listen": {"portal": "unix:/run/q.sock"}, "proxies": ["unix"]}`:                                                                                  "listen.group",
		`{"listen": {"gateway": "unix:/run/q.sock", "group": "www-data"}}`:                                                                                 `"unix"`,
		`{"listen": {"gateway": "unix:q.sock", "group": "www-data"}, "proxies": ["unix"]}`:                                                                 "listen.gateway must be",
		`{"listen": {"gateway": "unix:/run/../q.sock", "group": "www-data"}, "proxies": ["unix"]}`:                                                         "listen.gateway must be",
		`{"listen": {"portal": "unix:/run/q.sock", "group": "w"}, "proxies": ["unix"], "tls": {"portal": ` + pair + `}}`:                                   "not tls.portal",
		`{"listen": {"redirect": "unix:/run/q.sock"}}`:                                                                                                     "listen.redirect",
		`{"listen": {"redirect": ":80"}}`:                                                                                                                  "neither",
		`{"listen": {"redirect": ":80"}, "portal": "https://q.example.org"}`:                                                                               "",
		`{"proxies": ["everybody"]}`:                                                                                                                       "believed proxy",
		`{"tls": {"portal": ` + pair + `}}`:                                                                                                                "",
		`{"tls": {"portal": {"certificate": "/c"}}}`:                                                                                                       "tls.portal needs",
		`{"tls": {"gateway": {"certificate": "c", "key": "/k"}}}`:                                                                                          "tls.gateway needs",
		`{"portal": "http://q.example.org", "tls": {"portal": ` + pair + `}}`:                                                                              "https://",
		`{"apps": "http://*.q.example.org", "tls": {"gateway": ` + pair + `}}`:                                                                             "https://",
		`{"portal": "https://q.example.org", "tls": {"acme": {"accept_terms": true}}}`:                                                                     "",
		`{"portal": "https://q.example.org", "tls": {"acme": {"email": "a@example.org"}}}`:                                                                 "accept_terms",
		`{"portal": "https://q.example.org:8443", "tls": {"acme": {"accept_terms": true}}}`:                                                                "public name",
		`{"portal": "https://192.0.2.1", "tls": {"acme": {"accept_terms": true}}}`:                                                                         "public name",
		`{"portal": "http://q.example.org", "tls": {"acme": {"accept_terms": true}}}`:                                                                      "public name",
		`{"tls": {"acme": {"accept_terms": true}}}`:                                                                                                        "public name",
		`{"portal": "https://q.example.org", "tls": {"acme": {"accept_terms": true, "directory": "http://x"}}}`:                                            "directory",
		`{"portal": "https://q.example.org", "tls": {"acme": {"accept_terms": true}, "portal": ` + pair + `}}`:                                             "one of them",
		`{"portal": "https://q.example.org", "listen": {"portal": "unix:/s", "group": "w"}, "proxies": ["unix"], "tls": {"acme": {"accept_terms": true}}}`: "of no use",
		`{"tls": {"portal": {"certificate": "/c", "key": "/k", "pass": "x"}}}`:                                                                             `"pass"`,
	} {
		c := defaults(true)
		err := decodeConfig([]byte(text), &c)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(fmt.Sprint(err), want)) {
			t.Errorf("%s: %v", text, err)
		}
	}
	c := defaults(true)
	if err := decodeConfig([]byte(`{"tls": {"portal": `+pair+`, "gateway": `+pair+`}}`), &c); err != nil {
		t.Fatal(err)
	}
	if o := c.origins(443, 8443); o.Portal != "https://quire.localhost:443" || o.Apps != "https://*.apps.localhost:8443" {
		t.Errorf("%+v", o)
	}
	if c.checkHost() == nil {
		t.Error("--host with certificates")
	}
	if o := (Config{}).origins(0, 0); o.Portal != "http://quire.localhost" || o.Apps != "http://*.apps.localhost" {
		t.Errorf("%+v", o)
	}
}

// Whoever starts a site that people reach in the clear is told.
func TestWarning(t *testing.T) {
	for _, c := range []struct {
		portal, apps string
		want         int
	}{
		{"http://quire.localhost:8080", "http://*.apps.localhost:8089", 0}, {"https://q.example.org", "https://*.a.example.net", 0},
		{"http://10.0.0.1:8080", "http://10.0.0.1:8089", 2}, {"https://q.example.org", "http://*.a.example.net", 1}, {"http://127.0.0.1:8080", "http://127.0.0.1:8089", 0},
	} {
		var b bytes.Buffer
		Config{Portal: c.portal, Apps: c.apps}.warn(&b)
		if strings.Count(b.String(), "Warning: people reach http://") != c.want {
			t.Errorf("%s, %s: %q", c.portal, c.apps, b.String())
		}
	}
}

// A unix socket is not put where somebody else could exchange it, nor over
// something that is not one, nor over one that answers.
func TestSocketPlaces(t *testing.T) {
	var c Config
	c.Listen.Group = groupOfMine(t)
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "s")
	l, err := c.listen("unix:" + path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("%v %v", info, err)
	}
	if _, err := c.listen("unix:" + path); err == nil {
		t.Error("over one that answers")
	}
	l.Close()
	if l, err = c.listen("unix:" + path); err != nil {
		t.Error("over one that was left behind:", err)
	} else {
		l.Close()
	}
	put(t, path, nil)
	if _, err := c.listen("unix:" + path); err == nil {
		t.Error("over a file")
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := c.listen("unix:" + filepath.Join(dir, "t")); err == nil {
		t.Error("in everybody's directory")
	}
	c.Listen.Group = "no-such-group"
	if _, err := c.listen("unix:" + path); err == nil {
		t.Error("for no group")
	}
}

// A listener is reached where it is, and by loopback if it is everywhere.
func TestReach(t *testing.T) {
	for at, want := range map[string]string{"127.0.0.2:0": "127.0.0.2", "127.0.0.1:0": "127.0.0.1", "0.0.0.0:0": "127.0.0.1", ":0": "127.0.0.1"} {
		l, err := net.Listen("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		if got := reach(l); got != fmt.Sprintf("%s:%d", want, portOf(l)) {
			t.Errorf("%s is reached at %s", at, got)
		}
		if c, err := net.Dial("tcp", reach(l)); err != nil {
			t.Errorf("%s: %v", at, err)
		} else {
			c.Close()
		}
		l.Close()
	}
}

func groupOfMine(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("id", "-gn").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}
