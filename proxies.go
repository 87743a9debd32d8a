package quire

import (
	"net/netip"
	"strings"
)

// Unknown stands for the address of somebody whose proxy does not say it.
const Unknown = "unknown"

// Proxies are the peers that are believed when they say for whom they ask and
// whether that came by https; nothing else that they say of it is looked at,
// and nobody else is listened to. The zero value believes nobody.
type Proxies struct {
	nets []netip.Prefix
	unix bool // whoever may connect to our unix socket
}

// NewProxies reads a list of addresses, networks ("10.1.0.0/16") and "unix".
func NewProxies(list []string) (p Proxies, err error) {
	for _, s := range list {
		if s == "unix" {
			p.unix = true
			continue
		}
		net, err := netip.ParsePrefix(s)
		if err != nil {
			addr, err := netip.ParseAddr(s)
			if err != nil || addr.Zone() != "" {
				return Proxies{}, Invalid("proxies", "A believed proxy is an address like 192.0.2.10, a network like 10.1.0.0/16, or \"unix\", not \""+s+"\".")
			}
			addr = addr.Unmap()
			net = netip.PrefixFrom(addr, addr.BitLen())
		}
		if net.Bits() == 0 || net.Addr().Is4In6() {
			return Proxies{}, Invalid("proxies", "The network "+s+" would believe everybody, or is not written plainly.")
		}
		p.nets = append(p.nets, net.Masked())
	}
	return p, nil
}

// Any reports whether anybody is believed.
func (p Proxies) Any() bool { return p.unix || len(p.nets) > 0 }

// Unix reports whether whoever connects by a unix socket is believed.
func (p Proxies) Unix() bool { return p.unix }

// Client is the address for which a request came: that of the peer unless the
// peer is believed, else the right-most address in the X-Forwarded-For lines
// that is not itself of a believed proxy. Each proxy appends whom it heard, so
// what stands further left is only the word of that address. peer is a
// request's RemoteAddr.
func (p Proxies) Client(peer string, forwarded []string) string {
	if !p.Any() && peer != "" && peer[0] >= '0' && peer[0] <= '9' { // most requests of most sites
		if colon := strings.LastIndexByte(peer, ':'); colon > 0 {
			return peer[:colon]
		}
	}
	addr, known := address(peer)
	if !p.believes(peer, addr, known) {
		if !known {
			return Unknown
		}
		return addr.String()
	}
	for i := len(forwarded) - 1; i >= 0; i-- {
		for line := forwarded[i]; ; {
			comma := strings.LastIndexByte(line, ',')
			next, ok := address(strings.Trim(line[comma+1:], " \t"))
			if !ok {
				// Who says this cannot say more; it is the last one we know of.
				return name(addr, known)
			}
			addr, known = next, true
			if !p.believes("", addr, true) {
				return addr.String()
			}
			if comma < 0 {
				break
			}
			line = line[:comma]
		}
	}
	return name(addr, known)
}

// Plain reports whether a believed proxy says that the request came to it by
// plain http. The last word counts: the nearest proxy's.
func (p Proxies) Plain(peer string, proto []string) bool {
	if len(proto) == 0 || !p.Any() {
		return false
	}
	if !p.Believes(peer) {
		return false
	}
	last := proto[len(proto)-1]
	return strings.EqualFold(strings.Trim(last[strings.LastIndexByte(last, ',')+1:], " \t"), "http")
}

// Believes reports whether a peer, a request's RemoteAddr, is one of them.
func (p Proxies) Believes(peer string) bool {
	addr, known := address(peer)
	return p.believes(peer, addr, known)
}

func (p Proxies) believes(peer string, addr netip.Addr, known bool) bool {
	if !known {
		// Go writes a nameless peer of a unix socket as "@" or nothing.
		return p.unix && (peer == "" || peer[0] == '@' || peer[0] == '/')
	}
	for _, n := range p.nets {
		if n.Contains(addr) {
			return true
		}
	}
	return false
}

// address reads "192.0.2.1", "192.0.2.1:80", "2001:db8::1", "[2001:db8::1]" and
// "[2001:db8::1]:80", as proxies write them.
func address(s string) (netip.Addr, bool) {
	addr, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(s, "["), "]"))
	if err != nil {
		both, err := netip.ParseAddrPort(s)
		if err != nil {
			return netip.Addr{}, false
		}
		addr = both.Addr()
	}
	return addr.Unmap().WithZone(""), true
}

func name(addr netip.Addr, known bool) string {
	if !known {
		return Unknown
	}
	return addr.String()
}
