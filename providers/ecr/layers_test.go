package ecr_test

import (
	"errors"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/twinport/twinport/providers/generic"
	"github.com/twinport/twinport/providers/providertest"
	"github.com/twinport/twinport/replicator/oci"
	"github.com/twinport/twinport/replicator/verify"
)

// TestProofIsNoPull: an image of 150 layers is proven by two batches, and by
// nothing that counts as a pull of a layer.
func TestProofIsNoPull(t *testing.T) {
	for _, alias := range []string{"", "a1b2c3"} {
		e := &providertest.ECR{Alias: alias}
		repo := start(t, e, nil)(t).Repository("team/app")
		var layers []v1.Descriptor
		for range 150 {
			layers = append(layers, providertest.PushBlob(t, repo, providertest.Random(10)))
		}
		m := providertest.Image(nil, providertest.PushBlob(t, repo, []byte("{}")), layers...)
		if _, err := repo.PushManifest(t.Context(), "v1", m); err != nil {
			t.Fatal(err)
		}
		before := len(e.Registry.Requests())
		report, err := verify.Image(t.Context(), repo, "v1", verify.Options{})
		if err != nil || !report.Sound() || report.Blobs != 151 {
			t.Fatalf("%+v, %v", report, err)
		}
		if n := e.Calls("BatchCheckLayerAvailability"); n != 2 {
			t.Errorf("%d batches, want 2", n)
		}
		if n := len(e.Registry.Requests()) - before; n != 1 {
			t.Errorf("%d requests of the registry, want the manifest's alone", n)
		}
	}
}

func TestStatBlobs(t *testing.T) {
	e := &providertest.ECR{}
	open := start(t, e, nil)
	repo := open(t).Repository("team/app")
	there := providertest.PushBlob(t, repo, providertest.Random(10))
	gone := digest.FromString("gone")
	got, err := repo.(oci.BatchStatter).StatBlobs(t.Context(), []digest.Digest{there.Digest, gone})
	if err != nil || len(got) != 1 || got[there.Digest] != 10 {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := repo.(oci.BatchStatter).StatBlobs(t.Context(), []digest.Digest{digest.SHA512.FromString("x")}); !errors.Is(err, oci.ErrUnsupported) {
		t.Errorf("sha512: %v, want unsupported", err)
	}
	if _, err := open(t).Repository("none").(oci.BatchStatter).StatBlobs(t.Context(), []digest.Digest{gone}); !errors.Is(err, oci.ErrRepositoryUnknown) {
		t.Errorf("no repository: %v", err)
	}
	e.Deny("ecr:BatchCheckLayerAvailability")
	if _, err := repo.(oci.BatchStatter).StatBlobs(t.Context(), []digest.Digest{gone}); !errors.Is(err, oci.ErrDenied) {
		t.Errorf("without the right: %v", err)
	}
	e.Deny()
	byItself := start(t, e, func(s *generic.Spec) { s.Auth = generic.Auth{Anonymous: true} })(t).Repository("team/app")
	if _, err := byItself.(oci.BatchStatter).StatBlobs(t.Context(), []digest.Digest{gone}); !errors.Is(err, oci.ErrUnsupported) {
		t.Errorf("without AWS's API: %v, want unsupported", err)
	}
}

// TestArchived: an archived image is listed, and refused where it is read, until
// it is pushed again.
func TestArchived(t *testing.T) {
	e := &providertest.ECR{}
	repo := start(t, e, nil)(t).Repository("team/app")
	m := providertest.PushImage(t, repo, "v1", nil)
	providertest.PushImage(t, repo, "v2", nil)
	e.Archive("team/app", "v1")
	list := func() map[string]digest.Digest {
		tags := make(map[string]digest.Digest)
		for tag, err := range repo.Tags(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			tags[tag.Name] = tag.Digest
			if tag.Withheld != (tag.Name == "v1") {
				t.Errorf("%+v", tag)
			}
		}
		return tags
	}
	if _, err := repo.FetchManifest(t.Context(), "v1"); !errors.Is(err, oci.ErrNotFound) {
		t.Errorf("before a listing has told: %v", err)
	}
	if tags := list(); len(tags) != 2 || tags["v1"] != m.Digest {
		t.Errorf("tags %v", tags)
	}
	for _, reference := range []string{"v1", m.Digest.String()} {
		_, err := repo.FetchManifest(t.Context(), reference)
		var refused *oci.RegistryError
		if !errors.Is(err, oci.ErrRefused) || errors.Is(err, oci.ErrNotFound) || !errors.As(err, &refused) || refused.Hint == "" {
			t.Errorf("%s: %v, want refused with a hint", reference, err)
		}
	}
	if _, err := repo.FetchManifest(t.Context(), "v3"); !errors.Is(err, oci.ErrNotFound) {
		t.Errorf("a tag that is not there: %v", err)
	}
	if _, err := repo.PushManifest(t.Context(), "v1", m); err != nil {
		t.Fatal(err)
	}
	if got, err := repo.FetchManifest(t.Context(), "v1"); err != nil || got.Digest != m.Digest {
		t.Errorf("pushed again: %v", err)
	}
}
