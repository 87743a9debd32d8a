package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"quire/test"
)

// benchStart measures from the click on an app's button until the app answers
// through the gateway, against the same Jupyter started by hand with the same
// command, environment and account.
func benchStart(ctx context.Context) error {
	if ran, err := inNamespace(ctx, "start"); ran {
		return err
	}
	s, err := up(ctx)
	if err != nil {
		return err
	}
	defer s.end()
	open := func(b *test.Browser) (float64, error) {
		began := time.Now()
		_, err := b.OpenNotebook(ctx, "/ada/Welcome")
		return time.Since(began).Seconds(), err
	}
	if _, err := open(s.admin); err != nil {
		return err
	}
	sockets, err := filepath.Glob("/run/quire/s/*/app.sock")
	if err != nil || len(sockets) != 1 {
		return fmt.Errorf("there should be exactly one session, not %d: %w", len(sockets), err)
	}
	argv, env, cred, err := notebookProcess(sockets[0])
	if err != nil {
		return err
	}
	bare := bareJupyter{argv, env, cred, sockets[0]}
	if err := stopAll(ctx, s.admin); err != nil {
		return err
	}
	const rounds = 7
	var ours, theirs []float64
	for range rounds {
		t, err := bare.start(ctx, 1)
		if err != nil {
			return err
		}
		theirs = append(theirs, t)
		if t, err = open(s.admin); err != nil {
			return err
		}
		ours = append(ours, t)
		if err := stopAll(ctx, s.admin); err != nil {
			return err
		}
	}
	report("notebook_ready_s", median(ours), "s", median(theirs))
	report("notebook_ready_overhead_s", median(ours)-median(theirs), "s", 0)

	const people = 10
	browsers := make([]*test.Browser, people)
	for i := range browsers {
		if browsers[i], err = s.person(ctx, fmt.Sprintf("person%d", i)); err != nil {
			return err
		}
	}
	ours, theirs = nil, nil
	for range 3 {
		t, err := bare.start(ctx, people)
		if err != nil {
			return err
		}
		theirs = append(theirs, t)
		began := time.Now()
		errs := make(chan error, people)
		for _, b := range browsers {
			go func() { _, err := open(b); errs <- err }()
		}
		for range browsers {
			if err := <-errs; err != nil {
				return err
			}
		}
		ours = append(ours, time.Since(began).Seconds())
		for _, b := range browsers {
			if err := stopAll(ctx, b); err != nil {
				return err
			}
		}
	}
	report("ten_starts_vs_bare", median(ours), "s", median(theirs))
	return nil
}

// bareJupyter is the command of a session, to be started without Quire.
type bareJupyter struct {
	argv, env []string
	cred      *syscall.Credential
	socket    string
}

// start starts n at once and returns the seconds until all of them answer.
func (j bareJupyter) start(ctx context.Context, n int) (seconds float64, err error) {
	var cmds []*exec.Cmd
	defer func() {
		for _, c := range cmds {
			syscall.Kill(-c.Process.Pid, syscall.SIGKILL)
			c.Wait()
		}
	}()
	dirs := make([]string, n)
	for i := range dirs {
		if dirs[i], err = scratch(j.cred.Uid, j.cred.Gid); err != nil {
			return 0, err
		}
		defer os.RemoveAll(dirs[i])
	}
	old := filepath.Dir(j.socket)
	began := time.Now()
	for _, dir := range dirs {
		swap := func(words []string) (out []string) {
			for _, w := range words {
				out = append(out, strings.ReplaceAll(w, old, dir))
			}
			return out
		}
		argv := swap(j.argv)
		cmd := exec.Command(argv[0], argv[1:]...)
		cmd.Env, cmd.Dir = swap(j.env), "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: j.cred, Setpgid: true}
		if err := cmd.Start(); err != nil {
			return 0, err
		}
		cmds = append(cmds, cmd)
	}
	for _, dir := range dirs {
		if err := apiAnswers(ctx, filepath.Join(dir, filepath.Base(j.socket))); err != nil {
			return 0, err
		}
	}
	return time.Since(began).Seconds(), nil
}

func apiAnswers(ctx context.Context, socket string) error {
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	for {
		req, err := http.NewRequestWithContext(ctx, "GET", "http://localhost/notebook/api/status", nil)
		if err != nil {
			return err
		}
		res, err := client.Do(req)
		if err == nil {
			res.Body.Close()
			if res.StatusCode == 200 {
				return nil
			}
		}
		if ctx.Err() != nil {
			return fmt.Errorf("a bare Jupyter did not answer: %w", err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
