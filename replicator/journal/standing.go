package journal

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/twinport/twinport/replicator"
)

// Standings tells where each destination of each route stands, sorted by
// route and destination; a job that several routes want counts for each. It
// takes as long for a million jobs as for ten.
func (j *Journal) Standings(ctx context.Context) ([]Standing, error) {
	var list []Standing
	err := j.snapshot(ctx, func(in *snapshot) (err error) {
		list, err = in.standings(ctx)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("standings: %w", err)
	}
	return list, nil
}

func (in *snapshot) standings(ctx context.Context) ([]Standing, error) {
	all := map[replicator.Want]*Standing{}
	of := func(w replicator.Want) *Standing {
		s := all[w]
		if s == nil {
			s = &Standing{Route: w.Route, Destination: w.Destination,
				Counts: map[replicator.JobState]int64{}, Lanes: map[replicator.Lane]int64{}}
			all[w] = s
		}
		return s
	}
	edges := map[int64]bool{}
	err := eachCount(ctx, in.db, func(g jobGroup, n int64) {
		state := g.state.state()
		for _, w := range in.catalog.edges[g.edge].wants {
			of(w).add(state, g.lane, n)
		}
		if state.Unproven() {
			edges[g.edge] = true
		}
	})
	if err == nil {
		err = in.behindSince(ctx, edges, of)
	}
	if err == nil {
		err = in.provenCounts(ctx, of)
	}
	if err != nil {
		return nil, err
	}
	list := make([]Standing, 0, len(all))
	for _, s := range all {
		list = append(list, *s)
	}
	slices.SortFunc(list, func(a, b Standing) int {
		return cmp.Or(cmp.Compare(a.Route, b.Route), cmp.Compare(a.Destination, b.Destination))
	})
	return list, nil
}

func (s *Standing) add(state replicator.JobState, lane replicator.Lane, n int64) {
	s.Counts[state] += n
	if state == replicator.Waiting || state == replicator.Running {
		s.Lanes[lane] += n
	}
	if state.Unproven() && lane == replicator.LaneBackfill {
		s.Backfill += n
	}
}

// behindSince adds the earliest push of each edge that no proof covers.
func (in *snapshot) behindSince(ctx context.Context, edges map[int64]bool, of func(replicator.Want) *Standing) error {
	for _, id := range slices.Sorted(maps.Keys(edges)) {
		var behind int64
		if _, err := one(ctx, in.db, sqlBehindSince, []any{id}, &behind); err != nil {
			return err
		}
		at := fromMicros(behind)
		for _, w := range in.catalog.edges[id].wants {
			if s := of(w); !at.IsZero() && (s.BehindSince.IsZero() || at.Before(s.BehindSince)) {
				s.BehindSince = at
			}
		}
	}
	return nil
}

// provenCounts adds the trusted records of each route and registry.
func (in *snapshot) provenCounts(ctx context.Context, of func(replicator.Want) *Standing) error {
	type group struct {
		route                           string
		registry, trust, n, unconfirmed int64
	}
	var groups []group
	err := each(ctx, in.db, sqlRecordCounts, nil, func(scan scanner) error {
		var g group
		err := scan(&g.route, &g.registry, &g.trust, &g.n, &g.unconfirmed)
		if r := in.catalog.registries[g.registry]; g.trust == r.trust {
			groups = append(groups, g)
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, g := range groups {
		var oldest, last int64
		if _, err := one(ctx, in.db, sqlRecordTimes, []any{g.route, g.registry, g.trust}, &oldest, &last); err != nil {
			return err
		}
		s := of(replicator.Want{Route: g.route, Destination: in.catalog.registries[g.registry].name})
		s.Proven += g.n
		s.Unconfirmed += g.unconfirmed
		if at := fromMicros(oldest); !at.IsZero() && (s.OldestProof.IsZero() || at.Before(s.OldestProof)) {
			s.OldestProof = at
		}
		if at := fromMicros(last); at.After(s.LastProof) {
			s.LastProof = at
		}
	}
	return nil
}

// JobCounts counts the jobs of desired state (so neither done nor superseded)
// by state and lane, each once however many routes want it.
func (j *Journal) JobCounts(ctx context.Context) (map[replicator.JobState]map[replicator.Lane]int64, error) {
	all := map[replicator.JobState]map[replicator.Lane]int64{}
	for _, state := range liveStates {
		all[state.state()] = map[replicator.Lane]int64{}
	}
	err := eachCount(ctx, j.reads, func(g jobGroup, n int64) {
		if lanes := all[g.state.state()]; lanes != nil {
			lanes[g.lane] += n
		}
	})
	if err != nil {
		return nil, fmt.Errorf("count jobs: %w", err)
	}
	return all, nil
}
