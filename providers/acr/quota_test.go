package acr_test

import (
	"testing"
	"testing/synctest"

	"github.com/twinport/twinport/providers/acr"
	"github.com/twinport/twinport/providers/generic"
	"github.com/twinport/twinport/providers/providertest"
	"github.com/twinport/twinport/replicator/limit"
)

// TestBackfillWithinQuotas: with the quotas of the smaller tiers enforced, a
// backfill runs into none and uses most of the writes, which starts, uploads and
// manifests share.
func TestBackfillWithinQuotas(t *testing.T) {
	t.Setenv("AZURE_AUTHORITY_HOST", "https://entra.example")
	synctest.Test(t, func(t *testing.T) {
		const write = 2000.0 / 60
		fake := &providertest.ACR{
			Upstream: &providertest.Fake{}, Service: "contosodr.azurecr.io", May: all(), Tenant: tenant, Client: client, Secret: "s3cr3t-of-the-principal",
			Rates: map[string]float64{"read": 10_000.0 / 60, "write": write, "referrers": 500.0 / 60},
		}
		spec := generic.Spec{
			Name: "eu", Kind: "acr", Host: fake.Service,
			Auth: generic.Auth{Azure: &generic.Azure{Tenant: tenant, Client: client, Secret: secret(fake.Secret)}},
		}
		gate := limit.New(limit.Spec{Registry: "eu", Rates: acr.Rates}, providertest.Direct{"contosodr.azurecr.io": fake, "entra.example": fake.Entra()}, nil)
		repo := over(t, spec, gate).Repository("team/app")
		rate := providertest.Backfill(t, repo, 200, 32)
		t.Logf("%.1f writes a second of %.1f", rate, write)
		if fake.Throttled() > 0 {
			t.Errorf("%d requests over a quota", fake.Throttled())
		}
		if rate < 0.8*write {
			t.Errorf("%.1f writes a second of %.1f", rate, write)
		}
	})
}
