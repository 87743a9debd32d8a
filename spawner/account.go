package spawner

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"quire"
	"quire/spawner/launch"
)

// An Account is a Linux account as the name service knows it.
type Account struct {
	Name    string
	UID     uint32
	GID     uint32
	Groups  []uint32 // supplementary
	Private bool     // the primary group is this person's alone
	Home    string
	Shell   string
}

// Accounts is whom sessions may run as on this node. Separate and Single are
// the two kinds; the choice is made once, where the program starts.
type Accounts interface {
	// Name is "separate" or "single".
	Name() string
	// Find checks an order's account against the name service. Its errors are
	// sentences.
	Find(ctx context.Context, name string, uid uint32) (Account, error)
	// Ensure makes the account if it is missing and may be made, and says whether
	// it was there. uid 0 asks for the number that the account has.
	Ensure(ctx context.Context, name string, uid uint32, create bool) (a Account, already bool, err error)
	// Keeper is the uid that must own the directories above a project.
	Keeper() uint32
	// Give makes the open file the account's, with the group.
	Give(fd int, uid, gid uint32) error

	// Reader is as whom everything in a project that moves is read, whoever it
	// belongs to: nobody, with the right to, or the one account there is.
	Reader(owner Account) Account

	// Untouched says whose files are never changed: the system's, and those of
	// accounts that nobody may work as.
	Untouched(ctx context.Context) func(uid uint32) bool

	mode() launch.Mode
}

// Policy is which accounts may be used in separate mode.
type Policy struct {
	MinUID  uint32        // below are services; 0 = 1000
	Refuse  []string      // names of service accounts, in addition to the built-in ones
	Timeout time.Duration // for the name service; 0 = 5 s
	Keep    time.Duration // how long an answer is used again; 0 = 1 min
}

// Separate runs each session as its person's own account.
func Separate(p Policy) Accounts {
	if p.MinUID == 0 {
		p.MinUID = 1000
	}
	if p.Timeout == 0 {
		p.Timeout = 5 * time.Second
	}
	if p.Keep == 0 {
		p.Keep = time.Minute
	}
	return &separate{policy: p, known: map[string]known{}, now: time.Now}
}

// services are never anybody's session account, whatever their uid.
var services = [...]string{"root", "nobody", "quire", "quire-server", "quire-gateway", "quire-compute", "quire-spawner", "wakari", "aen_admin"}

const nobody = 65534

type known struct {
	account Account
	until   time.Time
}

type separate struct {
	policy Policy
	now    func() time.Time

	making sync.Mutex

	mu    sync.Mutex
	known map[string]known
}

func (s *separate) Name() string      { return "separate" }
func (s *separate) Keeper() uint32    { return 0 }
func (s *separate) mode() launch.Mode { return launch.Separate }

func (s *separate) Give(fd int, uid, gid uint32) error {
	return unix.Fchown(fd, int(uid), int(gid))
}

func (s *separate) Reader(Account) Account {
	return Account{Name: "nobody", UID: nobody, GID: nobody, Private: true}
}

func (s *separate) Find(ctx context.Context, name string, uid uint32) (Account, error) {
	if err := s.allowed(name, uid); err != nil {
		return Account{}, err
	}
	a, err := s.lookUp(ctx, name)
	if quire.KindOf(err) == quire.KindNotFound {
		return Account{}, quire.Failed(quire.AsError(err).Message, err) // it is no thing that was asked for
	}
	if err != nil {
		return Account{}, err
	}
	return a, s.same(a, uid)
}

// allowed refuses what is never anybody's account.
func (s *separate) allowed(name string, uid uint32) error {
	switch {
	case quire.CheckUserName(name, true) != nil:
		return quire.Forbidden("The account's name cannot be one.")
	case uid == 0 || uid == nobody || uid == 1<<32-1 || slices.Contains(services[:], name) || slices.Contains(s.policy.Refuse, name):
		return quire.Forbidden("Nothing runs as the account " + name + ": it is the system's or a service's, and files that belong to it are shared by all projects. Use an account of your own.")
	case uid < s.policy.MinUID:
		return quire.Forbidden(fmt.Sprintf("No session runs as a system account: uid %d of %s is below %d.", uid, name, s.policy.MinUID))
	}
	return nil
}

func (s *separate) Untouched(ctx context.Context) func(uint32) bool {
	var of []uint32
	unknown := false
	for _, name := range slices.Concat(services[:], s.policy.Refuse) {
		a, err := s.lookUp(ctx, name)
		if err == nil {
			of = append(of, a.UID)
		}
		unknown = unknown || quire.KindOf(err) == quire.KindUnavailable // then nobody's are
	}
	return func(uid uint32) bool {
		return unknown || uid < s.policy.MinUID || uid == nobody || slices.Contains(of, uid)
	}
}

// same refuses an account that is not the one the server has written down: its
// files and its person would no longer belong together.
func (s *separate) same(a Account, uid uint32) error {
	if a.UID != uid {
		return quire.Forbidden(fmt.Sprintf("The account %s has uid %d on this node, not %d as Quire knows it. An administrator must look at this.", a.Name, a.UID, uid))
	}
	if a.GID == 0 {
		return quire.Forbidden("The account " + a.Name + " has root's group.")
	}
	return nil
}

func (s *separate) Ensure(ctx context.Context, name string, uid uint32, create bool) (Account, bool, error) {
	if err := s.allowed(name, max(uid, s.policy.MinUID)); err != nil {
		return Account{}, false, err
	}
	if uid != 0 {
		if err := s.allowed(name, uid); err != nil {
			return Account{}, false, err
		}
	}
	s.making.Lock() // useradd takes a lock of its own and does not wait for it
	defer s.making.Unlock()
	s.mu.Lock()
	delete(s.known, name)
	s.mu.Unlock()
	a, err := s.lookUp(ctx, name)
	switch {
	case err == nil && uid == 0:
		if err := s.allowed(name, a.UID); err != nil {
			return Account{}, false, err
		}
		return a, true, s.same(a, a.UID)
	case err == nil && create && a.UID != uid:
		return a, false, quire.Conflict("name", fmt.Sprintf("There is an account %s with uid %d on this node already, which Quire did not make; %s's would have uid %d. An administrator must rename one of the two, or let Quire use the site's accounts (manage_accounts: false).", name, a.UID, name, uid))
	case err == nil:
		if err := s.same(a, uid); err != nil {
			return a, false, err
		}
		return a, true, ownHome(a, create)
	case quire.KindOf(err) != quire.KindNotFound:
		return a, false, err
	case !create || uid == 0:
		return a, false, quire.Failed("There is no account "+name+" on this node. The people who run it must provide it: \"getent passwd "+name+"\" has to show it on every node.", nil)
	}
	if err := s.make(ctx, name, uid); err != nil {
		return a, false, err
	}
	if a, err = s.lookUp(ctx, name); err != nil {
		return a, false, err
	}
	if err := s.same(a, uid); err != nil {
		return a, false, err
	}
	s.made(a)
	return a, false, ownHome(a, true)
}

// make runs useradd. The name is one of ours, so it can hold what the tool's own
// check refuses: capitals, dots.
func (s *separate) make(ctx context.Context, name string, uid uint32) error {
	number := strconv.FormatUint(uint64(uid), 10)
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for _, taken := range []struct{ database, key, what string }{{"passwd", number, "uid " + number}, {"group", name, "a group " + name}} {
		line, err := output(ctx, "/usr/bin/getent", taken.database, "--", taken.key)
		if ctx.Err() != nil {
			return quire.Unavailable("The node's account service does not answer. Try again in a minute.", ctx.Err())
		}
		if err == nil && line != "" {
			holder, _, _ := strings.Cut(line, ":")
			return quire.Conflict("uid", fmt.Sprintf("The account %s cannot be made on this node: %s exists already (%s). An administrator must move uid_range to numbers that nobody has.", name, taken.what, holder))
		}
	}
	c := exec.CommandContext(ctx, "/usr/sbin/useradd", "--badname", "--uid", number, "--user-group", "--create-home", "--shell", "/bin/bash",
		"--key", "HOME_MODE=0700", "--key", "UMASK=0077", "--comment", "Quire", "--", name)
	c.Env, c.Dir, c.WaitDelay = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C"}, "/", time.Second
	if out, err := c.CombinedOutput(); err != nil {
		return quire.Failed("The account "+name+" could not be made on this node. An administrator finds the reason in the spawner's log.", fmt.Errorf("useradd: %s: %w", bytes.TrimSpace(out), err))
	}
	return nil
}

// made gives a new home its mode, for systems whose useradd does not.
func (s *separate) made(a Account) {
	fd, err := unix.Open(a.Home, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if unix.Fstat(fd, &st) == nil && st.Uid == a.UID {
		_ = unix.Fchmod(fd, 0o700)
	}
}

// ownHome refuses an account of ours whose home is somebody else's: it lay there
// before. Root gives no directory to anybody.
func ownHome(a Account, made bool) error {
	var st unix.Stat_t
	if !made || unix.Lstat(a.Home, &st) != nil {
		return nil
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || st.Uid != a.UID {
		return quire.Failed(fmt.Sprintf("The home %s of the account %s is there already and belongs to uid %d. An administrator must move it away or give it to %s.", a.Home, a.Name, st.Uid, a.Name), nil)
	}
	return nil
}

func (s *separate) lookUp(ctx context.Context, name string) (Account, error) {
	s.mu.Lock()
	k, ok := s.known[name]
	s.mu.Unlock()
	if ok && s.now().Before(k.until) {
		return k.account, nil
	}
	// Programs, because only they see every directory service; with a deadline,
	// because a directory service can hang.
	ctx, cancel := context.WithTimeout(ctx, s.policy.Timeout)
	defer cancel()
	a, err := readAccount(ctx, name)
	if ctx.Err() != nil {
		return Account{}, quire.Unavailable("The node's account service does not answer. Try again in a minute.", ctx.Err())
	}
	if err != nil {
		return Account{}, err
	}
	s.mu.Lock()
	s.known[name] = known{a, s.now().Add(s.policy.Keep)}
	s.mu.Unlock()
	return a, nil
}

func readAccount(ctx context.Context, name string) (Account, error) {
	line, err := output(ctx, "/usr/bin/getent", "passwd", "--", name)
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 2 || err == nil && line == "" {
		return Account{}, &quire.Error{Kind: quire.KindNotFound, Message: "The account " + name + " does not exist on this node.", Err: err}
	}
	if err != nil {
		return Account{}, quire.Unavailable("The node's account service does not answer. Try again in a minute.", err)
	}
	f := strings.Split(line, ":")
	if len(f) != 7 || f[0] != name {
		return Account{}, quire.Failed("The node's entry for the account "+name+" cannot be read.", errors.New(line))
	}
	uid, err1 := number(f[2])
	gid, err2 := number(f[3])
	if err := errors.Join(err1, err2); err != nil {
		return Account{}, quire.Failed("The node's entry for the account "+name+" cannot be read.", err)
	}
	a := Account{Name: name, UID: uid, GID: gid, Home: f[5], Shell: f[6]}
	ids, err := output(ctx, "/usr/bin/id", "-G", "--", name)
	if err != nil {
		return Account{}, quire.Failed("The groups of the account "+name+" cannot be read.", err)
	}
	for _, word := range strings.Fields(ids) {
		g, err := number(word)
		if err != nil {
			return Account{}, quire.Failed("The groups of the account "+name+" cannot be read.", err)
		}
		a.Groups = append(a.Groups, g)
	}
	// A group is private if it has the person's name and nobody else in it.
	if group, err := output(ctx, "/usr/bin/getent", "group", "--", f[3]); err == nil {
		g := strings.Split(group, ":")
		a.Private = len(g) == 4 && g[0] == name && (g[3] == "" || g[3] == name)
	}
	return a, nil
}

func number(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	return uint32(n), err
}

// output runs a program of the system with a clean environment and returns its
// first line.
func output(ctx context.Context, name string, args ...string) (string, error) {
	c := exec.CommandContext(ctx, name, args...)
	c.Env = []string{"PATH=/usr/bin:/bin", "LANG=C"}
	c.Dir = "/"
	c.WaitDelay = time.Second
	out, err := c.Output()
	line, _, _ := bytes.Cut(out, []byte("\n"))
	return string(line), err
}

// Single runs every session as the account we run as. It is refused to root.
func Single(home, shell string) (Accounts, error) {
	if os.Geteuid() == 0 {
		return nil, errors.New("single-account mode is for running without root")
	}
	a := Account{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()), Home: home, Shell: shell, Name: "quire", Private: true}
	if u, err := user.LookupId(strconv.Itoa(os.Geteuid())); err == nil {
		a.Name = u.Username
	}
	return single{a}, nil
}

type single struct{ self Account }

func (s single) Name() string                   { return "single" }
func (s single) Keeper() uint32                 { return s.self.UID }
func (s single) mode() launch.Mode              { return launch.Single }
func (s single) Give(int, uint32, uint32) error { return nil }

func (s single) Reader(owner Account) Account { return owner }

func (s single) Untouched(context.Context) func(uint32) bool {
	return func(uint32) bool { return false }
}

func (s single) Ensure(ctx context.Context, name string, uid uint32, _ bool) (Account, bool, error) {
	a, err := s.Find(ctx, name, uid)
	return a, true, err
}

func (s single) Find(_ context.Context, name string, uid uint32) (Account, error) {
	if uid != s.self.UID {
		return Account{}, quire.Forbidden(fmt.Sprintf("This node runs everything as uid %d, not as %d.", s.self.UID, uid))
	}
	a := s.self
	if name != "" {
		a.Name = name
	}
	return a, nil
}
