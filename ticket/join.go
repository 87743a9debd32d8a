package ticket

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"strings"

	"quire"
)

// A Token lets a machine join. It holds a private key that signs the machine's
// request and the fingerprint of the installation's authority, by which the
// machine knows the answer. So the token never travels, and a plain connection,
// a proxy or a gateway on the way can neither use nor change anything. The
// server keeps the public key alone: reading its database lets nobody in.
type Token struct {
	key ed25519.PrivateKey
	pin [sha256.Size]byte
}

const tokenPrefix = "quire-join-"

// NewToken makes a token for the installation whose authority's certificate
// (DER) is given.
func NewToken(authority []byte) Token {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err) // crypto/rand does not fail
	}
	return Token{key, sha256.Sum256(authority)}
}

// String is the token as people pass it on: to be shown once and kept by nobody.
func (t Token) String() string {
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(append(t.key.Seed(), t.pin[:]...))
}

// ParseToken reads what String wrote.
func ParseToken(s string) (t Token, err error) {
	bad := errors.New("this is not a join token: one begins with " + tokenPrefix + " and is copied whole")
	text, ok := strings.CutPrefix(strings.TrimSpace(s), tokenPrefix)
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if !ok || err != nil || len(b) != ed25519.SeedSize+sha256.Size {
		return t, bad
	}
	t.key = ed25519.NewKeyFromSeed(b[:ed25519.SeedSize])
	copy(t.pin[:], b[ed25519.SeedSize:])
	return t, nil
}

// ID names the token's record.
func (t Token) ID() string { return tokenID(t.key.Public().(ed25519.PublicKey)) }

// Trusts reports whether the authority's certificate (DER) is the one the token
// was made for.
func (t Token) Trusts(authority []byte) bool { return sha256.Sum256(authority) == t.pin }

func tokenID(pub ed25519.PublicKey) string {
	sum := sha256.Sum256(pub)
	return hex.EncodeToString(sum[:16])
}

// A joining is a request as it travels.
type joining struct {
	Request   []byte `json:"request"` // JSON of quire.JoinRequest, the bytes that are signed
	Token     []byte `json:"token"`   // public key
	Signature []byte `json:"signature"`
}

func joinMessage(request []byte) []byte { return append([]byte("quire join 1\x00"), request...) }

// Ask signs a request.
func (t Token) Ask(r quire.JoinRequest) ([]byte, error) {
	body, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	return json.Marshal(joining{body, t.key.Public().(ed25519.PublicKey), ed25519.Sign(t.key, joinMessage(body))})
}

// Asked reads a signed request and says which token signed it. Whether that
// token counts is for the caller to know.
func Asked(b []byte) (r quire.JoinRequest, token string, err error) {
	bad := quire.Invalid("", "This is not a request to join.")
	var j joining
	if json.Unmarshal(b, &j) != nil || len(j.Token) != ed25519.PublicKeySize || !ed25519.Verify(j.Token, joinMessage(j.Request), j.Signature) {
		return r, "", bad
	}
	if json.Unmarshal(j.Request, &r) != nil || len(r.Nonce) != 32 || r.Role != quire.JoinGateway && r.Role != quire.JoinCompute {
		return r, "", bad
	}
	return r, tokenID(j.Token), nil
}
