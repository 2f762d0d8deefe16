package integration

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/twinport/twinport/integration/harness"
)

// P2, P6: what a destination lost behind twinport's back, the next sweep finds
// and repairs, and status is not green until it has.
func TestASweepRepairsWhatADestinationLost(t *testing.T) {
	t.Parallel()
	losses := map[string]func(w *world, images []attached){
		"rebuilt empty": func(w *world, _ []attached) { w.reg["us"].Wipe() },
		"one tag removed": func(w *world, _ []attached) {
			if err := w.us.Delete(w.t.Context(), "team/app0", "v1"); err != nil {
				w.t.Fatal(err)
			}
		},
		"one blob removed": func(w *world, images []attached) {
			w.reg["us"].RemoveBlob(images[0].root.Children[0].Blobs[1].Digest.String())
		},
		"one signature removed": func(w *world, images []attached) {
			if err := w.us.Delete(w.t.Context(), "team/app0", images[0].signature.Digest.String()); err != nil {
				w.t.Fatal(err)
			}
		},
	}
	for name, lose := range losses {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := start(t, setup{route: []string{"sweep: 2s", "proof: 1s", "rpo: 10m"}})
			var images []attached
			for i := range 4 {
				a := w.signed(1, harness.ImageSpec{})
				images = append(images, a)
				repository := fmt.Sprintf("team/app%d", i)
				if err := a.pushUntagged(t.Context(), w.eu, repository); err != nil {
					t.Fatal(err)
				}
				w.push(repository, a.root, "v1")
			}
			green := func(r harness.RouteStatus) bool { return r.Settled() && r.State == "met" }
			whole := func(ctx context.Context) error {
				for i, a := range images {
					repository := fmt.Sprintf("team/app%d", i)
					if err := w.us.Has(ctx, repository, "v1", a.root, true); err != nil {
						return err
					}
					if err := a.belongings(ctx, w.us, repository); err != nil {
						return err
					}
				}
				return nil
			}
			harness.WaitFor(t, "the first copies", soon, whole)
			w.WaitStatus("prod", "us", "green", soon, green)
			w.noFindings("slow-sweep")

			// Once it is noticed, status is not green until it is repaired, for as
			// long as nothing can be written there.
			heal := w.proxy["us"].Inject(harness.Fault{Status: 500, Match: func(r harness.Request) bool {
				return r.Method == http.MethodPut || r.Method == http.MethodPost
			}})
			lose(w, images)
			w.WaitFinding(soon, "", "", "missing")
			var last *time.Time
			sweeps := 0
			w.WaitStatus("prod", "us", "two sweeps later, still behind", soon, func(r harness.RouteStatus) bool {
				if r.State == "met" && (r.Lag == nil || *r.Lag == 0) {
					t.Fatalf("not behind before the repair: %s", r)
				}
				if r.LastSweep != nil && (last == nil || r.LastSweep.After(*last)) {
					last = r.LastSweep
					sweeps++
				}
				return sweeps > 2
			})
			heal()
			harness.WaitFor(t, "the repair", 90*time.Second, func(ctx context.Context) error {
				s, err := w.Status(ctx)
				if err != nil {
					return err
				}
				r, err := s.Route("prod", "us")
				if err != nil {
					return err
				}
				if err = whole(ctx); err != nil && green(r) {
					t.Fatalf("green before the repair: %s: %v", r, err)
				}
				return err
			})
			w.WaitStatus("prod", "us", "green again", soon, green)
		})
	}
}

// A tag moved at the destination by someone else is kept, with a finding; the
// next push wins, and what it replaced stays under a tag of its own.
func TestATagMovedAtTheDestinationIsKept(t *testing.T) {
	t.Parallel()
	w := start(t, setup{route: []string{"sweep: 2s", "proof: 1s", "rpo: 10m"}})
	ours, theirs, next := w.content.Image(harness.ImageSpec{}), w.content.Image(harness.ImageSpec{}), w.content.Image(harness.ImageSpec{})
	w.push("team/app", ours, "prod")
	harness.WaitHas(t, w.us, "team/app", "prod", ours, soon)
	w.WaitSettled(soon)
	if err := w.us.Push(t.Context(), "team/app", theirs, "prod"); err != nil {
		t.Fatal(err)
	}
	f := w.WaitFinding(soon, "team/app", "prod", "drift")
	if f.Registry != "us" && f.Registry != "" || f.Message == "" {
		t.Errorf("finding %+v", f)
	}
	moved := time.Now()
	w.WaitStatus("prod", "us", "one more sweep", soon, func(r harness.RouteStatus) bool {
		return r.LastSweep != nil && r.LastSweep.After(moved)
	})
	if err := w.us.Has(t.Context(), "team/app", "prod", theirs, true); err != nil {
		t.Errorf("overwritten: %v", err)
	}
	w.push("team/app", next, "prod")
	harness.WaitHas(t, w.us, "team/app", "prod", next, soon)
	harness.WaitFor(t, "the replaced state's tag", soon, func(ctx context.Context) error {
		tags, err := w.us.Tags(ctx, "team/app")
		if err != nil {
			return err
		}
		lost := "twinport-lost-" + theirs.Digest.Encoded()[:12]
		if !slices.Contains(tags, lost) {
			return fmt.Errorf("tags are %v", tags)
		}
		return w.us.Has(ctx, "team/app", lost, theirs, true)
	})
}

// `drift: overwrite` restores the source's state.
func TestDriftIsOverwrittenWhereAsked(t *testing.T) {
	t.Parallel()
	w := start(t, setup{route: []string{"sweep: 2s", "proof: 1s", "drift: overwrite"}})
	ours, theirs := w.content.Image(harness.ImageSpec{}), w.content.Image(harness.ImageSpec{})
	w.push("team/app", ours, "prod")
	harness.WaitHas(t, w.us, "team/app", "prod", ours, soon)
	w.WaitSettled(soon)
	if err := w.us.Push(t.Context(), "team/app", theirs, "prod"); err != nil {
		t.Fatal(err)
	}
	harness.WaitHas(t, w.us, "team/app", "prod", ours, soon)
}

// A corrupt destination is never reported as in sync: verify --deep says it.
func TestDeepVerificationFindsCorruptContent(t *testing.T) {
	t.Parallel()
	w := start(t, setup{route: []string{"sweep: 10m", "rpo: 10m"}})
	img := w.content.Image(harness.ImageSpec{Layers: 2})
	w.push("team/app", img, "v1")
	harness.WaitHas(t, w.us, "team/app", "v1", img, soon)
	w.WaitStatus("prod", "us", "green", soon, func(r harness.RouteStatus) bool { return r.Settled() && r.State == "met" })
	if r := w.Command("verify", "--deep"); r.Code != 0 {
		t.Fatalf("verify --deep ended with %d: %s%s", r.Code, r.Stdout, r.Stderr)
	}
	w.reg["us"].CorruptBlob(img.Blobs[1].Digest.String())
	r := w.Command("verify", "--deep", "--output", "json")
	if r.Code != 1 {
		t.Errorf("verify --deep ended with %d: %s", r.Code, r.Stderr)
	}
	var verified struct {
		Checked int
		Corrupt []struct{ Registry, Repository, Tag, Digest string }
	}
	decode(t, r, &verified)
	if verified.Checked == 0 || len(verified.Corrupt) == 0 || verified.Corrupt[0].Registry != "us" || verified.Corrupt[0].Repository != "team/app" {
		t.Errorf("verify says %+v", verified)
	}
	w.WaitFinding(soon, "team/app", "", "corrupt")
	// A registry keeps what it has under a digest: writing it again repairs
	// nothing, and no HEAD tells. It stays behind until the bytes are right.
	w.WaitStatus("prod", "us", "behind for some time", soon, func(r harness.RouteStatus) bool {
		if r.Settled() || r.Proven > 0 {
			if err := w.us.Has(t.Context(), "team/app", "v1", img, true); err != nil {
				t.Fatalf("in sync while corrupt: %s: %v", r, err)
			}
			return true // the bytes are right again
		}
		return r.Lag != nil && *r.Lag > 6
	})
}

// verify without a daemon names what is missing.
func TestVerificationFindsMissingContent(t *testing.T) {
	t.Parallel()
	w := build(t, setup{silent: true, route: []string{"rpo: 10m"}})
	img := w.content.Image(harness.ImageSpec{Layers: 2})
	w.push("team/app", img, "v1")
	if r := w.Command("sync"); r.Code != 0 {
		t.Fatalf("sync ended with %d: %s%s", r.Code, r.Stdout, r.Stderr)
	}
	w.reg["us"].RemoveBlob(img.Blobs[2].Digest.String())
	for range 2 { // once told, it is not forgotten
		r := w.Command("verify", "--output", "json")
		var verified struct {
			Missing []struct{ Registry, Repository, Tag, Digest string }
		}
		decode(t, r, &verified)
		if r.Code != 1 || len(verified.Missing) == 0 || verified.Missing[0].Repository != "team/app" {
			t.Errorf("verify of missing content ended with %d: %s", r.Code, r.Stdout)
		}
	}
	if r := w.Command("sync"); r.Code != 0 {
		t.Errorf("sync ended with %d: %s%s", r.Code, r.Stdout, r.Stderr)
	}
	if err := w.us.Has(t.Context(), "team/app", "v1", img, true); err != nil {
		t.Errorf("sync did not repair: %v", err)
	}
	if r := w.Command("verify", "--deep"); r.Code != 0 {
		t.Errorf("verify ended with %d: %s%s", r.Code, r.Stdout, r.Stderr)
	}
}
