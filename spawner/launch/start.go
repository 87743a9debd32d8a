package launch

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// raw is a system call that concerns this thread alone. The wrappers of the
// standard library change every thread, which a build with cgo cannot mix with
// the per-thread steps above.
func raw(trap, a, b, c uintptr) error {
	if _, _, e := unix.RawSyscall(trap, a, b, c); e != 0 {
		return e
	}
	return nil
}

// A Command starts a Spec. Its files stay the caller's to close.
type Command struct {
	Shim    string   // path of the quire binary
	Spec    Spec     //
	Output  *os.File // standard output and error; nil = /dev/null
	Network *os.File // the network namespace to enter; nil = stay
	Ready   *os.File // handed to the program as descriptor 3
	Group   *os.File // version 2 control group to be born in
	Tasks   []*os.File
}

// startLimit bounds the time between fork and execve of the program.
const startLimit = 10 * time.Second

// Start runs the shim and returns when the program has been executed. The error
// is a *StepError when a step failed; then nothing runs.
func (c *Command) Start(ctx context.Context) (*os.Process, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	specR, specW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer specW.Close()
	statusR, statusW, err := os.Pipe()
	if err != nil {
		specR.Close()
		return nil, err
	}
	defer statusR.Close()

	out := c.Output
	if out == nil {
		out = null
	}
	spec := c.Spec
	files := []*os.File{null, out, out, specR, statusW}
	hand := func(f *os.File) int {
		if f == nil {
			return 0
		}
		files = append(files, f)
		return len(files) - 1
	}
	spec.Network, spec.Ready = hand(c.Network), hand(c.Ready)
	for _, f := range c.Tasks {
		spec.Tasks = append(spec.Tasks, hand(f))
	}
	// Setsid: the program's group and session are its own, and no terminal of
	// root's is its controlling one.
	sys := &syscall.SysProcAttr{Setsid: true}
	if c.Group != nil {
		sys.UseCgroupFD, sys.CgroupFD = true, int(c.Group.Fd())
	}
	p, err := os.StartProcess(c.Shim, []string{c.Shim, "shim"}, &os.ProcAttr{Dir: "/", Env: []string{}, Files: files, Sys: sys})
	specR.Close()
	statusW.Close()
	if err != nil {
		return nil, &StepError{"start", err.Error()}
	}
	deadline := time.Now().Add(startLimit)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	if err := c.talk(spec, specW, statusR, deadline); err != nil {
		p.Kill()
		p.Wait()
		return nil, err
	}
	return p, nil
}

func (c *Command) talk(spec Spec, specW, statusR *os.File, deadline time.Time) error {
	specW.SetWriteDeadline(deadline)
	statusR.SetReadDeadline(deadline)
	b, err := json.Marshal(spec)
	if err != nil {
		return err
	}
	if _, err := specW.Write(b); err != nil {
		return &StepError{"spec", err.Error()}
	}
	specW.Close()
	// The status pipe closes by itself when execve succeeds.
	b, err = io.ReadAll(io.LimitReader(statusR, 4096))
	if err != nil {
		return &StepError{"start", fmt.Sprintf("no answer: %v", err)}
	}
	rest, reached := bytes.CutPrefix(b, []byte{passed})
	if reached && len(rest) == 0 {
		return nil
	}
	b = rest
	var failed StepError
	if err := json.Unmarshal(b, &failed); err != nil || failed.Step == "" {
		return &StepError{"start", "the answer cannot be read"}
	}
	return &failed
}

func rawSetgroups(groups []uint32) error {
	if len(groups) == 0 {
		return raw(unix.SYS_SETGROUPS, 0, 0, 0)
	}
	return raw(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(&groups[0])), 0)
}
