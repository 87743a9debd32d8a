// Package acl encodes, reads and writes POSIX access lists by file descriptor.
// It never takes a path, so it cannot follow one. acl(5) says what the entries
// mean.
package acl

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// A Tag says whom an entry is about.
type Tag uint16

const (
	Owner Tag = 0x01 // the file's owner
	User  Tag = 0x02 // a named user, ID is the uid
	Group Tag = 0x04 // the file's group
	Named Tag = 0x08 // a named group, ID is the gid
	Mask  Tag = 0x10 // upper bound of User, Group and Named
	Other Tag = 0x20 // everybody else
)

// Permission bits of an entry.
const (
	Execute = 1
	Write   = 2
	Read    = 4
)

// An Entry of an ACL.
type Entry struct {
	Tag  Tag
	ID   uint32
	Perm uint16
}

// A Kind is which of a directory's two ACLs is meant.
type Kind string

const (
	Access  Kind = "system.posix_acl_access"
	Default Kind = "system.posix_acl_default" // what new children start with
)

const (
	version = 2
	noID    = 0xffffffff
	// MaxNamed is how many named entries we write. The kernel's limit depends on
	// the file system; ext4 refuses a little above 500.
	MaxNamed = 400
)

// ErrTooMany is returned for more named entries than MaxNamed.
var ErrTooMany = errors.New("more people than one access list can hold; use a group")

// Encode gives the bytes of the extended attribute: entries in the order the
// kernel demands, with a mask added when named entries need one. An empty list
// takes the attribute away.
func Encode(entries []Entry) ([]byte, error) {
	list := slices.Clone(entries)
	named, mask := 0, false
	for _, e := range list {
		switch e.Tag {
		case User, Named:
			named++
		case Mask:
			mask = true
		}
	}
	if named > MaxNamed {
		return nil, ErrTooMany
	}
	if named > 0 && !mask {
		list = append(list, Entry{Tag: Mask, Perm: Widest(list)})
	}
	slices.SortFunc(list, func(a, b Entry) int {
		if c := cmp.Compare(a.Tag, b.Tag); c != 0 {
			return c
		}
		return cmp.Compare(a.ID, b.ID)
	})
	if err := Valid(list); err != nil {
		return nil, err
	}
	b := make([]byte, 4, 4+8*len(list))
	binary.LittleEndian.PutUint32(b, version)
	for _, e := range list {
		if e.Tag != User && e.Tag != Named {
			e.ID = noID
		}
		b = binary.LittleEndian.AppendUint16(b, uint16(e.Tag))
		b = binary.LittleEndian.AppendUint16(b, e.Perm)
		b = binary.LittleEndian.AppendUint32(b, e.ID)
	}
	return b, nil
}

// Decode reads an attribute's bytes; what the kernel would refuse is an error.
func Decode(b []byte) ([]Entry, error) {
	if len(b) < 4 || (len(b)-4)%8 != 0 || binary.LittleEndian.Uint32(b) != version {
		return nil, errors.New("not an access list")
	}
	list := make([]Entry, 0, (len(b)-4)/8)
	for b = b[4:]; len(b) > 0; b = b[8:] {
		e := Entry{Tag: Tag(binary.LittleEndian.Uint16(b)), Perm: binary.LittleEndian.Uint16(b[2:]), ID: binary.LittleEndian.Uint32(b[4:])}
		if e.Tag != User && e.Tag != Named {
			e.ID = 0
		}
		list = append(list, e)
	}
	return list, Valid(list)
}

// Valid says what is wrong with a list in the kernel's order, or nil: one entry
// each for owner, group and others, no name twice, and a mask where anybody is
// named. The empty list is valid.
func Valid(list []Entry) error {
	if len(list) == 0 {
		return nil
	}
	count := map[Tag]int{}
	for i, e := range list {
		if e.Perm&^(Read|Write|Execute) != 0 {
			return fmt.Errorf("access list: %#o is no permission", e.Perm)
		}
		switch e.Tag {
		case Owner, Group, Mask, Other:
		case User, Named:
			if e.ID == noID {
				return errors.New("access list: a named entry without a name")
			}
		default:
			return fmt.Errorf("access list: unknown tag %#x", uint16(e.Tag))
		}
		if i > 0 {
			switch before := list[i-1]; {
			case e.Tag < before.Tag, e.Tag == before.Tag && e.ID < before.ID:
				return errors.New("access list: entries are not in order")
			case e.Tag == before.Tag && e.ID == before.ID:
				return errors.New("access list: an entry is there twice")
			}
		}
		count[e.Tag]++
	}
	switch {
	case count[Owner] != 1 || count[Group] != 1 || count[Other] != 1:
		return errors.New("access list: owner, group or others are missing")
	case count[User]+count[Named] > 0 && count[Mask] == 0:
		return errors.New("access list: named entries without a mask")
	}
	return nil
}

// Widest is the mask that lets every entry count in full.
func Widest(list []Entry) (perm uint16) {
	for _, e := range list {
		if e.Tag == User || e.Tag == Group || e.Tag == Named {
			perm |= e.Perm
		}
	}
	return perm
}

// Limit is what the mask of a list lets through: everything if there is none.
func Limit(list []Entry) uint16 {
	for _, e := range list {
		if e.Tag == Mask {
			return e.Perm
		}
	}
	return Read | Write | Execute
}

// FromMode is the list that mode bits say.
func FromMode(mode uint32) []Entry {
	return []Entry{{Tag: Owner, Perm: uint16(mode >> 6 & 7)}, {Tag: Group, Perm: uint16(mode >> 3 & 7)}, {Tag: Other, Perm: uint16(mode & 7)}}
}

// Set writes an ACL to the open file or directory. Its owner or root may. For a
// descriptor that only holds a place (O_PATH), use SetHeld.
func Set(fd int, kind Kind, entries []Entry) error {
	b, err := Encode(entries)
	if err != nil {
		return err
	}
	if err := unix.Fsetxattr(fd, string(kind), b, 0); err != nil {
		return fmt.Errorf("setting the access list: %w", err)
	}
	return nil
}

// Get reads an ACL of the open file or directory; none is an empty list.
func Get(fd int, kind Kind) ([]Entry, error) {
	var few [usual]byte
	b := few[:]
	n, err := unix.Fgetxattr(fd, string(kind), b)
	if errors.Is(err, unix.ERANGE) {
		b = make([]byte, room)
		n, err = unix.Fgetxattr(fd, string(kind), b)
	}
	return read(b, n, err)
}

const (
	usual = 4 + 8*60
	room  = 4 + 8*1024 // for every list a file system holds
)

func read(b []byte, n int, err error) ([]Entry, error) {
	if errors.Is(err, unix.ENODATA) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the access list: %w", err)
	}
	return Decode(b[:n])
}

// SetHeld and GetHeld are for descriptors opened with O_PATH, which need no
// right to read the file: the kernel's own link to the descriptor leads to
// exactly what it holds.
func SetHeld(fd int, kind Kind, entries []Entry) error {
	b, err := Encode(entries)
	if err != nil {
		return err
	}
	if err := unix.Setxattr(held(fd), string(kind), b, 0); err != nil {
		return fmt.Errorf("setting the access list: %w", err)
	}
	return nil
}

// GetHeld reads as Get does.
func GetHeld(fd int, kind Kind) ([]Entry, error) {
	var few [usual]byte
	b, name := few[:], held(fd)
	n, err := unix.Getxattr(name, string(kind), b)
	if errors.Is(err, unix.ERANGE) {
		b = make([]byte, room)
		n, err = unix.Getxattr(name, string(kind), b)
	}
	return read(b, n, err)
}

func held(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }
