package apps

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"quire"
)

// StartOnPty starts a shell on a pty of its own and returns the pty, whose reads
// and writes can be called off. Errors are for people.
func StartOnPty(cmd *exec.Cmd, cols, rows int) (*os.File, error) {
	master, err := pty.StartWithSize(cmd, &pty.Winsize{Cols: uint16(cols), Rows: uint16(rows)})
	if err != nil {
		return nil, failedStart(err)
	}
	file, err := pollable(master)
	if err != nil {
		cmd.Process.Kill()
		cmd.Wait()
		return nil, failedStart(err)
	}
	return file, nil
}

func failedStart(err error) error {
	why := "The shell could not be started."
	if errors.Is(err, syscall.EAGAIN) {
		why = "The shell could not be started: you have as many processes as you may. End some and try again."
	} else if errors.Is(err, syscall.ENOMEM) {
		why = "The shell could not be started: there is no memory left. End some programs and try again."
	}
	return quire.Failed(why, err)
}

// pollable returns the pty as a file whose reads and writes can be called off.
// The pty package hands out one that blocks.
func pollable(f *os.File) (*os.File, error) {
	defer f.Close()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, fmt.Errorf("copy the pty's descriptor: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("make the pty pollable: %w", err)
	}
	return os.NewFile(uintptr(fd), "pty"), nil
}

// ResizePty tells the programs on a pty how large the window is, in characters.
func ResizePty(f *os.File, cols, rows int) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if err := raw.Control(func(fd uintptr) {
		inner = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Col: uint16(cols), Row: uint16(rows)})
	}); err != nil {
		return err
	}
	return inner
}

// HangUp tells every process group of a shell's session that its terminal is
// closed. pid is the shell's, which must not be reaped yet.
func HangUp(pid int) {
	for _, group := range sessionGroups(pid) {
		syscall.Kill(-group, syscall.SIGHUP)
		syscall.Kill(-group, syscall.SIGCONT) // a stopped job hears it too
	}
}

// sessionGroups lists the process groups whose session is led by pid.
func sessionGroups(pid int) []int {
	groups := map[int]bool{pid: true}
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		raw, err := os.ReadFile(dir + "/stat")
		if err != nil {
			continue
		}
		// The name stands in parentheses and may hold anything.
		fields := strings.Fields(string(raw[strings.LastIndexByte(string(raw), ')')+1:]))
		if len(fields) < 4 || fields[3] != strconv.Itoa(pid) {
			continue
		}
		if group, err := strconv.Atoi(fields[2]); err == nil && group > 1 {
			groups[group] = true
		}
	}
	list := make([]int, 0, len(groups))
	for g := range groups {
		list = append(list, g)
	}
	return list
}

// TerminalEnvironment is the session's with the two words that describe our terminal.
func TerminalEnvironment(session []string) []string {
	env := make([]string, 0, len(session)+2)
	for _, e := range session {
		if name, _, _ := strings.Cut(e, "="); name != "TERM" && name != "COLORTERM" && name != "COLUMNS" && name != "LINES" {
			env = append(env, e)
		}
	}
	return append(env, "TERM=xterm-256color", "COLORTERM=truecolor")
}

// LoginShell is the shell the account has, or bash. It runs as an interactive
// but not as a login shell: a login shell's profile sets PATH anew, and the
// project's environment would be lost from it.
func LoginShell(ctx context.Context) string {
	candidates := []string{os.Getenv("SHELL")}
	if candidates[0] == "" {
		candidates[0] = accountShell(ctx)
	}
	for _, c := range append(candidates, "/bin/bash", "/bin/sh") {
		switch filepath.Base(c) {
		case "nologin", "false", "true", "sync":
			continue
		}
		if info, err := os.Stat(c); filepath.IsAbs(c) && err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return c
		}
	}
	return "/bin/sh"
}

// accountShell asks the directory, which may be slow or away.
func accountShell(ctx context.Context) string {
	me, err := user.Current()
	if err != nil {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "getent", "passwd", me.Uid).Output()
	if err != nil {
		return ""
	}
	fields := strings.Split(strings.TrimSpace(string(out)), ":")
	if len(fields) != 7 {
		return ""
	}
	return fields[6]
}
