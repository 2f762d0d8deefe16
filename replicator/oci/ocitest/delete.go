package ocitest

import (
	"context"

	"github.com/twinport/twinport/replicator/oci"
)

var _ oci.TagDeleter = (*repo)(nil)

// DeleteTag implements oci.TagDeleter.
func (p *repo) DeleteTag(ctx context.Context, tag string) error {
	done, err := begin(ctx, p.r, Call{Method: DeleteTag, Repository: p.name, Reference: tag})
	if err != nil {
		return err
	}
	err = p.look(func(rp *repository) error {
		what := "DELETE tag " + p.name + ":" + tag
		switch {
		case p.r.options.NoDeletes:
			return p.fault(what, oci.ErrUnsupported)
		case rp == nil:
			return p.fault(what, oci.ErrRepositoryUnknown)
		}
		gone, ok := rp.tags[tag]
		if !ok {
			return p.fault(what, oci.ErrNotFound)
		}
		delete(rp.tags, tag)
		left := 0
		for name, other := range rp.tags {
			switch {
			case other.digest != gone.digest:
			case p.r.options.DropsOthers:
				delete(rp.tags, name)
			default:
				left++
			}
		}
		if left == 0 && (p.r.options.DropsUntagged || p.r.options.DropsOthers) {
			delete(rp.manifests, gone.digest)
		}
		return nil
	})
	done(err, false)
	return err
}

// DropsUntagged implements oci.TagDeleter.
func (p *repo) DropsUntagged() bool { return p.r.options.DropsUntagged }
