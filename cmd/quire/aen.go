package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/tailscale/hujson"
)

// This file is the only one that knows the names of AEN's configuration. Its
// files are understood where they lie beside ours, so that a site can bring
// them along and move key after key.

// An oldFile is one of AEN's files, read for the role; "" is every role's.
type oldFile struct{ name, role string }

var oldFiles = []oldFile{
	{"config.json", ""},
	{"wk-server-config.json", "server"},
	{"wk-gateway-config.json", "gateway"},
	{"compute-launcher-config.json", "compute"},
	{"wk-compute-launcher-config.json", "compute"},
}

func aenFile(name string) (oldFile, bool) {
	i := slices.IndexFunc(oldFiles, func(f oldFile) bool { return f.name == name })
	if i < 0 {
		return oldFile{}, false
	}
	return oldFiles[i], true
}

func aenFiles(role string) []string {
	var names []string
	for _, f := range oldFiles {
		if f.role == role {
			names = append(names, f.name)
		}
	}
	return names
}

// An oldKey makes our settings of one of AEN's, or says in a note why there is
// nothing to set.
type oldKey struct {
	roles []string // in whose files it means something; nil is all
	take  func(v []byte) (settings []setting, note string, err error)
}

var errText = errors.New("is text in quotation marks")

func oldKeys() map[string]oldKey {
	compute := []string{"", "compute"}
	gateway := []string{"gateway"}
	server := []string{"", "server"}
	// It means nothing here, whatever its value.
	unneeded := func(note string) func([]byte) ([]setting, string, error) {
		return func([]byte) ([]setting, string, error) { return nil, note, nil }
	}
	return map[string]oldKey{
		"WAKARI_SERVER": {take: func(v []byte) ([]setting, string, error) {
			s, err := text(v)
			return []setting{{key: "portal", value: quote(strings.TrimRight(s, "/"))}}, "", err
		}},
		"CDN": {take: unneeded("is not needed: Quire serves its static files itself")},
		"accounts": {roles: server, take: func(v []byte) ([]setting, string, error) {
			s, err := text(v)
			if err != nil {
				return nil, "", err
			}
			switch last := s[strings.LastIndex(s, ".")+1:]; last {
			case "", "local":
				return nil, "is the local accounts, which is how Quire keeps them", nil
			case "ldap", "ldap2", "pam":
				return nil, "", fmt.Errorf("asks for the plugin %s, which is not supported yet: people have local accounts", last)
			}
			return nil, "", errors.New("asks for a plugin that Quire does not know: people have local accounts")
		}},
		"LDAP": {roles: server, take: func([]byte) ([]setting, string, error) {
			return nil, "", errors.New("is not supported yet: people have local accounts")
		}},
		"MANAGE_ACCOUNTS": {roles: compute, take: func(v []byte) ([]setting, string, error) {
			var yes bool
			if json.Unmarshal(v, &yes) != nil {
				return nil, "", errors.New("is true or false")
			}
			return []setting{{key: "manage_accounts", value: v}}, "", nil
		}},
		"ANON_USER": {roles: []string{"", "server", "compute"}, take: func(v []byte) ([]setting, string, error) {
			s, err := text(v)
			if s == "disabled" {
				return []setting{{key: "anonymous", value: quote(s)}}, "", err
			}
			// Nobody without a login is let in because an old file names an account.
			return []setting{{key: "anonymous_account", value: quote(s)}},
				`names the account that public folders are read as; people without a login are let in with "anonymous": "read-public" in quire.conf`, err
		}},
		"projectRoot": {roles: compute, take: func(v []byte) ([]setting, string, error) {
			s, err := text(v)
			return []setting{{key: "dirs.projects", value: quote(s)}}, "", err
		}},
		"port": {roles: gateway, take: func(v []byte) ([]setting, string, error) {
			port, err := strconv.ParseUint(strings.Trim(string(v), `"`), 10, 16)
			if err != nil || port == 0 {
				return nil, "", errors.New("is a number from 1 to 65535")
			}
			return []setting{{key: "listen.gateway", over: func(c Config) []byte {
				host, _, err := net.SplitHostPort(c.Listen.Gateway)
				if err != nil {
					host = "127.0.0.1"
				}
				return quote(net.JoinHostPort(host, fmt.Sprint(port)))
			}}}, "", nil
		}},
		"client_id":     {roles: gateway, take: unneeded("is not needed: the gateway has a key of its own")},
		"client_secret": {roles: gateway, take: unneeded("is not needed: the gateway has a key of its own; take the secret out of the file")},
		"SUBDOMAIN_ROUTING": {roles: gateway, take: func(v []byte) ([]setting, string, error) {
			var yes bool
			if json.Unmarshal(v, &yes) != nil {
				return nil, "", errors.New("is true or false")
			}
			return nil, `sets nothing: "apps" in quire.conf says where apps are, with a star each on a host name of its own, without one all on one`, nil
		}},
	}
}

// text is a string's value; null is none.
func text(v []byte) (string, error) {
	var s *string
	if json.Unmarshal(v, &s) != nil || s == nil {
		return "", errText
	}
	return *s, nil
}

func quote(s string) []byte {
	b, err := json.Marshal(s)
	if err != nil {
		return nil
	}
	return b
}

// translate reads a file of AEN's. Errors and notes name keys, never values.
func (file oldFile) translate(o *hujson.Object, at func(hujson.Value) string) (layer, error) {
	known := oldKeys()
	var here []string
	for _, name := range slices.Sorted(maps.Keys(known)) {
		if roles := known[name].roles; roles == nil || slices.Contains(roles, file.role) {
			here = append(here, name)
		}
	}
	var out layer
	seen := map[string]bool{}
	for _, m := range o.Members {
		name, from := m.Name.Value.(hujson.Literal).String(), at(m.Name)
		if seen[name] {
			return out, fmt.Errorf("%s: %q is there twice", from, name)
		}
		seen[name] = true
		if !slices.Contains(here, name) {
			if _, other := known[name]; other {
				return out, fmt.Errorf("%s: %q means nothing in %s", from, name, file.name)
			}
			if k, ours := keyNamed(name); ours {
				return out, fmt.Errorf("%s: %q is a key of Quire's and belongs into quire.conf", from, k.name)
			}
			return out, fmt.Errorf("%s: %q is not a setting; the nearest is %q (docs/admin/configuration.md lists what is understood of AEN's files)", from, name, nearest(name, here))
		}
		settings, note, err := known[name].take(bytes.TrimSpace(m.Value.Pack()))
		if err != nil {
			return out, fmt.Errorf("%s: %q %w", from, name, err)
		}
		for _, s := range settings {
			s.from = from
			out.settings = append(out.settings, s)
		}
		if note != "" {
			out.notes = append(out.notes, fmt.Sprintf("%s: %q %s.", from, name, note))
		}
	}
	return out, nil
}
