package spawner

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"quire"
)

// storage is the project root. What keeps people apart there are owners, modes
// and access lists, and not every file system has them: some refuse, some take
// them and do nothing. So they are tried out (probe.go), in a directory of ours,
// and while they do not work no project starts on this node.
//
// A file server may never answer. What waits for the disk is done beside, and
// who asks waits only so long.
type storage struct {
	root   string
	keeper uint32 // whom the root must belong to
	probe  string // the directory to try things in, the node's own: the storage may be shared
	memory string // file with the identity of a storage that was mounted; "" for a look by itself
	log    *slog.Logger

	mu     sync.Mutex
	dir    *os.File      // nil until it could be opened
	last   quire.Storage // what was seen last
	tried  time.Time     // when things were tried out last
	flight chan struct{} // closed when the look that is under way ends
	since  time.Time     // when it began
}

const (
	storageFile = ".quire-storage" // the storage's identity, and what nodes lock
	probePrefix = ".quire-probe-"
	probeAgain  = 5 * time.Minute

	// How long the disk may take: for an order, for a question, and for another node.
	orderWaits = 20 * time.Second
	helloWaits = time.Second
	diskHangs  = 5 * time.Second // until then a question gets the last answer
	lockWaits  = 10 * time.Second
)

func newStorage(root string, keeper uint32, probe, memory string, log *slog.Logger) *storage {
	return &storage{root: root, keeper: keeper, probe: probePrefix + probe, memory: memory, log: log, last: quire.Storage{Root: root}}
}

// CheckStorage is a look at a project root by itself, for whoever asks on the
// machine. It leaves nothing behind: no directory, no identity.
func CheckStorage(root string, keeper uint32) quire.Storage {
	d := newStorage(root, keeper, string(quire.NewWorkID()), "", slog.New(slog.DiscardHandler))
	d.look(false)
	if d.dir != nil {
		d.dir.Close()
	}
	return d.last
}

// open is the project root's descriptor. It stays the one that was opened first:
// what is mounted over it later is something else.
func (d *storage) open() (*os.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.dir != nil:
		return d.dir, nil
	case d.last.Problem == "": // nobody has come back from there yet
		return nil, quire.Unavailable(d.silent(), nil)
	}
	return nil, quire.Failed(d.last.Problem, nil)
}

func (d *storage) silent() string {
	return fmt.Sprintf("The disk or the file server of %s does not answer.", d.root)
}

// report looks at the storage and says how it is, and whether the disk answered
// in time.
func (d *storage) report(wait time.Duration) (now quire.Storage, answers bool) {
	d.mu.Lock()
	if d.flight == nil {
		d.flight, d.since = make(chan struct{}), time.Now()
		go func() {
			d.look(true)
			d.mu.Lock()
			defer d.mu.Unlock()
			close(d.flight)
			d.flight = nil
		}()
	}
	flight, since := d.flight, d.since
	d.mu.Unlock()
	late := time.NewTimer(wait)
	defer late.Stop()
	select {
	case <-flight:
		answers = true
	case <-late.C:
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	now = d.last
	if seen := now.Fit || now.Problem != ""; !answers && seen && time.Since(since) < diskHangs {
		return now, true
	}
	if !answers {
		now.Fit, now.Problem = false, d.silent()
	}
	return now, answers
}

// unfit says why nothing may start here, or nil.
func (d *storage) unfit() error {
	now, answers := d.report(orderWaits)
	switch {
	case now.Fit:
		return nil
	case !answers: // it may come back: the work waits
		return quire.Unavailable(now.Problem, nil)
	}
	return quire.Failed(now.Problem, nil)
}

// look is one look, by one goroutine at a time. With own, the directory and its
// identity are made if they are missing.
func (d *storage) look(own bool) {
	now, fit := quire.Storage{Root: d.root}, error(nil)
	d.mu.Lock()
	dir, last, tried := d.dir, d.last, d.tried
	d.mu.Unlock()
	if dir == nil {
		if dir, fit = d.first(own); dir != nil {
			d.mu.Lock()
			d.dir = dir
			d.mu.Unlock()
		}
	}
	if dir == nil {
		now.Type, now.Options = mountAt(d.root)
		if errors.Is(fit, unix.EACCES) && d.keeper == 0 {
			fit = squashed(now)
		}
	} else {
		now.Type, now.Options = mountOf(int(dir.Fd()))
		fit = d.numbers(dir, &now)
		again := !last.Fit || time.Since(tried) >= probeAgain || now.Type != last.Type || !slices.Equal(now.Options, last.Options)
		if fit == nil && again {
			tried = time.Now()
			fit = d.try(dir, now)
			if errors.Is(fit, unix.ENOSPC) || errors.Is(fit, unix.EDQUOT) {
				// People must get in to make room. Whoever makes a project hears of it there.
				fit, tried = nil, time.Time{}
				now.Warnings = append(now.Warnings, "There is no room to try access lists out on "+d.root+".")
			}
		}
		if now.ID = storageName(dir, d.keeper); now.ID == "" && own && fit == nil {
			if err := nameStorage(dir); err != nil {
				d.log.Warn("the storage gets no identity", "root", d.root, "err", err)
			}
			now.ID = storageName(dir, d.keeper)
		}
		if own && fit == nil {
			d.remember(dir, now.ID)
		}
	}
	if now.Fit = fit == nil; fit != nil {
		now.Problem = sentence(d.root, fit)
	}
	if now.Problem != last.Problem && fit != nil {
		d.log.Error("no project can start here", "why", now.Problem)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.last, d.tried = now, tried
}

// sentence is a problem for people: ours as they are, the kernel's behind a word.
func sentence(root string, err error) string {
	var e *quire.Error
	if errors.As(err, &e) {
		return e.Message
	}
	return fmt.Sprintf("%s cannot be used: %v.", root, err)
}

// first opens the project root. Where a disk or a file server was mounted before,
// nothing is made beneath its place while it is missing.
func (d *storage) first(own bool) (*os.File, error) {
	if !own {
		return openOurs(d.root, d.keeper)
	}
	known := d.remembered()
	if known == "" {
		return ownDirectory(d.root, 0o711, d.keeper)
	}
	dir, err := openOurs(d.root, d.keeper)
	if err == nil && storageName(dir, d.keeper) == known {
		return dir, nil
	}
	if err == nil {
		dir.Close()
	} else if !errors.Is(err, unix.ENOENT) {
		return nil, err
	}
	return nil, quire.Failed(fmt.Sprintf("The disk or the file server that was mounted for %s (storage %s) is not there; mount it. If another one takes its place, remove %s and restart Quire.", d.root, known, d.memory), err)
}

// remembered is the identity of the storage that was mounted for this root, "" if
// none was.
func (d *storage) remembered() quire.StorageID {
	if d.memory == "" {
		return ""
	}
	b, err := os.ReadFile(d.memory)
	id, root, _ := strings.Cut(strings.TrimSuffix(string(b), "\n"), " ")
	if err != nil || root != d.root || !quire.ValidID('v', id) {
		return ""
	}
	return quire.StorageID(id)
}

// remember writes down which storage is mounted. A directory of the machine's own
// disk cannot go missing alone.
func (d *storage) remember(dir *os.File, id quire.StorageID) {
	var here, system unix.Stat_t
	if d.memory == "" || id == "" || unix.Fstat(int(dir.Fd()), &here) != nil || unix.Stat("/", &system) != nil || here.Dev == system.Dev || d.remembered() == id {
		return
	}
	draft := d.memory + ".new"
	err := os.WriteFile(draft, []byte(string(id)+" "+d.root+"\n"), 0o644)
	if err == nil {
		err = os.Rename(draft, d.memory)
	}
	if err != nil {
		d.log.Warn("the storage is not remembered", "root", d.root, "err", err)
	}
}

// numbers are what can be seen without writing.
func (d *storage) numbers(dir *os.File, now *quire.Storage) error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(dir.Fd()), &st); err != nil {
		return err
	}
	now.Free, now.Total = int64(st.Bavail)*st.Bsize, int64(st.Blocks)*st.Bsize
	now.FilesFree, now.Files = int64(st.Ffree), int64(st.Files)
	if now.Total > 0 && now.Free < 100<<20 {
		now.Warnings = append(now.Warnings, "The projects' disk is nearly full.")
	}
	if now.Files > 0 && now.FilesFree < 1000 {
		now.Warnings = append(now.Warnings, "The projects' disk has hardly any room for more files: its inodes are used up.")
	}
	if slices.Contains(now.Options, "noexec") {
		now.Warnings = append(now.Warnings, d.root+" is mounted with noexec: programs and libraries of projects' own environments cannot run; mount it with exec.")
	}
	here, err := dir.Stat()
	if err != nil {
		return err
	}
	if there, err := os.Stat(d.root); err != nil || !os.SameFile(here, there) {
		return quire.Failed("Something else was mounted on "+d.root+" after Quire had begun to use what was there; restart Quire.", err)
	}
	if st.Flags&unix.ST_RDONLY != 0 {
		return quire.Failed(d.root+" is mounted read-only (ro); mount it with rw.", nil)
	}
	return nil
}

// storageName reads what the storage is called; "" if it has no name yet, or
// something that is not ours lies there.
func storageName(dir *os.File, keeper uint32) quire.StorageID {
	fd, err := unix.Openat(int(dir.Fd()), storageFile, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	var b [64]byte
	if err := unix.Fstat(fd, &st); err != nil || st.Uid != keeper || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return ""
	}
	n, err := unix.Read(fd, b[:])
	id := strings.TrimSpace(string(b[:max(n, 0)]))
	if err != nil || !quire.ValidID('v', id) {
		return ""
	}
	return quire.StorageID(id)
}

// nameStorage gives the storage a name, once: of several nodes that come at the
// same time one is first, and what has the name is never half written.
func nameStorage(dir *os.File) error {
	at, id := int(dir.Fd()), quire.NewStorageID()
	draft := storageFile + "-" + string(id)
	fd, err := unix.Openat(at, draft, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), draft)
	_, err = f.WriteString(string(id) + "\n")
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		if err = unix.Linkat(at, draft, at, storageFile, 0); errors.Is(err, unix.EEXIST) {
			err = nil
		}
	}
	return errors.Join(err, unix.Unlinkat(at, draft, 0))
}

// lock lets one node at a time make, put aside or bring back a project's
// directory. Where the file system has no locks it does nothing: the server
// gives each project to one node only, and this is a second bolt.
func (d *storage) lock() (unlock func(), err error) {
	dir, err := d.open()
	if err != nil {
		return nil, err
	}
	fd, err := unix.Openat(int(dir.Fd()), storageFile, unix.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return func() {}, nil
	}
	until := time.NewTimer(lockWaits)
	defer until.Stop()
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for {
		err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() {
				_ = unix.Flock(fd, unix.LOCK_UN) // a child between fork and exec may hold the file open
				unix.Close(fd)
			}, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			d.log.Warn("the storage cannot be locked", "err", err)
			unix.Close(fd)
			return func() {}, nil
		}
		select {
		case <-again.C:
		case <-until.C:
			unix.Close(fd)
			return nil, quire.Unavailable("Another node is making or moving a project on the same storage.", nil)
		}
	}
}
