package check

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/twinport/twinport/replicator/oci"
)

// small is the most that is read of a blob.
const small = 64 << 10

// pull reads an image as a copy or a proof does: tag, manifest, a blob.
func (r *run) pull(ctx context.Context) outcome {
	var outcomes []outcome
	for _, spots := range [][]spot{r.from, r.to} {
		if len(spots) == 0 || spots[0].tag == "" || r.gone != "" {
			continue
		}
		if len(outcomes) > 0 && spots[0].repo.Name() == r.from[0].repo.Name() {
			continue
		}
		outcomes = append(outcomes, r.pullOne(ctx, spots[0]))
	}
	if len(outcomes) == 0 {
		return skipped("not tried: no image of the routes' was found")
	}
	return worst(outcomes)
}

func (r *run) pullOne(ctx context.Context, s spot) outcome {
	image := s.repo.Name() + ":" + s.tag
	desc, err := s.repo.Resolve(ctx, s.tag)
	if errors.Is(err, oci.ErrNotFound) {
		return skipped("not tried: %s has just gone", image)
	}
	if err != nil {
		return r.fail(err)
	}
	r.subject, r.at = desc, s.repo
	blob, err := smallest(ctx, s.repo, desc)
	switch {
	case errors.Is(err, oci.ErrUnsupported):
		return warning("build it anew: what cannot be copied unchanged is refused", "%s can be read, but: %v", image, err)
	case err != nil:
		return r.fail(err)
	case blob.Digest == "":
		return ok("%s was read; it has no blobs", image)
	}
	if _, err := s.repo.Stat(ctx, blob.Digest); err != nil {
		return r.fail(err)
	}
	if err := taste(ctx, s.repo, blob); err != nil {
		return r.fail(err)
	}
	return ok("%s and a blob of it were read", image)
}

// smallest follows a manifest to its smallest blob, by an index's first child.
func smallest(ctx context.Context, repo oci.Repository, desc v1.Descriptor) (blob v1.Descriptor, err error) {
	for range oci.MaxDepth {
		m, err := repo.FetchManifest(ctx, desc.Digest.String())
		if err != nil {
			return blob, err
		}
		refs, err := oci.ParseReferences(m)
		if err != nil {
			return blob, err
		}
		if len(refs.Manifests) > 0 {
			desc = refs.Manifests[0]
			continue
		}
		for _, b := range refs.Blobs {
			if blob.Digest == "" || b.Size < blob.Size {
				blob = b
			}
		}
		break
	}
	return blob, nil
}

// taste reads a blob's first bytes, and holds a small one against its digest.
func taste(ctx context.Context, repo oci.Repository, blob v1.Descriptor) error {
	body, err := repo.Fetch(ctx, blob)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }() // it was only read
	if blob.Size > small {
		_, err = io.CopyN(io.Discard, body, small)
		return err
	}
	_, err = io.Copy(io.Discard, oci.NewHashingReader(body, blob))
	return err
}

// readBack reads what was just pushed.
func readBack(ctx context.Context, repo oci.Repository, reference string, p probe) error {
	desc, err := repo.Resolve(ctx, reference)
	if err != nil {
		return err
	}
	if desc.Digest != p.manifest.Digest {
		return fmt.Errorf("%s names %s, not %s: %w", reference, desc.Digest, p.manifest.Digest, oci.ErrMismatch)
	}
	m, err := repo.FetchManifest(ctx, p.manifest.Digest.String())
	if err != nil {
		return err
	}
	if !bytes.Equal(m.Bytes, p.manifest.Bytes) {
		return fmt.Errorf("the manifest comes back otherwise: %w", oci.ErrMismatch)
	}
	if _, err := repo.Stat(ctx, p.layer.desc.Digest); err != nil {
		return err
	}
	return taste(ctx, repo, p.layer.desc)
}

// referrers asks for those of a manifest that is there.
func (r *run) referrers(ctx context.Context) outcome {
	if r.at == nil {
		return skipped("not tried: no image of the routes' was found")
	}
	for _, err := range r.at.Referrers(ctx, r.subject.Digest) {
		switch {
		case errors.Is(err, oci.ErrUnsupported):
			return ok("no referrers API: fallback tags are used")
		case err != nil:
			return r.fail(err)
		}
		break
	}
	return ok("referrers API")
}
