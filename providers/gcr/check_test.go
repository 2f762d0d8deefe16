package gcr_test

import (
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/twinport/twinport/providers/gcr"
	"github.com/twinport/twinport/providers/generic"
	"github.com/twinport/twinport/providers/providertest"
)

// TestAccount names whom each kind of identity is, with nothing secret.
func TestAccount(t *testing.T) {
	for name, c := range map[string]struct {
		file any // of credentials; nil: the metadata server's
		want string
	}{
		"a machine": {nil, "machine@acme-prod.iam.gserviceaccount.com"},
		"an impersonated account": {map[string]any{
			"type": "impersonated_service_account", "service_account_impersonation_url": "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/act@acme.iam.gserviceaccount.com:generateAccessToken",
			"source_credentials": map[string]string{"type": "authorized_user", "refresh_token": "s3cr3t"},
		}, "act@acme.iam.gserviceaccount.com"},
		"a workload": {map[string]any{"type": "external_account", "audience": "//iam/pool", "credential_source": map[string]string{"file": "/nowhere"}}, "the workload identity of //iam/pool"},
		"a person":   {map[string]any{"type": "authorized_user", "client_id": "id", "refresh_token": "s3cr3t", "token_uri": "http://127.0.0.1:1/"}, "a person's login (application default credentials)"},
	} {
		t.Run(name, func(t *testing.T) {
			fake := &providertest.Google{}
			spec := world(t, fake)
			spec.Auth.Google = nil
			if c.file != nil {
				spec.Auth.Google = &generic.Google{File: write(t, "credentials.json", c.file)}
			} else {
				server := httptest.NewServer(fake.Metadata())
				t.Cleanup(server.Close)
				t.Setenv("GCE_METADATA_HOST", strings.TrimPrefix(server.URL, "http://"))
			}
			got, err := open(t, spec).Account(t.Context())
			if got != c.want || (err == nil) != (c.file == nil) {
				t.Errorf("%q, %v", got, err)
			}
			if err != nil && strings.Contains(err.Error(), "s3cr3t") {
				t.Errorf("a secret is told: %v", err)
			}
		})
	}
}

// TestReady: what has to be made is looked for where it lies.
func TestReady(t *testing.T) {
	fake := &providertest.Google{Repositories: []string{"team"}}
	spec := world(t, fake)
	spec.Prefix = "acme-prod"
	reg := open(t, spec)
	if err := reg.Ready(t.Context(), "team/any/image"); err != nil {
		t.Error(err)
	}
	if err := reg.Ready(t.Context(), "web/app"); err == nil || !strings.Contains(err.Error(), "gcloud artifacts repositories create web") {
		t.Errorf("one that is not there: %v", err)
	}
	if err := reg.MayCreate(t.Context(), "team/app"); err != nil || fake.Count("POST", "/repositories") != 1 {
		t.Errorf("may create: %v", err)
	}
	fixed, err := reg.Repository("team/app").(*gcr.Repository).FixesTags(t.Context())
	if err != nil || fixed {
		t.Errorf("fixed %v, %v", fixed, err)
	}
}
