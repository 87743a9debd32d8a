package quire

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

func kinds() []Kind {
	return []Kind{KindInvalid, KindUnknown, KindForbidden, KindNotFound, KindConflict, KindTooMany, KindUnavailable, KindFailed, KindInternal}
}

// An error keeps kind, sentence, field and wait across the wire, and loses what
// is for the log.
func TestErrorsCrossTheWire(t *testing.T) {
	statuses := map[int]bool{}
	for _, k := range kinds() {
		in := &Error{Kind: k, Message: "A sentence.", Field: "name", RetryAfter: 7, Err: errors.New("password=hunter2")}
		body, err := json.Marshal(map[string]any{"error": in})
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(body), "hunter2") {
			t.Errorf("%s: the inner error leaves the process: %s", k, body)
		}
		out := AsError(DecodeError(in.Status(), body))
		if out.Kind != k || out.Message != in.Message || out.Field != in.Field || out.RetryAfter != in.RetryAfter || out.Err != nil {
			t.Errorf("%s came back as %+v", k, out)
		}
		if s := in.Status(); s < 400 || statuses[s] {
			t.Errorf("%s has the status %d, which another kind has too or is no error", k, s)
		}
		statuses[in.Status()] = true
	}
	if len(statuses) != len(statusOf) {
		t.Errorf("%d kinds are tested, %d exist", len(statuses), len(statusOf))
	}
}

func TestForeignAnswers(t *testing.T) {
	for _, body := range []string{"", "null", "{}", "[]", "<html>", `{"error":null}`, `{"error":{}}`, `{"error":"no"}`, `{"error":{"message":"hello"}}`, `{"error":`, "\xff"} {
		if err := DecodeError(http.StatusBadGateway, []byte(body)); KindOf(err) != KindUnavailable {
			t.Errorf("%q became %v", body, err)
		}
	}
	odd := AsError(DecodeError(200, []byte(`{"error":{"kind":"banana","message":"x"}}`)))
	if odd.Status() != http.StatusInternalServerError {
		t.Errorf("an unknown kind has the status %d", odd.Status())
	}
}

func TestForeignErrorsShowNothing(t *testing.T) {
	inner := errors.New("open /var/lib/quire/server/order.key: permission denied")
	e := AsError(fmt.Errorf("wrapped: %w", inner))
	if e.Kind != KindInternal || strings.Contains(e.Message, "order.key") || !errors.Is(e, inner) {
		t.Errorf("%+v", e)
	}
	if KindOf(nil) != "" {
		t.Errorf("no error has the kind %q", KindOf(nil))
	}
	wrapped := fmt.Errorf("while starting: %w", NotFound("project"))
	if KindOf(wrapped) != KindNotFound {
		t.Errorf("a wrapped error lost its kind: %q", KindOf(wrapped))
	}
	for _, e := range []*Error{Invalid("f", "m"), NotFound("x"), Forbidden("m"), Conflict("f", "m"), Unavailable("m", inner), Failed("m", inner), Unauthenticated()} {
		if e.Message == "" || !strings.Contains(e.Error(), string(e.Kind)) {
			t.Errorf("%+v says %q", e, e.Error())
		}
	}
}
