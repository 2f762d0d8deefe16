package journal

import (
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinport/twinport/replicator"
)

const benchRows = 1_000_000

// seed fills a journal with jobs of 4 edges, in all states and lanes, and as
// many records; one in 100,000 has the rare error.
func seed(b *testing.B, o Options) *Journal {
	b.Helper()
	j := running1(b, o)
	var jobs []replicator.Job
	for i := range 4 {
		job := benchIntake(i).Jobs[0]
		job.Tag = fmt.Sprint("seed-", i)
		name := fmt.Sprint("r", i)
		job.Destination.Registry, job.Destination.Identity = name, "oci:"+name
		job.Wants = []replicator.Want{{Route: fmt.Sprint("route-", i), Destination: name}}
		jobs = append(jobs, job)
	}
	must(j.Accept(ctx0, Intake{Jobs: jobs}))(b)
	err := wholesale(b, j, o, func(exec func(string, ...any) error) error {
		base := j.ids.next(micros(time.Now()))
		err := exec(`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < $1)
			INSERT INTO jobs (`+jobColumns+`) SELECT CAST($2 AS BIGINT) + i, e.id, e.src, 'team/app-' || (i % 5000), e.dst, 'team/app-' || (i % 5000), 0,
			'v' || i, 'v' || i, CASE WHEN i % 7 > 4 THEN CAST($2 AS BIGINT) + i ELSE 0 END, 'sha256:' || i, i % 4, 1, 0, 1000 + i, 0, i % 7, 0, 0, i, 
			CASE WHEN i % 7 IN (2, 3) THEN CASE WHEN i % 100000 = 2 THEN 'rare' ELSE 'denied' END ELSE '' END, 'm', '', 1, 0, '', '', '', '', 0, 1, 1
			FROM n JOIN edges e ON e.id = 1 + i % 4`, benchRows, base)
		if err != nil {
			return err
		}
		return exec(`INSERT INTO records (registry, repository, ref, tag, digest, src, src_repository, route, pushed_at,
			proven_at, referrers_at, wrote, bytes, trust) SELECT dst, dst_repository, ref, tag, digest, src, src_repository,
			'route-' || (edge - 1), 1, id, 1, 1, 1, 0 FROM jobs`)
	})
	if err != nil {
		b.Fatal(err)
	}
	recounted(b, j)
	return j
}

// recounted counts what was written past the journal.
func recounted(tb testing.TB, j *Journal) {
	tb.Helper()
	err := j.write(ctx0, true, func(batch *batch) error {
		for _, query := range []string{`DELETE FROM job_counts`, sqlRecountJobs, `DELETE FROM record_counts`,
			`INSERT INTO record_counts (route, registry, trust, n, unconfirmed)
				SELECT route, registry, trust, COUNT(*), SUM(unconfirmed) FROM records GROUP BY route, registry, trust`} {
			if err := batch.exec(query); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		tb.Fatal(err)
	}
}

// wholesale writes more at once than the journal's own transactions may.
func wholesale(tb testing.TB, j *Journal, o Options, f func(exec func(string, ...any) error) error) error {
	if o.Database == nil {
		return j.write(ctx0, true, func(batch *batch) error { return f(batch.exec) })
	}
	conn, err := pgx.Connect(ctx0, must(o.Database())(tb))
	if err != nil {
		return err
	}
	defer conn.Close(ctx0)
	for _, query := range []string{`SET twinport.counts = 'kept'`, `ALTER TABLE records DISABLE TRIGGER records_counted_made`} {
		if _, err := conn.Exec(ctx0, query); err != nil {
			return err
		}
	}
	err = f(func(query string, args ...any) error {
		_, err := conn.Exec(ctx0, query, args...)
		return err
	})
	if err == nil {
		_, err = conn.Exec(ctx0, "ANALYZE") // as PostgreSQL does by itself after a while
	}
	return err
}

// BenchmarkList lists pages of a journal of a million jobs: each is to take
// less than 100 ms.
func BenchmarkList(b *testing.B) {
	for _, e := range engines {
		b.Run(e.name, func(b *testing.B) {
			j := seed(b, e.options(b))
			benchmarkList(b, j)
		})
	}
}

func benchmarkList(b *testing.B, j *Journal) {
	manual := replicator.LaneManual
	for name, f := range map[string]JobFilter{
		"all":                {},
		"state":              {States: []replicator.JobState{replicator.Failed}},
		"route":              {Route: "route-2"},
		"route, state":       {Route: "route-2", States: []replicator.JobState{replicator.Waiting}},
		"error":              {ErrorKind: "denied"},
		"rare error":         {ErrorKind: "rare"},
		"lane":               {Lane: &manual},
		"repository":         {Repository: "team/app-77"},
		"page of 1000":       {Limit: 1000},
		"error and state":    {ErrorKind: "denied", States: []replicator.JobState{replicator.Refused}},
		"error and route":    {ErrorKind: "rare", Route: "route-1"},
		"error, no route":    {ErrorKind: "denied", Route: "route-1", Lane: &manual},
		"error, no state":    {ErrorKind: "denied", States: []replicator.JobState{replicator.Held}},
		"tag (looks at all)": {Tag: "v999999"},
	} {
		b.Run(name, func(b *testing.B) {
			slowest := time.Duration(0)
			for b.Loop() {
				began := time.Now()
				page := f
				for range 3 { // the first pages and what follows
					_, next, err := j.Jobs(ctx0, page)
					if err != nil {
						b.Fatal(err)
					}
					slowest = max(slowest, time.Since(began))
					if page.After = next; next == "" {
						break
					}
					began = time.Now()
				}
			}
			b.ReportMetric(float64(slowest.Microseconds())/1000, "slowest-ms")
		})
	}
	b.Run("standings", func(b *testing.B) {
		for b.Loop() {
			must(j.Standings(ctx0))(b)
		}
	})
	b.Run("counts", func(b *testing.B) {
		for b.Loop() {
			must(j.JobCounts(ctx0))(b)
		}
	})
	b.Run("behind", func(b *testing.B) {
		for b.Loop() {
			if _, _, err := j.Behind(ctx0, "route-1", "r1", "", 100); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("claim", func(b *testing.B) {
		for b.Loop() {
			for _, c := range must(j.Claim(ctx0, ClaimOptions{Max: 1, MaxForeground: 1, MaxBackground: 1, Now: time.Now()}))(b) {
				if err := j.Release(ctx0, c); err != nil {
					b.Fatal(err)
				}
			}
		}
	})
	b.Run("next due", func(b *testing.B) {
		for b.Loop() {
			must(j.NextDue(ctx0))(b)
		}
	})
}
