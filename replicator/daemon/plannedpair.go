package daemon

import (
	"context"
	"fmt"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/plan"
	"github.com/twinport/twinport/replicator/sweep"
)

// plannedBetween says what a sync would do about a tag that differs at two ends
// which feed each other, the way a job decides it: action is refuse for a
// conflict that asks a person, skip where it is the other end that has moved,
// and empty where this route brings it.
func (d *Daemon) plannedBetween(ctx context.Context, st *State, route plan.Route, f sweep.Difference) (action, reason string, err error) {
	now := d.now()
	decision := st.Rules.Jobs(replicator.Event{
		Action: replicator.Push, Registry: route.From, Repository: f.SourceRepository, Tag: f.Tag, Digest: f.Digest,
		PushedAt: now, ReceivedAt: now, Lane: replicator.LaneManual, Cause: "plan", Destinations: []string{f.Destination},
	})
	for _, j := range decision.Jobs {
		from, to := j.Source, j.Destination
		ours := from.Registry == route.From && from.Repository == f.SourceRepository &&
			to.Registry == f.Destination && to.Repository == f.DestinationRepository
		theirs := to.Registry == route.From && to.Repository == f.SourceRepository &&
			from.Registry == f.Destination && from.Repository == f.DestinationRepository
		if j.Flow == replicator.OneWay || !ours && !theirs {
			continue
		}
		a, b := &end{place: from, digest: f.Digest}, &end{place: to, digest: f.Present}
		if theirs {
			a.digest, b.digest = b.digest, a.digest
		}
		base, err := d.journal.Base(ctx, j)
		if err != nil {
			return "", "", err
		}
		m := between(a.digest, b.digest, base)
		if m == conflict {
			r := &run{Daemon: d, state: st}
			m = r.settleConflict(ctx, &target{job: j, route: route}, a, b)
		}
		switch {
		case m == conflict:
			return "refuse", "conflict: both ends have moved; `twinport resolve` settles it", nil
		case (m == forward) != ours:
			return "skip", fmt.Sprintf("%s is ahead; its route brings it here", f.Destination), nil
		}
		return "", "", nil
	}
	return "", "", nil
}
