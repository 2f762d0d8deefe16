package daemon

import (
	"context"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/plan"
)

// A sweepRequest asks for a sweep out of turn.
type sweepRequest struct{}

// askSweep makes a sweep of the route due, unless one is already asked for.
func (d *Daemon) askSweep(route string) {
	if d.passOn(route) {
		return
	}
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

// schedule runs every route's sweeps, and the polls of registries that tell of
// nothing by themselves, until ctx ends; a reload starts it anew, and an
// interrupted sweep goes on from its cursor.
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
		for _, reg := range d.State().Registries {
			if reg.Poll > 0 {
				routes.Go(func() { d.poll(rctx, reg) })
			}
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
		report, err := d.Sweep(ctx, SweepOptions{Route: route.Name})
		if ctx.Err() != nil {
			return
		}
		took := d.now().Sub(started)
		next := route.Sweep - took
		if err != nil {
			d.log.Warn("sweep", zap.String("route", route.Name), zap.Duration("elapsed", took), zap.Error(err))
			if !d.awaits(report) {
				next = min(next, sweepRetry)
			}
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

// awaits tells whether all that kept a sweep from being complete are
// destinations that do not answer: what they lack is queued, and once they are
// back the route is swept anyway.
func (d *Daemon) awaits(report SweepReport) bool {
	if !report.Complete || len(report.Failed) == 0 {
		return false
	}
	for name := range report.Failed {
		reg, ok := d.State().Registries[name]
		if !ok {
			return false
		}
		if _, down := reg.Gate.Down(); !down {
			return false
		}
	}
	return true
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
	if err := d.seeding.take(ctx); err != nil {
		return err
	}
	defer d.seeding.give()
	s, err := d.journal.SweepState(ctx, route, destination)
	if err != nil {
		return err
	}
	s.Seeded = true
	return d.journal.SaveSweepState(ctx, s)
}

// saveSwept writes a sweep's state; a first pass that was proven meanwhile stays so.
func (d *Daemon) saveSwept(ctx context.Context, s *replicator.SweepState) error {
	if err := d.seeding.take(ctx); err != nil {
		return err
	}
	defer d.seeding.give()
	now, err := d.journal.SweepState(ctx, s.Route, s.Destination)
	if err != nil {
		return err
	}
	s.Seeded = s.Seeded || now.Seeded
	if now.CompletedAt.After(s.CompletedAt) { // by a sweep beside ours, on another replica
		s.CompletedAt, s.CompleteStart = now.CompletedAt, now.CompleteStart
	}
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
