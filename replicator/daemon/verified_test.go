package daemon

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/oci"
	"github.com/twinport/twinport/replicator/oci/ocitest"
	"github.com/twinport/twinport/replicator/plan"
)

func TestVerify(t *testing.T) {
	image := ocitest.MultiArch("app", 2, 2)
	blob, child := image.Blobs[1].Desc.Digest, image.Manifests[0].Digest
	for _, test := range []struct {
		name             string
		damage           func(*site)
		deep             bool
		missing, corrupt []digest.Digest
	}{
		{"all is well", func(*site) {}, false, nil, nil},
		{"all is well, deep", func(*site) {}, true, nil, nil},
		{"a blob is gone", func(s *site) { s.Remove(app, blob) }, false, []digest.Digest{blob}, nil},
		{"a child is gone", func(s *site) { s.Remove(app, child) }, false, []digest.Digest{child}, nil},
		{"a tag is gone", func(s *site) { s.SetTag(app, "v1", "") }, false, []digest.Digest{image.Digest()}, nil},
		{"the repository is gone", func(s *site) { s.RemoveRepository(app) }, false, []digest.Digest{image.Digest()}, nil},
		{"a blob is corrupt", func(s *site) { s.Corrupt(app, blob) }, true, nil, []digest.Digest{blob}},
		{"a blob is corrupt, and nobody looks", func(s *site) { s.Corrupt(app, blob) }, false, nil, nil},
		{"a manifest is corrupt", func(s *site) { s.Corrupt(app, child) }, false, nil, []digest.Digest{child}},
	} {
		t.Run(test.name, func(t *testing.T) {
			in(t, star(), func(w *world) {
				w.push("eu", app, "v1", image)
				w.proven("us", app, "v1", image)
				w.rest()
				w.halt() // what is damaged is not mended before it has been looked at
				before, _ := w.record("us", app, "v1")
				test.damage(w.sites["us"])
				w.jump(time.Hour)
				result, err := w.Verify(context.Background(), nil, test.deep)
				if err != nil || result.Errors != nil || result.Checked != 1 {
					t.Fatalf("%+v, %v", result, err)
				}
				same := func(what string, got []Verified, want []digest.Digest, kind replicator.FindingKind) {
					if len(got) != len(want) {
						t.Fatalf("%s: %+v, want %v", what, got, want)
					}
					for i := range want {
						if got[i].Digest != want[i] || got[i].Tag != "v1" || got[i].Place.Registry != "us" || got[i].Place.Repository != app {
							t.Errorf("%s: %+v", what, got[i])
						}
					}
					if f := w.found(kind); len(f) != len(want) {
						t.Errorf("findings:\n%s", w.describe())
					}
				}
				same("missing", result.Missing, test.missing, replicator.FindingMissing)
				same("corrupt", result.Corrupt, test.corrupt, replicator.FindingCorrupt)
				r, ok := w.record("us", app, "v1")
				if sound := len(test.missing)+len(test.corrupt) == 0; ok != sound || sound && !r.ProvenAt.After(before.ProvenAt) {
					t.Errorf("record %+v, %t", r, ok)
				}
			})
		})
	}
}

// Without any record, what the sources want there is read back.
func TestVerifyWithoutAJournal(t *testing.T) {
	in(t, star(), func(w *world) {
		eu, us := w.sites["eu"], w.sites["us"]
		all := fill(eu, 2, 2)
		fill(us, 2, 2)
		us.SetTag("team/app1", "v1", "")
		result, err := w.Verify(context.Background(), []string{"prod"}, true)
		if err != nil || result.Checked != 4 || len(result.Missing) != 1 || len(result.Corrupt) != 0 {
			t.Fatalf("%+v, %v", result, err)
		}
		if m := result.Missing[0]; m.Tag != "v1" || m.Digest != all["team/app1"]["v1"].Digest() {
			t.Errorf("%+v", m)
		}
	}, idle())
}

func TestVerifyOfADestinationThatCannotBeAsked(t *testing.T) {
	in(t, []plan.Route{route("prod", "eu", "us", "ap")}, func(w *world) {
		image := ocitest.Image("app", 1)
		w.push("eu", app, "v1", image)
		w.rest()
		w.sites["us"].faulty(&oci.RegistryError{Registry: "us", Operation: "x", Status: 500, Kind: oci.ErrInterrupted}, ocitest.GetManifest)
		result, err := w.Verify(context.Background(), nil, false)
		if err != nil || result.Errors == nil || !errors.Is(result.Errors, oci.ErrInterrupted) || len(result.Missing) != 0 {
			t.Fatalf("%+v, %v", result, err)
		}
		if _, ok := w.record("us", app, "v1"); !ok {
			t.Error("no answer is no loss, and the record is gone")
		}
	})
}

// A tag that somebody moved is drift, not loss.
func TestVerifyOfDrift(t *testing.T) {
	in(t, star(), func(w *world) {
		image, theirs := ocitest.Image("app", 1), ocitest.Image("theirs", 1)
		w.push("eu", app, "v1", image)
		w.rest()
		w.sites["us"].Push(app, "v1", theirs)
		result, err := w.Verify(context.Background(), nil, true)
		if err != nil || len(result.Missing)+len(result.Corrupt) != 0 || result.Errors != nil {
			t.Fatalf("%+v, %v", result, err)
		}
	})
}

// What is known to be corrupt is not in sync until its bytes are read again:
// registries answer a HEAD as if nothing had happened.
func TestCorruptContentIsNeverReportedInSync(t *testing.T) {
	in(t, swept(), func(w *world) {
		us := w.sites["us"]
		image := ocitest.Image("app", 2)
		w.push("eu", app, "v1", image)
		w.firstPass()
		w.proven("us", app, "v1", image)
		us.Corrupt(app, image.Blobs[1].Desc.Digest)
		found := time.Now()
		result, err := w.Verify(context.Background(), nil, true)
		if err != nil || len(result.Corrupt) != 1 {
			t.Fatalf("%+v, %v", result, err)
		}
		w.until("it is behind", func() bool { return w.status("prod", "us").Remaining == 1 })
		if took := time.Since(found); took > 10*time.Second {
			t.Errorf("green for %s", took)
		}
		time.Sleep(3 * quarter) // sweeps find the tag right, and no record
		if r, ok := w.record("us", app, "v1"); ok {
			t.Errorf("corrupt content is on record as proven at %s", r.ProvenAt)
		}
		if s := w.status("prod", "us"); s.Proven != 0 || s.State == RPOMet && s.Lag == 0 {
			t.Errorf("status %s", s)
		}
		// Mended at the storage.
		us.Remove(app, image.Blobs[1].Desc.Digest)
		sync, err := w.Sync(context.Background(), SyncOptions{Full: true, RetryFor: time.Minute})
		if err != nil || !sync.InSync() {
			t.Errorf("%+v, %v\n%s", sync, err, w.describe())
		}
		w.proven("us", app, "v1", image)
	})
}
