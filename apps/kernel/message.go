package kernel

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// A Channel is one of the kernel's sockets, as Jupyter's messaging protocol calls
// it.
type Channel string

const (
	Shell   Channel = "shell"
	Control Channel = "control"
	Stdin   Channel = "stdin"
	IOPub   Channel = "iopub"
)

// A Message is one of Jupyter's messaging protocol 5, in the form in which it goes
// from process to process here and to browsers: the frame of the WebSocket protocol
// v1.kernel.websocket.jupyter.org (a count of offsets, the offsets, then channel,
// header, parent header, metadata, content and buffers, one after the other; all
// numbers little-endian, of 64 bits).
type Message struct {
	Channel Channel
	// Header, Parent, Metadata and Content are JSON, Buffers what belongs to it.
	Header, Parent, Metadata, Content []byte
	Buffers                           [][]byte

	raw         []byte // the frame, if there is one already
	head, cause *Header
}

// Header is what we look at of a header.
type Header struct {
	ID       string `json:"msg_id"`
	Type     string `json:"msg_type"`
	Session  string `json:"session"`
	Username string `json:"username"`
	Date     string `json:"date"`
	Version  string `json:"version"`
}

var errMessage = errors.New("this is no message of a kernel")

// ParseMessage reads a frame. The message shares its bytes.
func ParseMessage(b []byte) (Message, error) {
	m := Message{raw: b}
	if len(b) < 8 {
		return m, errMessage
	}
	n := binary.LittleEndian.Uint64(b)
	// Five parts and their end at least.
	if n < 6 || n > maxFrames || uint64(len(b)) < 8*(n+1) {
		return m, errMessage
	}
	parts := make([][]byte, n-1)
	at := binary.LittleEndian.Uint64(b[8:])
	if at != 8*(n+1) {
		return m, errMessage
	}
	for i := range parts {
		next := binary.LittleEndian.Uint64(b[8*(i+2):])
		if next < at || next > uint64(len(b)) {
			return m, errMessage
		}
		parts[i], at = b[at:next:next], next
	}
	m.Channel = Channel(parts[0])
	m.Header, m.Parent, m.Metadata, m.Content, m.Buffers = parts[1], parts[2], parts[3], parts[4], parts[5:]
	switch m.Channel {
	case Shell, Control, Stdin, IOPub:
		return m, nil
	}
	return m, errMessage
}

// Frame is the message in the form that ParseMessage reads.
func (m *Message) Frame() []byte {
	if m.raw != nil {
		return m.raw
	}
	parts := append([][]byte{[]byte(m.Channel), m.Header, m.Parent, m.Metadata, m.Content}, m.Buffers...)
	n := len(parts) + 1
	at := 8 * (n + 1)
	size := at
	for _, p := range parts {
		size += len(p)
	}
	b := make([]byte, 0, size)
	b = binary.LittleEndian.AppendUint64(b, uint64(n))
	for _, p := range parts {
		b = binary.LittleEndian.AppendUint64(b, uint64(at))
		at += len(p)
	}
	b = binary.LittleEndian.AppendUint64(b, uint64(at))
	for _, p := range parts {
		b = append(b, p...)
	}
	m.raw = b
	return b
}

// Head is the header.
func (m *Message) Head() Header { return parsed(&m.head, m.Header) }

// Cause is the header of the request that a message is about, if it names one.
func (m *Message) Cause() Header { return parsed(&m.cause, m.Parent) }

func parsed(known **Header, b []byte) Header {
	if *known == nil {
		h := new(Header)
		_ = json.Unmarshal(b, h)
		*known = h
	}
	return **known
}

// NewMessage makes a message of ours.
func NewMessage(c Channel, kind, session string, parent Header, content any) Message {
	h, _ := json.Marshal(Header{ID: newID(), Type: kind, Session: session, Username: "quire", Date: time.Now().UTC().Format(time.RFC3339Nano), Version: "5.3"})
	body, err := json.Marshal(content)
	if err != nil {
		panic(err) // our own structs
	}
	p := []byte("{}")
	if parent.ID != "" {
		p, _ = json.Marshal(parent)
	}
	return Message{Channel: c, Header: h, Parent: p, Metadata: []byte("{}"), Content: body}
}

func newID() string {
	b := make([]byte, 16)
	rand.Read(b)
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

var delimiter = []byte("<IDS|MSG>")

// seal gives the frames of a message as a kernel takes them: signed with the key
// of its connection file (HMAC-SHA256, Jupyter's messaging protocol, "Wire
// protocol").
func (m *Message) seal(key []byte) [][]byte {
	frames := [][]byte{delimiter, sign(key, m.Header, m.Parent, m.Metadata, m.Content), m.Header, m.Parent, m.Metadata, m.Content}
	return append(frames, m.Buffers...)
}

func sign(key []byte, parts ...[]byte) []byte {
	h := hmac.New(sha256.New, key)
	for _, p := range parts {
		h.Write(p)
	}
	return []byte(hex.EncodeToString(h.Sum(nil)))
}

// unseal reads the frames of a message from a kernel.
func unseal(c Channel, key []byte, frames [][]byte) (Message, error) {
	for len(frames) > 0 && !bytes.Equal(frames[0], delimiter) { // identities, or the topic
		frames = frames[1:]
	}
	if len(frames) < 6 {
		return Message{}, errMessage
	}
	m := Message{Channel: c, Header: frames[2], Parent: frames[3], Metadata: frames[4], Content: frames[5], Buffers: frames[6:]}
	if !hmac.Equal(frames[1], sign(key, frames[2:6]...)) {
		return m, errors.New("the signature is wrong")
	}
	for _, part := range frames[2:6] {
		if !json.Valid(part) {
			return m, errMessage
		}
	}
	if h := m.Head(); h.ID == "" || h.Type == "" {
		return m, errMessage
	}
	return m, nil
}
