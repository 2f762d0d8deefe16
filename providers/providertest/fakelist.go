package providertest

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"sort"
	"strconv"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

func (f *Fake) tagList(w http.ResponseWriter, r *http.Request, name string) {
	var names []string
	exists := false
	if f.Upstream != nil {
		names, exists = f.names("/v2/"+name+"/tags/list", "tags")
	} else if tags := f.Tags(name); tags != nil {
		names, exists = slices.Collect(maps.Keys(tags)), true
	}
	if !exists {
		Fail(w, 404, "NAME_UNKNOWN", "repository name not known to registry")
		return
	}
	f.list(w, r, "tags", names)
}

func (f *Fake) catalog(w http.ResponseWriter, r *http.Request) {
	f.list(w, r, "repositories", f.Repos())
}

func (f *Fake) list(w http.ResponseWriter, r *http.Request, field string, names []string) {
	q := r.URL.Query()
	n, _ := strconv.Atoi(q.Get("n"))
	if f.MaxPage > 0 && n > f.MaxPage {
		Fail(w, 400, "PAGINATION_NUMBER_INVALID", "invalid number of results requested")
		return
	}
	if f.Page > 0 && (n == 0 || n > f.Page) {
		n = f.Page
	}
	sort.Strings(names)
	start := sort.SearchStrings(names, q.Get("last"))
	if start < len(names) && names[start] == q.Get("last") {
		start++
	}
	names = names[start:]
	if n > 0 && len(names) > n {
		names = names[:n]
		next := url.Values{"last": {names[n-1]}, "n": {strconv.Itoa(n)}}
		w.Header().Set("Link", "<"+r.URL.Path+"?"+next.Encode()+`>; rel="next"`)
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"name": "fake", field: names})
}

func (f *Fake) referrers(w http.ResponseWriter, name string, subject digest.Digest) {
	f.mu.Lock()
	defer f.mu.Unlock()
	index := v1.Index{MediaType: v1.MediaTypeImageIndex, Manifests: []v1.Descriptor{}}
	index.SchemaVersion = 2
	for d, m := range f.repo(name).manifests {
		if m.subject == subject {
			index.Manifests = append(index.Manifests, v1.Descriptor{MediaType: m.mediaType, Digest: d, Size: int64(len(m.bytes))})
		}
	}
	w.Header().Set("Content-Type", v1.MediaTypeImageIndex)
	_ = json.NewEncoder(w).Encode(index)
}
