package server

import (
	"context"
	"io"
	"net/http"
	"time"

	"quire"
	"quire/control"
)

// maxJoin bounds a request to join, in bytes.
const maxJoin = 16 << 10

// joinPost lets a gateway in. The request is signed with a token's key, so there
// is nobody to be signed in.
func joinPost(c *call) error {
	request, err := io.ReadAll(http.MaxBytesReader(c.w, c.r.Body, maxJoin))
	if err != nil {
		return quire.Invalid("", "This is not a request to join.")
	}
	answer, err := c.s.control.Site.Accept(c.ctx(), request, c.address)
	if err != nil {
		return err
	}
	c.w.Header().Set("Content-Type", "application/json")
	_, err = c.w.Write(answer)
	return err
}

// machinesView is the page of data centers, or that of their compute resources.
type machinesView struct {
	Token   string
	Menu    string      // "centers", "resources"
	Center  *centerView // the one to change
	Node    *nodeView
	Portal  string
	Centers []centerView
	Tokens  []quire.JoinToken
	Turn    control.RotationState
	Form    machineIn
	Made    *madeToken
	Bad     *quire.Error
}

// madeToken is shown once: what to type on the new machine.
type madeToken struct {
	Role, Token, Command, From string
	Expires                    time.Time
}

type machineIn struct {
	Name       string `form:"name"`
	Summary    string `form:"summary"`
	Address    string `form:"address"`
	DataCenter string `form:"data_center"`
}

func (c *call) machinesPage(menu string, v machinesView) (answer, error) {
	v.Menu, v.Token, v.Portal = menu, c.token, c.s.origins.Portal()
	title := map[string]string{"centers": "Data centers", "resources": "Enterprise resources"}[menu]
	dcs, nodes, err := c.machines()
	if err != nil {
		return answer{}, err
	}
	tokens, err := c.s.control.Site.Tokens(c.ctx(), c.by)
	if err != nil {
		return answer{}, err
	}
	for _, k := range tokens {
		if (k.Role == quire.JoinGateway) == (menu == "centers") && k.Uses > 0 {
			v.Tokens = append(v.Tokens, k)
		}
	}
	v.Centers = c.s.newCenters(dcs, nodes)
	if menu == "centers" {
		if v.Turn, err = c.s.control.Rotation.State(c.ctx(), c.by); err != nil {
			return answer{}, err
		}
	}
	a := show("machines", title, v)
	if v.Center != nil || v.Node != nil {
		return a.again(v.Bad), nil
	}
	a.live = "/admin/" + map[string]string{"centers": "data-centers", "resources": "resources"}[menu] + "/events"
	return a.again(v.Bad), nil
}

// machineParts is what changes by itself on both pages.
func machineParts(menu string) partsOf {
	return func(_ context.Context, c *call) ([]part, error) {
		a, err := c.machinesPage(menu, machinesView{})
		if err != nil {
			return nil, err
		}
		return c.render("machines", a.data, menu)
	}
}

func centersGet(c *call, _ none) (answer, error) { return c.machinesPage("centers", machinesView{}) }

func resourcesGet(c *call, _ none) (answer, error) {
	return c.machinesPage("resources", machinesView{})
}

// machines are all data centers and nodes, as the asker sees them.
func (c *call) machines() (dcs []quire.DataCenter, nodes []quire.Node, err error) {
	if dcs, err = c.s.control.Site.DataCenters(c.ctx(), c.by); err != nil {
		return nil, nil, err
	}
	nodes, err = c.s.control.Site.Nodes(c.ctx(), c.by)
	return dcs, nodes, err
}

// center finds a data center.
func (c *call) center(id string) (quire.DataCenter, error) {
	dcs, err := c.s.control.Site.DataCenters(c.ctx(), c.by)
	if err != nil {
		return quire.DataCenter{}, err
	}
	for _, dc := range dcs {
		if string(dc.ID) == id {
			return dc, nil
		}
	}
	return quire.DataCenter{}, quire.NotFound("data center")
}

// centerGet is the form to change a data center.
func centerGet(c *call, in tokenRef) (answer, error) { return c.oneCenter(in.ID, nil) }

func (c *call) oneCenter(id string, bad *quire.Error) (answer, error) {
	dc, err := c.center(id)
	if err != nil {
		return answer{}, err
	}
	return c.machinesPage("centers", machinesView{Center: &centerView{DataCenter: dc}, Bad: bad})
}

// resourceGet is the form to change a compute resource.
func resourceGet(c *call, in tokenRef) (answer, error) { return c.oneResource(in.ID, nil) }

func (c *call) oneResource(id string, bad *quire.Error) (answer, error) {
	nodes, err := c.s.control.Site.Nodes(c.ctx(), c.by)
	if err != nil {
		return answer{}, err
	}
	for _, n := range nodes {
		if string(n.ID) == id {
			v := newNodeView(n, c.s.now())
			return c.machinesPage("resources", machinesView{Node: &v, Bad: bad})
		}
	}
	return answer{}, quire.NotFound("resource")
}

func centersPost(c *call, in machineIn) (answer, error) {
	return c.makeToken("centers", quire.JoinToken{Role: quire.JoinGateway, Name: in.Name, Address: in.Address, Summary: in.Summary}, in)
}

func resourcesPost(c *call, in machineIn) (answer, error) {
	return c.makeToken("resources", quire.JoinToken{Role: quire.JoinCompute, Name: in.Name, Address: in.Address, Summary: in.Summary, DataCenter: quire.DataCenterID(in.DataCenter)}, in)
}

func (c *call) makeToken(menu string, k quire.JoinToken, in machineIn) (answer, error) {
	token, rec, err := c.s.control.Site.NewToken(c.ctx(), c.by, k, 0)
	if bad := formProblem(err); bad != nil {
		return c.machinesPage(menu, machinesView{Form: in, Bad: bad})
	}
	if err != nil {
		return answer{}, err
	}
	made := &madeToken{Role: k.Role, Token: token, Expires: rec.Expires, From: "--server " + c.s.origins.Portal()}
	if k.Role == quire.JoinCompute {
		dc, err := c.center(string(rec.DataCenter))
		if err != nil {
			return answer{}, err
		}
		made.From = "--gateway " + quire.GatewayURL(dc.Address)
	}
	made.Command = "quire " + k.Role + " join " + made.From + " --token " + token
	return c.machinesPage(menu, machinesView{Made: made})
}

type authorityIn struct {
	Do string `form:"do"`
}

// authorityPost begins a change of the authority, or ends it. The page has named
// those that must join again then.
func authorityPost(c *call, in authorityIn) (answer, error) {
	var err error
	switch in.Do {
	case "rotate":
		err = c.s.control.Rotation.Begin(c.ctx(), c.by)
	case "finish":
		_, err = c.s.control.Rotation.Finish(c.ctx(), c.by, true)
	default:
		err = quire.Invalid("do", "There is no such action.")
	}
	if bad := formProblem(err); bad != nil {
		return c.machinesPage("centers", machinesView{Bad: bad})
	}
	return goTo("/admin/data-centers?done=saved"), err
}

type tokenRef struct {
	ID string `path:"id" json:"-"`
}

func tokenEndPost(c *call, in tokenRef) (answer, error) {
	if err := c.s.control.Site.RevokeToken(c.ctx(), c.by, in.ID); err != nil && quire.KindOf(err) != quire.KindNotFound {
		return answer{}, err
	}
	return goTo("/admin/data-centers?done=saved"), nil
}

type centerChangeIn struct {
	ID      string `path:"id" json:"-"`
	Do      string `form:"do"`
	Name    string `form:"name"`
	Summary string `form:"summary"`
	Address string `form:"address"`
	Apps    string `form:"apps"`
}

// centerPost changes or removes a data center.
func centerPost(c *call, in centerChangeIn) (answer, error) {
	dc, err := c.center(in.ID)
	if err != nil {
		return answer{}, err
	}
	switch in.Do {
	case "remove":
		err = c.s.control.Site.Remove(c.ctx(), c.by, dc.Gateway)
	case "change":
		ch := control.CenterChange{Name: &in.Name, Summary: &in.Summary, Address: &in.Address}
		if in.Apps != "" || dc.Apps != "" {
			ch.Apps = &in.Apps
		}
		err = c.s.control.Site.ChangeCenter(c.ctx(), c.by, dc.ID, ch)
	default:
		err = quire.Invalid("do", "There is no such action.")
	}
	if bad := formProblem(err); bad != nil {
		return c.oneCenter(in.ID, bad)
	}
	return goTo("/admin/data-centers?done=saved"), err
}

type nodeChangeIn struct {
	ID      string `path:"id" json:"-"`
	Do      string `form:"do"`
	Name    string `form:"name"`
	Summary string `form:"summary"`
	Address string `form:"address"`
	Note    string `form:"note"`
}

// resourcePost changes, drains or removes a node.
func resourcePost(c *call, in nodeChangeIn) (answer, error) {
	var err error
	id, yes, no := quire.NodeID(in.ID), true, false
	switch in.Do {
	case "remove":
		err = c.s.control.Site.Remove(c.ctx(), c.by, id)
	case "change":
		err = c.s.control.Site.ChangeNode(c.ctx(), c.by, id, control.NodeChange{Name: &in.Name, Summary: &in.Summary, Address: &in.Address})
	case "drain":
		err = c.s.control.Site.ChangeNode(c.ctx(), c.by, id, control.NodeChange{Drained: &yes, Note: &in.Note})
	case "open":
		none := ""
		err = c.s.control.Site.ChangeNode(c.ctx(), c.by, id, control.NodeChange{Drained: &no, Note: &none})
	default:
		err = quire.Invalid("do", "There is no such action.")
	}
	if bad := formProblem(err); bad != nil {
		return c.oneResource(in.ID, bad)
	}
	return goTo("/admin/resources?done=saved"), err
}

// The same nouns as JSON.

func apiTokens(c *call, _ none) ([]quire.JoinToken, error) {
	return c.s.control.Site.Tokens(c.ctx(), c.by)
}

type apiNewToken struct {
	Role       string `json:"role"`
	DataCenter string `json:"data_center"`
	Name       string `json:"name"`
	Address    string `json:"address"`
	Summary    string `json:"summary"`
	Uses       int    `json:"uses"`
	Seconds    int64  `json:"seconds"` // of its life; 0 = 15 minutes
}

type apiNewTokenOut struct {
	Token  string          `json:"token"` // shown this once
	Record quire.JoinToken `json:"record"`
}

func apiCreateToken(c *call, in apiNewToken) (out apiNewTokenOut, err error) {
	k := quire.JoinToken{Role: in.Role, DataCenter: quire.DataCenterID(in.DataCenter), Name: in.Name, Address: in.Address, Summary: in.Summary, Uses: in.Uses}
	out.Token, out.Record, err = c.s.control.Site.NewToken(c.ctx(), c.by, k, time.Duration(in.Seconds)*time.Second)
	return out, err
}

func apiEndToken(c *call, in tokenRef) (none, error) {
	return none{}, c.s.control.Site.RevokeToken(c.ctx(), c.by, in.ID)
}

type apiNodeChange struct {
	ID      string  `path:"id" json:"-"`
	Name    *string `json:"name"`
	Summary *string `json:"summary"`
	Address *string `json:"address"`
	Note    *string `json:"note"`
	Drained *bool   `json:"drained"`
}

func apiUpdateNode(c *call, in apiNodeChange) (none, error) {
	return none{}, c.s.control.Site.ChangeNode(c.ctx(), c.by, quire.NodeID(in.ID), control.NodeChange{Name: in.Name, Summary: in.Summary, Address: in.Address, Note: in.Note, Drained: in.Drained})
}

// apiRemoveMachine removes a node, or by its gateway's identity a data center.
func apiRemoveMachine(c *call, in tokenRef) (none, error) {
	return none{}, c.s.control.Site.Remove(c.ctx(), c.by, quire.NodeID(in.ID))
}

// apiCenterStatus is AEN's {"status": "ok", "messages": []}.
func apiCenterStatus(c *call, in tokenRef) (centerStatus, error) {
	dcs, nodes, err := c.machines()
	if err != nil {
		return centerStatus{}, err
	}
	for _, v := range c.s.newCenters(dcs, nodes) {
		if string(v.ID) == in.ID {
			return v.Status, nil
		}
	}
	return centerStatus{}, quire.NotFound("data center")
}

type apiCenterChange struct {
	ID      string  `path:"id" json:"-"`
	Name    *string `json:"name"`
	Summary *string `json:"summary"`
	Address *string `json:"address"`
	Apps    *string `json:"apps"`
}

func apiUpdateCenter(c *call, in apiCenterChange) (none, error) {
	return none{}, c.s.control.Site.ChangeCenter(c.ctx(), c.by, quire.DataCenterID(in.ID), control.CenterChange{Name: in.Name, Summary: in.Summary, Address: in.Address, Apps: in.Apps})
}
