package store

import (
	"database/sql"
	"encoding/json"

	"quire"
)

const workSelect = `SELECT id, kind, project, by_name, author, move, state, error, log, steps, created, ended FROM works `

func (t *Tx) works(where string, args ...any) (ws []quire.Work, err error) {
	err = t.query(func(scan func(...any) error) error {
		var w quire.Work
		var steps, move string
		var created int64
		var ended sql.NullInt64
		if err := scan(&w.ID, &w.Kind, &w.Project, &w.By, &w.Author, &move, &w.State, &w.Error, &w.Log, &steps, &created, &ended); err != nil {
			return err
		}
		w.Created, w.Ended = moment(created), momentOrNil(ended)
		if move != "" {
			if err := json.Unmarshal([]byte(move), &w.Move); err != nil {
				return err
			}
		}
		ws = append(ws, w)
		return json.Unmarshal([]byte(steps), &ws[len(ws)-1].Steps)
	}, workSelect+where, args...)
	return ws, err
}

// AddWork stores a work. KindConflict while another one of the project is open.
func (t *Tx) AddWork(w quire.Work, actor quire.UserID) error {
	steps, err := json.Marshal(w.Steps)
	if err != nil {
		return err
	}
	move, err := moveText(w)
	if err != nil {
		return err
	}
	_, err = t.exec(`INSERT INTO works (id, kind, project, actor, by_name, author, state, error, log, steps, created, move)
		VALUES ($1, $2, $3, $4, $5, $6, $7, '', '', $8, $9, $10)`, w.ID, w.Kind, w.Project, actor, w.By, w.Author, w.State, string(steps), millis(w.Created), move)
	return err
}

// SaveWork stores how a work stands.
func (t *Tx) SaveWork(w quire.Work) error {
	steps, err := json.Marshal(w.Steps)
	if err != nil {
		return err
	}
	move, err := moveText(w)
	if err != nil {
		return err
	}
	_, err = t.exec(`UPDATE works SET state = $2, error = $3, log = $4, steps = $5, ended = $6, move = $7 WHERE id = $1`,
		w.ID, w.State, w.Error, w.Log, string(steps), millisOrNull(w.Ended), move)
	return err
}

func moveText(w quire.Work) (string, error) {
	if w.Move == nil {
		return "", nil
	}
	b, err := json.Marshal(w.Move)
	return string(b), err
}

// CancelWork notes who wants an open work to end. False: it is over.
func (t *Tx) CancelWork(id quire.WorkID, by string) (bool, error) {
	return t.exec(`UPDATE works SET cancel = $2 WHERE id = $1 AND ended IS NULL`, id, by)
}

// WorkCancel is who wants the work to end, "" for nobody.
func (t *Tx) WorkCancel(id quire.WorkID) (by string, err error) {
	err = t.one("work", `SELECT cancel FROM works WHERE id = $1`, []any{id}, &by)
	return by, err
}

// OpenWorks lists all works that are not over, oldest first.
func (t *Tx) OpenWorks() ([]quire.Work, error) {
	return t.works(`WHERE ended IS NULL ORDER BY created`)
}

// OpenWork is the project's work that is not over, nil if none.
func (t *Tx) OpenWork(project quire.ProjectID) (*quire.Work, error) {
	return firstWork(t.works(`WHERE project = $1 AND ended IS NULL`, project))
}

// LatestWork is the project's newest work, nil if it never had one.
func (t *Tx) LatestWork(project quire.ProjectID) (*quire.Work, error) {
	return firstWork(t.works(`WHERE project = $1 ORDER BY created DESC, id DESC LIMIT 1`, project))
}

func firstWork(ws []quire.Work, err error) (*quire.Work, error) {
	if err != nil || len(ws) == 0 {
		return nil, err
	}
	return &ws[0], nil
}

// WorkActor says who began a work.
func (t *Tx) WorkActor(id quire.WorkID) (user quire.UserID, err error) {
	err = t.one("work", `SELECT actor FROM works WHERE id = $1`, []any{id}, &user)
	return user, err
}
