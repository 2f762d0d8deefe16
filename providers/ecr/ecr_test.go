package ecr_test

import (
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/twinport/twinport/providers/ecr"
	"github.com/twinport/twinport/providers/generic"
	"github.com/twinport/twinport/providers/providertest"
	"github.com/twinport/twinport/replicator/limit"
	"github.com/twinport/twinport/replicator/oci"
)

// start serves a fake and gives what opens clients for it.
func start(t *testing.T, e *providertest.ECR, change func(*generic.Spec)) func(*testing.T) oci.Registry {
	t.Helper()
	host, storage := e.Start(t)
	return func(t *testing.T) oci.Registry {
		t.Helper()
		spec := generic.Spec{
			Name: "us", Kind: "ecr", Host: host, PlainHTTP: true, Region: "eu-west-1",
			Redirects: []string{storage}, Create: &generic.Create{},
		}
		if e.Alias != "" {
			spec.Kind, spec.Prefix = "ecr-public", e.Alias
		}
		if change != nil {
			change(&spec)
		}
		transport, err := generic.Transport(spec)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(transport.CloseIdleConnections)
		open := ecr.New
		if e.Alias != "" {
			open = ecr.NewPublic
		}
		reg, err := open(spec, transport)
		if err != nil {
			t.Fatal(err)
		}
		return reg
	}
}

func TestContract(t *testing.T) {
	whole := providertest.Suite{Catalog: true, Mount: true, Ranges: true, Referrers: true, Strict: true}
	run := func(name string, s providertest.Suite, e *providertest.ECR, change func(*generic.Spec)) {
		t.Run(name, func(t *testing.T) {
			s.Open = start(t, e, change)
			providertest.Run(t, s)
		})
	}
	run("private", whole, &providertest.ECR{Registry: providertest.Fake{Deletes: providertest.DeletesDigests}}, nil)
	run("prefix", whole, &providertest.ECR{}, func(s *generic.Spec) { s.Prefix = "team/x" })
	run("tokens that end", whole, &providertest.ECR{TokenUses: 3}, nil)
	run("role", whole, &providertest.ECR{Role: "arn:aws:iam::123456789012:role/twinport", ExternalID: "x"}, func(s *generic.Spec) {
		s.Auth.AssumeRole = &generic.AssumeRole{ARN: "arn:aws:iam::123456789012:role/twinport", ExternalID: "x"}
	})
	poor := whole
	poor.Mount, poor.Referrers = false, false
	run("no mounts, no referrers", poor, &providertest.ECR{NoMounts: true, NoReferrers: true}, nil)
	template := whole
	run("template", template, &providertest.ECR{CreateOnPush: true}, func(s *generic.Spec) { s.Create = nil })
	plain := whole // distribution has no referrers API
	plain.Referrers = false
	before := &providertest.ECR{}
	before.Registry.Upstream = providertest.Proxy(providertest.Distribution(t, ""))
	run("before distribution", plain, before, nil)
	run("public", whole, &providertest.ECR{Alias: "a1b2c3"}, nil)
	run("public, tokens that end", whole, &providertest.ECR{Alias: "a1b2c3", TokenUses: 3}, nil)
}

func TestIdentity(t *testing.T) {
	t.Setenv("AWS_CONFIG_FILE", "/dev/null")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
	for host, want := range map[string]string{
		"123456789012.dkr.ecr.eu-west-1.amazonaws.com":              "ecr://123456789012.eu-west-1/team",
		"123456789012.dkr-ecr.eu-west-1.on.aws":                     "ecr://123456789012.eu-west-1/team",
		"123456789012.dkr.ecr-fips.us-east-1.amazonaws.com":         "ecr://123456789012.us-east-1/team",
		"123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn":          "ecr://123456789012.cn-north-1/team",
		"ecr.internal.example.com":                                  "ecr://ecr.internal.example.com/team",
		"123456789012.dkr.ecr.eu-west-1.amazonaws.com.evil.example": "ecr://123456789012.dkr.ecr.eu-west-1.amazonaws.com.evil.example/team",
	} {
		reg, err := ecr.New(generic.Spec{Name: "us", Kind: "ecr", Host: host, Prefix: "team", Region: "eu-west-1"}, http.DefaultTransport)
		if err != nil {
			t.Fatal(err)
		}
		if got := reg.Identity(); got != want {
			t.Errorf("%s: identity %s, want %s", host, got, want)
		}
	}
	if _, err := ecr.New(generic.Spec{Name: "us", Host: "ecr.example.com"}, http.DefaultTransport); err == nil || !strings.Contains(err.Error(), "region") {
		t.Errorf("a host without a region: %v", err)
	}
}

// TestTokensAreShared: one token serves all, and a 401 in the middle costs one.
func TestTokensAreShared(t *testing.T) {
	for _, alias := range []string{"", "a1b2c3"} {
		e := &providertest.ECR{Alias: alias}
		reg := start(t, e, nil)(t)
		repo := reg.Repository("team/app")
		m := providertest.PushImage(t, repo, "v1", nil)
		if n := e.Calls("GetAuthorizationToken"); n != 1 {
			t.Fatalf("%d tokens for one push, want 1", n)
		}
		e.Expire()
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() {
				if desc, err := repo.Resolve(t.Context(), "v1"); err != nil || desc.Digest != m.Digest {
					t.Errorf("after all tokens ended: %v, %v", desc.Digest, err)
				}
			})
		}
		wg.Wait()
		if n := e.Calls("GetAuthorizationToken"); n != 2 {
			t.Fatalf("%d tokens after all ended once, want 2", n)
		}
	}
}

// TestEverythingIsLimited: each request, the SDK's own too, has its class.
func TestEverythingIsLimited(t *testing.T) {
	e := &providertest.ECR{Role: "arn:aws:iam::123456789012:role/twinport"}
	host, storage := e.Start(t)
	spec := generic.Spec{
		Name: "us", Kind: "ecr", Host: host, PlainHTTP: true, Region: "eu-west-1", Redirects: []string{storage}, Create: &generic.Create{},
		Auth: generic.Auth{AssumeRole: &generic.AssumeRole{ARN: e.Role}},
	}
	transport, err := generic.Transport(spec)
	if err != nil {
		t.Fatal(err)
	}
	gate := limit.New(limit.Spec{Registry: "us", Rates: ecr.Rates("ecr")}, transport, nil)
	reg, err := ecr.New(spec, gate)
	if err != nil {
		t.Fatal(err)
	}
	providertest.PushImage(t, reg.Repository("team/app"), "v1", nil)
	for range reg.Repository("team/app").Tags(t.Context()) {
		break
	}
	got := gate.Stats().Requests
	for op, want := range map[oci.Operation]int64{oci.OpToken: 2, oci.OpCreate: 1, oci.OpList: 1, oci.OpManifestWrite: 1, "other": 0} {
		if got[op] != want {
			t.Errorf("%d requests of class %s, want %d; all: %v", got[op], op, want, got)
		}
	}
}

// TestBackfillWithinQuotas: with the documented quotas enforced, a backfill runs
// into none of them and uses nine tenths of the one that bounds it. On simulated
// time: how fast this machine is decides nothing.
func TestBackfillWithinQuotas(t *testing.T) {
	e := &providertest.ECR{Quotas: map[string]float64{
		"PutImage": 10, "InitiateLayerUpload": 100, "CompleteLayerUpload": 100, "BatchCheckLayerAvailability": 1000, "BatchGetImage": 2000,
	}}
	e.Start(t) // the environment; what follows needs no network
	t.Setenv("AWS_ENDPOINT_URL", "http://registry.example")
	e.Registry.Blobs = ""
	synctest.Test(t, func(t *testing.T) {
		spec := generic.Spec{Name: "us", Kind: "ecr", Host: "registry.example", PlainHTTP: true, Region: "eu-west-1"}
		gate := limit.New(limit.Spec{Registry: "us", Rates: ecr.Rates("ecr")}, providertest.Direct{"registry.example": e}, nil)
		reg, err := ecr.New(spec, gate)
		if err != nil {
			t.Fatal(err)
		}
		e.Make("team/app", providertest.ECRRepository{})
		repo := reg.Repository("team/app")
		const images = 600
		began := time.Now()
		var group errgroup.Group
		group.SetLimit(32) // images side by side, as a daemon has them
		for i := range images {
			group.Go(func() error {
				m := providertest.Image(nil, pushed(t, repo, 50), pushed(t, repo, 100), pushed(t, repo, 200))
				_, err := repo.PushManifest(t.Context(), fmt.Sprintf("t%d", i), m)
				return err
			})
		}
		if err := group.Wait(); err != nil {
			t.Fatal(err)
		}
		took := time.Since(began)
		if e.Throttled() > 0 {
			t.Errorf("%d requests over a quota", e.Throttled())
		}
		rate := images / took.Seconds()
		t.Logf("%d images in %s: %.2f a second", images, took, rate)
		if rate < 9 || rate > 10 {
			t.Errorf("%.2f manifests a second, want 90 %% of 10, and no more than 10", rate)
		}
	})
}

// pushed uploads a random blob, from any goroutine.
func pushed(t *testing.T, repo oci.Repository, size int) v1.Descriptor {
	content := providertest.Random(size)
	desc := providertest.Describe(v1.MediaTypeImageLayerGzip, content)
	upload, _, err := repo.Start(t.Context(), desc, nil)
	if err == nil {
		err = upload.Put(t.Context(), providertest.Bytes(content))
	}
	if err != nil {
		t.Error(err)
	}
	return desc
}

func TestImmutableTags(t *testing.T) {
	e := &providertest.ECR{}
	reg := start(t, e, func(s *generic.Spec) { s.Create = &generic.Create{ImmutableTags: true} })(t)
	repo := reg.Repository("team/app")
	m := providertest.PushImage(t, repo, "v1", nil)
	if _, err := repo.PushManifest(t.Context(), "v1", m); err != nil {
		t.Fatalf("an equal digest: %v, want done", err)
	}
	other := providertest.PushImage(t, repo, "", nil)
	_, err := repo.PushManifest(t.Context(), "v1", other)
	if !errors.Is(err, oci.ErrImmutable) {
		t.Fatalf("another digest: %v, want immutable", err)
	}
	if oci.KindOf(err) != "immutable" || !strings.Contains(err.Error(), "tag mutability") {
		t.Errorf("%v does not say what to do", err)
	}
	for _, manifest := range []oci.Manifest{m, other} { // as a fallback index grows
		if _, err := repo.PushManifest(t.Context(), oci.FallbackTag(m.Digest), manifest); err != nil {
			t.Errorf("a fallback tag cannot grow: %v", err)
		}
	}
}

// TestNoChunks: an upload that breaks is not taken up where ECR says it was.
func TestNoChunks(t *testing.T) {
	e := &providertest.ECR{}
	reg := start(t, e, nil)(t)
	content := providertest.Random(2 << 20)
	desc := providertest.Describe(v1.MediaTypeImageLayer, content)
	var broken atomic.Bool
	e.Make("team/app", providertest.ECRRepository{})
	repo := reg.Repository("team/app")
	u, _, err := repo.Start(t.Context(), desc, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = u.Put(t.Context(), cutOnce{content, &broken})
	if err == nil {
		t.Fatal("a cut upload is stored")
	}
	if _, err := u.Offset(t.Context()); !errors.Is(err, oci.ErrUnsupported) {
		t.Errorf("offset: %v, want unsupported", err)
	}
	_ = u.Cancel(t.Context())
	providertest.PushBlob(t, repo, content)
	if n := e.Registry.Count("PATCH", "/"); n > 0 {
		t.Errorf("%d PATCH requests, want none", n)
	}
}

func TestSweepOf10000Tags(t *testing.T) {
	e := &providertest.ECR{}
	reg := start(t, e, nil)(t)
	want := make(map[string]digest.Digest)
	for i := range 10_000 {
		tag := fmt.Sprintf("v%05d", i)
		want[tag] = e.Registry.SetManifest("team/app", tag, v1.MediaTypeImageManifest, []byte(tag))
	}
	e.Make("team/app", providertest.ECRRepository{})
	got := make(map[string]digest.Digest)
	for name, err := range reg.Repositories(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		for tag, err := range reg.Repository(name).Tags(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			got[tag.Name] = tag.Digest
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("tags (-want +got):\n%.2000s", diff)
	}
	if n := e.Calls("DescribeImages") + e.Calls("DescribeRepositories") + len(e.Registry.Requests()); n > 30 {
		t.Errorf("%d requests for 10,000 tags, want at most 30", n)
	}
}

func TestTagTimes(t *testing.T) {
	e := &providertest.ECR{}
	repo := start(t, e, nil)(t).Repository("team/app")
	before := time.Now().Truncate(time.Millisecond)
	providertest.PushImage(t, repo, "v1", nil)
	for tag, err := range repo.Tags(t.Context()) {
		if err != nil || tag.PushedAt.Before(before) || tag.PushedAt.Location() != time.UTC {
			t.Errorf("%+v, %v: want a push time after %s", tag, err, before)
		}
	}
}

// TestSixHours: tokens that end every few minutes and in the middle of uploads
// fail nothing.
func TestSixHours(t *testing.T) {
	for _, alias := range []string{"", "a1b2c3"} {
		e := &providertest.ECR{Alias: alias, TokenLife: 4 * time.Minute}
		e.Start(t) // the environment; what follows needs no network
		t.Setenv("AWS_ENDPOINT_URL", "http://registry.example")
		e.Registry.Blobs = "http://storage.example"
		synctest.Test(t, func(t *testing.T) {
			spec := generic.Spec{
				Name: "us", Kind: "ecr", Host: "registry.example", Prefix: alias, PlainHTTP: true, Region: "eu-west-1",
				Redirects: []string{"storage.example"}, Create: &generic.Create{},
			}
			open := ecr.New
			if alias != "" {
				open = ecr.NewPublic
			}
			reg, err := open(spec, providertest.Direct{"registry.example": e, "storage.example": e.Storage()})
			if err != nil {
				t.Fatal(err)
			}
			repo := reg.Repository("team/app")
			for n := range 60 {
				content := providertest.Random(100)
				desc := providertest.Describe(v1.MediaTypeImageLayer, content)
				u, _, err := repo.Start(t.Context(), desc, nil)
				if err != nil {
					t.Fatalf("after %d minutes: %v", 6*n, err)
				}
				if n%2 == 0 {
					e.Expire()
				}
				time.Sleep(3 * time.Minute)
				if err := u.Put(t.Context(), providertest.Bytes(content)); err != nil {
					t.Fatalf("after %d minutes: %v", 6*n, err)
				}
				providertest.PushImage(t, repo, fmt.Sprintf("t%d", n), nil)
				time.Sleep(3 * time.Minute)
			}
			if n := e.Calls("GetAuthorizationToken"); n < 60 || n > 200 {
				t.Errorf("%d tokens in six hours", n)
			}
		})
	}
}

// TestWebIdentity: the identity that IRSA gives a pod.
func TestWebIdentity(t *testing.T) {
	e := &providertest.ECR{Role: "arn:aws:iam::123456789012:role/pod"}
	open := start(t, e, nil)
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("web-identity"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "")
	t.Setenv("AWS_ENDPOINT_URL_STS", os.Getenv("AWS_ENDPOINT_URL"))
	t.Setenv("AWS_ROLE_ARN", e.Role)
	t.Setenv("AWS_WEB_IDENTITY_TOKEN_FILE", token)
	providertest.PushImage(t, open(t).Repository("team/app"), "v1", nil)
	if e.Calls("AssumeRole") != 1 {
		t.Errorf("STS was asked %d times, want once", e.Calls("AssumeRole"))
	}
}

// TestCABundle: AWS's own setting for proxies that look into TLS stops nothing.
func TestCABundle(t *testing.T) {
	e := &providertest.ECR{}
	open := start(t, e, nil)
	server := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(server.Close)
	bundle := filepath.Join(t.TempDir(), "ca.pem")
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(bundle, cert, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("AWS_CA_BUNDLE", bundle)
	providertest.PushImage(t, open(t).Repository("team/app"), "v1", nil)
}

// TestDeletes: BatchDeleteImage answers 200 whatever became of the image.
func TestDeletes(t *testing.T) {
	untag := func(e *providertest.ECR) error {
		repo := start(t, e, nil)(t).Repository("team/app")
		providertest.PushImage(t, repo, "v1", nil)
		return repo.(oci.TagDeleter).DeleteTag(t.Context(), "v1")
	}
	var refused *oci.RegistryError
	err := untag(&providertest.ECR{Referenced: []string{"team/app:v1"}, CreateOnPush: true})
	if !errors.Is(err, oci.ErrRefused) || !errors.As(err, &refused) || !strings.Contains(refused.Hint, "multi-platform") {
		t.Errorf("an image that an index keeps: %v", err)
	}
	err = untag(&providertest.ECR{Denied: []string{"ecr:BatchDeleteImage"}, CreateOnPush: true})
	if !errors.Is(err, oci.ErrDenied) || !errors.As(err, &refused) || !strings.Contains(refused.Hint, "ecr:BatchDeleteImage") {
		t.Errorf("an identity that may not: %v", err)
	}
}
