package integration

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/twinport/twinport/integration/harness"
)

// P4, P5: whatever passing fault a registry has, everything arrives whole in
// the end, and no tag is visible before.
func TestPassingFaultsAreRetriedAndNothingPartialIsSeen(t *testing.T) {
	t.Parallel()
	reads := harness.Is(http.MethodGet, harness.BlobOp, harness.Manifest, harness.Tag)
	blobs := harness.Is(http.MethodGet, harness.BlobOp)
	uploads := harness.Is(http.MethodPut, harness.Upload)
	writes := func(r harness.Request) bool { return r.Method == http.MethodPut || r.Method == http.MethodPost }
	cases := []struct {
		name, at string
		fault    harness.Fault
	}{
		{"destination answers 429", "us", harness.Fault{Match: writes, Times: 4, Status: 429, RetryAfter: time.Second}},
		{"destination answers 500", "us", harness.Fault{Match: writes, Times: 4, Status: 500}},
		{"destination answers 503", "us", harness.Fault{Match: writes, Times: 4, Status: 503}},
		{"destination drops connections", "us", harness.Fault{Times: 5, Drop: true}},
		{"destination cuts uploads", "us", harness.Fault{Match: uploads, Times: 3, CutRequest: 900}},
		{"destination receives other bytes", "us", harness.Fault{Match: uploads, Times: 3, CorruptUp: true}},
		{"source answers 429", "eu", harness.Fault{Match: reads, Times: 4, Status: 429, RetryAfter: time.Second}},
		{"source answers 500", "eu", harness.Fault{Match: reads, Times: 4, Status: 500}},
		{"source answers 503", "eu", harness.Fault{Match: reads, Times: 4, Status: 503}},
		{"source cuts blobs", "eu", harness.Fault{Match: blobs, Times: 3, CutAnswer: 900}},
		{"source corrupts blobs", "eu", harness.Fault{Match: blobs, Times: 2, Corrupt: true}},
		{"source truncates blobs", "eu", harness.Fault{Match: blobs, Times: 2, Truncate: true}},
		{"source corrupts manifests", "eu", harness.Fault{Match: harness.Is(http.MethodGet, harness.Manifest, harness.Tag), Times: 2, Corrupt: true}},
		{"source drops connections", "eu", harness.Fault{Times: 5, Drop: true}},
	}
	if testing.Short() {
		cases = cases[:6]
	}
	// One world for all: each case has a repository of its own, and its fault
	// meets only that.
	w := start(t, setup{})
	t.Run("cases", func(t *testing.T) {
		for i, c := range cases {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				repository := fmt.Sprintf("team/fault%d", i)
				content := harness.NewGenerator(seedOf(t.Name()))
				img := content.MultiArch(harness.ImageSpec{Layers: 2, LayerSize: 400 << 10}, "amd64", "arm64")
				match := c.fault.Match
				c.fault.Match = func(r harness.Request) bool {
					return r.Repository == repository && (match == nil || match(r))
				}
				defer w.proxy[c.at].Inject(c.fault)()
				watch := harness.WatchTag(t, w.us, repository, "v1", func(ctx context.Context, d digest.Digest) error {
					return w.us.Has(ctx, repository, "", img, true)
				})
				if err := w.eu.Push(t.Context(), repository, img, "v1"); err != nil {
					t.Fatal(err)
				}
				harness.WaitHas(t, w.us, repository, "v1", img, 90*time.Second)
				states, err := watch.Stop()
				if err != nil {
					t.Error(err)
				}
				if err := harness.InOrder(states, []*harness.Graph{img}); err != nil {
					t.Error(err)
				}
			})
		}
	})
	if w.proxy["us"].Taken() == 0 || (!testing.Short() && w.proxy["eu"].Taken() == 0) {
		t.Error("no fault was met")
	}
	w.WaitSettled(soon)
}

// A big blob whose upload or download is cut goes on, or begins anew; the
// source is not read over and over from its start.
func TestACutBigBlobGoesOn(t *testing.T) {
	t.Parallel()
	for _, at := range []string{"us", "eu"} {
		t.Run("cut at "+at, func(t *testing.T) {
			t.Parallel()
			w := start(t, setup{})
			fault := harness.Fault{Match: harness.Is(http.MethodGet, harness.BlobOp), Times: 3, CutAnswer: 20 << 20}
			if at == "us" {
				fault = harness.Fault{Match: harness.Is(http.MethodPut, harness.Upload), Times: 3, CutRequest: 20 << 20}
			}
			w.proxy[at].Inject(fault)
			img := w.content.ImageOf(w.content.BigBlob(64 << 20))
			w.push("team/big", img, "v1")
			harness.WaitHas(t, w.us, "team/big", "v1", img, 90*time.Second)
			w.WaitSettled(soon)
			w.noFindings()
		})
	}
}

// A destination that is down costs nothing but time: when it is back, all
// arrives within a minute, the last push of each tag.
func TestADestinationThatWasDownCatchesUp(t *testing.T) {
	t.Parallel()
	w := start(t, setup{direct: true, to: []string{"us", "ap"}})
	first, last := w.content.Image(harness.ImageSpec{}), w.content.Image(harness.ImageSpec{})
	w.push("team/app", first, "v1")
	harness.WaitHas(t, w.us, "team/app", "v1", first, soon)
	w.reg["us"].Stop()
	for i := range 20 {
		w.push("team/app", w.content.Image(harness.ImageSpec{}), fmt.Sprintf("b%d", i))
	}
	w.push("team/app", last, "v1")
	harness.WaitHas(t, w.reg["ap"].Client(), "team/app", "v1", last, soon) // the other one is not held up
	w.WaitStatus("prod", "us", "behind", soon, func(r harness.RouteStatus) bool {
		return r.Waiting+r.Running >= 21 && r.Lag != nil && *r.Lag > 0
	})
	w.reg["us"].Start()
	back := time.Now()
	w.WaitSettled(soon)
	t.Logf("caught up %s after it was back", time.Since(back))
	if err := w.us.Has(t.Context(), "team/app", "v1", last, true); err != nil {
		t.Error(err)
	}
	if err := w.sameTags(t.Context(), "team/app", "us"); err != nil {
		t.Error(err)
	}
	w.noFindings()
}

// A registry that accepts connections and never answers is as good as down.
func TestARegistryThatNeverAnswersHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes a request's time limit")
	}
	w := start(t, setup{to: []string{"us", "ap"}})
	thaw := w.proxy["us"].Inject(harness.Fault{Hang: true})
	img := w.content.Image(harness.ImageSpec{})
	w.push("team/app", img, "v1")
	harness.WaitHas(t, w.reg["ap"].Client(), "team/app", "v1", img, 2*time.Minute)
	w.WaitStatus("prod", "ap", "proven", 2*time.Minute, harness.RouteStatus.Settled)
	w.WaitStatus("prod", "us", "behind", soon, func(r harness.RouteStatus) bool { return r.Lag != nil && *r.Lag > 0 })
	thaw()
	harness.WaitHas(t, w.us, "team/app", "v1", img, 3*time.Minute)
}

// Content that is not its digest at the source is never passed on, and said.
func TestCorruptSourceContentIsNeverPassedOn(t *testing.T) {
	t.Parallel()
	w := build(t, setup{})
	img := w.content.Image(harness.ImageSpec{Layers: 2})
	if err := w.eu.Push(t.Context(), "team/app", img); err != nil {
		t.Fatal(err)
	}
	w.reg["eu"].CorruptBlob(img.Blobs[1].Digest.String())
	watch := harness.WatchTag(t, w.us, "team/app", "v1", nil)
	w.Start()
	w.push("team/app", img, "v1")
	w.WaitFinding(90*time.Second, "team/app", "", "mismatch")
	w.WaitStatus("prod", "us", "behind", soon, func(r harness.RouteStatus) bool {
		return r.Proven == 0 && r.State != "met" && r.Lag != nil && *r.Lag > 0
	})
	if states, _ := watch.Stop(); len(states) != 0 {
		t.Errorf("the tag was seen: %v", states)
	}
}

// An image that lacks a blob at the source is named, and its tag not moved.
func TestAnIncompleteSourceIsNamed(t *testing.T) {
	t.Parallel()
	w := start(t, setup{silent: true})
	img := w.content.Image(harness.ImageSpec{Layers: 2})
	w.push("team/app", img, "v1")
	w.reg["eu"].RemoveBlob(img.Blobs[2].Digest.String())
	if code, answer := w.Post(t.Context(), "eu", harness.PushEvent(w.reg["eu"].Addr, "team/app", "v1", img, time.Now())); code != http.StatusAccepted {
		t.Fatalf("webhook: %d %s", code, answer)
	}
	w.WaitFinding(90*time.Second, "team/app", "", "source-incomplete")
	w.WaitStatus("prod", "us", "behind", soon, func(r harness.RouteStatus) bool {
		return r.Proven == 0 && r.State != "met" && r.Lag != nil && *r.Lag > 0
	})
	if err := absent(t.Context(), w.us, "team/app", "v1"); err != nil {
		t.Error(err)
	}
}
