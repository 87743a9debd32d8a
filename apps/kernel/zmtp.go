package kernel

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// A wire is one ZeroMQ connection to a socket of the kernel: ZMTP 3.0 with the
// NULL mechanism (rfc.zeromq.org/spec/23), over a unix socket. We only ever
// connect, to sockets of one peer, so there is nothing to route or to balance;
// what we need beyond that, and libraries do not have, is a bound on what a kernel
// may make us hold.
type wire struct {
	conn net.Conn
	in   *bufio.Reader

	mu  sync.Mutex // writing
	out *bufio.Writer
}

const (
	flagMore    = 1
	flagLong    = 2
	flagCommand = 4

	handshakeLimit = 5 * time.Second
	maxFrames      = 4096 // of one message
)

// maxMessage bounds what one message of a kernel may hold, in bytes. It is more
// than any output that a page can show.
const maxMessage = 256 << 20

var errHuge = fmt.Errorf("the message has more than %d MB", maxMessage>>20)

// dial connects to a socket of the kernel. A kernel answers to an identity, which
// its stdin socket must know from its shell socket. kind is DEALER, SUB or REQ.
func dial(path, kind, identity string) (*wire, error) {
	conn, err := net.Dial("unix", path)
	if err != nil {
		return nil, err
	}
	w := &wire{conn: conn, in: bufio.NewReaderSize(conn, 32<<10), out: bufio.NewWriterSize(conn, 32<<10)}
	_ = conn.SetDeadline(time.Now().Add(handshakeLimit))
	if err := w.greet(kind, identity); err != nil {
		conn.Close()
		return nil, fmt.Errorf("zmtp: %w", err)
	}
	_ = conn.SetDeadline(time.Time{})
	return w, nil
}

func (w *wire) greet(kind, identity string) error {
	greeting := make([]byte, 64)
	greeting[0], greeting[9], greeting[10] = 0xFF, 0x7F, 3
	copy(greeting[12:], "NULL")
	ready := append([]byte("\x05READY"), property("Socket-Type", kind)...)
	if kind != "SUB" {
		ready = append(ready, property("Identity", identity)...)
	}
	if _, err := w.conn.Write(greeting); err != nil {
		return err
	}
	theirs := make([]byte, 64)
	if _, err := io.ReadFull(w.in, theirs); err != nil {
		return err
	}
	if theirs[0] != 0xFF || theirs[9]&1 == 0 || theirs[10] < 3 || !bytes.Equal(bytes.TrimRight(theirs[12:32], "\x00"), []byte("NULL")) {
		return errors.New("the other side does not speak ZMTP 3 without encryption")
	}
	if err := w.frame(flagCommand, ready); err != nil {
		return err
	}
	if err := w.out.Flush(); err != nil {
		return err
	}
	flags, body, err := w.readFrame(64 << 10)
	if err != nil {
		return err
	}
	if flags&flagCommand == 0 || !bytes.HasPrefix(body, []byte("\x05READY")) {
		return errors.New("the other side is not ready")
	}
	if kind == "SUB" { // to everything
		return w.send([]byte{1})
	}
	return nil
}

func property(name, value string) []byte {
	b := append([]byte{byte(len(name))}, name...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(value)))
	return append(b, value...)
}

// frame writes without flushing; mu is held, or nobody else knows w yet.
func (w *wire) frame(flags byte, body []byte) error {
	if len(body) > 255 {
		head := binary.BigEndian.AppendUint64([]byte{flags | flagLong}, uint64(len(body)))
		if _, err := w.out.Write(head); err != nil {
			return err
		}
	} else if _, err := w.out.Write([]byte{flags, byte(len(body))}); err != nil {
		return err
	}
	_, err := w.out.Write(body)
	return err
}

// send writes one message. It waits while the kernel does not take it.
func (w *wire) send(frames ...[]byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, f := range frames {
		var flags byte
		if i < len(frames)-1 {
			flags = flagMore
		}
		if err := w.frame(flags, f); err != nil {
			return err
		}
	}
	return w.out.Flush()
}

func (w *wire) readFrame(limit uint64) (flags byte, body []byte, err error) {
	if flags, err = w.in.ReadByte(); err != nil {
		return 0, nil, err
	}
	var n uint64
	if flags&flagLong != 0 {
		var long [8]byte
		if _, err = io.ReadFull(w.in, long[:]); err != nil {
			return 0, nil, err
		}
		n = binary.BigEndian.Uint64(long[:])
	} else {
		short, err := w.in.ReadByte()
		if err != nil {
			return 0, nil, err
		}
		n = uint64(short)
	}
	if n > limit {
		// Passed over, so that what follows can be read.
		if _, err := io.CopyN(io.Discard, w.in, int64(min(n, 1<<62))); err != nil {
			return 0, nil, err
		}
		return flags, nil, errHuge
	}
	// A length alone reserves no memory: the bytes must come.
	if n <= 64<<10 {
		body = make([]byte, n)
		_, err = io.ReadFull(w.in, body)
		return flags, body, err
	}
	var b bytes.Buffer
	if _, err = io.CopyN(&b, w.in, int64(n)); err != nil {
		return 0, nil, err
	}
	return flags, b.Bytes(), nil
}

// receive reads one message. errHuge is returned for one that is too long, which
// is passed over; any other error ends the connection.
func (w *wire) receive() ([][]byte, error) {
	var frames [][]byte
	var huge error
	left := uint64(maxMessage)
	for {
		flags, body, err := w.readFrame(left)
		if err != nil && !errors.Is(err, errHuge) {
			return nil, err
		}
		if flags&flagCommand != 0 { // PING and the like: nothing that NULL peers need
			continue
		}
		if err != nil || len(frames) == maxFrames {
			huge, frames = errHuge, nil
		}
		if huge == nil {
			left -= uint64(len(body))
			frames = append(frames, body)
		}
		if flags&flagMore == 0 {
			return frames, huge
		}
	}
}

func (w *wire) close() { w.conn.Close() }
