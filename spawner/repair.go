package spawner

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"quire"
)

// repair puts the access lists of files below a project right, in one process
// for each person who may own some, running as that person: only an owner may
// change a list, and what he may not reach is not ours to change.
func (s *Spawner) repair(ctx context.Context, o quire.Order, a Account, q ask) (answer, error) {
	var args quire.RepairArgs
	if err := unmarshal(o.Args, &args); err != nil {
		return answer{}, err
	}
	if s.c.Accounts.Keeper() != 0 {
		return answer{Already: true, Note: "one account for everybody"}, nil
	}
	defer s.lock("repair " + o.Dir)()
	base, err := s.look(o, a, args.TeamArgs)
	if err != nil {
		return answer{}, err
	}
	if args.Full {
		base = append(base, "--full")
	}
	if args.Check { // one person sees all there is
		return s.helper(ctx, o, a, append([]string{"doctor"}, base...), q.Env)
	}
	var total answer
	var said []string
	var failed error
	people := map[uint32]quire.Person{}
	for _, who := range args.As {
		if !slices.Contains(args.Denied, who.UID) { // he does not get in, so neither does his helper
			people[who.UID] = who
		}
	}
	people[a.UID] = quire.Person{Name: a.Name, UID: a.UID}
	// The owner first. What others have closed they open, and may show files of
	// yet others: on until nobody new is seen.
	for queue, done := []uint32{a.UID}, map[uint32]bool{}; len(queue) > 0; queue = queue[1:] {
		who, ours := people[queue[0]]
		if !ours || done[who.UID] {
			continue
		}
		done[who.UID] = true
		as, err := s.c.Accounts.Find(ctx, who.Name, who.UID)
		if err != nil { // no account here, so no files here
			s.c.Log.Info("no repair as this account", "name", who.Name, "err", err)
			continue
		}
		part := o
		part.ID = quire.OrderID(fmt.Sprintf("%s-%d", o.ID, who.UID))
		r, err := s.helper(ctx, part, as, append([]string{"repair"}, base...), q.Env)
		if err != nil { // the others go on
			s.c.Log.Warn("repair failed", "name", who.Name, "err", err)
			failed = errors.Join(failed, err)
			continue
		}
		queue = append(queue, r.owners...)
		if r.Note != "" {
			said = append(said, who.Name+": "+r.Note)
		}
	}
	if failed != nil {
		return total, quire.Failed("Some permissions could not be repaired: "+quire.AsError(failed).Message, failed)
	}
	if args.Full { // and what could not be done, as who gets furthest sees it
		part := o
		part.ID += "-look"
		r, err := s.helper(ctx, part, a, append([]string{"doctor"}, base...), q.Env)
		if err != nil {
			return total, err
		}
		total.Findings = r.Findings
	}
	total.Already, total.Note = len(said) == 0, strings.Join(said, "; ")
	if total.Already {
		total.Note = "nothing to repair"
	}
	return total, nil
}

// look checks that the project's directory is there and its owner's, and says
// what helpers that walk through it need to know.
func (s *Spawner) look(o quire.Order, a Account, team quire.TeamArgs) ([]string, error) {
	p, err := s.locate(o, false)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	d, err := p.owned(p.name, a.UID)
	if err != nil {
		return nil, err
	}
	if d == nil {
		return nil, quire.NotFound("project directory")
	}
	d.Close()
	b, err := json.Marshal(team)
	return []string{"--dir", o.Dir, "--team", string(b), "--owner", fmt.Sprint(a.UID), "--group", fmt.Sprint(groupPerm(a)), "--project", string(o.Project)}, err
}

// takeOver has the project's owner copy an author's files and put the copies in
// their place. Nothing is given to anybody: a copy is its maker's.
func (s *Spawner) takeOver(ctx context.Context, o quire.Order, a Account, q ask) (answer, error) {
	var args quire.TakeOverArgs
	if err := unmarshal(o.Args, &args); err != nil {
		return answer{}, err
	}
	if s.c.Accounts.Keeper() != 0 {
		return answer{Already: true, Note: "one account for everybody"}, nil
	}
	defer s.lock("repair " + o.Dir)()
	base, err := s.look(o, a, args.TeamArgs)
	if err != nil {
		return answer{}, err
	}
	base = append([]string{"take-over"}, base...)
	if args.Look {
		r, err := s.helper(ctx, o, a, append(base, "--look"), q.Env)
		untouched := s.c.Accounts.Untouched(ctx)
		for i, f := range r.Findings {
			if untouched(f.UID) {
				r.Findings[i].Kind = quire.FoundUntouched
			}
		}
		return r, err
	}
	if s.c.Accounts.Untouched(ctx)(args.From) {
		return answer{}, quire.Forbidden("These files belong to the system or to a service, and may be shared by all projects. They stay as they are.")
	}
	return s.helper(ctx, o, a, append(base, "--from", fmt.Sprint(args.From)), q.Env)
}

// why asks the kernel, as the person, what he may do with a file, and the
// project's owner, who sees the lists, why. The answers are Note and Log.
func (s *Spawner) why(ctx context.Context, o quire.Order, a Account, q ask) (answer, error) {
	var args quire.WhyArgs
	if err := unmarshal(o.Args, &args); err != nil {
		return answer{}, err
	}
	if s.c.Accounts.Keeper() != 0 {
		return answer{Already: true, Note: "one account for everybody"}, nil
	}
	base, err := s.look(o, a, args.TeamArgs)
	if err != nil {
		return answer{}, err
	}
	who, err := s.c.Accounts.Find(ctx, args.Who.Name, args.Who.UID)
	if err != nil {
		return answer{}, err
	}
	groups := strings.Trim(strings.ReplaceAll(fmt.Sprint(append(who.Groups, who.GID)), " ", ","), "[]")
	part := o
	part.ID += "-may"
	may, err := s.helper(ctx, part, who, []string{"may", "--dir", o.Dir, "--path", args.Path}, q.Env)
	if err != nil {
		return answer{}, err
	}
	why, err := s.helper(ctx, o, a, append(append([]string{"why"}, base...), "--who", fmt.Sprint(who.UID), "--groups", groups, "--path", args.Path), q.Env)
	return answer{Note: may.Note, Log: why.Note}, err
}
