package daemon

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/oci"
	"github.com/twinport/twinport/replicator/plan"
	"github.com/twinport/twinport/replicator/sweep"
)

// shortestStep is the least that time between two listings counts at most.
const shortestStep = time.Hour

// longestStep is how much of the time between two listings counts as missing:
// a clock that jumps, or a daemon that slept, ends no grace by itself.
func longestStep(route plan.Route) time.Duration {
	return max(2*route.Sweep, route.Deletes.Grace/3, shortestStep)
}

// graceOf is how long a tag has to be missing: never less than a source of
// several replicas may take to show a push on all of them.
func graceOf(st *State, route plan.Route) time.Duration {
	if slow, ok := st.Registries[route.From].Client.(oci.Settler); ok {
		return max(route.Deletes.Grace, slow.Settles())
	}
	return route.Deletes.Grace
}

// A departing notes, while a route is swept, what is gone at its source.
type departing struct {
	*Daemon
	st    *State
	route plan.Route
	// began is before the sweep's first request: what it misses is seen from then on.
	began time.Time
	grace time.Duration
	// due, in a plan, is told of each tag whose grace has passed, and pending of
	// the others; nothing is written then.
	due, pending func(replicator.Departure)

	mu    sync.Mutex
	found []replicator.Finding
	told  map[replicator.Finding]bool
}

func (d *Daemon) departing(st *State, route plan.Route, began time.Time) *departing {
	return &departing{Daemon: d, st: st, route: route, began: began, grace: graceOf(st, route), told: make(map[replicator.Finding]bool)}
}

// maxHeldFindings bounds what one run tells of tags that are kept; the rest is
// the next run's to tell.
const maxHeldFindings = 200

// held notes a finding, equal ones once.
func (n *departing) held(f replicator.Finding) {
	f.Kind, f.Route = replicator.FindingDeleteHeld, n.route.Name
	key := f
	key.Message = ""
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.told[key] || len(n.found) >= maxHeldFindings {
		return
	}
	n.told[key] = true
	f.At, f.Message = n.now(), bounded(f.Message)
	n.found = append(n.found, f)
}

func (n *departing) findings() []replicator.Finding {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.found
}

// note takes what a sweep tells of one repository at one destination: how long
// each tag has been missing is the journal's to know.
func (n *departing) note(ctx context.Context, d sweep.Departed) error {
	if d.Empty {
		n.emptied(d)
		return nil // its tags are neither gone nor back: nobody knows
	}
	var list []replicator.Departure
	for _, record := range d.Records {
		if _, fallback, _ := oci.CompanionSubject(record.Tag); fallback {
			continue // it lists what both sides have, and is nobody's alone
		}
		if record.Route != n.route.Name {
			n.anothers(d, record)
			continue
		}
		list = append(list, replicator.Departure{
			Route: n.route.Name, Destination: d.Place, Tag: record.Tag, Source: record.Source, Digest: record.Digest,
		})
	}
	if n.due != nil {
		return n.foresee(ctx, list)
	}
	if len(list) > 0 {
		if err := n.journal.Depart(ctx, list, n.now(), longestStep(n.route)); err != nil {
			return err
		}
	}
	if d.Last {
		return n.journal.Return(ctx, n.route.Name, d.Place, n.began)
	}
	return nil
}

// foresee tells what note would make of departures, and writes nothing.
func (n *departing) foresee(ctx context.Context, list []replicator.Departure) error {
	now := n.now()
	for _, d := range list {
		known, ok, err := n.journal.Departure(ctx, d.Route, d.Destination, d.Tag)
		switch {
		case err != nil:
			return err
		case ok && known.Digest == d.Digest && known.Source == d.Source:
			known.Absent += min(max(now.Sub(known.SeenAt), 0), longestStep(n.route))
			d = known
		default:
			d.Since = now
		}
		if ok && d.Absent >= n.grace {
			n.due(d)
		} else {
			n.pending(d)
		}
	}
	return nil
}

// emptied tells of a repository that the source lists no tag of.
func (n *departing) emptied(d sweep.Departed) {
	ours := 0
	for _, record := range d.Records {
		if record.Route == n.route.Name {
			ours++
		}
	}
	if ours == 0 {
		return
	}
	n.held(replicator.Finding{
		Registry: d.Place.Registry, Repository: d.Place.Repository,
		Message: fmt.Sprintf("%s lists no tag of %s any more, or has no such repository; what %s holds of it is kept, since nothing is removed because of an empty listing",
			n.route.From, d.SourceRepository, d.Place),
		Hint: "if it was deleted on purpose, delete it by hand at the destination; else look at the source and its address",
	})
}

// anothers tells of a tag whose route is no more.
func (n *departing) anothers(d sweep.Departed, record replicator.Record) {
	if _, ok := n.st.Rules.Route(record.Route); ok {
		return // it is that route's to carry over
	}
	n.held(replicator.Finding{
		Registry: d.Place.Registry, Repository: d.Place.Repository,
		Message: fmt.Sprintf("%s holds tags that are gone at the source and were written by route %s, which the config no longer has; they are kept", d.Place, record.Route),
		Hint:    "delete them by hand at the destination, or give the route its name back",
	})
}

// remaining says what is left of a departure's grace, in a person's words.
func remaining(d replicator.Departure, grace time.Duration) string {
	left := max(grace-d.Absent, 0)
	switch {
	case left > 48*time.Hour:
		left = left.Round(time.Hour)
	case left > time.Minute:
		left = left.Round(time.Minute)
	default:
		left = left.Round(time.Second)
	}
	s := left.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
