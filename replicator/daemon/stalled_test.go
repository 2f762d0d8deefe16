package daemon

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/oci"
	"github.com/twinport/twinport/replicator/oci/ocitest"
	"github.com/twinport/twinport/replicator/plan"
)

// TestAStalledJobEnds: what has failed or was refused counts as behind until its
// tag is gone at the source, or names again what is proven; no event tells of
// either.
func TestAStalledJobEnds(t *testing.T) {
	first, next := ocitest.Image("first", 1), ocitest.Image("next", 1)
	for name, c := range map[string]struct {
		why   error
		state replicator.JobState
		tag   string
		// then is what happens at the source without a word.
		then func(eu *site)
		want replicator.JobState
	}{
		"failed, and deleted":      {oci.ErrMismatch, replicator.Failed, "v1", func(eu *site) { eu.SetTag(app, "v1", "") }, replicator.Superseded},
		"refused, and deleted":     {oci.ErrRefused, replicator.Refused, "v1", func(eu *site) { eu.SetTag(app, "v1", "") }, replicator.Superseded},
		"failed, and rolled back":  {oci.ErrMismatch, replicator.Failed, "v1", func(eu *site) { eu.SetTag(app, "v1", first.Digest()) }, replicator.Done},
		"refused, and rolled back": {oci.ErrRefused, replicator.Refused, "v1", func(eu *site) { eu.SetTag(app, "v1", first.Digest()) }, replicator.Done},
		"a digest that failed":     {oci.ErrMismatch, replicator.Failed, "", func(*site) {}, replicator.Done},
		"an incomplete digest":     {oci.ErrSourceIncomplete, replicator.Refused, "", func(*site) {}, replicator.Done},
		"incomplete, and mended":   {oci.ErrSourceIncomplete, replicator.Refused, "v1", func(*site) {}, replicator.Done},
		"refused, and still there": {oci.ErrRefused, replicator.Refused, "v1", func(*site) {}, replicator.Refused},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, swept(func(r *plan.Route) { r.Sweep, r.Untagged = time.Minute, c.tag == "" }), func(w *world) {
				eu, us := w.sites["eu"], w.sites["us"]
				w.push("eu", app, "v1", first)
				w.rest()
				us.on(func(_ context.Context, call ocitest.Call) error {
					if call.Method == ocitest.PutManifest {
						return &oci.RegistryError{Registry: "us", Operation: "put", Kind: c.why}
					}
					return nil
				})
				w.push("eu", app, c.tag, next)
				reference := c.tag
				if reference == "" {
					reference = next.Digest().String()
				}
				w.until("it stalled", func() bool { return w.job("us", app, reference).State == c.state })
				stalled := w.job("us", app, reference)
				us.off()
				c.then(eu)
				time.Sleep(5 * time.Minute)
				j, err := w.journal.Job(context.Background(), stalled.ID)
				if err != nil || j.State != c.want {
					t.Fatalf("after five sweeps: %+v (%v)", j, err)
				}
				if c.want == c.state {
					if j.Generation != stalled.Generation {
						t.Errorf("a sweep that sees no change looked at it: %+v", j)
					}
					return
				}
				if s := w.status("prod", "us"); s.Failed+s.Refused != 0 || s.Lag != 0 {
					t.Errorf("status %+v", s)
				}
			})
		})
	}
}

// TestACompanionWithoutASubjectIsLetBe: sweeps queue the signature of an image
// that no route carries once, also where there is always something else to
// bring, and a plan sees nothing to do.
func TestACompanionWithoutASubjectIsLetBe(t *testing.T) {
	for name, c := range map[string]struct{ kept, refused bool }{
		"its subject has no tag any more": {kept: true}, "its subject is gone": {}, "another image is refused": {kept: true, refused: true},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, swept(func(r *plan.Route) { r.Sweep = time.Minute }), func(w *world) {
				eu, us := w.sites["eu"], w.sites["us"]
				old, bad := ocitest.Image("old", 1), ocitest.Image("bad", 1)
				eu.Push(app, "v1", ocitest.Image("app", 1))
				eu.Push(app, "", old)
				eu.Attach(app, ocitest.Artifact("sbom", "application/spdx+json", new(old.Descriptor())))
				tag, sig := ocitest.CosignTag("signature", old.Digest(), "sig")
				eu.Push(app, tag, sig)
				if !c.kept {
					eu.Remove(app, old.Digest())
				}
				if c.refused {
					eu.Push(app, "v2", bad)
					us.on(func(_ context.Context, call ocitest.Call) error {
						if call.Method == ocitest.PutManifest && call.Reference == bad.Digest().String() {
							return &oci.RegistryError{Registry: "us", Operation: "put", Kind: oci.ErrRefused}
						}
						return nil
					})
				}
				w.start()
				time.Sleep(4 * time.Minute)
				before := len(w.allJobs())
				time.Sleep(8 * time.Minute)
				all := w.allJobs()
				tried := slices.DeleteFunc(slices.Clone(all), func(j replicator.Job) bool {
					_, _, companion := oci.CompanionSubject(j.Tag)
					return !companion
				})
				if len(tried) != 2 || live(tried[0]) || live(tried[1]) || len(all) != before {
					t.Errorf("%d jobs after four sweeps, %d after twelve: %s", before, len(all), w.describe())
				}
				if c.refused {
					return
				}
				skipped := 0
				if _, err := w.Plan(context.Background(), nil, func(a Action) error {
					if skipped++; a.Action != "skip" {
						t.Errorf("planned: %+v", a)
					}
					return nil
				}); err != nil || skipped != 2 {
					t.Errorf("a plan leaves out %d (%v)", skipped, err)
				}
			}, idle())
		})
	}
}

// TestReferrersOfWhatTheSourceLost: what refers to an image that the source has
// lost, and the destination has, is brought there.
func TestReferrersOfWhatTheSourceLost(t *testing.T) {
	in(t, swept(func(r *plan.Route) { r.Proof = 0 }), func(w *world) {
		eu, us := w.sites["eu"], w.sites["us"]
		image := ocitest.Image("app", 1)
		w.push("eu", app, "v1", image)
		w.rest()
		sbom := ocitest.Artifact("sbom", "application/spdx+json", new(image.Descriptor()))
		eu.Attach(app, sbom)
		w.push("eu", app, "v1", ocitest.Image("next", 1))
		eu.Remove(app, image.Digest())
		w.until("it came", func() bool { return us.Has(app, sbom) && w.openJobs() == 0 })
		if m, _ := us.Manifest(app, oci.FallbackTag(image.Digest())); m.Digest == digest.Digest("") {
			t.Error("nothing lists it")
		}
	})
}
