package keep

import (
	"os"
	"sync"
)

// A logFile keeps the last one to two times limit bytes in two files. Writing
// to it never fails: an app must not stop because a disk is full.
type logFile struct {
	mu    sync.Mutex
	name  string
	limit int64
	size  int64
	f     *os.File
}

func openLog(name string, limit int64) (*logFile, error) {
	l := &logFile{name: name, limit: limit}
	return l, l.open()
}

func (l *logFile) open() error {
	f, err := os.OpenFile(l.name, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o640)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return err
	}
	l.f, l.size = f, info.Size()
	return nil
}

func (l *logFile) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.size+int64(len(b)) > l.limit {
		l.turn()
	}
	if l.f != nil {
		n, _ := l.f.Write(b)
		l.size += int64(n)
	}
	return len(b), nil
}

func (l *logFile) turn() {
	if l.f != nil {
		l.f.Close()
		l.f = nil
	}
	if os.Rename(l.name, l.name+".1") != nil {
		_ = os.Remove(l.name)
	}
	_ = l.open() // without a file output is dropped, see Write
}

// note adds a line of ours.
func (l *logFile) note(s string) { _, _ = l.Write([]byte("[quire] " + s + "\n")) }

func (l *logFile) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f != nil {
		l.f.Close()
		l.f = nil
	}
}
