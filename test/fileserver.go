package test

import (
	"bytes"
	bytewise "encoding/binary"
	"fmt"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"quire/acl"
)

// A FileServer is a small file system in memory that the kernel mounts by FUSE: it
// behaves as file servers do that we cannot have here. It has what a probe and
// an empty project need, and cannot replace "unless it exists" in a rename, as
// NFS cannot.
type FileServer struct {
	Squash bool // root is nobody and may do nothing
	Fold   bool // A is a
	Lists  bool // access lists are stored
	Pass   bool // and passed on to what is made in a directory
	Obey   bool // and obeyed, by the kernel

	mu    sync.Mutex
	nodes map[uint64]*served
	calm  chan struct{} // while it is there and open, nothing is answered
}

type served struct {
	mode, uid, gid uint32
	data           []byte
	names          map[string]uint64
	lists          map[string][]byte
}

// Mount mounts it.
func (s *FileServer) Mount(t testing.TB, dir string) {
	t.Helper()
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other", fd)
	if s.Obey {
		options += ",default_permissions"
	}
	s.nodes = map[uint64]*served{1: {mode: unix.S_IFDIR | 0o711, names: map[string]uint64{}, lists: map[string][]byte{}}}
	if err := unix.Mount("server", dir, "fuse", 0, options); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	t.Cleanup(func() {
		_ = unix.Unmount(dir, unix.MNT_DETACH)
		<-ended
	})
	go func() {
		defer close(ended)
		defer unix.Close(fd)
		b := make([]byte, 1<<20)
		for {
			n, err := unix.Read(fd, b)
			if err == unix.EINTR || err == unix.ENOENT {
				continue
			}
			if err != nil {
				return // unmounted
			}
			s.mu.Lock()
			calm := s.calm
			s.mu.Unlock()
			if calm != nil {
				<-calm
			}
			s.answer(fd, b[:n])
		}
	}()
}

// Hang lets whoever asks wait, until again is called.
func (s *FileServer) Hang() (again func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calm = make(chan struct{})
	return sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		close(s.calm)
		s.calm = nil
	})
}

func (s *FileServer) answer(fd int, b []byte) {
	order := bytewise.NativeEndian
	code, unique, id, uid, gid := order.Uint32(b[4:]), order.Uint64(b[8:]), order.Uint64(b[16:]), order.Uint32(b[24:]), order.Uint32(b[28:])
	if code == 2 || code == 36 || code == 42 { // forget, interrupt
		return
	}
	out, e := s.do(code, id, uid, gid, b[40:])
	if e != 0 {
		out = nil
	}
	head := order.AppendUint32(nil, uint32(16+len(out)))
	head = order.AppendUint32(head, uint32(-int32(e)))
	head = order.AppendUint64(head, unique)
	_, _ = unix.Write(fd, append(head, out...))
}

func (s *FileServer) do(code uint32, id uint64, uid, gid uint32, b []byte) ([]byte, unix.Errno) {
	order := bytewise.NativeEndian
	n := s.nodes[id]
	if n == nil && code != 26 && code != 38 { // which are about no file
		return nil, unix.ESTALE
	}
	name := func(b []byte) (string, []byte) {
		text, rest, _ := bytes.Cut(b, []byte{0})
		if s.Fold {
			return strings.ToLower(string(text)), rest
		}
		return string(text), rest
	}
	put := func(at string, mode uint32) ([]byte, unix.Errno) {
		if s.Squash {
			return nil, unix.EACCES
		}
		if n.names[at] != 0 {
			return nil, unix.EEXIST
		}
		made := &served{mode: mode, uid: uid, gid: gid, names: map[string]uint64{}, lists: map[string][]byte{}}
		if list := n.lists[string(acl.Default)]; s.Pass && list != nil {
			made.lists[string(acl.Access)] = list
		}
		next := uint64(len(s.nodes)) + 1
		s.nodes[next], n.names[at] = made, next
		return s.entry(next), 0
	}
	switch code {
	case 1: // lookup
		at, _ := name(b)
		if n.names[at] == 0 {
			return nil, unix.ENOENT
		}
		return s.entry(n.names[at]), 0
	case 3: // getattr
		return append(make([]byte, 16), s.attr(id)...), 0
	case 4: // setattr
		valid := order.Uint32(b)
		if valid&1 != 0 {
			n.mode = n.mode&unix.S_IFMT | order.Uint32(b[68:])&0o7777
		}
		if valid&2 != 0 {
			n.uid = order.Uint32(b[76:])
		}
		if valid&4 != 0 {
			n.gid = order.Uint32(b[80:])
		}
		return append(make([]byte, 16), s.attr(id)...), 0
	case 8: // mknod
		at, _ := name(b[16:])
		return put(at, order.Uint32(b))
	case 9: // mkdir
		at, _ := name(b[8:])
		return put(at, unix.S_IFDIR|order.Uint32(b))
	case 10, 11: // unlink, rmdir
		at, _ := name(b)
		switch gone := n.names[at]; {
		case gone == 0:
			return nil, unix.ENOENT
		case code == 11 && len(s.nodes[gone].names) > 0:
			return nil, unix.ENOTEMPTY
		}
		delete(n.names, at)
		return nil, 0
	case 12: // rename
		from, rest := name(b[8:])
		to, _ := name(rest)
		target := s.nodes[order.Uint64(b)]
		target.names[to] = n.names[from]
		delete(n.names, from)
		return nil, 0
	case 13: // link
		at, _ := name(b[8:])
		if n.names[at] != 0 {
			return nil, unix.EEXIST
		}
		n.names[at] = order.Uint64(b)
		return s.entry(n.names[at]), 0
	case 15: // read
		from, size := order.Uint64(b[8:]), uint64(order.Uint32(b[16:]))
		from = min(from, uint64(len(n.data)))
		return n.data[from:min(from+size, uint64(len(n.data)))], 0
	case 16: // write
		n.data = append(n.data[:order.Uint64(b[8:])], b[40:]...)
		return order.AppendUint64(nil, uint64(len(b)-40)), 0
	case 17: // statfs
		out := make([]byte, 80)
		for i, v := range []uint64{1 << 20, 1 << 19, 1 << 19, 1 << 16, 1 << 15} {
			order.PutUint64(out[8*i:], v)
		}
		order.PutUint32(out[40:], 4096)
		order.PutUint32(out[44:], 255)
		order.PutUint32(out[48:], 4096)
		return out, 0
	case 21: // setxattr
		at, value := name(b[8:])
		if !s.Lists {
			return nil, unix.EOPNOTSUPP
		}
		n.lists[at] = bytes.Clone(value)
		if list, err := acl.Decode(value); err == nil && at == string(acl.Access) {
			for _, e := range list {
				if e.Tag == acl.Mask {
					n.mode = n.mode&^0o070 | uint32(e.Perm)<<3
				}
			}
		}
		return nil, 0
	case 22: // getxattr
		at, _ := name(b[8:])
		value, size := n.lists[at], order.Uint32(b)
		switch {
		case !s.Lists:
			return nil, unix.EOPNOTSUPP
		case value == nil:
			return nil, unix.ENODATA
		case size == 0:
			return order.AppendUint64(nil, uint64(len(value))), 0
		case int(size) < len(value):
			return nil, unix.ERANGE
		}
		return value, 0
	case 18, 20, 25, 29, 30, 38: // release, fsync, flush, releasedir, fsyncdir, destroy
		return nil, 0
	case 26: // init
		out := make([]byte, 64)
		order.PutUint32(out, 7)
		order.PutUint32(out[4:], 31)
		if s.Obey {
			order.PutUint32(out[12:], 1<<20) // the kernel reads the lists
		}
		order.PutUint32(out[20:], 64<<10)
		return out, 0
	}
	return nil, unix.ENOSYS
}

func (s *FileServer) attr(id uint64) []byte {
	n, order := s.nodes[id], bytewise.NativeEndian
	out := make([]byte, 88)
	order.PutUint64(out, id)
	order.PutUint64(out[8:], uint64(len(n.data)))
	for i, v := range []uint32{n.mode, 1, n.uid, n.gid, 0, 4096} {
		order.PutUint32(out[60+4*i:], v)
	}
	return out
}

func (s *FileServer) entry(id uint64) []byte {
	return append(bytewise.NativeEndian.AppendUint64(nil, id), append(make([]byte, 32), s.attr(id)...)...)
}
