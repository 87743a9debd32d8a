package remote

import (
	"io"
	"net"
	"sync"
	"syscall"
)

const (
	smallBuffer = 4 << 10
	largeBuffer = 32 << 10
)

// Buffers are lent to Sources while they have something to read.
type Buffers struct{ small, large sync.Pool }

// NewBuffers makes an empty stock.
func NewBuffers() *Buffers {
	b := &Buffers{}
	b.small.New = func() any { p := make([]byte, smallBuffer); return &p }
	b.large.New = func() any { p := make([]byte, largeBuffer); return &p }
	return b
}

// A Source reads a connection and holds no buffer while there is nothing to
// read, or a small one where the connection is not a plain socket: ten thousand
// idle streams must not hold twenty thousand buffers.
type Source struct {
	conn net.Conn
	raw  syscall.RawConn // nil: not a plain socket
	from *Buffers

	buf *[]byte
	n   int
	err error
	try func(uintptr) bool
}

// Source reads from c.
func (b *Buffers) Source(c net.Conn) *Source {
	s := &Source{conn: c, from: b}
	if sc, ok := c.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			s.raw, s.try = raw, s.read
		}
	}
	return s
}

// read is called by the runtime whenever the socket may have something.
func (s *Source) read(fd uintptr) bool {
	if s.buf == nil {
		s.buf = s.from.large.Get().(*[]byte)
	}
	for {
		s.n, s.err = syscall.Read(int(fd), *s.buf)
		switch s.err {
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
			s.Drop()
			return false
		}
		return true
	}
}

// Next waits for bytes. They are good until Drop or the next Next. At the end
// the error is io.EOF.
func (s *Source) Next() ([]byte, error) {
	if s.raw == nil {
		return s.next()
	}
	if err := s.raw.Read(s.try); err != nil {
		s.Drop()
		return nil, err
	}
	switch {
	case s.err != nil:
		return nil, s.err
	case s.n <= 0:
		return nil, io.EOF
	}
	return (*s.buf)[:s.n], nil
}

// next waits with a buffer whose size follows what came last.
func (s *Source) next() ([]byte, error) {
	busy := s.buf != nil && (s.n == len(*s.buf) || s.n > smallBuffer)
	if s.buf == nil || busy != (len(*s.buf) == largeBuffer) {
		s.Drop()
		if busy {
			s.buf = s.from.large.Get().(*[]byte)
		} else {
			s.buf = s.from.small.Get().(*[]byte)
		}
	}
	n, err := s.conn.Read(*s.buf)
	s.n = n
	return (*s.buf)[:n], err
}

// Drop gives the buffer back. Whoever is done with a Source calls it once more.
func (s *Source) Drop() {
	switch {
	case s.buf == nil:
	case len(*s.buf) == largeBuffer:
		s.from.large.Put(s.buf)
	default:
		s.from.small.Put(s.buf)
	}
	s.buf = nil
}

// CloseWrite ends the sending side of c, or all of it where that is not
// possible.
func CloseWrite(c net.Conn) error {
	if h, ok := c.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return c.Close()
}
