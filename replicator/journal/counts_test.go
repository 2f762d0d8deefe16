package journal

import (
	"database/sql"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/pressly/goose/v3"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/journal/journaltest"
)

// oldJob and oldRecord write rows as the version before numbers were kept does.
func oldJob(id int, state stateCode) string {
	ended := 0
	if state >= done {
		ended = id
	}
	return fmt.Sprintf(`INSERT INTO jobs (%s) VALUES (%d, 1, 1, 'team/app', 2, 'team/app', 0, 'v%d', 'v%d', %d,
		'', 1, 1000, 0, %d, 0, %d, 0, 0, 0, '', '', '', 1, 0, '', '', '', '', 0, 1, 1)`, jobColumns, id, id, id, ended, 1_000_000+id, state)
}

func oldRecord(id, unconfirmed int) string {
	return fmt.Sprintf(`INSERT INTO records (registry, repository, ref, tag, digest, src, src_repository, route, pushed_at,
		proven_at, referrers_at, wrote, bytes, trust, unconfirmed)
		VALUES (2, 'team/app', 'v%d', 'v%d', '', 1, 'team/app', 'prod', 1, %d, 1, 1, 0, 0, %d)`, id, id, 1000+id, unconfirmed)
}

// earlier is a database as the version before left it: two jobs wait, one
// failed, one is done, and of three records one is unconfirmed.
func earlier(t *testing.T, d dialect, db *sql.DB) {
	t.Helper()
	defer db.Close()
	p, err := goose.NewProvider(d.goose, db, must(d.schema())(t), goose.WithLogger(goose.NopLogger()), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.UpTo(ctx0, 3); err != nil {
		t.Fatal(err)
	}
	for _, query := range []string{
		`INSERT INTO registries (id, identity, name) VALUES (1, 'oci:eu.example.com', 'eu'), (2, 'oci:us.example.com', 'us')`,
		`INSERT INTO edges (id, src, dst, flow, wants) VALUES (1, 1, 2, 0, '[["prod","us"]]')`,
		oldJob(1, waiting), oldJob(2, waiting), oldJob(3, failed), oldJob(4, done), oldRecord(1, 0), oldRecord(2, 1), oldRecord(3, 0),
	} {
		if _, err := db.ExecContext(ctx0, query); err != nil {
			t.Fatal(err)
		}
	}
}

// stands tells whether a journal's one standing has these numbers.
func stands(t *testing.T, j *Journal, waits, fails, proven, unconfirmed int64, behind int64) {
	t.Helper()
	counted(t, j)
	standings := must(j.Standings(ctx0))(t)
	if len(standings) != 1 {
		t.Fatalf("%+v", standings)
	}
	s := standings[0]
	if s.Counts[replicator.Waiting] != waits || s.Counts[replicator.Failed] != fails || s.Proven != proven || s.Unconfirmed != unconfirmed ||
		s.BehindSince != fromMicros(behind) {
		t.Errorf("%+v, want %d waiting, %d failed, %d proven, %d unconfirmed, behind since %s", s, waits, fails, proven, unconfirmed, fromMicros(behind))
	}
}

func TestNumbersOfWhatTheVersionBeforeLeft(t *testing.T) {
	t.Run("sqlite", func(t *testing.T) {
		dir := t.TempDir()
		earlier(t, sqliteDialect, must(sql.Open("sqlite", filepath.Join(dir, "journal.db")))(t))
		stands(t, running1(t, Options{Dir: dir}), 2, 1, 3, 1, 1_000_001)
	})
	t.Run("postgres", func(t *testing.T) {
		database := journaltest.Database(t)
		earlier(t, postgresDialect, must(sql.Open("pgx", database))(t))
		stands(t, running1(t, Options{Dir: t.TempDir(), Database: given(database)}), 2, 1, 3, 1, 1_000_001)
	})
}

// TestNumbersBesideTheVersionBefore: its replicas go on writing until they are
// replaced, and people write by hand.
func TestNumbersBesideTheVersionBefore(t *testing.T) {
	database := journaltest.Database(t)
	earlier(t, postgresDialect, must(sql.Open("pgx", database))(t))
	j := running1(t, Options{Dir: t.TempDir(), Database: given(database)})
	other := must(pgx.Connect(ctx0, database))(t)
	defer other.Close(ctx0)
	for _, c := range []struct {
		query                             string
		waits, fails, proven, unconfirmed int64
		behind                            int64
	}{
		{oldJob(5, waiting), 3, 1, 3, 1, 1_000_001},
		{oldJob(6, superseded), 3, 1, 3, 1, 1_000_001},
		{`UPDATE jobs SET edge = 1, state = 1, lane = 1 WHERE id = 1`, 2, 1, 3, 1, 1_000_001},
		{`UPDATE jobs SET edge = 1, state = 5, lane = 1, ended = 1 WHERE id = 1`, 2, 1, 3, 1, 1_000_002},
		{`UPDATE jobs SET attempts = 2, state = 0, lane = 1 WHERE id = 2`, 2, 1, 3, 1, 1_000_002},
		{`DELETE FROM jobs WHERE id IN (2, 3, 4)`, 1, 0, 3, 1, 1_000_005},
		{oldRecord(4, 1), 1, 0, 4, 2, 1_000_005},
		{`UPDATE records SET unconfirmed = 0, proven_at = 9`, 1, 0, 4, 0, 1_000_005},
		{`UPDATE records SET route = 'other' WHERE ref = 'v4'; UPDATE records SET route = 'prod' WHERE ref = 'v4'`, 1, 0, 4, 0, 1_000_005},
		{`UPDATE records SET trust = 1 WHERE ref = 'v4'`, 1, 0, 3, 0, 1_000_005},
		{`DELETE FROM records WHERE ref < 'v3'`, 1, 0, 1, 0, 1_000_005},
	} {
		if _, err := other.Exec(ctx0, c.query); err != nil {
			t.Fatal(err)
		}
		t.Log(c.query)
		stands(t, j, c.waits, c.fails, c.proven, c.unconfirmed, c.behind)
	}
	// Where the function's caller has another schema in mind.
	if _, err := other.Exec(ctx0, `SET search_path TO pg_catalog`); err != nil {
		t.Fatal(err)
	}
	schema := asked1(t, database, `SELECT current_schema()`)
	if _, err := other.Exec(ctx0, `DELETE FROM `+pgx.Identifier{schema, "records"}.Sanitize()); err != nil {
		t.Fatal(err)
	}
	counted(t, j)
}

func asked1(t *testing.T, database, query string) (text string) {
	t.Helper()
	conn := must(pgx.Connect(ctx0, database))(t)
	defer conn.Close(ctx0)
	if err := conn.QueryRow(ctx0, query).Scan(&text); err != nil {
		t.Fatal(err)
	}
	return text
}

func TestNumbersThatAreWrongAreFoundAndMended(t *testing.T) {
	for table, damage := range map[string]string{
		"jobs":    `UPDATE job_counts SET n = n + 1`,
		"records": `DELETE FROM record_counts`,
	} {
		dir := filepath.Dir(filled(t, 20))
		db := must(sql.Open("sqlite", filepath.Join(dir, "journal.db")))(t)
		if _, err := db.ExecContext(ctx0, damage); err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		i := must(Inspect(ctx0, dir))(t)
		if i.Sound || !strings.Contains(strings.Join(i.Problems, "\n"), "numbers of "+table) {
			t.Errorf("%s: %+v", table, i)
		}
		if r := must(Rebuild(ctx0, Options{Dir: dir}, false))(t); !r.Whole() || r.Aside == "" {
			t.Errorf("%s: %+v", table, r)
		}
		rows(t, dir)
		j := running1(t, Options{Dir: dir})
		counts := must(j.JobCounts(ctx0))(t)
		if n := counts[replicator.Waiting][replicator.LaneWebhook] + counts[replicator.Held][replicator.LaneWebhook]; n != 20 {
			t.Errorf("%s: %d jobs, there are 20", table, n)
		}
	}
}

// What a registry's distrust left behind goes with the next pruning.
func TestNumbersOfNothingAreForgotten(t *testing.T) {
	j := running1(t, Options{Dir: t.TempDir()})
	o := benchOutcome(benchIntake(1).Jobs[0])
	for range 5 {
		if err := j.SaveRecords(ctx0, o.Records); err != nil {
			t.Fatal(err)
		}
		if err := j.Distrust(ctx0, o.Records[0].Destination.Identity); err != nil {
			t.Fatal(err)
		}
	}
	left := func() (n int64) {
		t.Helper()
		if _, err := one(ctx0, j.reads, `SELECT COUNT(*) FROM record_counts`, nil, &n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := left(); n != 5 {
		t.Errorf("%d numbers before", n)
	}
	if err := j.Prune(ctx0, time.Now(), time.Hour); err != nil {
		t.Fatal(err)
	}
	if n := left(); n != 1 {
		t.Errorf("%d numbers after", n)
	}
}
