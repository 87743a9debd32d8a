package remote

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"quire"
)

// This file is the change from one authority to the next. The second is made
// beside the first, everybody is told to trust both and then gets a certificate
// of the second, and the first is dropped. What has been reached lies in files,
// so a crash anywhere is a pause.

// Files of the second authority in the server's directory, while there are two.
const (
	fileNextKey  = "ca-next.key"
	fileNextCert = "ca-next.crt"
)

// A trust is whose certificates count: one authority, or two during a change,
// the newer one last.
type trust struct {
	pool *x509.CertPool
	of   []*x509.Certificate
}

func newTrust(of ...*x509.Certificate) (*trust, error) {
	t := &trust{pool: x509.NewCertPool(), of: of}
	if len(of) == 0 || len(of) > 2 {
		return nil, fmt.Errorf("%d authorities: one counts, or two while they change", len(of))
	}
	for _, ca := range of {
		if !ca.IsCA {
			return nil, fmt.Errorf("%s is not an authority", fileAuthority)
		}
		t.pool.AddCert(ca)
	}
	return t, nil
}

// parseTrust reads one certificate in PEM behind the other.
func parseTrust(text []byte) (*trust, error) {
	var of []*x509.Certificate
	for rest := text; len(rest) > 0; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil || block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("%s does not hold certificates alone", fileAuthority)
		}
		ca, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", fileAuthority, err)
		}
		of = append(of, ca)
	}
	return newTrust(of...)
}

func (t *trust) pem() (text []byte) {
	for _, ca := range t.of {
		text = append(text, pemCert(ca.Raw)...)
	}
	return text
}

func (t *trust) names() (ids []string) {
	for _, ca := range t.of {
		ids = append(ids, Fingerprint(ca.RawSubjectPublicKeyInfo))
	}
	return ids
}

// check verifies a certificate and returns who issued it.
func (t *trust) check(cert *x509.Certificate) (*x509.Certificate, error) {
	chains, err := cert.Verify(x509.VerifyOptions{Roots: t.pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	if err != nil {
		return nil, err
	}
	return chains[0][len(chains[0])-1], nil
}

// Trust takes the authorities (PEM) that count from now on, on disk first. Those
// under which our own certificate counts for nothing are refused: we would not
// be let in anywhere, and could not be told anything any more.
func (id *Identity) Trust(text []byte) error {
	t, err := parseTrust(text)
	if err != nil {
		return err
	}
	if slices.Equal(t.names(), id.trusted.Load().names()) {
		return nil
	}
	if _, err := t.check(id.cert.Load().Leaf); err != nil {
		return fmt.Errorf("our own certificate does not count under it: %w", err)
	}
	if err := writeFile(filepath.Join(id.dir, fileAuthority), t.pem(), 0o644); err != nil {
		return err
	}
	id.trusted.Store(t)
	return nil
}

// Follow lets the authority renew and trust for the identity of its own process.
func (a *Authority) Follow(id *Identity) { a.own = id }

func (a *Authority) trust() *trust {
	of := []*x509.Certificate{a.cert}
	if a.next != nil {
		of = append(of, a.next.cert)
	}
	t, err := newTrust(of...)
	if err != nil {
		panic(err) // they are ours
	}
	return t
}

// Trusted are the authorities that count now, in PEM and by the fingerprints of
// their keys: two during a change, the newer one last.
func (a *Authority) Trusted() (text []byte, ids []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.follow()
	t := a.trust()
	return t.pem(), t.names()
}

// Recertify is Certify by the newest authority.
func (a *Authority) Recertify(role string, node quire.NodeID, generation int64, public []byte) ([]byte, error) {
	a.mu.Lock()
	newest := a.next
	a.mu.Unlock()
	if newest == nil {
		return a.Certify(role, node, generation, public)
	}
	return newest.Certify(role, node, generation, public)
}

// Rotate makes a second authority, or goes on with the one there is.
func (a *Authority) Rotate() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.next != nil {
		return nil
	}
	next, err := NewAuthority(a.Installation)
	if err != nil {
		return err
	}
	key, err := pemKey(next.key)
	if err != nil {
		return err
	}
	// The key goes last: with it the second authority is there.
	if err := writeFile(filepath.Join(a.dir, fileNextCert), next.Certificate(), 0o644); err != nil {
		return err
	}
	if err := writeFile(filepath.Join(a.dir, fileNextKey), key, 0o600); err != nil {
		return err
	}
	a.next = next
	if a.own != nil {
		a.own.trusted.Store(a.trust())
	}
	return nil
}

// Finish drops the first authority: from now on its certificates count nowhere.
// Our own process gets one of the second before.
func (a *Authority) Finish() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.next == nil {
		return nil
	}
	if a.own != nil {
		is := a.own.Is()
		cert, err := a.next.Certify(a.own.Role, a.own.Node, is.Generation+1, is.Public)
		if err == nil {
			err = a.own.Renew(cert)
		}
		if err != nil {
			return fmt.Errorf("the server's own certificate: %w", err)
		}
	}
	// The key first: load finishes what stops in between.
	if err := os.Rename(filepath.Join(a.dir, fileNextKey), filepath.Join(a.dir, fileAuthorityKy)); err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(a.dir, fileNextCert), filepath.Join(a.dir, fileAuthority)); err != nil {
		return err
	}
	a.cert, a.key, a.next = a.next.cert, a.next.key, nil
	if a.own != nil {
		a.own.trusted.Store(a.trust())
	}
	return nil
}

// follow takes in what another process of this machine has done to the files,
// for a server and a worker have the same ones. What cannot be read yet is read
// the next time.
func (a *Authority) follow() {
	now := stampsOf(a.dir)
	if a.dir == "" || now == a.seen {
		return
	}
	fresh, err := loadAuthority(a.dir)
	if err != nil {
		return
	}
	if a.own != nil {
		id, err := loadIdentity(a.own.dir)
		if err != nil {
			return
		}
		a.own.cert.Store(id.cert.Load())
		a.own.trusted.Store(id.trusted.Load())
	}
	a.cert, a.key, a.next, a.seen = fresh.cert, fresh.key, fresh.next, now
}

// stamps tell whether the files of authorities are others than before.
type stamps [2]struct {
	at   time.Time
	size int64
}

func stampsOf(dir string) (s stamps) {
	for i, name := range []string{fileAuthority, fileNextCert} {
		if info, err := os.Stat(filepath.Join(dir, name)); err == nil {
			s[i].at, s[i].size = info.ModTime(), info.Size()
		}
	}
	return s
}

// settle finishes what a crash has left of Rotate or Finish.
func settle(dir string) error {
	next, err := readCert(filepath.Join(dir, fileNextCert))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(dir, fileNextKey)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	key, err := readKey(filepath.Join(dir, fileAuthorityKy))
	if err != nil {
		return err
	}
	if key.PublicKey.Equal(next.PublicKey) {
		return os.Rename(filepath.Join(dir, fileNextCert), filepath.Join(dir, fileAuthority))
	}
	return os.Remove(filepath.Join(dir, fileNextCert))
}

// loadNext reads the second authority, nil if there is none.
func loadNext(dir, installation string) (*Authority, error) {
	key, err := readKey(filepath.Join(dir, fileNextKey))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	cert, err := readCert(filepath.Join(dir, fileNextCert))
	if err != nil {
		return nil, err
	}
	if !cert.IsCA || !key.PublicKey.Equal(cert.PublicKey) {
		return nil, fmt.Errorf("%s: the key and the certificate of the second authority do not belong together", dir)
	}
	return &Authority{Installation: installation, cert: cert, key: key}, nil
}

// trustedIn is what an identity's directory says of authorities.
func trustedIn(dir string) ([]byte, error) {
	text, err := os.ReadFile(filepath.Join(dir, fileAuthority))
	if err != nil {
		return nil, err
	}
	next, err := os.ReadFile(filepath.Join(dir, fileNextCert)) // of the server, during a change
	if errors.Is(err, fs.ErrNotExist) {
		return text, nil
	}
	return bytes.Join([][]byte{text, next}, nil), err
}

// certificate is a leaf as a handshake shows it.
func certificate(leaf, issuer *x509.Certificate, key *ecdsa.PrivateKey) *tls.Certificate {
	return &tls.Certificate{Certificate: [][]byte{leaf.Raw, issuer.Raw}, PrivateKey: key, Leaf: leaf}
}

// RenewOwn keeps the certificate of the authority's own process good.
func (a *Authority) RenewOwn(within time.Duration) error {
	is := a.own.Is()
	if time.Until(is.Expires) >= within {
		return nil
	}
	// By the first authority, which everybody trusts until it is dropped.
	cert, err := a.Certify(a.own.Role, a.own.Node, is.Generation+1, is.Public)
	if err != nil {
		return err
	}
	return a.own.Renew(cert)
}

// signing is what certifies now.
func (a *Authority) signing() (*x509.Certificate, *ecdsa.PrivateKey) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.cert, a.key
}
