package ticket

import (
	"bytes"
	"reflect"
	"testing"

	"quire"
)

// Whoever opens bytes from outside must never panic, and must accept nothing
// that the signer did not make. signed sends half of the tries through the
// signature, so that the layout is tried too; then what was read must encode to
// the very bytes that were read: one meaning, one encoding.

func tryMessage(t *testing.T, kind byte, body []byte, signed bool, s *Signer, open func([]byte) (again []byte, err error)) {
	message := body
	if signed {
		message = sign(s, kind, body)
	}
	again, err := open(bytes.Clone(message))
	if err != nil {
		return
	}
	if !signed {
		t.Fatalf("unsigned bytes were accepted: %x", message)
	}
	if !bytes.Equal(again, message) {
		t.Fatalf("read from %x, but it is written as %x", message, again)
	}
}

func seeds(f *testing.F, good []byte) {
	f.Add(good[10:len(good)-64], true)
	f.Add(good[:len(good)-1], false)
	f.Add([]byte{}, true)
	f.Add(bytes.Repeat([]byte{0xff}, 40), true)
}

func FuzzOrder(f *testing.F) {
	s := NewSigner()
	v := verifier(f, s.Public())
	seeds(f, s.Order(anOrder()))
	f.Fuzz(func(t *testing.T, body []byte, signed bool) {
		tryMessage(t, kindOrder, body, signed, s, func(b []byte) ([]byte, error) {
			o, err := v.Order(b, node, noon())
			if err == nil && (o.Node != node || !noon().Before(o.Expires) || o.Expires.Sub(o.Issued) > quire.OrderLife) {
				t.Fatalf("accepted: %+v", o)
			}
			return s.Order(o), err
		})
	})
}

func FuzzGrant(f *testing.F) {
	s := NewSigner()
	v := verifier(f, s.Public())
	seeds(f, s.Grant(aGrant()))
	f.Fuzz(func(t *testing.T, body []byte, signed bool) {
		tryMessage(t, kindGrant, body, signed, s, func(b []byte) ([]byte, error) {
			g, err := v.Grant(b)
			return s.Grant(g), err
		})
	})
}

func FuzzTicket(f *testing.F) {
	s := NewSigner()
	v := verifier(f, s.Public())
	seeds(f, s.Ticket(aTicket(s)))
	f.Fuzz(func(t *testing.T, body []byte, signed bool) {
		tryMessage(t, kindTicket, body, signed, s, func(b []byte) ([]byte, error) {
			k, err := v.Ticket(b, gateway, label, nonce, noon())
			if err == nil && (k.Gateway != gateway || k.Label != label || k.Nonce != aTicket(s).Nonce || !noon().Before(k.Expires)) {
				t.Fatalf("accepted: %+v", k)
			}
			return s.Ticket(k), err
		})
	})
}

// FuzzFields writes any fields and reads them back.
func FuzzFields(f *testing.F) {
	f.Add("u_a", "p_a", "/projects/a", []byte("{}"), uint32(1), int64(5), byte(6))
	f.Add("", "", "", []byte{}, ^uint32(0), int64(-1), byte(0))
	f.Fuzz(func(t *testing.T, user, project, dir string, args []byte, uid uint32, feed int64, kind byte) {
		if len(user) > maxField || len(project) > maxField || len(dir) > maxField || len(args) > maxField {
			return
		}
		s := NewSigner()
		v := verifier(t, s.Public())
		in := anOrder()
		in.User, in.Project, in.Dir, in.Args, in.UID, in.Type = quire.UserID(user), quire.ProjectID(project), dir, append([]byte{}, args...), uid, quire.OrderType(kind)
		out, err := v.Order(s.Order(in), node, noon())
		if err != nil {
			t.Fatal(err)
		}
		out.Args = append([]byte{}, out.Args...)
		if !reflect.DeepEqual(in, out) {
			t.Fatalf("%+v became %+v", in, out)
		}
		g := aGrant()
		g.User, g.Project, g.Feed = quire.UserID(user), quire.ProjectID(project), feed
		if got, err := v.Grant(s.Grant(g)); err != nil || got != g {
			t.Fatalf("%+v became %+v, %v", g, got, err)
		}
	})
}
