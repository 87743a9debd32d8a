package server

import (
	"encoding/json"
	"strings"
	"time"

	"quire"
	"quire/control"
)

type adminView struct {
	Token   string
	Menu    string // "overview", "users", "log"
	Version string
	Portal  string
	Probe   probe
	Plain   string // what people reach in the clear; "" = nothing
	Centers []centerView
	Events  []eventView
	Older   int64
	Users   []quire.User
	Me      quire.UserID
	Form    newUserIn
	Link    string // a fresh set-up link, shown once
	Bad     *quire.Error
}

type centerView struct {
	quire.DataCenter
	Nodes  []nodeView
	Status centerStatus
}

// centerStatus is whether a data center is as it should be, and in words what is
// not.
type centerStatus struct {
	Status   string   `json:"status"` // "ok" or "error"
	Messages []string `json:"messages"`
}

// JSON is how AEN showed it, for people and scripts that know it.
func (s centerStatus) JSON() string {
	b, err := json.Marshal(s)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// statusOf looks at what is known already; nothing is asked.
func (srv *Server) statusOf(d quire.DataCenter, nodes []nodeView) centerStatus {
	s := centerStatus{Status: "ok", Messages: []string{}}
	say := func(who, what string) { s.Messages = append(s.Messages, who+": "+what) }
	certificate := func(who string, p quire.Peer) {
		if left := p.Expires.Sub(srv.now()); !p.Expires.IsZero() && left < 7*24*time.Hour {
			say(who, "its certificate ends in "+span(max(left, 0))+" and was not renewed.")
		}
	}
	gateway := "Gateway " + d.Name
	if !d.Up {
		say(gateway, sentence(d.Reason))
	}
	if d.Version != "" && d.Version != srv.version {
		say(gateway, "it runs version "+d.Version+", the server "+srv.version+".")
	}
	certificate(gateway, d.Peer)
	for _, n := range nodes {
		who := "Resource " + n.Name
		if !n.Up {
			say(who, sentence(n.Reason))
			continue
		}
		if n.Skew != "" {
			say(who, n.Skew)
		}
		if v := n.Health.Version; v != "" && v != srv.version {
			say(who, "it runs version "+v+", the server "+srv.version+".")
		}
		certificate(who, n.Peer)
		for _, m := range n.Health.Messages {
			say(who, m)
		}
		if p := n.Health.Storage.Problem; p != "" {
			say(who, p)
		}
	}
	if len(s.Messages) > 0 {
		s.Status = "error"
	}
	return s
}

// nodeView is a node in words and numbers.
type nodeView struct {
	quire.Node
	Sentence     string
	MemoryUsed   int64
	DiskUsed     int64
	Skew         string // "" while the clocks agree
	Apps         string
	HasNumbers   bool
	AccountsNote string
	Shares       string // the nodes that have the same storage
}

func newNodeView(n quire.Node, now time.Time) nodeView {
	v := nodeView{Node: n, HasNumbers: n.Health.MemoryTotal > 0}
	h := n.Health
	v.MemoryUsed, v.DiskUsed = h.MemoryTotal-h.MemoryFree, h.DiskTotal-h.DiskFree
	switch {
	case !n.Up:
		v.Sentence = "Away. " + sentence(n.Reason)
	case len(h.Messages) > 0:
		v.Sentence = "Up, and it has something to say."
	default:
		v.Sentence = "Up, with " + count(h.Sessions, "session") + "."
	}
	if !h.Time.IsZero() && n.Up {
		if skew := now.Sub(h.Time).Round(time.Second); skew > time.Minute || skew < -time.Minute {
			v.Skew = "Its clock differs from ours by " + span(skew.Abs()) + "."
		}
	}
	var apps []string
	for _, a := range h.Apps {
		apps = append(apps, a.Title)
	}
	v.Apps = strings.Join(apps, ", ")
	if h.Accounts == "single" {
		v.AccountsNote = "All sessions of this node run as one account: any notebook can read everything on it. For trusted users only."
	}
	return v
}

func (s *Server) newCenters(dcs []quire.DataCenter, nodes []quire.Node) []centerView {
	out := make([]centerView, len(dcs))
	for i, d := range dcs {
		out[i].DataCenter = d
		for _, n := range nodes {
			if n.DataCenter == d.ID {
				v := newNodeView(n, s.now())
				v.Shares = sharing(n, nodes)
				out[i].Nodes = append(out[i].Nodes, v)
			}
		}
		out[i].Status = s.statusOf(d, out[i].Nodes)
	}
	return out
}

// sharing names the other nodes whose project root shows the same identity.
func sharing(n quire.Node, nodes []quire.Node) string {
	var names []string
	for _, other := range nodes {
		if id := n.Health.Storage.ID; id != "" && other.ID != n.ID && other.Health.Storage.ID == id {
			names = append(names, other.Name)
		}
	}
	return strings.Join(names, ", ")
}

func (c *call) adminPage(menu, title string, v adminView) (answer, error) {
	v.Menu, v.Token, v.Me = menu, c.token, c.by.User
	a := show("admin", title, nil)
	switch menu {
	case "overview":
		dcs, nodes, err := c.machines()
		if err != nil {
			return answer{}, err
		}
		v.Centers = c.s.newCenters(dcs, nodes)
		v.Version, v.Portal, v.Probe = c.s.version, c.s.origins.Portal(), c.s.probe()
		for _, origin := range []string{c.s.origins.FormTargets(), v.Portal} {
			if quire.Exposed(origin) {
				v.Plain = origin
			}
		}
		a.images, a.live = true, "/admin/events"
	case "users":
		var err error
		if v.Users, err = c.s.control.Users.List(c.ctx(), c.by); err != nil {
			return answer{}, err
		}
	}
	a.data = v
	return a.again(v.Bad), nil
}

func adminGet(c *call, _ none) (answer, error) {
	return c.adminPage("overview", "Administration", adminView{})
}

func usersGet(c *call, _ none) (answer, error) {
	return c.adminPage("users", "Users", adminView{})
}

type newUserIn struct {
	Name     string `form:"name"`
	FullName string `form:"full_name"`
	Email    string `form:"email"`
	Password string `form:"password"`
	Admin    bool   `form:"admin"`
}

func usersPost(c *call, in newUserIn) (answer, error) {
	_, err := c.s.control.Users.Create(c.ctx(), c.by, control.NewUser{Name: in.Name, FullName: in.FullName, Email: in.Email, Password: in.Password, Admin: in.Admin})
	if bad := formProblem(err); bad != nil {
		in.Password = ""
		return c.adminPage("users", "Users", adminView{Form: in, Bad: bad})
	}
	return goTo("/admin/users?done=created"), err
}

type userChangeIn struct {
	personRef
	Do string `form:"do"`
}

// userPost does one thing to an account.
func userPost(c *call, in userChangeIn) (answer, error) {
	u, err := c.s.control.Users.ByName(c.ctx(), c.by, in.Name)
	if err != nil {
		return answer{}, err
	}
	yes, no := true, false
	ch, ok := map[string]control.UserChange{
		"disable": {Disabled: &yes}, "enable": {Disabled: &no}, "admin": {Admin: &yes}, "person": {Admin: &no},
	}[in.Do]
	if !ok {
		return answer{}, quire.Invalid("do", "There is no such action.")
	}
	_, err = c.s.control.Users.Update(c.ctx(), c.by, u.ID, ch)
	if bad := formProblem(err); bad != nil {
		return c.adminPage("users", "Users", adminView{Bad: bad})
	}
	return goTo("/admin/users?done=saved"), err
}

func setupLinkPost(c *call, _ none) (answer, error) {
	secret, err := c.s.control.Users.NewSetupLink(c.ctx(), c.by)
	if err != nil {
		return answer{}, err
	}
	return c.adminPage("users", "Users", adminView{Link: c.s.origins.Portal() + "/setup?key=" + secret})
}

// The same nouns as JSON.

func apiUsers(c *call, _ none) ([]quire.User, error) { return c.s.control.Users.List(c.ctx(), c.by) }

type apiNewUser struct {
	Name     string `json:"name"`
	FullName string `json:"full_name"`
	Email    string `json:"email"`
	Password string `json:"password"`
	Admin    bool   `json:"admin"`
}

func apiCreateUser(c *call, in apiNewUser) (quire.User, error) {
	return c.s.control.Users.Create(c.ctx(), c.by, control.NewUser(in))
}

type apiUserChange struct {
	personRef
	FullName *string `json:"full_name"`
	Email    *string `json:"email"`
	Admin    *bool   `json:"admin"`
	Disabled *bool   `json:"disabled"`
}

func apiUpdateUser(c *call, in apiUserChange) (quire.User, error) {
	u, err := c.s.control.Users.ByName(c.ctx(), c.by, in.Name)
	if err != nil {
		return u, err
	}
	return c.s.control.Users.Update(c.ctx(), c.by, u.ID, control.UserChange{FullName: in.FullName, Email: in.Email, Admin: in.Admin, Disabled: in.Disabled})
}

type linkOut struct {
	URL string `json:"url"`
}

func apiSetupLink(c *call, _ none) (linkOut, error) {
	secret, err := c.s.control.Users.NewSetupLink(c.ctx(), c.by)
	return linkOut{c.s.origins.Portal() + "/setup?key=" + secret}, err
}

func apiDataCenters(c *call, _ none) ([]quire.DataCenter, error) {
	return c.s.control.Site.DataCenters(c.ctx(), c.by)
}

func apiNodes(c *call, _ none) ([]quire.Node, error) { return c.s.control.Site.Nodes(c.ctx(), c.by) }
