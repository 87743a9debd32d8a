package remote

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"
)

type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// However many connections fail, there is one line, with how many of which.
func TestFailedConnectionsAreCounted(t *testing.T) {
	var out lines
	q := &quiet{to: slog.New(slog.NewJSONHandler(&out, nil)), every: time.Hour}
	for i := range 1000 {
		fmt.Fprintf(q, "http: TLS handshake error from 203.0.113.%d:%d: EOF\n", i%256, 1024+i)
	}
	for i := range 100 {
		fmt.Fprintf(q, "http: a cause of its own, %d\n", i)
	}
	fmt.Fprintf(q, "%s", strings.Repeat("x", 1<<20))
	q.say()
	var line struct {
		Level, Msg, Example string
		Count               int
		Causes              map[string]int
	}
	if err := json.Unmarshal(out.b.Bytes(), &line); err != nil {
		t.Fatalf("not one line: %v\n%.500s", err, out.b.String())
	}
	if line.Level != "INFO" || line.Count != 1101 || line.Causes["http: TLS handshake error: EOF"] != 1000 || line.Causes["others"] != 94 ||
		len(line.Causes) != maxCauses+1 || !strings.HasPrefix(line.Example, "http: TLS handshake error from 203.0.113.0:1024") {
		t.Errorf("%+v", line)
	}
	// A minute begins with its first error.
	q.every = time.Millisecond
	fmt.Fprintln(q, "http: TLS handshake error from 203.0.113.9:7: EOF")
	eventually(t, "another line", func() bool {
		out.mu.Lock()
		defer out.mu.Unlock()
		return bytes.Count(out.b.Bytes(), []byte("\n")) == 2
	})
}
