package web

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"quire"
)

func testLog() (*slog.Logger, *bytes.Buffer) {
	b := &bytes.Buffer{}
	return slog.New(slog.NewTextHandler(b, &slog.HandlerOptions{Level: slog.LevelDebug})), b
}

func ask(h http.Handler, edit ...func(*http.Request)) *httptest.ResponseRecorder {
	r := httptest.NewRequest("GET", "/x?secret=SECRET", nil)
	for _, e := range edit {
		e(r)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func accept(v string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set("Accept", v) }
}

func TestErrorsBecomeAnswers(t *testing.T) {
	inner := errors.New("INNER detail")
	for _, c := range []struct {
		err    error
		status int
		kind   quire.Kind
		shows  string
	}{
		{quire.NotFound("project"), 404, quire.KindNotFound, "There is no such project"},
		{fmt.Errorf("wrapped: %w", quire.Invalid("name", "Too short.")), 400, quire.KindInvalid, "Too short."},
		{&quire.Error{Kind: quire.KindTooMany, Message: "Slowly.", RetryAfter: 7, Err: inner}, 429, quire.KindTooMany, "Slowly."},
		{quire.Unavailable("The node is away.", inner), 503, quire.KindUnavailable, "The node is away."},
		{inner, 500, quire.KindInternal, "Something went wrong on our side"},
		{&StatusError{Status: 415, Message: "JSON, please."}, 415, quire.KindInvalid, "JSON, please."},
		{&http.MaxBytesError{Limit: 64 << 10}, 413, quire.KindInvalid, "64 KB"},
	} {
		log, lines := testLog()
		h := Adapt(log, func(http.ResponseWriter, *http.Request) error { return c.err })
		w := ask(h, accept("application/json"))
		var body struct {
			Error struct {
				Kind             quire.Kind
				Message, Request string
			}
		}
		if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil || w.Code != c.status || body.Error.Kind != c.kind || !strings.Contains(body.Error.Message, c.shows) || body.Error.Request == "" {
			t.Errorf("%v as JSON: %d %s", c.err, w.Code, w.Body)
		}
		if w.Header().Get("Quire-Request") != body.Error.Request || w.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("%v: headers %v", c.err, w.Header())
		}
		page := ask(h, accept("text/html"))
		if page.Code != c.status || !strings.Contains(page.Body.String(), c.shows) || !strings.Contains(page.Header().Get("Content-Type"), "text/html") {
			t.Errorf("%v as page: %d %s", c.err, page.Code, page.Body)
		}
		if out := w.Body.String() + page.Body.String(); strings.Contains(out, "INNER") {
			t.Errorf("%v: the inner text is shown", c.err)
		}
		if strings.Contains(lines.String(), "SECRET") {
			t.Errorf("the query is in the log: %s", lines)
		}
		if c.status >= 500 && !strings.Contains(lines.String(), "level=ERROR") {
			t.Errorf("%v is not logged: %s", c.err, lines)
		}
	}
	w := ask(Adapt(nil, func(http.ResponseWriter, *http.Request) error {
		return &quire.Error{Kind: quire.KindTooMany, Message: "x.", RetryAfter: 7}
	}))
	if w.Header().Get("Retry-After") != "7" {
		t.Error("no Retry-After")
	}
	if asset := ask(Adapt(nil, func(http.ResponseWriter, *http.Request) error { return quire.NotFound("file") }), accept("image/png")); strings.Contains(asset.Body.String(), "<") {
		t.Errorf("an asset gets a page: %s", asset.Body)
	}
}

func TestPageOfOnesOwn(t *testing.T) {
	a := Adapter{Page: func(w http.ResponseWriter, r *http.Request, p Problem) {
		w.WriteHeader(p.Status)
		fmt.Fprintf(w, "<h1>%s</h1>%s", p.Title, p.RequestID)
	}}
	w := ask(a.Adapt(func(w http.ResponseWriter, r *http.Request) error {
		w.Header().Set("Content-Length", "3")
		w.Header().Set("Etag", `"x"`)
		return quire.Forbidden("No.")
	}), accept("text/html"))
	if w.Code != 403 || !strings.HasPrefix(w.Body.String(), "<h1>Not allowed</h1>") || w.Header().Get("Content-Length") != "" || w.Header().Get("Etag") != "" {
		t.Errorf("%d %s %v", w.Code, w.Body, w.Header())
	}
}

func TestPanics(t *testing.T) {
	log, lines := testLog()
	var calls int
	s := httptest.NewServer(Adapt(log, func(w http.ResponseWriter, r *http.Request) error {
		calls++
		if r.URL.Path == "/half" {
			io.WriteString(w, "half an answer")
			w.(http.Flusher).Flush()
		}
		panic("SECRET reason")
	}))
	defer s.Close()
	client := s.Client()
	res, err := client.Get(s.URL + "/whole")
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(res.Body)
	res.Body.Close()
	if res.StatusCode != 500 || strings.Contains(string(body), "SECRET") || !res.Close {
		t.Errorf("%d close=%v %s", res.StatusCode, res.Close, body)
	}
	res, err = client.Get(s.URL + "/half")
	if err == nil {
		_, err = io.ReadAll(res.Body)
		res.Body.Close()
	}
	if err == nil {
		t.Error("half an answer passed for a whole one")
	}
	s.Close() // all handlers have ended and logged
	if calls != 2 || strings.Count(lines.String(), "level=ERROR") != 2 || !strings.Contains(lines.String(), "adapt_test.go") {
		t.Errorf("%d calls, log %s", calls, lines)
	}
}

func TestClientsThatLeft(t *testing.T) {
	log, lines := testLog()
	ctx, cancel := context.WithCancel(context.Background())
	w := ask(Adapt(log, func(w http.ResponseWriter, r *http.Request) error {
		cancel()
		return fmt.Errorf("reading: %w", r.Context().Err())
	}), func(r *http.Request) { *r = *r.WithContext(ctx) })
	if w.Body.Len() != 0 || strings.Contains(lines.String(), "level=ERROR") || !strings.Contains(lines.String(), "status=499") {
		t.Errorf("%s %s", w.Body, lines)
	}
}

func TestErrorAfterTheAnswer(t *testing.T) {
	log, lines := testLog()
	w := ask(Adapt(log, func(w http.ResponseWriter, r *http.Request) error {
		w.WriteHeader(201)
		io.WriteString(w, "made")
		return errors.New("and then")
	}))
	if w.Code != 201 || w.Body.String() != "made" || !strings.Contains(lines.String(), "after the answer began") {
		t.Errorf("%d %s %s", w.Code, w.Body, lines)
	}
}

func TestRequestIDIsKept(t *testing.T) {
	var outer, inner string
	h := Adapt(nil, func(w http.ResponseWriter, r *http.Request) error {
		outer = RequestID(r)
		Adapt(nil, func(w http.ResponseWriter, r *http.Request) error { inner = RequestID(r); return nil }).ServeHTTP(w, r)
		return nil
	})
	ask(h)
	if outer == "" || outer != inner {
		t.Errorf("%q, %q", outer, inner)
	}
}

func TestWants(t *testing.T) {
	for _, c := range []struct {
		headers map[string]string
		want    string
	}{
		{map[string]string{"Upgrade": "websocket"}, "socket"},
		{map[string]string{"Sec-Fetch-Dest": "document"}, "page"},
		{map[string]string{"Sec-Fetch-Dest": "iframe"}, "page"},
		{map[string]string{"Sec-Fetch-Dest": "script", "Accept": "text/html"}, "asset"},
		{map[string]string{"Sec-Fetch-Dest": "empty", "Accept": "text/html"}, "api"},
		{map[string]string{"Accept": "text/html,application/xhtml+xml"}, "page"},
		{map[string]string{"Accept": "image/avif,*/*"}, "asset"},
		{map[string]string{"Accept": "*/*"}, "api"},
		{nil, "api"},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		for k, v := range c.headers {
			r.Header.Set(k, v)
		}
		if got := Wants(r); got != c.want {
			t.Errorf("%v: %s, want %s", c.headers, got, c.want)
		}
	}
}
