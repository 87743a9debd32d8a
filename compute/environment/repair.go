package environment

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"quire"
	"quire/acl"
)

// repair makes the files and directories of a project that are ours say what the
// team is. It runs once for every person who owns some, as that person. A file
// with a second name is left alone: the other name may lie anywhere.
func repair(ctx context.Context, o options) (Result, error) {
	began := time.Now()
	w, err := newWalk(ctx, o)
	if err != nil {
		return Result{}, err
	}
	defer w.close()
	state := w.recall(o)
	if err := w.run(); err != nil {
		return Result{}, err
	}
	w.remember(state, began)
	var said []string
	if w.n.repaired > 0 {
		said = append(said, fmt.Sprintf("%d of %d entries set right", w.n.repaired, w.n.looked))
	}
	if w.n.failed > 0 {
		said = append(said, fmt.Sprintf("%d could not be set right (%s)", w.n.failed, w.n.why))
	}
	return Result{Already: len(said) == 0, Note: strings.Join(said, ", "), Owners: slices.Sorted(maps.Keys(w.owners))}, nil
}

// doctor looks at everything and changes nothing.
func doctor(ctx context.Context, o options) (Result, error) {
	w, err := newWalk(ctx, o)
	if err != nil {
		return Result{}, err
	}
	defer w.close()
	w.check, w.full = true, true
	if err := w.run(); err != nil {
		return Result{}, err
	}
	var out strings.Builder
	fmt.Fprintf(&out, "%d files and directories\n", w.n.looked)
	for _, kind := range kinds {
		var all quire.Finding
		for key, f := range w.findings {
			if key.kind == kind {
				all.N += f.N
				all.Examples = append(all.Examples, f.Examples...)
			}
		}
		if all.N == 0 {
			continue
		}
		all.Examples = all.Examples[:min(len(all.Examples), maxExamples)]
		fmt.Fprintf(&out, "%d %s: %s", all.N, kind, strings.Join(all.Examples, ", "))
		if all.N > len(all.Examples) {
			out.WriteString(" …")
		}
		out.WriteByte('\n')
	}
	if len(w.findings) == 0 {
		out.WriteString("all permissions are as the team is\n")
	}
	return Result{Note: "looked at", Log: out.String(), Findings: w.findings.list()}, nil
}

// kinds are those of a look, in the order they are told.
var kinds = [...]string{
	quire.FoundMasked, quire.FoundMissing, quire.FoundLeftOver, quire.FoundOpen, quire.FoundNoList, quire.FoundForeign, quire.FoundLinked, quire.FoundSetID, quire.FoundClosed,
}

// walk goes through a project in two goroutines. Directories are opened below
// the top one by the kernel's own rules: no link is followed, no mount crossed.
type walk struct {
	ctx     context.Context
	rights  rights
	me      uint32
	top     *os.File
	dev     uint64
	check   bool
	full    bool
	since   int64           // nanoseconds; what changed before was right already
	known   map[string]bool // directories that were right then; the value: public
	visited map[string]bool

	owners   map[uint32]bool
	mu       sync.Mutex
	cond     *sync.Cond
	queue    []job
	busy     int
	err      error
	findings findings
	parted   map[string]copied // files with several names that got a copy
	n        struct {
		looked, repaired, failed int
		why                      string
	}
}

// job is a directory to look into. fresh ones came from elsewhere with all they
// hold: times below them say nothing.
type job struct {
	path   string
	public bool
	fresh  bool
}

func newWalk(ctx context.Context, o options) (*walk, error) {
	r, err := newRights(o)
	if err != nil {
		return nil, err
	}
	top, err := os.OpenFile(o.dir, unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, quire.Failed("The project's directory cannot be opened: "+words(err)+".", err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(top.Fd()), &st); err != nil {
		top.Close()
		return nil, err
	}
	r.gid = st.Gid
	w := &walk{
		ctx: ctx, rights: r, me: uint32(os.Geteuid()), top: top, dev: st.Dev, full: o.full,
		visited: map[string]bool{}, findings: findings{}, parted: map[string]copied{}, owners: map[uint32]bool{},
	}
	w.cond = sync.NewCond(&w.mu)
	if w.me == 0 {
		top.Close()
		return nil, quire.Forbidden("Root repairs nothing: it could be led astray.")
	}
	return w, nil
}

func (w *walk) close() { w.top.Close() }

const workers = 2

func (w *walk) run() error {
	w.queue = append(w.queue, job{path: "."})
	var all sync.WaitGroup
	for range workers {
		all.Go(w.work)
	}
	all.Wait()
	if w.err == nil {
		w.err = w.ctx.Err()
	}
	return w.err
}

func (w *walk) work() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		for len(w.queue) == 0 && w.busy > 0 {
			w.cond.Wait()
		}
		if len(w.queue) == 0 || w.ctx.Err() != nil {
			w.cond.Broadcast()
			return
		}
		j := w.queue[len(w.queue)-1] // depth first: the queue stays short
		w.queue = w.queue[:len(w.queue)-1]
		w.busy++
		w.mu.Unlock()
		r := w.directory(j)
		w.mu.Lock()
		w.busy--
		w.queue = append(w.queue, r.below...)
		w.n.looked += r.looked
		w.n.repaired += r.repaired
		w.n.failed += r.failed
		if r.why != nil && w.n.why == "" {
			w.n.why = words(r.why)
		}
		for _, f := range r.found {
			w.findings.add(f.kind, f.uid, 0, f.path)
		}
		for uid := range r.owners {
			w.owners[uid] = true
		}
		if r.id != "" {
			w.visited[r.id] = j.public
		}
		w.cond.Broadcast()
	}
}

type found struct {
	kind, path string
	uid        uint32
}

// result of one directory.
type outcome struct {
	below                    []job
	looked, repaired, failed int
	why                      error
	found                    []found
	owners                   map[uint32]bool
	id                       string
}

func (o *outcome) saw(uid uint32) {
	if o.owners == nil {
		o.owners = map[uint32]bool{}
	}
	o.owners[uid] = true
}

func (o *outcome) fail(err error) {
	o.failed++
	if o.why == nil {
		o.why = err
	}
}

func (w *walk) find(o *outcome, kind string, uid uint32, path string) {
	if w.check {
		o.found = append(o.found, found{kind, path, uid})
	}
}

const stay = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV

func (w *walk) directory(j job) (o outcome) {
	// Held first, because its own list may keep us from reading it.
	held, err := unix.Openat2(int(w.top.Fd()), j.path, &unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: stay})
	if err != nil {
		if errors.Is(err, unix.EACCES) {
			w.find(&o, quire.FoundClosed, 0, j.path)
		}
		return o // moved or removed meanwhile, or not ours to see
	}
	defer unix.Close(held)
	var st unix.Stat_t
	if unix.Fstat(held, &st) != nil {
		return o
	}
	id := identity(held, &st)
	public, known := w.known[id]
	if !known || public != j.public {
		j.fresh = true
	}
	if j.path != "." { // the top directory is root's work
		o.looked++
		w.one(&o, held, false, &st, j.path, j.public)
	}
	fd, err := unix.Openat(held, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		w.find(&o, quire.FoundClosed, st.Uid, j.path)
		return o
	}
	f := os.NewFile(uintptr(fd), j.path)
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		o.fail(err)
		return o
	}
	for _, name := range names {
		w.entry(&o, fd, name, j)
	}
	if o.failed == 0 {
		o.id = id
	}
	return o
}

func (w *walk) entry(o *outcome, dir int, name string, j job) {
	var st unix.Stat_t
	if unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil || st.Dev != w.dev {
		return
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		if st.Uid != w.me {
			o.saw(st.Uid)
		}
		public := j.public || j.path == "." && name == "public"
		o.below = append(o.below, job{filepath.Join(j.path, name), public, j.fresh})
		return
	case unix.S_IFREG:
	default:
		return // links have no rights of their own; pipes and sockets are their makers'
	}
	o.looked++
	if st.Uid != w.me {
		o.saw(st.Uid)
	}
	if !w.check {
		if st.Uid != w.me || st.Nlink > 1 && !w.full || !w.full && !j.fresh && st.Ctim.Nano() < w.since {
			return
		}
	}
	// What can be read is opened, which makes its list cheap to reach; what cannot
	// is held.
	open := true
	fd, err := unix.Openat2(dir, name, &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_NONBLOCK | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: stay})
	if err != nil {
		open = false
		fd, err = unix.Openat2(dir, name, &unix.OpenHow{Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: stay})
	}
	if err != nil {
		return
	}
	defer unix.Close(fd)
	// Another file may have come in its place: what counts is what we hold.
	if unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG {
		path := ""
		if w.check || st.Nlink > 1 {
			path = filepath.Join(j.path, name)
		}
		if w.full && !w.check && st.Uid == w.me && w.again(dir, name, fd, &st) {
			o.repaired++
			return
		}
		if st.Nlink > 1 && st.Uid == w.me && open && !w.check {
			w.part(o, dir, name, fd, &st, path, j.public)
			return
		}
		w.one(o, fd, open, &st, path, j.public)
	}
}

// one looks at one held file or directory and sets right what is ours.
func (w *walk) one(o *outcome, fd int, open bool, st *unix.Stat_t, path string, public bool) {
	dir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	mine := st.Uid == w.me && !w.check
	if !dir && st.Mode&(unix.S_ISUID|unix.S_ISGID) != 0 {
		w.find(o, quire.FoundSetID, st.Uid, path)
	}
	if _, ours := w.rights.team[st.Uid]; !ours && w.check {
		w.find(o, quire.FoundForeign, st.Uid, path)
	}
	if !dir && st.Nlink > 1 {
		w.find(o, quire.FoundLinked, st.Uid, path)
		if !w.check {
			return
		}
	} else if !mine && !w.check {
		return
	}
	get, put := acl.GetHeld, acl.SetHeld
	if open {
		get, put = acl.Get, acl.Set
	}
	have, err := get(fd, acl.Access)
	if err != nil {
		o.fail(err)
		return
	}
	if have == nil {
		have = acl.FromMode(st.Mode)
	}
	want, v := w.rights.access(st, have, public)
	if !dir && st.Nlink > 1 { // left alone: only who should have lost it counts
		v = verdict{named: v.named}
	}
	w.tell(o, v, st.Uid, path)
	set := false
	if mine && !v.right() {
		if err := put(fd, acl.Access, want); err != nil {
			o.fail(err)
			return
		}
		set = true
	}
	if dir {
		if set && unix.Fstat(fd, st) != nil { // the kernel may have taken the group bit
			return
		}
		have, err := get(fd, acl.Default)
		if err != nil {
			o.fail(err)
			return
		}
		want, v := w.rights.children(st, have, public)
		w.tell(o, v, st.Uid, path)
		if mine && !v.right() {
			if err := put(fd, acl.Default, want); err != nil {
				o.fail(err)
				return
			}
			set = true
		}
	}
	if set {
		o.repaired++
	}
}

func (w *walk) tell(o *outcome, v verdict, uid uint32, path string) {
	if !w.check || v.right() {
		return
	}
	for kind, is := range map[string]bool{quire.FoundMasked: v.masked && !v.missing, quire.FoundMissing: v.missing, quire.FoundLeftOver: v.named, quire.FoundOpen: v.open, quire.FoundNoList: v.named2} {
		if is {
			w.find(o, kind, uid, path)
		}
	}
}

// identity names a directory so that no later one is taken for it.
func identity(fd int, st *unix.Stat_t) string {
	var x unix.Statx_t
	born := int64(0)
	if unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_BTIME, &x) == nil && x.Mask&unix.STATX_BTIME != 0 {
		born = x.Btime.Sec*1e9 + int64(x.Btime.Nsec)
	}
	return strconv.FormatUint(st.Ino, 36) + "." + strconv.FormatInt(born, 36)
}

// state is what the last repair by this person left in his state directory.
type state struct {
	Rights string          `json:"rights"` // what was wanted then
	Since  int64           `json:"since"`
	Dirs   map[string]bool `json:"dirs"`
	file   string
}

// slack covers the coarse clock that files are stamped with.
const slack = time.Second

func (w *walk) recall(o options) state {
	s := state{}
	home := os.Getenv("HOME")
	if !quire.ValidID('p', o.project) || !filepath.IsAbs(home) {
		return s
	}
	s.file = filepath.Join(home, ".local/state/quire/repair", o.project+".json")
	sum := sha256.Sum256([]byte(fmt.Sprint(o.team, o.owner, o.group, w.dev, o.dir)))
	s.Rights = hex.EncodeToString(sum[:])
	var old state
	b, err := os.ReadFile(s.file)
	if err == nil && json.Unmarshal(b, &old) == nil && old.Rights == s.Rights && !w.full {
		w.since, w.known = old.Since, old.Dirs
	}
	return s
}

// remember is a convenience: without it the next repair looks at everything.
func (w *walk) remember(s state, began time.Time) {
	if s.file == "" || w.n.failed > 0 {
		return
	}
	s.Since, s.Dirs = began.Add(-slack).UnixNano(), w.visited
	b, err := json.Marshal(s)
	if err != nil || os.MkdirAll(filepath.Dir(s.file), 0o700) != nil {
		return
	}
	if os.WriteFile(s.file+".new", b, fs.FileMode(0o600)) == nil {
		_ = os.Rename(s.file+".new", s.file)
	}
}
