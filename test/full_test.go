package test

import (
	"context"
	"errors"
	"io/fs"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// fill writes to a directory until there is no room at all, and returns what
// makes room again.
func fill(t *testing.T, dir string) (empty func()) {
	t.Helper()
	name := dir + "/filler"
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 20; size > 0; {
		if _, err := f.Write(make([]byte, size)); errors.Is(err, syscall.ENOSPC) {
			size /= 2
		} else if err != nil {
			t.Fatal(err)
		}
	}
	return func() {
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
}

// The disk with the server's database has no room for another byte.
//
//fault:disk the disk of the server's data directory is full
//fault:seen changes are refused: "The disk of the server is full"; pages, sign-ins that stand and running work go on, also when the server restarts meanwhile
//fault:lost no confirmed change
//fault:repair room; nothing needs a restart
func TestTheServersDiskIsFull(t *testing.T) {
	s := New(t)
	if err := syscall.Mount("tmpfs", "/var/lib/quire", "tmpfs", 0, "size=64m,mode=0755"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Unmount("/var/lib/quire", syscall.MNT_DETACH) })
	s.Start()
	ctx := within(t, 2*time.Minute)
	ada := s.Admin(ctx, "ada", password)
	running(t, ctx, ada, "/ada/Welcome")
	n, err := ada.OpenNotebook(ctx, "/ada/Welcome")
	if err != nil {
		t.Fatal(err)
	}
	kernel, _ := cell(ctx, t, n, "treasure = 'gold'")
	empty := fill(t, "/var/lib/quire")
	defer empty()

	goesOn := func(t *testing.T) {
		t.Helper()
		if page, err := ada.Open(ctx, s.Portal+"/"); err != nil || page.Status != 200 || !strings.Contains(page.Body, "Welcome") {
			t.Errorf("the pages do not go on: %v", err)
		}
		still(ctx, t, n, kernel, "treasure", "'gold'")
	}
	confirmed := 0
	var refused error
	for range 500 { // what SQLite has reserved may hold some more
		if refused = ada.API(ctx, "POST", "/projects", map[string]any{"name": "P" + strings.Repeat("x", confirmed)}, nil); refused != nil {
			break
		}
		if confirmed++; confirmed > 50 {
			t.Fatal("changes are made on a full disk")
		}
	}
	if refused == nil || !strings.Contains(refused.Error(), "The disk of the server is full") {
		t.Errorf("refused with %v", refused)
	}
	goesOn(t)
	t.Run("also through restarts", func(t *testing.T) {
		s.Kill("server")
		Eventually(t, 20*time.Second, "it answers", func() error {
			ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
			defer cancel()
			page, err := ada.Open(ctx, s.Portal+"/")
			if err == nil && page.Status != 200 {
				err = errors.New(page.Body)
			}
			return err
		})
		goesOn(t)
		// The restart may have made room for a little.
		page, err := NewBrowser(s.Portal).Submit(ctx, s.Portal+"/login", url.Values{"name": {"ada"}, "password": {password}})
		if err != nil || page.Status != 200 && !strings.Contains(page.Body, "disk of the server is full") {
			t.Errorf("a sign-in: %v %+v", err, page)
		}
	})
	empty()
	Eventually(t, 20*time.Second, "with room it goes on", func() error {
		return ada.API(ctx, "POST", "/projects", map[string]any{"name": "After"}, nil)
	})
	var list []struct{ Name string }
	if err := ada.API(ctx, "GET", "/projects", nil, &list); err != nil || len(list) != confirmed+2 {
		t.Errorf("%d of %d projects are there, %v", len(list), confirmed+2, err)
	}
	goesOn(t)
}
