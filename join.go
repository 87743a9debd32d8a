package quire

import (
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Roles a peer can join in. The server itself never joins.
const (
	JoinGateway = "gateway"
	JoinCompute = "compute"
)

// A JoinRequest is what a machine that wants to join says of itself. It is
// signed with the token's key (package ticket), so the token never travels.
type JoinRequest struct {
	Role    string `json:"role"`
	Name    string `json:"name,omitempty"`    // "" = the one the token was made for
	Summary string `json:"summary,omitempty"` // one line
	Address string `json:"address,omitempty"` // host:port at which its peers reach it; "" = the one the token was made for
	Apps    string `json:"apps,omitempty"`    // of a gateway: where browsers find apps, as the configuration key says
	Public  []byte `json:"public"`            // PKIX of the P-256 key it has made itself
	Nonce   []byte `json:"nonce"`             // 32 bytes, fresh
}

// A JoinAnswer is what it is told: everything a role needs to start. It is
// signed by the installation's authority, whose fingerprint the token holds.
type JoinAnswer struct {
	Installation string       `json:"installation"`
	Node         NodeID       `json:"node"`
	DataCenter   DataCenterID `json:"data_center"`
	Name         string       `json:"name"`
	Gateway      NodeID       `json:"gateway"` // of the data center; its own ID for a gateway
	Certificate  []byte       `json:"certificate"`
	Authority    []byte       `json:"authority"`
	OrderKey     []byte       `json:"order_key"` // checks orders, tickets and grants
	Portal       string       `json:"portal"`
	Apps         string       `json:"apps"` // of the data center
	Nonce        []byte       `json:"nonce"`
}

// A JoinToken is the record of one: what it is for and how often it counts. The
// token itself is shown once and not stored.
type JoinToken struct {
	ID         string       `json:"id"` // the fingerprint of its public key
	Role       string       `json:"role"`
	DataCenter DataCenterID `json:"data_center,omitempty"` // of compute tokens
	Name       string       `json:"name,omitempty"`        // what joins by it is called so
	Address    string       `json:"address,omitempty"`
	Summary    string       `json:"summary,omitempty"`
	Uses       int          `json:"uses"` // left
	Created    time.Time    `json:"created"`
	Expires    time.Time    `json:"expires"`
	By         string       `json:"by"` // who made it
}

// Bounds of a join token.
const (
	JoinTokenLife    = 15 * time.Minute
	MaxJoinTokenLife = 7 * 24 * time.Hour
	MaxJoinTokenUses = 1000
)

var (
	peerName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_. -]{0,62}$`)
	peerAddr = regexp.MustCompile(`^([A-Za-z0-9][A-Za-z0-9.-]{0,252}|\[[0-9A-Fa-f:.]+\]):([0-9]{1,5})$`)
)

const badAddress = "The address is like http://HOST:5002, with a host and a port and nothing else."

// CheckPeerName says what is wrong with the name of a data center or node.
func CheckPeerName(name string) error {
	if !peerName.MatchString(name) || strings.HasSuffix(name, " ") {
		return Invalid("name", "A name starts with a letter or digit and has up to 63 letters, digits, spaces, dots, hyphens and underscores.")
	}
	return nil
}

// CheckPeerAddress reads an address as people type it, HOST:PORT or
// http://HOST:PORT, and returns HOST:PORT. The link is TLS whatever the scheme
// says.
func CheckPeerAddress(typed string) (string, error) {
	s := strings.TrimSpace(typed)
	for _, scheme := range []string{"http://", "https://"} {
		s = strings.TrimPrefix(s, scheme)
	}
	s = strings.TrimSuffix(s, "/")
	m := peerAddr.FindStringSubmatch(s)
	if m == nil {
		return "", Invalid("address", badAddress)
	}
	if port, err := strconv.ParseUint(m[2], 10, 16); err != nil || port == 0 {
		return "", Invalid("address", badAddress)
	}
	return s, nil
}

// GatewayURL is what a node types to reach a gateway whose address the server
// knows. What is loopback to the server is another machine to the node.
func GatewayURL(address string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "http://GATEWAY:8089"
	}
	if ip := net.ParseIP(host); host == "localhost" || ip != nil && ip.IsLoopback() {
		host = "GATEWAY"
	}
	return "http://" + net.JoinHostPort(host, port)
}

// A PeerIdentity is what a gateway or node says of its own key and certificate.
type PeerIdentity struct {
	Public     []byte    `json:"public"` // PKIX
	Generation int64     `json:"generation"`
	Expires    time.Time `json:"expires"`
	Issuer     string    `json:"issuer,omitempty"` // fingerprint of the authority that certified it
	Trusts     []string  `json:"trusts,omitempty"` // fingerprints of the authorities that count for it
}

// Same reports whether nothing of it is news.
func (p PeerIdentity) Same(q PeerIdentity) bool {
	return p.Generation == q.Generation && p.Issuer == q.Issuer && slices.Equal(p.Trusts, q.Trusts)
}

// A Peer is what the server knows of the key of a gateway or node. A connection
// that shows another key is refused, whatever its certificate says.
type Peer struct {
	Fingerprint string    `json:"fingerprint,omitempty"`
	Generation  int64     `json:"generation,omitempty"` // of the newest certificate it has shown
	Issued      int64     `json:"-"`                    // of the newest it was given
	Expires     time.Time `json:"expires,omitzero"`     // of the one it shows
	Joined      time.Time `json:"joined,omitzero"`
	Cloned      bool      `json:"cloned,omitempty"` // its key is on a second machine: it is cut off
}
