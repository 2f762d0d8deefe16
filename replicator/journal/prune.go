package journal

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Prune removes what is over its age: ended jobs, findings, audit entries and
// departures that no listing has missed for longer than history, tag history
// over 400 days but for each tag's current line and the 10 before it. It works in small commits, so that others' writes
// go between them.
func (j *Journal) Prune(ctx context.Context, now time.Time, history time.Duration) error {
	before := now.Add(-history)
	return errors.Join(
		j.pruneJobs(ctx, before),
		j.pruneTagStates(ctx, now.Add(-tagStatesAge)),
		j.pruneDepartures(ctx, before),
		j.pruneInPages(ctx, "findings", func(b *batch) (int64, error) {
			n, err := b.execCount(sqlOldFindings, micros(before), pageRows)
			b.newFindings -= n
			return n, err
		}),
		j.pruneInPages(ctx, "numbers of what is gone", func(b *batch) (int64, error) { return b.execCount(sqlNoRecords) }),
		j.pruneInPages(ctx, "audit entries", func(b *batch) (int64, error) {
			return b.execCount(sqlOldAudits, idBefore(before), pageRows)
		}),
	)
}

func (j *Journal) pruneInPages(ctx context.Context, what string, page func(*batch) (int64, error)) error {
	for {
		var n int64
		err := j.write(ctx, true, func(b *batch) error {
			var err error
			n, err = page(b)
			return err
		})
		if err != nil {
			return fmt.Errorf("prune %s: %w", what, err)
		}
		if n < pageRows {
			return nil
		}
	}
}

func (j *Journal) pruneJobs(ctx context.Context, before time.Time) error {
	last := int64(0)
	for {
		var ids []int64
		err := each(ctx, j.reads, sqlOldJobs, []any{last, idBefore(before), micros(before), pageRows}, func(scan scanner) error {
			var id int64
			err := scan(&id)
			ids = append(ids, id)
			return err
		})
		if err != nil {
			return fmt.Errorf("prune jobs: %w", err)
		}
		if len(ids) == 0 {
			return nil
		}
		last = ids[len(ids)-1]
		err = j.write(ctx, true, func(b *batch) error {
			for _, id := range ids {
				if err := b.exec(sqlDropJob, id); err != nil {
					return err
				}
				delete(b.byID, id)
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("prune jobs: %w", err)
		}
	}
}

// pruneTagStates walks the old lines and drops those with enough newer ones.
func (j *Journal) pruneTagStates(ctx context.Context, before time.Time) error {
	type line struct {
		id, at int64
		key    tagKey
	}
	last := int64(0)
	for {
		var page []line
		err := each(ctx, j.reads, sqlOldTagStates, []any{last, idBefore(before), pageRows}, func(scan scanner) error {
			var l line
			err := scan(&l.id, &l.key.registry, &l.key.repository, &l.key.tag, &l.at)
			page = append(page, l)
			return err
		})
		if err != nil {
			return fmt.Errorf("prune tag history: %w", err)
		}
		if len(page) == 0 {
			return nil
		}
		last = page[len(page)-1].id
		err = j.write(ctx, true, func(b *batch) error {
			for _, l := range page {
				var at, id int64
				err := b.each(sqlNthTagState, []any{l.key.registry, l.key.repository, l.key.tag, keepTagStates - 1},
					func(scan scanner) error { return scan(&at, &id) })
				if err != nil {
					return err
				}
				// id 0: the tag has no more lines than are kept.
				if id == 0 || l.at > at || l.at == at && l.id >= id {
					continue
				}
				if err := b.exec(sqlDropTagState, l.id); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("prune tag history: %w", err)
		}
	}
}
