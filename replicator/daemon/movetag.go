package daemon

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/journal"
	"github.com/twinport/twinport/replicator/oci"
	"github.com/twinport/twinport/replicator/transfer"
	"github.com/twinport/twinport/replicator/verify"
)

const (
	// rightBefore is how old a reading of the source's tag may be at the PUT.
	// A tag that a sweep found is no news: its reading may be older, and the
	// one after the PUT sees what changed meanwhile.
	rightBefore      = time.Second
	rightBeforeSwept = 10 * time.Second
	// lookHolds is how old the look at a destination's tag may be at the PUT
	// where only the source is pushed to.
	lookHolds = time.Minute
	// leaseMargin lies between the PUT's deadline and the lease's end.
	leaseMargin = 2 * time.Second
)

// errMoved says that the source's tag names something else by now.
var errMoved = errors.New("the source's tag has moved on")

// moveTag is the last step of a delivery, by one holder per tag (P3):
// source tag and lease are checked right before the PUT, whose deadline lies
// before the lease's end, and both are read again after it.
func (r *run) moveTag(ctx context.Context, from delivery, t *target) error {
	if err := r.awaitLease(ctx); err != nil {
		return err
	}
	if from.gone {
		if err := r.stillGone(from, t); err != nil {
			return err
		}
	} else if err := r.unchanged(ctx, from, t); err != nil {
		return err
	}
	if err := r.unmoved(ctx, from, t); err != nil {
		return err
	}
	return r.putTag(ctx, from, t)
}

// unchanged gives errMoved where the source's tag no longer names the root.
func (r *run) unchanged(ctx context.Context, from delivery, t *target) error {
	fresh := rightBefore
	if t.job.Lane != replicator.LaneWebhook {
		fresh = rightBeforeSwept
	}
	now, err := from.seen.since(ctx, from, r.now().Add(-fresh), r.now)
	if err != nil {
		return err
	}
	if now != from.root.Digest && !from.last {
		return errMoved
	}
	return nil
}

// unmoved gives errMoved where the destination's tag no longer names what it
// did when the move was decided on: whoever may push there may have done so
// while the content was copied.
func (r *run) unmoved(ctx context.Context, from delivery, t *target) error {
	holds := lookHolds
	if t.intent { // pushes there are nothing unusual
		holds = rightBefore
	}
	if r.now().Sub(t.looked) < holds {
		return nil
	}
	desc, err := t.repo.Resolve(ctx, t.job.Tag)
	switch {
	case err != nil && !errors.Is(err, oci.ErrNotFound):
		return fmt.Errorf("read the destination's tag again: %w", err)
	case desc.Digest == t.present || desc.Digest == from.root.Digest:
		return nil
	case from.last:
		return fmt.Errorf("%s:%s moves all the time: %w", t.place, t.job.Tag, oci.ErrInterrupted)
	}
	return errMoved
}

// putTag moves a tag whose ends have just been looked at, and reads both again.
func (r *run) putTag(ctx context.Context, from delivery, t *target) error {
	if t.preserve {
		if err := r.keepLost(ctx, from, t); err != nil {
			return err
		}
	}
	fresh := false
	if t.intent || t.known {
		// Should we end before the record is written, whoever looks next finds a
		// tag that is not as recorded: this says that it was us.
		var err error
		if fresh, err = r.beginMove(ctx, from, t); err != nil {
			return err
		}
	}
	until := r.journal.ClaimUntil(r.claim)
	if r.now().After(until.Add(-leaseMargin)) {
		return fmt.Errorf("the lease ends at %s: %w", until.UTC().Format(time.RFC3339), oci.ErrInterrupted)
	}
	arrived := r.arrivals.begin(t.place, t.job.Tag, from.root.Digest, t.job.PushedAt)
	r.mu.Lock()
	r.ended = append(r.ended, arrived)
	r.mu.Unlock()
	put, cancel := context.WithDeadline(ctx, until.Add(-leaseMargin))
	err := r.copier.Tag(put, transfer.Destination{Identity: t.place.Identity, Repository: t.repo}, t.job.Tag, from.root)
	cancel()
	r.late(ctx, from, t, until)
	if err != nil {
		r.unanswered(ctx, from, t, fresh, err)
		return fmt.Errorf("move the tag: %w", err)
	}
	ended := r.now()
	r.journey.moved()
	r.step()

	// The tag read back, and the source's tag read again, beside each other.
	again := make(chan error, 1)
	go func() {
		if from.gone { // nobody to ask
			again <- nil
			return
		}
		again <- r.successor(ctx, from, t, ended)
	}()
	report, err := verify.Tag(ctx, t.repo, t.job.Tag, from.root)
	if serr := <-again; serr != nil {
		// The move stands; whether the source moved on is the sweep's to find.
		r.log.Debug("read the source's tag after the move: " + bounded(serr.Error()))
	}
	if err != nil {
		return fmt.Errorf("read the tag back: %w", err)
	}
	if !report.Sound() {
		return fmt.Errorf("%s:%s was moved to something else right after our move: %w", t.place, t.job.Tag, oci.ErrInterrupted)
	}
	return nil
}

// successor queues the tag again where the source's tag has moved on since.
func (r *run) successor(ctx context.Context, from delivery, t *target, after time.Time) error {
	d, err := from.seen.since(ctx, from, after, r.now)
	if err != nil || d == from.root.Digest || d == "" {
		return err
	}
	next := t.job
	next.Digest = d
	next.PushedAt, next.BehindSince, next.SenderTime = r.now(), r.now(), false
	_, err = r.journal.Accept(ctx, journal.Intake{Jobs: []replicator.Job{next}})
	return err
}

// keepLost keeps what the tag names now under a tag of its own, unless the
// source still has it: then it is only an older state.
func (r *run) keepLost(ctx context.Context, from delivery, t *target) error {
	_, err := from.repo.Resolve(ctx, t.present.String())
	if err == nil {
		return nil
	}
	if !errors.Is(err, oci.ErrNotFound) {
		return fmt.Errorf("ask the source for what the destination's tag names: %w", err)
	}
	old, err := t.repo.FetchManifest(ctx, t.present.String())
	if errors.Is(err, oci.ErrNotFound) {
		return nil // the tag named nothing that could be pulled
	}
	if err != nil {
		return fmt.Errorf("read what the destination's tag names: %w", err)
	}
	tag := "twinport-lost-" + t.present.Encoded()[:12]
	_, err = t.repo.PushManifest(ctx, tag, old)
	if errors.Is(err, oci.ErrBlobUnknown) {
		// It cannot be pulled whole, nor kept: the tag is not to wait for it.
		f := r.finding(t.job, replicator.FindingDrift,
			fmt.Sprintf("%s:%s named %s, which is not the source's and lacks content; the source wins, and it could not be kept as tag %s", t.place, t.job.Tag, t.present, tag),
			"find out who put it there; it can be read by its digest as far as it goes")
		f.Digest = t.present
		r.note(t.job, f)
		return nil
	}
	if err != nil {
		return fmt.Errorf("keep %s as %s: %w", t.present, tag, err)
	}
	f := r.finding(t.job, replicator.FindingDrift,
		fmt.Sprintf("%s:%s named %s, which is not the source's; the source wins, and it is kept as tag %s", t.place, t.job.Tag, t.present, tag),
		"compare the two; delete the tag when nobody needs it")
	f.Digest = t.present
	r.note(t.job, f)
	return nil
}
