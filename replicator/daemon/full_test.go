package daemon

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twinport/twinport/replicator/journal"
	"github.com/twinport/twinport/replicator/oci/ocitest"
)

// A journal that takes nothing for ten minutes, its disk being full: what was
// copied meanwhile is written down when there is room again, and not done twice.
func TestAJournalThatTakesNothingForLong(t *testing.T) {
	full := new(atomic.Bool)
	step := func(w *world) {
		w.step = func(_ context.Context, s journal.Stage) error {
			if s == journal.StageCommit && full.Load() {
				return errors.New("no space is left for the journal")
			}
			return nil
		}
	}
	in(t, star(), func(w *world) {
		us := w.sites["us"]
		image := ocitest.Image("one", 1)
		us.after(func(c ocitest.Call) {
			if c.Method == ocitest.PutManifest && c.Reference == "v1" {
				full.Store(true) // between the copy and its being written down
			}
		})
		w.push("eu", app, "v1", image)
		w.until("the tag is moved", func() bool { return us.names(app, "v1") == image.Digest() })
		time.Sleep(10 * time.Minute)
		if _, known := w.record("us", app, "v1"); known {
			t.Error("a record was written to a full disk")
		}
		full.Store(false)
		began := time.Now()
		w.proven("us", app, "v1", image)
		w.rest()
		if took := time.Since(began); took > 2*lastBusy {
			t.Errorf("it took %s until it was written", took)
		}
		if n := us.tagWrites(app, "v1"); n != 1 {
			t.Errorf("the tag was moved %d times", n)
		}
	}, step)
}
