package main

import (
	"errors"
	"os"
	"os/exec"
)

// packages makes node_modules what package-lock.json says. The stamp lives
// inside node_modules, so it goes when that does.
func (b *builder) packages() (string, error) {
	lockFile, err := os.ReadFile(b.path("package-lock.json"))
	if err != nil {
		return "", err
	}
	want := digest(lockFile)
	stamp := b.path("node_modules", ".quire-lock")
	if have, err := os.ReadFile(stamp); err == nil && string(have) == want {
		return "unchanged", nil
	}
	if err := npmInstall(b.root); err != nil {
		return "", err
	}
	if err := writeFile(stamp, []byte(want)); err != nil {
		return "", err
	}
	return "npm ci", nil
}

// npmInstall makes node_modules of a directory what its lock file says; more are
// words for npm. No script of a package is run.
func npmInstall(dir string, more ...string) error {
	npm, err := exec.LookPath("npm")
	if err != nil {
		return errors.New("npm is missing: install Node.js 20 or newer with npm (Debian: apt-get install --no-install-recommends nodejs npm), then run this again")
	}
	cmd := exec.Command(npm, append([]string{"ci", "--ignore-scripts", "--no-audit", "--no-fund"}, more...)...)
	cmd.Dir = dir
	return tell(cmd, "npm ci")
}
