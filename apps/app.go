// Package apps holds what the apps that are ours begin with alike: the session's
// socket and the prefix they are seen below.
package apps

import (
	"errors"
	"fmt"
	"net"
	"os"
	"regexp"
	"strings"
	"syscall"
	"time"
	"unicode"
)

// Listen makes the session's socket with mode 0660 whatever the umask is: the
// umask can only take bits away, so it is set for the moment.
func Listen(path string) (net.Listener, error) {
	// What a killed predecessor left is in the way; a living one is not.
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() == os.ModeSocket {
		if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
			c.Close()
			return nil, fmt.Errorf("something is listening on %s already", path)
		}
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	old := syscall.Umask(0o117)
	defer syscall.Umask(old)
	return net.Listen("unix", path)
}

var prefixForm = regexp.MustCompile(`^(/[A-Za-z0-9][A-Za-z0-9._-]*)+$`)

// Prefix returns a URL prefix without its last slash, or says what is wrong.
func Prefix(prefix string) (string, error) {
	prefix = strings.TrimRight(prefix, "/")
	if prefix != "" && !prefixForm.MatchString(prefix) {
		return "", errors.New("--url-prefix is a path like /terminal")
	}
	return prefix, nil
}

// Plain keeps what a person can see of a name that others chose: no control
// characters, nothing that turns the direction of writing, at most n characters.
func Plain(s string, n int) string {
	s = strings.Join(strings.Fields(strings.ToValidUTF8(s, "")), " ")
	var b strings.Builder
	for _, c := range s {
		if n == 0 {
			break
		}
		if unicode.IsPrint(c) {
			b.WriteRune(c)
			n--
		}
	}
	return strings.TrimSpace(b.String())
}
