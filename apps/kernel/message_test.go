package kernel

import (
	"bytes"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
)

func TestMessageFrames(t *testing.T) {
	m := NewMessage(Shell, "execute_request", "s", Header{ID: "p", Type: "x"}, map[string]int{"n": 1})
	m.Buffers = [][]byte{{1, 2}, {}, {3}}
	got, err := ParseMessage(m.Frame())
	if err != nil || got.Head() != m.Head() || got.Cause().ID != "p" || string(got.Content) != `{"n":1}` || len(got.Buffers) != 3 || !bytes.Equal(got.Buffers[2], []byte{3}) {
		t.Errorf("%+v %v", got, err)
	}
	frames := m.seal([]byte("key"))
	back, err := unseal(Shell, []byte("key"), append([][]byte{[]byte("identity")}, frames...))
	if err != nil || back.Head() != m.Head() || len(back.Buffers) != 3 {
		t.Errorf("%+v %v", back, err)
	}
	if _, err := unseal(Shell, []byte("other key"), frames); err == nil {
		t.Error("another key's signature is good")
	}
	frames[5] = []byte(`{"n":2}`)
	if _, err := unseal(Shell, []byte("key"), frames); err == nil {
		t.Error("a changed message's signature is good")
	}
	for _, bad := range []string{"", "12345678", strings.Repeat("\xff", 80), string(m.Frame()[:40])} {
		if _, err := ParseMessage([]byte(bad)); err == nil {
			t.Errorf("%q is a message", bad)
		}
	}
}

// Whatever a browser sends as a frame, the parts of what is read lie in it.
func FuzzParseMessage(f *testing.F) {
	m := NewMessage(IOPub, "stream", "s", Header{}, map[string]string{"text": "x"})
	f.Add(m.Frame())
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ParseMessage(b)
		if err != nil {
			return
		}
		again := Message{Channel: m.Channel, Header: m.Header, Parent: m.Parent, Metadata: m.Metadata, Content: m.Content, Buffers: m.Buffers}
		if got, err := ParseMessage(again.Frame()); err != nil || !bytes.Equal(got.Content, m.Content) {
			t.Errorf("%v", err)
		}
	})
}

// A kernel that lies about lengths makes us hold nothing, and what it says after
// a message that is too long is still heard.
func TestWireBounds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	greeting := make([]byte, 64)
	greeting[0], greeting[9], greeting[10] = 0xFF, 0x7F, 3
	copy(greeting[12:], "NULL")
	says := func(what []byte) *wire {
		go func() {
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			_, _ = c.Write(append(append(greeting, 4, 6, 5, 'R', 'E', 'A', 'D', 'Y'), what...))
			_ = c.(*net.UnixConn).CloseWrite()
			_, _ = io.Copy(io.Discard, c) // until the other side goes
		}()
		w, err := dial(path, "SUB", "")
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	w := says([]byte{1, 1, 'a', 0, 1, 'b', 4, 2, 1, 'P', 0, 1, 'c'})
	for _, want := range []string{"ab", "c"} {
		if got, err := w.receive(); err != nil || string(bytes.Join(got, nil)) != want {
			t.Errorf("%q %v", got, err)
		}
	}
	w.close()
	w = says([]byte{2, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 'x'})
	if got, err := w.receive(); err == nil {
		t.Errorf("a frame of 2^63 bytes: %q", got)
	}
	w.close()
	many := bytes.Repeat([]byte{1, 0}, maxFrames+1)
	w = says(append(append(many, 0, 0), 0, 1, 'z'))
	if _, err := w.receive(); err != errHuge {
		t.Errorf("too many frames: %v", err)
	}
	if got, err := w.receive(); err != nil || string(got[0]) != "z" {
		t.Errorf("after too many frames: %q %v", got, err)
	}
	w.close()
	for _, bad := range [][]byte{[]byte(strings.Repeat("x", 64)), append(append([]byte{}, greeting[:12]...), []byte("CURVE"+strings.Repeat("\x00", 47))...)} {
		go func() {
			c, err := l.Accept()
			if err == nil {
				_, _ = c.Write(bad)
				_, _ = io.Copy(io.Discard, c)
				c.Close()
			}
		}()
		if w, err := dial(path, "DEALER", "me"); err == nil {
			t.Errorf("greeted by %q", bad)
			w.close()
		}
	}
}
