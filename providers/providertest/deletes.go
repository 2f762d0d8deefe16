package providertest

import (
	"errors"
	"testing"

	"github.com/twinport/twinport/replicator/oci"
)

// testDeletes holds a client against oci.TagDeleter: one tag goes, and nothing
// but that tag.
func testDeletes(t *testing.T, s Suite, repo oci.Repository) {
	ctx := t.Context()
	deleter, ok := repo.(oci.TagDeleter)
	if !ok {
		t.Fatal("the client removes no tags")
	}
	if !s.NoDeletes {
		if err := deleter.DeleteTag(ctx, "v1"); !errors.Is(err, oci.ErrNotFound) {
			t.Fatalf("a tag of a repository that is not there: %v, want not found", err)
		}
	}
	m, other := PushImage(t, repo, "v1", nil), PushImage(t, repo, "other", nil)
	for _, tag := range []string{"v2", "v3"} {
		if _, err := repo.PushManifest(ctx, tag, m); err != nil {
			t.Fatal(err)
		}
	}
	names := func(tag string, want oci.Manifest) {
		t.Helper()
		if got, err := repo.FetchManifest(ctx, tag); err != nil || got.Digest != want.Digest {
			t.Fatalf("%s names %s, %v; want %s", tag, got.Digest, err, want.Digest)
		}
	}
	if s.NoDeletes {
		var refused *oci.RegistryError
		if err := deleter.DeleteTag(ctx, "v1"); !errors.Is(err, oci.ErrUnsupported) || !errors.As(err, &refused) || refused.Hint == "" {
			t.Fatalf("a registry that removes no tag alone: %v, want unsupported with a hint", err)
		}
		for _, tag := range []string{"v1", "v2", "v3"} {
			names(tag, m)
		}
		return
	}
	for i, tag := range []string{"v1", "v2", "v3"} {
		if err := deleter.DeleteTag(ctx, tag); err != nil {
			t.Fatalf("delete %s: %v", tag, err)
		}
		if _, err := repo.FetchManifest(ctx, tag); !errors.Is(err, oci.ErrNotFound) {
			t.Fatalf("%s is still there: %v", tag, err)
		}
		if err := deleter.DeleteTag(ctx, tag); !errors.Is(err, oci.ErrNotFound) {
			t.Fatalf("delete %s again: %v, want not found", tag, err)
		}
		for _, left := range []string{"v2", "v3"}[min(i, 2):] {
			names(left, m)
		}
		if i < 2 || s.Strict && !deleter.DropsUntagged() {
			names(m.Digest.String(), m)
		}
		names("other", other)
	}
	for _, tag := range []string{"", m.Digest.String(), "../v1", "a/b"} {
		if err := deleter.DeleteTag(ctx, tag); !errors.Is(err, oci.ErrInvalid) {
			t.Errorf("tag %q: %v, want invalid", tag, err)
		}
	}
}
