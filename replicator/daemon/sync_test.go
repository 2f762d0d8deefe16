package daemon

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/api"
	"github.com/twinport/twinport/replicator/journal"
	"github.com/twinport/twinport/replicator/oci/ocitest"
	"github.com/twinport/twinport/replicator/plan"
)

func TestASyncWaitsForADestinationThatComesBack(t *testing.T) {
	in(t, star(), func(w *world) {
		w.sites["eu"].Push(app, "v1", ocitest.Image("app", 1))
		us := w.sites["us"]
		us.setDown(true)
		time.AfterFunc(30*time.Second, func() { us.setDown(false) })
		result, err := w.Sync(w.Context(), SyncOptions{RetryFor: 2 * time.Minute})
		if err != nil || !result.InSync() || result.Copied != 1 {
			t.Errorf("%+v, %v", result, err)
		}
	}, oneShot())
}

func TestASyncEndsWhereADestinationStaysAway(t *testing.T) {
	in(t, star(), func(w *world) {
		w.sites["eu"].Push(app, "v1", ocitest.Image("app", 1))
		w.sites["us"].setDown(true)
		began := time.Now()
		result, err := w.Sync(w.Context(), SyncOptions{RetryFor: time.Minute})
		if err != nil || result.InSync() || result.SweepErrors == nil {
			t.Errorf("%+v, %v", result, err)
		}
		if took := time.Since(began); took < 50*time.Second || took > 70*time.Second {
			t.Errorf("it took %s", took)
		}
	}, oneShot())
}

func TestASyncOfNothingSaysSo(t *testing.T) {
	in(t, star(), func(w *world) {
		w.sites["eu"].Push(app, "v1", ocitest.Image("app", 1))
		for _, o := range []SyncOptions{
			{OnlyRepository: "team/none"}, {OnlyRepository: app, OnlyTag: "none"},
		} {
			o.RetryFor = time.Minute
			result, err := w.Sync(w.Context(), o)
			if err != nil || result.InSync() || !strings.Contains(result.SweepErrors.Error(), "no source has "+o.OnlyRepository) {
				t.Errorf("%+v: %+v, %v", o, result, err)
			}
		}
		result, err := w.Sync(w.Context(), SyncOptions{OnlyRepository: app, OnlyTag: "v1", RetryFor: time.Minute})
		if err != nil || !result.InSync() || result.Copied != 1 {
			t.Errorf("%+v, %v", result, err)
		}
	}, oneShot())
}

func TestUnknownNamesAreUsageErrors(t *testing.T) {
	in(t, star(), func(w *world) {
		o, ctx := Operator{Daemon: w.Daemon}, w.Context()
		call := map[string]func() error{
			"jobs of a route":       func() error { _, err := o.Jobs(ctx, journal.JobFilter{Route: "nope"}); return err },
			"jobs at a registry":    func() error { _, err := o.Jobs(ctx, journal.JobFilter{Destination: "nope"}); return err },
			"retry of a route":      func() error { _, err := o.Retry(ctx, journal.JobFilter{Route: "nope"}, "t"); return err },
			"cancel of a route":     func() error { _, err := o.Cancel(ctx, journal.JobFilter{Route: "nope"}, "t"); return err },
			"findings of a route":   func() error { _, err := o.Findings(ctx, journal.FindingFilter{Route: "nope"}); return err },
			"findings at one":       func() error { _, err := o.Findings(ctx, journal.FindingFilter{Registry: "nope"}); return err },
			"behind of a route":     func() error { _, err := o.Behind(ctx, "nope", "", "", 10); return err },
			"behind at a registry":  func() error { _, err := o.Behind(ctx, "", "nope", "", 10); return err },
			"pause of a route":      func() error { _, err := o.SetPaused(ctx, "nope", true, "t"); return err },
			"history at a registry": func() error { _, err := o.History(ctx, "nope/app:v1", nil); return err },
			"plan of a route":       func() error { _, err := o.Plan(ctx, []string{"nope"}); return err },
			"sync of a route":       func() error { _, err := o.Sync(ctx, api.SyncRequest{Routes: []string{"nope"}}, nil); return err },
			"verify of a route":     func() error { _, err := o.Verify(ctx, api.VerifyRequest{Routes: []string{"nope"}}, nil); return err },
		}
		for name, f := range call {
			var wrong *api.UsageError
			if err := f(); !errors.As(err, &wrong) {
				t.Errorf("%s: %v", name, err)
			}
		}
		// What the config has, but nothing is known of yet, is no fault.
		jobs, err := o.Jobs(ctx, journal.JobFilter{Route: "prod", Destination: "us"})
		if err != nil || jobs.Jobs == nil || len(jobs.Jobs) != 0 {
			t.Errorf("%+v, %v", jobs, err)
		}
	}, idle())
}

// The jobs of a route that the config had once can still be asked for.
func TestJobsOfARemovedRouteAreShown(t *testing.T) {
	in(t, star(), func(w *world) {
		w.sites["us"].setDown(true)
		w.push("eu", app, "v1", ocitest.Image("app", 1))
		time.Sleep(time.Second)
		if err := w.Swap(w.Context(), w.state([]plan.Route{route("other", "eu", "us")}, "other"), "test"); err != nil {
			t.Fatal(err)
		}
		w.until("the job is held", func() bool {
			jobs, err := Operator{Daemon: w.Daemon}.Jobs(w.Context(), journal.JobFilter{Route: "prod"})
			return err == nil && slices.ContainsFunc(jobs.Jobs, func(j api.Job) bool { return j.State == replicator.Held })
		})
	})
}
