package control

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"quire"
	"quire/store"
)

const cargo = "the files of a project"

// Send and Receive of the scripted machine: its books say what lies where.
func (m *machine) Send(ctx context.Context, order []byte, to io.Writer) (quire.Receipt, error) {
	o, err := m.takes(ctx, order)
	if err != nil {
		return quire.Receipt{}, err
	}
	m.mu.Lock()
	dir := m.dirs[o.Project]
	m.mu.Unlock()
	if dir != "out" && dir != "in" {
		return quire.Receipt{}, quire.NotFound("project directory")
	}
	if o.Type == quire.OrderSend {
		if _, err := io.WriteString(to, cargo); err != nil {
			return quire.Receipt{}, err
		}
	}
	owners := map[uint32]string{999: "."}
	if m.stranger {
		owners[77] = "odd/file"
	}
	digest := []byte("the sum of them all")
	if m.lies && dir == "in" {
		digest[0]++
	}
	return quire.Receipt{Survey: &quire.Survey{Files: 3, Dirs: 1, Bytes: 1 << 20, Room: 1 << 20, Owners: owners, Groups: []string{"users"}, Digest: digest,
		Left: []quire.Finding{{Kind: quire.LeftSpecial, N: 1, Examples: []string{`"pipe"`}}}}}, m.afterwards(ctx, o)
}

func (m *machine) Receive(ctx context.Context, order []byte, from io.Reader) (quire.Receipt, error) {
	o, err := m.takes(ctx, order)
	if err != nil {
		return quire.Receipt{}, err
	}
	b, err := io.ReadAll(from)
	if err != nil || string(b) != cargo {
		return quire.Receipt{}, quire.Unavailable("The files did not arrive to the end.", err)
	}
	m.mu.Lock()
	if m.dirs[o.Project] == "there" {
		m.mu.Unlock()
		return quire.Receipt{}, quire.Conflict("", "It is there.")
	}
	m.dirs[o.Project] = "in"
	m.mu.Unlock()
	return quire.Receipt{}, m.afterwards(ctx, o)
}

func (m *machine) takes(ctx context.Context, order []byte) (quire.Order, error) {
	o, err := m.s.verify.Order(order, m.id, m.s.clock.now())
	if err != nil {
		return o, quire.Forbidden(err.Error())
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.away {
		return o, errAway()
	}
	m.orders = append(m.orders, o)
	if before := m.before; before != nil {
		m.mu.Unlock()
		err = before(ctx, o)
		m.mu.Lock()
	}
	return o, err
}

func (m *machine) afterwards(ctx context.Context, o quire.Order) error {
	m.mu.Lock()
	after := m.after
	m.mu.Unlock()
	if after == nil {
		return nil
	}
	return after(ctx, o)
}

// twoNodes is a site with a second node in a data center of its own.
func twoNodes(t *testing.T) *site {
	s := newSite(t)
	record := quire.Node{ID: quire.NewNodeID(), DataCenter: s.dc.ID, Name: "there", Address: "127.0.0.1:5003"}
	m := newMachine(s)
	m.id = record.ID
	m.storage = quire.Storage{Free: 1 << 40, Total: 1 << 41, FilesFree: 1 << 20, Files: 1 << 21}
	s.other = m
	must(t, s.Site.Join(bg(), quireItself, s.dc, record))
	s.up()
	return s
}

func (s *site) where(id quire.ProjectID) string {
	return fmt.Sprintf("%q here, %q there", s.node.dir(id), s.other.dir(id))
}

func (s *site) moved(id quire.ProjectID, state quire.ProjectState) {
	s.t.Helper()
	s.eventually("the move is over, and it is "+string(state), func() bool {
		return s.see(id).State == state && s.work(id).Ended != nil && (state != quire.ProjectRunning || s.work(id).Kind == "start")
	})
}

// A project that runs is stopped, copied, compared, and runs again on the other
// node; the original is in the trash, until its time is over.
func TestMoves(t *testing.T) {
	s := twoNodes(t)
	alice := s.person("alice")
	p := s.started(alice, "data")
	s.open(alice, p, "notebook")
	targets, err := s.Moves.Targets(bg(), alice, p.ID)
	if must(t, err); len(targets) != 1 || targets[0].Node != s.other.id || targets[0].Shared {
		t.Errorf("where it could go: %+v", targets)
	}
	must(t, s.Moves.Begin(bg(), alice, p.ID, "", ""))
	s.moved(p.ID, quire.ProjectRunning)
	if got := s.see(p.ID); got.Node != s.other.id {
		t.Errorf("it is on %s", got.Node)
	}
	if got := s.where(p.ID); got != `"aside" here, "there" there` {
		t.Error(got)
	}
	if log := s.events(p.ID); !strings.Contains(log, "project.move") || !strings.Contains(log, "project.moved") {
		t.Errorf("events: %s", log)
	}
	one := s.open(alice, s.see(p.ID), "notebook")
	if one.Node != s.other.id {
		t.Errorf("an app runs on %s", one.Node)
	}
	// And back: the trash of the first move makes room.
	must(t, s.Projects.Stop(bg(), alice, p.ID))
	s.settled(p.ID, quire.ProjectStopped)
	s.node.mu.Lock()
	s.node.dirs[p.ID] = "" // in the books there is room for one
	s.node.mu.Unlock()
	must(t, s.Moves.Begin(bg(), s.person("root", true), p.ID, s.record.ID, ""))
	s.moved(p.ID, quire.ProjectStopped)
	if got := s.see(p.ID); got.Node != s.record.ID || got.Reason != "" {
		t.Errorf("it is on %s: %s", got.Node, got.Reason)
	}
	// What is in the trash goes when its time is over.
	s.clock.add(s.keep + time.Hour)
	s.loop.tidy()
	s.eventually("the trash is emptied", func() bool { return s.other.ordered(quire.OrderPurge) == 1 })
}

// Whatever breaks, and whenever: before it is switched over all is as it was, and
// nothing is left on the other node; afterwards the project is there.
//
//fault:node a move fails: a disk is full, the copy differs, an account has another number
//fault:seen the project is as it was and says why
//fault:lost nothing
//fault:repair what the sentence says; then moving it again
//fault:also TestMoveToAFullDisk TestMoveNeedsTheSameAccounts
func TestMovesThatFail(t *testing.T) {
	full := quire.Failed("The node's disk is full.", nil)
	for name, c := range map[string]struct {
		breaks func(*site)
		says   string
	}{
		"aside":    {func(s *site) { s.node.script(at(quire.OrderAside, full), nil) }, "disk is full"},
		"look":     {func(s *site) { s.node.script(at(quire.OrderSurvey, full), nil) }, "disk is full"},
		"stranger": {func(s *site) { s.node.stranger = true }, `uid 77, which is nobody's account here, such as "odd/file"`},
		"no room":  {func(s *site) { s.other.storage.Free = 1 << 20 }, "The project takes 1.0 MB, and there has 1.0 MB left"},
		"no files": {func(s *site) { s.other.storage.FilesFree = 5 }, "has room for 5 more"},
		"unfit":    {func(s *site) { s.other.storage.Problem = "It is read-only." }, "It is read-only."},
		"send":     {func(s *site) { s.node.script(at(quire.OrderSend, full), nil) }, "disk is full"},
		"sent":     {func(s *site) { s.node.script(nil, at(quire.OrderSend, full)) }, "disk is full"},
		"receive":  {func(s *site) { s.other.script(at(quire.OrderReceive, full), nil) }, "disk is full"},
		"received": {func(s *site) { s.other.script(nil, at(quire.OrderReceive, full)) }, "disk is full"},
		"verify":   {func(s *site) { s.other.script(at(quire.OrderSurvey, full), nil) }, "disk is full"},
		"differs":  {func(s *site) { s.other.lies = true }, "not the same as the original"},
		"place":    {func(s *site) { s.other.script(at(quire.OrderPlace, full), nil) }, "disk is full"},
		"placed":   {func(s *site) { s.other.script(nil, at(quire.OrderPlace, full)) }, "disk is full"},
	} {
		t.Run(name, func(t *testing.T) {
			s := twoNodes(t)
			alice := s.person("alice")
			p := s.project(alice, "data")
			must(t, s.Projects.Start(bg(), alice, p.ID))
			s.settled(p.ID, quire.ProjectRunning)
			must(t, s.Projects.Stop(bg(), alice, p.ID))
			s.settled(p.ID, quire.ProjectStopped)
			c.breaks(s)
			must(t, s.Moves.Begin(bg(), alice, p.ID, s.other.id, ""))
			s.moved(p.ID, quire.ProjectStopped)
			got := s.see(p.ID)
			if got.Node != s.record.ID || !strings.Contains(got.Reason, c.says) {
				t.Errorf("on %s: %q", got.Node, got.Reason)
			}
			if name == "placed" { // it is put away, and goes with what else is there of it
				s.eventually("it is put away", func() bool { return s.where(p.ID) == `"there" here, "aside" there` })
				s.clock.add(s.keep + time.Hour)
				s.loop.tidy()
			}
			s.eventually("it is as it was", func() bool { return s.where(p.ID) == `"there" here, "" there` })
			s.node.script(nil, nil)
			must(t, s.Projects.Start(bg(), alice, p.ID))
			s.settled(p.ID, quire.ProjectRunning)
		})
	}
}

func at(t quire.OrderType, err error) func(context.Context, quire.Order) error {
	return func(_ context.Context, o quire.Order) error {
		if o.Type == t {
			return err
		}
		return nil
	}
}

// A server that dies at any step of a move, and one that dies while it is undone,
// is followed by one that ends it.
//
//fault:server the server is killed at any step of a move to another node, or while it is undone
//fault:seen the move takes longer
//fault:lost nothing: the project is on one of the two nodes, whole
//fault:repair the next server goes on
//fault:also TestProjectMoves
func TestMovesSurviveTheServer(t *testing.T) {
	for _, c := range []struct {
		on     string
		at     quire.OrderType
		behind bool
		fails  bool
	}{
		{"node", quire.OrderAside, false, false}, {"node", quire.OrderAside, true, false}, {"node", quire.OrderSurvey, true, false},
		{"node", quire.OrderSend, false, false}, {"node", quire.OrderSend, true, false}, {"other", quire.OrderReceive, false, false}, {"other", quire.OrderReceive, true, false},
		{"other", quire.OrderSurvey, false, false}, {"other", quire.OrderPlace, false, false}, {"other", quire.OrderPlace, true, false},
		{"other", quire.OrderPermissions, false, false}, {"node", quire.OrderTrash, false, false}, {"node", quire.OrderTrash, true, false},
		{"node", quire.OrderBack, false, true}, {"node", quire.OrderBack, true, true}, {"other", quire.OrderUnstage, false, true}, {"other", quire.OrderUnstage, true, true},
	} {
		t.Run(fmt.Sprintf("%s %s %v", c.on, c.at, c.behind), func(t *testing.T) {
			s := twoNodes(t)
			alice := s.person("alice")
			p := s.started(alice, "data")
			must(t, s.Projects.Stop(bg(), alice, p.ID))
			s.settled(p.ID, quire.ProjectStopped)
			if c.fails {
				s.other.lies = true
			}
			h := newHang()
			m := map[string]*machine{"node": s.node, "other": s.other}[c.on]
			if c.behind {
				m.script(nil, h.at(c.at))
			} else {
				m.script(h.at(c.at), nil)
			}
			must(t, s.Moves.Begin(bg(), alice, p.ID, s.other.id, ""))
			h.wait(t)
			s.crash()
			m.script(nil, nil)
			s.boot()
			s.moved(p.ID, quire.ProjectStopped)
			want, where := s.other.id, `"aside" here, "there" there`
			if c.fails {
				want, where = s.record.ID, `"there" here, "" there`
			}
			if got := s.see(p.ID); got.Node != want {
				t.Errorf("it is on %s: %q", got.Node, got.Reason)
			}
			s.eventually(where, func() bool { return s.where(p.ID) == where })
		})
	}
}

// Who may cancels a move while it copies; then everything is as it was, and it runs
// as it ran.
func TestCancelMove(t *testing.T) {
	s := twoNodes(t)
	alice := s.person("alice")
	p := s.started(alice, "data")
	if err := s.Moves.Cancel(bg(), alice, p.ID); quire.KindOf(err) != quire.KindConflict {
		t.Errorf("nothing to cancel: %v", err)
	}
	h := newHang()
	s.other.script(h.at(quire.OrderReceive), nil)
	must(t, s.Moves.Begin(bg(), alice, p.ID, "", ""))
	h.wait(t)
	for what, err := range map[string]error{
		"start": s.Projects.Start(bg(), alice, p.ID), "move": s.Moves.Begin(bg(), alice, p.ID, "", ""), "delete": s.Projects.Delete(bg(), alice, p.ID, "data"),
	} {
		if quire.KindOf(err) != quire.KindConflict {
			t.Errorf("%s meanwhile: %v", what, err)
		}
	}
	must(t, s.Moves.Cancel(bg(), alice, p.ID))
	s.moved(p.ID, quire.ProjectRunning)
	s.eventually("it is as it was", func() bool { return s.where(p.ID) == `"there" here, "" there` })
	if log := s.events(p.ID); !strings.Contains(log, "project.move.cancel") || !strings.Contains(log, "project.move.failed") {
		t.Errorf("events: %s", log)
	}
}

// The original waits where nobody gets to it while its node is away: the project
// runs on the other one, and the rest is done later.
//
//fault:node the old node is away when a project has moved
//fault:seen nothing: the project runs on the new one
//fault:lost nothing
//fault:repair the old directory is cleared away when the node is back
func TestMoveWithoutTheOldNode(t *testing.T) {
	s := twoNodes(t)
	alice := s.person("alice")
	p := s.started(alice, "data")
	var once atomic.Bool
	s.other.script(nil, func(_ context.Context, o quire.Order) error {
		if o.Type == quire.OrderPlace && once.CompareAndSwap(false, true) {
			s.node.leave()
		}
		return nil
	})
	must(t, s.Moves.Begin(bg(), alice, p.ID, "", ""))
	s.moved(p.ID, quire.ProjectRunning)
	if got := s.where(p.ID); got != `"out" here, "there" there` {
		t.Error(got)
	}
	s.node.back()
	s.eventually("it is in the trash", func() bool { return s.where(p.ID) == `"aside" here, "there" there` })
	s.eventually("it is kept for as long as it should be", func() bool {
		var ls []store.Leftover
		s.tx(func(tx *store.Tx) (err error) { ls, err = tx.Leftovers(p.ID, tx.Now); return err })
		return len(ls) == 1 && ls[0].What == leftTrash && time.Until(ls[0].Due) > s.keep-time.Hour
	})
}

// Where both nodes show the same storage, and where there is no directory yet,
// nothing is copied.
func TestMoveWithoutACopy(t *testing.T) {
	for _, shared := range []bool{true, false} {
		s := twoNodes(t)
		alice := s.person("alice")
		var p quire.Project
		if shared {
			id := quire.NewStorageID()
			s.node.storage.ID, s.other.storage.ID = id, id
			for _, m := range []*machine{s.node, s.other} {
				m.leave()
			}
			s.eventually("they are away", func() bool { return !s.loop.nodeUp(s.record.ID) && !s.loop.nodeUp(s.other.id) })
			for _, m := range []*machine{s.node, s.other} {
				m.back()
			}
			s.up()
			p = s.started(alice, "data")
		} else {
			p = s.project(alice, "data")
		}
		must(t, s.Moves.Begin(bg(), alice, p.ID, "", ""))
		s.eventually("it is there", func() bool { return s.see(p.ID).Node == s.other.id && s.work(p.ID).Ended != nil })
		for _, o := range []quire.OrderType{quire.OrderAside, quire.OrderSend, quire.OrderTrash} {
			if s.node.ordered(o) != 0 {
				t.Errorf("shared %v: the order to %s was given", shared, o)
			}
		}
	}
}

// Where a project cannot go.
func TestMoveTargets(t *testing.T) {
	s := twoNodes(t)
	alice, eve := s.person("alice"), s.person("eve")
	p := s.project(alice, "data")
	must(t, s.Site.ChangeNode(bg(), quireItself, s.other.id, NodeChange{Drained: ptr(true), Note: ptr("Back on Monday.")}))
	for what, c := range map[string]struct {
		by   quire.Actor
		node quire.NodeID
		dc   quire.DataCenterID
		kind quire.Kind
	}{
		"drained": {alice, s.other.id, "", quire.KindInvalid}, "anywhere": {alice, "", "", quire.KindInvalid}, "where it is": {alice, s.record.ID, "", quire.KindInvalid},
		"nowhere": {alice, quire.NewNodeID(), "", quire.KindInvalid}, "somebody else's": {eve, "", "", quire.KindNotFound},
	} {
		if err := s.Moves.Begin(bg(), c.by, p.ID, c.node, c.dc); quire.KindOf(err) != c.kind {
			t.Errorf("%s: %v", what, err)
		}
	}
	must(t, s.Site.ChangeNode(bg(), quireItself, s.other.id, NodeChange{Drained: ptr(false)}))
	s.other.leave()
	s.eventually("it is away", func() bool { return !s.loop.nodeUp(s.other.id) })
	if err := s.Moves.Begin(bg(), alice, p.ID, s.other.id, ""); quire.KindOf(err) != quire.KindUnavailable {
		t.Errorf("to a node that is away: %v", err)
	}
}
