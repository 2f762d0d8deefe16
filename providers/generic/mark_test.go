package generic_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/twinport/twinport/replicator/oci"
)

// A list of one page with an entity tag is asked for again under condition; of
// more pages the first one's tag says nothing.
func TestTagsUnderAMark(t *testing.T) {
	for name, c := range map[string]struct {
		etag  string
		pages [][]string
		mark  string
	}{
		"one page":             {etag: `W/"one"`, pages: [][]string{{"a", "b"}}, mark: `etag W/"one"`},
		"no entity tag":        {pages: [][]string{{"a"}}},
		"two pages":            {etag: `"one"`, pages: [][]string{{"a"}, {"b"}}},
		"an entity tag no one": {etag: "\"o ne\"", pages: [][]string{{"a"}}},
		"one without end":      {etag: `"` + strings.Repeat("x", 600) + `"`, pages: [][]string{{"a"}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			asked := 0
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				asked++
				if c.etag != "" {
					w.Header().Set("ETag", c.etag)
					if r.Header.Get("If-None-Match") == c.etag {
						w.WriteHeader(http.StatusNotModified)
						return
					}
				}
				page := 0
				if r.URL.Query().Get("last") != "" {
					page = 1
				}
				if page+1 < len(c.pages) {
					w.Header().Set("Link", `</v2/team/app/tags/list?n=1&last=a>; rel="next"`)
				}
				_, _ = w.Write([]byte(`{"name":"team/app","tags":["` + strings.Join(c.pages[page], `","`) + `"]}`))
			}))
			t.Cleanup(server.Close)
			repo := client(t, server.URL, nil).Repository("team/app")
			list := func(mark *oci.Mark) (tags []string) {
				for tag, err := range repo.Tags(oci.WithMark(t.Context(), mark)) {
					if err != nil {
						t.Fatal(err)
					}
					tags = append(tags, tag.Name)
				}
				return tags
			}
			var first oci.Mark
			want := slices.Concat(c.pages...)
			if got := list(&first); !slices.Equal(got, want) || first.Next != c.mark || first.Partial {
				t.Fatalf("%v under %+v, want %v and the mark %q", got, first, want, c.mark)
			}
			again := oci.Mark{Since: first.Next}
			got := list(&again)
			switch {
			case c.mark == "" && (!slices.Equal(got, want) || again.Partial || again.Next != ""):
				t.Errorf("%v under %+v", got, again)
			case c.mark != "" && (len(got) != 0 || !again.Partial || again.Next != c.mark):
				t.Errorf("%v under %+v, want nothing new", got, again)
			}
			// Somebody else's mark means nothing.
			foreign := oci.Mark{Since: "hub 1"}
			if got := list(&foreign); !slices.Equal(got, want) || foreign.Partial {
				t.Errorf("%v under a foreign mark", got)
			}
			if asked > 3*len(c.pages) {
				t.Errorf("asked %d times", asked)
			}
		})
	}
}

// Where a HEAD does not tell, what must not count as a pull reads nothing.
func TestResolveWithoutPulls(t *testing.T) {
	t.Parallel()
	var methods []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		methods = append(methods, r.Method)
		w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json") // and no digest
		_, _ = w.Write([]byte("{}"))
	}))
	t.Cleanup(server.Close)
	repo := client(t, server.URL, nil).Repository("team/app")
	_, err := repo.Resolve(oci.WithoutPulls(t.Context()), "v1")
	if !errors.Is(err, oci.ErrUnsupported) || slices.Contains(methods, http.MethodGet) {
		t.Errorf("%v after %v", err, methods)
	}
	if _, err := repo.Resolve(t.Context(), "v1"); err != nil || !slices.Contains(methods, http.MethodGet) {
		t.Errorf("%v after %v: a job may read it", err, methods)
	}
}
