package oci

import (
	"context"

	"github.com/opencontainers/go-digest"
)

// MaxStatBlobs is how many blobs one request may ask for.
const MaxStatBlobs = 100

// A BatchStatter asks for many blobs in one request, by a call that does not
// count as a pull where the registry keeps images by their last one (optional
// ability).
type BatchStatter interface {
	// StatBlobs gives the size in bytes of each blob that is there, -1 where the
	// registry tells none; what is not there is left out. At most MaxStatBlobs
	// digests. ErrUnsupported and ErrDenied: ask for one at a time.
	StatBlobs(ctx context.Context, digests []digest.Digest) (map[digest.Digest]int64, error)
}
