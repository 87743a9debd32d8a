package remote

import (
	"os"
	"path/filepath"
	"testing"
)

// A crash between any two files of a change leaves one that goes on or never
// was, and the server's identity always fits the authorities.
func TestRotationCrashes(t *testing.T) {
	make := func() (dir string, a *Authority) {
		dir = t.TempDir()
		a, err := NewAuthority("site")
		check(t, err)
		check(t, a.Save(dir))
		check(t, NewIdentity(a, RoleServer, "n_server", dir))
		id, err := LoadIdentity(dir)
		check(t, err)
		a.Follow(id)
		return dir, a
	}
	ids := func(dir string) []string {
		t.Helper()
		a, err := LoadAuthority(dir)
		check(t, err)
		if _, err := LoadIdentity(dir); err != nil {
			t.Errorf("the server's identity: %v", err)
		}
		_, ids := a.Trusted()
		return ids
	}
	// Before the second key is written.
	dir, a := make()
	_, first := a.Trusted()
	check(t, a.Rotate())
	_, both := a.Trusted()
	check(t, os.Remove(filepath.Join(dir, fileNextKey)))
	if got := ids(dir); len(got) != 1 || got[0] != first[0] {
		t.Errorf("half begun: %v of %v", got, both)
	}
	// In between.
	dir, a = make()
	check(t, a.Rotate())
	check(t, a.Rotate())
	_, both = a.Trusted()
	if got := ids(dir); len(got) != 2 || got[1] != both[1] {
		t.Errorf("begun: %v of %v", got, both)
	}
	// Between the two names that Finish changes.
	next, err := os.ReadFile(filepath.Join(dir, fileNextCert))
	check(t, err)
	old, err := os.ReadFile(filepath.Join(dir, fileAuthority))
	check(t, err)
	check(t, a.Finish())
	check(t, os.WriteFile(filepath.Join(dir, fileAuthority), old, 0o644))
	check(t, os.WriteFile(filepath.Join(dir, fileNextCert), next, 0o644))
	if got := ids(dir); len(got) != 1 || got[0] != both[1] {
		t.Errorf("half ended: %v of %v", got, both)
	}
	if a.own.Is().Issuer != both[1] {
		t.Error("the server's own certificate is of the old authority")
	}
}

// What is told about authorities is taken only as far as one stays somebody
// under it, and counts for the next connection (N-17).
func TestTrust(t *testing.T) {
	s := newSite(t, "site")
	check(t, s.ca.Save(t.TempDir()))
	node, server := s.identity(RoleCompute, "n_one"), s.identity(RoleServer, "n_server")
	f := &fakeNode{}
	addr := serveTLS(t, node, NodeHandler(f, f, quietTest()), RoleServer)
	ask := func(id *Identity) error {
		m := NewMachine(id, "n_one", dialer(addr))
		defer m.Close()
		_, err := m.Health(t.Context())
		return err
	}
	alone, _ := s.ca.Trusted()
	check(t, s.ca.Rotate())
	both, names := s.ca.Trusted()
	foreign, _ := newSite(t, "site").ca.Trusted()
	leaf, err := os.ReadFile(filepath.Join(s.dirs[RoleCompute], fileCert))
	check(t, err)
	for what, text := range map[string][]byte{
		"nothing": nil, "a word": []byte("x"), "another authority": foreign, "three": append(append([]byte(nil), both...), foreign...),
		"a machine": leaf, "something behind": append(append([]byte(nil), both...), "x"...), "the new one alone": both[len(alone):],
	} {
		if err := node.Trust(text); err == nil {
			t.Errorf("%s was taken", what)
		}
	}
	renew := func(id *Identity) {
		t.Helper()
		is := id.Is()
		cert, err := s.ca.Recertify(id.Role, id.Node, is.Generation+1, is.Public)
		check(t, err)
		check(t, id.Renew(cert))
	}
	old := server
	server = s.identity(RoleServer, "n_server")
	check(t, server.Trust(both))
	renew(server)
	if ask(server) == nil {
		t.Error("the node takes a certificate of an authority it was not told of")
	}
	check(t, node.Trust(both))
	check(t, ask(server))
	check(t, ask(old))
	renew(node)
	if is := node.Is(); is.Issuer != names[1] || len(is.Trusts) != 2 {
		t.Errorf("the node says %+v", is)
	}
	check(t, ask(server))
	check(t, s.ca.Finish())
	last, _ := s.ca.Trusted()
	check(t, node.Trust(last))
	check(t, ask(server))
	if ask(old) == nil {
		t.Error("a certificate of the old authority still counts")
	}
	again, err := LoadIdentity(node.dir)
	check(t, err)
	if is := again.Is(); is.Issuer != names[1] || len(is.Trusts) != 1 {
		t.Errorf("from its files it says %+v", is)
	}
}
