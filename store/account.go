package store

import (
	"database/sql"
	"encoding/json"

	"quire"
)

// Account is the Linux account of a person.
func (t *Tx) Account(user quire.UserID) (p quire.Person, err error) {
	err = t.one("account", `SELECT name, uid FROM accounts WHERE user_id = $1`, []any{user}, &p.Name, &p.UID)
	return p, err
}

// AddAccount keeps a person's account for good. KindConflict if name or number
// is somebody else's.
func (t *Tx) AddAccount(user quire.UserID, p quire.Person) error {
	_, err := t.exec(`INSERT INTO accounts (user_id, name, uid, created) VALUES ($1, $2, $3, $4)`, user, p.Name, p.UID, millis(t.Now))
	return err
}

// AccountOf is whose account has the number.
func (t *Tx) AccountOf(uid uint32) (user quire.User, err error) {
	err = t.one("account", `SELECT u.id, u.name FROM accounts a JOIN users u ON u.id = a.user_id WHERE a.uid = $1`, []any{uid}, &user.ID, &user.Name)
	return user, err
}

// AccountNamed reports whether anybody has or had the account's name.
func (t *Tx) AccountNamed(name string) (bool, error) {
	var n int
	err := t.one("count", `SELECT COUNT(*) FROM accounts WHERE name = $1`, []any{name}, &n)
	return n > 0, err
}

// LastUID is the highest number given between from and to, 0 before the first.
func (t *Tx) LastUID(from, to uint32) (uid uint32, err error) {
	err = t.one("count", `SELECT COALESCE(MAX(uid), 0) FROM accounts WHERE uid >= $1 AND uid <= $2`, []any{from, to}, &uid)
	return uid, err
}

// Lowered is somebody whose rights in a project were taken or lowered.
type Lowered struct {
	User  quire.UserID
	Name  string
	Role  quire.Role // now: RoleNone, or what he has left
	Rev   quire.Revocation
	Cut   bool // streams closed, processes ended, directory shut
	Swept bool // the files below were gone through
	Took  float64

	Disabled bool            // the person may sign in nowhere
	Report   []quire.Finding // what the sweep left
}

// SetLowered notes that the newest revocation lowered a person's rights.
func (t *Tx) SetLowered(project quire.ProjectID, user quire.UserID) error {
	_, err := t.exec(`INSERT INTO lowered (project, user_id, seq, at) SELECT CAST($1 AS TEXT), CAST($2 AS TEXT), MAX(seq), CAST($3 AS BIGINT) FROM revocations WHERE TRUE
		ON CONFLICT (project, user_id) DO UPDATE SET seq = excluded.seq, at = excluded.at, cut = NULL, swept = NULL, report = '[]'`, project, user, millis(t.Now))
	return err
}

// DropLowered forgets it: he has his rights back.
func (t *Tx) DropLowered(project quire.ProjectID, user quire.UserID) error {
	_, err := t.exec(`DELETE FROM lowered WHERE project = $1 AND user_id = $2`, project, user)
	return err
}

// Lowered lists them, the newest first.
func (t *Tx) Lowered(project quire.ProjectID) (ls []Lowered, err error) {
	err = t.query(func(scan func(...any) error) error {
		var l Lowered
		var at int64
		var cut, swept sql.NullInt64
		var report string
		if err := scan(&l.User, &l.Name, &l.Disabled, &l.Role, &l.Rev.Seq, &at, &cut, &swept, &report); err != nil {
			return err
		}
		if err := json.Unmarshal([]byte(report), &l.Report); err != nil {
			return err
		}
		l.Rev.User, l.Rev.Project, l.Rev.At = l.User, project, moment(at)
		l.Cut, l.Swept = cut.Valid, swept.Valid
		if cut.Valid {
			l.Took = float64(cut.Int64-at) / 1000
		}
		ls = append(ls, l)
		return nil
	}, `SELECT l.user_id, u.name, u.disabled, COALESCE(m.role, ''), l.seq, l.at, l.cut, l.swept, l.report FROM lowered l JOIN users u ON u.id = l.user_id
		LEFT JOIN members m ON m.project = l.project AND m.user_id = l.user_id WHERE l.project = $1 ORDER BY l.seq DESC`, project)
	return ls, err
}

// SetCut notes that what was lowered up to seq has been carried out.
func (t *Tx) SetCut(project quire.ProjectID, seq int64) error {
	_, err := t.exec(`UPDATE lowered SET cut = $3 WHERE project = $1 AND seq <= $2 AND cut IS NULL`, project, seq, millis(t.Now))
	return err
}

// SetReport keeps what a sweep could not do about a person.
func (t *Tx) SetReport(project quire.ProjectID, user quire.UserID, found []quire.Finding) error {
	b, err := json.Marshal(found)
	if err != nil {
		return err
	}
	_, err = t.exec(`UPDATE lowered SET report = $3 WHERE project = $1 AND user_id = $2`, project, user, string(b))
	return err
}

// Unsweep has the files gone through once more for a person.
func (t *Tx) Unsweep(project quire.ProjectID, user quire.UserID) error {
	_, err := t.exec(`UPDATE lowered SET swept = NULL WHERE project = $1 AND user_id = $2`, project, user)
	return err
}

// SetSwept notes that the files were gone through for those lowered up to seq.
func (t *Tx) SetSwept(project quire.ProjectID, seq int64) error {
	_, err := t.exec(`UPDATE lowered SET swept = $3 WHERE project = $1 AND seq <= $2 AND swept IS NULL`, project, seq, millis(t.Now))
	return err
}

// TeamOnDisk is how far the project's node is with the team.
type TeamOnDisk struct {
	Wanted, Done int64 // equal: what the disk says is the team
	Note         string
	RepairNote   string
	Repairing    bool  // its access lists are to be put right
	Repaired     int64 // Unix milliseconds, 0 = never
}

// TeamOnDisk reads it.
func (t *Tx) TeamOnDisk(project quire.ProjectID) (d TeamOnDisk, err error) {
	err = t.one("project", `SELECT team, team_on_disk, team_note, repair_note, repairing, COALESCE(repaired, 0) FROM projects WHERE id = $1`, []any{project},
		&d.Wanted, &d.Done, &d.Note, &d.RepairNote, &d.Repairing, &d.Repaired)
	return d, err
}

// TeamChanged counts a change that the disk must follow.
func (t *Tx) TeamChanged(project quire.ProjectID) error {
	_, err := t.exec(`UPDATE projects SET team = team + 1 WHERE id = $1`, project)
	return err
}

// SetTeamOnDisk notes which change the node has carried out.
func (t *Tx) SetTeamOnDisk(project quire.ProjectID, done int64, note string) error {
	_, err := t.exec(`UPDATE projects SET team_on_disk = CASE WHEN team_on_disk < $2 THEN $2 ELSE team_on_disk END, team_note = $3 WHERE id = $1`, project, done, note)
	return err
}

// SetRepairing notes whether the project's access lists are to be put right.
func (t *Tx) SetRepairing(project quire.ProjectID, on bool) error {
	_, err := t.exec(`UPDATE projects SET repairing = $2 WHERE id = $1 AND repairing <> $2`, project, on)
	return err
}

// SetRepaired notes what a repair said.
func (t *Tx) SetRepaired(project quire.ProjectID, note string) error {
	_, err := t.exec(`UPDATE projects SET repaired = $2, repair_note = $3 WHERE id = $1`, project, millis(t.Now), note)
	return err
}

// TeamsBehind lists living projects whose team has changes that the disk does
// not show yet. A project that was never started has nothing on disk.
func (t *Tx) TeamsBehind() ([]quire.ProjectID, error) {
	return t.projectIDs(`SELECT id FROM projects p WHERE deleted IS NULL AND (prepared <> '' AND team_on_disk < team
		OR EXISTS (SELECT 1 FROM lowered l WHERE l.project = p.id AND (l.cut IS NULL OR l.swept IS NULL)))`)
}

// RepairsOpen lists living projects whose access lists are to be put right.
func (t *Tx) RepairsOpen() ([]quire.ProjectID, error) {
	return t.projectIDs(`SELECT id FROM projects WHERE deleted IS NULL AND repairing`)
}

func (t *Tx) projectIDs(query string) (ids []quire.ProjectID, err error) {
	err = t.query(func(scan func(...any) error) error {
		var id quire.ProjectID
		err := scan(&id)
		ids = append(ids, id)
		return err
	}, query)
	return ids, err
}

// SetOwner hands a project over: the owner before stays as an editor.
func (t *Tx) SetOwner(project quire.ProjectID, from, to quire.UserID) error {
	if _, err := t.exec(`UPDATE projects SET owner = $2, changed = $3 WHERE id = $1`, project, to, millis(t.Now)); err != nil {
		return err
	}
	// Where it was leads to where it is, until another one of that name is there.
	if _, err := t.exec(`INSERT INTO moved (owner, name_key, project) SELECT $2, name_key, id FROM projects WHERE id = $1
		ON CONFLICT (owner, name_key) DO UPDATE SET project = excluded.project`, project, from); err != nil {
		return err
	}
	if err := t.SetMember(project, from, quire.RoleEditor); err != nil {
		return err
	}
	return t.SetMember(project, to, quire.RoleOwner)
}
