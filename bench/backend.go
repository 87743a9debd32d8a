package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/coder/websocket"
)

// serveBackend is what every proxy is put in front of: 1 KiB by HTTP, and an
// echo by WebSocket below /ws (with any prefix). It prints its address.
func serveBackend(ctx context.Context, _ []string) error {
	kib := bytes.Repeat([]byte("x"), 1024)
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, "/ws") {
			w.Header().Set("Content-Type", "application/octet-stream")
			w.Write(kib)
			return
		}
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{CompressionMode: websocket.CompressionDisabled})
		if err != nil {
			return
		}
		defer c.CloseNow()
		for {
			kind, rd, err := c.Reader(r.Context())
			if err != nil {
				return
			}
			wr, err := c.Writer(r.Context(), kind)
			if err != nil {
				return
			}
			if _, err := io.Copy(wr, rd); err != nil || wr.Close() != nil {
				return
			}
		}
	})
	return serveAndTell(ctx, h)
}

func serveAndTell(ctx context.Context, h http.Handler) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	s := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second}
	go func() { <-ctx.Done(); s.Close() }()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// A child is a process of this benchmark. Its first lines are its word to us.
type child struct {
	cmd   *exec.Cmd
	lines []string
}

// begin starts a program and reads n lines of its output.
func begin(n int, name string, args ...string) (*child, error) {
	c := &child{cmd: exec.Command(name, args...)}
	c.cmd.Stderr = os.Stderr
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	b := make([]byte, 1)
	var line []byte
	for len(c.lines) < n {
		if _, err := io.ReadFull(out, b); err != nil {
			c.end()
			return nil, fmt.Errorf("%s %v said nothing: %w", name, args, err)
		}
		if b[0] != '\n' {
			line = append(line, b[0])
			continue
		}
		c.lines = append(c.lines, string(line))
		line = nil
	}
	go io.Copy(io.Discard, out)
	return c, nil
}

// end stops the child that we started.
func (c *child) end() {
	if c != nil && c.cmd.Process != nil {
		c.cmd.Process.Signal(os.Interrupt)
		done := make(chan struct{})
		go func() { c.cmd.Wait(); close(done) }()
		select {
		case <-done:
		case <-time.After(5 * time.Second):
			c.cmd.Process.Kill()
			<-done
		}
	}
}

// freePort is a port nobody has at this moment.
func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// answering waits until something accepts connections.
func answering(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			return c.Close()
		}
		if ctx.Err() != nil {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
}
