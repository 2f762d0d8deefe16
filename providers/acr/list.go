package acr

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/twinport/twinport/providers/generic"
	"github.com/twinport/twinport/replicator/oci"
)

const (
	// pageSize is what is asked for; where the service refuses it, its own
	// default, smallPage.
	pageSize  = 1000
	smallPage = 100
	maxPage   = 16 << 20
	maxPages  = 100_000
)

// Repositories lists the catalog below the prefix.
func (r *Registry) Repositories(ctx context.Context) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		prefix := ""
		if r.Prefix() != "" {
			prefix = r.Prefix() + "/"
		}
		request := generic.Request{
			Operation: oci.OpList, What: "GET catalog", Method: http.MethodGet, Path: "/acr/v1/_catalog",
			Scopes: []string{"registry:catalog:*"}, Limit: maxPage,
		}
		var last string
		for page, err := range r.pages(ctx, request) {
			if err != nil {
				yield("", generic.Unlistable(err, roleHint))
				return
			}
			var doc struct {
				Repositories []string `json:"repositories"`
			}
			if json.Unmarshal(page, &doc) != nil {
				yield("", r.Senseless(request.What, "the answer is no catalog"))
				return
			}
			for _, name := range doc.Repositories {
				below, ok := strings.CutPrefix(name, prefix)
				if name == last || !ok || oci.CheckRepository(below) != nil {
					continue
				}
				last = name
				if !yield(below, nil) {
					return
				}
			}
		}
	}
}

const roleHint = "give the identity the role " + roleCatalog

// A line is one tag of /acr/v1/NAME/_tags (Azure REST, "Tag - Get List").
type line struct {
	Name    string        `json:"name"`
	Digest  digest.Digest `json:"digest"`
	Updated string        `json:"lastUpdateTime"`
}

// pushed is when the tag was last moved, zero where that cannot be read.
func (l line) pushed() time.Time {
	at, err := time.Parse(time.RFC3339Nano, l.Updated)
	if err != nil {
		return time.Time{}
	}
	return at.UTC()
}

// Tags lists the repository's tags with digest and time of the last push: one
// request a page instead of one a tag. Where the account may not read metadata
// (a repository token with content/read alone), the plain list serves.
func (p *Repository) Tags(ctx context.Context) iter.Seq2[oci.Tag, error] {
	return func(yield func(oci.Tag, error) bool) {
		if err := oci.CheckRepository(p.FullName()); err != nil {
			yield(oci.Tag{}, err)
			return
		}
		request := generic.Request{
			Operation: oci.OpList, What: "GET tags " + p.FullName(), Method: http.MethodGet, Path: "/acr/v1/" + p.FullName() + "/_tags",
			Scopes: []string{"repository:" + p.FullName() + ":metadata_read"}, Limit: maxPage,
		}
		first, last := true, ""
		for page, err := range p.registry.pages(ctx, request) {
			if first && errors.Is(err, oci.ErrDenied) {
				oci.Detour(ctx, err)
				for tag, err := range p.Repository.Tags(ctx) {
					if !yield(tag, err) {
						return
					}
				}
				return
			}
			first = false
			if err != nil {
				yield(oci.Tag{}, err)
				return
			}
			var doc struct {
				Tags []line `json:"tags"`
			}
			if json.Unmarshal(page, &doc) != nil {
				yield(oci.Tag{}, p.registry.Senseless(request.What, "the answer is no list of tags"))
				return
			}
			for _, l := range doc.Tags {
				if l.Name == last || oci.CheckTag(l.Name) != nil {
					continue
				}
				last = l.Name
				tag := oci.Tag{Name: l.Name, PushedAt: l.pushed()}
				if oci.CheckDigest(l.Digest) == nil {
					tag.Digest = l.Digest
				}
				if !yield(tag, nil) {
					return
				}
			}
		}
	}
}

// pages walks a listing of /acr/v1: n a page, on with last, which the Link of
// the page before gives.
func (r *Registry) pages(ctx context.Context, request generic.Request) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		n, last := pageSize, ""
		for range maxPages {
			request.Query = url.Values{"n": {strconv.Itoa(n)}}
			if last != "" {
				request.Query.Set("last", last)
			}
			a, err := r.Ask(ctx, request)
			var refused *oci.RegistryError
			if last == "" && n == pageSize && errors.As(err, &refused) && refused.Status == http.StatusBadRequest {
				n = smallPage
				continue
			}
			if err != nil {
				yield(nil, err)
				return
			}
			if !yield(a.Body, nil) || a.Next == nil {
				return
			}
			next := a.Next.Get("last")
			if next == "" || next == last {
				yield(nil, r.Senseless(request.What, "the list does not go on"))
				return
			}
			last = next
		}
		yield(nil, r.Senseless(request.What, "the list has no end"))
	}
}
