package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/twinport/twinport/replicator/oci"
	"github.com/twinport/twinport/replicator/oci/ocitest"
)

// readerFunc makes a Read method of a function.
type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// after lets the first n bytes pass, then asks f before each further read.
func after(r io.Reader, n int64, f func() error) io.Reader {
	return readerFunc(func(p []byte) (int, error) {
		if n <= 0 {
			if err := f(); err != nil {
				return 0, err
			}
		} else if int64(len(p)) > n {
			p = p[:n]
		}
		m, err := r.Read(p)
		n -= int64(m)
		return m, err
	})
}

func noLeaks(t *testing.T, c *Copier) {
	t.Helper()
	c.reads.mu.Lock()
	flights, idle := len(c.reads.flights), len(c.reads.idle)
	c.reads.mu.Unlock()
	whole := int(c.options.Memory / chunkSize)
	if free := c.reads.pool.available(); flights != 0 || idle != 0 || free != whole {
		t.Errorf("left behind: %d flights, %d idle, %d of %d chunks free", flights, idle, free, whole)
	}
	c.uploads.mu.Lock()
	defer c.uploads.mu.Unlock()
	if len(c.uploads.running) != 0 || c.SpoolBytes() != 0 || c.manifestBytes.Load() != 0 {
		t.Errorf("left behind: %d uploads, %d spooled bytes, %d manifest bytes", len(c.uploads.running), c.SpoolBytes(), c.manifestBytes.Load())
	}
	if c.options.SpoolDir != "" {
		if files, _ := filepath.Glob(filepath.Join(c.options.SpoolDir, "*"+spoolSuffix)); len(files) > 0 {
			t.Errorf("left behind: %v", files)
		}
	}
}

func blobReads(r *ocitest.Registry, d digest.Digest) (n int) {
	for _, c := range r.Calls() {
		if c.Method == ocitest.GetBlob && c.Reference == d.String() {
			n++
		}
	}
	return n
}

func TestOneReadServesManyDestinationsThoughOneIsSlow(t *testing.T) {
	layer := ocitest.Layer("big", 60*chunkSize+99)
	c := ocitest.ImageOf("image", layer, ocitest.Layer("small", 5000), ocitest.Layer("middle", 2<<20))
	for _, hook := range []string{"slow body", "slow answer"} {
		t.Run(hook, func(t *testing.T) {
			eu := ocitest.New("oci://eu", ocitest.Options{})
			eu.Push(app, "v1", c)
			var dests []Destination
			var registries []*ocitest.Registry
			for i := range 4 {
				registries = append(registries, ocitest.New(fmt.Sprintf("oci://d%d", i), ocitest.Options{}))
				dests = append(dests, to(registries[i]))
			}
			othersDone := make(chan struct{})
			switch hook {
			case "slow body":
				registries[0].OnWrite(func(_ ocitest.Call, r io.Reader) io.Reader {
					return after(r, 100_000, func() error { <-othersDone; return nil })
				})
			case "slow answer":
				registries[0].OnCall(func(_ context.Context, call ocitest.Call) error {
					if call.Method == ocitest.StartUpload {
						<-othersDone
					}
					return nil
				})
			}
			copier := New(Options{SpoolDir: t.TempDir()})
			req := request(eu, c, dests...)
			var left atomic.Int32
			left.Store(3)
			req.Finished = func(i int, r Result) {
				if i != 0 && left.Add(-1) == 0 {
					close(othersDone)
				}
			}
			var read int64
			for i, r := range copyTag(t, copier, req, "v1") {
				read += r.ReadBytes
				if !registries[i].Has(app, c) {
					t.Errorf("destination %d lacks something", i)
				}
			}
			if n := eu.Count(ocitest.GetBlob); n != len(c.Blobs) {
				t.Errorf("%d blob reads of %d", n, len(c.Blobs))
			}
			var all int64
			for _, b := range c.Blobs {
				all += b.Desc.Size
			}
			if read != all {
				t.Errorf("%d bytes counted as read of %d", read, all)
			}
			noLeaks(t, copier)
		})
	}
}

// A destination that reads on while what it lags behind is being spooled is not
// given up: the source is read once, whatever the processors do.
func TestWhoReadsOnWhileItIsSpooledStays(t *testing.T) {
	var layers []ocitest.Blob
	for i := range 4 {
		layers = append(layers, ocitest.Layer(fmt.Sprint("big", i), 200*chunkSize))
	}
	c := ocitest.ImageOf("image", layers...)
	eu := ocitest.New("oci://eu", ocitest.Options{})
	eu.Push(app, "v1", c)
	var dests []Destination
	for i := range 3 {
		r := ocitest.New(fmt.Sprintf("oci://d%d", i), ocitest.Options{})
		r.OnWrite(func(_ ocitest.Call, body io.Reader) io.Reader {
			return readerFunc(func(p []byte) (int, error) {
				n, err := body.Read(p)
				for range 3 * i { // slow, but steady
					digest.FromBytes(p[:n])
				}
				return n, err
			})
		})
		dests = append(dests, to(r))
	}
	copier := New(Options{SpoolDir: t.TempDir()})
	for i, r := range copier.Copy(context.Background(), request(eu, c, dests...)) {
		if r.Err != nil {
			t.Errorf("destination %d: %v", i, r.Err)
		}
	}
	if n := eu.Count(ocitest.GetBlob); n != len(c.Blobs) {
		t.Errorf("%d blob reads of %d", n, len(c.Blobs))
	}
	noLeaks(t, copier)
}

func TestWithoutASpoolTheSlowOneDropsOut(t *testing.T) {
	c := ocitest.ImageOf("image", ocitest.Layer("big", 80*chunkSize))
	for name, options := range map[string]Options{
		"no spool":   {},
		"full spool": {SpoolMax: 10 * chunkSize, SpoolDir: t.TempDir()},
	} {
		eu, us, ap := ocitest.New("oci://eu", ocitest.Options{}), ocitest.New("oci://us", ocitest.Options{}), ocitest.New("oci://ap", ocitest.Options{})
		eu.Push(app, "v1", c)
		othersDone := make(chan struct{})
		us.OnWrite(func(_ ocitest.Call, r io.Reader) io.Reader {
			return after(r, chunkSize, func() error { <-othersDone; return nil })
		})
		copier := New(options)
		req := request(eu, c, to(us), to(ap))
		req.Finished = func(i int, r Result) {
			if i == 1 {
				close(othersDone)
			}
		}
		results := copier.Copy(context.Background(), req)
		if !errors.Is(results[0].Err, oci.ErrInterrupted) || !errors.Is(results[0].Err, errLagging) || lasting(results[0].Err) {
			t.Errorf("%s: the slow one: %v", name, results[0].Err)
		}
		if results[1].Err != nil || eu.Count(ocitest.GetBlob) != 2 {
			t.Errorf("%s: the other one: %v, %d reads", name, results[1].Err, eu.Count(ocitest.GetBlob))
		}
		noLeaks(t, copier)
	}
}

func TestADyingDestinationFailsAlone(t *testing.T) {
	c := ocitest.ImageOf("image", ocitest.Layer("big", 40*chunkSize), ocitest.Layer("small", 10))
	eu, us, ap := ocitest.New("oci://eu", ocitest.Options{}), ocitest.New("oci://us", ocitest.Options{}), ocitest.New("oci://ap", ocitest.Options{})
	eu.Push(app, "v1", c)
	us.OnWrite(func(_ ocitest.Call, r io.Reader) io.Reader {
		return after(r, 3*chunkSize, func() error { return errors.New("connection reset") })
	})
	copier := New(Options{SpoolDir: t.TempDir()})
	results := copier.Copy(context.Background(), request(eu, c, to(us), to(ap)))
	if !errors.Is(results[0].Err, oci.ErrInterrupted) || len(results[0].Findings) != 0 {
		t.Errorf("the dying one: %v %v", results[0].Err, results[0].Findings)
	}
	if results[1].Err != nil || !slices.Contains(results[1].Landed, c.Blobs[1].Desc.Digest) {
		t.Errorf("the other one: %+v", results[1])
	}
	noLeaks(t, copier)
}

func TestALayerCrossesOnceForFiftyRepositories(t *testing.T) {
	eu, us := ocitest.New("oci://eu", ocitest.Options{}), ocitest.New("oci://us", ocitest.Options{})
	base := ocitest.Layer("base", 3<<20)
	copier := New(Options{Now: still()})
	var all sync.WaitGroup
	for i := range 50 {
		name := fmt.Sprintf("team/app%d", i)
		c := ocitest.ImageOf(name, base, ocitest.Layer(name, 64))
		eu.Push(name, "v1", c)
		req := request(eu, c, to(us, name))
		req.Source = eu.Repository(name)
		all.Go(func() {
			if r := copier.Copy(context.Background(), req)[0]; r.Err != nil {
				t.Errorf("%s: %v", name, r.Err)
			} else if err := copier.Tag(context.Background(), req.Destinations[0], "v1", c.Root()); err != nil || !us.Has(name, c) {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
	all.Wait()
	puts, mounts := 0, 0
	for _, call := range us.Calls() {
		if call.Reference == base.Desc.Digest.String() {
			switch {
			case call.Method == ocitest.PutUpload:
				puts++
			case call.Mounted:
				mounts++
			}
		}
	}
	if puts != 1 || mounts != 49 || blobReads(eu, base.Desc.Digest) != 1 {
		t.Errorf("%d uploads, %d mounts, %d reads", puts, mounts, blobReads(eu, base.Desc.Digest))
	}
	noLeaks(t, copier)
}

func TestTwoJobsOfOneRepositoryUploadOnce(t *testing.T) {
	eu, us := ocitest.New("oci://eu", ocitest.Options{}), ocitest.New("oci://us", ocitest.Options{})
	c := ocitest.ImageOf("image", ocitest.Layer("layer", 2<<20))
	eu.Push(app, "v1", c)
	copier := New(Options{Now: still()})
	var all sync.WaitGroup
	for range 10 {
		all.Go(func() {
			if r := copier.Copy(context.Background(), request(eu, c, to(us)))[0]; r.Err != nil || len(r.Landed) != 2 {
				t.Errorf("%+v", r)
			}
		})
	}
	all.Wait()
	if n := us.Count(ocitest.PutUpload); n != 2 {
		t.Errorf("%d uploads", n)
	}
	noLeaks(t, copier)
}

func TestAFailedUploadHandsTheTurnOn(t *testing.T) {
	eu, us := ocitest.New("oci://eu", ocitest.Options{}), ocitest.New("oci://us", ocitest.Options{})
	c := ocitest.Image("image", 1)
	eu.Push("a", "", c)
	eu.Push("b", "", c)
	us.OnCall(func(_ context.Context, call ocitest.Call) error {
		if call.Repository == "a" {
			return &oci.RegistryError{Status: 403, Kind: oci.ErrDenied}
		}
		return nil
	})
	copier := New(Options{})
	var all sync.WaitGroup
	for _, name := range []string{"a", "b"} {
		all.Go(func() {
			req := request(eu, c, to(us, name))
			req.Source = eu.Repository(name)
			if r := copier.Copy(context.Background(), req)[0]; errors.Is(r.Err, oci.ErrDenied) != (name == "a") || name == "b" && r.Err != nil {
				t.Errorf("%s: %v", name, r.Err)
			}
		})
	}
	all.Wait()
	noLeaks(t, copier)
}

func TestBrokenSourceReadsGoOnWhereTheyBroke(t *testing.T) {
	for _, ranges := range []bool{true, false} {
		eu, us := ocitest.New("oci://eu", ocitest.Options{NoRanges: !ranges}), ocitest.New("oci://us", ocitest.Options{})
		layer := ocitest.Layer("layer", 6*chunkSize)
		c := ocitest.ImageOf("image", layer)
		eu.Push(app, "v1", c)
		breaks := map[int64]bool{}
		var mu sync.Mutex
		eu.OnRead(func(call ocitest.Call, r io.Reader) io.Reader {
			if call.Reference != layer.Desc.Digest.String() {
				return r
			}
			left := 2*chunkSize + 1 - call.Offset%7
			if !ranges {
				mu.Lock()
				left = int64(len(breaks)+1) * (2*chunkSize + 1)
				breaks[left] = true
				mu.Unlock()
			}
			return after(r, left, func() error { return io.ErrUnexpectedEOF })
		})
		copyTag(t, New(Options{}), request(eu, c, to(us)), "v1")
		offsets := []int64{}
		for _, call := range eu.Calls() {
			if call.Reference == layer.Desc.Digest.String() {
				offsets = append(offsets, call.Offset)
			}
		}
		if !us.Has(app, c) || us.Count(ocitest.PutUpload) != 2 || ranges && (!slices.IsSorted(offsets) || len(slices.Compact(slices.Clone(offsets))) < 3) || len(offsets) < 3 {
			t.Errorf("ranges %v: read from %v, %d uploads", ranges, offsets, us.Count(ocitest.PutUpload))
		}
	}
}

func TestASourceThatHasLessThanItListsIsAMismatch(t *testing.T) {
	eu, us := ocitest.New("oci://eu", ocitest.Options{}), ocitest.New("oci://us", ocitest.Options{})
	c := ocitest.ImageOf("image", ocitest.Layer("layer", 3000))
	eu.Push(app, "v1", c)
	eu.OnRead(func(call ocitest.Call, r io.Reader) io.Reader {
		if call.Reference == c.Blobs[1].Desc.Digest.String() {
			return io.LimitReader(r, max(0, 1000-call.Offset))
		}
		return r
	})
	r := New(Options{}).Copy(context.Background(), request(eu, c, to(us)))[0]
	if !errors.Is(r.Err, oci.ErrMismatch) || !slices.Equal(kinds(r), []string{"mismatch"}) {
		t.Errorf("%v %v", r.Err, r.Findings)
	}
}

func TestBrokenUploadsGoOnOrBeginAnew(t *testing.T) {
	for _, test := range []struct {
		resumable bool
		size      int
		sessions  int
		reads     int
	}{{true, 20 * chunkSize, 1, 1}, {false, 20 * chunkSize, 2, 2}, {true, 1000, 1, 1}, {false, 1000, 2, 2}} {
		eu, us := ocitest.New("oci://eu", ocitest.Options{}), ocitest.New("oci://us", ocitest.Options{Resumable: test.resumable})
		layer := ocitest.Layer("layer", test.size)
		c := ocitest.ImageOf("image", layer)
		eu.Push(app, "v1", c)
		var broken atomic.Bool
		us.OnWrite(func(call ocitest.Call, r io.Reader) io.Reader {
			if call.Reference != layer.Desc.Digest.String() || broken.Swap(true) {
				return r
			}
			return after(r, int64(test.size/2), func() error { return errors.New("connection reset") })
		})
		copier := New(Options{})
		r := copyTag(t, copier, request(eu, c, to(us)), "v1")[0]
		sessions, puts := 0, 0
		for _, call := range us.Calls() {
			if call.Reference == layer.Desc.Digest.String() {
				switch call.Method {
				case ocitest.StartUpload:
					sessions++
				case ocitest.PutUpload:
					puts++
				}
			}
		}
		if !us.Has(app, c) || sessions != test.sessions || puts != 2 || us.OpenSessions() != 0 || blobReads(eu, layer.Desc.Digest) > test.reads {
			t.Errorf("%+v: %d sessions, %d puts, %d reads, %d open", test, sessions, puts, blobReads(eu, layer.Desc.Digest), us.OpenSessions())
		}
		if r.UploadedBytes < int64(test.size) {
			t.Errorf("%d bytes uploaded", r.UploadedBytes)
		}
		noLeaks(t, copier)
	}
}

func TestALostAnswerIsAskedForBeforeTheBlobIsSentAgain(t *testing.T) {
	eu, us := ocitest.New("oci://eu", ocitest.Options{}), ocitest.New("oci://us", ocitest.Options{})
	c := ocitest.Image("image", 1)
	eu.Push(app, "v1", c)
	us.OnWrite(func(call ocitest.Call, r io.Reader) io.Reader {
		data, err := io.ReadAll(r)
		if err != nil {
			return r
		}
		us.Push(app, "", ocitest.Content{Blobs: []ocitest.Blob{{Desc: v1.Descriptor{Digest: digest.Digest(call.Reference)}, Data: data}}})
		return readerFunc(func([]byte) (int, error) { return 0, errors.New("reset before the answer") })
	})
	copyTag(t, New(Options{}), request(eu, c, to(us)), "v1")
	if us.Count(ocitest.PutUpload) != 2 || us.Count(ocitest.HeadBlob) != 2 {
		t.Errorf("%v", us.Calls())
	}
}

func TestASourceRepositoryThatLacksABlobSpoilsNoOther(t *testing.T) {
	eu := ocitest.New("oci://eu", ocitest.Options{})
	us, ap := ocitest.New("oci://us", ocitest.Options{}), ocitest.New("oci://ap", ocitest.Options{})
	c := ocitest.ImageOf("image", ocitest.Layer("shared", 5000))
	eu.Push("whole", "", c)
	eu.Push("hollow", "", c)
	eu.Remove("hollow", c.Blobs[1].Desc.Digest)
	shared := c.Blobs[1].Desc.Digest.String()
	asked, joined := make(chan struct{}), make(chan struct{})
	var once sync.Once
	eu.OnCall(func(_ context.Context, call ocitest.Call) error {
		if call.Repository == "hollow" && call.Method == ocitest.GetBlob && call.Reference == shared {
			close(asked)
			<-joined
		}
		return nil
	})
	ap.OnCall(func(_ context.Context, call ocitest.Call) error {
		if call.Method == ocitest.StartUpload && call.Reference == shared {
			once.Do(func() { close(joined) })
		}
		return nil
	})
	copier := New(Options{})
	copyFrom := func(name string, dst *ocitest.Registry) Result {
		req := request(eu, c, to(dst))
		req.Source = eu.Repository(name)
		return copier.Copy(context.Background(), req)[0]
	}
	var all sync.WaitGroup
	all.Go(func() {
		if r := copyFrom("hollow", us); !errors.Is(r.Err, oci.ErrSourceIncomplete) {
			t.Errorf("hollow: %v", r.Err)
		}
	})
	<-asked
	if r := copyFrom("whole", ap); r.Err != nil {
		t.Errorf("whole: %v", r.Err)
	}
	all.Wait()
	noLeaks(t, copier)
}
