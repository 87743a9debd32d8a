package web

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"strconv"
	"time"

	"quire"
)

// Handler answers a request or returns the error that should be the answer.
type Handler func(w http.ResponseWriter, r *http.Request) error

// Adapter turns Handlers into http.Handlers. The zero value logs to nowhere
// and shows the plain error page.
type Adapter struct {
	Log *slog.Logger
	// Page writes an error as a page. nil: a plain page without layout.
	Page func(w http.ResponseWriter, r *http.Request, e Problem)
}

// Problem is what an error page may show.
type Problem struct {
	Status     int
	Title      string
	Message    string
	RequestID  string
	RetryAfter int // seconds, 0 if unknown
}

// StatusGone is logged for a request whose client left before the answer.
const StatusGone = 499

type requestIDKey struct{}

// RequestID is the identity of a request, as printed on error pages. It is
// empty outside of Adapt.
func RequestID(r *http.Request) string {
	id, _ := r.Context().Value(requestIDKey{}).(string)
	return id
}

// Adapt runs h with the plain error page. See Adapter.Adapt.
func Adapt(log *slog.Logger, h Handler) http.Handler {
	return Adapter{Log: log}.Adapt(h)
}

// Adapt gives the request an ID, runs h and answers with the error it returns:
// JSON {"error":{…}} for API callers, a page for people, one line for assets.
// A panic becomes 500 and closes the connection. If h had already begun its
// answer the error is only logged, and after a panic the connection is cut so
// that nobody takes half an answer for a whole one.
func (a Adapter) Adapt(h Handler) http.Handler {
	log := a.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		if RequestID(r) == "" {
			r = r.WithContext(context.WithValue(r.Context(), requestIDKey{}, newRequestID()))
		}
		tw := &tracked{ResponseWriter: w}
		tw.Header().Set("Quire-Request", RequestID(r))
		err, panicked := run(h, tw, r)
		already := tw.begun
		if panicked && !already {
			tw.Header().Set("Connection", "close")
		}
		status := tw.status
		if err != nil {
			status = a.fail(log, tw, r, err, panicked)
		}
		// The address is not logged as sent: queries and paths may carry secrets.
		log.Debug("request", "id", RequestID(r), "method", method(r), "route", r.Pattern, "status", status, "took", time.Since(began))
		if panicked && already {
			panic(http.ErrAbortHandler)
		}
	})
}

// run calls h and turns a panic into an error.
func run(h Handler, w http.ResponseWriter, r *http.Request) (err error, panicked bool) {
	defer func() {
		v := recover()
		if v == nil {
			return
		}
		if v == http.ErrAbortHandler {
			panic(v)
		}
		err, panicked = fmt.Errorf("panic: %v\n%s", v, debug.Stack()), true
	}()
	return h(w, r), false
}

// fail answers with err and returns the status that was, or would have been, sent.
func (a Adapter) fail(log *slog.Logger, w *tracked, r *http.Request, err error, panicked bool) int {
	e := quire.AsError(err)
	status := e.Status()
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		e = &quire.Error{Kind: quire.KindInvalid, Message: fmt.Sprintf("What you sent is too large. The limit is %d KB.", tooLarge.Limit/1024)}
		status = http.StatusRequestEntityTooLarge
	}
	var s *StatusError
	if errors.As(err, &s) {
		status, e = s.Status, &quire.Error{Kind: s.kind(), Message: s.Message, Field: s.Field}
	}
	if r.Context().Err() != nil && !panicked && (errors.Is(err, context.Canceled) || status >= 500) {
		log.Debug("client left", "id", RequestID(r), "route", r.Pattern)
		return StatusGone
	}
	if status >= 500 {
		log.Error("request failed", "id", RequestID(r), "method", method(r), "route", r.Pattern, "status", status, "err", err)
	}
	if w.begun {
		log.Warn("error after the answer began", "id", RequestID(r), "route", r.Pattern, "err", err)
		return w.status
	}
	h := w.Header()
	for _, k := range []string{"Content-Length", "Content-Encoding", "Etag", "Last-Modified"} {
		h.Del(k)
	}
	h.Set("Cache-Control", "no-store")
	if e.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(e.RetryAfter))
	}
	switch Wants(r) {
	case "api", "socket":
		h.Set("Content-Type", "application/json")
		w.WriteHeader(status)
		json.NewEncoder(w).Encode(map[string]any{"error": apiError{e.Kind, e.Message, e.Field, e.RetryAfter, RequestID(r)}})
	case "asset":
		http.Error(w, e.Message, status)
	default:
		p := Problem{Status: status, Title: titleOf(status), Message: e.Message, RequestID: RequestID(r), RetryAfter: e.RetryAfter}
		if a.Page != nil {
			a.Page(w, r, p)
		} else {
			plainPage(w, p)
		}
	}
	return status
}

type apiError struct {
	Kind       quire.Kind `json:"kind"`
	Message    string     `json:"message"`
	Field      string     `json:"field,omitempty"`
	RetryAfter int        `json:"retry_after,omitempty"`
	Request    string     `json:"request"`
}

// StatusError is an error of HTTP itself that no quire.Kind names: 415, 421,
// 431 and the like.
type StatusError struct {
	Status  int
	Message string
	Field   string
}

func (e *StatusError) Error() string { return fmt.Sprintf("%d: %s", e.Status, e.Message) }

func (e *StatusError) kind() quire.Kind {
	switch {
	case e.Status == http.StatusForbidden:
		return quire.KindForbidden
	case e.Status == http.StatusNotFound || e.Status == http.StatusMethodNotAllowed:
		return quire.KindNotFound
	case e.Status >= 500:
		return quire.KindInternal
	}
	return quire.KindInvalid
}

// titleOf says a status in the words of a heading.
func titleOf(status int) string {
	switch status {
	case http.StatusUnauthorized:
		return "Sign in first"
	case http.StatusForbidden:
		return "Not allowed"
	case http.StatusNotFound:
		return "Not found"
	case http.StatusConflict:
		return "That does not fit any more"
	case http.StatusTooManyRequests:
		return "Please wait a moment"
	case http.StatusServiceUnavailable, http.StatusBadGateway, http.StatusGatewayTimeout:
		return "Not reachable right now"
	case http.StatusUnprocessableEntity:
		return "It did not work"
	case http.StatusRequestEntityTooLarge:
		return "Too large"
	case http.StatusMisdirectedRequest:
		return "Wrong address"
	}
	if status >= 500 {
		return "Something went wrong"
	}
	return "That request cannot be used"
}

var plain = template.Must(template.New("plain").Parse(`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">
<title>{{.Title}} · Quire</title></head>
<body><main><h1>{{.Title}}</h1><p>{{.Message}}</p>{{if .RetryAfter}}<p>Try again in {{.RetryAfter}} s.</p>{{end}}
<p>Request {{.RequestID}}</p></main></body></html>
`))

func plainPage(w http.ResponseWriter, p Problem) {
	var b bytes.Buffer
	if err := plain.Execute(&b, p); err != nil {
		http.Error(w, p.Message, p.Status)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(p.Status)
	w.Write(b.Bytes())
}

func newRequestID() string {
	b := make([]byte, 6)
	rand.Read(b)
	return hex.EncodeToString(b)
}

// method is a method that may be logged: the client chose it.
func method(r *http.Request) string {
	switch r.Method {
	case "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE":
		return r.Method
	}
	return "other"
}

// tracked remembers whether the answer has begun.
type tracked struct {
	http.ResponseWriter
	begun  bool
	status int
}

func (t *tracked) WriteHeader(status int) {
	if status >= 200 || status == http.StatusSwitchingProtocols {
		t.begun, t.status = true, status
	}
	t.ResponseWriter.WriteHeader(status)
}

func (t *tracked) Write(b []byte) (int, error) {
	if !t.begun {
		t.begun, t.status = true, http.StatusOK
	}
	return t.ResponseWriter.Write(b)
}

func (t *tracked) Flush() { http.NewResponseController(t.ResponseWriter).Flush() }

func (t *tracked) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c, rw, err := http.NewResponseController(t.ResponseWriter).Hijack()
	if err == nil {
		t.begun, t.status = true, http.StatusSwitchingProtocols
	}
	return c, rw, err
}

func (t *tracked) Unwrap() http.ResponseWriter { return t.ResponseWriter }
