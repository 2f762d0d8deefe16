package artifactory

import (
	"context"
	"encoding/json"
	"iter"
	"net/url"
	"strconv"
	"strings"

	"github.com/twinport/twinport/providers/generic"
	"github.com/twinport/twinport/replicator/oci"
)

const (
	pageSize = 1000
	maxPage  = 16 << 20
)

// repositories asks the catalog of the repository that the prefix begins with:
// Artifactory keeps one for each. Without a prefix the host is a repository's
// own, and its catalog lies where the specification says.
func repositories(prefix string) func(context.Context, *generic.Registry) iter.Seq2[string, error] {
	key, _, _ := strings.Cut(prefix, "/")
	if key == "" {
		return nil
	}
	what := "GET catalog of " + key
	return func(ctx context.Context, r *generic.Registry) iter.Seq2[string, error] {
		last := ""
		list := generic.Pages(ctx, what, func(ctx context.Context, n int) ([]string, bool, error) {
			if n == 1 {
				last = ""
			}
			u := r.Address()
			u.Path = "/artifactory/api/docker/" + key + "/v2/_catalog"
			query := url.Values{"n": {strconv.Itoa(pageSize)}}
			if last != "" {
				query.Set("last", last)
			}
			u.RawQuery = query.Encode()
			login, err := r.Login(ctx)
			if err != nil {
				return nil, false, err
			}
			answer, err := r.AskAt(ctx, u, login, generic.Request{Operation: oci.OpList, What: what, Limit: maxPage})
			if err != nil {
				return nil, false, err
			}
			var page struct {
				Names []string `json:"repositories"`
			}
			if json.Unmarshal(answer.Body, &page) != nil || page.Names == nil {
				return nil, false, r.Senseless(what, "the answer is no catalog")
			}
			more := len(page.Names) >= pageSize
			if more {
				if next := page.Names[len(page.Names)-1]; next == last {
					return nil, false, r.Senseless(what, "the list repeats a page")
				}
			}
			if len(page.Names) > 0 {
				last = page.Names[len(page.Names)-1]
			}
			return page.Names, more, nil
		})
		return func(yield func(string, error) bool) {
			for name, err := range list {
				if !yield(key+"/"+name, err) || err != nil {
					return
				}
			}
		}
	}
}
