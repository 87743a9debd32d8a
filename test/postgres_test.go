package test

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The database moves to PostgreSQL and back while a kernel runs; then PostgreSQL
// dies and comes back, and nothing needs to be restarted.
func TestDatabaseMoves(t *testing.T) {
	s := Up(t)
	ctx := within(t, 3*time.Minute)
	ada := s.Admin(ctx, "ada", password)
	running(t, ctx, ada, "/ada/Welcome")
	n, err := ada.OpenNotebook(ctx, "/ada/Welcome")
	if err != nil {
		t.Fatal(err)
	}
	kernel, _ := cell(ctx, t, n, "treasure = 'gold'")

	pg, err := NewPostgres()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := pg.Remove(); err != nil {
			t.Error(err)
		}
	})
	url := pg.URL("quire", false)
	if out, err := s.Run("", "database", "move", "--to", url); err == nil || !strings.Contains(out, "stop server") {
		t.Errorf("a move under a running server: %v %s", err, out)
	}
	if out, err := s.Run("", "stop", "server"); err != nil {
		t.Fatal(out)
	}
	if err := os.WriteFile("/etc/quire/wrong", []byte("open barley\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := s.Run("", "database", "move", "--to", url, "--password-file", "/etc/quire/wrong"); err == nil || strings.Contains(out, "barley") {
		t.Errorf("a wrong password: %v %s", err, out)
	}
	secret := "/etc/quire/database.password"
	if err := os.WriteFile(secret, []byte(pg.Password+"\n"), 0o400); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("chown", "quire-server", secret).CombinedOutput(); err != nil {
		t.Fatal(string(out))
	}
	if out, err := s.Run("", "database", "move", "--to", url, "--password-file", secret); err != nil || !strings.Contains(out, "All of it arrived") {
		t.Fatalf("%v %s", err, out)
	}
	configure := func(text string) {
		t.Helper()
		if err := os.WriteFile("/etc/quire/quire.conf", []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	configure(`{"database": "` + pg.URL("quire", true) + `"}`)
	if out, err := s.Run("", "start", "server"); err == nil || !strings.Contains(out, "database_password_file") {
		t.Errorf("a password in the configuration: %v %s", err, out)
	}
	configure(`{"database": "` + url + `", "database_password_file": "` + secret + `"}`)
	if out, err := s.Run("", "start", "server"); err != nil {
		t.Fatal(out)
	}
	Eventually(t, 20*time.Second, "she is still signed in", func() error { return sessionIs(ctx, ada, "/ada/Welcome", "notebook", "running") })
	still(ctx, t, n, kernel, "treasure", "'gold'")
	if err := ada.API(ctx, "POST", "/projects", map[string]any{"name": "Second"}, nil); err != nil {
		t.Fatal(err)
	}

	if err := pg.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	err = ada.API(ctx, "POST", "/projects", map[string]any{"name": "Third"}, nil)
	if err == nil || !strings.Contains(err.Error(), "503") {
		t.Errorf("a change without a database: %v", err)
	}
	if err := pg.Start(); err != nil {
		t.Fatal(err)
	}
	Eventually(t, 20*time.Second, "Quire is back with it", func() error {
		return ada.API(ctx, "POST", "/projects", map[string]any{"name": "Third"}, nil)
	})
	still(ctx, t, n, kernel, "treasure", "'gold'")

	if out, err := s.Run("", "stop", "server"); err != nil {
		t.Fatal(out)
	}
	if out, err := s.Run("", "database", "move", "--to", "/var/lib/quire/server/back.db"); err != nil {
		t.Fatalf("the way back: %v %s", err, out)
	}
	configure(`{"database": "/var/lib/quire/server/back.db"}`)
	if out, err := s.Run("", "start", "server"); err != nil {
		t.Fatal(out)
	}
	Eventually(t, 20*time.Second, "everything is there", func() error { return ada.API(ctx, "GET", "/projects/ada/Third", nil, nil) })
	still(ctx, t, n, kernel, "treasure", "'gold'")
}
