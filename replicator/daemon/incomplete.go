package daemon

import (
	"context"
	"maps"
	"slices"
	"sync"

	"go.uber.org/zap"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/journal"
	"github.com/twinport/twinport/replicator/plan"
)

// maxIncomplete bounds how many open findings of incomplete sources one sweep
// looks after.
const maxIncomplete = 1000

// incompletes are a route's open findings of tags that the source listed and
// did not have whole: those that were being deleted, too. They end with their
// tags, once a sweep that saw all of the source no longer finds them listed.
type incompletes struct {
	mu   sync.Mutex
	open map[sourceTag][]string // IDs
}

type sourceTag struct{ repository, tag string }

// incompletesOf gives a route's, nil where there are none.
func (d *Daemon) incompletesOf(ctx context.Context, st *State, route plan.Route) (*incompletes, error) {
	n := &incompletes{open: make(map[sourceTag][]string)}
	filter := journal.FindingFilter{Kind: replicator.FindingSourceIncomplete, Route: route.Name, Acknowledged: new(bool), Limit: maxIncomplete}
	page, _, err := d.journal.Findings(ctx, filter)
	if err != nil {
		return nil, err
	}
	for _, f := range page {
		at := sourceTag{f.Repository, f.Tag}
		if f.Registry != route.From { // a job's: it names the destination
			jobs, _, err := d.journal.Jobs(ctx, journal.JobFilter{Route: route.Name, Destination: f.Registry, Repository: f.Repository, Tag: f.Tag, Limit: 1})
			if err != nil {
				return nil, err
			}
			if len(jobs) == 0 || jobs[0].Source.Identity != st.Registries[route.From].Client.Identity() {
				continue
			}
			at.repository = jobs[0].Source.Repository
		}
		repository, _ := st.Rules.Selects(route.Name, at.repository)
		tag, _ := st.Rules.SelectsTag(route.Name, at.tag)
		if at.tag != "" && repository && tag { // else its listing would tell nothing
			n.open[at] = append(n.open[at], f.ID)
		}
	}
	if len(n.open) == 0 {
		return nil, nil
	}
	return n, nil
}

// listed notes a tag that the source has.
func (n *incompletes) listed(repository, tag string) {
	if n == nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.open, sourceTag{repository, tag})
}

// closeGone closes what is left after a sweep that saw all of the source.
func (d *Daemon) closeGone(ctx context.Context, n *incompletes) {
	if n == nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	ids := slices.Sorted(slices.Values(slices.Concat(slices.Collect(maps.Values(n.open))...)))
	if err := d.journal.CloseFindings(ctx, ids, "the tag is gone at the source"); err != nil && ctx.Err() == nil {
		d.log.Warn("close findings of tags that are gone", zap.Error(err))
	}
}
