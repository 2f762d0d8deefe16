package dockerhub

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/twinport/twinport/providers/generic"
	"github.com/twinport/twinport/replicator/oci"
)

const (
	// pageSize is the most the Hub's API gives.
	pageSize = 100
	maxPage  = 8 << 20
	// loginTime is how long a login of the API serves; it lives longer.
	loginTime = 5 * time.Minute
)

// A hub is the API beside the registry, at hub.docker.com.
type hub struct {
	base *url.URL

	mu    sync.Mutex
	token string // a JWT; empty: nobody
	until time.Time
}

// tags lists a repository by the Hub's API, which tells digests and times and
// counts as no pull. Under a mark the list comes newest first and ends at what
// the mark has seen.
func (h *hub) tags(ctx context.Context, r *generic.Registry, full string) iter.Seq2[oci.Tag, error] {
	what := "GET tags of " + full
	namespace, name, _ := strings.Cut(full, "/")
	look := newLook(oci.MarkOf(ctx))
	return generic.Pages(ctx, what, func(ctx context.Context, n int) ([]oci.Tag, bool, error) {
		u := *h.base
		u.Path = "/v2/namespaces/" + namespace + "/repositories/" + name + "/tags"
		query := url.Values{"page_size": {strconv.Itoa(pageSize)}, "page": {strconv.Itoa(n)}}
		if look.mark != nil {
			query.Set("ordering", "last_updated")
		}
		u.RawQuery = query.Encode()
		answer, err := h.ask(ctx, r, &u, what)
		if err != nil {
			return nil, false, err
		}
		var page struct {
			Next    string `json:"next"`
			Results []struct {
				Name    string `json:"name"`
				Digest  string `json:"digest"`
				Pushed  string `json:"tag_last_pushed"`
				Updated string `json:"last_updated"`
			} `json:"results"`
		}
		if json.Unmarshal(answer, &page) != nil || page.Results == nil {
			return nil, false, r.Senseless(what, "the answer is no list of tags")
		}
		list := make([]oci.Tag, 0, len(page.Results))
		for _, t := range page.Results {
			tag := oci.Tag{Name: t.Name, Digest: digest.Digest(t.Digest)}
			for _, s := range []string{t.Pushed, t.Updated} {
				if at, err := time.Parse(time.RFC3339Nano, s); err == nil {
					tag.PushedAt = at.UTC()
					break
				}
			}
			updated, err := time.Parse(time.RFC3339Nano, t.Updated)
			if err != nil {
				updated = tag.PushedAt
			}
			if look.wants(updated) {
				list = append(list, tag)
			}
		}
		return list, look.goesOn(page.Next != ""), nil
	})
}

// ask asks as whom the config names; a login that is refused is made anew once.
func (h *hub) ask(ctx context.Context, r *generic.Registry, u *url.URL, what string) ([]byte, error) {
	return h.send(ctx, r, u, generic.Request{Operation: oci.OpList, What: what, Limit: maxPage})
}

func (h *hub) send(ctx context.Context, r *generic.Registry, u *url.URL, request generic.Request) ([]byte, error) {
	for again := false; ; again = true {
		login, err := h.login(ctx, r, again)
		if err != nil {
			return nil, err
		}
		answer, err := r.AskAt(ctx, u, login, request)
		var refused *oci.RegistryError
		if err != nil && !again && login != "" && errors.As(err, &refused) && refused.Status == http.StatusUnauthorized {
			continue
		}
		return answer.Body, err
	}
}

// deleteTag removes a tag by the Hub's API, as its own tools do: the image
// stays under its other tags.
func (h *hub) deleteTag(ctx context.Context, r *generic.Registry, full, tag string) error {
	u := *h.base
	u.Path = "/v2/repositories/" + full + "/tags/" + tag + "/"
	_, err := h.send(ctx, r, &u, generic.Request{
		Operation: oci.OpDelete, What: "DELETE tag " + full + ":" + tag, Method: http.MethodDelete,
		Accept: []int{http.StatusNoContent, http.StatusOK, http.StatusAccepted},
	})
	return err
}

// login changes user and token for a JWT of the API (`POST /v2/auth/token`);
// without a user it asks as nobody.
func (h *hub) login(ctx context.Context, r *generic.Registry, anew bool) (string, error) {
	username, password, err := r.Credentials(ctx)
	if err != nil || username == "" || password == "" {
		return "", err
	}
	h.mu.Lock()
	defer h.mu.Unlock() // one login at a time
	if !anew && time.Now().Before(h.until) {
		return "Bearer " + h.token, nil
	}
	u := *h.base
	u.Path = "/v2/auth/token"
	body, err := json.Marshal(map[string]string{"identifier": username, "secret": password})
	if err != nil {
		return "", err
	}
	answer, err := r.AskAt(ctx, &u, "", generic.Request{
		Operation: oci.OpToken, What: "log in to the Hub's API", Method: http.MethodPost,
		Header: http.Header{"Content-Type": {"application/json"}}, Body: body,
	})
	if err != nil {
		return "", err
	}
	var doc struct {
		Token string `json:"access_token"`
	}
	if json.Unmarshal(answer.Body, &doc) != nil || doc.Token == "" || strings.ContainsFunc(doc.Token, func(c rune) bool { return c <= ' ' || c > '~' }) {
		return "", r.Senseless("log in to the Hub's API", "the answer holds no token")
	}
	r.Secret(doc.Token)
	h.token, h.until = doc.Token, time.Now().Add(loginTime)
	return "Bearer " + h.token, nil
}
