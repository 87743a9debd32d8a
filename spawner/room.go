package spawner

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// What people can fill on a node, and what stays free for the node itself.

const (
	// A session's directory holds sockets, a capped log and an app's settings. Its
	// file system is of its own: the one it would share holds the sockets of the
	// whole machine, in memory.
	sessionRoom = "size=32m,nr_inodes=4096"
	// Kept as a file and given up when the disk is full; a quarter of it free is full.
	maxReserve = 64 << 20
)

// enclose puts a small file system under a new session's directory. In nobody's
// way: it is unmounted before the directory is removed, wherever it was seen.
func enclose(fd int, uid, gid uint32, mode uint32) error {
	data := fmt.Sprintf("%s,mode=%o,uid=%d,gid=%d", sessionRoom, mode, uid, gid)
	if err := unix.Mount("quire", fmt.Sprintf("/proc/self/fd/%d", fd), "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, data); err != nil {
		return fmt.Errorf("a file system of its own: %w", err)
	}
	return nil
}

// disclose takes it away, with what is in it.
func disclose(dir string) error {
	err := unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EPERM) {
		return nil // none there, or we may make none
	}
	return err
}

func (s *Spawner) reserve() string { return filepath.Join(s.c.StateDir, "reserve") }

// room looks at the disk of our state, which the sessions' /tmp and perhaps
// people's homes share. A full one gets the reserve, so that stopping, shutting
// out and an administrator's work go on; with plenty the reserve is made again.
// The message is for the node's page; on a full disk nothing new begins.
func (s *Spawner) room() (full bool, message string) {
	s.making.Lock()
	defer s.making.Unlock()
	var st unix.Statfs_t
	if err := unix.Statfs(s.c.StateDir, &st); err != nil {
		return false, fmt.Sprintf("The disk where Quire keeps its state cannot be looked at: %v.", err)
	}
	free, size := int64(st.Bavail)*st.Bsize, min(maxReserve, int64(st.Blocks)*st.Bsize/32)
	info, err := os.Stat(s.reserve())
	held := err == nil && info.Size() > 0
	err = nil
	full = free < size/4 || st.Files > 0 && st.Ffree < 64
	switch {
	case full && held:
		s.c.Log.Warn("the disk of the node's state is full: the reserve is given up", "free", free)
		err = os.Truncate(s.reserve(), 0)
	case !held && free > 2*size:
		err = s.keepReserve(size)
		held = err == nil
	}
	if err != nil {
		s.c.Log.Warn("the reserve", "err", err)
	}
	switch {
	case full:
		return true, fmt.Sprintf("The disk where the node keeps its state (%s) is full. Nothing new starts here until an administrator has made room.", s.c.StateDir)
	case !held:
		return false, fmt.Sprintf("The disk where the node keeps its state (%s) is nearly full: %d MB are left.", s.c.StateDir, free>>20)
	}
	return false, ""
}

func (s *Spawner) keepReserve(size int64) error {
	f, err := os.OpenFile(s.reserve(), os.O_WRONLY|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Fallocate(int(f.Fd()), 0, 0, size); err != nil {
		_ = f.Truncate(0)
		return err
	}
	return nil
}
