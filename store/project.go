package store

import (
	"database/sql"
	"strings"

	"quire"
)

// projectSelect reads projects as one asker ($1) sees them: role, star, owner.
const projectSelect = `SELECT p.id, p.owner, u.name, p.name, p.summary, p.description, p.public, p.data_center, p.node, p.dir, p.source,
	p.state, p.reason, p.created, p.changed, p.deleted, COALESCE(m.role, ''),
	(SELECT COUNT(*) FROM stars s WHERE s.project = p.id),
	EXISTS (SELECT 1 FROM stars s WHERE s.project = p.id AND s.user_id = $1)
	FROM projects p JOIN users u ON u.id = p.owner LEFT JOIN members m ON m.project = p.id AND m.user_id = $1 `

func scanProject(scan func(...any) error) (p quire.Project, err error) {
	var created, changed int64
	var deleted sql.NullInt64
	err = scan(&p.ID, &p.Owner, &p.OwnerName, &p.Name, &p.Summary, &p.Description, &p.Public, &p.DataCenter, &p.Node, &p.Dir, &p.Source,
		&p.State, &p.Reason, &created, &changed, &deleted, &p.Role, &p.Stars, &p.Starred)
	p.Created, p.Changed, p.Deleted = moment(created), moment(changed), momentOrNil(deleted)
	return p, err
}

func (t *Tx) projects(where string, args ...any) (ps []quire.Project, err error) {
	err = t.query(func(scan func(...any) error) error {
		p, err := scanProject(scan)
		ps = append(ps, p)
		return err
	}, projectSelect+where, args...)
	return ps, err
}

func first(ps []quire.Project, err error) (quire.Project, error) {
	if err != nil {
		return quire.Project{}, err
	}
	if len(ps) == 0 {
		return quire.Project{}, quire.NotFound("project")
	}
	return ps[0], nil
}

// AddProject stores a new project and its owner as member. KindConflict if the
// owner has one of that name.
func (t *Tx) AddProject(p quire.Project) error {
	if _, err := t.exec(`INSERT INTO projects (id, owner, name, name_key, summary, description, public, data_center, node, dir, source, state, reason, prepared, created, changed)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, '', $14, $15)`,
		p.ID, p.Owner, p.Name, strings.ToLower(p.Name), p.Summary, p.Description, p.Public, p.DataCenter, p.Node, p.Dir, p.Source,
		p.State, p.Reason, millis(p.Created), millis(p.Changed)); err != nil {
		return err
	}
	return t.SetMember(p.ID, p.Owner, quire.RoleOwner)
}

// DirTaken reports whether a living project has the directory.
func (t *Tx) DirTaken(dir string) (bool, error) {
	var n int
	err := t.one("count", `SELECT COUNT(*) FROM projects WHERE dir = $1 AND deleted IS NULL`, []any{dir}, &n)
	return n > 0, err
}

// Project finds a project by ID, deleted ones too, as asker sees it.
func (t *Tx) Project(asker quire.UserID, id quire.ProjectID) (quire.Project, error) {
	return first(t.projects(`WHERE p.id = $2`, asker, id))
}

// ProjectByName finds a living project by its address.
func (t *Tx) ProjectByName(asker quire.UserID, owner, name string) (quire.Project, error) {
	return first(t.projects(`WHERE u.name_key = $2 AND p.name_key = $3 AND p.deleted IS NULL`, asker, strings.ToLower(owner), strings.ToLower(name)))
}

// MovedProject finds a living project by an address that it had before it was
// handed over.
func (t *Tx) MovedProject(asker quire.UserID, owner, name string) (quire.Project, error) {
	return first(t.projects(`WHERE p.deleted IS NULL AND p.id = (SELECT v.project FROM moved v JOIN users o ON o.id = v.owner WHERE o.name_key = $2 AND v.name_key = $3)`,
		asker, strings.ToLower(owner), strings.ToLower(name)))
}

// ProjectsOf lists living projects the asker has that role in (owner), or any
// other role (contributing).
func (t *Tx) ProjectsOf(asker quire.UserID, owned bool) ([]quire.Project, error) {
	if owned {
		return t.projects(`WHERE p.owner = $1 AND p.deleted IS NULL ORDER BY p.changed DESC`, asker)
	}
	return t.projects(`WHERE m.user_id IS NOT NULL AND p.owner <> $1 AND p.deleted IS NULL ORDER BY p.changed DESC`, asker)
}

// PublicProjects lists up to n living public projects the asker is no member of.
func (t *Tx) PublicProjects(asker quire.UserID, n int) ([]quire.Project, error) {
	return t.projects(`WHERE p.public AND m.user_id IS NULL AND p.deleted IS NULL ORDER BY p.changed DESC LIMIT $2`, asker, n)
}

// DeletedProjects lists what the asker owns and can restore; asker "" lists all.
func (t *Tx) DeletedProjects(asker quire.UserID) ([]quire.Project, error) {
	return t.projects(`WHERE (p.owner = $1 OR $1 = '') AND p.deleted IS NOT NULL ORDER BY p.deleted DESC`, asker)
}

// ProjectsIn lists all projects in a state.
func (t *Tx) ProjectsIn(state quire.ProjectState) ([]quire.Project, error) {
	return t.projects(`WHERE p.state = $2`, "", state)
}

// SaveProject stores the words and the public switch.
func (t *Tx) SaveProject(p quire.Project) error {
	_, err := t.exec(`UPDATE projects SET summary = $2, description = $3, public = $4, changed = $5 WHERE id = $1`,
		p.ID, p.Summary, p.Description, p.Public, millis(t.Now))
	return err
}

// SetProjectState stores a state with its reason.
func (t *Tx) SetProjectState(id quire.ProjectID, state quire.ProjectState, reason string) error {
	_, err := t.exec(`UPDATE projects SET state = $2, reason = $3, changed = $4 WHERE id = $1`, id, state, reason, millis(t.Now))
	return err
}

// SetProjectNode stores where a project is.
func (t *Tx) SetProjectNode(id quire.ProjectID, dc quire.DataCenterID, node quire.NodeID) error {
	_, err := t.exec(`UPDATE projects SET data_center = $2, node = $3, changed = $4 WHERE id = $1`, id, dc, node, millis(t.Now))
	return err
}

// MarkDeleted notes when a project was deleted, or that it is back.
func (t *Tx) MarkDeleted(id quire.ProjectID, deleted bool) error {
	at := sql.NullInt64{Int64: millis(t.Now), Valid: deleted}
	_, err := t.exec(`UPDATE projects SET deleted = $2 WHERE id = $1`, id, at)
	return err
}

// DropProject forgets a project and all that hangs on it. Its labels are random,
// so none will ever be used again.
func (t *Tx) DropProject(id quire.ProjectID) error {
	for _, q := range []string{
		`DELETE FROM stars WHERE project = $1`, `DELETE FROM members WHERE project = $1`, `DELETE FROM sessions WHERE project = $1`,
		`DELETE FROM works WHERE project = $1`, `DELETE FROM moved WHERE project = $1`, `DELETE FROM lowered WHERE project = $1`, `DELETE FROM labels WHERE project = $1`, `DELETE FROM projects WHERE id = $1`,
	} {
		if _, err := t.exec(q, id); err != nil {
			return err
		}
	}
	return nil
}

// Prepared lists the steps of a start that need not run again.
func (t *Tx) Prepared(id quire.ProjectID) (map[string]bool, error) {
	var s string
	if err := t.one("project", `SELECT prepared FROM projects WHERE id = $1`, []any{id}, &s); err != nil {
		return nil, err
	}
	done := map[string]bool{}
	for _, name := range strings.Split(s, ",") {
		if name != "" {
			done[name] = true
		}
	}
	return done, nil
}

// SetPrepared adds a step; an empty name forgets all.
func (t *Tx) SetPrepared(id quire.ProjectID, step string) error {
	if step == "" {
		_, err := t.exec(`UPDATE projects SET prepared = '' WHERE id = $1`, id)
		return err
	}
	_, err := t.exec(`UPDATE projects SET prepared = prepared || $2 WHERE id = $1`, id, step+",")
	return err
}

// Star sets or takes a person's star.
func (t *Tx) Star(id quire.ProjectID, user quire.UserID, on bool) error {
	q := `DELETE FROM stars WHERE project = $1 AND user_id = $2`
	if on {
		q = `INSERT INTO stars (project, user_id) VALUES ($1, $2) ON CONFLICT DO NOTHING`
	}
	_, err := t.exec(q, id, user)
	return err
}

// Label returns the label of a person in a project, making one the first time.
func (t *Tx) Label(user quire.UserID, project quire.ProjectID) (quire.Label, error) {
	if _, err := t.exec(`INSERT INTO labels (label, user_id, project) VALUES ($1, $2, $3) ON CONFLICT (user_id, project) DO NOTHING`,
		quire.NewLabel(), user, project); err != nil {
		return "", err
	}
	return t.LabelOf(user, project)
}

// LabelOf is Label for a read-only transaction: KindNotFound before the first.
func (t *Tx) LabelOf(user quire.UserID, project quire.ProjectID) (l quire.Label, err error) {
	err = t.one("address", `SELECT label FROM labels WHERE user_id = $1 AND project = $2`, []any{user, project}, &l)
	return l, err
}

// LabelOwner says whose a label is.
func (t *Tx) LabelOwner(label quire.Label) (user quire.UserID, project quire.ProjectID, err error) {
	err = t.one("address", `SELECT user_id, project FROM labels WHERE label = $1`, []any{label}, &user, &project)
	return user, project, err
}
