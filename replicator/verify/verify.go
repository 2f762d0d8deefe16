// Package verify reads a destination alone and tells what is missing or
// corrupt there. It believes nothing of what a copy, a journal or the source
// says: only what the registry answers now.
package verify

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/twinport/twinport/replicator/oci"
)

// Options say how to read a destination.
type Options struct {
	// Deep reads and hashes every blob, instead of asking for its size.
	Deep bool
	// Referrers are further roots in the same repository to be proven whole.
	Referrers []digest.Digest
	// Concurrency is how many requests run side by side (default 16).
	Concurrency int
	// Seen shares what is asked for with other proofs; nil: with none. Identity
	// is that of the destination's registry then.
	Seen     *Seen
	Identity string
	// Progress is told the size of each manifest and blob that was looked at,
	// from many goroutines; nil: nobody.
	Progress func(bytes int64)
}

// A Report is what a destination was found to hold.
type Report struct {
	// Manifests and Blobs are what was looked at, each distinct one once.
	Manifests, Blobs int
	// Bytes is the size of the whole graph: its manifests (a root that was
	// given too) and distinct blobs, as descriptors tell it.
	Bytes int64
	// Missing is what the destination does not have, Corrupt what it has under
	// a name or size that is not that content's.
	Missing, Corrupt []Fault
}

// A Fault is one manifest or blob that is not as it should be.
type Fault struct {
	// Digest is empty for a tag that does not exist.
	Digest    digest.Digest
	MediaType string
	Size      int64
	Err       error
}

// Sound tells whether nothing is missing or corrupt.
func (r Report) Sound() bool { return len(r.Missing)+len(r.Corrupt) == 0 }

// Content proves everything below a root, and the referrers of the options:
// every manifest is read by its digest and hashed, every distinct blob asked
// for with its size. The root itself is not: it may be there only once its tag
// is. The error says that something could not be asked, so that the report is
// not whole; what is missing or corrupt is no error.
func Content(ctx context.Context, dst oci.Repository, root oci.Manifest, o Options) (Report, error) {
	w := newWalk(dst, o)
	if err := w.enter(root); err != nil {
		return Report{}, fmt.Errorf("verify %s: %w", root.Digest, err)
	}
	return w.run(ctx)
}

// Image proves what a tag or digest names, from the destination alone, its root
// included. A reference that is not there is missing, no error.
func Image(ctx context.Context, dst oci.Repository, reference string, o Options) (Report, error) {
	w := newWalk(dst, o)
	root, err := dst.FetchManifest(oci.WithOperation(ctx, oci.OpManifestRead), reference)
	desc := v1.Descriptor{Size: -1}
	if oci.IsDigest(reference) {
		desc.Digest = digest.Digest(reference)
	}
	if err == nil && desc.Digest == "" {
		desc.Digest = root.Digest
	}
	ok, err := w.judge(desc, root, err)
	if err != nil {
		return Report{}, fmt.Errorf("verify %s: %w", reference, err)
	}
	if ok {
		w.report.Manifests++
		if err := w.enter(root); err != nil {
			return w.report, fmt.Errorf("verify %s: %w", reference, err)
		}
	}
	return w.run(ctx)
}

// Tag proves that a tag names a root, byte for byte. A tag that names another
// is corrupt, with that other's digest.
func Tag(ctx context.Context, dst oci.Repository, tag string, want oci.Manifest) (Report, error) {
	fault := Fault{Digest: want.Digest, MediaType: want.MediaType, Size: int64(len(want.Bytes))}
	got, err := dst.FetchManifest(oci.WithOperation(ctx, oci.OpManifestRead), tag)
	report := Report{Manifests: 1, Bytes: int64(len(got.Bytes))}
	switch {
	case errors.Is(err, oci.ErrNotFound):
		fault.Err = fmt.Errorf("tag %s: %w", tag, err)
		report.Missing = append(report.Missing, fault)
		return report, nil
	case errors.Is(err, oci.ErrMismatch):
		fault.Err = fmt.Errorf("tag %s: %w", tag, err)
		report.Corrupt = append(report.Corrupt, fault)
		return report, nil
	case err != nil:
		return Report{}, fmt.Errorf("verify tag %s: %w", tag, err)
	}
	if !bytes.Equal(got.Bytes, want.Bytes) || want.Digest.Algorithm().FromBytes(got.Bytes) != want.Digest {
		fault.Digest, fault.MediaType, fault.Size = got.Digest, got.MediaType, int64(len(got.Bytes))
		fault.Err = fmt.Errorf("tag %s names %s, not %s: %w", tag, got.Digest, want.Digest, oci.ErrMismatch)
		report.Corrupt = append(report.Corrupt, fault)
	}
	return report, nil
}
