package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"
)

// configCmd shows settings and changes none.
type configCmd struct {
	Show  configShowCmd  `cmd:"" default:"withargs" help:"Print every setting that is in force and where it comes from (the default)."`
	Check configCheckCmd `cmd:"" help:"Read one file over the defaults and say what is wrong with it."`
}

// layerFlags are the flags of commands that say themselves what is in force.
type layerFlags struct {
	Config string   `short:"c" placeholder:"FILE" help:"Configuration file, read over those of the site."`
	Here   bool     `help:"Read quire.conf and the roles' files in the working directory too."`
	Set    []string `sep:"none" placeholder:"KEY=VALUE" help:"Set one key of the configuration, as in --set session.memory_mb=4096."`
}

func (f layerFlags) load(roles []string) (inForce, error) {
	return layers{root: os.Geteuid() == 0, roles: roles, here: f.Here, file: f.Config, env: os.Environ(), set: f.Set}.load()
}

type configShowCmd struct {
	layerFlags
	Role string `enum:"all,server,gateway,compute" default:"all" help:"What a machine with only this role would have: server, gateway or compute."`
	JSON bool   `name:"json" help:"Print JSON."`
}

func (s configShowCmd) Run() error {
	roles := allRoles
	if s.Role != "all" {
		roles = []string{s.Role}
	}
	f, err := s.load(roles)
	if err != nil {
		return err
	}
	out, err := f.print(s.JSON)
	os.Stdout.Write(out)
	return err
}

type configCheckCmd struct {
	File string `arg:"" help:"The file to read."`
}

func (c configCheckCmd) Run() error {
	b, err := os.ReadFile(c.File)
	if err != nil {
		return err
	}
	f, err := checkText(c.File, b)
	if err != nil {
		return err
	}
	if _, err := readTrusted(c.File, os.Geteuid() == 0); err != nil {
		f.notes = append(f.notes, "Where it is now it would not be read: "+err.Error()+".")
	}
	fmt.Printf("%s is right.\n", c.File)
	for _, n := range f.notes {
		fmt.Println(n)
	}
	return nil
}

// checkText reads one file alone over the defaults.
func checkText(file string, b []byte) (inForce, error) {
	f := inForce{Config: defaults(os.Geteuid() == 0), from: map[string]string{}}
	one, err := parseConfig(file, b)
	if err != nil {
		return f, err
	}
	return f, errors.Join(f.apply([]layer{one}), f.check())
}

// shown is one line of what is in force.
type shown struct {
	Key    string          `json:"key"`
	Value  json.RawMessage `json:"value,omitempty"` // not of a secret
	Secret bool            `json:"secret,omitempty"`
	From   string          `json:"from"`
}

// print writes what is in force, without any secret.
func (f inForce) print(asJSON bool) ([]byte, error) {
	var lines []shown
	for _, k := range allKeys() {
		field := f.field(k.name)
		line := shown{Key: k.name, From: firstOf(f.from[k.name], "default"), Secret: k.secret && !field.IsZero()}
		if !line.Secret {
			b, err := json.Marshal(field.Interface())
			if err != nil {
				return nil, err
			}
			var plain any
			d := json.NewDecoder(bytes.NewReader(b))
			d.UseNumber()
			if err := d.Decode(&plain); err != nil {
				return nil, err
			}
			if plain = hideSecrets(plain); plain == nil {
				plain = []any{} // a list that nobody set
			}
			if line.Value, err = encode(plain); err != nil {
				return nil, err
			}
		}
		lines = append(lines, line)
	}
	if asJSON {
		b, err := json.MarshalIndent(map[string]any{"settings": lines, "notes": append([]string{}, f.notes...)}, "", "  ")
		return append(b, '\n'), err
	}
	var out bytes.Buffer
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	for _, l := range lines {
		if l.Secret {
			l.Value = json.RawMessage("(set, not shown)")
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", l.Key, l.Value, l.From)
	}
	if err := w.Flush(); err != nil {
		return nil, err
	}
	for _, n := range f.notes {
		fmt.Fprintf(&out, "\n%s\n", n)
	}
	return out.Bytes(), nil
}

func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false) // it is for people to read
	err := e.Encode(v)
	return bytes.TrimSpace(b.Bytes()), err
}

var secretWord = []string{"password", "passwd", "passphrase", "secret", "token", "credential", "bind_auth", "private_key"}

// secretName says that a key's name is that of a secret, whether or not its
// author marked it. The place of one is none.
func secretName(name string) bool {
	name = strings.ToLower(name)
	if strings.HasSuffix(name, "_file") || strings.HasSuffix(name, "_minutes") || strings.HasSuffix(name, "_days") {
		return false
	}
	return slices.ContainsFunc(secretWord, func(w string) bool { return strings.Contains(name, w) })
}

// inText finds a password in a line that connects to a database.
var inText = regexp.MustCompile(`(?i)\b(password|passwd|secret|token)\s*=\s*('(?:[^'\\]|\\.)*'|[^\s&;]+)`)

// hideSecrets takes passwords out of addresses and of what is nested in a value.
func hideSecrets(v any) any {
	switch v := v.(type) {
	case string:
		if u, err := url.Parse(v); err == nil && u.User != nil {
			if _, has := u.User.Password(); has {
				u.User = url.UserPassword(u.User.Username(), "hidden")
				v = u.String()
			}
		}
		return inText.ReplaceAllString(v, "$1=hidden")
	case []any:
		for i := range v {
			v[i] = hideSecrets(v[i])
		}
	case map[string]any:
		for k := range v {
			if v[k] = hideSecrets(v[k]); secretName(k) {
				v[k] = "hidden"
			}
		}
	}
	return v
}
