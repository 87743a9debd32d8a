package store

import "quire"

// SetMember gives a person a role in a project.
func (t *Tx) SetMember(project quire.ProjectID, user quire.UserID, role quire.Role) error {
	_, err := t.exec(`INSERT INTO members (project, user_id, role) VALUES ($1, $2, $3)
		ON CONFLICT (project, user_id) DO UPDATE SET role = excluded.role`, project, user, role)
	return err
}

// RemoveMember takes a person off a team and reports whether he was on it.
func (t *Tx) RemoveMember(project quire.ProjectID, user quire.UserID) (bool, error) {
	return t.exec(`DELETE FROM members WHERE project = $1 AND user_id = $2`, project, user)
}

// Role says what a person is in a project; RoleNone for strangers.
func (t *Tx) Role(project quire.ProjectID, user quire.UserID) (role quire.Role, err error) {
	err = t.one("member", `SELECT role FROM members WHERE project = $1 AND user_id = $2`, []any{project, user}, &role)
	if quire.KindOf(err) == quire.KindNotFound {
		return quire.RoleNone, nil
	}
	return role, err
}

// Memberships are a person's roles in all projects, deleted ones too.
func (t *Tx) Memberships(user quire.UserID) (map[quire.ProjectID]quire.Role, error) {
	in := map[quire.ProjectID]quire.Role{}
	err := t.query(func(scan func(...any) error) error {
		var id quire.ProjectID
		var role quire.Role
		if err := scan(&id, &role); err != nil {
			return err
		}
		in[id] = role
		return nil
	}, `SELECT project, role FROM members WHERE user_id = $1`, user)
	return in, err
}

// Members lists a team: the owner, then the others by name.
func (t *Tx) Members(project quire.ProjectID) (ms []quire.Member, err error) {
	err = t.query(func(scan func(...any) error) error {
		var m quire.Member
		if err := scan(&m.User, &m.Name, &m.FullName, &m.Role); err != nil {
			return err
		}
		ms = append(ms, m)
		return nil
	}, `SELECT u.id, u.name, u.full_name, m.role FROM members m JOIN users u ON u.id = m.user_id
		WHERE m.project = $1 ORDER BY CASE m.role WHEN 'owner' THEN 0 ELSE 1 END, u.name_key`, project)
	return ms, err
}
