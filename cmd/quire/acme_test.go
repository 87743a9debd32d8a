package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"quire"
)

// pebble builds the authority that tests of ACME clients use.
func pebble(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "pebble")
	if out, err := exec.Command("go", "build", "-modfile=../../tools.mod", "-o", program, "github.com/letsencrypt/pebble/v2/cmd/pebble").CombinedOutput(); err != nil {
		t.Fatalf("pebble: %v\n%s", err, out)
	}
	return program
}

// names answers every question for an address, asked by TCP, with 127.0.0.1.
func names(t *testing.T) string {
	t.Helper()
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
				b := make([]byte, 1<<16)
				for {
					if _, err := io.ReadFull(c, b[:2]); err != nil {
						return
					}
					n := int(b[0])<<8 | int(b[1])
					if _, err := io.ReadFull(c, b[:n]); err != nil {
						return
					}
					end := 12 // of the question's name: lengths and labels up to a zero
					for end < n && b[end] != 0 {
						end += 1 + int(b[end])
					}
					if end+5 > n {
						return
					}
					answer := append([]byte{b[0], b[1], 0x84, 0, 0, 1, 0, 0, 0, 0, 0, 0}, b[12:end+5]...)
					if b[end+2] == 1 { // an A record; of the others there are none
						answer[7] = 1
						answer = append(answer, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 127, 0, 0, 1)
					}
					c.Write(append([]byte{byte(len(answer) >> 8), byte(len(answer))}, answer...))
				}
			}()
		}
	}()
	return l.Addr().String()
}

// A lockedBuffer is written by others.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// A real authority gives the portal its certificate for a proof on either public
// port, for the portal's names only, and a server that starts again needs it no
// more.
func TestACME(t *testing.T) {
	program, dns := pebble(t), names(t)
	for _, proof := range []string{"tls-alpn-01", "http-01"} {
		t.Run(proof, func(t *testing.T) {
			origins, err := quire.NewOrigins(quire.OriginConfig{Portal: "https://quire.example.org", Apps: "https://*.apps.example.net"})
			if err != nil {
				t.Fatal(err)
			}
			var where [3]byte
			rand.Read(where[:])
			host := fmt.Sprintf("127.%d.%d.%d", where[0], where[1], 1|where[2]&0x7f) // where nobody else listens
			dir := t.TempDir()
			own, trust := files(t), x509.NewCertPool()
			pair(t, trust, own, "acme.example.org", time.Now().Add(time.Hour))
			client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: trust, ServerName: "acme.example.org"}}}
			defer client.CloseIdleConnections()

			// start is the portal, as the server role makes it.
			var log lockedBuffer
			start := func(dir string) (secure *tls.Config, at [2]net.Addr) {
				c := defaults(true)
				c.TLS.ACME = &acmeSettings{Email: "ada@example.org", Directory: "https://" + host + ":14000/dir", AcceptTerms: true, client: client}
				conf, redirect, err := c.portalTLS(dir, origins, slog.New(slog.NewTextHandler(&log, nil)))
				if err != nil {
					t.Fatal(err)
				}
				hello := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "portal") })
				usual := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					r.Host, _, _ = strings.Cut(r.Host, ":") // as it is on port 80
					redirect.ServeHTTP(w, r)
				})
				for i, f := range []front{{h: hello, secure: conf}, {h: usual}} {
					if f.l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
						t.Fatal(err)
					}
					at[i] = f.l.Addr()
					ctx, cancel := context.WithCancel(t.Context())
					ended := make(chan error, 1)
					go func() { ended <- f.serve(ctx, slog.New(slog.DiscardHandler)) }()
					t.Cleanup(func() { cancel(); <-ended })
				}
				return conf, at
			}
			secure, at := start(dir)
			// The authority can see one of the two.
			ports := map[string]int{"tls-alpn-01": 1, "http-01": 1}
			ports[proof] = map[string]net.Addr{"tls-alpn-01": at[0], "http-01": at[1]}[proof].(*net.TCPAddr).Port
			conf, err := json.Marshal(map[string]any{"pebble": map[string]any{
				"listenAddress": host + ":14000", "managementListenAddress": host + ":15000", "certificate": own.Certificate, "privateKey": own.Key,
				"httpPort": ports["http-01"], "tlsPort": ports["tls-alpn-01"], "keyAlgorithm": "ecdsa", "retryAfter": map[string]int{"authz": 1, "order": 1},
			}})
			if err != nil {
				t.Fatal(err)
			}
			put(t, filepath.Join(dir, "pebble.json"), conf)
			cmd := exec.Command(program, "-config", filepath.Join(dir, "pebble.json"), "-dnsserver", dns)
			cmd.Env = append(os.Environ(), "PEBBLE_VA_NOSLEEP=1")
			var said lockedBuffer
			cmd.Stdout, cmd.Stderr = &said, &said
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			running := true
			stop := func() {
				if running {
					running = false
					cmd.Process.Signal(syscall.SIGKILL)
					cmd.Wait()
				}
			}
			t.Cleanup(func() {
				if stop(); t.Failed() {
					t.Log(said.String())
				}
			})
			roots := x509.NewCertPool()
			wait, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			for tick := time.NewTicker(20 * time.Millisecond); ; <-tick.C {
				res, err := client.Get("https://" + host + ":15000/roots/0")
				if err != nil {
					if wait.Err() != nil {
						t.Fatal(err)
					}
					continue
				}
				b, err := io.ReadAll(res.Body)
				res.Body.Close()
				if err != nil || !roots.AppendCertsFromPEM(b) {
					t.Fatalf("the authority's root: %s %v", b, err)
				}
				break
			}
			shows := func(at net.Addr, name string) error {
				conn, err := tls.Dial("tcp", at.String(), &tls.Config{RootCAs: roots, ServerName: name})
				if err == nil {
					conn.Close()
				}
				return err
			}
			if err := shows(at[0], "evil.example.org"); err == nil {
				t.Errorf("a certificate for a name that is not the portal's: %v", err)
			}
			if err := errors.Join(obtain(secure, "quire.example.org"), shows(at[0], "quire.example.org")); err != nil {
				t.Fatal(err)
			}
			req, err := http.NewRequest("GET", "http://"+at[1].String()+"/people", nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Host = "quire.example.org"
			res, err := new(http.Transport).RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if to := res.Header.Get("Location"); to != "https://quire.example.org/people" {
				t.Errorf("http leads to %q", to)
			}
			if stop(); strings.Contains(said.String(), "evil") {
				t.Error("the authority was asked for a name that is not the portal's")
			}
			_, again := start(dir)
			if err := shows(again[0], "quire.example.org"); err != nil {
				t.Errorf("after a restart, without the authority: %v", err)
			}
			without, _ := start(t.TempDir())
			if err := obtain(without, "quire.example.org"); err == nil || !strings.Contains(log.String(), "no certificate") {
				t.Errorf("no certificate, no authority: %v, and the log says %q", err, log.String())
			}
			kept, err := os.ReadDir(filepath.Join(dir, "acme"))
			if err != nil {
				t.Fatal(err)
			}
			if len(kept) < 2 {
				t.Errorf("it keeps %v", kept)
			}
			for _, f := range kept {
				if info, err := f.Info(); err != nil || info.Mode().Perm()&0o077 != 0 {
					t.Errorf("%s can be read by others: %v", f.Name(), err)
				}
			}
		})
	}
}
