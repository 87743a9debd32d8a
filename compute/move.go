package compute

import (
	"context"
	"errors"
	"io"
	"os"

	"quire"
)

// Send has the spawner look at a project's files, or send them: what it sends
// goes to the writer. It ends with ctx, as the files are read for whoever asks.
func (c *Compute) Send(ctx context.Context, order []byte, to io.Writer) (quire.Receipt, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return quire.Receipt{}, err
	}
	return c.stream(ctx, order, []quire.OrderType{quire.OrderSurvey, quire.OrderSend}, w, r, func() error {
		_, err := io.CopyBuffer(onlyWriter{to}, onlyReader{r}, make([]byte, streamBuffer))
		return err
	})
}

// Receive has the spawner make the files that come from the reader.
func (c *Compute) Receive(ctx context.Context, order []byte, from io.Reader) (quire.Receipt, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return quire.Receipt{}, err
	}
	return c.stream(ctx, order, []quire.OrderType{quire.OrderReceive}, r, w, func() error {
		_, err := io.CopyBuffer(onlyWriter{w}, onlyReader{from}, make([]byte, streamBuffer))
		w.Close() // it came to its end, or to ours
		if errors.Is(err, os.ErrClosed) || errors.Is(err, io.ErrClosedPipe) {
			err = nil // the spawner has what it wants, or says why it does not
		}
		return err
	})
}

const streamBuffer = 256 << 10

// A pipe and a socket would be joined in the kernel, where a deadline or a close
// of the other side is not noticed.
type (
	onlyReader struct{ io.Reader }
	onlyWriter struct{ io.Writer }
)

// stream gives the spawner an order with one end of a pipe, and copies at ours.
func (c *Compute) stream(ctx context.Context, order []byte, types []quire.OrderType, theirs, ours *os.File, copy func() error) (quire.Receipt, error) {
	defer ours.Close()
	defer theirs.Close()
	o, err := c.c.Verifier.Order(order, c.c.Node, c.c.Now())
	if err != nil {
		return quire.Receipt{}, quire.Forbidden("The node refused the order: " + err.Error() + ".")
	}
	known := false
	for _, t := range types {
		known = known || t == o.Type
	}
	if !known {
		return quire.Receipt{}, quire.Invalid("type", "This order is no stream of files, or goes the other way.")
	}
	c.c.Log.Info("order", "type", o.Type.String(), "order", o.ID, "project", o.Project)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(c.ctx, func() { cancel(errors.New("the node is shutting down")) })()
	// With ctx, our end closes: the spawner's then comes to its end, too.
	defer context.AfterFunc(ctx, func() { ours.Close() })()
	copied := make(chan error, 1)
	go func() {
		err := copy()
		if err != nil {
			cancel(err)
		}
		copied <- err
	}()
	a, err := c.spawner.ask(context.WithoutCancel(ctx), ask{Op: "order", Order: order}, theirs)
	theirs.Close()
	if o.Type != quire.OrderReceive { // the last of it is on the way
		if cerr := <-copied; cerr != nil && (err == nil || quire.KindOf(err) == quire.KindInternal) {
			err = quire.Unavailable("The files were not taken to the end.", errors.Join(cerr, err))
		}
	}
	return quire.Receipt{Note: a.Note, Survey: a.Survey}, err
}
