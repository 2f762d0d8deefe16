package daemon

import (
	"context"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/journal"
	"github.com/twinport/twinport/replicator/plan"
)

// maxStalled bounds how many of a route's failed and refused jobs one sweep
// looks after; the next one goes on with the others.
const maxStalled = 10_000

// A stalled job has failed or was refused, and waits for a push or a person.
// Its tag may be gone at the source, or back at what is proven: no difference
// tells of either, and it would count as behind for good. So what a sweep saw
// to be so is looked at once more, and ends.
type stalled struct {
	route string

	mu   sync.Mutex
	jobs map[stalledTag][]string // IDs
	// seen is true of tags that the source lists and the destination has otherwise.
	seen map[stalledTag]bool
	// failed are the IDs of jobs that want a digest for itself, which failed or
	// whose source lacked some of it: no listing tells of those.
	failed []string
}

type stalledTag struct{ destination, repository, tag string }

// stalledOf gives a route's stalled jobs, nil where there are none.
func (d *Daemon) stalledOf(ctx context.Context, st *State, route plan.Route) (*stalled, error) {
	s := &stalled{route: route.Name, jobs: make(map[stalledTag][]string), seen: make(map[stalledTag]bool)}
	source := st.Registries[route.From].Client.Identity()
	filter := journal.JobFilter{
		Route: route.Name, States: []replicator.JobState{replicator.Failed, replicator.Refused},
		After: d.stalledAfter.of(route.Name), Limit: 1000,
	}
	for n := 0; n < maxStalled; {
		jobs, next, err := d.journal.Jobs(ctx, filter)
		if err != nil {
			return nil, err
		}
		for _, j := range jobs {
			n++
			switch {
			case j.Source.Identity != source:
			case j.Tag == "" && (j.State == replicator.Failed || j.Error != nil && j.Error.Kind == string(replicator.FindingSourceIncomplete)):
				s.failed = append(s.failed, j.ID)
			case j.Tag != "" && selected(st, route, j):
				k := stalledTag{j.Destination.Registry, j.Source.Repository, j.Tag}
				s.jobs[k] = append(s.jobs[k], j.ID)
			}
		}
		if filter.After = next; next == "" {
			break
		}
	}
	d.stalledAfter.set(route.Name, filter.After)
	if len(s.jobs)+len(s.failed) == 0 {
		return nil, nil
	}
	return s, nil
}

func selected(st *State, route plan.Route, j replicator.Job) bool {
	repository, _ := st.Rules.Selects(route.Name, j.Source.Repository)
	tag, _ := st.Rules.SelectsTag(route.Name, j.Tag)
	return repository && tag
}

// listed notes a tag that the source has.
func (s *stalled) listed(repository, tag string, destinations []string) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, to := range destinations {
		if k := (stalledTag{to, repository, tag}); s.jobs[k] != nil {
			if _, known := s.seen[k]; !known {
				s.seen[k] = true
			}
		}
	}
}

// inSync notes a tag that a destination has as it is to be.
func (s *stalled) inSync(destination, repository, tag string) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if k := (stalledTag{destination, repository, tag}); s.jobs[k] != nil {
		s.seen[k] = false
	}
}

// due are the jobs to look at, after a sweep that saw all of the source.
func (s *stalled) due() []string {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	ids := s.failed
	for k, of := range s.jobs {
		if !s.seen[k] {
			ids = append(ids, of...)
		}
	}
	slices.Sort(ids) // a map has no order
	return ids
}

// A pager remembers where each route's next page begins.
type pager struct {
	mu    sync.Mutex
	after map[string]string
}

func (p *pager) of(route string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.after[route]
}

func (p *pager) set(route, after string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.after == nil {
		p.after = make(map[string]string)
	}
	if p.after[route] = after; after == "" {
		delete(p.after, route)
	}
}

// maxOrphans bounds what is remembered of them.
const maxOrphans = 25_000

// orphans remembers subjects that did not come to a destination, so that what
// belongs to them is not tried at every sweep.
type orphans struct {
	mu   sync.Mutex
	seen map[placeTag]bool // the subject's digest in the key's tag
}

func (o *orphans) note(p replicator.Place, subject digest.Digest) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.seen == nil || len(o.seen) >= maxOrphans {
		o.seen = make(map[placeTag]bool)
	}
	o.seen[placeTag{p.Identity, p.Repository, subject.String()}] = true
}

func (o *orphans) known(p replicator.Place, subject digest.Digest) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.seen[placeTag{p.Identity, p.Repository, subject.String()}]
}
