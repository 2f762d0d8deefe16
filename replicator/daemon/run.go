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
	if t.job.Tag != "" {
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
