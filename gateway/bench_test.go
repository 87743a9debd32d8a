package gateway

import (
	"net/http"
	"testing"
	"time"

	"quire"
	"quire/ticket"
)

// benchGateway is a gateway that knows one person; nothing is dialed.
func benchGateway(b *testing.B) (*Gateway, *http.Request) {
	b.Helper()
	signer := ticket.NewSigner()
	verifier, err := ticket.NewVerifier(signer.Public())
	if err != nil {
		b.Fatal(err)
	}
	origins, err := quire.NewOrigins(quire.OriginConfig{Portal: "http://quire.localhost:8080", Apps: "http://*.apps.localhost:8089"})
	if err != nil {
		b.Fatal(err)
	}
	g, err := New(Config{Node: gatewayNode, Origins: origins, Verifier: verifier, CookieKey: make([]byte, 32), Dial: noDial, Renew: noRenew})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { g.Close() })
	label := quire.NewLabel()
	g.routes.update([]quire.Route{{Label: label, User: "u_1", UserName: "alice", Project: "p_1", App: "notebook", Permit: "write", Session: "s_1", Node: computeNode, State: quire.SessionRunning}}, true, 0, true)
	g.full.Store(true)
	now := time.Now()
	grant := signer.Grant(ticket.Grant{Gateway: gatewayNode, Node: computeNode, User: "u_1", Project: "p_1", Login: "l_1", Label: label, Role: quire.RoleEditor, Issued: now, Expires: now.Add(time.Hour), Grace: now.Add(time.Hour)})
	s := g.sites.make(label)
	r, err := http.NewRequest("GET", s.origin+"/notebook/static/main.js?v=1", nil)
	if err != nil {
		b.Fatal(err)
	}
	r.RequestURI = r.URL.RequestURI()
	r.Header = http.Header{"Cookie": {"_xsrf=2|abcdef; " + s.app.name + "=" + g.seal.close(grant, label)}, "Accept": {"*/*"}, "Sec-Fetch-Site": {"same-origin"}, "User-Agent": {"bench"}}
	return g, r
}

// BenchmarkJudge is everything that is decided about a request whose cookie was
// seen before: address, site, cookies, origin, grant, route, role.
func BenchmarkJudge(b *testing.B) {
	g, r := benchGateway(b)
	b.ReportAllocs()
	for b.Loop() {
		v := visit{g: g, r: r}
		if a, _ := v.judge(); a == nil {
			b.Fatal("refused")
		}
	}
}

// BenchmarkOpenCookie is the first sight of a cookie: open, verify, register.
func BenchmarkOpenCookie(b *testing.B) {
	g, r := benchGateway(b)
	s, _, _ := g.routes.site(r.Host, "/")
	own := s.own(r.Header["Cookie"])
	b.ReportAllocs()
	for b.Loop() {
		g.grants.byCookie.Clear()
		if _, err := g.open(own.app, s); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkHeads is the filter of both heads.
func BenchmarkHeads(b *testing.B) {
	g, r := benchGateway(b)
	s, _, _ := g.routes.site(r.Host, "/")
	answer := http.Header{"Content-Type": {"text/html"}, "Content-Length": {"1024"}, "Date": {"now"}, "Etag": {`"1"`}, "Set-Cookie": {"_xsrf=1; Path=/"}}
	buf, out := make([]byte, 0, 4096), http.Header{}
	b.ReportAllocs()
	for b.Loop() {
		buf = appendFields(buf[:0], r.Header)
		clear(out)
		if err := s.answerHeader(out, answer, "notebook"); err != nil {
			b.Fatal(err)
		}
	}
}
