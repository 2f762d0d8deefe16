package generic_test

import (
	"context"
	"errors"
	"iter"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/twinport/twinport/providers/generic"
	"github.com/twinport/twinport/providers/providertest"
	"github.com/twinport/twinport/replicator/oci"
)

// withWays opens a client with ways of its own to a fake.
func withWays(t *testing.T, f *providertest.Fake, ways generic.Ways) (*generic.Registry, *httptest.Server) {
	t.Helper()
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	spec := generic.Spec{Name: "r", Host: strings.TrimPrefix(server.URL, "http://"), PlainHTTP: true}
	if f.Username != "" {
		spec.Auth = generic.Auth{Username: f.Username, Password: func() (string, error) { return f.Password, nil }}
	}
	transport, err := generic.Transport(spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(transport.CloseIdleConnections)
	r, err := generic.NewWith(spec, transport, ways)
	if err != nil {
		t.Fatal(err)
	}
	return r, server
}

func tagNames(t *testing.T, list iter.Seq2[oci.Tag, error]) (names []string, fault error) {
	t.Helper()
	for tag, err := range list {
		if err != nil {
			return names, err
		}
		names = append(names, tag.Name)
	}
	return names, nil
}

func TestOwnTagList(t *testing.T) {
	broken := errors.New("broken")
	for name, c := range map[string]struct {
		own  []any // names and an error
		want []string
		err  error
	}{
		"works":             {[]any{"a", "b"}, []string{"a", "b"}, nil},
		"is empty":          {nil, nil, nil},
		"holds no tags":     {[]any{"a", "sha256:ab", "skipped"}, []string{"a"}, nil},
		"is refused":        {[]any{broken}, []string{"plain"}, nil},
		"breaks in between": {[]any{"a", broken}, []string{"a"}, broken},
	} {
		f := &providertest.Fake{}
		r, _ := withWays(t, f, generic.Ways{
			NoTag: func(name string) bool { return name == "skipped" },
			Tags: func(_ context.Context, _ *generic.Registry, full string) iter.Seq2[oci.Tag, error] {
				return func(yield func(oci.Tag, error) bool) {
					for _, v := range c.own {
						tag, _ := v.(string)
						err, _ := v.(error)
						if !yield(oci.Tag{Name: tag}, err) {
							return
						}
					}
				}
			},
		})
		f.SetManifest("team/app", "plain", "application/vnd.oci.image.index.v1+json", []byte(`{"schemaVersion":2,"manifests":[]}`))
		got, err := tagNames(t, r.Repository("team/app").Tags(t.Context()))
		if diff := cmp.Diff(c.want, got); diff != "" || !errors.Is(err, c.err) {
			t.Errorf("a list of its own that %s: %v\n%s", name, err, diff)
		}
	}
}

// TestElsewhere: a login for a provider's API reaches the host that was meant
// and no other, whatever that answers.
func TestElsewhere(t *testing.T) {
	other := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("followed to %s with %q", r.Host, r.Header.Get("Authorization"))
	}))
	defer other.Close()
	f := &providertest.Fake{Before: func(w http.ResponseWriter, r *http.Request) bool {
		switch r.URL.Path {
		case "/api/moved":
			http.Redirect(w, r, other.URL, http.StatusFound)
		case "/api/who":
			_, _ = w.Write([]byte(r.Header.Get("Authorization")))
		case "/api/denied":
			http.Error(w, `{"message":"not you"}`, http.StatusForbidden)
		default:
			return false
		}
		return true
	}}
	r, _ := withWays(t, f, generic.Ways{})
	ask := func(path string) (generic.Answer, error) {
		u := r.Address()
		u.Path = path
		return r.AskAt(t.Context(), u, "Bearer secret-of-the-api", generic.Request{Operation: oci.OpList, What: "GET " + path})
	}
	if a, err := ask("/api/who"); err != nil || string(a.Body) != "Bearer secret-of-the-api" {
		t.Errorf("%s, %v", a.Body, err)
	}
	if _, err := ask("/api/moved"); err == nil {
		t.Error("a redirect passes")
	}
	if _, err := ask("/api/denied"); !errors.Is(err, oci.ErrDenied) || !strings.Contains(err.Error(), "not you") {
		t.Errorf("refused: %v", err)
	}
	private, err := url.Parse("http://127.0.0.1:1/api")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.AskAt(t.Context(), private, "Bearer x", generic.Request{What: "GET api"}); !errors.Is(err, oci.ErrDenied) {
		t.Errorf("a private host nobody allowed: %v", err)
	}
}

func TestPages(t *testing.T) {
	list := func(pages ...[]int) ([]int, error) {
		var got []int
		for item, err := range generic.Pages(t.Context(), "GET list", func(_ context.Context, n int) ([]int, bool, error) {
			return pages[n-1], n < len(pages), nil
		}) {
			if err != nil {
				return got, err
			}
			got = append(got, item)
		}
		return got, nil
	}
	if got, err := list([]int{1, 2}, []int{3}); err != nil || !cmp.Equal(got, []int{1, 2, 3}) {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := list([]int{1}, nil, []int{2}); !errors.Is(err, oci.ErrInvalid) {
		t.Errorf("an empty page in between: %v", err)
	}
}

// TestWaysOfReferrers: where a 429 means that there is no such API, nobody waits.
func TestWaysOfReferrers(t *testing.T) {
	f := &providertest.Fake{Before: func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/referrers/") {
			return false
		}
		w.Header().Set("Retry-After", "100")
		providertest.Fail(w, http.StatusTooManyRequests, "TOOMANYREQUESTS", "retry-after: 880µs")
		return true
	}}
	r, _ := withWays(t, f, generic.Ways{ThrottledReferrers: true})
	for range 2 {
		for _, err := range r.Repository("team/app").Referrers(t.Context(), providertest.Describe("", nil).Digest) {
			if !errors.Is(err, oci.ErrUnsupported) {
				t.Errorf("got %v, want unsupported", err)
			}
		}
	}
	if n := f.Count("GET", "/referrers/"); n != 1 {
		t.Errorf("asked %d times, want once", n)
	}
}

func TestUnsureHead(t *testing.T) {
	f := &providertest.Fake{Before: func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodHead {
			w.WriteHeader(http.StatusNotFound)
		}
		return r.Method == http.MethodHead
	}}
	for _, unsure := range []bool{false, true} {
		r, _ := withWays(t, f, generic.Ways{UnsureHead: unsure})
		d := f.SetManifest("team/app", "v1", "application/vnd.oci.image.index.v1+json", []byte(`{"schemaVersion":2,"manifests":[]}`))
		desc, err := r.Repository("team/app").Resolve(t.Context(), "v1")
		if unsure && (err != nil || desc.Digest != d) || !unsure && !errors.Is(err, oci.ErrNotFound) {
			t.Errorf("unsure %v: %v, %v", unsure, desc, err)
		}
	}
}

// TestOwnScopes: a realm that refuses what it does not know is asked for
// nothing but what is needed.
func TestOwnScopes(t *testing.T) {
	var asked []string
	f := &providertest.Fake{Username: "u", Password: "pass-word", Tokens: true}
	f.Before = func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/token" {
			asked = append(asked, r.URL.Query()["scope"]...)
			return false
		}
		if r.Header.Get("Authorization") == "" {
			w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+r.Host+`/token",service="f",scope="repository:team/app:pull,push,delete"`)
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}
		return false
	}
	r, _ := withWays(t, f, generic.Ways{OwnScopes: true, NoCatalogScope: true})
	if _, err := r.Repository("team/app").Resolve(t.Context(), "v1"); !errors.Is(err, oci.ErrNotFound) {
		t.Error(err)
	}
	if diff := cmp.Diff([]string{"repository:team/app:pull"}, asked); diff != "" {
		t.Error(diff)
	}
}
