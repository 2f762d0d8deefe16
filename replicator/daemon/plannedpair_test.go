package daemon

import (
	"context"
	"maps"
	"testing"
	"time"

	"github.com/twinport/twinport/replicator/oci/ocitest"
	"github.com/twinport/twinport/replicator/plan"
)

func TestPlanBetweenTwoThatFeedEachOther(t *testing.T) {
	in(t, []plan.Route{route("there", "eu", "us"), route("back", "us", "eu")}, func(w *world) {
		eu, us := w.sites["eu"], w.sites["us"]
		planned := func() map[string]string {
			actions := make(map[string]string)
			if _, err := w.Daemon.Plan(w.Context(), nil, func(a Action) error { actions[a.Route] = a.Action; return nil }); err != nil {
				t.Fatal(err)
			}
			return actions
		}
		expect := func(when string, want map[string]string) {
			t.Helper()
			if got := planned(); !maps.Equal(got, want) {
				t.Errorf("%s: %v, want %v", when, got, want)
			}
		}
		sync := func() SyncResult {
			result, err := w.Sync(w.Context(), SyncOptions{RetryFor: time.Second})
			if err != nil {
				t.Fatal(err)
			}
			return result
		}
		eu.Push(app, "v1", ocitest.Image("one", 1))
		us.Push(app, "v1", ocitest.Image("other", 1))
		expect("nothing shared yet", map[string]string{"there": "refuse", "back": "refuse"})
		if result := sync(); result.InSync() {
			t.Errorf("a conflict in sync: %+v", result)
		}
		// What is settled is due at once: paused, it is still to be planned.
		pause := func(change func(context.Context, string, string) error) {
			for _, name := range []string{"there", "back"} {
				if err := change(w.Context(), name, "test"); err != nil {
					t.Fatal(err)
				}
			}
		}
		pause(w.journal.Pause)
		if _, err := w.Resolve(w.Context(), "eu", app, "v1", "eu", "test"); err != nil {
			t.Fatal(err)
		}
		expect("settled for eu", map[string]string{"there": "move", "back": "skip"})
		pause(w.journal.Resume)
		if result := sync(); !result.InSync() {
			t.Errorf("settled: %+v", result)
		}
		expect("shared", map[string]string{})
		us.Push(app, "v1", ocitest.Image("two", 1))
		expect("us has moved", map[string]string{"back": "move"}) // a fresh record spares eu the look
	}, oneShot())
}
