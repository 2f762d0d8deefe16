package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/journal"
	"github.com/twinport/twinport/replicator/oci"
	"github.com/twinport/twinport/replicator/verify"
)

// chases bounds how often a claim follows a tag that moves while its content
// is copied; after that it moves the destination to what it has (newer than
// what is there) and leaves the rest to the successor.
const chases = 3

// oneWay brings a tag to the destinations that only its source may change.
func (r *run) oneWay(ctx context.Context, src *Registry, targets []*target) {
	all := targets
	for chase := 1; len(targets) > 0; chase++ {
		targets = r.oneWayOnce(ctx, src, targets, chase >= chases)
	}
	for _, t := range all {
		if t.seen != "" {
			r.settleAll([]*target{t}, t.seen)
		}
	}
}

// oneWayOnce gives back the targets whose source tag moved on meanwhile.
func (r *run) oneWayOnce(ctx context.Context, src *Registry, targets []*target, last bool) []*target {
	first := targets[0].job
	repo := src.Client.Repository(first.Source.Repository)

	// The tag's GET is also its resolution; the destinations are looked at beside it.
	resolved := make(chan struct{})
	var from delivery
	var srcErr error
	go func() {
		defer close(resolved)
		from, srcErr = r.resolve(ctx, src, repo, first.Source, first.Tag, targets)
	}()
	looked := r.each(ctx, targets, r.look)
	<-resolved
	r.step()
	if srcErr != nil {
		r.sourceLacks(ctx, repo, r.withoutSource(ctx, src, looked, srcErr), srcErr)
		return nil
	}

	var moving, standing []*target
	for _, t := range looked {
		t.seen = from.root.Digest
		if r.barred(ctx, t, from.root.Digest) || r.collides(t) {
			continue
		}
		r.contradicted(ctx, t, from.root.Digest)
		var proven digest.Digest
		if t.known {
			proven = t.record.Digest
		}
		if t.ours() {
			proven = t.present
		}
		action, preserve := oneWay(from.root.Digest, t.present, proven, t.route.Drift == "overwrite")
		switch action {
		case nothing:
			standing = append(standing, t)
		case keepDrift:
			if r.regressed(ctx, t) {
				moving = append(moving, t)
				continue
			}
			r.keepDrift(t)
		default:
			if t.known && t.present == proven && t.present != from.root.Digest && t.record.PushedAt.After(t.job.PushedAt) {
				// A rollback, or events out of order: the source decides either way.
				r.log.Debug("the source went back to an earlier digest")
			}
			// What was moved there unconfirmed was a push once: it is not lost
			// because the source has forgotten it.
			t.preserve = preserve || t.known && t.record.Unconfirmed && t.present == proven
			moving = append(moving, t)
		}
	}
	moving = append(moving, r.stand(ctx, from, standing)...)
	if len(moving) == 0 {
		return nil
	}
	if from.root.Bytes == nil { // resolved by HEAD, since a record had it
		var err error
		if from, err = r.rootOf(ctx, from, moving); err != nil {
			for _, t := range moving {
				r.fail(ctx, t.job, err)
			}
			return nil
		}
	}
	from.last = last
	return r.deliver(ctx, from, moving)
}

// The hint of an event and the source's tag may differ for two reasons: the
// event is late and the tag has moved on, or it is early. Distribution tells of
// a push before it links the tag, so that an early one finds the tag as it was,
// or not at all: it is looked at again, quickly within the run, then a few
// times more until settleFor has passed.
const (
	settleFirst = 10 * time.Millisecond
	settleInRun = 4 // waits, each twice the one before
	settleFor   = 3 * time.Second
	// settleAgain bounds the wait between two looks at a registry that takes
	// longer (oci.Settler).
	settleAgain = 30 * time.Second
)

// resolve reads what the source's tag names: the whole manifest, or its digest
// alone where every destination is on record with what the event told.
func (r *run) resolve(ctx context.Context, src *Registry, repo oci.Repository, place replicator.Place, tag string, targets []*target) (delivery, error) {
	from := delivery{src: src, repo: repo, place: place, tag: tag}
	hint := targets[0].job.Digest
	expected := hint
	// A tag that named what is on record when it was read may still do so: a
	// HEAD tells.
	again := hint == "" && isUnsettled(targets[0].job)
	known := hint != "" || again
	for i, t := range targets {
		record, ok, err := r.journal.Record(ctx, t.place.Identity, t.place.Repository, t.job.Reference())
		if err != nil {
			return from, err
		}
		if i == 0 && again {
			expected = record.Digest
		}
		known = known && ok && record.Digest == expected
	}
	wait := settleFirst
	for try := 0; ; try++ {
		started := r.now()
		var err error
		if known {
			var desc v1.Descriptor
			desc, err = repo.Resolve(ctx, tag)
			from.root = oci.Manifest{MediaType: desc.MediaType, Digest: desc.Digest}
		} else {
			from.root, err = repo.FetchManifest(ctx, tag)
		}
		if err != nil && !errors.Is(err, oci.ErrNotFound) {
			return from, err
		}
		if err == nil {
			from.seen = newSighting(from.root.Digest, started)
		}
		early := hint != "" && from.root.Digest != hint && targets[0].job.Lane == replicator.LaneWebhook
		if !early || try == settleInRun || !r.unsettled.recent(targets[0].job, r.now()) {
			return from, err
		}
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return from, context.Cause(ctx)
		case <-t.C:
		}
		wait *= 2
	}
}

// kindUnsettled is the error kind of a job that looks again because its event
// told of something else.
const kindUnsettled = "unsettled"

func isUnsettled(j replicator.Job) bool { return j.Error != nil && j.Error.Kind == kindUnsettled }

// early gives a job whose event may have come before its tag another look a
// little later; false: there has been time enough.
func (r *run) early(j replicator.Job, why string) bool {
	age, recent := r.unsettled.age(j, r.now())
	if j.Lane != replicator.LaneWebhook || !recent && age >= r.settles(j) {
		return false
	}
	r.set(journal.Outcome{
		ID: j.ID, Generation: j.Generation, State: replicator.Waiting,
		NextAttempt: r.now().Add(min(max(age, settleFirst), settleAgain)),
		Error:       &replicator.JobError{Kind: kindUnsettled, Message: why},
	})
	return true
}

// settles is how long after a push its source may not have the tag yet.
func (r *run) settles(j replicator.Job) time.Duration {
	if reg, ok := r.state.Registries[j.Source.Registry]; ok {
		if slow, ok := reg.Client.(oci.Settler); ok {
			return slow.Settles()
		}
	}
	return settleFor
}

// pending has a job wait, its attempt not counted, where its source says of
// itself that it may not have all of a push yet (oci.Settler): what it lacks is
// then no proof that it is missing.
func (r *run) pending(j replicator.Job, why string) bool {
	age := r.now().Sub(j.PushedAt)
	settles := r.settles(j)
	if settles <= settleFor || age >= settles {
		return false
	}
	r.mu.Lock()
	o := r.begun(j)
	o.Findings = slices.DeleteFunc(o.Findings, func(f replicator.Finding) bool { return f.Kind == replicator.FindingSourceIncomplete })
	r.mu.Unlock()
	r.set(journal.Outcome{
		ID: j.ID, Generation: j.Generation, State: replicator.Waiting,
		NextAttempt: r.now().Add(min(max(age, time.Second), settleAgain)),
		Error:       &replicator.JobError{Kind: kindUnsettled, Message: why},
	})
	return true
}

// settled has an outcome look again a little later where the source's tag does
// not name what the event told, or, where the event told no digest, names what
// was on record before it. After that it may end, and the tag is looked at a
// few times more beside it.
func (r *run) settled(t *target, now digest.Digest, o *journal.Outcome) {
	j := t.job
	why := fmt.Sprintf("the event told of %s, the tag names %s: looking again", j.Digest, now)
	switch {
	case j.Lane != replicator.LaneWebhook || now == j.Digest:
		return
	case j.Digest == "" && (j.Flow != replicator.OneWay || !t.known || t.record.Digest != now):
		return // it has told of something
	case j.Digest == "":
		why = fmt.Sprintf("the event told of a push, the tag still names %s: looking again", now)
	}
	age, recent := r.unsettled.age(j, r.now())
	if !recent {
		r.lookLater(j, now, o)
		return
	}
	o.State, o.Counted, o.Digest = replicator.Waiting, false, ""
	o.NextAttempt = r.now().Add(max(min(age, settleFor-age), settleFirst))
	o.Error = &replicator.JobError{Kind: kindUnsettled, Message: why}
}

// settleAll does so with the outcomes of targets: however an older state of
// the tag would end a job, its event may have told of the next one.
func (r *run) settleAll(targets []*target, now digest.Digest) {
	for _, t := range targets {
		if o := r.outcome(t.job); o != nil && o.State != replicator.Waiting {
			r.settled(t, now, o)
		}
	}
}

// collides refuses a destination tag that another source still in the config
// wrote first.
func (r *run) collides(t *target) bool {
	owner := t.record.Source
	if !t.known || owner.Identity == "" || (owner.Identity == t.job.Source.Identity && owner.Repository == t.job.Source.Repository) {
		return false
	}
	if !r.state.Rules.Owns(owner, t.place) {
		return false // the config gave the name to this source
	}
	message := fmt.Sprintf("%s wrote %s:%s first; %s may not overwrite it", owner, t.place, t.job.Tag, t.job.Source)
	const hint = "give one of the two routes a rename or an exclude"
	r.set(journal.Outcome{
		ID: t.job.ID, Generation: t.job.Generation, State: replicator.Refused, Digest: t.job.Digest,
		Error:    &replicator.JobError{Kind: "collision", Message: message, Hint: hint},
		Findings: []replicator.Finding{r.finding(t.job, replicator.FindingCollision, message, hint)},
	})
	return true
}

// keepDrift leaves what somebody else put there; the record stays what it was.
func (r *run) keepDrift(t *target) {
	f := r.finding(t.job, replicator.FindingDrift,
		fmt.Sprintf("%s:%s was moved to %s by somebody else; it was proven as %s and the source has not changed", t.place, t.job.Tag, t.present, t.record.Digest),
		"kept; a push to the source, or `drift: overwrite` on the route, puts the source's image back")
	f.Digest = t.present
	r.set(journal.Outcome{
		ID: t.job.ID, Generation: t.job.Generation, State: replicator.Done, Digest: t.record.Digest,
		Findings: []replicator.Finding{f},
		History:  []replicator.TagState{{Place: t.place, Tag: t.job.Tag, Digest: t.present, At: r.now(), Cause: "drift"}},
	})
}

// fresh tells whether a record spares the proof: half of `proof` old at most,
// since the sweep asks again between half and the whole of it.
func (r *run) fresh(t *target, d digest.Digest) bool {
	return t.known && !t.job.Full && t.record.Digest == d && !t.record.Unconfirmed && r.now().Sub(t.record.ProvenAt) < t.route.Proof/2
}

// referrersEvery is how often a proven root's referrers are asked for again.
const referrersEvery = 24 * time.Hour

// stand handles destinations whose tag is right already: it proves them anew,
// and gives back those that turn out to lack content.
func (r *run) stand(ctx context.Context, from delivery, targets []*target) (hollow []*target) {
	var due []*target
	left := r.each(ctx, targets, func(ctx context.Context, t *target) error {
		askReferrers := t.route.Referrers != "false" &&
			(!t.known || t.job.Full || r.now().Sub(t.record.ReferrersAt) > referrersEvery/2)
		if r.fresh(t, from.root.Digest) && !askReferrers {
			out := journal.Outcome{ID: t.job.ID, Generation: t.job.Generation, State: replicator.Done, Digest: from.root.Digest}
			if len(t.begun) > 0 {
				out.Base = from.root.Digest
			}
			r.settled(t, from.root.Digest, &out)
			r.set(out)
			r.watchLate(t, from.root.Digest)
			return nil
		}
		report, err := verify.Image(ctx, t.repo, t.job.Tag, r.proof(ctx, t.place, nil))
		if err != nil && !errors.Is(err, oci.ErrNotFound) {
			return err
		}
		r.step()
		if err != nil || len(report.Missing) > 0 {
			r.lost(t, report)
			return nil
		}
		if err := r.unsound(t, report); err != nil {
			return err
		}
		if !askReferrers {
			r.done(t, from, from.root.Digest, report.Bytes, nil)
			return nil
		}
		return nil
	})
	for _, t := range targets {
		if t.hollow {
			hollow = append(hollow, t)
		}
	}
	for _, t := range left {
		if !t.hollow {
			due = append(due, t)
		}
	}
	if len(due) == 0 {
		return hollow
	}
	if from.root.Bytes == nil {
		var err error
		if from, err = r.rootOf(ctx, from, due); err != nil {
			for _, t := range due {
				r.fail(ctx, t.job, err)
			}
			return hollow
		}
	}
	r.copyReferrers(ctx, from, due, func(t *target, roots []digest.Digest) error {
		report, err := verify.Content(ctx, t.repo, from.root, r.proof(ctx, t.place, roots))
		if err != nil {
			return err
		}
		if err := r.unsound(t, report); err != nil {
			return err
		}
		r.done(t, from, from.root.Digest, report.Bytes, nil)
		return nil
	})
	return hollow
}

// lost notes that a destination lacks content its tag names: if it was called
// proven, nothing the registry holds is believed until swept in full.
func (r *run) lost(t *target, report verify.Report) {
	t.hollow = true
	r.doubt(t.place)
	what := "content"
	if len(report.Missing) > 0 {
		what = report.Missing[0].Digest.String()
	}
	if !t.known {
		return
	}
	f := r.finding(t.job, replicator.FindingMissing,
		fmt.Sprintf("%s:%s was proven at %s and now lacks %s", t.place, t.job.Tag, t.record.ProvenAt.UTC().Format(time.RFC3339), what),
		"it is copied again; find out who removed it")
	f.Registry, f.Repository = t.place.Registry, t.place.Repository // of a pair, either end
	r.note(t.job, f)
	r.distrust(t.job, t.place.Identity)
}

// unsound turns a report of damage into an error, nil when all is sound.
func (r *run) unsound(t *target, report verify.Report) error {
	if len(report.Corrupt) > 0 {
		c := report.Corrupt[0]
		what := string(c.Digest)
		if what == "" { // what the tag gave could not be told
			what = t.job.Reference()
		}
		r.note(t.job, r.finding(t.job, replicator.FindingCorrupt,
			fmt.Sprintf("%s holds %s, but its content is not that digest", t.place, what),
			corruptHint))
		r.suspects.forget()
		return fmt.Errorf("%s at %s: %w", c.Digest, t.place, oci.ErrMismatch)
	}
	if len(report.Missing) > 0 {
		r.doubt(t.place)
		return fmt.Errorf("%s lacks %s right after the copy: %w", t.place, report.Missing[0].Digest, oci.ErrBlobUnknown)
	}
	return nil
}
