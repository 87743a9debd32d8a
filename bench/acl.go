package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"quire"
)

const (
	aclFiles  = 60_000
	aclPerDir = 100
	aclRounds = 3
	aclOwner  = 20001 // any account that is nobody's: a number is enough
)

// workshop is a directory on the disk with a program that every account can run
// and directories that belong to aclOwner.
func workshop(dirs ...string) (base string, err error) {
	if os.Geteuid() != 0 {
		return "", errors.New("needs root, to run everything as another account")
	}
	if base, err = os.MkdirTemp("/var/tmp", "quire-bench-"); err != nil {
		return "", err
	}
	if out, err := exec.Command("cp", "bin/quire", base).CombinedOutput(); err != nil {
		return "", errors.Join(fmt.Errorf("%s: run go run ./build first", out), os.RemoveAll(base))
	}
	for _, dir := range dirs {
		err = errors.Join(err, os.Mkdir(base+"/"+dir, 0o755), os.Lchown(base+"/"+dir, aclOwner, aclOwner))
	}
	if err = errors.Join(err, os.Chmod(base, 0o755)); err != nil {
		return "", errors.Join(err, os.RemoveAll(base))
	}
	return base, nil
}

// benchACL compares the repair of a project's permissions with setfacl -R over
// the same tree: once with everything wrong, once with a hundredth of the files
// closed by a chmod since the last repair. Both run as the files' owner.
func benchACL(ctx context.Context) error {
	base, err := workshop("home", "project")
	if err != nil {
		return err
	}
	defer os.RemoveAll(base)
	self, home, project := base+"/quire", base+"/home", base+"/project"
	as := func(args ...string) (time.Duration, string, error) {
		c := exec.CommandContext(ctx, args[0], args[1:]...)
		c.Dir, c.Env = "/", []string{"HOME=" + home, "PATH=/usr/bin:/bin"}
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: aclOwner, Gid: aclOwner}}
		var out, bad bytes.Buffer
		c.Stdout, c.Stderr = &out, &bad
		began := time.Now()
		err := c.Run()
		took := time.Since(began)
		if err != nil {
			err = fmt.Errorf("%v: %w: %s%s", args, err, out.Bytes(), bad.Bytes())
		}
		return took, out.String(), err
	}
	note("making %d files", aclFiles)
	if _, _, err := as("/usr/bin/python3", "-c", fmt.Sprintf(`
import os
for d in range(%d):
    os.makedirs(f"%s/d{d//30}/e{d}")
    for f in range(%d):
        open(f"%s/d{d//30}/e{d}/f{f}", "w").close()
`, aclFiles/aclPerDir, project, aclPerDir, project)); err != nil {
		return err
	}
	team, err := json.Marshal(quire.TeamArgs{Editors: []uint32{20002, 20003}, Viewers: []uint32{20004}})
	if err != nil {
		return err
	}
	repair := func(more ...string) (time.Duration, error) {
		args := append([]string{self, "helper", "repair", "--dir", project, "--team", string(team), "--owner", fmt.Sprint(aclOwner), "--group", "7",
			"--project", "p_aaaaaaaaaaaaaaaa"}, more...)
		took, out, err := as(args...)
		note("repair: %.2f s %s", took.Seconds(), out)
		return took, err
	}
	set := func() (time.Duration, error) {
		list := "u:20002:rwX,u:20003:rwX,u:20004:r-X,g::rwX,o::---"
		took, _, err := as("/usr/bin/setfacl", "-R", "-m", list+",d:u:20002:rwx,d:u:20003:rwx,d:u:20004:r-x,d:o::---", project)
		note("setfacl -R: %.2f s", took.Seconds())
		return took, err
	}
	clear := func() error {
		if _, _, err := as("/usr/bin/setfacl", "-R", "-b", project); err != nil {
			return err
		}
		_, _, err := as("/bin/chmod", "-R", "u=rwX,go=", project)
		return err
	}
	var full, changed, idle, all []float64
	for range aclRounds {
		if err := clear(); err != nil {
			return err
		}
		took, err := set()
		if err != nil {
			return err
		}
		all = append(all, took.Seconds())
		if err := clear(); err != nil {
			return err
		}
		if took, err = repair("--full"); err != nil {
			return err
		}
		full = append(full, took.Seconds())
		// What the repair itself changed is looked at once more, here.
		if _, err := repair(); err != nil {
			return err
		}
		pause := time.NewTimer(1100 * time.Millisecond) // beyond the slack for coarse clocks
		select {
		case <-pause.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		if _, err := repair(); err != nil {
			return err
		}
		if took, err = repair(); err != nil {
			return err
		}
		idle = append(idle, took.Seconds())
		if _, _, err := as("/usr/bin/find", project, "-name", "f7", "-exec", "/bin/chmod", "600", "{}", "+"); err != nil {
			return err
		}
		if took, err = repair(); err != nil {
			return err
		}
		changed = append(changed, took.Seconds())
	}
	report("full_repair_vs_setfacl", median(full), "s", median(all))
	report("incremental_repair_vs_setfacl", median(changed), "s", median(all))
	report("idle_repair_vs_setfacl", median(idle), "s", median(all))
	return nil
}
