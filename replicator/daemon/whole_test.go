package daemon

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/oci"
	"github.com/twinport/twinport/replicator/oci/ocitest"
	"github.com/twinport/twinport/replicator/plan"
)

// signed is an image with referrers by subject, one of them signed itself, and
// one of cosign's tags.
func signed(s *site, repository string) (image ocitest.Content, all []ocitest.Content, cosign string) {
	image = ocitest.MultiArch("signed", 2, 2)
	s.Push(repository, "", image)
	sbom := ocitest.Artifact("sbom", "application/spdx+json", new(image.Descriptor()))
	s.Attach(repository, sbom)
	deep := ocitest.Artifact("sbom's signature", "application/sig", new(sbom.Descriptor()))
	s.Attach(repository, deep)
	cosign, sig := ocitest.CosignTag("signature", image.Digest(), "sig")
	s.Push(repository, cosign, sig)
	return image, []ocitest.Content{image, sbom, deep, sig}, cosign
}

// Whenever the destination's tag is there, all that the source had is there.
func TestATagIsNeverVisibleBeforeItsImageIsWhole(t *testing.T) {
	for name, api := range map[string]bool{"referrers API": true, "fallback tags": false} {
		t.Run(name, func(t *testing.T) {
			o := ocitest.Options{ReferrersAPI: api}
			in(t, star(), func(w *world) {
				eu, us := w.sites["eu"], w.sites["us"]
				image, all, cosign := signed(eu, app)
				var mu sync.Mutex
				looked := 0
				us.after(func(ocitest.Call) {
					mu.Lock()
					defer mu.Unlock()
					looked++
					if us.names(app, "v1") == "" {
						return
					}
					for _, c := range all {
						if !us.Has(app, c) {
							t.Errorf("the tag is visible and %s is not whole", c.Digest())
						}
					}
					if us.names(app, cosign) == "" {
						t.Error("the tag is visible and its signature's tag is not")
					}
				})
				w.push("eu", app, "v1", image)
				w.proven("us", app, "v1", image)
				w.rest()
				if mu.Lock(); looked == 0 {
					t.Error("nobody looked")
				}
				mu.Unlock()
				if !api {
					for _, c := range all[:2] {
						if _, ok := us.Manifest(app, oci.FallbackTag(c.Digest())); !ok {
							t.Errorf("no fallback tag for %s", c.Digest())
						}
					}
				}
			}, having("eu", o), having("us", o))
		})
	}
}

func TestReferrersThatFail(t *testing.T) {
	passing := &oci.RegistryError{Registry: "eu", Operation: "GET referrer", Status: 500, Kind: oci.ErrInterrupted}
	lasting := &oci.RegistryError{Registry: "eu", Operation: "GET referrer", Status: 403, Kind: oci.ErrDenied}
	for _, test := range []struct {
		name, mode string
		fault      error
		moves      bool // although the referrer is lost
		waits      bool // before it moves
	}{
		{"passing", "true", passing, true, true},
		{"for good", "true", lasting, true, false},
		{"passing, required", "required", passing, false, false},
		{"for good, required", "required", lasting, false, false},
		{"not asked for", "false", passing, true, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			in(t, with(route("prod", "eu", "us"), func(r *plan.Route) { r.Referrers = test.mode }), func(w *world) {
				eu, us := w.sites["eu"], w.sites["us"]
				image := ocitest.Image("app", 1)
				sbom := ocitest.Artifact("sbom", "application/spdx+json", new(image.Descriptor()))
				eu.Push(app, "", image)
				eu.Attach(app, sbom)
				eu.on(func(_ context.Context, c ocitest.Call) error {
					if c.Reference == sbom.Digest().String() {
						return test.fault
					}
					return nil
				})
				began := time.Now()
				w.push("eu", app, "v1", image)
				if test.moves {
					w.proven("us", app, "v1", image)
					took := time.Since(began)
					if waited := took >= time.Minute; waited != test.waits || took > 2*time.Minute {
						t.Errorf("the tag moved after %s", took)
					}
					w.rest()
					if f := w.found(replicator.FindingReferrers); (len(f) == 1) != (test.mode == "true") {
						t.Errorf("findings: %+v", f)
					}
					if test.mode == "false" && eu.Count(ocitest.Referrers) != 0 {
						t.Error("referrers were asked for")
					}
					return
				}
				time.Sleep(90 * time.Second)
				if us.names(app, "v1") != "" {
					t.Error("the tag moved without what is required")
				}
				if s := w.status("prod", "us"); s.Lag < 90*time.Second {
					t.Errorf("lag %s", s.Lag)
				}
				eu.off()
				w.proven("us", app, "v1", image)
				if !us.Has(app, sbom) {
					t.Error("what is required is not there")
				}
			})
		})
	}
}

// A referrer that was lost comes with a later look.
func TestALostReferrerComesLater(t *testing.T) {
	in(t, star(), func(w *world) {
		eu, us := w.sites["eu"], w.sites["us"]
		image := ocitest.Image("app", 1)
		w.push("eu", app, "v1", image)
		w.proven("us", app, "v1", image)
		w.rest()
		sbom := ocitest.Artifact("sbom", "application/spdx+json", new(image.Descriptor()))
		eu.Attach(app, sbom)
		ev := w.event("eu", app, oci.FallbackTag(image.Digest()), eu.names(app, oci.FallbackTag(image.Digest())))
		w.accept(ev)
		w.rest()
		if !us.Has(app, sbom) {
			t.Errorf("the referrer did not come:\n%s", w.describe())
		}
		if n := us.tagWrites(app, "v1"); n != 1 {
			t.Errorf("%d writes of the subject's tag", n)
		}
	})
}

// A referrer comes to a subject that has lost content, and that no tag names any
// more at the destination: with it the subject is made whole.
func TestAReferrerMakesItsSubjectWhole(t *testing.T) {
	in(t, star(), func(w *world) {
		eu, us := w.sites["eu"], w.sites["us"]
		image, next := ocitest.Image("app", 1), ocitest.Image("next", 1)
		w.push("eu", app, "v1", image)
		w.proven("us", app, "v1", image)
		w.push("eu", app, "v1", next)
		w.proven("us", app, "v1", next)
		w.rest()
		time.Sleep(time.Minute) // what the proofs have seen counts for a while
		us.Remove(app, image.Blobs[0].Desc.Digest)
		sbom := ocitest.Artifact("sbom", "application/spdx+json", new(image.Descriptor()))
		eu.Attach(app, sbom)
		tag := oci.FallbackTag(image.Digest())
		w.accept(w.event("eu", app, tag, eu.names(app, tag)))
		w.rest()
		if !us.Has(app, sbom) || !us.Has(app, image) {
			t.Errorf("the referrer or its subject is not whole:\n%s", w.describe())
		}
		if j := w.job("us", app, tag); j.State != replicator.Done {
			t.Errorf("the job is %s: %+v", j.State, j.Error)
		}
	})
}

// What is removed at the destination between its PUT and the proof.
func TestContentRemovedBeforeTheProofIsNeverRecorded(t *testing.T) {
	image := ocitest.MultiArch("app", 2, 2)
	for name, victim := range map[string]digest.Digest{
		"blob": image.Blobs[1].Desc.Digest, "child": image.Manifests[0].Digest,
	} {
		t.Run(name, func(t *testing.T) {
			in(t, star(), func(w *world) {
				us := w.sites["us"]
				var mu sync.Mutex
				removing, removed := true, 0
				// Its reading by the proof is the first after its PUT.
				us.on(func(_ context.Context, c ocitest.Call) error {
					mu.Lock()
					defer mu.Unlock()
					if removing && c.Reference == victim.String() && (c.Method == ocitest.HeadBlob || c.Method == ocitest.GetManifest) {
						us.Remove(app, victim)
						removed++
					}
					return nil
				})
				w.push("eu", app, "v1", image)
				w.until("it was removed a few times", func() bool { mu.Lock(); defer mu.Unlock(); return removed >= 3 })
				if _, ok := w.record("us", app, "v1"); ok {
					t.Error("it is on record")
				}
				if us.names(app, "v1") != "" {
					t.Error("the tag is visible")
				}
				if s := w.status("prod", "us"); s.Proven != 0 || s.Remaining != 1 || s.Lag == 0 {
					t.Errorf("status %s", s)
				}
				mu.Lock()
				removing = false
				mu.Unlock()
				w.proven("us", app, "v1", image)
			})
		})
	}
}

// A tag that somebody moves between our PUT and our reading is not proven.
func TestATagMovedRightAfterThePutIsNotRecorded(t *testing.T) {
	in(t, star(), func(w *world) {
		us := w.sites["us"]
		image, other := ocitest.Image("app", 1), ocitest.Image("other", 1)
		us.Push(app, "", other)
		var once sync.Once
		us.after(func(c ocitest.Call) {
			if c.Method == ocitest.PutManifest && c.Reference == "v1" {
				once.Do(func() { us.SetTag(app, "v1", other.Digest()) })
			}
		})
		w.push("eu", app, "v1", image)
		time.Sleep(50 * time.Millisecond)
		if r, ok := w.record("us", app, "v1"); ok {
			t.Errorf("on record as %s", r.Digest)
		}
		// No record: the source wins, and what was there is kept.
		w.proven("us", app, "v1", image)
		w.rest()
		if us.names(app, "twinport-lost-"+other.Digest().Encoded()[:12]) != other.Digest() {
			t.Errorf("what was there is lost: %v", us.TagNames(app))
		}
	})
}

func TestADamagedSource(t *testing.T) {
	image := ocitest.MultiArch("app", 2, 2)
	for _, test := range []struct {
		name    string
		damage  func(*site)
		kind    replicator.FindingKind
		state   replicator.JobState
		errKind string
	}{
		{"corrupt blob", func(s *site) { s.Corrupt(app, image.Blobs[1].Desc.Digest) }, replicator.FindingMismatch, replicator.Failed, "mismatch"},
		{"corrupt child", func(s *site) { s.Corrupt(app, image.Manifests[0].Digest) }, replicator.FindingMismatch, replicator.Failed, "mismatch"},
		{"missing blob", func(s *site) { s.Remove(app, image.Blobs[1].Desc.Digest) }, replicator.FindingSourceIncomplete, replicator.Refused, "source-incomplete"},
		{"missing child", func(s *site) { s.Remove(app, image.Manifests[0].Digest) }, replicator.FindingSourceIncomplete, replicator.Refused, "source-incomplete"},
	} {
		t.Run(test.name, func(t *testing.T) {
			in(t, star(), func(w *world) {
				eu, us := w.sites["eu"], w.sites["us"]
				eu.Push(app, "v1", image)
				test.damage(eu)
				w.accept(w.event("eu", app, "v1", image.Digest()))
				w.rest()
				j := w.job("us", app, "v1")
				if j.State != test.state || j.Error == nil || j.Error.Kind != test.errKind {
					t.Errorf("the job ended %s: %+v", j.State, j.Error)
				}
				if us.names(app, "v1") != "" {
					t.Error("the tag is visible")
				}
				findings := w.allFindings()
				if len(findings) != 1 || findings[0].Kind != test.kind || findings[0].Hint == "" || findings[0].Tag != "v1" {
					t.Errorf("findings:\n%s", w.describe())
				}
				// Pushed again as broken as before, it is looked at again, and refused again.
				if test.state == replicator.Refused {
					w.accept(w.event("eu", app, "v1", image.Digest()))
					w.rest()
					if again := w.job("us", app, "v1"); again.State != test.state || again.Generation == j.Generation {
						t.Errorf("pushed again, the job is %+v", again)
					}
				}
				if s := w.status("prod", "us"); s.Proven != 0 || s.Lag == 0 || s.Refused+s.Failed != 1 {
					t.Errorf("status %s", s)
				}
				// A person has seen it: what is refused is held, and no lag.
				if test.state == replicator.Refused {
					if _, err := (Operator{Daemon: w.Daemon}).Acknowledge(context.Background(), []string{findings[0].ID}, "test"); err != nil {
						t.Fatal(err)
					}
					if s := w.status("prod", "us"); s.Held != 1 || s.Lag != 0 {
						t.Errorf("status after acknowledging: %s", s)
					}
				}
				// Mended and tried again by hand.
				eu.Push(app, "", image)
				if _, err := (Operator{Daemon: w.Daemon}).Retry(context.Background(), filterOf(j.ID), "test"); err != nil {
					t.Fatal(err)
				}
				w.proven("us", app, "v1", image)
			})
		})
	}
}

func TestWhatCannotBeCarriedIsRefused(t *testing.T) {
	in(t, star(), func(w *world) {
		old := ocitest.Schema1("old")
		w.push("eu", app, "old", old)
		w.rest()
		j := w.job("us", app, "old")
		if j.State != replicator.Refused || j.Error.Kind != "unsupported" {
			t.Errorf("the job ended %s: %+v", j.State, j.Error)
		}
		if f := w.found(replicator.FindingUnsupported); len(f) != 1 || f[0].Repository != app || f[0].Tag != "old" {
			t.Errorf("findings: %+v", f)
		}
		// The next push is another digest: tried.
		image := ocitest.Image("new", 1)
		w.push("eu", app, "old", image)
		w.proven("us", app, "old", image)
	})
}

func TestADestinationThatRefuses(t *testing.T) {
	immutable := ocitest.Options{Immutable: func(tag string) bool { return tag == "v1" }}
	in(t, star(), func(w *world) {
		us := w.sites["us"]
		first, second := ocitest.Image("one", 1), ocitest.Image("two", 1)
		w.push("eu", app, "v1", first)
		w.proven("us", app, "v1", first)
		w.push("eu", app, "v1", second)
		w.rest()
		j := w.job("us", app, "v1")
		if j.State != replicator.Refused || j.Error.Kind != "immutable" {
			t.Errorf("the job ended %s: %+v", j.State, j.Error)
		}
		if f := w.found(replicator.FindingConflict); len(f) != 1 {
			t.Errorf("findings:\n%s", w.describe())
		}
		if us.names(app, "v1") != first.Digest() {
			t.Errorf("the tag names %s", us.names(app, "v1"))
		}
		if s := w.status("prod", "us"); s.Refused != 1 || s.Lag == 0 {
			t.Errorf("status %s", s)
		}
		// Acknowledging the finding holds the job: no lag any more.
		f := w.found(replicator.FindingConflict)
		if _, err := (Operator{Daemon: w.Daemon}).Acknowledge(context.Background(), []string{f[0].ID}, "test"); err != nil {
			t.Fatal(err)
		}
		if s := w.status("prod", "us"); s.Held != 1 || s.Lag != 0 {
			t.Errorf("status after acknowledging: %+v", s)
		}
	}, having("us", immutable))
}

// Corrupt content at the destination that answers like good one.
func TestADestinationThatCorruptsManifests(t *testing.T) {
	in(t, star(), func(w *world) {
		us := w.sites["us"]
		image := ocitest.MultiArch("app", 1, 1)
		child := image.Manifests[0].Digest
		us.after(func(c ocitest.Call) {
			if c.Method == ocitest.PutManifest && c.Reference == child.String() {
				us.Corrupt(app, child)
			}
		})
		w.push("eu", app, "v1", image)
		w.rest()
		if j := w.job("us", app, "v1"); j.State != replicator.Failed {
			t.Errorf("the job ended %s", j.State)
		}
		if us.names(app, "v1") != "" {
			t.Error("the tag is visible")
		}
		kinds := []replicator.FindingKind{}
		for _, f := range w.allFindings() {
			kinds = append(kinds, f.Kind)
			if f.Registry != "us" {
				t.Errorf("a finding about %s: %s", f.Registry, f.Message)
			}
		}
		if !slices.Equal(kinds, []replicator.FindingKind{replicator.FindingCorrupt}) {
			t.Errorf("findings:\n%s", w.describe())
		}
	})
}

// One destination's trouble is its own.
func TestDestinationsFailAlone(t *testing.T) {
	in(t, []plan.Route{route("prod", "eu", "us", "ap")}, func(w *world) {
		image := ocitest.MultiArch("app", 2, 2)
		w.sites["ap"].on(func(_ context.Context, c ocitest.Call) error {
			if c.Method == ocitest.PutUpload {
				return &oci.RegistryError{Registry: "ap", Operation: "PUT blob", Status: 500, Kind: oci.ErrInterrupted}
			}
			return nil
		})
		w.push("eu", app, "v1", image)
		w.proven("us", app, "v1", image)
		time.Sleep(10 * time.Second)
		j := w.job("ap", app, "v1")
		if j.State != replicator.Waiting && j.State != replicator.Running || j.Attempts < 2 {
			t.Errorf("job at ap: %s after %d attempts", j.State, j.Attempts)
		}
		if w.sites["ap"].names(app, "v1") != "" {
			t.Error("the tag is visible at ap")
		}
		w.sites["ap"].off()
		w.proven("ap", app, "v1", image)
		w.rest()
	})
}

// Errors shown never hold more than bounded text.
func TestAHostileMessageIsBounded(t *testing.T) {
	in(t, star(), func(w *world) {
		w.sites["us"].on(func(_ context.Context, c ocitest.Call) error {
			if c.Method == ocitest.StartUpload {
				return errors.Join(oci.ErrRefused, errors.New(strings.Repeat("x", 1<<20)))
			}
			return nil
		})
		w.push("eu", app, "v1", ocitest.Image("app", 1))
		w.rest()
		j := w.job("us", app, "v1")
		if j.State != replicator.Refused || len(j.Error.Message) > 2*maxMessage {
			t.Errorf("%s with a message of %d bytes", j.State, len(j.Error.Message))
		}
	})
}
