package gitlab

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/twinport/twinport/providers/generic"
	"github.com/twinport/twinport/replicator/oci"
)

const (
	tagPage = 1000
	maxTags = 16 << 20
	// without is how long a registry is taken to have no API of its own.
	without = time.Hour
)

// A lister lists tags by the registry's own API (gitlab-org/container-registry,
// "GitLab API", List Repository Tags), which tells digests and times and takes
// the tokens of the distribution API. GitLab.com has it, and registries with a
// metadata database; for the others it is not there, and the plain list serves.
type lister struct {
	absent atomic.Int64 // until when, Unix nanoseconds
	there  atomic.Bool
}

func (l *lister) tags(ctx context.Context, r *generic.Registry, full string) iter.Seq2[oci.Tag, error] {
	return func(yield func(oci.Tag, error) bool) {
		request := generic.Request{
			Operation: oci.OpList, What: "GET tags of " + full, Method: http.MethodGet,
			Path: "/gitlab/v1/repositories/" + full + "/tags/list/", Scopes: []string{"repository:" + full + ":pull"}, Limit: maxTags,
		}
		if time.Now().UnixNano() < l.absent.Load() {
			yield(oci.Tag{}, &oci.RegistryError{Operation: request.What, Kind: oci.ErrUnsupported})
			return
		}
		last := ""
		for {
			request.Query = url.Values{"n": {strconv.Itoa(tagPage)}}
			if last != "" {
				request.Query.Set("last", last)
			}
			answer, err := r.Ask(ctx, request)
			if err != nil {
				var refused *oci.RegistryError
				if last == "" && !l.there.Load() && errors.As(err, &refused) && refused.Status == http.StatusNotFound {
					l.absent.Store(time.Now().Add(without).UnixNano())
				}
				yield(oci.Tag{}, err)
				return
			}
			var lines []line
			if json.Unmarshal(answer.Body, &lines) != nil {
				yield(oci.Tag{}, r.Senseless(request.What, "the answer is no list of tags"))
				return
			}
			l.there.Store(true)
			for _, line := range lines {
				if !yield(oci.Tag{Name: line.Name, Digest: line.Digest, PushedAt: line.pushed()}, nil) {
					return
				}
			}
			if answer.Next == nil {
				return
			}
			next := answer.Next.Get("last")
			if next <= last { // it goes by name
				yield(oci.Tag{}, r.Senseless(request.What, "the list does not go on"))
				return
			}
			last = next
		}
	}
}

type line struct {
	Name    string        `json:"name"`
	Digest  digest.Digest `json:"digest"`
	Created string        `json:"created_at"`
	Updated string        `json:"updated_at"` // of a tag that was moved
}

// pushed is when the tag was moved last, zero where that cannot be read.
func (l line) pushed() time.Time {
	for _, s := range []string{l.Updated, l.Created} {
		if at, err := time.Parse(time.RFC3339Nano, s); err == nil {
			return at.UTC()
		}
	}
	return time.Time{}
}
