package main

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"quire/compute/remote"
	"quire/ticket"
)

// keysCmd takes the keys of an installation to a second machine: a server or a
// worker there signs with the same key and vouches for the same peers. Its own
// key it makes itself.
type keysCmd struct {
	Save keysSaveCmd `cmd:"" help:"Write the keys of this machine's server into a file. Whoever has the file can be the installation."`
	Load keysLoadCmd `cmd:"" help:"Take the keys from such a file, on a machine that has none yet."`
}

type keysSaveCmd struct {
	Config string `short:"c" placeholder:"FILE" help:"Configuration file."`
	File   string `arg:"" help:"The file to write; it must not exist."`
}

type keysLoadCmd struct {
	Config string `short:"c" placeholder:"FILE" help:"Configuration file."`
	File   string `arg:"" help:"The file to read."`
}

// ofInstallation reports whether a file of the server's directory is the
// installation's and not the machine's.
func ofInstallation(name string) bool {
	return name == "order.key" || strings.HasPrefix(name, "ca") && (strings.HasSuffix(name, ".key") || strings.HasSuffix(name, ".crt"))
}

const maxKeyFile = 64 << 10

// Run writes a tar that only its owner can read.
func (k keysSaveCmd) Run() (err error) {
	c, err := loadConfig(k.Config, os.Geteuid() == 0)
	if err != nil {
		return err
	}
	dir := filepath.Join(c.Dirs.Data, "server")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("this machine has no keys of a server: %w", err)
	}
	out, err := os.OpenFile(k.File, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	w := tar.NewWriter(out)
	for _, e := range entries {
		if !ofInstallation(e.Name()) || !e.Type().IsRegular() {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return err
		}
		if err := w.WriteHeader(&tar.Header{Name: e.Name(), Mode: 0o600, Size: int64(len(b))}); err != nil {
			return err
		}
		if _, err := w.Write(b); err != nil {
			return err
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	fmt.Printf("The keys are in %s. Take it to the other machine over a way that nobody reads, load it there, and remove it on both.\n", k.File)
	return nil
}

// Run takes the keys; "quire up" gives them to the server's account.
func (k keysLoadCmd) Run() error {
	c, err := loadConfig(k.Config, os.Geteuid() == 0)
	if err != nil {
		return err
	}
	if !c.trusted() {
		return errors.New(`the keys are for machines with the role "server" or "worker": write that into the configuration first`)
	}
	in, err := os.Open(k.File)
	if err != nil {
		return err
	}
	defer in.Close()
	if err := makeDir(c.Dirs.Data, 0o755); err != nil {
		return err
	}
	dir := filepath.Join(c.Dirs.Data, "server")
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is there already: a server that was started has keys of its own. If nothing was done with it, remove the directory first", dir)
	}
	fresh, err := os.MkdirTemp(c.Dirs.Data, "keys-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(fresh)
	if err := unpackKeys(in, fresh); err != nil {
		return fmt.Errorf("%s: %w", k.File, err)
	}
	if err := os.Rename(fresh, dir); err != nil {
		return err
	}
	fmt.Println("The keys are in place. Start Quire; the server or worker here refuses to run if they are not those of its database.")
	return nil
}

// unpackKeys takes what Save wrote, and nothing but a whole set.
func unpackKeys(in io.Reader, dir string) error {
	var have []string
	for r := tar.NewReader(in); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if h.Typeflag != tar.TypeReg || h.Name != filepath.Base(h.Name) || !ofInstallation(h.Name) || h.Size > maxKeyFile || slices.Contains(have, h.Name) {
			return fmt.Errorf("%q does not belong into it", h.Name)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		if err := writeFile(filepath.Join(dir, h.Name), b, 0o600); err != nil {
			return err
		}
		have = append(have, h.Name)
	}
	if _, err := ticket.LoadSigner(filepath.Join(dir, "order.key")); err != nil {
		return err
	}
	_, err := remote.LoadAuthority(dir)
	return err
}
