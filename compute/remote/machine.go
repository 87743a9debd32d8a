package remote

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"quire"
)

// orderTime bounds one order; the longest ones clone a repository or make an
// environment.
const orderTime = 15 * time.Minute

// Machine is a node across the network.
type Machine struct {
	id   *Identity
	node quire.NodeID
	dial func(context.Context) (net.Conn, error)
	http *http.Transport
}

var _ quire.Machine = (*Machine)(nil)

// NewMachine speaks to node over connections that dial opens: straight, or
// through (*Gateway).DialNode. The TLS inside is between the two ends, so dial
// need not be trusted.
func NewMachine(id *Identity, node quire.NodeID, dial func(context.Context) (net.Conn, error)) *Machine {
	m := &Machine{id: id, node: node, dial: dial}
	m.http = &http.Transport{
		DialTLSContext:         func(ctx context.Context, _, _ string) (net.Conn, error) { return m.connect(ctx) },
		MaxIdleConnsPerHost:    16,
		IdleConnTimeout:        time.Minute,
		MaxResponseHeaderBytes: maxHeader,
		DisableCompression:     true,
	}
	return m
}

// Close drops idle connections.
func (m *Machine) Close() { m.http.CloseIdleConnections() }

func (m *Machine) connect(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	conn, err := m.dial(ctx)
	if err != nil {
		return nil, err
	}
	c, err := dialTLS(ctx, conn, m.id.Dial(RoleCompute, m.node))
	if err != nil {
		return nil, err
	}
	return c, nil
}

func (m *Machine) away(err error) error {
	var e *quire.Error
	if errors.As(err, &e) {
		return e
	}
	return quire.Unavailable("The node does not answer.", fmt.Errorf("node %s: %w", m.node, err))
}

// do makes one call. The transport is used without a client around it, so a
// redirect is an answer like any other: an unexpected one.
func (m *Machine) do(ctx context.Context, limit time.Duration, method, path string, body []byte, out any) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "https://"+Domain+path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("node %s: %w", m.node, err)
	}
	// Every call is idempotent, so one that met a connection the node had just
	// closed is sent again. The empty value keeps the header off the wire.
	req.Header["Idempotency-Key"] = nil
	m.id.Speaks.say(req.Header)
	resp, err := m.http.RoundTrip(req)
	if err != nil {
		return m.away(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return m.away(decode(resp))
	}
	if err := m.id.understand(RoleCompute, resp.Header); err != nil {
		return err
	}
	b, err := readAll(resp.Body)
	if err != nil {
		return m.away(err)
	}
	if err := json.Unmarshal(b, out); err != nil {
		return m.away(err)
	}
	return nil
}

// Do implements quire.Machine. An order is carried out within 15 minutes or
// counts as not answered.
func (m *Machine) Do(ctx context.Context, order []byte) (quire.Receipt, error) {
	var r quire.Receipt
	err := m.do(ctx, orderTime, http.MethodPost, "/order", order, &r)
	return r, err
}

// Health implements quire.Machine; the node has ten seconds to answer.
func (m *Machine) Health(ctx context.Context) (quire.NodeHealth, error) {
	var h quire.NodeHealth
	err := m.do(ctx, shortCall, http.MethodGet, "/health", nil, &h)
	return h, err
}

// Log implements quire.Machine; at most 512 KiB are returned.
func (m *Machine) Log(ctx context.Context, id quire.SessionID, n int) (string, error) {
	var out struct{ Log string }
	q := url.Values{"session": {string(id)}, "n": {strconv.Itoa(n)}}
	err := m.do(ctx, shortCall, http.MethodGet, "/log?"+q.Encode(), nil, &out)
	return out.Log, err
}

// Watch implements quire.Machine. It returns nil when ctx ends or down is
// closed, otherwise why the link broke; up is not called after it has returned
// and must not block for long.
func (m *Machine) Watch(ctx context.Context, down <-chan quire.Feed, up func(quire.NodeReport)) error {
	conn, err := m.connect(ctx)
	if err != nil {
		return m.away(err)
	}
	br, err := upgrade(ctx, m.id, RoleCompute, conn, "/watch", linkProtocol, nil)
	if err != nil {
		return m.away(err)
	}
	l := newLink[quire.NodeReport, quire.Feed](conn, br, maxLineUp)
	if err := call(ctx, l, down, up); err != nil {
		return m.away(err)
	}
	return nil
}

// Streams is what a node lets gateways do: open raw streams to sessions.
type Streams interface {
	// Open verifies the grant for the gateway and returns a connection to the
	// session's app, registered under the grant's lease: when the lease ends, the
	// connection is closed.
	Open(ctx context.Context, gateway quire.NodeID, session quire.SessionID, grant []byte) (net.Conn, error)
	// Renew extends the lease of the grant's subject.
	Renew(ctx context.Context, gateway quire.NodeID, grant []byte) error
}

// RenewLease gives node a newer grant, so that the streams opened with the old
// one go on.
func RenewLease(ctx context.Context, id *Identity, addr string, node quire.NodeID, grant []byte) error {
	m := NewMachine(id, node, func(ctx context.Context) (net.Conn, error) { return dialTCP(ctx, addr) })
	defer m.Close()
	var out struct{}
	return m.do(ctx, shortCall, http.MethodPost, "/renew", grant, &out)
}

// DialStream opens a raw stream to a session: what is written arrives at the
// session's app as it is. The connection supports CloseWrite.
func DialStream(ctx context.Context, id *Identity, addr string, node quire.NodeID, session quire.SessionID, grant []byte) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, shortCall)
	defer cancel()
	away := func(err error) error {
		var e *quire.Error
		if errors.As(err, &e) {
			return e
		}
		return quire.Unavailable("The node does not answer.", fmt.Errorf("node %s at %s: %w", node, addr, err))
	}
	raw, err := dialTCP(ctx, addr)
	if err != nil {
		return nil, away(err)
	}
	conn, err := dialTLS(ctx, raw, id.Dial(RoleCompute, node))
	if err != nil {
		return nil, away(err)
	}
	br, err := upgrade(ctx, id, RoleCompute, conn, "/stream", streamProtocol, http.Header{
		headerSession: {string(session)},
		headerGrant:   {encodeGrant(grant)},
	})
	if err != nil {
		return nil, away(err)
	}
	return join(conn, br), nil
}
