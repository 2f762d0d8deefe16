package journal

import (
	"context"
	"database/sql"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/twinport/twinport/replicator"
)

// snapshotAge is how old a snapshot may become where there is no end to what
// may have to be looked at: as long as it is open, the engine keeps all that
// was replaced since. Other readings ask a number of questions that the config
// and a page's length bound.
const snapshotAge = time.Second / 2

// A snapshot is the journal as of one commit.
type snapshot struct {
	db      queryer // its transaction
	catalog *catalog
	began   time.Time
}

// snapshot has f read the journal as of one commit. Where the database cuts
// the connection f runs a second time, so it sets its results anew. It asks
// only what it is given: who held one of the few connections and waited for
// another might wait forever.
func (j *Journal) snapshot(ctx context.Context, f func(*snapshot) error) error {
	read := func(ctx context.Context) error {
		tx, err := j.readDB.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelSnapshot, ReadOnly: true})
		if err != nil && j.shared != nil {
			return j.shared.db.classify(err)
		}
		if err != nil {
			return classify(err)
		}
		defer func() { _ = tx.Rollback() }() // it only read
		in := &snapshot{db: tx, began: time.Now()}
		if j.shared != nil {
			in.db = patient{tx, j.shared.db}
		}
		if in.catalog, err = j.namesIn(ctx, in.db); err != nil {
			return err
		}
		return f(in)
	}
	var err error
	if j.shared != nil {
		err = j.shared.db.twice(ctx, read)
	} else {
		err = read(ctx)
	}
	if err != nil && ctx.Err() != nil {
		// The end of ctx ends the transaction, which says nothing of why.
		return context.Cause(ctx)
	}
	return err
}

// A page reads what is listed of the jobs that have these numbers.
type page[T any] func(in *snapshot, ids []int64) ([]T, error)

// listJobs reads a page of the jobs that a filter selects, and gives where the
// next one begins, empty after the last. All of it is as of one commit, but for
// what takes longer than snapshotAge to look through: then each part is.
func listJobs[T any](ctx context.Context, j *Journal, f JobFilter, newest bool, read page[T]) (list []T, next string, err error) {
	after, err := f.after(newest)
	if err != nil {
		return nil, "", err
	}
	last := int64(0)
	for left := f.Limit; ; {
		var ids []int64
		var part []T
		var rest int64
		err := j.snapshot(ctx, func(in *snapshot) error {
			sel, err := newSelection(in.catalog, f)
			if err != nil {
				return err
			}
			sel.newest, sel.after, sel.limit, sel.pace = newest, after, left+1, j.pace
			if ids, rest, err = sel.read(ctx, in); err != nil {
				return err
			}
			part, err = read(in, ids[:min(len(ids), left)])
			return err
		})
		if err != nil {
			return nil, "", err
		}
		list = append(list, part...)
		n := min(len(ids), left)
		if left -= n; n > 0 {
			last = ids[n-1]
		}
		switch {
		case len(ids) > n:
			return list, formatID(last), nil
		case rest == 0:
			return list, "", nil
		}
		after = rest
	}
}

// selectIDs gives the numbers of a page of jobs.
func (j *Journal) selectIDs(ctx context.Context, f JobFilter, newest bool) ([]int64, string, error) {
	return listJobs(ctx, j, f, newest, func(_ *snapshot, ids []int64) ([]int64, error) { return ids, nil })
}

// jobs reads rows, in the order of their numbers as given.
func (in *snapshot) jobs(ctx context.Context, ids []int64) ([]replicator.Job, error) {
	jobs := make([]replicator.Job, 0, len(ids))
	for len(ids) > 0 {
		n := min(len(ids), defaultPage)
		args := make([]any, n)
		marks := make([]string, n)
		place := make(map[int64]int, n)
		for i, id := range ids[:n] {
			args[i], marks[i], place[id] = id, "$"+strconv.Itoa(i+1), i
		}
		rows := make([]*row, n)
		query := "SELECT " + jobColumns + " FROM jobs WHERE id IN (" + strings.Join(marks, ", ") + ")"
		err := each(ctx, in.db, query, args, func(scan scanner) error {
			r, err := scanRow(scan)
			rows[place[r.id]] = r
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("read jobs: %w", err)
		}
		for _, r := range rows {
			if r != nil {
				jobs = append(jobs, r.job(in.catalog))
			}
		}
		ids = ids[n:]
	}
	return jobs, nil
}
