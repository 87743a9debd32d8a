package lab

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// maxTrusted is how many contents of notebooks a person's list holds.
const maxTrusted = 20000

// trust is what a person has trusted: contents of notebooks, by their digest,
// whose HTML and scripts the page may run. The list is in the person's home,
// where nobody else writes, so it needs no signatures. Whoever changes a notebook
// by one byte makes another one that nobody has trusted yet.
type trust struct {
	file  string
	mu    sync.Mutex
	read  time.Time // modification of the file when it was read
	known map[string]bool
	order []string
}

func digestOf(nb *notebook) string {
	sum := sha256.Sum256(nb.bytes())
	return hex.EncodeToString(sum[:])
}

// knows reports whether this person trusted exactly this notebook.
func (t *trust) knows(nb *notebook) bool {
	d := digestOf(nb)
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.known[d] {
		t.load() // another process of the same person may have written
	}
	return t.known[d]
}

func (t *trust) load() {
	info, err := os.Stat(t.file)
	if err != nil || info.ModTime().Equal(t.read) {
		return
	}
	b, err := os.ReadFile(t.file)
	if err != nil {
		return
	}
	t.read, t.known, t.order = info.ModTime(), map[string]bool{}, strings.Fields(string(b))
	for _, d := range t.order {
		t.known[d] = true
	}
}

// sign notes that this person trusts a notebook as it is.
func (t *trust) sign(nb *notebook) error {
	d := digestOf(nb)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.load(); t.known[d] {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(t.file), 0o700); err != nil {
		return err
	}
	if len(t.order) >= maxTrusted {
		rest := strings.Join(t.order[len(t.order)-maxTrusted/2:], "\n") + "\n"
		temp := t.file + ".new"
		if err := os.WriteFile(temp, []byte(rest), 0o600); err != nil {
			return err
		}
		if err := os.Rename(temp, t.file); err != nil {
			return err
		}
	}
	f, err := os.OpenFile(t.file, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(d + "\n")
	if e := f.Close(); err == nil {
		err = e
	}
	t.load()
	return err
}

// mark tells the page whether it may run what outputs say.
func (nb *notebook) mark(trusted bool) {
	for _, c := range nb.cells() {
		if m, ok := c["metadata"].(object); ok && isCode(c) {
			m["trusted"] = trusted
		}
	}
}

// trusted reports whether the page ran every cell of this notebook itself, or has
// nothing in it that could run: then its content may be signed.
func (nb *notebook) trusted() bool {
	for _, c := range nb.cells() {
		if !isCode(c) {
			continue
		}
		if m, _ := c["metadata"].(object); m["trusted"] == true {
			continue
		}
		list, _ := c["outputs"].([]any)
		if len(list) != len(outputs(c)) {
			return false
		}
		for _, o := range outputs(c) {
			if o["output_type"] != "execute_result" && o["output_type"] != "display_data" {
				continue
			}
			for k := range o {
				if k != "output_type" && k != "execution_count" && k != "metadata" {
					return false
				}
			}
		}
	}
	return true
}
