package spawner

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"quire"
)

// expelLimit is how long one order tries to end processes that keep appearing.
const expelLimit = 20 * time.Second

// expel ends the processes of people that have to do with the project: sessions
// in it, and whatever else has its working directory, root, an open or mapped
// file or a mount there. It runs after the directory was shut to them, so that
// what is gone does not come back. It says how many it ended besides sessions.
func (s *Spawner) expel(ctx context.Context, o quire.Order, uids []uint32) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, expelLimit)
	defer cancel()
	var theirs []quire.SessionID
	s.mu.Lock()
	for _, h := range s.held {
		if h.Project == o.Project && slices.Contains(uids, h.Account.UID) {
			theirs = append(theirs, h.Session)
		}
	}
	s.mu.Unlock()
	for _, id := range theirs {
		if err := s.end(ctx, id, 0); err != nil {
			return 0, err
		}
	}
	if s.c.Accounts.Keeper() != 0 {
		return 0, nil // one account: whose a process is cannot be told
	}
	ended := map[process]bool{}
	for {
		found, err := s.intruders(o.Dir, uids)
		if err != nil {
			return len(ended), err
		}
		if len(found) == 0 {
			return len(ended), nil
		}
		for _, p := range found {
			ended[p] = true
		}
		select {
		case <-time.After(2 * time.Millisecond): // the dying need a moment
		case <-ctx.Done():
			return len(ended), quire.Failed("Some processes of people who were shut out do not end. They may wait for a disk or a network share.", nil)
		}
	}
}

// intruders kills and lists the processes of these accounts with something of
// the directory. Each is held by a descriptor before it is looked at: a number
// that is given to another process meanwhile cannot be mistaken.
func (s *Spawner) intruders(dir string, uids []uint32) ([]process, error) {
	list, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	hidden := mountsOf(dir)
	var found []process
	for _, e := range list {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		var st unix.Stat_t
		if unix.Lstat("/proc/"+e.Name(), &st) != nil || !slices.Contains(uids, st.Uid) && !slices.Contains(uids, realUID(pid)) {
			continue
		}
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue
		}
		start, _, _, state, err := stat(pid)
		if err == nil && state != 'Z' && state != 'X' && slices.Contains(uids, realUID(pid)) && touches(pid, dir, hidden) {
			if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err == nil {
				found = append(found, process{s.boot, pid, start})
			}
		}
		unix.Close(fd)
	}
	return found, nil
}

// realUID is whose a process is, 0 if it cannot be told. The owner of its
// directory in /proc would be root for one that cannot be dumped.
func realUID(pid int) uint32 {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "Uid:"); ok {
			if f := strings.Fields(rest); len(f) > 0 {
				n, _ := number(f[0])
				return n
			}
		}
	}
	return 0
}

// below reports whether the kernel's name of a file lies in the directory.
func below(name, dir string) bool {
	rest, ok := strings.CutPrefix(name, dir)
	return ok && (rest == "" || rest[0] == '/' || rest == " (deleted)")
}

func touches(pid int, dir string, hidden where) bool {
	proc := filepath.Join("/proc", strconv.Itoa(pid))
	for _, link := range []string{"cwd", "root"} {
		if name, err := os.Readlink(proc + "/" + link); err == nil && below(name, dir) {
			return true
		}
	}
	fds, _ := os.ReadDir(proc + "/fd")
	for _, fd := range fds {
		if name, err := os.Readlink(proc + "/fd/" + fd.Name()); err == nil && below(name, dir) {
			return true
		}
	}
	if maps, err := os.ReadFile(proc + "/maps"); err == nil && bytes.Contains(maps, []byte(" "+dir+"/")) {
		return true
	}
	// In a mount namespace of its own it can show itself the project under any
	// other name: then all names above lie, and the mount tells.
	if mounts, err := os.ReadFile(proc + "/mountinfo"); err == nil {
		for line := range strings.Lines(string(mounts)) {
			if f := strings.Fields(line); len(f) > 4 && f[2] == hidden.device && below(f[3], hidden.path) && !hidden.ours[f[3]+" "+f[4]] {
				return true
			}
		}
	}
	return false
}

// where is a directory as the kernel shows it in lists of mounts.
type where struct {
	device, path string
	ours         map[string]bool // mounts that everybody has: root and place
}

func mountsOf(dir string) where {
	w := where{ours: map[string]bool{}}
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return w
	}
	best := ""
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 5 {
			continue
		}
		w.ours[f[3]+" "+f[4]] = true
		rest, ok := strings.CutPrefix(dir, strings.TrimSuffix(f[4], "/"))
		if ok && (rest == "" || rest[0] == '/') && len(f[4]) >= len(best) {
			best, w.device, w.path = f[4], f[2], filepath.Join(f[3], rest)
		}
	}
	return w
}
