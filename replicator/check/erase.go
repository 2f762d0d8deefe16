package check

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/twinport/twinport/replicator/oci"
)

// cleanTime bounds what is taken away after a push was tried, even where the
// look has been interrupted.
const cleanTime = 20 * time.Second

// erase takes the probe away from the repositories that have of it: first its
// tag, since some registries keep a manifest that has one.
func erase(ctx context.Context, repos []oci.Repository, reference string, p probe) outcome {
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), cleanTime, late(cleanTime))
	defer cancel()
	repo := repos[0]
	eraser, is := repo.(oci.Eraser)
	if !is {
		return skipped("not tried")
	}
	var refused error
	if reference == p.tag {
		refused = eraser.EraseManifest(ctx, p.tag)
	}
	err := eraser.EraseManifest(ctx, p.manifest.Digest.String())
	for _, from := range repos {
		if eraser, is := from.(oci.Eraser); is {
			// Most registries delete no blobs by themselves, but what no
			// manifest names.
			_ = eraser.EraseBlob(ctx, p.layer.desc.Digest)
			if from == repo {
				_ = eraser.EraseBlob(ctx, p.config.desc.Digest)
			}
		}
	}
	if err == nil || errors.Is(err, oci.ErrNotFound) {
		err = gone(ctx, repo, reference, p)
	}
	if err != nil && refused != nil && !errors.Is(refused, oci.ErrNotFound) {
		err = refused
	}
	if err == nil {
		return ok("what was pushed is deleted again")
	}
	detail, hint := told(err)
	return failure(leftHint(hint), "left behind: %s:%s (%s): %s", repo.Name(), p.tag, p.manifest.Digest, detail)
}

// gone looks whether tag and manifest are. Where nobody answers that, the
// registry's word for the deletion has to do.
func gone(ctx context.Context, repo oci.Repository, reference string, p probe) error {
	for _, name := range []string{reference, p.manifest.Digest.String()} {
		if _, err := repo.Resolve(ctx, name); err == nil {
			return fmt.Errorf("%s is still there after its deletion", name)
		}
	}
	return nil
}

func leftHint(hint string) string {
	return strings.TrimSuffix("delete it by hand; "+hint, "; ")
}

// mayUntag asks for the removal of a tag that is not there, in the way that
// deletions are carried over: some kinds have an API of their own for it.
func mayUntag(ctx context.Context, repo oci.Repository) error {
	deleter, is := repo.(oci.TagDeleter)
	if !is {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, askTime, late(askTime))
	defer cancel()
	err := deleter.DeleteTag(ctx, "twinport-check-"+nonce())
	if errors.Is(err, oci.ErrNotFound) {
		return nil
	}
	return err
}

// mayErase tells whether what is pushed could be deleted again, by deleting
// what nobody has; if not, why.
func mayErase(ctx context.Context, repo oci.Repository) (bool, error) {
	eraser, is := repo.(oci.Eraser)
	if !is {
		return false, oci.ErrUnsupported
	}
	err := eraser.EraseManifest(ctx, digest.FromString("nobody has this: "+nonce()).String())
	return err == nil || errors.Is(err, oci.ErrNotFound), err
}

func reason(err error) string {
	return "what is stored could not be deleted again (" + noErase(err) + ")"
}

// noErase is why nothing is deleted, without the name of what nobody has.
func noErase(err error) string {
	var refused *oci.RegistryError
	if !errors.As(err, &refused) || refused.Status == 0 {
		detail, _ := told(err)
		return detail
	}
	return strings.TrimSpace(fmt.Sprintf("DELETE: %d %s", refused.Status, strings.TrimSpace(refused.Code+" "+refused.Message)))
}

// noDelete is a deletion that is refused.
func (r *run) noDelete(err error) outcome {
	if r.s.To.Delete {
		return failed(err)
	}
	o := skipped("not needed: no route carries deletions over; it would be refused (%s)", noErase(err))
	if _, hint := told(err); hint != "" {
		o.hint = "for a push to be tried whole: " + hint
	}
	return o
}
