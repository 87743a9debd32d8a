package web

import (
	"bytes"
	"html/template"
	"regexp"
	"sync"

	"github.com/microcosm-cc/bluemonday"
	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/extension"
)

// markdown is the converter and the sanitiser behind it. Both are safe for use
// from many goroutines and never change.
type markdown struct {
	convert goldmark.Markdown
	policy  *bluemonday.Policy
}

var renderer = sync.OnceValue(func() *markdown {
	p := bluemonday.NewPolicy()
	p.AllowStandardURLs() // http, https, mailto; adds rel=nofollow
	p.AllowRelativeURLs(true)
	p.AllowAttrs("href", "title").OnElements("a")
	p.RequireNoReferrerOnFullyQualifiedLinks(true)
	p.AddTargetBlankToFullyQualifiedLinks(true)
	p.AllowElements("h1", "h2", "h3", "h4", "h5", "h6", "p", "br", "hr", "blockquote", "pre", "code",
		"em", "strong", "del", "ul", "ol", "li", "table", "thead", "tbody", "tr", "th", "td")
	p.AllowAttrs("start").Matching(regexp.MustCompile(`^[0-9]{1,9}$`)).OnElements("ol")
	p.AllowAttrs("align").Matching(regexp.MustCompile(`^(left|center|right)$`)).OnElements("th", "td")
	return &markdown{
		// Raw HTML stays off: goldmark leaves it out unless asked otherwise.
		convert: goldmark.New(goldmark.WithExtensions(extension.Table, extension.Strikethrough, extension.Linkify)),
		policy:  p,
	}
})

// Markdown turns a person's text into safe HTML: CommonMark with tables, no raw
// HTML, no images (they would tell their host who reads the page, and the
// content policy refuses them), links only to http, https, mailto and this
// site. It is the only place where text becomes trusted HTML.
func Markdown(text string) template.HTML {
	m := renderer()
	var b bytes.Buffer
	if err := m.convert.Convert([]byte(text), &b); err != nil {
		return template.HTML(template.HTMLEscapeString(text))
	}
	return template.HTML(m.policy.SanitizeBytes(b.Bytes()))
}
