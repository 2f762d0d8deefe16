package oci

import (
	"context"
	"crypto/tls"
	"regexp"
	"time"

	"github.com/opencontainers/go-digest"
)

// What follows are optional abilities that a look at a registry asks for
// (replicator/check); copies need none of them.

// An Endpoint is where a registry answers.
type Endpoint struct {
	// Address is its host:port.
	Address string
	// TLS is how it is talked to, with its name set; nil: plain HTTP.
	TLS *tls.Config
	// Proxy is the host:port of the HTTP proxy between, empty where there is none.
	Proxy string
}

// A Locator tells where its registry answers; nothing is asked.
type Locator interface {
	Endpoint() (Endpoint, error)
}

// A Timekeeper tells its registry's clock, to the second (the Date of an
// answer); zero where the registry does not tell.
type Timekeeper interface {
	Time(ctx context.Context) (time.Time, error)
}

// An Introspector logs in and names whom as.
type Introspector interface {
	// Account names the account as its provider does, never with a secret; it
	// may be known even where the login fails.
	Account(ctx context.Context) (string, error)
}

// A CreationTester tells whether missing repositories may be made, by asking
// for one that is there.
type CreationTester interface {
	// Ready tells whether what a push to the repository needs is made:
	// ErrRepositoryUnknown where it is not.
	Ready(ctx context.Context, repository string) error
	// MayCreate makes nothing. ErrDenied: it may not; ErrNotFound: what could be
	// asked for is not there.
	MayCreate(ctx context.Context, repository string) error
}

// A TemporaryRepository can be made and taken away again.
type TemporaryRepository interface {
	// Make makes the repository; one that is there is no error.
	Make(ctx context.Context) error
	// Remove takes it away where it holds no image. ErrRepositoryUnknown: there
	// is none, but it might have been.
	Remove(ctx context.Context) error
}

// An Eraser takes away what its caller has put there itself, by the protocol's
// plain DELETE.
type Eraser interface {
	// EraseManifest takes a manifest away by its digest, or its tag by name; at
	// many registries the manifest goes with its tag. ErrNotFound: it is not
	// there, but might have been erased; ErrUnsupported: the registry deletes
	// nothing; ErrDenied: the account may not.
	EraseManifest(ctx context.Context, reference string) error
	EraseBlob(ctx context.Context, d digest.Digest) error
}

// A Rehearser tries the rights that a push needs one by one, with content that
// the registry has to refuse: nothing is stored.
type Rehearser interface {
	RehearsePush(ctx context.Context) error
}

// A TagFixer tells whether the repository's tags may neither move nor be taken
// away again.
type TagFixer interface {
	FixesTags(ctx context.Context) (bool, error)
}

var probeGrammar = regexp.MustCompile(`^twinport-check-[0-9a-f]{16}$`)

// IsProbe tells whether a tag is one that a look at a registry has pushed to
// try whether it may: it is gone soon, and nobody is to copy it.
func IsProbe(tag string) bool { return probeGrammar.MatchString(tag) }

type detourKey struct{}

// WithDetours has told called with each refusal under ctx that a client got
// over by asking another way: dearer, or with less of an answer.
func WithDetours(ctx context.Context, told func(error)) context.Context {
	return context.WithValue(ctx, detourKey{}, told)
}

// Detour tells of a refusal that the caller is about to get over.
func Detour(ctx context.Context, err error) {
	if told, ok := ctx.Value(detourKey{}).(func(error)); ok && err != nil {
		told(err)
	}
}
