package server

import (
	"strings"

	"quire"
	"quire/control"
)

type peopleView struct {
	Query string
	Names []string
	All   []quire.User // for administrators
}

type queryIn struct {
	Q string `query:"q" json:"-"`
}

func peopleGet(c *call, in queryIn) (answer, error) {
	v := peopleView{Query: in.Q}
	var err error
	if v.Names, err = c.s.control.Users.Complete(c.ctx(), c.by, in.Q); err != nil {
		return answer{}, err
	}
	return show("people", "People", v), nil
}

type personRef struct {
	Name string `path:"name" json:"-"`
}

func personGet(c *call, in personRef) (answer, error) {
	u, err := c.s.control.Users.ByName(c.ctx(), c.by, in.Name)
	if err != nil {
		return answer{}, noPerson(err)
	}
	return goTo("/" + u.Name), nil
}

type ownerRef struct {
	Owner string `path:"owner" json:"-"`
}

type profileView struct {
	User     quire.User
	Me       bool
	Projects []projectRow // of that person, as far as the asker may see them
}

// profileGet is a person's page.
func profileGet(c *call, in ownerRef) (answer, error) {
	u, err := c.s.control.Users.ByName(c.ctx(), c.by, in.Owner)
	if err != nil {
		return answer{}, noPerson(err)
	}
	v := profileView{User: u, Me: u.ID == c.by.User}
	lists, err := c.lists(c.ctx())
	if err != nil {
		return answer{}, err
	}
	v.Projects = ownedBy(u.ID, lists.Mine, lists.Contributing, lists.Public)
	return show("profile", u.Name, v), nil
}

// ownedBy picks a person's projects out of lists, each once.
func ownedBy(u quire.UserID, lists ...[]projectRow) (out []projectRow) {
	seen := map[quire.ProjectID]bool{}
	for _, l := range lists {
		for _, p := range l {
			if p.Owner == u && !seen[p.ID] {
				seen[p.ID] = true
				out = append(out, p)
			}
		}
	}
	return out
}

func noPerson(err error) error {
	if k := quire.KindOf(err); k == quire.KindNotFound || k == quire.KindInvalid {
		return quire.NotFound("page")
	}
	return err
}

// Search over names: the palette's and the search page's source.

type searchOut struct {
	Projects []searchHit `json:"projects"`
	People   []searchHit `json:"people"`
}

type searchHit struct {
	Title  string `json:"title"`
	Detail string `json:"detail,omitempty"`
	URL    string `json:"url"`
	State  string `json:"state,omitempty"`
}

const maxHits = 12

func apiSearch(c *call, in queryIn) (searchOut, error) {
	out := searchOut{Projects: []searchHit{}, People: []searchHit{}}
	lists, err := c.lists(c.ctx())
	if err != nil {
		return out, err
	}
	out.Projects = findProjects(in.Q, lists.Mine, lists.Contributing, lists.Public)
	names, err := c.s.control.Users.Complete(c.ctx(), c.by, strings.TrimSpace(in.Q))
	if err != nil {
		return out, err
	}
	for _, n := range names {
		out.People = append(out.People, searchHit{Title: n, URL: "/" + n})
	}
	return out, nil
}

// findProjects finds the projects whose address or summary has every word.
func findProjects(query string, lists ...[]projectRow) []searchHit {
	words := strings.Fields(strings.ToLower(query))
	hits := []searchHit{}
	for _, l := range lists {
	next:
		for _, p := range l {
			text := strings.ToLower(p.OwnerName + "/" + p.Name + " " + p.Summary)
			for _, w := range words {
				if !strings.Contains(text, w) {
					continue next
				}
			}
			if len(hits) == maxHits {
				return hits
			}
			hits = append(hits, searchHit{Title: p.OwnerName + " / " + p.Name, Detail: p.Summary, URL: p.Path, State: string(p.State)})
		}
	}
	return hits
}

type searchView struct {
	Query string
	searchOut
}

func searchGet(c *call, in queryIn) (answer, error) {
	out, err := apiSearch(c, in)
	if err != nil {
		return answer{}, err
	}
	return show("search", "Search", searchView{in.Q, out}), nil
}

// The same nouns as JSON.

type meOut struct {
	User  quire.User    `json:"user"`
	Login quire.LoginID `json:"login"`
}

func apiMe(c *call, _ none) (meOut, error) {
	u, err := c.s.control.Users.ByName(c.ctx(), c.by, c.by.Name)
	return meOut{u, c.by.Login}, err
}

type apiMeChange struct {
	FullName *string `json:"full_name"`
	Email    *string `json:"email"`
}

func apiUpdateMe(c *call, in apiMeChange) (quire.User, error) {
	return c.s.control.Users.Update(c.ctx(), c.by, c.by.User, control.UserChange{FullName: in.FullName, Email: in.Email})
}

type completeIn struct {
	Prefix string `query:"prefix" json:"-"`
}

func apiPeople(c *call, in completeIn) ([]string, error) {
	names, err := c.s.control.Users.Complete(c.ctx(), c.by, in.Prefix)
	if names == nil {
		names = []string{}
	}
	return names, err
}

func apiPerson(c *call, in personRef) (quire.User, error) {
	return c.s.control.Users.ByName(c.ctx(), c.by, in.Name)
}
