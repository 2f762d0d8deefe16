package daemon

import (
	"context"
	"time"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/journal"
	"github.com/twinport/twinport/replicator/plan"
)

// An RPOState says how a route's promise stands at one destination.
type RPOState string

// The states of an RPO. Unknown is never met.
const (
	RPOMet     RPOState = "met"
	RPOMissed  RPOState = "missed"
	RPOUnknown RPOState = "unknown"
	RPOSeeding RPOState = "seeding"
	RPONone    RPOState = "none"
)

// RPOStates are all of them.
var RPOStates = []RPOState{RPOMet, RPOMissed, RPOUnknown, RPOSeeding, RPONone}

// A Status is where one destination of one route stands.
type Status struct {
	Route       plan.Route
	Destination string
	// Lag is now minus the earliest push no proof covers, 0 when there is none.
	Lag   time.Duration
	State RPOState
	// Reason is why the state is unknown or missed, else empty.
	Reason                                  string
	Waiting, Running, Failed, Refused, Held int64
	// Unconfirmed of the Proven were moved without their source.
	Proven, Unconfirmed int64
	// Remaining counts what is not proven: waiting, running, failed and refused.
	Remaining            int64
	LastSweep            time.Time // the last complete one; zero: none
	LastProof            time.Time // zero: none
	OldestProof          time.Time
	LastSweepRequests    int64
	SweepError           string
	Paused               bool
	SourceSeen           time.Time // when the source last answered a complete listing; zero: never
	SourceDown, DestDown bool
	// DeletesWaiting and DeletesHeld count tags that are gone at the source of a
	// route that carries deletions over.
	DeletesWaiting, DeletesHeld int64
	// SourceGone: the source has been silent for so long that what it had is
	// read elsewhere.
	SourceGone bool
}

// Statuses are all destinations of all routes, in the config's order.
func (d *Daemon) Statuses(ctx context.Context) ([]Status, error) {
	return Statuses(ctx, d.journal, d.State(), d.now())
}

// Statuses reads the same from a journal that another process writes.
func Statuses(ctx context.Context, j *journal.Journal, st *State, now time.Time) ([]Status, error) {
	standings, err := j.Standings(ctx)
	if err != nil {
		return nil, err
	}
	paused, err := j.Paused(ctx)
	if err != nil {
		return nil, err
	}
	by := make(map[RouteDestination]journal.Standing, len(standings))
	for _, s := range standings {
		by[RouteDestination{s.Route, s.Destination}] = s
	}
	var statuses []Status
	for _, route := range st.Rules.Routes() {
		for _, to := range route.To {
			swept, err := j.SweepState(ctx, route.Name, to)
			if err != nil {
				return nil, err
			}
			s := by[RouteDestination{route.Name, to}]
			status := Status{
				Route: route, Destination: to,
				Waiting: s.Counts[replicator.Waiting], Running: s.Counts[replicator.Running],
				Failed: s.Counts[replicator.Failed], Refused: s.Counts[replicator.Refused], Held: s.Counts[replicator.Held],
				Proven: s.Proven, Unconfirmed: s.Unconfirmed, LastProof: s.LastProof, OldestProof: s.OldestProof,
				LastSweep: swept.CompletedAt, LastSweepRequests: swept.Requests, SweepError: swept.Error,
				Paused: paused[route.Name], SourceSeen: swept.CompletedAt,
			}
			status.Remaining = status.Waiting + status.Running + status.Failed + status.Refused
			if !s.BehindSince.IsZero() {
				status.Lag = max(now.Sub(s.BehindSince), 0)
			}
			if r, ok := st.Registries[route.From]; ok && r.Gate != nil {
				_, status.SourceDown = r.Gate.Down()
				status.SourceGone = route.SourceGone > 0 && r.Gate.Silent() >= route.SourceGone
			}
			if r, ok := st.Registries[to]; ok && r.Gate != nil {
				_, status.DestDown = r.Gate.Down()
			}
			if r, ok := st.Registries[to]; ok && route.Deletes.Mirror {
				all, held, err := j.DepartureCounts(ctx, route.Name, r.Client.Identity())
				if err != nil {
					return nil, err
				}
				status.DeletesWaiting, status.DeletesHeld = all-held, held
			}
			status.State, status.Reason = rpoState(route, status, swept, now)
			statuses = append(statuses, status)
		}
	}
	return statuses, nil
}

// rpoState judges a promise. A lag beyond the RPO is a miss whatever else is
// unknown; while nothing was ever compared in full, it is seeding or unknown.
func rpoState(route plan.Route, s Status, swept replicator.SweepState, now time.Time) (RPOState, string) {
	failed := swept.FailedAt.After(swept.CompletedAt)
	switch {
	case route.RPO == 0:
		return RPONone, ""
	case s.Lag > route.RPO && (swept.Seeded || route.Sweep == 0):
		return RPOMissed, "a push has waited longer than the RPO"
	case route.Sweep == 0:
		return RPOUnknown, "`sweep: never`: nothing would tell of a push whose webhook was lost"
	case failed:
		return RPOUnknown, "the last sweep failed: " + swept.Error
	case !swept.Seeded:
		return RPOSeeding, ""
	case now.Sub(swept.CompletedAt) > 2*route.Sweep:
		return RPOUnknown, "the last complete sweep is older than twice `sweep`"
	}
	return RPOMet, ""
}
