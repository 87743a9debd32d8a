package compute

import (
	"context"
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

// spawner is our end of the wire to root's process: one connection per
// question, four bytes of length and JSON each way. spawner/wire.go is the
// other end.
type spawner struct{ socket string }

type ask struct {
	Op      string          `json:"op"`
	Order   []byte          `json:"order,omitempty"`
	Session quire.SessionID `json:"session,omitempty"`
}

type answer struct {
	Error    *quire.Error    `json:"error"`
	Already  bool            `json:"already"`
	Note     string          `json:"note"`
	Log      string          `json:"log"`
	UID      uint32          `json:"uid"`
	Survey   *quire.Survey   `json:"survey"`
	Findings []quire.Finding `json:"findings"`
	More     bool            `json:"more"`
	PID      int             `json:"pid"`
	Start    uint64          `json:"start"`
	Events   []string        `json:"events"`
	Sessions []counted       `json:"sessions"`
	Accounts string          `json:"accounts"`
	Limits   string          `json:"limits"`
	Messages []string        `json:"messages"`
	Storage  *quire.Storage  `json:"storage"`
	Apps     []quire.App     `json:"apps"`
	Others   []quire.App     `json:"others"`
	MinRole  quire.Role      `json:"min_role"`
}

// counted is a session that the spawner holds and that lives.
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
	Events  []string        `json:"events"`
}

const maxAnswer = 1 << 20

// ask sends a question, with a descriptor beside it if file is not nil, and
// waits for the answer.
func (s spawner) ask(ctx context.Context, q ask, file *os.File) (answer, error) {
	a, err := s.exchange(ctx, q, file)
	if err != nil {
		if ctx.Err() != nil {
			return answer{}, ctx.Err()
		}
		return answer{}, quire.Unavailable("The node's spawner does not answer. It is started again by itself; try again in a few seconds.", err)
	}
	if a.Error != nil {
		return a, a.Error
	}
	return a, nil
}

// comesBack is how long a question waits for a spawner that is started again.
const comesBack = 5 * time.Second

// dial waits for a spawner that is being started again: nothing has been asked
// yet, so nothing is lost by it.
func (s spawner) dial(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	limit := time.Now().Add(comesBack)
	for {
		conn, err := d.DialContext(ctx, "unix", s.socket)
		if err == nil || ctx.Err() != nil || time.Now().After(limit) {
			return conn, err
		}
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (s spawner) exchange(ctx context.Context, q ask, file *os.File) (answer, error) {
	conn, err := s.dial(ctx)
	if err != nil {
		return answer{}, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	c, ok := conn.(*net.UnixConn)
	if !ok {
		return answer{}, errors.New("not a unix socket")
	}
	body, err := json.Marshal(q)
	if err != nil {
		return answer{}, err
	}
	message := append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
	var rights []byte
	if file != nil {
		rights = unix.UnixRights(int(file.Fd()))
	}
	n, _, err := c.WriteMsgUnix(message, rights, nil)
	if err == nil && n < len(message) {
		_, err = c.Write(message[n:])
	}
	if err != nil {
		return answer{}, err
	}
	var head [4]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return answer{}, err
	}
	size := binary.BigEndian.Uint32(head[:])
	if size > maxAnswer {
		return answer{}, errors.New("the answer is too long")
	}
	body = make([]byte, size)
	if _, err := io.ReadFull(c, body); err != nil {
		return answer{}, err
	}
	var a answer
	return a, json.Unmarshal(body, &a)
}
