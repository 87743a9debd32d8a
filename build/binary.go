package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// notCompiled are directories that no Go file embeds.
var notCompiled = map[string]bool{
	".git": true, "node_modules": true, "bin": true, "docs": true, "decisions": true,
	"test-results": true, "web/ui": true, labUI: true, "test": true, "bench": true,
}

func (b *builder) binary() (string, error) {
	version := b.version()
	sum, err := b.fingerprint(notCompiled, []string{"."}, runtime.Version(), version, b.output)
	if err != nil {
		return "", err
	}
	out := b.path(b.output)
	if _, err := os.Stat(out); err == nil && b.stamped("binary", sum) {
		return "unchanged", nil
	}
	if found, _ := filepath.Glob(b.path("cmd", "quire", "*.go")); len(found) == 0 {
		return "", errors.New("cmd/quire has no Go files")
	}
	cmd := exec.Command("go", "build", "-trimpath", "-o", out, "-ldflags", "-s -w -X main.version="+version, "./cmd/quire")
	cmd.Dir = b.root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("go build failed (%w); it said:\n%s", err, strings.TrimSpace(said.String()))
	}
	if err := b.stamp("binary", sum); err != nil {
		return "", err
	}
	info, err := os.Stat(out)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s, %.1f MB, version %s", b.output, float64(info.Size())/1e6, version), nil
}

// version names the commit, with a plus sign when the clone has changes on top.
// A tree without git (a source archive) is "dev".
func (b *builder) version() string {
	if v := os.Getenv("QUIRE_VERSION"); v != "" {
		return v
	}
	cmd := exec.Command("git", "describe", "--tags", "--always", "--dirty=+")
	cmd.Dir = b.root
	out, err := cmd.Output()
	if v := strings.TrimSpace(string(out)); err == nil && v != "" {
		return v
	}
	return "dev"
}
