// Package control decides: may they, where does it run, and what must be true
// on every node. It remembers through store and acts through quire.Machine and
// quire.Gateway. Every exported method takes the actor and asks quire.Can.
package control

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"slices"
	"time"

	"quire"
	"quire/login"
	"quire/store"
	"quire/ticket"
)

// Fleet finds the live things behind records. The network's is
// compute/remote; tests give nodes in the same process.
type Fleet interface {
	Machine(dc quire.DataCenter, node quire.Node) quire.Machine
	Gateway(dc quire.DataCenter) quire.Gateway
}

// Config is what Control needs from outside.
type Config struct {
	Store   *store.Store
	Signer  *ticket.Signer
	Origins quire.Origins
	Fleet   Fleet
	// Authority certifies gateways and nodes that join; nil: none can.
	Authority Authority
	// AppsDefault is Origins' address of apps as the configuration says it, for
	// data centers without one of their own.
	AppsDefault string
	Log         *slog.Logger
	Now         func() time.Time // nil: time.Now

	Accounts    Accounts      // as whom people's processes run
	ProjectRoot string        // parent of OWNER/PROJECT for new projects
	Grace       time.Duration // how long grants outlive a silent server, 0 to MaxGrace
	KeepDeleted time.Duration // how long a deleted project can be restored
	DigitNames  bool          // user names of digits only are allowed
	Anonymous   bool          // public folders are shown without a login
	VisitorName string        // the account that shows them

	// Worker is a process that serves no pages: it does the works, and the others
	// do only while none like it is there.
	Worker bool
}

// MaxGrace bounds Config.Grace, and with it how long revocations matter.
const MaxGrace = 24 * time.Hour

// Control is the whole of it, one field per noun.
type Control struct {
	Users    *Users
	Logins   *Logins
	Projects *Projects
	Team     *Team
	Moves    *Moves
	Sessions *Sessions
	Site     *Site
	Rotation *Rotation
	Events   *Events

	core *core
	loop *reconciler
}

// core is what the nouns share.
type core struct {
	Config
	hasher   *login.Hasher
	throttle *login.Throttle
	verify   *ticket.Verifier
	formKey  []byte
	hub      *hub
	loop     *reconciler
}

// New builds Control. Nothing runs until Run.
func New(cfg Config) (*Control, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Grace < 0 || cfg.Grace > MaxGrace {
		return nil, quire.Invalid("grace", "The grace is between 0 and 24 hours.")
	}
	verify, err := ticket.NewVerifier(cfg.Signer.Public())
	if err != nil {
		return nil, err
	}
	mac := hmac.New(sha256.New, cfg.Signer.Seed())
	mac.Write([]byte("form token"))
	if cfg.Accounts == nil {
		return nil, quire.Invalid("accounts", "It is not said as whom sessions run.")
	}
	c := &core{
		Config: cfg, verify: verify, hasher: login.NewHasher(), throttle: login.NewThrottle(cfg.Now),
		formKey: mac.Sum(nil), hub: newHub(),
	}
	c.loop = newReconciler(c)
	ctl := &Control{core: c, loop: c.loop}
	ctl.Users, ctl.Logins, ctl.Projects = &Users{c}, &Logins{c}, &Projects{c}
	ctl.Team, ctl.Sessions, ctl.Site, ctl.Events = &Team{c}, &Sessions{c}, &Site{c}, &Events{c}
	ctl.Rotation = &Rotation{c}
	ctl.Moves = &Moves{c}
	return ctl, nil
}

// Run keeps the links to nodes and gateways until ctx ends and, while this is the
// process of the installation that does the works, makes nodes and gateways agree
// with the database. Works that another process left open are resumed.
func (c *Control) Run(ctx context.Context) error { return c.loop.run(ctx) }

// txn is a transaction that also collects what must be looked at again once it
// is on disk.
type txn struct {
	*store.Tx
	by    quire.Actor
	wakes []wake
	pages []wake // come last: what they show may be what the others have done
}

// wake notes what must be looked at again, here and in other processes.
func (t *txn) wake(kind, id string) { note(&t.wakes, wake{kind, id}) }

// touch notes that people who look at the project ("": at anything) must see it
// anew.
func (t *txn) touch(p quire.ProjectID) { note(&t.pages, wake{wakePages, string(p)}) }

func note(list *[]wake, w wake) {
	if !slices.Contains(*list, w) {
		*list = append(*list, w)
	}
}

// event writes what the actor did.
func (t *txn) event(verb string, project quire.ProjectID, detail string) error {
	name := t.by.Name
	if t.by.System {
		name = "Quire"
	}
	return t.AddEvent(quire.Event{Actor: t.by.User, Name: name, Address: t.by.Address, Verb: verb, Project: project, Detail: detail})
}

func (c *core) write(ctx context.Context, by quire.Actor, f func(*txn) error) error {
	t := &txn{by: by}
	err := c.Store.Write(ctx, func(tx *store.Tx) error {
		t.Tx = tx
		// The request may have begun before its login ended: nothing is changed
		// after a logout has been answered, nor with rights that went with it.
		if by.Login != "" {
			if _, err := tx.Login(by.Login); quire.KindOf(err) == quire.KindNotFound {
				return quire.Unauthenticated()
			} else if err != nil {
				return err
			}
		}
		if err := f(t); err != nil {
			return err
		}
		t.wakes = append(t.wakes, t.pages...)
		for _, w := range t.wakes {
			tx.Say(w.String())
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, w := range t.wakes {
		c.loop.woken(w)
	}
	return nil
}

func (c *core) read(ctx context.Context, f func(*store.Tx) error) error { return c.Store.Read(ctx, f) }

// project loads a living project as the actor sees it and checks the verb. No
// such project and no right to see it are one answer.
func (c *core) project(tx *store.Tx, by quire.Actor, id quire.ProjectID, verb quire.Verb) (quire.Project, error) {
	if !by.Known() {
		return quire.Project{}, quire.Unauthenticated()
	}
	p, err := tx.Project(by.User, id)
	if err != nil {
		return p, err
	}
	if p.Deleted != nil && !by.System {
		return p, quire.NotFound("project")
	}
	return p, allow(by, verb, p)
}

func allow(by quire.Actor, verb quire.Verb, p quire.Project) error {
	if quire.Can(by, verb, p.Role, p.Public) {
		return nil
	}
	if !by.Known() {
		return quire.Unauthenticated()
	}
	if !quire.Can(by, quire.See, p.Role, p.Public) {
		return quire.NotFound("project")
	}
	return quire.Forbidden("Your role in this project does not allow that. Its owner can change your role.")
}

func needAdmin(by quire.Actor) error {
	switch {
	case by.Admin || by.System:
		return nil
	case !by.Known():
		return quire.Unauthenticated()
	}
	return quire.Forbidden("Only an administrator can do that.")
}

func needPerson(by quire.Actor) error {
	if by.User == "" {
		return quire.Unauthenticated()
	}
	return nil
}

func needKnown(by quire.Actor) error {
	if !by.Known() {
		return quire.Unauthenticated()
	}
	return nil
}

// hash is how secrets are kept: they have 256 random bits, so a plain hash is
// enough.
func hash(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

// quireItself is the actor of works that nobody asked for just now.
var quireItself = quire.Actor{System: true, Name: "Quire"}
