package daemon

import (
	"context"
	"fmt"

	"go.uber.org/zap"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/plan"
)

// renameSample is how many of a vanished route's records have to fit the one
// that takes its place.
const renameSample = 500

// followRenamed gives what was proven under the name of a route that the config
// no longer has to the one that does the same: from the same registry to the
// same destination, and with its own filters and rename taking each of the
// records to where it is. Otherwise nothing counts as proven by the new name
// until proofs age.
func (d *Daemon) followRenamed(ctx context.Context, st *State) error {
	standings, err := d.journal.Standings(ctx)
	if err != nil {
		return err
	}
	for _, s := range standings {
		reg, ok := st.Registries[s.Destination]
		if _, there := st.Rules.Route(s.Route); there || !ok || s.Proven == 0 || s.Route == "" {
			continue
		}
		identity := reg.Client.Identity()
		sample, err := d.journal.RouteRecords(ctx, s.Route, identity, renameSample)
		if err != nil {
			return err
		}
		route, ok := successorOf(st, s.Destination, sample)
		if !ok {
			continue
		}
		n, err := d.journal.RenameRoute(ctx, s.Route, route.Name, identity)
		if err != nil {
			return err
		}
		if err := d.followSweeps(ctx, s.Route, route.Name, s.Destination); err != nil {
			return err
		}
		d.log.Info("what one route proved counts for the one that took its place",
			zap.String("was", s.Route), zap.String("route", route.Name), zap.String("destination", s.Destination), zap.Int64("records", n))
	}
	return nil
}

// successorOf is the one route that would have written all the records; none
// where several would.
func successorOf(st *State, destination string, records []replicator.Record) (found plan.Route, ok bool) {
	for _, route := range st.Rules.Routes() {
		fits := len(records) > 0
		for _, rec := range records {
			fits = fits && wouldWrite(st, route, destination, rec)
		}
		if !fits {
			continue
		}
		if ok {
			return plan.Route{}, false
		}
		found, ok = route, true
	}
	return found, ok
}

func wouldWrite(st *State, route plan.Route, destination string, rec replicator.Record) bool {
	src, there := st.Registries[route.From]
	if !there || src.Client.Identity() != rec.Source.Identity {
		return false
	}
	to := false
	for _, name := range route.To {
		to = to || name == destination
	}
	selected, _ := st.Rules.Selects(route.Name, rec.Source.Repository)
	target, err := st.Rules.Destination(route.Name, rec.Source.Repository)
	if !to || !selected || err != nil || target != rec.Destination.Repository {
		return false
	}
	if rec.Tag == "" {
		return true
	}
	selected, _ = st.Rules.SelectsTag(route.Name, rec.Tag)
	return selected
}

// followSweeps has a route go on from the sweeps of its former name.
func (d *Daemon) followSweeps(ctx context.Context, was, name, destination string) error {
	before, err := d.journal.SweepState(ctx, was, destination)
	if err != nil {
		return fmt.Errorf("sweeps of route %s: %w", was, err)
	}
	now, err := d.journal.SweepState(ctx, name, destination)
	if err != nil {
		return fmt.Errorf("sweeps of route %s: %w", name, err)
	}
	if now.Seeded || !now.CompletedAt.IsZero() || !before.Seeded {
		return nil
	}
	before.Route, before.Destination, before.Cursor = name, destination, ""
	return d.journal.SaveSweepState(ctx, before)
}
