package journal

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/journal/journaltest"
)

// BenchmarkFsync is what the machine takes to make 4 KiB durable: the floor
// under one commit.
func BenchmarkFsync(b *testing.B) {
	f, err := os.Create(filepath.Join(b.TempDir(), "file"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	page := make([]byte, 4096)
	for b.Loop() {
		if _, err := f.Write(page); err != nil {
			b.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			b.Fatal(err)
		}
	}
}

// engines are where the benchmarks keep their journals.
var engines = []struct {
	name    string
	options func(testing.TB) Options
}{
	{"sqlite", func(tb testing.TB) Options { return Options{Dir: tb.TempDir()} }},
	{"postgres", func(tb testing.TB) Options {
		return Options{Dir: tb.TempDir(), Database: given(journaltest.Database(tb))}
	}},
}

// BenchmarkAccept has 32 senders push distinct tags, each answered after its
// sync.
func BenchmarkAccept(b *testing.B) {
	for _, e := range engines {
		b.Run(e.name, func(b *testing.B) { benchmarkAccept(b, running1(b, e.options(b))) })
	}
}

func benchmarkAccept(b *testing.B, j *Journal) {
	const senders = 32
	var n atomic.Int64
	times := make([][]time.Duration, senders)
	var wg sync.WaitGroup
	b.ResetTimer()
	for s := range senders {
		wg.Go(func() {
			for {
				i := n.Add(1)
				if i > int64(b.N) {
					return
				}
				began := time.Now()
				if _, err := j.Accept(context.Background(), benchIntake(int(i))); err != nil {
					b.Error(err)
					return
				}
				times[s] = append(times[s], time.Since(began))
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	all := slices.Concat(times...)
	slices.Sort(all)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "webhooks/s")
	b.ReportMetric(float64(all[len(all)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(all[len(all)*99/100].Microseconds()), "p99-µs")
}

// BenchmarkWork claims and finishes jobs, each with its record and ten blobs,
// 16 at a time.
func BenchmarkWork(b *testing.B) {
	for _, e := range engines {
		b.Run(e.name, func(b *testing.B) { benchmarkWork(b, running1(b, e.options(b))) })
	}
}

func benchmarkWork(b *testing.B, j *Journal) {
	const at = 16
	for i := 0; i < b.N; i += 100 {
		var in Intake
		for k := i; k < min(i+100, b.N); k++ {
			in.Jobs = append(in.Jobs, benchIntake(k).Jobs...)
		}
		must(j.Accept(ctx0, in))(b)
	}
	b.ResetTimer()
	for left := b.N; left > 0; {
		claims := must(j.Claim(ctx0, ClaimOptions{Max: at, MaxForeground: at, Now: time.Now()}))(b)
		if len(claims) == 0 {
			b.Fatalf("%d jobs are left, and none is due", left)
		}
		left -= len(claims)
		var finishing sync.WaitGroup
		for _, c := range claims {
			finishing.Go(func() {
				if err := j.Finish(ctx0, c, []Outcome{benchOutcome(c.Jobs[0])}); err != nil {
					b.Error(err)
				}
			})
		}
		finishing.Wait()
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "jobs/s")
}

func benchOutcome(job replicator.Job) Outcome {
	o := Outcome{ID: job.ID, Generation: job.Generation, State: replicator.Done, Counted: true, Digest: job.Digest,
		Records: []replicator.Record{{Source: job.Source, Destination: job.Destination, Tag: job.Tag, Digest: job.Digest,
			Route: "prod", PushedAt: job.PushedAt, ProvenAt: time.Now(), Wrote: true}},
		History: []replicator.TagState{{Place: job.Destination, Tag: job.Tag, Digest: job.Digest, At: time.Now(), Cause: "copied"}}}
	for i := range 10 {
		o.Locations = append(o.Locations, replicator.Location{Place: job.Destination, Digest: digest.FromString(fmt.Sprint(job.Tag, i))})
	}
	return o
}

func benchIntake(i int) Intake {
	now := time.Now()
	src := replicator.Place{Registry: "eu", Identity: "oci:eu.example.com", Repository: fmt.Sprintf("team/app-%d", i%200)}
	dst := replicator.Place{Registry: "us", Identity: "oci:us.example.com", Repository: src.Repository}
	d := digest.FromString(fmt.Sprint(i))
	tag := fmt.Sprintf("v1.0.%d", i)
	return Intake{
		Jobs: []replicator.Job{{Source: src, Destination: dst, Tag: tag, Digest: d, PushedAt: now,
			Wants: []replicator.Want{{Route: "prod", Destination: "us"}}}},
		History: []replicator.TagState{{Place: src, Tag: tag, Digest: d, At: now, Cause: "webhook"}},
	}
}

func running1(tb testing.TB, o Options) *Journal {
	tb.Helper()
	j, err := Open(context.Background(), o)
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	stopped := make(chan error, 1)
	go func() { stopped <- j.Run(ctx) }()
	tb.Cleanup(func() {
		counted(tb, j)
		cancel()
		if err := <-stopped; err != nil {
			tb.Error(err)
		}
		if err := j.Close(); err != nil {
			tb.Error(err)
		}
	})
	return j
}
