package server

import (
	"net/http"
	"strconv"
	"strings"

	"quire"
	"quire/web"
)

func itoa(n int) string { return strconv.Itoa(n) }

func helpGet(c *call, _ none) (answer, error) { return show("help", "Help", nil), nil }

type apiHelpView struct {
	Groups []apiGroup
}

type apiGroup struct {
	Title  string
	Routes []apiRow
}

type apiRow struct {
	Method, Path, Summary string
	Who                   Who
	Fields                []apiField
	Answer                string
}

type apiField struct{ Name, Where, Type string }

func apiHelpGet(c *call, _ none) (answer, error) {
	return show("api", "The JSON API", apiHelpView{apiGroups(c.s.routes)}), nil
}

// apiGroups is the table's API half, by the noun of the address.
func apiGroups(routes []Route) []apiGroup {
	var groups []apiGroup
	for _, r := range routes {
		if !r.API() {
			continue
		}
		title := firstWord(strings.TrimPrefix(r.Path(), "/api/v1"))
		if len(groups) == 0 || groups[len(groups)-1].Title != title {
			groups = append(groups, apiGroup{Title: title})
		}
		g := &groups[len(groups)-1]
		g.Routes = append(g.Routes, apiRow{Method: r.Method(), Path: r.Path(), Summary: r.Summary, Who: r.Who, Fields: apiFields(r.In), Answer: typeName(r.Out)})
	}
	return groups
}

func openapiGet(c *call) error {
	c.w.Header().Set("Content-Type", "application/json")
	_, err := c.w.Write(c.s.openapi)
	return err
}

func healthGet(c *call) error {
	if _, err := c.s.control.Users.SetupNeeded(c.ctx()); err != nil {
		return quire.Unavailable("The database does not answer.", err)
	}
	c.w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, err := c.w.Write([]byte("ok\n"))
	return err
}

func robotsGet(c *call) error {
	c.w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, err := c.w.Write([]byte("User-agent: *\nDisallow: /\n"))
	return err
}

func assetsGet(c *call) error {
	c.w.Header().Del("Vary")
	web.Assets().ServeHTTP(c.w, c.r)
	return nil
}

func faviconGet(c *call) error {
	http.Redirect(c.w, c.r, web.Asset("favicon.svg"), http.StatusSeeOther)
	return nil
}

func apiPreview(c *call, in previewIn) (previewOut, error) {
	if len(in.Text) > 64<<10 {
		return previewOut{}, quire.Invalid("text", "The description has at most 64 KB of text.")
	}
	return previewOut{string(web.Markdown(in.Text))}, nil
}

// browser says a User-Agent in a word or two.
func browser(agent string) string {
	system := ""
	for _, s := range [][2]string{{"Android", "Android"}, {"iPhone", "iPhone"}, {"iPad", "iPad"}, {"Windows", "Windows"}, {"Mac OS X", "macOS"}, {"Linux", "Linux"}} {
		if strings.Contains(agent, s[0]) {
			system = " on " + s[1]
			break
		}
	}
	for _, b := range [][2]string{{"Edg/", "Edge"}, {"OPR/", "Opera"}, {"Firefox/", "Firefox"}, {"Chrome/", "Chrome"}, {"Safari/", "Safari"}} {
		if strings.Contains(agent, b[0]) {
			return b[1] + system
		}
	}
	if name, _, _ := strings.Cut(agent, " "); name != "" {
		return name
	}
	return "unknown program"
}
