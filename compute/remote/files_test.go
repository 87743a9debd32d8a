package remote

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"quire"
)

// Send gives what is in send, a piece at a time; Receive keeps what comes, or
// answers before.
func (f *fakeNode) Send(ctx context.Context, order []byte, to io.Writer) (quire.Receipt, error) {
	if string(order) == "wait" {
		close(f.asked)
		<-ctx.Done()
		close(f.gone)
		return quire.Receipt{}, ctx.Err()
	}
	for left := f.send; len(left) > 0; {
		n, err := to.Write(left[:min(len(left), 100_000)])
		if err != nil {
			return quire.Receipt{}, err
		}
		left = left[n:]
	}
	return quire.Receipt{Note: string(order)}, f.err
}

func (f *fakeNode) Receive(_ context.Context, order []byte, from io.Reader) (quire.Receipt, error) {
	if f.err != nil {
		return quire.Receipt{}, f.err
	}
	b, err := io.ReadAll(from)
	f.mu.Lock()
	f.got = b
	f.mu.Unlock()
	if err != nil {
		err = quire.Unavailable("It was cut off.", err)
	}
	return quire.Receipt{Note: string(order)}, err
}

// A stream of files carries everything once, and an error of either end, also
// before all has come. Whoever asks may go away.
func TestFiles(t *testing.T) {
	s := newSite(t, "site")
	server, node := s.identity(RoleServer, "n_server"), s.identity(RoleCompute, "n_one")
	f := &fakeNode{send: bytes.Repeat([]byte("0123456789abcdef"), 300_000), asked: make(chan struct{}), gone: make(chan struct{})}
	addr := serveTLS(t, node, NodeHandler(f, f, quietTest()), RoleServer, RoleGateway)
	m := NewMachine(server, "n_one", dialer(addr))
	defer m.Close()
	ctx := t.Context()

	var got bytes.Buffer
	if r, err := m.Send(ctx, []byte("order"), &got); err != nil || r.Note != "order" || !bytes.Equal(got.Bytes(), f.send) {
		t.Errorf("sent %d bytes of %d, %v %v", got.Len(), len(f.send), r, err)
	}
	if r, err := m.Receive(ctx, []byte("order"), bytes.NewReader(f.send)); err != nil || r.Note != "order" || !bytes.Equal(f.got, f.send) {
		t.Errorf("received %d bytes of %d, %v %v", len(f.got), len(f.send), r, err)
	}
	// The reader breaks: the node hears no end.
	broken := io.MultiReader(bytes.NewReader(f.send), iotest.ErrReader(errors.New("broken")))
	if _, err := m.Receive(ctx, []byte("order"), broken); quire.KindOf(err) != quire.KindUnavailable {
		t.Errorf("what broke off: %v", err)
	}
	asked, cancel := context.WithCancel(ctx)
	go func() {
		<-f.asked
		cancel()
	}()
	if _, err := m.Send(asked, []byte("wait"), io.Discard); err == nil {
		t.Error("it was sent although nobody waits")
	}
	<-f.gone // the node has heard of it
	f.err = quire.Failed("The node's disk is full.", nil)
	if _, err := m.Send(ctx, []byte("order"), io.Discard); err == nil || quire.AsError(err).Message != "The node's disk is full." {
		t.Errorf("an error of the sender: %v", err)
	}
	endless, w := io.Pipe()
	go func() {
		for {
			if _, err := w.Write(f.send); err != nil {
				return
			}
		}
	}()
	if _, err := m.Receive(ctx, []byte("order"), endless); err == nil || quire.AsError(err).Message != "The node's disk is full." {
		t.Errorf("an error of the receiver before all has come: %v", err)
	}
	endless.Close()
	gateway := NewMachine(s.identity(RoleGateway, "n_gw"), "n_one", dialer(addr))
	if _, err := gateway.Send(ctx, []byte("order"), io.Discard); err == nil {
		t.Error("a gateway is sent files")
	}
}
