package server

import (
	"context"
	"strings"

	"quire"
	"quire/control"
)

// projectRow is a project in a list.
type projectRow struct {
	quire.Project
	Path string
}

// listsView is the part of the dashboard that is alive.
type listsView struct {
	Token        string
	Mine         []projectRow
	Contributing []projectRow
	Public       []projectRow
	Deleted      []projectRow
}

type dashboardView struct {
	Lists  listsView
	Advice string // what an administrator should look at, "" if all is well
}

func rows(ps []quire.Project) []projectRow {
	out := make([]projectRow, len(ps))
	for i, p := range ps {
		out[i] = projectRow{p, p.Path()}
	}
	return out
}

// lists loads what the person sees of projects.
func (c *call) lists(ctx context.Context) (v listsView, err error) {
	v.Token = c.token
	for _, l := range []struct {
		into  *[]projectRow
		which control.Listing
	}{
		{&v.Mine, control.Mine}, {&v.Contributing, control.Contributing}, {&v.Public, control.Public}, {&v.Deleted, control.Deleted},
	} {
		ps, err := c.s.control.Projects.List(ctx, c.by, l.which)
		if err != nil {
			return v, err
		}
		*l.into = rows(ps)
	}
	return v, nil
}

func dashboardGet(c *call, _ none) (answer, error) {
	if !c.by.Known() {
		needed, err := c.s.control.Users.SetupNeeded(c.ctx())
		if err != nil {
			return answer{}, err
		}
		if needed {
			return c.loginPage(loginView{Setup: true}), nil
		}
		return answer{}, quire.Unauthenticated()
	}
	lists, err := c.lists(c.ctx())
	if err != nil {
		return answer{}, err
	}
	v := dashboardView{Lists: lists}
	if c.by.Admin {
		dcs, nodes, err := c.machines()
		if err != nil {
			return answer{}, err
		}
		v.Advice = advice(dcs, nodes)
	}
	a := show("dashboard", "Projects", v)
	a.live = "/events"
	return a, nil
}

// advice is one sentence about what does not work, for administrators.
func advice(dcs []quire.DataCenter, nodes []quire.Node) string {
	var away []string
	for _, d := range dcs {
		if !d.Up {
			away = append(away, "data center "+d.Name)
		}
	}
	for _, n := range nodes {
		if !n.Up {
			away = append(away, "node "+n.Name)
		}
	}
	switch {
	case len(dcs) == 0 || len(nodes) == 0:
		return "No compute node has joined yet, so no project can start."
	case len(away) == 1:
		return upper(away[0]) + " is away."
	case len(away) > 1:
		return upper(strings.Join(away, ", ")) + " are away."
	}
	return ""
}

func upper(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

// New project.

type newProjectView struct {
	In    newProjectIn
	Token string
	Owner string
	Nodes []nodeChoice // empty when there is nothing to choose
	Bad   *quire.Error
}

// nodeChoice is a place where a project can live: a node, a data center (no
// name), or wherever there is room (neither).
type nodeChoice struct {
	ID, Name, DataCenter string
	Note                 string
	Closed               bool
	Up                   bool
	Chosen               bool
}

type newProjectIn struct {
	Name       string `form:"name"`
	Summary    string `form:"summary"`
	Visibility string `form:"visibility"`
	Source     string `form:"source"`
	Node       string `form:"node"`
}

func (in newProjectIn) wanted() control.NewProject {
	n := control.NewProject{Name: in.Name, Summary: in.Summary, Public: in.Visibility == "public", Source: in.Source}
	if quire.ValidID('d', in.Node) {
		n.DataCenter = quire.DataCenterID(in.Node)
	} else {
		n.Node = quire.NodeID(in.Node)
	}
	return n
}

// choices are the nodes a person can choose from, none if there is only one.
func choices(dcs []quire.DataCenter, nodes []quire.Node, chosen string) []nodeChoice {
	if len(nodes) < 2 {
		return nil
	}
	names := map[quire.DataCenterID]string{}
	for _, d := range dcs {
		names[d.ID] = d.Name
	}
	out := []nodeChoice{{Chosen: chosen == ""}}
	for _, d := range dcs {
		if len(dcs) > 1 {
			out = append(out, nodeChoice{ID: string(d.ID), DataCenter: d.Name, Up: d.Up, Chosen: string(d.ID) == chosen})
		}
		for _, n := range nodes {
			if n.DataCenter == d.ID {
				out = append(out, nodeChoice{ID: string(n.ID), Name: n.Name, DataCenter: names[n.DataCenter], Up: n.Up,
					Chosen: string(n.ID) == chosen, Closed: n.Drained, Note: n.Note})
			}
		}
	}
	return out
}

func (c *call) newProjectPage(v newProjectView) (answer, error) {
	dcs, nodes, err := c.machines()
	if err != nil {
		return answer{}, err
	}
	v.Token, v.Owner, v.Nodes = c.token, c.by.Name, choices(dcs, nodes, v.In.Node)
	return show("new", "New project", v).again(v.Bad), nil
}

func newProjectGet(c *call, _ none) (answer, error) { return c.newProjectPage(newProjectView{}) }

func newProjectPost(c *call, in newProjectIn) (answer, error) {
	p, err := c.s.control.Projects.Create(c.ctx(), c.by, in.wanted())
	if err == nil {
		return goTo(p.Path()), nil
	}
	if bad := formProblem(err); bad != nil {
		return c.newProjectPage(newProjectView{In: in, Bad: bad})
	}
	return answer{}, err
}
