package server

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"time"
)

// An event of a live page, as a browser reads it.
type event struct {
	event string
	part  part
}

// stream opens a live page's stream over a real socket. The channel closes when
// the stream does.
func (s *testSite) stream(who, path string) <-chan event {
	s.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	s.t.Cleanup(cancel)
	c := s.people[who]
	r, err := http.NewRequestWithContext(ctx, "GET", s.listen()+path, nil)
	must(s.t, err)
	from := c.request("GET", path, nil)
	r.Header, r.Host = from.Header, from.Host
	res, err := new(http.Client).Do(r)
	must(s.t, err)
	if res.StatusCode != 200 || res.Header.Get("Content-Type") != "text/event-stream" {
		s.t.Fatalf("stream %s as %s: %d", path, who, res.StatusCode)
	}
	out := make(chan event, 200)
	go func() {
		defer close(out)
		defer res.Body.Close()
		lines := bufio.NewScanner(res.Body)
		lines.Buffer(nil, 1<<20)
		var e event
		for lines.Scan() {
			switch line := lines.Text(); {
			case strings.HasPrefix(line, "event: "):
				e.event = line[7:]
			case strings.HasPrefix(line, "data: "):
				_ = json.Unmarshal([]byte(line[6:]), &e.part)
			case line == "" && e.event != "":
				out <- e
				e = event{}
			}
		}
	}()
	return out
}

// overs waits until a stream says that it is over.
func (s *testSite) overs(events <-chan event, what string) {
	s.t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		select {
		case e, ok := <-events:
			if !ok || e.event == "over" {
				return
			}
		case <-deadline:
			s.t.Fatalf("never: %s", what)
		}
	}
}
