package harbor_test

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/twinport/twinport/providers/generic"
	"github.com/twinport/twinport/providers/harbor"
	"github.com/twinport/twinport/providers/providertest"
	"github.com/twinport/twinport/replicator/oci"
)

const password = "api-key-of-robot"

func open(t *testing.T, f *providertest.Harbor, prefix string) *harbor.Registry {
	t.Helper()
	return dial(t, serve(t, f), prefix)
}

func serve(t *testing.T, f *providertest.Harbor) string {
	f.Username, f.Password, f.Tokens, f.Page = "robot$team+ci", password, true, 1000
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

func dial(t *testing.T, host, prefix string) *harbor.Registry {
	t.Helper()
	spec := generic.Spec{
		Name: "harbor", Kind: "harbor", Host: host, Prefix: prefix, PlainHTTP: true,
		Auth: generic.Auth{Username: "robot$team+ci", Password: func() (string, error) { return password, nil }},
	}
	transport, err := generic.Transport(spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(transport.CloseIdleConnections)
	reg, err := harbor.New(spec, transport)
	if err != nil {
		t.Fatal(err)
	}
	return reg
}

func TestContract(t *testing.T) {
	host := serve(t, &providertest.Harbor{Fake: &providertest.Fake{Deletes: providertest.DeletesDigests}, Projects: []string{"contract"}})
	providertest.Run(t, providertest.Suite{
		Catalog: true, Mount: true, Ranges: true, Referrers: true, Strict: true, Resume: true, SHA512: true,
		Open: func(t *testing.T) oci.Registry { return dial(t, host, "") },
	})
}

// TestInventory: an unchanged repository of 10,000 tags is told by 110
// requests, digests and times with it, the tags of accessories too.
func TestInventory(t *testing.T) {
	f := &providertest.Harbor{Fake: &providertest.Fake{}, Projects: []string{"team"}}
	reg := open(t, f, "team")
	want := make(map[string]string)
	for n := range 10000 {
		tag := fmt.Sprintf("v%05d", n)
		want[tag] = f.SetManifest("team/deep/app", tag, v1.MediaTypeImageIndex, fmt.Appendf(nil, `{"n":%d}`, n)).String()
	}
	signature := "sha256-" + strings.Repeat("ab", 32) + ".sig"
	f.SetManifest("team/deep/app", signature, v1.MediaTypeImageManifest, []byte(`{}`))
	want[signature] = "" // not told by the list it is in
	before := len(f.Requests())
	got := make(map[string]string)
	for tag, err := range reg.Repository("deep/app").Tags(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		got[tag.Name] = tag.Digest.String()
		if tag.Digest != "" && !tag.PushedAt.Equal(providertest.Pushed) {
			t.Fatalf("%s pushed at %v", tag.Name, tag.PushedAt)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	// 101 pages of artifacts (the last is empty), 11 of tags, a challenge and a token.
	if n := len(f.Requests()) - before; n > 115 {
		t.Errorf("%d requests", n)
	}
}

func TestRepositories(t *testing.T) {
	f := &providertest.Harbor{Fake: &providertest.Fake{}, Projects: []string{"team", "other"}}
	for _, name := range []string{"team/app", "team/deep/app", "other/app"} {
		f.SetManifest(name, "v1", v1.MediaTypeImageIndex, []byte(`{}`))
	}
	for prefix, want := range map[string][]string{
		"": {"other/app", "team/app", "team/deep/app"}, "team": {"app", "deep/app"}, "team/deep": {"app"},
	} {
		var got []string
		for name, err := range open(t, f, prefix).Repositories(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, name)
		}
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Errorf("below %q: %v, want %v", prefix, got, want)
		}
	}
}

// TestWithoutAPI: an account that may use the registry alone still lists.
func TestWithoutAPI(t *testing.T) {
	f := &providertest.Harbor{Fake: &providertest.Fake{}, Projects: []string{"team"}}
	reg := open(t, f, "")
	f.SetManifest("team/app", "v1", v1.MediaTypeImageIndex, []byte(`{}`))
	f.DenyAPI = true
	for tag, err := range reg.Repository("team/app").Tags(t.Context()) {
		if err != nil || tag.Name != "v1" || tag.Digest != "" {
			t.Errorf("%+v, %v", tag, err)
		}
	}
	for _, err := range reg.Repositories(t.Context()) {
		if !errors.Is(err, oci.ErrUnlistable) {
			t.Errorf("got %v, want unlistable", err)
		}
	}
}

func TestRefusals(t *testing.T) {
	f := &providertest.Harbor{Fake: &providertest.Fake{}, Projects: []string{"held", "full", "guarded"}, Rule: "held", Quota: "full", Policy: "guarded"}
	reg := open(t, f, "")
	push := func(repo string) error {
		r := reg.Repository(repo)
		content := providertest.Random(100)
		desc := providertest.Describe(v1.MediaTypeImageLayer, content)
		u, _, err := r.Start(t.Context(), desc, nil)
		if err == nil {
			err = u.Put(t.Context(), providertest.Bytes(content))
		}
		if err != nil {
			return err
		}
		_, err = r.PushManifest(t.Context(), "v1", providertest.Image(nil, desc, desc))
		return err
	}
	if err := push("held/app"); err != nil {
		t.Fatal(err)
	}
	f.SetManifest("guarded/app", "v1", v1.MediaTypeImageIndex, []byte(`{}`))
	for name, c := range map[string]struct {
		err  error
		kind error
		hint string
	}{
		"immutable tag": {push("held/app"), oci.ErrImmutable, "immutability rule"},
		"immutable tag to delete": {
			reg.Repository("held/app").(oci.TagDeleter).DeleteTag(t.Context(), "v1"), oci.ErrImmutable, "immutability rule",
		},
		"no project":     {push("absent/app"), oci.ErrRepositoryUnknown, "create the project"},
		"quota":          {push("full/app"), oci.ErrRefused, "quota"},
		"project policy": {func() error { _, err := reg.Repository("guarded/app").FetchManifest(t.Context(), "v1"); return err }(), oci.ErrDenied, "policy"},
	} {
		var refused *oci.RegistryError
		if !errors.Is(c.err, c.kind) || !errors.As(c.err, &refused) || !strings.Contains(refused.Hint, c.hint) {
			t.Errorf("%s: %v, want %v with a hint of %q", name, c.err, c.kind, c.hint)
		}
		if c.err != nil && strings.Contains(c.err.Error(), password) {
			t.Errorf("%s tells the password: %v", name, c.err)
		}
	}
}

// TestCreate: a missing project is made where the config says so, once, and
// `plan` is told beforehand.
func TestCreate(t *testing.T) {
	for _, admin := range []bool{true, false} {
		f := &providertest.Harbor{Fake: &providertest.Fake{}, Admin: admin}
		host := serve(t, f)
		spec := generic.Spec{
			Name: "harbor", Kind: "harbor", Host: host, PlainHTTP: true, Create: &generic.Create{Scan: true},
			Auth: generic.Auth{Username: "robot$team+ci", Password: func() (string, error) { return password, nil }},
		}
		transport, err := generic.Transport(spec)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(transport.CloseIdleConnections)
		reg, err := harbor.New(spec, transport)
		if err != nil {
			t.Fatal(err)
		}
		would := func() bool {
			creator, ok := reg.Repository("fresh/app").(interface {
				WouldCreate(ctx context.Context) (bool, error)
			})
			if !ok {
				t.Fatal("it cannot tell")
			}
			yes, err := creator.WouldCreate(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return yes
		}
		if !would() {
			t.Error("a push would make it, it says not")
		}
		desc := providertest.Describe(v1.MediaTypeImageLayer, providertest.Random(10))
		_, _, err = reg.Repository("fresh/app").Start(t.Context(), desc, nil)
		var refused *oci.RegistryError
		switch {
		case admin && (err != nil || would()):
			t.Errorf("made: %v, would again: %v", err, would())
		case !admin && (!errors.Is(err, oci.ErrDenied) || !errors.As(err, &refused) || !strings.Contains(refused.Hint, "create projects")):
			t.Errorf("not allowed: %v", err)
		}
	}
}
