package generic

import (
	"context"
	"errors"

	"github.com/twinport/twinport/replicator/oci"
)

var _ oci.TagDeleter = (*Repository)(nil)

// DeleteTag removes a tag as the specification has it ("Deleting Tags"), or as
// the kind does: DELETE of a manifest by its tag, which leaves the manifest and
// its other tags alone.
func (p *Repository) DeleteTag(ctx context.Context, tag string) error {
	if err := oci.CheckTag(tag); err != nil {
		return err
	}
	if err := oci.CheckRepository(p.full); err != nil {
		return err
	}
	if own := p.reg.ways.DeleteTag; own != nil {
		return p.reg.named(own(ctx, p.reg, p.full, tag))
	}
	return noDeletes(p.EraseManifest(ctx, tag))
}

// DropsUntagged tells whether the kind drops a manifest with its last tag.
func (p *Repository) DropsUntagged() bool { return p.reg.ways.DropsUntagged }

// noDeletes knows how registries say that they remove no tags: deletes are
// switched off (405, UNSUPPORTED), or they know digests alone (400,
// DIGEST_INVALID: distribution before version 3).
func noDeletes(err error) error {
	var refused *oci.RegistryError
	if !errors.As(err, &refused) || !errors.Is(err, oci.ErrUnsupported) && !errors.Is(err, oci.ErrMismatch) {
		return err
	}
	e := *refused
	e.Kind = oci.ErrUnsupported
	if e.Hint == "" {
		e.Hint = "the registry removes no tags: switch deletes on there (CNCF distribution, from version 3: storage.delete.enabled), or remove the tag by hand"
	}
	return &e
}

// NoTagDeletes is the DeleteTag of kinds that cannot remove a tag alone.
func NoTagDeletes(message, hint string) func(context.Context, *Registry, string, string) error {
	return func(_ context.Context, _ *Registry, full, tag string) error {
		return &oci.RegistryError{Operation: "DELETE tag " + full + ":" + tag, Message: message, Hint: hint, Kind: oci.ErrUnsupported}
	}
}
