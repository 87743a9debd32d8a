// Package environment does what a project's directory needs, as the project's
// user: the skeleton, a clone, the software environment, emptying. It runs as
// "quire helper …" in a process that has already become that user, so the
// kernel decides what it may touch. Each step looks first whether its work is
// done, so that it can be repeated after a crash at any point.
package environment

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"quire"
)

// Result is what a helper prints on standard output, as one line of JSON.
type Result struct {
	Already bool         `json:"already"`
	Note    string       `json:"note,omitempty"` // one line for the timeline
	Error   *quire.Error `json:"error,omitempty"`
	Log     string       `json:"log,omitempty"`    // last lines of a program that was run
	Owners  []uint32     `json:"owners,omitempty"` // of a repair: whose files it saw

	Findings []quire.Finding `json:"findings,omitempty"` // of a look or a take-over
	More     bool            `json:"more,omitempty"`     // of a take-over: it is not done yet
}

// helperLimit is a little below the spawner's, so that a step that takes too
// long can still say so.
const helperLimit = 14 * time.Minute

// Main runs one helper: skeleton, clone, environment, purge, empty, repair, doctor,
// take-over, why or may. It
// returns the exit code.
func Main(args []string) int {
	ctx, cancel := context.WithTimeout(context.Background(), helperLimit)
	defer cancel()
	r, err := Run(ctx, args)
	code := 0
	if err != nil {
		r.Error, code = quire.AsError(err), 1
	}
	if err := json.NewEncoder(os.Stdout).Encode(r); err != nil {
		return 2
	}
	return code
}

// Run is Main without a process: the same arguments, the result as a value.
func Run(ctx context.Context, args []string) (Result, error) {
	if len(args) == 0 {
		return Result{}, quire.Invalid("helper", "The helper needs to know what to do.")
	}
	name, args := args[0], args[1:]
	if name == "empty" {
		return empty(args)
	}
	var o options
	f := flag.NewFlagSet(name, flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.StringVar(&o.dir, "dir", "", "project directory")
	f.StringVar(&o.skeleton, "skeleton", "", "the site's skeleton")
	f.StringVar(&o.url, "url", "", "where to clone from")
	f.StringVar(&o.python, "python", "/usr/bin/python3", "the system's Python")
	f.StringVar(&o.root, "root", "", "prefix of the site's root environment")
	f.StringVar(&o.team, "team", "{}", "the team, as in an order")
	f.StringVar(&o.project, "project", "", "the project's identity")
	f.UintVar(&o.owner, "owner", 0, "uid of the project's owner")
	f.UintVar(&o.group, "group", 0, "what the owner's group may do")
	f.UintVar(&o.from, "from", 0, "uid whose files are taken over")
	f.DurationVar(&o.limit, "for", 5*time.Second, "how long one part of a take-over takes")
	f.BoolVar(&o.look, "look", false, "change nothing, count")
	f.StringVar(&o.path, "path", "", "a place below the directory")
	f.UintVar(&o.who, "who", 0, "uid of somebody")
	f.StringVar(&o.groups, "groups", "", "gids of somebody")
	f.BoolVar(&o.full, "full", false, "look at what did not change, too")
	if err := f.Parse(args); err != nil || f.NArg() > 0 || !filepath.IsAbs(o.dir) {
		return Result{}, quire.Invalid("helper", "The helper was called in the wrong way.")
	}
	steps := map[string]func(context.Context, options) (Result, error){
		"skeleton": skeleton, "clone": clone, "environment": makeDefault, "purge": purge,
		"repair": repair, "doctor": doctor, "take-over": takeOver, "why": why, "may": may,
	}
	step, ok := steps[name]
	if !ok {
		return Result{}, quire.Invalid("helper", "There is no such helper.")
	}
	return step(ctx, o)
}

type options struct {
	dir, skeleton, url, python, root, team, project, path, groups string
	owner, group, from, who                                       uint
	limit                                                         time.Duration
	full, look                                                    bool
}

// tail keeps the last bytes that a program printed.
type tail struct {
	limit int
	b     bytes.Buffer
}

func (t *tail) Write(p []byte) (int, error) {
	t.b.Write(p)
	if over := t.b.Len() - t.limit; over > 0 {
		t.b.Next(over)
	}
	return len(p), nil
}

const logTail = 8 << 10

// words turns what the system said about a file into a reason for a page.
func words(err error) string {
	var p *os.PathError
	if errors.As(err, &p) {
		return fmt.Sprintf("%s: %v", p.Path, p.Err)
	}
	return err.Error()
}
