package kernel

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
)

// Between a server and the holder go packets:
//
//	length   uint32  of what follows
//	op       byte
//	kind     byte    of an entry
//	id       byte    its length, then the kernel's ID
//	n        int64   the entry's number, or the request's
//	data
//
// Numbers are little-endian.
type packet struct {
	op, kind byte
	id       string
	n        int64
	data     []byte
}

const (
	// From the server.
	opStart     = 'S' // data: Spec. Answered when the kernel is there
	opEnd       = 'X' // answered
	opRestart   = 'R' // answered
	opInterrupt = 'I' // answered
	opMessage   = 'M' // data: a message's frame
	opForget    = 'F' // n: everything up to it
	opMark      = 'C' // data: a client, n: how far it has heard
	// From the holder.
	opHello  = 'H' // data: Hello
	opEntry  = 'E' // n: its number, kind
	opAnswer = 'A' // n: the request's, data: {"Error"}
)

// A Hello is the first that a server is told.
type Hello struct {
	PID     int
	Kernels []Known
}

// Known is a kernel that was there already. Its kept entries follow.
type Known struct {
	State State
	Seq   int64            // of the newest entry
	Marks map[string]int64 // how far clients had heard
}

const maxPacket = maxMessage + 1<<20

// head is the packet without its data.
func (p packet) head() []byte {
	b := make([]byte, 0, 4+3+len(p.id)+8)
	b = binary.LittleEndian.AppendUint32(b, uint32(3+len(p.id)+8+len(p.data)))
	b = append(b, p.op, p.kind, byte(len(p.id)))
	b = append(b, p.id...)
	return binary.LittleEndian.AppendUint64(b, uint64(p.n))
}

func (p packet) encode() []byte { return append(p.head(), p.data...) }

func readPacket(r *bufio.Reader) (p packet, err error) {
	var n [4]byte
	if _, err = io.ReadFull(r, n[:]); err != nil {
		return p, err
	}
	length := binary.LittleEndian.Uint32(n[:])
	if length < 11 || length > maxPacket {
		return p, errors.New("the other side sent nonsense")
	}
	var b []byte
	if length <= 64<<10 {
		b = make([]byte, length)
		_, err = io.ReadFull(r, b)
	} else { // a length alone reserves no memory
		var buf bytes.Buffer
		_, err = io.CopyN(&buf, r, int64(length))
		b = buf.Bytes()
	}
	if err != nil {
		return p, err
	}
	id := int(b[2])
	if len(b) < 3+id+8 {
		return p, errors.New("the other side sent nonsense")
	}
	return packet{op: b[0], kind: b[1], id: string(b[3 : 3+id]), n: int64(binary.LittleEndian.Uint64(b[3+id:])), data: b[3+id+8:]}, nil
}
