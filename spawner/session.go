package spawner

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"quire"
	"quire/spawner/launch"
)

// held is a session we started, as it is on disk in StateDir/sessions. It is
// written before anything runs and removed last, so nothing is ever forgotten.
type held struct {
	Session quire.SessionID `json:"session"`
	User    quire.UserID    `json:"user"`
	Project quire.ProjectID `json:"project"`
	App     string          `json:"app"`
	MinRole quire.Role      `json:"min_role"`
	Ordered time.Time       `json:"ordered"` // by the server's clock
	Account Account         `json:"account"`
	Keep    process         `json:"keep"`

	hurry chan struct{} // closed when its end may not wait any more
	haste *sync.Once
}

func hold(h held) *held {
	h.hurry, h.haste = make(chan struct{}), &sync.Once{}
	return &h
}

func (s *Spawner) stateFile(id quire.SessionID) string {
	return filepath.Join(s.c.StateDir, "sessions", string(id)+".json")
}

func (s *Spawner) sessionDir(id quire.SessionID) string {
	return filepath.Join(s.c.RunDir, "s", string(id))
}

// tmpDir is shown to the session as /tmp. Its parent is ours alone.
func (s *Spawner) tmpDir(id string) string { return filepath.Join(s.c.StateDir, "tmp", id) }

func (s *Spawner) remember(h *held) error {
	b, err := json.Marshal(h)
	if err != nil {
		return err
	}
	file := s.stateFile(h.Session)
	if err := os.WriteFile(file+".new", b, 0o600); err != nil {
		return err
	}
	if err := os.Rename(file+".new", file); err != nil {
		return err
	}
	s.mu.Lock()
	s.held[h.Session] = h
	s.mu.Unlock()
	return nil
}

func (s *Spawner) find(id quire.SessionID) *held {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held[id]
}

// adopt reads what an earlier spawner left. A file that cannot be read is kept
// for an administrator and the session cleared by name.
func (s *Spawner) adopt() error {
	dir := filepath.Join(s.c.StateDir, "sessions")
	list, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range list {
		id, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok || !quire.ValidID('s', id) {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		var h held
		if err == nil {
			err = json.Unmarshal(b, &h)
		}
		if err != nil || string(h.Session) != id {
			s.c.Log.Error("a session's state cannot be read", "session", id, "err", err)
			h = held{Session: quire.SessionID(id)}
		}
		s.held[h.Session] = hold(h)
	}
	return nil
}

// start makes the session's directory, its control group and its process. Done
// twice it answers with the process that runs.
func (s *Spawner) start(ctx context.Context, o quire.Order, a Account, files []*os.File) (answer, error) {
	if !quire.ValidID('s', string(o.Session)) || quire.CheckAppName(o.App) != nil {
		return answer{}, quire.Invalid("session", "The order names no proper session.")
	}
	var args quire.StartArgs
	if err := unmarshal(o.Args, &args); err != nil {
		return answer{}, err
	}
	app, err := s.app(o.App)
	if err != nil {
		return answer{}, err
	}
	words, env, err := s.compose(app, o, args)
	if err != nil {
		return answer{}, err
	}
	defer s.lock(string(o.Session))()
	if h := s.find(o.Session); h != nil {
		if h.Keep.alive(s.boot) {
			if h.Account.UID != a.UID || h.User != o.User || h.Project != o.Project {
				return answer{}, quire.Conflict("session", "The session is somebody else's.")
			}
			return s.started(h, true), nil
		}
		if err := s.clear(ctx, h); err != nil {
			return answer{}, err
		}
	}
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	case <-ctx.Done():
		return answer{}, ctx.Err()
	}
	if full, message := s.room(); full {
		return answer{}, quire.Failed(message, nil)
	}
	h := hold(held{Session: o.Session, User: o.User, Project: o.Project, App: o.App, MinRole: app.MinRole(), Ordered: o.Issued, Account: a})
	if err := s.remember(h); err != nil {
		return answer{}, noRoom("The session could not be written down", err)
	}
	running, err := s.run(ctx, h, args, words, env, files)
	if err != nil {
		s.c.Log.Error("start failed", "session", o.Session, "err", err)
		if e := s.clear(ctx, h); e != nil {
			s.c.Log.Error("clearing up", "session", o.Session, "err", e)
		}
		return answer{}, explain(err)
	}
	r := s.started(running, false)
	r.Note = "process " + app.Title
	return r, nil
}

// explain says which step failed, without inner text.
func explain(err error) error {
	var step *launch.StepError
	if errors.As(err, &step) {
		return quire.Failed("The session could not be started: the step \""+step.Step+"\" failed.", err)
	}
	var e *quire.Error
	if errors.As(err, &e) {
		return err
	}
	return noRoom("The session could not be started", err)
}

// census lists the sessions whose parent process lives, for a compute that has
// lost sight of one.
func (s *Spawner) census() []counted {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []counted
	for _, h := range s.held {
		if h.Keep.alive(s.boot) {
			list = append(list, counted{
				h.Session, h.User, h.Project, h.App, h.MinRole, h.Ordered, h.Account.UID, h.Keep.PID, h.Keep.Start, s.c.Limits.Find(string(h.Session)).Events(),
			})
		}
	}
	return list
}

func (s *Spawner) started(h *held, already bool) answer {
	return answer{Already: already, PID: h.Keep.PID, Start: h.Keep.Start, MinRole: h.MinRole, Events: s.c.Limits.Find(string(h.Session)).Events()}
}

func (s *Spawner) run(ctx context.Context, h *held, args quire.StartArgs, words, env []string, files []*os.File) (*held, error) {
	if err := s.makeSessionDir(h); err != nil {
		return nil, fmt.Errorf("the session's directory: %w", err)
	}
	g, err := s.c.Limits.Make(string(h.Session), Want{args.Memory, args.CPUs, args.Processes}.or(s.c.Default))
	if err != nil {
		return nil, &launch.StepError{Step: "control groups", Reason: err.Error()}
	}
	argv := []string{s.c.Self, "keep", "--dir", s.sessionDir(h.Session)}
	var ready *os.File
	if len(files) > 0 {
		ready = files[0]
		argv = append(argv, "--ready", "3")
	}
	argv = append(argv, words...)
	p, err := s.launch(ctx, g, launch.Command{Ready: ready, Spec: launch.Spec{Argv: argv, Tmp: s.tmpOf(h)}}, h.Account, string(h.Session), env)
	if err != nil {
		return nil, err
	}
	start, _, _, _, err := stat(p.Pid)
	if err != nil {
		_ = p.Kill()
		_, _ = p.Wait()
		return nil, err
	}
	go p.Wait() // while we live we are the parent
	running := *h
	running.Keep = process{s.boot, p.Pid, start}
	if err := s.remember(&running); err != nil {
		_ = p.Kill()
		return nil, err
	}
	return &running, nil
}

// launch fills in what every process of ours gets.
func (s *Spawner) launch(ctx context.Context, g Group, c launch.Command, a Account, id string, env []string) (*os.Process, error) {
	born, tasks, err := g.Enter()
	if err != nil {
		return nil, &launch.StepError{Step: "control groups", Reason: err.Error()}
	}
	defer func() {
		closeAll(tasks)
		if born != nil {
			born.Close()
		}
	}()
	c.Shim, c.Group, c.Tasks = s.c.Self, born, tasks
	if !c.Spec.Search { // what reads everything stays without a network
		c.Network = s.c.Network
	}
	c.Spec.Mode = s.c.Accounts.mode()
	c.Spec.UID, c.Spec.GID, c.Spec.Groups = a.UID, a.GID, a.Groups
	c.Spec.Files, c.Spec.Shm, c.Spec.Dir = files, shm, "/"
	c.Spec.Setuid, c.Spec.Umask = s.c.Setuid, 0o007
	if !a.Private { // the group has others in it; access lists do not ask the umask
		c.Spec.Umask = 0o077
	}
	c.Spec.Env = identity(a, id, env)
	return c.Start(ctx)
}

// identity puts the account's own words first and drops attempts to overrule
// them. Nothing of our own environment is passed on.
func identity(a Account, id string, env []string) []string {
	shell := a.Shell
	if strings.HasSuffix(shell, "/nologin") || strings.HasSuffix(shell, "/false") || shell == "" {
		shell = "/bin/bash"
	}
	home := a.Home
	if !filepath.IsAbs(home) {
		home = "/nonexistent"
	}
	list := []string{"HOME=" + home, "USER=" + a.Name, "LOGNAME=" + a.Name, "SHELL=" + shell, mark(id)}
	own := map[string]bool{"HOME": true, "USER": true, "LOGNAME": true, "SHELL": true, "QUIRE_SESSION": true}
	for _, kv := range env {
		name, _, _ := strings.Cut(kv, "=")
		if !own[name] {
			list = append(list, kv)
		}
	}
	return list
}

// tmpOf is the directory to show as /tmp, "" where mounts cannot be private.
func (s *Spawner) tmpOf(h *held) string {
	if s.c.Accounts.mode() == launch.Single || s.c.HostTmp {
		return ""
	}
	return s.tmpDir(string(h.Session))
}

// makeSessionDir makes RunDir/s/ID: the user's, reachable by compute's group.
func (s *Spawner) makeSessionDir(h *held) error {
	if err := s.makeFor(int(s.sessions.Fd()), string(h.Session), h.Account.UID, s.c.Group, 0o2710, s.tmpOf(h) != ""); err != nil {
		return err
	}
	tmp, err := os.Open(filepath.Join(s.c.StateDir, "tmp"))
	if err != nil {
		return err
	}
	defer tmp.Close()
	return s.makeFor(int(tmp.Fd()), string(h.Session), h.Account.UID, h.Account.GID, 0o700, false)
}

func (s *Spawner) makeFor(parent int, name string, uid, gid uint32, mode uint32, enclosed bool) error {
	if err := unix.Mkdirat(parent, name, 0o700); err != nil {
		return err
	}
	fd, err := openBeneath(parent, name)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if enclosed {
		return enclose(fd, uid, gid, mode)
	}
	if err := s.c.Accounts.Give(fd, uid, gid); err != nil {
		return err
	}
	return unix.Fchmod(fd, mode)
}

// stopGrace is a little more than what keep gives the app, so that keep can
// still write down how it ended.
const stopGrace = 11 * time.Second

// stop ends a session: asks, waits, then kills the whole group.
func (s *Spawner) stop(ctx context.Context, o quire.Order) (answer, error) {
	h := s.find(o.Session)
	if h == nil {
		return answer{Already: true, Note: "it does not run"}, nil
	}
	if h.User != "" && (h.User != o.User || h.Project != o.Project) {
		return answer{}, quire.Forbidden("The session is somebody else's.")
	}
	return answer{}, s.end(ctx, o.Session, stopGrace)
}

// end stops the processes of a session that we started: with grace, or at once
// when somebody's rights were taken away, which also cuts short the grace of an
// end that is under way.
func (s *Spawner) end(ctx context.Context, id quire.SessionID, grace time.Duration) error {
	h := s.find(id)
	if h == nil {
		return nil
	}
	if grace == 0 {
		h.haste.Do(func() { close(h.hurry) })
	}
	defer s.lock("end " + string(id))()
	g := s.c.Limits.Find(string(id))
	keep := h.Keep
	if !keep.alive(s.boot) {
		keep = process{}
	}
	if grace > 0 {
		if keep.PID != 0 {
			// The parent first: it ends the app in the app's own way.
			if err := keep.signal(unix.SIGTERM); err != nil && !errors.Is(err, unix.ESRCH) {
				return err
			}
		}
		if err := s.wait(ctx, g, keep, grace, h.hurry); err == nil {
			return nil
		}
	}
	for range 100 {
		if err := g.Kill(keep); err != nil {
			return quire.Failed("The session's processes could not be ended.", err)
		}
		if err := s.wait(ctx, g, keep, 100*time.Millisecond, nil); err == nil {
			return nil
		}
	}
	return quire.Failed("Some of the session's processes do not end. They may wait for a disk or a network share.", nil)
}

var errBusy = errors.New("processes are left")

// wait returns when the group is empty, or when it may not wait any longer.
// Version 1 groups cannot tell, so it looks; nothing else waits for this.
func (s *Spawner) wait(ctx context.Context, g Group, keep process, limit time.Duration, hurry <-chan struct{}) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(limit)
	for {
		pids, err := g.Processes(keep)
		if err != nil {
			return err
		}
		if keep.PID != 0 && !keep.alive(s.boot) {
			// The app has ended with its parent: what is left has left the app.
			if len(pids) > 0 {
				_ = g.Kill(process{})
			}
			keep = process{}
			continue
		}
		if len(living(pids)) == 0 {
			return nil
		}
		select {
		case <-tick.C:
		case <-deadline:
			return errBusy
		case <-hurry:
			return errBusy
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// living leaves out the dead that nobody has waited for yet.
func living(pids []int) []int {
	var list []int
	for _, p := range pids {
		if _, _, _, state, err := stat(p); err == nil && state != 'Z' && state != 'X' {
			list = append(list, p)
		}
	}
	return list
}

// release forgets a session whose parent process is dead: stragglers are
// killed, its directories removed. It never touches a living session.
func (s *Spawner) release(ctx context.Context, id quire.SessionID) error {
	if !quire.ValidID('s', string(id)) {
		return quire.Invalid("session", "This is no session.")
	}
	defer s.lock(string(id))()
	h := s.find(id)
	if h == nil {
		return nil
	}
	if h.Keep.alive(s.boot) {
		return quire.Conflict("session", "The session still runs.")
	}
	return s.clear(ctx, h)
}

func (s *Spawner) clear(ctx context.Context, h *held) error {
	id := string(h.Session)
	if err := s.end(ctx, h.Session, 0); err != nil {
		return err
	}
	if err := s.c.Limits.Find(id).Remove(); err != nil {
		s.c.Log.Warn("a control group stays", "session", id, "err", err)
	}
	if err := s.removeDirs(ctx, h); err != nil {
		return fmt.Errorf("removing the session's directories: %w", err)
	}
	if err := os.Remove(s.stateFile(h.Session)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	s.mu.Lock()
	delete(s.held, h.Session)
	s.mu.Unlock()
	return nil
}

// removeDirs empties the directories as their owner and removes them as us, so
// that root unlinks nothing inside them.
func (s *Spawner) removeDirs(ctx context.Context, h *held) error {
	dir, tmp := s.sessionDir(h.Session), s.tmpDir(string(h.Session))
	if h.Account.UID != 0 {
		empty := []string{"empty", dir}
		switch {
		case s.tmpOf(h) != "":
			empty = append(empty, "/tmp")
		case s.c.Accounts.mode() == launch.Single:
			empty = append(empty, tmp)
		}
		if _, err := os.Lstat(dir); err == nil {
			if code, out, err := s.asUser(ctx, "clear-"+string(h.Session), h.Account, s.tmpOf(h), empty, nil); err != nil || code != 0 {
				s.c.Log.Warn("emptying a session's directories", "session", h.Session, "code", code, "out", string(out), "err", err)
			}
		}
	}
	first := disclose(dir)
	for _, d := range []string{dir, tmp} {
		if err := unix.Rmdir(d); err != nil && !errors.Is(err, unix.ENOENT) && first == nil {
			first = err
		}
	}
	return first
}
