package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/journal"
	"github.com/twinport/twinport/replicator/oci"
	"github.com/twinport/twinport/replicator/plan"
	"github.com/twinport/twinport/replicator/verify"
)

// A run is one claim being worked on: one source, one or more destinations,
// one outcome for each job.
type run struct {
	*Daemon
	state *State
	claim journal.Claim
	log   *zap.Logger
	step  func() // progress was made

	mu       sync.Mutex
	outcomes map[string]*journal.Outcome
	// ended is called once the outcomes are written.
	ended []func()
}

// A target is one job on its way to one destination.
type target struct {
	job   replicator.Job
	route plan.Route
	place replicator.Place
	reg   *Registry
	repo  oci.Repository
	// present is what the tag names there now, empty where there is no such tag.
	present digest.Digest
	looked  time.Time // when present was read
	// seen is what the source's tag named when it was last read.
	seen   digest.Digest
	record replicator.Record
	known  bool // record is one
	// preserve: present is not ours and is kept under a tag of its own.
	preserve bool
	// intent: the other end may be pushed to as well, and the two share a base.
	intent bool
	// begun are moves of the tag whose end is not on record.
	begun []replicator.Intent
	// hollow: the tag is right and content is missing.
	hollow bool
	// asked: the source was asked for the root's referrers.
	asked bool
}

// process gives every job of the claim an outcome.
func (r *run) process(ctx context.Context) {
	first := r.claim.Jobs[0]
	src, ok := r.state.Registries[first.Source.Registry]
	if !ok || src.Client.Identity() != first.Source.Identity {
		for _, j := range r.claim.Jobs {
			r.later(j, "its source is not in the config")
		}
		return
	}
	_, _, companion := oci.CompanionSubject(first.Tag)
	switch {
	case first.Tag == "":
		r.byDigest(ctx, src, r.targets())
	case first.Flow != replicator.OneWay:
		for _, t := range r.targets() {
			r.between(ctx, src, t)
		}
	case companion:
		r.companion(ctx, src, r.targets())
	default:
		r.oneWay(ctx, src, r.targets())
	}
	for _, j := range r.claim.Jobs {
		if r.outcome(j) == nil { // every path must say how it ended
			r.fail(ctx, j, errors.New("the job ended without an outcome"))
		}
	}
}

// targets resolves each job's destination and route; what the present config
// lacks waits for a config that has it.
func (r *run) targets() []*target {
	var targets []*target
	for _, j := range r.claim.Jobs {
		reg, ok := r.state.Registries[j.Destination.Registry]
		if !ok || reg.Client.Identity() != j.Destination.Identity {
			r.later(j, "its destination is not in the config")
			continue
		}
		route, ok := r.state.Rules.Route(j.Wants[0].Route)
		if !ok {
			r.later(j, "its route is not in the config")
			continue
		}
		targets = append(targets, &target{
			job: j, route: route, place: j.Destination, reg: reg,
			repo: reg.Client.Repository(j.Destination.Repository),
		})
	}
	return targets
}

// look reads what is known of a target: its record, its refusal, and what its
// tag names now, unless a listing has just shown that it names nothing.
func (r *run) look(ctx context.Context, t *target) error {
	var err error
	t.record, t.known, err = r.journal.Record(ctx, t.place.Identity, t.place.Repository, t.job.Reference())
	if err != nil {
		return err
	}
	if t.known && t.job.Tag != "" {
		base, err := r.journal.Base(ctx, t.job)
		if err != nil {
			return err
		}
		t.begun = base.Intents
	}
	t.looked = r.now()
	// What is on record was put there after that listing, or is lost.
	if r.absent.recent(t.place, t.job.Tag, t.looked) && !t.known {
		t.present = ""
		return nil
	}
	desc, err := t.repo.Resolve(ctx, t.job.Tag)
	switch {
	case err == nil:
		t.present = desc.Digest
	case errors.Is(err, oci.ErrNotFound):
		t.present = ""
	default:
		return fmt.Errorf("read the tag at %s: %w", t.place.Registry, err)
	}
	return nil
}

// barred tells whether a person holds this tag at this digest, or this very
// digest was refused there before.
func (r *run) barred(ctx context.Context, t *target, d digest.Digest) bool {
	if t.job.HeldDigest != "" && t.job.HeldDigest == d {
		r.set(journal.Outcome{ID: t.job.ID, Generation: t.job.Generation, State: replicator.Held, Digest: d})
		return true
	}
	refusal, err := r.journal.Refusal(ctx, t.place.Identity, t.place.Repository, d.String(), r.state.Fingerprint)
	if err != nil || refusal == nil {
		return false
	}
	r.set(journal.Outcome{ID: t.job.ID, Generation: t.job.Generation, State: replicator.Refused, Digest: d, Error: refusal})
	return true
}

// each runs f for every target at once; an error is the target's own.
func (r *run) each(ctx context.Context, targets []*target, f func(context.Context, *target) error) []*target {
	var g errgroup.Group
	ok := make([]bool, len(targets))
	for i, t := range targets {
		g.Go(func() error {
			if err := f(oci.WithJob(ctx, t.job.ID), t); err != nil {
				r.fail(ctx, t.job, err)
				return nil
			}
			ok[i] = r.outcome(t.job) == nil
			return nil
		})
	}
	_ = g.Wait() // every error has become an outcome
	var left []*target
	for i, t := range targets {
		if ok[i] {
			left = append(left, t)
		}
	}
	return left
}

// byDigest brings a manifest that is wanted for itself, or as a referrer of
// something that is replicated.
func (r *run) byDigest(ctx context.Context, src *Registry, targets []*target) {
	if len(targets) == 0 {
		return
	}
	first := targets[0].job
	repo := src.Client.Repository(first.Source.Repository)
	root, err := repo.FetchManifest(ctx, first.Digest.String())
	if err != nil {
		targets = r.goneByDigest(ctx, src, targets, err)
		for _, t := range targets {
			if errors.Is(err, oci.ErrNotFound) {
				if r.pending(t.job, "the source does not have it (yet)") {
					continue
				}
				if t.job.Attempts >= 3 {
					r.gone(t.job, "the source no longer has it")
					continue
				}
			}
			r.fail(ctx, t.job, err)
		}
		return
	}
	r.step()
	refs, err := oci.ParseReferences(root)
	if err != nil {
		for _, t := range targets {
			r.fail(ctx, t.job, err)
		}
		return
	}
	from := delivery{src: src, repo: repo, place: first.Source, root: root}
	var whole, referrers []*target
	for _, t := range targets {
		if r.barred(ctx, t, root.Digest) {
			continue
		}
		switch {
		case t.route.Untagged && r.standsByDigest(ctx, from, t):
		case t.route.Untagged:
			whole = append(whole, t)
		case refs.Subject != nil && t.route.Referrers != "false":
			referrers = append(referrers, t)
		default:
			r.gone(t.job, "no tag and no subject: only `untagged: copy` carries it")
		}
	}
	if refs.Subject != nil {
		// Whether or not the source lists it: what is proven is this very manifest.
		whole = append(whole, r.each(ctx, referrers, func(ctx context.Context, t *target) error {
			if err := r.awaitSubject(ctx, t, refs.Subject.Digest); err != nil || r.outcome(t.job) != nil {
				return err
			}
			r.standsByDigest(ctx, from, t)
			return nil
		})...)
	}
	r.deliver(ctx, from, whole)
}

// standsByDigest proves a manifest that the destination has already: it is not
// pushed again, or registries that feed each other would tell of it forever.
func (r *run) standsByDigest(ctx context.Context, from delivery, t *target) bool {
	report, err := verify.Image(ctx, t.repo, from.root.Digest.String(), r.proof(ctx, t.place, nil))
	if err != nil || !report.Sound() {
		return false // the copy finds out what is wrong
	}
	t.present = from.root.Digest
	r.done(t, from, from.root.Digest, report.Bytes, nil)
	return true
}

// companion handles a tag that belongs to a subject: a referrers fallback
// index, or one of cosign's.
func (r *run) companion(ctx context.Context, src *Registry, targets []*target) {
	if len(targets) == 0 {
		return
	}
	first := targets[0].job
	subject, fallback, _ := oci.CompanionSubject(first.Tag)
	repo := src.Client.Repository(first.Source.Repository)
	if fallback {
		index, err := repo.Resolve(ctx, first.Tag)
		if err != nil {
			r.sourceLacks(ctx, repo, targets, err)
			return
		}
		r.referrersOf(ctx, delivery{src: src, repo: repo, place: first.Source}, subject, index.Digest, targets)
		r.settleAll(targets, index.Digest)
		return
	}
	// cosign's tags are images of their own that wait for their subject.
	r.oneWay(ctx, src, r.each(ctx, targets, func(ctx context.Context, t *target) error {
		return r.awaitSubject(ctx, t, subject)
	}))
}

// subjectTries bounds how often a companion waits for a subject that is not there.
const subjectTries = 6

// awaitSubject lets a companion pass once its subject is at the destination. A
// subject that does not come is one that no route carries.
func (r *run) awaitSubject(ctx context.Context, t *target, subject digest.Digest) error {
	_, err := t.repo.Resolve(ctx, subject.String())
	switch {
	case err == nil:
		return nil
	case !errors.Is(err, oci.ErrNotFound):
		return err
	case t.job.Attempts >= subjectTries:
		r.orphans.note(t.place, subject)
		r.gone(t.job, fmt.Sprintf("its subject %s is not replicated", subject))
		return nil
	}
	r.set(journal.Outcome{
		ID: t.job.ID, Generation: t.job.Generation, State: replicator.Waiting, Counted: true,
		NextAttempt: r.now().Add(backoff(t.job.ID, t.job.Attempts)),
		Error:       &replicator.JobError{Kind: "subject", Message: fmt.Sprintf("its subject %s is not at the destination yet", subject)},
	})
	return nil
}

// referrersOf brings what refers to a subject to the destinations that have
// the subject; proven is the digest whose arrival ends the jobs.
func (r *run) referrersOf(ctx context.Context, from delivery, subject, proven digest.Digest, targets []*target) {
	targets = r.each(ctx, targets, func(ctx context.Context, t *target) error {
		return r.awaitSubject(ctx, t, subject)
	})
	if len(targets) == 0 {
		return
	}
	root, err := from.repo.FetchManifest(ctx, subject.String())
	if errors.Is(err, oci.ErrNotFound) {
		// The source has lost the subject or never had it: what it lists is
		// wanted all the same where the subject is.
		root, err = targets[0].repo.FetchManifest(ctx, subject.String())
	}
	if err != nil {
		r.sourceLacks(ctx, from.repo, targets, err)
		return
	}
	from.root = root
	r.copyReferrers(ctx, from, targets, func(t *target, roots []digest.Digest) error {
		report, err := verify.Content(ctx, t.repo, root, r.proof(ctx, t.place, roots))
		if err != nil {
			return err
		}
		if err := r.unsound(t, report); err != nil {
			return err
		}
		t.present = proven // an index is united, not moved
		r.done(t, from, proven, report.Bytes, nil)
		return nil
	})
}

// sourceLacks ends jobs whose source answers that there is no such tag: for
// good only once a complete listing says so too.
func (r *run) sourceLacks(ctx context.Context, repo oci.Repository, targets []*target, err error) {
	if !errors.Is(err, oci.ErrNotFound) || len(targets) == 0 {
		for _, t := range targets {
			r.fail(ctx, t.job, err)
		}
		return
	}
	targets = slices.DeleteFunc(slices.Clone(targets), func(t *target) bool {
		return r.early(t.job, "the source does not have the tag (yet)")
	})
	if len(targets) == 0 {
		return
	}
	listed, lerr := false, error(nil)
	for tag, terr := range repo.Tags(ctx) {
		if errors.Is(terr, oci.ErrRepositoryUnknown) {
			break // gone as a whole, and its tags with it
		}
		if terr != nil {
			lerr = terr
			break
		}
		if tag.Name == targets[0].job.Tag {
			listed = true
			break
		}
	}
	var dangling []*target
	for _, t := range targets {
		switch {
		case lerr != nil:
			r.fail(ctx, t.job, fmt.Errorf("the source has no such tag, and its tags cannot be listed to be sure: %w", lerr))
		case listed:
			dangling = append(dangling, t)
		default:
			r.withdrawn(t)
		}
	}
	if len(dangling) > 0 {
		err = fmt.Errorf("the source lists the tag but does not give it: %w", err)
		for _, t := range r.lostAtSource(ctx, dangling, err) {
			r.fail(ctx, t.job, err)
		}
	}
}

// later gives a job back untouched: the present config does not serve it.
func (r *run) later(j replicator.Job, why string) {
	r.set(journal.Outcome{
		ID: j.ID, Generation: j.Generation, State: replicator.Waiting,
		NextAttempt: r.now().Add(time.Minute),
		Error:       &replicator.JobError{Kind: "config", Message: why},
	})
}

// gone ends a job that has nothing left to prove.
func (r *run) gone(j replicator.Job, why string) {
	r.set(journal.Outcome{
		ID: j.ID, Generation: j.Generation, State: replicator.Superseded,
		Error: &replicator.JobError{Kind: "gone", Message: why},
	})
}

// fail gives a job the outcome its error deserves.
func (r *run) fail(ctx context.Context, j replicator.Job, err error) {
	err = cause(ctx, err)
	if errors.Is(err, errHandedBack) {
		r.set(journal.Outcome{ID: j.ID, Generation: j.Generation, State: replicator.Waiting, NextAttempt: r.now()})
		return
	}
	if errors.Is(err, oci.ErrSourceIncomplete) && r.pending(j, bounded(err.Error())) {
		return
	}
	out := retry(j, err, r.now(), r.breakerOpen(j))
	if errors.Is(err, oci.ErrBlobUnknown) {
		// What was believed to be there is not: believe nothing of it.
		out.Void = []replicator.Place{j.Destination}
	}
	if out.State != replicator.Waiting || errors.Is(err, oci.ErrDenied) {
		if kind, ok := findingFor(err); ok && !r.told(j, kind) {
			out.Findings = append(out.Findings, r.finding(j, kind, out.Error.Message, out.Error.Hint))
		}
	}
	r.set(out)
}

// told tells whether a finding of the job has said the same already: the rooms
// below know better what is wrong, and where.
func (r *run) told(j replicator.Job, kind replicator.FindingKind) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	o := r.outcomes[j.ID]
	return o != nil && slices.ContainsFunc(o.Findings, func(f replicator.Finding) bool {
		return f.Kind == kind || kind == replicator.FindingMismatch && f.Kind == replicator.FindingCorrupt
	})
}

func (r *run) breakerOpen(j replicator.Job) bool {
	for _, name := range []string{j.Source.Registry, j.Destination.Registry} {
		if reg, ok := r.state.Registries[name]; ok {
			if _, down := reg.Gate.Down(); down {
				return true
			}
		}
	}
	return false
}

// finding fills in whose finding it is.
func (r *run) finding(j replicator.Job, kind replicator.FindingKind, message, hint string) replicator.Finding {
	return replicator.Finding{
		Kind: kind, At: r.now(), Route: j.Wants[0].Route,
		Registry: j.Destination.Registry, Repository: j.Destination.Repository, Tag: j.Tag, Digest: j.Digest,
		Message: bounded(message), Hint: hint,
	}
}

// set writes an outcome; findings and distrust gathered before it are kept.
func (r *run) set(o journal.Outcome) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if was := r.outcomes[o.ID]; was != nil {
		o.Findings = append(was.Findings, o.Findings...)
		o.Distrust = append(was.Distrust, o.Distrust...)
	}
	r.outcomes[o.ID] = &o
}

// outcome is a job's outcome, nil while it has none.
func (r *run) outcome(j replicator.Job) *journal.Outcome {
	r.mu.Lock()
	defer r.mu.Unlock()
	if o := r.outcomes[j.ID]; o != nil && o.State != "" {
		return o
	}
	return nil
}

// note keeps findings for a job that goes on.
func (r *run) note(j replicator.Job, findings ...replicator.Finding) {
	r.mu.Lock()
	defer r.mu.Unlock()
	o := r.begun(j)
	o.Findings = append(o.Findings, findings...)
}

// distrust has nothing of a registry believed once the job ends, however.
func (r *run) distrust(j replicator.Job, identity string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	o := r.begun(j)
	o.Distrust = append(o.Distrust, identity)
}

// begun is a job's outcome as far as it is known; the lock is held.
func (r *run) begun(j replicator.Job) *journal.Outcome {
	o := r.outcomes[j.ID]
	if o == nil {
		o = &journal.Outcome{ID: j.ID, Generation: j.Generation}
		r.outcomes[j.ID] = o
	}
	return o
}

func (r *run) list() []journal.Outcome {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := make([]journal.Outcome, 0, len(r.outcomes))
	for _, j := range r.claim.Jobs {
		if o := r.outcomes[j.ID]; o != nil {
			list = append(list, *o)
		}
	}
	return list
}
