package daemon

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/journal"
	"github.com/twinport/twinport/replicator/oci"
	"github.com/twinport/twinport/replicator/plan"
	"github.com/twinport/twinport/replicator/verify"
)

const (
	// conflictAgain is how often an unsettled conflict is looked at again.
	conflictAgain = 5 * time.Minute
	// newestApart is how far two senders' times must lie apart for
	// `conflict: newest` to believe them.
	newestApart = 10 * time.Second
)

// An end is one side of a job whose two ends feed each other.
type end struct {
	reg    *Registry
	repo   oci.Repository
	place  replicator.Place
	digest digest.Digest // what its tag names, empty where it names nothing
}

// between works on a tag that both ends, or a ring of registries, may move.
// An event only triggers reading both sides.
func (r *run) between(ctx context.Context, src *Registry, t *target) {
	j := t.job
	for chase := 1; ; chase++ {
		a := &end{reg: src, place: j.Source, repo: src.Client.Repository(j.Source.Repository)}
		b := &end{reg: t.reg, place: j.Destination, repo: t.repo}
		started := r.now()
		g, gctx := errgroup.WithContext(ctx)
		for _, side := range []*end{a, b} {
			g.Go(func() error { return side.look(gctx, j.Tag) })
		}
		base, err := r.journal.Base(ctx, j)
		if err := errors.Join(err, g.Wait()); err != nil {
			r.fail(ctx, j, err)
			return
		}
		r.step()
		if subject, fallback, ok := oci.CompanionSubject(j.Tag); ok && fallback {
			r.betweenReferrers(ctx, t, a, b, subject)
			return
		}
		m := between(a.digest, b.digest, base)
		if m == conflict {
			m = r.settleConflict(ctx, t, a, b)
		}
		if j.Flow == replicator.Ring && m == backward {
			if j.Digest != a.digest && j.Digest != b.digest && r.early(j, "neither side has what the event told of (yet)") {
				return
			}
			r.gone(j, "the destination is ahead; its push comes round by the other routes")
			return
		}
		switch m {
		case nothing:
			if a.digest == "" {
				if !r.early(j, "neither side has the tag (yet)") {
					r.gone(j, "neither side has the tag any more")
				}
				return
			}
			hollow := r.agree(ctx, t, a, b)
			if hollow == nil {
				return
			}
			if hollow == a {
				a, b = b, a
			}
		case conflict:
			r.conflict(ctx, t, a, b)
			return
		case backward:
			a, b = b, a
		}
		moved := r.flow(ctx, t, a, b, started, chase >= chases)
		if !moved {
			return
		}
	}
}

func (e *end) look(ctx context.Context, tag string) error {
	desc, err := e.repo.Resolve(ctx, tag)
	if err != nil && !errors.Is(err, oci.ErrNotFound) {
		return fmt.Errorf("read the tag at %s: %w", e.place.Registry, err)
	}
	e.digest = desc.Digest
	return nil
}

// flow brings what one end's tag names to the other; it tells whether the
// first end's tag moved on meanwhile.
func (r *run) flow(ctx context.Context, t *target, from, to *end, started time.Time, last bool) (moved bool) {
	way := *t
	way.reg, way.repo, way.place, way.present = to.reg, to.repo, to.place, to.digest
	if r.barred(ctx, &way, from.digest) {
		return false
	}
	root, err := from.repo.FetchManifest(ctx, from.digest.String())
	if err != nil {
		r.fail(ctx, t.job, err)
		return false
	}
	way.intent, way.looked = true, started
	way.route = r.routeBetween(t, from, to)
	way.record, way.known, err = r.journal.Record(ctx, to.place.Identity, to.place.Repository, t.job.Tag)
	if err != nil {
		r.fail(ctx, t.job, err)
		return false
	}
	d := delivery{
		src: from.reg, repo: from.repo, place: from.place, tag: t.job.Tag, root: root,
		seen: newSighting(from.digest, started), last: last,
	}
	if moved := r.deliver(ctx, d, []*target{&way}); len(moved) > 0 {
		return true
	}
	if o := r.outcome(t.job); o != nil && o.State == replicator.Done {
		if r.proveWanted(ctx, t, from) {
			r.fail(ctx, t.job, fmt.Errorf("%s lacks what it has given: %w", from.place, oci.ErrInterrupted))
		}
	}
	return false
}

// routeBetween is the route that goes from one end to the other, else the job's.
func (r *run) routeBetween(t *target, from, to *end) plan.Route {
	for _, candidate := range r.state.Rules.Routes() {
		if candidate.From != from.place.Registry {
			continue
		}
		for _, name := range candidate.To {
			if name != to.place.Registry {
				continue
			}
			if repo, err := r.state.Rules.Destination(candidate.Name, from.place.Repository); err == nil && repo == to.place.Repository {
				return candidate
			}
		}
	}
	return t.route
}

// agree ends a job whose two ends name the same: each end that a route wants
// the tag at is proven, and the shared digest is the new base. It gives an end
// that turns out to lack content, for the other to bring it there.
func (r *run) agree(ctx context.Context, t *target, a, b *end) (hollow *end) {
	out := journal.Outcome{
		ID: t.job.ID, Generation: t.job.Generation, State: replicator.Done, Counted: true,
		Digest: a.digest, Base: a.digest,
	}
	r.settled(t, a.digest, &out)
	r.set(out)
	for _, e := range []*end{a, b} {
		if o := r.outcome(t.job); o.Error == nil || o.Error.Kind == kindUnsettled {
			if r.proveWanted(ctx, t, e) {
				return e
			}
		}
	}
	return nil
}

// proveWanted reads an end back where one of the job's routes wants the tag
// there and no fresh record says that it is whole; it tells whether content is
// missing there.
func (r *run) proveWanted(ctx context.Context, t *target, e *end) (hollow bool) {
	wanted := false
	for _, w := range t.job.Wants {
		wanted = wanted || w.Destination == e.place.Registry
	}
	if !wanted {
		return false
	}
	record, known, err := r.journal.Record(ctx, e.place.Identity, e.place.Repository, t.job.Tag)
	if err != nil {
		r.fail(ctx, t.job, err)
		return false
	}
	proof := *t
	proof.place, proof.repo, proof.record, proof.known, proof.present = e.place, e.repo, record, known, e.digest
	if r.fresh(&proof, e.digest) {
		return false
	}
	report, err := verify.Image(ctx, e.repo, e.digest.String(), r.proof(ctx, e.place, nil))
	if err == nil && len(report.Missing) > 0 {
		r.lost(&proof, report)
		return true
	}
	if err == nil {
		err = r.unsound(&proof, report)
	}
	if err != nil {
		r.fail(ctx, t.job, fmt.Errorf("prove %s: %w", e.place, err))
		return false
	}
	other := t.job.Source
	if other == e.place {
		other = t.job.Destination
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	o := r.outcomes[t.job.ID]
	o.Records = append(o.Records, replicator.Record{
		Destination: e.place, Tag: t.job.Tag, Digest: e.digest, Source: other,
		Route: r.routeBetween(t, &end{place: other}, e).Name, PushedAt: t.job.PushedAt, ProvenAt: r.now(),
		Wrote: known && record.Wrote && record.Digest == e.digest, Bytes: report.Bytes,
	})
	return false
}

// settleConflict applies the route's policy; conflict where it asks a person.
func (r *run) settleConflict(ctx context.Context, t *target, a, b *end) move {
	policy := r.policy(t)
	switch {
	case policy.Prefer == a.place.Registry:
		return forward
	case policy.Prefer == b.place.Registry:
		return backward
	case policy.Conflict != "newest":
		return conflict
	}
	pushedA, okA := r.pushTime(ctx, a, t.job.Tag)
	pushedB, okB := r.pushTime(ctx, b, t.job.Tag)
	switch apart := pushedA.Sub(pushedB); {
	case !okA || !okB:
		return conflict
	case apart > newestApart:
		return forward
	case apart < -newestApart:
		return backward
	}
	return conflict
}

// policy is the route whose `conflict` counts: the first between the two ends
// that does not ask, in whichever direction it goes.
func (r *run) policy(t *target) plan.Route {
	for _, ends := range [][2]replicator.Place{{t.job.Source, t.job.Destination}, {t.job.Destination, t.job.Source}} {
		if route := r.routeBetween(t, &end{place: ends[0]}, &end{place: ends[1]}); route.Conflict == "newest" || route.Prefer != "" {
			return route
		}
	}
	return t.route
}

// pushTime is when a sender said that the end's tag came to name its digest.
func (r *run) pushTime(ctx context.Context, e *end, tag string) (time.Time, bool) {
	history, err := r.journal.History(ctx, e.place.Identity, e.place.Repository, tag, nil, 20)
	if err != nil {
		return time.Time{}, false
	}
	for _, state := range history { // newest first
		if state.Digest == e.digest {
			return state.At, state.Cause == causeTimed
		}
	}
	return time.Time{}, false
}

// conflict writes nothing that a tag names: both digests are copied untagged,
// so that whichever is chosen is there, and a finding asks a person.
func (r *run) conflict(ctx context.Context, t *target, a, b *end) {
	for _, way := range [][2]*end{{a, b}, {b, a}} {
		from, to := way[0], way[1]
		root, err := from.repo.FetchManifest(ctx, from.digest.String())
		if err != nil {
			r.fail(ctx, t.job, err)
			return
		}
		untagged := *t
		untagged.reg, untagged.repo, untagged.place = to.reg, to.repo, to.place
		request := r.request(ctx, delivery{src: from.reg, repo: from.repo, place: from.place, root: root}, []*target{&untagged})
		for _, result := range r.copier.Copy(request.ctx, request.Request) {
			if result.Err != nil {
				r.fail(ctx, t.job, result.Err)
				return
			}
		}
	}
	message := fmt.Sprintf("%s:%s names %s and %s:%s names %s, and neither is an older state of the other",
		a.place, t.job.Tag, a.digest, b.place, t.job.Tag, b.digest)
	hint := fmt.Sprintf("choose one: twinport resolve %s:%s --prefer %s|%s", a.place, t.job.Tag, a.place.Registry, b.place.Registry)
	f := r.finding(t.job, replicator.FindingConflict, message, hint)
	f.Digest = ""
	r.set(journal.Outcome{
		ID: t.job.ID, Generation: t.job.Generation, State: replicator.Waiting,
		NextAttempt: r.now().Add(conflictAgain),
		Error:       &replicator.JobError{Kind: "conflict", Message: message, Hint: hint},
		Findings:    []replicator.Finding{f},
	})
}

// betweenReferrers unites the referrers of a subject at both ends.
func (r *run) betweenReferrers(ctx context.Context, t *target, a, b *end, subject digest.Digest) {
	if a.digest == "" && b.digest == "" {
		if !r.early(t.job, "neither side has the tag (yet)") {
			r.gone(t.job, "neither side has the tag any more")
		}
		return
	}
	ways := [][2]*end{{a, b}}
	if t.job.Flow == replicator.TwoWay {
		ways = append(ways, [2]*end{b, a})
	}
	var records []replicator.Record
	for _, way := range ways {
		from, to := way[0], way[1]
		if from.digest == "" {
			continue
		}
		there := *t
		there.reg, there.repo, there.place, there.present = to.reg, to.repo, to.place, to.digest
		there.route = r.routeBetween(t, from, to)
		r.reopen(t.job)
		r.referrersOf(ctx, delivery{src: from.reg, repo: from.repo, place: from.place}, subject, from.digest, []*target{&there})
		o := r.outcome(t.job)
		if o == nil || o.State != replicator.Done {
			return
		}
		o.Records = append(o.Records, records...)
		records = o.Records
	}
	if r.outcome(t.job) == nil { // of a ring: what the destination has comes round
		r.gone(t.job, "the source does not have the tag")
	}
	if t.job.Digest != a.digest && t.job.Digest != b.digest {
		r.settleAll([]*target{t}, a.digest)
	}
}

// reopen makes a job that one half of the work has ended go on to the other;
// its findings are kept.
func (r *run) reopen(j replicator.Job) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if o := r.outcomes[j.ID]; o != nil {
		r.outcomes[j.ID] = &journal.Outcome{ID: j.ID, Generation: j.Generation, Findings: o.Findings, Distrust: o.Distrust}
	}
}
