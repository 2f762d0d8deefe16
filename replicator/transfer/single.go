package transfer

import (
	"context"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// CopyBlob brings one blob of the request's source to its destinations; Root
// and all that goes with it are not looked at. A Copy that needs the blob there
// waits for this one, and for a moment takes what it brought as its evidence.
func (c *Copier) CopyBlob(ctx context.Context, req Request, desc v1.Descriptor) []Result {
	k := newCopying(c, req)
	defer k.close()
	k.expect([]v1.Descriptor{desc})
	k.each(ctx, func(ctx context.Context, d *dest) error {
		return k.blobs(ctx, d, []v1.Descriptor{desc})
	})
	return k.results()
}
