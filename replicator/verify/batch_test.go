package verify

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/twinport/twinport/replicator/oci"
	"github.com/twinport/twinport/replicator/oci/ocitest"
)

// batched is a repository that is asked for many blobs at once.
type batched struct {
	oci.Repository
	requests atomic.Int32
	most     atomic.Int32
	sizeless bool
	refuse   error
}

func (b *batched) StatBlobs(ctx context.Context, digests []digest.Digest) (map[digest.Digest]int64, error) {
	b.requests.Add(1)
	b.most.Store(max(b.most.Load(), int32(len(digests))))
	if b.refuse != nil {
		return nil, b.refuse
	}
	sizes := make(map[digest.Digest]int64)
	for _, d := range digests {
		size, err := b.Repository.Stat(ctx, d)
		if b.sizeless {
			size = -1
		}
		if err == nil {
			sizes[d] = size
		}
	}
	return sizes, nil
}

func TestBlobsAreAskedForInBatches(t *testing.T) {
	const layers = 250
	layersOf := make([]ocitest.Blob, layers)
	for i := range layersOf {
		layersOf[i] = ocitest.Layer(fmt.Sprint("layer", i), 10)
	}
	c := ocitest.ImageOf("image", layersOf...)
	gone, cut := c.Blobs[3].Desc.Digest, c.Blobs[7]
	us := ocitest.New("oci://us", ocitest.Options{})
	us.Push(app, "v1", c)
	repo := &batched{Repository: us.Repository(app)}
	report, err := Image(context.Background(), repo, "v1", Options{})
	if err != nil || !report.Sound() || report.Blobs != layers+1 {
		t.Fatalf("%+v %v", report, err)
	}
	if n := repo.requests.Load(); n != 3 || repo.most.Load() > oci.MaxStatBlobs {
		t.Errorf("%d requests of at most %d, want 3", n, repo.most.Load())
	}
	us.Remove(app, gone)
	short := cut.Desc
	short.Size--
	us.AddBlob(app, short, nil)
	report, err = Image(context.Background(), repo, "v1", Options{})
	if err != nil || len(report.Missing) != 1 || report.Missing[0].Digest != gone || len(report.Corrupt) != 1 || report.Corrupt[0].Digest != cut.Desc.Digest {
		t.Errorf("%+v %v", report, err)
	}
}

func TestBatchesThatAreRefused(t *testing.T) {
	c := ocitest.MultiArch("index", 2, 2)
	us := ocitest.New("oci://us", ocitest.Options{})
	us.Push(app, "v1", c)
	ctx := context.Background()
	for name, refuse := range map[string]error{"unsupported": oci.ErrUnsupported, "denied": oci.ErrDenied} {
		us.ResetCalls()
		repo := &batched{Repository: us.Repository(app), refuse: refuse}
		if report, err := Image(ctx, repo, "v1", Options{}); err != nil || !report.Sound() || us.Count(ocitest.HeadBlob) != len(c.Blobs) {
			t.Errorf("%s: %+v %v, %d HEADs", name, report, err, us.Count(ocitest.HeadBlob))
		}
	}
	repo := &batched{Repository: us.Repository(app), refuse: oci.ErrUnreachable}
	if _, err := Image(ctx, repo, "v1", Options{}); !errors.Is(err, oci.ErrUnreachable) {
		t.Errorf("unreachable: %v", err)
	}
	repo = &batched{Repository: us.Repository(app), sizeless: true}
	us.Corrupt(app, c.Blobs[0].Desc.Digest)
	if report, err := Image(ctx, repo, "v1", Options{}); err != nil || len(report.Corrupt) != 1 {
		t.Errorf("without sizes small blobs are read: %+v %v", report, err)
	}
	us.ResetCalls()
	if _, err := Image(ctx, repo, "v1", Options{Deep: true}); err != nil || us.Count(ocitest.GetBlob) < len(c.Blobs) {
		t.Errorf("deep reads every blob: %v, %d read", err, us.Count(ocitest.GetBlob))
	}
}
