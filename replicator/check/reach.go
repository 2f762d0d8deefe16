package check

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/twinport/twinport/replicator/oci"
)

const (
	// endsSoon is how long before a certificate's end it is told.
	endsSoon = 21 * 24 * time.Hour
	// offClock is what clocks may differ unmentioned; farOff is what signatures bear.
	offClock = 5 * time.Second
	farOff   = 5 * time.Minute
	date     = "2006-01-02"
)

// reach looks how far a request gets: name, connection, TLS, answer, clock.
func (r *run) reach(ctx context.Context) {
	locator, is := r.s.Client.(oci.Locator)
	if !is {
		for _, name := range []string{cName, cConnect, cTLS} {
			r.found[name] = skipped("not tried: its client does not tell where it is")
		}
	} else {
		at, err := locator.Endpoint()
		if err != nil {
			r.found[cName] = failed(err)
			r.gone = "not tried: its client cannot be set up"
		}
		r.step(ctx, cName, "", reachTime, func(ctx context.Context) outcome { return r.name(ctx, at) })
		r.step(ctx, cConnect, "", reachTime, func(ctx context.Context) outcome { return r.connect(ctx, at) })
		plain := ""
		if at.TLS == nil {
			plain = "plain HTTP, as the config says"
		}
		r.step(ctx, cTLS, plain, reachTime, func(ctx context.Context) outcome { return r.tls(ctx, at) })
	}
	var clock outcome
	r.step(ctx, cAPI, "", askTime, func(ctx context.Context) outcome {
		var o outcome
		o, clock = r.api(ctx)
		return o
	})
	r.step(ctx, cClock, "", askTime, func(context.Context) outcome { return clock })
}

func (r *run) name(ctx context.Context, at oci.Endpoint) outcome {
	address, proxied := at.Address, ""
	if at.Proxy != "" {
		address, proxied = at.Proxy, "the proxy "
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return failed(err)
	}
	if net.ParseIP(host) != nil {
		return ok("%s%s is an address", proxied, host)
	}
	addresses, err := net.DefaultResolver.LookupHost(ctx, host)
	if err == nil {
		return ok("%s%s is %s", proxied, host, few(addresses))
	}
	r.gone = "not tried: the name does not resolve"
	var dns *net.DNSError
	if errors.As(err, &dns) && dns.IsNotFound {
		return failure("check the registry's address in the config", "%s%s: no such name", proxied, host)
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return failure("check this machine's DNS", "%s%s: %v", proxied, host, err)
}

func few(list []string) string {
	if len(list) > 4 {
		return strings.Join(list[:4], ", ") + fmt.Sprintf(" and %d more", len(list)-4)
	}
	return strings.Join(list, ", ")
}

func (r *run) connect(ctx context.Context, at oci.Endpoint) outcome {
	if at.Proxy != "" {
		at.Address = at.Proxy
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", at.Address)
	switch {
	case err == nil:
		_ = conn.Close() // nothing was sent
		if at.Proxy != "" {
			return ok("connected to the proxy %s", at.Proxy)
		}
		return ok("connected to %s", conn.RemoteAddr())
	case errors.Is(err, syscall.ECONNREFUSED):
		r.gone = "not tried: nothing listens there"
		return failure("look whether the registry is up, and check the port in its address", "%s: nothing listens there (connection refused)", at.Address)
	}
	r.gone = "not tried: there is no connection"
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return failure("look whether the registry is up, and what stands between (firewall, security group, route; HTTPS_PROXY where one has to be used)", "%s: %v", at.Address, err)
}

func (r *run) tls(ctx context.Context, at oci.Endpoint) outcome {
	if at.Proxy != "" {
		return skipped("not tried by itself: requests go through the proxy %s", at.Proxy)
	}
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", at.Address)
	if err != nil {
		return r.fail(fmt.Errorf("%s: %w", at.Address, err))
	}
	defer func() { _ = raw.Close() }() // nothing was sent
	conn := tls.Client(raw, at.TLS)
	if err := conn.HandshakeContext(ctx); err != nil {
		r.gone = "not tried: there is no trusted connection"
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return distrusted(err, at.TLS.ServerName)
	}
	state := conn.ConnectionState()
	leaf := state.PeerCertificates[0]
	ends := leaf.NotAfter
	if len(state.VerifiedChains) > 0 {
		for _, c := range state.VerifiedChains[0] {
			if c.NotAfter.Before(ends) {
				ends = c.NotAfter
			}
		}
	}
	detail := fmt.Sprintf("%s, certificate by %s until %s", tls.VersionName(state.Version), issuer(leaf), ends.UTC().Format(date))
	if left := time.Until(ends); left < endsSoon {
		return warning("renew the registry's certificate", "%s: %d days are left", detail, int(left.Hours()/24))
	}
	return ownCertificate(at.TLS, detail)
}

// ownCertificate looks at the end of the certificate that we show.
func ownCertificate(config *tls.Config, detail string) outcome {
	if config.GetClientCertificate == nil {
		return ok("%s", detail)
	}
	shown, err := config.GetClientCertificate(&tls.CertificateRequestInfo{})
	if err != nil {
		return failure("check tls.cert and tls.key", "%s; our own: %v", detail, err)
	}
	if len(shown.Certificate) == 0 {
		return ok("%s", detail)
	}
	leaf, err := x509.ParseCertificate(shown.Certificate[0])
	if err != nil {
		return failure("check tls.cert", "%s; our own: %v", detail, err)
	}
	detail += "; our own until " + leaf.NotAfter.UTC().Format(date)
	if time.Until(leaf.NotAfter) < endsSoon {
		return warning("renew tls.cert", "%s", detail)
	}
	return ok("%s", detail)
}

func issuer(c *x509.Certificate) string {
	switch {
	case c.Issuer.CommonName != "":
		return c.Issuer.CommonName
	case len(c.Issuer.Organization) > 0:
		return c.Issuer.Organization[0]
	}
	return "an unnamed issuer"
}

// distrusted tells what a handshake failed for.
func distrusted(err error, host string) outcome {
	var (
		unknown x509.UnknownAuthorityError
		name    x509.HostnameError
		invalid x509.CertificateInvalidError
		record  tls.RecordHeaderError
		op      *net.OpError
	)
	switch {
	case errors.As(err, &unknown):
		by := "an unknown authority"
		if unknown.Cert != nil {
			by = issuer(unknown.Cert) + ", which is not trusted here"
		}
		return failure("give the authority's certificate as tls.ca (a PEM file)", "the certificate is signed by %s", by)
	case errors.As(err, &name):
		names := append([]string(nil), name.Certificate.DNSNames...)
		for _, ip := range name.Certificate.IPAddresses {
			names = append(names, ip.String())
		}
		return failure("use one of its names in the registry's address, or have it give a certificate for this one", "the certificate is for %s, not for %s", few(names), host)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return failure("renew the registry's certificate, or set this machine's clock", "the certificate is valid from %s to %s, and here it is %s",
			invalid.Cert.NotBefore.UTC().Format(date), invalid.Cert.NotAfter.UTC().Format(date), time.Now().UTC().Format(date))
	case errors.As(err, &invalid):
		return failure("have the registry give a proper certificate", "%v", invalid)
	case errors.As(err, &record):
		return failure("set plainHTTP: true where that is meant, or check the port", "the registry does not speak TLS there")
	case errors.As(err, &op) && op.Op == "remote error":
		return failure("the registry wants another certificate of ours: check tls.cert and tls.key", "the registry ended the handshake: %v", op.Err)
	}
	return failure("look what stands before the registry at this port", "no TLS handshake: %v", err)
}

// api asks for the registry's first answer, and takes its time from it.
func (r *run) api(ctx context.Context) (api, clock outcome) {
	keeper, is := r.s.Client.(oci.Timekeeper)
	if !is {
		if err := r.s.Client.Ping(ctx); err != nil {
			return r.mute(err), outcome{}
		}
		return ok("answers as a registry"), skipped("not tried: its client does not tell the registry's time")
	}
	asked := time.Now()
	told, err := keeper.Time(ctx)
	if err != nil {
		return r.mute(err), outcome{}
	}
	answered := time.Now()
	took := answered.Sub(asked)
	return ok("answers as a registry in %s", took.Round(time.Millisecond)), r.clock(told, asked.Add(took/2))
}

// mute is an answer to `GET /v2/` that is none.
func (r *run) mute(err error) outcome {
	o := r.fail(err)
	r.gone = "not tried: the registry does not answer"
	if errors.Is(err, oci.ErrNotFound) || errors.Is(err, oci.ErrInvalid) {
		o.hint = "no registry is there: check host, port and prefix of the address"
	}
	return o
}

// clock compares a registry's time, told to the second, with ours.
func (r *run) clock(told, here time.Time) outcome {
	if told.IsZero() {
		return skipped("the registry's answers tell no time")
	}
	off := here.Sub(told.Add(500 * time.Millisecond)).Round(time.Second)
	way := "ahead of"
	if off < 0 {
		off, way = -off, "behind"
	}
	switch {
	case off <= offClock:
		return ok("within %s of the registry's", max(off, time.Second))
	case off >= farOff && r.s.Signs:
		return failure("set this machine's clock (chrony, systemd-timesyncd): the provider refuses what is signed 5 minutes off",
			"this machine is %s %s the registry", off, way)
	}
	return warning("set this machine's clock (chrony, systemd-timesyncd), or the registry's: lag and ages are told by both",
		"this machine is %s %s the registry", off, way)
}
