package gcr_test

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

func write(t *testing.T, name string, content any) string {
	t.Helper()
	text, ok := content.([]byte)
	if !ok {
		var err error
		if text, err = json.Marshal(content); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// sts is Google's exchange for workload identity federation, and what acts for
// a service account.
func sts(t *testing.T, fake *providertest.Google) *httptest.Server {
	t.Helper()
	mux := http.NewServeMux()
	metadata := fake.Metadata()
	give := func(w http.ResponseWriter) string {
		r := httptest.NewRequest(http.MethodGet, "/computeMetadata/v1/instance/service-accounts/default/token", nil)
		r.Header.Set("Metadata-Flavor", "Google")
		rec := httptest.NewRecorder()
		metadata.ServeHTTP(rec, r)
		var doc map[string]any
		if err := json.Unmarshal(rec.Body.Bytes(), &doc); err != nil {
			t.Error(err)
		}
		if w != nil {
			_ = json.NewEncoder(w).Encode(doc)
		}
		return doc["access_token"].(string)
	}
	mux.HandleFunc("/sts", func(w http.ResponseWriter, r *http.Request) {
		if r.ParseForm() != nil || r.PostForm.Get("subject_token") != "workload-token" || r.PostForm.Get("audience") != "//iam/pool" {
			w.WriteHeader(http.StatusBadRequest)
			_, _ = w.Write([]byte(`{"error":"invalid_grant","error_description":"the token is not taken"}`))
			return
		}
		give(w)
	})
	mux.HandleFunc("/act", func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.Header.Get("Authorization"), "Bearer ya29.") {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"accessToken": give(nil), "expireTime": time.Now().Add(time.Hour).UTC().Format(time.RFC3339)})
	})
	mux.HandleFunc("/user", func(w http.ResponseWriter, r *http.Request) {
		if r.ParseForm() != nil || r.PostForm.Get("refresh_token") != "refresh" {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		give(w)
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server
}

// TestIdentities logs in by each kind of identity.
func TestIdentities(t *testing.T) {
	federation := func(t *testing.T, at string, more map[string]any) map[string]any {
		doc := map[string]any{
			"type": "external_account", "audience": "//iam/pool", "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
			"token_url": at + "/sts", "credential_source": map[string]any{"file": write(t, "token", []byte("workload-token\n"))},
		}
		for k, v := range more {
			doc[k] = v
		}
		return doc
	}
	cases := map[string]func(t *testing.T, fake *providertest.Google, spec *generic.Spec){
		"key of the config": func(*testing.T, *providertest.Google, *generic.Spec) {},
		"default credentials": func(t *testing.T, _ *providertest.Google, spec *generic.Spec) {
			t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", spec.Auth.Google.File)
			spec.Auth.Google = nil
		},
		"metadata server": func(t *testing.T, fake *providertest.Google, spec *generic.Spec) {
			server := httptest.NewServer(fake.Metadata())
			t.Cleanup(server.Close)
			t.Setenv("GCE_METADATA_HOST", strings.TrimPrefix(server.URL, "http://"))
			spec.Auth.Google = nil
		},
		"federation": func(t *testing.T, fake *providertest.Google, spec *generic.Spec) {
			spec.Auth.Google.File = write(t, "wif.json", federation(t, sts(t, fake).URL, nil))
		},
		"federation that acts for an account": func(t *testing.T, fake *providertest.Google, spec *generic.Spec) {
			at := sts(t, fake).URL
			spec.Auth.Google.File = write(t, "wif.json", federation(t, at, map[string]any{"service_account_impersonation_url": at + "/act"}))
		},
		"a person's": func(t *testing.T, fake *providertest.Google, spec *generic.Spec) {
			spec.Auth.Google.File = write(t, "adc.json", map[string]string{
				"type": "authorized_user", "client_id": "c", "client_secret": "s", "refresh_token": "refresh", "token_uri": sts(t, fake).URL + "/user",
			})
		},
	}
	for name, set := range cases {
		t.Run(name, func(t *testing.T) {
			fake := &providertest.Google{}
			spec := world(t, fake)
			set(t, fake, &spec)
			repo := open(t, spec).Repository("app")
			m := providertest.PushImage(t, repo, "v1", nil)
			if desc, err := repo.Resolve(t.Context(), "v1"); err != nil || desc.Digest != m.Digest {
				t.Fatalf("%v, %v", desc, err)
			}
		})
	}
}

func TestLoginRefused(t *testing.T) {
	stranger := &providertest.Google{Project: "acme-prod"}
	cases := map[string]struct {
		file any
		want string
	}{
		"another key":   {nil, "Invalid JWT Signature"},
		"no JSON":       {[]byte("s3cr3t"), "no credential file"},
		"unknown type":  {map[string]string{"type": "gdch_service_account"}, "gdch_service_account"},
		"no private":    {map[string]string{"type": "service_account", "client_email": "x"}, "incomplete"},
		"from AWS":      {map[string]any{"type": "external_account", "credential_source": map[string]string{"environment_id": "aws1"}}, "--credential-source-file"},
		"missing token": {map[string]any{"type": "external_account", "token_url": "https://x.example", "credential_source": map[string]string{"file": "/nowhere/token"}}, "workload's token"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			fake := &providertest.Google{}
			spec := world(t, fake)
			if c.file == nil {
				tokens := httptest.NewServer(fake.Token())
				t.Cleanup(tokens.Close)
				c.file = stranger.KeyFile(tokens.URL)
			}
			spec.Auth.Google.File = write(t, "key.json", c.file)
			_, err := open(t, spec).Repository("app").Resolve(t.Context(), "v1")
			if !errors.Is(err, oci.ErrDenied) || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "s3cr3t") {
				t.Fatalf("%v, want denied with %q", err, c.want)
			}
		})
	}
}

// TestNoIdentity falls back to docker's config, and without says what to do.
func TestNoIdentity(t *testing.T) {
	fake := &providertest.Google{}
	spec := world(t, fake)
	spec.Auth.Google = nil
	nobody := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(nobody.Close)
	t.Setenv("GCE_METADATA_HOST", strings.TrimPrefix(nobody.URL, "http://"))
	_, err := open(t, spec).Repository("app").Resolve(t.Context(), "v1")
	if !errors.Is(err, oci.ErrDenied) || !strings.Contains(err.Error(), "GOOGLE_APPLICATION_CREDENTIALS") {
		t.Fatalf("%v", err)
	}
}

// TestRoles names the role that each missing permission needs.
func TestRoles(t *testing.T) {
	fake := &providertest.Google{}
	spec := world(t, fake)
	spec.Create = &generic.Create{}
	providertest.PushImage(t, open(t, spec).Repository("app"), "v1", nil)
	without := func(permission string) {
		fake.May = nil
		for _, p := range all() {
			if p != permission {
				fake.May = append(fake.May, p)
			}
		}
	}
	blob := providertest.Describe("", []byte("x"))
	for permission, c := range map[string]struct {
		ask  func() error
		want string
	}{
		"download": {func() error { _, err := open(t, spec).Repository("app").Resolve(t.Context(), "v1"); return err }, "roles/artifactregistry.reader"},
		"upload":   {func() error { _, _, err := open(t, spec).Repository("app").Start(t.Context(), blob, nil); return err }, "roles/artifactregistry.writer"},
		"create": {func() error {
			other := spec
			other.Prefix = "acme-prod/other"
			_, _, err := open(t, other).Repository("app").Start(t.Context(), blob, nil)
			return err
		}, "roles/artifactregistry.admin"},
	} {
		without(permission)
		if err := c.ask(); !errors.Is(err, oci.ErrDenied) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("without %s: %v, want %q", permission, err, c.want)
		}
	}
}

// TestSixHours runs on simulated time with tokens that end every few minutes:
// nothing fails.
func TestSixHours(t *testing.T) {
	key := &providertest.Google{Project: "acme-prod"} // made before the bubble: its lock is shared
	file := write(t, "key.json", key.KeyFile("https://oauth2.example/token"))
	synctest.Test(t, func(t *testing.T) {
		const host = "europe-west1-docker.pkg.dev"
		fake := key
		fake.Upstream, fake.Location, fake.Repositories, fake.May = &providertest.Fake{}, "europe-west1", []string{"team"}, all()
		fake.TokenLife = 4 * time.Minute
		direct := providertest.Direct{host: fake, "oauth2.example": fake.Token()}
		spec := generic.Spec{Name: "eu", Kind: "gcr", Host: host, Prefix: "acme-prod/team", Auth: generic.Auth{Google: &generic.Google{File: file}}}
		repo := over(t, spec, direct).Repository("app")
		providertest.SixHours(t, repo, fake.Revoke)
		if n := fake.Count("POST", "/token"); n < 360/5 || n > 250 {
			t.Errorf("%d tokens in six hours", n)
		}
	})
}
