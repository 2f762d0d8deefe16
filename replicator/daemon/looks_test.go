package daemon

import (
	"fmt"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/oci/ocitest"
	"github.com/twinport/twinport/replicator/plan"
)

// settling is a registry that says it takes its time.
type settlingSite struct{ *site }

func (settlingSite) Settles() time.Duration { return 10 * time.Minute }

// A tag that shows its push late, by seconds or minutes, with `sweep: never`:
// the event is not lost, whether it told a digest or none.
func TestAPushShownLate(t *testing.T) {
	both := []plan.Route{route("there", "eu", "us"), route("back", "us", "eu")}
	for _, c := range []struct {
		late    time.Duration
		settles bool
	}{
		{5 * time.Millisecond, false}, {time.Second, false}, {2500 * time.Millisecond, false},
		{20 * time.Second, false}, {100 * time.Second, false}, {9 * time.Minute, true},
	} {
		for _, told := range []bool{false, true} {
			for name, routes := range map[string][]plan.Route{"one way": star(), "two ways": both} {
				t.Run(fmt.Sprintf("%s digest told %v %s", c.late, told, name), func(t *testing.T) {
					in(t, routes, func(w *world) {
						eu := w.sites["eu"]
						if c.settles {
							w.State().Registries["eu"].Client = settlingSite{eu}
						}
						w.start()
						first, second := ocitest.Image("one", 1), ocitest.Image("two", 1)
						w.push("eu", app, "v1", first)
						w.proven("us", app, "v1", first)
						w.rest()
						eu.Push(app, "", second)
						ev := w.event("eu", app, "v1", "")
						if told {
							ev.Digest = second.Digest()
						}
						w.accept(ev)
						time.Sleep(c.late)
						eu.SetTag(app, "v1", second.Digest())
						w.proven("us", app, "v1", second)
						w.rest()
						if n := w.sites["us"].tagWrites(app, "v1"); n != 2 {
							t.Errorf("%d writes of the tag", n)
						}
						if f := w.allFindings(); len(f) != 0 {
							t.Errorf("findings:\n%s", w.describe())
						}
						if j := w.job("us", app, "v1"); j.PushedAt.After(ev.PushedAt) && c.late > 3*time.Second {
							t.Errorf("its push counts from %s after it", j.PushedAt.Sub(ev.PushedAt))
						}
					}, idle())
				})
			}
		}
	}
}

// An event without a digest that brings no news ends soon, uses no attempt up
// and reads no manifest a second time.
func TestAnEventThatBringsNoNews(t *testing.T) {
	in(t, star(), func(w *world) {
		eu := w.sites["eu"]
		image := ocitest.Image("one", 1)
		eu.Push(app, "v1", image)
		w.accept(w.event("eu", app, "v1", ""))
		w.rest()
		w.proven("us", app, "v1", image)
		for range 3 {
			eu.ResetCalls()
			began := time.Now()
			w.accept(w.event("eu", app, "v1", ""))
			time.Sleep(time.Second)
			if j := w.job("us", app, "v1"); j.State == replicator.Waiting && j.Attempts > 0 {
				t.Errorf("%d attempts used up", j.Attempts)
			}
			w.rest()
			if took := time.Since(began); took > 2*settleFor {
				t.Errorf("it took %s", took)
			}
			time.Sleep(5 * time.Minute)
			gets, heads := eu.Count(ocitest.GetManifest), eu.Count(ocitest.HeadManifest)
			if gets > 1 || heads > 20 {
				t.Errorf("%d GETs and %d HEADs for no news", gets, heads)
			}
			if s := w.status("prod", "us"); s.Lag != 0 || s.Remaining != 0 {
				t.Errorf("status %s", s)
			}
		}
	})
}

// A registry of several replicas may give a tag whose content has yet to reach
// the one we read: within the time it says it takes nothing is refused, after
// it once and for all.
func TestContentThatComesLate(t *testing.T) {
	image := ocitest.MultiArch("late", 2, 1)
	for name, lacks := range map[string]digest.Digest{"a child": image.Manifests[0].Digest, "a blob": image.Blobs[1].Desc.Digest} {
		for _, comes := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s comes %v", name, comes), func(t *testing.T) {
				in(t, star(), func(w *world) {
					eu := w.sites["eu"]
					w.State().Registries["eu"].Client = settlingSite{eu}
					w.start()
					eu.Push(app, "v1", image)
					eu.Remove(app, lacks)
					w.accept(w.event("eu", app, "v1", image.Digest()))
					time.Sleep(8 * time.Minute)
					if j := w.job("us", app, "v1"); j.State != replicator.Waiting || j.Attempts != 0 {
						t.Fatalf("%s", w.describe())
					}
					if f := w.allFindings(); len(f) > 0 {
						t.Errorf("%s", w.describe())
					}
					eu.ResetCalls()
					if comes {
						eu.Push(app, "v1", image)
						w.proven("us", app, "v1", image)
						return
					}
					w.until("it is refused", func() bool { return w.job("us", app, "v1").State == replicator.Refused })
					if f := w.found(replicator.FindingSourceIncomplete); len(f) != 1 || f[0].Count != 1 {
						t.Errorf("%s", w.describe())
					}
					eu.ResetCalls()
					time.Sleep(time.Hour)
					if n := eu.Count(ocitest.GetManifest, ocitest.GetBlob); n > 0 {
						t.Errorf("%d reads after it was refused", n)
					}
				}, idle())
			})
		}
	}
}

// What is pushed by digest alone may come as late.
func TestADigestThatComesLate(t *testing.T) {
	in(t, with(route("prod", "eu", "us"), func(r *plan.Route) { r.Untagged = true }), func(w *world) {
		eu := w.sites["eu"]
		w.State().Registries["eu"].Client = settlingSite{eu}
		w.start()
		image := ocitest.Image("one", 1)
		w.accept(w.event("eu", app, "", image.Digest()))
		time.Sleep(5 * time.Minute)
		eu.Push(app, "", image)
		w.proven("us", app, image.Digest().String(), image)
	}, idle())
}

// Of any number of events, so many tags are looked at again.
func TestLooksAreBounded(t *testing.T) {
	t.Parallel()
	var l looks
	now := time.Unix(1_800_000_000, 0)
	for i := range 2 * maxLooks {
		l.add(lookedAt{registry: "eu", repository: app, tag: fmt.Sprint(i)}, now, false, now, lookAfter)
	}
	if n := len(l.pending); n != maxLooks {
		t.Errorf("%d are remembered", n)
	}
	if wait, _ := l.wait(now); wait != lookAfter[0] {
		t.Errorf("waits %s", wait)
	}
	if n := len(l.take(now.Add(lookAfter[0] - 1))); n != 0 {
		t.Errorf("%d are due early", n)
	}
	for _, after := range lookAfter {
		if n := len(l.take(now.Add(after))); n != maxLooks {
			t.Errorf("%d are due after %s", n, after)
		}
	}
	if len(l.pending) != 0 || !l.next.IsZero() {
		t.Errorf("%d are left", len(l.pending))
	}
}
