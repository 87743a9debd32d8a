package server

import (
	"quire"
	"quire/control"
)

type moveForm struct {
	projectRef
	Node string `form:"node"`
}

// movePost begins to move a project; the project's page shows how far it is.
func movePost(c *call, in moveForm) (answer, error) {
	p, err := c.project(in.projectRef)
	if err != nil {
		return answer{}, err
	}
	err = c.s.control.Moves.Begin(c.ctx(), c.by, p.ID, quire.NodeID(in.Node), "")
	if bad := formProblem(err); bad != nil {
		return c.settingsPage(p, "admin", settingsForm{Bad: bad})
	}
	return goTo(p.Path() + "?done=moves"), err
}

func cancelMove(c *call, p quire.Project) error {
	return c.s.control.Moves.Cancel(c.ctx(), c.by, p.ID)
}

// The same as JSON.

type moveIn struct {
	projectRef
	Node       string `json:"node"`        // "": wherever there is room
	DataCenter string `json:"data_center"` // "": any
}

func apiMove(c *call, in moveIn) (*quire.Work, error) {
	p, err := c.project(in.projectRef)
	if err != nil {
		return nil, err
	}
	if err := c.s.control.Moves.Begin(c.ctx(), c.by, p.ID, quire.NodeID(in.Node), quire.DataCenterID(in.DataCenter)); err != nil {
		return nil, err
	}
	return c.s.control.Sessions.Timeline(c.ctx(), c.by, p.ID)
}

func apiMoveTargets(c *call, in projectRef) ([]control.Target, error) {
	p, err := c.project(in)
	if err != nil {
		return nil, err
	}
	return c.s.control.Moves.Targets(c.ctx(), c.by, p.ID)
}
