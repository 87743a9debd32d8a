package server

import (
	"strings"
	"time"

	"quire"
)

const eventsPerPage = 50

// eventView is an event as a sentence.
type eventView struct {
	Time    time.Time
	Who     string
	Text    string
	Detail  string
	Verb    string
	Address string
}

// eventWords say what happened, after the name of who did it.
var eventWords = map[string]string{
	"project.create": "made this project", "project.update": "changed the project’s words or visibility", "project.start": "started the project",
	"project.stop": "stopped the project", "project.reset": "cleared the error", "project.delete": "deleted the project", "project.restore": "restored the project",
	"project.move": "moves the project:", "project.moved": "moved the project", "project.move.cancel": "cancelled the move", "project.move.failed": "could not move the project:",
	"project.running": "the project is running", "project.failed": "the project could not start", "project.purge": "removed the project for good",
	"session.start": "opened", "session.stop": "stopped", "session.failed": "could not open", "session.ended": "ended",
	"team.set": "changed the team:", "team.remove": "removed from the team:", "star": "starred the project",
	"login": "signed in", "login.failed": "tried to sign in with a wrong password", "login.end": "ended a sign-in", "login.spray": "many accounts were tried from one address",
	"logout": "signed out", "logout.all": "signed out everywhere", "password.change": "changed the password",
	"user.create": "made the account", "user.update": "changed the account", "setup.link": "made a set-up link",
	"join.token": "made a join token:", "join.revoke": "ended a join token", "join.gateway": "joined as a gateway:", "join.compute": "joined as a compute node:",
	"node.away": "does not hear from the compute node", "node.back": "hears again from the compute node",
	"gateway.away": "does not hear from the gateway of", "gateway.back": "hears again from the gateway of",
	"node.change": "changed the resource", "data-center.change": "changed the data center", "site.remove": "removed from the installation:", "authority.rotate": "began a change to the new authority", "authority.renewed": "has a certificate of the new authority:", "authority.finish": "dropped the old authority:", "peer.cloned": "a key is on two machines, which were cut off:",
}

func newEventView(e quire.Event) eventView {
	v := eventView{Time: e.Time, Who: e.Name, Verb: e.Verb, Detail: e.Detail, Address: e.Address}
	if v.Who == "" {
		v.Who = "Quire"
	}
	v.Text = eventWords[e.Verb]
	if v.Text == "" {
		v.Text = strings.ReplaceAll(e.Verb, ".", " ")
	}
	return v
}

func eventViews(es []quire.Event) []eventView {
	out := make([]eventView, len(es))
	for i, e := range es {
		out[i] = newEventView(e)
	}
	return out
}

// older is the number to ask the next page with, 0 if there is none.
func older(es []quire.Event, n int) int64 {
	if len(es) < n {
		return 0
	}
	return es[len(es)-1].Seq
}

type activityView struct {
	projectHead
	Events []eventView
	Older  int64
}

type activityIn struct {
	projectRef
	Before int64 `query:"before" json:"-"`
}

func activityGet(c *call, in activityIn) (answer, error) {
	p, err := c.project(in.projectRef)
	if err != nil {
		return answer{}, err
	}
	es, err := c.s.control.Events.OfProject(c.ctx(), c.by, p.ID, in.Before, eventsPerPage)
	if err != nil {
		return answer{}, err
	}
	return show("activity", p.Name+" activity", activityView{head(c.by, p, c.token, "activity"), eventViews(es), older(es, eventsPerPage)}), nil
}

type eventsIn struct {
	Before int64 `query:"before" json:"-"`
	N      int   `query:"n" json:"-"`
}

func (in eventsIn) limit() int {
	if in.N <= 0 || in.N > 200 {
		return eventsPerPage
	}
	return in.N
}

type projectEventsIn struct {
	projectRef
	eventsIn
}

func apiProjectEvents(c *call, in projectEventsIn) ([]quire.Event, error) {
	p, err := c.project(in.projectRef)
	if err != nil {
		return nil, err
	}
	return c.s.control.Events.OfProject(c.ctx(), c.by, p.ID, in.Before, in.limit())
}

func apiEvents(c *call, in eventsIn) ([]quire.Event, error) {
	return c.s.control.Events.Mine(c.ctx(), c.by, in.Before, in.limit())
}

// machinesLogGet is what happened to gateways and nodes.
func machinesLogGet(c *call, in eventsIn) (answer, error) {
	es, err := c.s.control.Events.OfMachines(c.ctx(), c.by, in.Before, eventsPerPage)
	if err != nil {
		return answer{}, err
	}
	return show("admin", "What happened to machines", adminView{Token: c.token, Menu: "log", Events: eventViews(es), Older: older(es, eventsPerPage)}), nil
}

func apiMachineEvents(c *call, in eventsIn) ([]quire.Event, error) {
	return c.s.control.Events.OfMachines(c.ctx(), c.by, in.Before, in.limit())
}
