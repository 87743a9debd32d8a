package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// decodeConfig reads one file alone over c.
func decodeConfig(b []byte, c *Config) error {
	one, err := parseConfig("quire.conf", b)
	if err != nil {
		return err
	}
	f := inForce{Config: *c, from: map[string]string{}}
	if err := f.apply([]layer{one}); err != nil {
		return err
	}
	*c = f.Config
	return f.check()
}

// place writes files below a directory of the test's own.
func place(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []string{dir, filepath.Dir(dir)} { // whatever the umask
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestLayers(t *testing.T) {
	site := map[string]string{"quire.conf": "// ours\n{\n  \"grace_minutes\": 1,\n}\n"}
	with := func(more ...string) map[string]string {
		all := map[string]string{"quire.conf": site["quire.conf"]}
		for i := 0; i < len(more); i += 2 {
			all[more[i]] = more[i+1]
		}
		return all
	}
	server := []string{"server"}
	for _, c := range []struct {
		name  string
		files map[string]string // SITE/…; here/… is the working directory
		l     layers
		key   string
		want  string // its value as JSON
		from  string // the end of where it came from
		err   string // or what is wrong, in words; then want and from are empty
	}{
		{name: "default", files: nil, key: "grace_minutes", want: "60", from: "default"},
		{name: "site", files: site, key: "grace_minutes", want: "1", from: "/quire.conf:3"},
		{name: "role", files: with("server.conf", `{"grace_minutes": 2}`), l: layers{roles: server}, key: "grace_minutes", want: "2", from: "/server.conf:1"},
		{name: "another role's", files: with("gateway.conf", `{"grace_minutes": 2}`), l: layers{roles: server}, key: "grace_minutes", want: "1", from: "/quire.conf:3"},
		{name: "every role's", files: with("gateway.conf", `{"grace_minutes": 2}`), l: layers{roles: allRoles}, key: "grace_minutes", want: "2", from: "/gateway.conf:1"},
		{name: "roles agree", files: with("gateway.conf", `{"grace_minutes": 2}`, "server.conf", `{"grace_minutes": 2}`), l: layers{roles: allRoles}, key: "grace_minutes", want: "2", from: "/gateway.conf:1"},
		{name: "roles disagree", files: with("gateway.conf", `{"grace_minutes": 3}`, "server.conf", `{"grace_minutes": 2}`), l: layers{roles: allRoles}, err: "/gateway.conf:1: grace_minutes is not what SITE/server.conf:1 says"},
		{name: "working directory unasked", files: with("here/quire.conf", `{"grace_minutes": 4}`), key: "grace_minutes", want: "1", from: "/quire.conf:3"},
		{name: "working directory", files: with("server.conf", `{"grace_minutes": 2}`, "here/quire.conf", `{"grace_minutes": 4}`), l: layers{here: true, roles: server}, key: "grace_minutes", want: "4", from: "quire.conf:1"},
		{name: "working directory's role", files: with("here/quire.conf", `{"grace_minutes": 4}`, "here/server.conf", `{"grace_minutes": 5}`), l: layers{here: true, roles: server}, key: "grace_minutes", want: "5", from: "server.conf:1"},
		{name: "-c", files: with("here/quire.conf", `{"grace_minutes": 4}`, "c", `{"grace_minutes": 6}`), l: layers{here: true, file: "SITE/c"}, key: "grace_minutes", want: "6", from: "/c:1"},
		{name: "variable", files: with("c", `{"grace_minutes": 6}`), l: layers{file: "SITE/c", env: []string{"QUIRE_GRACE_MINUTES=7"}}, key: "grace_minutes", want: "7", from: "environment variable QUIRE_GRACE_MINUTES"},
		{name: "flag", l: layers{env: []string{"QUIRE_GRACE_MINUTES=7"}, set: []string{"grace_minutes=8"}}, key: "grace_minutes", want: "8", from: "--set grace_minutes"},
		{name: "only the last is checked", files: map[string]string{"quire.conf": `{"grace_minutes": -1}`}, l: layers{set: []string{"grace_minutes=8"}}, key: "grace_minutes", want: "8", from: "--set grace_minutes"},
		{name: "a list replaces", files: map[string]string{"quire.conf": `{"hosts": ["a", "b"]}`, "c": `{"hosts": ["c"]}`}, l: layers{file: "SITE/c"}, key: "hosts", want: `["c"]`, from: "/c:1"},
		{name: "a list with commas", l: layers{env: []string{"QUIRE_HOSTS=a.example, b.example"}}, key: "hosts", want: `["a.example","b.example"]`, from: "environment variable QUIRE_HOSTS"},
		{name: "numbers", l: layers{env: []string{"QUIRE_UID_RANGE=[30000, 40000]"}}, key: "uid_range", want: `[30000,40000]`, from: "environment variable QUIRE_UID_RANGE"},
		{name: "sections merge", files: map[string]string{"quire.conf": `{"session": {"cpus": 2}}`, "compute.conf": `{"session": {"memory_mb": 3}}`}, l: layers{roles: allRoles}, key: "session.cpus", want: "2", from: "/quire.conf:1"},
		{name: "somebody else's variable", l: layers{env: []string{"QUIRE_SESSION=s1", "QUIRE_NAMESPACE=1", "QUIRE_PORT=tcp://10.0.0.1:80"}}, key: "portal", want: `""`, from: "default"},
		{name: "misspelt variable", l: layers{env: []string{"QUIRE_PROTAL=x"}}, err: "QUIRE_PROTAL is not a setting; the nearest is QUIRE_PORTAL"},
		{name: "variable of a section", l: layers{env: []string{"QUIRE_LISTEN_EVERYTHING=x"}}, err: "QUIRE_LISTEN_EVERYTHING is not a setting"},
		{name: "variable of no number", l: layers{env: []string{"QUIRE_GRACE_MINUTES=soon"}}, err: "environment variable QUIRE_GRACE_MINUTES: grace_minutes is a whole number"},
		{name: "misspelt key", files: map[string]string{"server.conf": "{\n \"listen\": {\"potal\": \"\"}}"}, l: layers{roles: server}, err: `SITE/server.conf:2: "listen.potal" is not a setting; the nearest is "listen.portal"`},
		{name: "section forgotten", files: map[string]string{"quire.conf": `{"memory_mb": 1}`}, err: `the nearest is "session.memory_mb"`},
		{name: "capital letters", files: map[string]string{"quire.conf": `{"Portal": ""}`}, err: `"Portal" is not a setting; the nearest is "portal"`},
		{name: "twice", files: map[string]string{"quire.conf": "{\"portal\": \"\",\n\"portal\": \"\"}"}, err: `quire.conf:2: "portal" is there twice`},
		{name: "wrong shape", files: map[string]string{"quire.conf": `{"portal": 1}`}, err: "quire.conf:1: portal is text in quotation marks"},
		{name: "no section", files: map[string]string{"quire.conf": `{"session": 1}`}, err: `"session" is an object in braces`},
		{name: "null", files: map[string]string{"quire.conf": `{"portal": null}`}, err: "portal is text"},
		{name: "no object", files: map[string]string{"quire.conf": `[]`}, err: "an object in braces"},
		{name: "more after it", files: map[string]string{"quire.conf": `{} {}`}, err: "quire.conf: hujson: line 1"},
		{name: "the supervisor's", files: map[string]string{"c": `{"local": {}}`}, l: layers{file: "SITE/c"}, err: `SITE/c:1: "local" is written by the supervisor`},
		{name: "checked together", files: map[string]string{"quire.conf": "{\n\"grace_minutes\": -1}"}, err: "SITE/quire.conf:2: grace_minutes is between"},
		{name: "site moves itself", files: map[string]string{"quire.conf": `{"dirs": {"site": "/elsewhere"}}`}, err: "was found in SITE and cannot move it"},
		{name: "misspelt flag", l: layers{set: []string{"portl=x"}}, err: `--set portl: "portl" is not a setting; the nearest is "portal"`},
		{name: "missing file", l: layers{file: "SITE/none"}, err: "no such file"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := place(t, c.files)
			if c.l.here {
				t.Chdir(filepath.Join(dir, "here"))
			}
			c.l.file = strings.Replace(c.l.file, "SITE", dir, 1)
			c.l.root = true // the stricter one about files
			c.l.env = append([]string{"PATH=/bin", "QUIRE_DIRS_SITE=" + dir}, c.l.env...)
			f, err := c.l.load()
			if c.err != "" {
				if want := strings.ReplaceAll(c.err, "SITE", dir); err == nil || !strings.Contains(err.Error(), want) {
					t.Fatalf("got the error %v, want %s", err, want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got, err := f.print(true)
			if err != nil {
				t.Fatal(err)
			}
			var out struct{ Settings []shown }
			if err := json.Unmarshal(got, &out); err != nil {
				t.Fatal(err)
			}
			for _, s := range out.Settings {
				var plain, want any
				json.Unmarshal(s.Value, &plain)
				json.Unmarshal([]byte(c.want), &want)
				if s.Key == c.key && (!reflect.DeepEqual(plain, want) || !strings.HasSuffix(s.From, c.from)) {
					t.Errorf("%s = %s from %s, want %s from %s", s.Key, s.Value, s.From, c.want, c.from)
				}
			}
			if lines, err := f.print(false); err != nil || !strings.Contains(string(lines), c.key) {
				t.Errorf("the plain form does not name %s: %v", c.key, err)
			}
		})
	}
}

// Whoever can write the configuration decides whose rights everything runs with.
func TestRefusesWhatOthersCanWrite(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(dir string) error
		here   bool
		err    string
	}{
		{name: "as it should be"},
		{name: "here, as it should be", here: true},
		{name: "others", change: func(d string) error { return os.Chmod(d+"/quire.conf", 0o646) }, err: "chmod go-w"},
		{name: "the group", change: func(d string) error { return os.Chmod(d+"/quire.conf", 0o664) }, err: "chmod go-w"},
		{name: "a directory above", change: func(d string) error { return os.Chmod(d, 0o777) }, err: "chmod go-w"},
		{name: "no plain file", change: func(d string) error {
			return errorsOf(os.Remove(d+"/quire.conf"), os.Mkdir(d+"/quire.conf", 0o700))
		}, err: "not a plain file"},
		{name: "a link to what others can write", change: func(d string) error {
			return errorsOf(os.Rename(d+"/quire.conf", d+"/real"), os.Chmod(d+"/real", 0o666), os.Symlink("real", d+"/quire.conf"))
		}, err: "chmod go-w"},
		{name: "here, the group", here: true, change: func(d string) error { return os.Chmod(d+"/quire.conf", 0o664) }, err: "chmod go-w"},
		{name: "here, a directory as /tmp", here: true, change: func(d string) error { return os.Chmod(d, 0o777|os.ModeSticky) }, err: "chmod go-w"},
		{name: "somebody's", change: func(d string) error { return os.Chown(d+"/quire.conf", 4242, -1) }, err: "belongs to account 4242"},
		{name: "somebody's directory", change: func(d string) error { return os.Chown(d, 4242, -1) }, err: "belongs to account 4242"},
		{name: "here, somebody's", here: true, change: func(d string) error { return os.Chown(d, 4242, -1) }, err: "belongs to account 4242"},
		{name: "somebody's link", change: func(d string) error {
			return errorsOf(os.Rename(d+"/quire.conf", d+"/real"), os.Symlink("real", d+"/quire.conf"), os.Lchown(d+"/quire.conf", 4242, -1))
		}, err: "belongs to account 4242"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if strings.Contains(c.err, "4242") && os.Geteuid() != 0 {
				if os.Getenv("CI") == "" {
					t.Skip("needs root")
				}
			}
			dir := place(t, map[string]string{"quire.conf": `{"grace_minutes": 3}`})
			if c.change != nil {
				if err := c.change(dir); err != nil {
					t.Fatal(err)
				}
			}
			l := layers{root: true, env: []string{"QUIRE_DIRS_SITE=" + dir}}
			if c.here {
				t.Chdir(dir)
				l = layers{here: true, env: []string{"QUIRE_DIRS_SITE=/nowhere"}}
			}
			f, err := l.load()
			if c.err == "" && (err != nil || f.GraceMinutes != 3) {
				t.Errorf("refused: %v", err)
			}
			if c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
				t.Errorf("got the error %v, want %q", err, c.err)
			}
		})
	}
}

func errorsOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// A role that the supervisor starts takes what it wrote and nothing beside it.
func TestRolesTakeTheSupervisorsFile(t *testing.T) {
	c := defaults(false)
	c.Local, c.GraceMinutes = &Local{Account: "ada"}, 17
	b, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	dir := place(t, map[string]string{"quire.json": string(b), "server.conf": `{"grace_minutes": 5}`})
	t.Setenv("QUIRE_DIRS_SITE", dir)
	t.Setenv("QUIRE_GRACE_MINUTES", "18")
	got, err := loadRole(filepath.Join(dir, "quire.json"), "server", false)
	if err != nil || !reflect.DeepEqual(got, c) {
		t.Errorf("%v: %+v, want %+v", err, got, c)
	}
}

// The sample shows every default as it is, and variables are told apart.
func TestKeys(t *testing.T) {
	c := defaults(true)
	text := strings.ReplaceAll(sampleConfig, "\n  // \"", "\n  \"")
	if text == sampleConfig {
		t.Fatal("the sample shows nothing")
	}
	if err := decodeConfig([]byte(text), &c); err != nil {
		t.Error(err)
	}
	names := map[string]string{}
	for _, k := range allKeys() {
		if was := names[envName(k.name)]; was != "" {
			t.Errorf("%s and %s are the same variable", was, k.name)
		}
		names[envName(k.name)] = k.name
	}
	if names["QUIRE_LISTEN_GATEWAY"] != "listen.gateway" || names["QUIRE_SESSION_MEMORY_MB"] != "session.memory_mb" {
		t.Errorf("%v", names)
	}
	if _, ok := keyNamed("local"); ok {
		t.Error("what the supervisor works out is a setting")
	}
}

// Whatever a value holds, a password is not printed.
func TestSecretsAreHidden(t *testing.T) {
	const canary = "c4n4ry"
	var in any
	text := fmt.Sprintf(`{"url": "postgres://quire:%[1]s@db/quire", "dsn": "host=db password=%[1]s user=q", "quoted": "password = '%[1]s x'",
		"list": [{"bind_password": "%[1]s", "client_secret": ["%[1]s"]}], "kept": "postgres://quire@db/quire", "password_file": "/etc/kept"}`, canary)
	if err := json.Unmarshal([]byte(text), &in); err != nil {
		t.Fatal(err)
	}
	out, err := encode(hideSecrets(in))
	if err != nil || strings.Contains(string(out), canary) || !strings.Contains(string(out), "postgres://quire@db/quire") || !strings.Contains(string(out), "/etc/kept") {
		t.Errorf("%v %s", err, out)
	}
	l := layers{env: []string{"QUIRE_DIRS_SITE=/nowhere"}, set: []string{"portal=http://ada:" + canary + "@h"}}
	f, err := l.load()
	if err != nil {
		t.Fatal(err)
	}
	for _, form := range []bool{false, true} {
		if out, err := f.print(form); err != nil || strings.Contains(string(out), canary) {
			t.Errorf("%v %s", err, out)
		}
	}
}

func FuzzConfig(f *testing.F) {
	f.Add("quire.conf", []byte(sampleConfig))
	f.Add("quire.conf", []byte(`{"dirs": {"run": "/run/q"}, "uid_range": [1, 2], /* x */ "hosts": ["a",],}`))
	f.Add("wk-gateway-config.json", []byte(`{"port": 8089, "WAKARI_SERVER": "http://a/", "client_secret": "x"}`))
	f.Add("config.json", []byte(`{"ANON_USER": "anon", "LDAP": {"URI": null}}`))
	f.Fuzz(func(t *testing.T, name string, b []byte) {
		one, err := parseConfig(name, b)
		if err != nil {
			return
		}
		all := inForce{Config: defaults(true), from: map[string]string{}}
		if all.apply([]layer{one}) != nil || all.check() != nil {
			return
		}
		// What was accepted is a configuration that the roles can be handed.
		written, err := json.Marshal(all.Config)
		if err != nil {
			t.Fatal(err)
		}
		var again Config
		if err := json.Unmarshal(written, &again); err != nil {
			t.Fatalf("%v: %s", err, written)
		}
		if err := again.check(); err != nil {
			t.Fatal(err)
		}
		if _, err := all.print(false); err != nil {
			t.Fatal(err)
		}
	})
}
