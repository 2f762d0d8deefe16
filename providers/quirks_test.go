package providers_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/twinport/twinport/providers"
	"github.com/twinport/twinport/providers/generic"
	"github.com/twinport/twinport/providers/providertest"
	"github.com/twinport/twinport/replicator/oci"
)

// cut ends the connection in the middle of the first upload.
type cut struct {
	http.Handler
	done atomic.Bool
}

func (c *cut) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPut && r.ContentLength > 2<<20 && c.done.CompareAndSwap(false, true) {
		_, _ = io.CopyN(io.Discard, r.Body, 1<<20)
		panic(http.ErrAbortHandler)
	}
	c.Handler.ServeHTTP(w, r)
}

// TestBrokenUploads: where a kind's sessions are not to be taken up again
// nothing is ever sent by PATCH; the blob begins anew in another session.
func TestBrokenUploads(t *testing.T) {
	fake := func() *providertest.Fake { return account(&providertest.Fake{Tokens: true}, "robot") }
	for kind, front := range map[string]func(*providertest.Fake) http.Handler{
		"ghcr":      func(f *providertest.Fake) http.Handler { return &providertest.GHCR{Fake: f} },
		"dockerhub": func(f *providertest.Fake) http.Handler { return &providertest.DockerHub{Fake: f} },
		"gitea":     func(f *providertest.Fake) http.Handler { return &providertest.Gitea{Fake: f, Owners: []string{"team"}} },
		"gitlab": func(f *providertest.Fake) http.Handler {
			return &providertest.GitLab{Fake: f, Projects: []string{"team"}}
		},
		"nexus": func(f *providertest.Fake) http.Handler { return &providertest.Nexus{Fake: f} },
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			f := fake()
			repo := serve(t, kind, &cut{Handler: front(f)}, nil).Repository("team/app")
			content := providertest.Random(6 << 20)
			desc := providertest.Describe(v1.MediaTypeImageLayer, content)
			for try := 1; ; try++ {
				u, _, err := repo.Start(t.Context(), desc, nil)
				if err != nil {
					t.Fatal(err)
				}
				if err = u.Put(t.Context(), providertest.Bytes(content)); err == nil {
					break
				}
				_ = u.Cancel(t.Context())
				if !errors.Is(err, oci.ErrUploadUnknown) || try > 1 {
					t.Fatalf("try %d: %v, want a lost session", try, err)
				}
			}
			if n := f.Count("PATCH", ""); n > 0 {
				t.Errorf("%d PATCHes", n)
			}
		})
	}
}

// TestNoReferrersAtGHCR: whichever way it says that there is no such API, the
// answer is unsupported, soon and for all.
func TestNoReferrersAtGHCR(t *testing.T) {
	for _, status := range []int{http.StatusSeeOther, http.StatusNotFound, http.StatusTooManyRequests} {
		f := account(&providertest.Fake{Tokens: true}, "robot")
		reg := serve(t, "ghcr", &providertest.GHCR{Fake: f, Referrers: status}, nil)
		m := providertest.PushImage(t, reg.Repository("team/app"), "v1", nil)
		for range 3 {
			for _, err := range reg.Repository("team/app").Referrers(t.Context(), m.Digest) {
				if !errors.Is(err, oci.ErrUnsupported) {
					t.Errorf("%d: %v, want unsupported", status, err)
				}
			}
		}
		if n := f.Count("GET", "/referrers/"); n != 1 {
			t.Errorf("%d: asked %d times", status, n)
		}
	}
}

// TestOfficialImages: names of one part are those of library at Docker Hub, and
// all its hosts are one registry.
func TestOfficialImages(t *testing.T) {
	f := account(&providertest.Fake{Tokens: true}, "robot")
	reg := serve(t, "dockerhub", &providertest.DockerHub{Fake: f}, nil)
	d := f.SetManifest("library/alpine", "3", v1.MediaTypeImageIndex, []byte(`{"schemaVersion":2,"manifests":[]}`))
	repo := reg.Repository("alpine")
	if desc, err := repo.Resolve(t.Context(), "3"); err != nil || desc.Digest != d || repo.Name() != "alpine" {
		t.Errorf("%s is %v, %v", repo.Name(), desc.Digest, err)
	}
	for _, host := range []string{"docker.io", "index.docker.io", "registry-1.docker.io", "Docker.IO:443", "hub.docker.com"} {
		var asked string
		reg, err := providers.Open(generic.Spec{Name: "hub", Kind: "dockerhub", Host: host, Prefix: "team", Auth: generic.Auth{Anonymous: true}},
			transportFunc(func(r *http.Request) (*http.Response, error) {
				asked = r.URL.Host
				return nil, io.ErrUnexpectedEOF
			}))
		if err != nil {
			t.Fatal(err)
		}
		_ = reg.Ping(t.Context())
		if id := reg.Identity(); id != "dockerhub://index.docker.io/team" || asked != "registry-1.docker.io" {
			t.Errorf("%s is %s, asked at %s", host, id, asked)
		}
	}
}

type transportFunc func(*http.Request) (*http.Response, error)

func (f transportFunc) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// TestAllowanceOfDockerHub: when its headers say that no pull is left, none is
// asked for until it says otherwise; HEADs go on.
func TestAllowanceOfDockerHub(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &providertest.Fake{}
		hub := &providertest.DockerHub{Fake: f, Allowance: 2}
		d := f.SetManifest("team/app", "v1", v1.MediaTypeImageIndex, []byte(`{"schemaVersion":2,"manifests":[]}`))
		reg, err := providers.Open(
			generic.Spec{Name: "hub", Kind: "dockerhub", Host: "hub.test", PlainHTTP: true, Auth: generic.Auth{Anonymous: true}},
			transportFunc(func(r *http.Request) (*http.Response, error) {
				w := httptest.NewRecorder()
				hub.ServeHTTP(w, r)
				return w.Result(), nil
			}))
		if err != nil {
			t.Fatal(err)
		}
		repo := reg.Repository("team/app")
		pull := func() error {
			_, err := repo.FetchManifest(t.Context(), d.String())
			return err
		}
		for range 2 {
			if err := pull(); err != nil {
				t.Fatal(err)
			}
		}
		before := f.Count("GET", "/manifests/")
		var throttled *oci.ThrottledError
		for range 5 {
			if err := pull(); !errors.As(err, &throttled) || throttled.Wait < 14*time.Minute || throttled.Wait > 15*time.Minute+time.Second {
				t.Fatalf("with nothing left: %v", err)
			}
		}
		if n := f.Count("GET", "/manifests/") - before; n != 0 {
			t.Errorf("%d pulls asked for with nothing left", n)
		}
		if _, err := repo.Resolve(t.Context(), "v1"); err != nil {
			t.Errorf("HEAD: %v", err)
		}
		if err := pull(); !errors.As(err, &throttled) {
			t.Errorf("after a HEAD that tells the same: %v", err)
		}
		hub.Forget()
		if _, err := repo.Resolve(t.Context(), "v1"); err != nil {
			t.Errorf("HEAD: %v", err)
		}
		if err := pull(); err != nil {
			t.Errorf("after a HEAD that tells of more: %v", err)
		}
		_ = pull()
		time.Sleep(16 * time.Minute) // simulated; then one is tried again
		hub.Forget()
		if err := pull(); err != nil {
			t.Errorf("after a rest: %v", err)
		}
	})
}

// TestHubLogin: the API's own login is made once, and anew when refused.
func TestHubLogin(t *testing.T) {
	f := account(&providertest.Fake{Tokens: true}, "robot")
	want := fill(f, "team/app", 250)
	hub := &providertest.DockerHub{Fake: f, Private: true}
	reg := serve(t, "dockerhub", hub, nil)
	for range 3 {
		if got := digests(t, reg.Repository("team/app").Tags(t.Context())); len(got) != len(want) || got["v00001"] != want["v00001"] {
			t.Fatalf("%d tags", len(got))
		}
	}
	if n := hub.Logins.Load(); n != 1 {
		t.Errorf("%d logins", n)
	}
}

// TestOldNexus: a manifest that only a GET finds is there; what neither finds is not.
func TestOldNexus(t *testing.T) {
	reg := serve(t, "nexus", &providertest.Nexus{Fake: account(&providertest.Fake{}, "robot"), Old: true}, nil)
	m := providertest.PushImage(t, reg.Repository("team/app"), "v1", nil)
	if desc, err := reg.Repository("team/app").Resolve(t.Context(), "v1"); err != nil || desc.Digest != m.Digest {
		t.Errorf("%v, %v", desc.Digest, err)
	}
	if _, err := reg.Repository("team/app").Resolve(t.Context(), "v2"); !errors.Is(err, oci.ErrNotFound) {
		t.Errorf("absent: %v", err)
	}
}

// TestScopesAtQuay: its realm is asked for nothing it cannot read, not even
// where a challenge names more.
func TestScopesAtQuay(t *testing.T) {
	f := account(&providertest.Fake{Tokens: true}, "robot")
	f.Before = func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/token" || r.Header.Get("Authorization") != "" {
			return false
		}
		w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+r.Host+`/token",service="quay",scope="repository:team/app:pull,push,delete"`)
		providertest.Fail(w, http.StatusUnauthorized, "UNAUTHORIZED", "authentication required")
		return true
	}
	reg := serve(t, "quay", &providertest.Quay{Fake: f}, nil)
	if err := push(t.Context(), reg.Repository("team/app"), "v1"); err != nil {
		t.Error(err)
	}
	for _, err := range reg.Repositories(t.Context()) {
		if err != nil {
			t.Error(err)
		}
	}
}

// TestLoginStaysAtHome: what is redirected elsewhere carries no credentials, at
// the providers' own APIs neither.
func TestLoginStaysAtHome(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("%s asked elsewhere", r.URL.Path)
	}))
	defer elsewhere.Close()
	for kind, front := range map[string]func(*providertest.Fake) http.Handler{
		"harbor": func(f *providertest.Fake) http.Handler { return &providertest.Harbor{Fake: f} },
		"quay":   func(f *providertest.Fake) http.Handler { return &providertest.Quay{Fake: f, Public: true} },
		"gitlab": func(f *providertest.Fake) http.Handler { return &providertest.GitLab{Fake: f} },
	} {
		f := account(&providertest.Fake{Tokens: true}, "robot")
		fill(f, "team/app", 1)
		inner := front(f)
		reg := serve(t, kind, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.URL.Path, "/api/") {
				http.Redirect(w, r, elsewhere.URL+r.URL.Path, http.StatusFound)
				return
			}
			inner.ServeHTTP(w, r)
		}), nil)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		if got := digests(t, reg.Repository("team/app").Tags(ctx)); len(got) != 1 {
			t.Errorf("%s: %v", kind, got) // the tag list serves
		}
		for range reg.Repositories(ctx) {
			continue
		}
		cancel()
	}
}
