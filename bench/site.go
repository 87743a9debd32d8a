package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"quire/test"
)

// site is a whole installation in a namespace of its own.
type site struct {
	cmd   *exec.Cmd
	admin *test.Browser
	done  chan struct{}
}

// inNamespace runs this benchmark again where it may make accounts and use the
// standard places, and reports whether it did.
func inNamespace(ctx context.Context, name string) (bool, error) {
	if os.Getenv("QUIRE_NAMESPACE") != "" {
		return false, nil
	}
	if os.Getuid() != 0 {
		return true, errors.New("this benchmark starts sessions under accounts of their own and needs root")
	}
	self, err := os.Executable()
	if err != nil {
		return true, err
	}
	cmd := exec.CommandContext(ctx, "scripts/in-namespace", self, name)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return true, cmd.Run()
}

var setupLine = regexp.MustCompile(`Open (http://[^/\s]+)/setup\?key=(\S+)`)

const password = "correct horse battery"

// up starts Quire and signs an administrator in.
func up(ctx context.Context) (*site, error) {
	bin, err := filepath.Abs("bin/quire")
	if err != nil {
		return nil, err
	}
	s := &site{cmd: exec.Command(bin, "up"), done: make(chan struct{})}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	s.cmd.Stderr = os.Stderr
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	sc := bufio.NewScanner(out)
	var m []string
	for m == nil && sc.Scan() {
		m = setupLine.FindStringSubmatch(sc.Text())
	}
	go func() { io.Copy(io.Discard, out); s.cmd.Wait(); close(s.done) }()
	if m == nil {
		return nil, errors.New("quire up printed no set-up address")
	}
	s.admin = test.NewBrowser(m[1])
	page, err := s.admin.Submit(ctx, m[1]+"/setup", url.Values{"key": {m[2]}, "name": {"ada"}, "password": {password}, "again": {password}})
	if err == nil && page.Status != 200 {
		err = fmt.Errorf("set-up: %d", page.Status)
	}
	if err != nil {
		s.end()
		return nil, err
	}
	return s, s.waitProject(ctx)
}

func (s *site) waitProject(ctx context.Context) error {
	for ctx.Err() == nil {
		var p struct{ State, Reason string }
		if err := s.admin.API(ctx, "GET", "/projects/ada/Welcome", nil, &p); err != nil {
			return err
		}
		switch p.State {
		case "running":
			return nil
		case "failed":
			return errors.New(p.Reason)
		}
		time.Sleep(20 * time.Millisecond)
	}
	return ctx.Err()
}

func (s *site) end() {
	s.cmd.Process.Signal(syscall.SIGINT)
	<-s.done
}

// person makes an account that is an editor of Welcome and signs it in.
func (s *site) person(ctx context.Context, name string) (*test.Browser, error) {
	if err := s.admin.API(ctx, "POST", "/users", map[string]any{"name": name, "password": password}, nil); err != nil {
		return nil, err
	}
	if err := s.admin.API(ctx, "PUT", "/projects/ada/Welcome/team/"+name, map[string]string{"role": "editor"}, nil); err != nil {
		return nil, err
	}
	b := test.NewBrowser(s.admin.Portal)
	page, err := b.Submit(ctx, b.Portal+"/login", url.Values{"name": {name}, "password": {password}})
	if err == nil && page.Status != 200 {
		err = fmt.Errorf("sign in: %d", page.Status)
	}
	return b, err
}

type session struct{ ID, State, App, Reason string }

// stopAll ends a person's notebooks and waits until they are gone.
func stopAll(ctx context.Context, b *test.Browser) error {
	for asked := false; ctx.Err() == nil; {
		var list []session
		if err := b.API(ctx, "GET", "/projects/ada/Welcome/sessions", nil, &list); err != nil {
			return err
		}
		live := 0
		for _, one := range list {
			if one.State == "running" || one.State == "starting" || one.State == "stopping" {
				live++
				if !asked {
					if err := b.API(ctx, "DELETE", "/projects/ada/Welcome/sessions/"+one.ID, nil, nil); err != nil {
						return err
					}
				}
			}
		}
		if asked = true; live == 0 {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return ctx.Err()
}

// notebookProcess finds how a running session's Jupyter was started.
func notebookProcess(socket string) (argv, env []string, cred *syscall.Credential, err error) {
	procs, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range procs {
		b, err := os.ReadFile(p + "/cmdline")
		if err != nil || !strings.Contains(string(b), socket) || !strings.Contains(string(b), "python") || strings.Contains(string(b), "keep\x00") {
			continue
		}
		e, err := os.ReadFile(p + "/environ")
		if err != nil {
			return nil, nil, nil, err
		}
		info, err := os.Stat(p)
		if err != nil {
			return nil, nil, nil, err
		}
		st := info.Sys().(*syscall.Stat_t)
		return split(b), split(e), &syscall.Credential{Uid: st.Uid, Gid: st.Gid}, nil
	}
	return nil, nil, nil, errors.New("no Jupyter runs on " + socket)
}

func split(b []byte) []string { return strings.Split(strings.TrimRight(string(b), "\x00"), "\x00") }
