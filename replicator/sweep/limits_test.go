package sweep

import (
	"context"
	"fmt"
	"iter"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/oci"
)

// A wide registry has n repositories of one tag each, made as they are listed,
// and counts what it is asked.
type wide struct {
	oci.Registry
	identity string
	n        int
	look     func()
	asked    *atomic.Int64
}

func (w wide) Identity() string           { return w.identity }
func (w wide) Ping(context.Context) error { return nil }

func (w wide) Repositories(context.Context) iter.Seq2[string, error] {
	w.asked.Add(1)
	return func(yield func(string, error) bool) {
		for i := range w.n {
			if i%1000 == 0 && w.look != nil {
				w.look()
			}
			if !yield(fmt.Sprintf("team/app%07d", i), nil) {
				return
			}
		}
	}
}

func (w wide) Repository(name string) oci.Repository { return wideRepository{nil, w, name} }

type wideRepository struct {
	oci.Repository
	w    wide
	name string
}

func (r wideRepository) Name() string { return r.name }

func (r wideRepository) Tags(context.Context) iter.Seq2[oci.Tag, error] {
	r.w.asked.Add(1)
	return func(yield func(oci.Tag, error) bool) { yield(oci.Tag{Name: "v000000001"}, nil) }
}

func (r wideRepository) Resolve(context.Context, string) (v1.Descriptor, error) {
	r.w.asked.Add(1)
	return v1.Descriptor{Digest: tagDigest(1)}, nil
}

// wideRecords has a young record of each repository's tag.
type wideRecords struct{}

func (wideRecords) Records(_ context.Context, _, _, after string, _ int) ([]replicator.Record, error) {
	if strings.Compare(after, "v000000001") >= 0 {
		return nil, nil
	}
	return []replicator.Record{{Tag: "v000000001", Digest: tagDigest(1), ProvenAt: now, ReferrersAt: now}}, nil
}

func sweepWide(ctx context.Context, n int, look func(), dir string) (result Result, source, destination int64, err error) {
	var atSource, atDestination atomic.Int64
	result, err = Sweep(ctx, Request{
		Route: "prod", SourceName: "eu", Source: wide{identity: "oci://eu", n: n, look: look, asked: &atSource},
		Destinations: []Destination{{"us", wide{identity: "oci://us", n: n, asked: &atDestination}}},
		Rules:        rules{}, Records: wideRecords{}, Proof: 24 * time.Hour,
		Emit:    func(context.Context, []Difference) error { return nil },
		TempDir: dir, Now: func() time.Time { return now.Add(time.Minute) },
	})
	return result, atSource.Load(), atDestination.Load(), err
}

// TestLimitRepositories: a sweep of many repositories in sync costs two
// requests each at the source and one at a destination, and memory does not
// grow with them.
func TestLimitRepositories(t *testing.T) {
	peak := func(n int) uint64 {
		var most uint64
		look := func() {
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			most = max(most, m.HeapAlloc)
		}
		look()
		before := most
		result, source, destination, err := sweepWide(t.Context(), n, look, t.TempDir())
		if err != nil || !result.Complete || result.Repositories != int64(n) || result.InSync != int64(n) {
			t.Fatalf("%+v, %v", result, err)
		}
		if source > int64(2*n+1) || destination > int64(n+1) {
			t.Errorf("%d requests at the source and %d at the destination for %d repositories", source, destination, n)
		}
		return most - before
	}
	small, large := peak(2000), peak(20_000)
	if large > small+4<<20 {
		t.Errorf("memory grows with repositories: %d KiB for 2,000, %d KiB for 20,000", small>>10, large>>10)
	}
}

// BenchmarkLimitRepositories sweeps 100,000 repositories in sync.
func BenchmarkLimitRepositories(b *testing.B) {
	dir := b.TempDir()
	for b.Loop() {
		result, source, destination, err := sweepWide(b.Context(), 100_000, nil, dir)
		if err != nil || result.InSync != 100_000 {
			b.Fatal(result, err)
		}
		b.ReportMetric(float64(source), "source-requests")
		b.ReportMetric(float64(destination), "destination-requests")
	}
}
