package login

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"quire"
)

type clock struct {
	mu sync.Mutex
	t  time.Time
}

func newClock() *clock { return &clock{t: time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

const home = "192.0.2.1"

// begin is a try that must be allowed.
func begin(t *testing.T, th *Throttle, account, source string) {
	t.Helper()
	if err := th.Begin(account, source); err != nil {
		t.Fatalf("%s from %s: %v", account, source, err)
	}
}

func fail(t *testing.T, th *Throttle, account, source string) (spray bool) {
	t.Helper()
	begin(t, th, account, source)
	return th.Failed(account, source)
}

// waits returns the seconds somebody is asked to wait, 0 if he may try.
func waits(t *testing.T, th *Throttle, account, source string) int {
	t.Helper()
	err := th.Begin(account, source)
	if err == nil {
		th.Dropped(account, source)
		return 0
	}
	e := quire.AsError(err)
	if e.Kind != quire.KindTooMany || e.RetryAfter < 1 {
		t.Fatalf("%+v", e)
	}
	return e.RetryAfter
}

// Wrong passwords for one account: the free ones, then waits that double up to
// the longest, for that pair alone.
func TestGuessingOneAccount(t *testing.T) {
	c := newClock()
	th := NewThrottle(c.now)
	for i := range Free {
		if w := waits(t, th, "u_a", home); w != 0 {
			t.Fatalf("try %d waits %d s", i+1, w)
		}
		fail(t, th, "u_a", home)
	}
	want := 2
	for i := range 20 {
		if got := waits(t, th, "u_a", home); got != min(want, 300) {
			t.Fatalf("after %d failures: %d s, want %d", Free+i, got, min(want, 300))
		}
		// A right password from the same place waits too: nothing is checked.
		if err := th.Begin("u_a", home); quire.KindOf(err) != quire.KindTooMany {
			t.Fatal(err)
		}
		// Others are not slowed, nor is the person elsewhere.
		if waits(t, th, "u_b", home) != 0 || waits(t, th, "u_a", "192.0.2.2") != 0 {
			t.Fatal("somebody else waits")
		}
		c.add(time.Duration(min(want, 300))*time.Second - time.Millisecond)
		if waits(t, th, "u_a", home) != 1 {
			t.Fatal("a moment too early")
		}
		c.add(time.Millisecond)
		fail(t, th, "u_a", home)
		want *= 2
	}
	c.add(longestWait)
	begin(t, th, "u_a", home)
	th.Passed("u_a", home)
	for range Free {
		fail(t, th, "u_a", home)
	}
	if w := waits(t, th, "u_a", home); w != 2 {
		t.Errorf("after a right password it starts anew, but waits %d s", w)
	}
	c.add(forgetAfter + time.Second)
	if w := waits(t, th, "u_a", home); w != 0 {
		t.Errorf("after an hour: %d s", w)
	}
	for range Free - 1 {
		fail(t, th, "u_a", home)
	}
	if w := waits(t, th, "u_a", home); w != 0 {
		t.Errorf("the old failures still count: %d s", w)
	}
}

// Whoever sends his guesses all at once gets no more of them than one by one.
func TestGuessingAllAtOnce(t *testing.T) {
	c := newClock()
	th := NewThrottle(c.now)
	var allowed int
	for range 500 {
		if th.Begin("u_a", home) == nil {
			allowed++
		}
	}
	if allowed != Free {
		t.Fatalf("%d guesses under way at once, %d are free", allowed, Free)
	}
	for range allowed {
		th.Failed("u_a", home)
	}
	c.add(longestWait)
	for allowed = 0; th.Begin("u_a", home) == nil; allowed++ {
	}
	if allowed != 1 {
		t.Errorf("%d at once after the wait", allowed)
	}
	th.Dropped("u_a", home)
	begin(t, th, "u_a", home) // whoever hung up does not stand in the way
}

func TestGuessingInParallel(t *testing.T) {
	c := newClock()
	th := NewThrottle(c.now)
	var wg sync.WaitGroup
	var mu sync.Mutex
	checked := 0
	for range 64 {
		wg.Go(func() {
			for range 20 {
				if th.Begin("u_a", home) == nil {
					mu.Lock()
					checked++
					mu.Unlock()
					th.Failed("u_a", home)
				}
			}
		})
	}
	wg.Wait()
	if checked != Free {
		t.Errorf("%d passwords were checked in one moment", checked)
	}
}

// One wrong password each for many accounts: the source's own limit, told once.
func TestSpraying(t *testing.T) {
	c := newClock()
	th := NewThrottle(c.now)
	told := 0
	for i := range 5000 {
		account := fmt.Sprint("name", i)
		if th.Begin(account, home) != nil {
			c.add(time.Second)
			continue
		}
		if th.Failed(account, home) {
			told++
			if i != SourceFree-1 {
				t.Errorf("told at account %d", i+1)
			}
		}
	}
	if told != 1 {
		t.Errorf("told %d times", told)
	}
	if waits(t, th, "never tried", home) == 0 {
		t.Error("the source does not wait")
	}
	if waits(t, th, "name1", "192.0.2.2") != 0 {
		t.Error("another source waits")
	}
}

func TestSources(t *testing.T) {
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{"192.0.2.1", "192.0.2.1", true},
		{"192.0.2.1", "192.0.2.2", false},
		{"192.0.2.1", "::ffff:192.0.2.1", true},
		{"2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff", true}, // one network, one visitor
		{"2001:db8::1", "2001:db8:0:1::1", false},
		{"fe80::1%eth0", "fe80::1%eth1", true},
		{"", "192.0.2.1", false},
		{"unix socket", "unix socket", true},
	} {
		th := NewThrottle(newClock().now)
		for range Free {
			fail(t, th, "u_a", c.a)
		}
		if got := waits(t, th, "u_a", c.b) != 0; got != c.same {
			t.Errorf("%q and %q are the same: %v", c.a, c.b, got)
		}
	}
}

func TestThrottleMemoryIsBounded(t *testing.T) {
	c := newClock()
	th := NewThrottle(c.now)
	for i := range 3 * maxEntries {
		source := fmt.Sprintf("10.%d.%d.%d", i>>16&255, i>>8&255, i&255)
		if i%2 == 0 {
			fail(t, th, fmt.Sprint("name", i), source)
		} else if th.Begin(fmt.Sprint("name", i), source) != nil { // never ended
			t.Fatal("refused")
		}
		if len(th.m) > maxEntries+1 {
			t.Fatalf("%d entries", len(th.m))
		}
	}
	// Those who sign in rightly leave nothing behind.
	th = NewThrottle(c.now)
	for i := range 1000 {
		begin(t, th, fmt.Sprint("name", i), home)
		th.Passed(fmt.Sprint("name", i), home)
	}
	if len(th.m) != 0 {
		t.Errorf("%d entries of people who made no mistake", len(th.m))
	}
	// What is old goes first.
	for i := range maxEntries {
		th.m[fmt.Sprint("a\x00old", i)] = &tries{failed: 1, last: c.now().Add(-2 * forgetAfter)}
	}
	delete(th.m, "a\x00old0")
	delete(th.m, "a\x00old1")
	fail(t, th, "u_a", home)
	fail(t, th, "u_b", home)
	if len(th.m) != 3 {
		t.Errorf("%d entries are left", len(th.m))
	}
}
