package daemon

import (
	"context"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/journal"
	"github.com/twinport/twinport/replicator/oci"
	"github.com/twinport/twinport/replicator/plan"
)

const (
	// rescueEvery is the time between two looks at what waits for a source that
	// is gone, and between two pages of it; rescuePage is how many jobs are
	// looked at each time, and chosen at most.
	rescueEvery = 5 * time.Second
	rescuePage  = 1000
	// rescueAgain is the time between two whole looks.
	rescueAgain = time.Minute
)

// rescued are the jobs that may be claimed though their source is down, since
// what they want is to be had elsewhere.
type rescued struct {
	mu  sync.Mutex
	ids map[string][]string // by route
}

func (r *rescued) set(route string, ids []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ids == nil {
		r.ids = make(map[string][]string)
	}
	if len(ids) == 0 {
		delete(r.ids, route)
		return
	}
	r.ids[route] = ids
}

func (r *rescued) all() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []string
	for _, ids := range r.ids {
		all = append(all, ids...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// A rescueLook is how far the look at one route's waiting jobs has come.
type rescueLook struct {
	after string // where the next page begins
	next  time.Time
}

// rescue looks, while a source is gone, for waiting jobs whose content other
// places proved: the breaker keeps all others back, and these need not wait.
// A backlog is looked at page by page, so that it costs little however long.
func (d *Daemon) rescue(ctx context.Context) error {
	ticker := time.NewTicker(rescueEvery)
	defer ticker.Stop()
	looks := make(map[string]*rescueLook)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		st := d.State()
		for _, route := range st.Rules.Routes() {
			src := st.Registries[route.From]
			if _, down := src.Gate.Down(); !down || !d.sourceGone(src, route) {
				if looks[route.Name] != nil {
					delete(looks, route.Name)
					d.rescued.set(route.Name, nil)
				}
				continue
			}
			look := looks[route.Name]
			if look == nil {
				look = new(rescueLook)
				looks[route.Name] = look
				d.log.Warn("the source is gone: what others proved is read there",
					zap.String("route", route.Name), zap.String("source", route.From), zap.Duration("silent", src.Gate.Silent()))
			}
			if d.now().Before(look.next) {
				continue
			}
			if err := d.rescuePage(ctx, st, route, look); err != nil && ctx.Err() == nil {
				d.log.Warn("look for what is to be had elsewhere", zap.String("route", route.Name), zap.Error(err))
			}
		}
	}
}

func (d *Daemon) rescuePage(ctx context.Context, st *State, route plan.Route, look *rescueLook) error {
	page, next, err := d.journal.Jobs(ctx, journal.JobFilter{
		Route: route.Name, States: []replicator.JobState{replicator.Waiting}, After: look.after, Limit: rescuePage,
	})
	if err != nil {
		return err
	}
	var ids []string
	for _, j := range page {
		ok, err := d.rescuable(ctx, st, j)
		if err != nil {
			return err
		}
		if ok {
			ids = append(ids, j.ID)
		}
	}
	d.rescued.set(route.Name, ids)
	look.after = next
	if next == "" {
		look.next = d.now().Add(rescueAgain)
		if len(ids) > 0 { // those that are done make others possible
			look.next = d.now().Add(rescueEvery)
		}
	}
	return nil
}

// rescuable tells whether a job can be done without its source. Where two
// registries feed each other both have to be read: such jobs wait.
func (d *Daemon) rescuable(ctx context.Context, st *State, j replicator.Job) (bool, error) {
	_, fallback, _ := oci.CompanionSubject(j.Tag)
	if j.Flow != replicator.OneWay || fallback || j.NextAttempt.After(d.now()) {
		return false, nil
	}
	wanted := j.Digest
	if j.Tag != "" {
		if j.Error != nil && j.Error.Kind == kindUnconfirmed {
			return false, nil // it was
		}
		newest, known, err := d.newestPush(ctx, j.Source, j.Tag)
		if err != nil || !known {
			return false, err
		}
		wanted = newest.Digest
	}
	holders, err := d.holders(ctx, st, j, wanted)
	return len(holders) > 0, err
}
