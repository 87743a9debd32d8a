package login

import (
	"math"
	"net/netip"
	"sync"
	"time"

	"quire"
)

// Throttle slows guessing. An account-and-source pair that failed Free times
// waits longer after each further failure, and so does a source that fails with
// many accounts. Other sources are not slowed, so nobody can lock a person out.
// Tries that are still being checked count as well: many at once gain nothing.
type Throttle struct {
	now func() time.Time
	mu  sync.Mutex
	m   map[string]*tries
}

type tries struct {
	failed int
	open   int // being checked now
	last   time.Time
	until  time.Time
}

const (
	// Free failures of one account from one source cost nothing.
	Free = 10
	// SourceFree failures of one source, whatever the accounts, cost nothing.
	SourceFree  = 100
	forgetAfter = time.Hour
	firstWait   = 2 * time.Second
	longestWait = 5 * time.Minute
	maxEntries  = 100_000
)

// NewThrottle takes the clock (nil: time.Now).
func NewThrottle(now func() time.Time) *Throttle {
	if now == nil {
		now = time.Now
	}
	return &Throttle{now: now, m: map[string]*tries{}}
}

// keys names the pair and the source. An IPv6 source is its /64: whoever has one
// address there has all of them.
func keys(account, source string) (pair, from string) {
	if a, err := netip.ParseAddr(source); err == nil {
		a = a.Unmap().WithZone("")
		source = a.String()
		if a.Is6() {
			source = netip.PrefixFrom(a, 64).Masked().String()
		}
	}
	return "a\x00" + account + "\x00" + source, "s\x00" + source
}

// Begin asks whether a try may be made now: nil, or KindTooMany with the time to
// wait. account is the account's ID, or the lower-case name where there is none.
// After nil exactly one of Failed, Passed and Dropped follows.
func (t *Throttle) Begin(account, source string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	pair, from := keys(account, source)
	var wait time.Duration
	for _, key := range []string{pair, from} {
		if e := t.m[key]; e != nil && e.until.After(now) {
			wait = max(wait, e.until.Sub(now))
		}
	}
	if wait > 0 {
		return tooMany("Too many wrong passwords. Wait a little before you try again.", wait)
	}
	e := t.entry(pair, now)
	if e.open >= max(1, Free-e.failed) {
		return tooMany("Too many sign-ins to this account at once. Try again in a moment.", firstWait)
	}
	e.open++
	return nil
}

func tooMany(message string, wait time.Duration) error {
	return &quire.Error{Kind: quire.KindTooMany, Message: message, RetryAfter: int(math.Ceil(wait.Seconds()))}
}

// Failed counts a wrong password and reports whether the source has just
// reached its own limit, which is worth an event.
func (t *Throttle) Failed(account, source string) (spray bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	pair, from := keys(account, source)
	t.close(pair)
	t.count(pair, Free)
	return t.count(from, SourceFree) == SourceFree
}

// Heard counts a try that another process has had decided.
func (t *Throttle) Heard(account, source string, passed bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	pair, from := keys(account, source)
	if passed {
		if e := t.m[pair]; e != nil {
			e.failed, e.until = 0, time.Time{}
		}
		return
	}
	t.count(pair, Free)
	t.count(from, SourceFree)
}

// entry finds or makes the entry of a key.
func (t *Throttle) entry(key string, now time.Time) *tries {
	e := t.m[key]
	if e == nil || now.Sub(e.last) > forgetAfter {
		if len(t.m) >= maxEntries {
			t.forget(now)
		}
		e = &tries{last: now}
		t.m[key] = e
	}
	return e
}

// close notes that a try is over. The entry may be gone meanwhile.
func (t *Throttle) close(pair string) {
	if e := t.m[pair]; e != nil && e.open > 0 {
		e.open--
		if e.open == 0 && e.failed == 0 {
			delete(t.m, pair)
		}
	}
}

func (t *Throttle) count(key string, free int) int {
	now := t.now()
	e := t.entry(key, now)
	e.failed++
	e.last = now
	if over := e.failed - free; over >= 0 {
		e.until = now.Add(min(longestWait, firstWait<<min(over, 8)))
	}
	return e.failed
}

// forget drops what is old, and when nothing is, everything: memory is bounded
// whatever is thrown at us.
func (t *Throttle) forget(now time.Time) {
	for k, e := range t.m {
		if now.Sub(e.last) > forgetAfter {
			delete(t.m, k)
		}
	}
	if len(t.m) >= maxEntries {
		clear(t.m)
	}
}

// Passed forgets the failures of an account from a source.
func (t *Throttle) Passed(account, source string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	pair, _ := keys(account, source)
	if e := t.m[pair]; e != nil {
		e.failed, e.until = 0, time.Time{}
	}
	t.close(pair)
}

// Dropped ends a try that was never decided: the queue was full, or whoever
// tried is gone.
func (t *Throttle) Dropped(account, source string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	pair, _ := keys(account, source)
	t.close(pair)
}
