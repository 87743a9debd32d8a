package lab

import (
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"slices"
	"time"

	"quire"
	"quire/apps/kernel"
)

// A cell runs while nobody may be looking. What it says is kept until the page
// that asked has it, or, when that page is away, is in the notebook's file: by the
// cell's ID, which pages send along with what they ask (metadata.cellId). Such a
// page can come back and go on, another one can take the cell over, and neither
// has to: the cell ends without them.
type cell struct {
	request string // its msg_id
	client  string // the page that asked
	id      string
	seq     int64 // when it was asked
	last    string
	count   any // the number in brackets
	outputs []object
	clear   bool // what comes next replaces the outputs
	size    int
	cut     bool
	ended   int64 // the last that belongs to it; 0 while it runs
	idle    bool
	replied bool
	absent  bool // the page is away: outputs go into the file
	dirty   bool // the file does not have them
}

// cells are those of one kernel, by their requests. The kernel's mutex guards them.
type cells struct {
	open    map[string]*cell
	writing bool
	again   bool
	timed   bool // a write is due
}

const (
	// absentAfter is how long a page whose connection broke may take to come back
	// before outputs are written for it.
	absentAfter = 5 * time.Second
	// writeEvery is how often a cell that goes on is written.
	writeEvery = 5 * time.Second
	// cellBytes is how much output is kept of one cell for a page that is away.
	cellBytes = 16 << 20
)

// begin notes a request to run a cell. r.mu is held.
func (r *running) begin(seq int64, m *kernel.Message, client string) {
	h := m.Head()
	var meta struct {
		Cell string `json:"cellId"`
	}
	if h.Type != "execute_request" || json.Unmarshal(m.Metadata, &meta) != nil || meta.Cell == "" {
		return
	}
	if r.cells.open == nil {
		r.cells.open = map[string]*cell{}
	}
	r.cells.open[h.ID] = &cell{request: h.ID, client: client, id: meta.Cell, seq: seq}
	if !r.here(client) {
		r.expect(client)
	}
}

// expect waits for a page that is away; then what it asked for is written. r.mu is
// held.
func (r *running) expect(client string) {
	time.AfterFunc(absentAfter, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if !r.here(client) {
			r.absent(client)
		}
	})
}

// absent has the outputs of a page's cells written. r.mu is held.
func (r *running) absent(client string) {
	for _, c := range r.cells.open {
		if c.client == client && !c.absent {
			c.absent, c.dirty = true, true
			r.due(true)
		}
	}
}

// back leaves a page's cells to it again. r.mu is held.
func (cs *cells) back(client string) {
	for _, c := range cs.open {
		if c.client == client {
			c.absent = false
		}
	}
}

// arrived forgets the cells of a page that has all of them. r.mu is held.
func (cs *cells) arrived(client string, seq int64) {
	for id, c := range cs.open {
		if c.client == client && c.ended != 0 && c.ended <= seq && !c.absent {
			delete(cs.open, id)
		}
	}
}

// safe is the newest entry that no cell needs any more, at most seq.
func (cs *cells) safe(seq int64) int64 {
	for _, c := range cs.open {
		seq = min(seq, c.seq-1)
	}
	return seq
}

// output takes what a kernel says about cells. r.mu is held.
func (r *running) output(seq int64, m *kernel.Message) {
	if len(r.cells.open) == 0 {
		return
	}
	c := r.cells.open[m.Cause().ID]
	if c == nil {
		return
	}
	c.hear(m)
	if c.idle && c.replied && c.ended == 0 {
		c.ended = seq
	}
	if c.absent {
		c.dirty = true
		r.due(c.ended != 0)
	}
}

// died ends all cells of a kernel that has a new life, or none. r.mu is held.
func (r *running) died(s kernel.State, seq int64) {
	switch s.State {
	case kernel.AutoRestarting, kernel.Restarting, kernel.Dead:
	default:
		return
	}
	for _, c := range r.cells.open {
		if c.ended != 0 {
			continue
		}
		c.ended = seq
		if s.Reason != "" {
			c.add(object{"output_type": "stream", "name": "stderr", "text": "[Quire: the kernel died: " + s.Reason + ".]\n"})
		}
		if c.absent {
			c.dirty = true
			r.due(true)
		}
	}
}

// hear takes one message about the cell, by the rules that front ends follow
// (Jupyter's messaging protocol, "Messages on the IOPub channel").
func (c *cell) hear(m *kernel.Message) {
	h := m.Head()
	if m.Channel != kernel.IOPub {
		c.replied = c.replied || h.Type == "execute_reply"
		return
	}
	c.last = h.ID
	v, err := decode(m.Content)
	content, ok := v.(object)
	if err != nil || !ok {
		return
	}
	switch h.Type {
	case "status":
		c.idle = c.idle || content["execution_state"] == kernel.Idle
	case "execute_input":
		c.count = content["execution_count"]
	case "stream":
		c.add(object{"output_type": "stream", "name": content["name"], "text": content["text"]})
	case "display_data", "execute_result":
		out := object{"output_type": h.Type, "data": content["data"], "metadata": content["metadata"]}
		if h.Type == "execute_result" {
			out["execution_count"] = content["execution_count"]
		}
		if t, ok := content["transient"].(object); ok {
			out["transient"] = t // for updates, and left out of the file
		}
		c.add(out)
	case "update_display_data":
		id := displayOf(content)
		for _, o := range c.outputs {
			if id != "" && displayOf(o) == id {
				o["data"], o["metadata"] = content["data"], content["metadata"]
			}
		}
	case "error":
		c.add(object{"output_type": "error", "ename": content["ename"], "evalue": content["evalue"], "traceback": content["traceback"]})
	case "clear_output":
		if content["wait"] == true {
			c.clear = true
		} else {
			c.outputs, c.size, c.clear, c.cut = nil, 0, false, false
		}
	}
}

func displayOf(o object) string {
	t, _ := o["transient"].(object)
	id, _ := t["display_id"].(string)
	return id
}

// add adds an output. Texts of one stream that follow one another are one output,
// and there is an end to what is kept.
func (c *cell) add(o object) {
	if c.clear {
		c.outputs, c.size, c.clear, c.cut = nil, 0, false, false
	}
	text, _ := o["text"].(string)
	n := len(text)
	if data, ok := o["data"].(object); ok {
		b, _ := json.Marshal(data)
		n = len(b)
	}
	if c.size += n; c.size > cellBytes {
		if !c.cut {
			c.cut = true
			c.outputs = append(c.outputs, object{"output_type": "stream", "name": "stderr", "text": "[Quire: nobody was looking, and there was more output than is kept. What came after this is left out.]\n"})
		}
		return
	}
	if last := len(c.outputs) - 1; last >= 0 && text != "" && c.outputs[last]["output_type"] == "stream" && c.outputs[last]["name"] == o["name"] {
		before, _ := c.outputs[last]["text"].(string)
		c.outputs[last] = object{"output_type": "stream", "name": o["name"], "text": before + text}
		return
	}
	c.outputs = append(c.outputs, o)
}

// file is what the notebook's file has of the outputs.
func (c *cell) file() []any {
	out := make([]any, len(c.outputs))
	for i, o := range c.outputs {
		o = clone(o)
		delete(o, "transient")
		out[i] = o
	}
	return out
}

// due has what is dirty written, now or soon. r.mu is held.
func (r *running) due(now bool) {
	if now {
		if r.cells.writing {
			r.cells.again = true
			return
		}
		r.cells.writing = r.ks.work(r.write)
		return
	}
	if !r.cells.timed {
		r.cells.timed = true
		time.AfterFunc(writeEvery, func() {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.cells.timed = false
			r.due(true)
		})
	}
}

// write writes what pages that are away have not got into the notebook.
func (r *running) write() {
	for {
		path := r.ks.s.sessions.notebook(r.id)
		r.mu.Lock()
		r.cells.again = false
		type page struct {
			outputs []any
			count   any
			cell    *cell
		}
		pages := map[string]page{} // by the cell's ID: the newest run counts
		var done []*cell
		list := []*cell{}
		for _, c := range r.cells.open {
			list = append(list, c)
		}
		slices.SortFunc(list, func(a, b *cell) int { return int(min(max(a.seq-b.seq, -1), 1)) })
		for _, c := range list {
			if c.absent && c.dirty {
				c.dirty = false
				pages[c.id] = page{c.file(), c.count, c}
				done = append(done, c)
			}
		}
		r.mu.Unlock()
		var err error
		if path != "" && len(pages) > 0 {
			err = r.ks.s.rewriteNotebook(path, func(nb *notebook) (changed bool) {
				for id, p := range pages {
					if in := nb.cell(id); in != nil && isCode(in) {
						in["outputs"], in["execution_count"] = clone(p.outputs), p.count
						changed = true
					}
				}
				return changed
			})
		}
		r.mu.Lock()
		later := false
		for _, c := range done {
			gone := quire.KindOf(err) == quire.KindNotFound || quire.KindOf(err) == quire.KindInvalid || errors.Is(err, os.ErrNotExist)
			switch {
			case err != nil && !gone: // kept, and tried again
				c.dirty, later = true, true
			case c.ended != 0 && c.absent && !c.dirty: // it may have said more meanwhile
				delete(r.cells.open, c.request)
			}
		}
		if err != nil {
			r.ks.s.log.Warn("outputs could not be written into their notebook", "path", path, "err", err)
		}
		r.settle()
		if later {
			r.due(false)
		}
		if !r.cells.again {
			r.cells.writing = false
			r.mu.Unlock()
			return
		}
		r.mu.Unlock()
	}
}

// settleCells writes what cells of a notebook have said and nobody has got, before
// somebody reads it.
func (s *server) settleCells(path string) {
	k, err := s.kernels.find(s.sessions.kernel(path))
	if err != nil {
		return
	}
	k.mu.Lock()
	dirty := false
	for _, c := range k.cells.open {
		if !k.here(c.client) && !c.absent {
			c.absent, c.dirty = true, true
		}
		dirty = dirty || c.absent && c.dirty
	}
	if !dirty || k.cells.writing {
		k.mu.Unlock()
		return
	}
	k.cells.writing = true
	k.mu.Unlock()
	k.write()
}

// cellRoutes are for our own part of the front end: a page takes over the cells of
// a kernel that other pages have left.
func (s *server) cellRoutes(r routes) {
	r.on("POST /api/quire/cells", func(w http.ResponseWriter, req *http.Request) error {
		var in struct {
			Kernel string `json:"kernel"`
			Client string `json:"client"` // the session_id of its connection
		}
		if err := ask(w, req, 4<<10, &in); err != nil {
			return err
		}
		k, err := s.kernels.find(in.Kernel)
		if err != nil {
			return err
		}
		k.mu.Lock()
		defer k.mu.Unlock()
		if !k.here(in.Client) {
			return quire.Invalid("client", "Connect to the kernel first.")
		}
		out := []object{}
		for _, c := range k.cells.open {
			if k.here(c.client) { // this page, or another one of the person
				continue
			}
			c.client, c.absent = in.Client, false
			k.asked.who[c.request] = in.Client
			out = append(out, object{"cell": c.id, "request": c.request, "last": c.last, "outputs": c.file(), "execution_count": c.count, "ended": c.ended != 0})
		}
		slices.SortFunc(out, func(a, b object) int {
			return int(min(max(k.cells.open[a["request"].(string)].seq-k.cells.open[b["request"].(string)].seq, -1), 1))
		})
		answer(w, http.StatusOK, object{"cells": out})
		return nil
	})
}
