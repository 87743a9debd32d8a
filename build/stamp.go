package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// A stamp says what a step's inputs looked like when it last succeeded.

func (b *builder) stamped(name, sum string) bool {
	old, err := os.ReadFile(filepath.Join(b.state, name))
	return err == nil && string(old) == sum
}

func (b *builder) stamp(name, sum string) error {
	if err := os.MkdirAll(b.state, 0o755); err != nil {
		return err
	}
	return writeFile(filepath.Join(b.state, name), []byte(sum))
}

// fingerprint is a digest of the name, size and modification time of every file
// below the given paths, and of the extra words. Reading contents would cost
// more than the steps it saves. Directories named in skip are left out.
func (b *builder) fingerprint(skip map[string]bool, paths []string, words ...string) (string, error) {
	h := sha256.New()
	for _, w := range words {
		fmt.Fprintf(h, "%q\n", w)
	}
	for _, p := range paths {
		err := filepath.WalkDir(b.path(p), func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				if errors.Is(err, fs.ErrNotExist) {
					return nil
				}
				return err
			}
			rel, _ := filepath.Rel(b.root, path)
			if d.IsDir() {
				if skip[rel] {
					return filepath.SkipDir
				}
				return nil
			}
			info, err := d.Info()
			if errors.Is(err, fs.ErrNotExist) {
				return nil // an editor's temporary file
			}
			if err != nil {
				return err
			}
			fmt.Fprintf(h, "%q %d %d %o\n", rel, info.Size(), info.ModTime().UnixNano(), info.Mode())
			return nil
		})
		if err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// digest is the short name of a content, in the alphabet of the bundler's hashes.
func digest(content []byte) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
	sum := sha256.Sum256(content)
	var s strings.Builder
	for _, c := range sum[:8] {
		s.WriteByte(alphabet[c&31])
	}
	return s.String()
}

// writeFile replaces a file whole, so that a reader or a build that was cut off
// never leaves half of one.
func writeFile(path string, content []byte) error {
	tmp := path + ".new"
	if err := os.WriteFile(tmp, content, 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}
