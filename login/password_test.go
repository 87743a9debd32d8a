package login

import (
	"context"
	"strings"
	"sync"
	"testing"

	"quire"
)

const right = "correct horse battery"

func TestPasswords(t *testing.T) {
	h := NewHasher()
	ctx := context.Background()
	one, err := h.Hash(ctx, right)
	if err != nil {
		t.Fatal(err)
	}
	two, err := h.Hash(ctx, right)
	if err != nil {
		t.Fatal(err)
	}
	if one == two {
		t.Error("two people with one password have one hash: there is no salt")
	}
	if !strings.HasPrefix(one, "$argon2id$v=19$m=19456,t=2,p=1$") || strings.Contains(one, right) {
		t.Errorf("stored as %s", one)
	}
	for _, c := range []struct {
		password, phc string
		want          bool
	}{
		{right, one, true},
		{right, two, true},
		{right + " ", one, false},
		{strings.ToUpper(right), one, false},
		{"", one, false},
		{"\x00" + right, one, false},
		{right + "\x00", one, false},
		{right, "", false},
		{"", "", false}, // what stands in for unknown people is no account to sign in to
	} {
		if ok, err := h.Check(ctx, c.password, c.phc); ok != c.want || err != nil {
			t.Errorf("%q against %.20q: %v, %v", c.password, c.phc, ok, err)
		}
	}
	for _, odd := range []string{"x", "$argon2id$", "$2y$10$abcdefghijklmnopqrstuv", strings.Replace(one, "t=2", "t=1", 1), one[:len(one)-1] + "!", one + "$x"} {
		if ok, err := h.Check(ctx, right, odd); ok || err == nil {
			t.Errorf("the stored %q passes for something: %v, %v", odd, ok, err)
		}
	}
}

// How long an answer takes says nothing about who exists: whatever is asked, one
// hash is computed.
func TestEveryAnswerCostsOneHash(t *testing.T) {
	h := NewHasher()
	ctx := context.Background()
	phc, err := h.Hash(ctx, right)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string][2]string{"right": {right, phc}, "wrong": {"wrong password", phc}, "unknown": {right, ""}} {
		before := h.Made()
		if _, err := h.Check(ctx, c[0], c[1]); err != nil {
			t.Fatal(err)
		}
		if n := h.Made() - before; n != 1 {
			t.Errorf("%s: %d hashes", name, n)
		}
	}
}

// More people than may wait are asked to come back, at once and without a hash.
func TestTheQueueIsBounded(t *testing.T) {
	h := NewHasher()
	for range maxQueue {
		h.queue <- struct{}{}
	}
	_, err := h.Check(context.Background(), right, "")
	if e := quire.AsError(err); e.Kind != quire.KindTooMany || e.RetryAfter < 1 {
		t.Errorf("%v", err)
	}
	if _, err := h.Hash(context.Background(), right); quire.KindOf(err) != quire.KindTooMany {
		t.Errorf("%v", err)
	}
	if h.Made() != 0 {
		t.Error("it hashed all the same")
	}
	<-h.queue
	if _, err := h.Check(context.Background(), right, ""); err != nil {
		t.Errorf("with one place free: %v", err)
	}
	if len(h.queue) != maxQueue-1 || len(h.slots) != 0 {
		t.Errorf("places were lost: %d, %d", len(h.queue), len(h.slots))
	}
}

// Whoever hangs up while he waits is not worked for.
func TestWaitingEndsWithTheCaller(t *testing.T) {
	h := NewHasher()
	for range cap(h.slots) {
		h.slots <- struct{}{}
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() {
		_, err := h.Check(ctx, right, "")
		ended <- err
	}()
	cancel()
	if err := <-ended; err != context.Canceled {
		t.Errorf("%v", err)
	}
	if h.Made() != 0 || len(h.queue) != 0 {
		t.Errorf("%d hashes, %d still waiting", h.Made(), len(h.queue))
	}
}

func TestNoMoreHashesAtATimeThanProcessors(t *testing.T) {
	h := NewHasher()
	var wg sync.WaitGroup
	for range 4 * cap(h.slots) {
		wg.Go(func() {
			if _, err := h.Check(context.Background(), right, ""); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if len(h.slots) != 0 || len(h.queue) != 0 || h.Made() != int64(4*cap(h.slots)) {
		t.Errorf("%d slots and %d places are still taken after %d hashes", len(h.slots), len(h.queue), h.Made())
	}
}

func TestNewPasswords(t *testing.T) {
	for password, ok := range map[string]bool{
		right: true, "ten chars!": true, "ümläut ßéñ": true, strings.Repeat("ab", 128): true,
		"": false, "short": false, "nine char": false, strings.Repeat("x", 12): false, strings.Repeat("é", 12): false, strings.Repeat("ab", 128) + "c": false,
		"with\x00nul byte": false, "bad \xff\xfe utf-8!": false, "alexandria": false, "ALEXANDRIA": false,
	} {
		err := CheckNew("Alexandria", password)
		if (err == nil) != ok {
			t.Errorf("%.20q: %v", password, err)
		}
		if err != nil && (quire.AsError(err).Field != "password" || password != "" && strings.Contains(err.Error(), password)) {
			t.Errorf("%.20q: %v", password, err)
		}
	}
}
