package integration

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/twinport/twinport/integration/harness"
)

// gone are the route's keys where a source that is silent for seconds counts as gone.
var gone = []string{"sweep: never", "sourceGone: 2s"}

// tell posts the webhook of a push that is at eu.
func (w *world) tell(repository, tag string, g *harness.Graph) {
	w.t.Helper()
	if code, answer := w.Post(w.t.Context(), "eu", harness.PushEvent(w.reg["eu"].Addr, repository, tag, g, time.Now())); code != http.StatusAccepted {
		w.t.Fatalf("webhook: %d %s", code, answer)
	}
}

// split pushes an image that us comes to have and ap, which is out of order
// until the source is dead, does not.
func (w *world) split(repository, tag string, g *harness.Graph, die func()) {
	w.t.Helper()
	heal := w.proxy["ap"].Inject(harness.Fault{Status: 503})
	w.push(repository, g, tag)
	w.tell(repository, tag, g)
	harness.WaitHas(w.t, w.us, repository, tag, g, soon)
	w.WaitStatus("prod", "us", "proven", soon, harness.RouteStatus.Settled)
	die()
	heal()
}

// unconfirmed waits until status counts so many tags as unconfirmed at ap.
func (w *world) unconfirmed(n int) harness.RouteStatus {
	w.t.Helper()
	return w.WaitStatus("prod", "ap", "unconfirmed", 2*time.Minute, func(r harness.RouteStatus) bool {
		return r.Unconfirmed == n
	})
}

// P3, P4, P6: a source dies when one of two destinations has a push. The other
// one gets it from there, whole, with what belongs to it; it counts as behind
// until the source is back and has said that nothing newer was pushed.
func TestAFanOutThatTheSourcesDeathSplitConverges(t *testing.T) {
	t.Parallel()
	w := start(t, setup{to: []string{"us", "ap"}, route: gone, silent: true})
	ap := w.reg["ap"].Client()
	first, second := w.content.Image(harness.ImageSpec{}), w.signed(1, harness.ImageSpec{})
	w.push("team/app", first, "v1")
	w.tell("team/app", "v1", first)
	harness.WaitHas(t, ap, "team/app", "v1", first, soon)
	w.WaitSettled(soon)
	if err := second.pushUntagged(t.Context(), w.eu, "team/app"); err != nil {
		t.Fatal(err)
	}
	watch := harness.WatchTag(t, ap, "team/app", "v1", func(ctx context.Context, d digest.Digest) error {
		if d == first.Digest {
			return ap.Has(ctx, "team/app", "", first, true)
		}
		return ap.Has(ctx, "team/app", "", second.root, true)
	})
	w.split("team/app", "v1", second.root, w.reg["eu"].Stop)
	harness.WaitHas(t, ap, "team/app", "v1", second.root, 2*time.Minute)
	status := w.unconfirmed(1)
	if status.Lag == nil || *status.Lag <= 0 || status.Settled() {
		t.Errorf("unconfirmed, and not behind: %s", status)
	}
	if err := second.belongings(t.Context(), ap, "team/app"); err != nil {
		t.Error(err)
	}
	harness.WaitFor(t, "a job that waits for the source's word", soon, func(ctx context.Context) error {
		jobs, err := w.Jobs(ctx, "state=waiting")
		if err != nil || len(jobs) != 1 || jobs[0].Destination != "ap" || jobs[0].Error == nil || jobs[0].Error.Kind != "unconfirmed" {
			return fmt.Errorf("jobs %+v: %w", jobs, errors.Join(err, errors.New("not so")))
		}
		return nil
	})
	writes := len(w.proxy["ap"].TagWrites())

	w.reg["eu"].Start()
	w.WaitSettled(2 * time.Minute)
	w.unconfirmed(0)
	if n := len(w.proxy["ap"].TagWrites()); n != writes {
		t.Errorf("%d tags written to confirm what was there", n-writes)
	}
	states, err := watch.Stop()
	if err != nil {
		t.Error(err)
	}
	if err := harness.InOrder(states, []*harness.Graph{first, second.root}); err != nil {
		t.Error(err)
	}
	w.noFindings()
}

// The source comes back with another digest than the one that was moved
// without it: its word counts, and a finding says what happened.
func TestASourceThatComesBackDifferentCorrectsWhatWasMoved(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		kept bool
		back func(w *world, first, second *harness.Graph) *harness.Graph
	}{
		{"with a newer push", false, func(w *world, _, _ *harness.Graph) *harness.Graph {
			third := w.content.Image(harness.ImageSpec{})
			w.push("team/app", third, "v1")
			return third
		}},
		{"with an older tag", true, func(w *world, first, second *harness.Graph) *harness.Graph {
			w.push("team/app", first, "v1")
			if err := w.eu.Delete(w.t.Context(), "team/app", second.Digest.String()); err != nil {
				w.t.Fatal(err)
			}
			return first
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := start(t, setup{to: []string{"us", "ap"}, route: gone, silent: true})
			ap := w.reg["ap"].Client()
			first, second := w.content.Image(harness.ImageSpec{}), w.content.Image(harness.ImageSpec{})
			w.push("team/app", first, "v1")
			w.tell("team/app", "v1", first)
			harness.WaitHas(t, ap, "team/app", "v1", first, soon)
			w.WaitSettled(soon)
			var revive func() // eu is dead to twinport alone
			w.split("team/app", "v1", second, func() { revive = w.proxy["eu"].Inject(harness.Fault{Drop: true}) })
			harness.WaitHas(t, ap, "team/app", "v1", second, 2*time.Minute)
			w.unconfirmed(1)

			want := c.back(w, first, second)
			revive()
			harness.WaitHas(t, ap, "team/app", "v1", want, 2*time.Minute)
			w.WaitStatus("prod", "ap", "settled", 2*time.Minute, harness.RouteStatus.Settled)
			w.unconfirmed(0)
			if f := w.WaitFinding(soon, "team/app", "v1", "regressed"); f.Registry != "ap" || f.Digest != second.Digest.String() {
				t.Errorf("finding %+v", f)
			}
			kept, err := ap.Digest(t.Context(), "team/app", "twinport-lost-"+second.Digest.Encoded()[:12])
			if c.kept && (err != nil || kept != second.Digest) || !c.kept && err == nil {
				t.Errorf("kept %q, %v", kept, err)
			}
		})
	}
}

// A source that is alive and has lost a layer: the destination that was rebuilt
// empty gets the image from the one that has it whole.
func TestWhatTheSourceLostComesFromAnotherDestination(t *testing.T) {
	t.Parallel()
	w := start(t, setup{to: []string{"us", "ap"}, route: []string{"sweep: 2s"}, silent: true})
	ap := w.reg["ap"].Client()
	img := w.content.Image(harness.ImageSpec{Layers: 3})
	w.push("team/app", img, "v1")
	w.tell("team/app", "v1", img)
	harness.WaitHas(t, ap, "team/app", "v1", img, soon)
	harness.WaitHas(t, w.us, "team/app", "v1", img, soon)
	w.WaitSettled(soon)
	w.reg["eu"].RemoveBlob(img.Blobs[1].Digest.String())
	w.reg["ap"].Wipe()
	harness.WaitHas(t, ap, "team/app", "v1", img, 2*time.Minute)
	w.WaitFinding(soon, "team/app", "v1", "source-incomplete")
	w.WaitStatus("prod", "ap", "settled", soon, harness.RouteStatus.Settled)
}
