package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/oci"
	"github.com/twinport/twinport/replicator/oci/ocitest"
	"github.com/twinport/twinport/replicator/plan"
)

const grace = 72 * time.Hour

// mirrored is a route that carries deletions over, without a sweep of its own.
func mirrored(to ...string) []plan.Route {
	if len(to) == 0 {
		to = []string{"us"}
	}
	return with(route("prod", "eu", to...), func(r *plan.Route) {
		r.Deletes = plan.Deletes{Mirror: true, Grace: grace, AtMost: 1}
	})
}

// capped is mirrored with an atMost.
func capped(atMost float64, to ...string) []plan.Route {
	routes := mirrored(to...)
	routes[0].Deletes.AtMost = atMost
	return routes
}

// tags pushes images at eu and has them proven, one for each tag.
func (w *world) tags(names ...string) {
	w.Helper()
	for _, name := range names {
		w.sites["eu"].Push(app, name, ocitest.Image(name, 1))
	}
	w.look()
	w.rest()
	for _, r := range w.State().Rules.Routes() {
		for _, to := range r.To {
			for _, name := range names {
				w.proven(to, app, name, ocitest.Image(name, 1))
			}
		}
	}
}

// look sweeps the route once, a moment after whatever was proven last, and
// whatever is found is copied.
func (w *world) look() SweepReport {
	w.Helper()
	time.Sleep(time.Millisecond)
	report, err := w.Sweep(context.Background(), SweepOptions{Route: "prod"})
	if err != nil {
		w.Log(err)
	}
	w.rest()
	return report
}

// pass has time pass for the daemon, whose tickers need not count every second
// of it; what it takes to renew the lease passes for all.
func (w *world) pass(d time.Duration) {
	w.jump(d)
	time.Sleep(5 * time.Second)
}

// lapse sweeps each day until the grace has passed, and gives the last report.
func (w *world) lapse() SweepReport {
	w.Helper()
	w.look()
	for range 3 {
		w.pass(24 * time.Hour)
		if r := w.look(); r.Deletions.Removed > 0 {
			return r
		}
	}
	return w.look()
}

// untag deletes tags at eu, a moment after whatever was proven last.
func (w *world) untag(names ...string) {
	time.Sleep(time.Millisecond)
	for _, name := range names {
		w.sites["eu"].SetTag(app, name, "")
	}
}

// has checks which of some tags a registry still has.
func (w *world) has(registry string, want string, names ...string) {
	w.Helper()
	var have []string
	for _, name := range names {
		if w.sites[registry].names(app, name) != "" {
			have = append(have, name)
		}
	}
	if got := strings.Join(have, " "); got != want {
		w.Errorf("%s has %q, want %q\n%s", registry, got, want, w.describe())
	}
}

// heldBecause checks that a tag (empty: the repository or registry) is told of
// as kept.
func (w *world) heldBecause(tag, why string) {
	w.Helper()
	for _, f := range w.found(replicator.FindingDeleteHeld) {
		if f.Tag == tag && strings.Contains(f.Message, why) {
			if f.Hint == "" || f.Route != "prod" || f.Registry == "" {
				w.Errorf("the finding lacks its hint, route or registry: %+v", f)
			}
			return
		}
	}
	w.Errorf("nothing says that %q is kept because %q\n%s", tag, why, w.describe())
}

func (w *world) deletions(registry string) int { return w.sites[registry].Count(ocitest.DeleteTag) }

// TestDeletionIsCarriedOver: after the grace and not before, that tag and no
// other, with its history, audit entry and count; the digest stays.
func TestDeletionIsCarriedOver(t *testing.T) {
	in(t, mirrored(), func(w *world) {
		w.tags("v1", "v2", "v3")
		w.untag("v2")
		w.look()
		for range 3 {
			w.pass(24*time.Hour - time.Minute)
			w.look()
			w.has("us", "v1 v2 v3", "v1", "v2", "v3")
			w.restart() // since when it is missing outlives the process
		}
		if s := w.status("prod", "us"); s.DeletesWaiting != 1 || s.DeletesHeld != 0 {
			t.Errorf("%d wait for their grace, %d are held", s.DeletesWaiting, s.DeletesHeld)
		}
		w.pass(4 * time.Minute)
		if r := w.look(); r.Deletions.Removed != 1 || r.Deletions.Errors != nil {
			t.Errorf("%+v\n%s", r.Deletions, w.describe())
		}
		w.has("us", "v1 v3", "v1", "v2", "v3")
		if _, ok := w.sites["us"].Manifest(app, ocitest.Image("v2", 1).Digest().String()); !ok {
			t.Error("the manifest is gone with its tag")
		}
		if _, ok := w.record("us", app, "v2"); ok {
			t.Error("it is on record still")
		}
		history, err := w.journal.History(context.Background(), w.sites["us"].Identity(), app, "v2", nil, 1)
		if err != nil || len(history) != 1 || history[0].Digest != "" || history[0].Cause != causeDeleted {
			t.Errorf("history %+v, %v", history, err)
		}
		audits, err := w.journal.Audits(context.Background(), 1)
		if err != nil || len(audits) != 1 || audits[0].Action != "tag.delete" || audits[0].Target != "us/team/app:v2" || audits[0].Actor != "route prod" {
			t.Errorf("audit %+v, %v", audits, err)
		}
		if n := w.Totals().Deleted[RouteDestination{"prod", "us"}]; n != 1 {
			t.Errorf("%d counted", n)
		}
		if s := w.status("prod", "us"); s.DeletesWaiting+s.DeletesHeld != 0 || s.Remaining != 0 {
			t.Errorf("%s, %d wait", s, s.DeletesWaiting)
		}
		if f := w.allFindings(); len(f) != 0 {
			t.Errorf("findings:\n%s", w.describe())
		}
		w.look() // and nothing goes on about it
		if w.deletions("us") != 1 || w.openJobs() != 0 {
			t.Errorf("%d deletions\n%s", w.deletions("us"), w.describe())
		}
		w.tags("v2") // it comes back
		if n := len(w.found(replicator.FindingMissing)); n != 0 {
			t.Errorf("what we removed ourselves is called missing:\n%s", w.describe())
		}
	})
}

// TestDeletionsAreKept: nothing is removed for a route that keeps them.
func TestDeletionsAreKept(t *testing.T) {
	in(t, star(), func(w *world) {
		w.tags("v1", "v2")
		w.untag("v1")
		w.lapse()
		w.has("us", "v1 v2", "v1", "v2")
	})
}

// TestDeletionNeedsItsGrace: a tag that is back within it begins anew, whether a
// sweep has seen it or a webhook told.
func TestDeletionNeedsItsGrace(t *testing.T) {
	for name, back := range map[string]func(*world){
		"seen by a sweep": func(w *world) {
			w.sites["eu"].Push(app, "v1", ocitest.Image("v1", 1))
			w.look()
			w.untag("v1")
		},
		"told by a webhook": func(w *world) {
			w.push("eu", app, "v1", ocitest.Image("v1", 1))
			w.rest()
			w.untag("v1")
		},
		"told by a webhook alone": func(w *world) {
			w.accept(w.event("eu", app, "v1", ocitest.Image("v1", 1).Digest()))
			w.rest()
		},
		"with another image": func(w *world) {
			w.push("eu", app, "v1", ocitest.Image("other", 1))
			w.rest()
			w.untag("v1")
		},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, mirrored(), func(w *world) {
				w.tags("v1", "v2")
				w.untag("v1")
				for range 3 {
					w.look()
					w.pass(23 * time.Hour)
				}
				back(w)
				w.pass(10 * time.Hour)
				w.look()
				w.has("us", "v1 v2", "v1", "v2")
				w.lapse()
				w.has("us", "v2", "v1", "v2")
			})
		})
	}
}

// TestClockThatJumps: neither a clock that is stepped nor a daemon that slept
// ends a grace by itself.
func TestClockThatJumps(t *testing.T) {
	in(t, mirrored(), func(w *world) {
		w.tags("v1", "v2")
		w.untag("v1")
		w.look()
		w.jump(1000 * time.Hour)
		w.look()
		w.has("us", "v1 v2", "v1", "v2")
		w.jump(-2000 * time.Hour)
		w.look()
		w.jump(1000 * time.Hour)
		w.look()
		w.has("us", "v1 v2", "v1", "v2")
		for range 2 {
			w.pass(24 * time.Hour)
			w.look()
		}
		w.has("us", "v2", "v1", "v2") // three steps of a day: one of the jump, two that were watched
	})
}

// TestListingsThatProveNothing: partial, failed and empty listings, a source
// that answers 404 to everything, one made anew, one that cannot be listed.
func TestListingsThatProveNothing(t *testing.T) {
	cut := errors.New("the page does not come")
	for name, c := range map[string]struct {
		eu    ocitest.Options
		wrong func(*world)
		held  string // what a finding says, empty: none is needed
	}{
		"the tag listing fails": {wrong: func(w *world) {
			w.sites["eu"].on(func(_ context.Context, c ocitest.Call) error {
				if c.Method == ocitest.ListTags && c.Repository == app {
					return fmt.Errorf("%w: %w", cut, oci.ErrInterrupted)
				}
				return nil
			})
		}},
		"another repository's listing fails": {wrong: func(w *world) {
			w.sites["eu"].Push("team/web", "v1", ocitest.Image("web", 1))
			w.sites["eu"].on(func(_ context.Context, c ocitest.Call) error {
				if c.Method == ocitest.ListTags && c.Repository == "team/web" {
					return fmt.Errorf("%w: %w", cut, oci.ErrInterrupted)
				}
				return nil
			})
		}},
		"the catalog is refused": {wrong: func(w *world) {
			w.sites["eu"].on(func(_ context.Context, c ocitest.Call) error {
				if c.Method == ocitest.Catalog {
					return oci.ErrUnlistable
				}
				return nil
			})
		}},
		"the source is emptied":       {wrong: func(w *world) { w.untag("v1", "v2", "v3") }, held: "empty listing"},
		"the repository is gone":      {wrong: func(w *world) { w.sites["eu"].RemoveRepository(app) }},
		"404 to everything":           {wrong: func(w *world) { w.always404() }},
		"404 to all but the listings": {wrong: func(w *world) { w.sites["eu"].on(no404But(ocitest.ListTags, ocitest.Catalog)) }, held: "gives none of them"},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, mirrored(), func(w *world) {
				w.tags("v1", "v2", "v3")
				w.untag("v2")
				w.look()
				c.wrong(w)
				for range 6 {
					w.pass(24 * time.Hour)
					w.look()
				}
				w.has("us", "v1 v2 v3", "v1", "v2", "v3")
				if n := w.deletions("us"); n != 0 {
					t.Errorf("%d deletions were tried", n)
				}
				if c.held != "" {
					w.heldBecause("", c.held)
				}
				w.sites["eu"].off()
			}, having("eu", c.eu))
		})
	}
}

// always404 has eu answer as something that stands before nothing.
func (w *world) always404() { w.sites["eu"].on(no404But()) }

func no404But(methods ...ocitest.Method) func(context.Context, ocitest.Call) error {
	return func(_ context.Context, c ocitest.Call) error {
		if slices.Contains(methods, c.Method) {
			return nil
		}
		return &oci.RegistryError{Registry: "eu", Operation: string(c.Method), Status: 404, Kind: oci.ErrNotFound}
	}
}

// TestRepositoryGoneAsAWhole: a literally named repository that the source no
// longer has is told of, and kept.
func TestRepositoryGoneAsAWhole(t *testing.T) {
	routes := mirrored()
	routes[0].Repositories.Include = []string{app, "team/web"}
	in(t, routes, func(w *world) {
		w.sites["eu"].Push("team/web", "v1", ocitest.Image("web", 1))
		w.tags("v1", "v2")
		w.sites["eu"].RemoveRepository(app)
		w.lapse()
		w.has("us", "v1 v2", "v1", "v2")
		w.heldBecause("", "empty listing")
	})
}

// TestSourceMadeAnew: a source that has come back with next to nothing crosses
// atMost, and nothing is removed.
func TestSourceMadeAnew(t *testing.T) {
	in(t, capped(0.05), func(w *world) {
		var names []string
		for i := range 40 {
			names = append(names, fmt.Sprintf("v%02d", i))
		}
		w.tags(names...)
		w.sites["eu"].RemoveRepository(app)
		w.sites["eu"].Push(app, "new", ocitest.Image("new", 1))
		w.lapse()
		if n := w.deletions("us"); n != 0 {
			t.Errorf("%d deletions", n)
		}
		w.heldBecause("", "40 tags of us are gone")
	})
}

// TestAtMost: of 40 proven tags two may go in one run; a third holds them all,
// and those that are kept for reasons of their own do not count.
func TestAtMost(t *testing.T) {
	in(t, capped(0.05), func(w *world) {
		var names []string
		for i := range 40 {
			names = append(names, fmt.Sprintf("v%02d", i))
		}
		w.tags(names...)
		w.untag("v00", "v01", "v02")
		w.lapse()
		w.has("us", "v00 v01 v02", "v00", "v01", "v02")
		w.heldBecause("", "removes 2 at most")
		w.sites["us"].SetTag(app, "v02", ocitest.Image("v03", 1).Digest()) // somebody moved it
		w.sites["eu"].Push(app, "v01", ocitest.Image("v01", 1))
		w.look()
		w.look()
		w.has("us", "v01 v02", "v00", "v01", "v02")
		w.heldBecause("v02", "somebody else")
		w.untag("v05")
		w.lapse()
		w.has("us", "v01 v02", "v01", "v02", "v05")
	})
}

// TestAtLeastOne: a route of few tags may remove one.
func TestAtLeastOne(t *testing.T) {
	in(t, capped(0.05), func(w *world) {
		w.tags("v1", "v2")
		w.untag("v1")
		w.lapse()
		w.has("us", "v2", "v1", "v2")
	})
}

// TestNarrowedFilterDeletesNothing.
func TestNarrowedFilterDeletesNothing(t *testing.T) {
	for name, narrow := range map[string]func(*plan.Route){
		"tags":         func(r *plan.Route) { r.Tags.Exclude = []string{"v1", "v2"} },
		"repositories": func(r *plan.Route) { r.Repositories.Exclude = []string{"team/**"} },
		"newest":       func(r *plan.Route) { r.Tags.Newest = 1 },
		"maxAge":       func(r *plan.Route) { r.Tags.MaxAge = time.Hour },
		"rename":       func(r *plan.Route) { r.Rename = "dr/{repository}" },
	} {
		for _, gone := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, gone %v", name, gone), func(t *testing.T) {
				in(t, mirrored(), func(w *world) {
					w.tags("v1", "v2", "v3")
					if gone {
						w.untag("v1")
						w.look()
						w.pass(24 * time.Hour)
						w.look()
					}
					routes := mirrored()
					narrow(&routes[0])
					if err := w.Swap(context.Background(), w.state(routes, "2"), "config"); err != nil {
						t.Fatal(err)
					}
					for range 5 {
						w.look()
						w.pass(24 * time.Hour)
					}
					want := "v1 v2 v3"
					if gone && (name == "newest" || name == "maxAge") {
						want = "v2 v3" // it is gone, whatever its age
					}
					w.has("us", want, "v1", "v2", "v3")
				})
			})
		}
	}
}

// TestLostJournal: what a journal that is lost had proven is nobody's.
func TestLostJournal(t *testing.T) {
	in(t, mirrored(), func(w *world) {
		w.tags("v1", "v2")
		w.untag("v1")
		w.look()
		w.halt()
		w.closed()
		w.dir = t.TempDir()
		w.open()
		w.start()
		w.lapse()
		w.has("us", "v1 v2", "v1", "v2")
		w.sites["eu"].Push(app, "v3", ocitest.Image("v3", 1))
		w.look()
		w.untag("v2") // which the new journal has found there
		w.lapse()
		w.has("us", "v1 v2 v3", "v1", "v2", "v3")
		w.heldBecause("v2", "never written it")
	})
}

// TestTrustLostAndFoundAgain: what was proven anew after a loss of trust is ours
// still, as its history tells.
func TestTrustLostAndFoundAgain(t *testing.T) {
	in(t, mirrored(), func(w *world) {
		w.tags("v1", "v2")
		if err := w.journal.Void(context.Background(), []replicator.Place{{Registry: "us", Identity: w.sites["us"].Identity(), Repository: app}}); err != nil {
			t.Fatal(err)
		}
		w.look()
		if r, ok := w.record("us", app, "v1"); !ok || r.Wrote {
			t.Fatalf("%+v %v", r, ok)
		}
		w.untag("v1")
		w.lapse()
		w.has("us", "v2", "v1", "v2")
	})
}

// TestDriftIsKept: a destination's tag that somebody moved is not ours to remove.
func TestDriftIsKept(t *testing.T) {
	in(t, mirrored(), func(w *world) {
		w.tags("v1", "v2")
		w.untag("v1")
		w.sites["us"].SetTag(app, "v1", ocitest.Image("v2", 1).Digest())
		w.lapse()
		w.has("us", "v1 v2", "v1", "v2")
		w.heldBecause("v1", "somebody else has moved it")
		if r, ok := w.record("us", app, "v1"); !ok || r.Digest != ocitest.Image("v1", 1).Digest() {
			t.Errorf("the record is %+v, %v", r, ok)
		}
		if s := w.status("prod", "us"); s.DeletesHeld != 1 {
			t.Errorf("%d held", s.DeletesHeld)
		}
		w.sites["us"].SetTag(app, "v1", ocitest.Image("v1", 1).Digest()) // and back
		w.look()
		w.has("us", "v2", "v1", "v2")
	})
}

// TestBackInTheLastMoment: the source is asked right before the tag goes, and
// after it.
func TestBackInTheLastMoment(t *testing.T) {
	image := ocitest.Image("v1", 1)
	for name, when := range map[string]func(w *world, push func()){
		"between the listing and the check": func(w *world, push func()) {
			w.sites["eu"].after(func(c ocitest.Call) {
				if c.Method == ocitest.ListTags {
					push()
				}
			})
		},
		"between the two checks": func(w *world, push func()) {
			w.sites["eu"].after(func(c ocitest.Call) {
				if c.Method == ocitest.GetManifest && c.Reference == "v1" {
					push()
				}
			})
		},
		"between the check and the removal": func(w *world, push func()) {
			w.sites["us"].on(func(_ context.Context, c ocitest.Call) error {
				if c.Method == ocitest.DeleteTag {
					push()
				}
				return nil
			})
		},
		"right after the removal": func(w *world, push func()) {
			w.sites["us"].after(func(c ocitest.Call) {
				if c.Method == ocitest.DeleteTag {
					push()
				}
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, mirrored(), func(w *world) {
				w.tags("v1", "v2")
				w.untag("v1")
				w.look()
				for range 2 {
					w.pass(24 * time.Hour)
					w.look()
				}
				w.pass(24 * time.Hour)
				pushed := false
				when(w, func() {
					if !pushed {
						pushed = true
						w.sites["eu"].Push(app, "v1", image)
					}
				})
				w.look()
				if !pushed {
					t.Fatal("it was never pushed")
				}
				w.proven("us", app, "v1", image)
				for _, f := range w.allFindings() {
					t.Errorf("finding %s: %s", f.Kind, f.Message)
				}
			})
		})
	}
}

// TestMovedBetweenCheckAndRemoval: a job and a removal of one tag exclude each
// other; the push that waits is copied once the tag is gone.
func TestMovedBetweenCheckAndRemoval(t *testing.T) {
	in(t, mirrored(), func(w *world) {
		w.tags("v1", "v2")
		w.untag("v1")
		w.look()
		for range 2 {
			w.pass(24 * time.Hour)
			w.look()
		}
		w.pass(24 * time.Hour)
		newer := ocitest.Image("newer", 1)
		moved := false
		w.sites["us"].on(func(_ context.Context, c ocitest.Call) error {
			if c.Method == ocitest.DeleteTag && !moved {
				moved = true
				w.push("eu", app, "v1", newer)
				time.Sleep(20 * time.Second) // time enough to be copied
				if n := w.sites["us"].tagWrites(app, "v1"); n != 1 {
					t.Errorf("the tag was moved while it was being removed: %d times written", n)
				}
			}
			return nil
		})
		w.look()
		w.proven("us", app, "v1", newer)
	})
}

// TestOtherTagsOfTheDigestStay.
func TestOtherTagsOfTheDigestStay(t *testing.T) {
	for name, us := range map[string]ocitest.Options{"manifests stay": {}, "manifests go with their last tag": {DropsUntagged: true}} {
		t.Run(name, func(t *testing.T) {
			in(t, mirrored(), func(w *world) {
				image := ocitest.Image("one", 1)
				for _, tag := range []string{"v1", "latest", "stable"} {
					w.sites["eu"].Push(app, tag, image)
				}
				w.look()
				w.untag("v1", "stable")
				w.lapse()
				w.has("us", "latest", "v1", "latest", "stable")
				w.proven("us", app, "latest", image)
			}, having("us", us))
		})
	}
}

// TestRegistryThatTakesOtherTags: one that lies about removing a tag alone is
// found out, what it took is copied again, and nothing more is removed.
func TestRegistryThatTakesOtherTags(t *testing.T) {
	routes := mirrored()
	// No proof is due meanwhile: its job might bring back what was taken before
	// that is looked for.
	routes[0].Proof, routes[0].Referrers = 365*24*time.Hour, "false"
	in(t, routes, func(w *world) {
		image := ocitest.Image("one", 1)
		for _, tag := range []string{"v1", "v2", "latest"} {
			w.sites["eu"].Push(app, tag, image)
		}
		w.look()
		w.untag("v1")
		w.lapse()
		w.heldBecause("latest", "has removed latest with v1")
		w.look()
		w.proven("us", app, "latest", image)
		w.proven("us", app, "v2", image)
	}, having("us", ocitest.Options{DropsOthers: true}))
}

// TestReferrersThatWouldBeLeft: where a manifest goes with its last tag, a
// signature that is left to it keeps it.
func TestReferrersThatWouldBeLeft(t *testing.T) {
	for name, api := range map[string]bool{"by the referrers API": true, "by a fallback tag": false} {
		t.Run(name, func(t *testing.T) {
			in(t, mirrored(), func(w *world) {
				image := ocitest.Image("v1", 1)
				w.sites["eu"].Push(app, "v1", image)
				subject := image.Descriptor()
				w.sites["eu"].Attach(app, ocitest.Artifact("sig", "application/vnd.test.signature", &subject))
				w.tags("v2")
				w.look()
				w.untag("v1")
				w.lapse()
				w.has("us", "v1 v2", "v1", "v2")
				w.heldBecause("v1", "1 referrers")
			}, having("us", ocitest.Options{DropsUntagged: true, ReferrersAPI: api}))
		})
	}
}

// TestCompanionsGoWithTheirSubject: a cosign tag goes once its subject does, and
// not before; a fallback tag is nobody's alone.
func TestCompanionsGoWithTheirSubject(t *testing.T) {
	in(t, mirrored(), func(w *world) {
		image := ocitest.Image("v1", 1)
		sig, content := ocitest.CosignTag("sig", image.Digest(), "sig")
		w.sites["eu"].Push(app, "v1", image)
		w.sites["eu"].Push(app, "latest", image)
		w.sites["eu"].Push(app, sig, content)
		w.tags("v2")
		w.until("the signature is there", func() bool { return w.sites["us"].names(app, sig) != "" })
		if _, ok := w.record("us", app, sig); !ok {
			w.look()
		}
		w.untag(sig) // the signature alone
		w.lapse()
		w.has("us", "v1 latest "+sig, "v1", "latest", sig)
		w.untag("v1") // one of two tags
		w.lapse()
		w.has("us", "latest "+sig, "v1", "latest", sig)
		w.untag("latest")
		w.lapse()
		w.look()
		w.has("us", "", "v1", "latest", sig)
		w.has("us", "v2", "v2")
	})
}

// TestRouteRenamed: a route under another name has its grace begin anew; one
// that does something else is told of what is not its to remove.
func TestRouteRenamed(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*plan.Route)
		want   string
	}{
		"the same by another name": {func(*plan.Route) {}, "v2 v3"},
		"another one":              {func(r *plan.Route) { r.Tags.Exclude = []string{"v3"} }, "v1 v2 v3"},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, mirrored(), func(w *world) {
				w.tags("v1", "v2", "v3")
				w.untag("v1")
				for range 3 {
					w.look()
					w.pass(24*time.Hour - time.Minute)
				}
				routes := mirrored()
				routes[0].Name = "dr"
				c.change(&routes[0])
				if err := w.Swap(context.Background(), w.state(routes, "2"), "config"); err != nil {
					t.Fatal(err)
				}
				for day := range 5 {
					if day == 3 {
						w.has("us", "v1 v2 v3", "v1", "v2", "v3")
					}
					if _, err := w.Sweep(context.Background(), SweepOptions{Route: "dr"}); err != nil {
						t.Fatal(err)
					}
					w.rest()
					w.pass(24 * time.Hour)
				}
				w.has("us", c.want, "v1", "v2", "v3")
				found := w.found(replicator.FindingDeleteHeld)
				told := len(found) == 1 && strings.Contains(found[0].Message, "route prod, which the config no longer has")
				if told != (c.want == "v1 v2 v3") {
					t.Errorf("\n%s", w.describe())
				}
			})
		})
	}
}

// TestPausedRouteRemovesNothing, also where it is paused in the middle.
func TestPausedRouteRemovesNothing(t *testing.T) {
	in(t, mirrored(), func(w *world) {
		w.tags("v1", "v2", "v3")
		w.untag("v1", "v2")
		for range 3 {
			w.look()
			w.pass(24 * time.Hour)
		}
		if err := w.journal.Pause(context.Background(), "prod", "test"); err != nil {
			t.Fatal(err)
		}
		if r, err := w.Sweep(context.Background(), SweepOptions{Route: "prod"}); err != nil || r.Deletions.Removed != 0 {
			t.Errorf("%+v, %v", r.Deletions, err)
		}
		w.has("us", "v1 v2 v3", "v1", "v2", "v3")
		if err := w.journal.Resume(context.Background(), "prod", "test"); err != nil {
			t.Fatal(err)
		}
		w.look()
		w.has("us", "v3", "v1", "v2", "v3")
	})
}

// TestReloadEndsARun: what the config said when the sweep began may be wrong by
// the time the tags go.
func TestReloadEndsARun(t *testing.T) {
	in(t, mirrored(), func(w *world) {
		w.tags("v1", "v2")
		w.untag("v1")
		for range 3 {
			w.look()
			w.pass(24 * time.Hour)
		}
		swapped := false
		w.sites["eu"].after(func(c ocitest.Call) {
			if c.Method == ocitest.ListTags && !swapped {
				swapped = true
				w.Daemon.state.Store(w.state(star(), "2"))
			}
		})
		w.look()
		w.has("us", "v1 v2", "v1", "v2")
	})
}

// TestSharedTagIsKept: another route wants it there.
func TestSharedTagIsKept(t *testing.T) {
	other := route("keep", "eu", "us")
	in(t, append(mirrored(), other), func(w *world) {
		w.tags("v1", "v2")
		w.untag("v1")
		w.lapse()
		w.has("us", "v1 v2", "v1", "v2")
	})
}

// TestWrittenBySomebodyElse: what was there before us is not ours to remove.
func TestWrittenBySomebodyElse(t *testing.T) {
	in(t, mirrored(), func(w *world) {
		for _, site := range []string{"eu", "us"} {
			w.sites[site].Push(app, "v1", ocitest.Image("v1", 1))
		}
		w.tags("v1", "v2")
		w.untag("v1")
		w.lapse()
		w.has("us", "v1 v2", "v1", "v2")
		w.heldBecause("v1", "there before")
	})
}

// TestDestinationsStandForThemselves: one is down, one removes no tags, one does.
func TestDestinationsStandForThemselves(t *testing.T) {
	in(t, mirrored("us", "ap", "sa"), func(w *world) {
		w.tags("v1", "v2")
		w.untag("v1")
		for range 3 {
			w.look()
			w.pass(24 * time.Hour)
		}
		w.sites["ap"].setDown(true)
		w.look()
		w.has("us", "v2", "v1", "v2")
		w.has("ap", "v1 v2", "v1", "v2")
		w.has("sa", "v1 v2", "v1", "v2")
		w.heldBecause("v1", "does not remove it")
		w.sites["ap"].setDown(false)
		time.Sleep(time.Minute)
		w.until("ap has caught up", func() bool { w.look(); return w.sites["ap"].names(app, "v1") == "" })
		if r, ok := w.record("sa", app, "v1"); !ok || r.Digest != ocitest.Image("v1", 1).Digest() {
			t.Errorf("what could not be removed lost its record: %+v %v", r, ok)
		}
	}, having("sa", ocitest.Options{NoDeletes: true}))
}

// TestRefusalsAreToldAndTriedAgain: a registry that refuses keeps its tags on
// record; once it takes deletes, they go.
func TestRefusalsAreToldAndTriedAgain(t *testing.T) {
	for name, kind := range map[string]error{"denied": oci.ErrDenied, "deletes switched off": oci.ErrUnsupported, "immutable": oci.ErrImmutable} {
		t.Run(name, func(t *testing.T) {
			in(t, mirrored(), func(w *world) {
				w.tags("v1", "v2", "v3")
				w.untag("v1", "v2")
				for range 3 {
					w.look()
					w.pass(24 * time.Hour)
				}
				w.sites["us"].on(func(_ context.Context, c ocitest.Call) error {
					if c.Method == ocitest.DeleteTag {
						return &oci.RegistryError{Registry: "us", Operation: "DELETE", Status: 403, Kind: kind, Hint: "let it"}
					}
					return nil
				})
				w.look()
				w.look()
				w.has("us", "v1 v2 v3", "v1", "v2", "v3")
				w.heldBecause("v1", "does not remove it")
				if r, ok := w.record("us", app, "v1"); !ok || !r.Wrote {
					t.Errorf("record %+v, %v", r, ok)
				}
				w.sites["us"].off()
				w.look()
				w.look()
				w.has("us", "v3", "v1", "v2", "v3")
			})
		})
	}
}

// TestDestinationInTrouble: a passing fault is no refusal; the tag stays on
// record, or what became of it is found out later.
func TestDestinationInTrouble(t *testing.T) {
	for name, effect := range map[string]bool{"before the tag is removed": false, "after it is": true} {
		t.Run(name, func(t *testing.T) {
			in(t, mirrored(), func(w *world) {
				w.tags("v1", "v2")
				w.untag("v1")
				for range 3 {
					w.look()
					w.pass(24 * time.Hour)
				}
				w.sites["us"].on(func(_ context.Context, c ocitest.Call) error {
					if c.Method != ocitest.DeleteTag {
						return nil
					}
					if effect {
						w.sites["us"].SetTag(app, "v1", "")
					}
					return &oci.RegistryError{Registry: "us", Operation: "DELETE", Status: 500, Kind: oci.ErrInterrupted}
				})
				r := w.look()
				if effect != (r.Deletions.Removed == 1) || effect != (r.Deletions.Errors == nil) {
					t.Errorf("%+v", r.Deletions)
				}
				if _, ok := w.record("us", app, "v1"); ok == effect {
					t.Errorf("on record: %v", ok)
				}
				w.sites["us"].off()
				w.look()
				w.has("us", "v2", "v1", "v2")
			})
		})
	}
}

// TestKilledInTheMiddle: whatever a process that died had begun is found out
// and ended by the next, whether or not the registry had done it.
func TestKilledInTheMiddle(t *testing.T) {
	image := ocitest.Image("v1", 1)
	for name, c := range map[string]struct {
		meanwhile func(*world)
		want      string
	}{
		"the tag is still there":           {func(*world) {}, "v2"},
		"the tag is gone":                  {func(w *world) { w.sites["us"].SetTag(app, "v1", "") }, "v2"},
		"it is back at the source":         {func(w *world) { w.sites["eu"].Push(app, "v1", image) }, "v1 v2"},
		"gone, and back at the source":     {func(w *world) { w.sites["us"].SetTag(app, "v1", ""); w.sites["eu"].Push(app, "v1", image) }, "v1 v2"},
		"somebody has moved it":            {func(w *world) { w.sites["us"].SetTag(app, "v1", ocitest.Image("v2", 1).Digest()) }, "v1 v2"},
		"pushed before the next has begun": {func(w *world) { w.push("eu", app, "v1", image); w.untag("v1") }, "v1 v2"},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, mirrored(), func(w *world) {
				w.tags("v1", "v2")
				w.untag("v1")
				for range 3 {
					w.look()
					w.pass(24 * time.Hour)
				}
				d, ok, err := w.journal.Departure(context.Background(), "prod", replicator.Place{Registry: "us", Identity: w.sites["us"].Identity(), Repository: app}, "v1")
				if err != nil || !ok {
					t.Fatal(ok, err)
				}
				if _, err := w.journal.BeginDeletion(context.Background(), d); err != nil {
					t.Fatal(err)
				}
				w.restart()
				c.meanwhile(w)
				w.look()
				w.look()
				w.has("us", c.want, "v1", "v2")
				if c.want == "v1 v2" && name != "somebody has moved it" && name != "pushed before the next has begun" {
					w.proven("us", app, "v1", image)
				}
				if n := len(w.found(replicator.FindingMissing)); n != 0 {
					t.Errorf("\n%s", w.describe())
				}
			})
		})
	}
}

// TestFeedingEachOther: where two registries feed each other nothing is removed,
// even if a config got as far as that.
func TestFeedingEachOther(t *testing.T) {
	back := route("back", "us", "eu")
	in(t, append(mirrored(), back), func(w *world) {
		for _, tag := range []string{"v1", "v2"} {
			w.push("eu", app, tag, ocitest.Image(tag, 1))
		}
		w.rest()
		w.untag("v1")
		w.lapse()
		if n := w.deletions("us") + w.deletions("eu"); n != 0 {
			t.Errorf("%d deletions", n)
		}
		w.has("us", "v1 v2", "v1", "v2")
	})
}

// TestOneSweepAloneRemoves: neither a narrowed sync nor one that goes on from a
// cursor has seen the source in one run.
func TestOneSweepAloneRemoves(t *testing.T) {
	in(t, mirrored(), func(w *world) {
		w.tags("v1", "v2")
		w.untag("v1")
		for range 3 {
			w.look()
			w.pass(24 * time.Hour)
		}
		ctx := context.Background()
		for _, only := range []SweepOptions{{Route: "prod", OnlyRepository: app}, {Route: "prod", OnlyRepository: app, OnlyTag: "v1"}} {
			if r, err := w.Sweep(ctx, only); err != nil || r.Deletions.Removed != 0 {
				t.Errorf("%+v: %d removed, %v", only, r.Deletions.Removed, err)
			}
		}
		s, err := w.journal.SweepState(ctx, "prod", "us")
		if err != nil {
			t.Fatal(err)
		}
		s.Cursor, s.StartedAt = "aaa", w.clock()
		if err := w.journal.SaveSweepState(ctx, s); err != nil {
			t.Fatal(err)
		}
		if r := w.look(); r.Deletions.Removed != 0 {
			t.Errorf("one that went on from its cursor removed %d", r.Deletions.Removed)
		}
		w.has("us", "v1 v2", "v1", "v2")
		result, err := w.Sync(ctx, SyncOptions{RetryFor: time.Minute})
		if err != nil || result.Deleted != 1 || !result.InSync() {
			t.Errorf("%+v, %v", result, err)
		}
		w.has("us", "v2", "v1", "v2")
	})
}
