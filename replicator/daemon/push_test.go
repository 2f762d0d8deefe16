package daemon

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/oci"
	"github.com/twinport/twinport/replicator/oci/ocitest"
	"github.com/twinport/twinport/replicator/plan"
)

func TestAPushIsCopiedAndProven(t *testing.T) {
	in(t, []plan.Route{route("prod", "eu", "us", "ap")}, func(w *world) {
		image := ocitest.MultiArch("app", 3, 2)
		w.push("eu", app, "v1", image)
		for _, name := range []string{"us", "ap"} {
			w.proven(name, app, "v1", image)
		}
		w.rest()
		for _, name := range []string{"us", "ap"} {
			r, _ := w.record(name, app, "v1")
			if !r.Wrote || r.Route != "prod" || r.Source.Registry != "eu" || r.Bytes == 0 || r.ReferrersAt.IsZero() || r.PushedAt.IsZero() {
				t.Errorf("record at %s: %+v", name, r)
			}
			s := w.status("prod", name)
			if s.Lag != 0 || s.Remaining != 0 || s.Proven != 1 || s.LastProof.IsZero() {
				t.Errorf("status of %s: %+v", name, s)
			}
			j := w.job(name, app, "v1")
			if j.State != replicator.Done {
				t.Errorf("job at %s: %s", name, j.State)
			}
			history, err := w.journal.History(context.Background(), w.sites[name].Identity(), app, "v1", nil, 10)
			if err != nil || len(history) != 1 || history[0].Digest != image.Digest() || history[0].Cause != "copied" {
				t.Errorf("history at %s: %+v, %v", name, history, err)
			}
			if got := w.sites[name].tagWrites(app, "v1"); got != 1 {
				t.Errorf("%d writes of the tag at %s", got, name)
			}
			if n := w.sites[name].OpenSessions(); n != 0 {
				t.Errorf("%d uploads left open at %s", n, name)
			}
		}
		history, err := w.journal.History(context.Background(), w.sites["eu"].Identity(), app, "v1", nil, 10)
		if err != nil || len(history) != 1 || history[0].Digest != image.Digest() || history[0].Cause != causeTimed {
			t.Errorf("history at the source: %+v, %v", history, err)
		}
		totals := w.Totals()
		if totals.Copied != 2 || totals.Moved != 0 || totals.TagWrites != 2 || totals.Ended != 2 {
			t.Errorf("totals %+v", totals)
		}
		if len(w.allFindings()) != 0 {
			t.Errorf("findings:\n%s", w.describe())
		}
	})
}

// The budget of requests: for a cold copy of an image with P platforms
// and L blobs.
func TestRequestsOfAColdCopy(t *testing.T) {
	for _, test := range []struct {
		name      string
		referrers string
		signed    bool
	}{
		{"without referrers", "false", false},
		{"with none to find", "true", false},
		{"signed", "true", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			in(t, with(route("prod", "eu", "us"), func(r *plan.Route) { r.Referrers = test.referrers }), func(w *world) {
				const platforms = 3
				image := ocitest.MultiArch("app", platforms, 2)
				blobs := len(image.Blobs)
				eu, us := w.sites["eu"], w.sites["us"]
				signature := ocitest.Artifact("sig", "application/sig", new(image.Descriptor()))
				if test.signed {
					eu.Attach(app, signature)
				}
				w.push("eu", app, "v1", image)
				w.proven("us", app, "v1", image)
				w.rest()

				reads := 0
				for _, c := range eu.Calls() {
					if c.Method == ocitest.GetManifest || c.Method == ocitest.HeadManifest {
						if _, _, companion := oci.CompanionSubject(c.Reference); !companion && c.Reference != signature.Digest().String() {
							reads++
						}
					}
				}
				if most := 2 + platforms; reads > most {
					t.Errorf("%d manifest reads at the source, at most %d", reads, most)
				}
				asked := eu.Count(ocitest.Referrers)
				for _, c := range eu.Calls() {
					if _, _, companion := oci.CompanionSubject(c.Reference); companion {
						asked++
					}
				}
				most := map[string]int{"false": 0, "true": 5}[test.referrers] // the API once, since it has none
				if test.signed {
					most += 1 // the signature's own referrers
				}
				if asked > most {
					t.Errorf("%d requests for referrers at the source, at most %d: %v", asked, most, eu.Calls())
				}
				puts := blobs
				manifests := platforms + 1
				if test.signed {
					puts += len(signature.Blobs)
					manifests += 1 + 1 + 1 // the signature, its index, the root by its digest
				}
				if got := eu.Count(ocitest.GetBlob); got != puts {
					t.Errorf("%d blob reads at the source, want %d", got, puts)
				}
				if got := us.Count(ocitest.StartUpload, ocitest.PutUpload); got != 2*puts {
					t.Errorf("%d upload requests, want %d", got, 2*puts)
				}
				if got := us.Count(ocitest.PutManifest); got != manifests {
					t.Errorf("%d manifests put, want %d", got, manifests)
				}
				if got := us.Count(ocitest.HeadBlob); got > puts {
					t.Errorf("%d blobs asked for, at most %d: the proof's", got, puts)
				}
			})
		})
	}
}

func TestASecondTagOfTheSameImageUploadsNothing(t *testing.T) {
	in(t, star(), func(w *world) {
		image := ocitest.MultiArch("app", 2, 3)
		w.push("eu", app, "v1", image)
		w.proven("us", app, "v1", image)
		w.rest()
		us := w.sites["us"]
		us.ResetCalls()
		w.sites["eu"].ResetCalls()
		w.push("eu", app, "latest", image)
		w.proven("us", app, "latest", image)
		w.rest()
		w.push("eu", "other/app", "v1", image)
		w.proven("us", "other/app", "v1", image)
		if got := us.Count(ocitest.PutUpload) + w.sites["eu"].Count(ocitest.GetBlob); got != 0 {
			t.Errorf("%d blobs sent or read again", got)
		}
	})
}

func TestTheProofTimesArriveAtObservers(t *testing.T) {
	in(t, star(), func(w *world) {
		var mu sync.Mutex
		var took []time.Duration
		w.ObserveReplication(func(route, destination string, d time.Duration) {
			mu.Lock()
			defer mu.Unlock()
			if route != "prod" || destination != "us" {
				t.Errorf("observed %s %s", route, destination)
			}
			took = append(took, d)
		})
		w.start()
		image := ocitest.Image("app", 1)
		w.sites["eu"].Push(app, "v1", image)
		ev := w.event("eu", app, "v1", image.Digest())
		ev.PushedAt = w.clock().Add(-time.Minute)
		w.accept(ev)
		w.rest()
		mu.Lock()
		defer mu.Unlock()
		if len(took) != 1 || took[0] < time.Minute || took[0] > 2*time.Minute {
			t.Errorf("observed %v", took)
		}
	}, idle())
}

// kinds of content that must arrive as they are.
func TestEveryKindOfContentArrives(t *testing.T) {
	contents := map[string]ocitest.Content{
		"oci":      ocitest.Image("oci", 2),
		"docker":   ocitest.DockerImage("docker", 2),
		"list":     ocitest.DockerList(ocitest.DockerImage("a", 1), ocitest.DockerImage("b", 1)),
		"nested":   ocitest.Index(ocitest.MultiArch("inner", 2, 1), ocitest.Image("outer", 1)),
		"helm":     ocitest.HelmChart("chart"),
		"artifact": ocitest.Artifact("artifact", "application/thing", nil),
		"sha512":   ocitest.SHA512Image("sha512"),
		"foreign":  ocitest.ForeignImage("foreign"),
	}
	in(t, star(), func(w *world) {
		for tag, c := range contents {
			w.push("eu", app, tag, c)
		}
		w.rest()
		for tag, c := range contents {
			w.proven("us", app, tag, c)
		}
		if f := w.found(replicator.FindingForeignLayer); len(f) != 1 || f[0].Tag != "foreign" || f[0].Registry != "us" {
			t.Errorf("findings of foreign layers: %+v", f)
		}
		if n := len(w.allFindings()); n != 1 {
			t.Errorf("%d findings:\n%s", n, w.describe())
		}
	})
}

func TestAnEventWithoutADigestIsResolved(t *testing.T) {
	in(t, star(), func(w *world) {
		image := ocitest.Image("app", 1)
		w.sites["eu"].Push(app, "v1", image)
		w.accept(w.event("eu", app, "v1", ""))
		w.proven("us", app, "v1", image)
		w.rest()
		if d := w.job("us", app, "v1").Digest; d != image.Digest() {
			t.Errorf("the job says %q", d)
		}
	})
}

func TestWhatNobodyWantsIsNotAccepted(t *testing.T) {
	in(t, with(route("prod", "eu", "us"), func(r *plan.Route) { r.Repositories.Include = []string{"team/**"} }), func(w *world) {
		image := ocitest.Image("app", 1)
		d := image.Digest()
		for name, ev := range map[string]replicator.Event{
			"another repository":  w.event("eu", "private/app", "v1", d),
			"another registry":    w.event("us", app, "v1", d),
			"an unknown registry": w.event("nowhere", app, "v1", d),
			"untagged":            w.event("eu", app, "", d),
			"a hostile name":      w.event("eu", "team/../../etc", "v1", d),
		} {
			if n := w.accept(ev); n != 0 {
				t.Errorf("%s: %d accepted", name, n)
			}
		}
		deleted := w.event("eu", app, "v1", "")
		deleted.Action = replicator.Delete
		if n := w.accept(deleted); n != 0 {
			t.Errorf("a deletion: %d accepted", n)
		}
		if jobs := w.allJobs(); len(jobs) != 0 {
			t.Errorf("jobs: %+v", jobs)
		}
		history, err := w.journal.History(context.Background(), w.sites["eu"].Identity(), app, "v1", nil, 10)
		if err != nil || len(history) != 1 || history[0].Digest != digest.Digest("") || history[0].Cause != "deleted" {
			t.Errorf("history of the deleted tag: %+v, %v", history, err)
		}
	})
}
