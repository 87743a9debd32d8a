package remote

import (
	"fmt"
	"net/http"
	"regexp"
	"strconv"

	"quire"
)

// Protocol numbers what servers, gateways and nodes say to each other. It goes up
// by one in a release that changes it; a release understands its own number and
// the ones beside it, so that the machines of an installation can be upgraded one
// after the other. What a message of the release before means is recorded in
// testdata/ and never changed.
const Protocol = 2

const (
	headerProtocol = "Quire-Protocol"
	headerVersion  = "Quire-Version"
	unnumbered     = 1 // who does not say a number is of the time before there were any
)

// Speaks is what a program says of itself at the beginning of each call.
type Speaks struct {
	Protocol int    // 0: Protocol
	Version  string // the release, for people
}

func (s Speaks) number() int {
	if s.Protocol == 0 {
		return Protocol
	}
	return s.Protocol
}

func (s Speaks) say(h http.Header) {
	h.Set(headerProtocol, strconv.Itoa(s.number()))
	h.Set(headerVersion, s.Version)
}

var versionForm = regexp.MustCompile(`^[A-Za-z0-9.+~_-]{1,40}$`)

// understand refuses a peer that is more than one number away. role is the
// peer's, h the header of its call or answer.
func (id *Identity) understand(role string, h http.Header) error {
	theirs := unnumbered
	if text := h.Get(headerProtocol); text != "" {
		var err error
		if theirs, err = strconv.Atoi(text); err != nil {
			return quire.Invalid("", "The number of the protocol cannot be read.")
		}
	}
	ours := id.Speaks.number()
	if theirs >= ours-1 && theirs <= ours+1 {
		return nil
	}
	release := func(v string) string {
		if !versionForm.MatchString(v) {
			return "an unknown version"
		}
		return "version " + v
	}
	older := role
	if theirs > ours {
		older = id.Role
	}
	return quire.Unavailable(fmt.Sprintf("The %s has %s of Quire (protocol %d) and the %s %s (protocol %d): more than one release lies between them. Upgrade the %s.",
		role, release(h.Get(headerVersion)), theirs, id.Role, release(id.Speaks.Version), ours, older), nil)
}

// speaking answers calls of those that we understand, and tells them what we
// speak.
func (id *Identity) speaking(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id.Speaks.say(w.Header())
		role, _, err := Peer(r.TLS)
		if err != nil {
			role = "caller" // who is refused anyway
		}
		if err := id.understand(role, r.Header); err != nil {
			refuse(w, err)
			return
		}
		h.ServeHTTP(w, r)
	})
}
