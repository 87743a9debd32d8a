package test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	"golang.org/x/net/html"
)

// A Browser is one person's browser as far as requests go: cookies by host (a
// __Host- cookie under localhost is sent over http, as Chromium does),
// Sec-Fetch-* headers, redirects, and the auto-submitted form of the hand-off.
// What depends on real script, frames or the cookie jar's rules is tested in
// real browsers (test/browser).
type Browser struct {
	Portal string
	http   http.Client
	dial   func(ctx context.Context, network, addr string) (net.Conn, error)

	mu      sync.Mutex
	cookies map[string]map[string]string // host → name → value
	secrets map[string]bool              // every cookie and ticket it was ever given
	token   string                       // the portal's word for forms, off its last page
}

// NewBrowser returns a browser without cookies. Every name leads to loopback.
func NewBrowser(portal string) *Browser {
	b := &Browser{Portal: portal, dial: loopback, cookies: map[string]map[string]string{}, secrets: map[string]bool{}}
	b.http.Transport = &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) { return b.dial(ctx, network, addr) }, MaxIdleConnsPerHost: 20}
	b.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return b
}

func loopback(ctx context.Context, network, addr string) (net.Conn, error) {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	return new(net.Dialer).DialContext(ctx, network, "127.0.0.1:"+port)
}

// Close lets go of idle connections.
func (b *Browser) Close() { b.http.CloseIdleConnections() }

// A Page is an answer, read.
type Page struct {
	URL    *url.URL
	Status int
	Header http.Header
	Body   string
}

// Do sends one request with the host's cookies and keeps those that come back.
func (b *Browser) Do(req *http.Request) (*Page, error) {
	b.mu.Lock()
	for name, value := range b.cookies[req.URL.Host] {
		req.AddCookie(&http.Cookie{Name: name, Value: value})
	}
	b.mu.Unlock()
	res, err := b.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 32<<20))
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	jar := b.cookies[req.URL.Host]
	if jar == nil {
		jar = map[string]string{}
		b.cookies[req.URL.Host] = jar
	}
	if _, after, ok := strings.Cut(string(body), `name="quire-form" content="`); ok {
		b.token, _, _ = strings.Cut(after, `"`)
	}
	for _, c := range res.Cookies() {
		if c.MaxAge < 0 || c.Value == "" {
			delete(jar, c.Name)
		} else {
			jar[c.Name] = c.Value
			if strings.Contains(c.Name, "quire") {
				b.secrets[c.Value] = true
			}
		}
	}
	return &Page{URL: req.URL, Status: res.StatusCode, Header: res.Header, Body: string(body)}, nil
}

// remember keeps a secret for the search of the logs.
func (b *Browser) remember(secret string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if secret != "" {
		b.secrets[secret] = true
	}
}

// Secrets are all the cookies and tickets of Quire that the browser ever had.
func (b *Browser) Secrets() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Collect(maps.Keys(b.secrets))
}

// Cookies is the Cookie header for an address.
func (b *Browser) Cookies(host string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var all []string
	for name, value := range b.cookies[host] {
		all = append(all, name+"="+value)
	}
	return strings.Join(all, "; ")
}

// Open visits an address as a person does who types or follows it, through
// redirects and hand-offs, and returns the page on which that ends.
func (b *Browser) Open(ctx context.Context, address string) (*Page, error) {
	req, err := navigation(ctx, "GET", address, nil, "none")
	if err != nil {
		return nil, err
	}
	return b.follow(ctx, req)
}

// Submit posts a form from a page of the same origin, with the word that the
// portal's pages put into every form.
func (b *Browser) Submit(ctx context.Context, address string, form url.Values) (*Page, error) {
	b.mu.Lock()
	if b.token != "" && strings.HasPrefix(address, b.Portal+"/") {
		form.Set("token", b.token)
	}
	b.mu.Unlock()
	req, err := navigation(ctx, "POST", address, form, "same-origin")
	if err != nil {
		return nil, err
	}
	req.Header.Set("Origin", req.URL.Scheme+"://"+req.URL.Host)
	return b.follow(ctx, req)
}

func navigation(ctx context.Context, method, address string, form url.Values, site string) (*http.Request, error) {
	var body io.Reader
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	req, err := http.NewRequestWithContext(ctx, method, address, body)
	if err != nil {
		return nil, err
	}
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	req.Header.Set("Accept", "text/html,application/xhtml+xml,*/*;q=0.8")
	req.Header.Set("Sec-Fetch-Site", site)
	req.Header.Set("Sec-Fetch-Mode", "navigate")
	req.Header.Set("Sec-Fetch-Dest", "document")
	req.Header.Set("Sec-Fetch-User", "?1")
	return req, nil
}

func (b *Browser) follow(ctx context.Context, req *http.Request) (*Page, error) {
	for range 12 {
		page, err := b.Do(req)
		if err != nil {
			return nil, err
		}
		if page.Status >= 300 && page.Status < 400 && page.Header.Get("Location") != "" {
			to, err := req.URL.Parse(page.Header.Get("Location"))
			if err != nil {
				return nil, err
			}
			site := "same-origin"
			if to.Host != req.URL.Host {
				site = "cross-site"
			}
			if req, err = navigation(ctx, "GET", to.String(), nil, site); err != nil {
				return nil, err
			}
			continue
		}
		action, form := handOff(page)
		if action == "" {
			return page, nil
		}
		from := req.URL
		b.remember(form.Get("ticket"))
		if req, err = navigation(ctx, "POST", action, form, "cross-site"); err != nil {
			return nil, err
		}
		req.Header.Set("Origin", from.Scheme+"://"+from.Host)
	}
	return nil, errors.New("the redirects do not end")
}

// handOff finds the form that a browser would post by itself.
func handOff(p *Page) (action string, form url.Values) {
	doc, err := html.Parse(strings.NewReader(p.Body))
	if err != nil {
		return "", nil
	}
	for n := range doc.Descendants() {
		if n.Data == "form" && strings.HasSuffix(attr(n, "action"), "/_quire/enter") {
			action, form = attr(n, "action"), url.Values{}
			for i := range n.Descendants() {
				if i.Data == "input" && attr(i, "name") != "" {
					form.Set(attr(i, "name"), attr(i, "value"))
				}
			}
		}
	}
	return action, form
}

func attr(n *html.Node, name string) string {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
}

// API calls the portal's JSON API with this browser's cookies, as a script of
// the portal does. A status of 300 or more is an error.
func (b *Browser) API(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		j, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(j)
	}
	req, err := http.NewRequestWithContext(ctx, method, b.Portal+"/api/v1"+path, body)
	if err != nil {
		return err
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	b.mu.Lock()
	if b.token != "" {
		req.Header.Set("Quire-Form", b.token)
	}
	b.mu.Unlock()
	return b.JSON(req, out)
}

// JSON sends a script's same-origin request and reads its answer.
func (b *Browser) JSON(req *http.Request, out any) error {
	req.Header.Set("Accept", "application/json")
	req.Header.Set("Sec-Fetch-Site", "same-origin")
	req.Header.Set("Sec-Fetch-Mode", "cors")
	req.Header.Set("Sec-Fetch-Dest", "empty")
	if req.Method != http.MethodGet {
		req.Header.Set("Origin", req.URL.Scheme+"://"+req.URL.Host)
	}
	page, err := b.Do(req)
	if err != nil {
		return err
	}
	if page.Status >= 300 {
		return fmt.Errorf("%s %s: %d %s", req.Method, req.URL.Path, page.Status, firstLine(page.Body))
	}
	if out == nil || page.Body == "" {
		return nil
	}
	return json.Unmarshal([]byte(page.Body), out)
}

func firstLine(s string) string {
	s, _, _ = strings.Cut(strings.TrimSpace(s), "\n")
	return s[:min(len(s), 300)]
}
