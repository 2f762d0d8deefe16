package journal

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twinport/twinport/replicator"
)

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
	pace    pace
}

// A pace is how a reading that has no index goes through the rows.
type pace struct {
	rows int           // looked at in one go
	age  time.Duration // of a snapshot, after which another one goes on
}

// after is where the filter's page begins.
func (f *JobFilter) after(newest bool) (int64, error) {
	switch {
	case f.After != "":
		after, err := parseID(f.After)
		if err != nil {
			return 0, fmt.Errorf("%.64q: %w", f.After, ErrPage)
		}
		return after, nil
	case newest:
		return math.MaxInt64, nil
	}
	return 0, nil
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

// read finds the numbers of the rows by the narrowest index that fits the
// filter. Where the snapshot became too old for the rest, rest is what that
// comes after; else it is 0.
func (s *selection) read(ctx context.Context, in *snapshot) (ids []int64, rest int64, err error) {
	f := s.filter
	switch {
	case len(f.IDs) > 0:
		ids, err = s.byIDs(ctx, in.db)
	case s.nothing:
	case f.Repository != "":
		ids, err = s.byRepository(ctx, in.db)
	case f.ErrorKind != "":
		ids, err = s.byError(ctx, in.db)
	case f.Tag != "":
		return s.byScan(ctx, in)
	case len(f.States) > 0 || f.Lane != nil || f.Route != "" || f.Destination != "":
		ids, err = s.byStanding(ctx, in.db)
	default:
		ids, err = s.all(ctx, in.db)
	}
	return ids, 0, err
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

// byScan looks at all rows, a piece at a time, until it has enough or the
// snapshot is too old.
func (s *selection) byScan(ctx context.Context, in *snapshot) (all []int64, rest int64, err error) {
	past, order := s.past("id", 1)
	piece := "SELECT id FROM jobs WHERE" + past + order + " LIMIT 1 OFFSET $2"
	for after := s.after; ; {
		var end int64
		more, err := one(ctx, in.db, piece, []any{after, s.pace.rows - 1}, &end)
		if err != nil {
			return nil, 0, err
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
		ids, err := s.query(ctx, in.db, query+order+" LIMIT $2", args)
		if err != nil {
			return nil, 0, err
		}
		all = append(all, ids...)
		switch {
		case !more || len(all) >= s.limit:
			return s.merge(all), 0, nil
		case time.Since(in.began) >= s.pace.age:
			return s.merge(all), end, nil
		}
		after = end
	}
}
