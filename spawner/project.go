package spawner

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"quire"
	"quire/acl"
)

// place is a project's directory as parent descriptor and name. Everything
// above the project belongs to us, so its name cannot be exchanged under us.
type place struct {
	owner *os.File // ProjectRoot/OWNER
	name  string
	trash string // beside it: where it goes when deleted
	moved string // beside it: where it goes when it lives on another node
	stage string // beside it: where it is made
}

func (p place) Close() { p.owner.Close() }

// locate opens the parent of an order's directory, by descriptor and without
// following any link. With make, the parent is made if missing.
func (s *Spawner) locate(o quire.Order, create bool) (place, error) {
	rest, ok := strings.CutPrefix(o.Dir, filepath.Clean(s.c.ProjectRoot)+"/")
	owner, name, two := strings.Cut(rest, "/")
	if !ok || !two || o.Dir != filepath.Clean(o.Dir) || quire.CheckUserName(owner, true) != nil || quire.CheckProjectName(name) != nil {
		return place{}, quire.Invalid("dir", "A project's directory is "+s.c.ProjectRoot+"/OWNER/PROJECT.")
	}
	dir, err := s.storage.open()
	if err != nil {
		return place{}, err
	}
	root := int(dir.Fd())
	if create {
		if err := unix.Mkdirat(root, owner, 0o711); err == nil {
			// mkdir honors the umask; the mode is part of the protection.
			if err := unix.Fchmodat(root, owner, 0o711, 0); err != nil {
				return place{}, err
			}
		} else if !errors.Is(err, unix.EEXIST) {
			return place{}, noRoom("The directory for "+owner+"'s projects could not be made", err)
		}
	}
	fd, err := openBeneath(root, owner)
	if errors.Is(err, unix.ENOENT) {
		return place{}, quire.NotFound("project directory")
	}
	if err != nil {
		return place{}, quire.Failed("The directory for "+owner+"'s projects is not a plain directory. An administrator must look at it.", err)
	}
	f := os.NewFile(uintptr(fd), owner)
	if err := ours(f, s.c.Accounts.Keeper()); err != nil {
		f.Close()
		return place{}, quire.Failed("The directory for "+owner+"'s projects is not Quire's own: "+err.Error()+". An administrator must look at it.", err)
	}
	return place{owner: f, name: name, trash: ".trash-" + string(o.Project), moved: ".moved-" + string(o.Project), stage: ".stage-" + string(o.Project)}, nil
}

// openBeneath opens a directory below dirfd; a link anywhere is an error.
func openBeneath(dirfd int, name string) (int, error) {
	return unix.Openat2(dirfd, name, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
}

func noRoom(what string, err error) error {
	switch {
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return quire.Failed(what+": the node's disk is full.", err)
	case errors.Is(err, unix.EROFS):
		return quire.Failed(what+": the node's disk is read-only.", err)
	}
	return quire.Failed(what+".", err)
}

// owned opens the directory of a name in the place and checks whose it is.
// A missing one is (nil, nil).
func (p place) owned(name string, uid uint32) (*os.File, error) {
	fd, err := openBeneath(int(p.owner.Fd()), name)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, quire.Failed("The project's directory is not a plain directory. An administrator must look at it.", err)
	}
	f := os.NewFile(uintptr(fd), name)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		f.Close()
		return nil, err
	}
	if st.Uid != uid {
		f.Close()
		return nil, quire.Conflict("dir", fmt.Sprintf("The project's directory belongs to uid %d, not to its owner. An administrator must look at it.", st.Uid))
	}
	return f, nil
}

// groupPerm is what the project's own group may do: everything when the group
// is the owner's private one, nothing when it is shared with others.
func groupPerm(a Account) uint16 {
	if a.Private {
		return acl.Read | acl.Write | acl.Execute
	}
	return 0
}

// lists are the access lists of a project's top directory: others may pass
// through (public files are below) but new children are closed to them, unless
// the whole project is public. Children
// name the owner, because they may be made by somebody else; who is denied needs
// no entry below, as he does not get there.
func lists(a Account, t quire.TeamArgs) (access, children []acl.Entry) {
	const all = acl.Read | acl.Write | acl.Execute
	base := []acl.Entry{{Tag: acl.Owner, Perm: all}, {Tag: acl.Group, Perm: groupPerm(a)}}
	seen := map[uint32]bool{a.UID: true}
	add := func(uids []uint32, perm uint16) (list []acl.Entry) {
		for _, uid := range uids {
			if !seen[uid] {
				seen[uid] = true
				list = append(list, acl.Entry{Tag: acl.User, ID: uid, Perm: perm})
			}
		}
		return list
	}
	denied := add(t.Denied, 0)
	base = append(base, add(t.Editors, all)...)
	base = append(base, add(t.Viewers, acl.Read|acl.Execute)...)
	others, below := uint16(acl.Execute), uint16(0)
	if t.Public {
		others, below = acl.Read|acl.Execute, acl.Read|acl.Execute
	}
	access = slices.Concat(base, denied, []acl.Entry{{Tag: acl.Other, Perm: others}})
	children = slices.Concat(base, []acl.Entry{{Tag: acl.User, ID: a.UID, Perm: all}, {Tag: acl.Other, Perm: below}})
	return access, children
}

// keepGroups puts entries of groups that the owner has given the directory to
// into new lists: a team larger than a list can hold is one. They make room for
// people, of whom those who are shut out must be in.
func keepGroups(fd int, access, children []acl.Entry) (_, _ []acl.Entry, err error) {
	for kind, list := range map[acl.Kind]*[]acl.Entry{acl.Access: &access, acl.Default: &children} {
		have, err := acl.Get(fd, kind)
		if err != nil {
			return nil, nil, err
		}
		named := 0
		for _, e := range *list {
			if e.Tag == acl.User {
				named++
			}
		}
		mask := acl.Limit(have)
		for _, e := range have {
			if e.Tag == acl.Named && named < acl.MaxNamed {
				named++
				*list = append(*list, acl.Entry{Tag: acl.Named, ID: e.ID, Perm: e.Perm & mask})
			}
		}
	}
	return access, children, nil
}

// setLists sets both lists or, with an error, neither. A file system may have
// room for the two only in one order, as ext4 keeps both in one block.
func setLists(fd int, access, children []acl.Entry) error {
	// A file system without access lists must be found here, not by a leak later.
	err := setBoth(fd, acl.Default, children, acl.Access, access)
	if errors.Is(err, unix.ENOSPC) {
		err = setBoth(fd, acl.Access, access, acl.Default, children)
	}
	return err
}

func setBoth(fd int, first acl.Kind, one []acl.Entry, then acl.Kind, other []acl.Entry) error {
	if _, err := acl.Encode(other); err != nil {
		return err
	}
	before, err := acl.Get(fd, first)
	if err != nil {
		return err
	}
	if before == nil && first == acl.Access {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return err
		}
		before = acl.FromMode(st.Mode)
	}
	if err := acl.Set(fd, first, one); err != nil {
		return err
	}
	if err := acl.Set(fd, then, other); err != nil {
		if before == nil {
			before = []acl.Entry{{Tag: acl.Owner}, {Tag: acl.Group}, {Tag: acl.Other}} // there was none: nothing for anybody
		}
		return errors.Join(err, acl.Set(fd, first, before))
	}
	return nil
}

// full reports that a list had no room though the disk has.
func full(fd int, err error) bool {
	var st unix.Statfs_t
	return errors.Is(err, acl.ErrTooMany) || errors.Is(err, unix.E2BIG) || errors.Is(err, unix.ENOSPC) && unix.Fstatfs(fd, &st) == nil && st.Bavail > 0
}

// setTeam puts the team into the directory's lists. Where it does not fit, those
// make room who lost their rights before and whom files name least; who loses
// them now never does.
func setTeam(fd int, a Account, team quire.TeamArgs) (quire.TeamArgs, error) {
	for {
		access, children := lists(a, team)
		access, children, err := keepGroups(fd, access, children)
		if err == nil {
			err = setLists(fd, access, children)
		}
		last := len(team.Denied) - 1
		if !full(fd, err) || last < 0 || slices.Contains(team.Expel, team.Denied[last]) {
			return team, err
		}
		team.Denied = team.Denied[:last]
	}
}

// makeProject makes OWNER and PROJECT: under a staging name until owner, mode
// and lists are right, so that the project's name never shows a half-made one.
func (s *Spawner) makeProject(o quire.Order, a Account) (answer, error) {
	defer s.lock(o.Dir)()
	if s.away(o.Project) { // a move was given up while nobody could say so
		return s.back(o, a)
	}
	unlock, err := s.storage.lock()
	if err != nil {
		return answer{}, err
	}
	defer unlock()
	p, err := s.locate(o, true)
	if err != nil {
		return answer{}, err
	}
	defer p.Close()
	have, err := p.owned(p.name, a.UID)
	if err != nil {
		return answer{}, err
	}
	if have != nil {
		have.Close()
		return answer{Already: true, Note: "already there"}, nil
	}
	parent := int(p.owner.Fd())
	// A crash may have left the staging directory; it was never in use.
	if err := unix.Unlinkat(parent, p.stage, unix.AT_REMOVEDIR); err != nil && !errors.Is(err, unix.ENOENT) {
		return answer{}, quire.Failed("A left-over of an earlier try is in the way of the project's directory.", err)
	}
	if err := unix.Mkdirat(parent, p.stage, 0o700); err != nil {
		return answer{}, noRoom("The project's directory could not be made", err)
	}
	if err := s.furnish(p, a); err != nil {
		_ = unix.Unlinkat(parent, p.stage, unix.AT_REMOVEDIR)
		return answer{}, noRoom("The project's directory could not be prepared", err)
	}
	err = renameNew(parent, p.stage, p.name)
	if err != nil {
		_ = unix.Unlinkat(parent, p.stage, unix.AT_REMOVEDIR)
		return answer{}, noRoom("The project's directory could not be put in place", err)
	}
	return answer{Note: "made " + o.Dir}, unix.Fsync(parent)
}

func (s *Spawner) furnish(p place, a Account) error {
	fd, err := openBeneath(int(p.owner.Fd()), p.stage)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := s.c.Accounts.Give(fd, a.UID, a.GID); err != nil {
		return err
	}
	if err := unix.Fchmod(fd, 0o2771); err != nil {
		return err
	}
	access, children := lists(a, quire.TeamArgs{})
	return setLists(fd, access, children)
}

// setPermissions puts the team into the lists of the project's top directory,
// shuts out whose rights were taken, and ends what they still run there.
func (s *Spawner) setPermissions(ctx context.Context, o quire.Order, a Account) (answer, error) {
	var team quire.TeamArgs
	if err := unmarshal(o.Args, &team); err != nil {
		return answer{}, err
	}
	defer s.lock("team " + o.Dir)()
	p, err := s.locate(o, false)
	if err != nil {
		return answer{}, err
	}
	defer p.Close()
	r, err := s.permit(p, o.Project, a, team)
	if err != nil {
		return r, err
	}
	if len(team.Expel) > 0 {
		n, err := s.expel(ctx, o, team.Expel)
		if err != nil {
			return answer{}, err
		}
		if n > 0 {
			r.Note += fmt.Sprintf(", %d processes ended", n)
		}
	}
	return r, nil
}

func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return strconv.Itoa(n) + " " + what
}

func (s *Spawner) permit(p place, project quire.ProjectID, a Account, team quire.TeamArgs) (answer, error) {
	fd, err := openBeneath(int(p.owner.Fd()), p.name)
	if errors.Is(err, unix.ENOENT) && s.away(project) {
		return answer{}, quire.Unavailable("The project is being moved; nobody gets to its directory meanwhile.", nil)
	}
	if errors.Is(err, unix.ENOENT) {
		return answer{}, quire.NotFound("project directory")
	}
	if err != nil {
		return answer{}, quire.Failed("The project's directory is not a plain directory. An administrator must look at it.", err)
	}
	d := os.NewFile(uintptr(fd), p.name)
	defer d.Close()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return answer{}, err
	}
	handed := st.Uid != a.UID && slices.Contains(slices.Concat(team.Editors, team.Viewers, team.Denied), st.Uid)
	if st.Uid != a.UID && !handed {
		return answer{}, quire.Conflict("dir", fmt.Sprintf("The project's directory belongs to uid %d, not to its owner. An administrator must look at it.", st.Uid))
	}
	note := count(len(team.Editors), "editor") + ", " + count(len(team.Viewers), "viewer")
	if !a.Private {
		note += ". The owner's group has other members, so it gets no rights"
	}
	access, children := lists(a, team)
	access, children, err = keepGroups(fd, access, children)
	if err != nil {
		return answer{}, err
	}
	if !handed && same(d, acl.Access, access) && same(d, acl.Default, children) {
		return answer{Already: true, Note: note}, nil
	}
	if handed {
		// Its parent is ours: nobody can have put another directory in its place.
		if err := s.c.Accounts.Give(fd, a.UID, a.GID); err != nil {
			return answer{}, noRoom("The project's directory could not be handed over", err)
		}
		if err := unix.Fchmod(fd, 0o2771); err != nil {
			return answer{}, noRoom("The project's directory could not be handed over", err)
		}
	}
	if _, err := setTeam(fd, a, team); full(fd, err) {
		return answer{}, &quire.Error{Kind: quire.KindInvalid, Field: "team", Message: fmt.Sprintf("The access list of the project's directory has no room for %d people on this node's file system, so the last change of the team is not on the disk. Give a group of the system the rights instead: setfacl -m g:GROUP:rwx,d:g:GROUP:rwx DIRECTORY.", len(team.Editors)+len(team.Viewers)+1), Err: err}
	} else if err != nil {
		return answer{}, noRoom("The project's access list could not be set", err)
	}
	return answer{Note: note}, nil
}

func same(d *os.File, kind acl.Kind, want []acl.Entry) bool {
	have, err := acl.Get(int(d.Fd()), kind)
	if err != nil {
		return false
	}
	if have == nil && kind == acl.Access {
		// Without named entries the kernel keeps the list in the mode bits.
		info, err := d.Stat()
		if err != nil {
			return false
		}
		bits := uint16(info.Mode().Perm())
		have = []acl.Entry{{Tag: acl.Owner, Perm: bits >> 6}, {Tag: acl.Group, Perm: bits >> 3 & 7}, {Tag: acl.Other, Perm: bits & 7}}
	}
	a, err1 := acl.Encode(have)
	b, err2 := acl.Encode(want)
	return err1 == nil && err2 == nil && string(a) == string(b)
}

// trash renames the project inside its parent: moving a directory to another
// parent would need write permission in it.
func (s *Spawner) trash(o quire.Order, a Account) (answer, error) {
	var args quire.MoveArgs
	if err := unmarshal(o.Args, &args); err != nil {
		return answer{}, err
	}
	if args.Aside {
		defer s.lock(o.Dir)()
		return s.trashAside(o, a)
	}
	return s.rename(o, a, func(p place) (string, string) { return p.name, p.trash }, "moved aside")
}

// restore renames it back.
func (s *Spawner) restore(o quire.Order, a Account) (answer, error) {
	return s.rename(o, a, func(p place) (string, string) { return p.trash, p.name }, "put back")
}

// renameNew renames where nothing has the new name. File servers cannot do that in
// one step; there the storage's lock keeps other nodes away, and nobody else may
// write in the parent.
func renameNew(parent int, from, to string) error {
	err := unix.Renameat2(parent, from, parent, to, unix.RENAME_NOREPLACE)
	if !errors.Is(err, unix.EINVAL) {
		return err
	}
	var st unix.Stat_t
	switch err := unix.Fstatat(parent, to, &st, unix.AT_SYMLINK_NOFOLLOW); {
	case err == nil:
		return unix.EEXIST
	case !errors.Is(err, unix.ENOENT):
		return err
	}
	return unix.Renameat(parent, from, parent, to)
}

func (s *Spawner) rename(o quire.Order, a Account, names func(place) (from, to string), note string) (answer, error) {
	defer s.lock(o.Dir)()
	unlock, err := s.storage.lock()
	if err != nil {
		return answer{}, err
	}
	defer unlock()
	p, err := s.locate(o, false)
	if err != nil {
		return answer{}, err
	}
	defer p.Close()
	from, to := names(p)
	d, err := p.owned(from, a.UID)
	if err != nil {
		return answer{}, err
	}
	if d == nil {
		done, err := p.owned(to, a.UID)
		if err != nil {
			return answer{}, err
		}
		if done == nil {
			return answer{}, quire.NotFound("project directory")
		}
		done.Close()
		return answer{Already: true, Note: "already done"}, nil
	}
	d.Close()
	parent := int(p.owner.Fd())
	err = renameNew(parent, from, to)
	if errors.Is(err, unix.EEXIST) {
		return answer{}, quire.Conflict("dir", "Another project has taken the directory's name meanwhile.")
	}
	if err != nil {
		return answer{}, noRoom("The project's directory could not be renamed", err)
	}
	return answer{Note: note}, unix.Fsync(parent)
}

func unmarshal(b []byte, v any) error {
	if len(b) == 0 {
		return nil
	}
	// A word that we do not know might be the one that limits the order.
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return &quire.Error{Kind: quire.KindInvalid, Field: "args", Message: "The order asks for something that this node does not know. Upgrade the node.", Err: err}
	}
	return nil
}
