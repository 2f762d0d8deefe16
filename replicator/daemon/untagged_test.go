package daemon

import (
	"strings"
	"testing"
	"time"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/oci"
	"github.com/twinport/twinport/replicator/oci/ocitest"
	"github.com/twinport/twinport/replicator/plan"
)

func copyUntagged(r *plan.Route) { r.Untagged = true }

func TestUntagged(t *testing.T) {
	for name, wanted := range map[string]bool{"copy": true, "skip": false} {
		t.Run(name, func(t *testing.T) {
			in(t, with(route("prod", "eu", "us"), func(r *plan.Route) { r.Untagged = wanted }), func(w *world) {
				image := ocitest.MultiArch("app", 2, 1)
				w.sites["eu"].Push(app, "", image)
				if n := w.accept(w.event("eu", app, "", image.Digest())); (n == 1) != wanted {
					t.Errorf("%d accepted", n)
				}
				w.rest()
				if got := w.sites["us"].Has(app, image); got != wanted {
					t.Errorf("copied: %t", got)
				}
				r, ok := w.record("us", app, image.Digest().String())
				if ok != wanted || ok && (r.Tag != "" || r.Digest != image.Digest()) {
					t.Errorf("record %+v, %t", r, ok)
				}
				if tags := w.sites["us"].TagNames(app); len(tags) != 0 {
					t.Errorf("tags %v", tags)
				}
			})
		})
	}
}

// A replaced digest is still copied by itself where the route wants digests.
func TestUntaggedKeepsEveryPushByDigest(t *testing.T) {
	in(t, with(route("prod", "eu", "us"), copyUntagged), func(w *world) {
		first, second := ocitest.Image("one", 1), ocitest.Image("two", 1)
		eu := w.sites["eu"]
		eu.Push(app, "v1", first)
		a := w.event("eu", app, "v1", first.Digest())
		eu.Push(app, "v1", second)
		w.accept(a, w.event("eu", app, "v1", second.Digest()))
		w.rest()
		w.proven("us", app, "v1", second)
		if !w.sites["us"].Has(app, first) {
			t.Errorf("the replaced digest was not copied:\n%s", w.describe())
		}
	})
}

func TestAnUntaggedManifestThatIsGone(t *testing.T) {
	in(t, with(route("prod", "eu", "us"), copyUntagged), func(w *world) {
		w.sites["eu"].Push(app, "other", ocitest.Image("other", 1))
		w.accept(w.event("eu", app, "", ocitest.Image("gone", 1).Digest()))
		w.rest()
		if j := w.allJobs()[0]; j.State != replicator.Superseded {
			t.Errorf("the job ended %s: %+v", j.State, j.Error)
		}
	})
}

// A signature or SBOM told of by digest alone comes with its subject.
func TestAReferrerPushedByDigest(t *testing.T) {
	api := ocitest.Options{ReferrersAPI: true}
	for name, replicated := range map[string]bool{"of what is replicated": true, "of what is not": false} {
		t.Run(name, func(t *testing.T) {
			in(t, with(route("prod", "eu", "us"), func(r *plan.Route) { r.Tags.Include = []string{"v*"} }), func(w *world) {
				eu, us := w.sites["eu"], w.sites["us"]
				image := ocitest.Image("app", 1)
				tag := map[bool]string{true: "v1", false: "dev"}[replicated]
				w.push("eu", app, tag, image)
				w.rest()
				sbom := ocitest.Artifact("sbom", "application/spdx+json", new(image.Descriptor()))
				eu.Attach(app, sbom)
				ev := w.event("eu", app, "", sbom.Digest())
				ev.MayRefer = true
				w.accept(ev)
				w.rest()
				if got := us.Has(app, sbom); got != replicated {
					t.Errorf("copied: %t", got)
				}
				j := w.job("us", app, sbom.Digest().String())
				if want := map[bool]replicator.JobState{true: replicator.Done, false: replicator.Superseded}[replicated]; j.State != want {
					t.Errorf("the job ended %s: %+v", j.State, j.Error)
				}
				if s := w.status("prod", "us"); s.Lag != 0 {
					t.Errorf("status %s", s)
				}
			}, having("eu", api), having("us", api))
		})
	}
}

// A referrer that the source does not list (two wrote its fallback index at
// once) is not called proven by what the index says.
func TestAReferrerThatIsNotListed(t *testing.T) {
	in(t, star(), func(w *world) {
		eu, us := w.sites["eu"], w.sites["us"]
		image := ocitest.Image("app", 1)
		w.push("eu", app, "v1", image)
		w.rest()
		sbom := ocitest.Artifact("sbom", "application/spdx+json", new(image.Descriptor()))
		eu.Push(app, "", sbom)
		ev := w.event("eu", app, "", sbom.Digest())
		ev.MayRefer = true
		w.accept(ev)
		w.rest()
		if _, ok := w.record("us", app, sbom.Digest().String()); !ok || !us.Has(app, sbom) {
			t.Errorf("on record %t, there %t", ok, us.Has(app, sbom))
		}
		if m, ok := us.Manifest(app, oci.FallbackTag(image.Digest())); !ok || !strings.Contains(string(m.Bytes), sbom.Digest().String()) {
			t.Error("it is not listed")
		}
		writes := us.Count(ocitest.PutManifest)
		w.accept(ev)
		w.rest()
		if n := us.Count(ocitest.PutManifest); n != writes {
			t.Errorf("%d writes when told again", n-writes)
		}
	})
}

// One that may refer and does not is no image to copy.
func TestAnImageThatMayReferAndDoesNot(t *testing.T) {
	in(t, star(), func(w *world) {
		image := ocitest.Image("app", 1)
		w.sites["eu"].Push(app, "", image)
		ev := w.event("eu", app, "", image.Digest())
		ev.MayRefer = true
		w.accept(ev)
		w.rest()
		if w.sites["us"].Has(app, image) {
			t.Error("it was copied")
		}
		if j := w.allJobs()[0]; j.State != replicator.Superseded {
			t.Errorf("the job ended %s", j.State)
		}
	})
}

func TestCompanionTags(t *testing.T) {
	for name, first := range map[string]bool{"before the image": true, "after the image": false} {
		t.Run(name, func(t *testing.T) {
			in(t, with(route("prod", "eu", "us"), func(r *plan.Route) { r.Tags.Include = []string{"v*"} }), func(w *world) {
				eu, us := w.sites["eu"], w.sites["us"]
				image := ocitest.Image("app", 1)
				tag, sig := ocitest.CosignTag("signature", image.Digest(), "sig")
				eu.Push(app, "", image)
				if first {
					w.push("eu", app, tag, sig)
					time.Sleep(time.Second)
					if us.names(app, tag) != "" {
						t.Error("a signature came before its subject")
					}
					w.push("eu", app, "v1", image)
				} else {
					w.push("eu", app, "v1", image)
					w.proven("us", app, "v1", image)
					w.push("eu", app, tag, sig)
				}
				w.proven("us", app, "v1", image)
				w.proven("us", app, tag, sig)
				w.rest()
				if n := us.tagWrites(app, tag); n != 1 {
					t.Errorf("%d writes of the signature's tag", n)
				}
				// Signed again: cosign appends.
				_, again := ocitest.CosignTag("second signature", image.Digest(), "sig")
				w.push("eu", app, tag, again)
				w.proven("us", app, tag, again)
				if n := us.tagWrites(app, "v1"); n != 1 {
					t.Errorf("%d writes of the subject's tag", n)
				}
			})
		})
	}
}

// A companion whose subject no route carries ends by itself.
func TestACompanionWithoutASubject(t *testing.T) {
	in(t, with(route("prod", "eu", "us"), func(r *plan.Route) { r.Tags.Include = []string{"v*"} }), func(w *world) {
		image := ocitest.Image("app", 1)
		tag, sig := ocitest.CosignTag("signature", image.Digest(), "sig")
		w.push("eu", app, "dev", image)
		w.push("eu", app, tag, sig)
		w.rest()
		if j := w.job("us", app, tag); j.State != replicator.Superseded {
			t.Errorf("the job ended %s: %+v", j.State, j.Error)
		}
		if tags := w.sites["us"].TagNames(app); len(tags) != 0 {
			t.Errorf("tags %v", tags)
		}
	})
}

// An index that has grown before the tag was linked: the event is early.
func TestAnEarlyEventOfAFallbackTag(t *testing.T) {
	for name, routes := range map[string][]plan.Route{"one way": star(), "two ways": pair()} {
		t.Run(name, func(t *testing.T) {
			in(t, routes, func(w *world) {
				eu, us := w.sites["eu"], w.sites["us"]
				image := ocitest.Image("app", 1)
				tag := oci.FallbackTag(image.Digest())
				one := ocitest.Artifact("one", "application/spdx+json", new(image.Descriptor()))
				two := ocitest.Artifact("two", "application/spdx+json", new(image.Descriptor()))
				w.push("eu", app, "v1", image)
				eu.Attach(app, one)
				before := eu.names(app, tag)
				w.accept(w.event("eu", app, tag, before))
				w.rest()
				eu.Attach(app, two)
				now := eu.names(app, tag)
				eu.SetTag(app, tag, before)
				w.accept(w.event("eu", app, tag, now))
				time.Sleep(time.Second)
				eu.SetTag(app, tag, now)
				w.rest()
				for i, c := range []ocitest.Content{one, two} {
					if !us.Has(app, c) {
						t.Errorf("referrer %d is not there", i)
					}
				}
			})
		})
	}
}

// Registries that copy untagged manifests both ways do not tell each other of
// them for ever.
func TestUntaggedBothWaysEnds(t *testing.T) {
	in(t, pair(copyUntagged), func(w *world) {
		w.echo(after(10*time.Millisecond), "eu", "us")
		image, _, _ := signed(w.sites["eu"], app)
		w.push("eu", app, "v1", image)
		w.accept(w.event("eu", app, "", image.Manifests[0].Digest))
		untagged := ocitest.Image("untagged", 1)
		w.sites["us"].Push(app, "", untagged)
		w.accept(w.event("us", app, "", untagged.Digest()))
		w.settle()
		w.proven("us", app, "v1", image)
		if !w.sites["eu"].Has(app, untagged) {
			t.Error("the untagged image was not copied")
		}
		counts := func() int {
			return w.sites["eu"].Count(ocitest.PutManifest) + w.sites["us"].Count(ocitest.PutManifest)
		}
		n := counts()
		time.Sleep(time.Minute)
		w.settle()
		if counts() != n {
			t.Errorf("%d writes later", counts()-n)
		}
	})
}
