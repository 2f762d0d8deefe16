package generic

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/twinport/twinport/replicator/oci"
)

// An allowList decides which hosts beside the registry's own may be asked: the
// public internet over https, and what the config names. Without it a registry
// could send us into our own network.
type allowList struct {
	nets     []netip.Prefix
	hosts    map[string]bool // host or host:port
	suffixes []string        // .example.com
	own      func(host string) bool

	resolve func(ctx context.Context, host string) ([]netip.Addr, error)

	mu       sync.Mutex
	resolved map[string]time.Time // public names, and until when that is believed
}

const hintAllow = "name the host under redirects.allow of this registry"

func newAllowList(entries []string) (*allowList, error) {
	l := &allowList{
		hosts: make(map[string]bool), resolved: make(map[string]time.Time),
		resolve: func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		},
	}
	for _, entry := range entries {
		e := strings.ToLower(strings.TrimSpace(entry))
		if prefix, err := netip.ParsePrefix(e); err == nil {
			l.nets = append(l.nets, prefix.Masked())
			continue
		}
		if addr, err := netip.ParseAddr(strings.Trim(e, "[]")); err == nil {
			l.nets = append(l.nets, netip.PrefixFrom(addr.Unmap(), addr.Unmap().BitLen()))
			continue
		}
		switch {
		case e == "" || e == "." || strings.ContainsAny(e, "/@?#* "):
			return nil, fmt.Errorf("%.80q is no network, host or .suffix", entry)
		case strings.HasPrefix(e, "."):
			l.suffixes = append(l.suffixes, e)
		default:
			l.hosts[e] = true
		}
	}
	return l, nil
}

// check refuses an address that is neither allowed nor public over https.
// guard says that the connection has to be checked too: the name may resolve
// otherwise by then.
func (l *allowList) check(ctx context.Context, u *url.URL) (guard bool, err error) {
	host := strings.TrimSuffix(strings.ToLower(u.Hostname()), ".")
	if host == "" {
		return false, fmt.Errorf("no host: %w", oci.ErrInvalid)
	}
	if l.named(host, withPort(u)) || u.Scheme == "https" && l.own != nil && l.own(host) {
		return false, nil
	}
	addr, err := netip.ParseAddr(host)
	literal := err == nil
	if literal && l.inNets(addr) {
		return false, nil
	}
	guard = true
	var addrs []netip.Addr
	switch {
	case literal:
		addrs = []netip.Addr{addr}
	case l.believed(host) && u.Scheme == "https":
		return true, nil
	default:
		if proxy, err := http.ProxyFromEnvironment(&http.Request{URL: u}); err == nil && proxy != nil {
			guard = false
			break // the proxy resolves, we may not be able to
		}
		lookup, cancel := context.WithTimeout(ctx, dialTimeout)
		addrs, err = l.resolve(lookup, host)
		cancel()
		if err != nil {
			return false, fmt.Errorf("look up %.100s: %w", host, oci.ErrUnreachable)
		}
	}
	allowed := len(addrs) > 0
	for _, a := range addrs {
		if l.inNets(a) {
			continue
		}
		allowed = false
		if !isPublic(a) {
			return false, fmt.Errorf("host %.100s is on a private network: %w", host, oci.ErrDenied)
		}
	}
	if allowed {
		return true, nil
	}
	if u.Scheme != "https" {
		return false, fmt.Errorf("host %.100s is not asked without TLS: %w", host, oci.ErrDenied)
	}
	if !literal && guard {
		l.believe(host)
	}
	return guard, nil
}

// checkDialed refuses a connection that leads into a private network although
// the name looked public when it was checked.
func (l *allowList) checkDialed(address string) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("dial: %w", oci.ErrInvalid)
	}
	if l.inNets(ap.Addr()) || isPublic(ap.Addr()) {
		return nil
	}
	return fmt.Errorf("redirect leads to a private network: %w", oci.ErrDenied)
}

func (l *allowList) named(host, hostPort string) bool {
	if l.hosts[host] || l.hosts[hostPort] {
		return true
	}
	for _, suffix := range l.suffixes {
		if strings.HasSuffix(host, suffix) {
			return true
		}
	}
	return false
}

func (l *allowList) inNets(addr netip.Addr) bool {
	addr = addr.Unmap().WithZone("")
	for _, prefix := range l.nets {
		if prefix.Contains(addr) {
			return true
		}
	}
	return false
}

func (l *allowList) believed(host string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Now().Before(l.resolved[host])
}

func (l *allowList) believe(host string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.resolved) > 256 {
		clear(l.resolved)
	}
	l.resolved[host] = time.Now().Add(time.Minute)
}

// notPublic are networks that netip does not call private but nobody reaches
// from the internet, or that hide another address.
var notPublic = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("100.64.0.0/10"),
	netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("192.0.2.0/24"),
	netip.MustParsePrefix("192.88.99.0/24"),
	netip.MustParsePrefix("198.18.0.0/15"),
	netip.MustParsePrefix("198.51.100.0/24"),
	netip.MustParsePrefix("203.0.113.0/24"),
	netip.MustParsePrefix("240.0.0.0/4"),
	netip.MustParsePrefix("64:ff9b::/96"),
	netip.MustParsePrefix("64:ff9b:1::/48"),
	netip.MustParsePrefix("::/96"),
	netip.MustParsePrefix("100::/64"),
	netip.MustParsePrefix("2001::/32"),
	netip.MustParsePrefix("2001:db8::/32"),
	netip.MustParsePrefix("2002::/16"),
	netip.MustParsePrefix("fec0::/10"),
}

func isPublic(addr netip.Addr) bool {
	addr = addr.Unmap().WithZone("")
	if !addr.IsGlobalUnicast() || addr.IsPrivate() {
		return false
	}
	for _, prefix := range notPublic {
		if prefix.Contains(addr) {
			return false
		}
	}
	return true
}
