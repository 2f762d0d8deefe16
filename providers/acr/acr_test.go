package acr_test

import (
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/twinport/twinport/providers/acr"
	"github.com/twinport/twinport/providers/generic"
	"github.com/twinport/twinport/providers/providertest"
	"github.com/twinport/twinport/replicator/oci"
)

const (
	tenant = "11111111-2222-3333-4444-555555555555"
	client = "66666666-7777-8888-9999-000000000000"
)

func all() []string { return []string{"pull", "push", "metadata_read", "catalog", "delete"} }

func secret(s string) generic.Secret { return func() (string, error) { return s, nil } }

// world is a fake registry with Entra before it, over real connections.
func world(t *testing.T, fake *providertest.ACR) generic.Spec {
	t.Helper()
	for _, name := range []string{"AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET", "AZURE_FEDERATED_TOKEN_FILE", "IDENTITY_ENDPOINT", "IDENTITY_HEADER"} {
		t.Setenv(name, "")
		if err := os.Unsetenv(name); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("AZURE_TOKEN_CREDENTIALS", "prod") // no tool of the machine's is asked
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	if fake.Upstream == nil {
		fake.Upstream = &providertest.Fake{}
	}
	if fake.May == nil {
		fake.May = all()
	}
	fake.Tenant, fake.Client = tenant, client
	if fake.Secret == "" {
		fake.Secret = "s3cr3t-of-the-principal"
	}
	server := httptest.NewServer(fake)
	t.Cleanup(server.Close)
	entra := httptest.NewTLSServer(fake.Entra())
	t.Cleanup(entra.Close)
	storage := httptest.NewServer(providertest.Storage{Fake: fake.Upstream, Fail: t.Errorf})
	t.Cleanup(storage.Close)
	fake.Upstream.Blobs = storage.URL
	fake.Service = strings.TrimPrefix(server.URL, "http://")
	t.Setenv("AZURE_AUTHORITY_HOST", entra.URL)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: entra.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return generic.Spec{
		Name: "eu", Kind: "acr", Host: fake.Service, PlainHTTP: true, TLS: generic.TLSFiles{CA: ca},
		Redirects: []string{strings.TrimPrefix(storage.URL, "http://")},
		Auth:      generic.Auth{Azure: &generic.Azure{Tenant: tenant, Client: client, Secret: secret(fake.Secret)}},
	}
}

func open(t *testing.T, spec generic.Spec) *acr.Registry {
	t.Helper()
	rt, err := generic.Transport(spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(rt.CloseIdleConnections)
	return over(t, spec, rt)
}

func over(t *testing.T, spec generic.Spec, rt http.RoundTripper) *acr.Registry {
	t.Helper()
	r, err := acr.New(spec, rt)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestContract(t *testing.T) {
	for name, before := range map[string]func(*testing.T) http.Handler{"memory": nil, "distribution": distribution} {
		t.Run(name, func(t *testing.T) {
			fake := &providertest.ACR{Upstream: &providertest.Fake{Deletes: providertest.DeletesDigests}}
			if before != nil {
				fake.Upstream.Upstream = before(t)
			}
			spec := world(t, fake)
			providertest.Run(t, providertest.Suite{
				Open:    func(t *testing.T) oci.Registry { return open(t, spec) },
				Catalog: true, Mount: true, Ranges: true, Referrers: before == nil, Strict: true, SHA512: true,
			})
		})
	}
}

func distribution(t *testing.T) http.Handler {
	return providertest.Proxy(providertest.Distribution(t, ""))
}

func TestDeleteOfALockedTag(t *testing.T) {
	fake := &providertest.ACR{Upstream: &providertest.Fake{}}
	repo := open(t, world(t, fake)).Repository("team/app").(*acr.Repository)
	providertest.PushImage(t, repo, "v1", nil)
	fake.Locked = []string{"team/app:v1"}
	var refused *oci.RegistryError
	if err := repo.DeleteTag(t.Context(), "v1"); !errors.Is(err, oci.ErrRefused) || !errors.As(err, &refused) || !strings.Contains(refused.Hint, "locked") {
		t.Errorf("a locked tag: %v", err)
	}
	fake.Locked, fake.May = nil, []string{"pull", "push"}
	repo = open(t, world(t, &providertest.ACR{Upstream: fake.Upstream, May: []string{"pull", "push"}})).Repository("team/app").(*acr.Repository)
	if err := repo.DeleteTag(t.Context(), "v1"); !errors.Is(err, oci.ErrDenied) || !errors.As(err, &refused) || !strings.Contains(refused.Hint, "AcrDelete") {
		t.Errorf("an identity that may not: %v", err)
	}
}
