package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/journal"
	"github.com/twinport/twinport/replicator/oci"
	"github.com/twinport/twinport/replicator/plan"
)

// SyncOptions select what a sync brings to its end.
type SyncOptions struct {
	// Routes by name; none: all.
	Routes []string
	// OnlyRepository and OnlyTag narrow it to one repository or tag of the source.
	OnlyRepository, OnlyTag string
	// Full believes no record.
	Full bool
	// RetryFor is how long it goes on without any job ending before it leaves
	// the rest waiting.
	RetryFor time.Duration
}

// A SyncResult is what a sync did.
type SyncResult struct {
	// Copied counts tags that the destinations did not have, Moved those that
	// named something else.
	Copied, Moved int64
	// Deleted counts tags that were removed with their source's.
	Deleted int64
	// Refused and Failed count what is not proven at the end; Failed includes
	// what was left waiting.
	Refused, Failed int64
	// Bytes were written to destinations.
	Bytes int64
	// Requests were made of registries that are a route's source, and of the others.
	SourceRequests, DestinationRequests int64
	Elapsed                             time.Duration
	Findings                            []replicator.Finding
	// SweepErrors are comparisons that did not end complete.
	SweepErrors error
}

// InSync tells whether everything compared is proven now.
func (r SyncResult) InSync() bool {
	return r.Refused == 0 && r.Failed == 0 && r.SweepErrors == nil
}

// ErrUnknownRoute names a route the config does not have.
var ErrUnknownRoute = errors.New("no such route")

// routes resolves names, all routes where there are none.
func routes(st *State, names []string) ([]plan.Route, error) {
	if len(names) == 0 {
		return st.Rules.Routes(), nil
	}
	var list []plan.Route
	for _, name := range names {
		route, ok := st.Rules.Route(name)
		if !ok {
			return nil, fmt.Errorf("%w: %q", ErrUnknownRoute, name)
		}
		list = append(list, route)
	}
	return list, nil
}

// Sync sweeps routes and waits until what the sweeps found is copied and
// proven, or nothing has ended for RetryFor. The daemon must be running.
func (d *Daemon) Sync(ctx context.Context, o SyncOptions) (SyncResult, error) {
	selected, err := routes(d.State(), o.Routes)
	if err != nil {
		return SyncResult{}, err
	}
	started := d.now()
	before, beforeRequests := d.Totals(), d.requests(selected)
	paused, err := d.journal.Paused(ctx)
	if err != nil {
		return SyncResult{}, err
	}
	var result SyncResult
	running := selected[:0:0]
	for _, route := range selected {
		if paused[route.Name] {
			result.SweepErrors = errors.Join(result.SweepErrors, fmt.Errorf("route %s is paused: `twinport resume %s` lets it go on", route.Name, route.Name))
			continue
		}
		running = append(running, route)
	}
	result.SweepErrors = errors.Join(result.SweepErrors, d.compareAll(ctx, running, o, &result.Deleted))
	if ctx.Err() != nil {
		return result, context.Cause(ctx)
	}
	if err := d.drain(ctx, running, o.RetryFor); err != nil {
		return result, err
	}
	if err := d.left(ctx, selected, &result); err != nil {
		return result, err
	}
	d.noteSeeded(ctx)
	d.closeRepaired(ctx)
	after, afterRequests := d.Totals(), d.requests(selected)
	result.Copied, result.Moved = after.Copied-before.Copied, after.Moved-before.Moved
	for k, v := range after.CopiedBytes {
		result.Bytes += v - before.CopiedBytes[k]
	}
	result.SourceRequests = afterRequests.source - beforeRequests.source
	result.DestinationRequests = afterRequests.destination - beforeRequests.destination
	result.Elapsed = d.now().Sub(started)
	result.Findings, err = d.findingsSince(ctx, started, selected)
	return result, err
}

// compareAll sweeps routes side by side; its error says which comparisons are
// not complete, or that there was nothing to compare where one tag was asked for.
func (d *Daemon) compareAll(ctx context.Context, selected []plan.Route, o SyncOptions, deleted *int64) error {
	var g errgroup.Group
	errs := make([]error, len(selected))
	var compared, removed atomic.Int64
	for i, route := range selected {
		g.Go(func() error {
			report, err := d.comparePatiently(ctx, SweepOptions{
				Route: route.Name, OnlyRepository: o.OnlyRepository, OnlyTag: o.OnlyTag, Full: o.Full, Manual: true,
			}, o.RetryFor)
			compared.Add(report.Tags)
			removed.Add(report.Deletions.Removed)
			if err = errors.Join(err, report.Deletions.Errors); err != nil {
				errs[i] = fmt.Errorf("route %s: %w", route.Name, err)
			}
			return nil
		})
	}
	_ = g.Wait() // each route's error is kept beside the others'
	*deleted = removed.Load()
	err := errors.Join(errs...)
	if o.OnlyRepository != "" && compared.Load() == 0 && err == nil && len(selected) > 0 {
		what := o.OnlyRepository
		if o.OnlyTag != "" {
			what += ":" + o.OnlyTag
		}
		err = fmt.Errorf("no source has %s, or the filters leave it out: `twinport plan` gives the reasons", what)
	}
	return err
}

// comparePatiently sweeps again while it is a destination that does not answer,
// as long as patience lasts: a job would be tried again for as long.
func (d *Daemon) comparePatiently(ctx context.Context, o SweepOptions, patience time.Duration) (SweepReport, error) {
	removed := int64(0)
	for until := d.now().Add(patience); ; {
		report, err := d.Sweep(ctx, o)
		removed += report.Deletions.Removed
		report.Deletions.Removed = removed
		passing := len(report.Failed) > 0 && report.Sources == nil
		for _, failed := range report.Failed {
			passing = passing && (errors.Is(failed, oci.ErrUnreachable) || errors.Is(failed, oci.ErrInterrupted))
		}
		if !passing || !d.now().Add(compareAgain).Before(until) {
			return report, err
		}
		t := time.NewTimer(compareAgain)
		select {
		case <-ctx.Done():
			t.Stop()
			return report, err
		case <-t.C:
		}
	}
}

// compareAgain is the wait before a sync compares again with a destination
// that did not answer.
const compareAgain = 2 * time.Second

// drain waits until the routes have nothing waiting or running, or until no
// job has ended for patience and none runs.
func (d *Daemon) drain(ctx context.Context, selected []plan.Route, patience time.Duration) error {
	last, lastEnded := d.now(), d.Totals().Ended
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		waiting, running, err := d.pending(ctx, selected)
		if err != nil {
			return err
		}
		if waiting+running == 0 {
			return nil
		}
		if ended := d.Totals().Ended; ended != lastEnded {
			last, lastEnded = d.now(), ended
		}
		if f, b := d.running.counts(); f+b == 0 && d.now().Sub(last) > patience {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-ticker.C:
		}
	}
}

func (d *Daemon) pending(ctx context.Context, selected []plan.Route) (waiting, running int64, err error) {
	standings, err := d.journal.Standings(ctx)
	if err != nil {
		return 0, 0, err
	}
	for _, s := range standings {
		if slices.ContainsFunc(selected, func(r plan.Route) bool { return r.Name == s.Route }) {
			waiting += s.Counts[replicator.Waiting]
			running += s.Counts[replicator.Running]
		}
	}
	return waiting, running, nil
}

// left counts what is not proven at the end.
func (d *Daemon) left(ctx context.Context, selected []plan.Route, result *SyncResult) error {
	standings, err := d.journal.Standings(ctx)
	if err != nil {
		return err
	}
	for _, s := range standings {
		if slices.ContainsFunc(selected, func(r plan.Route) bool { return r.Name == s.Route }) {
			result.Refused += s.Counts[replicator.Refused]
			result.Failed += s.Counts[replicator.Failed] + s.Counts[replicator.Waiting] + s.Counts[replicator.Running]
		}
	}
	return nil
}

// findingsSince are the routes' findings told again or first since a time.
func (d *Daemon) findingsSince(ctx context.Context, since time.Time, selected []plan.Route) ([]replicator.Finding, error) {
	const most = 1000
	page, _, err := d.journal.Findings(ctx, journal.FindingFilter{Limit: most})
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(page, func(f replicator.Finding) bool {
		mine := f.Route == "" || slices.ContainsFunc(selected, func(r plan.Route) bool { return r.Name == f.Route })
		return f.At.Before(since) || !mine
	}), nil
}

type requestCounts struct{ source, destination int64 }

// requests are the totals of the routes' registries; one that is both source
// and destination counts as a source.
func (d *Daemon) requests(selected []plan.Route) requestCounts {
	var counts requestCounts
	isSource := make(map[string]bool)
	all := make(map[string]bool)
	for _, r := range selected {
		isSource[r.From] = true
		all[r.From] = true
		for _, to := range r.To {
			all[to] = true
		}
	}
	for name := range all {
		reg, ok := d.State().Registries[name]
		if !ok {
			continue
		}
		var n int64
		for _, made := range reg.Gate.Stats().Requests {
			n += made
		}
		if isSource[name] {
			counts.source += n
		} else {
			counts.destination += n
		}
	}
	return counts
}
