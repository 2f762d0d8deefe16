package daemon

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	"go.uber.org/zap"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/journal"
	"github.com/twinport/twinport/replicator/oci"
	"github.com/twinport/twinport/replicator/plan"
	"github.com/twinport/twinport/replicator/sweep"
)

const (
	// laneFull is the backlog at which a sweep stops emitting.
	laneFull = 100_000
	// sweepSpacing lies between two sweeps of a route that are asked for out of turn.
	sweepSpacing = 2 * time.Second
	// cursorHolds is how long at least an interrupted sweep may go on from its
	// cursor instead of beginning anew.
	cursorHolds = time.Hour
	// sweepRetry is when a failed sweep is tried again, if its turn is not sooner.
	sweepRetry = 30 * time.Second
)

// errIncomplete says that a sweep did not see all of its source.
var errIncomplete = errors.New("the source's listing is not complete")

// SweepOptions select what a sweep compares.
type SweepOptions struct {
	Route string
	// OnlyRepository and OnlyTag narrow it; a narrowed sweep says nothing of
	// the route's completeness.
	OnlyRepository, OnlyTag string
	// Full believes no record.
	Full bool
	// Manual puts what it finds into the manual lane.
	Manual bool
}

// A SweepReport is what a sweep saw.
type SweepReport struct {
	sweep.Result
	Requests  int64
	Deletions Deletions
}

// Sweep compares a route's source with its destinations and queues what
// differs. An error says that the comparison is not complete.
func (d *Daemon) Sweep(ctx context.Context, o SweepOptions) (SweepReport, error) {
	st := d.State()
	route, ok := st.Rules.Route(o.Route)
	if !ok {
		return SweepReport{}, fmt.Errorf("route %q: %w", o.Route, journal.ErrUnknown)
	}
	var requests atomic.Int64
	ctx = oci.WithJob(oci.WithTally(ctx, &requests), "sweep "+route.Name)
	if !o.Manual {
		ctx = oci.WithBackground(ctx)
	}
	narrowed := o.OnlyRepository != "" || o.OnlyTag != ""
	began := d.now()
	if !narrowed {
		over, err := d.takeTurn(ctx, route.Name)
		if err != nil {
			return SweepReport{}, err
		}
		defer over()
	}
	states := make(map[string]*replicator.SweepState, len(route.To))
	started := d.now()
	cursor := ""
	for _, to := range route.To {
		s, err := d.journal.SweepState(ctx, route.Name, to)
		if err != nil {
			return SweepReport{}, err
		}
		states[to] = &s
		s.Route, s.Destination = route.Name, to
		if s.Cursor != "" && (o.Full || o.Manual || narrowed || started.Sub(s.StartedAt) > max(2*route.Sweep, cursorHolds)) {
			s.Cursor = "" // what lies before it is to be compared now
		}
		if s.Cursor != "" && (cursor == "" || s.Cursor < cursor) {
			cursor = s.Cursor
			started = s.StartedAt
		}
	}
	for _, s := range states {
		if s.Cursor == "" {
			cursor = "" // one that never began cannot go on from the others' place
			started = d.now()
		}
	}
	for _, s := range states {
		s.StartedAt = started
	}
	save := func(cursor string) error {
		if narrowed {
			return nil
		}
		for _, to := range route.To {
			states[to].Cursor = cursor
			if err := d.saveSwept(ctx, states[to]); err != nil {
				return err
			}
		}
		return nil
	}
	lastSaved := d.now()
	req := d.sweepRequestFor(st, route, o)
	req.Cursor = cursor
	// What is found for the first time is resolved by whoever copies it; later,
	// an event without a digest would disturb jobs that wait or were refused.
	req.Unresolved = o.Manual || slices.ContainsFunc(route.To, func(to string) bool { return !states[to].Seeded })
	// What a destination lacks waits for it, and counts as behind meanwhile.
	req.Unreached = !o.Manual
	req.Companions = func(repository string, tags []string) {
		place := replicator.Place{Registry: route.From, Identity: req.Source.Identity(), Repository: repository}
		d.companions.listed(place, tags, d.now())
	}
	// A loss is told once what was lost waits to be copied, so that nobody who
	// has read of it finds the route in sync.
	var losses []replicator.Finding
	req.Emit = func(ctx context.Context, found []sweep.Difference) error {
		if err := d.emit(ctx, st, route, o, states, found); err != nil {
			return err
		}
		losses = slices.DeleteFunc(losses, func(f replicator.Finding) bool {
			waits := slices.ContainsFunc(found, func(diff sweep.Difference) bool { return diff.Destination == f.Registry })
			if waits {
				d.addFindings(ctx, []replicator.Finding{f})
			}
			return waits
		})
		return nil
	}
	req.Void = func(ctx context.Context, place replicator.Place) error {
		lost, err := d.void(ctx, st, place)
		losses = append(losses, lost)
		return err
	}
	whole := cursor == "" && !narrowed
	req.GivenUp = d.orphans.known
	var waits *stalled
	var lacking *incompletes
	if whole {
		var err error
		if waits, err = d.stalledOf(ctx, st, route); err != nil {
			return SweepReport{}, err
		}
		if lacking, err = d.incompletesOf(ctx, st, route); err != nil {
			return SweepReport{}, err
		}
	}
	if waits != nil || lacking != nil {
		req.Listed = func(repository, tag string) {
			waits.listed(repository, tag, route.To)
			lacking.listed(repository, tag)
		}
		req.InSync = waits.inSync
	}
	var leaving *departing
	if route.Deletes.Mirror && !narrowed {
		leaving = d.departing(st, route, began)
		req.Departed = leaving.note
	}
	req.Checkpoint = func(_ context.Context, cursor string) error {
		if d.now().Sub(lastSaved) < time.Second {
			return nil
		}
		lastSaved = d.now()
		return save(cursor)
	}
	result, err := sweep.Sweep(ctx, req)
	if len(losses) > 0 { // of records that are void already, whoever is in a hurry
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closingWrite)
		d.addFindings(closing, losses)
		cancel()
	}
	report := SweepReport{Result: result, Requests: requests.Load()}
	if ctx.Err() != nil {
		return report, context.Cause(ctx)
	}
	d.addFindings(ctx, result.Findings)
	for _, failed := range slices.Sorted(maps.Keys(result.Failed)) {
		err = errors.Join(err, fmt.Errorf("%s: %w", failed, result.Failed[failed]))
	}
	if err == nil && !result.Complete && !narrowed {
		err = errors.Join(errIncomplete, result.Sources)
	}
	if narrowed {
		return report, err
	}
	for _, to := range route.To {
		s := states[to]
		s.Requests, s.Cursor = report.Requests, ""
		destErr := result.Failed[to]
		if destErr == nil && !result.Complete {
			destErr = errors.Join(err, result.Sources)
		}
		if destErr == nil && (result.Complete) {
			s.CompletedAt, s.CompleteStart, s.Tags, s.Error = d.now(), started, result.Tags, ""
		} else {
			s.FailedAt, s.Error = d.now(), bounded(fmt.Sprint(destErr))
		}
		if serr := d.saveSwept(ctx, s); serr != nil {
			err = errors.Join(err, serr)
		}
	}
	if result.Complete {
		d.closeGone(ctx, lacking)
	}
	if due := waits.due(); result.Complete && len(due) > 0 {
		err = errors.Join(err, d.journal.LookAgain(ctx, due))
	}
	if leaving != nil {
		if whole && result.Complete {
			report.Deletions = leaving.carry(ctx, result.Failed)
			if ctx.Err() != nil {
				return report, context.Cause(ctx)
			}
		}
		d.addFindings(ctx, leaving.findings())
	}
	d.log.Info("swept", zap.String("route", route.Name), zap.Int64("tags", result.Tags),
		zap.Int64("differences", result.Emitted), zap.Int64("requests", report.Requests),
		zap.Duration("elapsed", d.now().Sub(started)), zap.Bool("complete", err == nil))
	if err == nil {
		d.closeRepaired(ctx)
	}
	return report, err
}

// sweepRequestFor fills in what every sweep of a route needs.
func (d *Daemon) sweepRequestFor(st *State, route plan.Route, o SweepOptions) sweep.Request {
	src := st.Registries[route.From]
	req := sweep.Request{
		Route: route.Name, SourceName: route.From, Source: src.Client,
		Rules: st.Rules, Records: d.journal, Proof: route.Proof,
		Full: o.Full, OnlyRepository: o.OnlyRepository, OnlyTag: o.OnlyTag,
		FirstSeen: d.firstSeen, Now: d.now, TempDir: filepath.Dir(d.journal.Path()),
		Warm: func(registry string, n int) { st.Registries[registry].warm(n) },
	}
	if route.Referrers != "false" {
		req.ReferrersEvery = referrersEvery
	}
	for _, to := range route.To {
		req.Destinations = append(req.Destinations, sweep.Destination{Name: to, Registry: st.Registries[to].Client})
	}
	return req
}

// firstSeen is when the journal first knew a source tag to name a digest.
func (d *Daemon) firstSeen(ctx context.Context, source replicator.Place, tag string, digest digest.Digest) (time.Time, error) {
	states, err := d.journal.History(ctx, source.Identity, source.Repository, tag, nil, 1000)
	if err != nil {
		return time.Time{}, err
	}
	var first time.Time
	for _, s := range states {
		if s.Digest == digest && (first.IsZero() || s.At.Before(first)) {
			first = s.At
		}
	}
	return first, nil
}

// void no longer believes what is recorded of a place that lost it, nor
// anything else of its registry until it is proven again, and gives the finding
// to be told of that.
func (d *Daemon) void(ctx context.Context, st *State, place replicator.Place) (replicator.Finding, error) {
	lost := replicator.Finding{
		Kind: replicator.FindingMissing, At: d.now(), Registry: place.Registry,
		Message: "the registry lacks tags that were proven there; nothing it holds is believed until it has been proven again",
		Hint:    "find out who removed them; they are copied again",
	}
	err := d.journal.Void(ctx, []replicator.Place{place})
	if err == nil {
		err = d.journal.Distrust(ctx, place.Identity)
	}
	if err != nil {
		return lost, err
	}
	for _, route := range st.Rules.Routes() {
		if slices.Contains(route.To, place.Registry) {
			d.askSweep(route.Name)
		}
	}
	return lost, nil
}

func (d *Daemon) addFindings(ctx context.Context, findings []replicator.Finding) {
	if len(findings) == 0 {
		return
	}
	for _, f := range findings {
		d.log.Warn("finding", zap.String("kind", string(f.Kind)), zap.String("route", f.Route),
			zap.String("registry", f.Registry), zap.String("repository", f.Repository), zap.String("message", f.Message))
	}
	if err := d.journal.AddFindings(ctx, findings); err != nil && ctx.Err() == nil {
		d.log.Warn("write findings", zap.Error(err))
	}
}
