package remote

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"quire"
)

// A stream of files is a connection of its own. First comes the order, then
// pieces of four bytes of length and that; an empty one is the end. The answer is
// one more piece. Who asks may go away at any time, which ends the work; who
// answers may do so before all has come.
const (
	filesProtocol = "quire-files"
	maxPiece      = 1 << 20
)

type pieces struct {
	r    io.Reader
	left int
	done bool
}

// Read gives what is in the pieces up to the empty one.
func (p *pieces) Read(b []byte) (int, error) {
	for p.left == 0 {
		if p.done {
			return 0, io.EOF
		}
		n, err := length(p.r)
		if err != nil {
			return 0, err
		}
		p.left, p.done = n, n == 0
	}
	n, err := p.r.Read(b[:min(len(b), p.left)])
	p.left -= n
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

func length(r io.Reader) (int, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return 0, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > maxPiece {
		return 0, fmt.Errorf("a piece of %d bytes", n)
	}
	return int(n), nil
}

type inPieces struct{ w io.Writer }

func (p inPieces) Write(b []byte) (n int, err error) {
	for len(b) > 0 {
		part := b[:min(len(b), maxPiece)]
		if err := piece(p.w, part); err != nil {
			return n, err
		}
		n, b = n+len(part), b[len(part):]
	}
	return n, nil
}

func piece(w io.Writer, b []byte) error {
	v := net.Buffers{binary.BigEndian.AppendUint32(nil, uint32(len(b))), b}
	_, err := v.WriteTo(w)
	return err
}

func readPiece(r io.Reader) ([]byte, error) {
	n, err := length(r)
	if err != nil {
		return nil, err
	}
	b := make([]byte, n)
	_, err = io.ReadFull(r, b)
	return b, err
}

// outcome is the answer.
type outcome struct {
	Receipt quire.Receipt `json:"receipt"`
	Error   *quire.Error  `json:"error,omitempty"`
}

// files opens a stream and sends the order.
func (m *Machine) files(ctx context.Context, path string, order []byte) (net.Conn, *bufio.Reader, error) {
	conn, err := m.connect(ctx)
	if err != nil {
		return nil, nil, m.away(err)
	}
	br, err := upgrade(ctx, m.id, RoleCompute, conn, path, filesProtocol, nil)
	if quire.KindOf(err) == quire.KindUnavailable {
		err = quire.Unavailable("The node cannot send or take in files. If it runs an older version of Quire, upgrade it first.", err)
	}
	if err != nil {
		return nil, nil, m.away(err)
	}
	if err := piece(conn, order); err != nil {
		conn.Close()
		return nil, nil, m.away(err)
	}
	return conn, br, nil
}

func (m *Machine) outcome(br io.Reader) (quire.Receipt, error) {
	var o outcome
	b, err := readPiece(br)
	if err == nil {
		err = json.Unmarshal(b, &o)
	}
	if err != nil {
		return quire.Receipt{}, m.away(err)
	}
	if o.Error != nil {
		return quire.Receipt{}, o.Error
	}
	return o.Receipt, nil
}

// Send implements quire.Machine.
func (m *Machine) Send(ctx context.Context, order []byte, to io.Writer) (quire.Receipt, error) {
	conn, br, err := m.files(ctx, "/send", order)
	if err != nil {
		return quire.Receipt{}, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	from := &pieces{r: br}
	buf := make([]byte, 256<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return quire.Receipt{}, err
			}
		}
		if errors.Is(err, io.EOF) {
			return m.outcome(br)
		}
		if err != nil {
			return quire.Receipt{}, m.away(err)
		}
	}
}

// Receive implements quire.Machine.
func (m *Machine) Receive(ctx context.Context, order []byte, from io.Reader) (quire.Receipt, error) {
	conn, br, err := m.files(ctx, "/receive", order)
	if err != nil {
		return quire.Receipt{}, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	go func() {
		_, err := io.CopyBuffer(inPieces{conn}, struct{ io.Reader }{from}, make([]byte, 256<<10))
		if err == nil {
			err = piece(conn, nil)
		}
		if err != nil {
			// What is on its way may be an answer that says why; not for long.
			conn.SetReadDeadline(time.Now().Add(shortCall))
			CloseWrite(conn)
		}
	}()
	// It may be answered before all has come; whoever writes to from lets go then.
	return m.outcome(br)
}

// files answers a stream of files with what work does.
func (n *nodeHandler) files(w http.ResponseWriter, r *http.Request, drain bool, work func(ctx context.Context, order []byte, conn net.Conn, br io.Reader) (quire.Receipt, error)) error {
	if r.Header.Get("Upgrade") != filesProtocol {
		return quire.Invalid("", "Files need the upgrade.")
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
	conn, br, err := hijack(w, r, filesProtocol)
	if err != nil {
		cancel()
		return err
	}
	go func() {
		defer cancel()
		defer conn.Close()
		conn.SetReadDeadline(time.Now().Add(shortCall))
		order, err := readPiece(br)
		conn.SetReadDeadline(time.Time{})
		var o outcome
		if err == nil {
			o.Receipt, err = work(ctx, order, conn, br)
		}
		if err != nil {
			o.Error = quire.AsError(err)
			n.log.Warn("files", "path", r.URL.Path, "error", err)
		}
		b, err := json.Marshal(o)
		if err == nil {
			conn.SetWriteDeadline(time.Now().Add(shortCall))
			err = piece(conn, b)
		}
		if err != nil {
			n.log.Warn("files", "path", r.URL.Path, "error", err)
			return
		}
		if drain { // what is still on its way must not make the kernel throw the answer away
			CloseWrite(conn)
			conn.SetReadDeadline(time.Now().Add(shortCall))
			io.Copy(io.Discard, br)
		}
	}()
	return nil
}

func (n *nodeHandler) send(w http.ResponseWriter, r *http.Request, _ quire.NodeID) error {
	return n.files(w, r, false, func(ctx context.Context, order []byte, conn net.Conn, br io.Reader) (quire.Receipt, error) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		go func() { // nothing comes but the end of whoever asks
			io.Copy(io.Discard, br)
			cancel()
		}()
		rec, err := n.machine.Send(ctx, order, inPieces{conn})
		if err := piece(conn, nil); err != nil {
			return rec, err
		}
		return rec, err
	})
}

func (n *nodeHandler) receive(w http.ResponseWriter, r *http.Request, _ quire.NodeID) error {
	return n.files(w, r, true, func(ctx context.Context, order []byte, _ net.Conn, br io.Reader) (quire.Receipt, error) {
		return n.machine.Receive(ctx, order, &pieces{r: br})
	})
}
