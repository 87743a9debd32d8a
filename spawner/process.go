package spawner

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A process is named by what is never used twice: the boot, the number and the
// time it started.
type process struct {
	Boot  string `json:"boot"`
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // clock ticks after boot
}

func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b)), err
}

// stat reads the start time, parent and process session of a process.
func stat(pid int) (start uint64, parent, session int, state byte, err error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, 0, 0, 0, err
	}
	// The name is in parentheses and may contain anything, so count from the last.
	f := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(f) < 20 {
		return 0, 0, 0, 0, errors.New("the process table cannot be read")
	}
	parent, _ = strconv.Atoi(string(f[1]))
	session, _ = strconv.Atoi(string(f[3]))
	start, err = strconv.ParseUint(string(f[19]), 10, 64)
	return start, parent, session, f[0][0], err
}

// alive reports whether the process still runs and is the same one.
func (p process) alive(boot string) bool {
	if p.PID == 0 || p.Boot != boot {
		return false
	}
	start, _, _, state, err := stat(p.PID)
	return err == nil && start == p.Start && state != 'Z' && state != 'X'
}

// signal sends to exactly this process, never to a later one of its number.
func (p process) signal(s unix.Signal) error {
	fd, err := unix.PidfdOpen(p.PID, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if start, _, _, _, err := stat(p.PID); err != nil || start != p.Start {
		return unix.ESRCH
	}
	return unix.PidfdSendSignal(fd, s, nil, 0)
}

// NoLimits holds sessions together by process session, parentage and a mark in
// the environment; it cannot limit what they use. why is shown on the node's page.
func NoLimits(why string) Limits { return none(why) }

type none string

func (n none) String() string                        { return "none: " + string(n) }
func (n none) Make(id string, _ Want) (Group, error) { return loose(id), nil }
func (n none) Find(id string) Group                  { return loose(id) }

func (n none) Sweep(func(string) bool) {}

type loose string

// mark is what every process of a session has in its environment, unless it
// took care not to.
func mark(id string) string { return "QUIRE_SESSION=" + id }

func (l loose) Enter() (*os.File, []*os.File, error) { return nil, nil, nil }
func (l loose) Remove() error                        { return nil }
func (l loose) Events() []string                     { return nil }

func (l loose) Processes(keep process) ([]int, error) {
	dir, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	inside := map[int]bool{keep.PID: keep.PID != 0}
	parents := map[int]int{}
	for _, e := range dir {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		_, parent, session, state, err := stat(pid)
		if err != nil || state == 'Z' || pid == os.Getpid() {
			continue
		}
		parents[pid] = parent
		if keep.PID != 0 && session == keep.PID || marked(pid, string(l)) {
			inside[pid] = true
		}
	}
	for again := true; again; {
		again = false
		for pid, parent := range parents {
			if !inside[pid] && inside[parent] {
				inside[pid], again = true, true
			}
		}
	}
	var list []int
	for pid := range parents {
		if inside[pid] {
			list = append(list, pid)
		}
	}
	slices.Sort(list)
	return list, nil
}

func marked(pid int, id string) bool {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "environ"))
	return err == nil && slices.Contains(strings.Split(string(b), "\x00"), mark(id))
}

func (l loose) Kill(keep process) error {
	pids, err := l.Processes(keep)
	for _, p := range pids {
		_ = unix.Kill(p, unix.SIGKILL)
	}
	return err
}
