package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
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
	npm, err := exec.LookPath("npm")
	if err != nil {
		return "", errors.New("npm is missing: install Node.js 20 or newer with npm (Debian: apt-get install --no-install-recommends nodejs npm), then run this again")
	}
	cmd := exec.Command(npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	cmd.Dir = b.root
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("npm ci failed (%w); it said:\n%s", err, strings.TrimSpace(said.String()))
	}
	if err := writeFile(stamp, []byte(want)); err != nil {
		return "", err
	}
	return "npm ci", nil
}
