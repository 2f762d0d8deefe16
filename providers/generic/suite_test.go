package generic_test

import (
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"

	"github.com/twinport/twinport/providers/generic"
	"github.com/twinport/twinport/providers/providertest"
	"github.com/twinport/twinport/replicator/oci"
)

// open gives a client for a handler.
func open(t *testing.T, h http.Handler, change func(*generic.Spec)) *generic.Registry {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return client(t, server.URL, change)
}

func client(t *testing.T, url string, change func(*generic.Spec)) *generic.Registry {
	t.Helper()
	spec := generic.Spec{Name: "eu", Kind: "oci", Host: strings.TrimPrefix(url, "http://"), PlainHTTP: true, Auth: generic.Auth{Anonymous: true}}
	if change != nil {
		change(&spec)
	}
	transport, err := generic.Transport(spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(transport.CloseIdleConnections)
	reg, err := generic.New(spec, transport)
	if err != nil {
		t.Fatal(err)
	}
	return reg
}

func plain(s string) generic.Secret { return func() (string, error) { return s, nil } }

func account(spec *generic.Spec) {
	spec.Auth = generic.Auth{Username: "robot", Password: plain("s3cr3t-password")}
}

func TestContract(t *testing.T) {
	whole := providertest.Suite{Catalog: true, Mount: true, Ranges: true, Referrers: true, Strict: true, Resume: true, SHA512: true}
	run := func(name string, s providertest.Suite, h http.Handler, change func(*generic.Spec)) {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(h)
			t.Cleanup(server.Close)
			s.Open = func(t *testing.T) oci.Registry { return client(t, server.URL, change) }
			providertest.Run(t, s)
		})
	}
	run("strict", whole, &providertest.Fake{Page: 10}, nil)
	run("basic", whole, &providertest.Fake{Username: "robot", Password: "s3cr3t-password"}, account)
	run("tokens", whole, &providertest.Fake{Username: "robot", Password: "s3cr3t-password", Tokens: true, Page: 10, MaxPage: 100}, account)
	run("prefix", whole, &providertest.Fake{Page: 3}, func(s *generic.Spec) { s.Prefix = "team/x" })
	poor := whole
	poor.Catalog, poor.Mount, poor.Ranges, poor.Referrers, poor.NoDeletes = false, false, false, false, true
	run("poor", poor, &providertest.Fake{NoCatalog: true, NoMount: true, NoRanges: true, NoReferrers: true, Deletes: providertest.DeletesNothing}, nil)

	quiet := registry.Logger(log.New(io.Discard, "", 0))
	log.SetOutput(io.Discard) // the in-memory registry writes mismatches there
	lax := providertest.Suite{Catalog: true, Ranges: true}
	run("in memory", lax, registry.New(quiet), nil)
	lax.Referrers = true
	run("in memory with referrers", lax, registry.New(quiet, registry.WithReferrersSupport(true)), nil)
}

func TestContractWithBlobsElsewhere(t *testing.T) {
	fake := &providertest.Fake{Username: "robot", Password: "s3cr3t-password", Tokens: true}
	server := httptest.NewServer(fake)
	t.Cleanup(server.Close)
	storage := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			t.Error("credentials reached the storage")
		}
		parts := strings.Split(strings.TrimPrefix(r.URL.Path, "/v2/"), "/blobs/")
		data, _ := fake.Blob(parts[0], asDigest(parts[1]))
		http.ServeContent(w, r, "", modTime, strings.NewReader(string(data)))
	}))
	t.Cleanup(storage.Close)
	fake.Blobs = storage.URL
	providertest.Run(t, providertest.Suite{
		Catalog: true, Mount: true, Ranges: true, Referrers: true, Strict: true, Resume: true, SHA512: true,
		Open: func(t *testing.T) oci.Registry {
			return client(t, server.URL, func(s *generic.Spec) {
				account(s)
				s.Redirects = []string{strings.TrimPrefix(storage.URL, "http://")}
			})
		},
	})
}
