package store

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"quire"
)

// A process is a Store that listens, as a server does.
type process struct {
	t *testing.T
	*Store
	end  context.CancelFunc
	over chan struct{}

	mu      sync.Mutex
	heard   []string
	missed  int
	lost    int
	leads   context.Context // nil while another one leads
	terms   int
	linger  chan struct{} // if set, Lead goes on until it is closed
	leaders *leaders
}

// leaders sees whether two lead at once.
type leaders struct {
	mu   sync.Mutex
	now  int
	most int
}

func (l *leaders) add(n int) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.now += n
	l.most = max(l.most, l.now)
}

func listening(t *testing.T, address string, l *leaders, with ...func(*process, *Listener)) *process {
	t.Helper()
	p := &process{t: t, Store: open(t, address), over: make(chan struct{}), leaders: l}
	listener := Listener{
		Heard:  func(words []string) { p.mu.Lock(); defer p.mu.Unlock(); p.heard = append(p.heard, words...) },
		Missed: func() { p.mu.Lock(); defer p.mu.Unlock(); p.missed++ },
		Lost:   func(error) { p.mu.Lock(); defer p.mu.Unlock(); p.lost++ },
		Lead: func(ctx context.Context) {
			p.leaders.add(1)
			defer p.leaders.add(-1)
			p.mu.Lock()
			p.leads = ctx
			p.terms++
			linger := p.linger
			p.mu.Unlock()
			<-ctx.Done()
			p.mu.Lock()
			p.leads = nil
			p.mu.Unlock()
			if linger != nil {
				<-linger
			}
		},
	}
	for _, f := range with {
		f(p, &listener)
	}
	ctx, cancel := context.WithCancel(context.Background())
	p.end = cancel
	go func() {
		defer close(p.over)
		if err := p.Listen(ctx, listener); err != nil {
			t.Error(err)
		}
	}()
	t.Cleanup(p.stop)
	p.until("it listens", func() bool { return p.missed > 0 })
	return p
}

func standIn(_ *process, l *Listener) { l.StandIn = true }

func (p *process) stop() {
	p.end()
	<-p.over
}

// until waits for what f says under the lock.
func (p *process) until(what string, f func() bool) {
	p.t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(40 * time.Second); ; <-tick.C {
		p.mu.Lock()
		ok := f()
		p.mu.Unlock()
		if ok {
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("never: %s", what)
		}
	}
}

func (p *process) lead() context.Context {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.leads
}

func (p *process) say(words ...string) error {
	return p.Write(context.Background(), func(tx *Tx) error { tx.Say(words...); return nil })
}

// cut ends the connections that listen, as a failover does.
func (p *process) cut() {
	p.t.Helper()
	if _, err := p.write.Exec(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'quire listening'`); err != nil {
		p.t.Fatal(err)
	}
}

// What a change says is heard by the other processes, with the commit or not at
// all, in the order of the commits; and not by the one that made it.
func TestWordsReachTheOthers(t *testing.T) {
	if runsOnPostgres() {
		return // what follows is about two processes, of which SQLite has one
	}
	addr := postgres(t)
	a, b, elsewhere := listening(t, addr, nil), listening(t, addr, nil), listening(t, postgres(t), nil)
	if err := a.Write(context.Background(), func(tx *Tx) error { tx.Say("undone"); return errors.New("no") }); err == nil {
		t.Fatal("written")
	}
	long := strings.Repeat("x", maxSaid-100)
	odd := "ü \x00 \xff \" \\ '"
	var want []string
	for i := range 20 {
		words := []string{fmt.Sprint("a ", i), long, odd}
		if err := a.say(words...); err != nil {
			t.Fatal(err)
		}
		want = append(want, words[0], long, "ü \x00 \uFFFD \" \\ '")
	}
	b.until("it has heard all", func() bool { return len(b.heard) >= len(want) })
	if !slices.Equal(b.heard, want) {
		t.Errorf("heard %d words, the first %.40q", len(b.heard), b.heard)
	}
	if err := b.say("last"); err != nil {
		t.Fatal(err)
	}
	a.until("it has heard the other", func() bool { return len(a.heard) > 0 })
	if len(a.heard) != 1 {
		t.Errorf("it has heard itself: %.40q", a.heard)
	}
	if len(elsewhere.heard) != 0 {
		t.Errorf("another installation on the same server has heard %.40q", elsewhere.heard)
	}
	if err := a.say(strings.Repeat("x", maxSaid+1)); err == nil {
		t.Error("a word that is too long is said")
	}
}

// A connection that was cut is replaced, and whoever listens is told that he may
// have missed something: once for each.
func TestACutEarSaysThatItMissed(t *testing.T) {
	if runsOnPostgres() {
		return // it is about PostgreSQL, or was run already
	}
	addr := postgres(t)
	a, b := listening(t, addr, nil), listening(t, addr, nil)
	for round := 1; round <= 2; round++ {
		a.cut()
		if err := b.say("perhaps unheard"); err != nil {
			t.Fatal(err)
		}
		for _, p := range []*process{a, b} {
			p.until("it listens again", func() bool { return p.missed == 1+round && p.lost == round })
		}
		word := fmt.Sprint("round ", round)
		if err := b.say(word); err != nil {
			t.Fatal(err)
		}
		a.until("it hears again", func() bool { return slices.Contains(a.heard, word) })
	}
}

// One process at a time leads. Who has lost the lead cannot write with it, even
// if he has not noticed; another one takes it by itself.
func TestOneLeads(t *testing.T) {
	if runsOnPostgres() {
		return // it is about PostgreSQL, or was run already
	}
	addr := postgres(t)
	var l leaders
	a := listening(t, addr, &l)
	a.until("it leads", func() bool { return a.leads != nil })
	first := context.WithoutCancel(a.lead())
	set := func(p *process, ctx context.Context) error {
		return p.Write(ctx, func(tx *Tx) error { return tx.SetSetting("k", "v") })
	}
	if err := set(a, first); err != nil {
		t.Errorf("who leads cannot write: %v", err)
	}
	b := listening(t, addr, &l)
	terms := func() int {
		b.mu.Lock()
		defer b.mu.Unlock()
		return a.terms + b.terms
	}
	for round := range 3 {
		a.cut()
		var lead context.Context
		leader := a
		a.until("one of them leads again", func() bool {
			if lead = a.leads; lead == nil {
				leader, lead = b, b.lead()
			}
			return lead != nil && terms() == 2+round
		})
		if err := set(leader, lead); err != nil {
			t.Errorf("who leads cannot write: %v", err)
		}
	}
	a.stop()
	b.until("the other one leads", func() bool { return b.leads != nil })
	if err := set(a, first); quire.KindOf(err) != quire.KindUnavailable || !errors.Is(err, errFenced) {
		t.Errorf("who led before: %v", err)
	}
	if err := set(a, context.Background()); err != nil {
		t.Errorf("what has nothing to do with the lead: %v", err)
	}
	if l.most != 1 {
		t.Errorf("%d led at once", l.most)
	}
}

// Who stands in leads while nobody else is there, makes room when somebody comes
// who does not, and does not hold it up longer than what he does takes to end.
func TestStandIns(t *testing.T) {
	if runsOnPostgres() {
		return // it is about PostgreSQL, or was run already
	}
	addr := postgres(t)
	var l leaders
	linger := make(chan struct{})
	a := listening(t, addr, &l, standIn, func(p *process, _ *Listener) { p.linger = linger })
	a.until("it leads", func() bool { return a.leads != nil })
	b := listening(t, addr, &l, standIn)
	worker := listening(t, addr, &l)
	a.until("it is asked to make room", func() bool { return a.leads == nil })
	if worker.lead() != nil || b.lead() != nil {
		t.Error("another one leads while what the first did still goes on")
	}
	close(linger)
	worker.until("the worker leads", func() bool { return worker.leads != nil })
	worker.stop()
	b.until("somebody stands in again", func() bool { return b.leads != nil || a.lead() != nil })
	if l.most != 1 {
		t.Errorf("%d led at once", l.most)
	}
	again := listening(t, addr, &l)
	again.until("the worker is back and leads", func() bool { return again.leads != nil })
}

// SQLite is one process's: it leads and misses nothing.
func TestAloneOneLeads(t *testing.T) {
	if runsOnPostgres() {
		return // it is about SQLite's file
	}
	p := listening(t, address(t), nil, standIn)
	p.until("it leads", func() bool { return p.leads != nil })
	if err := p.Write(p.lead(), func(tx *Tx) error { tx.Say("to nobody"); return nil }); err != nil {
		t.Error(err)
	}
}

// A transaction knows how many commits it sees, on every engine.
func TestCount(t *testing.T) {
	s := fresh(t)
	count := func() (n int64) {
		read(t, s, func(tx *Tx) (err error) { n, err = tx.Count(); return err })
		return n
	}
	before := count()
	for range 3 {
		write(t, s, func(tx *Tx) error { return tx.SetSetting("k", "v") })
	}
	if err := s.Write(context.Background(), func(tx *Tx) error { return errors.New("undone") }); err == nil {
		t.Error("written")
	}
	if got := count(); got != before+3 {
		t.Errorf("%d commits are seen, %d before three", got, before)
	}
}

const leaderOf = "QUIRE_TEST_LEADER"

// leadForEver leads and, each time a line comes in, writes and says whether it
// could.
func leadForEver(address string) error {
	s, err := Open(context.Background(), address)
	if err != nil {
		return err
	}
	return s.Listen(context.Background(), Listener{
		Heard: func([]string) {}, Missed: func() {}, Lost: func(error) {},
		Lead: func(ctx context.Context) {
			fmt.Println("leads")
			for in := bufio.NewScanner(os.Stdin); in.Scan(); {
				err := s.Write(context.WithoutCancel(ctx), func(tx *Tx) error { return tx.SetSetting("by", in.Text()) })
				fmt.Println(quire.KindOf(err), err == nil)
			}
		},
	})
}

// A leader that is stopped, as by a machine that hangs, loses the lead to another
// process although its connection stands; when it goes on, it changes nothing.
func TestAStoppedLeader(t *testing.T) {
	if runsOnPostgres() {
		return // it is about PostgreSQL, or was run already
	}
	addr := postgres(t)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), leaderOf+"="+addr)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	lines := bufio.NewReader(out)
	says := func(want string) {
		t.Helper()
		if line, err := lines.ReadString('\n'); err != nil || line != want+"\n" {
			t.Fatalf("it says %q (%v), not %q", line, err, want)
		}
	}
	says("leads")
	fmt.Fprintln(in, "first")
	says(" true")
	if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	p := listening(t, addr, nil)
	p.until("the other one leads", func() bool { return p.leads != nil })
	if err := p.Write(p.lead(), func(tx *Tx) error { return tx.SetSetting("by", "second") }); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(in, "too late")
	if err := cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	says("unavailable false")
	read(t, p.Store, func(tx *Tx) error {
		by, err := tx.Setting("by")
		if by != "second" {
			t.Errorf("written by the %s", by)
		}
		return err
	})
}
