package compute

import (
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"quire"
)

// own is which apps a project's own environment has. The node cannot see into
// projects, so each session's keep, which runs as a member of the project, says
// when it starts and when it ends what is there. Nothing is looked for on the
// way of a click, and nothing is lost when we start anew.

func (c *Compute) ownFile() string { return filepath.Join(c.c.StateDir, "environments.json") }

func (c *Compute) loadOwn() error {
	c.own = map[quire.ProjectID][]string{}
	b, err := os.ReadFile(c.ownFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && json.Unmarshal(b, &c.own) != nil {
		// The next session of each project tells it again.
		c.c.Log.Error("what environments have cannot be read and is forgotten", "file", c.ownFile())
		c.own = map[quire.ProjectID][]string{}
	}
	return err
}

// maxOwn bounds what one project can have us remember.
const maxOwn = 32

// learn takes a keep's word. It is a member's: what it names counts only where the
// node has such an app; nil is no word.
func (c *Compute) learn(p quire.ProjectID, has []string) {
	if has == nil {
		return
	}
	names := []string{}
	for _, name := range has[:min(len(has), maxOwn)] {
		if quire.CheckAppName(name) == nil && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if slices.Equal(c.own[p], names) {
		return
	}
	if len(names) == 0 {
		delete(c.own, p)
	} else {
		c.own[p] = names
	}
	if err := writeFile(c.ownFile(), c.own); err != nil {
		c.c.Log.Error("what an environment has could not be written down", "project", p, "err", err)
	}
	for w := range c.watchers {
		w.own[p] = true
	}
	c.tell()
}

// look reads what a session's keep found last.
func (c *Compute) look(r record) {
	d, err := openDir(filepath.Join(c.c.RunDir, "s"), string(r.ID), r.UID)
	if err != nil {
		return
	}
	defer d.Close()
	var state struct {
		Has []string `json:"has"`
	}
	if d.readJSON("state.json", &state) == nil {
		c.learn(r.Project, state.Has)
	}
}

// allOwn is for a full report, someOwn for what changed. c.mu is held.
func (c *Compute) allOwn() map[quire.ProjectID][]string { return maps.Clone(c.own) }

func (c *Compute) someOwn(w *watcher) (changed map[quire.ProjectID][]string) {
	for p := range w.own {
		if changed == nil {
			changed = map[quire.ProjectID][]string{}
		}
		changed[p] = c.own[p]
	}
	clear(w.own)
	return changed
}
