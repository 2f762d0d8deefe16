package config

import (
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// checkPort takes 0 too, where a free port may be meant.
func checkPort(s string, least int) bool {
	n, err := strconv.Atoi(s)
	return err == nil && n >= least && n <= 65535 && strconv.Itoa(n) == s
}

// listenKind is host:port.
var listenKind = text{name: "host:port", most: 300, check: func(s string) (what, hint string) {
	const want = `write it like 127.0.0.1:8480, or 0.0.0.0:8480 for all interfaces`
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return quote(s) + " is no host:port", want
	}
	if !checkPort(port, 0) {
		return quote(s) + " has no port from 0 to 65535", want
	}
	if host != "" && !isHost(host) {
		return quote(s) + " has no host", want
	}
	return "", ""
}}

// isHost takes a name or an IP address without brackets.
func isHost(s string) bool {
	if _, err := netip.ParseAddr(s); err == nil {
		return true
	}
	if len(s) > 253 || !hostGrammar.MatchString(strings.ToLower(s)) {
		return false
	}
	// What ends in a number is an address or a typing error, never a name.
	last := s[strings.LastIndexByte(s, '.')+1:]
	_, err := strconv.Atoi(last)
	return err != nil
}

// loopback tells whether an address of listenKind stays on the machine.
func loopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// checkAddress is of a registry: host[:port][/prefix].
func checkAddress(s string) (what, hint string) {
	if scheme, rest, ok := strings.Cut(s, "://"); ok {
		if hint = "write " + quote(strings.TrimRight(rest, "/")) + " alone"; scheme == "http" {
			hint += ", and plainHTTP: true"
		}
		return "an address has no scheme", hint
	}
	const want = "write it like registry.example.com, host:5000 or host/prefix"
	if strings.ContainsAny(s, " @?#") {
		return quote(s) + " is no registry address", want
	}
	host, prefix, hasPrefix := strings.Cut(s, "/")
	name := host
	if h, port, err := net.SplitHostPort(host); err == nil {
		if !checkPort(port, 1) {
			return quote(s) + " has no port from 1 to 65535", want
		}
		name = h
	} else if strings.HasPrefix(host, "[") {
		name = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
		if _, err := netip.ParseAddr(name); err != nil {
			name = ""
		}
	} else if strings.Contains(host, ":") {
		name = ""
	}
	if !isHost(name) {
		return quote(s) + " is no registry address", want
	}
	if hasPrefix && strings.HasSuffix(prefix, "/") || hasPrefix && prefix == "" {
		return quote(s) + " ends in a slash", "remove the slash at the end"
	}
	if hasPrefix && (!repositoryGrammar.MatchString(prefix) || len(prefix) > 200) {
		return "the prefix " + quote(prefix) + " can begin no repository name", "use lower-case letters and digits, with single dots, dashes or underscores between them"
	}
	return "", ""
}

// hubHosts are Docker Hub's names.
var hubHosts = []string{"index.docker.io", "docker.io", "registry-1.docker.io", "registry.hub.docker.com", "hub.docker.com"}

// canonicalHost is lower case without the scheme's own port, and one of Docker
// Hub's names for all of them.
func canonicalHost(host string, plainHTTP bool) string {
	own := ":443"
	if plainHTTP {
		own = ":80"
	}
	host = strings.TrimSuffix(strings.ToLower(host), own)
	if slices.Contains(hubHosts, host) {
		return hubHosts[0]
	}
	return host
}

func joinPath(parts ...string) string {
	return strings.Join(slices.DeleteFunc(slices.Clone(parts), func(s string) bool { return s == "" }), "/")
}

// checkAllow is a network, an address, a host or an ending of hosts.
func checkAllow(s string) (what, hint string) {
	const want = "write a network like 10.0.0.0/8, an address, a host like s3.internal, or an ending like .s3.internal"
	if strings.Contains(s, "/") {
		network, err := netip.ParsePrefix(s)
		switch {
		case strings.Contains(s, "://"):
			return quote(s) + " is no network or host", "write the host alone"
		case err != nil:
			return quote(s) + " is no network", want
		case network.Masked() != network:
			return quote(s) + " has bits behind its mask", "write " + network.Masked().String()
		}
		return "", ""
	}
	host := strings.TrimPrefix(s, ".")
	if h, port, err := net.SplitHostPort(s); err == nil && checkPort(port, 1) {
		host = h
	}
	if !isHost(host) {
		return quote(s) + " is no network or host", want
	}
	return "", ""
}

// sortAllow sorts networks and hosts out.
func sortAllow(_ *walk, _ string, into reflect.Value) {
	r := into.Addr().Interface().(*Redirects)
	for _, s := range r.Allow {
		if network, err := netip.ParsePrefix(s); err == nil {
			r.Networks = append(r.Networks, network)
		} else if ip, err := netip.ParseAddr(s); err == nil {
			r.Networks = append(r.Networks, netip.PrefixFrom(ip, ip.BitLen()))
		} else if s != "" {
			r.Hosts = append(r.Hosts, strings.ToLower(s))
		}
	}
}
