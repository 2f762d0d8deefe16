package daemon

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/oci/ocitest"
	"github.com/twinport/twinport/replicator/plan"
)

func TestDrift(t *testing.T) {
	first, second, theirs := ocitest.Image("one", 1), ocitest.Image("two", 1), ocitest.MultiArch("theirs", 2, 1)
	for _, test := range []struct {
		name string
		// what the source names now, and what was proven ("": nothing)
		source, proven *ocitest.Content
		overwrite      bool
		sourceHas      bool // what somebody put there
		kept           bool
		preserved      bool
	}{
		{"source unchanged", &first, &first, false, false, true, false},
		{"source unchanged, overwrite", &first, &first, true, false, false, true},
		{"both moved", &second, &first, false, false, false, true},
		{"both moved, and the source has it still", &second, &first, false, true, false, false},
		{"no record", &first, nil, false, false, false, true},
		{"no record, and the source has it still", &first, nil, false, true, false, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			drift := "keep"
			if test.overwrite {
				drift = "overwrite"
			}
			in(t, with(route("prod", "eu", "us"), func(r *plan.Route) { r.Drift = drift }), func(w *world) {
				eu, us := w.sites["eu"], w.sites["us"]
				if test.proven != nil {
					w.push("eu", app, "v1", *test.proven)
					w.proven("us", app, "v1", *test.proven)
					w.rest()
				}
				us.Push(app, "v1", theirs)
				if test.sourceHas {
					eu.Push(app, "old", theirs)
				}
				w.push("eu", app, "v1", *test.source)
				w.rest()
				lost := "twinport-lost-" + theirs.Digest().Encoded()[:12]
				if test.kept {
					if us.names(app, "v1") != theirs.Digest() {
						t.Errorf("the tag names %s", us.names(app, "v1"))
					}
					f := w.found(replicator.FindingDrift)
					if len(f) != 1 || f[0].Digest != theirs.Digest() || f[0].Registry != "us" || f[0].Tag != "v1" {
						t.Errorf("findings:\n%s", w.describe())
					}
					if s := w.status("prod", "us"); s.Lag != 0 || s.Remaining != 0 {
						t.Errorf("status %s", s)
					}
					history, err := w.journal.History(context.Background(), us.Identity(), app, "v1", nil, 10)
					if err != nil || len(history) != 2 || history[0].Digest != theirs.Digest() || history[0].Cause != "drift" {
						t.Errorf("history %+v, %v", history, err)
					}
				} else {
					w.proven("us", app, "v1", *test.source)
				}
				if got := us.names(app, lost) == theirs.Digest(); got != test.preserved {
					t.Errorf("kept as %s: %t", lost, got)
				}
				if test.preserved && len(w.found(replicator.FindingDrift)) != 1 {
					t.Errorf("findings:\n%s", w.describe())
				}
				if !test.kept && !test.preserved && len(w.allFindings()) != 0 {
					t.Errorf("findings:\n%s", w.describe())
				}
			})
		})
	}
}

// What somebody put under a tag and lacks content cannot be kept: the source's
// image comes all the same.
func TestWhatCannotBeKeptIsTold(t *testing.T) {
	in(t, star(), func(w *world) {
		us := w.sites["us"]
		theirs, image := ocitest.Image("theirs", 2), ocitest.Image("app", 1)
		us.Push(app, "v1", theirs)
		us.Remove(app, theirs.Blobs[1].Desc.Digest)
		w.push("eu", app, "v1", image)
		w.rest()
		w.proven("us", app, "v1", image)
		f := w.found(replicator.FindingDrift)
		if len(f) != 1 || f[0].Digest != theirs.Digest() || !strings.Contains(f[0].Message, "could not be kept") {
			t.Errorf("findings:\n%s", w.describe())
		}
		if tags := us.TagNames(app); len(tags) != 1 {
			t.Errorf("tags %v", tags)
		}
	})
}

// A move whose end was not written down is not somebody else's.
func TestAMoveThatEndedBeforeItsRecordIsNoDrift(t *testing.T) {
	in(t, star(), func(w *world) {
		eu, us := w.sites["eu"], w.sites["us"]
		first, second := ocitest.Image("one", 1), ocitest.Image("two", 1)
		w.push("eu", app, "v1", first)
		w.proven("us", app, "v1", first)
		w.rest()
		cut := false
		us.after(func(c ocitest.Call) {
			if c.Method == ocitest.PutManifest && c.Reference == "v1" && !cut {
				cut = true
				us.setDown(true) // nothing of what follows the PUT is heard
			}
		})
		w.push("eu", app, "v1", second)
		w.until("moved", func() bool { return us.names(app, "v1") == second.Digest() })
		eu.SetTag(app, "v1", first.Digest()) // a rollback
		w.accept(w.event("eu", app, "v1", first.Digest()))
		time.AfterFunc(time.Minute, func() { us.setDown(false) })
		w.rest()
		w.proven("us", app, "v1", first)
		if f := w.allFindings(); len(f) != 0 {
			t.Errorf("findings:\n%s", w.describe())
		}
		// That move has ended by now: the next one is somebody else's.
		time.Sleep(2 * lateFor)
		us.SetTag(app, "v1", second.Digest())
		w.accept(w.event("eu", app, "v1", first.Digest()))
		w.rest()
		if got := us.names(app, "v1"); got != second.Digest() || len(w.found(replicator.FindingDrift)) != 1 {
			t.Errorf("the tag names %s\n%s", got, w.describe())
		}
	})
}

// Somebody moves the destination's tag while a long copy runs.
func TestDriftDuringALongCopy(t *testing.T) {
	in(t, star(), func(w *world) {
		us := w.sites["us"]
		first, second, theirs := ocitest.Image("one", 1), ocitest.Image("two", 1), ocitest.Image("theirs", 1)
		w.push("eu", app, "v1", first)
		w.proven("us", app, "v1", first)
		w.rest()
		fired := false
		us.on(func(_ context.Context, c ocitest.Call) error {
			if c.Method == ocitest.HeadBlob && c.Reference == second.Blobs[0].Desc.Digest.String() && !fired {
				fired = true
				us.Push(app, "v1", theirs)
				time.Sleep(2 * lookHolds)
			}
			return nil
		})
		w.push("eu", app, "v1", second)
		w.rest()
		w.proven("us", app, "v1", second)
		if us.names(app, "twinport-lost-"+theirs.Digest().Encoded()[:12]) != theirs.Digest() {
			t.Errorf("what was put there is lost: %v", us.TagNames(app))
		}
	})
}

// The right digest with something missing below it.
func TestAHollowTagIsRepaired(t *testing.T) {
	image := ocitest.MultiArch("app", 2, 2)
	for name, remove := range map[string]func(*site){
		"blob":  func(s *site) { s.Remove(app, image.Blobs[1].Desc.Digest) },
		"child": func(s *site) { s.Remove(app, image.Manifests[0].Digest) },
	} {
		t.Run(name, func(t *testing.T) {
			in(t, star(), func(w *world) {
				us := w.sites["us"]
				other := ocitest.Image("other", 1)
				w.push("eu", "team/other", "v1", other)
				w.push("eu", app, "v1", image)
				w.proven("us", app, "v1", image)
				w.proven("us", "team/other", "v1", other)
				w.rest()
				remove(us)
				w.jump(13 * time.Hour) // the proof is due
				w.accept(w.event("eu", app, "v1", image.Digest()))
				w.rest()
				w.proven("us", app, "v1", image)
				f := w.found(replicator.FindingMissing)
				if len(f) == 0 || f[0].Registry != "us" {
					t.Fatalf("findings:\n%s", w.describe())
				}
				// Nothing else there is believed until proven again.
				if _, ok := w.record("us", "team/other", "v1"); ok {
					t.Error("another record of the registry still counts")
				}
			})
		})
	}
}

// The sweep that a distrusted registry needs comes by itself.
func TestADistrustedRegistryIsSwept(t *testing.T) {
	in(t, with(route("prod", "eu", "us"), func(r *plan.Route) { r.Sweep = 24 * time.Hour }), func(w *world) {
		us := w.sites["us"]
		image, other := ocitest.Image("app", 2), ocitest.Image("other", 1)
		w.push("eu", "team/other", "v1", other)
		w.push("eu", app, "v1", image)
		w.proven("us", app, "v1", image)
		w.proven("us", "team/other", "v1", other)
		w.rest()
		w.until("swept once", func() bool { return !w.status("prod", "us").LastSweep.IsZero() })
		us.Remove(app, image.Blobs[1].Desc.Digest)
		ev := w.event("eu", app, "v1", image.Digest())
		ev.Full = true
		w.accept(ev)
		w.until("found missing", func() bool { return len(w.found(replicator.FindingMissing)) > 0 })
		w.proven("us", app, "v1", image)
		w.proven("us", "team/other", "v1", other)
		w.rest()
	})
}

func TestTwoSourcesCollide(t *testing.T) {
	colliding := []plan.Route{route("one", "eu", "us"), route("two", "ap", "us")}
	in(t, colliding, func(w *world) {
		first, second := ocitest.Image("one", 1), ocitest.Image("two", 1)
		w.push("eu", app, "v1", first)
		w.proven("us", app, "v1", first)
		w.rest()
		w.push("ap", app, "v1", second)
		w.rest()
		if got := w.sites["us"].names(app, "v1"); got != first.Digest() {
			t.Errorf("the tag names %s", got)
		}
		f := w.found(replicator.FindingCollision)
		if len(f) != 1 || f[0].Route != "two" || f[0].Tag != "v1" {
			t.Errorf("findings:\n%s", w.describe())
		}
		if s := w.status("two", "us"); s.Refused != 1 {
			t.Errorf("status %s", s)
		}
		// The owner goes on.
		third := ocitest.Image("three", 1)
		w.push("eu", app, "v1", third)
		w.proven("us", app, "v1", third)
	})
}

// A source that no route reads any more owns nothing.
func TestOwnershipGoesWithTheRoute(t *testing.T) {
	in(t, []plan.Route{route("one", "eu", "us"), route("two", "ap", "us")}, func(w *world) {
		first, second := ocitest.Image("one", 1), ocitest.Image("two", 1)
		w.push("eu", app, "v1", first)
		w.proven("us", app, "v1", first)
		w.rest()
		if err := w.Swap(context.Background(), w.state([]plan.Route{route("two", "ap", "us")}, "2"), "test"); err != nil {
			t.Fatal(err)
		}
		w.push("ap", app, "v1", second)
		w.proven("us", app, "v1", second)
		if f := w.found(replicator.FindingCollision); len(f) != 0 {
			t.Errorf("findings:\n%s", w.describe())
		}
	})
}
