package sweep

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/oci"
)

// An endless registry has one repository of n tags and holds none of them: they
// are made as they are listed.
type endless struct {
	oci.Registry
	oci.Repository
	identity string
	n        int
	step     int // lists each step-th tag, 1 for all
	look     func()
}

func (e endless) Identity() string { return e.identity }
func (e endless) Name() string     { return "app" }

func (e endless) Repositories(context.Context) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) { yield("app", nil) }
}

type endlessRepository struct {
	oci.Repository
	e endless
}

func (e endless) repository() oci.Repository { return endlessRepository{nil, e} }

func tagName(i int) string { return fmt.Sprintf("v%09d", i) }

func tagDigest(i int) digest.Digest { return digest.Digest(fmt.Sprintf("sha256:%064x", i)) }

func (r endlessRepository) Name() string { return "app" }

func (r endlessRepository) Tags(context.Context) iter.Seq2[oci.Tag, error] {
	return func(yield func(oci.Tag, error) bool) {
		for i := 0; i < r.e.n; i += r.e.step {
			if i%10000 == 0 && r.e.look != nil {
				r.e.look()
			}
			if !yield(oci.Tag{Name: tagName(i)}, nil) {
				return
			}
		}
	}
}

func (r endlessRepository) Resolve(_ context.Context, reference string) (v1.Descriptor, error) {
	var i int
	if _, err := fmt.Sscanf(reference, "v%d", &i); err != nil || i%r.e.step != 0 {
		return v1.Descriptor{}, oci.ErrNotFound
	}
	return v1.Descriptor{Digest: tagDigest(i)}, nil
}

type endlessRegistry struct{ e endless }

func (r endlessRegistry) Identity() string           { return r.e.identity }
func (r endlessRegistry) Ping(context.Context) error { return nil }
func (r endlessRegistry) Repository(string) oci.Repository {
	return r.e.repository()
}
func (r endlessRegistry) Repositories(ctx context.Context) iter.Seq2[string, error] {
	return r.e.Repositories(ctx)
}

// endlessRecords has a young record for each tag.
type endlessRecords struct{ n int }

func (r endlessRecords) Records(_ context.Context, _, _, after string, limit int) ([]replicator.Record, error) {
	from := 0
	if after != "" {
		if _, err := fmt.Sscanf(after, "v%d", &from); err != nil {
			return nil, err
		}
		from++
	}
	page := make([]replicator.Record, 0, limit)
	for i := from; i < r.n && len(page) < limit; i++ {
		page = append(page, replicator.Record{Tag: tagName(i), Digest: tagDigest(i), ProvenAt: now, ReferrersAt: now})
	}
	return page, nil
}

func endlessRequest(n, step int, look func(), dir string) Request {
	return Request{
		Route: "prod", SourceName: "eu", Source: endlessRegistry{endless{identity: "oci://eu", n: n, step: 1, look: look}},
		Destinations: []Destination{{"us", endlessRegistry{endless{identity: "oci://us", n: n, step: step, look: look}}}},
		Rules:        rules{}, Records: endlessRecords{n},
		Proof:   24 * time.Hour,
		Emit:    func(context.Context, []Difference) error { return nil },
		TempDir: dir,
		Now:     func() time.Time { return now.Add(time.Minute) },
	}
}

func TestMemoryIsFlat(t *testing.T) {
	if testing.Short() {
		t.Skip("100,000 tags")
	}
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	peak := func(n int) uint64 {
		before, most := heap(), uint64(0)
		look := func() { most = max(most, heap()) }
		request := endlessRequest(n, 2, nil, t.TempDir())
		emitted := 0
		request.Emit = func(_ context.Context, ds []Difference) error {
			if emitted%20 == 0 {
				look()
			}
			emitted++
			return nil
		}
		result, err := Sweep(context.Background(), request)
		if err != nil || result.Tags != int64(n) || !result.Complete {
			t.Fatalf("got %+v, %v", result, err)
		}
		return max(most, before) - before
	}
	small, large := peak(10_000), peak(100_000)
	t.Logf("at most %d KiB for 10,000 tags, %d KiB for 100,000", small>>10, large>>10)
	if large > 12<<20 || large > 2*small+2<<20 {
		t.Errorf("memory grows with tags: %d KiB for 10,000, %d KiB for 100,000", small>>10, large>>10)
	}
}

func TestSpillLeavesNothingBehind(t *testing.T) {
	dir := t.TempDir()
	for _, emit := range []error{nil, errors.New("full")} {
		request := endlessRequest(3*bufferedTags, 2, nil, dir)
		request.Emit = func(context.Context, []Difference) error { return emit }
		if _, err := Sweep(context.Background(), request); !errors.Is(err, emit) {
			t.Fatal(err)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("left behind: %v %v", left, err)
		}
	}
	request := endlessRequest(3*bufferedTags, 2, nil, filepath.Join(dir, "absent"))
	result, err := Sweep(context.Background(), request)
	if !errors.Is(err, os.ErrNotExist) || result.Sources != nil || len(result.Failed) != 0 || result.Complete {
		t.Errorf("a disk of ours that fails is no registry's fault: %+v, %v", result, err)
	}
}

func BenchmarkSweep(b *testing.B) {
	for _, n := range []int{1_000, 10_000, 100_000} {
		b.Run(fmt.Sprintf("%d tags", n), func(b *testing.B) {
			dir := b.TempDir()
			b.ReportAllocs()
			for b.Loop() {
				result, err := Sweep(context.Background(), endlessRequest(n, 1, nil, dir))
				if err != nil || result.InSync != int64(n) {
					b.Fatal(result, err)
				}
			}
			b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "tags/s")
		})
	}
}
