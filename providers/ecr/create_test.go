package ecr_test

import (
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/twinport/twinport/providers/generic"
	"github.com/twinport/twinport/providers/providertest"
	"github.com/twinport/twinport/replicator/oci"
)

func TestCreate(t *testing.T) {
	e := &providertest.ECR{}
	reg := start(t, e, func(s *generic.Spec) {
		s.Create = &generic.Create{
			ImmutableTags: true, KMS: "arn:aws:kms:eu-west-1:123456789012:key/k", Scan: true,
			Lifecycle: `{"rules":[]}`, Labels: map[string]string{"team": "sre"},
		}
	})(t)
	repo := reg.Repository("team/app")
	if would, err := repo.(oci.RepositoryMaker).WouldCreate(t.Context()); !would || err != nil {
		t.Fatalf("would create: %v, %v", would, err)
	}
	if _, made := e.Made("team/app"); made {
		t.Fatal("asking makes it")
	}
	content := providertest.Random(10)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			u, _, err := repo.Start(t.Context(), providertest.Describe(v1.MediaTypeImageLayer, content), nil)
			if err != nil {
				t.Error(err)
				return
			}
			_ = u.Cancel(t.Context())
		})
	}
	wg.Wait()
	got, _ := e.Made("team/app")
	want := providertest.ECRRepository{
		Mutability: "IMMUTABLE_WITH_EXCLUSION", Exclude: []string{"sha256-*"}, KMS: "arn:aws:kms:eu-west-1:123456789012:key/k",
		Scan: true, Tags: map[string]string{"team": "sre"}, Lifecycle: `{"rules":[]}`,
	}
	if diff := cmp.Diff(want, got, cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".pushed" }, cmp.Ignore())); diff != "" {
		t.Errorf("made (-want +got):\n%s", diff)
	}
	if would, err := repo.(oci.RepositoryMaker).WouldCreate(t.Context()); would || err != nil {
		t.Errorf("would create what is there: %v, %v", would, err)
	}
}

func TestCreateOnlyWhereItMay(t *testing.T) {
	e := &providertest.ECR{}
	repo := start(t, e, func(s *generic.Spec) { s.Create = nil })(t).Repository("team/app")
	_, _, err := repo.Start(t.Context(), providertest.Describe(v1.MediaTypeImageLayer, []byte("x")), nil)
	if !errors.Is(err, oci.ErrRepositoryUnknown) || !strings.Contains(err.Error(), "create: {missing: true}") {
		t.Errorf("a missing repository: %v", err)
	}
	if would, err := repo.(oci.RepositoryMaker).WouldCreate(t.Context()); would || err != nil {
		t.Errorf("would create: %v, %v", would, err)
	}
	if n := e.Calls("CreateRepository"); n > 0 {
		t.Errorf("made all the same, %d times", n)
	}
}

// TestLifecycleLater: a policy that could not be set is set before anything is
// pushed to the repository we made.
func TestLifecycleLater(t *testing.T) {
	e := &providertest.ECR{Denied: []string{"ecr:PutLifecyclePolicy"}}
	repo := start(t, e, func(s *generic.Spec) { s.Create = &generic.Create{Lifecycle: `{"rules":[]}`} })(t).Repository("team/app")
	for range 2 {
		_, _, err := repo.Start(t.Context(), providertest.Describe(v1.MediaTypeImageLayer, []byte("x")), nil)
		if !errors.Is(err, oci.ErrDenied) || !strings.Contains(err.Error(), "ecr:PutLifecyclePolicy") {
			t.Fatalf("without the right to set it: %v", err)
		}
	}
	e.Deny()
	providertest.PushImage(t, repo, "v1", nil)
	if got, _ := e.Made("team/app"); got.Lifecycle != `{"rules":[]}` {
		t.Errorf("lifecycle %q", got.Lifecycle)
	}
}

func TestNames(t *testing.T) {
	e := &providertest.ECR{}
	reg := start(t, e, nil)(t)
	for name, want := range map[string]string{
		"team/my__app": "team/my-app", "team/a--b": "team/a-b", "x": "2 to 256",
	} {
		for what, push := range map[string]func() error{
			"blob": func() error {
				_, _, err := reg.Repository(name).Start(t.Context(), providertest.Describe(v1.MediaTypeImageLayer, []byte("x")), nil)
				return err
			},
			"manifest": func() error {
				_, err := reg.Repository(name).PushManifest(t.Context(), "v1", providertest.Index())
				return err
			},
		} {
			if err := push(); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s to %.40q: %v, want a fix with %q", what, name, err, want)
			}
		}
	}
	if n := len(e.Registry.Requests()) + e.Calls("CreateRepository"); n > 0 {
		t.Errorf("%d requests were sent for names that ECR refuses", n)
	}
}
