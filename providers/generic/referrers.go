package generic

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"net/http"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/twinport/twinport/replicator/oci"
)

// noReferrersTime is how long a registry without a referrers API is not asked again.
const noReferrersTime = time.Hour

// Referrers asks the referrers API (distribution-spec, "Listing Referrers").
func (p *Repository) Referrers(ctx context.Context, subject digest.Digest) iter.Seq2[v1.Descriptor, error] {
	return func(yield func(v1.Descriptor, error) bool) {
		if err := oci.CheckDigest(subject); err != nil {
			yield(v1.Descriptor{}, err)
			return
		}
		base, err := p.path("referrers/" + subject.String())
		if err != nil {
			yield(v1.Descriptor{}, err)
			return
		}
		what := "GET referrers " + p.full + "@" + subject.String()
		if time.Now().UnixNano() < p.reg.noReferrers.Load() {
			yield(v1.Descriptor{}, p.noReferrers(what, 0))
			return
		}
		c := call{
			op: oci.OpReferrers, what: what, method: http.MethodGet, url: base, header: http.Header{"Accept": {v1.MediaTypeImageIndex}},
			scopes: p.pull(), digest: subject, limit: maxPage, stay: true,
		}
		if p.reg.ways.ThrottledReferrers {
			c.tries = 1
		}
		seen := make(map[digest.Digest]bool)
		asked := make(map[string]bool)
		for {
			a, err := p.reg.do(ctx, c)
			if err != nil {
				yield(v1.Descriptor{}, p.referrersError(what, err))
				return
			}
			page, err := p.referrersPage(what, a)
			if err == nil {
				p.reg.hasReferrers.Store(true)
			}
			if err != nil {
				yield(v1.Descriptor{}, err)
				return
			}
			for _, desc := range page {
				if seen[desc.Digest] {
					continue
				}
				seen[desc.Digest] = true
				if len(seen) > oci.MaxReferences {
					yield(v1.Descriptor{}, p.reg.senseless(what, a.status, "more referrers than are followed"))
					return
				}
				if !yield(desc, nil) {
					return
				}
			}
			asked[c.url.RawQuery] = true
			next, err := nextPage(a.header.Values("Link"), a.url, base)
			if err == nil && next != nil && (asked[next.RawQuery] || len(asked) > 1000) {
				err = errors.New("the list leads back to a page before")
			}
			if err != nil {
				yield(v1.Descriptor{}, p.reg.senseless(what, a.status, err.Error()))
				return
			}
			if next == nil {
				return
			}
			c.url = next
		}
	}
}

// referrersPage reads one page. An answer of another type is a proxy's or a
// console's: the registry has no such API.
func (p *Repository) referrersPage(what string, a *answer) ([]v1.Descriptor, error) {
	var index struct {
		Manifests []v1.Descriptor `json:"manifests"`
	}
	if cleanMediaType(a.header.Get("Content-Type")) != v1.MediaTypeImageIndex {
		return nil, p.noReferrers(what, a.status)
	}
	if err := json.Unmarshal(a.bytes, &index); err != nil {
		return nil, p.reg.senseless(what, a.status, "the answer is no index")
	}
	for _, desc := range index.Manifests {
		if err := oci.CheckDescriptor(desc); err != nil {
			return nil, p.reg.senseless(what, a.status, err.Error())
		}
	}
	return index.Manifests, nil
}

// referrersError tells a registry without the API from one without the repository.
func (p *Repository) referrersError(what string, err error) error {
	var refused *oci.RegistryError
	if !errors.As(err, &refused) || refused.Operation != what {
		return err
	}
	switch {
	case refused.Status == http.StatusTooManyRequests && p.reg.ways.ThrottledReferrers:
		return p.noReferrers(what, refused.Status)
	case refused.Code == "NAME_UNKNOWN":
		return err
	case refused.Status == 404 && strings.Contains(refused.Code, "UNKNOWN") && refused.Code != "METHOD_UNKNOWN",
		refused.Code == "NOT_FOUND": // said of this repository or subject, not of the API
		e := *refused
		e.Kind = oci.ErrUnsupported
		return &e
	case refused.Status == 404, refused.Status == 405, refused.Status == 501, isRedirect(refused.Status), errors.Is(err, oci.ErrUnsupported):
		return p.noReferrers(what, refused.Status)
	}
	return err
}

// noReferrers remembers, for a while, that the registry has no referrers API.
func (p *Repository) noReferrers(what string, status int) error {
	if status != 0 && !p.reg.hasReferrers.Load() {
		p.reg.noReferrers.Store(time.Now().Add(noReferrersTime).UnixNano())
	}
	return &oci.RegistryError{Registry: p.reg.spec.Name, Operation: what, Status: status, Message: "no referrers API", Kind: oci.ErrUnsupported}
}
