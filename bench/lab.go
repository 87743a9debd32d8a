package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"quire/test"
)

// benchLab compares our JupyterLab's server with Debian's Jupyter Server, both
// started as processes on a unix socket, without the rest of Quire.
func benchLab(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "l")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	exe, err := filepath.Abs("bin/quire")
	if err != nil {
		return err
	}
	b := labBench{dir: dir, exe: exe}
	if err := exec.CommandContext(ctx, "/usr/bin/python3", "-c", "import jupyter_server").Run(); err != nil {
		return errors.New("python3-jupyter-server is missing: run scripts/setup test")
	}
	for _, part := range []func(context.Context) error{b.starts, b.cells, b.many} {
		if err := part(ctx); err != nil {
			return err
		}
	}
	return nil
}

type labBench struct {
	dir, exe string
	n        int
}

// A labServer is one server of either kind.
type labServer struct {
	cmd    *exec.Cmd
	socket string
	base   string
	http   *http.Client
	began  time.Time
}

func (b *labBench) start(ours bool) (*labServer, error) {
	b.n++
	dir := filepath.Join(b.dir, strconv.Itoa(b.n))
	for _, d := range []string{dir, dir + "/k", dir + "/p", dir + "/h"} {
		if err := os.Mkdir(d, 0o700); err != nil {
			return nil, err
		}
	}
	s := &labServer{socket: dir + "/app.sock", base: "/lab/"}
	if ours {
		s.cmd = exec.Command(b.exe, "lab", "--socket", s.socket, "--url-prefix", "/lab", "--home", dir+"/p", "--state", dir+"/k", "--python", "/usr/bin/python3")
	} else {
		s.cmd = exec.Command("/usr/bin/python3", "-m", "jupyter_server", "--ServerApp.sock="+s.socket, "--no-browser", "--ServerApp.root_dir="+dir+"/p", "--ServerApp.base_url=/lab/",
			"--ServerApp.token=", "--ServerApp.password=", "--ServerApp.disable_check_xsrf=True", "--ServerApp.allow_remote_access=True", "--ServerApp.allow_root=True",
			"--KernelManager.transport=ipc")
	}
	s.cmd.Env = []string{"HOME=" + dir + "/h", "PATH=/usr/bin:/bin", "LANG=C.UTF-8", "JUPYTER_RUNTIME_DIR=" + dir + "/k"}
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	s.http = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", s.socket)
	}}}
	s.began = time.Now()
	return s, s.cmd.Start()
}

// ready waits until the API answers and returns how long it took.
func (s *labServer) ready(ctx context.Context) (float64, error) {
	for {
		if err := s.call(ctx, "GET", "api/contents?content=0", nil, nil); err == nil {
			return time.Since(s.began).Seconds(), nil
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(2 * time.Millisecond):
		}
	}
}

func (s *labServer) call(ctx context.Context, method, path string, in, out any) error {
	b, err := json.Marshal(in)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, method, "http://localhost"+s.base+path, bytes.NewReader(b))
	if err != nil {
		return err
	}
	r.Header.Set("Origin", "http://localhost")
	res, err := s.http.Do(r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode >= 300 {
		err = fmt.Errorf("%s %s: %d %.200s", method, path, res.StatusCode, text)
	}
	if err == nil && out != nil {
		err = json.Unmarshal(text, out)
	}
	return err
}

// session starts a notebook's kernel.
func (s *labServer) session(ctx context.Context) (string, error) {
	var out struct{ Kernel struct{ ID string } }
	err := s.call(ctx, "POST", "api/sessions", map[string]any{"path": "a.ipynb", "name": "a", "type": "notebook", "kernel": map[string]string{"name": "python3"}}, &out)
	return out.Kernel.ID, err
}

// pss is the memory of the server without its kernels, MB: what it shares with
// others counts in part (proc_pid_smaps_rollup(5)).
func (s *labServer) pss() float64 {
	sum := 0.0
	for _, pid := range append([]int{s.cmd.Process.Pid}, childrenOf(s.cmd.Process.Pid)...) {
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err != nil || strings.Contains(string(line), "ipykernel") {
			continue
		}
		roll, _ := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		for l := range strings.Lines(string(roll)) {
			if f := strings.Fields(l); len(f) > 1 && f[0] == "Pss:" {
				kb, _ := strconv.ParseFloat(f[1], 64)
				sum += kb / 1024
			}
		}
	}
	return sum
}

func childrenOf(pid int) []int {
	var out []int
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, t := range tasks {
		b, _ := os.ReadFile(t)
		for _, f := range strings.Fields(string(b)) {
			if n, err := strconv.Atoi(f); err == nil {
				out = append(out, n)
				out = append(out, childrenOf(n)...)
			}
		}
	}
	return out
}

func (s *labServer) end() {
	for _, pid := range append(childrenOf(s.cmd.Process.Pid), s.cmd.Process.Pid) {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	_ = s.cmd.Wait()
}

// starts measures from the start of the process to an API that answers.
func (b *labBench) starts(ctx context.Context) error {
	var times [2][]float64
	for range 7 {
		for i, ours := range []bool{true, false} {
			s, err := b.start(ours)
			if err != nil {
				return err
			}
			t, err := s.ready(ctx)
			s.end()
			if err != nil {
				return err
			}
			times[i] = append(times[i], t)
		}
	}
	report("lab_ready_vs_jupyter", median(times[0]), "s", median(times[1]))
	return nil
}

const chatter = "for i in range(3000): print('x' * 2000)"

// cells measures the first cell, many cells, a flood of output, and memory.
func (b *labBench) cells(ctx context.Context) error {
	var first, rtt, rate, before, after [2][]float64
	for range 3 {
		for i, ours := range []bool{true, false} {
			s, err := b.start(ours)
			if err != nil {
				return err
			}
			if _, err := s.ready(ctx); err != nil {
				return err
			}
			if ours { // a person opens the page, and looks for a moment at it
				if err := s.page(ctx); err != nil {
					return err
				}
			}
			err = func() error {
				defer s.end()
				before[i] = append(before[i], s.pss())
				began := time.Now()
				id, err := s.session(ctx)
				if err != nil {
					return err
				}
				k, err := test.ConnectDirect(ctx, s.socket, s.base, id)
				if err != nil {
					return err
				}
				defer k.Close()
				if out, err := k.Run(ctx, "6*7"); err != nil || out != "42" {
					return fmt.Errorf("%q: %w", out, err)
				}
				first[i] = append(first[i], time.Since(began).Seconds())
				for range 1000 {
					began := time.Now()
					if _, err := k.Run(ctx, "1+1"); err != nil {
						return err
					}
					rtt[i] = append(rtt[i], float64(time.Since(began).Microseconds())/1000)
				}
				after[i] = append(after[i], s.pss())
				began = time.Now()
				out, err := k.Run(ctx, chatter)
				if err != nil {
					return err
				}
				rate[i] = append(rate[i], float64(len(out))/1e6/time.Since(began).Seconds())
				return nil
			}()
			if err != nil {
				return err
			}
		}
	}
	bare, err := b.bare(ctx)
	if err != nil {
		return err
	}
	report("first_cell_vs_jupyter", median(first[0]), "s", median(first[1]))
	report("execute_rtt_vs_bare_kernel", median(rtt[0]), "ms", bare)
	report("execute_rtt_vs_jupyter", median(rtt[0]), "ms", median(rtt[1]))
	report("lab_rss_vs_jupyter", median(before[0]), "MB", median(before[1]))
	report("lab_rss_after_1000_cells_vs_jupyter", median(after[0]), "MB", median(after[1]))
	report("stream_mb_s_vs_jupyter", median(rate[0]), "MB/s", median(rate[1]))
	return nil
}

// page opens JupyterLab's page and waits until the kernel it makes ready is there.
func (s *labServer) page(ctx context.Context) error {
	res, err := s.http.Get("http://localhost" + s.base)
	if err != nil {
		return err
	}
	res.Body.Close()
	if res.StatusCode != 200 {
		return fmt.Errorf("the page: %d; build with go run ./build", res.StatusCode)
	}
	for {
		var status struct{ Kernels int }
		if err := s.call(ctx, "GET", "api/status", nil, &status); err != nil {
			return err
		}
		if status.Kernels > 0 {
			break
		}
	}
	select {
	case <-ctx.Done():
	case <-time.After(3 * time.Second): // a person's moment, longer than a kernel's start
	}
	return ctx.Err()
}

// bare is the time of a cell asked of a kernel by Jupyter's own client, ms.
func (b *labBench) bare(ctx context.Context) (float64, error) {
	script := `
import statistics, time
from jupyter_client.manager import start_new_kernel
m, c = start_new_kernel(kernel_name='python3')
times = []
for i in range(520):
    began = time.perf_counter()
    id = c.execute('1+1')
    while True:
        r = c.get_iopub_msg(timeout=10)
        if r['parent_header'].get('msg_id') == id and r['msg_type'] == 'status' and r['content']['execution_state'] == 'idle': break
    times.append(time.perf_counter() - began)
m.shutdown_kernel(now=True)
print(statistics.median(times[20:]) * 1000)`
	cmd := exec.CommandContext(ctx, "/usr/bin/python3", "-c", script)
	cmd.Env = []string{"HOME=" + b.dir, "PATH=/usr/bin:/bin", "LANG=C.UTF-8"}
	out, err := cmd.Output()
	if err != nil {
		return 0, err
	}
	return strconv.ParseFloat(strings.TrimSpace(string(out)), 64)
}

// many measures the memory of ten servers that nobody has asked for a kernel yet.
func (b *labBench) many(ctx context.Context) error {
	var sum [2]float64
	for i, ours := range []bool{true, false} {
		var all []*labServer
		for range 10 {
			s, err := b.start(ours)
			if err != nil {
				return err
			}
			defer s.end()
			all = append(all, s)
		}
		for _, s := range all {
			if _, err := s.ready(ctx); err != nil {
				return err
			}
		}
		for _, s := range all {
			sum[i] += s.pss()
		}
		for _, s := range all {
			_ = syscall.Kill(s.cmd.Process.Pid, syscall.SIGTERM)
		}
	}
	report("ten_labs_vs_jupyter", sum[0], "MB", sum[1])
	return nil
}
