package launch

import (
	"fmt"
	"os"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"
)

// rights is what the spawner keeps of root's. docs/admin/root.md says what for,
// and a test compares it with what the process has.
var rights = [...]uintptr{
	unix.CAP_CHOWN, unix.CAP_DAC_OVERRIDE, unix.CAP_DAC_READ_SEARCH, unix.CAP_FOWNER, unix.CAP_FSETID, unix.CAP_KILL, unix.CAP_SETGID, unix.CAP_SETUID,
	unix.CAP_SETPCAP, unix.CAP_SYS_ADMIN, unix.CAP_SYS_PTRACE, unix.CAP_AUDIT_WRITE,
}

const oomFile = "/proc/self/oom_score_adj"

// Confine makes this process the last to be killed when memory runs out, and
// gives up all rights but these for good, by dropping them from the bounding
// set and starting this program over: what it executes cannot have them either.
// It returns once nothing is left to give up.
func Confine() error {
	_ = os.WriteFile(oomFile, []byte("-900"), 0) // a container may forbid it
	runtime.LockOSThread()                       // the set is each thread's; execve keeps the one that calls it
	dropped := false
	for c := uintptr(0); ; c++ {
		has, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, c, 0, 0, 0)
		if err == unix.EINVAL {
			break // beyond the kernel's last capability
		}
		if err != nil {
			return fmt.Errorf("the bounding set: %w", err)
		}
		if has == 0 || slices.Contains(rights[:], c) {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil {
			return fmt.Errorf("capability %d: %w", c, err)
		}
		dropped = true
	}
	if !dropped {
		runtime.UnlockOSThread()
		return nil
	}
	// /proc/self/exe, so that it is this program whatever lies at its path now.
	return unix.Exec("/proc/self/exe", os.Args, os.Environ())
}
