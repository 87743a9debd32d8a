package compute

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A process is named by what is never used twice.
type process struct {
	Boot  string `json:"boot"`
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // clock ticks after boot
}

func startTime(pid int) (uint64, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, err
	}
	// The name is in parentheses and may contain anything: count from the last.
	f := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(f) < 20 {
		return 0, errors.New("the process table cannot be read")
	}
	return strconv.ParseUint(string(f[19]), 10, 64)
}

var errGone = errors.New("the process has ended")

// open returns a descriptor of exactly this process; errGone if it has ended.
func (p process) open(boot string) (*os.File, error) {
	if p.PID == 0 || p.Boot != boot {
		return nil, errGone
	}
	fd, err := unix.PidfdOpen(p.PID, unix.PIDFD_NONBLOCK)
	if errors.Is(err, unix.ESRCH) {
		return nil, errGone
	}
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "process")
	// The descriptor now names one process; was it the one we mean?
	if start, err := startTime(p.PID); err != nil || start != p.Start {
		f.Close()
		return nil, errGone
	}
	return f, nil
}

// await returns when the process has ended (nil) or f was closed. No thread
// waits: the descriptor becomes readable.
func await(f *os.File) error {
	r, err := f.SyscallConn()
	if err != nil {
		return err
	}
	return r.Read(func(fd uintptr) bool {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(p, 0)
		return err == nil && n == 1
	})
}

// A dir is a session's directory, held by descriptor. What is in it is the
// user's: everything is opened without following links, without waiting for a
// pipe's other end, and read up to a limit.
type dir struct{ f *os.File }

var errStranger = errors.New("the session's directory is somebody else's")

// openDir opens name below parent and checks its owner.
func openDir(parent, name string, uid uint32) (dir, error) {
	p, err := unix.Open(parent, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return dir{}, err
	}
	defer unix.Close(p)
	fd, err := unix.Openat(p, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return dir{}, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return dir{}, err
	}
	if st.Uid != uid {
		unix.Close(fd)
		return dir{}, errStranger
	}
	return dir{os.NewFile(uintptr(fd), name)}, nil
}

func (d dir) Close() { d.f.Close() }

func (d dir) open(name string) (*os.File, int64, error) {
	fd, err := unix.Openat(int(d.f.Fd()), name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, 0, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		unix.Close(fd)
		return nil, 0, errors.New("not a plain file")
	}
	return os.NewFile(uintptr(fd), name), st.Size, nil
}

// readJSON reads a small file that keep wrote.
func (d dir) readJSON(name string, v any) error {
	f, _, err := d.open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 4096))
	if err != nil {
		return err
	}
	return json.Unmarshal(b, v)
}

// tail returns the last n bytes of a file.
func (d dir) tail(name string, n int64) ([]byte, error) {
	f, size, err := d.open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	from := max(0, size-n)
	b, err := io.ReadAll(io.NewSectionReader(f, from, n))
	return b, err
}

// log returns the last n bytes of the app's output, over both files.
func (d dir) log(n int) string {
	if n <= 0 {
		return ""
	}
	now, _ := d.tail("log", int64(n))
	if len(now) < n {
		before, _ := d.tail("log.1", int64(n-len(now)))
		now = append(before, now...)
	}
	return strings.ToValidUTF8(string(now), "\uFFFD")
}

// oomKills counts kills by the memory limit in a group's event files.
func oomKills(files []string) int {
	total := 0
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(b)) {
			var n int
			if _, err := fmt.Sscanf(line, "oom_kill %d", &n); err == nil {
				total += n
			}
		}
	}
	return total
}
