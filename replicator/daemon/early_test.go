package daemon

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/oci"
	"github.com/twinport/twinport/replicator/oci/ocitest"
	"github.com/twinport/twinport/replicator/plan"
)

// Distribution tells of a push before it links the tag: with `sweep: never`
// nothing but the event tells of it, so it must not be lost.
func TestAnEventBeforeItsTag(t *testing.T) {
	both := []plan.Route{route("there", "eu", "us"), route("back", "us", "eu")}
	for _, late := range []time.Duration{5 * time.Millisecond, 100 * time.Millisecond, time.Second, 2500 * time.Millisecond} {
		for name, routes := range map[string][]plan.Route{"one way": star(), "two ways": both} {
			t.Run(name+" "+late.String(), func(t *testing.T) {
				in(t, routes, func(w *world) {
					eu := w.sites["eu"]
					first, second := ocitest.Image("one", 1), ocitest.Image("two", 1)
					// Not there at all yet.
					eu.Push(app, "", first)
					w.accept(w.event("eu", app, "v1", first.Digest()))
					time.Sleep(late)
					eu.SetTag(app, "v1", first.Digest())
					w.proven("us", app, "v1", first)
					w.rest()
					// Still naming what was there before.
					eu.Push(app, "", second)
					w.accept(w.event("eu", app, "v1", second.Digest()))
					time.Sleep(late)
					eu.SetTag(app, "v1", second.Digest())
					w.proven("us", app, "v1", second)
					w.rest()
					if n := w.sites["us"].tagWrites(app, "v1"); n != 2 {
						t.Errorf("%d writes of the tag", n)
					}
					if f := w.allFindings(); len(f) != 0 {
						t.Errorf("findings:\n%s", w.describe())
					}
				})
			})
		}
	}
}

// The state before the push would end the job, for good.
func TestAnEarlyEventOutlivesWhatTheOldStateWouldEndWith(t *testing.T) {
	for _, test := range []struct {
		name   string
		before ocitest.Content
		set    func(*world)
	}{
		{"drift", ocitest.Image("one", 1), func(w *world) {
			moved := ocitest.Image("moved", 1)
			w.sites["us"].Push(app, "v1", moved)
		}},
		{"refused", ocitest.Schema1("old"), func(*world) {}},
	} {
		t.Run(test.name, func(t *testing.T) {
			in(t, star(), func(w *world) {
				eu := w.sites["eu"]
				second := ocitest.Image("two", 1)
				w.push("eu", app, "v1", test.before)
				w.rest()
				test.set(w)
				eu.Push(app, "", second)
				w.accept(w.event("eu", app, "v1", second.Digest()))
				time.Sleep(time.Second)
				eu.SetTag(app, "v1", second.Digest())
				w.proven("us", app, "v1", second)
				w.rest()
			})
		})
	}
}

// An event whose tag has moved on costs a few looks, and ends.
func TestALateEventEnds(t *testing.T) {
	in(t, star(), func(w *world) {
		eu := w.sites["eu"]
		first, second := ocitest.Image("one", 1), ocitest.Image("two", 1)
		w.push("eu", app, "v1", second)
		w.rest()
		eu.ResetCalls()
		eu.Push(app, "", first)
		ev := w.event("eu", app, "v1", first.Digest())
		w.accept(ev)
		began := time.Now()
		w.rest()
		w.proven("us", app, "v1", second)
		if took := time.Since(began); took > 2*settleFor {
			t.Errorf("it took %s", took)
		}
		if n := eu.Count(ocitest.HeadManifest, ocitest.GetManifest); n > 60 {
			t.Errorf("%d readings of the source", n)
		}
		if s := w.status("prod", "us"); s.Lag != 0 {
			t.Errorf("lag %s", s.Lag)
		}
	})
}

// A push that is deleted at the source before it was copied ends its job: by a
// complete listing, never by a 404 alone.
func TestATagDeletedAtTheSource(t *testing.T) {
	both := []plan.Route{route("there", "eu", "us"), route("back", "us", "eu")}
	for name, routes := range map[string][]plan.Route{"one way": star(), "two ways": both} {
		t.Run(name, func(t *testing.T) {
			in(t, routes, func(w *world) {
				image := ocitest.Image("app", 1)
				w.sites["eu"].Push(app, "other", image)
				w.accept(w.event("eu", app, "v1", image.Digest()))
				w.rest()
				if j := w.job("us", app, "v1"); j.State != replicator.Superseded {
					t.Errorf("the job ended %s: %+v", j.State, j.Error)
				}
				if s := w.status(routes[0].Name, "us"); s.Lag != 0 || s.Remaining != 0 {
					t.Errorf("status %s", s)
				}
				if len(w.sites["us"].TagNames(app)) != 0 {
					t.Errorf("tags %v", w.sites["us"].TagNames(app))
				}
			})
		})
	}
}

func TestARepositoryDeletedAtTheSource(t *testing.T) {
	in(t, star(), func(w *world) {
		image := ocitest.Image("app", 1)
		w.accept(w.event("eu", app, "v1", image.Digest()))
		w.rest()
		if j := w.job("us", app, "v1"); j.State != replicator.Superseded {
			t.Errorf("the job ended %s: %+v", j.State, j.Error)
		}
	})
}

func TestA404AloneEndsNothing(t *testing.T) {
	in(t, star(), func(w *world) {
		eu := w.sites["eu"]
		image := ocitest.Image("app", 1)
		var mu sync.Mutex
		broken := true
		eu.on(func(_ context.Context, c ocitest.Call) error {
			mu.Lock()
			defer mu.Unlock()
			switch {
			case !broken:
				return nil
			case c.Method == ocitest.ListTags:
				return &oci.RegistryError{Registry: "eu", Operation: "list", Status: 500, Kind: oci.ErrInterrupted}
			case c.Reference == "v1":
				return &oci.RegistryError{Registry: "eu", Operation: "GET manifest", Status: 404, Kind: oci.ErrNotFound}
			}
			return nil
		})
		w.push("eu", app, "v1", image)
		time.Sleep(20 * time.Second)
		if j := w.job("us", app, "v1"); j.State != replicator.Waiting || j.Attempts == 0 {
			t.Errorf("the job is %s after %d attempts", j.State, j.Attempts)
		}
		if s := w.status("prod", "us"); s.Lag < 20*time.Second {
			t.Errorf("lag %s", s.Lag)
		}
		mu.Lock()
		broken = false
		mu.Unlock()
		w.proven("us", app, "v1", image)
	})
}
