package acr_test

import (
	"bytes"
	"io"
	"testing"

	"github.com/twinport/twinport/providers/generic"
	"github.com/twinport/twinport/providers/providertest"
)

// TestDataEndpoints: layers come from the registry's own data endpoints, which
// behind a private link have private addresses; no credential goes there.
func TestDataEndpoints(t *testing.T) {
	for _, c := range []struct{ host, data string }{
		{"contosodr.azurecr.io", "contosodr.westeurope.data.azurecr.io"},
		{"contosodr.westeurope.geo.azurecr.io", "contosodr.westeurope.data.azurecr.io"},
		{"contosodr.azurecr.cn", "contosodr.chinaeast2.data.azurecr.cn"},
	} {
		t.Setenv("AZURE_AUTHORITY_HOST", "https://entra.example")
		fake := &providertest.ACR{
			Upstream: &providertest.Fake{Blobs: "https://" + c.data}, Service: c.host, May: all(), Tenant: tenant, Client: client, Secret: "s3cr3t-of-the-principal",
		}
		spec := generic.Spec{
			Name: "eu", Kind: "acr", Host: c.host,
			Auth: generic.Auth{Azure: &generic.Azure{Tenant: tenant, Client: client, Secret: secret(fake.Secret)}},
		}
		repo := over(t, spec, providertest.Direct{
			c.host: fake, "entra.example": fake.Entra(), c.data: providertest.Storage{Fake: fake.Upstream, Fail: t.Errorf},
		}).Repository("team/app")
		content := providertest.Random(100)
		desc := providertest.PushBlob(t, repo, content)
		r, err := repo.Fetch(t.Context(), desc)
		if err != nil {
			t.Errorf("%s sends to %s: %v", c.host, c.data, err)
			continue
		}
		got, err := io.ReadAll(r)
		if _ = r.Close(); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%s: %d bytes, %v", c.data, len(got), err)
		}
	}
}
