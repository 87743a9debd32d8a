package control

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"quire"
	"quire/compute/remote"
	"quire/login"
	"quire/store"
	"quire/ticket"
)

// site is a whole installation as control sees it: the real database and real
// tickets; a node and a gateway that are scripted (machine_test.go). The real
// node, gateway and network between them are tested where they live, and all
// together by the stories in test/.
type site struct {
	beside    bool // another process does the works
	worker    bool
	anonymous bool // public folders are shown without a login
	t         *testing.T
	file      string
	clock     *clock
	signer    *ticket.Signer
	authority *remote.Authority
	verify    *ticket.Verifier
	origins   quire.Origins
	dc        quire.DataCenter
	record    quire.Node
	node      *machine
	other     *machine // a second one, if there is
	gate      *door
	grace     time.Duration
	keep      time.Duration

	// Of the process that runs now; crash ends it, boot starts the next.
	store *store.Store
	*Control
	stop context.CancelFunc
	ran  chan error
}

const (
	password = "correct horse battery"
	home     = "192.0.2.1"
)

// clock runs with the real one, some time ahead.
type clock struct {
	mu    sync.Mutex
	ahead time.Duration
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.ahead)
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ahead += d
}

// reset sets it to the real one.
func (c *clock) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ahead = 0
}

type fleet struct{ s *site }

func (f fleet) Machine(_ quire.DataCenter, n quire.Node) quire.Machine {
	if f.s.other != nil && n.ID == f.s.other.id {
		return f.s.other
	}
	return f.s.node
}

func (f fleet) Gateway(quire.DataCenter) quire.Gateway { return f.s.gate }

var phc = sync.OnceValues(func() (string, error) { return login.NewHasher().Hash(context.Background(), password) })

func newSite(t *testing.T) *site {
	t.Helper()
	return siteOn(t, database(t))
}

func siteOn(t *testing.T, file string) *site {
	t.Helper()
	s := &site{t: t, file: file, clock: &clock{}, signer: ticket.NewSigner(), grace: time.Hour, keep: 7 * 24 * time.Hour}
	var err error
	s.verify, err = ticket.NewVerifier(s.signer.Public())
	must(t, err)
	s.origins, err = quire.NewOrigins(quire.OriginConfig{Portal: "http://quire.localhost:8080", Apps: "http://*.apps.localhost:8089"})
	must(t, err)
	s.dc = quire.DataCenter{ID: quire.NewDataCenterID(), Name: "local", Gateway: quire.NewNodeID(), Address: "127.0.0.1:8089"}
	s.record = quire.Node{ID: quire.NewNodeID(), DataCenter: s.dc.ID, Name: "here", Address: "127.0.0.1:5002"}
	s.authority, err = remote.NewAuthority("test")
	must(t, err)
	must(t, s.authority.Save(t.TempDir()))
	s.node, s.gate = newMachine(s), newDoor(s)
	s.boot()
	t.Cleanup(s.crash)
	must(t, s.Site.Join(bg(), quireItself, s.dc, s.record))
	s.up()
	return s
}

// another is a second process of the same installation, with a gateway's stream of
// its own.
func (s *site) another(change ...func(*site)) *site {
	s.t.Helper()
	b := *s
	b.gate = newDoor(&b)
	for _, f := range change {
		f(&b)
	}
	b.boot()
	s.t.Cleanup(b.crash)
	return &b
}

// leads waits until this process does the works.
func (s *site) leads() {
	s.t.Helper()
	s.eventually("this process does the works", func() bool { return s.loop.leading() != nil })
}

// up waits until the links stand.
func (s *site) up() {
	s.t.Helper()
	s.eventually("everything is up", func() bool {
		waiting, err := s.Site.Waiting(bg(), quireItself)
		return err == nil && waiting == ""
	})
	if !s.beside {
		s.leads()
	}
}

// boot starts a process on the database, as after a restart.
func (s *site) boot() {
	s.t.Helper()
	var err error
	s.store, err = store.Open(bg(), s.file)
	must(s.t, err)
	s.Control, err = New(Config{
		Store: s.store, Signer: s.signer, Origins: s.origins, Fleet: fleet{s}, Now: s.clock.now, Authority: s.authority, AppsDefault: "http://*.apps.localhost:8089",
		Log: slog.New(slog.NewTextHandler(s.t.Output(), nil)), Accounts: OneAccount("quire-user", 999),
		ProjectRoot: "/projects", Grace: s.grace, KeepDeleted: s.keep, Anonymous: s.anonymous, VisitorName: "quire-visitor", Worker: s.worker,
	})
	must(s.t, err)
	ctx, cancel := context.WithCancel(bg())
	ran := make(chan error, 1)
	s.stop, s.ran = cancel, ran
	ctl := s.Control
	go func() { ran <- ctl.Run(ctx) }()
}

// crash ends the process wherever it is.
func (s *site) crash() {
	if s.stop == nil {
		return
	}
	s.stop()
	if err := <-s.ran; err != nil {
		s.t.Errorf("run: %v", err)
	}
	s.stop = nil
	must(s.t, s.store.Close())
}

func (s *site) reboot() {
	s.t.Helper()
	s.crash()
	s.boot()
}

func bg() context.Context { return context.Background() }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// want checks the kind of an error, "" for none.
func want(t testing.TB, what string, kind quire.Kind, err error) {
	t.Helper()
	if quire.KindOf(err) != kind {
		t.Errorf("%s: %v, want %q", what, err, kind)
	}
}

func (s *site) eventually(what string, is func() bool) {
	s.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		if time.Now().After(deadline) {
			s.t.Fatalf("never: %s", what)
		}
		<-tick.C
	}
}

func (s *site) tx(f func(*store.Tx) error) {
	s.t.Helper()
	must(s.t, s.store.Write(bg(), f))
}

// person makes an account and signs it in.
func (s *site) person(name string, admin ...bool) quire.Actor {
	s.t.Helper()
	hash, err := phc()
	must(s.t, err)
	u := quire.User{ID: quire.NewUserID(), Name: name, Admin: len(admin) > 0, Email: name + "@example.org", Created: time.Now()}
	s.tx(func(tx *store.Tx) error { return tx.AddUser(u, hash) })
	by, _ := s.enter(name)
	return by
}

// enter signs somebody in without the cost of a hash.
func (s *site) enter(name string) (quire.Actor, Entered) {
	s.t.Helper()
	var in Entered
	must(s.t, s.core.write(bg(), quireItself, func(tx *txn) error {
		u, err := tx.UserByName(name)
		if err != nil {
			return err
		}
		in, err = enter(tx, u, From{Address: home, Agent: "test"})
		return err
	}))
	by, err := s.Logins.Resolve(bg(), in.Read)
	must(s.t, err)
	return by, in
}

func (s *site) project(by quire.Actor, name string, public ...bool) quire.Project {
	s.t.Helper()
	p, err := s.Projects.Create(bg(), by, NewProject{Name: name, Public: len(public) > 0})
	must(s.t, err)
	return p
}

// started makes a project that runs.
func (s *site) started(by quire.Actor, name string, public ...bool) quire.Project {
	s.t.Helper()
	p := s.project(by, name, public...)
	must(s.t, s.Projects.Start(bg(), by, p.ID))
	s.settled(p.ID, quire.ProjectRunning)
	return s.see(p.ID)
}

// open opens an app and waits until it runs.
func (s *site) open(by quire.Actor, p quire.Project, app string) quire.Session {
	s.t.Helper()
	a, err := s.Sessions.Open(bg(), by, p.ID, app)
	must(s.t, err)
	s.session(a.Session.ID, quire.SessionRunning)
	return s.row(a.Session.ID)
}

// see reads a project as Quire itself does.
func (s *site) see(id quire.ProjectID) (p quire.Project) {
	s.t.Helper()
	must(s.t, s.store.Read(bg(), func(tx *store.Tx) (err error) { p, err = tx.Project("", id); return err }))
	return p
}

func (s *site) row(id quire.SessionID) (one quire.Session) {
	s.t.Helper()
	must(s.t, s.store.Read(bg(), func(tx *store.Tx) (err error) { one, err = tx.Session(id); return err }))
	return one
}

func (s *site) work(id quire.ProjectID) (w quire.Work) {
	s.t.Helper()
	must(s.t, s.store.Read(bg(), func(tx *store.Tx) error {
		latest, err := tx.LatestWork(id)
		if latest != nil {
			w = *latest
		}
		return err
	}))
	return w
}

// settled waits until the project is in the state and nothing is under way.
func (s *site) settled(id quire.ProjectID, state quire.ProjectState) {
	s.t.Helper()
	s.eventually("the project is "+string(state), func() bool { return s.see(id).State == state && s.work(id).Ended != nil })
}

func (s *site) session(id quire.SessionID, state quire.SessionState) {
	s.t.Helper()
	s.eventually("the session is "+string(state), func() bool { return s.row(id).State == state })
}

// label is where somebody's apps of a project are.
func (s *site) label(by quire.Actor, id quire.ProjectID) (l quire.Label) {
	s.t.Helper()
	s.tx(func(tx *store.Tx) (err error) { l, err = tx.Label(by.User, id); return err })
	return l
}

const nonce = "the browser's nonce"

func nonceHash() string {
	sum := sha256.Sum256([]byte(nonce))
	return hex.EncodeToString(sum[:])
}

// handOff does what browser and gateway do: it returns the grant.
func (s *site) handOff(by quire.Actor, label quire.Label) ([]byte, error) {
	h, err := s.Sessions.HandOff(bg(), by, Ask{Label: label, Nonce: nonceHash(), Path: "/notebook/"})
	if err != nil {
		return nil, err
	}
	raw, err := base64.RawURLEncoding.DecodeString(h.Ticket)
	must(s.t, err)
	if want := s.origins.Origin(label) + "/_quire/enter"; h.Action != want || h.Path != "/notebook/" {
		s.t.Errorf("handed to %s, %s", h.Action, h.Path)
	}
	k, err := s.verify.Ticket(raw, s.dc.Gateway, label, nonce, s.clock.now())
	must(s.t, err)
	return k.Grant, nil
}

// grant is handOff for those who must succeed.
func (s *site) grant(by quire.Actor, label quire.Label) []byte {
	s.t.Helper()
	g, err := s.handOff(by, label)
	must(s.t, err)
	return g
}

// events lists the verbs of what happened in a project or, without, at all.
func (s *site) events(id quire.ProjectID) string {
	s.t.Helper()
	var verbs []string
	var es []quire.Event
	must(s.t, s.store.Read(bg(), func(tx *store.Tx) (err error) { es, err = tx.EventsOf(id, 1<<40, 100); return err }))
	for i := len(es) - 1; i >= 0; i-- {
		verbs = append(verbs, es[i].Verb)
	}
	return strings.Join(verbs, " ")
}

func ptr[T any](v T) *T { return &v }
