package remote

import (
	"log"
	"log/slog"
	"regexp"
	"strings"
	"sync"
	"time"
)

// QuietLog is the ErrorLog of an http.Server: a stranger on the port can cause
// a line per connection, so one line a minute says how many of which there were,
// and shows one of them.
func QuietLog(to *slog.Logger) *log.Logger {
	return log.New(&quiet{to: to, every: time.Minute}, "", 0)
}

const (
	maxCauses  = 8 // told apart in one line
	maxExample = 256
)

type quiet struct {
	to    *slog.Logger
	every time.Duration

	mu      sync.Mutex
	counts  map[string]int // by cause; nil while there was nothing since the last line
	example string
}

// who is the part of an error that differs from stranger to stranger.
var who = regexp.MustCompile(` from \S+:\d+| \S+:\d+->\S+:\d+`)

func (q *quiet) Write(p []byte) (int, error) {
	text := strings.TrimSpace(string(p[:min(len(p), maxExample)]))
	cause := who.ReplaceAllString(text, "")
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.counts == nil {
		q.counts, q.example = map[string]int{}, text
		time.AfterFunc(q.every, q.say)
	}
	if _, known := q.counts[cause]; !known && len(q.counts) >= maxCauses {
		cause = "others"
	}
	q.counts[cause]++
	return len(p), nil
}

func (q *quiet) say() {
	q.mu.Lock()
	counts, example := q.counts, q.example
	q.counts = nil
	q.mu.Unlock()
	all := 0
	for _, n := range counts {
		all += n
	}
	q.to.Info("connections that failed", "in", q.every.String(), "count", all, "causes", counts, "example", example)
}
