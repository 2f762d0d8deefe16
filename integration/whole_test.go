package integration

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/twinport/twinport/integration/harness"
)

// P4: a tag is never visible before its image is whole and before the
// referrers the source had then: asked at the very moment twinport writes the
// tag, and by a poller.
func TestATagIsNeverVisibleBeforeItsImageIsWhole(t *testing.T) {
	t.Parallel()
	w := start(t, setup{})
	w.proxy["us"].Inject(harness.Fault{Jitter: 8 * time.Millisecond}) // widens the gaps between steps
	n := scaled(12, 5)
	images := make(map[string]attached)
	for i := range n {
		images[fmt.Sprintf("v%d", i)] = w.signed(2, harness.ImageSpec{Layers: 2, LayerSize: 64 << 10, Shared: []int{1}})
	}
	whole := func(ctx context.Context, tag string) error {
		a := images[tag]
		if err := w.us.Has(ctx, "team/app", "", a.root, true); err != nil {
			return err
		}
		return a.belongings(ctx, w.us, "team/app")
	}
	var mu sync.Mutex
	asked := 0
	w.proxy["us"].Before(func(r harness.Request) {
		if _, ours := images[r.Reference]; !ours || r.Method != http.MethodPut {
			return
		}
		err := whole(context.Background(), r.Reference)
		mu.Lock()
		defer mu.Unlock()
		asked++
		if err != nil {
			t.Errorf("at the PUT of %s: %v", r.Reference, err)
		}
	})
	var watches []*harness.Watch
	for tag := range images {
		watches = append(watches, harness.WatchTag(t, w.us, "team/app", tag, func(ctx context.Context, _ digest.Digest) error {
			return whole(ctx, tag)
		}))
	}
	err := harness.Each(t.Context(), n, func(ctx context.Context, i int) error {
		tag := fmt.Sprintf("v%d", i)
		a := images[tag]
		if err := a.pushUntagged(ctx, w.eu, "team/app"); err != nil {
			return err
		}
		return w.eu.PutManifest(ctx, "team/app", tag, a.root)
	})
	if err != nil {
		t.Fatal(err)
	}
	for tag, a := range images {
		harness.WaitHas(t, w.us, "team/app", tag, a.root, soon)
	}
	for _, watch := range watches {
		if _, err := watch.Stop(); err != nil {
			t.Error(err)
		}
	}
	w.WaitSettled(soon)
	mu.Lock()
	defer mu.Unlock()
	if asked < n {
		t.Errorf("%d writes of %d tags passed the proxy", asked, n)
	}
	w.noFindings()
}

// P4: a referrer the destination refuses for good does not keep the image away;
// the tag moves, with a finding.
func TestARefusedReferrerIsAFinding(t *testing.T) {
	t.Parallel()
	w := build(t, setup{})
	a := w.signed(1, harness.ImageSpec{})
	bad := a.referrers[0].Digest
	w.proxy["us"].Inject(harness.Fault{Status: 400, Match: func(r harness.Request) bool {
		return r.Method == http.MethodPut && r.Class == harness.Manifest && r.Digest() == bad
	}})
	if err := a.pushUntagged(t.Context(), w.eu, "team/app"); err != nil {
		t.Fatal(err)
	}
	w.Start()
	w.push("team/app", a.root, "v1")
	harness.WaitHas(t, w.us, "team/app", "v1", a.root, soon)
	w.WaitFinding(soon, "team/app", "", "referrers", "refused")
}

// P4: `referrers: required` waits instead.
func TestRequiredReferrersHoldTheTag(t *testing.T) {
	t.Parallel()
	w := build(t, setup{route: []string{"sweep: never", "referrers: required"}})
	a := w.signed(1, harness.ImageSpec{})
	bad := a.referrers[0].Digest
	heal := w.proxy["us"].Inject(harness.Fault{Status: 500, Match: func(r harness.Request) bool {
		return r.Method == http.MethodPut && r.Class == harness.Manifest && r.Digest() == bad
	}})
	if err := a.pushUntagged(t.Context(), w.eu, "team/app"); err != nil {
		t.Fatal(err)
	}
	w.Start()
	w.push("team/app", a.root, "v1")
	harness.WaitFor(t, "an attempt at the referrer", soon, func(context.Context) error {
		if w.proxy["us"].Taken() < 3 {
			return fmt.Errorf("%d tries", w.proxy["us"].Taken())
		}
		return nil
	})
	if err := absent(t.Context(), w.us, "team/app", "v1"); err != nil {
		t.Error(err)
	}
	heal()
	harness.WaitHas(t, w.us, "team/app", "v1", a.root, 90*time.Second)
	if err := a.belongings(t.Context(), w.us, "team/app"); err != nil {
		t.Error(err)
	}
}

// P6: content removed at the destination between a PUT and the proof is never
// recorded as proven, and comes back.
func TestContentRemovedBeforeTheProofIsNotProven(t *testing.T) {
	t.Parallel()
	type moment func(r harness.Request, a attached, lost string) bool
	moments := map[string]moment{
		"after its own upload": func(r harness.Request, _ attached, lost string) bool {
			return r.Class == harness.Upload && r.Query.Get("digest") == lost
		},
		"after the root was put by digest": func(r harness.Request, a attached, _ string) bool {
			return r.Class == harness.Manifest && r.Digest() == a.root.Digest
		},
	}
	for name, at := range moments {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := start(t, setup{})
			a := w.signed(1, harness.ImageSpec{Layers: 2})
			lost := a.root.Children[0].Blobs[1].Digest.String()
			var once sync.Once
			var heal func()
			removed := make(chan struct{})
			w.proxy["us"].After(func(r harness.Request) {
				if r.Method != http.MethodPut || r.Status != http.StatusCreated || !at(r, a, lost) {
					return
				}
				once.Do(func() {
					w.reg["us"].RemoveBlob(lost)
					heal = w.proxy["us"].Inject(harness.Fault{Status: 500, Match: harness.Is(http.MethodPost, harness.Upload)})
					close(removed)
				})
			})
			if err := a.pushUntagged(t.Context(), w.eu, "team/app"); err != nil {
				t.Fatal(err)
			}
			w.push("team/app", a.root, "v1")
			select {
			case <-removed:
			case <-time.After(soon):
				t.Fatal("the moment never came")
			}
			// The proof notices: twinport tries to bring the blob again.
			harness.WaitFor(t, "an attempt to repair", soon, func(context.Context) error {
				if w.proxy["us"].Taken() == 0 {
					return fmt.Errorf("none yet")
				}
				return nil
			})
			behind := func(r harness.RouteStatus) bool { return r.Lag != nil && *r.Lag > 0 && r.State != "met" }
			w.WaitStatus("prod", "us", "behind", soon, behind)
			if err := absent(t.Context(), w.us, "team/app", "v1"); err != nil {
				t.Error(err)
			}
			heal()
			harness.WaitHas(t, w.us, "team/app", "v1", a.root, 90*time.Second)
			w.WaitSettled(soon)
		})
	}
}
