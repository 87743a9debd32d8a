// Package login answers "who is this": for now by password; later by PAM, LDAP
// and OpenID Connect.
package login

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"

	"quire"
)

// Argon2id's cost: 19 MiB, two passes, one lane (OWASP's second choice). A hash
// takes about 25 ms of one core, so hashing is what limits logins per second.
const (
	memory  = 19 * 1024 // KiB
	passes  = 2
	lanes   = 1
	keyLen  = 32
	saltLen = 16
)

// maxQueue is how many people may wait for a hash before the rest are asked to
// come back. Without a bound 200 logins at once took 3.8 GB.
const maxQueue = 2000

// Hasher hashes passwords, as many at a time as there are processors.
type Hasher struct {
	slots, queue chan struct{}
	dummy        string // what an unknown name is compared with, so that it takes as long
	made         atomic.Int64
}

// NewHasher returns a hasher with one slot for each processor.
func NewHasher() *Hasher {
	h := &Hasher{slots: make(chan struct{}, runtime.NumCPU()), queue: make(chan struct{}, maxQueue)}
	h.dummy = encode(make([]byte, saltLen), make([]byte, keyLen))
	return h
}

// Hash returns the PHC string of a password.
func (h *Hasher) Hash(ctx context.Context, password string) (string, error) {
	salt := make([]byte, saltLen)
	rand.Read(salt)
	key, err := h.key(ctx, password, salt)
	if err != nil {
		return "", err
	}
	return encode(salt, key), nil
}

// Check reports whether the password belongs to the PHC string. With an empty
// string (no such account) it takes as long and says no.
func (h *Hasher) Check(ctx context.Context, password, phc string) (bool, error) {
	known := phc != ""
	if !known {
		phc = h.dummy
	}
	salt, want, err := decode(phc)
	if err != nil {
		return false, err
	}
	got, err := h.key(ctx, password, salt)
	if err != nil {
		return false, err
	}
	return subtle.ConstantTimeCompare(got, want) == 1 && known, nil
}

// Made says how many hashes were computed so far.
func (h *Hasher) Made() int64 { return h.made.Load() }

func (h *Hasher) key(ctx context.Context, password string, salt []byte) ([]byte, error) {
	select {
	case h.queue <- struct{}{}:
		defer func() { <-h.queue }()
	default:
		return nil, &quire.Error{Kind: quire.KindTooMany, Message: "Too many people are signing in at this moment. Try again in half a minute.", RetryAfter: 30}
	}
	select {
	case h.slots <- struct{}{}:
		defer func() { <-h.slots }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	h.made.Add(1)
	return argon2.IDKey([]byte(password), salt, passes, memory, lanes, keyLen), nil
}

func encode(salt, key []byte) string {
	b := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, memory, passes, lanes, b.EncodeToString(salt), b.EncodeToString(key))
}

func decode(phc string) (salt, key []byte, err error) {
	prefix := fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$", argon2.Version, memory, passes, lanes)
	rest, ok := strings.CutPrefix(phc, prefix)
	s, k, both := strings.Cut(rest, "$")
	if !ok || !both {
		return nil, nil, fmt.Errorf("a stored password has an unknown form")
	}
	if salt, err = base64.RawStdEncoding.DecodeString(s); err != nil {
		return nil, nil, err
	}
	key, err = base64.RawStdEncoding.DecodeString(k)
	return salt, key, err
}

// CheckNew says in a sentence what is wrong with a new password, or nil. Long
// is what counts; forced symbols only make people write passwords down.
func CheckNew(name, password string) error {
	switch n := utf8.RuneCountInString(password); {
	case !utf8.ValidString(password) || strings.ContainsRune(password, 0):
		return quire.Invalid("password", "The password has characters that cannot be typed.")
	case n < 10:
		return quire.Invalid("password", "A password has at least 10 characters. Three or four unrelated words are good.")
	case n > 256:
		return quire.Invalid("password", "A password has at most 256 characters.")
	case strings.EqualFold(name, password) || sameRune(password):
		return quire.Invalid("password", "This password would be guessed at once. Three or four unrelated words are good.")
	}
	return nil
}

func sameRune(s string) bool {
	first, _ := utf8.DecodeRuneInString(s)
	return strings.Trim(s, string(first)) == ""
}
