package daemon

import (
	"context"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/api"
)

// JobCounts implements api.Gauge.
func (o Operator) JobCounts(ctx context.Context) (map[api.JobGroup]int64, error) {
	counts, err := o.journal.JobCounts(ctx)
	if err != nil {
		return nil, err
	}
	groups := make(map[api.JobGroup]int64, len(counts))
	for state, lanes := range counts {
		for lane, n := range lanes {
			groups[api.JobGroup{State: state, Lane: lane}] = n
		}
	}
	return groups, nil
}

// FindingTotals implements api.Gauge.
func (o Operator) FindingTotals(ctx context.Context) (map[replicator.FindingKind]int64, error) {
	return o.journal.FindingTotals(ctx)
}

// CopiedBytes implements api.Gauge.
func (o Operator) CopiedBytes() map[api.RouteDestination]int64 {
	out := make(map[api.RouteDestination]int64)
	for k, v := range o.Totals().CopiedBytes {
		out[api.RouteDestination(k)] = v
	}
	return out
}

// Deleted implements api.Gauge.
func (o Operator) Deleted() map[api.RouteDestination]int64 {
	out := make(map[api.RouteDestination]int64)
	for k, v := range o.Totals().Deleted {
		out[api.RouteDestination(k)] = v
	}
	return out
}

// Polled implements api.Gauge.
func (o Operator) Polled() map[string]api.Polled {
	out := make(map[string]api.Polled)
	for name, p := range o.Polls() {
		out[name] = api.Polled(p)
	}
	return out
}

// SpoolBytes implements api.Gauge.
func (o Operator) SpoolBytes() int64 { return o.copier.SpoolBytes() }

// JournalBytes implements api.Gauge.
func (o Operator) JournalBytes() int64 { return o.journal.Size() }
