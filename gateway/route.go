package gateway

import (
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"quire"
)

// A site is what belongs to one label: its origin, its cookies, its apps.
type site struct {
	label  quire.Label
	origin string // https://LABEL.apps.example.org
	prefix string // "" or "/LABEL"
	app    cookie
	nonce  cookie
	head   []byte // X-Forwarded-Host and -Proto lines
	apps   atomic.Pointer[map[string]*app]

	content *site // where the content of its files is seen
	of      *site // of such a place: whose it is
	open    bool  // of such a place: for visitors, who bring grants as passes

	mu      sync.Mutex
	waiting map[chan struct{}]struct{}
}

// An app is a route as it stood when it was told; a change makes a new one.
type app struct {
	quire.Route
	head []byte // header lines every request to it gets
}

// public reports whether the app is for visitors, who have passes and no cookies.
func (a *app) public() bool { return quire.App{Permit: a.Permit}.Public() }

func (a *app) minRole() quire.Role { return quire.App{Permit: a.Permit}.MinRole() }

// sites makes sites; origins are only asked here.
type sites struct {
	origins    quire.Origins
	contentKey []byte
}

func (s *sites) init(o quire.Origins, contentKey []byte) { s.origins, s.contentKey = o, contentKey }

func (s *sites) make(label quire.Label) *site {
	n := &site{label: label, origin: s.origins.Origin(label), prefix: s.origins.Prefix(label), waiting: map[chan struct{}]struct{}{}}
	n.app.name, n.app.path, n.app.secure = s.origins.Cookie("app", label)
	n.nonce.name, n.nonce.path, n.nonce.secure = s.origins.Cookie("nonce", label)
	scheme, host, _ := strings.Cut(n.origin, "://")
	n.head = []byte("X-Forwarded-Host: " + host + "\r\nX-Forwarded-Proto: " + scheme + "\r\n")
	n.apps.Store(&map[string]*app{})
	return n
}

// host is the origin's, as browsers send it.
func (s *site) host() string {
	_, host, _ := strings.Cut(s.origin, "://")
	return host
}

// routes are every site of the data center, in memory alone.
type routes struct {
	g   *Gateway
	mu  sync.Mutex // of writers
	age int64      // Version of the newest full list
	// Sites by label, and by host where a label has a host to itself.
	byLabel sync.Map // quire.Label -> *site
	byHost  sync.Map // string -> *site

	news    sync.Cond // after each new label; its lock is newsMu
	newsMu  sync.Mutex
	patient chan struct{} // who waits for a label
}

const (
	// patience is how long a person's first page waits for a label that the
	// server has only just given out: the browser can be faster than the feed.
	patience   = 1500 * time.Millisecond
	maxPatient = 256
)

func (r *routes) init(g *Gateway) {
	r.g = g
	r.news.L = &r.newsMu
	r.patient = make(chan struct{}, maxPatient)
}

// soon is site for a page that a person opens: it gives a label that is not
// known a moment to become known.
func (r *routes) soon(host, path string) (s *site, known, ok bool) {
	select {
	case r.patient <- struct{}{}:
		defer func() { <-r.patient }()
	default:
		return r.site(host, path) // too many wait: they get their answer now
	}
	over := false
	timer := time.AfterFunc(patience, func() {
		r.newsMu.Lock()
		over = true
		r.newsMu.Unlock()
		r.news.Broadcast()
	})
	defer timer.Stop()
	r.newsMu.Lock()
	defer r.newsMu.Unlock()
	for {
		if s, known, ok = r.site(host, path); known || !ok || over {
			return s, known, ok
		}
		r.news.Wait()
	}
}

// site finds the site of a request, or makes one that has no apps for a label
// that is of the right form but not known (known false). ok is false when the
// address is not one of ours at all.
func (r *routes) site(host, path string) (s *site, known, ok bool) {
	if v, found := r.byHost.Load(host); found {
		return v.(*site), true, true
	}
	pass, rest := cutPass(path)
	label, ok := r.g.cfg.Origins.Label(host, rest)
	if !ok {
		return nil, false, false
	}
	if v, found := r.byLabel.Load(label); found {
		if s := v.(*site); pass != "" && s.content != nil {
			return s.content, true, true
		}
		return v.(*site), true, true
	}
	if pass != "" && r.g.cfg.Origins.Prefix(label) != "" {
		return nil, false, false // no site has that label
	}
	return r.g.sites.make(label), false, true
}

// update takes changes, or everything when full. Of two words on one app the
// newer one counts, in whatever order they come; a full list that is the only one
// there is (fresh) counts whatever was known.
func (r *routes) update(changes []quire.Route, full bool, version int64, fresh bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	type key struct {
		label quire.Label
		app   string
	}
	before := map[key]bool{} // what a full list does not have
	if full {
		if fresh {
			r.age = version
		}
		r.age = max(r.age, version)
		r.byLabel.Range(func(k, v any) bool {
			for name, app := range *v.(*site).apps.Load() {
				before[key{k.(quire.Label), name}] = fresh || app.Version <= version
			}
			return true
		})
	}
	for _, c := range changes {
		if !c.Label.Valid() || quire.CheckAppName(c.App) != nil {
			r.g.log.Warn("a route that cannot be", "label", c.Label, "app", c.App)
			continue
		}
		if c.Version == 0 {
			c.Version = version
		}
		delete(before, key{c.Label, c.App})
		// What is not known was not in the newest list.
		if known, ok := r.known(c.Label, c.App); !fresh && (ok && c.Version < known || !ok && c.Version < r.age) {
			continue
		}
		if c.Gone {
			r.forget(c.Label, c.App)
			continue
		}
		r.set(c)
	}
	for k, old := range before {
		if old {
			r.forget(k.label, k.app)
		}
	}
}

// known is the version of what is known of an app.
func (r *routes) known(label quire.Label, name string) (version int64, ok bool) {
	v, found := r.byLabel.Load(label)
	if !found {
		return 0, false
	}
	a, ok := (*v.(*site).apps.Load())[name]
	if !ok {
		return 0, false
	}
	return a.Version, true
}

func (r *routes) set(c quire.Route) {
	v, found := r.byLabel.Load(c.Label)
	if !found {
		s := r.g.sites.make(c.Label)
		v = s
		s.content = r.g.sites.contentOf(s, quire.App{Permit: c.Permit}.Public())
		r.byLabel.Store(c.Label, s)
		if s.prefix == "" {
			r.byHost.Store(s.host(), s)
			r.byHost.Store(s.content.host(), s.content)
		}
		defer func() { // with the lock: nobody is between looking and waiting
			r.newsMu.Lock()
			defer r.newsMu.Unlock()
			r.news.Broadcast()
		}()
	}
	s := v.(*site)
	apps := maps.Clone(*s.apps.Load())
	apps[c.App] = &app{Route: c, head: append(s.head[:len(s.head):len(s.head)], identity(c)...)}
	s.apps.Store(&apps)
	s.changed()
}

// identity is the header that names the person to the app.
func identity(c quire.Route) string {
	if c.UserName == "" || strings.ContainsFunc(c.UserName, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return ""
	}
	return "X-Quire-User: " + c.UserName + "\r\n"
}

func (r *routes) forget(label quire.Label, name string) {
	v, found := r.byLabel.Load(label)
	if !found {
		return
	}
	s := v.(*site)
	apps := maps.Clone(*s.apps.Load())
	delete(apps, name)
	s.apps.Store(&apps)
	if len(apps) == 0 {
		r.byLabel.Delete(label)
		r.byHost.CompareAndDelete(s.host(), s)
		r.byHost.CompareAndDelete(s.content.host(), s.content)
	}
	s.changed()
}

// changed wakes everybody who waits for news of the site.
func (s *site) changed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.waiting {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// wait returns a channel that gets a value after each change, and how to stop.
func (s *site) wait() (<-chan struct{}, func()) {
	c := make(chan struct{}, 1)
	s.mu.Lock()
	s.waiting[c] = struct{}{}
	s.mu.Unlock()
	return c, func() {
		s.mu.Lock()
		delete(s.waiting, c)
		s.mu.Unlock()
	}
}
