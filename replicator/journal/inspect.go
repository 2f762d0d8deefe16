package journal

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// An Inspection is what a look at an embedded journal's file has found.
type Inspection struct {
	Path  string `json:"path"`
	Bytes int64  `json:"bytes"`
	// Schema is the file's, Knows the newest this program knows.
	Schema int64 `json:"schema"`
	Knows  int64 `json:"knows"`
	// Sound: nothing is wrong with it.
	Sound bool `json:"sound"`
	// Problems are the first of them, in words.
	Problems []string `json:"problems"`
	// Rows are how many each table has, where they could be read.
	Rows map[string]int64 `json:"rows"`
	// Jobs are how many there are in each state.
	Jobs map[string]int64 `json:"jobs"`
}

// maxProblems bounds what is told of one file.
const maxProblems = 50

func (i *Inspection) problem(format string, args ...any) {
	if len(i.Problems) < maxProblems {
		i.Problems = append(i.Problems, clip(fmt.Sprintf(format, args...), 300))
	}
}

// Inspect reads an embedded journal whole and tells what is wrong with it: the
// file's structure, its schema, and rows that make no sense. It changes nothing
// and works beside a daemon. It gives fs.ErrNotExist where there is no journal.
func Inspect(ctx context.Context, dir string) (Inspection, error) {
	j := newJournal(Options{Dir: dir})
	i := Inspection{Path: j.path, Knows: schemaVersion, Problems: []string{}, Rows: map[string]int64{}, Jobs: map[string]int64{}}
	info, err := os.Stat(j.path)
	if err != nil {
		return i, fmt.Errorf("inspect journal: %w", err)
	}
	i.Bytes = j.Size()
	if info.Size() == 0 {
		i.problem("the file is empty")
		return i, nil
	}
	db, err := j.openBroken(false)
	if err != nil {
		return i, err
	}
	defer func() { _ = db.Close() }() // it only read
	shape, err := emptyJournal(ctx)
	if err != nil {
		return i, err
	}
	defer func() { _ = shape.Close() }() // in memory
	if err := i.structure(ctx, j, db); err != nil {
		return i, err
	}
	if err := i.rows(ctx, db, shape); err != nil {
		return i, err
	}
	i.Sound = len(i.Problems) == 0
	return i, context.Cause(ctx)
}

// openBroken opens a file that may be damaged, for reading; leniently: even
// where it is shorter than it says, or its schema makes no sense.
func (j *Journal) openBroken(leniently bool) (*sql.DB, error) {
	dsn := j.dsn("ro") + "&_query_only=1"
	if leniently { // what asks SQLite for that; nothing is written
		dsn += "&_pragma=writable_schema(1)"
	}
	db, err := sql.Open("sqlite", dsn+"&_pragma=trusted_schema(0)&_pragma=cell_size_check(1)")
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	return db, nil
}

// emptyJournal is this program's schema, in memory.
func emptyJournal(ctx context.Context) (*sql.DB, error) {
	db, err := sql.Open("sqlite", ":memory:")
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	if err := newJournal(Options{}).raise(ctx, db); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

func (i *Inspection) structure(ctx context.Context, j *Journal, db *sql.DB) error {
	err := each(ctx, db, fmt.Sprintf(`PRAGMA integrity_check(%d)`, maxProblems), nil, func(scan scanner) error {
		var said string
		if err := scan(&said); err != nil {
			return err
		}
		if said != "ok" {
			i.problem("%s", said)
		}
		return nil
	})
	if err != nil {
		i.problem("the file cannot be read: %v", cause(err))
	}
	at, err := j.dialect.version(ctx, db)
	switch {
	case context.Cause(ctx) != nil:
		return context.Cause(ctx)
	case err != nil:
		i.problem("the schema's version cannot be read: %v", cause(err))
	case at > schemaVersion:
		i.Schema = at
		return fmt.Errorf("%w (schema %d, this one knows %d)", ErrNewer, at, schemaVersion)
	case at == 0:
		i.problem("it has no schema: it is no journal")
	}
	i.Schema = at
	return nil
}

func (i *Inspection) rows(ctx context.Context, db, shape *sql.DB) error {
	var registries, edges map[int64]bool
	for _, s := range salvages {
		t, err := tableOf(ctx, shape, s.table)
		if err != nil {
			return err
		}
		if err := t.define(ctx, db); err != nil {
			if context.Cause(ctx) != nil {
				return context.Cause(ctx)
			}
			if i.Schema == schemaVersion { // an older one may not have it yet
				i.problem("%s: %v", t.name, cause(err))
			}
			continue
		}
		t.registries, t.edges = registries, edges
		numbers := map[int64]bool{}
		err = t.scanRows(ctx, db, t.query(false, ""), nil, func(values []any) error {
			i.Rows[t.name]++
			if why := t.fault(values); why != "" {
				i.problem("%s: row %d: %s", t.name, i.Rows[t.name], why)
			} else if t.name == "registries" || t.name == "edges" {
				numbers[values[0].(int64)] = true
			}
			return nil
		})
		switch {
		case context.Cause(ctx) != nil:
			return context.Cause(ctx)
		case err != nil:
			i.problem("%s: after %d rows: %v", t.name, i.Rows[t.name], cause(err))
		}
		switch t.name {
		case "registries":
			registries = numbers
		case "edges":
			edges = numbers
		}
	}
	i.counts(ctx, db)
	err := each(ctx, db, `SELECT state, COUNT(*) FROM jobs WHERE state BETWEEN 0 AND 6 GROUP BY state`, nil, func(scan scanner) error {
		var state stateCode
		var n int64
		err := scan(&state, &n)
		if err == nil {
			i.Jobs[string(state.state())] = n
		}
		return err
	})
	if err != nil {
		i.problem("jobs: %v", cause(err))
	}
	return context.Cause(ctx)
}

// Numbers that are not those of the rows, by one look at all of them.
const (
	sqlMiscountedJobs = `SELECT COUNT(*) FROM (SELECT 1 FROM (SELECT edge, state, lane, n FROM job_counts
		UNION ALL SELECT edge, state, lane, -COUNT(*) FROM jobs WHERE state < 5 GROUP BY edge, state, lane) AS a
		GROUP BY edge, state, lane HAVING SUM(n) <> 0) AS b`
	sqlMiscountedRecords = `SELECT COUNT(*) FROM (SELECT 1 FROM (SELECT route, registry, trust, n, unconfirmed FROM record_counts
		UNION ALL SELECT route, registry, trust, -COUNT(*), -SUM(unconfirmed) FROM records GROUP BY route, registry, trust) AS a
		GROUP BY route, registry, trust HAVING SUM(n) <> 0 OR SUM(unconfirmed) <> 0) AS b`
)

// counts compares the numbers that are kept of rows with the rows.
func (i *Inspection) counts(ctx context.Context, db queryer) {
	if i.Schema != schemaVersion { // an older one may not have them yet
		return
	}
	for what, query := range map[string]string{"jobs": sqlMiscountedJobs, "records": sqlMiscountedRecords} {
		var groups int64
		if _, err := one(ctx, db, query, nil, &groups); err != nil {
			i.problem("%s cannot be counted: %v", what, cause(err))
		} else if groups > 0 {
			i.problem("the kept numbers of %s are wrong in %d places: status and metrics tell them", what, groups)
		}
	}
}

// cause is an error without what ErrCorrupt says to do: that is being done.
func cause(err error) error {
	var all interface{ Unwrap() []error }
	if errors.As(err, &all) && errors.Is(err, ErrCorrupt) {
		for _, e := range all.Unwrap() {
			if !errors.Is(e, ErrCorrupt) {
				return e
			}
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		return fs.ErrNotExist
	}
	return err
}
