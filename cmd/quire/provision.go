package main

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"quire"
	"quire/compute/remote"
	"quire/ticket"
)

// people are the accounts an installation runs under. In single-account mode
// all of them are the one who typed the command.
type people struct {
	separate                 bool
	server, gateway, compute account
}

// findPeople chooses, once, how accounts are separated: as root every role gets
// its own, otherwise all are one.
func findPeople(c Config, root bool) (people, error) {
	if !root {
		me := account{Name: "", UID: uint32(os.Getuid()), GID: uint32(os.Getgid())}
		return people{server: me, gateway: me, compute: me}, nil
	}
	p := people{separate: true}
	for _, want := range []struct {
		role string
		into *account
	}{{"server", &p.server}, {"gateway", &p.gateway}, {"compute", &p.compute}} {
		if !c.has(want.role) && (want.role != "server" || !c.trusted()) {
			continue
		}
		a, err := ensureAccount(c.serviceAccount(want.role))
		if err != nil {
			return p, err
		}
		*want.into = a
	}
	return p, nil
}

// provision makes the directories, the keys and the internal certificates that
// are missing. The roles' directories belong to root until everything in them
// is right, so nobody can put a link in our way.
func provision(c Config, p people) (*Local, error) {
	data := c.Dirs.Data
	for _, d := range []struct {
		path string
		mode fs.FileMode
	}{
		{data, 0o755}, {c.Dirs.Run, 0o755}, {c.Dirs.Run + "/s", 0o711}, {c.Dirs.Logs, 0o755}, {c.Dirs.Site, 0o755},
		{c.Dirs.Site + "/apps", 0o755}, {c.Dirs.Projects, 0o711},
	} {
		if err := makeDir(d.path, d.mode); err != nil {
			return nil, err
		}
	}
	if err := writeOnce(configFile(c), 0o644, func() ([]byte, error) { return []byte(sampleConfig), nil }); err != nil {
		return nil, err
	}
	dir := func(role string) string { return filepath.Join(data, role) }
	for _, role := range c.homes() {
		if err := os.Mkdir(dir(role), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
	}
	if err := keys(c, dir); err != nil {
		return nil, err
	}
	for role, a := range map[string]account{"server": p.server, "gateway": p.gateway, "compute": p.compute} {
		if !slices.Contains(c.homes(), role) {
			continue
		}
		if err := give(dir(role), a); err != nil {
			return nil, err
		}
	}
	local := &Local{
		Separate: p.separate, ServerUID: p.server.UID, GatewayUID: p.gateway.UID, ComputeUID: p.compute.UID, ComputeGID: p.compute.GID,
		UID: p.server.UID, Supervisor: os.Getpid(),
	}
	if err := identities(c, dir, local); err != nil {
		return nil, err
	}
	var err error
	local.Self, err = reachableBinary(data, p.separate)
	return local, err
}

// homes are the directories of this machine's processes below dirs.data: compute
// comes with the spawner, and a worker shares the server's.
func (c Config) homes() []string {
	var homes []string
	for _, role := range c.Roles {
		if role == "worker" {
			role = "server"
		}
		if !slices.Contains(homes, role) {
			homes = append(homes, role)
		}
	}
	if c.has("compute") {
		homes = append(homes, "spawner")
	}
	return homes
}

// keys makes what is missing. On the server's machine that is the order key, the
// internal authority, and an identity for each role there; on any other a role
// gets its identity when it joins. The first start is the only time root writes
// here.
func keys(c Config, dir func(string) string) error {
	if c.has("gateway") {
		cookie := make([]byte, 32)
		rand.Read(cookie)
		if err := writeOnce(filepath.Join(dir("gateway"), "cookie.key"), 0o600, func() ([]byte, error) { return cookie, nil }); err != nil {
			return err
		}
	}
	if !c.trusted() {
		return nil
	}
	if _, err := os.Lstat(filepath.Join(dir("server"), "order.key")); errors.Is(err, fs.ErrNotExist) && !c.has("server") {
		return errors.New(`the worker has not got the keys of the installation: bring them from its server with "quire server keys" (docs/admin/machines.md)`)
	}
	var signer *ticket.Signer
	var authority *remote.Authority
	for _, role := range c.homes() {
		if role != "server" && !c.has("server") {
			continue // beside a worker they join as anywhere
		}
		last := "order.pub" // of what is written
		if role == "server" {
			last = "node.crt"
		}
		if _, err := os.Lstat(filepath.Join(dir(role), last)); err == nil {
			continue
		}
		if signer == nil {
			var err error
			if signer, authority, err = secrets(dir("server")); err != nil {
				return err
			}
		}
		if role != "spawner" {
			if err := remote.NewIdentity(authority, role, quire.NewNodeID(), dir(role)); err != nil {
				return fmt.Errorf("the %s's identity: %w", role, err)
			}
		}
		if role != "server" {
			if err := writeFile(filepath.Join(dir(role), "order.pub"), signer.Public(), 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}

// secrets loads the order key and the internal authority, or makes them.
func secrets(dir string) (*ticket.Signer, *remote.Authority, error) {
	file := filepath.Join(dir, "order.key")
	signer, err := ticket.LoadSigner(file)
	if errors.Is(err, fs.ErrNotExist) {
		signer = ticket.NewSigner()
		err = writeFile(file, signer.Seed(), 0o600)
	}
	if err != nil {
		return nil, nil, err
	}
	authority, err := remote.LoadAuthority(dir)
	if errors.Is(err, fs.ErrNotExist) {
		if authority, err = remote.NewAuthority(string(quire.NewOrderID()[2:])); err == nil {
			err = authority.Save(dir)
		}
	}
	if err != nil {
		return nil, nil, fmt.Errorf("the internal certificate authority: %w", err)
	}
	return signer, authority, nil
}

// identities reads which node is which. A role without an identity has not
// joined yet and stays empty.
func identities(c Config, dir func(string) string, l *Local) error {
	for _, r := range []struct {
		role string
		into *quire.NodeID
	}{{"gateway", &l.Gateway}, {"compute", &l.Node}} {
		if !c.has(r.role) {
			continue
		}
		id, err := remote.LoadIdentity(dir(r.role))
		if errors.Is(err, fs.ErrNotExist) && !c.has("server") {
			continue
		}
		if err != nil {
			return err
		}
		*r.into = id.Node
	}
	if c.has("server") && l.Gateway != "" {
		l.DataCenter = quire.DataCenterID("d" + string(l.Gateway[1:])) // the local data center is its gateway
	}
	return nil
}

// give hands a role's directory and the plain files in it to the role. The
// directory goes last: until then nobody but us can change what is in it.
func give(dir string, a account) error {
	if int(a.UID) == os.Getuid() {
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	info, err := d.Stat()
	if err != nil {
		return err
	}
	if info.Sys().(*syscall.Stat_t).Uid == a.UID {
		return nil // given at an earlier start
	}
	names, err := d.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_RDONLY|syscall.O_NOFOLLOW, 0)
		if err != nil {
			return err
		}
		err = errors.Join(f.Chown(int(a.UID), int(a.GID)), f.Close())
		if err != nil {
			return err
		}
	}
	return d.Chown(int(a.UID), int(a.GID))
}

func makeDir(path string, mode fs.FileMode) error {
	if err := os.MkdirAll(path, mode); err != nil {
		return err
	}
	return os.Chmod(path, mode) // whatever the umask was
}

func writeFile(file string, b []byte, mode fs.FileMode) error {
	tmp := file + ".new"
	if err := os.WriteFile(tmp, b, mode); err != nil {
		return err
	}
	if err := os.Chmod(tmp, mode); err != nil {
		return err
	}
	return os.Rename(tmp, file)
}

func writeOnce(file string, mode fs.FileMode, content func() ([]byte, error)) error {
	if _, err := os.Lstat(file); err == nil {
		return nil
	}
	b, err := content()
	if err != nil {
		return err
	}
	return writeFile(file, b, mode)
}

// reachableBinary is the path under which every account can run this program.
// Where accounts are separate it is always a copy of root's: the place it was
// built in may be closed to others, hidden from sessions (which have a /tmp of
// their own), or writable by somebody who is not root.
func reachableBinary(data string, separate bool) (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	if self, err = filepath.EvalSymlinks(self); err != nil || !separate {
		return self, err
	}
	copyTo := filepath.Join(data, "bin", "quire")
	if err := makeDir(filepath.Dir(copyTo), 0o755); err != nil {
		return "", err
	}
	same, err := sameContent(self, copyTo)
	if err != nil || same {
		return copyTo, err
	}
	in, err := os.Open(self)
	if err != nil {
		return "", err
	}
	defer in.Close()
	// A new file beside the old one: running sessions keep the old inode.
	out, err := os.CreateTemp(filepath.Dir(copyTo), "quire-*")
	if err != nil {
		return "", err
	}
	_, err = io.Copy(out, in)
	if err := errors.Join(err, out.Chmod(0o755), out.Close()); err != nil {
		return "", err
	}
	return copyTo, os.Rename(out.Name(), copyTo)
}

func sameContent(a, b string) (bool, error) {
	x, err := os.Stat(a)
	if err != nil {
		return false, err
	}
	y, err := os.Stat(b)
	if errors.Is(err, fs.ErrNotExist) || err == nil && x.Size() != y.Size() {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	ab, err := os.ReadFile(a)
	if err != nil {
		return false, err
	}
	bb, err := os.ReadFile(b)
	return bytes.Equal(ab, bb), err
}
