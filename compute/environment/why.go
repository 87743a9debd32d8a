package environment

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"quire"
	"quire/acl"
)

// may asks the kernel what we may do with a place of the project: it knows all
// that matters, and says no more than yes or no.
func may(_ context.Context, o options) (Result, error) {
	top, err := unix.Open(o.dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return Result{}, nil // not even there
	}
	defer unix.Close(top)
	// Not beyond the project, where a link may point: what he has elsewhere is his.
	held, err := unix.Openat2(top, below(o.path), &unix.OpenHow{Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: stay})
	if err != nil {
		return Result{}, nil
	}
	defer unix.Close(held)
	var st unix.Stat_t
	if unix.Fstat(held, &st) != nil || st.Mode&unix.S_IFMT == unix.S_IFLNK {
		return Result{}, nil // a link has no rights of its own
	}
	var words []string
	for _, ask := range []struct {
		word string
		mode uint32
	}{{"read", unix.R_OK}, {"write", unix.W_OK}, {"enter", unix.X_OK}} {
		switch err := unix.Faccessat(held, "", ask.mode, unix.AT_EACCESS|unix.AT_EMPTY_PATH); {
		case err == nil:
			words = append(words, ask.word)
		case errors.Is(err, unix.EROFS):
			words = append(words, "readonly")
		}
	}
	return Result{Note: strings.Join(words, " ")}, nil
}

// below is a path as one inside the project; the project itself is ".".
func below(path string) string { return filepath.Clean("." + filepath.Clean("/"+path)) }

// asked is somebody whom the kernel's rules are asked about.
type asked struct {
	uid    uint32
	groups []uint32
}

// class is the entry that decides for him, as acl(5) has it: the owner's, his
// own, the best of his groups', or that of all others. The mask bounds all but
// the owner's and the others'.
func (a asked) class(list []acl.Entry, uid, gid uint32) (what string, perm, mask uint16) {
	mask = acl.Limit(list)
	var owner, group, other uint16
	member := false
	for _, e := range list {
		switch e.Tag {
		case acl.Owner:
			owner = e.Perm
		case acl.Other:
			other = e.Perm
		}
	}
	if a.uid == uid {
		return "owner", owner, 7
	}
	for _, e := range list {
		if e.Tag == acl.User && e.ID == a.uid {
			return "entry", e.Perm, mask
		}
		if e.Tag == acl.Group && slices.Contains(a.groups, gid) || e.Tag == acl.Named && slices.Contains(a.groups, e.ID) {
			member = true
			group |= e.Perm
		}
	}
	if member {
		return "group", group, mask
	}
	return "other", other, 7
}

// why says, by the kernel's rules, why somebody cannot change a file: it runs as
// the project's owner, who sees the lists, and goes down to the file.
func why(ctx context.Context, o options) (Result, error) {
	w, err := newWalk(ctx, o)
	if err != nil {
		return Result{}, err
	}
	defer w.close()
	who := asked{uid: uint32(o.who)}
	for _, word := range strings.Split(o.groups, ",") {
		if n, err := strconv.ParseUint(word, 10, 32); err == nil {
			who.groups = append(who.groups, uint32(n))
		}
	}
	parts := strings.Split(below(o.path), "/")
	at := "."
	var why []string
	for i := -1; i < len(parts); i++ {
		if i >= 0 {
			at = filepath.Join(at, parts[i])
		}
		last := i == len(parts)-1
		held, err := unix.Openat2(int(w.top.Fd()), at, &unix.OpenHow{Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: stay})
		switch {
		case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
			return Result{}, quire.Invalid("path", "There is no "+strconv.Quote(at)+" in the project.")
		case errors.Is(err, unix.ELOOP):
			return Result{}, quire.Invalid("path", strconv.Quote(at)+" is reached by a link. Ask about the place it leads to.")
		case errors.Is(err, unix.EACCES):
			why = append(why, "The project's owner may not enter the directory above "+strconv.Quote(at)+" either. Whoever owns that directory must open it.")
			return Result{Note: strings.Join(why, "\n")}, nil
		case err != nil:
			return Result{}, quire.Failed("The file cannot be looked at.", err)
		}
		said, err := w.judge(held, at, last, who)
		unix.Close(held)
		if err != nil {
			return Result{}, err
		}
		why = append(why, said...)
	}
	return Result{Note: strings.Join(why, "\n")}, nil
}

// judge says what one step on the way denies.
func (w *walk) judge(fd int, path string, last bool, who asked) (said []string, err error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		return []string{strconv.Quote(path) + " is a link. Ask about the place it leads to."}, nil
	}
	list, err := acl.GetHeld(fd, acl.Access)
	if err != nil {
		return nil, quire.Failed("The access list of "+strconv.Quote(path)+" cannot be read.", err)
	}
	if list == nil {
		list = acl.FromMode(st.Mode)
	}
	dir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	need, verb := uint16(acl.Execute), "enter"
	if last {
		need, verb = acl.Read|acl.Write, "change"
		if dir {
			need = all
		}
	}
	name := strconv.Quote(path)
	if path == "." {
		name = "the project's directory"
	}
	class, perm, mask := who.class(list, st.Uid, st.Gid)
	if perm&mask&need != need {
		how := fmt.Sprintf(" (%s of %s)", letters(perm&mask), letters(need))
		switch {
		case class == "owner":
			said = append(said, "He owns "+name+" but its mode takes the right from himself"+how+". chmod u+rwX gives it back.")
		case perm&need == need:
			said = append(said, "The mask of "+name+" hides the right to "+verb+" it"+how+": somebody made it private with chmod. The next start of the project, or \"setfacl -m m::rwX\" by its owner, opens it.")
		case class == "entry" && perm == 0:
			said = append(said, "An entry on "+name+" shuts him out"+how+".")
		case class == "entry":
			said = append(said, "His entry on "+name+" does not give the right to "+verb+" it"+how+".")
		case class == "group":
			said = append(said, "No entry on "+name+" names him, and his group may not "+verb+" it"+how+".")
		default:
			said = append(said, "No entry on "+name+" names him or a group of his, and others may not "+verb+" it"+how+".")
		}
		_, team := w.rights.team[st.Uid]
		switch {
		case path == ".":
		case !dir && st.Nlink > 1:
			said = append(said, fmt.Sprintf("It has %d names (hard links), so a repair leaves it alone: copy it and put the copy in its place.", st.Nlink))
		case st.Uid == who.uid, team:
		default:
			said = append(said, fmt.Sprintf("It belongs to uid %d, who is not in the team: a repair cannot change it. The owner can take over that author's files.", st.Uid))
		}
	}
	return said, nil
}

func letters(perm uint16) string {
	b := []byte("---")
	for i, bit := range []uint16{acl.Read, acl.Write, acl.Execute} {
		if perm&bit != 0 {
			b[i] = "rwx"[i]
		}
	}
	return string(b)
}
