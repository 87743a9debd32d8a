package test

import (
	"errors"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Weather is what a wire does to the packets of one machine, both ways. Not every
// kernel can (netem), so each Ethernet frame is carried by the test.
type Weather struct {
	loss  atomic.Int64 // of a thousand
	delay atomic.Int64 // ns; a frame takes up to half as much again
	lost  atomic.Int64
}

// Set changes it: so many of a thousand frames are lost, the rest is late.
func (w *Weather) Set(loss int, delay time.Duration) {
	w.loss.Store(int64(loss))
	w.delay.Store(int64(delay))
}

// Lost is how many frames were.
func (w *Weather) Lost() int64 { return w.lost.Load() }

// Weather puts the test between the machine and a wire it is on.
func (h *Host) Weather(wire string) *Weather {
	h.f.t.Helper()
	w := &Weather{}
	near := h.ends[wire]
	h.f.ip("link", "set", near, "nomaster")
	far := "w" + near[1:]
	h.f.ip("link", "add", far, "type", "veth", "peer", "name", "q"+far)
	h.f.ip("link", "set", far, "up")
	h.f.ip("link", "set", "q"+far, "master", wire, "up")
	// What is written to a socket must be whole: no checksums and no cutting left to
	// hardware that is not there.
	whole(h.f, "/proc/self/ns/net", far, "q"+far, near, wire)
	whole(h.f, fmt.Sprintf("/proc/%d/ns/net", h.pid), "eth-"+wire)
	a, b := packets(h.f, near), packets(h.f, far)
	var carriers sync.WaitGroup
	carriers.Go(func() { w.carry(a, b) })
	carriers.Go(func() { w.carry(b, a) })
	h.f.t.Cleanup(func() {
		for _, f := range []*os.File{a, b} {
			f.Close()
		}
		carriers.Wait()
	})
	return w
}

// carry takes frames from one socket to the other, in the order in which they
// are due.
func (w *Weather) carry(from, to *os.File) {
	b := make([]byte, 1<<16)
	for {
		n, err := from.Read(b)
		if err != nil {
			return
		}
		if rand.Int64N(1000) < w.loss.Load() {
			w.lost.Add(1)
			continue
		}
		frame := append([]byte(nil), b[:n]...)
		late := w.delay.Load()
		if late == 0 {
			to.Write(frame)
			continue
		}
		time.AfterFunc(time.Duration(late+rand.Int64N(late/2+1)), func() { to.Write(frame) }) // closed: lost, like others
	}
}

// packets is a socket that hears what comes in at an interface and nothing that
// goes out.
func packets(f *Fleet, name string) *os.File {
	f.t.Helper()
	i, err := net.InterfaceByName(name)
	if err != nil {
		f.t.Fatal(err)
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		f.t.Fatal(err)
	}
	everything := bits.ReverseBytes16(unix.ETH_P_ALL) // as on the wire
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20),
		// Frames are addressed to others.
		unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &unix.PacketMreq{Ifindex: int32(i.Index), Type: unix.PACKET_MR_PROMISC}),
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: everything, Ifindex: i.Index}),
	)
	if err != nil {
		f.t.Fatalf("%s: %v", name, err)
	}
	return os.NewFile(uintptr(fd), name)
}

// whole switches off what an interface leaves to hardware, in a network namespace.
func whole(f *Fleet, namespace string, names ...string) {
	f.t.Helper()
	failed := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with its namespace
		failed <- func() error {
			ns, err := os.Open(namespace)
			if err != nil {
				return err
			}
			defer ns.Close()
			if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
				return err
			}
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			for _, name := range names {
				for _, what := range []uint32{unix.ETHTOOL_STXCSUM, unix.ETHTOOL_STSO, unix.ETHTOOL_SGSO, unix.ETHTOOL_SGRO} {
					value := [2]uint32{what, 0}
					request := struct {
						name [unix.IFNAMSIZ]byte
						data unsafe.Pointer
						_    [16]byte
					}{data: unsafe.Pointer(&value)}
					copy(request.name[:unix.IFNAMSIZ-1], name)
					if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request))); errno != 0 && errno != unix.EOPNOTSUPP {
						return fmt.Errorf("%s: %w", name, errno)
					}
				}
			}
			return nil
		}()
	}()
	if err := <-failed; err != nil {
		f.t.Fatal(err)
	}
}
