package daemon

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/journal"
	"github.com/twinport/twinport/replicator/oci"
	"github.com/twinport/twinport/replicator/verify"
)

const (
	// kindUnconfirmed is the error kind of a job whose tag was moved, and proven,
	// while its source did not answer: it waits to be confirmed.
	kindUnconfirmed = "unconfirmed"
	// confirmAgain is how often the source is asked then; its coming back makes
	// the job due at once. A source that lives and has lost the manifest is not
	// expected to find it.
	confirmAgain         = time.Minute
	confirmDanglingAgain = longestBackoff
)

// withoutSource moves tags whose source is gone. It gives back the targets that
// have to wait for the source; why is what the source's tag gave.
func (r *run) withoutSource(ctx context.Context, src *Registry, targets []*target, why error) (left []*target) {
	var lost []*target
	for _, t := range targets {
		if r.sourceGone(src, t.route) {
			lost = append(lost, t)
		} else {
			left = append(left, t)
		}
	}
	if len(lost) == 0 {
		return left
	}
	return append(left, r.unconfirmed(ctx, delivery{src: src, gone: true}, lost, why)...)
}

// lostAtSource moves tags that the source lists and has lost the manifest of.
func (r *run) lostAtSource(ctx context.Context, targets []*target, why error) (left []*target) {
	src := r.state.Registries[targets[0].job.Source.Registry]
	if targets[0].route.SourceGone == 0 || targets[0].job.Flow != replicator.OneWay {
		return targets
	}
	if _, fallback, _ := oci.CompanionSubject(targets[0].job.Tag); fallback {
		return targets
	}
	for _, t := range targets {
		if t.known && t.record.Unconfirmed {
			continue // told when it was moved
		}
		r.note(t.job, r.finding(t.job, replicator.FindingSourceIncomplete, bounded(why.Error()),
			"push it again, or remove the tag; until then the newest push that is known is what the tag stands for"))
	}
	return r.unconfirmed(ctx, delivery{src: src, gone: true, dangling: true}, targets, why)
}

// unconfirmed moves tags to the newest push the journal knows, with the content
// of places that proved it; way says why the source is not asked. It gives back
// the targets that have to wait for the source.
//
// Only what was proven there, or nothing, is moved away from: whether what
// somebody put there meanwhile may go is the source's to say.
func (r *run) unconfirmed(ctx context.Context, way delivery, lost []*target, why error) (left []*target) {
	first := lost[0].job
	way.place, way.tag = first.Source, first.Tag
	newest, known, err := r.newestPush(ctx, first.Source, first.Tag)
	if err != nil || !known {
		return lost
	}
	var moving []*target
	for _, t := range lost {
		if r.barred(ctx, t, newest.Digest) || r.collides(t) {
			continue
		}
		proven := digest.Digest("")
		if t.known {
			proven = t.record.Digest
		}
		switch action, preserve := oneWay(newest.Digest, t.present, proven, false); {
		case action == nothing && t.known && t.record.Unconfirmed && t.record.Digest == newest.Digest:
			r.awaitSource(way, t, newest.Digest)
		case action == nothing && !t.known:
			moving = append(moving, r.standUnconfirmed(ctx, way, t, newest.Digest)...)
		case action == forward && !preserve && !t.record.PushedAt.After(newest.At):
			moving = append(moving, t)
		default:
			left = append(left, t)
		}
	}
	return append(left, r.fromElsewhere(ctx, way, newest.Digest, moving, why)...)
}

// fromElsewhere delivers a digest to targets without their source. It gives
// back those for whom no other place has it.
func (r *run) fromElsewhere(ctx context.Context, way delivery, wanted digest.Digest, targets []*target, why error) (left []*target) {
	if len(targets) == 0 {
		return nil
	}
	holders, groups, err := r.groups(ctx, wanted, targets)
	if err != nil {
		return targets
	}
	for _, group := range groups {
		list := holders[group[0]]
		if len(list) == 0 {
			left = append(left, group...)
			continue
		}
		from := way
		from.repo, from.identity = newElsewhere(list[0].repo, repositories(list)...), list[0].place.Identity
		root, err := from.repo.FetchManifest(ctx, wanted.String())
		if err != nil {
			for _, t := range group {
				r.fail(ctx, t.job, fmt.Errorf("%w; elsewhere: %w", why, err))
			}
			continue
		}
		r.step()
		from.root = root
		for _, t := range r.deliver(ctx, from, group) {
			r.fail(ctx, t.job, fmt.Errorf("%s:%s was moved by somebody else meanwhile: %w", t.place, t.job.Tag, oci.ErrInterrupted))
		}
	}
	return left
}

// standUnconfirmed proves a tag that names the newest push already; it gives
// back the target where content is missing.
func (r *run) standUnconfirmed(ctx context.Context, way delivery, t *target, wanted digest.Digest) []*target {
	report, err := verify.Image(ctx, t.repo, t.job.Tag, r.proof(ctx, t.place, nil))
	switch {
	case errors.Is(err, oci.ErrNotFound), err == nil && len(report.Missing) > 0:
		t.hollow = true
		return []*target{t}
	case err == nil:
		err = r.unsound(t, report)
	}
	if err != nil {
		r.fail(ctx, t.job, err)
		return nil
	}
	r.done(t, way, wanted, report.Bytes, nil)
	return nil
}

// stillGone gives an error where the source of an unconfirmed move answers
// again: then it decides.
func (r *run) stillGone(from delivery, t *target) error {
	if from.dangling || r.sourceGone(from.src, t.route) {
		return nil
	}
	return fmt.Errorf("%s answers again, and decides: %w", from.place.Registry, oci.ErrInterrupted)
}

// awaitSource leaves a job waiting for its source: what was moved is proven,
// and lag counts on until the source has said that it is the latest push.
func (r *run) awaitSource(way delivery, t *target, d digest.Digest) {
	again := confirmAgain
	if way.dangling {
		again = confirmDanglingAgain
	}
	r.set(journal.Outcome{
		ID: t.job.ID, Generation: t.job.Generation, State: replicator.Waiting, Digest: d,
		NextAttempt: r.now().Add(again), Error: unconfirmedError(way, t),
	})
}

// withdrawn ends a job whose source no longer has the tag. Where the tag was
// moved unconfirmed a push is lost at the source, or was taken back there: it
// stays, and a person is told.
func (r *run) withdrawn(t *target) {
	r.gone(t.job, "the source no longer has the tag")
	if !t.known || !t.record.Unconfirmed {
		return
	}
	record := t.record
	record.Unconfirmed = false
	f := r.finding(t.job, replicator.FindingRegressed,
		fmt.Sprintf("%s:%s was moved to %s while %s did not answer; the source, back again, no longer has the tag", t.place, t.job.Tag, record.Digest, t.job.Source.Registry),
		"it stays at the destination; if the source came back older than it was, push it there again")
	f.Digest = record.Digest
	r.note(t.job, f)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.outcomes[t.job.ID].Records = []replicator.Record{record}
}

func unconfirmedError(way delivery, t *target) *replicator.JobError {
	trouble := "does not answer"
	if way.dangling {
		trouble = "has lost what its tag names"
	}
	return &replicator.JobError{
		Kind: kindUnconfirmed,
		Message: fmt.Sprintf("%s %s: the tag was moved to the newest push that is known, from another destination, and is checked against the source when it can be",
			t.job.Source.Registry, trouble),
		Hint: "nothing to do; it counts as behind until the source has confirmed it",
	}
}

// contradicted tells what became of an unconfirmed move when the source, back
// again, names something else; the move is corrected as any other state would be.
func (r *run) contradicted(ctx context.Context, t *target, now digest.Digest) {
	if !t.known || !t.record.Unconfirmed || t.record.Digest == now {
		return
	}
	message := fmt.Sprintf("%s:%s was moved to %s while %s did not answer; the source names %s", t.place, t.job.Tag, t.record.Digest, t.job.Source.Registry, now)
	hint := "corrected: the source had a newer push that nobody had told of"
	if r.wasBefore(ctx, t, now) {
		message += ", an older state"
		hint = "corrected: the source came back older than it was, and may have lost more; where it no longer has what the tag named, that is kept under a tag twinport-lost-… to be pushed again"
	}
	f := r.finding(t.job, replicator.FindingRegressed, message, hint)
	f.Digest = t.record.Digest
	r.note(t.job, f)
}

// wasBefore tells whether the source's tag is known to have named a digest
// before it named what the target's record says.
func (r *run) wasBefore(ctx context.Context, t *target, d digest.Digest) bool {
	history, err := r.journal.History(ctx, t.job.Source.Identity, t.job.Source.Repository, t.job.Tag, nil, 100)
	if err != nil {
		return false
	}
	later := false
	for _, s := range history { // newest first
		if later && s.Digest == d {
			return true
		}
		later = later || s.Digest == t.record.Digest
	}
	return false
}
