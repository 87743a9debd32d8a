package compute

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"quire"
)

// helloLimit bounds the question to the spawner: a node that hangs must still
// say how it is.
const helloLimit = 2 * time.Second

// Health is what the node says of itself now.
func (c *Compute) Health(ctx context.Context) (quire.NodeHealth, error) {
	h := quire.NodeHealth{Version: c.c.Version, Time: c.c.Now().UTC(), BootID: c.boot, CPUs: runtime.NumCPU()}
	memory := meminfo()
	h.MemoryFree, h.MemoryTotal = memory["MemAvailable"], memory["MemTotal"]
	if b, err := os.ReadFile("/proc/loadavg"); err == nil {
		_, _ = fmt.Sscan(string(b), &h.Load) // shown only
	}
	c.mu.Lock()
	for _, s := range c.sessions {
		if s.State.Live() {
			h.Sessions++
		}
	}
	c.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, helloLimit)
	defer cancel()
	a, err := c.spawner.ask(ctx, ask{Op: "hello"}, nil)
	if err != nil {
		h.Messages = append(h.Messages, "The spawner does not answer: nothing can be started or stopped here.")
		return h, nil
	}
	h.Accounts, h.Limits, h.Apps, h.Others = a.Accounts, a.Limits, a.Apps, a.Others
	if disk := a.Storage; disk != nil { // the spawner looks: a disk that hangs must not hold us up
		h.Storage, h.DiskFree, h.DiskTotal = *disk, disk.Free, disk.Total
		if disk.Problem != "" {
			h.Messages = append(h.Messages, disk.Problem+" No project can start here until then.")
		}
		h.Messages = append(h.Messages, disk.Warnings...)
	}
	h.Messages = append(h.Messages, a.Messages...)
	return h, nil
}

// meminfo reads the kernel's figures, in bytes.
func meminfo() map[string]int64 {
	m := map[string]int64{}
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return m
	}
	for line := range strings.Lines(string(b)) {
		name, rest, _ := strings.Cut(line, ":")
		var kb int64
		if _, err := fmt.Sscan(rest, &kb); err == nil {
			m[name] = kb << 10
		}
	}
	return m
}
