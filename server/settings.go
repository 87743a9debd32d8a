package server

import (
	"quire"
	"quire/control"
)

// settingsForm is what was typed and what was wrong with it.
type settingsForm struct {
	Summary, Description string
	Add, Role, Confirm   string
	Typed                bool // show what was typed, not what is stored
	Bad                  *quire.Error
}

type settingsView struct {
	projectHead
	Menu       string // "project", "team", "permissions", "admin", "info"
	Form       settingsForm
	Team       []memberView
	DataCenter *quire.DataCenter
	Node       *quire.Node
	Live       []string // whose sessions a stop or delete ends
	Disk       *diskView
	Targets    []control.Target // where it could move to
}

func (c *call) settingsPage(p quire.Project, menu string, f settingsForm) (answer, error) {
	v := settingsView{projectHead: head(c.by, p, c.token, "settings"), Menu: menu, Form: f}
	if !v.CanEdit && !v.CanManage {
		return answer{}, quire.Forbidden("The settings of a project are for its editors and its owner.")
	}
	if !f.Typed {
		v.Form.Summary, v.Form.Description = p.Summary, p.Description
	}
	team, err := c.s.control.Team.List(c.ctx(), c.by, p.ID)
	if err != nil {
		return answer{}, err
	}
	v.Team = members(c.by, team)
	sessions, err := c.s.control.Sessions.List(c.ctx(), c.by, p.ID)
	if err != nil {
		return answer{}, err
	}
	for _, s := range sessions {
		if s.State.Live() {
			v.Live = append(v.Live, s.UserName+" ("+s.App+")")
		}
	}
	if menu == "info" {
		if err := c.whereabouts(&v, p); err != nil {
			return answer{}, err
		}
	}
	if menu == "admin" && v.CanMove {
		if v.Targets, err = c.s.control.Moves.Targets(c.ctx(), c.by, p.ID); err != nil {
			return answer{}, err
		}
	}
	return show("settings", p.Name+" settings", v).again(f.Bad), nil
}

func (c *call) whereabouts(v *settingsView, p quire.Project) error {
	dcs, err := c.s.control.Site.DataCenters(c.ctx(), c.by)
	if err != nil {
		return err
	}
	for i := range dcs {
		if dcs[i].ID == p.DataCenter {
			v.DataCenter = &dcs[i]
		}
	}
	nodes, err := c.s.control.Site.Nodes(c.ctx(), c.by)
	if err != nil {
		return err
	}
	for i := range nodes {
		if nodes[i].ID == p.Node {
			v.Node = &nodes[i]
		}
	}
	return nil
}

func settingsGet(menu string) func(*call, projectRef) (answer, error) {
	return func(c *call, in projectRef) (answer, error) {
		p, err := c.project(in)
		if err != nil {
			return answer{}, err
		}
		return c.settingsPage(p, menu, settingsForm{})
	}
}

type wordsIn struct {
	projectRef
	Summary     string `form:"summary"`
	Description string `form:"description"`
}

func settingsPost(c *call, in wordsIn) (answer, error) {
	p, err := c.project(in.projectRef)
	if err != nil {
		return answer{}, err
	}
	_, err = c.s.control.Projects.Update(c.ctx(), c.by, p.ID, control.ProjectChange{Summary: &in.Summary, Description: &in.Description})
	if bad := formProblem(err); bad != nil {
		return c.settingsPage(p, "project", settingsForm{Summary: in.Summary, Description: in.Description, Typed: true, Bad: bad})
	}
	return goTo(p.Path() + "/settings?done=saved"), err
}

type visibilityIn struct {
	projectRef
	Public bool `form:"public"`
}

func visibilityPost(c *call, in visibilityIn) (answer, error) {
	p, err := c.project(in.projectRef)
	if err != nil {
		return answer{}, err
	}
	word := "private"
	if in.Public {
		word = "published"
	}
	_, err = c.s.control.Projects.Update(c.ctx(), c.by, p.ID, control.ProjectChange{Public: &in.Public})
	return goTo(p.Path() + "/settings/admin?done=" + word), err
}

type deleteIn struct {
	projectRef
	Confirm string `form:"confirm"`
}

func deletePost(c *call, in deleteIn) (answer, error) {
	p, err := c.project(in.projectRef)
	if err != nil {
		return answer{}, err
	}
	err = c.s.control.Projects.Delete(c.ctx(), c.by, p.ID, in.Confirm)
	if bad := formProblem(err); bad != nil {
		return c.settingsPage(p, "admin", settingsForm{Confirm: in.Confirm, Bad: bad})
	}
	return goTo("/?done=deleted"), err
}

type previewIn struct {
	Text string `json:"text"`
}

type previewOut struct {
	HTML string `json:"html"`
}
