package remote

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"quire"
)

// Roles a certificate can name.
const (
	RoleServer  = "server"
	RoleGateway = "gateway"
	RoleCompute = "compute"
)

// Domain is the end of every internal server name. A listener that also speaks
// TLS to browsers tells the two apart by it.
const Domain = "quire.internal"

const (
	authorityLife = 10 * 365 * 24 * time.Hour
	identityLife  = 30 * 24 * time.Hour // renewed after two thirds by whoever is reachable
	clockSlack    = time.Hour           // a node's clock may be behind when its certificate is made
)

// Files of an identity's directory.
const (
	fileKey         = "node.key"
	fileCert        = "node.crt"
	fileAuthority   = "ca.crt"
	fileAuthorityKy = "ca.key"
)

var (
	installationForm = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,62}$`)
	roleForm         = regexp.MustCompile(`^[a-z]{1,16}$`)
	pathForm         = regexp.MustCompile(`^/([a-z]+)/([a-z0-9_-]+)$`)
	nodeForm         = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,62}$`)
)

// An Authority issues the certificates of one installation. Only the server has
// one.
type Authority struct {
	Installation string
	dir          string
	own          *Identity // of the process that has the authority
	seen         stamps    // of the files as they were read

	mu   sync.Mutex // rotation.go
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	next *Authority // that takes over; nil: none
}

// NewAuthority makes an authority with a fresh key. The installation's name is
// of lower-case letters, digits, hyphens and underscores.
func NewAuthority(installation string) (*Authority, error) {
	if !installationForm.MatchString(installation) {
		return nil, fmt.Errorf("installation %q: lower-case letters, digits, hyphens and underscores only", installation)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("authority key: %w", err)
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber:          serial(),
		Subject:               pkix.Name{CommonName: "Quire " + installation},
		NotBefore:             now.Add(-clockSlack),
		NotAfter:              now.Add(authorityLife),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("authority certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("authority certificate: %w", err)
	}
	return &Authority{Installation: installation, cert: cert, key: key}, nil
}

// Save writes ca.key (readable by its owner only) and ca.crt into dir.
func (a *Authority) Save(dir string) error {
	key, err := pemKey(a.key)
	if err != nil {
		return err
	}
	if err := writeFile(filepath.Join(dir, fileAuthorityKy), key, 0o600); err != nil {
		return err
	}
	a.dir = dir
	return writeFile(filepath.Join(dir, fileAuthority), a.Certificate(), 0o644)
}

// Certificate is the authority's own certificate in PEM.
func (a *Authority) Certificate() []byte { return pemCert(a.DER()) }

// LoadAuthority reads what Save wrote.
func LoadAuthority(dir string) (*Authority, error) {
	if err := settle(dir); err != nil {
		return nil, err
	}
	return loadAuthority(dir)
}

func loadAuthority(dir string) (*Authority, error) {
	seen := stampsOf(dir)
	key, err := readKey(filepath.Join(dir, fileAuthorityKy))
	if err != nil {
		return nil, err
	}
	cert, err := readCert(filepath.Join(dir, fileAuthority))
	if err != nil {
		return nil, err
	}
	if !cert.IsCA || !key.PublicKey.Equal(cert.PublicKey) {
		return nil, fmt.Errorf("%s: the key and the certificate of the authority do not belong together", dir)
	}
	var name string
	if _, err := fmt.Sscanf(cert.Subject.CommonName, "Quire %s", &name); err != nil || !installationForm.MatchString(name) {
		return nil, fmt.Errorf("%s: not an authority of Quire", dir)
	}
	next, err := loadNext(dir, name)
	if err != nil {
		return nil, err
	}
	return &Authority{Installation: name, dir: dir, seen: seen, cert: cert, key: key, next: next}, nil
}

// Issue makes a certificate in PEM for a public key. Everything in it but the
// key is decided here; nothing is taken from a request. Each certificate of a
// key has a higher generation than the one before: a copy of the key that goes
// on with an old one gives itself away.
func (a *Authority) Issue(role string, node quire.NodeID, generation int64, pub crypto.PublicKey) ([]byte, error) {
	if err := checkName(role, node); err != nil {
		return nil, err
	}
	ec, ok := pub.(*ecdsa.PublicKey)
	if !ok || ec.Curve != elliptic.P256() {
		return nil, errors.New("only P-256 keys are certified")
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: serial(),
		Subject:      pkix.Name{CommonName: role + " " + string(node), SerialNumber: strconv.FormatInt(generation, 10)},
		NotBefore:    now.Add(-clockSlack),
		NotAfter:     now.Add(identityLife),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		URIs:         []*url.URL{{Scheme: "quire", Host: a.Installation, Path: "/" + role + "/" + string(node)}},
		// The standard check of a server's certificate wants a name; this one says
		// the same as the URI.
		DNSNames: []string{serverName(role, node)},
	}
	ca, key := a.signing()
	der, err := x509.CreateCertificate(rand.Reader, template, ca, pub, key)
	if err != nil {
		return nil, fmt.Errorf("certificate of %s %s: %w", role, node, err)
	}
	return pemCert(der), nil
}

// NewIdentity makes a key in dir, has it certified and writes node.key (0600),
// node.crt and ca.crt.
func NewIdentity(a *Authority, role string, node quire.NodeID, dir string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("node key: %w", err)
	}
	cert, err := a.Issue(role, node, 1, key.Public())
	if err != nil {
		return err
	}
	pemKey, err := pemKey(key)
	if err != nil {
		return err
	}
	if err := writeFile(filepath.Join(dir, fileKey), pemKey, 0o600); err != nil {
		return err
	}
	if err := writeFile(filepath.Join(dir, fileCert), cert, 0o644); err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, fileAuthority), a.Certificate(), 0o644)
}

// An Identity is who a process is to the other roles.
type Identity struct {
	Role         string
	Node         quire.NodeID
	Installation string
	Speaks       Speaks // set before the first connection

	// Check, if set before the first connection, has the last word about a peer
	// whose certificate is good: which key it shows, and whether it is one that we
	// have to do with.
	Check func(role string, node quire.NodeID, fingerprint string) error

	dir  string
	key  *ecdsa.PrivateKey
	cert atomic.Pointer[tls.Certificate]

	trusted atomic.Pointer[trust]
}

// Is what we tell the server of ourselves.
func (id *Identity) Is() quire.PeerIdentity {
	leaf := id.cert.Load().Leaf
	is := quire.PeerIdentity{Public: leaf.RawSubjectPublicKeyInfo, Generation: generationOf(leaf), Expires: leaf.NotAfter}
	t := id.trusted.Load()
	if issuer, err := t.check(leaf); err == nil {
		is.Issuer = Fingerprint(issuer.RawSubjectPublicKeyInfo)
	}
	is.Trusts = t.names()
	return is
}

func generationOf(cert *x509.Certificate) int64 {
	n, err := strconv.ParseInt(cert.Subject.SerialNumber, 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// Renew takes a newer certificate (PEM) for the same key and name into use, on
// disk first. Connections that are open stay as they are.
func (id *Identity) Renew(certPEM []byte) error {
	cert, err := parseCert(fileCert, certPEM)
	if err != nil {
		return err
	}
	issuer, err := id.trusted.Load().check(cert)
	if err != nil {
		return err
	}
	old := id.cert.Load()
	n, err := nameOf(cert)
	if err != nil {
		return err
	}
	if (n != name{id.Installation, id.Role, id.Node}) || !id.key.PublicKey.Equal(cert.PublicKey) || generationOf(cert) <= generationOf(old.Leaf) {
		return errors.New("the new certificate is not a later one of ours")
	}
	if err := writeFile(filepath.Join(id.dir, fileCert), certPEM, 0o644); err != nil {
		return err
	}
	id.cert.Store(certificate(cert, issuer, id.key))
	return nil
}

// checkPeer asks Check.
func (id *Identity) checkPeer(peer name, cs *tls.ConnectionState) error {
	if id.Check == nil {
		return nil
	}
	return id.Check(peer.role, peer.node, Fingerprint(cs.PeerCertificates[0].RawSubjectPublicKeyInfo))
}

// LoadIdentity reads node.key, node.crt and ca.crt and refuses anything that
// could not be used: a key others can read, a certificate that is expired, of
// another authority, or that does not name exactly one role and node.
func LoadIdentity(dir string) (*Identity, error) {
	if err := settle(dir); err != nil {
		return nil, err
	}
	return loadIdentity(dir)
}

func loadIdentity(dir string) (*Identity, error) {
	if _, err := readKey(filepath.Join(dir, fileKey)); err != nil {
		return nil, err
	}
	var files [2][]byte
	for i, name := range []string{fileKey, fileCert} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return nil, err
		}
		files[i] = b
	}
	authorities, err := trustedIn(dir)
	if err != nil {
		return nil, err
	}
	id, err := newIdentity(files[0], files[1], authorities)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	id.dir = dir
	return id, nil
}

// newIdentity is LoadIdentity of three texts in PEM.
func newIdentity(keyPEM, certPEM, authorityPEM []byte) (*Identity, error) {
	key, err := parseKey(fileKey, keyPEM)
	if err != nil {
		return nil, err
	}
	cert, err := parseCert(fileCert, certPEM)
	if err != nil {
		return nil, err
	}
	t, err := parseTrust(authorityPEM)
	if err != nil {
		return nil, err
	}
	if !key.PublicKey.Equal(cert.PublicKey) {
		return nil, errors.New("the key and the certificate do not belong together")
	}
	issuer, err := t.check(cert)
	if err != nil {
		return nil, err
	}
	name, err := nameOf(cert)
	if err != nil {
		return nil, err
	}
	id := &Identity{Role: name.role, Node: name.node, Installation: name.installation, key: key}
	id.trusted.Store(t)
	id.cert.Store(certificate(cert, issuer, key))
	return id, nil
}

// Listen is for a listener that only peers of the given roles may reach. No
// roles means nobody. Each handshake goes by the authorities that count then.
func (id *Identity) Listen(roles ...string) *tls.Config {
	conf := id.ListenNow(roles...)
	conf.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return id.ListenNow(roles...), nil }
	return conf
}

// ListenNow is Listen for one handshake.
func (id *Identity) ListenNow(roles ...string) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		GetCertificate:         func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return id.cert.Load(), nil },
		ClientAuth:             tls.RequireAndVerifyClientCert,
		ClientCAs:              id.trusted.Load().pool,
		SessionTicketsDisabled: true, // each connection shows its certificate anew
		NextProtos:             []string{"http/1.1"},
		VerifyConnection: func(cs tls.ConnectionState) error {
			peer, err := peerOf(&cs)
			if err != nil {
				return err
			}
			if peer.installation != id.Installation || !slices.Contains(roles, peer.role) {
				return fmt.Errorf("%s %s of %s has no business here", peer.role, peer.node, peer.installation)
			}
			return id.checkPeer(peer, &cs)
		},
	}
}

// Dial is for a connection to one node in one role. Anything else that answers
// is refused before a byte is sent to it.
func (id *Identity) Dial(role string, node quire.NodeID) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if cert := id.cert.Load(); cert != nil {
				return cert, nil
			}
			return nil, errors.New("no identity")
		},
		RootCAs:    id.trusted.Load().pool,
		ServerName: serverName(role, node),
		NextProtos: []string{"http/1.1"},
		VerifyConnection: func(cs tls.ConnectionState) error {
			peer, err := peerOf(&cs)
			if err != nil {
				return err
			}
			if want := (name{id.Installation, role, node}); peer != want {
				return fmt.Errorf("asked for %s, answered by %s", want, peer)
			}
			return id.checkPeer(peer, &cs)
		},
	}
}

// Peer names who is at the other end of a verified connection.
func Peer(cs *tls.ConnectionState) (role string, node quire.NodeID, err error) {
	n, err := peerOf(cs)
	return n.role, n.node, err
}

type name struct {
	installation, role string
	node               quire.NodeID
}

func (n name) String() string { return n.role + " " + string(n.node) + " of " + n.installation }

func peerOf(cs *tls.ConnectionState) (name, error) {
	if cs == nil || len(cs.VerifiedChains) == 0 || len(cs.VerifiedChains[0]) == 0 {
		return name{}, errors.New("the peer showed no certificate of ours")
	}
	return nameOf(cs.VerifiedChains[0][0])
}

// nameOf reads a certificate's one name. A certificate with a second name of
// any kind is refused: it would be a question which one counts.
func nameOf(cert *x509.Certificate) (name, error) {
	if cert.IsCA || len(cert.URIs) != 1 || len(cert.DNSNames) != 1 || len(cert.IPAddresses) != 0 || len(cert.EmailAddresses) != 0 {
		return name{}, errors.New("the certificate does not have exactly one name")
	}
	u := cert.URIs[0]
	var n name
	n.installation = u.Host
	role, node, ok := cutPath(u.Path)
	n.role, n.node = role, quire.NodeID(node)
	want := url.URL{Scheme: "quire", Host: n.installation, Path: "/" + n.role + "/" + string(n.node)}
	if !ok || u.String() != want.String() || !installationForm.MatchString(n.installation) || checkName(n.role, n.node) != nil ||
		cert.DNSNames[0] != serverName(n.role, n.node) {
		return name{}, errors.New("the certificate's name is not of our form")
	}
	return n, nil
}

func cutPath(p string) (role, node string, ok bool) {
	m := pathForm.FindStringSubmatch(p)
	if m == nil {
		return "", "", false
	}
	return m[1], m[2], true
}

func checkName(role string, node quire.NodeID) error {
	if !roleForm.MatchString(role) || !nodeForm.MatchString(string(node)) {
		return fmt.Errorf("%q %q is not a role and a node", role, node)
	}
	return nil
}

// serverName is the name the standard library checks and that a listener sees
// before the handshake.
func serverName(role string, node quire.NodeID) string {
	return string(node) + "." + role + "." + Domain
}

func serial() *big.Int {
	b := make([]byte, 16)
	rand.Read(b)
	b[0] &= 0x7f
	return new(big.Int).SetBytes(b)
}

func pemCert(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func pemKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// writeFile replaces file in one step, so that a crash leaves the old or the
// new one.
func writeFile(file string, b []byte, mode os.FileMode) error {
	tmp, err := os.CreateTemp(filepath.Dir(file), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(b)
	err = errors.Join(err, tmp.Chmod(mode), tmp.Sync(), tmp.Close())
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return os.Rename(tmp.Name(), file)
}

func readKey(file string) (*ecdsa.PrivateKey, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s can be read by others: chmod 600 it", file)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return parseKey(file, b)
}

func parseKey(file string, b []byte) (*ecdsa.PrivateKey, error) {
	der, err := parsePEM(file, b, "PRIVATE KEY")
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	ec, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s is not a P-256 key", file)
	}
	return ec, nil
}

func readCert(file string) (*x509.Certificate, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return parseCert(file, b)
}

func parseCert(file string, b []byte) (*x509.Certificate, error) {
	der, err := parsePEM(file, b, "CERTIFICATE")
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return cert, nil
}

// parsePEM returns the one block there is.
func parsePEM(file string, b []byte, kind string) ([]byte, error) {
	block, rest := pem.Decode(b)
	if block == nil || block.Type != kind || len(rest) != 0 {
		return nil, fmt.Errorf("%s does not hold exactly one %s", file, kind)
	}
	return block.Bytes, nil
}
