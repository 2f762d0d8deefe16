package daemon

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	"go.uber.org/zap"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/oci"
)

// A registry has no compare-and-set: a tag's PUT whose answer we gave up on may
// take effect after a later one of ours, and the tag then shows an older state.
// So a tag that was moved after a move whose end nobody knows is looked at a few
// times more, and one that is found to name, within lateFor of our own move away
// from it, a digest we had put there before is taken for such a move and moved
// on again, with a finding; so is an older state of the source's tag. What is
// found later than that may be somebody's rollback: it is drift, and kept.
const lateFor = 2 * time.Minute

var lookAfterMove = []time.Duration{5 * time.Second, 20 * time.Second, time.Minute, lateFor}

const regressedHint = "it is moved on again; a registry that answers late, or a network that held the request back, does this"

// A pastMove is a tag's move by us, and what may come late of those before it.
type pastMove struct {
	job    replicator.Job
	place  replicator.Place
	digest digest.Digest
	before []digest.Digest
}

// watchLate has a destination's tag looked at again that was moved after moves
// whose end is unknown.
func (r *run) watchLate(t *target, d digest.Digest) {
	if t.job.Flow != replicator.OneWay || t.job.Tag == "" {
		return
	}
	before := r.givenUp.of(t.place, t.job.Tag, r.now())
	for _, i := range t.begun {
		if i.At == t.place.Identity && i.New != "" {
			before = append(before, i.New)
		}
	}
	before = slices.DeleteFunc(before, func(b digest.Digest) bool { return b == d })
	if len(before) == 0 {
		return
	}
	at := lookedAt{registry: t.place.Registry, repository: t.place.Repository, tag: t.job.Tag, moved: true}
	r.looks.addMove(at, pastMove{job: t.job, place: t.place, digest: d, before: before}, r.now())
}

// lookForLate looks at a tag that was moved: where it names again what we moved
// it from, or would have moved it to before, whoever has it now repairs it.
func (d *Daemon) lookForLate(ctx context.Context, m pastMove) {
	reg, ok := d.State().Registries[m.place.Registry]
	if !ok || reg.Client.Identity() != m.place.Identity {
		return
	}
	rctx, cancel := context.WithTimeout(oci.WithoutPulls(oci.WithBackground(ctx)), lookTime)
	defer cancel()
	desc, err := reg.Client.Repository(m.place.Repository).Resolve(rctx, m.job.Tag)
	if err != nil || !slices.Contains(m.before, desc.Digest) {
		return
	}
	record, known, err := d.journal.Record(ctx, m.place.Identity, m.place.Repository, m.job.Tag)
	if err != nil || !known || record.Digest != m.digest {
		return // it has been moved on since
	}
	f := regressedFinding(m.job, m.place, desc.Digest, m.digest, d.now())
	intent := replicator.Intent{At: m.place.Identity, Old: m.digest, New: desc.Digest}
	if err := d.journal.Late(ctx, m.job, intent, f); err != nil {
		if ctx.Err() == nil {
			d.log.Warn("tell of a move that came late", zap.Error(err))
		}
		return
	}
	d.log.Warn("finding", zap.String("kind", string(f.Kind)), zap.String("registry", f.Registry),
		zap.String("repository", f.Repository), zap.String("tag", f.Tag), zap.String("message", f.Message))
}

// regressed tells whether what looks like drift is a move of our own that came
// late: we moved the tag to what is on record a moment ago, and what it names
// now we had put there before that, or the source's tag had named it: then a
// move of ours may have ended without a record.
func (r *run) regressed(ctx context.Context, t *target) bool {
	if !t.known || !t.record.Wrote || t.job.Flow != replicator.OneWay {
		return false
	}
	ours, err := r.journal.History(ctx, t.place.Identity, t.place.Repository, t.job.Tag, nil, keptStates)
	if err != nil || len(ours) == 0 {
		return false
	}
	last := ours[0]
	if last.Digest != t.record.Digest || last.Cause != causeCopied || r.now().Sub(last.At) > lateFor {
		return false
	}
	source := t.job.Source
	theirs, err := r.journal.History(ctx, source.Identity, source.Repository, t.job.Tag, nil, keptStates)
	if err != nil {
		return false
	}
	copied := func(s replicator.TagState) bool { return s.Digest == t.present && s.Cause == causeCopied }
	named := func(s replicator.TagState) bool { return s.Digest == t.present }
	if !slices.ContainsFunc(ours[1:], copied) && !slices.ContainsFunc(theirs, named) {
		return false
	}
	r.note(t.job, regressedFinding(t.job, t.place, t.present, t.record.Digest, r.now()))
	return true
}

// keptStates is how many states of a tag are read: those before are too old.
const keptStates = 10

func regressedFinding(j replicator.Job, p replicator.Place, now, proven digest.Digest, at time.Time) replicator.Finding {
	return replicator.Finding{
		Kind: replicator.FindingRegressed, At: at, Route: j.Wants[0].Route,
		Registry: p.Registry, Repository: p.Repository, Tag: j.Tag, Digest: now,
		Message: bounded(fmt.Sprintf("%s:%s names %s, an older state that we wrote, though %s was proven there after it", p, j.Tag, now, proven)),
		Hint:    regressedHint,
	}
}
