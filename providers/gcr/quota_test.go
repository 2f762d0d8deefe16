package gcr_test

import (
	"testing"
	"testing/synctest"

	"github.com/twinport/twinport/providers/gcr"
	"github.com/twinport/twinport/providers/generic"
	"github.com/twinport/twinport/providers/providertest"
	"github.com/twinport/twinport/replicator/limit"
)

// TestBackfillWithinQuotas: with the documented quotas enforced, a backfill runs
// into none and uses most of the writes, which starts, uploads and manifests
// share.
func TestBackfillWithinQuotas(t *testing.T) {
	fake := &providertest.Google{Project: "acme-prod"} // made before the bubble: its lock is shared
	file := write(t, "key.json", fake.KeyFile("https://oauth2.example/token"))
	synctest.Test(t, func(t *testing.T) {
		const host = "europe-west1-docker.pkg.dev"
		fake.Upstream, fake.Location, fake.Repositories, fake.May = &providertest.Fake{}, "europe-west1", []string{"team"}, all()
		fake.Rate, fake.WriteRate = 60_000.0/60, 18_000.0/60
		direct := providertest.Direct{host: fake, "oauth2.example": fake.Token()}
		spec := generic.Spec{Name: "eu", Kind: "gcr", Host: host, Prefix: "acme-prod/team", Auth: generic.Auth{Google: &generic.Google{File: file}}}
		repo := over(t, spec, limit.New(limit.Spec{Registry: "eu", Rates: gcr.Rates}, direct, nil)).Repository("app")
		rate := providertest.Backfill(t, repo, 400, 64)
		t.Logf("%.1f writes a second of %.1f", rate, fake.WriteRate)
		if fake.Throttled() > 0 {
			t.Errorf("%d requests over a quota", fake.Throttled())
		}
		if rate < 0.8*fake.WriteRate {
			t.Errorf("%.1f writes a second of %.1f", rate, fake.WriteRate)
		}
	})
}
