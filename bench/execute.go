package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"quire/test"
)

// benchExecute compares one cell's round trip through the whole chain (browser,
// gateway, compute, socket) with the same Jupyter asked on its own socket.
func benchExecute(ctx context.Context) error {
	if ran, err := inNamespace(ctx, "execute"); ran {
		return err
	}
	s, err := up(ctx)
	if err != nil {
		return err
	}
	defer s.end()
	n, err := s.admin.OpenNotebook(ctx, "/ada/Welcome")
	if err != nil {
		return err
	}
	kernel, err := n.NewKernel(ctx)
	if err != nil {
		return err
	}
	sockets, err := filepath.Glob("/run/quire/s/*/app.sock")
	if err != nil || len(sockets) != 1 {
		return errors.Join(err, errors.New("there should be exactly one session"))
	}
	chain, err := n.Connect(ctx, kernel)
	if err != nil {
		return err
	}
	defer chain.Close()
	direct, err := test.ConnectDirect(ctx, sockets[0], n.Base.Path, kernel)
	if err != nil {
		return err
	}
	defer direct.Close()
	ask := func(k *test.Kernel) (float64, error) {
		began := time.Now()
		_, err := k.Run(ctx, "1+1")
		return float64(time.Since(began).Microseconds()) / 1000, err
	}
	var a, b []float64
	for i := range 320 {
		x, err := ask(chain)
		if err != nil {
			return err
		}
		y, err := ask(direct)
		if err != nil {
			return err
		}
		if i >= 20 { // the first ones warm things up
			a, b = append(a, x), append(b, y)
		}
	}
	chain.Close()
	direct.Close()
	report("execute_rtt_vs_unix_direct", median(a), "ms", median(b))
	return stopAll(ctx, s.admin)
}

// scratch is a directory for a bare Jupyter's socket, owned by its account.
func scratch(uid, gid uint32) (string, error) {
	dir, err := os.MkdirTemp("/tmp", "b")
	if err != nil {
		return "", err
	}
	f, err := os.Open(dir)
	if err != nil {
		return "", err
	}
	defer f.Close()
	return dir, f.Chown(int(uid), int(gid))
}
