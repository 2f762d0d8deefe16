package gcr_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/twinport/twinport/providers/gcr"
	"github.com/twinport/twinport/providers/generic"
	"github.com/twinport/twinport/providers/providertest"
	"github.com/twinport/twinport/replicator/oci"
)

func all() []string { return []string{"upload", "download", "delete", "list", "create"} }

// world is a fake Artifact Registry with its token endpoint and API, over real
// connections.
func world(t *testing.T, fake *providertest.Google) generic.Spec {
	t.Helper()
	for _, name := range []string{"GOOGLE_APPLICATION_CREDENTIALS", "GCE_METADATA_HOST"} {
		t.Setenv(name, "")
	}
	t.Setenv("CLOUDSDK_CONFIG", t.TempDir())
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	if fake.Upstream == nil {
		fake.Upstream = &providertest.Fake{}
	}
	if fake.May == nil {
		fake.May = all()
	}
	if fake.Repositories == nil {
		fake.Repositories = []string{"team"}
	}
	fake.Project = "acme-prod"
	serve := func(h http.Handler) string {
		s := httptest.NewServer(h)
		t.Cleanup(s.Close)
		return s.URL
	}
	server, tokens, api := serve(fake), serve(fake.Token()), serve(fake.API())
	fake.Upstream.Blobs = serve(providertest.Storage{Fake: fake.Upstream, Fail: t.Errorf})
	t.Setenv("CLOUDSDK_API_ENDPOINT_OVERRIDES_ARTIFACTREGISTRY", api+"/")
	file := filepath.Join(t.TempDir(), "key.json")
	if err := os.WriteFile(file, fake.KeyFile(tokens+"/token"), 0o600); err != nil {
		t.Fatal(err)
	}
	host := strings.TrimPrefix(server, "http://")
	fake.Location = host // at a real address it is what comes before -docker.pkg.dev
	return generic.Spec{
		Name: "eu", Kind: "gcr", Host: host, Prefix: "acme-prod/team", PlainHTTP: true,
		Redirects: []string{strings.TrimPrefix(fake.Upstream.Blobs, "http://"), strings.TrimPrefix(api, "http://")},
		Auth:      generic.Auth{Google: &generic.Google{File: file}},
	}
}

func open(t *testing.T, spec generic.Spec) *gcr.Registry {
	t.Helper()
	rt, err := generic.Transport(spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(rt.CloseIdleConnections)
	return over(t, spec, rt)
}

func over(t *testing.T, spec generic.Spec, rt http.RoundTripper) *gcr.Registry {
	t.Helper()
	r, err := gcr.New(spec, rt)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestContract(t *testing.T) {
	for name, before := range map[string]func(*testing.T) http.Handler{"memory": nil, "distribution": distribution} {
		t.Run(name, func(t *testing.T) {
			fake := &providertest.Google{Upstream: &providertest.Fake{}}
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

func TestDeleteOfAnImmutableTag(t *testing.T) {
	fake := &providertest.Google{Upstream: &providertest.Fake{}}
	spec := world(t, fake)
	repo := open(t, spec).Repository("app").(*gcr.Repository)
	providertest.PushImage(t, repo, "v1", nil)
	fake.Immutable = fake.Repositories
	if err := repo.DeleteTag(t.Context(), "v1"); !errors.Is(err, oci.ErrImmutable) {
		t.Errorf("an immutable tag: %v", err)
	}
}
