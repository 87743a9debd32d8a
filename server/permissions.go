package server

import (
	"fmt"
	"strings"

	"quire"
	"quire/control"
)

// diskView is what the settings say about a project's files.
type diskView struct {
	control.Disk
	Gone     []goneView
	Who      string // "Why can't Who edit Where?"
	Where    string
	Why      *control.Why
	Authors  []control.Author
	Asked    bool // for the authors
	Timeline *timelineView
}

// goneView is somebody whose rights were taken.
type goneView struct {
	Line   string
	Report []string
}

func revokedLine(r control.Revoked) string {
	line := r.Name + ": " + r.Sentence() + "."
	if r.Disabled {
		line += " The person is disabled."
	}
	if r.Held {
		line += " Stays shut out, because files that could not be set right still let " + r.Name + " write."
	}
	return line
}

// findingLine is "3 belong to people outside the team: a, b, c".
func findingLine(f quire.Finding) string {
	line := fmt.Sprintf("%d %s", f.N, f.Kind)
	if len(f.Examples) > 0 {
		line += ": " + strings.Join(f.Examples, ", ")
	}
	return line
}

type permissionsIn struct {
	projectRef
	Name    string `query:"name"`
	Path    string `query:"path"`
	Authors bool   `query:"authors"`
}

func permissionsGet(c *call, in permissionsIn) (answer, error) {
	p, err := c.project(in.projectRef)
	if err != nil {
		return answer{}, err
	}
	v := &diskView{Who: in.Name, Where: in.Path, Asked: in.Authors}
	if v.Disk, err = c.s.control.Team.Disk(c.ctx(), c.by, p.ID); err != nil {
		return answer{}, err
	}
	for _, r := range v.Revoked {
		g := goneView{Line: revokedLine(r)}
		for _, f := range r.Report {
			g.Report = append(g.Report, findingLine(f))
		}
		v.Gone = append(v.Gone, g)
	}
	w, err := c.s.control.Sessions.Timeline(c.ctx(), c.by, p.ID)
	if err != nil {
		return answer{}, err
	}
	if w != nil && w.Kind == "take-over" {
		v.Timeline = newTimeline(w, c.s.now())
	}
	f := settingsForm{}
	if in.Name != "" {
		why, err := c.s.control.Team.Why(c.ctx(), c.by, p.ID, in.Name, in.Path)
		if f.Bad = formProblem(err); err != nil && f.Bad == nil {
			return answer{}, err
		}
		if err == nil {
			v.Why = &why
		}
	}
	if in.Authors {
		v.Authors, err = c.s.control.Team.Authors(c.ctx(), c.by, p.ID)
		if f.Bad = formProblem(err); err != nil && f.Bad == nil {
			return answer{}, err
		}
	}
	a, err := c.settingsPage(p, "permissions", f)
	if s, ok := a.data.(settingsView); ok {
		s.Disk = v
		a.data = s
	}
	return a, err
}

func repairProject(c *call, p quire.Project) error {
	return c.s.control.Team.Repair(c.ctx(), c.by, p.ID)
}

type takeOverForm struct {
	projectRef
	UID int64 `form:"uid"`
}

func (c *call) takeOver(ref projectRef, uid int64) (quire.Project, error) {
	p, err := c.project(ref)
	if err != nil {
		return p, err
	}
	if uid != int64(uint32(uid)) {
		return p, quire.Invalid("uid", "This is no account's number.")
	}
	return p, c.s.control.Team.TakeOver(c.ctx(), c.by, p.ID, uint32(uid))
}

func takeOverPost(c *call, in takeOverForm) (answer, error) {
	p, err := c.takeOver(in.projectRef, in.UID)
	return goTo(p.Path() + "?done=takes-over"), err // the project's page shows how far it is
}

type handOverIn struct {
	projectRef
	Name string `form:"name"`
}

func ownerPost(c *call, in handOverIn) (answer, error) {
	p, err := c.project(in.projectRef)
	if err != nil {
		return answer{}, err
	}
	err = c.s.control.Team.HandOver(c.ctx(), c.by, p.ID, in.Name)
	if bad := formProblem(err); bad != nil {
		return c.settingsPage(p, "team", settingsForm{Bad: bad})
	}
	p.OwnerName = in.Name
	return goTo(p.Path() + "?done=handed-over"), err
}

// The same as JSON.

type takeOverIn struct {
	projectRef
	UID int64 `json:"uid"`
}

func apiTakeOver(c *call, in takeOverIn) (*quire.Work, error) {
	p, err := c.takeOver(in.projectRef, in.UID)
	if err != nil {
		return nil, err
	}
	return c.s.control.Sessions.Timeline(c.ctx(), c.by, p.ID)
}

func apiAuthors(c *call, in projectRef) ([]control.Author, error) {
	p, err := c.project(in)
	if err != nil {
		return nil, err
	}
	return c.s.control.Team.Authors(c.ctx(), c.by, p.ID)
}

type whyIn struct {
	projectRef
	Name string `query:"name" json:"-"`
	Path string `query:"path" json:"-"`
}

func apiWhy(c *call, in whyIn) (control.Why, error) {
	p, err := c.project(in.projectRef)
	if err != nil {
		return control.Why{}, err
	}
	return c.s.control.Team.Why(c.ctx(), c.by, p.ID, in.Name, in.Path)
}

func apiRepair(c *call, in projectRef) (done, error) {
	p, err := c.project(in)
	if err != nil {
		return done{}, err
	}
	return done{true}, repairProject(c, p)
}
