package daemon

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/oci"
	"github.com/twinport/twinport/replicator/oci/ocitest"
	"github.com/twinport/twinport/replicator/plan"
)

// polled has a registry looked at every so often; it tells of nothing.
func polled(name string, every time.Duration) setting {
	return func(w *world) {
		if w.polls == nil {
			w.polls = make(map[string]time.Duration)
		}
		w.polls[name] = every
	}
}

// daily is a star whose sweeps come too late for what is tested.
func daily() []plan.Route { return swept(func(r *plan.Route) { r.Sweep = 24 * time.Hour }) }

// Nothing tells of a push, and the sweep is hours away: the poll finds it.
func TestAPollFindsWhatNobodyTells(t *testing.T) {
	for name, options := range map[string]ocitest.Options{"digests": {ListDigests: true}, "names": {}} {
		t.Run(name, func(t *testing.T) {
			in(t, daily(), func(w *world) {
				eu := w.sites["eu"]
				one, two, three := ocitest.Image("one", 1), ocitest.Image("two", 1), ocitest.Image("three", 1)
				eu.Push(app, "v1", one)
				w.until("the first sweep", func() bool { return w.status("prod", "us").State == RPOMet })
				w.proven("us", app, "v1", one)

				pushed := w.clock()
				eu.Push(app, "v2", two) // a new tag
				eu.Push(app, "v1", three)
				w.proven("us", app, "v2", two)
				w.proven("us", app, "v1", three)
				w.rest()
				if j := w.job("us", app, "v2"); j.Lane != replicator.LaneWebhook || j.PushedAt.After(pushed.Add(time.Second)) || pushed.Sub(j.PushedAt) > 2*time.Minute {
					t.Errorf("lane %s, pushed %s before the push", j.Lane, pushed.Sub(j.PushedAt))
				}
				eu.Push(app, "v1", one) // a rollback is a push
				w.proven("us", app, "v1", one)
				w.rest()

				// What is known is not told again, by this process or the next.
				jobs := len(w.allJobs())
				time.Sleep(5 * time.Minute)
				w.restart()
				time.Sleep(5 * time.Minute)
				if n := len(w.allJobs()); n != jobs {
					t.Errorf("%d jobs more\n%s", n-jobs, w.describe())
				}
				if f := w.allFindings(); len(f) > 0 {
					t.Errorf("%s", w.describe())
				}
				// Pushed while no daemon ran, found by the sweep at start or the poll.
				w.halt()
				eu.Push(app, "v3", two)
				w.closed()
				w.open()
				w.start()
				w.proven("us", app, "v3", two)
			}, having("eu", options), polled("eu", 30*time.Second))
		})
	}
}

// A poll costs a listing per repository and, where listings tell names alone,
// a bounded number of HEADs; no pull.
func TestWhatAPollCosts(t *testing.T) {
	in(t, daily(), func(w *world) {
		eu := w.sites["eu"]
		for i := range 300 {
			eu.Push(fmt.Sprintf("team/app%d", i%3), fmt.Sprintf("v%03d", i), ocitest.Image("app", 1))
		}
		w.start()
		w.until("the first sweep", func() bool { return w.status("prod", "us").State == RPOMet })
		w.rest()
		time.Sleep(time.Minute)
		eu.ResetCalls()
		time.Sleep(10 * time.Minute)
		lists, heads, pulls := eu.Count(ocitest.ListTags), eu.Count(ocitest.HeadManifest), eu.Count(ocitest.GetManifest, ocitest.GetBlob)
		if lists < 3*8 || lists > 3*12 || heads < 8*minHeads || heads > 12*minHeads || pulls != 0 {
			t.Errorf("in ten minutes of polls each minute: %d lists, %d HEADs, %d pulls", lists, heads, pulls)
		}
		for _, c := range eu.Calls() {
			if !c.Background && c.Method != ocitest.Ping {
				t.Fatalf("%s takes the slots of pushes", c)
			}
		}
	}, polled("eu", time.Minute), idle())
}

// With `sweep: never` a poll tells what is pushed after it has looked first,
// as webhooks would.
func TestAPollWithoutSweeps(t *testing.T) {
	in(t, star(), func(w *world) {
		eu := w.sites["eu"]
		one, two := ocitest.Image("one", 1), ocitest.Image("two", 1)
		eu.Push(app, "v1", one)
		w.start()
		time.Sleep(time.Second)
		eu.Push(app, "v2", two)
		w.proven("us", app, "v2", two)
		time.Sleep(5 * time.Minute)
		if n := len(w.allJobs()); n != 1 {
			t.Errorf("what was there before:\n%s", w.describe())
		}
	}, polled("eu", time.Minute), idle())
}

// A sweep sees all that a poll would: the two never run side by side, and a
// sweep puts the poll off.
func TestPollsAndSweepsTakeTurns(t *testing.T) {
	in(t, swept(), func(w *world) {
		eu := w.sites["eu"]
		for i := range 5 {
			eu.Push(fmt.Sprintf("team/app%d", i), "v1", ocitest.Image("app", 1))
		}
		var listing, beside atomic.Int64
		eu.on(func(_ context.Context, c ocitest.Call) error {
			if c.Method != ocitest.ListTags {
				return nil
			}
			if c.Repository == "team/app0" && listing.Add(1) > 1 {
				beside.Add(1)
			}
			time.Sleep(10 * time.Second)
			if c.Repository == "team/app0" {
				listing.Add(-1)
			}
			return nil
		})
		time.Sleep(5 * time.Minute)
		eu.ResetCalls()
		time.Sleep(10 * time.Minute)
		if beside.Load() > 0 {
			t.Errorf("%d times side by side", beside.Load())
		}
		if n := eu.Count(ocitest.Catalog); n > 14 {
			t.Errorf("%d catalogs in ten minutes of sweeps each minute: they leave nothing to polls", n)
		}
	}, polled("eu", 2*time.Minute))
}

// A registry that refuses is asked less and less, one that says when to come
// again not before, and somebody is told of what lasts. Once it lets us in, what
// was pushed meanwhile is found, and polls come as often as ever.
func TestAPollThatFailsIsPutOffAndRecovers(t *testing.T) {
	const every, outage = 10 * time.Second, 15 * time.Minute
	for name, c := range map[string]struct {
		fault       error
		least, most int // requests in a quarter of an hour
		found       bool
	}{
		"refused":       {&oci.RegistryError{Registry: "eu", Operation: "GET catalog", Status: 403, Kind: oci.ErrDenied, Hint: "let us in"}, 5, 10, true},
		"asked to wait": {&oci.ThrottledError{Wait: 5 * time.Minute, Err: &oci.RegistryError{Registry: "eu", Operation: "GET catalog", Status: 429, Kind: oci.ErrInterrupted}}, 2, 4, false},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, star(), func(w *world) {
				eu := w.sites["eu"]
				eu.Push(app, "v1", ocitest.Image("one", 1))
				time.Sleep(time.Minute)
				if p := w.Polls()["eu"]; w.clock().Sub(p.Seen) > 2*every || p.Requests < 10 {
					t.Errorf("a minute of polls: %+v", p)
				}
				fail := func(_ context.Context, call ocitest.Call) error {
					if call.Method == ocitest.ListTags || call.Method == ocitest.Catalog {
						return c.fault
					}
					return nil
				}
				eu.on(fail)
				eu.ResetCalls()
				time.Sleep(outage) // the next poll is less than that away
				if n := eu.Count(); n < c.least || n > c.most {
					t.Errorf("asked %d times in a quarter of an hour, %d to %d are right", n, c.least, c.most)
				}
				if f := w.found(replicator.FindingConfig); c.found && (len(f) != 1 || f[0].Registry != "eu" || f[0].Hint != "let us in") || !c.found && len(f) > 0 {
					t.Errorf("%s", w.describe())
				}
				if p := w.Polls()["eu"]; w.clock().Sub(p.Seen) < outage {
					t.Errorf("polls that fail have seen something: %+v", p)
				}

				two := ocitest.Image("two", 1)
				eu.Push(app, "v2", two)
				eu.off()
				w.proven("us", app, "v2", two)
				w.rest()
				eu.ResetCalls()
				time.Sleep(5 * time.Minute)
				if n := eu.Count(ocitest.Catalog); n < 25 || n > 35 {
					t.Errorf("%d polls in five minutes, each ten seconds as before", n)
				}
				if p := w.Polls()["eu"]; w.clock().Sub(p.Seen) > 2*every {
					t.Errorf("after its recovery: %+v", p)
				}

				// What it had to wait before is forgotten.
				eu.on(fail)
				eu.ResetCalls()
				time.Sleep(time.Minute)
				if n := eu.Count(); c.found && n < 3 || n < 1 {
					t.Errorf("failing anew it was asked %d times in a minute", n)
				}
			}, polled("eu", every))
		})
	}
}
