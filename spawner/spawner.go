// Package spawner is the only code on a node that runs as root. It listens on
// one unix socket, in a network namespace of its own without any network, and
// does a short list of things, each for an order that the server signed and
// that it verifies itself: make a project's directory, set its access list,
// rename it aside or back, run a helper as a user, start and stop sessions.
//
// Root never follows a path inside a tree that users can write to: directories
// are held by descriptor, and what needs to be done inside is done by a process
// that has become the user (package launch).
//
// Without root the same program runs as the one account that everything runs
// as; Accounts and Limits, chosen where the program starts, make the difference.
package spawner

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"quire"
	"quire/ticket"
)

// Config is what a spawner needs from outside.
type Config struct {
	Node     quire.NodeID
	Verifier *ticket.Verifier
	Accounts Accounts
	Limits   Limits

	RunDir      string // sessions live in RunDir/s; absolute
	StateDir    string // ours alone
	ProjectRoot string
	Self        string // path of the quire binary, executable by every account
	AppsDir     string // the site's app descriptors; "" or missing = the shipped ones only
	SkeletonDir string // the site's skeleton; "" or missing = the shipped one
	RootEnv     string // conda prefix that environments are made from, or ""
	Python      string // the system's; "" = /usr/bin/python3

	Peer  uint32 // the uid that may ask: quire-compute's
	Group uint32 // its gid: may reach the sessions' sockets

	Network *os.File // the network namespace for sessions; nil = the one we are in
	Default Want     // limits of a session whose order names none
	Setuid  bool     // sessions may gain rights by programs like sudo
	HostTmp bool     // sessions see the host's /tmp, /dev/shm and processes
	Log     *slog.Logger
	Now     func() time.Time // nil = time.Now
}

// Spawner answers compute.
type Spawner struct {
	c        Config
	boot     string
	sessions *os.File // RunDir/s
	storage  *storage // ProjectRoot

	mu    sync.Mutex
	used  map[quire.OrderID]time.Time // until when an order's ID is remembered
	locks map[string]*lock            // one per thing being worked on
	held  map[quire.SessionID]*held
	slots chan struct{} // starts at a time
	talks sync.WaitGroup

	making sync.Mutex // the reserve
}

const (
	startsAtOnce = 8
	files        = 65536 // open files of a session, at most
	shm          = 256 << 20
)

// New opens what the spawner works on and takes over the sessions that an
// earlier spawner started.
func New(c Config) (*Spawner, error) {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Default.Processes == 0 {
		c.Default.Processes = 1024
	}
	if c.Python == "" {
		c.Python = "/usr/bin/python3"
	}
	if c.Verifier == nil || c.Accounts == nil || c.Limits == nil || c.Node == "" {
		return nil, errors.New("spawner: the configuration is not complete")
	}
	boot, err := bootID()
	if err != nil {
		return nil, err
	}
	s := &Spawner{
		c: c, boot: boot, used: map[quire.OrderID]time.Time{}, locks: map[string]*lock{},
		held: map[quire.SessionID]*held{}, slots: make(chan struct{}, startsAtOnce),
	}
	if s.sessions, err = s.directory(filepath.Join(c.RunDir, "s"), 0o711); err != nil {
		return nil, err
	}
	if !filepath.IsAbs(c.ProjectRoot) {
		return nil, fmt.Errorf("spawner: %s is not an absolute path", c.ProjectRoot)
	}
	// With a storage that is away or unfit we run all the same: sessions must be
	// stopped, and somebody must say what is wrong.
	s.storage = newStorage(c.ProjectRoot, c.Accounts.Keeper(), string(c.Node), filepath.Join(c.StateDir, "storage"), c.Log)
	s.storage.report(diskHangs)
	for _, name := range []string{"sessions", "tmp"} {
		if err := os.MkdirAll(filepath.Join(c.StateDir, name), 0o700); err != nil {
			return nil, err
		}
	}
	if err := s.adopt(); err != nil {
		return nil, err
	}
	if _, message := s.room(); message != "" {
		s.c.Log.Warn(message)
	}
	c.Limits.Sweep(func(id string) bool { return s.find(quire.SessionID(id)) != nil })
	return s, nil
}

// directory opens one of our own directories, making it if need be, and refuses
// one that others could exchange things in.
func (s *Spawner) directory(path string, mode os.FileMode) (*os.File, error) {
	f, err := ownDirectory(path, mode, s.c.Accounts.Keeper())
	if err != nil {
		return nil, fmt.Errorf("spawner: %s: %w", path, err)
	}
	return f, nil
}

func ownDirectory(path string, mode os.FileMode, keeper uint32) (*os.File, error) {
	if !filepath.IsAbs(path) {
		return nil, errors.New("not an absolute path")
	}
	if err := os.Mkdir(path, mode); err == nil {
		if err := os.Chmod(path, mode); err != nil { // whatever the umask was
			return nil, err
		}
	} else if !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	return openOurs(path, keeper)
}

func openOurs(path string, keeper uint32) (*os.File, error) {
	f, err := os.OpenFile(path, unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	if err := ours(f, keeper); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// ours checks that nobody else can rename or make things in the directory.
func ours(f *os.File, keeper uint32) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFDIR:
		return errors.New("not a directory")
	case st.Uid != keeper:
		return fmt.Errorf("it belongs to uid %d, not %d", st.Uid, keeper)
	case st.Mode&0o022 != 0:
		return fmt.Errorf("others may write to it (mode %04o)", st.Mode&0o7777)
	}
	return nil
}

// Serve answers on the listener until it closes.
func (s *Spawner) Serve(l net.Listener) error {
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ECONNABORTED) {
				continue
			}
			return err
		}
		c, ok := conn.(*net.UnixConn)
		if !ok {
			conn.Close()
			return errors.New("spawner: the listener is not a unix socket")
		}
		s.talks.Go(func() { s.converse(c) })
	}
}

// Finish waits until every question has its answer, or ctx ends. It is for after
// Serve.
func (s *Spawner) Finish(ctx context.Context) {
	done := make(chan struct{})
	go func() { s.talks.Wait(); close(done) }()
	select {
	case <-done:
	case <-ctx.Done():
	}
}

func (s *Spawner) converse(c *net.UnixConn) {
	defer c.Close()
	if uid, err := peer(c); err != nil || uid != s.c.Peer {
		s.c.Log.Warn("a stranger asked", "uid", uid, "err", err)
		return
	}
	c.SetDeadline(time.Now().Add(askLimit))
	var a ask
	files, err := receive(c, &a)
	if err != nil {
		s.c.Log.Warn("a question could not be read", "err", err)
		return
	}
	defer closeAll(files)
	c.SetDeadline(time.Time{})
	reply, err := s.answer(context.Background(), a, files)
	if err != nil {
		e := quire.AsError(err)
		s.c.Log.Warn("refused or failed", "op", a.Op, "session", a.Session, "err", err)
		reply.Error = e
	}
	c.SetDeadline(time.Now().Add(askLimit))
	if err := send(c, reply); err != nil {
		s.c.Log.Warn("an answer could not be sent", "err", err)
	}
}

func peer(c *net.UnixConn) (uint32, error) {
	r, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var inner error
	err = r.Control(func(fd uintptr) {
		cred, inner = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err := errors.Join(err, inner); err != nil {
		return 0, err
	}
	return cred.Uid, nil
}

func (s *Spawner) answer(ctx context.Context, a ask, files []*os.File) (answer, error) {
	switch a.Op {
	case "hello":
		apps, others, messages := s.offered()
		disk, _ := s.storage.report(helloWaits)
		return answer{Accounts: s.c.Accounts.Name(), Limits: s.c.Limits.String(), Messages: append(messages, s.warnings()...), Apps: apps, Others: others, Storage: &disk}, nil
	case "census":
		return answer{Sessions: s.census()}, nil
	case "order":
		return s.order(ctx, a, files)
	case "release":
		return answer{}, s.release(ctx, a.Session)
	case "end":
		return answer{}, s.end(ctx, a.Session, 0)
	}
	return answer{}, quire.Invalid("op", "The spawner does not know this question.")
}

// order verifies a signed order and does what it says. Compute has verified it
// too; we do not take its word, and take nothing from it beside the order: what
// runs and with what environment is the order's, the descriptors' and ours.
func (s *Spawner) order(ctx context.Context, a ask, files []*os.File) (answer, error) {
	o, err := s.c.Verifier.Order(a.Order, s.c.Node, s.c.Now())
	if err != nil {
		return answer{}, quire.Forbidden("The order was refused: " + err.Error() + ".")
	}
	if err := s.use(o); err != nil {
		return answer{}, err
	}
	if o.Type == quire.OrderStop { // also for an account that exists no more
		return s.stop(ctx, o)
	}
	if o.Type == quire.OrderAccount {
		return s.ensureAccount(ctx, o)
	}
	if o.Type == quire.OrderUnstage { // it is ours
		return s.move(ctx, o, Account{})
	}
	account, err := s.c.Accounts.Find(ctx, o.Account, o.UID)
	if err != nil {
		return answer{}, err
	}
	if o.Type == quire.OrderDirectory || o.Type == quire.OrderStart {
		if err := s.storage.unfit(); err != nil {
			return answer{}, err
		}
	}
	a.Env = baseEnv()
	s.c.Log.Info("order", "type", o.Type.String(), "order", o.ID, "user", o.User, "uid", o.UID, "project", o.Project, "session", o.Session, "app", o.App)
	switch o.Type {
	case quire.OrderDirectory:
		return s.makeProject(o, account)
	case quire.OrderPermissions:
		return s.setPermissions(ctx, o, account)
	case quire.OrderTrash:
		return s.trash(o, account)
	case quire.OrderRestore:
		return s.restore(o, account)
	case quire.OrderSkeleton, quire.OrderClone, quire.OrderEnvironment:
		return s.help(ctx, o, account, a)
	case quire.OrderRepair:
		return s.repair(ctx, o, account, a)
	case quire.OrderTakeOver:
		return s.takeOver(ctx, o, account, a)
	case quire.OrderWhy:
		return s.why(ctx, o, account, a)
	case quire.OrderPurge:
		return s.purge(ctx, o, account, a)
	case quire.OrderAside, quire.OrderBack, quire.OrderPlace:
		return s.move(ctx, o, account)
	case quire.OrderSurvey, quire.OrderSend, quire.OrderReceive:
		return s.stream(ctx, o, account, files)
	case quire.OrderStart:
		return s.start(ctx, o, account, files)
	}
	return answer{}, quire.Invalid("type", "This node does not know the order. Upgrade it to the server's version.")
}

// ensureAccount makes a person's account, or finds the one that the site has.
func (s *Spawner) ensureAccount(ctx context.Context, o quire.Order) (answer, error) {
	var args quire.AccountArgs
	if err := unmarshal(o.Args, &args); err != nil {
		return answer{}, err
	}
	a, already, err := s.c.Accounts.Ensure(ctx, o.Account, o.UID, args.Make)
	if err != nil {
		return answer{}, err
	}
	s.c.Log.Info("account", "name", a.Name, "uid", a.UID, "already", already, "order", o.ID)
	note := a.Name + " is there"
	if !already {
		note = "made " + a.Name
	}
	return answer{Already: already, Note: note, UID: a.UID}, nil
}

// use lets an order's ID count once.
func (s *Spawner) use(o quire.Order) error {
	if !quire.ValidID('o', string(o.ID)) || !quire.ValidID('p', string(o.Project)) {
		return quire.Invalid("id", "The order has no proper identity.")
	}
	now := s.c.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, again := s.used[o.ID]; again {
		return quire.Conflict("id", "The order was carried out before.")
	}
	for id, until := range s.used {
		if now.After(until) {
			delete(s.used, id)
		}
	}
	s.used[o.ID] = o.Expires.Add(ticket.Skew)
	return nil
}

// lock lets one order at a time work on the thing of that name.
type lock struct {
	mu sync.Mutex
	n  int
}

func (s *Spawner) lock(name string) (unlock func()) {
	s.mu.Lock()
	l := s.locks[name]
	if l == nil {
		l = &lock{}
		s.locks[name] = l
	}
	l.n++
	s.mu.Unlock()
	l.mu.Lock()
	return func() {
		l.mu.Unlock()
		s.mu.Lock()
		defer s.mu.Unlock()
		if l.n--; l.n == 0 {
			delete(s.locks, name)
		}
	}
}

// warnings are what makes a shared machine weaker than it need be: a full disk,
// settings of the site or of the kernel.
func (s *Spawner) warnings() []string {
	var list []string
	if _, message := s.room(); message != "" {
		list = append(list, message)
	}
	if s.c.HostTmp && s.c.Accounts.Keeper() == 0 {
		list = append(list, "Sessions share the host's /tmp and /run (private_tmp is off): one of them can fill both.")
	}
	for name, why := range map[string]string{
		"protected_hardlinks": "people can link other people's files into their own projects",
		"protected_symlinks":  "links in shared temporary directories can mislead programs",
	} {
		if b, err := os.ReadFile("/proc/sys/fs/" + name); err == nil && len(b) > 0 && b[0] == '0' {
			list = append(list, fmt.Sprintf("fs.%s is off: %s. Set it to 1 with sysctl.", name, why))
		}
	}
	return list
}
