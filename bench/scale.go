package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"quire"
	"quire/compute/remote"
	"quire/control"
	"quire/store"
	"quire/ticket"
)

const (
	scaleNodes    = 200
	scaleSessions = 10_000
	scaleWatch    = 20 * time.Second
)

// A simulated node says what a node says, as often, over real TLS connections
// through a real gateway's control side. It holds no processes.
type simulated struct{ sessions []quire.SessionReport }

func (s simulated) Do(context.Context, []byte) (quire.Receipt, error) { return quire.Receipt{}, nil }

func (s simulated) Send(context.Context, []byte, io.Writer) (quire.Receipt, error) {
	return quire.Receipt{}, quire.NotFound("project directory")
}

func (s simulated) Receive(context.Context, []byte, io.Reader) (quire.Receipt, error) {
	return quire.Receipt{}, quire.NotFound("project directory")
}

func (s simulated) Log(context.Context, quire.SessionID, int) (string, error) { return "", nil }

func (s simulated) Health(context.Context) (quire.NodeHealth, error) {
	return quire.NodeHealth{Version: "bench", Time: time.Now(), MemoryTotal: 64 << 30, MemoryFree: 32 << 30, DiskTotal: 1 << 40, DiskFree: 1 << 39, CPUs: 32, Load: 1, Sessions: len(s.sessions)}, nil
}

func (s simulated) Watch(ctx context.Context, down <-chan quire.Feed, up func(quire.NodeReport)) error {
	up(quire.NodeReport{Full: true, Sessions: s.sessions})
	var seq int64
	beat := time.NewTicker(time.Second)
	defer beat.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case f, ok := <-down:
			if !ok {
				return nil
			}
			seq = f.Seq
		case <-beat.C:
			rep := quire.NodeReport{Seq: seq}
			if n%5 == 0 {
				h, _ := s.Health(ctx)
				rep.Health = &h
			}
			up(rep)
		}
	}
}

func (s simulated) Open(context.Context, quire.NodeID, quire.SessionID, []byte) (net.Conn, error) {
	return nil, quire.NotFound("session")
}

func (s simulated) Renew(context.Context, quire.NodeID, []byte) error { return nil }

// serveNodes is simulated nodes, one for each directory of an identity, each
// with the sessions that the file beside it lists. It prints their addresses.
func serveNodes(ctx context.Context, args []string) error {
	log := slog.New(slog.DiscardHandler)
	for _, dir := range args {
		id, err := remote.LoadIdentity(dir)
		if err != nil {
			return err
		}
		text, err := os.ReadFile(filepath.Join(dir, "sessions"))
		if err != nil {
			return err
		}
		var node simulated
		for line := range strings.Lines(string(text)) {
			f := strings.Fields(line)
			node.sessions = append(node.sessions, quire.SessionReport{ID: quire.SessionID(f[0]), User: quire.UserID(f[1]), Project: quire.ProjectID(f[2]), App: "notebook", State: quire.SessionRunning})
		}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		go remote.Server(id, remote.NodeHandler(node, node, log), log, remote.RoleServer, remote.RoleGateway).ServeTLS(l, "", "")
		fmt.Println(l.Addr())
	}
	<-ctx.Done()
	return nil
}

// door is a gateway's control side alone.
type door struct{ addrs chan map[quire.NodeID]string }

func (d door) Attach(ctx context.Context, down <-chan quire.GatewayFeed, up func(quire.GatewayReport)) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case f, ok := <-down:
			if !ok {
				return nil
			}
			if f.Nodes != nil {
				<-d.addrs
				d.addrs <- f.Nodes
			}
			up(quire.GatewayReport{Seq: f.Seq})
		}
	}
}

// serveDoor is the gateway through which the server reaches the nodes.
func serveDoor(ctx context.Context, args []string) error {
	id, err := remote.LoadIdentity(args[0])
	if err != nil {
		return err
	}
	log := slog.New(slog.DiscardHandler)
	d := door{make(chan map[quire.NodeID]string, 1)}
	d.addrs <- nil
	dial := func(ctx context.Context, n quire.NodeID) (net.Conn, error) {
		addrs := <-d.addrs
		d.addrs <- addrs
		if addrs[n] == "" {
			return nil, quire.Forbidden("The gateway connects to its nodes only.")
		}
		return new(net.Dialer).DialContext(ctx, "tcp", addrs[n])
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	s := remote.Server(id, remote.GatewayHandler(d, dial, log), log, remote.RoleServer)
	context.AfterFunc(ctx, func() { s.Close() })
	if err := s.ServeTLS(l, "", ""); ctx.Err() == nil {
		return err
	}
	return nil
}

type overTLS struct{ id *remote.Identity }

func (o overTLS) Gateway(dc quire.DataCenter) quire.Gateway {
	return remote.NewGateway(o.id, dc.Gateway, dc.Address)
}

func (o overTLS) Machine(dc quire.DataCenter, n quire.Node) quire.Machine {
	g := remote.NewGateway(o.id, dc.Gateway, dc.Address)
	return remote.NewMachine(o.id, n.ID, func(ctx context.Context) (net.Conn, error) { return g.DialNode(ctx, n.ID) })
}

// benchScale runs the control loop, in this process, over 200 simulated nodes
// with 10,000 sessions, and measures what it needs while nothing happens, and how
// soon a node that falls silent is seen.
func benchScale(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "quire-bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	self, err := os.Executable()
	if err != nil {
		return err
	}
	authority, err := remote.NewAuthority("bench")
	if err != nil {
		return err
	}
	identity := func(role string, id quire.NodeID) (string, error) {
		d := filepath.Join(dir, string(id))
		return d, errors.Join(os.Mkdir(d, 0o700), remote.NewIdentity(authority, role, id, d))
	}
	st, err := store.Open(ctx, filepath.Join(dir, "quire.db"))
	if err != nil {
		return err
	}
	defer st.Close()
	dc := quire.DataCenter{ID: quire.NewDataCenterID(), Name: "bench", Gateway: quire.NewNodeID()}
	gateDir, err := identity(remote.RoleGateway, dc.Gateway)
	if err != nil {
		return err
	}
	var nodes []quire.Node
	var dirs []string
	lists := make([]strings.Builder, scaleNodes)
	for i := range scaleNodes {
		n := quire.Node{ID: quire.NewNodeID(), DataCenter: dc.ID, Name: fmt.Sprintf("node%03d", i)}
		d, err := identity(remote.RoleCompute, n.ID)
		if err != nil {
			return err
		}
		nodes, dirs = append(nodes, n), append(dirs, d)
	}
	err = st.Write(ctx, func(tx *store.Tx) error {
		if err := tx.SaveDataCenter(dc); err != nil {
			return err
		}
		for i, n := range nodes {
			if err := tx.SaveNode(n); err != nil {
				return err
			}
			u := quire.User{ID: quire.NewUserID(), Name: fmt.Sprintf("person%03d", i), Created: tx.Now}
			if err := tx.AddUser(u, "none"); err != nil {
				return err
			}
			for j := range scaleSessions / scaleNodes {
				p := quire.Project{ID: quire.NewProjectID(), Owner: u.ID, OwnerName: u.Name, Name: fmt.Sprintf("p%d", j), DataCenter: dc.ID, Node: n.ID, Dir: fmt.Sprintf("/projects/%s/p%d", u.Name, j), State: quire.ProjectRunning, Created: tx.Now, Changed: tx.Now}
				if err := tx.AddProject(p); err != nil {
					return err
				}
				if err := tx.SetProjectState(p.ID, quire.ProjectRunning, ""); err != nil {
					return err
				}
				s := quire.Session{ID: quire.NewSessionID(), User: u.ID, Project: p.ID, App: "notebook", Node: n.ID, State: quire.SessionRunning, Permit: "write", Created: tx.Now, Ready: &tx.Now}
				if err := tx.AddSession(s); err != nil {
					return err
				}
				fmt.Fprintf(&lists[i], "%s %s %s\n", s.ID, u.ID, p.ID)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for i, d := range dirs {
		if err := os.WriteFile(filepath.Join(d, "sessions"), []byte(lists[i].String()), 0o600); err != nil {
			return err
		}
	}
	// The first node is a process of its own, to fall silent.
	gate, err := begin(1, self, "serve-door", gateDir)
	if err != nil {
		return err
	}
	defer gate.end()
	one, err := begin(1, self, append([]string{"serve-nodes"}, dirs[0])...)
	if err != nil {
		return err
	}
	defer func() { one.cmd.Process.Signal(syscall.SIGCONT); one.end() }()
	rest, err := begin(scaleNodes-1, self, append([]string{"serve-nodes"}, dirs[1:]...)...)
	if err != nil {
		return err
	}
	defer rest.end()
	dc.Address = gate.lines[0]
	for i := range nodes {
		nodes[i].Address = append(one.lines, rest.lines...)[i]
	}
	err = st.Write(ctx, func(tx *store.Tx) error {
		err := tx.SaveDataCenter(dc)
		for _, n := range nodes {
			err = errors.Join(err, tx.SaveNode(n))
		}
		return err
	})
	if err != nil {
		return err
	}
	serverDir, err := identity(remote.RoleServer, quire.NewNodeID())
	if err != nil {
		return err
	}
	id, err := remote.LoadIdentity(serverDir)
	if err != nil {
		return err
	}
	origins, err := quire.NewOrigins(quire.OriginConfig{Portal: "http://quire.localhost:1", Apps: "http://*.apps.localhost:1"})
	if err != nil {
		return err
	}
	ctl, err := control.New(control.Config{Store: st, Signer: ticket.NewSigner(), Authority: authority, Origins: origins, Fleet: overTLS{id}, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
		Accounts: control.OneAccount("nobody", 65534), ProjectRoot: "/projects", Grace: time.Hour, KeepDeleted: time.Hour, VisitorName: "quire-visitor"})
	if err != nil {
		return err
	}
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	began := time.Now()
	go func() { ended <- ctl.Run(running) }()
	defer func() { stop(); <-ended }()
	system := quire.Actor{System: true}
	for {
		if waiting, err := ctl.Site.Waiting(ctx, system); err != nil {
			return err
		} else if waiting == "" {
			break
		}
		pause(ctx, 20*time.Millisecond)
		if ctx.Err() != nil || time.Since(began) > 2*time.Minute {
			return errors.New("not every node came up")
		}
	}
	note("%d nodes with %d sessions are up after %.1f s", scaleNodes, scaleSessions, time.Since(began).Seconds())
	report("scale_up_s", time.Since(began).Seconds(), "s", 0)
	pause(ctx, 3*time.Second)
	before := cpu()
	pause(ctx, scaleWatch)
	report("control_cpu_percent", 100*(cpu()-before)/scaleWatch.Seconds(), "% of one processor", 0)
	mem, err := memory(os.Getpid())
	if err != nil {
		return err
	}
	kids := 0.0
	for _, c := range []*child{gate, one, rest} {
		kb, err := memory(c.cmd.Process.Pid)
		if err != nil {
			return err
		}
		kids += kb
	}
	report("control_memory_mb", (mem-kids)/1024, "MB", 0)
	began = time.Now()
	if err := one.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	for {
		list, err := ctl.Site.Nodes(ctx, system)
		if err != nil {
			return err
		}
		up := 0
		for _, n := range list {
			if n.Up {
				up++
			}
		}
		if up == scaleNodes-1 {
			break
		}
		if pause(ctx, 20*time.Millisecond); ctx.Err() != nil || time.Since(began) > time.Minute {
			return errors.New("the silent node was not noticed: " + strconv.Itoa(up) + " are up")
		}
	}
	report("dead_node_noticed_s", time.Since(began).Seconds(), "s", 0)
	return ctx.Err()
}

// cpu is what this process has used, in seconds.
func cpu() float64 {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return float64(u.Utime.Sec+u.Stime.Sec) + float64(u.Utime.Usec+u.Stime.Usec)/1e6
}
