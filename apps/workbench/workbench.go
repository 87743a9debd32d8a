// Package workbench is the Workbench app: a person's files in a browser page, as
// a tree, with an editor, uploads, downloads and permissions. It runs as that
// person and does nothing but speak HTTP about what the package files does.
package workbench

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
	"syscall"
	"time"

	"quire/apps"
)

// Main serves the app until it is told to stop and returns the exit code. args
// are those after "quire workbench".
func Main(args []string) int {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	err := serve(ctx, args, os.Stderr, log)
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return 0
	}
	log.Error("workbench", "err", err)
	return 1
}

func serve(ctx context.Context, args []string, usage io.Writer, log *slog.Logger) error {
	flags := flag.NewFlagSet("quire workbench", flag.ContinueOnError)
	flags.SetOutput(usage)
	socket := flags.String("socket", "", "unix socket to listen on")
	urlPrefix := flags.String("url-prefix", "", "path below which the app is seen, like /workbench")
	project := flags.String("home", "", "the project's directory; the current one if empty")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *socket == "" || flags.NArg() > 0 {
		return errors.New("quire workbench needs --socket PATH and takes no other words")
	}
	prefix, err := apps.Prefix(*urlPrefix)
	if err != nil {
		return err
	}
	if *project == "" {
		here, err := os.Getwd()
		if err != nil {
			return err
		}
		*project = here
	}
	b, err := newBench(*project, os.Getenv("HOME"), log)
	if err != nil {
		return err
	}
	defer b.close()
	l, err := apps.Listen(*socket)
	if err != nil {
		return err
	}
	defer l.Close()
	return serveOn(ctx, l, prefix, b, apps.Plain(os.Getenv("PROJECT_NAME"), 80), log)
}

// serveOn serves the app on a listener until ctx ends.
func serveOn(ctx context.Context, l net.Listener, prefix string, b *bench, name string, log *slog.Logger) error {
	h, err := handler(b, prefix, name, log)
	if err != nil {
		return err
	}
	// Canceling the base context ends copies and downloads.
	base, cancel := context.WithCancel(context.Background())
	defer cancel()
	srv := &http.Server{
		Handler: h, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog:    slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		BaseContext: func(net.Listener) context.Context { return base },
	}
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(l) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve the workbench: %w", err)
	case <-ctx.Done():
	}
	// A save that has begun may end.
	end, stop := context.WithTimeout(context.Background(), 2*time.Second)
	defer stop()
	if srv.Shutdown(end) == nil {
		return nil
	}
	cancel()
	return srv.Close()
}
