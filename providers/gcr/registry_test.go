package gcr_test

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/twinport/twinport/providers/generic"
	"github.com/twinport/twinport/providers/providertest"
	"github.com/twinport/twinport/replicator/oci"
)

// TestMissing says how to make a repository, and makes it where it may.
func TestMissing(t *testing.T) {
	fake := &providertest.Google{Repositories: []string{"other"}}
	spec := world(t, fake)
	content := providertest.Random(100)
	desc := providertest.Describe("", content)
	_, _, err := open(t, spec).Repository("app").Start(t.Context(), desc, nil)
	if !errors.Is(err, oci.ErrRepositoryUnknown) || !strings.Contains(err.Error(), "gcloud artifacts repositories create team --repository-format=docker") {
		t.Fatalf("%v", err)
	}
	spec.Create = &generic.Create{ImmutableTags: true, Labels: map[string]string{"team": "sre"}}
	repo := open(t, spec).Repository("app")
	maker := repo.(oci.RepositoryMaker)
	if would, err := maker.WouldCreate(t.Context()); err != nil || !would {
		t.Fatalf("would create: %v, %v", would, err)
	}
	m := providertest.PushImage(t, repo, "v1", nil)
	if would, err := maker.WouldCreate(t.Context()); err != nil || would {
		t.Fatalf("would create again: %v, %v", would, err)
	}
	if n := fake.Count("POST", "/locations/"); n != 1 {
		t.Errorf("made %d times", n)
	}
	// As configured, its tags do not move; to what they name, they need not.
	if _, err := repo.PushManifest(t.Context(), "v1", m); err != nil {
		t.Errorf("the same again: %v", err)
	}
	if _, err := repo.PushManifest(t.Context(), "v1", providertest.PushImage(t, repo, "v2", nil)); !errors.Is(err, oci.ErrImmutable) {
		t.Errorf("another: %v", err)
	}
}

// TestInventory lists 10,000 tags with digests and times by one request.
func TestInventory(t *testing.T) {
	fake := &providertest.Google{Upstream: &providertest.Fake{}}
	spec := world(t, fake)
	for i := range 10_000 {
		fake.Upstream.SetManifest("acme-prod/team/app", fmt.Sprintf("v%05d", i), "application/vnd.oci.image.manifest.v1+json", fmt.Appendf(nil, "{%d}", i/10))
	}
	reg, n := open(t, spec), 0
	if err := reg.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]bool)
	for tag, err := range reg.Repository("app").Tags(t.Context()) {
		if err != nil || seen[tag.Name] || tag.Digest == "" || tag.PushedAt.IsZero() {
			t.Fatalf("tag %d: %+v, %v", n, tag, err)
		}
		seen[tag.Name] = true
		n++
	}
	if got := fake.Count("GET", "/tags/list"); n != 10_000 || got != 1 {
		t.Fatalf("%d tags by %d requests", n, got)
	}
	for _, err := range reg.Repository("absent").Tags(t.Context()) {
		if !errors.Is(err, oci.ErrRepositoryUnknown) {
			t.Errorf("an empty list: %v", err)
		}
	}
}

func names(t *testing.T, reg oci.Registry) (list []string) {
	t.Helper()
	for name, err := range reg.Repositories(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, name)
	}
	slices.Sort(list)
	return list
}

// TestRepositories lists images of one repository, of all, and by children
// where the API is closed.
func TestRepositories(t *testing.T) {
	fake := &providertest.Google{Repositories: []string{"team", "web"}, Page: 2}
	spec := world(t, fake)
	for _, name := range []string{"app", "base", "deep/er/image", "deep/er"} {
		providertest.PushImage(t, open(t, spec).Repository(name), "v1", nil)
	}
	whole := spec
	whole.Prefix = "acme-prod"
	providertest.PushImage(t, open(t, whole).Repository("web/front"), "v1", nil)

	team := []string{"app", "base", "deep/er", "deep/er/image"}
	if got := names(t, open(t, spec)); !slices.Equal(got, team) {
		t.Errorf("of one: %v", got)
	}
	if got, want := names(t, open(t, whole)), []string{"team/app", "team/base", "team/deep/er", "team/deep/er/image", "web/front"}; !slices.Equal(got, want) {
		t.Errorf("of all: %v", got)
	}
	fake.May = []string{"upload", "download"}
	if got := names(t, open(t, spec)); !slices.Equal(got, team) {
		t.Errorf("by children: %v", got)
	}
	fake.May = []string{"upload"}
	for _, err := range open(t, spec).Repositories(t.Context()) {
		if !errors.Is(err, oci.ErrUnlistable) || !strings.Contains(err.Error(), "artifactregistry.reader") {
			t.Errorf("neither: %v", err)
		}
	}
	bare := spec
	bare.Prefix = ""
	for _, err := range open(t, bare).Repositories(t.Context()) {
		if !errors.Is(err, oci.ErrUnlistable) {
			t.Errorf("without a project: %v", err)
		}
	}
}

// TestNames refuses names that cannot be, before the first byte.
func TestNames(t *testing.T) {
	fake := &providertest.Google{}
	spec := world(t, fake)
	spec.Prefix = ""
	for _, name := range []string{"acme-prod", "acme-prod/team", "example.com/acme/team"} {
		if _, _, err := open(t, spec).Repository(name).Start(t.Context(), providertest.Describe("", nil), nil); !errors.Is(err, oci.ErrRefused) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := len(fake.Requests()); n > 0 {
		t.Errorf("%d requests", n)
	}
}

// TestThrottled: a 429 comes without a time to wait.
func TestThrottled(t *testing.T) {
	fake := &providertest.Google{}
	spec := world(t, fake)
	left := 1
	fake.Before = func(w http.ResponseWriter, r *http.Request) bool {
		if left == 0 || !strings.HasSuffix(r.URL.Path, "/tags/list") {
			return false
		}
		left--
		providertest.Fail(w, http.StatusTooManyRequests, "TOOMANYREQUESTS", "Quota exceeded for quota metric 'Requests per project per region'")
		return true
	}
	providertest.PushImage(t, open(t, spec).Repository("app"), "v1", nil)
	n := 0
	for _, err := range open(t, spec).Repository("app").Tags(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	if n != 1 || left != 0 {
		t.Errorf("%d tags after a 429", n)
	}
}
