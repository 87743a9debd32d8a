package test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Postgres is a real PostgreSQL server of its own, reached through a socket
// below its directory and by nothing else. It runs as an account that is not
// root's, sorts texts as a language does, and knows a role "quire", who owns the
// database "quire" and has a password.
type Postgres struct {
	Dir      string
	Password string

	programs string
	as       *syscall.Credential
	cmd      *exec.Cmd
}

// pgPassword has what must be escaped in an address.
const pgPassword = "a word: / @"

// RunningPostgres is one that another process has started in a directory.
func RunningPostgres(dir string) (*Postgres, error) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil || len(found) == 0 {
		return nil, errors.New("PostgreSQL is missing: run scripts/setup test")
	}
	return &Postgres{Dir: dir, Password: pgPassword, programs: found[len(found)-1]}, nil
}

// NewPostgres makes and starts one in a temporary directory.
func NewPostgres() (*Postgres, error) {
	p, err := RunningPostgres("")
	if err != nil {
		return nil, err
	}
	// In memory where there is room: hundreds of transactions wait for a disk
	// otherwise. The path of a socket has at most 107 bytes.
	dir := "/tmp"
	var free syscall.Statfs_t
	if syscall.Statfs("/dev/shm", &free) == nil && free.Bavail*uint64(free.Bsize) > 1<<29 {
		dir = "/dev/shm"
	}
	if p.Dir, err = os.MkdirTemp(dir, "quire-pg"); err != nil {
		return nil, err
	}
	err = p.make()
	if err != nil {
		return nil, errors.Join(err, p.Remove())
	}
	return p, nil
}

func (p *Postgres) make() error {
	if os.Getuid() == 0 {
		u, err := user.Lookup("postgres")
		if err != nil {
			if u, err = user.Lookup("nobody"); err != nil {
				return err
			}
		}
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		p.as = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		if err := os.Chown(p.Dir, uid, gid); err != nil {
			return err
		}
	}
	if err := os.Chmod(p.Dir, 0o711); err != nil {
		return err
	}
	if err := p.run("initdb", "-N", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--locale-provider=icu", "--icu-locale=en", "-D", p.data()); err != nil {
		return err
	}
	conf := "listen_addresses = ''\nunix_socket_directories = '" + p.Dir + "'\nmax_connections = 60\nshared_buffers = 16MB\nlogging_collector = off\ndynamic_shared_memory_type = mmap\n"
	if err := errors.Join(
		os.WriteFile(p.data()+"/postgresql.auto.conf", []byte(conf), 0o644),
		os.WriteFile(p.data()+"/pg_hba.conf", []byte("local all quire scram-sha-256\nlocal all all trust\nlocal replication all trust\n"), 0o644),
	); err != nil {
		return err
	}
	if err := p.Start(); err != nil {
		return err
	}
	_, err := p.SQL("postgres", `CREATE ROLE quire LOGIN PASSWORD '`+p.Password+`'`, `CREATE DATABASE quire OWNER quire`)
	return err
}

func (p *Postgres) data() string { return filepath.Join(p.Dir, "data") }

func (p *Postgres) command(program string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(p.programs, program), args...)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/bin:/bin", "LANG=C.UTF-8"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: p.as}
	return cmd
}

func (p *Postgres) run(program string, args ...string) error {
	if out, err := p.command(program, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", program, err, out)
	}
	return nil
}

// Start starts it, again too, and returns when it takes connections. What a
// process before this one left must have ended first, so it is tried until then.
func (p *Postgres) Start() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for {
		log, err := os.Create(filepath.Join(p.Dir, "log"))
		if err != nil {
			return err
		}
		cmd := p.command("postgres", "-D", p.data())
		cmd.Stdout, cmd.Stderr = log, log
		cmd.SysProcAttr.Pdeathsig = syscall.SIGQUIT
		err = cmd.Start()
		log.Close()
		if err != nil {
			return err
		}
		ended := make(chan struct{})
		go func() { cmd.Wait(); close(ended) }()
		if p.ready(ctx, ended) {
			p.cmd = cmd
			return nil
		}
		if ctx.Err() != nil {
			cmd.Process.Kill()
			said, _ := os.ReadFile(filepath.Join(p.Dir, "log"))
			return fmt.Errorf("PostgreSQL does not start: %s", said)
		}
	}
}

func (p *Postgres) ready(ctx context.Context, ended chan struct{}) bool {
	for {
		select {
		case <-ctx.Done():
			return false
		case <-ended:
			return false
		case <-time.After(20 * time.Millisecond):
		}
		if p.run("pg_isready", "-q", "-h", p.Dir) == nil {
			return true
		}
	}
}

// Signal ends it: SIGKILL as a crash, SIGQUIT without waiting for anybody. It
// returns when the process is gone.
func (p *Postgres) Signal(s syscall.Signal) error {
	if p.cmd == nil {
		return nil
	}
	pid := p.cmd.Process.Pid
	if err := syscall.Kill(pid, s); err != nil {
		return err
	}
	p.cmd = nil
	for deadline := time.Now().Add(time.Minute); syscall.Kill(pid, 0) == nil; {
		if time.Now().After(deadline) {
			return fmt.Errorf("PostgreSQL (%d) does not end", pid)
		}
		<-time.After(5 * time.Millisecond)
	}
	return nil
}

// Remove ends it and removes its directory.
func (p *Postgres) Remove() error { return errors.Join(p.Signal(syscall.SIGQUIT), os.RemoveAll(p.Dir)) }

// SQL runs statements as the superuser and returns what they print.
func (p *Postgres) SQL(database string, statements ...string) (string, error) {
	args := []string{"-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", p.Dir, "-U", "postgres", "-d", database}
	for _, s := range statements {
		args = append(args, "-c", s)
	}
	out, err := p.command("psql", args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return strings.TrimSpace(string(out)), nil
}

// Address makes a place of its own for one test and returns its address, with
// the password.
func (p *Postgres) Address() (string, error) {
	schema := "t" + strings.ToLower(rand.Text())
	if _, err := p.SQL("quire", `CREATE SCHEMA `+schema+` AUTHORIZATION quire`); err != nil {
		return "", err
	}
	return p.URL("quire", true) + "&search_path=" + schema, nil
}

// URL is the address of a database for the role quire.
func (p *Postgres) URL(database string, password bool) string {
	u := url.URL{Scheme: "postgres", User: url.User("quire"), Path: "/" + database, RawQuery: url.Values{"host": {p.Dir}}.Encode()}
	if password {
		u.User = url.UserPassword("quire", p.Password)
	}
	return u.String()
}

// PID is the process that takes connections.
func (p *Postgres) PID() int { return p.cmd.Process.Pid }
