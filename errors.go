package quire

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
)

// A Kind is what a program does about an error. It crosses the wire unchanged.
type Kind string

const (
	KindInvalid     Kind = "invalid"      // the caller's input; Field may name it
	KindUnknown     Kind = "unknown_user" // nobody is signed in
	KindForbidden   Kind = "forbidden"    // known thing, right missing
	KindNotFound    Kind = "not_found"    // does not exist, or is not yours: one answer
	KindConflict    Kind = "conflict"     // exists already, or changed meanwhile
	KindTooMany     Kind = "too_many"     // a limit; RetryAfter may say how long
	KindUnavailable Kind = "unavailable"  // a node or service is away; try again
	KindFailed      Kind = "failed"       // the work itself failed; Message has the reason
	KindInternal    Kind = "internal"     // ours; the text is never shown
)

var statusOf = map[Kind]int{
	KindInvalid: http.StatusBadRequest, KindUnknown: http.StatusUnauthorized, KindForbidden: http.StatusForbidden,
	KindNotFound: http.StatusNotFound, KindConflict: http.StatusConflict, KindTooMany: http.StatusTooManyRequests,
	KindUnavailable: http.StatusServiceUnavailable, KindFailed: http.StatusUnprocessableEntity, KindInternal: http.StatusInternalServerError,
}

// Error is the only error a person sees. Message is a whole sentence that says
// what to do; Err is for the log alone and never leaves the process.
type Error struct {
	Kind       Kind   `json:"kind"`
	Message    string `json:"message"`
	Field      string `json:"field,omitempty"`
	RetryAfter int    `json:"retry_after,omitempty"` // seconds
	Err        error  `json:"-"`
}

func (e *Error) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("%s: %s: %v", e.Kind, e.Message, e.Err)
	}
	return fmt.Sprintf("%s: %s", e.Kind, e.Message)
}

func (e *Error) Unwrap() error { return e.Err }

// Status is the HTTP status of the kind.
func (e *Error) Status() int {
	if s, ok := statusOf[e.Kind]; ok {
		return s
	}
	return http.StatusInternalServerError
}

// AsError returns err as an *Error. Anything else becomes KindInternal with a
// neutral sentence, so no inner text can be shown by mistake.
func AsError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return &Error{Kind: KindInternal, Message: "Something went wrong on our side. Try again; if it stays, give the request ID to an administrator.", Err: err}
}

// KindOf returns the kind of err, KindInternal for a foreign error and "" for nil.
func KindOf(err error) Kind {
	if err == nil {
		return ""
	}
	return AsError(err).Kind
}

func Invalid(field, message string) *Error {
	return &Error{Kind: KindInvalid, Field: field, Message: message}
}

// NotFound is also the answer for what exists but is not the asker's.
func NotFound(what string) *Error {
	return &Error{Kind: KindNotFound, Message: "There is no such " + what + ", or it is not shared with you."}
}

func Forbidden(message string) *Error { return &Error{Kind: KindForbidden, Message: message} }
func Conflict(field, message string) *Error {
	return &Error{Kind: KindConflict, Field: field, Message: message}
}
func Unavailable(message string, err error) *Error {
	return &Error{Kind: KindUnavailable, Message: message, Err: err}
}
func Failed(message string, err error) *Error {
	return &Error{Kind: KindFailed, Message: message, Err: err}
}

// Unauthenticated is the answer to a request that needs a signed-in person.
func Unauthenticated() *Error {
	return &Error{Kind: KindUnknown, Message: "Sign in first."}
}

// DecodeError rebuilds an error from the JSON that the other side's adapter
// wrote. A body that is not ours becomes KindUnavailable.
func DecodeError(status int, body []byte) error {
	var in struct{ Error *Error }
	if json.Unmarshal(body, &in) == nil && in.Error != nil && in.Error.Kind != "" {
		return in.Error
	}
	return Unavailable("The other side gave an answer we could not read.", fmt.Errorf("status %d", status))
}
