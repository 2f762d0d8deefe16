package check

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/twinport/twinport/replicator/oci"
	"github.com/twinport/twinport/replicator/oci/ocitest"
)

// located is a registry that tells where it is.
type located struct {
	*registry
	at oci.Endpoint
}

func (l located) Endpoint() (oci.Endpoint, error) { return l.at, nil }

// certificate makes one for a name that begins an hour ago and ends in so long.
func certificate(t *testing.T, name string, life time.Duration) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority of " + name}, DNSNames: []string{name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(min(life, 0) - time.Hour), NotAfter: time.Now().Add(life), KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// handshakes answers with a certificate until the test ends.
func handshakes(t *testing.T, config *tls.Config) string {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_ = conn.(*tls.Conn).Handshake()
			_ = conn.Close()
		}
	}()
	return l.Addr().String()
}

func TestTLS(t *testing.T) {
	const day = 24 * time.Hour
	for name, c := range map[string]struct {
		life         time.Duration
		named        string // by the certificate
		trusted      bool
		own          time.Duration // of our certificate, 0: none
		want         State
		detail, hint string
	}{
		"well":              {90 * day, "us.example.com", true, 0, OK, "certificate by authority of us.example.com until ", ""},
		"ends soon":         {10 * day, "us.example.com", true, 0, Warning, "9 days are left", "renew the registry's"},
		"has ended":         {-day, "us.example.com", true, 0, Failed, "valid from", "renew the registry's"},
		"not trusted":       {90 * day, "us.example.com", false, 0, Failed, "authority of us.example.com, which is not trusted here", "tls.ca"},
		"another's":         {90 * day, "eu.example.com", true, 0, Failed, "for eu.example.com, not for us.example.com", "address"},
		"with our own":      {90 * day, "us.example.com", true, 90 * day, OK, "our own until", ""},
		"our own ends soon": {90 * day, "us.example.com", true, day, Warning, "our own until", "renew tls.cert"},
	} {
		t.Run(name, func(t *testing.T) {
			served := certificate(t, c.named, c.life)
			config := &tls.Config{ServerName: "us.example.com", RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12}
			if c.trusted {
				config.RootCAs.AddCert(served.Leaf)
			}
			if c.own != 0 {
				own := certificate(t, "twinport", c.own)
				config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &own, nil }
			}
			r, s := furnished(ocitest.Options{})
			s.Client = located{r, oci.Endpoint{Address: handshakes(t, &tls.Config{Certificates: []tls.Certificate{served}, MinVersion: tls.VersionTLS12}), TLS: config}}
			report := Run(t.Context(), []Subject{s})[0]
			if got := find(t, report, cTLS); got.State != c.want || !strings.Contains(got.Detail, c.detail) || !strings.Contains(got.Hint, c.hint) {
				t.Errorf("%+v", got)
			}
			after := OK
			if c.want == Failed {
				after = Skipped
			}
			if got := find(t, report, cAPI); got.State != after {
				t.Errorf("%+v, want %s", got, after)
			}
		})
	}
}

// TestProxy: where a proxy stands between, it is what has to be reached.
func TestProxy(t *testing.T) {
	proxy, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = proxy.Close() })
	r, s := furnished(ocitest.Options{})
	s.Client = located{r, oci.Endpoint{Address: "us.invalid:443", TLS: &tls.Config{MinVersion: tls.VersionTLS12}, Proxy: proxy.Addr().String()}}
	report := Run(t.Context(), []Subject{s})[0]
	for check, want := range map[string]Check{
		cName:    {State: OK, Detail: "the proxy 127.0.0.1 is an address"},
		cConnect: {State: OK, Detail: "connected to the proxy " + proxy.Addr().String()},
		cTLS:     {State: Skipped, Detail: "not tried by itself: requests go through the proxy " + proxy.Addr().String()},
		cAPI:     {State: OK},
	} {
		if got := find(t, report, check); got.State != want.State || !strings.HasPrefix(got.Detail, want.Detail) {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
}

// TestNoHandshake: a port that takes connections and says nothing.
func TestNoHandshake(t *testing.T) {
	silent, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = silent.Close() })
	r := &run{s: Subject{Name: "us"}, found: map[string]outcome{}}
	ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, late(reachTime))
	defer cancel()
	got := r.tls(ctx, oci.Endpoint{Address: silent.Addr().String(), TLS: &tls.Config{ServerName: "us", MinVersion: tls.VersionTLS12}})
	if got.state != Failed || !strings.Contains(got.detail, "no answer within 5s") || r.gone == "" {
		t.Errorf("%+v", got)
	}
}
