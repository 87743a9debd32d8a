// Package viewer is the Viewer app: a project's files, read-only, as pages. It
// runs as the person who looks, so the kernel decides what they may read, and
// it writes nothing.
//
// Two things keep what files contain from doing anything. Every file that is
// more than shown as it is goes through a process of its own, with a deadline
// and little memory, which answers with HTML; and every piece of HTML that
// came from a file passes one allow-list (sanitize.go) on its way there. Pages
// run no script but ours, and a raw file is sent into a sandbox without origin.
package viewer

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
	"os/user"
	"strconv"
	"sync"
	"syscall"
	"time"

	"quire/apps"
)

// Main serves the app until it is told to stop and returns the exit code. args
// are those after "quire viewer". With --render it is the other process: it
// reads one file from its input and writes HTML.
func Main(args []string) int {
	if len(args) > 0 && args[0] == "--render" {
		return renderMain(args[1:], os.Stdin, os.Stdout, os.Stderr)
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	err := serve(ctx, args, os.Stderr, log)
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
		return 0
	default:
		log.Error("viewer", "err", err)
		return 1
	}
}

func serve(ctx context.Context, args []string, usage io.Writer, log *slog.Logger) error {
	flags := flag.NewFlagSet("quire viewer", flag.ContinueOnError)
	flags.SetOutput(usage)
	socket := flags.String("socket", "", "unix socket to listen on")
	urlPrefix := flags.String("url-prefix", "", "path below which the app is seen, like /viewer")
	home := flags.String("home", "", "directory of the project; the current one if empty")
	idle := flags.Duration("idle", 0, "end after nobody has asked for anything for so long; 0 for never")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *socket == "" || flags.NArg() > 0 {
		return errors.New("quire viewer needs --socket PATH and takes no other words")
	}
	prefix, err := apps.Prefix(*urlPrefix)
	if err != nil {
		return err
	}
	dir := *home
	if dir == "" {
		if dir, err = os.Getwd(); err != nil {
			return err
		}
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	h, err := newSite(config{
		Prefix: prefix, Dir: dir, Project: shown(os.Getenv("PROJECT_NAME")), Account: account(),
		Render: []string{self, "viewer", "--render"}, Log: log,
	})
	if err != nil {
		return err
	}
	l, err := apps.Listen(*socket)
	if err != nil {
		return err
	}
	defer l.Close()
	if *idle > 0 {
		var stop context.CancelFunc
		ctx, stop = context.WithCancel(ctx)
		defer stop()
		h = untilIdle(h, *idle, stop)
	}
	return serveOn(ctx, l, h, log)
}

// untilIdle calls stop when there has been no request for so long.
func untilIdle(next http.Handler, idle time.Duration, stop func()) http.Handler {
	var mu sync.Mutex
	busy := 0
	timer := time.AfterFunc(idle, stop)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		busy++
		timer.Stop()
		mu.Unlock()
		defer func() {
			mu.Lock()
			defer mu.Unlock()
			if busy--; busy == 0 {
				timer.Reset(idle)
			}
		}()
		next.ServeHTTP(w, r)
	})
}

func serveOn(ctx context.Context, l net.Listener, h http.Handler, log *slog.Logger) error {
	srv := &http.Server{
		Handler: h, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 32 << 10,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(l) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve the viewer: %w", err)
	case <-ctx.Done():
		return srv.Close()
	}
}

// account names the account of this process, for pages that say who may not
// read a file.
func account() string {
	for _, name := range []string{os.Getenv("USER"), os.Getenv("LOGNAME")} {
		if name != "" {
			return shown(name)
		}
	}
	if u, err := user.Current(); err == nil {
		return shown(u.Username)
	}
	return strconv.Itoa(os.Getuid())
}
