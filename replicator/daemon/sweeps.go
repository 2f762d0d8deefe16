package daemon

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"sync"
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
	// laneFull is the backlog at which a sweep stops emitting (design, section 4).
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

// A sweepRequest asks for a sweep out of turn.
type sweepRequest struct{}

// askSweep makes a sweep of the route due, unless one is already asked for.
func (d *Daemon) askSweep(route string) {
	select {
	case d.sweepDoor(route) <- sweepRequest{}:
	default:
	}
}

func (d *Daemon) sweepDoor(route string) chan sweepRequest {
	d.mu.Lock()
	defer d.mu.Unlock()
	door, ok := d.sweepNow[route]
	if !ok {
		door = make(chan sweepRequest, 1)
		d.sweepNow[route] = door
	}
	return door
}

// schedule runs every route's sweeps until ctx ends; a reload starts it anew,
// and an interrupted sweep goes on from its cursor.
func (d *Daemon) schedule(ctx context.Context) error {
	for ctx.Err() == nil {
		reloaded := d.reloaded()
		rctx, cancel := context.WithCancel(ctx)
		var routes sync.WaitGroup
		for _, route := range d.State().Rules.Routes() {
			if route.Sweep == 0 {
				continue
			}
			routes.Add(1)
			go func() {
				defer routes.Done()
				d.sweeps(rctx, route)
			}()
		}
		routes.Add(1)
		go func() {
			defer routes.Done()
			d.watchDue(rctx)
		}()
		select {
		case <-ctx.Done():
		case <-reloaded:
		}
		cancel()
		routes.Wait()
	}
	return nil
}

// sweeps sweeps one route at start, on its schedule and when asked.
func (d *Daemon) sweeps(ctx context.Context, route plan.Route) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	door := d.sweepDoor(route.Name)
	for {
		select {
		case <-ctx.Done():
			return
		case <-door:
		case <-timer.C:
		}
		paused, err := d.journal.Paused(ctx)
		if err == nil && paused[route.Name] {
			timer.Reset(route.Sweep)
			continue
		}
		started := d.now()
		_, err = d.Sweep(ctx, SweepOptions{Route: route.Name})
		if ctx.Err() != nil {
			return
		}
		took := d.now().Sub(started)
		next := route.Sweep - took
		if err != nil {
			d.log.Warn("sweep", zap.String("route", route.Name), zap.Duration("elapsed", took), zap.Error(err))
			next = min(next, sweepRetry)
		}
		if took > route.Sweep {
			d.addFindings(ctx, []replicator.Finding{{
				Kind: replicator.FindingSlowSweep, At: d.now(), Route: route.Name,
				Message: fmt.Sprintf("a sweep took %s, longer than its interval of %s", took.Round(time.Second), route.Sweep),
				Hint:    "raise `sweep`, narrow the filters, or raise the registries' `limits`",
			}})
		}
		timer.Reset(max(next, sweepSpacing))
		select { // whatever asked meanwhile waits for the spacing
		case <-ctx.Done():
			return
		case <-time.After(sweepSpacing):
		}
	}
}

// watchDue turns the journal's marks (an event that could not be used) into
// sweeps, and notes when a route's first pass is proven.
func (d *Daemon) watchDue(ctx context.Context) {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		due, err := d.journal.SweepsDue(ctx)
		if err == nil {
			for _, registry := range due {
				for _, route := range d.State().Rules.Routes() {
					if route.From == registry {
						d.askSweep(route.Name)
					}
				}
				if err := d.journal.ClearSweepDue(ctx, registry); err != nil && ctx.Err() == nil {
					d.log.Warn("clear a due sweep", zap.Error(err))
				}
			}
		}
		d.noteSeeded(ctx)
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// noteSeeded marks the destinations whose first complete pass is proven.
func (d *Daemon) noteSeeded(ctx context.Context) {
	var open []replicator.SweepState
	for _, route := range d.State().Rules.Routes() {
		for _, to := range route.To {
			s, err := d.journal.SweepState(ctx, route.Name, to)
			if err == nil && !s.Seeded && !s.CompletedAt.IsZero() {
				open = append(open, s)
			}
		}
	}
	if len(open) == 0 {
		return
	}
	standings, err := d.journal.Standings(ctx)
	if err != nil {
		return
	}
	for _, s := range open {
		left := int64(0)
		for _, st := range standings {
			if st.Route == s.Route && st.Destination == s.Destination {
				left = st.Backfill
			}
		}
		if left > 0 {
			continue
		}
		if err := d.seeded(ctx, s.Route, s.Destination); err == nil {
			d.log.Info("first pass proven", zap.String("route", s.Route), zap.String("destination", s.Destination))
		}
	}
}

// seeded marks a destination's first pass as proven; whatever else a sweep has
// written of it meanwhile stays.
func (d *Daemon) seeded(ctx context.Context, route, destination string) error {
	d.seeding.Lock()
	defer d.seeding.Unlock()
	s, err := d.journal.SweepState(ctx, route, destination)
	if err != nil {
		return err
	}
	s.Seeded = true
	return d.journal.SaveSweepState(ctx, s)
}

// saveSwept writes a sweep's state; a first pass that was proven meanwhile stays so.
func (d *Daemon) saveSwept(ctx context.Context, s *replicator.SweepState) error {
	d.seeding.Lock()
	defer d.seeding.Unlock()
	now, err := d.journal.SweepState(ctx, s.Route, s.Destination)
	if err != nil {
		return err
	}
	s.Seeded = s.Seeded || now.Seeded
	return d.journal.SaveSweepState(ctx, *s)
}

// takeTurn waits until no other sweep of the route runs; over ends the turn.
func (d *Daemon) takeTurn(ctx context.Context, route string) (over func(), err error) {
	d.mu.Lock()
	turn, ok := d.sweeping[route]
	if !ok {
		turn = make(chan struct{}, 1)
		d.sweeping[route] = turn
	}
	d.mu.Unlock()
	select {
	case turn <- struct{}{}:
		return func() { <-turn }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

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
	Requests int64
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
	ctx = oci.WithTally(ctx, &requests)
	if !o.Manual {
		ctx = oci.WithBackground(ctx)
	}
	narrowed := o.OnlyRepository != "" || o.OnlyTag != ""
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
	req.Companions = func(repository string, tags []string) {
		place := replicator.Place{Registry: route.From, Identity: req.Source.Identity(), Repository: repository}
		d.companions.listed(place, tags, d.now())
	}
	req.Emit = func(ctx context.Context, found []sweep.Difference) error {
		return d.emit(ctx, st, route, o, states, found)
	}
	req.Void = func(ctx context.Context, place replicator.Place) error {
		return d.void(ctx, st, []replicator.Place{place})
	}
	req.Checkpoint = func(_ context.Context, cursor string) error {
		if d.now().Sub(lastSaved) < time.Second {
			return nil
		}
		lastSaved = d.now()
		return save(cursor)
	}
	result, err := sweep.Sweep(ctx, req)
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
	d.log.Info("swept", zap.String("route", route.Name), zap.Int64("tags", result.Tags),
		zap.Int64("differences", result.Emitted), zap.Int64("requests", report.Requests),
		zap.Duration("elapsed", d.now().Sub(started)), zap.Bool("complete", err == nil))
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

// emit turns differences into events, one for each source tag, and queues
// them; it waits while the lane is full.
func (d *Daemon) emit(ctx context.Context, st *State, route plan.Route, o SweepOptions, states map[string]*replicator.SweepState, found []sweep.Difference) error {
	type key struct {
		repository, tag string
		lane            replicator.Lane
	}
	now := d.now()
	byTag := make(map[key]*replicator.Event)
	var events []*replicator.Event
	for _, f := range found {
		s := states[f.Destination]
		lane := replicator.LaneSweep
		switch {
		case o.Manual:
			lane = replicator.LaneManual
		case !s.Seeded:
			lane = replicator.LaneBackfill
		}
		pushed := f.PushedAt
		if pushed.IsZero() {
			// The last complete sweep had not seen it; without one, we see it now.
			pushed = s.CompleteStart
		}
		if pushed.IsZero() || pushed.After(now) {
			pushed = now
		}
		k := key{f.SourceRepository, f.Tag, lane}
		ev, ok := byTag[k]
		if !ok {
			ev = &replicator.Event{
				Action: replicator.Push, Registry: route.From, Repository: f.SourceRepository, Tag: f.Tag, Digest: f.Digest,
				PushedAt: pushed, ReceivedAt: now, Lane: lane, Cause: "sweep: " + string(f.Reason), Full: o.Full,
			}
			byTag[k] = ev
			events = append(events, ev)
		}
		ev.Destinations = append(ev.Destinations, f.Destination)
		if f.Reason == sweep.Missing || f.Reason == sweep.LacksRepo {
			reg := st.Registries[f.Destination]
			d.absent.note(replicator.Place{Registry: f.Destination, Identity: reg.Client.Identity(), Repository: f.DestinationRepository}, f.Tag, now)
		}
	}
	if err := d.laneRoom(ctx); err != nil {
		return err
	}
	batch := make([]replicator.Event, len(events))
	for i, ev := range events {
		batch[i] = *ev
	}
	return d.acceptPatiently(ctx, batch)
}

// laneRoom waits while the lanes below webhook's are full.
func (d *Daemon) laneRoom(ctx context.Context) error {
	for {
		counts, err := d.journal.JobCounts(ctx)
		if err != nil {
			return err
		}
		waiting := int64(0)
		for lane, n := range counts[replicator.Waiting] {
			if lane != replicator.LaneWebhook {
				waiting += n
			}
		}
		if waiting < d.room {
			return nil
		}
		t := time.NewTimer(time.Second)
		select {
		case <-ctx.Done():
			t.Stop()
			return context.Cause(ctx)
		case <-t.C:
		}
	}
}

// void no longer believes what is recorded of places that lost it, nor
// anything else of their registries until it is proven again.
func (d *Daemon) void(ctx context.Context, st *State, places []replicator.Place) error {
	if len(places) == 0 {
		return nil
	}
	if err := d.journal.Void(ctx, places); err != nil {
		return err
	}
	lost := make(map[string]string)
	for _, p := range places {
		lost[p.Identity] = p.Registry
	}
	var findings []replicator.Finding
	for identity, name := range lost {
		if err := d.journal.Distrust(ctx, identity); err != nil {
			return err
		}
		findings = append(findings, replicator.Finding{
			Kind: replicator.FindingMissing, At: d.now(), Registry: name,
			Message: "the registry lacks tags that were proven there; nothing it holds is believed until it has been proven again",
			Hint:    "find out who removed them; they are copied again",
		})
		for _, route := range st.Rules.Routes() {
			if slices.Contains(route.To, name) {
				d.askSweep(route.Name)
			}
		}
	}
	d.addFindings(ctx, findings)
	return nil
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
