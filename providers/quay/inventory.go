package quay

import (
	"context"
	"encoding/json"
	"errors"
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
	// pageSize is the most Quay's API gives.
	pageSize = 100
	maxPage  = 4 << 20
)

// tags asks Quay's API, which tells digests and times. It lets in who has an
// OAuth2 token, and everybody where the repository is public; for the others
// the tag list serves.
func tags(ctx context.Context, r *generic.Registry, full string) iter.Seq2[oci.Tag, error] {
	what := "GET tags of " + full
	return generic.Pages(ctx, what, func(ctx context.Context, n int) ([]oci.Tag, bool, error) {
		username, password, err := r.Credentials(ctx)
		if err != nil {
			return nil, false, err
		}
		login := ""
		if username == oauthUser {
			login = "Bearer " + password
		}
		u := r.Address()
		u.Path = "/api/v1/repository/" + full + "/tag/"
		u.RawQuery = url.Values{"onlyActiveTags": {"true"}, "limit": {strconv.Itoa(pageSize)}, "page": {strconv.Itoa(n)}}.Encode()
		answer, err := r.AskAt(ctx, u, login, generic.Request{Operation: oci.OpList, What: what, Limit: maxPage})
		if login == "" {
			err = robotsOnly(err)
		}
		if err != nil {
			return nil, false, err
		}
		var page struct {
			Tags []struct {
				Name    string  `json:"name"`
				Digest  string  `json:"manifest_digest"`
				StartTS float64 `json:"start_ts"` // seconds since 1970
				EndTS   float64 `json:"end_ts"`   // when it expires
			} `json:"tags"`
			More bool `json:"has_additional"`
		}
		if !strings.HasPrefix(strings.TrimSpace(string(answer.Body)), "{") || json.Unmarshal(answer.Body, &page) != nil || page.Tags == nil {
			return nil, false, r.Senseless(what, "the answer is no list of tags")
		}
		now := float64(time.Now().Unix())
		var list []oci.Tag
		for _, t := range page.Tags {
			if t.EndTS > 0 && t.EndTS <= now {
				continue
			}
			tag := oci.Tag{Name: t.Name, Digest: digest.Digest(t.Digest)}
			if t.StartTS > 0 && t.StartTS < 1<<40 {
				tag.PushedAt = time.Unix(int64(t.StartTS), 0).UTC()
			}
			list = append(list, tag)
		}
		return list, page.More, nil
	})
}

// robotsOnly: that the API lets no robot in is nobody's fault.
func robotsOnly(err error) error {
	var refused *oci.RegistryError
	if !errors.Is(err, oci.ErrDenied) || !errors.As(err, &refused) {
		return err
	}
	e := *refused
	e.Kind, e.Hint = oci.ErrUnsupported, "Quay's API takes OAuth2 tokens (auth.token), which robot accounts have none of"
	return &e
}
