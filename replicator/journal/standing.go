package journal

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/twinport/twinport/replicator"
)

// Standings tells where each destination of each route stands, sorted by
// route and destination; a job that several routes want counts for each. It
// reads indexes alone.
func (j *Journal) Standings(ctx context.Context) ([]Standing, error) {
	c, err := j.names(ctx)
	if err != nil {
		return nil, err
	}
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
	err = j.counts(ctx, func(edgeID int64, state stateCode, lane replicator.Lane, n, behind int64) {
		for _, w := range c.edges[edgeID].wants {
			of(w).add(state.state(), lane, n, behind)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("standings: %w", err)
	}
	if err := j.provenCounts(ctx, c, of); err != nil {
		return nil, fmt.Errorf("standings: %w", err)
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

func (s *Standing) add(state replicator.JobState, lane replicator.Lane, n, behind int64) {
	s.Counts[state] += n
	if state == replicator.Waiting || state == replicator.Running {
		s.Lanes[lane] += n
	}
	if !state.Unproven() {
		return
	}
	if lane == replicator.LaneBackfill {
		s.Backfill += n
	}
	if at := fromMicros(behind); !at.IsZero() && (s.BehindSince.IsZero() || at.Before(s.BehindSince)) {
		s.BehindSince = at
	}
}

// counts gives number and earliest push of the rows of desired state by edge, state and lane.
func (j *Journal) counts(ctx context.Context, f func(edge int64, state stateCode, lane replicator.Lane, n, behind int64)) error {
	for edgeID := int64(0); ; {
		found, err := one(ctx, j.reads, sqlAllEdges, []any{edgeID}, &edgeID)
		if err != nil || !found {
			return err
		}
		for _, state := range liveStates {
			err := each(ctx, j.reads, sqlStanding, []any{edgeID, int64(state)}, func(scan scanner) error {
				var lane, n, behind int64
				if err := scan(&lane, &n, &behind); err != nil {
					return err
				}
				f(edgeID, state, replicator.Lane(lane), n, behind)
				return nil
			})
			if err != nil {
				return err
			}
		}
	}
}

// provenCounts adds the trusted records of each route and registry.
func (j *Journal) provenCounts(ctx context.Context, c *catalog, of func(replicator.Want) *Standing) error {
	route, registry := "", int64(0)
	for {
		found, err := one(ctx, j.reads, sqlRecordRoutes, []any{route, registry}, &route, &registry)
		if err != nil || !found {
			return err
		}
		r := c.registries[registry]
		var n, unconfirmed, oldest, last int64
		args := []any{route, registry, r.trust}
		if _, err := one(ctx, j.reads, sqlRecordCount, args, &n); err != nil {
			return err
		}
		if _, err := one(ctx, j.reads, sqlUnconfirmedCount, args, &unconfirmed); err != nil {
			return err
		}
		if _, err := one(ctx, j.reads, sqlRecordTimes, args, &oldest, &last); err != nil {
			return err
		}
		s := of(replicator.Want{Route: route, Destination: r.name})
		s.Proven += n
		s.Unconfirmed += unconfirmed
		if at := fromMicros(oldest); !at.IsZero() && (s.OldestProof.IsZero() || at.Before(s.OldestProof)) {
			s.OldestProof = at
		}
		if at := fromMicros(last); at.After(s.LastProof) {
			s.LastProof = at
		}
	}
}

// JobCounts counts the jobs of desired state (so neither done nor superseded)
// by state and lane, each once however many routes want it.
func (j *Journal) JobCounts(ctx context.Context) (map[replicator.JobState]map[replicator.Lane]int64, error) {
	all := map[replicator.JobState]map[replicator.Lane]int64{}
	for _, state := range liveStates {
		all[state.state()] = map[replicator.Lane]int64{}
	}
	err := j.counts(ctx, func(_ int64, state stateCode, lane replicator.Lane, n, _ int64) {
		all[state.state()][lane] += n
	})
	if err != nil {
		return nil, fmt.Errorf("count jobs: %w", err)
	}
	return all, nil
}
