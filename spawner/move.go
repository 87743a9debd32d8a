package spawner

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"quire"
	"quire/spawner/launch"
)

// A project that moves lies in stageDir, which only root gets to: on the node it
// leaves as it was, on the other one while it is made. Nobody can change it there
// or be led astray, and one rename makes it a project again.
const (
	stageDir = ".stage"
	outOf    = ".out" // what leaves
	into     = ".in"  // what comes
)

// staging opens the directory, making it.
func (s *Spawner) staging() (*os.File, error) {
	root, err := s.storage.open()
	if err != nil {
		return nil, err
	}
	at := int(root.Fd())
	if err := unix.Mkdirat(at, stageDir, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, noRoom("The directory in which projects are moved could not be made", err)
	}
	fd, err := openBeneath(at, stageDir)
	if err != nil {
		return nil, quire.Failed("The directory in which projects are moved is not a plain directory. An administrator must look at it.", err)
	}
	f := os.NewFile(uintptr(fd), stageDir)
	var st unix.Stat_t
	err = ours(f, s.c.Accounts.Keeper())
	if err == nil {
		err = unix.Fstat(fd, &st)
	}
	if err == nil && st.Mode&0o777 != 0o700 {
		err = fmt.Errorf("others get into it (mode %04o)", st.Mode&0o7777)
	}
	if err != nil {
		f.Close()
		return nil, quire.Failed("The directory in which projects are moved is not Quire's own: "+err.Error()+". An administrator must look at it.", err)
	}
	return f, nil
}

// moving is a move's place: that of the project, and the staging directory.
type moving struct {
	place
	stage *os.File
	a     Account
}

func (m moving) Close() {
	m.place.Close()
	m.stage.Close()
}

func (s *Spawner) moving(o quire.Order, a Account, create bool) (moving, error) {
	p, err := s.locate(o, create)
	if err != nil {
		return moving{}, err
	}
	f, err := s.staging()
	if err != nil {
		p.Close()
		return moving{}, err
	}
	return moving{p, f, a}, nil
}

// staged opens what lies in the staging directory under a name, nil if nothing does.
func (m moving) staged(name string) (*os.File, error) {
	return place{owner: m.stage}.owned(name, m.a.UID)
}

func (m moving) project() (*os.File, error) { return m.owned(m.name, m.a.UID) }

// shift renames between the two, where nothing has the name.
func (s *Spawner) shift(from *os.File, name string, to *os.File, as string) error {
	unlock, err := s.storage.lock()
	if err != nil {
		return err
	}
	defer unlock()
	err = unix.Renameat2(int(from.Fd()), name, int(to.Fd()), as, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) { // a file server; nobody else may write in the two
		var st unix.Stat_t
		if e := unix.Fstatat(int(to.Fd()), as, &st, unix.AT_SYMLINK_NOFOLLOW); e == nil {
			err = unix.EEXIST
		} else if errors.Is(e, unix.ENOENT) {
			err = unix.Renameat(int(from.Fd()), name, int(to.Fd()), as)
		}
	}
	if errors.Is(err, unix.EEXIST) {
		return quire.Conflict("dir", "Something else has the name of the project's directory. An administrator must look at it.")
	}
	if err != nil {
		return noRoom("The project's directory could not be moved", err)
	}
	return errors.Join(unix.Fsync(int(from.Fd())), unix.Fsync(int(to.Fd())))
}

// aside takes the project's directory to where only root gets, and ends what
// still has something of it open: from then on nobody changes it.
// TestMove shows that.
func (s *Spawner) aside(ctx context.Context, o quire.Order, a Account, args quire.MoveArgs) (answer, error) {
	m, err := s.moving(o, a, false)
	if err != nil {
		return answer{}, err
	}
	defer m.Close()
	name := string(o.Project) + outOf
	d, err := m.project()
	if err != nil {
		return answer{}, err
	}
	have, err := m.staged(name)
	if err != nil {
		return answer{}, err
	}
	closeAll(slices.DeleteFunc([]*os.File{d, have}, func(f *os.File) bool { return f == nil }))
	switch {
	case d == nil && have == nil:
		return answer{}, quire.NotFound("project directory")
	case d != nil:
		if err := s.shift(m.owner, m.name, m.stage, name); err != nil {
			return answer{}, err
		}
	}
	inside := o
	inside.Dir = filepath.Join(s.c.ProjectRoot, stageDir, name)
	n, err := s.expel(ctx, inside, args.Expel)
	if err != nil {
		return answer{}, err
	}
	r := answer{Already: d == nil, Note: "nobody gets to it"}
	if n > 0 {
		r.Note += fmt.Sprintf(", %d processes ended", n)
	}
	return r, nil
}

// back undoes aside.
func (s *Spawner) back(o quire.Order, a Account) (answer, error) {
	m, err := s.moving(o, a, false)
	if err != nil {
		return answer{}, err
	}
	defer m.Close()
	d, err := m.staged(string(o.Project) + outOf)
	if err != nil {
		return answer{}, err
	}
	if d == nil {
		return answer{Already: true, Note: "it is there"}, nil
	}
	d.Close()
	return answer{Note: "put back"}, s.shift(m.stage, string(o.Project)+outOf, m.owner, m.name)
}

// away reports whether the project's directory lies aside.
func (s *Spawner) away(project quire.ProjectID) bool {
	root, err := s.storage.open()
	if err != nil {
		return false
	}
	fd, err := openBeneath(int(root.Fd()), stageDir)
	if err != nil {
		return false // no project has ever moved here
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	return unix.Fstatat(fd, string(project)+outOf, &st, unix.AT_SYMLINK_NOFOLLOW) == nil
}

// trashAside puts what lies aside beside where it was: it lives on elsewhere. The
// name is another than that of a deleted project, which may come to lie there, too.
func (s *Spawner) trashAside(o quire.Order, a Account) (answer, error) {
	m, err := s.moving(o, a, false)
	if err != nil {
		return answer{}, err
	}
	defer m.Close()
	d, err := m.staged(string(o.Project) + outOf)
	if err != nil {
		return answer{}, err
	}
	if d == nil {
		return answer{Already: true, Note: "already done"}, nil
	}
	d.Close()
	return answer{Note: "moved aside"}, s.shift(m.stage, string(o.Project)+outOf, m.owner, m.moved)
}

// putInPlace makes a project of what was received: the team of now on its
// directory, and then its name.
func (s *Spawner) putInPlace(o quire.Order, a Account, team quire.TeamArgs) (answer, error) {
	m, err := s.moving(o, a, true)
	if err != nil {
		return answer{}, err
	}
	defer m.Close()
	name := string(o.Project) + into
	staged, err := m.staged(name)
	if err != nil {
		return answer{}, err
	}
	if staged == nil {
		d, err := m.project()
		if err != nil {
			return answer{}, err
		}
		if d == nil {
			return answer{}, quire.NotFound("copy of the project")
		}
		d.Close()
		return answer{Already: true, Note: "already there"}, nil
	}
	defer staged.Close()
	if _, err := setTeam(int(staged.Fd()), a, team); err != nil {
		return answer{}, noRoom("The project's access list could not be set", err)
	}
	return answer{Note: "made " + o.Dir}, s.shift(m.stage, name, m.owner, m.name)
}

// unstage removes what was received, or the part of it.
func (s *Spawner) unstage(o quire.Order) (answer, error) {
	f, err := s.staging()
	if err != nil {
		return answer{}, err
	}
	defer f.Close()
	if err := remove(int(f.Fd()), string(o.Project)+into); err != nil {
		return answer{}, quire.Failed("The unfinished copy of the project could not be removed.", err)
	}
	return answer{Note: "removed"}, nil
}

// move carries out the orders of a move that are no streams.
func (s *Spawner) move(ctx context.Context, o quire.Order, a Account) (answer, error) {
	var args quire.MoveArgs
	if err := unmarshal(o.Args, &args); err != nil {
		return answer{}, err
	}
	defer s.lock(o.Dir)()
	defer s.lock("move " + string(o.Project))()
	switch o.Type {
	case quire.OrderAside:
		return s.aside(ctx, o, a, args)
	case quire.OrderBack:
		return s.back(o, a)
	case quire.OrderPlace:
		if err := s.storage.unfit(); err != nil {
			return answer{}, err
		}
		return s.putInPlace(o, a, args.TeamArgs)
	}
	return s.unstage(o)
}

// stream carries out those that send or take in: file is the other end's.
func (s *Spawner) stream(ctx context.Context, o quire.Order, a Account, files []*os.File) (answer, error) {
	var args quire.MoveArgs
	if err := unmarshal(o.Args, &args); err != nil {
		return answer{}, err
	}
	if len(files) != 1 {
		return answer{}, quire.Invalid("files", "This order needs somewhere to send to.")
	}
	defer s.lock("move " + string(o.Project))()
	var survey quire.Survey
	var err error
	if o.Type == quire.OrderReceive {
		survey, err = s.receive(ctx, o, args, files[0])
	} else {
		survey, err = s.pack(ctx, o, a, args, files[0])
	}
	return answer{Survey: &survey}, err
}

// receive makes the tree that arrives. What was there of an earlier try is
// removed first, and what was made if it does not arrive to the end.
func (s *Spawner) receive(ctx context.Context, o quire.Order, args quire.MoveArgs, from *os.File) (quire.Survey, error) {
	if err := s.storage.unfit(); err != nil {
		return quire.Survey{}, err
	}
	f, err := s.staging()
	if err != nil {
		return quire.Survey{}, err
	}
	defer f.Close()
	u := unpacker{
		in: bufio.NewReaderSize(from, 4*block), stage: int(f.Fd()), top: string(o.Project) + into, keeper: s.c.Accounts.Keeper(),
		owners: map[uint32]bool{}, named: map[uint32]bool{}, files: args.Files, bytes: args.Bytes,
	}
	for _, p := range args.People {
		if _, err := s.c.Accounts.Find(ctx, p.Name, p.UID); err != nil {
			return quire.Survey{}, err
		}
		u.owners[p.UID] = true
	}
	for _, p := range args.Named { // the number must not be somebody else's here
		if have := nameOf(ctx, p.UID); have != "" && have != p.Name {
			return quire.Survey{}, quire.Conflict("", fmt.Sprintf("On the other node the account with uid %d is %s, here it is %s. An administrator must look at this before the project can move.", p.UID, p.Name, have))
		}
		u.named[p.UID] = true
	}
	if u.groups, err = groupNumbers(ctx, args.Groups); err != nil {
		return quire.Survey{}, err
	}
	if err := remove(u.stage, u.top); err != nil {
		return quire.Survey{}, quire.Failed("What an earlier try has left could not be removed.", err)
	}
	got, err := u.run()
	if err == nil {
		if err = unix.Syncfs(u.stage); err != nil {
			err = noRoom("The files could not be written to the disk", err)
		}
	}
	if err != nil {
		if e := remove(u.stage, u.top); e != nil {
			s.c.Log.Warn("a part of a project stays", "project", o.Project, "err", e)
		}
		return quire.Survey{}, err
	}
	return got, nil
}

// pack has a process read the tree that lies aside, or that was received: as
// nobody, with the right to read everything and no other.
func (s *Spawner) pack(ctx context.Context, o quire.Order, a Account, args quire.MoveArgs, to *os.File) (quire.Survey, error) {
	name := string(o.Project) + outOf
	if args.Staged {
		name = string(o.Project) + into
	}
	p := packing{Dir: filepath.Join(s.c.ProjectRoot, stageDir, name), Look: o.Type == quire.OrderSurvey && !args.Sum, Send: o.Type == quire.OrderSend,
		Owners: map[uint32]uint32{}, Groups: map[uint32]string{}}
	for _, who := range args.People {
		as, err := s.c.Accounts.Find(ctx, who.Name, who.UID)
		if err != nil {
			return quire.Survey{}, err
		}
		p.Owners[as.UID] = as.GID
	}
	for _, who := range args.Named {
		p.Named = append(p.Named, who.UID)
	}
	if !p.Look {
		groups, err := groupNumbers(ctx, args.Groups)
		if err != nil {
			return quire.Survey{}, err
		}
		for name, gid := range groups {
			p.Groups[gid] = name
		}
	}
	b, err := json.Marshal(p)
	if err != nil {
		return quire.Survey{}, err
	}
	as := s.c.Accounts.Reader(a)
	c := launch.Command{Ready: to, Spec: launch.Spec{Argv: []string{s.c.Self, "pack", string(b)}, Search: as.UID != a.UID}}
	code, out, err := s.toEnd(ctx, string(o.ID), as, c, nil)
	if err != nil {
		return quire.Survey{}, explain(err)
	}
	var said packed
	if json.Unmarshal(out, &said) != nil {
		return quire.Survey{}, quire.Failed("Reading the project's files ended without a word.", errors.New(string(out)))
	}
	if said.Error != nil {
		return quire.Survey{}, said.Error
	}
	if code != 0 {
		return quire.Survey{}, quire.Failed("Reading the project's files failed.", errors.New(string(out)))
	}
	if p.Look {
		for uid := range said.Survey.Owners { // who has no group of a name gets his own
			said.GIDs = append(said.GIDs, primaryOf(ctx, uid)...)
		}
		for _, gid := range said.GIDs {
			if name := groupOf(ctx, gid); name != "" && !slices.Contains(said.Survey.Groups, name) {
				said.Survey.Groups = append(said.Survey.Groups, name)
			}
		}
		slices.Sort(said.Survey.Groups)
	}
	return said.Survey, nil
}

func nameOf(ctx context.Context, uid uint32) string {
	line, _ := output(ctx, "/usr/bin/getent", "passwd", "--", fmt.Sprint(uid))
	name, _, _ := strings.Cut(line, ":")
	return name
}

func primaryOf(ctx context.Context, uid uint32) []uint32 {
	line, _ := output(ctx, "/usr/bin/getent", "passwd", "--", fmt.Sprint(uid))
	if f := strings.Split(line, ":"); len(f) == 7 {
		if gid, err := number(f[3]); err == nil {
			return []uint32{gid}
		}
	}
	return nil
}

func groupOf(ctx context.Context, gid uint32) string {
	line, _ := output(ctx, "/usr/bin/getent", "group", "--", fmt.Sprint(gid))
	name, _, _ := strings.Cut(line, ":")
	return name
}

// groupNumbers are the numbers that groups have on this node.
func groupNumbers(ctx context.Context, names []string) (map[string]uint32, error) {
	groups := map[string]uint32{}
	for _, name := range names {
		line, err := output(ctx, "/usr/bin/getent", "group", "--", name)
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			return nil, quire.Unavailable("The node's account service does not answer. Try again in a minute.", err)
		}
		f := strings.Split(line, ":")
		if len(f) != 4 || f[0] != name {
			return nil, quire.Conflict("", "Files of the project belong to the group "+name+", or name it, and there is no such group on one of the two nodes. Make the group there, or take it from the files.")
		}
		if groups[name], err = number(f[2]); err != nil {
			return nil, quire.Failed("The node's entry for the group "+name+" cannot be read.", err)
		}
	}
	return groups, nil
}
