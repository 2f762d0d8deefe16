package providers_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/twinport/twinport/providers/generic"
	"github.com/twinport/twinport/providers/providertest"
	"github.com/twinport/twinport/replicator/oci"
)

// push sends an image and gives the first error.
func push(ctx context.Context, repo oci.Repository, tag string) error {
	content := providertest.Random(100)
	desc := providertest.Describe(v1.MediaTypeImageLayer, content)
	u, _, err := repo.Start(ctx, desc, nil)
	if err == nil {
		err = u.Put(ctx, providertest.Bytes(content))
	}
	if err != nil {
		return err
	}
	_, err = repo.PushManifest(ctx, tag, providertest.Image(nil, desc, desc))
	return err
}

// pushTwice moves a tag.
func pushTwice(t *testing.T, reg oci.Registry, repo string) error {
	t.Helper()
	if err := push(t.Context(), reg.Repository(repo), "v1"); err != nil {
		t.Fatal(err)
	}
	return push(t.Context(), reg.Repository(repo), "v1")
}

// TestRefusals: what each registry refuses has its kind and tells a person what
// to do, and never a secret.
func TestRefusals(t *testing.T) {
	wrong := func(s *generic.Spec) {
		s.Auth.Password = func() (string, error) { return "wrong-" + password, nil }
	}
	tokens := func() *providertest.Fake { return account(&providertest.Fake{Tokens: true}, "robot") }
	immutable := func() *providertest.Fake {
		return account(&providertest.Fake{Tokens: true, Immutable: true}, "robot")
	}
	one := func(t *testing.T, reg oci.Registry) error { return push(t.Context(), reg.Repository("team/app"), "v1") }
	two := func(t *testing.T, reg oci.Registry) error { return pushTwice(t, reg, "team/app") }
	pull := func(t *testing.T, reg oci.Registry) error {
		_, err := reg.Repository("team/app").Resolve(t.Context(), "v1")
		return err
	}
	untag := func(t *testing.T, reg oci.Registry) error {
		if err := push(t.Context(), reg.Repository("team/app"), "v1"); err != nil {
			t.Fatal(err)
		}
		return reg.Repository("team/app").(oci.TagDeleter).DeleteTag(t.Context(), "v1")
	}
	deletes := func(how providertest.Deletes) *providertest.Fake {
		return account(&providertest.Fake{Tokens: true, Deletes: how}, "robot")
	}
	short := func(t *testing.T, reg oci.Registry) error { return push(t.Context(), reg.Repository("app"), "v1") }
	for name, c := range map[string]struct {
		kind   string
		fake   http.Handler
		change func(*generic.Spec)
		do     func(*testing.T, oci.Registry) error
		want   error
		hint   string
	}{
		"quay, immutable":      {"quay", &providertest.Quay{Fake: immutable()}, nil, two, oci.ErrImmutable, "immutability policy"},
		"quay, read-only":      {"quay", &providertest.Quay{Fake: tokens(), ReadOnly: true}, nil, one, oci.ErrRefused, "read-only"},
		"quay, quota":          {"quay", &providertest.Quay{Fake: tokens(), Full: true}, nil, one, oci.ErrRefused, "quota"},
		"quay, wrong password": {"quay", &providertest.Quay{Fake: tokens()}, wrong, pull, oci.ErrDenied, "robot account"},
		"ghcr, no write:packages": {
			"ghcr", &providertest.GHCR{Fake: tokens(), Scopes: "permission_denied: write_package"}, nil, one, oci.ErrDenied, "write:packages",
		},
		"ghcr, a fine-grained token": {
			"ghcr", &providertest.GHCR{Fake: tokens(), Scopes: "permission_denied: The token provided does not match expected scopes."}, nil, one, oci.ErrDenied, "classic",
		},
		"ghcr, wrong token":                {"ghcr", &providertest.GHCR{Fake: tokens()}, wrong, pull, oci.ErrDenied, "classic"},
		"docker hub, wrong password":       {"dockerhub", &providertest.DockerHub{Fake: tokens()}, wrong, pull, oci.ErrDenied, "personal access token"},
		"docker hub, immutable":            {"dockerhub", &providertest.DockerHub{Fake: immutable()}, nil, two, oci.ErrImmutable, "settings"},
		"gitea, no such owner":             {"gitea", &providertest.Gitea{Fake: tokens()}, nil, one, oci.ErrRepositoryUnknown, "organization"},
		"gitea, quota":                     {"gitea", &providertest.Gitea{Fake: tokens(), Owners: []string{"team"}, Full: true}, nil, one, oci.ErrRefused, "quota"},
		"gitea, wrong token":               {"gitea", &providertest.Gitea{Fake: tokens()}, wrong, pull, oci.ErrDenied, "read:package"},
		"gitlab, no project":               {"gitlab", &providertest.GitLab{Fake: tokens()}, nil, one, oci.ErrDenied, "create the project"},
		"gitlab, a protected tag":          {"gitlab", &providertest.GitLab{Fake: tokens(), Projects: []string{"team/app"}, Protected: "v1"}, nil, one, oci.ErrImmutable, "protection rule"},
		"gitlab, wrong token":              {"gitlab", &providertest.GitLab{Fake: tokens()}, wrong, pull, oci.ErrDenied, "read_registry"},
		"nexus, no redeploy":               {"nexus", &providertest.Nexus{Fake: tokens(), NoRedeploy: true}, nil, two, oci.ErrImmutable, "Disable redeploy"},
		"nexus, read-only":                 {"nexus", &providertest.Nexus{Fake: tokens(), ReadOnly: true}, nil, one, oci.ErrRefused, "Read-only"},
		"nexus, wrong password":            {"nexus", &providertest.Nexus{Fake: tokens()}, wrong, pull, oci.ErrDenied, "Bearer Token Realm"},
		"artifactory, no repository":       {"artifactory", &providertest.Artifactory{Fake: tokens()}, nil, one, oci.ErrRepositoryUnknown, "create a local Docker repository"},
		"artifactory, no overwriting":      {"artifactory", &providertest.Artifactory{Fake: tokens(), Keys: []string{"team"}, NoOverwrite: true}, nil, two, oci.ErrDenied, "Delete/Overwrite"},
		"artifactory, wrong password":      {"artifactory", &providertest.Artifactory{Fake: tokens()}, wrong, pull, oci.ErrDenied, "Read on the repository"},
		"deletes switched off":             {"oci", deletes(providertest.DeletesNothing), nil, untag, oci.ErrUnsupported, "storage.delete.enabled"},
		"deletes by digest alone":          {"oci", deletes(providertest.DeletesNoTags), nil, untag, oci.ErrUnsupported, "from version 3"},
		"ghcr, a tag alone":                {"ghcr", &providertest.GHCR{Fake: tokens()}, nil, untag, oci.ErrUnsupported, "version"},
		"nexus, a tag alone":               {"nexus", &providertest.Nexus{Fake: tokens()}, nil, untag, oci.ErrUnsupported, "in Nexus"},
		"quay, an immutable tag to delete": {"quay", &providertest.Quay{Fake: immutable()}, nil, untag, oci.ErrImmutable, "immutability policy"},
		"gitlab, a protected tag to delete": {
			"gitlab", &providertest.GitLab{Fake: tokens(), Projects: []string{"team/app"}, Kept: "v1"}, nil, untag, oci.ErrDenied, "Maintainer",
		},
		"artifactory, no key to delete by": {"artifactory", &providertest.Artifactory{Fake: tokens(), Keys: []string{"team"}}, nil, untag, oci.ErrUnsupported, "KEY"},
		"artifactory, no right to delete": {
			"artifactory", &providertest.Artifactory{Fake: tokens(), Keys: []string{"team"}, NoOverwrite: true},
			func(s *generic.Spec) { s.Prefix = "team" },
			func(t *testing.T, reg oci.Registry) error {
				if err := push(t.Context(), reg.Repository("app"), "v1"); err != nil {
					t.Fatal(err)
				}
				return reg.Repository("app").(oci.TagDeleter).DeleteTag(t.Context(), "v1")
			}, oci.ErrDenied, "Delete/Overwrite",
		},
		"docker hub, an official name": {"dockerhub", &providertest.DockerHub{Fake: tokens()}, nil, short, nil, ""},
	} {
		err := c.do(t, serve(t, c.kind, c.fake, c.change))
		var refused *oci.RegistryError
		switch {
		case c.want == nil && err != nil:
			t.Errorf("%s: %v", name, err)
		case c.want != nil && (!errors.Is(err, c.want) || !errors.As(err, &refused) || !strings.Contains(refused.Hint, c.hint)):
			t.Errorf("%s: %v, want %v with a hint of %q", name, err, c.want, c.hint)
		case err != nil && strings.Contains(err.Error(), password):
			t.Errorf("%s tells the password: %v", name, err)
		}
	}
}

// TestTokens: a token is the password of the user that each kind wants for it;
// kinds whose users are people's own refuse a bare one.
func TestTokens(t *testing.T) {
	bare := func(s *generic.Spec) { s.Auth = generic.Auth{Token: s.Auth.Password} }
	for kind, c := range map[string]struct {
		username string
		front    func(*providertest.Fake) http.Handler
	}{
		"quay": {"$oauthtoken", func(f *providertest.Fake) http.Handler { return &providertest.Quay{Fake: f} }},
		"ghcr": {"token", func(f *providertest.Fake) http.Handler { return &providertest.GHCR{Fake: f} }},
		"gitlab": {"oauth2", func(f *providertest.Fake) http.Handler {
			return &providertest.GitLab{Fake: f, Projects: []string{"team"}}
		}},
		"gitea": {"token", func(f *providertest.Fake) http.Handler { return &providertest.Gitea{Fake: f, Owners: []string{"team"}} }},
	} {
		f := account(&providertest.Fake{Tokens: true}, c.username)
		if err := push(t.Context(), serve(t, kind, c.front(f), bare).Repository("team/app"), "v1"); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
	}
}
