package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"quire"
	"quire/store"
)

// Config is the configuration: JSON in which comments and trailing commas are
// allowed, read from several layers (see layers). Every key has a default; a key
// that is not here is an error, because a misspelt key that is ignored is a
// security hole. The tag secret:"true" keeps a value out of what is printed.
type Config struct {
	Roles []string `json:"roles"` // what this machine is: server, worker, gateway, compute

	Portal string   `json:"portal"` // the address people type; "" = http://quire.localhost and the portal's port
	Apps   string   `json:"apps"`   // where apps are; "" = http://*.apps.localhost and the gateway's port
	Hosts  []string `json:"hosts"`  // other names of the portal

	Database             string `json:"database"`               // a postgres:// URL; "" = a file below dirs.data
	DatabasePasswordFile string `json:"database_password_file"` // readable by the server's account alone

	Listen struct {
		Portal  string `json:"portal"` // "" = 127.0.0.1, port 8080 or the next free one
		Gateway string `json:"gateway"`
		Compute string `json:"compute"`

		Redirect string `json:"redirect"` // plain http that leads to https; "" = none
		Group    string `json:"group"`    // who may connect to a unix socket
	} `json:"listen"`

	TLS struct {
		Portal  *certificateFiles `json:"portal"`
		Gateway *certificateFiles `json:"gateway"`
		ACME    *acmeSettings     `json:"acme"`
	} `json:"tls"`

	Proxies []string `json:"proxies"` // who is believed about whom a request is for: addresses, networks, "unix"

	Dirs struct {
		Data     string `json:"data"`
		Run      string `json:"run"`
		Logs     string `json:"logs"`
		Site     string `json:"site"` // apps/, skeleton/
		Projects string `json:"projects"`
	} `json:"dirs"`

	Python          string `json:"python"`           // what environments are made from
	RootEnvironment string `json:"root_environment"` // a conda prefix, or ""
	MinUID          uint32 `json:"min_uid"`          // no process is ever started below

	ManageAccounts  bool     `json:"manage_accounts"`  // make people's Linux accounts
	UIDRange        []uint32 `json:"uid_range"`        // first and last number for them
	ServiceAccounts string   `json:"service_accounts"` // what the roles' accounts begin with: quire-server and so on
	UntouchedOwners []string `json:"untouched_owners"` // nobody works as these, and their files stay as they are
	AllowSetuid     bool     `json:"allow_setuid"`     // sudo works in sessions
	PrivateTmp      bool     `json:"private_tmp"`      // each session has a /tmp of its own

	Session struct {
		Limits    bool  `json:"limits"`    // false: run without control groups
		MemoryMB  int64 `json:"memory_mb"` // 0 = no limit
		CPUs      int   `json:"cpus"`
		Processes int   `json:"processes"`
	} `json:"session"`

	GraceMinutes    int  `json:"grace_minutes"`
	KeepDeletedDays int  `json:"keep_deleted_days"`
	DigitNames      bool `json:"digit_names"`

	Anonymous        string `json:"anonymous"`         // "disabled" or "read-public"
	AnonymousAccount string `json:"anonymous_account"` // reads public folders; in no team

	// Set by the supervisor for its children, never by hand.
	Local *Local `json:"local,omitempty"`
}

// Local is what the supervisor worked out for this machine.
type Local struct {
	Separate    bool               `json:"separate"` // each role its own account
	Self        string             `json:"self"`     // the binary every account can run
	DataCenter  quire.DataCenterID `json:"data_center"`
	Gateway     quire.NodeID       `json:"gateway"`
	Node        quire.NodeID       `json:"node"`
	GatewayAddr string             `json:"gateway_addr"`
	NodeAddr    string             `json:"node_addr"`
	ServerUID   uint32             `json:"server_uid"`
	GatewayUID  uint32             `json:"gateway_uid"`
	ComputeUID  uint32             `json:"compute_uid"`
	ComputeGID  uint32             `json:"compute_gid"`
	Account     string             `json:"account"` // of everything, unless separate
	UID         uint32             `json:"uid"`
	Host        string             `json:"host"` // for the line to type after ssh
	Supervisor  int                `json:"supervisor"`
}

// defaults are the values of a fresh installation; root decides where things lie.
func defaults(root bool) Config {
	var c Config
	if root {
		c.Dirs.Data, c.Dirs.Run, c.Dirs.Logs, c.Dirs.Site, c.Dirs.Projects = "/var/lib/quire", "/run/quire", "/var/log/quire", "/etc/quire", "/projects"
	} else {
		home, err := os.UserHomeDir()
		if err != nil {
			home = "/tmp"
		}
		data := filepath.Join(home, ".local/share/quire")
		// Short, because a kernel's socket path may have 107 bytes.
		c.Dirs.Data, c.Dirs.Run, c.Dirs.Logs, c.Dirs.Site, c.Dirs.Projects = data, "/tmp/quire-"+strconv.Itoa(os.Getuid()), data+"/logs", data+"/site", data+"/projects"
	}
	c.Roles = []string{"server", "gateway", "compute"}
	c.Python, c.MinUID = "/usr/bin/python3", 1000
	c.ManageAccounts, c.UIDRange, c.PrivateTmp = root, []uint32{20000, 59999}, true
	c.Session.Limits, c.Session.Processes = true, 1024
	c.ServiceAccounts = "quire"
	c.GraceMinutes, c.KeepDeletedDays = 60, 7
	c.Anonymous, c.AnonymousAccount = "disabled", "quire-visitor"
	return c
}

// checkWorker refuses a worker that would have nothing to do, or could not be told.
func (c Config) checkWorker() error {
	switch {
	case !c.has("worker"):
		return nil
	case !store.IsPostgres(c.Database):
		return errors.New(`the role "worker" needs PostgreSQL ("database": "postgres://…"): a file is one process's, so with SQLite the server does the works itself. Leave "worker" out of roles`)
	case !c.has("server") && c.Portal == "":
		return errors.New(`a worker without a server beside it needs "portal" and "apps" as the servers have them`)
	}
	return nil
}

// trusted reports whether this machine holds the keys of the installation.
func (c Config) trusted() bool { return c.has("server") || c.has("worker") }

// has reports whether this machine has a role.
func (c Config) has(role string) bool { return slices.Contains(c.Roles, role) }

// configFile is the site's file, the lowest layer that people write.
func configFile(c Config) string { return filepath.Join(c.Dirs.Site, "quire.conf") }

func (c Config) check() error {
	for name, dir := range map[string]string{"data": c.Dirs.Data, "run": c.Dirs.Run, "logs": c.Dirs.Logs, "site": c.Dirs.Site, "projects": c.Dirs.Projects} {
		if !filepath.IsAbs(dir) || filepath.Clean(dir) != dir {
			return fmt.Errorf("dirs.%s must be an absolute, plain path, not %q", name, dir)
		}
	}
	for i, role := range c.Roles {
		if !slices.Contains([]string{"server", "worker", "gateway", "compute"}, role) || slices.Contains(c.Roles[:i], role) {
			return fmt.Errorf(`roles are some of "server", "worker", "gateway" and "compute", each once, not %q`, c.Roles)
		}
	}
	if err := c.checkWorker(); err != nil {
		return err
	}
	if err := c.checkFront(); err != nil {
		return err
	}
	switch {
	case len(c.Roles) == 0:
		return errors.New(`roles says what this machine is: "server", "worker", "gateway", "compute", or several of them`)
	case len(c.Dirs.Run) > 30:
		return fmt.Errorf("dirs.run has at most 30 characters, because sockets below it have a limit of 107")
	case c.GraceMinutes < 0 || c.GraceMinutes > 24*60:
		return errors.New("grace_minutes is between 0 and 1440")
	case c.Anonymous != "disabled" && c.Anonymous != "read-public":
		return fmt.Errorf(`anonymous is "disabled" or "read-public", not %q`, c.Anonymous)
	case quire.CheckUserName(c.AnonymousAccount, false) != nil:
		return fmt.Errorf("anonymous_account must be the name of an account, not %q", c.AnonymousAccount)
	case quire.CheckUserName(c.ServiceAccounts, false) != nil || len(c.ServiceAccounts) > 20:
		return fmt.Errorf("service_accounts is what the names of accounts begin with, up to 20 characters, not %q", c.ServiceAccounts)
	case c.checkDatabase() != nil:
		return c.checkDatabase()
	case c.KeepDeletedDays < 0 || c.KeepDeletedDays > 3650:
		return errors.New("keep_deleted_days is between 0 and 3650")
	case len(c.UIDRange) != 2 || c.UIDRange[0] > c.UIDRange[1] || c.UIDRange[1] >= 1<<32-2:
		return errors.New("uid_range is the first and the last number for accounts, as in [20000, 59999]")
	case c.UIDRange[0] < c.MinUID:
		return errors.New("uid_range begins below min_uid")
	case c.UIDRange[0] <= 65535 && c.UIDRange[1] >= 65534:
		return errors.New("uid_range may not hold 65534 and 65535, which are nobody's")
	case c.MinUID < 1:
		return errors.New("min_uid is at least 1: nothing runs as root")
	case !strings.HasPrefix(c.Python, "/"):
		return errors.New("python is an absolute path")
	case c.Session.MemoryMB < 0 || c.Session.CPUs < 0 || c.Session.Processes < 0:
		return errors.New("the limits of a session are not negative; 0 is no limit")
	}
	return nil
}

// sampleConfig is written at the first start, for people to edit.
const sampleConfig = `// Quire's configuration. Every line shows a default; remove the two slashes to
// change it, then start Quire again. "quire config" prints what is in force and
// where it comes from; docs/admin/configuration.md says more.
{
  // What this machine is. With several machines each has some of the three; all
  // but the server join it (docs/admin/machines.md). With PostgreSQL "worker" is a
  // process of its own for what is done on nodes, beside servers that serve pages.
  // "roles": ["server", "gateway", "compute"],

  // The portal's address as people type it, and where apps are. A star gives
  // every person and project a browser origin of its own.
  // "portal": "http://quire.localhost:8080",
  // "apps": "http://*.apps.localhost:8089",
  // Other host names that lead to the portal.
  // "hosts": [],

  // A postgres:// URL, instead of a file, and where its password is (docs/admin/install.md).
  // "database": "",
  // "database_password_file": "",

  // Addresses to listen on. An address given here is fixed; otherwise the next
  // free pair of ports is taken when 8080 or 8089 is in use.
  // "listen": { "portal": "127.0.0.1:8080", "gateway": "127.0.0.1:8089", "compute": "127.0.0.1:5002" },

  // Behind a proxy: unix:/run/quire/portal.sock, for the group that the key group
  // names. With certificates of Quire's own the key redirect leads from http to
  // https; acme gets them by itself. docs/admin/front.md has examples.
  // "tls": {},

  // Proxies in front, which are believed when they say for whom they ask and
  // whether by https: addresses, networks, and "unix" for a unix socket's peer.
  // "proxies": [],

  // What environments are made from, and a conda prefix to use instead.
  // "python": "/usr/bin/python3",
  // "root_environment": "",

  // Limits of one app of one person. 0 is no limit. "limits": false runs
  // sessions without control groups, where a machine has none to give.
  // "session": { "limits": true, "memory_mb": 0, "cpus": 0, "processes": 1024 },

  // How long running work stays reachable when the server is down.
  // "grace_minutes": 60,
  // How long a deleted project can be restored.
  // "keep_deleted_days": 7,

  // Who may read the public folders of projects: "disabled" lets people who are
  // signed in, "read-public" lets everybody who can reach the portal. Either way
  // they are read as this account, which must own nothing and be in no team.
  // "anonymous": "disabled",
  // "anonymous_account": "quire-visitor",

  // User names made of digits only.
  // "digit_names": false,

  // No process is ever started for an account with a lower number.
  // "min_uid": 1000,

  // As root: true makes a Linux account for every person, numbered from the
  // range; false uses the account of that name that the site provides.
  // "manage_accounts": true,
  // "uid_range": [20000, 59999],
  // What the accounts of Quire's own processes are called: quire-server, quire-gateway, quire-compute.
  // "service_accounts": "quire",
  // Accounts, beside root and Quire's own, that nobody works as.
  // "untouched_owners": [],
  // Let sudo and the like work in sessions. They then hold no more.
  // "allow_setuid": false,
  // Give each session a /tmp and a view of processes of its own.
  // "private_tmp": true,
}
`

// proxies are who is believed; check has read the list before.
func (c Config) proxies() quire.Proxies {
	p, _ := quire.NewProxies(c.Proxies)
	return p
}

// origins are the addresses the configuration gives, for the ports in force.
func (c Config) origins(portalPort, gatewayPort int) quire.OriginConfig {
	o := quire.OriginConfig{Portal: c.Portal, Apps: c.Apps, Aliases: c.Hosts}
	at := func(f *certificateFiles, host string, port int) string {
		if port == 0 { // behind a proxy's usual port
			return f.scheme() + "://" + host
		}
		return fmt.Sprintf("%s://%s:%d", f.scheme(), host, port)
	}
	if o.Portal == "" {
		o.Portal = at(c.TLS.Portal, "quire.localhost", portalPort)
	}
	if o.Apps == "" {
		o.Apps = at(c.TLS.Gateway, "*.apps.localhost", gatewayPort)
	}
	return o
}
