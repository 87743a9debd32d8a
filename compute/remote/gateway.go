package remote

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"quire"
)

// nodePort is written in CONNECT's target because the form wants one; the
// gateway looks the node up by its name alone.
const nodePort = "5002"

// Gateway is a data center's door across the network.
type Gateway struct {
	id   *Identity
	node quire.NodeID
	addr string
}

var _ quire.Gateway = (*Gateway)(nil)

// NewGateway speaks to the control side of the gateway named node at addr
// (host:port).
func NewGateway(id *Identity, node quire.NodeID, addr string) *Gateway {
	return &Gateway{id: id, node: node, addr: addr}
}

func (g *Gateway) connect(ctx context.Context) (net.Conn, error) {
	raw, err := dialTCP(ctx, g.addr)
	if err != nil {
		return nil, err
	}
	c, err := dialTLS(ctx, raw, g.id.Dial(RoleGateway, g.node))
	if err != nil {
		return nil, err
	}
	return c, nil
}

func (g *Gateway) away(err error) error {
	var e *quire.Error
	if errors.As(err, &e) {
		return e
	}
	return quire.Unavailable("The gateway does not answer.", fmt.Errorf("gateway %s at %s: %w", g.node, g.addr, err))
}

// Attach implements quire.Gateway. It returns nil when ctx ends or down is
// closed, otherwise why the link broke; up must not block for long.
func (g *Gateway) Attach(ctx context.Context, down <-chan quire.GatewayFeed, up func(quire.GatewayReport)) error {
	conn, err := g.connect(ctx)
	if err != nil {
		return g.away(err)
	}
	br, err := upgrade(ctx, g.id, RoleGateway, conn, "/attach", linkProtocol, nil)
	if err != nil {
		return g.away(err)
	}
	l := newLink[quire.GatewayReport, quire.GatewayFeed](conn, br, maxLineUp)
	if err := call(ctx, l, down, up); err != nil {
		return g.away(err)
	}
	return nil
}

// DialNode opens a connection to a node through the gateway. The gateway sees
// what is written to it, so the caller puts TLS of its own inside (NewMachine
// does).
func (g *Gateway) DialNode(ctx context.Context, node quire.NodeID) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, shortCall)
	defer cancel()
	conn, err := g.connect(ctx)
	if err != nil {
		return nil, g.away(err)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	c, err := g.tunnel(conn, node)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		conn.Close()
		return nil, g.away(err)
	}
	return c, nil
}

func (g *Gateway) tunnel(conn net.Conn, node quire.NodeID) (net.Conn, error) {
	target := string(node) + ":" + nodePort
	if _, err := fmt.Fprintf(conn, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n%s: %d\r\n%s: %s\r\n\r\n",
		target, target, headerProtocol, g.id.Speaks.number(), headerVersion, g.id.Speaks.Version); err != nil {
		return nil, err
	}
	limited := &io.LimitedReader{R: conn, N: maxHeader + maxBody}
	br := bufio.NewReader(limited)
	resp, err := http.ReadResponse(br, &http.Request{Method: http.MethodConnect})
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, decode(resp)
	}
	if err := g.id.understand(RoleGateway, resp.Header); err != nil {
		return nil, err
	}
	if br.Buffered() > 0 {
		return nil, errors.New("the gateway sent bytes before the node could")
	}
	return conn, nil
}

// GatewayHandler is a gateway's control side: the stream that the server opens
// down, and CONNECT to the nodes dialNode knows. dialNode answers a node it does
// not know with quire.Forbidden. Serve it to RoleServer alone.
func GatewayHandler(g quire.Gateway, dialNode func(context.Context, quire.NodeID) (net.Conn, error), log *slog.Logger) http.Handler {
	buffers := NewBuffers()
	attach := guard(log, RoleServer, func(w http.ResponseWriter, r *http.Request, _ quire.NodeID) error {
		if r.Header.Get("Upgrade") != linkProtocol {
			return quire.Invalid("", "Attach is a link; ask for the upgrade.")
		}
		conn, br, err := hijack(w, r, linkProtocol)
		if err != nil {
			return err
		}
		l := newLink[quire.GatewayFeed, quire.GatewayReport](conn, br, maxLineDown)
		err = serve(context.WithoutCancel(r.Context()), l, g.Attach)
		log.Info("attach ended", "error", err)
		return nil
	})
	connect := guard(log, RoleServer, func(w http.ResponseWriter, r *http.Request, _ quire.NodeID) error {
		name, _, _ := strings.Cut(r.Host, ":")
		if r.Host != name+":"+nodePort {
			return quire.Forbidden("The gateway connects to its nodes only.")
		}
		node, err := dialNode(r.Context(), quire.NodeID(name))
		if err != nil {
			return err
		}
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			node.Close()
			return fmt.Errorf("hijack: %w", err)
		}
		conn.SetDeadline(time.Time{})
		if _, err := io.WriteString(conn, "HTTP/1.1 200 Connected\r\n"+spoken(w)+"\r\n"); err != nil {
			conn.Close()
			node.Close()
			return nil
		}
		go pipe(join(conn, rw.Reader), node, buffers)
		return nil
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodConnect:
			connect(w, r)
		case r.Method == http.MethodPost && r.URL.Path == "/attach":
			attach(w, r)
		default:
			fail(w, log, r, quire.NotFound("call"))
		}
	})
}
