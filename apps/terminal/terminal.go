// Package terminal is the Terminal app: shells in a browser page, run as the
// person who owns the session.
//
// The shells live in this process and nowhere else, so a page, a gateway or a
// network may go away and come back without a shell noticing. Each shell keeps
// the last mebibyte of its output; a page says up to where it has it and is
// sent the rest.
package terminal

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"quire/apps"
)

// Main serves the app until it is told to stop and returns the exit code. args
// are those after "quire terminal".
func Main(args []string) int {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	err := serve(ctx, args, os.Stderr, log)
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
		return 0
	default:
		log.Error("terminal", "err", err)
		return 1
	}
}

func serve(ctx context.Context, args []string, usage io.Writer, log *slog.Logger) error {
	flags := flag.NewFlagSet("quire terminal", flag.ContinueOnError)
	flags.SetOutput(usage)
	socket := flags.String("socket", "", "unix socket to listen on")
	urlPrefix := flags.String("url-prefix", "", "path below which the app is seen, like /terminal")
	home := flags.String("home", "", "directory the shells begin in; the current one if empty")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *socket == "" || flags.NArg() > 0 {
		return errors.New("quire terminal needs --socket PATH and takes no other words")
	}
	prefix, err := apps.Prefix(*urlPrefix)
	if err != nil {
		return err
	}
	how := Command{Path: apps.LoginShell(ctx), Dir: startDir(*home), Env: apps.TerminalEnvironment(os.Environ())}
	l, err := apps.Listen(*socket)
	if err != nil {
		return err
	}
	defer l.Close()
	return serveOn(ctx, l, prefix, newDesk(how, log), log)
}

// serveOn serves the app on a listener until ctx ends, then ends every shell.
func serveOn(ctx context.Context, l net.Listener, prefix string, d *desk, log *slog.Logger) error {
	h, err := handler(d, prefix, page{
		Project: apps.Plain(os.Getenv("PROJECT_NAME"), 80), Shell: filepath.Base(d.how.Path), NoNewRoot: noNewRoot(),
	}, log)
	if err != nil {
		return err
	}
	// Canceling the base context ends the sockets, which Shutdown knows nothing of.
	base, cancel := context.WithCancel(context.Background())
	defer cancel()
	srv := &http.Server{
		Handler: h, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 32 << 10,
		ErrorLog:    slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		BaseContext: func(net.Listener) context.Context { return base },
	}
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(l) }()
	select {
	case err := <-failed:
		d.end()
		return fmt.Errorf("serve the terminal: %w", err)
	case <-ctx.Done():
	}
	d.end()
	cancel()
	return srv.Close()
}

// startDir is the project, or the nearest thing that exists.
func startDir(dir string) string {
	here, err := os.Getwd()
	if err != nil {
		here = "/"
	}
	for _, d := range []string{dir, here, os.Getenv("HOME")} {
		if info, err := os.Stat(d); d != "" && err == nil && info.IsDir() {
			return d
		}
	}
	return "/"
}
