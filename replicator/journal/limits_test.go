package journal

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/twinport/twinport/replicator"
)

// TestLimitVersions: of a tag with 10,000 versions the newest are kept, and
// what it named lately is found.
func TestLimitVersions(t *testing.T) {
	const versions, kept = 10_000, 1000
	j := running1(t, Options{Dir: t.TempDir()})
	place := benchIntake(0).History[0].Place
	began := time.Now().Add(-versions * time.Second)
	digestOf := func(i int) digest.Digest { return digest.FromString(fmt.Sprint("version ", i)) }
	for from := 0; from < versions; from += 500 {
		in := Intake{}
		for i := range 500 {
			in.History = append(in.History, replicator.TagState{Place: place, Tag: "latest",
				Digest: digestOf(from + i), At: began.Add(time.Duration(from+i) * time.Second), Cause: "webhook"})
		}
		must(j.Accept(ctx0, in))(t)
	}
	if err := j.Prune(ctx0, time.Now(), 30*24*time.Hour); err != nil {
		t.Fatal(err)
	}
	var rows int
	if _, err := one(ctx0, j.reads, `SELECT COUNT(*) FROM tag_states`, nil, &rows); err != nil || rows > kept+100 {
		t.Errorf("%d rows of %d versions, %v", rows, versions, err)
	}
	states := must(j.History(ctx0, place.Identity, place.Repository, "latest", nil, 10))(t)
	for n, s := range states {
		if want := digestOf(versions - 1 - n); s.Digest != want {
			t.Errorf("state %d is %s, not %s", n, s.Digest, want)
		}
	}
	at := began.Add((versions - 500) * time.Second)
	if states := must(j.History(ctx0, place.Identity, place.Repository, "latest", &at, 1))(t); len(states) != 1 || states[0].Digest != digestOf(versions-500) {
		t.Errorf("at %s it named %v", at, states)
	}
}

// manyWaiting fills a journal with n waiting jobs, each of a tag of its own, in
// up to 5,000 repositories: one after the other, or each row would be written
// to another page of three indexes, which takes minutes for a million.
func manyWaiting(tb testing.TB, j *Journal, n int) {
	tb.Helper()
	must(j.Accept(ctx0, benchIntake(0)))(tb)
	each := max(n/5000, 1)
	for from := 0; from < n; from += 100_000 { // each a transaction of its own
		err := j.write(ctx0, true, func(batch *batch) error {
			return batch.exec(`WITH RECURSIVE n(i) AS (SELECT $1 UNION ALL SELECT i + 1 FROM n WHERE i < $2)
				INSERT INTO jobs (`+jobColumns+`) SELECT $3 + i, e.id, e.src, printf('team/app-%08d', i / $4), e.dst, printf('team/app-%08d', i / $4), 0,
				printf('v%08d', i), printf('v%08d', i), 0, 'sha256:' || i, 2, 1, 0, 1000 + i, 0, 0, 0, 0, 1,
				'', '', '', 1, 0, '', '', '', '', 0, 1, 1 FROM n JOIN edges e ON e.id = 1`,
				from+1, min(from+100_000, n), j.ids.next(batch.now)+int64(from), each)
		})
		if err != nil {
			tb.Fatal(err)
		}
	}
	recounted(tb, j)
}

// TestLimitWaiting: with many jobs waiting, taking some, listing a page and
// taking in more hold no more memory than with few.
func TestLimitWaiting(t *testing.T) {
	used := func(n int) uint64 {
		j := running1(t, Options{Dir: t.TempDir()})
		manyWaiting(t, j, n)
		runtime.GC()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		claims := must(j.Claim(ctx0, ClaimOptions{Max: 16, MaxForeground: 16, MaxBackground: 16, Now: time.Now()}))(t)
		if len(claims) != 16 {
			t.Errorf("%d claims", len(claims))
		}
		if jobs, next, err := j.Jobs(ctx0, JobFilter{States: []replicator.JobState{replicator.Waiting}, Limit: 100}); err != nil || len(jobs) != 100 || next == "" {
			t.Errorf("%d jobs, %v", len(jobs), err)
		}
		must(j.Accept(ctx0, benchIntake(7)))(t)
		must(j.Standings(ctx0))(t)
		runtime.ReadMemStats(&after)
		return after.TotalAlloc - before.TotalAlloc
	}
	few, many := used(1000), used(60_000)
	t.Logf("%d KiB with 1,000 jobs, %d KiB with 60,000", few>>10, many>>10)
	if many > 3*few+1<<20 {
		t.Errorf("memory grows with waiting jobs: %d KiB with 1,000, %d KiB with 60,000", few>>10, many>>10)
	}
}

// BenchmarkLimitWaiting works with two million waiting jobs.
func BenchmarkLimitWaiting(b *testing.B) {
	j := running1(b, Options{Dir: b.TempDir()})
	manyWaiting(b, j, 2_000_000)
	b.Run("claim", func(b *testing.B) {
		for b.Loop() {
			for _, c := range must(j.Claim(ctx0, ClaimOptions{Max: 1, MaxForeground: 1, MaxBackground: 1, Now: time.Now()}))(b) {
				if err := j.Release(ctx0, c); err != nil {
					b.Fatal(err)
				}
			}
		}
	})
	b.Run("accept", func(b *testing.B) {
		n := 1
		for b.Loop() {
			n++
			must(j.Accept(ctx0, benchIntake(n)))(b)
		}
	})
	b.Run("page", func(b *testing.B) {
		for b.Loop() {
			if jobs, _, err := j.Jobs(ctx0, JobFilter{States: []replicator.JobState{replicator.Waiting}, Limit: 100}); err != nil || len(jobs) != 100 {
				b.Fatal(len(jobs), err)
			}
		}
	})
	b.Run("standings", func(b *testing.B) {
		for b.Loop() {
			must(j.Standings(ctx0))(b)
		}
	})
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	const most = 16 << 20 // beside SQLite's own pages: 16 MiB, and 2 for each reader
	if m.HeapAlloc > most {
		b.Errorf("%d MiB are alive on the heap", m.HeapAlloc>>20)
	}
	b.Logf("alive on the heap: %d KiB, journal: %d MiB", m.HeapAlloc>>10, j.Size()>>20)
}
