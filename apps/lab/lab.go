// Package lab is the app JupyterLab: the front end of JupyterLab from our own
// bundle, and a Jupyter server in Go behind it. It runs as one person in one
// project, on the session's unix socket.
//
// The kernels are not its children: they belong to a process of their own
// (package kernel) that goes on when this one ends, however it ends, and keeps
// what they say until somebody has heard it.
package lab

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
// are those after "quire lab".
func Main(args []string) int {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	err := serve(ctx, args, os.Stderr, log)
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return 0
	}
	log.Error("lab", "err", err)
	return 1
}

func serve(ctx context.Context, args []string, usage io.Writer, log *slog.Logger) error {
	flags := flag.NewFlagSet("quire lab", flag.ContinueOnError)
	flags.SetOutput(usage)
	socket := flags.String("socket", "", "unix socket to listen on")
	urlPrefix := flags.String("url-prefix", "", "path below which the app is seen, like /lab")
	var c config
	flags.StringVar(&c.project, "home", "", "the project's directory; the current one if empty")
	flags.StringVar(&c.state, "state", "", "directory for the kernels' sockets and what is known of them")
	flags.StringVar(&c.prefix, "env", "", "prefix of the project's active environment")
	flags.StringVar(&c.python, "python", "", "the Python that runs kernels where the environment has none")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *socket == "" || c.state == "" || flags.NArg() > 0 {
		return errors.New("quire lab needs --socket PATH and --state DIRECTORY and takes no other words")
	}
	var err error
	if c.base, err = apps.Prefix(*urlPrefix); err != nil {
		return err
	}
	if c.project == "" {
		if c.project, err = os.Getwd(); err != nil {
			return err
		}
	}
	c.home, c.title, c.log = os.Getenv("HOME"), apps.Plain(os.Getenv("PROJECT_NAME"), 80), log
	s, err := newServer(c)
	if err != nil {
		return err
	}
	defer s.close()
	if err := s.kernels.adopt(ctx); err != nil {
		log.Error("the kernels that were there are not to be reached", "err", err)
	}
	s.warm.adopt()
	l, err := apps.Listen(*socket)
	if err != nil {
		return err
	}
	defer l.Close()
	return serveOn(ctx, l, s)
}

// serveOn serves the app on a listener until ctx ends.
func serveOn(ctx context.Context, l net.Listener, s *server) error {
	// Canceling the base context ends the sockets, which Shutdown knows nothing of.
	base, cancel := context.WithCancel(context.Background())
	defer cancel()
	srv := &http.Server{
		Handler: s.handler(), ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog:    slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
		BaseContext: func(net.Listener) context.Context { return base },
	}
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(l) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve JupyterLab: %w", err)
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
