package daemon

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/oci"
	"github.com/twinport/twinport/replicator/oci/ocitest"
	"github.com/twinport/twinport/replicator/plan"
)

func hint(repository string, b ocitest.Blob) replicator.Blob {
	return replicator.Blob{Registry: "eu", Repository: repository, Digest: b.Desc.Digest, Size: b.Desc.Size}
}

// What a source was given before the manifest is at the destinations before it
// is told of, read once; the push itself then sends none of it again.
func TestBlobsTravelAheadOfTheirManifest(t *testing.T) {
	in(t, []plan.Route{{Name: "prod", From: "eu", To: []string{"us", "ap"}, Proof: 24 * time.Hour}}, func(w *world) {
		img := ocitest.Image("one", 3)
		w.sites["eu"].Push("app", "", img)
		for _, b := range img.Blobs {
			w.Ahead([]replicator.Blob{hint("app", b)})
		}
		for _, name := range []string{"us", "ap"} {
			w.until("the blobs are at "+name, func() bool {
				for _, b := range img.Blobs {
					if _, there := w.sites[name].Blob("app", b.Desc.Digest); !there {
						return false
					}
				}
				return true
			})
			if tags := w.sites[name].TagNames("app"); len(tags) > 0 {
				t.Errorf("%s has tags %v", name, tags)
			}
		}
		w.rest()
		if n := len(w.allJobs()); n != 0 {
			t.Errorf("%d jobs for a hint", n)
		}
		reads, uploads := w.sites["eu"].Count(ocitest.GetBlob), w.sites["us"].Count(ocitest.PutUpload)
		if reads != len(img.Blobs) || uploads != len(img.Blobs) {
			t.Errorf("%d reads, %d uploads of %d blobs", reads, uploads, len(img.Blobs))
		}
		for _, wait := range []time.Duration{0, time.Hour} { // while it is evidence, and as a hint that is asked for
			time.Sleep(wait)
			tag := "v" + wait.String()
			w.push("eu", "app", tag, img)
			w.rest()
			w.proven("us", "app", tag, img)
			w.proven("ap", "app", tag, img)
		}
		if r, u := w.sites["eu"].Count(ocitest.GetBlob), w.sites["us"].Count(ocitest.PutUpload); r != reads || u != uploads {
			t.Errorf("%d reads and %d uploads after the push, %d and %d before", r, u, reads, uploads)
		}
	})
}

// A blob that comes ahead stands in no push's way: one that fails is brought by
// the push, one that is under way is waited for.
func TestABlobAheadThatFails(t *testing.T) {
	in(t, []plan.Route{{Name: "prod", From: "eu", To: []string{"us"}, Proof: 24 * time.Hour}}, func(w *world) {
		img := ocitest.Image("one", 2)
		var refused atomic.Bool
		w.sites["us"].on(func(_ context.Context, c ocitest.Call) error {
			if c.Method == ocitest.PutUpload && refused.CompareAndSwap(false, true) {
				time.Sleep(5 * time.Second)
				return oci.ErrDenied
			}
			return nil
		})
		w.Ahead([]replicator.Blob{hint("app", img.Blobs[1]), hint("app", ocitest.Layer("nowhere", 10))})
		time.Sleep(time.Second)
		w.push("eu", "app", "v1", img)
		w.rest()
		w.proven("us", "app", "v1", img)
		if !refused.Load() {
			t.Error("nothing was brought ahead")
		}
	})
}

// Nothing goes ahead to where it may not be wanted, or by a route that is paused.
func TestWhatDoesNotTravelAhead(t *testing.T) {
	routes := []plan.Route{
		{Name: "some", From: "eu", To: []string{"us"}, Tags: plan.TagFilter{Include: []string{"v*"}}},
		{Name: "paused", From: "eu", To: []string{"ap"}},
		{Name: "down", From: "eu", To: []string{"sa"}},
		{Name: "all", From: "eu", To: []string{"af"}},
	}
	in(t, routes, func(w *world) {
		if _, err := (Operator{Daemon: w.Daemon}).SetPaused(context.Background(), "paused", true, "test"); err != nil {
			t.Fatal(err)
		}
		w.sites["sa"].setDown(true)
		for range 5 {
			_ = w.sites["sa"].call(context.Background(), ocitest.Call{Method: ocitest.HeadBlob})
		}
		img := ocitest.Image("one", 1)
		w.sites["eu"].Push("app", "", img)
		for _, b := range img.Blobs {
			w.Ahead([]replicator.Blob{hint("app", b)})
		}
		w.until("the blobs are where they may go", func() bool {
			return w.sites["af"].Count(ocitest.PutUpload) == len(img.Blobs)
		})
		for _, name := range []string{"us", "ap", "sa"} {
			if n := w.sites[name].Count(ocitest.StartUpload); n != 0 {
				t.Errorf("%d uploads at %s", n, name)
			}
		}
		w.sites["sa"].setDown(false)
		many := make([]replicator.Blob, 10*aheadWaiting) // what finds no room is dropped
		for i := range many {
			many[i] = hint("app", ocitest.Layer("none", 5))
		}
		w.Ahead(many)
	})
}
