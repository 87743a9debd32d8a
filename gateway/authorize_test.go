package gateway

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"quire"
	"quire/ticket"
)

// registered are the apps that the gateway's own table has for the person's label.
func (p *person) registered() (names []string) {
	if v, ok := p.w.g.routes.byLabel.Load(p.label); ok {
		for name := range *v.(*site).apps.Load() {
			names = append(names, name)
		}
	}
	return names
}

// guarded asks for everything that a site answers only to who has a right, in
// every way a request can come: the apps of the route table and our own pages.
func (p *person) guarded(ask func(what string, req *http.Request)) {
	var paths []string
	for _, name := range p.registered() {
		paths = append(paths, "/"+name+"/x")
	}
	for _, own := range []string{"/frame?path=/notebook/", "/events?app=notebook"} {
		paths = append(paths, "/"+ours+own)
	}
	for _, path := range paths {
		for way, change := range ways {
			req := p.request("GET", path, nil)
			change(req)
			if req.Method != "GET" {
				req.Header.Set("Origin", p.site().origin)
			}
			ask(way+" "+path, req)
		}
		socket := p.request("GET", path, nil)
		for k, v := range map[string]string{"Origin": p.site().origin, "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="} {
			socket.Header.Set(k, v)
		}
		ask("socket "+path, socket)
	}
}

// TestEveryRouteAsks is G-18: everything a site has is reached through the one
// authoriser, and while that errs, hears nothing or panics nobody passes. That
// the test can fail is shown by TestMutants.
func TestEveryRouteAsks(t *testing.T) {
	t.Parallel()
	var broken atomic.Bool
	modes(t, func(t *testing.T, w *world) {
		p := w.person().enter()
		if routes := p.registered(); len(routes) < 2 {
			t.Fatalf("routes: %v", routes)
		}
		// all asks for everything at once: some answers take as long as a renewal may.
		all := func(state string, may func(status int, err error) bool) {
			t.Helper()
			dials := w.app.dials.Load()
			var wg sync.WaitGroup
			p.guarded(func(what string, req *http.Request) {
				wg.Go(func() {
					tr := w.transport()
					defer tr.CloseIdleConnections()
					status := 0
					resp, err := tr.RoundTrip(req)
					if err == nil {
						resp.Body.Close()
						status = resp.StatusCode
					}
					if !may(status, err) {
						t.Errorf("%s: %s: %d %v", state, what, status, err)
					}
				})
			})
			wg.Wait()
			if n := w.app.dials.Load() - dials; n != 0 {
				t.Errorf("%s: the app was asked %d times", state, n)
			}
		}
		only := func(want int) func(int, error) bool {
			return func(status int, err error) bool { return err == nil && status == want }
		}
		key := p.cookie
		for state, cookie := range map[string]string{"no cookie": "", "garbage": p.site().app.name + "=x", "a changed cookie": key[:len(key)-2] + "AA", "somebody else's": p.site().app.name + "=" + strings.SplitN(w.person().enter().cookie, "=", 2)[1]} {
			p.cookie = cookie
			all(state, only(http.StatusUnauthorized))
		}
		p.cookie = key
		// It panics, in the middle of deciding.
		broken.Store(true)
		all("panic", func(status int, err error) bool { return err != nil || status >= 500 })
		broken.Store(false)
		// It has no answer: the server hears the question and is silent.
		w.mu.Lock()
		w.muted = true
		w.mu.Unlock()
		w.shift.Add(int64(2 * ticket.GrantLife))
		w.until("the clock is heard", func() bool { return !w.g.silent(w.now()) })
		all("no answer in time", only(http.StatusServiceUnavailable))
		// It is gone, and the grace with it.
		w.detach()
		w.shift.Add(int64(48 * time.Hour))
		all("no server", only(http.StatusServiceUnavailable))
	}, breakable(&broken))
}

// breakable makes the clock that the authoriser asks panic there, and only
// there, while broken is set.
func breakable(broken *atomic.Bool) option {
	return func(c *Config, _ *quire.OriginConfig) {
		now := c.Now
		c.Now = func() time.Time {
			if broken.Load() {
				var pcs [8]uintptr
				frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs[:])])
				for more := true; more; {
					var f runtime.Frame
					if f, more = frames.Next(); strings.HasSuffix(f.Function, ".authorize") {
						panic("canary")
					}
				}
			}
			return now()
		}
	}
}

// TestMutants runs TestEveryRouteAsks on gateways whose authoriser was weakened
// in one place each: it must fail on every one of them (G-18).
func TestMutants(t *testing.T) {
	t.Parallel()
	source, err := os.ReadFile("door.go")
	if err != nil {
		t.Fatal(err)
	}
	door, err := filepath.Abs("door.go")
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string][2]string{
		"nobody is asked":     {"if err := v.authorize(); err != nil {", "if err := v.authorize(); false && err != nil {"},
		"an error is a yes":   {"c.holder, v.g.now(), v.line == nil)\n\tif err != nil {\n\t\treturn err", "c.holder, v.g.now(), v.line == nil)\n\tif err != nil {\n\t\tgrant = c.holder.newest.Load()"},
		"one app goes around": {"\tif err := v.authorize()", "\tif v.name == \"viewer\" {\n\t\treturn (*s.apps.Load())[v.name], nil\n\t}\n\tif err := v.authorize()"},
		"our own pages do":    {"answer := v.public(); answer != nil", "answer := v.private; v.public() == nil"},
	} {
		t.Run(name, func(t *testing.T) {
			if strings.Count(string(source), change[0]) != 1 {
				t.Fatalf("door.go has %q not once: say anew here what to weaken", change[0])
			}
			dir := t.TempDir()
			mutant := filepath.Join(dir, "door.go")
			overlay, err := json.Marshal(map[string]map[string]string{"Replace": {door: mutant}})
			if err != nil {
				t.Fatal(err)
			}
			for file, text := range map[string]string{mutant: strings.Replace(string(source), change[0], change[1], 1), filepath.Join(dir, "overlay.json"): string(overlay)} {
				if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			out, err := exec.Command("go", "test", "-vet=off", "-failfast", "-overlay", filepath.Join(dir, "overlay.json"), "-run", "^TestEveryRouteAsks$/^own_origins$", ".").CombinedOutput()
			if err == nil || !strings.Contains(string(out), "--- FAIL: TestEveryRouteAsks/own_origins") {
				t.Errorf("the mutant lives (%v):\n%s", err, out)
			}
		})
	}
}

// TestNoTokenInAddresses is G-14: no word in an address is a right, our own
// pages refuse an address that has one, and an app's query, which is the app's,
// stands in no log.
func TestNoTokenInAddresses(t *testing.T) {
	t.Parallel()
	modes(t, func(t *testing.T, w *world) {
		p := w.person().enter()
		_, value, _ := strings.Cut(p.cookie, "=")
		key := p.cookie
		for _, name := range []string{"token", "access_token", "jwt", "auth", "grant", "ticket", p.site().app.name, "_xsrf"} {
			query := "?" + name + "=" + value
			p.cookie = ""
			before := w.app.dials.Load()
			for _, path := range []string{"/notebook/x", "/_quire/frame", "/_quire/events", "/_quire/enter"} {
				resp := p.get(path+query, "Authorization", "Bearer "+value)
				if resp.StatusCode != 401 && resp.StatusCode != 405 || len(resp.Cookies()) != 0 || w.app.dials.Load() != before {
					t.Errorf("%s%.20s: %d", path, query, resp.StatusCode)
				}
			}
			p.cookie = key
			if name == "token" || name == "access_token" || name == "jwt" {
				for _, path := range []string{"/_quire/frame", "/_quire/events"} {
					if got := p.get(path + query).StatusCode; got != 400 {
						t.Errorf("%s with %s: %d, want 400", path, name, got)
					}
				}
			}
			if got := p.get("/notebook/x" + query).StatusCode; got != 200 || w.app.request().URL.RawQuery != query[1:] {
				t.Errorf("the app's own %s: %d", name, got)
			}
		}
		// An app that is not reached is logged, without what was asked of it.
		var away error = quire.Unavailable("Gone.", nil)
		w.app.refuse.Store(&away)
		w.person().enter().get("/notebook/y?token=" + value) // with no connection to the app yet
		if log := w.log.String(); !strings.Contains(log, "app not reached") || strings.Contains(log, value) || strings.Contains(log, "token=") {
			t.Errorf("log: %s", log)
		}
	})
}

// TestSameQuestion is G-13: many ask the same at the same moment, with equal
// addresses but for the host, and each gets an answer of their own.
func TestSameQuestion(t *testing.T) {
	t.Parallel()
	const each = 250
	w := newWorld(t)
	a, b := w.person().enter(), w.person().enter()
	var n, inside atomic.Int64
	all := make(chan struct{})
	w.app.set(func(w http.ResponseWriter, r *http.Request) {
		// Nobody is answered before as many are here as the gateway lets in at
		// once: whoever shared an answer would be missing.
		if inside.Add(1) == 2*each {
			close(all)
		}
		select {
		case <-all:
		case <-r.Context().Done():
		}
		w.Header().Set("Etag", `"same"`)
		fmt.Fprintf(w, "%s %d", r.Host, n.Add(1))
	})
	var wg sync.WaitGroup
	var seen sync.Map
	for _, p := range []*person{a, b} {
		for range each {
			wg.Go(func() {
				c := w.conn()
				defer c.Close()
				fmt.Fprintf(c, "GET /notebook/same HTTP/1.1\r\nHost: %s\r\nCookie: %s\r\nConnection: close\r\n\r\n", p.host(), p.cookie)
				resp, err := http.ReadResponse(bufio.NewReader(c), nil)
				if err != nil {
					t.Error(err)
					return
				}
				text, err := io.ReadAll(resp.Body)
				if _, twice := seen.LoadOrStore(string(text), true); err != nil || resp.StatusCode != 200 || twice || !strings.HasPrefix(string(text), p.host()+" ") {
					t.Errorf("%s got %d %q (twice: %v) %v", p.host(), resp.StatusCode, text, twice, err)
				}
			})
		}
	}
	wg.Wait()
}
