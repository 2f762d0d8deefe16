package acr_test

import (
	"errors"
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinport/twinport/providers/generic"
	"github.com/twinport/twinport/providers/providertest"
	"github.com/twinport/twinport/replicator/oci"
)

// TestInventory lists 10,000 tags with digests and times, a request a page.
func TestInventory(t *testing.T) {
	for _, c := range []struct{ page, requests int }{{1000, 10}, {100, 101}} {
		t.Run(fmt.Sprint(c.page), func(t *testing.T) {
			fake := &providertest.ACR{Upstream: &providertest.Fake{}, MaxPage: c.page}
			spec := world(t, fake)
			for i := range 10_000 {
				fake.Upstream.SetManifest("team/app", fmt.Sprintf("v%05d", i), "application/vnd.oci.image.manifest.v1+json", fmt.Appendf(nil, "{%d}", i/10))
			}
			n := 0
			for tag, err := range open(t, spec).Repository("team/app").Tags(t.Context()) {
				if err != nil || tag.Name != fmt.Sprintf("v%05d", n) || tag.Digest == "" || tag.PushedAt.IsZero() {
					t.Fatalf("tag %d: %+v, %v", n, tag, err)
				}
				n++
			}
			// The first request without a token is refused by a challenge.
			if got := fake.Count("GET", "/_tags") - 1; n != 10_000 || got != c.requests {
				t.Fatalf("%d tags by %d requests, want %d", n, got, c.requests)
			}
		})
	}
}

func TestLocked(t *testing.T) {
	fake := &providertest.ACR{}
	spec := world(t, fake)
	repo := open(t, spec).Repository("team/app")
	first := providertest.PushImage(t, repo, "v1", nil)
	fake.Locked = []string{"team/app:v1"}
	if _, err := repo.PushManifest(t.Context(), "v1", first); err != nil {
		t.Errorf("the same again: %v", err)
	}
	other := providertest.PushImage(t, repo, "v2", nil)
	var answered *oci.RegistryError
	if _, err := repo.PushManifest(t.Context(), "v1", other); !errors.Is(err, oci.ErrImmutable) || !errors.As(err, &answered) || answered.Hint == "" {
		t.Errorf("another: %v", err)
	}
}

func TestBounds(t *testing.T) {
	fake := &providertest.ACR{}
	repo := open(t, world(t, fake)).Repository("team/app")
	huge := providertest.Describe("", []byte("x"))
	huge.Size = 200<<30 + 1
	if _, _, err := repo.Start(t.Context(), huge, nil); !errors.Is(err, oci.ErrRefused) {
		t.Errorf("a layer over the bound: %v", err)
	}
	m := oci.Manifest{MediaType: "application/vnd.oci.image.index.v1+json", Bytes: make([]byte, 4<<20+1)}
	if _, err := repo.PushManifest(t.Context(), "v1", m); !errors.Is(err, oci.ErrRefused) {
		t.Errorf("a manifest over the bound: %v", err)
	}
	if n := len(fake.Requests()); n > 0 {
		t.Errorf("%d requests for what cannot be", n)
	}
}

// TestPending: what was pushed a moment ago and is not found is no missing
// thing; ten minutes later it is.
func TestPending(t *testing.T) {
	t.Setenv("AZURE_AUTHORITY_HOST", "https://entra.example")
	synctest.Test(t, func(t *testing.T) {
		fake := &providertest.ACR{
			Upstream: &providertest.Fake{}, Service: "contosodr.azurecr.io", May: all(), Tenant: tenant, Client: client, Secret: "s3cr3t-of-the-principal",
		}
		spec := generic.Spec{
			Name: "eu", Kind: "acr", Host: fake.Service,
			Auth: generic.Auth{Azure: &generic.Azure{Tenant: tenant, Client: client, Secret: secret(fake.Secret)}},
		}
		reg := over(t, spec, providertest.Direct{"contosodr.azurecr.io": fake, "entra.example": fake.Entra()})
		repo := reg.Repository("team/app")
		m := providertest.PushImage(t, repo, "v1", nil)
		fake.Before = func(w http.ResponseWriter, r *http.Request) bool { // another replica answers
			if r.Method == http.MethodGet || r.Method == http.MethodHead {
				providertest.Fail(w, http.StatusNotFound, "MANIFEST_UNKNOWN", "manifest unknown")
				return true
			}
			return false
		}
		if reg.Settles() != 10*time.Minute {
			t.Errorf("settles in %s", reg.Settles())
		}
		for reference, want := range map[string]error{"v1": oci.ErrInterrupted, m.Digest.String(): oci.ErrInterrupted, "v2": oci.ErrNotFound} {
			if _, err := repo.FetchManifest(t.Context(), reference); !errors.Is(err, want) {
				t.Errorf("%s: %v, want %v", reference, err, want)
			}
		}
		if _, err := repo.Stat(t.Context(), providertest.Describe("", []byte("never pushed")).Digest); !errors.Is(err, oci.ErrNotFound) {
			t.Errorf("a blob nobody pushed: %v", err)
		}
		time.Sleep(10 * time.Minute)
		if _, err := repo.Resolve(t.Context(), "v1"); !errors.Is(err, oci.ErrNotFound) {
			t.Errorf("after ten minutes: %v", err)
		}
	})
}
