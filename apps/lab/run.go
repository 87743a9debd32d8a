package lab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"quire"
	"quire/apps/kernel"
)

// A Run runs all cells of a notebook without a browser, as the app does for pages
// that are away: with the kernel that the notebook names, each cell's outputs in
// the file as soon as it ends.
type Run struct {
	Path   string
	Kernel string        // instead of the one that the notebook names
	Limit  time.Duration // for each cell, 0 for none
	On     bool          // go on after a cell that failed
	Out    io.Writer     // what happens, for people
}

// againAfter is when a cell that did not hear an interrupt is interrupted again.
const againAfter = 2 * time.Second

// Do runs the notebook. The error says which cell failed, and how.
func (run Run) Do(ctx context.Context) error {
	full, err := filepath.Abs(run.Path)
	if err != nil {
		return err
	}
	dir, name := filepath.Split(full)
	state, err := os.MkdirTemp("", "quire") // a socket's path is short
	if err != nil {
		return err
	}
	defer os.RemoveAll(state)
	s, err := newServer(config{
		project: dir, home: os.Getenv("HOME"), state: state, prefix: cmp.Or(os.Getenv("CONDA_PREFIX"), os.Getenv("VIRTUAL_ENV")), python: "/usr/bin/python3",
		log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})),
	})
	if err != nil {
		return err
	}
	defer s.close()
	c, err := s.tree.Read(name, maxParsed)
	if err != nil {
		return err
	}
	nb, err := readNotebook(c.Bytes)
	if err != nil {
		return err
	}
	wanted, _ := nb.metadata()["kernelspec"].(object)
	named, _ := wanted["name"].(string)
	spec, err := s.spec(cmp.Or(run.Kernel, named), name)
	if err != nil {
		return err
	}
	return s.runAll(ctx, run, name, spec, nb)
}

func (s *server) runAll(ctx context.Context, run Run, name string, spec kernel.Spec, nb *notebook) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	heard := make(chan kernel.Entry, 1024)
	done := make(chan struct{})
	defer close(done)
	h, _, err := kernel.Reach(ctx, s.state, exe, func(_ string, e kernel.Entry) {
		select {
		case heard <- e:
		case <-done:
		}
	}, func(error) {})
	if err != nil {
		return err
	}
	defer func() {
		h.Close()
		_ = syscall.Kill(h.PID(), syscall.SIGTERM) // and its kernel with it
	}()
	if err := h.Start(ctx, spec); err != nil {
		return err
	}
	total := 0
	for _, c := range nb.cells() {
		if isCode(c) {
			total++
		}
	}
	n, failed := 0, 0
	for at, c := range nb.cells() {
		source, _ := c["source"].(string)
		if !isCode(c) {
			continue
		}
		n++
		began := time.Now()
		result, err := s.runCell(ctx, run, h, spec.ID, source, heard)
		if result != nil {
			if e := s.write(name, at, c, result); e != nil {
				return e
			}
		}
		if err != nil {
			failed++
			fmt.Fprintf(run.Out, "cell %d of %d: failed after %s: %v\n", n, total, time.Since(began).Round(time.Millisecond), err)
			if ctx.Err() != nil || !run.On {
				return quire.Failed(fmt.Sprintf("Cell %d of %d failed: %v", n, total, err), err)
			}
			continue
		}
		fmt.Fprintf(run.Out, "cell %d of %d: %s\n", n, total, time.Since(began).Round(time.Millisecond))
	}
	if failed > 0 {
		return quire.Failed(fmt.Sprintf("%d of %d cells failed; their outputs are in the notebook.", failed, total), nil)
	}
	return nil
}

// runCell runs one cell to its end. What it has said is returned also when it
// failed.
func (s *server) runCell(ctx context.Context, run Run, h *kernel.Holder, id, source string, heard <-chan kernel.Entry) (*cell, error) {
	m := kernel.NewMessage(kernel.Shell, "execute_request", kernel.NewID(), kernel.Header{}, object{
		"code": source, "silent": false, "store_history": true, "user_expressions": object{}, "allow_stdin": false,
		"stop_on_error": false, // or the kernel would pass over the cell that comes in the moment after one that failed
	})
	if err := h.Send(id, m); err != nil {
		return nil, err
	}
	var late <-chan time.Time
	if run.Limit > 0 {
		late = time.After(run.Limit)
	}
	c := &cell{request: m.Head().ID}
	var failure error
	for {
		select {
		case <-ctx.Done():
			return c, ctx.Err()
		case <-late:
			failure = fmt.Errorf("it ran longer than %s and was interrupted", run.Limit)
			late = time.After(againAfter)
			if err := h.Interrupt(ctx, id); err != nil {
				return c, err
			}
		case e := <-heard:
			_ = h.Forget(id, e.Seq)
			switch {
			case e.State != nil && (e.State.State == kernel.Dead || e.State.State == kernel.AutoRestarting):
				why := cmp.Or(e.State.Reason, "it ended")
				c.add(object{"output_type": "stream", "name": "stderr", "text": "[Quire: the kernel died: " + why + ".]\n"})
				return c, errors.New("the kernel died: " + why)
			case e.Message == nil || e.Message.Cause().ID != c.request:
				continue
			}
			c.hear(e.Message)
			if c.idle && c.replied {
				for _, o := range c.outputs {
					if o["output_type"] == "error" && failure == nil {
						failure = fmt.Errorf("%v: %v", o["ename"], o["evalue"])
					}
				}
				return c, failure
			}
		}
	}
}

// write puts a cell's outputs into the file: into the cell of the same ID, or,
// before format 4.5, of the same place and text.
func (s *server) write(name string, at int, was object, result *cell) error {
	return s.rewriteNotebook(name, func(nb *notebook) bool {
		id, _ := was["id"].(string)
		in := nb.cell(id)
		if cells := nb.cells(); in == nil && id == "" && at < len(cells) && cells[at]["source"] == was["source"] {
			in = cells[at]
		}
		if in == nil || !isCode(in) {
			return false // somebody has deleted it meanwhile
		}
		in["outputs"], in["execution_count"] = result.file(), result.count
		return true
	})
}
