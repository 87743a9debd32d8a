package store

import (
	"database/sql"
	"encoding/json"

	"quire"
)

const sessionSelect = `SELECT s.id, s.user_id, u.name, s.project, s.app, s.node, s.state, s.reason, s.log, s.ended_exit, s.created, s.ready, s.ended
	FROM sessions s JOIN users u ON u.id = s.user_id `

func scanSession(scan func(...any) error) (s quire.Session, err error) {
	var exit string
	var created int64
	var ready, ended sql.NullInt64
	if err = scan(&s.ID, &s.User, &s.UserName, &s.Project, &s.App, &s.Node, &s.State, &s.Reason, &s.Log, &exit, &created, &ready, &ended); err != nil {
		return s, err
	}
	s.Created, s.Ready, s.Ended = moment(created), momentOrNil(ready), momentOrNil(ended)
	if exit != "" {
		err = json.Unmarshal([]byte(exit), &s.Exit)
	}
	return s, err
}

func (t *Tx) sessions(where string, args ...any) (ss []quire.Session, err error) {
	err = t.query(func(scan func(...any) error) error {
		s, err := scanSession(scan)
		ss = append(ss, s)
		return err
	}, sessionSelect+where, args...)
	return ss, err
}

const liveStates = `('starting', 'running', 'stopping')`

// AddSession stores a new session. KindConflict if that person has a live one
// of the app in the project.
func (t *Tx) AddSession(s quire.Session) error {
	if s.Permit == "" {
		s.Permit = "write"
	}
	_, err := t.exec(`INSERT INTO sessions (id, user_id, project, app, node, state, reason, log, stop_by, ended_exit, created, permit, content)
		VALUES ($1, $2, $3, $4, $5, $6, $7, '', '', '', $8, $9, $10)`, s.ID, s.User, s.Project, s.App, s.Node, s.State, s.Reason, millis(s.Created), s.Permit, s.Content)
	return err
}

// SaveSession stores how a session stands.
func (t *Tx) SaveSession(s quire.Session) error {
	exit := ""
	if s.Exit != nil {
		b, err := json.Marshal(s.Exit)
		if err != nil {
			return err
		}
		exit = string(b)
	}
	_, err := t.exec(`UPDATE sessions SET state = $2, reason = $3, log = $4, ended_exit = $5, ready = $6, ended = $7 WHERE id = $1`,
		s.ID, s.State, s.Reason, s.Log, exit, millisOrNull(s.Ready), millisOrNull(s.Ended))
	return err
}

// WantStop notes that a live session is to stop and who wants it.
func (t *Tx) WantStop(id quire.SessionID, by string) (bool, error) {
	return t.exec(`UPDATE sessions SET state = 'stopping', stop_by = $2 WHERE id = $1 AND state IN ('starting', 'running')`, id, by)
}

// StopBy says who wanted the session stopped.
func (t *Tx) StopBy(id quire.SessionID) (by string, err error) {
	err = t.one("session", `SELECT stop_by FROM sessions WHERE id = $1`, []any{id}, &by)
	return by, err
}

// Session finds a session by ID.
func (t *Tx) Session(id quire.SessionID) (quire.Session, error) {
	ss, err := t.sessions(`WHERE s.id = $1`, id)
	if err == nil && len(ss) == 0 {
		err = quire.NotFound("session")
	}
	if err != nil {
		return quire.Session{}, err
	}
	return ss[0], nil
}

// LatestSession is a person's newest session of an app in a project, nil if
// there was none.
func (t *Tx) LatestSession(user quire.UserID, project quire.ProjectID, app string) (*quire.Session, error) {
	ss, err := t.sessions(`WHERE s.user_id = $1 AND s.project = $2 AND s.app = $3 ORDER BY s.created DESC, s.id DESC LIMIT 1`, user, project, app)
	if err != nil || len(ss) == 0 {
		return nil, err
	}
	return &ss[0], nil
}

// SessionsOf lists a project's live sessions and, up to n, its newest others.
func (t *Tx) SessionsOf(project quire.ProjectID, n int) ([]quire.Session, error) {
	live, err := t.sessions(`WHERE s.project = $1 AND s.state IN `+liveStates+` ORDER BY s.created DESC`, project)
	if err != nil || n == 0 {
		return live, err
	}
	old, err := t.sessions(`WHERE s.project = $1 AND s.state NOT IN `+liveStates+` ORDER BY s.created DESC LIMIT $2`, project, n)
	return append(live, old...), err
}

// LiveSessions lists all live sessions, of one node or (node "") of all.
func (t *Tx) LiveSessions(node quire.NodeID) ([]quire.Session, error) {
	return t.sessions(`WHERE (s.node = $1 OR $1 = '') AND s.state IN `+liveStates, node)
}

// LiveSessionsOfUser lists a person's live sessions, in one project or ("") all.
func (t *Tx) LiveSessionsOfUser(user quire.UserID, project quire.ProjectID) ([]quire.Session, error) {
	return t.sessions(`WHERE s.user_id = $1 AND (s.project = $2 OR $2 = '') AND s.state IN `+liveStates, user, project)
}

// A RouteRow is a route and the data center whose gateway must know it. The
// app's title is not stored: the node's descriptors have it.
type RouteRow struct {
	quire.Route
	DataCenter quire.DataCenterID
}

// Routes lists, per label and app, the newest session that is live or ended
// since the moment; id limits it to one session ("": all).
func (t *Tx) Routes(since int64, id quire.SessionID) (rs []RouteRow, err error) {
	err = t.query(func(scan func(...any) error) error {
		var r RouteRow
		if err := scan(&r.Label, &r.User, &r.UserName, &r.Project, &r.OwnerName, &r.ProjectName, &r.DataCenter,
			&r.App, &r.Session, &r.Node, &r.State, &r.Reason, &r.Log, &r.Permit, &r.Content); err != nil {
			return err
		}
		rs = append(rs, r)
		return nil
	}, `SELECT l.label, s.user_id, u.name, s.project, o.name, p.name, p.data_center, s.app, s.id, s.node, s.state, s.reason, s.log, s.permit, s.content
		FROM sessions s JOIN labels l ON l.user_id = s.user_id AND l.project = s.project
		JOIN users u ON u.id = s.user_id JOIN projects p ON p.id = s.project JOIN users o ON o.id = p.owner
		WHERE (s.state IN `+liveStates+` OR s.ended > $1) AND (s.id = $2 OR $2 = '')
		AND NOT EXISTS (SELECT 1 FROM sessions n WHERE n.user_id = s.user_id AND n.project = s.project AND n.app = s.app
			AND (n.created > s.created OR n.created = s.created AND n.id > s.id))`, since, id)
	return rs, err
}
