// Package gcr is the client of Google's Artifact Registry (LOCATION-docker.pkg.dev)
// and of the gcr.io domains it serves, and reads what they tell by Pub/Sub. It
// speaks the distribution protocol as generic does; its own are the identities
// of Google Cloud, a tag list with manifests and times, and repositories that
// have to be made before they are pushed to.
package gcr

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/twinport/twinport/providers/generic"
	"github.com/twinport/twinport/replicator/oci"
)

// A Registry is Artifact Registry at one address; safe for concurrent use.
type Registry struct {
	*generic.Registry
	host   string
	create *generic.Create
	api    string    // of Artifact Registry's REST API
	id     *identity // nil where the config logs in by itself
	making sync.Mutex
}

var _ oci.Registry = (*Registry)(nil)

// New gives a client; what it asks goes through rt, Google's token endpoint
// too, the metadata server alone excepted.
func New(spec generic.Spec, rt http.RoundTripper) (*Registry, error) {
	r := &Registry{host: strings.ToLower(spec.Host), create: spec.Create, api: apiAddress()}
	// Uploads must be monolithic, chunks are refused (Artifact Registry, "Push
	// and pull images"): so no session is taken up again.
	ways := generic.Ways{Classify: classify}
	auth := spec.Auth
	if auth.Username == "" && auth.Password == nil && auth.Token == nil && !auth.Anonymous {
		id := newIdentity(auth.Google, rt)
		r.id = id
		ways.Login = func(ctx context.Context, anew bool) (generic.Login, error) { return id.login(ctx, r.Registry, anew) }
	}
	// An access token of the config's goes where every other goes.
	spec.Auth = auth.TokenAs(tokenUser)
	client, err := generic.NewWith(spec, rt, ways)
	if err != nil {
		return nil, err
	}
	r.Registry = client
	return r, nil
}

// Repository gives a handle; nothing is asked of the registry.
func (r *Registry) Repository(name string) oci.Repository {
	return &Repository{Repository: r.Open(name), registry: r}
}

// A Repository is one image's path; Google calls repository what holds many.
type Repository struct {
	*generic.Repository
	registry *Registry
}

var (
	_ oci.Repository      = (*Repository)(nil)
	_ oci.RangeFetcher    = (*Repository)(nil)
	_ oci.RepositoryMaker = (*Repository)(nil)
)

// PushManifest stores a manifest.
func (p *Repository) PushManifest(ctx context.Context, reference string, m oci.Manifest) (oci.Pushed, error) {
	if _, err := p.place(); err != nil {
		return oci.Pushed{}, err
	}
	pushed, err := p.Repository.PushManifest(ctx, reference, m)
	if again, err := p.make(ctx, err); !again {
		return pushed, err
	}
	return p.Repository.PushManifest(ctx, reference, m)
}

// Start opens an upload.
func (p *Repository) Start(ctx context.Context, desc v1.Descriptor, from []string) (oci.Upload, bool, error) {
	if _, err := p.place(); err != nil {
		return nil, false, err
	}
	u, mounted, err := p.Repository.Start(ctx, desc, from)
	if again, err := p.make(ctx, err); !again {
		return u, mounted, err
	}
	return p.Repository.Start(ctx, desc, from)
}

// make makes the repository that a push has found missing, where the config
// allows it, and tells whether to push again; otherwise the error says how.
func (p *Repository) make(ctx context.Context, err error) (again bool, _ error) {
	if !errors.Is(err, oci.ErrRepositoryUnknown) {
		return false, err
	}
	at, placeErr := p.place()
	if placeErr != nil {
		return false, placeErr
	}
	if p.registry.create == nil {
		var answered *oci.RegistryError
		if errors.As(err, &answered) {
			e := *answered
			e.Hint = "make it with `" + at.command() + "`, or set create: {missing: true} for this registry"
			return false, &e
		}
		return false, err
	}
	if err := p.registry.make(ctx, at); err != nil {
		return false, err
	}
	return true, nil
}
