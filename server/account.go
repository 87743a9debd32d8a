package server

import (
	"time"

	"quire"
	"quire/control"
)

type accountView struct {
	Token  string
	Menu   string // "profile", "password", "logins", "log"
	User   quire.User
	Logins []loginRow
	Events []eventView
	Older  int64
	Bad    *quire.Error
}

// loginRow is one signed-in browser.
type loginRow struct {
	ID, Address, Agent string
	Created, LastSeen  time.Time
	Here               bool
}

func loginRows(ls []quire.Login, here quire.LoginID) []loginRow {
	out := make([]loginRow, len(ls))
	for i, l := range ls {
		out[i] = loginRow{ID: string(l.ID), Address: l.Address, Agent: browser(l.Agent), Created: l.Created, LastSeen: l.LastSeen, Here: l.ID == here}
	}
	return out
}

func (c *call) accountPage(menu, title string, v accountView) (answer, error) {
	user, err := c.s.control.Users.ByName(c.ctx(), c.by, c.by.Name)
	if err != nil {
		return answer{}, err
	}
	v.Menu, v.Token = menu, c.token
	if v.User.Name == "" {
		v.User = user
	}
	return show("account", title, v).again(v.Bad), nil
}

func accountGet(c *call, _ none) (answer, error) {
	return c.accountPage("profile", "Account", accountView{})
}

type profileIn struct {
	FullName string `form:"full_name"`
	Email    string `form:"email"`
}

func accountPost(c *call, in profileIn) (answer, error) {
	_, err := c.s.control.Users.Update(c.ctx(), c.by, c.by.User, control.UserChange{FullName: &in.FullName, Email: &in.Email})
	if bad := formProblem(err); bad != nil {
		return c.accountPage("profile", "Account", accountView{User: quire.User{Name: c.by.Name, FullName: in.FullName, Email: in.Email}, Bad: bad})
	}
	return goTo("/account?done=saved"), err
}

func passwordGet(c *call, _ none) (answer, error) {
	return c.accountPage("password", "Password", accountView{})
}

type passwordForm struct {
	Old   string `form:"old"`
	New   string `form:"new"`
	Again string `form:"again"`
}

func passwordPost(c *call, in passwordForm) (answer, error) {
	if in.New != in.Again {
		return c.accountPage("password", "Password", accountView{Bad: quire.Invalid("again", "The two passwords differ. Type the same one twice.")})
	}
	entered, err := c.s.control.Users.SetPassword(c.ctx(), c.by, in.Old, in.New, c.from())
	if bad := formProblem(err); bad != nil {
		switch bad.Field { // control speaks of the fields by their nouns
		case "password":
			bad.Field = "new"
		case "":
			bad.Field = "old"
		}
		return c.accountPage("password", "Password", accountView{Bad: bad})
	}
	if err != nil {
		return answer{}, err
	}
	c.s.setLogin(c.w, entered)
	return goTo("/account/password?done=password"), nil
}

func loginsGet(c *call, _ none) (answer, error) {
	ls, err := c.s.control.Logins.List(c.ctx(), c.by)
	if err != nil {
		return answer{}, err
	}
	return c.accountPage("logins", "Sign-ins", accountView{Logins: loginRows(ls, c.by.Login)})
}

func loginEndPost(c *call, in loginRef) (answer, error) {
	id := quire.LoginID(in.ID)
	if err := c.s.control.Logins.End(c.ctx(), c.by, id); err != nil {
		return answer{}, err
	}
	if id == c.by.Login {
		c.s.clearLogin(c.w)
		return goTo("/login?done=left"), nil
	}
	return goTo("/account/logins?done=ended"), nil
}

func securityLogGet(c *call, in eventsIn) (answer, error) {
	es, err := c.s.control.Events.Mine(c.ctx(), c.by, in.Before, eventsPerPage)
	if err != nil {
		return answer{}, err
	}
	return c.accountPage("log", "Security log", accountView{Events: eventViews(es), Older: older(es, eventsPerPage)})
}
