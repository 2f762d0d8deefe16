package gcr

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/twinport/twinport/providers/generic"
	"github.com/twinport/twinport/replicator/oci"
)

const (
	pageSize = "1000" // the API's most
	maxPage  = 32 << 20
	maxPages = 100_000
	// maxDepth bounds a walk by child: names have at most 255 characters.
	maxDepth = 64
)

// Tags lists the tags with digests and times: all in one request, for Google
// gives no pages here; where a Link names one all the same, it is followed. The
// answer is read as it comes, so that its size is no bound.
func (p *Repository) Tags(ctx context.Context) iter.Seq2[oci.Tag, error] {
	return func(yield func(oci.Tag, error) bool) {
		full := p.FullName()
		if err := oci.CheckRepository(full); err != nil {
			yield(oci.Tag{}, err)
			return
		}
		var query url.Values
		some := false
		for range maxPages {
			page := &listing{tag: yield}
			next, err := p.registry.list(ctx, full, query, page)
			some = some || page.some
			switch {
			case page.over:
				return
			case err != nil:
				yield(oci.Tag{}, err)
				return
			case next == nil && !some:
				// A path without manifests is no image: Google answers 200 and
				// an empty list for whatever name below a repository.
				yield(oci.Tag{}, p.registry.Fault(oci.RegistryError{Operation: "GET tags " + full, Kind: oci.ErrRepositoryUnknown, Message: "no manifests"}))
				return
			case next == nil:
				return
			case next.Encode() == query.Encode():
				yield(oci.Tag{}, p.registry.Senseless("GET tags "+full, "the list does not go on"))
				return
			}
			query = next
		}
		yield(oci.Tag{}, p.registry.Senseless("GET tags "+full, "the list has no end"))
	}
}

// Repositories lists images below the address by the REST API, and where that
// is refused by walking down the listings' children. The catalog is not asked:
// it knows nothing of repositories.
func (r *Registry) Repositories(ctx context.Context) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		at, ok := placeOf(r.host, r.Prefix())
		if !ok {
			yield("", r.Fault(oci.RegistryError{
				Operation: "list images", Kind: oci.ErrUnlistable, Message: "the address names no project",
				Hint: "write it as " + r.host + "/PROJECT/REPOSITORY, or name repositories literally under repositories.include",
			}))
			return
		}
		began := false
		for name, err := range r.packages(ctx, at) {
			if err != nil && !began && errors.Is(err, oci.ErrDenied) {
				oci.Detour(ctx, err)
				r.walk(ctx, yield, err)
				return
			}
			if err != nil {
				yield("", err)
				return
			}
			began = true
			below, ok := strings.CutPrefix(name, r.Prefix()+"/")
			if ok && oci.CheckRepository(below) == nil && !yield(below, nil) {
				return
			}
		}
	}
}

// packages lists the full names of images in one repository, or in all docker
// repositories of the project where the address names none.
func (r *Registry) packages(ctx context.Context, at place) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		if at.repository == "" {
			parent := "projects/" + at.project + "/locations/" + at.location + "/repositories"
			for item, err := range r.items(ctx, parent, "repositories") {
				if err != nil {
					yield("", err)
					return
				}
				if item.Format != "DOCKER" {
					continue
				}
				one := at
				one.repository = item.id()
				for name, err := range r.packages(ctx, one) {
					if !yield(name, err) || err != nil {
						return
					}
				}
			}
			return
		}
		base := strings.ReplaceAll(at.project, ":", "/") + "/"
		if _, gcr := gcrLocations[r.host]; !gcr {
			base += at.repository + "/"
		}
		for item, err := range r.items(ctx, at.parent()+"/packages", "packages") {
			if err != nil {
				yield("", err)
				return
			}
			if !yield(base+item.id(), nil) {
				return
			}
		}
	}
}

// An item is a repository or a package of the REST API.
type item struct {
	Name   string `json:"name"`
	Format string `json:"format"`
}

// id is the last part of a name; the slashes of a package's are escaped.
func (i item) id() string {
	id := i.Name[strings.LastIndexByte(i.Name, '/')+1:]
	if plain, err := url.PathUnescape(id); err == nil {
		return plain
	}
	return id
}

// items walks a list of the REST API.
func (r *Registry) items(ctx context.Context, path, field string) iter.Seq2[item, error] {
	return func(yield func(item, error) bool) {
		query := url.Values{"pageSize": {pageSize}}
		for range maxPages {
			var doc map[string]json.RawMessage
			if err := r.ask(ctx, oci.OpList, http.MethodGet, path, query, nil, &doc); err != nil {
				yield(item{}, err)
				return
			}
			var items []item
			var next string
			if raw := doc[field]; raw != nil && json.Unmarshal(raw, &items) != nil {
				yield(item{}, r.Senseless("GET "+path, "the answer is no list"))
				return
			}
			if raw := doc["nextPageToken"]; raw != nil && json.Unmarshal(raw, &next) != nil {
				yield(item{}, r.Senseless("GET "+path, "the next page has no token"))
				return
			}
			for _, i := range items {
				if !yield(i, nil) {
					return
				}
			}
			if next == "" {
				return
			}
			if next == query.Get("pageToken") {
				break
			}
			query.Set("pageToken", next)
		}
		yield(item{}, r.Senseless("GET "+path, "the list does not end"))
	}
}

// walk lists images by the children of listings, depth first; refused is why
// the API did not serve.
func (r *Registry) walk(ctx context.Context, yield func(string, error) bool, refused error) {
	type step struct {
		name  string
		depth int
	}
	stack := []step{{r.Prefix(), 0}}
	for len(stack) > 0 {
		at := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		l := &listing{}
		_, err := r.list(ctx, at.name, nil, l)
		if err != nil {
			if at.depth == 0 {
				err = generic.Unlistable(err, "give the identity roles/artifactregistry.reader, or name repositories literally under repositories.include")
				if !errors.Is(err, oci.ErrUnlistable) {
					err = errors.Join(err, refused)
				}
			}
			yield("", err)
			return
		}
		below, ok := strings.CutPrefix(at.name, r.Prefix()+"/")
		if ok && l.some && !yield(below, nil) {
			return
		}
		if at.depth >= maxDepth {
			continue
		}
		slices.Sort(l.children)
		for _, child := range slices.Backward(l.children) {
			name := at.name + "/" + child
			if oci.CheckRepository(name) == nil && len(name) <= 255 {
				stack = append(stack, step{name, at.depth + 1})
			}
		}
	}
}
