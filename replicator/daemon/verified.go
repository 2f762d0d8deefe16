package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/oci"
	"github.com/twinport/twinport/replicator/plan"
	"github.com/twinport/twinport/replicator/sweep"
	"github.com/twinport/twinport/replicator/verify"
)

// verifySideBySide bounds how many images are read back at once.
const verifySideBySide = 16

// A VerifyResult is what reading destinations back has shown.
type VerifyResult struct {
	Checked          int64
	Missing, Corrupt []Verified
	// Errors are destinations that could not be asked.
	Errors error
}

// Verified names what a destination lacks or holds damaged.
type Verified struct {
	Place  replicator.Place
	Tag    string
	Digest digest.Digest
}

// maxVerified bounds the lists of a result; what is over it is still counted
// as a finding each.
const maxVerified = 10_000

// An expectation is one tag or digest that ought to be at a destination.
type expectation struct {
	route  plan.Route
	place  replicator.Place
	repo   oci.Repository
	tag    string
	digest digest.Digest
	record replicator.Record
	known  bool
}

// Verify reads destinations back: everything on record of the routes, or,
// where nothing is on record, what the sources want there. deep hashes every
// byte. What is missing or corrupt loses its record and becomes a finding.
func (d *Daemon) Verify(ctx context.Context, names []string, deep bool) (VerifyResult, error) {
	selected, err := routes(d.State(), names)
	if err != nil {
		return VerifyResult{}, err
	}
	v := &verification{Daemon: d, state: d.State(), deep: deep}
	for _, route := range selected {
		for _, to := range route.To {
			if err := v.destination(ctx, route, to); err != nil {
				if ctx.Err() != nil {
					return v.result, context.Cause(ctx)
				}
				v.failed(fmt.Errorf("route %s at %s: %w", route.Name, to, err))
			}
		}
	}
	return v.result, nil
}

type verification struct {
	*Daemon
	state *State
	deep  bool

	mu     sync.Mutex
	result VerifyResult
}

func (v *verification) destination(ctx context.Context, route plan.Route, to string) error {
	reg := v.state.Registries[to]
	identity := reg.Client.Identity()
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(verifySideBySide)
	found := false
	check := func(e expectation) {
		found = true
		g.Go(func() error { return v.check(gctx, e) })
	}
	after := ""
	for {
		repositories, err := v.journal.RecordRepositories(gctx, identity, after, 1000)
		if err != nil {
			return errors.Join(err, g.Wait())
		}
		for _, repository := range repositories {
			if err := v.recorded(gctx, route, reg, repository, check); err != nil {
				return errors.Join(err, g.Wait())
			}
		}
		if len(repositories) < 1000 {
			break
		}
		after = repositories[len(repositories)-1]
	}
	if !found {
		if err := v.wanted(gctx, route, to, check); err != nil {
			return errors.Join(err, g.Wait())
		}
	}
	return g.Wait()
}

// recorded checks what is on record of one repository: its tags, then what is
// wanted there by digest alone.
func (v *verification) recorded(ctx context.Context, route plan.Route, reg *Registry, repository string, check func(expectation)) error {
	const page = 1000
	place := replicator.Place{Registry: reg.Name, Identity: reg.Client.Identity(), Repository: repository}
	for _, list := range []func(context.Context, string, string, string, int) ([]replicator.Record, error){
		v.journal.Records, v.journal.UntaggedRecords,
	} {
		after := ""
		for {
			records, err := list(ctx, place.Identity, repository, after, page)
			if err != nil {
				return err
			}
			for _, record := range records {
				if after = record.Tag; after == "" {
					after = record.Digest.String()
				}
				if record.Route == route.Name {
					check(expectation{
						route: route, place: place, repo: reg.Client.Repository(repository),
						tag: record.Tag, digest: record.Digest, record: record, known: true,
					})
				}
			}
			if len(records) < page {
				break
			}
		}
	}
	return nil
}

// wanted checks what the source wants there, since nothing is on record.
func (v *verification) wanted(ctx context.Context, route plan.Route, to string, check func(expectation)) error {
	req := v.sweepRequestFor(v.state, route, SweepOptions{Route: route.Name, Full: true})
	req.Destinations = slices.DeleteFunc(req.Destinations, func(d sweep.Destination) bool { return d.Name != to })
	reg := v.state.Registries[to]
	req.Emit = func(_ context.Context, found []sweep.Difference) error {
		for _, f := range found {
			place := replicator.Place{Registry: to, Identity: reg.Client.Identity(), Repository: f.DestinationRepository}
			check(expectation{
				route: route, place: place, repo: reg.Client.Repository(f.DestinationRepository), tag: f.Tag, digest: f.Digest,
			})
		}
		return nil
	}
	result, err := sweep.Sweep(ctx, req)
	if err == nil {
		err = result.Failed[to]
	}
	if err == nil && !result.Complete {
		err = errors.Join(errIncomplete, result.Sources)
	}
	return err
}

// check reads one image back. A destination that cannot be asked is an error
// of the result; only the end of ctx ends the others.
func (v *verification) check(ctx context.Context, e expectation) error {
	reference := e.tag
	if reference == "" {
		reference = e.digest.String()
	}
	var report verify.Report
	desc, err := e.repo.Resolve(ctx, reference)
	if err == nil {
		if e.tag != "" && desc.Digest != e.digest {
			if _, fallback, ok := oci.CompanionSubject(e.tag); !ok || !fallback {
				// Somebody moved the tag: what was proven there is looked up by
				// its digest, since its content may still be whole.
				reference = e.digest.String()
			}
		}
		report, err = verify.Image(ctx, e.repo, reference, verify.Options{Deep: v.deep})
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	v.mu.Lock()
	v.result.Checked++
	v.mu.Unlock()
	switch {
	case errors.Is(err, oci.ErrNotFound) && v.removed(ctx, e):
	case errors.Is(err, oci.ErrNotFound):
		v.damaged(ctx, e, replicator.FindingMissing, e.digest)
	case err != nil:
		v.failed(fmt.Errorf("%s:%s: %w", e.place, reference, err))
	case len(report.Corrupt) > 0:
		for _, fault := range report.Corrupt {
			v.damaged(ctx, e, replicator.FindingCorrupt, fault.Digest)
		}
	case len(report.Missing) > 0:
		for _, fault := range report.Missing {
			v.damaged(ctx, e, replicator.FindingMissing, fault.Digest)
		}
	case e.known && desc.Digest == e.digest:
		e.record.ProvenAt, e.record.Bytes = v.now(), report.Bytes
		if err := v.journal.SaveRecords(ctx, []replicator.Record{e.record}); err != nil && ctx.Err() == nil {
			v.failed(fmt.Errorf("write the proof of %s:%s: %w", e.place, reference, err))
		}
	}
	return nil
}

// removed tells whether a tag has lost its record since it was read: it was
// removed with its source's, which is no damage.
func (v *verification) removed(ctx context.Context, e expectation) bool {
	if !e.known || e.tag == "" || !e.route.Deletes.Mirror {
		return false
	}
	_, known, err := v.journal.Record(ctx, e.place.Identity, e.place.Repository, e.tag)
	return err == nil && !known
}

// damaged notes what is missing or corrupt and stops believing its record; a
// corrupt image is not copied again by itself, since registries keep damaged
// bytes even when they are pushed anew.
func (v *verification) damaged(ctx context.Context, e expectation, kind replicator.FindingKind, what digest.Digest) {
	v.mu.Lock()
	list := &v.result.Missing
	if kind == replicator.FindingCorrupt {
		list = &v.result.Corrupt
	}
	if len(*list) < maxVerified {
		*list = append(*list, Verified{Place: e.place, Tag: e.tag, Digest: what})
	}
	v.mu.Unlock()
	hint := "the next sync or sweep copies it again"
	if kind == replicator.FindingCorrupt {
		hint = corruptHint
	}
	v.addFindings(ctx, []replicator.Finding{{
		Kind: kind, At: v.now(), Route: e.route.Name, Registry: e.place.Registry, Repository: e.place.Repository,
		Tag: e.tag, Digest: what, Message: fmt.Sprintf("%s:%s: %s is %s", e.place, e.tag, what, kind), Hint: hint,
	}})
	v.suspects.forget()
	// Queued before the records go, so that at no moment nothing is waiting and
	// all seems well; and again after, for a job that still believed one.
	v.behind(ctx, e)
	if err := v.journal.Void(ctx, []replicator.Place{e.place}); err != nil && ctx.Err() == nil {
		v.failed(err)
	}
	v.behind(ctx, e)
	v.askSweep(e.route.Name) // the rest of the repository has lost its records, too
}

// behind queues what was found damaged, so that it counts as behind from now on
// until it is proven again.
func (v *verification) behind(ctx context.Context, e expectation) {
	if !e.known || e.record.Source.Repository == "" {
		return // never proven: the sweep finds it
	}
	now := v.now()
	err := v.acceptPatiently(ctx, []replicator.Event{{
		Action: replicator.Push, Registry: e.route.From, Repository: e.record.Source.Repository, Tag: e.tag, Digest: e.digest,
		PushedAt: now, ReceivedAt: now, Lane: replicator.LaneManual, Cause: causeVerify, Destinations: []string{e.place.Registry},
	}})
	if err != nil && ctx.Err() == nil {
		v.failed(fmt.Errorf("queue %s:%s: %w", e.place, e.tag, err))
	}
}

func (v *verification) failed(err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.result.Errors = errors.Join(v.result.Errors, err)
}
