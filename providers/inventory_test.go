package providers_test

import (
	"errors"
	"fmt"
	"iter"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/twinport/twinport/providers/generic"
	"github.com/twinport/twinport/providers/providertest"
	"github.com/twinport/twinport/replicator/oci"
)

// fill puts n tags into a repository and gives what a listing has to tell.
func fill(f *providertest.Fake, repo string, n int) map[string]string {
	want := make(map[string]string)
	for i := range n {
		tag := fmt.Sprintf("v%05d", i)
		want[tag] = f.SetManifest(repo, tag, v1.MediaTypeImageIndex, fmt.Appendf(nil, `{"schemaVersion":2,"n":%d,"manifests":[]}`, i)).String()
	}
	return want
}

// digests collects a listing; one that tells no digest tells "".
func digests(t *testing.T, list iter.Seq2[oci.Tag, error]) map[string]string {
	t.Helper()
	got := make(map[string]string)
	for tag, err := range list {
		if err != nil {
			t.Fatal(err)
		}
		if tag.Digest != "" && !tag.PushedAt.Equal(providertest.Pushed) {
			t.Fatalf("%s pushed at %v", tag.Name, tag.PushedAt)
		}
		got[tag.Name] = tag.Digest.String()
	}
	return got
}

// names are a listing that tells names alone.
func names(want map[string]string) map[string]string {
	bare := make(map[string]string)
	for tag := range want {
		bare[tag] = ""
	}
	return bare
}

// TestInventory counts what 2,000 unchanged tags cost where a provider's API
// tells digests and times.
func TestInventory(t *testing.T) {
	for name, c := range map[string]struct {
		kind   string
		fake   func(*providertest.Fake) http.Handler
		change func(*generic.Spec)
		told   bool
		most   int // requests
	}{
		"quay, public":              {"quay", func(f *providertest.Fake) http.Handler { return &providertest.Quay{Fake: f, Public: true} }, nil, true, 20},
		"quay, private, a robot":    {"quay", func(f *providertest.Fake) http.Handler { return &providertest.Quay{Fake: f} }, nil, false, 25},
		"docker hub, a private one": {"dockerhub", func(f *providertest.Fake) http.Handler { return &providertest.DockerHub{Fake: f, Private: true} }, nil, true, 21},
		"docker hub, nobody": {
			"dockerhub", func(f *providertest.Fake) http.Handler { f.Username = ""; return &providertest.DockerHub{Fake: f} },
			func(s *generic.Spec) { s.Auth = generic.Auth{Anonymous: true} }, true, 20,
		},
		"gitlab with a database": {
			"gitlab", func(f *providertest.Fake) http.Handler {
				return &providertest.GitLab{Fake: f, Projects: []string{"team/app"}, Database: true}
			}, nil, true, 5,
		},
		"gitlab without one": {
			"gitlab", func(f *providertest.Fake) http.Handler {
				return &providertest.GitLab{Fake: f, Projects: []string{"team/app"}}
			}, nil, false, 25,
		},
		"quay, private, an OAuth token": {
			"quay", func(f *providertest.Fake) http.Handler {
				f.Username = "$oauthtoken"
				return &providertest.Quay{Fake: f}
			},
			func(s *generic.Spec) { s.Auth = generic.Auth{Token: s.Auth.Password} }, true, 20,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := account(&providertest.Fake{Tokens: true, Page: 100}, "robot")
			want := fill(f, "team/app", 2000)
			reg := serve(t, c.kind, c.fake(f), c.change)
			got := digests(t, reg.Repository("team/app").Tags(t.Context()))
			if !c.told {
				want = names(want)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
			if n := len(f.Requests()); n > c.most {
				t.Errorf("%d requests, want at most %d", n, c.most)
			}
		})
	}
}

// TestTagLists: what some lists hold is no tag.
func TestTagLists(t *testing.T) {
	for kind, front := range map[string]func(*providertest.Fake) http.Handler{
		"nexus":       func(f *providertest.Fake) http.Handler { return &providertest.Nexus{Fake: f} },
		"artifactory": func(f *providertest.Fake) http.Handler { return &providertest.Artifactory{Fake: f} },
	} {
		f := account(&providertest.Fake{}, "robot")
		want := names(fill(f, "team/app", 3))
		got := digests(t, serve(t, kind, front(f), nil).Repository("team/app").Tags(t.Context()))
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", kind, diff)
		}
	}
}

func TestRepositories(t *testing.T) {
	gitlab := func(noAPI bool) func(*providertest.Fake) http.Handler {
		return func(f *providertest.Fake) http.Handler {
			return &providertest.GitLab{Fake: f, Projects: []string{"team/app", "team/sub/web", "other/app"}, NoAPI: noAPI}
		}
	}
	for name, c := range map[string]struct {
		kind, prefix string
		fake         func(*providertest.Fake) http.Handler
		want         []string // nil: unlistable
	}{
		"gitlab":                  {"gitlab", "", gitlab(false), []string{"other/app", "team/app", "team/app/worker", "team/sub/web"}},
		"a group of gitlab":       {"gitlab", "team", gitlab(false), []string{"app", "app/worker", "sub/web"}},
		"a subgroup of gitlab":    {"gitlab", "team/sub", gitlab(false), []string{"web"}},
		"a project of gitlab":     {"gitlab", "team/app", gitlab(false), []string{"worker"}},
		"below a project":         {"gitlab", "team/app/deep", gitlab(false), []string{}},
		"gitlab without read_api": {"gitlab", "team", gitlab(true), nil},
		"quay":                    {"quay", "", func(f *providertest.Fake) http.Handler { return &providertest.Quay{Fake: f} }, []string{"other/app", "team/app", "team/app/worker", "team/sub/web"}},
		"a repository of artifactory": {
			"artifactory", "team", func(f *providertest.Fake) http.Handler { return &providertest.Artifactory{Fake: f} },
			[]string{"app", "app/worker", "sub/web"},
		},
		"ghcr":       {"ghcr", "", func(f *providertest.Fake) http.Handler { return &providertest.GHCR{Fake: f} }, nil},
		"docker hub": {"dockerhub", "", func(f *providertest.Fake) http.Handler { return &providertest.DockerHub{Fake: f} }, nil},
	} {
		f := account(&providertest.Fake{Tokens: true}, "robot")
		for _, repo := range []string{"team/app", "team/app/worker", "team/sub/web", "other/app"} {
			fill(f, repo, 1)
		}
		reg := serve(t, c.kind, c.fake(f), func(s *generic.Spec) { s.Prefix = c.prefix })
		got := []string{}
		var fault error
		for repo, err := range reg.Repositories(t.Context()) {
			if fault = err; err == nil {
				got = append(got, repo)
			}
		}
		slices.Sort(got)
		var refused *oci.RegistryError
		switch {
		case c.want == nil && (!errors.Is(fault, oci.ErrUnlistable) || !errors.As(fault, &refused) || !strings.Contains(refused.Hint, "repositories.include")):
			t.Errorf("%s: %v, want unlistable with a hint", name, fault)
		case c.want == nil && refused.Registry != c.kind:
			t.Errorf("%s: %v names no registry", name, fault)
		case c.want != nil && (fault != nil || !slices.Equal(got, c.want)):
			t.Errorf("%s: %v, %v, want %v", name, got, fault, c.want)
		}
	}
}
