package daemon

import (
	"testing"
	"time"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/journal"
	"github.com/twinport/twinport/replicator/oci/ocitest"
)

// A registry answers a HEAD for a damaged blob as if it were whole: what a deep
// reading found damaged is not called proven again by a mere look at it.
func TestADamagedDestinationIsNotInSync(t *testing.T) {
	in(t, star(), func(w *world) {
		image := ocitest.Image("app", 1)
		us := w.sites["us"]
		w.sites["eu"].Push(app, "v1", image)
		sync := func() SyncResult {
			result, err := w.Sync(w.Context(), SyncOptions{Full: true, RetryFor: time.Minute})
			if err != nil {
				t.Fatal(err)
			}
			return result
		}
		if result := sync(); !result.InSync() {
			t.Fatalf("%+v", result)
		}
		damaged := image.Blobs[0].Desc.Digest
		us.Corrupt(app, damaged)
		verified, err := w.Verify(w.Context(), nil, true)
		if err != nil || len(verified.Corrupt) != 1 {
			t.Fatalf("%+v, %v", verified, err)
		}
		if result := sync(); result.InSync() {
			t.Errorf("in sync with a damaged blob: %+v", result)
		}
		if s := w.status("prod", "us"); s.Proven != 0 || s.Remaining != 1 {
			t.Errorf("status %+v", s)
		}
		us.Remove(app, damaged)
		o := Operator{Daemon: w.Daemon}
		if _, err := o.Retry(w.Context(), filterOf(w.job("us", app, "v1").ID), "test"); err != nil {
			t.Fatal(err)
		}
		if result := sync(); !result.InSync() {
			t.Errorf("not in sync, though mended: %+v\n%s", result, w.describe())
		}
		// Acknowledged, it is looked at as any other.
		findings, err := o.Findings(w.Context(), journal.FindingFilter{Kind: replicator.FindingCorrupt})
		if err != nil || len(findings.Findings) == 0 {
			t.Fatalf("%+v, %v", findings, err)
		}
		for _, f := range findings.Findings {
			if _, err := o.Acknowledge(w.Context(), []string{f.ID}, "test"); err != nil {
				t.Fatal(err)
			}
		}
		us.ResetCalls()
		sync()
		if n := us.Count(ocitest.GetBlob); n != 0 {
			t.Errorf("%d blobs were read", n)
		}
	}, oneShot())
}
