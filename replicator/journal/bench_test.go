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

// BenchmarkAccept has 32 senders push distinct tags, each answered after its
// sync.
func BenchmarkAccept(b *testing.B) {
	j := running1(b, Options{Dir: b.TempDir()})
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
