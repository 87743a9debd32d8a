package remote

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"quire"
	"quire/ticket"
)

// Files that a role which joined has beside its identity.
const (
	fileOrderKey = "order.pub"
	fileSite     = "site.json"
)

// An answered request as it travels.
type answered struct {
	Answer    []byte `json:"answer"` // JSON of quire.JoinAnswer, the bytes that are signed
	Signature []byte `json:"signature"`
}

func answerMessage(answer []byte) [sha256.Size]byte {
	return sha256.Sum256(append([]byte("quire joined 1\x00"), answer...))
}

// Fingerprint of a public key (PKIX), as people compare it: sixteen groups of
// four.
func Fingerprint(public []byte) string {
	sum := sha256.Sum256(public)
	text := strings.ToUpper(hex.EncodeToString(sum[:]))
	var groups []string
	for ; len(text) > 0; text = text[4:] {
		groups = append(groups, text[:4])
	}
	return strings.Join(groups, " ")
}

// Certify is Issue for a public key in PKIX, as peers send theirs.
func (a *Authority) Certify(role string, node quire.NodeID, generation int64, public []byte) (cert []byte, err error) {
	pub, err := x509.ParsePKIXPublicKey(public)
	if err != nil {
		return nil, quire.Invalid("", "The key is not one that can be certified.")
	}
	cert, err = a.Issue(role, node, generation, pub)
	if err != nil {
		return nil, quire.Invalid("", "The key is not one that can be certified.")
	}
	return cert, nil
}

// DER is the authority's own certificate, which tokens are made for.
func (a *Authority) DER() []byte {
	cert, _ := a.signing()
	return cert.Raw
}

// Fingerprint is that of a node's key.
func (a *Authority) Fingerprint(public []byte) string { return Fingerprint(public) }

// Answer completes and signs the answer to a request.
func (a *Authority) Answer(j quire.JoinAnswer) ([]byte, error) {
	cert, key := a.signing()
	j.Installation, j.Authority = a.Installation, pemCert(cert.Raw)
	body, err := json.Marshal(j)
	if err != nil {
		return nil, err
	}
	sum := answerMessage(body)
	signature, err := ecdsa.SignASN1(rand.Reader, key, sum[:])
	if err != nil {
		return nil, err
	}
	return json.Marshal(answered{body, signature})
}

// A Joining is a machine on its way in: its key is made and kept in dir, and
// asking again is the same as asking once.
type Joining struct {
	token ticket.Token
	dir   string
	nonce []byte
	key   *ecdsa.PrivateKey
	role  string
}

// Join prepares a request to join in a role. dir becomes the role's identity.
func Join(token ticket.Token, role, dir string) (*Joining, error) {
	j := &Joining{token: token, dir: dir, role: role, nonce: make([]byte, 32)}
	rand.Read(j.nonce)
	file := filepath.Join(dir, fileKey)
	var err error
	if j.key, err = readKey(file); errors.Is(err, os.ErrNotExist) {
		if j.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err == nil {
			var text []byte
			if text, err = pemKey(j.key); err == nil {
				err = writeFile(file, text, 0o600)
			}
		}
	}
	return j, err
}

func (j *Joining) public() []byte {
	der, err := x509.MarshalPKIXPublicKey(j.key.Public())
	if err != nil {
		panic(err) // a P-256 key has a form
	}
	return der
}

// Fingerprint is that of the machine's key.
func (j *Joining) Fingerprint() string { return Fingerprint(j.public()) }

// Request is what goes to the server.
func (j *Joining) Request(r quire.JoinRequest) ([]byte, error) {
	r.Role, r.Public, r.Nonce = j.role, j.public(), j.nonce
	return j.token.Ask(r)
}

// Finish checks the answer and writes the identity. Nothing is written unless
// the authority is the token's, signed this very answer and certified our key.
func (j *Joining) Finish(b []byte) (a quire.JoinAnswer, err error) {
	var e answered
	if err := json.Unmarshal(b, &e); err != nil {
		return a, errors.New("the answer is not one of a Quire server")
	}
	if err := json.Unmarshal(e.Answer, &a); err != nil {
		return a, errors.New("the answer is not one of a Quire server")
	}
	block, rest := pem.Decode(a.Authority)
	if block == nil || len(rest) != 0 || !j.token.Trusts(block.Bytes) {
		return a, errors.New("whoever answered is not the server that the token is for")
	}
	ca, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return a, err
	}
	pub, ok := ca.PublicKey.(*ecdsa.PublicKey)
	sum := answerMessage(e.Answer)
	if !ok || !ecdsa.VerifyASN1(pub, sum[:], e.Signature) || string(a.Nonce) != string(j.nonce) {
		return a, errors.New("the answer is not signed by the server that the token is for")
	}
	key, err := pemKey(j.key)
	if err != nil {
		return a, err
	}
	id, err := newIdentity(key, a.Certificate, a.Authority)
	if err != nil {
		return a, err
	}
	if id.Role != j.role || id.Node != a.Node || id.Installation != a.Installation {
		return a, fmt.Errorf("the certificate is for %s %s, not for us", id.Role, id.Node)
	}
	site, err := json.MarshalIndent(Site{DataCenter: a.DataCenter, Gateway: a.Gateway, Name: a.Name, Portal: a.Portal, Apps: a.Apps}, "", "  ")
	if err != nil {
		return a, err
	}
	// The certificate goes last: with it the role counts as joined.
	for _, f := range []struct {
		name    string
		content []byte
	}{{fileOrderKey, a.OrderKey}, {fileAuthority, a.Authority}, {fileSite, site}, {fileCert, a.Certificate}} {
		if err := writeFile(filepath.Join(j.dir, f.name), f.content, 0o644); err != nil {
			return a, err
		}
	}
	return a, nil
}

// Site is what a role that joined knows of the installation.
type Site struct {
	DataCenter quire.DataCenterID `json:"data_center"`
	Gateway    quire.NodeID       `json:"gateway"` // of the data center
	Name       string             `json:"name"`    // our own
	Portal     string             `json:"portal"`
	Apps       string             `json:"apps"`
}

// LoadSite reads it.
func LoadSite(dir string) (s Site, err error) {
	b, err := os.ReadFile(filepath.Join(dir, fileSite))
	if err == nil {
		err = json.Unmarshal(b, &s)
	}
	return s, err
}

// SaveSite replaces it, when the server says that something is new.
func SaveSite(dir string, s Site) error {
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, fileSite), b, 0o644)
}
