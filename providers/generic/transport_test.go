package generic_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twinport/twinport/providers/generic"
	"github.com/twinport/twinport/providers/providertest"
	"github.com/twinport/twinport/replicator/oci"
)

func write(t *testing.T, name, kind string, der []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// clientCert makes a certificate of its own signing, with its key.
func clientCert(t *testing.T) (cert, key string, pool *x509.CertPool) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "robot"}, NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool = x509.NewCertPool()
	pool.AddCert(parsed)
	return write(t, "cert.pem", "CERTIFICATE", der), write(t, "key.pem", "EC PRIVATE KEY", keyDER), pool
}

func TestTLS(t *testing.T) {
	cert, key, pool := clientCert(t)
	server := httptest.NewUnstartedServer(&providertest.Fake{})
	server.TLS = &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}
	server.EnableHTTP2 = true
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	ca := write(t, "ca.pem", "CERTIFICATE", server.Certificate().Raw)
	host := strings.TrimPrefix(server.URL, "https://")
	for _, c := range []struct {
		name string
		spec generic.Spec
		hint string // empty: it works
	}{
		{"mutual", generic.Spec{TLS: generic.TLSFiles{CA: ca, Cert: cert, Key: key}}, ""},
		{"unknown authority", generic.Spec{TLS: generic.TLSFiles{Cert: cert, Key: key}}, "tls.ca"},
		{"no client certificate", generic.Spec{TLS: generic.TLSFiles{CA: ca}}, "tls.cert"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.spec.Name, c.spec.Host, c.spec.Auth.Anonymous = "eu", host, true
			transport, err := generic.Transport(c.spec)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(transport.CloseIdleConnections)
			reg, err := generic.New(c.spec, transport)
			if err != nil {
				t.Fatal(err)
			}
			err = reg.Ping(t.Context())
			if c.hint == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			var told *oci.RegistryError
			if !errors.Is(err, oci.ErrUnreachable) || !errors.As(err, &told) || !strings.Contains(told.Hint, c.hint) {
				t.Fatalf("got %v, want unreachable with %q", err, c.hint)
			}
		})
	}
	plain := httptest.NewServer(&providertest.Fake{})
	t.Cleanup(plain.Close)
	reg := client(t, plain.URL, func(s *generic.Spec) { s.PlainHTTP = false })
	var told *oci.RegistryError
	if err := reg.Ping(t.Context()); !errors.As(err, &told) || !strings.Contains(told.Hint, "plainHTTP") {
		t.Fatalf("TLS to a plain registry: %v, want a hint", err)
	}
}

func TestTLSFiles(t *testing.T) {
	cert, key, _ := clientCert(t)
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for want, files := range map[string]generic.TLSFiles{
		"no such file":   {CA: "/nowhere/ca.pem"},
		"no PEM":         {CA: empty},
		"go together":    {Cert: cert},
		"one is missing": {Key: key},
		"cert " + key:    {Cert: key, Key: cert},
	} {
		if _, err := generic.Transport(generic.Spec{Name: "eu", TLS: files}); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "eu") {
			t.Errorf("%+v: got %v, want %q", files, err, want)
		}
	}
}

// A request may ask for a connection that nobody used before.
func TestFreshConnection(t *testing.T) {
	var addresses []string
	reg := open(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { addresses = append(addresses, r.RemoteAddr) }), nil)
	for _, fresh := range []bool{false, false, true, false} {
		ctx := t.Context()
		if fresh {
			ctx = oci.WithFreshConnection(ctx)
		}
		if err := reg.Ping(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if addresses[0] != addresses[1] || addresses[2] == addresses[0] || addresses[3] != addresses[0] {
		t.Fatalf("connections from %v", addresses)
	}
}
