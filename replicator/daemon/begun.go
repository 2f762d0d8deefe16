package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/oci"
)

// intentOf is a tag's move from what it names to what is delivered.
func (r *run) intentOf(from delivery, t *target) replicator.Intent {
	return replicator.Intent{At: t.place.Identity, Old: t.present, New: from.root.Digest}
}

// beginMove writes a tag's move down before its end is known; fresh tells that
// it was not on record from an earlier try.
func (r *run) beginMove(ctx context.Context, from delivery, t *target) (fresh bool, err error) {
	intent := r.intentOf(from, t)
	if fresh, err = r.journal.Begin(ctx, r.claim, t.job.ID, intent); err != nil {
		return false, fmt.Errorf("write down the tag's move: %w", err)
	}
	t.begun = append(t.begun, intent)
	return fresh, nil
}

// unanswered sees to what is on record of a move that has failed. One that was
// refused was not made, and what began with it (fresh) is taken back: not what an
// earlier try began, which may have been made. Any other may have been made, or
// come yet, after the next: a tag's first move is written down only then, since
// most first moves succeed and need no commit of their own.
func (r *run) unanswered(ctx context.Context, from delivery, t *target, fresh bool, why error) {
	intent := r.intentOf(from, t)
	var err error
	switch {
	case !refusedMove(why):
		r.givenUp.note(t.place, t.job.Tag, from.root.Digest, r.now())
		if !t.movedTo(from.root.Digest) {
			_, err = r.beginMove(ctx, from, t)
		}
	case fresh:
		t.begun = slices.DeleteFunc(t.begun, func(i replicator.Intent) bool { return i == intent })
		err = r.journal.Withdraw(ctx, r.claim, t.job.ID, intent)
	}
	if err != nil {
		r.log.Debug(bounded(err.Error()))
	}
}

// refusedMove tells whether a registry has answered that it did not move a tag.
func refusedMove(err error) bool {
	var throttled *oci.ThrottledError
	if errors.As(err, &throttled) {
		return true
	}
	for _, kind := range []error{oci.ErrDenied, oci.ErrRefused, oci.ErrImmutable, oci.ErrUnsupported, oci.ErrBlobUnknown, oci.ErrRepositoryUnknown} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}

// ours tells whether what a destination's tag names is a move of our own whose
// end is not on record: we ended before it was, or the PUT outlasted its lease.
func (t *target) ours() bool {
	return t.present != "" && slices.ContainsFunc(t.begun, func(i replicator.Intent) bool {
		return i.At == t.place.Identity && (t.present == i.New || t.present == i.Old)
	})
}

// movedTo tells whether a move of our own to a digest has begun whose end is not
// on record: the registry may have taken it without our hearing of it.
func (t *target) movedTo(d digest.Digest) bool {
	return slices.ContainsFunc(t.begun, func(i replicator.Intent) bool { return i.At == t.place.Identity && i.New == d })
}
