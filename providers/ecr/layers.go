package ecr

import (
	"context"
	"fmt"

	"github.com/opencontainers/go-digest"

	"github.com/twinport/twinport/replicator/oci"
)

// StatBlobs asks for up to 100 blobs by BatchCheckLayerAvailability, which is no
// pull: lifecycle rules go by an image's last one (API reference,
// "BatchCheckLayerAvailability"; user guide, "Lifecycle policy properties").
func (p *Repository) StatBlobs(ctx context.Context, digests []digest.Digest) (map[digest.Digest]int64, error) {
	if p.reg.api == nil {
		return nil, fmt.Errorf("%s: %w", p.reg.name, oci.ErrUnsupported)
	}
	if err := oci.CheckRepository(p.FullName()); err != nil {
		return nil, err
	}
	for _, d := range digests {
		if d.Algorithm() != digest.SHA256 { // the API knows no other
			return nil, fmt.Errorf("%s: %s: %w", p.reg.name, d, oci.ErrUnsupported)
		}
	}
	return p.reg.api.layers(ctx, p.FullName(), digests)
}

func texts(digests []digest.Digest) []string {
	list := make([]string, len(digests))
	for i, d := range digests {
		list[i] = d.String()
	}
	return list
}

func sizeOf(size *int64) int64 {
	if size == nil || *size < 0 {
		return -1
	}
	return *size
}

// refusedLayer is that the API could not tell of one; asking for it alone can.
func refusedLayer(name, repository, layer, reason string) error {
	return fmt.Errorf("%s: BatchCheckLayerAvailability %s: %.80q: %s: %w", name, repository, layer, oneLine(reason), oci.ErrUnsupported)
}
