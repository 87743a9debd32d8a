package server

import (
	"net/url"

	"quire"
	"quire/control"
)

type teamIn struct {
	projectRef
	Name string `form:"name"`
	Role string `form:"role"`
	Back string `form:"back"`
}

// teamBack is where a team form came from: the project page or the settings.
func teamBack(p quire.Project, back, done string) string {
	path := p.Path()
	if back == "settings" {
		path += "/settings/team"
	}
	return path + "?done=" + url.QueryEscape(done)
}

func teamPost(c *call, in teamIn) (answer, error) {
	p, err := c.project(in.projectRef)
	if err != nil {
		return answer{}, err
	}
	role := quire.Role(in.Role)
	if role == "" {
		role = quire.RoleEditor
	}
	err = c.s.control.Team.Set(c.ctx(), c.by, p.ID, in.Name, role)
	if bad := formProblem(err); bad != nil {
		return c.settingsPage(p, "team", settingsForm{Add: in.Name, Role: in.Role, Bad: bad})
	}
	return goTo(teamBack(p, in.Back, "added")), err
}

func teamRemove(c *call, in teamIn) (answer, error) {
	p, err := c.project(in.projectRef)
	if err != nil {
		return answer{}, err
	}
	if err := c.s.control.Team.Remove(c.ctx(), c.by, p.ID, in.Name); err != nil {
		return answer{}, err
	}
	if in.Name == c.by.Name && !p.Public && !c.by.Admin {
		return goTo("/"), nil // a person who left sees the project no more
	}
	return goTo(teamBack(p, in.Back, "removed")), nil
}

func apiTeam(c *call, in projectRef) ([]quire.Member, error) {
	p, err := c.project(in)
	if err != nil {
		return nil, err
	}
	return c.s.control.Team.List(c.ctx(), c.by, p.ID)
}

func apiPermissions(c *call, in projectRef) (control.Disk, error) {
	p, err := c.project(in)
	if err != nil {
		return control.Disk{}, err
	}
	return c.s.control.Team.Disk(c.ctx(), c.by, p.ID)
}

type ownerIn struct {
	projectRef
	Name string `json:"name"`
}

func apiSetOwner(c *call, in ownerIn) ([]quire.Member, error) {
	p, err := c.project(in.projectRef)
	if err != nil {
		return nil, err
	}
	if err := c.s.control.Team.HandOver(c.ctx(), c.by, p.ID, in.Name); err != nil {
		return nil, err
	}
	return c.s.control.Team.List(c.ctx(), c.by, p.ID)
}

type memberRef struct {
	projectRef
	Name string `path:"name" json:"-"`
}

type memberIn struct {
	memberRef
	Role string `json:"role"`
}

func apiSetMember(c *call, in memberIn) ([]quire.Member, error) {
	p, err := c.project(in.projectRef)
	if err != nil {
		return nil, err
	}
	if err := c.s.control.Team.Set(c.ctx(), c.by, p.ID, in.Name, quire.Role(in.Role)); err != nil {
		return nil, err
	}
	return c.s.control.Team.List(c.ctx(), c.by, p.ID)
}

func apiRemoveMember(c *call, in memberRef) (done, error) {
	p, err := c.project(in.projectRef)
	if err != nil {
		return done{}, err
	}
	return done{true}, c.s.control.Team.Remove(c.ctx(), c.by, p.ID, in.Name)
}
