package ticket

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"quire"
)

const (
	node    = quire.NodeID("n_aaaaaaaaaaaaaaaa")
	gateway = quire.NodeID("n_gggggggggggggggg")
	label   = quire.Label("abcdefghijklmnopqr23")
	nonce   = "the browser's nonce"
)

// noon is whole milliseconds, as times on the wire are.
func noon() time.Time { return time.Date(2026, 5, 1, 12, 0, 0, 123e6, time.UTC) }

func verifier(t testing.TB, keys ...ed25519.PublicKey) *Verifier {
	t.Helper()
	v, err := NewVerifier(keys...)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func anOrder() quire.Order {
	return quire.Order{
		Type: quire.OrderStart, ID: "o_aaaaaaaaaaaaaaaa", Node: node, User: "u_aaaaaaaaaaaaaaaa", Account: "quire-user", UID: 4_000_000_000,
		Project: "p_aaaaaaaaaaaaaaaa", Dir: "/projects/zoë/A b", Session: "s_aaaaaaaaaaaaaaaa", App: "notebook", Args: []byte(`{"label":"x"}`),
		Issued: noon(), Expires: noon().Add(quire.OrderLife),
	}
}

func aGrant() Grant {
	return Grant{
		Gateway: gateway, Node: node, User: "u_aaaaaaaaaaaaaaaa", Project: "p_aaaaaaaaaaaaaaaa", Login: "l_aaaaaaaaaaaaaaaa", Label: label,
		Role: quire.RoleEditor, Feed: 1 << 40, Issued: noon(), Expires: noon().Add(GrantLife), Grace: noon().Add(time.Hour),
	}
}

func aTicket(s *Signer) Ticket {
	return Ticket{
		ID: "o_bbbbbbbbbbbbbbbb", Nonce: sha256.Sum256([]byte(nonce)), Gateway: gateway, Label: label, Grant: s.Grant(aGrant()),
		Issued: noon(), Expires: noon().Add(TicketLife),
	}
}

// opener is one of the three ways to open a message.
type opener struct {
	name string
	made func(*Signer) []byte
	open func(*Verifier, []byte) (any, error)
}

func openers() []opener {
	return []opener{
		{"order", func(s *Signer) []byte { return s.Order(anOrder()) }, func(v *Verifier, b []byte) (any, error) { return v.Order(b, node, noon()) }},
		{"grant", func(s *Signer) []byte { return s.Grant(aGrant()) }, func(v *Verifier, b []byte) (any, error) { return v.Grant(b) }},
		{"ticket", func(s *Signer) []byte { return s.Ticket(aTicket(s)) }, func(v *Verifier, b []byte) (any, error) { return v.Ticket(b, gateway, label, nonce, noon()) }},
	}
}

func TestRoundTrips(t *testing.T) {
	s := NewSigner()
	v := verifier(t, s.Public())
	if o, err := v.Order(s.Order(anOrder()), node, noon()); err != nil || !reflect.DeepEqual(o, anOrder()) {
		t.Errorf("order: %+v, %v", o, err)
	}
	if g, err := v.Grant(s.Grant(aGrant())); err != nil || g != aGrant() {
		t.Errorf("grant: %+v, %v", g, err)
	}
	if k, err := v.Ticket(s.Ticket(aTicket(s)), gateway, label, nonce, noon()); err != nil || !reflect.DeepEqual(k, aTicket(s)) {
		t.Errorf("ticket: %+v, %v", k, err)
	}
	// Times keep their meaning in any zone and lose what is below a millisecond.
	g := aGrant()
	g.Expires = g.Expires.In(time.FixedZone("x", 3600)).Add(999 * time.Microsecond)
	if got, err := v.Grant(s.Grant(g)); err != nil || got != aGrant() {
		t.Errorf("%+v, %v", got, err)
	}
	// Nothing at all is a message too, and is good for nothing.
	if g, err := v.Grant(s.Grant(Grant{})); err != nil || g != (Grant{}) || g.Good(noon(), noon()) == nil {
		t.Errorf("empty grant: %+v, %v", g, err)
	}
	if o, err := v.Order(s.Order(quire.Order{}), "", noon()); err == nil {
		t.Errorf("an empty order was accepted: %+v", o)
	}
}

func TestEveryByteCounts(t *testing.T) {
	s := NewSigner()
	v := verifier(t, s.Public())
	for _, o := range openers() {
		good := o.made(s)
		if _, err := o.open(v, good); err != nil {
			t.Fatalf("%s: %v", o.name, err)
		}
		for i := range good {
			bad := bytes.Clone(good)
			bad[i] ^= 1 << (i % 8)
			if _, err := o.open(v, bad); err == nil {
				t.Fatalf("%s: byte %d does not count", o.name, i)
			}
			if _, err := o.open(v, good[:i]); err == nil {
				t.Fatalf("%s: its first %d bytes are accepted", o.name, i)
			}
			if _, err := o.open(v, good[i+1:]); err == nil {
				t.Fatalf("%s: accepted without its first %d bytes", o.name, i+1)
			}
		}
		for _, more := range [][]byte{{0}, {'O'}, make([]byte, 64), good} {
			if _, err := o.open(v, append(bytes.Clone(good), more...)); err == nil {
				t.Errorf("%s: accepted with %d bytes more", o.name, len(more))
			}
			if _, err := o.open(v, append(bytes.Clone(more), good...)); err == nil {
				t.Errorf("%s: accepted behind %d other bytes", o.name, len(more))
			}
		}
		for _, nothing := range [][]byte{nil, {}, {version}, bytes.Repeat([]byte{0}, 200)} {
			if _, err := o.open(v, nothing); err != ErrForged {
				t.Errorf("%s: %d bytes of nothing: %v", o.name, len(nothing), err)
			}
		}
	}
}

// What was signed for one use is refused for every other, even when the bytes
// of the body would fit.
func TestKindsAreNotInterchangeable(t *testing.T) {
	s := NewSigner()
	v := verifier(t, s.Public())
	for _, made := range openers() {
		for _, opened := range openers() {
			_, err := opened.open(v, made.made(s))
			if (err == nil) != (made.name == opened.name) {
				t.Errorf("%s opened as %s: %v", made.name, opened.name, err)
			}
			if made.name != opened.name && err != ErrForged {
				t.Errorf("%s opened as %s got further than the kind: %v", made.name, opened.name, err)
			}
		}
	}
}

// sign makes a message as somebody with the key could who is not bound to our
// layout.
func sign(s *Signer, kind byte, body []byte) []byte {
	return s.seal(kind, func(w *writer) { w.b = append(w.b, body...) })
}

func TestForgeries(t *testing.T) {
	s, other := NewSigner(), NewSigner()
	v := verifier(t, s.Public())
	good := s.Grant(aGrant())
	const head = 10
	change := func(f func([]byte) []byte) []byte { return f(bytes.Clone(good)) }
	for name, bad := range map[string][]byte{
		"another server's key":       other.Grant(aGrant()),
		"another key under our name": change(func(b []byte) []byte { f := other.Grant(aGrant()); copy(f[2:head], b[2:head]); return f }),
		"unknown key": change(func(b []byte) []byte {
			copy(b[2:], "../../../")
			return b
		}),
		"empty key name":     change(func(b []byte) []byte { clear(b[2:head]); return b }),
		"all-zero signature": change(func(b []byte) []byte { clear(b[len(b)-64:]); return b }),
		"all-one signature":  change(func(b []byte) []byte { copy(b[len(b)-64:], bytes.Repeat([]byte{0xff}, 64)); return b }),
		"no signature":       change(func(b []byte) []byte { return b[:len(b)-64] }),
		"two signatures":     change(func(b []byte) []byte { return append(b, b[len(b)-64:]...) }),
		"version 0":          change(func(b []byte) []byte { b[0] = 0; return b }),
		"version 2":          change(func(b []byte) []byte { b[0] = 2; return b }),
		"another algorithm":  []byte(`eyJhbGciOiJub25lIn0.eyJ1c2VyIjoicm9vdCJ9.` + strings.Repeat("A", 86)),
		"JSON":               []byte(`{"gateway":"n_gggggggggggggggg","expires":"1e400","grace":-1,"user":"u_aaaaaaaaaaaaaaaa","signature":null}` + strings.Repeat(" ", 100)),
		"moved field border": change(func(b []byte) []byte { b[head+1]--; return b }),
		"half of one and half of the other": change(func(b []byte) []byte {
			g := aGrant()
			g.User = "u_bbbbbbbbbbbbbbbb"
			return append(b[:len(b)-64], s.Grant(g)[len(b)-64:]...)
		}),
		"the signature plus the group's order": change(func(b []byte) []byte {
			// S' = S + L is the same point; RFC 8032 wants it refused.
			order := []byte{0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10}
			sig, carry := b[len(b)-32:], 0
			for i := range order {
				carry += int(sig[i]) + int(order[i])
				sig[i], carry = byte(carry), carry>>8
			}
			return b
		}),
	} {
		if g, err := v.Grant(bad); err != ErrForged || g != (Grant{}) {
			t.Errorf("%s: %+v, %v", name, g, err)
		}
	}
}

// Our own signature under a body that is not exactly a body.
func TestLayoutIsExact(t *testing.T) {
	s := NewSigner()
	v := verifier(t, s.Public())
	for _, o := range openers() {
		good := o.made(s)
		kind, body := good[1], good[10:len(good)-64]
		if _, err := o.open(v, sign(s, kind, body)); err != nil {
			t.Fatalf("%s: %v", o.name, err)
		}
		for n := range body {
			if _, err := o.open(v, sign(s, kind, body[:n])); err == nil {
				t.Fatalf("%s: a body cut to %d of %d bytes is accepted", o.name, n, len(body))
			}
		}
		for _, more := range []int{1, 2, 8, 65} {
			if _, err := o.open(v, sign(s, kind, append(bytes.Clone(body), make([]byte, more)...))); err == nil {
				t.Errorf("%s: %d bytes left over are accepted", o.name, more)
			}
		}
		long := binary.BigEndian.AppendUint16(nil, 0xffff)
		if _, err := o.open(v, sign(s, kind, append(long, body...))); err == nil {
			t.Errorf("%s: a field longer than the message is accepted", o.name)
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("a field that does not fit its length was signed")
		}
	}()
	o := anOrder()
	o.Args = make([]byte, maxField+1)
	s.Order(o)
}

func TestOrderAudienceAndTime(t *testing.T) {
	s := NewSigner()
	v := verifier(t, s.Public())
	for _, c := range []struct {
		name   string
		change func(*quire.Order)
		at     time.Time
		want   string // part of the error; "" = accepted
	}{
		{"now", nil, noon(), ""},
		{"the last moment", nil, noon().Add(quire.OrderLife - time.Millisecond), ""},
		{"over", nil, noon().Add(quire.OrderLife), "over"},
		{"long over", nil, noon().Add(24 * time.Hour), "over"},
		{"our clock is behind, within the skew", nil, noon().Add(-Skew), ""},
		{"our clock is behind, beyond it", nil, noon().Add(-Skew - time.Millisecond), "clock"},
		{"for another node", func(o *quire.Order) { o.Node = "n_bbbbbbbbbbbbbbbb" }, noon(), "for node n_b"},
		{"for no node", func(o *quire.Order) { o.Node = "" }, noon(), "for node"},
		{"good for too long", func(o *quire.Order) { o.Expires = o.Issued.Add(quire.OrderLife + time.Millisecond) }, noon(), "longer life"},
		{"good from the beginning of time", func(o *quire.Order) { o.Issued = time.Time{} }, noon(), "longer life"},
		{"never good", func(o *quire.Order) { o.Expires = time.Time{} }, noon(), "over"},
	} {
		o := anOrder()
		if c.change != nil {
			c.change(&o)
		}
		_, err := v.Order(s.Order(o), node, c.at)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestTicketIsForOneBrowserAtOneDoor(t *testing.T) {
	s := NewSigner()
	v := verifier(t, s.Public())
	sum := sha256.Sum256([]byte(nonce))
	for _, c := range []struct {
		name    string
		change  func(*Ticket)
		gateway quire.NodeID
		label   quire.Label
		nonce   string
		at      time.Time
		want    string
	}{
		{"right", nil, gateway, label, nonce, noon(), ""},
		{"the last moment", nil, gateway, label, nonce, noon().Add(TicketLife - time.Millisecond), ""},
		{"over", nil, gateway, label, nonce, noon().Add(TicketLife), "over"},
		{"before its time", nil, gateway, label, nonce, noon().Add(-2 * Skew), "clock"},
		{"another gateway", nil, node, label, nonce, noon(), "another gateway"},
		{"another label", nil, gateway, label[:19] + "a", nonce, noon(), "another label"},
		{"no label", nil, gateway, "", nonce, noon(), "another label"},
		{"another browser", nil, gateway, label, nonce + "x", noon(), "another browser"},
		{"no cookie", nil, gateway, label, "", noon(), "another browser"},
		{"the hash as cookie", nil, gateway, label, string(sum[:]), noon(), "another browser"},
		{"no nonce in the ticket", func(k *Ticket) { k.Nonce = [32]byte{} }, gateway, label, "", noon(), "another browser"},
		{"good for too long", func(k *Ticket) { k.Expires = k.Issued.Add(TicketLife + time.Second) }, gateway, label, nonce, noon(), "longer life"},
	} {
		k := aTicket(s)
		if c.change != nil {
			c.change(&k)
		}
		_, err := v.Ticket(s.Ticket(k), c.gateway, c.label, c.nonce, c.at)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestGrantGood(t *testing.T) {
	g := aGrant() // issued at noon, good until 12:05, grace until 13:00
	for _, c := range []struct {
		name   string
		now    time.Duration // after noon
		silent time.Duration // since the verifier heard from the server
		want   error
	}{
		{"fresh", 0, 0, nil},
		{"fresh, server silent", 0, time.Hour, nil},
		{"the last moment", GrantLife - time.Millisecond, 0, nil},
		{"over, server heard", GrantLife, 0, ErrExpired},
		{"over, heard a moment ago", GrantLife, Silence, ErrExpired},
		{"over, server silent", GrantLife, Silence + time.Millisecond, nil},
		{"over, never heard", GrantLife, 1000 * time.Hour, nil},
		{"the last moment of grace", time.Hour - time.Millisecond, time.Minute, nil},
		{"grace over", time.Hour, time.Minute, ErrExpired},
		{"grace over, never heard", 48 * time.Hour, 1000 * time.Hour, ErrExpired},
		{"grace, but the server is back", 30 * time.Minute, time.Second, ErrExpired},
		{"the server's word comes from our future", 30 * time.Minute, -time.Hour, ErrExpired},
		{"clock behind, within the skew", -Skew, 0, nil},
		{"clock behind", -Skew - time.Millisecond, 0, ErrFuture},
		{"clock behind, server silent", -time.Hour, time.Hour, ErrFuture},
	} {
		now := noon().Add(c.now)
		if err := g.Good(now, now.Add(-c.silent)); err != c.want {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	// Without grace, silence gains nothing.
	g.Grace = g.Expires
	if err := g.Good(g.Expires, g.Expires.Add(-time.Hour)); err != ErrExpired {
		t.Errorf("without grace: %v", err)
	}
	g.Grace = time.Time{}
	if err := g.Good(g.Expires, g.Expires.Add(-time.Hour)); err != ErrExpired {
		t.Errorf("with an empty grace: %v", err)
	}
}

func TestGrantRevoked(t *testing.T) {
	g := aGrant()
	for _, c := range []struct {
		r    quire.Revocation
		want bool
	}{
		{quire.Revocation{Seq: g.Feed + 1, User: g.User}, true},
		{quire.Revocation{Seq: g.Feed + 1, Project: g.Project}, true},
		{quire.Revocation{Seq: g.Feed + 1, Login: g.Login}, true},
		{quire.Revocation{Seq: g.Feed, User: g.User}, false},
		{quire.Revocation{Seq: g.Feed + 1, User: g.User, Project: "p_other"}, false},
	} {
		if got := g.Revoked(c.r); got != c.want {
			t.Errorf("%+v: %v", c.r, got)
		}
	}
	h := g
	h.Feed, h.Role, h.Issued, h.Expires = 0, quire.RoleViewer, time.Time{}, time.Time{}
	if g.Subject() != h.Subject() {
		t.Error("a renewed grant is another subject")
	}
	for _, f := range []func(*Grant){
		func(g *Grant) { g.User = "x" }, func(g *Grant) { g.Project = "x" }, func(g *Grant) { g.Login = "x" }, func(g *Grant) { g.Label = "x" },
	} {
		h := g
		f(&h)
		if h.Subject() == g.Subject() {
			t.Errorf("%+v is the same subject", h)
		}
	}
}

func TestKeys(t *testing.T) {
	old, now := NewSigner(), NewSigner()
	both := verifier(t, old.Public(), now.Public())
	for _, s := range []*Signer{old, now} {
		if _, err := both.Grant(s.Grant(aGrant())); err != nil {
			t.Errorf("while keys change: %v", err)
		}
	}
	if _, err := verifier(t, now.Public()).Grant(old.Grant(aGrant())); err != ErrForged {
		t.Errorf("a key that was taken out still counts: %v", err)
	}
	if _, err := NewVerifier(); err == nil {
		t.Error("a verifier without keys")
	}
	for _, n := range []int{0, 31, 33} {
		if _, err := NewVerifier(now.Public(), make([]byte, n)); err == nil {
			t.Errorf("a public key of %d bytes", n)
		}
	}
}

func TestKeyFiles(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "order.key")
	write := func(b []byte, mode os.FileMode) {
		t.Helper()
		os.Remove(file)
		if err := os.WriteFile(file, b, mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
	}
	s := NewSigner()
	for mode, ok := range map[os.FileMode]bool{
		0o600: true, 0o400: true, 0o700: true,
		0o640: false, 0o604: false, 0o660: false, 0o644: false, 0o610: false, 0o601: false, 0o602: false,
	} {
		write(s.Seed(), mode)
		got, err := LoadSigner(file)
		if (err == nil) != ok {
			t.Errorf("mode %o: %v", mode, err)
		}
		if err == nil && !got.Public().Equal(s.Public()) {
			t.Errorf("mode %o: another key", mode)
		}
		if err != nil && strings.Contains(err.Error(), string(s.Seed())) {
			t.Error("the error shows the key")
		}
	}
	for _, n := range []int{0, 1, 31, 33, 64} {
		write(make([]byte, n), 0o600)
		if _, err := LoadSigner(file); err == nil {
			t.Errorf("a key of %d bytes", n)
		}
	}
	if _, err := LoadSigner(filepath.Join(dir, "none")); err == nil {
		t.Error("a key that is not there")
	}

	other := NewSigner()
	write(append(bytes.Clone(s.Public()), other.Public()...), 0o644)
	v, err := LoadVerifier(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*Signer{s, other} {
		if _, err := v.Grant(s.Grant(aGrant())); err != nil {
			t.Errorf("from the file: %v", err)
		}
	}
	for _, n := range []int{0, 1, 31, 33, 65} {
		write(make([]byte, n), 0o644)
		if _, err := LoadVerifier(file); err == nil {
			t.Errorf("public keys of %d bytes", n)
		}
	}
	if _, err := LoadVerifier(filepath.Join(dir, "none")); err == nil {
		t.Error("public keys that are not there")
	}
}
