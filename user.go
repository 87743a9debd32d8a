package quire

import "time"

// A User is a person's account on this installation.
type User struct {
	ID       UserID    `json:"id"`
	Name     string    `json:"name"` // unique regardless of case, kept as written
	FullName string    `json:"full_name,omitempty"`
	Email    string    `json:"email,omitempty"`
	Admin    bool      `json:"admin,omitempty"`
	Disabled bool      `json:"disabled,omitempty"`
	Created  time.Time `json:"created"`
}

// A Login is one signed-in browser. Only hashes of its cookies are stored.
type Login struct {
	ID       LoginID   `json:"id"`
	User     UserID    `json:"user"`
	Created  time.Time `json:"created"`
	LastSeen time.Time `json:"last_seen"`
	Address  string    `json:"address"` // the TCP peer, or the configured proxy's word
	Agent    string    `json:"agent"`
}

// Limits of a login. A WebSocket does not extend past LoginLife.
const (
	LoginIdle = 8 * time.Hour
	LoginLife = 7 * 24 * time.Hour
)
