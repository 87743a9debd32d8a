package quire

import (
	"fmt"
	"time"
)

// SessionState of one running app of one person in one project.
type SessionState string

const (
	SessionStarting SessionState = "starting"
	SessionRunning  SessionState = "running"
	SessionStopping SessionState = "stopping"
	SessionEnded    SessionState = "ended"  // stopped on purpose, or exited with 0
	SessionFailed   SessionState = "failed" // see Reason and Exit
)

// Live reports whether the state is one in which processes may exist.
func (s SessionState) Live() bool {
	return s == SessionStarting || s == SessionRunning || s == SessionStopping
}

// A Session is a running app: one per (user, project, app).
type Session struct {
	ID       SessionID    `json:"id"`
	User     UserID       `json:"user"`
	UserName string       `json:"user_name"`
	Project  ProjectID    `json:"project"`
	App      string       `json:"app"`
	Node     NodeID       `json:"node"`
	State    SessionState `json:"state"`
	Reason   string       `json:"reason,omitempty"` // a sentence
	Log      string       `json:"log,omitempty"`    // last lines, when failed
	Exit     *Exit        `json:"exit,omitempty"`
	Permit   string       `json:"-"` // of the app when it was started
	Content  bool         `json:"-"`
	Created  time.Time    `json:"created"`
	Ready    *time.Time   `json:"ready,omitempty"`
	Ended    *time.Time   `json:"ended,omitempty"`
}

// Exit says how a session's app ended. The app's own word (code, signal) is
// user-controlled data.
type Exit struct {
	Code        int       `json:"code"`
	Signal      string    `json:"signal,omitempty"` // "killed", "segmentation fault" …
	OutOfMemory bool      `json:"out_of_memory,omitempty"`
	By          string    `json:"by,omitempty"` // who or what stopped it
	At          time.Time `json:"at"`
}

// Sentence says the exit in words for a page.
func (e Exit) Sentence() string {
	switch {
	case e.By != "":
		return "Stopped by " + e.By + "."
	case e.OutOfMemory:
		return "It ran out of memory and was ended by the kernel."
	case e.Signal != "":
		return "It was ended by a signal (" + e.Signal + ")."
	case e.Code == 0:
		return "It ended by itself."
	}
	return fmt.Sprintf("It exited with code %d.", e.Code)
}
