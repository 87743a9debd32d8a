package keep

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// A watcher wakes when something appears in a directory.
type watcher struct{ f *os.File }

func watchDir(dir string) (*watcher, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, err
	}
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_CREATE|unix.IN_MOVED_TO|unix.IN_ATTRIB|unix.IN_ONLYDIR); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return &watcher{os.NewFile(uintptr(fd), "inotify")}, nil
}

// changed reports each change, at once.
func (w *watcher) changed() <-chan struct{} {
	c := make(chan struct{}, 1)
	go func() {
		b := make([]byte, 4096)
		for {
			if _, err := w.f.Read(b); err != nil {
				return
			}
			select {
			case c <- struct{}{}:
			default:
			}
		}
	}()
	return c
}

func (k *keeper) becomeReady() {
	defer k.watch.f.Close()
	var ok bool
	if k.tcp {
		ok = k.awaitPort() && k.bridge()
	} else {
		ok = k.awaitSocket()
	}
	if !ok {
		return
	}
	now := time.Now().UTC()
	k.mu.Lock()
	k.state.Ready = &now
	k.mu.Unlock()
	if k.ready > 0 {
		f := os.NewFile(uintptr(k.ready), "ready")
		_, _ = f.Write([]byte("ready\n")) // compute may have been restarted: it reads state.json
		f.Close()
	}
	if err := k.writeState(); err != nil {
		k.log.note("That the app is ready could not be written down: " + err.Error())
	}
}

// awaitSocket waits until the app accepts on app.sock. Between bind and listen
// a connection is refused; that takes microseconds, so the pauses are short.
func (k *keeper) awaitSocket() bool {
	path := filepath.Join(k.dir, "app.sock")
	changed := k.watch.changed()
	pause := time.Millisecond
	for {
		c, err := net.Dial("unix", path)
		if err == nil {
			c.Close()
			return true
		}
		var again <-chan time.Time
		if !errors.Is(err, os.ErrNotExist) {
			again = time.After(pause)
			pause = min(2*pause, 50*time.Millisecond)
		}
		select {
		case <-changed:
		case <-again:
		case <-k.done:
			return false
		}
	}
}
