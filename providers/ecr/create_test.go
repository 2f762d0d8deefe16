package ecr_test

import (
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/twinport/twinport/providers/ecr"
	"github.com/twinport/twinport/providers/generic"
	"github.com/twinport/twinport/providers/providertest"
	"github.com/twinport/twinport/replicator/oci"
)

func TestCreate(t *testing.T) {
	e := &providertest.ECR{}
	reg := start(t, e, func(s *generic.Spec) {
		s.Create = &generic.Create{
			ImmutableTags: true, KMS: "arn:aws:kms:eu-west-1:123456789012:key/k", Scan: true,
			Lifecycle: `{"rules":[]}`, Policy: `{"Statement":[]}`, Labels: map[string]string{"team": "sre"},
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
		Scan: true, Tags: map[string]string{"team": "sre"}, Lifecycle: `{"rules":[]}`, Policy: `{"Statement":[]}`,
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

// TestPoliciesLater: a policy that could not be set is set before anything is
// pushed to the repository we made.
func TestPoliciesLater(t *testing.T) {
	for _, action := range []string{"ecr:PutLifecyclePolicy", "ecr:SetRepositoryPolicy"} {
		e := &providertest.ECR{Denied: []string{action}}
		how := &generic.Create{Lifecycle: `{"rules":[]}`, Policy: `{"Statement":[]}`}
		repo := start(t, e, func(s *generic.Spec) { s.Create = how })(t).Repository("team/app")
		for range 2 {
			_, _, err := repo.Start(t.Context(), providertest.Describe(v1.MediaTypeImageLayer, []byte("x")), nil)
			if !errors.Is(err, oci.ErrDenied) || !strings.Contains(err.Error(), action) {
				t.Fatalf("without the right to set it: %v", err)
			}
		}
		e.Deny()
		providertest.PushImage(t, repo, "v1", nil)
		if got, _ := e.Made("team/app"); got.Lifecycle != how.Lifecycle || got.Policy != how.Policy {
			t.Errorf("%s: lifecycle %q, policy %q", action, got.Lifecycle, got.Policy)
		}
	}
}

// TestPolicyIsNone: what is no policy is told at the start, before anything is made.
func TestPolicyIsNone(t *testing.T) {
	for _, how := range []*generic.Create{{Lifecycle: "rules:"}, {Policy: "Statement:"}} {
		spec := generic.Spec{Name: "us", Kind: "ecr", Host: "123456789012.dkr.ecr.eu-west-1.amazonaws.com", Create: how}
		if _, err := ecr.New(spec, http.DefaultTransport); err == nil || !strings.Contains(err.Error(), "no JSON") {
			t.Errorf("%+v: %v", how, err)
		}
	}
}

// TestPublicPolicy: public repositories take a policy, too.
func TestPublicPolicy(t *testing.T) {
	e := &providertest.ECR{Alias: "a1b2c3"}
	repo := start(t, e, func(s *generic.Spec) { s.Create = &generic.Create{Policy: `{"Statement":[]}`} })(t).Repository("team/app")
	providertest.PushImage(t, repo, "v1", nil)
	if got, _ := e.Made("a1b2c3/team/app"); got.Policy != `{"Statement":[]}` {
		t.Errorf("policy %q", got.Policy)
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
