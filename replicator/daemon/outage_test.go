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

// faulty answers all requests of some methods with an error while it is on.
func (s *site) faulty(err error, methods ...ocitest.Method) *atomic.Bool {
	on := new(atomic.Bool)
	on.Store(true)
	s.on(func(_ context.Context, c ocitest.Call) error {
		if !on.Load() {
			return nil
		}
		for _, m := range methods {
			if c.Method == m {
				return err
			}
		}
		return nil
	})
	return on
}

func TestADestinationThatIsDown(t *testing.T) {
	in(t, []plan.Route{route("prod", "eu", "us", "ap")}, func(w *world) {
		us := w.sites["us"]
		us.setDown(true)
		images := make(map[string]ocitest.Content)
		for _, tag := range []string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"} {
			images[tag] = ocitest.Image(tag, 1)
			w.push("eu", app, tag, images[tag])
		}
		w.until("the breaker is open", func() bool { _, down := us.gate.Down(); return down })
		for tag, c := range images { // the other destination is not held up
			w.proven("ap", app, tag, c)
		}
		us.ResetCalls()
		const outage = time.Minute
		time.Sleep(outage)
		if n := us.Count() - us.Count(ocitest.Ping); n > 12 {
			t.Errorf("%d requests of a registry that is down", n)
		}
		if n := us.Count(ocitest.Ping); n < 4 || n > 7 {
			t.Errorf("%d probes in a minute", n)
		}
		for tag := range images {
			j := w.job("us", app, tag)
			if j.State != replicator.Waiting || j.Attempts > 1 {
				t.Errorf("%s is %s after %d attempts", tag, j.State, j.Attempts)
			}
		}
		s := w.status("prod", "us")
		if !s.DestDown || s.SourceDown || s.Lag < outage || s.Waiting != 12 {
			t.Errorf("status %s", s)
		}
		if s := w.status("prod", "ap"); s.Lag != 0 {
			t.Errorf("status %s", s)
		}
		us.setDown(false)
		back := time.Now()
		w.rest()
		if took := time.Since(back); took > time.Minute {
			t.Errorf("caught up after %s", took)
		}
		for tag, c := range images {
			w.proven("us", app, tag, c)
		}
	})
}

// A push that no event told, to a destination that is down: the sweep queues it,
// so that it counts as behind; it is not swept all the time meanwhile.
func TestASweepForADestinationThatIsDown(t *testing.T) {
	in(t, with(route("prod", "eu", "us", "ap"), func(r *plan.Route) { r.Sweep = 2 * time.Minute }), func(w *world) {
		eu, us := w.sites["eu"], w.sites["us"]
		one, two := ocitest.Image("one", 1), ocitest.Image("two", 1)
		eu.Push(app, "v1", one)
		w.proven("us", app, "v1", one)
		w.proven("ap", app, "v1", one)
		w.rest()
		us.setDown(true)
		eu.Push(app, "v2", two)
		w.until("the breaker is open", func() bool { _, down := us.gate.Down(); return down })
		w.proven("ap", app, "v2", two)
		time.Sleep(5 * time.Minute)
		if s := w.status("prod", "us"); s.Waiting != 1 || s.Lag < 4*time.Minute {
			t.Errorf("status %s", s)
		}
		if j := w.job("us", app, "v2"); j.State != replicator.Waiting || j.Attempts > 5 { // what opens the breaker
			t.Errorf("%s", w.describe())
		}
		eu.ResetCalls()
		time.Sleep(10 * time.Minute)
		if n := eu.Count(ocitest.Catalog); n < 3 || n > 7 {
			t.Errorf("the source was swept %d times in ten minutes", n)
		}
		us.setDown(false)
		w.proven("us", app, "v2", two)
		w.rest()
		if f := w.found(replicator.FindingMissing); len(f) > 0 {
			t.Errorf("%s", w.describe())
		}
	})
}

// A tag pushed again and again to a dead destination: lag grows.
func TestLagDoesNotRestart(t *testing.T) {
	in(t, with(route("prod", "eu", "us"), func(r *plan.Route) { r.RPO = time.Minute }), func(w *world) {
		w.sites["us"].setDown(true)
		var last ocitest.Content
		for i := range 5 {
			last = ocitest.Image(string(rune('a'+i)), 1)
			w.push("eu", app, "v1", last)
			time.Sleep(20 * time.Second)
			if lag := w.status("prod", "us").Lag; lag < time.Duration(i+1)*20*time.Second {
				t.Fatalf("lag %s after %d times 20 seconds", lag, i+1)
			}
		}
		if s := w.status("prod", "us"); s.State != RPOMissed {
			t.Errorf("status %s", s)
		}
		w.sites["us"].setDown(false)
		w.proven("us", app, "v1", last)
		w.rest()
		if s := w.status("prod", "us"); s.Lag != 0 {
			t.Errorf("status %s", s)
		}
	})
}

func TestASourceThatIsDown(t *testing.T) {
	in(t, star(), func(w *world) {
		eu := w.sites["eu"]
		image := ocitest.Image("app", 1)
		eu.setDown(true)
		w.push("eu", app, "v1", image)
		time.Sleep(time.Minute)
		if s := w.status("prod", "us"); !s.SourceDown || s.DestDown || s.Waiting != 1 {
			t.Errorf("status %s", s)
		}
		eu.setDown(false)
		w.proven("us", app, "v1", image)
	})
}

func TestPassingFaults(t *testing.T) {
	for name, fault := range map[string]error{
		"500":    &oci.RegistryError{Registry: "us", Operation: "x", Status: 500, Kind: oci.ErrInterrupted},
		"denied": &oci.RegistryError{Registry: "us", Operation: "x", Status: 403, Kind: oci.ErrDenied, Hint: "grant push"},
	} {
		for _, method := range []ocitest.Method{ocitest.HeadManifest, ocitest.StartUpload, ocitest.PutManifest, ocitest.HeadBlob} {
			t.Run(name+" "+string(method), func(t *testing.T) {
				in(t, star(), func(w *world) {
					us := w.sites["us"]
					on := us.faulty(fault, method)
					image := ocitest.MultiArch("app", 2, 1)
					w.push("eu", app, "v1", image)
					w.until("it was tried", func() bool { return w.job("us", app, "v1").Attempts > 0 })
					if us.names(app, "v1") != "" {
						t.Error("the tag is visible")
					}
					j := w.job("us", app, "v1")
					if j.State != replicator.Waiting && j.State != replicator.Running {
						t.Errorf("the job is %s", j.State)
					}
					if name == "denied" {
						if wait := j.NextAttempt.Sub(w.clock()); wait < 2*time.Minute || j.Error.Kind != "denied" || j.Error.Hint != "grant push" {
							t.Errorf("tried again in %s: %+v", wait, j.Error)
						}
						if f := w.found(replicator.FindingRefused); len(f) != 1 || f[0].Hint == "" {
							t.Errorf("findings:\n%s", w.describe())
						}
					} else if len(w.allFindings()) != 0 {
						t.Errorf("findings:\n%s", w.describe())
					}
					on.Store(false)
					w.proven("us", app, "v1", image)
				})
			})
		}
	}
}

func TestThrottledWaitsAsAsked(t *testing.T) {
	in(t, star(), func(w *world) {
		us := w.sites["us"]
		on := us.faulty(&oci.ThrottledError{Wait: 2 * time.Minute, Err: oci.ErrRefused}, ocitest.StartUpload)
		image := ocitest.Image("app", 1)
		w.push("eu", app, "v1", image)
		w.until("it was throttled", func() bool { return w.job("us", app, "v1").Attempts > 0 })
		on.Store(false)
		j := w.job("us", app, "v1")
		if wait := j.NextAttempt.Sub(w.clock()); wait < time.Minute || wait > 2*time.Minute || j.Error.Kind != "throttled" {
			t.Errorf("tried again in %s: %+v", wait, j.Error)
		}
		began := time.Now()
		w.proven("us", app, "v1", image)
		if took := time.Since(began); took < time.Minute || took > 3*time.Minute {
			t.Errorf("proven after %s", took)
		}
	})
}

func TestAJobFailsAfterADay(t *testing.T) {
	in(t, star(), func(w *world) {
		us := w.sites["us"]
		on := us.faulty(&oci.RegistryError{Registry: "us", Operation: "x", Status: 500, Kind: oci.ErrInterrupted}, ocitest.PutManifest)
		image := ocitest.Image("app", 1)
		w.push("eu", app, "v1", image)
		w.until("it was tried", func() bool { return w.job("us", app, "v1").Attempts > 2 })
		w.jump(25 * time.Hour)
		w.until("it gave up", func() bool { return w.job("us", app, "v1").State == replicator.Failed })
		if s := w.status("prod", "us"); s.Failed != 1 || s.Lag < 25*time.Hour || s.State != RPOMissed {
			t.Errorf("status %s", s)
		}
		on.Store(false)
		time.Sleep(time.Minute)
		if w.job("us", app, "v1").State != replicator.Failed {
			t.Error("it was tried again by itself")
		}
		// By hand, or by the next push.
		n, err := w.journal.Retry(context.Background(), filterOf(w.job("us", app, "v1").ID), "test")
		if err != nil || n != 1 {
			t.Fatalf("%d retried, %v", n, err)
		}
		w.proven("us", app, "v1", image)
	})
}

func TestAFailedJobIsRevivedByAPush(t *testing.T) {
	in(t, star(), func(w *world) {
		on := w.sites["us"].faulty(&oci.RegistryError{Registry: "us", Operation: "x", Status: 500, Kind: oci.ErrInterrupted}, ocitest.PutManifest)
		w.push("eu", app, "v1", ocitest.Image("one", 1))
		w.until("it was tried", func() bool { return w.job("us", app, "v1").Attempts > 0 })
		w.jump(25 * time.Hour)
		w.until("it gave up", func() bool { return w.job("us", app, "v1").State == replicator.Failed })
		on.Store(false)
		image := ocitest.Image("two", 1)
		w.push("eu", app, "v1", image)
		w.proven("us", app, "v1", image)
	})
}

// Canceled: that tag→digest is held, the next push goes through.
func TestACanceledJobIsHeld(t *testing.T) {
	in(t, star(), func(w *world) {
		ctx := context.Background()
		on := w.sites["us"].faulty(&oci.RegistryError{Registry: "us", Operation: "x", Status: 500, Kind: oci.ErrInterrupted}, ocitest.PutManifest)
		image := ocitest.Image("one", 1)
		w.push("eu", app, "v1", image)
		w.until("it waits", func() bool { j := w.job("us", app, "v1"); return j.State == replicator.Waiting && j.Attempts > 0 })
		if n, err := w.journal.Cancel(ctx, filterOf(w.job("us", app, "v1").ID), "test"); err != nil || n != 1 {
			t.Fatalf("%d canceled, %v", n, err)
		}
		on.Store(false)
		w.accept(w.event("eu", app, "v1", image.Digest())) // told again
		time.Sleep(time.Minute)
		if j := w.job("us", app, "v1"); j.State != replicator.Held {
			t.Errorf("it is %s", j.State)
		}
		if s := w.status("prod", "us"); s.Held != 1 || s.Lag != 0 {
			t.Errorf("status %s", s)
		}
		next := ocitest.Image("two", 1)
		w.push("eu", app, "v1", next)
		w.proven("us", app, "v1", next)
	})
}

// What a person holds is not copied because an event without a digest, or of
// another digest that the tag no longer names, comes in.
func TestAHeldDigestStaysHeldWhateverTheEventSays(t *testing.T) {
	in(t, star(), func(w *world) {
		ctx := context.Background()
		on := w.sites["us"].faulty(&oci.RegistryError{Registry: "us", Operation: "x", Status: 500, Kind: oci.ErrInterrupted}, ocitest.PutManifest)
		image := ocitest.Image("one", 1)
		w.push("eu", app, "v1", image)
		w.until("it waits", func() bool { j := w.job("us", app, "v1"); return j.State == replicator.Waiting && j.Attempts > 0 })
		if _, err := w.journal.Cancel(ctx, filterOf(w.job("us", app, "v1").ID), "test"); err != nil {
			t.Fatal(err)
		}
		on.Store(false)
		w.accept(w.event("eu", app, "v1", ""))
		w.rest()
		if j := w.job("us", app, "v1"); j.State != replicator.Held {
			t.Errorf("it is %s", j.State)
		}
		if w.sites["us"].names(app, "v1") != "" {
			t.Error("what is held was copied")
		}
	})
}

// What runs at the stop ends within its grace.
func TestAGracefulStop(t *testing.T) {
	in(t, star(), func(w *world) {
		us := w.sites["us"]
		image := ocitest.Image("app", 1)
		began := make(chan struct{})
		var told atomic.Bool
		us.on(func(_ context.Context, c ocitest.Call) error {
			if c.Method == ocitest.PutUpload {
				if !told.Swap(true) {
					close(began)
				}
				time.Sleep(20 * time.Second)
			}
			return nil
		})
		w.push("eu", app, "v1", image)
		<-began
		stopped := time.Now()
		w.halt()
		if took := time.Since(stopped); took > 30*time.Second {
			t.Errorf("it took %s", took)
		}
		if r, ok := w.record("us", app, "v1"); !ok || r.Digest != image.Digest() {
			t.Errorf("record %+v, %t", r, ok)
		}
		w.push("eu", app, "v2", image)
		time.Sleep(time.Minute)
		if j := w.job("us", app, "v2"); j.State != replicator.Waiting {
			t.Errorf("a job was taken after the stop: %s", j.State)
		}
	})
}

func TestWhatOutlastsTheGraceIsHandedBack(t *testing.T) {
	in(t, star(), func(w *world) {
		us := w.sites["us"]
		image := ocitest.Image("app", 1)
		began := make(chan struct{})
		var told atomic.Bool
		stuck := us.faulty(nil)
		us.on(func(ctx context.Context, c ocitest.Call) error {
			if c.Method == ocitest.PutUpload && stuck.Load() {
				if !told.Swap(true) {
					close(began)
				}
				<-ctx.Done()
				return context.Cause(ctx)
			}
			return nil
		})
		w.push("eu", app, "v1", image)
		<-began
		stopped := time.Now()
		w.halt()
		if took := time.Since(stopped); took < 29*time.Second || took > 40*time.Second {
			t.Errorf("it took %s", took)
		}
		j := w.job("us", app, "v1")
		if j.State != replicator.Waiting || j.Attempts != 0 {
			t.Errorf("the job is %s after %d attempts: %+v", j.State, j.Attempts, j.Error)
		}
		stuck.Store(false)
		w.start()
		w.proven("us", app, "v1", image)
	})
}

// A job that makes no step for ten minutes is ended and tried again.
func TestAStalledJob(t *testing.T) {
	in(t, star(), func(w *world) {
		us := w.sites["us"]
		image := ocitest.Image("app", 1)
		var stuck atomic.Bool
		stuck.Store(true)
		us.on(func(ctx context.Context, c ocitest.Call) error {
			if c.Method == ocitest.StartUpload && stuck.Load() {
				<-ctx.Done()
				return context.Cause(ctx)
			}
			return nil
		})
		w.push("eu", app, "v1", image)
		time.Sleep(stallAfter - time.Second)
		if j := w.job("us", app, "v1"); j.State != replicator.Running {
			t.Errorf("it is %s", j.State)
		}
		w.until("it was ended", func() bool { return w.job("us", app, "v1").Attempts > 0 })
		if j := w.job("us", app, "v1"); j.Error.Kind != "stalled" {
			t.Errorf("%+v", j.Error)
		}
		stuck.Store(false)
		w.proven("us", app, "v1", image)
	})
}

// A process that dies loses nothing, whatever it was at.
func TestARestartGoesOn(t *testing.T) {
	in(t, star(), func(w *world) {
		image := ocitest.Image("app", 1)
		w.halt()
		w.push("eu", app, "v1", image)
		w.closed()
		w.open()
		if s := w.status("prod", "us"); s.Waiting != 1 {
			t.Errorf("status %s", s)
		}
		w.start()
		w.proven("us", app, "v1", image)
		w.rest()
		w.restart()
		if r, ok := w.record("us", app, "v1"); !ok || r.Digest != image.Digest() {
			t.Errorf("record %+v, %t", r, ok)
		}
	})
}

func TestPauseAndResume(t *testing.T) {
	in(t, star(), func(w *world) {
		ctx := context.Background()
		o := Operator{Daemon: w.Daemon}
		if p, err := o.SetPaused(ctx, "prod", true, "test"); err != nil || !p.Paused {
			t.Fatalf("%+v, %v", p, err)
		}
		image := ocitest.Image("app", 1)
		w.push("eu", app, "v1", image)
		time.Sleep(time.Minute)
		if j := w.job("us", app, "v1"); j.State != replicator.Waiting {
			t.Errorf("it is %s", j.State)
		}
		if s := w.status("prod", "us"); !s.Paused || s.Lag < time.Minute {
			t.Errorf("status %s, paused %t", s, s.Paused)
		}
		if _, err := o.SetPaused(ctx, "prod", false, "test"); err != nil {
			t.Fatal(err)
		}
		w.proven("us", app, "v1", image)
		audits, err := w.journal.Audits(ctx, 10)
		if err != nil || len(audits) < 2 || audits[0].Action != "route.resume" || audits[0].Actor != "test" {
			t.Errorf("audit %+v, %v", audits, err)
		}
	})
}

// A reload that takes a route away holds its jobs; one that brings it back frees them.
func TestReload(t *testing.T) {
	both := []plan.Route{route("prod", "eu", "us"), route("other", "eu", "ap")}
	in(t, both, func(w *world) {
		ctx := context.Background()
		if err := w.journal.Pause(ctx, "prod", "test"); err != nil {
			t.Fatal(err)
		}
		image := ocitest.Image("app", 1)
		w.push("eu", app, "v1", image)
		w.proven("ap", app, "v1", image)
		if err := w.Swap(ctx, w.state(both[1:], "2"), "test"); err != nil {
			t.Fatal(err)
		}
		if err := w.journal.Resume(ctx, "prod", "test"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if j := w.job("us", app, "v1"); j.State != replicator.Held {
			t.Errorf("it is %s", j.State)
		}
		if n := w.sites["us"].Count(); n != 0 {
			t.Errorf("%d requests of a registry without a route", n)
		}
		if err := w.Swap(ctx, w.state(both, "3"), "test"); err != nil {
			t.Fatal(err)
		}
		w.proven("us", app, "v1", image)
		w.rest()
	})
}

// A refusal is forgotten when the config changes.
func TestAReloadForgetsRefusals(t *testing.T) {
	in(t, star(), func(w *world) {
		ctx := context.Background()
		on := w.sites["us"].faulty(&oci.RegistryError{Registry: "us", Operation: "x", Status: 413, Kind: oci.ErrRefused}, ocitest.StartUpload)
		image := ocitest.Image("app", 1)
		w.push("eu", app, "v1", image)
		w.until("it was refused", func() bool { return w.job("us", app, "v1").State == replicator.Refused })
		on.Store(false)
		w.accept(w.event("eu", app, "v1", image.Digest()))
		time.Sleep(time.Minute)
		if j := w.job("us", app, "v1"); j.State != replicator.Refused {
			t.Errorf("it is %s", j.State)
		}
		if err := w.Swap(ctx, w.state(w.routes, "2"), "test"); err != nil {
			t.Fatal(err)
		}
		w.proven("us", app, "v1", image)
	})
}

// Background lanes leave room for webhooks, and are not starved by them.
func TestLanesShareTheSlots(t *testing.T) {
	in(t, star(), func(w *world) {
		w.options.Jobs = 8
		w.halt()
		w.closed()
		w.open()
		w.start()
		us := w.sites["us"]
		release := make(chan struct{})
		us.on(func(ctx context.Context, c ocitest.Call) error {
			if c.Method == ocitest.StartUpload {
				select {
				case <-release:
				case <-ctx.Done():
				}
			}
			return nil
		})
		var events []replicator.Event
		for i := range 20 {
			tag := "old" + string(rune('a'+i))
			c := ocitest.Image(tag, 1)
			w.sites["eu"].Push(app, tag, c)
			ev := w.event("eu", app, tag, c.Digest())
			ev.Lane, ev.Cause = replicator.LaneBackfill, "sweep: missing"
			events = append(events, ev)
		}
		w.accept(events...)
		time.Sleep(10 * time.Second)
		if f, b := w.Daemon.running.counts(); f != 0 || b != 6 {
			t.Errorf("%d foreground and %d background jobs run", f, b)
		}
		for i := range 20 {
			tag := "new" + string(rune('a'+i))
			w.push("eu", app, tag, ocitest.Image(tag, 1))
		}
		time.Sleep(10 * time.Second)
		if f, b := w.Daemon.running.counts(); f != 2 || b != 6 {
			t.Errorf("%d foreground and %d background jobs run", f, b)
		}
		close(release)
		w.rest()
	})
}
