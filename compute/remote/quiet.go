package remote

import (
	"context"
	"log"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// QuietLog is the ErrorLog of an http.Server: a stranger on the port can cause
// a line per connection, so at most ten a second are kept and the rest counted.
func QuietLog(to *slog.Logger) *log.Logger { return log.New(&quiet{to: to}, "", 0) }

const quietLines = 10 // per second

type quiet struct {
	to *slog.Logger

	mu      sync.Mutex
	second  int64
	lines   int
	dropped int
}

func (q *quiet) Write(p []byte) (int, error) {
	now := time.Now().Unix()
	q.mu.Lock()
	dropped := 0
	if now != q.second {
		q.second, q.lines = now, 0
		dropped, q.dropped = q.dropped, 0
	}
	q.lines++
	keep := q.lines <= quietLines
	if !keep {
		q.dropped++
	}
	q.mu.Unlock()
	if dropped > 0 {
		q.to.Warn("connection errors not shown", "count", dropped)
	}
	if keep {
		text := strings.TrimSpace(string(p))
		q.to.Log(context.Background(), slog.LevelDebug, "connection", "error", text[:min(len(text), 256)])
	}
	return len(p), nil
}
