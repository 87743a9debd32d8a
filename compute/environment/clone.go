package environment

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"quire"
)

// CheckURL says in a sentence what is wrong with an address to clone from, or
// nil. Other schemes than these can run programs or read the node's files.
func CheckURL(address string) error {
	u, err := url.Parse(address)
	if err != nil || strings.ContainsFunc(address, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return quire.Invalid("source", "This is not an address to clone from.")
	}
	switch u.Scheme {
	case "https", "http", "ssh", "git":
	default:
		return quire.Invalid("source", "The address to clone from starts with https://, http://, ssh:// or git://.")
	}
	if u.Host == "" || strings.HasPrefix(u.Host, "-") || u.User != nil && strings.HasPrefix(u.User.Username(), "-") {
		return quire.Invalid("source", "The address to clone from has no host.")
	}
	return nil
}

// staged is where a clone is made before it moves up: git needs an empty
// directory, and a clone that was cut off must not look like a project.
const staged = ".quire-clone"

// clone fetches a repository into the project. The repository's own directory
// moves last, so its presence says that all of it is there.
func clone(ctx context.Context, o options) (Result, error) {
	if err := CheckURL(o.url); err != nil {
		return Result{}, err
	}
	root, err := os.OpenRoot(o.dir)
	if err != nil {
		return Result{}, quire.Failed("The project's directory cannot be opened: "+words(err)+".", err)
	}
	defer root.Close()
	if _, err := root.Lstat(".git"); err == nil {
		return Result{Already: true, Note: "already cloned"}, nil
	}
	if err := root.RemoveAll(staged); err != nil {
		return Result{}, quire.Failed("An unfinished clone could not be removed: "+words(err)+".", err)
	}
	log := &tail{limit: logTail}
	if err := git(ctx, log, "clone", "--no-hardlinks", "--no-recurse-submodules", "--", o.url, filepath.Join(o.dir, staged)); err != nil {
		_ = root.RemoveAll(staged)
		return Result{Log: log.b.String()}, quire.Failed("The clone failed: "+lastLine(log.b.String(), err)+".", err)
	}
	moved, kept, err := moveUp(root)
	if err != nil {
		return Result{Log: log.b.String()}, quire.Failed("The clone could not be put in place: "+words(err)+".", err)
	}
	note := fmt.Sprintf("cloned %d entries", moved)
	if kept > 0 {
		note += fmt.Sprintf(", %d of your own left as they were", kept)
	}
	return Result{Note: note, Log: log.b.String()}, nil
}

func git(ctx context.Context, out *tail, args ...string) error {
	safe := []string{
		"-c", "protocol.ext.allow=never", "-c", "protocol.file.allow=never", "-c", "core.fsmonitor=false",
		"-c", "core.hooksPath=/dev/null", "-c", "credential.helper=", "-c", "advice.detachedHead=false",
	}
	c := exec.CommandContext(ctx, "/usr/bin/git", append(safe, args...)...)
	c.Dir = "/" // not in the project: a repository there has its own settings
	c.Stdout, c.Stderr = out, out
	c.Env = append(os.Environ(),
		"GIT_TERMINAL_PROMPT=0", "GIT_ALLOW_PROTOCOL=https:http:ssh:git", "GIT_ASKPASS=/bin/false", "SSH_ASKPASS=/bin/false",
		"GIT_SSH_COMMAND=ssh -o BatchMode=yes -o StrictHostKeyChecking=accept-new -o ConnectTimeout=20", "GIT_HTTP_LOW_SPEED_LIMIT=1", "GIT_HTTP_LOW_SPEED_TIME=60")
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }
	c.WaitDelay = 5 * time.Second
	return c.Run()
}

func lastLine(text string, err error) string {
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		return "git is not installed on the node"
	}
	lines := strings.Split(strings.TrimSpace(text), "\n")
	line := strings.TrimSpace(lines[len(lines)-1])
	if line == "" {
		return err.Error()
	}
	return strings.TrimSuffix(line, ".")
}

// moveUp takes everything out of the staging directory. What the project has
// already stays as it is.
func moveUp(root *os.Root) (moved, kept int, err error) {
	f, err := root.Open(staged)
	if err != nil {
		return 0, 0, err
	}
	names, err := f.Readdirnames(-1)
	f.Close()
	if err != nil {
		return 0, 0, err
	}
	move := func(name string) error {
		if _, err := root.Lstat(name); err == nil {
			kept++
			return nil
		}
		moved++
		return root.Rename(filepath.Join(staged, name), name)
	}
	for _, name := range names {
		if name == ".git" {
			continue
		}
		if err := move(name); err != nil {
			return moved, kept, err
		}
	}
	if err := move(".git"); err != nil {
		return moved, kept, err
	}
	return moved, kept, root.RemoveAll(staged)
}
