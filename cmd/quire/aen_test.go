package main

import (
	"encoding/json"
	"strings"
	"testing"
)

// The files of AEN as they lie beside ours.
func TestOldFiles(t *testing.T) {
	const canary = "c4n4ry"
	for _, c := range []struct {
		name  string
		files map[string]string
		roles []string
		want  map[string]string // key: value and the end of where it came from
		note  string
		err   string
	}{
		{name: "a whole site", roles: allRoles, files: map[string]string{
			"config.json":                     `{"WAKARI_SERVER": "http://old.example/", "CDN": "http://old.example/static/"}`,
			"wk-server-config.json":           `{"WAKARI_SERVER": "http://aen.example", "ANON_USER": "visitor"}`,
			"wk-gateway-config.json":          "{\"CDN\": \"http://aen.example/static/\",\n \"SUBDOMAIN_ROUTING\": false, \"client_id\": \"i\", \"client_secret\": \"" + canary + "\",\n \"WAKARI_SERVER\": \"http://aen.example\", \"port\": 8099}",
			"wk-compute-launcher-config.json": `{"ANON_USER": "visitor", "projectRoot": "/old/projects", "MANAGE_ACCOUNTS": false}`,
		}, want: map[string]string{
			"portal":            `"http://aen.example" wk-gateway-config.json:3`,
			"listen.gateway":    `"127.0.0.1:8099" wk-gateway-config.json:3`,
			"dirs.projects":     `"/old/projects" wk-compute-launcher-config.json:1`,
			"manage_accounts":   `false wk-compute-launcher-config.json:1`,
			"anonymous_account": `"visitor" wk-compute-launcher-config.json:1`,
			"anonymous":         `"disabled" default`,
		}, note: `"CDN" is not needed`},
		{name: "ours win", roles: allRoles, files: map[string]string{
			"config.json": `{"WAKARI_SERVER": "http://old.example"}`, "quire.conf": `{"portal": "http://new.example", "listen": {"gateway": "10.0.0.1:1"}}`,
			"wk-gateway-config.json": `{"port": "8099"}`, "wk-server-config.json": `{"accounts": "wk_server.plugins.accounts.local"}`,
		}, want: map[string]string{"portal": `"http://new.example" quire.conf:1`, "listen.gateway": `"10.0.0.1:8099" wk-gateway-config.json:1`}, note: "local accounts"},
		{name: "of another role", roles: []string{"server"}, files: map[string]string{"wk-gateway-config.json": `{"port": 1}`},
			want: map[string]string{"listen.gateway": `"" default`}},
		{name: "nobody", roles: allRoles, files: map[string]string{"quire.conf": `{"anonymous": "read-public"}`, "wk-server-config.json": `{"ANON_USER": "disabled"}`},
			want: map[string]string{"anonymous": `"disabled" wk-server-config.json:1`, "anonymous_account": `"quire-visitor" default`}},
		{name: "the secret is told to go", roles: allRoles, files: map[string]string{"wk-gateway-config.json": `{"client_secret": "` + canary + `"}`}, note: "take the secret out"},
		{name: "directory", roles: allRoles, files: map[string]string{"wk-server-config.json": `{"LDAP": {"BIND_AUTH": "` + canary + `"}}`}, err: `wk-server-config.json:1: "LDAP" is not supported yet`},
		{name: "its plugin", roles: allRoles, files: map[string]string{"wk-server-config.json": "{\n\"accounts\": \"wk_server.plugins.accounts.ldap2\"}"}, err: `wk-server-config.json:2: "accounts" asks for the plugin ldap2, which is not supported yet`},
		{name: "pam", roles: allRoles, files: map[string]string{"config.json": `{"accounts": "wk_server.plugins.accounts.pam"}`}, err: "plugin pam, which is not supported yet"},
		{name: "another plugin", roles: allRoles, files: map[string]string{"config.json": `{"accounts": "my.own"}`}, err: `"accounts" asks for a plugin that Quire does not know`},
		{name: "unknown", roles: allRoles, files: map[string]string{"config.json": `{"ANONUSER": "x"}`}, err: `config.json:1: "ANONUSER" is not a setting; the nearest is "ANON_USER"`},
		{name: "ours in theirs", roles: allRoles, files: map[string]string{"config.json": `{"python": "/x"}`}, err: `"python" is a key of Quire's and belongs into quire.conf`},
		{name: "theirs in ours", roles: allRoles, files: map[string]string{"quire.conf": `{"projectRoot": "/x"}`}, err: `"projectRoot" is not a setting; the nearest is`},
		{name: "in the wrong one", roles: allRoles, files: map[string]string{"wk-server-config.json": `{"port": 1}`}, err: `"port" means nothing in wk-server-config.json`},
		{name: "twice", roles: allRoles, files: map[string]string{"config.json": `{"CDN": 1, "CDN": 2}`}, err: `"CDN" is there twice`},
		{name: "no port", roles: allRoles, files: map[string]string{"wk-gateway-config.json": `{"port": 70000}`}, err: `"port" is a number from 1 to 65535`},
		{name: "no text", roles: allRoles, files: map[string]string{"config.json": `{"WAKARI_SERVER": null}`}, err: `"WAKARI_SERVER" is text`},
		{name: "no truth", roles: allRoles, files: map[string]string{"config.json": `{"MANAGE_ACCOUNTS": "yes"}`}, err: `"MANAGE_ACCOUNTS" is true or false`},
		{name: "the two disagree", roles: allRoles, files: map[string]string{"wk-server-config.json": `{"ANON_USER": "a"}`, "wk-compute-launcher-config.json": `{"ANON_USER": "b"}`}, err: "anonymous_account is not what"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := place(t, c.files)
			f, err := layers{root: true, roles: c.roles, env: []string{"QUIRE_DIRS_SITE=" + dir}}.load()
			if err != nil && strings.Contains(err.Error(), canary) {
				t.Errorf("the error shows a secret: %v", err)
			}
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("got the error %v, want %s", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			for key, want := range c.want {
				value, from, _ := strings.Cut(want, " ")
				b, err := json.Marshal(f.field(key).Interface())
				if err != nil || string(b) != value || !strings.HasSuffix(firstOf(f.from[key], "default"), from) {
					t.Errorf("%s = %s from %s, want %s", key, b, f.from[key], want)
				}
			}
			out, err := f.print(false)
			if err != nil || strings.Contains(string(out), canary) || !strings.Contains(string(out), c.note) {
				t.Errorf("%v %s", err, out)
			}
		})
	}
}
