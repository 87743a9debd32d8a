package gateway

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"time"

	"quire"
)

const (
	joinPath  = "/_quire/join"
	maxJoin   = 16 << 10
	joinTime  = 15 * time.Second
	maxJoiner = 32 // at a time
)

// joiners are machines that want to become nodes of this data center and can
// reach nobody but us. We pass their requests up the server's stream and the
// answers back; both are signed for each other, and we can change neither.
type joiners struct {
	n       int64
	waiting map[int64]*joiner
}

type joiner struct {
	request []byte
	ch      chan quire.Joined
	of      *stream // whom it was passed to; nil: nobody yet
}

// join answers one machine.
func (g *Gateway) join(w http.ResponseWriter, r *http.Request) {
	request, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxJoin))
	if err != nil {
		g.joinAnswer(w, quire.Joined{Error: quire.Invalid("", "This is not a request to join.")})
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), joinTime)
	defer cancel()
	answer, ok := g.attach.join(request)
	if !ok {
		g.joinAnswer(w, quire.Joined{Error: quire.Unavailable("Many machines are joining just now. Try again in a moment.", nil)})
		return
	}
	defer g.attach.left(answer.n)
	select {
	case a := <-answer.ch:
		g.joinAnswer(w, a)
	case <-ctx.Done():
		g.joinAnswer(w, quire.Joined{Error: quire.Unavailable("This gateway does not hear from its server just now. Try again in a moment.", nil)})
	}
}

func (g *Gateway) joinAnswer(w http.ResponseWriter, a quire.Joined) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	if a.Error != nil {
		w.WriteHeader(a.Error.Status())
		json.NewEncoder(w).Encode(map[string]any{"error": a.Error})
		return
	}
	w.Write(a.Answer)
}

type joinWait struct {
	n  int64
	ch chan quire.Joined
}

func (a *attachments) join(request []byte) (joinWait, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.joiners.waiting) >= maxJoiner {
		return joinWait{}, false
	}
	a.joiners.n++
	w := joinWait{a.joiners.n, make(chan quire.Joined, 1)}
	j := &joiner{request: request, ch: w.ch}
	a.joiners.waiting[w.n] = j
	a.passOn(w.n, j, a.best())
	return w, true
}

// passOn hands a request to a stream, if there is one. a.mu is held.
func (a *attachments) passOn(n int64, j *joiner, s *stream) {
	if j.of = s; s != nil {
		s.joins = append(s.joins, quire.JoinAsk{N: n, Request: j.request})
		s.stir()
	}
}

func (a *attachments) left(n int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.joiners.waiting, n)
}

func (a *attachments) joined(answers []quire.Joined) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, x := range answers {
		if j := a.joiners.waiting[x.N]; j != nil {
			j.ch <- x
			delete(a.joiners.waiting, x.N)
		}
	}
}
