package compute_test

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"quire"
	"quire/compute/remote"
	"quire/ticket"
)

// Lower rights: streams close at once, processes end, and the node says up to
// where it is done; a login that leaves takes its streams only.
func TestRevocation(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		p := w.ready(w.alice(), "alice", "p")
		q := w.ready(p.person, "alice", "q")
		id, other := w.running(p), w.running(q)
		open := func(id quire.SessionID, p project, with ...func(*ticket.Grant)) net.Conn {
			c, err := w.dial(id, w.grant(p, with...))
			w.check(err)
			t.Cleanup(func() { c.Close() })
			return c
		}
		login := func(l quire.LoginID) func(*ticket.Grant) { return func(g *ticket.Grant) { g.Login = l } }
		one, two, elsewhere := open(id, p, login("l_one")), open(id, p, login("l_two")), open(other, q)
		closed := func(c net.Conn) bool {
			_ = c.SetReadDeadline(time.Now().Add(3 * time.Second))
			_, err := c.Read(make([]byte, 1))
			var late net.Error
			return !(errors.As(err, &late) && late.Timeout())
		}
		now := time.Now()
		w.down <- quire.Feed{Full: true, Time: now, Seq: 1, Revocations: []quire.Revocation{{Seq: 1, User: p.user, Login: "l_one", At: now}}}
		begin := time.Now()
		if !closed(one) {
			t.Error("the login's stream stays open")
		}
		t.Logf("closed after %v", time.Since(begin))
		w.until("done up to 1", func() bool { return w.last.Seq == 1 })
		_ = two.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		if _, err := two.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the other login's stream: %v", err)
		}
		if _, err := w.dial(id, w.grant(p, login("l_one"))); quire.KindOf(err) != quire.KindForbidden {
			t.Errorf("a revoked grant: %v", err)
		}
		open(id, p, login("l_one"), func(g *ticket.Grant) { g.Feed = 1 }).Close()
		if w.await(id, quire.SessionRunning).State != quire.SessionRunning {
			t.Error("the process ended with a login")
		}

		pid := w.ids(p, id).PID
		begin = time.Now()
		w.down <- quire.Feed{Time: now, Seq: 2, Revocations: []quire.Revocation{{Seq: 2, User: p.user, Project: p.id, At: time.Now()}}}
		if !closed(two) {
			t.Error("the project's stream stays open")
		}
		r := w.await(id, quire.SessionEnded)
		if !strings.Contains(r.Reason, "access was taken away") {
			t.Errorf("%+v", r)
		}
		w.until("done up to 2", func() bool { return w.last.Seq == 2 })
		if alive(pid) {
			t.Error("done, and yet it runs")
		}
		if took := time.Since(begin); took > 2*time.Second {
			t.Errorf("revoked after %v", took)
		} else {
			t.Logf("revoked after %v", took)
		}
		_ = elsewhere.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		if _, err := elsewhere.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("another project's stream: %v", err)
		}
		// An old word, heard again, does not end what was started after it.
		again := w.running(p)
		w.kill(w.compute)
		w.startCompute()
		w.down <- quire.Feed{Full: true, Time: now, Seq: 2, Revocations: []quire.Revocation{{Seq: 2, User: p.user, Project: p.id, At: now}}}
		w.until("done up to 2", func() bool { return w.last.Seq == 2 })
		if alive := w.ids2(p, again, 2); alive == 0 {
			t.Error("a session started after the revocation was ended")
		}
	})
}

// ids2 asks with a grant of a given feed.
func (w *world) ids2(p project, id quire.SessionID, feed int64) int {
	c, err := w.dial(id, w.grant(p, func(g *ticket.Grant) { g.Feed = feed }))
	if err != nil {
		return 0
	}
	c.Close()
	return 1
}

// Grants: each field counts, and a stream lives as long as its grant.
func TestGrants(t *testing.T) {
	w := single(t)
	p := w.ready(w.alice(), "alice", "p")
	id := w.running(p)
	for name, bad := range map[string]func(*ticket.Grant){
		"another gateway": func(g *ticket.Grant) { g.Gateway = quire.NewNodeID() },
		"another node":    func(g *ticket.Grant) { g.Node = quire.NewNodeID() },
		"another person":  func(g *ticket.Grant) { g.User = quire.NewUserID() },
		"another project": func(g *ticket.Grant) { g.Project = quire.NewProjectID() },
		"a viewer":        func(g *ticket.Grant) { g.Role = quire.RoleViewer },
		"no role":         func(g *ticket.Grant) { g.Role = quire.RoleNone },
		"the future":      func(g *ticket.Grant) { g.Issued = g.Issued.Add(time.Hour) },
	} {
		if _, err := w.dial(id, w.grant(p, bad)); quire.KindOf(err) != quire.KindForbidden && quire.KindOf(err) != quire.KindNotFound {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := w.dial(id, []byte("nonsense")); quire.KindOf(err) != quire.KindForbidden {
		t.Errorf("nonsense: %v", err)
	}
	// The server is heard, so a grant that has run out is over, grace or not.
	w.down <- quire.Feed{Full: true, Time: time.Now()}
	ends := func(d time.Duration) func(*ticket.Grant) {
		return func(g *ticket.Grant) { g.Expires = time.Now().Add(d) }
	}
	if _, err := w.dial(id, w.grant(p, ends(-time.Second))); quire.KindOf(err) != quire.KindForbidden {
		t.Errorf("run out: %v", err)
	}
	short, err := w.dial(id, w.grant(p, ends(300*time.Millisecond)))
	w.check(err)
	begin := time.Now()
	w.down <- quire.Feed{Time: time.Now()}
	_ = short.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := short.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the stream outlives its grant")
	}
	t.Logf("closed after %v", time.Since(begin))
	// Renewed in time it stays.
	long, err := w.dial(id, w.grant(p, ends(400*time.Millisecond)))
	w.check(err)
	defer long.Close()
	w.check(remote.RenewLease(context.Background(), w.door, w.control.Addr().String(), w.id, w.grant(p)))
	_ = long.SetReadDeadline(time.Now().Add(time.Second))
	if _, err := long.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a renewed stream: %v", err)
	}
	// Silence: after three seconds without the server the grace counts.
	eventually(t, "the grace", func() bool {
		c, err := w.dial(id, w.grant(p, ends(-time.Second)))
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}
