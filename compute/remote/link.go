package remote

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"quire"
)

const (
	linkProtocol = "quire-link"
	beat         = time.Second
	silence      = 3 * time.Second

	// A line from the server can hold every route of a data center; one from a
	// node or gateway only what those have to say.
	maxLineDown = 64 << 20
	maxLineUp   = 8 << 20
)

var errSilent = errors.New("the other side has been silent for three seconds")

// A link sends values of Out and hears values of In, one JSON value a line. An
// empty line is a sign of life; a line that starts with ! is the error the
// other side ended with.
type link[In, Out any] struct {
	conn net.Conn
	br   *bufio.Reader
	max  int // bytes of a line

	mu   sync.Mutex // of writing
	last time.Time  // of the last write
	err  error      // of writing; sticks
}

func newLink[In, Out any](conn net.Conn, br *bufio.Reader, max int) *link[In, Out] {
	return &link[In, Out]{conn: conn, br: br, max: max}
}

// send writes one value. It blocks at most for the time after which the link
// counts as broken.
func (l *link[In, Out]) send(v Out) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("link: %w", err)
	}
	return l.write(append(b, '\n'))
}

func (l *link[In, Out]) write(line []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return l.err
	}
	l.conn.SetWriteDeadline(time.Now().Add(silence))
	if _, err := l.conn.Write(line); err != nil {
		l.err = fmt.Errorf("link: %w", err)
		l.conn.Close() // wakes the reader
		return l.err
	}
	l.last = time.Now()
	return nil
}

// beats keeps the link alive while nobody has anything to say.
func (l *link[In, Out]) beats(ctx context.Context) {
	t := time.NewTicker(beat / 2)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			l.mu.Lock()
			idle := time.Since(l.last)
			l.mu.Unlock()
			if idle >= beat/2 && l.write([]byte("\n")) != nil {
				return
			}
		}
	}
}

// receive hears values until the link ends. A silent link ends with errSilent,
// one whose other side gave up with that side's error.
func (l *link[In, Out]) receive(take func(In)) error {
	for {
		line, err := l.line()
		if err != nil {
			var timeout net.Error
			if errors.As(err, &timeout) && timeout.Timeout() {
				return errSilent
			}
			return fmt.Errorf("link: %w", err)
		}
		switch {
		case len(line) == 0:
		case line[0] == '!':
			var e quire.Error
			if json.Unmarshal(line[1:], &e) != nil || e.Kind == "" {
				return errors.New("link: the other side gave up")
			}
			return &e
		default:
			var v In
			if err := json.Unmarshal(line, &v); err != nil {
				return fmt.Errorf("link: %w", err)
			}
			take(v)
		}
	}
}

// line reads up to a line feed. Each piece that arrives extends the patience,
// but a line as a whole must arrive too: drops of bytes do not keep a link.
func (l *link[In, Out]) line() ([]byte, error) {
	var line []byte
	start := time.Now()
	for {
		if time.Since(start) > 10*silence {
			return nil, errors.New("the other side takes too long for one line")
		}
		l.conn.SetReadDeadline(time.Now().Add(silence))
		piece, err := l.br.ReadSlice('\n')
		line = append(line, piece...)
		switch {
		case len(line) > l.max:
			return nil, errors.New("the other side sent too long a line")
		case err == nil:
			return line[:len(line)-1], nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, err
		}
	}
}

// end tells the other side why and closes.
func (l *link[In, Out]) end(err error) {
	if err != nil {
		if b, e := json.Marshal(quire.AsError(err)); e == nil {
			l.write(append(append([]byte{'!'}, b...), '\n'))
		}
	}
	l.conn.Close()
}

// call runs the side that asked for the link: it forwards what comes from down
// and hands up what it hears, until ctx ends (nil error), down is closed (nil)
// or the link breaks.
func call[In, Out any](ctx context.Context, l *link[In, Out], down <-chan Out, up func(In)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	heard := make(chan error, 1)
	go func() { heard <- l.receive(up) }()
	go l.beats(ctx)
	var err error
	for ended := false; !ended; {
		select {
		case <-ctx.Done():
			ended = true
		case v, ok := <-down:
			if !ok {
				ended = true
			} else if err = l.send(v); err != nil {
				ended = true
			}
		case err = <-heard:
			l.conn.Close()
			return err
		}
	}
	l.conn.Close()
	<-heard // no value is handed up after we return
	return err
}

// serve runs the side that was asked: work gets what comes down and a way to
// speak up, under a context that ends with the link.
func serve[In, Out any](ctx context.Context, l *link[In, Out], work func(context.Context, <-chan In, func(Out)) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	down := make(chan In)
	heard := make(chan error, 1)
	go func() {
		err := l.receive(func(v In) {
			select {
			case down <- v:
			case <-ctx.Done():
			}
		})
		cancel()
		heard <- err
	}()
	go l.beats(ctx)
	err := work(ctx, down, func(v Out) {
		if ctx.Err() == nil && l.send(v) != nil {
			cancel()
		}
	})
	cancel()
	l.end(err)
	return errors.Join(err, <-heard)
}
