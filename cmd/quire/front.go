package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/youmark/pkcs8"
	"golang.org/x/crypto/acme"
	"golang.org/x/crypto/acme/autocert"

	"quire"
	"quire/web"
)

// This file is what stands between the roles and the world: certificates, the
// way from http to https, and the files that a proxy serves for us.

// certificateFiles are a certificate with its chain and the key to it.
type certificateFiles struct {
	Certificate    string `json:"certificate"`
	Key            string `json:"key"`
	PassphraseFile string `json:"passphrase_file"` // "" = the key is not encrypted
}

func (f *certificateFiles) names() []string {
	names := []string{f.Certificate, f.Key}
	if f.PassphraseFile != "" {
		names = append(names, f.PassphraseFile)
	}
	return names
}

// acmeSettings is an authority that gives the portal its certificate (RFC 8555).
type acmeSettings struct {
	Email       string `json:"email"`
	Directory   string `json:"directory"` // "" = the one that autocert knows
	AcceptTerms bool   `json:"accept_terms"`

	client *http.Client // nil: the usual one; tests have an authority of their own
}

// check finds what an authority could not prove or would not take.
func (a *acmeSettings) check(c Config) error {
	_, unix := socketPath(c.Listen.Portal)
	u, err := url.Parse(c.Portal)
	switch {
	case c.TLS.Portal != nil:
		return errors.New("tls.acme and tls.portal are two ways to one certificate: set one of them")
	case unix:
		return errors.New("listen.portal is a unix socket, so the proxy in front has the certificate, and tls.acme is of no use")
	case !a.AcceptTerms:
		return errors.New("tls.acme: read the terms of the authority, then set accept_terms")
	case err != nil || u.Scheme != "https" || u.Port() != "" || !strings.Contains(u.Hostname(), ".") || net.ParseIP(u.Hostname()) != nil:
		return fmt.Errorf("tls.acme needs portal to be a public name without a port, like https://quire.example.org, not %q", c.Portal)
	case a.Directory != "" && !strings.HasPrefix(a.Directory, "https://"):
		return errors.New("tls.acme: the directory begins with https://")
	}
	return nil
}

// manager gets and renews the certificate of the portal's names, and keeps it
// with its keys in dir.
func (a *acmeSettings) manager(dir string, hosts ...string) *autocert.Manager {
	return &autocert.Manager{
		Prompt: autocert.AcceptTOS, // accept_terms was checked
		Cache:  autocert.DirCache(dir), HostPolicy: autocert.HostWhitelist(hosts...), Email: a.Email,
		Client: &acme.Client{DirectoryURL: cmp.Or(a.Directory, autocert.DefaultACMEDirectory), HTTPClient: a.client, UserAgent: "quire/" + version},
	}
}

// portalTLS chooses, once, where the portal's certificate comes from. An
// authority may want to see a proof where people are led to https.
func (c Config) portalTLS(dir string, origins quire.Origins, log *slog.Logger) (secure *tls.Config, redirect http.Handler, err error) {
	redirect = toHTTPS(origins)
	host := hostOf(origins.Portal())
	switch {
	case c.TLS.Portal != nil:
		cert, err := newCertificate(c.TLS.Portal, host, log)
		if err != nil {
			return nil, nil, err
		}
		secure = cert.config()
	case c.TLS.ACME != nil:
		m := c.TLS.ACME.manager(filepath.Join(dir, "acme"), append([]string{host}, c.Hosts...)...)
		secure, redirect = m.TLSConfig(), m.HTTPHandler(redirect)
		secure.GetCertificate = complain(m, log)
	}
	return secure, redirect, nil
}

// obtain has the certificate before the first browser comes, which would not wait
// for an authority. What goes wrong is in the log, and tried again for browsers.
func obtain(secure *tls.Config, host string) error {
	_, err := secure.GetCertificate(&tls.ClientHelloInfo{ServerName: host, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}})
	return err
}

// complain has the log say why there is no certificate for one of our own names:
// to the browser it is a broken connection. The same once more is not news.
func complain(m *autocert.Manager, log *slog.Logger) func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	var last atomic.Value
	return func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		c, err := m.GetCertificate(hello)
		if err != nil && m.HostPolicy(context.Background(), hello.ServerName) == nil && last.Swap(err.Error()) != err.Error() {
			log.Warn("no certificate", "name", hello.ServerName, "problem", err.Error())
		}
		return c, err
	}
}

// checkFront finds what does not fit together in front of the roles.
func (c Config) checkFront() error {
	if _, err := quire.NewProxies(c.Proxies); err != nil {
		return err
	}
	for _, side := range []struct {
		name, listen, origin string
		files                *certificateFiles
	}{{"portal", c.Listen.Portal, c.Portal, c.TLS.Portal}, {"gateway", c.Listen.Gateway, c.Apps, c.TLS.Gateway}} {
		if path, unix := socketPath(side.listen); unix {
			switch {
			case !filepath.IsAbs(path) || filepath.Clean(path) != path || len(path) > 107:
				return fmt.Errorf("listen.%s must be unix: and an absolute, plain path of at most 107 characters", side.name)
			case c.Listen.Group == "":
				return fmt.Errorf("listen.%s is a unix socket, so listen.group must name the group that may connect, for example www-data", side.name)
			case !c.proxies().Unix():
				return fmt.Errorf(`listen.%s is a unix socket, so a proxy is in front, and proxies must hold "unix"; else everybody has the same address`, side.name)
			case side.files != nil:
				return fmt.Errorf("listen.%s is a unix socket, so the proxy in front speaks TLS, not tls.%s", side.name, side.name)
			}
		}
		if side.files == nil {
			continue
		}
		for _, name := range side.files.names() {
			if !filepath.IsAbs(name) {
				return fmt.Errorf("tls.%s needs a certificate and a key, as absolute paths", side.name)
			}
		}
		if strings.HasPrefix(side.origin, "http://") {
			return fmt.Errorf("tls.%s is set, so the address must begin with https://, not %s", side.name, side.origin)
		}
	}
	if c.TLS.ACME != nil {
		if err := c.TLS.ACME.check(c); err != nil {
			return err
		}
	}
	secure := c.TLS.Portal != nil || c.TLS.Gateway != nil || strings.HasPrefix(c.Portal, "https://") || strings.HasPrefix(c.Apps, "https://")
	switch {
	case strings.HasPrefix(c.Listen.Redirect, "unix:"):
		return errors.New("listen.redirect is an address like :80; behind a unix socket the proxy redirects")
	case c.Listen.Redirect != "" && !secure:
		return errors.New("listen.redirect leads to https, and neither portal nor apps is reached by it")
	}
	return nil
}

// checkHost refuses what "quire up --host" cannot be had with: it makes plain
// addresses of its own.
func (c Config) checkHost() error {
	for _, addr := range []string{c.Listen.Portal, c.Listen.Gateway} {
		if _, unix := socketPath(addr); unix {
			return errors.New("with a unix socket, the addresses are the proxy's: set portal and apps in the configuration instead of --host")
		}
	}
	if c.TLS.Portal != nil || c.TLS.Gateway != nil || c.TLS.ACME != nil {
		return errors.New("--host makes addresses without TLS: set portal and apps in the configuration instead")
	}
	return nil
}

// checkCertificates reads the certificates once, so that what is wrong with them
// is said at the start and not in a role's log.
func (c Config) checkCertificates(who people) error {
	for _, side := range []struct {
		name  string
		files *certificateFiles
		as    account
	}{{"portal", c.TLS.Portal, who.server}, {"gateway", c.TLS.Gateway, who.gateway}} {
		if side.files == nil {
			continue
		}
		if _, err := side.files.load(time.Now()); err != nil && !errors.Is(err, errExpired) {
			return fmt.Errorf("tls.%s: %w", side.name, err)
		}
		if !who.separate {
			continue
		}
		for _, name := range side.files.names() {
			test := exec.Command("test", "-r", name)
			test.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: side.as.UID, Gid: side.as.GID}}
			if err := test.Run(); err != nil {
				return fmt.Errorf("tls.%s: the account %s cannot read %s (docs/admin/front.md says how to let it)", side.name, side.as.Name, name)
			}
		}
	}
	return nil
}

var errExpired = errors.New("the certificate has expired")

// load reads the files. With errExpired the certificate comes too.
func (f *certificateFiles) load(now time.Time) (*tls.Certificate, error) {
	chain, err := os.ReadFile(f.Certificate)
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(f.Key)
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o004 != 0 {
		return nil, fmt.Errorf("everybody can read the key %s: chmod o-r it", f.Key)
	}
	key, err := os.ReadFile(f.Key)
	if err != nil {
		return nil, err
	}
	if key, err = f.decrypt(key); err != nil {
		return nil, err
	}
	c, err := tls.X509KeyPair(chain, key)
	if err != nil {
		return nil, fmt.Errorf("%s and %s: %w", f.Certificate, f.Key, err)
	}
	if now.After(c.Leaf.NotAfter) {
		return &c, fmt.Errorf("%s: %w on %s", f.Certificate, errExpired, c.Leaf.NotAfter.Format(time.DateOnly))
	}
	return &c, nil
}

// decrypt makes a plain PEM key of an encrypted one: PKCS#8 as OpenSSL writes it
// today, or the older form with the cipher in the PEM's head.
func (f *certificateFiles) decrypt(text []byte) ([]byte, error) {
	for rest := text; ; {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			return text, nil // X509KeyPair says what is wrong with it
		}
		//lint:ignore SA1019 an old key file is still a key file; its cipher protects nothing once the file is read
		old := x509.IsEncryptedPEMBlock(b)
		if b.Type != "ENCRYPTED PRIVATE KEY" && !old {
			continue
		}
		if f.PassphraseFile == "" {
			return nil, fmt.Errorf("the key %s is encrypted, and there is no passphrase_file", f.Key)
		}
		word, err := os.ReadFile(f.PassphraseFile)
		if err != nil {
			return nil, err
		}
		word = []byte(strings.TrimRight(string(word), "\r\n"))
		if old {
			//lint:ignore SA1019 as above
			der, err := x509.DecryptPEMBlock(b, word)
			if err != nil {
				return nil, fmt.Errorf("the key %s: the passphrase does not open it", f.Key)
			}
			return pem.EncodeToMemory(&pem.Block{Type: b.Type, Bytes: der}), nil
		}
		key, err := pkcs8.ParsePKCS8PrivateKey(b.Bytes, word)
		if err != nil {
			return nil, fmt.Errorf("the key %s: the passphrase does not open it (%w)", f.Key, err)
		}
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return nil, err
		}
		return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
	}
}

// A certificate follows its files: each handshake looks whether they are still
// the same, so a renewal needs no restart and nothing has to watch for it. New
// files that cannot be used leave the old certificate in force.
type certificate struct {
	files *certificateFiles
	host  string // the certificate should name it
	log   *slog.Logger

	mu    sync.Mutex
	stamp string
	now   *tls.Certificate
}

// newCertificate fails where there is nothing to begin with.
func newCertificate(files *certificateFiles, host string, log *slog.Logger) (*certificate, error) {
	c := &certificate{files: files, host: host, log: log, stamp: files.stamp()}
	got, err := files.load(time.Now())
	if err != nil && !errors.Is(err, errExpired) {
		return nil, err
	}
	if err != nil {
		log.Warn("certificate", "problem", err.Error())
	}
	c.take(got)
	return c, nil
}

// config is the TLS of a port for browsers: 1.2 and newer, which is what the
// standard library takes when nothing is said.
func (c *certificate) config() *tls.Config { return &tls.Config{GetCertificate: c.get} }

func (c *certificate) take(got *tls.Certificate) {
	c.now = got
	c.log.Info("certificate", "file", c.files.Certificate, "names", got.Leaf.DNSNames, "until", got.Leaf.NotAfter)
	if err := got.Leaf.VerifyHostname(c.host); err != nil {
		c.log.Warn("certificate", "file", c.files.Certificate, "problem", err.Error())
	}
}

func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	stamp := c.files.stamp()
	if stamp == c.stamp {
		return c.now, nil
	}
	c.stamp = stamp // what is bad is said once, and looked at again when it changes
	got, err := c.files.load(time.Now())
	if err != nil {
		c.log.Warn("the new certificate is not used, the old one stays", "problem", err.Error(), "until", c.now.Leaf.NotAfter)
		return c.now, nil
	}
	c.take(got)
	return c.now, nil
}

// stamp changes whenever one of the files does.
func (f *certificateFiles) stamp() string {
	var b strings.Builder
	for _, name := range f.names() {
		if info, err := os.Stat(name); err != nil {
			b.WriteString("no ")
		} else if s, ok := info.Sys().(*syscall.Stat_t); ok {
			fmt.Fprint(&b, s.Dev, s.Ino, s.Size, s.Mode, s.Mtim, s.Ctim, " ")
		}
	}
	return b.String()
}

// toHTTPS leads a page that was asked for by plain http to where it is. What it
// says is not kept by browsers: Strict-Transport-Security is there for that.
func toHTTPS(origins quire.Origins) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		to := secureOrigin(origins, r.Host, r.URL.Path)
		switch {
		case to == "":
			http.Error(w, "This server does not answer to that name. Use "+origins.Portal()+".", http.StatusMisdirectedRequest)
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			http.Error(w, "Use https: "+to, http.StatusForbidden)
		default:
			http.Redirect(w, r, to+(&url.URL{Path: "/" + strings.TrimLeft(r.URL.Path, "/"), RawQuery: r.URL.RawQuery}).RequestURI(), http.StatusTemporaryRedirect)
		}
	})
}

// secureOrigin is the https origin of a host as it is asked for on another port,
// or "".
func secureOrigin(origins quire.Origins, host, path string) string {
	host = strings.ToLower(host)
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	to := origins.Portal()
	if origins.PortalHost(host) == quire.HostRefuse && hostOf(to) != host {
		first, _, _ := strings.Cut(host, ".")
		to = origins.Origin(quire.Label(first))
		_, withPort, _ := strings.Cut(to, "://")
		if _, ok := origins.Label(withPort, path); !ok || hostOf(to) != host {
			return ""
		}
	}
	if !strings.HasPrefix(to, "https://") {
		return ""
	}
	return to
}

// hostOf is an origin's host without a port; a star stands for any label.
func hostOf(origin string) string {
	u, err := url.Parse(strings.Replace(origin, "//*.", "//"+string(quire.NewLabel())+".", 1))
	if err != nil {
		return ""
	}
	return u.Hostname()
}

// warn says which addresses people reach in the clear.
func (c Config) warn(w io.Writer) {
	for _, origin := range []string{c.Portal, c.Apps} {
		if quire.Exposed(origin) {
			fmt.Fprintf(w, "\nWarning: people reach %s by plain http, so whoever is on the way reads passwords\nand everything else. docs/admin/front.md says how to get TLS.\n", origin)
		}
	}
}

// scheme is how people reach a side that speaks TLS itself, or does not.
func (f *certificateFiles) scheme() string {
	if f == nil {
		return "http"
	}
	return "https"
}

type assetsCmd struct {
	Dir string `arg:"" placeholder:"DIR" help:"Where to: the files come into DIR/assets."`
}

// Run writes the files beside those of earlier versions: a page that is open
// still asks for its own.
func (a assetsCmd) Run(context.Context) error {
	n, err := web.WriteAssets(filepath.Join(a.Dir, "assets"))
	if err != nil {
		return err
	}
	fmt.Printf("%d files are in %s.\n", n, filepath.Join(cmp.Or(a.Dir, "."), "assets"))
	return nil
}
