package spawner

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"quire"
)

// The wire between compute and the spawner: one connection per question, each
// message four bytes of length and JSON, descriptors beside the first byte.
// compute/spawner.go is the other half.

// ask is a question. Only "order" can start anything; the others tell, tidy up
// or end what was ordered before.
type ask struct {
	Op      string          `json:"op"`              // "hello", "census", "order", "release", "end"
	Order   []byte          `json:"order,omitempty"` // signed by the server
	Session quire.SessionID `json:"session,omitempty"`

	// Env is of helpers: ours, never the asker's.
	Env []string `json:"-"`
}

// answer is the reply. Error is set or the rest is.
type answer struct {
	Error   *quire.Error `json:"error,omitempty"`
	Already bool         `json:"already,omitempty"`
	Note    string       `json:"note,omitempty"`
	Log     string       `json:"log,omitempty"`

	// Of a helper: what it printed on standard output.
	Output []byte `json:"output,omitempty"`

	// Of a started session.
	PID    int      `json:"pid,omitempty"`
	Start  uint64   `json:"start,omitempty"`  // clock ticks after boot
	Events []string `json:"events,omitempty"` // files that count kills by the memory limit
	// The least role that may open its app.
	MinRole quire.Role `json:"min_role,omitempty"`

	owners []uint32 // of a repair, for us only

	// Of a repair or a take-over.
	Findings []quire.Finding `json:"findings,omitempty"`
	More     bool            `json:"more,omitempty"`

	// Of a stream of files.
	Survey *quire.Survey `json:"survey,omitempty"`

	// Of an account.
	UID uint32 `json:"uid,omitempty"`

	// Of "census".
	Sessions []counted `json:"sessions,omitempty"`

	// Of "hello".
	Accounts string   `json:"accounts,omitempty"`
	Limits   string   `json:"limits,omitempty"`
	Messages []string `json:"messages,omitempty"`

	Storage *quire.Storage `json:"storage,omitempty"`

	Apps   []quire.App `json:"apps,omitempty"`
	Others []quire.App `json:"others,omitempty"` // what only a project's own environment may have
}

// counted is a session that lives.
type counted struct {
	Session quire.SessionID `json:"session"`
	User    quire.UserID    `json:"user"`
	Project quire.ProjectID `json:"project"`
	App     string          `json:"app"`
	MinRole quire.Role      `json:"min_role"`
	Ordered time.Time       `json:"ordered"`
	UID     uint32          `json:"uid"`
	PID     int             `json:"pid"`
	Start   uint64          `json:"start"`
	Events  []string        `json:"events,omitempty"`
}

const (
	maxMessage = 1 << 20
	maxFiles   = 1
	askLimit   = 5 * time.Second // for a question to arrive
)

func receive(c *net.UnixConn, v any) ([]*os.File, error) {
	var head [4]byte
	oob := make([]byte, unix.CmsgSpace(4*maxFiles))
	n, oobn, flags, _, err := c.ReadMsgUnix(head[:], oob)
	if err != nil {
		return nil, err
	}
	files, err := descriptors(oob[:oobn])
	if err == nil && flags&unix.MSG_CTRUNC != 0 {
		err = errors.New("too many descriptors")
	}
	if err == nil {
		_, err = io.ReadFull(c, head[n:])
	}
	size := binary.BigEndian.Uint32(head[:])
	if err == nil && size > maxMessage {
		err = errors.New("the message is too long")
	}
	var body []byte
	if err == nil {
		body = make([]byte, size)
		_, err = io.ReadFull(c, body)
	}
	if err == nil {
		err = json.Unmarshal(body, v)
	}
	if err != nil {
		closeAll(files)
		return nil, err
	}
	return files, nil
}

func descriptors(oob []byte) ([]*os.File, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	var files []*os.File
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			continue // credentials, say
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "received"))
		}
	}
	return files, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

func send(c *net.UnixConn, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = c.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...))
	return err
}
