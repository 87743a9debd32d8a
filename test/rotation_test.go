package test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"quire/compute/remote"
)

// keep copies an identity's files aside, as a thief would.
func keep(t *testing.T, role string) *remote.Identity {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"node.key", "node.crt", "ca.crt"} {
		b, err := os.ReadFile(filepath.Join("/var/lib/quire", role, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	id, err := remote.LoadIdentity(dir)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// issuers counts the authorities in a role's file, and says whether its own
// certificate is of the last one.
func issuers(role string) (n int, last bool, err error) {
	dir := filepath.Join("/var/lib/quire", role)
	text, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
	if err != nil {
		return 0, false, err
	}
	var ca *x509.Certificate
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		if ca, err = x509.ParseCertificate(block.Bytes); err != nil {
			return 0, false, err
		}
		n++
	}
	leaf, err := os.ReadFile(filepath.Join(dir, "node.crt"))
	if err != nil {
		return 0, false, err
	}
	block, _ := pem.Decode(leaf)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return 0, false, err
	}
	return n, cert.CheckSignatureFrom(ca) == nil, nil
}

// The authority is changed under running work: a node is away at first, the
// server dies in the middle, everybody is carried over, and what the old
// authority certified opens nothing any more (N-17).
//
//fault:keys the authority is changed, the server dies in the middle of it, and a node is away
//fault:seen nothing
//fault:lost nothing
//fault:repair it goes on by itself, and the node is carried along when it is back
//fault:also TestRotation TestRotationCrashes
func TestAuthorityIsChanged(t *testing.T) {
	s := Up(t)
	ctx := within(t, 4*time.Minute)
	ada := s.Admin(ctx, "ada", password)
	running(t, ctx, ada, "/ada/Welcome")
	n, err := ada.OpenNotebook(ctx, "/ada/Welcome")
	if err != nil {
		t.Fatal(err)
	}
	kernel, err := n.NewKernel(ctx)
	if err != nil {
		t.Fatal(err)
	}
	k, err := n.Connect(ctx, kernel)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Run(ctx, "treasure = 'gold'"); err != nil {
		t.Fatal(err)
	}
	k.Close()
	stolen := map[string]*remote.Identity{"server": keep(t, "server"), "gateway": keep(t, "gateway"), "compute": keep(t, "compute")}
	node := stolen["compute"].Node
	reach := func(id *remote.Identity) error {
		c, err := tls.Dial("tcp", "127.0.0.1:5002", id.Dial(remote.RoleCompute, node))
		if err != nil {
			return err
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := c.Write([]byte("GET /health HTTP/1.1\r\nHost: x\r\n\r\n")); err != nil {
			return err
		}
		_, err = c.Read(make([]byte, 1)) // with TLS 1.3 a refusal comes now
		return err
	}
	if err := reach(stolen["server"]); err != nil {
		t.Fatalf("before the change: %v", err)
	}

	if out, err := s.Run("", "stop", "compute"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if page, err := ada.Submit(ctx, s.Portal+"/admin/authority", url.Values{"do": {"rotate"}}); err != nil || page.Status != 200 {
		t.Fatalf("the button: %v %+v", err, page)
	}
	Eventually(t, 20*time.Second, "the node is away", func() error {
		out, err := s.Run("", "server", "rotate-authority")
		if err != nil || !strings.Contains(out, "Away") || !strings.Contains(out, "1 of 2") {
			return errors.New(out)
		}
		return nil
	})
	if page, err := ada.Open(ctx, s.Portal+"/admin/data-centers"); err != nil || !strings.Contains(page.Body, "is away, and is carried along") || !strings.Contains(page.Body, "Drop the old authority now") {
		t.Errorf("the page does not say how far it is: %v", err)
	}
	if n, last, err := issuers("gateway"); n != 2 || !last || err != nil {
		t.Errorf("the gateway has %d authorities, its certificate is of the new one: %v, %v", n, last, err)
	}
	if out, err := s.Run("", "server", "rotate-authority", "--finish", "--force"); err == nil || !strings.Contains(out, "cannot join again") {
		t.Errorf("what runs on the server's own machine was left behind: %s", out)
	}
	s.Kill("server")
	s.Kill("gateway")
	if out, err := s.Run("", "start", "compute"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	Eventually(t, 90*time.Second, "the old authority is dropped everywhere", func() error {
		for _, role := range []string{"server", "gateway", "compute"} {
			if n, last, err := issuers(role); n != 1 || !last || err != nil {
				return errors.New(role + " is not over yet")
			}
		}
		return nil
	})
	if out, err := s.Run("", "server", "rotate-authority", "--status"); err != nil || !strings.Contains(out, "No change") {
		t.Errorf("afterwards: %v %s", err, out)
	}
	for role, id := range stolen {
		if err := reach(id); err == nil {
			t.Errorf("the node still takes the old certificate of the %s", role)
		}
	}
	if c, err := tls.Dial("tcp", "127.0.0.1:8089", stolen["server"].Dial(remote.RoleGateway, stolen["gateway"].Node)); err == nil {
		c.Close()
		t.Error("the old server takes the gateway's certificate")
	}
	// And with the files as they are now everything starts.
	s.Kill("server")
	s.Kill("gateway")
	s.Kill("compute")
	running(t, ctx, ada, "/ada/Welcome")
	Eventually(t, 30*time.Second, "the kernel is the same", func() error {
		k, err := n.Connect(ctx, kernel)
		if err != nil {
			return err
		}
		defer k.Close()
		out, err := k.Run(ctx, "treasure")
		if err == nil && out != "'gold'" {
			err = errors.New(out)
		}
		return err
	})
}
