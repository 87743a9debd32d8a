package viewer

import (
	"encoding/base64"
	"html/template"
	"io"
	"net/url"
	"regexp"
	"strings"
	"sync"

	"github.com/microcosm-cc/bluemonday"
	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"
)

// policy is the one list of what HTML from a file may be. It knows no script,
// style, form, frame, foreign markup, event or data attribute; identities and
// classes only in forms that nothing of ours has.
var policy = sync.OnceValue(func() *bluemonday.Policy {
	p := bluemonday.NewPolicy()
	p.AllowElements("h1", "h2", "h3", "h4", "h5", "h6", "p", "br", "hr", "blockquote", "pre", "code", "kbd", "samp", "var",
		"em", "strong", "b", "i", "u", "s", "del", "ins", "mark", "small", "sub", "sup", "abbr", "cite", "q", "dfn", "time",
		"ul", "ol", "li", "dl", "dt", "dd", "table", "caption", "thead", "tbody", "tfoot", "tr", "th", "td", "colgroup", "col",
		"div", "span", "details", "summary", "figure", "figcaption", "center", "a", "img")
	p.AllowNoAttrs().OnElements("span", "a")
	number := regexp.MustCompile(`^[0-9]{1,4}%?$`)
	p.AllowAttrs("start").Matching(regexp.MustCompile(`^[0-9]{1,9}$`)).OnElements("ol")
	p.AllowAttrs("colspan", "rowspan").Matching(regexp.MustCompile(`^[0-9]{1,3}$`)).OnElements("td", "th")
	p.AllowAttrs("align").Matching(regexp.MustCompile(`^(left|center|right)$`)).OnElements("th", "td", "tr", "p", "div", "h1", "h2", "h3", "h4", "h5", "h6")
	p.AllowAttrs("id").Matching(regexp.MustCompile(`^s-[\p{L}0-9_-]{1,160}$`)).OnElements("h1", "h2", "h3", "h4", "h5", "h6")
	p.AllowAttrs("class").Matching(regexp.MustCompile(`^(math|math display|t-[a-z]|left-out)$`)).OnElements("span", "div")
	p.AllowAttrs("open").Matching(regexp.MustCompile(`^$`)).OnElements("details")
	p.AllowAttrs("title").OnElements("a", "img", "abbr")
	p.AllowAttrs("href").OnElements("a")
	p.AllowAttrs("src").OnElements("img")
	p.AllowAttrs("alt").OnElements("img")
	p.AllowAttrs("width", "height").Matching(number).OnElements("img")
	p.AllowRelativeURLs(true)
	p.RequireParseableURLs(true)
	p.AllowURLSchemes("http", "https", "mailto")
	p.AllowDataURIImages()
	p.RequireNoFollowOnLinks(true)
	p.RequireNoReferrerOnFullyQualifiedLinks(true)
	p.AddTargetBlankToFullyQualifiedLinks(true)
	return p
})

// gone are elements whose content is not for reading.
var gone = map[atom.Atom]bool{
	atom.Script: true, atom.Style: true, atom.Svg: true, atom.Math: true, atom.Iframe: true, atom.Frame: true, atom.Frameset: true, atom.Object: true,
	atom.Embed: true, atom.Applet: true, atom.Template: true, atom.Noscript: true, atom.Noembed: true, atom.Noframes: true, atom.Select: true,
	atom.Textarea: true, atom.Title: true, atom.Head: true, atom.Base: true, atom.Link: true, atom.Meta: true, atom.Xmp: true, atom.Plaintext: true,
}

const maxNesting = 200 // elements in each other

// clean makes HTML from a file harmless: addresses become ours, then the
// allow-list decides. What cannot be parsed is shown as its text.
func clean(source string, l links) template.HTML {
	body := &html.Node{Type: html.ElementNode, Data: "body", DataAtom: atom.Body}
	nodes, err := html.ParseFragment(strings.NewReader(source), body)
	if err != nil {
		return asText(source)
	}
	var b strings.Builder
	for _, n := range nodes {
		body.AppendChild(n)
	}
	rewrite(body, l, 0)
	for n := body.FirstChild; n != nil; n = n.NextSibling {
		if err := html.Render(&b, n); err != nil {
			return asText(source)
		}
	}
	return template.HTML(policy().Sanitize(b.String()))
}

func rewrite(parent *html.Node, l links, depth int) {
	for n, next := parent.FirstChild, (*html.Node)(nil); n != nil; n = next {
		next = n.NextSibling
		if n.Type == html.TextNode {
			continue
		}
		if n.Type != html.ElementNode || n.Namespace != "" || gone[n.DataAtom] || depth > maxNesting {
			parent.RemoveChild(n)
			continue
		}
		attr := n.Attr
		n.Attr = nil
		for _, a := range attr {
			if a.Namespace != "" {
				continue
			}
			switch {
			case a.Key == "href" && n.DataAtom == atom.A:
				if a.Val = l.href(a.Val); a.Val == "" {
					continue
				}
			case a.Key == "src" && n.DataAtom == atom.Img:
				outside := a.Val
				if a.Val = l.src(a.Val); a.Val == "" {
					replaceImage(n, outside, value(attr, "alt"))
					attr = nil
				}
			case a.Key == "href" || a.Key == "src":
				continue
			case a.Key == "id":
				a.Val = anchor(a.Val)
			}
			if attr == nil {
				break
			}
			n.Attr = append(n.Attr, a)
		}
		if n.DataAtom == atom.Img && value(n.Attr, "alt") == "" {
			n.Attr = append(n.Attr, html.Attribute{Key: "alt", Val: "Image"})
		}
		rewrite(n, l, depth+1)
		if n.DataAtom == atom.Th && n.FirstChild == nil {
			n.Data, n.DataAtom = "td", atom.Td // a corner, which heads nothing
		}
	}
}

// replaceImage makes a link of an image that is on another host: loading it
// would tell that host who reads the page.
func replaceImage(n *html.Node, src, alt string) {
	n.Attr = nil
	what := "Image"
	if alt != "" {
		what += " “" + alt + "”"
	}
	u, err := url.Parse(strings.TrimSpace(src))
	if err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" {
		n.Data, n.DataAtom = "a", atom.A
		n.Attr = []html.Attribute{{Key: "href", Val: u.String()}}
		what += " on " + shown(u.Host)
	} else {
		n.Data, n.DataAtom = "span", atom.Span
		n.Attr = []html.Attribute{{Key: "class", Val: "left-out"}}
		what += " that cannot be shown"
	}
	n.AppendChild(&html.Node{Type: html.TextNode, Data: what})
}

func value(attr []html.Attribute, key string) string {
	for _, a := range attr {
		if a.Key == key {
			return a.Val
		}
	}
	return ""
}

// escaped is text as HTML.
func escaped(s string) template.HTML { return template.HTML(html.EscapeString(s)) }

func asText(source string) template.HTML { return "<pre>" + escaped(source) + "</pre>" }

// built is HTML that our own code made of escaped text, numbers and marks of
// its own: by the highlighter, the terminal's colors, the formulas and the
// pages, which are put together of such parts and of cleaned ones only.
func built(s string) template.HTML { return template.HTML(s) }

// says reports whether there is anything to see in cleaned HTML.
func says(cleaned template.HTML) bool {
	z := html.NewTokenizer(strings.NewReader(string(cleaned)))
	for {
		switch z.Next() {
		case html.ErrorToken:
			return false
		case html.TextToken:
			if strings.TrimSpace(string(z.Text())) != "" {
				return true
			}
		case html.StartTagToken, html.SelfClosingTagToken:
			if name, _ := z.TagName(); string(name) == "img" || string(name) == "hr" {
				return true
			}
		}
	}
}

// picture is a data URL of an image that is one, or "". An SVG is loaded as an
// image too: there it runs no script and loads nothing.
func picture(kind, data string) string {
	if kind == "image/svg+xml" {
		return "data:image/svg+xml;base64," + base64.StdEncoding.EncodeToString([]byte(data))
	}
	data = strings.Map(func(r rune) rune {
		if r == '\n' || r == '\r' || r == ' ' || r == '\t' {
			return -1
		}
		return r
	}, data)
	switch kind {
	case "image/png", "image/jpeg", "image/gif", "image/webp":
	default:
		return ""
	}
	if n, err := io.Copy(io.Discard, base64.NewDecoder(base64.StdEncoding, strings.NewReader(data))); err != nil || n == 0 {
		return ""
	}
	return "data:" + kind + ";base64," + data
}
