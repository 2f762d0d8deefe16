package journal

import (
	"context"
	"fmt"
	"time"

	"github.com/twinport/twinport/replicator"
)

// PullIn makes the waiting jobs due that were to wait until after limit, and
// says how many there were: nothing waits for so long, so a clock that has been
// set back since, or another replica's that is wrong, has put them off.
func (j *Journal) PullIn(ctx context.Context, limit time.Time) (int64, error) {
	pulled := int64(0)
	for {
		edges, err := j.putOff(ctx, micros(limit))
		if err != nil {
			return pulled, fmt.Errorf("look for jobs that were put off: %w", err)
		}
		if len(edges) == 0 {
			return pulled, nil
		}
		var n int64
		err = j.write(ctx, true, func(b *batch) error {
			var err error
			n, err = b.pullIn(edges, micros(limit))
			return err
		})
		if err != nil {
			return pulled, fmt.Errorf("make jobs due that were put off: %w", err)
		}
		pulled += n
	}
}

// putOff are the edges with jobs that wait until after limit.
func (j *Journal) putOff(ctx context.Context, limit int64) (edges []int64, err error) {
	for edge := int64(0); ; {
		found, err := one(ctx, j.reads, sqlNextEdge, []any{edge}, &edge)
		if err != nil || !found {
			return edges, err
		}
		for _, lane := range replicator.Lanes {
			var next int64
			found, err := one(ctx, j.reads, sqlNextDue, []any{edge, int64(lane), limit}, &next)
			if err != nil {
				return nil, err
			}
			if found {
				edges = append(edges, edge)
				break
			}
		}
	}
}

// pullIn is PullIn for a page of each edge and lane.
func (b *batch) pullIn(edges []int64, limit int64) (pulled int64, err error) {
	if err := b.flush(); err != nil {
		return 0, err
	}
	defer b.forgetRows()
	for _, edge := range edges {
		for _, lane := range replicator.Lanes {
			n, err := b.execCount(sqlPullIn, edge, int64(lane), limit, b.now)
			if err != nil {
				return 0, err
			}
			pulled += n
		}
	}
	b.due = b.due || pulled > 0
	return pulled, nil
}
