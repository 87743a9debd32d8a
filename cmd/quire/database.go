package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"text/tabwriter"

	"quire/store"
)

type databaseCmd struct {
	Move databaseMoveCmd `cmd:"" help:"Copy everything into another, empty database and compare what arrived. The server must be stopped; the old database stays."`
}

type databaseMoveCmd struct {
	Config       string `short:"c" placeholder:"FILE" help:"Configuration file."`
	To           string `required:"" placeholder:"ADDRESS" help:"A postgres:// URL without a password, or the path of a new SQLite file."`
	PasswordFile string `placeholder:"FILE" help:"Where the password of --to is, readable by the server's account; the configuration's otherwise."`
}

// Run copies as the server's account: whose files stay whose they are.
func (m databaseMoveCmd) Run(ctx context.Context) error {
	c, err := loadConfig(m.Config, os.Geteuid() == 0)
	if err != nil {
		return err
	}
	if !c.has("server") {
		return errors.New("the database belongs to the server's machine")
	}
	for _, role := range []string{"server", "worker"} {
		if s := c.roleIs(role); s == "running" || s == "waiting" {
			return fmt.Errorf(`the %s runs: "quire stop %[1]s" first; people's work goes on`, role)
		}
	}
	if os.Geteuid() == 0 {
		return m.asServer(ctx, c)
	}
	from, err := c.database()
	if err != nil {
		return err
	}
	to := Config{Database: m.To, DatabasePasswordFile: firstOf(m.PasswordFile, c.DatabasePasswordFile), Dirs: c.Dirs}
	address, err := to.database()
	if err != nil {
		return err
	}
	if from == address {
		return errors.New("the database is there already")
	}
	moved, err := store.Move(ctx, from, address)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	for _, t := range moved {
		fmt.Fprintf(w, "%d\t  %s\n", t.Rows, t.Table)
	}
	w.Flush()
	fmt.Printf("All of it arrived as it was. Now write into the configuration:\n  \"database\": %q\nand start the server. The old database stays where it is; nothing writes to it any more.\n", m.To)
	return nil
}

func (m databaseMoveCmd) asServer(ctx context.Context, c Config) error {
	a, err := lookUp(c.serviceAccount("server"))
	if err != nil {
		return fmt.Errorf("the account %s: %w", c.serviceAccount("server"), err)
	}
	self, err := reachableBinary(c.Dirs.Data, true)
	if err != nil {
		return err
	}
	args := []string{"database", "move", "--to", m.To}
	if m.Config != "" {
		args = append(args, "-c", m.Config)
	}
	if file := firstOf(m.PasswordFile, c.DatabasePasswordFile); file != "" {
		args = append(args, "--password-file", file)
	}
	cmd := exec.CommandContext(ctx, self, args...)
	cmd.Dir = "/"
	// Without root the places of an installation are others: these are ours.
	cmd.Env = append(os.Environ(), "QUIRE_DIRS_DATA="+c.Dirs.Data, "QUIRE_DIRS_RUN="+c.Dirs.Run, "QUIRE_DIRS_SITE="+c.Dirs.Site, "QUIRE_DIRS_LOGS="+c.Dirs.Logs, "QUIRE_DIRS_PROJECTS="+c.Dirs.Projects)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: a.UID, Gid: a.GID}}
	if err := cmd.Run(); err != nil {
		return errors.New("nothing was moved")
	}
	return nil
}

// database is the address of the server's database, with its password.
func (c Config) database() (string, error) {
	if !store.IsPostgres(c.Database) {
		return firstOf(c.Database, filepath.Join(c.Dirs.Data, "server", "quire.db")), nil
	}
	u, err := url.Parse(c.Database)
	if err != nil || c.DatabasePasswordFile == "" {
		return c.Database, err
	}
	b, err := os.ReadFile(c.DatabasePasswordFile)
	if err != nil {
		return "", err
	}
	u.User = url.UserPassword(u.User.Username(), strings.TrimRight(string(b), "\r\n"))
	return u.String(), nil
}

// checkDatabase refuses what would be read by others.
func (c Config) checkDatabase() error {
	if !store.IsPostgres(c.Database) {
		if c.Database != "" && !filepath.IsAbs(c.Database) {
			return errors.New("database is a postgres:// URL or the absolute path of a SQLite file")
		}
		return nil
	}
	u, err := url.Parse(c.Database)
	if err != nil {
		return errors.New("database is no address like postgres://USER@HOST/NAME")
	}
	if _, has := u.User.Password(); has || u.Query().Has("password") {
		return errors.New("a password in database could be read by others: put it into a file that only the server's account can read, and name that in database_password_file")
	}
	return nil
}
