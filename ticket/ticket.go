// Package ticket signs and checks the three things the server hands out:
// orders (to nodes), tickets (to a gateway, by way of the browser) and grants
// (what lets a browser in). One algorithm, Ed25519; one fixed binary layout.
//
// A message is  version(1) kind(1) key-id(8) body signature(64). The signature
// covers everything before it, so a ticket can never be read as an order.
package ticket

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"time"

	"quire"
)

const version = 1

const (
	kindOrder  = 'O'
	kindTicket = 'T'
	kindGrant  = 'G'
)

// Skew is how far clocks may stand apart.
const Skew = 60 * time.Second

// Errors a verifier gives. They say which check failed and nothing else.
var (
	ErrForged  = errors.New("the signature is not ours")
	ErrExpired = errors.New("the time is over")
	ErrFuture  = errors.New("the time has not come: a clock is wrong")
)

// KeyID names a public key: the first 8 bytes of its SHA-256.
type KeyID [8]byte

// ID returns the key's name.
func ID(pub ed25519.PublicKey) (id KeyID) {
	sum := sha256.Sum256(pub)
	copy(id[:], sum[:])
	return id
}

// Signer holds the server's private key. Only the server has one.
type Signer struct {
	key ed25519.PrivateKey
	id  KeyID
}

// NewSigner makes a signer with a fresh key.
func NewSigner() *Signer {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err) // crypto/rand does not fail
	}
	return signer(key)
}

func signer(key ed25519.PrivateKey) *Signer {
	return &Signer{key: key, id: ID(key.Public().(ed25519.PublicKey))}
}

// LoadSigner reads a 32-byte seed from a file that only its owner may read.
func LoadSigner(file string) (*Signer, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s can be read by others: chmod 600 it", file)
	}
	seed, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	if len(seed) != ed25519.SeedSize {
		return nil, fmt.Errorf("%s is not a signing key", file)
	}
	return signer(ed25519.NewKeyFromSeed(seed)), nil
}

// Seed is what LoadSigner reads back.
func (s *Signer) Seed() []byte { return s.key.Seed() }

// Public is the key that gateways and nodes check with.
func (s *Signer) Public() ed25519.PublicKey { return s.key.Public().(ed25519.PublicKey) }

func (s *Signer) seal(kind byte, body func(*writer)) []byte {
	w := &writer{b: make([]byte, 0, 512)}
	w.byte(version)
	w.byte(kind)
	w.b = append(w.b, s.id[:]...)
	body(w)
	return append(w.b, ed25519.Sign(s.key, w.b)...)
}

// Verifier checks what a Signer made. It holds public keys only; several at a
// time while keys change.
type Verifier struct{ keys map[KeyID]ed25519.PublicKey }

// NewVerifier takes the keys that count.
func NewVerifier(keys ...ed25519.PublicKey) (*Verifier, error) {
	if len(keys) == 0 {
		return nil, errors.New("no public key of the server: nothing could be checked")
	}
	v := &Verifier{keys: map[KeyID]ed25519.PublicKey{}}
	for _, k := range keys {
		if len(k) != ed25519.PublicKeySize {
			return nil, errors.New("a public key of the server has the wrong length")
		}
		v.keys[ID(k)] = k
	}
	return v, nil
}

// LoadVerifier reads a file of 32-byte public keys, one after the other.
func LoadVerifier(file string) (*Verifier, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var keys []ed25519.PublicKey
	for len(b) >= ed25519.PublicKeySize {
		keys = append(keys, ed25519.PublicKey(b[:ed25519.PublicKeySize]))
		b = b[ed25519.PublicKeySize:]
	}
	if len(b) != 0 {
		return nil, fmt.Errorf("%s is not a list of public keys", file)
	}
	return NewVerifier(keys...)
}

// open checks version, kind, key and signature and returns the body.
func (v *Verifier) open(kind byte, b []byte) (*reader, error) {
	const head = 2 + len(KeyID{})
	if len(b) < head+ed25519.SignatureSize || b[0] != version || b[1] != kind {
		return nil, ErrForged
	}
	key, ok := v.keys[KeyID(b[2:head])]
	if !ok {
		return nil, ErrForged
	}
	signed := b[:len(b)-ed25519.SignatureSize]
	if !ed25519.Verify(key, signed, b[len(signed):]) {
		return nil, ErrForged
	}
	return &reader{b: signed[head:]}, nil
}

// during checks that now lies between issued and expires, give or take Skew on
// the early side only: a thing is never good for longer than it says.
func during(now, issued, expires time.Time) error {
	switch {
	case now.Add(Skew).Before(issued):
		return ErrFuture
	case !now.Before(expires):
		return ErrExpired
	}
	return nil
}

// Order signs an order.
func (s *Signer) Order(o quire.Order) []byte {
	return s.seal(kindOrder, func(w *writer) {
		w.byte(byte(o.Type))
		w.bytes([]byte(o.ID))
		w.bytes([]byte(o.Node))
		w.bytes([]byte(o.User))
		w.bytes([]byte(o.Account))
		w.uint32(o.UID)
		w.bytes([]byte(o.Project))
		w.bytes([]byte(o.Dir))
		w.bytes([]byte(o.Session))
		w.bytes([]byte(o.App))
		w.bytes(o.Args)
		w.time(o.Issued)
		w.time(o.Expires)
	})
}

// Order checks a signed order: signature, layout, time, and that it is meant
// for node. The error says which check failed.
func (v *Verifier) Order(b []byte, node quire.NodeID, now time.Time) (quire.Order, error) {
	r, err := v.open(kindOrder, b)
	if err != nil {
		return quire.Order{}, err
	}
	o := quire.Order{
		Type: quire.OrderType(r.byte()), ID: quire.OrderID(r.string()), Node: quire.NodeID(r.string()),
		User: quire.UserID(r.string()), Account: r.string(), UID: r.uint32(), Project: quire.ProjectID(r.string()),
		Dir: r.string(), Session: quire.SessionID(r.string()), App: r.string(), Args: r.bytes(), Issued: r.time(), Expires: r.time(),
	}
	if err := r.end(); err != nil {
		return quire.Order{}, err
	}
	if o.Node != node {
		return quire.Order{}, fmt.Errorf("the order is for node %s", o.Node)
	}
	if o.Expires.Sub(o.Issued) > quire.OrderLife {
		return quire.Order{}, errors.New("the order claims a longer life than an order has")
	}
	return o, during(now, o.Issued, o.Expires)
}

// A Grant lets one login of one person reach that person's sessions in one
// project, through one gateway, to one node.
type Grant struct {
	Gateway quire.NodeID
	Node    quire.NodeID
	User    quire.UserID
	Project quire.ProjectID
	Login   quire.LoginID
	Label   quire.Label
	Role    quire.Role
	Feed    int64 // the newest revocation the server knew
	Issued  time.Time
	Expires time.Time // GrantLife after Issued; renewed while in use
	// Grace: after Expires a verifier that has itself heard nothing from the
	// server for Silence accepts the grant until then.
	Grace time.Time
}

const (
	GrantLife = 5 * time.Minute
	Silence   = 3 * time.Second
)

// Subject is what stays the same when a grant is renewed.
type Subject struct {
	User    quire.UserID
	Project quire.ProjectID
	Login   quire.LoginID
	Label   quire.Label
}

func (g Grant) Subject() Subject { return Subject{g.User, g.Project, g.Login, g.Label} }

// Revoked reports whether the revocation ends the grant.
func (g Grant) Revoked(r quire.Revocation) bool {
	return r.Covers(g.User, g.Project, g.Login, g.Feed)
}

// Good decides whether the grant lets anybody in at now. heard is when the
// verifier last heard from the server. It does not know revocations: the caller
// asks Revoked for those it holds.
func (g Grant) Good(now, heard time.Time) error {
	err := during(now, g.Issued, g.Expires)
	if err == ErrExpired && now.Sub(heard) > Silence && now.Before(g.Grace) {
		return nil
	}
	return err
}

// Grant signs a grant.
func (s *Signer) Grant(g Grant) []byte {
	return s.seal(kindGrant, func(w *writer) {
		w.bytes([]byte(g.Gateway))
		w.bytes([]byte(g.Node))
		w.bytes([]byte(g.User))
		w.bytes([]byte(g.Project))
		w.bytes([]byte(g.Login))
		w.bytes([]byte(g.Label))
		w.bytes([]byte(g.Role))
		w.int64(g.Feed)
		w.time(g.Issued)
		w.time(g.Expires)
		w.time(g.Grace)
	})
}

// Grant checks signature and layout. Whether it is still good is Good's answer,
// since that depends on what the verifier has heard.
func (v *Verifier) Grant(b []byte) (Grant, error) {
	r, err := v.open(kindGrant, b)
	if err != nil {
		return Grant{}, err
	}
	g := Grant{
		Gateway: quire.NodeID(r.string()), Node: quire.NodeID(r.string()), User: quire.UserID(r.string()),
		Project: quire.ProjectID(r.string()), Login: quire.LoginID(r.string()), Label: quire.Label(r.string()),
		Role: quire.Role(r.string()), Feed: r.int64(), Issued: r.time(), Expires: r.time(), Grace: r.time(),
	}
	return g, r.end()
}

// A Ticket carries a grant through the browser to the gateway, once, within
// TicketLife, bound to the browser that asked.
type Ticket struct {
	ID      quire.OrderID // remembered by the gateway until Expires
	Nonce   [32]byte      // SHA-256 of the nonce cookie
	Gateway quire.NodeID
	Label   quire.Label
	Grant   []byte
	Issued  time.Time
	Expires time.Time
}

const TicketLife = 60 * time.Second

// Ticket signs a ticket.
func (s *Signer) Ticket(t Ticket) []byte {
	return s.seal(kindTicket, func(w *writer) {
		w.bytes([]byte(t.ID))
		w.b = append(w.b, t.Nonce[:]...)
		w.bytes([]byte(t.Gateway))
		w.bytes([]byte(t.Label))
		w.bytes(t.Grant)
		w.time(t.Issued)
		w.time(t.Expires)
	})
}

// Ticket checks a ticket: signature, layout, time, gateway, label and the nonce
// cookie's value. Single use is the caller's to remember, by ID.
func (v *Verifier) Ticket(b []byte, gateway quire.NodeID, label quire.Label, nonce string, now time.Time) (Ticket, error) {
	r, err := v.open(kindTicket, b)
	if err != nil {
		return Ticket{}, err
	}
	t := Ticket{ID: quire.OrderID(r.string())}
	copy(t.Nonce[:], r.take(32))
	t.Gateway, t.Label, t.Grant = quire.NodeID(r.string()), quire.Label(r.string()), r.bytes()
	t.Issued, t.Expires = r.time(), r.time()
	if err := r.end(); err != nil {
		return Ticket{}, err
	}
	switch {
	case t.Gateway != gateway:
		return Ticket{}, errors.New("the ticket is for another gateway")
	case t.Label != label:
		return Ticket{}, errors.New("the ticket is for another label")
	case t.Nonce != sha256.Sum256([]byte(nonce)):
		return Ticket{}, errors.New("the ticket is for another browser")
	case t.Expires.Sub(t.Issued) > TicketLife:
		return Ticket{}, errors.New("the ticket claims a longer life than a ticket has")
	}
	return t, during(now, t.Issued, t.Expires)
}
