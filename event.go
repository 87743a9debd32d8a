package quire

import "time"

// An Event is something that happened, for the activity page and the audit.
type Event struct {
	Seq     int64     `json:"seq"`
	Time    time.Time `json:"time"`
	Actor   UserID    `json:"actor,omitempty"`
	Name    string    `json:"name,omitempty"` // of the actor, as it was
	Address string    `json:"address,omitempty"`
	Verb    string    `json:"verb"` // "project.start", "login.failed" …
	Project ProjectID `json:"project,omitempty"`
	Detail  string    `json:"detail,omitempty"`
}

// A Revocation lowers somebody's rights. It is written in the transaction that
// lowers them and pushed to gateways and nodes. A grant whose Feed is below Seq
// and that matches every field that is set is refused.
type Revocation struct {
	Seq     int64     `json:"seq"`
	User    UserID    `json:"user,omitempty"`
	Project ProjectID `json:"project,omitempty"`
	Login   LoginID   `json:"login,omitempty"`
	At      time.Time `json:"at"`
}

// Covers reports whether the revocation ends something of that user, project
// and login that was granted when the feed stood at feed. A login is named by
// itself: what it opened as somebody else, as a visitor, ends with it too.
func (r Revocation) Covers(user UserID, project ProjectID, login LoginID, feed int64) bool {
	return feed < r.Seq &&
		(r.User == "" || r.User == user || r.Login != "") &&
		(r.Project == "" || r.Project == project) &&
		(r.Login == "" || r.Login == login)
}
