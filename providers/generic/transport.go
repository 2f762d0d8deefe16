package generic

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"syscall"
	"time"

	"github.com/twinport/twinport/replicator/oci"
)

const (
	dialTimeout      = 10 * time.Second
	handshakeTimeout = 15 * time.Second
	// commitTimeout is how long a registry may work on what it was sent before
	// it answers: storages move a blob of many GiB when its upload ends. Other
	// requests get the idle time.
	commitTimeout = 10 * time.Minute
	// continueTimeout is how long a body waits for leave to be sent.
	continueTimeout = 3 * time.Second
)

// Connections are those to one registry and to where it sends us.
type Connections struct {
	*http.Transport
	own     *url.URL
	stocked *stock
}

// Warm sees to it that n connections to the registry's host are open, whoever
// uses them, or will be in a moment, at most 64. It waits for nothing. Those
// that no request takes within two seconds are closed again. Behind an HTTP
// proxy it does nothing.
func (c *Connections) Warm(n int) {
	if proxy, err := c.Proxy(&http.Request{URL: c.own}); proxy == nil && err == nil {
		c.stocked.fill(n)
	}
}

// CloseIdleConnections closes what no request uses.
func (c *Connections) CloseIdleConnections() {
	c.stocked.empty()
	c.Transport.CloseIdleConnections()
}

// Transport makes the connections to one registry: HTTP/1.1 only, since one
// HTTP/2 connection is one congestion window, and many kept warm. The limiter
// goes around it.
func Transport(spec Spec) (*Connections, error) {
	config, err := tlsConfig(spec.TLS)
	if err != nil {
		return nil, fmt.Errorf("tls of registry %s: %w", spec.Name, err)
	}
	allow, err := newAllowList(spec.Redirects)
	if err != nil {
		return nil, fmt.Errorf("redirects of registry %s: %w", spec.Name, err)
	}
	dialer := &net.Dialer{
		Timeout: dialTimeout, KeepAlive: 30 * time.Second,
		ControlContext: func(ctx context.Context, _, address string, _ syscall.RawConn) error {
			if !isGuarded(ctx) {
				return nil
			}
			return allow.checkDialed(address)
		},
	}
	dial := dialer.DialContext
	own := &url.URL{Scheme: "https", Host: spec.Host}
	if spec.PlainHTTP {
		own.Scheme = "http"
	}
	if spec.Pinned {
		dial = (&pin{host: withPort(own), next: dial, now: time.Now}).dial
	}
	stocked := &stock{host: withPort(own), unused: unusedFor}
	secure := func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return handshake(ctx, conn, config, address)
	}
	stocked.open = secure
	if spec.PlainHTTP {
		stocked.open = dial
	}
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	t := &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            stocked.first(dial, spec.PlainHTTP),
		DialTLSContext:         stocked.first(secure, !spec.PlainHTTP),
		TLSClientConfig:        config, // of registries behind a proxy
		TLSHandshakeTimeout:    handshakeTimeout,
		Protocols:              &protocols,
		DisableCompression:     true,
		MaxIdleConns:           512,
		MaxIdleConnsPerHost:    128,
		IdleConnTimeout:        90 * time.Second,
		ResponseHeaderTimeout:  commitTimeout,
		ExpectContinueTimeout:  continueTimeout,
		MaxResponseHeaderBytes: 1 << 20,
		// Great bodies are read past these buffers and fill them once.
		WriteBufferSize: 16 << 10,
		ReadBufferSize:  8 << 10,
	}
	single := t.Clone()
	single.DisableKeepAlives = true
	for _, scheme := range []string{"http", "https"} {
		t.RegisterProtocol(scheme, freshConnections{single})
	}
	return &Connections{Transport: t, own: own, stocked: stocked}, nil
}

// handshake speaks TLS with who is at an address.
func handshake(ctx context.Context, conn net.Conn, config *tls.Config, address string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		_ = conn.Close() // nothing was sent
		return nil, err
	}
	config = config.Clone()
	config.ServerName = host
	ctx, cancel := context.WithTimeoutCause(ctx, handshakeTimeout, errHandshake)
	defer cancel()
	secure := tls.Client(conn, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = conn.Close() // the handshake tells why
		if errors.Is(context.Cause(ctx), errHandshake) {
			return nil, errHandshake
		}
		return nil, err
	}
	return secure, nil
}

var errHandshake = fmt.Errorf("no TLS handshake within %s: %w", handshakeTimeout, os.ErrDeadlineExceeded)

// freshConnections gives requests that ask for it a connection of their own.
type freshConnections struct{ single *http.Transport }

func (f freshConnections) RoundTrip(req *http.Request) (*http.Response, error) {
	if oci.IsFreshConnection(req.Context()) {
		return f.single.RoundTrip(req)
	}
	return nil, http.ErrSkipAltProtocol
}

func tlsConfig(files TLSFiles) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if files.CA != "" {
		pem, err := os.ReadFile(files.CA)
		if err != nil {
			return nil, fmt.Errorf("ca: %w", err)
		}
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("ca: %s holds no PEM certificate", files.CA)
		}
		config.RootCAs = pool
	}
	switch {
	case files.Cert == "" && files.Key == "":
	case files.Cert == "" || files.Key == "":
		return nil, errors.New("cert and key go together; one is missing")
	default:
		if _, err := tls.LoadX509KeyPair(files.Cert, files.Key); err != nil {
			return nil, fmt.Errorf("cert %s: %w", files.Cert, err)
		}
		// read again at each handshake, so that a renewed certificate works
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			cert, err := tls.LoadX509KeyPair(files.Cert, files.Key)
			return &cert, err
		}
	}
	return config, nil
}

type guardKey struct{}

// withGuard marks a request to a host that is not the registry's own: its
// connection may not lead into private networks.
func withGuard(ctx context.Context) context.Context {
	return context.WithValue(ctx, guardKey{}, true)
}

func isGuarded(ctx context.Context) bool {
	guarded, _ := ctx.Value(guardKey{}).(bool)
	return guarded
}
