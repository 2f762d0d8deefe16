// Package oci holds the words of the OCI image and distribution specifications
// that every room shares: references, media types, what a manifest refers to,
// referrers, a hashing reader, the kinds of error a registry can give, and the
// contracts a registry client fulfils.
package oci

import (
	"context"
	"io"
	"iter"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// A Registry is one registry under one address and, where its address has one,
// one prefix. Repository names are those below the prefix.
type Registry interface {
	// Identity is the registry's canonical address: kind, host and prefix
	// (`oci://registry.example.com/team`). Records belong to it, so that
	// renaming an entry of the config forgets nothing.
	Identity() string
	// Repository gives a handle; nothing is asked of the registry.
	Repository(name string) Repository
	// Ping asks `GET /v2/`. A 401 that carries a challenge is an answer.
	Ping(ctx context.Context) error
	// Repositories lists the repositories below the prefix, in the registry's
	// order. A registry without a catalog gives ErrUnlistable as its one error.
	// The listing is complete only if it ended without an error.
	Repositories(ctx context.Context) iter.Seq2[string, error]
}

// A Settler is a registry whose reads may lag behind its pushes (optional
// ability): for so long after a push, "not found" may mean "not yet".
type Settler interface {
	Settles() time.Duration
}

// A Repository is one repository of a registry: all that a copy needs of it.
// Optional abilities (RangeFetcher, …) are asked for by type assertion.
type Repository interface {
	// Name is the repository's name below the registry's prefix.
	Name() string
	Resolver
	ManifestFetcher
	ManifestPusher
	Fetcher
	Statter
	Uploader
	TagLister
	ReferrerLister
}

// A Resolver asks what a tag or digest names, without its content (HEAD).
type Resolver interface {
	// Resolve gives digest, size and media type. ErrNotFound: no such tag or
	// manifest; ErrRepositoryUnknown (which is also ErrNotFound): no such
	// repository.
	Resolve(ctx context.Context, reference string) (v1.Descriptor, error)
}

// A ManifestFetcher reads manifests.
type ManifestFetcher interface {
	// FetchManifest reads one manifest by tag or digest, at most
	// MaxManifestSize bytes. Its Digest is computed from the bytes received, by
	// the algorithm of the reference where that is a digest (a difference is
	// ErrMismatch), else sha256.
	FetchManifest(ctx context.Context, reference string) (Manifest, error)
}

// A ManifestPusher writes manifests.
type ManifestPusher interface {
	// PushManifest stores the manifest's bytes verbatim under a tag or under its
	// digest. ErrBlobUnknown: the registry lacks something the manifest names;
	// ErrImmutable: the tag exists, may not move and names something else;
	// ErrUnsupported: the registry does not take such manifests.
	PushManifest(ctx context.Context, reference string, m Manifest) (Pushed, error)
}

// Pushed is what a registry said on taking a manifest.
type Pushed struct {
	// SubjectHandled: the registry answered OCI-Subject, so that its referrers
	// API lists the manifest. Otherwise whoever pushes keeps the fallback tag
	// (distribution-spec, "Pushing Manifests with Subject").
	SubjectHandled bool
}

// A Fetcher opens content by descriptor.
type Fetcher interface {
	// Fetch returns a reader of desc.Size bytes, not yet hashed.
	// A digest the repository lacks gives ErrNotFound.
	Fetch(ctx context.Context, desc v1.Descriptor) (io.ReadCloser, error)
}

// A RangeFetcher opens a blob from an offset (optional ability).
type RangeFetcher interface {
	// FetchRange reads n bytes from an offset; n < 0 reads to the end.
	// A registry that ignores ranges gives ErrUnsupported.
	FetchRange(ctx context.Context, desc v1.Descriptor, from, n int64) (io.ReadCloser, error)
}

// A Statter asks whether a blob is there (HEAD).
type Statter interface {
	// Stat gives the blob's size in bytes, -1 when the registry tells none.
	// ErrNotFound: it is not there.
	Stat(ctx context.Context, d digest.Digest) (int64, error)
}

// An Uploader begins one upload; with from it tries a mount in the same request.
type Uploader interface {
	// Start opens an upload session for desc. Where from names repositories of
	// the same registry, the first is tried as a mount source: when granted,
	// mounted is true and u is nil; when refused, u is the session the same
	// request has opened.
	Start(ctx context.Context, desc v1.Descriptor, from []string) (u Upload, mounted bool, err error)
}

// An Upload is one session.
type Upload interface {
	// Put sends the whole blob and closes the session. It may open the body
	// again, at an offset the registry reports. ErrMismatch: what was sent is
	// not the digest.
	Put(ctx context.Context, body Body) error
	// Offset tells how many bytes the registry has kept (ErrUnsupported: begin anew).
	Offset(ctx context.Context) (int64, error)
	// Cancel ends the session; whoever starts one either puts or cancels.
	Cancel(ctx context.Context) error
}

// A Body is what an upload sends: it can be opened again from an offset, one
// opening at a time. One of at most 2 MiB can be so at any time of the upload,
// as long as memory is not short; larger ones keep what they can.
type Body interface {
	// Open returns the bytes from offset on. ErrUnsupported: they are gone, the
	// upload must end and the blob be read again.
	Open(ctx context.Context, offset int64) (io.ReadCloser, error)
}

// A TagLister lists a repository's tags.
type TagLister interface {
	// Tags gives the tags in the registry's order, page by page. A repository
	// that does not exist gives ErrRepositoryUnknown. The listing is complete
	// only if it ended without an error.
	Tags(ctx context.Context) iter.Seq2[Tag, error]
}

// A Tag is one line of an inventory.
type Tag struct {
	Name string
	// Digest is empty where the registry's listing does not tell it.
	Digest digest.Digest
	// PushedAt is zero where the listing does not tell it; UTC.
	PushedAt time.Time
	// Withheld: the registry keeps what the tag names, but gives it to nobody
	// until it is restored or pushed again (an archived image).
	Withheld bool
}

// A ReferrerLister asks the referrers API.
type ReferrerLister interface {
	// Referrers gives the descriptors of the manifests whose subject is the
	// digest. ErrUnsupported: the registry has no referrers API, so its fallback
	// tag (FallbackTag) is to be read instead. None at all is an empty list.
	Referrers(ctx context.Context, subject digest.Digest) iter.Seq2[v1.Descriptor, error]
}

// A RepositoryMaker makes its repository with the first push where the registry
// lacks it (optional ability).
type RepositoryMaker interface {
	// WouldCreate tells, changing nothing, whether a push would make it.
	WouldCreate(ctx context.Context) (bool, error)
}
