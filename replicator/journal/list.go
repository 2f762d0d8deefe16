package journal

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/twinport/twinport/replicator"
)

const (
	defaultPage = 100
	maxPage     = 1000
	pageRows    = 500  // rows changed in one go
	scanRows    = 5000 // rows looked at in one go where no index fits
)

func pageSize(limit, otherwise int) int {
	if limit <= 0 {
		return otherwise
	}
	return min(limit, maxPage)
}

// Job is one job, ended or not; ErrUnknown where there is none.
func (j *Journal) Job(ctx context.Context, id string) (replicator.Job, error) {
	number, err := parseID(id)
	if err != nil {
		return replicator.Job{}, fmt.Errorf("job: %w: %w", ErrUnknown, err)
	}
	c, err := j.names(ctx)
	if err != nil {
		return replicator.Job{}, err
	}
	jobs, err := j.jobsByID(ctx, c, []int64{number})
	if err != nil {
		return replicator.Job{}, err
	}
	if len(jobs) == 0 {
		return replicator.Job{}, fmt.Errorf("job %s: %w", id, ErrUnknown)
	}
	return jobs[0], nil
}

func (j *Journal) jobsByID(ctx context.Context, c *catalog, ids []int64) ([]replicator.Job, error) {
	jobs := make([]replicator.Job, 0, len(ids))
	for len(ids) > 0 {
		n := min(len(ids), defaultPage)
		args := make([]any, n)
		marks := make([]string, n)
		place := make(map[int64]int, n)
		for i, id := range ids[:n] {
			args[i], marks[i], place[id] = id, "$"+strconv.Itoa(i+1), i
		}
		page := make([]*row, n)
		query := "SELECT " + jobColumns + " FROM jobs WHERE id IN (" + strings.Join(marks, ", ") + ")"
		err := each(ctx, j.reads, query, args, func(scan scanner) error {
			r, err := scanRow(scan)
			page[place[r.id]] = r
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("read jobs: %w", err)
		}
		for _, r := range page {
			if r != nil {
				jobs = append(jobs, r.job(c))
			}
		}
		ids = ids[n:]
	}
	return jobs, nil
}

// Jobs lists jobs, newest first, and where the next page begins, empty after the last.
func (j *Journal) Jobs(ctx context.Context, f JobFilter) ([]replicator.Job, string, error) {
	c, err := j.names(ctx)
	if err != nil {
		return nil, "", err
	}
	f.Limit = pageSize(f.Limit, defaultPage)
	ids, next, err := j.selectIDs(ctx, c, f, true)
	if err != nil {
		return nil, "", fmt.Errorf("list jobs: %w", err)
	}
	jobs, err := j.jobsByID(ctx, c, ids)
	return jobs, next, err
}

// selectIDs finds a page of jobs by the narrowest index that fits the filter.
func (j *Journal) selectIDs(ctx context.Context, c *catalog, f JobFilter, newest bool) ([]int64, string, error) {
	after := int64(0)
	if newest {
		after = math.MaxInt64
	}
	if f.After != "" {
		var err error
		if after, err = parseID(f.After); err != nil {
			return nil, "", fmt.Errorf("%.64q: %w", f.After, ErrPage)
		}
	}
	s, err := newSelection(c, f)
	if err != nil {
		return nil, "", err
	}
	s.newest, s.after, s.limit = newest, after, f.Limit+1
	var ids []int64
	switch {
	case len(f.IDs) > 0:
		ids, err = s.byIDs(ctx, j.reads)
	case s.nothing:
	case f.Repository != "":
		ids, err = s.byRepository(ctx, j.reads)
	case f.ErrorKind != "":
		ids, err = s.byError(ctx, j.reads)
	case f.Tag != "":
		ids, err = s.byScan(ctx, j.reads)
	case len(f.States) > 0 || f.Lane != nil || f.Route != "" || f.Destination != "":
		ids, err = s.byStanding(ctx, j.reads)
	default:
		ids, err = s.all(ctx, j.reads)
	}
	if err != nil {
		return nil, "", err
	}
	if len(ids) <= f.Limit {
		return ids, "", nil
	}
	ids = ids[:f.Limit]
	return ids, formatID(ids[len(ids)-1]), nil
}

// A selection is a filter in the database's terms.
type selection struct {
	catalog *catalog
	filter  JobFilter
	ids     []int64
	edges   []int64
	states  []stateCode
	lanes   []replicator.Lane
	nothing bool // no edge fits
	newest  bool
	after   int64
	limit   int
}

func newSelection(c *catalog, f JobFilter) (*selection, error) {
	s := &selection{catalog: c, filter: f, lanes: replicator.Lanes}
	for _, text := range f.IDs {
		id, err := parseID(text)
		if err != nil {
			return nil, fmt.Errorf("job: %w: %w", ErrUnknown, err)
		}
		s.ids = append(s.ids, id)
	}
	for _, e := range c.edges {
		if e.has(f.Route, f.Destination) {
			s.edges = append(s.edges, e.id)
		}
	}
	slices.Sort(s.edges)
	s.nothing = len(s.edges) == 0
	if f.Lane != nil {
		s.lanes = []replicator.Lane{*f.Lane}
	}
	for _, state := range f.States {
		code, err := codeOf(state)
		if err != nil {
			return nil, err
		}
		s.states = append(s.states, code)
	}
	if len(s.states) == 0 {
		s.states = append(s.states, liveStates...)
		s.states = append(s.states, done, superseded)
	}
	return s, nil
}

// conditions of the filter that an index does not answer, as SQL.
func (s *selection) conditions(args []any) (string, []any) {
	var b strings.Builder
	in := func(column string, values []int64) {
		b.WriteString(" AND " + column + " IN (")
		for i, v := range values {
			if i > 0 {
				b.WriteString(", ")
			}
			b.WriteString(strconv.FormatInt(v, 10))
		}
		b.WriteString(")")
	}
	if s.filter.Route != "" || s.filter.Destination != "" {
		in("edge", s.edges)
	}
	if len(s.filter.States) > 0 {
		in("state", asInts(s.states))
	}
	if s.filter.Lane != nil {
		in("lane", asInts(s.lanes))
	}
	equal := func(column, value string) {
		if value != "" {
			args = append(args, value)
			b.WriteString(" AND " + column + " = $" + strconv.Itoa(len(args)))
		}
	}
	equal("tag", s.filter.Tag)
	equal("error_kind", s.filter.ErrorKind)
	if s.filter.Repository != "" {
		args = append(args, s.filter.Repository)
		n := strconv.Itoa(len(args))
		b.WriteString(" AND (dst_repository = $" + n + " OR src_repository = $" + n + ")")
	}
	return b.String(), args
}

func asInts[T ~int64 | ~int](values []T) []int64 {
	ints := make([]int64, len(values))
	for i, v := range values {
		ints[i] = int64(v)
	}
	return ints
}

// past is the condition and order of a page.
func (s *selection) past(column string, n int) (condition, order string) {
	if s.newest {
		return " " + column + " < $" + strconv.Itoa(n), " ORDER BY " + column + " DESC"
	}
	return " " + column + " > $" + strconv.Itoa(n), " ORDER BY " + column
}

func (s *selection) query(ctx context.Context, db queryer, query string, args []any) ([]int64, error) {
	var ids []int64
	err := each(ctx, db, query, args, func(scan scanner) error {
		var id int64
		err := scan(&id)
		ids = append(ids, id)
		return err
	})
	return ids, err
}

// merge is the first page of several lists.
func (s *selection) merge(ids []int64) []int64 {
	slices.Sort(ids)
	ids = slices.Compact(ids)
	if s.newest {
		slices.Reverse(ids)
	}
	return ids[:min(len(ids), s.limit)]
}

func (s *selection) byIDs(ctx context.Context, db queryer) ([]int64, error) {
	var all []int64
	for _, id := range s.ids {
		where, args := s.conditions([]any{id, s.after})
		past, _ := s.past("id", 2)
		ids, err := s.query(ctx, db, "SELECT id FROM jobs WHERE id = $1 AND"+past+where, args)
		if err != nil {
			return nil, err
		}
		all = append(all, ids...)
	}
	return s.merge(all), nil
}

func (s *selection) all(ctx context.Context, db queryer) ([]int64, error) {
	past, order := s.past("id", 1)
	return s.query(ctx, db, "SELECT id FROM jobs WHERE"+past+order+" LIMIT $2", []any{s.after, s.limit})
}

// byStanding reads one index range per edge, state and lane; each is sorted.
// Those of desired state that are known to be empty are left out.
func (s *selection) byStanding(ctx context.Context, db queryer) ([]int64, error) {
	counted := map[jobGroup]bool{}
	err := eachCount(ctx, db, func(g jobGroup, _ int64) { counted[g] = true })
	if err != nil {
		return nil, err
	}
	past, order := s.past("id", 4)
	query := "SELECT id FROM jobs WHERE edge = $1 AND state = $2 AND lane = $3 AND" + past + order + " LIMIT $5"
	var all []int64
	for _, edge := range s.edges {
		for _, state := range s.states {
			for _, lane := range s.lanes {
				if state < done && !counted[jobGroup{edge, state, lane}] {
					continue
				}
				ids, err := s.query(ctx, db, query, []any{edge, int64(state), int64(lane), s.after, s.limit})
				if err != nil {
					return nil, err
				}
				all = append(all, ids...)
			}
		}
		all = s.merge(all)
	}
	return s.merge(all), nil
}

// byError reads one index range per edge and state.
func (s *selection) byError(ctx context.Context, db queryer) ([]int64, error) {
	var all []int64
	for _, edge := range s.edges {
		for _, state := range s.states {
			where, args := s.conditions([]any{edge, int64(state), s.after, s.limit})
			past, order := s.past("id", 3)
			ids, err := s.query(ctx, db, "SELECT id FROM jobs WHERE error_kind <> '' AND edge = $1 AND state = $2 AND"+
				past+where+order+" LIMIT $4", args)
			if err != nil {
				return nil, err
			}
			all = append(all, ids...)
		}
		all = s.merge(all)
	}
	return s.merge(all), nil
}

func (s *selection) byRepository(ctx context.Context, db queryer) ([]int64, error) {
	past, order := s.past("id", 2)
	var all []int64
	for id := range s.catalog.registries {
		for _, end := range []string{"dst", "src"} {
			where, args := s.conditions([]any{id, s.after, s.filter.Repository, s.limit})
			ids, err := s.query(ctx, db, "SELECT id FROM jobs WHERE "+end+" = $1 AND "+end+"_repository = $3 AND"+
				past+where+order+" LIMIT $4", args)
			if err != nil {
				return nil, err
			}
			all = append(all, ids...)
		}
	}
	return s.merge(all), nil
}

// byScan looks at all rows, a piece at a time, so that no read holds its
// snapshot for long.
func (s *selection) byScan(ctx context.Context, db queryer) ([]int64, error) {
	past, order := s.past("id", 1)
	piece := "SELECT id FROM jobs WHERE" + past + order + " LIMIT 1 OFFSET $2"
	var all []int64
	for after := s.after; len(all) < s.limit; {
		var end int64
		more, err := one(ctx, db, piece, []any{after, scanRows - 1}, &end)
		if err != nil {
			return nil, err
		}
		where, args := s.conditions([]any{after, s.limit})
		query := "SELECT id FROM jobs WHERE" + past + where
		if more {
			args = append(args, end)
			compare := " <= $"
			if s.newest {
				compare = " >= $"
			}
			query += " AND id" + compare + strconv.Itoa(len(args))
		}
		ids, err := s.query(ctx, db, query+order+" LIMIT $2", args)
		if err != nil {
			return nil, err
		}
		all = append(all, ids...)
		if !more {
			break
		}
		after = end
	}
	return s.merge(all), nil
}

// Behind lists what is not proven at a route's destination, oldest job first,
// and where the next page begins, empty after the last.
func (j *Journal) Behind(ctx context.Context, route, destination, after string, limit int) ([]Behind, string, error) {
	c, err := j.names(ctx)
	if err != nil {
		return nil, "", err
	}
	f := JobFilter{Route: route, Destination: destination, After: after, Limit: pageSize(limit, defaultPage),
		States: []replicator.JobState{replicator.Waiting, replicator.Running, replicator.Failed, replicator.Refused}}
	ids, next, err := j.selectIDs(ctx, c, f, false)
	if err != nil {
		return nil, "", fmt.Errorf("list behind: %w", err)
	}
	jobs, err := j.jobsByID(ctx, c, ids)
	if err != nil {
		return nil, "", err
	}
	var list []Behind
	for _, job := range jobs {
		for _, w := range job.Wants {
			if route != "" && w.Route != route || destination != "" && w.Destination != destination {
				continue
			}
			at := wantedAt(job, w)
			rec, _, err := j.Record(ctx, at.Identity, at.Repository, job.Reference())
			if err != nil {
				return nil, "", err
			}
			list = append(list, Behind{Route: w.Route, Destination: w.Destination, Repository: at.Repository,
				Tag: job.Tag, Wanted: job.Digest, Proven: rec.Digest, PushedAt: job.PushedAt,
				BehindSince: job.BehindSince, State: job.State, Error: job.Error, ID: job.ID})
		}
	}
	return list, next, nil
}

// wantedAt is the end of the job at which a route wants the tag.
func wantedAt(job replicator.Job, w replicator.Want) replicator.Place {
	if job.Flow == replicator.TwoWay && job.Source.Registry == w.Destination {
		return job.Source
	}
	return job.Destination
}
