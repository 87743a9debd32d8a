package test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// A visitor opens a new connection each few milliseconds and notes whatever is
// not a whole answer with 200.
type visitor struct {
	stop context.CancelFunc
	done sync.WaitGroup

	mu   sync.Mutex
	n    int
	not  []string
	what string
}

func visits(ctx context.Context, b *Browser, address string) *visitor {
	v := &visitor{what: address}
	ctx, v.stop = context.WithCancel(ctx)
	u, err := url.Parse(address)
	if err != nil {
		panic(err)
	}
	client := &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true, DialContext: b.dial},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	once := func() {
		req, err := http.NewRequestWithContext(ctx, "GET", address, nil)
		if err == nil {
			req.Header.Set("Cookie", b.Cookies(u.Host))
			var res *http.Response
			if res, err = client.Do(req); err == nil {
				_, err = io.Copy(io.Discard, res.Body)
				res.Body.Close()
				if err == nil && res.StatusCode != http.StatusOK {
					err = errors.New(res.Status)
				}
			}
		}
		if ctx.Err() != nil {
			return
		}
		v.mu.Lock()
		defer v.mu.Unlock()
		v.n++
		if err != nil {
			v.not = append(v.not, err.Error())
		}
	}
	v.done.Go(func() {
		t := time.NewTicker(5 * time.Millisecond)
		defer t.Stop()
		for ctx.Err() == nil {
			v.done.Go(once)
			<-t.C
		}
	})
	return v
}

// all ends the visits and says which were in vain. There were at least so many.
func (v *visitor) all(t *testing.T, least int) {
	t.Helper()
	Eventually(t, time.Minute, "enough visits", func() error {
		v.mu.Lock()
		defer v.mu.Unlock()
		if v.n < least {
			return fmt.Errorf("%d of %d", v.n, least)
		}
		return nil
	})
	v.stop()
	v.done.Wait()
	if len(v.not) > 0 {
		t.Errorf("%s: %d of %d visits in vain: %s", v.what, len(v.not), v.n, v.not[0])
	}
}

// variant builds a Quire in which something is said differently.
func variant(t *testing.T, to string, says ...string) {
	t.Helper()
	cmd := exec.Command("go", "build", "-trimpath", "-o", to+".new", "-ldflags", "-s -w -X "+strings.Join(says, " -X "), "../cmd/quire")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := os.Rename(to+".new", to); err != nil { // as packages do it
		t.Fatal(err)
	}
}

// Every role, and then all of Quire with another program, is replaced under the
// hands of people who do not notice.
//
//fault:server a role is restarted, or all of Quire replaced by another program
//fault:seen nothing but a moment; sockets of apps are told to come back
//fault:lost nothing
//fault:repair what cannot begin takes nobody's place, the old one goes on
func TestReplacedWithoutARefusal(t *testing.T) {
	s := New(t)
	own := filepath.Join(t.TempDir(), "quire")
	b, err := os.ReadFile(s.Binary)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(own, b, 0o755); err != nil {
		t.Fatal(err)
	}
	s.Binary = own
	s.Start()
	ctx := within(t, 4*time.Minute)
	ada := s.Admin(ctx, "ada", password)
	running(t, ctx, ada, "/ada/Welcome")
	n, err := ada.OpenNotebook(ctx, "/ada/Welcome")
	if err != nil {
		t.Fatal(err)
	}
	kernel, err := n.NewKernel(ctx)
	if err != nil {
		t.Fatal(err)
	}
	k, err := n.Connect(ctx, kernel)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Run(ctx, "treasure = 'gold'"); err != nil {
		t.Fatal(err)
	}
	api, err := n.Base.Parse("api/status")
	if err != nil {
		t.Fatal(err)
	}
	// again follows the socket to its end, if it ends, and opens it again as a page
	// does; once is enough.
	again := func(t *testing.T, ends bool) {
		t.Helper()
		if ends {
			ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
			defer cancel()
			for {
				if _, _, err = k.conn.Read(ctx); err != nil {
					break
				}
			}
			if ctx.Err() != nil {
				t.Fatal("the socket was not told to come back")
			}
			if k, err = n.Connect(ctx, kernel); err != nil {
				t.Fatalf("the socket did not open again: %v", err)
			}
		}
		if out, err := k.Run(ctx, "treasure"); err != nil || out != "'gold'" {
			t.Fatalf("the kernel has %q, %v", out, err)
		}
	}
	for _, role := range []string{"server", "gateway", "compute", "spawner"} {
		t.Run(role, func(t *testing.T) {
			old := s.Role(role)
			portal, app := visits(ctx, ada, s.Portal+"/"), visits(ctx, ada, api.String())
			if out, err := s.Run("", "restart", role); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			again(t, role == "gateway" || role == "compute")
			portal.all(t, 300)
			app.all(t, 300)
			Eventually(t, 40*time.Second, "the old process has ended", func() error {
				if _, err := os.Stat(fmt.Sprintf("/proc/%d", old)); err == nil {
					return errors.New("it runs")
				}
				return nil
			})
			Eventually(t, 10*time.Second, "the portal shows the truth", func() error {
				return sessionIs(ctx, ada, "/ada/Welcome", "notebook", "running")
			})
		})
	}

	t.Run("what cannot begin takes nobody's place", func(t *testing.T) {
		if err := os.WriteFile(own+".new", []byte("#!/bin/sh\necho not I; exit 3\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(own+".new", own); err != nil {
			t.Fatal(err)
		}
		s.Binary = binary(t)
		portal, app := visits(ctx, ada, s.Portal+"/"), visits(ctx, ada, api.String())
		old := s.Role("server")
		for _, role := range []string{"server", "all"} {
			out, err := s.Run("", "restart", role)
			if err == nil || !strings.Contains(out, map[string]string{"server": "the old one goes on", "all": "not I"}[role]) {
				t.Errorf("%s: %v %s", role, err, out)
			}
		}
		again(t, false)
		portal.all(t, 300)
		app.all(t, 300)
		if now := s.Role("server"); now != old {
			t.Errorf("the server is %d, not %d", now, old)
		}
	})

	t.Run("all, by another program", func(t *testing.T) {
		variant(t, own, "main.version=9.9.9-next")
		supervisor := s.cmd.Process.Pid
		portal, app := visits(ctx, ada, s.Portal+"/"), visits(ctx, ada, api.String())
		if out, err := s.Run("", "restart", "all"); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		again(t, true)
		portal.all(t, 500)
		app.all(t, 500)
		s.Says("Quire 9.9.9-next has taken over")
		out, err := s.Run("", "status")
		if err != nil || strings.Count(out, "running") != 5 || !strings.Contains(out, fmt.Sprintf(" %d ", supervisor)) {
			t.Errorf("%v\n%s", err, out)
		}
		page, err := ada.Open(ctx, s.Portal+"/help")
		if err != nil || !strings.Contains(page.Body, "9.9.9-next") {
			t.Errorf("another program answers: %v", err)
		}
		// What it took over it also ends, and starts again.
		s.Kill("gateway")
		Eventually(t, 15*time.Second, "the kernel answers", func() error {
			var err error
			if k, err = n.Connect(ctx, kernel); err == nil {
				again(t, false)
			}
			return err
		})
	})
}

// A page that holds streams and a socket is told by a proper word that the
// gateway is being replaced.
func TestSocketsAreToldToComeBack(t *testing.T) {
	s := Up(t)
	ctx := within(t, 2*time.Minute)
	ada := s.Admin(ctx, "ada", password)
	running(t, ctx, ada, "/ada/Welcome")
	n, err := ada.OpenNotebook(ctx, "/ada/Welcome")
	if err != nil {
		t.Fatal(err)
	}
	kernel, err := n.NewKernel(ctx)
	if err != nil {
		t.Fatal(err)
	}
	k, err := n.Connect(ctx, kernel)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := s.Run("", "restart", "gateway"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for err == nil {
		_, _, err = k.conn.Read(ctx)
	}
	if code := websocket.CloseStatus(err); code != websocket.StatusServiceRestart {
		t.Errorf("the socket ended with %v (%v)", code, err)
	}
}

// Machines are upgraded one after the other: a role of the release before or
// after works with the others, one further away is refused in a sentence that
// names both.
//
//fault:server machines have different releases of Quire
//fault:seen nothing, one release apart; further apart the older one counts as away, and the administrators' page says which to upgrade
//fault:lost nothing
//fault:repair upgrading the older one
//fault:also TestNeighboursUnderstandEachOther
func TestReleasesSideBySide(t *testing.T) {
	s := New(t)
	own := filepath.Join(t.TempDir(), "quire")
	became := func(protocol int) {
		t.Helper()
		variant(t, own, fmt.Sprintf("main.version=%d.0", protocol), fmt.Sprintf("main.protocol=%d", protocol))
	}
	became(2)
	s.Binary = own
	s.Start()
	ctx := within(t, 4*time.Minute)
	ada := s.Admin(ctx, "ada", password)
	running(t, ctx, ada, "/ada/Welcome")
	kernelOf(t, ctx, ada, "/ada/Welcome")
	for _, step := range []struct {
		role     string
		protocol int
	}{{"gateway", 3}, {"compute", 3}, {"spawner", 3}, {"server", 3}, {"gateway", 2}, {"compute", 2}} {
		became(step.protocol)
		if out, err := s.Run("", "restart", step.role); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		// Everything that goes between machines: orders, a stream, the feed.
		Eventually(t, 20*time.Second, "a project starts", func() error {
			_, err := ada.Submit(ctx, ada.Portal+"/ada/Welcome/stop", url.Values{})
			return err
		})
		Eventually(t, 30*time.Second, fmt.Sprintf("with a %s of %d it works", step.role, step.protocol), func() error {
			n, err := ada.OpenNotebook(ctx, "/ada/Welcome")
			if err != nil {
				return err
			}
			return n.Call(ctx, "GET", "api/status", nil, nil)
		})
	}
	for role, upgrade := range map[string]string{"gateway": "the gateway", "compute": "the compute"} {
		became(1)
		if out, err := s.Run("", "restart", role); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		Eventually(t, 20*time.Second, "an administrator is told", func() error {
			page, err := ada.Open(ctx, ada.Portal+"/admin")
			if err != nil {
				return err
			}
			for _, want := range []string{"version 1.0", "version 3.0", "more than one release lies between them. Upgrade " + upgrade + "."} {
				if !strings.Contains(page.Body, want) {
					return fmt.Errorf("%q is missing: %s", want, page.Body)
				}
			}
			return nil
		})
		became(3)
		if out, err := s.Run("", "restart", role); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	Eventually(t, 30*time.Second, "upgraded, it works", func() error {
		n, err := ada.OpenNotebook(ctx, "/ada/Welcome")
		if err != nil {
			return err
		}
		return n.Call(ctx, "GET", "api/status", nil, nil)
	})
}
