package files

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"quire"
	"quire/acl"
)

// Permissions of one file or directory.
type Permissions struct {
	Entry
	Access  []acl.Entry // complete: owner, group, others, and a mask where one is needed
	Default []acl.Entry // of a directory: what is made in it begins with this; may be empty
	Mine    bool        // only the owner can change them
}

// Permissions reads those of an entry; not of a link, which has none.
func (t *Tree) Permissions(path string) (Permissions, error) {
	path, err := t.clean(path)
	if err != nil {
		return Permissions{}, err
	}
	f, st, err := t.hold(path)
	if err != nil {
		return Permissions{}, err
	}
	defer f.Close()
	_, name := split(path)
	p := Permissions{Entry: entryOf(name, &st), Mine: st.Uid == uint32(os.Geteuid())}
	if p.Access, err = accessList(f, &st); err != nil {
		return Permissions{}, explain(err, path)
	}
	if p.Kind == Directory {
		if p.Default, err = readList(f, acl.Default); err != nil {
			return Permissions{}, explain(err, path)
		}
	}
	return p, nil
}

// hold opens an entry that can have permissions, whether or not it can be read.
func (t *Tree) hold(path string) (*os.File, unix.Stat_t, error) {
	var st unix.Stat_t
	f, err := t.at(path, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return nil, st, err
	}
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		f.Close()
		return nil, st, explain(err, path)
	}
	if k := entryOf("", &st).Kind; k != File && k != Directory {
		f.Close()
		return nil, st, quire.Invalid("path", "Only files and directories have permissions of their own.")
	}
	return f, st, nil
}

func readList(f *os.File, kind acl.Kind) ([]acl.Entry, error) {
	b := make([]byte, 16<<10)
	n, err := unix.Getxattr(procPath(f), string(kind), b)
	if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.ENOTSUP) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return acl.Decode(b[:n])
}

func accessList(f *os.File, st *unix.Stat_t) ([]acl.Entry, error) {
	list, err := readList(f, acl.Access)
	if list == nil && err == nil {
		list = []acl.Entry{
			{Tag: acl.Owner, Perm: uint16(st.Mode >> 6 & 7)}, {Tag: acl.Group, Perm: uint16(st.Mode >> 3 & 7)}, {Tag: acl.Other, Perm: uint16(st.Mode & 7)},
		}
	}
	return list, err
}

func writeList(f *os.File, kind acl.Kind, list []acl.Entry) error {
	b, err := acl.Encode(list)
	if errors.Is(err, acl.ErrTooMany) {
		return quire.Invalid("entries", "That is more people than one file can name. Use a group.")
	}
	if err != nil {
		return err
	}
	err = unix.Setxattr(procPath(f), string(kind), b, 0)
	if errors.Is(err, unix.ENOTSUP) {
		return quire.Failed("This disk has no access lists: only owner, group and others can be set here.", err)
	}
	return err
}

// A Change of permissions.
type Change struct {
	Access    []acl.Entry // complete
	Group     int         // the new group, -1 to keep it
	Inherit   bool        // directories: what is made in them later begins with the same
	Recursive bool        // all beneath; files become executable only where they already are for somebody
	Preview   bool        // change nothing, count only
}

// check refuses lists that the kernel would, with a sentence.
func (c Change) check() error {
	seen := map[acl.Entry]bool{}
	var base int
	for _, e := range c.Access {
		if e.Perm > 7 {
			return quire.Invalid("entries", "A permission is made of read, write and execute.")
		}
		switch e.Tag {
		case acl.Owner, acl.Group, acl.Other:
			base++
			e.ID = 0
		case acl.Mask:
			e.ID = 0
		case acl.User, acl.Named:
		default:
			return quire.Invalid("entries", "That kind of entry does not exist.")
		}
		e.Perm = 0
		if seen[e] {
			return quire.Invalid("entries", "Somebody is named twice.")
		}
		seen[e] = true
	}
	if base != 3 {
		return quire.Invalid("entries", "Owner, group and others each need an entry.")
	}
	return nil
}

// SetPermissions changes an entry and, if asked, all beneath it. What belongs to
// somebody else cannot be changed and is counted. Links are never followed.
func (t *Tree) SetPermissions(ctx context.Context, path string, c Change, report Report) (Progress, error) {
	var p Progress
	path, err := t.clean(path)
	if err == nil {
		err = c.check()
	}
	if err != nil {
		return p, err
	}
	f, st, err := t.hold(path)
	if err != nil {
		return p, err
	}
	defer f.Close()
	err = c.apply(f, &st)
	if err != nil && !c.Recursive {
		return p, explain(err, path)
	}
	count(&p, path, err)
	if c.Recursive && st.Mode&unix.S_IFMT == unix.S_IFDIR {
		err = walk(ctx, f, path, &p, report, 0, c.apply)
		return p, err
	}
	return p, nil
}

func count(p *Progress, path string, err error) {
	if err != nil {
		p.fail(path, explain(err, path))
		return
	}
	p.Items++
}

// apply does the change to one open entry.
func (c Change) apply(f *os.File, st *unix.Stat_t) error {
	if uid := os.Geteuid(); st.Uid != uint32(uid) && uid != 0 {
		return quire.Forbidden("It belongs to somebody else, who alone can change that.")
	}
	if c.Preview {
		return nil
	}
	dir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	list := slices.Clone(c.Access)
	if c.Recursive && !dir && st.Mode&0o111 == 0 {
		for i := range list {
			list[i].Perm &^= acl.Execute
		}
	}
	if c.Group >= 0 && uint32(c.Group) != st.Gid {
		// By the descriptor's own file; only to a group that one is in.
		if err := chgrp(f, c.Group); err != nil {
			return &quire.Error{Kind: quire.KindForbidden, Message: "The group can be changed only to one that you are in.", Err: err}
		}
	}
	if err := writeList(f, acl.Access, list); err != nil {
		return err
	}
	if dir && c.Inherit {
		return writeList(f, acl.Default, c.Access)
	}
	return nil
}

func chgrp(f *os.File, gid int) error {
	r, err := unix.Open(procPath(f), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(r)
	return unix.Fchown(r, -1, gid)
}

// walk calls do for all that is beneath an open directory.
func walk(ctx context.Context, dir *os.File, path string, p *Progress, report Report, depth int, do func(*os.File, *unix.Stat_t) error) error {
	d, err := beneath(int(dir.Fd()), "", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		p.fail(path, err)
		return nil
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil || depth > maxDepth {
		p.fail(path, explain(errors.Join(err, quire.Failed("The directory cannot be read to its end.", err)), path))
		return nil
	}
	for _, n := range names {
		if err := ctx.Err(); err != nil {
			return err
		}
		at := join(path, n)
		f, err := beneath(int(d.Fd()), n, unix.O_PATH|unix.O_NOFOLLOW, 0)
		if err != nil {
			p.fail(at, err)
			continue
		}
		var st unix.Stat_t
		err = unix.Fstat(int(f.Fd()), &st)
		kind := entryOf(n, &st).Kind
		if err == nil && (kind == File || kind == Directory) && !strings.HasPrefix(n, tempPrefix) {
			count(p, at, do(f, &st))
			if (p.Items+p.Failed)%256 == 0 {
				report(*p)
			}
			if kind == Directory {
				err = walk(ctx, f, at, p, report, depth+1, do)
			}
		}
		f.Close()
		if err != nil && ctx.Err() != nil {
			return err
		}
	}
	return nil
}

// A Grant of Share: to one person, to read or also to write.
type Grant struct {
	UID   uint32
	Write bool
}

// Share gives a person an entry on a file or on a directory and all beneath it,
// and on each directory on the way the right to pass through it, which shows
// nothing of what else is there. The rights of everybody else stay what they are.
func (t *Tree) Share(ctx context.Context, path string, g Grant, report Report) (Progress, error) {
	var p Progress
	path, err := t.clean(path)
	if err != nil {
		return p, err
	}
	if path == "" {
		return p, quire.Invalid("path", "The top directory is shared by adding people to the team.")
	}
	f, st, err := t.hold(path)
	if err != nil {
		return p, err
	}
	defer f.Close()
	grant := func(f *os.File, st *unix.Stat_t) error { return g.apply(f, st, false) }
	// First the way: without it the rest is useless.
	for dir, _ := split(path); dir != ""; dir, _ = split(dir) {
		way, wst, err := t.hold(dir)
		if err != nil {
			return p, err
		}
		err = g.apply(way, &wst, true)
		way.Close()
		if err != nil {
			e := quire.AsError(explain(err, dir))
			return p, &quire.Error{Kind: quire.KindForbidden, Message: "The directory " + strings.ToValidUTF8(dir, "�") + " on the way belongs to somebody else, who has to let them through.", Err: e}
		}
	}
	if err := grant(f, &st); err != nil {
		return p, explain(err, path)
	}
	p.Items++
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		err = walk(ctx, f, path, &p, report, 0, grant)
	}
	return p, err
}

// apply adds the person to one entry; to pass only, to one that lies on the way.
func (g Grant) apply(f *os.File, st *unix.Stat_t, way bool) error {
	list, err := accessList(f, st)
	if err != nil {
		return err
	}
	dir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	want := uint16(acl.Read)
	if g.Write {
		want |= acl.Write
	}
	if dir || st.Mode&0o111 != 0 {
		want |= acl.Execute
	}
	if way {
		want = acl.Execute
	}
	if has(list, g.UID, want) {
		return nil
	}
	if uid := os.Geteuid(); st.Uid != uint32(uid) && uid != 0 {
		return quire.Forbidden("It belongs to somebody else, who alone can share it.")
	}
	if err := writeList(f, acl.Access, with(list, g.UID, want)); err != nil {
		return err
	}
	if !dir || way {
		return nil
	}
	def, err := readList(f, acl.Default)
	if err != nil {
		return err
	}
	if def == nil {
		def = list // what is made here would have had about these
		def = slices.DeleteFunc(slices.Clone(def), func(e acl.Entry) bool { return e.Tag == acl.User || e.Tag == acl.Named || e.Tag == acl.Mask })
	}
	return writeList(f, acl.Default, with(def, g.UID, want))
}

// has reports whether a list already gives a person at least the rights.
func has(list []acl.Entry, uid uint32, want uint16) bool {
	mask := uint16(7)
	var perm uint16
	for _, e := range list {
		switch {
		case e.Tag == acl.Mask:
			mask = e.Perm
		case e.Tag == acl.User && e.ID == uid:
			perm = e.Perm
		}
	}
	return perm&mask&want == want
}

// with adds rights of a person to a list. The mask grows as it must; entries
// that the old mask narrowed are narrowed in themselves, so that nobody else
// gains by it.
func with(list []acl.Entry, uid uint32, want uint16) []acl.Entry {
	mask := uint16(7)
	for _, e := range list {
		if e.Tag == acl.Mask {
			mask = e.Perm
		}
	}
	out := make([]acl.Entry, 0, len(list)+2)
	var widest uint16
	found := false
	for _, e := range list {
		switch e.Tag {
		case acl.Mask:
			continue
		case acl.User, acl.Named, acl.Group:
			e.Perm &= mask
			if e.Tag == acl.User && e.ID == uid {
				e.Perm |= want
				found = true
			}
			widest |= e.Perm
		}
		out = append(out, e)
	}
	if !found {
		out = append(out, acl.Entry{Tag: acl.User, ID: uid, Perm: want})
		widest |= want
	}
	return append(out, acl.Entry{Tag: acl.Mask, Perm: widest})
}
