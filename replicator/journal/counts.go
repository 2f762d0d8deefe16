package journal

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/twinport/twinport/replicator"
)

// A jobGroup is what rows of desired state are counted by. The zero value is
// nobody's: edges are numbered from 1.
type jobGroup struct {
	edge  int64
	state stateCode
	lane  replicator.Lane
}

// group is what the row counts as, the zero value where it has ended.
func (r *row) group() jobGroup {
	if r.state >= done {
		return jobGroup{}
	}
	return jobGroup{r.edge, r.state, r.lane}
}

// recount notes that the row is written as it is now.
func (b *batch) recount(r *row) {
	is := r.group()
	if is == r.counted {
		return
	}
	if b.counts == nil {
		b.counts = map[jobGroup]int64{}
	}
	b.counts[r.counted]--
	b.counts[is]++
	r.counted = is
}

// saveCounts writes what the batch has changed of the numbers that Standings
// tells, each once. It must be the batch's last write.
func (b *batch) saveCounts() error {
	groups := slices.SortedFunc(maps.Keys(b.counts), func(x, y jobGroup) int {
		return cmp.Or(cmp.Compare(x.edge, y.edge), cmp.Compare(x.state, y.state), cmp.Compare(x.lane, y.lane))
	})
	for _, g := range groups {
		n := b.counts[g]
		if n == 0 || g == (jobGroup{}) {
			continue
		}
		if err := b.exec(sqlCountJobs, g.edge, int64(g.state), int64(g.lane), n); err != nil {
			return fmt.Errorf("count jobs: %w", err)
		}
	}
	return nil
}

// eachCount gives how many rows each group has, but for those that have none.
func eachCount(ctx context.Context, db queryer, f func(g jobGroup, n int64)) error {
	return each(ctx, db, sqlJobCounts, nil, func(scan scanner) error {
		var g jobGroup
		var lane, n int64
		err := scan(&g.edge, &g.state, &lane, &n)
		if g.lane = replicator.Lane(lane); err == nil {
			f(g, n)
		}
		return err
	})
}
