package daemon

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/oci"
	"github.com/twinport/twinport/replicator/oci/ocitest"
)

// A tag's PUT that was given up takes effect after the next push was proven:
// the older state is found without any event, told and repaired.
func TestAMoveThatComesLate(t *testing.T) {
	for _, late := range []time.Duration{3 * time.Second, 40 * time.Second, 110 * time.Second} {
		t.Run(late.String(), func(t *testing.T) {
			in(t, star(), func(w *world) {
				us := w.sites["us"]
				first, second, third := ocitest.Image("one", 1), ocitest.Image("two", 1), ocitest.Image("three", 1)
				w.push("eu", app, "v1", first)
				w.proven("us", app, "v1", first)
				w.rest()
				var given atomic.Bool
				us.on(func(ctx context.Context, c ocitest.Call) error {
					if c.Method != ocitest.PutManifest || c.Reference != "v1" || given.Swap(true) {
						return nil
					}
					<-ctx.Done() // the request is out there, and nobody waits for it any more
					return &oci.RegistryError{Registry: "us", Operation: "PUT manifest", Kind: oci.ErrInterrupted, Cause: context.Cause(ctx)}
				})
				w.push("eu", app, "v1", second)
				w.until("its answer never came", given.Load)
				w.push("eu", app, "v1", third)
				w.proven("us", app, "v1", third)
				w.rest()
				time.Sleep(late)
				us.Push(app, "v1", second)
				w.until("it is repaired", func() bool { return us.names(app, "v1") == third.Digest() })
				w.rest()
				w.proven("us", app, "v1", third)
				f := w.found(replicator.FindingRegressed)
				if len(f) != 1 || f[0].Registry != "us" || f[0].Tag != "v1" || f[0].Digest != second.Digest() || len(w.allFindings()) != 1 {
					t.Errorf("findings:\n%s", w.describe())
				}
				for _, tag := range us.TagNames(app) {
					if tag != "v1" {
						t.Errorf("tag %s was made for what is not lost", tag)
					}
				}
			})
		})
	}
}

// What we wrote before and the tag names again is ours only for a while after
// our own move; then, or where it never was ours, it is somebody's and kept.
func TestWhatIsARegressionAndWhatIsDrift(t *testing.T) {
	first, second, other := ocitest.Image("one", 1), ocitest.Image("two", 1), ocitest.Image("other", 1)
	for name, c := range map[string]struct {
		after time.Duration
		named ocitest.Content
		kind  replicator.FindingKind
		ends  ocitest.Content
	}{
		"an older state, at once":    {time.Minute, first, replicator.FindingRegressed, second},
		"an older state, much later": {10 * time.Minute, first, replicator.FindingDrift, first},
		"something else, at once":    {time.Second, other, replicator.FindingDrift, other},
		"something else, later":      {5 * time.Minute, other, replicator.FindingDrift, other},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, star(), func(w *world) {
				us := w.sites["us"]
				w.push("eu", app, "v1", first)
				w.proven("us", app, "v1", first)
				w.rest()
				w.push("eu", app, "v1", second)
				w.proven("us", app, "v1", second)
				w.rest()
				us.Push(app, "else", c.named)
				time.Sleep(c.after)
				us.SetTag(app, "v1", c.named.Digest())
				w.accept(w.event("eu", app, "v1", second.Digest()))
				w.rest()
				if got := us.names(app, "v1"); got != c.ends.Digest() {
					t.Errorf("it names %s", got)
				}
				if f := w.allFindings(); len(f) != 1 || f[0].Kind != c.kind {
					t.Errorf("findings:\n%s", w.describe())
				}
			})
		})
	}
}

// Moves of our own whose answers were lost are known for ours when they come
// late, whether they were on record or not.
func TestALateMoveIsKnownForOurs(t *testing.T) {
	first, second := ocitest.Image("one", 1), ocitest.Image("two", 1)
	for name, c := range map[string]struct {
		// lost is which move's answer is lost, taken says that it was made.
		lost  int32
		taken bool
		// proven: the first push is proven before the next comes.
		proven bool
		// told: an event has the tag looked at; else a look of our own does.
		told bool
	}{
		"the move it follows was taken without an answer": {2, true, true, true},
		"the tag's first move":                            {1, false, false, true},
		"a move that succeeded at the second try":         {1, false, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, star(), func(w *world) {
				us := w.sites["us"]
				var moves atomic.Int32
				us.on(func(_ context.Context, call ocitest.Call) error {
					if call.Method != ocitest.PutManifest || call.Reference != "v1" || moves.Add(1) != c.lost {
						return nil
					}
					if c.taken {
						us.Push(app, "v1", second)
					}
					return &oci.RegistryError{Registry: "us", Operation: "PUT manifest", Kind: oci.ErrInterrupted}
				})
				w.push("eu", app, "v1", first)
				w.until("its move", func() bool { return moves.Load() > 0 })
				if c.proven {
					w.proven("us", app, "v1", first)
					w.rest()
				}
				w.push("eu", app, "v1", second)
				w.proven("us", app, "v1", second)
				w.rest()
				time.Sleep(20 * time.Second)
				us.Push(app, "v1", first)
				if c.told {
					w.accept(w.event("eu", app, "v1", second.Digest()))
				}
				w.until("it is repaired", func() bool { return us.names(app, "v1") == second.Digest() })
				w.rest()
				if f := w.allFindings(); len(f) != 1 || f[0].Kind != replicator.FindingRegressed {
					t.Errorf("findings:\n%s", w.describe())
				}
			})
		})
	}
}

// A push that goes back to what the tag names still has nothing to move: the
// move in between, which was given up, may come after it all the same.
func TestAMoveThatComesLateAfterARollback(t *testing.T) {
	first, second := ocitest.Image("one", 1), ocitest.Image("two", 1)
	in(t, star(), func(w *world) {
		us := w.sites["us"]
		w.push("eu", app, "v1", first)
		w.proven("us", app, "v1", first)
		w.rest()
		var given atomic.Bool
		us.on(func(_ context.Context, call ocitest.Call) error {
			if call.Method != ocitest.PutManifest || call.Reference != "v1" || given.Swap(true) {
				return nil
			}
			return &oci.RegistryError{Registry: "us", Operation: "PUT manifest", Kind: oci.ErrInterrupted}
		})
		w.push("eu", app, "v1", second)
		w.until("its answer never came", given.Load)
		w.push("eu", app, "v1", first)
		w.rest()
		w.proven("us", app, "v1", first)
		time.Sleep(20 * time.Second)
		us.Push(app, "v1", second)
		w.until("it is repaired", func() bool { return us.names(app, "v1") == first.Digest() })
		w.rest()
		if f := w.allFindings(); len(f) != 1 || f[0].Kind != replicator.FindingRegressed {
			t.Errorf("findings:\n%s", w.describe())
		}
	})
}
