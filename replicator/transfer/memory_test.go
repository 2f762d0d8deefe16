package transfer

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/twinport/twinport/replicator/oci"
	"github.com/twinport/twinport/replicator/oci/ocitest"
)

// zeros gives a blob of zeros that is made while it is read.
func zeros(size int64) (v1.Descriptor, func(int64) io.Reader) {
	h := sha256.New()
	_, _ = io.Copy(h, io.LimitReader(zeroReader{}, size))
	return v1.Descriptor{MediaType: v1.MediaTypeImageLayer, Digest: digest.NewDigest(digest.SHA256, h), Size: size},
		func(int64) io.Reader { return zeroReader{} }
}

type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func TestAGreatBlobNeedsLittleMemory(t *testing.T) {
	const size = 1 << 30
	desc, open := zeros(size)
	config := ocitest.Image("great", 0)
	c := ocitest.ImageOf("great", ocitest.Blob{Desc: desc})
	eu := ocitest.New("oci://eu", ocitest.Options{})
	us := ocitest.New("oci://us", ocitest.Options{DiscardAbove: 1 << 20})
	eu.Push(app, "v1", c)
	eu.Push(app, "", config)
	eu.AddBlob(app, desc, open)
	copier := New(Options{})
	runtime.GC()
	var before, most, now runtime.MemStats
	runtime.ReadMemStats(&before)
	var mu sync.Mutex
	var steps int
	req := request(eu, c, to(us))
	req.Progress = func(Progress) {
		mu.Lock()
		defer mu.Unlock()
		if steps++; steps%256 == 0 {
			runtime.ReadMemStats(&now)
			most.HeapInuse = max(most.HeapInuse, now.HeapInuse)
		}
	}
	copyTag(t, copier, req, "v1")
	runtime.ReadMemStats(&now)
	if grown := int64(most.HeapInuse) - int64(before.HeapInuse); grown > 64<<20 {
		t.Errorf("the heap grew by %d MiB", grown>>20)
	}
	if allocated := now.TotalAlloc - before.TotalAlloc; allocated > 64<<20 {
		t.Errorf("%d MiB were allocated over all", allocated>>20)
	}
	if n := now.Mallocs - before.Mallocs; n > 4*size/chunkSize {
		t.Errorf("%d allocations for %d chunks", n, size/chunkSize)
	}
}

func TestMemoryIsSharedByManyCopies(t *testing.T) {
	eu, us := ocitest.New("oci://eu", ocitest.Options{}), ocitest.New("oci://us", ocitest.Options{})
	copier := New(Options{Memory: 8 * chunkSize})
	var all sync.WaitGroup
	for i := range 24 {
		name := fmt.Sprintf("app%d", i)
		c := ocitest.ImageOf(name, ocitest.Layer(name+"a", 5*chunkSize), ocitest.Layer(name+"b", smallSize), ocitest.Layer(name+"c", 10))
		eu.Push(name, "v1", c)
		req := request(eu, c, to(us, name))
		req.Source = eu.Repository(name)
		all.Go(func() {
			if r := copier.Copy(context.Background(), req)[0]; r.Err != nil {
				t.Errorf("%s: %v", name, r.Err)
			}
		})
	}
	all.Wait()
	noLeaks(t, copier)
}

func TestStalledUploadsLeaveMemoryToOthers(t *testing.T) {
	eu, us, ap := ocitest.New("oci://eu", ocitest.Options{}), ocitest.New("oci://us", ocitest.Options{}), ocitest.New("oci://ap", ocitest.Options{})
	copier := New(Options{Memory: 16 * chunkSize})
	release := make(chan struct{})
	us.OnWrite(func(_ ocitest.Call, r io.Reader) io.Reader {
		return after(r, 10, func() error { <-release; return nil })
	})
	var stalled sync.WaitGroup
	for i := range 4 {
		c := ocitest.ImageOf(fmt.Sprint("stalled", i), ocitest.Layer(fmt.Sprint("stalled", i), 30*chunkSize))
		eu.Push(app, "", c)
		stalled.Go(func() {
			if r := copier.Copy(context.Background(), request(eu, c, to(us)))[0]; r.Err != nil {
				t.Error(r.Err)
			}
		})
	}
	c := ocitest.ImageOf("free", ocitest.Layer("free", 30*chunkSize), ocitest.Layer("tiny", 10))
	eu.Push(app, "", c)
	if r := copier.Copy(context.Background(), request(eu, c, to(ap)))[0]; r.Err != nil {
		t.Error(r.Err)
	}
	close(release)
	stalled.Wait()
	noLeaks(t, copier)
}

func TestSmallBlobsThatWaitForAConnectionHoldNoGreatOneUp(t *testing.T) {
	eu, us := ocitest.New("oci://eu", ocitest.Options{}), ocitest.New("oci://us", ocitest.Options{})
	copier := New(Options{Memory: smallChunks * chunkSize, BlobConcurrency: 2 * smallChunks})
	big := ocitest.Layer("big", 9*chunkSize)
	layers := []ocitest.Blob{big}
	for i := range smallChunks - 1 { // and the config
		layers = append(layers, ocitest.Layer(fmt.Sprint("small", i), 10))
	}
	c := ocitest.ImageOf("image", layers...)
	eu.Push(app, "v1", c)
	// One connection: the great blob has it; of the small ones as many have been
	// read as memory lets.
	const held = smallChunks * 5 / 8
	read, done := make(chan struct{}, smallChunks), make(chan struct{})
	us.OnWrite(func(call ocitest.Call, r io.Reader) io.Reader {
		if call.Reference == big.Desc.Digest.String() {
			for range held {
				<-read
			}
			return r
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Error(err)
		}
		read <- struct{}{}
		<-done
		return bytes.NewReader(data)
	})
	us.OnDone(func(call ocitest.Call) {
		if call.Method == ocitest.PutUpload && call.Reference == big.Desc.Digest.String() {
			close(done)
		}
	})
	copyTag(t, copier, request(eu, c, to(us)), "v1")
	if !us.Has(app, c) {
		t.Error("something is missing")
	}
	noLeaks(t, copier)
}

func TestTheSpoolIsNotTrusted(t *testing.T) {
	dir := t.TempDir()
	old := filepath.Join(dir, "sha256-abc.1"+spoolSuffix)
	if err := os.WriteFile(old, []byte("left behind"), 0o600); err != nil {
		t.Fatal(err)
	}
	mine := filepath.Join(dir, "precious")
	if err := os.WriteFile(mine, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s := &spool{dir: dir, max: 1 << 20}
	f, err := s.open(digest.FromString("x"), chunkSize)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(old); !os.IsNotExist(err) {
		t.Error("an old spool file is still there")
	}
	if _, err := os.Stat(mine); err != nil {
		t.Error("a file that is none of ours was removed")
	}
	data := ocitest.Random("spool", 3*spoolBlock+100)
	if err := f.append(data); err != nil {
		t.Fatal(err)
	}
	read := func(offset int64, n int) error {
		p := make([]byte, n)
		got := 0
		for got < n {
			m, err := f.readAt(p[got:], chunkSize+offset+int64(got))
			if err != nil {
				return err
			}
			got += m
		}
		if !slices.Equal(p, data[offset:offset+int64(n)]) {
			t.Errorf("other bytes at %d", offset)
		}
		return nil
	}
	for _, at := range []struct {
		offset int64
		n      int
	}{{0, len(data)}, {1, 10}, {spoolBlock - 1, 2}, {3 * spoolBlock, 100}, {5, 2 * spoolBlock}} {
		if err := read(at.offset, at.n); err != nil {
			t.Errorf("%v: %v", at, err)
		}
	}
	if _, err := f.f.WriteAt([]byte{data[spoolBlock+5] ^ 1}, spoolBlock+5); err != nil {
		t.Fatal(err)
	}
	if err := read(0, spoolBlock); err != nil {
		t.Errorf("the block before the damage: %v", err)
	}
	if err := read(0, spoolBlock+1); !errors.Is(err, oci.ErrInterrupted) {
		t.Errorf("damage was passed on: %v", err)
	}
	if err := f.append(make([]byte, 1<<20)); !errors.Is(err, errSpoolFull) {
		t.Errorf("beyond the bound: %v", err)
	}
	f.close()
	if s.used.Load() != 0 {
		t.Errorf("%d bytes counted", s.used.Load())
	}
}

func TestPoolWaitersAreServedAndGiveUp(t *testing.T) {
	p := newPool(4)
	var a, b atomic.Int32
	got := p.try(nil, 4, false, &a)
	if len(got) != 4 || p.try(nil, 1, false, &b) != nil {
		t.Fatal("a pool of 4 gave other than 4")
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := p.wait(ctx, 1, false, &b); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled wait: %v", err)
	}
	served := make(chan error, 1)
	go func() { served <- p.wait(context.Background(), 2, false, &b) }()
	for _, c := range got {
		a.Add(-1)
		p.release(c)
	}
	select {
	case err := <-served:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("nobody woke the waiter")
	}
	for i, want := range []bool{true, true, false} {
		if got := p.try(nil, 1, false, &b) != nil; got != want {
			t.Errorf("chunk %d: %v: windows grow in the first half only", i, got)
		}
	}
	if p.try(nil, 2, false, &a) == nil {
		t.Error("the second half is for those that hold nothing")
	}
}

func BenchmarkHashing(b *testing.B) {
	const size = 64 << 20
	desc, open := zeros(size)
	b.SetBytes(size)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := io.Copy(io.Discard, oci.NewHashingReader(io.LimitReader(open(0), size), desc)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkFanOut(b *testing.B) {
	const size = 64 << 20
	desc, open := zeros(size)
	c := ocitest.ImageOf("bench", ocitest.Blob{Desc: desc})
	eu := ocitest.New("oci://eu", ocitest.Options{})
	eu.Push(app, "v1", c)
	eu.AddBlob(app, desc, open)
	for _, n := range []int{1, 3} {
		b.Run(fmt.Sprintf("%d destinations", n), func(b *testing.B) {
			b.SetBytes(size)
			b.ReportAllocs()
			for b.Loop() {
				var dests []Destination
				for i := range n {
					dests = append(dests, to(ocitest.New(fmt.Sprintf("oci://d%d", i), ocitest.Options{DiscardAbove: 1})))
				}
				req := request(eu, c, dests...)
				req.Referrers = ReferrersNone
				for _, r := range New(Options{SpoolDir: b.TempDir()}).Copy(context.Background(), req) {
					if r.Err != nil {
						b.Fatal(r.Err)
					}
				}
			}
		})
	}
}
