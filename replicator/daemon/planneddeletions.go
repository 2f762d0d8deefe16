package daemon

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/plan"
)

// maxPlannedDeletions bounds what a plan holds of tags that are due.
const maxPlannedDeletions = 100_000

// plannedDeletions gathers, during a plan's sweep, what is gone at the source.
type plannedDeletions struct {
	*departing
	tell func(Action)
	gone []replicator.Departure // whose grace has passed
}

func (d *Daemon) plannedDeletions(st *State, route plan.Route, tell func(Action)) *plannedDeletions {
	p := &plannedDeletions{departing: d.departing(st, route, d.now()), tell: tell}
	p.due = func(d replicator.Departure) {
		if len(p.gone) < maxPlannedDeletions {
			p.gone = append(p.gone, d)
			return
		}
		p.skip(d, p.since(d)+"; more are due than a plan looks at")
	}
	p.pending = func(d replicator.Departure) {
		p.skip(d, fmt.Sprintf("%s; it is deleted if it stays so for %s more", p.since(d), remaining(d, p.grace)))
	}
	return p
}

func (p *plannedDeletions) since(d replicator.Departure) string {
	return fmt.Sprintf("gone at %s since %s", d.Source.Registry, d.Since.UTC().Format(time.RFC3339))
}

func (p *plannedDeletions) action(d replicator.Departure, action, reason string) Action {
	return Action{
		Route: d.Route, Destination: d.Destination.Registry, Repository: d.Source.Repository, DestinationRepository: d.Destination.Repository,
		Tag: d.Tag, Digest: d.Digest, Action: action, Reason: reason,
	}
}

func (p *plannedDeletions) skip(d replicator.Departure, reason string) {
	p.tell(p.action(d, "skip", reason))
}

// carry tells what a sync would delete now, once the sweep has seen the whole
// source, and what it would keep.
func (p *plannedDeletions) carry(ctx context.Context, failed map[string]error) error {
	for _, f := range p.findings() { // repositories that are kept as a whole
		p.tell(Action{Route: p.route.Name, Destination: f.Registry, DestinationRepository: f.Repository, Action: "skip", Reason: f.Message})
	}
	for _, to := range p.route.To {
		if failed[to] != nil {
			continue
		}
		due := slices.DeleteFunc(slices.Clone(p.gone), func(d replicator.Departure) bool { return d.Destination.Registry != to })
		begun, err := p.begun(ctx, to)
		if err != nil {
			return fmt.Errorf("deletions at %s: %w", to, err)
		}
		if due = append(due, begun...); len(due) == 0 {
			continue
		}
		if err := p.carryTo(ctx, to, due); err != nil {
			return fmt.Errorf("deletions at %s: %w", to, err)
		}
	}
	return nil
}

// begun are the tags whose deletion was cut off: their records were given up for
// it, so that no sweep tells of them, and the next run finds out what became of them.
func (p *plannedDeletions) begun(ctx context.Context, to string) (list []replicator.Departure, err error) {
	c := p.carrier(to)
	err = c.each(ctx, c.reg.Client.Identity(), func(page []replicator.Departure) error {
		for _, d := range page {
			if d.Begun && len(list) < maxPlannedDeletions {
				list = append(list, d)
			}
		}
		return nil
	})
	return list, err
}

func (p *plannedDeletions) carryTo(ctx context.Context, to string, due []replicator.Departure) error {
	c := p.carrier(to)
	proven, err := c.journal.ProvenTags(ctx, p.route.Name, c.reg.Client.Identity())
	if err != nil {
		return err
	}
	may := most(p.route.Deletes.AtMost, proven)
	c.show = func(d replicator.Departure, k keeping) {
		if k != (keeping{}) {
			p.skip(d, p.since(d)+", and kept: "+k.why)
			return
		}
		why := ", longer than the grace of " + p.grace.String()
		if d.Begun {
			why = "; its deletion was begun, and interrupted"
		}
		p.tell(p.action(d, "delete", p.since(d)+why))
	}
	var open []replicator.Departure
	counted := int64(0)
	for _, d := range due {
		f, err := c.facts(ctx, d)
		if err != nil {
			return err
		}
		if k := keep(f); k != (keeping{}) && !f.subjectStays {
			c.show(d, k)
			continue
		}
		if open = append(open, d); d.Held == "" && !d.Begun {
			counted++
		}
	}
	if counted > may {
		for _, d := range open {
			p.skip(d, fmt.Sprintf("%s, and kept: %d tags are due and one run deletes %d at most (atMost)", p.since(d), counted, may))
		}
		return nil
	}
	c.spare.Store(may - counted)
	slices.SortFunc(open, func(a, b replicator.Departure) int {
		return cmp.Or(strings.Compare(a.Destination.Repository, b.Destination.Repository), strings.Compare(a.Tag, b.Tag))
	})
	for len(open) > 0 {
		cut := slices.IndexFunc(open, func(d replicator.Departure) bool { return d.Destination.Repository != open[0].Destination.Repository })
		if cut < 0 {
			cut = len(open)
		}
		if err := c.repository(ctx, open[:cut]); err != nil {
			return err
		}
		open = open[cut:]
	}
	return nil
}
