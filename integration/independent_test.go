package integration

import (
	"context"
	"fmt"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

// pull pulls an image or index whole with a client that is not ours, layers
// unpacked and every digest compared.
func pull(ctx context.Context, addr, repository, tag string) error {
	ref, err := name.ParseReference(fmt.Sprintf("%s/%s:%s", addr, repository, tag), name.Insecure)
	if err != nil {
		return err
	}
	desc, err := remote.Get(ref, remote.WithContext(ctx))
	if err != nil {
		return fmt.Errorf("pull %s: %w", ref, err)
	}
	if desc.MediaType.IsIndex() {
		index, err := desc.ImageIndex()
		if err != nil {
			return fmt.Errorf("pull %s: %w", ref, err)
		}
		return validate.Index(index)
	}
	image, err := desc.Image()
	if err != nil {
		return fmt.Errorf("pull %s: %w", ref, err)
	}
	return validate.Image(image)
}
