package verify

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/twinport/twinport/replicator/oci"
)

// batches cuts blobs into what is asked for in one request: one each, or many
// where the registry takes many.
func (w *walk) batches(blobs []v1.Descriptor) [][]v1.Descriptor {
	n := 1
	if _, ok := w.dst.(oci.BatchStatter); ok && !w.options.Deep {
		n = oci.MaxStatBlobs
	}
	return slices.Collect(slices.Chunk(blobs, n))
}

// lookAtBlobs proves a batch. Where the registry takes none it is asked for each
// blob by itself.
func (w *walk) lookAtBlobs(ctx context.Context, blobs []v1.Descriptor) error {
	known, err := w.stats(ctx, blobs)
	if err != nil {
		return err
	}
	group, within := errgroup.WithContext(ctx)
	group.SetLimit(w.options.Concurrency)
	for _, desc := range blobs {
		group.Go(func() error { return w.lookAtBlob(within, desc, known) })
	}
	return group.Wait()
}

// stats asks for a batch at once and gives what judges a blob by the answer;
// nil: it has to be asked for itself.
func (w *walk) stats(ctx context.Context, blobs []v1.Descriptor) (func(v1.Descriptor) error, error) {
	many, ok := w.dst.(oci.BatchStatter)
	if !ok || w.options.Deep {
		return nil, nil
	}
	digests := make([]digest.Digest, len(blobs))
	for i, desc := range blobs {
		digests[i] = desc.Digest
	}
	sizes, err := many.StatBlobs(oci.WithOperation(ctx, oci.OpBlobHead), digests)
	switch {
	case errors.Is(err, oci.ErrUnsupported), errors.Is(err, oci.ErrDenied):
		return nil, nil
	case errors.Is(err, oci.ErrNotFound): // the repository is not there
		return func(v1.Descriptor) error { return err }, nil
	case err != nil:
		return nil, fmt.Errorf("ask for %d blobs: %w", len(blobs), err)
	}
	return func(desc v1.Descriptor) error {
		size, there := sizes[desc.Digest]
		if !there {
			return fmt.Errorf("blob %s: %w", desc.Digest, oci.ErrNotFound)
		}
		return w.sized(ctx, desc, size)
	}, nil
}
