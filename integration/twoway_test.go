package integration

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/twinport/twinport/integration/harness"
)

func (w *world) tagWrites() int {
	return len(w.proxy["eu"].TagWrites()) + len(w.proxy["us"].TagWrites())
}

// echoed waits until the registries' notifications of n pushes have come.
func (w *world) echoed(side string, n int) {
	w.t.Helper()
	harness.WaitFor(w.t, fmt.Sprintf("%d notifications of %s", n, side), soon, func(context.Context) error {
		if got := w.relay[side].Pushes(); got < n {
			return fmt.Errorf("%d came", got)
		}
		return nil
	})
}

// P8: two registries that feed each other: one push is one copy, and its echo
// writes nothing.
func TestTwoRegistriesThatFeedEachOtherDoNotLoop(t *testing.T) {
	t.Parallel()
	w := start(t, setup{twoWay: true, relays: true})
	img := w.content.Image(harness.ImageSpec{})
	w.push("team/app", img, "v1")
	harness.WaitHas(t, w.us, "team/app", "v1", img, soon)
	// The echoes have come when the registries have told all there was to tell.
	w.echoed("eu", 1)
	w.echoed("us", 1)
	w.WaitSettled(soon)
	if n := w.tagWrites(); n != 1 {
		t.Errorf("%d writes for one push: %v %v", n, w.proxy["us"].TagWrites(), w.proxy["eu"].TagWrites())
	}
	// The other way.
	back := w.content.Image(harness.ImageSpec{})
	if err := w.us.Push(t.Context(), "team/app", back, "v1"); err != nil {
		t.Fatal(err)
	}
	harness.WaitHas(t, w.eu, "team/app", "v1", back, soon)
	w.WaitSettled(soon)
	// 50 fast ones on one side.
	before := w.tagWrites()
	pushes := w.content.Variants(50)
	for _, g := range pushes {
		w.push("team/app", g, "v1")
	}
	harness.WaitHas(t, w.us, "team/app", "v1", pushes[49], soon)
	w.WaitSettled(soon)
	writes := w.tagWrites() - before
	t.Logf("%d writes for 50 pushes", writes)
	if writes > 50 {
		t.Errorf("%d writes for 50 pushes", writes)
	}
	if n := len(w.proxy["eu"].TagWrites()); n != 1 {
		t.Errorf("%d writes back to eu, want the one of the push to us", n)
	}
	if err := w.eu.Has(t.Context(), "team/app", "v1", pushes[49], true); err != nil {
		t.Error(err)
	}
	w.noFindings()
}

// P8: pushes on both sides, echoes late: both end equal or in a named
// conflict, writes never more than pushes.
func TestPushesOnBothSidesEndEqualOrInANamedConflict(t *testing.T) {
	t.Parallel()
	for name, gap := range map[string]time.Duration{"together": 0, "in turn": 30 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := start(t, setup{twoWay: true, relays: true})
			for _, r := range w.relay {
				r.Delay(func() time.Duration { return time.Duration(rand.IntN(300)) * time.Millisecond })
			}
			base := w.content.Image(harness.ImageSpec{})
			w.push("team/app", base, "v1")
			harness.WaitHas(t, w.us, "team/app", "v1", base, soon)
			w.WaitSettled(soon)
			before := w.tagWrites()
			pushes := w.content.Variants(50)
			if err := w.us.Push(t.Context(), "team/app", pushes[0]); err != nil {
				t.Fatal(err)
			}
			pace := time.NewTicker(max(gap, time.Millisecond))
			defer pace.Stop()
			for i, g := range pushes {
				side := w.eu
				if i%2 == 1 {
					side = w.us
				}
				if err := side.Push(t.Context(), "team/app", g, "v1"); err != nil {
					t.Fatal(err)
				}
				<-pace.C
			}
			w.echoed("eu", 26)
			w.echoed("us", 25)
			harness.WaitFor(t, "an end", soon, func(ctx context.Context) error { return w.equalOrConflict(ctx, "team/app", "v1") })
			if writes := w.tagWrites() - before; writes > 50 {
				t.Errorf("%d writes for 50 pushes", writes)
			} else {
				t.Logf("%d writes for 50 pushes", writes)
			}
		})
	}
}

// equalOrConflict is nil when nothing moves any more and both sides are equal
// or named as a conflict, with both digests at both sides.
func (w *world) equalOrConflict(ctx context.Context, repository, tag string) error {
	status, err := w.Status(ctx)
	if err != nil {
		return err
	}
	for _, r := range status.Routes {
		if r.Running > 0 {
			return fmt.Errorf("still moving: %s", r)
		}
	}
	eu, err := w.eu.Digest(ctx, repository, tag)
	if err != nil {
		return err
	}
	us, err := w.us.Digest(ctx, repository, tag)
	if err != nil {
		return err
	}
	if eu == us {
		for _, r := range status.Routes {
			if r.Waiting > 0 {
				return fmt.Errorf("still waiting: %s", r)
			}
		}
		return nil
	}
	findings, err := w.Findings(ctx)
	if err != nil {
		return err
	}
	for _, f := range findings {
		if f.Kind != "conflict" || f.Tag != tag {
			continue
		}
		if _, _, err := w.us.Manifest(ctx, repository, eu.String()); err != nil {
			return fmt.Errorf("conflict, but eu's state is not at us: %w", err)
		}
		if _, _, err := w.eu.Manifest(ctx, repository, us.String()); err != nil {
			return fmt.Errorf("conflict, but us's state is not at eu: %w", err)
		}
		return nil
	}
	return fmt.Errorf("eu is %s, us is %s, and no conflict is named", eu, us)
}

// A chain: eu feeds us, us feeds ap.
func TestAChainCarriesAPushToItsEnd(t *testing.T) {
	t.Parallel()
	w := build(t, setup{to: []string{"us", "ap"}})
	w.Config.Routes = []harness.RouteConfig{
		{Name: "first", From: "eu", To: []string{"us"}, Lines: []string{"sweep: never"}},
		{Name: "second", From: "us", To: []string{"ap"}, Lines: []string{"sweep: never"}},
	}
	w.WriteConfig()
	w.reg["us"].Notify(w.Endpoint("us"))
	w.reg["us"].Stop()
	w.reg["us"].Start()
	w.Start()
	img := w.content.MultiArch(harness.ImageSpec{}, "amd64", "arm64")
	w.push("team/app", img, "v1")
	harness.WaitHas(t, w.reg["ap"].Client(), "team/app", "v1", img, soon)
	w.WaitSettled(soon)
	w.noFindings()
}
