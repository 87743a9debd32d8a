package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// An account is a Linux account as the directory knows it.
type account struct {
	Name     string
	UID, GID uint32
	Home     string
}

// lookUp asks getent, which knows LDAP and SSSD too; a static binary's own
// look-up sees only /etc/passwd.
func lookUp(name string) (account, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "getent", "passwd", name).Output()
	var ee *exec.ExitError
	if errors.As(err, &ee) && ee.ExitCode() == 2 {
		return account{}, os.ErrNotExist
	}
	if err != nil {
		return account{}, fmt.Errorf("getent passwd %s: %w", name, err)
	}
	f := strings.Split(strings.TrimSpace(string(out)), ":")
	if len(f) < 7 {
		return account{}, fmt.Errorf("getent passwd %s: unexpected answer", name)
	}
	uid, err1 := strconv.ParseUint(f[2], 10, 32)
	gid, err2 := strconv.ParseUint(f[3], 10, 32)
	return account{Name: f[0], UID: uint32(uid), GID: uint32(gid), Home: f[5]}, errors.Join(err1, err2)
}

// lookUpGroup asks getent for the number of a group.
func lookUpGroup(name string) (uint32, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "getent", "group", "--", name).Output()
	if err != nil {
		return 0, fmt.Errorf("there is no group %q on this machine", name)
	}
	f := strings.Split(strings.TrimSpace(string(out)), ":")
	if len(f) < 3 {
		return 0, fmt.Errorf("getent group %s: unexpected answer", name)
	}
	gid, err := strconv.ParseUint(f[2], 10, 32)
	return uint32(gid), err
}

// ensureAccount finds a role's account or makes it: without a login and without
// a group in common with the others.
func ensureAccount(name string) (account, error) {
	a, err := lookUp(name)
	if !errors.Is(err, os.ErrNotExist) {
		return a, err
	}
	args := []string{"--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin", name}
	if out, err := exec.Command("useradd", args...).CombinedOutput(); err != nil {
		return a, fmt.Errorf("making the account %s: %s: %w", name, bytes.TrimSpace(out), err)
	}
	return lookUp(name)
}

// serviceAccount is the account of a role, where every role has its own.
func (c Config) serviceAccount(role string) string { return c.ServiceAccounts + "-" + role }
