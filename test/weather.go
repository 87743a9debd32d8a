package test

import (
	"errors"
	"math/bits"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

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
	b := make([]byte, 1<<17)
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
		// What the sender has left to hardware, checksums and cutting, stands before
		// each frame and is handed on with it.
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1),
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
