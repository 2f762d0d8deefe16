package daemon

import (
	"context"
	"slices"
	"time"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/plan"
	"github.com/twinport/twinport/replicator/sweep"
)

// emit turns differences into events, one for each source tag, and queues
// them; it waits while the lane is full.
func (d *Daemon) emit(ctx context.Context, st *State, route plan.Route, o SweepOptions, states map[string]*replicator.SweepState, found []sweep.Difference) error {
	type key struct {
		repository, tag string
		lane            replicator.Lane
	}
	now := d.now()
	found, err := d.withoutBacklog(ctx, found)
	if err != nil {
		return err
	}
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
				PushedAt: pushed, ReceivedAt: now, Lane: lane, Cause: causeSweep + string(f.Reason), Full: o.Full,
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

// backlog counts what waits in the lanes below webhook's.
func (d *Daemon) backlog(ctx context.Context) (waiting int64, err error) {
	counts, err := d.journal.JobCounts(ctx)
	if err != nil {
		return 0, err
	}
	for lane, n := range counts[replicator.Waiting] {
		if lane != replicator.LaneWebhook {
			waiting += n
		}
	}
	return waiting, nil
}

// withoutBacklog leaves out what waits for destinations that do not answer once
// the lanes are half full of waiting jobs: the rest is for those that do.
func (d *Daemon) withoutBacklog(ctx context.Context, found []sweep.Difference) ([]sweep.Difference, error) {
	unreached := func(f sweep.Difference) bool { return f.Reason == sweep.Unreached }
	if !slices.ContainsFunc(found, unreached) {
		return found, nil
	}
	waiting, err := d.backlog(ctx)
	if err == nil && waiting >= d.room/2 {
		found = slices.DeleteFunc(slices.Clone(found), unreached)
	}
	return found, err
}

// laneRoom waits while the lanes below webhook's are full.
func (d *Daemon) laneRoom(ctx context.Context) error {
	for {
		waiting, err := d.backlog(ctx)
		if err != nil {
			return err
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
