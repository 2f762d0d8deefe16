package harbor

import (
	"context"
	"encoding/json"
	"iter"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/twinport/twinport/providers/generic"
	"github.com/twinport/twinport/replicator/oci"
)

const (
	// pageSize is the most Harbor's API gives.
	pageSize = 100
	maxPage  = 16 << 20
)

// artifact is one of Harbor's API (`GET …/artifacts`).
type artifact struct {
	Digest   string `json:"digest"`
	PushTime string `json:"push_time"`
	Tags     []struct {
		Name     string `json:"name"`
		PushTime string `json:"push_time"`
	} `json:"tags"`
}

// tags lists a repository by its artifacts, which tells digests and times. It
// leaves out what Harbor takes for an accessory, cosign's signatures among it,
// so the tags of those are taken from the tag list.
func tags(ctx context.Context, r *generic.Registry, full string) iter.Seq2[oci.Tag, error] {
	return func(yield func(oci.Tag, error) bool) {
		project, name, ok := strings.Cut(full, "/")
		if !ok {
			for tag, err := range r.TagNames(ctx, full) {
				if !yield(tag, err) || err != nil {
					return
				}
			}
			return
		}
		// Escaped once here and once more on its way, as Harbor wants it.
		path := "/api/v2.0/projects/" + project + "/repositories/" + url.PathEscape(name) + "/artifacts"
		query := url.Values{"q": {"tags=*"}, "sort": {"id"}, "with_tag": {"true"}}
		told := make(map[string]bool) // companions alone: few
		for a, err := range pages[artifact](ctx, r, "GET artifacts "+full, path, query) {
			if err != nil {
				yield(oci.Tag{}, err)
				return
			}
			for _, t := range a.Tags {
				tag := oci.Tag{Name: t.Name, Digest: digest.Digest(a.Digest), PushedAt: moment(t.PushTime, a.PushTime)}
				if isCompanion(t.Name) {
					told[t.Name] = true
				}
				if !yield(tag, nil) {
					return
				}
			}
		}
		for tag, err := range r.TagNames(ctx, full) {
			if err == nil && (!isCompanion(tag.Name) || told[tag.Name]) {
				continue
			}
			if !yield(tag, err) || err != nil {
				return
			}
		}
	}
}

func isCompanion(tag string) bool {
	_, _, ok := oci.CompanionSubject(tag)
	return ok
}

// moment is the first of some times that is one.
func moment(times ...string) time.Time {
	for _, s := range times {
		if at, err := time.Parse(time.RFC3339Nano, s); err == nil && at.Year() > 2000 {
			return at.UTC()
		}
	}
	return time.Time{}
}

// repositories lists those of the prefix's project, or all that the account
// sees: the catalog is for Harbor's administrators.
func repositories(prefix string) func(context.Context, *generic.Registry) iter.Seq2[string, error] {
	path := "/api/v2.0/repositories"
	if project, _, _ := strings.Cut(prefix, "/"); project != "" {
		path = "/api/v2.0/projects/" + project + "/repositories"
	}
	return func(ctx context.Context, r *generic.Registry) iter.Seq2[string, error] {
		return func(yield func(string, error) bool) {
			type repository struct {
				Name string `json:"name"`
			}
			for one, err := range pages[repository](ctx, r, "GET repositories", path, url.Values{"sort": {"name"}}) {
				if !yield(one.Name, err) || err != nil {
					return
				}
			}
		}
	}
}

// pages walks a list of Harbor's API, logged in with the account itself: the
// registry's tokens are not for it.
func pages[T any](ctx context.Context, r *generic.Registry, what, path string, query url.Values) iter.Seq2[T, error] {
	return generic.Pages(ctx, what, func(ctx context.Context, n int) ([]T, bool, error) {
		login, err := r.Basic(ctx)
		if err != nil {
			return nil, false, err
		}
		u := r.Address()
		u.Path = path
		query.Set("page", strconv.Itoa(n))
		query.Set("page_size", strconv.Itoa(pageSize))
		u.RawQuery = query.Encode()
		answer, err := r.AskAt(ctx, u, login, generic.Request{Operation: oci.OpList, What: what, Limit: maxPage})
		if err != nil {
			return nil, false, err
		}
		var items []T
		if json.Unmarshal(answer.Body, &items) != nil {
			return nil, false, r.Senseless(what, "the answer is no list")
		}
		return items, len(items) >= pageSize, nil
	})
}
