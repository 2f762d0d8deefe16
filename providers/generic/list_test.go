package generic_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/twinport/twinport/providers/generic"
	"github.com/twinport/twinport/providers/providertest"
	"github.com/twinport/twinport/replicator/oci"
)

// paged serves one page of a list per query, with its Link.
func paged(field string, pages map[string][2]string) http.RoundTripper {
	return roundTrip(func(req *http.Request) (*http.Response, error) {
		page, ok := pages[req.URL.RawQuery]
		h, status := http.Header{}, 200
		if !ok {
			status, page = 400, [2]string{errorBody("PAGINATION_NUMBER_INVALID", "no such page: "+req.URL.RawQuery), ""}
		} else {
			page[0] = `{"name":"x","` + field + `":` + page[0] + `}`
		}
		if page[1] != "" {
			h.Set("Link", page[1])
		}
		return &http.Response{StatusCode: status, Header: h, Body: io.NopCloser(strings.NewReader(page[0])), ContentLength: -1, Request: req}, nil
	})
}

func TestTagPages(t *testing.T) {
	const path = "/v2/team/app/tags/list"
	for _, c := range []struct {
		name  string
		pages map[string][2]string
		tags  []string
		want  error
	}{
		{"one", map[string][2]string{"n=1000": {`["a","b"]`, ""}}, []string{"a", "b"}, nil},
		{"none", map[string][2]string{"n=1000": {`null`, ""}}, nil, nil},
		{"nulls and nonsense", map[string][2]string{"n=1000": {`["a",null,5,"","b","a","sha256:abc","-x"]`, ""}}, []string{"a", "b"}, nil},
		{"a small page where asked for", map[string][2]string{"n=100": {`["a"]`, ""}}, []string{"a"}, nil},
		{"two", map[string][2]string{
			"n=1000":        {`["a","b"]`, `<` + path + `?last=b&n=2>; rel="next"`},
			"last=b&n=2":    {`["b","c"]`, `<?last=c&n=2>;rel=next`},
			"last=c&n=2":    {`["d"]`, `<https://registry.example/v2/team/app/tags/list?last=d>; title="a, b; c"; rel="prev next"`},
			"last=d":        {`[]`, ``},
			"last=never&n=": {`["x"]`, ``},
		}, []string{"a", "b", "c", "d"}, nil},
		{"http behind a proxy", map[string][2]string{
			"n=1000": {`["a"]`, `<http://registry.example` + path + `?last=a>; rel="next"`},
			"last=a": {`["b"]`, ``},
		}, []string{"a", "b"}, nil},
		{"repeats a page", map[string][2]string{
			"n=1000": {`["a"]`, `<?last=a>; rel="next"`},
			"last=a": {`["a"]`, `<?last=b>; rel="next"`},
		}, []string{"a"}, oci.ErrInvalid},
		{"leads back", map[string][2]string{
			"n=1000": {`["a"]`, `<?last=a>; rel="next"`},
			"last=a": {`["b"]`, `<?n=1000>; rel="next"`},
		}, []string{"a", "b"}, oci.ErrInvalid},
		{"leads elsewhere", map[string][2]string{"n=1000": {`["a"]`, `<https://evil.example` + path + `?last=a>; rel="next"`}}, []string{"a"}, oci.ErrInvalid},
		{"leads to another list", map[string][2]string{"n=1000": {`["a"]`, `</v2/_catalog?last=a>; rel="next"`}}, []string{"a"}, oci.ErrInvalid},
		{"breaks off", map[string][2]string{"n=1000": {`["a"]`, `<?last=a>; rel="next"`}}, []string{"a"}, oci.ErrInvalid},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := tags(t.Context(), repository(t, "oci", paged("tags", c.pages)))
			if !errors.Is(err, c.want) || c.want == nil && err != nil || !slices.Equal(got, c.tags) {
				t.Fatalf("got %v, %v; want %v, %v", got, err, c.tags, c.want)
			}
		})
	}
}

// A page that is exactly full but has no Link may be cut short.
func TestFullPageWithoutLink(t *testing.T) {
	for name, honours := range map[string]bool{"knows last": true, "ignores last": false} {
		t.Run(name, func(t *testing.T) {
			var all []string
			for i := range 2500 {
				all = append(all, fmt.Sprintf("t%05d", i))
			}
			if !honours {
				all = all[:1000]
			}
			got, err := tags(t.Context(), repository(t, "oci", roundTrip(func(req *http.Request) (*http.Response, error) {
				rest := all
				if last := req.URL.Query().Get("last"); last != "" && honours {
					i, _ := slices.BinarySearch(all, last)
					rest = all[i+1:]
				}
				n, _ := strconv.Atoi(req.URL.Query().Get("n"))
				body, _ := json.Marshal(map[string]any{"tags": rest[:min(n, len(rest))]})
				return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(string(body))), Request: req}, nil
			})))
			if err != nil || !slices.Equal(got, all) {
				t.Fatalf("got %d tags, %v", len(got), err)
			}
		})
	}
}

func TestCatalog(t *testing.T) {
	rt := paged("repositories", map[string][2]string{
		"n=1000": {`["team/app","teams/x","team","other","team/x/y","team/","team/UP"]`, `<?last=x>; rel="next"`},
		"last=x": {`["team/z"]`, ""},
	})
	reg, err := generic.New(generic.Spec{Name: "eu", Host: "registry.example", Prefix: "team"}, rt)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for name, err := range reg.Repositories(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, name)
	}
	if want := []string{"app", "x/y", "z"}; !slices.Equal(got, want) {
		t.Fatalf("got %v, want %v", got, want)
	}
}

func TestUnlistable(t *testing.T) {
	for status, want := range map[int]error{
		401: oci.ErrUnlistable, 403: oci.ErrUnlistable, 404: oci.ErrUnlistable, 405: oci.ErrUnlistable, 200: oci.ErrInvalid,
	} {
		reg, err := generic.New(generic.Spec{Name: "eu", Host: "registry.example", Auth: generic.Auth{Anonymous: true}}, answering(status, nil, "<html>"))
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, err := range reg.Repositories(t.Context()) {
			n++
			var told *oci.RegistryError
			if !errors.Is(err, want) || !errors.As(err, &told) || want == oci.ErrUnlistable && told.Hint == "" {
				t.Fatalf("%d: got %v, want %v", status, err, want)
			}
		}
		if n != 1 {
			t.Fatalf("%d: %d errors, want one", status, n)
		}
	}
}

// A list without an end is bounded page by page.
func TestListTooLarge(t *testing.T) {
	repo := repository(t, "oci", answering(200, nil, `{"tags":["`+strings.Repeat("x", 17<<20)+`"]}`))
	if _, err := tags(t.Context(), repo); !errors.Is(err, oci.ErrTooLarge) {
		t.Fatalf("got %v, want too large", err)
	}
}

// A registry without the referrers API is asked once; one that has it is not
// taken to have lost it because a repository is not there.
func TestReferrersRemembered(t *testing.T) {
	fake := &providertest.Fake{NoReferrers: true}
	reg := open(t, fake, nil)
	for i := range 3 {
		for _, err := range reg.Repository(fmt.Sprintf("team/r%d", i)).Referrers(t.Context(), someDesc.Digest) {
			if !errors.Is(err, oci.ErrUnsupported) {
				t.Fatal(err)
			}
		}
	}
	if n := fake.Count("GET", "/referrers/"); n != 1 {
		t.Fatalf("asked %d times", n)
	}
	harbor := &providertest.Fake{}
	harbor.Before = func(w http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, "absent") {
			providertest.Fail(w, 404, "NOT_FOUND", "repository not found")
			return true
		}
		return false
	}
	reg = open(t, harbor, nil)
	for _, name := range []string{"absent", "team/app"} {
		for _, err := range reg.Repository(name).Referrers(t.Context(), someDesc.Digest) {
			if name != "absent" {
				t.Fatal(err)
			}
		}
	}
	if n := harbor.Count("GET", "/referrers/"); n != 2 {
		t.Fatalf("asked %d times, want 2", n)
	}
}

func TestReferrersPages(t *testing.T) {
	entry := func(s string) string {
		return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":5}`, v1.MediaTypeImageManifest, digest.FromString(s))
	}
	for _, c := range []struct {
		name  string
		pages map[string][2]string
		n     int
		want  error
	}{
		{"two pages", map[string][2]string{"": {"[" + entry("a") + "," + entry("a") + "]", `<?p=2>; rel="next"`}, "p=2": {"[" + entry("b") + "]", ""}}, 2, nil},
		{"leads back", map[string][2]string{"": {"[]", `<?p=2>; rel="next"`}, "p=2": {"[]", `<?p=2>; rel="next"`}}, 0, oci.ErrInvalid},
		{"no digest", map[string][2]string{"": {`[{"digest":"x","size":1}]`, ""}}, 0, oci.ErrInvalid},
		{"negative size", map[string][2]string{"": {strings.Replace("["+entry("a")+"]", `:5}`, `:-5}`, 1), ""}}, 0, oci.ErrInvalid},
	} {
		t.Run(c.name, func(t *testing.T) {
			inner := paged("manifests", c.pages)
			repo := repository(t, "oci", roundTrip(func(req *http.Request) (*http.Response, error) {
				resp, err := inner.RoundTrip(req)
				if resp != nil {
					resp.Header.Set("Content-Type", v1.MediaTypeImageIndex)
				}
				return resp, err
			}))
			n := 0
			var got error
			for _, err := range repo.Referrers(t.Context(), someDesc.Digest) {
				if err != nil {
					got = err
					break
				}
				n++
			}
			if n != c.n || !errors.Is(got, c.want) || c.want == nil && got != nil {
				t.Fatalf("got %d, %v; want %d, %v", n, got, c.n, c.want)
			}
		})
	}
}
