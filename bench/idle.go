package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	idleSockets = 5000
	idleFor     = 10 * time.Minute // IDLE=1m and the like make it shorter
	idleSettle  = 5 * time.Second
)

// benchIdle opens 5,000 WebSockets through each proxy, leaves them alone, and
// measures what each costs the proxy: its own memory, not the kernel's.
func benchIdle(ctx context.Context) error {
	long := idleFor
	if text := os.Getenv("IDLE"); text != "" {
		var err error
		if long, err = time.ParseDuration(text); err != nil {
			return err
		}
	}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	limit.Cur = limit.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Max < 2*idleSockets+3000 {
		return fmt.Errorf("%d descriptors are too few: ulimit -n must allow %d: %w", limit.Max, 2*idleSockets+3000, err)
	}
	f, err := newField(ctx)
	if err != nil {
		return err
	}
	defer f.end()
	each, grown := map[string]float64{}, map[string]float64{}
	for _, t := range f.targets[:3] {
		before, err := memory(t.pid)
		if err != nil {
			return err
		}
		conns := make([]net.Conn, 0, idleSockets)
		for range idleSockets {
			c, err := abandoned(ctx, t, f.host)
			if err != nil {
				return fmt.Errorf("%s: socket %d: %w", t.name, len(conns)+1, err)
			}
			conns = append(conns, c)
		}
		wait := long
		if t.name != "quire" {
			wait = 0 // the peers' growth is no bound of ours
		}
		pause(ctx, idleSettle)
		full, err := memory(t.pid)
		if err != nil {
			return err
		}
		pause(ctx, wait)
		after, err := memory(t.pid)
		if err != nil {
			return err
		}
		if err := alive(conns); err != nil {
			return fmt.Errorf("%s: %w", t.name, err)
		}
		each[t.name], grown[t.name] = (full-before)/idleSockets, (after-full)/idleSockets
		note("%s: %.1f KB each, %.2f KB more after %v", t.name, each[t.name], grown[t.name], wait)
		for _, c := range conns {
			c.Close()
		}
		pause(ctx, time.Second)
	}
	report("idle_ws_kb", each["quire"], "KB", each["nginx"])
	report("idle_ws_vs_chp", each["quire"], "KB", each["chp"])
	report("idle_ws_growth_kb", grown["quire"], "KB", 0)
	return ctx.Err()
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// abandoned opens a WebSocket and says nothing more.
func abandoned(ctx context.Context, t *target, host string) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", t.addr)
	if err != nil {
		return nil, err
	}
	head := []string{"GET " + t.ws + " HTTP/1.1", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="}
	head = append(head, t.headers...)
	if len(t.headers) > 0 {
		head = append(head, "Origin: http://"+host)
	} else {
		head = append(head, "Host: "+t.addr)
	}
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := c.Write([]byte(strings.Join(head, "\r\n") + "\r\n\r\n")); err != nil {
		return nil, err
	}
	res, err := http.ReadResponse(bufio.NewReaderSize(c, 512), nil)
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusSwitchingProtocols {
		return nil, fmt.Errorf("answered with %s", res.Status)
	}
	c.SetDeadline(time.Time{})
	return c, nil
}

// alive fails if a socket was closed meanwhile.
func alive(conns []net.Conn) error {
	for i, c := range conns {
		c.SetReadDeadline(time.Now().Add(time.Millisecond))
		var b [512]byte
		if _, err := c.Read(b[:]); err != nil && !os.IsTimeout(err) {
			return fmt.Errorf("socket %d was closed: %w", i+1, err)
		}
	}
	return nil
}

// memory is what a process and its children have for themselves, in KB:
// proportional set size, so that pages which workers share count once.
func memory(pid int) (kb float64, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "Pss:" {
			n, err := strconv.ParseFloat(f[1], 64)
			if err != nil {
				return 0, err
			}
			kb += n
		}
	}
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return 0, err
	}
	for _, t := range tasks {
		children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", pid, t.Name()))
		if err != nil {
			continue
		}
		for _, c := range strings.Fields(string(children)) {
			id, err := strconv.Atoi(c)
			if err != nil {
				return 0, err
			}
			more, err := memory(id)
			if err != nil {
				return 0, err
			}
			kb += more
		}
	}
	return kb, nil
}
