package remote

import (
	"context"
	"encoding/base64"
	"errors"
	"log/slog"
	"net/http"
	"strconv"

	"quire"
)

const (
	streamProtocol = "quire-stream"
	headerSession  = "Quire-Session"
	headerGrant    = "Quire-Grant"
	maxLog         = 512 << 10
)

func encodeGrant(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// NodeHandler is what a node offers on its port: the Machine to the server, the
// Streams to gateways. It must be served with the certificates checked (Server
// with both roles); a request without a verified peer is refused.
func NodeHandler(m quire.Machine, s Streams, log *slog.Logger) http.Handler {
	n := &nodeHandler{machine: m, streams: s, log: log}
	mux := http.NewServeMux()
	n.buffers = NewBuffers()
	for _, route := range []struct {
		pattern, role string
		handler       func(w http.ResponseWriter, r *http.Request, peer quire.NodeID) error
	}{
		{"POST /order", RoleServer, n.order},
		{"GET /health", RoleServer, n.health},
		{"GET /log", RoleServer, n.lastLines},
		{"POST /send", RoleServer, n.send},
		{"POST /receive", RoleServer, n.receive},
		{"POST /watch", RoleServer, n.watch},
		{"POST /stream", RoleGateway, n.stream},
		{"POST /renew", RoleGateway, n.renew},
	} {
		mux.HandleFunc(route.pattern, guard(log, route.role, route.handler))
	}
	return mux
}

// guard lets one role in and writes errors.
func guard(log *slog.Logger, role string, h func(http.ResponseWriter, *http.Request, quire.NodeID) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		peer, node, err := Peer(r.TLS)
		if err == nil && peer != role {
			err = errors.New("called by a " + peer)
		}
		if err != nil {
			fail(w, log, r, &quire.Error{Kind: quire.KindForbidden, Message: "This call is not for you.", Err: err})
			return
		}
		if err := h(w, r, node); err != nil {
			fail(w, log, r, err)
		}
	}
}

type nodeHandler struct {
	machine quire.Machine
	streams Streams
	log     *slog.Logger
	buffers *Buffers
}

func (n *nodeHandler) body(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	b, err := readAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return nil, quire.Invalid("", "The body is too long or was cut off.")
	}
	return b, nil
}

func (n *nodeHandler) order(w http.ResponseWriter, r *http.Request, _ quire.NodeID) error {
	order, err := n.body(w, r)
	if err != nil {
		return err
	}
	// An order once accepted is carried out even if the server goes away: every
	// order is idempotent and the server asks again.
	receipt, err := n.machine.Do(context.WithoutCancel(r.Context()), order)
	if err != nil {
		return err
	}
	answer(w, receipt)
	return nil
}

func (n *nodeHandler) health(w http.ResponseWriter, r *http.Request, _ quire.NodeID) error {
	h, err := n.machine.Health(r.Context())
	if err != nil {
		return err
	}
	answer(w, h)
	return nil
}

func (n *nodeHandler) lastLines(w http.ResponseWriter, r *http.Request, _ quire.NodeID) error {
	count, err := strconv.Atoi(r.URL.Query().Get("n"))
	if err != nil || count < 0 {
		return quire.Invalid("n", "n is a number of bytes.")
	}
	text, err := n.machine.Log(r.Context(), quire.SessionID(r.URL.Query().Get("session")), min(count, maxLog))
	if err != nil {
		return err
	}
	answer(w, struct{ Log string }{text})
	return nil
}

func (n *nodeHandler) watch(w http.ResponseWriter, r *http.Request, _ quire.NodeID) error {
	if r.Header.Get("Upgrade") != linkProtocol {
		return quire.Invalid("", "Watch is a link; ask for the upgrade.")
	}
	conn, br, err := hijack(w, r, linkProtocol)
	if err != nil {
		return err
	}
	l := newLink[quire.Feed, quire.NodeReport](conn, br, maxLineDown)
	err = serve(context.WithoutCancel(r.Context()), l, n.machine.Watch)
	n.log.Info("watch ended", "error", err)
	return nil
}

func (n *nodeHandler) stream(w http.ResponseWriter, r *http.Request, gateway quire.NodeID) error {
	if r.Header.Get("Upgrade") != streamProtocol {
		return quire.Invalid("", "A stream needs the upgrade.")
	}
	grant, err := base64.RawURLEncoding.DecodeString(r.Header.Get(headerGrant))
	if err != nil {
		return quire.Invalid("", "The grant is not base64url.")
	}
	app, err := n.streams.Open(r.Context(), gateway, quire.SessionID(r.Header.Get(headerSession)), grant)
	if err != nil {
		return err
	}
	conn, br, err := hijack(w, r, streamProtocol)
	if err != nil {
		app.Close()
		n.log.Warn("stream", "error", err)
		return nil
	}
	// The handler returns, so that net/http's buffers of the connection go.
	go pipe(join(conn, br), app, n.buffers)
	return nil
}

func (n *nodeHandler) renew(w http.ResponseWriter, r *http.Request, gateway quire.NodeID) error {
	grant, err := n.body(w, r)
	if err != nil {
		return err
	}
	if err := n.streams.Renew(r.Context(), gateway, grant); err != nil {
		return err
	}
	answer(w, struct{}{})
	return nil
}
