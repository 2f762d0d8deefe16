package daemon

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/journal"
	"github.com/twinport/twinport/replicator/oci"
	"github.com/twinport/twinport/replicator/oci/ocitest"
	"github.com/twinport/twinport/replicator/plan"
)

// quarter is an interval between sweeps: short, since each second of a daemon
// costs the journal some reading.
const quarter = time.Minute

// swept is a star that sweeps by itself.
func swept(change ...func(*plan.Route)) []plan.Route {
	r := route("prod", "eu", "us")
	r.Sweep = quarter
	for _, f := range change {
		f(&r)
	}
	return []plan.Route{r}
}

// fill gives the source some tags in some repositories.
func fill(s *site, repositories, tags int) map[string]map[string]ocitest.Content {
	all := make(map[string]map[string]ocitest.Content)
	for i := range repositories {
		repository := fmt.Sprintf("team/app%d", i)
		all[repository] = make(map[string]ocitest.Content)
		for j := range tags {
			tag := fmt.Sprintf("v%d", j)
			c := ocitest.ImageOf(repository+tag, ocitest.Layer("base", 600), ocitest.Layer(repository+tag, 100))
			s.Push(repository, tag, c)
			all[repository][tag] = c
		}
	}
	return all
}

func (w *world) allProven(name string, all map[string]map[string]ocitest.Content) {
	w.Helper()
	for repository, tags := range all {
		for tag, c := range tags {
			w.proven(name, repository, tag, c)
		}
	}
}

func (w *world) firstPass() {
	w.Helper()
	w.until("the first pass is proven", func() bool {
		return w.status("prod", "us").State != RPOSeeding && w.openJobs() == 0
	})
}

func TestTheFirstPass(t *testing.T) {
	in(t, swept(), func(w *world) {
		all := fill(w.sites["eu"], 3, 5)
		us := w.sites["us"]
		on := us.faulty(&oci.RegistryError{Registry: "us", Operation: "x", Status: 500, Kind: oci.ErrInterrupted}, ocitest.PutUpload)
		w.start()
		time.Sleep(10 * time.Second)
		s := w.status("prod", "us")
		if s.State != RPOSeeding || s.LastSweep.IsZero() || s.Remaining != 15 {
			t.Errorf("status %s", s)
		}
		for _, j := range w.allJobs() {
			if j.Lane != replicator.LaneBackfill {
				t.Errorf("a job in lane %s", j.Lane)
			}
		}
		background := false
		for _, c := range us.Calls() {
			background = background || c.Background
		}
		if !background {
			t.Error("no request was marked as of the background")
		}
		on.Store(false)
		w.firstPass()
		w.allProven("us", all)
		if s := w.status("prod", "us"); s.State != RPOMet || s.Proven != 15 || s.Lag != 0 {
			t.Errorf("status %s", s)
		}
	}, idle())
}

func TestASweepFindsWhatNoEventTold(t *testing.T) {
	in(t, swept(), func(w *world) {
		eu := w.sites["eu"]
		w.firstPass()
		began := time.Now()
		image := ocitest.Image("app", 1)
		eu.Push(app, "v1", image)
		w.proven("us", app, "v1", image)
		if took := time.Since(began); took > quarter+time.Minute {
			t.Errorf("found after %s", took)
		}
		r, _ := w.record("us", app, "v1")
		if r.PushedAt.After(w.clock().Add(-quarter / 2)) {
			t.Errorf("pushed at %s: the last complete sweep had not seen it, %s ago", r.PushedAt, w.clock().Sub(r.PushedAt))
		}
		// And what has moved.
		next := ocitest.Image("next", 1)
		eu.Push(app, "v1", next)
		w.proven("us", app, "v1", next)
	})
}

// A sweep of a route that has not changed: its requests, and no writes.
func TestAnUnchangedRouteCostsLittle(t *testing.T) {
	for name, o := range map[string]ocitest.Options{"names alone": {}, "listed digests": {ListDigests: true}} {
		t.Run(name, func(t *testing.T) {
			in(t, swept(), func(w *world) {
				eu, us := w.sites["eu"], w.sites["us"]
				w.halt()
				fill(eu, 2, 10)
				w.start()
				w.firstPass()
				eu.ResetCalls()
				us.ResetCalls()
				report, err := w.Sweep(context.Background(), SweepOptions{Route: "prod"})
				if err != nil || report.Emitted != 0 || report.InSync != 20 {
					t.Fatalf("%+v, %v", report, err)
				}
				most := 1 + 2 + 2 // the catalog, two listings at both
				if !o.ListDigests {
					most += 20
				}
				if made := eu.Count() + us.Count(); made > most || report.Requests != int64(made) {
					t.Errorf("%d requests, %d told, at most %d", made, report.Requests, most)
				}
			}, having("eu", o), having("us", o))
		})
	}
}

func TestADestinationThatLostSomething(t *testing.T) {
	for name, lose := range map[string]func(*site){
		"a tag":        func(s *site) { s.SetTag("team/app0", "v1", "") },
		"a repository": func(s *site) { s.RemoveRepository("team/app0") },
		"everything": func(s *site) {
			for i := range 3 {
				s.RemoveRepository(fmt.Sprintf("team/app%d", i))
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, swept(), func(w *world) {
				us := w.sites["us"]
				w.halt()
				all := fill(w.sites["eu"], 3, 4)
				w.start()
				w.firstPass()
				w.allProven("us", all)
				lose(us)
				var repairing atomic.Bool
				gate := make(chan struct{})
				us.on(func(ctx context.Context, c ocitest.Call) error {
					if c.Method == ocitest.PutManifest {
						repairing.Store(true)
						select {
						case <-gate:
						case <-ctx.Done():
						}
					}
					return nil
				})
				w.until("the next sweep has found it", repairing.Load)
				if s := w.status("prod", "us"); s.State == RPOMet && s.Lag == 0 || s.Remaining == 0 {
					t.Errorf("green although something is lost: %s", s)
				}
				if f := w.found(replicator.FindingMissing); len(f) == 0 || f[0].Registry != "us" {
					t.Errorf("findings:\n%s", w.describe())
				}
				close(gate)
				w.until("repaired", func() bool { s := w.status("prod", "us"); return s.Remaining == 0 && s.Proven == 12 })
				w.allProven("us", all)
				w.until("green", func() bool { s := w.status("prod", "us"); return s.State == RPOMet && s.Lag == 0 })
				open := func() (n int) {
					for _, f := range w.found(replicator.FindingMissing) {
						if !f.Acknowledged {
							n++
						}
					}
					return n
				}
				w.until("the findings of what was repaired are closed", func() bool { return open() == 0 })
				us.off()
				lose(us)
				w.until("the same loss again is a finding again", func() bool { return open() > 0 })
				w.until("and closed again", func() bool { return open() == 0 })
				w.allProven("us", all)
			})
		})
	}
}

// A blob that is gone is found when the proof is due.
func TestALostBlobIsFoundByTheNextProof(t *testing.T) {
	in(t, swept(func(r *plan.Route) { r.Proof = time.Hour }), func(w *world) {
		us := w.sites["us"]
		image := ocitest.Image("app", 2)
		w.push("eu", app, "v1", image)
		w.firstPass()
		w.proven("us", app, "v1", image)
		us.Remove(app, image.Blobs[1].Desc.Digest)
		w.jump(time.Hour)
		w.until("found missing", func() bool { return len(w.found(replicator.FindingMissing)) > 0 })
		w.until("whole again", func() bool { return us.Has(app, image) })
		w.proven("us", app, "v1", image)
	})
}

func TestAFailedSweep(t *testing.T) {
	for _, test := range []struct {
		name, site string
		method     ocitest.Method
	}{
		{"the source's catalog", "eu", ocitest.Catalog},
		{"the source's tags", "eu", ocitest.ListTags},
		{"the destination's tags", "us", ocitest.ListTags},
	} {
		t.Run(test.name, func(t *testing.T) {
			in(t, swept(), func(w *world) {
				w.halt()
				all := fill(w.sites["eu"], 2, 2)
				w.start()
				w.firstPass()
				if s := w.status("prod", "us"); s.State != RPOMet {
					t.Fatalf("status %s", s)
				}
				on := w.sites[test.site].faulty(&oci.RegistryError{Registry: test.site, Operation: "x", Status: 500, Kind: oci.ErrInterrupted}, test.method)
				w.until("it is unknown", func() bool { return w.status("prod", "us").State == RPOUnknown })
				if s := w.status("prod", "us"); !strings.Contains(s.Reason, "failed") || s.Proven != 4 {
					t.Errorf("status %s", s)
				}
				on.Store(false)
				began := time.Now()
				w.until("it is met again", func() bool { return w.status("prod", "us").State == RPOMet })
				if took := time.Since(began); took > 2*time.Minute {
					t.Errorf("tried again after %s", took)
				}
				w.allProven("us", all)
			})
		})
	}
}

// A source that lists nothing, or not all, is no reason to believe anything gone.
func TestAnUnlistableSource(t *testing.T) {
	in(t, swept(), func(w *world) {
		image := ocitest.Image("app", 1)
		w.push("eu", app, "v1", image)
		w.proven("us", app, "v1", image)
		time.Sleep(10 * time.Second)
		if s := w.status("prod", "us"); s.State != RPOUnknown {
			t.Errorf("status %s", s)
		}
		if f := w.found(replicator.FindingUnlistable); len(f) != 1 || f[0].Registry != "eu" || f[0].Hint == "" {
			t.Errorf("findings:\n%s", w.describe())
		}
	}, having("eu", ocitest.Options{Unlistable: true}))
}

func TestAnUnlistableSourceWithLiteralNames(t *testing.T) {
	in(t, swept(func(r *plan.Route) { r.Repositories.Include = []string{app} }), func(w *world) {
		image := ocitest.Image("app", 1)
		w.sites["eu"].Push(app, "v1", image)
		w.firstPass()
		w.proven("us", app, "v1", image)
		w.until("it is met", func() bool { return w.status("prod", "us").State == RPOMet })
	}, having("eu", ocitest.Options{Unlistable: true}))
}

// A sweep that was cut off goes on from its cursor.
func TestASweepGoesOnFromItsCursor(t *testing.T) {
	in(t, swept(), func(w *world) {
		eu := w.sites["eu"]
		fill(eu, 12, 1)
		w.start()
		var listed atomic.Int32
		reached := make(chan struct{})
		eu.on(func(ctx context.Context, c ocitest.Call) error {
			if c.Method != ocitest.ListTags {
				return nil
			}
			if c.Repository >= "team/app5" {
				if listed.Add(1) == 1 {
					close(reached)
				}
				<-ctx.Done()
				return context.Cause(ctx)
			}
			time.Sleep(2 * time.Second)
			return nil
		})
		<-reached
		time.Sleep(30 * time.Second)
		w.halt()
		s, err := w.journal.SweepState(context.Background(), "prod", "us")
		if err != nil || s.Cursor == "" {
			t.Fatalf("%+v, %v", s, err)
		}
		eu.off()
		eu.ResetCalls()
		w.start()
		w.firstPass()
		var again []string
		for _, c := range eu.Calls() {
			if c.Method == ocitest.ListTags && c.Repository <= s.Cursor {
				again = append(again, c.Repository)
			}
		}
		if len(again) != 0 {
			t.Errorf("after cursor %s, listed again: %v", s.Cursor, again)
		}
		if p := w.status("prod", "us").Proven; p != 12 {
			t.Errorf("%d proven", p)
		}
	}, idle())
}

// An event that could not be used makes a sweep due.
func TestASweepThatIsDue(t *testing.T) {
	in(t, swept(func(r *plan.Route) { r.Sweep = 24 * time.Hour }), func(w *world) {
		w.firstPass()
		image := ocitest.Image("app", 1)
		w.sites["eu"].Push(app, "v1", image)
		if _, err := w.Accept(context.Background(), nil, []replicator.Finding{{Kind: replicator.FindingUnusableEvent, At: w.clock(), Registry: "eu", Message: "no such thing"}}, []string{"eu"}); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		w.proven("us", app, "v1", image)
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("swept after %s", took)
		}
	})
}

func TestSweepNever(t *testing.T) {
	in(t, star(), func(w *world) {
		w.sites["eu"].Push(app, "v1", ocitest.Image("app", 1))
		time.Sleep(20 * time.Second)
		if n := w.sites["eu"].Count(); n != 0 {
			t.Errorf("%d requests of the source", n)
		}
		if s := w.status("prod", "us"); s.State != RPOUnknown || !strings.Contains(s.Reason, "never") {
			t.Errorf("status %s", s)
		}
	})
}

func TestAPausedRouteIsNotSwept(t *testing.T) {
	in(t, swept(), func(w *world) {
		w.firstPass()
		if err := w.journal.Pause(context.Background(), "prod", "test"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		w.sites["eu"].ResetCalls()
		time.Sleep(3 * quarter)
		if n := w.sites["eu"].Count(); n != 0 {
			t.Errorf("%d requests of a paused route's source", n)
		}
		if s := w.status("prod", "us"); s.State == RPOMet {
			t.Errorf("status %s", s)
		}
	})
}

func TestASlowSweepIsToldOf(t *testing.T) {
	in(t, swept(func(r *plan.Route) { r.Sweep = 10 * time.Second }), func(w *world) {
		w.sites["eu"].on(func(_ context.Context, c ocitest.Call) error {
			if c.Method == ocitest.Catalog {
				time.Sleep(20 * time.Second)
			}
			return nil
		})
		w.until("it is told", func() bool { return len(w.found(replicator.FindingSlowSweep)) > 0 })
		if f := w.found(replicator.FindingSlowSweep)[0]; f.Route != "prod" || f.Hint == "" {
			t.Errorf("%+v", f)
		}
	})
}

// A reload takes a route's sweeps away and brings new ones.
func TestAReloadChangesTheSchedule(t *testing.T) {
	in(t, swept(), func(w *world) {
		w.firstPass()
		next := swept(func(r *plan.Route) { r.Name, r.To = "new", []string{"ap"} })
		if err := w.Swap(context.Background(), w.state(next, "2"), "test"); err != nil {
			t.Fatal(err)
		}
		image := ocitest.Image("app", 1)
		w.sites["eu"].Push(app, "v1", image)
		w.proven("ap", app, "v1", image)
		if w.sites["us"].names(app, "v1") != "" {
			t.Error("the old route still works")
		}
	}, having("ap", ocitest.Options{}))
}

// The oldest tags of a route that keeps the newest are not copied; those that
// events tell of are.
func TestNewestAndAge(t *testing.T) {
	now := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	var clock atomic.Int64
	o := ocitest.Options{ListDigests: true, Now: func() time.Time { return now.Add(time.Duration(clock.Load())) }}
	in(t, swept(func(r *plan.Route) { r.Tags.Newest = 2 }), func(w *world) {
		eu := w.sites["eu"]
		for i := range 5 {
			clock.Store(int64(i-100) * int64(time.Hour))
			eu.Push(app, fmt.Sprintf("v%d", i), ocitest.Image(fmt.Sprint(i), 1))
		}
		w.start()
		w.firstPass()
		if tags := w.sites["us"].TagNames(app); !slices.Equal(tags, []string{"v3", "v4"}) {
			t.Errorf("tags %v", tags)
		}
		w.accept(w.event("eu", app, "v0", eu.names(app, "v0")))
		w.rest()
		if w.sites["us"].names(app, "v0") == "" {
			t.Error("what an event tells of counts as newest")
		}
		time.Sleep(2 * quarter)
		if w.sites["us"].names(app, "v0") == "" {
			t.Error("what falls out of newest is evicted by no one")
		}
	}, having("eu", o), idle())
}

func TestRPOStates(t *testing.T) {
	now := time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)
	at := now.Add
	r := plan.Route{RPO: 5 * time.Minute, Sweep: 15 * time.Minute}
	never := r
	never.Sweep = 0
	seeded := replicator.SweepState{CompletedAt: at(-time.Minute), Seeded: true}
	for _, test := range []struct {
		name  string
		route plan.Route
		lag   time.Duration
		swept replicator.SweepState
		want  RPOState
	}{
		{"nothing promised", plan.Route{Sweep: time.Hour}, time.Hour, seeded, RPONone},
		{"nothing behind", r, 0, seeded, RPOMet},
		{"behind within the promise", r, 5 * time.Minute, seeded, RPOMet},
		{"behind", r, 5*time.Minute + 1, seeded, RPOMissed},
		{"never swept to an end", r, 0, replicator.SweepState{}, RPOSeeding},
		{"first pass under way", r, time.Hour, replicator.SweepState{CompletedAt: at(-time.Minute)}, RPOSeeding},
		{"first sweep failed", r, 0, replicator.SweepState{FailedAt: at(-time.Minute), Error: "x"}, RPOUnknown},
		{"the last sweep failed", r, 0, replicator.SweepState{CompletedAt: at(-5 * time.Minute), FailedAt: at(-time.Minute), Seeded: true}, RPOUnknown},
		{"failed, and complete since", r, 0, replicator.SweepState{CompletedAt: at(-time.Minute), FailedAt: at(-5 * time.Minute), Seeded: true}, RPOMet},
		{"as old as twice the interval", r, 0, replicator.SweepState{CompletedAt: at(-30 * time.Minute), Seeded: true}, RPOMet},
		{"older", r, 0, replicator.SweepState{CompletedAt: at(-30*time.Minute - 1), Seeded: true}, RPOUnknown},
		{"older and behind", r, time.Hour, replicator.SweepState{CompletedAt: at(-time.Hour), Seeded: true}, RPOMissed},
		{"failed and behind", r, time.Hour, replicator.SweepState{CompletedAt: at(-2 * time.Minute), FailedAt: at(-time.Minute), Seeded: true}, RPOMissed},
		{"never swept by config", never, 0, replicator.SweepState{}, RPOUnknown},
		{"never swept by config, swept by hand", never, 0, seeded, RPOUnknown},
		{"never swept by config, and behind", never, time.Hour, replicator.SweepState{}, RPOMissed},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, reason := rpoState(test.route, Status{Lag: test.lag}, test.swept, now)
			if got != test.want {
				t.Errorf("%s (%s), want %s", got, reason, test.want)
			}
			if (got == RPOMissed || got == RPOUnknown) != (reason != "") {
				t.Errorf("%s with the reason %q", got, reason)
			}
		})
	}
}

// A lane that is full holds the sweep up, not the daemon.
func TestASweepStopsAtAFullLane(t *testing.T) {
	in(t, swept(), func(w *world) {
		ctx := context.Background()
		var jobs []replicator.Job
		for i := range 500 {
			jobs = append(jobs, replicator.Job{
				Source:      replicator.Place{Registry: "eu", Identity: w.sites["eu"].Identity(), Repository: app},
				Destination: replicator.Place{Registry: "us", Identity: w.sites["us"].Identity(), Repository: app},
				Tag:         fmt.Sprintf("t%d", i), Lane: replicator.LaneSweep, PushedAt: w.clock(),
				Wants: []replicator.Want{{Route: "prod", Destination: "us"}},
			})
		}
		if err := w.journal.Pause(ctx, "prod", "test"); err != nil {
			t.Fatal(err)
		}
		if _, err := w.journal.Accept(ctx, journal.Intake{Jobs: jobs}); err != nil {
			t.Fatal(err)
		}
		w.room = 500
		w.sites["eu"].Push(app, "new", ocitest.Image("new", 1))
		done := make(chan error, 1)
		sctx, cancel := context.WithCancel(ctx)
		go func() {
			_, err := w.Sweep(sctx, SweepOptions{Route: "prod"})
			done <- err
		}()
		time.Sleep(10 * time.Second)
		select {
		case err := <-done:
			t.Fatalf("the sweep went on: %v", err)
		default:
		}
		cancel()
		if err := <-done; err == nil {
			t.Error("a sweep that was cut off says it is complete")
		}
	}, idle())
}

// A listing that was made before the copy says nothing about the tag after it.
func TestAnAbsenceThatIsNoLongerTrue(t *testing.T) {
	in(t, star(), func(w *world) {
		us := w.sites["us"]
		image, theirs := ocitest.Image("app", 1), ocitest.Image("theirs", 1)
		w.push("eu", app, "v1", image)
		w.proven("us", app, "v1", image)
		w.rest()
		place := replicator.Place{Registry: "us", Identity: us.Identity(), Repository: app}
		w.absent.note(place, "v1", w.clock())
		us.Push(app, "v1", theirs)
		w.accept(w.event("eu", app, "v1", image.Digest()))
		w.rest()
		if us.names(app, "v1") != theirs.Digest() || len(w.found(replicator.FindingDrift)) != 1 {
			t.Errorf("the tag names %s\n%s", us.names(app, "v1"), w.describe())
		}
	})
}

func TestSweepsOfARouteDoNotOverlap(t *testing.T) {
	in(t, swept(), func(w *world) {
		w.firstPass()
		fill(w.sites["eu"], 2, 2)
		var under, most atomic.Int32
		w.sites["eu"].on(func(_ context.Context, c ocitest.Call) error {
			if c.Method == ocitest.Catalog {
				if n := under.Add(1); n > most.Load() {
					most.Store(n)
				}
				time.Sleep(5 * time.Second)
				under.Add(-1)
			}
			return nil
		})
		ended := make(chan error, 3)
		for range cap(ended) {
			go func() {
				_, err := w.Sweep(context.Background(), SweepOptions{Route: "prod", Manual: true})
				ended <- err
			}()
		}
		for range cap(ended) {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
		if most.Load() != 1 {
			t.Errorf("%d sweeps at once", most.Load())
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		go func() { _, _ = w.Sweep(context.Background(), SweepOptions{Route: "prod"}) }()
		time.Sleep(10 * time.Millisecond)
		if _, err := w.Sweep(ctx, SweepOptions{Route: "prod"}); err == nil {
			t.Error("a sweep that waited in vain says it is complete")
		}
		time.Sleep(time.Minute)
	})
}

// What lies before an interrupted sweep's cursor is compared anew by whoever
// asks for a comparison now, and where the interruption was long.
func TestACursorIsNotAlwaysGoneOnFrom(t *testing.T) {
	for name, compare := range map[string]func(*world) error{
		"a sync": func(w *world) error {
			_, err := w.Sync(context.Background(), SyncOptions{RetryFor: time.Minute})
			return err
		},
		"a sweep after a long time": func(w *world) error {
			w.jump(3 * time.Hour)
			time.Sleep(5 * time.Second)
			if _, err := w.Sweep(context.Background(), SweepOptions{Route: "prod"}); err != nil {
				return err
			}
			w.rest()
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, swept(), func(w *world) {
				ctx := context.Background()
				image := ocitest.Image("app", 1)
				w.sites["eu"].Push("a/app", "v1", image)
				err := w.journal.SaveSweepState(ctx, replicator.SweepState{Route: "prod", Destination: "us", Cursor: "m", StartedAt: w.clock().Add(-time.Minute)})
				if err != nil {
					t.Fatal(err)
				}
				if err := compare(w); err != nil {
					t.Fatal(err)
				}
				w.proven("us", "a/app", "v1", image)
			}, oneShot())
		})
	}
}

// The mark of a proven first pass and a sweep that runs meanwhile do not undo
// each other.
func TestSeededSurvivesASweep(t *testing.T) {
	in(t, swept(), func(w *world) {
		ctx := context.Background()
		w.halt()
		fill(w.sites["eu"], 1, 1)
		if _, err := w.Sweep(ctx, SweepOptions{Route: "prod"}); err != nil {
			t.Fatal(err)
		}
		var once atomic.Bool
		w.sites["eu"].on(func(_ context.Context, c ocitest.Call) error {
			if c.Method == ocitest.Catalog && !once.Swap(true) {
				return w.seeded(ctx, "prod", "us")
			}
			return nil
		})
		if _, err := w.Sweep(ctx, SweepOptions{Route: "prod"}); err != nil {
			t.Fatal(err)
		}
		if s, err := w.journal.SweepState(ctx, "prod", "us"); err != nil || !s.Seeded {
			t.Errorf("%+v, %v", s, err)
		}
	})
}
