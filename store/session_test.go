package store

import (
	"context"
	"reflect"
	"sort"
	"testing"
	"time"

	"quire"
)

func (w *site) session(u quire.User, app string, state quire.SessionState, created time.Time) quire.Session {
	return quire.Session{ID: quire.NewSessionID(), User: u.ID, UserName: u.Name, Project: w.project.ID, App: app, Node: w.node.ID, State: state, Created: created.UTC().Truncate(time.Millisecond)}
}

// One live session per person, project and app, whichever of the live states.
func TestOneLiveSession(t *testing.T) {
	live := []quire.SessionState{quire.SessionStarting, quire.SessionRunning, quire.SessionStopping}
	for _, have := range live {
		w := newSite(t)
		now := time.Now()
		add := func(s quire.Session) error {
			return w.Write(context.Background(), func(tx *Tx) error { return tx.AddSession(s) })
		}
		first := w.session(w.bob, "notebook", have, now)
		if err := add(first); err != nil {
			t.Fatal(err)
		}
		for _, more := range live {
			if err := add(w.session(w.bob, "notebook", more, now)); quire.KindOf(err) != quire.KindConflict {
				t.Errorf("%s beside %s: %v", more, have, err)
			}
		}
		for _, fine := range []quire.Session{
			w.session(w.bob, "notebook", quire.SessionEnded, now), w.session(w.bob, "notebook", quire.SessionFailed, now),
			w.session(w.bob, "terminal", have, now), w.session(w.alice, "notebook", have, now),
		} {
			if err := add(fine); err != nil {
				t.Errorf("%+v beside %s: %v", fine, have, err)
			}
		}
		write(t, w.Store, func(tx *Tx) error {
			first.State, first.Ended = quire.SessionEnded, &tx.Now
			return tx.SaveSession(first)
		})
		if err := add(w.session(w.bob, "notebook", quire.SessionStarting, now)); err != nil {
			t.Errorf("after the end of one that was %s: %v", have, err)
		}
	}
}

func TestOneLiveSessionInParallel(t *testing.T) {
	w := newSite(t)
	results := make(chan error, 64)
	for range 64 {
		go func() {
			results <- w.Write(context.Background(), func(tx *Tx) error { return tx.AddSession(w.session(w.bob, "lab", quire.SessionStarting, tx.Now)) })
		}()
	}
	won := 0
	for range 64 {
		switch err := <-results; quire.KindOf(err) {
		case "":
			won++
		case quire.KindConflict:
		default:
			t.Error(err)
		}
	}
	if won != 1 {
		t.Errorf("%d live sessions", won)
	}
}

func TestSessionRows(t *testing.T) {
	w := newSite(t)
	s := w.session(w.bob, "lab", quire.SessionStarting, time.Now())
	write(t, w.Store, func(tx *Tx) error {
		if err := tx.AddSession(s); err != nil {
			return err
		}
		if got, err := tx.Session(s.ID); err != nil || !reflect.DeepEqual(got, s) {
			t.Errorf("%+v, %v", got, err)
		}
		later := tx.Now.Add(time.Second)
		s.State, s.Ready, s.Reason, s.Log = quire.SessionRunning, &tx.Now, "r", "l\nl"
		if err := tx.SaveSession(s); err != nil {
			return err
		}
		if ok, err := tx.WantStop(s.ID, "alice"); !ok || err != nil {
			t.Errorf("%v, %v", ok, err)
		}
		if ok, err := tx.WantStop(s.ID, "bob"); ok || err != nil {
			t.Errorf("the second who stops it takes the place of the first: %v", err)
		}
		if by, err := tx.StopBy(s.ID); by != "alice" || err != nil {
			t.Errorf("%s, %v", by, err)
		}
		s.State, s.Ended, s.Exit = quire.SessionEnded, &later, &quire.Exit{Code: 3, Signal: "killed", OutOfMemory: true, By: "alice", At: later}
		if err := tx.SaveSession(s); err != nil {
			return err
		}
		if got, err := tx.Session(s.ID); err != nil || !reflect.DeepEqual(got, s) {
			t.Errorf("%+v, %v", got, err)
		}
		if ok, err := tx.WantStop(s.ID, "alice"); ok || err != nil {
			t.Errorf("stopped after its end: %v", err)
		}
		if _, err := tx.Session("s_none"); quire.KindOf(err) != quire.KindNotFound {
			t.Errorf("%v", err)
		}
		if _, err := tx.StopBy("s_none"); quire.KindOf(err) != quire.KindNotFound {
			t.Errorf("%v", err)
		}
		return nil
	})
}

func TestSessionLists(t *testing.T) {
	w := newSite(t)
	begin := time.Now().Add(-time.Hour)
	write(t, w.Store, func(tx *Tx) error {
		var all []quire.Session
		for i, s := range []quire.Session{
			w.session(w.bob, "lab", quire.SessionEnded, begin), w.session(w.bob, "lab", quire.SessionFailed, begin.Add(time.Minute)),
			w.session(w.bob, "lab", quire.SessionRunning, begin.Add(2*time.Minute)), w.session(w.alice, "lab", quire.SessionStopping, begin.Add(3*time.Minute)),
		} {
			if err := tx.AddSession(s); err != nil {
				return err
			}
			if i < 2 {
				ended := begin.Add(time.Duration(i) * time.Minute)
				s.Ended = &ended
				if err := tx.SaveSession(s); err != nil {
					return err
				}
			}
			all = append(all, s)
		}
		count := func(what string, want int) func([]quire.Session, error) []quire.Session {
			return func(ss []quire.Session, err error) []quire.Session {
				if len(ss) != want || err != nil {
					t.Errorf("%s: %d, %v", what, len(ss), err)
				}
				return ss
			}
		}
		if ss := count("newest three", 3)(tx.SessionsOf(w.project.ID, 1)); ss[2].ID != all[1].ID {
			t.Errorf("%+v", ss[2])
		}
		count("live", 2)(tx.SessionsOf(w.project.ID, 0))
		count("everything", 4)(tx.SessionsOf(w.project.ID, 9))
		count("on the node", 2)(tx.LiveSessions(w.node.ID))
		count("anywhere", 2)(tx.LiveSessions(""))
		count("on another node", 0)(tx.LiveSessions("n_x"))
		count("bob's", 1)(tx.LiveSessionsOfUser(w.bob.ID, ""))
		count("bob's here", 1)(tx.LiveSessionsOfUser(w.bob.ID, w.project.ID))
		count("bob's elsewhere", 0)(tx.LiveSessionsOfUser(w.bob.ID, "p_x"))
		latest, err := tx.LatestSession(w.bob.ID, w.project.ID, "lab")
		if err != nil || latest.ID != all[2].ID {
			t.Errorf("%+v, %v", latest, err)
		}
		latest, err = tx.LatestSession(w.bob.ID, w.project.ID, "terminal")
		if latest != nil {
			t.Errorf("%+v", latest)
		}
		return err
	})
}

// A gateway is told one route per label and app: the newest session that is live
// or has ended not long ago.
func TestRoutes(t *testing.T) {
	w := newSite(t)
	begin := time.Now().Add(-time.Hour)
	var label quire.Label
	end := func(tx *Tx, s quire.Session, at time.Time) {
		s.State, s.Reason, s.Log, s.Ended = quire.SessionFailed, "why", "log", &at
		if err := tx.SaveSession(s); err != nil {
			t.Error(err)
		}
	}
	var old, live, ended, long, unlabeled quire.Session
	write(t, w.Store, func(tx *Tx) (err error) {
		if label, err = tx.Label(w.bob.ID, w.project.ID); err != nil {
			return err
		}
		old = w.session(w.bob, "lab", quire.SessionFailed, begin)
		live = w.session(w.bob, "lab", quire.SessionRunning, begin.Add(time.Minute))
		ended = w.session(w.bob, "terminal", quire.SessionFailed, begin)
		long = w.session(w.bob, "viewer", quire.SessionFailed, begin.Add(-48*time.Hour))
		unlabeled = w.session(w.alice, "lab", quire.SessionRunning, begin)
		for _, s := range []quire.Session{old, live, ended, long, unlabeled} {
			if err := tx.AddSession(s); err != nil {
				return err
			}
		}
		end(tx, old, begin.Add(time.Second))
		end(tx, ended, begin.Add(time.Second))
		end(tx, long, begin.Add(-47*time.Hour))
		return nil
	})
	since := begin.Add(-24 * time.Hour).UnixMilli()
	read(t, w.Store, func(tx *Tx) error {
		rs, err := tx.Routes(since, "")
		sort.Slice(rs, func(i, j int) bool { return rs[i].App < rs[j].App })
		if err != nil || len(rs) != 2 || rs[0].Session != live.ID || rs[1].Session != ended.ID {
			t.Fatalf("%+v, %v", rs, err)
		}
		want := RouteRow{DataCenter: w.dc.ID, Route: quire.Route{
			Label: label, User: w.bob.ID, UserName: "bob", Project: w.project.ID, OwnerName: "Alice", ProjectName: "first", App: "terminal", Session: ended.ID, Node: w.node.ID,
			Permit: "write", State: quire.SessionFailed, Reason: "why", Log: "log",
		}}
		if rs[1] != want {
			t.Errorf("%+v", rs[1])
		}
		for id, n := range map[quire.SessionID]int{live.ID: 1, ended.ID: 1, old.ID: 0, long.ID: 0, unlabeled.ID: 0, "s_x": 0} {
			if rs, err := tx.Routes(since, id); len(rs) != n || err != nil {
				t.Errorf("%s: %+v, %v", id, rs, err)
			}
		}
		return nil
	})
}
