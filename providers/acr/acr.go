// Package acr is the client of an Azure Container Registry, and reads what it
// tells by webhook or Event Grid. It speaks the distribution protocol as
// generic does; its own are the identities of Microsoft Entra, the listings
// under /acr/v1 with digests and times, and replicas that may not know yet what
// another has taken.
package acr

import (
	"context"
	"fmt"
	"io"
	"net/http"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/twinport/twinport/providers/generic"
	"github.com/twinport/twinport/replicator/oci"
)

// Bounds of the service (Microsoft Learn, "Container Registry service tiers"):
// told before the first byte is sent.
const (
	maxLayer    = 200 << 30
	maxManifest = 4 << 20
)

// A Registry is one Azure Container Registry; safe for concurrent use.
type Registry struct {
	*generic.Registry
	pending *pending
	id      *identity // nil where the config logs in by itself
}

var (
	_ oci.Registry = (*Registry)(nil)
	_ oci.Settler  = (*Registry)(nil)
)

// New gives a client; every request goes through rt, those to Entra and to
// Azure's metadata service too.
func New(spec generic.Spec, rt http.RoundTripper) (*Registry, error) {
	r := &Registry{pending: newPending()}
	// No resumed uploads: sessions live on one replica, and what another says of
	// them is worth nothing. Uploads are whole and carry their length, which
	// ACR wants to know beforehand.
	ways := generic.Ways{Classify: classify, Own: own(spec.Host)}
	if spec.Auth.Username == "" && spec.Auth.Password == nil && spec.Auth.Token == nil && !spec.Auth.Anonymous {
		id, err := newIdentity(spec, rt)
		if err != nil {
			return nil, err
		}
		r.id = id
		ways.Login = func(ctx context.Context, anew bool) (generic.Login, error) { return id.login(ctx, r.Registry, anew) }
	}
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

// A Repository is one repository of a registry.
type Repository struct {
	*generic.Repository
	registry *Registry
}

var (
	_ oci.Repository   = (*Repository)(nil)
	_ oci.RangeFetcher = (*Repository)(nil)
)

// Resolve asks what a reference names.
func (p *Repository) Resolve(ctx context.Context, reference string) (v1.Descriptor, error) {
	desc, err := p.Repository.Resolve(ctx, reference)
	return desc, p.early(reference, err)
}

// FetchManifest reads one manifest.
func (p *Repository) FetchManifest(ctx context.Context, reference string) (oci.Manifest, error) {
	m, err := p.Repository.FetchManifest(ctx, reference)
	return m, p.early(reference, err)
}

// PushManifest stores a manifest.
func (p *Repository) PushManifest(ctx context.Context, reference string, m oci.Manifest) (oci.Pushed, error) {
	if len(m.Bytes) > maxManifest {
		return oci.Pushed{}, p.tooLarge("manifest", int64(len(m.Bytes)), "4 MiB")
	}
	pushed, err := p.Repository.PushManifest(ctx, reference, m)
	if err == nil {
		p.registry.pending.note(p.FullName(), reference)
		p.registry.pending.note(p.FullName(), m.Digest.String())
	}
	return pushed, err
}

// Stat asks for a blob.
func (p *Repository) Stat(ctx context.Context, d digest.Digest) (int64, error) {
	n, err := p.Repository.Stat(ctx, d)
	return n, p.early(d.String(), err)
}

// Fetch opens a blob.
func (p *Repository) Fetch(ctx context.Context, desc v1.Descriptor) (io.ReadCloser, error) {
	r, err := p.Repository.Fetch(ctx, desc)
	return r, p.early(desc.Digest.String(), err)
}

// FetchRange opens part of a blob.
func (p *Repository) FetchRange(ctx context.Context, desc v1.Descriptor, from, n int64) (io.ReadCloser, error) {
	r, err := p.Repository.FetchRange(ctx, desc, from, n)
	return r, p.early(desc.Digest.String(), err)
}

// Start opens an upload.
func (p *Repository) Start(ctx context.Context, desc v1.Descriptor, from []string) (oci.Upload, bool, error) {
	if desc.Size > maxLayer {
		return nil, false, p.tooLarge("blob", desc.Size, "200 GiB")
	}
	u, mounted, err := p.Repository.Start(ctx, desc, from)
	switch {
	case err != nil:
		return nil, false, err
	case mounted:
		p.registry.pending.note(p.FullName(), desc.Digest.String())
		return nil, true, nil
	}
	return &upload{Upload: u, p: p, digest: desc.Digest}, false, nil
}

func (p *Repository) tooLarge(what string, size int64, bound string) error {
	return p.registry.Fault(oci.RegistryError{
		Operation: "push " + what + " to " + p.FullName(), Kind: oci.ErrRefused,
		Message: fmt.Sprintf("%d bytes: Azure Container Registry takes at most %s", size, bound),
	})
}

type upload struct {
	oci.Upload
	p      *Repository
	digest digest.Digest
}

// Put sends the blob.
func (u *upload) Put(ctx context.Context, body oci.Body) error {
	err := u.Upload.Put(ctx, body)
	if err == nil {
		u.p.registry.pending.note(u.p.FullName(), u.digest.String())
	}
	return err
}
