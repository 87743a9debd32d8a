package spawner

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"quire"
	"quire/spawner/launch"
)

const (
	helperLimit  = 15 * time.Minute // a large clone
	helperOutput = 64 << 10
)

// help runs "quire helper" as the order's user and passes on what it said.
func (s *Spawner) help(ctx context.Context, o quire.Order, a Account, q ask) (answer, error) {
	defer s.lock(o.Dir)()
	p, err := s.locate(o, false)
	if err != nil {
		return answer{}, err
	}
	defer p.Close()
	d, err := p.owned(p.name, a.UID)
	if err != nil {
		return answer{}, err
	}
	if d == nil {
		return answer{}, quire.NotFound("project directory")
	}
	d.Close()
	args := []string{o.Type.String(), "--dir", o.Dir}
	switch o.Type {
	case quire.OrderSkeleton:
		dir, err := s.guarded(s.c.SkeletonDir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return answer{}, quire.Failed("The site's skeleton is not used: "+quire.AsError(err).Message, err)
		}
		args = append(args, "--skeleton", dir)
	case quire.OrderClone:
		var c quire.CloneArgs
		if err := unmarshal(o.Args, &c); err != nil {
			return answer{}, err
		}
		args = append(args, "--url", c.URL)
	case quire.OrderEnvironment:
		args = append(args, "--python", s.c.Python, "--root", s.c.RootEnv)
	}
	if err := clean(args); err != nil {
		return answer{}, err
	}
	return s.helper(ctx, o, a, args, q.Env)
}

// result is what a helper prints on standard output.
type result struct {
	Already bool         `json:"already"`
	Note    string       `json:"note"`
	Error   *quire.Error `json:"error"`
	Log     string       `json:"log"`
	Owners  []uint32     `json:"owners"` // of a repair: whose files it saw

	Findings []quire.Finding `json:"findings"`
	More     bool            `json:"more"`
}

func (s *Spawner) helper(ctx context.Context, o quire.Order, a Account, args, env []string) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, helperLimit)
	defer cancel()
	code, out, err := s.asUser(ctx, string(o.ID), a, "", args, env)
	if err != nil {
		return answer{}, explain(err)
	}
	var r result
	// The helper ran as the user: its words are the user's, read as data only.
	if json.Unmarshal(out, &r) != nil {
		return answer{}, quire.Failed("The step \""+o.Type.String()+"\" ended without a word.", errors.New(string(out)))
	}
	if r.Error != nil {
		r.Error.Err = nil
		return answer{Log: r.Log}, r.Error
	}
	if code != 0 {
		return answer{}, quire.Failed("The step \""+o.Type.String()+"\" failed.", errors.New(string(out)))
	}
	return answer{Already: r.Already, Note: r.Note, Log: r.Log, Findings: r.Findings, More: r.More, owners: r.Owners}, nil
}

// asUser runs "quire helper ARGS" as the account.
func (s *Spawner) asUser(ctx context.Context, id string, a Account, tmp string, args, env []string) (int, []byte, error) {
	argv := append([]string{s.c.Self, "helper"}, args...)
	return s.toEnd(ctx, id, a, launch.Command{Spec: launch.Spec{Argv: argv, Tmp: tmp}}, env)
}

// toEnd runs a command in a group of its own until it ends, and returns its exit
// code and output.
func (s *Spawner) toEnd(ctx context.Context, id string, a Account, c launch.Command, env []string) (int, []byte, error) {
	g, err := s.c.Limits.Make(id, s.c.Default)
	if err != nil {
		return 0, nil, &launch.StepError{Step: "control groups", Reason: err.Error()}
	}
	defer func() {
		if err := g.Remove(); err != nil {
			s.c.Log.Warn("a control group stays", "group", id, "err", err)
		}
	}()
	r, w, err := os.Pipe()
	if err != nil {
		return 0, nil, err
	}
	defer r.Close()
	c.Output = w
	p, err := s.launch(ctx, g, c, a, id, env)
	w.Close()
	if err != nil {
		return 0, nil, err
	}
	keep := process{Boot: s.boot, PID: p.Pid}
	keep.Start, _, _, _, _ = stat(p.Pid)
	stop := context.AfterFunc(ctx, func() { _ = g.Kill(keep) })
	defer stop()
	said := make(chan []byte, 1)
	go func() {
		var out bytes.Buffer
		if _, err := io.Copy(&out, io.LimitReader(r, helperOutput)); err == nil {
			_, _ = io.Copy(io.Discard, r) // what is too much must not block it
		}
		said <- out.Bytes()
	}()
	state, werr := p.Wait()
	if err := g.Kill(process{}); err != nil { // whatever it left behind, and what holds the pipe
		s.c.Log.Warn("ending a helper's stragglers", "group", id, "err", err)
	}
	out := <-said
	if ctx.Err() != nil {
		return 0, nil, quire.Failed("It took too long and was stopped.", ctx.Err())
	}
	if werr != nil {
		return 0, nil, werr
	}
	return state.ExitCode(), out, nil
}

// purge empties a project that was renamed aside as its owner, and removes the
// empty directory as us.
func (s *Spawner) purge(ctx context.Context, o quire.Order, a Account, q ask) (answer, error) {
	var args quire.MoveArgs
	if err := unmarshal(o.Args, &args); err != nil {
		return answer{}, err
	}
	defer s.lock(o.Dir)()
	p, err := s.locate(o, false)
	if quire.KindOf(err) == quire.KindNotFound {
		return answer{Already: true, Note: "already gone"}, nil
	}
	if err != nil {
		return answer{}, err
	}
	defer p.Close()
	name := p.trash
	if args.Aside {
		name = p.moved
	}
	d, err := p.owned(name, a.UID)
	if err != nil {
		return answer{}, err
	}
	if d == nil {
		return answer{Already: true, Note: "already gone"}, nil
	}
	d.Close()
	if _, err := s.helper(ctx, o, a, []string{"purge", "--dir", filepath.Join(filepath.Dir(o.Dir), name)}, q.Env); err != nil {
		return answer{}, err
	}
	if err := unix.Unlinkat(int(p.owner.Fd()), name, unix.AT_REMOVEDIR); err != nil {
		return answer{}, quire.Failed("Some files of the project belong to other people and were not deleted. An administrator must remove them.", err)
	}
	return answer{Note: "deleted"}, nil
}
