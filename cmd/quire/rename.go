package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tailscale/hujson"

	"quire"
)

type serverCmd struct {
	Run        roleCmd       `cmd:"" default:"withargs" hidden:"" help:"Run the server role (started by 'quire up')."`
	Keys       keysCmd       `cmd:"" help:"Take the keys of the installation to the machine of a further server or worker."`
	RenameHost renameHostCmd `cmd:"" help:"Give the portal another address; gateways follow, the old name leads to the new one."`
}

type renameHostCmd struct {
	Config string `short:"c" placeholder:"FILE" help:"Configuration file."`
	URL    string `arg:"" placeholder:"URL" help:"The new address, as in https://quire.example.org."`
}

// Run writes the address into the configuration, where everything else stays as
// it is, and restarts what runs.
func (r renameHostCmd) Run(ctx context.Context) error {
	c, err := loadConfig(r.Config, os.Geteuid() == 0)
	if err != nil {
		return err
	}
	if !c.has("server") {
		return errors.New("the portal's address is changed on the server's machine")
	}
	file := firstOf(r.Config, configFile(c))
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		text, err = []byte(sampleConfig), nil
	}
	if err != nil {
		return err
	}
	next := c
	next.Portal = strings.TrimSuffix(r.URL, "/")
	if _, err := quire.NewOrigins(next.origins(0, 0)); err != nil {
		return err
	}
	if old, err := url.Parse(c.Portal); err == nil && old.Hostname() != "" && !slices.Contains(next.Hosts, old.Hostname()) {
		next.Hosts = append(slices.Clone(next.Hosts), old.Hostname())
	}
	if text, err = patched(text, next); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	if _, err := checkText(file, text); err != nil {
		return err
	}
	if err := writeFile(file, text, 0o644); err != nil {
		return err
	}
	fmt.Printf("%s says now: portal %s, other names %s.\n", file, next.Portal, strings.Join(next.Hosts, ", "))
	return r.apply(ctx, c)
}

// patched sets two keys of a configuration and leaves the rest, comments too.
func patched(text []byte, c Config) ([]byte, error) {
	v, err := hujson.Parse(text)
	if err != nil {
		return nil, err
	}
	portal, err1 := json.Marshal(c.Portal)
	hosts, err2 := json.Marshal(c.Hosts)
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	if err := v.Patch(fmt.Appendf(nil, `[{"op":"add","path":"/portal","value":%s},{"op":"add","path":"/hosts","value":%s}]`, portal, hosts)); err != nil {
		return nil, err
	}
	v.Format()
	return v.Pack(), nil
}

// apply tells the roles that run here.
func (r renameHostCmd) apply(ctx context.Context, old Config) error {
	up := &adminClient{socket: filepath.Join(old.Dirs.Run, "up.sock")}
	if err := up.call(ctx, "GET", "/roles", nil, nil); err != nil {
		fmt.Println("It counts from the next start on.")
		return nil
	}
	for _, role := range []string{"gateway", "worker", "server"} {
		if old.has(role) {
			if err := up.call(ctx, "POST", "/roles/"+role+"/restart", nil, nil); err != nil {
				return err
			}
		}
	}
	fmt.Println("The server runs under it. Gateways follow by themselves.")
	return nil
}
