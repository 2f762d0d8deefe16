package acr_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinport/twinport/providers/generic"
	"github.com/twinport/twinport/providers/providertest"
	"github.com/twinport/twinport/replicator/oci"
)

func write(t *testing.T, name, content string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestIdentities logs in by each kind of identity.
func TestIdentities(t *testing.T) {
	cases := map[string]func(t *testing.T, fake *providertest.ACR, spec *generic.Spec){
		"service principal": func(*testing.T, *providertest.ACR, *generic.Spec) {},
		"environment": func(t *testing.T, fake *providertest.ACR, spec *generic.Spec) {
			spec.Auth.Azure = nil
			t.Setenv("AZURE_TENANT_ID", tenant)
			t.Setenv("AZURE_CLIENT_ID", client)
			t.Setenv("AZURE_CLIENT_SECRET", fake.Secret)
		},
		"workload identity": func(t *testing.T, fake *providertest.ACR, spec *generic.Spec) {
			fake.Federated = "kubernetes-token"
			spec.Auth.Azure = &generic.Azure{Client: client}
			t.Setenv("AZURE_TENANT_ID", tenant)
			t.Setenv("AZURE_FEDERATED_TOKEN_FILE", write(t, "token", fake.Federated))
		},
		"managed identity": func(t *testing.T, fake *providertest.ACR, spec *generic.Spec) {
			server := httptest.NewServer(fake.ManagedIdentity("header-secret"))
			t.Cleanup(server.Close)
			spec.Auth.Azure = &generic.Azure{Client: client}
			t.Setenv("IDENTITY_ENDPOINT", server.URL)
			t.Setenv("IDENTITY_HEADER", "header-secret")
		},
		"docker's config": func(t *testing.T, fake *providertest.ACR, spec *generic.Spec) {
			fake.GiveRefresh("token-of-az-acr-login")
			spec.Auth.Azure = nil
			t.Setenv("AZURE_TOKEN_CREDENTIALS", "EnvironmentCredential")
			config, err := json.Marshal(map[string]any{"auths": map[string]any{spec.Host: map[string]string{
				"username": "00000000-0000-0000-0000-000000000000", "password": "token-of-az-acr-login",
			}}})
			if err != nil {
				t.Fatal(err)
			}
			t.Setenv("DOCKER_CONFIG", filepath.Dir(write(t, "config.json", string(config))))
		},
	}
	for name, set := range cases {
		t.Run(name, func(t *testing.T) {
			fake := &providertest.ACR{}
			spec := world(t, fake)
			set(t, fake, &spec)
			repo := open(t, spec).Repository("team/app")
			m := providertest.PushImage(t, repo, "v1", nil)
			if desc, err := repo.Resolve(t.Context(), "v1"); err != nil || desc.Digest != m.Digest {
				t.Fatalf("%v, %v", desc, err)
			}
		})
	}
}

// TestLoginRefused says what to do for each way in which a login fails.
func TestLoginRefused(t *testing.T) {
	cases := map[string]struct {
		set  func(t *testing.T, fake *providertest.ACR, spec *generic.Spec)
		want string
	}{
		"wrong secret": {func(_ *testing.T, _ *providertest.ACR, spec *generic.Spec) {
			spec.Auth.Azure.Secret = secret("s3cr3t-that-is-wrong")
		}, "AADSTS7000215"},
		"no identity": {func(t *testing.T, _ *providertest.ACR, spec *generic.Spec) {
			spec.Auth.Azure = nil
			t.Setenv("AZURE_TOKEN_CREDENTIALS", "EnvironmentCredential")
		}, "auth.azure"},
		"not trusted": {func(_ *testing.T, fake *providertest.ACR, _ *generic.Spec) {
			fake.Before = func(w http.ResponseWriter, r *http.Request) bool {
				if r.URL.Path == "/oauth2/exchange" {
					providertest.Fail(w, http.StatusUnauthorized, "UNAUTHORIZED", "authentication required")
					return true
				}
				return false
			}
		}, "AcrPull"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			fake := &providertest.ACR{}
			spec := world(t, fake)
			c.set(t, fake, &spec)
			_, err := open(t, spec).Repository("team/app").Resolve(t.Context(), "v1")
			if !errors.Is(err, oci.ErrDenied) || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "s3cr3t") {
				t.Fatalf("%v, want denied with %q", err, c.want)
			}
		})
	}
}

// TestRoles names the role that each missing permission needs.
func TestRoles(t *testing.T) {
	for missing, want := range map[string]string{"pull": "AcrPull", "push": "AcrPush", "catalog": "Catalog Lister", "metadata_read": ""} {
		t.Run(missing, func(t *testing.T) {
			fake := &providertest.ACR{}
			spec := world(t, fake)
			providertest.PushImage(t, open(t, spec).Repository("team/app"), "v1", nil)
			fake.May = nil
			for _, action := range all() {
				if action != missing {
					fake.May = append(fake.May, action)
				}
			}
			reg := open(t, spec)
			repo := reg.Repository("team/app")
			var err error
			kind := oci.ErrDenied
			switch missing {
			case "pull":
				_, err = repo.Resolve(t.Context(), "v1")
			case "push":
				_, _, err = repo.Start(t.Context(), providertest.Describe("", []byte("x")), nil)
			case "catalog":
				kind = oci.ErrUnlistable
				for _, err = range reg.Repositories(t.Context()) {
				}
			case "metadata_read": // the plain list serves instead
				n := 0
				for tag, err := range repo.Tags(t.Context()) {
					if err != nil || tag.Name != "v1" {
						t.Fatalf("%v, %v", tag, err)
					}
					n++
				}
				if n != 1 {
					t.Fatalf("%d tags", n)
				}
				return
			}
			if !errors.Is(err, kind) || !strings.Contains(err.Error(), want) {
				t.Fatalf("%v, want %q", err, want)
			}
		})
	}
}

// TestSixHours runs on simulated time with tokens of each hop that end every
// few minutes: nothing fails.
func TestSixHours(t *testing.T) {
	t.Setenv("AZURE_AUTHORITY_HOST", "https://entra.example")
	synctest.Test(t, func(t *testing.T) {
		fake := &providertest.ACR{
			Upstream: &providertest.Fake{}, Service: "contosodr.azurecr.io", May: all(), Tenant: tenant, Client: client, Secret: "s3cr3t-of-the-principal",
			EntraLife: 10 * time.Minute, RefreshLife: 7 * time.Minute, AccessLife: 3 * time.Minute,
		}
		direct := providertest.Direct{"contosodr.azurecr.io": fake, "entra.example": fake.Entra()}
		spec := generic.Spec{
			Name: "eu", Kind: "acr", Host: fake.Service,
			Auth: generic.Auth{Azure: &generic.Azure{Tenant: tenant, Client: client, Secret: secret(fake.Secret)}},
		}
		repo := over(t, spec, direct).Repository("team/app")
		providertest.SixHours(t, repo, fake.Revoke)
		if n := fake.Count("POST", "/oauth2/exchange"); n < 360/7 || n > 250 {
			t.Errorf("%d exchanges in six hours", n)
		}
	})
}
